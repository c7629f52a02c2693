/*
 * comm_tcp_link.c - what two ranks say to each other over their connection. Frames, little-endian:
 *
 *   magic 4, kind 4, id 8, sequence 8, bytes 8, total 8      (40 bytes)
 *
 *   READY  the receiver has room for `bytes` more parts
 *   DATA   `bytes` bytes of part number `sequence`, which has `total`: these follow, at most CHUNK
 *   BEAT   this process runs
 *   CLOSE  this rank leaves
 *   ABORT  this rank gives up: `bytes` bytes of text follow
 *
 * A part is sent when the other side has said READY for it. So whoever reads always has a place for
 * what comes next, a connection is never blocked by data that nobody wants yet, and beats and
 * aborts get through. Data are cut into chunks for the same reason.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "trainer/comm_tcp.h"

enum {
    MAGIC = 0x6d6f6370, /* "pcom" */
    CHUNK = 256 << 10,
    TURN = 1 << 20, /* bytes over one connection before the others have their turn */
};

/* ---- frames out ---- */

static void frame(struct tcp *t, struct tcp_link *l, enum tcp_kind kind, uint64_t sequence,
                  uint64_t bytes, uint64_t total)
{
    tcp_put(l->out, MAGIC, 4);
    tcp_put(l->out + 4, kind, 4);
    tcp_put(l->out + 8, t->id, 8);
    tcp_put(l->out + 16, sequence, 8);
    tcp_put(l->out + 24, bytes, 8);
    tcp_put(l->out + 32, total, 8);
    l->out_at = 0;
    l->body_left = 0;
    l->body_is_data = false;
    l->said = comm_now();
}

/* Prepares the next frame, most urgent first. False: there is nothing to say. */
static bool next_frame(struct tcp *t, struct tcp_link *l)
{
    struct tcp_item *s = l->send.first;
    if (l->farewell) {
        size_t n = l->farewell == LINK_ABORT ? strlen(t->why) : 0;
        frame(t, l, l->farewell, 0, n, n);
        l->body = t->why;
        l->body_left = n;
        l->farewell = 0;
    } else if (t->closing) {
        return false;
    } else if (l->ready) {
        frame(t, l, LINK_READY, 0, l->ready, 0);
        l->ready = 0;
    } else if (s && l->may_send) {
        size_t n = s->bytes - s->moved < CHUNK ? s->bytes - s->moved : CHUNK;
        frame(t, l, LINK_DATA, l->sent, n, s->bytes);
        l->body = s->at + s->moved;
        l->body_left = n;
        l->body_is_data = true;
    } else if (comm_now() - l->said > t->watch.beat_s) {
        frame(t, l, LINK_BEAT, 0, 0, 0);
    } else {
        return false;
    }
    return true;
}

static bool has_frame(const struct tcp_link *l)
{
    return l->out_at < TCP_HEAD || l->body_left;
}

bool tcp_has_more(const struct tcp_link *l)
{
    return has_frame(l) || l->farewell || l->ready || (l->send.first && l->may_send);
}

static void complete(struct tcp *t, struct tcp_queue *q)
{
    struct tcp_item *i = q->first;
    if (!(q->first = i->next))
        q->end = &q->first;
    i->b->done[i->index] = true;
    if (!--i->b->left)
        pthread_cond_broadcast(&t->change);
}

static void body_sent(struct tcp *t, struct tcp_link *l, size_t n)
{
    l->body += n;
    l->body_left -= n;
    if (!l->body_is_data || t->broken)
        return;
    l->send.first->moved += n;
    if (l->send.first->moved == l->send.first->bytes) {
        complete(t, &l->send);
        l->sent++;
        l->may_send--;
    }
}

void tcp_give(struct tcp *t, struct tcp_link *l)
{
    size_t moved = 0;
    while (l->writable && moved < TURN && (has_frame(l) || next_frame(t, l))) {
        size_t head = TCP_HEAD - l->out_at;
        struct iovec v[2] = {{l->out + l->out_at, head},
                             {(void *)(uintptr_t)l->body, l->body_left}};
        struct msghdr msg = {.msg_iov = v, .msg_iovlen = l->body_left ? 2 : 1};
        ssize_t n = sendmsg(l->fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            l->writable = errno == EAGAIN;
            return;
        }
        moved += (size_t)n;
        if ((size_t)n <= head) {
            l->out_at += (size_t)n;
        } else {
            l->out_at = TCP_HEAD;
            body_sent(t, l, (size_t)n - head);
        }
    }
}

/* ---- frames in ---- */

static void lost(struct tcp *t, struct tcp_link *l, const char *why)
{
    watch_is(&t->watch, (size_t)(l - t->link), PEER_GONE, why);
    l->readable = false;
    pthread_cond_broadcast(&t->change);
}

/* A complete head. False: nothing that can follow it makes sense. */
static bool take_head(struct tcp *t, struct tcp_link *l)
{
    uint64_t kind = tcp_get(l->in + 4, 4), sequence = tcp_get(l->in + 16, 8);
    uint64_t bytes = tcp_get(l->in + 24, 8), total = tcp_get(l->in + 32, 8);
    struct tcp_item *r = l->recv.first;
    char why[120];
    if (tcp_get(l->in, 4) != MAGIC || tcp_get(l->in + 8, 8) != t->id) {
        lost(t, l, "what it says is no frame of this job");
        return false;
    }
    switch (kind) {
    case LINK_READY:
        l->may_send += bytes;
        break;
    case LINK_DATA:
        if (!r || sequence != l->got || total != r->bytes || bytes > r->bytes - r->moved) {
            snprintf(why, sizeof why, "it sent %llu bytes where %llu were expected",
                     (unsigned long long)total, r ? (unsigned long long)r->bytes : 0);
            lost(t, l, why);
            return false;
        }
        l->in_left = bytes;
        break;
    case LINK_BEAT:
        break;
    case LINK_CLOSE:
        watch_is(&t->watch, (size_t)(l - t->link), PEER_LEFT, NULL);
        pthread_cond_broadcast(&t->change);
        break;
    case LINK_ABORT:
        if (bytes && bytes <= TCP_TEXT) {
            l->in_left = bytes;
            break;
        }
        /* fall through */
    default:
        lost(t, l, "what it says is no frame of this version");
        return false;
    }
    return true;
}

/* n more bytes of what follows a head; when that is complete, the next head may come. */
static void take_body(struct tcp *t, struct tcp_link *l, size_t n)
{
    l->in_left -= n;
    if (tcp_get(l->in + 4, 4) == LINK_DATA) {
        l->recv.first->moved += n;
        if (l->recv.first->moved == l->recv.first->bytes) {
            complete(t, &l->recv);
            l->got++;
        }
    }
    if (!l->in_left && tcp_get(l->in + 4, 4) == LINK_ABORT) {
        watch_is(&t->watch, (size_t)(l - t->link), PEER_GAVE_UP, l->text);
        pthread_cond_broadcast(&t->change);
    }
}

/* Where the next bytes of the frame belong. */
static char *place(struct tcp_link *l)
{
    struct tcp_item *r = l->recv.first;
    if (!l->in_left)
        return (char *)l->in + l->in_have;
    if (tcp_get(l->in + 4, 4) == LINK_DATA)
        return r->at + r->moved;
    return l->text + (tcp_get(l->in + 24, 8) - l->in_left);
}

void tcp_take(struct tcp *t, struct tcp_link *l)
{
    for (size_t moved = 0; l->readable && !t->broken && moved < TURN;) {
        bool head = !l->in_left;
        ssize_t n = recv(l->fd, place(l), head ? TCP_HEAD - l->in_have : l->in_left, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            lost(t, l, NULL);
            return;
        }
        watch_heard(&t->watch, (size_t)(l - t->link));
        moved += (size_t)n;
        if (!head) {
            take_body(t, l, (size_t)n);
        } else if ((l->in_have += (size_t)n) == TCP_HEAD) {
            l->in_have = 0;
            if (!take_head(t, l))
                return;
        }
    }
}

/* ---- queues ---- */

void tcp_queue(struct tcp_queue *q, struct tcp_item *i)
{
    if (!q->first)
        q->end = &q->first;
    *q->end = i;
    q->end = &i->next;
}

void tcp_break_off(struct tcp_link *l)
{
    l->send = l->recv = (struct tcp_queue){0};
    l->ready = l->may_send = 0;
    if (!l->body_is_data || !l->body_left)
        return;
    if (!l->out_at) {
        l->out_at = TCP_HEAD;
        l->body_left = 0;
    } else if ((l->spill = malloc(l->body_left))) {
        l->body = memcpy(l->spill, l->body, l->body_left);
    } else {
        l->writable = false;
    }
}
