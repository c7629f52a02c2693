/* ptz_globals.c - see ptz_globals.h. */
#include "packer/ptz_globals.h"

/* One table, from which the list for pickle_parse and the meanings are made, so that they cannot
 * fall out of step: name, what calling it does, role, type. */
#define GLOBALS(G)                                                                                 \
    G("collections.OrderedDict", DICT, OTHER, PTZ_TYPES)                                           \
    G("torch.Size", SAME, OTHER, PTZ_TYPES)                                                        \
    G("torch.device", CALL, OTHER, PTZ_TYPES)                                                      \
    G("torch._utils._rebuild_tensor", CALL, TENSOR, PTZ_TYPES)                                     \
    G("torch._utils._rebuild_tensor_v2", CALL, TENSOR, PTZ_TYPES)                                  \
    G("torch._utils._rebuild_tensor_v3", CALL, TENSOR_V3, PTZ_TYPES)                               \
    G("torch._utils._rebuild_parameter", CALL, PARAMETER, PTZ_TYPES)                               \
    G("torch.storage.UntypedStorage", CALL, BYTES, ST_U8)                                          \
    G("torch.storage._load_from_bytes", CALL, LOADED, PTZ_TYPES)                                   \
    G("torch.CharStorage", CALL, STORAGE, ST_I8)                                                   \
    G("torch.ByteStorage", CALL, STORAGE, ST_U8)                                                   \
    G("torch.HalfStorage", CALL, STORAGE, ST_F16)                                                  \
    G("torch.BFloat16Storage", CALL, STORAGE, ST_BF16)                                             \
    G("torch.FloatStorage", CALL, STORAGE, ST_F32)                                                 \
    G("torch.DoubleStorage", CALL, STORAGE, ST_F64)                                                \
    G("torch.ShortStorage", CALL, STORAGE, ST_I16)                                                 \
    G("torch.IntStorage", CALL, STORAGE, ST_I32)                                                   \
    G("torch.LongStorage", CALL, STORAGE, ST_I64)                                                  \
    G("torch.BoolStorage", CALL, STORAGE, ST_BOOL)                                                 \
    G("torch.int8", CALL, DTYPE, ST_I8)                                                            \
    G("torch.uint8", CALL, DTYPE, ST_U8)                                                           \
    G("torch.float16", CALL, DTYPE, ST_F16)                                                        \
    G("torch.bfloat16", CALL, DTYPE, ST_BF16)                                                      \
    G("torch.float32", CALL, DTYPE, ST_F32)                                                        \
    G("torch.float64", CALL, DTYPE, ST_F64)                                                        \
    G("torch.int16", CALL, DTYPE, ST_I16)                                                          \
    G("torch.uint16", CALL, DTYPE, ST_U16)                                                         \
    G("torch.int32", CALL, DTYPE, ST_I32)                                                          \
    G("torch.int64", CALL, DTYPE, ST_I64)                                                          \
    G("torch.bool", CALL, DTYPE, ST_BOOL)                                                          \
    G("torch.float8_e4m3fn", CALL, DTYPE, PTZ_E4M3)                                                \
    G("torch.float8_e5m2", CALL, DTYPE, PTZ_E5M2)                                                  \
    G("numpy.core.multiarray._reconstruct", CALL, NP_ARRAY, PTZ_TYPES)                             \
    G("numpy._core.multiarray._reconstruct", CALL, NP_ARRAY, PTZ_TYPES)                            \
    G("numpy.core.multiarray.scalar", CALL, NP_SCALAR, PTZ_TYPES)                                  \
    G("numpy._core.multiarray.scalar", CALL, NP_SCALAR, PTZ_TYPES)                                 \
    G("numpy.core.numeric._frombuffer", CALL, NP_BUFFER, PTZ_TYPES)                                \
    G("numpy._core.numeric._frombuffer", CALL, NP_BUFFER, PTZ_TYPES)                               \
    G("numpy.ndarray", CALL, OTHER, PTZ_TYPES)                                                     \
    G("numpy.dtype", CALL, NP_DTYPE, PTZ_TYPES)                                                    \
    G("_codecs.encode", BYTES, OTHER, PTZ_TYPES)                                                   \
    G("__builtin__.bytes", BYTES, OTHER, PTZ_TYPES)                                                \
    G("builtins.bytes", BYTES, OTHER, PTZ_TYPES)                                                   \
    G("__builtin__.bytearray", BYTES, OTHER, PTZ_TYPES)                                            \
    G("builtins.bytearray", BYTES, OTHER, PTZ_TYPES)                                               \
    G("__builtin__.set", SAME, OTHER, PTZ_TYPES)                                                   \
    G("builtins.set", SAME, OTHER, PTZ_TYPES)                                                      \
    G("__builtin__.frozenset", SAME, OTHER, PTZ_TYPES)                                             \
    G("builtins.frozenset", SAME, OTHER, PTZ_TYPES)

#define NAME(name, as, role, type)    {name, PICKLE_AS_##as},
#define MEANING(name, as, role, type) {PTZ_##role, (unsigned)type},

const struct pickle_global ptz_globals[] = {GLOBALS(NAME){NULL, PICKLE_AS_CALL}};
static const struct ptz_meaning meanings[] = {GLOBALS(MEANING)};

struct ptz_meaning ptz_meaning(const struct pickle_value *v)
{
    if (!v || (v->kind != PICKLE_GLOBAL && v->kind != PICKLE_CALL))
        return (struct ptz_meaning){PTZ_OTHER, PTZ_TYPES};
    return meanings[v->i];
}
