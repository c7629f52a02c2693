/*
 * v16.h - sixteen fp32 lanes on every instruction set, and exp, log and tanh on top of them.
 *
 * Kernels are written once against this file. The including file chooses the machine beforehand:
 * V16_AVX512 (one register), V16_AVX2 (two), none (arrays; the definition of correct), or one of
 * two for small code: V16_ONE, which is the functions below on single floats (the type v16 has
 * V16_LANES = 1 lane), and V16_EIGHT, AVX2 with one register (8 lanes). All five give the same bits
 * for the same input because only IEEE + - * / sqrt, the fused multiply-add and integer operations
 * are used, in the same order. (Which payload a NaN carries is not promised.)
 *
 *   v16_load v16_store            16 floats, any alignment
 *   v16_load_n v16_store_n        the first n <= 16 (0 allowed) lanes; the rest load as zeros, and
 * memory behind the n-th element is never touched v16_set1 v16_zero v16_add v16_sub v16_mul v16_div
 * v16_sqrt v16_fma(a, b, c)              a*b + c, rounded once v16_max(a, b)                 a > b
 * ? a : b, so b when either is a NaN; v16_min likewise with < v16_sel_gt(a, b, x, y)        a > b ?
 * x : y v16_sum v16_hmax              one float: lane i with i+8, then i+4, i+2, i+1 v16_exp
 * v16_log v16_tanh      see below; s_exp s_log s_tanh s_fma are one lane of the same
 */
#ifndef KERNELS_CPU_V16_H
#define KERNELS_CPU_V16_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The AVX2 instruction set, in one register or in two. */
#if defined(V16_AVX2) || defined(V16_EIGHT)
#define V16_YMM
#endif

#if defined(V16_AVX512) || defined(V16_YMM)
#include <immintrin.h>
#endif

/* Kernels keep whole tiles in registers, which only works when every lane operation is inlined, at
 * -Os too. Without vector registers nothing is gained by it: there a small build shares the code.
 */
#if defined(V16_ONE)
#define V16_FN static inline
#elif defined(__OPTIMIZE_SIZE__) && !defined(V16_AVX512) && !defined(V16_YMM)
#define V16_FN static __attribute__((noinline, unused))
#else
#define V16_FN static inline __attribute__((always_inline))
#endif

/* Bits of a float and back. */
V16_FN uint32_t s_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

V16_FN float s_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/*
 * s_fma - a*b + c rounded once.
 *
 * Without the instruction: the product of two floats is exact in double; the double sum s has the
 * error e, exactly (TwoSum, Knuth 1969). s is then rounded to odd (towards zero, low bit set when
 * inexact), after which rounding to float cannot go wrong twice, because a double has more than 24
 * + 2 bits (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008). For
 * infinite or NaN sums e is a NaN, both comparisons are false and s is left alone. Written without
 * branches so that compilers vectorise the loop around it. libm's fmaf is not used: some are a
 * hundred times slower.
 */
V16_FN float s_fma(float a, float b, float c)
{
#if defined(V16_AVX512) || defined(V16_YMM)
    return __builtin_fmaf(a, b, c);
#else
    double p = (double)a * b;
    double s = p + c;
    double v = s - p;
    double e = (p - (s - v)) + (c - v);
    uint64_t u;
    memcpy(&u, &s, sizeof u);
    u -= (uint64_t)(e * s < 0); /* rounded away from zero: step back. e*s cannot underflow */
    u |= (uint64_t)((e < 0) | (e > 0));
    memcpy(&s, &u, sizeof s);
    return (float)s;
#endif
}

#ifdef V16_ONE
enum { V16_LANES = 1 };
#elif defined(V16_EIGHT)
enum { V16_LANES = 8 };
#else
enum { V16_LANES = 16 };
#endif

/*
 * At the end of a function that code without vector flags calls: with the upper halves of registers
 * in use, that code would be slow. At -O2 compilers see to it themselves, at -Os gcc does not.
 */
#if defined(__OPTIMIZE_SIZE__) && (defined(V16_AVX512) || defined(V16_YMM))
#define V16_LEAVE() _mm256_zeroupper()
#else
#define V16_LEAVE() ((void)0)
#endif

/*
 * Besides the interface, each machine brings four helpers for the functions at the end:
 *   v16_abs, v16_copysign(x, s): magnitude of x, sign of s
 *   v16_ldexp(p, t): p * 2^n where t = 1.5*2^23 + n, by adding n to the exponent field; p and the
 * result must be normal, anything else gives some number v16_frexp(x, &m): x = m * 2^e, m in
 * [sqrt(1/2), sqrt(2)), e returned as float; x positive normal
 */
#if defined(V16_AVX512)

typedef __m512 v16;

V16_FN v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V16_FN void v16_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
V16_FN v16 v16_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
V16_FN void v16_store_n(float *p, v16 a, size_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
V16_FN v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}
V16_FN v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
V16_FN v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
V16_FN v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
V16_FN v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
V16_FN v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
V16_FN v16 v16_sqrt(v16 a)
{
    return _mm512_sqrt_ps(a);
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V16_FN v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
V16_FN v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
V16_FN v16 v16_sel_gt(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
V16_FN __m256 v16_lo8(v16 a)
{
    return _mm512_castps512_ps256(a);
}
V16_FN __m256 v16_hi8(v16 a)
{
    return _mm512_extractf32x8_ps(a, 1);
}
V16_FN v16 v16_and(v16 a, v16 mask)
{
    return _mm512_and_ps(a, mask);
}
V16_FN v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
V16_FN v16 v16_copysign(v16 x, v16 s)
{
    __m512i sign = _mm512_set1_epi32(INT32_MIN);
    /* 0xd8 as a truth table: where `sign` is set the bit of s, elsewhere that of x */
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(_mm512_castps_si512(x), _mm512_castps_si512(s), sign, 0xd8));
}
V16_FN v16 v16_ldexp(v16 p, v16 t)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
V16_FN v16 v16_frexp(v16 x, v16 *m)
{
    __m512i sqrt_half = _mm512_set1_epi32(0x3f3504f3);
    __m512i i = _mm512_sub_epi32(_mm512_castps_si512(x), sqrt_half);
    __m512i frac = _mm512_and_si512(i, _mm512_set1_epi32(0x7fffff));
    *m = _mm512_castsi512_ps(_mm512_add_epi32(frac, sqrt_half));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(i, 23));
}

#elif defined(V16_AVX2)

typedef struct {
    __m256 lo, hi;
} v16;

V16_FN v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
V16_FN void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
/* All ones in the lanes first + i < n. */
V16_FN __m256i v16_mask8(size_t n, int first)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - first), lane);
}
V16_FN v16 v16_load_n(const float *p, size_t n)
{
    return (v16){_mm256_maskload_ps(p, v16_mask8(n, 0)),
                 _mm256_maskload_ps(p + 8, v16_mask8(n, 8))};
}
V16_FN void v16_store_n(float *p, v16 a, size_t n)
{
    _mm256_maskstore_ps(p, v16_mask8(n, 0), a.lo);
    _mm256_maskstore_ps(p + 8, v16_mask8(n, 8), a.hi);
}
V16_FN v16 v16_set1(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
V16_FN v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
V16_FN v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
V16_FN v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
V16_FN v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
V16_FN v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
V16_FN v16 v16_sqrt(v16 a)
{
    return (v16){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V16_FN v16 v16_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
V16_FN v16 v16_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
V16_FN v16 v16_sel_gt(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
                 _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
}
V16_FN __m256 v16_lo8(v16 a)
{
    return a.lo;
}
V16_FN __m256 v16_hi8(v16 a)
{
    return a.hi;
}
V16_FN v16 v16_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
V16_FN v16 v16_copysign(v16 x, v16 s)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_or_ps(_mm256_andnot_ps(sign, x.lo), _mm256_and_ps(sign, s.lo)),
                 _mm256_or_ps(_mm256_andnot_ps(sign, x.hi), _mm256_and_ps(sign, s.hi))};
}
V16_FN __m256 v16_ldexp8(__m256 p, __m256 t)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
V16_FN v16 v16_ldexp(v16 p, v16 t)
{
    return (v16){v16_ldexp8(p.lo, t.lo), v16_ldexp8(p.hi, t.hi)};
}
V16_FN __m256 v16_frexp8(__m256 x, __m256 *m)
{
    __m256i sqrt_half = _mm256_set1_epi32(0x3f3504f3);
    __m256i i = _mm256_sub_epi32(_mm256_castps_si256(x), sqrt_half);
    __m256i frac = _mm256_and_si256(i, _mm256_set1_epi32(0x7fffff));
    *m = _mm256_castsi256_ps(_mm256_add_epi32(frac, sqrt_half));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(i, 23));
}
V16_FN v16 v16_frexp(v16 x, v16 *m)
{
    v16 e;
    e.lo = v16_frexp8(x.lo, &m->lo);
    e.hi = v16_frexp8(x.hi, &m->hi);
    return e;
}

#elif defined(V16_EIGHT)

/* Half of the above. */
typedef __m256 v16;

V16_FN v16 v16_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
V16_FN void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a);
}
V16_FN __m256i v16_mask(size_t n)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
V16_FN v16 v16_load_n(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, v16_mask(n));
}
V16_FN void v16_store_n(float *p, v16 a, size_t n)
{
    _mm256_maskstore_ps(p, v16_mask(n), a);
}
V16_FN v16 v16_set1(float x)
{
    return _mm256_set1_ps(x);
}
V16_FN v16 v16_zero(void)
{
    return _mm256_setzero_ps();
}
V16_FN v16 v16_add(v16 a, v16 b)
{
    return _mm256_add_ps(a, b);
}
V16_FN v16 v16_sub(v16 a, v16 b)
{
    return _mm256_sub_ps(a, b);
}
V16_FN v16 v16_mul(v16 a, v16 b)
{
    return _mm256_mul_ps(a, b);
}
V16_FN v16 v16_div(v16 a, v16 b)
{
    return _mm256_div_ps(a, b);
}
V16_FN v16 v16_sqrt(v16 a)
{
    return _mm256_sqrt_ps(a);
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm256_fmadd_ps(a, b, c);
}
V16_FN v16 v16_max(v16 a, v16 b)
{
    return _mm256_max_ps(a, b);
}
V16_FN v16 v16_min(v16 a, v16 b)
{
    return _mm256_min_ps(a, b);
}
V16_FN v16 v16_sel_gt(v16 a, v16 b, v16 x, v16 y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
V16_FN v16 v16_and(v16 a, v16 mask)
{
    return _mm256_and_ps(a, mask);
}
V16_FN v16 v16_abs(v16 a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
V16_FN v16 v16_copysign(v16 x, v16 s)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, s));
}
V16_FN v16 v16_ldexp(v16 p, v16 t)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
V16_FN v16 v16_frexp(v16 x, v16 *m)
{
    __m256i sqrt_half = _mm256_set1_epi32(0x3f3504f3);
    __m256i i = _mm256_sub_epi32(_mm256_castps_si256(x), sqrt_half);
    __m256i frac = _mm256_and_si256(i, _mm256_set1_epi32(0x7fffff));
    *m = _mm256_castsi256_ps(_mm256_add_epi32(frac, sqrt_half));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(i, 23));
}

#elif defined(V16_ONE)

/* One lane: the smallest code, for loops that step by V16_LANES. */
typedef float v16;

V16_FN v16 v16_load(const float *p)
{
    return *p;
}
V16_FN void v16_store(float *p, v16 a)
{
    *p = a;
}
V16_FN v16 v16_load_n(const float *p, size_t n)
{
    return n ? *p : 0;
}
V16_FN void v16_store_n(float *p, v16 a, size_t n)
{
    if (n)
        *p = a;
}
V16_FN v16 v16_set1(float x)
{
    return x;
}
V16_FN v16 v16_zero(void)
{
    return 0;
}
V16_FN v16 v16_add(v16 a, v16 b)
{
    return a + b;
}
V16_FN v16 v16_sub(v16 a, v16 b)
{
    return a - b;
}
V16_FN v16 v16_mul(v16 a, v16 b)
{
    return a * b;
}
V16_FN v16 v16_div(v16 a, v16 b)
{
    return a / b;
}
V16_FN v16 v16_sqrt(v16 a)
{
    return __builtin_sqrtf(a);
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c)
{
    return s_fma(a, b, c);
}
V16_FN v16 v16_max(v16 a, v16 b)
{
    return a > b ? a : b;
}
V16_FN v16 v16_min(v16 a, v16 b)
{
    return a < b ? a : b;
}
V16_FN v16 v16_sel_gt(v16 a, v16 b, v16 x, v16 y)
{
    return a > b ? x : y;
}
V16_FN v16 v16_abs(v16 a)
{
    return __builtin_fabsf(a);
}
V16_FN v16 v16_copysign(v16 x, v16 s)
{
    return __builtin_copysignf(x, s);
}
V16_FN v16 v16_ldexp(v16 p, v16 t)
{
    return s_from_bits(s_bits(p) + (s_bits(t) << 23));
}
V16_FN v16 v16_frexp(v16 x, v16 *m)
{
    int32_t i = (int32_t)(s_bits(x) - 0x3f3504f3); /* sqrt(1/2) */
    *m = s_from_bits(((uint32_t)i & 0x7fffff) + 0x3f3504f3);
    return (float)(i >> 23);
}

#else

/* Four quarters of the compilers' vector extension, which every x86-64 processor has instructions
 * for. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4_int __attribute__((vector_size(16)));
typedef uint32_t v4_uint __attribute__((vector_size(16)));
typedef struct {
    v4 q[4];
} v16;

/* Defines an operation by quarters: `expr` is quarter i of the result. */
#define V16_QUARTERS(name, args, expr)                                                             \
    V16_FN v16 name args                                                                           \
    {                                                                                              \
        v16 r;                                                                                     \
        for (size_t i = 0; i < 4; i++)                                                             \
            r.q[i] = (expr);                                                                       \
        return r;                                                                                  \
    }

V16_FN v4 v4_select(v4_int mask, v4 x, v4 y)
{
    return (v4)(((v4_int)x & mask) | ((v4_int)y & ~mask));
}

V16_QUARTERS(v16_zero, (void), (v4){0})
V16_QUARTERS(v16_set1, (float x), ((v4){x, x, x, x}))
V16_QUARTERS(v16_add, (v16 a, v16 b), a.q[i] + b.q[i])
V16_QUARTERS(v16_sub, (v16 a, v16 b), a.q[i] - b.q[i])
V16_QUARTERS(v16_mul, (v16 a, v16 b), a.q[i] * b.q[i])
V16_QUARTERS(v16_div, (v16 a, v16 b), a.q[i] / b.q[i])
V16_QUARTERS(v16_max, (v16 a, v16 b), v4_select(a.q[i] > b.q[i], a.q[i], b.q[i]))
V16_QUARTERS(v16_min, (v16 a, v16 b), v4_select(a.q[i] < b.q[i], a.q[i], b.q[i]))
V16_QUARTERS(v16_sel_gt, (v16 a, v16 b, v16 x, v16 y), v4_select(a.q[i] > b.q[i], x.q[i], y.q[i]))
V16_QUARTERS(v16_abs, (v16 a), (v4)((v4_int)a.q[i] & INT32_MAX))
V16_QUARTERS(v16_copysign, (v16 x, v16 s),
             (v4)(((v4_int)x.q[i] & INT32_MAX) | ((v4_int)s.q[i] & INT32_MIN)))
V16_QUARTERS(v16_ldexp, (v16 p, v16 t), (v4)((v4_uint)p.q[i] + ((v4_uint)t.q[i] << 23)))
#undef V16_QUARTERS

V16_FN v16 v16_load(const float *p)
{
    v16 a;
    memcpy(&a, p, sizeof a);
    return a;
}
V16_FN void v16_store(float *p, v16 a)
{
    memcpy(p, &a, sizeof a);
}
V16_FN v16 v16_load_n(const float *p, size_t n)
{
    v16 a = v16_zero();
    memcpy(&a, p, n * sizeof *p);
    return a;
}
V16_FN void v16_store_n(float *p, v16 a, size_t n)
{
    memcpy(p, &a, n * sizeof *p);
}
V16_FN v16 v16_sqrt(v16 a)
{
    for (size_t i = 0; i < 16; i++)
        a.q[i / 4][i % 4] = __builtin_sqrtf(a.q[i / 4][i % 4]);
    return a;
}
/* Not inline: it is some hundred bytes. */
static __attribute__((noinline, unused)) void v16_fma_at(v16 *c, const v16 *a, const v16 *b)
{
    float x[16], y[16], z[16];
    memcpy(x, a, sizeof x);
    memcpy(y, b, sizeof y);
    memcpy(z, c, sizeof z);
    for (size_t i = 0; i < 16; i++)
        z[i] = s_fma(x[i], y[i], z[i]);
    memcpy(c, z, sizeof z);
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c)
{
    v16_fma_at(&c, &a, &b);
    return c;
}
V16_FN v16 v16_frexp(v16 x, v16 *m)
{
    v16 e;
    for (size_t i = 0; i < 4; i++) {
        v4_int u = (v4_int)x.q[i] - 0x3f3504f3; /* sqrt(1/2) */
        m->q[i] = (v4)((u & 0x7fffff) + 0x3f3504f3);
        e.q[i] = __builtin_convertvector(u >> 23, v4);
    }
    return e;
}

#endif

#if defined(V16_AVX512)

/* Rows r, 4+r, 8+r and 12+r of a block, four floats each. */
V16_FN __m512 v16_rows4(const float *p, size_t stride)
{
    __m256 lo = _mm256_castps128_ps256(_mm_loadu_ps(p));
    __m256 hi = _mm256_castps128_ps256(_mm_loadu_ps(p + 8 * stride));
    lo = _mm256_insertf128_ps(lo, _mm_loadu_ps(p + 4 * stride), 1);
    hi = _mm256_insertf128_ps(hi, _mm_loadu_ps(p + 12 * stride), 1);
    return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
}
V16_FN void v16_load_cols4(const float *p, size_t stride, v16 out[4])
{
    __m512 a = v16_rows4(p, stride), b = v16_rows4(p + stride, stride);
    __m512 c = v16_rows4(p + 2 * stride, stride), d = v16_rows4(p + 3 * stride, stride);
    __m512d ab01 = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
    __m512d ab23 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
    __m512d cd01 = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
    __m512d cd23 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab01, cd01));
    out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab01, cd01));
    out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab23, cd23));
    out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab23, cd23));
}

#elif defined(V16_AVX2)

/* Rows r and 4+r of a block, four floats each. */
V16_FN __m256 v16_rows2(const float *p, size_t stride)
{
    __m256 lo = _mm256_castps128_ps256(_mm_loadu_ps(p));
    return _mm256_insertf128_ps(lo, _mm_loadu_ps(p + 4 * stride), 1);
}
V16_FN void v16_load_cols4(const float *p, size_t stride, v16 out[4])
{
    for (size_t half = 0; half < 2; half++, p += 8 * stride) {
        __m256 a = v16_rows2(p, stride), b = v16_rows2(p + stride, stride);
        __m256 c = v16_rows2(p + 2 * stride, stride), d = v16_rows2(p + 3 * stride, stride);
        __m256d ab01 = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
        __m256d ab23 = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
        __m256d cd01 = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
        __m256d cd23 = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
        __m256 q[4] = {_mm256_castpd_ps(_mm256_unpacklo_pd(ab01, cd01)),
                       _mm256_castpd_ps(_mm256_unpackhi_pd(ab01, cd01)),
                       _mm256_castpd_ps(_mm256_unpacklo_pd(ab23, cd23)),
                       _mm256_castpd_ps(_mm256_unpackhi_pd(ab23, cd23))};
        for (size_t i = 0; i < 4; i++)
            *(half ? &out[i].hi : &out[i].lo) = q[i];
    }
}

#elif !defined(V16_ONE) && !defined(V16_EIGHT)

V16_FN void v16_load_cols4(const float *p, size_t stride, v16 out[4])
{
    for (size_t j = 0; j < 16; j++)
        for (size_t q = 0; q < 4; q++)
            out[q].q[j / 4][j % 4] = p[j * stride + q];
}

#endif

#if defined(V16_AVX512) || defined(V16_AVX2)

V16_FN float v16_sum(v16 a)
{
    __m256 h = _mm256_add_ps(v16_lo8(a), v16_hi8(a));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
V16_FN float v16_hmax(v16 a)
{
    __m256 h = _mm256_max_ps(v16_lo8(a), v16_hi8(a));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
V16_FN float v16_first(v16 a)
{
    return _mm_cvtss_f32(_mm256_castps256_ps128(v16_lo8(a)));
}

#elif !defined(V16_ONE) && !defined(V16_EIGHT)

V16_FN float v16_sum(v16 a)
{
    v4 h = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
    return (h[0] + h[2]) + (h[1] + h[3]);
}
V16_FN float v16_hmax(v16 a)
{
    v4 lo = v4_select(a.q[0] > a.q[2], a.q[0], a.q[2]);
    v4 hi = v4_select(a.q[1] > a.q[3], a.q[1], a.q[3]);
    v4 h = v4_select(lo > hi, lo, hi);
    float x = h[0] > h[2] ? h[0] : h[2], y = h[1] > h[3] ? h[1] : h[3];
    return x > y ? x : y;
}
V16_FN float v16_first(v16 a)
{
    return a.q[0][0];
}

#endif

/* ln 2 in two parts; the first has so few bits that n * LN2_HI is exact for |n| < 2^9. */
#define V16_LN2_HI 0x1.62e4p-1f
#define V16_LN2_LO 0x1.7f7d1cp-20f

/* 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits. */
#define V16_ROUND 0x1.8p23f

/* x = n ln 2 + r with |r| <= ln2/2 (a shade more); returns r, and n + V16_ROUND in *t. */
V16_FN v16 v16_exp_reduce(v16 x, v16 *t)
{
    v16 round = v16_set1(V16_ROUND);
    *t = v16_fma(x, v16_set1(0x1.715476p+0f), round); /* 1/ln 2 */
    v16 n = v16_sub(*t, round);
    v16 r = v16_fma(n, v16_set1(-V16_LN2_HI), x);
    return v16_fma(n, v16_set1(-V16_LN2_LO), r);
}

/* c[0] x^(n-1) + ... + c[n-1] by Horner's rule; n is a constant. */
V16_FN v16 v16_poly(v16 x, const float *c, size_t n)
{
    v16 p = v16_set1(c[0]);
#ifndef __OPTIMIZE_SIZE__
#pragma GCC unroll 8
#endif
    for (size_t i = 1; i < n; i++)
        p = v16_fma(p, x, v16_set1(c[i]));
    return p;
}

/* (e^r - 1 - r) / r^2 on [-ln2/2, ln2/2]: minimax (Remez), error of e^r below 4e-9 relative. */
V16_FN v16 v16_exp_poly(v16 r)
{
    static const float c[] = {0x1.6a2cdep-10f, 0x1.123818p-7f, 0x1.5558d8p-5f, 0x1.555494p-3f,
                              0x1.fffffcp-2f};
    return v16_poly(r, c, sizeof c / sizeof *c);
}

/*
 * v16_exp - e^x, error at most 1.1 ulp. Exactly 0 below -87.33654 (where the result would leave the
 * normal floats) and for -inf; +inf above 88.72283; NaN for NaN.
 */
static inline v16 v16_exp(v16 x)
{
    v16 t;
    v16 r = v16_exp_reduce(x, &t);
    v16 p = v16_fma(v16_mul(r, r), v16_exp_poly(r), r);
    v16 y = v16_ldexp(v16_add(p, v16_set1(1)), t);
    /* Above: x * FLT_MAX is +inf, and NaN for the NaN that fails every comparison. */
    y = v16_sel_gt(v16_set1(0x1.62e43p+6f), x, y, v16_mul(x, v16_set1(FLT_MAX)));
    return v16_sel_gt(v16_set1(-0x1.5d589ep+6f), x, v16_zero(), y);
}

/*
 * v16_log - natural logarithm of positive normal floats, error at most 1 ulp. +inf and NaN are
 * returned as they are; zero, subnormal and negative x give some number.
 *
 * x = m 2^e, f = m - 1: log x = e ln 2 + f - f^2/2 + f^3 P(f); P is minimax (Remez), error 7e-9.
 */
static inline v16 v16_log(v16 x)
{
    v16 m;
    v16 e = v16_frexp(x, &m);
    v16 f = v16_sub(m, v16_set1(1));
    v16 f2 = v16_mul(f, f);
    static const float c[] = {-0x1.42d2fp-4f,  0x1.079ca8p-3f, -0x1.0c9b34p-3f, 0x1.22738cp-3f,
                              -0x1.5480e4p-3f, 0x1.99a576p-3f, -0x1.0001fcp-2f, 0x1.55554ap-2f};
    v16 p = v16_poly(f, c, sizeof c / sizeof *c);
    v16 y = v16_mul(v16_mul(f, f2), p);
    y = v16_fma(e, v16_set1(V16_LN2_LO), y);
    y = v16_fma(f2, v16_set1(-0.5f), y);
    y = v16_add(f, y);
    y = v16_fma(e, v16_set1(V16_LN2_HI), y);
    return v16_sel_gt(v16_set1(INFINITY), x, y, x);
}

/*
 * v16_tanh - error at most 3 ulp for all x, also near 0 (tanh(x) is x for tiny x). NaN for NaN.
 *
 * With z = e^(2|x|) - 1 = 2^n (e^r - 1) + (2^n - 1): tanh |x| = z / (z + 2). Above 10 it is 1.
 */
static inline v16 v16_tanh(v16 x)
{
    v16 a = v16_min(v16_set1(10), v16_abs(x));
    v16 t;
    v16 r = v16_exp_reduce(v16_add(a, a), &t);
    v16 em1 = v16_fma(v16_mul(r, r), v16_exp_poly(r), r);
    v16 two_n = v16_ldexp(v16_set1(1), t);
    v16 z = v16_fma(two_n, em1, v16_sub(two_n, v16_set1(1)));
    return v16_copysign(v16_div(z, v16_add(z, v16_set1(2))), x);
}

#if !defined(V16_ONE) && !defined(V16_EIGHT)
static inline float s_exp(float x)
{
    return v16_first(v16_exp(v16_set1(x)));
}
static inline float s_log(float x)
{
    return v16_first(v16_log(v16_set1(x)));
}
static inline float s_tanh(float x)
{
    return v16_first(v16_tanh(v16_set1(x)));
}
#endif

#endif
