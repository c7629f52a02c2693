/*
 * tile_micro.inc.h - the shape of a tile, and the micro-kernel (tile.inc.h says what it is for).
 *
 * Registers: avx512 14x32 has 28 accumulators, 2 of b, 1 broadcast (of 32); avx2 6x16 has 12, 2, 1
 * (of 16).
 *
 * KERN_SMALL: AVX-512 is nothing but another micro-kernel below the code for AVX2, so both have the
 * tile 12x32, packed alike. AVX2 takes it in four passes of 6x16, AVX-512 in one with 24
 * accumulators.
 */
#ifndef KERNELS_CPU_TILE_MICRO_INC_H
#define KERNELS_CPU_TILE_MICRO_INC_H

#include <stdbool.h>
#include <stddef.h>

#if defined(KERN_ONCE) || defined(V16_ONE)
enum { TILE_MR = 12, TILE_NR = 32 };
#elif defined(KERN_SMALL) && defined(V16_AVX512)
enum { TILE_MR = 12, TILE_NR = 32, TILE_ROWS = TILE_MR, TILE_COLS = TILE_NR };
#elif defined(V16_EIGHT)
enum { TILE_MR = 12, TILE_NR = 32, TILE_ROWS = 6, TILE_COLS = 16 };
#elif defined(V16_AVX512)
enum { TILE_MR = 14, TILE_NR = 32, TILE_ROWS = TILE_MR, TILE_COLS = TILE_NR };
#elif defined(V16_AVX2)
enum { TILE_MR = 6, TILE_NR = 16, TILE_ROWS = TILE_MR, TILE_COLS = TILE_NR };
#else
enum { TILE_MR = 4, TILE_NR = 16, TILE_ROWS = TILE_MR, TILE_COLS = TILE_NR };
#endif

/* A leaf of the smallest build (cpu.h); then the includer has defined its name. */
#ifdef KERN_SMALL
#define TILE_FN
#else
#define TILE_FN static
#endif

#if defined(KERN_ONCE)

/* One full tile. */
static void tile_micro(const struct cpu_tile *t)
{
    if (cpu_level == 2)
        cpu_micro_avx512(t);
    else if (cpu_level)
        cpu_micro_avx2(t);
    else
        cpu_micro_portable(t);
}

#elif defined(V16_ONE)

/* A tile as below, in the order that keeps many elements on the way at once. */
void tile_micro(const struct cpu_tile *t)
{
    for (size_t i = 0; i < TILE_MR; i++)
        for (size_t p = 0; p < t->k; p++)
            for (size_t j = 0; j < TILE_NR; j++) {
                float *c = t->c + i * t->ldc + j, from = p || t->keep ? *c : 0;
                *c = s_fma(t->a[i * t->rs + p * t->cs], t->b[p * t->ldb + j], from);
            }
}

#elif defined(KERN_SMALL)

enum { TILE_NV = TILE_COLS / V16_LANES, TILE_GROUP = 5, TILE_AHEAD = 16 }; /* as below */

/* The tile_pass below in less code: c is read in any case and masked, and pointers walk from row to
 * row; the empty asm keeps the compiler from computing each row's by itself. */
static void tile_pass(const struct cpu_tile *t, float *c, const float *a, const float *b)
{
    size_t ldc = t->ldc, rs = t->rs, cs = t->cs, ldb = t->ldb;
    v16 acc[TILE_ROWS][TILE_NV], keep = v16_set1(s_from_bits(t->keep));
    float *at = c;
#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_ROWS; i++, at += ldc) {
        __asm__("" : "+r"(at));
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            acc[i][j] = v16_and(v16_load(at + V16_LANES * j), keep);
    }
    const float *g0 = a, *g1 = a + TILE_GROUP * rs, *g2 = a + 2 * TILE_GROUP * rs;
    for (size_t p = t->k; p; p--, g0 += cs, g1 += cs, g2 += cs, b += ldb) {
        v16 bv[TILE_NV];
        __asm__("" : "+r"(g0), "+r"(g1), "+r"(g2));
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++) {
            bv[j] = v16_load(b + V16_LANES * j);
            __builtin_prefetch(b + V16_LANES * j + TILE_AHEAD * ldb);
        }
#pragma GCC unroll 14
        for (size_t i = 0; i < TILE_ROWS; i++) {
            const float *g = i < TILE_GROUP ? g0 : i < 2 * TILE_GROUP ? g1 : g2;
            v16 x = v16_set1(g[i % TILE_GROUP * rs]);
#pragma GCC unroll 2
            for (size_t j = 0; j < TILE_NV; j++)
                acc[i][j] = v16_fma(x, bv[j], acc[i][j]);
        }
    }
#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_ROWS; i++, c += ldc) {
        __asm__("" : "+r"(c));
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            v16_store(c + V16_LANES * j, acc[i][j]);
    }
}

/* One full tile. */
void tile_micro(const struct cpu_tile *t)
{
    for (size_t i = 0; i < TILE_MR; i += TILE_ROWS)
        for (size_t j = 0; j < TILE_NR; j += TILE_COLS)
            tile_pass(t, t->c + i * t->ldc + j, t->a + i * t->rs, t->b + j);
    V16_LEAVE();
}

#else

enum {
    TILE_NV = TILE_COLS / V16_LANES,
    TILE_GROUP = 5, /* rows of a that one pointer reaches: offsets 0, 1, 2, 3, 4 times the stride */
    TILE_AHEAD =
        16, /* steps of k by which b is fetched ahead: a panel does not fit the first level */
};
_Static_assert(TILE_ROWS <= 3 * TILE_GROUP, "three pointers reach all rows");

/*
 * TILE_ROWS x TILE_COLS of a tile; element (i, p) of a is a[i*rs + p*cs], row p of b is at b +
 * p*ldb.
 *
 * Per step of k the addresses of a cost three additions, not one per row: scalar additions compete
 * with the multiply-adds for the same ports (measured: 14 of them cost 10 % of the peak). The empty
 * asm keeps the compiler from computing a pointer for every row beforehand, for which it has too
 * few registers.
 */
static void tile_pass(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                      size_t ldb, size_t k, bool accumulate)
{
    v16 acc[TILE_ROWS][TILE_NV];
#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_ROWS; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            acc[i][j] = accumulate ? v16_load(c + i * ldc + V16_LANES * j) : v16_zero();
    /* Otherwise the stores at the end would wait for lines that are not in the cache. */
    for (size_t i = 0; i < TILE_ROWS; i++)
        for (size_t j = 0; j < TILE_NV; j++)
            __builtin_prefetch(c + i * ldc + V16_LANES * j, 1);

    const float *g0 = a, *g1 = a + TILE_GROUP * rs, *g2 = a + 2 * TILE_GROUP * rs;
    for (size_t p = 0; p < k; p++, g0 += cs, g1 += cs, g2 += cs, b += ldb) {
        v16 bv[TILE_NV];
        __asm__("" : "+r"(g0), "+r"(g1), "+r"(g2));
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++) {
            bv[j] = v16_load(b + V16_LANES * j);
            __builtin_prefetch(b + V16_LANES * j + TILE_AHEAD * ldb);
        }
#pragma GCC unroll 14
        for (size_t i = 0; i < TILE_ROWS; i++) {
            const float *g = i < TILE_GROUP ? g0 : i < 2 * TILE_GROUP ? g1 : g2;
            v16 x = v16_set1(g[i % TILE_GROUP * rs]);
#pragma GCC unroll 2
            for (size_t j = 0; j < TILE_NV; j++)
                acc[i][j] = v16_fma(x, bv[j], acc[i][j]);
        }
    }

#pragma GCC unroll 14
    for (size_t i = 0; i < TILE_ROWS; i++, c += ldc)
#pragma GCC unroll 2
        for (size_t j = 0; j < TILE_NV; j++)
            v16_store(c + V16_LANES * j, acc[i][j]);
}

/* One full tile. */
TILE_FN void tile_micro(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                        size_t ldb, size_t k, bool accumulate)
{
    for (size_t i = 0; i < TILE_MR; i += TILE_ROWS)
        for (size_t j = 0; j < TILE_NR; j += TILE_COLS)
            tile_pass(c + i * ldc + j, ldc, a + i * rs, rs, cs, b + j, ldb, k, accumulate);
    V16_LEAVE();
}

#endif

#endif
