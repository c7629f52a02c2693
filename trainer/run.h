/*
 * run.h - what the parts of a training run share: its beginning and its steps (train.c), its end
 * (finish.c), and between them the clock, the stop and the validation (run.c). Private to the
 * trainer; train.h is the interface.
 *
 * With several ranks all of them walk through the same calls. Rank 0 has the directory, the log and
 * the clock by which everything is decided; what may fail on one rank alone is agreed on before
 * they go on (run_agree), so that a run ends everywhere with the same error.
 */
#ifndef TRAINER_RUN_H
#define TRAINER_RUN_H

#include "model/clock.h"
#include "model/score.h"
#include "trainer/corpus.h"
#include "trainer/log.h"
#include "trainer/output.h"
#include "trainer/plan.h"
#include "trainer/step.h"
#include "trainer/train.h"

struct train {
    const struct train_opts *o;
    struct gpt m; /* m.r is the recipe, with MICRO_BATCH_TOKENS resolved */
    struct kern *k;
    struct comm *c, alone; /* c is never NULL */
    struct plan plan;
    struct corpus data;
    struct step s;
    struct output out;
    struct log log;
    uint16_t *tokens;  /* one micro-batch: inputs, then targets */
    double elapsed_ms; /* training time up to `since` */
    double since;      /* ms; when the clock was last started, 0: it stands still */
    double beat_ms;    /* training time at the last run_beat, by rank 0's clock */
    bool stop;         /* a signal had come to some rank by then */
    bool together;     /* the error that ends the run has come to all ranks */
    double began_ms;   /* elapsed_ms when this session began */
    size_t began_step;
    double last_loss; /* of the last finished step */
    /* The tokens of the next step are staged already (step_start); where the data were before. */
    bool ahead;
    struct loader_pos ahead_from;
    struct train_result res;
};

/* The clock of training time, in ms. It stands still during validation and checkpoints. */
static inline double run_now_ms(void)
{
    return 1e3 * seconds_now();
}
double run_elapsed(const struct train *t);
void run_clock_start(struct train *t);
void run_clock_pause(struct train *t);

/* run_agree - comm_agree: ERR_OK when all ranks say so, else everybody has the lowest rank's error.
 */
enum err_code run_agree(struct train *t, enum err_code mine, struct err *e);

/* run_any - is it so on any rank? ERR_RESOURCE: other ranks. */
enum err_code run_any(struct train *t, bool mine, bool *any, struct err *e);

/* run_beat - between steps: t->beat_ms and t->stop, the same on all ranks. run_over_cap - was the
 * time up then? */
enum err_code run_beat(struct train *t, struct err *e);
bool run_over_cap(const struct train *t);

/* run_rewind - the data are again where the last step left them: before that place is noted, or
 * something else is read. */
enum err_code run_rewind(struct train *t, struct err *e);

/* run_wants_stop - did a signal come to this rank? */
bool run_wants_stop(const struct train *t);

/* run_stopped - write the checkpoint and turn the stop into the error that ends the run. */
enum err_code run_stopped(struct train *t, struct err *e);

/* run_checkpoint - a checkpoint on the way. The run outlives a full disk: it says so and tries
 * again next time. Starts the clock. ERR_RESOURCE: other ranks. */
enum err_code run_checkpoint(struct train *t, struct err *e);

/* run_validate - plain validation of params (backend memory), with recurrence or without; *ms is
 * the time it took. The clock must stand still. A signal ends it with a checkpoint. */
enum err_code run_validate(struct train *t, const float *params, bool recur, struct score *sc,
                           double *ms, struct err *e);

/* run_finish - after the last step: everything behind training. The log line of speed, the last
 * checkpoint when CHECKPOINT_EVERY asks for any, the files, the round trip. */
enum err_code run_finish(struct train *t, struct err *e);

#endif
