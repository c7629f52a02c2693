/*
 * code.c - see code.h.
 *
 * The arithmetic coder keeps an interval [low, low + range) of 32 bits and narrows it bit by bit.
 * Whenever range falls below 2^24, the highest byte of low is settled but for a carry, which may
 * still run into the bytes already written.
 */
#include "packer/code.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "stub/code_dec.c" /* the decoder of packer and verify */
#include "stub/code_model.h"

struct range_enc {
    uint8_t *out;
    size_t n;
    uint64_t low; /* below 2^33: bit 32 is a carry */
    uint32_t range;
};

static void shift_out(struct range_enc *r)
{
    if (r->low >> 32)
        for (size_t i = r->n; ++r->out[--i] == 0;)
            ;
    r->out[r->n++] = (uint8_t)(r->low >> 24);
    r->low = (uint32_t)r->low << 8;
}

static void put_bit(struct range_enc *r, uint32_t p, uint32_t bit)
{
    for (; r->range < 1u << 24; r->range <<= 8)
        shift_out(r);
    uint32_t below = (uint32_t)((uint64_t)r->range * p >> 32);
    r->low += bit ? 0 : below;
    r->range = bit ? below : r->range - below;
}

/* What coding a bit of that probability takes, in bits. */
static double bits_of(uint32_t p, uint32_t bit)
{
    return -log2((bit ? p : 0x1p32 - p) * 0x1p-32);
}

/* cost: NULL, or the bits that each byte takes. data is changed on the way: distances of calls
 * become targets. A bit costs at most 16 bits (the ends of the logistic curve), so out has room for
 * 16 n + 8 bytes. */
static size_t encode(uint8_t *out, struct code_model *m, uint8_t *data, size_t n, float *cost)
{
    /* The decoder starts with three bytes in a range of 2^24: the byte above them is always 0 and
     * left out. It is written to out[0], and the stream begins at out[1]. */
    struct range_enc r = {.out = out, .range = 1u << 24};
    code_init(m);
    for (size_t i = 0; i < n; i++) {
        double bits = 0;
        for (int b = 7; b >= 0; b--) {
            uint32_t bit = data[i] >> b & 1, p = code_predict(m);
            put_bit(&r, p, bit);
            code_learn(m, bit);
            bits += cost ? bits_of(p, bit) : 0;
        }
        if (cost)
            cost[i] = (float)bits;
        code_next_byte(m);
        /* four bytes of a call or a jump come, and then the decoder will see their end */
        if (m->v[V_STATE] == 4 && (m->v[V_OPCODE] | 1) == 0xE9 && n - i > 4)
            put_le32(data + i + 1, le32(data + i + 1) + (uint32_t)(i + 5));
    }
    for (int i = 0; i < 4; i++)
        shift_out(&r);
    return r.n;
}

enum err_code coded_code(struct coded *c, const void *raw, size_t n, struct err *e)
{
    return code_costs(c, NULL, raw, n, e);
}

enum err_code code_costs(struct coded *c, float *cost, const void *raw, size_t n, struct err *e)
{
    enum err_code rc = ERR_OK;
    uint8_t *data = malloc(n), *out = malloc(16 * n + 8), *work = calloc(1, CODE_WORK);
    size_t size;
    memset(c, 0, sizeof *c);
    if (!data || !out || !work) {
        rc = err_nomem(e, "code codec", CODE_WORK);
        goto out;
    }
    memcpy(data, raw, n);
    size = encode(out, (struct code_model *)(void *)work, data, n, cost) - 1;
    memmove(out, out + 1, size);
    free(work);
    work = calloc(1, CODE_WORK); /* fresh zeros, most of which are never touched */
    if (!work) {
        rc = err_nomem(e, "code codec", CODE_WORK);
        goto out;
    }
    if (code_dec(work, data, n, out, size) || memcmp(data, raw, n)) {
        rc = err_set(e, ERR_RESOURCE, "code: the round trip failed");
        goto out;
    }
    c->codec = CODEC_CODE;
    c->size = size;
    c->raw_size = n;
    c->data = out;
    out = NULL;
out:
    free(data);
    free(out);
    free(work);
    return rc;
}
