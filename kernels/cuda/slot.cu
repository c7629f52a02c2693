/*
 * slot.cu - SLOT's share of the head (kern_slot): losses of cached logits that are shifted per
 * group, and the gradient of the shift. A block takes a row for the losses. For the gradient each
 * row's maximum and sum are found first; then a thread owns a column of 64 rows, and the sums of
 * these blocks are added per shift, ascending.
 */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 256, BLOCK_ROWS = 64, SUMS = 1 << 26 /* floats of block sums at a time */ };

static __device__ inline float logit(float z, float cap, float inv)
{
    return cap == 0.0f ? z : cap * tanhf(z * inv);
}

/* nll, or with `terms` the row's maximum and the inverse of its sum of exponentials. */
__global__ static void row_kernel(const struct kern_slot a, float *terms, size_t group0, float inv)
{
    size_t g = group0 + blockIdx.x / a.rows, at = g * a.step + blockIdx.x % a.rows;
    const float *z = a.z + at * a.vocab, *u = a.u ? a.u + g / a.per * a.vocab : NULL;
    float top = -INFINITY, sum = 0;
    for (size_t v = threadIdx.x; v < a.vocab; v += THREADS)
        top = fmaxf(top, logit(z[v] + (u ? u[v] : 0.0f), a.cap, inv));
    top = block_max(top);
    for (size_t v = threadIdx.x; v < a.vocab; v += THREADS)
        sum += expf(logit(z[v] + (u ? u[v] : 0.0f), a.cap, inv) - top);
    sum = block_sum(sum);
    if (threadIdx.x)
        return;
    size_t v = a.target[at];
    if (terms) {
        terms[2 * blockIdx.x] = top;
        terms[2 * blockIdx.x + 1] = 1.0f / sum;
    } else {
        a.nll[g * a.rows + blockIdx.x % a.rows] =
            top + logf(sum) - logit(z[v] + (u ? u[v] : 0.0f), a.cap, inv);
    }
}

static float slot_inv(const struct kern_slot *a)
{
    return a->cap == 0.0f ? 0.0f : 1.0f / a->cap;
}

static void slot_fwd(struct kern *k, const struct kern_slot *a)
{
    struct cuda *c = cuda_of(k);
    if (a->groups * a->rows == 0)
        return;
    CUDA_LAUNCH(row_kernel, (unsigned)(a->groups * a->rows), THREADS, 0, c->stream, *a, NULL, 0,
                slot_inv(a));
    cuda_launched(c, "slot_fwd");
}

/* sums[group][block][vocab] = dz added up over the rows of the block. */
__global__ static void sum_kernel(const struct kern_slot a, const float *terms, float *sums,
                                  size_t group0, size_t blocks, float inv)
{
    size_t v = blockIdx.x * (size_t)THREADS + threadIdx.x, group = blockIdx.y / blocks;
    size_t r0 = blockIdx.y % blocks * BLOCK_ROWS, g = group0 + group;
    size_t end = r0 + BLOCK_ROWS < a.rows ? r0 + BLOCK_ROWS : a.rows;
    if (v >= a.vocab)
        return;
    float u = a.u ? a.u[g / a.per * a.vocab + v] : 0.0f, sum = 0;
    for (size_t r = r0; r < end; r++) {
        const float *term = terms + 2 * (group * a.rows + r);
        size_t at = g * a.step + r;
        float z = a.z[at * a.vocab + v] + u, t = a.cap == 0.0f ? 0.0f : tanhf(z * inv);
        float p = expf((a.cap == 0.0f ? z : a.cap * t) - term[0]) * term[1];
        p -= a.target[at] == v ? 1.0f : 0.0f;
        sum += p * fmaf(-t, t, 1.0f) * a.gscale;
    }
    sums[blockIdx.y * a.vocab + v] = sum;
}

/* du += the sums of the blocks that belong to a shift, ascending. */
__global__ static void add_kernel(const struct kern_slot a, const float *sums, size_t group0,
                                  size_t groups, size_t blocks)
{
    size_t v = blockIdx.x * (size_t)THREADS + threadIdx.x, shift = group0 / a.per + blockIdx.y;
    size_t from = shift * a.per, end = from + a.per;
    if (v >= a.vocab)
        return;
    from = from > group0 ? from - group0 : 0;
    end = end < group0 + groups ? end - group0 : groups;
    float sum = a.du[shift * a.vocab + v];
    for (size_t b = from * blocks; b < end * blocks; b++)
        sum += sums[b * a.vocab + v];
    a.du[shift * a.vocab + v] = sum;
}

static void slot_bwd(struct kern *k, const struct kern_slot *a)
{
    struct cuda *c = cuda_of(k);
    size_t blocks = (a->rows + BLOCK_ROWS - 1) / BLOCK_ROWS, per_group = blocks * a->vocab;
    if (a->groups == 0 || per_group == 0)
        return;
    /* A grid's second axis ends at 65,535. */
    size_t most = SUMS / per_group, grid = 65535 / blocks;
    most = most < grid ? most : grid;
    most = most > a->groups ? a->groups : most ? most : 1;
    float *sums = cuda_temp<float>(c, most * (per_group + 2 * a->rows), "slot_bwd");
    if (!sums)
        return;
    float *terms = sums + most * per_group, inv = slot_inv(a);
    unsigned cols = cuda_blocks(a->vocab, THREADS);
    for (size_t g0 = 0, n; g0 < a->groups; g0 += n) {
        n = a->groups - g0 < most ? a->groups - g0 : most;
        dim3 blocks_of(cols, (unsigned)(n * blocks));
        dim3 shifts(cols, (unsigned)((g0 + n - 1) / a->per - g0 / a->per + 1));
        CUDA_LAUNCH(row_kernel, (unsigned)(n * a->rows), THREADS, 0, c->stream, *a, terms, g0, inv);
        CUDA_LAUNCH(sum_kernel, blocks_of, THREADS, 0, c->stream, *a, terms, sums, g0, blocks, inv);
        CUDA_LAUNCH(add_kernel, shifts, THREADS, 0, c->stream, *a, sums, g0, n, blocks);
        cuda_launched(c, "slot_bwd");
    }
    cuda_done(c, sums);
}

void cuda_fill_slot(struct kern *k)
{
    k->slot_fwd = slot_fwd;
    k->slot_bwd = slot_bwd;
}
