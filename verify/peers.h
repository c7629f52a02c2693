/*
 * peers.h - one command run by the processes of a job (trainer/comm.h): they share the scoring.
 *
 * Every rank reads the files itself and does all that is cheap; windows are shared out. Rank 0
 * alone prints and writes. What fails on one rank fails on all of them with its message, so that
 * nobody waits for a rank that has gone home; only when an exchange fails each rank speaks for
 * itself.
 *
 * All functions take NULL for a process that works alone: nothing to agree with, and it is first.
 */
#ifndef VERIFY_PEERS_H
#define VERIFY_PEERS_H

#include <stdbool.h>

#include "model/score.h"
#include "trainer/comm.h"

struct peers {
    struct comm comm;
    struct score_share share; /* for score_opts */
    bool apart;               /* an exchange failed */
};

/* peers_open - join the job of the environment, or be alone. Fails as comm_open; the struct must
 * then be closed as well, and must not be moved while it is open. */
enum err_code peers_open(struct peers *p, struct err *e);

/* peers_close - leave it; after an exchange that failed, end the job with `status`, which may not
 * return. Print first. */
void peers_close(struct peers *p, enum err_code status);

/* peers_first - is this the rank that prints and writes? */
bool peers_first(const struct peers *p);

/* peers_speaks - is an error for this rank to print? */
bool peers_speaks(const struct peers *p);

/*
 * peers_agree - after something that may fail on some ranks only: ERR_OK where all say so as
 * `mine`. Else the error of the lowest rank that failed, on all ranks, behind "rank N: " unless all
 * failed with the same words.
 *
 *   name, hash  [n] each, n <= PEERS_HASHES: what all ranks must have the same of. ERR_INPUT names
 *               the first that differs, and the first rank that has not what rank 0 has.
 */
enum { PEERS_HASHES = 4 };
enum err_code peers_agree(struct peers *p, enum err_code mine, const char *const *name,
                          const uint64_t *hash, size_t n, struct err *e);

/* peers_device - before a mode that trains: exchanges of gradients are of the memory of k, for all
 * of them over NCCL when that is a card's. Fails as comm_device, on all ranks. */
enum err_code peers_device(struct peers *p, struct kern *k, struct err *e);

/* peers_share - for score_opts. */
const struct score_share *peers_share(const struct peers *p);

#endif
