/*
 * vec.inc.h - operations on vectors in memory, of which everything that treats rows is made.
 *
 * Vectors of n floats, of any alignment and length; y may be any of the operands. Rows fit the
 * first-level cache, so several short passes cost no more than a long one.
 *
 * A small build compiles this file for every machine and all other kernels once, for none: those
 * choose between them (cpu.h).
 */
#ifndef KERNELS_CPU_VEC_INC_H
#define KERNELS_CPU_VEC_INC_H

#include "kernels/cpu/cpu.h"

#if defined(KERN_SMALL) && !defined(KERN_ONCE)
#define VEC_FN
#else
#define VEC_FN static
#endif

#ifdef KERN_ONCE

#define VEC_CHOOSE(type, name, args, pass)                                                         \
    static __attribute__((noinline)) type vec_##name args                                          \
    {                                                                                              \
        return cpu_level ? cpu_avx2_##name pass : cpu_portable_##name pass;                        \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic" /* return of a void function's result */
CPU_LEAVES(VEC_CHOOSE)
#pragma GCC diagnostic pop
#undef VEC_CHOOSE
#define vec_lse cpu_lse

#else

/* Lanes that exist at element i of n. */
V16_FN size_t vec_lanes(size_t i, size_t n)
{
    return n - i < V16_LANES ? n - i : V16_LANES;
}

/* A small build does without the shorter way for whole vectors. */
#ifdef KERN_SMALL
enum { VEC_SHORTCUT = 0 };
#else
enum { VEC_SHORTCUT = 1 };
#endif

V16_FN v16 vec_get(const float *p, size_t lanes)
{
    return VEC_SHORTCUT && lanes == V16_LANES ? v16_load(p) : v16_load_n(p, lanes);
}

V16_FN void vec_put(float *p, v16 v, size_t lanes)
{
    if (VEC_SHORTCUT && lanes == V16_LANES)
        v16_store(p, v);
    else
        v16_store_n(p, v, lanes);
}

/*
 * The pieces of a softmax, on n vectors of 16 floats x[j] that lie `stride` floats apart.
 *
 *   vec_max  x[j] = scale * x[j], then -inf in the lanes where j > *pos (pos NULL: nowhere);
 *            *top = max(*top, all x[j])
 *   vec_exp  x[j] = exp(x[j] - *top), part[j % parts] += x[j]; parts is a power of two
 */
VEC_FN void vec_max(float *x, size_t stride, size_t n, float scale, const float *pos, float *top)
{
    for (size_t l = 0; l < 16; l += V16_LANES) {
        v16 most = v16_load(top + l);
        _Alignas(64) float part[4 * V16_LANES]; /* four maxima hide the latency of max */
        for (size_t i = 0; i < 4 * V16_LANES; i += V16_LANES)
            v16_store(part + i, most);
        for (size_t j = 0; j < n; j++) {
            float *t = part + j % 4 * V16_LANES, *at = x + j * stride + l;
            v16 v = v16_mul(v16_set1(scale), v16_load(at));
            if (pos)
                v = v16_sel_gt(v16_set1((float)j), v16_load(pos + l), v16_set1(-INFINITY), v);
            v16_store(at, v);
            v16_store(t, v16_max(v, v16_load(t)));
        }
        for (size_t i = 0; i < 4 * V16_LANES; i += V16_LANES)
            most = v16_max(v16_load(part + i), most);
        v16_store(top + l, most);
    }
    V16_LEAVE();
}

VEC_FN void vec_exp(float *x, size_t stride, size_t n, const float *top, float *part, size_t parts)
{
    for (size_t l = 0; l < 16; l += V16_LANES) {
        float *at = x + l;
        v16 t = v16_load(top + l);
        for (size_t j = 0; j < n; j++, at += stride) {
            float *p = part + (j & (parts - 1)) * 16 + l;
            v16 e = v16_exp(v16_sub(v16_load(at), t));
            v16_store(at, e);
            v16_store(p, v16_add(v16_load(p), e));
        }
    }
    V16_LEAVE();
}

/* l[i] = cap * tanh(l[i] * inv); t[i], unless t is NULL, the tanh. */
VEC_FN void vec_softcap(float *l, float *t, size_t n, float cap, float inv)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = vec_lanes(i, n);
        v16 tanh = v16_tanh(v16_mul(vec_get(l + i, lanes), v16_set1(inv)));
        if (t)
            vec_put(t + i, tanh, lanes);
        vec_put(l + i, v16_mul(v16_set1(cap), tanh), lanes);
    }
    V16_LEAVE();
}

/* y[i] = f[i] / 2 * y[i] with f[i] = (y[i] > 0 ? 2 : below) * y[i]; f may be NULL. */
VEC_FN void vec_act(float *y, float *f, float below, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = vec_lanes(i, n);
        v16 c = vec_get(y + i, lanes);
        v16 d = v16_mul(v16_sel_gt(c, v16_zero(), v16_set1(2), v16_set1(below)), c);
        if (KERN_SAVES && f)
            vec_put(f + i, d, lanes);
        vec_put(y + i, v16_mul(v16_mul(v16_set1(0.5f), d), c), lanes);
    }
    V16_LEAVE();
}

/* Sum of x[i] * y[i] by 16 partial sums and halving; a tail counts as zeros. */
VEC_FN float vec_dot(const float *x, const float *y, size_t n)
{
#if defined(V16_ONE) || defined(V16_EIGHT)
    float part[16] = {0};
    for (size_t i = 0; i < (n + 15) / 16 * 16; i += V16_LANES) {
        size_t lanes = i < n ? vec_lanes(i, n) : 0;
        v16 s = v16_fma(vec_get(x + i, lanes), vec_get(y + i, lanes), v16_load(part + i % 16));
        v16_store(part + i % 16, s);
    }
    V16_LEAVE();
    for (size_t h = 8; h; h /= 2)
        for (size_t i = 0; i < h; i++)
            part[i] += part[i + h];
    return part[0];
#else
    v16 s = v16_zero();
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = vec_lanes(i, n);
        s = v16_fma(vec_get(x + i, lanes), vec_get(y + i, lanes), s);
    }
    float sum = v16_sum(s);
    V16_LEAVE();
    return sum;
#endif
}

/* y[i] = a[i] * b[i] + c[i], rounded once; without c: a[i] * b[i]. With `one`, b is a single
 * number. */
#ifndef KERN_SMALL
V16_FN
#endif
void vec_fma(float *y, const float *a, const float *b, const float *c, size_t n, bool one)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = vec_lanes(i, n);
        v16 x = vec_get(a + i, lanes), f = one ? v16_set1(*b) : vec_get(b + i, lanes);
        x = c ? v16_fma(x, f, vec_get(c + i, lanes)) : v16_mul(x, f);
        vec_put(y + i, x, lanes);
    }
    V16_LEAVE();
}

/* lse[i] = m[i] + log(s[i]); lse may be m. */
static inline void vec_lse(float *lse, const float *m, const float *s, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = vec_lanes(i, n);
        v16 log = v16_log(vec_get(s + i, lanes));
        vec_put(lse + i, v16_add(vec_get(m + i, lanes), log), lanes);
    }
}

#endif

/* A leaf (cpu.h) needs nothing of what follows. */
#if defined(KERN_ONCE) || !defined(KERN_SMALL)

/* y = a * b */
static inline void vec_mul(float *y, const float *a, const float *b, size_t n)
{
    vec_fma(y, a, b, NULL, n, false);
}

/* y = s * x */
static inline void vec_scale(float *y, const float *x, float s, size_t n)
{
    vec_fma(y, x, &s, NULL, n, true);
}

/* y = a + b: a product with 1 is exact. */
static inline void vec_add(float *y, const float *a, const float *b, size_t n)
{
    const float one = 1;
    vec_fma(y, a, &one, b, n, true);
}

/* Sum of the 16 floats of x, which is overwritten, by halving. */
static inline float vec_sum16(float *x)
{
    for (size_t h = 8; h; h /= 2)
        for (size_t i = 0; i < h; i++)
            x[i] += x[i + h];
    return *x;
}

/* All 16 floats of x become the largest of them; returns it. */
static inline float vec_max16(float *x)
{
    float most = *x;
    for (size_t i = 1; i < 16; i++)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < 16; i++)
        x[i] = most;
    return most;
}

#endif

#endif
