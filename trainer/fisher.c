/* fisher.c - see fisher.h. */
#include "trainer/fisher.h"

#include <stdlib.h>
#include <string.h>

enum { LOGIT_ROWS = 256 };

/* A collection under way. */
struct collect {
    struct fisher *f;
    const struct gpt *m;
    struct kern *k;
    struct graph g;
    float *params, *grads; /* backend */
    float *logits;         /* backend, [LOGIT_ROWS][vocab] */
    float *product;        /* backend, [dim][dim] */
    float *host;           /* the largest thing that comes back: logits, gradients of a layer */
    size_t host_floats;
    uint16_t *ids, *target; /* host, one forward */
    uint64_t seed;
};

void fisher_free(struct fisher *f)
{
    for (size_t i = 0; i < f->layers; i++)
        free(f->layer[i].mean);
    for (size_t i = 0; i < f->tables; i++) {
        free(f->table[i].row);
        free(f->table[i].col);
    }
    free(f->layer);
    free(f->table);
    free(f->head);
    free(f->seen);
    free(f->hidden);
    free(f->input);
    *f = (struct fisher){0};
}

const struct fisher_layer *fisher_find(const struct fisher *f, size_t w)
{
    for (size_t i = 0; i < f->layers; i++)
        if (f->layer[i].w == (ptrdiff_t)w)
            return &f->layer[i];
    return NULL;
}

static const struct gpt_param *tokens_of(const struct gpt *m)
{
    return gpt_find(m, "tok_emb.weight");
}

/* Layers and tables of the model, all sums at 0. */
static enum err_code find_parts(struct collect *c, struct err *e)
{
    struct fisher *f = c->f;
    const struct gpt *m = c->m;
    struct graph_input in;
    f->vocab = (size_t)m->r.vocab_size;
    f->dim = (size_t)m->r.model_dim;
    f->layer = calloc(c->g.nodes + 1, sizeof *f->layer);
    f->table = calloc(m->nparams + 1, sizeof *f->table);
    f->head = calloc(f->vocab, sizeof *f->head);
    f->seen = calloc(f->vocab, sizeof *f->seen);
    f->hidden = calloc(f->dim * f->dim, sizeof *f->hidden);
    f->input = calloc(f->dim * f->dim, sizeof *f->input);
    bool ok = f->layer && f->table && f->head && f->seen && f->hidden && f->input;
    for (size_t i = 0; ok && i < c->g.nodes; i++) {
        if (!graph_input(&c->g, i, &in) || fisher_find(f, (size_t)in.w))
            continue;
        struct fisher_layer *l = &f->layer[f->layers++];
        *l = (struct fisher_layer){.w = in.w, .n_out = c->g.node[i].n_out};
        ok = (l->mean = calloc(l->n_out, sizeof *l->mean));
        if (l->n_out * in.rows > c->host_floats)
            c->host_floats = l->n_out * in.rows;
    }
    for (size_t i = 0; ok && i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        if (p->cls != PARAM_EMBED || p == tokens_of(m))
            continue;
        struct fisher_table *t = &f->table[f->tables++];
        t->p = p;
        t->row = calloc(p->shape[0], sizeof *t->row);
        t->col = calloc(p->shape[1], sizeof *t->col);
        ok = t->row && t->col;
        if (p->size > c->host_floats)
            c->host_floats = p->size;
    }
    return ok ? ERR_OK : err_nomem(e, "sensitivities", f->dim * f->dim * sizeof *f->hidden);
}

static enum err_code allocate(struct collect *c, const float *params, struct err *e)
{
    struct kern *k = c->k;
    const struct fisher *f = c->f;
    size_t rows = c->g.batch * c->g.t, floats = c->m->floats, logits = LOGIT_ROWS * f->vocab;
    size_t square = f->dim * f->dim;
    c->host_floats = logits > c->host_floats ? logits : c->host_floats;
    c->host_floats = square > c->host_floats ? square : c->host_floats;
    c->params = k->alloc(k, floats * sizeof(float));
    c->grads = k->alloc(k, floats * sizeof(float));
    c->logits = k->alloc(k, logits * sizeof(float));
    c->product = k->alloc(k, square * sizeof(float));
    c->host = malloc(c->host_floats * sizeof *c->host);
    c->ids = malloc(2 * rows * sizeof *c->ids);
    if (!c->params || !c->grads || !c->logits || !c->product || !c->host || !c->ids)
        return err_nomem(e, "sensitivities", (2 * floats + logits + c->host_floats) * 4);
    c->target = c->ids + rows;
    k->upload(k, c->params, params, floats * sizeof *params);
    return ERR_OK;
}

static const float *to_host(struct collect *c, const float *x, size_t n)
{
    c->k->download(c->k, c->host, x, n * sizeof *x);
    return c->host; /* after the next sync */
}

/* graph_backward has reached a layer: the squares of its output's gradient. */
static void add_layer(void *ctx, ptrdiff_t w, const float *dy, size_t rows, size_t n_out)
{
    struct collect *c = ctx;
    struct err ignored = {0}; /* a failure is sticky, or there will be another */
    const float *g = to_host(c, dy, rows * n_out);
    for (size_t i = 0; i < c->f->layers; i++) {
        struct fisher_layer *l = &c->f->layer[i];
        if (l->w != w)
            continue;
        c->k->sync(c->k, &ignored);
        l->rows += rows;
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < n_out; j++) {
                double x = (double)g[r * n_out + j];
                l->mean[j] += x * x;
            }
    }
}

/* sum += x^T x for x [rows][dim] in backend memory. */
static enum err_code add_square(struct collect *c, float *sum, const float *x, size_t rows,
                                struct err *e)
{
    struct kern *k = c->k;
    size_t dim = c->f->dim;
    k->gemm(k, c->product, x, x, dim, dim, rows, true, false, 1, 0);
    const float *p = to_host(c, c->product, dim * dim);
    enum err_code rc = k->sync(k, e);
    for (size_t i = 0; i < dim * dim; i++)
        sum[i] += p[i];
    return rc;
}

/* splitmix64, as a number in [0, 1). */
static double next_uniform(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* One row of capped logits: the head's share of it, and a target drawn from it. p [vocab] out. */
static uint16_t head_row(struct collect *c, float *l)
{
    size_t vocab = c->f->vocab, pick = 0;
    double cap = c->m->r.logit_softcap, sum = 0, at = 0, u;
    float top = l[0];
    for (size_t v = 1; v < vocab; v++)
        top = l[v] > top ? l[v] : top;
    for (size_t v = 0; v < vocab; v++)
        sum += kern_exp((double)(l[v] - top));
    u = next_uniform(&c->seed) * sum;
    for (size_t v = 0; v < vocab; v++) {
        double x = kern_exp((double)(l[v] - top)), p = x / sum;
        double slope = cap > 0 ? 1 - ((double)l[v] / cap) * ((double)l[v] / cap) : 1;
        c->f->head[v] += p * (1 - p) * slope * slope;
        pick = at <= u ? v : pick;
        at += x;
    }
    return (uint16_t)pick;
}

/* Targets from the model's predictions, after a forward without targets. */
static enum err_code sample(struct collect *c, struct err *e)
{
    struct kern *k = c->k;
    struct fisher *f = c->f;
    const float *h = graph_hidden(&c->g), *w = c->params + gpt_head(c->m);
    size_t rows = c->g.batch * c->g.t;
    enum err_code rc = add_square(c, f->hidden, h, rows, e);
    for (size_t r = 0; r < rows && !rc; r += LOGIT_ROWS) {
        size_t n = rows - r < LOGIT_ROWS ? rows - r : LOGIT_ROWS;
        k->head_logits(k, c->logits, h + r * f->dim, w, n, f->dim, f->vocab,
                       (float)c->m->r.logit_softcap);
        to_host(c, c->logits, n * f->vocab);
        rc = k->sync(k, e);
        for (size_t i = 0; i < n && !rc; i++)
            c->target[r + i] = head_row(c, c->host + i * f->vocab);
    }
    return rc;
}

static enum err_code add_tables(struct collect *c, struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < c->f->tables && !rc; i++) {
        struct fisher_table *t = &c->f->table[i];
        size_t cols = t->p->shape[1];
        const float *g = to_host(c, c->grads + t->p->at, t->p->size);
        rc = c->k->sync(c->k, e);
        for (size_t j = 0; j < t->p->size; j++) {
            double x = (double)g[j] * (double)g[j];
            t->row[j / cols] += x;
            t->col[j % cols] += x;
        }
    }
    return rc;
}

/* The gradient at the output of the token embedding: the first node, so that nothing has been put
 * in its place when the backward ends. NULL when the graph is another. */
static const float *embedded(const struct collect *c)
{
    const struct graph_node *n = &c->g.node[0];
    const struct gpt_param *p = tokens_of(c->m);
    if (n->op != OP_EMBED || !p || n->p[0] != (ptrdiff_t)p->at ||
        c->g.value[n->out[0]].grad == GRAPH_NONE)
        return NULL;
    return c->g.block + c->g.value[n->out[0]].grad;
}

static enum err_code add_forward(struct collect *c, struct err *e)
{
    struct kern *k = c->k;
    size_t rows = c->g.batch * c->g.t;
    enum err_code rc = graph_forward(&c->g, c->params, c->ids, NULL, NULL, e);
    if (rc || (rc = sample(c, e)) ||
        (rc = graph_forward(&c->g, c->params, c->ids, c->target, NULL, e)))
        return rc;
    k->zero(k, c->grads, c->m->floats * sizeof(float));
    graph_backward(&c->g, c->params, c->grads, 1);
    if ((rc = k->sync(k, e)) || (rc = add_tables(c, e)))
        return rc;
    for (size_t i = 0; i < rows; i++)
        c->f->seen[c->ids[i]]++;
    c->f->tokens += rows;
    return embedded(c) ? add_square(c, c->f->input, embedded(c), rows, e) : ERR_OK;
}

/* Sums to means. */
static void finish(struct fisher *f)
{
    double n = (double)f->tokens;
    for (size_t i = 0; i < f->layers; i++)
        for (size_t j = 0; j < f->layer[i].n_out; j++)
            f->layer[i].mean[j] /= (double)f->layer[i].rows;
    for (size_t i = 0; i < f->tables; i++) {
        struct fisher_table *t = &f->table[i];
        for (size_t j = 0; j < t->p->shape[0]; j++)
            t->row[j] /= n;
        for (size_t j = 0; j < t->p->shape[1]; j++)
            t->col[j] /= n;
    }
    for (size_t v = 0; v < f->vocab; v++) {
        f->head[v] /= n;
        f->seen[v] = (f->seen[v] + 0.5) / (n + 0.5 * (double)f->vocab);
    }
    for (size_t i = 0; i < f->dim * f->dim; i++) {
        f->hidden[i] /= (float)n;
        f->input[i] /= (float)n;
    }
}

enum err_code fisher_collect(struct fisher *f, const struct gpt *m, const float *params,
                             size_t tokens, const struct calib *cal, struct err *e)
{
    size_t t = (size_t)m->r.train_seq_len, per = HESSIAN_ROWS / t ? HESSIAN_ROWS / t : 1;
    size_t seqs = (tokens + t - 1) / t;
    struct collect c = {.f = f, .m = m, .k = cal->k};
    enum err_code rc;
    *f = (struct fisher){0};
    per = per > seqs ? seqs : per;
    seqs = (seqs + per - 1) / per * per;
    graph_init(&c.g);
    gpt_graph(m, &c.g, true);
    if ((rc = graph_plan(&c.g, c.k, per, t, 0, true, e)) || (rc = find_parts(&c, e)) ||
        (rc = allocate(&c, params, e)))
        goto out;
    c.g.tap = add_layer;
    c.g.tap_ctx = &c;
    for (size_t s = 0; s < seqs && !rc; s += per) {
        if ((rc = cal->take(cal->ctx, c.ids, per * t, e)) || (rc = add_forward(&c, e)))
            goto out;
        if (cal->progress)
            cal->progress(cal->progress_ctx, "sensitivities", s + per, seqs);
    }
    finish(f);
out:
    c.k->free(c.k, c.params);
    c.k->free(c.k, c.grads);
    c.k->free(c.k, c.logits);
    c.k->free(c.k, c.product);
    graph_free(&c.g);
    free(c.host);
    free(c.ids);
    if (rc)
        fisher_free(f);
    return rc;
}
