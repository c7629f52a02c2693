/*
 * comm_mpi.c - the communicator over MPI (MPI-3.1, mpi-forum.org), host memory.
 *
 * Parts go as MPI_Isend and MPI_Irecv of bytes on a communicator of their own; MPI keeps the order
 * between two ranks. MPI moves data only inside its own calls, so a thread calls MPI_Testsome now
 * and then; all calls are made under one lock (MPI_THREAD_SERIALIZED). On a second communicator the
 * thread sends notes: "I run", every few seconds, and "I close".
 *
 * After a failure MPI is not called any more but for MPI_Abort: it could still write into memory
 * that the caller has freed.
 */
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/comm_impl.h"

enum {
    PIECE = 1 << 30,    /* MPI counts in int */
    ACTIVE_NS = 200000, /* how often the thread looks while something is under way */
    SWEEPS = 8,         /* and how often it asks each time: one call moves only some fragments */
    WAIT_NS = 1000000,  /* the longest nap in a wait */
    NOTE_RUNS = 'r',    /* notes: one byte */
    NOTE_CLOSES = 'c',
};

struct mpi {
    MPI_Comm data, control;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool threaded, stop, broken; /* broken: no more MPI calls */
    struct comm_watch watch;
    struct comm_batch *batches; /* under way */
    double said_at;
    /* [size] each: one note from and one to every other rank is under way at most. */
    MPI_Request *hears, *says;
    char *heard, *said;
    int *index; /* [size], for MPI_Testsome */
    MPI_Status *status;
};

/* A batch's own: the requests of its pieces. */
struct pieces {
    size_t n;
    MPI_Request *request; /* [n] */
    size_t *part;         /* [n] */
    size_t *left;         /* [parts] pieces not complete */
    int *count;           /* [n] bytes of the piece, -1: sent */
    int *index;
    MPI_Status *status;
};

static void lock(struct mpi *m)
{
    pthread_mutex_lock(&m->lock);
}

static void unlock(struct mpi *m)
{
    pthread_mutex_unlock(&m->lock);
}

static bool ok(struct mpi *m, int status, size_t peer)
{
    char why[MPI_MAX_ERROR_STRING] = "MPI fails";
    int n;
    if (status == MPI_SUCCESS)
        return true;
    MPI_Error_string(status, why, &n);
    watch_is(&m->watch, peer, PEER_GONE, why);
    m->broken = true;
    return false;
}

/* ---- notes ---- */

static void listen_to(struct mpi *m, size_t peer)
{
    ok(m, MPI_Irecv(&m->heard[peer], 1, MPI_BYTE, (int)peer, 0, m->control, &m->hears[peer]), peer);
}

static void say(struct mpi *m, char note)
{
    m->said_at = comm_now();
    for (size_t i = 1; i < m->watch.size && !m->broken; i++) {
        size_t peer = (m->watch.rank + i) % m->watch.size;
        int free_now = 0;
        if (!ok(m, MPI_Test(&m->says[peer], &free_now, MPI_STATUS_IGNORE), peer) || !free_now)
            continue; /* the peer does not take the last one */
        m->said[peer] = note;
        ok(m, MPI_Isend(&m->said[peer], 1, MPI_BYTE, (int)peer, 0, m->control, &m->says[peer]),
           peer);
    }
}

static void take_notes(struct mpi *m)
{
    int n = 0;
    if (!ok(m, MPI_Testsome((int)m->watch.size, m->hears, &n, m->index, MPI_STATUSES_IGNORE),
            m->watch.rank) ||
        n == MPI_UNDEFINED)
        return;
    for (int i = 0; i < n; i++) {
        size_t peer = (size_t)m->index[i];
        watch_heard(&m->watch, peer);
        if (m->heard[peer] == NOTE_CLOSES)
            watch_is(&m->watch, peer, PEER_LEFT, NULL);
        else
            listen_to(m, peer);
    }
}

/* ---- exchanges ---- */

static void pieces_free(struct pieces *p)
{
    if (p) {
        free(p->request);
        free(p->part);
        free(p->left);
        free(p->count);
        free(p->index);
        free(p->status);
        free(p);
    }
}

static struct pieces *pieces_new(const struct comm_part *parts, size_t n)
{
    struct pieces *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    for (size_t i = 0; i < n; i++)
        p->n += (parts[i].bytes + PIECE - 1) / PIECE;
    p->request = calloc(p->n + 1, sizeof *p->request);
    p->part = calloc(p->n + 1, sizeof *p->part);
    p->left = calloc(n, sizeof *p->left);
    p->count = calloc(p->n + 1, sizeof *p->count);
    p->index = calloc(p->n + 1, sizeof *p->index);
    p->status = calloc(p->n + 1, sizeof *p->status);
    if (p->request && p->part && p->left && p->count && p->index && p->status)
        return p;
    pieces_free(p);
    return NULL;
}

static void drop(struct mpi *m, struct comm_batch *b)
{
    for (struct comm_batch **at = &m->batches; *at; at = &(*at)->next)
        if (*at == b) {
            *at = b->next;
            break;
        }
    pieces_free(b->own);
    comm_batch_free(b);
}

static void piece_done(struct mpi *m, struct comm_batch *b, size_t piece, const MPI_Status *s)
{
    struct pieces *p = b->own;
    size_t part = p->part[piece], peer = b->peer[part];
    int bytes = 0;
    watch_heard(&m->watch, peer);
    if (p->count[piece] >= 0) {
        MPI_Get_count(s, MPI_BYTE, &bytes);
        if (bytes != p->count[piece]) {
            char why[80];
            snprintf(why, sizeof why, "it sent %d bytes where %d were expected", bytes,
                     p->count[piece]);
            watch_is(&m->watch, peer, PEER_GONE, why);
            m->broken = true;
        }
    }
    if (!--p->left[part]) {
        b->done[part] = true;
        b->left--;
    }
}

/* MPI_ERR_IN_STATUS: which of the pieces failed? */
static void blame(struct mpi *m, struct comm_batch *b, int n)
{
    struct pieces *p = b->own;
    for (int i = 0; i < n; i++)
        if (p->status[i].MPI_ERROR != MPI_SUCCESS && p->status[i].MPI_ERROR != MPI_ERR_PENDING)
            ok(m, p->status[i].MPI_ERROR, b->peer[p->part[p->index[i]]]);
    m->broken = true;
}

static void progress(struct mpi *m)
{
    if (m->broken)
        return;
    take_notes(m);
    for (struct comm_batch *b = m->batches; b && !m->broken; b = b->next) {
        struct pieces *p = b->own;
        int n = 0, status;
        if (!b->left)
            continue;
        status = MPI_Testsome((int)p->n, p->request, &n, p->index, p->status);
        if (status == MPI_ERR_IN_STATUS)
            blame(m, b, n);
        else if (!ok(m, status, m->watch.rank) || n == MPI_UNDEFINED)
            n = 0;
        for (int i = 0; i < n && !m->broken; i++)
            piece_done(m, b, (size_t)p->index[i], &p->status[i]);
    }
    if (comm_now() - m->said_at > m->watch.beat_s && !m->broken)
        say(m, NOTE_RUNS);
    watch_look(&m->watch);
}

static void *work(void *at)
{
    struct mpi *m = at;
    lock(m);
    while (!m->stop && !m->broken) {
        bool active = false;
        progress(m);
        for (struct comm_batch *b = m->batches; b; b = b->next)
            active |= b->left > 0;
        for (int i = 1; active && i < SWEEPS; i++)
            progress(m);
        comm_cond_wait(&m->wake, &m->lock, active ? ACTIVE_NS : (int64_t)(m->watch.beat_s * 0.5e9));
    }
    unlock(m);
    return NULL;
}

static bool send_piece(struct mpi *m, struct comm_batch *b, const struct comm_part *part,
                       size_t piece, size_t from)
{
    struct pieces *p = b->own;
    int peer = (int)part->peer;
    int count = (int)(part->bytes - from < PIECE ? part->bytes - from : PIECE);
    char *at = (char *)part->at + from;
    p->count[piece] = part->send ? -1 : count;
    return ok(m,
              part->send ? MPI_Isend(at, count, MPI_BYTE, peer, 0, m->data, &p->request[piece])
                         : MPI_Irecv(at, count, MPI_BYTE, peer, 0, m->data, &p->request[piece]),
              part->peer);
}

static enum err_code mpi_start(void *impl, const struct comm_part *parts, size_t n,
                               struct comm_batch **out, struct err *e)
{
    struct mpi *m = impl;
    struct comm_batch *b = comm_batch_new(parts, n);
    enum err_code rc = ERR_OK;
    size_t piece = 0;
    if (!b || !(b->own = pieces_new(parts, n))) {
        comm_batch_free(b);
        return err_nomem(e, "an exchange", n * sizeof *parts);
    }
    struct pieces *p = b->own;
    lock(m);
    if ((rc = watch_judge(&m->watch, NULL, 0, e)) != ERR_OK) {
        m->broken = true;
        pieces_free(p);
        comm_batch_free(b);
        goto out;
    }
    b->next = m->batches;
    m->batches = b;
    for (size_t i = 0; i < p->n; i++)
        p->request[i] = MPI_REQUEST_NULL;
    for (size_t i = 0; i < n; i++) {
        for (size_t from = 0; from < parts[i].bytes && !m->broken; from += PIECE) {
            p->part[piece] = i;
            p->left[i]++;
            send_piece(m, b, &parts[i], piece++, from);
        }
        if (!parts[i].bytes) {
            b->done[i] = true;
            b->left--;
        }
    }
    *out = b;
    pthread_cond_signal(&m->wake);
out:
    unlock(m);
    return rc;
}

static void mpi_test(void *impl)
{
    struct mpi *m = impl;
    if (!pthread_mutex_trylock(&m->lock)) { /* else the thread is at it */
        progress(m);
        unlock(m);
    }
}

static void nap(long *ns)
{
    struct timespec t = {0, *ns};
    nanosleep(&t, NULL);
    *ns = *ns < WAIT_NS / 2 ? *ns * 2 : WAIT_NS;
}

static enum err_code mpi_wait(void *impl, struct comm_batch **b, struct err *e)
{
    struct mpi *m = impl;
    enum err_code rc = ERR_OK;
    double began = comm_now();
    long ns = 2000;
    for (;;) {
        lock(m);
        progress(m);
        if (!(*b)->left && !m->watch.failed.code)
            break;
        if ((rc = watch_judge(&m->watch, *b, began, e)) != ERR_OK)
            break;
        unlock(m);
        nap(&ns);
    }
    if (rc != ERR_OK)
        m->broken = true;
    drop(m, *b);
    *b = NULL;
    unlock(m);
    return rc;
}

static enum err_code mpi_check(void *impl, const struct comm_batch *b, double began, struct err *e)
{
    struct mpi *m = impl;
    lock(m);
    progress(m);
    enum err_code rc = watch_judge(&m->watch, b, began, e);
    unlock(m);
    return rc;
}

/* ---- the end ---- */

static void join(struct mpi *m)
{
    if (!m->threaded)
        return;
    lock(m);
    m->stop = true;
    pthread_cond_signal(&m->wake);
    unlock(m);
    pthread_join(m->thread, NULL);
    m->threaded = false;
}

static void mpi_abort(void *impl, int exit_status)
{
    struct mpi *m = impl;
    join(m);
    MPI_Abort(MPI_COMM_WORLD, exit_status);
}

static void give_back(struct mpi *m)
{
    watch_close(&m->watch);
    pthread_cond_destroy(&m->wake);
    pthread_mutex_destroy(&m->lock);
    free(m->hears);
    free(m->says);
    free(m->heard);
    free(m->said);
    free(m->index);
    free(m->status);
    free(m);
}

/* Until everybody has said that it closes: then MPI_Finalize, which waits for all and cannot be
 * told how long, returns soon. */
static bool all_close(struct mpi *m)
{
    double began = comm_now();
    long ns = 2000;
    size_t open, unsaid;
    bool said = false;
    do {
        open = unsaid = 0;
        progress(m);
        for (size_t i = 0; i < m->watch.size && !m->broken; i++) {
            int done = 1;
            if (i == m->watch.rank)
                continue;
            ok(m, MPI_Test(&m->says[i], &done, MPI_STATUS_IGNORE), i);
            unsaid += !done;
            open += m->watch.peer[i].state != PEER_LEFT;
            m->broken |= m->watch.peer[i].state == PEER_SILENT;
        }
        if (!said && !unsaid && !m->broken) { /* the last beats are out: the way is free */
            say(m, NOTE_CLOSES);
            m->said_at = began + 2 * m->watch.patience_s; /* and no beats after it */
            said = true;
            unsaid = open = 1;
        }
        m->broken |= comm_now() - began > m->watch.patience_s;
        if (open + unsaid)
            nap(&ns);
    } while (!m->broken && open + unsaid);
    return !m->broken;
}

static void mpi_close(void *impl)
{
    struct mpi *m = impl;
    join(m);
    if (m->batches || m->watch.failed.code || !all_close(m))
        MPI_Abort(MPI_COMM_WORLD, ERR_RESOURCE);
    MPI_Comm_free(&m->data);
    MPI_Comm_free(&m->control);
    MPI_Finalize();
    give_back(m);
}

static const struct comm_ops mpi_ops = {"mpi",     mpi_start, mpi_test, mpi_wait,
                                        mpi_check, mpi_abort, mpi_close};

/* ---- the beginning ---- */

/* The signals that end a program are for the thread that the program knows. */
static bool begin_thread(struct mpi *m)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    m->threaded = !pthread_create(&m->thread, NULL, work, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return m->threaded;
}

static struct mpi *new_mpi(const struct comm_job *job)
{
    struct mpi *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    pthread_mutex_init(&m->lock, NULL);
    comm_cond_init(&m->wake);
    m->hears = calloc(job->size, sizeof *m->hears);
    m->says = calloc(job->size, sizeof *m->says);
    m->heard = calloc(job->size, 1);
    m->said = calloc(job->size, 1);
    m->index = calloc(job->size, sizeof *m->index);
    m->status = calloc(job->size, sizeof *m->status);
    if (m->hears && m->says && m->heard && m->said && m->index && m->status &&
        !watch_open(&m->watch, job, NULL))
        return m;
    give_back(m);
    return NULL;
}

enum err_code comm_mpi_open(struct comm *c, const struct comm_job *said, struct err *e)
{
    struct comm_job job = *said;
    int level, rank, size;
    /* MPI_Init waits for all processes and cannot be told how long: the signal ends a hung one. */
    alarm((unsigned)job.timeout_s + 1);
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
        return err_set(e, ERR_RESOURCE, "MPI does not start");
    alarm(0);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    job.rank = c->rank = (size_t)rank;
    job.size = c->size = (size_t)size;
    if (size == 1) {
        MPI_Finalize();
        if (said->size > 1) /* or each would be a job of its own, and write over the others */
            return err_set(e, ERR_USAGE,
                           "started as one of %zu processes, but MPI finds itself alone: it does "
                           "not understand what started it. COMM=tcp does without it",
                           said->size);
        return ERR_OK;
    }
    /* Without a thread nobody can say that this process runs: then only the patience counts. */
    if (level < MPI_THREAD_SERIALIZED)
        job.timeout_s = job.patience_s;
    struct mpi *m = new_mpi(&job);
    if (!m) /* the others wait for this rank and cannot be told otherwise */
        MPI_Abort(MPI_COMM_WORLD, ERR_RESOURCE);
    MPI_Comm_dup(MPI_COMM_WORLD, &m->data);
    MPI_Comm_dup(MPI_COMM_WORLD, &m->control);
    MPI_Comm_set_errhandler(m->data, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(m->control, MPI_ERRORS_RETURN);
    for (size_t i = 0; i < job.size; i++) {
        m->says[i] = m->hears[i] = MPI_REQUEST_NULL;
        if (i != job.rank)
            listen_to(m, i);
    }
    if (level >= MPI_THREAD_SERIALIZED && !begin_thread(m))
        m->watch.timeout_s = m->watch.patience_s;
    c->name = mpi_ops.name;
    c->ops = &mpi_ops;
    c->impl = m;
    return ERR_OK;
}
