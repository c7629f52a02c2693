/*
 * matmul.cu - the project's own matrix products, for where cuBLASLt is not: a machine without the
 * toolkit's libraries, and the runner of a submission (stub/cuda_kern.c).
 *
 * bf16: a block of eight warps computes 128 x 128 of c, a warp 64 x 32 of that, in steps of 32 of
 * the reduction. Operands are rounded on their way into shared memory, so fp32 matrices need no
 * copy in bf16. Two tiles of each operand take turns: while one is multiplied the next waits in
 * registers. fp32: a block computes 64 x 64, a thread 4 x 4 of that, one fused multiply-add each.
 * Sums run over the reduction in ascending order and are never split, so an element's bits do not
 * depend on the size of the matrix around it.
 *
 * Both operands lie in shared memory with the reduction as the fast axis, [row][STEP + PAD]. The 16
 * bytes beside each row put the eight rows of a matrix that ldmatrix reads into different banks: 80
 * bytes apart, they begin at eight different multiples of 16 modulo 128.
 */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/product.h"

enum {
    STEP = 32,
    PAD = 8,
    LD = STEP + PAD,
    ROWS = PRODUCT_BF16_M,
    FOURS = ROWS * STEP / 4 / PRODUCT_THREADS, /* groups of four numbers that a thread loads */
    WARP_M = 64,
    WARP_N = 32,
    WARPS_N = PRODUCT_BF16_N / WARP_N,
};
static_assert(PRODUCT_BF16_M == PRODUCT_BF16_N, "both operands' tiles have the same shape");
static_assert(PRODUCT_THREADS / CUDA_WARP == PRODUCT_BF16_M / WARP_M * WARPS_N,
              "every warp has its part of the tile");

/* Four numbers in bf16. */
struct four {
    unsigned lo, hi;
};

static __device__ inline unsigned two(float x, float y)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
    return *(unsigned *)&v;
}

/* T is float or bf16. */
template <typename T> static __device__ inline struct four four_at(const T *x)
{
    if constexpr (sizeof(T) == sizeof(float)) {
        float4 v = *(const float4 *)x;
        return {two(v.x, v.y), two(v.z, v.w)};
    } else {
        uint2 v = *(const uint2 *)x;
        return {v.x, v.y};
    }
}

/*
 * An operand: rows x k, stored [rows][k] or, when TRANS, [k][rows]. Group number i of a thread is
 * four numbers side by side in memory: of the reduction, or of the rows when TRANS.
 */
template <bool TRANS> static __device__ inline void group(int i, int *row, int *at)
{
    int g = i * PRODUCT_THREADS + (int)threadIdx.x;
    *row = TRANS ? g % (ROWS / 4) * 4 : g / (STEP / 4);
    *at = TRANS ? g / (ROWS / 4) : g % (STEP / 4) * 4;
}

/* A thread's share of the tile at (row0, k0), zeros outside of the matrix. `whole`: groups are
 * aligned, and lie inside or outside as a whole. */
template <typename In, bool TRANS>
static __device__ inline void fetch(struct four out[FOURS], const In *x, size_t rows, size_t k,
                                    size_t row0, size_t k0, bool whole)
{
    size_t ld = TRANS ? rows : k;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int r, a;
        group<TRANS>(i, &r, &a);
        size_t row = row0 + r, at = k0 + a, slow = TRANS ? at : row, fast = TRANS ? row : at;
        bool inside = row < rows && at < k;
        out[i] = {0, 0};
        if (inside && whole) {
            out[i] = four_at(x + slow * ld + fast);
        } else if (inside) {
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                v[j] = fast + j < ld ? cuda_get(x[slow * ld + fast + j]) : 0.0f;
            out[i] = {two(v[0], v[1]), two(v[2], v[3])};
        }
    }
}

template <bool TRANS>
static __device__ inline void store(bf16 tile[ROWS * LD], const struct four in[FOURS])
{
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int row, at;
        group<TRANS>(i, &row, &at);
        if (!TRANS) {
            unsigned *to = (unsigned *)(tile + row * LD + at);
            to[0] = in[i].lo;
            to[1] = in[i].hi;
        } else {
            unsigned v[2] = {in[i].lo, in[i].hi};
            for (int j = 0; j < 4; j++)
                tile[(row + j) * LD + at] = ((const bf16 *)v)[j];
        }
    }
}

/* c[i][j] += the 16 x 8 pieces of one step. row, col: of the warp in the tile. */
static __device__ inline void step(float c[WARP_M / 16][WARP_N / 8][4], const bf16 *ta,
                                   const bf16 *tb, int row, int col)
{
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int k = 0; k < STEP; k += 16) {
        unsigned a[WARP_M / 16][4], b[4];
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++)
            ldmatrix(a[i], ta + (row + i * 16 + lane % 16) * LD + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < WARP_N / 16; j++) {
            int n = col + j * 16 + lane % 8 + lane / 16 * 8;
            ldmatrix(b, tb + n * LD + k + lane / 8 % 2 * 8);
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++) {
                mma(c[i][2 * j], a[i], b[0], b[1]);
                mma(c[i][2 * j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* The sum of element (row, col), scaled, and what follows it. */
template <typename Out>
static __device__ inline void finish(const struct cuda_product &p, size_t batch, size_t row,
                                     size_t col, float sum)
{
    if (row >= p.m || col >= p.n)
        return;
    size_t at = (batch * p.m + row) * p.n + col;
    float v = p.alpha * sum;
    if (p.beta != 0.0f)
        v = fmaf(p.beta, cuda_get(((const Out *)p.d)[at]), v);
    if (p.act)
        v = 0.5f * ((v > 0 ? 2.0f : p.below) * v) * v;
    cuda_set((Out *)p.c + at, v);
}

/* Whether four numbers side by side are aligned, in all products. */
template <typename In> static __device__ inline bool aligned(const In *x, size_t ld)
{
    return ld % 4 == 0 && (uintptr_t)x % (4 * sizeof(In)) == 0;
}

template <typename In, typename Out, bool TA, bool TB>
__global__ static void __launch_bounds__(PRODUCT_THREADS)
    product_bf16_kernel(const struct cuda_product p)
{
    __shared__ __align__(16) bf16 ta[2][ROWS * LD], tb[2][ROWS * LD];
    size_t row0 = blockIdx.y * (size_t)PRODUCT_BF16_M, col0 = blockIdx.x * (size_t)PRODUCT_BF16_N;
    const In *a = (const In *)p.a + blockIdx.z * p.m * p.k;
    const In *b = (const In *)p.b + blockIdx.z * p.n * p.k;
    bool whole_a = aligned(a, TA ? p.m : p.k), whole_b = aligned(b, TB ? p.k : p.n);
    int warp = (int)threadIdx.x / CUDA_WARP, lane = (int)threadIdx.x % CUDA_WARP;
    int row = warp / WARPS_N * WARP_M, col = warp % WARPS_N * WARP_N;
    float c[WARP_M / 16][WARP_N / 8][4] = {};
    struct four next_a[FOURS], next_b[FOURS];
    size_t steps = (p.k + STEP - 1) / STEP;
    for (size_t i = 0; i <= steps; i++) {
        if (i < steps) { /* on their way while the tiles before are multiplied */
            fetch<In, TA>(next_a, a, p.m, p.k, row0, i * STEP, whole_a);
            fetch<In, !TB>(next_b, b, p.n, p.k, col0, i * STEP, whole_b);
        }
        if (i > 0)
            step(c, ta[(i - 1) % 2], tb[(i - 1) % 2], row, col);
        if (i < steps) { /* all reads of these two were done before the last barrier */
            store<TA>(ta[i % 2], next_a);
            store<!TB>(tb[i % 2], next_b);
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                finish<Out>(p, blockIdx.z, row0 + row + i * 16 + lane / 4 + e / 2 * 8,
                            col0 + col + j * 8 + lane % 4 * 2 + e % 2, c[i][j][e]);
}

#ifndef CUDA_RUNNER /* which has one product, bf16 (stub/cuda_kernels.cu) */

/* ---- fp32 ---- */

enum { F32_STEP = 16, F32_ROWS = PRODUCT_F32_M, F32_LD = F32_ROWS + 4, EACH = 4 };
static_assert(F32_ROWS / EACH * (F32_ROWS / EACH) == PRODUCT_THREADS, "a thread has 4 x 4");

/* tile[k][row] of an operand that is rows x k, zeros outside of it. */
static __device__ inline void f32_tile(float tile[F32_STEP][F32_LD], const float *x, size_t rows,
                                       size_t k, size_t row0, size_t k0, bool trans)
{
    for (int i = (int)threadIdx.x; i < F32_ROWS * F32_STEP; i += PRODUCT_THREADS) {
        int r = trans ? i % F32_ROWS : i / F32_STEP, a = trans ? i / F32_ROWS : i % F32_STEP;
        size_t row = row0 + r, at = k0 + a;
        tile[a][r] = row < rows && at < k ? x[trans ? at * rows + row : row * k + at] : 0.0f;
    }
}

template <typename Out>
__global__ static void __launch_bounds__(PRODUCT_THREADS)
    product_f32_kernel(const struct cuda_product p, bool trans_a, bool trans_b)
{
    __shared__ float ta[F32_STEP][F32_LD], tb[F32_STEP][F32_LD];
    size_t row0 = blockIdx.y * (size_t)PRODUCT_F32_M, col0 = blockIdx.x * (size_t)PRODUCT_F32_N;
    const float *a = (const float *)p.a + blockIdx.z * p.m * p.k;
    const float *b = (const float *)p.b + blockIdx.z * p.n * p.k;
    int row = (int)threadIdx.x / (F32_ROWS / EACH) * EACH;
    int col = (int)threadIdx.x % (F32_ROWS / EACH) * EACH;
    float c[EACH][EACH] = {};
    for (size_t k = 0; k < p.k; k += F32_STEP) {
        f32_tile(ta, a, p.m, p.k, row0, k, trans_a);
        f32_tile(tb, b, p.n, p.k, col0, k, !trans_b);
        __syncthreads();
        for (int s = 0; s < F32_STEP; s++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++)
                    c[i][j] = fmaf(ta[s][row + i], tb[s][col + j], c[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            finish<Out>(p, blockIdx.z, row0 + row + i, col0 + col + j, c[i][j]);
}

/* ---- launching ---- */

template <typename Out>
static void launch_bf16(struct cuda *c, const struct cuda_matmul *a, const struct cuda_product &p,
                        dim3 grid)
{
    if (a->ta && a->tb)
        CUDA_LAUNCH((product_bf16_kernel<bf16, Out, true, true>), grid, PRODUCT_THREADS, 0,
                    c->stream, p);
    else if (a->ta)
        CUDA_LAUNCH((product_bf16_kernel<bf16, Out, true, false>), grid, PRODUCT_THREADS, 0,
                    c->stream, p);
    else if (a->tb)
        CUDA_LAUNCH((product_bf16_kernel<bf16, Out, false, true>), grid, PRODUCT_THREADS, 0,
                    c->stream, p);
    else
        CUDA_LAUNCH((product_bf16_kernel<bf16, Out, false, false>), grid, PRODUCT_THREADS, 0,
                    c->stream, p);
}

void cuda_matmul_own(struct cuda *c, const struct cuda_matmul *a)
{
    const struct cuda_product p = {
        a->a, a->b, a->d ? a->d : a->c, a->c, a->m, a->n, a->k, a->alpha, a->beta, 0, false};
    bool f32 = a->in == CUDA_F32;
    dim3 grid(cuda_blocks(a->n, f32 ? PRODUCT_F32_N : PRODUCT_BF16_N),
              cuda_blocks(a->m, f32 ? PRODUCT_F32_M : PRODUCT_BF16_M), (unsigned)a->batch);
    if (a->m == 0 || a->n == 0 || a->batch == 0)
        return;
    if (grid.y > 65535 || a->batch > 65535) {
        err_set(&c->failed, ERR_RESOURCE,
                "CUDA device %d: a product %zu x %zu x %zu is too large without cuBLASLt",
                c->device, a->m, a->k, a->n);
        return;
    }
    if (!f32 && a->out == CUDA_F32)
        launch_bf16<float>(c, a, p, grid);
    else if (!f32)
        launch_bf16<bf16>(c, a, p, grid);
    else if (a->out == CUDA_F32)
        CUDA_LAUNCH(product_f32_kernel<float>, grid, PRODUCT_THREADS, 0, c->stream, p, a->ta,
                    a->tb);
    else
        CUDA_LAUNCH(product_f32_kernel<bf16>, grid, PRODUCT_THREADS, 0, c->stream, p, a->ta, a->tb);
    cuda_launched(c, "product");
}

#endif
