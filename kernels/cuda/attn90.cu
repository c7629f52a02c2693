/*
 * attn90.cu - causal attention with grouped KV heads of 64 numbers, for sm_90a: wgmma, and copies
 * into shared memory that run beside it (wgmma.cuh). attn.cu is the definition that it must agree
 * with, and does everything else.
 *
 * A block of the grid is two warpgroups; each owns the 64 rows of its results, and both read the
 * tiles of 64 x 64 that stream by, two or three of each in shared memory. One barrier per tile says
 * both that the tile is there and that the one it may replace is done with. Sums are in one fixed
 * order, no atomics: the same bits twice.
 *
 *             rows are   tiles of   products   registers   shared memory   blocks per SM
 *   forward   queries    k, v       2          128         57 KiB          2
 *   dk, dv    keys       q, do      4          240         83 KiB          1
 *   dq        queries    k, v       3          128         65 KiB          2
 *
 * Matrix units and exponentials (16 per clock and SM) take about as long as each other in the
 * forward, so each must run under the other: products of a tile run under the exponentials of the
 * next, two blocks per SM run out of step, and in dk, dv (attn90_bwd.cu), whose results leave no
 * room for a second block, one warpgroup is half a round behind the other.
 *
 * A left operand that stays is in registers, where there are enough: k and v in dk, dv, q in the
 * forward. Scores are scaled inside exp2, ds only at the end, as a factor of dq and dk. Operands
 * are bf16; q, k, v that are not half values are converted first.
 */
#include "kernels/cuda/attn90.cuh"
#include "kernels/cuda/attn_xsa.cuh"

enum { VALUES = 3 /* tiles of v in shared memory; of k there are 2 */ };

#ifdef CUDA_WGMMA

/* Of a lane's two rows: the largest score so far, the sum of this lane's weights, what both must be
 * multiplied by for a new maximum, and the last column that is seen, from tile 0 on. */
struct rows2 {
    float m[2], l[2], fade[2];
    int last[2];
};

/*
 * Scores of a tile become weights. A row that sees nothing of the tile keeps its bits: the maximum
 * stays, fade is 1, weights are 0. Multiplications and sums are said one by one, so that both forms
 * (MASK: some rows do not see all) give a row the same bits.
 */
template <bool MASK>
static __device__ inline void weights(float s[8][4], struct rows2 *r, float scale, int key)
{
    float top[2] = {r->m[0], r->m[1]}, sum[2] = {0, 0}, shift[2];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (MASK && n * 8 + i % 2 > r->last[i / 2] - key)
                s[n][i] = -INFINITY;
            top[i / 2] = fmaxf(top[i / 2], s[n][i]);
        }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        /* A row sees at least key 0, so its maximum is finite from the first tile on. */
        top[i] = quad_max(top[i]);
        r->fade[i] = exp2_approx(__fmul_rn(r->m[i] - top[i], scale));
        r->m[i] = top[i];
        shift[i] = -__fmul_rn(top[i], scale);
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = exp2_approx(fmaf(s[n][i], scale, shift[i / 2]));
            sum[i / 2] = __fadd_rn(sum[i / 2], s[n][i]);
        }
#pragma unroll
    for (int i = 0; i < 2; i++)
        r->l[i] = fmaf(r->l[i], r->fade[i], sum[i]);
}

/* Most tiles bring no new maximum to any row of a warp. */
static __device__ inline void fade(float o[8][4], const struct rows2 *r)
{
    if (!__any_sync(0xffffffffu, r->fade[0] != 1 || r->fade[1] != 1))
        return;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            o[n][i] *= r->fade[i / 2];
}

/* o += p v of a tile begins, and the scores of the next tile become weights. */
template <bool MASK>
static __device__ inline void fwd_step(float o[8][4], float s[8][4], const unsigned p[4][4],
                                       struct rows2 *r, const unsigned q[4][4], wgmma_tile k,
                                       wgmma_tile v, float scale, int key)
{
    wgmma_begin();
    product_ntr(s, q, k);
    product_acc(o, p, v);
    wgmma_wait<1>();
    wgmma_done(s);
    weights<MASK>(s, r, scale, key);
}
#endif

/* XSA: as kern_attn_xsa says. A warpgroup's last keys are at its own positions then, and the tile
 * of their values is still in shared memory: behind it comes at most one more. */
template <bool XSA>
__global__ static void __launch_bounds__(THREADS, 2)
    fwd_kernel(const struct kern_attn a, const struct operands x)
{
#ifdef CUDA_WGMMA
    CUDA_DYNAMIC_SHARED(char, shared);
    bf16 *tq = tiles_in(shared), *tk = tq + GROUPS * SIZE, *tv = tk + 2 * SIZE;
    const struct place at = place_of();
    const struct block block = block_of(a.tq, a.heads, a.batch, CHUNK);
    int j0 = (block.turns - 1 - block.turn) * ROWS, h = block.head, b = block.batch;
    int tq_end = (int)a.tq, tk_end = (int)a.tk, q0 = (int)a.q0, mine_j = j0 + at.group * TILE;
    size_t stride = a.heads * DIM, kv_stride = a.kv_heads * DIM, v_stride = v_row(a);
    const int head = b * (int)(a.tq * a.heads) + h, pair = b * (int)a.heads + h;
    const size_t of_kv = h / x.group * DIM, kv = b * a.tk * kv_stride + of_kv;
    const struct sight see =
        sight_of(q0 + mine_j, mine_j < tq_end, q0 + (j0 + ROWS < tq_end ? j0 + ROWS : tq_end));
    const float scale = a.scale * LOG2E;
    float o[8][4], s[8][4];
    unsigned q[4][4], p[4][4];
    struct rows2 r;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.m[i] = -INFINITY;
        r.l[i] = 0;
        r.last[i] = q0 + mine_j + at.row + 8 * i - at.col;
    }
    clear(o);
    const wgmma_tile k = wgmma_of(tk), v = wgmma_of(tv);
    struct source from_q = source_of(x.q + (size_t)head * DIM, stride, j0, tq_end);
    struct source from_k = source_of(x.k + kv, kv_stride, 0, tk_end);
    struct source from_v = source_of(x.v + b * a.tk * v_stride + of_kv, v_stride, 0, tk_end);
    copy_rows<ROWS>(tq, &from_q);
    copy_rows<TILE>(tk, &from_k);
    copy_commit();
    copies_arrive();
    if (see.all > 1)
        copy_rows<TILE>(tk + SIZE, &from_k);
    copy_rows<TILE>(tv, &from_v);
    copy_commit();
    if (see.mine) {
        take(q, tq + at.group * SIZE);
        wgmma_begin();
        product_ntr(s, q, k);
        wgmma_wait<0>();
        wgmma_done(s);
        weights<true>(s, &r, scale, 0);
    }
    /*
     * Round j: s becomes p, the weights of tile j; the products of p with its values run while the
     * scores of tile j + 1 become weights, and are waited for in the next round. (Here they would
     * be waited for before the exponentials: ptxas moves a wait up as far as its block of code
     * goes.) The copies that begin are those of keys j + 2, where keys j were, and values j + 1,
     * where values j - 2 were, whose products everybody has waited for in round j - 1.
     */
    for (int j = 0, slot = 0; j < see.all; j++) {
        const int next = slot + 1 == VALUES ? 0 : slot + 1;
        copies_arrive();
        if (j + 2 < see.all)
            copy_rows<TILE>(tk + SIZE * (j & 1), &from_k);
        if (j + 1 < see.all)
            copy_rows<TILE>(tv + SIZE * next, &from_v);
        copy_commit();
        if (j < see.mine) {
            wgmma_wait<0>();
            wgmma_done(o);
            fade(o, &r);
            pack(p, s);
            if (j + 1 < see.full) {
                fwd_step<false>(o, s, p, &r, q, wgmma_rows(k, TILE * (~j & 1)),
                                wgmma_rows(v, TILE * slot), scale, (j + 1) * TILE);
            } else if (j + 1 < see.mine) {
                fwd_step<true>(o, s, p, &r, q, wgmma_rows(k, TILE * (~j & 1)),
                               wgmma_rows(v, TILE * slot), scale, (j + 1) * TILE);
            } else {
                wgmma_begin();
                product_acc(o, p, wgmma_rows(v, TILE * slot));
            }
        }
        slot = next;
    }
    wgmma_wait<0>();
    wgmma_done(o);
    if (!see.mine)
        return;
    r.l[0] = quad_sum(r.l[0]);
    r.l[1] = quad_sum(r.l[1]);
    float by[2] = {1 / r.l[0], 1 / r.l[1]}, part[2];
    if (XSA) {
        const bf16 *own = tv + SIZE * ((see.mine - 1) % VALUES) + at.col;
        xsa_leave<8>(o, by, part, [=](int i, int n) {
            return pair_at(own, wgmma_place(at.row + 8 * i, n), true);
        });
        by[0] = by[1] = 1;
    }
    store({a.o, (size_t)head * DIM, stride, tq_end, a.half_o, false}, mine_j + at.row, at.col, o,
          by[0], by[1]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = mine_j + at.row + 8 * i;
        if (at.col || row >= tq_end)
            continue;
        if (XSA)
            x.along[head + row * a.heads] = part[i];
        if (a.lse)
            a.lse[pair * a.tq + row] = (fmaf(r.m[i], scale, log2f(r.l[i]))) * (1 / LOG2E);
    }
#endif
}

/* ---- launching ---- */

/* Copies read 16 bytes at once, sums and stores 8 and 16. */
static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

bool cuda_attn90_takes(const struct cuda *c, const struct kern_attn *a)
{
    const size_t most = (size_t)1 << 30;
    return c->attn90 && a->head_dim == DIM && a->scale > 0 && a->q0 + a->tq <= a->tk &&
           a->tk < most && (a->tk / ROWS + 1) * a->heads * a->batch < most &&
           a->batch * a->tq * a->heads < most && aligned(a->q) && aligned(a->k) && aligned(a->v) &&
           aligned(a->o) && aligned(a->do_) && aligned(a->dq) && aligned(a->dk) && aligned(a->dv);
}

bool attn90_operands(struct cuda *c, const struct kern_attn *a, struct operands *x, bf16 **temp,
                     const char *what)
{
    size_t nq = a->batch * a->tq * a->heads * DIM, nk = a->batch * a->tk * a->kv_heads * DIM;
    *temp = NULL;
    *x = {};
    x->tiles = (int)cuda_blocks(a->tq, TILE);
    x->group = (int)(a->heads / a->kv_heads);
    x->q = (const bf16 *)a->q;
    x->k = (const bf16 *)a->k;
    x->v = (const bf16 *)a->v;
    if (a->half)
        return true;
    bf16 *to = *temp = cuda_temp<bf16>(c, nq + 2 * nk, what);
    if (!to)
        return false;
    cuda_to_bf16(c, to, a->q, nq);
    cuda_to_bf16(c, to + nq, a->k, nk);
    cuda_to_bf16(c, to + nq + nk, a->v, nk);
    x->q = to;
    x->k = to + nq;
    x->v = to + nq + nk;
    return true;
}

void cuda_attn90_fwd(struct cuda *c, const struct kern_attn *a, float *along)
{
    struct operands x;
    bf16 *temp;
    if (!attn90_operands(c, a, &x, &temp, "attn_fwd"))
        return;
    x.along = along;
    launch(c, along ? fwd_kernel<true> : fwd_kernel<false>, a->tq, a->heads,
           shared_bytes(GROUPS + 2 + VALUES, 0), a, &x, "attn_fwd");
    cuda_done(c, temp);
}
