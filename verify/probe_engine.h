/*
 * probe_engine.h - the whole distribution of a submission's own model at one place, by the trusted
 * engine: what the sampled sum is compared with (probe_sum.h).
 *
 * It is that of the weights as they are in the file. A mode that adapts may have moved on by then;
 * that costs the sampled sum precision, never correctness.
 */
#ifndef VERIFY_PROBE_ENGINE_H
#define VERIFY_PROBE_ENGINE_H

#include "verify/engine.h"
#include "verify/probe_file.h"

/* probe_engine_open - decode the weights of f (f->ours) and load them. Close with engine_close.
 * ERR_INPUT: damaged weights. ERR_RESOURCE. */
enum err_code probe_engine_open(struct engine *g, const struct probe_file *f, size_t threads,
                                struct err *e);

/*
 * probe_engine_at - the probabilities of the token after n tokens.
 *
 *   tok, n  what the model sees: the tokens of the window before the place, n >= 1
 *   q       [vocab] out, sums to 1
 */
enum err_code probe_engine_at(struct engine *g, const uint16_t *tok, size_t n, double *q,
                              struct err *e);

#endif
