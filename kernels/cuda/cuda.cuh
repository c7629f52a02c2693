/*
 * cuda.cuh - what the files of the CUDA backend share: its state, errors, temporary memory, and the
 * few device functions that more than one kernel needs.
 *
 * Everything runs on one stream, in order. Temporary memory comes from one block or from the
 * stream's own pool and goes back in stream order, so nothing here waits for the device. The first
 * failure is kept and reported by k->sync.
 *
 * No kernel uses float atomics: every sum has one fixed order, so a run gives the same bits as the
 * run before on the same device. They are not the bits of the CPU: matrix products and attention
 * take bf16 operands (fp32 sums), and sums over a row go over 32 lanes instead of 16.
 */
#ifndef KERNELS_CUDA_CUDA_CUH
#define KERNELS_CUDA_CUDA_CUH

#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/product.h"
extern "C" {
#include "kernels/kernels.h"
}

typedef __nv_bfloat16 bf16;

struct lt; /* cuBLASLt and what it remembers: linear.cu */

struct queue; /* of uploads, and tapes: queue.cu */

/*
 * Temporary memory. A piece is given back before the operation that took it returns, and all
 * operations run one after the other: so pieces are cut from the block one behind the other, and
 * when the last one is back the whole block is free again. What does not fit comes from the pool.
 * Nobody has a block before the first tape is recorded.
 */
struct cuda_room {
    char *base; /* NULL, or on a multiple of 256 */
    size_t size, used;
    size_t live;       /* pieces not given back yet, wherever they come from */
    size_t want, most; /* bytes of these, and the most at any time */
};

struct cuda {
    int device;
    cudaStream_t stream;
    struct lt *lt;
    struct queue *queue;
    bool attn90; /* attention by attn90.cu where it can: cuda_attn90_open */
    bool mlp90;  /* products around an activation by mlp90.cu where it can: cuda_mlp90_open */
    int sms;     /* processors of the card, with mlp90 */
    struct cuda_room room;
    struct err failed; /* the first failure since the last sync */
};

static inline struct cuda *cuda_of(struct kern *k)
{
    return (struct cuda *)k->impl;
}

/* Records a failure under the name of the operation. Returns whether all is well. */
bool cuda_ok(struct cuda *c, cudaError_t status, const char *what);

/* Temporary memory for n elements of T, given back by cuda_done. NULL, and a failure recorded, when
 * there is none: the caller returns. */
void *cuda_temp_bytes(struct cuda *c, size_t bytes, const char *what);
void cuda_done(struct cuda *c, void *temp);
template <typename T> static inline T *cuda_temp(struct cuda *c, size_t n, const char *what)
{
    return (T *)cuda_temp_bytes(c, n * sizeof(T), what);
}

/* Did a call work for which there is another way? CUDA keeps an error until it is asked for, so one
 * that is not to be reported is taken away here: the next cuda_launched would find it. */
static inline bool cuda_tried(cudaError_t status)
{
    return status == cudaSuccess || ((void)cudaGetLastError(), false);
}

/* After a launch: was it taken? */
static inline void cuda_launched(struct cuda *c, const char *what)
{
    cuda_ok(c, cudaGetLastError(), what);
}

static inline unsigned cuda_blocks(size_t n, size_t per)
{
    return (unsigned)((n + per - 1) / per);
}

/* Blocks of a kernel that walks over n elements with a stride of the whole grid. */
static inline unsigned cuda_grid(size_t n, size_t threads)
{
    size_t blocks = (n + threads - 1) / threads;
    return (unsigned)(blocks > 65535 ? 65535 : blocks ? blocks : 1);
}

/* ---- used across files ---- */

/* out[cols] += the sums over the rows of x[rows][cols], rows `stride` apart, in a fixed order. */
void cuda_colsum(struct cuda *c, float *out, const float *x, size_t rows, size_t cols,
                 size_t stride);

/* y[n] = x[n] as bf16, to nearest even. */
void cuda_to_bf16(struct cuda *c, bf16 *y, const float *x, size_t n);

/* Weights as bf16, on a multiple of 256 bytes, when they are held (kernels.h); else NULL. They may
 * be of several matrices, whose bf16 forms then lie one behind the other. */
enum { CUDA_PARTS = 3 };
struct cuda_span {
    const float *w;
    size_t n;
};
struct cuda_weights {
    struct cuda_span
        of[CUDA_PARTS]; /* n is 0 behind the last one; in all but that a multiple of 8 */
};
const bf16 *cuda_held_all(struct cuda *c, const struct cuda_weights *w);
static inline const bf16 *cuda_held(struct cuda *c, const float *w, size_t n)
{
    const struct cuda_weights one = {{{w, n}}};
    return cuda_held_all(c, &one);
}

/* Rounds them to y, on a multiple of 8 bytes. */
void cuda_round(struct cuda *c, bf16 *y, const struct cuda_weights *w);
size_t cuda_count(const struct cuda_weights *w); /* numbers of all */

/* A list of n pointers in device memory, which stays there: the next call with the same pointers
 * returns the same list. NULL, and a failure recorded, without memory, or when a list would have to
 * be made while a tape is recorded. */
float *const *cuda_list(struct kern *k, float *const *x, size_t n);

/*
 * cuda_matmul - c[batch][m][n] = alpha * op(a) op(b) + beta * d, all row-major and dense, fp32
 * sums. op(a) is [m][k], stored [k][m] when ta; op(b) is [k][n], stored [n][k] when tb. a and b are
 * both bf16 or both fp32; c and d are of one type, either. d may be c; with beta 0 it is not read.
 */
enum cuda_type { CUDA_F32, CUDA_BF16 };
struct cuda_matmul {
    enum cuda_type in, out;
    const void *a, *b, *d;
    void *c;
    size_t batch, m, n, k;
    bool ta, tb;
    float alpha, beta;
};
void cuda_matmul(struct cuda *c, const struct cuda_matmul *a);

/* cuda_matmul_own - the same by kernels of this project (matmul.cu), which is what cuda_matmul does
 * where cuBLASLt is not. */
void cuda_matmul_own(struct cuda *c, const struct cuda_matmul *a);

/* cuda_matmul_onto - c += op(a) op(b) in fp32, whatever c's address (alpha, beta and d are not
 * read): gradients of matrices lie behind those of single numbers, on no multiple of 16 bytes. */
void cuda_matmul_onto(struct cuda *c, const struct cuda_matmul *a);

/* Is the card of compute capability 9.0, for which sm_90a is made? */
bool cuda_is_sm90(const struct cuda *c);

/*
 * Attention by attn90.cu, for cards of compute capability 9.0 and programs with code for sm_90a.
 *
 * cuda_attn90_open - decides whether it is used, once the table is filled, and says so: both ways
 * of attention are given the same small task, and it is used when they agree. KERN_ATTN in the
 * environment chooses instead: mma for attn.cu, wgmma for attn90.cu (without the comparison).
 * cuda_attn90_takes - whether it is used for these sizes and addresses; then cuda_attn90_fwd and
 * cuda_attn90_bwd do what kern_attn says or, with `along` (its s) and f (whose attn a is), what
 * kern_attn_xsa says.
 */
bool cuda_attn90_open(struct kern *k);
bool cuda_attn90_takes(const struct cuda *c, const struct kern_attn *a);
void cuda_attn90_fwd(struct cuda *c, const struct kern_attn *a, float *along);
void cuda_attn90_bwd(struct cuda *c, const struct kern_attn *a, const struct kern_attn_xsa *f);

/* The first pass of the backward of kern_attn_xsa: do_, its part of dv, and stat (attn_xsa.cu). */
void cuda_attn_xsa_part(struct cuda *c, const struct kern_attn_xsa *f, float *stat, size_t tiles);

/*
 * The products around an MLP's activation by mlp90.cu, under the same conditions.
 *
 *   forward    u = x w^T, y = LeakyReLU(slope)^2 of u      x [rows][k], w [n][k]; u, y [rows][n]
 *   backward   y = (x w) * f(u)                            x [rows][k], w [k][n]; u, y [rows][n]
 *
 * f(u) is what cuda_act_factor says, of u as it is stored; x w is not rounded before.
 *
 * cuda_mlp90_open - decides whether it is used, once the table is filled, and says so: KERN_MLP in
 * the environment is wgmma, and the results on a small task agree with those of the other way; or
 * it is unchecked.
 *
 * cuda_mlp90_takes - whether it is used for these sizes and addresses.
 */
struct cuda_mlp {
    const bf16 *x, *w;
    bf16 *u, *y;
    size_t rows, n, k;
    float slope;
};
bool cuda_mlp90_open(struct kern *k);
bool cuda_mlp90_takes(const struct cuda *c, const struct cuda_mlp *a);
void cuda_mlp90_fwd(struct cuda *c, const struct cuda_mlp *a);
void cuda_mlp90_bwd(struct cuda *c, const struct cuda_mlp *a);

enum err_code lt_open(struct lt **out, struct err *e);
void lt_close(struct lt *lt);

/* Accepts NULL. Nothing may be queued any more. */
enum err_code queue_open(struct queue **out, struct err *e);
void queue_close(struct queue *q);

/* The entries of struct kern, a file each; every function fills its own. */
void cuda_fill_rows(struct kern *k);
void cuda_fill_elem(struct kern *k);
void cuda_fill_linear(struct kern *k);
void cuda_fill_attn(struct kern *k);
void cuda_fill_head(struct kern *k);
void cuda_fill_slot(struct kern *k);
void cuda_fill_optim(struct kern *k);
void cuda_fill_queue(struct kern *k);
void cuda_fill_train(struct kern *k);
void cuda_fill_update(struct kern *k);
void cuda_fill_combine(struct kern *k);
void cuda_fill_heads(struct kern *k);

/* ---- device functions ---- */

#ifdef __CUDACC__
enum { CUDA_WARP = 32 };

/* The sum over the 32 lanes, in every lane: halving by xor, so all lanes have the same bits. */
static __device__ inline float warp_sum(float x)
{
    for (int h = 16; h; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, h);
    return x;
}

static __device__ inline float warp_max(float x)
{
    for (int h = 16; h; h /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, h));
    return x;
}

/* The same over the four lanes that share a row of a result of mma or wgmma. */
static __device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

static __device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* 1 - b^n by squaring, in double, as on the CPU. */
static __host__ __device__ inline double cuda_bias(double b, size_t n)
{
    double r = 1;
    for (; n; n /= 2, b *= b)
        if (n % 2)
            r *= b;
#ifdef __CUDA_ARCH__
    return __dsub_rn(1, r); /* and no fused multiply-add with the last product */
#else
    return 1 - r;
#endif
}

static __host__ __device__ inline struct cuda_adam cuda_adam(const struct kern_adamw *a, float lr,
                                                             size_t step)
{
    struct cuda_adam r = {lr, (float)(lr / cuda_bias(a->b1, step)),
                          (float)sqrt(cuda_bias(a->b2, step))};
    return r;
}

static __device__ inline void cuda_adamw(const struct kern_adamw *a, size_t i,
                                         const struct cuda_adam *r)
{
    float g = a->g[i], m = fmaf(1 - a->b1, g, a->b1 * a->m[i]);
    float v = fmaf((1 - a->b2) * g, g, a->b2 * a->v[i]);
    a->m[i] = m;
    a->v[i] = v;
    a->p[i] = a->p[i] * (1 - r->lr * a->wd) - r->step * (m / (sqrtf(v) / r->root + a->eps));
}

/* Numbers from one row of v, and of dv, to the next, of a kern_attn or kern_xsa. */
template <typename Args> static __device__ inline size_t v_row(const Args &a)
{
    return (a.kv_heads + (a.joined ? a.heads + a.kv_heads : 0)) * a.head_dim;
}

/* A number of either type as a float, and the way back. */
template <typename T> static __device__ inline float cuda_get(T x)
{
    if constexpr (sizeof(T) == sizeof(float))
        return x;
    else
        return __bfloat162float(x);
}

template <typename T> static __device__ inline void cuda_set(T *to, float v)
{
    if constexpr (sizeof(T) == sizeof(float))
        *to = v;
    else
        *to = __float2bfloat16_rn(v);
}

/* Two numbers as bf16 in a register, x in the lower half. */
static __device__ inline unsigned pack2(float x, float y)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
    return *(unsigned *)&v;
}

/* Of LeakyReLU(slope)^2, with below = 2 slope^2, the derivative f at u; the result is 0.5 f u. */
static __device__ inline float cuda_act_factor(float u, float below)
{
    return (u > 0 ? 2.0f : below) * u;
}

/* The sum over a block of up to 1,024 threads (a multiple of 32), in every thread. May be called
 * again at once: the last step of one call and the first of the next are apart by a barrier. */
static __device__ inline float block_sum(float x)
{
    __shared__ float part[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : 0.0f);
}

static __device__ inline float block_max(float x)
{
    __shared__ float part[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : -INFINITY);
}
#endif

#endif
