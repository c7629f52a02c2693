/*
 * gemm_test.c - exists for the fault that a matrix product returns other bits on another
 * instruction set, with another number of threads, or at the edge of a tile, or touches memory that
 * is not its own.
 *
 * Every form is compared bit by bit with one chain of fmaf per element, the definition in
 * kernels.h. Operands end at a page that cannot be touched; outputs start as NaN where they are to
 * be overwritten. `gemm_test all` runs every size up to 17 x 40 x 70 instead of a selection.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { MAX_KERNS = 12, MAX_FLOATS = 1 << 20 };

static struct kern *kerns[MAX_KERNS];
static char names[MAX_KERNS][64];
static size_t n_kerns;
static bool all_sizes;

/* Floats that end where the readable memory ends. */
struct guarded {
    float *end;
};
static struct guarded arena[5];

static float *take_end(struct guarded *g, size_t n)
{
    assert_true(n <= MAX_FLOATS);
    return g->end - n;
}

static uint64_t seed = 1;

/* Multiples of 2^-11 in [-1, 1) times a power of two, so that sums round in every step. */
static void fill(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = ((float)(seed >> 52) - 2048) * (float)(1 << (seed >> 32 & 7)) * 0x1p-11f;
    }
}

static void poison(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = NAN;
}

enum form { FWD, ACT, BWD_X, BWD_X_ADD, BWD_W, GEMM, GEMM_TA, GEMM_TB, GEMM_TAB, GEMM_ADD, FORMS };
static const char *const form_names[FORMS] = {
    "linear_fwd", "linear_act_fwd", "linear_bwd_x", "linear_bwd_x add", "linear_bwd_w",
    "gemm",       "gemm ta",        "gemm tb",      "gemm ta tb",       "gemm 0.5 ab + c"};

struct problem {
    enum form form;
    size_t m, n, k;
    const float *a, *b, *c0; /* c0: what c holds before */
    float *c, *f;            /* what must come out; f only for ACT */
};

static bool a_transposed(enum form f)
{
    return f == BWD_W || f == GEMM_TA || f == GEMM_TAB;
}

static bool b_transposed(enum form f)
{
    return f == FWD || f == ACT || f == GEMM_TB || f == GEMM_TAB;
}

static const float slope = 0.5f;

/* The definition. */
static void reference(const struct problem *q)
{
    size_t m = q->m, n = q->n, k = q->k;
    bool from_c = q->form == BWD_X_ADD || q->form == BWD_W;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float s = from_c ? q->c0[i * n + j] : 0;
            for (size_t p = 0; p < k; p++) {
                float x = a_transposed(q->form) ? q->a[p * m + i] : q->a[i * k + p];
                float y = b_transposed(q->form) ? q->b[j * k + p] : q->b[p * n + j];
                s = fmaf(x, y, s);
            }
            if (q->form == ACT) {
                float f = (s > 0 ? 2 : 2 * slope * slope) * s;
                q->f[i * n + j] = f;
                s = 0.5f * f * s;
            }
            if (q->form == GEMM_ADD)
                s = 0.5f * s + q->c0[i * n + j];
            q->c[i * n + j] = s;
        }
}

static void run(struct kern *k, const struct problem *q, float *c, float *f)
{
    size_t m = q->m, n = q->n, kk = q->k;
    const float *a = q->a, *b = q->b;
    switch (q->form) {
    case FWD:
        k->linear_fwd(k, c, a, b, m, n, kk);
        break;
    case ACT:
        k->linear_act_fwd(k, c, f, a, b, m, n, kk, slope);
        break;
    case BWD_X:
    case BWD_X_ADD:
        k->linear_bwd_x(k, c, a, b, m, kk, n, q->form == BWD_X_ADD);
        break;
    case BWD_W:
        k->linear_bwd_w(k, c, a, b, kk, m, n);
        break;
    default:
        k->gemm(k, c, a, b, m, n, kk, a_transposed(q->form), b_transposed(q->form),
                q->form == GEMM_ADD ? 0.5f : 1, q->form == GEMM_ADD ? 1 : 0);
    }
}

static void expect_bits(const char *kern, const struct problem *q, const char *what,
                        const float *got, const float *want)
{
    for (size_t i = 0; i < q->m * q->n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s %s m %zu n %zu k %zu: %s[%zu][%zu] is %a, not %a", kern,
                     form_names[q->form], q->m, q->n, q->k, what, i / q->n, i % q->n,
                     (double)got[i], (double)want[i]);
}

static void check(size_t m, size_t n, size_t k, enum form first, enum form last)
{
    static float before[MAX_FLOATS], c[MAX_FLOATS], f[MAX_FLOATS];
    assert_true(m * n <= MAX_FLOATS);
    float *a = take_end(&arena[0], m * k), *b = take_end(&arena[1], k * n);
    fill(a, m * k);
    fill(b, k * n);
    fill(before, m * n);
    for (enum form form = first; form <= last; form++) {
        struct problem q = {form, m, n, k, a, b, before, c, f};
        reference(&q);
        for (size_t t = 0; t < n_kerns; t++) {
            float *got = take_end(&arena[2], m * n), *got_f = take_end(&arena[3], m * n);
            if (form == BWD_X_ADD || form == BWD_W || form == GEMM_ADD)
                memcpy(got, before, m * n * sizeof *got);
            else
                poison(got, m * n);
            poison(got_f, m * n);
            run(kerns[t], &q, got, got_f);
            expect_bits(names[t], &q, "c", got, c);
            if (form == ACT)
                expect_bits(names[t], &q, "f", got_f, f);
        }
    }
}

static void test_small(void **state)
{
    (void)state;
    static const size_t ms[] = {1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 17};
    static const size_t ns[] = {1, 15, 16, 17, 32, 33, 40};
    static const size_t ks[] = {1, 3, 4, 5, 33, 70};
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
                check(ms[i], ns[j], ks[p], FWD, GEMM_ADD);
}

static void test_every_small(void **state)
{
    (void)state;
    if (!all_sizes)
        skip();
    for (size_t m = 1; m <= 17; m++)
        for (size_t n = 1; n <= 40; n++)
            for (size_t k = 1; k <= 70; k++)
                check(m, n, k, FWD, GEMM_ADD);
}

/* Beyond the blocks of gemm.inc.h: 1024 rows of a task, 512 columns, 512 of k, 112 rows packed. */
static void test_blocks(void **state)
{
    (void)state;
    static const struct {
        size_t m, n, k;
    } cases[] = {{1031, 3, 5},   {3, 530, 9},  {2, 33, 1030},
                 {115, 34, 515}, {1, 1, 2000}, {230, 70, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(cases[i].m, cases[i].n, cases[i].k, FWD, GEMM_ADD);
}

/* k = 0 gives zeros, or c; nothing else is touched when there are no rows or columns. */
static void test_empty(void **state)
{
    (void)state;
    check(5, 7, 0, FWD, GEMM_ADD);
    check(0, 7, 5, FWD, GEMM_ADD);
    check(5, 0, 7, FWD, GEMM_ADD);
}

/* A row on its own has the bits that it has among others. */
static void test_subset_of_rows(void **state)
{
    (void)state;
    enum { M = 37, N = 70, K = 90, FIRST = 11, ROWS = 9 };
    static float x[M * K], w[N * K], all[M * N], some[ROWS * N];
    fill(x, M * K);
    fill(w, N * K);
    for (size_t t = 0; t < n_kerns; t++) {
        kerns[t]->linear_fwd(kerns[t], all, x, w, M, N, K);
        kerns[t]->linear_fwd(kerns[t], some, x + FIRST * K, w, ROWS, N, K);
        assert_memory_equal(some, all + FIRST * N, sizeof some);
    }
}

/* Infinities and NaN stay in the rows and columns that they are in. */
static void test_special_values(void **state)
{
    (void)state;
    enum { M = 15, N = 33, K = 20 };
    static float x[M * K], w[N * K], y[M * N], clean[M * N];
    fill(x, M * K);
    fill(w, N * K);
    for (size_t t = 0; t < n_kerns; t++) {
        kerns[t]->linear_fwd(kerns[t], clean, x, w, M, N, K);
        float keep_x = x[14 * K + 3], keep_w = w[32 * K + 5];
        x[14 * K + 3] = NAN;
        w[32 * K + 5] = INFINITY;
        kerns[t]->linear_fwd(kerns[t], y, x, w, M, N, K);
        x[14 * K + 3] = keep_x;
        w[32 * K + 5] = keep_w;
        for (size_t i = 0; i < M; i++)
            for (size_t j = 0; j < N; j++)
                if (i == 14)
                    assert_true(isnan(y[i * N + j]));
                else if (j == 32)
                    assert_true(!isfinite(y[i * N + j]));
                else
                    assert_memory_equal(&y[i * N + j], &clean[i * N + j], sizeof *y);
    }
}

/* A product of a matrix with itself takes a short cut: it must give what two equal matrices give.
 */
static void test_symmetric(void **state)
{
    static const size_t sizes[][2] = {{1, 1}, {5, 3}, {33, 40}, {130, 70}, {200, 129}, {600, 17}};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s][0], kk = sizes[s][1];
        float *a = take_end(&arena[0], n * kk), *same = take_end(&arena[1], n * kk);
        float *c = take_end(&arena[2], n * n), *want = take_end(&arena[3], n * n);
        fill(a, n * kk);
        memcpy(same, a, n * kk * sizeof *a);
        for (size_t i = 0; i < n_kerns; i++)
            for (int ta = 0; ta < 2; ta++) {
                poison(c, n * n);
                poison(want, n * n);
                kerns[i]->gemm(kerns[i], want, a, same, n, n, kk, ta, !ta, 0.75f, 0.0f);
                kerns[i]->gemm(kerns[i], c, a, a, n, n, kk, ta, !ta, 0.75f, 0.0f);
                if (memcmp(c, want, n * n * sizeof *c))
                    fail_msg("%s: n %zu, k %zu, %s: other bits", names[i], n, kk,
                             ta ? "a^T a" : "a a^T");
            }
    }
}

static int setup(void **state)
{
    (void)state;
    static const char isas[][9] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 3, 7};
    for (size_t i = 0; i < 3; i++)
        for (size_t t = 0; t < 4; t++) {
            struct err e = {0};
            setenv("KERN_ISA", isas[i], 1);
            if (kern_cpu(&kerns[n_kerns], threads[t], &e) != ERR_OK)
                continue; /* this machine lacks it */
            snprintf(names[n_kerns], sizeof names[0], "%s, %zu threads", isas[i], threads[t]);
            n_kerns++;
        }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = MAX_FLOATS * sizeof(float);
    for (size_t i = 0; i < sizeof arena / sizeof *arena; i++) {
        char *p =
            mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + bytes, page, PROT_NONE) != 0)
            return 1;
        arena[i].end = (float *)(void *)(p + bytes);
    }
    return n_kerns ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t t = 0; t < n_kerns; t++)
        kern_free(kerns[t]);
    return 0;
}

int main(int argc, char **argv)
{
    all_sizes = argc > 1 && strcmp(argv[1], "all") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),          cmocka_unit_test(test_every_small),
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_empty),
        cmocka_unit_test(test_subset_of_rows), cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_symmetric),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
