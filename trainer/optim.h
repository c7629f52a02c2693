/*
 * optim.h - Muon and AdamW over the parameter block of a model, gradient clipping, averaging.
 *
 * The class of a parameter (model/gpt.h) decides:
 *
 *   PARAM_MATRIX   Muon   MATRIX_LR, MUON_WD
 *   PARAM_EMBED    AdamW  TIED_EMBED_LR (EMBED_LR when untied), EMBED_WD
 *   PARAM_HEAD     AdamW  HEAD_LR, EMBED_WD
 *   PARAM_CONTROL  AdamW  SCALAR_LR, ADAM_WD
 *
 * Muon (Jordan et al., kellerjordan.github.io/posts/muon), per matrix of r rows and c columns,
 * slice by slice for 3-D parameters; fp32 throughout:
 *
 *   buf = mu*buf + g;  u = g + mu*buf                              Nesterov momentum
 *   MUON_ROW_NORM: u_i = u_i / max(|u_i|, 1e-7) for every row      MuonEq-R (arXiv 2603.28254)
 *   X = u / (|u|_F + 1e-7)
 *   MUON_BACKEND_STEPS times:  A = X X^T;  B = b*A + c*(A A);  X = a*X + B X     (a, b, c: optim.c)
 *   p = p*(1 - lr*wd) - lr * sqrt(max(1, r/c)) * X
 *
 * When r > c the iteration runs on X^T without moving it: A = X^T X, X = a*X + X B. The reference
 * scripts differ in (c*A)*A and c*(A*A); this is the second (#549).
 *
 * State lives in blocks with the layout of the parameter block. Everything goes through the kernels
 * table, so all pointers are backend memory, and the result is as bit-exact as the backend.
 */
#ifndef TRAINER_OPTIM_H
#define TRAINER_OPTIM_H

#include <stdbool.h>

#include "model/gpt.h"

/* A stretch of the parameter block that is updated as one: a matrix, or neighbours of one AdamW
 * group. */
struct optim_run {
    enum param_class cls;
    size_t at, n;              /* floats */
    size_t slices, rows, cols; /* PARAM_MATRIX only: n = slices*rows*cols */
};

struct optim {
    struct kern *k;
    const struct gpt *m;
    struct optim_run *run;
    size_t runs;
    size_t step; /* steps taken; part of the state, AdamW's bias correction needs it */
    float *mom;  /* [floats] Muon's buf, AdamW's first moment */
    float *var;  /* [floats] AdamW's second moment; stays zero where Muon rules */
    float *work; /* Newton-Schulz: largest slice plus two squares of its smaller side */
};

/* optim_init - zero state for the parameters of m (which must outlive o). ERR_RESOURCE: no memory.
 * Only m->r, m->param, m->nparams and m->floats are read. */
enum err_code optim_init(struct optim *o, struct kern *k, const struct gpt *m, struct err *e);
void optim_free(struct optim *o); /* accepts a zeroed struct */

/*
 * optim_step - one step of every group.
 *
 *   params    [floats] in and out
 *   grads     [floats] in; destroyed (Newton-Schulz works in them)
 *   lr_scale  multiplies every learning rate; weight decay is lr*wd and shrinks with it
 *   momentum  Muon's mu for this step
 */
void optim_step(struct optim *o, float *params, float *grads, double lr_scale, double momentum);

/* muon_floats - size of the scratch block of muon_orthogonalise for this shape. */
size_t muon_floats(size_t rows, size_t cols);

/* muon_orthogonalise - `steps` Newton-Schulz iterations on x[rows][cols] in place, normalised
 * first. work: muon_floats(rows, cols) floats, finite, not overlapping x. x must be finite. */
void muon_orthogonalise(struct kern *k, float *x, float *work, size_t rows, size_t cols,
                        size_t steps);

/* optim_clip - global L2 norm of grads[n] before clipping; with max_norm > 0 the gradients are
 * multiplied by min(1, max_norm / (norm + 1e-6)). A norm that is not finite leaves them as they
 * are. */
double optim_clip(struct kern *k, float *grads, size_t n, double max_norm);

/* optim_average - avg = decay*avg + (1-decay)*params over n floats (EMA, no bias correction). */
void optim_average(struct kern *k, float *avg, const float *params, size_t n, double decay);

#endif
