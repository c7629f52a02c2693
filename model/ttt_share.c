/*
 * ttt_share.c - steps of test-time training taken by several processes: see ttt.h.
 *
 * Every rank has the gradients of neighbouring rows, added up to the nodes of the tree that lie
 * within them. First the ranks say whether they are well. Then each of them receives of all nodes
 * its share of the floats, adds them up in the tree's order and sends the result to the others. So
 * after a step all have the same gradient, and what follows from it (the norm, clipping, momentum,
 * the weights) each computes for itself.
 */
#include "model/ttt.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A node of the tree that a rank comes to: its last row, and the half at which joining stopped. */
struct node {
    size_t rank, last, half;
    float *at; /* this rank's share of its floats */
};

/* What ranks say before a step. */
struct word {
    struct err e;
    double loss;
};

struct ttt_share {
    const struct score_share *with;
    struct word *all;        /* [ranks] */
    struct node *node;       /* [rows of the longest step] */
    struct score_part *part; /* [most parts of an exchange] */
    float *inbox;            /* nodes of the others, backend memory */
};

/* First float of rank r's share, r <= ranks. */
static size_t begin(const struct ttt *t, const struct score_share *h, size_t r)
{
    return t->stride / TTT_ALIGN * r / h->ranks * TTT_ALIGN;
}

/* First row of rank r, r <= ranks: longer ranges come first, as in trainer/split.h. */
static size_t first_row(const struct score_share *h, size_t rows, size_t r)
{
    size_t longer = rows % h->ranks;
    return rows / h->ranks * r + (r < longer ? r : longer);
}

void ttt_share_rows(const struct ttt *t, size_t rows, size_t *from, size_t *to)
{
    const struct score_share *h = t->share->with;
    *from = first_row(h, rows, h->rank);
    *to = first_row(h, rows, h->rank + 1);
}

/* Rows of the longest step, and of the one that a chunk may end with (0: of none). */
static void steps(const struct recipe *r, size_t rows[2])
{
    size_t chunk = (size_t)r->ttt_chunk_tokens / recipe_eval_len(r);
    size_t batch = (size_t)r->ttt_batch_seqs;
    rows[0] = chunk < batch ? chunk : batch;
    rows[1] = chunk % rows[0];
}

size_t ttt_share_blocks(const struct recipe *r, const struct score_share *h)
{
    size_t rows[2], most = 1;
    steps(r, rows);
    for (size_t s = 0; s < 2; s++) {
        size_t top = 0, from = first_row(h, rows[s], h->rank);
        for (size_t i = from; i < first_row(h, rows[s], h->rank + 1); i++) {
            most = ++top > most ? top : most;
            for (size_t half = 1; top > 1 && ttt_joins(rows[s], from, i, half); half *= 2)
                top -= (i & half) != 0;
        }
    }
    return most;
}

/* The nodes of all ranks, from left to right; *own of them are this rank's. Returns how many. */
static size_t list(const struct score_share *h, size_t rows, struct node *node, size_t *own)
{
    size_t n = 0;
    for (size_t r = 0; r < h->ranks; r++) {
        size_t first = n, from = first_row(h, rows, r);
        for (size_t i = from; i < first_row(h, rows, r + 1); i++) {
            size_t half = 1;
            for (n++; n - first > 1 && ttt_joins(rows, from, i, half); half *= 2)
                n -= (i & half) != 0;
            node[n - 1] = (struct node){.rank = r, .last = i, .half = half};
        }
        if (r == h->rank)
            *own = n - first;
    }
    return n;
}

/* ---- opening ---- */

/* Room for steps of `rows`: floats of the inbox and parts of an exchange. */
static void measure(const struct ttt *t, const struct score_share *h, size_t rows,
                    struct node *node, size_t *floats, size_t *parts)
{
    size_t own = 0, nodes = list(h, rows, node, &own);
    size_t in = (nodes - own) * (begin(t, h, h->rank + 1) - begin(t, h, h->rank));
    size_t first = own * (h->ranks - 1) + nodes - own, second = 2 * (h->ranks - 1);
    *floats = in > *floats ? in : *floats;
    *parts = first > *parts ? first : *parts;
    *parts = second > *parts ? second : *parts;
}

static enum err_code room(struct ttt *t, const struct score_share *h, struct err *e)
{
    size_t rows[2], floats = 1, parts = 1;
    struct ttt_share *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, "shared training", sizeof *s);
    steps(&t->m->r, rows);
    t->share = s;
    s->with = h;
    s->all = malloc(h->ranks * sizeof *s->all);
    s->node = malloc(rows[0] * sizeof *s->node);
    if (!s->all || !s->node)
        return err_nomem(e, "shared training", rows[0] * sizeof *s->node);
    measure(t, h, rows[0], s->node, &floats, &parts);
    measure(t, h, rows[1], s->node, &floats, &parts);
    s->part = malloc(parts * sizeof *s->part);
    s->inbox = t->k->alloc(t->k, floats * sizeof *s->inbox);
    if (!s->part || !s->inbox)
        return err_nomem(e, "gradients of other ranks", floats * sizeof *s->inbox);
    return ERR_OK;
}

enum err_code ttt_share_open(struct ttt *t, const struct scorer *s, struct err *e)
{
    const struct score_share *h = s->o->share;
    struct err word = {0};
    uint8_t *all = malloc(h->ranks * sizeof word);
    enum err_code rc;
    if (!ttt_open_among(t, s->m, s->k, s->params, h, &word))
        room(t, h, &word);
    rc = all ? h->gather(h->ctx, all, &word, sizeof word, e)
             : err_nomem(e, "what the ranks say", h->ranks * sizeof word);
    if (!rc)
        rc = share_hear(h, all, sizeof word, e);
    if (rc)
        ttt_close(t);
    free(all);
    return rc;
}

void ttt_share_close(struct ttt *t)
{
    struct ttt_share *s = t->share;
    if (!s)
        return;
    t->k->free(t->k, s->inbox);
    free(s->all);
    free(s->node);
    free(s->part);
    free(s);
}

/* ---- a step ---- */

enum err_code ttt_share_agree(struct ttt *t, double *loss, struct err *e)
{
    struct ttt_share *s = t->share;
    const struct score_share *h = s->with;
    struct word mine;
    enum err_code rc;
    memset(&mine, 0, sizeof mine);
    mine.e = t->word;
    mine.loss = loss ? *loss : 0;
    if ((rc = h->gather(h->ctx, s->all, &mine, sizeof mine, e)) ||
        (rc = share_hear(h, (const uint8_t *)s->all, sizeof mine, e)))
        return rc;
    if (loss)
        *loss = 0;
    for (size_t r = 0; r < h->ranks && loss; r++)
        *loss += s->all[r].loss;
    return ERR_OK;
}

/* All nodes' floats of this rank's share, into `to`; the nodes' memory is used up. */
static void fold(struct ttt *t, size_t rows, size_t nodes, float *to, size_t floats)
{
    struct node *node = t->share->node;
    size_t top = 0;
    for (size_t i = 0; i < nodes; i++) {
        struct node n = node[i];
        node[top++].at = n.at; /* a stack of those that wait, where all have been */
        for (size_t half = n.half; top > 1 && ttt_joins(rows, 0, n.last, half); half *= 2)
            if (n.last & half) {
                top--;
                t->k->add(t->k, node[top - 1].at, node[top].at, floats);
            }
    }
    assert(top == 1);
    if (node[0].at != to)
        t->k->copy(t->k, to, node[0].at, floats * sizeof *to);
}

enum err_code ttt_share_sum(struct ttt *t, size_t rows, double *loss, struct err *e)
{
    struct ttt_share *s = t->share;
    const struct score_share *h = s->with;
    size_t me = h->rank, at = begin(t, h, me), floats = begin(t, h, me + 1) - at;
    size_t bytes = floats * sizeof(float), own = 0, n = 0, mine = 0;
    float *in = s->inbox;
    enum err_code rc = ttt_share_agree(t, loss, e);
    if (rc)
        return rc;
    size_t nodes = list(h, rows, s->node, &own);
    for (size_t r = 0; r < h->ranks; r++)
        for (size_t j = 0; j < own && r != me; j++) {
            size_t from = begin(t, h, r), count = begin(t, h, r + 1) - from;
            s->part[n++] = (struct score_part){r, true, t->grads + j * t->stride + from,
                                               count * sizeof(float)};
        }
    for (size_t i = 0; i < nodes; i++) {
        struct node *d = &s->node[i];
        if (d->rank == me) {
            d->at = t->grads + mine++ * t->stride + at;
        } else {
            d->at = in;
            in += floats;
            s->part[n++] = (struct score_part){d->rank, false, d->at, bytes};
        }
    }
    if ((rc = h->swap(h->ctx, s->part, n, e)))
        return rc;
    fold(t, rows, nodes, t->grads + at, floats);
    n = 0;
    for (size_t r = 0; r < h->ranks; r++) {
        size_t from = begin(t, h, r), count = begin(t, h, r + 1) - from;
        if (r == me)
            continue;
        s->part[n++] = (struct score_part){r, true, t->grads + at, bytes};
        s->part[n++] = (struct score_part){r, false, t->grads + from, count * sizeof(float)};
    }
    return h->swap(h->ctx, s->part, n, e);
}
