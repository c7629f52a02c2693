/*
 * comm_impl.h - inside the communicator (comm.h): what an implementation offers, how it learns what
 * to join, and how it tells a dead rank from a busy one. Included by trainer/comm*.c only.
 *
 * mpi and tcp each have one thread of their own beside the caller's. It moves bytes while the
 * caller computes, and every few seconds it says to every other rank that this process runs. So a
 * rank that computes for an hour is heard, and one that was stopped, or that is behind a broken
 * network, is not: silence is a fault, whatever the rank should be doing (struct comm_watch).
 */
#ifndef TRAINER_COMM_IMPL_H
#define TRAINER_COMM_IMPL_H

#include <pthread.h>

#include "trainer/comm.h"

/* ---- what to join ---- */

enum comm_kind { COMM_SINGLE, COMM_MPI, COMM_TCP };

struct comm_job {
    enum comm_kind kind;
    size_t rank, size;
    size_t local_rank; /* SIZE_MAX: not said, to be found by comparing machines */
    double timeout_s, patience_s;
    char addr[256]; /* tcp, and mpi where tcp would do as well: where rank 0 listens */
    char port[24];
    uint64_t key; /* tcp: equal for the processes of one job, different for others where the
                     launcher names its jobs */
};

/* comm_env - the job that the environment describes; `get` is getenv but in tests. ERR_USAGE names
 * the variable. */
enum err_code comm_env(struct comm_job *job, char *(*get)(const char *name), struct err *e);

/* ---- an implementation ---- */

/* An exchange under way: `left` parts that are not complete, part i with peer[i]. Both and the rest
 * are read and written under the implementation's lock. */
struct comm_batch {
    struct comm_batch *next;
    size_t n, left;
    size_t *peer; /* [n] */
    bool *done;   /* [n] */
    void *own;    /* the implementation's */
};

struct comm_ops {
    const char *name;
    enum err_code (*start)(void *impl, const struct comm_part *parts, size_t n,
                           struct comm_batch **b, struct err *e);
    void (*test)(void *impl);
    enum err_code (*wait)(void *impl, struct comm_batch **b, struct err *e);
    /* watch_judge, for who waits for something else than this implementation's exchanges */
    enum err_code (*check)(void *impl, const struct comm_batch *b, double began, struct err *e);
    void (*abort)(void *impl, int exit_status);
    void (*close)(void *impl);
};

/* Return when every rank is there. On failure c stays as it was. */
enum err_code comm_mpi_open(struct comm *c, const struct comm_job *job, struct err *e);
enum err_code comm_tcp_open(struct comm *c, const struct comm_job *job, struct err *e);

/* comm_nccl_open - sets c->device_ops and c->device if k is a CUDA backend, over the host ranks of
 * c; otherwise does nothing. */
enum err_code comm_nccl_open(struct comm *c, struct kern *k, struct err *e);

/* A batch for n parts of the peers, nothing done. NULL: no memory. */
struct comm_batch *comm_batch_new(const struct comm_part *parts, size_t n);
void comm_batch_free(struct comm_batch *b);

/* ---- who is alive ---- */

enum peer_state {
    PEER_ALIVE,
    PEER_SILENT,  /* not heard for timeout_s; heard again, it is alive */
    PEER_LEFT,    /* it closed its communicator, as everybody does in the end */
    PEER_GAVE_UP, /* comm_abort */
    PEER_GONE,    /* its connection broke without a word: the process died */
};

/*
 * What is known of the other ranks. A wait fails when
 *   - any rank is gone or gave up: the job cannot be finished;
 *   - a rank that is waited for has left, or is silent for timeout_s;
 *   - it took patience_s, although all ranks run.
 * The first failure stays: everything after it fails with the same words.
 *
 * Not thread-safe: the implementation's lock is held. Times are seconds of the monotonic clock.
 */
struct comm_peer {
    enum peer_state state;
    double heard;
    char why[160]; /* of PEER_GAVE_UP, PEER_GONE: what is known; may be empty */
};
struct comm_watch {
    size_t rank, size;
    double timeout_s, patience_s;
    double beat_s; /* how often to say something */
    double looked; /* when watch_look was called last */
    struct err failed;
    struct comm_peer *peer; /* [size] */
};

enum err_code watch_open(struct comm_watch *w, const struct comm_job *job, struct err *e);
void watch_close(struct comm_watch *w);

/* watch_heard - a sign of life. watch_is - what became of a peer; why may be NULL. A peer that is
 * gone, gave up or left does not come back. */
void watch_heard(struct comm_watch *w, size_t peer);
void watch_is(struct comm_watch *w, size_t peer, enum peer_state state, const char *why);

/*
 * watch_look - to be called by the thread at least every beat_s: finds who is silent. Time in which
 * it was not called does not count as the others' silence: then this process was the one that was
 * stopped (a suspended job, a laptop that slept).
 */
void watch_look(struct comm_watch *w);

/* watch_judge - is there hope for a wait for b that began at `began`? b NULL: for a new exchange.
 * Otherwise ERR_RESOURCE naming the ranks. */
enum err_code watch_judge(struct comm_watch *w, const struct comm_batch *b, double began,
                          struct err *e);

/* The ranks r for which hit[r], as "rank 3" or "ranks 1, 4, 5 and 9 more". */
void watch_names(char *out, size_t room, const bool *hit, size_t size);

double comm_now(void); /* seconds, monotonic */

/* A condition whose waits end by the monotonic clock: comm_cond_wait after ns nanoseconds at the
 * latest. */
void comm_cond_init(pthread_cond_t *c);
void comm_cond_wait(pthread_cond_t *c, pthread_mutex_t *lock, int64_t ns);

#endif
