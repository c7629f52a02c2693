/*
 * probe_trial_sums.c - the sums of a mode, as far as the budget goes; see probe_trial.h.
 *
 * A submission of ours carries its weights, so the trusted engine knows what to expect, and a
 * sample of the vocabulary is enough (probe_sum.h): one place gets all candidates, the others a
 * sample. Of another program nothing is known, and only all candidates say something.
 */
#include "verify/probe_trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/clock.h"

/* A sample of a model that does what its weights say has no error at any size; these sizes are for
 * modes that adapt. */
enum { SAMPLE = 32, SAMPLE_LEAST = 8 };

static void show_sum(void *ctx, size_t done, size_t all)
{
    probe_trial_show(ctx, "sum over the vocabulary", done, all);
}

/* What the sums of a mode need. */
struct sums {
    struct probe_job job;
    struct probe_bench bench;
    size_t windows;     /* of the short stream */
    size_t full, drawn; /* places where all candidates are run, and where a sample is */
    size_t sample;      /* candidates of a sample */
    double *q;          /* [vocab] */
};

/* A place in a fresh short stream: behind the first window where there is more than one, because it
 * is special in most modes. */
static void choose(struct probe_trial *t, struct probe_sum *s, size_t windows)
{
    size_t len = recipe_eval_len(&t->p->file.m.r), n = windows * len + 1;
    s->stream = n;
    s->from = probe_below(&t->random, t->p->n - n + 1);
    s->token = (windows - 1) * len + 1 + probe_below(&t->random, len);
}

/* A program that fails here failed. */
static enum err_code excuse(struct probe_trial *t, enum err_code rc, const struct err *why,
                            bool *stop, struct err *e)
{
    *stop = rc == ERR_CLAIM;
    if (*stop)
        snprintf(t->facts.failed, sizeof t->facts.failed, "%s", why->msg);
    return *stop || !rc ? ERR_OK : err_set(e, rc, "%s", why->msg);
}

/* How long one run takes, on one thread. */
static enum err_code time_of(struct probe_trial *t, const struct sums *u, double *s, bool *stop,
                             struct err *e)
{
    struct probe_scores got = {0};
    struct err why = {0};
    size_t n = u->windows * recipe_eval_len(&t->p->file.m.r) + 1;
    double start = seconds_now();
    enum err_code rc = probe_run(&u->job, 0, t->p->data, n, &got, &why);
    *s = seconds_now() - start;
    probe_scores_free(&got);
    return excuse(t, rc, &why, stop, e);
}

/* Windows of the longest short stream that makes sense: two where they overlap; in TTT a chunk and
 * one window, so that the place is behind an update. */
static size_t most_windows(const struct probe_trial *t)
{
    const struct recipe *r = &t->p->file.m.r;
    size_t len = recipe_eval_len(r), fit = (t->p->n - 1) / len, n = 2;
    if (t->mode == EVAL_PLAIN)
        n = 1;
    if (t->mode == EVAL_TTT)
        n = ((size_t)r->ttt_chunk_tokens + len - 1) / len + 1;
    return n < fit ? n : fit;
}

/* What the budget allows, in runs: all candidates at every place; else, of a submission of ours,
 * all at one place and samples at the others, one at least; on a shorter stream when it must be. */
static enum err_code plan_sums(struct probe_trial *t, struct sums *u, bool *stop, struct err *e)
{
    struct probe *p = t->p;
    const bool ours = p->file.ours;
    const size_t want = p->o->positions;
    const size_t vocab = p->file.vocab, least = ours && vocab > SAMPLE_LEAST ? SAMPLE_LEAST : vocab;
    double seconds = 0, budget = (double)p->o->budget * (double)p->workers;
    size_t runs = 0;

    if (!want)
        return ERR_OK;
    u->windows = most_windows(t);
    for (;; u->windows = u->windows > 2 ? 2 : 1) {
        enum err_code rc = time_of(t, u, &seconds, stop, e);
        if (rc || *stop)
            return rc;
        runs = (size_t)(budget / seconds);
        if (runs >= least || u->windows == 1)
            break;
    }
    if (ours && runs < least) /* a verdict needs one sample, whatever the machine */
        runs = least;
    u->full = runs / vocab < want ? runs / vocab : want;
    if (ours && u->full < want) {
        u->full = u->full > 0;
        size_t left = u->full ? (want - u->full) * SAMPLE : runs; /* little beside a full one */
        u->drawn = left / least < want - u->full ? left / least : want - u->full;
        u->sample = u->drawn && left / u->drawn < SAMPLE ? left / u->drawn : SAMPLE;
    }
    if (u->full < want)
        report_line(p->r,
                    "%-12s sums: %.2g s per run, so --budget %zu allows all %zu tokens at %zu "
                    "places, and %zu tokens at %zu",
                    t->job.mode, seconds, p->o->budget, vocab, u->full, u->sample, u->drawn);
    return ERR_OK;
}

static void tell_sum(struct probe_trial *t, const struct probe_sum *s, cJSON *list)
{
    probe_judge_sum(&t->facts, s->sum, s->error);
    if (s->runs == t->p->file.vocab)
        report_line(t->p->r,
                    "%-12s token %zu of %zu: the probabilities of all %zu tokens sum to %.8f",
                    t->job.mode, s->token, s->stream, s->runs, s->sum);
    else
        report_line(t->p->r,
                    "%-12s token %zu of %zu: by a sample of %zu tokens the probabilities sum to "
                    "%.8f, standard error %.2g",
                    t->job.mode, s->token, s->stream, s->runs, s->sum, s->error);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "data_from", (double)s->from);
    cJSON_AddNumberToObject(j, "stream", (double)s->stream);
    cJSON_AddNumberToObject(j, "token", (double)s->token);
    cJSON_AddNumberToObject(j, "candidates", (double)s->runs);
    cJSON_AddNumberToObject(j, "sum", s->sum);
    cJSON_AddNumberToObject(j, "standard_error", s->error);
    cJSON_AddItemToArray(list, j);
}

/* The engine's distribution at a place: of the last window of the short stream that scores it. */
static enum err_code trusted(struct probe_trial *t, const struct probe_sum *s, double *q,
                             struct err *e)
{
    struct probe *p = t->p;
    struct probe_map map;
    size_t i = 0;
    enum err_code rc = ERR_OK;

    if (!p->engine.k && (rc = probe_engine_open(&p->engine, &p->file, p->o->threads, e)))
        return rc;
    if ((rc = probe_map_make(&map, &p->file.m, t->mode, s->stream, e)))
        return rc;
    while (map.token[i] != s->token)
        i++;
    const uint16_t *from = p->data + s->from + map.start[i];
    rc = probe_engine_at(&p->engine, from, s->token - map.start[i], q, e);
    probe_map_free(&map);
    return rc;
}

static enum err_code one_sum(struct probe_trial *t, struct sums *u, bool full, cJSON *list,
                             bool *stop, struct err *e)
{
    struct probe *p = t->p;
    struct probe_sum s = {0};
    struct err why = {0};
    enum err_code rc;

    choose(t, &s, u->windows);
    const uint16_t *tok = p->data + s.from;
    if (!full && (rc = trusted(t, &s, u->q, e)))
        return rc;
    progress_init(&p->progress, !p->o->quiet);
    if (full)
        rc = probe_sum_all(&u->bench, tok, &s, &why);
    else
        rc = probe_sum_sample(&u->bench, tok, &s, u->q, u->sample, &t->random, &why);
    progress_end(&p->progress);
    if (!rc)
        tell_sum(t, &s, list);
    return excuse(t, rc, &why, stop, e);
}

enum err_code probe_trial_sums(struct probe_trial *t, bool *stop, struct err *e)
{
    struct probe *p = t->p;
    struct sums u = {.job = t->job};
    cJSON *list = cJSON_AddArrayToObject(t->json, "sums");

    u.job.threads = 1; /* several runs at a time do better than one with several threads */
    u.job.max_tokens = 0;
    u.bench = (struct probe_bench){
        .job = &u.job, .mode = t->mode, .workers = p->workers, .show = show_sum, .ctx = t};
    u.q = malloc(p->file.vocab * sizeof *u.q);
    if (!u.q)
        return err_nomem(e, "a distribution", p->file.vocab * sizeof *u.q);
    enum err_code rc = plan_sums(t, &u, stop, e);
    for (size_t i = 0; i < u.full + u.drawn && !rc && !*stop; i++)
        rc = one_sum(t, &u, i < u.full, list, stop, e);
    free(u.q);
    return rc;
}
