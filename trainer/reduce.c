/* reduce.c - see reduce.h. */
#include "trainer/reduce.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- who does what ---- */

void reduce_share(struct reduce_share *s, size_t micros, size_t grad_ranks, size_t rank,
                  size_t ranks)
{
    size_t groups = grad_ranks < micros ? grad_ranks : micros;
    struct split_range own = split_range(groups, ranks, rank);
    *s = (struct reduce_share){.groups = groups, .group = own};
    assert(own.count);
    struct split_range first = split_range(micros, groups, own.from);
    struct split_range last = split_range(micros, groups, own.from + own.count - 1);
    s->micro = (struct split_range){first.from, last.from + last.count - first.from};
    s->nodes = split_nodes(groups, own, s->node, &s->stack);
}

/* Sums that all ranks together come to. */
static size_t count_sums(size_t micros, size_t grad_ranks, size_t ranks)
{
    size_t n = 0;
    for (size_t i = 0; i < ranks; i++) {
        struct reduce_share s;
        reduce_share(&s, micros, grad_ranks, i, ranks);
        n += s.nodes;
    }
    return n;
}

size_t reduce_inbox(const struct piece_list *p, size_t micros, size_t grad_ranks)
{
    struct reduce_share s;
    reduce_share(&s, micros, grad_ranks, p->rank, p->ranks);
    return (count_sums(micros, grad_ranks, p->ranks) - s.nodes) * p->floats;
}

/* ---- setting up ---- */

static enum err_code init_sums(struct reduce *r, size_t grad_ranks, struct err *e)
{
    size_t ranks = r->p->ranks, pieces = r->p->pieces, n = 0;
    size_t all = count_sums(r->micros, grad_ranks, ranks);
    size_t bytes = reduce_inbox(r->p, r->micros, grad_ranks) * sizeof(float);
    r->sum = calloc(all, sizeof *r->sum);
    r->inbox_at = calloc(pieces, sizeof *r->inbox_at);
    r->order = calloc(pieces, sizeof *r->order);
    r->when = calloc(pieces, sizeof *r->when);
    r->bucket = calloc(pieces, sizeof *r->bucket);
    r->part = calloc(pieces * all, sizeof *r->part);
    r->inbox = r->k->alloc(r->k, bytes ? bytes : 1);
    if (!r->sum || !r->inbox_at || !r->order || !r->when || !r->bucket || !r->part || !r->inbox)
        return err_nomem(e, "gradients of other ranks", bytes);
    for (size_t i = 0; i < ranks; i++) {
        struct reduce_share s;
        reduce_share(&s, r->micros, grad_ranks, i, ranks);
        for (size_t j = 0; j < s.nodes; j++)
            r->sum[n++] = (struct sum){s.node[j], i};
    }
    r->sums = n;
    size_t at = 0;
    for (size_t i = 0; i < pieces; i++)
        if (r->p->piece[i].owner == r->p->rank) {
            r->inbox_at[i] = at;
            at += (r->sums - r->mine.nodes) * r->p->piece[i].n;
        }
    return ERR_OK;
}

enum err_code reduce_init(struct reduce *r, struct kern *k, struct comm *c,
                          const struct piece_list *p, float *grads, size_t floats, size_t micros,
                          size_t grad_ranks, struct err *e)
{
    enum err_code rc = ERR_OK;
    *r =
        (struct reduce){.k = k, .c = c, .p = p, .grads = grads, .floats = floats, .micros = micros};
    reduce_share(&r->mine, micros, grad_ranks, p->rank, p->ranks);
    for (size_t i = 0; i < r->mine.stack && !rc; i++)
        if (!(r->stack[i] = k->alloc(k, floats * sizeof *grads)))
            rc = err_nomem(e, "sums of gradients", floats * sizeof *grads);
    if (!rc && p->ranks > 1)
        rc = init_sums(r, grad_ranks, e);
    if (rc)
        reduce_free(r);
    return rc;
}

void reduce_free(struct reduce *r)
{
    for (size_t i = 0; i < SPLIT_NODES && r->k; i++)
        r->k->free(r->k, r->stack[i]);
    if (r->k)
        r->k->free(r->k, r->inbox);
    free(r->sum);
    free(r->inbox_at);
    free(r->order);
    free(r->when);
    free(r->bucket);
    free(r->part);
    *r = (struct reduce){0};
}

/* ---- buckets ---- */

static void touch(size_t *when, const struct gpt_param *p, ptrdiff_t at, size_t time)
{
    if (at >= 0 && (size_t)at >= p->at && (size_t)at < p->at + p->size && *when < time)
        *when = time;
}

/* When the backward pass is done with a parameter: after so many nodes; once more at the end for
 * what coefficients are made of. */
static size_t final_at(const struct graph *g, const struct gpt_param *p)
{
    size_t when = 0;
    for (size_t i = 0; i < g->nodes; i++)
        for (size_t j = 0; j < 2 && !g->node[i].dead; j++)
            touch(&when, p, g->node[i].p[j], g->nodes - i);
    for (size_t i = 0; i < g->coefs; i++) {
        touch(&when, p, g->coef[i].p0, g->nodes + 1);
        touch(&when, p, g->coef[i].p1, g->nodes + 1);
        touch(&when, p, g->coef[i].w, g->nodes + 1);
    }
    return when;
}

/* Pieces by the time at which they are final; an insertion sort, since the list is short and nearly
 * in reverse order of the block. */
static void sort_pieces(struct reduce *r)
{
    for (size_t i = 0; i < r->p->pieces; i++) {
        size_t j = i;
        for (; j > 0 && r->when[r->order[j - 1]] > r->when[i]; j--)
            r->order[j] = r->order[j - 1];
        r->order[j] = i;
    }
}

void reduce_buckets(struct reduce *r, const struct gpt *m, const struct graph *g)
{
    if (r->p->ranks == 1)
        return;
    memset(r->when, 0, r->p->pieces * sizeof *r->when);
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *q = &m->param[i];
        size_t when = final_at(g, q);
        for (size_t j = 0; j < r->p->pieces; j++) {
            const struct piece *p = &r->p->piece[j];
            if (p->at < q->at + q->size && q->at < p->at + p->n && r->when[j] < when)
                r->when[j] = when;
        }
    }
    sort_pieces(r);
    size_t floats = 0, share = r->floats / REDUCE_BUCKETS;
    size_t enough = share < REDUCE_BUCKET ? share : REDUCE_BUCKET;
    r->buckets = 0;
    for (size_t i = 0; i < r->p->pieces; i++) {
        if (!r->buckets || floats >= enough) {
            r->bucket[r->buckets++] = (struct bucket){.first = i};
            floats = 0;
        }
        struct bucket *b = &r->bucket[r->buckets - 1];
        b->count++;
        b->when = r->when[r->order[i]];
        floats += r->p->piece[r->order[i]].n;
    }
}

/* ---- sums of this rank ---- */

void reduce_begin(struct reduce *r)
{
    r->k->zero(r->k, r->grads, r->floats * sizeof *r->grads);
    r->nodes = r->done = r->next = 0;
    r->joins = 0;
    r->failed = ERR_OK;
    r->why = (struct err){0};
}

/* The group that micro-batch `micro` of the step belongs to. */
static size_t group_of(const struct reduce *r, size_t micro)
{
    return split_part(r->micros, r->mine.groups, micro);
}

bool reduce_last(const struct reduce *r)
{
    return r->done + 1 == r->mine.micro.count;
}

bool reduce_closes(const struct reduce *r, struct split_range *micros)
{
    size_t at = r->mine.micro.from + r->done;
    *micros = split_range(r->micros, r->mine.groups, group_of(r, at));
    return at + 1 == micros->from + micros->count;
}

/* Floats at..at+n of the newest group are added to the sums that it completes. */
static void join(struct reduce *r, size_t joins, size_t at, size_t n)
{
    for (size_t i = 0; i < joins; i++)
        r->k->add(r->k, r->grads + at, r->stack[r->nodes - 1 - i] + at, n);
}

/* The nodes that there are with one more group, into node; returns how many it is added to. */
static size_t with_group(const struct reduce *r, size_t group, struct split_node *node, size_t *n)
{
    *n = r->nodes;
    memcpy(node, r->node, r->nodes * sizeof *node);
    return split_push(r->mine.groups, node, n, group);
}

/* The last group is added to others piece by piece, as its pieces become final. */
static void last_group(struct reduce *r)
{
    struct split_node node[SPLIT_NODES];
    size_t n;
    r->joins = with_group(r, r->mine.group.from + r->mine.group.count - 1, node, &n);
}

void reduce_micro(struct reduce *r)
{
    struct split_node node[SPLIT_NODES];
    struct split_range micros;
    size_t n, bytes = r->floats * sizeof *r->grads;
    bool closes = reduce_closes(r, &micros);
    r->done++;
    if (!closes || r->done == r->mine.micro.count)
        return;
    size_t group = group_of(r, r->mine.micro.from + r->done - 1);
    join(r, with_group(r, group, node, &n), 0, r->floats);
    memcpy(r->node, node, n * sizeof *node);
    r->nodes = n;
    r->k->copy(r->k, r->stack[n - 1], r->grads, bytes);
    r->k->zero(r->k, r->grads, bytes);
}

/* ---- exchange ---- */

/* The place of sum j of this rank, the last of which is in grads. */
static float *own_sum(const struct reduce *r, size_t j)
{
    return j + 1 == r->mine.nodes ? r->grads : r->stack[j];
}

/* The parts of one piece: its sums leave for its owner, or those of the others arrive. */
static size_t piece_parts(const struct reduce *r, size_t i, struct comm_part *part)
{
    const struct piece *p = &r->p->piece[i];
    size_t n = 0, bytes = p->n * sizeof(float);
    if (p->owner != r->p->rank) {
        for (size_t j = 0; j < r->mine.nodes; j++)
            part[n++] = (struct comm_part){p->owner, true, own_sum(r, j) + p->at, bytes};
        return n;
    }
    float *to = r->inbox + r->inbox_at[i];
    for (size_t j = 0; j < r->sums; j++)
        if (r->sum[j].rank != r->p->rank) {
            part[n++] = (struct comm_part){r->sum[j].rank, false, to, bytes};
            to += p->n;
        }
    return n;
}

static void start_bucket(struct reduce *r, struct bucket *b)
{
    size_t n = 0;
    for (size_t i = b->first; i < b->first + b->count; i++) {
        const struct piece *p = &r->p->piece[r->order[i]];
        join(r, r->joins, p->at, p->n);
        n += piece_parts(r, r->order[i], r->part + n);
    }
    if (!r->failed)
        r->failed = comm_start(r->c, r->part, n, &b->batch, &r->why);
}

void reduce_done(void *reduce, size_t nodes)
{
    struct reduce *r = reduce;
    if (r->next == 0)
        last_group(r);
    while (r->next < r->buckets && r->bucket[r->next].when <= nodes)
        start_bucket(r, &r->bucket[r->next++]);
    comm_test(r->c);
}

/* All sums of an own piece, added up as the tree says, in the place of one of the two. What is in
 * grads stays there, so in the end the sum is in grads. */
static void fold(struct reduce *r, size_t i)
{
    const struct piece *p = &r->p->piece[i];
    struct split_node node[SPLIT_NODES];
    float *at[SPLIT_NODES], *in = r->inbox + r->inbox_at[i], *grads = r->grads + p->at;
    size_t n = 0, own = 0;
    for (size_t j = 0; j < r->sums; j++) {
        struct split_node last = r->sum[j].node;
        float *x = in;
        if (r->sum[j].rank == r->p->rank)
            x = own_sum(r, own++) + p->at;
        else
            in += p->n;
        while (n && split_siblings(r->mine.groups, node[n - 1], last)) {
            float *left = at[--n], *to = left == grads ? left : x;
            r->k->add(r->k, to, to == x ? left : x, p->n);
            x = to;
            last.from = node[n].from;
        }
        assert(n < SPLIT_NODES);
        node[n] = last;
        at[n++] = x;
    }
    assert(n == 1 && at[0] == grads);
}

enum err_code reduce_end(struct reduce *r, struct err *e)
{
    if (r->p->ranks == 1) {
        last_group(r);
        join(r, r->joins, 0, r->floats);
        return ERR_OK;
    }
    reduce_done(r, SIZE_MAX);
    for (size_t i = 0; i < r->buckets; i++) {
        struct bucket *b = &r->bucket[i];
        struct err why = {0};
        enum err_code rc = comm_wait(r->c, &b->batch, &why);
        if (!r->failed && rc) {
            r->failed = rc;
            r->why = why;
        }
        for (size_t j = b->first; j < b->first + b->count && !r->failed; j++)
            if (r->p->piece[r->order[j]].owner == r->p->rank)
                fold(r, r->order[j]);
    }
    return r->failed ? err_set(e, r->failed, "%s", r->why.msg) : ERR_OK;
}
