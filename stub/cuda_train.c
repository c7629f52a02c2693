/*
 * cuda_train.c - struct kern on a card for the runner of a submission: gradients, and what else a
 * step of test-time training (model/ttt.h) does with weights. See cuda_kern.h.
 *
 * The kernels and their order are those of kernels/cuda without cuBLASLt and without attention by
 * wgmma, so the numbers are those of `verify --device cuda` there.
 */
#include "stub/cuda_kern.h"

enum {
    SUM_ROWS = 256, /* colsum_kernel: rows of a block where there are many */
    SUM_COLS = 32,
    SUM_LANES = 8,
    COMBINE_ROWS = 64,
    DOTS = 8, /* dot_kernel: a warp each */
    KEYS = 64,
    SUM_BLOCKS = 1024,
};

/* ---- sums over rows ---- */

static size_t rows_per_block(size_t rows)
{
    size_t per = ceil_div(rows, GRID_MAX);
    return per > SUM_ROWS ? per : SUM_ROWS;
}

/* Floats that column_sums needs. */
static size_t sums_room(size_t rows, size_t cols)
{
    return rows > 4 * SUM_ROWS ? ceil_div(rows, rows_per_block(rows)) * cols : 0;
}

/* out[cols] += the sums over the rows of x[rows][cols], rows `stride` apart. */
static void column_sums(float *out, const float *x, size_t rows, size_t cols, size_t stride,
                        float *room)
{
    size_t blocks = ceil_div(cols, SUM_COLS), per = rows;
    bool add = false;
    if (sums_room(rows, cols)) {
        size_t many;
        per = rows_per_block(rows);
        many = ceil_div(rows, per);
        cuda_launch(K_colsum, blocks, many, 1, SUM_COLS, SUM_LANES, 0,
                    ARGS(ARG(room), ARG(x), ARG(rows), ARG(cols), ARG(stride), ARG(per), ARG(add)));
        x = room;
        per = rows = many;
        stride = cols;
    }
    add = true;
    cuda_launch(K_colsum, blocks, 1, 1, SUM_COLS, SUM_LANES, 0,
                ARGS(ARG(out), ARG(x), ARG(rows), ARG(cols), ARG(stride), ARG(per), ARG(add)));
}

/* ---- rows moved, rows by themselves ---- */

static void k_embed_bwd(struct kern *k, float *dtable, const float *dy, const uint16_t *ids,
                        size_t rows, size_t dim, size_t vocab)
{
    (void)k;
    launch(K_embed_bwd, vocab, ARGS(ARG(dtable), ARG(dy), ARG(ids), ARG(rows), ARG(dim)));
}

static void k_shift_bwd(struct kern *k, float *dx, const float *dy, size_t batch, size_t t,
                        size_t dim, bool add)
{
    size_t rows = batch * t;
    (void)k;
    launch(K_shift_bwd, grid(rows * dim),
           ARGS(ARG(dx), ARG(dy), ARG(rows), ARG(t), ARG(dim), ARG(add)));
}

static void k_coef_bwd(struct kern *k, const struct kern_coef *a)
{
    (void)k;
    launch(K_coef_bwd, 1, ARGS(ARG(*a)));
}

static void k_combine_bwd(struct kern *k, const struct kern_combine *a)
{
    size_t blocks = ceil_div(a->rows, COMBINE_ROWS), n = blocks * 2 * a->dim;
    float *part = NULL, *room = NULL;
    unsigned shared = 0;
    (void)k;
    if (a->dc0 || a->dc1) {
        part = cuda_scratch(n + sums_room(blocks, a->dim));
        room = part + n;
        shared = (unsigned)(2 * a->dim * sizeof(float));
    }
    cuda_launch(K_combine_bwd, blocks, 1, 1, THREADS, 1, shared, ARGS(ARG(*a), ARG(part)));
    if (a->dc0)
        column_sums(a->dc0, part, blocks, a->dim, 2 * a->dim, room);
    if (a->dc1)
        column_sums(a->dc1, part + a->dim, blocks, a->dim, 2 * a->dim, room);
}

static void k_qk_bwd(struct kern *k, const struct kern_qk *a)
{
    size_t n = a->rows * a->heads;
    float *sums = a->dgain ? cuda_scratch(n + sums_room(a->rows, a->heads)) : NULL;
    (void)k;
    launch(K_qk_bwd, ceil_div(n, WARPS), ARGS(ARG(*a), ARG(sums)));
    if (a->dgain)
        column_sums(a->dgain, sums, a->rows, a->heads, a->heads, sums + n);
}

static void k_xsa_bwd(struct kern *k, const struct kern_xsa *a)
{
    (void)k;
    launch(K_xsa_bwd, ceil_div(a->rows * a->kv_heads, WARPS), ARGS(ARG(*a)));
}

static void k_attn_bwd(struct kern *k, const struct kern_attn *a)
{
    bool wide = a->head_dim > 64;
    unsigned dim = wide ? 128 : 64, queries = wide ? 32 : 64; /* in shared memory, of dkv */
    size_t n = a->batch * a->tq * a->heads;
    float *dot = cuda_scratch(n);
    (void)k;
    launch(K_dot, ceil_div(n, DOTS), ARGS(ARG(*a), ARG(dot)));
    cuda_launch(wide ? K_dkv128 : K_dkv64, ceil_div(a->tk, KEYS), a->kv_heads, a->batch,
                ATTN_THREADS, 1, attn_shared(2 * KEYS + 2 * queries, dim), ARGS(ARG(*a), ARG(dot)));
    cuda_launch(wide ? K_dq128 : K_dq64, ceil_div(a->tq, ATTN_ROWS), a->heads, a->batch,
                ATTN_THREADS, 1, attn_shared(2 * ATTN_ROWS + 2 * KEYS, dim),
                ARGS(ARG(*a), ARG(dot)));
}

/* ---- products ---- */

static void k_linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                           size_t n_out, size_t n_in, bool add)
{
    struct cuda_product p = {.a = dy,
                             .b = w,
                             .c = dx,
                             .d = dx,
                             .m = rows,
                             .n = n_in,
                             .k = n_out,
                             .alpha = 1,
                             .beta = add ? 1 : 0};
    (void)k;
    cuda_multiply(K_product_x, &p);
}

static void k_linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                           size_t n_out, size_t n_in)
{
    struct cuda_product p = {
        .a = dy, .b = x, .c = dw, .d = dw, .m = n_out, .n = n_in, .k = rows, .alpha = 1, .beta = 1};
    (void)k;
    cuda_multiply(K_product_w, &p);
}

/* The gradient of the logits takes their place. */
static void k_head_bwd(struct kern *k, const struct kern_head *a)
{
    size_t chunk = cuda_head_rows(a);
    float inv = cuda_inverse(a->cap), *z = cuda_scratch(chunk * a->vocab);
    for (size_t row = 0, n; row < a->rows; row += n) {
        const uint16_t *target = a->target + row;
        const float *lse = a->lse + row;
        n = least(chunk, a->rows - row);
        cuda_logits(z, a, row, n);
        launch(K_dz, n,
               ARGS(ARG(z), ARG(z), ARG(target), ARG(lse), ARG(a->vocab), ARG(a->cap), ARG(inv),
                    ARG(a->gscale)));
        k_linear_bwd_x(k, a->dh + row * a->dim, z, a->w, n, a->vocab, a->dim, false);
        k_linear_bwd_w(k, a->dw, z, a->h + row * a->dim, n, a->vocab, a->dim);
    }
}

/* ---- elements ---- */

static void k_mul(struct kern *k, float *dx, const float *dy, const float *f, size_t n)
{
    (void)k;
    launch(K_mul, grid(n), ARGS(ARG(dx), ARG(dy), ARG(f), ARG(n)));
}

static void k_add(struct kern *k, float *y, const float *x, size_t n)
{
    (void)k;
    launch(K_add, grid(n), ARGS(ARG(y), ARG(x), ARG(n)));
}

static void k_axpby(struct kern *k, float *y, const float *x, size_t n, float a, float b)
{
    (void)k;
    launch(K_axpby, grid(n), ARGS(ARG(y), ARG(x), ARG(n), ARG(a), ARG(b)));
}

static void k_round_bf16(struct kern *k, float *x, size_t n)
{
    (void)k;
    launch(K_round, grid(n), ARGS(ARG(x), ARG(n)));
}

static double k_sumsq(struct kern *k, const float *x, size_t n)
{
    unsigned blocks = (unsigned)least(grid(n), SUM_BLOCKS);
    double *sums = (double *)(void *)cuda_scratch(2 * (SUM_BLOCKS + 1)), sum = 0;
    double *all = sums + SUM_BLOCKS;
    bool square = true;
    launch(K_sum, blocks, ARGS(ARG(sums), ARG(x), ARG(n), ARG(square)));
    launch(K_sum_up, 1, ARGS(ARG(all), ARG(sums), ARG(blocks)));
    k->download(k, &sum, all, sizeof sum);
    return sum;
}

void cuda_fill_train(struct kern *k)
{
    k->embed_bwd = k_embed_bwd;
    k->shift_bwd = k_shift_bwd;
    k->coef_bwd = k_coef_bwd;
    k->combine_bwd = k_combine_bwd;
    k->qk_bwd = k_qk_bwd;
    k->xsa_bwd = k_xsa_bwd;
    k->attn_bwd = k_attn_bwd;
    k->linear_bwd_x = k_linear_bwd_x;
    k->linear_bwd_w = k_linear_bwd_w;
    k->head_bwd = k_head_bwd;
    k->mul = k_mul;
    k->add = k_add;
    k->axpby = k_axpby;
    k->round_bf16 = k_round_bf16;
    k->sumsq = k_sumsq;
}
