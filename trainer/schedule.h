/*
 * schedule.h - learning-rate multiplier, Muon momentum, and when the switches of a run are thrown:
 * pure functions of recipe, step and time.
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
 *
 * The cap is MAX_WALLCLOCK_SECONDS less GPTQ_RESERVE_SECONDS, for stopping and for the fraction
 * alike (#1296: 600 s and 10 s, so f = elapsed/590 s).
 */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>

#include "model/recipe.h"

/* schedule_frac - fraction of the run that is over before `step` (counted from 0); may exceed 1.
 * elapsed_ms counts training time only, without validation and checkpoints. */
double schedule_frac(const struct recipe *r, size_t step, double elapsed_ms);

/* schedule_cap_ms - training time after which no further step begins; 0: there is no cap. */
double schedule_cap_ms(const struct recipe *r);

/* schedule_warmdown - the falling part of the multiplier alone, 1 before it: what late QAT and SWA
 * go by, so that a ramp at the start does not set them off. */
double schedule_warmdown(const struct recipe *r, size_t step, double elapsed_ms);

/* schedule_lr - multiplier of every learning rate for step number `step`. */
double schedule_lr(const struct recipe *r, size_t step, double elapsed_ms);

/* schedule_momentum - Muon's momentum: linear from MUON_MOMENTUM_WARMUP_START to MUON_MOMENTUM over
 * MUON_MOMENTUM_WARMUP_STEPS steps. */
double schedule_momentum(const struct recipe *r, size_t step);

/* schedule_recur - does step number `step` run RECUR_LAYERS twice? */
bool schedule_recur(const struct recipe *r, size_t step);

/* schedule_qat - is late QAT due at this warmdown? Once on it stays on (trainer/step.h). */
bool schedule_qat(const struct recipe *r, double warmdown);

/* schedule_swa - is a snapshot due after `steps` steps, the last of them with this warmdown?
 * Counting and order are those of #549. */
bool schedule_swa(const struct recipe *r, size_t steps, double warmdown);

#endif
