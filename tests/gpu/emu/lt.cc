/*
 * lt.cc - cuBLASLt's functions, as its manual defines them: column-major matrices with a leading
 * dimension, D = alpha * op(A) op(B) + beta * C, batches a stride apart, fp32 sums, results rounded
 * once. Every combination of types and sizes that the library would refuse is refused, and what
 * the heuristic was promised about alignment is checked at the product.
 */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <stdlib.h>

#include <vector>

#include "tests/gpu/emu/emu.h"

struct emu_lt {
    int nothing;
};

struct emu_matmul_desc {
    cublasOperation_t ta, tb;
};

struct emu_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
    int32_t batch;
    int64_t stride;
};

struct emu_preference {
    size_t workspace;
    uint32_t reductions; /* in which a sum may be split */
    uint32_t alignment[4];
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lt)
{
    *lt = new emu_lt();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    delete lt;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new emu_matmul_desc();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

/* An attribute of one size; the library refuses any other. */
template <typename T> static cublasStatus_t take(T *to, const void *value, size_t size)
{
    if (size != sizeof *to)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t size)
{
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&desc->ta, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&desc->tb, value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *layout = new emu_layout{type, rows, cols, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *value, size_t size)
{
    switch (attr) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take(&layout->batch, value, size);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return take(&layout->stride, value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new emu_preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *value, size_t size)
{
    switch (attr) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&preference->reductions, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->alignment[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                    value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* op(A) is m x k, op(B) k x n, C and D m x n. */
static cublasStatus_t check(const emu_matmul_desc *desc, const emu_layout *a, const emu_layout *b,
                            const emu_layout *c, const emu_layout *d)
{
    uint64_t m = desc->ta ? a->cols : a->rows, k = desc->ta ? a->rows : a->cols;
    uint64_t k_of_b = desc->tb ? b->cols : b->rows, n = desc->tb ? b->rows : b->cols;
    for (const emu_layout *l : {a, b, c, d})
        if (l->ld < (int64_t)l->rows || l->rows == 0 || l->cols == 0 || l->batch != d->batch ||
            l->batch < 1 || (l->batch > 1 && l->stride == 0))
            return CUBLAS_STATUS_INVALID_VALUE;
    if (k != k_of_b || c->rows != m || c->cols != n || d->rows != m || d->cols != n)
        return CUBLAS_STATUS_INVALID_VALUE;
    /* Of the manual's table for CUBLAS_COMPUTE_32F with an fp32 scale: fp32 all over, or bf16 with
     * results in either. */
    if (a->type != b->type || c->type != d->type ||
        (a->type == CUDA_R_32F && d->type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

/* While a stream is being captured this fails, as it does in cuBLASLt of CUDA 13.3. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    *found = 0;
    cublasStatus_t status = check(desc, a, b, c, d);
    if (emu::capturing())
        return CUBLAS_STATUS_INTERNAL_ERROR;
    if (status != CUBLAS_STATUS_SUCCESS || wanted < 1)
        return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_INVALID_VALUE;
    /* Of a split sum with results in bf16, its parts must not be rounded to that. */
    if (d->type == CUDA_R_16BF && preference->reductions & ~CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        emu::fault(NULL, "cuBLASLt may round the parts of a sum to bf16");
    results[0] = {};
    memcpy(results[0].algo.alignment, preference->alignment, sizeof preference->alignment);
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

static size_t size_of(const emu_layout &l)
{
    return l.type == CUDA_R_32F ? 4 : 2;
}

/* The range of bytes that a batch of matrices takes, without the tails of the last columns. */
static size_t extent(const emu_layout &l)
{
    return ((size_t)(l.batch - 1) * (size_t)l.stride + (size_t)(l.cols - 1) * (size_t)l.ld +
            l.rows) *
           size_of(l);
}

static float get(const emu_layout &l, const void *p, size_t at)
{
    if (l.type == CUDA_R_32F)
        return ((const float *)p)[at];
    return __bfloat162float(((const __nv_bfloat16 *)p)[at]);
}

/* Element (i, j) of op(X) to out[i][j] or, when `swap`, to out[j][i]: rows of floats. */
static std::vector<float> unpack(const emu_layout &l, const void *p, int batch, bool swap)
{
    std::vector<float> out(l.rows * l.cols);
    size_t base = (size_t)batch * (size_t)l.stride;
    for (size_t j = 0; j < l.cols; j++)
        for (size_t i = 0; i < l.rows; i++)
            out[swap ? j * l.rows + i : i * l.cols + j] = get(l, p, base + j * (size_t)l.ld + i);
    return out;
}

struct product {
    emu_matmul_desc desc;
    emu_layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
};

static void multiply(const struct product &p)
{
    emu::here.now++;
    emu::mem_need_init(p.a, extent(p.la), "product: A");
    emu::mem_need_init(p.b, extent(p.lb), "product: B");
    emu::mem_need(p.d, extent(p.ld), "product: D");
    if (p.beta != 0)
        emu::mem_need_init(p.c, extent(p.lc), "product: C");
    if (emu::sample())
        return;
    uint64_t m = p.ld.rows, n = p.ld.cols, k = p.desc.ta ? p.la.rows : p.la.cols;
    std::vector<float> sum(m * n);
    for (int batch = 0; batch < p.ld.batch; batch++) {
        /* op(A) as [m][k], op(B) as [k][n] */
        std::vector<float> a = unpack(p.la, p.a, batch, p.desc.ta);
        std::vector<float> b = unpack(p.lb, p.b, batch, p.desc.tb);
        sum.assign(m * n, 0.0f);
        for (size_t i = 0; i < m; i++)
            for (size_t l = 0; l < k; l++)
                for (size_t j = 0; j < n; j++)
                    sum[i * n + j] += a[i * k + l] * b[l * n + j];
        size_t base_c = (size_t)batch * (size_t)p.lc.stride,
               base = (size_t)batch * (size_t)p.ld.stride;
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < m; i++) {
                float x = p.alpha * sum[i * n + j];
                if (p.beta != 0)
                    x += p.beta * get(p.lc, p.c, base_c + j * (size_t)p.lc.ld + i);
                size_t at = base + j * (size_t)p.ld.ld + i;
                if (p.ld.type == CUDA_R_32F)
                    ((float *)p.d)[at] = x;
                else
                    ((__nv_bfloat16 *)p.d)[at] = __float2bfloat16_rn(x);
            }
    }
    emu::mem_written(p.d, extent(p.ld));
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    cublasStatus_t status = check(desc, a_layout, b_layout, c_layout, d_layout);
    const void *const at[4] = {a, b, c, d};
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    for (int i = 0; i < 4; i++)
        if (!emu::mem_is_device(at[i]) || (uintptr_t)at[i] % algo->alignment[i])
            return CUBLAS_STATUS_INVALID_VALUE;
    emu::mem_need(workspace, workspace_bytes, "product: workspace");
    const struct product p = {*desc,
                              *a_layout,
                              *b_layout,
                              *c_layout,
                              *d_layout,
                              a,
                              b,
                              c,
                              d,
                              *(const float *)alpha,
                              *(const float *)beta};
    emu::enqueue(stream, [p] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- opening the library ---- */

#define FUNCTIONS(X)                                                                               \
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

static const struct {
    const char *name;
    void *function;
} functions[] = {
#define X(name) {#name, (void *)name},
    FUNCTIONS(X)
#undef X
};

/* EMU_LT=none: a machine without the library. */
void *emu_dlopen(const char *name)
{
    const char *lt = getenv("EMU_LT");
    return strstr(name, "cublasLt") && !(lt && !strcmp(lt, "none")) ? (void *)functions : NULL;
}

void *emu_dlsym(void *, const char *name)
{
    for (const auto &f : functions)
        if (!strcmp(f.name, name))
            return f.function;
    return NULL;
}

int emu_dlclose(void *)
{
    return 0;
}
