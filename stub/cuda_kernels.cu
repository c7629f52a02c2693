/*
 * cuda_kernels.cu - the kernels that the runner of a submission launches on a card: those of
 * kernels/cuda that scoring and test-time training need, all in one translation unit. It is
 * compiled to PTX of the oldest card that will do; stub/cuda_ptx.awk keeps the kernels that it
 * names and makes the text small. Only the driver of the machine turns it into code.
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
template __global__ void dz_kernel<float>(float *, const float *, const uint16_t *, const float *,
                                          size_t, float, float, float);
} // namespace head
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
template __global__ void product_bf16_kernel<float, float, false, false>(struct cuda_product);
template __global__ void product_bf16_kernel<float, float, true, false>(struct cuda_product);
} // namespace matmul
