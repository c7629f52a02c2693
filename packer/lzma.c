/*
 * lzma.c - coded_lzma of codec.h: liblzma's encoder, and a search over its settings.
 *
 * liblzma ends a raw LZMA1 stream with a marker and flushes its coder, about ten bytes that a
 * decoder does not need when it knows the size. Our decoder reports how many bytes it wanted; the
 * stream is cut there.
 */
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/codec.h"
#include "stub/lzma_dec.h"

/* The inverse of x86_undo (stub/lzma_dec.h), in place. */
static void x86_apply(uint8_t *data, size_t n)
{
    for (size_t i = 1; i + 4 <= n; i++) {
        if ((data[i - 1] & 0xFE) != 0xE8)
            continue;
        int64_t v = (int32_t)le32(data + i), at = (int64_t)i, size = (int64_t)n;
        if (v >= -at && v < size)
            v = v < size - at ? v + at : v - size;
        for (int k = 0; k < 4; k++)
            data[i + (size_t)k] = (uint8_t)(v >> (24 - 8 * k));
        i += 4;
    }
}

struct setting {
    uint32_t lc, lp, pb;
    lzma_match_finder mf;
};

static lzma_options_lzma options(const struct setting *s, size_t n)
{
    lzma_options_lzma o;
    bool probe = s->mf == LZMA_MF_HC4;
    lzma_lzma_preset(&o, probe ? 1 : 9 | LZMA_PRESET_EXTREME);
    o.lc = s->lc;
    o.lp = s->lp;
    o.pb = s->pb;
    o.mf = s->mf;
    if (!probe) {
        o.nice_len = 273; /* the longest match there is */
        o.depth = 1000;
    }
    o.dict_size = 4096; /* a power of two that holds the input: nothing is out of reach */
    while (o.dict_size < n)
        o.dict_size *= 2;
    return o;
}

/* One stream for one setting into out[cap]. */
static enum err_code encode(uint8_t *out, size_t cap, size_t *size, const uint8_t *raw, size_t n,
                            const struct setting *s, struct err *e)
{
    lzma_options_lzma o = options(s, n);
    lzma_filter f[2] = {{LZMA_FILTER_LZMA1, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    *size = 0;
    lzma_ret r = lzma_raw_buffer_encode(f, NULL, raw, n, out, size, cap);
    if (r != LZMA_OK)
        return err_set(e, ERR_RESOURCE, "lzma: encoder failed with code %d", (int)r);
    return ERR_OK;
}

/* Decode with our decoder; sets *used to the bytes that it wanted. */
static enum err_code check(const uint8_t *in, size_t size, size_t *used, const uint8_t *raw,
                           size_t n, uint32_t props, struct err *e)
{
    struct lzma *work = malloc(sizeof *work);
    uint8_t *back = malloc(n);
    enum err_code rc = ERR_OK;
    if (!work || !back)
        rc = err_nomem(e, "lzma check", n);
    else if ((*used = lzma_dec(work, back, n, in, size, props)) > size || memcmp(back, raw, n))
        rc = err_set(e, ERR_RESOURCE, "lzma: the encoder's output does not decode to its input");
    free(work);
    free(back);
    return rc;
}

struct search {
    uint8_t *best, *next; /* [cap] each */
    size_t cap, size;     /* size of best; SIZE_MAX while there is none */
    struct setting s;
    uint32_t filter;
};

static enum err_code try(struct search *b, const uint8_t *raw, size_t n, struct setting s,
                         uint32_t filter, struct err *e)
{
    size_t size;
    enum err_code rc = encode(b->next, b->cap, &size, raw, n, &s, e);
    if (rc || size >= b->size)
        return rc;
    uint8_t *swap = b->best;
    b->best = b->next;
    b->next = swap;
    b->size = size;
    b->s = s;
    b->filter = filter;
    return ERR_OK;
}

/*
 * Settings hardly interact: find the best lc, lp, pb with one match finder, then the best finder.
 * Bytes of code have no period, so lp and pb are only worth trying up to 2 (32-bit words).
 */
static enum err_code search(struct search *b, const uint8_t *raw, size_t n, enum lzma_effort effort,
                            uint32_t filter, struct err *e)
{
    static const struct setting quick[] = {{0, 0, 0, LZMA_MF_BT4},
                                           {3, 0, 0, LZMA_MF_BT4},
                                           {3, 0, 2, LZMA_MF_BT4},
                                           {0, 2, 2, LZMA_MF_BT4}};
    static const lzma_match_finder finders[] = {LZMA_MF_BT2, LZMA_MF_BT3};
    enum err_code rc = ERR_OK;
    if (effort == LZMA_PROBE)
        return try(b, raw, n, (struct setting){0, 0, 0, LZMA_MF_HC4}, filter, e);
    if (effort == LZMA_QUICK) {
        for (size_t i = 0; !rc && i < sizeof quick / sizeof *quick; i++)
            rc = try(b, raw, n, quick[i], filter, e);
        return rc;
    }
    for (uint32_t lp = 0; lp <= 2; lp++)
        for (uint32_t lc = 0; lc + lp <= LCLP_MAX; lc++)
            for (uint32_t pb = 0; !rc && pb <= 2; pb++)
                rc = try(b, raw, n, (struct setting){lc, lp, pb, LZMA_MF_BT4}, filter, e);
    struct setting s = b->s;
    for (size_t i = 0; !rc && b->filter == filter && i < sizeof finders / sizeof *finders; i++) {
        s.mf = finders[i];
        rc = try(b, raw, n, s, filter, e);
    }
    return rc;
}

enum err_code coded_lzma(struct coded *c, const void *raw, size_t n, enum lzma_effort effort,
                         bool x86, struct err *e)
{
    enum err_code rc = ERR_OK;
    uint8_t *filtered = NULL;
    size_t cap =
        n + n / 8 + 256; /* beyond liblzma's worst case, so that there is always a result */
    struct search b = {.best = malloc(cap), .next = malloc(cap), .cap = cap, .size = SIZE_MAX};
    memset(c, 0, sizeof *c);
    if (n == 0 || n > INT32_MAX) {
        rc = err_set(e, ERR_USAGE, "lzma: cannot encode %zu bytes", n);
        goto out;
    }
    if (!b.best || !b.next) {
        rc = err_nomem(e, "lzma output", cap);
        goto out;
    }
    rc = search(&b, raw, n, effort, FILTER_NONE, e);
    if (!rc && x86) {
        filtered = malloc(n);
        if (!filtered) {
            rc = err_nomem(e, "lzma filter", n);
            goto out;
        }
        memcpy(filtered, raw, n);
        x86_apply(filtered, n);
        rc = search(&b, filtered, n, effort, FILTER_X86, e);
    }
    if (rc)
        goto out;
    uint32_t props = b.s.lc | b.s.lp << 8 | b.s.pb << 16;
    size_t used = 0;
    rc = check(b.best, b.size, &used, b.filter ? filtered : raw, n, props, e);
    if (rc)
        goto out;
    if (b.filter) {
        x86_undo(filtered, n);
        if (memcmp(filtered, raw, n)) {
            rc = err_set(e, ERR_RESOURCE, "lzma: the call filter did not undo itself");
            goto out;
        }
    }
    c->codec = CODEC_LZMA;
    c->params[PARAM_LC] = (uint8_t)b.s.lc;
    c->params[PARAM_LP] = (uint8_t)b.s.lp;
    c->params[PARAM_PB] = (uint8_t)b.s.pb;
    c->params[PARAM_FILTER] = (uint8_t)b.filter;
    put_le32(c->params + PARAM_DICT, options(&b.s, n).dict_size);
    c->size = used;
    c->raw_size = n;
    c->data = b.best;
    b.best = NULL;
out:
    free(filtered);
    free(b.best);
    free(b.next);
    return rc;
}
