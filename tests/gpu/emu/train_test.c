/*
 * train_test.c - exists for what no comparison of single operations shows: a whole training run and
 * every way of scoring on the CUDA backend (on the emulated card), beside the CPU. Products of bf16
 * operands make numbers differ; by how much is bounded here. Two runs must give one model, and the
 * same scores.
 */
#include "tests/unit/adapt.h"
#include "tests/unit/train_run.h"

/* Settings of each run, over the toy recipe; and KERN_MLP, which wants widths of 128 and more. */
static const struct {
    const char *name, *set[24], *mlp;
} runs[] = {
    {"common", {NULL}, NULL},
    {"switches",
     {"XSA_LAST_N=1",
      "SMEAR_GATE=1",
      "BIGRAM_VOCAB_SIZE=16",
      "BIGRAM_DIM=8",
      "VE_ENABLED=1",
      "VE_LAYERS=1",
      "VE_DIM=8",
      "SKIP_GATES_ENABLED=1",
      "RECUR_LAYERS=0",
      "RECUR_START_STEP=3",
      "LN_SCALE=1",
      "MUON_ROW_NORM=1",
      "MUON_BF16=1",
      "EMBED_BF16=1",
      "LATE_QAT_THRESHOLD=2",
      "SWA_ENABLED=1",
      "SWA_EVERY=2",
      "SWA_START_SCALE=2",
      "GRAD_CLIP_NORM=0.3",
      NULL},
     NULL},
    {"skips from blocks whose sum another pass makes",
     {"NUM_LAYERS=5", "SKIP_GATES_ENABLED=1", NULL},
     NULL},
    {"lanes", {"PARALLEL_LANES=merge", "PARALLEL_START_LAYER=1", NULL}, NULL},
    {"heads of 64",
     {"MODEL_DIM=128", "NUM_HEADS=2", "NUM_KV_HEADS=1", "XSA_LAST_N=1", "TRAIN_SEQ_LEN=80",
      "MICRO_BATCH_TOKENS=80", "TRAIN_BATCH_TOKENS=160", NULL},
     "lt"},
    {"MLP by wgmma",
     {"MODEL_DIM=128", "NUM_HEADS=2", "NUM_KV_HEADS=1", "MLP_SLOPE=0.5", "TRAIN_SEQ_LEN=80",
      "MICRO_BATCH_TOKENS=160", "TRAIN_BATCH_TOKENS=320", NULL},
     "wgmma"},
    {"heads whose q, k and v are half values",
     {"MODEL_DIM=64", "NUM_HEADS=4", "NUM_KV_HEADS=2", "ROPE_DIMS=16", "XSA_LAST_N=1",
      "VE_ENABLED=1", "VE_LAYERS=1", "VE_DIM=8", NULL},
     NULL},
    {"the same, q, k and v by one product of weights in three places",
     {"MODEL_DIM=64", "NUM_HEADS=4", "NUM_KV_HEADS=2", "ROPE_DIMS=16", "XSA_LAST_N=1",
      "MATRIX_BANKS=1", NULL},
     NULL},
};

static struct train_result on(struct toy_train *t, const char *device, const char *name)
{
    char out[TOY_PATH];
    snprintf(out, sizeof out, "%s", toy_path(t->dir, name));
    struct train_opts o = toy_opts(out);
    o.device = device;
    return toy_train(&t->r, &o);
}

/* The other order of threads and the other time of work in streams (README.md): the same bits. */
static void backwards(bool yes)
{
    if (yes) {
        setenv("EMU_ORDER", "down", 1);
        setenv("EMU_STREAM", "eager", 1);
    } else {
        unsetenv("EMU_ORDER");
        unsetenv("EMU_STREAM");
    }
}

static void training(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(runs); i++) {
        struct toy_train t;
        if (runs[i].mlp)
            setenv("KERN_MLP", runs[i].mlp, 1);
        toy_begin(&t, runs[i].set);
        toy_set(&t.r, "ITERATIONS=4");
        toy_set(&t.r, "VAL_MAX_TOKENS=80");
        struct train_result cpu = on(&t, "cpu", "cpu"), card = on(&t, "cuda", "one");
        backwards(true);
        on(&t, "cuda", "two");
        backwards(false);
        toy_same(runs[i].name, &t, "one", "two");
        if (!(fabs(card.val_loss - cpu.val_loss) < 5e-3))
            fail_msg("%s: val_loss %.6f, the CPU's %.6f", runs[i].name, card.val_loss,
                     cpu.val_loss);
        if (i ==
            0) { /* the next step's tokens are read ahead: every place that is noted is right */
            toy_set(&t.r, "WARMUP_STEPS=2");
            toy_set(&t.r, "CHECKPOINT_EVERY=1");
            on(&t, "cuda", "noted");
            toy_same("warmup, checkpoints", &t, "one", "noted");
        }
        unsetenv("KERN_MLP");
        toy_end(&t);
    }
}

enum { TOKENS = 84 };

/* Heads that a card's kernels for half values take. */
#define HALVES "MODEL_DIM=64\nNUM_HEADS=4\nNUM_KV_HEADS=2\nROPE_DIMS=16\n"

/* Every way of scoring, of a stream of TOKENS. */
static const struct {
    const char *name, *settings;
    enum eval_mode mode;
} modes[] = {
    {"plain", "", EVAL_PLAIN},
    {"sliding", "", EVAL_SLIDING},
    {"sliding, values as bf16", HALVES, EVAL_SLIDING},
    {"sliding, values as bf16, all switches",
     HALVES
     "XSA_LAST_N=3\nVE_ENABLED=1\nVE_LAYERS=2\nVE_DIM=8\nSKIP_GATES_ENABLED=1\nSMEAR_GATE=1\n"
     "RECUR_LAYERS=1",
     EVAL_SLIDING},
    {"slot, values as bf16", HALVES "SLOT_STEPS=2\nXSA_LAST_N=1", EVAL_SLOT},
    {"slot", "SLOT_STEPS=2", EVAL_SLOT},
    {"slot-context", "SLOT_STEPS=2", EVAL_SLOT_CONTEXT},
    {"slot-context, shared", "SLOT_STEPS=2\nSLOT_SHARED=1", EVAL_SLOT_CONTEXT},
    {"ttt", "TTT_CHUNK_TOKENS=40\nTTT_LR=0.05\nTTT_FREEZE_BLOCKS=1", EVAL_TTT},
};

static void scoring(void **state)
{
    struct adapt_run *run = calloc(3, sizeof *run);
    (void)state;
    for (size_t i = 0; i < COUNT(modes); i++) {
        struct tiny t = tiny_open(modes[i].settings, 1, 6), u = t;
        uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
        const struct score_opts o = {.mode = modes[i].mode};
        struct err e = {0};
        EXPECT(modes[i].name, ERR_OK, "", kern_cuda(&u.k, 0, &e), e);
        u.params = u.k->alloc(u.k, t.m.floats * sizeof(float));
        u.k->upload(u.k, u.params, t.params, t.m.floats * sizeof(float));
        EXPECT(modes[i].name, ERR_OK, "", adapt_score(&t, tok, TOKENS, &o, &run[0], &e), e);
        EXPECT(modes[i].name, ERR_OK, "", adapt_score(&u, tok, TOKENS, &o, &run[1], &e), e);
        backwards(true);
        EXPECT(modes[i].name, ERR_OK, "", adapt_score(&u, tok, TOKENS, &o, &run[2], &e), e);
        backwards(false);
        adapt_same(modes[i].name, &run[1], &run[2]);
        /* The model is random and says much of the wrong with certainty: losses are large. */
        if (run[0].n != run[1].n ||
            !(fabs(run[0].s.val_loss - run[1].s.val_loss) < 5e-3 * run[0].s.val_loss))
            fail_msg("%s: val_loss %.6f, the CPU's %.6f", modes[i].name, run[1].s.val_loss,
                     run[0].s.val_loss);
        u.k->free(u.k, u.params);
        kern_free(u.k);
        free(tok);
        tiny_close(&t);
    }
    free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(training), cmocka_unit_test(scoring)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
