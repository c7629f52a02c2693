/*
 * gptq.h - GPTQ: integers of a matrix chosen one column after another, each column's rounding error
 * made good by the columns that are still to come.
 *
 * E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training Quantization for
 * Generative Pre-trained Transformers", arXiv:2210.17323, with activation order; scales, percentile
 * search and damping as gptq_quantize_weight of #1296 and quantize_int6_gptq of #1019 have them.
 *
 * H [n][n] is the Hessian of the layer's squared output error: the sum of x x^T over input rows x,
 * up to a factor that does not matter here. Factors and sweep are double precision on the host in
 * one fixed order: integers do not depend on threads or instruction set.
 */
#ifndef TRAINER_GPTQ_H
#define TRAINER_GPTQ_H

#include <stdbool.h>

#include "trainer/quant.h"

/* What GPTQ takes from a Hessian; matrices with the same input (q, k, v of a block) share it. */
struct gptq_factor {
    size_t n;
    bool definite; /* false: no factor, gptq_matrix falls back to quant_matrix */
    size_t *perm;  /* [n] column of W at each place: largest diagonal element first */
    bool *dead;    /* [n] by column of W: the diagonal element of H was 0 */
    double *ut;    /* [n][n] U^T by place: lower triangle, U^T U = H^-1 */
};

/*
 * gptq_factor_init - from h [n][n], symmetric.
 *
 * Dead inputs get 1 on the diagonal; then damp times the mean of the diagonal is added to it. Equal
 * diagonal elements keep the order of their columns. A Hessian that is not finite or, damped, not
 * positive definite is no error: `definite` says so. ERR_RESOURCE: memory. Release with
 * gptq_factor_free (accepts a zeroed struct). About a second for n = 2048.
 */
enum err_code gptq_factor_init(struct gptq_factor *f, const float *h, size_t n, double damp,
                               const char *name, struct err *e);
void gptq_factor_free(struct gptq_factor *f);

/*
 * gptq_matrix - quantise w [rows][f->n]; q, scale, name, errors as quant_matrix.
 *
 *   how    bits, floor; with QUANT_CLIP_TENSOR each percentile of quant_pct gives scales and a
 *          sweep, and the smallest mean squared error against w itself (dead columns as zeros, not
 *          weighted by H) wins, the first of equals. With QUANT_CLIP_ROW scales are those of
 *          quant_matrix and there is one sweep. Other clips are not for GPTQ.
 *   block  columns per block, at least 1. Changes speed and the last bits of sums.
 *   found  as quant_matrix, percentiles whose scales are those of an earlier one have its mse;
 *          NULL when not wanted
 *
 * Without a definite factor the result is quant_matrix's.
 */
enum err_code gptq_matrix(int8_t *q, uint16_t *scale, const float *w, size_t rows,
                          const struct gptq_factor *f, const struct quant_how *how, size_t block,
                          const char *name, struct quant_search *found, struct err *e);

#endif
