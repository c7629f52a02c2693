/*
 * ptz_codec.h - the general compressors that records wrap their weights in.
 *
 * Packed files name their compressor by their first bytes, except brotli, which has no magic number
 * and is what is left when nothing else fits. Unlike packer/codec.h, these are for exchanging files
 * with other programs and never part of a submission.
 */
#ifndef PACKER_PTZ_CODEC_H
#define PACKER_PTZ_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum ptz_codec {
    PTZ_RAW,
    PTZ_ZLIB, /* zlib or gzip; zlib is written */
    PTZ_LZMA, /* an xz stream */
    PTZ_ZSTD,
    PTZ_BROTLI,
    PTZ_CODECS,                  /* those above are written too, those below only read */
    PTZ_LZMA_ALONE = PTZ_CODECS, /* the .lzma format: properties, dictionary size, length */
    PTZ_LZMA_RAW,                /* LZMA2 chunks without anything around them */
    PTZ_READ_CODECS,
};

/* ptz_codec_name - "raw", "zlib", "lzma", "zstd", "brotli", "lzma (alone)", "lzma (raw)". */
const char *ptz_codec_name(enum ptz_codec c);

/* ptz_codec_parse - the compressor of that name; ERR_USAGE when there is none ("raw" is none). */
enum err_code ptz_codec_parse(enum ptz_codec *c, const char *name, struct err *e);

/* ptz_codec_level - the level that the records use: brotli 11, zstd 22, lzma 6, zlib 9 (PR #1296,
 * #1263, #1276, the baseline); 0 for raw. */
int ptz_codec_level(enum ptz_codec c);

/* ptz_codec_guess - by the first bytes. Raw is what begins as a zip archive, a pickle of protocol 2
 * to 5, a NumPy array, or a byte shuffle; brotli is the answer when there is none. */
enum ptz_codec ptz_codec_guess(const uint8_t *data, size_t n);

/*
 * ptz_expand - decompress n bytes; *out is for the caller to free().
 *
 *   limit  more output than this is refused: a small file can claim any amount
 *   path   names the input in errors
 *
 * The stream must end where the input ends. Fails: ERR_INPUT for damage, bytes behind the end or
 * more than limit; ERR_RESOURCE without memory.
 */
enum err_code ptz_expand(uint8_t **out, size_t *out_n, enum ptz_codec c, const uint8_t *in,
                         size_t n, size_t limit, const char *path, struct err *e);

/*
 * ptz_compress - compress n bytes; *out is for the caller to free().
 *
 *   level  0: ptz_codec_level
 *
 * One xz stream with CRC64, one zstd frame with its content size, a zlib stream, a brotli stream of
 * window 2^22: what the Python modules of these names write. The same input gives the same bytes
 * with the same version of the library. Fails: ERR_USAGE for a level that the compressor does not
 * have, ERR_RESOURCE without memory.
 */
enum err_code ptz_compress(uint8_t **out, size_t *out_n, enum ptz_codec c, int level,
                           const uint8_t *in, size_t n, struct err *e);

#endif
