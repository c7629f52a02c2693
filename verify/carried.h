/*
 * carried.h - does a submission carry the text that it is scored on?
 *
 * Validation data must not be in the artifact ("paid prefix", R-NO-VAL in docs/rules.md). Searched
 * are verbatim runs of the token stream, 16 bits per token, at any byte of a decoded section. A run
 * of CARRIED_RUN tokens or more is always found, a shorter one down to CARRIED_BLOCK sometimes.
 * Text that is compressed or written in another way once more is not found by this.
 *
 * How: a table of every block of CARRIED_BLOCK tokens whose number is a multiple of that, by hash;
 * a rolling hash over the section (Karp and Rabin, 1987), every hit compared byte by byte.
 */
#ifndef VERIFY_CARRIED_H
#define VERIFY_CARRIED_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum {
    CARRIED_BLOCK = 32,
    CARRIED_RUN = 2 * CARRIED_BLOCK - 1,
    CARRIED_DISTINCT = 8 /* blocks of fewer different tokens say nothing: zeros are everywhere */
};

struct carried_index {
    const uint16_t *tok; /* [n], the caller's */
    size_t n;
    uint32_t *slot; /* block number + 1, 0: empty */
    unsigned shift; /* 64 - log2 of the number of slots */
    uint8_t *filter;
};

struct carried {
    size_t tokens;          /* in all runs that were found */
    size_t run, from, byte; /* the longest: its tokens, the first one's number, where it lies */
};

/* carried_open - the index of a stream that stays alive while it is used; 8 bytes per block at
 * most, and 2 MiB. ERR_RESOURCE without memory. carried_close accepts a zeroed struct. */
enum err_code carried_open(struct carried_index *x, const uint16_t *tok, size_t n, struct err *e);
void carried_close(struct carried_index *x);

/* carried_scan - what data[bytes] has of the stream. */
struct carried carried_scan(const struct carried_index *x, const uint8_t *data, size_t bytes);

#endif
