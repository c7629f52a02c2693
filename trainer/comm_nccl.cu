/*
 * comm_nccl.cu - the communicator over NCCL (docs.nvidia.com/deeplearning/nccl, 2.14 or newer),
 * memory of the cards. What lies in host memory, the unique id included, goes over MPI or TCP as
 * before.
 *
 * The library is opened at run time: a program built with it starts without. It is never unloaded,
 * because threads of its own may outlive the communicator. The communicator does not block
 * (ncclConfig_t, blocking 0), so every wait is a loop that also looks whether all ranks are alive,
 * which the connection of the host knows.
 *
 * Exchanges run on a stream of their own. It waits, on the card, for what the backend had queued
 * before the exchange; the host waits for its end, because the backend's stream must never depend
 * on a rank that may be dead.
 */
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern "C" {
#include "trainer/comm_impl.h"
}

#define NCCL_FUNCTIONS(X)                                                                          \
    X(ncclGetUniqueId)                                                                             \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclCommFinalize)                                                                            \
    X(ncclCommDestroy)                                                                             \
    X(ncclCommAbort)                                                                               \
    X(ncclGetErrorString)                                                                          \
    X(ncclGetLastError)                                                                            \
    X(ncclGroupStart)                                                                              \
    X(ncclGroupEnd)                                                                                \
    X(ncclSend)                                                                                    \
    X(ncclRecv)

enum {
    EAGER = 200, /* looks without a nap in between: an exchange between cards takes microseconds */
    NAP_NS = 20000, /* then */
};

struct nccl {
    size_t rank, size;
    double timeout_s;
    const struct comm_ops *host; /* the connection of the host; NULL: alone, as in a test */
    void *host_impl;
    struct comm_batch *everyone; /* for watch_judge: all other ranks */
    void *library;
    ncclComm_t comm;
    cudaStream_t stream, backend;
    cudaEvent_t before; /* recorded in the backend's stream when an exchange begins */
    struct err failed;
#define X(name) decltype(&name) name##_;
    NCCL_FUNCTIONS(X)
#undef X
};

static enum err_code fail(struct nccl *n, const char *what, const char *why, struct err *e)
{
    err_set(&n->failed, ERR_RESOURCE, "NCCL: %s: %s", what, why);
    return err_set(e, n->failed.code, "%s", n->failed.msg);
}

static bool cuda_fine(struct nccl *n, cudaError_t status, const char *what, struct err *e)
{
    return status == cudaSuccess || (fail(n, what, cudaGetErrorString(status), e), false);
}

static bool nccl_fine(struct nccl *n, ncclResult_t status, const char *what, struct err *e)
{
    if (status == ncclSuccess || status == ncclInProgress)
        return true;
    const char *more = n->ncclGetLastError_(NULL);
    fail(n, what, more && *more ? more : n->ncclGetErrorString_(status), e);
    return false;
}

static void pause_after(unsigned looks)
{
    struct timespec nap = {0, NAP_NS};
    if (looks > EAGER)
        nanosleep(&nap, NULL);
}

static enum err_code alive(struct nccl *n, const struct comm_batch *b, double began, struct err *e)
{
    return n->host ? n->host->check(n->host_impl, b, began, e) : ERR_OK;
}

/* Until what was asked of the communicator last is under way or done. With the others: it needs all
 * of them; otherwise it may take as long as the network may stall. */
static bool settled(struct nccl *n, bool others, const char *what, struct err *e)
{
    double began = comm_now();
    ncclResult_t state = ncclInProgress;
    for (unsigned looks = 0; state == ncclInProgress; pause_after(looks++))
        if (!nccl_fine(n, n->ncclCommGetAsyncError_(n->comm, &state), what, e) ||
            !nccl_fine(n, state, what, e) ||
            (others ? alive(n, n->everyone, began, e) != ERR_OK
                    : comm_now() - began > n->timeout_s))
            return false;
    return true;
}

/* ---- exchanges ---- */

/* Nothing runs any more after this: kernels that wait for a rank end. */
static void give_up(struct nccl *n)
{
    err_set(&n->failed, ERR_RESOURCE, "NCCL: given up");
    if (n->comm)
        n->ncclCommAbort_(n->comm);
    n->comm = NULL;
}

static void drop(struct comm_batch *b)
{
    if (b->own)
        cudaEventDestroy((cudaEvent_t)b->own);
    comm_batch_free(b);
}

static bool queue(struct nccl *n, const struct comm_part *parts, size_t count, struct err *e)
{
    bool well = cuda_fine(n, cudaEventRecord(n->before, n->backend), "an event", e) &&
                cuda_fine(n, cudaStreamWaitEvent(n->stream, n->before, 0), "an event", e) &&
                nccl_fine(n, n->ncclGroupStart_(), "a group", e);
    if (!well)
        return false;
    for (size_t i = 0; i < count && well; i++) {
        const struct comm_part *p = &parts[i];
        if (p->bytes)
            well = nccl_fine(
                n,
                p->send
                    ? n->ncclSend_(p->at, p->bytes, ncclUint8, (int)p->peer, n->comm, n->stream)
                    : n->ncclRecv_(p->at, p->bytes, ncclUint8, (int)p->peer, n->comm, n->stream),
                p->send ? "a send" : "a receive", e);
    }
    return nccl_fine(n, n->ncclGroupEnd_(), "a group", e) && well && settled(n, true, "a group", e);
}

static enum err_code nccl_start(void *impl, const struct comm_part *parts, size_t count,
                                struct comm_batch **out, struct err *e)
{
    struct nccl *n = (struct nccl *)impl;
    struct comm_batch *b;
    cudaEvent_t end;
    if (n->failed.code)
        return err_set(e, n->failed.code, "%s", n->failed.msg);
    if (!(b = comm_batch_new(parts, count)))
        return err_nomem(e, "an exchange", count * sizeof *parts);
    if (cuda_fine(n, cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "an event", e)) {
        b->own = end;
        if (queue(n, parts, count, e) &&
            cuda_fine(n, cudaEventRecord(end, n->stream), "an event", e)) {
            *out = b;
            return ERR_OK;
        }
    }
    give_up(n);
    drop(b);
    return ERR_RESOURCE;
}

/* The card does it all. */
static void nccl_test(void *impl)
{
    (void)impl;
}

static enum err_code nccl_wait(void *impl, struct comm_batch **b, struct err *e)
{
    struct nccl *n = (struct nccl *)impl;
    double began = comm_now();
    enum err_code rc = n->failed.code ? err_set(e, n->failed.code, "%s", n->failed.msg) : ERR_OK;
    for (unsigned looks = 0; rc == ERR_OK; pause_after(looks++)) {
        cudaError_t status = cudaEventQuery((cudaEvent_t)(*b)->own);
        ncclResult_t state = ncclSuccess;
        if (status == cudaSuccess)
            break;
        /* "Not ready" is kept like an error: the backend's next launch would find it. */
        (void)cudaGetLastError();
        if ((status != cudaErrorNotReady && !cuda_fine(n, status, "an exchange", e)) ||
            !nccl_fine(n, n->ncclCommGetAsyncError_(n->comm, &state), "an exchange", e) ||
            !nccl_fine(n, state, "an exchange", e))
            rc = ERR_RESOURCE;
        /* Rarely at first: it costs more than a look at the card. */
        else if (looks % EAGER == EAGER - 1 || looks > EAGER)
            rc = alive(n, *b, began, e);
    }
    if (rc != ERR_OK)
        give_up(n);
    drop(*b);
    *b = NULL;
    return rc;
}

/* ---- beginning and end ---- */

static enum err_code nccl_check(void *impl, const struct comm_batch *b, double began, struct err *e)
{
    return alive((struct nccl *)impl, b, began, e);
}

static void nccl_abort(void *impl, int exit_status)
{
    (void)exit_status;
    give_up((struct nccl *)impl);
}

/* Kernels of exchanges that were not waited for would keep the streams from ending: they are ended
 * first. */
static void nccl_close(void *impl)
{
    struct nccl *n = (struct nccl *)impl;
    struct err e = {ERR_OK, {0}};
    if (n->comm && !n->failed.code && cudaStreamQuery(n->stream) == cudaSuccess &&
        nccl_fine(n, n->ncclCommFinalize_(n->comm), "the end", &e) &&
        settled(n, false, "the end", &e))
        n->ncclCommDestroy_(n->comm);
    else
        give_up(n);
    if (n->before)
        cudaEventDestroy(n->before);
    if (n->stream)
        cudaStreamDestroy(n->stream);
    if (n->library)
        dlclose(n->library);
    comm_batch_free(n->everyone);
    free(n);
}

static const struct comm_ops nccl_ops = {"nccl",     nccl_start, nccl_test, nccl_wait,
                                         nccl_check, nccl_abort, nccl_close};

static enum err_code open_library(struct nccl *n, struct err *e)
{
    static const char *const names[] = {"libnccl.so.2", "libnccl.so"};
    for (size_t i = 0; !n->library && i < sizeof names / sizeof names[0]; i++)
        n->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!n->library)
        return err_set(e, ERR_RESOURCE,
                       "NCCL: cannot open libnccl.so.2 (package libnccl2): with several processes "
                       "the cards need it");
#define X(name)                                                                                    \
    n->name##_ = (decltype(&name))dlsym(n->library, #name);                                        \
    if (!n->name##_)                                                                               \
        return err_set(e, ERR_RESOURCE, "NCCL: libnccl.so.2 has no " #name ": 2.14 is the oldest");
    NCCL_FUNCTIONS(X)
#undef X
    return ERR_OK;
}

static enum err_code prepare(struct nccl *n, ncclUniqueId *id, struct err *e)
{
    enum err_code rc = open_library(n, e);
    if (rc != ERR_OK)
        return rc;
    if (!cuda_fine(n, cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking), "a stream",
                   e) ||
        !cuda_fine(n, cudaEventCreateWithFlags(&n->before, cudaEventDisableTiming), "an event",
                   e) ||
        (n->rank == 0 && !nccl_fine(n, n->ncclGetUniqueId_(id), "an id", e)))
        return ERR_RESOURCE;
    return ERR_OK;
}

/* All ranks come here with the id of rank 0. */
static enum err_code meet(struct nccl *n, const ncclUniqueId *id, struct err *e)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return nccl_fine(n,
                     n->ncclCommInitRankConfig_(&n->comm, (int)n->size, *id, (int)n->rank, &config),
                     "the beginning", e) &&
                   settled(n, true, "the beginning", e)
               ? ERR_OK
               : ERR_RESOURCE;
}

static struct nccl *new_nccl(const struct comm *c, struct kern *k)
{
    struct nccl *n = (struct nccl *)calloc(1, sizeof *n);
    struct comm_part *parts = (struct comm_part *)calloc(c->size, sizeof *parts);
    size_t others = 0;
    for (size_t r = 0; parts && r < c->size; r++)
        if (r != c->rank)
            parts[others++].peer = r;
    if (n && parts && (n->everyone = comm_batch_new(parts, others))) {
        n->rank = c->rank;
        n->size = c->size;
        n->timeout_s = c->timeout_s;
        n->host = c->ops;
        n->host_impl = c->impl;
        n->backend = (cudaStream_t)kern_cuda_stream(k);
    } else {
        free(n);
        n = NULL;
    }
    free(parts);
    return n;
}

extern "C" enum err_code comm_nccl_open(struct comm *c, struct kern *k, struct err *e)
{
    if (strncmp(k->name, "cuda", 4) != 0)
        return ERR_OK;
    struct nccl *n = new_nccl(c, k);
    ncclUniqueId *ids = (ncclUniqueId *)calloc(c->size, sizeof *ids), mine = {};
    enum err_code rc = n && ids ? prepare(n, &mine, e) : err_nomem(e, "NCCL", c->size);
    if ((rc = comm_agree(c, rc, e)) == ERR_OK &&
        (rc = comm_gather(c, ids, &mine, sizeof mine, e)) == ERR_OK)
        rc = comm_agree(c, meet(n, &ids[0], e), e);
    free(ids);
    if (rc == ERR_OK) {
        c->name = nccl_ops.name;
        c->device_ops = &nccl_ops;
        c->device = n;
    } else if (n) {
        nccl_close(n);
    }
    return rc;
}
