/* ttt.c - see ttt.h. */
#include "model/ttt.h"

#include <stdlib.h>
#include <string.h>

static const double PI = 0x1.921fb54442d18p+1, CLIP_EPS = 1e-6;

/* Part of a function that has only one caller in the runner, where a call costs bytes. */
#define PART static inline __attribute__((always_inline))

enum err_code ttt_check(const struct recipe *r, struct err *e)
{
    static const struct recipe_range range[] = {
        RECIPE_RANGE(TTT_EPOCHS, ttt_epochs, 0, 1000),
        RECIPE_RANGE(TTT_CHUNK_TOKENS, ttt_chunk_tokens, 1, INT32_MAX),
        RECIPE_RANGE(TTT_BATCH_SEQS, ttt_batch_seqs, 1, 65536),
        RECIPE_RANGE(TTT_FREEZE_BLOCKS, ttt_freeze_blocks, 0, RECIPE_LAYERS_MAX),
    };
    enum err_code rc = recipe_ranges(r, range, sizeof range / sizeof range[0], e);
    if (rc)
        return rc;
    if (r->ttt_freeze_blocks > r->num_layers)
        return err_set(e, ERR_USAGE, "TTT_FREEZE_BLOCKS=%lld: must be 0 to %lld",
                       (long long)r->ttt_freeze_blocks, (long long)r->num_layers);
    if ((size_t)r->ttt_chunk_tokens < recipe_eval_len(r))
        return err_set(e, ERR_USAGE,
                       "TTT_CHUNK_TOKENS=%lld: shorter than a row of %zu, nothing would be trained",
                       (long long)r->ttt_chunk_tokens, recipe_eval_len(r));
    if (!(r->ttt_lr >= 0 && r->ttt_lr <= 1e6))
        return err_set(e, ERR_USAGE, "TTT_LR: must be 0 to 1000000");
    if (!(r->ttt_momentum >= 0 && r->ttt_momentum < 1))
        return err_set(e, ERR_USAGE, "TTT_MOMENTUM: must be at least 0 and below 1");
    if (!(r->ttt_grad_clip >= 0))
        return err_set(e, ERR_USAGE, "TTT_GRAD_CLIP: must not be negative; 0 is no clipping");
    return ERR_OK;
}

/* Blocks of gradients: of `rows` one after another as many wait for their siblings, with the newest
 * one, as `rows` has binary digits. What a runner does not write to costs it nothing. */
static size_t blocks(const struct recipe *r, const struct score_share *h)
{
    size_t rows = (size_t)r->ttt_batch_seqs, most = (size_t)r->ttt_chunk_tokens;
    if (!IN_RUNNER && h)
        return ttt_share_blocks(r, h);
    if (!IN_RUNNER && most / recipe_eval_len(r) < rows)
        rows = most / recipe_eval_len(r);
    return 64 - (size_t)__builtin_clzll(rows);
}

enum err_code ttt_open_among(struct ttt *t, const struct gpt *m, struct kern *k,
                             const float *params, const struct score_share *h, struct err *e)
{
    enum err_code rc;
    size_t bytes;
    *t = (struct ttt){.m = m, .k = k, .len = recipe_eval_len(&m->r)};
    graph_init(&t->g);
    if (!IN_RUNNER && (rc = ttt_check(&m->r, e)))
        goto fail;
    gpt_graph(m, &t->g, true);
    if ((rc = graph_plan(&t->g, k, 1, t->len, 0, true, e)))
        goto fail;
    t->stride = IN_RUNNER ? m->floats : (m->floats + TTT_ALIGN - 1) / TTT_ALIGN * TTT_ALIGN;
    bytes = ((2 + blocks(&m->r, h)) * t->stride + ttt_aside(params)) * sizeof(float);
    t->params = k->alloc(k, bytes);
    if (!IN_RUNNER)
        t->nll = malloc(t->len * sizeof *t->nll);
    if (!t->params || (!IN_RUNNER && !t->nll)) {
        rc = err_nomem(e, "adapted weights, gradients and momentum", bytes);
        goto fail;
    }
    t->params += ttt_aside(params);
    t->buf = t->params + t->stride;
    t->grads = t->buf + t->stride;
    k->take(k, t->params, params, 1, 1, 0, m->floats);
    return ERR_OK;
fail:
    ttt_close(t);
    return rc;
}

void ttt_close(struct ttt *t)
{
    graph_free(&t->g);
    if (t->k)
        t->k->free(t->k, t->params);
    if (!IN_RUNNER) {
        ttt_share_close(t);
        free(t->nll);
    }
    *t = (struct ttt){0};
}

size_t ttt_chunks(const struct recipe *r, size_t total)
{
    size_t chunk = (size_t)r->ttt_chunk_tokens;
    return total / chunk + (total % chunk != 0);
}

size_t ttt_rows(const struct recipe *r, size_t total, size_t c)
{
    /* Every chunk but the last is complete. */
    return c + 1 < ttt_chunks(r, total) ? (size_t)r->ttt_chunk_tokens / recipe_eval_len(r) : 0;
}

/* Does the name begin with blocks.L. for an L below n? */
static bool in_first_blocks(const char *name, size_t n)
{
    size_t l = 0;
    if (strncmp(name, "blocks.", 7))
        return false;
    for (name += 7; *name != '.'; name++)
        l = l * 10 + (size_t)(*name - '0');
    return l < n;
}

static void zero_frozen(struct ttt *t)
{
    const struct recipe *r = &t->m->r;
    for (size_t i = 0; i < t->m->nparams; i++) {
        const struct gpt_param *p = &t->m->param[i];
        if (in_first_blocks(p->name, (size_t)r->ttt_freeze_blocks) &&
            (r->ttt_freeze_matrices || p->cls != PARAM_MATRIX))
            t->k->zero(t->k, t->grads + p->at, p->size * sizeof(float));
    }
}

/* Rounds the tables that are bf16. */
static void round_tables(struct ttt *t, float *block)
{
    for (size_t i = 0; i < t->m->nparams; i++) {
        const struct gpt_param *p = &t->m->param[i];
        if (t->m->r.embed_bf16 && p->cls == PARAM_EMBED)
            t->k->round_bf16(t->k, block + p->at, p->size);
    }
}

/* The gradients of those of a step's rows that are this process's, added up as far as they are
 * siblings; *loss is the sum of their losses. A runner leaves losses out: where one is not finite,
 * neither are the scores that follow, and those are looked at. */
PART enum err_code gradients(struct ttt *t, const uint16_t *x, size_t rows, double *loss,
                             struct err *e)
{
    struct kern *k = t->k;
    size_t n = t->m->floats, top = 0, from = 0, to = rows;
    enum err_code rc;
    if (ttt_together(t))
        ttt_share_rows(t, rows, &from, &to);
    for (size_t i = from; i < to; i++) {
        const uint16_t *row = x + i * t->len;
        float *g = t->grads + top++ * t->stride;
        k->zero(k, g, n * sizeof(float));
        if ((rc = graph_forward(&t->g, t->params, row, row + 1, IN_RUNNER ? NULL : t->nll, e)))
            return rc;
        for (size_t j = 0; !IN_RUNNER && j < t->len; j++)
            *loss += (double)t->nll[j];
        graph_backward(&t->g, t->params, g, (float)(1.0 / (double)(rows * t->len)));
        for (size_t half = 1; top > 1 && ttt_joins(rows, from, i, half); half *= 2)
            if (i & half) {
                top--;
                k->add(k, t->grads + (top - 1) * t->stride, t->grads + top * t->stride, n);
            }
    }
    return ttt_together(t) ? k->sync(k, e) : ERR_OK;
}

/* The step that the sum of all gradients makes. */
PART enum err_code update(struct ttt *t, double loss, double lr, struct err *e)
{
    const struct recipe *r = &t->m->r;
    struct kern *k = t->k;
    size_t n = t->m->floats;
    double norm, limit = r->ttt_grad_clip;
    enum err_code rc;
    zero_frozen(t);
    round_tables(t, t->grads);
    norm = __builtin_sqrt(k->sumsq(k, t->grads, n));
    if ((rc = k->sync(k, e)))
        return rc;
    if ((!IN_RUNNER && !(loss - loss == 0)) || !(norm - norm == 0))
        return err_set(e, ERR_INPUT, "test-time training diverged; a lower TTT_LR may help");
    if (!IN_RUNNER && t->step)
        t->step(t->ctx, loss, norm);
    if (limit > 0 && limit / (norm + CLIP_EPS) < 1) {
        k->axpby(k, t->grads, t->grads, n, 0, (float)(limit / (norm + CLIP_EPS)));
        round_tables(t, t->grads);
    }
    k->axpby(k, t->buf, t->grads, n, (float)r->ttt_momentum, 1);
    round_tables(t, t->buf);
    k->axpby(k, t->params, t->buf, n, 1, (float)-lr);
    round_tables(t, t->params);
    return k->sync(k, e);
}

/* One step on `rows` rows whose inputs begin at x. */
static enum err_code step(struct ttt *t, const uint16_t *x, size_t rows, double lr, struct err *e)
{
    double loss = 0, positions = (double)(rows * t->len);
    enum err_code rc;
    if (ttt_together(t)) { /* what fails here, the others hear before the next step */
        gradients(t, x, rows, &loss, &t->word);
        if (!(rc = ttt_share_sum(t, rows, &loss, e)))
            update(t, loss / positions, lr, &t->word);
        return rc;
    }
    rc = gradients(t, x, rows, &loss, e);
    return rc ? rc : update(t, loss / positions, lr, e);
}

enum err_code ttt_train(struct ttt *t, const uint16_t *tok, size_t total, size_t c, struct err *e)
{
    const struct recipe *r = &t->m->r;
    size_t rows = ttt_rows(r, total, c), last = ttt_chunks(r, total) - 1;
    size_t batch = (size_t)r->ttt_batch_seqs;
    double lr = r->ttt_lr / 2 * (1 + kern_cos(PI * (double)c / (double)(last ? last : 1)));
    const uint16_t *x = tok + c * (size_t)r->ttt_chunk_tokens;
    enum err_code rc = ERR_OK;
    for (int64_t epoch = 0; epoch < r->ttt_epochs && !rc; epoch++)
        for (size_t i = 0; i < rows && !rc; i += batch)
            rc = step(t, x + i * t->len, rows - i < batch ? rows - i : batch, lr, e);
    return !rc && ttt_together(t) ? ttt_share_agree(t, NULL, e) : rc;
}

/* Chunk c, with what it counts for the progress. */
static enum err_code train(struct ttt *t, struct scorer *s, size_t total, size_t c, struct err *e)
{
    enum err_code rc = ttt_train(t, s->tok, total, c, e);
    size_t rows = ttt_rows(&t->m->r, total, c) * (size_t)t->m->r.ttt_epochs;
    if (!rc && rows)
        scorer_advance(s, rows);
    return rc;
}

enum err_code ttt_adapt(struct ttt *t, struct scorer *s, size_t total, struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t c = 0; c < ttt_chunks(&t->m->r, total) && !rc; c++)
        rc = train(t, s, total, c, e);
    return rc;
}

enum err_code ttt_run(struct scorer *s, const struct window_list *l, struct score *to,
                      struct err *e)
{
    size_t count = window_count(l), i = 0, chunk = (size_t)s->m->r.ttt_chunk_tokens;
    const float *own = s->params;
    struct ttt t;
    enum err_code rc = ttt_begin(&t, s, e);
    if (rc)
        return rc;
    s->params = t.params;
    for (size_t c = 0; i < count && !rc; c++) {
        size_t end = i;
        for (; end < count; end++) {
            struct window w = window_at(l, end);
            if ((w.start + w.from) / chunk > c)
                break;
        }
        if (!(rc = scorer_windows(s, l, i, end, to, true, e)))
            rc = train(&t, s, l->total, c, e);
        i = end;
    }
    s->params = own;
    ttt_close(&t);
    return rc;
}
