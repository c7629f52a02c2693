/*
 * record_size.c - bytes: as counted by the logs, as they lie in the folder, as claimed.
 *
 * "Code size" in a log is that of the running script. Late scripts print the size of a minified and
 * compressed copy as well, which often is not in the folder: then the files as shipped can pass the
 * cap although every log stays below it. That is a fact about the folder, not a broken rule.
 */
#include <math.h>
#include <string.h>

#include "verify/record.h"

static void insert(uint64_t *list, size_t *n, uint64_t v)
{
    size_t i = 0;
    while (i < *n && list[i] < v)
        i++;
    if ((i < *n && list[i] == v) || *n == RECORD_HEADS)
        return;
    memmove(list + i + 1, list + i, (*n - i) * sizeof *list);
    list[i] = v;
    ++*n;
}

/* The headline logs; all distinct ones where those print no sizes (scored from a file, say). */
static bool counts(const struct record *r, size_t i, bool heads_have_sizes)
{
    const struct record_run *run = &r->run[i];
    if (run->duplicate_of != SIZE_MAX)
        return false;
    return run->headline || !heads_have_sizes;
}

static bool heads_have_sizes(const struct record *r)
{
    for (size_t i = 0; i < r->heads; i++)
        if (r->run[r->head[i]].log.total.line)
            return true;
    return false;
}

void record_sizes(struct record *r)
{
    struct record_size *s = &r->size;
    bool heads = heads_have_sizes(r);
    s->script = r->script.file ? r->script.file->size : 0;
    s->effective = record_script_size(&r->script);
    s->siblings = record_script_sibling_bytes(&r->script);
    for (size_t i = 0; i < r->folder.files; i++) {
        const struct record_file *f = &r->folder.file[i];
        size_t n = strlen(f->path);
        if (f->kind == RECORD_TOKENIZER && n > 6 && !strcmp(f->path + n - 6, ".model"))
            s->tokenizer += f->size;
        if (f->kind == RECORD_WEIGHTS)
            s->weights += f->size;
        if (f->kind == RECORD_PROGRAM && !r->script.file && f->size > s->program) {
            s->program = f->size;
            s->program_path = f->path;
        }
    }
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        if (r->run[i].duplicate_of != SIZE_MAX)
            continue;
        if (l->code.line)
            insert(s->code, &s->codes, l->code.v);
        if (l->code_plain.line)
            insert(s->plain, &s->plains, l->code_plain.v);
        if (!counts(r, i, heads))
            continue;
        if (l->model.line && l->model.v > s->model) {
            s->model = l->model.v;
            s->model_log = i;
        }
        if (l->total.line && l->total.v > s->total) {
            s->total = l->total.v;
            s->total_log = i;
            s->rounded = l->total.rounded;
        }
    }
    if (s->model && s->effective) {
        s->shipped = s->model + s->effective;
        s->shipped_siblings = s->shipped + s->siblings;
    }
}

/* ---- checks ---- */

static const char *mib(uint64_t total)
{
    return total > RECORD_CAP && total <= RECORD_MIB
               ? "; fits 16 MiB, but the cap is 16 MB (decimal)"
               : "";
}

static void over_cap(struct record *r)
{
    struct record_finding *f = NULL;
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        if (r->run[i].duplicate_of != SIZE_MAX || !l->total.line || l->total.v <= RECORD_CAP)
            continue;
        if (f)
            record_also(f, l->path, l->total.line);
        else
            f = record_find(
                r, RC_LOG_CAP, l->path, l->total.line, "%s%s prints %s bytes, %s over the cap%s",
                l->path, !r->heads || r->run[i].headline ? "" : " (not averaged)",
                record_count(l->total.v), record_count(l->total.v - RECORD_CAP), mib(l->total.v));
    }
    if (r->size.program > RECORD_CAP)
        record_find(r, RC_FILE_CAP, r->size.program_path, 0, "%s has %s bytes, %s over the cap%s",
                    r->size.program_path, record_count(r->size.program),
                    record_count(r->size.program - RECORD_CAP), mib(r->size.program));
    const struct meta_number *t = &r->meta.total;
    if (t->have && r->size.program && t->v != (double)r->size.program)
        record_find(r, RC_TOTAL, r->meta.path, t->line, "claims %s bytes; %s has %s",
                    record_count((uint64_t)fmax(t->v, 0)), r->size.program_path,
                    record_count(r->size.program));
    if (t->have && t->v > RECORD_CAP)
        record_find(r, RC_JSON_CAP, r->meta.path, t->line, "claims %s bytes, %s over the cap%s",
                    record_count((uint64_t)t->v), record_count((uint64_t)t->v - RECORD_CAP),
                    mib((uint64_t)t->v));
}

/*
 * The claimed total against the totals of the logs: the largest one is right; another one, their
 * mean, the model without code, or nothing of these is said by name.
 */
static void claimed_total(struct record *r)
{
    const struct meta_number *t = &r->meta.total;
    uint64_t smallest = UINT64_MAX, largest = 0;
    double sum = 0, models = 0, units = 0;
    size_t n = 0, with_model = 0;
    bool found = false, model = false, rounded = false, shipped = false;
    bool heads = heads_have_sizes(r);
    if (!t->have || !r->size.total)
        return;
    uint64_t v = (uint64_t)fmax(t->v, 0);
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        if (!counts(r, i, heads))
            continue;
        if (l->model.line) {
            model |= l->model.v == v && !l->model.rounded;
            shipped |= r->size.effective && l->model.v + r->size.effective == v;
            models += (double)l->model.v;
            with_model++;
        }
        if (!l->total.line)
            continue;
        units = l->total.rounded ? 5000.0 : 0; /* printed as 15.50 */
        found |= fabs((double)l->total.v - t->v) <= units;
        rounded |= l->total.rounded;
        largest = l->total.v > largest ? l->total.v : largest;
        sum += (double)l->total.v;
        smallest = l->total.v < smallest ? l->total.v : smallest;
        n++;
    }
    if (v % 10000 == 0)
        record_find(r, RC_ROUND, r->meta.path, t->line, "%s %s is a rounded figure", t->key,
                    record_count(v));
    if (found && (v == largest || rounded))
        return;
    bool mean = n > 1 && fabs(sum / (double)n - t->v) <= 1;
    if (found)
        record_find(r, RC_TOTAL_SEED, r->meta.path, t->line,
                    "claims %s bytes; the largest logged total is %s (%s)", record_count(v),
                    record_count(largest), r->run[r->size.total_log].log.path);
    else if (mean)
        record_find(r, RC_TOTAL_MEAN, r->meta.path, t->line,
                    "claims %s bytes, the mean; the largest logged total is %s", record_count(v),
                    record_count(largest));
    bool models_mean = with_model > 1 && fabs(models / (double)with_model - t->v) <= 1;
    if (!found && (model || models_mean))
        record_find(r, RC_NO_CODE, r->meta.path, t->line,
                    "claims %s bytes, the model alone%s; with the code the logs print up to %s",
                    record_count(v), models_mean && !model ? " (mean)" : "", record_count(largest));
    r->size.claims_shipped = shipped;
    if (!found && !mean && !model)
        record_find(r, RC_TOTAL, r->meta.path, t->line,
                    "claims %s bytes; %zu log%s print%s %s%s%s%s", record_count(v), n,
                    n == 1 ? "" : "s", n == 1 ? "s" : "", record_count(smallest),
                    n > 1 ? " to " : "", n > 1 ? record_count(largest) : "",
                    shipped ? "; it is the script as it lies here and a log's model" : "");
}

static void code_bytes(struct record *r)
{
    const struct record_size *s = &r->size;
    const struct record_log *first = r->runs ? &r->run[s->total_log].log : NULL;
    const struct meta_number *c = &r->meta.code;
    if (c->have && s->effective && c->v != (double)s->script && c->v != (double)s->effective)
        record_find(r, RC_JSON_CODE, r->meta.path, c->line, "claims %s bytes of code; %s has %s",
                    record_count((uint64_t)fmax(c->v, 0)), r->script.file->path,
                    record_count(s->effective));
    if (s->codes > 1)
        record_find(r, RC_CODE_LOGS, NULL, 0, "counted code from %s to %s bytes",
                    record_count(s->code[0]), record_count(s->code[s->codes - 1]));
    if (!s->effective || !first)
        return;
    bool compressed = s->plains && s->codes && s->code[0] != s->script;
    if (compressed && !r->script.wrapped)
        record_find(r, RC_COMPRESSED, first->path, first->code.line,
                    "logs count %s bytes of a compressed copy; the folder has the plain script, "
                    "%s bytes",
                    record_count(s->code[0]), record_count(s->effective));
    const uint64_t *printed = s->plains ? s->plain : s->code;
    size_t n = s->plains ? s->plains : s->codes;
    /* Plain sizes: each log should print the script's. Counted ones: one log that does is enough,
     * RC_CODE_LOGS has said that they differ. */
    size_t same = 0;
    for (size_t i = 0; i < n; i++)
        same += printed[i] == s->script || printed[i] == s->effective;
    if (s->plains ? same < n : n && !same)
        record_find(r, RC_CODE_GIT, first->path,
                    s->plains ? first->code_plain.line : first->code.line,
                    "logs print %s%s%s bytes of %scode; %s has %s", record_count(printed[0]),
                    n > 1 ? " to " : "", n > 1 ? record_count(printed[n - 1]) : "",
                    s->plains ? "plain " : "", r->script.file->path, record_count(s->effective));
    if (s->shipped > RECORD_CAP && s->total <= RECORD_CAP)
        record_find(r, RC_SHIPPED, r->script.file->path, 0,
                    "largest model %s + script as shipped %s = %s bytes; the logs claim %s",
                    record_count(s->model), record_count(s->effective), record_count(s->shipped),
                    record_count(s->total));
}

static void siblings(struct record *r)
{
    const struct record_script *c = &r->script;
    struct record_finding *f = NULL;
    uint64_t counted = r->size.codes ? r->size.code[0] : 0;
    /* Counted with the script after all? */
    if (!c->siblings || counted == r->size.effective + r->size.siblings)
        return;
    for (size_t i = 0; i < c->siblings; i++) {
        if (f)
            record_also(f, c->sibling[i]->path, 0);
        else
            f = record_find(r, RC_OUTSIDE, c->sibling[i]->path, 0,
                            "%zu file%s loaded by the script and not counted: %s bytes, first %s",
                            c->siblings, c->siblings == 1 ? "" : "s",
                            record_count(r->size.siblings), c->sibling[i]->path);
    }
    if (r->size.shipped <= RECORD_CAP && r->size.shipped_siblings > RECORD_CAP)
        record_find(r, RC_SHIPPED_SIBLINGS, c->sibling[0]->path, 0,
                    "model, script and that code: %s bytes",
                    record_count(r->size.shipped_siblings));
}

void record_check_sizes(struct record *r)
{
    over_cap(r);
    claimed_total(r);
    code_bytes(r);
    siblings(r);
}
