/*
 * ranks.h - several ranks in one process, a thread each, and a communicator for them that is as
 * late and as strict as comm.h allows: bytes move when the receiver waits, and not before; what is
 * to be received is NaN until then; sizes that do not match, or an exchange that nobody answers,
 * end the test.
 *
 * It takes the place of trainer/comm.c: the program that includes this does not link that.
 */
#ifndef TESTS_UNIT_RANKS_H
#define TESTS_UNIT_RANKS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/comm.h"

enum { RANKS_MOST = 16, RANKS_SECONDS = 60 };

/* A message from one rank to another, in the order in which it was started. */
struct ranks_message {
    struct ranks_message *next;
    const void *at;
    size_t bytes, number;
    bool taken;
};

struct ranks_world {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    size_t size, here, round; /* of a gathering */
    const void *said[RANKS_MOST];
    struct ranks_message *sent[RANKS_MOST][RANKS_MOST];
    size_t sends[RANKS_MOST][RANKS_MOST], receives[RANKS_MOST][RANKS_MOST];
};

struct comm_batch {
    size_t n;
    struct ranks_part {
        struct comm_part part;
        size_t number;
        struct ranks_message *message; /* of a part that is sent */
    } part[];
};

static void ranks_die(const char *what)
{
    fprintf(stderr, "ranks: %s\n", what);
    abort();
}

/* With the lock held. */
static void ranks_sleep(struct ranks_world *w)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += RANKS_SECONDS;
    if (pthread_cond_timedwait(&w->moved, &w->lock, &end))
        ranks_die("a rank waits for what does not come");
}

enum err_code comm_start(struct comm *c, const struct comm_part *parts, size_t n,
                         struct comm_batch **b, struct err *e)
{
    struct ranks_world *w = c->impl;
    (void)e;
    *b = NULL;
    if (!n)
        return ERR_OK;
    *b = malloc(sizeof **b + n * sizeof(*b)->part[0]);
    (*b)->n = n;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < n; i++) {
        struct ranks_part *p = &(*b)->part[i];
        *p = (struct ranks_part){.part = parts[i]};
        if (p->part.peer >= c->size || p->part.peer == c->rank)
            ranks_die("a part for nobody");
        if (!p->part.send) {
            p->number = w->receives[p->part.peer][c->rank]++;
            memset(p->part.at, 0xff, p->part.bytes);
            c->received += p->part.bytes;
            continue;
        }
        struct ranks_message **end = &w->sent[c->rank][p->part.peer];
        while (*end)
            end = &(*end)->next;
        *end = p->message = malloc(sizeof **end);
        *p->message = (struct ranks_message){
            .at = p->part.at, .bytes = p->part.bytes, .number = w->sends[c->rank][p->part.peer]++};
        c->sent += p->part.bytes;
    }
    pthread_cond_broadcast(&w->moved);
    pthread_mutex_unlock(&w->lock);
    return ERR_OK;
}

void comm_test(struct comm *c)
{
    (void)c;
}

static void ranks_take(struct ranks_world *w, size_t to, const struct ranks_part *p)
{
    for (;; ranks_sleep(w))
        for (struct ranks_message *m = w->sent[p->part.peer][to]; m; m = m->next)
            if (m->number == p->number) {
                if (m->bytes != p->part.bytes)
                    ranks_die("a message of another length");
                memcpy(p->part.at, m->at, m->bytes);
                m->taken = true;
                return;
            }
}

enum err_code comm_wait(struct comm *c, struct comm_batch **b, struct err *e)
{
    struct ranks_world *w = c->impl;
    (void)e;
    if (!*b)
        return ERR_OK;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < (*b)->n; i++)
        if (!(*b)->part[i].part.send)
            ranks_take(w, c->rank, &(*b)->part[i]);
    pthread_cond_broadcast(&w->moved);
    for (size_t i = 0; i < (*b)->n; i++) {
        struct ranks_part *p = &(*b)->part[i];
        while (p->part.send && !p->message->taken)
            ranks_sleep(w);
    }
    for (size_t i = 0; i < (*b)->n; i++) {
        struct ranks_part *p = &(*b)->part[i];
        struct ranks_message **m = &w->sent[c->rank][p->part.peer];
        while (p->part.send && *m != p->message)
            m = &(*m)->next;
        if (p->part.send) {
            *m = p->message->next;
            free(p->message);
        }
    }
    pthread_mutex_unlock(&w->lock);
    free(*b);
    *b = NULL;
    return ERR_OK;
}

/* Until all ranks are here. */
static void ranks_meet(struct ranks_world *w)
{
    size_t round = w->round;
    if (++w->here == w->size) {
        w->here = 0;
        w->round++;
        pthread_cond_broadcast(&w->moved);
    }
    while (w->round == round)
        ranks_sleep(w);
}

enum err_code comm_gather(struct comm *c, void *all, const void *mine, size_t bytes, struct err *e)
{
    struct ranks_world *w = c->impl;
    (void)e;
    if (c->size == 1) {
        memmove(all, mine, bytes);
        return ERR_OK;
    }
    pthread_mutex_lock(&w->lock);
    w->said[c->rank] = mine;
    ranks_meet(w);
    for (size_t r = 0; r < c->size; r++)
        memmove((char *)all + r * bytes, w->said[r], bytes);
    ranks_meet(w);
    pthread_mutex_unlock(&w->lock);
    return ERR_OK;
}

enum err_code comm_agree(struct comm *c, enum err_code mine, struct err *e)
{
    struct err say = {.code = mine}, all[RANKS_MOST];
    if (c->size == 1)
        return mine;
    if (mine)
        memcpy(say.msg, e->msg, sizeof say.msg);
    comm_gather(c, all, &say, sizeof say, e);
    for (size_t r = 0; r < c->size; r++)
        if (all[r].code) {
            *e = (struct err){0};
            return err_set(e, all[r].code, "rank %zu: %s", r, all[r].msg);
        }
    return ERR_OK;
}

enum err_code comm_device(struct comm *c, struct kern *k, struct err *e)
{
    (void)c;
    (void)k;
    (void)e;
    return ERR_OK;
}

/* ---- starting them ---- */

struct ranks_thread {
    pthread_t thread;
    struct comm c;
    void (*run)(void *ctx, struct comm *c);
    void *ctx;
};

static inline void *ranks_main(void *arg)
{
    struct ranks_thread *t = arg;
    t->run(t->ctx, &t->c);
    return NULL;
}

/* run(ctx, c) once for each of n ranks, all at the same time. No asserts of cmocka in there: they
 * belong to the thread that calls this. */
static inline void ranks_run(size_t n, void (*run)(void *ctx, struct comm *c), void *ctx)
{
    struct ranks_world w = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .size = n};
    struct ranks_thread t[RANKS_MOST];
    for (size_t i = 0; i < n; i++) {
        t[i] = (struct ranks_thread){.run = run, .ctx = ctx};
        t[i].c = (struct comm){.name = "threads", .rank = i, .size = n, .impl = &w};
        if (pthread_create(&t[i].thread, NULL, ranks_main, &t[i]))
            ranks_die("no thread");
    }
    for (size_t i = 0; i < n; i++)
        pthread_join(t[i].thread, NULL);
}

#endif
