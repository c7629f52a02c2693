/*
 * device.cuh - what kernels need beyond CUDA C++ itself: launching, shared memory whose size is
 * chosen at the launch, and the instructions that have no function (PTX ISA, the sections named).
 * tests/gpu/emu stands in for this file where kernels run on the CPU.
 */
#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH

#ifdef CUDA_EMULATED
#include "tests/gpu/emu/device.h"
#else

#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* kernel<<<grid, block, shared, stream>>>(...). A kernel<A, B> goes in parentheses. */
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                      \
    kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)

/* An array `name` of as many bytes as the launch says, on a multiple of 16. */
#define CUDA_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]

#ifdef __CUDACC__
/* ldmatrix ("Warp-level matrix load instruction: ldmatrix"): four 8 x 8 matrices of bf16 from
 * shared memory. Lane i points to row i % 8 of matrix i / 8, 16 bytes on a multiple of 16. It gets
 * in r[m], of matrix m, row lane / 4, columns 2 * (lane % 4) and the next. */
static __device__ inline void ldmatrix(unsigned r[4], const __nv_bfloat16 *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(p))
                 : "memory");
}

/* The same with each matrix transposed. */
static __device__ inline void ldmatrix_trans(unsigned r[4], const __nv_bfloat16 *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(p))
                 : "memory");
}

/* mma.m16n8k16 ("Matrix Fragments for mma.m16n8k16"): c += a b of a 16 x 16 and a 16 x 8 matrix of
 * bf16, fp32 sums. With r = lane / 4 and k = 2 * (lane % 4), each register two numbers side by side
 * or, for b, one above the other:
 *   a[0..3]  rows r, r+8, r, r+8; columns k, k, k+8, k+8      b0, b1  column r; rows k, k+8
 *   c[0..3]  rows r, r, r+8, r+8; columns k, k+1, k, k+1 */
static __device__ inline void mma(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

#endif
#endif
