#include "kernels/cpu/pool.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/futex.h is not there for every libc (musl's compiler wrapper leaves the kernel's headers
 * out). */
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };

struct worker {
    struct pool *pool;
    size_t thread;
    pthread_t handle;
};

/*
 * One job at a time. The caller fills in the job, sets busy to the number of workers and raises
 * epoch; each worker sees every epoch exactly once, because the next is not raised before busy is
 * back at 0.
 */
struct pool {
    pool_task *fn;
    void *ctx;
    size_t ntasks;
    atomic_size_t next;     /* the first task that nobody has taken */
    _Atomic uint32_t epoch; /* futex: number of jobs so far */
    _Atomic uint32_t busy;  /* futex: workers that have not finished the job */
    bool stop;
    size_t workers; /* threads - 1 */
    struct worker worker[];
};

/* Returns when *at may differ from `value`; spurious returns are possible. */
static void futex_wait(_Atomic uint32_t *at, uint32_t value)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *at)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void take_tasks(struct pool *p, size_t thread)
{
    for (;;) {
        size_t task = atomic_fetch_add(&p->next, 1);
        if (task >= p->ntasks)
            return;
        p->fn(p->ctx, task, thread);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (uint32_t seen = 0;; seen++) {
        while (atomic_load(&p->epoch) == seen)
            futex_wait(&p->epoch, seen);
        if (p->stop)
            return NULL;
        take_tasks(p, w->thread);
        if (atomic_fetch_sub(&p->busy, 1) == 1)
            futex_wake(&p->busy);
    }
}

enum err_code pool_new(struct pool **out, size_t threads, struct err *e)
{
    *out = NULL;
    if (!IN_RUNNER &&
        (threads == 0 || threads > (SIZE_MAX - sizeof(struct pool)) / sizeof(struct worker)))
        return err_set(e, ERR_RESOURCE, "%zu threads: impossible number", threads);
    size_t bytes = sizeof(struct pool) + (threads - 1) * sizeof(struct worker);
    struct pool *p = calloc(1, bytes);
    if (!p)
        return err_nomem(e, "threads", bytes);
    for (; p->workers < threads - 1; p->workers++) {
        struct worker *w = &p->worker[p->workers];
        w->pool = p;
        w->thread = p->workers + 1;
        int rc = pthread_create(&w->handle, NULL, worker_main, w);
        if (rc) {
            err_set(e, ERR_RESOURCE, "cannot start thread %zu of %zu (errno %d)", p->workers + 2,
                    threads, rc);
            pool_free(p);
            return ERR_RESOURCE;
        }
    }
    *out = p;
    return ERR_OK;
}

size_t pool_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (size_t)n : 1;
}

struct pool *pool_for(size_t tasks)
{
    struct pool *p = NULL;
    size_t cores = pool_cores();
    if (tasks > 1 && cores > 1)
        pool_new(&p, tasks < cores ? tasks : cores, NULL);
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    p->stop = true;
    atomic_fetch_add(&p->epoch, 1);
    futex_wake(&p->epoch);
    for (size_t i = 0; i < p->workers; i++)
        pthread_join(p->worker[i].handle, NULL);
    free(p);
}

void pool_run(struct pool *p, pool_task *fn, void *ctx, size_t ntasks)
{
    p->fn = fn;
    p->ctx = ctx;
    p->ntasks = ntasks;
    atomic_store(&p->next, 0);
    bool shared = ntasks > 1 && p->workers > 0;
    if (shared) {
        atomic_store(&p->busy, (uint32_t)p->workers);
        atomic_fetch_add(&p->epoch, 1);
        futex_wake(&p->epoch);
    }
    take_tasks(p, 0);
    for (uint32_t busy; shared && (busy = atomic_load(&p->busy)) != 0;)
        futex_wait(&p->busy, busy);
}
