/*
 * kern_ref.h - what the tests of kernels share: random inputs, comparison, backends to try, and the
 * operations of kernels.h once more, written naively in double precision.
 *
 * Nothing here shares code with kernels/. Functions are static inline, so that a test may leave
 * some unused.
 */
#ifndef TESTS_UNIT_KERN_REF_H
#define TESTS_UNIT_KERN_REF_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/kernels.h"

/* Random numbers: splitmix64 (Steele, Lea and Flood, 2014). */
struct ref_rng {
    uint64_t state;
};

static inline uint64_t ref_next(struct ref_rng *g)
{
    uint64_t z = g->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Every run has fresh inputs, unless REF_SEED repeats those of an earlier one. `stream` tells the
 * tests of one program apart. */
static inline struct ref_rng ref_fresh(uint64_t stream)
{
    static uint64_t seed;
    const char *again = getenv("REF_SEED");
    if (seed == 0) {
        seed = again ? strtoull(again, NULL, 10) : (uint64_t)time(NULL);
        print_message("REF_SEED=%llu\n", (unsigned long long)seed);
    }
    return (struct ref_rng){seed * 1000 + stream};
}

/* Uniform in (-1, 1). */
static inline double ref_uniform(struct ref_rng *g)
{
    return ((double)(ref_next(g) >> 11) + 0.5) * 0x1p-52 - 1.0;
}

static inline void *ref_alloc(size_t n, size_t size)
{
    void *p = malloc(n * size + 1);
    if (!p)
        abort();
    return p;
}

/* n random floats of about the given size. */
static inline float *ref_random(struct ref_rng *g, size_t n, double size)
{
    float *x = ref_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(size * (ref_uniform(g) + ref_uniform(g)));
    return x;
}

/* n floats that no operation may leave behind. */
static inline float *ref_poison(size_t n)
{
    float *x = ref_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static inline float *ref_copy(const float *x, size_t n)
{
    float *y = ref_alloc(n, sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static inline double *ref_double(const float *x, size_t n)
{
    double *y = ref_alloc(n, sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i];
    return y;
}

static inline double *ref_zeros(size_t n)
{
    double *y = ref_alloc(n, sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] = 0;
    return y;
}

static inline uint16_t *ref_ids(struct ref_rng *g, size_t n, size_t below)
{
    uint16_t *x = ref_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (uint16_t)(ref_next(g) % below);
    return x;
}

/* Fails, naming the worst element, unless |got - want| <= tol * |want| as vectors. NaN never
 * passes. */
static inline void ref_close(const char *name, const char *what, const float *got,
                             const double *want, size_t n, double tol)
{
    double diff = 0, norm = 0, worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        diff += d * d;
        norm += want[i] * want[i];
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    if (!(sqrt(diff) <= tol * (sqrt(norm) + 0.1)))
        fail_msg("%s: %s: error %.3g of norm %.3g; worst at %zu: %.9g instead of %.9g", name, what,
                 sqrt(diff), sqrt(norm), at, (double)got[at], want[at]);
}

/* Fails at the first element whose bits differ. */
static inline void ref_same(const char *name, const char *what, const float *got, const float *want,
                            size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s: %s: bits differ at %zu: %.9g and %.9g", name, what, i, (double)got[i],
                     (double)want[i]);
}

/* The backends to try: every instruction set of this machine with 1, 2 and 7 threads. */
enum { REF_BACKENDS = 9 };

/* Backend i, or NULL when the machine lacks it. Release with kern_free. */
static inline struct kern *ref_backend(size_t i)
{
    static const char *const isa[] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 7};
    struct err e = {0};
    struct kern *k = NULL;
    setenv("KERN_ISA", isa[i / 3], 1);
    enum err_code rc = kern_cpu(&k, threads[i % 3], &e);
    unsetenv("KERN_ISA");
    if (rc != ERR_OK && rc != ERR_USAGE)
        fail_msg("%s, %zu threads: %s", isa[i / 3], threads[i % 3], e.msg);
    return k;
}

/* The portable backend with one thread. */
static inline struct kern *ref_portable(void)
{
    return ref_backend(0);
}

/* The operations. Shapes and meaning as in kernels.h. */

static inline void ref_rms(double *u, const double *x, size_t n, double eps)
{
    double ss = 0;
    for (size_t i = 0; i < n; i++)
        ss += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        u[i] = x[i] / sqrt(ss / (double)n + eps);
}

static inline void ref_combine(double *y, double *n, const double *x0, const double *x1,
                               const double *c0, const double *c1, size_t rows, size_t dim,
                               double eps, double gain)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < dim; i++) {
            size_t at = r * dim + i;
            y[at] = (c0 ? c0[i] : 1) * x0[at] + (x1 ? (c1 ? c1[i] : 1) * x1[at] : 0);
        }
        ref_rms(n + r * dim, y + r * dim, dim, eps);
        for (size_t i = 0; i < dim; i++)
            n[r * dim + i] *= gain;
    }
}

/* Positions of row r, angles from cos and sin [positions][rope/2]. */
static inline void ref_qk(double *y, const double *x, const double *gain, const double *cos,
                          const double *sin, const struct kern_qk *s)
{
    size_t half = s->rope_dims / 2, hd = s->head_dim;
    double *u = ref_zeros(hd);
    for (size_t r = 0; r < s->rows; r++)
        for (size_t h = 0; h < s->heads; h++) {
            size_t at = (r * s->heads + h) * hd, t = (s->pos0 + r % s->t) * half;
            ref_rms(u, x + at, hd, s->eps);
            for (size_t i = 0; i < hd; i++) {
                double out = u[i];
                if (i < half)
                    out = u[i] * cos[t + i] + u[i + half] * sin[t + i];
                else if (i < 2 * half)
                    out = u[i] * cos[t + i - half] - u[i - half] * sin[t + i - half];
                y[at + i] = (gain ? gain[h] : 1) * out;
            }
        }
    free(u);
}

/* Offsets of query (b, j, h) and key (b, j, h's KV head). */
static inline size_t ref_q_at(const struct kern_attn *s, size_t b, size_t j, size_t h)
{
    return ((b * s->tq + j) * s->heads + h) * s->head_dim;
}

static inline size_t ref_k_at(const struct kern_attn *s, size_t b, size_t j, size_t h)
{
    return ((b * s->tk + j) * s->kv_heads + h / (s->heads / s->kv_heads)) * s->head_dim;
}

static inline double ref_dot(const double *a, const double *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* p[0..q0+j] = the probabilities of one query; returns its lse. */
static inline double ref_attn_row(double *p, const double *q, const double *k,
                                  const struct kern_attn *s, size_t b, size_t j, size_t h)
{
    size_t n = s->q0 + j + 1;
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) {
        p[i] = s->scale * ref_dot(q + ref_q_at(s, b, j, h), k + ref_k_at(s, b, i, h), s->head_dim);
        top = fmax(top, p[i]);
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(p[i] - top);
    double lse = top + log(sum);
    for (size_t i = 0; i < n; i++)
        p[i] = exp(p[i] - lse);
    return lse;
}

static inline void ref_attn(double *o, double *lse, const double *q, const double *k,
                            const double *v, const struct kern_attn *s)
{
    double *p = ref_zeros(s->tk);
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t j = 0; j < s->tq; j++) {
                double *out = o + ref_q_at(s, b, j, h);
                lse[(b * s->heads + h) * s->tq + j] = ref_attn_row(p, q, k, s, b, j, h);
                for (size_t d = 0; d < s->head_dim; d++)
                    out[d] = 0;
                for (size_t i = 0; i <= s->q0 + j; i++)
                    for (size_t d = 0; d < s->head_dim; d++)
                        out[d] += p[i] * v[ref_k_at(s, b, i, h) + d];
            }
    free(p);
}

static inline void ref_attn_bwd(double *dq, double *dk, double *dv, const double *q,
                                const double *k, const double *v, const double *go,
                                const struct kern_attn *s)
{
    size_t hd = s->head_dim;
    double *p = ref_zeros(s->tk), *dp = ref_zeros(s->tk);
    for (size_t i = 0; i < s->batch * s->tq * s->heads * hd; i++)
        dq[i] = 0;
    for (size_t i = 0; i < s->batch * s->tk * s->kv_heads * hd; i++)
        dk[i] = dv[i] = 0;
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t j = 0; j < s->tq; j++) {
                size_t at = ref_q_at(s, b, j, h), n = s->q0 + j + 1;
                double mean = 0;
                ref_attn_row(p, q, k, s, b, j, h);
                for (size_t i = 0; i < n; i++) {
                    dp[i] = ref_dot(go + at, v + ref_k_at(s, b, i, h), hd);
                    mean += p[i] * dp[i];
                }
                for (size_t i = 0; i < n; i++) {
                    size_t key = ref_k_at(s, b, i, h);
                    double ds = p[i] * (dp[i] - mean) * s->scale;
                    for (size_t d = 0; d < hd; d++) {
                        dv[key + d] += p[i] * go[at + d];
                        dk[key + d] += ds * q[at + d];
                        dq[at + d] += ds * k[key + d];
                    }
                }
            }
    free(p);
    free(dp);
}

/* y[rows][n_out] = x w^T */
static inline void ref_linear(double *y, const double *x, const double *w, size_t rows,
                              size_t n_out, size_t n_in)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < n_out; o++)
            y[r * n_out + o] = ref_dot(x + r * n_in, w + o * n_in, n_in);
}

static inline void ref_logits(double *l, const double *h, const double *w,
                              const struct kern_head *s)
{
    ref_linear(l, h, w, s->rows, s->vocab, s->dim);
    if (s->cap != 0)
        for (size_t i = 0; i < s->rows * s->vocab; i++)
            l[i] = s->cap * tanh(l[i] / s->cap);
}

/* l [rows][vocab] is room for the logits. */
static inline void ref_head(double *nll, double *lse, double *l, const double *h, const double *w,
                            const struct kern_head *s)
{
    ref_logits(l, h, w, s);
    for (size_t r = 0; r < s->rows; r++) {
        const double *row = l + r * s->vocab;
        double top = -INFINITY, sum = 0;
        for (size_t v = 0; v < s->vocab; v++)
            top = fmax(top, row[v]);
        for (size_t v = 0; v < s->vocab; v++)
            sum += exp(row[v] - top);
        lse[r] = top + log(sum);
        nll[r] = lse[r] - row[s->target[r]];
    }
}

/* dw is added to. */
static inline void ref_head_bwd(double *dh, double *dw, const double *h, const double *w,
                                const struct kern_head *s)
{
    double *l = ref_zeros(s->rows * s->vocab), *lse = ref_zeros(s->rows);
    double *nll = ref_zeros(s->rows);
    ref_head(nll, lse, l, h, w, s);
    for (size_t i = 0; i < s->rows * s->dim; i++)
        dh[i] = 0;
    for (size_t r = 0; r < s->rows; r++)
        for (size_t v = 0; v < s->vocab; v++) {
            double x = l[r * s->vocab + v], t = s->cap != 0 ? x / s->cap : 0;
            double dz = (exp(x - lse[r]) - (v == s->target[r])) * (1 - t * t) * s->gscale;
            for (size_t i = 0; i < s->dim; i++) {
                dh[r * s->dim + i] += dz * w[v * s->dim + i];
                dw[v * s->dim + i] += dz * h[r * s->dim + i];
            }
        }
    free(l);
    free(lse);
    free(nll);
}

#endif
