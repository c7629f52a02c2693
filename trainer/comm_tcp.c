/*
 * comm_tcp.c - the communicator over TCP sockets, a connection between every two ranks.
 *
 * A thread owns the sockets: it sleeps in poll until one of them can be read or written, or there
 * is something new to do. comm_tcp_link.c says what goes over them.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "trainer/comm_tcp.h"

enum {
    WAIT_NS = 100000000, /* how often a wait looks at the clock */
    CLOSING_MS = 2,
};
static const double ABORT_S = 1; /* for telling the others */

/* ---- the thread ---- */

/* Is there anything that `l` has not given to the network? When this rank closes, also what the
 * other machine has not confirmed: a socket that is closed while bytes wait to be read forgets
 * those that it should still send. */
static bool unsent(const struct tcp_link *l)
{
    struct pollfd p = {l->fd, 0, 0};
    int queued = 0;
    if (!l->writable)
        return false;
    if (tcp_has_more(l))
        return true;
    return !poll(&p, 1, 0) && !ioctl(l->fd, SIOCOUTQ, &queued) && queued > 0;
}

static bool all_said(const struct tcp *t)
{
    for (size_t r = 0; r < t->size; r++)
        if (r != t->rank && unsent(&t->link[r]))
            return false;
    return true;
}

static void *work(void *at)
{
    struct tcp *t = at;
    uint64_t count;
    pthread_mutex_lock(&t->lock);
    while (!t->closing || (!all_said(t) && comm_now() < t->closing_until)) {
        int ms = t->closing ? CLOSING_MS : (int)(t->watch.beat_s * 500) + 1;
        for (size_t r = 0; r < t->size; r++) {
            struct tcp_link *l = &t->link[r];
            bool in = l->readable && !t->broken && !t->closing;
            bool out = l->writable && tcp_has_more(l);
            t->polled[r] =
                (struct pollfd){.fd = in || out ? l->fd : -1,
                                .events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0))};
        }
        t->polled[t->size] = (struct pollfd){t->wake, POLLIN, 0};
        pthread_mutex_unlock(&t->lock);
        poll(t->polled, t->size + 1, ms);
        pthread_mutex_lock(&t->lock);
        if (t->polled[t->size].revents && read(t->wake, &count, sizeof count) < 0)
            continue; /* nothing to take back: a signal */
        for (size_t r = 0; r < t->size; r++) {
            if (t->polled[r].revents & (POLLIN | POLLHUP | POLLERR) && !t->closing)
                tcp_take(t, &t->link[r]);
            tcp_give(t, &t->link[r]);
        }
        watch_look(&t->watch);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void wake(struct tcp *t)
{
    uint64_t one = 1;
    if (write(t->wake, &one, sizeof one) < 0)
        return; /* it is awake */
}

/* From now on the caller's memory is not touched. */
static void break_off(struct tcp *t)
{
    if (t->broken)
        return;
    t->broken = true;
    for (size_t r = 0; r < t->size; r++)
        tcp_break_off(&t->link[r]);
}

/* ---- exchanges ---- */

static void drop(struct comm_batch *b)
{
    free(b->own);
    comm_batch_free(b);
}

static enum err_code tcp_start(void *impl, const struct comm_part *parts, size_t n,
                               struct comm_batch **out, struct err *e)
{
    struct tcp *t = impl;
    struct comm_batch *b = comm_batch_new(parts, n);
    struct tcp_item *item = calloc(n, sizeof *item);
    enum err_code rc;
    bool stuck = false;
    if (!b || !item) {
        free(item);
        comm_batch_free(b);
        return err_nomem(e, "an exchange", n * sizeof *item);
    }
    b->own = item;
    pthread_mutex_lock(&t->lock);
    if ((rc = watch_judge(&t->watch, NULL, 0, e)) != ERR_OK) {
        break_off(t);
        pthread_mutex_unlock(&t->lock);
        drop(b);
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        struct tcp_link *l = &t->link[parts[i].peer];
        item[i] = (struct tcp_item){.b = b, .index = i, .at = parts[i].at, .bytes = parts[i].bytes};
        if (!parts[i].bytes) {
            b->done[i] = true;
            b->left--;
        } else if (parts[i].send) {
            tcp_queue(&l->send, &item[i]);
        } else {
            tcp_queue(&l->recv, &item[i]);
            l->ready++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct tcp_link *l = &t->link[parts[i].peer];
        tcp_give(t, l);
        stuck |= l->writable && tcp_has_more(l);
    }
    pthread_mutex_unlock(&t->lock);
    if (stuck)
        wake(t);
    *out = b;
    return ERR_OK;
}

/* The thread does it all. */
static void tcp_test(void *impl)
{
    (void)impl;
}

static enum err_code tcp_wait(void *impl, struct comm_batch **b, struct err *e)
{
    struct tcp *t = impl;
    double began = comm_now();
    enum err_code rc = ERR_OK;
    pthread_mutex_lock(&t->lock);
    while ((*b)->left || t->watch.failed.code) {
        if ((rc = watch_judge(&t->watch, *b, began, e)) != ERR_OK)
            break;
        comm_cond_wait(&t->change, &t->lock, WAIT_NS);
    }
    if (rc != ERR_OK)
        break_off(t);
    pthread_mutex_unlock(&t->lock);
    drop(*b);
    *b = NULL;
    return rc;
}

static enum err_code tcp_check(void *impl, const struct comm_batch *b, double began, struct err *e)
{
    struct tcp *t = impl;
    pthread_mutex_lock(&t->lock);
    enum err_code rc = watch_judge(&t->watch, b, began, e);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* ---- beginning and end ---- */

/* Says farewell to everybody and ends the thread, within `seconds`. */
static void leave(struct tcp *t, enum tcp_kind farewell, double seconds)
{
    if (!t->threaded)
        return;
    pthread_mutex_lock(&t->lock);
    break_off(t);
    for (size_t r = 0; r < t->size; r++)
        t->link[r].farewell = farewell;
    t->closing = true;
    t->closing_until = comm_now() + seconds;
    pthread_mutex_unlock(&t->lock);
    wake(t);
    pthread_join(t->thread, NULL);
    t->threaded = false;
    for (size_t r = 0; r < t->size; r++) {
        struct tcp_link *l = &t->link[r];
        if (l->fd >= 0)
            close(l->fd);
        l->readable = l->writable = false;
        l->fd = -1;
    }
    err_set(&t->watch.failed, ERR_RESOURCE, "this rank left the job");
}

static void tcp_abort(void *impl, int exit_status)
{
    struct tcp *t = impl;
    if (t->watch.failed.code)
        snprintf(t->why, sizeof t->why, "%.*s", TCP_TEXT, t->watch.failed.msg);
    else
        snprintf(t->why, sizeof t->why, "exit status %d", exit_status);
    leave(t, LINK_ABORT, ABORT_S);
}

static void tcp_close(void *impl)
{
    struct tcp *t = impl;
    leave(t, LINK_CLOSE, t->watch.timeout_s);
    for (size_t r = 0; t->link && r < t->size; r++)
        free(t->link[r].spill);
    if (t->wake >= 0)
        close(t->wake);
    pthread_cond_destroy(&t->change);
    pthread_mutex_destroy(&t->lock);
    watch_close(&t->watch);
    free(t->link);
    free(t->polled);
    free(t);
}

static const struct comm_ops tcp_ops = {"tcp",     tcp_start, tcp_test, tcp_wait,
                                        tcp_check, tcp_abort, tcp_close};

static struct tcp *new_tcp(const struct comm_job *job, struct err *e)
{
    struct tcp *t = calloc(1, sizeof *t);
    if (!t) {
        err_nomem(e, "ranks", sizeof *t);
        return NULL;
    }
    t->rank = job->rank;
    t->size = job->size;
    pthread_mutex_init(&t->lock, NULL);
    comm_cond_init(&t->change);
    t->link = calloc(t->size, sizeof *t->link);
    t->polled = calloc(t->size + 1, sizeof *t->polled);
    t->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!t->link || !t->polled)
        err_nomem(e, "ranks", t->size * sizeof *t->link);
    else if (t->wake < 0)
        err_set(e, ERR_RESOURCE, "eventfd: %s", strerror(errno));
    else if (!watch_open(&t->watch, job, e))
        return t;
    tcp_close(t);
    return NULL;
}

/* The signals that end a program are for the thread that the program knows. */
static enum err_code begin_thread(struct tcp *t, struct err *e)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = pthread_create(&t->thread, NULL, work, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    t->threaded = !status;
    return status ? err_set(e, ERR_RESOURCE, "no thread: %s", strerror(status)) : ERR_OK;
}

enum err_code comm_tcp_open(struct comm *c, const struct comm_job *job, struct err *e)
{
    int *fd = malloc(job->size * sizeof *fd);
    enum err_code rc = ERR_RESOURCE;
    struct tcp *t = NULL;
    uint64_t id;
    if (!fd)
        return err_nomem(e, "ranks", job->size * sizeof *fd);
    if ((rc = tcp_meet(fd, &id, job, e)) != ERR_OK)
        goto out;
    if (!(t = new_tcp(job, e))) {
        rc = ERR_RESOURCE;
        goto out;
    }
    t->id = id;
    for (size_t r = 0; r < t->size; r++) {
        bool other = r != t->rank;
        t->link[r] = (struct tcp_link){.fd = fd[r],
                                       .readable = other,
                                       .writable = other,
                                       .out_at = TCP_HEAD,
                                       .said = comm_now()};
    }
    if ((rc = begin_thread(t, e)) != ERR_OK)
        goto out;
    c->name = tcp_ops.name;
    c->ops = &tcp_ops;
    c->impl = t;
    t = NULL;
out:
    for (size_t r = 0; rc != ERR_OK && r < job->size; r++)
        if (fd[r] >= 0)
            close(fd[r]);
    if (t)
        tcp_close(t);
    free(fd);
    return rc;
}
