/* graph_xsa.c - attention and XSA as one operation, see graph_xsa.h. */
#include "model/graph_xsa.h"

/* No half value goes from attention to an XSA otherwise: graph_halves. */
static bool joins(const struct graph *g, const struct graph_node *n)
{
    return g->whole && g->value[n->out[0]].half && n[1].op == OP_XSA && n[1].in[0] == n->out[0];
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
    if (!joins(g, n))
        return false;
    const struct kern_attn_xsa f = args(g, n, a);
    g->k->attn_xsa_fwd(g->k, &f);
    return true;
}

bool graph_xsa_bwd(struct graph *g, const struct graph_node *n, const struct kern_attn *a)
{
    if (!joins(g, n))
        return false;
    struct kern_attn_xsa f = args(g, n, a);
    f.do_ = g->block + g->value[n->out[0]].grad;
    f.attn.do_ = g->block + g->value[n[1].out[0]].grad;
    f.attn.add_dv = n[1].add[1];
    g->k->attn_xsa_bwd(g->k, &f);
    return true;
}
