/*
 * engine.h - the trusted engine: a model made of a recipe and named tensors, and its scores.
 *
 * The same code (model/, kernels/) as in the runner of a submission, but built into verify: nothing
 * of the file under audit is executed. docs/scoring.md says how a score is computed, bit by bit.
 */
#ifndef VERIFY_ENGINE_H
#define VERIFY_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/bytes.h"
#include "model/gpt.h"
#include "model/score.h"
#include "verify/peers.h"

struct engine {
    struct gpt m;
    struct kern *k;
    float *params;       /* backend memory */
    struct peers *peers; /* who shares the scoring, NULL: nobody; the caller's */
};

/*
 * engine_open - lay out the model of a recipe and fill it with weights.
 *
 *   t, count  tensors, float or quantised (gpt_load)
 *   path      names their source in errors
 *   device    "cuda", or NULL or "cpu"
 *   threads   0: as many as the process may use
 *   peers     NULL, or those with whom engine_score shares its work
 */
enum err_code engine_open(struct engine *g, const struct recipe *r, const struct tensor_view *t,
                          size_t count, const char *path, const char *device, size_t threads,
                          struct peers *peers, struct err *e);
void engine_close(struct engine *g); /* accepts a zeroed struct */

/* What came out of a run, and everything a report says about it. */
struct scores {
    const struct recipe *recipe; /* the engine's */
    enum eval_mode mode;
    struct score sum, record; /* record: the sliding score, when the mode adapts */
    double *nll;              /* [count] nats of every scored token, in window order; owned */
    size_t count;
    uint64_t nll_xxh64; /* of nll as little-endian float64 bytes: one number for all the bits */
    size_t stream;      /* tokens of the stream that was read */
    size_t windows;
    double seconds; /* of scoring alone */
};

/*
 * engine_score - score the validation stream of a directory (or of one shard file).
 *
 *   mode        name of the mode, NULL: the recipe's EVAL_MODE
 *   max_tokens  score the first so many positions, 0: all
 *   progress    show a progress line on stderr; rank 0 does
 *
 * All ranks call it, when all have opened their engine (peers_agree), and get the same scores.
 *
 * ERR_USAGE: no such mode. ERR_INPUT: a rank read other tokens, weights or settings than rank 0.
 * Else as shard_load and score_run. Release with scores_free.
 */
enum err_code engine_score(struct engine *g, const char *data, const char *mode, size_t max_tokens,
                           const struct byte_table *b, bool progress, struct scores *s,
                           struct err *e);
void scores_free(struct scores *s); /* accepts a zeroed struct */

#endif
