/*
 * slot_test.c - exists for the SLOT that scores well because it computes something else: a loss
 * over the wrong positions, a delta that reaches the neighbour's window, a context that holds what
 * it predicts; and for the shortcut (logits computed once, shifted by a vector) that is not the
 * published loop.
 */
#include "tests/unit/adapt.h"

enum { TOKENS = 160 };

static const struct slot_case {
    const char *name, *settings;
    enum eval_mode mode;
} cases[] = {
    {"slot", "SLOT_LR_MIN=0.0008\n", EVAL_SLOT},
    {"slot, old windows", "EVAL_WINDOWS=old\nSLOT_STEPS=5\nSLOT_LR_MIN=0.001\n", EVAL_SLOT},
    {"slot, constant rate, batches of 3", "SLOT_BATCH_SEQS=3\nSLOT_STEPS=7\n", EVAL_SLOT},
    {"slot, no cap", "LOGIT_SOFTCAP=0\nSLOT_STEPS=6\nSLOT_WD=1\n", EVAL_SLOT},
    {"slot, small cap, other eps", "LOGIT_SOFTCAP=4\nSLOT_STEPS=6\nSLOT_EPS=0.001\n", EVAL_SLOT},
    {"slot, untied head", "TIE_EMBEDDINGS=0\nSLOT_STEPS=4\nSLOT_BATCH_SEQS=2\n", EVAL_SLOT},
    {"slot, stride = window", "EVAL_STRIDE=16\nSLOT_STEPS=4\n", EVAL_SLOT},
    {"context", "SLOT_STEPS=8\nSLOT_LR=0.05\n", EVAL_SLOT_CONTEXT},
    {"context, old windows", "EVAL_WINDOWS=old\nSLOT_STEPS=8\nSLOT_LR=0.005\n", EVAL_SLOT_CONTEXT},
    {"context, partial window", "EVAL_STRIDE=5\nSLOT_STEPS=3\nSLOT_LR=0.05\n", EVAL_SLOT_CONTEXT},
    {"context, long windows", "EVAL_SEQ_LEN=72\nSLOT_STEPS=3\nSLOT_LR=0.05\n", EVAL_SLOT_CONTEXT},
    {"shared", "SLOT_SHARED=1\nSLOT_STEPS=8\nSLOT_LR=0.05\n", EVAL_SLOT_CONTEXT},
    {"shared, old windows, batches of 5",
     "SLOT_SHARED=1\nEVAL_WINDOWS=old\nSLOT_BATCH_SEQS=5\nSLOT_STEPS=4\nSLOT_LR=0.05\n",
     EVAL_SLOT_CONTEXT},
    {"shared, alone in the batch", "SLOT_SHARED=1\nSLOT_BATCH_SEQS=1\nSLOT_STEPS=4\n",
     EVAL_SLOT_CONTEXT},
    {"shared, long windows", "SLOT_SHARED=1\nEVAL_SEQ_LEN=72\nEVAL_STRIDE=8\nSLOT_STEPS=3\n",
     EVAL_SLOT_CONTEXT},
};

/* ---- the published loop, in double, one position after the other ---- */

struct ref {
    size_t dim, vocab, len, count;
    double *w, *h; /* [vocab][dim], [count][len][dim] */
    double cap;
    const uint16_t *tok;
    struct window_list l;
};

static double *ref_hidden(struct tiny *t, const uint16_t *tok, const struct window_list *l)
{
    size_t dim = (size_t)t->m.r.model_dim, count = window_count(l);
    double *h = calloc(count * l->len * dim, sizeof *h);
    for (size_t i = 0; i < count; i++) {
        struct window w = window_at(l, i);
        struct graph g;
        struct err e = {0};
        tiny_plan(t, &g, 1, w.len, 0, false);
        assert_int_equal(graph_forward(&g, t->params, tok + w.start, NULL, NULL, &e), ERR_OK);
        for (size_t j = 0; j < w.len * dim; j++)
            h[i * l->len * dim + j] = (double)graph_hidden(&g)[j];
        graph_free(&g);
    }
    return h;
}

/* nll of position p of window i with delta and bias; adds scale * its gradient to gd and gb. */
static double ref_loss(const struct ref *r, size_t i, size_t p, const double *delta,
                       const double *bias, double scale, double *gd, double *gb)
{
    const double *h = r->h + (i * r->len + p) * r->dim;
    size_t target = r->tok[window_at(&r->l, i).start + p + 1];
    double *l = calloc(r->vocab, sizeof *l), top = -INFINITY, sum = 0, nll;
    for (size_t v = 0; v < r->vocab; v++) {
        double z = bias[v];
        for (size_t d = 0; d < r->dim; d++)
            z += r->w[v * r->dim + d] * (h[d] + delta[d]);
        l[v] = r->cap > 0 ? r->cap * tanh(z / r->cap) : z;
        top = fmax(top, l[v]);
    }
    for (size_t v = 0; v < r->vocab; v++)
        sum += exp(l[v] - top);
    nll = top + log(sum) - l[target];
    for (size_t v = 0; v < r->vocab && gd; v++) {
        double slope = r->cap > 0 ? 1 - l[v] / r->cap * (l[v] / r->cap) : 1;
        double dz = (exp(l[v] - top) / sum - (v == target)) * slope * scale;
        gb[v] += dz;
        for (size_t d = 0; d < r->dim; d++)
            gd[d] += dz * r->w[v * r->dim + d];
    }
    free(l);
    return nll;
}

static void ref_adamw(const struct recipe *r, double *p, const double *g, double *m, double *v,
                      size_t n, double lr, size_t step)
{
    for (size_t i = 0; i < n; i++) {
        m[i] = 0.9 * m[i] + 0.1 * g[i];
        v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
        p[i] *= 1 - lr * r->slot_wd;
        p[i] -= lr / (1 - pow(0.9, (double)step)) * m[i] /
                (sqrt(v[i]) / sqrt(1 - pow(0.999, (double)step)) + r->slot_eps);
    }
}

/* One set of parameters for windows i0..i1 and the losses of their positions lo..hi, weighted. */
static void ref_fit(const struct ref *r, const struct recipe *s, bool slot, size_t i0, size_t i1,
                    const size_t *lo, const size_t *hi, const double *weight, double *x)
{
    size_t n = r->dim + r->vocab;
    double *g = calloc(3 * n, sizeof *g), *m = g + n, *v = m + n;
    memset(x, 0, n * sizeof *x);
    for (int64_t k = 0; k < s->slot_steps; k++) {
        double lr = s->slot_lr;
        if (s->slot_lr_min >= 0)
            lr = s->slot_lr_min + 0.5 * (s->slot_lr - s->slot_lr_min) *
                                      (1 + cos(acos(-1) * (double)k / (double)s->slot_steps));
        memset(g, 0, n * sizeof *g);
        for (size_t i = i0; i < i1; i++)
            for (size_t p = lo[i]; p < hi[i]; p++)
                ref_loss(r, i, p, x, x + r->dim, weight[i], g, g + r->dim);
        ref_adamw(s, x, g, m, v, slot ? n : r->dim, lr, (size_t)k + 1);
    }
    free(g);
}

/* All scores, in list order; returns how many. */
static size_t reference(struct tiny *t, const uint16_t *tok, const struct window_list *l,
                        double *nll)
{
    const struct recipe *s = &t->m.r;
    struct ref r = {.dim = (size_t)s->model_dim,
                    .vocab = (size_t)s->vocab_size,
                    .len = l->len,
                    .count = window_count(l),
                    .cap = s->logit_softcap,
                    .tok = tok,
                    .l = *l};
    const float *head = t->params + gpt_head(&t->m);
    size_t lo[200], hi[200], batch = (size_t)s->slot_batch_seqs, n = 0;
    double weight[200], *x = calloc(r.dim + r.vocab, sizeof *x);
    bool slot = l->mode == EVAL_SLOT;
    r.h = ref_hidden(t, tok, l);
    r.w = calloc(r.vocab * r.dim, sizeof *r.w);
    for (size_t i = 0; i < r.vocab * r.dim; i++)
        r.w[i] = (double)head[i];
    for (size_t b = 0; b < r.count; b += batch) {
        size_t end = b + batch < r.count ? b + batch : r.count, scored = 0, fitted = 0;
        for (size_t i = b; i < end; i++) {
            struct window w = window_at(l, i);
            lo[i] = slot ? w.from : 0;
            hi[i] = slot ? w.len : w.start && w.len > l->stride ? w.len - l->stride : 0;
            scored += w.len - w.from;
            fitted += hi[i] > 0;
        }
        for (size_t i = b; i < end; i++)
            weight[i] = slot ? 1.0 / (double)scored
                             : 1.0 / (double)hi[i] / (s->slot_shared ? (double)fitted : 1);
        for (size_t i = b; i < end; i++) {
            struct window w = window_at(l, i);
            bool shared = !slot && s->slot_shared;
            if (!shared || i == b)
                ref_fit(&r, s, slot, i, shared ? end : i + 1, lo, hi, weight, x);
            for (size_t p = w.from; p < w.len; p++)
                nll[n++] = ref_loss(&r, i, p, x, x + r.dim, 0, NULL, NULL);
        }
    }
    free(r.h);
    free(r.w);
    free(x);
    return n;
}

static void against_the_published_loop(void **state)
{
    struct adapt_run *r = calloc(1, sizeof *r), *sliding = calloc(1, sizeof *r);
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct tiny t = tiny_open(cases[c].settings, 2, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        struct score_opts o = {.mode = cases[c].mode};
        struct window_list l;
        struct err e = {0};
        double *want = calloc(ADAPT_SCORES, sizeof *want), worst = 0, moved = 0;
        adapt_ok(cases[c].name, &t, tok, TOKENS, &o, r);
        assert_int_equal(score_windows(&t.m, TOKENS, &o, &l, &e), ERR_OK);
        assert_int_equal(reference(&t, tok, &l, want), r->n);
        adapt_ok(cases[c].name, &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING},
                 sliding);
        for (size_t i = 0; i < r->n; i++) {
            worst = fmax(worst, fabs(r->nll[i] - want[i]));
            moved = fmax(moved, fabs(r->nll[i] - sliding->nll[i]));
        }
        if (!(worst < 2e-5))
            fail_msg("%s: a score is %.3g off (SLOT moves them by %.3g)", cases[c].name, worst,
                     moved);
        if (!(moved > 1e-3) && !strstr(cases[c].name, "alone"))
            fail_msg("%s: SLOT moves the scores by %.3g only", cases[c].name, moved);
        /* The value of record is that of a run of its own. */
        if (memcmp(&r->record, &sliding->s, sizeof r->record))
            fail_msg("%s: record %.17g, sliding %.17g", cases[c].name, r->record.val_bpb,
                     sliding->s.val_bpb);
        free(want);
        free(tok);
        tiny_close(&t);
    }
    free(r);
    free(sliding);
}

static void the_same_bits_everywhere(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c += 2)
        adapt_same_bits(cases[c].name, cases[c].settings, cases[c].mode, TOKENS);
    adapt_same_bits(cases[11].name, cases[11].settings, cases[11].mode, TOKENS);
}

/* Without a step, and with a rate of 0, all scores are the sliding ones. */
static void nothing_fitted(void **state)
{
    static const char *const settings[] = {"SLOT_STEPS=0", "SLOT_LR=0\nSLOT_STEPS=3"};
    struct adapt_run *r = calloc(1, sizeof *r), *sliding = calloc(1, sizeof *r);
    (void)state;
    for (size_t i = 0; i < COUNT(settings); i++)
        for (int m = EVAL_SLOT; m <= EVAL_SLOT_CONTEXT; m++) {
            struct tiny t = tiny_open(settings[i], 1, 6);
            uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
            adapt_ok(settings[i], &t, tok, TOKENS, &(struct score_opts){.mode = (enum eval_mode)m},
                     r);
            adapt_ok(settings[i], &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING},
                     sliding);
            assert_int_equal(r->n, sliding->n);
            assert_int_equal(adapt_differ(r->nll, sliding->nll, r->n), 0);
            assert_memory_equal(&r->record, &sliding->s, sizeof r->record);
            free(tok);
            tiny_close(&t);
        }
    free(r);
    free(sliding);
}

/* ---- who knows the future ---- */

/*
 * Everything behind a token is changed, and the token itself, which is the target of the position
 * before it: a causal method keeps all scores of the positions before, bit by bit.
 */
static void causality(void **state)
{
    static const struct {
        const char *name, *settings;
        enum eval_mode mode;
        bool causal;
    } modes[] = {
        {"sliding", "", EVAL_SLIDING, true},
        {"slot", "SLOT_STEPS=4", EVAL_SLOT, false},
        {"context", "SLOT_STEPS=4", EVAL_SLOT_CONTEXT, true},
        {"shared", "SLOT_SHARED=1\nSLOT_STEPS=4", EVAL_SLOT_CONTEXT, false},
        {"shared, alone", "SLOT_SHARED=1\nSLOT_BATCH_SEQS=1\nSLOT_STEPS=4", EVAL_SLOT_CONTEXT,
         true},
    };
    struct adapt_run *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    (void)state;
    for (size_t m = 0; m < COUNT(modes); m++) {
        struct tiny t = tiny_open(modes[m].settings, 2, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        struct score_opts o = {.mode = modes[m].mode};
        size_t leaks = 0;
        adapt_ok(modes[m].name, &t, tok, TOKENS, &o, a);
        for (size_t cut = 10; cut < TOKENS; cut += 23) {
            uint16_t *other = malloc(TOKENS * sizeof *other);
            for (size_t i = 0; i < TOKENS; i++)
                other[i] = i < cut ? tok[i] : (uint16_t)((tok[i] + 1 + i % 30) % 37);
            adapt_ok(modes[m].name, &t, other, TOKENS, &o, b);
            /* New windows: score i is that of position i, whose target is token i + 1. */
            leaks += adapt_differ(a->nll, b->nll, cut - 1);
            free(other);
        }
        if ((leaks == 0) != modes[m].causal)
            fail_msg("%s: %zu scores know the future", modes[m].name, leaks);
        bool met[SCORE_CONDITIONS];
        score_conditions(&t.m.r, modes[m].mode, met);
        if (met[0] && !modes[m].causal)
            fail_msg("%s: said to be causal", modes[m].name);
        free(tok);
        tiny_close(&t);
    }
    free(a);
    free(b);
}

/* ---- what is refused ---- */

static void settings(void **state)
{
    static const struct {
        const char *set, *says;
    } bad[] = {
        {"SLOT_STEPS=-1", "SLOT_STEPS=-1: must be 0 to 100000"},
        {"SLOT_STEPS=100001", "SLOT_STEPS=100001"},
        {"SLOT_BATCH_SEQS=0", "SLOT_BATCH_SEQS=0: must be 1 to 65536"},
        {"SLOT_SHARED=2", "SLOT_SHARED=2: must be 0 to 1"},
        {"SLOT_AFTER_TTT=-1", "SLOT_AFTER_TTT=-1"},
        {"SLOT_LR=-0.1", "SLOT_LR: must be 0 to"},
        {"SLOT_LR_MIN=0.01", "SLOT_LR_MIN: must be at most SLOT_LR"},
        {"SLOT_WD=-1", "SLOT_WD: must be 0 to"},
        {"SLOT_EPS=0", "SLOT_EPS: must be 1e-30 to 1"},
    };
    struct adapt_run *r = calloc(1, sizeof *r);
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        for (int m = EVAL_SLOT; m <= EVAL_SLOT_CONTEXT; m++) {
            struct tiny t = tiny_open(bad[i].set, 1, 6);
            uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
            struct err e = {0};
            EXPECT(bad[i].set, ERR_USAGE, bad[i].says,
                   adapt_score(&t, tok, TOKENS, &(struct score_opts){.mode = (enum eval_mode)m}, r,
                               &e),
                   e);
            /* They do not matter to other modes. */
            adapt_ok(bad[i].set, &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING}, r);
            free(tok);
            tiny_close(&t);
        }
    free(r);
}

/* A head that is not finite, which the hidden states do not show, is found out. */
static void not_finite(void **state)
{
    struct adapt_run *r = calloc(1, sizeof *r);
    (void)state;
    for (int m = EVAL_SLOT; m <= EVAL_SLOT_CONTEXT; m++) {
        struct tiny t = tiny_open("TIE_EMBEDDINGS=0\nSLOT_STEPS=2", 1, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        struct err e = {0};
        t.params[gpt_head(&t.m) + 100] = NAN;
        EXPECT("NaN", ERR_INPUT, "the score of position 0 is not finite",
               adapt_score(&t, tok, TOKENS, &(struct score_opts){.mode = (enum eval_mode)m}, r, &e),
               e);
        free(tok);
        tiny_close(&t);
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_published_loop),
        cmocka_unit_test(the_same_bits_everywhere),
        cmocka_unit_test(nothing_fitted),
        cmocka_unit_test(causality),
        cmocka_unit_test(settings),
        cmocka_unit_test(not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
