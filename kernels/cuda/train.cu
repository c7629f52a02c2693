/*
 * train.cu - linear layers in a step of training, with half values (kernels.h, kern_linear).
 *
 * Much of a step is moving activations. What only linear layers read is therefore stored as the
 * bf16 that they would round it to anyway; only what an activation function reads is rounded once
 * more. Of the hidden layer of an MLP, counting reads and writes of every kernel that touches it,
 * the forward moves 10 bytes per number instead of 24, the backward 14 instead of 26.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256 };

static __device__ inline float2 pair(const float *x, size_t i)
{
    return ((const float2 *)x)[i];
}

static __device__ inline float2 pair(const bf16 *x, size_t i)
{
    __nv_bfloat162 v = ((const __nv_bfloat162 *)x)[i];
    return make_float2(__low2float(v), __high2float(v));
}

static __device__ inline float single(const float *x, size_t i)
{
    return x[i];
}

static __device__ inline float single(const bf16 *x, size_t i)
{
    return __bfloat162float(x[i]);
}

#define EACH(i, n)                                                                                 \
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < (n);                           \
         i += (size_t)gridDim.x * THREADS)

/* y, in place, from u to 0.5*f*u, and f = (u > 0 ? 2 : below) * u. */
__global__ static void act_kernel(bf16 *y, bf16 *f, size_t n, float below)
{
    EACH(i, n / 2)
    {
        float2 u = pair(y, i);
        float f0 = (u.x > 0 ? 2.0f : below) * u.x, f1 = (u.y > 0 ? 2.0f : below) * u.y;
        ((__nv_bfloat162 *)f)[i] = __floats2bfloat162_rn(f0, f1);
        ((__nv_bfloat162 *)y)[i] = __floats2bfloat162_rn(0.5f * f0 * u.x, 0.5f * f1 * u.y);
    }
    if (n % 2 && blockIdx.x == 0 && threadIdx.x == 0) {
        float u = __bfloat162float(y[n - 1]), g = (u > 0 ? 2.0f : below) * u;
        f[n - 1] = __float2bfloat16_rn(g);
        y[n - 1] = __float2bfloat16_rn(0.5f * g * u);
    }
}

/* g = dy * f as bf16. */
template <typename D, typename F>
__global__ static void grad_kernel(bf16 *g, const D *dy, const F *f, size_t n)
{
    EACH(i, n / 2)
    {
        float2 d = pair(dy, i), v = pair(f, i);
        ((__nv_bfloat162 *)g)[i] = __floats2bfloat162_rn(d.x * v.x, d.y * v.y);
    }
    if (n % 2 && blockIdx.x == 0 && threadIdx.x == 0)
        g[n - 1] = __float2bfloat16_rn(single(dy, n - 1) * single(f, n - 1));
}

/* An operand of a product: as it is, held, or rounded into temporary memory. */
struct operand {
    const bf16 *p; /* NULL: no memory */
    bf16 *temp;    /* to be given back */
};

static struct operand rounded(struct cuda *c, const void *x, size_t n, bool half)
{
    const bf16 *there = half ? (const bf16 *)x : cuda_held(c, (const float *)x, n);
    bf16 *temp = there ? NULL : cuda_temp<bf16>(c, n, "linear layer");
    if (temp)
        cuda_to_bf16(c, temp, (const float *)x, n);
    struct operand o = {there ? there : temp, temp};
    return o;
}

static void linear_train(struct kern *k, const struct kern_linear *a)
{
    struct cuda *c = cuda_of(k);
    if (a->act && !a->y16) {
        k->linear_act_fwd(k, (float *)a->y, (float *)a->f, (const float *)a->x, a->w, a->rows,
                          a->n_out, a->n_in, a->slope);
        return;
    }
    size_t n = a->rows * a->n_out;
    struct operand x = rounded(c, a->x, a->rows * a->n_in, a->x16);
    struct operand w = rounded(c, a->w, a->n_out * a->n_in, false);
    const struct cuda_matmul p = {CUDA_BF16, a->y16 ? CUDA_BF16 : CUDA_F32,
                                  x.p,       w.p,
                                  NULL,      a->y,
                                  1,         a->rows,
                                  a->n_out,  a->n_in,
                                  false,     true,
                                  1.0f,      0.0f};
    if (x.p && w.p && n) {
        cuda_matmul(c, &p);
        if (a->act) {
            CUDA_LAUNCH(act_kernel, cuda_grid(n / 2 + 1, THREADS), THREADS, 0, c->stream,
                        (bf16 *)a->y, (bf16 *)a->f, n, 2 * a->slope * a->slope);
            cuda_launched(c, "linear layer");
        }
    }
    cuda_done(c, x.temp);
    cuda_done(c, w.temp);
}

/* The gradient of x W^T as bf16, for both products of the backward. */
static struct operand gradient(struct cuda *c, const struct kern_linear *a)
{
    size_t n = a->rows * a->n_out;
    if (!a->f)
        return rounded(c, a->dy, n, a->dy16);
    bf16 *g = cuda_temp<bf16>(c, n, "linear layer");
    struct operand o = {g, g};
    unsigned grid = cuda_grid(n / 2 + 1, THREADS);
    if (!g)
        return o;
    if (a->dy16)
        CUDA_LAUNCH((grad_kernel<bf16, bf16>), grid, THREADS, 0, c->stream, g, (const bf16 *)a->dy,
                    (const bf16 *)a->f, n);
    else if (a->y16)
        CUDA_LAUNCH((grad_kernel<float, bf16>), grid, THREADS, 0, c->stream, g,
                    (const float *)a->dy, (const bf16 *)a->f, n);
    else
        CUDA_LAUNCH((grad_kernel<float, float>), grid, THREADS, 0, c->stream, g,
                    (const float *)a->dy, (const float *)a->f, n);
    cuda_launched(c, "linear layer");
    return o;
}

static void linear_bwd(struct kern *k, const struct kern_linear *a)
{
    struct cuda *c = cuda_of(k);
    struct operand dy = gradient(c, a);
    struct operand x = rounded(c, a->x, a->rows * a->n_in, a->x16);
    struct operand w = rounded(c, a->w, a->n_out * a->n_in, false);
    const struct cuda_matmul dw = {CUDA_BF16, CUDA_F32, dy.p,    x.p,  NULL,  a->dw, 1,
                                   a->n_out,  a->n_in,  a->rows, true, false, 1.0f,  1.0f};
    const struct cuda_matmul dx = {CUDA_BF16, a->dx16 ? CUDA_BF16 : CUDA_F32,
                                   dy.p,      w.p,
                                   NULL,      a->dx,
                                   1,         a->rows,
                                   a->n_in,   a->n_out,
                                   false,     false,
                                   1.0f,      a->add ? 1.0f : 0.0f};
    if (dy.p && x.p && w.p) {
        cuda_matmul_onto(c, &dw);
        cuda_matmul(c, &dx);
    }
    cuda_done(c, dy.temp);
    cuda_done(c, x.temp);
    cuda_done(c, w.temp);
}

void cuda_fill_train(struct kern *k)
{
    k->linear_train = linear_train;
    k->linear_bwd = linear_bwd;
}
