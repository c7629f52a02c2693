/*
 * comm_test.c - exists for the bytes that arrive at the wrong place or not at all: parts that are
 * matched with others, cut at the wrong byte, overtaken by later ones, lost when the sender leaves.
 *
 * `comm_test JOB [WHAT]` does one job as a rank of whatever started it (tests/e2e/comm_test.sh
 * starts it with mpirun), and says how it ended like a program of the project.
 */
#include "tests/unit/comm_jobs.h"
#include "tests/unit/comm_ranks.h"

static const struct {
    const char *name;
    rank_fn *fn;
} jobs[] = {
    {"exchange", job_exchange}, {"gather", job_gather}, {"agree", job_agree},
    {"last", job_last_word},    {"fault", job_fault},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

static void test_jobs(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < JOBS; i++)
        for (size_t size = 2; size < 6; size++)
            ranks_run(jobs[i].name, size, jobs[i].fn, NULL);
}

/* One process: the same calls, nothing to do. */
static void test_single(void **state)
{
    struct comm c;
    struct err e = {0};
    (void)state;
    setenv("COMM", "single", 1);
    assert_int_equal(comm_open(&c, &e), ERR_OK);
    unsetenv("COMM");
    assert_string_equal(c.name, "single");
    assert_int_equal(c.size, 1);
    for (size_t i = 0; i + 1 < JOBS; i++)
        if (jobs[i].fn(&c, NULL, &e))
            fail_msg("%s: %s", jobs[i].name, e.msg);
    comm_abort(&c, 1);
    comm_close(&c);
    memset(&c, 0, sizeof c);
    comm_close(&c);
}

/* Sixteen ranks: more connections than a table of some fixed size, and all of them at once. */
static void test_many(void **state)
{
    (void)state;
    ranks_run("many", RANKS_MOST, job_gather, NULL);
}

/* The ranks of one machine are numbered; LOCAL_RANK wins. */
static enum err_code local(struct comm *c, void *ctx, struct err *e)
{
    size_t add = ctx ? 5 : 0;
    return c->local_rank == c->rank + add ? ERR_OK
                                          : err_set(e, ERR_CLAIM, "local rank %zu", c->local_rank);
}

static void test_local_rank(void **state)
{
    static const char *const said[2][3] = {{"LOCAL_RANK", "5", NULL}, {"LOCAL_RANK", "6", NULL}};
    struct ranks r;
    (void)state;
    ranks_run("local rank", 3, local, NULL);
    ranks_init(&r, 2);
    for (size_t i = 0; i < 2; i++)
        ranks_begin(&r, i, local, &r, said[i]);
    ranks_end(&r);
    for (size_t i = 0; i < 2; i++)
        if (r.end[i].status)
            fail_msg("LOCAL_RANK: rank %zu: %s", i, r.end[i].msg);
    ranks_free(&r);
}

static int rank_main(const char *name, char *what)
{
    struct comm c;
    struct err e = {0};
    enum err_code rc = comm_open(&c, &e);
    printf("joined %zu others\n", c.size - 1);
    fflush(stdout);
    for (size_t i = 0; i < JOBS && rc == ERR_OK; i++)
        if (!strcmp(name, jobs[i].name))
            rc = jobs[i].fn(&c, what, &e);
    if (rc != ERR_OK) {
        fprintf(stderr, "comm_test: rank %zu: %s\n", c.rank, e.msg);
        comm_abort(&c, (int)rc);
    } else {
        printf("%s %s %zu of %zu: done\n", name, c.name, c.rank, c.size);
    }
    comm_close(&c);
    return (int)rc;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_local_rank),
    };
    if (argc > 1)
        return rank_main(argv[1], argc > 2 ? argv[2] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
