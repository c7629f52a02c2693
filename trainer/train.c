/* train.c - see train.h. */
#include "trainer/train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "model/clock.h"
#include "model/score.h"
#include "trainer/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/init.h"
#include "trainer/log.h"
#include "trainer/output.h"
#include "trainer/plan.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

struct train {
    const struct train_opts *o;
    struct gpt m; /* m.r is the recipe, with MICRO_BATCH_TOKENS resolved */
    struct kern *k;
    struct plan plan;
    struct corpus data;
    struct step s;
    struct output out;
    struct log log;
    uint16_t *span;    /* one micro-batch and the token behind it */
    double elapsed_ms; /* training time up to `since` */
    double since;      /* ms; when the clock was last started, 0: it stands still */
    double began_ms;   /* elapsed_ms when this session began */
    size_t began_step;
    double last_loss; /* of the last finished step */
    struct train_result res;
};

/* ---- the clock of training time ---- */

static double now_ms(void)
{
    return 1e3 * seconds_now();
}

static double elapsed(const struct train *t)
{
    return t->elapsed_ms + (t->since > 0 ? now_ms() - t->since : 0);
}

static void clock_start(struct train *t)
{
    t->since = now_ms();
}

static void clock_pause(struct train *t)
{
    t->elapsed_ms = elapsed(t);
    t->since = 0;
}

/* ---- stopping ---- */

static bool wants_stop(const struct train *t)
{
    return t->o->stop && *t->o->stop;
}

static bool over_cap(const struct train *t)
{
    double cap_ms = 1e3 * t->m.r.max_wallclock_seconds;
    return cap_ms > 0 && elapsed(t) >= cap_ms;
}

static enum err_code save(struct train *t, struct err *e)
{
    struct checkpoint c = {.elapsed_ms = elapsed(t)};
    char path[OUTPUT_PATH];
    enum err_code rc = loader_tell(&t->data.train, &c.pos, e);
    return rc ? rc : checkpoint_write(output_path(&t->out, "checkpoint", path), &t->s, &c, e);
}

/* Write the checkpoint and turn the stop into the error that ends the run. */
static enum err_code stopped(struct train *t, struct err *e)
{
    enum err_code rc = save(t, e);
    if (rc)
        return rc;
    log_line(&t->log, "stopped: signal step:%zu/%lld train_time:%.0fms", t->s.opt.step,
             (long long)t->m.r.iterations, elapsed(t));
    return err_set(e, ERR_RESOURCE, "stopped at step %zu, resume with --resume", t->s.opt.step);
}

/* A checkpoint on the way. The run outlives a full disk: it says so and tries again next time. */
static void save_on_the_way(struct train *t)
{
    struct err why = {0};
    clock_pause(t);
    if (save(t, &why))
        log_line(&t->log, "checkpoint failed: %s", why.msg);
    clock_start(t);
}

/* ---- validation ---- */

static enum err_code score_sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    const struct train *t = ctx;
    (void)nll;
    (void)n;
    return wants_stop(t) ? err_set(e, ERR_RESOURCE, "stopped during validation") : ERR_OK;
}

static void score_progress(void *ctx, size_t done, size_t all)
{
    struct train *t = ctx;
    if (log_progress_due(&t->log))
        log_progress(&t->log, "step %zu/%lld  validating %zu%%", t->s.opt.step,
                     (long long)t->m.r.iterations, 100 * done / (all ? all : 1));
}

/* Plain validation of params (backend memory); *ms is the time it took. The training clock must
 * stand still. A signal ends it with a checkpoint. */
static enum err_code validate(struct train *t, const float *params, struct score *sc, double *ms,
                              struct err *e)
{
    struct score_opts o = {.mode = EVAL_PLAIN,
                           .max_tokens = (size_t)t->m.r.val_max_tokens,
                           .sink = score_sink,
                           .progress = score_progress,
                           .ctx = t};
    struct err why = {0};
    double t0 = now_ms();
    enum err_code rc =
        score_run(&t->m, t->k, params, t->data.val, t->data.nval, &t->data.bytes, &o, sc, &why);
    *ms = now_ms() - t0;
    if (rc && wants_stop(t))
        return stopped(t, e);
    return rc ? err_set(e, rc, "validation: %s", why.msg) : ERR_OK;
}

static enum err_code validate_step(struct train *t, struct err *e)
{
    struct score sc;
    double ms;
    size_t step = t->s.opt.step;
    clock_pause(t);
    enum err_code rc = validate(t, t->s.params, &sc, &ms, e);
    if (rc)
        return rc;
    t->res.val_loss = sc.val_loss;
    t->res.val_bpb = sc.val_bpb;
    log_line(&t->log, "step:%zu/%lld val_loss:%.4f val_bpb:%.4f train_time:%.0fms step_avg:%.2fms",
             step, (long long)t->m.r.iterations, sc.val_loss, sc.val_bpb, elapsed(t),
             elapsed(t) / (double)(step ? step : 1));
    clock_start(t);
    return ERR_OK;
}

/* ---- steps ---- */

static void show_progress(struct train *t, size_t micros_done)
{
    const struct recipe *r = &t->m.r;
    double done =
        (double)(t->s.opt.step - t->began_step) + (double)micros_done / (double)t->plan.micros;
    double ms = elapsed(t) - t->began_ms, cap_ms = 1e3 * r->max_wallclock_seconds;
    char eta[LOG_DURATION], loss[24] = "-";
    if (!log_progress_due(&t->log) || done <= 0 || ms <= 0)
        return;
    double left_ms = ((double)r->iterations - (double)t->began_step - done) * ms / done;
    if (cap_ms > 0 && cap_ms - elapsed(t) < left_ms)
        left_ms = cap_ms - elapsed(t);
    if (t->last_loss > 0)
        snprintf(loss, sizeof loss, "%.4f", t->last_loss);
    log_progress(&t->log, "step %zu/%lld  loss %s  %.0f tokens/s  %s left", t->s.opt.step,
                 (long long)r->iterations, loss, done * (double)r->train_batch_tokens / ms * 1e3,
                 log_duration(left_ms / 1e3, eta));
}

/* After a signal: would the rest of this step, of which `done` micro-batches took ms, take long? */
static bool give_up(const struct train *t, size_t done, double ms)
{
    double left_ms = ms / (double)done * (double)(t->plan.micros - done);
    return wants_stop(t) && left_ms > 1e3 * t->o->patience_s;
}

static enum err_code one_step(struct train *t, struct err *e)
{
    struct step_stats st;
    struct loader_pos before;
    size_t n = t->s.batch * t->s.t, step = t->s.opt.step;
    double began = elapsed(t), lr = schedule_lr(&t->m.r, step, began);
    enum err_code rc = loader_tell(&t->data.train, &before, e);
    if (rc)
        return rc;
    step_begin(&t->s);
    for (size_t i = 1; i <= t->plan.micros; i++) {
        if ((rc = loader_take(&t->data.train, t->span, n + 1, e)) ||
            (rc = step_micro(&t->s, t->span, t->span + 1, e)))
            return rc;
        show_progress(t, i);
        if (give_up(t, i, elapsed(t) - began)) {
            clock_pause(t);
            rc = loader_seek(&t->data.train, &before, e);
            return rc ? rc : stopped(t, e);
        }
    }
    if ((rc = step_end(&t->s, lr, schedule_momentum(&t->m.r, step), &st, e)))
        return rc;
    t->last_loss = t->res.train_loss = st.loss;
    return ERR_OK;
}

static void log_step(struct train *t)
{
    size_t step = t->s.opt.step;
    int64_t every = t->m.r.train_log_every;
    if (every > 0 && (step <= 10 || step % (size_t)every == 0 || over_cap(t)))
        log_line(&t->log, "step:%zu/%lld train_loss:%.4f train_time:%.0fms step_avg:%.2fms", step,
                 (long long)t->m.r.iterations, t->last_loss, elapsed(t), elapsed(t) / (double)step);
}

static enum err_code loop(struct train *t, struct err *e)
{
    const struct recipe *r = &t->m.r;
    enum err_code rc;
    clock_start(t);
    for (;;) {
        size_t step = t->s.opt.step;
        bool capped = step > 0 && over_cap(t), last = step >= (size_t)r->iterations || capped;
        if (last || (r->val_loss_every > 0 && step % (size_t)r->val_loss_every == 0))
            if ((rc = validate_step(t, e)))
                return rc;
        if (last) {
            clock_pause(t);
            if (capped && step < (size_t)r->iterations)
                log_line(&t->log, "stopping_early: wallclock_cap train_time:%.0fms step:%zu/%lld",
                         elapsed(t), step, (long long)r->iterations);
            return ERR_OK;
        }
        if ((rc = one_step(t, e)))
            return rc;
        log_step(t);
        if (wants_stop(t)) {
            clock_pause(t);
            return stopped(t, e);
        }
        if (r->checkpoint_every > 0 && t->s.opt.step % (size_t)r->checkpoint_every == 0)
            save_on_the_way(t);
    }
}

/* ---- the end of a run ---- */

static void log_speed(struct train *t)
{
    const double *s = t->s.seconds;
    double steps = (double)(t->s.opt.step - t->began_step);
    double tokens = steps * (double)t->m.r.train_batch_tokens;
    double ms = elapsed(t) - t->began_ms, all = 1e-5 * ms; /* percent */
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    log_line(&t->log, "peak memory: %ld MiB", u.ru_maxrss / 1024);
    if (!(tokens > 0 && ms > 0))
        return;
    t->res.tokens_per_second = tokens / ms * 1e3;
    log_line(
        &t->log,
        "speed: tokens_per_s:%.0f forward:%.1f%% backward:%.1f%% optimiser:%.1f%% other:%.1f%%",
        t->res.tokens_per_second, s[PHASE_FORWARD] / all, s[PHASE_BACKWARD] / all,
        s[PHASE_OPTIMISER] / all,
        100 - (s[PHASE_FORWARD] + s[PHASE_BACKWARD] + s[PHASE_OPTIMISER]) / all);
}

/* The weights as they will be used, quantised and read back: from host through the gradient block,
 * which nobody needs any more, so that a checkpoint can still be written. */
static enum err_code roundtrip(struct train *t, float *host, struct err *e)
{
    struct score sc;
    double ms;
    long long bits = (long long)t->m.r.quant_bits;
    enum err_code rc;
    if ((rc = output_reload(&t->out, &t->m, host, e)))
        return rc;
    t->k->upload(t->k, t->s.grads, host, t->m.floats * sizeof *host);
    if ((rc = validate(t, t->s.grads, &sc, &ms, e)))
        return rc;
    log_line(&t->log, "final_int%lld_roundtrip val_loss:%.4f val_bpb:%.4f eval_time:%.0fms", bits,
             sc.val_loss, sc.val_bpb, ms);
    log_line(&t->log, "final_int%lld_roundtrip_exact val_loss:%.8f val_bpb:%.8f", bits, sc.val_loss,
             sc.val_bpb);
    t->res.quant_loss = sc.val_loss;
    t->res.quant_bpb = sc.val_bpb;
    return ERR_OK;
}

static enum err_code write_weights(struct train *t, float *host, struct err *e)
{
    struct output_facts facts = {.c = &t->data,
                                 .step = t->s.opt.step,
                                 .train_ms = elapsed(t),
                                 .val_loss = t->res.val_loss,
                                 .val_bpb = t->res.val_bpb};
    struct quant_report q = {0};
    t->k->download(t->k, host, t->s.ema ? t->s.ema : t->s.params, t->m.floats * sizeof *host);
    enum err_code rc = t->k->sync(t->k, e);
    if (rc || (rc = output_weights(&t->out, &t->m, host, &facts, &q, e)))
        return rc;
    log_line(&t->log, "Serialized model: %llu bytes", output_size(&t->out, "model.safetensors"));
    log_line(&t->log, "Serialized model int%lld+safetensors: %llu bytes",
             (long long)t->m.r.quant_bits, output_size(&t->out, "model.quant.safetensors"));
    log_line(&t->log, "quantised: %.3f bits per weight, order-0 estimate %.0f bytes",
             8.0 * q.coded_bytes / (double)t->m.floats, q.coded_bytes);
    quant_report_free(&q);
    return ERR_OK;
}

static enum err_code finish(struct train *t, struct err *e)
{
    size_t bytes = t->m.floats * sizeof(float);
    struct score sc;
    double ms;
    float *host = NULL;
    enum err_code rc;
    log_speed(t);
    if (t->m.r.checkpoint_every > 0)
        save_on_the_way(t);
    clock_pause(t);
    if ((rc = step_check(&t->s, e)))
        return rc;
    if (t->s.ema) {
        if ((rc = validate(t, t->s.ema, &sc, &ms, e)))
            return rc;
        t->res.val_loss = sc.val_loss;
        t->res.val_bpb = sc.val_bpb;
        log_line(&t->log, "pre-quantization post-ema val_loss:%.8f val_bpb:%.8f eval_time:%.0fms",
                 sc.val_loss, sc.val_bpb, ms);
    }
    host = malloc(bytes);
    if (!host)
        return err_nomem(e, "weights to save", bytes);
    if (!(rc = write_weights(t, host, e)))
        rc = roundtrip(t, host, e);
    free(host);
    return rc;
}

/* ---- the beginning of a run ---- */

static enum err_code open_backend(struct kern **k, const struct train_opts *o, struct err *e)
{
    if (strcmp(o->device, "cuda") == 0)
        return kern_cuda(k, 0, e);
    if (strcmp(o->device, "cpu") != 0)
        return err_set(e, ERR_USAGE, "--device %s: expected cpu or cuda", o->device);
    return kern_cpu(k, o->threads, e);
}

static void log_head(struct train *t)
{
    const struct recipe *r = &t->m.r;
    char text[OUTPUT_RECIPE], run[RECIPE_STR];
    snprintf(run, sizeof run, "%s", r->run_id);
    if (!run[0])
        snprintf(run, sizeof run, "%.200s-%lld", t->o->name, (long long)r->seed);
    log_line(&t->log, "run:%s", run);
    recipe_print(r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text,
                 sizeof text);
    log_detail(&t->log, "Hyperparameters:");
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        log_detail(&t->log, "  %.*s", (int)(end - line), line);
    log_line(&t->log, "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=%s",
             t->data.tokenizer);
    log_line(&t->log, "train_loader:dataset:%s train_shards:%zu", r->data_path,
             t->data.train.list.count);
    log_line(&t->log, "val_loader:shards pattern=%s/*_val_*.bin tokens:%zu", r->data_path,
             t->data.nval - 1);
    log_line(&t->log, "model_params:%zu", t->m.floats);
    log_line(&t->log, "world_size:1 grad_accum_steps:%zu", t->plan.micros);
    log_line(&t->log, "device:%s", t->k->name);
    log_line(&t->log, "attention_mode:gqa num_heads:%lld num_kv_heads:%lld",
             (long long)r->num_heads, (long long)r->num_kv_heads);
    log_line(&t->log, "tie_embeddings:%lld embed_lr:%g head_lr:%g matrix_lr:%g scalar_lr:%g",
             (long long)r->tie_embeddings, r->tie_embeddings ? r->tied_embed_lr : r->embed_lr,
             r->tie_embeddings ? 0.0 : r->head_lr, r->matrix_lr, r->scalar_lr);
    log_line(&t->log,
             "train_batch_tokens:%lld train_seq_len:%lld iterations:%lld warmup_steps:0 "
             "max_wallclock_seconds:%.3f",
             (long long)r->train_batch_tokens, (long long)r->train_seq_len,
             (long long)r->iterations, r->max_wallclock_seconds);
    log_line(&t->log, "seed:%lld", (long long)r->seed);
}

static enum err_code start_weights(struct train *t, struct err *e)
{
    struct checkpoint c;
    char path[OUTPUT_PATH];
    enum err_code rc;
    if (t->o->resume) {
        output_path(&t->out, "checkpoint", path);
        if ((rc = checkpoint_read(path, &t->s, &c, e)) ||
            (rc = loader_seek(&t->data.train, &c.pos, e)))
            return rc;
        t->elapsed_ms = t->began_ms = c.elapsed_ms;
        t->began_step = t->s.opt.step;
        return ERR_OK;
    }
    size_t bytes = t->m.floats * sizeof(float);
    float *host = malloc(bytes);
    if (!host)
        return err_nomem(e, "initial weights", bytes);
    if (!(rc = init_params(&t->m, host, e)))
        step_set(&t->s, host);
    free(host);
    return rc;
}

/* Disk that a run needs: the weights as floats and, bounded from above, quantised; the checkpoint
 * twice, because the old one stays until the new one is whole. */
static unsigned long long disk_need(const struct train *t)
{
    unsigned long long block = t->m.floats * sizeof(float), need = 2 * block + (1 << 20);
    if (t->m.r.checkpoint_every > 0)
        need += 2 * block * (t->m.r.ema_decay > 0 ? 4 : 3);
    return need;
}

static enum err_code prepare(struct train *t, const struct recipe *r, struct err *e)
{
    char path[OUTPUT_PATH];
    enum err_code rc;
    if ((rc = open_backend(&t->k, t->o, e)) || (rc = gpt_init(&t->m, r, e)) ||
        (rc = plan_make(&t->plan, &t->m, t->k, e)) || (rc = corpus_open(&t->data, r, e)) ||
        (rc = output_open(&t->out, t->o->out, disk_need(t), e)) ||
        (rc = step_init(&t->s, t->k, &t->m, t->plan.micro_seqs, e)))
        return rc;
    t->span = malloc((t->s.batch * t->s.t + 1) * sizeof *t->span);
    if (!t->span)
        return err_nomem(e, "tokens", (t->s.batch * t->s.t + 1) * sizeof *t->span);
    if ((rc = start_weights(t, e)) ||
        (rc = log_open(&t->log, output_path(&t->out, "train.log", path), t->o->resume, t->o->quiet,
                       e)))
        return rc;
    log_head(t);
    if (t->o->resume)
        log_line(&t->log, "resumed: step:%zu train_time:%.0fms", t->s.opt.step, t->elapsed_ms);
    return ERR_OK;
}

enum err_code train_run(const struct recipe *r, const struct train_opts *o,
                        struct train_result *res, struct err *e)
{
    struct train *t = calloc(1, sizeof *t);
    enum err_code rc;
    if (!t)
        return err_nomem(e, "trainer", sizeof *t);
    t->o = o;
    if (!(rc = prepare(t, r, e)) && !(rc = loop(t, e)))
        rc = finish(t, e);
    t->res.step = t->s.opt.step;
    if (res)
        *res = t->res;
    /* A failure is recorded in the log too: a log that just ends leaves its reader guessing. */
    if (rc && e)
        log_detail(&t->log, "error: %s", e->msg);
    enum err_code log_rc = log_close(&t->log, rc ? NULL : e);
    free(t->span);
    step_free(&t->s);
    corpus_close(&t->data);
    gpt_free(&t->m);
    kern_free(t->k);
    free(t);
    return rc ? rc : log_rc;
}

enum err_code train_describe(const struct recipe *r, const struct train_opts *o, FILE *f,
                             struct err *e)
{
    struct gpt m = {0};
    struct plan p;
    struct kern *k = NULL;
    enum err_code rc;
    if (!(rc = open_backend(&k, o, e)) && !(rc = gpt_init(&m, r, e)) &&
        !(rc = plan_make(&p, &m, k, e)))
        plan_print(&p, &m, f);
    gpt_free(&m);
    kern_free(k);
    return rc;
}
