/*
 * pymarshal.h - compiled Python code, read without running it.
 *
 * The format is that of Python's marshal module (Python/marshal.c of CPython, versions 2 to 5), in
 * which .pyc files and some self-extracting scripts carry code. It is a stream of typed objects;
 * the code object is one of them, and its layout changed with Python 3.8 and 3.11. What a text
 * auditor can have of it is a listing: the functions with their names and constants. The bytecode
 * itself is not decompiled; what it does stays unread, and who reports a listing says so.
 */
#ifndef VERIFY_PYMARSHAL_H
#define VERIFY_PYMARSHAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum {
    MARSHAL_NODES = 1 << 18,   /* objects of one stream */
    MARSHAL_DEPTH = 100,       /* objects inside objects */
    MARSHAL_LISTING = 1 << 20, /* bytes of a listing; it ends with a line that says so */
    MARSHAL_BLOBS = 32,        /* large constants kept */
    MARSHAL_LARGE = 128,       /* bytes that make a constant large */
    MARSHAL_HEADER = 16,       /* bytes in front of the code in a .pyc file (PEP 552) */
};

/* A constant that may be another packed text; it lies in the bytes that were read. */
struct marshal_blob {
    const uint8_t *p;
    size_t n;
    bool text; /* a str, else bytes */
};

struct pymarshal {
    char *listing; /* n bytes and a NUL; owned */
    size_t n;
    const char *version; /* whose code objects these are: "Python 3.8 to 3.10"; "" without one */
    size_t codes, names, constants;
    struct marshal_blob blob[MARSHAL_BLOBS];
    size_t blobs;
    char why[96]; /* after ERR_INPUT: what is wrong, and where */
};

/*
 * pymarshal_read - list n bytes of marshal data, which must outlive m.
 *
 * ERR_INPUT: no marshal data, damaged, or beyond a limit (m->why); ERR_RESOURCE: no memory. Bytes
 * behind the object are ignored, as Python does. Release with pymarshal_free in every case.
 */
enum err_code pymarshal_read(struct pymarshal *m, const void *data, size_t n, struct err *e);
void pymarshal_free(struct pymarshal *m); /* accepts a zeroed struct */

/* pymarshal_pyc - is this the beginning of a .pyc file of Python 3.7 or newer? */
bool pymarshal_pyc(const void *data, size_t n);

#endif
