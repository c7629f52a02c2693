/*
 * gemm.inc.h - products of whole matrices: linear layers, their gradients, and gemm for optimisers.
 *
 * All are c[m][n] = a[m][k] b[k][n] with one loop nest (after Goto and van de Geijn, "Anatomy of
 * High-Performance Matrix Multiplication", 2008):
 *
 *   for chunks of k whose packed b fits GEMM_B_FLOATS:
 *     in parallel: pack b                                             shared by all threads
 *     in parallel: for blocks of rows and columns of c (one task owns a block)
 *       for GEMM_KC of k, for GEMM_NC columns:                        packed b: second-level cache
 *         for TILE_MR rows:                                           a: first-level cache
 *           for TILE_NR columns: tile                                 registers
 *
 * a is used where it lies when its rows are contiguous; when it is transposed (gradient of weights)
 * the task packs it. Between chunks and blocks of k the running sum waits in c, so an element stays
 * one chain.
 */

enum {
    GEMM_KC = 256,
    GEMM_NC = 1024,          /* GEMM_KC * GEMM_NC * 4 bytes: half of a 2 MiB second-level cache */
    GEMM_MC = 8 * TILE_MR,   /* rows of a packed at a time */
    GEMM_B_FLOATS = 1 << 21, /* 8 MiB of packed b at a time */
    GEMM_TASKS = 4,          /* tasks per thread: enough to even out a busy machine */
};
_Static_assert(GEMM_NC % TILE_NR == 0, "blocks of columns must be whole panels of b");

struct gemm_job {
    float *c; /* [m][n], the running sums */
    const float *a, *b;
    size_t m, n, k, lda, ldb;
    bool ta, tb, accumulate;
    /* What happens to finished sums, while they are in the cache: */
    enum gemm_end { GEMM_END_NONE, GEMM_END_ACT, GEMM_END_SCALE } end;
    float *out;   /* ACT: f or NULL. SCALE: out (+)= alpha * c, may be c */
    float alpha;  /* ACT: 2*slope^2. SCALE: alpha */
    bool out_add; /* SCALE: add to out */
    /* Set by gemm_run for the tasks: */
    struct cpu *cpu;
    size_t k0, kn; /* the chunk of k */
    size_t mt, nt; /* tasks along m and n */
};

/* Columns of panel-aligned part t of nt. */
static size_t gemm_split(size_t panels, size_t t, size_t nt)
{
    return panels / nt * t + cpu_min(t, panels % nt);
}

static void gemm_pack_task(void *ctx, size_t task, size_t thread)
{
    const struct gemm_job *g = ctx;
    (void)thread;
    /* Blocks of GEMM_KC x GEMM_NC one after another, panels inside a block: the order of use. */
    size_t j = task * TILE_NR, jb = j / GEMM_NC * GEMM_NC;
    size_t nb = cpu_min(GEMM_NC, g->n - jb), nb_padded = packed_b_floats(1, nb);
    for (size_t p = 0; p < g->kn; p += GEMM_KC) {
        size_t kb = cpu_min(GEMM_KC, g->kn - p);
        float *dst = cpu_shared(g->cpu) + jb * g->kn + p * nb_padded + (j - jb) * kb;
        const float *src = g->tb ? g->b + j * g->ldb + g->k0 + p : g->b + (g->k0 + p) * g->ldb + j;
        pack_b(dst, src, g->ldb, g->tb, kb, cpu_min(TILE_NR, g->n - j));
    }
}

/* The end of rows i..i+m of columns j..j+n. */
static void gemm_finish(const struct gemm_job *g, size_t i, size_t m, size_t j, size_t n)
{
    for (size_t r = i; r < i + m; r++) {
        for (size_t q = j; q < j + n; q += 16) {
            size_t at = r * g->n + q, lanes = cpu_min(16, j + n - q);
            v16 c = v16_load_n(g->c + at, lanes), y;
            if (g->end == GEMM_END_ACT) {
                v16 f = v16_mul(v16_sel_gt(c, v16_zero(), v16_set1(2), v16_set1(g->alpha)), c);
                if (g->out)
                    v16_store_n(g->out + at, f, lanes);
                y = v16_mul(v16_mul(v16_set1(0.5f), f), c);
                v16_store_n(g->c + at, y, lanes);
            } else {
                y = v16_mul(v16_set1(g->alpha), c);
                if (g->out_add)
                    y = v16_add(v16_load_n(g->out + at, lanes), y);
                v16_store_n(g->out + at, y, lanes);
            }
        }
    }
}

static void gemm_task(void *ctx, size_t task, size_t thread)
{
    const struct gemm_job *g = ctx;
    size_t mp = cpu_ceil_div(g->m, TILE_MR), np = cpu_ceil_div(g->n, TILE_NR);
    size_t it = task / g->nt, jt = task % g->nt;
    size_t i0 = gemm_split(mp, it, g->mt) * TILE_MR, j0 = gemm_split(np, jt, g->nt) * TILE_NR;
    size_t i1 = cpu_min(g->m, gemm_split(mp, it + 1, g->mt) * TILE_MR);
    size_t j1 = cpu_min(g->n, gemm_split(np, jt + 1, g->nt) * TILE_NR);
    float *pa = cpu_scratch(g->cpu, thread);
    for (size_t p = 0; p < g->kn || p == 0; p += GEMM_KC) {
        size_t kb = cpu_min(GEMM_KC, g->kn - p), kat = g->k0 + p;
        bool add = g->accumulate || kat > 0, last = kat + kb == g->k;
        for (size_t j = j0; j < j1;) {
            size_t jb = j / GEMM_NC * GEMM_NC,
                   nb_padded = packed_b_floats(1, cpu_min(GEMM_NC, g->n - jb));
            size_t nb = cpu_min(jb + GEMM_NC, j1) - j;
            const float *pb = cpu_shared(g->cpu) + jb * g->kn + p * nb_padded + (j - jb) * kb;
            for (size_t i = i0; i < i1; i += GEMM_MC) {
                size_t mb = cpu_min(GEMM_MC, i1 - i);
                if (g->ta) {
                    pack_a(pa, g->a + kat * g->lda + i, g->lda, true, mb, kb);
                    tile_gemm(g->c + i * g->n + j, g->n, pa, pb, mb, nb, kb, add);
                } else {
                    tile_gemm_at(g->c + i * g->n + j, g->n, g->a + i * g->lda + kat, g->lda, 1, pb,
                                 mb, nb, kb, add);
                }
                if (last && g->end != GEMM_END_NONE)
                    gemm_finish(g, i, mb, j, nb);
            }
            j += nb;
        }
    }
}

static void gemm_run(struct kern *k, struct gemm_job *g)
{
    g->cpu = k->impl;
    if (g->m == 0 || g->n == 0)
        return;
    size_t mp = cpu_ceil_div(g->m, TILE_MR), np = cpu_ceil_div(g->n, TILE_NR);
    size_t chunk = GEMM_B_FLOATS / (np * TILE_NR) / GEMM_KC * GEMM_KC;
    if (chunk < GEMM_KC)
        chunk = GEMM_KC;
    size_t packed = np * TILE_NR * cpu_min(chunk, g->k);
    if (!cpu_reserve(g->cpu, packed + (g->out_add ? g->m * g->n : 0),
                     g->ta ? GEMM_MC * GEMM_KC : 0))
        return;
    if (g->out_add) /* the product is complete before it is added */
        g->c = cpu_shared(g->cpu) + packed;
    size_t want = g->cpu->threads > 1 ? g->cpu->threads * GEMM_TASKS : 1;
    g->mt = cpu_min(mp, want);
    g->nt = cpu_min(np, cpu_ceil_div(want, g->mt));
    for (g->k0 = 0; g->k0 < g->k || g->k0 == 0; g->k0 += chunk) {
        g->kn = cpu_min(chunk, g->k - g->k0);
        cpu_parallel(g->cpu, gemm_pack_task, g, np);
        cpu_parallel(g->cpu, gemm_task, g, g->mt * g->nt);
    }
}

static void linear_fwd(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                       size_t n_out, size_t n_in)
{
    struct gemm_job g = {.c = y, .a = x, .b = w, .m = rows, .n = n_out, .k = n_in};
    g.lda = g.ldb = n_in;
    g.tb = true;
    gemm_run(k, &g);
}

static void linear_act_fwd(struct kern *k, float *y, float *f, const float *x, const float *w,
                           size_t rows, size_t n_out, size_t n_in, float slope)
{
    struct gemm_job g = {.c = y, .a = x, .b = w, .m = rows, .n = n_out, .k = n_in};
    g.lda = g.ldb = n_in;
    g.tb = true;
    g.end = GEMM_END_ACT;
    g.out = f;
    g.alpha = 2 * slope * slope;
    gemm_run(k, &g);
}

#ifndef KERN_FORWARD_ONLY

static void linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                         size_t n_out, size_t n_in, bool add)
{
    struct gemm_job g = {.c = dx, .a = dy, .b = w, .m = rows, .n = n_in, .k = n_out};
    g.lda = n_out;
    g.ldb = n_in;
    g.accumulate = add;
    gemm_run(k, &g);
}

static void linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                         size_t n_out, size_t n_in)
{
    struct gemm_job g = {.c = dw, .a = dy, .b = x, .m = n_out, .n = n_in, .k = rows};
    g.lda = n_out;
    g.ldb = n_in;
    g.ta = g.accumulate = true;
    gemm_run(k, &g);
}

static void gemm(struct kern *k, float *c, const float *a, const float *b, size_t m, size_t n,
                 size_t kk, bool ta, bool tb, float alpha, float beta)
{
    struct gemm_job g = {.c = c, .a = a, .b = b, .m = m, .n = n, .k = kk, .ta = ta, .tb = tb};
    g.lda = ta ? m : kk;
    g.ldb = tb ? kk : n;
    g.out = c;
    g.out_add = beta != 0;
    g.alpha = alpha;
    g.end = alpha != 1 || g.out_add ? GEMM_END_SCALE : GEMM_END_NONE;
    gemm_run(k, &g);
}

#endif
