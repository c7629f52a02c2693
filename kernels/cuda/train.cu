/*
 * train.cu - linear layers in a step of training, with half values (kernels.h, kern_linear).
 *
 * Much of a step is moving activations, so most are stored as bf16. Of the hidden layer of an MLP,
 * counting reads and writes of every kernel that touches it, the forward moves 8 bytes per number
 * instead of 24, the backward 14 instead of 26: what is saved is u = x W^T, of which the product
 * writes nothing else; the factor f is one choice and one product away from it, exactly.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256 };

#define EACH(i, n)                                                                                 \
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < (n);                           \
         i += (size_t)gridDim.x * THREADS)

/* Eight numbers, or fewer at the end. */
union eight {
    uint4 word;
    __nv_bfloat162 two[4];
};

/* y = 0.5*f*u. */
__global__ static void act_kernel(bf16 *y, const bf16 *u, size_t n, float below)
{
    EACH(i, n / 8)
    {
        union eight v;
        v.word = ((const uint4 *)u)[i];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float u0 = __low2float(v.two[j]), u1 = __high2float(v.two[j]);
            v.two[j] = __floats2bfloat162_rn(0.5f * cuda_act_factor(u0, below) * u0,
                                             0.5f * cuda_act_factor(u1, below) * u1);
        }
        ((uint4 *)y)[i] = v.word;
    }
    EACH(i, n % 8)
    {
        float v = __bfloat162float(u[n / 8 * 8 + i]);
        y[n / 8 * 8 + i] = __float2bfloat16_rn(0.5f * cuda_act_factor(v, below) * v);
    }
}

/* g = dy * f as bf16; g may be dy. */
__global__ static void grad_kernel(bf16 *g, const bf16 *dy, const bf16 *u, size_t n, float below)
{
    EACH(i, n / 8)
    {
        union eight v, d;
        v.word = ((const uint4 *)u)[i];
        d.word = ((const uint4 *)dy)[i];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v.two[j] = __floats2bfloat162_rn(
                __low2float(d.two[j]) * cuda_act_factor(__low2float(v.two[j]), below),
                __high2float(d.two[j]) * cuda_act_factor(__high2float(v.two[j]), below));
        ((uint4 *)g)[i] = v.word;
    }
    EACH(i, n % 8)
    {
        size_t at = n / 8 * 8 + i;
        g[at] = __float2bfloat16_rn(__bfloat162float(dy[at]) *
                                    cuda_act_factor(__bfloat162float(u[at]), below));
    }
}

/* The same where f itself is stored, in fp32. */
__global__ static void grad_f32_kernel(bf16 *g, const float *dy, const float *f, size_t n)
{
    EACH(i, n) g[i] = __float2bfloat16_rn(dy[i] * f[i]);
}

/* An operand of a product: as it is, held, or rounded into temporary memory. */
struct operand {
    const bf16 *p; /* NULL: no memory */
    bf16 *temp;    /* to be given back */
};

static struct operand rounded(struct cuda *c, const void *x, size_t n, bool half)
{
    const bf16 *there = half ? (const bf16 *)x : NULL;
    bf16 *temp = there ? NULL : cuda_temp<bf16>(c, n, "linear layer");
    if (temp)
        cuda_to_bf16(c, temp, (const float *)x, n);
    struct operand o = {there ? there : temp, temp};
    return o;
}

/* A layer's weights; those of three matrices as one. */
static struct operand weights(struct cuda *c, const struct kern_linear *a)
{
    size_t k = a->part[0].n_out, v = a->part[1].n_out;
    const struct cuda_weights w = {{{a->w, (a->n_out - k - v) * a->n_in},
                                    {a->part[0].w, k * a->n_in},
                                    {a->part[1].w, v * a->n_in}}};
    const bf16 *there = cuda_held_all(c, &w);
    bf16 *temp = there ? NULL : cuda_temp<bf16>(c, cuda_count(&w), "linear layer");
    if (temp)
        cuda_round(c, temp, &w);
    struct operand o = {there ? there : temp, temp};
    return o;
}

/* dw += dy^T x, and to three matrices what is theirs. */
static void add_to_weights(struct kern *k, const struct kern_linear *a, struct cuda_matmul p)
{
    struct cuda *c = cuda_of(k);
    size_t at = a->n_out - a->part[0].n_out - a->part[1].n_out;
    if (at == a->n_out) {
        cuda_matmul_onto(c, &p);
        return;
    }
    float *all = cuda_temp<float>(c, a->n_out * a->n_in, "linear layer");
    if (!all)
        return;
    p.c = all;
    p.beta = 0;
    cuda_matmul(c, &p);
    k->add(k, a->dw, all, at * a->n_in);
    for (int i = 0; i < 2; i++) {
        k->add(k, a->part[i].dw, all + at * a->n_in, a->part[i].n_out * a->n_in);
        at += a->part[i].n_out;
    }
    cuda_done(c, all);
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
    struct operand w = weights(c, a);
    const struct cuda_matmul p = {CUDA_BF16, a->y16 ? CUDA_BF16 : CUDA_F32,
                                  x.p,       w.p,
                                  NULL,      a->act && a->f ? a->f : a->y,
                                  1,         a->rows,
                                  a->n_out,  a->n_in,
                                  false,     true,
                                  1.0f,      0.0f};
    const struct cuda_mlp mlp = {x.p,     w.p,      (bf16 *)a->f, (bf16 *)a->y,
                                 a->rows, a->n_out, a->n_in,      a->slope};
    if (x.p && w.p && a->act && a->f && cuda_mlp90_takes(c, &mlp)) {
        cuda_mlp90_fwd(c, &mlp);
    } else if (x.p && w.p && n) {
        cuda_matmul(c, &p);
        if (a->act) {
            CUDA_LAUNCH(act_kernel, cuda_grid(n / 8 + 1, THREADS), THREADS, 0, c->stream,
                        (bf16 *)a->y, (const bf16 *)p.c, n, 2 * a->slope * a->slope);
            cuda_launched(c, "linear layer");
        }
    }
    cuda_done(c, x.temp);
    cuda_done(c, w.temp);
}

static void times_factor(struct cuda *c, bf16 *g, const bf16 *dy, const bf16 *u, size_t n,
                         float slope)
{
    CUDA_LAUNCH(grad_kernel, cuda_grid(n / 8 + 1, THREADS), THREADS, 0, c->stream, g, dy, u, n,
                2 * slope * slope);
    cuda_launched(c, "linear layer");
}

/* The gradient of x W^T as bf16, for both products of the backward. */
static struct operand gradient(struct cuda *c, const struct kern_linear *a)
{
    size_t n = a->rows * a->n_out;
    if (!a->f || a->g_done)
        return rounded(c, a->dy, n, a->dy16);
    bf16 *g = cuda_temp<bf16>(c, n, "linear layer");
    struct operand o = {g, g};
    if (!g)
        return o;
    if (a->y16) {
        times_factor(c, g, (const bf16 *)a->dy, (const bf16 *)a->f, n, a->slope);
        return o;
    }
    CUDA_LAUNCH(grad_f32_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, g,
                (const float *)a->dy, (const float *)a->f, n);
    cuda_launched(c, "linear layer");
    return o;
}

static void linear_bwd(struct kern *k, const struct kern_linear *a)
{
    struct cuda *c = cuda_of(k);
    struct operand dy = gradient(c, a);
    struct operand x = rounded(c, a->x, a->rows * a->n_in, a->x16);
    struct operand w = weights(c, a);
    const struct cuda_matmul dw = {CUDA_BF16, CUDA_F32, dy.p,    x.p,  NULL,  a->dw, 1,
                                   a->n_out,  a->n_in,  a->rows, true, false, 1.0f,  1.0f};
    const struct cuda_matmul dx = {CUDA_BF16, a->dx16 ? CUDA_BF16 : CUDA_F32,
                                   dy.p,      w.p,
                                   NULL,      a->dx,
                                   1,         a->rows,
                                   a->n_in,   a->n_out,
                                   false,     false,
                                   1.0f,      a->add ? 1.0f : 0.0f};
    const struct cuda_mlp mlp = {dy.p,          w.p,       (bf16 *)(uintptr_t)a->x_f,
                                 (bf16 *)a->dx, a->rows,   a->n_in,
                                 a->n_out,      a->x_slope};
    if (dy.p && x.p && w.p) {
        add_to_weights(k, a, dw);
        if (a->x_f && cuda_mlp90_takes(c, &mlp)) {
            cuda_mlp90_bwd(c, &mlp);
        } else {
            cuda_matmul(c, &dx);
            if (a->x_f)
                times_factor(c, (bf16 *)a->dx, (const bf16 *)a->dx, (const bf16 *)a->x_f,
                             a->rows * a->n_in, a->x_slope);
        }
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
