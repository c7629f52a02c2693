/*
 * gemm.inc.h - products of whole matrices: linear layers, their gradients, and gemm for optimisers.
 *
 * All are c[m][n] = a[m][k] b[k][n] with one loop nest (after Goto and van de Geijn, "Anatomy of
 * High-Performance Matrix Multiplication", 2008):
 *
 *   in parallel: for blocks of rows and columns of c (a task owns its block)
 *     for GEMM_NC columns, for GEMM_KC of k: pack b             second-level cache
 *       for GEMM_MC rows
 *         for TILE_MR rows:                                     a: first-level cache
 *           for TILE_NR columns: tile                           registers
 *
 * a is used where it lies when its rows are contiguous; when it is transposed (gradient of weights)
 * it is packed, GEMM_MC rows at a time. Between blocks of k the running sum waits in c, so an
 * element stays one chain. Tasks share nothing: packing b once for all threads instead needs a
 * second barrier, and the packed matrix then leaves the second-level cache (measured: 10 to 20 %
 * slower on one thread).
 */

enum {
    GEMM_KC = 512, /* packed b: GEMM_KC * GEMM_NC * 4 bytes, half of a 2 MiB second-level cache */
    GEMM_NC = 512,
    GEMM_MC = 112 / TILE_MR * TILE_MR,
    GEMM_TASK_ROWS = 1024, /* rows that pay for packing b */
    GEMM_TASK_COLS = 128,
    GEMM_TASKS = 3, /* tasks per thread: enough to even out a busy machine */
};
/* Runners know fewer forms, the smaller one only a as it lies; what is not needed drops out. */
#ifdef KERN_FORWARD_ONLY
enum { GEMM_ALL_FORMS = 0, GEMM_TA = 0 };
#elif defined(KERN_NO_OPTIM)
enum { GEMM_ALL_FORMS = 0, GEMM_TA = 1 };
#else
enum { GEMM_ALL_FORMS = 1, GEMM_TA = 1 };
#endif
_Static_assert(GEMM_NC % TILE_NR == 0, "a block of columns is whole panels");

struct gemm_job {
    float *c; /* [m][n], the running sums */
    const float *a, *b;
    size_t m, n, k, lda, ldb;
    bool ta, tb, accumulate;
    bool symmetric; /* a is b and c = c^T bit by bit: only what lies right of the diagonal is
                       computed */
    /* What happens to finished sums, while they are in the cache: */
    enum gemm_end { GEMM_END_NONE, GEMM_END_ACT, GEMM_END_SCALE } end;
    float *out;   /* ACT: f or NULL. SCALE: out (+)= alpha * c, may be c */
    float alpha;  /* ACT: 2*slope^2. SCALE: alpha */
    bool out_add; /* SCALE: add to out */
    /* Set by gemm_run for the tasks: */
    struct cpu *cpu;
    size_t mt, nt;   /* tasks along m and n */
    size_t packed_b; /* floats of scratch before the packed a */
    size_t *held;    /* by thread: the block of columns that its packed b holds, or none */
};

/* The first of n (in whole tiles) that belongs to part t of `parts`. */
static size_t gemm_split(size_t n, size_t tile, size_t t, size_t parts)
{
    size_t tiles = cpu_ceil_div(n, tile);
    return cpu_min(n, tile * (tiles / parts * t + cpu_min(t, tiles % parts)));
}

/* The end of rows i..i+m of columns j..j+n. */
static void gemm_finish(const struct gemm_job *g, size_t i, size_t m, size_t j, size_t n)
{
    for (size_t r = i; r < i + m; r++) {
        float *c = g->c + r * g->n + j, *out = g->out ? g->out + r * g->n + j : NULL;
        if (!GEMM_ALL_FORMS || g->end == GEMM_END_ACT) {
            vec_act(c, out, g->alpha, n);
        } else if (g->out_add) {
            vec_scale(c, c, g->alpha, n);
            vec_add(out, out, c, n);
        } else {
            vec_scale(out, c, g->alpha, n);
        }
    }
}

static void gemm_task(void *ctx, size_t task, size_t thread)
{
    const struct gemm_job *g = ctx;
    size_t it = task % g->mt, jt = task / g->mt;
    if (GEMM_ALL_FORMS &&
        g->symmetric) /* the last columns have most left of the work: start there */
        jt = g->nt - 1 - jt;
    size_t i0 = gemm_split(g->m, TILE_MR, it, g->mt), i1 = gemm_split(g->m, TILE_MR, it + 1, g->mt);
    size_t j0 = gemm_split(g->n, TILE_NR, jt, g->nt), j1 = gemm_split(g->n, TILE_NR, jt + 1, g->nt);
    bool ta = GEMM_TA && g->ta, tb = g->tb;
    float *pb = cpu_scratch(g->cpu, thread), *pa = pb + g->packed_b;
    /* A task's only block of b may still be there from the thread's task before. */
    bool once = j1 - j0 <= GEMM_NC && g->k <= GEMM_KC;
    for (size_t j = j0, n; j < j1; j += n) {
        n = cpu_min(GEMM_NC, j1 - j);
        size_t p = 0, kb;
        do {
            kb = cpu_min(GEMM_KC, g->k - p);
            bool add = g->accumulate || p > 0;
            if (!once || g->held[thread] != jt)
                pack_b(pb, tb ? g->b + j * g->ldb + p : g->b + p * g->ldb + j, g->ldb, tb, kb, n);
            g->held[thread] = jt;
            for (size_t i = i0, m; i < i1; i += m) {
                m = cpu_min(GEMM_MC, i1 - i);
                /* Whole panels left of the diagonal of a symmetric product are skipped. */
                size_t skip = GEMM_ALL_FORMS && g->symmetric && i > j
                                  ? cpu_min(n, (i - j) / TILE_NR * TILE_NR)
                                  : 0;
                float *c = g->c + i * g->n + j + skip, *panel = pb + skip * kb;
                if (skip == n)
                    continue;
                if (ta) {
                    pack_a(pa, g->a + p * g->lda + i, g->lda, true, m, kb);
                    tile_gemm(c, g->n, pa, panel, m, n - skip, kb, add);
                } else {
                    tile_gemm_at(c, g->n, g->a + i * g->lda + p, g->lda, 1, panel, m, n - skip, kb,
                                 add);
                }
                if (p + kb == g->k && g->end != GEMM_END_NONE)
                    gemm_finish(g, i, m, j + skip, n - skip);
            }
            p += kb;
        } while (p < g->k);
    }
}

/* In how many parts, of at least `size`, to cut n so that parts * others reaches `want`. */
static size_t gemm_parts(size_t n, size_t size, size_t want, size_t others)
{
    return cpu_min(cpu_ceil_div(n, size), cpu_ceil_div(want, others));
}

static void gemm_run(struct kern *k, struct gemm_job *g)
{
    g->cpu = k->impl;
    if (g->m == 0 || g->n == 0)
        return;
    size_t kb = cpu_min(GEMM_KC, g->k);
    g->packed_b = packed_b_floats(kb, cpu_min(GEMM_NC, g->n));
    bool beside = GEMM_ALL_FORMS && g->out_add;
    size_t tags = 2 * g->cpu->threads; /* floats that hold g->held */
    if (!cpu_reserve(g->cpu, tags + (beside ? g->m * g->n : 0),
                     g->packed_b + (GEMM_TA && g->ta ? GEMM_MC * kb : 0)))
        return;
    g->held = (size_t *)(void *)cpu_shared(g->cpu);
    memset(g->held, 0xff, g->cpu->threads * sizeof *g->held);
    if (beside) /* the product is complete before it is added */
        g->c = cpu_shared(g->cpu) + tags;
    /* When blocks of GEMM_TASK_ROWS rows are too few for the threads: first fewer columns (b is
     * then still packed once), then fewer rows, at last single tiles. An a that must be packed is
     * packed again for every block of columns, so there one task per thread has to do, and the
     * longer side is cut: a thread packs its part of that and all of the other. */
    size_t tasks = GEMM_TA && g->ta ? 1 : GEMM_TASKS;
    size_t want = g->cpu->threads > 1 ? g->cpu->threads * tasks : 1;
    g->mt = cpu_ceil_div(g->m, GEMM_TASK_ROWS);
    if (GEMM_TA && g->ta && g->m > g->n)
        g->mt = gemm_parts(g->m, GEMM_TASK_COLS, want, 1);
    g->nt = gemm_parts(g->n, GEMM_TASK_COLS, want, g->mt);
    if (g->mt * g->nt < want)
        g->mt = gemm_parts(g->m, GEMM_MC / 2, want, g->nt);
    if (g->mt * g->nt < want)
        g->nt = gemm_parts(g->n, TILE_NR, want, g->mt);
    if (g->mt * g->nt < want)
        g->mt = gemm_parts(g->m, TILE_MR, want, g->nt);
    cpu_parallel(g->cpu, gemm_task, g, g->mt * g->nt);
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

static void linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                         size_t n_out, size_t n_in, bool add)
{
    struct gemm_job g = {.c = dx, .a = dy, .b = w, .m = rows, .n = n_in, .k = n_out};
    g.lda = n_out;
    g.ldb = n_in;
    g.accumulate = add;
    gemm_run(k, &g);
}

#ifndef KERN_FORWARD_ONLY

static void linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                         size_t n_out, size_t n_in)
{
    struct gemm_job g = {.c = dw, .a = dy, .b = x, .m = n_out, .n = n_in, .k = rows};
    g.lda = n_out;
    g.ldb = n_in;
    g.ta = g.accumulate = true;
    gemm_run(k, &g);
}

#endif

#ifndef KERN_NO_OPTIM

enum { MIRROR = 32 }; /* a block of 4 KB to read and one to write */

/* One row of blocks left of the diagonal, from the columns above it. */
static void gemm_mirror_task(void *ctx, size_t task, size_t thread)
{
    const struct gemm_job *g = ctx;
    size_t i0 = task * MIRROR, i1 = cpu_min(i0 + MIRROR, g->m);
    (void)thread;
    for (size_t j0 = 0; j0 <= i0; j0 += MIRROR)
        for (size_t i = i0; i < i1; i++)
            for (size_t j = j0; j < cpu_min(j0 + MIRROR, i); j++)
                g->c[i * g->n + j] = g->c[j * g->n + i];
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
    /* a a^T and a^T a: elements (i,j) and (j,i) are the same chain with the factors of each product
     * exchanged, which changes no bit. */
    g.symmetric = a == b && ta != tb && m == n && !g.out_add;
    gemm_run(k, &g);
    if (g.symmetric)
        cpu_parallel(g.cpu, gemm_mirror_task, &g, cpu_ceil_div(m, MIRROR));
}

#endif
