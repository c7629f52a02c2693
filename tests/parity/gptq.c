/* gptq.c - fixtures of calibrated quantisation: Hessians, GPTQ's integers, pruning. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"
#include "trainer/gptq.h"
#include "trainer/hessian.h"
#include "trainer/prune.h"

/* ---- GPTQ with a given Hessian ---- */

struct gptq_groups {
    struct group scale, perm, factor, cand, mse, diff, err;
};

/* What #1019 adds while it collects: 0.01 * max(mean of the diagonal, 1e-6). */
static void damp_again(float *h, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)h[i * n + i];
    for (size_t i = 0; i < n; i++)
        h[i * n + i] += (float)(0.01 * fmax(sum / (double)n, 1e-6));
}

/* Columns with equal diagonal elements (dead ones) may stand in any order. */
static void compare_factor(struct check *c, struct gptq_groups *g, const struct gptq_factor *f,
                           const float *h, const char *kind)
{
    const struct tensor_view *want = find(c, "out.%s.perm", kind);
    size_t n = f->n;
    double *perm = parity_alloc(n, sizeof *perm);
    float *u = parity_alloc(n * n, sizeof *u);
    for (size_t i = 0; i < n; i++) {
        size_t ours = f->perm[i], theirs = want ? (size_t)tensor_at(want, i) : ours;
        bool equal = theirs < n && h[ours * n + ours] == h[theirs * n + theirs];
        perm[i] = (double)(equal ? theirs : ours);
    }
    if (want)
        group_doubles(c, &g->perm, perm, n, want, 0);
    if ((want = find(c, "out.%s.hinv_upper", kind))) {
        for (size_t i = 0; i < n * n; i++)
            u[i] = (float)f->ut[i % n * n + i / n];
        group_floats(c, &g->factor, u, n * n, want, 1e-4 * tensor_max(want));
    }
    free(u);
    free(perm);
}

static double hessian_error(const float *h, const float *w, const int8_t *q, double scale, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            sum += ((double)w[i] - q[i] * scale) * (double)h[i * n + j] *
                   ((double)w[j] - q[j] * scale);
    return sum;
}

/* At most 0.5 % of the integers may differ; then the error that GPTQ is about must not. */
static void compare_integers(struct check *c, struct gptq_groups *g, const int8_t *q,
                             const uint16_t *scale, const float *w, const float *h, size_t rows,
                             size_t n, const char *prefix)
{
    const struct tensor_view *want = need(c, rows * n, "out.%s.q", prefix), *err;
    double differ = 0, ours = 0, theirs = 0;
    if (!want)
        return;
    for (size_t i = 0; i < rows * n; i++)
        differ += tensor_at(want, i) != q[i];
    double share = differ / (double)(rows * n);
    g->diff.tensors++;
    g->diff.worst = fmax(g->diff.worst, share / 0.005);
    g->diff.error = fmax(g->diff.error, share);
    g->diff.tol = 0.005;
    c->compared = true;
    if (share > 0.005)
        check_fail(c, "%s: %.0f of %zu integers differ", want->name, differ, rows * n);
    if (!(err = need(c, rows, "out.%s.hweighted_err", prefix)))
        return;
    for (size_t r = 0; r < rows; r++) {
        ours += hessian_error(h, w + r * n, q + r * n, (double)f16_to_f32(scale[r]), n);
        theirs += tensor_at(err, r);
    }
    double off = fabs(ours - theirs) / theirs;
    g->err.tensors++;
    g->err.worst = fmax(g->err.worst, off / 0.01);
    g->err.error = fmax(g->err.error, off);
    g->err.tol = 0.01;
    if (!(off <= 0.01))
        check_fail(c, "%s: error weighted by H %g, expected %g", prefix, ours, theirs);
}

static void run_variant(struct check *c, struct gptq_groups *g, const char *kind, unsigned bits)
{
    const struct tensor_view *in = need(c, 1, "input.w"), *hv = need(c, 1, "input.H"), *want;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.clip%d", kind, quant_levels(bits));
    if (!in || !hv || in->ndim != 2 || !find(c, "out.%s.q", prefix))
        return;
    size_t rows = in->shape[0], n = in->shape[1];
    if (tensor_elems(hv) != n * n) {
        check_fail(c, "input.H: %zu elements, expected %zu", tensor_elems(hv), n * n);
        return;
    }
    const struct quant_how how = {bits, QUANT_CLIP_TENSOR, 1};
    struct gptq_factor f = {0};
    struct quant_search found;
    struct err e = {0};
    float *w = tensor_floats(in), *given = tensor_floats(hv), *h = tensor_floats(hv);
    int8_t *q = parity_alloc(rows * n, 1);
    uint16_t *scale = parity_alloc(rows, sizeof *scale);
    float *s = parity_alloc(rows, sizeof *s);
    if (!strcmp(kind, "1019"))
        damp_again(h, n);
    if (gptq_factor_init(&f, h, n, 0.01, in->name, &e) ||
        gptq_matrix(q, scale, w, rows, &f, &how, (size_t)meta_num(c, "GPTQ_BLOCK_SIZE", 128),
                    in->name, &found, &e)) {
        check_fail(c, "%s", e.msg);
    } else {
        compare_factor(c, g, &f, h, kind);
        for (size_t r = 0; r < rows; r++)
            s[r] = f16_to_f32(scale[r]);
        if ((want = need(c, rows, "out.%s.scale", prefix)))
            group_floats(c, &g->scale, s, rows, want, 0);
        double winner = (double)found.winner;
        if ((want = need(c, 1, "out.%s.pct_index", prefix)))
            group_doubles(c, &g->cand, &winner, 1, want, 0);
        if ((want = need(c, QUANT_PCTS, "out.%s.cand_mse", prefix)))
            group_doubles(c, &g->mse, found.mse, QUANT_PCTS, want, 1e-6 * tensor_max(want));
        compare_integers(c, g, q, scale, w, given, rows, n, prefix);
    }
    gptq_factor_free(&f);
    free(s);
    free(scale);
    free(q);
    free(h);
    free(given);
    free(w);
}

void parity_gptq(struct check *c)
{
    struct gptq_groups g = {
        .scale = {.what = "scales"},
        .perm = {.what = "permutation"},
        .factor = {.what = "factor"},
        .cand = {.what = "winners"},
        .mse = {.what = "mse"},
        .diff = {.what = "other q"},
        .err = {.what = "H error"},
    };
    run_variant(c, &g, "1296", 6);
    run_variant(c, &g, "1296", 5);
    run_variant(c, &g, "1019", 6);
    group_end(c, &g.scale);
    group_end(c, &g.perm);
    group_end(c, &g.factor);
    group_end(c, &g.cand);
    group_end(c, &g.mse);
    group_end(c, &g.diff);
    group_end(c, &g.err);
}

/* ---- Hessians ---- */

struct stream {
    const uint16_t *tok;
};

static enum err_code take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    struct stream *s = ctx;
    (void)e;
    memcpy(ids, s->tok, n * sizeof *ids);
    s->tok += n;
    return ERR_OK;
}

void parity_hessian(struct check *c)
{
    struct group g = {.what = "H"};
    struct gpt m;
    struct hessians hs = {0};
    struct err e = {0};
    float *params;
    const struct tensor_view *tv = need(c, 1, "input.tokens");
    if (!tv || !parity_gpt(c, &m, &params))
        return;
    uint16_t *tok = tensor_tokens(c, tv, (size_t)m.r.vocab_size);
    struct stream s = {tok};
    struct calib cal = {.k = c->k, .take = take, .ctx = &s};
    struct recipe r = m.r;
    r.gptq_calib_batches = (int64_t)tv->shape[0];
    r.gptq_batch_tokens = (int64_t)(tensor_elems(tv) / tv->shape[0]);
    if (tok && hessian_collect(&hs, &m, params, &r, &cal, &e))
        check_fail(c, "%s", e.msg);
    for (size_t i = 0; i < m.nparams && hs.count; i++) {
        const struct gpt_param *p = &m.param[i];
        const struct hessian *h = hessian_find(&hs, p->at);
        const struct tensor_view *want = find(c, "out.H.%s", p->name);
        if (want && !h)
            check_fail(c, "%s: no Hessian collected", p->name);
        else if (want)
            group_floats(c, &g, hessian_matrix(&hs, h), h->n * h->n, want, 1e-5 * tensor_max(want));
    }
    group_end(c, &g);
    hessian_free(&hs);
    free(tok);
    free(params);
    gpt_free(&m);
}

/* ---- pruning ---- */

enum { PRUNE_TENSORS = 64 };

struct pruned {
    struct prune_tensor t[PRUNE_TENSORS];
    char name[PRUNE_TENSORS][96];
    size_t n;
};

static bool prune_load(struct check *c, struct pruned *p)
{
    const char *order = st_meta(&c->st, "TENSOR_ORDER");
    p->n = 0;
    for (size_t len; order && *order && p->n < PRUNE_TENSORS; order += len + (order[len] == ',')) {
        len = strcspn(order, ",");
        char *name = p->name[p->n];
        snprintf(name, sizeof p->name[0], "%.*s", (int)len, order);
        const struct tensor_view *q = need(c, 1, "input.%s.q", name);
        const struct tensor_view *s = need(c, 1, "input.%s.scale", name);
        if (!q || !s || q->ndim != 2 || tensor_elems(s) != q->shape[0])
            return false;
        struct prune_tensor *t = &p->t[p->n++];
        int8_t *qs = parity_alloc(tensor_elems(q), 1);
        uint16_t *ss = parity_alloc(q->shape[0], sizeof *ss);
        for (size_t i = 0; i < tensor_elems(q); i++)
            qs[i] = (int8_t)tensor_at(q, i);
        for (size_t i = 0; i < q->shape[0]; i++)
            ss[i] = f32_to_f16((float)tensor_at(s, i));
        *t = (struct prune_tensor){.q = qs, .scale = ss, .rows = q->shape[0], .cols = q->shape[1]};
    }
    return p->n > 0;
}

static void prune_release(struct pruned *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->t[i].q);
        free((void *)p->t[i].scale);
    }
}

/* The order of all candidates, learnt by pruning one more each time. */
static void compare_order(struct check *c, struct group *g)
{
    const struct tensor_view *ti = need(c, 1, "out.order.tensor_index");
    const struct tensor_view *fi = need(c, 1, "out.order.flat_index");
    struct pruned p;
    if (!ti || !fi || !prune_load(c, &p))
        return;
    size_t n = tensor_elems(ti), have = prune_candidates(p.t, p.n);
    double *order = parity_alloc(2 * n, sizeof *order);
    if (have != n)
        check_fail(c, "%zu candidates, expected %zu", have, n);
    for (size_t k = 0; k < n && have == n; k++) {
        size_t i = (size_t)tensor_at(ti, k), at = (size_t)tensor_at(fi, k);
        if (i >= p.n || at >= p.t[i].rows * p.t[i].cols)
            break;
        bool was = p.t[i].q[at] != 0;
        prune_apply(p.t, p.n, 1);
        bool gone = was && p.t[i].q[at] == 0;
        order[k] = gone ? (double)i : -1;
        order[n + k] = gone ? (double)at : -1;
    }
    group_doubles(c, g, order, n, ti, 0);
    group_doubles(c, g, order + n, n, fi, 0);
    free(order);
    prune_release(&p);
}

/* A size that asks for exactly the pruning that the fixture is about. */
static enum err_code excess_size(void *ctx, uint64_t *bytes, struct err *e)
{
    (void)e;
    *bytes = *(const uint64_t *)ctx;
    return ERR_OK;
}

static void compare_pruned(struct check *c, struct group *g, const char *kind, size_t count)
{
    struct pruned p;
    struct prune_result res = {.pruned = count};
    struct err e = {0};
    const struct tensor_view *excess = find(c, "out.%s.excess", kind), *want;
    if (!prune_load(c, &p))
        return;
    if (excess) { /* the rule of #1296 must arrive at the count by itself */
        uint64_t bytes = 1000 + (uint64_t)tensor_at(excess, 0);
        prune_to(p.t, p.n, 1000, PRUNE_ONCE, excess_size, &bytes, &res, &e);
        if (res.pruned != count)
            check_fail(c, "%s: %zu pruned, expected %zu", kind, res.pruned, count);
    } else {
        prune_apply(p.t, p.n, count);
    }
    for (size_t i = 0; i < p.n; i++) {
        size_t cells = p.t[i].rows * p.t[i].cols;
        if (!(want = need(c, cells, "out.%s.%s.q", kind, p.name[i])))
            continue;
        float *q = parity_alloc(cells, sizeof *q);
        for (size_t k = 0; k < cells; k++)
            q[k] = p.t[i].q[k];
        group_floats(c, g, q, cells, want, 0);
        free(q);
    }
    prune_release(&p);
}

void parity_prune(struct check *c)
{
    struct group order = {.what = "order"}, q = {.what = "pruned q"};
    compare_order(c, &order);
    for (size_t i = 0; i < c->st.count; i++) {
        char kind[32];
        const struct tensor_view *t = &c->st.tensor[i];
        if (name_part(t->name, "out.", ".n_prune", kind, sizeof kind))
            compare_pruned(c, &q, kind, (size_t)tensor_at(t, 0));
    }
    group_end(c, &order);
    group_end(c, &q);
}
