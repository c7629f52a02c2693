/*
 * graph_half.c - what a step of training, and of it what can be in scoring, is where the backend
 * can: values stored as bf16, and two combines in one pass.
 */
#include "model/graph.h"

/* ---- who reads a value ---- */

/* Bits of `by`, and how many there are. */
struct readers {
    unsigned by;
    size_t count;
};
enum {
    BY_LINEAR = 1,
    BY_QK = 2,
    BY_ATTN = 4,
    BY_XSA = 8,
    BY_SUM = 16,
    BY_HEAD = 32,
    BY_OTHER = 64
};

static unsigned reader(const struct graph *g, const struct graph_node *n, int j)
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
    case OP_COMBINE: /* in scoring only of what is added to the stream, which is fp32 there */
        return kern_half_dim(n->n_in) && (g->training || (j == 1 && n->in[0] != n->in[1]))
                   ? BY_SUM
                   : BY_OTHER;
    case OP_HEAD:
        return BY_HEAD;
    default:
        return BY_OTHER;
    }
}

/* What takes some rows of a value (a scoring plan) is not its reader, but who reads these rows. */
static struct readers readers_of(const struct graph *g, int v)
{
    struct readers r = {0};
    for (size_t i = 0; i < g->nodes; i++)
        for (int j = 0; j < GRAPH_INS && !g->node[i].dead; j++)
            if (g->node[i].in[j] == v) {
                bool take = g->node[i].op == OP_TAKE;
                struct readers of = {reader(g, &g->node[i], j), 1};
                if (take)
                    of = readers_of(g, g->node[i].out[0]);
                r.by |= of.by;
                r.count += of.count;
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

/* ---- pairs ---- */

/* Is n[0] a sum without a norm, and n[1] a sum of it with one? Between blocks it is: what the MLP
 * adds, or a skip, and the next block's mix with the embedding. */
static bool makes_pair(const struct graph *g, const struct graph_node *n)
{
    const struct graph_node *m = n + 1;
    int s = n->out[0], other = m->in[1];
    return n->op == OP_COMBINE && m->op == OP_COMBINE && !n->dead && !m->dead &&
           kern_pair_dim(n->n_in) && m->in[0] == s && other != s && other != n->in[0] &&
           other != n->in[1] && n->in[1] != GRAPH_NONE && n->out[1] == GRAPH_NONE &&
           m->out[1] != GRAPH_NONE && (n->p[0] == GRAPH_NONE || readers_of(g, s).count == 1);
}

void graph_pairs(struct graph *g)
{
    for (size_t i = 0; i + 1 < g->nodes && g->training && g->k->combine_pair; i++)
        g->node[i].pair = makes_pair(g, &g->node[i]);
}

/* ---- half values ---- */

/*
 * The gradient of a value that so many read at most is a half value as well: it is written once and
 * added to twice, in fp32, and rounded each time, as in the records (where all are). The embedding
 * is read by every block: its gradient would be rounded as often as there are blocks, a small one
 * against a sum that grows, and is kept in fp32.
 */
enum { FEW = 3 };

static void set_half(struct graph *g, int v)
{
    g->value[v].half = true;
    g->value[v].half_grad = readers_of(g, v).count <= FEW;
    for (size_t i = 0; i < g->nodes; i++)
        if (g->node[i].op == OP_TAKE && g->node[i].in[0] == v)
            g->value[g->node[i].out[0]].half = true;
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
    int v = n->in[2], o = n->out[0];
    /* XSA counts where it is the next operation, and then is one with attention (graph_xsa.h). */
    bool xsa = read_once(g, o, BY_XSA) && n[1].in[0] == o && n[1].in[1] == v;
    int y = xsa ? n[1].out[0] : o;
    if (!kern_half_heads(g->head_dim, g->rope_dims) || !plain_qk(g, n->in[0]) ||
        !plain_qk(g, n->in[1]))
        return;
    bool linear = maker(g, v)->op == OP_LINEAR; /* else it may be a sum with a value embedding */
    bool sum = maker(g, v)->op == OP_COMBINE && maker(g, v)->out[1] == GRAPH_NONE &&
               kern_half_dim(maker(g, v)->n_in);
    if (!read_by(g, y, BY_LINEAR) || !read_by(g, v, BY_ATTN | BY_XSA) ||
        readers_of(g, v).count != (xsa ? 2 : 1) || !(linear || sum))
        return;
    for (int j = 0; j < 2; j++) {
        set_half(g, n->in[j]);
        set_half(g, maker(g, n->in[j])->in[0]);
        if (xsa && !g->training) /* what XSA makes is there before they are read */
            g->value[n->in[j]].last = (int)(n + 1 - g->node);
    }
    set_half(g, v);
    set_half(g, o);
    set_half(g, y);
}

/* A gradient that goes on in the place of another is what that one is: takes_over, graph_plan.c.
 * Says whether it had to change anything. */
static bool agree(struct graph *g, const struct graph_node *n)
{
    struct graph_value *x = &g->value[n->in[0]], *y = &g->value[n->out[0]];
    if (n->dead || n->op != OP_COMBINE || n->add[0] || x->grad != y->grad ||
        x->half_grad == y->half_grad)
        return false;
    x->half_grad = y->half_grad = false;
    return true;
}

void graph_halves(struct graph *g)
{
    if (!g->k->linear_train)
        return;
    for (size_t i = 0; i < g->nodes; i++) {
        const struct graph_node *n = &g->node[i];
        bool stream = (n->op == OP_COMBINE || n->op == OP_EMBED) && kern_half_dim(n->n_in);
        unsigned readers = g->training ? BY_LINEAR | BY_SUM | BY_HEAD : BY_LINEAR;
        for (int o = !g->training; o < 2 && !n->dead && stream; o++) /* scoring: norms */
            if (n->out[o] != GRAPH_NONE && read_by(g, n->out[o], readers))
                set_half(g, n->out[o]);
        if (!n->dead && ((n->op == OP_LINEAR && read_by(g, n->out[0], BY_SUM)) ||
                         (n->op == OP_LINEAR_ACT && read_by(g, n->out[0], BY_LINEAR))))
            set_half(g, n->out[0]);
        if (!n->dead && n->op == OP_LINEAR_ACT)
            g->value[n->out[0]].grad_g = g->training && read_once(g, n->out[0], BY_LINEAR);
        if (!n->dead && n->op == OP_ATTN)
            mark_layer(g, n);
    }
    for (bool again = g->training; again;) {
        again = false;
        for (size_t i = 0; i < g->nodes; i++)
            again |= agree(g, &g->node[i]);
    }
}
