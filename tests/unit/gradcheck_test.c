/*
 * gradcheck_test.c - exists for the backward that does not belong to its forward: every gradient
 * that a kernel returns is compared with central differences of the forward, written in double
 * precision in kern_ref.h.
 *
 * The loss is the sum of all outputs times random weights, so one run of the backward checks all
 * partial derivatives together. Input values are the floats that the kernels get, taken as doubles.
 */
#include "tests/unit/kern_ref.h"

enum { MAX_INPUTS = 5 };

/* An operation in double: reads in[], returns the loss. */
struct problem {
    const char *name;
    double (*loss)(const struct problem *p);
    const void *args;       /* the kernel's own arguments, for the sizes */
    double *in[MAX_INPUTS]; /* NULL: not there */
    size_t n[MAX_INPUTS];
    double *weight[2]; /* of the outputs */
    double *out[2];    /* room for the outputs */
    double *room;
    const double *cos, *sin;
};

static double weighted(const struct problem *p, size_t o, size_t n)
{
    return ref_dot(p->out[o], p->weight[o], n);
}

/* Compares got with (loss(x + h) - loss(x - h)) / 2h, element by element of input i. `base`: what
 * got held before the gradient was added, or NULL. */
static void check_gradient(struct problem *p, size_t i, const float *got, const float *base)
{
    const double h = 1e-5;
    double *want = ref_zeros(p->n[i]), *x = p->in[i];
    char what[32];
    for (size_t e = 0; e < p->n[i]; e++) {
        double keep = x[e];
        x[e] = keep + h;
        double up = p->loss(p);
        x[e] = keep - h;
        want[e] = (up - p->loss(p)) / (2 * h) + (base ? base[e] : 0);
        x[e] = keep;
    }
    snprintf(what, sizeof what, "gradient of input %zu", i);
    ref_close(p->name, what, got, want, p->n[i], 1e-5);
    free(want);
}

static void problem_drop(struct problem *p)
{
    for (size_t i = 0; i < MAX_INPUTS; i++)
        free(p->in[i]);
    for (size_t i = 0; i < 2; i++) {
        free(p->weight[i]);
        free(p->out[i]);
    }
    free(p->room);
}

/* Random floats that the problem gets as doubles, as input i. */
static float *input(struct problem *p, size_t i, struct ref_rng *g, size_t n, double size)
{
    float *x = ref_random(g, n, size);
    p->in[i] = ref_double(x, n);
    p->n[i] = n;
    return x;
}

/* Random weights of output o, which are the gradient that the backward is given. */
static float *output(struct problem *p, size_t o, struct ref_rng *g, size_t n)
{
    float *x = ref_random(g, n, 1);
    p->weight[o] = ref_double(x, n);
    p->out[o] = ref_zeros(n);
    return x;
}

/* combine */

static double combine_loss(const struct problem *p)
{
    const struct kern_combine *a = p->args;
    size_t n = a->rows * a->dim;
    ref_combine(p->out[0], p->out[1], p->in[0], p->in[1], p->in[2], p->in[3], a->rows, a->dim,
                a->eps, a->gain);
    return weighted(p, 0, n) + weighted(p, 1, n);
}

static void combine(void **state)
{
    static const struct {
        const char *name;
        size_t rows, dim;
        bool x1, c0, c1, add;
    } cases[] = {{"norm", 3, 5, false, false, false, false},
                 {"mix", 4, 24, true, true, true, false},
                 {"mix over a block of rows", 66, 3, true, true, true, true},
                 {"sum", 2, 36, true, false, false, true},
                 {"skip", 3, 17, true, false, true, false}};
    struct ref_rng g = ref_fresh(31);
    struct kern *k = ref_backend(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t rows = cases[c].rows, dim = cases[c].dim, n = rows * dim;
        struct kern_combine a = {.rows = rows, .dim = dim, .eps = 1e-3f, .gain = 1.3f};
        struct problem p = {.name = cases[c].name, .loss = combine_loss, .args = &a};
        float *in[4] = {input(&p, 0, &g, n, 1), NULL, NULL, NULL};
        if (cases[c].x1)
            in[1] = input(&p, 1, &g, n, 1);
        if (cases[c].c0)
            in[2] = input(&p, 2, &g, dim, 1);
        if (cases[c].c1)
            in[3] = input(&p, 3, &g, dim, 1);
        float *dy = output(&p, 0, &g, n), *dn = output(&p, 1, &g, n);
        float *base[4] = {ref_random(&g, n, 1), ref_random(&g, n, 1), ref_random(&g, dim, 1),
                          ref_random(&g, dim, 1)};
        float *got[4] = {ref_copy(base[0], n), ref_copy(base[1], n), ref_copy(base[2], dim),
                         ref_copy(base[3], dim)};
        a.x0 = in[0];
        a.x1 = in[1];
        a.c0 = in[2];
        a.c1 = in[3];
        a.y = ref_poison(n);
        a.n = ref_poison(n);
        a.rstd = ref_poison(rows);
        a.dy = dy;
        a.dn = dn;
        a.dx0 = got[0];
        a.dx1 = in[1] ? got[1] : NULL;
        a.dc0 = in[2] ? got[2] : NULL;
        a.dc1 = in[3] ? got[3] : NULL;
        a.add0 = a.add1 = cases[c].add;
        k->combine_fwd(k, &a);
        k->combine_bwd(k, &a);
        for (size_t i = 0; i < 4; i++) {
            if (in[i])
                check_gradient(&p, i, got[i], i >= 2 || cases[c].add ? base[i] : NULL);
            free(in[i]);
            free(base[i]);
            free(got[i]);
        }
        free(dy);
        free(dn);
        free(a.y);
        free(a.n);
        free(a.rstd);
        problem_drop(&p);
    }
    kern_free(k);
}

/* qk */

static double qk_loss(const struct problem *p)
{
    const struct kern_qk *a = p->args;
    ref_qk(p->out[0], p->in[0], p->in[1], p->cos, p->sin, a);
    return weighted(p, 0, a->rows * a->heads * a->head_dim);
}

static void qk(void **state)
{
    static const struct {
        const char *name;
        size_t rows, t, pos0, heads, head_dim, rope;
        bool gain;
    } cases[] = {{"smallest", 1, 1, 0, 1, 4, 4, true},
                 {"six", 6, 3, 2, 2, 6, 4, false},
                 {"odd", 66, 33, 0, 1, 9, 6, true},
                 {"wide", 2, 2, 7, 2, 64, 40, true}};
    struct ref_rng g = ref_fresh(32);
    struct kern *k = ref_backend(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t half = cases[c].rope / 2, heads = cases[c].heads;
        size_t n = cases[c].rows * heads * cases[c].head_dim;
        size_t angles = (cases[c].pos0 + cases[c].t) * half;
        struct kern_qk a = {.rows = cases[c].rows, .t = cases[c].t, .pos0 = cases[c].pos0};
        struct problem p = {.name = cases[c].name, .loss = qk_loss, .args = &a};
        a.heads = heads;
        a.head_dim = cases[c].head_dim;
        a.rope_dims = cases[c].rope;
        a.eps = 1e-3f;
        float *x = input(&p, 0, &g, n, 1), *gain = NULL;
        if (cases[c].gain)
            gain = input(&p, 1, &g, heads, 1);
        float *cs = ref_random(&g, angles, 0.7), *sn = ref_random(&g, angles, 0.7);
        /* the backward uses that a rotation is orthogonal */
        for (size_t i = 0; i < angles; i++)
            sn[i] = sqrtf(1 - cs[i] * cs[i] < 0 ? 0 : 1 - cs[i] * cs[i]);
        double *dcs = ref_double(cs, angles), *dsn = ref_double(sn, angles);
        float *dy = output(&p, 0, &g, n);
        float *base = ref_random(&g, heads, 1), *dgain = ref_copy(base, heads);
        p.cos = dcs;
        p.sin = dsn;
        a.cos = cs;
        a.sin = sn;
        a.x = x;
        a.gain = gain;
        a.y = ref_poison(n);
        a.rstd = ref_poison(cases[c].rows * heads);
        a.dy = dy;
        a.dx = ref_poison(n);
        a.dgain = gain ? dgain : NULL;
        k->qk_fwd(k, &a);
        k->qk_bwd(k, &a);
        check_gradient(&p, 0, a.dx, NULL);
        if (gain)
            check_gradient(&p, 1, dgain, base);
        free(x);
        free(gain);
        free(cs);
        free(sn);
        free(dcs);
        free(dsn);
        free(dy);
        free(base);
        free(dgain);
        free(a.y);
        free(a.rstd);
        free(a.dx);
        problem_drop(&p);
    }
    kern_free(k);
}

/* attention */

static double attn_loss(const struct problem *p)
{
    const struct kern_attn *a = p->args;
    ref_attn(p->out[0], p->room, p->in[0], p->in[1], p->in[2], a);
    return weighted(p, 0, a->batch * a->tq * a->heads * a->head_dim);
}

static void attention(void **state)
{
    static const struct {
        const char *name;
        size_t batch, tq, tk, q0, heads, kv_heads, head_dim;
    } cases[] = {{"one", 1, 1, 1, 0, 1, 1, 4},
                 {"groups", 2, 6, 6, 0, 4, 2, 6},
                 {"some queries", 1, 4, 9, 3, 2, 1, 9},
                 {"over a block", 1, 67, 67, 0, 1, 1, 4}};
    struct ref_rng g = ref_fresh(33);
    struct kern *k = ref_backend(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct kern_attn a = {.batch = cases[c].batch, .tq = cases[c].tq, .tk = cases[c].tk};
        struct problem p = {.name = cases[c].name, .loss = attn_loss, .args = &a};
        a.q0 = cases[c].q0;
        a.heads = cases[c].heads;
        a.kv_heads = cases[c].kv_heads;
        a.head_dim = cases[c].head_dim;
        a.scale = 0.6f;
        size_t nq = a.batch * a.tq * a.heads * a.head_dim, nl = a.batch * a.heads * a.tq;
        size_t nk = a.batch * a.tk * a.kv_heads * a.head_dim;
        float *q = input(&p, 0, &g, nq, 1), *key = input(&p, 1, &g, nk, 1);
        float *v = input(&p, 2, &g, nk, 1), *go = output(&p, 0, &g, nq);
        p.room = ref_zeros(nl);
        a.q = q;
        a.k = key;
        a.v = v;
        a.do_ = go;
        a.o = ref_poison(nq);
        a.lse = ref_poison(nl);
        a.dq = ref_poison(nq);
        a.dk = ref_poison(nk);
        a.dv = ref_poison(nk);
        k->attn_fwd(k, &a);
        k->attn_bwd(k, &a);
        check_gradient(&p, 0, a.dq, NULL);
        check_gradient(&p, 1, a.dk, NULL);
        check_gradient(&p, 2, a.dv, NULL);
        free(q);
        free(key);
        free(v);
        free(go);
        free(a.o);
        free(a.lse);
        free(a.dq);
        free(a.dk);
        free(a.dv);
        problem_drop(&p);
    }
    kern_free(k);
}

/* head */

static double head_loss(const struct problem *p)
{
    const struct kern_head *a = p->args;
    double sum = 0;
    ref_head(p->out[0], p->out[1], p->room, p->in[0], p->in[1], a);
    for (size_t r = 0; r < a->rows; r++)
        sum += p->out[0][r];
    return (double)a->gscale * sum;
}

static void head(void **state)
{
    static const struct {
        const char *name;
        size_t rows, dim, vocab;
        float cap;
    } cases[] = {{"one row", 1, 4, 3, 30},
                 {"softcap", 5, 6, 21, 2},
                 {"no softcap", 3, 24, 17, 0},
                 {"over a block", 4, 3, 530, 10}};
    struct ref_rng g = ref_fresh(34);
    struct kern *k = ref_backend(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct kern_head a = {.rows = cases[c].rows, .dim = cases[c].dim, .vocab = cases[c].vocab};
        struct problem p = {.name = cases[c].name, .loss = head_loss, .args = &a};
        size_t nh = a.rows * a.dim, nw = a.vocab * a.dim;
        a.cap = cases[c].cap;
        a.gscale = 0.8f;
        float *h = input(&p, 0, &g, nh, 2), *w = input(&p, 1, &g, nw, 1);
        float *base = ref_random(&g, nw, 1), *dw = ref_copy(base, nw);
        uint16_t *target = ref_ids(&g, a.rows, a.vocab);
        p.room = ref_zeros(a.rows * a.vocab);
        p.out[0] = ref_zeros(a.rows);
        p.out[1] = ref_zeros(a.rows);
        a.h = h;
        a.w = w;
        a.target = target;
        a.nll = ref_poison(a.rows);
        a.lse = ref_poison(a.rows);
        a.dh = ref_poison(nh);
        a.dw = dw;
        k->head_fwd(k, &a);
        k->head_bwd(k, &a);
        check_gradient(&p, 0, a.dh, NULL);
        check_gradient(&p, 1, dw, base);
        free(h);
        free(w);
        free(base);
        free(dw);
        free(target);
        free(a.nll);
        free(a.lse);
        free(a.dh);
        problem_drop(&p);
    }
    kern_free(k);
}

/* linear, and linear with LeakyReLU(slope)^2 behind it */

struct linear_args {
    size_t rows, n_out, n_in;
    double slope;
    bool act;
};

static double linear_loss(const struct problem *p)
{
    const struct linear_args *a = p->args;
    size_t n = a->rows * a->n_out;
    ref_linear(p->out[0], p->in[0], p->in[1], a->rows, a->n_out, a->n_in);
    for (size_t i = 0; a->act && i < n; i++) {
        double u = p->out[0][i], leaky = u > 0 ? u : a->slope * u;
        p->out[0][i] = leaky * leaky;
    }
    return weighted(p, 0, n);
}

static void linear(void **state)
{
    static const struct {
        const char *name;
        struct linear_args a;
        bool add;
    } cases[] = {{"one", {1, 1, 1, 0, false}, false},
                 {"tails", {15, 33, 17, 0, false}, true},
                 {"relu^2", {5, 24, 36, 0, true}, false},
                 {"leaky relu^2", {67, 7, 9, 0.5, true}, false}};
    struct ref_rng g = ref_fresh(35);
    struct kern *k = ref_backend(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct linear_args *a = &cases[c].a;
        struct problem p = {.name = cases[c].name, .loss = linear_loss, .args = a};
        size_t nx = a->rows * a->n_in, nw = a->n_out * a->n_in, ny = a->rows * a->n_out;
        float *x = input(&p, 0, &g, nx, 1), *w = input(&p, 1, &g, nw, 1);
        float *dy = output(&p, 0, &g, ny), *y = ref_poison(ny), *f = ref_poison(ny);
        float *base_x = ref_random(&g, nx, 1), *base_w = ref_random(&g, nw, 1);
        float *dx = ref_copy(base_x, nx), *dw = ref_copy(base_w, nw), *dpre = ref_copy(dy, ny);
        if (a->act) {
            k->linear_act_fwd(k, y, f, x, w, a->rows, a->n_out, a->n_in, (float)a->slope);
            k->mul(k, dpre, dpre, f, ny);
        } else {
            k->linear_fwd(k, y, x, w, a->rows, a->n_out, a->n_in);
        }
        linear_loss(&p);
        ref_close(p.name, "y", y, p.out[0], ny, 1e-6);
        k->linear_bwd_x(k, dx, dpre, w, a->rows, a->n_out, a->n_in, cases[c].add);
        k->linear_bwd_w(k, dw, dpre, x, a->rows, a->n_out, a->n_in);
        check_gradient(&p, 0, dx, cases[c].add ? base_x : NULL);
        check_gradient(&p, 1, dw, base_w);
        free(x);
        free(w);
        free(dy);
        free(y);
        free(f);
        free(base_x);
        free(base_w);
        free(dx);
        free(dw);
        free(dpre);
        problem_drop(&p);
    }
    kern_free(k);
}

/* embedding: y = table[ids]. The ids travel as args. */

struct embed_args {
    size_t rows, dim;
    const uint16_t *ids;
};

static double embed_loss(const struct problem *p)
{
    const struct embed_args *a = p->args;
    for (size_t r = 0; r < a->rows; r++)
        for (size_t i = 0; i < a->dim; i++)
            p->out[0][r * a->dim + i] = p->in[0][a->ids[r] * a->dim + i];
    return weighted(p, 0, a->rows * a->dim);
}

static void embedding(void **state)
{
    enum { ROWS = 70, DIM = 17, VOCAB = 9 };
    struct ref_rng g = ref_fresh(36);
    struct kern *k = ref_backend(1);
    uint16_t *ids = ref_ids(&g, ROWS, VOCAB);
    const struct embed_args a = {ROWS, DIM, ids};
    struct problem p = {.name = "embedding", .loss = embed_loss, .args = &a};
    float *table = input(&p, 0, &g, VOCAB * DIM, 1), *dy = output(&p, 0, &g, ROWS * DIM);
    float *base = ref_random(&g, VOCAB * DIM, 1), *dtable = ref_copy(base, VOCAB * DIM);
    (void)state;
    k->embed_bwd(k, dtable, dy, ids, ROWS, DIM, VOCAB);
    check_gradient(&p, 0, dtable, base);
    free(ids);
    free(table);
    free(dy);
    free(base);
    free(dtable);
    problem_drop(&p);
    kern_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(combine), cmocka_unit_test(qk),     cmocka_unit_test(attention),
        cmocka_unit_test(head),    cmocka_unit_test(linear), cmocka_unit_test(embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
