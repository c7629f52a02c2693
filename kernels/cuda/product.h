/*
 * product.h - what a launch of the project's own matrix products (matmul.cu), and of AdamW, is told
 * beside what kernels.h has. Plain C: the runner of a submission launches them through the driver,
 * without the CUDA runtime.
 */
#ifndef KERNELS_CUDA_PRODUCT_H
#define KERNELS_CUDA_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * cuda_product - c[m][n] = alpha * op(a) op(b) + beta * d, all row-major and dense, fp32 sums.
 *
 *   op(a) is [m][k], stored [k][m] when transposed; op(b) is [k][n], stored [n][k] when transposed.
 *   d may be c; with beta 0 it is not read. The z axis of the grid counts products one behind the
 *   other in memory. With act, u = alpha * op(a) op(b) becomes LeakyReLU(slope)^2 of it, where
 * below is 2 slope^2 (kernels.h, linear_act_fwd).
 */
struct cuda_product {
    const void *a, *b, *d;
    void *c;
    size_t m, n, k;
    float alpha, beta, below;
    bool act;
};

/* The numbers of an AdamW step that all elements share: lr; lr / (1 - b1^step); sqrt(1 - b2^step).
 * The same bits on host and device. */
struct cuda_adam {
    float lr, step, root;
};

/* The tile of c that a block of the grid computes, and its threads. The grid is
 * (ceil(n / N), ceil(m / M), products). */
enum {
    PRODUCT_BF16_M = 128, /* operands in bf16 */
    PRODUCT_BF16_N = 128,
    PRODUCT_F32_M = 64, /* operands in fp32 */
    PRODUCT_F32_N = 64,
    PRODUCT_THREADS = 256,
};

#endif
