/*
 * optim.h - Muon and AdamW over the parameter block of a model, gradient clipping, averaging. What
 * is updated how: piece.h; with several ranks each updates the pieces that it owns.
 *
 * Muon (Jordan et al., kellerjordan.github.io/posts/muon), per matrix of r rows and c columns,
 * slice by slice for 3-D parameters; fp32 throughout:
 *
 *   buf = mu*buf + g;  u = g + mu*buf                              Nesterov momentum
 *   MUON_ROW_NORM: u_i = u_i / max(|u_i|, 1e-7) for every row      MuonEq-R (arXiv 2603.28254)
 *   X = MUON_BACKEND_STEPS steps of Newton-Schulz on u / (|u|_F + 1e-7)           kern_ns
 *   p = p*(1 - lr*wd) - lr * sqrt(max(1, r/c)) * X
 *
 * Matrices of one shape are orthogonalised in one call, wherever they lie. The reference scripts
 * differ in (c*A)*A and c*(A*A); in fp32 that is rounding.
 *
 * bf16, as the records store it (values are rounded to the nearest bf16, ties to even, and kept in
 * fp32; the arithmetic between two roundings is fp32):
 *
 *   EMBED_BF16  OPTIM_EMBED: the gradient before the step; weights and both moments after it
 *   MUON_BF16   OPTIM_MUON: g, mu*buf, buf, u, and u again after the rows are normalised. The norms
 *               themselves and Newton-Schulz stay fp32 (in the records they are bf16 as well)
 *
 * State lives in blocks of this rank's pieces, packed; alone, with the layout of the parameter
 * block. Everything goes through the kernels table, so all pointers are backend memory, and the
 * result is as bit-exact as the backend.
 */
#ifndef TRAINER_OPTIM_H
#define TRAINER_OPTIM_H

#include "trainer/piece.h"

/* What changes from step to step. Rates are those of the groups of piece.h, times the schedule. */
enum optim_number {
    OPTIM_RATE, /* and the OPTIM_GROUPS - 1 behind it */
    OPTIM_MOMENTUM = OPTIM_RATE + OPTIM_GROUPS,
    OPTIM_STEP, /* counted from 1 */
    OPTIM_NUMBERS
};

struct optim {
    struct kern *k;
    const struct gpt *m;
    struct piece_list p;
    size_t step;  /* steps taken; part of the state, AdamW's bias correction needs it */
    float *mom;   /* [p.floats] Muon's buf, AdamW's first moment */
    float *var;   /* [p.floats] AdamW's second moment; stays zero where Muon rules */
    float **list; /* room for a pointer to every matrix, for Newton-Schulz */
    double now[OPTIM_NUMBERS];
    /* While an update is queued whose numbers come later (optim_queue), else NULL. Backend. */
    const double *later, *go;
};

/* optim_init - zero state for the parameters of m (which must outlive o) that rank `rank` of
 * `ranks` owns. ERR_RESOURCE: no memory. Only m->r, m->param, m->nparams and m->floats are read. */
enum err_code optim_init(struct optim *o, struct kern *k, const struct gpt *m, size_t rank,
                         size_t ranks, struct err *e);
void optim_free(struct optim *o); /* accepts a zeroed struct */

/* optim_reset - zero state, as after optim_init. */
void optim_reset(struct optim *o);

/* optim_round - what a whole block of weights becomes when it is stored in the parameters' own
 * types: with EMBED_BF16 its embedding tables are rounded to bf16; otherwise nothing. */
void optim_round(const struct optim *o, float *params);

/*
 * optim_step - one step of every group, in the pieces of this rank.
 *
 *   params    [floats] in and out, the whole block
 *   grads     [floats] in, the same; destroyed (Newton-Schulz works in them)
 *   lr_scale  multiplies every learning rate; weight decay is lr*wd and shrinks with it
 *   momentum  Muon's mu for this step
 */
void optim_step(struct optim *o, float *params, float *grads, double lr_scale, double momentum);

/* optim_numbers - those of the next step. */
void optim_numbers(const struct optim *o, double lr_scale, double momentum,
                   double out[OPTIM_NUMBERS]);

/*
 * optim_queue - optim_step whose numbers are read when it runs: for a tape. Where the backend has
 * blend and adamw_at. o->step stays as it is.
 *
 *   numbers  backend memory, [OPTIM_NUMBERS]: as optim_numbers makes them
 *   go       backend memory: where it is 0 nothing changes but grads
 */
void optim_queue(struct optim *o, float *params, float *grads, const double *numbers,
                 const double *go);

/* muon_orthogonalise - `steps` Newton-Schulz iterations on each of x[0..count), matrices
 * [rows][cols], in place, normalised first; with Muon's coefficients. x must be finite. */
void muon_orthogonalise(struct kern *k, float *const *x, size_t count, size_t rows, size_t cols,
                        size_t steps);

/* optim_clip_factor - what gradients of this L2 norm are multiplied with: min(1, max_norm / (norm +
 * 1e-6)); 1 when max_norm is 0 or the norm is not finite. */
double optim_clip_factor(double norm, double max_norm);

/* optim_judge - kern_verdict with the eps of optim_clip_factor. */
void optim_judge(struct kern *k, const struct kern_verdict *v);

/* optim_clip - clip grads[n] by their own norm, which is returned, and is `scale` times that of
 * grads. */
double optim_clip(struct kern *k, float *grads, size_t n, double scale, double max_norm);

/* optim_average - avg = decay*avg + (1-decay)*params over n floats (EMA, no bias correction). */
void optim_average(struct kern *k, float *avg, const float *params, size_t n, double decay);

#endif
