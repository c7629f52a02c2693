/*
 * record_check_runs.c - seeds, time budgets, data and text of the logs.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify/record.h"

static bool distinct(const struct record_run *run)
{
    return run->duplicate_of == SIZE_MAX;
}

/* ---- seeds ---- */

static bool has_seed(const struct record_log *l, long long seed)
{
    bool has = l->seed_named == seed;
    for (size_t i = 0; i < l->seeds; i++)
        has |= l->seed[i].v == seed;
    return has;
}

static void seed_values(struct record *r, const struct meta_seed *s)
{
    const struct record_run *run = NULL;
    char who[32];
    snprintf(who, sizeof who, "seed %lld", s->seed);
    bool any = false;
    for (size_t i = 0; i < r->runs; i++)
        any |= has_seed(&r->run[i].log, s->seed);
    for (size_t i = 0; i < r->heads; i++)
        if (has_seed(&r->run[r->head[i]].log, s->seed))
            run = &r->run[r->head[i]];
    if (!any)
        record_find(r, RC_SEED_LOG, r->meta.path, s->line, "%s is claimed and has no log", who);
    for (size_t i = 0; i < r->heads && !run && s->bpb.have; i++) {
        const struct record_log *l = &r->run[r->head[i]].log;
        const struct metric *m = record_log_headline(l);
        if (!meta_near(&s->bpb, m->val_bpb, 0) || record_log_seed(l) < 0)
            continue;
        struct record_finding *f = record_find(r, RC_SEED_ELSEWHERE, r->meta.path, s->bpb.line,
                                               "%s: its score is in %s, which is of seed %lld", who,
                                               l->path, record_log_seed(l));
        record_also(f, l->path, m->line);
        return;
    }
    if (!run)
        return;
    const struct record_log *l = &run->log;
    const struct metric *m = record_log_headline(l);
    bool elsewhere = false;
    for (size_t k = 0; k < l->finals; k++)
        elsewhere |= l->final[k].kind != METRIC_NONE &&
                     meta_near(&s->bpb, l->final[k].val_bpb, RECORD_BPB_TOL);
    for (size_t k = 0; k < l->saids; k++)
        elsewhere |= !l->said[k].step && meta_near(&s->bpb, l->said[k].bpb, RECORD_BPB_TOL);
    if (s->bpb.have && !meta_near(&s->bpb, m->val_bpb, RECORD_BPB_TOL) && !elsewhere) {
        struct record_finding *f =
            record_find(r, RC_SEED_BPB, r->meta.path, s->bpb.line, "%s: claims %.10g, %s has %.8f",
                        who, s->bpb.v, l->path, m->val_bpb);
        record_also(f, l->path, m->line);
    }
    if (s->steps.have && l->steps.line && s->steps.v != (double)l->steps.v) {
        struct record_finding *f = record_find(r, RC_SEED_STEPS, r->meta.path, s->steps.line,
                                               "%s: claims %.0f steps, %s has %s", who, s->steps.v,
                                               l->path, record_count(l->steps.v));
        record_also(f, l->path, l->steps.line);
    }
    /* The model alone: record_size.c says so once, for the claimed total. */
    bool model = r->meta.total.have && l->model.line && s->bytes.v == (double)l->model.v;
    if (s->bytes.have && l->total.line && !l->total.rounded && !model &&
        s->bytes.v != (double)l->total.v) {
        struct record_finding *f = record_find(
            r, RC_SEED_BYTES, r->meta.path, s->bytes.line, "%s: claims %s bytes%s, %s has %s", who,
            record_count((uint64_t)fmax(s->bytes.v, 0)),
            l->model.line && s->bytes.v == (double)l->model.v ? " (the model alone)" : "", l->path,
            record_count(l->total.v));
        record_also(f, l->path, l->total.line);
    }
}

static void seeds(struct record *r)
{
    long long seen[RECORD_HEADS];
    size_t n = 0, unknown = 0;
    for (size_t i = 0; i < r->meta.seeds; i++)
        seed_values(r, &r->meta.seed[i]);
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        bool prints = false;
        for (size_t k = 0; k < l->seeds; k++)
            prints |= l->seed[k].v == l->seed_named;
        if (l->seed_named >= 0 && l->seeds && !prints && !l->seed_loaded)
            record_find(r, RC_SEED_LABEL, l->path, l->seed[l->seeds - 1].line,
                        "%s is named for seed %lld and prints seed %lld", l->path, l->seed_named,
                        l->seed[l->seeds - 1].v);
        if (!distinct(&r->run[i]) || !record_log_headline(l))
            continue;
        long long seed = record_log_seed(l);
        size_t k = 0;
        while (k < n && seen[k] != seed)
            k++;
        unknown += seed < 0;
        if (k == n && n < RECORD_HEADS && seed >= 0)
            seen[n++] = seed;
    }
    if (n + unknown < RECORD_SEEDS && r->runs && r->track == RECORD_TRACK_RECORD)
        record_find(r, RC_FEW_SEEDS, NULL, 0, "%zu distinct seed%s with a log", n + unknown,
                    n + unknown == 1 ? "" : "s");
}

/* ---- time ---- */

/* One finding for all logs: the text names the worst, the places name up to four. */
struct tally {
    struct record_at at[RECORD_AT];
    size_t n, worst;
    double most;
};

static void tally_add(struct tally *t, const char *file, size_t line, size_t run, double v)
{
    if (t->n < RECORD_AT)
        t->at[t->n] = (struct record_at){file, line};
    if (!t->n || v > t->most) {
        t->most = v;
        t->worst = run;
    }
    t->n++;
}

static void tally_places(const struct tally *t, struct record_finding *f)
{
    for (size_t i = 0; i < t->n && i < RECORD_AT; i++)
        record_also(f, t->at[i].file, t->at[i].line);
}

static double seconds_of(const struct record_log *l, enum log_time_kind k)
{
    return record_log_time(l, k, NULL);
}

static void times(struct record *r)
{
    struct tally late = {0}, step = {0}, calib = {0}, gptq = {0}, art = {0}, eval = {0}, warm = {0};
    struct record_finding *f;
    for (size_t i = 0; i < r->runs && r->track == RECORD_TRACK_RECORD; i++) {
        const struct record_log *l = &r->run[i].log;
        if (!distinct(&r->run[i]))
            continue;
        double ms = l->train_ms.line ? (double)l->train_ms.v : 0;
        size_t at = l->train_ms.line;
        if (ms > RECORD_TRAIN_MS + RECORD_GRACE_MS)
            tally_add(&late, l->path, at, i, ms);
        else if (ms > RECORD_TRAIN_MS)
            tally_add(&step, l->path, at, i, ms);
        size_t line = 0;
        double c = seconds_of(l, LOG_TIME_HESSIANS) + seconds_of(l, LOG_TIME_GENERATED);
        for (size_t k = 0; k < l->times; k++) {
            const struct log_time *t = &l->time[k];
            if (t->kind == LOG_TIME_HESSIANS || t->kind == LOG_TIME_GENERATED)
                line = t->line;
            if (t->limit > 0 && t->seconds > t->limit && t->kind == LOG_TIME_POST_GPTQ)
                tally_add(&gptq, l->path, t->line, i, t->seconds);
            if (t->limit > 0 && t->seconds > t->limit && t->kind == LOG_TIME_ARTIFACT)
                tally_add(&art, l->path, t->line, i, t->seconds);
        }
        if (c > 0 && ms + 1000 * c > RECORD_TRAIN_MS && seconds_of(l, LOG_TIME_POST_GPTQ) <= 0)
            tally_add(&calib, l->path, line, i, ms / 1000 + c);
        const struct metric *m = record_log_headline(l);
        double e = record_log_eval(l), w = seconds_of(l, LOG_TIME_WARMUP);
        if (m && e > RECORD_EVAL_S)
            tally_add(&eval, l->path, m->line, i, e);
        else if (m && w > 0 && e + w > RECORD_EVAL_S)
            tally_add(&warm, l->path, m->line, i, e + w);
    }
    if (step.n) {
        f = record_find(r, RC_TRAIN_STEP, NULL, 0, "%zu log%s, up to %.0f ms of 600,000", step.n,
                        step.n == 1 ? "" : "s", step.most);
        tally_places(&step, f);
    }
    if (late.n) {
        f = record_find(r, RC_TRAIN, NULL, 0, "%zu log%s, up to %.0f ms of 600,000 (%s)", late.n,
                        late.n == 1 ? "" : "s", late.most, r->run[late.worst].log.path);
        tally_places(&late, f);
    }
    if (calib.n) {
        f = record_find(r, RC_CALIBRATION, NULL, 0,
                        "%zu log%s: training and logged calibration take up to %.1f s", calib.n,
                        calib.n == 1 ? "" : "s", calib.most);
        tally_places(&calib, f);
    }
    if (gptq.n) {
        f = record_find(r, RC_POST_GPTQ, NULL, 0,
                        "%zu log%s: up to %.1f s elapsed after GPTQ, beside the log's own limit",
                        gptq.n, gptq.n == 1 ? "" : "s", gptq.most);
        tally_places(&gptq, f);
    }
    if (art.n) {
        f = record_find(r, RC_ARTIFACT, NULL, 0,
                        "%zu log%s: the artifact took up to %.1f s, beside the log's own limit",
                        art.n, art.n == 1 ? "" : "s", art.most);
        tally_places(&art, f);
    }
    if (eval.n) {
        f = record_find(r, RC_EVAL, NULL, 0, "%zu log%s: evaluation takes up to %.1f s", eval.n,
                        eval.n == 1 ? "" : "s", eval.most);
        tally_places(&eval, f);
    }
    if (warm.n) {
        f = record_find(r, RC_EVAL_WARMUP, NULL, 0,
                        "%zu log%s: evaluation and compile warm-up take up to %.1f s", warm.n,
                        warm.n == 1 ? "" : "s", warm.most);
        tally_places(&warm, f);
    }
}

/* ---- data ---- */

static void denominator(struct record *r, const struct record_run *run)
{
    const struct record_log *l = &run->log;
    const struct metric *m = record_log_headline(l);
    double typical = 151080000;
    size_t line = m ? m->line : l->periodic.line;
    if (isnan(run->bytes_per_token) || !distinct(run))
        return;
    if (m && m->bytes && run->tokens && fabs(run->val_bytes / (double)m->bytes - 1) > 1e-4)
        record_find(r, RC_DENOMINATOR, l->path, line,
                    "%s: loss and BPB imply %s bytes, the line says %s", l->path,
                    record_count((uint64_t)llround(run->val_bytes)), record_count(m->bytes));
    if (run->partial) {
        struct record_finding *f = record_find(
            r, RC_PARTIAL, l->path, line,
            "%s: %s tokens scored, %s bytes (%.4f per token), %.3g %% of the text%s", l->path,
            record_count(run->tokens), record_count((uint64_t)llround(run->val_bytes)),
            run->bytes_per_token, 100 * run->val_bytes / typical,
            l->limited ? "; the log says that its evaluation is limited to some batches" : "");
        record_also(f, l->path, l->limited ? l->limited : run->tokens_line);
    } else if (run->tokens && !isnan(run->val_bytes) &&
               (!run->denominator || run->denominator_launch)) {
        struct record_finding *f = record_find(
            r, RC_DENOMINATOR, l->path, line,
            "%s: loss and BPB imply %s bytes over %s tokens, %.2f %% %s the text's%s%s", l->path,
            record_count((uint64_t)llround(run->val_bytes)), record_count(run->tokens),
            100 * fabs(run->val_bytes / typical - 1), run->val_bytes > typical ? "above" : "below",
            run->denominator_launch ? " (the launch-day validation split)" : "",
            l->limited ? "; the log says that its evaluation is limited to some batches" : "");
        record_also(f, l->path, l->limited ? l->limited : run->tokens_line);
    }
}

/* Two results of one log that were divided by different numbers of bytes. */
static void pairs(struct record *r, const struct record_run *run)
{
    const struct metric *m = record_log_headline(&run->log);
    if (!run->odd_pair || !distinct(run) || !m)
        return;
    struct record_finding *f =
        record_find(r, RC_PAIRS, run->log.path, run->odd_pair,
                    "%s: loss and BPB of line %zu imply other bytes per token than line %zu (%.4f)",
                    run->log.path, run->odd_pair, m->line, run->bytes_per_token);
    record_also(f, run->log.path, m->line);
}

/* Full sequences drop the tail of the text; long ones more of it. Up to 4,096 tokens are usual. */
static void tail(struct record *r)
{
    static const uint64_t full[] = {62021632, 45508608, 40540160, 47851520};
    for (size_t i = 0; i < r->heads; i++) {
        const struct record_log *l = &r->run[r->head[i]].log;
        for (size_t k = 0; k < sizeof full / sizeof *full && l->val_tokens.line; k++)
            if (l->val_tokens.v + 4096 < full[k] && l->val_tokens.v > full[k] / 1000 * 998) {
                record_find(r, RC_TAIL, l->path, l->val_tokens.line, "%s scores %s of %s tokens",
                            l->path, record_count(l->val_tokens.v), record_count(full[k]));
                return;
            }
    }
}

static void shards(struct record *r)
{
    const struct record_log *first = NULL;
    for (size_t i = 0; i < r->heads; i++) {
        const struct record_log *l = &r->run[r->head[i]].log;
        if (!l->train_shards.line || !l->train_shards.v)
            continue; /* scored a file, trained nothing */
        if (!first) {
            first = l;
        } else if (l->train_shards.v != first->train_shards.v) {
            struct record_finding *f = record_find(r, RC_SHARDS, l->path, l->train_shards.line,
                                                   "%s has %s shards, %s has %s", first->path,
                                                   record_count(first->train_shards.v), l->path,
                                                   record_count(l->train_shards.v));
            record_also(f, first->path, first->train_shards.line);
            return;
        }
    }
}

/* ---- text ---- */

static void text(struct record *r, const struct record_run *run)
{
    const struct record_log *l = &run->log;
    if (run->duplicate_of != SIZE_MAX) {
        record_find(r, RC_DUPLICATE, l->path, 0, "%s equals %s byte for byte", l->path,
                    r->run[run->duplicate_of].log.path);
        return;
    }
    if (l->tangled)
        record_find(r, RC_INTERLEAVED, l->path, l->tangled,
                    "%s holds the output of one run twice, mixed", l->path);
    if (l->source_n && !run->source_same)
        record_find(r, RC_SOURCE, l->path, l->source_line,
                    "%s prints a script of %s bytes that is not in the folder", l->path,
                    record_count(l->source_n - 1));
    for (size_t i = 0; i < l->finals; i++) {
        const struct metric *a = &l->final[i];
        struct line label = {a->label, strlen(a->label)};
        if (a->kind != METRIC_ROUNDTRIP || !line_has(label, "int8_zlib"))
            continue;
        for (size_t k = 0; k < l->finals; k++)
            if (l->final[k].kind == METRIC_SLIDING && l->final[k].val_bpb == a->val_bpb &&
                l->final[k].val_loss == a->val_loss) {
                struct record_finding *f =
                    record_find(r, RC_ALIAS, l->path, a->line, "%s: %s repeats %s", l->path,
                                a->label, l->final[k].label);
                record_also(f, l->path, l->final[k].line);
                return;
            }
    }
}

/* What the source tells about a method that was used, or that the headline is named for. A reading,
 * not a proof: a warning at most. */
static void conditions(struct record *r)
{
    const struct record_script *c = &r->script;
    for (size_t i = 0; c->have_facts && i < c->facts.methods; i++) {
        const struct method_facts *m = &c->facts.method[i];
        if (!record_method_used(r, m))
            continue;
        for (size_t k = 0; k < 4; k++)
            if (m->cond[k] == COND_NOT_MET)
                record_find(r, RC_CONDITION, (c->target ? c->target : c->file)->path,
                            c->wrapped ? 0 : m->why_line[k],
                            "%sline %zu: %s%s%s, condition C%zu not met%s%s",
                            c->wrapped ? "unpacked source, " : "", m->why_line[k],
                            method_name[m->method], *m->form ? ", " : "", m->form, k + 1,
                            *m->why[k] ? ": " : "", m->why[k]);
    }
}

void record_check_runs(struct record *r)
{
    conditions(r);
    seeds(r);
    times(r);
    for (size_t i = 0; i < r->runs; i++) {
        denominator(r, &r->run[i]);
        pairs(r, &r->run[i]);
        text(r, &r->run[i]);
    }
    tail(r);
    shards(r);
}
