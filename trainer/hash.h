/* hash.h - XXH64 (Collet, github.com/Cyan4973/xxHash), seed 0: fingerprints of files and blocks. */
#ifndef TRAINER_HASH_H
#define TRAINER_HASH_H

#include <stddef.h>
#include <stdint.h>

/* hash_bytes - XXH64 of n bytes, `seed` chaining several pieces (0 for the first). */
uint64_t hash_bytes(const void *data, size_t n, uint64_t seed);

/* The same of bytes that come piece by piece. hash_open returns NULL when memory is short, and the
 * others do nothing then; hash_close releases. */
struct hash;
struct hash *hash_open(uint64_t seed);
void hash_add(struct hash *h, const void *data, size_t n);
uint64_t hash_close(struct hash *h);

/* hash_hex - 16 lower-case hex digits and NUL into out[17]; returns out. */
const char *hash_hex(uint64_t h, char *out);

#endif
