/*
 * fisher.h - what an error in a weight does to the model's predictions, as far as the quantiser
 * needs to know it.
 *
 * For small errors D of a layer's weight the divergence between the model and its copy,
 * KL(model || copy) per token, is about 1/2 * mean over tokens of (g . D x)^2, with x the layer's
 * input and g the gradient of the loss at its output when the target is drawn from the model's own
 * prediction (the Fisher information). Taking g and x as independent, and the elements of g too
 * (the Kronecker-factored approximation of J. Martens and R. Grosse, arXiv:1503.05671, with one
 * factor cut down to its diagonal), row i costs
 *
 *     1/2 * E[g_i^2] * d_i^T E[x x^T] d_i          d_i: the error of row i
 *
 * hessian.h has E[x x^T]; E[g_i^2] is here. Targets are sampled with a fixed seed, so one set of
 * data gives one result.
 *
 * The embedding table is two layers in one when tied. As the head, x is the output of the last norm
 * and E[g_v^2] the mean of p_v (1 - p_v) s_v^2, s the slope of the soft cap: no sampling needed. As
 * the table, row v is added to the stream wherever token v stands: its error costs
 * seen_v * d_v^T E[g g^T] d_v, with g the gradient at the embedding's output.
 */
#ifndef TRAINER_FISHER_H
#define TRAINER_FISHER_H

#include "trainer/hessian.h"

/* A linear layer. */
struct fisher_layer {
    ptrdiff_t w;  /* offset of its weight */
    size_t n_out; /* rows of the weight */
    size_t rows;  /* activations seen, twice as many when its block runs twice */
    double *mean; /* [n_out] E[g_i^2] */
};

/* An embedding table other than that of the tokens: squares of its gradient, which is sparse,
 * summed over forwards along columns and along rows, per token. */
struct fisher_table {
    const struct gpt_param *p;
    double *row, *col; /* [shape[0]], [shape[1]] */
};

struct fisher {
    struct fisher_layer *layer;
    struct fisher_table *table;
    size_t layers, tables, vocab, dim, tokens;
    double *head;  /* [vocab] E[g_v^2] of the head */
    double *seen;  /* [vocab] share of the tokens, never 0: half a token more than was counted */
    float *hidden; /* [dim][dim] E[h h^T], h the input of the head */
    float *input;  /* [dim][dim] E[g g^T], g the gradient at the embedding's output */
};

/*
 * fisher_collect - over `tokens` tokens of c (rounded up to whole sequences of TRAIN_SEQ_LEN).
 *
 *   params  host, the whole parameter block
 *
 * Memory: a training plan of HESSIAN_ROWS rows, weights and gradients, 256 rows of logits.
 * ERR_RESOURCE: memory. And what take() fails with.
 */
enum err_code fisher_collect(struct fisher *f, const struct gpt *m, const float *params,
                             size_t tokens, const struct calib *c, struct err *e);
void fisher_free(struct fisher *f); /* accepts a zeroed struct */

/* fisher_find - of the weight at offset w, or NULL. */
const struct fisher_layer *fisher_find(const struct fisher *f, size_t w);

#endif
