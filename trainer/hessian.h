/*
 * hessian.h - what GPTQ knows about the inputs of a layer: H = sum of x x^T over calibration data.
 *
 * As collect_hessians of #1296 does it: the trained weights run forward over batches of training
 * data, with depth recurrence on; every linear layer adds X^T X of its input rows X, twice when its
 * block runs twice; the sum is divided by the number of batches (not of tokens). Inputs are fp32
 * here, bf16 in the records.
 */
#ifndef TRAINER_HESSIAN_H
#define TRAINER_HESSIAN_H

#include "model/gpt.h"

/* Where calibration comes from. */
struct calib {
    struct kern *k; /* runs the model */
    /* take - the next batch: n = GPTQ_BATCH_TOKENS inputs, sequences of TRAIN_SEQ_LEN after one
     * another. */
    enum err_code (*take)(void *ctx, uint16_t *ids, size_t n, struct err *e);
    void *ctx;
    /* progress - `done` of `all` parts of `what` are finished; may be NULL. */
    void (*progress)(void *ctx, const char *what, size_t done, size_t all);
    void *progress_ctx;
};

/* One linear layer. */
struct hessian {
    ptrdiff_t w;    /* offset of its weight in the parameter block */
    size_t n;       /* inputs */
    size_t same_as; /* the first layer with the same inputs; its own index when it is that */
    float *h;       /* [n][n] host; NULL unless same_as is its own index */
    double trace;   /* sum of the diagonal: the sensitivity of #1260 */
};

struct hessians {
    struct hessian *of; /* in order of first execution */
    size_t count;
};

void hessian_free(struct hessians *hs); /* accepts a zeroed struct */

/* hessian_find - of the weight at offset w, or NULL. */
const struct hessian *hessian_find(const struct hessians *hs, size_t w);
/* hessian_matrix - [n][n] of a layer, its own or the one that it shares. */
const float *hessian_matrix(const struct hessians *hs, const struct hessian *h);

/*
 * hessian_collect - of every linear layer, over GPTQ_CALIB_BATCHES batches.
 *
 *   params  host, the whole parameter block
 *   r       GPTQ_CALIB_BATCHES, GPTQ_BATCH_TOKENS, GPTQ_COLLECT_DAMP: that times the mean of the
 *           diagonal (at least 1e-6) is added to the diagonal at the end (#1019, #1263)
 *
 * Rows are summed in an order that depends on the recipe alone: forwards of as many sequences as
 * fit HESSIAN_ROWS (at least one), single precision sums. Memory: a training plan of that many rows
 * and the matrices (0.25 GiB for 11 layers of 512 with MLPs of 2048).
 * ERR_USAGE: GPTQ_BATCH_TOKENS is no multiple of TRAIN_SEQ_LEN. ERR_RESOURCE: memory. And what
 * take() fails with.
 */
enum { HESSIAN_ROWS = 2048 };
enum err_code hessian_collect(struct hessians *hs, const struct gpt *m, const float *params,
                              const struct recipe *r, const struct calib *c, struct err *e);

#endif
