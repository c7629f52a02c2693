/*
 * tiny_zip.h - a zip archive of one stored file, and compiled Python code to put into it.
 */
#ifndef TESTS_TINY_ZIP_H
#define TESTS_TINY_ZIP_H

#include <string.h>

#include <zlib.h>

#include "model/reader.h"

enum { ZIP_LOCAL = 30, ZIP_CENTRAL = 46, ZIP_END = 22 };

/* Code of Python 3.11 with the constant 'mark', without its header. */
static const uint8_t tiny_code[] =
    "c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0s\2\0\0\0d\0)\1z\4mark)\0)"
    "\0s\0\0\0\0z\1xz\1fz\1f\1\0\0\0s\0\0\0\0s\0\0\0\0";
enum { TINY_CODE = sizeof tiny_code - 1, TINY_PYC = 16 + TINY_CODE };

/* A .pyc file of it. */
static inline void tiny_pyc(uint8_t out[TINY_PYC])
{
    memset(out, 0, 16);
    memcpy(out, "\xa7\x0d\r\n", 4); /* 3495 */
    memcpy(out + 16, tiny_code, TINY_CODE);
}

/* Bytes of an archive that holds n bytes under a name. */
static inline size_t tiny_zip_size(const char *name, size_t n)
{
    return ZIP_LOCAL + ZIP_CENTRAL + ZIP_END + 2 * strlen(name) + n;
}

/* The archive; the fields of the headers are those of APPNOTE 4.3.7, 4.3.12 and 4.3.16. */
static inline void tiny_zip(uint8_t *out, const char *name, const void *data, size_t n)
{
    size_t len = strlen(name), size = tiny_zip_size(name, n);
    uint8_t *central = out + ZIP_LOCAL + len + n, *end = out + size - ZIP_END;
    memset(out, 0, size);
    memcpy(out, "PK\3\4\12", 5);
    put_le32(out + 14, (uint32_t)crc32(0, data, (uInt)n));
    put_le32(out + 18, (uint32_t)n);
    put_le32(out + 22, (uint32_t)n);
    put_le32(out + 26, (uint32_t)len);
    memcpy(out + ZIP_LOCAL, name, len);
    memcpy(out + ZIP_LOCAL + len, data, n);
    memcpy(central, "PK\1\2\12\0\12", 7);
    memcpy(central + 16, out + 14, 16);
    memcpy(central + ZIP_CENTRAL, name, len);
    memcpy(end, "PK\5\6\0\0\0\0\1\0\1", 11);
    put_le32(end + 12, (uint32_t)(ZIP_CENTRAL + len));
    put_le32(end + 16, (uint32_t)(central - out));
}

#endif
