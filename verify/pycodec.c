/* pycodec.c - see pycodec.h: the text codecs. */
#include "verify/pycodec.h"

#include <stdlib.h>
#include <string.h>

const char *const codec_rc_text[] = {"decoded", "damaged", "decodes to more than is allowed",
                                     "a variety that is not decoded here", "out of memory"};
const char *const text_codec_name[TEXTS] = {"b85", "z85", "a85", "b64", "b64url", "b32", "hex"};

static const char b85[] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
static const char z85[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char b64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char b32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
static const char hex[] = "0123456789abcdef";

static bool blank(uint8_t ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static void table(int8_t value[256], const char *alphabet)
{
    memset(value, -1, 256);
    for (int i = 0; alphabet[i]; i++)
        value[(uint8_t)alphabet[i]] = (int8_t)i;
}

/* Five digits of base 85, most significant first, are four bytes. */
struct group85 {
    uint64_t v;
    unsigned digits;
    uint8_t *out;
    size_t n;
    bool bad;
};

static void flush85(struct group85 *g, unsigned bytes)
{
    if (g->v > UINT32_MAX)
        g->bad = true;
    for (unsigned i = 0; i < bytes; i++)
        g->out[g->n++] = (uint8_t)(g->v >> (24 - 8 * i));
    g->v = g->digits = 0;
}

static void put85(struct group85 *g, unsigned digit)
{
    g->v = g->v * 85 + digit;
    if (++g->digits == 5)
        flush85(g, 4);
}

/* A short last group is padded with the highest digit and its extra bytes are dropped; one digit
 * alone gives no byte (Python accepts it in b85decode). */
static void end85(struct group85 *g)
{
    unsigned bytes = g->digits ? g->digits - 1 : 0;
    if (!g->digits)
        return;
    for (unsigned i = g->digits; i < 5; i++)
        g->v = g->v * 85 + 84;
    flush85(g, bytes);
}

static enum codec_rc decode85(const char *alphabet, const uint8_t *in, size_t n, bool lenient,
                              uint8_t *out, size_t *out_n)
{
    int8_t value[256];
    struct group85 g = {.out = out};
    table(value, alphabet);
    for (size_t i = 0; i < n && !g.bad; i++) {
        if (value[in[i]] >= 0)
            put85(&g, (unsigned)value[in[i]]);
        else if (!lenient || !blank(in[i]))
            return CODEC_DAMAGED;
    }
    end85(&g);
    *out_n = g.n;
    return g.bad ? CODEC_DAMAGED : CODEC_OK;
}

static enum codec_rc decode_a85(const uint8_t *in, size_t n, uint8_t *out, size_t *out_n)
{
    struct group85 g = {.out = out};
    while (n && blank(*in))
        in++, n--;
    while (n && blank(in[n - 1]))
        n--;
    if (n >= 2 && in[0] == '<' && in[1] == '~')
        in += 2, n -= 2;
    if (n >= 2 && in[n - 2] == '~' && in[n - 1] == '>')
        n -= 2;
    for (size_t i = 0; i < n && !g.bad; i++) {
        if (in[i] >= '!' && in[i] <= 'u')
            put85(&g, in[i] - (unsigned)'!');
        else if (in[i] == 'z' && !g.digits)
            flush85(&g, 4);
        else if (!blank(in[i]))
            return CODEC_DAMAGED;
    }
    end85(&g);
    *out_n = g.n;
    return g.bad ? CODEC_DAMAGED : CODEC_OK;
}

/* Digits of `bits` bits each; leftover bits that make no byte are padding. */
static enum codec_rc decode_bits(const char *alphabet, unsigned bits, bool fold, bool skip,
                                 const uint8_t *in, size_t n, uint8_t *out, size_t *out_n)
{
    int8_t value[256];
    uint32_t acc = 0;
    unsigned have = 0;
    size_t digits = 0;
    table(value, alphabet);
    *out_n = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t ch = fold && in[i] >= 'A' && in[i] <= 'Z' ? (uint8_t)(in[i] | 0x20) : in[i];
        if (value[ch] < 0) {
            if (ch != '=' && !skip && !blank(ch))
                return CODEC_DAMAGED;
            continue;
        }
        acc = (acc << bits) | (uint8_t)value[ch];
        digits++;
        have += bits;
        if (have >= 8) {
            have -= 8;
            out[(*out_n)++] = (uint8_t)(acc >> have);
        }
    }
    bool torn = (bits == 4 && digits % 2) || (bits == 6 && digits % 4 == 1);
    return torn ? CODEC_DAMAGED : CODEC_OK;
}

enum codec_rc text_decode(enum text_codec codec, const uint8_t *in, size_t n, bool lenient,
                          uint8_t **out, size_t *out_n)
{
    /* ascii85's z is four bytes from one character, everything else shrinks */
    uint8_t *buf = malloc((codec == TEXT_A85 ? 4 * n : n) + 8);
    enum codec_rc rc = CODEC_UNKNOWN;
    *out = NULL;
    *out_n = 0;
    if (!buf)
        return CODEC_NOMEM;
    switch (codec) {
    case TEXT_B85:
        rc = decode85(b85, in, n, lenient, buf, out_n);
        break;
    case TEXT_Z85:
        rc = decode85(z85, in, n, lenient, buf, out_n);
        break;
    case TEXT_A85:
        rc = decode_a85(in, n, buf, out_n);
        break;
    case TEXT_B64:
        rc = decode_bits(b64, 6, false, !lenient, in, n, buf, out_n);
        break;
    case TEXT_B64URL:
        rc = decode_bits(b64url, 6, false, !lenient, in, n, buf, out_n);
        break;
    case TEXT_B32:
        rc = decode_bits(b32, 5, false, false, in, n, buf, out_n);
        break;
    case TEXT_HEX:
        rc = decode_bits(hex, 4, true, false, in, n, buf, out_n);
        break;
    case TEXTS:
        break;
    }
    if (rc) {
        free(buf);
        *out_n = 0;
        return rc;
    }
    buf[*out_n] = 0;
    *out = buf;
    return CODEC_OK;
}
