/* probe_engine.c - see probe_engine.h. */
#include "verify/probe_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "packer/blob.h"
#include "stub/weights_dec.h"

/* The views of a decoded weight section; *t is for the caller to free. */
static enum err_code views(struct tensor_view **t, size_t *n, const uint8_t *payload, size_t size,
                           const char *where, struct err *e)
{
    struct weights_cursor c;
    struct tensor_view v;
    size_t count = 0;

    weights_open(&c, payload, size);
    while (weights_next(&c, &v))
        count++;
    *t = malloc((count + 1) * sizeof **t);
    if (!*t)
        return err_nomem(e, "names of tensors", count * sizeof **t);
    if (c.bad)
        return err_set(e, ERR_INPUT, "%s: table of tensors is damaged", where);
    weights_open(&c, payload, size);
    for (*n = 0; *n < count && weights_next(&c, &v); ++*n)
        (*t)[*n] = v;
    return ERR_OK;
}

enum err_code probe_engine_open(struct engine *g, const struct probe_file *f, size_t threads,
                                struct err *e)
{
    struct blob b = {0};
    struct tensor_view *t = NULL;
    uint8_t *payload = NULL;
    size_t n = 0;
    char where[1100];
    enum err_code rc = blob_parse(&b, f->data, f->size, f->path, NULL, 0, e);

    *g = (struct engine){0};
    if (rc)
        return rc;
    const struct blob_section *s = blob_find(&b, KIND_WEIGHTS);
    snprintf(where, sizeof where, "%s: weights", f->path);
    if (!(rc = blob_decode(&payload, s, f->path, e)) &&
        !(rc = views(&t, &n, payload, s->raw_size, where, e)))
        rc = engine_open(g, &f->m.r, t, n, where, NULL, threads, NULL, e);
    free(t);
    free(payload);
    blob_close(&b);
    return rc;
}

/* Softmax in double: q sums to 1 up to its rounding. */
static void softmax(double *q, const float *logit, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)logit[i]);
    for (size_t i = 0; i < n; i++)
        sum += q[i] = exp((double)logit[i] - max);
    for (size_t i = 0; i < n; i++)
        q[i] /= sum;
}

enum err_code probe_engine_at(struct engine *g, const uint16_t *tok, size_t n, double *q,
                              struct err *e)
{
    const struct recipe *r = &g->m.r;
    size_t vocab = (size_t)r->vocab_size, dim = (size_t)r->model_dim;
    float *host = malloc(vocab * sizeof *host), *l = g->k->alloc(g->k, vocab * sizeof *l);
    struct graph graph;
    enum err_code rc;

    graph_init(&graph);
    if (!host || !l) {
        rc = err_nomem(e, "logits", vocab * sizeof *l);
        goto out;
    }
    gpt_graph(&g->m, &graph, true);
    if ((rc = graph_plan(&graph, g->k, 1, n, n - 1, false, e)) ||
        (rc = graph_forward(&graph, g->params, tok, NULL, NULL, e)))
        goto out;
    g->k->head_logits(g->k, l, graph_hidden(&graph), g->params + gpt_head(&g->m), 1, dim, vocab,
                      (float)r->logit_softcap);
    g->k->download(g->k, host, l, vocab * sizeof *host);
    if (!(rc = g->k->sync(g->k, e)))
        softmax(q, host, vocab);
out:
    graph_free(&graph);
    if (l)
        g->k->free(g->k, l);
    free(host);
    return rc;
}
