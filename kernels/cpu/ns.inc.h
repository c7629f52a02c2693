/*
 * ns.inc.h - Newton-Schulz orthogonalisation of many matrices (kern_ns of kernels.h).
 *
 * The matrices of an optimiser step are small, and each is a chain of products that wait for one
 * another: shared out product by product, threads mostly wait. So a task is a whole matrix, on one
 * thread with buffers of its own; only the last matrices, fewer than threads, are shared out stage
 * by stage. Both ways run the same stages, and every element is the same chain of operations.
 *
 * Stages, for X with n = min(rows, cols) and all other matrices n x n and symmetric:
 *
 *   normalise  X = X / (|X|_F + eps)
 *   gram       A = X X^T, or X^T X when X is tall
 *   poly       B = fma(c, A A, b*A), then + a on the diagonal
 *   multiply   of two symmetric matrices that commute, so that the product is symmetric
 *   apply      X = Q X, or X Q when X is tall, in place
 *
 * A step is gram, poly, apply with Q = B. When X is not square, up to NS_BLOCK steps are done on
 * the small side: Q = B..B B collects the polynomials, A = (B A) B follows what Q X would give, and
 * X is touched once for all of them. With r = long/short, five steps are 3 r + 7 products of n x n
 * x n instead of 7.5 r + 2.5 (a symmetric product counts half). Where X has nothing, Q is a^steps,
 * and so is the factor on its rounding errors: gradients of rank 20, against a step at a time, came
 * out 5e-5 apart in blocks of three (as far as single steps lie from the formula operation by
 * operation) and 1e-3 apart in one block of five.
 *
 * Of a symmetric result element (i, j) with i <= j is computed, then copied to (j, i).
 */
#ifndef KERN_NO_OPTIM

enum {
    NS_BLOCK = 3,
    NS_KC = 512,   /* rows of b, and */
    NS_COLS = 512, /* columns, packed at a time: half of a 2 MiB second-level cache */
    NS_MC = 112 / TILE_MR * TILE_MR,
    NS_PARTS = 2, /* parts per thread of a stage that is shared out */
};
_Static_assert(TILE_NR % 16 == 0, "a mirrored block of 16 lies in one panel");

struct ns_run {
    const struct kern_ns *a;
    struct cpu *cpu;
    size_t first; /* number of the matrix that is task 0 */
    size_t n, len, ld;
    bool tall;
    size_t pack_floats, rows_floats; /* of a thread: packed b, then packed or copied rows of a */
    /* The matrix at work: */
    bool shared;
    size_t parts, thread; /* shared: parts of a stage; otherwise one part, on this thread */
    float *x;
    float *gram, *poly, *q, *spare; /* [ld][ld] each */
    const float *f, *g;             /* factors of the multiply stage, and where its result goes: */
    float *to;
};

/* Columns first..end of the symmetric matrices that a part owns. Later columns have more rows above
 * the diagonal: they go first. */
static size_t ns_cols(const struct ns_run *r, size_t part, size_t *end)
{
    size_t p = r->parts - 1 - part;
    *end = gemm_split(r->ld, TILE_NR, p + 1, r->parts);
    return gemm_split(r->ld, TILE_NR, p, r->parts);
}

static float *ns_pack(const struct ns_run *r, size_t thread)
{
    return cpu_scratch(r->cpu, thread);
}

static float *ns_rows(const struct ns_run *r, size_t thread)
{
    return ns_pack(r, thread) + r->pack_floats;
}

/* Copies columns j0..j1 above the diagonal to rows j0..j1 left of it. Both are multiples of 16. */
static void ns_mirror(float *c, size_t ld, size_t j0, size_t j1)
{
    for (size_t j = j0; j < j1; j += 4)
        for (size_t i = 0; i < j + 4; i += 16) {
            v16 col[4];
            v16_load_cols4(c + i * ld + j, ld, col);
            for (size_t q = 0; q < 4 && i < j + q; q++)
                v16_store_n(c + (j + q) * ld + i, col[q], cpu_min(16, j + q - i));
        }
}

/*
 * Rows i..i+m of columns j0..j1 of c = f g, from what lies right of the diagonal: f is used where
 * it lies (or packed: cs = TILE_MR), pb holds columns j0..j1 of g. Rows behind j1 are left alone:
 * they are another part's to mirror.
 */
static void ns_symmetric_rows(const struct ns_run *r, float *c, const float *f, size_t rs,
                              size_t cs, const float *pb, size_t i, size_t j0, size_t j1, size_t k,
                              bool accumulate)
{
    size_t skip = i > j0 ? (i - j0) / TILE_NR * TILE_NR : 0;
    if (skip >= j1 - j0)
        return;
    tile_gemm_at(c + i * r->ld + j0 + skip, r->ld, f, rs, cs, pb + skip * k,
                 cpu_min(TILE_MR, cpu_min(r->n, j1) - i), j1 - j0 - skip, k, accumulate);
}

static void ns_gram(void *ctx, size_t part, size_t thread)
{
    const struct ns_run *r = ctx;
    float *pb = ns_pack(r, thread), *pa = ns_rows(r, thread);
    size_t j0, j1, ldx = r->tall ? r->n : r->len;
    for (j0 = ns_cols(r, part, &j1); j0 < j1; j0 += NS_COLS) {
        size_t end = cpu_min(j0 + NS_COLS, j1), have = cpu_min(end, r->n);
        for (size_t p = 0, kb; p < r->len; p += kb) {
            kb = cpu_min(NS_KC, r->len - p);
            pack_b(pb, r->tall ? r->x + p * ldx + j0 : r->x + j0 * ldx + p, ldx, !r->tall, kb,
                   have - j0);
            for (size_t i = 0; i < have; i += TILE_MR) {
                if (!r->tall) {
                    ns_symmetric_rows(r, r->gram, r->x + i * ldx + p, ldx, 1, pb, i, j0, end, kb,
                                      p > 0);
                    continue;
                }
                if (i % NS_MC == 0)
                    pack_a(pa, r->x + p * ldx + i, ldx, true, cpu_min(NS_MC, r->n - i), kb);
                ns_symmetric_rows(r, r->gram, pa + i % NS_MC * kb, 1, TILE_MR, pb, i, j0, end, kb,
                                  p > 0);
            }
        }
        ns_mirror(r->gram, r->ld, j0, end);
    }
}

/* to = f g for columns of the part; with `poly` f and g are A, and the polynomial is completed. */
static void ns_product(const struct ns_run *r, size_t part, size_t thread, bool poly)
{
    float *pb = ns_pack(r, thread);
    v16 b = v16_set1(r->a->b), c = v16_set1(r->a->c);
    size_t j0, j1;
    for (j0 = ns_cols(r, part, &j1); j0 < j1; j0 += NS_COLS) {
        size_t end = cpu_min(j0 + NS_COLS, j1), have = cpu_min(end, r->n);
        pack_b(pb, r->g + j0, r->ld, false, r->n, end - j0);
        for (size_t i = 0; i < have; i += TILE_MR) {
            ns_symmetric_rows(r, r->to, r->f + i * r->ld, r->ld, 1, pb, i, j0, end, r->n, false);
            for (size_t row = i; poly && row < cpu_min(i + TILE_MR, r->n); row++) {
                float *to = r->to + row * r->ld;
                const float *a = r->g + row * r->ld;
                for (size_t j = row > j0 ? row / 16 * 16 : j0; j < end; j += 16)
                    v16_store(to + j, v16_fma(c, v16_load(to + j), v16_mul(b, v16_load(a + j))));
                if (row >= j0 && row < end)
                    to[row] += r->a->a;
            }
        }
        ns_mirror(r->to, r->ld, j0, end);
    }
}

static void ns_poly(void *ctx, size_t part, size_t thread)
{
    ns_product(ctx, part, thread, true);
}

static void ns_multiply(void *ctx, size_t part, size_t thread)
{
    ns_product(ctx, part, thread, false);
}

/* A part of a wide X is columns, of a tall one rows: what is overwritten is then read by nobody
 * else. */
static void ns_apply(void *ctx, size_t part, size_t thread)
{
    const struct ns_run *r = ctx;
    float *pb = ns_pack(r, thread), *rows = ns_rows(r, thread);
    if (!r->tall) {
        size_t j1 = gemm_split(r->len, TILE_NR, part + 1, r->parts);
        for (size_t j = gemm_split(r->len, TILE_NR, part, r->parts), n; j < j1; j += n) {
            n = cpu_min(NS_COLS, j1 - j);
            pack_b(pb, r->x + j, r->len, false, r->n, n);
            tile_gemm_at(r->x + j, r->len, r->q, r->ld, 1, pb, r->n, n, r->n, false);
        }
        return;
    }
    pack_b(pb, r->q, r->ld, false, r->n, r->n);
    size_t i1 = gemm_split(r->len, TILE_MR, part + 1, r->parts);
    for (size_t i = gemm_split(r->len, TILE_MR, part, r->parts); i < i1; i += TILE_MR) {
        size_t m = cpu_min(TILE_MR, i1 - i);
        float *x = r->x + i * r->n;
        memcpy(rows, x, m * r->n * sizeof *x);
        tile_gemm_at(x, r->n, rows, r->n, 1, pb, m, r->n, r->n, false);
    }
}

/* In blocks as sumsq and axpby (elem.inc.h) take them. */
static void ns_normalise(const struct ns_run *r)
{
    struct elem_job j = {.y = r->x, .x = r->x, .n = r->n * r->len};
    double sum = 0;
    for (size_t i = 0; i < j.n; i += ELEM_BLOCK)
        sum += sumsq_block(r->x + i, cpu_min(ELEM_BLOCK, j.n - i));
    j.b = (float)(1.0 / (__builtin_sqrt(sum) + r->a->eps));
    for (size_t i = 0; i < cpu_ceil_div(j.n, ELEM_BLOCK); i++)
        axpby_task(&j, i, 0);
}

static void ns_stage(struct ns_run *r, cpu_task *fn)
{
    if (r->shared)
        cpu_parallel(r->cpu, fn, r, r->parts);
    else
        fn(r, 0, r->thread);
}

static void ns_swap(float **a, float **b)
{
    float *t = *a;
    *a = *b;
    *b = t;
}

static void ns_multiply_to(struct ns_run *r, float *to, const float *f, const float *g)
{
    r->to = to;
    r->f = f;
    r->g = g;
    ns_stage(r, ns_multiply);
}

static void ns_matrix(struct ns_run *r)
{
    size_t block = r->len > r->n ? NS_BLOCK : 1;
    ns_normalise(r);
    for (size_t left = r->a->steps, steps; left; left -= steps) {
        steps = cpu_min(left, block);
        ns_stage(r, ns_gram);
        for (size_t i = 0; i < steps; i++) {
            r->to = r->poly;
            r->f = r->g = r->gram;
            ns_stage(r, ns_poly);
            if (i + 1 < steps) {
                ns_multiply_to(r, r->spare, r->poly, r->gram);
                ns_multiply_to(r, r->gram, r->spare, r->poly);
            }
            if (i == 0) {
                ns_swap(&r->q, &r->poly);
            } else {
                ns_multiply_to(r, r->spare, r->q, r->poly);
                ns_swap(&r->q, &r->spare);
            }
        }
        ns_stage(r, ns_apply);
    }
}

static void ns_task(void *ctx, size_t task, size_t thread)
{
    struct ns_run r = *(const struct ns_run *)ctx;
    r.thread = thread;
    r.x = r.a->x[r.first + task];
    r.gram = ns_rows(&r, thread) + r.rows_floats;
    r.poly = r.gram + r.ld * r.ld;
    r.q = r.poly + r.ld * r.ld;
    r.spare = r.q + r.ld * r.ld;
    ns_matrix(&r);
}

static void newton_schulz(struct kern *k, const struct kern_ns *a)
{
    struct ns_run r = {.a = a, .cpu = k->impl, .tall = a->rows > a->cols, .parts = 1};
    r.n = cpu_min(a->rows, a->cols);
    r.len = r.tall ? a->rows : a->cols;
    r.ld = packed_b_floats(1, r.n);
    size_t cols = cpu_min(NS_COLS, packed_b_floats(1, r.len));
    size_t of_gram = cpu_min(NS_KC, r.len) * cpu_min(NS_COLS, r.ld);
    size_t of_apply = r.n * (r.ld > cols ? r.ld : cols);
    r.pack_floats = of_gram > of_apply ? of_gram : of_apply;
    size_t deep = cpu_min(NS_KC, r.len); /* of packed rows; the copied ones are n long */
    r.rows_floats = r.tall ? NS_MC * (deep > r.n ? deep : r.n) : 0;
    if (r.n == 0 || !cpu_reserve(r.cpu, 0, r.pack_floats + r.rows_floats + 4 * r.ld * r.ld))
        return;
    size_t alone = a->count / r.cpu->threads * r.cpu->threads;
    cpu_parallel(r.cpu, ns_task, &r, alone);
    r.shared = true;
    r.parts = NS_PARTS * r.cpu->threads;
    for (r.first = alone; r.first < a->count; r.first++)
        ns_task(&r, 0, 0);
}

#endif
