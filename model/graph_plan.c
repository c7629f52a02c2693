/*
 * graph_plan.c - which operation runs on which rows, and where every value lives.
 *
 * Four passes over the static list of nodes:
 *   prune    backwards: what nothing reads is dead; what only scored rows need becomes "tail"
 *   rewrite  forwards: where a tail operation reads a complete value, a take is put before it
 *   lives    first and last use of every value, and which gradients are added to
 *   place    a first-fit walk over the lifetimes gives offsets in one block
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph.h"

enum need { NEED_NONE, NEED_TAIL, NEED_ALL };

/* A value no longer alive; its place may be taken. Spans are in floats, multiples of 16 (64 bytes).
 */
struct place {
    struct span {
        size_t at, size;
    } * live;
    size_t count, cap, top;
    bool failed;
};

static size_t rows_of(const struct graph *g, bool tail)
{
    return g->batch * (g->t - (tail ? g->from : 0));
}

static size_t span_of(const struct graph *g, const struct graph_value *v)
{
    return (v->width * rows_of(g, v->tail) + 15) & ~(size_t)15;
}

/* The lowest offset at which `size` floats are free. live[] is sorted by offset. */
static ptrdiff_t place_take(struct place *p, size_t size)
{
    size_t at = 0, i = 0;
    if (p->count == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 64;
        struct span *s = realloc(p->live, cap * sizeof *s);
        if (!s) {
            p->failed = true;
            return 0;
        }
        p->live = s;
        p->cap = cap;
    }
    while (i < p->count && p->live[i].at - at < size) {
        at = p->live[i].at + p->live[i].size;
        i++;
    }
    memmove(p->live + i + 1, p->live + i, (p->count - i) * sizeof *p->live);
    p->live[i] = (struct span){at, size};
    p->count++;
    if (at + size > p->top)
        p->top = at + size;
    return (ptrdiff_t)at;
}

static void place_give(struct place *p, ptrdiff_t at)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->live[i].at == (size_t)at) {
            memmove(p->live + i, p->live + i + 1, (p->count - i - 1) * sizeof *p->live);
            p->count--;
            return;
        }
}

/* ---- prune ---- */

static void need_value(unsigned char *need, int v, enum need n)
{
    if (v != GRAPH_NONE && need[v] < n)
        need[v] = (unsigned char)n;
}

static enum err_code prune(struct graph *g, struct err *e)
{
    unsigned char *need = calloc(g->values + 1, 1);
    if (!need)
        return err_nomem(e, "graph plan", g->values);
    for (size_t i = g->nodes; i-- > 0;) {
        struct graph_node *n = &g->node[i];
        enum need out = NEED_NONE;
        if (n->op == OP_HEAD)
            out = g->from ? NEED_TAIL : NEED_ALL;
        for (int o = 0; o < GRAPH_OUTS; o++)
            if (n->out[o] != GRAPH_NONE && need[n->out[o]] > out)
                out = need[n->out[o]];
        /* What looks at tokens or at the row before runs on whole sequences. */
        if (out == NEED_TAIL && (n->op == OP_EMBED || n->op == OP_SHIFT))
            out = NEED_ALL;
        n->dead = out == NEED_NONE;
        n->tail = out == NEED_TAIL;
        for (int j = 0; j < GRAPH_INS && !n->dead; j++)
            need_value(need, n->in[j], n->op == OP_ATTN && j > 0 ? NEED_ALL : out);
        for (int o = 0; o < GRAPH_OUTS; o++)
            if (n->out[o] != GRAPH_NONE)
                g->value[n->out[o]].tail = n->tail;
    }
    free(need);
    return ERR_OK;
}

/* ---- rewrite ---- */

/* Copy the node list, inserting takes. taken[v] is the tail copy of complete value v, once it
 * exists. */
static enum err_code insert_takes(struct graph *g, struct err *e)
{
    size_t count = 0, most = g->nodes + g->values; /* at most one take for each value */
    struct graph_node *list;
    struct graph_value *p;
    int *taken;
    if (!g->from)
        return ERR_OK;
    list = malloc(most * sizeof *list);
    taken = malloc(g->values * sizeof *taken);
    p = realloc(g->value, 2 * g->values * sizeof *p);
    g->value = p ? p : g->value;
    if (!list || !taken || !p) {
        free(list);
        free(taken);
        return err_nomem(e, "graph plan", most * sizeof *list);
    }
    g->value_cap = 2 * g->values;
    memset(taken, 0xff, g->values * sizeof *taken); /* GRAPH_NONE */
    for (size_t i = 0; i < g->nodes; i++) {
        struct graph_node n = g->node[i];
        for (int j = 0; j < GRAPH_INS && n.tail; j++) {
            int v = n.in[j];
            if (v == GRAPH_NONE || p[v].tail || (n.op == OP_ATTN && j > 0))
                continue;
            if (taken[v] == GRAPH_NONE) {
                p[g->values] = (struct graph_value){.width = p[v].width, .tail = true};
                taken[v] = (int)g->values++;
                list[count++] = (struct graph_node){.op = OP_TAKE,
                                                    .in = {v, GRAPH_NONE, GRAPH_NONE},
                                                    .out = {taken[v], GRAPH_NONE, GRAPH_NONE},
                                                    .p = {GRAPH_NONE, GRAPH_NONE},
                                                    .n_in = p[v].width,
                                                    .tail = true};
            }
            n.in[j] = taken[v];
        }
        list[count++] = n;
    }
    free(taken);
    free(g->node);
    g->node = list;
    g->nodes = count;
    g->node_cap = count;
    return ERR_OK;
}
_Static_assert(GRAPH_NONE == -1, "insert_takes fills with it");

/* ---- lives ---- */

static void keep(struct graph *g, int v)
{
    if (v != GRAPH_NONE)
        g->value[v].keep = true;
}

/* What the backward of a node reads besides gradients. Of a combine whose sum only its norm reads
 * the sum is not stored, but computed again. */
static void mark_kept(struct graph *g, const struct graph_node *n)
{
    const struct graph_value *y = &g->value[n->out[0]];
    bool again = !IN_RUNNER && n->out[1] != GRAPH_NONE && y->last == y->made;
    switch (n->op) {
    case OP_COMBINE:
        if (n->out[1] != GRAPH_NONE && !again)
            keep(g, n->out[0]);
        if (n->p[0] != GRAPH_NONE || again)
            keep(g, n->in[0]);
        if (n->p[1] != GRAPH_NONE || again)
            keep(g, n->in[1]);
        break;
    case OP_LINEAR:
    case OP_LINEAR_ACT:
    case OP_QK:
    case OP_HEAD:
        keep(g, n->in[0]);
        break;
    case OP_ATTN:
        for (int j = 0; j < GRAPH_INS; j++)
            keep(g, n->in[j]);
        keep(g, n->out[0]);
        break;
    case OP_XSA:
        keep(g, n->in[0]);
        keep(g, n->in[1]);
        break;
    case OP_EMBED:
    case OP_SHIFT:
    case OP_TAKE:
        break;
    }
    for (int o = 0; o < GRAPH_OUTS; o++)
        if (n->out[o] != GRAPH_NONE && g->value[n->out[o]].saved)
            keep(g, n->out[o]);
}

static void find_lives(struct graph *g)
{
    for (size_t v = 0; v < g->values; v++) {
        g->value[v].made = g->value[v].last = -1;
        g->value[v].keep = false;
        g->value[v].at = g->value[v].grad = GRAPH_NONE;
    }
    for (size_t i = 0; i < g->nodes; i++) {
        struct graph_node *n = &g->node[i];
        if (n->dead)
            continue;
        for (int j = 0; j < GRAPH_INS; j++)
            if (n->in[j] != GRAPH_NONE)
                g->value[n->in[j]].last = (int)i;
        for (int o = 0; o < GRAPH_OUTS; o++)
            if (n->out[o] != GRAPH_NONE)
                g->value[n->out[o]].made = g->value[n->out[o]].last = (int)i;
        if (IN_RUNNER && g->training)
            mark_kept(g, n);
    }
    for (size_t i = 0; !IN_RUNNER && i < g->nodes; i++) /* all lives are known now */
        if (g->training && !g->node[i].dead)
            mark_kept(g, &g->node[i]);
    if (g->nll != GRAPH_NONE)
        g->value[g->nll].last = (int)g->nodes;
}

/* ---- place ---- */

/* In-place operations: the output may take over the input's place when nobody else needs the input.
 */
static bool may_alias(const struct graph *g, const struct graph_node *n, int i)
{
    const struct graph_value *x, *y;
    if (g->training || (n->op != OP_QK && n->op != OP_COMBINE && n->op != OP_XSA) ||
        n->in[0] == GRAPH_NONE)
        return false;
    x = &g->value[n->in[0]];
    y = &g->value[n->out[0]];
    return x->last == i && x->tail == y->tail && x->width == y->width;
}

static void place_forward(struct graph *g, struct place *p)
{
    for (size_t i = 0; i < g->nodes; i++) {
        struct graph_node *n = &g->node[i];
        bool alias = !n->dead && may_alias(g, n, (int)i);
        if (n->dead)
            continue;
        for (int o = 0; o < GRAPH_OUTS; o++) {
            struct graph_value *v = n->out[o] == GRAPH_NONE ? NULL : &g->value[n->out[o]];
            if (!v || (v->saved && !g->training))
                continue;
            if ((!IN_RUNNER || !g->training) && n->op == OP_COMBINE && !o && v->last == (int)i &&
                n->out[1] != GRAPH_NONE)
                continue; /* a sum that only its norm reads is not stored */
            if (!o && alias) {
                v->at = g->value[n->in[0]].at;
                g->value[n->in[0]].last = (int)g->nodes + 1; /* not given back below */
                continue;
            }
            v->at = place_take(p, span_of(g, v));
        }
        for (size_t w = 0; w < g->values; w++)
            if (g->value[w].last == (int)i && g->value[w].at != GRAPH_NONE &&
                !(g->training && g->value[w].keep))
                place_give(p, g->value[w].at);
    }
}

static bool has_grad(const struct graph *g, int v)
{
    return v != GRAPH_NONE && !g->value[v].saved && v != g->nll;
}

/* May the gradient of input j be what that of the output becomes? A combine works through its
 * elements in place, and is the last that reads it. */
static bool takes_over(const struct graph *g, const struct graph_node *n, int j)
{
    return !IN_RUNNER && n->op == OP_COMBINE && j == 0 && has_grad(g, n->out[0]) &&
           g->value[n->out[0]].grad != GRAPH_NONE;
}

/* Reverse order: a gradient is born at the last reader of its value and dies at the maker. Inputs
 * of a node from the last to the first, as combine_bwd writes them: both may be the same value. */
static void place_backward(struct graph *g, struct place *p)
{
    for (size_t i = g->nodes; i-- > 0;) {
        struct graph_node *n = &g->node[i];
        bool over = false;
        if (n->dead)
            continue;
        for (int j = GRAPH_INS; j-- > 0;) {
            struct graph_value *v = has_grad(g, n->in[j]) ? &g->value[n->in[j]] : NULL;
            if (!v)
                continue;
            n->add[j] = v->grad != GRAPH_NONE;
            over = !n->add[j] && takes_over(g, n, j);
            if (over)
                v->grad = g->value[n->out[0]].grad;
            else if (!n->add[j])
                v->grad = place_take(p, span_of(g, v));
        }
        for (int o = over; o < GRAPH_OUTS; o++)
            if (has_grad(g, n->out[o]) && g->value[n->out[o]].grad != GRAPH_NONE)
                place_give(p, g->value[n->out[o]].grad);
    }
}

/* ---- the plan ---- */

/* Rotary base beyond the trained length: base * (t/trained)^(r/(r-2)), r the rotated dimensions
 * (the "NTK-aware" rule as the records wrote it, spec section 2.5). */
static double rope_base(const struct graph *g)
{
    double r = (double)g->rope_dims;
    if (!g->rope_train_len || g->t <= g->rope_train_len || g->rope_dims <= 2)
        return g->rope_base;
    return g->rope_base *
           kern_exp(kern_log((double)g->t / (double)g->rope_train_len) * (r / (r - 2)));
}

static enum err_code make_tables(struct graph *g, struct err *e)
{
    size_t n = g->t * g->rope_dims / 2, bytes = n * sizeof(float);
    float *host = malloc(2 * bytes + 1);
    g->cos = g->k->alloc(g->k, bytes);
    g->sin = g->k->alloc(g->k, bytes);
    if (!host || !g->cos || !g->sin) {
        free(host);
        return err_nomem(e, "rotary tables", 2 * bytes);
    }
    kern_rope_tables(host, host + n, g->t, g->rope_dims, rope_base(g));
    g->k->upload(g->k, g->cos, host, bytes);
    g->k->upload(g->k, g->sin, host + n, bytes);
    free(host);
    return ERR_OK;
}

static enum err_code allocate(struct graph *g, struct err *e)
{
    size_t bytes = g->floats * sizeof(float);
    g->block = g->k->alloc(g->k, bytes);
    g->ids = g->k->alloc(g->k, rows_of(g, false) * sizeof *g->ids);
    g->target = g->k->alloc(g->k, rows_of(g, true) * sizeof *g->target);
    if (!g->block || !g->ids || !g->target)
        return err_nomem(e, "activations", bytes);
    if (g->hash_rows) {
        g->hashed = g->k->alloc(g->k, rows_of(g, false) * sizeof *g->hashed);
        g->host_hashed = malloc(rows_of(g, false) * sizeof *g->host_hashed);
        if (!g->hashed || !g->host_hashed)
            return err_nomem(e, "bigram rows", rows_of(g, false) * sizeof *g->hashed);
    }
    if (g->coefs) {
        g->coef_val = g->k->alloc(g->k, g->coef_floats * sizeof *g->coef_val);
        g->coef_grad =
            g->training ? g->k->alloc(g->k, g->coef_floats * sizeof *g->coef_grad) : NULL;
        if (!g->coef_val || (g->training && !g->coef_grad))
            return err_nomem(e, "coefficients", g->coef_floats * sizeof *g->coef_val);
    }
    return make_tables(g, e);
}

enum err_code graph_plan(struct graph *g, struct kern *k, size_t batch, size_t t, size_t from,
                         bool training, struct err *e)
{
    struct place p = {0};
    enum err_code rc;
    if (!IN_RUNNER && g->failed)
        return err_nomem(e, "graph", (g->nodes + 1) * sizeof *g->node);
    assert(!g->k); /* pruning rewrites the nodes, so a graph is planned once */
    g->k = k;
    g->batch = batch;
    g->t = t;
    g->from = from;
    g->training = training;
    if ((rc = prune(g, e)) || (rc = insert_takes(g, e)))
        return rc;
    find_lives(g);
    place_forward(g, &p);
    if (training)
        place_backward(g, &p);
    free(p.live);
    if (!IN_RUNNER && p.failed)
        return err_nomem(e, "graph plan", p.cap * sizeof *p.live);
    g->floats = p.top;
    return allocate(g, e);
}

#ifndef RUNNER

/* ---- half values ---- */

/* Who reads a value: bits of `by`, and how many there are. */
struct readers {
    unsigned by;
    size_t count;
};
enum { BY_LINEAR = 1, BY_QK = 2, BY_ATTN = 4, BY_XSA = 8, BY_SUM = 16, BY_OTHER = 32 };

static unsigned reader(const struct graph_node *n, int j)
{
    switch (n->op) {
    case OP_LINEAR:
    case OP_LINEAR_ACT:
        return BY_LINEAR;
    case OP_QK:
        return BY_QK;
    case OP_ATTN:
        return BY_ATTN;
    case OP_XSA:
        return BY_XSA;
    case OP_COMBINE: /* what is added to the stream */
        return j == 1 && n->in[0] != n->in[1] && kern_half_dim(n->n_in) ? BY_SUM : BY_OTHER;
    default:
        return BY_OTHER;
    }
}

static struct readers readers_of(const struct graph *g, int v)
{
    struct readers r = {0};
    for (size_t i = 0; i < g->nodes; i++)
        for (int j = 0; j < GRAPH_INS && !g->node[i].dead; j++)
            if (g->node[i].in[j] == v) {
                r.by |= reader(&g->node[i], j);
                r.count++;
            }
    return r;
}

static bool read_once(const struct graph *g, int v, unsigned by)
{
    struct readers r = readers_of(g, v);
    return r.by == by && r.count == 1;
}

static bool read_by(const struct graph *g, int v, unsigned by)
{
    return !(readers_of(g, v).by & ~by);
}

static const struct graph_node *maker(const struct graph *g, int v)
{
    return &g->node[g->value[v].made];
}

static void set_half(struct graph *g, int v)
{
    g->value[v].half = g->value[v].half_grad = true;
}

/* Is v a linear layer's result, normed and turned, which nobody else reads? */
static bool plain_qk(const struct graph *g, int v)
{
    const struct graph_node *n = maker(g, v);
    return n->op == OP_QK && read_once(g, v, BY_ATTN) && read_once(g, n->in[0], BY_QK) &&
           maker(g, n->in[0])->op == OP_LINEAR;
}

/* All of an attention layer between its linear layers, or nothing of it. */
static void mark_layer(struct graph *g, const struct graph_node *n)
{
    int v = n->in[2], o = n->out[0], y = o;
    size_t readers = 1;
    if (!kern_half_heads(g->head_dim, g->rope_dims) || !plain_qk(g, n->in[0]) ||
        !plain_qk(g, n->in[1]))
        return;
    for (size_t i = 0; i < g->nodes && read_once(g, o, BY_XSA); i++)
        if (g->node[i].in[0] == o && g->node[i].in[1] == v) {
            y = g->node[i].out[0];
            readers = 2;
        }
    bool linear = maker(g, v)->op == OP_LINEAR; /* else it may be a sum with a value embedding */
    bool sum = maker(g, v)->op == OP_COMBINE && maker(g, v)->out[1] == GRAPH_NONE &&
               kern_half_dim(maker(g, v)->n_in);
    if (!read_by(g, y, BY_LINEAR) || !read_by(g, v, BY_ATTN | BY_XSA) ||
        readers_of(g, v).count != readers || !(linear || sum))
        return;
    for (int j = 0; j < 2; j++) {
        set_half(g, n->in[j]);
        set_half(g, maker(g, n->in[j])->in[0]);
    }
    set_half(g, o);
    set_half(g, y);
    g->value[v].half = true;
    g->value[v].half_grad = linear;
}

void graph_halves(struct graph *g)
{
    for (size_t i = 0; i < g->nodes && g->k->linear_train; i++) {
        const struct graph_node *n = &g->node[i];
        int y = n->op == OP_COMBINE ? n->out[1] : n->out[0];
        bool norm = n->op == OP_COMBINE && kern_half_dim(n->n_in);
        if (n->dead || y == GRAPH_NONE)
            continue;
        if ((norm || n->op == OP_LINEAR_ACT) && read_by(g, y, BY_LINEAR))
            set_half(g, y);
        if (n->op == OP_LINEAR_ACT)
            g->value[y].grad_g = read_once(g, y, BY_LINEAR);
        if (n->op == OP_LINEAR && read_by(g, y, BY_SUM)) {
            g->value[y].half = true;
            g->value[y].half_grad = readers_of(g, y).count == 1;
        }
        if (n->op == OP_ATTN)
            mark_layer(g, n);
    }
}

#endif
