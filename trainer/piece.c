/* piece.c - see piece.h. */
#include "trainer/piece.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups ---- */

const char *const optim_group_name[OPTIM_GROUPS] = {"muon", "embed", "head", "scalar"};

enum optim_group optim_group_of(const struct recipe *r, const struct gpt_param *p)
{
    switch (p->cls) {
    case PARAM_MATRIX:
        return OPTIM_MUON;
    case PARAM_PROJ:
        return strcmp(r->proj_optimizer, "adamw") == 0 ? OPTIM_SCALAR : OPTIM_MUON;
    case PARAM_EMBED:
        return OPTIM_EMBED;
    case PARAM_HEAD:
        return OPTIM_HEAD;
    case PARAM_CONTROL:
        break;
    }
    return OPTIM_SCALAR;
}

/* ---- pieces ---- */

static int by_place(const void *a, const void *b)
{
    const struct gpt_param *const *x = a, *const *y = b;
    return (*x)->at < (*y)->at ? -1 : (*x)->at > (*y)->at;
}

/* The pieces of a parameter behind `n` others, of which *last is the last; out NULL: they are only
 * counted. */
static size_t cut(const struct recipe *r, const struct gpt_param *p, struct piece *last,
                  struct piece *out, size_t n)
{
    enum optim_group group = optim_group_of(r, p);
    bool muon = group == OPTIM_MUON;
    assert(!muon || p->ndim == 2 || p->ndim == 3);
    size_t rows = muon ? p->shape[p->ndim - 2] : 0, cols = muon ? p->shape[p->ndim - 1] : 0;
    for (size_t at = p->at, end = at + p->size; at < end;) {
        size_t room = muon ? rows * cols : PIECE_FLOATS;
        if (!muon && n && last->group == group && last->n < room) {
            room -= last->n;
        } else {
            *last = (struct piece){.group = group, .at = at, .rows = rows, .cols = cols};
            n++;
        }
        size_t take = room < end - at ? room : end - at;
        last->n += take;
        at += take;
        if (out)
            out[n - 1] = *last;
    }
    return n;
}

static size_t cut_all(const struct recipe *r, const struct gpt_param *const *p, size_t params,
                      struct piece *out)
{
    struct piece last = {0};
    size_t n = 0;
    for (size_t i = 0; i < params; i++)
        n = cut(r, p[i], &last, out, n);
    return n;
}

/* ---- owners ---- */

/* What an update costs, in operations: a step of Newton-Schulz on r x c, r <= c, is two products of
 * r*r*c multiply-adds, the first of a symmetric result, and one of r*r*r. What passes over each
 * float (momentum, decay, moments, averages: some 40 bytes) counts as PASS operations. */
static double cost(const struct piece *p, double steps)
{
    enum { PASS = 200 };
    double n = (double)p->n, r = (double)(p->rows < p->cols ? p->rows : p->cols);
    double c = (double)(p->rows < p->cols ? p->cols : p->rows);
    return PASS * n + (p->group == OPTIM_MUON ? steps * (3 * r * r * c + 2 * r * r * r) : 0);
}

struct priced {
    double cost;
    size_t i;
};

static int by_cost(const void *a, const void *b)
{
    const struct priced *x = a, *y = b;
    if (x->cost > y->cost || x->cost < y->cost)
        return x->cost > y->cost ? -1 : 1;
    return x->i < y->i ? -1 : 1;
}

static void give(struct piece_list *l, struct priced *priced, double *load, double steps)
{
    for (size_t i = 0; i < l->pieces; i++)
        priced[i] = (struct priced){cost(&l->piece[i], steps), i};
    qsort(priced, l->pieces, sizeof *priced, by_cost);
    for (size_t i = 0; i < l->pieces; i++) {
        size_t least = 0;
        for (size_t r = 1; r < l->ranks; r++)
            if (load[r] < load[least])
                least = r;
        load[least] += priced[i].cost;
        l->piece[priced[i].i].owner = least;
    }
}

/* Places in the packed blocks, stretches, and the numbers of a list with owners. */
static void pack(struct piece_list *l, size_t *used, size_t *owned)
{
    for (size_t i = 0; i < l->pieces; i++) {
        struct piece *p = &l->piece[i];
        struct stretch *last = l->stretches ? &l->stretch[l->stretches - 1] : NULL;
        p->local = used[p->owner];
        used[p->owner] += p->n;
        if (++owned[p->owner] > l->most)
            l->most = owned[p->owner];
        if (last && last->owner == p->owner && last->at + last->n == p->at)
            last->n += p->n;
        else
            l->stretch[l->stretches++] = (struct stretch){p->owner, p->at, p->local, p->n};
    }
    l->floats = used[l->rank];
}

enum err_code piece_list(struct piece_list *l, const struct gpt *m, size_t rank, size_t ranks,
                         struct err *e)
{
    const struct gpt_param **param = calloc(m->nparams + 1, sizeof *param);
    size_t *used = calloc(2 * ranks, sizeof *used);
    double *load = calloc(ranks, sizeof *load);
    struct priced *priced = NULL;
    enum err_code rc = ERR_OK;
    *l = (struct piece_list){.rank = rank, .ranks = ranks};
    if (param && used && load) {
        for (size_t i = 0; i < m->nparams; i++)
            param[i] = &m->param[i];
        qsort(param, m->nparams, sizeof *param, by_place);
        l->pieces = cut_all(&m->r, param, m->nparams, NULL);
        l->piece = calloc(l->pieces + 1, sizeof *l->piece);
        l->stretch = calloc(l->pieces + 1, sizeof *l->stretch);
        priced = calloc(l->pieces + 1, sizeof *priced);
    }
    if (l->piece && l->stretch && priced) {
        cut_all(&m->r, param, m->nparams, l->piece);
        give(l, priced, load, (double)m->r.muon_backend_steps);
        pack(l, used, used + ranks);
    } else {
        rc = err_nomem(e, "pieces of the parameters", m->nparams * sizeof *l->piece);
        piece_free(l);
    }
    free(param);
    free(used);
    free(load);
    free(priced);
    return rc;
}

void piece_free(struct piece_list *l)
{
    free(l->piece);
    free(l->stretch);
    *l = (struct piece_list){0};
}
