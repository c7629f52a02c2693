/*
 * plan_test.c - exists for the micro-batch that does not divide the batch, or whose choice depends
 * on the machine and with it the bits of the result; and for settings that only fail hours later.
 */
#include "tests/unit/toy_run.h"
#include "trainer/plan.h"

static enum err_code make(struct plan *p, const char *const *set, size_t n, int64_t *micro,
                          size_t threads, size_t card, struct err *e)
{
    struct recipe r;
    struct gpt m;
    struct kern *k;
    toy_recipe(&r, "");
    toy_set(&r, "MICRO_BATCH_TOKENS=0");
    for (size_t i = 0; i < n && set[i]; i++)
        toy_set(&r, set[i]);
    assert_int_equal(kern_cpu(&k, threads, e), ERR_OK);
    assert_int_equal(gpt_init(&m, &r, e), ERR_OK);
    k->memory = card;
    enum err_code rc = plan_make(p, &m, k, e);
    *micro = m.r.micro_batch_tokens;
    gpt_free(&m);
    kern_free(k);
    return rc;
}

static void micro_batches(void **state)
{
    static const struct {
        const char *name, *set[3];
        size_t seqs, micros;
    } cases[] = {
        {"all at once", {"TRAIN_BATCH_TOKENS=128"}, 8, 1},
        {"largest divisor", {"TRAIN_BATCH_TOKENS=8160", "TRAIN_SEQ_LEN=16"}, 255, 2},
        {"prime number of sequences", {"TRAIN_BATCH_TOKENS=8272", "TRAIN_SEQ_LEN=16"}, 47, 11},
        {"one long sequence", {"TRAIN_BATCH_TOKENS=16384", "TRAIN_SEQ_LEN=8192"}, 1, 2},
        {"as told", {"MICRO_BATCH_TOKENS=64"}, 4, 2},
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (size_t threads = 1; threads <= 3; threads += 2) {
            struct plan p;
            struct err e = {0};
            int64_t micro;
            if (make(&p, cases[c].set, 3, &micro, threads, 0, &e))
                fail_msg("%s: %s", cases[c].name, e.msg);
            if (p.micro_seqs != cases[c].seqs || p.micros != cases[c].micros || micro <= 0)
                fail_msg("%s: %zu sequences, %zu micro-batches", cases[c].name, p.micro_seqs,
                         p.micros);
        }
}

/* A card takes large ones: GRAD_RANKS of them if they fit, and never so that the data change. */
static void on_a_card(void **state)
{
    static const struct {
        const char *name, *set[4];
        size_t memory, seqs, micros;
    } cases[] = {
        {"as many as ranks", {"LOADER_RANKS=8"}, 1 << 30, 96, 8},
        {"coprime", {"LOADER=coprime"}, 1 << 30, 96, 8},
        {"two gradients", {"LOADER_RANKS=8", "GRAD_RANKS=2"}, 1 << 30, 384, 2},
        {"fewer sequences than ranks", {"LOADER_RANKS=8", "TRAIN_BATCH_TOKENS=64"}, 1 << 30, 1, 4},
        {"small memory", {"LOADER_RANKS=8"}, 1, 1, 768},
        {"the order of the data", {"LOADER_RANKS=0"}, 1 << 30, 256, 3},
        {"as told", {"LOADER_RANKS=8", "MICRO_BATCH_TOKENS=64"}, 1 << 30, 4, 192},
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const char *set[5] = {"TRAIN_BATCH_TOKENS=12288", cases[c].set[0], cases[c].set[1],
                              cases[c].set[2], cases[c].set[3]};
        struct plan p;
        struct err e = {0};
        int64_t micro;
        if (make(&p, set, 5, &micro, 1, cases[c].memory, &e))
            fail_msg("%s: %s", cases[c].name, e.msg);
        if (p.micro_seqs != cases[c].seqs || p.micros != cases[c].micros)
            fail_msg("%s: %zu sequences, %zu micro-batches", cases[c].name, p.micro_seqs, p.micros);
    }
}

static void refused(void **state)
{
    static const char *const bad[] = {
        "TRAIN_BATCH_TOKENS=0",
        "TRAIN_BATCH_TOKENS=100",
        "MICRO_BATCH_TOKENS=24",
        "MICRO_BATCH_TOKENS=96",
        "ITERATIONS=-1",
        "WARMDOWN_FRAC=1.5",
        "BETA1=1",
        "EMA_DECAY=-0.1",
        "MUON_BACKEND_STEPS=0",
        "INIT=zeros",
        "GRAD_CLIP_NORM=-1",
        "MAX_WALLCLOCK_SECONDS=-1",
        "EVAL_MODE=slide",
        "EVAL_WINDOWS=newer",
        "QUANT_BITS=1",
        "QUANT_CLIP=none",
        "PROJ_OPTIMIZER=sgd",
        "LATE_QAT_SCOPE=some",
        "MUON_BF16=2",
        "SWA_EVERY=0",
        "WARMUP_STEPS=-1",
        "RECUR_START_STEP=-1",
        "GRAD_RANKS=0",
        "GRAD_RANKS=3",
        "GRAD_RANKS=1024",
        "GRAD_CLIP_SCOPE=each",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct plan p;
        struct err e = {0};
        int64_t micro;
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(bad[i], "="), bad[i]);
        if (make(&p, &bad[i], 1, &micro, 1, 0, &e) != ERR_USAGE || !strstr(e.msg, key))
            fail_msg("%s: accepted, or: %s", bad[i], e.msg);
    }
}

/* Fine one by one, senseless together: the message names the setting that is in vain, and why. */
static void senseless(void **state)
{
    static const struct {
        const char *set[4], *msg; /* NULL: fine */
    } cases[] = {
        {{"GPTQ_RESERVE_SECONDS=600", "MAX_WALLCLOCK_SECONDS=600"}, "GPTQ_RESERVE_SECONDS=600"},
        {{"GPTQ_RESERVE_SECONDS=600", "MAX_WALLCLOCK_SECONDS=0"}, NULL},
        {{"PROJ_DEPTH_INIT=1", "INIT=uniform"}, "INIT is uniform"},
        {{"PROJ_DEPTH_INIT=1", "INIT=orthogonal"}, NULL},
        {{"LATE_QAT_THRESHOLD=0.1", "LATE_QAT_SCOPE=proj"}, "LATE_QAT_SCOPE=proj"},
        {{"LATE_QAT_THRESHOLD=0.1", "LATE_QAT_SCOPE=proj", "BIGRAM_VOCAB_SIZE=8"}, NULL},
        {{"LATE_QAT_THRESHOLD=0.1", "QUANT_KEEP_NUMEL=65536"}, "QUANT_KEEP_NUMEL"},
        {{"LATE_QAT_THRESHOLD=0.1", "WARMDOWN_ITERS=0"}, "never falls below"},
        {{"LATE_QAT_THRESHOLD=0.1", "MIN_LR=0.1"}, "never falls below"},
        {{"LATE_QAT_THRESHOLD=0.1", "LATE_QAT_SCOPE=none", "WARMDOWN_ITERS=0"}, NULL},
        {{"LATE_QAT_THRESHOLD=1.5", "WARMDOWN_ITERS=0"}, NULL},
        {{"SWA_ENABLED=1", "WARMDOWN_ITERS=0"}, "SWA_START_SCALE"},
        {{"SWA_ENABLED=1", "WARMDOWN_ITERS=0", "SWA_APPLY=0"}, NULL},
        {{"GRAD_CLIP_SCOPE=rank", "MICRO_BATCH_TOKENS=32"}, "4 micro-batches, GRAD_RANKS=8"},
        {{"GRAD_CLIP_SCOPE=rank", "MICRO_BATCH_TOKENS=32", "GRAD_RANKS=4"}, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plan p;
        struct err e = {0};
        int64_t micro;
        enum err_code rc = make(&p, cases[i].set, 4, &micro, 1, 0, &e);
        if (cases[i].msg ? rc != ERR_USAGE || !strstr(e.msg, cases[i].msg) : rc != ERR_OK)
            fail_msg("%s %s: status %d: %s", cases[i].set[0], cases[i].set[1], (int)rc, e.msg);
    }
}

/* Memory that a switch needs is in the plan. */
static void memory(void **state)
{
    static const char *const none[] = {"EMA_DECAY=0", NULL};
    static const char *const all[] = {"EMA_DECAY=0.9",          "SWA_ENABLED=1",
                                      "LATE_QAT_THRESHOLD=0.1", "RECUR_LAYERS=0,1",
                                      "RECUR_START_STEP=5",     NULL};
    struct plan a, b;
    struct err e = {0};
    int64_t micro;
    (void)state;
    assert_int_equal(make(&a, none, 2, &micro, 1, 0, &e), ERR_OK);
    assert_int_equal(make(&b, all, 6, &micro, 1, 0, &e), ERR_OK);
    assert_true(a.averages == 0 && a.rounded == 0);
    assert_true(b.averages == 2 * b.weights && b.rounded == b.weights);
    assert_true(b.activations > a.activations);
}

/* More ranks need less memory each, of what is shared out; more than there are gradients are
 * refused. */
static void ranks(void **state)
{
    static const struct {
        const char *set[3];
        size_t groups;
    } cases[] = {
        {{"MICRO_BATCH_TOKENS=16"}, 8},
        {{"MICRO_BATCH_TOKENS=16", "GRAD_RANKS=4", "SWA_ENABLED=1"}, 4},
        {{"MICRO_BATCH_TOKENS=32"}, 4},
        {{"MICRO_BATCH_TOKENS=128"}, 1},
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct recipe r;
        struct gpt m;
        struct kern *k;
        struct plan p, before;
        struct err e = {0};
        toy_recipe(&r, "");
        for (size_t i = 0; i < 3 && cases[c].set[i]; i++)
            toy_set(&r, cases[c].set[i]);
        assert_int_equal(kern_cpu(&k, 1, &e), ERR_OK);
        assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
        assert_int_equal(plan_make(&p, &m, k, &e), ERR_OK);
        assert_int_equal(p.groups, cases[c].groups);
        assert_int_equal(p.state, 2 * p.weights);
        for (size_t n = 2; n <= p.groups; n *= 2) {
            before = p;
            assert_int_equal(plan_ranks(&p, &m, n, &e), ERR_OK);
            if (p.state >= before.state || p.averages >= before.averages ||
                p.sums + p.state > before.sums + before.state || p.weights != before.weights)
                fail_msg("case %zu: %zu ranks: state %zu, averages %zu, sums %zu; half as many: "
                         "%zu, %zu, %zu",
                         c, n, p.state, p.averages, p.sums, before.state, before.averages,
                         before.sums);
        }
        if (plan_ranks(&p, &m, p.groups + 1, &e) != ERR_USAGE || !strstr(e.msg, "GRAD_RANKS="))
            fail_msg("case %zu: too many ranks: %s", c, e.msg);
        gpt_free(&m);
        kern_free(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(micro_batches), cmocka_unit_test(on_a_card),
                                       cmocka_unit_test(refused),       cmocka_unit_test(senseless),
                                       cmocka_unit_test(memory),        cmocka_unit_test(ranks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
