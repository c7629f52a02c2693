/*
 * tile.inc.h - the product of two blocks that fit the caches, one thread: c[m][n] (+)= a b.
 *
 * Everything that multiplies matrices (gemm, attention, head) is built on the micro-kernel below: a
 * tile of TILE_MR x TILE_NR outputs stays in registers while k goes up; each step loads TILE_NR
 * values of b and broadcasts TILE_MR values of a. An element is one chain of fused multiply-adds
 * over ascending k, starting at 0 or at c; so neither tile sizes nor blocking (which continues the
 * chain from c) nor padding can be seen in the result.
 *
 *   b is packed:  panels [ceil(n/NR)][k][NR], columns behind n are zeros
 *   a is packed:  panels [ceil(m/MR)][k][MR], rows behind m are zeros; or used where it lies
 *
 * Registers: avx512 14x32 has 28 accumulators, 2 of b, 1 broadcast (of 32); avx2 6x16 has 12, 2, 1
 * (of 16).
 */
#ifndef KERNELS_CPU_TILE_INC_H
#define KERNELS_CPU_TILE_INC_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(V16_AVX512)
enum { TILE_MR = 14, TILE_NR = 32 };
#elif defined(V16_AVX2)
enum { TILE_MR = 6, TILE_NR = 16 };
#else
enum { TILE_MR = 4, TILE_NR = 16 };
#endif
enum { TILE_NV = TILE_NR / 16 };

/* Floats that pack_a and pack_b write. */
static inline size_t packed_a_floats(size_t m, size_t k)
{
    return (m + TILE_MR - 1) / TILE_MR * TILE_MR * k;
}

static inline size_t packed_b_floats(size_t k, size_t n)
{
    return (n + TILE_NR - 1) / TILE_NR * TILE_NR * k;
}

/* pack_a - a[m][k] with row stride lda; trans: stored [k][m]. */
static inline void pack_a(float *dst, const float *a, size_t lda, bool trans, size_t m, size_t k)
{
    size_t rs = trans ? 1 : lda, cs = trans ? lda : 1;
    for (size_t i0 = 0; i0 < m; i0 += TILE_MR)
        for (size_t p = 0; p < k; p++)
            for (size_t i = 0; i < TILE_MR; i++)
                *dst++ = i0 + i < m ? a[(i0 + i) * rs + p * cs] : 0;
}

/* pack_b - b[k][n] with row stride ldb; trans: stored [n][k], as weights are. */
static inline void pack_b(float *dst, const float *b, size_t ldb, bool trans, size_t k, size_t n)
{
    size_t rs = trans ? 1 : ldb, cs = trans ? ldb : 1;
    for (size_t j0 = 0; j0 < n; j0 += TILE_NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < TILE_NR; j++)
                *dst++ = j0 + j < n ? b[p * rs + (j0 + j) * cs] : 0;
}

/* One full tile; element (i, p) of a is a[i*rs + p*cs]. */
static void tile_micro(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                       size_t k, bool accumulate)
{
    v16 acc[TILE_MR][TILE_NV];
#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_MR; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            acc[i][j] = accumulate ? v16_load(c + i * ldc + 16 * j) : v16_zero();
    for (size_t p = 0; p < k; p++, a += cs, b += TILE_NR) {
        v16 bv[TILE_NV];
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            bv[j] = v16_load(b + 16 * j);
#pragma GCC unroll 14
        for (size_t i = 0; i < TILE_MR; i++) {
            v16 x = v16_set1(a[i * rs]);
#pragma GCC unroll 2
            for (size_t j = 0; j < TILE_NV; j++)
                acc[i][j] = v16_fma(x, bv[j], acc[i][j]);
        }
    }
#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_MR; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            v16_store(c + i * ldc + 16 * j, acc[i][j]);
}

/*
 * tile_gemm_at - c[m][n] (row stride ldc) = or += a b, a used where it lies: element (i, p) is
 * a[i*rs + p*cs]. Best when either stride is 1 and the block of a fits the first-level cache.
 */
static inline void tile_gemm_at(float *c, size_t ldc, const float *a, size_t rs, size_t cs,
                                const float *pb, size_t m, size_t n, size_t k, bool accumulate)
{
    enum { EDGE_K = 256 };
    float ec[TILE_MR * TILE_NR], ea[TILE_MR * EDGE_K];
    for (size_t i = 0; i < m; i += TILE_MR) {
        size_t mr = m - i < TILE_MR ? m - i : TILE_MR;
        for (size_t j = 0; j < n; j += TILE_NR) {
            size_t nr = n - j < TILE_NR ? n - j : TILE_NR;
            float *ct = c + i * ldc + j;
            if (mr == TILE_MR && nr == TILE_NR) {
                tile_micro(ct, ldc, a + i * rs, rs, cs, pb + j * k, k, accumulate);
                continue;
            }
            /* An edge: a full tile into ec, from a copy of the rows of a that exist. */
            memset(ec, 0, sizeof ec);
            if (accumulate)
                for (size_t r = 0; r < mr; r++)
                    memcpy(ec + r * TILE_NR, ct + r * ldc, nr * sizeof *ec);
            for (size_t p = 0; p < k; p += EDGE_K) {
                size_t kb = k - p < EDGE_K ? k - p : EDGE_K;
                for (size_t q = 0; q < kb; q++)
                    for (size_t r = 0; r < TILE_MR; r++)
                        ea[q * TILE_MR + r] = r < mr ? a[(i + r) * rs + (p + q) * cs] : 0;
                tile_micro(ec, TILE_NR, ea, 1, TILE_MR, pb + j * k + p * TILE_NR, kb, true);
            }
            for (size_t r = 0; r < mr; r++)
                memcpy(ct + r * ldc, ec + r * TILE_NR, nr * sizeof *ec);
        }
    }
}

/* tile_gemm - the same with a packed by pack_a. */
static inline void tile_gemm(float *c, size_t ldc, const float *pa, const float *pb, size_t m,
                             size_t n, size_t k, bool accumulate)
{
    for (size_t i = 0; i < m; i += TILE_MR)
        tile_gemm_at(c + i * ldc, ldc, pa + i * k, 1, TILE_MR, pb,
                     m - i < TILE_MR ? m - i : TILE_MR, n, k, accumulate);
}

#endif
