/*
 * pool.h - a fixed set of threads that share out numbered tasks.
 *
 * Threads wait in the kernel (futex) and never spin: the machine may be shared, and one wake-up
 * costs far less than the smallest matrix product worth splitting.
 */
#ifndef KERNELS_CPU_POOL_H
#define KERNELS_CPU_POOL_H

#include <stddef.h>

#include "kernels/err.h"

struct pool;

/* A task function: ctx as given to pool_run, the task's number, the number of the running thread.
 */
typedef void pool_task(void *ctx, size_t task, size_t thread);

/*
 * pool_new - a pool of `threads` >= 1 threads, of which the caller of pool_run is one (so 1 creates
 * none). Fails with ERR_RESOURCE: no memory, or the system refuses a thread; nothing is left
 * behind.
 */
enum err_code pool_new(struct pool **out, size_t threads, struct err *e);

/* pool_cores - how many processors this process may run on, at least 1. */
size_t pool_cores(void);

/*
 * pool_for - a pool for `tasks` tasks of some length: as many threads as there are tasks and
 * processors. NULL when that is one thread, or when the system refuses: do them alone then.
 */
struct pool *pool_for(size_t tasks);

/* pool_free - end and join the threads; NULL is accepted. */
void pool_free(struct pool *p);

/*
 * pool_run - call fn(ctx, task, thread) exactly once for each task 0..ntasks-1; returns when all
 * are done.
 *
 * Tasks are handed out in ascending order to whichever thread is free. thread < threads; 0 is the
 * caller. What a task writes is visible to the caller afterwards. Not to be called from a task.
 */
void pool_run(struct pool *p, pool_task *fn, void *ctx, size_t ntasks);

#endif
