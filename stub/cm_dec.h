/*
 * cm_dec.h - decoder of the weight codec "cm" (docs/format.md): context mixing, made for quantised
 * matrices.
 *
 * The tensors of a payload are coded in independent streams: first one with everything that is no
 * int8 matrix, then some with the matrices, each with a model of its own. So the streams of
 * matrices can be decoded at the same time:
 *
 *     struct cm_file f;
 *     if (!cm_open(&f, params, in, in_n, payload, raw_size, work))
 *         ... damaged ...
 *     for each s from 1 to f.streams, by any thread, each with workspace of its own:
 *         if (!cm_stream(&f, s, work))
 *             ... damaged ...
 *
 * Integers only: every machine gets the same bytes. Needs nothing from libc. Whatever the input is,
 * nothing outside the given buffers is touched, and the work is bounded: per element at most 140
 * decisions and, in a matrix whose similar rows are searched, one multiplication for each of at
 * most CM_ROWS (8192) rows.
 */
#ifndef STUB_CM_DEC_H
#define STUB_CM_DEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CM_STREAMS_MAX = 8 };

/* Bytes of workspace of one stream, aligned to 8. */
#define CM_WORK ((size_t)3 << 20)

/*
 * Stored bytes: u32 raw size of the head, u32 stored size of the head, the head (the payload up to
 * the end of the table, as a stream of codec "code"), u8 number of streams with matrices; then for
 * each stream u32 size and the stream. Number 0 has everything but the matrices. A matrix belongs
 * to number 1 + floor(m * streams / all), where `all` counts the elements of all matrices and m
 * those up to the middle of this one.
 */
struct cm_file {
    uint8_t *payload;
    size_t raw_size;
    uint64_t all;
    unsigned streams; /* with matrices: 1 to this */
    struct {
        const uint8_t *in, *end;
    } stream[CM_STREAMS_MAX + 1];
};

/*
 * cm_open - find the streams, decode the table and stream 0.
 *
 *   params   [8] 0, or lc, lp, pb of a head that is an LZMA stream, as it was before
 *   in       [in_n] the stored bytes; they and the payload must live as long as f is used
 *   payload  [raw_size] out, aligned to 8; must not overlap in
 *   work     [WEIGHTS_WORK] workspace, aligned to 8, contents irrelevant before and after
 *
 * False when the bytes are damaged. True promises that the table is sound.
 */
bool cm_open(struct cm_file *f, const uint8_t *params, const uint8_t *in, size_t in_n,
             uint8_t *payload, size_t raw_size, void *work);

/* cm_stream - decode stream s, 1 to f->streams. False when it is damaged: too short or too long. */
bool cm_stream(const struct cm_file *f, unsigned s, void *work);

#endif
