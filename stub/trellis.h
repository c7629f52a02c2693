/*
 * trellis.h - what a quantised symbol stands for: step exponents, and trellis-coded levels.
 *
 * A matrix quantised with QUANTIZER=rd is stored as
 *
 *     X.q     I8  [rows][cols]  symbols k
 *     X.rexp  I8  [rows]        2 * exponent + flag
 *     X.cexp  I8  [cols]        2 * exponent + flag
 *     X.step  F32 [2]           {c, states}: states is 0 or one of 4, 8, 16, ..., 256
 *
 *     w[i][j] = level * rstep_i * cstep_j   in fp32, in this order of products
 *     rstep_i = c * step_pow(exponent of rexp[i]),  cstep_j = step_pow(exponent of cexp[j])
 *
 * An element is *plain* when states is 0, or the flag of its row or the flag of its column is set:
 * then its level is k. All other elements belong to the trellis of their column, which runs down
 * the rows and passes plain elements by: their level is (2 k + z) / 2, a multiple of half a step,
 * where z is the lowest bit of the column's state. The state is 0 above the first row.
 *
 *     unsigned s = 0;
 *     for (row = 0; row < rows; row++)
 *         if (row and column have no flag) {
 *             half = trellis_half(s, k);        level = 0.5f * half
 *             s = trellis_next(code, s, k);
 *         }
 *
 * The state machine is Ungerboeck's systematic feedback encoder for one dimension ("Channel coding
 * with multilevel/phase signals", 1982, Table I): the bits z (of the state) and k & 1 (of the
 * symbol) choose one of four subsets of the half-step lattice, the one with 2 k + z mod 4, and obey
 * h0(D) z + h1(D) (k & 1) = 0. In its observer form the encoder has as many bits of state as h0 has
 * degrees, the next z is the lowest of them, and no table is needed. Marcellin and Fischer,
 * "Trellis coded quantization" (1990), use it for quantisation.
 *
 * Shared by the weight codec, the loader of models and the quantiser: this is the only definition.
 */
#ifndef STUB_TRELLIS_H
#define STUB_TRELLIS_H

#include <stdint.h>

enum { TRELLIS_STATES_MAX = 256 };

/* The parity-check polynomials without their lowest bits, which are 1 (h0) and 0 (h1). */
struct trellis {
    uint8_t h0, h1;
};

/*
 * trellis_code - the code with that many states; {0, 0} for 0 and for every number that has none.
 *
 * In octal, with their lowest bit: 4: 5, 2; 8: 13, 4; 16: 23, 4; 32: 45, 10; 64: 103, 24;
 * 128: 235, 126; 256: 515, 362.
 */
static inline struct trellis trellis_code(unsigned states)
{
    static const struct trellis code[] = {
        {05 >> 1, 02 >> 1},    {013 >> 1, 04 >> 1},    {023 >> 1, 04 >> 1},    {045 >> 1, 010 >> 1},
        {0103 >> 1, 024 >> 1}, {0235 >> 1, 0126 >> 1}, {0515 >> 1, 0362 >> 1},
    };
    for (unsigned i = 0; i < sizeof code / sizeof *code; i++)
        if (states == 4u << i)
            return code[i];
    return (struct trellis){0, 0};
}

/* trellis_half - the level in half steps of symbol k in state s. */
static inline int trellis_half(unsigned s, int k)
{
    return 2 * k + (int)(s & 1);
}

/* trellis_next - the state after symbol k; below the number of states when s is. */
static inline unsigned trellis_next(struct trellis t, unsigned s, int k)
{
    return s >> 1 ^ (s & 1 ? t.h0 : 0u) ^ (k & 1 ? t.h1 : 0u);
}

/* step_flag, step_exponent - the two parts of an element of rexp or cexp. */
static inline int step_flag(int8_t e)
{
    return e & 1;
}

static inline int step_exponent(int8_t e)
{
    return (e - step_flag(e)) / 2; /* -64..63 */
}

/* step_pow - 2^(exponent / 4), one of four constants times an exact power of two; the constants are
 * the nearest floats. |exponent| may be up to 400. */
static inline float step_pow(int exponent)
{
    static const float quarter[4] = {1.0f, 0x1.306fep+0f, 0x1.6a09e6p+0f, 0x1.ae89fap+0f};
    union {
        uint32_t u;
        float f;
    } two = {.u = (uint32_t)(127 + (exponent - (exponent & 3)) / 4) << 23};
    return quarter[exponent & 3] * two.f;
}

#endif
