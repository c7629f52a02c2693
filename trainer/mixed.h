/*
 * mixed.h - which matrices get one bit less (#1260: int6 for the sensitive, int5 for the others).
 */
#ifndef TRAINER_MIXED_H
#define TRAINER_MIXED_H

#include <stdbool.h>
#include <stddef.h>

/*
 * mixed_choose - fewer[i] = true for all but the `keep` largest of sensitivity[0..n).
 *
 * Among equals the first keep their bits, so the order of the matrices matters: that of execution
 * inside a block, block after block (c_q, c_k, c_v, proj, fc, mlp.proj), which is also their order
 * in the state dict. #1260 takes the trace of the layer's Hessian. As inputs of layers are
 * normalised, it is nearly rows * dim * LN scale^2 for q, k, v and fc: the ranking is mostly depth.
 */
void mixed_choose(bool *fewer, const double *sensitivity, size_t n, size_t keep);

#endif
