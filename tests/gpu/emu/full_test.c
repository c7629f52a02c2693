/*
 * full_test.c - exists for what small sizes do not show: a grid beyond its limits, an index that
 * does not fit, memory that is planned too small at 98,304 tokens per micro-batch. A step of the
 * largest record (of three micro-batches: carried out, recorded, played) and its scoring are queued
 * as on a card; of each launch three blocks are run (sample, emu.h). The numbers mean nothing.
 */
#include "tests/unit/adapt.h"
#include "trainer/step.h"

enum { MICRO = 98304, MICROS = 3, STEPS = 2, STREAM = 2048 + 63 * 64 + 1 };

static void no_err(enum err_code rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->msg);
}

struct full {
    struct gpt m;
    struct kern *k;
};

static void full_open(struct full *f)
{
    struct recipe r;
    struct err e = {0};
    recipe_init(&r);
    no_err(recipe_load(&r, "recipes/pr1296.conf", &e), &e);
    r.train_batch_tokens = MICROS * MICRO;
    r.micro_batch_tokens = MICRO;
    no_err(gpt_init(&f->m, &r, &e), &e);
    no_err(kern_cuda(&f->k, 0, &e), &e);
}

static void full_close(struct full *f)
{
    kern_free(f->k);
    gpt_free(&f->m);
}

static void steps(void **state)
{
    struct full f;
    struct step s = {0};
    struct step_stats st;
    struct err e = {0};
    (void)state;
    full_open(&f);
    size_t t = (size_t)f.m.r.train_seq_len;
    float *params = calloc(f.m.floats, sizeof *params);
    uint16_t *tok = calloc(MICRO + 1, sizeof *tok);
    for (size_t i = 0; i <= MICRO; i++)
        tok[i] = (uint16_t)(i * 2654435761u >> 20) % (uint16_t)f.m.r.vocab_size;
    no_err(step_init(&s, f.k, &f.m, MICRO / t, NULL, &e), &e);
    no_err(step_recur(&s, true, &e), &e);
    step_set(&s, params);
    assert_int_equal(s.reduce.mine.micro.count, MICROS);
    /* Numbers mean nothing, so a step may well not be taken. */
    for (size_t i = 0; i < STEPS; i++) {
        step_begin(&s);
        for (size_t j = 0; j < MICROS; j++)
            no_err(step_micro(&s, tok, tok + 1, &e), &e);
        (void)step_end(&s, 1, 0.95, 0, &st, &e);
        no_err(f.k->sync(f.k, &e), &e);
    }
    assert_int_equal(s.whole.played, STEPS - 1);
    step_free(&s);
    /* The same in steps whose micro-batches are tapes of their own. */
    no_err(step_init(&s, f.k, &f.m, MICRO / t, NULL, &e), &e);
    s.whole.on = false;
    step_set(&s, params);
    step_begin(&s);
    for (size_t j = 0; j < MICROS; j++)
        no_err(step_micro(&s, tok, tok + 1, &e), &e);
    (void)step_end(&s, 1, 0.95, 0, &st, &e);
    no_err(f.k->sync(f.k, &e), &e);
    assert_int_equal(s.g.played, MICROS - 1);
    step_free(&s);
    full_close(&f);
    free(params);
    free(tok);
}

static void scoring(void **state)
{
    struct adapt_run *run = calloc(1, sizeof *run);
    static const enum eval_mode modes[] = {EVAL_SLIDING, EVAL_SLOT};
    struct full f;
    struct err e = {0};
    (void)state;
    full_open(&f);
    uint16_t *tok = calloc(STREAM, sizeof *tok);
    float *params = f.k->alloc(f.k, f.m.floats * sizeof *params);
    struct tiny t = {.m = f.m, .k = f.k, .params = params};
    for (size_t i = 0; i < COUNT(modes); i++) {
        const struct score_opts o = {.mode = modes[i], .batch = 64};
        no_err(adapt_score(&t, tok, STREAM, &o, run, &e), &e);
    }
    f.k->free(f.k, params);
    full_close(&f);
    free(tok);
    free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(scoring)};
    setenv("EMU_SAMPLE", "3", 1);
    setenv("KERN_ATTN", "wgmma", 1); /* with such numbers no two ways agree */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
