/*
 * whole.h - a step of training as one tape (kernels.h): all micro-batches, the norm, the decision
 * whether the step is taken, and the update, queued at once and played again with every step.
 *
 * What is not known when the tape is recorded is read from the device's memory when it is played:
 *
 *   tokens    of all micro-batches, staged before the step
 *   numbers   learning rates, momentum and the step's number (optim_numbers)
 *   verdict   loss, norm, the factor of clipping, and whether both are finite: if they are not, the
 *             update changes nothing (kern_verdict)
 *
 * The host waits for the verdict alone, and in the meantime stages the tokens of the next step.
 * Weights, averages and losses are the same bits as those of a step that is queued operation by
 * operation (step.h), which is how steps go where this is not possible: on the CPU, with several
 * ranks, whose gradients leave during the last backward, and with more than WHOLE_MICROS
 * micro-batches, for which the tape would be too long.
 */
#ifndef TRAINER_WHOLE_H
#define TRAINER_WHOLE_H

#include "trainer/optim.h"

struct step;
struct step_stats;

enum { WHOLE_MICROS = 32 };

struct whole {
    bool on;          /* steps are whole ones */
    bool carried_out; /* with these switches, operation by operation, as `record` demands */
    bool qat;         /* s->qat then */
    bool started;     /* and not yet waited for */
    struct kern_tape *tape;
    size_t steps, played;
    /* Backend. */
    double *numbers;  /* [OPTIM_NUMBERS] */
    double *verdict;  /* [VERDICTS] of the step, [VERDICTS] of a group, [1] its sum of squares */
    uint16_t *tokens; /* [micros][3][batch * t]: ids, rows of the bigram table, targets */
};

/* whole_init - once the rest of s is set up. s->whole.on says whether steps are whole ones.
 * ERR_RESOURCE: memory. */
enum err_code whole_init(struct step *s, struct err *e);
void whole_free(struct step *s); /* accepts a zeroed struct */

/* whole_forget - before s->g is planned anew. */
void whole_forget(struct step *s);

/* whole_stage - the tokens of the next micro-batch of the step to come: host, [batch][t] each, free
 * for other use on return. */
void whole_stage(struct step *s, const uint16_t *ids, const uint16_t *target);

/* whole_start - queue the step whose tokens are staged; staging then begins again. */
void whole_start(struct step *s, double lr_scale, double momentum);

/* whole_end - wait for what whole_start has queued. *go: the step was taken. ERR_RESOURCE: the
 * device. */
enum err_code whole_end(struct step *s, struct step_stats *st, bool *go, struct err *e);

#endif
