/*
 * whole_test.c - exists for the step that is played as one tape (trainer/whole.h) and is another
 * one than the step of queued operations: numbers of an earlier step, switches that were thrown
 * since, tokens of the step before, an update although something is not finite.
 */
#include <math.h>

#include "tests/unit/toy_run.h"
#include "trainer/init.h"
#include "trainer/step.h"

enum { STEPS = 6, TOKENS = 128 }; /* STEPS at most */

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const struct {
    const char *name, *set[12];
    size_t steps, qat, recur; /* steps before which these are switched, 0: never */
} cases[] = {
    {"plain", {"GRAD_CLIP_NORM=0.3", NULL}, 3, 0, 0},
    {"no clipping, no average", {"GRAD_CLIP_NORM=0", "EMA_DECAY=0", NULL}, 3, 0, 0},
    {"each rank's gradient clipped",
     {"GRAD_CLIP_NORM=0.2", "GRAD_CLIP_SCOPE=rank", "GRAD_RANKS=2", NULL},
     3,
     0,
     0},
    {"all in bf16, rows normalised",
     {"MUON_BF16=1", "EMBED_BF16=1", "MUON_ROW_NORM=1", "MUON_WD=0.1", "EMBED_WD=0.1", NULL},
     3,
     0,
     0},
    {"bigram table, switches",
     {"BIGRAM_VOCAB_SIZE=16", "BIGRAM_DIM=8", "RECUR_LAYERS=0", "RECUR_START_STEP=3",
      "LATE_QAT_THRESHOLD=2", NULL},
     STEPS,
     4,
     3},
};

static void no_err(enum err_code rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->msg);
}

static void start(struct step *s, struct kern *k, const struct gpt *m, bool whole)
{
    struct err e = {0};
    float *p = malloc(m->floats * sizeof *p);
    no_err(step_init(s, k, m, 2, NULL, &e), &e);
    assert_true(s->whole.on);
    s->whole.on = whole;
    no_err(init_params(m, p, &e), &e);
    step_set(s, p);
    free(p);
}

static void stage(struct step *s, uint32_t seed)
{
    uint16_t tok[TOKENS + 1], target[TOKENS];
    struct err e = {0};
    size_t n = s->batch * s->t;
    toy_stream(tok, TOKENS + 1, seed);
    memcpy(target, tok + 1, sizeof target);
    for (size_t at = 0; at < TOKENS; at += n)
        no_err(step_micro(s, tok + at, target + at, &e), &e);
}

/* Steps with rates of their own, the tokens of the next one staged while one is on its way. */
static void take(struct step *s, size_t c, size_t steps, struct step_stats *st)
{
    struct err e = {0};
    bool ahead = false;
    for (size_t i = 1; i <= steps; i++) {
        double lr = 1.0 / (double)i, momentum = 0.8 + 0.02 * (double)i;
        if (cases[c].recur && i == cases[c].recur)
            no_err(step_recur(s, true, &e), &e);
        s->qat |= cases[c].qat && i >= cases[c].qat;
        if (!ahead) {
            step_begin(s);
            stage(s, (uint32_t)i);
        }
        if ((ahead = step_start(s, lr, momentum)))
            stage(s, (uint32_t)i + 1);
        no_err(step_end(s, lr, momentum, 0, &st[i - 1], &e), &e);
    }
}

static void same(struct kern *k, const char *name, const char *what, const float *a, const float *b,
                 size_t n)
{
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    if (!a != !b)
        fail_msg("%s: %s of one alone", name, what);
    if (a) {
        k->download(k, x, a, n * sizeof *x);
        k->download(k, y, b, n * sizeof *y);
        if (memcmp(x, y, n * sizeof *x) != 0)
            fail_msg("%s: %s differ", name, what);
    }
    free(x);
    free(y);
}

static void played(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct recipe r;
        struct gpt m;
        struct kern *k;
        struct err e = {0};
        struct step s[2];
        struct step_stats st[2][STEPS];
        size_t steps = cases[c].steps;
        toy_recipe(&r, "");
        for (const char *const *set = cases[c].set; *set; set++)
            toy_set(&r, *set);
        no_err(gpt_init(&m, &r, &e), &e);
        no_err(kern_cuda(&k, 0, &e), &e);
        for (int i = 0; i < 2; i++) {
            start(&s[i], k, &m, i == 0);
            take(&s[i], c, steps, st[i]);
        }
        for (size_t i = 0; i < steps; i++)
            if (st[0][i].loss != st[1][i].loss || st[0][i].grad_norm != st[1][i].grad_norm)
                fail_msg("%s, step %zu: loss %.17g norm %.17g, operation by operation %.17g %.17g",
                         cases[c].name, i + 1, st[0][i].loss, st[0][i].grad_norm, st[1][i].loss,
                         st[1][i].grad_norm);
        size_t switches = (size_t)(cases[c].qat > 0) + (size_t)(cases[c].recur > 0);
        assert_int_equal(s[0].whole.steps, steps);
        assert_int_equal(s[0].whole.played, steps - 1 - switches);
        assert_int_equal(s[0].opt.step, steps);
        same(k, cases[c].name, "weights", s[0].params, s[1].params, m.floats);
        same(k, cases[c].name, "averages", s[0].ema, s[1].ema, m.floats);
        same(k, cases[c].name, "first moments", s[0].opt.mom, s[1].opt.mom, m.floats);
        same(k, cases[c].name, "second moments", s[0].opt.var, s[1].opt.var, m.floats);
        step_free(&s[0]);
        step_free(&s[1]);
        kern_free(k);
        gpt_free(&m);
    }
}

/* A broken weight in a step that is played: named, and nothing moves. */
static void not_finite(void **state)
{
    struct recipe r;
    struct gpt m;
    struct kern *k;
    struct err e = {0};
    struct step s;
    struct step_stats st[3];
    float bad = (float)HUGE_VAL;
    (void)state;
    toy_recipe(&r, "");
    no_err(gpt_init(&m, &r, &e), &e);
    no_err(kern_cuda(&k, 0, &e), &e);
    start(&s, k, &m, true);
    take(&s, 0, 3, st);
    const struct gpt_param *p = gpt_find(&m, "blocks.1.attn.c_k.weight");
    const float *block[] = {s.params, s.ema, s.opt.mom, s.opt.var};
    float *after = malloc(m.floats * sizeof *after);
    float *kept = malloc(COUNT(block) * m.floats * sizeof *kept);
    k->upload(k, s.params + p->at + p->size - 1, &bad, sizeof bad);
    for (size_t i = 0; i < COUNT(block); i++)
        k->download(k, kept + i * m.floats, block[i], m.floats * sizeof *kept);
    step_begin(&s);
    stage(&s, 4);
    size_t plays = s.whole.played;
    enum err_code rc = step_end(&s, 1, 0.9, 0, st, &e);
    assert_int_equal(s.whole.played, plays + 1);
    if (rc != ERR_INPUT || !strstr(e.msg, "weights blocks.1.attn.c_k.weight") ||
        !strstr(e.msg, "step 4"))
        fail_msg("status %d: %s", (int)rc, e.msg);
    for (size_t i = 0; i < COUNT(block); i++) {
        k->download(k, after, block[i], m.floats * sizeof *after);
        assert_memory_equal(kept + i * m.floats, after, m.floats * sizeof *after);
    }
    assert_int_equal(s.opt.step, 3);
    free(after);
    free(kept);
    step_free(&s);
    kern_free(k);
    gpt_free(&m);
}

/* What a rank that gave up has staged is not taken. */
static void given_up(void **state)
{
    struct recipe r;
    struct gpt m;
    struct kern *k;
    struct err e = {0};
    struct step s;
    struct step_stats st[2];
    (void)state;
    toy_recipe(&r, "");
    no_err(gpt_init(&m, &r, &e), &e);
    no_err(kern_cuda(&k, 0, &e), &e);
    start(&s, k, &m, true);
    step_begin(&s);
    stage(&s, 1);
    no_err(step_end(&s, 1, 0.9, STEP_GIVEN_UP, st, &e), &e);
    assert_int_equal(st->trouble, STEP_GIVEN_UP);
    assert_int_equal(s.opt.step, 0);
    assert_int_equal(s.whole.steps, 0);
    take(&s, 0, 2, st);
    assert_int_equal(s.opt.step, 2);
    step_free(&s);
    kern_free(k);
    gpt_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(played), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(given_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
