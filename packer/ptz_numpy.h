/*
 * ptz_numpy.h - NumPy arrays as data: in pickles and as .npy files. Private to packer/ptz_*.c.
 *
 * Formats: numpy/lib/format.py documents .npy (versions 1 to 3); ndarray.__reduce__ and
 * __reduce_ex__ what a pickle holds: _reconstruct with a state below protocol 5, _frombuffer from
 * there on, scalar for a scalar. Little-endian numbers only.
 */
#ifndef PACKER_PTZ_NUMPY_H
#define PACKER_PTZ_NUMPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "model/tensor.h"
#include "packer/pickle.h"

struct ptz_array {
    enum st_dtype dtype;
    size_t ndim, shape[TENSOR_MAX_DIMS], elems;
    bool fortran;        /* column-major: the first index moves fastest */
    const uint8_t *data; /* elems elements, in the input */
};

/* ptz_numpy_value - an array or scalar of a pickle. ERR_INPUT when v is none (NULL too), of a type
 * that is not known here, or its bytes are not those of its shape; `path` and `name` for errors. */
enum err_code ptz_numpy_value(struct ptz_array *a, const struct pickle_value *v, const char *path,
                              const char *name, struct err *e);

/* ptz_npy_parse - a .npy file of n bytes, which must end where the array does; errors as above. */
enum err_code ptz_npy_parse(struct ptz_array *a, const uint8_t *data, size_t n, const char *path,
                            const char *name, struct err *e);

/* ptz_npy_is - whether n bytes begin like one. */
bool ptz_npy_is(const uint8_t *data, size_t n);

#endif
