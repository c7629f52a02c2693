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
    LEN_LOW = 2,
    LEN_MID = LEN_LOW + 128,
    LEN_HIGH = LEN_MID + 128,
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
SMALL uint32_t distance(struct lzma *d, unsigned len)
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

size_t lzma_dec(struct lzma *d, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n,
                uint32_t props)
{
    unsigned lc = props & 255, lp = props >> 8 & 255, pb = props >> 16 & 255;
    if (lc + lp > LCLP_MAX || pb > PB_MAX)
        return SIZE_MAX;
    for (unsigned i = 0; i < LZMA_PROBS; i++)
        d->probs[i] = 1024;

    d->in = in;
    d->end = in + in_n;
    for (int i = 0; i < 5; i++) { /* the first byte is shifted out again */
        d->range = 0;
        normalise(d);
    }
    d->range = UINT32_MAX;

    uint32_t rep[4] = {0, 0, 0, 0}; /* last distances, less one */
    unsigned state = 0;
    uint8_t prev = 0;
    size_t pos = 0;
    while (pos < out_n) {
        unsigned pos_state = (unsigned)pos & ~(~0u << pb);
        unsigned len = 0;
        if (!bit(d, P_IS_MATCH + 16 * state + pos_state)) {
            unsigned context = (((unsigned)pos & ~(~0u << lp)) << 8 | prev) << lc >> 8;
            unsigned i = P_LITERAL + 768 * context;
            /* After a match: while the bits agree with the byte that it would have continued with,
             * that byte's next bit selects one of two further trees; `with` is 0 once they differ.
             */
            unsigned with = 0, expect = 0, m = 1;
            if (state >= 7) {
                with = 256;
                expect = out[pos - rep[0] - 1];
            }
            do {
                expect *= 2;
                unsigned e = expect & with;
                unsigned b = bit(d, i + with + e + m);
                m = 2 * m + b;
                with &= b ? e : ~e;
            } while (m < 256);
            out[pos++] = prev = (uint8_t)m;
            state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
            continue;
        }
        /* A match (which = 0) or a repetition of last distance number `which`, counted from 1. */
        unsigned which = 0, next = 7;
        while (which < 4 && bit(d, P_IS_REP + 12 * which + state))
            which++;
        if (which == 1 && !bit(d, P_IS_REP0_LONG + 16 * state + pos_state)) {
            len = 1;
            next = 9;
        } else {
            unsigned at = (which - 1) & 3;
            uint32_t dist = rep[at];
            for (; at; at--)
                rep[at] = rep[at - 1];

            unsigned i = which ? P_REP_LEN : P_MATCH_LEN, tree_at = i + LEN_LOW + 8 * pos_state,
                     size = 8;
            if (bit(d, i)) {
                len = 8;
                tree_at += LEN_MID - LEN_LOW;
                if (bit(d, i + 1)) {
                    len = 16;
                    tree_at = i + LEN_HIGH;
                    size = 256;
                }
            }
            len += tree(d, tree_at, size);
            if (which)
                next = 8;
            else
                dist = distance(d, len);
            rep[0] = dist;
            len += MATCH_LEN_MIN;
        }
        state = state < 7 ? next : next == 7 ? 10 : 11;
        if (rep[0] >= pos || len > out_n - pos)
            return SIZE_MAX;
        do {
            out[pos] = prev = out[pos - rep[0] - 1];
            pos++;
        } while (--len);
    }
    return (size_t)(d->in - in);
}

void x86_undo(uint8_t *data, size_t n)
{
    for (size_t i = 1; i + 4 <= n; i++) {
        if ((data[i - 1] & 0xFE) != 0xE8)
            continue;
        uint8_t *p = data + i;
        int32_t v =
            (int32_t)((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
        int32_t at = (int32_t)i, size = (int32_t)n;
        if (v >= -at && v < size)
            v = v >= 0 ? v - at : v + size;
        for (int k = 0; k < 4; k++)
            p[k] = (uint8_t)(v >> 8 * k);
        i += 4;
    }
}
