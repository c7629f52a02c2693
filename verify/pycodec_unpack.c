/* pycodec_unpack.c - see pycodec.h: the decompressors, each behind a buffer that may not outgrow
 * its cap. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <brotli/decode.h>
#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "verify/pycodec.h"

const char *const packer_name[PACKERS] = {"zlib", "deflate-raw", "gzip",   "lzma-xz", "lzma-alone",
                                          "lzma", "lzma-raw",    "brotli", "zstd",    "bz2"};

enum {
    FIRST = 64 << 10,
    LZMA_MEMORY = 256 << 20, /* of the decoder; a dictionary larger than that is refused */
};

/* A buffer that grows up to cap, and notices when cap bytes do not suffice. */
struct sink {
    uint8_t *p;
    size_t n, size, cap;
};

static enum codec_rc sink_room(struct sink *s)
{
    size_t size = s->size ? 2 * s->size : FIRST;
    uint8_t *p;
    if (s->n < s->size)
        return CODEC_OK;
    if (s->size > s->cap)
        return CODEC_BOMB;
    /* one byte more than allowed, so that a full buffer of cap bytes is told from a longer one */
    if (size > s->cap)
        size = s->cap + 1;
    if (!(p = realloc(s->p, size + 1)))
        return CODEC_NOMEM;
    s->p = p;
    s->size = size;
    return CODEC_OK;
}

static enum codec_rc inflate_all(int wbits, bool many, const uint8_t *in, size_t n, struct sink *s)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n};
    enum codec_rc rc = CODEC_OK;
    int zr = Z_OK;
    if (inflateInit2(&z, wbits) != Z_OK)
        return CODEC_NOMEM;
    while (!rc && zr != Z_STREAM_END) {
        if ((rc = sink_room(s)))
            break;
        z.next_out = s->p + s->n;
        z.avail_out = (uInt)(s->size - s->n);
        zr = inflate(&z, Z_NO_FLUSH);
        s->n = s->size - z.avail_out;
        if (zr == Z_STREAM_END && many && z.avail_in && inflateReset(&z) == Z_OK)
            zr = Z_OK;
        else if (zr != Z_OK && zr != Z_STREAM_END)
            rc = zr == Z_MEM_ERROR ? CODEC_NOMEM : CODEC_DAMAGED;
    }
    if (!rc && z.avail_in)
        rc = CODEC_DAMAGED;
    inflateEnd(&z);
    return rc;
}

static enum codec_rc lzma_run(lzma_stream *z, const uint8_t *in, size_t n, struct sink *s)
{
    enum codec_rc rc = CODEC_OK;
    lzma_ret lr = LZMA_OK;
    z->next_in = in;
    z->avail_in = n;
    while (!rc && lr != LZMA_STREAM_END) {
        if ((rc = sink_room(s)))
            break;
        z->next_out = s->p + s->n;
        z->avail_out = s->size - s->n;
        lr = lzma_code(z, LZMA_FINISH);
        s->n = s->size - z->avail_out;
        if (lr != LZMA_OK && lr != LZMA_STREAM_END)
            rc = lr == LZMA_MEM_ERROR                                    ? CODEC_NOMEM
                 : lr == LZMA_OPTIONS_ERROR || lr == LZMA_MEMLIMIT_ERROR ? CODEC_UNKNOWN
                                                                         : CODEC_DAMAGED;
    }
    if (!rc && z->avail_in)
        rc = CODEC_DAMAGED;
    lzma_end(z);
    return rc;
}

static enum codec_rc lzma_raw(const struct py_filter *f, size_t filters, const uint8_t *in,
                              size_t n, struct sink *s)
{
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_filter chain[PY_FILTERS + 1];
    lzma_options_lzma lz[PY_FILTERS];
    lzma_options_delta delta[PY_FILTERS];
    if (!filters || filters > PY_FILTERS)
        return CODEC_UNKNOWN;
    for (size_t i = 0; i < filters; i++) {
        chain[i] = (lzma_filter){.id = f[i].id};
        if (f[i].id == LZMA_FILTER_LZMA1 || f[i].id == LZMA_FILTER_LZMA2) {
            if (lzma_lzma_preset(&lz[i], f[i].preset ? f[i].preset : LZMA_PRESET_DEFAULT))
                return CODEC_UNKNOWN;
            if (f[i].dict_size)
                lz[i].dict_size = f[i].dict_size;
            if (f[i].has_lc)
                lz[i].lc = f[i].lc;
            if (f[i].has_lp)
                lz[i].lp = f[i].lp;
            if (f[i].has_pb)
                lz[i].pb = f[i].pb;
            if (lz[i].dict_size > LZMA_MEMORY)
                return CODEC_UNKNOWN;
            chain[i].options = &lz[i];
        } else if (f[i].id == LZMA_FILTER_DELTA) {
            delta[i] = (lzma_options_delta){.type = LZMA_DELTA_TYPE_BYTE,
                                            .dist = f[i].dist ? f[i].dist : 1};
            chain[i].options = &delta[i];
        }
    }
    chain[filters] = (lzma_filter){.id = LZMA_VLI_UNKNOWN};
    lzma_ret lr = lzma_raw_decoder(&z, chain);
    if (lr != LZMA_OK)
        return lr == LZMA_MEM_ERROR ? CODEC_NOMEM : CODEC_UNKNOWN;
    return lzma_run(&z, in, n, s);
}

static enum codec_rc lzma_file(enum packer p, const uint8_t *in, size_t n, struct sink *s)
{
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_ret lr = p == PACK_XZ           ? lzma_stream_decoder(&z, LZMA_MEMORY, LZMA_CONCATENATED)
                  : p == PACK_LZMA_ALONE ? lzma_alone_decoder(&z, LZMA_MEMORY)
                                         : lzma_auto_decoder(&z, LZMA_MEMORY, LZMA_CONCATENATED);
    return lr != LZMA_OK ? CODEC_NOMEM : lzma_run(&z, in, n, s);
}

static enum codec_rc brotli_all(const uint8_t *in, size_t n, struct sink *s)
{
    BrotliDecoderState *b = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    BrotliDecoderResult br = BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT;
    enum codec_rc rc = CODEC_OK;
    if (!b)
        return CODEC_NOMEM;
    while (!rc && br == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT) {
        if ((rc = sink_room(s)))
            break;
        uint8_t *out = s->p + s->n;
        size_t left = s->size - s->n;
        br = BrotliDecoderDecompressStream(b, &n, &in, &left, &out, NULL);
        s->n = s->size - left;
    }
    if (!rc && (br != BROTLI_DECODER_RESULT_SUCCESS || n))
        rc = CODEC_DAMAGED;
    BrotliDecoderDestroyInstance(b);
    return rc;
}

static enum codec_rc zstd_all(const uint8_t *in, size_t n, struct sink *s)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    ZSTD_inBuffer ib = {in, n, 0};
    enum codec_rc rc = CODEC_OK;
    size_t want = 1;
    if (!z)
        return CODEC_NOMEM;
    ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 27);
    while (!rc && (ib.pos < ib.size || want)) {
        if ((rc = sink_room(s)))
            break;
        ZSTD_outBuffer ob = {s->p, s->size, s->n};
        size_t before = ib.pos, had = s->n;
        want = ZSTD_decompressStream(z, &ob, &ib);
        s->n = ob.pos;
        if (ZSTD_isError(want) || (want && ib.pos == before && ob.pos == had))
            rc = CODEC_DAMAGED;
    }
    ZSTD_freeDStream(z);
    return rc;
}

/* All streams, one after the other. */
static enum codec_rc bz2_all(const uint8_t *in, size_t n, struct sink *s)
{
    bz_stream z = {.next_in = (char *)(uintptr_t)in, .avail_in = (unsigned)n};
    enum codec_rc rc = CODEC_OK;
    int br = BZ_OK;
    if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
        return CODEC_NOMEM;
    while (!rc && br != BZ_STREAM_END) {
        if ((rc = sink_room(s)))
            break;
        unsigned had = z.avail_in;
        z.next_out = (char *)s->p + s->n;
        z.avail_out = (unsigned)(s->size - s->n);
        br = BZ2_bzDecompress(&z);
        bool still = z.avail_in == had && s->n == s->size - z.avail_out;
        s->n = s->size - z.avail_out;
        if (br == BZ_STREAM_END && z.avail_in) {
            bz_stream rest = {.next_in = z.next_in, .avail_in = z.avail_in};
            BZ2_bzDecompressEnd(&z);
            z = rest;
            if ((br = BZ2_bzDecompressInit(&z, 0, 0)) != BZ_OK)
                return CODEC_NOMEM;
        } else if (br == BZ_MEM_ERROR) {
            rc = CODEC_NOMEM;
        } else if (br != BZ_STREAM_END && (br != BZ_OK || still)) {
            rc = CODEC_DAMAGED;
        }
    }
    BZ2_bzDecompressEnd(&z);
    return rc;
}

enum codec_rc unpack(enum packer p, const struct py_filter *f, size_t filters, const uint8_t *in,
                     size_t n, size_t cap, uint8_t **out, size_t *out_n)
{
    struct sink s = {.cap = cap};
    enum codec_rc rc = CODEC_UNKNOWN;
    *out = NULL;
    *out_n = 0;
    if (n > UINT32_MAX / 2) /* zlib counts in 32 bits */
        return CODEC_BOMB;
    switch (p) {
    case PACK_ZLIB:
        rc = inflate_all(15, false, in, n, &s);
        break;
    case PACK_DEFLATE:
        rc = inflate_all(-15, false, in, n, &s);
        break;
    case PACK_GZIP:
        rc = inflate_all(31, true, in, n, &s);
        break;
    case PACK_XZ:
    case PACK_LZMA_ALONE:
    case PACK_LZMA_AUTO:
        rc = lzma_file(p, in, n, &s);
        break;
    case PACK_LZMA_RAW:
        rc = lzma_raw(f, filters, in, n, &s);
        break;
    case PACK_BROTLI:
        rc = brotli_all(in, n, &s);
        break;
    case PACK_ZSTD:
        rc = zstd_all(in, n, &s);
        break;
    case PACK_BZ2:
        rc = bz2_all(in, n, &s);
        break;
    case PACKERS:
        break;
    }
    if (!rc && s.n > cap)
        rc = CODEC_BOMB;
    if (rc) {
        free(s.p);
        return rc;
    }
    s.p[s.n] = 0; /* sink_room keeps a byte for it */
    *out = s.p;
    *out_n = s.n;
    return CODEC_OK;
}

const char *unpack_raw_name(const struct py_filter *f, size_t filters, char *out, size_t cap)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < filters && n < cap; i++) {
        const char *name = f[i].id == LZMA_FILTER_LZMA1   ? "lzma1"
                           : f[i].id == LZMA_FILTER_LZMA2 ? "lzma2"
                           : f[i].id == LZMA_FILTER_DELTA ? "delta"
                                                          : "bcj";
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i ? "." : "", name);
    }
    if (n < cap)
        snprintf(out + n, cap - n, "-raw");
    return out;
}

enum packer unpack_magic(const uint8_t *in, size_t n)
{
    if (n >= 6 && !memcmp(in,
                          "\xfd"
                          "7zXZ",
                          6))
        return PACK_XZ;
    if (n >= 4 && !memcmp(in, "\x28\xb5\x2f\xfd", 4))
        return PACK_ZSTD;
    if (n >= 4 && !memcmp(in, "BZh", 3) && in[3] >= '1' && in[3] <= '9')
        return PACK_BZ2;
    if (n >= 2 && in[0] == 0x1f && in[1] == 0x8b)
        return PACK_GZIP;
    if (n >= 13 && in[0] == 0x5d && in[1] == 0 && in[2] == 0)
        return PACK_LZMA_ALONE;
    if (n >= 2 && (in[0] & 0x0f) == 8 && in[0] >> 4 <= 7 && (in[0] << 8 | in[1]) % 31 == 0)
        return PACK_ZLIB;
    return PACKERS;
}
