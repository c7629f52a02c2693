/* hash.c - see hash.h. */
#include "trainer/hash.h"

#include <inttypes.h>
#include <stdio.h>

#include <xxhash.h>

uint64_t hash_bytes(const void *data, size_t n, uint64_t seed)
{
    return XXH64(data, n, seed);
}

const char *hash_hex(uint64_t h, char *out)
{
    snprintf(out, 17, "%016" PRIx64, h);
    return out;
}
