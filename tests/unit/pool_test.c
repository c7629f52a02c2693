/*
 * pool_test.c - exists for the fault that a task is lost, run twice, or still running when pool_run
 * returns; and that an impossible number of threads crashes instead of being refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/pool.h"

enum { MAX_TASKS = 1000 };

struct counts {
    atomic_int runs[MAX_TASKS];
    int plain[MAX_TASKS]; /* not atomic: pool_run itself must make it visible */
    size_t threads;
    atomic_int bad_thread;
};

static void count_task(void *ctx, size_t task, size_t thread)
{
    struct counts *c = ctx;
    atomic_fetch_add(&c->runs[task], 1);
    c->plain[task] = (int)task + 1;
    if (thread >= c->threads)
        atomic_fetch_add(&c->bad_thread, 1);
}

static void test_each_task_once(void **state)
{
    (void)state;
    static const size_t threads[] = {1, 2, 3, 7, 20},
                        tasks[] = {0, 1, 2, 3, 6, 7, 8, 100, MAX_TASKS};
    static struct counts c;
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        struct pool *p;
        struct err e = {0};
        assert_int_equal(pool_new(&p, threads[i], &e), ERR_OK);
        for (size_t j = 0; j < sizeof tasks / sizeof *tasks; j++) {
            memset(&c, 0, sizeof c);
            c.threads = threads[i];
            pool_run(p, count_task, &c, tasks[j]);
            for (size_t t = 0; t < MAX_TASKS; t++) {
                int want = t < tasks[j];
                if (c.runs[t] != want || c.plain[t] != want * ((int)t + 1))
                    fail_msg("%zu threads, %zu tasks: task %zu ran %d times", threads[i], tasks[j],
                             t, c.runs[t]);
            }
            assert_int_equal(c.bad_thread, 0);
        }
        pool_free(p);
    }
}

static void add_task(void *ctx, size_t task, size_t thread)
{
    long *sums = ctx;
    (void)thread;
    sums[task]++;
}

/* Many short jobs in a row: a wake-up that is lost stops the test here. */
static void test_many_jobs(void **state)
{
    (void)state;
    enum { JOBS = 3000, TASKS = 5 };
    long sums[TASKS] = {0};
    struct pool *p;
    assert_int_equal(pool_new(&p, 4, NULL), ERR_OK);
    for (int i = 0; i < JOBS; i++)
        pool_run(p, add_task, sums, TASKS);
    pool_free(p);
    for (size_t i = 0; i < TASKS; i++)
        assert_int_equal(sums[i], JOBS);
}

static void test_refused(void **state)
{
    (void)state;
    static const size_t impossible[] = {0, SIZE_MAX, SIZE_MAX / 16};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        struct pool *p = (struct pool *)&p;
        struct err e = {0};
        assert_int_equal(pool_new(&p, impossible[i], &e), ERR_RESOURCE);
        assert_null(p);
        assert_int_equal(e.code, ERR_RESOURCE);
    }
    pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_task_once),
        cmocka_unit_test(test_many_jobs),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
