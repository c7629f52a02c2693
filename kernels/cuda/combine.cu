/*
 * combine.cu - the residual stream in a step of training: combine with half values (kernels.h). The
 * formulas are those of rows.cu, which has what scoring needs and every width.
 *
 * Bound by memory: each number is read once (twice where the second read finds it in the
 * first-level cache) and stays in registers, loads of a row are under way together, no barrier but
 * at the ends.
 */
#include "kernels/cuda/half.cuh"

enum { THREADS = 256, WARPS = THREADS / CUDA_WARP };

/* A warp takes rows, a lane R times four columns of each. FWD_ROWS by a warp, BWD_ROWS by a block.
 */
enum { FOUR = 4, FWD_ROWS = 4, BWD_ROWS = 64 };

static __device__ inline unsigned column(int r)
{
    return (r * CUDA_WARP + threadIdx.x % CUDA_WARP) * FOUR;
}

/* Is there such a column? FULL: rows have R * 128 columns, and all loads are under way at once. */
template <bool FULL> static __device__ inline bool has(int r, size_t dim)
{
    return FULL || column(r) < dim;
}

/* This lane's part of a coefficient vector, which lies on no multiple of 16 bytes. NULL: all are
 * `otherwise`. */
template <int R, bool FULL>
static __device__ inline void coefficients(some<FOUR> c[R], const float *x, size_t dim,
                                           float otherwise)
{
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < FOUR; i++)
            c[r].v[i] = x && has<FULL>(r, dim) ? x[column(r) + i] : otherwise;
}

/* This lane's columns of a row; zeros behind its end. */
template <int R, bool FULL, typename T>
static __device__ inline void row_get(some<FOUR> y[R], const T *x, size_t dim)
{
#pragma unroll
    for (int r = 0; r < R; r++)
        y[r] = has<FULL>(r, dim) ? get<FOUR>(x, column(r)) : some<FOUR>();
}

template <int R, bool FULL, typename X1>
__global__ static void __launch_bounds__(THREADS) combine_kernel(const struct kern_combine a)
{
    const X1 *other = a.x1 ? (const X1 *)a.x1 : (const X1 *)a.x0; /* times 0 then */
    size_t warp = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP;
    size_t end = (warp + 1) * FWD_ROWS < a.rows ? (warp + 1) * FWD_ROWS : a.rows;
    some<FOUR> c0[R], c1[R], y[R], x1[R];
    coefficients<R, FULL>(c0, a.c0, a.dim, 1);
    coefficients<R, FULL>(c1, a.c1, a.dim, a.x1 ? 1 : 0);
    for (size_t row = warp * FWD_ROWS; row < end; row++) {
        size_t at = row * a.dim;
        float ss = 0;
        row_get<R, FULL>(y, a.x0 + at, a.dim);
        row_get<R, FULL>(x1, other + at, a.dim);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < FOUR; i++) {
                float v = fmaf(c1[r].v[i], x1[r].v[i], c0[r].v[i] * y[r].v[i]);
                y[r].v[i] = v;
                ss = fmaf(v, v, ss);
            }
        if (a.y)
#pragma unroll
            for (int r = 0; r < R; r++)
                if (has<FULL>(r, a.dim))
                    put(a.y, a.y16, at + column(r), y[r]);
        if (!a.n)
            continue;
        float rstd = 1.0f / sqrtf(warp_sum(ss) / (float)a.dim + a.eps), g = a.gain * rstd;
#pragma unroll
        for (int r = 0; r < R; r++)
            if (has<FULL>(r, a.dim)) {
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    y[r].v[i] *= g;
                put(a.n, a.n16, at + column(r), y[r]);
            }
        if (threadIdx.x % CUDA_WARP == 0 && a.rstd)
            a.rstd[row] = rstd;
    }
}

template <int R, bool FULL> static void combine_as(struct cuda *c, const struct kern_combine *a)
{
    unsigned grid = cuda_blocks(a->rows, WARPS * FWD_ROWS);
    if (a->x1_16)
        CUDA_LAUNCH((combine_kernel<R, FULL, bf16>), grid, THREADS, 0, c->stream, *a);
    else
        CUDA_LAUNCH((combine_kernel<R, FULL, float>), grid, THREADS, 0, c->stream, *a);
    cuda_launched(c, "combine_half");
}

static void combine_half(struct kern *k, const struct kern_combine *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    if (a->dim == 512)
        combine_as<4, true>(c, a);
    else if (a->dim < 512)
        combine_as<4, false>(c, a);
    else
        combine_as<8, false>(c, a);
}

/* dx = c*d, or dx += c*d. */
template <int R, bool FULL>
static __device__ inline void row_put(void *dx, bool half, bool add, const some<FOUR> d[R],
                                      const float *c, size_t at, size_t dim)
{
    some<FOUR> v[R] = {};
    if (add)
        row_get<R, FULL>(v, (const float *)dx + at, dim);
#pragma unroll
    for (int r = 0; r < R; r++)
        if (has<FULL>(r, dim)) {
            some<FOUR> f = get<FOUR>(c, column(r));
#pragma unroll
            for (int i = 0; i < FOUR; i++)
                v[r].v[i] += f.v[i] * d[r].v[i];
            put(dx, half, at + column(r), v[r]);
        }
}

/* sum += d * x. */
template <int R, bool FULL, typename T>
static __device__ inline void row_add(some<FOUR> sum[R], const some<FOUR> d[R], const T *x,
                                      size_t dim)
{
    some<FOUR> v[R];
    row_get<R, FULL>(v, x, dim);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < FOUR; i++)
            sum[r].v[i] = fmaf(d[r].v[i], v[r].v[i], sum[r].v[i]);
}

/*
 * d = dy + g * (dn - y * (s*r*r/dim)),  dx0 = c0*d, dx1 = c1*d, dc0 += d*x0, dc1 += d*x1  with r =
 * rstd, g = gain*r, s = sum of dn*y, as in rows.cu. A block has BWD_ROWS rows, its warps take
 * turns. A lane keeps the sums of its columns; at the end the warps add theirs in ascending order.
 * part is [blocks][2][dim], or NULL.
 */
template <int R, bool FULL, typename X1, typename DN>
__global__ static void __launch_bounds__(THREADS, R == 4 ? 2 : 1)
    combine_bwd_kernel(const struct kern_combine a, float *part)
{
    __shared__ __align__(16) float c[2][R * FOUR * CUDA_WARP]; /* c0, c1; at the end the sums */
    unsigned warp = threadIdx.x / CUDA_WARP;
    size_t from = blockIdx.x * (size_t)BWD_ROWS;
    size_t end = from + BWD_ROWS < a.rows ? from + BWD_ROWS : a.rows;
    some<FOUR> s0[R] = {}, s1[R] = {};
    /* Where x0 and x1 are read anyway, y need not be. */
    const bool again = !a.y || (a.dc0 && a.dc1);
    for (size_t i = threadIdx.x; i < R * FOUR * CUDA_WARP; i += THREADS) {
        c[0][i] = a.c0 && i < a.dim ? a.c0[i] : 1.0f;
        c[1][i] = a.c1 && i < a.dim ? a.c1[i] : 1.0f;
    }
    __syncthreads();
    for (size_t row = from + warp; row < end; row += WARPS) {
        size_t at = row * a.dim;
        some<FOUR> d[R] = {};
        if (a.dy)
            row_get<R, FULL>(d, a.dy + at, a.dim);
        if (a.dn) {
            some<FOUR> n[R], y[R];
            float rstd = a.rstd[row], s = 0;
            row_get<R, FULL>(n, (const DN *)a.dn + at, a.dim);
            row_get<R, FULL>(y, (again ? a.x0 : a.y) + at, a.dim);
            if (again) {
                some<FOUR> x[R] = {};
                if (a.x1)
                    row_get<R, FULL>(x, (const X1 *)a.x1 + at, a.dim);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    some<FOUR> c0 = get<FOUR>(c[0], column(r));
                    some<FOUR> c1 = get<FOUR>(c[1], column(r));
#pragma unroll
                    for (int i = 0; i < FOUR; i++)
                        y[r].v[i] = fmaf(c1.v[i], x[r].v[i], c0.v[i] * y[r].v[i]);
                }
            }
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    s = fmaf(n[r].v[i], y[r].v[i], s);
            float g = a.gain * rstd, coef = -(warp_sum(s) * (rstd * rstd) / (float)a.dim);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < FOUR; i++)
                    d[r].v[i] = fmaf(g, fmaf(coef, y[r].v[i], n[r].v[i]), d[r].v[i]);
        }
        if (a.dc0)
            row_add<R, FULL>(s0, d, a.x0 + at, a.dim);
        if (a.dc1)
            row_add<R, FULL>(s1, d, (const X1 *)a.x1 + at, a.dim);
        if (a.dx1)
            row_put<R, FULL>(a.dx1, a.dx1_16, a.add1, d, c[1], at, a.dim);
        if (a.dx0) /* it may be dx1 */
            row_put<R, FULL>(a.dx0, false, a.add0, d, c[0], at, a.dim);
    }
    for (unsigned w = 0; part && w < WARPS; w++) {
        __syncthreads(); /* all are done with c0 and c1, or with adding theirs */
#pragma unroll
        for (int r = 0; r < R; r++)
            if (w == warp) {
                some<FOUR> t0 = get<FOUR>(c[0], column(r)), t1 = get<FOUR>(c[1], column(r));
#pragma unroll
                for (int i = 0; i < FOUR; i++) {
                    t0.v[i] = w ? t0.v[i] + s0[r].v[i] : s0[r].v[i];
                    t1.v[i] = w ? t1.v[i] + s1[r].v[i] : s1[r].v[i];
                }
                put(c[0], column(r), t0);
                put(c[1], column(r), t1);
            }
    }
    __syncthreads();
    for (size_t i = threadIdx.x; part && i < a.dim; i += THREADS) {
        float *to = part + blockIdx.x * 2 * a.dim + i;
        to[0] = c[0][i];
        to[a.dim] = c[1][i];
    }
}

template <int R, bool FULL, typename X1>
static void combine_bwd_with(struct cuda *c, const struct kern_combine *a, unsigned grid,
                             float *part)
{
    if (a->dn16)
        CUDA_LAUNCH((combine_bwd_kernel<R, FULL, X1, bf16>), grid, THREADS, 0, c->stream, *a, part);
    else
        CUDA_LAUNCH((combine_bwd_kernel<R, FULL, X1, float>), grid, THREADS, 0, c->stream, *a,
                    part);
    cuda_launched(c, "combine_bwd_half");
}

template <int R, bool FULL>
static void combine_bwd_as(struct cuda *c, const struct kern_combine *a, unsigned grid, float *part)
{
    if (a->x1_16)
        combine_bwd_with<R, FULL, bf16>(c, a, grid, part);
    else
        combine_bwd_with<R, FULL, float>(c, a, grid, part);
}

static void combine_bwd_half(struct kern *k, const struct kern_combine *a)
{
    struct cuda *c = cuda_of(k);
    struct kern_combine b = *a;
    unsigned grid = cuda_blocks(a->rows, BWD_ROWS);
    float *part = NULL;
    if (a->rows == 0)
        return;
    if (a->dx0 == a->dy && !a->dn && !a->c0 && !a->add0)
        b.dx0 = NULL; /* it is there already */
    if (!b.dx0 && !a->dx1 && !a->dc0 && !a->dc1)
        return;
    if ((a->dc0 || a->dc1) && !(part = cuda_temp<float>(c, grid * 2 * a->dim, "combine_bwd_half")))
        return;
    if (a->dim == 512)
        combine_bwd_as<4, true>(c, &b, grid, part);
    else if (a->dim < 512)
        combine_bwd_as<4, false>(c, &b, grid, part);
    else
        combine_bwd_as<8, false>(c, &b, grid, part);
    if (a->dc0)
        cuda_colsum(c, a->dc0, part, grid, a->dim, 2 * a->dim);
    if (a->dc1)
        cuda_colsum(c, a->dc1, part + a->dim, grid, a->dim, 2 * a->dim);
    cuda_done(c, part);
}

void cuda_fill_combine(struct kern *k)
{
    k->combine_half = combine_half;
    k->combine_bwd_half = combine_bwd_half;
}
