/* power.c - see power.h. Pairs of doubles, Dekker, "A floating-point technique for extending the
 * available precision" (Numerische Mathematik 18, 1971). */
#include "trainer/power.h"

#include <math.h>

#include "kernels/kernels.h"

/* hi + lo, |lo| at most half an ulp of hi. */
struct pair {
    double hi, lo;
};

static struct pair two_sum(double a, double b)
{
    double s = a + b, t = s - a;
    return (struct pair){s, (a - (s - t)) + (b - t)};
}

static struct pair two_prod(double a, double b)
{
    double p = a * b;
    return (struct pair){p, fma(a, b, -p)};
}

static struct pair add(struct pair a, struct pair b)
{
    struct pair s = two_sum(a.hi, b.hi), t = two_sum(a.lo, b.lo);
    s = two_sum(s.hi, s.lo + t.hi);
    return two_sum(s.hi, s.lo + t.lo);
}

static struct pair mul(struct pair a, struct pair b)
{
    struct pair p = two_prod(a.hi, b.hi);
    return two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

/* a / n for a small integer n. */
static struct pair divide(struct pair a, double n)
{
    double q = a.hi / n, rest = fma(-q, n, a.hi);
    return two_sum(q, (rest + a.lo) / n);
}

/*
 * exp(x), |x| below 100. With n = round(x / ln 2) and r = (x - n ln 2) / 256, |r| < 0.0014: twelve
 * terms of exp(r) - 1 leave r^13/13! < 2^-156. The square is taken eight times of exp - 1, as
 * (1+e)^2 - 1 = 2e + e^2, which keeps the digits that a leading 1 would push out.
 */
static struct pair exp_pair(struct pair x)
{
    static const struct pair ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
    enum { TERMS = 12, SQUARES = 8 };
    double n = rint(x.hi / ln2.hi);
    struct pair r = add(x, mul((struct pair){-n, 0}, ln2)), e = {0, 0};
    r = (struct pair){ldexp(r.hi, -SQUARES), ldexp(r.lo, -SQUARES)};
    for (int k = TERMS; k >= 1; k--) /* Horner: e = r/k (1 + e) */
        e = divide(mul(r, add((struct pair){1, 0}, e)), k);
    for (int k = 0; k < SQUARES; k++)
        e = add((struct pair){2 * e.hi, 2 * e.lo}, mul(e, e));
    e = add((struct pair){1, 0}, e);
    return (struct pair){ldexp(e.hi, (int)n), ldexp(e.lo, (int)n)};
}

/* log(x): y = kern_log(x) is right to about 2^-50; d = x exp(-y) - 1 is what it lacks, log(1 + d)
 * = d - d^2/2 + ... */
static struct pair log_pair(double x)
{
    double y = kern_log(x);
    struct pair one = mul((struct pair){x, 0}, exp_pair((struct pair){-y, 0}));
    struct pair d = add(one, (struct pair){-1, 0});
    return add((struct pair){y, 0}, add(d, (struct pair){-d.hi * d.hi / 2, 0}));
}

double power(double x, double a)
{
    return exp_pair(mul(log_pair(x), (struct pair){a, 0})).hi;
}
