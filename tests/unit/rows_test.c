/*
 * rows_test.c - exists for the row operation that forgets a tail: dimensions that are no multiple
 * of a vector, heads smaller than one, a block of rows that is not full, an output that lies on its
 * input.
 */
#include "tests/unit/kern_ref.h"

/* Compares with the reference (NULL: none); keeps the first result to compare bits with. */
static void check(const char *name, const char *what, float *got, const double *want, float **first,
                  size_t n, double tol)
{
    if (want)
        ref_close(name, what, got, want, n, tol);
    if (!*first) {
        *first = got;
        return;
    }
    ref_same(name, what, got, *first, n);
    free(got);
}

static void embedding_and_take(void **state)
{
    static const struct {
        const char *name;
        size_t rows, dim, vocab;
    } cases[] = {
        {"one", 1, 1, 1}, {"tail", 65, 24, 7}, {"two slices", 130, 65, 50}, {"real", 300, 512, 64}};
    struct ref_rng g = ref_fresh(21);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t rows = cases[c].rows, dim = cases[c].dim, vocab = cases[c].vocab, n = rows * dim;
        float *table = ref_random(&g, vocab * dim, 1), *dy = ref_random(&g, n, 1);
        uint16_t *ids = ref_ids(&g, rows, vocab);
        double *y = ref_zeros(n), *dtable = ref_double(table, vocab * dim);
        float *first[3] = {NULL, NULL, NULL};
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < dim; i++) {
                y[r * dim + i] = table[ids[r] * dim + i];
                dtable[ids[r] * dim + i] += dy[r * dim + i];
            }
        for (size_t b = 0; b < REF_BACKENDS; b++) {
            struct kern *k = ref_backend(b);
            if (!k)
                continue;
            float *got = ref_poison(n), *grad = ref_copy(table, vocab * dim);
            k->embed_fwd(k, got, table, ids, rows, dim);
            k->embed_bwd(k, grad, dy, ids, rows, dim, vocab);
            /* x as one, then (where it divides) two sequences of which the last rows are taken */
            size_t batch = rows % 2 ? 1 : 2, t = rows / batch, from = t / 3;
            size_t left = t - from;
            float *last = ref_poison(batch * left * dim);
            k->take(k, last, dy, batch, t, from, dim);
            for (size_t s = 0; s < batch; s++)
                ref_same(cases[c].name, "take", last + s * left * dim, dy + (s * t + from) * dim,
                         left * dim);
            free(last);
            check(cases[c].name, "y", got, y, &first[0], n, 0);
            check(cases[c].name, "dtable", grad, dtable, &first[1], vocab * dim, 1e-5);
            kern_free(k);
        }
        free(first[0]);
        free(first[1]);
        free(table);
        free(dy);
        free(ids);
        free(y);
        free(dtable);
    }
}

/* Which of the optional arguments of combine are there. */
struct combine_case {
    const char *name;
    size_t rows, dim;
    bool x1, c0, c1, y, n, dy, dn, add0, add1;
};

static const struct combine_case combines[] = {
    {"norm of an embedding", 3, 36, false, false, false, false, true, false, true, false, false},
    {"mix and norm", 65, 24, true, true, true, true, true, true, true, false, true},
    {"addition", 64, 512, true, false, true, true, false, true, false, false, false},
    {"scaled skip", 130, 17, true, true, false, true, true, true, true, true, false},
    {"one element", 1, 1, true, false, false, true, true, true, true, true, true},
    {"only the norm is used", 44, 40, true, true, true, true, true, false, true, false, false},
    {"scale alone", 2, 5, false, true, false, true, true, true, true, false, false},
};

/*
 * y and n in double; then, with the gradients of y and n, d = dy + d n/d y, and from it everything
 * else.
 */
struct combine_ref {
    double *y, *n, *dx0, *dx1, *dc0, *dc1;
};

static struct combine_ref combine_expect(const struct combine_case *s, const struct kern_combine *a,
                                         const float *dx0, const float *dx1, const float *dc0,
                                         const float *dc1)
{
    size_t n = s->rows * s->dim;
    double *x0 = ref_double(a->x0, n), *x1 = a->x1 ? ref_double(a->x1, n) : NULL;
    double *c0 = a->c0 ? ref_double(a->c0, s->dim) : NULL;
    double *c1 = a->c1 ? ref_double(a->c1, s->dim) : NULL;
    struct combine_ref e = {ref_zeros(n),
                            ref_zeros(n),
                            ref_double(dx0, n),
                            ref_double(dx1, n),
                            ref_double(dc0, s->dim),
                            ref_double(dc1, s->dim)};
    ref_combine(e.y, e.n, x0, x1, c0, c1, s->rows, s->dim, a->eps, a->gain);
    for (size_t r = 0; r < s->rows; r++) {
        const double *y = e.y + r * s->dim;
        double rstd = 1 / sqrt(ref_dot(y, y, s->dim) / (double)s->dim + a->eps), dot = 0;
        for (size_t i = 0; a->dn && i < s->dim; i++)
            dot += a->dn[r * s->dim + i] * y[i];
        for (size_t i = 0; i < s->dim; i++) {
            size_t at = r * s->dim + i;
            double d = a->dy ? a->dy[at] : 0;
            if (a->dn)
                d += a->gain * rstd * (a->dn[at] - y[i] * rstd * rstd * dot / (double)s->dim);
            e.dx0[at] = (s->add0 ? e.dx0[at] : 0) + d * (c0 ? c0[i] : 1);
            e.dx1[at] = (s->add1 ? e.dx1[at] : 0) + d * (c1 ? c1[i] : 1);
            e.dc0[i] += d * x0[at];
            e.dc1[i] += x1 ? d * x1[at] : 0;
        }
    }
    free(x0);
    free(x1);
    free(c0);
    free(c1);
    return e;
}

static void combine_one(const struct combine_case *s, struct ref_rng *g)
{
    size_t n = s->rows * s->dim;
    float *in[] = {ref_random(g, n, 1),      ref_random(g, n, 1), ref_random(g, s->dim, 1),
                   ref_random(g, s->dim, 1), ref_random(g, n, 1), ref_random(g, n, 1),
                   ref_random(g, n, 1),      ref_random(g, n, 1), ref_random(g, s->dim, 1),
                   ref_random(g, s->dim, 1)};
    struct kern_combine a = {.rows = s->rows, .dim = s->dim, .eps = 0.1f, .gain = 0.7f};
    a.x0 = in[0];
    a.x1 = s->x1 ? in[1] : NULL;
    a.c0 = s->c0 ? in[2] : NULL;
    a.c1 = s->c1 ? in[3] : NULL;
    a.dy = s->dy ? in[4] : NULL;
    a.dn = s->dn ? in[5] : NULL;
    a.add0 = s->add0;
    a.add1 = s->add1;
    struct combine_ref e = combine_expect(s, &a, in[6], in[7], in[8], in[9]);
    float *first[6] = {NULL};
    for (size_t b = 0; b < REF_BACKENDS; b++) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        a.y = s->y ? ref_poison(n) : NULL;
        a.n = s->n ? ref_poison(n) : NULL;
        a.rstd = ref_poison(s->rows);
        k->combine_fwd(k, &a);
        a.dx0 = s->add0 ? ref_copy(in[6], n) : ref_poison(n);
        a.dx1 = s->x1 ? s->add1 ? ref_copy(in[7], n) : ref_poison(n) : NULL;
        a.dc0 = s->c0 ? ref_copy(in[8], s->dim) : NULL;
        a.dc1 = s->c1 ? ref_copy(in[9], s->dim) : NULL;
        k->combine_bwd(k, &a);
        if (a.y)
            check(s->name, "y", a.y, e.y, &first[0], n, 1e-5);
        if (a.n)
            check(s->name, "n", a.n, e.n, &first[1], n, 1e-5);
        check(s->name, "dx0", a.dx0, e.dx0, &first[2], n, 1e-5);
        if (a.dx1)
            check(s->name, "dx1", a.dx1, e.dx1, &first[3], n, 1e-5);
        if (a.dc0)
            check(s->name, "dc0", a.dc0, e.dc0, &first[4], s->dim, 1e-5);
        if (a.dc1)
            check(s->name, "dc1", a.dc1, e.dc1, &first[5], s->dim, 1e-5);
        free(a.rstd);
        kern_free(k);
    }
    for (size_t i = 0; i < 6; i++)
        free(first[i]);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        free(in[i]);
    free(e.y);
    free(e.n);
    free(e.dx0);
    free(e.dx1);
    free(e.dc0);
    free(e.dc1);
}

static void combine_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(22);
    (void)state;
    for (size_t c = 0; c < sizeof combines / sizeof *combines; c++)
        combine_one(&combines[c], &g);
}

/* y may be x0 and dx0 may be dy: the same bits as with separate memory; and a backward that is not
 * given y computes it again. */
static void combine_in_place(void **state)
{
    enum { ROWS = 70, DIM = 37, N = ROWS * DIM };
    struct ref_rng g = ref_fresh(23);
    float *x0 = ref_random(&g, N, 1), *x1 = ref_random(&g, N, 1), *c0 = ref_random(&g, DIM, 1);
    float *dy = ref_random(&g, N, 1), *dn = ref_random(&g, N, 1);
    (void)state;
    for (size_t b = 0; b < REF_BACKENDS; b += 3) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        float *y = ref_poison(N), *n = ref_poison(N), *rstd = ref_poison(ROWS);
        float *dx = ref_poison(N), *over = ref_copy(x0, N), *dover = ref_copy(dy, N);
        struct kern_combine a = {.y = y, .n = n, .rstd = rstd, .x0 = x0, .x1 = x1, .c0 = c0};
        a.rows = ROWS;
        a.dim = DIM;
        a.gain = 1;
        a.eps = 1e-6f;
        a.dy = dy;
        a.dn = dn;
        a.dx0 = dx;
        k->combine_fwd(k, &a);
        k->combine_bwd(k, &a);
        struct kern_combine in_place = a;
        in_place.x0 = in_place.y = over;
        k->combine_fwd(k, &in_place);
        ref_same(k->name, "y on x0", over, y, N);
        in_place = a;
        in_place.y = NULL;
        in_place.dy = in_place.dx0 = dover;
        k->combine_bwd(k, &in_place);
        ref_same(k->name, "dx0 on dy", dover, dx, N);
        free(y);
        free(n);
        free(rstd);
        free(dx);
        free(over);
        free(dover);
        kern_free(k);
    }
    free(x0);
    free(x1);
    free(c0);
    free(dy);
    free(dn);
}

struct qk_case {
    const char *name;
    size_t batch, t, pos0, heads, head_dim, rope;
    bool gain;
};

static const struct qk_case qks[] = {
    {"smallest", 1, 1, 0, 1, 4, 4, true},     {"six", 2, 3, 5, 3, 6, 4, false},
    {"odd head", 1, 65, 0, 2, 9, 6, true},    {"partial", 2, 44, 20, 4, 64, 16, true},
    {"full", 1, 64, 0, 2, 64, 64, true},      {"wide", 1, 130, 3, 1, 128, 40, false},
    {"no rotation", 1, 7, 0, 2, 16, 0, true},
};

/* The backward of ref_qk: e = R^T dy, then the norm's. */
static void qk_expect_bwd(double *dx, double *dgain, const double *x, const double *dy,
                          const double *gain, const double *cs, const double *sn,
                          const struct kern_qk *s)
{
    size_t half = s->rope_dims / 2, hd = s->head_dim;
    double *u = ref_zeros(hd), *e = ref_zeros(hd);
    for (size_t r = 0; r < s->rows; r++)
        for (size_t h = 0; h < s->heads; h++) {
            size_t at = (r * s->heads + h) * hd, t = (s->pos0 + r % s->t) * half;
            double rstd = 1 / sqrt(ref_dot(x + at, x + at, hd) / (double)hd + s->eps);
            ref_rms(u, x + at, hd, s->eps);
            for (size_t i = 0; i < hd; i++)
                e[i] = dy[at + i];
            for (size_t i = 0; i < half; i++) {
                e[i] = dy[at + i] * cs[t + i] - dy[at + half + i] * sn[t + i];
                e[half + i] = dy[at + i] * sn[t + i] + dy[at + half + i] * cs[t + i];
            }
            double dot = ref_dot(e, u, hd);
            dgain[h] += dot;
            for (size_t i = 0; i < hd; i++)
                dx[at + i] = (gain ? gain[h] : 1) * rstd * (e[i] - u[i] * dot / (double)hd);
        }
    free(u);
    free(e);
}

static void qk_one(const struct qk_case *s, struct ref_rng *g)
{
    size_t rows = s->batch * s->t, n = rows * s->heads * s->head_dim;
    size_t angles = (s->pos0 + s->t) * (s->rope / 2);
    float *x = ref_random(g, n, 1), *dy = ref_random(g, n, 1), *gain = ref_random(g, s->heads, 1);
    float *dgain = ref_random(g, s->heads, 1);
    float *cs = ref_alloc(angles, sizeof *cs), *sn = ref_alloc(angles, sizeof *sn);
    for (size_t i = 0; i < angles; i++) {
        double angle = 3 * ref_uniform(g);
        cs[i] = (float)cos(angle);
        sn[i] = (float)sin(angle);
    }
    struct kern_qk a = {.x = x, .gain = s->gain ? gain : NULL, .cos = cs, .sin = sn, .rows = rows};
    a.t = s->t;
    a.pos0 = s->pos0;
    a.heads = s->heads;
    a.head_dim = s->head_dim;
    a.rope_dims = s->rope;
    a.eps = 1e-5f;
    a.dy = dy;
    double *dcs = ref_double(cs, angles), *dsn = ref_double(sn, angles), *xx = ref_double(x, n);
    double *dd = ref_double(dy, n), *gg = s->gain ? ref_double(gain, s->heads) : NULL;
    double *want = ref_zeros(n), *want_dx = ref_zeros(n), *want_dgain = ref_double(dgain, s->heads);
    ref_qk(want, xx, gg, dcs, dsn, &a);
    qk_expect_bwd(want_dx, want_dgain, xx, dd, gg, dcs, dsn, &a);
    float *first[3] = {NULL};
    for (size_t b = 0; b < REF_BACKENDS; b++) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        a.y = ref_poison(n);
        a.rstd = ref_poison(rows * s->heads);
        a.dx = ref_poison(n);
        a.dgain = s->gain ? ref_copy(dgain, s->heads) : NULL;
        k->qk_fwd(k, &a);
        k->qk_bwd(k, &a);
        /* on top of its input, forward and backward */
        struct kern_qk over = a;
        float *x_over = ref_copy(x, n), *dy_over = ref_copy(dy, n);
        over.x = over.y = x_over;
        over.rstd = NULL;
        k->qk_fwd(k, &over);
        ref_same(s->name, "y on x", x_over, a.y, n);
        over = a;
        over.dy = over.dx = dy_over;
        over.dgain = NULL;
        k->qk_bwd(k, &over);
        ref_same(s->name, "dx on dy", dy_over, a.dx, n);
        free(x_over);
        free(dy_over);
        check(s->name, "y", a.y, want, &first[0], n, 1e-5);
        check(s->name, "dx", a.dx, want_dx, &first[1], n, 1e-5);
        if (a.dgain)
            check(s->name, "dgain", a.dgain, want_dgain, &first[2], s->heads, 1e-5);
        free(a.rstd);
        kern_free(k);
    }
    for (size_t i = 0; i < 3; i++)
        free(first[i]);
    free(x);
    free(dy);
    free(gain);
    free(dgain);
    free(cs);
    free(sn);
    free(dcs);
    free(dsn);
    free(xx);
    free(dd);
    free(gg);
    free(want);
    free(want_dx);
    free(want_dgain);
}

static void qk_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(24);
    (void)state;
    for (size_t c = 0; c < sizeof qks / sizeof *qks; c++)
        qk_one(&qks[c], &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_and_take),
        cmocka_unit_test(combine_is_right_everywhere),
        cmocka_unit_test(combine_in_place),
        cmocka_unit_test(qk_is_right_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
