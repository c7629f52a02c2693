/*
 * plan.h - how a recipe's global batch is cut into micro-batches, and what that costs in memory.
 */
#ifndef TRAINER_PLAN_H
#define TRAINER_PLAN_H

#include <stdio.h>

#include "model/gpt.h"

struct plan {
    size_t micro_seqs; /* sequences per forward/backward */
    size_t micros;     /* micro-batches per optimiser step */
    /* Bytes on the device. */
    size_t weights, grads, state, averages, rounded, activations;
};

/*
 * plan_make - check the training settings of m->r and resolve MICRO_BATCH_TOKENS in it.
 *
 * With MICRO_BATCH_TOKENS=0 the choice is the largest number of sequences that divides the batch,
 * has at most PLAN_MICRO_TOKENS tokens and needs at most PLAN_ACT_BYTES of activations (at least
 * one sequence), counted with recurrence. It depends on the recipe alone, never on the machine or
 * its threads, because the cut changes rounding: the same recipe gives the same bits everywhere.
 *
 * ERR_USAGE: settings that cannot work, with the numbers. ERR_RESOURCE: not even one sequence fits.
 */
enum { PLAN_MICRO_TOKENS = 4096 };
#define PLAN_ACT_BYTES ((size_t)2 << 30)
enum err_code plan_make(struct plan *p, struct gpt *m, struct kern *k, struct err *e);

/* plan_print - the whole of --dry-run: tensors with shapes and optimiser group, `parameters: N`,
 * memory, schedule, and what changes on the way. */
void plan_print(const struct plan *p, const struct gpt *m, FILE *f);

#endif
