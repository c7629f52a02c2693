/*
 * train.h - a whole run: from a recipe to weights, quantised weights and a log.
 *
 * The order of things is the challenge baseline's: validate at step 0 and every VAL_LOSS_EVERY
 * steps; stop after ITERATIONS steps or after the first step that ends beyond MAX_WALLCLOCK_SECONDS
 * of training time (validation and checkpoints do not count); then validate, take the EMA, write
 * the weights, quantise, read the quantised file back and validate that. docs/training.md shows the
 * log.
 */
#ifndef TRAINER_TRAIN_H
#define TRAINER_TRAIN_H

#include <signal.h>
#include <stdio.h>

#include "model/gpt.h"
#include "model/recipe.h"
#include "trainer/comm.h"

struct train_opts {
    const char *name;   /* of the recipe: default of RUN_ID, with the seed */
    const char *out;    /* output directory, made when missing */
    const char *device; /* "cpu" or "cuda" */
    size_t threads;     /* cpu: 0 means all */
    bool resume, quiet;
    struct comm *comm;                 /* the ranks of this job; NULL: alone */
    const volatile sig_atomic_t *stop; /* set by a signal handler; NULL: never */
    double patience_s; /* a step that needs longer than this after *stop is given up: the checkpoint
                          is then that of the step before, and the step is repeated on resume */
};

/* What a run came to. Zeros for what it did not reach. */
struct train_result {
    size_t step;
    double train_loss;            /* of the last step */
    double val_loss, val_bpb;     /* of the weights that were saved */
    double quant_loss, quant_bpb; /* after quantisation */
    double tokens_per_second;     /* of training, this session */
    bool apart; /* it failed, and not on all ranks alike: the others wait to be told (comm_abort) */
};

/*
 * train_run - train, or go on from DIR/checkpoint. All ranks call it, with the same recipe; rank 0
 * alone writes, and reads the checkpoint. The result has the same bits for any number of them.
 *
 *   res  out, filled as far as the run came; NULL when not wanted
 *
 * ERR_USAGE    settings that do not fit together
 * ERR_INPUT    data, tokeniser or checkpoint missing or damaged, or not the same on all ranks;
 *              training that diverged, with step and tensor
 * ERR_RESOURCE memory, disk, device, another rank that is gone; or stopped by *stop: DIR/checkpoint
 * is then complete and the message says at which step
 */
enum err_code train_run(const struct recipe *r, const struct train_opts *o,
                        struct train_result *res, struct err *e);

/* train_describe - --dry-run: what the run would be, to f. Needs no data and writes no file. */
enum err_code train_describe(const struct recipe *r, const struct train_opts *o, FILE *f,
                             struct err *e);

#endif
