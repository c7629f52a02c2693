/*
 * comm_tcp.h - between the parts of the communicator over TCP: how the ranks find one another
 * (comm_tcp_meet.c), what they say over a connection then (comm_tcp_link.c), and the exchanges
 * themselves (comm_tcp.c).
 *
 * No encryption and no password: for networks whose users are trusted. A stranger, or a process of
 * another job, is turned away; it cannot join or disturb by accident.
 */
#ifndef TRAINER_COMM_TCP_H
#define TRAINER_COMM_TCP_H

#include <poll.h>
#include <pthread.h>

#include "trainer/comm_impl.h"

/*
 * tcp_meet - a connection between every two ranks.
 *
 *   fd  [size] out: non-blocking sockets, -1 at the own rank; the caller closes what is not -1,
 *       after a failure as well
 *   id  out: a number that only this job has
 *
 * Rank 0 listens at MASTER_ADDR:MASTER_PORT; the others tell it their rank and where they listen,
 * and are told where everybody is; then each connects to those with lower numbers. Takes at most
 * about timeout_s. ERR_USAGE: this process does not fit the job that it found (another WORLD_SIZE,
 * a rank that is there already, another COMM_JOB), MASTER_ADDR is no known name. ERR_RESOURCE: the
 * port is taken, ranks did not come in time (which), no memory or sockets.
 */
enum err_code tcp_meet(int *fd, uint64_t *id, const struct comm_job *job, struct err *e);

/* Little-endian numbers of n bytes. */
static inline void tcp_put(uint8_t *at, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static inline uint64_t tcp_get(const uint8_t *at, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)at[i] << 8 * i;
    return v;
}

/* ---- one connection (comm_tcp_link.c) ---- */

enum { TCP_HEAD = 40, TCP_TEXT = 159 };

enum tcp_kind { LINK_READY = 1, LINK_DATA, LINK_BEAT, LINK_CLOSE, LINK_ABORT };

/* A part that is under way. */
struct tcp_item {
    struct tcp_item *next;
    struct comm_batch *b;
    size_t index;
    char *at;
    size_t bytes, moved;
};

struct tcp_queue {
    struct tcp_item *first, **end;
};

struct tcp_link {
    int fd;
    bool readable, writable; /* no failure yet */
    struct tcp_queue send, recv;
    uint64_t sent, got;     /* parts that are complete */
    uint64_t may_send;      /* parts: the other's READYs */
    uint64_t ready;         /* parts that were asked for since the last READY */
    enum tcp_kind farewell; /* LINK_CLOSE or LINK_ABORT, to be said; 0: not yet */
    double said;            /* when the last frame went out */
    /* The frame that comes in: its head, then what follows. */
    uint8_t in[TCP_HEAD];
    size_t in_have, in_left;
    char text[TCP_TEXT + 1];
    /* The frame that goes out. */
    uint8_t out[TCP_HEAD];
    size_t out_at, body_left; /* out_at TCP_HEAD and body_left 0: none */
    const char *body;
    bool body_is_data;
    char *spill; /* what remained of a chunk when the caller's memory was given up */
};

struct tcp {
    size_t rank, size;
    uint64_t id;
    pthread_mutex_t lock;
    pthread_cond_t change;
    pthread_t thread;
    bool threaded, broken, closing;
    double closing_until;
    int wake; /* eventfd */
    struct comm_watch watch;
    struct tcp_link *link;  /* [size] */
    struct pollfd *polled;  /* [size + 1] */
    char why[TCP_TEXT + 1]; /* for LINK_ABORT */
};

/* All of these are called under the lock. */

/* tcp_queue - a part to send or to receive, behind those that are there; for one to receive,
 * l->ready is to be counted up as well. */
void tcp_queue(struct tcp_queue *q, struct tcp_item *i);

/* tcp_give - write as much as the socket takes. Whether the peer is gone is for reading to find
 * out: what it said last may still lie there. */
void tcp_give(struct tcp *t, struct tcp_link *l);

/* tcp_has_more - is there anything to write but beats? */
bool tcp_has_more(const struct tcp_link *l);

/* tcp_take - read what is there. */
void tcp_take(struct tcp *t, struct tcp_link *l);

/* tcp_break_off - forget what is queued. A chunk of which the head is out is finished from a copy
 * (l->spill, to be freed), so that the other side understands what follows. */
void tcp_break_off(struct tcp_link *l);

#endif
