/*
 * cm_model.h - the model of the codec "cm": how likely the next bit is. Private to stub/cm_dec.c,
 * packer/cm.c and verify/html_cost.c, which must walk through it in the same steps. docs/format.md
 * describes it.
 *
 * Context mixing in the manner of Matt Mahoney's PAQ ("Adaptive weighing of context models for
 * lossless data compression", 2005): four adaptive probabilities, each chosen by another context,
 * are added up in the logistic domain with weights that are learnt as well. What the contexts are
 * made of is special: trained weights divided by their steps are Gaussian noise whose spread is, to
 * good accuracy, a factor of the row times a factor of the column. So each column and each row
 * keeps running sums of |level|, and the product of the two estimates is the main context. Prior
 * strengths of the estimates are told by the encoder, who has seen the spread of the factors. Rows
 * of an embedding resemble each other; there similar rows above, which the decoder finds by itself,
 * predict the next one.
 *
 * Integers only; sums wrap where an input drives them too far; every index is limited. Written for
 * size: a submission carries it. The file that includes this one has defined struct cm_coder and
 *
 *     static unsigned cm_code(struct cm_coder *coder, uint32_t p, unsigned bit);
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

#include "model/reader.h"
#include "model/tensor.h"
#include "stub/cm_dec.h"
#include "stub/trellis.h"

enum {
    CM_INPUTS = 4,
    CM_COUNTERS = 1 << 18, /* of each input */
    CM_COLUMNS = 1 << 14,  /* columns with sums of their own; more share them */
    CM_CHUNK = 32,         /* columns between two searches for similar rows */
    CM_NEAR = 4,           /* similar rows that predict */
    CM_ROWS = 1 << 12,     /* rows that are searched: the first of the matrix */
    CM_WIDE = 1 << 10,     /* no search in wider matrices */
    CM_KINDS = 1 << 8,     /* of tensors that are no matrices */
    CM_GOLDEN = (int)0x9E3779B1,

    /* A counter has a probability less 1/2 in its upper 22 bits and how often it was used below. */
    CM_COUNT_BITS = 10,
    CM_COUNT_LIMIT = 1020,

    CM_SCALE = 192,          /* steps of the logistic domain to a factor of e */
    CM_WEIGHT_FIRST = 16384, /* 1/4, of 65536 */

    /*
     * Decisions, "nodes": is the size of a level above 0; its sign; with n = 1, 2, 4, ..., node
     * n: is the size at least 2 n; when it is not, the bits below its leading one, each as node n +
     * t, t being what is known of the size. Nodes of sizes that are hardly ever seen are shared.
     */
    NODE_ZERO = 0,
    NODE_HALF = 80, /* added where levels are odd numbers of half steps, never 0 */
    NODE_SIGN = 127,
    NODE_BYTE = 256, /* added to what came of a byte so far, behind a leading 1 */
    CM_NODES = 512,
    CM_SPACE = 161, /* counters from one context to the next, which the last nodes reach into */

    CM_UNIT = 64, /* sums of |level in half steps| count in 1/64 */
};

/* What is known about a column or about the row so far; levels in half steps. */
struct cm_line {
    uint32_t sum;   /* CM_UNIT * |level|, a prior included */
    uint32_t slow;  /* 16 times a mean of CM_UNIT * |level| that forgets with 1/16 */
    uint32_t sign;  /* levels added up */
    uint32_t state; /* of the trellis; columns only */
};

/* A row above: its product with the current row so far; its energy up to each chunk's end. */
struct cm_above {
    int32_t product;
    uint32_t energy[CM_WIDE / CM_CHUNK];
};

/* A similar row: how well it predicts, how many elements before, and the factor, of 2^12. */
struct cm_near {
    uint64_t score;
    int32_t back;
    uint32_t factor;
};

/* What the encoder tells about a matrix before its elements, in bytes. */
enum {
    HINT_FLAGS = 0,    /* 4: where in the payload the matrix's rexp is; cexp is behind it */
    HINT_MEAN = 4,     /* 4: CM_UNIT * mean of |level in half steps| */
    HINT_ROW = 8,      /* log2 of the number of elements that the mean counts as, ... */
    HINT_COLUMN = 9,   /* ... in the sums of a row and of a column: 0 to 15 */
    HINT_SIMILAR = 10, /* 1: similar rows predict; not for more than CM_WIDE columns */
    HINT_H0 = 11,      /* of the trellis (stub/trellis.h); 0: there is none */
    HINT_H1 = 12,
    HINTS = 13,
};

/* Small things first: instructions reach them with short displacements. All begins as zero, but
 * for the tables. */
struct cm_model {
    struct cm_coder coder;
    /* The matrix: elements, their end, a row's length; with a trellis, flags of rows and columns.
     */
    int8_t *q, *end;
    size_t cols;
    const int8_t *rexp, *cexp;
    uint32_t at[2 * CM_INPUTS]; /* contexts of the next bits; those of the sign behind the others */
    struct cm_line row;
    uint32_t expected; /* what row.sum would be by the columns' means alone */
    uint8_t hint[HINTS];
    struct cm_near near[CM_NEAR];
    uint32_t like[CM_KINDS];              /* where in the payload the last tensor of each kind is */
    uint32_t weight[CM_NODES][CM_INPUTS]; /* less CM_WEIGHT_FIRST */
    struct cm_line column[CM_COLUMNS];
    struct cm_above above[CM_ROWS];
    uint32_t counter[CM_INPUTS][CM_COUNTERS];
    /* Tables; two have their negative half behind the positive one. */
    uint16_t rate[1 << 15], squash[1 << 16];
    int16_t stretch[1 << 12];
};

static unsigned cm_code(struct cm_coder *coder, uint32_t p, unsigned bit);

/* m is all zero. */
static inline void cm_init(struct cm_model *m)
{
    uint32_t s = 1u << 31; /* of 2^32; its slope is s (1 - s) */
    for (uint32_t x = 0, i = 0; x < 1 << 15; x++) {
        m->rate[x] = (uint16_t)((1 << 16) / (x + 2));
        m->squash[x] = (uint16_t)(s >> 16);
        m->squash[(uint16_t)~x] = (uint16_t)((1 << 16) - (s >> 16));
        for (; i * 16 + 8 + (1 << 15) <= s >> 16; i++) {
            m->stretch[i] = (int16_t)x;
            m->stretch[4095 - i] = (int16_t)-x;
        }
        s += (uint32_t)((uint64_t)s * (0 - s) >> 32) / CM_SCALE;
    }
}

/* One bit: in each input the counter of this node, in its context. */
static unsigned cm_bit(struct cm_model *m, size_t node, unsigned bit)
{
    uint32_t *weight = m->weight[node], *used[CM_INPUTS], *at = m->at, dot = 0;
    int32_t said[CM_INPUTS];
    if (node == NODE_SIGN)
        at += CM_INPUTS;
    for (size_t i = 0; i < CM_INPUTS; i++) {
        used[i] = m->counter[i] + (at[i] * CM_SPACE + (uint32_t)node) % CM_COUNTERS;
        said[i] = m->stretch[*used[i] >> 20];
        dot += (weight[i] + CM_WEIGHT_FIRST) * (uint32_t)said[i];
    }
    uint32_t p = m->squash[dot >> 16];
    bit = cm_code(&m->coder, p, bit);

    /* Weights of bytes, of which there are few, learn twice as fast. */
    int32_t error = (int32_t)(((bit << 16) - p) << node / NODE_BYTE);
    int32_t goal = (int32_t)(bit << 22) - (1 << 21);
    for (size_t i = 0; i < CM_INPUTS; i++) {
        uint32_t c = *used[i], n = c % (1 << CM_COUNT_BITS);
        int32_t step = ((goal - ((int32_t)c >> CM_COUNT_BITS)) >> 6) * m->rate[n] >> 10;
        *used[i] = c + ((uint32_t)step << CM_COUNT_BITS) + (n < CM_COUNT_LIMIT);
        weight[i] += (uint32_t)((said[i] * error + (1 << 16)) >> 17);
    }
    return bit;
}

/* 64 log2(x) less a constant, linear between powers of two; 0 counts as 1. */
static int cm_log(uint32_t x)
{
    int n = __builtin_clz(x |= 1);
    return (int)(x << n >> 25) - n * 64;
}

/*
 * cm_bytes - n bytes, each from its highest bit: hints, and tensors that are no matrices of int8,
 * whose elements have esize bytes. like: bytes that may be the same. Contexts: the byte there with
 * how the last three fitted; the byte before; the byte before that; both.
 */
static void cm_bytes(struct cm_model *m, uint8_t *data, size_t n, size_t esize, const uint8_t *like)
{
    static const uint32_t mask[CM_INPUTS] = {0x0000FFFF, 0x00FFF000, 0xFF00F000, 0xFFFFF000};
    uint32_t past = 0, hits = 0; /* where word has them */
    for (size_t i = 0; i < n; i++) {
        uint32_t same = like[i], node = 1;
        uint32_t word = past + hits + same + (uint32_t)(esize | (i & (esize - 1))) * 0x1000;
        for (size_t k = 0; k < CM_INPUTS; k++)
            m->at[k] = (word & mask[k]) * (uint32_t)CM_GOLDEN >> 12;
        while (node < 256) /* 24 zeros are before the 1 */
            node =
                node * 2 + cm_bit(m, NODE_BYTE + node, data[i] >> (__builtin_clz(node) - 24) & 1);
        data[i] = (uint8_t)node;
        node = (uint8_t)node;
        past = past << 8 | node << 16;
        hits = (hits * 2 + (uint32_t)(node == same) * 0x100) & 0x700;
    }
}

/*
 * cm_other - a tensor that is no matrix; its entry in the payload's table ends at table_end. It is
 * compared with the tensor before of the same size in bytes and a name with the same four last
 * letters: matrices that share their input have the same column exponents. The first one is
 * compared with the payload's beginning, others may be with more than that tensor; matrices must
 * still be zero.
 */
static inline void cm_other(struct cm_model *m, uint8_t *payload, const struct tensor_view *t,
                            size_t table_end)
{
    uint32_t kind = le32(payload + table_end - 5) + (uint32_t)t->nbytes;
    uint32_t *like = &m->like[kind * (uint32_t)CM_GOLDEN >> 24], at = (uint32_t)(t->data - payload);
    cm_bytes(m, payload + at, t->nbytes, st_dtype_size(t->dtype), payload + *like);
    *like = at;
}

/* ---- similar rows ---------------------------------------------------------------------------- */

/* Sum of a[i] * b[i] over one chunk. */
static int32_t cm_dot(const int8_t *a, const int8_t *b)
{
#ifdef __SSE2__
    __m128i sum = _mm_setzero_si128();
    for (size_t i = 0; i < CM_CHUNK; i += 8) {
        __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)(a + i));
        __m128i y = _mm_loadl_epi64((const __m128i *)(const void *)(b + i));
        x = _mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8);
        y = _mm_srai_epi16(_mm_unpacklo_epi8(y, y), 8);
        sum = _mm_add_epi32(sum, _mm_madd_epi16(x, y));
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
 * Take in the chunk of a row that ends before its column j, at q: add it to the products with the
 * rows above, and choose, of each four rows in turn, the one from which least squares, each alone,
 * would predict this row best. Their factors are those of least squares. At the start of a row
 * there are none.
 */
static inline void cm_search(struct cm_model *m, const int8_t *q, size_t j)
{
    memset(m->near, 0, sizeof m->near);
    if (j == 0)
        return;
    size_t chunk = j / CM_CHUNK - 1;
    const int8_t *to = m->q + j - CM_CHUNK, *row = q - CM_CHUNK;
    for (size_t r = 0; r < CM_ROWS; r++, to += m->cols) {
        struct cm_above *a = &m->above[r];
        struct cm_near *n = &m->near[r % CM_NEAR];
        int64_t product = (chunk ? a->product : 0) + cm_dot(row, to);
        a->product = (int32_t)product;
        if (to == row) {
            a->energy[chunk] = (uint32_t)product;
            return;
        }
        uint64_t square = (uint64_t)(product * product), energy = a->energy[chunk];
        if (product > 0 && square > n->score * energy)
            *n = (struct cm_near){square / energy, (int32_t)(row - to),
                                  (uint32_t)(product * 4096 / (int64_t)energy)};
    }
}

/* ---- int8 matrices --------------------------------------------------------------------------- */

/* The sum of the levels, compared with the sum of their sizes: -64..64. */
static int cm_bias(const struct cm_line *l)
{
    return (int32_t)(l->sign * 64) / (int32_t)(l->sum / CM_UNIT + 16);
}

static void cm_seen(struct cm_line *l, int half)
{
    uint32_t size = CM_UNIT * (uint32_t)(half < 0 ? -half : half);
    l->sum += size;
    l->slow += size - (l->slow >> 4);
    l->sign += (uint32_t)half;
}

/*
 * One symbol k; z is 1 when its level is k + 1/2. seen: rows above, and the prior's; sum: what
 * similar rows say about the level, in 2^-12.
 */
static inline int cm_element(struct cm_model *m, struct cm_line *c, uint32_t seen, uint32_t sum,
                             unsigned z, int k)
{
    uint32_t mean = c->sum / seen, *at = m->at;
    uint32_t size = (uint32_t)((uint64_t)mean * m->row.sum / (m->expected | 1));
    int column = cm_log(mean), spread = cm_log(size), predict = cm_bias(c);
    int bias = predict, row_bias = cm_bias(&m->row), near = (spread & ~31) * 2;
    m->expected += mean;
    at[0] = (uint32_t)(spread >> 3);
    at[1] = (uint32_t)(near + (cm_log(c->slow) >> 4));
    at[2] = (uint32_t)((column & ~15) * 2 + ((spread - column) >> 3 & 31));
    at[3] = (uint32_t)(near + (cm_log(m->row.slow) >> 4));
    if (m->hint[HINT_SIMILAR]) { /* in units of 5/16 of the expected size */
        predict = (int32_t)(5 * sum) / (int32_t)(64 * size + 1);
        predict = predict < -20 ? -20 : predict > 20 ? 20 : predict;
        at[3] = (uint32_t)(near + predict);
    }
    at[4] = (uint32_t)bias;
    at[5] = (uint32_t)row_bias;
    at[6] = (uint32_t)((bias >> 2) + (row_bias >> 2) * 32);
    at[7] = (uint32_t)predict;

    unsigned minus = k < 0, n = 1, node = 1;
    size = (uint32_t)(minus ? -k : k + (int)z);
    k = 0;
    if (z || cm_bit(m, NODE_ZERO, size > 0)) {
        minus = cm_bit(m, NODE_SIGN, minus);
        if (m->hint[HINT_SIMILAR])
            at[3] = (uint32_t)(near + (minus ? -predict : predict));
        unsigned base = z * NODE_HALF;
        while (n < 128 && cm_bit(m, base + n, size >= 2 * n))
            n *= 2;
        for (unsigned low = n / 2; node < n; low /= 2)
            node = node * 2 + cm_bit(m, base + n + (node < 8 ? node : 8), (size & low) != 0);
        k = minus ? -(int)node : (int)(node - z);
    }
    cm_seen(&m->row, 2 * k + (int)z);
    cm_seen(c, 2 * k + (int)z);
    return k;
}

/* Whether a tensor is coded element by element; all others byte by byte. */
static bool cm_is_matrix(const struct tensor_view *t)
{
    return t->dtype == ST_I8 && t->ndim >= 2;
}

/* cm_matrix - walk over the matrix, whose hints are known. */
static void cm_matrix(struct cm_model *m)
{
    uint32_t mean = le32(m->hint + HINT_MEAN), seen = 1u << m->hint[HINT_COLUMN];
    struct cm_line first = {.sum = mean * seen, .slow = mean << 4};
    const int8_t *rexp = m->rexp;
    for (size_t j = 0; j < CM_COLUMNS && (IN_RUNNER || j < m->cols); j++)
        m->column[j] = first;
    first.sum = mean << m->hint[HINT_ROW];
    for (int8_t *q = m->q; q < m->end; seen++, rexp++) {
        m->row = first;
        m->expected = first.sum;
        for (size_t j = 0; j < m->cols; j++, q++) {
            struct cm_line *c = &m->column[j % CM_COLUMNS];
            bool half = m->hint[HINT_H0] && !step_flag((int8_t)(*rexp | m->cexp[j]));
            unsigned z = half ? c->state & 1 : 0;
            uint32_t sum = 0;
            if (m->hint[HINT_SIMILAR]) {
                if (j % CM_CHUNK == 0)
                    cm_search(m, q, j);
                for (size_t r = 0; r < CM_NEAR; r++) {
                    int level = q[-m->near[r].back];
                    sum += m->near[r].factor * (uint32_t)level;
                }
            }
            int k = cm_element(m, c, seen, sum, z, *q);
            if (half)
                c->state =
                    trellis_next((struct trellis){m->hint[HINT_H0], m->hint[HINT_H1]}, c->state, k);
            *q = (int8_t)k;
        }
    }
}

/* ---- streams --------------------------------------------------------------------------------- */

/* Stream s of a file: its bytes, and the part of the payload whose matrices it has. */
struct cm_part {
    const uint8_t *in, *end;
    size_t from, to;
    bool others; /* everything that is no matrix */
};

static inline struct cm_part cm_part(const struct cm_file *f, size_t s)
{
    struct cm_part p = {.end = f->parts, .others = s == f->streams};
    for (size_t i = 0; i <= s; i++) {
        p.from = p.to;
        p.to = le32(p.end);
        p.in = p.end + 8;
        p.end = p.in + le32(p.end + 4);
    }
    return p;
}

/* What a damaged stream could do harm with; a runner does not look. */
static inline void cm_settle(struct cm_model *m, const struct cm_file *f,
                             const struct tensor_view *t)
{
    size_t flags = le32(m->hint + HINT_FLAGS);
    m->hint[HINT_ROW] &= 15;
    m->hint[HINT_COLUMN] &= 15;
    if (m->cols > CM_WIDE)
        m->hint[HINT_SIMILAR] = 0;
    if (t->ndim > 2 || flags < f->matrices_end || flags > f->raw_size ||
        t->shape[0] + m->cols > f->raw_size - flags)
        m->hint[HINT_H0] = 0;
    if (!m->hint[HINT_H0])
        put_le32(m->hint + HINT_FLAGS, 0);
}

/* cm_tensor - what a decoder does with a tensor if the stream has it. True when it has. */
static inline bool cm_tensor(struct cm_model *m, const struct cm_file *f, const struct cm_part *p,
                             const struct tensor_view *t, size_t table_end)
{
    size_t at = (size_t)(t->data - f->payload);
    if (!cm_is_matrix(t)) {
        if (p->others)
            cm_other(m, f->payload, t, table_end);
        return p->others;
    }
    if (at - p->from >= p->to - p->from)
        return false;
    cm_bytes(m, m->hint, HINTS, 1, m->hint);
    m->q = (int8_t *)f->payload + at;
    m->end = m->q + t->nbytes;
    m->cols = t->shape[t->ndim - 1];
    if (!IN_RUNNER)
        cm_settle(m, f, t);
    m->rexp = (const int8_t *)f->payload + le32(m->hint + HINT_FLAGS);
    m->cexp = m->rexp + t->shape[0];
    cm_matrix(m);
    return true;
}

#endif
