/*
 * comm_tcp_meet.c - how the ranks of a TCP job find one another. Little-endian:
 *
 *   who connects says   magic 8, key 8, id 8, size 4, rank 4, port where it listens 4      (36
 * bytes) rank 0 answers      magic 8, code 4 (enum err_code), bytes 4, then, when the code is
 * ERR_OK, id 8, address 16 and port 4 of every rank; otherwise a text
 *
 * key is a hash of what the launcher calls the job; id is drawn by rank 0, and 0 while not known.
 * An address that rank 0 sees as its own loopback is a neighbour's on its machine: for everybody
 * else that is the address by which rank 0 was reached.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "trainer/comm_tcp.h"

enum {
    HELLO = 36,
    ANSWER = 16,
    PLACE = 20,   /* of a rank in the table */
    TEXT = 200,   /* the longest refusal */
    GUESTS = 64,  /* that have connected and not yet said hello; more: the oldest goes */
    HELLO_S = 5,  /* how long they may take for it */
    LOOKUPS = 10, /* tries at a name server that does not answer */
    NAP_MS = 100,
};

static const uint64_t MAGIC = 0x316d6f63666c6770; /* "pglfcom1" */

struct guest {
    int fd;
    size_t have;
    double since;
    uint8_t hello[HELLO];
};

struct meeting {
    const struct comm_job *job;
    double until;
    int *fd;
    uint64_t id;
    int listener;
    uint32_t port;         /* of it */
    uint8_t master[PLACE]; /* how this rank reached rank 0 */
    uint8_t *table;        /* id, then [size][PLACE] */
    struct pollfd *polled; /* [1 + GUESTS + size] */
    struct guest guest[GUESTS];
    size_t guests;
    char refused[TEXT]; /* who was turned away last */
};

static uint8_t *place(struct meeting *m, size_t rank)
{
    return m->table + 8 + rank * PLACE;
}

/* ---- sockets with a deadline ---- */

/* Milliseconds until `until`, for poll: rounded up, at least 0. */
static int left_ms(double until)
{
    double s = until - comm_now();
    return s <= 0 ? 0 : (int)fmin(ceil(s * 1000), 1e6);
}

/* All n bytes out or in. False: errno says why; ETIMEDOUT, or ECONNRESET at the stream's end. */
static bool move(int fd, bool out, void *at, size_t n, double until)
{
    for (size_t have = 0; have < n;) {
        struct pollfd p = {fd, out ? POLLOUT : POLLIN, 0};
        ssize_t got = out ? send(fd, (char *)at + have, n - have, MSG_NOSIGNAL)
                          : recv(fd, (char *)at + have, n - have, 0);
        if (got > 0) {
            have += (size_t)got;
        } else if (got == 0) {
            errno = ECONNRESET;
            return false;
        } else if (errno == EAGAIN || errno == EINTR) {
            int ms = left_ms(until);
            if (!ms) {
                errno = ETIMEDOUT;
                return false;
            }
            poll(&p, 1, ms);
        } else {
            return false;
        }
    }
    return true;
}

static void set_up(int fd)
{
    int on = 1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* A connected socket, or -1 and errno. */
static int reach(const struct sockaddr *a, socklen_t n, double until)
{
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd p = {fd, POLLOUT, 0};
    int status = 0;
    socklen_t size = sizeof status;
    if (fd < 0)
        return -1;
    set_up(fd);
    if (connect(fd, a, n) && errno != EINPROGRESS) {
        status = errno;
    } else if (poll(&p, 1, left_ms(until)) < 1) {
        status = ETIMEDOUT;
    } else {
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &size);
    }
    if (!status)
        return fd;
    close(fd);
    errno = status;
    return -1;
}

/* IPv4 inside IPv6 (RFC 4291, 2.5.5.2), so that all addresses have 16 bytes. */
static void address_out(uint8_t *at, const struct sockaddr_storage *a)
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    if (a->ss_family == AF_INET6) {
        memcpy(at, &((const struct sockaddr_in6 *)a)->sin6_addr, 16);
    } else {
        memcpy(at, v4, 12);
        memcpy(at + 12, &((const struct sockaddr_in *)a)->sin_addr, 4);
    }
}

static socklen_t address_in(struct sockaddr_storage *a, const uint8_t *at, uint16_t port)
{
    struct in6_addr in;
    memcpy(&in, at, 16);
    memset(a, 0, sizeof *a);
    if (IN6_IS_ADDR_V4MAPPED(&in)) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)a;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, at + 12, 4);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    v6->sin6_addr = in;
    return sizeof *v6;
}

static bool is_loopback(const uint8_t *at)
{
    static const uint8_t v4[13] = {[10] = 0xff, [11] = 0xff, [12] = 127}, v6[16] = {[15] = 1};
    return !memcmp(at, v4, 13) || !memcmp(at, v6, 16);
}

/* ---- listening ---- */

static int listen_at(const struct sockaddr *a, socklen_t n)
{
    int on = 1, off = 0, why;
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->sa_family == AF_INET6) /* IPv4 as well */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (!bind(fd, a, n) && !listen(fd, SOMAXCONN))
        return fd;
    why = errno;
    close(fd);
    errno = why;
    return -1;
}

static enum err_code look_up(struct addrinfo **list, const char *addr, const char *port,
                             struct err *e)
{
    struct addrinfo hint = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int status;
    for (int i = 0; (status = getaddrinfo(addr, port, &hint, list)) == EAI_AGAIN && i < LOOKUPS;
         i++)
        poll(NULL, 0, NAP_MS);
    if (status)
        return err_set(e, ERR_USAGE, "MASTER_ADDR=%s: %s", addr, gai_strerror(status));
    return ERR_OK;
}

/* A literal loopback address is listened to as it stands: nobody outside can connect. Any other
 * name may mean another address here than elsewhere, so all addresses are listened to. */
static enum err_code begin_listening(struct meeting *m, const char *port, struct err *e)
{
    const char *addr = m->job->addr;
    struct sockaddr_storage got = {0};
    socklen_t n = sizeof got;
    if (!strncmp(addr, "127.", 4) || !strcmp(addr, "localhost") || !strcmp(addr, "::1")) {
        struct addrinfo *list;
        if (look_up(&list, addr, port, e))
            return ERR_USAGE;
        for (struct addrinfo *a = list; a && m->listener < 0; a = a->ai_next)
            m->listener = listen_at(a->ai_addr, a->ai_addrlen);
        freeaddrinfo(list);
    } else {
        uint16_t number = htons((uint16_t)strtoul(port, NULL, 10));
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = number};
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = number};
        if ((m->listener = listen_at((struct sockaddr *)&v6, sizeof v6)) < 0 && errno != EADDRINUSE)
            m->listener = listen_at((struct sockaddr *)&v4, sizeof v4);
    }
    if (m->listener < 0)
        return errno == EADDRINUSE
                   ? err_set(e, ERR_RESOURCE,
                             "port %s is taken, by another job or program: set MASTER_PORT or "
                             "COMM_PORT to a free one",
                             port)
                   : err_set(e, ERR_RESOURCE, "port %s: %s", port, strerror(errno));
    getsockname(m->listener, (struct sockaddr *)&got, &n);
    m->port = ntohs(got.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&got)->sin6_port
                                              : ((struct sockaddr_in *)&got)->sin_port);
    return ERR_OK;
}

/* ---- who comes ---- */

static void answer(int fd, enum err_code code, const void *body, size_t bytes)
{
    uint8_t head[ANSWER];
    double until = comm_now() + HELLO_S;
    tcp_put(head, MAGIC, 8);
    tcp_put(head + 8, (uint64_t)code, 4);
    tcp_put(head + 12, bytes, 4);
    if (move(fd, true, head, sizeof head, until))
        move(fd, true, (void *)(uintptr_t)body, bytes, until);
}

/* A complete hello: the guest becomes a rank, or hears why not. */
static void admit(struct meeting *m, struct guest *g)
{
    struct sockaddr_storage from = {0};
    socklen_t n = sizeof from;
    size_t size = (size_t)tcp_get(g->hello + 24, 4), rank = (size_t)tcp_get(g->hello + 28, 4);
    char why[TEXT];
    if (tcp_get(g->hello, 8) != MAGIC) {
        snprintf(why, TEXT, "a stranger");
    } else if (tcp_get(g->hello + 8, 8) != m->job->key || tcp_get(g->hello + 16, 8) != m->id) {
        snprintf(why, TEXT, "rank %zu of another job (COMM_JOB, MASTER_PORT)", rank);
    } else if (size != m->job->size) {
        snprintf(why, TEXT, "rank %zu with WORLD_SIZE=%zu, where rank 0 has %zu", rank, size,
                 m->job->size);
    } else if (rank <= m->job->rank || rank >= size) {
        snprintf(why, TEXT, "rank %zu, which cannot be", rank);
    } else if (m->fd[rank] >= 0) {
        snprintf(why, TEXT, "a second rank %zu (two jobs at one MASTER_PORT?)", rank);
    } else {
        getpeername(g->fd, (struct sockaddr *)&from, &n);
        address_out(place(m, rank), &from);
        memcpy(place(m, rank) + 16, g->hello + 32, 4);
        m->fd[rank] = g->fd;
        return;
    }
    snprintf(m->refused, TEXT, "%s", why);
    if (tcp_get(g->hello, 8) == MAGIC)
        answer(g->fd, ERR_USAGE, why, strlen(why));
    close(g->fd);
}

static void take_guest(struct meeting *m)
{
    int fd = accept(m->listener, NULL, NULL);
    if (fd < 0)
        return;
    set_up(fd);
    if (m->guests == GUESTS) {
        close(m->guest[0].fd);
        memmove(m->guest, m->guest + 1, --m->guests * sizeof *m->guest);
    }
    m->guest[m->guests++] = (struct guest){.fd = fd, .since = comm_now()};
}

/* What a guest has said by now. Returns whether it is a guest still. */
static bool hear_guest(struct meeting *m, struct guest *g)
{
    ssize_t n = recv(g->fd, g->hello + g->have, HELLO - g->have, 0);
    bool nothing_yet = n < 0 && (errno == EAGAIN || errno == EINTR);
    g->have += n > 0 ? (size_t)n : 0;
    if (g->have == HELLO) {
        admit(m, g);
        return false;
    }
    if ((n > 0 || nothing_yet) && comm_now() - g->since < HELLO_S)
        return true;
    close(g->fd);
    return false;
}

/* Ranks that wait for the others say nothing: what can be read is the end of the connection. */
static enum err_code check_ranks(struct meeting *m, struct err *e)
{
    char c;
    for (size_t r = m->job->rank + 1; r < m->job->size && !m->job->rank; r++)
        if (m->fd[r] >= 0 && recv(m->fd[r], &c, 1, MSG_PEEK) == 0)
            return err_set(e, ERR_RESOURCE, "rank %zu is gone", r);
    return ERR_OK;
}

/* Until all higher ranks have connected. */
static enum err_code wait_for_ranks(struct meeting *m, struct err *e)
{
    size_t size = m->job->size;
    for (;;) {
        nfds_t n = 0;
        size_t missing = 0, kept = 0;
        m->polled[n++] = (struct pollfd){m->listener, POLLIN, 0};
        for (size_t i = 0; i < m->guests; i++)
            m->polled[n++] = (struct pollfd){m->guest[i].fd, POLLIN, 0};
        for (size_t r = m->job->rank + 1; r < size; r++) {
            missing += m->fd[r] < 0;
            if (m->fd[r] >= 0 && !m->job->rank)
                m->polled[n++] = (struct pollfd){m->fd[r], POLLIN, 0};
        }
        if (!missing)
            return ERR_OK;
        if (!left_ms(m->until))
            break;
        /* Now and then in any case, for guests that say nothing. */
        poll(m->polled, n, (int)fmin(left_ms(m->until), 1000));
        take_guest(m);
        for (size_t i = 0; i < m->guests; i++)
            if (hear_guest(m, &m->guest[i]))
                m->guest[kept++] = m->guest[i];
        m->guests = kept;
        if (check_ranks(m, e))
            return ERR_RESOURCE;
    }
    bool *hit = calloc(size, sizeof *hit);
    char who[120];
    if (!hit)
        return err_nomem(e, "ranks", size);
    for (size_t r = m->job->rank + 1; r < size; r++)
        hit[r] = m->fd[r] < 0;
    watch_names(who, sizeof who, hit, size);
    free(hit);
    return err_set(e, ERR_RESOURCE, "%s did not come in %g s (COMM_TIMEOUT)%s%s", who,
                   m->job->timeout_s, *m->refused ? "; turned away: " : "", m->refused);
}

/* ---- rank 0 ---- */

static enum err_code host(struct meeting *m, struct err *e)
{
    size_t size = m->job->size;
    struct err why = {0};
    enum err_code rc = begin_listening(m, m->job->port, e);
    if (rc != ERR_OK)
        return rc;
    if ((rc = wait_for_ranks(m, &why)) != ERR_OK)
        err_set(e, rc, "%s", why.msg);
    else if (getrandom(&m->id, sizeof m->id, 0) != sizeof m->id)
        rc = err_set(e, ERR_RESOURCE, "no random number: %s", strerror(errno));
    m->id |= 1; /* not 0 */
    tcp_put(m->table, m->id, 8);
    for (size_t r = 1; r < size; r++)
        if (m->fd[r] >= 0 && rc == ERR_OK)
            answer(m->fd[r], ERR_OK, m->table, 8 + size * PLACE);
        else if (m->fd[r] >= 0)
            answer(m->fd[r], rc, why.msg, strlen(why.msg));
    return rc;
}

/* ---- the others ---- */

static bool greet(struct meeting *m, int fd)
{
    uint8_t hello[HELLO];
    tcp_put(hello, MAGIC, 8);
    tcp_put(hello + 8, m->job->key, 8);
    tcp_put(hello + 16, m->id, 8);
    tcp_put(hello + 24, m->job->size, 4);
    tcp_put(hello + 28, m->job->rank, 4);
    tcp_put(hello + 32, m->port, 4);
    return move(fd, true, hello, sizeof hello, m->until);
}

/* Rank 0 may start later than this one: until it listens, connections are refused. */
static enum err_code find_master(struct meeting *m, struct err *e)
{
    const struct comm_job *job = m->job;
    struct addrinfo *list;
    int why = 0;
    if (look_up(&list, job->addr, job->port, e))
        return ERR_USAGE;
    for (;;) {
        for (struct addrinfo *a = list; a && m->fd[0] < 0; a = a->ai_next) {
            struct sockaddr_storage at = {0};
            memcpy(&at, a->ai_addr, a->ai_addrlen);
            address_out(m->master, &at);
            m->fd[0] = reach(a->ai_addr, a->ai_addrlen, m->until);
            why = m->fd[0] < 0 ? errno : 0;
        }
        if (m->fd[0] >= 0 || !left_ms(m->until))
            break;
        poll(NULL, 0, NAP_MS);
    }
    freeaddrinfo(list);
    return m->fd[0] >= 0 ? ERR_OK
                         : err_set(e, ERR_RESOURCE, "rank 0 is not at %s:%s after %g s: %s",
                                   job->addr, job->port, job->timeout_s, strerror(why));
}

static enum err_code hear_master(struct meeting *m, struct err *e)
{
    const struct comm_job *job = m->job;
    uint8_t head[ANSWER];
    char text[TEXT + 1] = {0};
    /* Rank 0 gives up before this one does, and says for whom it waited. */
    double until = comm_now() + job->timeout_s + HELLO_S;
    if (!move(m->fd[0], false, head, sizeof head, until))
        return err_set(e, ERR_RESOURCE,
                       "what listens at %s:%s is not rank 0 of this job, or it ended", job->addr,
                       job->port);
    enum err_code code = (enum err_code)tcp_get(head + 8, 4);
    size_t bytes = (size_t)tcp_get(head + 12, 4), table = 8 + job->size * PLACE;
    if (tcp_get(head, 8) != MAGIC || (code == ERR_OK ? bytes != table : bytes > TEXT))
        return err_set(e, ERR_RESOURCE, "what listens at %s:%s is not rank 0 of this job",
                       job->addr, job->port);
    if (!move(m->fd[0], false, code == ERR_OK ? (void *)m->table : text, bytes, until))
        return err_set(e, ERR_RESOURCE, "rank 0 is gone");
    if (code == ERR_USAGE)
        return err_set(e, code, "turned away by rank 0 at %s:%s as %s", job->addr, job->port, text);
    if (code != ERR_OK)
        return err_set(e, ERR_RESOURCE, "rank 0 gave up: %s", text);
    m->id = tcp_get(m->table, 8);
    return ERR_OK;
}

static enum err_code join(struct meeting *m, struct err *e)
{
    enum err_code rc;
    if ((rc = begin_listening(m, "0", e)) != ERR_OK || (rc = find_master(m, e)) != ERR_OK)
        return rc;
    if (!greet(m, m->fd[0]))
        return err_set(e, ERR_RESOURCE, "rank 0 is gone");
    if ((rc = hear_master(m, e)) != ERR_OK)
        return rc;
    m->until = comm_now() + m->job->timeout_s;
    for (size_t r = 1; r < m->job->rank; r++) {
        struct sockaddr_storage at;
        const uint8_t *where = is_loopback(place(m, r)) ? m->master : place(m, r);
        socklen_t n = address_in(&at, where, (uint16_t)tcp_get(place(m, r) + 16, 4));
        if ((m->fd[r] = reach((struct sockaddr *)&at, n, m->until)) < 0 || !greet(m, m->fd[r]))
            return err_set(e, ERR_RESOURCE, "rank %zu cannot be reached: %s", r, strerror(errno));
    }
    return wait_for_ranks(m, e);
}

/* Every rank has a socket to every other. */
static void allow_files(size_t size)
{
    struct rlimit l;
    if (!getrlimit(RLIMIT_NOFILE, &l) && l.rlim_cur < size + 2 * GUESTS) {
        l.rlim_cur = size + 2 * GUESTS < l.rlim_max ? size + 2 * GUESTS : l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

enum err_code tcp_meet(int *fd, uint64_t *id, const struct comm_job *job, struct err *e)
{
    struct meeting *m = calloc(1, sizeof *m);
    enum err_code rc = ERR_RESOURCE;
    for (size_t r = 0; r < job->size; r++)
        fd[r] = -1;
    if (!m)
        return err_nomem(e, "ranks", sizeof *m);
    m->job = job;
    m->fd = fd;
    m->listener = -1;
    m->until = comm_now() + job->timeout_s;
    m->table = calloc(1, 8 + job->size * PLACE);
    m->polled = calloc(1 + GUESTS + job->size, sizeof *m->polled);
    if (!m->table || !m->polled) {
        err_nomem(e, "ranks", job->size * (PLACE + sizeof *m->polled));
        goto out;
    }
    allow_files(job->size);
    rc = job->rank ? join(m, e) : host(m, e);
    *id = m->id;
out:
    for (size_t i = 0; i < m->guests; i++)
        close(m->guest[i].fd);
    if (m->listener >= 0)
        close(m->listener);
    free(m->table);
    free(m->polled);
    free(m);
    return rc;
}
