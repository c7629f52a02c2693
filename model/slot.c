/*
 * slot.c - SLOT (arXiv 2505.12392): before windows are scored, a vector added to their final hidden
 * states is fitted to tokens of the windows themselves. The weights stay as they are.
 *
 *   slot           (#1263, from #1229) per window a delta [dim] and a bias of the logits [vocab],
 *                  fitted to the very targets that are scored. loss = sum of their nll / M, M the
 *                  scored positions of SLOT_BATCH_SEQS consecutive windows of the list
 *   slot-context   a delta, fitted to the targets before the scored ones: positions [0, len -
 *                  stride) of a window, none for the window that starts at 0.
 *                  SLOT_SHARED=0: one delta per window, loss = mean nll
 *                  SLOT_SHARED=1 (#1276): one per SLOT_BATCH_SEQS windows, loss = mean over the
 *                  windows that have such positions of their mean nll
 *
 * Then SLOT_STEPS steps of AdamW (betas 0.9, 0.999) from zero, rate SLOT_LR, or with SLOT_LR_MIN >=
 * 0 SLOT_LR_MIN + (SLOT_LR - SLOT_LR_MIN)/2 (1 + cos(pi k / SLOT_STEPS)) in step k.
 *
 * The logits are W(h + delta) + bias = W h + u, u = W delta + bias. W h is the same in all steps
 * and is computed once; a step is one vector u per delta, the loss's gradient summed over rows
 * (which is the gradient of the bias), and that sum times W. So a step costs elementwise work on
 * the rows of its loss and two products of one row, instead of two products of all rows; and of W h
 * only the rows that loss or score need exist. Where W h of all windows of a step does not fit in
 * score_opts.cache, it is computed again, window by window: the same bits.
 */
#include <stdlib.h>
#include <string.h>

#include "model/scorer.h"

static const double PI = 0x1.921fb54442d18p+1;
static const size_t CACHE = (size_t)1 << 30;

enum err_code slot_check(const struct recipe *r, struct err *e)
{
    static const struct recipe_range range[] = {
        RECIPE_RANGE(SLOT_STEPS, slot_steps, 0, 100000),
        RECIPE_RANGE(SLOT_BATCH_SEQS, slot_batch_seqs, 1, 65536),
        RECIPE_RANGE(SLOT_SHARED, slot_shared, 0, 1),
        RECIPE_RANGE(SLOT_AFTER_TTT, slot_after_ttt, 0, 1),
    };
    enum err_code rc = recipe_ranges(r, range, sizeof range / sizeof range[0], e);
    if (rc)
        return rc;
    if (!(r->slot_lr >= 0 && r->slot_lr <= 1e6))
        return err_set(e, ERR_USAGE, "SLOT_LR: must be 0 to 1000000");
    if (!(r->slot_lr_min <= r->slot_lr))
        return err_set(e, ERR_USAGE,
                       "SLOT_LR_MIN: must be at most SLOT_LR; below 0 the rate is constant");
    if (!(r->slot_wd >= 0 && r->slot_wd <= 1e6))
        return err_set(e, ERR_USAGE, "SLOT_WD: must be 0 to 1000000");
    if (!(r->slot_eps >= 1e-30 && r->slot_eps <= 1))
        return err_set(e, ERR_USAGE, "SLOT_EPS: must be 1e-30 to 1"); /* 0 / (0 + eps) happens */
    return ERR_OK;
}

/* Windows from..end of the list that are fitted together, or side by side. */
struct load {
    size_t from, end;
    size_t per, deltas;    /* windows that share a delta, and how many deltas there are */
    size_t rows, most;     /* rows that are kept: of all windows, of the largest */
    size_t scored, fitted; /* positions that are scored; windows that the loss has */
    bool cached;           /* z holds all windows, not one */
};

struct slot {
    struct scorer *s;
    const struct window_list *l;
    struct load d;
    const float *w; /* the head's weight [vocab][dim] */
    size_t dim, vocab;
    bool bias;
    /* Backend memory, for `rows` kept rows, `zs` rows of logits and `deltas` deltas. */
    size_t rows, zs, deltas;
    float *h;         /* [rows][dim], only when z does not hold all */
    float *z;         /* [zs][vocab] */
    float *nll;       /* [rows] */
    uint16_t *target; /* [rows] */
    float *u;         /* [deltas][vocab] */
    float *x, *g;     /* [deltas][dim], then [deltas][vocab]: delta, bias; their gradients */
    float *m1, *m2;   /* AdamW's moments of them */
};

/* First row of a window that is kept, how many are, and how many from there on the loss has. */
static size_t kept_from(const struct slot *q, struct window w)
{
    return q->bias ? w.from : 0;
}

static size_t kept(const struct slot *q, struct window w)
{
    return w.len - kept_from(q, w);
}

static size_t loss_rows(const struct slot *q, struct window w)
{
    if (q->bias)
        return w.len - w.from;
    return w.start && w.len > q->l->stride ? w.len - q->l->stride : 0;
}

/* ---- memory ---- */

static void free_rows(struct slot *q)
{
    struct kern *k = q->s->k;
    k->free(k, q->h);
    k->free(k, q->z);
    k->free(k, q->nll);
    k->free(k, q->target);
    q->h = q->z = q->nll = NULL;
    q->target = NULL;
    q->rows = q->zs = 0;
}

static void free_deltas(struct slot *q)
{
    struct kern *k = q->s->k;
    k->free(k, q->u);
    k->free(k, q->x);
    k->free(k, q->g);
    k->free(k, q->m1);
    k->free(k, q->m2);
    q->u = q->x = q->g = q->m1 = q->m2 = NULL;
    q->deltas = 0;
}

static enum err_code room(struct slot *q, struct err *e)
{
    struct kern *k = q->s->k;
    size_t zs = q->d.cached ? q->d.rows : q->d.most, f = sizeof(float);
    if (q->rows < q->d.rows || q->zs < zs || (!q->d.cached && !q->h)) {
        free_rows(q);
        q->h = q->d.cached ? NULL : k->alloc(k, q->d.rows * q->dim * f);
        q->z = k->alloc(k, zs * q->vocab * f);
        q->nll = k->alloc(k, q->d.rows * f);
        q->target = k->alloc(k, q->d.rows * sizeof *q->target);
        if ((!q->h && !q->d.cached) || !q->z || !q->nll || !q->target)
            return err_nomem(e, "logits of a batch of windows", zs * q->vocab * f);
        q->rows = q->d.rows;
        q->zs = zs;
    }
    if (q->deltas < q->d.deltas) {
        size_t n = q->d.deltas * (q->dim + q->vocab) * f;
        free_deltas(q);
        q->u = k->alloc(k, q->d.deltas * q->vocab * f);
        q->x = k->alloc(k, n);
        q->g = k->alloc(k, n);
        q->m1 = k->alloc(k, n);
        q->m2 = k->alloc(k, n);
        if (!q->u || !q->x || !q->g || !q->m1 || !q->m2)
            return err_nomem(e, "SLOT's parameters", 4ull * n);
        q->deltas = q->d.deltas;
    }
    return ERR_OK;
}

/* ---- a load ---- */

static void measure(struct slot *q, size_t i)
{
    const struct recipe *r = &q->s->m->r;
    const struct window_list *l = q->l;
    size_t batch = (size_t)r->slot_batch_seqs, count = window_count(l), first = i / batch * batch;
    size_t end = count - first > batch ? first + batch : count, limit = q->s->o->cache;
    bool shared = !q->bias && r->slot_shared;
    struct load d = {.from = i, .per = shared ? SIZE_MAX : 1};
    d.end = shared ? end : i + scorer_same(l, i, end, q->s->batch);
    d.deltas = shared ? 1 : d.end - i;
    /* M is the recipe's batch's, however many of its windows are at hand. */
    for (size_t j = first; j < end; j++) {
        struct window w = window_at(l, j);
        d.scored += w.len - w.from;
        d.fitted += loss_rows(q, w) > 0;
    }
    for (size_t j = i; j < d.end; j++) {
        size_t n = kept(q, window_at(l, j));
        d.rows += n;
        d.most = n > d.most ? n : d.most;
    }
#ifndef RUNNER
    if (!limit && q->s->k->memory)
        limit = q->s->k->memory / 8;
#endif
    d.cached = d.rows <= (limit ? limit : CACHE) / sizeof(float) / q->vocab;
    q->d = d;
}

/* Hidden states, or the logits before the soft cap, of all rows of the load; and their targets. */
static enum err_code forward(struct slot *q, struct err *e)
{
    struct scorer *s = q->s;
    struct kern *k = s->k;
    enum err_code rc;
    for (size_t i = q->d.from, n, at = 0; i < q->d.end; i += n) {
        struct window w = window_at(q->l, i);
        size_t rows;
        n = scorer_same(q->l, i, q->d.end, s->batch);
        rows = n * kept(q, w);
        if ((rc = scorer_forward(s, q->l, i, n, kept_from(q, w), false, e)))
            return rc;
        k->upload(k, q->target + at, s->target, rows * sizeof *s->target);
        if (q->d.cached)
            k->linear_fwd(k, q->z + at * q->vocab, graph_hidden(&s->g), q->w, rows, q->vocab,
                          q->dim);
        else
            k->take(k, q->h + at * q->dim, graph_hidden(&s->g), 1, rows, 0, q->dim);
        at += rows;
    }
    return ERR_OK;
}

/*
 * Windows of the load from i on, of one shape, whose logits are at hand: how many, or, when they
 * are not kept, one whose logits are computed now. `at` is i's first row in the load. The rest of a
 * is filled in by the caller.
 */
static size_t logits(struct slot *q, size_t i, size_t at, struct kern_slot *a)
{
    struct kern *k = q->s->k;
    struct window w = window_at(q->l, i);
    size_t n = scorer_same(q->l, i, q->d.end, q->d.cached ? q->s->batch : 1), step = kept(q, w);
    if (!q->d.cached)
        k->linear_fwd(k, q->z, q->h + at * q->dim, q->w, step, q->vocab, q->dim);
    *a = (struct kern_slot){.z = q->d.cached ? q->z + at * q->vocab : q->z,
                            .target = q->target + at,
                            .groups = n,
                            .per = q->d.per,
                            .step = step,
                            .vocab = q->vocab,
                            .cap = (float)q->s->m->r.logit_softcap};
    return n;
}

/* What window i's delta is in an array of them. */
static size_t delta_of(const struct slot *q, size_t i)
{
    return (i - q->d.from) / q->d.per;
}

/* u = W delta + bias. */
static void shifts(struct slot *q)
{
    struct kern *k = q->s->k;
    k->linear_fwd(k, q->u, q->x, q->w, q->d.deltas, q->vocab, q->dim);
    struct kern_combine bias = {.y = q->u,
                                .x0 = q->u,
                                .x1 = q->x + q->d.deltas * q->dim,
                                .rows = q->d.deltas,
                                .dim = q->vocab};
    if (q->bias)
        k->combine_fwd(k, &bias);
}

/* Gradients of delta and bias into q->g. */
static void gradients(struct slot *q)
{
    struct kern *k = q->s->k;
    float *du = q->g + q->d.deltas * q->dim;
    k->zero(k, du, q->d.deltas * q->vocab * sizeof *du);
    for (size_t i = q->d.from, at = 0, n; i < q->d.end; i += n) {
        struct window w = window_at(q->l, i);
        struct kern_slot a;
        size_t rows = loss_rows(q, w);
        if (!rows) { /* nothing to fit: not even its logits are needed */
            at += kept(q, w);
            n = 1;
            continue;
        }
        n = logits(q, i, at, &a);
        a.u = q->u + delta_of(q, i) * q->vocab;
        a.du = du + delta_of(q, i) * q->vocab;
        a.rows = rows;
        /* The mean over the scored positions, or over the windows that share a delta of their
         * mean. */
        a.gscale = (float)(q->bias         ? 1.0 / (double)q->d.scored
                           : q->d.per == 1 ? 1.0 / (double)rows
                                           : 1.0 / ((double)rows * (double)q->d.fitted));
        k->slot_bwd(k, &a);
        at += n * a.step;
    }
    k->linear_bwd_x(k, q->g, du, q->w, q->d.deltas, q->vocab, q->dim, false);
}

static void fit(struct slot *q)
{
    const struct recipe *r = &q->s->m->r;
    struct kern *k = q->s->k;
    size_t n = q->d.deltas * (q->dim + (q->bias ? q->vocab : 0));
    size_t bytes = n * sizeof(float), steps = (size_t)r->slot_steps;
    k->zero(k, q->x, bytes);
    k->zero(k, q->m1, bytes);
    k->zero(k, q->m2, bytes);
    shifts(q);
    for (size_t i = 0; i < steps; i++) {
        double lr = r->slot_lr, low = r->slot_lr_min;
        if (low >= 0)
            lr = low + (lr - low) / 2 * (1 + kern_cos(PI * (double)i / (double)steps));
        struct kern_adamw a = {.p = q->x,
                               .m = q->m1,
                               .v = q->m2,
                               .g = q->g,
                               .n = n,
                               .step = i + 1,
                               .lr = (float)lr,
                               .b1 = 0.9f,
                               .b2 = 0.999f,
                               .eps = (float)r->slot_eps,
                               .wd = (float)r->slot_wd};
        gradients(q);
        k->adamw(k, &a);
        shifts(q);
    }
}

/* Scores of the load, shifted and as they are. */
static enum err_code take(struct slot *q, struct score *to, struct score *record, struct err *e)
{
    struct scorer *s = q->s;
    struct kern *k = s->k;
    enum err_code rc;
    for (size_t i = q->d.from, at = 0, n; i < q->d.end; i += n) {
        struct window w = window_at(q->l, i);
        struct kern_slot a;
        size_t skip = w.from - kept_from(q, w);
        n = logits(q, i, at, &a);
        at += n * a.step;
        a.z += skip * q->vocab;
        a.target += skip;
        a.rows = w.len - w.from;
        a.nll = q->nll;
        for (int fitted = record ? 0 : 1; fitted < 2; fitted++) {
            a.u = fitted ? q->u + delta_of(q, i) * q->vocab : NULL;
            k->slot_fwd(k, &a);
            k->download(k, s->nll, q->nll, n * a.rows * sizeof *s->nll);
            if ((rc = k->sync(k, e)) || (rc = scorer_take(s, q->l, i, n, fitted ? to : record,
                                                          fitted || scorer_range(s), e)))
                return rc;
        }
        scorer_advance(s, n);
    }
    return ERR_OK;
}

enum err_code slot_run(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                       struct score *to, struct score *record, struct err *e)
{
    const struct gpt *m = s->m;
    struct slot q = {.s = s,
                     .l = l,
                     .w = s->params + gpt_head(m),
                     .dim = (size_t)m->r.model_dim,
                     .vocab = (size_t)m->r.vocab_size,
                     .bias = l->mode == EVAL_SLOT};
    enum err_code rc = ERR_OK;
    if (scorer_shared(s))
        return scorer_share(s, l, i, end, (size_t)m->r.slot_batch_seqs, slot_run, to, record, true,
                            e);
    for (; i < end && !rc; i = q.d.end) {
        measure(&q, i);
        if (!(rc = room(&q, e)) && !(rc = forward(&q, e))) {
            fit(&q);
            if (s->fitted)
                s->fitted(s->fitted_ctx, i, q.d.deltas, q.x);
            rc = take(&q, to, record, e);
        }
    }
    free_rows(&q);
    free_deltas(&q);
    return rc;
}
