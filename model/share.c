/*
 * share.c - one stream scored by several processes: see struct score_share in score.h.
 *
 * Windows are handed out in rounds. In a round each rank has one range of windows, all ranges of
 * about the same length; it computes their losses and keeps them, then the ranks exchange what they
 * kept, and every rank adds up all of it in window order. So each sum is the chain of additions
 * that one process makes, and the caller's sink is told the same numbers in the same order, on
 * every rank. What travels are the losses, 4 bytes per score, and before them a struct err, so that
 * what fails on one rank ends the scoring on all of them at the same round.
 */
#include "model/scorer.h"

#include <stdlib.h>
#include <string.h>

/* Batches of a rank per round, where there are so many: enough that waiting and sending are small
 * beside computing, few enough that a sink that wants to stop is asked often. */
enum { ROUND_BATCHES = 4 };

/* Windows [from, end) of a list, cut into units; where their sums go. */
struct round {
    const struct window_list *l;
    size_t from, end, unit;
    struct score *to, *record;
    bool give;
};

static size_t ranks(const struct scorer *s)
{
    return s->o->share->ranks;
}

/* First window of rank r's range, r <= ranks: whole units, as many as the others' or one less. */
static size_t begin(const struct scorer *s, const struct round *d, size_t r)
{
    size_t units = (d->end - d->from + d->unit - 1) / d->unit;
    size_t at = d->from + units * r / ranks(s) * d->unit;
    return at < d->end ? at : d->end;
}

/* Scores of the rank that has most of them. */
static size_t most_scored(const struct scorer *s, const struct round *d)
{
    size_t most = 0;
    for (size_t r = 0; r < ranks(s); r++) {
        size_t n = 0, end = begin(s, d, r + 1);
        for (size_t i = begin(s, d, r); i < end; i++) {
            struct window w = window_at(d->l, i);
            n += w.len - w.from;
        }
        most = n > most ? n : most;
    }
    return most;
}

/* ---- this rank's range ---- */

/* What its losses are kept in, and what its progress means. */
struct range {
    const struct score_opts *o; /* the caller's */
    float *kept[2];             /* losses: the mode's, the record's; room for `most` each */
    size_t have[2], most;
    bool record;           /* is there a record? */
    bool mode;             /* are the losses that come next the mode's? */
    size_t done, own, all; /* windows before the round, of the range, of the round */
};

static enum err_code keep(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct range *g = ctx;
    size_t to = g->record && !g->mode;
    if (n > g->most - g->have[to])
        return err_set(e, ERR_RESOURCE, "more scores than windows have");
    for (size_t i = 0; i < n; i++) /* floats, widened */
        g->kept[to][g->have[to]++] = (float)nll[i];
    g->mode = !g->mode;
    return ERR_OK;
}

/* All ranks are taken to be as fast as this one. */
static void show(void *ctx, size_t done, size_t all)
{
    struct range *g = ctx;
    g->o->progress(g->o->ctx, g->done + (done - g->done) * g->all / g->own, all);
}

static enum err_code run_range(struct scorer *s, const struct round *d, share_run *run,
                               struct range *g, struct err *e)
{
    static const struct score_share within = {0};
    const struct score_opts *o = s->o;
    struct score_opts own = *o;
    struct score ignored = {0}; /* sums are made at the end of the round */
    size_t i = begin(s, d, o->share->rank), end = begin(s, d, o->share->rank + 1);
    enum err_code rc;
    if (i == end)
        return ERR_OK;
    own.sink = keep;
    own.progress = o->progress ? show : NULL;
    own.ctx = g;
    own.share = &within;
    g->own = end - i;
    s->o = &own;
    rc = run(s, d->l, i, end, &ignored, d->record ? &ignored : NULL, e);
    s->o = o;
    return rc;
}

/* ---- a round ---- */

enum err_code share_hear(const struct score_share *h, const uint8_t *all, size_t bytes,
                         struct err *e)
{
    for (size_t r = 0; r < h->ranks; r++) {
        struct err word;
        memcpy(&word, all + r * bytes, sizeof word);
        if (word.code)
            return err_set(e, word.code, "rank %zu: %.200s", r, word.msg);
    }
    return ERR_OK;
}

/* Rank r's losses, and `most` floats behind them those of the record. */
static enum err_code add(struct scorer *s, const struct round *d, size_t r, const float *loss,
                         size_t most, struct err *e)
{
    size_t end = begin(s, d, r + 1);
    enum err_code rc = ERR_OK;
    for (size_t i = begin(s, d, r), n; i < end && !rc; i += n) {
        struct window w = window_at(d->l, i);
        n = scorer_same(d->l, i, end, s->batch);
        size_t count = n * (w.len - w.from);
        if ((rc = scorer_room(s, n * w.len, e)))
            break;
        if (d->record) {
            memcpy(s->nll, loss + most, count * sizeof *loss);
            if ((rc = scorer_take(s, d->l, i, n, d->record, false, e)))
                break;
        }
        memcpy(s->nll, loss, count * sizeof *loss);
        rc = scorer_take(s, d->l, i, n, d->to, d->give, e);
        loss += count;
    }
    return rc;
}

/* An error is this rank's alone until the next round, where the others hear it: `word`. What is
 * returned is everybody's, or means that the ranks are out of touch. */
static enum err_code one_round(struct scorer *s, const struct round *d, share_run *run,
                               struct err *word, struct err *e)
{
    const struct score_share *share = s->o->share;
    size_t most = most_scored(s, d);
    size_t bytes = sizeof *word + (d->record ? 2 : 1) * most * sizeof(float);
    uint8_t *mine = calloc(1, bytes), *all = malloc(share->ranks * bytes);
    struct range g = {.o = s->o,
                      .most = most,
                      .record = d->record != NULL,
                      .done = s->done,
                      .all = d->end - d->from};
    enum err_code rc;
    if (!mine || !all) {
        rc = err_nomem(e, "the scores of all ranks", (share->ranks + 1ull) * bytes);
        goto out;
    }
    g.kept[0] = (float *)(mine + sizeof *word);
    g.kept[1] = g.kept[0] + most;
    if (!word->code)
        run_range(s, d, run, &g, word);
    memcpy(mine, word, sizeof *word);
    if ((rc = share->gather(share->ctx, all, mine, bytes, e)) ||
        (rc = share_hear(share, all, bytes, e)))
        goto out;
    for (size_t r = 0; r < share->ranks && !word->code; r++)
        add(s, d, r, (const float *)(all + r * bytes + sizeof *word), most, word);
    s->done = g.done + g.all;
    if (!g.own && g.all)
        scorer_advance(s, 0);
out:
    free(mine);
    free(all);
    return rc;
}

enum err_code scorer_share(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                           size_t unit, share_run *run, struct score *to, struct score *record,
                           bool give, struct err *e)
{
    struct round d = {.l = l, .unit = unit, .to = to, .record = record, .give = give};
    size_t each = ROUND_BATCHES * s->batch / unit * unit;
    struct err word = {0};
    enum err_code rc = ERR_OK;
    each = each ? each : unit;
    for (; i < end && !rc; i = d.end) {
        d.from = i;
        d.end = (end - i) / each < ranks(s) ? end : i + each * ranks(s);
        rc = one_round(s, &d, run, &word, e);
    }
    d.from = d.end; /* a last round, without windows: could all of them take all? */
    return rc ? rc : one_round(s, &d, run, &word, e);
}
