/*
 * rows.inc.h - operations that treat every row by itself: embedding, take, combine, norm + RoPE.
 *
 * All of them are bound by memory, so each makes one pass over its rows; a row that is needed twice
 * (first its mean square, then the scaled row) is still in the first-level cache. Tasks are blocks
 * of KERN_ROW_BLOCK rows. Included once per instruction set, after v16.h and cpu.h.
 */

/* Columns of one embed_bwd task: whole cache lines, so that no two tasks write to one. */
enum { ROWS_COLS = 64 };

/* Elements of a row at a time, where a step needs room of its own. */
enum { ROWS_CHUNK = 256 };

static size_t rows_blocks(size_t rows)
{
    return cpu_ceil_div(rows, KERN_ROW_BLOCK);
}

/* Embedding. */

struct embed_job {
    float *y;
    const float *x;
    const uint16_t *ids;
    size_t rows, dim;
};

static void embed_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct embed_job *j = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, j->rows);
    (void)thread;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++)
        memcpy(j->y + r * j->dim, j->x + j->ids[r] * j->dim, j->dim * sizeof *j->y);
}

static void embed_fwd(struct kern *k, float *y, const float *table, const uint16_t *ids,
                      size_t rows, size_t dim)
{
    struct embed_job j = {y, table, ids, rows, dim};
    cpu_parallel(k->impl, embed_fwd_task, &j, rows_blocks(rows));
}

#ifndef KERN_FORWARD_ONLY
/* A task owns columns, not rows of the table: tokens are skewed (Zipf), columns are all alike. */
static void embed_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct embed_job *j = ctx;
    size_t from = task * ROWS_COLS, to = cpu_min(from + ROWS_COLS, j->dim);
    (void)thread;
    for (size_t r = 0; r < j->rows; r++) {
        float *y = j->y + j->ids[r] * j->dim + from;
        vec_add(y, y, j->x + r * j->dim + from, to - from);
    }
}

static void embed_bwd(struct kern *k, float *dtable, const float *dy, const uint16_t *ids,
                      size_t rows, size_t dim, size_t vocab)
{
    struct embed_job j = {dtable, dy, ids, rows, dim};
    (void)vocab;
    cpu_parallel(k->impl, embed_bwd_task, &j, cpu_ceil_div(dim, ROWS_COLS));
}
#endif

/* The last rows of each sequence. */

struct take_job {
    float *y;
    const float *x;
    size_t batch, t, from, dim;
};

static void take_task(void *ctx, size_t task, size_t thread)
{
    const struct take_job *j = ctx;
    size_t n = (j->t - j->from) * j->dim;
    (void)thread;
    memcpy(j->y + task * n, j->x + (task * j->t + j->from) * j->dim, n * sizeof *j->y);
}

static void take(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t from,
                 size_t dim)
{
    struct take_job j = {y, x, batch, t, from, dim};
    cpu_parallel(k->impl, take_task, &j, batch);
}

/* combine: y = c0*x0 + c1*x1, n = gain * y / rms(y). */

/* 1 / sqrt(ss/n + eps), every operation rounded. */
static float rows_rstd(float ss, size_t n, float eps)
{
    return 1.0f / __builtin_sqrtf(ss / (float)n + eps);
}

/* Row r of c0*x0 + c1*x1. */
static void combine_sum(const struct kern_combine *a, size_t r, float *y)
{
    size_t at = r * a->dim;
    float chunk[ROWS_CHUNK];
    for (size_t i = 0, n; i < a->dim; i += n) {
        const float *x0 = a->x0 + at + i, *x1 = a->x1 + at + i;
        n = cpu_min(ROWS_CHUNK, a->dim - i);
        if (a->c0) {
            vec_mul(chunk, a->c0 + i, x0, n);
            x0 = chunk; /* not in y, which may be both x0 and x1 */
        }
        if (!a->x1)
            memmove(y + i, x0, n * sizeof *y);
        else if (a->c1)
            vec_fma(y + i, a->c1 + i, x1, x0, n, false);
        else
            vec_add(y + i, x0, x1, n);
    }
}

static void combine_row(const struct kern_combine *a, size_t r)
{
    size_t at = r * a->dim;
    float *y = a->y ? a->y + at : a->n + at;
    combine_sum(a, r, y);
    if (!a->n)
        return;
    float rstd = rows_rstd(vec_dot(y, y, a->dim), a->dim, a->eps);
    vec_scale(a->n + at, y, a->gain * rstd, a->dim);
    if (KERN_SAVES && a->rstd)
        a->rstd[r] = rstd;
}

static void combine_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct kern_combine *a = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    (void)thread;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++)
        combine_row(a, r);
}

static void combine_fwd(struct kern *k, const struct kern_combine *a)
{
    cpu_parallel(k->impl, combine_fwd_task, (void *)(uintptr_t)a, rows_blocks(a->rows));
}

#ifndef KERN_FORWARD_ONLY
/*
 * With r = rstd, g = gain*r and s = sum of dn*y:
 *   d = dy + g * (dn - y * (s*r*r/dim)),  dx0 = c0*d, dx1 = c1*d, dc0 += d*x0, dc1 += d*x1.
 * y is read where the forward stored it, otherwise recomputed from x0 and x1.
 */
struct combine_job {
    const struct kern_combine *a;
    struct cpu *cpu;
    float *part; /* [blocks][2][dim]: the sums of one block of rows for dc0 and dc1 */
};

/* dx (+)= c*d; t is room for a row. */
static void combine_dx(float *dx, const float *c, const float *d, bool add, float *t, size_t n)
{
    if (c) {
        vec_mul(t, c, d, n);
        d = t;
    }
    if (add)
        vec_add(dx, dx, d, n);
    else
        memcpy(dx, d, n * sizeof *dx);
}

/* d and t are room for a row each. Everything is read before dx1 and then dx0 are written: they may
 * be what was read, and each other. */
static void combine_bwd_row(const struct kern_combine *a, size_t r, float *part, float *d, float *t)
{
    size_t at = r * a->dim, bytes = a->dim * sizeof *d;
    if (a->dy)
        memcpy(d, a->dy + at, bytes);
    else
        memset(d, 0, bytes);
    if (a->dn) {
        const float *y = a->y ? a->y + at : t, *dn = a->dn + at;
        if (!a->y)
            combine_sum(a, r, t);
        float rstd = a->rstd[r], g = a->gain * rstd;
        float coef = -(vec_dot(dn, y, a->dim) * (rstd * rstd) / (float)a->dim);
        vec_fma(t, y, &coef, dn, a->dim, true);
        vec_fma(d, t, &g, d, a->dim, true);
    }
    if (a->dc0)
        vec_fma(part, d, a->x0 + at, part, a->dim, false);
    if (a->dc1)
        vec_fma(part + a->dim, d, a->x1 + at, part + a->dim, a->dim, false);
    if (a->dx1)
        combine_dx(a->dx1 + at, a->c1, d, a->add1, t, a->dim);
    if (a->dx0)
        combine_dx(a->dx0 + at, a->c0, d, a->add0, t, a->dim);
}

static void combine_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct combine_job *j = ctx;
    const struct kern_combine *a = j->a;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    float *part = j->part + task * 2 * a->dim, *room = cpu_scratch(j->cpu, thread);
    if (a->dc0 || a->dc1)
        memset(part, 0, 2 * a->dim * sizeof *part);
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++)
        combine_bwd_row(a, r, part, room, room + a->dim);
}

/* sum[i] += part[b*stride + i], blocks ascending: the one order in which rows may be added up. */
static void rows_add_blocks(float *sum, const float *part, size_t blocks, size_t stride, size_t len)
{
    for (size_t b = 0; b < blocks; b++)
        vec_add(sum, sum, part + b * stride, len);
}

static void combine_bwd(struct kern *k, const struct kern_combine *a)
{
    size_t blocks = rows_blocks(a->rows);
    struct combine_job j = {.a = a, .cpu = k->impl};
    if (!cpu_reserve(j.cpu, a->dc0 || a->dc1 ? blocks * 2 * a->dim : 0, 2 * a->dim))
        return;
    j.part = cpu_shared(j.cpu);
    cpu_parallel(k->impl, combine_bwd_task, &j, blocks);
    if (a->dc0)
        rows_add_blocks(a->dc0, j.part, blocks, 2 * a->dim, a->dim);
    if (a->dc1)
        rows_add_blocks(a->dc1, j.part + a->dim, blocks, 2 * a->dim, a->dim);
}
#endif

/*
 * qk: per head u = x*rstd, out_i = fma(u_i, c, u_j*s), out_j = fma(u_j, c, -(u_i*s)) with j = i +
 * r/2, y = gain*out. Backward: e = R^T dy, s = sum of e*u, dx = gain*rstd * (e - u*(s/head_dim)),
 * dgain += s (because dy . R u = R^T dy . u).
 */
static void qk_head(const struct kern_qk *a, size_t at, size_t head, const float *cs,
                    const float *sn, float *rstd_out)
{
    const float *x = a->x + at;
    float *y = a->y + at, u0[ROWS_CHUNK], u1[ROWS_CHUNK], v[ROWS_CHUNK];
    size_t half = a->rope_dims / 2, dim = a->head_dim;
    float rstd = rows_rstd(vec_dot(x, x, dim), dim, a->eps), gain = a->gain ? a->gain[head] : 1;
    for (size_t i = 0, n; i < half; i += n) {
        n = cpu_min(ROWS_CHUNK, half - i);
        vec_scale(u0, x + i, rstd, n);
        vec_scale(u1, x + half + i, rstd, n);
        vec_mul(v, u1, sn + i, n);
        vec_fma(y + i, u0, cs + i, v, n, false);
        vec_mul(v, u0, sn + i, n);
        for (size_t l = 0; l < n; l++)
            v[l] = 0 - v[l];
        vec_fma(y + half + i, u1, cs + i, v, n, false);
    }
    vec_scale(y + 2 * half, x + 2 * half, rstd, dim - 2 * half);
    vec_scale(y, y, gain, dim);
    if (KERN_SAVES && rstd_out)
        *rstd_out = rstd;
}

static void qk_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct kern_qk *a = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    (void)thread;
    for (size_t row = task * KERN_ROW_BLOCK; row < end; row++) {
        size_t angle = (a->pos0 + row % a->t) * (a->rope_dims / 2);
        for (size_t h = 0; h < a->heads; h++)
            qk_head(a, (row * a->heads + h) * a->head_dim, h, a->cos + angle, a->sin + angle,
                    KERN_SAVES && a->rstd ? a->rstd + row * a->heads + h : NULL);
    }
}

static void qk_fwd(struct kern *k, const struct kern_qk *a)
{
    cpu_parallel(k->impl, qk_fwd_task, (void *)(uintptr_t)a, rows_blocks(a->rows));
}

#ifndef KERN_FORWARD_ONLY
struct qk_job {
    const struct kern_qk *a;
    struct cpu *cpu;
    float *part; /* [blocks][heads]: the sums of one block of rows for dgain */
};

/* Returns s. e goes through dx, so dx may be dy: each pair is read before it is written. u is room
 * for a head. */
static float qk_bwd_head(const struct kern_qk *a, size_t row, size_t head, const float *cs,
                         const float *sn, float *u)
{
    size_t at = (row * a->heads + head) * a->head_dim, half = a->rope_dims / 2, dim = a->head_dim;
    const float *dy = a->dy + at;
    float *dx = a->dx + at, rstd = a->rstd[row * a->heads + head];
    for (size_t i = 0, n; i < half; i += n) {
        float v0[ROWS_CHUNK], v1[ROWS_CHUNK];
        n = cpu_min(ROWS_CHUNK, half - i);
        vec_mul(v0, dy + half + i, sn + i, n);
        vec_mul(v1, dy + i, sn + i, n);
        for (size_t l = 0; l < n; l++)
            v0[l] = 0 - v0[l];
        vec_fma(dx + i, dy + i, cs + i, v0, n, false);
        vec_fma(dx + half + i, dy + half + i, cs + i, v1, n, false);
    }
    if (dx != dy)
        memcpy(dx + 2 * half, dy + 2 * half, (dim - 2 * half) * sizeof *dx);
    vec_scale(u, a->x + at, rstd, dim);
    float s = vec_dot(dx, u, dim), coef = -(s / (float)dim);
    vec_fma(dx, u, &coef, dx, dim, true);
    vec_scale(dx, dx, a->gain ? a->gain[head] * rstd : rstd, dim);
    return s;
}

static void qk_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct qk_job *j = ctx;
    const struct kern_qk *a = j->a;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    float *part = j->part + task * a->heads;
    memset(part, 0, a->heads * sizeof *part);
    for (size_t row = task * KERN_ROW_BLOCK; row < end; row++) {
        size_t angle = (a->pos0 + row % a->t) * (a->rope_dims / 2);
        for (size_t h = 0; h < a->heads; h++)
            part[h] +=
                qk_bwd_head(a, row, h, a->cos + angle, a->sin + angle, cpu_scratch(j->cpu, thread));
    }
}

static void qk_bwd(struct kern *k, const struct kern_qk *a)
{
    size_t blocks = rows_blocks(a->rows);
    struct qk_job j = {.a = a, .cpu = k->impl};
    if (!cpu_reserve(j.cpu, blocks * a->heads, a->head_dim))
        return;
    j.part = cpu_shared(j.cpu);
    cpu_parallel(k->impl, qk_bwd_task, &j, blocks);
    if (a->dgain)
        rows_add_blocks(a->dgain, j.part, blocks, a->heads, a->heads);
}
#endif
