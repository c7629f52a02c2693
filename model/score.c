/* score.c - the scoring loop; see score.h. */
#include "model/score.h"

#include <stdlib.h>
#include <string.h>

#include "model/text.h"

/* Rows of one run when the caller does not choose: enough to fill the matrix kernels, small enough
 * that activations stay near the cores (measured in bench/README.md, "batch of windows"). */
enum { SCORE_ROWS = 4096 };

enum err_code score_windows(const struct gpt *m, size_t n, const struct score_opts *o,
                            struct window_list *l, struct err *e)
{
    const struct recipe *r = &m->r;
    *l = (struct window_list){.mode = o->mode,
                              .old = !strcmp(r->eval_windows, "old"),
                              .len = recipe_eval_len(r),
                              .stride = (size_t)r->eval_stride};
    if (!l->old && strcmp(r->eval_windows, "new"))
        return err_set(e, ERR_USAGE, "EVAL_WINDOWS=%s: must be new or old", r->eval_windows);
    if (l->stride > l->len) /* the default is 64: shorter windows then stand side by side */
        l->stride = l->len;
    n = n ? n - 1 : 0;
    if (o->max_tokens && n > o->max_tokens)
        n = o->max_tokens;
    l->total = n / l->len * l->len;
    if (!l->total)
        return err_set(e, ERR_INPUT, "the stream has %zu positions to score, one window needs %zu",
                       n, l->len);
    return ERR_OK;
}

struct scorer {
    const struct gpt *m;
    struct kern *k;
    const float *params;
    const uint16_t *tok;
    const struct byte_table *b;
    struct graph g; /* planned for `batch` windows of shape len, from; batch 0: not planned */
    size_t batch, len, from;
    uint16_t *ids, *target;
    float *nll;
    double *nll64;
};

static enum err_code make_buffers(struct scorer *s, size_t rows, struct err *e)
{
    s->ids = malloc(rows * sizeof *s->ids);
    s->target = malloc(rows * sizeof *s->target);
    s->nll = malloc(rows * sizeof *s->nll);
    s->nll64 = malloc(rows * sizeof *s->nll64);
    if (!s->ids || !s->target || !s->nll || !s->nll64)
        return err_nomem(e, "a batch of windows", rows * 16);
    return ERR_OK;
}

/* A graph for this shape; the one at hand when it fits. */
static enum err_code shape(struct scorer *s, size_t batch, size_t len, size_t from, struct err *e)
{
    enum err_code rc;
    if (s->batch == batch && s->len == len && s->from == from)
        return ERR_OK;
    graph_free(&s->g);
    s->batch = 0;
    gpt_graph(s->m, &s->g, true);
    if ((rc = graph_plan(&s->g, s->k, batch, len, from, false, e)))
        return rc;
    s->batch = batch;
    s->len = len;
    s->from = from;
    return ERR_OK;
}

/* Score `count` windows of one shape, the first of them w and each `step` positions after the last.
 */
static enum err_code run_batch(struct scorer *s, struct window w, size_t step, size_t count,
                               struct score *out, struct err *e)
{
    size_t scored = w.len - w.from;
    enum err_code rc = shape(s, count, w.len, w.from, e);
    for (size_t i = 0; i < count && !rc; i++) {
        const uint16_t *x = s->tok + w.start + i * step;
        memcpy(s->ids + i * w.len, x, w.len * sizeof *x);
        memcpy(s->target + i * scored, x + w.from + 1, scored * sizeof *x);
    }
    if (rc || (rc = graph_forward(&s->g, s->params, s->ids, s->target, s->nll, e)))
        return rc;
    for (size_t i = 0; i < count * scored; i++) {
        size_t p = w.start + i / scored * step + w.from + i % scored;
        double v = s->nll64[i] = (double)s->nll[i];
        if (!(v - v == 0))
            return err_set(e, ERR_INPUT, "the score of position %zu is not finite", p);
        out->nll += v;
        out->bytes += bytes_of(s->b, s->tok[p], s->tok[p + 1]);
    }
    out->tokens += count * scored;
    return ERR_OK;
}

static enum err_code check_tokens(const struct gpt *m, const uint16_t *tok, size_t n,
                                  const struct byte_table *b, struct err *e)
{
    if (b->vocab < (size_t)m->r.vocab_size)
        return err_set(e, ERR_INPUT, "the byte table has %zu pieces, the model's vocabulary %lld",
                       b->vocab, (long long)m->r.vocab_size);
    for (size_t i = 0; i < n; i++)
        if (tok[i] >= m->r.vocab_size)
            return err_set(e, ERR_INPUT, "token %zu of the stream is %u, the vocabulary has %lld",
                           i, (unsigned)tok[i], (long long)m->r.vocab_size);
    return ERR_OK;
}

static enum err_code run_all(struct scorer *s, const struct window_list *l,
                             const struct score_opts *o, struct score *out, struct err *e)
{
    size_t count = window_count(l), batch = o->batch ? o->batch : SCORE_ROWS / l->len;
    enum err_code rc;
    if (!batch)
        batch = 1;
    if (batch > count)
        batch = count;
    if ((rc = make_buffers(s, batch * l->len, e)))
        return rc;
    for (size_t i = 0; i < count;) {
        struct window w = window_at(l, i);
        size_t step = l->mode == EVAL_PLAIN ? l->len : l->stride, n = 1;
        for (; n < batch && i + n < count; n++) {
            struct window x = window_at(l, i + n);
            if (x.len != w.len || x.from != w.from)
                break;
        }
        if ((rc = run_batch(s, w, step, n, out, e)) ||
            (o->sink && (rc = o->sink(o->ctx, s->nll64, n * (w.len - w.from), e))))
            return rc;
        i += n;
        if (o->progress)
            o->progress(o->ctx, i, count);
    }
    return ERR_OK;
}

enum err_code score_run(const struct gpt *m, struct kern *k, const float *params,
                        const uint16_t *tok, size_t n, const struct byte_table *b,
                        const struct score_opts *o, struct score *out, struct err *e)
{
    struct scorer s = {.m = m, .k = k, .params = params, .tok = tok, .b = b};
    struct window_list l;
    enum err_code rc;
    memset(out, 0, sizeof *out);
    if ((rc = score_windows(m, n, o, &l, e)) || (rc = check_tokens(m, tok, l.total + 1, b, e)))
        return rc;
    graph_init(&s.g);
    rc = run_all(&s, &l, o, out, e);
    graph_free(&s.g);
    free(s.ids);
    free(s.target);
    free(s.nll);
    free(s.nll64);
    if (!rc && !out->bytes)
        rc = err_set(e, ERR_INPUT, "the scored tokens stand for no bytes of text");
    if (rc)
        return rc;
    out->val_loss = out->nll / (double)out->tokens;
    /* The reference's order of operations: bits per token, times tokens per byte. */
    out->val_bpb =
        out->val_loss / 0x1.62e42fefa39efp-1 * ((double)out->tokens / (double)out->bytes);
    return ERR_OK;
}

static void field(struct text *t, bool json, const char *name)
{
    text_str(t, json ? ",\"" : " ");
    text_str(t, name);
    text_str(t, json ? "\":" : ":");
}

static void count(struct text *t, bool json, const char *name, uint64_t v)
{
    field(t, json, name);
    text_u64(t, v);
}

void score_line(struct text *t, const char *mode, const struct score *s, uint64_t time_ms,
                bool json)
{
    text_str(t, json ? "{\"mode\":\"" : "final_");
    text_str(t, mode);
    if (json)
        text_char(t, '"');
    field(t, json, "val_loss");
    text_fixed8(t, s->val_loss);
    field(t, json, "val_bpb");
    text_fixed8(t, s->val_bpb);
    count(t, json, "tokens", s->tokens);
    count(t, json, "bytes", s->bytes);
    count(t, json, "time_ms", time_ms);
    if (json)
        text_char(t, '}');
}
