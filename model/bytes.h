/*
 * bytes.h - how many bytes of text a token stands for: the denominator of bits per byte.
 *
 * The challenge's rule (spec section 1.2): control, unknown and unused pieces count 0 bytes and are
 * boundaries; a byte piece counts 1; any other piece counts the UTF-8 length of its text without a
 * leading U+2581, which stands for a space and counts 1 more unless the previous token is a
 * boundary.
 */
#ifndef MODEL_BYTES_H
#define MODEL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum { BYTES_LEAD = 1, BYTES_BOUNDARY = 2 };

/* Serialised as u32 vocab, then per id u8 base and u8 flags: the byte_table section of a submission
 * and the file byte_table.bin beside weights (docs/format.md). */
struct byte_table {
    size_t vocab;
    uint8_t *base, *flags; /* [vocab] each; one allocation, owned */
};

/* bytes_parse - from the serialised form. ERR_INPUT when sizes or flags are wrong. */
enum err_code bytes_parse(struct byte_table *b, const void *data, size_t n, const char *path,
                          struct err *e);
/* bytes_from_tokenizer - from a SentencePiece .model file (its protobuf is read directly). */
enum err_code bytes_from_tokenizer(struct byte_table *b, const char *path, struct err *e);
/* bytes_serialise - into out, 4 + 2*vocab bytes. */
void bytes_serialise(const struct byte_table *b, uint8_t *out);
void bytes_free(struct byte_table *b);

static inline unsigned bytes_of(const struct byte_table *b, uint16_t prev, uint16_t tok)
{
    bool space = (b->flags[tok] & BYTES_LEAD) && !(b->flags[prev] & BYTES_BOUNDARY);
    return (unsigned)b->base[tok] + space;
}

#endif
