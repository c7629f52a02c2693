/* graph_run.c - executing a planned graph: each node becomes one or two calls of the kernel table.
 */
#include <string.h>

#include "model/graph.h"

static size_t node_rows(const struct graph *g, const struct graph_node *n)
{
    return g->batch * (g->t - (n->tail ? g->from : 0));
}

static float *val(const struct graph *g, int v)
{
    return v == GRAPH_NONE || g->value[v].at == GRAPH_NONE ? NULL : g->block + g->value[v].at;
}

static const float *par(const float *params, ptrdiff_t at)
{
    return at == GRAPH_NONE ? NULL : params + at;
}

static struct kern_combine combine_args(const struct graph *g, const struct graph_node *n,
                                        const float *params)
{
    return (struct kern_combine){.y = val(g, n->out[0]),
                                 .n = val(g, n->out[1]),
                                 .rstd = val(g, n->out[2]),
                                 .x0 = val(g, n->in[0]),
                                 .x1 = val(g, n->in[1]),
                                 .c0 = par(params, n->p[0]),
                                 .c1 = par(params, n->p[1]),
                                 .rows = node_rows(g, n),
                                 .dim = n->n_in,
                                 .eps = g->eps,
                                 .gain = n->f};
}

static struct kern_qk qk_args(const struct graph *g, const struct graph_node *n,
                              const float *params)
{
    return (struct kern_qk){.y = val(g, n->out[0]),
                            .rstd = val(g, n->out[1]),
                            .x = val(g, n->in[0]),
                            .gain = par(params, n->p[0]),
                            .cos = g->cos,
                            .sin = g->sin,
                            .rows = node_rows(g, n),
                            .t = g->t - (n->tail ? g->from : 0),
                            .pos0 = n->tail ? g->from : 0,
                            .heads = n->n_out,
                            .head_dim = g->head_dim,
                            .rope_dims = g->rope_dims,
                            .eps = g->eps};
}

static struct kern_attn attn_args(const struct graph *g, const struct graph_node *n)
{
    return (struct kern_attn){.o = val(g, n->out[0]),
                              .lse = val(g, n->out[1]),
                              .q = val(g, n->in[0]),
                              .k = val(g, n->in[1]),
                              .v = val(g, n->in[2]),
                              .batch = g->batch,
                              .tq = g->t - (n->tail ? g->from : 0),
                              .tk = g->t,
                              .q0 = n->tail ? g->from : 0,
                              .heads = n->n_out,
                              .kv_heads = n->n_in,
                              .head_dim = g->head_dim,
                              .scale = n->f};
}

static struct kern_head head_args(const struct graph *g, const struct graph_node *n,
                                  const float *params)
{
    return (struct kern_head){.nll = val(g, n->out[0]),
                              .lse = val(g, n->out[1]),
                              .h = val(g, n->in[0]),
                              .w = par(params, n->p[0]),
                              .target = g->target,
                              .rows = node_rows(g, n),
                              .dim = n->n_in,
                              .vocab = n->n_out,
                              .cap = n->f};
}

static void run_forward(struct graph *g, const struct graph_node *n, const float *params)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
    float *x = val(g, n->in[0]), *y = val(g, n->out[0]);
    switch (n->op) {
    case OP_EMBED:
        k->embed_fwd(k, y, par(params, n->p[0]), g->ids, rows, n->n_in);
        break;
    case OP_COMBINE: {
        struct kern_combine a = combine_args(g, n, params);
        k->combine_fwd(k, &a);
        break;
    }
    case OP_LINEAR:
        k->linear_fwd(k, y, x, par(params, n->p[0]), rows, n->n_out, n->n_in);
        break;
    case OP_LINEAR_ACT:
        k->linear_act_fwd(k, y, val(g, n->out[1]), x, par(params, n->p[0]), rows, n->n_out, n->n_in,
                          n->f);
        break;
    case OP_QK: {
        struct kern_qk a = qk_args(g, n, params);
        k->qk_fwd(k, &a);
        break;
    }
    case OP_ATTN: {
        struct kern_attn a = attn_args(g, n);
        k->attn_fwd(k, &a);
        break;
    }
    case OP_HEAD: {
        struct kern_head a = head_args(g, n, params);
        k->head_fwd(k, &a);
        break;
    }
    case OP_TAKE:
        k->take(k, y, x, g->batch, g->t, g->from, n->n_in);
        break;
    }
}

enum err_code graph_forward(struct graph *g, const float *params, const uint16_t *ids,
                            const uint16_t *target, float *nll, struct err *e)
{
    size_t scored = g->batch * (g->t - g->from);
    g->k->upload(g->k, g->ids, ids, g->batch * g->t * sizeof *ids);
    g->k->upload(g->k, g->target, target, scored * sizeof *target);
    for (size_t i = 0; i < g->nodes; i++)
        if (!g->node[i].dead)
            run_forward(g, &g->node[i], params);
    if (nll)
        g->k->download(g->k, nll, val(g, g->nll), scored * sizeof *nll);
    return g->k->sync(g->k, e);
}

void graph_read(struct graph *g, int value, float *out)
{
    const struct graph_value *v = &g->value[value];
    size_t rows = g->batch * (g->t - (v->tail ? g->from : 0));
    g->k->download(g->k, out, val(g, value), rows * v->width * sizeof *out);
}

#ifndef KERN_FORWARD_ONLY

static float *grad(const struct graph *g, int v)
{
    return v == GRAPH_NONE || g->value[v].grad == GRAPH_NONE ? NULL : g->block + g->value[v].grad;
}

static float *gpar(float *grads, ptrdiff_t at)
{
    return at == GRAPH_NONE ? NULL : grads + at;
}

static void linear_backward(struct graph *g, const struct graph_node *n, const float *dy,
                            const float *params, float *grads)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
    k->linear_bwd_w(k, grads + n->p[0], dy, val(g, n->in[0]), rows, n->n_out, n->n_in);
    k->linear_bwd_x(k, grad(g, n->in[0]), dy, params + n->p[0], rows, n->n_out, n->n_in, n->add[0]);
}

static void run_backward(struct graph *g, const struct graph_node *n, const float *params,
                         float *grads, float gscale)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
    float *dy = grad(g, n->out[0]);
    switch (n->op) {
    case OP_EMBED:
        k->embed_bwd(k, grads + n->p[0], dy, g->ids, rows, n->n_in, n->n_out);
        break;
    case OP_COMBINE: {
        struct kern_combine a = combine_args(g, n, params);
        a.dy = dy;
        a.dn = grad(g, n->out[1]);
        a.dx0 = grad(g, n->in[0]);
        a.dx1 = grad(g, n->in[1]);
        a.add0 = n->add[0];
        a.add1 = n->add[1];
        a.dc0 = gpar(grads, n->p[0]);
        a.dc1 = gpar(grads, n->p[1]);
        k->combine_bwd(k, &a);
        break;
    }
    case OP_LINEAR_ACT: /* the gradient of the output becomes, in place, that of x W^T */
        k->mul(k, dy, dy, val(g, n->out[1]), rows * n->n_out);
        linear_backward(g, n, dy, params, grads);
        break;
    case OP_LINEAR:
        linear_backward(g, n, dy, params, grads);
        break;
    case OP_QK: {
        struct kern_qk a = qk_args(g, n, params);
        a.dy = dy;
        a.dx = grad(g, n->in[0]);
        a.dgain = gpar(grads, n->p[0]);
        k->qk_bwd(k, &a);
        break;
    }
    case OP_ATTN: {
        struct kern_attn a = attn_args(g, n);
        a.do_ = dy;
        a.dq = grad(g, n->in[0]);
        a.dk = grad(g, n->in[1]);
        a.dv = grad(g, n->in[2]);
        k->attn_bwd(k, &a);
        break;
    }
    case OP_HEAD: {
        struct kern_head a = head_args(g, n, params);
        a.gscale = gscale;
        a.dh = grad(g, n->in[0]);
        a.dw = gpar(grads, n->p[0]);
        k->head_bwd(k, &a);
        break;
    }
    case OP_TAKE: /* only scoring plans have it */
        break;
    }
}

void graph_backward(struct graph *g, const float *params, float *grads, float gscale)
{
    for (size_t i = g->nodes; i-- > 0;)
        if (!g->node[i].dead)
            run_backward(g, &g->node[i], params, grads, gscale);
}

#endif
