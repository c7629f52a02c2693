/*
 * step.h - one optimiser step on the backend: the weights and everything that changes them.
 *
 *     step_begin(s);
 *     for each of s->reduce.mine.micro:  step_micro(s, ids, target, e)         gradients add up
 *     step_end(s, lr_scale, momentum, trouble, &stats, e)        clip, Muon and AdamW, EMA
 *
 * The loss of a step is the mean over TRAIN_BATCH_TOKENS tokens: the sums of the micro-batches, in
 * token order, added in their order. Gradients add up as reduce.h says.
 *
 * With several ranks every one of them makes the same calls, each with its own micro-batches. All
 * hold all weights and, during a step, gradients; optimiser state and averages are packed blocks of
 * the pieces that a rank owns. Losses, norms and weights are the same bits on all of them, and for
 * any number of them.
 *
 * Nothing here knows files, clocks or logs; who calls decides when a switch is thrown
 * (trainer/schedule.h):
 *
 *   step_recur     depth recurrence: the graph is planned again, nothing else changes
 *   s->qat = true  late QAT (#549's intention, arXiv 1308.3432's straight-through estimator): from
 *                  then on forward and backward see weights rounded as they will be packed
 *                  (kern fake_quant with QUANT_BITS and QUANT_SCALE_FLOOR; the records have 6 and
 *                  1), the gradient goes to the real weights as if nothing had been rounded.
 *                  LATE_QAT_SCOPE says which matrices: all that QUANT_BITS applies to (so not those
 *                  that QUANT_KEEP_NUMEL keeps as fp16), or proj: bigram.proj and ve_shared.proj
 *                  alone, whatever their size (what #549 reaches when it is not compiled)
 *   step_snapshot  SWA: the weights as they are now join the mean that step_final returns
 *
 * Nothing allocates after step_init but step_recur.
 */
#ifndef TRAINER_STEP_H
#define TRAINER_STEP_H

#include "model/gpt.h"
#include "trainer/optim.h"
#include "trainer/reduce.h"
#include "trainer/spread.h"
#include "trainer/whole.h"

enum { PHASE_FORWARD, PHASE_BACKWARD, PHASE_OPTIMISER, PHASES };

struct step {
    struct kern *k;
    const struct gpt *m;
    struct graph g;
    bool recur;             /* g runs RECUR_LAYERS twice */
    bool qat;               /* set by the caller, only when `quant` is there */
    size_t snapshots;       /* that swa is the sum of */
    size_t batch, t;        /* sequences per micro-batch, tokens per sequence */
    float *params, *grads;  /* backend, [floats] */
    float *ema, *swa;       /* backend, packed; NULL without EMA_DECAY, without an applied SWA */
    float *quant;           /* backend, [floats]: rounded weights; NULL without late QAT */
    struct optim opt;       /* opt.step is the number of steps taken */
    double seconds[PHASES]; /* wall time since step_init; only meaningful on the CPU */
    /* Several ranks. */
    struct comm *c, alone; /* c is never NULL */
    struct reduce reduce;
    struct spread spread;
    size_t micros, micro; /* micro-batches of a step; done of this rank's */
    /* What a rank tells the others in step_end, doubles: trouble, the losses of its micro-batches,
     * the squares of its pieces' gradients. */
    size_t most_micros, told; /* losses of the rank with most of them; doubles of all */
    double *sums;             /* backend: losses and squares */
    double *tell, *heard;     /* host, [told], [ranks][told] */
    size_t *seen;             /* host, [ranks], scratch */
    struct whole whole; /* on: steps are played as one tape, and s->micro counts what is staged */
};

/* Why a rank has no gradients to give, so that the step must not be taken. */
enum { STEP_FAILED = 1, STEP_GIVEN_UP = 2 };

struct step_stats {
    double loss;      /* mean nll per token, nats */
    double grad_norm; /* global, before clipping; GRAD_CLIP_SCOPE=rank: after it */
    unsigned trouble; /* of all ranks; if there is any the rest is meaningless */
};

/* step_init - allocate for micro-batches of `batch` sequences of TRAIN_SEQ_LEN tokens, with
 * recurrence as the first step has it. Weights are zero until step_set. k, m and c (NULL: alone)
 * must outlive s. Not for more ranks than gradients (plan_ranks). ERR_RESOURCE: no memory. */
enum err_code step_init(struct step *s, struct kern *k, const struct gpt *m, size_t batch,
                        struct comm *c, struct err *e);
void step_free(struct step *s); /* accepts a zeroed struct */

/* step_set - start from these weights (host, [floats]) with fresh optimiser state, averages and
 * switches, except the recurrence; the EMA starts as their copy. With EMBED_BF16 the embedding
 * tables are rounded first. */
void step_set(struct step *s, const float *params);

/* step_recur - plan the graph with or without recurrence; does nothing when that is how it is.
 * ERR_RESOURCE: no memory; s is then only fit for step_free. */
enum err_code step_recur(struct step *s, bool recur, struct err *e);

/* step_begin - forget gradients and loss of the previous step; round the weights under late QAT.
 * With whole steps (whole.h): only forget what is staged. */
void step_begin(struct step *s);

/* step_micro - forward and backward of one micro-batch: ids and target are [batch][t], host. With
 * whole steps they are only staged. */
enum err_code step_micro(struct step *s, const uint16_t *ids, const uint16_t *target,
                         struct err *e);

/*
 * step_start - may be called before step_end, with the same lr_scale and momentum, when there is no
 * trouble. True: the step is on its way, and step_micro may be called for the micro-batches of the
 * next one, for which step_begin is then not called. False: nothing has happened.
 */
bool step_start(struct step *s, double lr_scale, double momentum);

/*
 * step_end - update the weights.
 *
 *   trouble  STEP_*: this rank has not done its micro-batches. It makes the call all the same,
 *            because the others wait for it; when any rank has trouble nobody updates anything, and
 *            st->trouble is not 0 on all of them.
 *
 * ERR_INPUT when the loss or a gradient is not finite, naming the step and the first tensor that is
 * not finite, in the order weights, then gradients; weights, state and EMA are then left as they
 * were. When only one rank can name it, the others have STEP_FAILED as trouble.
 * ERR_RESOURCE: the device, or other ranks.
 */
enum err_code step_end(struct step *s, double lr_scale, double momentum, unsigned trouble,
                       struct step_stats *st, struct err *e);

/* step_snapshot - add the weights to the SWA's sum; only counts without s->swa. */
void step_snapshot(struct step *s);

/*
 * step_final - the weights that a run comes to, into s->grads, and where they come from: the mean
 * of the snapshots when SWA is applied and took any; else the EMA; else the weights of the last
 * step. With EMBED_BF16 the embedding tables of an average are rounded like the weights' own.
 * ERR_RESOURCE: other ranks.
 */
enum step_source { STEP_WEIGHTS, STEP_EMA, STEP_SWA };
enum err_code step_final(struct step *s, enum step_source *from, struct err *e);

/* step_weights - what forward and backward read. step_hold - round them under late QAT and tell the
 * backend that they do not change from here on; or that they do. step_clips_ranks -
 * GRAD_CLIP_SCOPE=rank. step_squares - the squares of the gradients of this rank's pieces
 * into s->sums, from where it returns on. For whole.c. */
const float *step_weights(const struct step *s);
void step_hold(struct step *s, bool yes);
bool step_clips_ranks(const struct step *s);
double *step_squares(struct step *s);

/* step_qat_covers - does late QAT round this parameter? */
bool step_qat_covers(const struct recipe *r, const struct gpt_param *p);
/* step_qat_possible - does a run of this model need the block for rounded weights? */
bool step_qat_possible(const struct gpt *m);

/* step_check - ERR_INPUT naming the first weight tensor that is not finite (before weights are
 * saved). */
enum err_code step_check(const struct step *s, struct err *e);

#endif
