/*
 * ranks_test.c - exists for the run on several ranks that is not the run on one: a gradient added
 * up in another order or read before it is there, weights that differ between ranks, a clip by a
 * norm that only one rank has, an update that one rank makes and another does not, a checkpoint
 * that knows how many wrote it.
 */
#include <math.h>

#include "tests/unit/ranks.h"
#include "tests/unit/toy_run.h"
#include "trainer/checkpoint.h"
#include "trainer/init.h"
#include "trainer/same.h"
#include "trainer/step.h"

enum { STEPS = 3, SEQS = 2, T = 16 };

/* What a run came to, as every rank sees it. */
struct outcome {
    float *params, *final; /* [floats]: the weights, and those of step_final */
    double loss[STEPS], norm[STEPS];
};

struct job {
    const char *name;
    struct gpt m;
    bool snapshots;           /* after each step */
    const char *read, *write; /* checkpoints, or NULL */
    struct outcome of[RANKS_MOST];
    char problem[240]; /* of some rank */
};

static void complain(struct job *j, const struct comm *c, const char *what, const char *msg)
{
    snprintf(j->problem, sizeof j->problem, "rank %zu of %zu: %s: %.150s", c->rank, c->size, what,
             msg);
}

static bool begin(struct job *j, struct comm *c, struct kern **k, struct step *s)
{
    struct err e = {0};
    float *p = malloc(j->m.floats * sizeof *p);
    bool ok =
        !kern_cpu(k, 1, &e) && !step_init(s, *k, &j->m, SEQS, c, &e) && !init_params(&j->m, p, &e);
    if (ok)
        step_set(s, p);
    else
        complain(j, c, "set up", e.msg);
    free(p);
    return ok;
}

/* This rank's micro-batches of a step; the tokens depend on the step and their place in it. `bad`
 * has an infinite gradient, unless it is NULL. */
static bool micros(struct job *j, struct comm *c, struct step *s, size_t step,
                   const struct gpt_param *bad)
{
    float huge = (float)HUGE_VAL;
    struct split_range own = s->reduce.mine.micro;
    struct err e = {0};
    uint64_t before = c->sent + c->received;
    step_begin(s);
    for (size_t i = own.from; i < own.from + own.count; i++) {
        uint16_t tok[SEQS * T + 1], target[SEQS * T];
        toy_stream(tok, SEQS * T + 1, (uint32_t)(step * 1000 + i));
        memcpy(target, tok + 1, sizeof target);
        if (bad && i + 1 == own.from + own.count)
            s->k->upload(s->k, s->grads + bad->at + bad->size - 1, &huge, sizeof huge);
        if (step_micro(s, tok, target, &e)) {
            complain(j, c, "micro-batch", e.msg);
            return false;
        }
    }
    /* Buckets leave while the rest of the backward pass runs. */
    if (c->size > 1 && s->reduce.buckets > 1 && strcmp(j->m.r.grad_clip_scope, "rank") != 0 &&
        c->sent + c->received == before)
        complain(j, c, "exchange", "nothing left during the backward pass");
    return true;
}

static void train(void *ctx, struct comm *c)
{
    struct job *j = ctx;
    struct outcome *of = &j->of[c->rank];
    struct checkpoint pos = {.elapsed_ms = 5, .pos = {.name = "shard", .shards = 1}};
    struct kern *k = NULL;
    struct step s = {0};
    struct err e = {0};
    enum step_source from;
    size_t bytes = j->m.floats * sizeof(float);
    if (!begin(j, c, &k, &s))
        return;
    if (j->read && checkpoint_read(j->read, &s, &pos, &e))
        complain(j, c, "read", e.msg);
    for (size_t step = s.opt.step; step < STEPS && !j->problem[0]; step++) {
        struct step_stats st;
        s.qat = s.quant && step > 0;
        if (!micros(j, c, &s, step, NULL))
            break;
        if (step_end(&s, 1, 0.9, 0, &st, &e) || st.trouble)
            complain(j, c, "step", e.msg);
        of->loss[step] = st.loss;
        of->norm[step] = st.grad_norm;
        if (j->snapshots)
            step_snapshot(&s);
        if (j->write && step == 1 && checkpoint_write(j->write, &s, &pos, &e))
            complain(j, c, "write", e.msg);
    }
    of->params = malloc(bytes);
    of->final = malloc(bytes);
    k->download(k, of->params, s.params, bytes);
    if (step_final(&s, &from, &e))
        complain(j, c, "final", e.msg);
    k->download(k, of->final, s.grads, bytes);
    step_free(&s);
    kern_free(k);
}

static void run(struct job *j, size_t ranks)
{
    ranks_run(ranks, train, j);
    if (j->problem[0])
        fail_msg("%s: %s", j->name, j->problem);
}

static void forget(struct job *j)
{
    for (size_t i = 0; i < RANKS_MOST; i++) {
        free(j->of[i].params);
        free(j->of[i].final);
    }
    memset(j->of, 0, sizeof j->of);
}

static void same(const struct job *one, const struct job *many, size_t ranks, size_t from_step)
{
    const struct outcome *a = &one->of[0];
    size_t bytes = one->m.floats * sizeof(float), steps = (STEPS - from_step) * sizeof(double);
    for (size_t r = 0; r < ranks; r++) {
        const struct outcome *b = &many->of[r];
        if (memcmp(a->loss + from_step, b->loss + from_step, steps) != 0)
            fail_msg("%s: rank %zu of %zu: losses %.17g %.17g, of one %.17g %.17g", one->name, r,
                     ranks, b->loss[1], b->loss[2], a->loss[1], a->loss[2]);
        if (memcmp(a->norm + from_step, b->norm + from_step, steps) != 0)
            fail_msg("%s: rank %zu of %zu: another norm", one->name, r, ranks);
        if (memcmp(a->params, b->params, bytes) != 0)
            fail_msg("%s: rank %zu of %zu: other weights", one->name, r, ranks);
        if (memcmp(a->final, b->final, bytes) != 0)
            fail_msg("%s: rank %zu of %zu: other final weights", one->name, r, ranks);
    }
}

static void settings(struct job *j, const char *name, const char *const *set, size_t micros_of)
{
    struct recipe r;
    struct err e = {0};
    *j = (struct job){.name = name};
    toy_recipe(&r, "");
    r.train_batch_tokens = (int64_t)(micros_of * SEQS * T);
    for (; *set; set++)
        toy_set(&r, *set);
    j->snapshots = r.swa_enabled != 0;
    assert_int_equal(gpt_init(&j->m, &r, &e), ERR_OK);
}

static const struct {
    const char *name, *set[12];
    size_t micros, ranks[6];
} cases[] = {
    {"eight gradients", {NULL}, 8, {2, 3, 4, 5, 7, 8}},
    {"groups of unequal size", {NULL}, 13, {2, 3, 6, 8}},
    {"fewer micro-batches", {NULL}, 5, {2, 3, 5}},
    {"sixteen", {"GRAD_RANKS=16", "GRAD_CLIP_NORM=0.1"}, 16, {3, 11, 16}},
    {"four", {"GRAD_RANKS=4", "EMA_DECAY=0"}, 9, {2, 3, 4}},
    {"ranks clip", {"GRAD_CLIP_SCOPE=rank", "GRAD_CLIP_NORM=0.05"}, 17, {2, 5, 8}},
    {"all switches",
     {"TIE_EMBEDDINGS=0", "BIGRAM_VOCAB_SIZE=16", "BIGRAM_DIM=8", "SMEAR_GATE=1", "VE_ENABLED=1",
      "VE_LAYERS=1", "VE_DIM=8", "SKIP_GATES_ENABLED=1", "RECUR_LAYERS=0"},
     8,
     {2, 3, 8}},
    {"records",
     {"MUON_ROW_NORM=1", "MUON_BF16=1", "EMBED_BF16=1", "SWA_ENABLED=1", "LATE_QAT_THRESHOLD=2",
      "MATRIX_BANKS=1", "PARALLEL_LANES=merge", "PARALLEL_START_LAYER=1"},
     8,
     {2, 3, 8}},
    {"large pieces", {"VOCAB_SIZE=16384", "MODEL_DIM=64", "NUM_LAYERS=1"}, 4, {2, 3}},
};

static void same_bits(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct job one, many;
        settings(&one, cases[c].name, cases[c].set, cases[c].micros);
        run(&one, 1);
        for (size_t i = 0; i < 6 && cases[c].ranks[i]; i++) {
            settings(&many, cases[c].name, cases[c].set, cases[c].micros);
            run(&many, cases[c].ranks[i]);
            same(&one, &many, cases[c].ranks[i], 0);
            forget(&many);
            gpt_free(&many.m);
        }
        forget(&one);
        gpt_free(&one.m);
    }
}

/* GRAD_RANKS=1 is one sum in order of the micro-batches: no tree. */
static void plain_sum(void **state)
{
    static const char *const set[] = {"GRAD_RANKS=1", NULL};
    struct job j, tree;
    (void)state;
    settings(&j, "one gradient", set, 8);
    settings(&tree, "a tree", set + 1, 8);
    run(&j, 1);
    run(&tree, 1);
    assert_memory_equal(j.of[0].loss, tree.of[0].loss, sizeof(double)); /* the first step's */
    assert_true(fabs(j.of[0].norm[2] / tree.of[0].norm[2] - 1) < 1e-3);
    assert_true(memcmp(j.of[0].params, tree.of[0].params, j.m.floats * sizeof(float)) != 0);
    forget(&j);
    forget(&tree);
    gpt_free(&j.m);
    gpt_free(&tree.m);
}

/* Written by N after two steps, read by M: the file has the bytes of one rank's, and the last step
 * its bits. */
static void checkpoints(void **state)
{
    static const char *const set[] = {"SWA_ENABLED=1", "MUON_BF16=1", NULL};
    static const size_t ranks[] = {1, 2, 3, 5};
    char dir[TOY_PATH], first[TOY_PATH];
    struct job one, j;
    size_t n, m;
    (void)state;
    toy_dir(dir);
    strcpy(first, toy_path(dir, "of one"));
    settings(&one, "one", set, 8);
    one.write = first;
    run(&one, 1);
    uint8_t *want = toy_read(first, &n);
    for (size_t i = 0; i < 4; i++) {
        char path[TOY_PATH];
        settings(&j, "writing", set, 8);
        strcpy(path, toy_path(dir, "of many"));
        j.write = path;
        run(&j, ranks[i]);
        same(&one, &j, ranks[i], 0); /* which writing has not changed */
        uint8_t *got = toy_read(path, &m);
        if (n != m || memcmp(want, got, n) != 0)
            fail_msg("the checkpoint of %zu ranks has other bytes", ranks[i]);
        free(got);
        forget(&j);
        gpt_free(&j.m);
        settings(&j, "reading", set, 8);
        j.read = first;
        run(&j, ranks[i]);
        same(&one, &j, ranks[i], 2);
        forget(&j);
        gpt_free(&j.m);
    }
    free(want);
    forget(&one);
    gpt_free(&one.m);
    toy_remove(dir);
}

/* ---- what goes wrong on one rank ---- */

struct fault {
    struct gpt m;
    size_t rank;      /* where */
    unsigned trouble; /* what that rank says; 0: its gradient is infinite */
    const char *tensor;
    enum err_code rc[RANKS_MOST];
    unsigned heard[RANKS_MOST];
    char msg[RANKS_MOST][240];
    bool moved[RANKS_MOST];
};

static void go_wrong(void *ctx, struct comm *c)
{
    struct fault *f = ctx;
    struct job j = {.m = f->m};
    struct kern *k = NULL;
    struct step s = {0};
    struct step_stats st;
    struct err e = {0};
    size_t bytes = f->m.floats * sizeof(float);
    float *before = malloc(bytes), *after = malloc(bytes);
    bool me = c->rank == f->rank;
    if (!begin(&j, c, &k, &s))
        return;
    k->download(k, before, s.params, bytes);
    step_begin(&s);
    if (!me || !f->trouble)
        micros(&j, c, &s, 0, me && f->tensor ? gpt_find(&f->m, f->tensor) : NULL);
    f->rc[c->rank] = step_end(&s, 1, 0.9, me ? f->trouble : 0, &st, &e);
    f->heard[c->rank] = st.trouble;
    memcpy(f->msg[c->rank], e.msg, sizeof e.msg);
    k->download(k, after, s.params, bytes);
    f->moved[c->rank] = s.opt.step != 0 || memcmp(before, after, bytes) != 0;
    free(before);
    free(after);
    step_free(&s);
    kern_free(k);
}

static void trouble(void **state)
{
    static const struct {
        unsigned trouble;
        size_t ranks, rank;
    } list[] = {{STEP_FAILED, 2, 0},   {STEP_FAILED, 3, 2},   {STEP_GIVEN_UP, 2, 1},
                {STEP_GIVEN_UP, 5, 0}, {STEP_GIVEN_UP, 1, 0}, {STEP_FAILED, 8, 7}};
    static const char *const set[] = {NULL};
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct job j;
        settings(&j, "trouble", set, 13);
        struct fault f = {.m = j.m, .rank = list[i].rank, .trouble = list[i].trouble};
        ranks_run(list[i].ranks, go_wrong, &f);
        for (size_t r = 0; r < list[i].ranks; r++)
            if (f.rc[r] || f.heard[r] != list[i].trouble || f.moved[r])
                fail_msg("case %zu: rank %zu: status %d, heard %u%s", i, r, (int)f.rc[r],
                         f.heard[r], f.moved[r] ? ", updated" : "");
        gpt_free(&j.m);
    }
}

/* An infinite gradient on one rank: its owner names it, nobody moves. */
static void diverged(void **state)
{
    static const char *const set[] = {NULL};
    struct job j;
    (void)state;
    settings(&j, "diverged", set, 8);
    for (size_t ranks = 1; ranks <= 3; ranks++) {
        struct fault f = {.m = j.m, .rank = ranks - 1, .tensor = "blocks.1.mlp.fc.weight"};
        size_t named = 0;
        ranks_run(ranks, go_wrong, &f);
        for (size_t r = 0; r < ranks; r++) {
            bool names = f.rc[r] == ERR_INPUT && strstr(f.msg[r], f.tensor) != NULL;
            named += names;
            if (f.moved[r] || (!names && (f.rc[r] || f.heard[r] != STEP_FAILED)))
                fail_msg("rank %zu of %zu: status %d, heard %u%s: %s", r, ranks, (int)f.rc[r],
                         f.heard[r], f.moved[r] ? ", updated" : "", f.msg[r]);
        }
        assert_int_equal(named, 1);
    }
    gpt_free(&j.m);
}

/* ---- ranks that were not given the same ---- */

enum difference { NONE, SETTING, PLACE, SHARD, TOKEN, TOKENIZER, WEIGHTS };

struct different {
    enum difference what; /* of rank 1 */
    char dir[TOY_PATH], other[TOY_PATH];
    enum err_code rc[RANKS_MOST];
    char msg[RANKS_MOST][240];
};

static void compare(void *ctx, struct comm *c)
{
    struct different *d = ctx;
    enum difference what = c->rank == 1 ? d->what : NONE;
    uint16_t val[] = {1, 2, (uint16_t)(3 + (what == TOKEN))};
    struct corpus data = {.val = val, .nval = 3, .tokenizer_xxh64 = "0123456789abcdef"};
    struct gpt m = {0};
    struct err e = {0};
    toy_recipe(&m.r, what == PLACE || what == SHARD ? d->other : d->dir);
    m.r.seed += what == SETTING;
    data.tokenizer_xxh64[3] = what == TOKENIZER ? 'x' : '3';
    enum err_code rc = loader_open(&data.train, &m.r, m.r.data_path, &e);
    if (!rc)
        rc = same_check(c, &m, &data, 5 + (what == WEIGHTS), &e);
    d->rc[c->rank] = rc;
    memcpy(d->msg[c->rank], e.msg, sizeof e.msg);
    loader_close(&data.train);
}

static void differences(void **state)
{
    static const struct {
        enum difference what;
        const char *msg; /* NULL: it does not matter */
    } list[] = {
        {NONE, NULL},
        {SETTING, "settings"},
        {PLACE, NULL},
        {SHARD, "training shards"},
        {TOKEN, "validation tokens"},
        {TOKENIZER, "tokeniser"},
        {WEIGHTS, "initial weights"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct different d = {.what = list[i].what};
        toy_corpus(d.dir);
        toy_corpus(d.other);
        if (d.what == SHARD) {
            uint16_t tok[TOY_TOKENS] = {0};
            toy_shard(toy_path(d.other, "toy_train_000001.bin"), tok, TOY_TOKENS - 2);
        }
        ranks_run(3, compare, &d);
        for (size_t r = 0; r < 3; r++)
            if (list[i].msg ? d.rc[r] != ERR_INPUT || !strstr(d.msg[r], "rank 1 ") ||
                                  !strstr(d.msg[r], list[i].msg)
                            : d.rc[r] != ERR_OK)
                fail_msg("case %zu, rank %zu: status %d: %s", i, r, (int)d.rc[r], d.msg[r]);
        toy_remove(d.dir);
        toy_remove(d.other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits), cmocka_unit_test(plain_sum), cmocka_unit_test(checkpoints),
        cmocka_unit_test(trouble),   cmocka_unit_test(diverged),  cmocka_unit_test(differences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
