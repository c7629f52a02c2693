/*
 * probe.c - verify probe: does any score depend on its own future? docs/scoring.md, "The probe".
 *
 * For each mode: a stream out of the data, run twice; streams with a change in them (probe_flip.h);
 * the sum over all candidates at a few places (probe_sum.h); the verdict (probe_judge.h).
 */
#include "verify/probe_trial.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/clock.h"
#include "model/shard.h"
#include "verify/commands.h"

/* Long enough that a look ahead over a whole window of 2048 and of a batch of 32 windows shows. */
enum { POSITIONS = 4096, WORKERS = 16 };

void probe_trial_show(struct probe_trial *t, const char *what, size_t done, size_t all)
{
    struct progress *p = &t->p->progress;
    double now = seconds_now(), ran = now - p->start;
    if (!p->on || !done || now - p->shown < (p->tty ? 0.2 : 30.0))
        return;
    p->shown = now;
    p->drawn = true;
    fprintf(stderr, "%sprobing %s: %s, run %zu of %zu, %.0f s left%s", p->tty ? "\r" : "",
            t->job.mode, what, done, all, ran * (double)(all - done) / (double)done,
            p->tty ? "\033[K" : "\n");
}

/* ---- one run, and what a failure means ---- */

/* A program that fails is a finding, not an error of the probe: *failed. */
static enum err_code run(struct probe_trial *t, const uint16_t *tok, struct probe_scores *s,
                         bool *failed, struct err *e)
{
    struct probe *p = t->p;
    struct err why = {0};
    enum err_code rc = probe_run(&t->job, 0, tok, t->n, s, &why);

    *failed = rc == ERR_CLAIM;
    if (*failed)
        snprintf(t->facts.failed, sizeof t->facts.failed, "%s", why.msg);
    else if (rc)
        return err_set(e, rc, "%s", why.msg);
    probe_trial_show(t, "flip test", ++t->runs, t->planned);
    if (!rc && !p->told) {
        char layers[160];
        const struct sandbox_result box = {.layers = s->layers, .landlock_abi = s->landlock_abi};
        sandbox_layers(&box, layers, sizeof layers);
        report_line(p->r, "sandbox      %s", layers);
        p->told = true;
    }
    return ERR_OK;
}

/* ---- the stream as it is ---- */

static void check_line(struct probe_trial *t)
{
    struct probe_facts *f = &t->facts;
    const struct probe_file *file = &t->p->file;
    struct probe_line l;
    double nll = 0;
    unsigned long long bytes = 0;

    for (size_t i = 0; i < t->base.count; i++) {
        size_t at = t->map.token[i];
        nll += t->base.nll[i];
        if (file->b.b.vocab)
            bytes += bytes_of(&file->b.b, t->tok[at - 1], t->tok[at]);
    }
    f->bytes_per_token = (double)bytes / (double)t->base.count;
    double loss = nll / (double)t->base.count, bpb = probe_bpb(loss, f->bytes_per_token);
    if (!t->base.line[0])
        snprintf(f->line, sizeof f->line, "it printed no line \"final_%s ...\"", t->job.mode);
    else if (!probe_line_parse(t->base.line, &l))
        snprintf(f->line, sizeof f->line, "its result line is unreadable: %.120s", t->base.line);
    else if (l.tokens != t->base.count)
        snprintf(f->line, sizeof f->line, "its result line says tokens:%llu, it sent %zu scores",
                 l.tokens, t->base.count);
    else if (bytes && l.bytes != bytes)
        snprintf(f->line, sizeof f->line, "its result line says bytes:%llu, the tokens are %llu",
                 l.bytes, bytes);
    else if (!(fabs(l.val_loss - loss) <= 2e-6))
        snprintf(f->line, sizeof f->line,
                 "its result line says val_loss:%.8f, the scores mean %.8f", l.val_loss, loss);
    else if (bytes && !(fabs(l.val_bpb - bpb) <= 2e-6))
        snprintf(f->line, sizeof f->line, "its result line says val_bpb:%.8f, the scores give %.8f",
                 l.val_bpb, bpb);
}

/* Twice: what differs without a change in the stream is no sign of anything. */
static enum err_code baseline(struct probe_trial *t, bool *stop, struct err *e)
{
    struct probe_facts *f = &t->facts;
    struct probe_scores again = {0};
    enum err_code rc = run(t, t->tok, &t->base, stop, e);

    f->expected = t->map.count;
    if (rc || *stop)
        return rc;
    f->count = t->base.count;
    if (f->count != f->expected) {
        *stop = true;
        return ERR_OK;
    }
    check_line(t);
    probe_claims(f->claim, t->base.conditions);
    if ((rc = run(t, t->tok, &again, stop, e)) || *stop)
        return rc;
    if (again.count != f->count)
        f->unlike = f->count;
    for (size_t i = 0; i < f->count; i++) {
        double s = t->base.nll[i];
        f->impossible += !(s >= -1e-5 && isfinite(s)); /* -1e-5: a probability of 1, rounded */
        if (again.count == f->count)
            f->unlike += memcmp(&s, &again.nll[i], sizeof s) != 0;
    }
    probe_scores_free(&again);
    *stop = f->unlike > 0;
    return ERR_OK;
}

/* ---- the flip test ---- */

static void tell_change(struct probe_trial *t, int form, const struct probe_change *c, cJSON *list)
{
    static const char *const what[] = {"all from", "only"};
    if (c->changed)
        report_line(t->p->r,
                    "%-12s %s token %zu changed: %zu of %zu earlier scores changed, by up to "
                    "%.6g nats (token %zu), up to %zu tokens before, %zu beyond their window",
                    t->job.mode, what[form], c->at, c->changed, c->earlier, c->worst, c->worst_at,
                    c->distance, c->beyond);
    else
        report_line(t->p->r, "%-12s %s token %zu changed: %zu earlier scores, all the same",
                    t->job.mode, what[form], c->at, c->earlier);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "form", form + 1);
    cJSON_AddNumberToObject(j, "token", (double)c->at);
    cJSON_AddNumberToObject(j, "earlier", (double)c->earlier);
    cJSON_AddNumberToObject(j, "changed", (double)c->changed);
    cJSON_AddNumberToObject(j, "beyond_window", (double)c->beyond);
    cJSON_AddNumberToObject(j, "distance", (double)c->distance);
    cJSON_AddNumberToObject(j, "largest", c->worst);
    cJSON_AddNumberToObject(j, "largest_at", (double)c->worst_at);
    cJSON_AddNumberToObject(j, "sum", c->sum);
    cJSON_AddBoolToObject(j, "own_changed", c->own);
    cJSON_AddItemToArray(list, j);
}

static enum err_code flip(struct probe_trial *t, int form, size_t at, cJSON *list, bool *stop,
                          struct err *e)
{
    struct probe *p = t->p;
    struct probe_scores s = {0};
    struct probe_change c;

    memcpy(t->changed, t->tok, t->n * sizeof *t->tok);
    if (form)
        t->changed[at] = probe_other(&t->random, t->tok[at], p->file.vocab);
    else
        probe_flip_rest(t->changed, t->n, at, p->data, p->n, p->file.vocab, &t->random);
    enum err_code rc = run(t, t->changed, &s, stop, e);
    if (rc || *stop)
        return rc;
    if (s.count == t->map.count) {
        probe_compare(&c, &t->map, t->base.nll, s.nll, at);
        if (!form)
            probe_stuck_add(&t->stuck, &t->map, t->base.nll, s.nll, at);
        probe_form_add(&t->facts.form[form], &c);
        tell_change(t, form, &c, list);
    } else {
        t->facts.count = s.count;
        *stop = true;
    }
    probe_scores_free(&s);
    return ERR_OK;
}

static enum err_code flips(struct probe_trial *t, bool *stop, struct err *e)
{
    size_t count = t->p->o->flips, first;
    cJSON *list = cJSON_AddArrayToObject(t->json, "changes");
    t->stuck.tried = calloc(2 * t->map.count, 1);
    if (!t->stuck.tried)
        return err_nomem(e, "a list of scores", 2 * t->map.count);
    t->stuck.same = t->stuck.tried + t->map.count;
    for (int form = 0; form < 2; form++)
        for (size_t i = 0; i < count && !*stop; i++) {
            size_t at = probe_place(&t->random, t->map.total, i, count);
            enum err_code rc = flip(t, form, at, list, stop, e);
            if (rc)
                return rc;
        }
    t->facts.stuck = probe_stuck_count(&t->stuck, &t->map, t->base.nll, t->p->file.vocab,
                                       &t->facts.judged, &first);
    if (t->facts.stuck)
        report_line(t->p->r,
                    "%-12s %zu of %zu scores never change with their token; first token %zu",
                    t->job.mode, t->facts.stuck, t->facts.judged, first);
    return ERR_OK;
}

/* ---- a mode ---- */

/* How far back a token can matter in one pass over windows and batches of them. */
static size_t near(const struct probe *p)
{
    const struct recipe *r = &p->file.m.r;
    return recipe_eval_len(r) + (size_t)r->slot_batch_seqs * (size_t)r->eval_stride;
}

/* How much of the data: enough for every kind of look ahead, and in TTT for an update or two. */
static size_t positions(const struct probe *p, enum eval_mode mode)
{
    const struct recipe *r = &p->file.m.r;
    size_t len = recipe_eval_len(r), n = 2 * len > POSITIONS ? 2 * len : POSITIONS;
    bool context = mode == EVAL_SLOT_CONTEXT;
    if (context && n < len + near(p))
        n = len + near(p);
    if (mode == EVAL_TTT || (context && r->slot_after_ttt))
        n += (size_t)r->ttt_chunk_tokens;
    if (p->o->max_tokens)
        n = p->o->max_tokens;
    return n < p->n - 1 ? n : p->n - 1;
}

static enum err_code prepare(struct probe_trial *t, struct err *e)
{
    struct probe *p = t->p;
    enum err_code rc = probe_map_make(&t->map, &p->file.m, t->mode, positions(p, t->mode) + 1, e);
    if (rc)
        return rc;
    t->n = t->map.total + 1;
    t->random = (uint64_t)p->o->seed + ((uint64_t)t->mode << 32);
    t->from = probe_below(&t->random, p->n - t->n + 1);
    t->tok = p->data + t->from;
    t->changed = malloc(t->n * sizeof *t->changed);
    if (!t->changed)
        return err_nomem(e, "a stream", t->n * sizeof *t->changed);
    t->job = (struct probe_job){.file = &p->file,
                                .dir = &p->dir,
                                .mode = eval_mode_name(t->mode),
                                .threads = p->o->threads,
                                .max_tokens = t->map.total,
                                .seconds = (double)p->o->timeout,
                                .memory = p->o->memory << 20,
                                .weaker = p->o->weaker};
    t->facts.near = near(p);
    t->planned = 2 + 2 * p->o->flips;
    report_line(p->r, "%-12s %zu tokens from token %zu of the data, %zu windows, %zu scores",
                t->job.mode, t->n, t->from, t->map.windows, t->map.count);
    if (t->map.repeated)
        report_line(p->r, "%-12s its window list scores %zu tokens once more, the others once",
                    t->job.mode, t->map.repeated);
    return ERR_OK;
}

static void tell_leak(struct probe_trial *t)
{
    const struct probe_facts *f = &t->facts;
    const struct probe_form *a = &f->form[0];
    cJSON *j = cJSON_AddObjectToObject(t->json, "leak");

    if (a->changed) {
        double mean = a->sum / (double)a->changed;
        report_line(t->p->r,
                    "%-12s leak: with other text behind them, the %zu changed scores are %+.6f "
                    "nats per token on average (%+.6f bpb)",
                    t->job.mode, a->changed, mean, probe_bpb(mean, f->bytes_per_token));
        cJSON_AddNumberToObject(j, "later_nats_per_changed_token", mean);
        cJSON_AddNumberToObject(j, "later_bpb_per_changed_token",
                                probe_bpb(mean, f->bytes_per_token));
    }
    if (f->sums_off)
        report_line(t->p->r, "%-12s leak: ln sum is %+.6f nats per token on average (%+.6f bpb)",
                    t->job.mode, f->ln_sum, probe_bpb(f->ln_sum, f->bytes_per_token));
    if (f->sums) {
        cJSON_AddNumberToObject(j, "own_nats_per_token", f->ln_sum);
        cJSON_AddNumberToObject(j, "own_bpb", probe_bpb(f->ln_sum, f->bytes_per_token));
    }
}

static void tell_verdict(struct probe_trial *t, const struct probe_verdict *v)
{
    struct report *r = t->p->r;
    char line[PROBE_REASONS * 202 + 200], *at = line, *end = line + sizeof line;
    cJSON *reasons = cJSON_AddArrayToObject(t->json, "reasons");
    cJSON *conditions = cJSON_AddArrayToObject(t->json, "conditions");

    at += snprintf(at, (size_t)(end - at), "%s: %s", t->job.mode, v->verdict);
    for (size_t i = 0; i < v->reasons; i++) {
        at += snprintf(at, (size_t)(end - at), "%s %s", i ? ";" : ":", v->reason[i]);
        cJSON_AddItemToArray(reasons, cJSON_CreateString(v->reason[i]));
    }
    at += snprintf(at, (size_t)(end - at), "; conditions");
    for (size_t i = 0; i < PROBE_CONDITIONS; i++) {
        const char *answer = probe_answer_name(v->condition[i]);
        at += snprintf(at, (size_t)(end - at), "%s %zu %s", i ? "," : "", i + 1, answer);
        cJSON_AddItemToArray(conditions, cJSON_CreateString(answer));
    }
    report_say(r, "%s", line);
    cJSON_AddStringToObject(t->json, "verdict", v->verdict);
}

static enum err_code probe_mode(struct probe *p, enum eval_mode mode, cJSON *list, struct err *e)
{
    struct probe_trial t = {.p = p, .mode = mode, .json = cJSON_CreateObject()};
    struct probe_verdict v;
    bool stop = false;
    enum err_code rc;

    cJSON_AddItemToArray(list, t.json);
    cJSON_AddStringToObject(t.json, "mode", eval_mode_name(mode));
    progress_init(&p->progress, !p->o->quiet);
    if ((rc = prepare(&t, e)) || (rc = baseline(&t, &stop, e)) ||
        (!stop && (rc = flips(&t, &stop, e))))
        goto out;
    progress_end(&p->progress);
    if (!stop && (rc = probe_trial_sums(&t, &stop, e)))
        goto out;
    cJSON_AddNumberToObject(t.json, "data_from", (double)t.from);
    cJSON_AddNumberToObject(t.json, "stream", (double)t.n);
    cJSON_AddNumberToObject(t.json, "expected", (double)t.map.count);
    cJSON_AddNumberToObject(t.json, "scores", (double)t.facts.count);
    cJSON_AddNumberToObject(t.json, "scored_again", (double)t.map.repeated);
    cJSON_AddNumberToObject(t.json, "unlike", (double)t.facts.unlike);
    cJSON_AddNumberToObject(t.json, "stuck", (double)t.facts.stuck);
    probe_judge(&v, &t.facts);
    tell_leak(&t);
    tell_verdict(&t, &v);
    rc = v.confirmed ? ERR_OK : ERR_CLAIM;
out:
    progress_end(&p->progress);
    free(t.stuck.tried);
    free(t.changed);
    probe_scores_free(&t.base);
    probe_map_free(&t.map);
    return rc;
}

/* ---- the command ---- */

/* Bits of the modes asked for: a list, all, or the file's own mode and sliding. */
static enum err_code modes(const struct probe *p, unsigned *mask, struct err *e)
{
    const char *own = p->file.m.r.eval_mode, *list = p->o->eval;
    char name[64];

    *mask = 1u << EVAL_SLIDING;
    if (!list) {
        enum eval_mode m = eval_mode_parse(own);
        if (m == EVAL_MODES)
            return err_set(e, ERR_INPUT, "EVAL_MODE=%s: no mode of this version", own);
        *mask |= 1u << m;
        return ERR_OK;
    }
    for (*mask = 0; *list;) {
        size_t n = strcspn(list, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), list);
        enum eval_mode m = eval_mode_parse(name);
        if (!strcmp(name, "all"))
            *mask = (1u << EVAL_MODES) - 1;
        else if (m == EVAL_MODES)
            return err_set(e, ERR_USAGE, "--eval %s: no such mode; all stands for all of them",
                           name);
        else
            *mask |= 1u << m;
        list += n + (list[n] == ',');
    }
    return *mask ? ERR_OK : err_set(e, ERR_USAGE, "--eval: say which modes, or all");
}

static size_t workers(const struct options *o)
{
    cpu_set_t set;
    size_t n = o->threads;
    if (!n)
        n = sched_getaffinity(0, sizeof set, &set) ? 1 : (size_t)CPU_COUNT(&set);
    return n < WORKERS ? n : WORKERS;
}

static void tell_file(struct probe *p)
{
    const struct recipe *r = &p->file.m.r;
    report_line(p->r, "file         %s, %s", p->file.path,
                p->file.ours ? "every byte and hash in order"
                             : "another format: window list by the settings given");
    report_line(p->r, "windows      %zu tokens, stride %lld, list %s, vocabulary %zu",
                recipe_eval_len(r), (long long)r->eval_stride, r->eval_windows, p->file.vocab);
    report_line(p->r, "bytes        %s%s",
                p->file.b.b.vocab ? "counted by " : "not checked: no tokeniser near the data",
                p->file.b.b.vocab ? p->file.b.origin : "");
    if (p->file.table_differs)
        report_line(p->r, "byte table   the file's own differs");
    cJSON_AddStringToObject(p->r->root, "format", p->file.ours ? "submission" : "other");
    cJSON_AddNumberToObject(p->r->root, "seed", (double)p->o->seed);
    if (p->file.b.b.vocab)
        cJSON_AddStringToObject(p->r->root, "byte_table", p->file.b.origin);
}

static enum err_code probe_all(struct probe *p, struct err *e)
{
    unsigned mask;
    bool confirmed = true;
    enum err_code rc;

    if ((rc = probe_file_open(&p->file, p->o, e)) || (rc = modes(p, &mask, e)) ||
        (rc = shard_load(&p->data, &p->n, p->o->data, "val", p->file.vocab, 0, e)))
        return rc;
    if (p->n <= recipe_eval_len(&p->file.m.r))
        return err_set(e, ERR_INPUT, "%s: %zu tokens, one window needs %zu", p->o->data, p->n,
                       recipe_eval_len(&p->file.m.r) + 1);
    tell_file(p);
    p->workers = workers(p->o);
    if ((rc = probe_dir_open(&p->dir, e)))
        return rc;
    cJSON *list = cJSON_AddArrayToObject(p->r->root, "modes");
    for (int m = 0; m < EVAL_MODES; m++) {
        if (!(mask & 1u << m))
            continue;
        rc = probe_mode(p, (enum eval_mode)m, list, e);
        confirmed = confirmed && !rc;
        if (rc && rc != ERR_CLAIM)
            return rc;
    }
    cJSON_AddBoolToObject(p->r->root, "confirmed", confirmed);
    return confirmed ? ERR_OK : ERR_CLAIM;
}

enum err_code verify_probe(const struct options *o, struct report *r, struct err *e)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, "the probe", sizeof *p);
    p->o = o;
    p->r = r;
    cJSON_AddStringToObject(r->root, "command", "probe");
    cJSON_AddStringToObject(r->root, "file", o->file);
    enum err_code rc = probe_all(p, e);
    probe_dir_close(&p->dir);
    engine_close(&p->engine);
    free(p->data);
    probe_file_close(&p->file);
    free(p);
    return rc;
}
