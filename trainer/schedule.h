/*
 * schedule.h - learning-rate multiplier and Muon momentum: pure functions of recipe, step and time.
 *
 * Two warmdown forms of the challenge, chosen by the recipe:
 *
 *   WARMDOWN_FRAC > 0   f = fraction of the run that is over, of MAX_WALLCLOCK_SECONDS, or of
 *                       ITERATIONS when there is no cap; 1 while f < 1 - WARMDOWN_FRAC, then
 *                       (1-f)/WARMDOWN_FRAC (#1296, #1260)
 *   WARMDOWN_ITERS > 0  without a cap: (ITERATIONS-step)/WARMDOWN_ITERS over the last
 *                       WARMDOWN_ITERS steps; with one: time left / (WARMDOWN_ITERS * mean step
 *                       time so far) once that is at most 1 (the challenge's baseline, #549)
 *   neither             1
 *
 * In both the falling part never goes below MIN_LR. With a cap, ITERATIONS plays no part in the
 * multiplier, as in the challenge: a run that ends by ITERATIONS first ends without a warmdown.
 * LR_WARMUP_STEPS multiplies the first steps by (step+1)/LR_WARMUP_STEPS.
 */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stddef.h>

#include "model/recipe.h"

/* schedule_frac - fraction of the run that is over before `step` (counted from 0); may exceed 1.
 * elapsed_ms counts training time only, without validation and checkpoints. */
double schedule_frac(const struct recipe *r, size_t step, double elapsed_ms);

/* schedule_lr - multiplier of every learning rate for step number `step`. */
double schedule_lr(const struct recipe *r, size_t step, double elapsed_ms);

/* schedule_momentum - Muon's momentum: linear from MUON_MOMENTUM_WARMUP_START to MUON_MOMENTUM over
 * MUON_MOMENTUM_WARMUP_STEPS steps. */
double schedule_momentum(const struct recipe *r, size_t step);

#endif
