/*
 * attn_bwd.inc.h - causal attention, backward. Included by attn.inc.h.
 *
 * With p_ij = exp(scale*(q_i . k_j) - lse_i) for keys j <= position of i, else 0, D_i = sum of
 * do_i*o_i (16 partial sums) and ds_ij = p_ij * (do_i . v_j - D_i) * scale:
 *
 *   dv_j = sum of p_ij do_i, dk_j = sum of ds_ij q_i:  the group's heads, then queries, ascending
 *   dq_i = sum of ds_ij k_j:                           keys, ascending
 *
 * Every sum is one chain of fused multiply-adds from 0; at the end 0 is added, for the reason that
 * attn.inc.h gives. A task owns one KV head of one sequence and with it the dq of the query heads
 * of its group, so five products suffice (splitting dq from dk and dv would take seven) and nothing
 * is shared.
 *
 *   for each block of 64 keys:          K, V transposed: [d][key]; dk, dv: [d][key], in cache
 *     for each head of the group:
 *       for blocks of ATTN_ROWS queries that see it:
 *         s = q K^T, t = do V^T         [query][key]
 *         p, ds in their place
 *         dv += do^T p, dk += q^T ds    [d][key]
 *         dq += ds K                    [query][d]
 */

struct attn_back {
    size_t ld, rows;    /* rows: queries, rounded up to whole tiles from any tile on */
    float *s, *t;       /* [ATTN_ROWS][ATTN_KEYS] */
    float *kt, *vt;     /* [head_dim][ATTN_KEYS]: the block of keys, packed by pack_b */
    float *dkt, *dvt;   /* [ld][ATTN_KEYS] */
    float *k;           /* [ATTN_KEYS][ld]: the block of keys */
    float *q, *go, *dq; /* [group][rows][ld] each; go is the gradient of o */
    float *lse, *d;     /* [group][rows] each */
};

static size_t attn_bwd_floats(const struct kern_attn *a, size_t ld, size_t rows)
{
    return ATTN_KEYS * (2 * ATTN_ROWS + 2 * a->head_dim + 3 * ld) +
           a->heads / a->kv_heads * rows * (3 * ld + 2);
}

/* The rows of head h of x[tq][heads][head_dim] from (b, query 0), dense and padded with zeros. */
static void attn_gather(const struct kern_attn *a, const struct attn_back *w, float *dst,
                        const float *x, size_t b, size_t h)
{
    size_t stride = a->heads * a->head_dim;
    attn_copy(dst, w->ld, w->rows, x + b * a->tq * stride + h * a->head_dim, stride, a->tq,
              a->head_dim);
}

/* lse and D of head h, the i-th of its group. Rows that do not exist get p = exp(-inf) = 0. */
static void attn_row_terms(const struct kern_attn *a, const struct attn_back *w, size_t b, size_t h,
                           size_t i)
{
    const float *go = w->go + i * w->rows * w->ld;
    for (size_t r = 0; r < w->rows; r++) {
        float *d = w->d + i * w->rows + r, *lse = w->lse + i * w->rows + r;
        *d = 0;
        *lse = INFINITY;
        if (r < a->tq) {
            *d = vec_dot(go + r * w->ld, a->o + ((b * a->tq + r) * a->heads + h) * a->head_dim,
                         a->head_dim);
            *lse = a->lse[(b * a->heads + h) * a->tq + r];
        }
    }
}

/* s, t [n][ATTN_KEYS]: from scores and do . v to p and ds. */
static void attn_ds(const struct kern_attn *a, const struct attn_back *w, size_t row, size_t n,
                    size_t pos, size_t key, bool diagonal)
{
    for (size_t r = 0; r < n; r++) {
        float *s = w->s + r * ATTN_KEYS, *t = w->t + r * ATTN_KEYS, d[ATTN_KEYS];
        _Alignas(64) float lse[16], part[16] = {0};
        for (size_t i = 0; i < 16; i++)
            lse[i] = w->lse[row + r];
        for (size_t i = 0; i < ATTN_KEYS; i++)
            d[i] = -w->d[row + r];
        vec_scale(s, s, a->scale, ATTN_KEYS);
        vec_exp(s, 16, ATTN_KEYS / 16, lse, part, 1);
        if (diagonal)
            for (size_t i = 0; i < ATTN_KEYS; i++)
                if (key + i > pos + r)
                    s[i] = 0;
        vec_add(t, t, d, ATTN_KEYS);
        vec_mul(t, t, s, ATTN_KEYS);
        vec_scale(t, t, a->scale, ATTN_KEYS);
    }
}

/* All queries of the group against the block of keys at `key`. */
static void attn_bwd_block(const struct kern_attn *a, const struct attn_back *w, size_t key)
{
    size_t group = a->heads / a->kv_heads, dim = a->head_dim, ld = w->ld;
    size_t start = key > a->q0 ? (key - a->q0) / ATTN_MR * ATTN_MR : 0;
    memset(w->dkt, 0, ld * ATTN_KEYS * sizeof *w->dkt);
    memset(w->dvt, 0, ld * ATTN_KEYS * sizeof *w->dvt);
    for (size_t h = 0; h < group; h++) {
        for (size_t r = start; r < a->tq; r += ATTN_ROWS) {
            size_t n = cpu_min(ATTN_ROWS, attn_round(a->tq - r, ATTN_MR)), row = h * w->rows + r;
            const float *q = w->q + row * ld, *go = w->go + row * ld;
            attn_gemm(w->s, ATTN_KEYS, q, ld, 1, w->kt, ATTN_NR, n, ATTN_KEYS, dim, false);
            attn_gemm(w->t, ATTN_KEYS, go, ld, 1, w->vt, ATTN_NR, n, ATTN_KEYS, dim, false);
            attn_ds(a, w, row, n, a->q0 + r, key, key + ATTN_KEYS > a->q0 + r + 1);
            attn_gemm(w->dvt, ATTN_KEYS, go, 1, ld, w->s, ATTN_KEYS, dim, ATTN_KEYS, n, true);
            attn_gemm(w->dkt, ATTN_KEYS, q, 1, ld, w->t, ATTN_KEYS, dim, ATTN_KEYS, n, true);
            attn_gemm(w->dq + row * ld, ld, w->t, ATTN_KEYS, 1, w->k, ld, n, dim, ATTN_KEYS,
                      key > 0);
        }
    }
}

static void attn_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct attn_job *j = ctx;
    const struct kern_attn *a = j->a;
    size_t g = task % a->kv_heads, b = task / a->kv_heads, group = a->heads / a->kv_heads;
    size_t stride = a->kv_heads * a->head_dim, at = b * a->tk * stride + g * a->head_dim;
    size_t ld = j->ld, rows = attn_round(a->tq, ATTN_MR), dim = a->head_dim;
    struct attn_back w = {.ld = ld, .rows = rows, .s = cpu_scratch(j->cpu, thread)};
    w.t = w.s + ATTN_ROWS * ATTN_KEYS;
    w.kt = w.t + ATTN_ROWS * ATTN_KEYS;
    w.vt = w.kt + dim * ATTN_KEYS;
    w.dkt = w.vt + dim * ATTN_KEYS;
    w.dvt = w.dkt + ld * ATTN_KEYS;
    w.k = w.dvt + ld * ATTN_KEYS;
    w.q = w.k + ld * ATTN_KEYS;
    w.go = w.q + group * rows * ld;
    w.dq = w.go + group * rows * ld;
    w.lse = w.dq + group * rows * ld;
    w.d = w.lse + group * rows;

    for (size_t h = 0; h < group; h++) {
        attn_gather(a, &w, w.q + h * rows * ld, a->q, b, g * group + h);
        attn_gather(a, &w, w.go + h * rows * ld, a->do_, b, g * group + h);
        attn_row_terms(a, &w, b, g * group + h, h);
    }
    for (size_t key = 0; key < a->tk; key += ATTN_KEYS) {
        size_t n = cpu_min(ATTN_KEYS, a->tk - key), from = at + key * stride;
        attn_copy(w.k, ld, ATTN_KEYS, a->v + from, stride, n, dim);
        pack_b(w.vt, w.k, ld, true, dim, ATTN_KEYS);
        attn_copy(w.k, ld, ATTN_KEYS, a->k + from, stride, n, dim);
        pack_b(w.kt, w.k, ld, true, dim, ATTN_KEYS);
        attn_bwd_block(a, &w, key);
        attn_store(a->dk + from, stride, w.dkt, ATTN_KEYS, n, dim, false);
        attn_store(a->dv + from, stride, w.dvt, ATTN_KEYS, n, dim, a->add_dv);
    }
    for (size_t h = 0; h < group; h++) {
        float *dq = a->dq + (b * a->tq * a->heads + g * group + h) * dim;
        for (size_t r = 0; r < a->tq; r++)
            for (size_t d = 0; d < dim; d++)
                dq[r * a->heads * dim + d] = w.dq[(h * rows + r) * ld + d] + 0;
    }
}

static void attn_bwd(struct kern *k, const struct kern_attn *a)
{
    struct attn_job j = {.a = a, .cpu = k->impl, .ld = attn_ld(a->head_dim)};
    size_t rows = attn_round(a->tq, ATTN_MR);
    if (a->batch == 0 || a->tq == 0 || !cpu_reserve(j.cpu, 0, attn_bwd_floats(a, j.ld, rows)))
        return;
    cpu_parallel(j.cpu, attn_bwd_task, &j, a->batch * a->kv_heads);
}
