/*
 * attn90_bwd.cu - the backward of attn90.cu: one pass prepares what both kernels read, one makes dk
 * and dv, one dq. Scores are computed again in each.
 */
#include "kernels/cuda/attn90.cuh"

enum { AHEAD = 3 /* tiles of q and do in shared memory, for dk and dv */ };

/* stat, and do as half values in g where it is not that already; 16 lanes per query and head, of
 * whole tiles of queries. A query that does not exist has an infinite lse, which makes its weights
 * 0. */
__global__ static void __launch_bounds__(THREADS)
    prepare_kernel(const struct kern_attn a, bf16 *g, float *stat, int tiles)
{
    size_t unit = (blockIdx.x * (size_t)THREADS + threadIdx.x) / 16, i = threadIdx.x % 16 * 4;
    size_t h = unit % a.heads, row = unit / a.heads, t = row % ((size_t)tiles * TILE);
    size_t b = row / ((size_t)tiles * TILE);
    bool there = b < a.batch && t < a.tq;
    size_t at = ((b * a.tq + t) * a.heads + h) * DIM + i;
    float dot = 0;
    if (there) {
        const some<4> x = get<4>(a.do_, a.half_o, at), y = get<4>(a.o, a.half_o, at);
        dot = fmaf(x.v[0], y.v[0], fmaf(x.v[1], y.v[1], fmaf(x.v[2], y.v[2], x.v[3] * y.v[3])));
        if (!a.half_o)
            put(g, at, x);
    }
    for (int d = 8; d; d /= 2)
        dot += __shfl_xor_sync(0xffffffffu, dot, d);
    if (b < a.batch && i == 0) {
        float *to = stat + ((b * a.heads + h) * tiles + t / TILE) * STAT + t % TILE;
        to[0] = there ? a.lse[(b * a.heads + h) * a.tq + t] * LOG2E : INFINITY;
        to[TILE] = dot;
    }
}

#ifdef CUDA_WGMMA
/* Scores of a tile of keys (rows) and queries (columns) become weights. Of this lane's columns,
 * which begin at col, those from `from` on see its second key, those from `from` - 8 on its first.
 */
template <bool MASK>
static __device__ inline void weights_t(float s[8][4], const float *lse, float scale, int from,
                                        int col)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 by = *(const float2 *)(lse + n * 8 + col);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float w = exp2_approx(fmaf(s[n][i], scale, i % 2 ? -by.y : -by.x));
            s[n][i] = MASK && n * 8 + i % 2 < from - (i < 2 ? 8 : 0) ? 0.0f : w;
        }
    }
}

/* Where the tiles of queries come from that dk, dv goes through: of each head of a group those from
 * `first` on. */
struct queries {
    struct source q, g;
    const float *stat;
    int tile, head;
};

static __device__ inline struct queries
queries_of(const struct kern_attn &a, const struct operands &x, int b, int head, int first)
{
    const size_t from = (b * a.tq * a.heads + head) * DIM;
    struct queries n;
    n.q = source_of(x.q + from, a.heads * DIM, first * TILE, (int)a.tq);
    n.g = source_of(x.g + from, a.heads * DIM, first * TILE, (int)a.tq);
    n.stat = x.stat + ((b * a.heads + head) * x.tiles + first) * STAT + threadIdx.x * 4;
    n.tile = first;
    n.head = head;
    return n;
}

/* Copies the next tile of queries, its do, and its lse and sums. */
static __device__ inline void copy_queries(struct queries *n, const struct kern_attn &a,
                                           const struct operands &x, int b, int first, bf16 *q,
                                           bf16 *g, float *stat)
{
    if (n->tile == x.tiles)
        *n = queries_of(a, x, b, n->head + 1, first);
    copy_rows<TILE>(q, &n->q);
    copy_rows<TILE>(g, &n->g);
    if (threadIdx.x < STAT / 4)
        copy16(stat + threadIdx.x * 4, n->stat, true);
    n->stat += STAT;
    n->tile++;
}

/*
 * dk += ds q and dv += p do for one tile of queries. Left operands are registers: k, v, and p, ds,
 * which products read until the next tile's scores are there. Nothing branches between the first
 * product and the last: where it did, ptxas (12.9 and 13.0) gave the registers of k and v to p and
 * ds, though the next tile needs them.
 *
 * The first warpgroup comes to the round's barrier behind this, the second (LATE) half way, so that
 * it is half a round behind from then on: the exponentials of one stand beside products of the
 * other.
 */
template <bool MASK, bool LATE>
static __device__ inline void dkv_step(float dk[8][4], float dv[8][4], float s[8][4], float t[8][4],
                                       unsigned p[4][4], unsigned ds[4][4], const unsigned k[4][4],
                                       const unsigned v[4][4], wgmma_tile q, wgmma_tile g,
                                       const float *stat, float scale, int from, int col)
{
    wgmma_begin();
    product_ntr(s, k, q);
    product_ntr(t, v, g);
    wgmma_wait<1>();
    wgmma_done(s);
    weights_t<MASK>(s, stat, scale, from, col);
    pack(p, s);
    wgmma_begin();
    product_acc(dv, p, g);
    if (LATE)
        copies_arrive();
    wgmma_wait<1>();
    wgmma_done(t);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 dot = *(const float2 *)(stat + TILE + n * 8 + col);
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] *= t[n][i] - (i % 2 ? dot.y : dot.x);
    }
    pack(ds, s);
    wgmma_begin();
    product_acc(dk, ds, q);
}
#endif

/*
 * dk and dv of ROWS keys of a KV head. Everything is transposed: rows are keys, columns queries.
 * Heads of the group ascending, queries ascending.
 */
__global__ static void __launch_bounds__(THREADS, 1)
    dkv_kernel(const struct kern_attn a, const struct operands x)
{
#ifdef CUDA_WGMMA
    CUDA_DYNAMIC_SHARED(char, shared);
    bf16 *tk = tiles_in(shared), *tv = tk + GROUPS * SIZE, *tq = tv + GROUPS * SIZE;
    bf16 *tg = tq + AHEAD * SIZE;
    float *stats = (float *)(tg + AHEAD * SIZE);
    const struct place at = place_of();
    const struct block block = block_of(a.tk, a.kv_heads, a.batch, CHUNK / 2);
    int key = block.turn * ROWS, head = block.head * x.group, b = block.batch;
    int tk_end = (int)a.tk, q0 = (int)a.q0, mine = key + at.group * TILE;
    size_t kv_stride = a.kv_heads * DIM, kv = b * a.tk * kv_stride + block.head * DIM;
    size_t v_stride = v_row(a), at_v = b * a.tk * v_stride + block.head * DIM;
    /* Tiles of queries before `first` see none of the keys. */
    const int first = key > q0 ? (key - q0) / TILE : 0;
    const int rounds = x.tiles > first ? (x.tiles - first) * x.group : 0;
    const float scale = a.scale * LOG2E;
    float dk[8][4], dv[8][4], s[8][4], t[8][4];
    unsigned k[4][4], v[4][4], p[4][4], ds[4][4];
    struct source from_k = source_of(x.k + kv, kv_stride, key, tk_end);
    struct source from_v = source_of(x.v + at_v, v_stride, key, tk_end);
    struct queries next = queries_of(a, x, b, head, first);
    copy_rows<ROWS>(tk, &from_k);
    copy_rows<ROWS>(tv, &from_v);
    if (rounds)
        copy_queries(&next, a, x, b, first, tq, tg, stats);
    copy_commit();
    clear(dk);
    clear(dv);
    copies_arrive();
    take(k, tk + at.group * SIZE);
    take(v, tv + at.group * SIZE);
    for (int round = 0, slot = 0, j = first; round < rounds; round++) {
        const int free = slot + 1 == AHEAD ? 0 : slot + 1;
        const wgmma_tile q = wgmma_rows(wgmma_of(tq), TILE * slot);
        const wgmma_tile g = wgmma_rows(wgmma_of(tg), TILE * slot);
        const float *stat = stats + STAT * slot;
        int ahead = mine - q0 - j * TILE; /* of the tile's first query, the first key */
        /* The place of the tile before the last, whose products everybody has waited for in the
         * round before. */
        if (round + 1 < rounds)
            copy_queries(&next, a, x, b, first, tq + SIZE * free, tg + SIZE * free,
                         stats + STAT * free);
        copy_commit();
        const bool mask = ahead + TILE - 1 > 0;
        if (mine < tk_end && ahead < TILE) {
            const int from = ahead + at.row + 8 - at.col;
            if (at.group == 0 && mask)
                dkv_step<true, false>(dk, dv, s, t, p, ds, k, v, q, g, stat, scale, from, at.col);
            else if (at.group == 0)
                dkv_step<false, false>(dk, dv, s, t, p, ds, k, v, q, g, stat, scale, from, at.col);
            else if (mask)
                dkv_step<true, true>(dk, dv, s, t, p, ds, k, v, q, g, stat, scale, from, at.col);
            else
                dkv_step<false, true>(dk, dv, s, t, p, ds, k, v, q, g, stat, scale, from, at.col);
            if (at.group == 0)
                copies_arrive();
        } else { /* no key, or none that a query of the tile sees */
            wgmma_wait<0>();
            copies_arrive();
        }
        slot = free;
        j = j + 1 == x.tiles ? first : j + 1;
    }
    wgmma_wait<0>();
    wgmma_done(dk);
    wgmma_done(dv);
    store({a.dk, kv, kv_stride, tk_end, a.half_dqk, false}, mine + at.row, at.col, dk, a.scale,
          a.scale);
    store({a.dv, at_v, v_stride, tk_end, a.half_dv, a.add_dv}, mine + at.row, at.col, dv, 1, 1);
#endif
}

#ifdef CUDA_WGMMA
/* dq += ds k for one tile of keys; lse and dot are of this lane's two rows. */
template <bool MASK>
static __device__ inline void dq_step(float dq[8][4], const float lse[2], const float dot[2],
                                      const int last[2], wgmma_tile q, wgmma_tile g, wgmma_tile k,
                                      wgmma_tile v, float scale, int key)
{
    float s[8][4], t[8][4];
    unsigned ds[4][4];
    wgmma_begin();
    product_nt(s, q, k);
    product_nt(t, g, v);
    wgmma_wait<1>();
    wgmma_done(s);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float w = exp2_approx(fmaf(s[n][i], scale, -lse[i / 2]));
            s[n][i] = MASK && n * 8 + i % 2 > last[i / 2] - key ? 0.0f : w;
        }
    wgmma_wait<0>();
    wgmma_done(t);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] *= t[n][i] - dot[i / 2];
    pack(ds, s);
    wgmma_begin();
    product_acc(dq, ds, k);
    wgmma_wait<0>();
    wgmma_done(dq);
}
#endif

/* dq of ROWS queries of a head, keys ascending. */
__global__ static void __launch_bounds__(THREADS, 2)
    dq_kernel(const struct kern_attn a, const struct operands x)
{
#ifdef CUDA_WGMMA
    CUDA_DYNAMIC_SHARED(char, shared);
    bf16 *tq = tiles_in(shared), *tg = tq + GROUPS * SIZE, *tk = tg + GROUPS * SIZE;
    bf16 *tv = tk + 2 * SIZE;
    const struct place at = place_of();
    const struct block block = block_of(a.tq, a.heads, a.batch, CHUNK);
    int j0 = (block.turns - 1 - block.turn) * ROWS, h = block.head, b = block.batch;
    int tq_end = (int)a.tq, tk_end = (int)a.tk, q0 = (int)a.q0, mine_j = j0 + at.group * TILE;
    size_t stride = a.heads * DIM, kv_stride = a.kv_heads * DIM, v_stride = v_row(a);
    const size_t head = b * a.tq * stride + h * DIM;
    const size_t of_kv = h / x.group * DIM, kv = b * a.tk * kv_stride + of_kv;
    const struct sight see =
        sight_of(q0 + mine_j, mine_j < tq_end, q0 + (j0 + ROWS < tq_end ? j0 + ROWS : tq_end));
    const float scale = a.scale * LOG2E;
    const wgmma_tile q = wgmma_of(tq + at.group * SIZE), g = wgmma_of(tg + at.group * SIZE);
    const wgmma_tile dk = wgmma_of(tk), dv = wgmma_of(tv);
    float dq[8][4], lse[2], dot[2];
    int last[2];
    struct source from_q = source_of(x.q + head, stride, j0, tq_end);
    struct source from_g = source_of(x.g + head, stride, j0, tq_end);
    struct source from_k = source_of(x.k + kv, kv_stride, 0, tk_end);
    struct source from_v = source_of(x.v + b * a.tk * v_stride + of_kv, v_stride, 0, tk_end);
    copy_rows<ROWS>(tq, &from_q);
    copy_rows<ROWS>(tg, &from_g);
    copy_rows<TILE>(tk, &from_k);
    copy_rows<TILE>(tv, &from_v);
    copy_commit();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float *stat = x.stat + ((b * a.heads + h) * x.tiles + mine_j / TILE) * STAT;
        lse[i] = see.mine ? stat[at.row + 8 * i] : 0;
        dot[i] = see.mine ? stat[TILE + at.row + 8 * i] : 0;
        last[i] = q0 + mine_j + at.row + 8 * i - at.col;
    }
    clear(dq);
    for (int j = 0; j < see.all; j++) {
        int odd = j & 1;
        copies_arrive();
        if (j + 1 < see.all) {
            copy_rows<TILE>(tk + SIZE * !odd, &from_k);
            copy_rows<TILE>(tv + SIZE * !odd, &from_v);
        }
        copy_commit();
        const wgmma_tile key = wgmma_rows(dk, TILE * odd), value = wgmma_rows(dv, TILE * odd);
        if (j < see.full)
            dq_step<false>(dq, lse, dot, last, q, g, key, value, scale, j * TILE);
        else if (j < see.mine)
            dq_step<true>(dq, lse, dot, last, q, g, key, value, scale, j * TILE);
    }
    if (see.mine)
        store({a.dq, head, stride, tq_end, a.half_dqk, false}, mine_j + at.row, at.col, dq, a.scale,
              a.scale);
#endif
}

void cuda_attn90_bwd(struct cuda *c, const struct kern_attn *a, const struct kern_attn_xsa *f)
{
    struct kern_attn mine = *a;
    struct operands x;
    bf16 *temp, *g = NULL;
    float *stat = NULL;
    size_t queries = a->batch * a->heads * cuda_blocks(a->tq, TILE) * TILE;
    if (attn90_operands(c, a, &x, &temp, "attn_bwd") &&
        (g = cuda_temp<bf16>(c, a->half_o ? 0 : a->batch * a->tq * a->heads * DIM, "attn_bwd")) &&
        (stat = cuda_temp<float>(c, queries * 2, "attn_bwd"))) {
        x.stat = stat;
        if (f) {
            cuda_attn_xsa_part(c, f, stat, (size_t)x.tiles);
            x.g = (const bf16 *)f->do_;
            mine.add_dv = true;
        } else {
            x.g = a->half_o ? (const bf16 *)a->do_ : g;
            CUDA_LAUNCH(prepare_kernel, cuda_blocks(queries, THREADS / 16), THREADS, 0, c->stream,
                        *a, g, stat, x.tiles);
            cuda_launched(c, "attn_bwd");
        }
        launch(c, dkv_kernel, a->tk, a->kv_heads, shared_bytes(2 * GROUPS + 2 * AHEAD, AHEAD),
               &mine, &x, "attn_bwd");
        launch(c, dq_kernel, a->tq, a->heads, shared_bytes(2 * GROUPS + 4, 0), &mine, &x,
               "attn_bwd");
    }
    cuda_done(c, stat);
    cuda_done(c, g);
    cuda_done(c, temp);
}
