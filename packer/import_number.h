/* import_number.h - numbers of a tensor one by one. Private to packer/import*.c. */
#ifndef PACKER_IMPORT_NUMBER_H
#define PACKER_IMPORT_NUMBER_H

#include <stdbool.h>
#include <string.h>

#include "model/reader.h"
#include "model/tensor.h"

static inline bool import_is_float(enum st_dtype t)
{
    return t == ST_F16 || t == ST_BF16 || t == ST_F32 || t == ST_F64;
}

/* Element i of a floating-point tensor; F64 is rounded. */
static inline float import_number(const struct tensor_view *t, size_t i)
{
    const uint8_t *p = t->data + i * st_dtype_size(t->dtype);
    float f = 0;
    double d;
    uint32_t w;
    uint64_t l;
    switch (t->dtype) {
    case ST_F16:
        return f16_to_f32(le16(p));
    case ST_BF16:
        return bf16_to_f32(le16(p));
    case ST_F64:
        l = le64(p);
        memcpy(&d, &l, sizeof d);
        return (float)d;
    default:
        w = le32(p);
        memcpy(&f, &w, sizeof f);
        return f;
    }
}

static inline void put_f32(uint8_t *p, float f)
{
    uint32_t w;
    memcpy(&w, &f, sizeof w);
    put_le32(p, w);
}

static inline void put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

#endif
