/*
 * linear.cu - matrix products through cuBLASLt: bf16 operands, fp32 sums; fp32 for gemm.
 *
 * cuBLASLt is opened at run time: a program built with this backend starts on machines without CUDA
 * too, and starts fast (the library has hundreds of megabytes). Where it is not there, the
 * project's own products stand in (matmul.cu). It is never unloaded: libraries of CUDA leave
 * threads and functions for the end of the program behind.
 *
 * cuBLASLt thinks in columns. A row-major matrix [r][c] is its c x r matrix with leading dimension
 * c, so C = op(A) op(B) is asked for as C^T = op(B)^T op(A)^T: operands swapped, sizes swapped, and
 * what is stored as [n][k] is transposed, what is stored as [k][n] is not.
 */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#define LT_FUNCTIONS(X)                                                                            \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatrixLayoutSetAttribute)                                                            \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmul)

enum {
    KINDS = 512,          /* different products that are remembered */
    WORKSPACE = 32 << 20, /* what NVIDIA recommends for sm_90 */
};

/* A product as cuBLASLt wants it described, kept because choosing an algorithm takes long. */
struct kind {
    struct cuda_matmul key; /* pointers, alpha and beta zero, beta 1 when there is one */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct lt {
    void *library, *workspace;
    cublasLtHandle_t handle;
    struct kind kind[KINDS];
    size_t kinds;
#define X(name) decltype(&name) name##_;
    LT_FUNCTIONS(X)
#undef X
};

enum err_code lt_open(struct lt **out, struct err *e)
{
    struct lt *lt = (struct lt *)calloc(1, sizeof *lt);
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                                        "/usr/local/cuda/lib64/libcublasLt.so"};
    *out = lt;
    if (!lt)
        return err_nomem(e, "cuBLASLt", sizeof *lt);
    for (size_t i = 0; !lt->library && i < sizeof names / sizeof names[0]; i++)
        lt->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lt->library) { /* matmul.cu does what it would have done */
        *out = NULL;
        free(lt);
        return ERR_OK;
    }
#define X(name)                                                                                    \
    lt->name##_ = (decltype(&name))dlsym(lt->library, #name);                                      \
    if (!lt->name##_)                                                                              \
        return err_set(e, ERR_RESOURCE, "CUDA: libcublasLt.so has no " #name);
    LT_FUNCTIONS(X)
#undef X
    if (lt->cublasLtCreate_(&lt->handle) != CUBLAS_STATUS_SUCCESS)
        return err_set(e, ERR_RESOURCE, "CUDA: cuBLASLt does not start");
    if (cudaMalloc(&lt->workspace, WORKSPACE) != cudaSuccess)
        return err_nomem(e, "cuBLASLt", WORKSPACE);
    return ERR_OK;
}

static void kind_free(struct lt *lt, struct kind *d)
{
    if (d->desc)
        lt->cublasLtMatmulDescDestroy_(d->desc);
    if (d->a)
        lt->cublasLtMatrixLayoutDestroy_(d->a);
    if (d->b)
        lt->cublasLtMatrixLayoutDestroy_(d->b);
    if (d->c)
        lt->cublasLtMatrixLayoutDestroy_(d->c);
}

void lt_close(struct lt *lt)
{
    if (!lt)
        return;
    for (size_t i = 0; i < lt->kinds; i++)
        kind_free(lt, &lt->kind[i]);
    if (lt->handle)
        lt->cublasLtDestroy_(lt->handle);
    if (lt->workspace)
        cudaFree(lt->workspace);
    if (lt->library)
        dlclose(lt->library);
    free(lt);
}

/* The layout of row-major [rows][cols], batch of them one after the other. */
static bool layout(const struct lt *lt, cublasLtMatrixLayout_t *out, cudaDataType_t type,
                   size_t rows, size_t cols, size_t batch)
{
    int32_t count = (int32_t)batch;
    int64_t stride = (int64_t)(rows * cols);
    return !lt->cublasLtMatrixLayoutCreate_(out, type, cols, rows, (int64_t)cols) &&
           !lt->cublasLtMatrixLayoutSetAttribute_(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                                  sizeof count) &&
           !lt->cublasLtMatrixLayoutSetAttribute_(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                  &stride, sizeof stride);
}

/* Bytes on which a pointer lies at least, of those that algorithms care for. */
static uint32_t alignment(const void *p)
{
    uintptr_t bits = (uintptr_t)p | 256;
    return (uint32_t)(bits & -bits);
}

static bool choose(const struct lt *lt, struct kind *d, const struct cuda_matmul *a)
{
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t found;
    size_t workspace = WORKSPACE;
    /* Where a sum is split, its parts are fp32 too: fp32 sums are promised. */
    uint32_t parts = a->out == CUDA_BF16 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                         : CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t at[4] = {alignment(a->b), alignment(a->a), alignment(a->d ? a->d : a->c),
                      alignment(a->c)};
    int n = 0;
    bool ok =
        !lt->cublasLtMatmulPreferenceCreate_(&want) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &workspace, sizeof workspace) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                   &parts, sizeof parts) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                   &at[0], sizeof at[0]) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                   &at[1], sizeof at[1]) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                   &at[2], sizeof at[2]) &&
        !lt->cublasLtMatmulPreferenceSetAttribute_(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                                   &at[3], sizeof at[3]) &&
        !lt->cublasLtMatmulAlgoGetHeuristic_(lt->handle, d->desc, d->a, d->b, d->c, d->c, want, 1,
                                             &found, &n) &&
        n == 1;
    if (want)
        lt->cublasLtMatmulPreferenceDestroy_(want);
    if (ok)
        d->algo = found.algo;
    return ok;
}

/* Describes the product of a; its operands a and b are cuBLASLt's second and first. */
static bool describe(const struct lt *lt, struct kind *d, const struct cuda_matmul *a)
{
    cudaDataType_t in = a->in == CUDA_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cudaDataType_t out = a->out == CUDA_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t first = a->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = a->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    return !lt->cublasLtMatmulDescCreate_(&d->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) &&
           !lt->cublasLtMatmulDescSetAttribute_(d->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                                sizeof first) &&
           !lt->cublasLtMatmulDescSetAttribute_(d->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                                sizeof second) &&
           layout(lt, &d->a, in, a->tb ? a->n : a->k, a->tb ? a->k : a->n, a->batch) &&
           layout(lt, &d->b, in, a->ta ? a->k : a->m, a->ta ? a->m : a->k, a->batch) &&
           layout(lt, &d->c, out, a->m, a->n, a->batch) && choose(lt, d, a);
}

static bool same_kind(const struct cuda_matmul *x, const struct cuda_matmul *y)
{
    return x->in == y->in && x->out == y->out && x->batch == y->batch && x->m == y->m &&
           x->n == y->n && x->k == y->k && x->ta == y->ta && x->tb == y->tb &&
           (x->beta != 0) == (y->beta != 0) && alignment(x->a) == alignment(y->a) &&
           alignment(x->b) == alignment(y->b) && alignment(x->c) == alignment(y->c) &&
           alignment(x->d) == alignment(y->d);
}

void cuda_matmul(struct cuda *c, const struct cuda_matmul *a)
{
    struct lt *lt = c->lt;
    struct kind *d = NULL;
    if (a->m == 0 || a->n == 0 || a->batch == 0)
        return;
    if (!lt) {
        cuda_matmul_own(c, a);
        return;
    }
    for (size_t i = 0; i < lt->kinds && !d; i++)
        if (same_kind(&lt->kind[i].key, a))
            d = &lt->kind[i];
    if (!d) {
        if (lt->kinds == KINDS) { /* as good as any: the last one makes room */
            lt->kinds--;
            kind_free(lt, &lt->kind[lt->kinds]);
        }
        d = &lt->kind[lt->kinds];
        memset(d, 0, sizeof *d);
        d->key = *a;
        if (!describe(lt, d, a)) { /* no algorithm, or none while a tape is recorded */
            kind_free(lt, d);
            cuda_matmul_own(c, a);
            return;
        }
        lt->kinds++;
    }
    const void *add = a->d ? a->d : a->c;
    if (lt->cublasLtMatmul_(lt->handle, d->desc, &a->alpha, a->b, d->a, a->a, d->b, &a->beta, add,
                            d->c, a->c, d->c, &d->algo, lt->workspace, WORKSPACE, c->stream))
        err_set(&c->failed, ERR_RESOURCE, "CUDA device %d: the product %zu x %zu x %zu failed",
                c->device, a->m, a->k, a->n);
}

__global__ static void onto_kernel(float *y, const float *x, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        y[i] += x[i];
}

void cuda_matmul_onto(struct cuda *c, const struct cuda_matmul *a)
{
    struct cuda_matmul p = *a;
    size_t n = a->batch * a->m * a->n;
    bool aligned = (uintptr_t)a->c % 16 == 0;
    if (n == 0)
        return;
    p.d = NULL;
    p.alpha = 1.0f;
    p.beta = aligned ? 1.0f : 0.0f;
    if (!aligned && !(p.c = cuda_temp<float>(c, n, "product")))
        return;
    cuda_matmul(c, &p);
    if (aligned)
        return;
    CUDA_LAUNCH(onto_kernel, cuda_grid(n, 256), 256, 0, c->stream, (float *)a->c,
                (const float *)p.c, n);
    cuda_launched(c, "product");
    cuda_done(c, p.c);
}

/* ---- linear layers: fp32 in memory, bf16 in the product ---- */

/* x and w as bf16, in one piece of temporary memory; each begins on a multiple of 256 bytes.
 * Weights that are held lie elsewhere. */
static bool as_bf16(struct cuda *c, bf16 **x16, const bf16 **w16, const float *x, size_t x_n,
                    const float *w, size_t w_n, const char *what)
{
    size_t room = (x_n + 127) / 128 * 128;
    *w16 = cuda_held(c, w, w_n);
    *x16 = cuda_temp<bf16>(c, room + (*w16 ? 0 : w_n), what);
    if (!*x16)
        return false;
    cuda_to_bf16(c, *x16, x, x_n);
    if (!*w16) {
        cuda_to_bf16(c, *x16 + room, w, w_n);
        *w16 = *x16 + room;
    }
    return true;
}

static void linear_fwd(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                       size_t n_out, size_t n_in)
{
    struct cuda *c = cuda_of(k);
    bf16 *x16;
    const bf16 *w16;
    if (!as_bf16(c, &x16, &w16, x, rows * n_in, w, n_out * n_in, "linear_fwd"))
        return;
    const struct cuda_matmul a = {CUDA_BF16, CUDA_F32, x16,  w16,   NULL, y,    1,
                                  rows,      n_out,    n_in, false, true, 1.0f, 0.0f};
    cuda_matmul(c, &a);
    cuda_done(c, x16);
}

__global__ static void act_kernel(float *y, float *f, size_t n, float below)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float u = y[i], g = (u > 0 ? 2.0f : below) * u;
        y[i] = 0.5f * g * u;
        if (f)
            f[i] = g;
    }
}

static void linear_act_fwd(struct kern *k, float *y, float *f, const float *x, const float *w,
                           size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct cuda *c = cuda_of(k);
    size_t n = rows * n_out;
    linear_fwd(k, y, x, w, rows, n_out, n_in);
    CUDA_LAUNCH(act_kernel, cuda_grid(n, 256), 256, 0, c->stream, y, f, n, 2 * slope * slope);
    cuda_launched(c, "linear_act_fwd");
}

static void linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                         size_t n_out, size_t n_in, bool add)
{
    struct cuda *c = cuda_of(k);
    bf16 *dy16;
    const bf16 *w16;
    if (!as_bf16(c, &dy16, &w16, dy, rows * n_out, w, n_out * n_in, "linear_bwd_x"))
        return;
    const struct cuda_matmul a = {
        CUDA_BF16, CUDA_F32, dy16,  w16,   NULL,  dx,   1,
        rows,      n_in,     n_out, false, false, 1.0f, add ? 1.0f : 0.0f};
    cuda_matmul(c, &a);
    cuda_done(c, dy16);
}

static void linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                         size_t n_out, size_t n_in)
{
    struct cuda *c = cuda_of(k);
    bf16 *dy16;
    const bf16 *x16;
    if (!as_bf16(c, &dy16, &x16, dy, rows * n_out, x, rows * n_in, "linear_bwd_w"))
        return;
    const struct cuda_matmul a = {CUDA_BF16, CUDA_F32, dy16, x16,  NULL,  dw,   1,
                                  n_out,     n_in,     rows, true, false, 1.0f, 1.0f};
    cuda_matmul_onto(c, &a);
    cuda_done(c, dy16);
}

static void gemm(struct kern *k, float *c, const float *a, const float *b, size_t m, size_t n,
                 size_t kk, bool ta, bool tb, float alpha, float beta)
{
    const struct cuda_matmul p = {CUDA_F32, CUDA_F32, a,  b,  NULL, c,     1,
                                  m,        n,        kk, ta, tb,   alpha, beta};
    cuda_matmul(cuda_of(k), &p);
}

void cuda_fill_linear(struct kern *k)
{
    k->linear_fwd = linear_fwd;
    k->linear_act_fwd = linear_act_fwd;
    k->linear_bwd_x = linear_bwd_x;
    k->linear_bwd_w = linear_bwd_w;
    k->gemm = gemm;
}
