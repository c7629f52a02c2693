/*
 * cuda_kern.h - what the files of the card's backend share (cuda_kern.c, cuda_train.c): the
 * kernels, how they are launched, and scratch memory. Grids and arguments are those of the files in
 * kernels/cuda. What fails leaves CUDA (cuda_leave), so nothing here reports anything.
 */
#ifndef STUB_CUDA_KERN_H
#define STUB_CUDA_KERN_H

#include "kernels/cuda/product.h"
#include "kernels/kernels.h"

/* The kernels, by the names that stub/cuda_ptx.awk gives them. */
#define CUDA_KERNELS(X)                                                                            \
    X(embed)                                                                                       \
    X(take)                                                                                        \
    X(shift)                                                                                       \
    X(coef)                                                                                        \
    X(combine)                                                                                     \
    X(act)                                                                                         \
    X(qk)                                                                                          \
    X(xsa)                                                                                         \
    X(attn64)                                                                                      \
    X(attn128)                                                                                     \
    X(loss)                                                                                        \
    X(slot_row)                                                                                    \
    X(slot_sum)                                                                                    \
    X(slot_add)                                                                                    \
    X(adamw)                                                                                       \
    X(product)                                                                                     \
    X(embed_bwd)                                                                                   \
    X(shift_bwd)                                                                                   \
    X(coef_bwd)                                                                                    \
    X(combine_bwd)                                                                                 \
    X(qk_bwd)                                                                                      \
    X(xsa_bwd)                                                                                     \
    X(dot)                                                                                         \
    X(dkv64)                                                                                       \
    X(dq64)                                                                                        \
    X(dkv128)                                                                                      \
    X(dq128)                                                                                       \
    X(dz)                                                                                          \
    X(colsum)                                                                                      \
    X(mul)                                                                                         \
    X(add)                                                                                         \
    X(axpby)                                                                                       \
    X(round)                                                                                       \
    X(sum)                                                                                         \
    X(sum_up)                                                                                      \
    X(product_x)                                                                                   \
    X(product_w)
#define X(name) K_##name,
enum kernel { CUDA_KERNELS(X) KERNEL_COUNT };
#undef X

enum {
    THREADS = 256,        /* of a block, where nothing else is said */
    WARPS = THREADS / 32, /* rows or heads that a block takes, a warp each */
    ATTN_ROWS = 64,       /* queries of a block; as many keys at a time */
    ATTN_THREADS = 128,
    GRID_MAX = 65535, /* the second axis of a grid ends there */
};

static inline size_t ceil_div(size_t n, size_t per)
{
    return (n + per - 1) / per;
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Blocks of a kernel that walks over n elements with a stride of the whole grid. */
static inline size_t grid(size_t n)
{
    size_t blocks = ceil_div(n, THREADS);
    return blocks ? least(blocks, GRID_MAX) : 1;
}

/* Shared memory of a kernel of attention: so many rows of heads of `dim`, in bf16. */
static inline unsigned attn_shared(unsigned rows, unsigned dim)
{
    return rows * (dim + 8) * 2;
}

/* cuda_launch - a grid without blocks is none. `tall` threads on the second axis of a block. args:
 * the address of each argument. */
void cuda_launch(enum kernel which, size_t x, size_t y, size_t z, unsigned threads, unsigned tall,
                 unsigned shared, void **args);
#define ARGS(...) ((void *[]){__VA_ARGS__})
#define ARG(x)    ((void *)(uintptr_t)(const void *)&(x))

/* Blocks on the first axis only, no shared memory. */
static inline void launch(enum kernel which, size_t blocks, void **args)
{
    cuda_launch(which, blocks, 1, 1, THREADS, 1, 0, args);
}

/* cuda_scratch - n floats that an operation uses until the next one that asks. */
float *cuda_scratch(size_t n);

/* cuda_multiply - a matrix product: K_product c = a b^T, K_product_x c = a b, K_product_w c = a^T
 * b. m is at most GRID_MAX times PRODUCT_BF16_M. */
void cuda_multiply(enum kernel which, const struct cuda_product *p);

/* cuda_logits - z[n][vocab] of the head, before the soft cap, from its row `row` on; and how many
 * rows it takes at a time. */
void cuda_logits(float *z, const struct kern_head *a, size_t row, size_t n);
size_t cuda_head_rows(const struct kern_head *a);
static inline float cuda_inverse(float cap)
{
    return cap == 0.0f ? 0.0f : 1.0f / cap;
}

/* cuda_fill_train - the entries for gradients and for the steps of test-time training:
 * cuda_train.c. */
void cuda_fill_train(struct kern *k);

#endif
