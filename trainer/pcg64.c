/* pcg64.c - see pcg64.h. */
#include "trainer/pcg64.h"

#include <assert.h>
#include <math.h>

#include "kernels/kernels.h"

__extension__ typedef unsigned __int128 u128; /* pedantic C17 has no name for it */

/* ---- seeding ---- */

enum { POOL = 4, WORDS = 8 };

/* The running constant is part of the hash: every call sees another one. */
static uint32_t hash_word(uint32_t v, uint32_t *c, uint32_t mult)
{
    v ^= *c;
    *c *= mult;
    v *= *c;
    return v ^ v >> 16;
}

static uint32_t mix_words(uint32_t x, uint32_t y)
{
    uint32_t v = 0xca01f9ddu * x - 0x4973f715u * y;
    return v ^ v >> 16;
}

static void seed_sequence(uint64_t seed, uint32_t out[WORDS])
{
    /* A seed below 2^32 is one word for NumPy, not two; the missing words are hashed as zeros, so
     * both are the same. */
    const uint32_t entropy[POOL] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, mult = 0x931e8875u;
    uint32_t pool[POOL], c = 0x43b0d7e5u;
    for (size_t i = 0; i < POOL; i++)
        pool[i] = hash_word(entropy[i], &c, mult);
    for (size_t from = 0; from < POOL; from++)
        for (size_t to = 0; to < POOL; to++)
            if (from != to)
                pool[to] = mix_words(pool[to], hash_word(pool[from], &c, mult));
    c = 0x8b51f9ddu;
    for (size_t i = 0; i < WORDS; i++)
        out[i] = hash_word(pool[i % POOL], &c, 0x58f38dedu);
}

static u128 join(const uint64_t half[2])
{
    return (u128)half[0] << 64 | half[1];
}

static void split(uint64_t half[2], u128 v)
{
    half[0] = (uint64_t)(v >> 64);
    half[1] = (uint64_t)v;
}

static void advance(struct pcg64 *g)
{
    const u128 mult = (u128)0x2360ed051fc65da4u << 64 | 0x4385df649fccf645u;
    split(g->state, join(g->state) * mult + join(g->inc));
}

void pcg64_seed(struct pcg64 *g, uint64_t seed)
{
    uint32_t w[WORDS];
    uint64_t v[WORDS / 2];
    seed_sequence(seed, w);
    for (size_t i = 0; i < WORDS / 2; i++)
        v[i] = (uint64_t)w[2 * i + 1] << 32 | w[2 * i];
    *g = (struct pcg64){0};
    split(g->inc, join(v + 2) << 1 | 1);
    advance(g); /* from state 0 */
    split(g->state, join(g->state) + join(v));
    advance(g);
}

/* ---- plain draws ---- */

uint64_t pcg64_next(struct pcg64 *g)
{
    advance(g);
    uint64_t x = g->state[0] ^ g->state[1];
    unsigned turn = (unsigned)(g->state[0] >> 58);
    return x >> turn | x << (-turn & 63);
}

uint32_t pcg64_next32(struct pcg64 *g)
{
    if (g->has_spare) {
        g->has_spare = false;
        return g->spare;
    }
    uint64_t x = pcg64_next(g);
    g->spare = (uint32_t)(x >> 32);
    g->has_spare = true;
    return (uint32_t)x;
}

double pcg64_random(struct pcg64 *g)
{
    return (double)(pcg64_next(g) >> 11) * 0x1p-53;
}

uint64_t pcg64_below(struct pcg64 *g, uint64_t n)
{
    assert(n);
    if (n == 1)
        return 0;
    if (n == (uint64_t)1 << 32)
        return pcg64_next32(g);
    if (n < (uint64_t)1 << 32) {
        uint32_t lo = ((uint32_t)0 - (uint32_t)n) % (uint32_t)n; /* 2^32 mod n */
        uint64_t m;
        do
            m = (uint64_t)pcg64_next32(g) * n;
        while ((uint32_t)m < lo);
        return m >> 32;
    }
    uint64_t lo = ((uint64_t)0 - n) % n;
    u128 m;
    do
        m = (u128)pcg64_next(g) * n;
    while ((uint64_t)m < lo);
    return (uint64_t)(m >> 64);
}

/* 0 .. most by masking and rejection: NumPy's shuffles do not use Lemire's method. */
static uint32_t masked(struct pcg64 *g, uint32_t most)
{
    uint32_t mask = UINT32_MAX >> __builtin_clz(most), x;
    do
        x = pcg64_next32(g) & mask;
    while (x > most);
    return x;
}

void pcg64_permutation(struct pcg64 *g, size_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = i;
    for (size_t i = n; i-- > 1;) {
        size_t j = masked(g, (uint32_t)i), t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
}

/* ---- binomial ---- */

/* n * p is at most 30: sum up the probabilities of 0, 1, ... until they reach a uniform draw. */
static int64_t by_inversion(struct pcg64 *g, int64_t n, double p)
{
    double q = 1.0 - p, none = kern_exp((double)n * kern_log(q)), np = (double)n * p;
    double limit = np + 10.0 * sqrt(np * q + 1);
    int64_t bound = (int64_t)((double)n < limit ? (double)n : limit), x = 0;
    double px = none, u = pcg64_random(g);
    while (u > px) {
        if (++x > bound) { /* rounding left u unreached */
            x = 0;
            px = none;
            u = pcg64_random(g);
        } else {
            u -= px;
            px = ((double)(n - x + 1) * p * px) / ((double)x * q);
        }
    }
    return x;
}

/* The tail of Stirling's series for log(x!), x = a - 1; in the form that BTPE's step 5.3 has. */
static double stirling(double a)
{
    double s = a * a;
    return (13680. - (462. - (132. - (99. - 140. / s) / s) / s) / s) / a / 166320.;
}

/* Names as in the paper; p here is at most 0.5, n * p more than 30. */
struct btpe {
    int64_t n, m;
    double p, q, npq, p1, p2, p3, p4, xm, xl, xr, c, lam_l, lam_r;
};

static double lambda(double a)
{
    return a * (1.0 + a / 2.0);
}

static void btpe_init(struct btpe *b, int64_t n, double p)
{
    double q = 1.0 - p, fm = (double)n * p + p;
    *b = (struct btpe){.n = n, .m = (int64_t)floor(fm), .p = p, .q = q, .npq = (double)n * p * q};
    b->p1 = floor(2.195 * sqrt(b->npq) - 4.6 * q) + 0.5;
    b->xm = (double)b->m + 0.5;
    b->xl = b->xm - b->p1;
    b->xr = b->xm + b->p1;
    b->c = 0.134 + 20.5 / (15.3 + (double)b->m);
    b->lam_l = lambda((fm - b->xl) / (fm - b->xl * p));
    b->lam_r = lambda((b->xr - fm) / (b->xr * q));
    b->p2 = b->p1 * (1.0 + 2.0 * b->c);
    b->p3 = b->p2 + b->c / b->lam_l;
    b->p4 = b->p3 + b->c / b->lam_r;
}

/* Steps 1 to 4: a point under the majorising curve. Its integer part is *y, its height *v, negative
 * when the point lies in the triangle and is accepted as it is. False: draw again. */
static bool btpe_point(const struct btpe *b, struct pcg64 *g, int64_t *y, double *v)
{
    double u = pcg64_random(g) * b->p4, w = pcg64_random(g);
    if (u <= b->p1) { /* triangle */
        *y = (int64_t)floor(b->xm - b->p1 * w + u);
        *v = -1;
        return true;
    }
    if (u <= b->p2) { /* parallelogram */
        double x = b->xl + (u - b->p1) / b->c;
        *v = w * b->c + 1.0 - fabs((double)b->m - x + 0.5) / b->p1;
        if (*v > 1.0)
            return false;
        *y = (int64_t)floor(x);
        return true; /* rounding may give *v = -1e-16, which the test would accept as well */
    }
    if (!(w > 0)) /* log(0) */
        return false;
    if (u <= b->p3) { /* left tail */
        *y = (int64_t)floor(b->xl + kern_log(w) / b->lam_l);
        *v = w * (u - b->p2) * b->lam_l;
        return *y >= 0;
    }
    *y = (int64_t)floor(b->xr - kern_log(w) / b->lam_r); /* right tail */
    *v = w * (u - b->p3) * b->lam_r;
    return *y <= b->n;
}

/* Step 5.1: f(y)/f(m) by the recurrence, for y near m or very far out. */
static bool btpe_by_ratio(const struct btpe *b, int64_t y, double v)
{
    double s = b->p / b->q, a = s * (double)(b->n + 1), f = 1.0;
    for (int64_t i = b->m + 1; i <= y; i++)
        f *= a / (double)i - s;
    for (int64_t i = y + 1; i <= b->m; i++)
        f /= a / (double)i - s;
    return !(v > f);
}

/* Steps 5.2 and 5.3: squeezes around log f(y)/f(m), then that by Stirling's formula. */
static bool btpe_by_log(const struct btpe *b, int64_t y, int64_t k, double v)
{
    double kd = (double)k,
           rho = (kd / b->npq) * ((kd * (kd / 3.0 + 0.625) + 1. / 6.) / b->npq + 0.5);
    double t = (double)(-k * k) / (2 * b->npq), a = v > 0 ? kern_log(v) : -INFINITY;
    if (a < t - rho)
        return true;
    if (a > t + rho)
        return false;
    double x1 = (double)(y + 1), f1 = (double)(b->m + 1);
    double z = (double)(b->n + 1 - b->m), w = (double)(b->n - y + 1);
    return !(a > b->xm * kern_log(f1 / x1) + ((double)(b->n - b->m) + 0.5) * kern_log(z / w) +
                     (double)(y - b->m) * kern_log(w * b->p / (x1 * b->q)) + stirling(f1) +
                     stirling(z) + stirling(x1) + stirling(w));
}

static int64_t by_btpe(struct pcg64 *g, int64_t n, double p)
{
    struct btpe b;
    int64_t y;
    double v;
    btpe_init(&b, n, p);
    for (;;) {
        if (!btpe_point(&b, g, &y, &v))
            continue;
        int64_t k = y > b.m ? y - b.m : b.m - y;
        bool log_form = k > 20 && (double)k < b.npq / 2.0 - 1;
        if (v < 0 || (log_form ? btpe_by_log(&b, y, k, v) : btpe_by_ratio(&b, y, v)))
            return y;
    }
}

static int64_t binomial_half(struct pcg64 *g, int64_t n, double p)
{
    return p * (double)n <= 30.0 ? by_inversion(g, n, p) : by_btpe(g, n, p);
}

int64_t pcg64_binomial(struct pcg64 *g, int64_t n, double p)
{
    if (!n || !(p > 0))
        return 0;
    return p <= 0.5 ? binomial_half(g, n, p) : n - binomial_half(g, n, 1.0 - p);
}

void pcg64_multinomial(struct pcg64 *g, int64_t *out, int64_t n, const double *p, size_t d)
{
    double left = 1.0;
    for (size_t i = 0; i < d; i++)
        out[i] = 0;
    for (size_t i = 0; i + 1 < d && n > 0; i++) {
        out[i] = pcg64_binomial(g, n, p[i] / left);
        n -= out[i];
        left -= p[i];
    }
    out[d - 1] += n;
}

/* ---- choice ---- */

/* The first of cdf[n], ascending, that is above x; there is one, because the last is 1. */
static size_t above(const double *cdf, size_t n, double x)
{
    size_t lo = 0;
    while (lo + 1 < n) {
        size_t mid = lo + (n - lo - 1) / 2; /* below the end, so that n shrinks */
        if (cdf[mid] > x)
            n = mid + 1;
        else
            lo = mid + 1;
    }
    return lo;
}

void pcg64_choice(struct pcg64 *g, size_t *out, size_t size, const double *p, size_t n,
                  double *work)
{
    double *left = work, *cdf = work + n;
    for (size_t i = 0; i < n; i++)
        left[i] = p[i];
    for (size_t found = 0; found < size;) {
        double sum = 0;
        size_t want = size - found;
        for (size_t i = 0; i < n; i++)
            cdf[i] = sum += left[i];
        assert(sum > 0);
        for (size_t i = 0; i < n; i++)
            cdf[i] /= sum;
        /* A round draws as many as are missing; what was found already is drawn in vain. An index
         * with nothing left is never above a draw, so 0 can mark those of this round, too. */
        while (want--) {
            size_t at = above(cdf, n, pcg64_random(g));
            if (left[at] > 0) {
                left[at] = 0;
                out[found++] = at;
            }
        }
    }
}
