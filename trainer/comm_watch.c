/* comm_watch.c - who of the other ranks is alive: see comm_impl.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/comm_impl.h"

enum err_code watch_open(struct comm_watch *w, const struct comm_job *job, struct err *e)
{
    *w = (struct comm_watch){.rank = job->rank,
                             .size = job->size,
                             .timeout_s = job->timeout_s,
                             .patience_s = job->patience_s,
                             /* several beats may be lost or late before a rank is called silent */
                             .beat_s = fmin(job->timeout_s / 8, 5),
                             .looked = comm_now()};
    if (!(w->peer = calloc(w->size, sizeof *w->peer)))
        return err_nomem(e, "ranks", w->size * sizeof *w->peer);
    for (size_t i = 0; i < w->size; i++)
        w->peer[i].heard = w->looked;
    return ERR_OK;
}

void watch_close(struct comm_watch *w)
{
    free(w->peer);
    w->peer = NULL;
}

void watch_heard(struct comm_watch *w, size_t peer)
{
    struct comm_peer *p = &w->peer[peer];
    p->heard = comm_now();
    if (p->state == PEER_SILENT)
        p->state = PEER_ALIVE;
}

void watch_is(struct comm_watch *w, size_t peer, enum peer_state state, const char *why)
{
    struct comm_peer *p = &w->peer[peer];
    if (p->state > PEER_SILENT)
        return;
    p->state = state;
    p->heard = comm_now();
    snprintf(p->why, sizeof p->why, "%s", why ? why : "");
}

void watch_look(struct comm_watch *w)
{
    double now = comm_now(), lost = now - w->looked - 2 * w->beat_s;
    w->looked = now;
    for (size_t i = 0; i < w->size; i++) {
        struct comm_peer *p = &w->peer[i];
        if (lost > 0)
            p->heard = fmin(now, p->heard + lost);
        if (i != w->rank && p->state == PEER_ALIVE && now - p->heard > w->timeout_s)
            p->state = PEER_SILENT;
    }
}

/* ---- judging ---- */

void watch_names(char *out, size_t room, const bool *hit, size_t size)
{
    enum { NAMED = 12 };
    size_t count = 0, named = 0, at = 0;
    for (size_t r = 0; r < size; r++)
        count += hit[r];
    at += (size_t)snprintf(out, room, count == 1 ? "rank" : "ranks");
    for (size_t r = 0; r < size && named < NAMED; r++)
        if (hit[r])
            at += (size_t)snprintf(out + at, room - at, "%s %zu", named++ ? "," : "", r);
    if (count > named)
        snprintf(out + at, room - at, " and %zu more", count - named);
}

/* What a rank sent before it left may come after the news that it left. */
static const double LEFT_S = 0.5;

/* The ranks that b still waits for and that are in `state` (all states: -1). Returns whether any.
 */
static bool awaited(bool *hit, const struct comm_watch *w, const struct comm_batch *b, int state)
{
    bool any = false;
    memset(hit, 0, w->size);
    for (size_t i = 0; i < b->n; i++) {
        const struct comm_peer *p = &w->peer[b->peer[i]];
        if (b->done[i] || (state >= 0 && (int)p->state != state) ||
            (state == PEER_LEFT && comm_now() - p->heard < LEFT_S))
            continue;
        any = hit[b->peer[i]] = true;
    }
    return any;
}

static void judge_awaited(struct comm_watch *w, const struct comm_batch *b, double began, bool *hit)
{
    char who[120];
    if (awaited(hit, w, b, PEER_LEFT)) {
        watch_names(who, sizeof who, hit, w->size);
        err_set(&w->failed, ERR_RESOURCE, "%s left the job before its end", who);
    } else if (awaited(hit, w, b, PEER_SILENT)) {
        watch_names(who, sizeof who, hit, w->size);
        err_set(&w->failed, ERR_RESOURCE,
                "nothing heard from %s for %g s: stopped, or the network is broken (COMM_TIMEOUT)",
                who, w->timeout_s);
    } else if (comm_now() - began > w->patience_s && awaited(hit, w, b, -1)) {
        watch_names(who, sizeof who, hit, w->size);
        err_set(&w->failed, ERR_RESOURCE,
                "waited %g s for %s, which run but do not get there (COMM_PATIENCE)", w->patience_s,
                who);
    }
}

enum err_code watch_judge(struct comm_watch *w, const struct comm_batch *b, double began,
                          struct err *e)
{
    for (int state = PEER_GONE; state >= PEER_GAVE_UP && !w->failed.code; state--)
        for (size_t r = 0; r < w->size && !w->failed.code; r++)
            if ((int)w->peer[r].state == state)
                err_set(&w->failed, ERR_RESOURCE, "rank %zu %s%s%s", r,
                        state == PEER_GONE ? "is gone" : "gave up", *w->peer[r].why ? ": " : "",
                        w->peer[r].why);
    if (!w->failed.code && b) {
        bool *hit = malloc(w->size);
        if (!hit)
            return err_nomem(e, "ranks", w->size);
        judge_awaited(w, b, began, hit);
        free(hit);
    }
    return w->failed.code ? err_set(e, w->failed.code, "%s", w->failed.msg) : ERR_OK;
}
