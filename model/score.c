/* score.c - the scoring loop; see score.h. */
#include "model/score.h"

#include <stdlib.h>
#include <string.h>

#include "model/text.h"
#include "model/ttt.h"

/* Rows of one run when the caller does not choose: enough to fill the matrix kernels, small enough
 * that activations stay near the cores (measured in bench/README.md, "batch of windows"). */
enum { SCORE_ROWS = 4096 };

/* A card wants many more: 4,096 rows take it less time than queuing the operations takes the host.
 * Activations are some 50 KiB a row for models of the challenge's size. */
static size_t rows_of_run(const struct kern *k)
{
#ifndef RUNNER
    if (k->memory)
        return k->memory >= 32ull << 30 ? 1 << 17 : 1 << 15;
#endif
    (void)k;
    return SCORE_ROWS;
}

bool eval_mode_trains(const struct recipe *r, enum eval_mode mode)
{
    return mode == EVAL_TTT || (mode == EVAL_SLOT_CONTEXT && r->slot_after_ttt);
}

/* Settings of the modes that adapt. */
static enum err_code check_mode(const struct recipe *r, enum eval_mode mode, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (eval_mode_trains(r, mode) && !TTT_BUILT)
        return err_set(e, ERR_USAGE, "%s needs another runner: pack with EVAL_MODE=%s",
                       eval_mode_name(mode), eval_mode_name(mode));
    if (!IN_RUNNER && eval_mode_trains(r, mode))
        rc = ttt_check(r, e);
    if (!IN_RUNNER && !rc && (mode == EVAL_SLOT || mode == EVAL_SLOT_CONTEXT))
        rc = slot_check(r, e);
    return rc;
}

enum err_code score_windows(const struct gpt *m, size_t n, const struct score_opts *o,
                            struct window_list *l, struct err *e)
{
    const struct recipe *r = &m->r;
    enum err_code rc = check_mode(r, o->mode, e);
    *l = (struct window_list){.mode = o->mode,
                              .old = !strcmp(r->eval_windows, "old"),
                              .len = recipe_eval_len(r),
                              .stride = (size_t)r->eval_stride};
    if (rc)
        return rc;
    if (!IN_RUNNER && !l->old && strcmp(r->eval_windows, "new"))
        return err_set(e, ERR_USAGE, "EVAL_WINDOWS=%s: must be new or old", r->eval_windows);
    if (l->stride > l->len) /* the default is 64: shorter windows then stand side by side */
        l->stride = l->len;
    n = n ? n - 1 : 0;
    if (o->max_tokens && n > o->max_tokens)
        n = o->max_tokens;
    l->total = n / l->len * l->len;
    if (!l->total)
        return err_set(e, ERR_INPUT, "%zu positions to score, one window needs %zu", n, l->len);
    return ERR_OK;
}

enum err_code scorer_room(struct scorer *s, size_t rows, struct err *e)
{
    if (rows <= s->rows)
        return ERR_OK;
    scorer_free(s);
    s->ids = malloc(rows * sizeof *s->ids);
    s->target = malloc(rows * sizeof *s->target);
    s->nll = malloc(rows * sizeof *s->nll);
    s->wide = malloc(rows * sizeof *s->wide);
    s->rows = rows;
    if (!s->ids || !s->target || !s->nll || !s->wide)
        return err_nomem(e, "a batch of windows", rows * 16);
    return ERR_OK;
}

void scorer_free(struct scorer *s)
{
    graph_free(&s->g);
    free(s->ids);
    free(s->target);
    free(s->nll);
    free(s->wide);
    s->ids = s->target = NULL;
    s->nll = NULL;
    s->wide = NULL;
    s->rows = s->planned = 0;
}

size_t scorer_same(const struct window_list *l, size_t i, size_t end, size_t most)
{
    struct window w = window_at(l, i);
    size_t n = 1;
    for (; n < most && i + n < end; n++) {
        struct window x = window_at(l, i + n);
        if (x.len != w.len || x.from != w.from)
            break;
    }
    return n;
}

/* A graph for this shape; the one at hand when it fits. */
static enum err_code shape(struct scorer *s, size_t n, size_t t, size_t from, struct err *e)
{
    enum err_code rc;
    if (s->planned == n && s->t == t && s->from == from)
        return ERR_OK;
    graph_free(&s->g);
    s->planned = 0;
    gpt_graph(s->m, &s->g, true);
    if ((rc = graph_plan(&s->g, s->k, n, t, from, false, e)))
        return rc;
    s->planned = n;
    s->t = t;
    s->from = from;
    return ERR_OK;
}

enum err_code scorer_forward(struct scorer *s, const struct window_list *l, size_t i, size_t n,
                             size_t first, bool head, struct err *e)
{
    struct window w = window_at(l, i);
    size_t rows = w.len - first;
    enum err_code rc = scorer_room(s, n * w.len, e);
    if (rc || (rc = shape(s, n, w.len, first, e)))
        return rc;
    for (size_t j = 0; j < n; j++) {
        const uint16_t *x = s->tok + window_at(l, i + j).start;
        memcpy(s->ids + j * w.len, x, w.len * sizeof *x);
        memcpy(s->target + j * rows, x + first + 1, rows * sizeof *x);
    }
#ifndef RUNNER
    if (s->k->hold)
        s->k->hold(s->k, s->params, s->m->floats);
#endif
    rc = graph_forward(&s->g, s->params, s->ids, head ? s->target : NULL, head ? s->nll : NULL, e);
#ifndef RUNNER
    if (s->k->hold)
        s->k->hold(s->k, NULL, 0);
#endif
    return rc;
}

enum err_code scorer_take(struct scorer *s, const struct window_list *l, size_t i, size_t n,
                          struct score *to, bool give, struct err *e)
{
    struct window w = window_at(l, i);
    size_t scored = w.len - w.from;
    for (size_t j = 0; j < n * scored; j++) {
        size_t p = window_at(l, i + j / scored).start + w.from + j % scored;
        double v = s->wide[j] = (double)s->nll[j];
        if (!(v - v == 0))
            return err_set(e, ERR_INPUT, "the score of position %zu is not finite", p);
        to->nll += v;
        to->bytes += bytes_of(s->b, s->tok[p], s->tok[p + 1]);
    }
    to->tokens += n * scored;
    return give && s->o->sink ? s->o->sink(s->o->ctx, s->wide, n * scored, e) : ERR_OK;
}

void scorer_advance(struct scorer *s, size_t n)
{
    s->done += n;
    if (s->o->progress)
        s->o->progress(s->o->ctx, s->done, s->all);
}

/* A rank's range of them. */
static enum err_code range(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                           struct score *to, struct score *record, struct err *e)
{
    (void)record;
    return scorer_windows(s, l, i, end, to, true, e);
}

enum err_code scorer_windows(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                             struct score *to, bool give, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (scorer_shared(s))
        return scorer_share(s, l, i, end, 1, range, to, NULL, give, e);
    for (size_t n; i < end && !rc; i += n) {
        n = scorer_same(l, i, end, s->batch);
        if (!(rc = scorer_forward(s, l, i, n, window_at(l, i).from, true, e)) &&
            !(rc = scorer_take(s, l, i, n, to, give, e)))
            scorer_advance(s, n);
    }
    return rc;
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

/* SLOT on the weights as they are, or on a copy that TTT adapted to the whole stream. */
static enum err_code run_slot(struct scorer *s, const struct window_list *l, bool adapted,
                              struct score *to, struct score *record, struct err *e)
{
    const float *own = s->params;
    struct ttt t = {0};
    enum err_code rc = ERR_OK;
    if (TTT_BUILT && adapted && !(rc = ttt_begin(&t, s, e)) &&
        !(rc = ttt_adapt(&t, s, l->total, e)))
        s->params = t.params;
    if (!rc)
        rc = slot_run(s, l, 0, window_count(l), to, adapted ? NULL : record, e);
    s->params = own;
    if (TTT_BUILT)
        ttt_close(&t);
    return rc;
}

/* What a mode runs, and how much that is. */
static enum err_code run_mode(struct scorer *s, const struct window_list *l, struct score *to,
                              struct score *record, struct err *e)
{
    const struct recipe *r = &s->m->r;
    size_t count = window_count(l);
    bool slot = l->mode == EVAL_SLOT || l->mode == EVAL_SLOT_CONTEXT;
    bool adapted = eval_mode_trains(r, l->mode);
    struct window_list sliding = *l;
    enum err_code rc;
    sliding.mode = EVAL_SLIDING;
    s->all = count;
    for (size_t c = 0; TTT_BUILT && adapted && c < ttt_chunks(r, l->total); c++)
        s->all += ttt_rows(r, l->total, c) * (size_t)r->ttt_epochs;
    /* SLOT on the weights as they are has the sliding scores on its way. */
    if (TTT_BUILT && adapted && record) {
        s->all += window_count(&sliding);
        if ((rc = scorer_windows(s, &sliding, 0, window_count(&sliding), record, false, e)))
            return rc;
    }
    return TTT_BUILT && l->mode == EVAL_TTT ? ttt_run(s, l, to, e)
           : slot                           ? run_slot(s, l, adapted, to, record, e)
                                            : scorer_windows(s, l, 0, count, to, true, e);
}

static void finish(struct score *s)
{
    s->val_loss = s->nll / (double)s->tokens;
    /* The reference's order of operations: bits per token, times tokens per byte. */
    s->val_bpb = s->val_loss / 0x1.62e42fefa39efp-1 * ((double)s->tokens / (double)s->bytes);
}

enum err_code score_run(const struct gpt *m, struct kern *k, const float *params,
                        const uint16_t *tok, size_t n, const struct byte_table *b,
                        const struct score_opts *o, struct score *out, struct err *e)
{
    struct scorer s = {.m = m, .k = k, .params = params, .tok = tok, .b = b, .o = o};
    struct score *record = eval_mode_adapts(o->mode) ? o->record : NULL;
    struct window_list l;
    enum err_code rc;
    memset(out, 0, sizeof *out);
    if (o->record)
        memset(o->record, 0, sizeof *o->record);
    if ((rc = score_windows(m, n, o, &l, e)) ||
        (!IN_RUNNER && (rc = check_tokens(m, tok, l.total + 1, b, e))))
        return rc;
    s.batch = o->batch ? o->batch : rows_of_run(k) / l.len;
    s.batch = s.batch ? s.batch : 1;
    graph_init(&s.g);
    rc = run_mode(&s, &l, out, record, e);
    scorer_free(&s);
    if (!rc && !out->bytes)
        rc = err_set(e, ERR_INPUT, "the tokens stand for no bytes");
    if (rc)
        return rc;
    finish(out);
    if (record)
        finish(record);
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

static const char *const condition[] = {"causal", "normalised", "score-before-update",
                                        "single-pass"};

void score_conditions(const struct recipe *r, enum eval_mode mode, bool met[SCORE_CONDITIONS])
{
    bool shared = mode == EVAL_SLOT_CONTEXT && r->slot_shared;
    bool again = mode == EVAL_SLOT_CONTEXT && r->slot_after_ttt;
    met[0] = met[2] = mode != EVAL_SLOT && !shared && !again;
    met[1] = true;
    met[3] = !again;
}

const char *score_condition_name(size_t i)
{
    return condition[i];
}

void score_report(struct text *t, const struct recipe *r, enum eval_mode mode,
                  const struct score *s, const struct score *record, uint64_t time_ms, bool json)
{
    const char *name = eval_mode_name(mode);
    bool met[SCORE_CONDITIONS];
    if (!eval_mode_adapts(mode)) {
        score_line(t, name, s, time_ms, json);
        return;
    }
    if (!json) {
        score_line(t, eval_mode_name(EVAL_SLIDING), record, time_ms, false);
        text_char(t, '\n');
    }
    score_line(t, name, s, time_ms, json);
    if (json) {
        t->n--; /* the object goes on */
        text_str(t, ",\"record\":");
        score_line(t, eval_mode_name(EVAL_SLIDING), record, time_ms, true);
        text_str(t, ",\"conditions\":{");
    } else {
        text_str(t, "\nconditions ");
        text_str(t, name);
        text_char(t, ':');
    }
    score_conditions(r, mode, met);
    for (size_t i = 0; i < SCORE_CONDITIONS; i++) {
        if (json) {
            text_str(t, i ? ",\"" : "\"");
        } else {
            text_char(t, ' ');
            text_u64(t, i + 1);
            text_char(t, ' ');
        }
        text_str(t, condition[i]);
        text_str(t, json ? met[i] ? "\":true" : "\":false" : met[i] ? ":yes" : ":no");
    }
    if (json)
        text_str(t, "}}");
}
