/* plan.c - see plan.h. */
#include "trainer/plan.h"

#include <string.h>

#include "model/score.h"
#include "trainer/loader.h"
#include "trainer/quant.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

/* ---- settings ---- */

/* What comes after training must be known to work before it. */
static enum err_code check_after(const struct gpt *m, struct err *e)
{
    struct score_opts o = {.mode = eval_mode_parse(m->r.eval_mode)};
    struct window_list l;
    enum err_code rc = quant_check(&m->r, e);
    if (!rc && o.mode == EVAL_MODES)
        rc = err_set(e, ERR_USAGE,
                     "EVAL_MODE=%s: expected plain, sliding, slot, slot-context or ttt",
                     m->r.eval_mode);
    return rc ? rc : score_windows(m, SIZE_MAX, &o, &l, e);
}

static enum err_code check_ranges(const struct recipe *r, struct err *e)
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
        {"GRAD_RANKS", (double)r->grad_ranks, 1, SPLIT_GROUPS},
        {"EMA_DECAY", r->ema_decay, 0, 0.9999999},
        {"WARMUP_STEPS", (double)r->warmup_steps, 0, 1e6},
        {"RECUR_START_STEP", (double)r->recur_start_step, 0, 1e12},
        {"SWA_EVERY", (double)r->swa_every, 1, 1e12},
        {"SWA_START_SCALE", r->swa_start_scale, 0, 2},
        {"LATE_QAT_THRESHOLD", r->late_qat_threshold, 0, 2},
        {"GPTQ_RESERVE_SECONDS", r->gptq_reserve_seconds, 0, 1e9},
        {"MUON_ROW_NORM", (double)r->muon_row_norm, 0, 1},
        {"MUON_BF16", (double)r->muon_bf16, 0, 1},
        {"MATRIX_BANKS", (double)r->matrix_banks, 0, 1},
        {"PROJ_DEPTH_INIT", (double)r->proj_depth_init, 0, 1},
        {"SWA_ENABLED", (double)r->swa_enabled, 0, 1},
        {"SWA_APPLY", (double)r->swa_apply, 0, 1},
    };
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (!(range[i].v >= range[i].lo && range[i].v <= range[i].hi))
            return err_set(e, ERR_USAGE, "%s=%g: must be %g to %g", range[i].name, range[i].v,
                           range[i].lo, range[i].hi);
    return ERR_OK;
}

static enum err_code check_words(const struct recipe *r, struct err *e)
{
    const struct {
        const char *name, *v, *words[3], *expected;
    } list[] = {
        {"INIT", r->init, {"uniform", "orthogonal"}, "uniform or orthogonal"},
        {"PROJ_OPTIMIZER", r->proj_optimizer, {"muon", "adamw"}, "muon or adamw"},
        {"LATE_QAT_SCOPE", r->late_qat_scope, {"all", "proj", "none"}, "all, proj or none"},
        {"GRAD_CLIP_SCOPE", r->grad_clip_scope, {"global", "rank"}, "global or rank"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        bool known = false;
        for (size_t w = 0; w < 3 && list[i].words[w]; w++)
            known |= strcmp(list[i].v, list[i].words[w]) == 0;
        if (!known)
            return err_set(e, ERR_USAGE, "%s=%s: expected %s", list[i].name, list[i].v,
                           list[i].expected);
    }
    return ERR_OK;
}

/* Does the multiplier ever fall below `below`, in a run that lasts long enough? */
static bool falls_below(const struct recipe *r, double below)
{
    bool falls = r->warmdown_frac > 0 || r->warmdown_iters > 0;
    return below > 1 || (falls && r->min_lr < below);
}

/* Settings that are fine one by one, but under which a switch could never act. */
static enum err_code check_sense(const struct gpt *m, struct err *e)
{
    const struct recipe *r = &m->r;
    bool qat = r->late_qat_threshold > 0 && strcmp(r->late_qat_scope, "none") != 0;
    if (r->grad_ranks & (r->grad_ranks - 1))
        return err_set(e, ERR_USAGE, "GRAD_RANKS=%lld: must be a power of two",
                       (long long)r->grad_ranks);
    if (r->max_wallclock_seconds > 0 && r->gptq_reserve_seconds >= r->max_wallclock_seconds)
        return err_set(e, ERR_USAGE,
                       "GPTQ_RESERVE_SECONDS=%g leaves nothing of MAX_WALLCLOCK_SECONDS=%g",
                       r->gptq_reserve_seconds, r->max_wallclock_seconds);
    if (r->proj_depth_init && strcmp(r->init, "orthogonal") != 0)
        return err_set(e, ERR_USAGE, "PROJ_DEPTH_INIT=1 scales an orthogonal init, INIT is %s",
                       r->init);
    if (qat && !step_qat_possible(m))
        return err_set(e, ERR_USAGE,
                       "LATE_QAT_SCOPE=%s: the model has no matrix that it applies to (%s)",
                       r->late_qat_scope,
                       strcmp(r->late_qat_scope, "all") ? "no bigram.proj, no ve_shared.proj"
                                                        : "QUANT_KEEP_NUMEL keeps all of them");
    if (qat && !falls_below(r, r->late_qat_threshold))
        return err_set(e, ERR_USAGE,
                       "LATE_QAT_THRESHOLD=%g: the learning-rate multiplier never falls below it "
                       "(WARMDOWN_ITERS, WARMDOWN_FRAC, MIN_LR)",
                       r->late_qat_threshold);
    if (r->swa_enabled && r->swa_apply && !falls_below(r, r->swa_start_scale))
        return err_set(e, ERR_USAGE,
                       "SWA_START_SCALE=%g: the learning-rate multiplier never falls below it "
                       "(WARMDOWN_ITERS, WARMDOWN_FRAC, MIN_LR)",
                       r->swa_start_scale);
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

/* Gradients of ranks, each clipped on its own: all of them must be there. */
static enum err_code check_groups(const struct plan *p, const struct recipe *r, struct err *e)
{
    if (strcmp(r->grad_clip_scope, "rank") == 0 && p->groups < (size_t)r->grad_ranks)
        return err_set(e, ERR_USAGE,
                       "GRAD_CLIP_SCOPE=rank: a step has %zu micro-batches, GRAD_RANKS=%lld; a "
                       "smaller GRAD_RANKS or MICRO_BATCH_TOKENS",
                       p->micros, (long long)r->grad_ranks);
    return ERR_OK;
}

enum err_code plan_ranks(struct plan *p, const struct gpt *m, size_t ranks, struct err *e)
{
    const struct recipe *r = &m->r;
    size_t grad_ranks = (size_t)r->grad_ranks, most = 0;
    size_t averages = (size_t)(r->ema_decay > 0) + (size_t)(r->swa_enabled && r->swa_apply);
    if (ranks > p->groups)
        return err_set(e, ERR_USAGE,
                       "%zu ranks for %zu gradients: GRAD_RANKS=%zu, and %zu micro-batches per "
                       "step; fewer ranks, a larger GRAD_RANKS or a smaller MICRO_BATCH_TOKENS "
                       "(now %lld)",
                       ranks, p->groups, grad_ranks, p->micros, (long long)r->micro_batch_tokens);
    for (size_t i = 0; i < ranks; i++) {
        struct piece_list l;
        struct reduce_share share;
        enum err_code rc = piece_list(&l, m, i, ranks, e);
        if (rc)
            return rc;
        reduce_share(&share, p->micros, grad_ranks, i, ranks);
        size_t inbox = ranks > 1 ? reduce_inbox(&l, p->micros, grad_ranks) : 0;
        size_t sums = share.stack * m->floats + inbox, all = sums + (2 + averages) * l.floats;
        if (all >= most) {
            most = all;
            p->sums = sums * sizeof(float);
            p->state = 2 * l.floats * sizeof(float);
            p->averages = averages * l.floats * sizeof(float);
        }
        piece_free(&l);
    }
    return ERR_OK;
}

/* Sequences of a micro-batch of which one needs `one` bytes of activations; see plan.h. */
static size_t choose(const struct recipe *r, const struct kern *k, size_t one)
{
    size_t t = (size_t)r->train_seq_len, seqs = (size_t)r->train_batch_tokens / t;
    size_t most = PLAN_MICRO_TOKENS / t, bytes = PLAN_ACT_BYTES, n;
    if (k->memory && (r->loader_ranks || strcmp(r->loader, "coprime") == 0)) {
        most = seqs / (size_t)r->grad_ranks;
        bytes = k->memory / 10 * PLAN_CARD_TENTHS;
    }
    n = one && bytes / one < most ? bytes / one : most;
    for (n = n ? n : 1; seqs % n; n--)
        ;
    return n;
}

enum err_code plan_make(struct plan *p, struct gpt *m, struct kern *k, struct err *e)
{
    size_t one = 0, floats = m->floats * sizeof(float);
    enum err_code rc;
    if ((rc = check_ranges(&m->r, e)) || (rc = check_words(&m->r, e)) || (rc = check_after(m, e)) ||
        (rc = check_sense(m, e)) || (rc = loader_check(&m->r, e)))
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
    if (!micro)
        micro = choose(&m->r, k, one) * t;
    m->r.micro_batch_tokens = (int64_t)micro;
    *p = (struct plan){
        .micro_seqs = micro / t,
        .micros = batch / micro,
        .groups = batch / micro,
        .weights = floats,
        .grads = floats,
        .rounded = step_qat_possible(m) ? floats : 0,
        .activations = one * (micro / t),
    };
    if (p->groups > (size_t)m->r.grad_ranks)
        p->groups = (size_t)m->r.grad_ranks;
    rc = check_groups(p, &m->r, e);
    return rc ? rc : plan_ranks(p, m, 1, e);
}

/* ---- printing ---- */

static void print_tensors(const struct gpt *m, FILE *f)
{
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        char shape[72] = "[";
        size_t n = 1;
        for (size_t d = 0; d < p->ndim; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%zu", d ? ", " : "", p->shape[d]);
        snprintf(shape + n, sizeof shape - n, "]");
        fprintf(f, "%-36s %-18s %10zu  %s\n", p->name, shape, p->size,
                optim_group_name[optim_group_of(&m->r, p)]);
    }
}

static void print_memory(const struct plan *p, FILE *f)
{
    const struct {
        const char *what;
        size_t bytes;
    } line[] = {
        {"weights", p->weights},         {"gradients", p->grads},   {"sums of gradients", p->sums},
        {"optimiser", p->state},         {"averages", p->averages}, {"rounded weights", p->rounded},
        {"activations", p->activations},
    };
    size_t sum = 0;
    for (size_t i = 0; i < sizeof line / sizeof line[0]; i++) {
        if (line[i].bytes)
            fprintf(f, " %s %.1f MiB,", line[i].what, (double)line[i].bytes / 1048576.0);
        sum += line[i].bytes;
    }
    fprintf(f, " in all %.1f MiB\n", (double)sum / 1048576.0);
}

/* What a rank needs when there are several: as many as the recipe allows, in powers of two. */
static void print_ranks(const struct plan *p, const struct gpt *m, FILE *f)
{
    for (size_t ranks = 2; ranks <= p->groups; ranks *= 2) {
        struct plan q = *p;
        struct err why = {0};
        if (plan_ranks(&q, m, ranks, &why))
            return;
        fprintf(f, "each of %zu ranks:", ranks);
        print_memory(&q, f);
    }
}

/* Learning rate and momentum at eleven points. With a wall-clock cap the number of steps is not
 * known; the points are then fractions of the time, at an even pace. */
static void print_schedule(const struct recipe *r, FILE *f)
{
    double cap_ms = schedule_cap_ms(r);
    bool capped = cap_ms > 0;
    if (capped)
        fprintf(f, "schedule: by wall clock, %g s or %lld steps, whichever ends first\n",
                cap_ms / 1e3, (long long)r->iterations);
    else
        fprintf(f, "schedule: by steps, %lld\n", (long long)r->iterations);
    for (int i = 0; i <= 10; i++) {
        /* The last point is the last step, not the one behind it. */
        size_t n = (size_t)r->iterations, step = n * (size_t)i / 10 - (i == 10 && n > 0);
        double ms = 0.1 * i * cap_ms;
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

/* What changes on the way, and which weights are saved. */
static void print_switches(const struct gpt *m, FILE *f)
{
    const struct recipe *r = &m->r;
    bool swa = r->swa_enabled && r->swa_apply;
    if (r->warmup_steps > 0)
        fprintf(f, "warmup: %lld steps before the clock, undone\n", (long long)r->warmup_steps);
    if (r->embed_bf16 || r->muon_bf16)
        fprintf(f, "stored as bf16: %s%s%s\n", r->embed_bf16 ? "embedding tables" : "",
                r->embed_bf16 && r->muon_bf16 ? ", " : "",
                r->muon_bf16 ? "Muon's gradient and momentum" : "");
    if (r->recur_layers[0])
        fprintf(f, "recurrence: blocks %s run twice from step %lld on\n", r->recur_layers,
                (long long)r->recur_start_step);
    if (step_qat_possible(m))
        fprintf(f, "late QAT: %s at %lld bits once the lr multiplier is below %g\n",
                strcmp(r->late_qat_scope, "all") ? "bigram.proj, ve_shared.proj" : "matrices",
                (long long)r->quant_bits, r->late_qat_threshold);
    if (r->swa_enabled)
        fprintf(f, "SWA: every %lld steps while the lr multiplier is below %g%s\n",
                (long long)r->swa_every, r->swa_start_scale,
                swa ? "" : "; thrown away (SWA_APPLY=0)");
    if (r->ema_decay > 0)
        fprintf(f, "EMA: decay %g\n", r->ema_decay);
    fprintf(f, "saved: %s\n",
            swa                ? "mean of the SWA snapshots"
            : r->ema_decay > 0 ? "EMA"
                               : "weights of the last step");
}

void plan_print(const struct plan *p, const struct gpt *m, FILE *f)
{
    const struct recipe *r = &m->r;
    print_tensors(m, f);
    fprintf(f, "parameters: %zu\n", m->floats);
    fprintf(f, "batch: %lld tokens in %zu micro-batches of %zu sequences of %lld\n",
            (long long)r->train_batch_tokens, p->micros, p->micro_seqs,
            (long long)r->train_seq_len);
    fprintf(f, "gradients: %zu, added up in a tree; at most %zu ranks\n", p->groups, p->groups);
    fprintf(f, "memory:");
    print_memory(p, f);
    print_ranks(p, m, f);
    print_schedule(r, f);
    print_switches(m, f);
}
