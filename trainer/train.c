/* train.c - see train.h: the beginning of a run and its steps. The end is finish.c's. */
#include "trainer/train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/checkpoint.h"
#include "trainer/hash.h"
#include "trainer/init.h"
#include "trainer/run.h"
#include "trainer/same.h"
#include "trainer/schedule.h"

/* ---- steps ---- */

static enum err_code validate_step(struct train *t, struct err *e)
{
    struct score sc;
    double ms;
    size_t step = t->s.opt.step;
    /* An update that is still queued is training time. */
    enum err_code rc = run_agree(t, t->k->sync(t->k, e), e);
    run_clock_pause(t);
    if (rc || (rc = run_validate(t, t->s.params, t->s.recur, &sc, &ms, e)))
        return rc;
    t->res.val_loss = sc.val_loss;
    t->res.val_bpb = sc.val_bpb;
    log_line(&t->log, "step:%zu/%lld val_loss:%.4f val_bpb:%.4f train_time:%.0fms step_avg:%.2fms",
             step, (long long)t->m.r.iterations, sc.val_loss, sc.val_bpb, run_elapsed(t),
             run_elapsed(t) / (double)(step ? step : 1));
    run_clock_start(t);
    return ERR_OK;
}

static void show_progress(struct train *t, size_t micros_done)
{
    const struct recipe *r = &t->m.r;
    double done = (double)(t->s.opt.step - t->began_step) +
                  (double)micros_done / (double)t->s.reduce.mine.micro.count;
    double ms = run_elapsed(t) - t->began_ms, cap_ms = schedule_cap_ms(r);
    char eta[LOG_DURATION], loss[24] = "-";
    if (!log_progress_due(&t->log) || done <= 0 || ms <= 0)
        return;
    double left_ms = ((double)r->iterations - (double)t->began_step - done) * ms / done;
    if (cap_ms > 0 && cap_ms - run_elapsed(t) < left_ms)
        left_ms = cap_ms - run_elapsed(t);
    if (t->last_loss > 0)
        snprintf(loss, sizeof loss, "%.4f", t->last_loss);
    log_progress(&t->log, "step %zu/%lld  loss %s  %.0f tokens/s  %s left", t->s.opt.step,
                 (long long)r->iterations, loss, done * (double)r->train_batch_tokens / ms * 1e3,
                 log_duration(left_ms / 1e3, eta));
}

/* After a signal: would the rest of this step, of which `done` micro-batches took ms, take long? */
static bool give_up(const struct train *t, size_t done, double ms)
{
    double left_ms = ms / (double)done * (double)(t->s.reduce.mine.micro.count - done);
    return run_wants_stop(t) && left_ms > 1e3 * t->o->patience_s;
}

/* Forward and backward of this rank's micro-batches of a step, unless it gives up. All ranks walk
 * through the data in the same order. */
static enum err_code micro_batches(struct train *t, unsigned *trouble, struct err *e)
{
    size_t n = t->s.batch * t->s.t;
    struct split_range own = t->s.reduce.mine.micro;
    double began = run_now_ms();
    enum err_code rc = loader_skip(&t->data.train, t->s.batch, own.from, e);
    for (size_t i = 1; i <= own.count && !rc && !*trouble; i++) {
        if ((rc = loader_next(&t->data.train, t->tokens, t->tokens + n, t->s.batch, e)) ||
            (rc = step_micro(&t->s, t->tokens, t->tokens + n, e)))
            break;
        show_progress(t, i);
        if (give_up(t, i, run_now_ms() - began))
            *trouble = STEP_GIVEN_UP;
    }
    if (!rc && !*trouble)
        rc = loader_skip(&t->data.train, t->s.batch, t->plan.micros - own.from - own.count, e);
    return rc;
}

/* While the device works on a step: the tokens of the next one. If they cannot be had the next step
 * will say so. */
static void look_ahead(struct train *t)
{
    struct err ignored = {0};
    unsigned trouble = 0;
    if (loader_tell(&t->data.train, &t->ahead_from, &ignored))
        return;
    t->ahead = true;
    if (micro_batches(t, &trouble, &ignored) || trouble) {
        step_begin(&t->s);
        run_rewind(t, &ignored);
    }
}

/* A whole step on all ranks. When one of them gave up, *given_up is true, nothing was updated and
 * the data are where they were before. */
static enum err_code take_step(struct train *t, double lr, double momentum, bool *given_up,
                               struct step_stats *st, struct err *e)
{
    struct loader_pos before;
    unsigned trouble = 0;
    enum err_code rc = ERR_OK, end;
    if (!t->ahead) {
        step_begin(&t->s);
        if (!(rc = loader_tell(&t->data.train, &before, e)))
            rc = micro_batches(t, &trouble, e);
    }
    t->ahead = false;
    if (!rc && !trouble && step_start(&t->s, lr, momentum))
        look_ahead(t);
    end = step_end(&t->s, lr, momentum, rc ? STEP_FAILED : trouble, st, e);
    if (!rc)
        rc = end;
    if (rc || (st->trouble & STEP_FAILED))
        return run_agree(t, rc, e);
    *given_up = st->trouble & STEP_GIVEN_UP;
    return *given_up ? run_agree(t, loader_seek(&t->data.train, &before, e), e) : ERR_OK;
}

static enum err_code one_step(struct train *t, struct err *e)
{
    const struct recipe *r = &t->m.r;
    struct step_stats st;
    size_t step = t->s.opt.step;
    double ms = t->beat_ms, warmdown = schedule_warmdown(r, step, ms);
    double lr = schedule_lr(r, step, ms);
    bool given_up;
    if (t->s.quant && !t->s.qat && schedule_qat(r, warmdown)) {
        t->s.qat = true;
        log_line(&t->log, "late_qat:enabled step:%zu scale:%.4f", step, warmdown);
    }
    enum err_code rc = take_step(t, lr, schedule_momentum(r, step), &given_up, &st, e);
    if (rc)
        return rc;
    if (given_up) {
        run_clock_pause(t);
        return run_stopped(t, e);
    }
    t->last_loss = t->res.train_loss = st.loss;
    if (schedule_swa(r, t->s.opt.step, warmdown)) {
        step_snapshot(&t->s);
        if (t->s.snapshots == 1)
            log_line(&t->log, "swa:start step:%zu", t->s.opt.step);
    }
    return ERR_OK;
}

/* Plan the graph as step number `step` needs it; from RECUR_START_STEP on that is another one. */
static enum err_code recurrence(struct train *t, size_t step, struct err *e)
{
    bool on = schedule_recur(&t->m.r, step);
    if (on == t->s.recur)
        return ERR_OK;
    log_line(&t->log, "recurrence:activated step:%zu layers:%s", step, t->m.r.recur_layers);
    return run_agree(t, step_recur(&t->s, on, e), e);
}

/*
 * WARMUP_STEPS whole steps at full rate on real data, then everything as it was before. The
 * reference fills the compiler's caches that way; here the pages of all blocks are touched and the
 * shards checked before the clock starts.
 */
static enum err_code warm_up(struct train *t, struct err *e)
{
    size_t n = (size_t)t->m.r.warmup_steps, bytes = t->m.floats * sizeof(float);
    struct loader_pos before;
    struct step_stats st;
    bool given_up = false;
    float *host = malloc(bytes);
    enum err_code rc = host ? ERR_OK : err_nomem(e, "weights before the warmup", bytes);
    if (host)
        t->k->download(t->k, host, t->s.params, bytes);
    if (!rc && !(rc = t->k->sync(t->k, e)))
        rc = loader_tell(&t->data.train, &before, e);
    if ((rc = run_agree(t, rc, e)))
        goto out;
    for (size_t i = 1; i <= n && !given_up && !t->stop; i++) {
        if ((rc = take_step(t, 1, schedule_momentum(&t->m.r, i - 1), &given_up, &st, e)) ||
            (rc = run_beat(t, e)))
            goto out;
        if (!given_up && (n <= 20 || i % 10 == 0 || i == n))
            log_line(&t->log, "warmup_step:%zu/%zu", i, n);
    }
    t->ahead = false;
    step_set(&t->s, host);
    memset(t->s.seconds, 0, sizeof t->s.seconds);
    if (!(rc = run_agree(t, loader_seek(&t->data.train, &before, e), e)) && (t->stop || given_up))
        rc = run_stopped(t, e);
out:
    free(host);
    return rc;
}

static void log_step(struct train *t)
{
    size_t step = t->s.opt.step;
    int64_t every = t->m.r.train_log_every;
    if (every > 0 && (step <= 10 || step % (size_t)every == 0 || run_over_cap(t)))
        log_line(&t->log, "step:%zu/%lld train_loss:%.4f train_time:%.0fms step_avg:%.2fms", step,
                 (long long)t->m.r.iterations, t->last_loss, run_elapsed(t),
                 run_elapsed(t) / (double)step);
}

/* After a step: what is logged, and whether to go on. */
static enum err_code between_steps(struct train *t, struct err *e)
{
    const struct recipe *r = &t->m.r;
    enum err_code rc = run_beat(t, e);
    if (rc)
        return rc;
    log_step(t);
    if (t->stop) {
        run_clock_pause(t);
        return run_stopped(t, e);
    }
    if (r->checkpoint_every > 0 && t->s.opt.step % (size_t)r->checkpoint_every == 0)
        return run_checkpoint(t, e);
    return ERR_OK;
}

static enum err_code loop(struct train *t, struct err *e)
{
    const struct recipe *r = &t->m.r;
    enum err_code rc = run_beat(t, e);
    if (rc || (!t->o->resume && r->warmup_steps > 0 && (rc = warm_up(t, e))))
        return rc;
    run_clock_start(t);
    for (;;) {
        size_t step = t->s.opt.step;
        bool capped = step > 0 && run_over_cap(t), last = step >= (size_t)r->iterations || capped;
        /* The last validation is of the model as its last step was. */
        if ((rc = recurrence(t, step - (last && step), e)))
            return rc;
        if (last || (r->val_loss_every > 0 && step % (size_t)r->val_loss_every == 0))
            if ((rc = validate_step(t, e)))
                return rc;
        if (last) {
            run_clock_pause(t);
            if (capped && step < (size_t)r->iterations)
                log_line(&t->log, "stopping_early: wallclock_cap train_time:%.0fms step:%zu/%lld",
                         run_elapsed(t), step, (long long)r->iterations);
            return run_rewind(t, e);
        }
        if ((rc = one_step(t, e)) || (rc = between_steps(t, e)))
            return rc;
    }
}

/* ---- the beginning of a run ---- */

static enum err_code open_backend(struct kern **k, const struct train_opts *o, struct err *e)
{
    if (strcmp(o->device, "cuda") == 0)
        return kern_cuda(k, o->comm ? (int)o->comm->local_rank : 0, e);
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
    log_line(&t->log, "world_size:%zu grad_accum_steps:%zu", t->c->size,
             t->s.reduce.mine.micro.count);
    if (t->c->size > 1)
        log_line(&t->log, "comm:%s ranks:%zu gradients:%zu", t->c->name, t->c->size,
                 t->plan.groups);
    log_line(&t->log, "device:%s", t->k->name);
    log_line(&t->log, "attention_mode:gqa num_heads:%lld num_kv_heads:%lld",
             (long long)r->num_heads, (long long)r->num_kv_heads);
    log_line(&t->log, "tie_embeddings:%lld embed_lr:%g head_lr:%g matrix_lr:%g scalar_lr:%g",
             (long long)r->tie_embeddings, r->tie_embeddings ? r->tied_embed_lr : r->embed_lr,
             r->tie_embeddings ? 0.0 : r->head_lr, r->matrix_lr, r->scalar_lr);
    log_line(&t->log,
             "train_batch_tokens:%lld train_seq_len:%lld iterations:%lld warmup_steps:%lld "
             "max_wallclock_seconds:%.3f",
             (long long)r->train_batch_tokens, (long long)r->train_seq_len,
             (long long)r->iterations, (long long)r->warmup_steps, r->max_wallclock_seconds);
    log_line(&t->log, "seed:%lld", (long long)r->seed);
}

/* *hash depends on the weights of a new run. */
static enum err_code start_weights(struct train *t, uint64_t *hash, struct err *e)
{
    size_t bytes = t->m.floats * sizeof(float);
    float *host = malloc(bytes);
    if (!host)
        return err_nomem(e, "initial weights", bytes);
    enum err_code rc = init_params(&t->m, host, e);
    if (!rc) {
        *hash = hash_bytes(host, bytes, 0);
        step_set(&t->s, host);
    }
    free(host);
    return rc;
}

static enum err_code go_on(struct train *t, struct err *e)
{
    struct checkpoint c;
    char path[OUTPUT_PATH];
    enum err_code rc =
        run_agree(t, checkpoint_read(output_path(&t->out, "checkpoint", path), &t->s, &c, e), e);
    if (rc || (rc = run_agree(t, loader_seek(&t->data.train, &c.pos, e), e)))
        return rc;
    t->elapsed_ms = t->began_ms = c.elapsed_ms;
    t->began_step = t->s.opt.step;
    return ERR_OK;
}

/* Disk that a run needs: the weights as floats and, bounded from above, quantised; the checkpoint
 * twice, because the old one stays until the new one is whole. */
static unsigned long long disk_need(const struct recipe *r, size_t floats)
{
    unsigned long long block = floats * sizeof(float), need = 2 * block + (1 << 20);
    unsigned blocks = 3u + (r->ema_decay > 0) + (r->swa_enabled && r->swa_apply);
    return need + (r->checkpoint_every > 0 ? 2 * blocks * block : 0);
}

/* Everything that a rank can find out on its own. */
static enum err_code prepare_alone(struct train *t, const struct recipe *r, struct err *e)
{
    enum err_code rc;
    if ((rc = open_backend(&t->k, t->o, e)) || (rc = gpt_init(&t->m, r, e)) ||
        (rc = plan_make(&t->plan, &t->m, t->k, e)) ||
        (rc = plan_ranks(&t->plan, &t->m, t->c->size, e)) || (rc = corpus_open(&t->data, r, e)))
        return rc;
    if (t->c->rank == 0)
        return output_open(&t->out, t->o->out, disk_need(&t->m.r, t->m.floats), e);
    return ERR_OK;
}

static enum err_code allocate(struct train *t, struct err *e)
{
    enum err_code rc = step_init(&t->s, t->k, &t->m, t->plan.micro_seqs, t->c, e);
    if (rc)
        return rc;
    t->tokens = malloc(2 * t->s.batch * t->s.t * sizeof *t->tokens);
    return t->tokens ? ERR_OK : err_nomem(e, "tokens", 2 * t->s.batch * t->s.t * sizeof *t->tokens);
}

static enum err_code prepare(struct train *t, const struct recipe *r, struct err *e)
{
    char path[OUTPUT_PATH];
    uint64_t weights = 0;
    enum err_code rc;
    if ((rc = run_agree(t, prepare_alone(t, r, e), e)) ||
        (rc = run_agree(t, comm_device(t->c, t->k, e), e)) ||
        (rc = run_agree(t, allocate(t, e), e)) ||
        (rc = t->o->resume ? go_on(t, e) : run_agree(t, start_weights(t, &weights, e), e)))
        return rc;
    if ((rc = same_check(t->c, &t->m, &t->data, weights, e))) {
        t->together = rc == ERR_INPUT;
        return rc;
    }
    if (t->c->rank == 0)
        rc = log_open(&t->log, output_path(&t->out, "train.log", path), t->o->resume, t->o->quiet,
                      e);
    if ((rc = run_agree(t, rc, e)))
        return rc;
    log_head(t);
    if (t->o->resume)
        log_line(&t->log, "resumed: step:%zu train_time:%.0fms", t->s.opt.step, t->elapsed_ms);
    else if (t->c->rank == 0 && !access(output_path(&t->out, "checkpoint", path), F_OK))
        log_line(&t->log, "begins anew: %s is of an earlier run, --resume goes on with it", path);
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
    t->alone = (struct comm){.name = "single", .size = 1};
    t->c = o->comm ? o->comm : &t->alone;
    if (!(rc = prepare(t, r, e)) && !(rc = loop(t, e)))
        rc = run_finish(t, e);
    t->res.step = t->s.opt.step;
    t->res.apart = rc && !t->together;
    if (res)
        *res = t->res;
    /* A failure is recorded in the log too: a log that just ends leaves its reader guessing. */
    if (rc && e)
        log_detail(&t->log, "error: %s", e->msg);
    enum err_code log_rc = log_close(&t->log, rc ? NULL : e);
    free(t->tokens);
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
