/*
 * cpu.h - what the files of kernels/cpu share: the state behind struct kern and how work is split.
 *
 * Every *.inc.h in this room holds static functions with the names and signatures of the entries of
 * struct kern, written once against v16.h. isa_portable.c, isa_avx2.c and isa_avx512.c include them
 * all and export one table each; dispatch.c picks a table and adds memory management.
 *
 * Runners inside submissions leave out what they never need: KERN_NO_OPTIM what only optimisers of
 * training use, KERN_FORWARD_ONLY the model's gradients as well (SLOT's stay: it fits a vector
 * behind the model). Such entries are NULL, and their code is not compiled. KERN_SMALL, which both
 * imply, prefers small code where that costs some speed.
 */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#if defined(KERN_FORWARD_ONLY) && !defined(KERN_NO_OPTIM)
#define KERN_NO_OPTIM
#endif

#if defined(KERN_NO_OPTIM) && !defined(KERN_SMALL)
#define KERN_SMALL
#endif

/* Whether a forward may be asked for what the backward needs of it. */
#ifdef KERN_FORWARD_ONLY
enum { KERN_SAVES = 0 };
#else
enum { KERN_SAVES = 1 };
#endif

struct pool;

/* k->impl of the CPU backend. */
struct cpu {
    struct pool *pool;
    size_t threads;
    float *scratch; /* one block: the shared area, then one area per thread */
    size_t scratch_floats;
    size_t shared, per_thread; /* floats, of the latest cpu_reserve */
    unsigned long long failed; /* bytes of the first allocation that failed since the last sync */
};

/* The entries that only training uses (kernels/cpu_train.c). */
void cpu_fill_train(struct kern *k);

/* One table per instruction set; memory management and impl are NULL in it. */
#ifdef KERN_SMALL
/*
 * A small build compiles the kernels once, for the processor that every machine has (isa_once.c),
 * and for each instruction set only what costs time, the leaves: vec.inc.h, which describes them,
 * and the micro-kernel (tile_micro.inc.h). cpu_level (0 portable, 1 AVX2, 2 AVX-512) chooses, by
 * comparisons in the wrappers that those files have for it. dispatch.c sets cpu_level, so all
 * struct kern of a process have the same instruction set.
 */
#define CPU_LEAVES(LEAF)                                                                           \
    LEAF(void, exp,                                                                                \
         (float *x, size_t stride, size_t n, const float *top, float *part, size_t parts),         \
         (x, stride, n, top, part, parts))                                                         \
    LEAF(void, max,                                                                                \
         (float *x, size_t stride, size_t n, float scale, const float *pos, float *top),           \
         (x, stride, n, scale, pos, top))                                                          \
    LEAF(void, softcap, (float *l, float *t, size_t n, float cap, float inv), (l, t, n, cap, inv)) \
    LEAF(void, act, (float *y, float *f, float below, size_t n), (y, f, below, n))                 \
    LEAF(float, dot, (const float *x, const float *y, size_t n), (x, y, n))                        \
    LEAF(void, fma,                                                                                \
         (float *y, const float *a, const float *b, const float *c, size_t n, bool one),           \
         (y, a, b, c, n, one))
#define CPU_LEAF(type, name, args, pass) type cpu_portable_##name args, cpu_avx2_##name args;
CPU_LEAVES(CPU_LEAF)
#undef CPU_LEAF
/* A tile of c and what it is the product of (tile_micro.inc.h); c is read though keep be 0. */
struct cpu_tile {
    float *c;
    size_t ldc;
    const float *a;
    size_t rs, cs;
    const float *b;
    size_t ldb, k;
    uint32_t keep; /* all ones: add to c; 0: overwrite it */
};
typedef void cpu_micro(const struct cpu_tile *t);
cpu_micro cpu_micro_portable, cpu_micro_avx2, cpu_micro_avx512;
extern int cpu_level;
extern const struct kern cpu_isa_once;

/* Too rare to matter: isa_portable.c has them for all machines. */
void cpu_lse(float *lse, const float *m, const float *s, size_t n);
void cpu_adamw(struct kern *k, const struct kern_adamw *a);
#else
extern const struct kern cpu_isa_portable, cpu_isa_avx2, cpu_isa_avx512;
#endif

/*
 * cpu_reserve - make room for temporary floats: `shared` for all threads together and `per_thread`
 * for each. Call it outside cpu_parallel, once per operation, before the pointers are taken.
 *
 * Contents are indeterminate afterwards. False when there is no memory: the operation then returns
 * without doing anything, and k->sync reports ERR_RESOURCE.
 */
bool cpu_reserve(struct cpu *c, size_t shared, size_t per_thread);
#ifdef RUNNER /* it ends the program instead: callers need no way out */
static inline bool cpu_reserved(struct cpu *c, size_t shared, size_t per_thread)
{
    cpu_reserve(c, shared, per_thread);
    return true;
}
#define cpu_reserve(c, shared, per_thread) cpu_reserved(c, shared, per_thread)
#endif

/* The areas of the latest cpu_reserve, 64-byte aligned. */
static inline float *cpu_shared(const struct cpu *c)
{
    return c->scratch;
}

static inline float *cpu_scratch(const struct cpu *c, size_t thread)
{
    return c->scratch + c->shared + thread * c->per_thread;
}

/*
 * cpu_parallel - call fn(ctx, task, thread) once for each task 0..ntasks-1, and return when all are
 * done.
 *
 * Which thread (0..threads-1, for cpu_scratch) runs which task depends on timing, so a task must
 * own its outputs and its result must not depend on `thread`. Not to be nested.
 */
typedef void cpu_task(void *ctx, size_t task, size_t thread);
void cpu_parallel(struct cpu *c, cpu_task *fn, void *ctx, size_t ntasks);

/* ceil(a / b), for counting tasks. */
static inline size_t cpu_ceil_div(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

static inline size_t cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
