/*
 * ptz_globals.h - the Python names that may appear in packed weights, and what they mean here.
 * Private to packer/ptz_*.c.
 *
 * This list is the whole surface: a pickle that names anything else is refused with that name.
 * Functions on it are never called; the reader looks at their arguments.
 */
#ifndef PACKER_PTZ_GLOBALS_H
#define PACKER_PTZ_GLOBALS_H

#include "model/tensor.h"
#include "packer/pickle.h"

/* Element types: those of safetensors, and what is turned into bf16 (which holds it exactly). */
enum ptz_type {
    PTZ_E4M3 = ST_DTYPES, /* float8_e4m3fn: 4 bits of exponent, no infinities */
    PTZ_E5M2,             /* float8_e5m2 */
    PTZ_TYPES,
};

enum ptz_role {
    PTZ_OTHER,     /* a dtype, a device, ...: a value that says nothing about weights */
    PTZ_TENSOR,    /* torch._utils._rebuild_tensor and its second version */
    PTZ_TENSOR_V3, /* the third: the dtype is an argument */
    PTZ_PARAMETER, /* torch._utils._rebuild_parameter: the tensor is its first argument */
    PTZ_STORAGE,   /* a storage of `type` */
    PTZ_BYTES,     /* a storage of bytes, whatever they mean */
    PTZ_LOADED,    /* torch.storage._load_from_bytes: a storage as a file of ptz_legacy.h */
    PTZ_DTYPE,     /* torch.TYPE; type is PTZ_TYPES when it is none of ours */
    PTZ_NP_ARRAY,  /* numpy's _reconstruct: an empty array whose state follows */
    PTZ_NP_BUFFER, /* numpy's _frombuffer (protocol 5) */
    PTZ_NP_SCALAR, /* numpy's scalar */
    PTZ_NP_DTYPE,  /* numpy.dtype */
};

struct ptz_meaning {
    enum ptz_role role;
    unsigned type; /* enum st_dtype or enum ptz_type */
};

/* For pickle_parse. */
extern const struct pickle_global ptz_globals[];

/* ptz_meaning - of a PICKLE_GLOBAL, or of the global that a PICKLE_CALL calls; PTZ_OTHER for any
 * other value and for NULL. */
struct ptz_meaning ptz_meaning(const struct pickle_value *v);

/* ptz_type_size - bytes of an element. */
static inline size_t ptz_type_size(unsigned type)
{
    return type >= ST_DTYPES ? 1 : st_dtype_size((enum st_dtype)type);
}

/* ptz_item - item i of a tuple when it has that many and the item is of that kind, else NULL. */
static inline const struct pickle_value *ptz_item(const struct pickle_value *tuple, size_t i,
                                                  enum pickle_kind kind)
{
    if (!tuple || tuple->kind != PICKLE_TUPLE || i >= tuple->n)
        return NULL;
    return tuple->item[i]->kind == kind ? tuple->item[i] : NULL;
}

#endif
