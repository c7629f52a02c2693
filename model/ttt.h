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
 * The gradients of the rows are added up in the tree of trainer/split.h: a node of n > 1 rows has
 * the largest power of two below n of them on its left, and is left + right. So several processes
 * can share the rows out (struct score_share, ttt_share.c) and come to the same bits.
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

/* ttt_aside - floats by which the adapted weights begin aside of their memory. Kernels of a runner
 * on a card read four floats at a time where a matrix lies on a multiple of 16 bytes, so the copy
 * lies as params does. */
static inline size_t ttt_aside(const float *params)
{
#ifdef RUNNER_CUDA
    return (uintptr_t)params / sizeof *params % 4;
#else
    (void)params;
    return 0;
#endif
}

/* Floats between the beginnings of blocks are a multiple of this, but in a runner. */
enum { TTT_ALIGN = 16 };

struct ttt {
    const struct gpt *m;
    struct kern *k;
    struct graph g; /* one row of len positions, with its backward */
    size_t len, stride;
    /* Backend memory; params is the adapted copy. Gradients are several blocks, of which the first
     * gets the sum. */
    float *params, *buf, *grads;
    float *nll; /* host, [len] */
    /* Called after each step with its loss and gradient norm before clipping; may be NULL. */
    void (*step)(void *ctx, double loss, double norm);
    void *ctx;
    struct ttt_share *share; /* NULL: this process takes the steps alone */
    struct err word;         /* what failed here and the others have not heard yet */
};

/* ttt_open - a copy of params to adapt. The caller may set step and ctx. ERR_USAGE for settings
 * that make no sense, ERR_RESOURCE for memory. With _among: with room for what a rank of h takes
 * part in (NULL: alone). */
enum err_code ttt_open_among(struct ttt *t, const struct gpt *m, struct kern *k,
                             const float *params, const struct score_share *h, struct err *e);
static inline enum err_code ttt_open(struct ttt *t, const struct gpt *m, struct kern *k,
                                     const float *params, struct err *e)
{
    return ttt_open_among(t, m, k, params, NULL, e);
}
void ttt_close(struct ttt *t); /* accepts a zeroed struct */

/*
 * ttt_joins - to be asked for half = 1, 2, 4, ... after leaf i of the tree over `rows`, where the
 * leaves from `from` on come one after another: does the node of 2 * half leaves (fewer at the end)
 * that leaf i is in end with it, and not begin before `from`? Then, if i & half, its left half is
 * the node before the newest one, and the newest is added to it. Stop at the first no, or with one
 * node left.
 */
static inline bool ttt_joins(size_t rows, size_t from, size_t i, size_t half)
{
    return (i & half || i + 1 == rows) && (IN_RUNNER || (i & -(2 * half)) >= from);
}

/* ---- several processes: ttt_share.c, which a runner does not have ---- */

/* ttt_share_open - ttt_open for the scorer's weights, together with its ranks: what fails on one of
 * them fails on all. */
enum err_code ttt_share_open(struct ttt *t, const struct scorer *s, struct err *e);
void ttt_share_close(struct ttt *t);

/* ttt_share_blocks - of gradients, at most, that wait on this rank in a step, with the newest one.
 */
size_t ttt_share_blocks(const struct recipe *r, const struct score_share *h);

/* ttt_share_rows - this rank's rows [*from, *to) of a step of `rows`; may be none. */
void ttt_share_rows(const struct ttt *t, size_t rows, size_t *from, size_t *to);

/*
 * ttt_share_sum - from what the ranks' rows come to, to the sum of all in the first block, on every
 * rank. Of each rank the sums lie in its first blocks, from left to right; *loss becomes the sum of
 * all ranks' losses. Each rank adds up its share of the floats, which it receives from all and
 * gives to all.
 *
 * With n floats, N ranks, s_r sums of rank r: rank r sends 4 s_r (n - n/N) + 4 n/N (N - 1) bytes.
 * Fails on all ranks alike as t->word says on the lowest of them ("rank N: "), or as score_share's
 * functions do.
 */
enum err_code ttt_share_sum(struct ttt *t, size_t rows, double *loss, struct err *e);

/* ttt_share_agree - the same without sums: is every rank well? *loss as above, may be NULL. */
enum err_code ttt_share_agree(struct ttt *t, double *loss, struct err *e);

static inline bool ttt_together(const struct ttt *t)
{
    return !IN_RUNNER && t->share;
}

/* ttt_begin - for the weights of a scorer, with those who share its work. */
static inline enum err_code ttt_begin(struct ttt *t, const struct scorer *s, struct err *e)
{
    return scorer_trains(s) ? ttt_share_open(t, s, e) : ttt_open(t, s->m, s->k, s->params, e);
}

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
