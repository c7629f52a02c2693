/*
 * cuda_kernels.cu - the kernels that the runner of a submission launches on a card: those of
 * kernels/cuda that scoring needs, all in one translation unit. It is compiled to PTX of the oldest
 * card that will do; stub/cuda_ptx.awk keeps the kernels that it names and makes the text small.
 * Only the driver of the machine turns it into code.
 *
 * Each file has names of its own, so each is put into a namespace of its own.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/product.h"

#define CUDA_RUNNER

namespace elem
{
#include "kernels/cuda/elem.cu"
}
namespace rows
{
#include "kernels/cuda/rows.cu"
}
namespace attn
{
#include "kernels/cuda/attn.cu"
}
namespace head
{
#include "kernels/cuda/head.cu"
}
namespace slot
{
#include "kernels/cuda/slot.cu"
}
namespace optim
{
#include "kernels/cuda/optim.cu"
}
namespace matmul
{
#include "kernels/cuda/matmul.cu"
template __global__ void product_bf16_kernel<float, float, false, true>(struct cuda_product);

/* c[m][n] = a[m][k] b[k][n] in fp32, a thread per element: for a few rows (SLOT's gradient). */
__global__ void __launch_bounds__(PRODUCT_THREADS) few_kernel(const struct cuda_product p)
{
    const float *a = (const float *)p.a + blockIdx.y * p.k, *b = (const float *)p.b;
    size_t col = blockIdx.x * (size_t)PRODUCT_THREADS + threadIdx.x;
    float sum = 0;
    if (col >= p.n)
        return;
    for (size_t i = 0; i < p.k; i++)
        sum = fmaf(a[i], b[i * p.n + col], sum);
    ((float *)p.c)[blockIdx.y * p.n + col] = sum;
}
} // namespace matmul
