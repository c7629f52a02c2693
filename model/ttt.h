/*
 * ttt.h - score-first test-time training (#461, #549): a stream is scored in chunks, and after each
 * the weights take a few steps of SGD on the tokens that have just been scored.
 *
 * Chunk c holds the positions [c, c+1) * TTT_CHUNK_TOKENS; a window belongs to the chunk of its
 * first scored position. After scoring a chunk, unless it is the last: TTT_EPOCHS times over its
 * rows of EVAL_SEQ_LEN positions (a rest shorter than a row is left out), TTT_BATCH_SEQS rows per
 * step. A step is
 *
 *   g   = gradient of the mean loss of its rows, of all weights that are not frozen
 *   g  *= min(1, TTT_GRAD_CLIP / (|g| + 1e-6))
 *   buf = TTT_MOMENTUM * buf + g;  w -= lr * buf;  lr = TTT_LR/2 (1 + cos(pi c / (chunks - 1)))
 *
 * buf lives as long as the stream. Frozen are the parameters whose names begin with blocks.0. to
 * blocks.N-1., N = TTT_FREEZE_BLOCKS; with TTT_FREEZE_MATRICES=0 only their vectors, because
 * matrices that lie in banks are not called so (#549). Tables that the recipe calls bf16
 * (EMBED_BF16) take their steps in bf16: gradient, buf and weights are rounded.
 */
#ifndef MODEL_TTT_H
#define MODEL_TTT_H

#include "model/scorer.h"

/* A runner without gradients lacks ttt.c: callers ask here first. */
#ifdef KERN_FORWARD_ONLY
enum { TTT_BUILT = 0 };
#else
enum { TTT_BUILT = 1 };
#endif

struct ttt {
    const struct gpt *m;
    struct kern *k;
    struct graph g; /* one row of len positions, with its backward */
    size_t len;
    float *params, *grads, *buf; /* backend memory; params is the adapted copy */
    float *nll;                  /* host, [len] */
    /* Called after each step with its loss and gradient norm before clipping; may be NULL. */
    void (*step)(void *ctx, double loss, double norm);
    void *ctx;
};

/* ttt_open - a copy of params to adapt. The caller may set step and ctx. ERR_USAGE for settings
 * that make no sense, ERR_RESOURCE for memory. */
enum err_code ttt_open(struct ttt *t, const struct gpt *m, struct kern *k, const float *params,
                       struct err *e);
void ttt_close(struct ttt *t); /* accepts a zeroed struct */

/* ttt_chunks - how many chunks `total` positions make. */
size_t ttt_chunks(const struct recipe *r, size_t total);

/* ttt_rows - training rows of chunk c: 0 for the last. */
size_t ttt_rows(const struct recipe *r, size_t total, size_t c);

/* ttt_train - the steps after chunk c of a stream of `total` positions; tok has total + 1 tokens.
 * ERR_INPUT when a loss or gradient is not finite. */
enum err_code ttt_train(struct ttt *t, const uint16_t *tok, size_t total, size_t c, struct err *e);

/* ttt_run - score a list chunk by chunk and train in between. */
enum err_code ttt_run(struct scorer *s, const struct window_list *l, struct score *to,
                      struct err *e);

/* ttt_adapt - all the training and no scoring: t->params have seen the whole stream. */
enum err_code ttt_adapt(struct ttt *t, struct scorer *s, size_t total, struct err *e);

#endif
