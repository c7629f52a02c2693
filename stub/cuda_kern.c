/*
 * cuda_kern.c - struct kern on a card for the runner of a submission: what scoring and SLOT need,
 * every operation a launch or a few through the driver (stub/cuda_driver.h) of the kernels in
 * stub/cuda_kernels.cu. Grids and arguments are those of the files in kernels/cuda; matrix products
 * are kernels/cuda/matmul.cu. What fails leaves CUDA, so nothing here reports anything.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/product.h"
#include "stub/cuda.h"
#include "stub/cuda_driver.h"

/* The kernels, by the names that stub/cuda_ptx.awk gives them, and their arguments in the end. */
#define KERNELS(X)                                                                                 \
    X(embed)                                                                                       \
    X(take)                                                                                        \
    X(shift)                                                                                       \
    X(coef)                                                                                        \
    X(combine)                                                                                     \
    X(qk)                                                                                          \
    X(xsa)                                                                                         \
    X(attn64)                                                                                      \
    X(attn128)                                                                                     \
    X(loss)                                                                                        \
    X(slot_row)                                                                                    \
    X(slot_sum)                                                                                    \
    X(slot_add)                                                                                    \
    X(adamw)                                                                                       \
    X(product)                                                                                     \
    X(few)
#define X(name) K_##name,
enum kernel { KERNELS(X) KERNEL_COUNT };
#undef X

enum {
    THREADS = 256,        /* of a block, where nothing else is said */
    WARPS = THREADS / 32, /* rows or heads that a block takes, a warp each */
    ATTN_ROWS = 64,       /* queries of a block; as many keys at a time */
    ATTN_THREADS = 128,
    ATTN_PAD = 8,
    SLOT_ROWS = 64,
    GRID_MAX = 65535,
    CHUNK_LOGITS = 1 << 25, /* of the head at a time */
    SLOT_SUMS = 1 << 26,    /* floats of block sums at a time */
};

static CUfunction kernel[KERNEL_COUNT];
static CUdeviceptr scratch;
static size_t scratch_bytes;

static CUdeviceptr device(const void *p)
{
    return (CUdeviceptr)(uintptr_t)p;
}

static size_t ceil_div(size_t n, size_t per)
{
    return (n + per - 1) / per;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Blocks of a kernel that walks over n elements with a stride of the whole grid. */
static size_t grid(size_t n)
{
    size_t blocks = ceil_div(n, THREADS);
    return blocks ? least(blocks, GRID_MAX) : 1;
}

/* args: the address of each argument. A grid without blocks is none. */
static void launch(enum kernel which, size_t x, size_t y, size_t z, unsigned threads,
                   unsigned shared, void **args)
{
    if (x && y && z)
        cuda_must(cuda_driver.LaunchKernel(kernel[which], (unsigned)x, (unsigned)y, (unsigned)z,
                                           threads, 1, 1, shared, NULL, args, NULL),
                  "cuLaunchKernel");
}
#define ARGS(...) ((void *[]){__VA_ARGS__})
#define ARG(x)    ((void *)(uintptr_t)(const void *)&(x))

/* ---- memory ---- */

static void k_zero(struct kern *k, void *p, size_t bytes)
{
    (void)k;
    if (bytes)
        cuda_must(cuda_driver.MemsetD8Async(device(p), 0, bytes, NULL), "cuMemsetD8");
}

static void *raw_alloc(size_t bytes)
{
    CUdeviceptr p = 0;
    cuda_must(cuda_driver.MemAlloc_v2(&p, bytes ? bytes : 1), "cuMemAlloc");
    return (void *)(uintptr_t)p;
}

static void *k_alloc(struct kern *k, size_t bytes)
{
    void *p = raw_alloc(bytes);
    k_zero(k, p, bytes);
    return p;
}

/* Waits for what still uses it. */
static void k_free(struct kern *k, void *p)
{
    (void)k;
    if (p)
        cuda_must(cuda_driver.MemFree_v2(device(p)), "cuMemFree");
}

static void k_upload(struct kern *k, void *dst, const void *src, size_t bytes)
{
    (void)k;
    if (bytes)
        cuda_must(cuda_driver.MemcpyHtoD_v2(device(dst), src, bytes), "cuMemcpyHtoD");
}

static void k_download(struct kern *k, void *dst, const void *src, size_t bytes)
{
    (void)k;
    if (bytes)
        cuda_must(cuda_driver.MemcpyDtoH_v2(dst, device(src), bytes), "cuMemcpyDtoH");
}

static enum err_code k_sync(struct kern *k, struct err *e)
{
    (void)k;
    (void)e;
    cuda_must(cuda_driver.CtxSynchronize(), "cuCtxSynchronize");
    return ERR_OK;
}

/* Floats that an operation uses until the next one that asks. */
static float *scratch_floats(size_t n)
{
    if (n * sizeof(float) > scratch_bytes) {
        k_free(NULL, (void *)(uintptr_t)scratch);
        scratch_bytes = n * sizeof(float);
        scratch = device(raw_alloc(scratch_bytes));
    }
    return (float *)(uintptr_t)scratch;
}

/* ---- rows moved, rows by themselves ---- */

static void k_embed(struct kern *k, float *y, const float *table, const uint16_t *ids, size_t rows,
                    size_t dim)
{
    (void)k;
    launch(K_embed, grid(rows * dim), 1, 1, THREADS, 0,
           ARGS(ARG(y), ARG(table), ARG(ids), ARG(rows), ARG(dim)));
}

static void k_take(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t from,
                   size_t dim)
{
    (void)k;
    launch(K_take, grid(batch * (t - from) * dim), 1, 1, THREADS, 0,
           ARGS(ARG(y), ARG(x), ARG(batch), ARG(t), ARG(from), ARG(dim)));
}

static void k_shift(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t dim)
{
    size_t rows = batch * t;
    (void)k;
    launch(K_shift, grid(rows * dim), 1, 1, THREADS, 0,
           ARGS(ARG(y), ARG(x), ARG(rows), ARG(t), ARG(dim)));
}

static void k_coef(struct kern *k, const struct kern_coef *a)
{
    (void)k;
    launch(K_coef, 1, 1, 1, THREADS, 0, ARGS(ARG(*a)));
}

static void k_combine(struct kern *k, const struct kern_combine *a)
{
    (void)k;
    launch(K_combine, ceil_div(a->rows, WARPS), 1, 1, THREADS, 0, ARGS(ARG(*a)));
}

static void k_qk(struct kern *k, const struct kern_qk *a)
{
    (void)k;
    launch(K_qk, ceil_div(a->rows * a->heads, WARPS), 1, 1, THREADS, 0, ARGS(ARG(*a)));
}

static void k_xsa(struct kern *k, const struct kern_xsa *a)
{
    (void)k;
    launch(K_xsa, ceil_div(a->rows * a->kv_heads, WARPS), 1, 1, THREADS, 0, ARGS(ARG(*a)));
}

static unsigned attn_shared(unsigned dim)
{
    return 3 * ATTN_ROWS * (dim + ATTN_PAD) * 2; /* queries, keys, values in bf16 */
}

static void k_attn(struct kern *k, const struct kern_attn *a)
{
    bool wide = a->head_dim > 64;
    (void)k;
    if (a->head_dim > 128)
        cuda_leave("heads of more than 128 numbers");
    launch(wide ? K_attn128 : K_attn64, ceil_div(a->tq, ATTN_ROWS), a->heads, a->batch,
           ATTN_THREADS, attn_shared(wide ? 128 : 64), ARGS(ARG(*a)));
}

/* ---- products ---- */

static void product(struct cuda_product *p, float *y, const float *x, const float *w, size_t rows,
                    size_t n_out, size_t n_in)
{
    p->b = w;
    p->n = n_out;
    p->k = n_in;
    p->alpha = 1;
    /* The second axis of a grid ends at GRID_MAX. */
    for (size_t row = 0; row < rows; row += p->m) {
        p->m = least(rows - row, (size_t)GRID_MAX * PRODUCT_BF16_M);
        p->a = x + row * n_in;
        p->c = y + row * n_out;
        launch(K_product, ceil_div(n_out, PRODUCT_BF16_N), ceil_div(p->m, PRODUCT_BF16_M), 1,
               PRODUCT_THREADS, 0, ARGS(p));
    }
}

static void k_linear(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                     size_t n_out, size_t n_in)
{
    struct cuda_product p = {0};
    (void)k;
    product(&p, y, x, w, rows, n_out, n_in);
}

static void k_linear_act(struct kern *k, float *y, float *f, const float *x, const float *w,
                         size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct cuda_product p = {.act = true, .below = 2 * slope * slope};
    (void)k;
    (void)f; /* for a backward; NULL when scoring */
    product(&p, y, x, w, rows, n_out, n_in);
}

/* dx = dy W of a few rows: SLOT's deltas. */
static void k_linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                           size_t n_out, size_t n_in, bool add)
{
    struct cuda_product p = {.a = dy, .b = w, .c = dx, .m = rows, .n = n_in, .k = n_out};
    (void)k;
    (void)add; /* SLOT does not */
    launch(K_few, ceil_div(n_in, PRODUCT_THREADS), rows, 1, PRODUCT_THREADS, 0, ARGS(&p));
}

/* ---- the head ---- */

static float inverse(float cap)
{
    return cap == 0.0f ? 0.0f : 1.0f / cap;
}

static void k_head(struct kern *k, const struct kern_head *a)
{
    size_t chunk = CHUNK_LOGITS / a->vocab;
    float inv = inverse(a->cap), *z, *lse = NULL;
    chunk = least(chunk ? chunk : 1, a->rows);
    z = scratch_floats(chunk * a->vocab);
    for (size_t row = 0, n; row < a->rows; row += n) {
        const uint16_t *target = a->target + row;
        float *nll = a->nll + row;
        n = least(chunk, a->rows - row);
        k_linear(k, z, a->h + row * a->dim, a->w, n, a->vocab, a->dim);
        launch(K_loss, n, 1, 1, THREADS, 0,
               ARGS(ARG(z), ARG(target), ARG(nll), ARG(lse), ARG(a->vocab), ARG(a->cap), ARG(inv)));
    }
}

/* ---- SLOT: as in kernels/cuda/slot.cu ---- */

static void k_slot_fwd(struct kern *k, const struct kern_slot *a)
{
    float inv = inverse(a->cap), *terms = NULL;
    size_t group = 0;
    (void)k;
    launch(K_slot_row, a->groups * a->rows, 1, 1, THREADS, 0,
           ARGS(ARG(*a), ARG(terms), ARG(group), ARG(inv)));
}

static void k_slot_bwd(struct kern *k, const struct kern_slot *a)
{
    size_t blocks = ceil_div(a->rows, SLOT_ROWS), per_group = blocks * a->vocab;
    size_t cols = ceil_div(a->vocab, THREADS), most;
    float inv = inverse(a->cap), *sums, *terms;
    (void)k;
    if (!a->groups || !per_group)
        return;
    most = least(SLOT_SUMS / per_group, GRID_MAX / blocks);
    most = least(most ? most : 1, a->groups);
    sums = scratch_floats(most * (per_group + 2 * a->rows));
    terms = sums + most * per_group;
    for (size_t group = 0, n; group < a->groups; group += n) {
        n = least(most, a->groups - group);
        launch(K_slot_row, n * a->rows, 1, 1, THREADS, 0,
               ARGS(ARG(*a), ARG(terms), ARG(group), ARG(inv)));
        launch(K_slot_sum, cols, n * blocks, 1, THREADS, 0,
               ARGS(ARG(*a), ARG(terms), ARG(sums), ARG(group), ARG(blocks), ARG(inv)));
        launch(K_slot_add, cols, (group + n - 1) / a->per - group / a->per + 1, 1, THREADS, 0,
               ARGS(ARG(*a), ARG(sums), ARG(group), ARG(n), ARG(blocks)));
    }
}

/* b^n by squaring, in double, as on the CPU. */
static double power(double b, size_t n)
{
    double r = 1;
    for (; n; n /= 2, b *= b)
        if (n % 2)
            r *= b;
    return r;
}

static void k_adamw(struct kern *k, const struct kern_adamw *a)
{
    const struct cuda_adam adam = {a->lr,
                                   (float)((double)a->lr / (1 - power((double)a->b1, a->step))),
                                   (float)__builtin_sqrt(1 - power((double)a->b2, a->step))};
    (void)k;
    launch(K_adamw, grid(a->n), 1, 1, THREADS, 0, ARGS(ARG(*a), ARG(adam)));
}

/* ---- the table ---- */

static void load_kernels(const char *ptx)
{
    static const char names[] =
#define X(name) #name "\0"
        KERNELS(X)
#undef X
        ;
    CUmodule module;
    const char *s = names;
    cuda_must(cuda_driver.ModuleLoadData(&module, ptx), "cuModuleLoadData");
    for (size_t i = 0; i < KERNEL_COUNT; i++, s += strlen(s) + 1)
        cuda_must(cuda_driver.ModuleGetFunction(&kernel[i], module, s), s);
    /* More than the 48 KiB that every launch may have. */
    cuda_must(cuda_driver.FuncSetAttribute(kernel[K_attn128], CU_FUNC_MAX_DYNAMIC_SHARED,
                                           (int)attn_shared(128)),
              "cuFuncSetAttribute");
}

/* How far from a multiple of four floats most weights of the parameter block begin: products read
 * four at a time. */
static size_t shift_of(const struct gpt *m)
{
    size_t at[4] = {0}, best = 0;
    for (size_t i = 0; i < m->nparams; i++)
        at[m->param[i].at % 4] += m->param[i].size;
    for (size_t i = 1; i < 4; i++)
        best = at[i] > at[best] ? i : best;
    return best;
}

void cuda_engine(struct kern **k, float **params, const struct gpt *m, const char *ptx)
{
    static const struct kern table = {
        .name = "cuda",
        .alloc = k_alloc,
        .free = k_free,
        .upload = k_upload,
        .download = k_download,
        .zero = k_zero,
        .sync = k_sync,
        .embed_fwd = k_embed,
        .take = k_take,
        .combine_fwd = k_combine,
        .linear_fwd = k_linear,
        .linear_act_fwd = k_linear_act,
        .linear_bwd_x = k_linear_bwd_x,
        .shift_fwd = k_shift,
        .xsa_fwd = k_xsa,
        .coef_fwd = k_coef,
        .qk_fwd = k_qk,
        .attn_fwd = k_attn,
        .head_fwd = k_head,
        .slot_fwd = k_slot_fwd,
        .slot_bwd = k_slot_bwd,
        .adamw = k_adamw,
    };
    const float *host = *params;
    size_t bytes = m->floats * sizeof *host, shift = shift_of(m);
    load_kernels(ptx);
    *k = malloc(sizeof table);
    **k = table;
    *params = (float *)k_alloc(*k, bytes + 16) + (4 - shift) % 4;
    k_upload(*k, *params, host, bytes);
}
