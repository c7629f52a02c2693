/*
 * lzma_dec.c - see lzma_dec.h. LZMA in one paragraph:
 *
 * A range coder decodes one bit at a time; each bit has its own probability, of its being zero, in
 * 1/2048, that moves 1/32 of the way towards what was seen. Bits spell symbols: a literal byte (8
 * bits, a binary tree of probabilities chosen by the previous byte and the position; after a match
 * also by the byte that the match would have continued with), or a match (length and a new
 * distance), or a repetition of one of the last four distances. `state` (0..11) remembers the kind
 * of the last few symbols and selects probabilities; 0..6 mean that the last one was a literal.
 */
#include "stub/lzma_dec.h"

#include "stub/format.h"

/* Where each group of probabilities lies in the table. */
enum {
    P_IS_MATCH = 0,                    /* [state 12][position 16] */
    P_IS_REP0_LONG = P_IS_MATCH + 192, /* [state 12][position 16] */
    P_IS_REP = P_IS_REP0_LONG + 192,   /* [state 12], then the same for reps 0, 1, 2 */
    P_SLOT = P_IS_REP + 4 * 12,        /* [length 4][tree of 64] */
    P_SPECIAL = P_SLOT + 4 * 64,       /* reverse trees of slots 4..13, packed */
    P_ALIGN = P_SPECIAL + 114,         /* reverse tree of 16; its entry 0 is unused */
    P_MATCH_LEN = P_ALIGN + 16,        /* choice, choice2, low [16][8], mid [16][8], high [256] */
    P_REP_LEN = P_MATCH_LEN + 514,     /* the same */
    P_LITERAL = P_REP_LEN + 514,       /* [lc + lp bits of context][768] */
    LEN_TREES = 2,
    MATCH_LEN_MIN = 2,
};
_Static_assert(P_LITERAL == 1846 && P_LITERAL + (768 << LCLP_MAX) == LZMA_PROBS,
               "table does not fit what the header promises");

/* Kept out of line: the loader is built for size, and every other reader has time. */
#define SMALL static __attribute__((noinline))

/* One more byte into code when the range got short. */
SMALL void normalise(struct lzma *d)
{
    if (d->range < 1u << 24) {
        d->range <<= 8;
        d->code = d->code << 8 | (d->in < d->end ? *d->in : 0);
        d->in++;
    }
}

/* One bit with probability number i. */
SMALL unsigned bit(struct lzma *d, unsigned i)
{
    uint16_t *p = d->probs + i;
    normalise(d);
    uint32_t bound = (d->range >> 11) * *p, one = d->code >= bound;
    int towards = 2048;
    if (one) {
        d->code -= bound;
        bound = d->range - bound;
        towards = 31; /* rounds so that p - p / 32 results */
    }
    d->range = bound;
    *p = (uint16_t)(*p + ((towards - *p) >> 5));
    return one;
}

/* A symbol below `size` (a power of two), most significant bit first. */
SMALL unsigned tree(struct lzma *d, unsigned i, unsigned size)
{
    unsigned m = 1;
    while (m < size)
        m = 2 * m + bit(d, i + m);
    return m - size;
}

/* A distance, less one, of a match of the given length (less MATCH_LEN_MIN). */
static uint32_t distance(struct lzma *d, unsigned len)
{
    uint32_t slot = tree(d, P_SLOT + 64 * (len < 3 ? len : 3), 64);
    if (slot < 4)
        return slot;
    /* The slot gives the two leading bits and how many follow. */
    uint32_t left = slot / 2 - 1, dist = 2 | (slot & 1), i = P_ALIGN;
    if (slot < 14) {
        dist <<= left;
        i = P_SPECIAL + dist - slot - 1;
    } else {
        do { /* bits without a model */
            normalise(d);
            d->range >>= 1;
            dist *= 2;
            if (d->code >= d->range) {
                d->code -= d->range;
                dist++;
            }
        } while (--left > 4);
        dist <<= 4;
    }
    uint32_t m = 1, weight = 1;
    do { /* least significant bit first */
        uint32_t b = bit(d, i + m);
        m = 2 * m + b;
        dist += b * weight;
        weight *= 2;
    } while (--left);
    return dist;
}

/* A literal byte. */
SMALL void literal(struct lzma *d)
{
    /* lp low bits of the position, then lc high bits of the last byte */
    unsigned context = (d->pos << 8 | d->last) << d->lc >> 8 & d->context_mask;
    unsigned i = P_LITERAL + 768 * context;
    /* After a match: while the bits agree with the byte that it would have continued with, that
     * byte's next bit selects one of two further trees; `with` is 0 once they differ. */
    unsigned with = 0, expect = 0, m = 1;
    if (d->state >= 7) {
        with = 256;
        expect = d->out[d->pos - d->rep[0] - 1];
    }
    do {
        expect *= 2;
        unsigned e = expect & with;
        unsigned b = bit(d, i + with + e + m);
        m = 2 * m + b;
        with &= b ? e : ~e;
    } while (m < 256);
    d->last = (uint8_t)m;
    d->out[d->pos++] = (uint8_t)m;
    d->state = d->state < 4 ? 0 : d->state < 10 ? d->state - 3 : d->state - 6;
}

/* A match or a repetition. Returns how many bytes to copy from distance rep[0] + 1. */
SMALL uint32_t match(struct lzma *d, unsigned pos_state)
{
    /* Which of the last distances, counted from 1; 0 is a new one. */
    unsigned which = 0, state = d->state, len;
    d->state = state < 7 ? 8 : 11;
    while (which < 4 && bit(d, P_IS_REP + 12 * which + state))
        which++;
    if (which == 1 && !bit(d, P_IS_REP0_LONG + 16 * state + pos_state)) {
        d->state |= 1;
        return 1;
    }
    /* Push the others down and the chosen one out; a new one pushes the last one out. */
    uint32_t dist = 0;
    for (unsigned k = 0; k <= ((which - 1) & 3); k++) {
        uint32_t next = d->rep[k];
        d->rep[k] = dist;
        dist = next;
    }

    unsigned i = P_REP_LEN;
    if (!which) {
        d->state--;
        i = P_MATCH_LEN;
    }
    /* Three trees: 8 short and 8 middle lengths for each pos_state, 256 long ones for all. */
    unsigned choice = 0, size = 8;
    while (choice < 2 && bit(d, i + choice))
        choice++;
    if (choice == 2) {
        size = 256;
        pos_state = 0;
    }
    len = 8 * choice + tree(d, i + LEN_TREES + 128 * choice + 8 * pos_state, size);
    d->rep[0] = which ? dist : distance(d, len);
    return len + MATCH_LEN_MIN;
}

size_t lzma_dec(struct lzma *d, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n,
                uint32_t props)
{
    d->lc = props & 7;
    d->context_mask = ~(~0u << (d->lc + (props >> 8 & 7))) & 15;
    uint32_t end = (uint32_t)out_n, pb_mask = ~(~0u << (props >> 16 & 7)) & 15;
    for (unsigned i = 0; i < LZMA_PROBS; i++)
        d->probs[i] = 1024;

    d->in = in;
    d->end = in + in_n;
    for (int i = 0; i < 5; i++) { /* the first byte is shifted out again */
        d->range = 0;
        normalise(d);
    }
    d->range = UINT32_MAX;
    d->out = out;
    d->pos = d->last = d->state = 0;
    d->rep[0] = d->rep[1] = d->rep[2] = d->rep[3] = 0;

    while (d->pos < end) {
        unsigned pos_state = d->pos & pb_mask;
        if (!bit(d, P_IS_MATCH + 16 * d->state + pos_state)) {
            literal(d);
            continue;
        }
        uint32_t len = match(d, pos_state);
        if (d->rep[0] >= d->pos || len > end - d->pos)
            return SIZE_MAX;
        do {
            d->last = out[d->pos - d->rep[0] - 1];
            out[d->pos++] = (uint8_t)d->last;
        } while (--len);
    }
    return (size_t)(d->in - in);
}

void x86_undo(uint8_t *data, size_t size)
{
    uint32_t n = (uint32_t)size;
    for (uint32_t i = 1; i + 4 <= n; i++) {
        if ((data[i - 1] & 0xFE) != 0xE8)
            continue;
        uint8_t *p = data + i;
        uint32_t v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        if (v + i < n + i) /* v in [-i, n) */
            v = v < n ? v - i : v + n;
        for (int k = 0; k < 4; k++)
            p[k] = (uint8_t)(v >> 8 * k);
        i += 4;
    }
}
