/*
 * gemm_small.inc.h - what gemm.inc.h does, for runners: linear layers and their gradients in the
 * least code, at nearly the same speed.
 *
 *   in parallel: for blocks of rows and columns of c (a task owns its block)
 *     for GEMM_KC of k: pack b                             second-level cache
 *       for TILE_MR rows:                                  a: first-level cache
 *         for TILE_NR columns: tile                        registers
 */

enum {
    GEMM_KC = 512, /* packed b: GEMM_KC * GEMM_NC * 4 bytes, half of a 2 MiB second-level cache */
    GEMM_NC = 512, /* columns of a task, at most */
    GEMM_ROWS = 1024, /* rows that pay for packing b */
    GEMM_COLS = 128,
    GEMM_TASKS = 3, /* tasks per thread: enough to even out a busy machine */
};

struct gemm_job {
    struct cpu *cpu;
    float *c; /* [m][n], the running sums */
    const float *a, *b;
    size_t m, n, k, rs, cs, ldb; /* element (i, p) of a is a[i*rs + p*cs] */
    bool tb, accumulate;
    bool act; /* linear_act_fwd: f or NULL, and 2*slope^2 */
    float *f, below;
    size_t mt, nt; /* tasks along m and n */
};

/* The first of n (in whole tiles) that belongs to part t of `parts`. */
static size_t gemm_split(size_t n, size_t tile, size_t t, size_t parts)
{
    return cpu_min(n, cpu_ceil_div(n, tile) * t / parts * tile);
}

static void gemm_task(void *ctx, size_t task, size_t thread)
{
    const struct gemm_job *g = ctx;
    size_t it = task % g->mt, jt = task / g->mt;
    size_t i0 = gemm_split(g->m, TILE_MR, it, g->mt), i1 = gemm_split(g->m, TILE_MR, it + 1, g->mt);
    size_t j0 = gemm_split(g->n, TILE_NR, jt, g->nt), j1 = gemm_split(g->n, TILE_NR, jt + 1, g->nt);
    float *pb = cpu_scratch(g->cpu, thread), *c = g->c + i0 * g->n + j0;
    size_t n = j1 - j0, p = 0;
    do {
        size_t kb = cpu_min(GEMM_KC, g->k - p);
        pack_b(pb, g->tb ? g->b + j0 * g->ldb + p : g->b + p * g->ldb + j0, g->ldb, g->tb, kb, n);
        const struct cpu_tile t = {c,       g->n,  g->a + i0 * g->rs + p * g->cs,
                                   g->rs,   g->cs, pb,
                                   TILE_NR, kb,    g->accumulate || p ? UINT32_MAX : 0};
        tile_gemm_at(&t, i1 - i0, n);
        p += kb;
    } while (p < g->k);
    if (g->act)
        for (size_t i = i0; i < i1; i++, c += g->n)
            vec_act(c, KERN_SAVES && g->f ? g->f + i * g->n + j0 : NULL, g->below, n);
}

static void gemm_run(struct kern *k, struct gemm_job *g)
{
    g->cpu = k->impl;
    size_t want = GEMM_TASKS * g->cpu->threads - GEMM_TASKS + 1;
    if (!g->m)
        return;
    g->mt = cpu_ceil_div(g->m, GEMM_ROWS);
    g->nt = cpu_min(cpu_ceil_div(g->n, GEMM_COLS), g->n / GEMM_NC + cpu_ceil_div(want, g->mt));
    if (g->mt * g->nt < want)
        g->mt = cpu_min(cpu_ceil_div(g->m, TILE_MR), cpu_ceil_div(want, g->nt));
    cpu_reserve(g->cpu, 0, GEMM_KC * (GEMM_NC + TILE_NR));
    cpu_parallel(g->cpu, gemm_task, g, g->mt * g->nt);
}

static void linear_fwd(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                       size_t n_out, size_t n_in)
{
    struct gemm_job g = {.c = y, .a = x, .b = w, .m = rows, .n = n_out, .k = n_in};
    g.rs = g.ldb = n_in;
    g.cs = 1;
    g.tb = true;
    gemm_run(k, &g);
}

static void linear_act_fwd(struct kern *k, float *y, float *f, const float *x, const float *w,
                           size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct gemm_job g = {.c = y, .a = x, .b = w, .m = rows, .n = n_out, .k = n_in};
    g.rs = g.ldb = n_in;
    g.cs = 1;
    g.tb = g.act = true;
    g.f = KERN_SAVES ? f : NULL;
    g.below = 2 * slope * slope;
    gemm_run(k, &g);
}

static void linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                         size_t n_out, size_t n_in, bool add)
{
    struct gemm_job g = {.c = dx, .a = dy, .b = w, .m = rows, .n = n_in, .k = n_out};
    g.rs = n_out;
    g.cs = 1;
    g.ldb = n_in;
    g.accumulate = add;
    gemm_run(k, &g);
}

#ifndef KERN_FORWARD_ONLY
static void linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                         size_t n_out, size_t n_in)
{
    struct gemm_job g = {.c = dw, .a = dy, .b = x, .m = n_out, .n = n_in, .k = rows};
    g.rs = 1;
    g.cs = n_out;
    g.ldb = n_in;
    g.accumulate = true;
    gemm_run(k, &g);
}
#endif
