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
        float *y = j->y + j->ids[r] * j->dim;
        const float *x = j->x + r * j->dim;
        for (size_t i = from; i < to; i += 16) {
            size_t n = vec_lanes(i, to);
            vec_put(y + i, v16_add(vec_get(y + i, n), vec_get(x + i, n)), n);
        }
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

#ifndef KERN_FORWARD_ONLY
V16_FN v16 combine_at(const struct kern_combine *a, const float *x0, const float *x1, size_t i,
                      size_t n)
{
    v16 y = vec_get(x0 + i, n);
    if (a->c0)
        y = v16_mul(vec_get(a->c0 + i, n), y);
    if (!x1)
        return y;
    if (!a->c1)
        return v16_add(y, vec_get(x1 + i, n));
    return v16_fma(vec_get(a->c1 + i, n), vec_get(x1 + i, n), y);
}
#endif

/* 1 / sqrt(ss/n + eps), every operation rounded. */
static float rows_rstd(float ss, size_t n, float eps)
{
    return 1.0f / __builtin_sqrtf(ss / (float)n + eps);
}

static void combine_row(const struct kern_combine *a, size_t r)
{
    size_t at = r * a->dim;
    float *y = a->y ? a->y + at : a->n + at, chunk[ROWS_CHUNK];
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
    if (!a->n)
        return;
    float rstd = rows_rstd(vec_dot(y, y, a->dim), a->dim, a->eps);
    vec_scale(a->n + at, y, a->gain * rstd, a->dim);
    if (a->rstd)
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
    float *part; /* [blocks][2][dim]: the sums of one block of rows for dc0 and dc1 */
};

V16_FN void combine_dx(float *dx, const float *c, v16 d, bool add, size_t i, size_t n)
{
    if (!dx)
        return;
    if (c)
        d = v16_mul(vec_get(c + i, n), d);
    vec_put(dx + i, add ? v16_add(vec_get(dx + i, n), d) : d, n);
}

V16_FN void combine_dc(float *part, const float *x, v16 d, size_t i, size_t n)
{
    vec_put(part + i, v16_fma(d, vec_get(x + i, n), vec_get(part + i, n)), n);
}

static void combine_bwd_row(const struct kern_combine *a, size_t r, float *part0, float *part1)
{
    size_t at = r * a->dim;
    const float *x0 = a->x0 + at, *x1 = a->x1 ? a->x1 + at : NULL;
    const float *dn = a->dn ? a->dn + at : NULL, *dy = a->dy ? a->dy + at : NULL;
    v16 g = v16_zero(), coef = v16_zero(), s = v16_zero();
    if (dn) {
        for (size_t i = 0; i < a->dim; i += 16) {
            size_t n = vec_lanes(i, a->dim);
            v16 y = a->y ? vec_get(a->y + at + i, n) : combine_at(a, x0, x1, i, n);
            s = v16_fma(vec_get(dn + i, n), y, s);
        }
        float rstd = a->rstd[r];
        g = v16_set1(a->gain * rstd);
        coef = v16_set1(-(v16_sum(s) * (rstd * rstd) / (float)a->dim));
    }
    for (size_t i = 0; i < a->dim; i += 16) {
        size_t n = vec_lanes(i, a->dim);
        v16 d = dy ? vec_get(dy + i, n) : v16_zero();
        if (dn) {
            v16 y = a->y ? vec_get(a->y + at + i, n) : combine_at(a, x0, x1, i, n);
            d = v16_fma(g, v16_fma(coef, y, vec_get(dn + i, n)), d);
        }
        if (a->dc0)
            combine_dc(part0, x0, d, i, n);
        if (a->dc1)
            combine_dc(part1, x1, d, i, n);
        combine_dx(a->dx1 ? a->dx1 + at : NULL, a->c1, d, a->add1, i, n);
        combine_dx(a->dx0 ? a->dx0 + at : NULL, a->c0, d, a->add0, i, n);
    }
}

static void combine_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct combine_job *j = ctx;
    const struct kern_combine *a = j->a;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    float *part = j->part + task * 2 * a->dim;
    (void)thread;
    if (a->dc0 || a->dc1)
        for (size_t i = 0; i < 2 * a->dim; i++)
            part[i] = 0.0f;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++)
        combine_bwd_row(a, r, part, part + a->dim);
}

/* sum[i] += part[b*stride + i], blocks ascending: the one order in which rows may be added up. */
static void rows_add_blocks(float *sum, const float *part, size_t blocks, size_t stride, size_t len)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < len; i += 16) {
            size_t n = vec_lanes(i, len);
            vec_put(sum + i, v16_add(vec_get(sum + i, n), vec_get(part + b * stride + i, n)), n);
        }
}

static void combine_bwd(struct kern *k, const struct kern_combine *a)
{
    size_t blocks = rows_blocks(a->rows);
    struct combine_job j = {a, NULL};
    if (a->dc0 || a->dc1) {
        if (!cpu_reserve(k->impl, blocks * 2 * a->dim, 0))
            return;
        j.part = cpu_shared(k->impl);
    }
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
    if (rstd_out)
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
                    a->rstd ? a->rstd + row * a->heads + h : NULL);
    }
}

static void qk_fwd(struct kern *k, const struct kern_qk *a)
{
    cpu_parallel(k->impl, qk_fwd_task, (void *)(uintptr_t)a, rows_blocks(a->rows));
}

#ifndef KERN_FORWARD_ONLY
struct qk_job {
    const struct kern_qk *a;
    float *part; /* [blocks][heads]: the sums of one block of rows for dgain */
};

/* Returns s. e goes through dx, so dx may be dy: each pair is read before it is written. */
static float qk_bwd_head(const struct kern_qk *a, size_t row, size_t head, const float *cs,
                         const float *sn)
{
    size_t at = (row * a->heads + head) * a->head_dim, half = a->rope_dims / 2, dim = a->head_dim;
    const float *x = a->x + at, *dy = a->dy + at;
    float *dx = a->dx + at, rstd = a->rstd[row * a->heads + head];
    v16 r = v16_set1(rstd), sum = v16_zero();
    for (size_t i = 0; i < half; i += 16) {
        size_t n = vec_lanes(i, half);
        v16 d0 = vec_get(dy + i, n), d1 = vec_get(dy + half + i, n);
        v16 c = vec_get(cs + i, n), s = vec_get(sn + i, n);
        vec_put(dx + i, v16_fma(d0, c, v16_sub(v16_zero(), v16_mul(d1, s))), n);
        vec_put(dx + half + i, v16_fma(d1, c, v16_mul(d0, s)), n);
    }
    if (dx != dy)
        memcpy(dx + 2 * half, dy + 2 * half, (dim - 2 * half) * sizeof *dx);
    for (size_t i = 0; i < dim; i += 16) {
        size_t n = vec_lanes(i, dim);
        sum = v16_fma(vec_get(dx + i, n), v16_mul(vec_get(x + i, n), r), sum);
    }
    float s = v16_sum(sum);
    v16 coef = v16_set1(-(s / (float)dim));
    v16 g = v16_set1(a->gain ? a->gain[head] * rstd : rstd);
    for (size_t i = 0; i < dim; i += 16) {
        size_t n = vec_lanes(i, dim);
        v16 u = v16_mul(vec_get(x + i, n), r);
        vec_put(dx + i, v16_mul(g, v16_fma(coef, u, vec_get(dx + i, n))), n);
    }
    return s;
}

static void qk_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct qk_job *j = ctx;
    const struct kern_qk *a = j->a;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, a->rows);
    float *part = j->part + task * a->heads;
    (void)thread;
    for (size_t h = 0; h < a->heads; h++)
        part[h] = 0.0f;
    for (size_t row = task * KERN_ROW_BLOCK; row < end; row++) {
        size_t angle = (a->pos0 + row % a->t) * (a->rope_dims / 2);
        for (size_t h = 0; h < a->heads; h++)
            part[h] += qk_bwd_head(a, row, h, a->cos + angle, a->sin + angle);
    }
}

static void qk_bwd(struct kern *k, const struct kern_qk *a)
{
    size_t blocks = rows_blocks(a->rows);
    if (!cpu_reserve(k->impl, blocks * a->heads, 0))
        return;
    struct qk_job j = {a, cpu_shared(k->impl)};
    cpu_parallel(k->impl, qk_bwd_task, &j, blocks);
    if (a->dgain)
        rows_add_blocks(a->dgain, j.part, blocks, a->heads, a->heads);
}
#endif
