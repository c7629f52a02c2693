/*
 * elem_test.c - exists for the fault that an elementwise operation or an optimiser's reduction
 * depends on the instruction set, on the number of threads or on where a tail begins.
 *
 * Each result is compared bit by bit with the definition in kernels.h, written here with one float
 * at a time; AdamW also with the formula in double.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { MAX_KERNS = 9, MAX_N = 40000 };

static struct kern *kerns[MAX_KERNS];
static size_t n_kerns;

/* Around a vector, a block of 4096, and several blocks. */
static const size_t sizes[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 8192, 12345, MAX_N};
enum { SIZES = sizeof sizes / sizeof *sizes };

static uint64_t seed = 5;

static void fill(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
}

static void expect_bits(const char *what, const struct kern *k, size_t n, const float *got,
                        const float *want)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s, %s, n %zu: element %zu is %a, not %a", what, k->name, n, i,
                     (double)got[i], (double)want[i]);
}

static float x[MAX_N + 1], y[MAX_N + 1], got[MAX_N + 1], want[MAX_N + 1];

static void test_mul_add_axpby(void **state)
{
    (void)state;
    fill(x, MAX_N + 1);
    fill(y, MAX_N + 1);
    for (size_t s = 0; s < SIZES; s++)
        for (size_t t = 0; t < n_kerns; t++) {
            struct kern *k = kerns[t];
            size_t n = sizes[s];
            memcpy(want, y, sizeof want); /* one element more than n: it must stay */
            for (size_t i = 0; i < n; i++)
                want[i] = x[i] * y[i];
            memcpy(got, y, sizeof got);
            k->mul(k, got, got, x, n); /* dx may be dy */
            expect_bits("mul", k, n + 1, got, want);

            for (size_t i = 0; i < n; i++)
                want[i] = y[i] + x[i];
            memcpy(got, y, sizeof got);
            k->add(k, got, x, n);
            expect_bits("add", k, n + 1, got, want);

            for (size_t i = 0; i < n; i++)
                want[i] = fmaf(0.3f, x[i], 0.7f * y[i]);
            memcpy(got, y, sizeof got);
            k->axpby(k, got, x, n, 0.7f, 0.3f);
            expect_bits("axpby", k, n + 1, got, want);

            for (size_t i = 0; i < n; i++)
                want[i] = fmaf(-2, y[i], 0.5f * y[i]);
            memcpy(got, y, sizeof got);
            k->axpby(k, got, got, n, 0.5f, -2); /* x may be y */
            expect_bits("axpby in place", k, n + 1, got, want);
        }
}

static void test_sumsq(void **state)
{
    (void)state;
    fill(x, MAX_N);
    for (size_t s = 0; s < SIZES; s++) {
        size_t n = sizes[s];
        double sum = 0;
        for (size_t from = 0; from < n; from += 4096) {
            double part[16] = {0};
            for (size_t i = from; i < n && i < from + 4096; i++)
                part[(i - from) % 16] += (double)x[i] * x[i];
            for (size_t h = 8; h; h /= 2)
                for (size_t i = 0; i < h; i++)
                    part[i] += part[i + h];
            sum += part[0];
        }
        for (size_t t = 0; t < n_kerns; t++) {
            double result = kerns[t]->sumsq(kerns[t], x, n);
            if (memcmp(&result, &sum, sizeof sum) != 0)
                fail_msg("%s, n %zu: %a, not %a", kerns[t]->name, n, result, sum);
        }
    }
    for (size_t t = 0; t < n_kerns; t++) {
        x[4100] = INFINITY;
        assert_true(isinf(kerns[t]->sumsq(kerns[t], x, MAX_N)));
        x[33] = NAN;
        assert_true(isnan(kerns[t]->sumsq(kerns[t], x, MAX_N)));
        x[33] = x[4100] = 1;
    }
}

static void test_row_normalize(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 15, 16, 17, 70, 512};
    enum { ROWS = 5 };
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t dim = dims[d];
        fill(x, ROWS * dim);
        memset(x + dim, 0, dim * sizeof *x); /* a row of zeros stays zeros */
        for (size_t r = 0; r < ROWS; r++) {
            float part[16] = {0};
            for (size_t i = 0; i < dim; i++)
                part[i % 16] = fmaf(x[r * dim + i], x[r * dim + i], part[i % 16]);
            for (size_t h = 8; h; h /= 2)
                for (size_t i = 0; i < h; i++)
                    part[i] += part[i + h];
            float norm = sqrtf(part[0]);
            for (size_t i = 0; i < dim; i++)
                want[r * dim + i] = x[r * dim + i] / (norm > 1e-7f ? norm : 1e-7f);
        }
        for (size_t t = 0; t < n_kerns; t++) {
            memcpy(got, x, ROWS * dim * sizeof *got);
            kerns[t]->row_normalize(kerns[t], got, ROWS, dim, 1e-7f);
            expect_bits("row_normalize", kerns[t], ROWS * dim, got, want);
        }
    }
}

/* Three steps: equal bits everywhere, and close to the formula in double. */
static void test_adamw(void **state)
{
    (void)state;
    enum { STEPS = 3 };
    static float p0[MAX_N], g[STEPS][MAX_N], p[MAX_KERNS][MAX_N], m[MAX_N], v[MAX_N];
    static double dp[MAX_N], dm[MAX_N], dv[MAX_N];
    const float lr = 0.02f, b1 = 0.9f, b2 = 0.95f, eps = 1e-8f, wd = 0.1f;
    const size_t n = 12345;
    fill(p0, n);
    for (size_t s = 0; s < STEPS; s++)
        fill(g[s], n);
    for (size_t i = 0; i < n; i++) {
        dp[i] = p0[i];
        for (size_t s = 0; s < STEPS; s++) {
            dp[i] *= 1 - (double)lr * wd;
            dm[i] = b1 * dm[i] + (1 - (double)b1) * g[s][i];
            dv[i] = b2 * dv[i] + (1 - (double)b2) * g[s][i] * g[s][i];
            double c1 = 1 - pow(b1, (double)(s + 1)), c2 = 1 - pow(b2, (double)(s + 1));
            dp[i] -= lr / c1 * dm[i] / (sqrt(dv[i]) / sqrt(c2) + eps);
        }
    }
    for (size_t t = 0; t < n_kerns; t++) {
        memcpy(p[t], p0, sizeof p0);
        memset(m, 0, sizeof m);
        memset(v, 0, sizeof v);
        for (size_t s = 0; s < STEPS; s++) {
            struct kern_adamw a = {p[t], m, v, g[s], n, s + 1, lr, b1, b2, eps, wd};
            kerns[t]->adamw(kerns[t], &a);
        }
        expect_bits("adamw", kerns[t], n, p[t], p[0]);
        double off = 0, size = 0;
        for (size_t i = 0; i < n; i++) {
            off += (p[t][i] - dp[i]) * (p[t][i] - dp[i]);
            size += dp[i] * dp[i];
        }
        assert_true(sqrt(off / size) < 1e-6);
    }
}

/* Exact halves and their neighbours, both signs; the largest float rounds away from the reals. */
static void test_round_bf16(void **state)
{
    (void)state;
    static const struct {
        float x, want;
    } cases[] = {
        {0.0f, 0.0f},
        {1.0f, 1.0f},
        {0x1.01p+0f, 0x1.00p+0f},     /* half way, down to even */
        {0x1.03p+0f, 0x1.04p+0f},     /* half way, up to even */
        {0x1.010002p+0f, 0x1.02p+0f}, /* a bit above half way */
        {0x1.00fffep+0f, 0x1.00p+0f}, /* a bit below */
        {0x1.fffffep+0f, 0x1.00p+1f}, /* into the next power of two */
        {-0x1.03p-100f, -0x1.04p-100f},
        {0x1p-149f, 0.0f}, /* the smallest float */
        {0x1.fffffep+127f, INFINITY},
        {-INFINITY, -INFINITY},
    };
    for (size_t t = 0; t < n_kerns; t++) {
        struct kern *k = kerns[t];
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            got[0] = cases[c].x;
            k->round_bf16(k, got, 1);
            expect_bits("round_bf16", k, 1, got, &cases[c].want);
        }
        got[0] = NAN;
        got[1] = 0x1.01p+0f;
        k->round_bf16(k, got, 1);
        assert_true(isnan(got[0]));
        assert_true(memcmp(&got[1], &cases[2].x, sizeof *got) == 0); /* behind the end */
    }
    fill(x, MAX_N);
    for (size_t s = 0; s < SIZES; s++)
        for (size_t t = 0; t < n_kerns; t++) {
            size_t n = sizes[s];
            memcpy(got, x, n * sizeof *got);
            kerns[t]->round_bf16(kerns[t], got, n);
            for (size_t i = 0; i < n; i++) {
                /* Eight significant bits of x: rint of x in units of its last place. */
                int e = 0;
                (void)frexpf(x[i], &e);
                want[i] = ldexpf(rintf(ldexpf(x[i], 8 - e)), e - 8);
            }
            expect_bits("round_bf16", kerns[t], n, got, want);
        }
}

static void test_fake_quant(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t dim;
        float levels, floor, size;
    } cases[] = {
        {"record, rows below 1", 33, 31, 1, 0.5f},
        {"record, rows above 1", 512, 31, 1, 40},
        {"no floor", 16, 31, 0, 0.01f},
        {"int5", 17, 15, 0, 3},
        {"int8", 1, 127, 1, 2},
        {"2 bits", 100, 1, 0, 1},
    };
    enum { ROWS = 7 };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t dim = cases[c].dim, n = ROWS * dim;
        float levels = cases[c].levels, most_q = 0;
        fill(x, n);
        for (size_t i = 0; i < n; i++)
            x[i] = i / dim == 3 ? 0 : x[i] * cases[c].size; /* a row of zeros stays zeros */
        for (size_t r = 0; r < ROWS; r++) {
            float most = 0, s;
            for (size_t i = 0; i < dim; i++)
                most = fmaxf(most, fabsf(x[r * dim + i]));
            s = fmaxf(fmaxf(most / levels, cases[c].floor / levels), 0x1p-24f);
            for (size_t i = 0; i < dim; i++) {
                float q = rintf(x[r * dim + i] / s);
                most_q = fmaxf(most_q, fabsf(q));
                want[r * dim + i] = q * s;
            }
        }
        if (most_q > levels)
            fail_msg("%s: integer %g", cases[c].name, (double)most_q);
        for (size_t t = 0; t < n_kerns; t++) {
            struct kern *k = kerns[t];
            got[n] = 77;
            k->fake_quant(k, got, x, ROWS, dim, levels, cases[c].floor);
            for (size_t i = 0; i < n; i++) /* rounding to -0 or +0 is the same weight */
                if (!(got[i] >= want[i] && got[i] <= want[i]))
                    fail_msg("%s, %s: element %zu is %a, not %a", cases[c].name, k->name, i,
                             (double)got[i], (double)want[i]);
            assert_true(got[n] >= 77 && got[n] <= 77);
            memcpy(y, x, n * sizeof *y);
            k->fake_quant(k, y, y, ROWS, dim, levels, cases[c].floor); /* y may be x */
            expect_bits("fake_quant in place", k, n, y, got);
        }
    }
    for (size_t t = 0; t < n_kerns; t++) { /* what is broken stays visible */
        y[0] = 1;
        y[1] = NAN;
        kerns[t]->fake_quant(kerns[t], y, y, 1, 2, 31, 1);
        assert_true(y[0] >= 1 && isnan(y[1]));
    }
}

static int setup(void **state)
{
    (void)state;
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 7};
    for (size_t i = 0; i < 3; i++)
        for (size_t t = 0; t < 3; t++) {
            setenv("KERN_ISA", isas[i], 1);
            if (kern_cpu(&kerns[n_kerns], threads[t], NULL) == ERR_OK)
                n_kerns++; /* else this machine lacks it */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mul_add_axpby), cmocka_unit_test(test_sumsq),
        cmocka_unit_test(test_row_normalize), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_round_bf16),    cmocka_unit_test(test_fake_quant),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
