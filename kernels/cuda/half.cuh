/*
 * half.cuh - several numbers of a row at a time, fp32 or half values (kernels.h): what kernels that
 * are bound by memory load and store.
 */
#ifndef KERNELS_CUDA_HALF_CUH
#define KERNELS_CUDA_HALF_CUH

#include "kernels/cuda/cuda.cuh"

/* N numbers side by side, on a multiple of N of them. */
template <int N> struct some {
    float v[N];
};

template <int N> static __device__ inline some<N> get(const float *x, size_t at)
{
    some<N> r;
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        float4 f = *(const float4 *)(x + at + i);
        r.v[i] = f.x;
        r.v[i + 1] = f.y;
        r.v[i + 2] = f.z;
        r.v[i + 3] = f.w;
    }
    return r;
}

/* What N bf16 are moved as. */
template <int N> struct words {
    using type = uint4;
};
template <> struct words<4> {
    using type = uint2;
};

template <int N> static __device__ inline some<N> get(const bf16 *x, size_t at)
{
    typename words<N>::type w = *(const typename words<N>::type *)(x + at);
    const __nv_bfloat162 *two = (const __nv_bfloat162 *)&w;
    some<N> r;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        r.v[i] = __low2float(two[i / 2]);
        r.v[i + 1] = __high2float(two[i / 2]);
    }
    return r;
}

template <int N> static __device__ inline some<N> get(const void *x, bool half, size_t at)
{
    return half ? get<N>((const bf16 *)x, at) : get<N>((const float *)x, at);
}

template <int N> static __device__ inline void put(float *x, size_t at, const some<N> &v)
{
#pragma unroll
    for (int i = 0; i < N; i += 4)
        *(float4 *)(x + at + i) = make_float4(v.v[i], v.v[i + 1], v.v[i + 2], v.v[i + 3]);
}

template <int N> static __device__ inline void put(bf16 *x, size_t at, const some<N> &v)
{
    typename words<N>::type w;
    __nv_bfloat162 *two = (__nv_bfloat162 *)&w;
#pragma unroll
    for (int i = 0; i < N; i += 2)
        two[i / 2] = __floats2bfloat162_rn(v.v[i], v.v[i + 1]);
    *(typename words<N>::type *)(x + at) = w;
}

template <int N> static __device__ inline void put(void *x, bool half, size_t at, const some<N> &v)
{
    if (half)
        put((bf16 *)x, at, v);
    else
        put((float *)x, at, v);
}

/* Eight numbers of either type as they lie in memory. A kernel that fetches all it needs before it
 * looks at any of it has its loads under way together, whatever types it finds out at run time. */
struct raw {
    uint4 a, b; /* b: of floats only */
};

static __device__ inline struct raw fetch(const void *x, bool half, size_t at)
{
    const uint4 *p = (const uint4 *)((const char *)x + at * (half ? sizeof(bf16) : sizeof(float)));
    struct raw r = {p[0], {0, 0, 0, 0}};
    if (!half)
        r.b = p[1];
    return r;
}

static __device__ inline some<8> numbers(const struct raw &r, bool half)
{
    const unsigned w[] = {r.a.x, r.a.y, r.a.z, r.a.w, r.b.x, r.b.y, r.b.z, r.b.w};
    some<8> y;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        unsigned two = w[i / 2]; /* a bf16 is the upper half of its float */
        y.v[i] = __uint_as_float(!half ? w[i] : i % 2 ? two & 0xffff0000u : two << 16);
    }
    return y;
}

#endif
