/*
 * train_run.h - what the tests of whole training runs share, besides the little corpus of
 * toy_run.h.
 */
#ifndef TESTS_UNIT_TRAIN_RUN_H
#define TESTS_UNIT_TRAIN_RUN_H

#include <signal.h>

#include "model/safetensors.h"
#include "tests/unit/toy_run.h"
#include "trainer/train.h"

/* A corpus in a scratch directory and a recipe for it. */
struct toy_train {
    char dir[TOY_PATH];
    struct recipe r;
};

/* Settings end with NULL. */
static inline void toy_begin(struct toy_train *t, const char *const *set)
{
    toy_corpus(t->dir);
    toy_recipe(&t->r, t->dir);
    for (; set && *set; set++)
        toy_set(&t->r, *set);
}

static inline void toy_end(struct toy_train *t)
{
    toy_remove(t->dir);
}

static inline struct train_opts toy_opts(const char *out)
{
    return (struct train_opts){
        .name = "toy", .out = out, .device = "cpu", .threads = 1, .quiet = true, .patience_s = 60};
}

static inline struct train_result toy_train(const struct recipe *r, const struct train_opts *o)
{
    struct train_result res;
    struct err e = {0};
    if (train_run(r, o, &res, &e))
        fail_msg("%s", e.msg);
    return res;
}

/* A run from beginning to end into DIR/name. */
static inline void toy_whole(const struct toy_train *t, const char *name)
{
    char out[TOY_PATH];
    snprintf(out, sizeof out, "%s", toy_path(t->dir, name));
    struct train_opts o = toy_opts(out);
    toy_train(&t->r, &o);
}

/* The tensors of DIR/a/model.safetensors and DIR/b/model.safetensors, bit by bit. Their metadata
 * differ in times. */
static inline bool toy_equal(const struct toy_train *t, const char *a, const char *b,
                             const char **where)
{
    static char name[64];
    struct st_file x, y;
    struct err e = {0};
    bool equal = true;
    char pa[TOY_PATH + 32], pb[TOY_PATH + 32];
    snprintf(pa, sizeof pa, "%s/model.safetensors", toy_path(t->dir, a));
    snprintf(pb, sizeof pb, "%s/model.safetensors", toy_path(t->dir, b));
    if (st_open(&x, pa, &e) || st_open(&y, pb, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count && equal; i++) {
        assert_string_equal(x.tensor[i].name, y.tensor[i].name);
        assert_int_equal(x.tensor[i].nbytes, y.tensor[i].nbytes);
        snprintf(name, sizeof name, "%s", x.tensor[i].name);
        equal = memcmp(x.tensor[i].data, y.tensor[i].data, x.tensor[i].nbytes) == 0;
    }
    *where = name;
    st_close(&x);
    st_close(&y);
    return equal;
}

static inline void toy_same(const char *what, const struct toy_train *t, const char *a,
                            const char *b)
{
    const char *where;
    if (!toy_equal(t, a, b, &where))
        fail_msg("%s: %s differs", what, where);
}

static inline bool toy_exists(const char *dir, const char *name)
{
    return access(toy_path(dir, name), F_OK) == 0;
}

/* DIR/name/train.log; the caller frees. */
static inline char *toy_log(const struct toy_train *t, const char *name)
{
    char path[TOY_PATH + 32];
    size_t n;
    snprintf(path, sizeof path, "%s/train.log", toy_path(t->dir, name));
    return (char *)toy_read(path, &n);
}

#endif
