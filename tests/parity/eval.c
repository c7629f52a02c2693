/* eval.c - fixtures of KIND "eval": window lists, byte counts, and, where the model can be built,
 * scores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/scorer.h"
#include "model/ttt.h"
#include "tests/parity/parity.h"

struct stream {
    uint16_t *tok;
    size_t n;
    struct byte_table bytes;
};

static void stream_free(struct stream *s)
{
    free(s->tok);
    bytes_free(&s->bytes);
}

/* The byte table of the fixture, through the serialised form that the project reads. */
static bool table_of(struct check *c, struct byte_table *b, size_t vocab)
{
    const struct tensor_view *base = need(c, vocab, "input.base_bytes");
    const struct tensor_view *lead = need(c, vocab, "input.has_leading_space");
    const struct tensor_view *edge = need(c, vocab, "input.is_boundary");
    if (!base || !lead || !edge)
        return false;
    struct err e = {0};
    uint8_t *raw = parity_alloc(4 + 2 * vocab, 1);
    for (size_t i = 0; i < 4; i++)
        raw[i] = (uint8_t)(vocab >> 8 * i);
    for (size_t i = 0; i < vocab; i++) {
        raw[4 + 2 * i] = (uint8_t)tensor_at(base, i);
        raw[5 + 2 * i] = (uint8_t)((tensor_at(lead, i) != 0 ? BYTES_LEAD : 0) |
                                   (tensor_at(edge, i) != 0 ? BYTES_BOUNDARY : 0));
    }
    if (bytes_parse(b, raw, 4 + 2 * vocab, c->path, &e))
        check_fail(c, "%s", e.msg);
    free(raw);
    return !e.code;
}

static bool stream_of(struct check *c, struct stream *s)
{
    const struct tensor_view *t = find(c, "input.raw_stream");
    size_t vocab = (size_t)meta_num(c, "VOCAB_SIZE", 0);
    *s = (struct stream){0};
    if (!t && !(t = need(c, 2, "input.val_tokens")))
        return false;
    s->n = tensor_elems(t);
    s->tok = tensor_tokens(c, t, vocab);
    return s->tok && table_of(c, &s->bytes, vocab);
}

static double bytes_in(const struct stream *s, size_t from, size_t to)
{
    size_t n = 0;
    for (size_t p = from; p < to; p++)
        n += bytes_of(&s->bytes, s->tok[p], s->tok[p + 1]);
    return (double)n;
}

struct eval_groups {
    struct group lists, bytes, nll, bpb, slot, ttt, weights;
};

/* The list that a result called `name` was made with. SLOT used the old one. */
static struct window_list list_of(const struct check *c, const struct stream *s, const char *name)
{
    struct window_list l = {.mode = EVAL_SLIDING,
                            .old = !strstr(name, "new"),
                            .len = (size_t)meta_num(c, "EVAL_SEQ_LEN", 1),
                            .stride = (size_t)meta_num(c, "EVAL_STRIDE", 1)};
    if (!strcmp(name, "plain"))
        l.mode = EVAL_PLAIN;
    if (!strcmp(name, "ttt"))
        l.mode = EVAL_TTT;
    if (!strncmp(name, "ragged", 6)) /* the functions called with a stream that no loader cut */
        l.total = (size_t)meta_num(c, "RAGGED_LEN", 1) - 1;
    else
        l.total = (s->n - 1) / l.len * l.len;
    return l;
}

/* Starts, lengths and first scored positions of all windows, and the bytes that each scores. */
static void compare_list(struct check *c, struct eval_groups *g, const struct stream *s,
                         const char *name)
{
    struct window_list l = list_of(c, s, name);
    size_t n = window_count(&l), total = 0;
    double *x = parity_alloc(4 * n, sizeof *x), *start = x, *len = x + n, *from = x + 2 * n;
    double *bytes = x + 3 * n, sum[2] = {0};
    for (size_t i = 0; i < n; i++) {
        struct window w = window_at(&l, i);
        start[i] = (double)w.start;
        len[i] = (double)w.len;
        from[i] = (double)w.from;
        if (w.start + w.len < s->n)
            bytes[i] = bytes_in(s, w.start + w.from, w.start + w.len);
        sum[1] += bytes[i];
        total += w.len - w.from;
    }
    sum[0] = (double)total;
    const struct {
        const char *what;
        const double *got;
        struct group *group;
    } columns[] = {{"window_start", start, &g->lists},
                   {"window_len", len, &g->lists},
                   {"score_from", from, &g->lists},
                   {"window_bytes", bytes, &g->bytes}};
    const struct tensor_view *want;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        if ((want = find(c, "out.%s.%s", name, columns[i].what)))
            group_doubles(c, columns[i].group, columns[i].got, n, want, 0);
    if (total != window_scored(&l))
        check_fail(c, "%s: %zu positions in the windows, window_scored says %zu", name, total,
                   window_scored(&l));
    if ((want = find(c, "out.%s.totals", name)) && tensor_elems(want) == 5) {
        struct tensor_view part = tensor_slice(want, 1, 2);
        group_doubles(c, &g->bytes, sum, 2, &part, 0);
    }
    if ((want = find(c, "out.%s.tokens_bytes", name)))
        group_doubles(c, &g->bytes, sum, 2, want, 0);
    free(x);
}

struct collect {
    double *nll;
    size_t n, cap;
};

static enum err_code sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct collect *k = ctx;
    if (n > k->cap - k->n)
        return err_set(e, ERR_INPUT, "more scores than the window list has");
    memcpy(k->nll + k->n, nll, n * sizeof *nll);
    k->n += n;
    return ERR_OK;
}

/* Scored positions against out.NAME.nll [windows][len], and their sums against window_nll_sum. */
static void compare_nll(struct check *c, struct eval_groups *g, const struct window_list *l,
                        const double *nll, const char *name)
{
    const struct tensor_view *want = find(c, "out.%s.nll", name);
    const struct tensor_view *sums = find(c, "out.%s.window_nll_sum", name);
    if (!sums)
        sums = find(c, "out.%s.seq_nll_sum", name);
    size_t n = window_count(l), at = 0;
    double *sum = parity_alloc(n, sizeof *sum);
    for (size_t i = 0; i < n; i++) {
        struct window w = window_at(l, i);
        size_t scored = w.len - w.from;
        for (size_t j = 0; j < scored; j++)
            sum[i] += nll[at + j];
        if (want && tensor_elems(want) == n * l->len) {
            struct tensor_view row = tensor_slice(want, i * l->len + w.from, scored);
            group_doubles(c, &g->nll, nll + at, scored, &row, 5e-5);
        }
        at += scored;
    }
    if (sums)
        group_doubles(c, &g->nll, sum, n, sums, 5e-5 * (double)l->len);
    free(sum);
}

static void compare_scores(struct check *c, struct eval_groups *g, struct gpt *m,
                           const float *params, const struct stream *s, const char *name,
                           enum eval_mode mode, const char *windows)
{
    const struct tensor_view *want = find(c, "out.%s.val_loss_bpb", name);
    if (!want)
        return;
    struct err e = {0};
    struct collect k = {0};
    struct score score;
    struct window_list l;
    struct score_opts o = {.mode = mode, .sink = sink, .ctx = &k};
    strcpy(m->r.eval_windows, windows);
    if (score_windows(m, s->n, &o, &l, &e)) {
        check_fail(c, "%s", e.msg);
        return;
    }
    k.cap = window_scored(&l);
    k.nll = parity_alloc(k.cap, sizeof *k.nll);
    if (score_run(m, c->k, params, s->tok, s->n, &s->bytes, &o, &score, &e)) {
        check_fail(c, "%s: %s", name, e.msg);
    } else {
        struct tensor_view bpb = tensor_slice(want, 1, 1), loss = tensor_slice(want, 0, 1);
        compare_nll(c, g, &l, k.nll, name);
        double single = c->single;
        c->single /= 30; /* a mean is nearer than the single score */
        group_doubles(c, &g->bpb, &score.val_bpb, 1, &bpb, 2e-6);
        group_doubles(c, &g->bpb, &score.val_loss, 1, &loss, 5e-6);
        c->single = single;
    }
    free(k.nll);
}

/* ---- SLOT: what was fitted ---- */

struct fitted {
    struct check *c;
    struct eval_groups *g;
    size_t batch, last; /* windows of a batch; first window of the last one */
    size_t dim, vocab;
};

/* out.batch_first.* and out.batch_last.* hold rows of the first and of the last batch. */
static void compare_fitted(void *ctx, size_t i, size_t deltas, const float *x)
{
    const struct fitted *f = ctx;
    const char *name = i < f->batch ? "first" : "last";
    size_t row = i < f->batch ? i : i - f->last;
    const struct tensor_view *d = find(f->c, "out.batch_%s.delta", name);
    const struct tensor_view *b = find(f->c, "out.batch_%s.logit_bias", name);
    if ((i >= f->batch && i < f->last) || !d || !b || tensor_elems(d) < (row + deltas) * f->dim ||
        tensor_elems(b) < (row + deltas) * f->vocab)
        return;
    if (f->c->loose > 0)
        return; /* where a gradient is about 0, AdamW's first step is a sign */
    struct tensor_view part = tensor_slice(d, row * f->dim, deltas * f->dim);
    group_floats(f->c, &f->g->slot, x, deltas * f->dim, &part, 2e-5);
    part = tensor_slice(b, row * f->vocab, deltas * f->vocab);
    group_floats(f->c, &f->g->slot, x + deltas * f->dim, deltas * f->vocab, &part, 2e-5);
}

static void run_slot(struct check *c, struct eval_groups *g, const struct gpt *m,
                     const float *params, const struct stream *s)
{
    struct window_list l = list_of(c, s, "slot");
    struct fitted f = {
        c, g, (size_t)m->r.slot_batch_seqs, 0, (size_t)m->r.model_dim, (size_t)m->r.vocab_size};
    const struct score_opts o = {.mode = EVAL_SLOT};
    struct scorer run = {.m = m,
                         .k = c->k,
                         .params = params,
                         .tok = s->tok,
                         .b = &s->bytes,
                         .o = &o,
                         .batch = 3,
                         .fitted = compare_fitted,
                         .fitted_ctx = &f};
    struct score score = {0};
    struct err e = {0};
    l.mode = EVAL_SLOT;
    f.last = (window_count(&l) - 1) / f.batch * f.batch;
    graph_init(&run.g);
    if (slot_run(&run, &l, 0, window_count(&l), &score, NULL, &e))
        check_fail(c, "%s", e.msg);
    scorer_free(&run);
}

/* ---- TTT: every step, and the weights at the end ---- */

struct steps {
    double *loss, *norm;
    size_t n, cap;
};

static void one_step(void *ctx, double loss, double norm)
{
    struct steps *s = ctx;
    if (s->n < s->cap) {
        s->loss[s->n] = loss;
        s->norm[s->n] = norm;
    }
    s->n++;
}

static void compare_steps(struct check *c, struct eval_groups *g, const struct steps *s)
{
    const struct tensor_view *loss = need(c, s->cap, "out.ttt.step_loss");
    const struct tensor_view *norm = need(c, s->cap, "out.ttt.step_grad_norm");
    if (s->n != s->cap)
        check_fail(c, "%zu steps, expected %zu", s->n, s->cap);
    for (size_t i = 0; i < s->cap && loss && norm && s->n == s->cap; i++) {
        struct tensor_view one = tensor_slice(loss, i, 1);
        group_doubles(c, &g->ttt, &s->loss[i], 1, &one, 2e-5);
        one = tensor_slice(norm, i, 1);
        group_doubles(c, &g->ttt, &s->norm[i], 1, &one, 1e-4 * tensor_at(norm, i));
    }
}

static void compare_weights(struct check *c, struct eval_groups *g, const struct gpt *m,
                            const float *params)
{
    struct tensor_view *t;
    char *names;
    size_t n = unbank(c, "out.param_after.", true, &t, &names);
    for (size_t i = 0; i < n; i++) {
        const struct gpt_param *p = gpt_find(m, t[i].name);
        if (!p)
            check_fail(c, "no parameter %s", t[i].name);
        else
            group_floats(c, &g->weights, params + p->at, p->size, &t[i], 2e-5);
    }
    if (n < m->nparams)
        check_fail(c, "%zu of %zu parameters in the fixture", n, m->nparams);
    free(t);
    free(names);
}

static void run_ttt(struct check *c, struct eval_groups *g, const struct gpt *m,
                    const float *params, const struct stream *s)
{
    struct window_list l = list_of(c, s, "ttt");
    struct steps steps = {.cap = (size_t)meta_num(c, "SGD_STEPS", 0)};
    struct ttt t;
    struct err e = {0};
    steps.loss = parity_alloc(steps.cap, sizeof(double));
    steps.norm = parity_alloc(steps.cap, sizeof(double));
    enum err_code rc = ttt_open(&t, m, c->k, params, &e);
    t.step = one_step;
    t.ctx = &steps;
    for (size_t i = 0; !rc && i < ttt_chunks(&m->r, l.total); i++)
        rc = ttt_train(&t, s->tok, l.total, i, &e);
    if (rc) {
        check_fail(c, "%s", e.msg);
    } else {
        compare_steps(c, g, &steps);
        compare_weights(c, g, m, t.params);
    }
    ttt_close(&t);
    free(steps.loss);
    free(steps.norm);
}

static void run_scores(struct check *c, struct eval_groups *g, const struct stream *s)
{
    struct gpt m;
    float *params;
    if (!parity_gpt(c, &m, &params))
        return;
    m.r.slot_batch_seqs = (int64_t)meta_num(c, "BATCH_SEQS", (double)m.r.slot_batch_seqs);
    m.r.ttt_freeze_matrices = !find(c, "param.qo_bank");
    float *dev = c->k->alloc(c->k, m.floats * sizeof *params);
    if (!dev) {
        check_fail(c, "no memory for %zu parameters", m.floats);
    } else {
        c->k->upload(c->k, dev, params, m.floats * sizeof *params);
        compare_scores(c, g, &m, dev, s, "plain", EVAL_PLAIN, "new");
        compare_scores(c, g, &m, dev, s, "sliding_new", EVAL_SLIDING, "new");
        compare_scores(c, g, &m, dev, s, "sliding_old", EVAL_SLIDING, "old");
        compare_scores(c, g, &m, dev, s, "no_slot", EVAL_SLIDING, "old");
        compare_scores(c, g, &m, dev, s, "slot", EVAL_SLOT, "old");
        compare_scores(c, g, &m, dev, s, "ttt", EVAL_TTT, "new");
        if (find(c, "out.batch_first.delta"))
            run_slot(c, g, &m, dev, s);
        if (find(c, "out.ttt.step_loss"))
            run_ttt(c, g, &m, dev, s);
    }
    c->k->free(c->k, dev);
    free(params);
    gpt_free(&m);
}

void parity_eval(struct check *c)
{
    struct stream s;
    struct eval_groups g = {.lists = {.what = "window lists"},
                            .bytes = {.what = "byte counts"},
                            .nll = {.what = "nll"},
                            .bpb = {.what = "loss and bpb"},
                            .slot = {.what = "delta and bias"},
                            .ttt = {.what = "loss and norm of steps"},
                            .weights = {.what = "weights afterwards"}};
    if (meta_num(c, "EVAL_SEQ_LEN", 0) < 1 || meta_num(c, "EVAL_STRIDE", 0) < 1) {
        check_missing(c, "an evaluation without windows");
        return;
    }
    if (!stream_of(c, &s)) {
        stream_free(&s);
        return;
    }
    for (size_t i = 0; i < c->st.count; i++) {
        char name[96];
        if (name_part(c->st.tensor[i].name, "out.", ".window_start", name, sizeof name) ||
            name_part(c->st.tensor[i].name, "out.", ".tokens_bytes", name, sizeof name))
            compare_list(c, &g, &s, name);
    }
    run_scores(c, &g, &s);
    group_end(c, &g.lists);
    group_end(c, &g.bytes);
    group_end(c, &g.nll);
    group_end(c, &g.bpb);
    group_end(c, &g.slot);
    group_end(c, &g.ttt);
    group_end(c, &g.weights);
    if (find(c, "out.ragged_sliding_new.window_start"))
        check_skipped(c, "scores of the ragged stream (the scorer cuts it as the loader does)");
    stream_free(&s);
}
