/*
 * cm_model.h - the model of the codec "cm": how likely the next bit is. Private to stub/cm_dec.c
 * and packer/cm.c, which must walk through it in the same steps. docs/format.md describes it.
 *
 * Context mixing in the manner of Matt Mahoney's PAQ ("Adaptive weighing of context models for
 * lossless data compression", 2005): four adaptive probabilities, each chosen by another context,
 * are added up in the logistic domain with weights that are learnt as well. What the contexts are
 * made of is special: trained weights divided by their steps are Gaussian noise whose spread is, to
 * good accuracy, a factor of the row times a factor of the column. So each column and each row
 * keeps running sums of |level|, and the product of the two estimates, in the log domain, is the
 * main context. Prior strengths of the estimates are told by the encoder, who has seen the spread
 * of the factors. Rows of an embedding resemble each other; there the four most similar rows above,
 * which the decoder finds by itself, predict the next one.
 *
 * Integers only; sums wrap where an input drives them too far; every index is limited. Written for
 * size: a submission carries it. The file that includes this one has defined
 *
 *     static unsigned cm_code(void *coder, uint32_t p, unsigned bit);
 *
 * which codes one bit whose probability of being 1 is p / 65536 (0 < p < 65536) and returns it; a
 * decoder ignores its argument.
 */
#ifndef STUB_CM_MODEL_H
#define STUB_CM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "model/tensor.h"
#include "stub/trellis.h"
#include "stub/weights_dec.h"

enum {
    CM_INPUTS = 4,
    CM_COUNTERS = 1 << 17, /* of each input */
    CM_COLUMNS = 1 << 14,  /* columns with sums of their own; more share them */
    CM_CHUNK = 32,         /* columns between two searches for similar rows */
    CM_NEAR = 4,           /* similar rows that predict */
    CM_ROWS = 1 << 12,     /* rows that are searched: the first of the matrix */
    CM_WIDE = 1 << 10,     /* no search in wider matrices */
    CM_KINDS = 1 << 8,     /* of tensors that are no matrices */
    CM_TENSORS = 1 << 12,  /* no trellis in payloads of more */

    /* A counter has a probability less 1/2 in its upper 22 bits and how often it was used below. */
    CM_COUNT_BITS = 10,
    CM_COUNT_LIMIT = 1020,

    /* The logistic domain: 192 steps to a factor of e, limited to +-2047. */
    CM_SCALE = 192,
    CM_LIMIT = 2047,
    CM_SQUASH_FIRST = 103182, /* of 2^32; with it the value in the middle is one half */
    CM_WEIGHT_FIRST = 26214,  /* 0.4, of 65536 */
    CM_HASTE = 64 << 8,

    /* Decisions, "nodes". A matrix context has CM_NODES counters, each for one of these: */
    NODE_WHOLE = 0,   /* level in whole steps: is it 0; is its size above 1, 2, ... */
    NODE_HALF = 32,   /* level in half steps, never 0: is its size above 0.5, 1.5, ... */
    NODE_COARSE = 64, /* large levels: the same for the size without its low bits */
    NODE_LOW = 96,    /* the low bits: 7 tree nodes for each of four ranges of the size */
    NODE_SIGN = 127,
    NODE_UNARY_MAX = 31,
    CM_NODES = 128,
    NODE_BYTE = CM_NODES, /* of other tensors: what came of the byte so far, behind a leading 1 */
    CM_ALL_NODES = NODE_BYTE + 256,

    CM_OCTAVE = 64, /* logarithms count in 1/64 of an octave */
    CM_SPREADS = 12 * CM_OCTAVE,
    CM_RANKS = 44,
    CM_UNIT = 16, /* means of |level in half steps| count in 1/16 */
};

/* What is known about a column or about the row so far; levels in half steps. */
struct cm_line {
    uint32_t sum;  /* CM_UNIT * |level|, a prior included */
    uint32_t slow; /* 16 times a mean of CM_UNIT * |level| that forgets with 1/16 */
    uint32_t fast; /* the same mean forgetting with 1/2 */
    int32_t sign;  /* levels added up */
    uint8_t last;  /* sign of the last level: 0 minus, 1 zero, 2 plus */
    uint8_t state; /* of the trellis; columns only */
};

/* A row above: its product with the current row so far; its energy up to each chunk's end. */
struct cm_above {
    int32_t product;
    uint32_t energy[CM_WIDE / CM_CHUNK];
};

/* A similar row, how well it predicts, and the factor, of 2^12, with which it does. */
struct cm_near {
    uint64_t score;
    const int8_t *row;
    int32_t factor;
};

/* One input: what it said of the last bit, and the counter that said it; weights, counters. */
struct cm_input {
    int32_t said;
    int32_t *used;
    uint32_t weight[CM_ALL_NODES]; /* less CM_WEIGHT_FIRST */
    int32_t counter[CM_COUNTERS];
};

/* Small things first: instructions reach them with short displacements. All begins as zero, but
 * for the tables. */
struct cm_model {
    void *coder;
    uint32_t expected; /* what row.sum would be by the columns' means alone */
    int low;           /* cm_rank: what is 0 */
    struct cm_line row;
    /* Contexts of the next bits: where they begin. Those of the sign are behind the others. */
    uint32_t at[2 * CM_INPUTS];
    struct cm_near near[CM_NEAR];
    const uint8_t *like[CM_KINDS]; /* the last tensor of each kind, and its size */
    size_t like_n[CM_KINDS];
    struct cm_line column[CM_COLUMNS];
    uint32_t used[CM_ALL_NODES]; /* how often, up to CM_HASTE: how much slower a node learns */
    struct cm_above above[CM_ROWS];
    struct cm_input input[CM_INPUTS];
    uint16_t rate[1 << CM_COUNT_BITS]; /* tables */
    uint16_t squash[2 * CM_LIMIT + 1];
    int16_t stretch[4096];
};

/* What the encoder tells about a matrix before its elements. */
enum {
    HINT_MEAN,    /* CM_UNIT * mean of |level in half steps| */
    HINT_ROW,     /* log2 of the number of elements that the mean counts as, ... */
    HINT_COLUMN,  /* ... in the sums of a row and of a column */
    HINT_SHIFT,   /* low bits of the size that are coded apart */
    HINT_SIMILAR, /* 1: similar rows predict; not for more than CM_WIDE columns */
    HINT_CLASS,   /* for matrices of different shapes */
    HINT_BITS,    /* log2 of the states of the trellis; 0: no trellis, and no HINT_FLAGS */
    HINT_FLAGS,   /* number, in the payload, of the tensor rexp; cexp is the next */
    HINTS,
};
static const uint8_t cm_hint_bits[HINTS] = {13, 4, 4, 2, 1, 3, 4, 12};

struct cm_matrix {
    int8_t *q;
    size_t rows, cols;
    uint32_t hint[HINTS];
    const int8_t *rexp, *cexp; /* with a trellis: flags of rows and columns (stub/trellis.h) */
};

static unsigned cm_code(void *coder, uint32_t p, unsigned bit);

static int cm_clamp(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

static inline void cm_init(struct cm_model *m, void *coder)
{
    uint64_t s = CM_SQUASH_FIRST; /* of 2^32; its slope is s (1 - s) */
    memset(m, 0, sizeof *m);
    m->coder = coder;
    for (uint32_t x = 0, i = 0; x < 2 * CM_LIMIT + 1; x++) {
        m->squash[x] = (uint16_t)(s >> 16);
        for (; i * 16 + 8 <= s >> 16; i++)
            m->stretch[i] = (int16_t)(x - CM_LIMIT);
        s += (s * (((uint64_t)1 << 32) - s) >> 32) / CM_SCALE;
    }
    for (uint32_t n = 0; n < 1 << CM_COUNT_BITS; n++)
        m->rate[n] = (uint16_t)(2 * 65536 / (2 * n + 3)); /* 1 / (n + 1.5) */
}

/* One bit: in each input the counter of this node, in the context that begins at `at`. */
static unsigned cm_bit(struct cm_model *m, const uint32_t *at, unsigned node, unsigned bit)
{
    struct cm_input *const end = m->input + CM_INPUTS;
    uint32_t dot = 0;
    for (struct cm_input *i = m->input; i < end; i++) {
        i->used = i->counter + *at++ + node;
        i->said = m->stretch[(*i->used >> 20) + 2048];
        dot += (i->weight[node] + CM_WEIGHT_FIRST) * (uint32_t)i->said;
    }
    int32_t p = m->squash[cm_clamp((int32_t)dot >> 16, -CM_LIMIT, CM_LIMIT) + CM_LIMIT];
    bit = cm_code(m->coder, (uint32_t)p, bit);

    /* The rate falls from 1 to 1/64. */
    int32_t error = (int32_t)(bit << 16) - p, rate = (int32_t)((CM_HASTE - m->used[node]) >> 8);
    int32_t goal = (int32_t)(bit << 22) - (1 << 21);
    m->used[node] += (uint32_t)rate++;
    for (struct cm_input *i = m->input; i < end; i++) {
        int32_t c = *i->used, n = c & ((1 << CM_COUNT_BITS) - 1);
        int32_t step = ((goal - (c >> CM_COUNT_BITS)) >> 6) * m->rate[n] >> 10;
        i->weight[node] += (uint32_t)(((i->said * error >> 12) * rate + 32) >> 6);
        *i->used =
            (int32_t)((uint32_t)c + ((uint32_t)step << CM_COUNT_BITS) + (n < CM_COUNT_LIMIT));
    }
    return bit;
}

/* n bits that the model knows nothing about. */
static inline uint32_t cm_plain(struct cm_model *m, int n, uint32_t value)
{
    uint32_t got = 0;
    while (n-- > 0)
        got = got * 2 + cm_code(m->coder, 1 << 15, value >> n & 1);
    return got;
}

/* 64 log2(x), to within half a step; 0 counts as 1. log2(1 + f) is about f + 0.344 f (1 - f). */
static int cm_log(uint32_t x)
{
    uint32_t e = 31 - (uint32_t)__builtin_clz(x | 1), f = (x << (31 - e) & 0x7FFFFFFF) >> 15;
    f += (f * (65536 - f) >> 16) * 88 >> 8;
    return (int)(e * CM_OCTAVE + (f >> 10));
}

/*
 * cm_bytes - a tensor that is no matrix of int8, element after element, each from its highest byte,
 * bit by bit. `like` is a tensor before with the same element type and size in bytes, and a name
 * with the same end, or NULL: matrices that share their input have the same column exponents.
 * Contexts: its byte at this place with how the last three fitted; the byte before; the byte before
 * that; both.
 */
static inline void cm_bytes(struct cm_model *m, uint8_t *data, size_t nbytes, size_t esize,
                            const uint8_t *like)
{
    static const uint32_t mask[CM_INPUTS] = {0x0000FFFF, 0x00FFF000, 0xFF00F000, 0xFFFFF000};
    uint32_t past = 0, hits = 0;
    for (size_t i = 0; i < nbytes; i += esize)
        for (size_t b = esize; b-- > 0;) {
            uint32_t same = like ? like[i + b] : 0, node = 1;
            uint32_t word = past << 16 | (uint32_t)(esize + b) << 12 | hits << 8 | same;
            for (int k = 0; k < CM_INPUTS; k++)
                m->at[k] = ((word & mask[k]) * 0x9E3779B1u >> 15) % (CM_COUNTERS - CM_ALL_NODES);
            for (int bit = 7; bit >= 0; bit--)
                node =
                    node * 2 + cm_bit(m, m->at, NODE_BYTE + node, (unsigned)data[i + b] >> bit & 1);
            data[i + b] = (uint8_t)node;
            past = past << 8 | (uint8_t)node;
            hits = (hits << 1 | ((uint8_t)node == same)) & 7;
        }
}

static inline void cm_other(struct cm_model *m, const struct tensor_view *t, uint8_t *data)
{
    uint32_t kind = 0; /* the last four letters of the name, and the size */
    for (const char *s = t->name; *s; s++)
        kind = kind << 8 | (uint8_t)*s;
    kind = (kind + (uint32_t)t->nbytes) * 0x9E3779B1u >> 24;
    cm_bytes(m, data, t->nbytes, st_dtype_size(t->dtype),
             m->like_n[kind] == t->nbytes ? m->like[kind] : NULL);
    m->like[kind] = data;
    m->like_n[kind] = t->nbytes;
}

/* ---- similar rows ---------------------------------------------------------------------------- */

/* Sum of a[i] * b[i] over one chunk. */
static int32_t cm_dot(const int8_t *a, const int8_t *b)
{
#ifdef __SSE2__
    /* As 16-bit numbers: those at odd places as they are, those at even places times 256. */
    __m128i odd = _mm_setzero_si128(), even = odd;
    for (int i = 0; i < CM_CHUNK; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(a + i));
        __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(b + i));
        odd = _mm_add_epi32(odd, _mm_madd_epi16(_mm_srai_epi16(x, 8), _mm_srai_epi16(y, 8)));
        x = _mm_srai_epi16(_mm_slli_epi16(x, 8), 8);
        even = _mm_add_epi32(even, _mm_madd_epi16(x, _mm_slli_epi16(y, 8)));
    }
    odd = _mm_add_epi32(odd, _mm_srai_epi32(even, 8));
    odd = _mm_add_epi32(odd, _mm_srli_si128(odd, 8));
    odd = _mm_add_epi32(odd, _mm_srli_si128(odd, 4));
    return _mm_cvtsi128_si32(odd);
#else
    int32_t sum = 0;
    for (int i = 0; i < CM_CHUNK; i++)
        sum += a[i] * b[i];
    return sum;
#endif
}

/*
 * Take in the chunk of row i that ends before column j, which is complete: add it to the products
 * with the rows above, and choose the rows from which least squares, each alone, would predict it
 * best. Their factors are those of least squares. At the start of a row there are none.
 */
static void cm_search(struct cm_model *m, const struct cm_matrix *x, size_t i, size_t j)
{
    struct cm_above *a = m->above;
    for (int k = 0; k < CM_NEAR; k++)
        m->near[k] = (struct cm_near){.row = x->q};
    if (j == 0)
        return;
    size_t chunk = j / CM_CHUNK - 1;
    const int8_t *to = x->q + chunk * CM_CHUNK, *row = to + i * x->cols;
    for (; a < m->above + CM_ROWS && to < row; a++, to += x->cols) {
        int64_t product = (chunk ? a->product : 0) + cm_dot(row, to);
        uint64_t square = (uint64_t)(product * product), energy = a->energy[chunk];
        a->product = (int32_t)product;
        if (product <= 0 || square <= m->near[CM_NEAR - 1].score * energy)
            continue;
        struct cm_near *n = m->near + CM_NEAR - 1;
        for (square /= energy; n > m->near && n[-1].score < square; n--)
            *n = n[-1];
        *n = (struct cm_near){square, to - chunk * CM_CHUNK,
                              cm_clamp((int)(product * 4096 / (int64_t)energy), 0, 1 << 14)};
    }
    if (a < m->above + CM_ROWS)
        a->energy[chunk] = (uint32_t)cm_dot(row, row) + (chunk ? a->energy[chunk - 1] : 0);
}

/* ---- int8 matrices --------------------------------------------------------------------------- */

/* The sum of the levels, compared with the sum of their sizes: 0..63. */
static uint32_t cm_bias(const struct cm_line *l)
{
    int32_t sign = (int32_t)((uint32_t)l->sign * 64);
    return (uint32_t)cm_clamp(sign / (int32_t)(l->sum / CM_UNIT + 16), -32, 31) + 32;
}

/* log2 of v against the mean of the matrix. */
static uint32_t cm_rank(const struct cm_model *m, uint32_t v)
{
    return (uint32_t)cm_clamp(cm_log(v) - m->low, 0, 8 * CM_RANKS - 1) / 8;
}

/* At the start of a line, and after each of its levels. */
static void cm_start(struct cm_line *l, uint32_t mean, uint32_t prior)
{
    *l = (struct cm_line){.sum = mean << prior, .slow = mean << 4, .fast = mean, .last = 1};
}

static void cm_seen(struct cm_line *l, int half)
{
    uint32_t size = CM_UNIT * (uint32_t)(half < 0 ? -half : half);
    l->sum += size;
    l->slow += size - (l->slow >> 4);
    l->fast = (l->fast + size) >> 1;
    l->sign += half;
    l->last = (uint8_t)((half > 0) - (half < 0) + 1);
}

/*
 * One symbol k; z is 1 when its level is k + 1/2. seen: rows above, and the prior's; sum: what
 * similar rows say about the level.
 */
static int cm_element(struct cm_model *m, const struct cm_matrix *x, struct cm_line *c,
                      uint32_t seen, int32_t sum, unsigned z, int k)
{
    const uint32_t *hint = x->hint;
    int column = cm_log(c->sum) - cm_log(seen);
    unsigned spread = (unsigned)cm_clamp(
        column + cm_log(m->row.sum) - cm_log(m->expected) + CM_OCTAVE, 0, CM_SPREADS - 1);
    uint32_t *at = m->at, bias = cm_bias(c), predict = bias;
    at[0] = spread / 8;
    at[1] = spread / 32 * 22 + cm_rank(m, 16 * c->fast + 4 * hint[HINT_MEAN]) / 2;
    at[2] = (uint32_t)(column + 64) / 8 % 128 + 128 * hint[HINT_CLASS];
    at[3] = cm_rank(m, c->slow) * 22 + cm_rank(m, m->row.slow) / 2;
    if (hint[HINT_SIMILAR]) { /* in units of 5/16 of the expected size; 20 is none */
        int32_t size = (int32_t)((CM_OCTAVE + spread % CM_OCTAVE) << spread / CM_OCTAVE);
        predict = (uint32_t)cm_clamp((5 * sum + 41 * size) / (2 * size), 0, 40);
        at[3] = spread / 64 * 64 + (predict < 20 ? 20 - predict : predict - 20);
    }
    at[4] = bias;
    at[5] = m->row.last * 3u + c->last;
    at[6] = bias / 4 + cm_bias(&m->row) / 2 * 16;
    at[7] = predict;
    for (int i = 0; i < 2 * CM_INPUTS; i++)
        at[i] *= CM_NODES;

    unsigned minus = k < 0, size = (unsigned)(minus ? -k - (int)z : k), high = 0, node = 1;
    unsigned shift = hint[HINT_SHIFT], base = shift ? NODE_COARSE : z * NODE_HALF;
    k = 0;
    if (z || cm_bit(m, at, base, size > 0)) {
        minus = cm_bit(m, at + CM_INPUTS, NODE_SIGN, minus);
        if (hint[HINT_SIMILAR])
            at[3] += ((predict < 20) == minus ? 21u : 42u) * CM_NODES;
        for (high = !z && !shift; high < 128; high++) {
            node = high < NODE_UNARY_MAX - 1 ? high + 1 : NODE_UNARY_MAX;
            if (!cm_bit(m, at, base + node, size >> shift > high))
                break;
        }
        base = NODE_LOW - 1 + (high < 3 ? high : 3) * 7;
        node = 1;
        for (unsigned b = shift; b-- > 0;)
            node = node * 2 + cm_bit(m, at, base + node, size >> b & 1);
        k = (int)((high << shift) + node - (1u << shift));
        if (minus)
            k = -k - (int)z;
    }
    m->expected += c->sum / seen;
    cm_seen(&m->row, 2 * k + (int)z);
    cm_seen(c, 2 * k + (int)z);
    return k;
}

/* Whether a tensor is coded element by element; all others byte by byte. */
static bool cm_is_matrix(const struct tensor_view *t)
{
    return t->dtype == ST_I8 && t->ndim >= 2 && t->nbytes;
}

static inline void cm_hints(struct cm_model *m, struct cm_matrix *x)
{
    for (int i = 0; i < HINTS - !x->hint[HINT_BITS]; i++)
        x->hint[i] = cm_plain(m, cm_hint_bits[i], x->hint[i]);
    x->hint[HINT_SIMILAR] &= IN_RUNNER || x->cols <= CM_WIDE;
}

/* cm_matrix - walk over a matrix; rows and cols are not 0, rexp and cexp NULL or as long as they.
 */
static void cm_matrix(struct cm_model *m, const struct cm_matrix *x)
{
    const uint32_t *hint = x->hint, mean = hint[HINT_MEAN];
    struct trellis code = trellis_code(x->rexp && x->cexp ? 1u << hint[HINT_BITS] : 0);
    m->low = cm_log(mean) + 96;
    for (size_t j = 0; j < CM_COLUMNS && j < x->cols; j++)
        cm_start(&m->column[j], mean, hint[HINT_COLUMN]);
    int8_t *q = x->q;
    for (size_t i = 0; i < x->rows; i++) {
        cm_start(&m->row, mean, hint[HINT_ROW]);
        m->expected = m->row.sum;
        for (size_t j = 0; j < x->cols; j++, q++) {
            struct cm_line *c = &m->column[j % CM_COLUMNS];
            bool half = code.h0 && !step_flag(x->rexp[i]) && !step_flag(x->cexp[j]);
            unsigned state = half ? c->state : 0;
            int32_t sum = 0;
            if (hint[HINT_SIMILAR]) {
                if (j % CM_CHUNK == 0)
                    cm_search(m, x, i, j);
                for (int r = 0; r < CM_NEAR; r++)
                    sum += m->near[r].factor * m->near[r].row[j];
            }
            int k =
                cm_element(m, x, c, (uint32_t)i + (1u << hint[HINT_COLUMN]), sum, state & 1, *q);
            if (half)
                c->state = (uint8_t)trellis_next(code, state, k);
            *q = (int8_t)k;
        }
    }
}

/*
 * cm_tensor - what a decoder does with a matrix of the payload: hints, flags, elements. The tensors
 * with the flags must be there. Where they are not as the hints promise, or in a payload of so many
 * tensors that the search would take too long, there is no trellis.
 */
static inline void cm_tensor(struct cm_model *m, uint8_t *payload, size_t raw_size,
                             const struct tensor_view *matrix)
{
    struct cm_matrix x = {.q = (int8_t *)payload + (matrix->data - payload),
                          .cols = matrix->shape[matrix->ndim - 1]};
    struct weights_cursor c;
    struct tensor_view t;
    x.rows = matrix->nbytes / x.cols;
    cm_hints(m, &x);
    weights_open(&c, payload, raw_size);
    if ((IN_RUNNER || c.left <= CM_TENSORS) && x.hint[HINT_BITS]) {
        do
            weights_next(&c, &t);
        while (x.hint[HINT_FLAGS]--);
        if (IN_RUNNER || (t.dtype == ST_I8 && t.nbytes == x.rows))
            x.rexp = (const int8_t *)t.data;
        if (weights_next(&c, &t) && (IN_RUNNER || (t.dtype == ST_I8 && t.nbytes == x.cols)))
            x.cexp = (const int8_t *)t.data;
    }
    cm_matrix(m, &x);
}

#endif
