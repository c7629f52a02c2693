/*
 * comm.h - what the processes (ranks) of one job say to each other.
 *
 * One interface, four implementations; who uses it does not know which one it has:
 *
 *   single  one process, nothing to do
 *   mpi     processes started by mpirun, or by srun with PMIx; CPU memory
 *   tcp     processes started with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment
 *           (torchrun's names; LOCAL_RANK chooses the card), or by srun otherwise; CPU memory
 *   nccl    CUDA memory; its unique id and everything that lies in host memory travel by one of the
 *           two above
 *
 * There are two kinds of traffic. Blocks of floats in the backend's memory go from rank to rank
 * (comm_start, comm_test, comm_wait), in the background where the implementation can, and are
 * summed by who receives them: so the order of a sum is the caller's, which is why results do not
 * depend on the number of ranks. A few host bytes go from everybody to everybody (comm_gather).
 *
 * Every wait ends. A wait fails with ERR_RESOURCE, naming the ranks, when a rank is gone (its
 * connection broke) or gave up (comm_abort), when a rank that it waits for left (comm_close) or was
 * not heard for timeout_s seconds, and in any case after patience_s. Every process says every few
 * seconds that it runs, in the background: so timeout_s is how long a network may stall or a
 * process be stopped, and no limit to what one rank computes while the others wait for it; that is
 * patience_s. After the first failure every call fails with the same words, and nothing is read or
 * written any more; the caller ends the job: comm_abort ends the other ranks as well, where they
 * can still be reached.
 *
 * Calls are made by one thread, in the same order on all ranks.
 */
#ifndef TRAINER_COMM_H
#define TRAINER_COMM_H

#include "kernels/kernels.h"

/* A piece of one exchange: `bytes` of backend memory, to or from `peer`. Pieces between two ranks
 * match in the order in which they were started; both sides name the same number of bytes. */
struct comm_part {
    size_t peer;
    bool send;
    void *at;
    size_t bytes;
};

struct comm_batch; /* an exchange under way */

struct comm {
    const char *name; /* "single", "mpi", "tcp", "nccl" */
    size_t rank, size;
    size_t local_rank;          /* on this machine: the number of the card */
    double timeout_s;           /* COMM_TIMEOUT in the environment, default COMM_TIMEOUT_S */
    double patience_s;          /* COMM_PATIENCE, default COMM_PATIENCE_S */
    uint64_t sent, received;    /* bytes of parts so far, this rank */
    double waited_s;            /* spent inside comm_wait */
    const struct comm_ops *ops; /* private, as all below: host memory; NULL: a single process */
    void *impl;
    const struct comm_ops *device_ops; /* memory of a device; NULL: parts lie in host memory */
    void *device;
};

enum { COMM_TIMEOUT_S = 120, COMM_PATIENCE_S = 7200 };

/*
 * comm_open - join the job that the environment describes: mpirun or srun, then RANK and
 * WORLD_SIZE, else a single process (docs/scaling.md, "How a job starts").
 *
 * Returns when all ranks are there and run the same executable. ERR_USAGE: an environment that
 * makes no sense, or MPI wanted and not built in, with what to do. ERR_RESOURCE: no memory; ranks
 * that did not come in time, by number. ERR_INPUT: ranks with another executable than rank 0.
 *
 * comm_close accepts a zeroed struct. The other ranks learn that this one left. tcp waits for
 * nobody; MPI demands that processes end together: there it waits until all ranks close, within the
 * limits above, and ends the job when they do not or when a call had failed.
 */
enum err_code comm_open(struct comm *c, struct err *e);
void comm_close(struct comm *c);

/* comm_place - which of how many processes is this, as comm_open would find, without joining them:
 * for work that is one process's. Alone it is 0 of 1. ERR_USAGE as comm_open. */
enum err_code comm_place(size_t *rank, size_t *size, struct err *e);

/* comm_device - from now on parts lie in the memory of k: for the CPU nothing changes, for CUDA the
 * job goes on over NCCL. All ranks call it. ERR_USAGE: built without NCCL. ERR_RESOURCE. */
enum err_code comm_device(struct comm *c, struct kern *k, struct err *e);

/*
 * comm_start - begin to send and receive the parts; what k has queued before on them is done first.
 *
 *   parts  read during the call only; the memory that they name belongs to the exchange until
 *          comm_wait returns (parts that are sent may be read)
 *   b      out, NULL when there is nothing to wait for
 *
 * Zero bytes are allowed, and parts of the own rank to itself are not. ERR_RESOURCE.
 */
enum err_code comm_start(struct comm *c, const struct comm_part *parts, size_t n,
                         struct comm_batch **b, struct err *e);

/* comm_test - let exchanges move on, without waiting; call it now and then while computing. */
void comm_test(struct comm *c);

/* comm_wait - until the exchange is complete and its memory may be used by k. *b becomes NULL; NULL
 * is complete. ERR_RESOURCE as above; *b is then gone too. */
enum err_code comm_wait(struct comm *c, struct comm_batch **b, struct err *e);

/* comm_gather - all[r * bytes ...] = what rank r gave as `mine`, host memory, on every rank. */
enum err_code comm_gather(struct comm *c, void *all, const void *mine, size_t bytes, struct err *e);

/*
 * comm_agree - after something that only some ranks did, or that may fail on some of them: ERR_OK
 * on every rank if all of them say ERR_OK. Otherwise the error of the lowest rank that failed,
 * everywhere, its message preceded by "rank N: ".
 */
enum err_code comm_agree(struct comm *c, enum err_code mine, struct err *e);

/* comm_abort - this rank gives up: tell the others as far as they can be reached, so that the job
 * ends now and not when they run out of time. Does not return for mpi. Prints nothing. */
void comm_abort(struct comm *c, int exit_status);

#endif
