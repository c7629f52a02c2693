/*
 * math64_test.c - exists for the fault that a RoPE table or a schedule differs between builds or
 * from mathematics: exp, log, sin and cos against the C library in long double, the tables against
 * the formula and against a recorded hash.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

/* |got - want| in units in the last place of a double of want's size. */
static double ulps(double got, long double want)
{
    if ((double)want == got)
        return 0;
    int e;
    frexpl(want, &e);
    int lowest = DBL_MIN_EXP - DBL_MANT_DIG;
    int ulp = e - DBL_MANT_DIG > lowest ? e - DBL_MANT_DIG : lowest;
    return fabs((double)ldexpl(got - want, -ulp));
}

static uint64_t seed = 7;

/* Uniform in [lo, hi). */
static double uniform(double lo, double hi)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(seed >> 11) * 0x1p-53;
}

static const struct {
    const char *name;
    double (*ours)(double);
    long double (*theirs)(long double);
    double lo, hi, limit;
} ranges[] = {
    {"exp near 0", kern_exp, expl, -0.5, 0.5, 1.5},
    {"exp", kern_exp, expl, -700, 709, 1.5},
    {"exp subnormal", kern_exp, expl, -745, -708, 2},
    {"log near 1", kern_log, logl, 0.5, 2, 1.5},
    {"log", kern_log, logl, 1e-5, 1e6, 1.5},
    {"log subnormal", kern_log, logl, 0x1p-1074, 0x1p-1022, 1.5},
    {"sin small", kern_sin, sinl, -1, 1, 1.5},
    {"sin", kern_sin, sinl, -1e5, 1e5, 2},
    {"cos small", kern_cos, cosl, -1, 1, 1.5},
    {"cos", kern_cos, cosl, -1e5, 1e5, 2},
};

static void test_accuracy(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (int n = 0; n < 100000; n++) {
            double x = uniform(ranges[i].lo, ranges[i].hi);
            double got = ranges[i].ours(x), off = ulps(got, ranges[i].theirs(x));
            if (!(off <= ranges[i].limit))
                fail_msg("%s of %a: %a is %.2f ulp off", ranges[i].name, x, got, off);
        }
}

/* Where cancellation is worst: doubles next to multiples of pi/2. */
static void test_near_multiples_of_half_pi(void **state)
{
    (void)state;
    for (int n = 1; n < 63000; n += 7) {
        double x = n * 1.57079632679489661923;
        for (int side = 0; side < 3; side++, x = nextafter(x, 1e6)) {
            double s = ulps(kern_sin(x), sinl(x)), c = ulps(kern_cos(x), cosl(x));
            if (!(s <= 4 && c <= 4))
                fail_msg("near %d pi/2, %a: sin %.2f ulp, cos %.2f ulp off", n, x, s, c);
        }
    }
}

static void test_special_values(void **state)
{
    (void)state;
    assert_true(kern_exp(0) == 1 && kern_exp(-INFINITY) == 0 && kern_exp(-1e300) == 0);
    assert_true(isinf(kern_exp(INFINITY)) && isinf(kern_exp(710)) && isnan(kern_exp(NAN)));
    assert_true(kern_log(1) == 0 && kern_log(0) == -INFINITY && kern_log(-0.0) == -INFINITY);
    assert_true(kern_log(INFINITY) == INFINITY && isnan(kern_log(-1)) && isnan(kern_log(NAN)));
    assert_true(kern_sin(0) == 0 && kern_cos(0) == 1);
    static const double nowhere[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 3; i++)
        assert_true(isnan(kern_sin(nowhere[i])) && isnan(kern_cos(nowhere[i])));
}

static uint64_t fnv1a(const void *data, size_t n, uint64_t h)
{
    for (const unsigned char *p = data; n--; p++)
        h = (h ^ *p) * 0x100000001b3;
    return h;
}

static void test_rope_tables(void **state)
{
    (void)state;
    enum { POSITIONS = 2048, DIMS = 16, HALF = DIMS / 2 };
    static float cos_table[POSITIONS * HALF], sin_table[POSITIONS * HALF];
    kern_rope_tables(cos_table, sin_table, POSITIONS, DIMS, 10000);
    for (size_t t = 0; t < POSITIONS; t++)
        for (size_t i = 0; i < HALF; i++) {
            float inv_freq = (float)pow(10000, -(double)(2 * i) / DIMS);
            float angle = (float)t * inv_freq;
            assert_true(fabs(cos_table[t * HALF + i] - cos(angle)) < 6e-8);
            assert_true(fabs(sin_table[t * HALF + i] - sin(angle)) < 6e-8);
        }
    uint64_t h = fnv1a(cos_table, sizeof cos_table, 0xcbf29ce484222325);
    h = fnv1a(sin_table, sizeof sin_table, h);
    if (h != 0x5b34bed19e92279b)
        fail_msg("the tables have hash %#llx", (unsigned long long)h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_near_multiples_of_half_pi),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_rope_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
