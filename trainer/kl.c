/* kl.c - see kl.h. */
#include "trainer/kl.h"

#include <stdlib.h>
#include <string.h>

void kl_close(struct kl *l)
{
    if (l->k) {
        l->k->free(l->k, l->params);
        l->k->free(l->k, l->head);
        l->k->free(l->k, l->hidden);
        l->k->free(l->k, l->logits[0]);
        l->k->free(l->k, l->logits[1]);
    }
    graph_free(&l->g);
    free(l->ids);
    free(l->host[0]);
    free(l->host[1]);
    *l = (struct kl){0};
}

static enum err_code allocate(struct kl *l, struct err *e)
{
    struct kern *k = l->k;
    size_t rows = l->seqs * l->g.t, floats = l->m->floats, block = KL_ROWS * l->vocab;
    l->params = k->alloc(k, floats * sizeof(float));
    l->head = k->alloc(k, l->vocab * l->dim * sizeof(float));
    l->hidden = k->alloc(k, rows * l->dim * sizeof(float));
    l->ids = malloc(rows * sizeof *l->ids);
    bool ok = l->params && l->head && l->hidden && l->ids;
    for (size_t i = 0; i < 2; i++) {
        l->logits[i] = k->alloc(k, block * sizeof(float));
        l->host[i] = malloc(block * sizeof *l->host[i]);
        ok = ok && l->logits[i] && l->host[i];
    }
    return ok ? ERR_OK : err_nomem(e, "divergence", (floats + rows * l->dim + 4 * block) * 4);
}

/* The model over sequences s.. of one forward; returns the head's input. */
static const float *forward(struct kl *l, size_t s, enum err_code *rc, struct err *e)
{
    *rc = graph_forward(&l->g, l->params, l->ids + s * l->g.t, NULL, NULL, e);
    return graph_hidden(&l->g);
}

enum err_code kl_open(struct kl *l, const struct gpt *m, const float *params, size_t tokens,
                      const struct calib *c, struct err *e)
{
    size_t t = (size_t)m->r.train_seq_len, seqs = (tokens + t - 1) / t;
    enum err_code rc;
    *l = (struct kl){.m = m, .k = c->k, .per = HESSIAN_ROWS / t ? HESSIAN_ROWS / t : 1};
    l->per = l->per > seqs ? seqs : l->per;
    l->seqs = (seqs + l->per - 1) / l->per * l->per;
    l->vocab = (size_t)m->r.vocab_size;
    l->dim = (size_t)m->r.model_dim;
    graph_init(&l->g);
    gpt_graph(m, &l->g, true);
    if ((rc = graph_plan(&l->g, l->k, l->per, t, 0, false, e)) || (rc = allocate(l, e)) ||
        (rc = c->take(c->ctx, l->ids, l->seqs * t, e)))
        goto fail;
    l->k->upload(l->k, l->params, params, m->floats * sizeof *params);
    l->k->upload(l->k, l->head, params + gpt_head(m), l->vocab * l->dim * sizeof *params);
    for (size_t s = 0; s < l->seqs; s += l->per) {
        const float *h = forward(l, s, &rc, e);
        if (rc)
            goto fail;
        l->k->axpby(l->k, l->hidden + s * t * l->dim, h, l->per * t * l->dim, 0, 1);
    }
    if ((rc = l->k->sync(l->k, e)))
        goto fail;
    return ERR_OK;
fail:
    kl_close(l);
    return rc;
}

/* Sum over rows of sum_v p_v (log p_v - log q_v) of logits p and q. */
static double divergence(const float *p, const float *q, size_t rows, size_t vocab)
{
    double sum = 0;
    for (size_t r = 0; r < rows; r++, p += vocab, q += vocab) {
        float top_p = p[0], top_q = q[0];
        double sum_p = 0, sum_q = 0, dot = 0;
        for (size_t v = 1; v < vocab; v++) {
            top_p = p[v] > top_p ? p[v] : top_p;
            top_q = q[v] > top_q ? q[v] : top_q;
        }
        for (size_t v = 0; v < vocab; v++) {
            double x = kern_exp((double)(p[v] - top_p));
            sum_p += x;
            sum_q += kern_exp((double)(q[v] - top_q));
            dot += x * ((double)(p[v] - top_p) - (double)(q[v] - top_q));
        }
        sum += dot / sum_p - kern_log(sum_p) + kern_log(sum_q);
    }
    return sum;
}

enum err_code kl_measure(struct kl *l, const float *params, double *kl, struct err *e)
{
    struct kern *k = l->k;
    size_t t = l->g.t, rows = l->per * t;
    float cap = (float)l->m->r.logit_softcap;
    enum err_code rc = ERR_OK;
    k->upload(k, l->params, params, l->m->floats * sizeof *params);
    *kl = 0;
    for (size_t s = 0; s < l->seqs && !rc; s += l->per) {
        const float *h = forward(l, s, &rc, e);
        for (size_t r = 0; r < rows && !rc; r += KL_ROWS) {
            size_t n = rows - r < KL_ROWS ? rows - r : KL_ROWS;
            const float *h0 = l->hidden + (s * t + r) * l->dim;
            k->head_logits(k, l->logits[0], h0, l->head, n, l->dim, l->vocab, cap);
            k->head_logits(k, l->logits[1], h + r * l->dim, l->params + gpt_head(l->m), n, l->dim,
                           l->vocab, cap);
            for (size_t i = 0; i < 2; i++)
                k->download(k, l->host[i], l->logits[i], n * l->vocab * sizeof(float));
            if (!(rc = k->sync(k, e)))
                *kl += divergence(l->host[0], l->host[1], n, l->vocab);
        }
    }
    *kl /= (double)(l->seqs * t);
    return rc;
}
