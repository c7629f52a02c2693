/*
 * tcq.c - see tcq.h: the Viterbi search, and the way back through its decisions.
 *
 * State s' is reached from two states, one for each lowest bit b of the symbol. The highest bit of
 * s' is z, the lowest bit of both. With t = s' without that bit, XORed with h0 without its highest
 * bit when z is set, they are 2 (t ^ (b ? h1 : 0)) + z. So metrics are kept as two arrays, of even
 * and of odd states, both indexed by t; one step is, for all t,
 *
 *     even states  a[t] = min(even[t] + cost0, even[t ^ h1] + cost2)
 *     odd states   b[t] = min(odd[t] + cost1, odd[t ^ h1] + cost3)
 *
 * and the new metrics are a, then b in the order of t ^ h0. XOR with a constant exchanges vectors
 * and, inside them, lanes. decision[row][z * states/2 + t] is 1 where the second was smaller.
 *
 * Four lanes to a register are what every x86-64 has: 256 states take 65 ns per element on a Xeon,
 * 33 ns with AVX-512, which is not worth a second copy.
 */
#include "trainer/tcq.h"

#include <stdlib.h>
#include <string.h>

#include "stub/trellis.h"

enum { LANES = 16 };

/* A vector type can have no other spelling. */
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes_int __attribute__((vector_size(4 * LANES)));
typedef int8_t lanes_byte __attribute__((vector_size(LANES)));

#define INLINE static inline __attribute__((always_inline))

/* v with lane i at i ^ x; x is a constant. */
INLINE void xor_lanes(lanes *v, size_t x)
{
    if (x & 1)
        *v = __builtin_shufflevector(*v, *v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    if (x & 2)
        *v = __builtin_shufflevector(*v, *v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    if (x & 4)
        *v = __builtin_shufflevector(*v, *v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    if (x & 8)
        *v = __builtin_shufflevector(*v, *v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
}

INLINE void spread(lanes *v, float x)
{
    *v = (lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

/* out[t] = min(m[t] + c0, m[t ^ h1] + c2), its decisions to d. */
INLINE void relax(lanes *out, const lanes *m, float c0, float c2, size_t vecs, size_t h1,
                  uint8_t *d)
{
    lanes v0, v2;
    spread(&v0, c0);
    spread(&v2, c2);
    for (size_t i = 0; i < vecs; i++) {
        lanes x = m[i] + v0, y = m[i ^ h1 / LANES];
        xor_lanes(&y, h1 % LANES);
        y += v2;
        lanes_int less = y < x;
        out[i] = (lanes)(((lanes_int)y & less) | ((lanes_int)x & ~less));
        lanes_byte bit = __builtin_convertvector(less & 1, lanes_byte);
        memcpy(d + i * LANES, &bit, sizeof bit);
    }
}

/* The search for a number of states that is a constant, 32 or more. */
INLINE void search(float *metric, uint8_t *decision, const float (*cost)[4], size_t rows,
                   size_t states, size_t h0, size_t h1)
{
    enum { MAX = TCQ_MAX_STATES / LANES };
    size_t half = states / 2, vecs = half / LANES, turn = h0 & (half - 1);
    lanes now[MAX], even[MAX / 2], odd[MAX / 2];
    memcpy(now, metric, states * sizeof *metric);
    for (size_t r = 0; r < rows; r++, decision += states) {
        for (size_t i = 0; i < vecs; i++) {
            even[i] = __builtin_shufflevector(now[2 * i], now[2 * i + 1], 0, 2, 4, 6, 8, 10, 12, 14,
                                              16, 18, 20, 22, 24, 26, 28, 30);
            odd[i] = __builtin_shufflevector(now[2 * i], now[2 * i + 1], 1, 3, 5, 7, 9, 11, 13, 15,
                                             17, 19, 21, 23, 25, 27, 29, 31);
        }
        relax(now, even, cost[r][0], cost[r][2], vecs, h1, decision);
        relax(even, odd, cost[r][1], cost[r][3], vecs, h1, decision + half);
        for (size_t i = 0; i < vecs; i++) {
            xor_lanes(&even[i], turn % LANES);
            now[vecs + (i ^ turn / LANES)] = even[i];
        }
    }
    memcpy(metric, now, states * sizeof *metric);
}

/* The same for any number of states. */
static void search_few(float *metric, uint8_t *decision, const float (*cost)[4], size_t rows,
                       size_t states)
{
    struct trellis code = trellis_code((unsigned)states);
    float before[TCQ_MAX_STATES];
    size_t half = states / 2, turn = code.h0 & (half - 1);
    for (size_t r = 0; r < rows; r++, decision += states) {
        memcpy(before, metric, states * sizeof *metric);
        for (size_t i = 0; i < states; i++) {
            size_t z = i / half, t = i % half;
            float x = before[2 * t + z] + cost[r][z];
            float y = before[2 * (t ^ code.h1) + z] + cost[r][z + 2];
            metric[z * half + (z ? t ^ turn : t)] = y < x ? y : x;
            decision[i] = y < x;
        }
    }
}

static void find(float *metric, uint8_t *decision, const float (*cost)[4], size_t rows,
                 size_t states)
{
#define CASE(n, h0, h1)                                                                            \
    case n:                                                                                        \
        search(metric, decision, cost, rows, n, h0 >> 1, h1 >> 1);                                 \
        break
    switch (states) {
        CASE(32, 045, 010);
        CASE(64, 0103, 024);
        CASE(128, 0235, 0126);
        CASE(256, 0515, 0362);
    default:
        search_few(metric, decision, cost, rows, states);
    }
#undef CASE
}

bool tcq_states_ok(size_t states)
{
    return states <= TRELLIS_STATES_MAX && trellis_code((unsigned)states).h0;
}

size_t tcq_work(size_t rows, size_t states)
{
    return rows * (4 * sizeof(float) + states);
}

/* The symbol of kind m = 2b + z (half steps modulo 4) next to x: 2k + z = m + 4r, so k = b + 2r. */
static inline int nearest(float x, int m)
{
    float r = (2 * x - (float)m) * 0.25f, limit = (float)(TCQ_MAX_SYMBOL / 2);
    r = r > limit ? limit : r;
    r = r < -limit ? -limit : r;
    r = r + 0x1.8p23f - 0x1.8p23f; /* to nearest, ties to even */
    return m / 2 + 2 * (int)r;
}

float tcq_column(int8_t *k, const float *x, const float *weight, size_t rows, size_t states,
                 void *work)
{
    float(*cost)[4] = work, metric[TCQ_MAX_STATES];
    uint8_t *decision = (uint8_t *)(cost + rows);
    struct trellis code = trellis_code((unsigned)states);
    size_t half = states / 2, turn = code.h0 & (half - 1), s = 0;
    for (size_t r = 0; r < rows; r++)
        for (int m = 0; m < 4; m++) {
            float d = x[r] - 0.5f * (float)trellis_half((unsigned)m, nearest(x[r], m));
            cost[r][m] = (weight ? weight[r] : 1) * (d * d);
        }
    for (size_t i = 0; i < states; i++)
        metric[i] = i ? 0x1p100f : 0; /* far above any sum, and still added to without overflow */
    find(metric, decision, (const float(*)[4])cost, rows, states);
    for (size_t i = 1; i < states; i++)
        s = metric[i] < metric[s] ? i : s;
    float sum = metric[s];
    for (size_t r = rows; r-- > 0;) {
        size_t z = s >= half, t = (s & (half - 1)) ^ (z ? turn : 0);
        size_t b = decision[r * states + z * half + t];
        k[r] = (int8_t)nearest(x[r], (int)(2 * b + z));
        s = 2 * (t ^ (b ? code.h1 : 0)) | z;
    }
    return sum;
}
