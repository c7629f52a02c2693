/*
 * elem.inc.h - elementwise operations and the optimiser's reductions. Bound by memory: one pass
 * each.
 */

enum {
    ELEM_BLOCK = 4096, /* elements of a task, and of a block of sumsq (kernels.h) */
    ELEM_CHUNK = 256,  /* at a time, where a step needs room of its own */
};

struct elem_job {
    float *y;
    const float *x, *z;
    size_t n, dim;
    float a, b;
    const struct kern_adamw *adamw;
    double *sums;
};

static inline size_t elem_end(const struct elem_job *j, size_t task)
{
    return cpu_min((task + 1) * ELEM_BLOCK, j->n);
}

/* A small build has this for the portable machine only: SLOT takes few and short steps. */
#ifndef KERN_ONCE

/* Lanes that exist at element i of n, at most V16_LANES. */
static inline size_t elem_lanes(size_t i, size_t n)
{
    return cpu_min(V16_LANES, n - i);
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
    for (size_t i = task * ELEM_BLOCK, end = elem_end(j, task); i < end; i += V16_LANES) {
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

#endif

#if !defined(KERN_FORWARD_ONLY) && (defined(KERN_ONCE) || !defined(KERN_SMALL))

static void add_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    size_t at = task * ELEM_BLOCK, n = elem_end(j, task) - at;
    (void)thread;
    vec_add(j->y + at, j->y + at, j->x + at, n);
}

static void add(struct kern *k, float *y, const float *x, size_t n)
{
    struct elem_job j = {.y = y, .x = x, .n = n};
    cpu_parallel(k->impl, add_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

static void mul_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    size_t at = task * ELEM_BLOCK, n = elem_end(j, task) - at;
    (void)thread;
    vec_mul(j->y + at, j->x + at, j->z + at, n);
}

static void mul(struct kern *k, float *dx, const float *dy, const float *f, size_t n)
{
    struct elem_job j = {.y = dx, .x = dy, .z = f, .n = n};
    cpu_parallel(k->impl, mul_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

static void axpby_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    size_t at = task * ELEM_BLOCK, n = elem_end(j, task) - at;
    (void)thread;
    for (size_t i = at, m; i < at + n; i += m) { /* x may be y */
        float t[ELEM_CHUNK];
        m = cpu_min(ELEM_CHUNK, at + n - i);
        vec_scale(t, j->y + i, j->a, m);
        vec_fma(j->y + i, j->x + i, &j->b, t, m, true);
    }
}

static void axpby(struct kern *k, float *y, const float *x, size_t n, float a, float b)
{
    struct elem_job j = {.y = y, .x = x, .n = n, .a = a, .b = b};
    cpu_parallel(k->impl, axpby_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

/* At most ELEM_BLOCK elements. */
static double sumsq_block(const float *x, size_t n)
{
    double part[16] = {0};
    size_t i = 0;
    /* The square of a float is exact in double, so it does not matter whether this becomes an fma.
     */
    for (; n - i >= 16; i += 16)
        for (size_t l = 0; l < 16; l++)
            part[l] += (double)x[i + l] * x[i + l];
    for (size_t l = 0; i + l < n; l++)
        part[l] += (double)x[i + l] * x[i + l];
    for (size_t h = 8; h; h /= 2)
        for (size_t l = 0; l < h; l++)
            part[l] += part[l + h];
    return part[0];
}

static void sumsq_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    size_t at = task * ELEM_BLOCK;
    (void)thread;
    j->sums[task] = sumsq_block(j->x + at, elem_end(j, task) - at);
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

/* x to the nearest number with bf16's 8 significant bits, ties to even. A NaN stays one. */
static float elem_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (!((u & 0x7fffffffu) > 0x7f800000u))
        u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void round_bf16_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    size_t i = task * ELEM_BLOCK, end = elem_end(j, task);
    for (; end - i >= 16; i += 16) /* a known length: compilers make vectors of it */
        for (size_t l = 0; l < 16; l++)
            j->y[i + l] = elem_bf16(j->y[i + l]);
    for (; i < end; i++)
        j->y[i] = elem_bf16(j->y[i]);
}

static void round_bf16(struct kern *k, float *x, size_t n)
{
    struct elem_job j = {.y = x, .n = n};
    cpu_parallel(k->impl, round_bf16_task, &j, cpu_ceil_div(n, ELEM_BLOCK));
}

#endif

#ifndef KERN_NO_OPTIM

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

static void fake_quant_task(void *ctx, size_t task, size_t thread)
{
    const struct elem_job *j = ctx;
    (void)thread;
    const float *x = j->x + task * j->dim;
    float *y = j->y + task * j->dim;
    v16 most = v16_zero();
    for (size_t i = 0; i < j->dim; i += 16)
        most = v16_max(v16_abs(v16_load_n(x + i, elem_lanes(i, j->dim))), most);
    float s = v16_hmax(most) / j->a;
    v16 scale = v16_max(v16_set1(s), v16_set1(j->b)), round = v16_set1(V16_ROUND);
    for (size_t i = 0; i < j->dim; i += 16) {
        size_t lanes = elem_lanes(i, j->dim);
        v16 q = v16_div(v16_load_n(x + i, lanes), scale);
        q = v16_sub(v16_add(q, round), round); /* |q| is at most `levels`: exact */
        v16_store_n(y + i, v16_mul(q, scale), lanes);
    }
}

static void fake_quant(struct kern *k, float *y, const float *x, size_t rows, size_t dim,
                       float levels, float floor)
{
    const float smallest = 0x1p-24f;
    float least = floor / levels;
    struct elem_job j = {.y = y, .x = x, .dim = dim, .a = levels};
    j.b = least > smallest ? least : smallest;
    cpu_parallel(k->impl, fake_quant_task, &j, rows);
}

#endif
