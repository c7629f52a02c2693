/*
 * apart_test.c - exists for the line of the trainer or of scoring that reads a weight, a gradient
 * or a loss where it lies instead of asking the backend for it: on a CPU it works, on a graphics
 * card it is a crash that no test without one would see. Whole runs with everything switched on, on
 * a backend whose memory the host cannot touch (apart.h), must give the CPU's bits.
 *
 * It stands in for the CUDA backend, by the linker's --wrap: --device cuda is then that backend.
 */
#include "tests/unit/adapt.h"
#include "tests/unit/apart.c"
#include "tests/unit/train_run.h"

enum err_code __wrap_kern_cuda(struct kern **k, int device, struct err *e);
enum err_code __wrap_kern_cuda(struct kern **k, int device, struct err *e)
{
    (void)device;
    return kern_apart(k, 1, e);
}

/* Settings of each run, over the toy recipe. */
static const struct {
    const char *name, *set[24];
} runs[] = {
    {"common", {NULL}},
    {"switches",
     {"XSA_LAST_N=1", "SMEAR_GATE=1", "BIGRAM_VOCAB_SIZE=16", "BIGRAM_DIM=8", "VE_ENABLED=1",
      "VE_LAYERS=1", "VE_DIM=8", "SKIP_GATES_ENABLED=1", "RECUR_LAYERS=0", "RECUR_START_STEP=3",
      "LN_SCALE=1", NULL}},
    {"lanes", {"PARALLEL_LANES=merge", "PARALLEL_START_LAYER=1", NULL}},
    {"optimiser",
     {"MUON_ROW_NORM=1", "MUON_BF16=1", "EMBED_BF16=1", "LATE_QAT_THRESHOLD=2", "SWA_ENABLED=1",
      "SWA_EVERY=2", "SWA_START_SCALE=2", "GRAD_CLIP_NORM=0.3", NULL}},
    {"gptq", {"QUANT_METHOD=gptq", NULL}},
};

static void same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        struct toy_train t;
        toy_begin(&t, runs[i].set);
        toy_set(&t.r, "ITERATIONS=6");
        toy_whole(&t, "cpu");
        char out_dir[TOY_PATH];
        snprintf(out_dir, sizeof out_dir, "%s", toy_path(t.dir, "apart"));
        struct train_opts o = toy_opts(out_dir);
        o.device = "cuda";
        struct train_result res = toy_train(&t.r, &o);
        assert_int_equal(res.step, 6);
        toy_same(runs[i].name, &t, "cpu", "apart");
        toy_end(&t);
    }
}

/* Every way of scoring, of a stream. */
static const struct {
    const char *name, *settings;
    enum eval_mode mode;
} modes[] = {
    {"plain", "", EVAL_PLAIN},
    {"sliding", "", EVAL_SLIDING},
    {"slot", "SLOT_STEPS=2", EVAL_SLOT},
    {"slot-context", "SLOT_STEPS=2", EVAL_SLOT_CONTEXT},
    {"slot-context, shared", "SLOT_STEPS=2\nSLOT_SHARED=1", EVAL_SLOT_CONTEXT},
    {"ttt", "TTT_CHUNK_TOKENS=40\nTTT_LR=0.05\nTTT_FREEZE_BLOCKS=1", EVAL_TTT},
    {"slot-context after ttt", "TTT_CHUNK_TOKENS=40\nSLOT_AFTER_TTT=1\nSLOT_STEPS=2",
     EVAL_SLOT_CONTEXT},
};

static void same_scores(void **state)
{
    struct adapt_run *here = calloc(1, sizeof *here), *there = calloc(1, sizeof *there);
    (void)state;
    for (size_t i = 0; i < COUNT(modes); i++) {
        struct tiny t = tiny_open(modes[i].settings, 1, 6), u = t;
        uint16_t *tok = tiny_tokens(&t, 200, 7);
        const struct score_opts o = {.mode = modes[i].mode};
        struct err e = {0};
        EXPECT(modes[i].name, ERR_OK, "", kern_apart(&u.k, 1, &e), e);
        u.params = u.k->alloc(u.k, t.m.floats * sizeof(float));
        u.k->upload(u.k, u.params, t.params, t.m.floats * sizeof(float));
        EXPECT(modes[i].name, ERR_OK, "", adapt_score(&t, tok, 200, &o, here, &e), e);
        EXPECT(modes[i].name, ERR_OK, "", adapt_score(&u, tok, 200, &o, there, &e), e);
        adapt_same(modes[i].name, here, there);
        u.k->free(u.k, u.params);
        kern_free(u.k);
        free(tok);
        tiny_close(&t);
    }
    free(here);
    free(there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits), cmocka_unit_test(same_scores)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
