/* run.c - see run.h. */
#include "trainer/run.h"

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

/* ---- stopping ---- */

bool run_wants_stop(const struct train *t)
{
    return t->o->stop && *t->o->stop;
}

bool run_over_cap(const struct train *t)
{
    double cap_ms = schedule_cap_ms(&t->m.r);
    return cap_ms > 0 && run_elapsed(t) >= cap_ms;
}

static enum err_code save(struct train *t, struct err *e)
{
    struct checkpoint c = {.elapsed_ms = run_elapsed(t)};
    char path[OUTPUT_PATH];
    enum err_code rc = loader_tell(&t->data.train, &c.pos, e);
    return rc ? rc : checkpoint_write(output_path(&t->out, "checkpoint", path), &t->s, &c, e);
}

enum err_code run_stopped(struct train *t, struct err *e)
{
    enum err_code rc = save(t, e);
    if (rc)
        return rc;
    log_line(&t->log, "stopped: signal step:%zu/%lld train_time:%.0fms", t->s.opt.step,
             (long long)t->m.r.iterations, run_elapsed(t));
    return err_set(e, ERR_RESOURCE, "stopped at step %zu, resume with --resume", t->s.opt.step);
}

void run_checkpoint(struct train *t)
{
    struct err why = {0};
    run_clock_pause(t);
    if (save(t, &why))
        log_line(&t->log, "checkpoint failed: %s", why.msg);
    run_clock_start(t);
}

/* ---- validation ---- */

static enum err_code score_sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    const struct train *t = ctx;
    (void)nll;
    (void)n;
    return run_wants_stop(t) ? err_set(e, ERR_RESOURCE, "stopped during validation") : ERR_OK;
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
    struct score_opts o = {.mode = EVAL_PLAIN,
                           .max_tokens = (size_t)t->m.r.val_max_tokens,
                           .sink = score_sink,
                           .progress = score_progress,
                           .ctx = t};
    struct err why = {0};
    double t0 = run_now_ms();
    enum err_code rc =
        score_run(&m, t->k, params, t->data.val, t->data.nval, &t->data.bytes, &o, sc, &why);
    *ms = run_now_ms() - t0;
    if (rc && run_wants_stop(t))
        return run_stopped(t, e);
    return rc ? err_set(e, rc, "validation: %s", why.msg) : ERR_OK;
}
