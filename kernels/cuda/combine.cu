/*
 * combine.cu - the residual stream in a step of training: combine with half values, and two of them
 * in one pass (kernels.h). The formulas are those of rows.cu, which has what scoring needs and
 * every width.
 *
 * Bound by memory: each number is read once and stays in registers, all loads of a row are under
 * way together, no barrier but at the ends. Sums are fp32, rounded once when stored.
 */
#include "kernels/cuda/half.cuh"

enum { FWD_THREADS = 256, BWD_THREADS = 128 };

/* A warp takes rows, a lane R times eight columns of each. FWD_ROWS by a warp, BWD_ROWS by a block.
 */
enum { EIGHT = 8, COLUMNS = EIGHT * CUDA_WARP, FWD_ROWS = 4, BWD_ROWS = 64 };

static __device__ inline unsigned column(int r)
{
    return (r * CUDA_WARP + threadIdx.x % CUDA_WARP) * EIGHT;
}

/* Is there such a column? FULL: rows have R * COLUMNS columns. */
template <bool FULL> static __device__ inline bool has(int r, size_t dim)
{
    return FULL || column(r) < dim;
}

/* This lane's columns of a row, zeros behind its end; all zeros where x is not wanted. */
template <int R, bool FULL>
static __device__ inline void row_fetch(struct raw y[R], bool wanted, const void *x, bool half,
                                        size_t at, size_t dim)
{
#pragma unroll
    for (int r = 0; r < R; r++)
        y[r] = wanted && has<FULL>(r, dim) ? fetch(x, half, at + column(r)) : raw();
}

/* ---- vectors as long as a row, in shared memory ---- */

/* Where column i lies: a lane's eight in two places, so that 16 bytes by each of eight neighbours
 * are in all banks. */
static __device__ inline unsigned spot(unsigned i)
{
    unsigned lane = i / EIGHT % CUDA_WARP;
    return ((i / COLUMNS * 2 + i / 4 % 2) * CUDA_WARP + lane) * 4 + i % 4;
}

static __device__ inline some<EIGHT> vector_get(const float *x, int r)
{
    some<4> low = get<4>(x, spot(column(r))), high = get<4>(x, spot(column(r) + 4));
    some<EIGHT> y;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        y.v[i] = i < 4 ? low.v[i] : high.v[i - 4];
    return y;
}

static __device__ inline void vector_put(float *x, int r, const some<EIGHT> &y)
{
    some<4> low, high;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        low.v[i] = y.v[i];
        high.v[i] = y.v[i + 4];
    }
    put(x, spot(column(r)), low);
    put(x, spot(column(r) + 4), high);
}

/* The coefficients of a combine; NULL and columns that are not there: ones. */
template <int R> struct coefs {
    float c0[R * COLUMNS], c1[R * COLUMNS];
};

template <int R>
static __device__ inline void coefs_load(struct coefs<R> *c, const struct kern_combine &a)
{
    for (unsigned i = threadIdx.x; i < R * COLUMNS; i += blockDim.x) {
        c->c0[spot(i)] = a.c0 && i < a.dim ? a.c0[i] : 1.0f;
        c->c1[spot(i)] = a.c1 && i < a.dim ? a.c1[i] : 1.0f;
    }
}

/* c0*x0 + c1*x1. */
template <int R>
static __device__ inline some<EIGHT> sum(const struct coefs<R> &c, int r, const some<EIGHT> &x0,
                                         const some<EIGHT> &x1)
{
    some<EIGHT> c0 = vector_get(c.c0, r), c1 = vector_get(c.c1, r), y;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        y.v[i] = fmaf(c1.v[i], x1.v[i], c0.v[i] * x0.v[i]);
    return y;
}

/* ---- forward ---- */

/* A combine, or with PAIR that of `first`'s result; otherwise `first` is not looked at. */
template <int R, bool FULL, bool PAIR>
__global__ static void __launch_bounds__(FWD_THREADS)
    combine_kernel(const struct kern_combine first, const struct kern_combine a)
{
    __shared__ __align__(16) struct coefs<R> c[PAIR ? 2 : 1];
    const struct kern_combine &in = PAIR ? first : a;
    size_t warp = blockIdx.x * (size_t)(FWD_THREADS / CUDA_WARP) + threadIdx.x / CUDA_WARP;
    size_t end = (warp + 1) * FWD_ROWS < a.rows ? (warp + 1) * FWD_ROWS : a.rows;
    coefs_load(&c[0], a);
    if (PAIR)
        coefs_load(&c[PAIR], first);
    __syncthreads();
    for (size_t row = warp * FWD_ROWS; row < end; row++) {
        size_t at = row * a.dim;
        struct raw x0[R], added[R], x1[R];
        some<EIGHT> y[R];
        float ss = 0;
        row_fetch<R, FULL>(x0, true, in.x0, in.x0_16, at, a.dim);
        row_fetch<R, FULL>(added, PAIR, first.x1, first.x1_16, at, a.dim);
        row_fetch<R, FULL>(x1, a.x1, a.x1, a.x1_16, at, a.dim);
#pragma unroll
        for (int r = 0; r < R; r++) {
            y[r] = numbers(x0[r], in.x0_16);
            if (PAIR)
                y[r] = sum(c[PAIR], r, y[r], numbers(added[r], first.x1_16));
            if (PAIR && first.y && has<FULL>(r, a.dim))
                put(first.y, first.y16, at + column(r), y[r]);
            y[r] = sum(c[0], r, y[r], numbers(x1[r], a.x1_16));
            if (a.y && has<FULL>(r, a.dim))
                put(a.y, a.y16, at + column(r), y[r]);
#pragma unroll
            for (int i = 0; i < EIGHT; i++)
                ss = fmaf(y[r].v[i], y[r].v[i], ss);
        }
        if (!a.n)
            continue;
        float rstd = 1.0f / sqrtf(warp_sum(ss) / (float)a.dim + a.eps), g = a.gain * rstd;
#pragma unroll
        for (int r = 0; r < R; r++)
            if (has<FULL>(r, a.dim)) {
#pragma unroll
                for (int i = 0; i < EIGHT; i++)
                    y[r].v[i] *= g;
                put(a.n, a.n16, at + column(r), y[r]);
            }
        if (threadIdx.x % CUDA_WARP == 0 && a.rstd)
            a.rstd[row] = rstd;
    }
}

/* By the width of rows: of one combine, and of a pair. */
#define SINGLE(run, dim, ...)                                                                      \
    ((dim) == COLUMNS       ? run<1, true, false>(__VA_ARGS__)                                     \
     : (dim) == 2 * COLUMNS ? run<2, true, false>(__VA_ARGS__)                                     \
     : (dim) < 2 * COLUMNS  ? run<2, false, false>(__VA_ARGS__)                                    \
                            : run<4, false, false>(__VA_ARGS__))
#define DOUBLE(run, dim, ...)                                                                      \
    ((dim) == 2 * COLUMNS ? run<2, true, true>(__VA_ARGS__) : run<2, false, true>(__VA_ARGS__))

template <int R, bool FULL, bool PAIR>
static void combine_as(struct cuda *c, const struct kern_combine *first,
                       const struct kern_combine *a)
{
    unsigned grid = cuda_blocks(a->rows, FWD_THREADS / CUDA_WARP * FWD_ROWS);
    CUDA_LAUNCH((combine_kernel<R, FULL, PAIR>), grid, FWD_THREADS, 0, c->stream, *first, *a);
    cuda_launched(c, "combine_half");
}

static void combine_half(struct kern *k, const struct kern_combine *a)
{
    if (a->rows)
        SINGLE(combine_as, a->dim, cuda_of(k), a, a);
}

static void combine_pair(struct kern *k, const struct kern_combine *first,
                         const struct kern_combine *then)
{
    if (then->rows)
        DOUBLE(combine_as, then->dim, cuda_of(k), first, then);
}

/* ---- backward ---- */

/* dx = old + c*d. */
static __device__ inline void give(void *dx, bool half, size_t at, const struct raw &old,
                                   const some<EIGHT> &c, const some<EIGHT> &d)
{
    some<EIGHT> v = numbers(old, half);
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        v.v[i] = fmaf(c.v[i], d.v[i], v.v[i]);
    put(dx, half, at, v);
}

/* What a gradient is added to, which nothing is under way to. */
static __device__ inline struct raw there_already(const void *dx, bool half, bool add, size_t at)
{
    return add ? fetch(dx, half, at) : raw();
}

static __device__ inline void dot(some<EIGHT> *total, const some<EIGHT> &x, const some<EIGHT> &y)
{
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        total->v[i] = fmaf(x.v[i], y.v[i], total->v[i]);
}

/* The sum of what the warps of a block have, in ascending order. */
template <int R> static __device__ inline void add_up(float *all, const some<EIGHT> mine[R])
{
    for (unsigned w = 0; w < BWD_THREADS / CUDA_WARP; w++) {
        __syncthreads();
#pragma unroll
        for (int r = 0; r < R; r++)
            if (w == threadIdx.x / CUDA_WARP) {
                some<EIGHT> t = {};
                if (w)
                    t = vector_get(all, r);
#pragma unroll
                for (int i = 0; i < EIGHT; i++)
                    t.v[i] += mine[r].v[i];
                vector_put(all, r, t);
            }
    }
}

/* What is summed over the rows, and in the end the coefficients' gradients. */
enum { OF_X0, OF_X1, OF_FIRST_X0, OF_FIRST_X1, GRADS };

/*
 * d = dy + g * (dn - y * (s*r*r/dim)),  dx0 = c0*d, dx1 = c1*d, dc0 += d*x0, dc1 += d*x1  with r =
 * rstd, g = gain*r, s = sum of dn*y, as in rows.cu.
 *
 * A pair: x0 is t = f0*u + f1*v of `first`, its gradient e = c0*d + first.dy, du = f0*e, dv = f1*e,
 * df0 += e*u, df1 += e*v. Where there is f0, first.dy is 0 (kernels.h): with A = sum of d*u and B =
 * sum of d*v over the rows, df0 = c0*A, df1 = c0*B, dc0 = f0*A + f1*B. So three sums are enough in
 * either case.
 *
 * A block has BWD_ROWS rows, its warps take turns. A lane keeps the sums of its columns. part is
 * [blocks][2, PAIR: GRADS][dim].
 */
template <int R, bool FULL, bool PAIR>
__global__ static void __launch_bounds__(BWD_THREADS, PAIR || R == 4 ? 2 : 3)
    combine_bwd_kernel(const struct kern_combine first, const struct kern_combine a, float *part)
{
    enum { SUMS = PAIR ? 3 : 2, WARPS = BWD_THREADS / CUDA_WARP };
    enum { EARLY = R < 4 }; /* registers for what dx1 is added to */
    __shared__ __align__(16) struct coefs<R> c[PAIR ? 2 : 1];
    __shared__ __align__(16) float all[SUMS][R * COLUMNS];
    const struct kern_combine &in = PAIR ? first : a;
    const unsigned warp = threadIdx.x / CUDA_WARP;
    const size_t from = blockIdx.x * (size_t)BWD_ROWS;
    const size_t end = from + BWD_ROWS < a.rows ? from + BWD_ROWS : a.rows;
    /* Where x0 and x1 are read anyway, y need not be. */
    const bool again = PAIR || !a.y || !a.dn || (a.dc0 && (a.dc1 || !a.x1));
    const bool x_16 = again ? in.x0_16 : a.y16, scaled = PAIR && first.c0;
    const void *x = again ? in.x0 : a.y;
    some<EIGHT> s0[R] = {}, s1[R] = {}, s2[R] = {};
    coefs_load(&c[0], a);
    if (PAIR)
        coefs_load(&c[PAIR], first);
    __syncthreads();
    for (size_t row = from + warp; row < end; row += WARPS) {
        size_t at = row * a.dim;
        struct raw dy[R], dn[R], x0[R], v0[R], x1[R], more[R], old[R];
        some<EIGHT> d[R];
        row_fetch<R, FULL>(dn, a.dn, a.dn, a.dn16, at, a.dim);
        row_fetch<R, FULL>(x0, PAIR || a.dn || a.dc0, x, x_16, at, a.dim);
        row_fetch<R, FULL>(v0, PAIR, first.x1, first.x1_16, at, a.dim);
        row_fetch<R, FULL>(x1, a.x1 && (a.dc1 || (a.dn && again)), a.x1, a.x1_16, at, a.dim);
        row_fetch<R, FULL>(dy, a.dy, a.dy, a.dy16, at, a.dim);
        row_fetch<R, FULL>(more, PAIR && first.dy, first.dy, first.dy16, at, a.dim);
        row_fetch<R, FULL>(old, EARLY && a.dx1 && a.add1, a.dx1, a.dx1_16, at, a.dim);
#pragma unroll
        for (int r = 0; r < R; r++)
            d[r] = numbers(dy[r], a.dy16);
        if (a.dn) {
            some<EIGHT> y[R];
            float rstd = a.rstd[row], s = 0;
#pragma unroll
            for (int r = 0; r < R; r++) {
                some<EIGHT> n = numbers(dn[r], a.dn16);
                y[r] = numbers(x0[r], x_16);
                if (PAIR)
                    y[r] = sum(c[PAIR], r, y[r], numbers(v0[r], first.x1_16));
                if (again)
                    y[r] = sum(c[0], r, y[r], numbers(x1[r], a.x1_16));
#pragma unroll
                for (int i = 0; i < EIGHT; i++)
                    s = fmaf(n.v[i], y[r].v[i], s);
            }
            float g = a.gain * rstd, coef = -(warp_sum(s) * (rstd * rstd) / (float)a.dim);
#pragma unroll
            for (int r = 0; r < R; r++) {
                some<EIGHT> n = numbers(dn[r], a.dn16);
#pragma unroll
                for (int i = 0; i < EIGHT; i++)
                    d[r].v[i] = fmaf(g, fmaf(coef, y[r].v[i], n.v[i]), d[r].v[i]);
            }
        }
        if (!again && a.dc0)
            row_fetch<R, FULL>(x0, true, a.x0, a.x0_16, at, a.dim);
#pragma unroll
        for (int r = 0; r < R; r++) {
            some<EIGHT> u = numbers(x0[r], in.x0_16), c0 = vector_get(c[0].c0, r);
            bool there = has<FULL>(r, a.dim);
            size_t to = at + column(r);
            dot(&(PAIR ? s2 : s1)[r], d[r], numbers(x1[r], a.x1_16));
            if (!EARLY && a.dx1 && there)
                old[r] = there_already(a.dx1, a.dx1_16, a.add1, to);
            if (a.dx1 && there)
                give(a.dx1, a.dx1_16, to, old[r], vector_get(c[0].c1, r), d[r]);
            if (!PAIR) {
                if (a.dc0)
                    dot(&s0[r], d[r], u);
                if (a.dx0 && there) /* it may be dx1 */
                    give(a.dx0, a.dx0_16, to, there_already(a.dx0, a.dx0_16, a.add0, to), c0, d[r]);
                continue;
            }
            some<EIGHT> v = numbers(v0[r], first.x1_16), e = numbers(more[r], first.dy16);
            dot(&s0[r], d[r], scaled ? u : sum(c[PAIR], r, u, v));
            if (scaled)
                dot(&s1[r], d[r], v);
#pragma unroll
            for (int i = 0; i < EIGHT; i++)
                e.v[i] = fmaf(c0.v[i], d[r].v[i], e.v[i]);
            if (!scaled)
                dot(&s1[r], e, v);
            if (first.dx1 && there)
                give(first.dx1, first.dx1_16, to,
                     there_already(first.dx1, first.dx1_16, first.add1, to),
                     vector_get(c[PAIR].c1, r), e);
            if (first.dx0 && there)
                give(first.dx0, first.dx0_16, to,
                     there_already(first.dx0, first.dx0_16, first.add0, to),
                     vector_get(c[PAIR].c0, r), e);
        }
    }
    if (!part)
        return;
    add_up<R>(all[0], s0);
    add_up<R>(all[1], s1);
    if (PAIR)
        add_up<R>(all[SUMS - 1], s2);
    __syncthreads();
    for (unsigned i = threadIdx.x; i < a.dim; i += BWD_THREADS) {
        unsigned j = spot(i);
        float s[] = {all[0][j], all[1][j], all[SUMS - 1][j]};
        float *to = part + blockIdx.x * (PAIR ? (size_t)GRADS : 2) * a.dim + i;
        if (PAIR) {
            float c0 = scaled ? c[0].c0[j] : 1.0f;
            to[OF_FIRST_X0 * a.dim] = c0 * s[0];
            to[OF_FIRST_X1 * a.dim] = c0 * s[1];
        }
        to[OF_X0 * a.dim] = scaled ? fmaf(c[PAIR].c0[j], s[0], c[PAIR].c1[j] * s[1]) : s[0];
        to[OF_X1 * a.dim] = PAIR ? s[2] : s[1];
    }
}

/* to[v] += sum of part[blocks][vectors][dim] over the blocks: 32 columns by a block, whose rows of
 * threads take turns; theirs are added in ascending order. */
struct totals {
    float *to[GRADS];
};

enum { FOLD = 32 };

__global__ static void fold_kernel(const struct totals t, const float *part, unsigned blocks,
                                   unsigned dim)
{
    __shared__ float sums[FOLD][FOLD];
    unsigned i = blockIdx.x * FOLD + threadIdx.x, v = blockIdx.y;
    float s = 0, *to = v < 2 ? v ? t.to[1] : t.to[0] : v < 3 ? t.to[2] : t.to[3];
    if (!to)
        return;
    for (size_t b = threadIdx.y; i < dim && b < blocks; b += FOLD)
        s += part[(b * gridDim.y + v) * dim + i];
    sums[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y || i >= dim)
        return;
    for (int y = 1; y < FOLD; y++)
        s += sums[y][threadIdx.x];
    to[i] += s;
}

template <int R, bool FULL, bool PAIR>
static void combine_bwd_as(struct cuda *c, const struct kern_combine *first,
                           const struct kern_combine *a)
{
    enum { VECTORS = PAIR ? (int)GRADS : 2 };
    const struct totals t = {{a->dc0, a->dc1, PAIR ? first->dc0 : NULL, PAIR ? first->dc1 : NULL}};
    bool sums = t.to[OF_X0] || t.to[OF_X1] || t.to[OF_FIRST_X0] || t.to[OF_FIRST_X1];
    unsigned grid = cuda_blocks(a->rows, BWD_ROWS);
    float *part = sums ? cuda_temp<float>(c, grid * VECTORS * a->dim, "combine_bwd_half") : NULL;
    if (sums && !part)
        return;
    CUDA_LAUNCH((combine_bwd_kernel<R, FULL, PAIR>), grid, BWD_THREADS, 0, c->stream, *first, *a,
                part);
    if (sums)
        CUDA_LAUNCH(fold_kernel, dim3(cuda_blocks(a->dim, FOLD), VECTORS), dim3(FOLD, FOLD), 0,
                    c->stream, t, part, grid, (unsigned)a->dim);
    cuda_launched(c, "combine_bwd_half");
    cuda_done(c, part);
}

static void combine_bwd_half(struct kern *k, const struct kern_combine *a)
{
    struct kern_combine b = *a;
    if (a->dx0 == a->dy && !a->dn && !a->c0 && !a->add0)
        b.dx0 = NULL; /* it is there already */
    if (a->rows && (b.dx0 || a->dx1 || a->dc0 || a->dc1))
        SINGLE(combine_bwd_as, a->dim, cuda_of(k), &b, &b);
}

static void combine_bwd_pair(struct kern *k, const struct kern_combine *first,
                             const struct kern_combine *then)
{
    if (then->rows)
        DOUBLE(combine_bwd_as, then->dim, cuda_of(k), first, then);
}

void cuda_fill_combine(struct kern *k)
{
    k->combine_half = combine_half;
    k->combine_bwd_half = combine_bwd_half;
    k->combine_pair = combine_pair;
    k->combine_bwd_pair = combine_bwd_pair;
}
