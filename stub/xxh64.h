/*
 * xxh64.h - XXH64 with seed 0, the hash of every section of a submission.
 *
 * After the specification by Yann Collet (xxHash, doc/xxhash_spec.md). It guards against accidents;
 * it is no signature.
 */
#ifndef STUB_XXH64_H
#define STUB_XXH64_H

#include <stddef.h>
#include <stdint.h>

/* xxh64 - the hash of n bytes at data (any alignment; data may be NULL when n is 0). */
uint64_t xxh64(const uint8_t *data, size_t n);

/* xxh64_small - the loader's (xxh64.S): the same, with its arguments where they cost least. */
uint64_t xxh64_small(size_t n, const uint8_t *data);

#endif
