/* run.c - see run.h. */
#include "trainer/run.h"

#include <stdlib.h>

#include "trainer/checkpoint.h"
#include "trainer/schedule.h"

/* ---- the clock of training time ---- */

double run_elapsed(const struct train *t)
{
    return t->elapsed_ms + (t->since > 0 ? run_now_ms() - t->since : 0);
}

void run_clock_start(struct train *t)
{
    t->since = run_now_ms();
}

void run_clock_pause(struct train *t)
{
    t->elapsed_ms = run_elapsed(t);
    t->since = 0;
}

/* ---- several ranks ---- */

/* After what all ranks did alike and what failed: can they still talk to each other? Then all of
 * them have that error. */
static void are_together(struct train *t)
{
    bool any;
    struct err ignored = {0};
    t->together = !run_any(t, false, &any, &ignored);
}

enum err_code run_agree(struct train *t, enum err_code mine, struct err *e)
{
    enum err_code rc = comm_agree(t->c, mine, e);
    if (rc)
        are_together(t);
    return rc;
}

enum err_code run_any(struct train *t, bool mine, bool *any, struct err *e)
{
    bool *all = calloc(t->c->size, sizeof *all);
    if (!all)
        return err_nomem(e, "ranks", t->c->size);
    enum err_code rc = comm_gather(t->c, all, &mine, sizeof mine, e);
    *any = false;
    for (size_t r = 0; r < t->c->size && !rc; r++)
        *any |= all[r];
    free(all);
    return rc;
}

struct beat {
    double ms;
    bool stop;
};

enum err_code run_beat(struct train *t, struct err *e)
{
    struct beat mine = {.ms = run_elapsed(t)}, *all = calloc(t->c->size, sizeof *all);
    mine.stop = run_wants_stop(t);
    if (!all)
        return err_nomem(e, "ranks", t->c->size * sizeof *all);
    enum err_code rc = comm_gather(t->c, all, &mine, sizeof mine, e);
    t->beat_ms = all[0].ms;
    t->stop = false;
    for (size_t r = 0; r < t->c->size; r++)
        t->stop |= all[r].stop;
    free(all);
    return rc;
}

/* ---- data ---- */

enum err_code run_rewind(struct train *t, struct err *e)
{
    bool ahead = t->ahead;
    t->ahead = false;
    return ahead ? loader_seek(&t->data.train, &t->ahead_from, e) : ERR_OK;
}

/* ---- stopping ---- */

bool run_wants_stop(const struct train *t)
{
    return t->o->stop && *t->o->stop;
}

bool run_over_cap(const struct train *t)
{
    double cap_ms = schedule_cap_ms(&t->m.r);
    return cap_ms > 0 && t->beat_ms >= cap_ms;
}

static enum err_code save(struct train *t, struct err *e)
{
    struct checkpoint c = {.elapsed_ms = run_elapsed(t)};
    char path[OUTPUT_PATH];
    enum err_code rc = run_rewind(t, e);
    if ((rc = run_agree(t, rc ? rc : loader_tell(&t->data.train, &c.pos, e), e)))
        return rc;
    return run_agree(t, checkpoint_write(output_path(&t->out, "checkpoint", path), &t->s, &c, e),
                     e);
}

enum err_code run_stopped(struct train *t, struct err *e)
{
    enum err_code rc = save(t, e);
    if (rc)
        return rc;
    log_line(&t->log, "stopped: signal step:%zu/%lld train_time:%.0fms", t->s.opt.step,
             (long long)t->m.r.iterations, run_elapsed(t));
    t->together = true;
    return err_set(e, ERR_RESOURCE, "stopped at step %zu, resume with --resume", t->s.opt.step);
}

enum err_code run_checkpoint(struct train *t, struct err *e)
{
    struct err why = {0};
    run_clock_pause(t);
    enum err_code rc = save(t, &why);
    if (rc && !t->together)
        return err_set(e, rc, "%s", why.msg);
    if (rc)
        log_line(&t->log, "checkpoint failed: %s", why.msg);
    run_clock_start(t);
    return ERR_OK;
}

/* ---- validation ---- */

static enum err_code score_sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    const struct train *t = ctx;
    (void)nll;
    (void)n;
    return run_wants_stop(t) ? err_set(e, ERR_RESOURCE, "stopped during validation") : ERR_OK;
}

static enum err_code score_gather(void *ctx, void *all, const void *mine, size_t bytes,
                                  struct err *e)
{
    return comm_gather(ctx, all, mine, bytes, e);
}

static void score_progress(void *ctx, size_t done, size_t all)
{
    struct train *t = ctx;
    if (log_progress_due(&t->log))
        log_progress(&t->log, "step %zu/%lld  validating %zu%%", t->s.opt.step,
                     (long long)t->m.r.iterations, 100 * done / (all ? all : 1));
}

enum err_code run_validate(struct train *t, const float *params, bool recur, struct score *sc,
                           double *ms, struct err *e)
{
    struct gpt m = t->m;
    if (!recur)
        m.r.recur_layers[0] = 0; /* scoring always has it: score another recipe's model */
    const struct score_share share = {
        .rank = t->c->rank, .ranks = t->c->size, .gather = score_gather, .ctx = t->c};
    struct score_opts o = {.mode = EVAL_PLAIN,
                           .max_tokens = (size_t)t->m.r.val_max_tokens,
                           .sink = score_sink,
                           .progress = score_progress,
                           .ctx = t,
                           .share = &share};
    struct err why = {0};
    double t0 = run_now_ms();
    bool stop;
    enum err_code rc =
        score_run(&m, t->k, params, t->data.val, t->data.nval, &t->data.bytes, &o, sc, &why);
    *ms = run_now_ms() - t0;
    if (!rc)
        return ERR_OK;
    if (!run_any(t, run_wants_stop(t), &stop, e)) {
        if (stop)
            return run_stopped(t, e);
        t->together = true;
    }
    return err_set(e, rc, "validation: %s", why.msg);
}
