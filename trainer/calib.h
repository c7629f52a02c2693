/*
 * calib.h - calibration batches from training data, as the records draw them.
 *
 * A batch of GPTQ_BATCH_TOKENS is the first process's share of a training batch; what the others
 * would take is passed over (loader_share). The records calibrate on one process's data only:
 * 98,304 of 786,432 tokens.
 */
#ifndef TRAINER_CALIB_H
#define TRAINER_CALIB_H

#include "trainer/loader.h"

/* calib_take - the `take` of struct calib (hessian.h); ctx is a struct loader that stands between
 * two training batches, n a multiple of TRAIN_SEQ_LEN. */
enum err_code calib_take(void *ctx, uint16_t *ids, size_t n, struct err *e);

#endif
