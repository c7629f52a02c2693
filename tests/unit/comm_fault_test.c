/*
 * comm_fault_test.c - exists for the job that hangs: a rank that dies, stops, gives up, leaves, or
 * sends what was not asked for, and others that wait for it for ever or say nothing about whom they
 * waited for. And for the opposite: a job that is ended because a rank computes for long, or
 * because all of it was suspended for a while.
 */
#include "tests/unit/comm_jobs.h"
#include "tests/unit/comm_ranks.h"

enum { RANKS = 3 };

/* Which ranks end with what status, and what the others say (a part of it). */
static const struct fault {
    const char *what;
    int victim, others;
    const char *say;
    double within_s;
} faults[] = {
    {"kill", -SIGKILL, ERR_RESOURCE, "rank 1 is gone", 30},
    {"exit", ERR_INPUT, ERR_RESOURCE, "rank 1 is gone", 30},
    {"leave", ERR_OK, ERR_RESOURCE, "rank 1 left the job", 30},
    {"abort", ERR_INPUT, ERR_RESOURCE, "rank 1 gave up: exit status 3", 30},
    {"stop", -SIGKILL, ERR_RESOURCE, "nothing heard from rank 1 for 1.5 s", 30},
    {"busy", ERR_OK, ERR_OK, "", 30},
};

static const char *const stall[] = {"COMM_TIMEOUT", "1.5", NULL};

/* All cases at once, since most of them wait. */
static void test_faults(void **state)
{
    enum { FAULTS = sizeof faults / sizeof faults[0] };
    struct ranks job[FAULTS];
    (void)state;
    for (size_t f = 0; f < FAULTS; f++) {
        ranks_init(&job[f], RANKS);
        for (size_t i = 0; i < RANKS; i++)
            ranks_begin(&job[f], i, job_fault, (void *)(uintptr_t)faults[f].what, stall);
    }
    for (size_t f = 0; f < FAULTS; f++) {
        const struct fault *want = &faults[f];
        struct ranks *r = &job[f];
        if (!strcmp(want->what, "stop")) { /* the others first: somebody has to end it */
            pid_t stopped = r->pid[1];
            r->pid[1] = 0;
            ranks_end(r);
            kill(stopped, SIGKILL);
            r->pid[1] = stopped;
        }
        ranks_end(r);
        for (size_t i = 0; i < RANKS; i++) {
            const struct rank_end *got = &r->end[i];
            int status = i == 1 ? want->victim : want->others;
            if (got->status != status || (i != 1 && !strstr(got->msg, want->say)))
                fail_msg("%s: rank %zu: status %d, expected %d: \"%s\"", want->what, i, got->status,
                         status, got->msg);
            if (got->took_s > want->within_s)
                fail_msg("%s: rank %zu took %g s", want->what, i, got->took_s);
        }
        ranks_free(r);
    }
}

/* All ranks stop for longer than COMM_TIMEOUT, one after the other, and go on. */
static enum err_code long_job(struct comm *c, void *ctx, struct err *e)
{
    size_t rounds = 1;
    for (int i = 0; i < 3; i++) {
        uint8_t all[RANKS], mine = 1;
        (void)ctx;
        if (comm_gather(c, all, &mine, 1, e))
            return ERR_RESOURCE;
        nanosleep(&(struct timespec){0, 500000000}, NULL);
    }
    return job_exchange(c, &rounds, e);
}

static void test_suspended(void **state)
{
    static const char *const extra[] = {"COMM_TIMEOUT", "1.5", NULL};
    struct ranks r;
    (void)state;
    ranks_init(&r, RANKS);
    for (size_t i = 0; i < RANKS; i++)
        ranks_begin(&r, i, long_job, NULL, extra);
    nanosleep(&(struct timespec){0, 800000000}, NULL);
    for (size_t i = 0; i < RANKS; i++)
        kill(r.pid[i], SIGSTOP);
    nanosleep(&(struct timespec){2, 200000000}, NULL);
    for (size_t i = 0; i < RANKS; i++)
        kill(r.pid[i], SIGCONT);
    ranks_end(&r);
    for (size_t i = 0; i < RANKS; i++)
        if (r.end[i].status)
            fail_msg("rank %zu: status %d: %s", i, r.end[i].status, r.end[i].msg);
    ranks_free(&r);
}

/* Rank 1 runs but never gets there. */
static void test_patience(void **state)
{
    static const char *const extra[] = {"COMM_TIMEOUT", "1", "COMM_PATIENCE", "1.2", NULL};
    struct ranks r;
    (void)state;
    ranks_init(&r, RANKS);
    for (size_t i = 0; i < RANKS; i++)
        ranks_begin(&r, i, job_fault, (char[]){"busy"}, extra);
    ranks_end(&r);
    for (size_t i = 0; i < RANKS; i += 2)
        if (r.end[i].status != ERR_RESOURCE || !strstr(r.end[i].msg, "waited 1.2 s for rank 1"))
            fail_msg("rank %zu: status %d: %s", i, r.end[i].status, r.end[i].msg);
    ranks_free(&r);
}

/* Two ranks that disagree about a part. */
static enum err_code disagree(struct comm *c, void *ctx, struct err *e)
{
    char mem[10] = {0};
    struct comm_batch *b;
    struct comm_part part = {1 - c->rank, c->rank == 0, mem, c->rank == 0 ? 10 : 9};
    (void)ctx;
    enum err_code rc = comm_start(c, &part, 1, &b, e);
    if (rc == ERR_OK)
        rc = comm_wait(c, &b, e);
    /* Rank 0 may be done: it has given its bytes to the network. The first failure stays. */
    uint8_t all[2], mine = 0;
    return rc == ERR_OK ? comm_gather(c, all, &mine, 1, e) : comm_wait(c, &b, e) ? ERR_CLAIM : rc;
}

static void test_disagree(void **state)
{
    struct ranks r;
    (void)state;
    ranks_init(&r, 2);
    for (size_t i = 0; i < 2; i++)
        ranks_begin(&r, i, disagree, NULL, stall);
    ranks_end(&r);
    if (r.end[1].status != ERR_RESOURCE ||
        !strstr(r.end[1].msg, "it sent 10 bytes where 9 were expected"))
        fail_msg("rank 1: status %d: %s", r.end[1].status, r.end[1].msg);
    if (r.end[0].status != ERR_RESOURCE || !strstr(r.end[0].msg, "rank 1 gave up: rank 0"))
        fail_msg("rank 0: status %d: %s", r.end[0].status, r.end[0].msg);
    ranks_free(&r);
}

/* A rank dies while the others send it and one another much: nothing may crash, and what was given
 * back is not written to (the sanitizer looks). */
static enum err_code in_flight(struct comm *c, void *ctx, struct err *e)
{
    enum { MUCH = 4 << 20 };
    struct comm_batch *b = NULL;
    struct comm_part part[2 * RANKS];
    char *mem = calloc(2 * RANKS, MUCH);
    size_t n = 0;
    enum err_code rc = ERR_OK;
    (void)ctx;
    for (int round = 0; rc == ERR_OK && round < 50; round++) {
        n = 0;
        for (size_t r = 0; r < c->size; r++)
            for (int send = 0; send < 2 && r != c->rank; send++, n++)
                part[n] = (struct comm_part){r, send, mem + n * MUCH, MUCH};
        rc = comm_start(c, part, n, &b, e);
        if (round == 3 && c->rank == 1)
            raise(SIGKILL);
        if (rc == ERR_OK)
            rc = comm_wait(c, &b, e);
    }
    free(mem);
    return rc;
}

static void test_in_flight(void **state)
{
    struct ranks r;
    (void)state;
    ranks_init(&r, RANKS);
    for (size_t i = 0; i < RANKS; i++)
        ranks_begin(&r, i, in_flight, NULL, stall);
    ranks_end(&r);
    for (size_t i = 0; i < RANKS; i += 2)
        if (r.end[i].status != ERR_RESOURCE || !strstr(r.end[i].msg, "rank 1 is gone"))
            fail_msg("rank %zu: status %d: %s", i, r.end[i].status, r.end[i].msg);
    ranks_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),    cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_patience),  cmocka_unit_test(test_disagree),
        cmocka_unit_test(test_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
