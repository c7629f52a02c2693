/*
 * checkpoint_test.c - exists for the checkpoint that resumes something else than what was saved:
 * one that is cut, has a flipped bit, comes from another recipe, or from a disk that was full when
 * it was written.
 */
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/toy_run.h"
#include "trainer/checkpoint.h"
#include "trainer/init.h"

enum { BLOCKS = 5 };

struct fixture {
    char dir[TOY_PATH];
    struct recipe r;
    struct gpt m;
    struct kern *k;
    struct step s;
    struct checkpoint c;
    float *host;
};

/* A small model with every block filled, as if it had taken 5 steps. */
static void open_fixture(struct fixture *f, const char *setting)
{
    struct err e = {0};
    struct rng g;
    toy_dir(f->dir);
    toy_recipe(&f->r, f->dir);
    toy_set(&f->r, "NUM_LAYERS=1");
    toy_set(&f->r, "MODEL_DIM=8");
    toy_set(&f->r, "VOCAB_SIZE=8");
    toy_set(&f->r, setting);
    assert_int_equal(kern_cpu(&f->k, 1, &e), ERR_OK);
    assert_int_equal(gpt_init(&f->m, &f->r, &e), ERR_OK);
    assert_int_equal(step_init(&f->s, f->k, &f->m, 2, NULL, &e), ERR_OK);
    f->host = malloc(f->m.floats * sizeof *f->host);
    float *block[] = {f->s.params, f->s.opt.mom, f->s.opt.var, f->s.ema, f->s.swa};
    rng_seed(&g, 3, "checkpoint");
    for (size_t b = 0; b < BLOCKS; b++) {
        for (size_t i = 0; i < f->m.floats; i++)
            f->host[i] = (float)rng_uniform(&g);
        if (block[b])
            f->k->upload(f->k, block[b], f->host, f->m.floats * sizeof *f->host);
    }
    f->s.opt.step = 5;
    f->s.snapshots = f->s.swa ? 3 : 0;
    f->s.qat = f->s.quant != NULL;
    f->c = (struct checkpoint){
        .elapsed_ms = 1234.5678901234567,
        .pos = {.name = "a \"b\"_train_0.bin",
                .shard = 2,
                .pos = 77,
                .shards = 9,
                .shard_tokens = 100},
    };
}

static void close_fixture(struct fixture *f)
{
    free(f->host);
    step_free(&f->s);
    gpt_free(&f->m);
    kern_free(f->k);
    toy_remove(f->dir);
}

/* The sum of all blocks, to see whether a refused read changed any. */
static double touch(const struct fixture *f)
{
    const float *block[] = {f->s.params, f->s.opt.mom, f->s.opt.var, f->s.ema, f->s.swa};
    double sum = (double)(f->s.opt.step + 100 * f->s.snapshots + 1000 * f->s.qat);
    for (size_t b = 0; b < BLOCKS; b++)
        sum += block[b] ? f->k->sumsq(f->k, block[b], f->m.floats) * (double)(b + 1) : 0;
    return sum;
}

static void forget(struct fixture *f)
{
    size_t bytes = f->m.floats * sizeof(float);
    f->k->zero(f->k, f->s.params, bytes);
    f->k->zero(f->k, f->s.opt.mom, bytes);
    f->k->zero(f->k, f->s.opt.var, bytes);
    if (f->s.ema)
        f->k->zero(f->k, f->s.ema, bytes);
    if (f->s.swa)
        f->k->zero(f->k, f->s.swa, bytes);
    f->s.opt.step = f->s.snapshots = 0;
    f->s.qat = false;
}

static void round_trip(void **state)
{
    static const char *const settings[] = {"EMA_DECAY=0.5", "EMA_DECAY=0", "SWA_ENABLED=1",
                                           "LATE_QAT_THRESHOLD=0.2"};
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        struct fixture f;
        struct checkpoint c;
        struct err e = {0};
        open_fixture(&f, settings[i]);
        const char *path = toy_path(f.dir, "checkpoint");
        double before = touch(&f);
        if (checkpoint_write(path, &f.s, &f.c, &e))
            fail_msg("%s", e.msg);
        forget(&f);
        if (checkpoint_read(path, &f.s, &c, &e))
            fail_msg("%s", e.msg);
        double after = touch(&f);
        assert_memory_equal(&before, &after, sizeof after);
        assert_memory_equal(&c.elapsed_ms, &f.c.elapsed_ms, sizeof c.elapsed_ms);
        assert_string_equal(c.pos.name, f.c.pos.name);
        assert_int_equal(c.pos.shard, 2);
        assert_int_equal(c.pos.pos, 77);
        assert_int_equal(c.pos.shards, 9);
        assert_int_equal(c.pos.shard_tokens, 100);
        close_fixture(&f);
    }
}

static void try_damage(struct fixture *f, const uint8_t *p, size_t n, const char *what, size_t at)
{
    struct err e = {0};
    struct checkpoint c;
    const char *path = toy_path(f->dir, "damaged");
    toy_write(path, p, n);
    double before = touch(f);
    enum err_code rc = checkpoint_read(path, &f->s, &c, &e);
    double after = touch(f);
    if (rc != ERR_INPUT || !e.msg[0])
        fail_msg("%s at byte %zu: status %d: %s", what, at, (int)rc, e.msg);
    if (memcmp(&before, &after, sizeof after) != 0)
        fail_msg("%s at byte %zu: state changed", what, at);
}

static void damage(void **state)
{
    struct fixture f;
    struct err e = {0};
    size_t n;
    (void)state;
    open_fixture(&f, "EMA_DECAY=0.5");
    const char *path = toy_path(f.dir, "checkpoint");
    assert_int_equal(checkpoint_write(path, &f.s, &f.c, &e), ERR_OK);
    uint8_t *p = toy_read(path, &n);
    f.s.opt.step = 1; /* not what the file says: a read that got through would show */
    for (size_t cut = 0; cut < n; cut += cut < 200 || cut + 200 > n ? 1 : 61)
        try_damage(&f, p, cut, "cut", cut);
    for (size_t at = 0; at < n; at += at < 200 ? 1 : 7) {
        uint8_t mask = (uint8_t)(1u << at % 8);
        /* Padding between header and data is the one place where a byte means nothing. */
        if (p[at] == ' ' && at + 8 > 8 + le64(p) && at < 8 + le64(p))
            continue;
        p[at] ^= mask;
        try_damage(&f, p, n, "bit flip", at);
        p[at] ^= mask;
    }
    free(p);
    close_fixture(&f);
}

static void other_recipe(void **state)
{
    static const struct {
        const char *set, *msg; /* msg NULL: may be changed */
    } cases[] = {
        {"MATRIX_LR=0.01", "MATRIX_LR is 0.01 now, 0.04 in the checkpoint"},
        {"SEED=2", "SEED is 2 now"},
        {"MODEL_DIM=16", "MODEL_DIM is 16 now, 8 in the checkpoint"},
        {"INIT=orthogonal", "INIT is orthogonal now, uniform in the checkpoint"},
        {"EMA_DECAY=0", "EMA_DECAY is 0 now"},
        {"MICRO_BATCH_TOKENS=64", "MICRO_BATCH_TOKENS is 64 now"},
        {"ITERATIONS=99", NULL},
        {"TRAIN_LOG_EVERY=1", NULL},
        {"EVAL_STRIDE=8", NULL},
        {"QUANT_BITS=5", NULL},
    };
    struct fixture a;
    struct err e = {0};
    (void)state;
    open_fixture(&a, "EMA_DECAY=0.5");
    char path[TOY_PATH];
    strcpy(path, toy_path(a.dir, "checkpoint"));
    assert_int_equal(checkpoint_write(path, &a.s, &a.c, &e), ERR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture b;
        struct checkpoint c;
        e = (struct err){0};
        open_fixture(&b, cases[i].set);
        enum err_code rc = checkpoint_read(path, &b.s, &c, &e);
        if (cases[i].msg ? rc != ERR_INPUT || !strstr(e.msg, cases[i].msg) : rc != ERR_OK)
            fail_msg("%s: status %d: %s", cases[i].set, (int)rc, e.msg);
        close_fixture(&b);
    }
    close_fixture(&a);
}

/* Late QAT reads settings that nothing else in training reads: only then must they be the same. */
static void qat_recipe(void **state)
{
    static const struct {
        const char *set;
        bool differs;
    } cases[] = {{"QUANT_BITS=5", true},
                 {"QUANT_SCALE_FLOOR=1", true},
                 {"QUANT_KEEP_NUMEL=100", true},
                 {"QUANT_EMBED_BITS=5", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recipe a, b;
        char text[160];
        recipe_init(&a);
        toy_set(&a, "LATE_QAT_THRESHOLD=0.1");
        b = a;
        toy_set(&b, cases[i].set);
        if (checkpoint_diff(&a, &b, text, sizeof text) != cases[i].differs)
            fail_msg("%s", cases[i].set);
    }
}

/* A write that fails keeps the old checkpoint and leaves no other file. */
static void full_disk(void **state)
{
    struct fixture f;
    struct checkpoint c;
    struct err e = {0};
    struct rlimit old, small = {4096, 4096};
    (void)state;
    open_fixture(&f, "EMA_DECAY=0.5");
    const char *path = toy_path(f.dir, "checkpoint");
    assert_int_equal(checkpoint_write(path, &f.s, &f.c, &e), ERR_OK);
    f.s.opt.step = 6;
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    enum err_code rc = checkpoint_write(path, &f.s, &f.c, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    if (rc != ERR_RESOURCE)
        fail_msg("status %d: %s", (int)rc, e.msg);
    e = (struct err){0};
    assert_int_equal(checkpoint_read(path, &f.s, &c, &e), ERR_OK);
    assert_int_equal(f.s.opt.step, 5);
    unlink(path);
    assert_int_equal(rmdir(f.dir), 0); /* nothing else was in it */
    close_fixture(&f);
}

/* Weights that are not finite are not saved. */
static void not_finite(void **state)
{
    struct fixture f;
    struct err e = {0};
    (void)state;
    open_fixture(&f, "EMA_DECAY=0.5");
    const struct gpt_param *p = gpt_find(&f.m, "blocks.0.mlp.fc.weight");
    float bad = 1e30f;
    for (int i = 0; i < 60; i++)
        bad *= 10; /* infinity, without a constant that a compiler may warn about */
    f.k->upload(f.k, f.s.params + p->at + 3, &bad, sizeof bad);
    assert_int_equal(checkpoint_write(toy_path(f.dir, "checkpoint"), &f.s, &f.c, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "blocks.0.mlp.fc.weight"));
    assert_int_equal(access(toy_path(f.dir, "checkpoint"), F_OK), -1);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(damage),    cmocka_unit_test(other_recipe),
        cmocka_unit_test(qat_recipe), cmocka_unit_test(full_disk), cmocka_unit_test(not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
