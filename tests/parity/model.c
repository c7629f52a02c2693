/*
 * model.c - fixtures that hold a model, token batches, and what the reference made of them: logits,
 * losses, gradients (KIND "model"), or only losses of a model that was packed and loaded (KIND
 * "pack").
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"

struct run {
    struct check *c;
    const struct gpt *m;
    struct graph g;
    float *params, *grads; /* backend */
    uint16_t *ids, *target;
    float *nll;
    size_t batch, t;
};

static bool shape_of(struct run *r)
{
    const struct tensor_view *x = need(r->c, 1, "input.tokens"), *y;
    if (!x || !(y = need(r->c, tensor_elems(x), "input.targets")))
        return false;
    if (x->ndim != 2 || tensor_elems(x) != tensor_elems(y)) {
        check_fail(r->c, "input.tokens and input.targets must be [batch, t]");
        return false;
    }
    r->batch = x->shape[0];
    r->t = x->shape[1];
    r->ids = tensor_tokens(r->c, x, (size_t)r->m->r.vocab_size);
    r->target = tensor_tokens(r->c, y, (size_t)r->m->r.vocab_size);
    r->nll = parity_alloc(r->batch * r->t, sizeof *r->nll);
    return r->ids && r->target;
}

static bool ok(struct run *r, enum err_code rc, const struct err *e)
{
    if (rc)
        check_fail(r->c, "%s", e->msg);
    return !rc;
}

/* The last rows of each sequence's row-major [batch][t][width] values, from row `from`. */
static float *tail_of(const struct run *r, const float *x, size_t from, size_t width)
{
    size_t rows = r->t - from;
    float *y = parity_alloc(r->batch * rows * width, sizeof *y);
    for (size_t b = 0; b < r->batch; b++)
        memcpy(y + b * rows * width, x + (b * r->t + from) * width, rows * width * sizeof *y);
    return y;
}

/* Logits do not exist in the graph; they are computed from what its head read. */
static void compare_logits(struct run *r)
{
    struct check *c = r->c;
    struct kern *k = c->k;
    const struct tensor_view *want = find(c, "out.logits"), *tail = find(c, "out.logits_tail");
    const struct tensor_view *norm = find(c, "dbg.final_norm");
    const struct graph_node *head = &r->g.node[r->g.nodes - 1];
    size_t rows = r->batch * r->t, vocab = head->n_out, dim = head->n_in;
    struct group gl = {.what = "logits"}, gn = {.what = "final norm"};
    float *h = parity_alloc(rows * dim, sizeof *h), *l = parity_alloc(rows * vocab, sizeof *l);
    float *dh = k->alloc(k, rows * dim * sizeof *h), *dl = k->alloc(k, rows * vocab * sizeof *l);
    if (!dh || !dl || head->op != OP_HEAD) {
        check_fail(c, "no memory for logits, or the graph does not end in a head");
        goto out;
    }
    graph_read(&r->g, head->in[0], h);
    k->upload(k, dh, h, rows * dim * sizeof *h);
    k->head_logits(k, dl, dh, r->params + head->p[0], rows, dim, vocab, head->f);
    k->download(k, l, dl, rows * vocab * sizeof *l);
    if (want)
        group_floats(c, &gl, l, rows * vocab, want, 5e-5);
    size_t from = (size_t)meta_num(c, "LOGITS_TAIL_FROM", 0);
    if (tail && from < r->t) {
        float *part = tail_of(r, l, from, vocab);
        group_floats(c, &gl, part, r->batch * (r->t - from) * vocab, tail, 5e-5);
        free(part);
    }
    if (norm)
        group_floats(c, &gn, h, r->t * dim, norm, 5e-5);
    group_end(c, &gl);
    group_end(c, &gn);
out:
    k->free(k, dl);
    k->free(k, dh);
    free(l);
    free(h);
}

/* Outputs of the attention and MLP branches in call order, first sequence of the batch: they say at
 * which layer a model goes wrong. A branch ends in the projection whose weights are blocks.L.WHAT.
 */
static void compare_branches(struct run *r, const char *branch, const char *what)
{
    struct group g = {.what = branch};
    size_t call = 0;
    for (size_t i = 0; i < r->g.nodes; i++) {
        const struct graph_node *n = &r->g.node[i];
        const struct tensor_view *want;
        bool ours = false;
        for (size_t p = 0; p < r->m->nparams && n->op == OP_LINEAR && !ours; p++) {
            const char *at = strstr(r->m->param[p].name, what);
            ours = at && !strcmp(at, what) && r->m->param[p].at == (size_t)n->p[0];
        }
        if (!ours || !(want = find(r->c, "dbg.%s.%02zu", branch, call++)))
            continue;
        float *x = parity_alloc(r->batch * r->t * n->n_out, sizeof *x);
        graph_read(&r->g, n->out[0], x);
        group_floats(r->c, &g, x, r->t * n->n_out, want, 5e-5);
        free(x);
    }
    group_end(r->c, &g);
}

static void compare_losses(struct run *r, double tol_nll, double tol_loss)
{
    struct check *c = r->c;
    struct group gn = {.what = "nll"}, gl = {.what = "loss"};
    const struct tensor_view *want = find(c, "out.nll");
    size_t rows = r->batch * r->t;
    double loss = 0;
    for (size_t i = 0; i < rows; i++)
        loss += (double)r->nll[i];
    loss /= (double)rows;
    if (want)
        group_floats(c, &gn, r->nll, rows, want, tol_nll);
    if ((want = find(c, "out.loss")))
        group_doubles(c, &gl, &loss, 1, want, tol_loss);
    if ((want = find(c, "out.loss_f64")))
        group_doubles(c, &gl, &loss, 1, want, tol_loss);
    group_end(c, &gn);
    group_end(c, &gl);
}

static void compare_grads(struct run *r)
{
    struct check *c = r->c;
    struct tensor_view *t;
    char *names;
    struct group g = {.what = "grads"};
    size_t n = unbank(c, "grad.", !gpt_find(r->m, "qo_bank"), &t, &names);
    float *grads = parity_alloc(r->m->floats, sizeof *grads);
    if (n) {
        graph_backward(&r->g, r->params, r->grads, 1 / (float)(r->batch * r->t));
        c->k->download(c->k, grads, r->grads, r->m->floats * sizeof *grads);
    }
    double loose = c->loose;
    for (size_t i = 0; i < n; i++) {
        const struct gpt_param *p = gpt_find(r->m, t[i].name);
        c->loose = loose * (strstr(t[i].name, "q_gain") ? 10 : 2.5);
        if (p)
            group_floats(c, &g, grads + p->at, p->size, &t[i], 2e-4 * tensor_max(&t[i]) + 1e-7);
        else
            check_fail(c, "grad.%s: the model has no such parameter", t[i].name);
    }
    c->loose = loose;
    group_end(c, &g);
    free(grads);
    free(t);
    free(names);
}

/* The scoring plan (memory reused, unneeded rows pruned) must give the same losses. */
static void compare_scoring(struct run *r, double tol)
{
    struct check *c = r->c;
    struct err e = {0};
    struct group g = {.what = "nll, scoring plan"};
    const struct tensor_view *want = find(c, "out.nll");
    size_t from = r->t / 2, rows = r->batch * (r->t - from);
    float *nll = parity_alloc(rows, sizeof *nll);
    uint16_t *target = parity_alloc(rows, sizeof *target);
    for (size_t b = 0; b < r->batch; b++)
        memcpy(target + b * (r->t - from), r->target + b * r->t + from,
               (r->t - from) * sizeof *target);
    graph_free(&r->g);
    graph_init(&r->g);
    gpt_graph(r->m, &r->g, true);
    if (want && tensor_elems(want) == r->batch * r->t &&
        ok(r, graph_plan(&r->g, c->k, r->batch, r->t, from, false, &e), &e) &&
        ok(r, graph_forward(&r->g, r->params, r->ids, target, nll, &e), &e)) {
        for (size_t b = 0; b < r->batch; b++) {
            size_t n = r->t - from;
            struct tensor_view row = tensor_slice(want, b * r->t + from, n);
            group_floats(c, &g, nll + b * n, n, &row, tol);
        }
    }
    group_end(c, &g);
    free(target);
    free(nll);
}

/* Build, run and compare everything that the fixture holds. */
static void run_model(struct check *c, double tol_nll, double tol_loss)
{
    struct gpt m;
    struct err e = {0};
    float *params;
    struct kern *k = c->k;
    if (!parity_gpt(c, &m, &params))
        return;
    struct run r = {.c = c, .m = &m};
    size_t bytes = m.floats * sizeof *params;
    graph_init(&r.g);
    r.params = k->alloc(k, bytes);
    r.grads = k->alloc(k, bytes);
    if (!r.params || !r.grads) {
        check_fail(c, "no memory for %zu parameters", m.floats);
        goto out;
    }
    k->upload(k, r.params, params, bytes);
    gpt_graph(&m, &r.g, true);
    if (!shape_of(&r) || !ok(&r, graph_plan(&r.g, k, r.batch, r.t, 0, true, &e), &e) ||
        !ok(&r, graph_forward(&r.g, r.params, r.ids, r.target, r.nll, &e), &e))
        goto out;
    compare_logits(&r);
    compare_losses(&r, tol_nll, tol_loss);
    compare_branches(&r, "attn", ".attn.proj.weight");
    compare_branches(&r, "mlp", ".mlp.proj.weight");
    compare_grads(&r);
    compare_scoring(&r, tol_nll);
out:
    graph_free(&r.g);
    free(r.ids);
    free(r.target);
    free(r.nll);
    k->free(k, r.grads);
    k->free(k, r.params);
    free(params);
    gpt_free(&m);
}

void parity_model(struct check *c)
{
    const char *dtype = st_meta(&c->st, "DTYPE");
    if (dtype && strcmp(dtype, "float32"))
        check_missing(c, "a model in %s", dtype);
    else
        run_model(c, 5e-5, 5e-6);
}

void parity_pack(struct check *c)
{
    const char *files = st_meta(&c->st, "FILES");
    if (find(c, "input.tokens"))
        run_model(c, 1e-4, 1e-4);
    if (files)
        parity_pack_files(c, files);
    else if (find(c, "out.n2.stride2"))
        parity_byteshuffle(c);
    else if (find(c, "out.order.error"))
        parity_prune(c);
    else
        check_missing(c, "%s", st_meta(&c->st, "RECORD") ? st_meta(&c->st, "RECORD") : "this pack");
}
