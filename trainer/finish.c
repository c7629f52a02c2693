/* finish.c - the end of a run: the weights that it comes to, written, quantised, read back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "trainer/calib.h"
#include "trainer/rd.h"
#include "trainer/run.h"

/* What the log calls the quantised model: "int6" as the records' logs do, or "rd". */
static const char *kind_of(const struct recipe *r, char buf[32])
{
    if (rd_wanted(r))
        return "rd";
    snprintf(buf, 32, "int%lld", (long long)r->quant_bits);
    return buf;
}

/* What this rank sent and received since the job began, and how long it waited for that: divided by
 * the steps, although the first weights and checkpoints are among it. */
static void log_comm(struct train *t, double steps)
{
    if (t->c->size > 1 && steps > 0)
        log_line(&t->log,
                 "comm: per step and rank sent:%.0f received:%.0f bytes waited:%.3fms; state of "
                 "%zu of %zu parameters",
                 (double)t->c->sent / steps, (double)t->c->received / steps,
                 1e3 * t->c->waited_s / steps, t->s.opt.p.floats, t->m.floats);
}

static void log_speed(struct train *t)
{
    const double *s = t->s.seconds;
    double steps = (double)(t->s.opt.step - t->began_step);
    double tokens = steps * (double)t->m.r.train_batch_tokens;
    double ms = run_elapsed(t) - t->began_ms, all = 1e-5 * ms; /* percent */
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    log_line(&t->log, "peak memory: %ld MiB", u.ru_maxrss / 1024);
    log_comm(t, steps);
    if (!(tokens > 0 && ms > 0))
        return;
    t->res.tokens_per_second = tokens / ms * 1e3;
    if (t->k->record) { /* everything is queued: what the host waits for says nothing */
        const struct whole *w = &t->s.whole;
        size_t micros = w->on ? t->s.micros : 1; /* of a tape */
        log_line(&t->log, "speed: tokens_per_s:%.0f; %zu of %zu micro-batches played from a tape%s",
                 t->res.tokens_per_second, micros * (w->on ? w->played : t->s.g.played),
                 micros * (w->on ? w->steps : t->s.g.trained), w->on ? ", whole steps" : "");
        return;
    }
    log_line(
        &t->log,
        "speed: tokens_per_s:%.0f forward:%.1f%% backward:%.1f%% optimiser:%.1f%% other:%.1f%%",
        t->res.tokens_per_second, s[PHASE_FORWARD] / all, s[PHASE_BACKWARD] / all,
        s[PHASE_OPTIMISER] / all,
        100 - (s[PHASE_FORWARD] + s[PHASE_BACKWARD] + s[PHASE_OPTIMISER]) / all);
}

/* The weights as they will be used, quantised and read back: from rank 0's host through the
 * gradient block, as in final_weights. */
static enum err_code roundtrip(struct train *t, float *host, struct err *e)
{
    struct score sc;
    double ms;
    char buf[32];
    const char *kind = kind_of(&t->m.r, buf);
    enum err_code rc = ERR_OK;
    if (t->c->rank == 0 && !(rc = output_reload(&t->out, &t->m, host, e))) {
        t->k->upload(t->k, t->s.grads, host, t->m.floats * sizeof *host);
        rc = t->k->sync(t->k, e);
    }
    if ((rc = run_agree(t, rc, e)) ||
        (rc = spread_same(&t->s.spread, t->s.grads, t->m.floats, e)) ||
        (rc = run_validate(t, t->s.grads, true, &sc, &ms, e)))
        return rc;
    log_line(&t->log, "final_%s_roundtrip val_loss:%.4f val_bpb:%.4f eval_time:%.0fms", kind,
             sc.val_loss, sc.val_bpb, ms);
    log_line(&t->log, "final_%s_roundtrip_exact val_loss:%.8f val_bpb:%.8f", kind, sc.val_loss,
             sc.val_bpb);
    t->res.quant_loss = sc.val_loss;
    t->res.quant_bpb = sc.val_bpb;
    return ERR_OK;
}

/* The next calibration batch, unless a signal came. */
static enum err_code take_calibration(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    struct train *t = ctx;
    return run_wants_stop(t) ? err_set(e, ERR_RESOURCE, "stopped during calibration")
                             : calib_take(&t->data.train, ids, n, e);
}

static void quant_progress(void *ctx, const char *what, size_t done, size_t all)
{
    struct train *t = ctx;
    if (log_progress_due(&t->log))
        log_progress(&t->log, "step %zu/%lld  %s %zu%%", t->s.opt.step,
                     (long long)t->m.r.iterations, what, 100 * done / (all ? all : 1));
}

static void log_calibration(struct train *t, double ms)
{
    const struct recipe *r = &t->m.r;
    if (rd_wanted(r))
        log_line(&t->log,
                 "rd:calibrated with %lld tokens, divergences of %lld tokens, quantised in %.1fs",
                 (long long)r->rd_calib_tokens, (long long)r->rd_kl_tokens, ms / 1e3);
    else if (quant_needs_data(r))
        log_line(&t->log, "gptq:calibrated with %lld batches of %lld tokens in %.1fs",
                 (long long)r->gptq_calib_batches, (long long)r->gptq_batch_tokens, ms / 1e3);
}

/* What QUANTIZER=rd came to. The trainer has no coder: its size is an estimate. */
static void log_fit(struct train *t, const struct rd_report *d)
{
    log_line(&t->log,
             "rd:divergence:%.6f weights:%llu bits:%.3f file:%llu bytes (estimate) target:%llu%s",
             d->kl, (unsigned long long)d->numel, d->bits, (unsigned long long)d->bytes,
             (unsigned long long)d->target, d->finest ? " cannot be finer" : "");
    log_line(&t->log, "filling the file to the byte is left to packer quantize");
}

/* All files; calibrated where the recipe says so. The stream of training data is put back: a run
 * that is stopped here resumes from where training ended. */
static enum err_code output(struct train *t, const float *host, struct output_facts *facts,
                            struct quant_report *q, struct err *e)
{
    struct calib calib = {.k = t->k, .take = take_calibration, .ctx = t};
    struct quant_with with = {.calib = &calib};
    struct loader_pos before;
    double t0 = run_now_ms();
    enum err_code rc = loader_tell(&t->data.train, &before, e);
    if (rc)
        return rc;
    calib.progress = quant_progress;
    calib.progress_ctx = t;
    facts->with = &with;
    if (quant_needs_data(&t->m.r) && !strcmp(t->m.r.gptq_data, "first"))
        loader_restart(&t->data.train);
    rc = output_weights(&t->out, &t->m, host, facts, q, e);
    enum err_code seek = loader_seek(&t->data.train, &before, e);
    if (!rc && !seek)
        log_calibration(t, run_now_ms() - t0);
    return rc ? rc : seek;
}

static void log_files(struct train *t, const struct quant_report *q)
{
    char kind[32];
    log_line(&t->log, "Serialized model: %llu bytes", output_size(&t->out, "model.safetensors"));
    log_line(&t->log, "Serialized model %s+safetensors: %llu bytes", kind_of(&t->m.r, kind),
             output_size(&t->out, "model.quant.safetensors"));
    log_line(&t->log, "quantised: %.3f bits per weight, order-0 estimate %.0f bytes",
             8.0 * q->coded_bytes / (double)t->m.floats, q->coded_bytes);
    if (rd_wanted(&t->m.r))
        log_fit(t, &q->rd);
    if (q->prune_left_out)
        log_line(&t->log, "pruning to %lld bytes is left to packer quantize",
                 (long long)t->m.r.prune_target_bytes);
}

/* Rank 0 writes, while the others wait. */
static enum err_code write_weights(struct train *t, float *host, struct err *e)
{
    struct output_facts facts = {.c = &t->data,
                                 .step = t->s.opt.step,
                                 .train_ms = run_elapsed(t),
                                 .val_loss = t->res.val_loss,
                                 .val_bpb = t->res.val_bpb};
    struct quant_report q = {0};
    struct err why = {0};
    bool stop;
    enum err_code rc = ERR_OK, any;
    if (t->c->rank == 0) {
        t->k->download(t->k, host, t->s.grads, t->m.floats * sizeof *host);
        if (!(rc = t->k->sync(t->k, &why)) && !(rc = output(t, host, &facts, &q, &why)))
            log_files(t, &q);
    }
    quant_report_free(&q);
    if ((any = run_any(t, rc && run_wants_stop(t), &stop, e)))
        return any;
    if (stop)
        return run_stopped(t, e);
    return run_agree(t, rc ? err_set(e, rc, "%s", why.msg) : ERR_OK, e);
}

/* The weights to be saved into the gradient block, which nobody needs any more, so that a
 * checkpoint can still be written; validated when they are not those of the last validation. */
static enum err_code final_weights(struct train *t, struct err *e)
{
    static const char *const name[] = {
        [STEP_WEIGHTS] = "weights", [STEP_EMA] = "ema", [STEP_SWA] = "swa"};
    struct score sc;
    double ms;
    enum step_source from;
    bool recur = t->m.r.recur_layers[0] != 0;
    enum err_code rc = step_final(&t->s, &from, e);
    if (rc)
        return rc;
    if (t->m.r.swa_enabled)
        log_line(&t->log, "swa:%s %zu snapshots", from == STEP_SWA ? "averaged" : "not applied,",
                 t->s.snapshots);
    if (recur && !t->s.recur)
        log_line(&t->log, "recurrence:activated for evaluation, training ended before step:%lld",
                 (long long)t->m.r.recur_start_step);
    if (from == STEP_WEIGHTS && recur == t->s.recur)
        return ERR_OK;
    if ((rc = run_validate(t, t->s.grads, true, &sc, &ms, e)))
        return rc;
    t->res.val_loss = sc.val_loss;
    t->res.val_bpb = sc.val_bpb;
    log_line(&t->log, "pre-quantization post-%s val_loss:%.8f val_bpb:%.8f eval_time:%.0fms",
             name[from], sc.val_loss, sc.val_bpb, ms);
    return ERR_OK;
}

enum err_code run_finish(struct train *t, struct err *e)
{
    size_t bytes = t->m.floats * sizeof(float);
    float *host = NULL;
    enum err_code rc;
    log_speed(t);
    if (t->m.r.checkpoint_every > 0 && (rc = run_checkpoint(t, e)))
        return rc;
    run_clock_pause(t);
    if ((rc = run_agree(t, step_check(&t->s, e), e)) || (rc = final_weights(t, e)))
        return rc;
    if (t->c->rank == 0 && !(host = malloc(bytes)))
        rc = err_nomem(e, "weights to save", bytes);
    if (!(rc = run_agree(t, rc, e)) && !(rc = write_weights(t, host, e)))
        rc = roundtrip(t, host, e);
    free(host);
    return rc;
}
