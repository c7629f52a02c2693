/* codec.c - the choices of codec.h; lzma.c, range.c and cm.c hold the encoders proper. */
#include "packer/codec.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "packer/cm.h"
#include "packer/code.h"

void coded_free(struct coded *c)
{
    free(c->data);
    memset(c, 0, sizeof *c);
}

const char *codec_name(uint32_t codec)
{
    static const char *const name[] = {
        [CODEC_NONE] = "none",   [CODEC_LZMA] = "lzma", [CODEC_ZSTD] = "zstd",
        [CODEC_RANGE] = "range", [CODEC_CM] = "cm",     [CODEC_CODE] = "code"};
    return codec < sizeof name / sizeof *name ? name[codec] : "unknown";
}

enum err_code coded_none(struct coded *c, const void *raw, size_t n, struct err *e)
{
    memset(c, 0, sizeof *c);
    c->data = malloc(n + 1);
    if (!c->data)
        return err_nomem(e, "section", n);
    memcpy(c->data, raw, n);
    c->codec = CODEC_NONE;
    c->size = c->raw_size = n;
    return ERR_OK;
}

/* Keep the smaller of two; the other is freed. */
static void keep_smaller(struct coded *c, struct coded *other)
{
    if (other->size < c->size) {
        struct coded swap = *c;
        *c = *other;
        *other = swap;
    }
    coded_free(other);
}

enum err_code coded_small(struct coded *c, const void *raw, size_t n, struct err *e)
{
    struct coded code = {0};
    enum err_code rc = coded_none(c, raw, n, e);
    if (rc || n == 0)
        return rc;
    rc = coded_code(&code, raw, n, e);
    if (rc) {
        coded_free(c);
        return rc;
    }
    keep_smaller(c, &code);
    return ERR_OK;
}

enum err_code coded_zstd(struct coded *c, const void *raw, size_t n, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t cap = ZSTD_compressBound(n), got = 0;
    uint8_t *out = malloc(cap), *back = malloc(n + 1);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    memset(c, 0, sizeof *c);
    if (!out || !back || !z) {
        rc = err_nomem(e, "zstd", cap);
        goto out;
    }
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, ZSTD_maxCLevel());
    got = ZSTD_compress2(z, out, cap, raw, n);
    if (ZSTD_isError(got) || ZSTD_decompress(back, n, out, got) != n || memcmp(back, raw, n)) {
        rc = err_set(e, ERR_RESOURCE, "zstd: %s",
                     ZSTD_isError(got) ? ZSTD_getErrorName(got) : "the round trip failed");
        goto out;
    }
    c->codec = CODEC_ZSTD;
    c->size = got;
    c->raw_size = n;
    c->data = out;
    out = NULL;
out:
    ZSTD_freeCCtx(z);
    free(out);
    free(back);
    return rc;
}

/* cm or lzma. (range is never smaller than cm; zstd has no decoder in a submission.) */
static enum err_code smallest(struct coded *c, const void *raw, size_t n, struct err *e)
{
    struct coded lzma = {0};
    enum err_code rc = coded_cm(c, raw, n, e);
    if (!rc)
        rc = coded_lzma(&lzma, raw, n, LZMA_PROBE, false, e);
    /* The fast encoder is a few percent behind the thorough one. */
    if (!rc && lzma.size < c->size + c->size / 16) {
        coded_free(&lzma);
        rc = coded_lzma(&lzma, raw, n, LZMA_QUICK, false, e);
    }
    if (rc)
        coded_free(c);
    else
        keep_smaller(c, &lzma);
    coded_free(&lzma);
    return rc;
}

enum err_code coded_weights(struct coded *c, const void *raw, size_t n, int codec, struct err *e)
{
    switch (codec) {
    case CODEC_AUTO:
        return smallest(c, raw, n, e);
    case CODEC_NONE:
        return coded_none(c, raw, n, e);
    case CODEC_LZMA:
        return coded_lzma(c, raw, n, LZMA_QUICK, false, e);
    case CODEC_ZSTD:
        return coded_zstd(c, raw, n, e);
    case CODEC_RANGE:
        return coded_range(c, raw, n, e);
    case CODEC_CM:
        return coded_cm(c, raw, n, e);
    default:
        return err_set(e, ERR_USAGE, "codec %s cannot be written by this version",
                       codec_name((uint32_t)codec));
    }
}
