/* submit_check.c - see submit.h: the challenge's rules (docs/rules.md) applied to the runs. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/score.h"
#include "packer/submit.h"

/* Nats that a record must gain, and the chance of being wrong about it (R-MARGIN, R-SIGNIFICANCE).
 */
#define MARGIN 0.005
#define LEVEL  0.01

static void note(struct submit *s, const char *rule, enum submit_verdict verdict, const char *fmt,
                 ...) __attribute__((format(printf, 4, 5)));

static void note(struct submit *s, const char *rule, enum submit_verdict verdict, const char *fmt,
                 ...)
{
    va_list ap;
    if (s->checks == SUBMIT_CHECKS) {
        s->broken += verdict == SUBMIT_BROKEN;
        return;
    }
    struct submit_check *c = &s->check[s->checks++];
    c->rule = rule;
    c->verdict = verdict;
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
    s->broken += verdict == SUBMIT_BROKEN;
}

static bool strict(const struct submit *s)
{
    return !strcmp(s->job->track, "10min_16mb");
}

/* ---- one run ---- */

static void judge_size(struct submit *s)
{
    size_t over = 0;
    for (size_t i = 0; i < s->runs; i++) {
        const struct submit_run *r = &s->run[i];
        if (r->blob.size <= SUBMIT_LIMIT)
            continue;
        over++;
        note(s, "R-SIZE", SUBMIT_BROKEN, "%s: %zu bytes, %zu over the limit of %d", r->dir,
             r->blob.size, r->blob.size - SUBMIT_LIMIT, SUBMIT_LIMIT);
    }
    const struct submit_run *w = &s->run[s->worst];
    if (!over)
        note(s, "R-SIZE", SUBMIT_KEPT,
             "largest file %zu bytes (seed %lld), %zu under the limit of %d", w->blob.size, w->seed,
             SUBMIT_LIMIT - w->blob.size, SUBMIT_LIMIT);
}

static void judge_report(struct submit *s, const struct submit_run *r)
{
    if (r->why_report[0])
        note(s, "R-REPRODUCIBLE", SUBMIT_BROKEN,
             "%s: unverified: verify.json %s; packer submit --data DIR makes it", r->dir,
             r->why_report);
    else if (!r->verified)
        note(s, "R-REPRODUCIBLE", SUBMIT_BROKEN, "%s: not verified: %s", r->dir, r->why_verdict);
    else
        note(s, "R-REPRODUCIBLE", SUBMIT_KEPT, "%s: verified, val_bpb %.8f (%s), scores %s",
             r->label, r->record.val_bpb, r->record.mode, r->nll_xxh64);
    if (!r->has_report)
        return;
    if (r->partial)
        note(s, "R-VAL-SET", SUBMIT_BROKEN, "%s: only the first %llu tokens were scored", r->dir,
             (unsigned long long)r->own.tokens);
    if (!strcmp(r->byte_table, "equal"))
        note(s, "R-BYTES", SUBMIT_KEPT, "%s: byte table equals the tokeniser's", r->label);
    else if (strcmp(r->byte_table, "differs")) /* then it is not verified, which was said */
        note(s, "R-BYTES", SUBMIT_OPEN, "%s: byte table not compared with a tokeniser", r->label);
    if (r->executed && r->identical)
        note(s, "F-ENGINE", SUBMIT_KEPT, "%s: executed in the sandbox, identical bits", r->label);
    else if (!r->executed)
        note(s, "F-ENGINE", SUBMIT_OPEN, "%s: not executed (verify blob --execute)", r->label);
}

static void judge_conditions(struct submit *s, const struct submit_run *r)
{
    static const char *const rule[SCORE_CONDITIONS] = {"R-C1", "R-C2", "R-C3", "R-C4"};
    bool met[SCORE_CONDITIONS];
    enum eval_mode mode = eval_mode_parse(r->own.mode);
    if (mode == EVAL_MODES)
        return;
    score_conditions(&r->scoring, mode, met);
    for (size_t i = 0; i < SCORE_CONDITIONS; i++)
        if (!met[i])
            note(s, rule[i], SUBMIT_OPEN,
                 "%s: mode %s does not meet it; val_bpb is the sliding value %.8f, not %.8f",
                 r->label, r->own.mode, r->record.val_bpb, r->own.val_bpb);
}

static void judge_run(struct submit *s, const struct submit_run *r)
{
    if (!r->has_seed)
        note(s, "R-SEEDS", SUBMIT_BROKEN, "%s/train.log: no line seed:N", r->dir);
    else if (r->has_recipe && r->recipe.seed != r->seed)
        note(s, "R-SEEDS", SUBMIT_BROKEN, "%s/train.log: seed:%lld, its settings say SEED=%lld",
             r->dir, r->seed, (long long)r->recipe.seed);
    if (!r->has_recipe)
        note(s, "R-LOG", SUBMIT_BROKEN, "%s/train.log: no Hyperparameters", r->dir);
    if (r->has_weights && !r->same_weights)
        note(s, "R-REPRODUCIBLE", SUBMIT_BROKEN,
             "%s: submission does not hold the weights of model.quant.safetensors", r->dir);
    judge_report(s, r);
    judge_conditions(s, r);
    if (isfinite(r->train_ms) && r->train_ms > SUBMIT_TRAIN_MS)
        note(s, "R-TRAIN-TIME", strict(s) ? SUBMIT_BROKEN : SUBMIT_OPEN,
             "%s: %.0f ms of training are logged, the limit is %d ms on 8 H100", r->label,
             r->train_ms, SUBMIT_TRAIN_MS);
    else if (isfinite(r->train_ms))
        note(s, "R-TRAIN-TIME", SUBMIT_OPEN,
             "%s: %.0f ms of training are logged; on which machine is not checked", r->label,
             r->train_ms);
    else
        note(s, "R-TRAIN-TIME", strict(s) ? SUBMIT_BROKEN : SUBMIT_OPEN,
             "%s: its log has no training time", r->label);
}

/* ---- runs against each other ---- */

/* All settings of a run as text, without those in which runs of one recipe may differ. */
static char *settings(const struct recipe *from)
{
    struct recipe *r = malloc(sizeof *r);
    size_t cap = 1 << 16;
    char *text = malloc(cap);
    if (r && text) {
        *r = *from;
        r->seed = 0;
        r->run_id[0] = r->data_path[0] = r->tokenizer_path[0] = 0;
        recipe_print(r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text, cap);
    }
    free(r);
    return text;
}

/* Cut a and b to their first line that differs; false when there is none. Both have the same keys.
 */
static bool first_difference(char *a, char *b)
{
    char *a0 = a, *b0 = b;
    while (*a && *a == *b)
        a++, b++;
    if (*a == *b)
        return false;
    size_t back = 0;
    while (a - back > a0 && a[-(ptrdiff_t)back - 1] != '\n')
        back++;
    memmove(a0, a - back, strlen(a - back) + 1);
    memmove(b0, b - back, strlen(b - back) + 1);
    a0[strcspn(a0, "\n")] = 0;
    b0[strcspn(b0, "\n")] = 0;
    return true;
}

static bool same_settings(struct submit *s, const struct recipe *x, const struct recipe *y,
                          const char *x_is, const char *y_is)
{
    char *a = settings(x), *b = settings(y);
    bool same = a && b && !first_difference(a, b);
    if (!same)
        note(s, "R-SIGNIFICANCE", SUBMIT_BROKEN, "different recipes: %s in %s, %s in %s",
             a ? a : "?", x_is, b ? b : "?", y_is);
    free(a);
    free(b);
    return same;
}

/* The recipe in the file builds the model and scores it; the log's must build the same model. */
static void judge_claimed_recipe(struct submit *s, const struct submit_run *r)
{
    size_t cap = 1 << 15;
    char *a = malloc(cap), *b = malloc(cap);
    if (a && b && r->has_recipe) {
        recipe_print(&r->recipe, RECIPE_MODEL, false, a, cap);
        recipe_print(&r->scoring, RECIPE_MODEL, false, b, cap);
        if (first_difference(a, b))
            note(s, "R-REPRODUCIBLE", SUBMIT_BROKEN, "%s: %s in train.log, %s in the submission",
                 r->dir, a, b);
    }
    free(a);
    free(b);
}

/* The challenge's validation text has as many bytes in every vocabulary; windows drop a little. */
static void judge_stream(struct submit *s, uint64_t tokens, uint64_t bytes)
{
    bool whole = fabs((double)bytes / 151080000 - 1) <= 0.002;
    note(s, "R-VAL-SET",
         whole       ? SUBMIT_KEPT
         : strict(s) ? SUBMIT_BROKEN
                     : SUBMIT_OPEN,
         whole
             ? "every run scored %llu tokens, %llu bytes, as many as the challenge's text has; "
               "that it is that text is not checked"
             : "every run scored %llu tokens, %llu bytes; the challenge's text has 151.08 million",
         (unsigned long long)tokens, (unsigned long long)bytes);
}

static void judge_together(struct submit *s)
{
    const struct submit_run *first = &s->run[0];
    bool same = true, stream = true;
    for (size_t i = 0; i < s->runs; i++) {
        const struct submit_run *r = &s->run[i];
        judge_claimed_recipe(s, r);
        if (!i)
            continue;
        if (r->has_seed && s->run[i - 1].has_seed && r->seed == s->run[i - 1].seed)
            note(s, "R-SEEDS", SUBMIT_BROKEN, "seed %lld twice: %s and %s", r->seed,
                 s->run[i - 1].dir, r->dir);
        else if (!strcmp(r->sha256, s->run[i - 1].sha256))
            note(s, "R-SEEDS", SUBMIT_BROKEN, "%s and %s hold the same submission",
                 s->run[i - 1].dir, r->dir);
        if (r->has_recipe && first->has_recipe)
            same &= same_settings(s, &first->recipe, &r->recipe, first->dir, r->dir);
        same &= same_settings(s, &first->scoring, &r->scoring, first->dir, r->dir);
        if (r->has_report && first->has_report &&
            ((*r->stream_xxh64 && *first->stream_xxh64 &&
              strcmp(r->stream_xxh64, first->stream_xxh64)) ||
             r->stream_tokens != first->stream_tokens || r->record.bytes != first->record.bytes ||
             r->record.tokens != first->record.tokens)) {
            stream = false;
            note(s, "R-VAL-SET", SUBMIT_BROKEN,
                 "scored on different data: %llu tokens, %llu bytes%s%s in %s; %llu and %llu%s%s "
                 "in %s",
                 (unsigned long long)first->record.tokens, (unsigned long long)first->record.bytes,
                 *first->stream_xxh64 ? ", hash " : "", first->stream_xxh64, first->dir,
                 (unsigned long long)r->record.tokens, (unsigned long long)r->record.bytes,
                 *r->stream_xxh64 ? ", hash " : "", r->stream_xxh64, r->dir);
        }
    }
    if (same && s->runs > 1)
        note(s, "R-SIGNIFICANCE", SUBMIT_KEPT, "%zu runs of the same recipe, seeds apart", s->runs);
    if (stream && first->has_report && !first->partial)
        judge_stream(s, first->record.tokens, first->record.bytes);
    if (s->runs < 3)
        note(s, "R-SIGNIFICANCE", strict(s) ? SUBMIT_BROKEN : SUBMIT_OPEN,
             "%zu run%s, a record most often has 3", s->runs, s->runs == 1 ? "" : "s");
}

static void judge_names(struct submit *s)
{
    const struct submit_job *j = s->job;
    if (!j->author || !j->github)
        note(s, "R-METADATA", strict(s) ? SUBMIT_BROKEN : SUBMIT_OPEN, "%s%s%s missing",
             j->author ? "" : "--author", j->author || j->github ? "" : " and ",
             j->github ? "" : "--github-id");
    if (j->name)
        return;
    note(s, "R-METADATA", SUBMIT_OPEN, "--name is missing; the run's own is used");
}

static void judge_gain(struct submit *s)
{
    const struct submit_job *j = s->job;
    struct stats old = stats_of(j->sota, j->sotas);
    if (!j->sotas) {
        note(s, "R-MARGIN", SUBMIT_OPEN, "not checked: --sota BPB names what is to be beaten");
        return;
    }
    /* Nats per token is the unit in which most records stated the margin. */
    double margin = MARGIN / (log(2) * s->scale), gain = old.mean - s->bpb.mean;
    struct t_test t =
        j->sotas > 1 ? t_welch(&s->bpb, &old, margin) : t_one_sample(&s->bpb, old.mean, margin);
    if (!t.valid)
        note(s, "R-MARGIN", SUBMIT_OPEN,
             "gain %.5f BPB, %.5f nats per token; nothing can be said about its significance", gain,
             gain * log(2) * s->scale);
    else
        note(s, "R-MARGIN", t.p < LEVEL ? SUBMIT_KEPT : SUBMIT_OPEN,
             "gain %.5f BPB, %.5f nats per token; that it exceeds 0.005 nats per token: p %.2g",
             gain, gain * log(2) * s->scale, t.p);
}

void submit_judge(struct submit *s)
{
    double bpb[SUBMIT_RUNS], loss[SUBMIT_RUNS], own[SUBMIT_RUNS];
    size_t n = 0;
    s->checks = s->broken = s->worst = 0;
    for (size_t i = 0; i < s->runs; i++) {
        if (s->run[i].blob.size > s->run[s->worst].blob.size)
            s->worst = i;
        if (s->run[i].why_report[0])
            continue;
        bpb[n] = s->run[i].record.val_bpb;
        loss[n] = s->run[i].record.val_loss;
        own[n++] = s->run[i].own.val_bpb;
    }
    s->bpb = stats_of(bpb, n);
    s->loss = stats_of(loss, n);
    s->own = stats_of(own, n);
    const struct submit_score *score = &s->run[0].record;
    s->scale = score->tokens ? (double)score->bytes / (double)score->tokens : NAN;
    judge_size(s);
    for (size_t i = 0; i < s->runs; i++)
        judge_run(s, &s->run[i]);
    judge_together(s);
    judge_names(s);
    if (n == s->runs)
        judge_gain(s);
    note(s, "R-FILES", SUBMIT_OPEN,
         "no train_gpt.py: the program is in the file, its settings are in recipe.conf");
}

/* ---- reading all runs ---- */

static int by_seed(const void *a, const void *b)
{
    const struct submit_run *x = a, *y = b;
    return x->seed < y->seed ? -1 : x->seed > y->seed;
}

enum err_code submit_open(struct submit *s, const struct submit_job *job, struct err *e)
{
    memset(s, 0, sizeof *s);
    s->job = job;
    for (size_t i = 0; i < job->runs; i++) {
        enum err_code rc = submit_run_read(&s->run[i], job->dir[i], e);
        if (rc) {
            submit_close(s);
            return rc;
        }
        s->runs++;
    }
    qsort(s->run, s->runs, sizeof *s->run, by_seed);
    submit_judge(s);
    return ERR_OK;
}

void submit_close(struct submit *s)
{
    for (size_t i = 0; i < s->runs; i++)
        submit_run_free(&s->run[i]);
    s->runs = 0;
}
