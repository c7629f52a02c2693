/*
 * record_json.c - record_json of record_report.h. docs/audit.md lists the keys.
 */
#include <math.h>
#include <string.h>

#include "model/text.h"
#include "verify/record_report.h"

/* val_loss and val_bpb as everybody prints them; what is unknown is null. */
static void fixed8(cJSON *to, const char *name, double v)
{
    char buf[48];
    struct text t = {buf, 0, sizeof buf};
    text_fixed8(&t, v);
    if (!strcmp(buf, "nan"))
        cJSON_AddNullToObject(to, name);
    else
        cJSON_AddRawToObject(to, name, buf);
}

static void number(cJSON *to, const char *name, double v)
{
    if (isfinite(v))
        cJSON_AddNumberToObject(to, name, v);
    else
        cJSON_AddNullToObject(to, name);
}

static void count(cJSON *to, const char *name, uint64_t v, bool have)
{
    if (have)
        cJSON_AddNumberToObject(to, name, (double)v);
    else
        cJSON_AddNullToObject(to, name);
}

static void string(cJSON *to, const char *name, const char *s)
{
    if (s && *s)
        cJSON_AddStringToObject(to, name, s);
    else
        cJSON_AddNullToObject(to, name);
}

/* The line that a value stands on, in the object `line_of` beside it. */
static void line(cJSON *to, const char *name, size_t at)
{
    cJSON *lines = cJSON_GetObjectItemCaseSensitive(to, "line_of");
    if (at && !lines)
        lines = cJSON_AddObjectToObject(to, "line_of");
    if (at)
        cJSON_AddNumberToObject(lines, name, (double)at);
}

static void log_count(cJSON *to, const char *name, const struct log_count *c)
{
    count(to, name, c->v, c->line > 0);
    line(to, name, c->line);
}

static void meta_number(cJSON *to, const char *name, const struct meta_number *n)
{
    number(to, name, n->have ? n->v : NAN);
    line(to, name, n->line);
}

/* ---- claimed ---- */

static void claimed(cJSON *root, const struct record *r)
{
    const struct record_meta *m = &r->meta;
    if (!m->path) {
        cJSON_AddNullToObject(root, "claimed");
        return;
    }
    cJSON *c = cJSON_AddObjectToObject(root, "claimed");
    cJSON_AddStringToObject(c, "file", m->path);
    cJSON_AddBoolToObject(c, "valid_json", m->valid);
    if (!m->valid) {
        cJSON_AddStringToObject(c, "problem", m->problem);
        return;
    }
    meta_number(c, "val_bpb", &m->bpb);
    string(c, "val_bpb_key", m->bpb.key);
    meta_number(c, "val_loss", &m->loss);
    meta_number(c, "val_bpb_std", &m->std);
    meta_number(c, "bytes_total", &m->total);
    string(c, "bytes_total_key", m->total.key);
    meta_number(c, "bytes_code", &m->code);
    meta_number(c, "step_stop", &m->steps);
    cJSON *per = cJSON_AddObjectToObject(c, "per_seed");
    cJSON *list = cJSON_AddArrayToObject(c, "seeds");
    for (size_t i = 0; i < m->seeds; i++) {
        const struct meta_seed *s = &m->seed[i];
        char name[32];
        snprintf(name, sizeof name, "%lld", s->seed);
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
        if (!s->bpb.have && !s->loss.have && !s->bytes.have && !s->steps.have)
            continue;
        cJSON *o = cJSON_AddObjectToObject(per, name);
        if (s->bpb.have)
            number(o, "val_bpb", s->bpb.v);
        if (s->loss.have)
            number(o, "val_loss", s->loss.v);
        if (s->bytes.have)
            number(o, "artifact_bytes", s->bytes.v);
        if (s->steps.have)
            number(o, "steps", s->steps.v);
    }
    string(c, "author", m->author);
    string(c, "github_id", m->github_id);
    string(c, "name", m->name);
    string(c, "date", m->date);
    string(c, "track", m->track);
    string(c, "hardware", m->hardware);
}

/* ---- logs ---- */

static cJSON *metric(const struct metric *m)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "label", m->label);
    cJSON_AddStringToObject(o, "kind", metric_kind_name[m->kind]);
    cJSON_AddNumberToObject(o, "line", (double)m->line);
    fixed8(o, "val_loss", m->val_loss);
    fixed8(o, "val_bpb", m->val_bpb);
    cJSON_AddNumberToObject(o, "decimals", m->decimals);
    number(o, "eval_ms", m->eval_ms);
    count(o, "stride", (uint64_t)m->stride, m->stride > 0);
    number(o, "bytes_per_token", round(metric_bytes_per_token(m) * 1e5) / 1e5);
    return o;
}

static cJSON *run_json(const struct record *r, const struct record_run *run)
{
    const struct record_log *l = &run->log;
    const struct metric *head = record_log_headline(l);
    char text[32];
    cJSON *o = cJSON_CreateObject(), *a;
    cJSON_AddStringToObject(o, "path", l->path);
    if (record_log_seed(l) >= 0) {
        snprintf(text, sizeof text, "%lld", record_log_seed(l));
        cJSON_AddStringToObject(o, "seed", text);
    } else {
        cJSON_AddNullToObject(o, "seed");
    }
    a = cJSON_AddArrayToObject(o, "seed_printed");
    for (size_t i = 0; i < l->seeds; i++) {
        snprintf(text, sizeof text, "%lld", l->seed[i].v);
        cJSON_AddItemToArray(a, cJSON_CreateString(text));
    }
    cJSON_AddNumberToObject(o, "lines", (double)l->lines);
    cJSON_AddItemToObject(o, "headline", head ? metric(head) : cJSON_CreateNull());
    a = cJSON_AddArrayToObject(o, "all_final");
    for (size_t i = 0; i < l->finals; i++)
        cJSON_AddItemToArray(a, metric(&l->final[i]));
    cJSON_AddItemToObject(o, "last_periodic",
                          l->periodic.line ? metric(&l->periodic) : cJSON_CreateNull());
    log_count(o, "steps", &l->steps);
    log_count(o, "train_ms", &l->train_ms);
    cJSON_AddNumberToObject(o, "n_runs_in_file", (double)l->runs);
    log_count(o, "model_bytes", &l->model);
    log_count(o, "code_bytes_counted", &l->code);
    log_count(o, "code_bytes_uncompressed", &l->code_plain);
    log_count(o, "total_bytes", &l->total);
    a = cJSON_AddArrayToObject(o, "times");
    for (size_t i = 0; i < l->times; i++) {
        cJSON *t = cJSON_CreateObject();
        cJSON_AddStringToObject(t, "what", log_time_name[l->time[i].kind]);
        cJSON_AddNumberToObject(t, "seconds", l->time[i].seconds);
        cJSON_AddNumberToObject(t, "line", (double)l->time[i].line);
        cJSON_AddItemToArray(a, t);
    }
    number(o, "eval_seconds", record_log_eval(l) > 0 ? record_log_eval(l) : NAN);
    log_count(o, "val_tokens", &l->val_tokens);
    number(o, "implied_bytes_per_token", round(run->bytes_per_token * 1e5) / 1e5);
    number(o, "implied_val_bytes", round(run->val_bytes));
    string(o, "denominator", run->denominator);
    log_count(o, "train_shards", &l->train_shards);
    log_count(o, "world_size", &l->world);
    log_count(o, "model_params", &l->params);
    if (l->source_n) {
        cJSON *s = cJSON_AddObjectToObject(o, "embedded_source");
        cJSON_AddStringToObject(s, "kind", run->source_same ? "verbatim" : "differs");
        string(s, "script", run->source_file);
        cJSON_AddNumberToObject(s, "bytes", (double)l->source_n - 1);
        cJSON_AddNumberToObject(s, "line", (double)l->source_line);
    } else {
        cJSON_AddNullToObject(o, "embedded_source");
    }
    cJSON_AddBoolToObject(o, "averaged", run->headline);
    string(o, "duplicate_of",
           run->duplicate_of == SIZE_MAX ? NULL : r->run[run->duplicate_of].log.path);
    return o;
}

static void logs(cJSON *root, const struct record *r)
{
    cJSON *f = cJSON_AddObjectToObject(root, "from_logs"), *a, *g;
    a = cJSON_AddArrayToObject(f, "per_log");
    for (size_t i = 0; i < r->runs; i++)
        cJSON_AddItemToArray(a, run_json(r, &r->run[i]));
    a = cJSON_AddArrayToObject(f, "headline_logs");
    for (size_t i = 0; i < r->heads; i++)
        cJSON_AddItemToArray(a, cJSON_CreateString(r->run[r->head[i]].log.path));
    g = cJSON_AddObjectToObject(f, "aggregate");
    cJSON_AddNumberToObject(g, "n", (double)r->heads);
    a = cJSON_AddArrayToObject(g, "seeds");
    for (size_t i = 0; i < r->heads; i++) {
        char text[32];
        snprintf(text, sizeof text, "%lld", record_log_seed(&r->run[r->head[i]].log));
        cJSON_AddItemToArray(a, *text == '-' ? cJSON_CreateNull() : cJSON_CreateString(text));
    }
    fixed8(g, "mean_bpb", r->bpb.mean);
    fixed8(g, "min_bpb", r->bpb.min);
    fixed8(g, "max_bpb", r->bpb.max);
    fixed8(g, "mean_loss", r->loss.mean);
    if (r->heads > 1) {
        fixed8(g, "sample_std_bpb", r->bpb.sd);
        fixed8(g, "population_std_bpb", r->bpb.sd_pop);
    }
}

/* ---- size and code ---- */

static void list(cJSON *to, const char *name, const uint64_t *v, size_t n)
{
    cJSON *a = cJSON_AddArrayToObject(to, name);
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(a, cJSON_CreateNumber((double)v[i]));
}

static void size(cJSON *root, const struct record *r)
{
    const struct record_size *s = &r->size;
    bool code = r->script.file != NULL;
    cJSON *o = cJSON_AddObjectToObject(root, "size");
    cJSON_AddNumberToObject(o, "cap", RECORD_CAP);
    count(o, "script_bytes_in_git", s->script, code);
    count(o, "effective_code_bytes", s->effective, code);
    cJSON_AddNumberToObject(o, "imported_sibling_bytes", (double)s->siblings);
    count(o, "program_bytes", s->program, s->program > 0);
    cJSON_AddNumberToObject(o, "tokenizer_bytes", (double)s->tokenizer);
    list(o, "code_bytes_in_logs", s->code, s->codes);
    list(o, "code_bytes_uncompressed_in_logs", s->plain, s->plains);
    count(o, "max_model_bytes", s->model, s->model > 0);
    count(o, "max_total_in_logs", s->total, s->total > 0);
    count(o, "as_shipped_total", s->shipped, s->shipped > 0);
    count(o, "as_shipped_total_with_siblings", s->shipped_siblings, s->shipped > 0);
    number(o, "headroom_claimed", s->total ? (double)RECORD_CAP - (double)s->total : NAN);
    cJSON_AddBoolToObject(o, "fits_16_mib_only", s->total > RECORD_CAP && s->total <= RECORD_MIB);
}

static void code(cJSON *root, const struct record *r)
{
    static const char *const cond[] = {"not checked", "met", "not met"};
    static const char *const used[] = {"not told", "yes", "no"};
    const struct record_script *c = &r->script;
    cJSON *o = cJSON_AddObjectToObject(root, "code"), *a;
    string(o, "main", c->file ? c->file->path : NULL);
    count(o, "bytes", c->file ? c->file->size : 0, c->file != NULL);
    string(o, "executes", c->target ? c->target->path : NULL);
    if (c->wrapped) {
        cJSON *w = cJSON_AddObjectToObject(o, "wrapper");
        cJSON_AddStringToObject(w, "kind", c->family);
        cJSON_AddNumberToObject(w, "decoded_bytes", (double)c->source_n);
    }
    if (c->source)
        cJSON_AddBoolToObject(o, "parses_py311", !c->new_syntax);
    a = cJSON_AddArrayToObject(o, "other_code_files");
    for (size_t i = 0; i < r->folder.files; i++) {
        const struct record_file *f = &r->folder.file[i];
        if ((f->kind != RECORD_SCRIPT && f->kind != RECORD_CODE) || f == c->file)
            continue;
        cJSON *x = cJSON_CreateObject();
        cJSON_AddStringToObject(x, "path", f->path);
        cJSON_AddNumberToObject(x, "bytes", (double)f->size);
        cJSON_AddItemToArray(a, x);
    }
    a = cJSON_AddArrayToObject(o, "imported_siblings");
    for (size_t i = 0; i < c->siblings; i++)
        cJSON_AddItemToArray(a, cJSON_CreateString(c->sibling[i]->path));
    if (!c->have_facts)
        return;
    string(o, "compressor", c->facts.compressor);
    string(o, "quantiser", c->facts.quantiser);
    cJSON_AddBoolToObject(o, "byte_sidecar", c->facts.byte_sidecar);
    cJSON_AddBoolToObject(o, "caseops", c->facts.caseops);
    a = cJSON_AddArrayToObject(root, "methods");
    for (size_t i = 0; i < c->facts.methods; i++) {
        const struct method_facts *f = &c->facts.method[i];
        cJSON *x = cJSON_CreateObject(), *k = NULL;
        cJSON_AddStringToObject(x, "method", method_name[f->method]);
        cJSON_AddStringToObject(x, "used", used[f->used]);
        string(x, "form", f->form);
        cJSON_AddNumberToObject(x, "line", (double)f->line);
        count(x, "stride", (uint64_t)f->stride, f->stride > 0);
        count(x, "seq_len", (uint64_t)f->seq, f->seq > 0);
        k = cJSON_AddObjectToObject(x, "conditions");
        for (size_t j = 0; j < 4; j++) {
            const char name[3] = {'C', (char)('1' + j), 0};
            cJSON *y = cJSON_AddObjectToObject(k, name);
            cJSON_AddStringToObject(y, "state", cond[f->cond[j]]);
            string(y, "why", f->why[j]);
            count(y, "line", f->why_line[j], f->why_line[j] > 0);
        }
        cJSON_AddItemToArray(a, x);
    }
}

/* ---- verdicts ---- */

static void mismatches(cJSON *root, const struct record *r)
{
    cJSON *a = cJSON_AddArrayToObject(root, "mismatches");
    for (size_t i = 0; i < r->findings; i++) {
        const struct record_finding *f = &r->finding[i];
        cJSON *o = cJSON_CreateObject(), *e;
        cJSON_AddStringToObject(o, "code", record_code_info[f->code].code);
        cJSON_AddStringToObject(o, "severity", record_severity_name[f->severity]);
        cJSON_AddStringToObject(o, "rule", record_code_info[f->code].rule);
        cJSON_AddStringToObject(o, "detail", f->text ? f->text : "");
        e = cJSON_AddArrayToObject(o, "evidence");
        for (size_t k = 0; k < f->ats; k++) {
            cJSON *x = cJSON_CreateObject();
            cJSON_AddStringToObject(x, "file", f->at[k].file);
            count(x, "line", f->at[k].line, f->at[k].line > 0);
            cJSON_AddItemToArray(e, x);
        }
        cJSON_AddItemToArray(a, o);
    }
}

static void test(cJSON *to, const char *name, const struct t_test *t)
{
    cJSON *o = cJSON_AddObjectToObject(to, name);
    number(o, "t", t->valid ? t->t : NAN);
    number(o, "df", t->valid ? t->df : NAN);
    number(o, "p_one_sided", t->valid ? t->p : NAN);
}

static void statistics(cJSON *root, const struct record *r, const struct record_sota *sota)
{
    struct record_test t[RECORD_UNITS];
    if (!sota->n || !r->bpb.n) {
        cJSON_AddNullToObject(root, "statistics");
        return;
    }
    record_test(t, r, sota);
    cJSON *o = cJSON_AddObjectToObject(root, "statistics");
    cJSON_AddStringToObject(o, "against", sota->name);
    cJSON_AddStringToObject(o, "test", sota->n > 1 ? "welch" : "one-sample");
    for (size_t u = 0; u < RECORD_UNITS; u++) {
        cJSON *x = cJSON_AddObjectToObject(o, record_unit_name[u]);
        if (!t[u].possible) {
            cJSON_AddStringToObject(x, "not_compared", t[u].why);
            continue;
        }
        fixed8(x, t[u].gain < 0 ? "loss" : "gain", fabs(t[u].gain));
        test(x, "gain_over_0.005", &t[u].margin);
        test(x, "gain_over_0", &t[u].plain);
    }
}

cJSON *record_json(const struct record *r, const struct record_sota *sota)
{
    static const char *const track[] = {"unknown", "track_10min_16mb", "track_non_record_16mb"};
    static const char *const convention[] = {NULL, "sample (n-1)", "population (n)"};
    cJSON *root = cJSON_CreateObject(), *o;
    cJSON_AddStringToObject(root, "folder", r->folder.name);
    cJSON_AddStringToObject(root, "track", track[r->track]);
    cJSON_AddStringToObject(root, "track_from", r->track_why);
    if (r->row) {
        o = cJSON_AddObjectToObject(root, "leaderboard");
        cJSON_AddStringToObject(o, "run", r->row->run);
        cJSON_AddNumberToObject(o, "score", r->row->score);
        cJSON_AddNumberToObject(o, "line", (double)r->row->line);
    } else {
        cJSON_AddNullToObject(root, "leaderboard");
    }
    claimed(root, r);
    logs(root, r);
    size(root, r);
    code(root, r);
    cJSON *tolerances = cJSON_AddObjectToObject(root, "tolerances");
    cJSON_AddNumberToObject(tolerances, "val_bpb", RECORD_BPB_TOL);
    cJSON_AddNumberToObject(tolerances, "bytes", 0);
    cJSON_AddNumberToObject(tolerances, "denominator_relative", RECORD_DENOM_TOL);
    cJSON_AddNumberToObject(tolerances, "train_time_grace_ms", RECORD_GRACE_MS);
    string(root, "claim_basis", r->basis_text);
    string(root, "std_convention", convention[r->std_convention]);
    statistics(root, r, sota);
    o = cJSON_AddObjectToObject(root, "claims");
    for (size_t i = 0; i < RCLAIM_COUNT; i++)
        cJSON_AddStringToObject(o, record_claim_name[i], claim_state_name[r->claim[i]]);
    mismatches(root, r);
    o = cJSON_AddArrayToObject(root, "not_checked");
    for (size_t i = 0; i < r->uncheckeds; i++)
        cJSON_AddItemToArray(o, cJSON_CreateString(r->unchecked[i]));
    cJSON_AddStringToObject(root, "verdict",
                            record_contradicted(r) ? "contradicted" : "not contradicted");
    return root;
}
