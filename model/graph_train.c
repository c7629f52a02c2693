/* graph_train.c - runs of a training plan that do not wait for the device, and tapes of them. */
#include <string.h>

#include "model/graph.h"

/* Does anybody want to be called on the way? */
static bool observed(const struct graph *g)
{
    return g->tap || g->done;
}

/* Play what graph_carry_out would do; false where there is nothing to play. */
static bool play(struct graph *g, const float *params, float *grads, float gscale)
{
    struct kern *k = g->k;
    struct graph_tape *t = &g->tape;
    if (!k->record || observed(g))
        return false;
    if (t->params != params || t->grads != grads || memcmp(&t->gscale, &gscale, sizeof gscale)) {
        k->forget(k, t->tape);
        *t = (struct graph_tape){NULL, params, grads, gscale};
        return false; /* the first time everything is carried out, as `record` demands */
    }
    if (!t->tape && k->record(k)) {
        graph_carry_out(g, params, grads, gscale);
        t->tape = k->recorded(k);
    }
    return t->tape && k->play(k, t->tape);
}

/* The first call decides how values are stored. */
static void count_call(struct graph *g)
{
    if (!g->trained++) {
        graph_halves(g);
        graph_join(g);
    }
}

static void sum_up(struct graph *g, double *loss)
{
    g->k->sum_into(g->k, loss, g->block + g->value[g->nll].at, g->batch * (g->t - g->from));
}

void graph_train(struct graph *g, const float *params, const uint16_t *ids, const uint16_t *target,
                 float *grads, float gscale, double *loss)
{
    graph_tokens_in(g, ids, target);
    count_call(g);
    if (play(g, params, grads, gscale)) {
        g->played++;
        g->forward_s = 0;
    } else {
        graph_carry_out(g, params, grads, gscale);
    }
    sum_up(g, loss);
}

/* Other places for the tokens; returns those before. */
static struct graph_tokens tokens_at(struct graph *g, const struct graph_tokens *at)
{
    struct graph_tokens before = {g->ids, g->hashed, g->target};
    g->ids = at->ids;
    g->hashed = at->hashed;
    g->target = at->target;
    return before;
}

void graph_stage(struct graph *g, const struct graph_tokens *to, const uint16_t *ids,
                 const uint16_t *target)
{
    struct graph_tokens own = tokens_at(g, to);
    graph_tokens_in(g, ids, target);
    tokens_at(g, &own);
}

void graph_train_staged(struct graph *g, const float *params, const struct graph_tokens *from,
                        float *grads, float gscale, double *loss)
{
    struct graph_tokens own = tokens_at(g, from);
    count_call(g);
    graph_carry_out(g, params, grads, gscale);
    sum_up(g, loss);
    tokens_at(g, &own);
}
