/*
 * attn_xsa.cu - what comes before the backward of attention with XSA behind it (kern_attn_xsa): one
 * pass over y, dy and v that makes do, the sums of do * o that attention's backward needs, and
 * XSA's part of dv. attn.cu and attn90_bwd.cu do the rest.
 *
 * Bound by memory: a KV head of a row, and the heads that belong to it, by head_dim / 8 lanes, each
 * number read once. The sums are of do as it is stored, so that they fit the products that
 * attention makes of it: at the first position, where both have to cancel, they do.
 */
#include "kernels/cuda/attn90.cuh"
#include "kernels/cuda/attn_xsa.cuh"

enum { EIGHT = 8 };

/* The sum over `lanes` neighbouring lanes, a power of two, of x y; in each of them. */
static __device__ inline float dot(const some<EIGHT> &x, const some<EIGHT> &y, unsigned lanes)
{
    float s = 0;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        s = fmaf(x.v[i], y.v[i], s);
    for (unsigned h = lanes / 2; h; h /= 2)
        s += __shfl_xor_sync(0xffffffffu, s, (int)h);
    return s;
}

/* tiles 0: stat[batch][heads][tq], the sums. Else what attn90_bwd.cu reads, [batch][heads][tiles]
 * of STAT numbers; queries that do not exist have an infinite lse there, which makes their weights
 * 0. 32 bits where there are divisions. All lanes of a warp stay to the end, for the sums. */
__global__ static void __launch_bounds__(THREADS, 4)
    part_kernel(const struct kern_attn_xsa f, float *stat, int tiles)
{
    const struct kern_attn &a = f.attn;
    const unsigned lanes = (unsigned)a.head_dim / EIGHT, i = threadIdx.x % lanes * EIGHT;
    const unsigned unit = (blockIdx.x * THREADS + threadIdx.x) >> (__ffs((int)lanes) - 1);
    const unsigned kv = (unsigned)a.kv_heads, row = unit / kv, g = unit - row * kv;
    const unsigned rows = tiles ? (unsigned)tiles * TILE : (unsigned)a.tq;
    const unsigned b = row / rows, t = row - b * rows, group = (unsigned)a.heads / kv;
    const bool there = b < a.batch && t < a.tq;
    const size_t at_v = (b * a.tk + t) * v_row(a) + g * a.head_dim + i;
    const bf16 *y = (const bf16 *)a.o, *dy = (const bf16 *)a.do_;
    some<EIGHT> u = {}, part = {}, dv = {};
    float twice = 0;
    if (there)
        u = get<EIGHT>((const bf16 *)a.v, at_v);
    const float ss = dot(u, u, lanes), inverse = xsa_inverse(ss);
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        u.v[j] *= inverse;
    for (unsigned h = g * group; h < (g + 1) * group; h++) {
        const size_t head = (b * a.tq + t) * a.heads + h, at = head * a.head_dim + i;
        some<EIGHT> yh = {}, e = {}, o;
        float s = 0;
        if (there) {
            yh = get<EIGHT>(y, at);
            e = get<EIGHT>(dy, at);
            s = f.s[head];
        }
        const float d = dot(e, u, lanes);
        twice = fmaf(2 * s, d, twice);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            e.v[j] = fmaf(-d, u.v[j], e.v[j]);
            part.v[j] = fmaf(d, yh.v[j], fmaf(s, e.v[j], part.v[j]));
            e.v[j] = __bfloat162float(__float2bfloat16_rn(e.v[j]));
            o.v[j] = fmaf(s, u.v[j], yh.v[j]);
        }
        const float sum = dot(e, o, lanes);
        if (there)
            put((bf16 *)f.do_, at, e);
        if (i || b >= a.batch)
            continue;
        const size_t pair = b * a.heads + h;
        if (tiles) {
            float *to = stat + (pair * tiles + t / TILE) * STAT + t % TILE;
            to[0] = there ? a.lse[pair * a.tq + t] * LOG2E : INFINITY;
            to[TILE] = sum;
        } else {
            stat[pair * a.tq + t] = sum;
        }
    }
    if (!there)
        return;
    /* A v of full length gives u its length 1 whatever that length is. */
    twice = xsa_short(ss) ? twice : 0.0f;
    if (a.add_dv)
        dv = get<EIGHT>(a.dv, a.half_dv, at_v);
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        dv.v[j] = fmaf(-inverse, fmaf(twice, u.v[j], part.v[j]), dv.v[j]);
    put(a.dv, a.half_dv, at_v, dv);
}

void cuda_attn_xsa_part(struct cuda *c, const struct kern_attn_xsa *f, float *stat, size_t tiles)
{
    const struct kern_attn *a = &f->attn;
    size_t rows = a->batch * (tiles ? tiles * TILE : a->tq);
    unsigned grid = cuda_blocks(rows * a->kv_heads * (a->head_dim / EIGHT), THREADS);
    CUDA_LAUNCH(part_kernel, grid, THREADS, 0, c->stream, *f, stat, (int)tiles);
    cuda_launched(c, "attn_xsa_bwd");
}
