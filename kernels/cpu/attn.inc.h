/*
 * attn.inc.h - causal attention with grouped KV heads, forward: tiles, layout, online softmax.
 *
 * The result, which every instruction set, thread count and choice of queries reproduces bit by
 * bit, is for one query at position p and one head: from m = -inf, l = 0, o = 0
 *
 *   for each block of 64 keys that starts at a multiple of 64 and holds a key <= p, ascending:
 *       s_j = scale * (chain over d, ascending, of fma(k_jd, q_d, .))
 *       m'  = max(m, max of s_j over j <= p)
 *       e_j = exp(s_j - m'), exactly 0 for j > p
 *       l   = fma(l, exp(m - m'), sum of e_j by 16 partial sums and halving)
 *       o_d = chain over j, ascending, of fma(e_j, v_jd, .), from o_d * exp(m - m')
 *       m   = m'
 *   o_d = o_d * (1/l) + 0,  lse = m + log(l)
 *
 * The final + 0 turns -0 into 0, after which it cannot be seen whether a masked key took part with
 * e_j = 0 or was skipped (as whole tiles are). That needs finite v; a NaN in v may reach all
 * queries of its block of 64.
 *
 * Layout: a panel is ATTN_NR queries of one head, one per lane. Scores are computed transposed,
 * [key][query], so that the softmax works down the lanes without any shuffle, its result is already
 * the right-hand side of the second product, and the output [d][query] is transposed once at the
 * end. Keys and values are copied to dense rows first: their rows lie kv_heads*head_dim apart,
 * often a power of two, which would put a block of keys into a few sets of the cache.
 */

/*
 * A tile is ATTN_MR x ATTN_NR. Where registers allow 14 rows, 8 are better here: they divide the
 * block of 64 and the usual head sizes, and 16 accumulators hide the latency of fma as well.
 */
enum {
#ifdef KERN_SMALL
    ATTN_MR = TILE_MR, /* the tile of all other products serves here as well */
#else
    ATTN_MR = TILE_MR > 8 ? 8 : TILE_MR,
#endif
    ATTN_NR = TILE_NR,
    ATTN_NV = ATTN_NR / 16,
    ATTN_KEYS = 64,
    ATTN_ROWS = (ATTN_KEYS + ATTN_MR - 1) / ATTN_MR * ATTN_MR /* 64 rounded up to tiles */
};
_Static_assert(ATTN_KEYS % ATTN_NR == 0, "key blocks are whole tiles wide in the backward");
_Static_assert(ATTN_KEYS % 16 == 0, "partial sum i takes keys i, i+16, ... of a block");

static size_t attn_round(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Row length of dense copies: head_dim rounded up to tiles, be it their rows or their columns. */
static size_t attn_ld(size_t head_dim)
{
    size_t m = attn_round(head_dim, ATTN_MR), n = attn_round(head_dim, ATTN_NR);
    return m > n ? m : n;
}

#ifdef KERN_SMALL
static void attn_tile(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                      size_t ldb, size_t k, bool accumulate)
{
    const struct cpu_tile t = {c, ldc, a, rs, cs, b, ldb, k, accumulate ? UINT32_MAX : 0};
    tile_micro(&t);
}
#else
/*
 * One tile: c (+)= a b, with element (i, p) of a at a[i*rs + p*cs] and row p of b at b + p*ldb;
 * k > 0.
 */
static void attn_tile(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                      size_t ldb, size_t k, bool accumulate)
{
    v16 acc[ATTN_MR][ATTN_NV];
    const float *g0 = a, *g1 = a + TILE_GROUP * rs; /* as in tile_micro */
#pragma GCC unroll 8
    for (size_t i = 0; i < ATTN_MR; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < ATTN_NV; j++)
            acc[i][j] = accumulate ? v16_load(c + i * ldc + 16 * j) : v16_zero();
    do {
        v16 bv[ATTN_NV];
        __asm__("" : "+r"(g0), "+r"(g1));
#pragma GCC unroll 2
        for (size_t j = 0; j < ATTN_NV; j++)
            bv[j] = v16_load(b + 16 * j);
#pragma GCC unroll 8
        for (size_t i = 0; i < ATTN_MR; i++) {
            v16 x = v16_set1((i < TILE_GROUP ? g0 : g1)[i % TILE_GROUP * rs]);
#pragma GCC unroll 2
            for (size_t j = 0; j < ATTN_NV; j++)
                acc[i][j] = v16_fma(x, bv[j], acc[i][j]);
        }
        g0 += cs;
        g1 += cs;
        b += ldb;
    } while (--k);
#pragma GCC unroll 8
    for (size_t i = 0; i < ATTN_MR; i++, c += ldc)
#pragma GCC unroll 2
        for (size_t j = 0; j < ATTN_NV; j++)
            v16_store(c + 16 * j, acc[i][j]);
}
#endif

/*
 * m x n outputs, both rounded up to whole tiles: the buffers hold that many. b is [k][ldb], or
 * packed by pack_b when ldb is ATTN_NR.
 */
static void attn_gemm(float *c, size_t ldc, const float *a, size_t rs, size_t cs, const float *b,
                      size_t ldb, size_t m, size_t n, size_t k, bool accumulate)
{
    for (size_t j = 0; j < n; j += ATTN_NR)
        for (size_t i = 0; i < m; i += ATTN_MR)
            attn_tile(c + i * ldc + j, ldc, a + i * rs, rs, cs, b + (ldb == ATTN_NR ? j * k : j),
                      ldb, k, accumulate);
}

/* dst[rows][ld] = src[n][dim] (row stride `stride`), zeros to the right and below. */
static void attn_copy(float *dst, size_t ld, size_t rows, const float *src, size_t stride, size_t n,
                      size_t dim)
{
    for (size_t r = 0; r < rows; r++, dst += ld) {
        size_t have = r < n ? dim : 0;
        memcpy(dst, src + r * stride, have * sizeof *dst);
        memset(dst + have, 0, (ld - have) * sizeof *dst);
    }
}

/*
 * dst[n][dim] (row stride `stride`) = src[dim][ld] transposed, + 0 or, with add, + dst. Rows of src
 * up to a multiple of 16 and columns up to a multiple of 4 are there to be read.
 */
static void attn_store(float *dst, size_t stride, const float *src, size_t ld, size_t n, size_t dim,
                       bool add)
{
#ifdef KERN_ONCE
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < dim; d++)
            dst[i * stride + d] = src[d * ld + i] + (add ? dst[i * stride + d] : 0);
#else
    for (size_t d = 0; d < dim; d += 16)
        for (size_t i = 0; i < n; i += 4) {
            v16 col[4];
            v16_load_cols4(src + d * ld + i, ld, col);
            for (size_t q = 0; q < cpu_min(4, n - i); q++) {
                size_t lanes = vec_lanes(d, dim);
                float *to = dst + (i + q) * stride + d;
                vec_put(to, v16_add(col[q], add ? vec_get(to, lanes) : v16_zero()), lanes);
            }
        }
#endif
}

struct attn_job {
    const struct kern_attn *a;
    struct cpu *cpu;
    size_t ld, chunks;
};

/* What one thread of the forward needs: the dense keys and values, then the state of one panel. */
struct attn_panel {
    size_t ld;
    float *k, *v; /* [attn_keys(tk)][ld] */
    float *q;     /* [head_dim][NR], packed by pack_b */
    float *s;     /* [ATTN_ROWS][NR]: scores, then their exponentials, of one block of keys */
    float *o;     /* [ld][NR] */
    float *m, *l; /* [NR] each */
    float *pos;   /* [NR]: the last key that the query sees, counted from the start of the block */
};

/* Rows of a dense copy of the keys: whole blocks, and whole tiles from any start of a block. */
static size_t attn_keys(size_t tk)
{
    return attn_round(tk, ATTN_KEYS) + ATTN_ROWS - ATTN_KEYS;
}

static size_t attn_fwd_floats(const struct kern_attn *a, size_t ld)
{
    return 2 * attn_keys(a->tk) * ld + ATTN_NR * (a->head_dim + ATTN_ROWS + ld + 3);
}

/* The outputs of all queries of a panel times a factor each. */
static void attn_scale(const struct attn_panel *w, const float *factor)
{
    for (size_t d = 0; d < w->ld; d++)
        vec_mul(w->o + d * ATTN_NR, w->o + d * ATTN_NR, factor, ATTN_NR);
}

/*
 * Sixteen queries (column c of the panel) meet the first `keys` keys of a block; fade[16] is what
 * becomes of their sums and outputs so far.
 */
static void attn_softmax(const struct attn_panel *w, size_t c, size_t keys, bool diagonal,
                         float scale, float *fade)
{
    float *s = w->s + c, *l = w->l + c, *m = w->m + c;
    _Alignas(64) float part[17 * 16] = {0};
    memcpy(fade, m, 16 * sizeof *m);
    vec_max(s, ATTN_NR, keys, scale, diagonal ? w->pos + c : NULL, m);
    vec_exp(fade, 0, 1, m, part + 16 * 16, 1);
    vec_exp(s, ATTN_NR, keys, m, part, 16);
    for (size_t h = 8 * 16; h >= 16; h /= 2)
        vec_add(part, part, part + h, h);
    vec_fma(l, l, fade, part, 16, false);
    for (size_t i = 0; i < 16; i++)
        w->pos[c + i] -= ATTN_KEYS;
}

/* The panel of queries j0 ... of head h of sequence b, from its q to its o and lse. */
static void attn_run_panel(const struct kern_attn *a, const struct attn_panel *w, size_t b,
                           size_t h, size_t j0)
{
    size_t n = cpu_min(ATTN_NR, a->tq - j0), stride = a->heads * a->head_dim;
    size_t at = (b * a->tq + j0) * stride + h * a->head_dim;
    size_t first = a->q0 + j0, seen = first + n; /* keys that the last query sees */
    pack_b(w->q, a->q + at, stride, true, a->head_dim, n);
    _Alignas(64) float factor[ATTN_NR];
    memset(w->o, 0, w->ld * ATTN_NR * sizeof *w->o);
    for (size_t i = 0; i < ATTN_NR; i++) {
        w->m[i] = -INFINITY;
        w->l[i] = 0.0f;
        w->pos[i] = (float)(first + i);
    }
    for (size_t key = 0; key < seen; key += ATTN_KEYS) {
        size_t keys = cpu_min(ATTN_KEYS, seen - key);
        attn_gemm(w->s, ATTN_NR, w->k + key * w->ld, w->ld, 1, w->q, ATTN_NR, keys, ATTN_NR,
                  a->head_dim, false);
        for (size_t c = 0; c < ATTN_NR; c += 16)
            attn_softmax(w, c, keys, key + ATTN_KEYS > first + 1, a->scale, factor + c);
        attn_scale(w, factor);
        attn_gemm(w->o, ATTN_NR, w->v + key * w->ld, 1, w->ld, w->s, ATTN_NR, a->head_dim, ATTN_NR,
                  keys, true);
    }
    for (size_t i = 0; i < ATTN_NR; i++)
        factor[i] = 1.0f / w->l[i];
    attn_scale(w, factor);
    attn_store(a->o + at, stride, w->o, ATTN_NR, n, a->head_dim, false);
    if (KERN_SAVES && a->lse)
        vec_lse(a->lse + (b * a->heads + h) * a->tq + j0, w->m, w->l, n);
}

/*
 * A task owns every chunks-th panel of the query heads that share one KV head, long panels (those
 * at the end) and short ones mixed. It copies keys and values once for all of them.
 */
static void attn_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct attn_job *j = ctx;
    const struct kern_attn *a = j->a;
    size_t g = task / j->chunks % a->kv_heads, b = task / j->chunks / a->kv_heads;
    size_t stride = a->kv_heads * a->head_dim, at = b * a->tk * stride + g * a->head_dim;
    size_t rows = attn_keys(a->tk), ld = j->ld, seen = a->q0 + a->tq;
    size_t group = a->heads / a->kv_heads, panels = cpu_ceil_div(a->tq, ATTN_NR);
    struct attn_panel w = {.ld = ld, .q = cpu_scratch(j->cpu, thread)};
    w.s = w.q + a->head_dim * ATTN_NR;
    w.o = w.s + ATTN_ROWS * ATTN_NR;
    w.m = w.o + ld * ATTN_NR;
    w.l = w.m + ATTN_NR;
    w.pos = w.l + ATTN_NR;
    w.k = w.pos + ATTN_NR;
    w.v = w.k + rows * ld;
    attn_copy(w.k, ld, rows, a->k + at, stride, seen, a->head_dim);
    attn_copy(w.v, ld, rows, a->v + at, stride, seen, a->head_dim);
    for (size_t i = task % j->chunks; i < group * panels; i += j->chunks)
        attn_run_panel(a, &w, b, g * group + i / panels, i % panels * ATTN_NR);
}

static void attn_fwd(struct kern *k, const struct kern_attn *a)
{
    struct attn_job j = {.a = a, .cpu = k->impl, .ld = attn_ld(a->head_dim)};
    size_t owners = a->batch * a->kv_heads, panels = cpu_ceil_div(a->tq, ATTN_NR);
    if (owners == 0 || panels == 0 || !cpu_reserve(j.cpu, 0, attn_fwd_floats(a, j.ld)))
        return;
    j.chunks = cpu_min(cpu_ceil_div(4 * j.cpu->threads, owners), panels * a->heads / a->kv_heads);
    cpu_parallel(j.cpu, attn_fwd_task, &j, owners * j.chunks);
}

#ifndef KERN_FORWARD_ONLY
#include "kernels/cpu/attn_bwd.inc.h"
#endif
