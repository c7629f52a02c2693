/* cuda_bf16.h - stands in for CUDA's header of that name: the type and the functions that the
 * kernels use. Rounding is to nearest even, a NaN becomes 0x7fff, as CUDA's do. */
#ifndef TESTS_GPU_EMU_CUDA_BF16_H
#define TESTS_GPU_EMU_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f)
        return {0x7fff};
    bits += 0x7fff + (bits >> 16 & 1);
    return {(uint16_t)(bits >> 16)};
}

static inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __float2bfloat16_rn(f);
}

static inline float __bfloat162float(__nv_bfloat16 b)
{
    uint32_t bits = (uint32_t)b.bits << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return {x, y};
}

static inline float __low2float(__nv_bfloat162 v)
{
    return __bfloat162float(v.x);
}

static inline float __high2float(__nv_bfloat162 v)
{
    return __bfloat162float(v.y);
}

#endif
