/*
 * cuda_kern.c - struct kern on a card for the runner of a submission: memory, and what scoring and
 * SLOT need beyond cuda_train.c. Every operation is a launch or a few through the driver
 * (stub/cuda_driver.h) of the kernels in stub/cuda_kernels.cu. See cuda_kern.h.
 */
#include <stdlib.h>
#include <string.h>

#include "stub/cuda.h"
#include "stub/cuda_driver.h"
#include "stub/cuda_kern.h"

enum {
    SLOT_ROWS = 64,
    CHUNK_LOGITS = 1 << 25, /* of the head at a time */
    SLOT_SUMS = 1 << 26,    /* floats of block sums at a time */
    SHARED = 48 << 10,      /* bytes of shared memory that every launch may have */
    ALIGN = 16,             /* bytes on a multiple of which kernels read four floats at a time */
};

static CUfunction kernel[KERNEL_COUNT];
static CUdeviceptr scratch;
static size_t scratch_bytes;

static CUdeviceptr device(const void *p)
{
    return (CUdeviceptr)(uintptr_t)p;
}

void cuda_launch(enum kernel which, size_t x, size_t y, size_t z, unsigned threads, unsigned tall,
                 unsigned shared, void **args)
{
    if (!x || !y || !z)
        return;
    if (shared > SHARED)
        cuda_must(
            cuda_driver.FuncSetAttribute(kernel[which], CU_FUNC_MAX_DYNAMIC_SHARED, (int)shared),
            "cuFuncSetAttribute");
    cuda_must(cuda_driver.LaunchKernel(kernel[which], (unsigned)x, (unsigned)y, (unsigned)z,
                                       threads, tall, 1, shared, NULL, args, NULL),
              "cuLaunchKernel");
}

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

/* Waits for what still uses it. Adapted weights begin aside of their memory, which begins on a
 * multiple of 256 bytes (model/ttt.h). */
static void k_free(struct kern *k, void *p)
{
    (void)k;
    if (p)
        cuda_must(cuda_driver.MemFree_v2(device(p) / ALIGN * ALIGN), "cuMemFree");
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

float *cuda_scratch(size_t n)
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
    launch(K_embed, grid(rows * dim), ARGS(ARG(y), ARG(table), ARG(ids), ARG(rows), ARG(dim)));
}

static void k_take(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t from,
                   size_t dim)
{
    (void)k;
    launch(K_take, grid(batch * (t - from) * dim),
           ARGS(ARG(y), ARG(x), ARG(batch), ARG(t), ARG(from), ARG(dim)));
}

static void k_shift(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t dim)
{
    size_t rows = batch * t;
    (void)k;
    launch(K_shift, grid(rows * dim), ARGS(ARG(y), ARG(x), ARG(rows), ARG(t), ARG(dim)));
}

static void k_coef(struct kern *k, const struct kern_coef *a)
{
    (void)k;
    launch(K_coef, 1, ARGS(ARG(*a)));
}

static void k_combine(struct kern *k, const struct kern_combine *a)
{
    (void)k;
    launch(K_combine, ceil_div(a->rows, WARPS), ARGS(ARG(*a)));
}

static void k_qk(struct kern *k, const struct kern_qk *a)
{
    (void)k;
    launch(K_qk, ceil_div(a->rows * a->heads, WARPS), ARGS(ARG(*a)));
}

static void k_xsa(struct kern *k, const struct kern_xsa *a)
{
    (void)k;
    launch(K_xsa, ceil_div(a->rows * a->kv_heads, WARPS), ARGS(ARG(*a)));
}

static void k_attn(struct kern *k, const struct kern_attn *a)
{
    bool wide = a->head_dim > 64;
    (void)k;
    if (a->head_dim > 128)
        cuda_leave("heads of more than 128 numbers");
    cuda_launch(wide ? K_attn128 : K_attn64, ceil_div(a->tq, ATTN_ROWS), a->heads, a->batch,
                ATTN_THREADS, 1, attn_shared(3 * ATTN_ROWS, wide ? 128 : 64), ARGS(ARG(*a)));
}

/* ---- products ---- */

void cuda_multiply(enum kernel which, const struct cuda_product *p)
{
    cuda_launch(which, ceil_div(p->n, PRODUCT_BF16_N), ceil_div(p->m, PRODUCT_BF16_M), 1,
                PRODUCT_THREADS, 1, 0, ARGS(ARG(*p)));
}

static void k_linear(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                     size_t n_out, size_t n_in)
{
    struct cuda_product p = {.a = x, .b = w, .c = y, .m = rows, .n = n_out, .k = n_in, .alpha = 1};
    (void)k;
    cuda_multiply(K_product, &p);
}

/* When scoring f is NULL, and the product does all of it. */
static void k_linear_act(struct kern *k, float *y, float *f, const float *x, const float *w,
                         size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct cuda_product p = {.a = x,
                             .b = w,
                             .c = y,
                             .m = rows,
                             .n = n_out,
                             .k = n_in,
                             .alpha = 1,
                             .below = 2 * slope * slope,
                             .act = !f};
    size_t n = rows * n_out;
    (void)k;
    cuda_multiply(K_product, &p);
    if (f)
        launch(K_act, grid(n), ARGS(ARG(y), ARG(f), ARG(n), ARG(p.below)));
}

/* ---- the head ---- */

void cuda_logits(float *z, const struct kern_head *a, size_t row, size_t n)
{
    k_linear(NULL, z, a->h + row * a->dim, a->w, n, a->vocab, a->dim);
}

size_t cuda_head_rows(const struct kern_head *a)
{
    size_t chunk = CHUNK_LOGITS / a->vocab;
    return least(chunk ? chunk : 1, a->rows);
}

static void k_head(struct kern *k, const struct kern_head *a)
{
    size_t chunk = cuda_head_rows(a);
    float inv = cuda_inverse(a->cap), *z = cuda_scratch(chunk * a->vocab);
    (void)k;
    for (size_t row = 0, n; row < a->rows; row += n) {
        const uint16_t *target = a->target + row;
        float *nll = a->nll + row, *lse = a->lse ? a->lse + row : NULL;
        n = least(chunk, a->rows - row);
        cuda_logits(z, a, row, n);
        launch(K_loss, n,
               ARGS(ARG(z), ARG(target), ARG(nll), ARG(lse), ARG(a->vocab), ARG(a->cap), ARG(inv)));
    }
}

/* ---- SLOT: as in kernels/cuda/slot.cu ---- */

static void k_slot_fwd(struct kern *k, const struct kern_slot *a)
{
    float inv = cuda_inverse(a->cap), *terms = NULL;
    size_t group = 0;
    (void)k;
    launch(K_slot_row, a->groups * a->rows, ARGS(ARG(*a), ARG(terms), ARG(group), ARG(inv)));
}

static void k_slot_bwd(struct kern *k, const struct kern_slot *a)
{
    size_t blocks = ceil_div(a->rows, SLOT_ROWS), per_group = blocks * a->vocab;
    size_t cols = ceil_div(a->vocab, THREADS), most;
    float inv = cuda_inverse(a->cap), *sums, *terms;
    (void)k;
    if (!a->groups || !per_group)
        return;
    most = least(SLOT_SUMS / per_group, GRID_MAX / blocks);
    most = least(most ? most : 1, a->groups);
    sums = cuda_scratch(most * (per_group + 2 * a->rows));
    terms = sums + most * per_group;
    for (size_t group = 0, n; group < a->groups; group += n) {
        n = least(most, a->groups - group);
        launch(K_slot_row, n * a->rows, ARGS(ARG(*a), ARG(terms), ARG(group), ARG(inv)));
        cuda_launch(K_slot_sum, cols, n * blocks, 1, THREADS, 1, 0,
                    ARGS(ARG(*a), ARG(terms), ARG(sums), ARG(group), ARG(blocks), ARG(inv)));
        cuda_launch(K_slot_add, cols, (group + n - 1) / a->per - group / a->per + 1, 1, THREADS, 1,
                    0, ARGS(ARG(*a), ARG(sums), ARG(group), ARG(n), ARG(blocks)));
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
    launch(K_adamw, grid(a->n), ARGS(ARG(*a), ARG(adam)));
}

/* ---- the table ---- */

enum { WORDS = 128 };

/* The text that stub/ptx_words.c has abbreviated: measured first, then written. */
static char *write_out(const char *s)
{
    const char *word[WORDS];
    size_t words = 0;
    char *out = NULL;
    for (; *s && words < WORDS; s += strlen(s) + 1)
        word[words++] = s;
    s++;
    for (int pass = 0; pass < 2; pass++) {
        size_t n = 0;
        for (const char *p = s; *p; p++) {
            size_t i = (unsigned char)*p, len = 1;
            const char *from = p;
            if (i >= WORDS) {
                if (i - WORDS >= words)
                    err_damaged();
                from = word[i - WORDS];
                len = strlen(from);
            }
            if (pass)
                memcpy(out + n, from, len);
            n += len;
        }
        if (!pass)
            out = calloc(n + 1, 1);
    }
    return out;
}

static void load_kernels(const char *ptx)
{
    static const char names[] =
#define X(name) #name "\0"
        CUDA_KERNELS(X)
#undef X
        ;
    CUmodule module;
    const char *s = names;
    cuda_must(cuda_driver.ModuleLoadData(&module, write_out(ptx)), "cuModuleLoadData");
    for (size_t i = 0; i < KERNEL_COUNT; i++, s += strlen(s) + 1)
        cuda_must(cuda_driver.ModuleGetFunction(&kernel[i], module, s), s);
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
    cuda_fill_train(*k);
    *params = (float *)k_alloc(*k, bytes + 16) + (4 - shift) % 4;
    k_upload(*k, *params, host, bytes);
}
