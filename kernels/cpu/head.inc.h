/*
 * head.inc.h - output head, softcap, cross-entropy: the logits of a few rows and a block of the
 * vocabulary at a time.
 *
 *   z_v = h . w_v (one chain), l_v = cap * tanh(z_v * (1/cap)), or z_v when cap is 0
 *   for blocks of HEAD_BLOCK entries of the vocabulary, ascending, from m = -inf, s = 0:
 *       m' = max(m, max of l_v);  s = fma(s, exp(m - m'), sum of exp(l_v - m'));  m = m'
 *       (sum by 16 partial sums over the block and halving)
 *   lse = m + log(s), nll = lse - l_target
 *
 * Backward: t_v = tanh(z_v/cap), dz_v = ((exp(l_v - lse) - [v = target]) * (1 - t_v*t_v)) * gscale.
 * The logits are computed again, HEAD_Z_ROWS x HEAD_Z_COLS at a time; dh and dw are the gradients
 * of a linear layer.
 */

enum {
    HEAD_BLOCK = 512,                    /* vocabulary per step of the running maximum */
    HEAD_KC = 256,                       /* HEAD_BLOCK * HEAD_KC of w stay in the 2nd-level cache */
    HEAD_ROWS = 128 / TILE_MR * TILE_MR, /* rows of a task */
    HEAD_W_FLOATS = 1 << 21,             /* packed w at a time */
    HEAD_Z_ROWS = 1024,                  /* logits at a time in the backward */
    HEAD_Z_COLS = 1024,
};
_Static_assert(HEAD_BLOCK % TILE_NR == 0, "blocks of the vocabulary are whole panels");

static float head_inv(float cap)
{
    return cap == 0.0f ? 0.0f : 1.0f / cap;
}

struct head_job {
    const struct kern_head *a;
    struct cpu *cpu;
    float *w;            /* packed: blocks of the vocabulary, HEAD_KC of dim, panels */
    float *m, *s, *hit;  /* [rows] each: running maximum and sum, and the target's logit */
    size_t v0, vn, rows; /* the chunk of the vocabulary; rows of a task */
    float inv;
};

#ifndef KERN_ONCE
static void head_pack_task(void *ctx, size_t task, size_t thread)
{
    const struct head_job *j = ctx;
    size_t dim = j->a->dim, v = task * TILE_NR, block = v / HEAD_BLOCK * HEAD_BLOCK;
    size_t width = packed_b_floats(1, cpu_min(HEAD_BLOCK, j->vn - block));
    (void)thread;
    for (size_t p = 0; p < dim; p += HEAD_KC) {
        size_t kb = cpu_min(HEAD_KC, dim - p);
        pack_b(j->w + block * dim + p * width + (v - block) * kb, j->a->w + (j->v0 + v) * dim + p,
               dim, true, kb, cpu_min(TILE_NR, j->vn - v));
    }
}
#endif

/* z[0..n) = cap * tanh(z/cap); t gets the tanh unless it is NULL. */
static void head_softcap(float *z, float *t, size_t n, float cap, float inv)
{
    if (cap != 0.0f)
        vec_softcap(z, t, n, cap, inv);
}

/* Logits that do not exist, up to a multiple of 16: they change neither maximum nor sum. */
static void head_pad(float *z, size_t n)
{
    for (; n % 16; n++)
        z[n] = -INFINITY;
}

/* One row meets n logits, from vocabulary entry v on; z [n, rounded up to 16] is overwritten. */
static void head_row(const struct head_job *j, size_t r, float *z, size_t v, size_t n)
{
    size_t vectors = cpu_ceil_div(n, 16), target = j->a->target[r];
    _Alignas(64) float top[16], fade[16], part[2 * 16] = {0};
    head_softcap(z, NULL, n, j->a->cap, j->inv);
    head_pad(z, n);
    if (target >= v && target - v < n)
        j->hit[r] = z[target - v];
    for (size_t i = 0; i < 16; i++)
        fade[i] = top[i] = j->m[r];
    vec_max(z, 16, vectors, 1, NULL, top);
    j->m[r] = vec_max16(top);
    vec_exp(fade, 0, 1, top, part + 16, 1);
    vec_exp(z, 16, vectors, top, part, 1);
    vec_sum16(part);
    vec_fma(j->s + r, j->s + r, fade, part, 1, false);
}

#ifndef KERN_ONCE
static void head_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct head_job *j = ctx;
    const struct kern_head *a = j->a;
    size_t r0 = task * j->rows, m = cpu_min(j->rows, a->rows - r0);
    float *z = cpu_scratch(j->cpu, thread);
    if (j->v0 == 0)
        for (size_t r = r0; r < r0 + m; r++) {
            j->m[r] = -INFINITY;
            j->s[r] = 0.0f;
        }
    for (size_t v = 0; v < j->vn; v += HEAD_BLOCK) {
        size_t n = cpu_min(HEAD_BLOCK, j->vn - v), width = packed_b_floats(1, n);
        for (size_t p = 0; p < a->dim; p += HEAD_KC)
            tile_gemm_at(z, HEAD_BLOCK, a->h + r0 * a->dim + p, a->dim, 1,
                         j->w + v * a->dim + p * width, m, width, cpu_min(HEAD_KC, a->dim - p),
                         p > 0);
        for (size_t r = 0; r < m; r++)
            head_row(j, r0 + r, z + r * HEAD_BLOCK, j->v0 + v, n);
    }
    if (j->v0 + j->vn < a->vocab)
        return;
    vec_lse(j->m + r0, j->m + r0, j->s + r0, m);
    for (size_t r = r0; r < r0 + m; r++) {
        a->nll[r] = j->m[r] - j->hit[r];
        if (a->lse)
            a->lse[r] = j->m[r];
    }
}

static void head_fwd(struct kern *k, const struct kern_head *a)
{
    struct head_job j = {.a = a, .cpu = k->impl, .inv = head_inv(a->cap)};
    size_t chunk = HEAD_W_FLOATS / a->dim / HEAD_BLOCK * HEAD_BLOCK;
    chunk = cpu_min(chunk ? chunk : HEAD_BLOCK, (a->vocab + TILE_NR - 1) / TILE_NR * TILE_NR);
    /* Whole tiles, two tasks per thread at least, and a buffer of logits that fits the cache. */
    j.rows = cpu_ceil_div(a->rows, 2 * j.cpu->threads * TILE_MR) * TILE_MR;
    j.rows = cpu_min(HEAD_ROWS, j.rows);
    if (a->rows == 0 || !cpu_reserve(j.cpu, chunk * a->dim + 3 * a->rows, j.rows * HEAD_BLOCK))
        return;
    j.w = cpu_shared(j.cpu);
    j.m = j.w + chunk * a->dim;
    j.s = j.m + a->rows;
    j.hit = j.s + a->rows;
    for (j.v0 = 0; j.v0 < a->vocab; j.v0 += chunk) {
        j.vn = cpu_min(chunk, a->vocab - j.v0);
        cpu_parallel(j.cpu, head_pack_task, &j, cpu_ceil_div(j.vn, TILE_NR));
        cpu_parallel(j.cpu, head_fwd_task, &j, cpu_ceil_div(a->rows, j.rows));
    }
}
#endif

#ifndef KERN_FORWARD_ONLY
/* Rows of logits, for head_logits and for the backward. */
struct head_rows {
    const struct kern_head *a; /* backward only, as cpu */
    struct cpu *cpu;
    float *z;               /* [rows][n] */
    size_t rows, n, r0, v0; /* r0, v0: what z[0] is in h and in the vocabulary */
    float cap, inv;
};

#ifndef KERN_SMALL
static void head_logits_task(void *ctx, size_t task, size_t thread)
{
    const struct head_rows *j = ctx;
    size_t r0 = task * KERN_ROW_BLOCK, rows = cpu_min(KERN_ROW_BLOCK, j->rows - r0);
    (void)thread;
    head_softcap(j->z + r0 * j->n, NULL, rows * j->n, j->cap, j->inv);
}

static void head_logits(struct kern *k, float *l, const float *h, const float *w, size_t rows,
                        size_t dim, size_t vocab, float cap)
{
    struct head_rows j = {.z = l, .rows = rows, .n = vocab, .cap = cap, .inv = head_inv(cap)};
    linear_fwd(k, l, h, w, rows, vocab, dim);
    cpu_parallel(k->impl, head_logits_task, &j, rows_blocks(rows));
}
#endif

/* Row r of z becomes dz. p, t, one: room for n logits, and one is all ones. */
static void head_dz(const struct head_rows *j, size_t r, float *p, float *t, const float *one)
{
    float *z = j->z + r * j->n, minus = -1;
    _Alignas(64) float lse[16], part[16] = {0};
    size_t hit = j->a->target[j->r0 + r] - j->v0; /* wraps to something huge when not in here */
    for (size_t i = 0; i < 16; i++)
        lse[i] = j->a->lse[j->r0 + r];
    memcpy(p, z, j->n * sizeof *p);
    head_softcap(p, t, j->n, j->cap, j->inv);
    head_pad(p, j->n);
    vec_exp(p, 16, cpu_ceil_div(j->n, 16), lse, part, 1);
    if (hit < j->n)
        p[hit] -= 1;
    if (j->cap != 0.0f) {
        vec_scale(z, t, minus, j->n);
        vec_fma(t, z, t, one, j->n, false);
        vec_mul(p, p, t, j->n);
    }
    vec_scale(z, p, j->a->gscale, j->n);
}

static size_t head_room(const struct head_rows *j)
{
    return (j->n + 15) / 16 * 16;
}

static void head_dz_task(void *ctx, size_t task, size_t thread)
{
    const struct head_rows *j = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, j->rows);
    float *p = cpu_scratch(j->cpu, thread), *t = p + head_room(j), *one = t + head_room(j);
    for (size_t i = 0; i < j->n; i++)
        one[i] = 1;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++)
        head_dz(j, r, p, t, one);
}

static void head_bwd(struct kern *k, const struct kern_head *a)
{
    struct head_rows j = {.a = a, .cpu = k->impl, .cap = a->cap, .inv = head_inv(a->cap)};
    size_t cols = cpu_min(a->vocab, HEAD_Z_COLS), rows = cpu_min(a->rows, HEAD_Z_ROWS);
    j.z = k->alloc(k, rows * cols * sizeof(float));
    if (!j.z) {
        j.cpu->failed = j.cpu->failed ? j.cpu->failed : rows * cols * sizeof(float);
        return;
    }
    for (j.r0 = 0; j.r0 < a->rows; j.r0 += rows) {
        const float *h = a->h + j.r0 * a->dim;
        j.rows = cpu_min(rows, a->rows - j.r0);
        for (j.v0 = 0; j.v0 < a->vocab; j.v0 += cols) {
            const float *w = a->w + j.v0 * a->dim;
            j.n = cpu_min(cols, a->vocab - j.v0);
            linear_fwd(k, j.z, h, w, j.rows, j.n, a->dim);
            if (!cpu_reserve(j.cpu, 0, 3 * head_room(&j)))
                break;
            cpu_parallel(j.cpu, head_dz_task, &j, rows_blocks(j.rows));
            if (a->dh)
                linear_bwd_x(k, a->dh + j.r0 * a->dim, j.z, w, j.rows, j.n, a->dim, j.v0 > 0);
            if (a->dw)
                linear_bwd_w(k, a->dw + j.v0 * a->dim, j.z, h, j.rows, j.n, a->dim);
        }
    }
    k->free(k, j.z);
}
#endif
