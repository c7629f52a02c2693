/*
 * ttt_test.c - exists for the test-time training that trains on what it has not scored yet, forgets
 * its momentum at the border of a chunk, moves weights that were to be frozen, leaves the caller's
 * weights changed, or adds up gradients in an order that processes cannot share.
 */
#include "model/ttt.h"

#include "tests/unit/adapt.h"
#include "trainer/split.h"

enum { TOKENS = 200 };
#define TTT "TTT_CHUNK_TOKENS=40\nTTT_LR=0.05\nTTT_BATCH_SEQS=1\n"

static const struct ttt_case {
    const char *name, *settings;
    enum eval_mode mode;
} cases[] = {
    {"ttt", TTT, EVAL_TTT},
    {"two rows per step", TTT "TTT_BATCH_SEQS=2\nTTT_MOMENTUM=0.5\n", EVAL_TTT},
    {"five rows per step", TTT "TTT_CHUNK_TOKENS=80\nTTT_BATCH_SEQS=6\n", EVAL_TTT},
    {"no clipping", TTT "TTT_GRAD_CLIP=0\nTTT_EPOCHS=1\n", EVAL_TTT},
    {"strong clipping", TTT "TTT_GRAD_CLIP=0.1\nTTT_CHUNK_TOKENS=16\n", EVAL_TTT},
    {"one block frozen", TTT "TTT_FREEZE_BLOCKS=1\n", EVAL_TTT},
    {"vectors of two blocks frozen", TTT "TTT_FREEZE_BLOCKS=2\nTTT_FREEZE_MATRICES=0\n", EVAL_TTT},
    {"bf16 tables", TTT "EMBED_BF16=1\n", EVAL_TTT},
    {"stride 5", TTT "EVAL_STRIDE=5\n", EVAL_TTT},
    {"context after ttt", TTT "SLOT_AFTER_TTT=1\nSLOT_STEPS=2\n", EVAL_SLOT_CONTEXT},
    {"shared after ttt", TTT "SLOT_AFTER_TTT=1\nSLOT_STEPS=2\nSLOT_SHARED=1\n", EVAL_SLOT_CONTEXT},
};

/* ---- the published loop: gradients of the graph, the rest in double ---- */

struct ref {
    const struct tiny *t;
    struct graph g;
    double *p, *buf;
    float *params, *grads;
};

static bool frozen(const struct gpt_param *p, const struct recipe *r)
{
    size_t block;
    return sscanf(p->name, "blocks.%zu.", &block) == 1 && block < (size_t)r->ttt_freeze_blocks &&
           (r->ttt_freeze_matrices || p->cls != PARAM_MATRIX);
}

static double bf16(double x)
{
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, sizeof f);
    return (double)f;
}

static void ref_step(struct ref *r, const uint16_t *x, size_t rows, double lr)
{
    const struct gpt *m = &r->t->m;
    double norm = 0, scale = 1;
    float *nll = malloc(r->g.t * sizeof *nll);
    struct err e = {0};
    memset(r->grads, 0, m->floats * sizeof *r->grads);
    for (size_t i = 0; i < m->floats; i++)
        r->params[i] = (float)r->p[i];
    for (size_t i = 0; i < rows; i++, x += r->g.t) {
        assert_int_equal(graph_forward(&r->g, r->params, x, x + 1, nll, &e), ERR_OK);
        graph_backward(&r->g, r->params, r->grads, (float)(1.0 / (double)(rows * r->g.t)));
    }
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < m->nparams; i++) {
            const struct gpt_param *p = &m->param[i];
            bool coarse = m->r.embed_bf16 && p->cls == PARAM_EMBED;
            for (size_t j = p->at; j < p->at + p->size && !frozen(p, &m->r); j++) {
                double g = coarse ? bf16((double)r->grads[j]) : (double)r->grads[j];
                if (!pass) {
                    norm += g * g;
                    continue;
                }
                g = coarse ? bf16(g * scale) : g * scale;
                r->buf[j] = m->r.ttt_momentum * r->buf[j] + g;
                r->buf[j] = coarse ? bf16(r->buf[j]) : r->buf[j];
                r->p[j] -= lr * r->buf[j];
                r->p[j] = coarse ? bf16(r->p[j]) : r->p[j];
            }
            if (!pass && i + 1 == m->nparams && m->r.ttt_grad_clip > 0)
                scale = fmin(1, m->r.ttt_grad_clip / (sqrt(norm) + 1e-6));
        }
    free(nll);
}

/* Scores of a list, chunk by chunk; afterwards r->params are the weights that have seen it all. */
static size_t reference(struct ref *r, const uint16_t *tok, const struct window_list *l,
                        double *nll)
{
    const struct recipe *s = &r->t->m.r;
    size_t chunk = (size_t)s->ttt_chunk_tokens, chunks = (l->total + chunk - 1) / chunk, n = 0;
    size_t rows = chunk / l->len, at = 0;
    for (size_t c = 0; c < chunks; c++) {
        struct tiny now = *r->t;
        now.params = r->params;
        for (size_t i = 0; i < r->t->m.floats; i++)
            r->params[i] = (float)r->p[i];
        for (; at < window_count(l); at++) {
            struct window w = window_at(l, at);
            struct graph g;
            float scores[100];
            if ((w.start + w.from) / chunk != c)
                break;
            tiny_plan(&now, &g, 1, w.len, 0, false);
            tiny_forward(&now, &g, tok + w.start, scores);
            graph_free(&g);
            for (size_t p = w.from; p < w.len; p++)
                nll[n++] = (double)scores[p];
        }
        double lr = s->ttt_lr * 0.5 * (1 + cos(acos(-1) * (double)c / fmax(1, (double)chunks - 1)));
        for (int64_t epoch = 0; epoch < s->ttt_epochs && c + 1 < chunks; epoch++)
            for (size_t i = 0; i < rows; i += (size_t)s->ttt_batch_seqs) {
                size_t left = rows - i, batch = (size_t)s->ttt_batch_seqs;
                ref_step(r, tok + c * chunk + i * l->len, left < batch ? left : batch, lr);
            }
    }
    return n;
}

static struct ref ref_open(struct tiny *t, size_t len)
{
    struct ref r = {.t = t};
    r.p = calloc(2 * t->m.floats, sizeof *r.p);
    r.buf = r.p + t->m.floats;
    r.params = calloc(2 * t->m.floats, sizeof *r.params);
    r.grads = r.params + t->m.floats;
    for (size_t i = 0; i < t->m.floats; i++)
        r.p[i] = (double)t->params[i];
    tiny_plan(t, &r.g, 1, len, 0, true);
    return r;
}

static void ref_close(struct ref *r)
{
    graph_free(&r->g);
    free(r->p);
    free(r->params);
}

static void against_the_published_loop(void **state)
{
    struct adapt_run *r = calloc(1, sizeof *r), *sliding = calloc(1, sizeof *r);
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct tiny t = tiny_open(cases[c].settings, 2, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        struct score_opts o = {.mode = EVAL_TTT};
        struct window_list l;
        struct err e = {0};
        double *want = calloc(ADAPT_SCORES, sizeof *want), worst = 0;
        for (size_t i = 0; i < t.m.nparams; i++) /* bf16 tables come rounded */
            for (size_t j = 0; j < t.m.param[i].size; j++)
                if (t.m.r.embed_bf16 && t.m.param[i].cls == PARAM_EMBED)
                    t.params[t.m.param[i].at + j] =
                        (float)bf16((double)t.params[t.m.param[i].at + j]);
        assert_int_equal(score_windows(&t.m, TOKENS, &o, &l, &e), ERR_OK);
        struct ref ref = ref_open(&t, l.len);
        size_t n = reference(&ref, tok, &l, want);
        o.mode = cases[c].mode;
        adapt_ok(cases[c].name, &t, tok, TOKENS, &o, r);
        adapt_ok(cases[c].name, &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING},
                 sliding);
        if (memcmp(&r->record, &sliding->s, sizeof r->record))
            fail_msg("%s: record %.17g, sliding %.17g", cases[c].name, r->record.val_bpb,
                     sliding->s.val_bpb);
        if (o.mode == EVAL_SLOT_CONTEXT) { /* SLOT alone, on the reference's weights */
            struct tiny adapted = t;
            struct adapt_run *slot = calloc(1, sizeof *slot);
            adapted.m.r.slot_after_ttt = 0;
            adapted.params = ref.params;
            adapt_ok(cases[c].name, &adapted, tok, TOKENS, &o, slot);
            memcpy(want, slot->nll, slot->n * sizeof *want);
            n = slot->n;
            free(slot);
        }
        assert_int_equal(n, r->n);
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fabs(r->nll[i] - want[i]));
        /* Rounding to bf16 turns the last bit of a gradient into more. */
        if (!(worst < (t.m.r.embed_bf16 ? 5e-3 : 5e-5)))
            fail_msg("%s: a score is %.3g off", cases[c].name, worst);
        if (r->n == sliding->n && adapt_differ(r->nll, sliding->nll, n) < n / 2)
            fail_msg("%s: hardly any score has changed", cases[c].name);
        ref_close(&ref);
        free(want);
        free(tok);
        tiny_close(&t);
    }
    free(r);
    free(sliding);
}

static void the_same_bits_everywhere(void **state)
{
    static const size_t some[] = {1, 2, 5, 7, 10};
    (void)state;
    for (size_t i = 0; i < COUNT(some); i++)
        adapt_same_bits(cases[some[i]].name, cases[some[i]].settings, cases[some[i]].mode, 120);
}

/* ---- the weights ---- */

/* Which parameters have moved once the stream is over. */
static void what_moves(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct tiny t = tiny_open(cases[c].settings, 1, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        struct ttt a;
        struct err e = {0};
        assert_int_equal(ttt_open(&a, &t.m, t.k, t.params, &e), ERR_OK);
        for (size_t i = 0; i < ttt_chunks(&t.m.r, 192); i++)
            assert_int_equal(ttt_train(&a, tok, 192, i, &e), ERR_OK);
        for (size_t i = 0; i < t.m.nparams; i++) {
            const struct gpt_param *p = &t.m.param[i];
            bool same = !memcmp(a.params + p->at, t.params + p->at, p->size * sizeof(float));
            if (same != frozen(p, &t.m.r))
                fail_msg("%s: %s %s", cases[c].name, p->name, same ? "has not moved" : "moved");
        }
        ttt_close(&a);
        free(tok);
        tiny_close(&t);
    }
}

/* Of a chunk of 40 positions rows of 16 make two: the last 8 positions and their targets train
 * nothing, and neither does the last chunk. */
static void the_rest_of_a_chunk(void **state)
{
    struct tiny t = tiny_open(TTT, 1, 6);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
    struct ttt a, b;
    struct err e = {0};
    size_t bytes = t.m.floats * sizeof(float);
    (void)state;
    assert_int_equal(ttt_rows(&t.m.r, 192, 0), 2);
    assert_int_equal(ttt_rows(&t.m.r, 192, 3), 2);
    assert_int_equal(ttt_rows(&t.m.r, 192, 4), 0);
    assert_int_equal(ttt_rows(&t.m.r, 40, 0), 0);
    assert_int_equal(ttt_chunks(&t.m.r, 192), 5);
    assert_int_equal(ttt_chunks(&t.m.r, 200), 5);
    assert_int_equal(ttt_open(&a, &t.m, t.k, t.params, &e), ERR_OK);
    assert_int_equal(ttt_open(&b, &t.m, t.k, t.params, &e), ERR_OK);
    assert_int_equal(ttt_train(&a, tok, 192, 1, &e), ERR_OK);
    for (size_t i = 40 + 33; i < 80; i++)
        tok[i] = (uint16_t)((tok[i] + 5) % 37);
    assert_int_equal(ttt_train(&b, tok, 192, 1, &e), ERR_OK);
    assert_memory_equal(a.params, b.params, bytes);
    assert_memory_not_equal(a.params, t.params, bytes);
    tok[40 + 32] = (uint16_t)((tok[40 + 32] + 5) % 37); /* the last target of the second row */
    ttt_close(&b);
    assert_int_equal(ttt_open(&b, &t.m, t.k, t.params, &e), ERR_OK);
    assert_int_equal(ttt_train(&b, tok, 192, 1, &e), ERR_OK);
    assert_memory_not_equal(a.params, b.params, bytes);
    memcpy(b.params, a.params, bytes);
    assert_int_equal(ttt_train(&b, tok, 192, 4, &e), ERR_OK);
    assert_memory_equal(a.params, b.params, bytes);
    ttt_close(&a);
    ttt_close(&b);
    free(tok);
    tiny_close(&t);
}

/* ---- the tree ---- */

/* What any range of the leaves comes to is what trainer/split.h says. */
static void the_tree_of_training(void **state)
{
    (void)state;
    for (size_t rows = 1; rows <= 70; rows++)
        for (size_t ranks = 1; ranks <= rows; ranks++)
            for (size_t r = 0; r < ranks; r++) {
                struct split_range own = split_range(rows, ranks, r);
                struct split_node want[SPLIT_NODES], have[SPLIT_NODES];
                size_t n = split_nodes(rows, own, want, NULL), top = 0, most = 0;
                for (size_t i = own.from; i < own.from + own.count; i++) {
                    have[top++] = (struct split_node){i, i + 1};
                    most = top > most ? top : most;
                    for (size_t half = 1; top > 1 && ttt_joins(rows, own.from, i, half); half *= 2)
                        if (i & half)
                            have[--top - 1].to = i + 1;
                }
                if (top != n || memcmp(have, want, n * sizeof *want))
                    fail_msg("rank %zu of %zu, %zu rows: %zu sums, expected %zu", r, ranks, rows,
                             top, n);
                if (ranks == 1 && rows >> (most - 1) == 0)
                    fail_msg("%zu rows: %zu blocks", rows, most);
            }
}

/* ---- who knows the future ---- */

static void causality(void **state)
{
    struct adapt_run *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    (void)state;
    for (size_t m = 0; m < COUNT(cases); m++) {
        struct tiny t = tiny_open(cases[m].settings, 2, 6);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7), *other = tiny_tokens(&t, TOKENS, 7);
        struct score_opts o = {.mode = cases[m].mode};
        bool met[SCORE_CONDITIONS];
        size_t leaks = 0;
        adapt_ok(cases[m].name, &t, tok, TOKENS, &o, a);
        for (size_t cut = 12; cut < 180; cut += 31) {
            for (size_t i = 0; i < TOKENS; i++)
                other[i] = i < cut ? tok[i] : (uint16_t)((tok[i] + 1 + i % 30) % 37);
            adapt_ok(cases[m].name, &t, other, TOKENS, &o, b);
            leaks += adapt_differ(a->nll, b->nll, cut - 1);
        }
        score_conditions(&t.m.r, cases[m].mode, met);
        if ((leaks == 0) != met[0])
            fail_msg("%s: %zu scores know the future, said to be%s causal", cases[m].name, leaks,
                     met[0] ? "" : " not");
        free(tok);
        free(other);
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
        enum err_code code;
    } bad[] = {
        {"TTT_EPOCHS=-1", "TTT_EPOCHS=-1: must be 0 to 1000", ERR_USAGE},
        {"TTT_CHUNK_TOKENS=0", "TTT_CHUNK_TOKENS=0: must be 1 to", ERR_USAGE},
        {"TTT_CHUNK_TOKENS=15", "TTT_CHUNK_TOKENS=15: shorter than a row of 16", ERR_USAGE},
        {"TTT_BATCH_SEQS=0", "TTT_BATCH_SEQS=0: must be 1 to 65536", ERR_USAGE},
        {"TTT_FREEZE_BLOCKS=4", "TTT_FREEZE_BLOCKS=4: must be 0 to 3", ERR_USAGE},
        {"TTT_LR=-1", "TTT_LR: must be 0 to", ERR_USAGE},
        {"TTT_MOMENTUM=1", "TTT_MOMENTUM: must be at least 0 and below 1", ERR_USAGE},
        {"TTT_GRAD_CLIP=-0.5", "TTT_GRAD_CLIP: must not be negative", ERR_USAGE},
        {TTT "TTT_LR=1e6\nTTT_GRAD_CLIP=0", "", ERR_INPUT},
    };
    struct adapt_run *r = calloc(1, sizeof *r);
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char both[256];
        snprintf(both, sizeof both, "SLOT_STEPS=1\nSLOT_AFTER_TTT=1\n%s", bad[i].set);
        for (int m = EVAL_SLOT_CONTEXT; m <= EVAL_TTT; m++) {
            struct tiny t = tiny_open(both, 1, 6);
            uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
            struct err e = {0};
            EXPECT(bad[i].set, bad[i].code, bad[i].says,
                   adapt_score(&t, tok, TOKENS, &(struct score_opts){.mode = (enum eval_mode)m}, r,
                               &e),
                   e);
            adapt_ok(bad[i].set, &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING}, r);
            free(tok);
            tiny_close(&t);
        }
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_published_loop),
        cmocka_unit_test(the_same_bits_everywhere),
        cmocka_unit_test(what_moves),
        cmocka_unit_test(the_rest_of_a_chunk),
        cmocka_unit_test(the_tree_of_training),
        cmocka_unit_test(causality),
        cmocka_unit_test(settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
