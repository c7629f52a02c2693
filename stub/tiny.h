/*
 * tiny.h - what code that is written for size shares: the loader, and the hash inside it.
 */
#ifndef STUB_TINY_H
#define STUB_TINY_H

#include <stdint.h>

/*
 * Little-endian loads of one instruction. model/reader.h has the general ones, which -Oz turns into
 * calls; here every byte counts.
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

#endif
