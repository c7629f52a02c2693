/*
 * sandbox.h - run a program that nobody trusts, on Linux, as root in a container or as anybody.
 *
 * The program gets: its own bytes (a descriptor, not a path), arguments, a chosen environment, a
 * few files and directories that it may open for reading, /dev/null as input, and up to three pipes
 * to write to: standard output, standard error, and descriptor SANDBOX_DATA. It does not get:
 * network, other processes, files to write, terminals, privileges, or time and memory without end.
 *
 * Layers, each of them alone a hindrance, together the sandbox:
 *   seccomp       only the system calls of a static, threaded program that reads files. Opening for
 *                 writing fails with EPERM; network, fork, signals to others, tracing, mounting end
 *                 the run, and the report names the call. Required, unless weaker is asked for.
 *   landlock      reading restricted to the given paths, no TCP, no signals or abstract sockets
 *                 beyond the sandbox: as much as the kernel's version knows.
 *   limits        address space, processor time, size of a memory file, open files, threads, no
 * core no privileges no_new_privs, capabilities dropped except (for root) that of reading files
 *   session       own session and process group, killed as a whole; dies with its parent
 *   wall clock    SIGKILL when the time is over
 *
 * Limits that remain: without Landlock the program can read every file that the user can (and has
 * nobody to tell); RLIMIT_NPROC does not bind root; the kernel itself is trusted.
 */
#ifndef VERIFY_SANDBOX_H
#define VERIFY_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

/* The descriptor whose bytes go to sandbox_job.sink. */
enum { SANDBOX_DATA = 3 };

enum sandbox_layer {
    SANDBOX_SECCOMP = 1,
    SANDBOX_LANDLOCK = 2,
    SANDBOX_LIMITS = 4,
    SANDBOX_NO_PRIVS = 8,
    SANDBOX_SESSION = 16,
    SANDBOX_NAMES_CALL = 32, /* a forbidden call is reported by name (seccomp notification) */
};

struct sandbox_job {
    const void *program; /* [program_bytes] an ELF executable; these very bytes are run */
    size_t program_bytes;
    const char *const *argv;     /* NULL-terminated */
    const char *const *envp;     /* NULL-terminated */
    const char *const *readable; /* [readables] files and directories it may read */
    size_t readables;
    double wall_seconds;
    size_t memory_bytes; /* of address space */
    size_t output_bytes; /* of standard output, and as much of standard error */
    bool weaker;         /* run even where seccomp is missing */

    /* Takes what arrives on SANDBOX_DATA, in pieces of any size; not ERR_OK ends the run. NULL: the
     * program gets no such descriptor. */
    enum err_code (*sink)(void *ctx, const uint8_t *p, size_t n, struct err *e);
    void *ctx;
};

enum sandbox_end {
    SANDBOX_EXITED,    /* by itself: status is its exit status */
    SANDBOX_SIGNALLED, /* by a signal: status is its number */
    SANDBOX_FORBIDDEN, /* a forbidden system call: see call */
    SANDBOX_TIMEOUT,   /* wall clock or processor time */
    SANDBOX_FLOOD,     /* more than output_bytes on one of the two */
    SANDBOX_REFUSED,   /* the sink said no: its words are in the struct err */
};

struct sandbox_result {
    enum sandbox_end end;
    int status;
    char call[32];    /* name of the forbidden call; "" when only known to have happened */
    unsigned layers;  /* SANDBOX_* that were active */
    int landlock_abi; /* 0 when not active */
    char *out, *errs; /* what it printed, NUL-terminated; owned, sandbox_result_free */
    size_t nout, nerrs;
    double seconds; /* wall clock */
};

/*
 * sandbox_run - run a job to its end.
 *
 * ERR_OK says that the sandbox worked, whatever the program did: that is in the result.
 * ERR_RESOURCE: the kernel refused a layer that it claims to have, seccomp is missing and
 * job->weaker is not set, no memory, no processes. ERR_INPUT: a readable path does not exist. When
 * the sink refused, ERR_OK with end SANDBOX_REFUSED, and its message is in e.
 *
 * Blocks until the program is gone. Call it from a thread that outlives the program.
 */
enum err_code sandbox_run(const struct sandbox_job *job, struct sandbox_result *r, struct err *e);
void sandbox_result_free(struct sandbox_result *r); /* accepts a zeroed struct */

/* sandbox_layers - "seccomp, landlock 4, limits, ..." of a result, for a report. */
void sandbox_layers(const struct sandbox_result *r, char *buf, size_t cap);

/* sandbox_describe - how the run ended, as a sentence part: "exit status 3",
 * "stopped: it called socket(), which is forbidden". */
void sandbox_describe(const struct sandbox_result *r, char *buf, size_t cap);

#endif
