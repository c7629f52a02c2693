/*
 * stats.h - mean, standard deviation and t-tests of a handful of scores.
 *
 * Scores are better when lower, so a gain is `reference - new`. All tests are one-sided: p is the
 * probability of a gain at least this large if the true gain were exactly `margin`.
 *
 * The rule of the challenge (README, "Submission process") asks for p < 0.01 that a record is at
 * least 0.005 nats better than the one before, and names no test. Both tests that people ran are
 * here: one sample against a constant, and Welch's for two lists of seeds.
 */
#ifndef MODEL_STATS_H
#define MODEL_STATS_H

#include <stdbool.h>
#include <stddef.h>

struct stats {
    size_t n;
    double mean;
    double sd;     /* sample standard deviation, divides by n - 1; NaN when n < 2 */
    double sd_pop; /* divides by n; only for explaining somebody's figure */
    double min, max;
};

/* stats_of - of x[n]. Two passes, in order. All NaN when n is 0. */
struct stats stats_of(const double *x, size_t n);

struct t_test {
    bool valid; /* false: fewer than two scores, or all of them equal; then nothing else is set */
    double gain, t, df, p;
};

/* t_one_sample - new scores against a constant reference: t = (gain - margin) / (sd / sqrt(n)), df
 * = n - 1 (Student, 1908). */
struct t_test t_one_sample(const struct stats *x, double reference, double margin);

/* t_welch - new scores against old ones with a variance of their own: t = (gain - margin) /
 * sqrt(sx^2/nx + sy^2/ny), df by Welch and Satterthwaite (Welch, Biometrika 34, 1947). */
struct t_test t_welch(const struct stats *x, const struct stats *old, double margin);

/* t_upper - P(T >= t) for Student's t with df degrees of freedom, df > 0 and not only whole ones.
 * About 12 digits; by the incomplete beta function, I_x(df/2, 1/2) with x = df / (df + t^2)
 * (Abramowitz and Stegun 26.7.1). */
double t_upper(double t, double df);

#endif
