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
 */
#ifndef KERNELS_CPU_TILE_INC_H
#define KERNELS_CPU_TILE_INC_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifdef KERN_ONCE
#include <xmmintrin.h>
#endif

#include "kernels/cpu/tile_micro.inc.h"

/* Packing reads pieces of rows, which the processor does not foresee: fetch so many rows ahead. */
enum { PACK_AHEAD = 8 };

/* Floats that pack_a and pack_b write. */
static inline size_t packed_a_floats(size_t m, size_t k)
{
    return (m + TILE_MR - 1) / TILE_MR * TILE_MR * k;
}

static inline size_t packed_b_floats(size_t k, size_t n)
{
    return (n + TILE_NR - 1) / TILE_NR * TILE_NR * k;
}

/* How many of the 16 columns from j on exist. */
static inline size_t pack_lanes(size_t j, size_t n)
{
    return j >= n ? 0 : n - j < 16 ? n - j : 16;
}

#ifndef KERN_ONCE
/*
 * pack_a - a[m][k] with row stride lda; trans: stored [k][m] with row stride lda. Worth it when a
 * is transposed and large; otherwise tile_gemm_at does without.
 */
static inline void pack_a(float *dst, const float *a, size_t lda, bool trans, size_t m, size_t k)
{
    _Static_assert(TILE_MR <= 16, "a column of a panel is one vector");
    for (size_t p = 0; p < k; p++)
        for (size_t i = 0; i < m; i += TILE_MR) {
            size_t mr = m - i < TILE_MR ? m - i : TILE_MR;
            float *to = dst + i * k + p * TILE_MR;
            if (trans) {
                __builtin_prefetch(a + (p + PACK_AHEAD) * lda + i);
                v16_store_n(to, v16_load_n(a + p * lda + i, mr), TILE_MR);
                continue;
            }
            for (size_t r = 0; r < TILE_MR; r++)
                to[r] = r < mr ? trans ? a[p * lda + i + r] : a[(i + r) * lda + p] : 0;
        }
}
#endif

#ifdef KERN_ONCE
/* The same as below by squares of 4 x 4, for which every x86-64 processor has instructions. */
static void pack_b(float *dst, const float *b, size_t ldb, bool trans, size_t k, size_t n)
{
    size_t width = packed_b_floats(1, n), cs = trans ? ldb : 1, rs = trans ? 1 : ldb;
    for (size_t j = 0; j < width; j += 4)
        for (size_t p = 0; p < k; p += 4) {
            const float *from = b + j * cs + p * rs;
            float *to = dst + j / TILE_NR * TILE_NR * k + p * TILE_NR + j % TILE_NR;
            if (trans && j + 4 <= n && p + 4 <= k) {
                __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + ldb);
                __m128 r2 = _mm_loadu_ps(from + 2 * ldb), r3 = _mm_loadu_ps(from + 3 * ldb);
                _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
                _mm_storeu_ps(to, r0);
                _mm_storeu_ps(to + TILE_NR, r1);
                _mm_storeu_ps(to + 2 * TILE_NR, r2);
                _mm_storeu_ps(to + 3 * TILE_NR, r3);
                continue;
            }
            for (size_t r = 0; r < cpu_min(4, k - p); r++)
                for (size_t c = 0; c < 4; c++)
                    to[r * TILE_NR + c] = j + c < n ? from[r * rs + c * cs] : 0;
        }
}
#else
/* pack_b - b[k][n] with row stride ldb; trans: stored [n][k] with row stride ldb, as weights are.
 */
static inline void pack_b(float *dst, const float *b, size_t ldb, bool trans, size_t k, size_t n)
{
    size_t width = packed_b_floats(1, n);
    for (size_t p = 0; !trans && p < k; p++)
        for (size_t j = 0; j < width; j += 16) {
            __builtin_prefetch(b + (p + PACK_AHEAD) * ldb + j);
            v16_store(dst + j / TILE_NR * TILE_NR * k + p * TILE_NR + j % TILE_NR,
                      v16_load_n(b + p * ldb + j, pack_lanes(j, n)));
        }
    for (size_t j = 0; trans && j < width; j += 16) {
        float *to = dst + j / TILE_NR * TILE_NR * k + j % TILE_NR;
        size_t lanes = pack_lanes(j, n), p = 0;
        for (; lanes == 16 && p + 4 <= k; p += 4) {
            v16 col[4];
            v16_load_cols4(b + j * ldb + p, ldb, col);
            for (size_t q = 0; q < 4; q++)
                v16_store(to + (p + q) * TILE_NR, col[q]);
        }
        for (; p < k; p++)
            for (size_t q = 0; q < 16; q++)
                to[p * TILE_NR + q] = q < lanes ? b[(j + q) * ldb + p] : 0;
    }
}
#endif

#ifdef KERN_ONCE
/*
 * tile_gemm_at - t->c[m][n] = or += a b, with b in panels. The last rows share a tile with those
 * above, which are computed once more and dropped; where there are fewer than a tile has, each is
 * all the rows of one.
 */
static __attribute__((noinline)) void tile_gemm_at(const struct cpu_tile *t, size_t m, size_t n)
{
    size_t step = m < TILE_MR ? 1 : TILE_MR;
    for (size_t i = 0; i < m; i += step)
        for (size_t j = 0; j < n; j += TILE_NR) {
            size_t rows = cpu_min(step, m - i), cols = cpu_min(TILE_NR, n - j);
            float edge[TILE_MR * TILE_NR], *c = t->c + i * t->ldc + j, *to = edge;
            struct cpu_tile x = *t;
            x.a += (i + rows - step) * t->rs;
            x.b += j * t->k;
            x.c = c;
            if (step == 1)
                x.rs = 0;
            if (rows + cols == TILE_MR + TILE_NR) {
                tile_micro(&x);
                continue;
            }
            x.c = edge;
            x.ldc = TILE_NR;
            memset(edge, 0, sizeof edge);
            to += (step - rows) * TILE_NR;
            for (size_t r = 0; r < rows; r++)
                memcpy(to + r * TILE_NR, c + r * t->ldc, cols * sizeof *c);
            tile_micro(&x);
            for (size_t r = 0; r < rows; r++)
                memcpy(c + r * t->ldc, to + r * TILE_NR, cols * sizeof *c);
        }
}
#else
/*
 * One row of tiles: m <= TILE_MR rows of c exist, a has all TILE_MR. The panels of b are `panel`
 * floats apart. Tiles that are not whole are computed beside c.
 */
static void tile_row(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *pb,
                     size_t panel, size_t m, size_t n, size_t k, bool accumulate)
{
    for (size_t j = 0; j < n; j += TILE_NR, c += TILE_NR, pb += panel) {
        size_t nr = n - j < TILE_NR ? n - j : TILE_NR;
        if (m == TILE_MR && nr == TILE_NR) {
            tile_micro(c, ldc, a, rs, cs, pb, TILE_NR, k, accumulate);
            continue;
        }
        float edge[TILE_MR * TILE_NR] = {0};
        for (size_t r = 0; accumulate && r < m; r++)
            memcpy(edge + r * TILE_NR, c + r * ldc, nr * sizeof *c);
        tile_micro(edge, TILE_NR, a, rs, cs, pb, TILE_NR, k, true);
        for (size_t r = 0; r < m; r++)
            memcpy(c + r * ldc, edge + r * TILE_NR, nr * sizeof *c);
    }
}

/*
 * tile_gemm_at - c[m][n] (row stride ldc) = or += a b, a used where it lies: element (i, p) is
 * a[i*rs + p*cs]; one of the strides is 1. Best when the block of a fits the first-level cache.
 */
static inline void tile_gemm_at(float *c, size_t ldc, const float *a, size_t rs, size_t cs,
                                const float *pb, size_t m, size_t n, size_t k, bool accumulate)
{
    enum { EDGE_K = 256 };
    size_t i = 0, panel = TILE_NR * k;
    for (; i + TILE_MR <= m; i += TILE_MR)
        tile_row(c + i * ldc, ldc, a + i * rs, rs, cs, pb, panel, TILE_MR, n, k, accumulate);
    /* The last rows: from a copy, because the micro-kernel reads TILE_MR of them. */
    for (size_t p = 0; i < m && (p < k || p == 0); p += EDGE_K) {
        float rows[TILE_MR * EDGE_K];
        size_t kb = k - p < EDGE_K ? k - p : EDGE_K;
        pack_a(rows, a + i * rs + p * cs, cs == 1 ? rs : cs, cs != 1, m - i, kb);
        tile_row(c + i * ldc, ldc, rows, 1, TILE_MR, pb + p * TILE_NR, panel, m - i, n, kb,
                 accumulate || p > 0);
    }
}

/* tile_gemm - the same with a packed by pack_a. */
static inline void tile_gemm(float *c, size_t ldc, const float *pa, const float *pb, size_t m,
                             size_t n, size_t k, bool accumulate)
{
    for (size_t i = 0; i < m; i += TILE_MR)
        tile_row(c + i * ldc, ldc, pa + i * k, 1, TILE_MR, pb, TILE_NR * k,
                 m - i < TILE_MR ? m - i : TILE_MR, n, k, accumulate);
}

#endif

#endif
