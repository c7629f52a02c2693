/*
 * tensor.h - a named array inside somebody else's memory: the common currency of weight files.
 *
 * safetensors files and the weight section of a submission both present themselves as an array of
 * these, so that loading a model (model/gpt.h) does not care where weights come from.
 */
#ifndef MODEL_TENSOR_H
#define MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

/* Numbers are part of the submission format (docs/format.md): never renumber. */
enum st_dtype {
    ST_F32 = 0,
    ST_F16 = 1,
    ST_BF16 = 2,
    ST_I8 = 3,
    ST_U8 = 4,
    ST_I16 = 5,
    ST_U16 = 6,
    ST_I32 = 7,
    ST_I64 = 8,
    ST_F64 = 9,
    ST_BOOL = 10,
    ST_DTYPES = 11,
};

enum { TENSOR_MAX_DIMS = 8 };

struct tensor_view {
    const char *name;
    enum st_dtype dtype;
    size_t ndim, shape[TENSOR_MAX_DIMS]; /* ndim 0 is a scalar: one element */
    const uint8_t *data;                 /* little-endian, row-major, any alignment */
    size_t nbytes;
};

/* Bytes per element; 0 for a number that is no st_dtype. */
static inline size_t st_dtype_size(enum st_dtype t)
{
    return t == ST_F64 || t == ST_I64                                  ? 8
           : t == ST_F32 || t == ST_I32                                ? 4
           : t == ST_F16 || t == ST_BF16 || t == ST_I16 || t == ST_U16 ? 2
           : t == ST_I8 || t == ST_U8 || t == ST_BOOL                  ? 1
                                                                       : 0;
}

static inline size_t tensor_elems(const struct tensor_view *t)
{
    size_t n = 1;
    for (size_t i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

/* tensor_find - the view called name, or NULL. */
const struct tensor_view *tensor_find(const struct tensor_view *t, size_t count, const char *name);

/* Conversions between fp16/bf16 bits and fp32; to-half rounds to nearest, ties to even (IEEE 754).
 */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)h << 16};
    return x.f;
}
uint16_t f32_to_bf16(float f);

#endif
