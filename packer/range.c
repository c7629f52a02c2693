/*
 * range.c - coded_range of codec.h: the encoder to stub/weights_dec.c.
 *
 * A range coder with 32 bits. `low` needs one bit more for the carry, which may still change bytes
 * that are decided otherwise: the last such byte is held back, with the 0xFF bytes after it that a
 * carry would run through. After the coder in Igor Pavlov's LZMA SDK (public domain).
 */
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/codec.h"
#include "stub/range_model.h"
#include "stub/weights_dec.h"

struct range_enc {
    uint8_t *out;
    size_t size, cap; /* size may exceed cap: then nothing more is stored */
    uint64_t low;
    uint32_t range;
    uint8_t held;
    size_t run; /* bytes held back: `held` and run - 1 bytes 0xFF */
    bool begun; /* the first byte held is a 0 before the stream, which is left out */
};

static void put(struct range_enc *c, uint8_t byte)
{
    if (c->begun && c->size < c->cap)
        c->out[c->size] = byte;
    c->size += c->begun;
    c->begun = true;
}

static void shift_out(struct range_enc *c)
{
    if (c->low < 0xFF000000u || c->low > UINT32_MAX) {
        uint8_t carry = (uint8_t)(c->low >> 32);
        put(c, (uint8_t)(c->held + carry));
        for (; c->run > 1; c->run--)
            put(c, (uint8_t)(0xFF + carry));
        c->held = (uint8_t)(c->low >> 24);
        c->run = 0;
    }
    c->run++;
    c->low = (c->low & 0x00FFFFFF) << 8;
}

static unsigned write_symbol(void *coder, const struct freq *f, unsigned symbol)
{
    struct range_enc *c = coder;
    uint32_t unit = c->range >> RANGE_TOTAL_BITS;
    c->low += (uint64_t)f->below[symbol] * unit;
    c->range = (f->below[symbol + 1] - f->below[symbol]) * unit;
    for (; c->range < 1u << 24; c->range <<= 8)
        shift_out(c);
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
static bool encode(struct range_enc *c, uint8_t *payload, size_t n, struct range_model *m)
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
    for (int i = 0; i < 5; i++)
        shift_out(c);
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
    struct range_enc enc = {.out = out, .size = before, .cap = cap, .range = UINT32_MAX, .run = 1};
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
