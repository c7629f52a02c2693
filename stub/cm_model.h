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
 * Integers only; sums wrap where an input drives them too far; every index is limited. The file
 * that includes this one has defined
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
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "model/tensor.h"
#include "stub/trellis.h"

enum {
    CM_INPUTS = 4,
    CM_COUNTERS = 1 << 17,   /* of each input */
    CM_COLUMNS = 1 << 14,    /* columns with sums of their own; more share them */
    CM_CHUNK = 32,           /* columns between two searches for similar rows */
    CM_NEAR = 4,             /* similar rows that predict */
    CM_ROWS = 1 << 12,       /* rows that are searched: the first of the matrix */
    CM_WIDE = 32 * CM_CHUNK, /* no search in wider matrices */

    /* A counter has a probability in its upper 22 bits and how often it was used below. */
    CM_COUNT_BITS = 10,
    CM_COUNT_LIMIT = 1020,

    /* The logistic domain: 192 steps to a factor of e, limited to +-2047. */
    CM_LIMIT = 2047,
    CM_WEIGHT_FIRST = 26214, /* 0.4, of 65536 */
    CM_HASTE = 64 << 8,

    /* Decisions, "nodes". A matrix context has CM_NODES counters, each for one of these: */
    NODE_WHOLE = 0,   /* level in whole steps: is it 0; is its size above 1, 2, ... */
    NODE_HALF = 32,   /* level in half steps, never 0: is its size above 0.5, 1.5, ... */
    NODE_COARSE = 64, /* large levels: the same for the size without its low bits */
    NODE_LOW = 96,    /* the low bits: 7 tree nodes for each of four ranges of the size */
    NODE_UNARY_MAX = 31,
    CM_NODES = 128,
    CM_CONTEXTS = CM_COUNTERS / CM_NODES,
    NODE_SIGN = CM_NODES, /* has contexts of one counter row, addressed from the row before */
    NODE_BYTE = NODE_SIGN + 1,
    CM_ALL_NODES = NODE_BYTE + 256,

    CM_OCTAVE = 64, /* logarithms count in 1/64 of an octave */
    CM_SPREADS = 12 * CM_OCTAVE,
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

/* Small things first: instructions reach them with short displacements. */
struct cm_model {
    void *coder;
    struct cm_line row;
    uint32_t expected; /* what row.sum would be by the columns' means alone */
    int near;          /* similar rows, and their factors, of 2^12 */
    int32_t factor[CM_NEAR];
    size_t near_row[CM_NEAR];
    struct cm_line column[CM_COLUMNS];
    int32_t weight[CM_ALL_NODES][CM_INPUTS];
    uint32_t haste[CM_ALL_NODES]; /* falls with each use: how much faster a node learns at first */
    uint32_t rate[1 << CM_COUNT_BITS];
    uint16_t squash[2 * CM_LIMIT + 1];
    int16_t stretch[4096];
    int32_t product[CM_ROWS]; /* of the current row so far with each row above */
    uint32_t energy[CM_ROWS][CM_WIDE / CM_CHUNK]; /* of each row up to each chunk's end */
    uint32_t counter[CM_INPUTS * CM_COUNTERS];
};

/* A matrix, and what the encoder tells about it before its elements: 32 bits, from the highest. */
struct cm_matrix {
    int8_t *q;
    size_t rows, cols;
    uint32_t mean;      /* 13 bits: CM_UNIT * mean of |level in half steps|, at least 1 */
    uint32_t row_prior; /* 4 bits: log2 of the number of elements that the mean counts as, ... */
    uint32_t col_prior; /* 4 bits: ... in the sums of a row and of a column; 0..15 */
    uint32_t shift;     /* 2 bits: low bits of the size that are coded apart */
    uint32_t similar;   /* 1 bit: similar rows predict; not for more than CM_WIDE columns */
    uint32_t class;     /* 3 bits: 0..CM_CLASSES - 1, for matrices of different shapes */
    uint32_t bits;      /* 5 bits: log2 of the states of the trellis; 0: no trellis */
    const int8_t *rexp, *cexp; /* with a trellis: flags of rows and columns (stub/trellis.h) */
};
enum { CM_PRIOR_MAX = 10, CM_CLASSES = 6, CM_TENSORS = 1 << 12 };

static unsigned cm_code(void *coder, uint32_t p, unsigned bit);

static int cm_clamp(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

static inline void cm_init(struct cm_model *m, void *coder)
{
    const uint64_t one = (uint64_t)1 << 32, factor = 4272655857; /* 2^32 e^(-1/192) */
    uint64_t power = one;
    m->coder = coder;
    for (int x = 0; x <= CM_LIMIT; x++) {
        uint32_t p = (uint32_t)((one << 16) / (one + power));
        m->squash[CM_LIMIT + x] = (uint16_t)p;
        m->squash[CM_LIMIT - x] = (uint16_t)(65536 - p);
        power = power * factor >> 32;
    }
    for (int i = 0, x = 0; i < 4096; i++) {
        while (x < 2 * CM_LIMIT && m->squash[x] < i * 16 + 8)
            x++;
        m->stretch[i] = (int16_t)(x - CM_LIMIT);
    }
    for (uint32_t i = 0; i < 1 << CM_COUNT_BITS; i++)
        m->rate[i] = 2 * 65536 / (2 * i + 3); /* 1 / (i + 1.5) */
    for (uint32_t i = 0; i < CM_INPUTS * CM_COUNTERS; i++)
        m->counter[i] = (uint32_t)1 << 31;
    for (int i = 0; i < CM_ALL_NODES; i++) {
        m->haste[i] = CM_HASTE;
        for (int k = 0; k < CM_INPUTS; k++)
            m->weight[i][k] = CM_WEIGHT_FIRST;
    }
}

/* One bit: in each input the counter of this node, in the context that begins at at[k]. */
static unsigned cm_bit(struct cm_model *m, const int at[CM_INPUTS], unsigned node, unsigned bit)
{
    int32_t in[CM_INPUTS], *w = m->weight[node];
    uint32_t *c[CM_INPUTS];
    int64_t dot = 0;
    for (int k = 0; k < CM_INPUTS; k++) {
        c[k] = &m->counter[k * CM_COUNTERS + at[k] + (int)node];
        in[k] = m->stretch[*c[k] >> 20];
        dot += (int64_t)w[k] * in[k];
    }
    dot >>= 16;
    dot = dot < -CM_LIMIT ? -CM_LIMIT : dot > CM_LIMIT ? CM_LIMIT : dot;
    int32_t p = m->squash[CM_LIMIT + dot];
    bit = cm_code(m->coder, (uint32_t)p, bit);

    /* The rate falls from 1 to 1/64. */
    int32_t error = (int32_t)(bit << 16) - p, rate = 1 + (int32_t)(m->haste[node] >> 8);
    m->haste[node] -= m->haste[node] >> 8;
    for (int k = 0; k < CM_INPUTS; k++) {
        w[k] = (int32_t)((uint32_t)w[k] + (uint32_t)((((in[k] * error) >> 12) * rate + 32) >> 6));
        uint32_t n = *c[k] & ((1u << CM_COUNT_BITS) - 1), q = *c[k] >> CM_COUNT_BITS;
        int64_t miss = (int32_t)(bit ? 0x3FFFFF - q : 0 - q);
        q += (uint32_t)(miss * m->rate[n] >> 16);
        *c[k] = q << CM_COUNT_BITS | (n < CM_COUNT_LIMIT ? n + 1 : n);
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

/* 64 log2(x), to within half a step; x >= 1. log2(1 + f) is about f + 0.344 f (1 - f). */
static int cm_log(uint32_t x)
{
    uint32_t e = 31 - (uint32_t)__builtin_clz(x), f = (x << (31 - e) & 0x7FFFFFFF) >> 15;
    f += (f * (65536 - f) >> 16) * 88 >> 8;
    return (int)(e * CM_OCTAVE + (f >> 10));
}

/*
 * cm_bytes - a tensor of elements of esize bytes that is no matrix of int8, element after element,
 * each from its highest byte, bit by bit. Contexts: which byte it is, with the byte before it in
 * the element, with the same byte of the element before, and with bits of all three.
 */
static inline void cm_bytes(struct cm_model *m, uint8_t *data, size_t nbytes, size_t esize)
{
    for (size_t i = 0; i < nbytes; i += esize, data += esize)
        for (size_t b = esize, high = 0; b-- > 0; high = data[b]) {
            size_t id = esize + b, old = i ? (data - esize)[b] : 0, node = 1;
            const size_t c[CM_INPUTS] = {id, id * 31 + 16 + high, id * 53 + 280 + old,
                                         id * 97 + high % 8 * 32 + old / 8};
            int at[CM_INPUTS];
            for (int k = 0; k < CM_INPUTS; k++)
                at[k] = (int)(c[k] % 512) * 256 - NODE_BYTE;
            for (int bit = 7; bit >= 0; bit--)
                node = node * 2 +
                       cm_bit(m, at, NODE_BYTE + (unsigned)node, (unsigned)data[b] >> bit & 1);
            data[b] = (uint8_t)node;
        }
}

/* ---- similar rows ---------------------------------------------------------------------------- */

/* Sum of a[i] * b[i] over one chunk. */
static int32_t cm_dot(const int8_t *a, const int8_t *b)
{
#ifdef __SSE2__
    __m128i sum = _mm_setzero_si128();
    for (int i = 0; i < CM_CHUNK; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(a + i));
        __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(b + i));
        __m128i x0 = _mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8);
        __m128i x1 = _mm_srai_epi16(_mm_unpackhi_epi8(x, x), 8);
        __m128i y0 = _mm_srai_epi16(_mm_unpacklo_epi8(y, y), 8);
        __m128i y1 = _mm_srai_epi16(_mm_unpackhi_epi8(y, y), 8);
        sum = _mm_add_epi32(sum, _mm_add_epi32(_mm_madd_epi16(x0, y0), _mm_madd_epi16(x1, y1)));
    }
    sum = _mm_add_epi32(sum, _mm_srli_si128(sum, 8));
    sum = _mm_add_epi32(sum, _mm_srli_si128(sum, 4));
    return _mm_cvtsi128_si32(sum);
#else
    int32_t sum = 0;
    for (int i = 0; i < CM_CHUNK; i++)
        sum += a[i] * b[i];
    return sum;
#endif
}

/*
 * Take in chunk number `chunk` of row i, which is complete: add it to the products with the rows
 * above, and choose the rows from which least squares, each alone, would predict it best. Their
 * factors are those of least squares.
 */
static void cm_search(struct cm_model *m, const struct cm_matrix *x, size_t i, size_t chunk)
{
    uint64_t score[CM_NEAR] = {0};
    const int8_t *column = x->q + chunk * CM_CHUNK, *row = column + i * x->cols;
    m->near = 0;
    for (size_t r = 0; r < i && r < CM_ROWS; r++) {
        int32_t product = (chunk ? m->product[r] : 0) + cm_dot(row, column + r * x->cols);
        uint64_t energy = m->energy[r][chunk];
        m->product[r] = product;
        if (product <= 0 || (uint64_t)product * (uint64_t)product <= score[CM_NEAR - 1] * energy)
            continue;
        uint64_t s = (uint64_t)product * (uint64_t)product / energy;
        int at = m->near < CM_NEAR ? m->near++ : CM_NEAR - 1;
        for (; at > 0 && score[at - 1] < s; at--) {
            score[at] = score[at - 1];
            m->near_row[at] = m->near_row[at - 1];
            m->factor[at] = m->factor[at - 1];
        }
        score[at] = s;
        m->near_row[at] = r;
        m->factor[at] = cm_clamp((int)(((uint64_t)product << 12) / energy), 0, 1 << 14);
    }
    if (i < CM_ROWS)
        m->energy[i][chunk] = (uint32_t)cm_dot(row, row) + (chunk ? m->energy[i][chunk - 1] : 0);
}

/* ---- int8 matrices --------------------------------------------------------------------------- */

/* The sum of the levels, compared with the sum of their sizes: 0..2 * half - 1. */
static int cm_bias(const struct cm_line *l, int half)
{
    int32_t sign = (int32_t)((uint32_t)l->sign * 64);
    return cm_clamp(sign / (int32_t)(l->sum / CM_UNIT + 16), -half, half - 1) + half;
}

/*
 * One symbol k; z is 1 when its level is k + 1/2. `predict` is what similar rows say, in units of
 * 5/16 of the expected size; it is 0 when they are not asked.
 */
static int cm_symbol(struct cm_model *m, const struct cm_matrix *x, const struct cm_line *c,
                     int at[CM_INPUTS], int predict, unsigned z, int k)
{
    unsigned base = x->shift ? NODE_COARSE : z ? NODE_HALF : NODE_WHOLE;
    unsigned minus = k < 0, size = (unsigned)(minus ? -k - (int)z : k), high = 0, node = 1;
    if (!z && !cm_bit(m, at, base, size > 0))
        return 0;

    int sign = cm_bias(c, 32);
    const int row[CM_INPUTS] = {sign, m->row.last * 3 + c->last,
                                sign / 4 + cm_bias(&m->row, 8) * 16,
                                x->similar ? predict + 20 : sign};
    int last[CM_INPUTS];
    for (int i = 0; i < CM_INPUTS; i++)
        last[i] = (CM_CONTEXTS - 2 - row[i]) * CM_NODES;
    minus = cm_bit(m, last, NODE_SIGN, minus);
    if (x->similar) /* from here on its sign counts */
        at[3] += (cm_clamp(minus ? -predict : predict, -10, 30) + 31) * CM_NODES;

    for (high = !z && !x->shift; high < 128; high++) {
        node = base + (high < NODE_UNARY_MAX - 1 ? high + 1 : NODE_UNARY_MAX);
        if (!cm_bit(m, at, node, size >> x->shift > high))
            break;
    }
    node = 1;
    for (unsigned b = x->shift; b-- > 0;)
        node = node * 2 +
               cm_bit(m, at, NODE_LOW - 1 + node + (high < 3 ? high : 3) * 7, size >> b & 1);
    k = (int)((high << x->shift) + node - (1u << x->shift));
    return minus ? -k - (int)z : k;
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

/* log2 of v against the mean of the matrix, in steps, from `first` of them below, 0..last. */
static int cm_ratio(const struct cm_matrix *x, uint32_t v, int step, int first, int last)
{
    return cm_clamp((cm_log(v | 1) - cm_log(x->mean)) / step + first, 0, last);
}

/* The contexts of an element, and its symbol. seen: rows above, and the prior's. */
static int cm_element(struct cm_model *m, const struct cm_matrix *x, struct cm_line *c,
                      uint32_t seen, int32_t sum, unsigned z, int k)
{
    int column = cm_log(c->sum | 1) - cm_log(seen), predict = 0;
    int spread = column + cm_log(m->row.sum | 1) - cm_log(m->expected | 1) + CM_OCTAVE;
    spread = cm_clamp(spread, 0, CM_SPREADS - 1);
    int context[CM_INPUTS] = {
        spread / 8,
        spread / 32 * 16 + cm_ratio(x, 4 * c->fast + x->mean, 24, 0, 15),
        cm_clamp(column / 8 + 8, 0, 127) + 128 * (int)x->class,
        cm_ratio(x, c->slow, 8, -20, 23) * 16 + cm_ratio(x, m->row.slow, 8, -24, 15),
    };
    if (x->similar) {
        int32_t size = (CM_OCTAVE + spread % CM_OCTAVE) << spread / CM_OCTAVE;
        predict = cm_clamp((2 * sum + sum / 2 + (sum < 0 ? -size : size) / 2) / size, -20, 20);
        context[3] = spread / 64 * 80 + (predict < 0 ? -predict : predict);
    }
    for (int i = 0; i < CM_INPUTS; i++)
        context[i] *= CM_NODES;
    k = cm_symbol(m, x, c, context, predict, z, k);
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

/* What the encoder tells about a matrix; then for a trellis the numbers, in the payload, of the
 * tensors that hold the flags, 12 bits each. */
static inline void cm_hints(struct cm_model *m, struct cm_matrix *x, uint32_t *rexp, uint32_t *cexp)
{
    uint32_t hints = x->mean << 19 | x->row_prior << 15 | x->col_prior << 11 | x->shift << 9 |
                     x->similar << 8 | x->class << 5 | x->bits;
    hints = cm_plain(m, 32, hints);
    x->mean = hints >> 19;
    x->mean += !x->mean;
    x->row_prior = hints >> 15 & 15;
    x->col_prior = hints >> 11 & 15;
    x->shift = hints >> 9 & 3;
    x->similar = hints >> 8 & 1 && x->cols <= CM_WIDE;
    x->class = (hints >> 5 & 7) % CM_CLASSES;
    x->bits = hints & 31;
    if (x->bits) {
        *rexp = cm_plain(m, 12, *rexp);
        *cexp = cm_plain(m, 12, *cexp);
    }
}

/* cm_matrix - walk over a matrix; rows and cols are not 0, rexp and cexp NULL or as long as they.
 */
static void cm_matrix(struct cm_model *m, const struct cm_matrix *x)
{
    struct trellis code = trellis_code(x->rexp && x->cexp ? 1u << x->bits : 0);
    for (size_t j = 0; j < CM_COLUMNS && j < x->cols; j++)
        cm_start(&m->column[j], x->mean, x->col_prior);
    int8_t *q = x->q;
    for (size_t i = 0; i < x->rows; i++) {
        cm_start(&m->row, x->mean, x->row_prior);
        m->expected = m->row.sum;
        m->near = 0;
        for (size_t j = 0; j < x->cols; j++, q++) {
            struct cm_line *c = &m->column[j % CM_COLUMNS];
            bool half = code.h0 && !step_flag(x->rexp[i]) && !step_flag(x->cexp[j]);
            unsigned state = half ? c->state : 0;
            int32_t sum = 0;
            if (x->similar && j && j % CM_CHUNK == 0)
                cm_search(m, x, i, j / CM_CHUNK - 1);
            for (int r = 0; r < m->near; r++)
                sum += m->factor[r] * x->q[m->near_row[r] * x->cols + j];
            int k = cm_element(m, x, c, (uint32_t)i + (1u << x->col_prior), sum, state & 1, *q);
            if (half)
                c->state = (uint8_t)trellis_next(code, state, k);
            *q = (int8_t)k;
        }
    }
}

#endif
