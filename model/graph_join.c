/*
 * graph_join.c - one product for q, k and v in a step of training (graph.h).
 *
 * Places: q, k and v get room for rows * (q + k + v) floats, side by side, for the whole step. As
 * half values, rows [q|k|v] take half of that, and rows of their gradients the other half; so these
 * have a place from the first that is written (v's, by XSA) to the product. Elsewhere than in
 * graph_train they are three values as usual.
 *
 * The forward of the three is that of the first node. The backward is that of the last one, when
 * all that read them have been passed and none of the three itself, so that `done` is told no
 * gradient too early.
 */
#include "model/graph.h"

/* Numbers that kernels load and store at once (16 bytes); all widths are multiples of it. */
enum { EIGHT = 8, NODES = 3 };

static bool may_join(const struct graph *g, const struct graph_node *n)
{
    for (int i = 0; i < NODES; i++)
        if (n[i].op != OP_LINEAR || n[i].dead || n[i].in[0] != n->in[0] || n[i].n_out % EIGHT ||
            n[i].n_in % EIGHT || !g->value[n[i].out[0]].keep)
            return false;
    return n[1].n_out == n[2].n_out;
}

void graph_join_plan(struct graph *g)
{
    for (size_t i = 0; g->training && g->k->joins && i + NODES <= g->nodes; i++)
        if (may_join(g, &g->node[i])) {
            g->node[i++].join = JOIN_FIRST;
            g->node[i++].join = JOIN_MIDDLE;
            g->node[i].join = JOIN_LAST;
        }
}

static bool both_half(const struct graph *g, int v)
{
    return g->value[v].half && g->value[v].half_grad;
}

/* What norm and RoPE of v was made from, or GRAPH_NONE. */
static int turned_from(const struct graph *g, int v)
{
    const struct graph_node *n = &g->node[g->value[v].made];
    return n->op == OP_QK ? n->in[0] : GRAPH_NONE;
}

/* Are these q, k and v of one attention layer? Who else reads them graph_halves has seen. */
static bool of_attention(const struct graph *g, int q, int k, int v)
{
    size_t dim = g->head_dim;
    for (size_t i = 0; i < g->nodes; i++) {
        const struct graph_node *n = &g->node[i];
        if (n->op == OP_ATTN && !n->dead && n->in[2] == v)
            return turned_from(g, n->in[0]) == q && turned_from(g, n->in[1]) == k &&
                   g->value[q].width == n->n_out * dim && g->value[k].width == n->n_in * dim;
    }
    return false;
}

void graph_join(struct graph *g)
{
    size_t rows = g->batch * g->t, row;
    for (size_t i = 0; i < g->nodes; i++) {
        struct graph_node *n = &g->node[i];
        if (n->join != JOIN_FIRST)
            continue;
        int v[NODES] = {n[0].out[0], n[1].out[0], n[2].out[0]};
        if (!both_half(g, v[0]) || !both_half(g, v[1]) || !both_half(g, v[2]) ||
            !of_attention(g, v[0], v[1], v[2])) {
            n[0].join = n[1].join = n[2].join = JOIN_NONE;
            continue;
        }
        row = n[0].n_out + n[1].n_out + n[2].n_out;
        ptrdiff_t at = 2 * g->value[v[0]].at; /* two half values in a float */
        for (int j = 0; j < NODES; j++) {
            g->value[v[j]].row = row;
            g->value[v[j]].joined = at;
            g->value[v[j]].joined_grad = at + (ptrdiff_t)(rows * row);
            at += (ptrdiff_t)n[j].n_out;
        }
    }
}

void graph_join_args(const struct graph *g, const struct graph_node *n, const float *params,
                     float *grads, struct kern_linear *a)
{
    const size_t k = n[1].n_out, row = g->value[n->out[0]].row;
    ptrdiff_t behind = n->p[0] + (ptrdiff_t)(n->n_out * n->n_in);
    a->n_out = row;
    if (n[1].p[0] == behind && n[2].p[0] == behind + (ptrdiff_t)(k * n->n_in))
        return;
    for (int i = 0; i < 2; i++)
        a->part[i] = (struct kern_part){params + n[i + 1].p[0],
                                        grads ? grads + n[i + 1].p[0] : NULL, n[i + 1].n_out};
}
