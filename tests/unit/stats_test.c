/*
 * stats_test - guards against a p-value that is wrong: the other tail, n in the place of n - 1,
 * degrees of freedom of the other test, an incomplete beta function that fails near its ends.
 */
#include <math.h>

#include "model/stats.h"
#include "tests/unit/util.h"

/* Quantiles that any table of Student's t has, to the digits printed there. */
static void quantiles(void **state)
{
    static const struct {
        double df, t, p, tol;
    } cases[] = {
        {1, 1, 0.25, 1e-12},
        {1, 31.820516, 0.01, 1e-9},
        {1, 318.308839, 0.001, 1e-9},
        {2, 6.964557, 0.01, 1e-8},
        {2, 9.924843, 0.005, 1e-8},
        {3, 4.540703, 0.01, 1e-8},
        {4, 3.746947, 0.01, 1e-8},
        {10, 1.812461, 0.05, 1e-7},
        {30, 2.457262, 0.01, 1e-7},
        {120, 1.657651, 0.05, 1e-7},
        {2, 0, 0.5, 0},
        {2, -6.964557, 0.99, 1e-8},
        {7.5, -1e9, 1, 1e-12},
        {7.5, 1e9, 0, 1e-12},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        double p = t_upper(cases[i].t, cases[i].df);
        if (!(fabs(p - cases[i].p) <= cases[i].tol))
            fail_msg("df %g, t %g: p %.12g, expected %.12g", cases[i].df, cases[i].t, p,
                     cases[i].p);
    }
}

/* df 2 has a closed form: P(T >= t) = (1 - t / sqrt(2 + t^2)) / 2. */
static void two_degrees(void **state)
{
    (void)state;
    for (double t = -40; t <= 40; t += 0.37) {
        double want =
            t > 0 ? 1 / (2 + t * t) / (1 + t / sqrt(2 + t * t)) : 0.5 - 0.5 * t / sqrt(2 + t * t);
        if (!(fabs(t_upper(t, 2) - want) <= 1e-11 * want))
            fail_msg("t %g: %.15g, expected %.15g", t, t_upper(t, 2), want);
    }
}

static void summaries(void **state)
{
    static const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    struct stats s = stats_of(x, 8), one = stats_of(x, 1), none = stats_of(x, 0);
    (void)state;
    assert_true(s.mean == 5 && s.sd_pop == 2 && fabs(s.sd - 2.138089935299395) < 1e-14);
    assert_true(s.min == 2 && s.max == 9 && s.n == 8);
    assert_true(one.mean == 2 && isnan(one.sd) && isnan(none.mean));
    assert_false(t_one_sample(&one, 3, 0).valid);
    assert_false(t_welch(&s, &one, 0).valid);
    static const double same[] = {1.5, 1.5, 1.5};
    struct stats c = stats_of(same, 3);
    assert_false(t_one_sample(&c, 3, 0).valid);
}

/* Two pairs of samples, worked out by hand.
 */
static void tests_of_means(void **state)
{
    static const double a[] = {1, 2, 3}, b[] = {4, 5, 9};
    struct stats x = stats_of(a, 3), y = stats_of(b, 3);
    (void)state;
    /* mean 2, variance 1: t = (5 - 2) / sqrt(1/3) = 5.196, df 2, p = (1 - 5.196 / sqrt(29)) / 2 */
    struct t_test one = t_one_sample(&x, 5, 0);
    assert_true(one.valid && one.gain == 3 && one.df == 2);
    assert_true(fabs(one.t - 5.196152422706632) < 1e-12 &&
                fabs(one.p - 0.5 * (1 - one.t / sqrt(29))) < 1e-12);
    assert_true(fabs(t_one_sample(&x, 5, 3).p - 0.5) < 1e-12);
    /* mean 6, variance 7: t = 4 / sqrt(8/3), df = (8/3)^2 / ((1/3)^2/2 + (7/3)^2/2) = 2.56 */
    struct t_test w = t_welch(&x, &y, 0);
    assert_true(w.valid && w.gain == 4 && fabs(w.df - 2.56) < 1e-12);
    assert_true(fabs(w.t - 2.449489742783178) < 1e-12);
    assert_true(w.p > 0.04 && w.p < 0.07 && t_welch(&y, &x, 0).p > 0.9);
}

/* The 2,048-context record: t = 31.42, df 2, p = 0.00051. #1019 against #549: t = 11.83, df 3.31.
 */
static void public_tests(void **state)
{
    static const double context[] = {1.20576485, 1.20617075, 1.20716309};
    static const double pr1019[] = {1.11508120, 1.11437394, 1.11475014};
    static const double pr549[] = {1.11922988, 1.11888882, 1.12002032};
    struct stats a = stats_of(context, 3), b = stats_of(pr1019, 3);
    struct stats c = stats_of(pr549, 3);
    struct t_test t = t_one_sample(&a, 1.2193657, 0);
    (void)state;
    assert_true(t.valid && fabs(t.t - 31.42) < 0.2 && t.df == 2 && fabs(t.p - 0.00051) < 1e-5);
    t = t_welch(&b, &c, 0);
    assert_true(t.valid && fabs(t.t - 11.8339) < 1e-3 && fabs(t.df - 3.3063) < 1e-3);
    assert_true(fabs(t.p - 0.0004) < 1e-4);
    t = t_welch(&b, &c, 0.005);
    assert_true(t.t < 0 && t.p > 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles),    cmocka_unit_test(two_degrees),
        cmocka_unit_test(summaries),    cmocka_unit_test(tests_of_means),
        cmocka_unit_test(public_tests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
