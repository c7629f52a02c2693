/*
 * codec.h - encoders: bytes in, the stored form of a section out.
 *
 * Decoders are in stub/ (lzma_dec.h, weights_dec.h), because submissions carry them; encoders are
 * here. Every encoder decodes what it made and compares before it returns, so a section that was
 * written can be read. The same input gives the same bytes (liblzma and libzstd: the same version
 * of the library).
 */
#ifndef PACKER_CODEC_H
#define PACKER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "stub/format.h"

/* A section in its stored form. Zero it first; coded_free accepts that and may be called twice. */
struct coded {
    uint32_t codec; /* enum codec */
    uint8_t params[8];
    uint8_t *data; /* owned */
    size_t size, raw_size;
};
void coded_free(struct coded *c);

/* codec_name - "lzma", "range", ...; "unknown" for a number that is none. */
const char *codec_name(uint32_t codec);

/* coded_none - a copy of the bytes as they are. */
enum err_code coded_none(struct coded *c, const void *raw, size_t n, struct err *e);

/*
 * coded_lzma - one raw LZMA1 stream, cut after the last byte that decoding needs.
 *
 * LZMA_SEARCH tries every lc, lp, pb and match finder that can matter and keeps the smallest; meant
 * for small inputs (100 KB: a few seconds). LZMA_QUICK tries a handful (10 MB: half a minute),
 * LZMA_PROBE one setting with the fast encoder (10 MB: a second). With x86 set, code is expected:
 * each setting is tried with and without the call filter (FILTER_X86). Fails: ERR_RESOURCE without
 * memory. n may be anything from 1 to 2^31 - 1.
 */
enum lzma_effort { LZMA_PROBE, LZMA_QUICK, LZMA_SEARCH };
enum err_code coded_lzma(struct coded *c, const void *raw, size_t n, enum lzma_effort effort,
                         bool x86, struct err *e);

/* coded_small - none or code, whichever is smaller: byte table, recipe, source. */
enum err_code coded_small(struct coded *c, const void *raw, size_t n, struct err *e);

/* coded_range - the range coder of stub/weights_dec.h. raw must be a weight payload
 * (packer/payload.h). */
enum err_code coded_range(struct coded *c, const void *raw, size_t n, struct err *e);

/* coded_zstd - one zstd frame at the highest level. */
enum err_code coded_zstd(struct coded *c, const void *raw, size_t n, struct err *e);

/*
 * coded_weights - a payload with the codec asked for. CODEC_AUTO takes the smaller of cm and lzma;
 * the latter is only tried in earnest when a probe with the fast encoder comes near. What their
 * decoders cost is for the caller to add (packer/pack.c). No runner has a decoder for zstd, so auto
 * never takes that.
 */
enum { CODEC_AUTO = -1 };
enum err_code coded_weights(struct coded *c, const void *raw, size_t n, int codec, struct err *e);

#endif
