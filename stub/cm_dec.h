/*
 * cm_dec.h - decoder of the weight codec "cm" (docs/format.md): context mixing, made for quantised
 * matrices.
 *
 * The tensors of a payload are coded in independent streams: some with the int8 matrices, each with
 * its share of the payload, and one with everything else, which comes first in time and last in the
 * file; each has a model of its own. So the streams of matrices can be decoded at the same time:
 *
 *     struct cm_file f;
 *     if (!cm_open(&f, params, in, in_n, payload, raw_size, work))
 *         ... damaged ...
 *     for each s below f.streams, by any thread: cm_stream(&f, s, 0);
 *     if (one of f.good[0 to f.streams - 1] is false)
 *         ... damaged ...
 *
 * Integers only: every machine gets the same bytes. Needs nothing from libc but memset. Whatever
 * the input is, nothing outside the given buffers is touched, and the work is bounded: per element
 * at most 16 decisions and, in a matrix whose similar rows are searched, one multiplication for
 * each of at most 4096 rows.
 */
#ifndef STUB_CM_DEC_H
#define STUB_CM_DEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CM_STREAMS_MAX = 8 };

/* Bytes of workspace of one stream. */
#define CM_WORK ((size_t)11 << 19)

/*
 * Stored bytes: u32 raw size of the head, u32 stored size of the head, the head (the payload up to
 * the end of the table, as a stream of codec "code"), u8 number of streams with matrices; then each
 * stream, that of everything else behind the others, as u32 `to`, u32 size, and its bytes. A stream
 * has the matrices that begin at byte `from` of the payload or behind, but before `to`, where
 * `from` is the `to` of the stream before; of the last two it is the size of the payload.
 */
struct cm_file {
    uint8_t *payload, *work;
    size_t raw_size, streams; /* with matrices */
    const uint8_t *parts;     /* the first stream */
    size_t matrices_end;      /* in the payload; not in a runner, nor is this: */
    bool good[CM_STREAMS_MAX + 1];
};

/*
 * cm_open - find the streams, decode the table and everything that is no matrix.
 *
 *   params   [8] 0, or lc, lp, pb of a head that is an LZMA stream
 *   in       [in_n] the stored bytes; they, the payload and work must live as long as f is used
 *   payload  [raw_size] out, aligned to 8; must not overlap in
 *   work     [WEIGHTS_WORK] workspace, aligned to 8; in a runner it and the payload are all zero,
 *            elsewhere their contents are irrelevant
 *
 * False when the bytes are damaged. True promises that the table is sound.
 */
bool cm_open(struct cm_file *f, const uint8_t *params, const uint8_t *in, size_t in_n,
             uint8_t *payload, size_t raw_size, void *work);

/* cm_stream - decode stream s of file, a struct cm_file; f->good[s] becomes false when it is too
 * short or too long. A task of a pool (kernels/cpu/pool.h); `thread` does not matter. */
void cm_stream(void *file, size_t s, size_t thread);

#endif
