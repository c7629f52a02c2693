/*
 * probe_run.h - run a program on a stream of the probe's making, and take its scores.
 *
 * The program is started in the sandbox as a person would start it, on one shard file that holds
 * exactly the stream: FILE --data SHARD --eval MODE --max-tokens N --threads N --nll /dev/fd/3.
 */
#ifndef VERIFY_PROBE_RUN_H
#define VERIFY_PROBE_RUN_H

#include <pthread.h>

#include "verify/probe_file.h"
#include "verify/sandbox.h"

/* Where the shards of a probe lie: a directory of its own under TMPDIR or /tmp. Place it where it
 * does not move. */
struct probe_dir {
    char path[256];
    pthread_t watcher;
    bool watched;
};

/*
 * probe_dir_open - make it. From here to probe_dir_close, SIGINT, SIGTERM and SIGHUP remove it
 * before they end the process; threads that are started in between leave these signals alone.
 * ERR_RESOURCE.
 */
enum err_code probe_dir_open(struct probe_dir *d, struct err *e);
void probe_dir_close(struct probe_dir *d); /* accepts a zeroed struct */

/* How the program is run. */
struct probe_job {
    const struct probe_file *file;
    const struct probe_dir *dir;
    const char *mode;
    size_t threads, max_tokens; /* max_tokens: 0, all of the stream */
    double seconds;             /* wall clock of one run */
    size_t memory;              /* bytes of address space */
    bool weaker;                /* without seccomp, where the kernel has none */
};

/* What came back. */
struct probe_scores {
    double *nll; /* [count] nats; owned */
    size_t count;
    double seconds;
    unsigned layers; /* of the sandbox */
    int landlock_abi;
    /* The last lines that begin with "final_MODE " and with "conditions MODE:"; "" when none. */
    char line[256], conditions[256];
};

/*
 * probe_run - one run.
 *
 *   slot    distinguishes runs that go on at the same time
 *   tok, n  the stream
 *
 * ERR_CLAIM: the program failed, or sent something that is no list of scores; the message says
 * what. ERR_INPUT, ERR_RESOURCE: as sandbox_run. Release with probe_scores_free.
 */
enum err_code probe_run(const struct probe_job *j, size_t slot, const uint16_t *tok, size_t n,
                        struct probe_scores *s, struct err *e);
void probe_scores_free(struct probe_scores *s); /* accepts a zeroed struct */

/* The numbers of a result line. */
struct probe_line {
    double val_loss, val_bpb;
    unsigned long long tokens, bytes;
};
/* probe_line_parse - false when one of them is missing or no number. */
bool probe_line_parse(const char *line, struct probe_line *p);

#endif
