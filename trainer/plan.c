/* plan.c - see plan.h. */
#include "trainer/plan.h"

#include <string.h>

#include "model/score.h"
#include "trainer/quant.h"
#include "trainer/schedule.h"

/* ---- settings ---- */

/* What comes after training must be known to work before it. */
static enum err_code check_after(const struct gpt *m, struct err *e)
{
    struct score_opts o = {.mode = eval_mode_parse(m->r.eval_mode)};
    struct window_list l;
    enum err_code rc = quant_check(&m->r, e);
    if (!rc && o.mode == EVAL_MODES)
        rc = err_set(e, ERR_USAGE, "EVAL_MODE=%s: expected plain or sliding", m->r.eval_mode);
    return rc ? rc : score_windows(m, SIZE_MAX, &o, &l, e);
}

static enum err_code check(const struct recipe *r, struct err *e)
{
    const struct {
        const char *name;
        double v, lo, hi;
    } range[] = {
        {"ITERATIONS", (double)r->iterations, 0, 1e12},
        {"MAX_WALLCLOCK_SECONDS", r->max_wallclock_seconds, 0, 1e9},
        {"TRAIN_BATCH_TOKENS", (double)r->train_batch_tokens, 1, 1 << 30},
        {"MICRO_BATCH_TOKENS", (double)r->micro_batch_tokens, 0, 1 << 30},
        {"TRAIN_LOG_EVERY", (double)r->train_log_every, 0, 1e12},
        {"VAL_LOSS_EVERY", (double)r->val_loss_every, 0, 1e12},
        {"VAL_MAX_TOKENS", (double)r->val_max_tokens, 0, 1e12},
        {"CHECKPOINT_EVERY", (double)r->checkpoint_every, 0, 1e12},
        {"WARMDOWN_ITERS", (double)r->warmdown_iters, 0, 1e12},
        {"WARMDOWN_FRAC", r->warmdown_frac, 0, 1},
        {"MIN_LR", r->min_lr, 0, 1},
        {"LR_WARMUP_STEPS", (double)r->lr_warmup_steps, 0, 1e12},
        {"MUON_MOMENTUM", r->muon_momentum, 0, 1},
        {"MUON_MOMENTUM_WARMUP_START", r->muon_momentum_warmup_start, 0, 1},
        {"MUON_MOMENTUM_WARMUP_STEPS", (double)r->muon_momentum_warmup_steps, 0, 1e12},
        {"MUON_BACKEND_STEPS", (double)r->muon_backend_steps, 1, 100},
        {"BETA1", r->beta1, 0, 0.999999},
        {"BETA2", r->beta2, 0, 0.999999},
        {"GRAD_CLIP_NORM", r->grad_clip_norm, 0, 1e9},
        {"EMA_DECAY", r->ema_decay, 0, 0.9999999},
    };
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (!(range[i].v >= range[i].lo && range[i].v <= range[i].hi))
            return err_set(e, ERR_USAGE, "%s=%g: must be %g to %g", range[i].name, range[i].v,
                           range[i].lo, range[i].hi);
    if (strcmp(r->init, "uniform") != 0 && strcmp(r->init, "orthogonal") != 0)
        return err_set(e, ERR_USAGE, "INIT=%s: expected uniform or orthogonal", r->init);
    return ERR_OK;
}

/* ---- the cut ---- */

/* Bytes of activations that a micro-batch of one sequence needs; they grow in proportion. */
static enum err_code one_sequence(const struct gpt *m, struct kern *k, size_t *bytes, struct err *e)
{
    struct graph g;
    enum err_code rc;
    graph_init(&g);
    gpt_graph(m, &g, true); /* recurrence only makes it larger */
    if (!(rc = graph_plan(&g, k, 1, (size_t)m->r.train_seq_len, 0, true, e)))
        *bytes = g.floats * sizeof(float);
    graph_free(&g);
    return rc;
}

enum err_code plan_make(struct plan *p, struct gpt *m, struct kern *k, struct err *e)
{
    size_t one = 0, floats = m->floats * sizeof(float);
    enum err_code rc = check(&m->r, e);
    if (rc || (rc = check_after(m, e)))
        return rc;
    size_t t = (size_t)m->r.train_seq_len, batch = (size_t)m->r.train_batch_tokens;
    size_t micro = (size_t)m->r.micro_batch_tokens;
    if (batch % t)
        return err_set(e, ERR_USAGE, "TRAIN_BATCH_TOKENS=%zu is no multiple of TRAIN_SEQ_LEN=%zu",
                       batch, t);
    if (micro && (micro % t || batch % micro))
        return err_set(e, ERR_USAGE,
                       "MICRO_BATCH_TOKENS=%zu must be a multiple of TRAIN_SEQ_LEN=%zu and divide "
                       "TRAIN_BATCH_TOKENS=%zu",
                       micro, t, batch);
    if ((rc = one_sequence(m, k, &one, e)))
        return rc;
    if (!micro) {
        size_t most = PLAN_MICRO_TOKENS / t, fit = one ? PLAN_ACT_BYTES / one : most;
        size_t seqs = most < fit ? most : fit;
        for (seqs = seqs ? seqs : 1; batch / t % seqs; seqs--)
            ;
        micro = seqs * t;
    }
    m->r.micro_batch_tokens = (int64_t)micro;
    *p = (struct plan){
        .micro_seqs = micro / t,
        .micros = batch / micro,
        .weights = floats,
        .grads = floats,
        .state = 2 * floats,
        .average = m->r.ema_decay > 0 ? floats : 0,
        .activations = one * (micro / t),
    };
    return ERR_OK;
}

/* ---- printing ---- */

static void print_tensors(const struct gpt *m, FILE *f)
{
    static const char *const cls[] = {"muon", "embed", "head", "control"};
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        char shape[72] = "[";
        size_t n = 1;
        for (size_t d = 0; d < p->ndim; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%zu", d ? ", " : "", p->shape[d]);
        snprintf(shape + n, sizeof shape - n, "]");
        fprintf(f, "%-36s %-18s %10zu  %s\n", p->name, shape, p->size, cls[p->cls]);
    }
}

static void print_memory(const struct plan *p, FILE *f)
{
    const struct {
        const char *what;
        size_t bytes;
    } line[] = {
        {"weights", p->weights}, {"gradients", p->grads},         {"optimiser", p->state},
        {"average", p->average}, {"activations", p->activations},
    };
    size_t sum = 0;
    fprintf(f, "memory:");
    for (size_t i = 0; i < sizeof line / sizeof line[0]; i++) {
        fprintf(f, " %s %.1f MiB,", line[i].what, (double)line[i].bytes / 1048576.0);
        sum += line[i].bytes;
    }
    fprintf(f, " in all %.1f MiB\n", (double)sum / 1048576.0);
}

/* Learning rate and momentum at eleven points. With a wall-clock cap the number of steps is not
 * known; the points are then fractions of the time, at an even pace. */
static void print_schedule(const struct recipe *r, FILE *f)
{
    bool capped = r->max_wallclock_seconds > 0;
    if (capped)
        fprintf(f, "schedule: by wall clock, %g s or %lld steps, whichever ends first\n",
                r->max_wallclock_seconds, (long long)r->iterations);
    else
        fprintf(f, "schedule: by steps, %lld\n", (long long)r->iterations);
    for (int i = 0; i <= 10; i++) {
        /* The last point is the last step, not the one behind it. */
        size_t n = (size_t)r->iterations, step = n * (size_t)i / 10 - (i == 10 && n > 0);
        double ms = 100.0 * i * r->max_wallclock_seconds;
        if (capped && r->warmdown_frac > 0)
            fprintf(f, "  at %3d%% of the time: lr x %.6f\n", i * 10, schedule_lr(r, 1, ms));
        else if (!capped)
            fprintf(f, "  step %zu: lr x %.6f, momentum %.4f\n", step, schedule_lr(r, step, 0),
                    schedule_momentum(r, step));
    }
    if (capped && !(r->warmdown_frac > 0) && r->warmdown_iters > 0)
        fprintf(f, "  lr x 1, then down to %g over the time that the last %lld steps take\n",
                r->min_lr, (long long)r->warmdown_iters);
}

void plan_print(const struct plan *p, const struct gpt *m, FILE *f)
{
    const struct recipe *r = &m->r;
    print_tensors(m, f);
    fprintf(f, "parameters: %zu\n", m->floats);
    fprintf(f, "batch: %lld tokens in %zu micro-batches of %zu sequences of %lld\n",
            (long long)r->train_batch_tokens, p->micros, p->micro_seqs,
            (long long)r->train_seq_len);
    print_memory(p, f);
    print_schedule(r, f);
}
