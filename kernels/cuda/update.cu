/*
 * update.cu - the update of a step that is queued, or recorded, before anybody knows its numbers
 * (kernels.h, kern_dial): kernels that read them from memory when they run.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256 };

#define EACH(i, n)                                                                                 \
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < (n);                           \
         i += (size_t)gridDim.x * THREADS)

/* Two roundings, as on the host: no fused multiply-add. */
static __device__ inline float dialled(const struct kern_dial &d)
{
    return (float)(d.at ? __dadd_rn(d.base, __dmul_rn(d.slope, *d.at)) : d.base);
}

static __device__ inline bool stopped(const double *go)
{
    return go && *go == 0;
}

__global__ static void blend_kernel(float *y, const float *x, size_t n, const struct kern_dial da,
                                    const struct kern_dial db, const double *go)
{
    float a = dialled(da), b = dialled(db);
    if (stopped(go) || (a == 1 && b == 0))
        return;
    EACH(i, n) y[i] = fmaf(b, x[i], a * y[i]);
}

static void blend(struct kern *k, float *y, const float *x, size_t n, const struct kern_dial *a,
                  const struct kern_dial *b, const double *go)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(blend_kernel, cuda_grid(n, THREADS), THREADS, 0, c->stream, y, x, n, *a, *b, go);
    cuda_launched(c, "blend");
}

__global__ static void adamw_at_kernel(const struct kern_adamw a, const struct kern_adamw_at at,
                                       const double *go)
{
    if (stopped(go))
        return;
    const struct cuda_adam r = cuda_adam(&a, (float)*at.lr, (size_t)*at.step);
    EACH(i, a.n) cuda_adamw(&a, i, &r);
}

static void adamw_at(struct kern *k, const struct kern_adamw *a, const struct kern_adamw_at *at,
                     const double *go)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(adamw_at_kernel, cuda_grid(a->n, THREADS), THREADS, 0, c->stream, *a, *at, go);
    cuda_launched(c, "adamw");
}

/* The sum of x[n] in ascending order, on thread 0. All threads fetch, one adds. */
static __device__ double sum_in_order(const double *x, size_t n)
{
    __shared__ double part[THREADS];
    double s = 0;
    for (size_t at = 0; at < n; at += THREADS) {
        if (at + threadIdx.x < n)
            part[threadIdx.x] = x[at + threadIdx.x];
        __syncthreads();
        for (size_t i = 0; threadIdx.x == 0 && i < THREADS && at + i < n; i++)
            s += part[i];
        __syncthreads();
    }
    return s;
}

__global__ static void verdict_kernel(const struct kern_verdict v)
{
    double loss = sum_in_order(v.loss, v.losses);
    double norm = v.scale * sqrt(sum_in_order(v.square, v.squares));
    if (threadIdx.x)
        return;
    bool finite = isfinite(loss) && isfinite(norm);
    double clip = v.max / (norm + v.eps);
    v.out[VERDICT_LOSS] = loss;
    v.out[VERDICT_NORM] = norm;
    v.out[VERDICT_CLIP] = finite && v.max > 0 && clip < 1 ? clip : 1;
    v.out[VERDICT_GO] = finite;
}

static void verdict(struct kern *k, const struct kern_verdict *v)
{
    struct cuda *c = cuda_of(k);
    CUDA_LAUNCH(verdict_kernel, 1, THREADS, 0, c->stream, *v);
    cuda_launched(c, "verdict");
}

void cuda_fill_update(struct kern *k)
{
    k->verdict = verdict;
    k->blend = blend;
    k->adamw_at = adamw_at;
}
