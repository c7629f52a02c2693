/* stats.c - see stats.h. */
#include "model/stats.h"

#include <math.h>

struct stats stats_of(const double *x, size_t n)
{
    struct stats s = {n, NAN, NAN, NAN, NAN, NAN};
    double sum = 0, squares = 0;
    if (!n)
        return s;
    s.min = s.max = x[0];
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        s.min = fmin(s.min, x[i]);
        s.max = fmax(s.max, x[i]);
    }
    s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - s.mean) * (x[i] - s.mean);
    s.sd_pop = sqrt(squares / (double)n);
    s.sd = n > 1 ? sqrt(squares / (double)(n - 1)) : NAN;
    return s;
}

/*
 * The continued fraction of I_x(a, b), 1 / (1 + d1 / (1 + d2 / (1 + ...))), evaluated from its end:
 * the number of terms is fixed, so that nothing has to be decided on the way. With x below (a + 1)
 * / (a + b + 2) it converges like a geometric series; 200 terms leave nothing at double precision
 * for a, b up to some thousands. (Abramowitz and Stegun 26.5.8.)
 */
static double beta_fraction(double x, double a, double b)
{
    double f = 1;
    for (int m = 200; m > 0; m--) {
        double k = m / 2, d;
        if (m % 2)
            d = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1));
        else
            d = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k));
        f = 1 + d / f;
    }
    return 1 / f;
}

/* The regularised incomplete beta function, y = 1 - x given apart because it may be tiny. */
static double beta_regular(double x, double y, double a, double b)
{
    if (x <= 0)
        return 0;
    if (y <= 0)
        return 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                     : 1 - front * beta_fraction(y, b, a) / b;
}

double t_upper(double t, double df)
{
    double tail = 0.5 * beta_regular(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5);
    return t > 0 ? tail : 1 - tail;
}

static struct t_test judge(double gain, double margin, double variance, double df)
{
    struct t_test r = {0};
    if (!(variance > 0 && df > 0))
        return r;
    r.valid = true;
    r.gain = gain;
    r.t = (gain - margin) / sqrt(variance);
    r.df = df;
    r.p = t_upper(r.t, df);
    return r;
}

struct t_test t_one_sample(const struct stats *x, double reference, double margin)
{
    return x->n < 2 ? (struct t_test){0}
                    : judge(reference - x->mean, margin, x->sd * x->sd / (double)x->n,
                            (double)(x->n - 1));
}

struct t_test t_welch(const struct stats *x, const struct stats *old, double margin)
{
    if (x->n < 2 || old->n < 2)
        return (struct t_test){0};
    double a = x->sd * x->sd / (double)x->n, b = old->sd * old->sd / (double)old->n;
    double below = a * a / (double)(x->n - 1) + b * b / (double)(old->n - 1);
    return judge(old->mean - x->mean, margin, a + b, below > 0 ? (a + b) * (a + b) / below : 0);
}
