/* probe_sum.c - see probe_sum.h. */
#include "verify/probe_sum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verify/probe_flip.h"

/* What the workers share. Counters and failures are guarded by the lock, p[i] has one writer. */
struct work {
    const struct probe_job *j;
    const uint16_t *tok;
    size_t n, token, score, count; /* score: index in the list; count: scores of a run */
    const uint16_t *v;             /* [runs] candidates */
    double *p;                     /* [runs] their probabilities */
    size_t runs, next, done, running;
    enum err_code failed;
    struct err e;
    pthread_mutex_t lock;
    pthread_cond_t over;
};

static enum err_code one(const struct work *w, size_t slot, uint16_t *tok, uint16_t v, double *p,
                         struct err *e)
{
    struct probe_scores s;
    tok[w->token] = v;
    enum err_code rc = probe_run(w->j, slot, tok, w->n, &s, e);
    if (rc)
        return rc;
    if (s.count != w->count)
        rc = err_set(e, ERR_CLAIM, "it sent %zu scores, its windows have %zu", s.count, w->count);
    else
        *p = exp(-s.nll[w->score]);
    probe_scores_free(&s);
    return rc;
}

struct worker {
    struct work *w;
    size_t slot;
    pthread_t thread;
};

static void *worker(void *ctx)
{
    const struct worker *me = ctx;
    struct work *w = me->w;
    struct err e = {0};
    enum err_code rc = ERR_OK;
    uint16_t *tok = malloc(w->n * sizeof *tok);

    if (tok)
        memcpy(tok, w->tok, w->n * sizeof *tok);
    else
        rc = err_nomem(&e, "a stream", w->n * sizeof *tok);
    pthread_mutex_lock(&w->lock);
    while (!rc && !w->failed && w->next < w->runs) {
        size_t i = w->next++;
        pthread_mutex_unlock(&w->lock);
        rc = one(w, me->slot, tok, w->v[i], &w->p[i], &e);
        pthread_mutex_lock(&w->lock);
        w->done += !rc;
    }
    if (rc && !w->failed) {
        w->failed = rc;
        w->e = e;
    }
    w->running--;
    pthread_cond_signal(&w->over);
    pthread_mutex_unlock(&w->lock);
    free(tok);
    return NULL;
}

/* Until the last worker is through. */
static void wait_for(struct work *w, const struct probe_bench *b)
{
    pthread_mutex_lock(&w->lock);
    while (w->running) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 200000000;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->over, &w->lock, &t);
        size_t done = w->done;
        pthread_mutex_unlock(&w->lock);
        if (b->show)
            b->show(b->ctx, done, w->runs);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

static enum err_code run_all(struct work *w, const struct probe_bench *b, struct err *e)
{
    struct worker *list = calloc(b->workers, sizeof *list);
    size_t started = 0;
    if (!list)
        return err_nomem(e, "workers", b->workers * sizeof *list);
    for (; started < b->workers; started++) {
        list[started] = (struct worker){.w = w, .slot = started};
        pthread_mutex_lock(&w->lock);
        bool ok = !pthread_create(&list[started].thread, NULL, worker, &list[started]);
        w->running += ok; /* before the worker can take the lock */
        pthread_mutex_unlock(&w->lock);
        if (!ok)
            break;
    }
    wait_for(w, b);
    for (size_t i = 0; i < started; i++)
        pthread_join(list[i].thread, NULL);
    free(list);
    if (!started)
        return err_set(e, ERR_RESOURCE, "no thread to run it from");
    return w->failed ? err_set(e, w->failed, "%s", w->e.msg) : ERR_OK;
}

/* p[i] = probability of candidate v[i] at the place of s, for all i < s->runs. */
static enum err_code candidates(const struct probe_bench *b, const uint16_t *tok,
                                const struct probe_sum *s, const uint16_t *v, double *p,
                                struct err *e)
{
    struct work w = {.j = b->job,
                     .tok = tok,
                     .n = s->stream,
                     .token = s->token,
                     .v = v,
                     .p = p,
                     .runs = s->runs,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .over = PTHREAD_COND_INITIALIZER};
    struct probe_map map;
    enum err_code rc = probe_map_make(&map, &b->job->file->m, b->mode, s->stream, e);
    if (rc)
        return rc;
    w.count = map.count;
    while (w.score < map.count && map.token[w.score] != s->token)
        w.score++;
    probe_map_free(&map);
    if (w.score == w.count)
        return err_set(e, ERR_USAGE, "token %zu is not scored in a stream of %zu", s->token,
                       s->stream);
    return run_all(&w, b, e);
}

enum err_code probe_sum_all(const struct probe_bench *b, const uint16_t *tok, struct probe_sum *s,
                            struct err *e)
{
    size_t vocab = b->job->file->vocab;
    double *p = malloc(vocab * sizeof *p);
    uint16_t *v = calloc(vocab, sizeof *v);
    enum err_code rc = p && v ? ERR_OK : err_nomem(e, "candidates", vocab * 10);

    s->runs = vocab;
    s->sum = s->error = 0;
    for (size_t i = 0; !rc && i < vocab; i++)
        v[i] = (uint16_t)i;
    if (!rc && !(rc = candidates(b, tok, s, v, p, e)))
        for (size_t i = 0; i < vocab; i++) /* in the order of the vocabulary: the same bits again */
            s->sum += p[i];
    free(p);
    free(v);
    return rc;
}

static double drawn_with(const double *q, size_t vocab, uint16_t v)
{
    return 0.5 * q[v] + 0.5 / (double)vocab;
}

void probe_estimate(struct probe_sum *s, const double *p, const uint16_t *v, size_t n,
                    const double *q, size_t vocab)
{
    double mean = 0, squares = 0; /* Welford */
    for (size_t i = 0; i < n; i++) {
        double x = (p[i] - q[v[i]]) / drawn_with(q, vocab, v[i]), d = x - mean;
        mean += d / (double)(i + 1);
        squares += d * (x - mean);
    }
    s->sum = 1 + mean;
    s->error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : INFINITY;
}

enum err_code probe_sum_sample(const struct probe_bench *b, const uint16_t *tok,
                               struct probe_sum *s, const double *q, size_t n, uint64_t *random,
                               struct err *e)
{
    size_t vocab = b->job->file->vocab;
    double *p = malloc(n * sizeof *p);
    uint16_t *v = calloc(n, sizeof *v);
    enum err_code rc = p && v ? ERR_OK : err_nomem(e, "candidates", n * 10);

    s->runs = n;
    for (size_t i = 0; !rc && i < n; i++) {
        double u = (double)(probe_random(random) >> 11) * 0x1p-53;
        size_t at = 0;
        while (at + 1 < vocab && (u -= drawn_with(q, vocab, (uint16_t)at)) >= 0)
            at++;
        v[i] = (uint16_t)at;
    }
    if (!rc && !(rc = candidates(b, tok, s, v, p, e)))
        probe_estimate(s, p, v, n, q, vocab);
    free(p);
    free(v);
    return rc;
}
