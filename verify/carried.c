/* carried.c - see carried.h. */
#include "verify/carried.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"

enum { BYTES = 2 * CARRIED_BLOCK, FILTER_BITS = 24 };

/* Of the polynomial hash: odd, so that no byte's weight vanishes modulo 2^64. */
#define BASE 0x9e3779b97f4a7c15u

static uint64_t hash_of(const uint8_t *p)
{
    uint64_t h = 0;
    for (size_t i = 0; i < BYTES; i++)
        h = h * BASE + p[i];
    return h;
}

/* The low bits of such a hash depend on the low bits of the bytes alone; these depend on all. */
static uint64_t spread(uint64_t h)
{
    h ^= h >> 32;
    return h * 0xd6e8feb86659fd93u;
}

static bool varied(const uint16_t *tok)
{
    size_t distinct = 0;
    for (size_t i = 0; i < CARRIED_BLOCK && distinct < CARRIED_DISTINCT; i++) {
        size_t k = 0;
        while (k < i && tok[k] != tok[i])
            k++;
        distinct += k == i;
    }
    return distinct >= CARRIED_DISTINCT;
}

static void block_bytes(uint8_t out[BYTES], const uint16_t *tok)
{
    for (size_t i = 0; i < CARRIED_BLOCK; i++) {
        out[2 * i] = (uint8_t)tok[i];
        out[2 * i + 1] = (uint8_t)(tok[i] >> 8);
    }
}

enum err_code carried_open(struct carried_index *x, const uint16_t *tok, size_t n, struct err *e)
{
    size_t blocks = n / CARRIED_BLOCK, slots = 2;
    unsigned log = 1;
    *x = (struct carried_index){.tok = tok, .n = n};
    while (slots < 2 * blocks) {
        slots *= 2;
        log++;
    }
    x->shift = 64 - log;
    x->slot = calloc(slots, sizeof *x->slot);
    x->filter = calloc(1, (size_t)1 << (FILTER_BITS - 3));
    if (!x->slot || !x->filter) {
        carried_close(x);
        return err_nomem(e, "the index of the stream", slots * sizeof *x->slot);
    }
    for (size_t b = 0; b < blocks; b++) {
        uint8_t bytes[BYTES];
        if (!varied(tok + b * CARRIED_BLOCK))
            continue;
        block_bytes(bytes, tok + b * CARRIED_BLOCK);
        uint64_t h = spread(hash_of(bytes));
        size_t at = (size_t)(h >> x->shift), bit = (size_t)(h & (((size_t)1 << FILTER_BITS) - 1));
        while (x->slot[at]) /* half of the slots stay empty */
            at = (at + 1) & (slots - 1);
        x->slot[at] = (uint32_t)b + 1;
        x->filter[bit >> 3] |= (uint8_t)(1u << (bit & 7));
    }
    return ERR_OK;
}

void carried_close(struct carried_index *x)
{
    free(x->slot);
    free(x->filter);
    *x = (struct carried_index){0};
}

/* The token number of a block with these bytes; SIZE_MAX when there is none. */
static size_t find(const struct carried_index *x, const uint8_t *p, uint64_t h)
{
    size_t bit = (size_t)(h & (((size_t)1 << FILTER_BITS) - 1));
    if (!(x->filter[bit >> 3] >> (bit & 7) & 1))
        return SIZE_MAX;
    size_t mask = ((size_t)1 << (64 - x->shift)) - 1;
    for (size_t at = (size_t)(h >> x->shift); x->slot[at]; at = (at + 1) & mask) {
        size_t from = (size_t)(x->slot[at] - 1) * CARRIED_BLOCK;
        uint8_t bytes[BYTES];
        block_bytes(bytes, x->tok + from);
        if (!memcmp(bytes, p, BYTES))
            return from;
    }
    return SIZE_MAX;
}

struct carried carried_scan(const struct carried_index *x, const uint8_t *data, size_t bytes)
{
    struct carried c = {0};
    uint64_t out = 1; /* BASE^BYTES: what a byte weighs when it leaves the window */
    for (size_t i = 0; i < BYTES; i++)
        out *= BASE;
    if (bytes < BYTES)
        return c;
    uint64_t h = hash_of(data);
    for (size_t at = 0, done = 0;; at++) { /* data before `done` belongs to a run already */
        size_t from = at < done ? SIZE_MAX : find(x, data + at, spread(h));
        if (from != SIZE_MAX) {
            size_t before = 0, run = CARRIED_BLOCK;
            while (before < from && at - done >= 2 * (before + 1) &&
                   le16(data + at - 2 * (before + 1)) == x->tok[from - before - 1])
                before++;
            while (from + run < x->n && bytes - at >= 2 * (run + 1) &&
                   le16(data + at + 2 * run) == x->tok[from + run])
                run++;
            done = at + 2 * run;
            run += before;
            c.tokens += run;
            if (run > c.run) {
                c.run = run;
                c.from = from - before;
                c.byte = at - 2 * before;
            }
        }
        if (at + BYTES >= bytes)
            return c;
        h = h * BASE + data[at + BYTES] - data[at] * out;
    }
}
