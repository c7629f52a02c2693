/*
 * needs.h - which shared objects a program needs: what a submission would leave outside of its
 * count.
 *
 * The runner of a submission is an ELF program. One that is linked dynamically brings only part of
 * itself; the rest (libc, a CUDA library, anything else) comes from the machine and is in no count.
 */
#ifndef VERIFY_NEEDS_H
#define VERIFY_NEEDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum { NEEDS_MAX = 64, NEEDS_NAME = 128 };

struct needs {
    size_t count;                     /* names, in the order of the file */
    char name[NEEDS_MAX][NEEDS_NAME]; /* characters other than printable ASCII become '?' */
};

/*
 * needs_list - the interpreter (PT_INTERP) and every DT_NEEDED of a 64-bit little-endian ELF
 * program in elf[n]. A static program has none.
 *
 * Fails: ERR_INPUT with the reason when it is no such program, or its headers lead outside of it.
 * `where` begins the message.
 */
enum err_code needs_list(struct needs *out, const uint8_t *elf, size_t n, const char *where,
                         struct err *e);

#endif
