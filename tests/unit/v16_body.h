/*
 * v16_body.h - the test of kernels/cpu/v16.h, included by v16_test.c, v16_avx2_test.c and
 * v16_avx512_test.c, which choose the machine.
 *
 * It exists for the fault that one instruction set computes other bits than another, or that a tail
 * touches memory behind it. Lane operations are compared with one float at a time; fma with the C
 * library's on hard cases; exp, log and tanh with the C library in double, and by a hash of their
 * bits that is the same number for all three machines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/v16.h"

static uint64_t seed = 3;

static uint32_t random_bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static const float hard[] = {
    0.0f,
    -0.0f,
    1.0f,
    -1.0f,
    0x1p-149f,
    -0x1p-149f,
    0x1p-126f,
    FLT_MAX,
    -FLT_MAX,
    INFINITY,
    -INFINITY,
    NAN,
    0x1p-75f,
    0x1.000002p0f,
    0x1p24f,
    0x1p-24f,
    0x1p-25f,
    0x1.fffffep-1f,
    0x1.fffffep-127f,
    0x1p127f,
    0x1p-100f,
    0x1.8p-24f,
    0x1p64f,
    -0x1p-64f,
    0x1.000002p-1f,
    -0x1.fffffcp0f,
    3.0f,
    0x1p23f,
};
enum { HARD = sizeof hard / sizeof *hard };

/* Equal bits, or both NaN. */
static bool same(float a, float b)
{
    return s_bits(a) == s_bits(b) || (a != a && b != b);
}

static void expect_fma(float a, float b, float c)
{
    float want = fmaf(a, b, c), got = s_fma(a, b, c);
    v16 lanes = v16_fma(v16_set1(a), v16_set1(b), v16_set1(c));
    if (!same(got, want) || !same(v16_first(lanes), want))
        fail_msg("fma(%a, %a, %a) is %a, not %a", (double)a, (double)b, (double)c, (double)got,
                 (double)want);
}

/* Halfway cases, subnormals, overflow, infinities, NaN; then random bits and random
 * near-cancellations. */
static void test_fma(void **state)
{
    (void)state;
    for (size_t i = 0; i < HARD; i++)
        for (size_t j = 0; j < HARD; j++)
            for (size_t k = 0; k < HARD; k++)
                expect_fma(hard[i], hard[j], hard[k]);
    for (uint32_t n = 0; n < 300000; n++) {
        float a = s_from_bits(random_bits()), b = s_from_bits(random_bits());
        expect_fma(a, b, s_from_bits(random_bits()));
        float p = -a * b;
        expect_fma(a, b, p);
        expect_fma(a, b, s_from_bits(s_bits(p) + random_bits() % 5 - 2));
        /* The sum of a product and half of its last place: the case that two roundings get wrong.
         */
        expect_fma(a, 1, s_from_bits((s_bits(a) & 0xff800000) - ((n % 60 + 1) << 23)));
    }
}

static void expect_lanes(const char *op, const float *got, const float *want)
{
    for (size_t i = 0; i < 16; i++)
        if (!same(got[i], want[i]))
            fail_msg("%s: lane %zu is %a, not %a", op, i, (double)got[i], (double)want[i]);
}

static void test_lane_operations(void **state)
{
    (void)state;
    for (int n = 0; n < 20000; n++) {
        float a[16], b[16], got[16], want[16];
        for (size_t i = 0; i < 16; i++) {
            a[i] = n % 3 ? s_from_bits(random_bits()) : hard[random_bits() % HARD];
            b[i] = n % 2 ? s_from_bits(random_bits()) : hard[random_bits() % HARD];
        }
        v16 va = v16_load(a), vb = v16_load(b);
#define CHECK(name, value, expr)                                                                   \
    v16_store(got, value);                                                                         \
    for (size_t i = 0; i < 16; i++)                                                                \
        want[i] = (expr);                                                                          \
    expect_lanes(name, got, want)
        CHECK("add", v16_add(va, vb), a[i] + b[i]);
        CHECK("sub", v16_sub(va, vb), a[i] - b[i]);
        CHECK("mul", v16_mul(va, vb), a[i] * b[i]);
        CHECK("div", v16_div(va, vb), a[i] / b[i]);
        CHECK("sqrt", v16_sqrt(va), sqrtf(a[i]));
        CHECK("max", v16_max(va, vb), a[i] > b[i] ? a[i] : b[i]);
        CHECK("min", v16_min(va, vb), a[i] < b[i] ? a[i] : b[i]);
        CHECK("abs", v16_abs(va), fabsf(a[i]));
        CHECK("copysign", v16_copysign(va, vb), copysignf(a[i], b[i]));
        CHECK("sel_gt", v16_sel_gt(va, vb, vb, va), a[i] > b[i] ? b[i] : a[i]);
        CHECK("set1", v16_set1(a[3]), a[3]);
        CHECK("zero", v16_zero(), 0);
#undef CHECK
    }
}

static void test_sum_and_max(void **state)
{
    (void)state;
    for (int n = 0; n < 10000; n++) {
        float a[16], s[16], m[16];
        for (size_t i = 0; i < 16; i++) {
            a[i] = n % 7 ? (float)(int32_t)random_bits() * 0x1p-20f : hard[random_bits() % HARD];
            s[i] = m[i] = a[i];
        }
        for (size_t h = 8; h; h /= 2)
            for (size_t i = 0; i < h; i++) {
                s[i] += s[i + h];
                m[i] = m[i] > m[i + h] ? m[i] : m[i + h];
            }
        assert_true(same(v16_sum(v16_load(a)), s[0]));
        assert_true(same(v16_hmax(v16_load(a)), m[0]));
    }
}

/* Tails at the end of a page behind which nothing may be touched. */
static void test_tails(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
    float *end = (float *)(void *)(map + page);
    for (size_t n = 0; n <= 16; n++) {
        float got[16];
        for (size_t i = 1; i <= 20; i++)
            end[-(ptrdiff_t)i] = (float)i;
        v16_store(got, v16_load_n(end - n, n));
        for (size_t i = 0; i < 16; i++)
            assert_true(got[i] == (i < n ? (float)(n - i) : 0));
        v16_store_n(end - n, v16_set1(-1), n);
        for (size_t i = 1; i <= 20; i++)
            assert_true(end[-(ptrdiff_t)i] == (i <= n ? -1 : (float)i));
    }
    munmap(map, 2 * page);
}

static void test_load_cols4(void **state)
{
    (void)state;
    enum { STRIDE = 7 };
    float m[16 * STRIDE], got[16];
    v16 col[4];
    for (size_t i = 0; i < 16 * STRIDE; i++)
        m[i] = (float)i;
    v16_load_cols4(m + 2, STRIDE, col);
    for (size_t q = 0; q < 4; q++) {
        v16_store(got, col[q]);
        for (size_t j = 0; j < 16; j++)
            assert_true(got[j] == m[2 + j * STRIDE + q]);
    }
}

static v16 call_exp(v16 x)
{
    return v16_exp(x);
}
static v16 call_log(v16 x)
{
    return v16_log(x);
}
static v16 call_tanh(v16 x)
{
    return v16_tanh(x);
}

/* |got - want| in units in the last place of a float of want's size; `want` normal or 0. */
static double ulps(float got, double want)
{
    int e;
    if (got == (float)want)
        return 0;
    frexp(want, &e);
    return fabs(ldexp(got - want, 24 - (e < -125 ? -125 : e)));
}

static const struct {
    const char *name;
    v16 (*ours)(v16);
    double (*theirs)(double);
    float lo, hi; /* of the floats between, every one after `step` others is tried */
    uint32_t step;
    double limit;  /* ulp */
    uint64_t hash; /* of all results: the same for all instruction sets */
} functions[] = {
    {"exp", call_exp, exp, 0x1p-30f, 88.7f, 997, 1.1, 0x49981849514b98b7},
    {"exp of negative", call_exp, exp, -0x1p-30f, -87.3f, 997, 1.1, 0x67927c2077e7d3a0},
    {"log", call_log, log, FLT_MIN, FLT_MAX, 4999, 1.1, 0xdf7e7f31d8e43fe0},
    {"log near 1", call_log, log, 0.5f, 2.0f, 97, 1.1, 0x3a88b84e759144f1},
    {"tanh", call_tanh, tanh, 0x1p-40f, 20, 997, 3, 0x60374fb305b399fe},
    {"tanh of negative", call_tanh, tanh, -FLT_MIN, -20, 2999, 3, 0x17a2af4cf1bee8a3},
};

static void test_functions(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        uint64_t hash = 0xcbf29ce484222325; /* FNV-1a over 32-bit words */
        double worst = 0;
        uint32_t at = s_bits(functions[f].lo), last = s_bits(functions[f].hi);
        while (at <= last) {
            float x[16], y[16];
            for (size_t i = 0; i < 16; i++) {
                x[i] = s_from_bits(at <= last ? at : last);
                at += functions[f].step;
            }
            v16_store(y, functions[f].ours(v16_load(x)));
            for (size_t i = 0; i < 16; i++) {
                double off = ulps(y[i], functions[f].theirs(x[i]));
                if (!(off <= functions[f].limit))
                    fail_msg("%s of %a: %a is %.2f ulp off", functions[f].name, (double)x[i],
                             (double)y[i], off);
                worst = off > worst ? off : worst;
                hash = (hash ^ s_bits(y[i])) * 0x100000001b3;
            }
        }
        if (hash != functions[f].hash)
            fail_msg("%s: hash %#llx (at most %.3f ulp)", functions[f].name,
                     (unsigned long long)hash, worst);
    }
}

static void test_function_edges(void **state)
{
    (void)state;
    assert_true(s_exp(0) == 1 && s_exp(-0.0f) == 1);
    assert_true(s_bits(s_exp(-INFINITY)) == 0 && s_bits(s_exp(-87.4f)) == 0);
    assert_true(s_bits(s_exp(-FLT_MAX)) == 0 && s_exp(-87.33f) > 0);
    assert_true(s_exp(INFINITY) == INFINITY && s_exp(88.73f) == INFINITY);
    assert_true(s_exp(88.722f) < INFINITY && s_exp(FLT_MAX) == INFINITY);
    assert_true(s_log(1) == 0 && s_log(INFINITY) == INFINITY);
    assert_true(s_bits(s_tanh(0)) == 0 && s_bits(s_tanh(-0.0f)) == s_bits(-0.0f));
    assert_true(s_tanh(INFINITY) == 1 && s_tanh(-INFINITY) == -1 && s_tanh(30) == 1);
    static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7fffffff, 0x7fc12345, 0xffffffff};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        float x = s_from_bits(nans[i]), e = s_exp(x), l = s_log(x), t = s_tanh(x);
        assert_true(e != e && l != l && t != t);
    }
}

static int run_v16_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fma),
        cmocka_unit_test(test_lane_operations),
        cmocka_unit_test(test_sum_and_max),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_load_cols4),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_function_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
