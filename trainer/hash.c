/* hash.c - see hash.h. */
#include "trainer/hash.h"

#include <inttypes.h>
#include <stdio.h>

#include <xxhash.h>

uint64_t hash_bytes(const void *data, size_t n, uint64_t seed)
{
    return XXH64(data, n, seed);
}

/* What the library calls its state. */
static XXH64_state_t *state(struct hash *h)
{
    return (XXH64_state_t *)h;
}

struct hash *hash_open(uint64_t seed)
{
    XXH64_state_t *s = XXH64_createState();
    if (s)
        XXH64_reset(s, seed);
    return (struct hash *)s;
}

void hash_add(struct hash *h, const void *data, size_t n)
{
    if (h)
        XXH64_update(state(h), data, n);
}

uint64_t hash_close(struct hash *h)
{
    uint64_t value = h ? XXH64_digest(state(h)) : 0;
    XXH64_freeState(state(h));
    return value;
}

const char *hash_hex(uint64_t h, char *out)
{
    snprintf(out, 17, "%016" PRIx64, h);
    return out;
}
