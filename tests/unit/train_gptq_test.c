/*
 * train_gptq_test.c - exists for a run whose calibration depends on more than the recipe: on the
 * number of threads, on having been resumed, on whether `trainer` or `packer quantize` did it; and
 * for GPTQ_DATA=continue that quietly starts from the beginning; and for a log that calls a model
 * of QUANTIZER=rd int6.
 */
#include "tests/unit/train_run.h"
#include "trainer/quant.h"

#define SETTINGS                                                                                   \
    "QUANT_METHOD=gptq", "GPTQ_CALIB_BATCHES=2", "GPTQ_BATCH_TOKENS=32", "MIXED_QUANT=1",          \
        "N_INT6_LAYERS=5", "PRUNE_TARGET_BYTES=1000", "CHECKPOINT_EVERY=6"

/* Are the tensors of two quantised files the same? */
static bool same(const char *a, const char *b)
{
    struct st_file x, y;
    struct err e = {0};
    if (st_open(&x, a, &e) || st_open(&y, b, &e))
        fail_msg("%s", e.msg);
    bool equal = x.count == y.count;
    for (size_t i = 0; i < x.count && equal; i++)
        equal = x.tensor[i].nbytes == y.tensor[i].nbytes &&
                !memcmp(x.tensor[i].data, y.tensor[i].data, x.tensor[i].nbytes);
    st_close(&x);
    st_close(&y);
    return equal;
}

static const char *quantised(const struct toy_train *t, const char *run)
{
    char out[TOY_PATH];
    snprintf(out, sizeof out, "%s", toy_path(t->dir, run));
    return toy_path(out, "model.quant.safetensors");
}

static void run(const struct toy_train *t, const char *name, size_t threads, bool resume)
{
    char out[TOY_PATH];
    snprintf(out, sizeof out, "%s", toy_path(t->dir, name));
    struct train_opts o = toy_opts(out);
    o.threads = threads;
    o.resume = resume;
    toy_train(&t->r, &o);
}

static void calibrates(void **state)
{
    static const char *const first[] = {SETTINGS, NULL};
    static const char *const again[] = {"QUANT_METHOD=gptq", "PRUNE_TARGET_BYTES=0"};
    struct toy_train t;
    struct quant_report rep = {0};
    struct err e = {0};
    char in[TOY_PATH], out[TOY_PATH];
    (void)state;
    toy_begin(&t, first);
    run(&t, "one", 1, false);
    run(&t, "three", 3, false);
    char *log = toy_log(&t, "one");
    assert_non_null(strstr(log, "gptq:calibrated with 2 batches of 32 tokens"));
    assert_non_null(strstr(log, "pruning to 1000 bytes is left to packer quantize"));
    free(log);
    if (!same(quantised(&t, "one"), quantised(&t, "three")))
        fail_msg("1 and 3 threads: another file");

    snprintf(out, sizeof out, "%s", toy_path(t.dir, "one"));
    snprintf(in, sizeof in, "%s", toy_path(out, "model.safetensors"));
    snprintf(out, sizeof out, "%s", toy_path(t.dir, "again.safetensors"));
    struct quant_tools tools = {.data = t.dir, .threads = 1};
    if (quant_file(in, out, again, 2, &tools, &rep, &e))
        fail_msg("%s", e.msg);
    if (!same(quantised(&t, "one"), out))
        fail_msg("quantised again from the weights: another file");
    size_t gptq = 0;
    for (size_t i = 0; i < rep.count; i++)
        gptq += rep.line[i].by == QUANT_BY_GPTQ;
    assert_int_equal(gptq, 12);
    quant_report_free(&rep);
    toy_end(&t);
}

/* The stream goes on where training stopped, in a run that was resumed as well. */
static void continues(void **state)
{
    static const char *const set[] = {SETTINGS, "GPTQ_DATA=continue", NULL};
    static const char *const loaders[] = {"LOADER=sequential", "LOADER=coprime"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct toy_train t;
        char kept[TOY_PATH], now[TOY_PATH];
        toy_begin(&t, set);
        toy_set(&t.r, loaders[i]);
        run(&t, "run", 1, false);
        snprintf(kept, sizeof kept, "%s", toy_path(t.dir, "kept.safetensors"));
        snprintf(now, sizeof now, "%s", quantised(&t, "run"));
        if (rename(now, kept))
            fail_msg("%s: not written", now);
        run(&t, "run", 1, true); /* nothing left to train: only the end again */
        if (!same(kept, now))
            fail_msg("%s: another file after --resume", loaders[i]);
        toy_set(&t.r, "GPTQ_DATA=first");
        run(&t, "first", 1, false);
        if (same(kept, quantised(&t, "first")))
            fail_msg("%s: continue and first are the same", loaders[i]);
        toy_end(&t);
    }
}

/* QUANTIZER=rd at the end of a run: no line of the log speaks of integers of so many bits. */
static void says_rd(void **state)
{
    static const char *const set[] = {"QUANTIZER=rd",        "RD_TARGET_BYTES=54000",
                                      "RD_CALIB_TOKENS=256", "RD_KL_TOKENS=64",
                                      "RD_STATES=8",         NULL};
    static const char *const lines[] = {
        "rd:calibrated with 256 tokens, divergences of 64 tokens",
        "bytes (estimate) target:54000",
        "Serialized model rd+safetensors: ",
        "final_rd_roundtrip val_loss:",
        "final_rd_roundtrip_exact val_loss:",
        "left to packer quantize",
    };
    static const char *const not [] = {"gptq:", "int6", "int8"};
    struct toy_train t;
    (void)state;
    toy_begin(&t, set);
    run(&t, "rd", 2, false);
    char *log = toy_log(&t, "rd"), *result = strstr(log, "\nrd:calibrated");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(log, lines[i]))
            fail_msg("the log has no line with %s", lines[i]);
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (strstr(result, not [i]))
            fail_msg("the log says %s", not [i]);
    free(log);
    toy_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calibrates),
        cmocka_unit_test(continues),
        cmocka_unit_test(says_rd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
