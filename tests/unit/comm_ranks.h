/*
 * comm_ranks.h - jobs of several processes on this machine, for the tests of the communicator:
 * forks the ranks, gives them the environment of a launcher (RANK, WORLD_SIZE, MASTER_ADDR,
 * MASTER_PORT; TCP on the loopback), and collects how each of them ended. Nobody outlives the test.
 */
#ifndef TESTS_UNIT_COMM_RANKS_H
#define TESTS_UNIT_COMM_RANKS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "trainer/comm.h"

enum { RANKS_MOST = 16, RANKS_LIMIT_S = 60 };

/* What a rank does once it has joined. Its return value is the exit status; on an error the job is
 * aborted, as the programs do. May close c itself. */
typedef enum err_code rank_fn(struct comm *c, void *ctx, struct err *e);

/* How a rank ended, written by itself but for the status: exit status, or minus the signal. */
struct rank_end {
    int status;
    char msg[240];
    double took_s;
};

struct ranks {
    size_t size;
    char port[8];
    pid_t pid[RANKS_MOST];
    double began;
    struct rank_end *end; /* [RANKS_MOST], shared with the children */
};

static inline double ranks_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A port of the loopback that nobody listens to, as text. */
static inline void ranks_free_port(char *port, size_t n)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) ||
        getsockname(fd, (struct sockaddr *)&a, &len))
        fail_msg("no port");
    snprintf(port, n, "%u", (unsigned)ntohs(a.sin_port));
    close(fd);
}

/* ranks_init - a job of `size` ranks that has not begun. */
static inline void ranks_init(struct ranks *r, size_t size)
{
    memset(r, 0, sizeof *r);
    r->size = size;
    ranks_free_port(r->port, sizeof r->port);
    r->end = mmap(NULL, RANKS_MOST * sizeof *r->end, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r->end == MAP_FAILED)
        fail_msg("no memory");
    r->began = ranks_now();
}

/* ranks_begin - starts process `at`, which is to be rank `at`. extra: NULL, or variables and values
 * for this one, which win, and NULL at the end. */
static inline void ranks_begin(struct ranks *r, size_t at, rank_fn *fn, void *ctx,
                               const char *const *extra)
{
    fflush(NULL);
    r->pid[at] = fork();
    if (r->pid[at] < 0)
        fail_msg("no process");
    if (r->pid[at] > 0)
        return;
    struct comm c;
    struct err e = {0};
    char rank[16], size[16];
    static const char *const foreign[] = {
        "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "COMM", "COMM_PORT", "COMM_JOB", "COMM_PATIENCE"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        unsetenv(foreign[i]);
    snprintf(rank, sizeof rank, "%zu", at);
    snprintf(size, sizeof size, "%zu", r->size);
    setenv("RANK", rank, 1);
    setenv("WORLD_SIZE", size, 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", r->port, 1);
    setenv("COMM_TIMEOUT", "10", 1);
    for (; extra && *extra; extra += 2)
        setenv(extra[0], extra[1], 1);
    enum err_code rc = comm_open(&c, &e);
    if (rc == ERR_OK && (rc = fn(&c, ctx, &e)) != ERR_OK)
        comm_abort(&c, (int)rc);
    comm_close(&c);
    snprintf(r->end[at].msg, sizeof r->end[at].msg, "%s", e.msg);
    r->end[at].took_s = ranks_now() - r->began;
    exit((int)rc);
}

/* ranks_end - waits for all that were started; who is not done after RANKS_LIMIT_S is killed. */
static inline void ranks_end(struct ranks *r)
{
    for (size_t left = RANKS_MOST; left;) {
        struct timespec nap = {0, 5000000};
        left = 0;
        for (size_t i = 0; i < RANKS_MOST; i++) {
            int status;
            if (r->pid[i] <= 0)
                continue;
            if (ranks_now() - r->began > RANKS_LIMIT_S)
                kill(r->pid[i], SIGKILL);
            if (waitpid(r->pid[i], &status, WNOHANG) == r->pid[i]) {
                r->end[i].status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
                r->pid[i] = 0;
            } else {
                left++;
            }
        }
        nanosleep(&nap, NULL);
    }
}

static inline void ranks_free(struct ranks *r)
{
    munmap(r->end, RANKS_MOST * sizeof *r->end);
}

/* ranks_run - `size` ranks, all of which must succeed. */
static inline void ranks_run(const char *what, size_t size, rank_fn *fn, void *ctx)
{
    struct ranks r;
    ranks_init(&r, size);
    for (size_t i = 0; i < size; i++)
        ranks_begin(&r, i, fn, ctx, NULL);
    ranks_end(&r);
    for (size_t i = 0; i < size; i++)
        if (r.end[i].status)
            fail_msg("%s: rank %zu of %zu: status %d: %s", what, i, size, r.end[i].status,
                     r.end[i].msg);
    ranks_free(&r);
}

#endif
