/* graph.c - building a graph. Planning is graph_plan.c, execution graph_run.c. */
#include "model/graph.h"

#include <stdlib.h>
#include <string.h>

void graph_init(struct graph *g)
{
    memset(g, 0, sizeof *g);
    g->nll = GRAPH_NONE;
}

void graph_free(struct graph *g)
{
    if (g->k) {
#ifndef RUNNER
        if (g->tape.tape)
            g->k->forget(g->k, g->tape.tape);
#endif
        g->k->free(g->k, g->block);
        g->k->free(g->k, g->cos);
        g->k->free(g->k, g->sin);
        g->k->free(g->k, g->coef_val);
        g->k->free(g->k, g->coef_grad);
        g->k->free(g->k, g->ids);
        g->k->free(g->k, g->hashed);
        g->k->free(g->k, g->target);
    }
    free(g->host_hashed);
    free(g->node);
    free(g->value);
    free(g->coef);
    graph_init(g);
}

/* Room for one more element of `size` bytes; NULL when memory is short. */
static void *grow(void *p, size_t count, size_t *cap, size_t size)
{
    size_t want = *cap ? 2 * *cap : 64;
    if (count < *cap)
        return p;
    p = realloc(p, want * size);
    if (IN_RUNNER || p)
        *cap = want;
    return p;
}

static int new_value(struct graph *g, size_t width, bool saved)
{
    void *p = grow(g->value, g->values, &g->value_cap, sizeof *g->value);
    if (!IN_RUNNER && !p) {
        g->failed = true;
        return 0;
    }
    g->value = p;
    g->value[g->values] = (struct graph_value){.width = width, .saved = saved};
    return (int)g->values++;
}

/* After a failure every builder keeps working on node 0, and graph_plan refuses the graph. */
static struct graph_node *new_node(struct graph *g, enum graph_op op)
{
    static struct graph_node sink;
    void *p = grow(g->node, g->nodes, &g->node_cap, sizeof *g->node);
    struct graph_node *n = &sink;
    if (IN_RUNNER || p) {
        g->node = p;
        n = &g->node[g->nodes++];
    } else {
        g->failed = true;
    }
    *n = (struct graph_node){.op = op, .p = {GRAPH_NONE, GRAPH_NONE}};
    for (int i = 0; i < GRAPH_INS; i++)
        n->in[i] = n->out[i] = GRAPH_NONE;
    return n;
}

int graph_embed(struct graph *g, ptrdiff_t table, size_t vocab, size_t dim)
{
    int y = new_value(g, dim, false);
    struct graph_node *n = new_node(g, OP_EMBED);
    n->p[0] = table;
    n->n_out = vocab;
    n->n_in = dim;
    return n->out[0] = y;
}

int graph_bigram(struct graph *g, ptrdiff_t table, size_t vocab, size_t dim)
{
    int y = graph_embed(g, table, vocab, dim);
    if (IN_RUNNER || !g->failed)
        g->node[g->nodes - 1].hashed = true;
    g->hash_rows = vocab;
    return y;
}

/* Vectors start on a cache line. */
static ptrdiff_t new_coef(struct graph *g, size_t dim)
{
    ptrdiff_t ref = GRAPH_NONE - 1 - (ptrdiff_t)g->coef_floats;
    g->coef_floats += (dim + 15) & ~(size_t)15;
    return ref;
}

struct graph_pair graph_coef(struct graph *g, enum coef_kind kind, size_t dim, float f,
                             ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t w)
{
    struct graph_pair r = {GRAPH_NONE, GRAPH_NONE};
    void *p = grow(g->coef, g->coefs, &g->coef_cap, sizeof *g->coef);
    if (!IN_RUNNER && !p) {
        g->failed = true;
        return r;
    }
    g->coef = p;
    r.c0 = new_coef(g, dim);
    if (kind != COEF_SCALE)
        r.c1 = new_coef(g, dim);
    g->coef[g->coefs++] = (struct graph_coef){
        .kind = kind, .dim = dim, .f = f, .p0 = p0, .p1 = p1, .w = w, .c = {r.c0, r.c1}};
    return r;
}

int graph_combine(struct graph *g, int x0, ptrdiff_t c0, int x1, ptrdiff_t c1, float gain,
                  int *norm)
{
    size_t dim = !IN_RUNNER && g->failed ? 0 : g->value[x0].width;
    int y = new_value(g, dim, false);
    int nv = norm ? new_value(g, dim, false) : GRAPH_NONE;
    int rstd = norm ? new_value(g, 1, true) : GRAPH_NONE;
    struct graph_node *n = new_node(g, OP_COMBINE);
    n->in[0] = x0;
    n->in[1] = x1;
    n->p[0] = c0;
    n->p[1] = c1;
    n->f = gain;
    n->n_in = dim;
    n->out[1] = nv;
    n->out[2] = rstd;
    if (norm)
        *norm = nv;
    return n->out[0] = y;
}

static int linear(struct graph *g, enum graph_op op, int x, ptrdiff_t w, size_t n_out, size_t n_in,
                  float slope)
{
    int y = new_value(g, n_out, false);
    int f = op == OP_LINEAR_ACT ? new_value(g, n_out, true) : GRAPH_NONE;
    struct graph_node *n = new_node(g, op);
    n->in[0] = x;
    n->p[0] = w;
    n->n_out = n_out;
    n->n_in = n_in;
    n->f = slope;
    n->out[1] = f;
    return n->out[0] = y;
}

int graph_linear(struct graph *g, int x, ptrdiff_t w, size_t n_out, size_t n_in)
{
    return linear(g, OP_LINEAR, x, w, n_out, n_in, 0);
}

int graph_linear_act(struct graph *g, int x, ptrdiff_t w, size_t n_out, size_t n_in, float slope)
{
    return linear(g, OP_LINEAR_ACT, x, w, n_out, n_in, slope);
}

int graph_qk(struct graph *g, int x, ptrdiff_t gain, size_t heads)
{
    int y = new_value(g, heads * g->head_dim, false);
    int rstd = new_value(g, heads, true);
    struct graph_node *n = new_node(g, OP_QK);
    n->in[0] = x;
    n->p[0] = gain;
    n->n_out = heads;
    n->out[1] = rstd;
    return n->out[0] = y;
}

int graph_attn(struct graph *g, int q, int k, int v, size_t heads, size_t kv_heads, float scale)
{
    int o = new_value(g, heads * g->head_dim, false);
    int lse = new_value(g, heads, true);
    struct graph_node *n = new_node(g, OP_ATTN);
    n->in[0] = q;
    n->in[1] = k;
    n->in[2] = v;
    n->n_out = heads;
    n->n_in = kv_heads;
    n->f = scale;
    n->out[1] = lse;
    return n->out[0] = o;
}

int graph_shift(struct graph *g, int x)
{
    size_t dim = !IN_RUNNER && g->failed ? 0 : g->value[x].width;
    int y = new_value(g, dim, false);
    struct graph_node *n = new_node(g, OP_SHIFT);
    n->in[0] = x;
    n->n_in = dim;
    return n->out[0] = y;
}

int graph_xsa(struct graph *g, int o, int v, size_t heads, size_t kv_heads)
{
    int y = new_value(g, heads * g->head_dim, false);
    struct graph_node *n = new_node(g, OP_XSA);
    n->in[0] = o;
    n->in[1] = v;
    n->n_out = heads;
    n->n_in = kv_heads;
    return n->out[0] = y;
}

void graph_head(struct graph *g, int h, ptrdiff_t w, size_t vocab, size_t dim, float cap)
{
    int nll = new_value(g, 1, false);
    int lse = new_value(g, 1, true);
    struct graph_node *n = new_node(g, OP_HEAD);
    n->in[0] = h;
    n->p[0] = w;
    n->n_out = vocab;
    n->n_in = dim;
    n->f = cap;
    n->out[0] = g->nll = nll;
    n->out[1] = lse;
}
