/*
 * graph_join_test - guards against one product for q, k and v that is not the three: a column of
 * the wrong matrix, gradients that overlap in memory, a gradient that is reported complete before
 * it is, values that the next graph_forward finds in longer rows, and products joined that must not
 * be (a value embedding, heads that are no half values, somebody who looks on).
 *
 * A backend of half values is pretended around the CPU: numbers marked as such are widened,
 * computed with, and rounded. The models are so wide that norms and sums stay as they are.
 */
#include "tests/unit/tiny.h"

enum { BATCH = 2, LEN = 9, ROWS = BATCH * LEN };

/* ---- the pretended backend ---- */

static struct {
    size_t joined, parts, rows; /* products of q, k, v; of weights in three places; longer rows */
    void (*attn_fwd)(struct kern *k, const struct kern_attn *a);
    void (*attn_bwd)(struct kern *k, const struct kern_attn *a);
} used;

/* rows x width numbers, `row` from one row to the next, as floats; malloc'ed. */
static float *widened(const void *x, bool half, size_t rows, size_t width, size_t row)
{
    float *y = malloc(rows * width * sizeof *y);
    if (!y)
        abort();
    for (size_t i = 0; i < rows * width; i++) {
        size_t at = i / width * row + i % width;
        y[i] = half ? bf16_to_f32(((const uint16_t *)x)[at]) : ((const float *)x)[at];
    }
    return y;
}

/* The way back; frees from. */
static void narrowed(void *y, bool half, size_t rows, size_t width, size_t row, float *from)
{
    for (size_t i = 0; i < rows * width; i++) {
        size_t at = i / width * row + i % width;
        if (half)
            ((uint16_t *)y)[at] = f32_to_bf16(from[i]);
        else
            ((float *)y)[at] = from[i];
    }
    free(from);
}

/* The weights of a product in one piece, which are three in places of their own with part;
 * malloc'ed. Or, with dw, gradients in one piece added to these, and freed. */
static float *in_one(const struct kern_linear *a, float *dw)
{
    size_t own = a->n_out - a->part[0].n_out - a->part[1].n_out, at = 0;
    const float *w[] = {a->w, a->part[0].w, a->part[1].w};
    float *to[] = {a->dw, a->part[0].dw, a->part[1].dw};
    size_t n[] = {own * a->n_in, a->part[0].n_out * a->n_in, a->part[1].n_out * a->n_in};
    float *all = dw ? dw : malloc(a->n_out * a->n_in * sizeof *all);
    if (!all)
        abort();
    for (int i = 0; i < 3; at += n[i++])
        for (size_t j = 0; j < n[i]; j++)
            if (dw)
                to[i][j] += dw[at + j];
            else
                all[at + j] = w[i][j];
    free(dw);
    return dw ? NULL : all;
}

static void linear_train(struct kern *k, const struct kern_linear *a)
{
    size_t rows = a->rows, n = a->n_out;
    float *w = in_one(a, NULL);
    float *x = widened(a->x, a->x16, rows, a->n_in, a->n_in);
    float *y = malloc(rows * n * sizeof *y), *f = malloc(rows * n * sizeof *f);
    used.joined += !a->act && a->y16 && n > a->n_in; /* more than q alone has */
    if (a->act) {
        k->linear_act_fwd(k, y, f, x, w, rows, n, a->n_in, a->slope);
        narrowed(a->f, a->y16, rows, n, n, f);
    } else {
        k->linear_fwd(k, y, x, w, rows, n, a->n_in);
        free(f);
    }
    narrowed(a->y, a->y16, rows, n, n, y);
    used.parts += a->part[0].n_out != 0;
    free(x);
    free(w);
}

static void linear_bwd(struct kern *k, const struct kern_linear *a)
{
    size_t rows = a->rows, n = a->n_out;
    float *dy = widened(a->dy, a->dy16, rows, n, n);
    float *x = widened(a->x, a->x16, rows, a->n_in, a->n_in);
    float *dx = a->add ? widened(a->dx, a->dx16, rows, a->n_in, a->n_in)
                       : malloc(rows * a->n_in * sizeof *dx);
    if (a->f && !a->g_done) {
        float *f = widened(a->f, a->y16, rows, n, n);
        k->mul(k, dy, dy, f, rows * n);
        free(f);
    }
    float *w = in_one(a, NULL), *dw = calloc(n * a->n_in, sizeof *dw);
    k->linear_bwd_w(k, dw, dy, x, rows, n, a->n_in);
    in_one(a, dw);
    k->linear_bwd_x(k, dx, dy, w, rows, n, a->n_in, a->add);
    if (a->x_f) {
        float *f = widened(a->x_f, a->x16, rows, a->n_in, a->n_in);
        k->mul(k, dx, dx, f, rows * a->n_in);
        free(f);
    }
    free(w);
    narrowed(a->dx, a->dx16, rows, a->n_in, a->n_in, dx);
    free(dy);
    free(x);
}

static void qk(struct kern *k, const struct kern_qk *a, bool back)
{
    size_t width = a->heads * a->head_dim, row = a->row ? a->row : width;
    struct kern_qk b = *a;
    float *x = widened(a->x, true, a->rows, width, row), *out = malloc(a->rows * width * sizeof *x);
    float *dy = back ? widened(a->dy, true, a->rows, width, width) : NULL;
    used.rows += a->row != 0;
    b.x = x;
    b.dy = dy;
    b.y = b.dx = out;
    if (back) {
        k->qk_bwd(k, &b);
        narrowed(a->dx, true, a->rows, width, row, out);
    } else {
        k->qk_fwd(k, &b);
        narrowed(a->y, true, a->rows, width, width, out);
    }
    free(x);
    free(dy);
}

static void qk_half(struct kern *k, const struct kern_qk *a)
{
    qk(k, a, false);
}

static void qk_bwd_half(struct kern *k, const struct kern_qk *a)
{
    qk(k, a, true);
}

static size_t v_row(bool joined, size_t heads, size_t kv_heads, size_t dim)
{
    return ((joined ? heads + kv_heads : 0) + kv_heads) * dim;
}

static void attn(struct kern *k, const struct kern_attn *a, bool back)
{
    size_t rows = a->batch * a->tq, width = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    size_t row = v_row(a->joined, a->heads, a->kv_heads, a->head_dim);
    struct kern_attn b = *a;
    if (!a->half) {
        assert_false(a->joined);
        (back ? used.attn_bwd : used.attn_fwd)(k, a);
        return;
    }
    float *q = widened(a->q, true, rows, width, width), *key = widened(a->k, true, rows, kv, kv);
    float *v = widened(a->v, true, rows, kv, row);
    used.rows += a->joined;
    b.q = q;
    b.k = key;
    b.v = v;
    if (back) {
        float *o = widened(a->o, true, rows, width, width);
        float *dy = widened(a->do_, true, rows, width, width);
        b.o = o;
        b.do_ = dy;
        b.dq = malloc(rows * width * sizeof *b.dq);
        b.dk = malloc(rows * kv * sizeof *b.dk);
        b.dv = widened(a->dv, a->half_dv, rows, kv, row);
        used.attn_bwd(k, &b);
        narrowed(a->dq, true, rows, width, width, b.dq);
        narrowed(a->dk, true, rows, kv, kv, b.dk);
        narrowed(a->dv, a->half_dv, rows, kv, row, b.dv);
        free(o);
        free(dy);
    } else {
        b.o = malloc(rows * width * sizeof *b.o);
        used.attn_fwd(k, &b);
        narrowed(a->o, true, rows, width, width, b.o);
    }
    free(q);
    free(key);
    free(v);
}

static void attn_fwd(struct kern *k, const struct kern_attn *a)
{
    attn(k, a, false);
}

static void attn_bwd(struct kern *k, const struct kern_attn *a)
{
    attn(k, a, true);
}

/* Attention, then XSA. The backward does attention's forward once more, for the o that nobody has
 * stored; s is a number that says so. */
static void attn_xsa(struct kern *k, const struct kern_attn_xsa *f, bool back)
{
    const struct kern_attn *a = &f->attn;
    size_t rows = a->batch * a->tq, width = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    size_t row = v_row(a->joined, a->heads, a->kv_heads, a->head_dim);
    struct kern_attn b = *a;
    float *q = widened(a->q, true, rows, width, width), *key = widened(a->k, true, rows, kv, kv);
    float *v = widened(a->v, true, rows, kv, row), *o = malloc(rows * width * sizeof *o);
    struct kern_xsa x = {.o = o, .v = v, .rows = rows, .heads = a->heads, .kv_heads = a->kv_heads};
    x.head_dim = a->head_dim;
    used.rows += a->joined;
    b.q = q;
    b.k = key;
    b.v = v;
    b.o = o;
    used.attn_fwd(k, &b);
    if (back) {
        float *dy = widened(a->do_, true, rows, width, width);
        float *do_ = malloc(rows * width * sizeof *do_);
        assert_true(a->half_dv || !a->joined);
        for (size_t i = 0; i < rows * a->heads; i++)
            assert_true(f->s[i] == (float)i);
        x.dy = dy;
        x.do_ = do_;
        x.dv = b.dv = widened(a->dv, a->half_dv, rows, kv, row);
        x.add = a->add_dv;
        k->xsa_bwd(k, &x);
        b.do_ = do_;
        b.dq = malloc(rows * width * sizeof *b.dq);
        b.dk = malloc(rows * kv * sizeof *b.dk);
        b.add_dv = true;
        used.attn_bwd(k, &b);
        narrowed(f->do_, true, rows, width, width, do_);
        narrowed(a->dq, true, rows, width, width, b.dq);
        narrowed(a->dk, true, rows, kv, kv, b.dk);
        narrowed(a->dv, a->half_dv, rows, kv, row, b.dv);
        free(dy);
    } else {
        x.y = malloc(rows * width * sizeof *x.y);
        k->xsa_fwd(k, &x);
        narrowed(a->o, true, rows, width, width, x.y);
        for (size_t i = 0; i < rows * a->heads; i++)
            f->s[i] = (float)i;
    }
    free(q);
    free(key);
    free(v);
    free(o);
}

static void attn_xsa_fwd(struct kern *k, const struct kern_attn_xsa *a)
{
    attn_xsa(k, a, false);
}

static void attn_xsa_bwd(struct kern *k, const struct kern_attn_xsa *a)
{
    attn_xsa(k, a, true);
}

static void pretend(struct kern *k, bool joins)
{
    if (k->attn_fwd != attn_fwd) {
        used.attn_fwd = k->attn_fwd;
        used.attn_bwd = k->attn_bwd;
    }
    k->attn_fwd = attn_fwd;
    k->attn_bwd = attn_bwd;
    k->linear_train = linear_train;
    k->linear_bwd = linear_bwd;
    k->qk_half = qk_half;
    k->qk_bwd_half = qk_bwd_half;
    k->attn_xsa_fwd = attn_xsa_fwd;
    k->attn_xsa_bwd = attn_xsa_bwd;
    k->joins = joins;
}

/* ---- is a gradient complete when it is said to be? ---- */

static struct {
    const struct tiny *t;
    const struct graph *g;
    const float *grads;
    float *then; /* each linear layer's gradient when its last node had been passed */
} watch;

/* The number of nodes behind which no node reads or writes what lies at w. */
static size_t complete_at(ptrdiff_t w)
{
    for (size_t i = 0; i < watch.g->nodes; i++)
        if (!watch.g->node[i].dead && watch.g->node[i].p[0] == w)
            return watch.g->nodes - i;
    return 0;
}

static void note(const struct gpt_param *p, float *to, const float *from)
{
    memcpy(to + p->at, from + p->at, p->size * sizeof *to);
}

static void passed(void *ctx, size_t nodes)
{
    (void)ctx;
    for (size_t i = 0; i < watch.t->m.nparams; i++) {
        const struct gpt_param *p = &watch.t->m.param[i];
        if (p->cls == PARAM_MATRIX && complete_at((ptrdiff_t)p->at) == nodes)
            note(p, watch.then, watch.grads);
    }
}

static void check_noted(const char *name)
{
    for (size_t i = 0; i < watch.t->m.nparams; i++) {
        const struct gpt_param *p = &watch.t->m.param[i];
        if (p->cls == PARAM_MATRIX &&
            memcmp(watch.then + p->at, watch.grads + p->at, p->size * sizeof(float)) != 0)
            fail_msg("\"%s\": the gradient of %s was not complete when it was said to be", name,
                     p->name);
    }
}

/* ---- models ---- */

#define WIDE                                                                                       \
    "MODEL_DIM=1088\nNUM_HEADS=34\nNUM_KV_HEADS=17\nROPE_DIMS=16\nMLP_MULT=0.1\nNUM_LAYERS=2\n"

/* `joined`: layers with one product; `rows`: calls with longer rows, two for each in norms and
 * one in attention, with or without XSA behind it; and as many in the backward. */
static const struct {
    const char *settings;
    size_t joined, rows;
    bool tap;
} models[] = {
    {WIDE, 2, 12, false},
    {WIDE "XSA_LAST_N=1", 2, 12, false},
    {WIDE "XSA_LAST_N=2\nRECUR_LAYERS=1\nSKIP_GATES_ENABLED=1", 3, 18, false},
    {WIDE "NUM_KV_HEADS=34", 2, 12, false},
    {WIDE "NUM_KV_HEADS=34\nVE_ENABLED=1\nVE_DIM=12\nVE_LAYERS=1", 1, 6, false},
    {WIDE "PARALLEL_LANES=cross\nPARALLEL_START_LAYER=1\nXSA_LAST_N=1", 2, 12, false},
    {WIDE "MATRIX_BANKS=1", 2, 12, false},
    {WIDE "ROPE_DIMS=8", 0, 0, false},
    {WIDE, 0, 0, true},
};

static void tap(void *ctx, ptrdiff_t w, const float *dy, size_t rows, size_t n_out)
{
    (void)ctx;
    (void)w;
    (void)dy;
    (void)rows;
    (void)n_out;
}

/* What a run of graph_train leaves behind. */
struct result {
    double loss;
    float *grads;
};

static struct result train(struct tiny *t, size_t c, bool joins, const uint16_t *tok)
{
    struct graph g;
    size_t bytes = t->m.floats * sizeof(float);
    struct result r = {.grads = calloc(t->m.floats, sizeof(float))};
    float *plain[2] = {calloc(t->m.floats, sizeof(float)), calloc(t->m.floats, sizeof(float))};
    float nll[2][ROWS];
    struct err e = {0};
    pretend(t->k, joins);
    tiny_plan(t, &g, BATCH, LEN, 0, true);
    watch.t = t;
    watch.g = &g;
    watch.grads = r.grads;
    watch.then = calloc(t->m.floats, sizeof(float));
    memset(g.block, 0xff, g.floats * sizeof(float)); /* what nobody has written is NaN */
    used.joined = used.parts = used.rows = 0;
    g.done = passed;
    g.tap = models[c].tap ? tap : NULL;
    graph_train(&g, t->params, tok, tok + 1, r.grads, 1, &r.loss);
    check_noted(models[c].settings);
    if (used.joined != (joins ? models[c].joined : 0) ||
        used.parts != (t->m.r.matrix_banks ? used.joined : 0) ||
        used.rows != (joins ? models[c].rows : 0))
        fail_msg("\"%s\": %zu joined products, %zu in parts, %zu with longer rows",
                 models[c].settings, used.joined, used.parts, used.rows);
    /* Outside of it the graph is what it always is, before and after. */
    g.done = NULL;
    for (int i = 0; i < 2; i++) {
        if (i)
            graph_train(&g, t->params, tok, tok + 1, watch.then, 1, &r.loss);
        assert_int_equal(graph_forward(&g, t->params, tok, tok + 1, nll[i], &e), ERR_OK);
        graph_backward(&g, t->params, plain[i], 1);
    }
    if (memcmp(nll[0], nll[1], sizeof nll[0]) != 0 || memcmp(plain[0], plain[1], bytes) != 0)
        fail_msg("\"%s\": graph_forward depends on graph_train", models[c].settings);
    graph_free(&g);
    free(watch.then);
    free(plain[0]);
    free(plain[1]);
    return r;
}

static void one_product(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(models); c++) {
        struct tiny t = tiny_open(models[c].settings, 1, 11);
        uint16_t *tok = tiny_tokens(&t, ROWS, 12);
        struct result three = train(&t, c, false, tok), one = train(&t, c, true, tok);
        if (memcmp(&one.loss, &three.loss, sizeof one.loss) != 0)
            fail_msg("\"%s\": loss %.17g, by three products %.17g", models[c].settings, one.loss,
                     three.loss);
        for (size_t i = 0; i < t.m.nparams; i++) {
            const struct gpt_param *p = &t.m.param[i];
            double diff = 0, norm = 0;
            for (size_t j = p->at; j < p->at + p->size; j++) {
                diff += pow((double)one.grads[j] - (double)three.grads[j], 2);
                norm += pow((double)three.grads[j], 2);
            }
            /* dx is added up in another order, so some half values are rounded the other way. */
            if (!(sqrt(diff) <= 2e-3 * sqrt(norm)))
                fail_msg("\"%s\": gradient of %s is off by %.1e of its norm", models[c].settings,
                         p->name, sqrt(diff / norm));
        }
        free(one.grads);
        free(three.grads);
        free(tok);
        tiny_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_product)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
