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
    size_t groups;     /* gradients that they are added up to first (reduce.h): most ranks */
    /* Bytes on the device; of several ranks, on that of the one with most state. */
    size_t weights, grads, sums, state, averages, rounded, activations;
};

/*
 * plan_make - check the training settings of m->r and resolve MICRO_BATCH_TOKENS in it.
 *
 * With MICRO_BATCH_TOKENS=0 the choice is the largest number of sequences that divides the batch,
 * has at most PLAN_MICRO_TOKENS tokens and needs at most PLAN_ACT_BYTES of activations (at least
 * one sequence), counted with recurrence. It depends on the recipe alone, never on the machine or
 * its threads, because the cut changes rounding: the same recipe gives the same bits everywhere.
 * A card, which has bits of its own and needs large products, takes as many as leave GRAD_RANKS
 * micro-batches and as fit into PLAN_CARD_TENTHS of its memory; but not where the cut would change
 * the order of the data as well (LOADER=sequential with LOADER_RANKS=0).
 *
 * ERR_USAGE: settings that cannot work, with the numbers. ERR_RESOURCE: memory.
 */
enum { PLAN_MICRO_TOKENS = 4096, PLAN_CARD_TENTHS = 7 };
#define PLAN_ACT_BYTES ((size_t)2 << 30)
enum err_code plan_make(struct plan *p, struct gpt *m, struct kern *k, struct err *e);

/* plan_ranks - the bytes of p for `ranks` ranks, of which plan_make takes one. ERR_USAGE: more than
 * p->groups. ERR_RESOURCE: memory. */
enum err_code plan_ranks(struct plan *p, const struct gpt *m, size_t ranks, struct err *e);

/* plan_print - the whole of --dry-run: tensors with shapes and optimiser group, `parameters: N`,
 * memory, schedule, and what changes on the way. */
void plan_print(const struct plan *p, const struct gpt *m, FILE *f);

#endif
