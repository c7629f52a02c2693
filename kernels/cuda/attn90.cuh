/*
 * attn90.cuh - what the kernels of attn90.cu and attn90_bwd.cu share: tiles, copies, products, and
 * where results go. attn90.cu says how they work.
 */
#ifndef KERNELS_CUDA_ATTN90_CUH
#define KERNELS_CUDA_ATTN90_CUH

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/wgmma.cuh"

enum { DIM = 64, TILE = 64, GROUPS = 2, ROWS = GROUPS * TILE, THREADS = GROUPS * 4 * CUDA_WARP };
enum { SIZE = TILE * DIM /* numbers of a tile */ };
enum { STAT = 2 * TILE /* of 64 queries: lse * log2(e), then sum of do*o */ };
static_assert(THREADS / 8 == 32, "copy_rows: a thread's rows are 32 apart");

/* Heads of a chunk of the grid: about two blocks for each that an H100 or H200 has room for, at
 * sequences of 2,048; k and v of 4 KV heads and 4 sequences are 8 MB of its 50 MB of cache. */
enum { CHUNK = 32 };

static const float LOG2E = 1.44269504f;

/* What the kernels read, beside struct kern_attn. q and g (do) are [batch][tq][heads][64]; stat is
 * [batch][heads][tiles][STAT]. */
struct operands {
    const bf16 *q, *k, *v, *g;
    const float *stat;
    float *along; /* s of kern_attn_xsa */
    int tiles;    /* of 64 queries */
    int group;    /* heads per KV head */
};

/* Numbers side by side, floats or half values. */
static __device__ inline float2 pair_at(const void *x, size_t at, bool half)
{
    if (!half)
        return *(const float2 *)((const float *)x + at);
    __nv_bfloat162 v = *(const __nv_bfloat162 *)((const bf16 *)x + at);
    return make_float2(__low2float(v), __high2float(v));
}

#ifdef CUDA_WGMMA

/* ---- places ---- */

struct place {
    int group, row, col; /* warpgroup; first row, first column that this lane has of a result */
};

/* The warpgroup is the same in all lanes, and the compiler is to know it. */
static __device__ inline struct place place_of()
{
    int lane = threadIdx.x % CUDA_WARP;
    struct place p;
    p.group = __shfl_sync(0xffffffffu, (int)(threadIdx.x / (THREADS / GROUPS)), 0);
    p.row = threadIdx.x % (THREADS / GROUPS) / CUDA_WARP * 16 + lane / 4;
    p.col = lane % 4 * 2;
    return p;
}

/* What a block of the grid has to do: rows from `turn` * ROWS on, or so far from the end. */
struct block {
    int turn, turns, head, batch;
};

/*
 * Blocks with a low turn are those with much to do. Of each `chunk` heads (whatever their sequence)
 * these come first, so that the last blocks to begin are short; and chunk by chunk, so that what
 * the blocks of a chunk read remains in the cache meanwhile.
 */
static __device__ inline struct block block_of(size_t rows, size_t heads, size_t batch, int chunk)
{
    struct block b;
    b.turns = (int)((rows + ROWS - 1) / ROWS);
    int id = blockIdx.x, first = id / (b.turns * chunk) * chunk, all = (int)(heads * batch);
    int width = all - first < chunk ? all - first : chunk;
    id -= first * b.turns;
    b.turn = id / width;
    b.batch = (first + id % width) / (int)heads;
    b.head = (first + id % width) % (int)heads;
    return b;
}

/* Tiles begin on a multiple of 1,024 bytes: launches ask for that much more. */
static __device__ inline bf16 *tiles_in(char *shared)
{
    return (bf16 *)(shared + (1024 - (uintptr_t)shared % 1024) % 1024);
}

/* What a thread copies of the rows of a head: 8 numbers of every 32nd row. */
struct source {
    const bf16 *at; /* in the next row */
    size_t stride;
    int left; /* rows from there to the end; not above 0 behind it */
};

static __device__ inline struct source source_of(const bf16 *x, size_t stride, int from, int end)
{
    int r = threadIdx.x / 8;
    struct source s;
    s.at = x + (size_t)(from + r) * stride + threadIdx.x % 8 * 8;
    s.stride = stride;
    s.left = end - from - r;
    return s;
}

/* The next N rows into N / 64 tiles; zeros behind the end. */
template <int N> static __device__ inline void copy_rows(bf16 *tile, struct source *s)
{
    bf16 *to = tile + wgmma_place(threadIdx.x / 8, threadIdx.x % 8);
#pragma unroll
    for (int i = 0; i < N; i += 32) {
        copy16(to + i * DIM, s->at, s->left > i);
        s->at += 32 * s->stride;
    }
    s->left -= N;
}

/* All copies that began are done and can be read by everybody's products, and what everybody's
 * products have been waited for can be overwritten. */
static __device__ inline void copies_arrive()
{
    copy_wait<0>();
    copy_publish();
    barrier_anywhere<THREADS>();
}

/* A result, rounded, as the left operand of four products over 16 each. */
static __device__ inline void pack(unsigned p[4][4], const float s[8][4])
{
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[k][i] = pack2(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

/* A warp's 16 rows of a tile, as the left operand of four products over 16 each. */
static __device__ inline void take(unsigned a[4][4], const bf16 *tile)
{
    int lane = threadIdx.x % CUDA_WARP;
    int row = threadIdx.x % (THREADS / GROUPS) / CUDA_WARP * 16 + lane % 16;
#pragma unroll
    for (int k = 0; k < 4; k++)
        ldmatrix(a[k], tile + wgmma_place(row, 2 * k + lane / 16));
}

/* s = a b^T as a group of its own, a from shared memory or from registers. The registers leave more
 * of shared memory's bandwidth: with both operands there, a product of this size takes all of it.
 */
static __device__ inline void product_nt(float s[8][4], wgmma_tile a, wgmma_tile b)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_nt(s, wgmma_cols(a, 16 * k), wgmma_cols(b, 16 * k), k > 0);
    wgmma_commit();
}

static __device__ inline void product_ntr(float s[8][4], const unsigned a[4][4], wgmma_tile b)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_ntr(s, a[k], wgmma_cols(b, 16 * k), k > 0);
    wgmma_commit();
}

/* o += p b as a group of its own. */
static __device__ inline void product_acc(float o[8][4], const unsigned p[4][4], wgmma_tile b)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_acc(o, p[k], wgmma_rows(b, 16 * k));
    wgmma_commit();
}

static __device__ inline void clear(float o[8][4])
{
#pragma unroll
    for (int n = 0; n < 8; n++)
        o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
}

/* Where a kernel's results go: one head's rows, `stride` numbers apart up to row `end`. */
struct target {
    void *y; /* floats or, when `half`, half values */
    size_t head, stride;
    int end;
    bool half, add;
};

/* A group's results, times a factor per row, to rows `row` and `row` + 8. */
static __device__ inline void store(const struct target t, int row, int col, const float o[8][4],
                                    float low, float high)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        size_t at = t.head + (size_t)(row + 8 * i) * t.stride + col;
        float by = i ? high : low;
        if (row + 8 * i >= t.end)
            continue;
#pragma unroll
        for (int n = 0; n < 8; n++, at += 8) {
            float2 v = make_float2(o[n][2 * i] * by, o[n][2 * i + 1] * by);
            if (t.add) {
                float2 was = pair_at(t.y, at, t.half);
                v = make_float2(was.x + v.x, was.y + v.y);
            }
            if (t.half)
                *(unsigned *)((bf16 *)t.y + at) = pack2(v.x, v.y);
            else
                *(float2 *)((float *)t.y + at) = v;
        }
    }
}

/* What a warpgroup of queries from position `at` on sees of the keys: tiles 0 to full - 1 whole,
 * up to mine - 1 in part, none when it has no query (not `live`). `all` is the block's. */
struct sight {
    int full, mine, all;
};

static __device__ inline struct sight sight_of(int at, bool live, int seen)
{
    struct sight s;
    s.all = (seen + TILE - 1) / TILE;
    s.full = live ? (at + 1) / TILE : 0;
    s.mine = live ? (at + TILE - 1) / TILE + 1 : 0;
    s.mine = s.mine < s.all ? s.mine : s.all;
    return s;
}
#endif

/* ---- launching ---- */

/* q, k and v as bf16: where they are, or in *temp, which the caller gives back. False, and a
 * failure recorded, when there is no memory. */
bool attn90_operands(struct cuda *c, const struct kern_attn *a, struct operands *x, bf16 **temp,
                     const char *what);

/* Bytes of shared memory for so many tiles and STATs. */
static inline size_t shared_bytes(int tiles, int stats)
{
    return 1024 + tiles * SIZE * sizeof(bf16) + stats * STAT * sizeof(float);
}

/* As many blocks as block_of finds work for. More than 48 KiB of shared memory has to be asked
 * for. */
template <typename Kernel>
static void launch(struct cuda *c, Kernel kernel, size_t rows, size_t heads, size_t shared,
                   const struct kern_attn *a, const struct operands *x, const char *what)
{
    unsigned grid = cuda_blocks(rows, ROWS) * (unsigned)(heads * a->batch);
    if (!cuda_ok(
            c,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
            what))
        return;
    CUDA_LAUNCH(kernel, grid, THREADS, shared, c->stream, *a, *x);
    cuda_launched(c, what);
}

#endif
