/*
 * weights_dec.h - from the stored weight section to tensors.
 *
 * Decoding has two steps: weights_decode turns the stored bytes into the payload (layout: WT_* in
 * stub/format.h, docs/format.md), and a cursor walks over the tensors inside it. Linked into the
 * runner and into verify; written for size, integers only, so every machine gets the same bytes.
 * Needs nothing of libc but memset; in a runner, the function code_unpack (stub/code_dec.h).
 * Whatever the input is, nothing outside the given buffers is touched. Compiled with
 * WEIGHTS_CM_ONLY, as in a runner, it has the codecs "none" and "cm" alone.
 *
 *     uint8_t *payload = ...raw_size bytes, aligned to 8...;
 *     struct weights_cursor c;
 *     struct tensor_view t;
 *     if (!weights_decode(codec, params, stored, size, payload, raw_size, work))
 *         ... damaged, or a codec that is not built in ...
 *     weights_open(&c, payload, raw_size);
 *     while (weights_next(&c, &t))
 *         ... t.name, t.dtype, t.shape, t.data ...
 *     if (c.bad)
 *         ... damaged ...
 */
#ifndef STUB_WEIGHTS_DEC_H
#define STUB_WEIGHTS_DEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/tensor.h"
#include "stub/cm_dec.h"
#include "stub/code_dec.h"
#include "stub/format.h"

struct pool; /* kernels/cpu/pool.h */

/* Where the walk is. Offsets into the payload; only `bad` is for the caller to read. */
struct weights_cursor {
    const uint8_t *payload;
    size_t table, table_end, data, end;
    uint32_t left; /* tensors */
    bool bad;
};

/* Bytes of workspace that weights_decode needs, aligned to 8, whatever the codec; most of them are
 * only touched where a file has many streams. */
#define WEIGHTS_WORK ((CM_STREAMS_MAX + 1) * CM_WORK)

/*
 * weights_decode_on - decode the stored bytes of a weight section.
 *
 *   pool     threads that share the work of codec cm, or NULL: alone; the bytes are the same
 *   codec    CODEC_NONE, CODEC_LZMA, CODEC_RANGE or CODEC_CM; others are refused
 *   params   [8] the codec parameters of the section entry (SEC_PARAMS)
 *   in       [in_n] the stored bytes
 *   payload  [raw_size] out, aligned to 8; must not overlap in
 *   work     [WEIGHTS_WORK] workspace, aligned to 8, contents irrelevant before and after
 *
 * Returns false when the codec is not built in or the bytes are damaged: then payload holds
 * garbage. True promises that all of in was used and payload filled, not that its table is sound:
 * the cursor says that. Time is bounded by in_n + raw_size (of codec cm: by what cm_dec.h says).
 */
bool weights_decode_on(struct pool *pool, uint32_t codec, const uint8_t *params, const uint8_t *in,
                       size_t in_n, uint8_t *payload, size_t raw_size, void *work);

/* weights_decode - the same, alone. */
static inline bool weights_decode(uint32_t codec, const uint8_t *params, const uint8_t *in,
                                  size_t in_n, uint8_t *payload, size_t raw_size, void *work)
{
    return weights_decode_on(NULL, codec, params, in, in_n, payload, raw_size, work);
}

/* weights_open - put a cursor before the first tensor. A payload that is too short sets c->bad. */
void weights_open(struct weights_cursor *c, const uint8_t *payload, size_t raw_size);

/*
 * weights_next - the next tensor. t->name and t->data point into the payload and live as long as it
 * does; the data is aligned to its element when the payload is aligned to 8. Returns false at the
 * end and on damage (then c->bad is set).
 *
 * A walk that ended without `bad` has seen every byte of the payload: the table is used up, each
 * tensor lies inside, padding is zero, nothing follows the last one. Duplicate names are the
 * caller's concern.
 */
bool weights_next(struct weights_cursor *c, struct tensor_view *t);

#endif
