/*
 * elem.inc.h - elementwise operations and the optimiser's reductions. Bound by memory: one pass
 * each.
 */
#ifndef KERN_FORWARD_ONLY

enum { ELEM_BLOCK = 4096 }; /* elements of a task, and of a block of sumsq (kernels.h) */

struct elem_job {
    float *y;
    const float *x, *z;
    size_t n, dim;
    float a, b;
    const struct kern_adamw *adamw;
    double *sums;
};

/* Lanes that exist at element i of n, at most 16. */
static inline size_t elem_lanes(size_t i, size_t n)
{
    return cpu_min(16, n - i);
}

static size_t elem_end(const struct elem_job *j, size_t task)
{
    return cpu_min((task + 1) * ELEM_BLOCK, j->n);
}

static void mul_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    for (size_t i = task * ELEM_BLOCK, end = elem_end(j, task); i < end; i += 16) {
        size_t lanes = elem_lanes(i, end);
        v16_store_n(j->y + i, v16_mul(v16_load_n(j->x + i, lanes), v16_load_n(j->z + i, lanes)),
                    lanes);
    }
}

static void mul(struct kern *k, float *dx, const float *dy, const float *f, size_t n)
{
    struct elem_job j = {.y = dx, .x = dy, .z = f, .n = n};
    cpu_parallel(k->impl, mul_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

static void add_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    for (size_t i = task * ELEM_BLOCK, end = elem_end(j, task); i < end; i += 16) {
        size_t lanes = elem_lanes(i, end);
        v16_store_n(j->y + i, v16_add(v16_load_n(j->y + i, lanes), v16_load_n(j->x + i, lanes)),
                    lanes);
    }
}

static void add(struct kern *k, float *y, const float *x, size_t n)
{
    struct elem_job j = {.y = y, .x = x, .n = n};
    cpu_parallel(k->impl, add_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

static void axpby_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    v16 a = v16_set1(j->a), b = v16_set1(j->b);
    for (size_t i = task * ELEM_BLOCK, end = elem_end(j, task); i < end; i += 16) {
        size_t lanes = elem_lanes(i, end);
        v16 ay = v16_mul(a, v16_load_n(j->y + i, lanes));
        v16_store_n(j->y + i, v16_fma(b, v16_load_n(j->x + i, lanes), ay), lanes);
    }
}

static void axpby(struct kern *k, float *y, const float *x, size_t n, float a, float b)
{
    struct elem_job j = {.y = y, .x = x, .n = n, .a = a, .b = b};
    cpu_parallel(k->impl, axpby_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

/* b^n by squaring, in double: the same on every machine, and exact enough for any step count. */
static double elem_power(double b, size_t n)
{
    double r = 1;
    for (; n; n /= 2, b *= b)
        if (n % 2)
            r *= b;
    return r;
}

static void adamw_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    const struct kern_adamw *a = j->adamw;
    (void)thread;
    v16 keep = v16_set1(1 - a->lr * a->wd);
    v16 b1 = v16_set1(a->b1), b2 = v16_set1(a->b2), c1 = v16_set1(1 - a->b1),
        c2 = v16_set1(1 - a->b2);
    v16 step = v16_set1(j->a), root = v16_set1(j->b), eps = v16_set1(a->eps);
    for (size_t i = task * ELEM_BLOCK, end = elem_end(j, task); i < end; i += 16) {
        size_t lanes = elem_lanes(i, end);
        v16 g = v16_load_n(a->g + i, lanes), p = v16_load_n(a->p + i, lanes);
        v16 m = v16_fma(c1, g, v16_mul(b1, v16_load_n(a->m + i, lanes)));
        v16 v = v16_fma(v16_mul(c2, g), g, v16_mul(b2, v16_load_n(a->v + i, lanes)));
        v16 d = v16_add(v16_div(v16_sqrt(v), root), eps);
        p = v16_sub(v16_mul(p, keep), v16_mul(step, v16_div(m, d)));
        v16_store_n(a->m + i, m, lanes);
        v16_store_n(a->v + i, v, lanes);
        v16_store_n(a->p + i, p, lanes);
    }
}

static void adamw(struct kern *k, const struct kern_adamw *a)
{
    struct elem_job j = {.n = a->n, .adamw = a};
    j.a = (float)(a->lr / (1 - elem_power(a->b1, a->step)));
    j.b = (float)__builtin_sqrt(1 - elem_power(a->b2, a->step));
    cpu_parallel(k->impl, adamw_task, &j, cpu_ceil_div(a->n, ELEM_BLOCK));
}

static void sumsq_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    double part[16] = {0};
    size_t i = task * ELEM_BLOCK, end = elem_end(j, task);
    /* The square of a float is exact in double, so it does not matter whether this becomes an fma.
     */
    for (; end - i >= 16; i += 16)
        for (size_t l = 0; l < 16; l++)
            part[l] += (double)j->x[i + l] * j->x[i + l];
    for (size_t l = 0; i + l < end; l++)
        part[l] += (double)j->x[i + l] * j->x[i + l];
    for (size_t h = 8; h; h /= 2)
        for (size_t l = 0; l < h; l++)
            part[l] += part[l + h];
    j->sums[task] = part[0];
}

static double sumsq(struct kern *k, const float *x, size_t n)
{
    struct cpu *c = k->impl;
    size_t blocks = cpu_ceil_div(n, ELEM_BLOCK);
    if (!cpu_reserve(c, 2 * blocks, 0))
        return 0;
    struct elem_job j = {.x = x, .n = n};
    j.sums = (double *)(void *)cpu_shared(c);
    cpu_parallel(c, sumsq_task, &j, blocks);
    double sum = 0;
    for (size_t i = 0; i < blocks; i++)
        sum += j.sums[i];
    return sum;
}

static void row_normalize_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    float *x = j->y + task * j->dim;
    v16 ss = v16_zero();
    for (size_t i = 0; i < j->dim; i += 16) {
        v16 v = v16_load_n(x + i, elem_lanes(i, j->dim));
        ss = v16_fma(v, v, ss);
    }
    v16 norm = v16_max(v16_sqrt(v16_set1(v16_sum(ss))), v16_set1(j->a));
    for (size_t i = 0; i < j->dim; i += 16) {
        size_t lanes = elem_lanes(i, j->dim);
        v16_store_n(x + i, v16_div(v16_load_n(x + i, lanes), norm), lanes);
    }
}

static void row_normalize(struct kern *k, float *x, size_t rows, size_t dim, float eps)
{
    struct elem_job j = {.y = x, .dim = dim, .a = eps};
    cpu_parallel(k->impl, row_normalize_task, &j, rows);
}

#endif
