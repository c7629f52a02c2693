/*
 * math64.c - exp, log, sin and cos in double from + - * / alone, and the RoPE tables made with
 * them.
 *
 * libm's versions differ between libraries; these give the same bits everywhere. Speed does not
 * matter: they run once per program, so plain Taylor series with one term too many are good enough.
 */
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

/* 1.5 * 2^52: adding it rounds to an integer, whose low bits are then the low bits of the sum. */
static const double ROUND = 0x1.8p52;

static uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double from_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ln 2 = HI + LO; HI has 32 bits, so that n * HI is exact for every exponent n. */
static const double LN2_HI = 0x1.62e42feep-1, LN2_LO = 0x1.a39ef35793c76p-33;

double kern_exp(double x)
{
    if (!IN_RUNNER && !(x > -746)) /* below half of the smallest subnormal; NaN goes on */
        return x != x ? x : 0;
    if (!IN_RUNNER && x > 710)
        return x * 0x1p1023; /* infinity */
    double n = (x * 0x1.71547652b82fep+0 + ROUND) - ROUND;
    double r = (x - n * LN2_HI) - n * LN2_LO;
    double sum = 0;
    for (int k = 14; k > 0; k--) /* r^15/15! < 2^-62 for |r| <= ln2/2 */
        sum = (sum + 1) * r / k;
    /* 2^n in two factors, because n reaches from -1075 to 1024. */
    int whole = (int)n, half = IN_RUNNER ? whole : whole / 2; /* there |x| is far below 700 */
    double a = from_bits((uint64_t)(half + 1023) << 52);
    double b = IN_RUNNER ? 1 : from_bits((uint64_t)(whole - half + 1023) << 52);
    return (sum + 1) * a * b;
}

double kern_log(double x)
{
    if (!IN_RUNNER && (!(x > 0) || x > 0x1.fffffffffffffp+1023))
        return x == 0 ? -1 / (x * x) : x < 0 ? (x - x) / (x - x) : x; /* -inf, NaN, inf or NaN */
    double e = 0;
    if (!IN_RUNNER && x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcd;
    uint64_t u = bits_of(x) - sqrt_half;
    e += (double)((int64_t)u >> 52);
    double f = from_bits((u & 0xfffffffffffff) + sqrt_half) - 1; /* in [sqrt(1/2), sqrt(2)) - 1 */
    /* log(1+f) = 2 atanh(s) = 2s + 2s z (1/3 + z/5 + ...), s = f/(2+f), z = s^2 < 0.0295 */
    double s = f / (2 + f), z = s * s, p = 0;
    for (int k = 25; k >= 3; k -= 2)
        p = p * z + 1.0 / k;
    /* 2s = f - s f keeps the bits that the division lost. */
    return e * LN2_HI + (f - (s * (f - 2 * z * p) - e * LN2_LO));
}

/*
 * x = n pi/2 + r + tail with |r| <= pi/4; returns r, and the quadrant n mod 4. pi/2 in three parts,
 * the first two of 33 bits, so that their products with n are exact (Cody and Waite, 1980; parts as
 * in fdlibm, e_rem_pio2.c).
 */
static double reduce(double x, double *tail, unsigned *quadrant)
{
    const double p1 = 0x1.921fb544p+0, p2 = 0x1.0b4611a6p-34, p3 = 0x1.3198a2e037073p-69;
    double t = x * 0x1.45f306dc9c883p-1 + ROUND;
    double n = t - ROUND;
    *quadrant = (unsigned)(bits_of(t) & 3);
    double a = x - n * p1, w = n * p2;
    double b = a - w;
    double low = n * p3 - ((a - b) - w);
    double r = b - low;
    *tail = (b - r) - low;
    return r;
}

/* sin or cos of r + tail, |r| <= pi/4, by Taylor series. */
static double sin_part(double r, double tail)
{
    double z = r * r, p = 0;
    for (int k = 19; k > 1; k -= 2)
        p = -(p + 1) * z / (k * (k - 1)); /* -z/6 (1 - z/20 (1 - ...)) */
    return r + (r * p + tail * (1 - z / 2));
}

static double cos_part(double r, double tail)
{
    double z = r * r, p = 0;
    for (int k = 18; k > 2; k -= 2)
        p = -(p + 1) * z / (k * (k - 1));
    double h = z / 2, w = 1 - h;
    return w + ((1 - w) - h + (-h * p - r * tail));
}

static double sin_quadrant(double x, unsigned shift)
{
    unsigned quadrant;
    double tail, r = reduce(x, &tail, &quadrant);
    quadrant += shift;
    double y = quadrant & 1 ? cos_part(r, tail) : sin_part(r, tail);
    return quadrant & 2 ? -y : y;
}

double kern_sin(double x)
{
    return sin_quadrant(x, 0);
}

double kern_cos(double x)
{
    return sin_quadrant(x, 1);
}

void kern_rope_tables(float *cos, float *sin, size_t positions, size_t rope_dims, double base)
{
    size_t half = rope_dims / 2;
    double log_base = kern_log(base);
    for (size_t i = 0; i < half; i++) {
        float inv_freq = (float)kern_exp(-(double)(2 * i) / (double)rope_dims * log_base);
        for (size_t t = 0; t < positions; t++) {
            float angle = (float)t * inv_freq;
            cos[t * half + i] = (float)kern_cos(angle);
            sin[t * half + i] = (float)kern_sin(angle);
        }
    }
}
