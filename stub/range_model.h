/*
 * range_model.h - the model of the range codec: which symbols are likely next. Private to
 * stub/weights_dec.c and packer/range.c, which must walk through it in the same steps.
 *
 * Trained weights, divided by the scale of their row, are close to Gaussian noise; what is left to
 * gain is their spread, which differs between columns and a little along a row (docs/format.md has
 * measurements). So an int8 matrix is coded element by element with adaptive frequencies, chosen by
 * two running means of |q|: of the column so far and of the row so far. Everything else is coded
 * byte by byte, one set of frequencies for each byte of an element.
 *
 * Integers only; encoder and decoder see the same numbers on every machine.
 */
#ifndef STUB_RANGE_MODEL_H
#define STUB_RANGE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "model/tensor.h"

enum {
    RANGE_TOTAL_BITS = 16, /* frequencies of a set add up to 2^16 */
    FREQ_INC = 16,         /* weight of one symbol seen, in counts */
    FREQ_CAP = 1 << 22,    /* counts are halved above this sum: a memory of 2^18 symbols */
    FREQ_PRIOR = 8192,     /* what a set keeps at most, from earlier tensors: 512 symbols */
    FREQ_STEP_FIRST = 8,   /* frequencies are recomputed after 8, 16, ... 2048, 2048, ... symbols */
    FREQ_STEP_LAST = 2048,

    /* Buckets of a mean m of |q|, half an octave each: about 2 log2(4 m + 1), 0..17 for m <= 128 */
    BUCKETS = 18,
    COLUMNS = 1 << 14,  /* columns with a mean of their own; more share them */
    COLUMN_REFRESH = 8, /* rows between two computations of the column buckets */
    ROW_SHIFT = 7,      /* the row's mean forgets with 1/128 per element */
    MEAN_BITS = 16,     /* fraction bits of means: more than ROW_SHIFT, or it would not settle */

    SET_MATRIX = 0,                            /* [column bucket][row bucket] */
    SET_BYTE = SET_MATRIX + BUCKETS * BUCKETS, /* [element size - 1 + byte number] */
    SET_BOUND = SET_BYTE + 15,                 /* lowest and highest symbol of a matrix */
    SETS = SET_BOUND + 1,
};

/* Adaptive frequencies of the symbols lo..hi. */
struct freq {
    uint32_t count[256], sum; /* sum over lo..hi */
    uint32_t below[257];      /* frequencies of all symbols before this one; below[hi + 1] = 2^16 */
    uint8_t first[256];       /* the symbol that the value 256 * i belongs to */
    uint32_t lo, hi;
    uint32_t step, until; /* symbols until the next computation */
    uint32_t tensor;      /* the last matrix that used it */
};

struct range_model {
    struct freq set[SETS];
    uint32_t tensor;          /* matrices so far */
    uint32_t column[COLUMNS]; /* sum of |q| so far */
    uint8_t bucket[COLUMNS];
};

/* How the walk below codes one symbol: an encoder writes `symbol` and returns it, a decoder ignores
 * it and returns the one it read. */
typedef unsigned range_symbol(void *coder, const struct freq *f, unsigned symbol);

/* Counts add up to at most `most`, and each symbol of lo..hi keeps at least 1. */
static inline void freq_limit(struct freq *f, uint32_t most)
{
    uint32_t had = 0;
    for (uint32_t s = f->lo; s <= f->hi; s++)
        had += f->count[s];
    f->sum = 0;
    for (uint32_t s = f->lo; s <= f->hi; s++) {
        if (had > most)
            f->count[s] = (uint32_t)((uint64_t)f->count[s] * most / had) | 1;
        f->sum += f->count[s];
    }
}

/* Frequencies from counts: 1 for every symbol, so that each can be coded, the rest in proportion.
 */
static inline void freq_compute(struct freq *f)
{
    uint32_t spread = (1u << RANGE_TOTAL_BITS) - (f->hi - f->lo + 1), sum = 0, slot = 0;
    f->below[f->lo] = 0;
    for (uint32_t s = f->lo; s <= f->hi; s++) {
        sum += f->count[s];
        f->below[s + 1] = s + 1 - f->lo + (uint32_t)((uint64_t)sum * spread / f->sum);
        for (; slot << 8 < f->below[s + 1]; slot++)
            f->first[slot] = (uint8_t)s;
    }
    f->until = f->step;
}

/* A new tensor with symbols lo..hi. What was learnt stays as a start, light enough to be overruled.
 */
static inline void freq_start(struct freq *f, uint32_t lo, uint32_t hi)
{
    f->lo = lo;
    f->hi = hi;
    f->step = FREQ_STEP_FIRST;
    freq_limit(f, FREQ_PRIOR);
    freq_compute(f);
}

static inline void freq_seen(struct freq *f, uint32_t symbol)
{
    f->count[symbol] += FREQ_INC;
    f->sum += FREQ_INC;
    if (--f->until)
        return;
    if (f->sum > FREQ_CAP)
        freq_limit(f, FREQ_CAP / 2);
    if (f->step < FREQ_STEP_LAST)
        f->step *= 2;
    freq_compute(f);
}

static inline void range_model_init(struct range_model *m)
{
    m->tensor = 0;
    for (int i = 0; i < SETS; i++) {
        m->set[i].tensor = 0;
        for (int s = 0; s < 256; s++)
            m->set[i].count[s] = 1;
        freq_start(&m->set[i], 0, 255);
    }
}

/* Bucket of a mean with MEAN_BITS of fraction: the exponent and the first bit after it of 4 m + 1.
 */
static inline uint32_t mean_bucket(uint64_t mean)
{
    uint32_t x = (uint32_t)(mean >> (MEAN_BITS - 2)) + 1;
    uint32_t log = 31 - (uint32_t)__builtin_clz(x);
    uint32_t bucket = 2 * log + (log && (x >> (log - 1) & 1));
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static inline unsigned range_step(struct freq *f, unsigned symbol, range_symbol *code, void *coder)
{
    symbol = code(coder, f, symbol);
    freq_seen(f, symbol);
    return symbol;
}

/*
 * range_matrix - walk over one int8 matrix, data[rows][cols]; a symbol is q + 128. lo and hi, the
 * lowest and the highest symbol, are for the encoder to know and for the decoder to be told.
 */
static inline void range_matrix(struct range_model *m, uint8_t *data, size_t rows, size_t cols,
                                unsigned lo, unsigned hi, range_symbol *code, void *coder)
{
    lo = range_step(&m->set[SET_BOUND], lo, code, coder);
    hi = range_step(&m->set[SET_BOUND], hi, code, coder);
    if (hi < lo)
        hi = lo; /* damaged; go on with something possible */
    m->tensor++;
    for (size_t j = 0; j < cols && j < COLUMNS; j++)
        m->column[j] = m->bucket[j] = 0;

    /* Columns that share a mean are counted as full shares; mean_bucket bears the small excess. */
    size_t shared = cols > COLUMNS ? cols / COLUMNS : 1;
    uint32_t mean = 8 << MEAN_BITS; /* of the row; the next row starts where this one ended */
    for (size_t i = 0; i < rows; i++) {
        if (i && (i < COLUMN_REFRESH || i % COLUMN_REFRESH == 0))
            for (size_t j = 0; j < cols && j < COLUMNS; j++)
                m->bucket[j] =
                    (uint8_t)mean_bucket(((uint64_t)m->column[j] << MEAN_BITS) / (i * shared));
        for (size_t j = 0; j < cols; j++, data++) {
            size_t column = j % COLUMNS;
            struct freq *f = &m->set[SET_MATRIX] + BUCKETS * m->bucket[column] + mean_bucket(mean);
            if (f->tensor != m->tensor) { /* here and not for all sets: most matrices use few */
                f->tensor = m->tensor;
                freq_start(f, lo, hi);
            }
            unsigned symbol = range_step(f, *data ^ 128u, code, coder);
            uint32_t size = symbol < 128 ? 128 - symbol : symbol - 128;
            *data = (uint8_t)(symbol ^ 128);
            m->column[column] += size;
            mean += (size << (MEAN_BITS - ROW_SHIFT)) - (mean >> ROW_SHIFT);
        }
    }
}

/* range_tensor - walk over any tensor. A matrix is int8 with two dimensions or more, the last one
 * its columns. */
static inline void range_tensor(struct range_model *m, const struct tensor_view *t, uint8_t *data,
                                unsigned lo, unsigned hi, range_symbol *code, void *coder)
{
    size_t esize = st_dtype_size(t->dtype);
    if (t->dtype == ST_I8 && t->ndim >= 2) {
        size_t cols = t->shape[t->ndim - 1];
        if (t->nbytes)
            range_matrix(m, data, t->nbytes / cols, cols, lo, hi, code, coder);
        return;
    }
    for (size_t i = 0; i < t->nbytes; i++)
        data[i] =
            (uint8_t)range_step(&m->set[SET_BYTE + esize - 1 + i % esize], data[i], code, coder);
}

#endif
