/*
 * xsa.inc.h - exclusive self attention (kern_xsa), and the shift of a sequence by one position.
 *
 * With r = 1 / max(v.v, 1e-24), which is 1 / max(|v|, 1e-12)^2 without the root, and dot products
 * by 16 partial sums and halving:
 *
 *   y_h  = fma(-((o_h . v) r), v, o_h)
 *   do_h = fma(-((dy_h . v) r), v, dy_h)
 *   dv   = sum over the heads h of the group, ascending, of
 *          -((dy_h . v) r) o_h - ((o_h . v) r) dy_h + 2 ((o_h . v) r) ((dy_h . v) r) v
 *
 * The last term of dv, which comes from the length of v, is 0 where the 1e-24 holds. Vectors are
 * read twice, the second time from the first-level cache.
 */

#define XSA_MIN 1e-24f

/* 1 / max(ss, XSA_MIN); a NaN stays one. */
static float xsa_inv(float ss)
{
    return 1.0f / (ss < XSA_MIN ? XSA_MIN : ss);
}

/* y = x - (x . v) r v; y may be x. */
static void xsa_remove(float *y, const float *x, const float *v, float c, size_t dim)
{
    float f = -c;
    vec_fma(y, v, &f, x, dim, true);
}

static void xsa_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct kern_xsa *a = ctx;
    size_t group = a->heads / a->kv_heads, dim = a->head_dim;
    size_t from = task * KERN_ROW_BLOCK, end = cpu_min(from + KERN_ROW_BLOCK, a->rows);
    (void)thread;
    for (size_t i = from * a->kv_heads; i < end * a->kv_heads; i++) {
        const float *v = a->v + i * dim;
        float r = xsa_inv(vec_dot(v, v, dim));
        for (size_t h = i * group; h < (i + 1) * group; h++) {
            const float *o = a->o + h * dim;
            xsa_remove(a->y + h * dim, o, v, vec_dot(o, v, dim) * r, dim);
        }
    }
}

static void xsa_fwd(struct kern *k, const struct kern_xsa *a)
{
    cpu_parallel(k->impl, xsa_fwd_task, (void *)(uintptr_t)a, rows_blocks(a->rows));
}

#ifndef KERN_FORWARD_ONLY
/* What one query head adds to dv. */
static void xsa_dv(float *dv, const float *o, const float *dy, const float *v, float co, float cdy,
                   float cv, bool add, size_t dim)
{
    float fo = -cdy, fdy = -co;
    if (!add)
        memset(dv, 0, dim * sizeof *dv);
    vec_fma(dv, o, &fo, dv, dim, true);
    vec_fma(dv, dy, &fdy, dv, dim, true);
    vec_fma(dv, v, &cv, dv, dim, true);
}

static void xsa_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct kern_xsa *a = ctx;
    size_t group = a->heads / a->kv_heads, dim = a->head_dim;
    size_t from = task * KERN_ROW_BLOCK, end = cpu_min(from + KERN_ROW_BLOCK, a->rows);
    (void)thread;
    for (size_t i = from * a->kv_heads; i < end * a->kv_heads; i++) {
        const float *v = a->v + i * dim;
        float ss = vec_dot(v, v, dim), r = xsa_inv(ss), length = ss < XSA_MIN ? 0.0f : 2.0f;
        for (size_t h = i * group; h < (i + 1) * group; h++) {
            const float *o = a->o + h * dim, *dy = a->dy + h * dim;
            float co = vec_dot(o, v, dim) * r, cdy = vec_dot(dy, v, dim) * r;
            xsa_dv(a->dv + i * dim, o, dy, v, co, cdy, length * co * cdy, a->add || h > i * group,
                   dim);
            xsa_remove(a->do_ + h * dim, dy, v, cdy, dim);
        }
    }
}

static void xsa_bwd(struct kern *k, const struct kern_xsa *a)
{
    cpu_parallel(k->impl, xsa_bwd_task, (void *)(uintptr_t)a, rows_blocks(a->rows));
}
#endif

/* shift */

struct shift_job {
    float *y;
    const float *x;
    size_t rows, t, dim;
    bool add; /* backward only */
};

static void shift_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct shift_job *j = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, j->rows), dim = j->dim;
    (void)thread;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++) {
        if (r % j->t == 0)
            memset(j->y + r * dim, 0, dim * sizeof *j->y);
        else
            memcpy(j->y + r * dim, j->x + (r - 1) * dim, dim * sizeof *j->y);
    }
}

static void shift_fwd(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t dim)
{
    struct shift_job j = {.y = y, .x = x, .rows = batch * t, .t = t, .dim = dim};
    cpu_parallel(k->impl, shift_fwd_task, &j, rows_blocks(j.rows));
}

#ifndef KERN_FORWARD_ONLY
static void shift_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct shift_job *j = ctx;
    size_t end = cpu_min((task + 1) * KERN_ROW_BLOCK, j->rows), dim = j->dim;
    (void)thread;
    for (size_t r = task * KERN_ROW_BLOCK; r < end; r++) {
        float *dx = j->y + r * dim;
        const float *dy = j->x + (r + 1) * dim;
        bool last = r % j->t == j->t - 1;
        if (last && !j->add)
            memset(dx, 0, dim * sizeof *dx);
        else if (!j->add)
            memcpy(dx, dy, dim * sizeof *dx);
        else if (!last)
            vec_add(dx, dx, dy, dim);
    }
}

static void shift_bwd(struct kern *k, float *dx, const float *dy, size_t batch, size_t t,
                      size_t dim, bool add)
{
    struct shift_job j = {dx, dy, batch * t, t, dim, add};
    cpu_parallel(k->impl, shift_bwd_task, &j, rows_blocks(j.rows));
}
#endif
