/* weights_dec.c - see weights_dec.h. */
#include "stub/weights_dec.h"

#include <string.h>

#include "kernels/cpu/pool.h"
#include "kernels/err.h"
#include "model/reader.h"
#ifndef WEIGHTS_CM_ONLY
#include "stub/lzma_dec.h"
#include "stub/range_model.h"

_Static_assert(sizeof(struct range_model) <= CM_WORK && sizeof(struct lzma) <= CM_WORK,
               "weights_dec.h promises that this much workspace is enough");
#endif

/* ---- tensors in a payload ------------------------------------------------------------------- */

void weights_open(struct weights_cursor *c, const uint8_t *payload, size_t raw_size)
{
    c->payload = payload;
    if (!IN_RUNNER) {
        *c = (struct weights_cursor){.payload = payload, .end = raw_size};
        c->bad = raw_size < WT_TABLE || le32(payload + WT_TABLE_SIZE) > raw_size - WT_TABLE;
        if (c->bad)
            return;
    }
    c->left = le32(payload + WT_COUNT);
    c->table = WT_TABLE;
    c->data = c->table_end = WT_TABLE + le32(payload + WT_TABLE_SIZE);
}

/* Fill *t from the next table entry, but for the data. False when the entry is not sound. */
static bool next_entry(struct weights_cursor *c, struct tensor_view *t)
{
    struct reader r = reader_init(c->payload + c->table, c->table_end - c->table);
    t->dtype = (enum st_dtype)reader_u8(&r);
    t->ndim = reader_u8(&r);
    t->nbytes = st_dtype_size(t->dtype);
    if (!IN_RUNNER && (t->nbytes == 0 || t->ndim > TENSOR_MAX_DIMS))
        return false;
    for (size_t i = 0; i < TENSOR_MAX_DIMS; i++) {
        t->shape[i] = i < t->ndim ? reader_u32(&r) : 1;
        if (!IN_RUNNER && t->shape[i] && t->nbytes > c->end / t->shape[i])
            return false;
        t->nbytes *= t->shape[i];
    }
    t->name = (const char *)r.at;
    size_t length = 0;
    while (reader_u8(&r))
        length++;
    c->table = (size_t)(r.at - c->payload);
    return IN_RUNNER || (!r.bad && length > 0 && length <= WT_NAME_MAX);
}

bool weights_next(struct weights_cursor *c, struct tensor_view *t)
{
    if (!IN_RUNNER && c->bad)
        return false;
    if (c->left == 0) {
        if (!IN_RUNNER)
            c->bad = c->table != c->table_end || c->data != c->end;
        return false;
    }
    c->left--;
    if (!next_entry(c, t)) {
        c->bad = true;
        return false;
    }
    for (size_t esize = st_dtype_size(t->dtype); c->data & (esize - 1); c->data++)
        if (!IN_RUNNER && (c->data >= c->end || c->payload[c->data] != 0)) {
            c->bad = true;
            return false;
        }
    if (!IN_RUNNER && t->nbytes > c->end - c->data) {
        c->bad = true;
        return false;
    }
    t->data = c->payload + c->data;
    c->data += t->nbytes;
    return true;
}

/* ---- head of the range and the cm codec ------------------------------------------------------ */

/* A stream of the codec "code". A runner has no code_dec. */
static bool decode_code(uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n, void *work)
{
    if (IN_RUNNER)
        return code_unpack(out, out_n, in, in_n);
    memset(work, 0, CODE_WORK);
    return code_dec(work, out, out_n, in, in_n) == 0;
}

/*
 * u32 raw size and u32 stored size of the head (the payload up to the end of the table), then the
 * head: a stream of the codec "code", or, where params has lc, lp, pb of one, an LZMA stream. The
 * rest of the payload becomes zero.
 */
static bool decode_head(struct reader *r, const uint8_t *params, uint8_t *payload, size_t raw_size,
                        void *work)
{
    uint32_t head_raw = reader_u32(r), head_size = reader_u32(r);
    const uint8_t *head = reader_take(r, head_size);
    struct weights_cursor c;
    if (!IN_RUNNER && (r->bad || head_raw > raw_size || head_raw < WT_TABLE))
        return false;
#ifdef WEIGHTS_CM_ONLY
    (void)params;
    bool good = decode_code(payload, head_raw, head, head_size, work);
#else
    bool good = le64(params)
                    ? lzma_dec(work, payload, head_raw, head, head_size, le32(params)) == head_size
                    : decode_code(payload, head_raw, head, head_size, work);
#endif
    for (size_t i = head_raw; i < raw_size && !IN_RUNNER; i++)
        payload[i] = 0; /* padding; fresh in a runner */
    if (IN_RUNNER)
        return true;
    weights_open(&c, payload, raw_size);
    return good && !c.bad && c.table_end == head_raw;
}

#ifndef WEIGHTS_CM_ONLY
/* ---- range codec ---------------------------------------------------------------------------- */

struct range_dec {
    const uint8_t *in, *end; /* in may run past end: the bytes there are zero and never touched */
    uint32_t range, code;
};

static void shift_in(struct range_dec *d)
{
    d->code = d->code << 8 | (d->in < d->end ? *d->in : 0);
    d->in++;
}

static unsigned read_symbol(void *coder, const struct freq *f, unsigned unused)
{
    struct range_dec *d = coder;
    (void)unused;
    uint32_t unit = d->range >> RANGE_TOTAL_BITS, value = d->code / unit;
    if (value >> RANGE_TOTAL_BITS) /* the remainder of the division; encoders never go there */
        value = (1u << RANGE_TOTAL_BITS) - 1;
    uint32_t symbol = f->first[value >> 8];
    while (f->below[symbol + 1] <= value)
        symbol++;
    d->code -= f->below[symbol] * unit;
    d->range = (f->below[symbol + 1] - f->below[symbol]) * unit;
    for (; d->range < 1u << 24; d->range <<= 8)
        shift_in(d);
    return symbol;
}

/* Behind the head the data of all tensors through the range coder. */
static bool decode_range(const uint8_t *params, const uint8_t *in, size_t in_n, uint8_t *payload,
                         size_t raw_size, void *work)
{
    struct reader r = reader_init(in, in_n);
    struct weights_cursor c;
    struct tensor_view t;
    if (!decode_head(&r, params, payload, raw_size, work))
        return false;

    struct range_model *m = work;
    struct range_dec d = {.in = r.at, .end = r.end, .range = UINT32_MAX};
    range_model_init(m);
    weights_open(&c, payload, raw_size);
    for (int i = 0; i < 4; i++)
        shift_in(&d);
    while (weights_next(&c, &t))
        range_tensor(m, &t, payload + (t.data - payload), 0, 0, read_symbol, &d);
    return !c.bad && d.in == d.end;
}

#endif

/* ---- cm codec ------------------------------------------------------------------------------- */

#include "stub/cm_dec.c"

static bool decode_cm(struct pool *pool, const uint8_t *params, const uint8_t *in, size_t in_n,
                      uint8_t *payload, size_t raw_size, void *work)
{
    struct cm_file f;
    if (!cm_open(&f, params, in, in_n, payload, raw_size, work))
        return false;
    for (size_t s = f.streams; s > 0; s--) {
        if (pool) {
            pool_run(pool, cm_stream, &f, s);
            break;
        }
        cm_stream(&f, s - 1, 0);
    }
    bool good = true;
    for (size_t s = 0; !IN_RUNNER && s < f.streams; s++)
        good = good && f.good[s];
    return good;
}

bool weights_decode_on(struct pool *pool, uint32_t codec, const uint8_t *params, const uint8_t *in,
                       size_t in_n, uint8_t *payload, size_t raw_size, void *work)
{
#if defined(RUNNER) && defined(WEIGHTS_CM_ONLY) /* which has no other than this */
    (void)codec;
    return decode_cm(pool, params, in, in_n, payload, raw_size, work);
#else
    switch (codec) {
    case CODEC_NONE:
        for (size_t i = 0; i < raw_size && in_n == raw_size; i++)
            payload[i] = in[i];
        return in_n == raw_size;
#ifndef WEIGHTS_CM_ONLY
    case CODEC_LZMA:
        return lzma_dec(work, payload, raw_size, in, in_n, le32(params)) == in_n;
    case CODEC_RANGE:
        return decode_range(params, in, in_n, payload, raw_size, work);
#endif
    case CODEC_CM:
        return decode_cm(pool, params, in, in_n, payload, raw_size, work);
    default:
        return false;
    }
#endif
}
