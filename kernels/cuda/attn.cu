/*
 * attn.cu - causal attention with grouped KV heads: flash attention with tensor cores.
 *
 * The method is FlashAttention-2's (Dao, arXiv 2307.08691): a block of queries meets blocks of 64
 * keys with a running maximum and sum; the backward computes scores again. A block of the grid is
 * four warps; a warp owns 16 rows of every tile, so that softmax needs four lanes only. dq has a
 * kernel of its own (seven products instead of five): no atomics, one fixed order. Operands are
 * bf16, all sums fp32. Heads of up to 64 or 128 numbers; shorter ones are padded with zeros.
 * Where attn90.cu is used it takes heads of 64.
 *
 * Tiles lie in shared memory row by row as [row][DIM + 8]: the 16 bytes beside each row put the
 * eight rows of a matrix that ldmatrix reads into different banks.
 *
 * Two results of mma side by side are, rounded to bf16, the 16 x 16 left operand of the next
 * product (device.cuh has the places of a matrix that each lane holds).
 */
#include "kernels/cuda/attn_xsa.cuh"

enum { KEYS = 64, ROWS = 64, WARPS = 4, THREADS = WARPS * CUDA_WARP, PAD = 8 };

/* Where a lane points for a 16 x 16 piece at (row, col): as left operand, and as right operand
 * stored [k][n] (read transposed). */
template <int LD> static __device__ inline const bf16 *piece(const bf16 *tile, int row, int col)
{
    int lane = threadIdx.x % CUDA_WARP;
    return tile + (row + lane % 16) * LD + col + lane / 16 * 8;
}

/* As right operand stored [n][k]: 16 columns n, 16 of k. */
template <int LD> static __device__ inline const bf16 *piece_nk(const bf16 *tile, int n, int k)
{
    int lane = threadIdx.x % CUDA_WARP;
    return tile + (n + lane % 8 + lane / 16 * 8) * LD + k + lane / 8 % 2 * 8;
}

/* s[16 x N] = a[16 rows from `row`][DIM] b[N][DIM]^T, both tiles in shared memory. */
template <int DIM, int N>
static __device__ inline void product_nt(float s[N / 8][4], const bf16 *a, int row, const bf16 *b)
{
    constexpr int LD = DIM + PAD;
#pragma unroll
    for (int n = 0; n < N / 8; n++)
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int k = 0; k < DIM; k += 16) {
        unsigned x[4], y[4];
        ldmatrix(x, piece<LD>(a, row, k));
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            ldmatrix(y, piece_nk<LD>(b, n, k));
            mma(s[n / 8], x, y[0], y[1]);
            mma(s[n / 8 + 1], x, y[2], y[3]);
        }
    }
}

/* o[16 x DIM] += p[16 x K] b[K][DIM], p being results of mma, b a tile in shared memory. */
template <int DIM, int K>
static __device__ inline void product_acc(float o[DIM / 8][4], const float p[K / 8][4],
                                          const bf16 *b)
{
    constexpr int LD = DIM + PAD;
#pragma unroll
    for (int k = 0; k < K; k += 16) {
        const float *l = p[k / 8], *r = p[k / 8 + 1];
        unsigned x[4] = {pack2(l[0], l[1]), pack2(l[2], l[3]), pack2(r[0], r[1]),
                         pack2(r[2], r[3])};
#pragma unroll
        for (int n = 0; n < DIM; n += 16) {
            unsigned y[4];
            ldmatrix_trans(y, piece<LD>(b, k, n));
            mma(o[n / 8], x, y[0], y[1]);
            mma(o[n / 8 + 1], x, y[2], y[3]);
        }
    }
}

#ifdef CUDA_RUNNER /* scores only */
static const bool HALVES = false;
#else
static const bool HALVES = true;
#endif

/* tile[N][DIM] = rows from..from+N of one head, as bf16; zeros behind row `end` and column dim. x
 * is fp32, or a half value; `first` is the head's first number in it. */
template <int DIM, int N>
static __device__ inline void load_tile(bf16 *tile, const float *x, bool half, size_t first,
                                        size_t stride, size_t from, size_t end, size_t dim)
{
    constexpr int LD = DIM + PAD;
    if (HALVES && half) {
        const bf16 *y = (const bf16 *)x + first;
        int each = dim % 8 ? 1 : 8;
        for (int i = threadIdx.x * each; i < N * DIM; i += THREADS * each) {
            int r = i / DIM, d = i % DIM;
            bool there = from + r < end && d < (int)dim;
            const bf16 *at = y + (from + r) * stride + d;
            if (each == 8)
                *(uint4 *)(tile + r * LD + d) = there ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
            else
                tile[r * LD + d] = there ? *at : __float2bfloat16_rn(0);
        }
        return;
    }
    x += first;
    if (dim % 4 == 0) {
        for (int i = threadIdx.x; i < N * DIM / 4; i += THREADS) {
            int r = i / (DIM / 4), d = i % (DIM / 4) * 4;
            float4 v = {0, 0, 0, 0};
            if (from + r < end && d < (int)dim)
                v = *(const float4 *)(x + (from + r) * stride + d);
            unsigned *to = (unsigned *)(tile + r * LD + d);
            to[0] = pack2(v.x, v.y);
            to[1] = pack2(v.z, v.w);
        }
        return;
    }
    for (int i = threadIdx.x; i < N * DIM; i += THREADS) {
        int r = i / DIM, d = i % DIM;
        bool there = from + r < end && d < (int)dim;
        tile[r * LD + d] = __float2bfloat16_rn(there ? x[(from + r) * stride + d] : 0.0f);
    }
}

/* The 16 x DIM results of a warp, times a factor per half, to the rows of one head of y, which is
 * fp32 or a half value. */
template <int DIM>
static __device__ inline void store_rows(float *y, bool half, size_t first, size_t stride,
                                         size_t row, size_t end, size_t dim,
                                         const float o[DIM / 8][4], float low, float high, bool add)
{
    int lane = threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int n = 0; n < DIM / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            size_t r = row + lane / 4 + i / 2 * 8, d = n * 8 + lane % 4 * 2 + i % 2;
            if (r >= end || d >= dim)
                continue;
            float v = o[n][i] * (i < 2 ? low : high);
            if (HALVES && half) {
                bf16 *to = (bf16 *)y + first + r * stride + d;
                *to = __float2bfloat16_rn(add ? __bfloat162float(*to) + v : v);
            } else {
                float *to = y + first + r * stride + d;
                *to = add ? *to + v : v;
            }
        }
}

static __device__ inline size_t stride_v(const kern_attn &a)
{
    return HALVES ? v_row(a) : a.kv_heads * a.head_dim;
}

static const float LOG2E = 1.44269504f;

/* ---- forward: a block of the grid has ROWS queries of one head; long ones first ---- */

/* XSA: as kern_attn_xsa says. The block's last keys are at its own positions then, so their values
 * lie in shared memory. */
template <int DIM, bool XSA> static __device__ inline void attend(const kern_attn &a, float *along)
{
    static_assert(ROWS == KEYS, "the last tile of values is the queries' own");
    CUDA_DYNAMIC_SHARED(bf16, tiles);
    constexpr int LD = DIM + PAD;
    bf16 *tq = tiles, *tk = tq + ROWS * LD, *tv = tk + KEYS * LD;
    size_t j0 = (gridDim.x - 1 - blockIdx.x) * (size_t)ROWS, h = blockIdx.y, b = blockIdx.z;
    size_t stride = a.heads * a.head_dim, kv_stride = a.kv_heads * a.head_dim;
    size_t kv = b * a.tk * kv_stride + h / (a.heads / a.kv_heads) * a.head_dim;
    size_t v_stride = stride_v(a), v = kv + b * a.tk * (v_stride - kv_stride);
    size_t head = b * a.tq * stride + h * a.head_dim;
    int lane = threadIdx.x % CUDA_WARP, row = threadIdx.x / CUDA_WARP * 16;
    float o[DIM / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    const float scale = a.scale * LOG2E;
    size_t rows = j0 + ROWS < a.tq ? j0 + ROWS : a.tq, seen = a.q0 + rows;
    load_tile<DIM, ROWS>(tq, a.q, a.half, head, stride, j0, a.tq, a.head_dim);
    for (size_t key = 0; key < seen; key += KEYS) {
        float s[KEYS / 8][4];
        __syncthreads();
        load_tile<DIM, KEYS>(tk, a.k, a.half, kv, kv_stride, key, a.tk, a.head_dim);
        load_tile<DIM, KEYS>(tv, a.v, a.half, v, v_stride, key, a.tk, a.head_dim);
        __syncthreads();
        product_nt<DIM, KEYS>(s, tq, row, tk);
        float top[2] = {-INFINITY, -INFINITY}, fade[2], sum[2] = {0, 0};
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                size_t at = a.q0 + j0 + row + lane / 4 + i / 2 * 8;
                s[n][i] = key + n * 8 + lane % 4 * 2 + i % 2 <= at ? s[n][i] * scale : -INFINITY;
                top[i / 2] = fmaxf(top[i / 2], s[n][i]);
            }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            /* A row sees at least key 0, so its maximum is finite from the first block on. */
            float now = fmaxf(m[i], quad_max(top[i]));
            fade[i] = exp2f(m[i] - now);
            m[i] = now;
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2f(s[n][i] - m[i / 2]);
                sum[i / 2] += s[n][i];
            }
#pragma unroll
        for (int i = 0; i < 2; i++)
            l[i] = fmaf(l[i], fade[i], quad_sum(sum[i]));
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[n][i] *= fade[i / 2];
        product_acc<DIM, KEYS>(o, s, tv);
    }
    float by[2] = {1.0f / l[0], 1.0f / l[1]};
    if (XSA) {
        float part[2];
        xsa_leave<DIM / 8>(o, by, part, [=](int i, int n) {
            const bf16 *at = tv + (row + lane / 4 + i * 8) * LD + n * 8 + lane % 4 * 2;
            const __nv_bfloat162 v = *(const __nv_bfloat162 *)at;
            return make_float2(__low2float(v), __high2float(v));
        });
        for (int i = 0; lane % 4 == 0 && i < 2; i++) {
            size_t r = j0 + row + lane / 4 + i * 8;
            if (r < a.tq)
                along[(b * a.tq + r) * a.heads + h] = part[i];
        }
        by[0] = by[1] = 1;
    }
    store_rows<DIM>(a.o, a.half_o, head, stride, j0 + row, a.tq, a.head_dim, o, by[0], by[1],
                    false);
    for (int i = 0; a.lse && lane % 4 == 0 && i < 2; i++) {
        size_t r = j0 + row + lane / 4 + i * 8;
        if (r < a.tq)
            a.lse[(b * a.heads + h) * a.tq + r] = (m[i] + log2f(l[i])) / LOG2E;
    }
}

template <int DIM> __global__ static void __launch_bounds__(THREADS) fwd_kernel(const kern_attn a)
{
    attend<DIM, false>(a, nullptr);
}

template <int DIM>
__global__ static void __launch_bounds__(THREADS) exclusive_kernel(const kern_attn a, float *along)
{
    attend<DIM, true>(a, along);
}

/* ---- backward ---- */

/* d[batch][heads][tq] = sum of do*o; a warp per row and head. */
__global__ static void dot_kernel(const kern_attn a, float *d)
{
    size_t unit = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) / CUDA_WARP;
    if (unit >= a.batch * a.tq * a.heads)
        return;
    size_t h = unit % a.heads, row = unit / a.heads, b = row / a.tq;
    float s = 0;
    for (size_t i = threadIdx.x % CUDA_WARP; i < a.head_dim; i += CUDA_WARP) {
        size_t at = unit * a.head_dim + i;
        if (HALVES && a.half_o)
            s = fmaf(__bfloat162float(((const bf16 *)a.do_)[at]),
                     __bfloat162float(((const bf16 *)a.o)[at]), s);
        else
            s = fmaf(a.do_[at], a.o[at], s);
    }
    s = warp_sum(s);
    if (threadIdx.x % CUDA_WARP == 0)
        d[(b * a.heads + h) * a.tq + row % a.tq] = s;
}

/*
 * dk and dv of 64 keys of a KV head. Everything is transposed: a warp's rows are keys, columns are
 * QB queries. Heads of the group ascending, queries ascending.
 */
template <int DIM, int QB>
__global__ static void __launch_bounds__(THREADS) dkv_kernel(const kern_attn a, const float *dot)
{
    CUDA_DYNAMIC_SHARED(bf16, tiles);
    constexpr int LD = DIM + PAD;
    __shared__ float lse[QB], d[QB];
    bf16 *tk = tiles, *tv = tk + KEYS * LD, *tq = tv + KEYS * LD, *tg = tq + QB * LD;
    size_t key = blockIdx.x * (size_t)KEYS, g = blockIdx.y, b = blockIdx.z;
    size_t stride = a.heads * a.head_dim, kv_stride = a.kv_heads * a.head_dim;
    size_t kv = b * a.tk * kv_stride + g * a.head_dim, group = a.heads / a.kv_heads;
    size_t v_stride = stride_v(a), v = kv + b * a.tk * (v_stride - kv_stride);
    int lane = threadIdx.x % CUDA_WARP, row = threadIdx.x / CUDA_WARP * 16;
    float dk[DIM / 8][4] = {}, dv[DIM / 8][4] = {};
    const float scale = a.scale * LOG2E;
    load_tile<DIM, KEYS>(tk, a.k, a.half, kv, kv_stride, key, a.tk, a.head_dim);
    load_tile<DIM, KEYS>(tv, a.v, a.half, v, v_stride, key, a.tk, a.head_dim);
    size_t first = key > a.q0 ? (key - a.q0) / QB * QB : 0; /* earlier queries see none of them */
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        size_t head = b * a.tq * stride + h * a.head_dim, per = (b * a.heads + h) * a.tq;
        for (size_t j0 = first; j0 < a.tq; j0 += QB) {
            float s[QB / 8][4], t[QB / 8][4];
            __syncthreads();
            load_tile<DIM, QB>(tq, a.q, a.half, head, stride, j0, a.tq, a.head_dim);
            load_tile<DIM, QB>(tg, a.do_, a.half_o, head, stride, j0, a.tq, a.head_dim);
            for (int i = threadIdx.x; i < QB; i += THREADS) {
                /* exp2(s - inf) = 0 for queries that do not exist */
                lse[i] = j0 + i < a.tq ? a.lse[per + j0 + i] * LOG2E : INFINITY;
                d[i] = j0 + i < a.tq ? dot[per + j0 + i] : 0.0f;
            }
            __syncthreads();
            product_nt<DIM, QB>(s, tk, row, tq);
            product_nt<DIM, QB>(t, tv, row, tg);
#pragma unroll
            for (int n = 0; n < QB / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int q = n * 8 + lane % 4 * 2 + i % 2;
                    bool sees = key + row + lane / 4 + i / 2 * 8 <= a.q0 + j0 + q;
                    s[n][i] = sees ? exp2f(s[n][i] * scale - lse[q]) : 0.0f;
                    t[n][i] = s[n][i] * (t[n][i] - d[q]) * a.scale;
                }
            product_acc<DIM, QB>(dv, s, tg);
            product_acc<DIM, QB>(dk, t, tq);
        }
    }
    store_rows<DIM>(a.dk, a.half_dqk, kv, kv_stride, key + row, a.tk, a.head_dim, dk, 1, 1, false);
    /* Said in another way than v_stride, which would take registers all the time. */
    size_t wider = a.joined ? stride + kv_stride : 0;
    store_rows<DIM>(a.dv, a.half_dv, kv + b * a.tk * wider, kv_stride + wider, key + row, a.tk,
                    a.head_dim, dv, 1, 1, a.add_dv);
}

/* dq of ROWS queries of a head, keys ascending. */
template <int DIM>
__global__ static void __launch_bounds__(THREADS) dq_kernel(const kern_attn a, const float *dot)
{
    CUDA_DYNAMIC_SHARED(bf16, tiles);
    constexpr int LD = DIM + PAD;
    bf16 *tq = tiles, *tg = tq + ROWS * LD, *tk = tg + ROWS * LD, *tv = tk + KEYS * LD;
    size_t j0 = (gridDim.x - 1 - blockIdx.x) * (size_t)ROWS, h = blockIdx.y, b = blockIdx.z;
    size_t stride = a.heads * a.head_dim, kv_stride = a.kv_heads * a.head_dim;
    size_t kv = b * a.tk * kv_stride + h / (a.heads / a.kv_heads) * a.head_dim;
    size_t v_stride = stride_v(a), v = kv + b * a.tk * (v_stride - kv_stride);
    size_t head = b * a.tq * stride + h * a.head_dim, per = (b * a.heads + h) * a.tq;
    int lane = threadIdx.x % CUDA_WARP, row = threadIdx.x / CUDA_WARP * 16;
    float dq[DIM / 8][4] = {}, lse[2], d[2];
    const float scale = a.scale * LOG2E;
    for (int i = 0; i < 2; i++) {
        size_t r = j0 + row + lane / 4 + i * 8;
        lse[i] = r < a.tq ? a.lse[per + r] * LOG2E : INFINITY;
        d[i] = r < a.tq ? dot[per + r] : 0.0f;
    }
    load_tile<DIM, ROWS>(tq, a.q, a.half, head, stride, j0, a.tq, a.head_dim);
    load_tile<DIM, ROWS>(tg, a.do_, a.half_o, head, stride, j0, a.tq, a.head_dim);
    size_t rows = j0 + ROWS < a.tq ? j0 + ROWS : a.tq, seen = a.q0 + rows;
    for (size_t key = 0; key < seen; key += KEYS) {
        float s[KEYS / 8][4], t[KEYS / 8][4];
        __syncthreads();
        load_tile<DIM, KEYS>(tk, a.k, a.half, kv, kv_stride, key, a.tk, a.head_dim);
        load_tile<DIM, KEYS>(tv, a.v, a.half, v, v_stride, key, a.tk, a.head_dim);
        __syncthreads();
        product_nt<DIM, KEYS>(s, tq, row, tk);
        product_nt<DIM, KEYS>(t, tg, row, tv);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                size_t at = a.q0 + j0 + row + lane / 4 + i / 2 * 8;
                bool sees = key + n * 8 + lane % 4 * 2 + i % 2 <= at;
                float p = sees ? exp2f(s[n][i] * scale - lse[i / 2]) : 0.0f;
                t[n][i] = p * (t[n][i] - d[i / 2]) * a.scale;
            }
        product_acc<DIM, KEYS>(dq, t, tk);
    }
    store_rows<DIM>(a.dq, a.half_dqk, head, stride, j0 + row, a.tq, a.head_dim, dq, 1, 1, false);
}

/* ---- launching ---- */

static size_t tile_bytes(size_t rows, size_t dim)
{
    return rows * (dim + PAD) * sizeof(bf16);
}

/* More than 48 KiB of shared memory has to be asked for. */
template <typename Kernel>
static bool with_shared(struct cuda *c, Kernel kernel, size_t bytes, const char *what)
{
    return cuda_ok(
        c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        what);
}

/* along: s of kern_attn_xsa, or NULL for attention alone. */
template <int DIM> static void fwd(struct cuda *c, const struct kern_attn *a, float *along)
{
    size_t shared = tile_bytes(ROWS + 2 * KEYS, DIM);
    dim3 grid(cuda_blocks(a->tq, ROWS), (unsigned)a->heads, (unsigned)a->batch);
    if constexpr (HALVES)
        if (along && with_shared(c, exclusive_kernel<DIM>, shared, "attn_xsa_fwd"))
            CUDA_LAUNCH(exclusive_kernel<DIM>, grid, THREADS, shared, c->stream, *a, along);
    if (!along && with_shared(c, fwd_kernel<DIM>, shared, "attn_fwd"))
        CUDA_LAUNCH(fwd_kernel<DIM>, grid, THREADS, shared, c->stream, *a);
    cuda_launched(c, "attn_fwd");
}

/* With `f`, which is a's, XSA is behind attention. */
template <int DIM, int QB>
static void bwd(struct cuda *c, struct kern_attn a, const struct kern_attn_xsa *f)
{
    size_t shared_kv = tile_bytes(2 * KEYS + 2 * QB, DIM);
    size_t shared_q = tile_bytes(2 * ROWS + 2 * KEYS, DIM), units = a.batch * a.tq * a.heads;
    dim3 grid_kv(cuda_blocks(a.tk, KEYS), (unsigned)a.kv_heads, (unsigned)a.batch);
    dim3 grid_q(cuda_blocks(a.tq, ROWS), (unsigned)a.heads, (unsigned)a.batch);
    if (!with_shared(c, dkv_kernel<DIM, QB>, shared_kv, "attn_bwd") ||
        !with_shared(c, dq_kernel<DIM>, shared_q, "attn_bwd"))
        return;
    float *dot = cuda_temp<float>(c, units, "attn_bwd");
    if (!dot)
        return;
    if (f) {
        cuda_attn_xsa_part(c, f, dot, 0);
        a.do_ = (const float *)f->do_;
        a.add_dv = true;
    } else {
        CUDA_LAUNCH(dot_kernel, cuda_blocks(units, 8), 8 * CUDA_WARP, 0, c->stream, a, dot);
        cuda_launched(c, "attn_bwd");
    }
    CUDA_LAUNCH((dkv_kernel<DIM, QB>), grid_kv, THREADS, shared_kv, c->stream, a, dot);
    cuda_launched(c, "attn_bwd");
    CUDA_LAUNCH(dq_kernel<DIM>, grid_q, THREADS, shared_q, c->stream, a, dot);
    cuda_launched(c, "attn_bwd");
    cuda_done(c, dot);
}

static bool fits(struct cuda *c, const struct kern_attn *a)
{
    if (a->head_dim > 128 || a->heads > 65535 || a->batch > 65535)
        err_set(
            &c->failed, ERR_USAGE,
            "CUDA attention: heads of %zu, %zu of them, %zu sequences; at most 128, 65535, 65535",
            a->head_dim, a->heads, a->batch);
    return c->failed.code == ERR_OK && a->batch && a->tq;
}

static void attn_fwd(struct kern *k, const struct kern_attn *a)
{
    struct cuda *c = cuda_of(k);
    if (!fits(c, a))
        return;
    if (cuda_attn90_takes(c, a))
        cuda_attn90_fwd(c, a, NULL);
    else if (a->head_dim <= 64)
        fwd<64>(c, a, NULL);
    else
        fwd<128>(c, a, NULL);
}

static void attn_bwd(struct kern *k, const struct kern_attn *a)
{
    struct cuda *c = cuda_of(k);
    if (!fits(c, a))
        return;
    if (cuda_attn90_takes(c, a))
        cuda_attn90_bwd(c, a, NULL);
    else if (a->head_dim <= 64)
        bwd<64, 64>(c, *a, NULL);
    else
        bwd<128, 32>(c, *a, NULL);
}

static void attn_xsa_fwd(struct kern *k, const struct kern_attn_xsa *f)
{
    struct cuda *c = cuda_of(k);
    const struct kern_attn *a = &f->attn;
    if (!fits(c, a))
        return;
    if (cuda_attn90_takes(c, a))
        cuda_attn90_fwd(c, a, f->s);
    else if (a->head_dim <= 64)
        fwd<64>(c, a, f->s);
    else
        fwd<128>(c, a, f->s);
}

static void attn_xsa_bwd(struct kern *k, const struct kern_attn_xsa *f)
{
    struct cuda *c = cuda_of(k);
    const struct kern_attn *a = &f->attn;
    if (!fits(c, a))
        return;
    if (cuda_attn90_takes(c, a))
        cuda_attn90_bwd(c, a, f);
    else if (a->head_dim <= 64)
        bwd<64, 64>(c, *a, f);
    else
        bwd<128, 32>(c, *a, f);
}

void cuda_fill_attn(struct kern *k)
{
    k->attn_fwd = attn_fwd;
    k->attn_bwd = attn_bwd;
    k->attn_xsa_fwd = attn_xsa_fwd;
    k->attn_xsa_bwd = attn_xsa_bwd;
}
