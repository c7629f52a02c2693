/*
 * train_resume_test.c - exists for the run that goes on as another one than was interrupted: a
 * switch forgotten or thrown twice, an average without its snapshots, data read again, a warmup
 * that leaves something behind.
 */
#include "tests/unit/train_run.h"

/* What the switches of training are tried with, 12 steps long; the multiplier falls from step 6 on:
 * 1, 5/6, 4/6, ... of the rate. */
static const struct {
    const char *name, *set[10];
    const char *line; /* that the log must have; NULL: any */
    bool no_effect;   /* the weights are those of the plain run, otherwise they must not be */
} cases[] = {
    {.name = "average of every step", .set = {"EMA_DECAY=0.9"}},
    {.name = "no average", .set = {"EMA_DECAY=0"}},
    {.name = "recurrence",
     .set = {"RECUR_LAYERS=1", "RECUR_START_STEP=5"},
     .line = "\nrecurrence:activated step:5 layers:1\n"},
    {.name = "recurrence from the beginning", .set = {"RECUR_LAYERS=0,1"}},
    {.name = "SWA wins over EMA",
     .set = {"SWA_ENABLED=1", "SWA_EVERY=2", "SWA_START_SCALE=0.7"},
     .line = "\nswa:start step:10\n"},
    {.name = "SWA without EMA",
     .set = {"SWA_ENABLED=1", "SWA_EVERY=1", "SWA_START_SCALE=0.7", "EMA_DECAY=0"},
     .line = "\nswa:averaged 4 snapshots\n"},
    {.name = "SWA thrown away",
     .set = {"SWA_ENABLED=1", "SWA_EVERY=2", "SWA_START_SCALE=0.7", "SWA_APPLY=0"},
     .line = "\nswa:not applied, 2 snapshots\n",
     .no_effect = true},
    {.name = "late QAT",
     .set = {"LATE_QAT_THRESHOLD=0.7", "QUANT_BITS=4"},
     .line = "\nlate_qat:enabled step:8 scale:0.6667\n"},
    {.name = "late QAT of nothing",
     .set = {"LATE_QAT_THRESHOLD=0.7", "LATE_QAT_SCOPE=none"},
     .no_effect = true},
    {.name = "late QAT of the projections",
     .set = {"LATE_QAT_THRESHOLD=2", "LATE_QAT_SCOPE=proj", "VE_ENABLED=1", "VE_LAYERS=1",
             "VE_DIM=12", "QUANT_SCALE_FLOOR=1"},
     .line = "\nlate_qat:enabled step:0 scale:1.0000\n"},
    {.name = "stored as bf16",
     .set = {"EMBED_BF16=1", "MUON_BF16=1", "MUON_ROW_NORM=1", "MATRIX_BANKS=1"}},
    {.name = "warmup", .set = {"WARMUP_STEPS=3"}, .line = "\nwarmup_step:3/3\n", .no_effect = true},
    {.name = "coprime data after a warmup",
     .set = {"LOADER=coprime", "LOADER_RANKS=2", "WARMUP_STEPS=2"},
     .line = "\nwarmup_step:2/2\n"},
    {.name = "all of #1276",
     .set = {"WARMUP_STEPS=2", "EMBED_BF16=1", "MUON_BF16=1", "SWA_ENABLED=1", "SWA_EVERY=3",
             "SWA_START_SCALE=2", "LATE_QAT_THRESHOLD=0.5", "PROJ_OPTIMIZER=adamw",
             "BIGRAM_VOCAB_SIZE=20", "BIGRAM_DIM=8"}},
};
enum { CASES = sizeof cases / sizeof cases[0], STEPS = 12 };

/* Sessions that are interrupted during the step that they begin with, then one to the end. */
static void in_single_steps(const struct toy_train *t, const char *name, const char *dir)
{
    volatile sig_atomic_t stop = 1;
    char out[TOY_PATH];
    struct train_result res = {0};
    snprintf(out, sizeof out, "%s", toy_path(t->dir, dir));
    struct train_opts o = toy_opts(out);
    o.stop = &stop;
    for (int session = 0; res.step < STEPS - 1; session++) {
        struct err e = {0};
        enum err_code rc = train_run(&t->r, &o, &res, &e);
        if (rc != ERR_RESOURCE || !strstr(e.msg, "resume with --resume") || session > STEPS)
            fail_msg("%s: session %d, step %zu: status %d: %s", name, session, res.step, (int)rc,
                     e.msg);
        assert_true(toy_exists(out, "checkpoint"));
        assert_false(toy_exists(out, "model.safetensors"));
        o.resume = true;
    }
    stop = 0;
    res = toy_train(&t->r, &o);
    assert_int_equal(res.step, STEPS);
}

static void every_step_resumed(void **state)
{
    (void)state;
    for (size_t c = 0; c < CASES; c++) {
        struct toy_train t;
        const char *where;
        toy_begin(&t, NULL);
        toy_whole(&t, "plain");
        for (const char *const *s = cases[c].set; *s; s++)
            toy_set(&t.r, *s);
        toy_whole(&t, "whole");
        char *log = toy_log(&t, "whole");
        if (cases[c].line && !strstr(log, cases[c].line))
            fail_msg("%s: the log has no%s%s", cases[c].name, cases[c].line, log);
        free(log);
        if (cases[c].no_effect)
            toy_same(cases[c].name, &t, "plain", "whole");
        else if (!t.r.bigram_vocab_size && !t.r.ve_enabled &&
                 toy_equal(&t, "plain", "whole", &where))
            fail_msg("%s: without any effect", cases[c].name);
        in_single_steps(&t, cases[c].name, "parts");
        toy_same(cases[c].name, &t, "whole", "parts");
        toy_end(&t);
    }
}

/* A finished run made longer: the same bits as all at once. Warmdown by a constant number of steps
 * would see the shorter run's end: there is none. */
static void made_longer(void **state)
{
    static const char *const stops[] = {"ITERATIONS=1", "ITERATIONS=4", "ITERATIONS=11"};
    static const char *const set[] = {"WARMDOWN_ITERS=0", "RECUR_LAYERS=0", "RECUR_START_STEP=4",
                                      "VAL_LOSS_EVERY=5", NULL};
    struct toy_train t;
    (void)state;
    toy_begin(&t, set);
    toy_whole(&t, "whole");
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        struct recipe first = t.r;
        char out[TOY_PATH];
        snprintf(out, sizeof out, "%s", toy_path(t.dir, stops[i]));
        toy_set(&first, stops[i]);
        toy_set(&first, "CHECKPOINT_EVERY=3"); /* at the end in any case */
        struct train_opts o = toy_opts(out);
        toy_train(&first, &o);
        o.resume = true;
        toy_train(&t.r, &o);
        toy_same(stops[i], &t, "whole", stops[i]);
        if (i == 1) { /* its last validation was of the model without recurrence */
            char *log = toy_log(&t, stops[i]);
            assert_non_null(strstr(log, "\nrecurrence:activated for evaluation"));
            free(log);
        }
    }
    toy_end(&t);
}

/* A run that is already over when it is resumed: the same validation of the same model. */
static void nothing_left(void **state)
{
    static const char *const set[] = {"RECUR_LAYERS=0", "RECUR_START_STEP=4", "CHECKPOINT_EVERY=5",
                                      NULL};
    struct toy_train t;
    char out[TOY_PATH];
    (void)state;
    toy_begin(&t, set);
    snprintf(out, sizeof out, "%s", toy_path(t.dir, "out"));
    struct train_opts o = toy_opts(out);
    struct train_result first = toy_train(&t.r, &o), again;
    o.resume = true;
    again = toy_train(&t.r, &o);
    assert_int_equal(again.step, STEPS);
    assert_memory_equal(&first.val_loss, &again.val_loss, sizeof first.val_loss);
    char *log = toy_log(&t, "out"), *at = strstr(log, "step:12/12 val_loss:");
    assert_non_null(at);
    char *line = strstr(at + 1, "step:12/12 val_loss:");
    assert_non_null(line);
    if (strncmp(at, line, (size_t)(strstr(at, " train_time") - at)) != 0)
        fail_msg("another model was validated: %.60s, %.60s", at, line);
    free(log);
    toy_end(&t);
}

/* Without patience a step is given up in the middle and repeated on resume. */
static void impatient(void **state)
{
    volatile sig_atomic_t stop = 1;
    struct toy_train t;
    char parts[TOY_PATH];
    struct train_result res;
    struct err e = {0};
    (void)state;
    toy_begin(&t, NULL);
    toy_whole(&t, "whole");
    snprintf(parts, sizeof parts, "%s", toy_path(t.dir, "parts"));
    struct train_opts o = toy_opts(parts);
    o.stop = &stop;
    assert_int_equal(train_run(&t.r, &o, &res, &e), ERR_RESOURCE); /* step 1, whole */
    o.resume = true;
    o.patience_s = 0;
    for (int i = 0; i < 2; i++) {
        e = (struct err){0};
        assert_int_equal(train_run(&t.r, &o, &res, &e), ERR_RESOURCE);
        assert_int_equal(res.step, 1);
    }
    stop = 0;
    toy_train(&t.r, &o);
    toy_same("given up", &t, "whole", "parts");
    toy_end(&t);
}

/* Stopped during a validation, which is not a step: nothing is lost or done twice. */
static void interrupted_validation(void **state)
{
    static const char *const set[] = {"VAL_LOSS_EVERY=1", NULL};
    volatile sig_atomic_t stop = 1;
    struct toy_train t;
    char out[TOY_PATH];
    struct err e = {0};
    struct train_result res;
    (void)state;
    toy_begin(&t, set);
    snprintf(out, sizeof out, "%s", toy_path(t.dir, "out"));
    struct train_opts o = toy_opts(out);
    o.stop = &stop;
    assert_int_equal(train_run(&t.r, &o, &res, &e), ERR_RESOURCE);
    assert_int_equal(res.step, 0);
    assert_non_null(strstr(e.msg, "stopped at step 0"));
    stop = 0;
    o.resume = true;
    res = toy_train(&t.r, &o);
    assert_int_equal(res.step, STEPS);
    toy_end(&t);
}

/* Whoever forgets --resume is told what lies there. */
static void forgotten(void **state)
{
    volatile sig_atomic_t stop = 1;
    struct toy_train t;
    char out[TOY_PATH], log[TOY_PATH];
    struct err e = {0};
    struct train_result res;
    size_t n;
    (void)state;
    toy_begin(&t, NULL);
    snprintf(out, sizeof out, "%s", toy_path(t.dir, "out"));
    snprintf(log, sizeof log, "%s", toy_path(t.dir, "out/train.log"));
    struct train_opts o = toy_opts(out);
    for (int told = 0; told < 2; told++) {
        o.stop = told ? NULL : &stop;
        assert_int_equal(train_run(&t.r, &o, &res, &e), told ? ERR_OK : ERR_RESOURCE);
        char *text = (char *)toy_read(log, &n);
        assert_int_equal(strstr(text, "is of an earlier run, --resume goes on with it") != NULL,
                         told);
        free(text);
    }
    toy_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_resumed),     cmocka_unit_test(made_longer),
        cmocka_unit_test(nothing_left),           cmocka_unit_test(impatient),
        cmocka_unit_test(interrupted_validation), cmocka_unit_test(forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
