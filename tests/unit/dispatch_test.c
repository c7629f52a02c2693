/*
 * dispatch_test.c - exists for the faults that KERN_ISA is ignored or misread, that memory is not
 * what kernels.h promises, that a failed allocation of temporary values is lost or crashes, and
 * that an instruction set lacks an operation or computes a whole chain of them differently.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"

/* The sanitizer asks for this: impossible sizes are to be refused, not to end the program. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static const char *const isas[] = {"portable", "avx2", "avx512"};

static struct kern *open_isa(const char *isa, size_t threads)
{
    struct kern *k = NULL;
    setenv("KERN_ISA", isa, 1);
    kern_cpu(&k, threads, NULL);
    return k;
}

static void test_names(void **state)
{
    (void)state;
    struct err e = {0};
    struct kern *k = (struct kern *)&e;
    static const char *const wrong[] = {"AVX2", "avx", "avx512x", "sse", " avx2", "portable "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        e = (struct err){0};
        setenv("KERN_ISA", wrong[i], 1);
        assert_int_equal(kern_cpu(&k, 1, &e), ERR_USAGE);
        assert_null(k);
        assert_non_null(strstr(e.msg, wrong[i]));
    }
    k = open_isa("portable", 1);
    assert_string_equal(k->name, "cpu/portable");
    kern_free(k);
    for (int set = 0; set < 2; set++) {
        set ? setenv("KERN_ISA", "", 1) : unsetenv("KERN_ISA");
        assert_int_equal(kern_cpu(&k, 0, NULL), ERR_OK); /* 0: as many threads as allowed */
        assert_true(((struct cpu *)k->impl)->threads >= 1);
        assert_memory_equal(k->name, "cpu/", 4);
        kern_free(k);
    }
    kern_free(NULL);
}

static void test_memory(void **state)
{
    (void)state;
    struct kern *k = open_isa("portable", 1);
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = k->alloc(k, sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t b = 0; b < sizes[i]; b++)
            assert_int_equal(p[b], 0);
        k->free(k, p);
    }
    assert_null(k->alloc(k, SIZE_MAX));
    assert_null(k->alloc(k, SIZE_MAX - 64));
    k->free(k, NULL);

    char text[] = "to the device and back", back[sizeof text];
    char *p = k->alloc(k, sizeof text);
    k->upload(k, p, text, sizeof text);
    k->download(k, back, p, sizeof text);
    assert_string_equal(back, text);
    k->zero(k, p, 3);
    assert_memory_equal(p, "\0\0\0the", 6);
    k->free(k, p);
    kern_free(k);
}

static void test_reserve(void **state)
{
    (void)state;
    struct kern *k = open_isa("portable", 3);
    struct cpu *c = k->impl;
    struct err e = {0};
    assert_true(cpu_reserve(c, 0, 0));
    assert_true(cpu_reserve(c, 5, 33));
    assert_int_equal((uintptr_t)cpu_shared(c) % 64, 0);
    for (size_t t = 0; t < 3; t++) {
        assert_int_equal((uintptr_t)cpu_scratch(c, t) % 64, 0);
        assert_true(cpu_scratch(c, t) >= cpu_shared(c) + 5 + 33 * t);
    }
    static const struct {
        size_t shared, per_thread;
    } too_much[] = {{SIZE_MAX, 0},
                    {0, SIZE_MAX},
                    {SIZE_MAX / 8, SIZE_MAX / 8},
                    {1, SIZE_MAX / 64},
                    {SIZE_MAX / 64, 1}};
    for (size_t i = 0; i < sizeof too_much / sizeof *too_much; i++) {
        assert_int_equal(k->sync(k, &e), ERR_OK);
        assert_false(cpu_reserve(c, too_much[i].shared, too_much[i].per_thread));
        assert_true(cpu_reserve(c, 10, 10));            /* small ones work again, */
        assert_int_equal(k->sync(k, &e), ERR_RESOURCE); /* but the failure is reported */
        assert_non_null(strstr(e.msg, "out of memory"));
        e = (struct err){0};
        assert_int_equal(k->sync(k, &e), ERR_OK); /* once */
    }
    kern_free(k);
}

static void test_no_entry_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct kern *k = open_isa(isas[i], 1);
        if (!k)
            continue; /* this machine lacks it */
        void *entries[sizeof *k / sizeof(void *)];
        memcpy(entries, k, sizeof entries);
        /* From linear_train on they are optional. */
        for (size_t j = 0; j < offsetof(struct kern, linear_train) / sizeof *entries; j++)
            if (!entries[j])
                fail_msg("%s: entry %zu of struct kern is missing", k->name, j);
        kern_free(k);
    }
}

enum { BATCH = 2, T = 37, DIM = 48, HEADS = 3, HIDDEN = 70, VOCAB = 53, ROWS = BATCH * T };

static uint64_t fnv1a(const void *data, size_t n, uint64_t h)
{
    for (const unsigned char *p = data; n--; p++)
        h = (h ^ *p) * 0x100000001b3;
    return h;
}

/* One layer of a model, forward; the hash of its losses. */
static uint64_t one_layer(struct kern *k)
{
    static float table[VOCAB * DIM], wq[DIM * DIM], w1[HIDDEN * DIM], w2[DIM * HIDDEN];
    static float x[ROWS * DIM], n[ROWS * DIM], q[ROWS * DIM], o[ROWS * DIM], h[ROWS * HIDDEN];
    static float cos[T * 4], sin[T * 4], nll[ROWS];
    static uint16_t ids[ROWS], target[ROWS];
    uint64_t seed = 11;
    float *const weights[] = {table, wq, w1, w2};
    static const size_t sizes[] = {VOCAB * DIM, DIM * DIM, HIDDEN * DIM, DIM * HIDDEN};
    for (size_t w = 0; w < 4; w++)
        for (size_t i = 0; i < sizes[w]; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            weights[w][i] = (float)(int32_t)(seed >> 32) * 0x1p-32f;
        }
    for (size_t i = 0; i < ROWS; i++) {
        ids[i] = (uint16_t)(i * 7 % VOCAB);
        target[i] = (uint16_t)(i * 11 % VOCAB);
    }
    kern_rope_tables(cos, sin, T, 8, 10000);
    k->embed_fwd(k, x, table, ids, ROWS, DIM);
    struct kern_combine norm = {.n = n, .x0 = x, .rows = ROWS, .dim = DIM, .eps = 1e-6f, .gain = 1};
    k->combine_fwd(k, &norm);
    k->linear_fwd(k, q, n, wq, ROWS, DIM, DIM);
    struct kern_qk qk = {
        .y = q, .x = q, .cos = cos, .sin = sin, .rows = ROWS, .t = T, .heads = HEADS};
    qk.head_dim = DIM / HEADS;
    qk.rope_dims = 8;
    qk.eps = 1e-6f;
    k->qk_fwd(k, &qk);
    struct kern_attn attn = {.o = o, .q = q, .k = q, .v = n, .batch = BATCH, .tq = T, .tk = T};
    attn.heads = attn.kv_heads = HEADS;
    attn.head_dim = DIM / HEADS;
    attn.scale = 0.25f;
    k->attn_fwd(k, &attn);
    struct kern_combine add = {.y = x, .n = n, .x0 = x, .x1 = o, .rows = ROWS, .dim = DIM};
    add.eps = 1e-6f;
    add.gain = 0.5f;
    k->combine_fwd(k, &add);
    k->linear_act_fwd(k, h, NULL, n, w1, ROWS, HIDDEN, DIM, 0.5f);
    k->linear_fwd(k, o, h, w2, ROWS, DIM, HIDDEN);
    struct kern_head head = {.nll = nll, .h = o, .w = table, .target = target, .rows = ROWS};
    head.dim = DIM;
    head.vocab = VOCAB;
    head.cap = 30;
    k->head_fwd(k, &head);
    for (size_t i = 0; i < ROWS; i++)
        assert_true(isfinite(nll[i]) && nll[i] > 0);
    return fnv1a(nll, sizeof nll, 0xcbf29ce484222325);
}

/* Every instruction set of this machine prints one hash, the same with any number of threads. */
static void test_one_hash(void **state)
{
    (void)state;
    static const size_t threads[] = {1, 2, 7};
    uint64_t first = 0;
    for (size_t i = 0; i < 3; i++)
        for (size_t t = 0; t < 3; t++) {
            struct kern *k = open_isa(isas[i], threads[t]);
            if (!k)
                continue;
            uint64_t h = one_layer(k);
            print_message("%s, %zu threads: %016llx\n", k->name, threads[t], (unsigned long long)h);
            first = first ? first : h;
            assert_int_equal(h, first);
            assert_int_equal(k->sync(k, NULL), ERR_OK);
            kern_free(k);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_memory),
        cmocka_unit_test(test_reserve),  cmocka_unit_test(test_no_entry_missing),
        cmocka_unit_test(test_one_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
