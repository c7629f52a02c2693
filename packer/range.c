/*
 * range.c - coded_range of codec.h: the encoder to stub/weights_dec.c.
 *
 * The symbols go through packer/range_out.h.
 */
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/codec.h"
#include "packer/range_out.h"
#include "stub/range_model.h"
#include "stub/weights_dec.h"

static unsigned write_symbol(void *coder, const struct freq *f, unsigned symbol)
{
    struct range_out *c = coder;
    uint32_t unit = c->range >> RANGE_TOTAL_BITS;
    c->low += (uint64_t)f->below[symbol] * unit;
    c->range = (f->below[symbol + 1] - f->below[symbol]) * unit;
    range_normalise(c);
    return symbol;
}

/* Lowest and highest symbol (q + 128) of int8 data. */
static void bounds(const struct tensor_view *t, unsigned *lo, unsigned *hi)
{
    *lo = 255;
    *hi = 0;
    for (size_t i = 0; i < t->nbytes; i++) {
        unsigned s = t->data[i] ^ 128u;
        *lo = s < *lo ? s : *lo;
        *hi = s > *hi ? s : *hi;
    }
}

/* All tensor data of the payload; c->out and c->cap are set. False when the payload is not sound.
 */
static bool encode(struct range_out *c, uint8_t *payload, size_t n, struct range_model *m)
{
    struct weights_cursor cur;
    struct tensor_view t;
    unsigned lo, hi;
    range_model_init(m);
    weights_open(&cur, payload, n);
    while (weights_next(&cur, &t)) {
        bounds(&t, &lo, &hi);
        range_tensor(m, &t, payload + (t.data - payload), lo, hi, write_symbol, c);
    }
    range_finish(c);
    return !cur.bad;
}

enum err_code coded_range(struct coded *c, const void *raw, size_t n, struct err *e)
{
    enum err_code rc = ERR_OK;
    struct coded head = {0};
    struct weights_cursor cur;
    uint8_t *copy = malloc(n + 1), *out = NULL; /* the walk writes what it reads */
    void *work = malloc(WEIGHTS_WORK);
    memset(c, 0, sizeof *c);
    if (!copy || !work) {
        rc = err_nomem(e, "range coder", n);
        goto out;
    }
    memcpy(copy, raw, n);
    weights_open(&cur, copy, n);
    if (cur.bad) {
        rc = err_set(e, ERR_INPUT, "range coder: this is no weight payload");
        goto out;
    }
    rc = coded_lzma(&head, raw, cur.table_end, LZMA_SEARCH, false, e);
    if (rc)
        goto out;

    enum { SIZES = 8 };
    size_t before = SIZES + head.size, cap = before + n + n / 8 + 64;
    out = malloc(cap);
    if (!out) {
        rc = err_nomem(e, "range coder", cap);
        goto out;
    }
    put_le32(out, (uint32_t)head.raw_size);
    put_le32(out + 4, (uint32_t)head.size);
    memcpy(out + SIZES, head.data, head.size);
    struct range_out enc = {.out = out, .size = before, .cap = cap, .range = UINT32_MAX, .run = 1};
    bool sound = encode(&enc, copy, n, work) && enc.size <= cap;

    memcpy(c->params, head.params, sizeof c->params);
    c->codec = CODEC_RANGE;
    c->size = enc.size;
    c->raw_size = n;
    if (!sound || !weights_decode(CODEC_RANGE, c->params, out, enc.size, copy, n, work) ||
        memcmp(copy, raw, n)) {
        rc = err_set(e, ERR_INPUT, "range coder: the payload does not survive the round trip");
        goto out;
    }
    c->data = out;
    out = NULL;
out:
    coded_free(&head);
    free(copy);
    free(out);
    free(work);
    return rc;
}
