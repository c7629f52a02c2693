/* spread.c - see spread.h. */
#include "trainer/spread.h"

#include <stdlib.h>

enum err_code spread_init(struct spread *s, struct kern *k, struct comm *c,
                          const struct piece_list *p, struct err *e)
{
    size_t parts = (p->stretches + 1) * p->ranks;
    *s = (struct spread){.k = k, .c = c, .p = p};
    if (!(s->part = calloc(parts, sizeof *s->part)))
        return err_nomem(e, "exchange", parts * sizeof *s->part);
    return ERR_OK;
}

void spread_free(struct spread *s)
{
    free(s->part);
    *s = (struct spread){0};
}

static bool alone(const struct spread *s)
{
    return s->p->ranks == 1;
}

/* The first n parts, to their end. */
static enum err_code exchange(struct spread *s, size_t n, struct err *e)
{
    enum err_code rc = comm_start(s->c, s->part, n, &s->batch, e);
    return rc ? rc : comm_wait(s->c, &s->batch, e);
}

static void add_part(struct spread *s, size_t *n, size_t peer, bool send, float *at, size_t floats)
{
    s->part[(*n)++] = (struct comm_part){peer, send, at, floats * sizeof *at};
}

enum err_code spread_start(struct spread *s, float *block, struct err *e)
{
    size_t n = 0;
    if (alone(s))
        return ERR_OK;
    for (size_t i = 0; i < s->p->stretches; i++) {
        const struct stretch *t = &s->p->stretch[i];
        if (t->owner != s->p->rank) {
            add_part(s, &n, t->owner, false, block + t->at, t->n);
            continue;
        }
        /* Each begins with the next rank, so that not all of them send to the same one first. */
        for (size_t r = 1; r < s->p->ranks; r++)
            add_part(s, &n, (s->p->rank + r) % s->p->ranks, true, block + t->at, t->n);
    }
    return comm_start(s->c, s->part, n, &s->batch, e);
}

enum err_code spread_wait(struct spread *s, struct err *e)
{
    return alone(s) ? ERR_OK : comm_wait(s->c, &s->batch, e);
}

void spread_pack(struct spread *s, float *packed, const float *block)
{
    for (size_t i = 0; i < s->p->stretches; i++) {
        const struct stretch *t = &s->p->stretch[i];
        if (t->owner == s->p->rank)
            s->k->copy(s->k, packed + t->local, block + t->at, t->n * sizeof *block);
    }
}

void spread_unpack(struct spread *s, float *block, const float *packed)
{
    for (size_t i = 0; i < s->p->stretches; i++) {
        const struct stretch *t = &s->p->stretch[i];
        if (t->owner == s->p->rank)
            s->k->copy(s->k, block + t->at, packed + t->local, t->n * sizeof *block);
    }
}

/* The others' pieces: with rank 0 as reader, or the other way round. Rank 0 has them in block. */
static enum err_code with_root(struct spread *s, float *block, float *packed, bool collect,
                               struct err *e)
{
    size_t n = 0;
    if (alone(s))
        return ERR_OK;
    for (size_t i = 0; i < s->p->stretches; i++) {
        const struct stretch *t = &s->p->stretch[i];
        if (t->owner && s->p->rank == 0)
            add_part(s, &n, t->owner, !collect, block + t->at, t->n);
        else if (t->owner && t->owner == s->p->rank)
            add_part(s, &n, 0, collect, packed + t->local, t->n);
    }
    return exchange(s, n, e);
}

enum err_code spread_collect(struct spread *s, float *block, const float *packed, struct err *e)
{
    if (s->p->rank == 0)
        spread_unpack(s, block, packed);
    return with_root(s, block, (float *)(uintptr_t)packed, true, e);
}

enum err_code spread_deal(struct spread *s, float *block, float *packed, struct err *e)
{
    enum err_code rc = with_root(s, block, packed, false, e);
    if (s->p->rank == 0)
        spread_pack(s, packed, block);
    return rc;
}

enum err_code spread_same(struct spread *s, float *block, size_t n, struct err *e)
{
    size_t parts = 0;
    if (alone(s))
        return ERR_OK;
    if (s->p->rank)
        add_part(s, &parts, 0, false, block, n);
    for (size_t r = 1; r < s->p->ranks && s->p->rank == 0; r++)
        add_part(s, &parts, r, true, block, n);
    return exchange(s, parts, e);
}
