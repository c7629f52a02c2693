/*
 * step.h - one optimiser step on the backend: the weights and everything that changes them.
 *
 *     step_begin(s);
 *     for each micro-batch:  step_micro(s, ids, target, e)       gradients of all of them add up
 *     step_end(s, lr_scale, momentum, &stats, e)                 clip, Muon and AdamW, EMA
 *
 * The loss of a step is the mean over TRAIN_BATCH_TOKENS tokens, however it is cut into
 * micro-batches. Nothing here allocates after step_init, and nothing here knows files, clocks or
 * logs.
 */
#ifndef TRAINER_STEP_H
#define TRAINER_STEP_H

#include "model/gpt.h"
#include "trainer/optim.h"

enum { PHASE_FORWARD, PHASE_BACKWARD, PHASE_OPTIMISER, PHASES };

struct step {
    struct kern *k;
    const struct gpt *m;
    struct graph g;
    size_t batch, t;             /* sequences per micro-batch, tokens per sequence */
    float *params, *grads, *ema; /* backend, [floats]; ema NULL when EMA_DECAY is 0 */
    float *nll;                  /* host, [batch*t] */
    struct optim opt;            /* opt.step is the number of steps taken */
    double loss_sum;             /* of the current step, in token order */
    double seconds[PHASES];      /* wall time since step_init; only meaningful on the CPU */
};

struct step_stats {
    double loss;      /* mean nll per token, nats */
    double grad_norm; /* global, before clipping */
};

/* step_init - allocate for micro-batches of `batch` sequences of TRAIN_SEQ_LEN tokens. Weights are
 * zero until step_set. k and m must outlive s. ERR_RESOURCE: no memory. */
enum err_code step_init(struct step *s, struct kern *k, const struct gpt *m, size_t batch,
                        struct err *e);
void step_free(struct step *s); /* accepts a zeroed struct */

/* step_set - take over initial weights (host, [floats]); the EMA starts as their copy. */
void step_set(struct step *s, const float *params);

/* step_begin - forget gradients and loss of the previous step. */
void step_begin(struct step *s);

/* step_micro - forward and backward of one micro-batch: ids and target are [batch][t], host. */
enum err_code step_micro(struct step *s, const uint16_t *ids, const uint16_t *target,
                         struct err *e);

/*
 * step_end - update the weights.
 *
 * ERR_INPUT when the loss or a gradient is not finite, naming the step and the first tensor that is
 * not finite, in the order weights, then gradients; weights, state and EMA are then left as they
 * were.
 */
enum err_code step_end(struct step *s, double lr_scale, double momentum, struct step_stats *st,
                       struct err *e);

/* step_check - ERR_INPUT naming the first weight tensor that is not finite (before weights are
 * saved). */
enum err_code step_check(const struct step *s, struct err *e);

#endif
