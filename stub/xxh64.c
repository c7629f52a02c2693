/* xxh64.c - see xxh64.h. */
#include "stub/xxh64.h"

/* The five primes of the specification. */
#define P1 0x9E3779B185EBCA87u
#define P2 0xC2B2AE3D27D4EB4Fu
#define P3 0x165667B19E3779F9u
#define P4 0x85EBCA77C2B2AE63u
#define P5 0x27D4EB2F165667C5u

/*
 * Little-endian loads of one instruction. model/reader.h has the general ones, which -Oz turns into
 * calls; here and in the loader every byte counts.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "use le32 and le64 on such a machine");

/* Hides from the compiler what it knows of a variable, so that it keeps it in a register. */
#define OPAQUE(x) __asm__("" : "+r"(x))

#define TINY static inline __attribute__((always_inline))

TINY uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

TINY uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

TINY uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

uint64_t xxh64(const uint8_t *data, size_t n)
{
    /* Constants of 10 bytes each in the code; hidden like this they are loaded once. */
    uint64_t p1 = P1, p2 = P2, p3 = P3, p4 = P4, p5 = P5;
    OPAQUE(p1);
    OPAQUE(p2);
    OPAQUE(p3);
    OPAQUE(p4);
    OPAQUE(p5);
    uint64_t lane[4] = {p1 + p2, p2, 0, 0 - p1};
    uint64_t h = p5;
    size_t left = n;
    if (left >= 32) {
        for (; left >= 32; left -= 32)
            for (int i = 0; i < 4; i++, data += 8)
                lane[i] = rotl(lane[i] + load64(data) * p2, 31) * p1;
        h = rotl(lane[0], 1) + rotl(lane[1], 7) + rotl(lane[2], 12) + rotl(lane[3], 18);
        for (int i = 0; i < 4; i++)
            h = (h ^ rotl(lane[i] * p2, 31) * p1) * p1 + p4;
    }
    h += n;
    for (; left >= 8; left -= 8, data += 8)
        h = rotl(h ^ rotl(load64(data) * p2, 31) * p1, 27) * p1 + p4;
    if (left >= 4) {
        h = rotl(h ^ load32(data) * p1, 23) * p2 + p3;
        left -= 4;
        data += 4;
    }
    for (; left; left--)
        h = rotl(h ^ *data++ * p5, 11) * p1;
    h = (h ^ h >> 33) * p2;
    h = (h ^ h >> 29) * p3;
    return h ^ h >> 32;
}
