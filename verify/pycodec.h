/*
 * pycodec.h - what Python's base64, binascii, zlib, gzip, lzma, bz2, brotli and zstd modules
 * decode, with an end to what comes out.
 *
 * Every function makes a malloc'ed buffer *out of *n bytes (one more is allocated, zero) that the
 * caller frees, or leaves *out NULL and says why not.
 */
#ifndef VERIFY_PYCODEC_H
#define VERIFY_PYCODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum codec_rc {
    CODEC_OK,
    CODEC_DAMAGED, /* not this format, cut off, or a check failed */
    CODEC_BOMB,    /* more than cap bytes */
    CODEC_UNKNOWN, /* a filter or variety that is not decoded here */
    CODEC_NOMEM,
};
extern const char *const codec_rc_text[]; /* "damaged" ... */

enum text_codec { TEXT_B85, TEXT_Z85, TEXT_A85, TEXT_B64, TEXT_B64URL, TEXT_B32, TEXT_HEX, TEXTS };
extern const char *const text_codec_name[TEXTS]; /* "b85" ... */

/*
 * text_decode - characters to bytes. Blanks and line ends are skipped everywhere but in b85 (as in
 * Python, where they are an error there); ascii85 may stand between <~ and ~>; base64 skips what is
 * not in its alphabet. `lenient` skips blanks in b85 too, for guessing.
 */
enum codec_rc text_decode(enum text_codec codec, const uint8_t *in, size_t n, bool lenient,
                          uint8_t **out, size_t *out_n);

enum packer {
    PACK_ZLIB,
    PACK_DEFLATE, /* zlib without header: wbits < 0 */
    PACK_GZIP,
    PACK_XZ,
    PACK_LZMA_ALONE,
    PACK_LZMA_AUTO, /* xz or LZMA-alone, by its first byte */
    PACK_LZMA_RAW,  /* filters as given */
    PACK_BROTLI,
    PACK_ZSTD,
    PACK_BZ2,
    PACKERS
};
extern const char *const packer_name[PACKERS]; /* "zlib", "deflate-raw", "lzma-xz" ... */

/* Filters of a raw LZMA stream, as liblzma numbers them; 0 is "the default" everywhere. */
enum { PY_FILTERS = 4 };
struct py_filter {
    uint64_t id;
    uint32_t preset, dict_size, lc, lp, pb, dist;
    bool has_lc, has_lp, has_pb;
};

/*
 * unpack - decompress, at most cap bytes.
 *
 *   f, filters  for PACK_LZMA_RAW, else NULL and 0
 *
 * Several streams behind one another are decoded as one where Python does so (gzip, xz, bz2).
 * What lies behind the last one is damage, except for zlib, where Python refuses it as well.
 */
enum codec_rc unpack(enum packer p, const struct py_filter *f, size_t filters, const uint8_t *in,
                     size_t n, size_t cap, uint8_t **out, size_t *out_n);

/* unpack_raw_name - "lzma2-raw", "lzma1-raw", "delta+lzma2-raw" ... into out[cap]. */
const char *unpack_raw_name(const struct py_filter *f, size_t filters, char *out, size_t cap);

/* unpack_magic - which packer the first bytes name, PACKERS when none does. */
enum packer unpack_magic(const uint8_t *in, size_t n);

#endif
