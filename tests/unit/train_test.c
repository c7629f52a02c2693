/*
 * train_test.c - exists for the run that cannot be repeated or trusted: other bits with other
 * threads, weights saved although they are broken, a failure that leaves half a result, a loss that
 * does not fall. (Interruption and resume: train_resume_test.c.)
 */
#include <math.h>

#include "model/bytes.h"
#include "tests/unit/train_run.h"

/* ---- what a run does ---- */

static void learns(void **state)
{
    static const char *const set[] = {"ITERATIONS=60", "VAL_LOSS_EVERY=30", NULL};
    struct toy_train t;
    char out[TOY_PATH];
    struct st_file f;
    struct byte_table b;
    struct err e = {0};
    size_t n;
    (void)state;
    toy_begin(&t, set);
    snprintf(out, sizeof out, "%.200s/new/out", t.dir);
    struct train_opts o = toy_opts(out);
    struct train_result res = toy_train(&t.r, &o);
    assert_int_equal(res.step, 60);
    /* log(29) = 3.37 nats without learning; the stream has about 0.41. */
    assert_true(res.train_loss < 2.4 && res.val_loss < 2.4);
    assert_true(fabs(res.quant_loss - res.val_loss) < 0.1);
    assert_true(res.val_bpb > 0 && res.quant_bpb > 0 && res.tokens_per_second > 0);
    assert_false(toy_exists(out, "checkpoint"));

    char *log = (char *)toy_read(toy_path(out, "train.log"), &n);
    static const char *const lines[] = {
        "run:toy-1337\n",
        "model_params:",
        "seed:1337\n",
        "step:0/60 val_loss:",
        "step:10/60 train_loss:",
        "step:30/60 val_loss:",
        "step:60/60 val_loss:",
        "pre-quantization post-ema val_loss:",
        "Serialized model: ",
        "Serialized model int6",
        "final_int6_roundtrip ",
        "final_int6_roundtrip_exact val_loss:",
        "VOCAB_SIZE=32\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(log, lines[i]))
            fail_msg("train.log has no line with %s", lines[i]);
    free(log);

    assert_int_equal(st_open(&f, toy_path(out, "model.safetensors"), &e), ERR_OK);
    assert_string_equal(st_meta(&f, "step"), "60");
    assert_string_equal(st_meta(&f, "seed"), "1337");
    assert_int_equal(strlen(st_meta(&f, "tokenizer_xxh64")), 16);
    assert_non_null(strstr(st_meta(&f, "recipe"), "MICRO_BATCH_TOKENS=32\n"));
    st_close(&f);
    uint8_t *table = toy_read(toy_path(out, "byte_table.bin"), &n);
    assert_int_equal(bytes_parse(&b, table, n, "byte_table.bin", &e), ERR_OK);
    assert_int_equal(b.vocab, TOY_VOCAB);
    bytes_free(&b);
    free(table);
    toy_end(&t);
}

/* With everything that has its own order of arithmetic switched on. */
static void threads(void **state)
{
    static const char *const set[] = {
        "EMBED_BF16=1",       "MUON_BF16=1", "MUON_ROW_NORM=1",   "LATE_QAT_THRESHOLD=2",
        "SWA_ENABLED=1",      "SWA_EVERY=4", "SWA_START_SCALE=2", "RECUR_LAYERS=0",
        "RECUR_START_STEP=6", NULL};
    struct toy_train t;
    char three[TOY_PATH];
    (void)state;
    toy_begin(&t, set);
    toy_whole(&t, "one");
    snprintf(three, sizeof three, "%s", toy_path(t.dir, "three"));
    struct train_opts o = toy_opts(three);
    o.threads = 3;
    toy_train(&t.r, &o);
    toy_same("1 and 3 threads", &t, "one", "three");
    toy_end(&t);
}

/* The cap of the clock, less what GPTQ_RESERVE_SECONDS keeps of it. */
static void wall_clock(void **state)
{
    static const char *const reserves[] = {"GPTQ_RESERVE_SECONDS=0", "GPTQ_RESERVE_SECONDS=999.95"};
    static const char *const caps[] = {"MAX_WALLCLOCK_SECONDS=0.05", "MAX_WALLCLOCK_SECONDS=1000"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const char *const set[] = {"ITERATIONS=1000000000", caps[i], reserves[i], NULL};
        struct toy_train t;
        char out[TOY_PATH];
        toy_begin(&t, set);
        snprintf(out, sizeof out, "%s", toy_path(t.dir, "out"));
        struct train_opts o = toy_opts(out);
        struct train_result res = toy_train(&t.r, &o);
        assert_true(res.step > 0 && res.step < 1000000);
        char *log = toy_log(&t, "out");
        assert_non_null(strstr(log, "stopping_early: wallclock_cap train_time:"));
        free(log);
        toy_end(&t);
    }
}

/* ---- failures ---- */

static void diverges(void **state)
{
    static const struct {
        const char *set, *msg;
    } cases[] = {
        {"SCALAR_LR=1e22", "not finite"},
        {"MATRIX_LR=1e22", "not finite"},
        {"TIED_EMBED_LR=1e22", "not finite"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[TOY_PATH], out[TOY_PATH];
        struct recipe r;
        struct err e = {0};
        toy_corpus(dir);
        toy_recipe(&r, dir);
        toy_set(&r, cases[i].set);
        toy_set(&r, "GRAD_CLIP_NORM=0");
        strcpy(out, toy_path(dir, "out"));
        struct train_opts o = toy_opts(out);
        enum err_code rc = train_run(&r, &o, NULL, &e);
        if (rc != ERR_INPUT || !strstr(e.msg, cases[i].msg) || !strstr(e.msg, "step "))
            fail_msg("%s: status %d: %s", cases[i].set, (int)rc, e.msg);
        if (toy_exists(out, "model.safetensors") || toy_exists(out, "model.quant.safetensors"))
            fail_msg("%s: weights were saved", cases[i].set);
        toy_remove(dir);
    }
}

static void remove_in(const char *dir, const char *name)
{
    if (name && unlink(toy_path(dir, name)))
        fail_msg("%s: cannot remove", name);
}

static void bad_start(void **state)
{
    static const struct {
        const char *name, *set, *lose, *msg;
        bool resume;
        enum err_code rc;
    } cases[] = {
        {"no data directory", "DATA_PATH=/nonexistent", NULL, "make demo", false, ERR_INPUT},
        {"no validation", NULL, "toy_val_000000.bin", "_val_", false, ERR_INPUT},
        {"no tokeniser", NULL, "toy.model", "TOKENIZER_PATH", false, ERR_INPUT},
        {"tokeniser of another size", "VOCAB_SIZE=64", NULL, "no tokeniser", false, ERR_INPUT},
        {"nothing to resume", NULL, NULL, "checkpoint", true, ERR_INPUT},
        {"batch", "TRAIN_BATCH_TOKENS=100", NULL, "TRAIN_SEQ_LEN", false, ERR_USAGE},
        {"micro-batch", "MICRO_BATCH_TOKENS=48", NULL, "MICRO_BATCH_TOKENS", false, ERR_USAGE},
        {"decay", "EMA_DECAY=1", NULL, "EMA_DECAY", false, ERR_USAGE},
        {"init", "INIT=xavier", NULL, "INIT", false, ERR_USAGE},
        {"steps", "ITERATIONS=-1", NULL, "ITERATIONS", false, ERR_USAGE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[TOY_PATH], out[TOY_PATH];
        struct recipe r;
        struct err e = {0};
        toy_corpus(dir);
        toy_recipe(&r, dir);
        if (cases[i].set)
            toy_set(&r, cases[i].set);
        remove_in(dir, cases[i].lose);
        strcpy(out, toy_path(dir, "out"));
        struct train_opts o = toy_opts(out);
        o.resume = cases[i].resume;
        enum err_code rc = train_run(&r, &o, NULL, &e);
        if (rc != cases[i].rc || !strstr(e.msg, cases[i].msg))
            fail_msg("%s: status %d: %s", cases[i].name, (int)rc, e.msg);
        if (toy_exists(out, "model.safetensors") || toy_exists(out, "train.log"))
            fail_msg("%s: something was written", cases[i].name);
        toy_remove(dir);
    }
}

/* An output directory that cannot be: said before training, not after. */
static void bad_output(void **state)
{
    char dir[TOY_PATH];
    struct recipe r;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    struct train_opts o = toy_opts(toy_path(dir, "toy.model")); /* a file */
    assert_int_equal(train_run(&r, &o, NULL, &e), ERR_RESOURCE);
    assert_non_null(strstr(e.msg, "toy.model"));
    e = (struct err){0};
    o = toy_opts("/proc/self/out");
    assert_int_equal(train_run(&r, &o, NULL, &e), ERR_RESOURCE);
    e = (struct err){0};
    o = toy_opts(dir);
    o.device = "abacus";
    assert_int_equal(train_run(&r, &o, NULL, &e), ERR_USAGE);
    assert_non_null(strstr(e.msg, "abacus"));
    toy_remove(dir);
}

static void describe(void **state)
{
    char dir[TOY_PATH];
    struct recipe r;
    struct err e = {0};
    size_t n;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, "/nonexistent");
    toy_set(&r, "MICRO_BATCH_TOKENS=0");
    const char *path = toy_path(dir, "plan");
    FILE *f = fopen(path, "w");
    struct train_opts o = toy_opts("/nonexistent/out");
    assert_int_equal(train_describe(&r, &o, f, &e), ERR_OK);
    fclose(f);
    char *text = (char *)toy_read(path, &n);
    assert_non_null(strstr(text, "blocks.1.mlp.fc.weight"));
    assert_non_null(strstr(text, "[32, 16]"));
    assert_non_null(strstr(text, "\nparameters: "));
    assert_non_null(strstr(text, "batch: 128 tokens in 1 micro-batches of 8 sequences of 16\n"));
    free(text);
    toy_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns),   cmocka_unit_test(threads),   cmocka_unit_test(wall_clock),
        cmocka_unit_test(diverges), cmocka_unit_test(bad_start), cmocka_unit_test(bad_output),
        cmocka_unit_test(describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
