/*
 * rows.cu - operations that treat every row, or every head of a row, by itself: combine, QK norm
 * with RoPE, XSA, and the optimiser's row norms. A warp takes a row (or head); what it reads twice
 * is still in the first-level cache. Where pointers may be equal (kernels.h says so), an element is
 * read and written by the same thread, the read first.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256, WARPS = THREADS / CUDA_WARP, BLOCK_ROWS = 64 };

/* ---- combine ---- */

static __device__ inline float combine_at(const struct kern_combine &a, size_t at, size_t i)
{
    float y = a.x0[at + i];
    if (a.c0)
        y *= a.c0[i];
    if (!a.x1)
        return y;
    return a.c1 ? fmaf(a.c1[i], a.x1[at + i], y) : y + a.x1[at + i];
}

/* A row by a warp. */
__global__ static void combine_fwd_kernel(const struct kern_combine a)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP;
    unsigned lane = threadIdx.x % CUDA_WARP;
    if (row >= a.rows)
        return;
    size_t at = row * a.dim;
    float ss = 0;
    /* y may be x0 and n may be y: the sum is done before n is written, and where y is not wanted
     * its value waits in n. */
    float *y = a.y ? a.y + at : a.n + at;
    for (size_t i = lane; i < a.dim; i += CUDA_WARP) {
        float v = combine_at(a, at, i);
        y[i] = v;
        ss = fmaf(v, v, ss);
    }
    if (!a.n)
        return;
    float rstd = 1.0f / sqrtf(warp_sum(ss) / (float)a.dim + a.eps), g = a.gain * rstd;
    for (size_t i = lane; i < a.dim; i += CUDA_WARP)
        a.n[at + i] = g * y[i];
    if (lane == 0 && a.rstd)
        a.rstd[row] = rstd;
}

static void combine_fwd(struct kern *k, const struct kern_combine *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    CUDA_LAUNCH(combine_fwd_kernel, cuda_blocks(a->rows, WARPS), THREADS, 0, c->stream, *a);
    cuda_launched(c, "combine_fwd");
}

/*
 * As combine_bwd of the CPU: with r = rstd, g = gain*r and s = sum of dn*y,
 *   d = dy + g * (dn - y * (s*r*r/dim)),  dx0 = c0*d, dx1 = c1*d, dc0 += d*x0, dc1 += d*x1.
 * A block takes BLOCK_ROWS rows one after the other; a thread keeps its columns, so the sums for
 * dc0 and dc1 need no barrier. part is [blocks][2][dim].
 */
__global__ static void combine_bwd_kernel(const struct kern_combine a, float *part)
{
    CUDA_DYNAMIC_SHARED(float, sums); /* [2][dim] when part is wanted */
    size_t from = blockIdx.x * (size_t)BLOCK_ROWS;
    size_t end = from + BLOCK_ROWS < a.rows ? from + BLOCK_ROWS : a.rows;
    for (size_t i = threadIdx.x; part && i < a.dim; i += THREADS)
        sums[i] = sums[a.dim + i] = 0;
    for (size_t row = from; row < end; row++) {
        size_t at = row * a.dim;
        float g = 0, coef = 0, s = 0;
        if (a.dn) {
            for (size_t i = threadIdx.x; i < a.dim; i += THREADS)
                s = fmaf(a.dn[at + i], a.y ? a.y[at + i] : combine_at(a, at, i), s);
            float rstd = a.rstd[row];
            g = a.gain * rstd;
            coef = -(block_sum(s) * (rstd * rstd) / (float)a.dim);
        }
        for (size_t i = threadIdx.x; i < a.dim; i += THREADS) {
            float d = a.dy ? a.dy[at + i] : 0.0f;
            float x0 = a.dc0 ? a.x0[at + i] : 0.0f, x1 = a.dc1 ? a.x1[at + i] : 0.0f;
            if (a.dn) {
                float y = a.y ? a.y[at + i] : combine_at(a, at, i);
                d = fmaf(g, fmaf(coef, y, a.dn[at + i]), d);
            }
            if (part) {
                sums[i] = fmaf(d, x0, sums[i]);
                sums[a.dim + i] = fmaf(d, x1, sums[a.dim + i]);
            }
            if (a.dx1) {
                float v = a.c1 ? a.c1[i] * d : d;
                a.dx1[at + i] = a.add1 ? a.dx1[at + i] + v : v;
            }
            if (a.dx0) {
                float v = a.c0 ? a.c0[i] * d : d;
                a.dx0[at + i] = a.add0 ? a.dx0[at + i] + v : v;
            }
        }
    }
    for (size_t i = threadIdx.x; part && i < a.dim; i += THREADS) {
        float *to = part + blockIdx.x * 2 * a.dim + i;
        to[0] = sums[i];
        to[a.dim] = sums[a.dim + i];
    }
}

static void combine_bwd(struct kern *k, const struct kern_combine *a)
{
    struct cuda *c = cuda_of(k);
    size_t blocks = (a->rows + BLOCK_ROWS - 1) / BLOCK_ROWS, shared = 0;
    float *part = NULL;
    if (blocks == 0)
        return;
    if (a->dc0 || a->dc1) {
        shared = 2 * a->dim * sizeof(float);
        if (!cuda_ok(c,
                     cudaFuncSetAttribute(combine_bwd_kernel,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                     "combine_bwd: rows too wide") ||
            !(part = cuda_temp<float>(c, blocks * 2 * a->dim, "combine_bwd")))
            return;
    }
    CUDA_LAUNCH(combine_bwd_kernel, (unsigned)blocks, THREADS, shared, c->stream, *a, part);
    cuda_launched(c, "combine_bwd");
    if (a->dc0)
        cuda_colsum(c, a->dc0, part, blocks, a->dim, 2 * a->dim);
    if (a->dc1)
        cuda_colsum(c, a->dc1, part + a->dim, blocks, a->dim, 2 * a->dim);
    cuda_done(c, part);
}

/* ---- QK norm, RoPE, gain ---- */

/* The warp's head of a row, and its angles. */
struct qk_at {
    size_t at, angle, head, unit;
};

static __device__ inline struct qk_at qk_find(const struct kern_qk &a)
{
    size_t unit = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP, row = unit / a.heads;
    struct qk_at p = {unit * a.head_dim, (a.pos0 + row % a.t) * (a.rope_dims / 2), unit % a.heads,
                      unit};
    return p;
}

__global__ static void qk_fwd_kernel(const struct kern_qk a)
{
    struct qk_at p = qk_find(a);
    unsigned lane = threadIdx.x % CUDA_WARP;
    size_t half = a.rope_dims / 2;
    if (p.unit >= a.rows * a.heads)
        return;
    const float *x = a.x + p.at;
    float *y = a.y + p.at, ss = 0, gain = a.gain ? a.gain[p.head] : 1.0f;
    for (size_t i = lane; i < a.head_dim; i += CUDA_WARP)
        ss = fmaf(x[i], x[i], ss);
    float rstd = 1.0f / sqrtf(warp_sum(ss) / (float)a.head_dim + a.eps);
    for (size_t i = lane; i < half; i += CUDA_WARP) {
        float u0 = x[i] * rstd, u1 = x[half + i] * rstd;
        float cs = a.cos[p.angle + i], sn = a.sin[p.angle + i];
        y[i] = gain * fmaf(u0, cs, u1 * sn);
        y[half + i] = gain * fmaf(u1, cs, -(u0 * sn));
    }
    for (size_t i = 2 * half + lane; i < a.head_dim; i += CUDA_WARP)
        y[i] = gain * (x[i] * rstd);
    if (lane == 0 && a.rstd)
        a.rstd[p.unit] = rstd;
}

static void qk_fwd(struct kern *k, const struct kern_qk *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    CUDA_LAUNCH(qk_fwd_kernel, cuda_blocks(a->rows * a->heads, WARPS), THREADS, 0, c->stream, *a);
    cuda_launched(c, "qk_fwd");
}

/* e = R^T dy, s = sum of e*u, dx = gain*rstd * (e - u*(s/head_dim)); s[rows][heads] is dgain's. */
__global__ static void qk_bwd_kernel(const struct kern_qk a, float *sums)
{
    struct qk_at p = qk_find(a);
    unsigned lane = threadIdx.x % CUDA_WARP;
    size_t half = a.rope_dims / 2;
    if (p.unit >= a.rows * a.heads)
        return;
    const float *x = a.x + p.at, *dy = a.dy + p.at;
    float *dx = a.dx + p.at, rstd = a.rstd[p.unit], s = 0;
    for (int pass = 0; pass < 2; pass++) {
        float coef = 0, g = 0;
        if (pass) {
            s = warp_sum(s);
            coef = -(s / (float)a.head_dim);
            g = a.gain ? a.gain[p.head] * rstd : rstd;
        }
        for (size_t i = lane; i < half; i += CUDA_WARP) {
            float d0 = dy[i], d1 = dy[half + i], cs = a.cos[p.angle + i], sn = a.sin[p.angle + i];
            float u0 = x[i] * rstd, u1 = x[half + i] * rstd;
            float e0 = fmaf(d0, cs, -(d1 * sn)), e1 = fmaf(d1, cs, d0 * sn);
            if (!pass) {
                s = fmaf(e0, u0, fmaf(e1, u1, s));
            } else {
                dx[i] = g * fmaf(coef, u0, e0);
                dx[half + i] = g * fmaf(coef, u1, e1);
            }
        }
        for (size_t i = 2 * half + lane; i < a.head_dim; i += CUDA_WARP) {
            float u = x[i] * rstd;
            if (!pass)
                s = fmaf(dy[i], u, s);
            else
                dx[i] = g * fmaf(coef, u, dy[i]);
        }
    }
    if (lane == 0 && sums)
        sums[p.unit] = s;
}

static void qk_bwd(struct kern *k, const struct kern_qk *a)
{
    struct cuda *c = cuda_of(k);
    float *sums = NULL;
    if (a->rows == 0 || (a->dgain && !(sums = cuda_temp<float>(c, a->rows * a->heads, "qk_bwd"))))
        return;
    CUDA_LAUNCH(qk_bwd_kernel, cuda_blocks(a->rows * a->heads, WARPS), THREADS, 0, c->stream, *a,
                sums);
    cuda_launched(c, "qk_bwd");
    if (a->dgain)
        cuda_colsum(c, a->dgain, sums, a->rows, a->heads, a->heads);
    cuda_done(c, sums);
}

/* ---- XSA: formulas in kernels/cpu/xsa.inc.h. A warp takes a KV head of a row. ---- */

static __device__ inline float warp_dot(const float *x, const float *y, size_t n)
{
    float s = 0;
    for (size_t i = threadIdx.x % CUDA_WARP; i < n; i += CUDA_WARP)
        s = fmaf(x[i], y[i], s);
    return warp_sum(s);
}

#define XSA_MIN 1e-24f

__global__ static void xsa_fwd_kernel(const struct kern_xsa a)
{
    size_t unit = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP, dim = a.head_dim;
    size_t group = a.heads / a.kv_heads;
    if (unit >= a.rows * a.kv_heads)
        return;
    const float *v = a.v + unit * dim;
    float ss = warp_dot(v, v, dim), r = 1.0f / (ss < XSA_MIN ? XSA_MIN : ss);
    for (size_t h = unit * group; h < (unit + 1) * group; h++) {
        float f = -(warp_dot(a.o + h * dim, v, dim) * r);
        for (size_t i = threadIdx.x % CUDA_WARP; i < dim; i += CUDA_WARP)
            a.y[h * dim + i] = fmaf(f, v[i], a.o[h * dim + i]);
    }
}

static void xsa_fwd(struct kern *k, const struct kern_xsa *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    CUDA_LAUNCH(xsa_fwd_kernel, cuda_blocks(a->rows * a->kv_heads, WARPS), THREADS, 0, c->stream,
                *a);
    cuda_launched(c, "xsa_fwd");
}

__global__ static void xsa_bwd_kernel(const struct kern_xsa a)
{
    size_t unit = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP, dim = a.head_dim;
    size_t group = a.heads / a.kv_heads;
    if (unit >= a.rows * a.kv_heads)
        return;
    const float *v = a.v + unit * dim;
    float *dv = a.dv + unit * dim;
    float ss = warp_dot(v, v, dim), r = 1.0f / (ss < XSA_MIN ? XSA_MIN : ss);
    float length = ss < XSA_MIN ? 0.0f : 2.0f;
    for (size_t h = unit * group; h < (unit + 1) * group; h++) {
        const float *o = a.o + h * dim, *dy = a.dy + h * dim;
        float co = warp_dot(o, v, dim) * r, cdy = warp_dot(dy, v, dim) * r;
        bool add = a.add || h > unit * group;
        for (size_t i = threadIdx.x % CUDA_WARP; i < dim; i += CUDA_WARP) {
            float d = fmaf(-cdy, o[i], add ? dv[i] : 0.0f), g = dy[i];
            d = fmaf(-co, g, d);
            dv[i] = fmaf(length * co * cdy, v[i], d);
            a.do_[h * dim + i] = fmaf(-cdy, v[i], g);
        }
    }
}

static void xsa_bwd(struct kern *k, const struct kern_xsa *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    CUDA_LAUNCH(xsa_bwd_kernel, cuda_blocks(a->rows * a->kv_heads, WARPS), THREADS, 0, c->stream,
                *a);
    cuda_launched(c, "xsa_bwd");
}

/* ---- rows of weights ---- */

__global__ static void row_normalize_kernel(float *x, size_t rows, size_t dim, float eps)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP;
    if (row >= rows)
        return;
    x += row * dim;
    float norm = fmaxf(sqrtf(warp_dot(x, x, dim)), eps);
    for (size_t i = threadIdx.x % CUDA_WARP; i < dim; i += CUDA_WARP)
        x[i] /= norm;
}

static void row_normalize(struct kern *k, float *x, size_t rows, size_t dim, float eps)
{
    struct cuda *c = cuda_of(k);
    if (rows == 0)
        return;
    CUDA_LAUNCH(row_normalize_kernel, cuda_blocks(rows, WARPS), THREADS, 0, c->stream, x, rows, dim,
                eps);
    cuda_launched(c, "row_normalize");
}

/* Maximum, division, rounding and product are exact or correctly rounded: the CPU's bits. */
__global__ static void fake_quant_kernel(float *y, const float *x, size_t rows, size_t dim,
                                         float levels, float least)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / CUDA_WARP;
    if (row >= rows)
        return;
    unsigned lane = threadIdx.x % CUDA_WARP;
    float most = 0;
    for (size_t i = lane; i < dim; i += CUDA_WARP)
        most = fmaxf(most, fabsf(x[row * dim + i]));
    float s = fmaxf(__fdiv_rn(warp_max(most), levels), least);
    for (size_t i = lane; i < dim; i += CUDA_WARP)
        y[row * dim + i] = __fmul_rn(rintf(__fdiv_rn(x[row * dim + i], s)), s);
}

static void fake_quant(struct kern *k, float *y, const float *x, size_t rows, size_t dim,
                       float levels, float floor)
{
    struct cuda *c = cuda_of(k);
    float least = fmaxf(floor / levels, 0x1p-24f);
    if (rows == 0)
        return;
    CUDA_LAUNCH(fake_quant_kernel, cuda_blocks(rows, WARPS), THREADS, 0, c->stream, y, x, rows, dim,
                levels, least);
    cuda_launched(c, "fake_quant");
}

void cuda_fill_rows(struct kern *k)
{
    k->combine_fwd = combine_fwd;
    k->combine_bwd = combine_bwd;
    k->qk_fwd = qk_fwd;
    k->qk_bwd = qk_bwd;
    k->xsa_fwd = xsa_fwd;
    k->xsa_bwd = xsa_bwd;
    k->row_normalize = row_normalize;
    k->fake_quant = fake_quant;
}
