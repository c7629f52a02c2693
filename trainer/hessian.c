/* hessian.c - see hessian.h. */
#include "trainer/hessian.h"

#include <stdlib.h>

/* A collection under way. Sums live in backend memory. */
struct collect {
    struct kern *k;
    struct graph g;
    float *params, *part; /* backend: parameters, X^T X of one input */
    float **sum;          /* [hs->count] backend, NULL for layers that share another's */
    size_t *layer;        /* [g.nodes] layer whose sum a node adds to, or SIZE_MAX */
    uint16_t *ids;        /* host, one batch */
};

void hessian_free(struct hessians *hs)
{
    for (size_t i = 0; i < hs->count; i++)
        free(hs->of[i].h);
    free(hs->of);
    *hs = (struct hessians){0};
}

const struct hessian *hessian_find(const struct hessians *hs, size_t w)
{
    for (size_t i = 0; i < hs->count; i++)
        if (hs->of[i].w == (ptrdiff_t)w)
            return &hs->of[i];
    return NULL;
}

const float *hessian_matrix(const struct hessians *hs, const struct hessian *h)
{
    return hs->of[h->same_as].h;
}

/* The next node from *node on whose weight is w; false when there is none. */
static bool next_of(const struct graph *g, size_t *node, ptrdiff_t w, struct graph_input *in)
{
    for (; *node < g->nodes; ++*node)
        if (graph_input(g, *node, in) && in->w == w) {
            ++*node;
            return true;
        }
    return false;
}

/* Do two layers read the same values, run for run? A training plan keeps every input of a linear
 * layer for the backward, so equal addresses are equal values. */
static bool same_inputs(const struct graph *g, ptrdiff_t w0, ptrdiff_t w1)
{
    struct graph_input a, b;
    for (size_t i = 0, j = 0;;) {
        bool more = next_of(g, &i, w0, &a);
        if (more != next_of(g, &j, w1, &b))
            return false;
        if (!more)
            return true;
        if (a.x != b.x)
            return false;
    }
}

/* The layers of the graph, and which of its nodes feed a sum. */
static enum err_code find_layers(struct hessians *hs, struct collect *c, struct err *e)
{
    const struct graph *g = &c->g;
    struct graph_input in;
    hs->of = calloc(g->nodes + 1, sizeof *hs->of);
    c->layer = malloc((g->nodes + 1) * sizeof *c->layer);
    c->sum = calloc(g->nodes + 1, sizeof *c->sum);
    if (!hs->of || !c->layer || !c->sum)
        return err_nomem(e, "layers", g->nodes * sizeof *hs->of);
    for (size_t i = 0; i < g->nodes; i++) {
        c->layer[i] = SIZE_MAX;
        if (!graph_input(g, i, &in))
            continue;
        const struct hessian *known = hessian_find(hs, (size_t)in.w);
        size_t at = known ? (size_t)(known - hs->of) : hs->count;
        if (!known) {
            hs->of[at] = (struct hessian){.w = in.w, .n = in.n_in, .same_as = at};
            for (size_t j = 0; j < at && hs->of[at].same_as == at; j++)
                if (hs->of[j].same_as == j && same_inputs(g, hs->of[j].w, in.w))
                    hs->of[at].same_as = j;
            hs->count++;
        }
        if (hs->of[at].same_as == at)
            c->layer[i] = at;
    }
    return ERR_OK;
}

static enum err_code allocate(struct hessians *hs, struct collect *c, size_t floats, struct err *e)
{
    size_t largest = 0, all = 0;
    for (size_t i = 0; i < hs->count; i++) {
        size_t cells = hs->of[i].n * hs->of[i].n;
        if (hs->of[i].same_as != i)
            continue;
        largest = cells > largest ? cells : largest;
        all += cells;
        if (!(c->sum[i] = c->k->alloc(c->k, cells * sizeof(float))))
            return err_nomem(e, "Hessians", all * sizeof(float));
    }
    c->part = c->k->alloc(c->k, (largest + 1) * sizeof(float));
    c->params = c->k->alloc(c->k, floats * sizeof(float));
    return c->part && c->params ? ERR_OK : err_nomem(e, "Hessians", (largest + floats) * 4);
}

/* One forward over the plan's sequences. */
static enum err_code add_forward(struct collect *c, const uint16_t *ids, struct err *e)
{
    struct kern *k = c->k;
    enum err_code rc = graph_forward(&c->g, c->params, ids, NULL, NULL, e);
    for (size_t i = 0; i < c->g.nodes && !rc; i++) {
        struct graph_input in;
        if (c->layer[i] == SIZE_MAX || !graph_input(&c->g, i, &in))
            continue;
        k->gemm(k, c->part, in.x, in.x, in.n_in, in.n_in, in.rows, true, false, 1, 0);
        k->axpby(k, c->sum[c->layer[i]], c->part, in.n_in * in.n_in, 1, 1);
    }
    return rc ? rc : k->sync(k, e);
}

/* Sums to host, divided by the number of batches, damped. */
static enum err_code finish(struct hessians *hs, struct collect *c, const struct recipe *r,
                            struct err *e)
{
    for (size_t i = 0; i < hs->count; i++) {
        struct hessian *h = &hs->of[i];
        size_t n = h->n;
        if (h->same_as != i) {
            h->trace = hs->of[h->same_as].trace;
            continue;
        }
        if (!(h->h = malloc(n * n * sizeof *h->h)))
            return err_nomem(e, "Hessian", n * n * sizeof *h->h);
        c->k->download(c->k, h->h, c->sum[i], n * n * sizeof *h->h);
        enum err_code rc = c->k->sync(c->k, e);
        if (rc)
            return rc;
        c->k->free(c->k, c->sum[i]);
        c->sum[i] = NULL;
        double sum = 0;
        for (size_t j = 0; j < n * n; j++)
            h->h[j] /= (float)r->gptq_calib_batches;
        for (size_t j = 0; j < n; j++)
            sum += (double)h->h[j * n + j];
        double mean = sum / (double)n > 1e-6 ? sum / (double)n : 1e-6;
        for (size_t j = 0; j < n && r->gptq_collect_damp > 0; j++)
            h->h[j * n + j] += (float)(r->gptq_collect_damp * mean);
        for (size_t j = 0; j < n; j++)
            h->trace += (double)h->h[j * n + j];
    }
    return ERR_OK;
}

static void collect_free(struct collect *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        c->k->free(c->k, c->sum[i]);
    c->k->free(c->k, c->part);
    c->k->free(c->k, c->params);
    graph_free(&c->g);
    free(c->sum);
    free(c->layer);
    free(c->ids);
}

/* Sequences per forward: the largest divisor of those of a batch that fits HESSIAN_ROWS. */
static size_t forward_seqs(size_t seqs, size_t t)
{
    for (size_t n = HESSIAN_ROWS / t; n > 1; n--)
        if (seqs % n == 0)
            return n;
    return 1;
}

enum err_code hessian_collect(struct hessians *hs, const struct gpt *m, const float *params,
                              const struct recipe *r, const struct calib *cal, struct err *e)
{
    size_t t = (size_t)m->r.train_seq_len, tokens = (size_t)r->gptq_batch_tokens;
    size_t batches = (size_t)r->gptq_calib_batches, seqs = tokens / t, per = forward_seqs(seqs, t);
    struct collect c = {.k = cal->k};
    enum err_code rc;
    *hs = (struct hessians){0};
    if (tokens % t)
        return err_set(e, ERR_USAGE, "GPTQ_BATCH_TOKENS=%zu: no multiple of TRAIN_SEQ_LEN=%zu",
                       tokens, t);
    graph_init(&c.g);
    gpt_graph(m, &c.g, true);
    if ((rc = graph_plan(&c.g, c.k, per, t, 0, true, e)) || (rc = find_layers(hs, &c, e)) ||
        (rc = allocate(hs, &c, m->floats, e)))
        goto out;
    if (!(c.ids = malloc(tokens * sizeof *c.ids))) {
        rc = err_nomem(e, "calibration batch", tokens * sizeof *c.ids);
        goto out;
    }
    c.k->upload(c.k, c.params, params, m->floats * sizeof *params);
    for (size_t b = 0; b < batches; b++) {
        if ((rc = cal->take(cal->ctx, c.ids, tokens, e)))
            goto out;
        for (size_t s = 0; s < seqs; s += per) {
            if ((rc = add_forward(&c, c.ids + s * t, e)))
                goto out;
            if (cal->progress)
                cal->progress(cal->progress_ctx, "calibration", b * seqs + s + per, batches * seqs);
        }
    }
    rc = finish(hs, &c, r, e);
out:
    collect_free(&c, hs->count);
    if (rc)
        hessian_free(hs);
    return rc;
}
