/* xxh64.c - see xxh64.h. */
#include "stub/xxh64.h"

#include "model/reader.h"

/* The five primes of the specification. */
#define P1 0x9E3779B185EBCA87u
#define P2 0xC2B2AE3D27D4EB4Fu
#define P3 0x165667B19E3779F9u
#define P4 0x85EBCA77C2B2AE63u
#define P5 0x27D4EB2F165667C5u

static uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

uint64_t xxh64(const uint8_t *data, size_t n)
{
    uint64_t lane[4] = {P1 + P2, P2, 0, 0 - P1};
    uint64_t h = P5;
    size_t left = n;
    if (left >= 32) {
        for (; left >= 32; left -= 32)
            for (int i = 0; i < 4; i++, data += 8)
                lane[i] = rotl(lane[i] + le64(data) * P2, 31) * P1;
        h = rotl(lane[0], 1) + rotl(lane[1], 7) + rotl(lane[2], 12) + rotl(lane[3], 18);
        for (int i = 0; i < 4; i++)
            h = (h ^ rotl(lane[i] * P2, 31) * P1) * P1 + P4;
    }
    h += n;
    for (; left >= 8; left -= 8, data += 8)
        h = rotl(h ^ rotl(le64(data) * P2, 31) * P1, 27) * P1 + P4;
    if (left >= 4) {
        h = rotl(h ^ le32(data) * P1, 23) * P2 + P3;
        left -= 4;
        data += 4;
    }
    for (; left; left--)
        h = rotl(h ^ *data++ * P5, 11) * P1;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}
