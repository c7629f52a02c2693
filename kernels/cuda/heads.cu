/*
 * heads.cu - heads in a step of training: QK norm with RoPE, of half values (kernels.h). The
 * formulas are those of rows.cu, which has what scoring needs and every shape.
 *
 * Bound by memory: a lane has 8 numbers of a head (16 bytes), each is read once.
 */
#include "kernels/cuda/half.cuh"

enum { THREADS = 256, EIGHT = 8 };

/* The sum over `lanes` neighbouring lanes, a power of two, in each of them. */
static __device__ inline float lanes_sum(float x, unsigned lanes)
{
    for (unsigned h = lanes / 2; h; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, (int)h);
    return x;
}

/* ---- QK norm, RoPE, gain: a head by head_dim / 8 lanes ---- */

/* 32 bits where there are divisions, which would take longer than the memory otherwise. */
struct qk_lane {
    size_t at, angle;      /* this lane's first number, its first angle */
    unsigned from;         /* its first number of x and dx, in eights */
    unsigned unit, head;   /* the head among all, in its row */
    unsigned i;            /* column in the head */
    unsigned lanes, other; /* of a head; the lane with the other half of the turned pairs */
    float sign;            /* of the other's part: +1 below, -1 above, 0 where nothing turns */
    bool there;
};

static __device__ inline struct qk_lane qk_find(const struct kern_qk &a)
{
    struct qk_lane p;
    unsigned thread = blockIdx.x * THREADS + threadIdx.x, lane = threadIdx.x % CUDA_WARP;
    unsigned half = (unsigned)a.rope_dims / 2, row;
    p.lanes = (unsigned)a.head_dim / EIGHT;
    p.unit = thread >> (__ffs((int)p.lanes) - 1);
    p.i = thread % CUDA_WARP % p.lanes * EIGHT;
    p.at = (size_t)thread * EIGHT;
    row = p.unit / (unsigned)a.heads;
    p.head = p.unit - row * (unsigned)a.heads;
    p.from = a.row ? row * (a.row / EIGHT) + thread - row * (unsigned)a.heads * p.lanes : thread;
    p.there = row < a.rows;
    p.sign = p.i < half ? 1.0f : p.i < 2 * half ? -1.0f : 0.0f;
    p.other = p.i < half ? lane + half / EIGHT : p.i < 2 * half ? lane - half / EIGHT : lane;
    p.angle = (a.pos0 + row % (unsigned)a.t) * half + (p.i < half ? p.i : p.i - half);
    return p;
}

/* u turned: c*u + sign*s*other. The way back has the other sign. */
static __device__ inline some<EIGHT> turn(const struct kern_qk &a, const struct qk_lane &p,
                                          const some<EIGHT> &u, float sign)
{
    some<EIGHT> r, c, s;
    bool turns = p.there && sign != 0.0f;
    if (turns) {
        c = get<EIGHT>(a.cos, p.angle);
        s = get<EIGHT>(a.sin, p.angle);
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        float other = __shfl_sync(0xffffffffu, u.v[i], (int)p.other);
        r.v[i] = turns ? fmaf(u.v[i], c.v[i], sign * (other * s.v[i])) : u.v[i];
    }
    return r;
}

__global__ static void __launch_bounds__(THREADS) qk_kernel(const struct kern_qk a)
{
    struct qk_lane p = qk_find(a);
    some<EIGHT> x = {};
    float ss = 0;
    if (p.there)
        x = get<EIGHT>((const bf16 *)a.x, (size_t)p.from * EIGHT);
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        ss = fmaf(x.v[i], x.v[i], ss);
    float rstd = 1.0f / sqrtf(lanes_sum(ss, p.lanes) / (float)a.head_dim + a.eps);
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        x.v[i] *= rstd;
    x = turn(a, p, x, p.sign);
    if (!p.there)
        return;
    float gain = a.gain ? a.gain[p.head] : 1.0f;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        x.v[i] *= gain;
    put((bf16 *)a.y, p.at, x);
    if (p.i == 0 && a.rstd)
        a.rstd[p.unit] = rstd;
}

static unsigned qk_grid(const struct kern_qk *a)
{
    return cuda_blocks(a->rows * a->heads * (a->head_dim / EIGHT), THREADS);
}

static void qk_half(struct kern *k, const struct kern_qk *a)
{
    struct cuda *c = cuda_of(k);
    if (a->rows == 0)
        return;
    CUDA_LAUNCH(qk_kernel, qk_grid(a), THREADS, 0, c->stream, *a);
    cuda_launched(c, "qk_half");
}

/* e = R^T dy, s = sum of e*u, dx = gain*rstd * (e - u*(s/head_dim)); s[rows][heads] is dgain's. */
__global__ static void __launch_bounds__(THREADS, 5)
    qk_bwd_kernel(const struct kern_qk a, float *sums)
{
    struct qk_lane p = qk_find(a);
    some<EIGHT> u = {}, e = {};
    float rstd = 0, s = 0;
    if (p.there) {
        u = get<EIGHT>((const bf16 *)a.x, (size_t)p.from * EIGHT);
        e = get<EIGHT>((const bf16 *)a.dy, p.at);
        rstd = a.rstd[p.unit];
    }
    e = turn(a, p, e, -p.sign);
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        u.v[i] *= rstd;
        s = fmaf(e.v[i], u.v[i], s);
    }
    s = lanes_sum(s, p.lanes);
    if (!p.there)
        return;
    float coef = -(s / (float)a.head_dim), g = a.gain ? a.gain[p.head] * rstd : rstd;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        e.v[i] = g * fmaf(coef, u.v[i], e.v[i]);
    put((bf16 *)a.dx, (size_t)p.from * EIGHT, e);
    if (p.i == 0 && sums)
        sums[p.unit] = s;
}

static void qk_bwd_half(struct kern *k, const struct kern_qk *a)
{
    struct cuda *c = cuda_of(k);
    float *sums = NULL;
    if (a->rows == 0 ||
        (a->dgain && !(sums = cuda_temp<float>(c, a->rows * a->heads, "qk_bwd_half"))))
        return;
    CUDA_LAUNCH(qk_bwd_kernel, qk_grid(a), THREADS, 0, c->stream, *a, sums);
    cuda_launched(c, "qk_bwd_half");
    if (a->dgain)
        cuda_colsum(c, a->dgain, sums, a->rows, a->heads, a->heads);
    cuda_done(c, sums);
}

void cuda_fill_heads(struct kern *k)
{
    k->qk_half = qk_half;
    k->qk_bwd_half = qk_bwd_half;
    k->joins = true;
}
