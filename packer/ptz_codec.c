/* ptz_codec.c - see ptz_codec.h: one pair of functions per library. */
#include "packer/ptz_codec.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <limits.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* ---- output of unknown size ---- */

struct sink {
    uint8_t *data;
    size_t n, cap, limit; /* one byte more than the limit is room to notice it */
};

/* Room for at least one more byte. */
static enum err_code sink_room(struct sink *s, struct err *e)
{
    if (s->n < s->cap)
        return ERR_OK;
    size_t cap = s->cap ? 2 * s->cap : 1 << 16;
    if (cap > s->limit + 1)
        cap = s->limit + 1;
    uint8_t *data = realloc(s->data, cap);
    if (!data)
        return err_nomem(e, "decompressed data", cap);
    s->data = data;
    s->cap = cap;
    return ERR_OK;
}

/* What every decompression loop does with a step's result: go on, or why not. */
enum verdict { MORE, DONE, DAMAGED, SHORT, GREEDY, NO_MEMORY };

/* A decoder: `step` takes from *in (*n bytes) and gives to out, advancing both. */
struct decoder {
    void *state;
    enum verdict (*step)(void *state, const uint8_t **in, size_t *n, uint8_t *out, size_t cap,
                         size_t *got);
};

static enum err_code run(struct sink *s, const struct decoder *d, const uint8_t *in, size_t n,
                         const char *name, const char *path, struct err *e)
{
    enum verdict v = MORE;
    while (v == MORE) {
        size_t got = 0, before = n;
        enum err_code rc = sink_room(s, e);
        if (rc)
            return rc;
        v = d->step(d->state, &in, &n, s->data + s->n, s->cap - s->n, &got);
        s->n += got;
        if (s->n > s->limit)
            return err_set(e, ERR_INPUT, "%s: %s data expand to more than %zu bytes", path, name,
                           s->limit);
        if (v == MORE && !got && n == before) /* it wants what is not there */
            v = SHORT;
    }
    if (v == NO_MEMORY)
        return err_nomem(e, name, 0);
    if (v == GREEDY)
        return err_set(e, ERR_INPUT, "%s: %s data want more memory than is accepted", path, name);
    if (v == SHORT)
        return err_set(e, ERR_INPUT, "%s: %s data end too early (after %zu bytes of output)", path,
                       name, s->n);
    if (v == DAMAGED)
        return err_set(e, ERR_INPUT, "%s: damaged %s data (after %zu bytes of output)", path, name,
                       s->n);
    if (n)
        return err_set(e, ERR_INPUT, "%s: %zu bytes behind the end of the %s data", path, n, name);
    return ERR_OK;
}

/* ---- zlib ---- */

static unsigned piece(size_t n)
{
    return n > INT_MAX ? INT_MAX : (unsigned)n;
}

static enum verdict zlib_step(void *state, const uint8_t **in, size_t *n, uint8_t *out, size_t cap,
                              size_t *got)
{
    z_stream *z = state;
    unsigned give = piece(*n), room = piece(cap);
    z->next_in = (Bytef *)(uintptr_t)*in; /* zlib's interface lacks the const */
    z->avail_in = give;
    z->next_out = out;
    z->avail_out = room;
    int rc = inflate(z, Z_NO_FLUSH);
    *in += give - z->avail_in;
    *n -= give - z->avail_in;
    *got = room - z->avail_out;
    return rc == Z_STREAM_END                ? DONE
           : rc == Z_OK || rc == Z_BUF_ERROR ? MORE
           : rc == Z_MEM_ERROR               ? NO_MEMORY
                                             : DAMAGED;
}

static enum err_code zlib_expand(struct sink *s, const uint8_t *in, size_t n, const char *path,
                                 struct err *e)
{
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 32) != Z_OK) /* zlib or gzip header */
        return err_nomem(e, "zlib", 0);
    enum err_code rc = run(s, &(struct decoder){&z, zlib_step}, in, n, "zlib", path, e);
    inflateEnd(&z);
    return rc;
}

static enum err_code zlib_compress(uint8_t **out, size_t *out_n, int level, const uint8_t *in,
                                   size_t n, struct err *e)
{
    uLongf got = compressBound(n);
    *out = malloc(got);
    if (!*out || compress2(*out, &got, in, n, level) != Z_OK)
        return err_nomem(e, "zlib", got);
    *out_n = got;
    return ERR_OK;
}

/* ---- xz ---- */

enum {
    XZ_MEMORY = 1 << 28,      /* preset 9 needs 65 MiB to decode */
    RAW_DICTIONARY = 1 << 27, /* raw chunks do not say theirs; more is never harmful */
};

static enum verdict lzma_step(void *state, const uint8_t **in, size_t *n, uint8_t *out, size_t cap,
                              size_t *got)
{
    lzma_stream *z = state;
    z->next_in = *in;
    z->avail_in = *n;
    z->next_out = out;
    z->avail_out = cap;
    lzma_ret rc = lzma_code(z, LZMA_RUN);
    *in = z->next_in;
    *n = z->avail_in;
    *got = cap - z->avail_out;
    return rc == LZMA_STREAM_END                   ? DONE
           : rc == LZMA_OK || rc == LZMA_BUF_ERROR ? MORE
           : rc == LZMA_MEMLIMIT_ERROR             ? GREEDY
           : rc == LZMA_MEM_ERROR                  ? NO_MEMORY
                                                   : DAMAGED;
}

static enum err_code lzma_run(struct sink *s, lzma_stream *z, lzma_ret ready, const uint8_t *in,
                              size_t n, const char *name, const char *path, struct err *e)
{
    if (ready != LZMA_OK)
        return err_nomem(e, name, 0);
    enum err_code rc = run(s, &(struct decoder){z, lzma_step}, in, n, name, path, e);
    lzma_end(z);
    return rc;
}

static enum err_code lzma_expand(struct sink *s, const uint8_t *in, size_t n, const char *path,
                                 struct err *e)
{
    lzma_stream z = LZMA_STREAM_INIT;
    return lzma_run(s, &z, lzma_stream_decoder(&z, XZ_MEMORY, 0), in, n, "xz", path, e);
}

static enum err_code lzma_alone_expand(struct sink *s, const uint8_t *in, size_t n,
                                       const char *path, struct err *e)
{
    lzma_stream z = LZMA_STREAM_INIT;
    return lzma_run(s, &z, lzma_alone_decoder(&z, XZ_MEMORY), in, n, "lzma", path, e);
}

static enum err_code lzma_raw_expand(struct sink *s, const uint8_t *in, size_t n, const char *path,
                                     struct err *e)
{
    /* Nothing lies farther back than the output is long. */
    lzma_options_lzma how = {.dict_size =
                                 s->limit < RAW_DICTIONARY ? (uint32_t)s->limit : RAW_DICTIONARY};
    const lzma_filter filter[] = {{LZMA_FILTER_LZMA2, &how}, {LZMA_VLI_UNKNOWN, NULL}};
    lzma_stream z = LZMA_STREAM_INIT;
    return lzma_run(s, &z, lzma_raw_decoder(&z, filter), in, n, "raw lzma", path, e);
}

static enum err_code lzma_compress(uint8_t **out, size_t *out_n, int level, const uint8_t *in,
                                   size_t n, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t cap = lzma_stream_buffer_bound(n);
    lzma_stream z = LZMA_STREAM_INIT;
    *out = malloc(cap);
    if (!*out || lzma_easy_encoder(&z, (uint32_t)level, LZMA_CHECK_CRC64) != LZMA_OK)
        rc = err_nomem(e, "xz", cap);
    z.next_in = in;
    z.avail_in = n;
    z.next_out = *out;
    z.avail_out = cap;
    if (!rc && lzma_code(&z, LZMA_FINISH) != LZMA_STREAM_END)
        rc = err_nomem(e, "xz", cap);
    *out_n = (size_t)z.total_out;
    lzma_end(&z);
    return rc;
}

/* ---- zstd ---- */

static enum verdict zstd_step(void *state, const uint8_t **in, size_t *n, uint8_t *out, size_t cap,
                              size_t *got)
{
    ZSTD_inBuffer from = {*in, *n, 0};
    ZSTD_outBuffer to = {out, cap, 0};
    size_t rc = ZSTD_decompressStream(state, &to, &from);
    *in += from.pos;
    *n -= from.pos;
    *got = to.pos;
    return ZSTD_isError(rc) ? DAMAGED : rc ? MORE : DONE;
}

static enum err_code zstd_expand(struct sink *s, const uint8_t *in, size_t n, const char *path,
                                 struct err *e)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    if (!z)
        return err_nomem(e, "zstd", 0);
    enum err_code rc = run(s, &(struct decoder){z, zstd_step}, in, n, "zstd", path, e);
    ZSTD_freeDStream(z);
    return rc;
}

static enum err_code zstd_compress(uint8_t **out, size_t *out_n, int level, const uint8_t *in,
                                   size_t n, struct err *e)
{
    size_t cap = ZSTD_compressBound(n);
    *out = malloc(cap);
    *out_n = *out ? ZSTD_compress(*out, cap, in, n, level) : 0;
    return *out && !ZSTD_isError(*out_n) ? ERR_OK : err_nomem(e, "zstd", cap);
}

/* ---- brotli ---- */

static enum verdict brotli_step(void *state, const uint8_t **in, size_t *n, uint8_t *out,
                                size_t cap, size_t *got)
{
    size_t left = cap;
    BrotliDecoderResult rc = BrotliDecoderDecompressStream(state, n, in, &left, &out, NULL);
    *got = cap - left;
    return rc == BROTLI_DECODER_RESULT_SUCCESS                   ? DONE
           : rc == BROTLI_DECODER_RESULT_ERROR                   ? DAMAGED
           : rc == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT && !*n ? SHORT
                                                                 : MORE;
}

static enum err_code brotli_expand(struct sink *s, const uint8_t *in, size_t n, const char *path,
                                   struct err *e)
{
    BrotliDecoderState *z = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    if (!z)
        return err_nomem(e, "brotli", 0);
    enum err_code rc = run(s, &(struct decoder){z, brotli_step}, in, n,
                           "brotli (or of an unknown kind; brotli has no magic number)", path, e);
    BrotliDecoderDestroyInstance(z);
    return rc;
}

static enum err_code brotli_compress(uint8_t **out, size_t *out_n, int level, const uint8_t *in,
                                     size_t n, struct err *e)
{
    size_t cap = BrotliEncoderMaxCompressedSize(n);
    *out_n = cap;
    *out = malloc(cap);
    if (!*out || !BrotliEncoderCompress(level, BROTLI_DEFAULT_WINDOW, BROTLI_DEFAULT_MODE, n, in,
                                        out_n, *out))
        return err_nomem(e, "brotli", cap);
    return ERR_OK;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    int level, lowest, highest;
    enum err_code (*expand)(struct sink *s, const uint8_t *in, size_t n, const char *path,
                            struct err *e);
    enum err_code (*compress)(uint8_t **out, size_t *out_n, int level, const uint8_t *in, size_t n,
                              struct err *e);
} codecs[PTZ_READ_CODECS] = {
    [PTZ_RAW] = {"raw", 0, 0, 0, NULL, NULL},
    [PTZ_ZLIB] = {"zlib", 9, 1, 9, zlib_expand, zlib_compress},
    [PTZ_LZMA] = {"lzma", 6, 1, 9, lzma_expand, lzma_compress},
    [PTZ_ZSTD] = {"zstd", 22, 1, 22, zstd_expand, zstd_compress},
    [PTZ_BROTLI] = {"brotli", 11, 1, 11, brotli_expand, brotli_compress},
    [PTZ_LZMA_ALONE] = {"lzma (alone)", 0, 0, 0, lzma_alone_expand, NULL},
    [PTZ_LZMA_RAW] = {"lzma (raw)", 0, 0, 0, lzma_raw_expand, NULL},
};

const char *ptz_codec_name(enum ptz_codec c)
{
    return codecs[c].name;
}

int ptz_codec_level(enum ptz_codec c)
{
    return codecs[c].level;
}

enum err_code ptz_codec_parse(enum ptz_codec *c, const char *name, struct err *e)
{
    for (int i = PTZ_ZLIB; i < PTZ_CODECS; i++)
        if (!strcmp(name, codecs[i].name)) {
            *c = (enum ptz_codec)i;
            return ERR_OK;
        }
    return err_set(e, ERR_USAGE, "compressor %s: unknown, expected brotli, lzma, zstd or zlib",
                   name);
}

enum ptz_codec ptz_codec_guess(const uint8_t *p, size_t n)
{
    if (n >= 4 && (!memcmp(p, "PK\3\4", 4) || !memcmp(p, "BSHF", 4)))
        return PTZ_RAW;
    if (n >= 2 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5)
        return PTZ_RAW;
    if (n >= 6 && !memcmp(p, "\x93NUMPY", 6))
        return PTZ_RAW;
    /* lc 3, lp 0, pb 2, as everybody leaves them, and a dictionary of whole 64 KiB. */
    if (n >= 13 && p[0] == 0x5d && !p[1] && !p[2])
        return PTZ_LZMA_ALONE;
    if (n >= 6 && !memcmp(p, "\3757zXZ", 6))
        return PTZ_LZMA;
    if (n >= 4 && !memcmp(p, "\x28\xb5\x2f\xfd", 4))
        return PTZ_ZSTD;
    if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b) /* gzip */
        return PTZ_ZLIB;
    /* RFC 1950: method 8, window at most 32 KiB, and the two bytes are a multiple of 31. */
    if (n >= 2 && (p[0] & 15) == 8 && p[0] >> 4 <= 7 && (p[0] << 8 | p[1]) % 31 == 0)
        return PTZ_ZLIB;
    return PTZ_BROTLI;
}

enum err_code ptz_expand(uint8_t **out, size_t *out_n, enum ptz_codec c, const uint8_t *in,
                         size_t n, size_t limit, const char *path, struct err *e)
{
    struct sink s = {.limit = limit};
    *out = NULL;
    enum err_code rc = sink_room(&s, e);
    if (!rc && c == PTZ_RAW)
        rc = err_set(e, ERR_INPUT, "%s: not compressed", path);
    if (!rc)
        rc = codecs[c].expand(&s, in, n, path, e);
    if (rc) {
        free(s.data);
        return rc;
    }
    *out = s.data;
    *out_n = s.n;
    return ERR_OK;
}

enum err_code ptz_compress(uint8_t **out, size_t *out_n, enum ptz_codec c, int level,
                           const uint8_t *in, size_t n, struct err *e)
{
    enum err_code rc = ERR_OK;
    *out = NULL;
    if (!level)
        level = codecs[c].level;
    if (level < codecs[c].lowest || level > codecs[c].highest)
        return err_set(e, ERR_USAGE, "%s has levels %d to %d, not %d", codecs[c].name,
                       codecs[c].lowest, codecs[c].highest, level);
    if (c == PTZ_RAW) {
        *out = malloc(n + 1);
        *out_n = n;
        if (*out)
            memcpy(*out, in, n);
        return *out ? ERR_OK : err_nomem(e, "payload", n);
    }
    rc = codecs[c].compress(out, out_n, level, in, n, e);
    if (rc) {
        free(*out);
        *out = NULL;
    }
    return rc;
}
