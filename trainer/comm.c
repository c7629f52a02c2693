/* comm.c - what all implementations share: which one it is, gathering, agreeing, the counters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/comm_impl.h"
#include "trainer/hash.h"

double comm_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void comm_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(c, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void comm_cond_wait(pthread_cond_t *c, pthread_mutex_t *lock, int64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += until.tv_nsec;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(c, lock, &until);
}

/* ---- opening and closing ---- */

/* What every rank tells about itself at the start. */
struct card {
    uint64_t program; /* hash of the executable */
    uint64_t machine;
    uint64_t local_rank; /* UINT64_MAX: not said */
};

static enum err_code hash_program(uint64_t *out, struct err *e)
{
    enum { BLOCK = 1 << 16 };
    enum err_code rc = ERR_OK;
    FILE *f = fopen("/proc/self/exe", "rb");
    char *block = malloc(BLOCK);
    *out = 0;
    if (!block) {
        rc = err_nomem(e, "the executable's hash", BLOCK);
    } else if (f) { /* without /proc the executables are not compared */
        for (size_t n; (n = fread(block, 1, BLOCK, f)) > 0;)
            *out = hash_bytes(block, n, *out);
    }
    if (f)
        fclose(f);
    free(block);
    return rc;
}

static uint64_t hash_machine(void)
{
    char name[256] = {0}, boot[64] = {0};
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r"); /* names alone may be the same */
    gethostname(name, sizeof name - 1);
    if (f) {
        if (!fgets(boot, sizeof boot, f))
            boot[0] = 0;
        fclose(f);
    }
    return hash_bytes(boot, strlen(boot), hash_bytes(name, strlen(name), 0));
}

/* Are all of one build, and which rank of its machine is this? */
static enum err_code introduce(struct comm *c, const struct comm_job *job, struct err *e)
{
    struct card mine = {.machine = hash_machine(),
                        .local_rank = job->local_rank == SIZE_MAX ? UINT64_MAX : job->local_rank};
    struct card *all = calloc(c->size, sizeof *all);
    enum err_code rc = all ? hash_program(&mine.program, e) : err_nomem(e, "ranks", c->size);
    if ((rc = comm_agree(c, rc, e)) != ERR_OK ||
        (rc = comm_gather(c, all, &mine, sizeof mine, e)) != ERR_OK)
        goto out;
    for (size_t r = 1; r < c->size; r++)
        if (all[r].program != all[0].program) {
            rc = err_set(e, ERR_INPUT,
                         "rank %zu runs another build of this program than rank 0: all ranks need "
                         "the same executable",
                         r);
            goto out;
        }
    c->local_rank = 0;
    for (size_t r = 0; r < c->rank; r++)
        c->local_rank += all[r].machine == mine.machine;
    if (mine.local_rank != UINT64_MAX)
        c->local_rank = job->local_rank;
out:
    free(all);
    return rc;
}

enum err_code comm_open(struct comm *c, struct err *e)
{
    struct comm_job job;
    enum err_code rc;
    *c = (struct comm){.name = "single", .size = 1};
    if ((rc = comm_env(&job, getenv, e)) != ERR_OK)
        return rc;
    c->timeout_s = job.timeout_s;
    c->patience_s = job.patience_s;
    c->rank = job.rank;
    c->size = job.size;
    if (job.kind == COMM_SINGLE) {
        c->local_rank = job.local_rank == SIZE_MAX ? 0 : job.local_rank;
        return ERR_OK;
    }
    rc = job.kind == COMM_MPI ? comm_mpi_open(c, &job, e) : comm_tcp_open(c, &job, e);
    if (rc == ERR_OK)
        rc = introduce(c, &job, e);
    if (rc != ERR_OK)
        comm_close(c);
    return rc;
}

enum err_code comm_place(size_t *rank, size_t *size, struct err *e)
{
    struct comm_job job;
    enum err_code rc = comm_env(&job, getenv, e);
    *rank = rc ? 0 : job.rank;
    *size = rc ? 1 : job.size;
    return rc;
}

void comm_close(struct comm *c)
{
    if (c->device_ops)
        c->device_ops->close(c->device);
    if (c->ops)
        c->ops->close(c->impl);
    *c = (struct comm){.name = "single", .size = 1};
}

void comm_abort(struct comm *c, int exit_status)
{
    if (c->device_ops)
        c->device_ops->abort(c->device, exit_status);
    if (c->ops)
        c->ops->abort(c->impl, exit_status);
}

enum err_code comm_device(struct comm *c, struct kern *k, struct err *e)
{
    return c->size == 1 ? ERR_OK : comm_nccl_open(c, k, e);
}

/* ---- exchanges ---- */

struct comm_batch *comm_batch_new(const struct comm_part *parts, size_t n)
{
    struct comm_batch *b = calloc(1, sizeof *b);
    if (!b || !(b->peer = calloc(n, sizeof *b->peer)) || !(b->done = calloc(n, 1))) {
        comm_batch_free(b);
        return NULL;
    }
    b->n = b->left = n;
    for (size_t i = 0; i < n; i++)
        b->peer[i] = parts[i].peer;
    return b;
}

void comm_batch_free(struct comm_batch *b)
{
    if (b) {
        free(b->peer);
        free(b->done);
        free(b);
    }
}

enum err_code comm_start(struct comm *c, const struct comm_part *parts, size_t n,
                         struct comm_batch **b, struct err *e)
{
    *b = NULL;
    if (!n || !c->ops)
        return ERR_OK;
    for (size_t i = 0; i < n; i++)
        *(parts[i].send ? &c->sent : &c->received) += parts[i].bytes;
    return c->device_ops ? c->device_ops->start(c->device, parts, n, b, e)
                         : c->ops->start(c->impl, parts, n, b, e);
}

void comm_test(struct comm *c)
{
    if (c->device_ops)
        c->device_ops->test(c->device);
    else if (c->ops)
        c->ops->test(c->impl);
}

enum err_code comm_wait(struct comm *c, struct comm_batch **b, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (*b) {
        double began = comm_now();
        rc = c->device_ops ? c->device_ops->wait(c->device, b, e) : c->ops->wait(c->impl, b, e);
        c->waited_s += comm_now() - began;
    }
    return rc;
}

enum err_code comm_gather(struct comm *c, void *all, const void *mine, size_t bytes, struct err *e)
{
    struct comm_batch *b = NULL;
    struct comm_part *parts;
    size_t n = 0;
    memmove((char *)all + c->rank * bytes, mine, bytes);
    if (!c->ops || !bytes)
        return ERR_OK;
    if (!(parts = calloc(2 * c->size, sizeof *parts)))
        return err_nomem(e, "gathering", 2 * c->size * sizeof *parts);
    /* Own bytes are sent from `all`: mine may lie anywhere in it. */
    for (size_t i = 1; i < c->size; i++) { /* so that not all begin with rank 0 */
        size_t to = (c->rank + i) % c->size, from = (c->rank + c->size - i) % c->size;
        parts[n++] = (struct comm_part){from, false, (char *)all + from * bytes, bytes};
        parts[n++] = (struct comm_part){to, true, (char *)all + c->rank * bytes, bytes};
    }
    enum err_code rc = c->ops->start(c->impl, parts, n, &b, e);
    if (rc == ERR_OK)
        rc = c->ops->wait(c->impl, &b, e);
    free(parts);
    return rc;
}

enum err_code comm_agree(struct comm *c, enum err_code mine, struct err *e)
{
    struct err say = {.code = mine}, *all;
    enum err_code rc;
    if (!c->ops)
        return mine;
    if (e && mine != ERR_OK)
        memcpy(say.msg, e->msg, sizeof say.msg);
    if (!(all = calloc(c->size, sizeof *all)))
        return err_nomem(e, "agreeing", c->size * sizeof *all);
    rc = comm_gather(c, all, &say, sizeof say, e);
    if (rc == ERR_OK) {
        size_t r = 0;
        while (r < c->size && all[r].code == ERR_OK)
            r++;
        if (r < c->size) {
            if (e)
                *e = (struct err){0};
            rc = err_set(e, all[r].code, "rank %zu: %s", r, all[r].msg);
        }
    }
    free(all);
    return rc != ERR_OK ? rc : mine;
}
