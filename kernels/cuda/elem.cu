/*
 * elem.cu - operations on single elements, rows moved about, coefficient vectors, column sums.
 * All are bound by memory: one pass, neighbouring threads on neighbouring elements.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256 };

#define EACH(i, n)                                                                                 \
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < (n);                        \
         i += (size_t)gridDim.x * blockDim.x)

/* The first `quads` fours at once, the rest one by one. */
__global__ static void to_bf16_kernel(bf16 *y, const float *x, size_t n, size_t quads)
{
    EACH(i, quads)
    {
        float4 v = ((const float4 *)x)[i];
        ((__nv_bfloat162 *)y)[2 * i] = __floats2bfloat162_rn(v.x, v.y);
        ((__nv_bfloat162 *)y)[2 * i + 1] = __floats2bfloat162_rn(v.z, v.w);
    }
    EACH(i, n - 4 * quads) y[4 * quads + i] = __float2bfloat16_rn(x[4 * quads + i]);
}

void cuda_to_bf16(struct cuda *c, bf16 *y, const float *x, size_t n)
{
    /* Weights lie behind single numbers in their block, on no multiple of 16 bytes. */
    bool aligned = (uintptr_t)x % sizeof(float4) == 0 && (uintptr_t)y % 8 == 0;
    size_t quads = aligned ? n / 4 : 0;
    CUDA_LAUNCH(to_bf16_kernel, cuda_grid(aligned ? quads + 1 : n, THREADS), THREADS, 0, c->stream,
                y, x, n, quads);
    cuda_launched(c, "to_bf16");
}

/* ---- sums over rows ---- */

enum { SUM_COLS = 32, SUM_LANES = 8, SUM_ROWS = 256 };

/* part[block of SUM_ROWS rows][cols]; or, with add, out[cols] += the sum of all rows. A thread
 * takes rows y, y + 8, ... of its column; the eight are added in ascending order. */
__global__ static void colsum_kernel(float *out, const float *x, size_t rows, size_t cols,
                                     size_t stride, size_t per, bool add)
{
    __shared__ float part[SUM_LANES][SUM_COLS];
    size_t col = blockIdx.x * (size_t)SUM_COLS + threadIdx.x, from = blockIdx.y * per;
    size_t end = from + per < rows ? from + per : rows;
    float sum = 0;
    if (col < cols)
        for (size_t r = from + threadIdx.y; r < end; r += SUM_LANES)
            sum += x[r * stride + col];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || col >= cols)
        return;
    for (int i = 1; i < SUM_LANES; i++)
        sum += part[i][threadIdx.x];
    float *to = out + blockIdx.y * cols + col;
    *to = add ? *to + sum : sum;
}

void cuda_colsum(struct cuda *c, float *out, const float *x, size_t rows, size_t cols,
                 size_t stride)
{
    dim3 threads(SUM_COLS, SUM_LANES), grid(cuda_blocks(cols, SUM_COLS), 1);
    if (rows == 0 || cols == 0)
        return;
    float *part = NULL;
    if (rows > 4 * SUM_ROWS) {
        /* At most 65,535 blocks of rows, the limit of a grid's second axis. */
        size_t per = (rows + 65534) / 65535;
        per = per > (size_t)SUM_ROWS ? per : (size_t)SUM_ROWS;
        size_t blocks = (rows + per - 1) / per;
        part = cuda_temp<float>(c, blocks * cols, "colsum");
        if (!part)
            return;
        grid.y = (unsigned)blocks;
        CUDA_LAUNCH(colsum_kernel, grid, threads, 0, c->stream, part, x, rows, cols, stride, per,
                    false);
        cuda_launched(c, "colsum");
        x = part;
        rows = blocks;
        stride = cols;
        grid.y = 1;
    }
    CUDA_LAUNCH(colsum_kernel, grid, threads, 0, c->stream, out, x, rows, cols, stride, rows, true);
    cuda_launched(c, "colsum");
    cuda_done(c, part);
}

/* ---- elementwise ---- */

__global__ static void mul_kernel(float *dx, const float *dy, const float *f, size_t n)
{
    EACH(i, n) dx[i] = dy[i] * f[i];
}

static void mul(struct kern *k, float *dx, const float *dy, const float *f, size_t n)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(mul_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, dx, dy, f, n);
    cuda_launched(c, "mul");
}

__global__ static void add_kernel(float *y, const float *x, size_t n)
{
    EACH(i, n) y[i] += x[i];
}

static void add(struct kern *k, float *y, const float *x, size_t n)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(add_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, x, n);
    cuda_launched(c, "add");
}

__global__ static void axpby_kernel(float *y, const float *x, size_t n, float a, float b)
{
    EACH(i, n) y[i] = fmaf(b, x[i], a * y[i]);
}

static void axpby(struct kern *k, float *y, const float *x, size_t n, float a, float b)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(axpby_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, x, n, a, b);
    cuda_launched(c, "axpby");
}

__global__ static void round_bf16_kernel(float *x, size_t n)
{
    EACH(i, n)
    {
        /* A NaN stays the one it is. */
        if (x[i] == x[i])
            x[i] = __bfloat162float(__float2bfloat16_rn(x[i]));
    }
}

static void round_bf16(struct kern *k, float *x, size_t n)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(round_bf16_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, x, n);
    cuda_launched(c, "round_bf16");
}

/* LeakyReLU(slope)^2 of u, which stands in y; f is its factor. below is 2 slope^2. */
__global__ static void act_kernel(float *y, float *f, size_t n, float below)
{
    EACH(i, n)
    {
        float u = y[i], g = cuda_act_factor(u, below);
        y[i] = 0.5f * g * u;
        if (f)
            f[i] = g;
    }
}

static void linear_act_fwd(struct kern *k, float *y, float *f, const float *x, const float *w,
                           size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct cuda *c = cuda_of(k);
    size_t n = rows * n_out;
    k->linear_fwd(k, y, x, w, rows, n_out, n_in);
    CUDA_LAUNCH(act_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, f, n,
                2 * slope * slope);
    cuda_launched(c, "linear_act_fwd");
}

/* ---- rows moved ---- */

__global__ static void embed_fwd_kernel(float *y, const float *table, const uint16_t *ids,
                                        size_t rows, size_t dim)
{
    EACH(i, rows * dim) y[i] = table[ids[i / dim] * dim + i % dim];
}

static void embed_fwd(struct kern *k, float *y, const float *table, const uint16_t *ids,
                      size_t rows, size_t dim)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(embed_fwd_kernel, cuda_grid(rows * dim, THREADS), THREADS, 0, c->stream, y, table,
                ids, rows, dim);
    cuda_launched(c, "embed_fwd");
}

/* Two numbers by a thread: dim is even. */
__global__ static void embed_half_kernel(bf16 *y, const float *table, const uint16_t *ids,
                                         size_t rows, size_t dim)
{
    EACH(i, rows * dim / 2)
    {
        const float *x = table + ids[2 * i / dim] * dim + 2 * i % dim;
        ((__nv_bfloat162 *)y)[i] = __floats2bfloat162_rn(x[0], x[1]);
    }
}

static void embed_half(struct kern *k, void *y, const float *table, const uint16_t *ids,
                       size_t rows, size_t dim)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(embed_half_kernel, cuda_grid(rows * dim / 2, THREADS), THREADS, 0, c->stream,
                (bf16 *)y, table, ids, rows, dim);
    cuda_launched(c, "embed_half");
}

/*
 * A block owns one row of the table. It looks at all ids, THREADS at a time, lists those that are
 * its own in ascending order, and adds their gradients one after the other: the order of the CPU,
 * without an atomic. Reading the ids for every entry of the vocabulary is cheap: they stay in the
 * second-level cache.
 */
template <typename DY>
__global__ static void embed_bwd_kernel(float *dtable, const DY *dy, const uint16_t *ids,
                                        size_t rows, size_t dim)
{
    __shared__ unsigned list[THREADS], before[THREADS / CUDA_WARP];
    unsigned warp = threadIdx.x / CUDA_WARP, lane = threadIdx.x % CUDA_WARP;
    float *to = dtable + blockIdx.x * dim;
    for (size_t base = 0; base < rows; base += THREADS) {
        size_t row = base + threadIdx.x;
        bool mine = row < rows && ids[row] == blockIdx.x;
        unsigned hits = __ballot_sync(0xffffffffu, mine), n = 0, at = 0;
        if (lane == 0)
            before[warp] = __popc(hits);
        if (!__syncthreads_or(mine))
            continue;
        for (unsigned w = 0; w < THREADS / CUDA_WARP; w++) {
            at += w < warp ? before[w] : 0;
            n += before[w];
        }
        if (mine)
            list[at + __popc(hits & ((1u << lane) - 1))] = threadIdx.x;
        __syncthreads();
        for (size_t i = threadIdx.x; i < dim; i += THREADS) {
            float sum = to[i];
            for (unsigned j = 0; j < n; j++)
                sum += cuda_get(dy[(base + list[j]) * dim + i]);
            to[i] = sum;
        }
        __syncthreads();
    }
}

template <typename DY>
static void embed_bwd_of(struct kern *k, float *dtable, const DY *dy, const uint16_t *ids,
                         size_t rows, size_t dim, size_t vocab)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH((embed_bwd_kernel<DY>), (unsigned)vocab, THREADS, 0, c->stream, dtable, dy, ids,
                rows, dim);
    cuda_launched(c, "embed_bwd");
}

static void embed_bwd(struct kern *k, float *dtable, const float *dy, const uint16_t *ids,
                      size_t rows, size_t dim, size_t vocab)
{
    embed_bwd_of(k, dtable, dy, ids, rows, dim, vocab);
}

static void embed_bwd_half(struct kern *k, float *dtable, const void *dy, const uint16_t *ids,
                           size_t rows, size_t dim, size_t vocab)
{
    embed_bwd_of(k, dtable, (const bf16 *)dy, ids, rows, dim, vocab);
}

__global__ static void take_kernel(float *y, const float *x, size_t batch, size_t t, size_t from,
                                   size_t dim)
{
    size_t n = (t - from) * dim;
    EACH(i, batch * n) y[i] = x[(i / n * t + from) * dim + i % n];
}

static void take(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t from,
                 size_t dim)
{
    struct cuda *c = cuda_of(k);
    size_t n = batch * (t - from) * dim;
    CUDA_LAUNCH(take_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, x, batch, t, from,
                dim);
    cuda_launched(c, "take");
}

__global__ static void shift_fwd_kernel(float *y, const float *x, size_t rows, size_t t, size_t dim)
{
    EACH(i, rows * dim) y[i] = i / dim % t ? x[i - dim] : 0.0f;
}

static void shift_fwd(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t dim)
{
    struct cuda *c = cuda_of(k);
    size_t n = batch * t * dim;
    CUDA_LAUNCH(shift_fwd_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, x, batch * t, t,
                dim);
    cuda_launched(c, "shift_fwd");
}

__global__ static void shift_bwd_kernel(float *dx, const float *dy, size_t rows, size_t t,
                                        size_t dim, bool add)
{
    EACH(i, rows * dim)
    {
        float d = i / dim % t < t - 1 ? dy[i + dim] : 0.0f;
        dx[i] = add ? dx[i] + d : d;
    }
}

static void shift_bwd(struct kern *k, float *dx, const float *dy, size_t batch, size_t t,
                      size_t dim, bool add)
{
    struct cuda *c = cuda_of(k);
    size_t n = batch * t * dim;
    CUDA_LAUNCH(shift_bwd_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, dx, dy, batch * t,
                t, dim, add);
    cuda_launched(c, "shift_bwd");
}

/* ---- coefficient vectors: one block, they are as long as a row is wide ---- */

__global__ static void coef_fwd_kernel(const struct kern_coef a)
{
    float p0 = a.kind != COEF_GATE && a.p0 ? *a.p0 : 1.0f;
    float p1 = a.kind == COEF_SCALE && a.p1 ? *a.p1 : 1.0f;
    for (size_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float w = a.w ? a.w[i] : 1.0f, c0 = a.kind == COEF_SCALE ? a.f * p0 * p1 * w : p0;
        if (a.kind == COEF_GATE)
            c0 = 1.0f / (1.0f + expf(-a.p0[i]));
        a.c0[i] = c0;
        if (a.kind != COEF_SCALE)
            a.c1[i] = (1.0f - c0) * w;
    }
}

static void coef_fwd(struct kern *k, const struct kern_coef *a)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(coef_fwd_kernel, 1, THREADS, 0, c->stream, *a);
    cuda_launched(c, "coef_fwd");
}

__global__ static void coef_bwd_kernel(const struct kern_coef a)
{
    float p0 = a.kind == COEF_SCALE && a.p0 ? *a.p0 : 1.0f;
    float p1 = a.kind == COEF_SCALE && a.p1 ? *a.p1 : 1.0f, sum = 0;
    for (size_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float d0 = a.dc0[i], w = a.w ? a.w[i] : 1.0f;
        if (a.kind == COEF_SCALE) {
            sum = fmaf(d0, w, sum);
            if (a.dw)
                a.dw[i] += a.f * p0 * p1 * d0;
        } else if (a.kind == COEF_LERP) {
            sum += d0 - a.dc1[i];
        } else {
            float g = a.c0[i], d1 = a.dc1[i];
            if (a.dp0)
                a.dp0[i] += (d0 - d1 * w) * (g * (1.0f - g));
            if (a.dw)
                a.dw[i] += d1 * (1.0f - g);
        }
    }
    sum = block_sum(sum); /* the scalars have been read by every thread before it */
    if (threadIdx.x || a.kind == COEF_GATE)
        return;
    float f = a.kind == COEF_SCALE ? a.f : 1.0f;
    if (a.dp0)
        *a.dp0 += f * p1 * sum;
    if (a.dp1)
        *a.dp1 += f * p0 * sum;
}

static void coef_bwd(struct kern *k, const struct kern_coef *a)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(coef_bwd_kernel, 1, THREADS, 0, c->stream, *a);
    cuda_launched(c, "coef_bwd");
}

void cuda_fill_elem(struct kern *k)
{
    k->mul = mul;
    k->add = add;
    k->axpby = axpby;
    k->round_bf16 = round_bf16;
    k->linear_act_fwd = linear_act_fwd;
    k->embed_fwd = embed_fwd;
    k->embed_bwd = embed_bwd;
    k->embed_half = embed_half;
    k->embed_bwd_half = embed_bwd_half;
    k->take = take;
    k->shift_fwd = shift_fwd;
    k->shift_bwd = shift_bwd;
    k->coef_fwd = coef_fwd;
    k->coef_bwd = coef_bwd;
}
