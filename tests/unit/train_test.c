/*
 * train_test.c - exists for the run that cannot be repeated or trusted: other bits with other
 * threads or after a resume, weights saved although they are broken, a failure that leaves half a
 * result, a loss that does not fall.
 */
#include <math.h>
#include <signal.h>

#include "model/bytes.h"
#include "model/safetensors.h"
#include "tests/unit/toy_run.h"
#include "trainer/train.h"

static struct train_opts opts(const char *out)
{
    return (struct train_opts){
        .name = "toy", .out = out, .device = "cpu", .threads = 1, .quiet = true, .patience_s = 60};
}

static struct train_result run(const struct recipe *r, const struct train_opts *o)
{
    struct train_result res;
    struct err e = {0};
    if (train_run(r, o, &res, &e))
        fail_msg("%s", e.msg);
    return res;
}

/* The tensors of two weight files, bit by bit. Their metadata differ in times. */
static void same_weights(const char *what, const char *a, const char *b)
{
    struct st_file x, y;
    struct err e = {0};
    if (st_open(&x, a, &e) || st_open(&y, b, &e))
        fail_msg("%s: %s", what, e.msg);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        assert_string_equal(x.tensor[i].name, y.tensor[i].name);
        assert_int_equal(x.tensor[i].nbytes, y.tensor[i].nbytes);
        if (memcmp(x.tensor[i].data, y.tensor[i].data, x.tensor[i].nbytes) != 0)
            fail_msg("%s: %s differs", what, x.tensor[i].name);
    }
    st_close(&x);
    st_close(&y);
}

static bool exists(const char *dir, const char *name)
{
    return access(toy_path(dir, name), F_OK) == 0;
}

/* ---- what a run does ---- */

static void learns(void **state)
{
    char dir[TOY_PATH], out[TOY_PATH];
    struct recipe r;
    struct st_file f;
    struct byte_table b;
    struct err e = {0};
    size_t n;
    (void)state;
    toy_corpus(dir);
    snprintf(out, sizeof out, "%.200s/new/out", dir);
    toy_recipe(&r, dir);
    toy_set(&r, "ITERATIONS=60");
    toy_set(&r, "VAL_LOSS_EVERY=30");
    struct train_opts o = opts(out);
    struct train_result res = run(&r, &o);
    assert_int_equal(res.step, 60);
    /* log(29) = 3.37 nats without learning; the stream has about 0.41. */
    assert_true(res.train_loss < 2.4 && res.val_loss < 2.4);
    assert_true(fabs(res.quant_loss - res.val_loss) < 0.1);
    assert_true(res.val_bpb > 0 && res.quant_bpb > 0 && res.tokens_per_second > 0);
    assert_false(exists(out, "checkpoint"));

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
    toy_remove(dir);
}

static void threads(void **state)
{
    char dir[TOY_PATH], a[TOY_PATH], b[TOY_PATH];
    struct recipe r;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    strcpy(a, toy_path(dir, "one"));
    strcpy(b, toy_path(dir, "three"));
    struct train_opts o = opts(a);
    run(&r, &o);
    o = opts(b);
    o.threads = 3;
    run(&r, &o);
    char x[TOY_PATH];
    strcpy(x, toy_path(a, "model.safetensors"));
    same_weights("1 and 3 threads", x, toy_path(b, "model.safetensors"));
    toy_remove(dir);
}

/* ---- resume ---- */

/* k steps, then the rest from the checkpoint: the same bits as all at once. */
static void resume(void **state)
{
    static const char *const stops[] = {"ITERATIONS=1", "ITERATIONS=4", "ITERATIONS=11"};
    char dir[TOY_PATH], whole[TOY_PATH], parts[TOY_PATH];
    struct recipe r;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    /* Warmdown by a constant number of steps would see the shorter run's end: leave it out. */
    toy_set(&r, "WARMDOWN_ITERS=0");
    strcpy(whole, toy_path(dir, "whole"));
    struct train_opts o = opts(whole);
    run(&r, &o);
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        struct recipe first = r;
        char x[TOY_PATH];
        strcpy(parts, toy_path(dir, stops[i]));
        toy_set(&first, stops[i]);
        toy_set(&first, "CHECKPOINT_EVERY=3"); /* at the end in any case */
        o = opts(parts);
        run(&first, &o);
        o.resume = true;
        run(&r, &o);
        strcpy(x, toy_path(whole, "model.safetensors"));
        same_weights(stops[i], x, toy_path(parts, "model.safetensors"));
    }
    toy_remove(dir);
}

/* A signal in the middle: exit status 4, a checkpoint, no weights; resumed, the same bits. */
static void interrupted(void **state)
{
    char dir[TOY_PATH], whole[TOY_PATH], parts[TOY_PATH], x[TOY_PATH];
    volatile sig_atomic_t stop = 1; /* as if it came during the first step */
    struct recipe r;
    struct err e = {0};
    struct train_result res;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    strcpy(whole, toy_path(dir, "whole"));
    strcpy(parts, toy_path(dir, "parts"));
    struct train_opts o = opts(whole);
    run(&r, &o);
    o = opts(parts);
    o.stop = &stop;
    for (int i = 1; i <= 3; i++) {
        e = (struct err){0};
        assert_int_equal(train_run(&r, &o, &res, &e), ERR_RESOURCE);
        assert_int_equal(res.step, i);
        assert_non_null(strstr(e.msg, "resume with --resume"));
        assert_true(exists(parts, "checkpoint"));
        assert_false(exists(parts, "model.safetensors"));
        o.resume = true;
    }
    stop = 0;
    res = run(&r, &o);
    assert_int_equal(res.step, 12);
    strcpy(x, toy_path(whole, "model.safetensors"));
    same_weights("interrupted", x, toy_path(parts, "model.safetensors"));
    toy_remove(dir);
}

/* Without patience a step is given up in the middle and repeated on resume. */
static void impatient(void **state)
{
    char dir[TOY_PATH], whole[TOY_PATH], parts[TOY_PATH], x[TOY_PATH];
    volatile sig_atomic_t stop = 1;
    struct recipe r;
    struct err e = {0};
    struct train_result res;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    strcpy(whole, toy_path(dir, "whole"));
    strcpy(parts, toy_path(dir, "parts"));
    struct train_opts o = opts(whole);
    run(&r, &o);
    o = opts(parts);
    o.stop = &stop;
    assert_int_equal(train_run(&r, &o, &res, &e), ERR_RESOURCE); /* step 1, whole */
    o.resume = true;
    o.patience_s = 0;
    for (int i = 0; i < 2; i++) {
        e = (struct err){0};
        assert_int_equal(train_run(&r, &o, &res, &e), ERR_RESOURCE);
        assert_int_equal(res.step, 1);
    }
    stop = 0;
    run(&r, &o);
    strcpy(x, toy_path(whole, "model.safetensors"));
    same_weights("given up", x, toy_path(parts, "model.safetensors"));
    toy_remove(dir);
}

/* Stopped during a validation, which is not a step: nothing is lost or done twice. */
static void interrupted_validation(void **state)
{
    char dir[TOY_PATH], out[TOY_PATH];
    volatile sig_atomic_t stop = 1;
    struct recipe r;
    struct err e = {0};
    struct train_result res;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    toy_set(&r, "VAL_LOSS_EVERY=1");
    strcpy(out, toy_path(dir, "out"));
    struct train_opts o = opts(out);
    o.stop = &stop;
    assert_int_equal(train_run(&r, &o, &res, &e), ERR_RESOURCE);
    assert_int_equal(res.step, 0);
    assert_non_null(strstr(e.msg, "stopped at step 0"));
    stop = 0;
    o.resume = true;
    res = run(&r, &o);
    assert_int_equal(res.step, 12);
    toy_remove(dir);
}

static void wall_clock(void **state)
{
    char dir[TOY_PATH], out[TOY_PATH];
    struct recipe r;
    size_t n;
    (void)state;
    toy_corpus(dir);
    toy_recipe(&r, dir);
    toy_set(&r, "ITERATIONS=1000000000");
    toy_set(&r, "MAX_WALLCLOCK_SECONDS=0.05");
    strcpy(out, toy_path(dir, "out"));
    struct train_opts o = opts(out);
    struct train_result res = run(&r, &o);
    assert_true(res.step > 0 && res.step < 1000000);
    char *log = (char *)toy_read(toy_path(out, "train.log"), &n);
    assert_non_null(strstr(log, "stopping_early: wallclock_cap train_time:"));
    free(log);
    toy_remove(dir);
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
        struct train_opts o = opts(out);
        enum err_code rc = train_run(&r, &o, NULL, &e);
        if (rc != ERR_INPUT || !strstr(e.msg, cases[i].msg) || !strstr(e.msg, "step "))
            fail_msg("%s: status %d: %s", cases[i].set, (int)rc, e.msg);
        if (exists(out, "model.safetensors") || exists(out, "model.quant.safetensors"))
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
        struct train_opts o = opts(out);
        o.resume = cases[i].resume;
        enum err_code rc = train_run(&r, &o, NULL, &e);
        if (rc != cases[i].rc || !strstr(e.msg, cases[i].msg))
            fail_msg("%s: status %d: %s", cases[i].name, (int)rc, e.msg);
        if (exists(out, "model.safetensors") || exists(out, "train.log"))
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
    struct train_opts o = opts(toy_path(dir, "toy.model")); /* a file */
    assert_int_equal(train_run(&r, &o, NULL, &e), ERR_RESOURCE);
    assert_non_null(strstr(e.msg, "toy.model"));
    e = (struct err){0};
    o = opts("/proc/self/out");
    assert_int_equal(train_run(&r, &o, NULL, &e), ERR_RESOURCE);
    e = (struct err){0};
    o = opts(dir);
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
    struct train_opts o = opts("/nonexistent/out");
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
        cmocka_unit_test(learns),     cmocka_unit_test(threads),
        cmocka_unit_test(resume),     cmocka_unit_test(interrupted),
        cmocka_unit_test(impatient),  cmocka_unit_test(interrupted_validation),
        cmocka_unit_test(wall_clock), cmocka_unit_test(diverges),
        cmocka_unit_test(bad_start),  cmocka_unit_test(bad_output),
        cmocka_unit_test(describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
