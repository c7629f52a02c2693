/*
 * same.h - do all ranks train the same thing? Each brings its own recipe, data and initial weights,
 * and a run in which they differ would go on without a word and come to nonsense.
 */
#ifndef TRAINER_SAME_H
#define TRAINER_SAME_H

#include "model/gpt.h"
#include "trainer/comm.h"
#include "trainer/corpus.h"

/*
 * same_check - compare, on all ranks: the recipe, but for where the data are; names and lengths of
 * the training shards, and the order that is drawn from their paths; the validation tokens; the
 * tokeniser; the initial weights.
 *
 *   weights  any number that depends on them
 *
 * ERR_INPUT on all ranks, naming the first rank that differs from rank 0 and in what. ERR_RESOURCE:
 * memory, other ranks.
 */
enum err_code same_check(struct comm *c, const struct gpt *m, const struct corpus *d,
                         uint64_t weights, struct err *e);

#endif
