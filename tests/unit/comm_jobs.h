/*
 * comm_jobs.h - what the ranks of the communicator's tests do, over whatever connects them: forked
 * with TCP (comm_test.c) or started by mpirun (the same program, tests/e2e/comm_test.sh).
 */
#ifndef TESTS_UNIT_COMM_JOBS_H
#define TESTS_UNIT_COMM_JOBS_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/comm.h"

enum { JOB_BATCHES = 3, JOB_PARTS = 40 };

static inline uint64_t job_random(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15; /* SplitMix64 */
    uint64_t z = (*s ^ *s >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* What `from` sends to `to` in part `i` of all: the byte at `at`. The period is prime, so that
 * swapped pieces are noticed. */
static inline uint8_t job_byte(size_t from, size_t to, size_t i, size_t at)
{
    return (uint8_t)(from * 83 + to * 29 + i * 7 + at % 251);
}

struct job_box {
    uint8_t *mem; /* one byte more on each side, which must stay */
    size_t from, to, i, bytes;
};

static inline enum err_code job_box(struct job_box *b, size_t from, size_t to, size_t i,
                                    size_t bytes, bool full)
{
    *b = (struct job_box){malloc(bytes + 2), from, to, i, bytes};
    memset(b->mem, 0xa5, bytes + 2);
    for (size_t at = 0; full && at < bytes; at++)
        b->mem[1 + at] = job_byte(from, to, i, at);
    return ERR_OK;
}

static inline enum err_code job_check(const struct job_box *b, struct err *e)
{
    if (b->mem[0] != 0xa5 || b->mem[b->bytes + 1] != 0xa5)
        return err_set(e, ERR_CLAIM, "part %zu from %zu: written beside it", b->i, b->from);
    for (size_t at = 0; at < b->bytes; at++)
        if (b->mem[1 + at] != job_byte(b->from, b->to, b->i, at))
            return err_set(e, ERR_CLAIM, "part %zu from %zu, %zu bytes: wrong at %zu", b->i,
                           b->from, b->bytes, at);
    return ERR_OK;
}

/* Sizes at the edges of what an implementation may cut data at, and any other. */
static inline size_t job_size(uint64_t *seed)
{
    static const size_t edges[] = {0,     1,      2,      39,     40,      41,     4096,
                                   65535, 262143, 262144, 262145, 1048577, 999983, 3};
    uint64_t v = job_random(seed);
    return v % 3 ? edges[v / 3 % (sizeof edges / sizeof edges[0])] : v / 3 % 300000;
}

/* Exchanges between any two ranks, several under way at once, waited for in another order than
 * they were started in. Every rank draws the same plan. ctx: NULL or the number of rounds. */
static inline enum err_code job_exchange(struct comm *c, void *ctx, struct err *e)
{
    size_t rounds = ctx ? *(size_t *)ctx : 4;
    uint64_t seed = 1, sent = 0, received = 0;
    enum err_code rc = ERR_OK;
    for (size_t round = 0; round < rounds && rc == ERR_OK; round++) {
        struct comm_batch *batch[JOB_BATCHES] = {0};
        struct job_box box[JOB_BATCHES][JOB_PARTS];
        size_t boxes[JOB_BATCHES] = {0};
        for (size_t b = 0; b < JOB_BATCHES && rc == ERR_OK; b++) {
            struct comm_part part[JOB_PARTS];
            for (size_t i = 0; i < JOB_PARTS; i++) {
                size_t from = job_random(&seed) % c->size, to = job_random(&seed) % c->size;
                size_t bytes = ctx || round || i ? job_size(&seed) : 10 << 20;
                if (from == to || (from != c->rank && to != c->rank))
                    continue;
                size_t n = boxes[b]++;
                job_box(&box[b][n], from, to, i + b * JOB_PARTS, bytes, from == c->rank);
                part[n] = (struct comm_part){from == c->rank ? to : from, from == c->rank,
                                             box[b][n].mem + 1, bytes};
                *(part[n].send ? &sent : &received) += bytes;
            }
            rc = comm_start(c, part, boxes[b], &batch[b], e);
            comm_test(c);
        }
        for (size_t b = JOB_BATCHES; b-- && rc == ERR_OK;) {
            rc = comm_wait(c, &batch[b], e);
            for (size_t i = 0; i < boxes[b] && rc == ERR_OK; i++)
                rc = job_check(&box[b][i], e);
        }
        for (size_t b = 0; b < JOB_BATCHES && rc == ERR_OK; b++)
            for (size_t i = 0; i < boxes[b]; i++)
                free(box[b][i].mem);
    }
    if (rc == ERR_OK && (c->sent != sent || c->received != received))
        rc = err_set(e, ERR_CLAIM, "counted %llu and %llu bytes, not %llu and %llu",
                     (unsigned long long)c->sent, (unsigned long long)c->received,
                     (unsigned long long)sent, (unsigned long long)received);
    return rc;
}

static inline enum err_code job_gather(struct comm *c, void *ctx, struct err *e)
{
    static const size_t sizes[] = {0, 1, 24, 4099, 300000};
    (void)ctx;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t n = sizes[s];
        uint8_t *mine = malloc(n + 1), *all = malloc(n * c->size + 1);
        for (size_t at = 0; at < n; at++)
            mine[at] = job_byte(c->rank, 0, s, at);
        memset(all, 0, n * c->size + 1);
        enum err_code rc = comm_gather(c, all, mine, n, e);
        for (size_t r = 0; r < c->size && rc == ERR_OK; r++)
            for (size_t at = 0; at < n && rc == ERR_OK; at++)
                if (all[r * n + at] != job_byte(r, 0, s, at))
                    rc = err_set(e, ERR_CLAIM, "gather of %zu bytes: wrong from rank %zu", n, r);
        if (rc == ERR_OK && all[n * c->size])
            rc = err_set(e, ERR_CLAIM, "gather of %zu bytes: written behind the end", n);
        free(mine);
        free(all);
        if (rc != ERR_OK)
            return rc;
    }
    return ERR_OK;
}

/* Nobody fails, the last fails, the two last fail. */
static inline enum err_code job_agree(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    for (size_t failing = 0; failing < 3 && failing < c->size; failing++) {
        struct err mine = {0};
        char want[300] = "";
        bool fails = c->rank + failing >= c->size;
        if (fails)
            err_set(&mine, ERR_INPUT, "shard %zu is short", c->rank);
        if (failing && c->size > 1)
            snprintf(want, sizeof want, "rank %zu: shard %zu is short", c->size - failing,
                     c->size - failing);
        else if (failing)
            snprintf(want, sizeof want, "shard 0 is short");
        enum err_code rc = comm_agree(c, mine.code, &mine);
        if (rc != (failing ? ERR_INPUT : ERR_OK) || strcmp(mine.msg, want))
            return err_set(e, ERR_CLAIM, "%zu failing: status %d, \"%s\"", failing, (int)rc,
                           mine.msg);
    }
    return ERR_OK;
}

/* The last rank sends much and leaves at once; what it sent arrives all the same. */
static inline enum err_code job_last_word(struct comm *c, void *ctx, struct err *e)
{
    enum { MUCH = 9 << 20 };
    size_t last = c->size - 1;
    enum err_code rc = ERR_OK;
    (void)ctx;
    for (size_t r = 0; r < last && rc == ERR_OK; r++) {
        struct comm_batch *b;
        struct job_box box;
        if (c->rank != last && c->rank != r)
            continue;
        if (c->rank == r) /* long after it was sent, and beats lie unread at the sender's */
            nanosleep(&(struct timespec){0, 300000000}, NULL);
        job_box(&box, last, r, r, MUCH, c->rank == last);
        rc = comm_start(
            c, &(struct comm_part){c->rank == r ? last : r, c->rank == last, box.mem + 1, MUCH}, 1,
            &b, e);
        if (rc == ERR_OK)
            rc = comm_wait(c, &b, e);
        if (rc == ERR_OK)
            rc = job_check(&box, e);
        free(box.mem);
    }
    return rc;
}

/* Rank 1 meets with something in the middle of an exchange. ctx: what. */
static inline enum err_code job_fault(struct comm *c, void *ctx, struct err *e)
{
    const char *what = ctx;
    size_t rounds = 1;
    enum err_code rc = job_exchange(c, &rounds, e);
    if (rc == ERR_OK && c->rank == 1) {
        if (!strcmp(what, "kill"))
            raise(SIGKILL);
        if (!strcmp(what, "stop"))
            raise(SIGSTOP);
        if (!strcmp(what, "exit"))
            _exit(ERR_INPUT);
        if (!strcmp(what, "leave")) {
            comm_close(c);
            return ERR_OK;
        }
        if (!strcmp(what, "abort"))
            return err_set(e, ERR_INPUT, "shard 7 is short");
        if (!strcmp(what, "busy"))
            nanosleep(&(struct timespec){2, 200000000}, NULL);
    }
    uint8_t all[64], mine = 0; /* everybody needs rank 1 now */
    return rc == ERR_OK ? comm_gather(c, all, &mine, 1, e) : rc;
}

#endif
