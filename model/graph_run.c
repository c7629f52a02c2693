/* graph_run.c - executing a planned graph: each node becomes one or two calls of the kernel table.
 */
#include <string.h>

#include "model/clock.h"
#include "model/graph.h"
#include "model/graph_xsa.h"

/* Part of a function that has only one caller in the runner, where a call costs bytes. */
#define PART static inline __attribute__((always_inline))

static size_t node_rows(const struct graph *g, const struct graph_node *n)
{
    return g->batch * (g->t - (n->tail ? g->from : 0));
}

#ifndef RUNNER
/* Is a value a part of longer rows in this run? */
static bool joined(const struct graph *g, int v)
{
    return g->whole && v != GRAPH_NONE && g->value[v].row;
}

static float *half_at(const struct graph *g, ptrdiff_t at)
{
    return (float *)(void *)((uint16_t *)(void *)g->block + at);
}
#endif

static float *val(const struct graph *g, int v)
{
#ifndef RUNNER
    if (joined(g, v))
        return half_at(g, g->value[v].joined);
#endif
    return v == GRAPH_NONE || g->value[v].at == GRAPH_NONE ? NULL : g->block + g->value[v].at;
}

/* A coefficient vector in a block of them, by its reference. */
static float *coef_at(float *block, ptrdiff_t ref)
{
    return ref == GRAPH_NONE ? NULL : block + (GRAPH_NONE - 1 - ref);
}

/* A parameter, or a coefficient vector, by its reference. */
static const float *par(const struct graph *g, const float *params, ptrdiff_t at)
{
    if (at < GRAPH_NONE)
        return coef_at(g->coef_val, at);
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
                                 .c0 = par(g, params, n->p[0]),
                                 .c1 = par(g, params, n->p[1]),
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
                            .gain = par(g, params, n->p[0]),
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
                              .w = par(g, params, n->p[0]),
                              .target = g->target,
                              .rows = node_rows(g, n),
                              .dim = n->n_in,
                              .vocab = n->n_out,
                              .cap = n->f};
}

static struct kern_xsa xsa_args(const struct graph *g, const struct graph_node *n)
{
    return (struct kern_xsa){.y = val(g, n->out[0]),
                             .o = val(g, n->in[0]),
                             .v = val(g, n->in[1]),
                             .rows = node_rows(g, n),
                             .heads = n->n_out,
                             .kv_heads = n->n_in,
                             .head_dim = g->head_dim};
}

static struct kern_coef coef_args(const struct graph *g, const struct graph_coef *c,
                                  const float *params)
{
    return (struct kern_coef){.kind = c->kind,
                              .dim = c->dim,
                              .f = c->f,
                              .c0 = coef_at(g->coef_val, c->c[0]),
                              .c1 = coef_at(g->coef_val, c->c[1]),
                              .p0 = par(g, params, c->p0),
                              .p1 = par(g, params, c->p1),
                              .w = par(g, params, c->w)};
}

#ifndef RUNNER

/* A runner hands these to kernels that were compiled with the marks: they take no room of their
 * own, but the rest of the word before them. */
#define SAME_WORD(type, before, last)                                                              \
    _Static_assert(offsetof(struct type, before) / sizeof(void *) ==                               \
                       offsetof(struct type, last) / sizeof(void *),                               \
                   "marks make the struct larger")
_Static_assert(sizeof(struct kern_combine) / sizeof(void *) ==
                   offsetof(struct kern_combine, add1) / sizeof(void *) + 1,
               "marks make the struct larger");
SAME_WORD(kern_qk, eps, row);
SAME_WORD(kern_attn, add_dv, joined);

/* Is a value, or its gradient, stored as bf16 in this run? */
static bool half(const struct graph *g, int v)
{
    return g->whole && v != GRAPH_NONE && g->value[v].half;
}

static bool half_grad(const struct graph *g, int v)
{
    return g->whole && v != GRAPH_NONE && g->value[v].half_grad;
}

/* What kern_qk calls row. */
static uint32_t row_of(const struct graph *g, int v)
{
    return joined(g, v) ? (uint32_t)g->value[v].row : 0;
}

static struct kern_linear linear_args(const struct graph *g, const struct graph_node *n,
                                      const float *params)
{
    return (struct kern_linear){.x = val(g, n->in[0]),
                                .w = par(g, params, n->p[0]),
                                .rows = node_rows(g, n),
                                .n_out = n->n_out,
                                .n_in = n->n_in,
                                .act = n->op == OP_LINEAR_ACT,
                                .slope = n->f,
                                .y = val(g, n->out[0]),
                                .f = val(g, n->out[1]),
                                .x16 = half(g, n->in[0]),
                                .y16 = half(g, n->out[0])};
}

/* Does this node's combine go by the entries for training? */
static bool half_combine(const struct graph *g, const struct graph_node *n)
{
    return g->whole && g->k->combine_half && kern_half_dim(n->n_in);
}

static void mark_combine(const struct graph *g, const struct graph_node *n, struct kern_combine *a)
{
    a->x0_16 = half(g, n->in[0]);
    a->x1_16 = half(g, n->in[1]);
    a->y16 = half(g, n->out[0]);
    a->n16 = half(g, n->out[1]);
    a->dx0_16 = half_grad(g, n->in[0]);
    a->dx1_16 = half_grad(g, n->in[1]);
    a->dy16 = half_grad(g, n->out[0]);
    a->dn16 = half_grad(g, n->out[1]);
}

/* Is n the second node of a pair in this run? */
static bool second(const struct graph *g, const struct graph_node *n)
{
    return g->whole && n > g->node && n[-1].pair;
}

static void pair_forward(struct graph *g, const struct graph_node *n, const float *params)
{
    struct kern_combine first = combine_args(g, n - 1, params), then = combine_args(g, n, params);
    mark_combine(g, n - 1, &first);
    mark_combine(g, n, &then);
    if (g->value[n->in[0]].last == n - g->node)
        first.y = NULL;
    g->k->combine_pair(g->k, &first, &then);
}

static void mark_attn(const struct graph *g, const struct graph_node *n, struct kern_attn *a)
{
    a->half = half(g, n->in[0]);
    a->half_o = half(g, n->out[0]);
    a->half_dqk = half_grad(g, n->in[0]);
    a->half_dv = half_grad(g, n->in[2]);
    a->joined = joined(g, n->in[2]);
}

/* What graph_train does in another way; false when this node is not concerned. */
static bool run_whole(struct graph *g, const struct graph_node *n, const float *params)
{
    struct kern *k = g->k;
    bool linear = n->op == OP_LINEAR || n->op == OP_LINEAR_ACT;
    if (second(g, n)) {
        pair_forward(g, n, params);
    } else if (n->pair) {
        return true; /* the node behind it will do it */
    } else if (n->op == OP_EMBED && half(g, n->out[0])) {
        k->embed_half(k, val(g, n->out[0]), par(g, params, n->p[0]), n->hashed ? g->hashed : g->ids,
                      node_rows(g, n), n->n_in);
    } else if (n->op == OP_COMBINE && half_combine(g, n)) {
        struct kern_combine a = combine_args(g, n, params);
        mark_combine(g, n, &a);
        k->combine_half(k, &a);
    } else if (n->op == OP_QK && half(g, n->out[0])) {
        struct kern_qk a = qk_args(g, n, params);
        a.row = row_of(g, n->in[0]);
        k->qk_half(k, &a);
    } else if (n->op == OP_ATTN) {
        struct kern_attn a = attn_args(g, n);
        mark_attn(g, n, &a);
        if (!graph_xsa_fwd(g, n, &a))
            k->attn_fwd(k, &a);
    } else if (linear && k->linear_train) {
        struct kern_linear a = linear_args(g, n, params);
        if (n->join == JOIN_MIDDLE || n->join == JOIN_LAST)
            return true;
        if (n->join == JOIN_FIRST)
            graph_join_args(g, n, params, NULL, &a);
        k->linear_train(k, &a);
    } else if (n->op == OP_TAKE && half(g, n->in[0])) {
        k->take(k, val(g, n->out[0]), val(g, n->in[0]), g->batch, g->t, g->from, n->n_in / 2);
    } else {
        /* The backward will do the one, attention has done the other. */
        return (n->op == OP_HEAD && g->training && k->head_train) ||
               (n->op == OP_XSA && half(g, n->out[0]));
    }
    return true;
}

#endif

static void run_forward(struct graph *g, const struct graph_node *n, const float *params)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
    float *x = val(g, n->in[0]), *y = val(g, n->out[0]);
#ifndef RUNNER
    if (g->whole && run_whole(g, n, params))
        return;
#endif
    switch (n->op) {
    case OP_EMBED:
        k->embed_fwd(k, y, par(g, params, n->p[0]), n->hashed ? g->hashed : g->ids, rows, n->n_in);
        break;
    case OP_COMBINE: {
        struct kern_combine a = combine_args(g, n, params);
        k->combine_fwd(k, &a);
        break;
    }
    case OP_LINEAR:
        k->linear_fwd(k, y, x, par(g, params, n->p[0]), rows, n->n_out, n->n_in);
        break;
    case OP_LINEAR_ACT:
        k->linear_act_fwd(k, y, val(g, n->out[1]), x, par(g, params, n->p[0]), rows, n->n_out,
                          n->n_in, n->f);
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
    case OP_SHIFT:
        k->shift_fwd(k, y, x, g->batch, g->t, n->n_in);
        break;
    case OP_XSA: {
        struct kern_xsa a = xsa_args(g, n);
        k->xsa_fwd(k, &a);
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

/* Rows of the bigram table. The products wrap as the reference's 32-bit integers do; for up to
 * 59,000 pieces they do not. The remainder is Python's, which is never negative. */
static void hash_ids(struct graph *g, const uint16_t *ids)
{
    int64_t rows = (int64_t)g->hash_rows - 1;
    for (size_t i = 0; i < g->batch * g->t; i++) {
        int64_t h = rows, x = ids[i];
        if (i % g->t) {
            uint32_t a = 36313u * (uint32_t)x, b = 27191u * ids[i - 1];
            h = rows ? (int32_t)(a ^ b) % rows : 0;
            h += h < 0 ? rows : 0;
        }
        g->host_hashed[i] = (uint16_t)h;
    }
    g->k->upload(g->k, g->hashed, g->host_hashed, g->batch * g->t * sizeof *g->hashed);
}

PART void upload(struct graph *g, const uint16_t *ids, const uint16_t *target, size_t scored)
{
    g->k->upload(g->k, g->ids, ids, g->batch * g->t * sizeof *ids);
    if (g->hash_rows)
        hash_ids(g, ids);
    if (target)
        g->k->upload(g->k, g->target, target, scored * sizeof *target);
}

PART void forward(struct graph *g, const float *params, bool head)
{
    for (size_t i = 0; i < g->coefs; i++) {
        struct kern_coef a = coef_args(g, &g->coef[i], params);
        g->k->coef_fwd(g->k, &a);
    }
    for (size_t i = 0; i < g->nodes; i++)
        if (!g->node[i].dead && (head || g->node[i].op != OP_HEAD))
            run_forward(g, &g->node[i], params);
}

enum err_code graph_forward(struct graph *g, const float *params, const uint16_t *ids,
                            const uint16_t *target, float *nll, struct err *e)
{
    size_t scored = g->batch * (g->t - g->from);
    upload(g, ids, target, scored);
#ifndef RUNNER
    g->whole = g->lean;
#endif
    forward(g, params, target);
#ifndef RUNNER
    g->whole = false;
#endif
    if (nll)
        g->k->download(g->k, nll, val(g, g->nll), scored * sizeof *nll);
    return g->k->sync(g->k, e);
}

const float *graph_hidden(const struct graph *g)
{
    for (size_t i = g->nodes; i-- > 0;)
        if (g->node[i].op == OP_HEAD)
            return val(g, g->node[i].in[0]);
    return NULL;
}

bool graph_input(const struct graph *g, size_t node, struct graph_input *in)
{
    const struct graph_node *n = &g->node[node];
    if (n->dead || (n->op != OP_LINEAR && n->op != OP_LINEAR_ACT))
        return false;
    *in = (struct graph_input){n->p[0], val(g, n->in[0]), node_rows(g, n), n->n_in};
    return true;
}

void graph_read(struct graph *g, int value, float *out)
{
    const struct graph_value *v = &g->value[value];
    size_t rows = g->batch * (g->t - (v->tail ? g->from : 0));
#ifndef RUNNER
    if (g->lean && v->half) { /* widened from the end of the same memory */
        uint16_t bf16;
        g->k->download(g->k, out, val(g, value), rows * v->width * sizeof bf16);
        for (size_t i = rows * v->width; i-- > 0;) {
            memcpy(&bf16, (const char *)out + i * sizeof bf16, sizeof bf16);
            uint32_t word = (uint32_t)bf16 << 16;
            memcpy(out + i, &word, sizeof word);
        }
        return;
    }
#endif
    g->k->download(g->k, out, val(g, value), rows * v->width * sizeof *out);
}

#ifndef KERN_FORWARD_ONLY

static float *grad(const struct graph *g, int v)
{
#ifndef RUNNER
    if (joined(g, v))
        return half_at(g, g->value[v].joined_grad);
#endif
    return v == GRAPH_NONE || g->value[v].grad == GRAPH_NONE ? NULL : g->block + g->value[v].grad;
}

static float *gpar(const struct graph *g, float *grads, ptrdiff_t at)
{
    if (at < GRAPH_NONE)
        return coef_at(g->coef_grad, at);
    return at == GRAPH_NONE ? NULL : grads + at;
}

/* f: what the gradient of the output is multiplied with, in place, to be that of x W^T; or NULL. */
static void linear_backward(struct graph *g, const struct graph_node *n, float *dy, const float *f,
                            const float *params, float *grads)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
#ifndef RUNNER
    if (g->whole && k->linear_bwd) {
        struct kern_linear a;
        bool add = n->add[0]; /* of three that are one product, the last: its turn comes first */
        if (n->join == JOIN_FIRST || n->join == JOIN_MIDDLE)
            return;
        if (n->join == JOIN_LAST)
            n -= 2;
        a = linear_args(g, n, params);
        if (n->join != JOIN_NONE)
            graph_join_args(g, n, params, grads, &a);
        a.dy = grad(g, n->out[0]);
        a.dy16 = half_grad(g, n->out[0]);
        a.dx = grad(g, n->in[0]);
        a.dx16 = half_grad(g, n->in[0]);
        a.dw = grads + n->p[0];
        a.add = add;
        a.g_done = g->value[n->out[0]].grad_g;
        if (g->value[n->in[0]].grad_g) {
            const struct graph_node *act = &g->node[g->value[n->in[0]].made];
            a.x_f = val(g, act->out[1]);
            a.x_slope = act->f;
        }
        k->linear_bwd(k, &a);
        return;
    }
#endif
    if (f)
        k->mul(k, dy, dy, f, rows * n->n_out);
    if (g->tap)
        g->tap(g->tap_ctx, n->p[0], dy, rows, n->n_out);
    k->linear_bwd_w(k, grads + n->p[0], dy, val(g, n->in[0]), rows, n->n_out, n->n_in);
    k->linear_bwd_x(k, grad(g, n->in[0]), dy, params + n->p[0], rows, n->n_out, n->n_in, n->add[0]);
}

/* What combine_bwd wants besides what the forward had. */
PART void add_grads(const struct graph *g, const struct graph_node *n, float *grads,
                    struct kern_combine *a)
{
    a->dy = grad(g, n->out[0]);
    a->dn = grad(g, n->out[1]);
    a->dx0 = grad(g, n->in[0]);
    a->dx1 = grad(g, n->in[1]);
    a->add0 = n->add[0];
    a->add1 = n->add[1];
    a->dc0 = gpar(g, grads, n->p[0]);
    a->dc1 = gpar(g, grads, n->p[1]);
}

#ifndef RUNNER
/* By the entries for training; a is what combine_bwd would get. */
static void combine_backward(struct graph *g, const struct graph_node *n, struct kern_combine *a,
                             const float *params, float *grads)
{
    mark_combine(g, n, a);
    if (second(g, n)) {
        struct kern_combine first = combine_args(g, n - 1, params);
        add_grads(g, n - 1, grads, &first);
        mark_combine(g, n - 1, &first);
        if (!n->add[0]) /* its gradient comes from n alone */
            first.dy = NULL;
        g->k->combine_bwd_pair(g->k, &first, a);
    } else if (!n->pair) {
        g->k->combine_bwd_half(g->k, a);
    }
}
#endif

static void run_backward(struct graph *g, const struct graph_node *n, const float *params,
                         float *grads, float gscale)
{
    struct kern *k = g->k;
    size_t rows = node_rows(g, n);
    float *dy = grad(g, n->out[0]);
    switch (n->op) {
    case OP_EMBED:
#ifndef RUNNER
        if (half_grad(g, n->out[0])) {
            k->embed_bwd_half(k, grads + n->p[0], dy, n->hashed ? g->hashed : g->ids, rows, n->n_in,
                              n->n_out);
            break;
        }
#endif
        k->embed_bwd(k, grads + n->p[0], dy, n->hashed ? g->hashed : g->ids, rows, n->n_in,
                     n->n_out);
        break;
    case OP_COMBINE: {
        struct kern_combine a = combine_args(g, n, params);
        add_grads(g, n, grads, &a);
#ifndef RUNNER
        if (half_combine(g, n)) {
            combine_backward(g, n, &a, params, grads);
            break;
        }
#endif
        k->combine_bwd(k, &a);
        break;
    }
    case OP_LINEAR_ACT:
    case OP_LINEAR: /* a plain one has no out[1] */
        linear_backward(g, n, dy, val(g, n->out[1]), params, grads);
        break;
    case OP_QK: {
        struct kern_qk a = qk_args(g, n, params);
        a.dy = dy;
        a.dx = grad(g, n->in[0]);
        a.dgain = gpar(g, grads, n->p[0]);
#ifndef RUNNER
        if (half_grad(g, n->in[0])) {
            a.row = row_of(g, n->in[0]);
            k->qk_bwd_half(k, &a);
            break;
        }
#endif
        k->qk_bwd(k, &a);
        break;
    }
    case OP_ATTN: {
        struct kern_attn a = attn_args(g, n);
        a.do_ = dy;
        a.dq = grad(g, n->in[0]);
        a.dk = grad(g, n->in[1]);
        a.dv = grad(g, n->in[2]);
        a.add_dv = n->add[2];
#ifndef RUNNER
        mark_attn(g, n, &a);
        if (graph_xsa_bwd(g, n, &a))
            break;
#endif
        k->attn_bwd(k, &a);
        break;
    }
    case OP_SHIFT:
        k->shift_bwd(k, grad(g, n->in[0]), dy, g->batch, g->t, n->n_in, n->add[0]);
        break;
    case OP_XSA: {
        struct kern_xsa a = xsa_args(g, n);
        a.dy = dy;
        a.do_ = grad(g, n->in[0]);
        a.dv = grad(g, n->in[1]);
        a.add = n->add[1];
#ifndef RUNNER
        if (half(g, n->out[0]))
            break; /* attention will do it */
#endif
        k->xsa_bwd(k, &a);
        break;
    }
    case OP_HEAD: {
        struct kern_head a = head_args(g, n, params);
        a.gscale = gscale;
        a.dh = grad(g, n->in[0]);
        a.dw = gpar(g, grads, n->p[0]);
#ifndef RUNNER
        if (g->whole && k->head_train) {
            k->head_train(k, &a, half(g, n->in[0]), half_grad(g, n->in[0]));
            break;
        }
#endif
        k->head_bwd(k, &a);
        break;
    }
    case OP_TAKE: /* only scoring plans have it */
        break;
    }
}

static void coef_backward(struct graph *g, const struct graph_coef *c, const float *params,
                          float *grads)
{
    struct kern_coef a = coef_args(g, c, params);
    a.dc0 = gpar(g, grads, c->c[0]);
    a.dc1 = gpar(g, grads, c->c[1]);
    a.dp0 = gpar(g, grads, c->p0);
    a.dp1 = gpar(g, grads, c->p1);
    a.dw = gpar(g, grads, c->w);
    g->k->coef_bwd(g->k, &a);
}

void graph_backward(struct graph *g, const float *params, float *grads, float gscale)
{
    if (g->coefs)
        g->k->zero(g->k, g->coef_grad, g->coef_floats * sizeof *g->coef_grad);
    for (size_t i = g->nodes; i-- > 0;) {
        if (!g->node[i].dead)
            run_backward(g, &g->node[i], params, grads, gscale);
#ifndef RUNNER
        if (g->done)
            g->done(g->done_ctx, g->nodes - i);
#endif
    }
    for (size_t i = g->coefs; i-- > 0;)
        coef_backward(g, &g->coef[i], params, grads);
}

#ifndef RUNNER

void graph_tokens_in(struct graph *g, const uint16_t *ids, const uint16_t *target)
{
    upload(g, ids, target, g->batch * (g->t - g->from));
}

void graph_carry_out(struct graph *g, const float *params, float *grads, float gscale)
{
    double began = seconds_now();
    g->whole = !g->tap;
    forward(g, params, true);
    g->forward_s = seconds_now() - began;
    graph_backward(g, params, grads, gscale);
    g->whole = false;
}

#endif

#endif
