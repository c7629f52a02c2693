/*
 * dispatch.c - the only file that knows the processor: picks a table of kernels, adds memory and
 * threads.
 */
#include <cpuid.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/pool.h"

enum { ALIGN = 64 };

/* Memory of at least `bytes`, on a cache line; NULL when there is none. */
static void *alloc_aligned(size_t bytes)
{
    if (IN_RUNNER) /* its malloc is aligned, and its memory zero */
        return malloc(bytes);
    if (bytes > SIZE_MAX - ALIGN)
        return NULL;
    size_t rounded = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    return aligned_alloc(ALIGN, rounded);
}

static void *cpu_alloc(struct kern *k, size_t bytes)
{
    (void)k;
    void *p = alloc_aligned(bytes);
    if (!IN_RUNNER && p)
        memset(p, 0, bytes);
    return p;
}

static void cpu_free(struct kern *k, void *p)
{
    (void)k;
    free(p);
}

static void cpu_copy(struct kern *k, void *dst, const void *src, size_t bytes)
{
    (void)k;
    if (IN_RUNNER || bytes)
        memcpy(dst, src, bytes);
}

static void cpu_zero(struct kern *k, void *dst, size_t bytes)
{
    (void)k;
    if (IN_RUNNER || bytes)
        memset(dst, 0, bytes);
}

static enum err_code cpu_sync(struct kern *k, struct err *e)
{
    struct cpu *c = k->impl;
    unsigned long long failed = IN_RUNNER ? 0 : c->failed;
    c->failed = 0;
    return failed ? err_nomem(e, "temporary values", failed) : ERR_OK;
}

bool(cpu_reserve)(struct cpu *c, size_t shared, size_t per_thread)
{
    enum { LINE = ALIGN / sizeof(float) };
    const size_t limit = SIZE_MAX / 8 / sizeof(float);
    if (!IN_RUNNER && (shared > limit || per_thread > limit / c->threads))
        goto fail;
    shared = (shared + LINE - 1) / LINE * LINE;
    per_thread = (per_thread + LINE - 1) / LINE * LINE;
    size_t need = shared + per_thread * c->threads;
    if (need > c->scratch_floats || (!IN_RUNNER && !c->scratch)) {
        free(c->scratch);
        c->scratch = alloc_aligned(need * sizeof(float));
        c->scratch_floats = IN_RUNNER || c->scratch ? need : 0;
        if (!IN_RUNNER && !c->scratch)
            goto fail;
    }
    c->shared = shared;
    c->per_thread = per_thread;
    return true;
fail:
    if (!c->failed)
        c->failed = ((unsigned long long)shared + (unsigned long long)per_thread * c->threads) *
                    sizeof(float);
    return false;
}

void cpu_parallel(struct cpu *c, cpu_task *fn, void *ctx, size_t ntasks)
{
    pool_run(c->pool, fn, ctx, ntasks);
}

/* The register state that the operating system saves (XCR0, Intel SDM vol. 1, 13.3). */
static uint64_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* 0 portable, 1 also avx2, 2 also avx512: what processor and operating system support. */
static size_t isa_level(void)
{
    enum { SSE_AVX = 0x06, ZMM_OPMASK = 0xe0 };
    const unsigned avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE) || !(c & bit_FMA))
        return 0;
    uint64_t saved = saved_state();
    __cpuid_count(7, 0, a, b, c, d); /* every processor with FMA has this leaf */
    if ((saved & SSE_AVX) != SSE_AVX || !(b & bit_AVX2))
        return 0;
    return (saved & ZMM_OPMASK) == ZMM_OPMASK && (b & avx512) == avx512 ? 2 : 1;
}

__attribute__((unused)) static void cpu_close(struct kern *k)
{
    struct cpu *c = k->impl;
    pool_free(c->pool);
    free(c->scratch);
    free(c);
    free(k);
}

#ifdef KERN_SMALL
int cpu_level;
#endif

enum err_code kern_cpu(struct kern **out, size_t threads, struct err *e)
{
#ifndef KERN_SMALL /* which has one table for all */
    static const struct kern *const tables[] = {&cpu_isa_portable, &cpu_isa_avx2, &cpu_isa_avx512};
#endif
    static const char names[][9] = {"portable", "avx2", "avx512"};
    *out = NULL;
    size_t have = isa_level(), isa = have;
    const char *wanted = getenv("KERN_ISA");
    if (wanted && *wanted) {
        for (isa = 0; isa < 3 && strcmp(wanted, names[isa]) != 0; isa++)
            ;
        if (!IN_RUNNER && isa == 3) /* where the next message has to do */
            return err_set(e, ERR_USAGE, "KERN_ISA=%s: expected portable, avx2 or avx512", wanted);
        if (isa > have)
            return err_set(e, ERR_USAGE, "KERN_ISA=%s: this machine has %s", wanted, names[have]);
    }

    struct kern *k = calloc(1, sizeof *k);
    struct cpu *c = calloc(1, sizeof *c);
    if (!k || !c) {
        free(k);
        free(c);
        return err_nomem(e, "cpu backend", sizeof *k + sizeof *c);
    }
#ifdef KERN_SMALL
    *k = cpu_isa_once;
    cpu_level = (int)isa;
#else
    *k = *tables[isa];
#endif
    k->impl = c;
    k->alloc = cpu_alloc;
    k->free = cpu_free;
    k->upload = cpu_copy;
    k->download = cpu_copy;
    k->zero = cpu_zero;
    k->sync = cpu_sync;
#ifndef RUNNER /* which ends with its process */
    k->close = cpu_close;
    cpu_fill_train(k);
#endif
    c->threads = threads ? threads : pool_cores();
    enum err_code rc = pool_new(&c->pool, c->threads, e);
    if (!IN_RUNNER && rc != ERR_OK) {
        cpu_close(k);
        return rc;
    }
    *out = k;
    return ERR_OK;
}
