/*
 * tiny.h - small models for tests: a recipe from a line of settings, random parameters (none of
 * them at a value where a gradient vanishes), random tokens, and a run of one batch.
 */
#ifndef TESTS_UNIT_TINY_H
#define TESTS_UNIT_TINY_H

#include <math.h>

#include "model/gpt.h"
#include "tests/unit/util.h"

/* What every tiny model starts from; settings of a case come behind it and win. */
#define TINY_RECIPE                                                                                \
    "VOCAB_SIZE=37\nNUM_LAYERS=3\nMODEL_DIM=24\nNUM_HEADS=4\nNUM_KV_HEADS=2\nMLP_MULT=2\n"         \
    "TRAIN_SEQ_LEN=16\nEVAL_STRIDE=4\n"

struct tiny {
    struct gpt m;
    struct kern *k;
    float *params; /* backend memory, which on the CPU is ours */
};

static inline void tiny_recipe(struct recipe *r, const char *settings)
{
    struct err e = {0};
    recipe_init(r);
    if (recipe_parse(r, TINY_RECIPE, strlen(TINY_RECIPE), "tiny", false, &e) ||
        recipe_parse(r, settings, strlen(settings), "case", false, &e))
        fail_msg("%s: %s", settings, e.msg);
}

/* Matrices keep a unit variance, scales lie around 1, the rest is of size 1: every operation works
 * in its usual range and no gradient is zero by symmetry. */
static inline void tiny_randomise(const struct gpt *m, float *params, uint64_t seed)
{
    uint64_t s = seed;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        bool matrix = p->cls == PARAM_MATRIX;
        double size = matrix                    ? 1.7 / sqrt((double)p->shape[1])
                      : p->cls == PARAM_CONTROL ? 0.4
                                                : 0.6;
        for (size_t j = 0; j < p->size; j++)
            params[p->at + j] =
                (float)(size * util_uniform(&s) + (p->cls == PARAM_CONTROL ? 0.8 : 0));
    }
}

static inline struct tiny tiny_open(const char *settings, size_t threads, uint64_t seed)
{
    struct tiny t = {0};
    struct recipe r;
    struct err e = {0};
    tiny_recipe(&r, settings);
    if (gpt_init(&t.m, &r, &e) || kern_cpu(&t.k, threads, &e))
        fail_msg("%s: %s", settings, e.msg);
    t.params = t.k->alloc(t.k, t.m.floats * sizeof(float));
    assert_non_null(t.params);
    tiny_randomise(&t.m, t.params, seed);
    return t;
}

static inline void tiny_close(struct tiny *t)
{
    t->k->free(t->k, t->params);
    kern_free(t->k);
    gpt_free(&t->m);
}

/* n + 1 random tokens: ids are tok[0..n), targets tok[1..n]. malloc'ed. */
static inline uint16_t *tiny_tokens(const struct tiny *t, size_t n, uint64_t seed)
{
    uint16_t *tok = malloc((n + 1) * sizeof *tok);
    uint64_t s = seed;
    if (!tok)
        abort();
    for (size_t i = 0; i <= n; i++)
        tok[i] = (uint16_t)util_below(&s, (size_t)t->m.r.vocab_size);
    return tok;
}

/* The model planned for a shape. */
static inline void tiny_plan(const struct tiny *t, struct graph *g, size_t batch, size_t len,
                             size_t from, bool training)
{
    struct err e = {0};
    graph_init(g);
    gpt_graph(&t->m, g, true);
    if (graph_plan(g, t->k, batch, len, from, training, &e))
        fail_msg("%s", e.msg);
}

/* One run over `batch` sequences of tok, len apart; nll [batch][len - from]. */
static inline void tiny_forward(struct tiny *t, struct graph *g, const uint16_t *tok, float *nll)
{
    size_t scored = g->t - g->from;
    uint16_t *target = malloc(g->batch * scored * sizeof *target);
    struct err e = {0};
    if (!target)
        abort();
    for (size_t b = 0; b < g->batch; b++)
        memcpy(target + b * scored, tok + b * g->t + g->from + 1, scored * sizeof *target);
    if (graph_forward(g, t->params, tok, target, nll, &e))
        fail_msg("%s", e.msg);
    free(target);
}

#endif
