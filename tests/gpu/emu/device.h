/*
 * device.h - stands in for kernels/cuda/device.cuh, and has what CUDA's compiler knows by itself:
 * the qualifiers, threadIdx, barriers, operations of a warp, and arithmetic functions.
 */
#ifndef TESTS_GPU_EMU_DEVICE_H
#define TESTS_GPU_EMU_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>

#include "tests/gpu/emu/emu.h"

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* One block runs at a time, so its variables can be the program's; in the TLS segment they are
 * together and nothing else is (memory.cc). */
#define __shared__ static thread_local

/* ---- launching ---- */

namespace emu
{

template <typename... P> struct launcher {
    void (*kernel)(P...);
    const char *name;
    dim3 grid, block;
    size_t shared;
    struct stream *s;
    /* The arguments are converted to the parameters' types here and now, as by CUDA. What copies
     * them for each thread is not device code, so it is not checked. */
    void operator()(P... args)
    {
        auto k = kernel;
        auto body = [=]() __attribute__((no_sanitize("thread")))
        {
            k(args...);
        };
        using body_type = decltype(body);
        auto call = [](void *p) __attribute__((no_sanitize("thread")))
        {
            (*(body_type *)p)();
        };
        auto drop = [](void *p) { delete (body_type *)p; };
        enqueue(s, {name, (const void *)k, grid, block, shared, call}, new body_type(body), drop);
    }
};

template <typename... P>
launcher<P...> launching(void (*kernel)(P...), const char *name, dim3 grid, dim3 block,
                         size_t shared, struct stream *s)
{
    return {kernel, name, grid, block, shared, s};
}

} // namespace emu

#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                      \
    emu::launching(kernel, #kernel, grid, block, shared, stream)(__VA_ARGS__)
#define CUDA_DYNAMIC_SHARED(type, name) type *name = (type *)emu::mem_shared()

/* ---- barriers and warps: each knows the line that it stands in, for reports ---- */

namespace emu
{

struct exchange {
    uint64_t value;
    unsigned from; /* lane */
};

struct place {
    const char *file;
    int line;

    void syncthreads() const
    {
        barrier(false, file, line);
    }
    int syncthreads_count(bool p) const
    {
        return barrier(p, file, line);
    }
    void syncwarp(unsigned mask = ~0u) const;
    unsigned ballot(unsigned mask, bool p) const;

    template <typename T> T shfl(unsigned mask, T x, int from, int width = WARP) const
    {
        return shuffle(mask, x, from & (width - 1), width);
    }
    template <typename T> T shfl_up(unsigned mask, T x, unsigned by, int width = WARP) const
    {
        return shuffle(mask, x, lane() % width - (int)by, width);
    }
    template <typename T> T shfl_down(unsigned mask, T x, unsigned by, int width = WARP) const
    {
        return shuffle(mask, x, lane() % width + (int)by, width);
    }
    template <typename T> T shfl_xor(unsigned mask, T x, int by, int width = WARP) const
    {
        return shuffle(mask, x, lane() % width ^ by, width);
    }

    /* The wrappers of kernels/cuda/device.cuh. */
    void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1) const;
    void load_matrix(unsigned r[4], const void *row, bool trans) const;

  private:
    static int lane()
    {
        return (int)(here.thread % WARP);
    }
    uint64_t exchange(unsigned mask, uint64_t value, unsigned from) const;
    /* x of lane `from` of this lane's group of `width`; one that is not in it: the lane's own. */
    template <typename T> T shuffle(unsigned mask, T x, int from, int width) const
    {
        static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words and double words");
        int first = lane() / width * width;
        uint64_t bits = 0;
        memcpy(&bits, &x, sizeof x);
        if (from < 0 || from >= width)
            from = lane() - first;
        bits = exchange(mask, bits, (unsigned)(first + from));
        memcpy(&x, &bits, sizeof x);
        return x;
    }
};

} // namespace emu

#define EMU_HERE                                                                                   \
    emu::place                                                                                     \
    {                                                                                              \
        __FILE__, __LINE__                                                                         \
    }
#define __syncthreads()        EMU_HERE.syncthreads()
#define __syncthreads_count(p) EMU_HERE.syncthreads_count(p)
#define __syncthreads_or(p)    (EMU_HERE.syncthreads_count(p) != 0)
#define __syncthreads_and(p)   (EMU_HERE.syncthreads_count(!(p)) == 0)
#define __syncwarp(...)        EMU_HERE.syncwarp(__VA_ARGS__)
#define __ballot_sync(...)     EMU_HERE.ballot(__VA_ARGS__)
#define __any_sync(mask, p)    (EMU_HERE.ballot(mask, p) != 0)
#define __all_sync(mask, p)    (EMU_HERE.ballot(mask, !(p)) == 0)
#define __shfl_sync(...)       EMU_HERE.shfl(__VA_ARGS__)
#define __shfl_up_sync(...)    EMU_HERE.shfl_up(__VA_ARGS__)
#define __shfl_down_sync(...)  EMU_HERE.shfl_down(__VA_ARGS__)
#define __shfl_xor_sync(...)   EMU_HERE.shfl_xor(__VA_ARGS__)
#define mma(...)               EMU_HERE.multiply(__VA_ARGS__)
#define ldmatrix(...)          EMU_HERE.load_matrix(__VA_ARGS__, false)
#define ldmatrix_trans(...)    EMU_HERE.load_matrix(__VA_ARGS__, true)

/* ---- arithmetic ---- */

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}

static inline float __fadd_rn(float x, float y)
{
    return x + y;
}

static inline float __fmul_rn(float x, float y)
{
    return x * y;
}

static inline float __fdiv_rn(float x, float y)
{
    return x / y;
}

static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}

static inline float __uint_as_float(unsigned x)
{
    float f;
    __builtin_memcpy(&f, &x, sizeof f);
    return f;
}

static inline double __dadd_rn(double x, double y)
{
    return x + y;
}

static inline double __dmul_rn(double x, double y)
{
    return x * y;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}

/* Blocks and threads follow one another, so an atomic operation is a plain one. */
template <typename T> static inline __attribute__((no_sanitize("thread"))) T atomicAdd(T *p, T x)
{
    emu::mem_access(p, sizeof x, emu::ATOMIC, __builtin_return_address(0));
    T was = *p;
    *p = was + x;
    return was;
}

#endif
