/*
 * range_out.h - the output of a range encoder with carries, for the codecs range and cm.
 *
 * `low` is the lower end of the interval; its bit 32 is a carry into bytes that are decided
 * otherwise. So the last byte that a carry could change is held back, with the 0xFF bytes behind it
 * that it would run through. After the coder in Igor Pavlov's LZMA SDK (public domain).
 */
#ifndef PACKER_RANGE_OUT_H
#define PACKER_RANGE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Begins as {.out, .size (bytes that are there already), .cap, .range = UINT32_MAX, .run = 1}. */
struct range_out {
    uint8_t *out;
    size_t size, cap; /* size may exceed cap: then nothing more is stored */
    uint64_t low;
    uint32_t range;
    uint8_t held;
    size_t run; /* bytes held back: `held` and run - 1 bytes 0xFF */
    bool begun; /* the first byte held is a 0 before the stream, which is left out */
};

/* range_normalise - move bytes out of `low` until range is at least 2^24: after every symbol. */
void range_normalise(struct range_out *c);

/* range_finish - the bytes that are still inside. */
void range_finish(struct range_out *c);

#endif
