/*
 * mlp90.cu - the two products around the activation of an MLP, for sm_90a, with the activation in
 * them: wgmma, and copies into shared memory that run beside it (wgmma.cuh). train.cu is the
 * definition that they must agree with, and does everything else.
 *
 *   forward    u = x W^T and y = LeakyReLU(slope)^2 of u, both stored: what reads u again is gone
 *   backward   g = (dy W) * f(u): the gradient of y is not stored, nor read again
 *
 * Both are [rows][k] times [n][k], k at most 512 (the model's width) and n the hidden width; for
 * the backward W [k][n] is turned first, 2 MiB beside the 0.9 GB that 98,304 rows move.
 *
 * A block of the grid has 128 rows, at k = 512 others after them, and keeps all of their columns in
 * shared memory; W streams by in tiles of 128 x 64, six places, copied four rounds ahead by warps
 * of its own, and comes from the card's cache. Two warpgroups take turns: one multiplies 128 rows x
 * 128 columns in k / 64 rounds, while the other stores the 128 columns that it has multiplied
 * before. So the matrix units have work while results are written, which takes about as long: a
 * round is one barrier, 8 products of 64 x 128 x 16 for one warpgroup, and for the other an eighth
 * (k = 512) of its results. New rows are copied over the old behind their last products.
 *
 *             registers       shared memory   blocks per SM   read from the cache
 *   k = 512   168 at most     225 KiB         1               16 KiB per 128 x 128 x 64
 *
 * With rows that stream by as well it would be 32 KiB: 64 bytes per clock and SM at the full rate
 * of the matrix units.
 *
 * Rows of W lie in shared memory in an order in which a thread's results are 8 columns side by
 * side: its numbers of row r come in pairs, 8 columns apart, so that column 8 q + 2 i + j of 32 is
 * put where column 8 i + 2 q + j would be. Four lanes then write 64 bytes of a row.
 *
 * Sums are in one fixed order, no atomics: the same bits twice.
 */
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/wgmma.cuh"

enum { ROWS = 128, COLS = 128, STEP = 64 /* of k, in a tile */, SIZE = ROWS * STEP };
enum { AHEAD = 4 /* rounds, and warps that copy */ };
enum { SLOTS = AHEAD + 2 /* the round's own, and the one whose products may go on */ };
enum { GROUPS = 2, THREADS = (GROUPS * 4 + AHEAD) * CUDA_WARP };
enum { SLICES = 8 /* of a warpgroup's results: 64 rows x 32 columns */, EARLY = 2 };
enum { TURN = 32 /* side of a block of turn_kernel */, TURNERS = 256 };
static_assert(ROWS == COLS, "tiles of x and W have one size");

struct job {
    const bf16 *x, *w; /* [rows][k], [tiles * COLS][k] */
    bf16 *u, *y;       /* [rows][tiles * COLS]; the backward reads u, and y is g */
    size_t rows;
    int tiles;
    float below; /* 2 slope^2 */
};

#ifdef CUDA_WGMMA

/* Where row r of 32 of W is put. */
static __device__ inline int turned(int r)
{
    return (r >> 1 & 3) << 3 | (r >> 3) << 1 | (r & 1);
}

/* A tile of results: of the block's own, in the order in which it does them. Blocks that run side
 * by side begin with different columns. */
struct part {
    size_t row0; /* its first row */
    int columns; /* its tile of W */
    bool first;  /* of these rows */
};

static __device__ inline struct part part_of(const struct job &a, int i)
{
    struct part p;
    p.row0 = (blockIdx.x + (size_t)(i / a.tiles) * gridDim.x) * ROWS;
    p.columns = (blockIdx.x + i) % a.tiles;
    p.first = i % a.tiles == 0;
    return p;
}

/* How many there are. */
static __device__ inline int parts_of(const struct job &a)
{
    const int rows = (int)((a.rows + ROWS - 1) / ROWS);
    return (rows - (int)blockIdx.x + (int)gridDim.x - 1) / (int)gridDim.x * a.tiles;
}

/* The tile of W of a round and, where the rows are new, one of x. */
template <int KT>
static __device__ inline void copy_round(const struct job &a, bf16 *tx, bf16 *tw, int round)
{
    const int r = threadIdx.x % CUDA_WARP / 8, column = threadIdx.x % 8, k = round % KT;
    const struct part p = part_of(a, round / KT);
    const bf16 *w = a.w + ((size_t)p.columns * COLS + r) * KT * STEP + k * STEP + column * 8;
    const bf16 *x = a.x + (p.row0 + r) * KT * STEP + k * STEP + column * 8;
    bf16 *to = tw + round % SLOTS * SIZE;
#pragma unroll
    for (int i = 0; i < COLS; i += 4)
        copy16(to + i / 32 * 32 * STEP + wgmma_place(turned(i % 32 + r), column), w + i * KT * STEP,
               true);
#pragma unroll
    for (int i = 0; i < ROWS && p.first; i += 4)
        copy16(tx + k * SIZE + wgmma_place(i + r, column), x + i * KT * STEP,
               p.row0 + r + i < a.rows);
    copy_commit();
}

/* All copies of a block, by AHEAD warps that take turns: a round is copied by the one whose last
 * round has just arrived. So nothing else of its own is under way when it publishes, which might
 * wait for that. */
template <int KT>
static __device__ inline void copy_all(const struct job &a, bf16 *tx, bf16 *tw, int warp)
{
    const int rounds = parts_of(a) * KT;
    if (warp < rounds)
        copy_round<KT>(a, tx, tw, warp);
    for (int i = 0; i < rounds; i++) {
        const bool mine = i % AHEAD == warp;
        if (mine) {
            copy_wait<0>();
            copy_publish();
        }
        barrier_anywhere<THREADS>();
        if (mine && i + AHEAD < rounds)
            copy_round<KT>(a, tx, tw, i + AHEAD);
    }
}

/* A round begins: its tiles are there for everybody's products. What may be copied over from here
 * on are those of the round before the last, whose products everybody has waited for. */
static __device__ inline void round_begin(int *slot)
{
    *slot = *slot + 1 == SLOTS ? 0 : *slot + 1;
    barrier_anywhere<THREADS>();
}

/* d[2] = two times 64 rows of x times a tile's 128 of W. The last round's products are under way on
 * return. */
template <int KT>
static __device__ inline void multiply(float d[2][16][4], int *slot, wgmma_tile x, wgmma_tile w)
{
#pragma unroll
    for (int k = 0; k < KT; k++) {
        round_begin(slot);
        const wgmma_tile a = wgmma_rows(x, k * ROWS), b = wgmma_rows(w, *slot * COLS);
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < STEP; i += 16)
#pragma unroll
            for (int m = 0; m < 2; m++)
                wgmma_nt128(d[m], wgmma_cols(wgmma_rows(a, m * 64), i), wgmma_cols(b, i),
                            k + i > 0);
        wgmma_commit();
        wgmma_wait<1>();
    }
}

/* This lane's part of a warpgroup's results: of slice s, 8 columns of rows `row` + 64 (s / 4) and 8
 * below, from column `col` + 32 (s % 4) on. */
struct corner {
    unsigned at, width; /* of slice 0, from the block's first row on; from row to row */
    int rows;           /* from its first row to the end */
};

static __device__ inline int row_of(int s, int half)
{
    return s / 4 * 64 + half * 8;
}

static __device__ inline unsigned at_of(const struct corner &c, int s, int half)
{
    return c.at + row_of(s, half) * c.width + s % 4 * 32;
}

static __device__ inline float2 two(unsigned word)
{
    __nv_bfloat162 v = *(__nv_bfloat162 *)&word;
    return make_float2(__low2float(v), __high2float(v));
}

/* Two numbers of y, or of g. */
template <bool BACK>
static __device__ inline unsigned made(const float v[4], unsigned u, float below)
{
    const float2 x = two(u);
    const float f0 = cuda_act_factor(x.x, below), f1 = cuda_act_factor(x.y, below);
    return BACK ? pack2(v[0] * f0, v[1] * f1) : pack2(0.5f * f0 * x.x, 0.5f * f1 * x.y);
}

/* u of slice s, for the backward. */
static __device__ inline void load(uint4 u[2], const bf16 *from, const struct corner &c, int s)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (row_of(s, h) < c.rows)
            u[h] = *(const uint4 *)(from + at_of(c, s, h));
}

/* Stores slice s of the results; y and u from the block's first row on. */
template <bool BACK>
static __device__ inline void store(bf16 *y, bf16 *u, float below, const float d[2][16][4],
                                    const uint4 was[2], const struct corner &c, int s)
{
    const float(*v)[4] = &d[s / 4][s % 4 * 4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int i = 2 * h;
        uint4 x = was[h];
        if (!BACK)
            x = make_uint4(pack2(v[0][i], v[0][i + 1]), pack2(v[1][i], v[1][i + 1]),
                           pack2(v[2][i], v[2][i + 1]), pack2(v[3][i], v[3][i + 1]));
        if (row_of(s, h) >= c.rows)
            continue;
        if (!BACK)
            *(uint4 *)(u + at_of(c, s, h)) = x;
        *(uint4 *)(y + at_of(c, s, h)) =
            make_uint4(made<BACK>(v[0] + i, x.x, below), made<BACK>(v[1] + i, x.y, below),
                       made<BACK>(v[2] + i, x.z, below), made<BACK>(v[3] + i, x.w, below));
    }
}

/* Results of a tile, in as many rounds as it has taken to multiply it, if there are `more`: those
 * of the other warpgroup. u is read EARLY slices ahead. */
template <bool BACK, int KT>
static __device__ inline void finish(bf16 *y, bf16 *u, float below, float d[2][16][4], int *slot,
                                     const struct corner &c, bool more)
{
    enum { PER = SLICES / KT };
    uint4 was[SLICES][2] = {};
#pragma unroll
    for (int k = 0; k < KT; k++) {
        if (more)
            round_begin(slot);
        if (k == 0) {
#pragma unroll
            for (int s = 0; BACK && s < EARLY; s++)
                load(was[s], u, c, s);
            wgmma_wait<0>();
            wgmma_done128(d[0]);
            wgmma_done128(d[1]);
        }
#pragma unroll
        for (int s = k * PER; s < k * PER + PER; s++) {
            if (BACK && s + EARLY < SLICES)
                load(was[s + EARLY], u, c, s + EARLY);
            store<BACK>(y, u, below, d, was[s], c, s);
        }
    }
}
#endif

/* k is KT tiles. */
template <bool BACK, int KT>
__global__ static void __launch_bounds__(THREADS, 1) mlp_kernel(const struct job a)
{
#ifdef CUDA_WGMMA
    CUDA_DYNAMIC_SHARED(char, shared);
    bf16 *tx = (bf16 *)(shared + (1024 - (uintptr_t)shared % 1024) % 1024), *tw = tx + KT * SIZE;
    /* The same in all lanes, and the compiler is to know it. */
    const int warp = __shfl_sync(0xffffffffu, (int)(threadIdx.x / CUDA_WARP), 0);
    const int lane = threadIdx.x % CUDA_WARP, group = warp / 4;
    if (group == GROUPS) {
        copy_all<KT>(a, tx, tw, warp % AHEAD);
        return;
    }
    const wgmma_tile x = wgmma_of(tx), w = wgmma_of(tw);
    const unsigned row = warp % 4 * 16 + lane / 4, width = a.tiles * COLS;
    const int parts = parts_of(a);
    int slot = SLOTS - 1;
    float d[2][16][4];
    for (int k = 0; k < KT * group; k++)
        round_begin(&slot);
    for (int i = group; i < parts; i += GROUPS) {
        multiply<KT>(d, &slot, x, w);
        const struct part p = part_of(a, i);
        const size_t left = a.rows - p.row0;
        const struct corner c = {row * width + p.columns * COLS + lane % 4 * 8, width,
                                 (left < ROWS ? (int)left : ROWS) - (int)row};
        finish<BACK, KT>(a.y + p.row0 * width, a.u + p.row0 * width, a.below, d, &slot, c,
                         i + 1 < parts);
    }
#endif
}

/* y[n][k] = x[k][n], both multiples of TURN. */
__global__ static void __launch_bounds__(TURNERS) turn_kernel(bf16 *y, const bf16 *x, int k, int n)
{
    __shared__ bf16 part[TURN][TURN + 2];
    const int k0 = blockIdx.y * TURN, n0 = blockIdx.x * TURN;
    for (int r = threadIdx.x / TURN; r < TURN; r += TURNERS / TURN)
        part[r][threadIdx.x % TURN] = x[(size_t)(k0 + r) * n + n0 + threadIdx.x % TURN];
    __syncthreads();
    for (int r = threadIdx.x / TURN; r < TURN; r += TURNERS / TURN)
        y[(size_t)(n0 + r) * k + k0 + threadIdx.x % TURN] = part[threadIdx.x % TURN][r];
}

/* ---- launching ---- */

/* Copies and stores have 16 bytes. */
static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

bool cuda_mlp90_takes(const struct cuda *c, const struct cuda_mlp *a)
{
    const size_t most = (size_t)1 << 30;
    return c->mlp90 && a->rows && a->rows < most && (a->k == 128 || a->k == 256 || a->k == 512) &&
           a->n && a->n < most / ROWS && a->n % COLS == 0 && aligned(a->x) && aligned(a->w) &&
           aligned(a->u) && aligned(a->y);
}

template <bool BACK, int KT>
static void launch(struct cuda *c, const struct cuda_mlp *a, const bf16 *w, const char *what)
{
    const size_t shared = 1024 + (KT + SLOTS) * SIZE * sizeof(bf16);
    const struct job j = {
        a->x, w, a->u, a->y, a->rows, (int)(a->n / COLS), 2 * a->slope * a->slope};
    if (!cuda_ok(c,
                 cudaFuncSetAttribute((mlp_kernel<BACK, KT>),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                 what))
        return;
    unsigned grid = cuda_blocks(a->rows, ROWS);
    /* A block may copy new rows over the old where these have been waited for by then. */
    if (KT >= AHEAD + 2 && grid > (unsigned)c->sms)
        grid = (unsigned)c->sms;
    CUDA_LAUNCH((mlp_kernel<BACK, KT>), grid, THREADS, shared, c->stream, j);
    cuda_launched(c, what);
}

template <bool BACK>
static void launch(struct cuda *c, const struct cuda_mlp *a, const bf16 *w, const char *what)
{
    if (a->k == 512)
        launch<BACK, 512 / STEP>(c, a, w, what);
    else if (a->k == 256)
        launch<BACK, 256 / STEP>(c, a, w, what);
    else
        launch<BACK, 128 / STEP>(c, a, w, what);
}

void cuda_mlp90_fwd(struct cuda *c, const struct cuda_mlp *a)
{
    launch<false>(c, a, a->w, "linear layer");
}

void cuda_mlp90_bwd(struct cuda *c, const struct cuda_mlp *a)
{
    bf16 *w = cuda_temp<bf16>(c, a->n * a->k, "linear layer");
    if (!w)
        return;
    const dim3 grid((unsigned)(a->n / TURN), (unsigned)(a->k / TURN));
    CUDA_LAUNCH(turn_kernel, grid, TURNERS, 0, c->stream, w, a->w, (int)a->k, (int)a->n);
    cuda_launched(c, "linear layer");
    launch<true>(c, a, w, "linear layer");
    cuda_done(c, w);
}
