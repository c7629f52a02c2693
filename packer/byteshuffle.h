/*
 * byteshuffle.h - the records' byte shuffle: bytes at equal positions within an element lie
 * together, which general compressors like better (PR #1260, #1285, #1296).
 *
 * Shuffled form: "BSHF", one byte stride k, then k planes; plane p holds the bytes at p, p+k,
 * p+2k, ... of the input, so floor(n/k) + (p < n mod k) of them. An input shorter than the stride
 * stays as it is, without a header. k is 2 to 255.
 */
#ifndef PACKER_BYTESHUFFLE_H
#define PACKER_BYTESHUFFLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BYTESHUFFLE_HEADER = 5 };

/* byteshuffle_size - bytes of the shuffled form of n bytes. */
size_t byteshuffle_size(size_t n, unsigned stride);

/* byteshuffle - writes byteshuffle_size(n, stride) bytes to out, which must not overlap in. */
void byteshuffle(uint8_t *out, const uint8_t *in, size_t n, unsigned stride);

/* byteshuffle_is - whether n bytes begin like a shuffled form. */
bool byteshuffle_is(const uint8_t *in, size_t n);

/* byteunshuffle - the inverse for an input that byteshuffle_is accepts: writes the n -
 * BYTESHUFFLE_HEADER original bytes to out, which must not overlap in. */
void byteunshuffle(uint8_t *out, const uint8_t *in, size_t n);

#endif
