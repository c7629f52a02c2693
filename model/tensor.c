/* tensor.c - see tensor.h. */
#include "model/tensor.h"

#include <string.h>

#include "kernels/err.h"

const struct tensor_view *tensor_find(const struct tensor_view *t, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(t[i].name, name))
            return &t[i];
    return NULL;
}

union bits {
    uint32_t u;
    float f;
};

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    union bits x;
    if (!IN_RUNNER && mag >= 0x7c00) { /* infinity, NaN: widen the exponent, keep the payload */
        x.u = 0x7f800000 | (mag & 0x3ff) << 13;
    } else {
        /* Shifted into place the value is 2^112 times too small, also when it is subnormal. */
        x.u = mag << 13;
        x.f *= 0x1p112f;
    }
    x.u |= sign;
    return x.f;
}

uint16_t f32_to_f16(float f)
{
    union bits x = {.f = f};
    uint16_t sign = (uint16_t)(x.u >> 16 & 0x8000);
    x.u &= 0x7fffffff;
    if (x.u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (x.u >= 0x477ff000) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (x.u <
        0x38800000) { /* below 2^-14: adding 0.5 aligns the last fp16 bit with the last fp32 bit */
        x.f += 0.5f;
        return (uint16_t)(sign | (x.u - 0x3f000000));
    }
    x.u += 0xc8000fff + (x.u >> 13 & 1); /* rebias by -112 and round half to even */
    return (uint16_t)(sign | x.u >> 13);
}

uint16_t f32_to_bf16(float f)
{
    union bits x = {.f = f};
    if (!IN_RUNNER && (x.u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(x.u >> 16 | 0x40);
    return (uint16_t)((x.u + 0x7fff + (x.u >> 16 & 1)) >> 16);
}
