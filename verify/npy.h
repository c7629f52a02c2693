/*
 * npy.h - a list of doubles as a NumPy file: NumPy's .npy format, version 1.0, dtype '<f8', one
 * dimension.
 *
 * The format is NumPy's own (numpy/lib/format.py, NEP 1): the magic "\x93NUMPY", version bytes 1 0,
 * a little-endian u16 length, a Python dict literal padded with spaces and ended by a newline so
 * that the data starts at a multiple of 64, then the data. What npy_write makes is byte for byte
 * what numpy.save makes of the same array.
 */
#ifndef VERIFY_NPY_H
#define VERIFY_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

/* Size of the header that numpy.save and npy_write make for one dimension, whatever its length. */
enum { NPY_HEADER = 128 };

/* npy_header - the header of a float64 array of n elements. */
void npy_header(uint8_t out[NPY_HEADER], uint64_t n);

/*
 * npy_write - x[n] as a file, complete or not at all (a failure keeps an older file of that name).
 * Little-endian hosts only, which x86-64 is. ERR_INPUT or ERR_RESOURCE as atomic_open and
 * atomic_commit return them.
 */
enum err_code npy_write(const char *path, const double *x, size_t n, struct err *e);

/* npy_try - can npy_write make this file? Asked before hours of scoring; leaves nothing behind. */
enum err_code npy_try(const char *path, struct err *e);

/*
 * npy_parse - read a header that somebody else wrote, possibly still incomplete.
 *
 *   p, have  the first bytes of the file
 *   data     out: where the numbers start; 0 when more bytes are needed to say (then ERR_OK)
 *   count    out: how many numbers there are
 *   path     names the source in errors
 *
 * Versions 1.0 and 2.0, keys in any order. ERR_INPUT for anything that is not a one-dimensional
 * little-endian float64 array, and for a header longer than 4096 bytes.
 */
enum err_code npy_parse(const uint8_t *p, size_t have, size_t *data, uint64_t *count,
                        const char *path, struct err *e);

#endif
