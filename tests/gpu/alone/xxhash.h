/*
 * xxhash.h - a stand-in for the part of xxHash that trainer/hash.c uses, so that `make test-gpu`
 * builds where only gcc and the CUDA toolkit are (the Makefile's ALONE). XXH64 after the
 * specification (Collet, xxHash, doc/xxhash_spec.md), for bytes that come piece by piece.
 */
#ifndef TESTS_GPU_ALONE_XXHASH_H
#define TESTS_GPU_ALONE_XXHASH_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"

enum { XXH64_STRIPE = 32, XXH64_LANES = 4 };

typedef struct {
    uint64_t seed, n, lane[XXH64_LANES];
    uint8_t rest[XXH64_STRIPE]; /* the last n % 32 bytes */
} XXH64_state_t;

/* The five primes of the specification. */
static const uint64_t XXH64_P[] = {0,
                                   0x9E3779B185EBCA87u,
                                   0xC2B2AE3D27D4EB4Fu,
                                   0x165667B19E3779F9u,
                                   0x85EBCA77C2B2AE63u,
                                   0x27D4EB2F165667C5u};

static inline uint64_t xxh64_rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static inline uint64_t xxh64_round(uint64_t lane, uint64_t x)
{
    return xxh64_rotl(lane + x * XXH64_P[2], 31) * XXH64_P[1];
}

static inline void xxh64_stripe(XXH64_state_t *s, const uint8_t *p)
{
    for (int i = 0; i < XXH64_LANES; i++)
        s->lane[i] = xxh64_round(s->lane[i], le64(p + 8 * i));
}

static inline XXH64_state_t *XXH64_createState(void)
{
    return calloc(1, sizeof(XXH64_state_t));
}

static inline int XXH64_freeState(XXH64_state_t *s)
{
    free(s);
    return 0;
}

static inline int XXH64_reset(XXH64_state_t *s, uint64_t seed)
{
    *s = (XXH64_state_t){
        .seed = seed,
        .lane = {seed + XXH64_P[1] + XXH64_P[2], seed + XXH64_P[2], seed, seed - XXH64_P[1]}};
    return 0;
}

static inline int XXH64_update(XXH64_state_t *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t have = s->n % XXH64_STRIPE;
    s->n += n;
    if (have && n >= XXH64_STRIPE - have) {
        memcpy(s->rest + have, p, XXH64_STRIPE - have);
        p += XXH64_STRIPE - have;
        n -= XXH64_STRIPE - have;
        xxh64_stripe(s, s->rest);
        have = 0;
    }
    for (; !have && n >= XXH64_STRIPE; n -= XXH64_STRIPE, p += XXH64_STRIPE)
        xxh64_stripe(s, p);
    if (n)
        memcpy(s->rest + have, p, n);
    return 0;
}

static inline uint64_t XXH64_digest(const XXH64_state_t *s)
{
    const uint64_t *P = XXH64_P;
    const uint8_t *p = s->rest;
    size_t left = s->n % XXH64_STRIPE;
    uint64_t h = s->seed + P[5];
    if (s->n >= XXH64_STRIPE) {
        static const int by[] = {1, 7, 12, 18};
        h = 0;
        for (int i = 0; i < XXH64_LANES; i++)
            h += xxh64_rotl(s->lane[i], by[i]);
        for (int i = 0; i < XXH64_LANES; i++)
            h = (h ^ xxh64_round(0, s->lane[i])) * P[1] + P[4];
    }
    h += s->n;
    for (; left >= 8; left -= 8, p += 8)
        h = xxh64_rotl(h ^ xxh64_round(0, le64(p)), 27) * P[1] + P[4];
    if (left >= 4) {
        h = xxh64_rotl(h ^ le32(p) * P[1], 23) * P[2] + P[3];
        left -= 4;
        p += 4;
    }
    for (; left; left--)
        h = xxh64_rotl(h ^ *p++ * P[5], 11) * P[1];
    h = (h ^ h >> 33) * P[2];
    h = (h ^ h >> 29) * P[3];
    return h ^ h >> 32;
}

static inline uint64_t XXH64(const void *data, size_t n, uint64_t seed)
{
    XXH64_state_t s;
    XXH64_reset(&s, seed);
    XXH64_update(&s, data, n);
    return XXH64_digest(&s);
}

#endif
