/* graph_xsa.c - attention and XSA as one operation, see graph_xsa.h. */
#include "model/graph_xsa.h"

bool graph_xsa_joins(const struct graph *g, const struct graph_node *n)
{
    return g->whole && g->k->attn_xsa_fwd && n->op == OP_ATTN && !n->tail &&
           n + 1 < g->node + g->nodes && n[1].op == OP_XSA && n[1].in[0] == n->out[0] &&
           n[1].in[1] == n->in[2] && g->value[n->out[0]].half && g->value[n[1].out[0]].half;
}

static struct kern_attn_xsa args(const struct graph *g, const struct graph_node *n,
                                 const struct kern_attn *a)
{
    struct kern_attn_xsa f = {.attn = *a, .s = g->block + g->value[n->out[0]].at};
    f.attn.o = g->block + g->value[n[1].out[0]].at;
    return f;
}

bool graph_xsa_fwd(struct graph *g, const struct graph_node *n, const struct kern_attn *a)
{
    if (!graph_xsa_joins(g, n))
        return false;
    const struct kern_attn_xsa f = args(g, n, a);
    g->k->attn_xsa_fwd(g->k, &f);
    return true;
}

bool graph_xsa_bwd(struct graph *g, const struct graph_node *n, const struct kern_attn *a)
{
    if (!graph_xsa_joins(g, n))
        return false;
    struct kern_attn_xsa f = args(g, n, a);
    f.do_ = g->block + g->value[n->out[0]].grad;
    f.attn.do_ = g->block + g->value[n[1].out[0]].grad;
    f.attn.add_dv = n[1].add[1];
    g->k->attn_xsa_bwd(g->k, &f);
    return true;
}
