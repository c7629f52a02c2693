/* optim.cu - AdamW, sums of squares, and Newton-Schulz of many matrices at once. */
#include <math.h>

#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256, SUM_BLOCKS = 1024 };

__global__ static void adamw_kernel(const struct kern_adamw a, const struct cuda_adam r)
{
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < a.n;
         i += (size_t)gridDim.x * THREADS) {
        cuda_adamw(&a, i, &r);
    }
}

static void adamw(struct kern *k, const struct kern_adamw *a)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(adamw_kernel, cuda_grid(a->n, THREADS), THREADS, 0, c->stream, *a,
                cuda_adam(a, a->lr, a->step));
    cuda_launched(c, "adamw");
}

/* The sum over a block in double, on thread 0. */
static __device__ double block_sum_double(double x)
{
    __shared__ double part[THREADS / CUDA_WARP];
    for (int h = 16; h; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, h);
    if (threadIdx.x % CUDA_WARP == 0)
        part[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < THREADS / CUDA_WARP; i++)
        x += part[i];
    return x;
}

/* sums[block], of x or its squares, each over every gridDim.x-th stretch of THREADS elements. */
__global__ static void sum_kernel(double *sums, const float *x, size_t n, bool square)
{
    double s = 0;
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS)
        s += square ? (double)x[i] * x[i] : (double)x[i];
    s = block_sum_double(s);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = s;
}

/* One block: the sum of sums[n]. */
__global__ static void sum_up_kernel(double *sum, const double *sums, unsigned n)
{
    double s = 0;
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        s += sums[i];
    s = block_sum_double(s);
    if (threadIdx.x == 0)
        *sum = s;
}

static void sum_of(struct cuda *c, double *sum, const float *x, size_t n, bool square)
{
    unsigned blocks = cuda_grid(n, THREADS);
    blocks = blocks < SUM_BLOCKS ? blocks : (unsigned)SUM_BLOCKS;
    double *sums = cuda_temp<double>(c, blocks, "sum");
    if (!sums)
        return;
    CUDA_LAUNCH(sum_kernel, blocks, THREADS, 0, c->stream, sums, x, n, square);
    CUDA_LAUNCH(sum_up_kernel, 1, THREADS, 0, c->stream, sum, sums, blocks);
    cuda_launched(c, "sum");
    cuda_done(c, sums);
}

static void sum_into(struct kern *k, double *sum, const float *x, size_t n)
{
    sum_of(cuda_of(k), sum, x, n, false);
}

static void sumsq_into(struct kern *k, double *sum, const float *x, size_t n)
{
    sum_of(cuda_of(k), sum, x, n, true);
}

static double sumsq(struct kern *k, const float *x, size_t n)
{
    struct cuda *c = cuda_of(k);
    double result = 0, *sum = cuda_temp<double>(c, 1, "sumsq");
    if (!sum)
        return 0;
    sumsq_into(k, sum, x, n);
    k->download(k, &result, sum, sizeof result);
    cuda_done(c, sum);
    return result;
}

/* ---- Newton-Schulz, bf16 products as in the records ---- */

/* A block per matrix: x16 = x / (|x| + eps). from[count] points to the matrices. */
__global__ static void ns_begin_kernel(bf16 *x16, float *const *from, size_t n, float eps)
{
    const float *x = from[blockIdx.x];
    float ss = 0;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x)
        ss = fmaf(x[i], x[i], ss);
    float inv = 1.0f / (sqrtf(block_sum(ss)) + eps);
    for (size_t i = threadIdx.x; i < n; i += blockDim.x)
        x16[blockIdx.x * n + i] = __float2bfloat16_rn(x[i] * inv);
}

__global__ static void ns_end_kernel(float *const *to, const bf16 *x16, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS)
        to[blockIdx.y][i] = __bfloat162float(x16[blockIdx.y * n + i]);
}

/*
 * A = X X^T (X^T X when X is tall, so that A is the small one), B = b A + c A A, X = a X + B X or
 * X B: three batched products a step, the last two with the sum inside the product.
 */
static void ns_steps(struct cuda *c, const struct kern_ns *a, bf16 *x, bf16 *y, bf16 *gram,
                     bf16 *poly)
{
    bool tall = a->rows > a->cols;
    size_t n = tall ? a->cols : a->rows, len = tall ? a->rows : a->cols;
    for (size_t i = 0; i < a->steps; i++) {
        const struct cuda_matmul g = {CUDA_BF16, CUDA_BF16, x,   x,    NULL,  gram, a->count,
                                      n,         n,         len, tall, !tall, 1.0f, 0.0f};
        const struct cuda_matmul p = {CUDA_BF16, CUDA_BF16, gram, gram,  gram,  poly, a->count,
                                      n,         n,         n,    false, false, a->c, a->b};
        const struct cuda_matmul r = {
            CUDA_BF16, CUDA_BF16, tall ? x : poly, tall ? poly : x, x,    y,   a->count, a->rows,
            a->cols,   n,         false,           false,           1.0f, a->a};
        cuda_matmul(c, &g);
        cuda_matmul(c, &p);
        cuda_matmul(c, &r);
        bf16 *t = x;
        x = y;
        y = t;
    }
}

static void newton_schulz(struct kern *k, const struct kern_ns *a)
{
    struct cuda *c = cuda_of(k);
    size_t n = a->rows * a->cols, small = a->rows < a->cols ? a->rows : a->cols;
    if (n == 0 || a->count == 0)
        return;
    float *const *at = cuda_list(k, a->x, a->count);
    bf16 *x = at ? cuda_temp<bf16>(c, 2 * a->count * (n + small * small), "newton_schulz") : NULL;
    if (!x)
        return;
    bf16 *y = x + a->count * n, *gram = y + a->count * n;
    CUDA_LAUNCH(ns_begin_kernel, (unsigned)a->count, 1024, 0, c->stream, x, at, n, a->eps);
    ns_steps(c, a, x, y, gram, gram + a->count * small * small);
    dim3 grid(cuda_blocks(n, 8 * THREADS), (unsigned)a->count);
    CUDA_LAUNCH(ns_end_kernel, grid, THREADS, 0, c->stream, at, a->steps % 2 ? y : x, n);
    cuda_launched(c, "newton_schulz");
    cuda_done(c, x);
}

void cuda_fill_optim(struct kern *k)
{
    k->adamw = adamw;
    k->sumsq = sumsq;
    k->sum_into = sum_into;
    k->sumsq_into = sumsq_into;
    k->newton_schulz = newton_schulz;
}
