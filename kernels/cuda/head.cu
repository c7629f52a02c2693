/*
 * head.cu - output head, softcap, cross-entropy, in chunks of rows: the logits of a chunk come from
 * one matrix product, a block per row reduces them, and for the backward turns them into dz (bf16)
 * where they lie in a second buffer. Logits of all rows never exist.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256, CHUNK_LOGITS = 1 << 25 /* of a chunk; 128 MiB in fp32 */ };

static __device__ inline float softcap(float z, float cap, float inv)
{
    return cap == 0.0f ? z : cap * tanhf(z * inv);
}

/* nll and lse of a row from z[rows][vocab]. */
__global__ static void loss_kernel(const float *z, const uint16_t *target, float *nll, float *lse,
                                   size_t vocab, float cap, float inv)
{
    const float *row = z + blockIdx.x * vocab;
    float top = -INFINITY, sum = 0;
    for (size_t v = threadIdx.x; v < vocab; v += THREADS)
        top = fmaxf(top, softcap(row[v], cap, inv));
    top = block_max(top);
    for (size_t v = threadIdx.x; v < vocab; v += THREADS)
        sum += expf(softcap(row[v], cap, inv) - top);
    float all = top + logf(block_sum(sum));
    if (threadIdx.x)
        return;
    nll[blockIdx.x] = all - softcap(row[target[blockIdx.x]], cap, inv);
    if (lse)
        lse[blockIdx.x] = all;
}

/* dz = (exp(l - lse) - [v = target]) * (1 - (l/cap)^2) * scale. In fp32 dz may be z. */
template <typename T>
__global__ static void dz_kernel(T *dz, const float *z, const uint16_t *target, const float *lse,
                                 size_t vocab, float cap, float inv, float scale)
{
    const float *row = z + blockIdx.x * vocab;
    T *to = dz + blockIdx.x * vocab;
    float all = lse[blockIdx.x];
    size_t hit = target[blockIdx.x];
    for (size_t v = threadIdx.x; v < vocab; v += THREADS) {
        float t = cap == 0.0f ? 0.0f : tanhf(row[v] * inv);
        float p = expf((cap == 0.0f ? row[v] : cap * t) - all) - (v == hit ? 1.0f : 0.0f);
        cuda_set(to + v, p * fmaf(-t, t, 1.0f) * scale);
    }
}

struct head_work {
    size_t chunk; /* rows at a time */
    float inv;
    float *z;         /* [chunk][vocab] */
    bf16 *h, *w, *dz; /* [rows][dim], [vocab][dim], [chunk][vocab], backward only */
    const bf16 *h16;  /* h, or what is a half value as it is */
    const bf16 *w16;  /* w, or where the weights are held */
};

static bool head_open(struct cuda *c, const struct kern_head *a, struct head_work *j, bool backward,
                      bool h16)
{
    j->chunk = CHUNK_LOGITS / a->vocab;
    j->chunk = j->chunk > a->rows ? a->rows : j->chunk ? j->chunk : 1;
    j->inv = a->cap == 0.0f ? 0.0f : 1.0f / a->cap;
    j->z = cuda_temp<float>(c, j->chunk * a->vocab, "head: logits of a chunk");
    j->h = h16 ? NULL : cuda_temp<bf16>(c, a->rows * a->dim, "head");
    j->h16 = h16 ? (const bf16 *)a->h : j->h;
    j->w16 = cuda_held(c, a->w, a->vocab * a->dim);
    j->w = j->w16 ? NULL : cuda_temp<bf16>(c, a->vocab * a->dim, "head");
    j->dz = backward ? cuda_temp<bf16>(c, j->chunk * a->vocab, "head: gradients of a chunk") : NULL;
    if (!j->z || !j->h16 || (!j->w && !j->w16) || (backward && !j->dz))
        return false;
    if (!h16)
        cuda_to_bf16(c, j->h, a->h, a->rows * a->dim);
    if (!j->w16) {
        cuda_to_bf16(c, j->w, a->w, a->vocab * a->dim);
        j->w16 = j->w;
    }
    return true;
}

static void head_close(struct cuda *c, struct head_work *j)
{
    cuda_done(c, j->z);
    cuda_done(c, j->h);
    cuda_done(c, j->w);
    cuda_done(c, j->dz);
}

/* z = h W^T for n rows from r0. */
static void head_z(struct cuda *c, const struct kern_head *a, const struct head_work *j, size_t r0,
                   size_t n)
{
    const struct cuda_matmul p = {CUDA_BF16, CUDA_F32, j->h16 + r0 * a->dim,
                                  j->w16,    NULL,     j->z,
                                  1,         n,        a->vocab,
                                  a->dim,    false,    true,
                                  1.0f,      0.0f};
    cuda_matmul(c, &p);
}

static size_t head_rows(const struct kern_head *a, const struct head_work *j, size_t r0)
{
    return a->rows - r0 < j->chunk ? a->rows - r0 : j->chunk;
}

static void head_fwd(struct kern *k, const struct kern_head *a)
{
    struct cuda *c = cuda_of(k);
    struct head_work j = {};
    if (a->rows == 0)
        return;
    bool ok = head_open(c, a, &j, false, false);
    for (size_t r0 = 0, n; ok && r0 < a->rows; r0 += n) {
        n = head_rows(a, &j, r0);
        head_z(c, a, &j, r0, n);
        CUDA_LAUNCH(loss_kernel, (unsigned)n, THREADS, 0, c->stream, j.z, a->target + r0,
                    a->nll + r0, a->lse ? a->lse + r0 : NULL, a->vocab, a->cap, j.inv);
        cuda_launched(c, "head_fwd");
    }
    head_close(c, &j);
}

/* With `losses`, nll and lse are computed on the way, from the same logits. h16, dh16: h, dh are
 * half values. */
static void backward(struct kern *k, const struct kern_head *a, bool losses, bool h16, bool dh16)
{
    struct cuda *c = cuda_of(k);
    struct head_work j = {};
    if (a->rows == 0)
        return;
    bool ok = head_open(c, a, &j, true, h16);
    for (size_t r0 = 0, n; ok && r0 < a->rows; r0 += n) {
        n = head_rows(a, &j, r0);
        head_z(c, a, &j, r0, n);
        if (losses)
            CUDA_LAUNCH(loss_kernel, (unsigned)n, THREADS, 0, c->stream, j.z, a->target + r0,
                        a->nll + r0, a->lse + r0, a->vocab, a->cap, j.inv);
        CUDA_LAUNCH(dz_kernel<bf16>, (unsigned)n, THREADS, 0, c->stream, j.dz, j.z, a->target + r0,
                    a->lse + r0, a->vocab, a->cap, j.inv, a->gscale);
        cuda_launched(c, "head_bwd");
        if (a->dh) {
            char *dh = (char *)a->dh + r0 * a->dim * (dh16 ? sizeof(bf16) : sizeof(float));
            const struct cuda_matmul p = {CUDA_BF16, dh16 ? CUDA_BF16 : CUDA_F32,
                                          j.dz,      j.w16,
                                          NULL,      dh,
                                          1,         n,
                                          a->dim,    a->vocab,
                                          false,     false,
                                          1.0f,      0.0f};
            cuda_matmul(c, &p);
        }
        if (a->dw) {
            const struct cuda_matmul p = {CUDA_BF16, CUDA_F32, j.dz, j.h16 + r0 * a->dim,
                                          NULL,      a->dw,    1,    a->vocab,
                                          a->dim,    n,        true, false,
                                          1.0f,      1.0f};
            cuda_matmul_onto(c, &p);
        }
    }
    head_close(c, &j);
}

static void head_bwd(struct kern *k, const struct kern_head *a)
{
    backward(k, a, false, false, false);
}

static void head_train(struct kern *k, const struct kern_head *a, bool h16, bool dh16)
{
    backward(k, a, true, h16, dh16);
}

__global__ static void softcap_kernel(float *l, size_t n, float cap, float inv)
{
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS)
        l[i] = softcap(l[i], cap, inv);
}

static void head_logits(struct kern *k, float *l, const float *h, const float *w, size_t rows,
                        size_t dim, size_t vocab, float cap)
{
    struct cuda *c = cuda_of(k);
    k->linear_fwd(k, l, h, w, rows, vocab, dim);
    if (cap == 0.0f)
        return;
    CUDA_LAUNCH(softcap_kernel, cuda_grid(rows * vocab, THREADS), THREADS, 0, c->stream, l,
                rows * vocab, cap, 1.0f / cap);
    cuda_launched(c, "head_logits");
}

void cuda_fill_head(struct kern *k)
{
    k->head_fwd = head_fwd;
    k->head_bwd = head_bwd;
    k->head_logits = head_logits;
#ifndef RUNNER
    k->head_train = head_train;
#endif
}
