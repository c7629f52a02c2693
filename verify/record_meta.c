/* record_meta.c - see record_meta.h. */
#include "verify/record_meta.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cjson/cJSON.h>

#include "verify/report.h"

/* ---- lines ---- */

/* Line of `"key":` at this depth, behind the key `under` one level up (NULL: anywhere). */
static size_t line_of(const char *text, size_t n, const char *under, const char *name, int depth)
{
    struct json_key k;
    size_t at = 0, line = 1;
    int d = 0;
    bool open = !under;
    while (json_key_next(text, n, &at, &line, &d, &k)) {
        if (under && k.depth == depth - 1)
            open = k.n == strlen(under) && !memcmp(text + k.at, under, k.n);
        if (open && k.depth == depth && k.n == strlen(name) && !memcmp(text + k.at, name, k.n))
            return k.line;
    }
    return 0;
}

/* ---- values ---- */

struct source {
    const char *text;
    size_t n;
};

static int decimals_of(double v)
{
    char buf[64];
    snprintf(buf, sizeof buf, "%.12f", v);
    size_t n = strlen(buf);
    int zeros = 0;
    while (zeros < 12 && buf[n - 1 - (size_t)zeros] == '0')
        zeros++;
    return 12 - zeros;
}

/* The first of the keys that holds a number; key 0 is the usual one. */
static void number(struct meta_number *to, const cJSON *o, const char *const *keys, struct source s,
                   const char *under, int depth)
{
    for (; *keys; keys++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, *keys);
        if (!cJSON_IsNumber(v) || !(fabs(v->valuedouble) < 1e15))
            continue; /* no score and no size; and any integer can hold what is left */
        *to = (struct meta_number){true, v->valuedouble, decimals_of(v->valuedouble), "", 0};
        snprintf(to->key, sizeof to->key, "%s", *keys);
        to->line = line_of(s.text, s.n, under, *keys, depth);
        return;
    }
}

static void string(char *to, size_t cap, const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!cJSON_IsString(v))
        return;
    snprintf(to, cap, "%s", v->valuestring);
    report_clean(to);
}

static bool seed_number(const char *s, long long *out)
{
    if (!strncasecmp(s, "seed", 4))
        s += 4 + (s[4] == '_' || s[4] == '-' || s[4] == ' ' || s[4] == '=');
    if (!isdigit((unsigned char)*s) || strlen(s) > 15)
        return false;
    for (*out = 0; isdigit((unsigned char)*s); s++)
        *out = *out * 10 + (*s - '0');
    return !*s;
}

static struct meta_seed *seed_slot(struct record_meta *m, long long seed)
{
    for (size_t i = 0; i < m->seeds; i++)
        if (m->seed[i].seed == seed)
            return &m->seed[i];
    if (m->seeds == META_SEEDS)
        return NULL;
    m->seed[m->seeds] = (struct meta_seed){.seed = seed};
    return &m->seed[m->seeds++];
}

static const char *const bpb_keys[] = {"val_bpb",  "mean_val_bpb",  "val_bpb_mean", "mean_bpb",
                                       "bpb_mean", "final_val_bpb", "bpb",          NULL};
static const char *const loss_keys[] = {"val_loss",      "mean_val_loss",      "val_loss_mean",
                                        "mean_loss",     "final_val_loss",     "val_loss_sliding",
                                        "val_loss_nats", "mean_val_loss_nats", NULL};
static const char *const std_keys[] = {"val_bpb_std", "std_bpb",       "std_val_bpb",
                                       "bpb_std",     "val_bpb_stdev", NULL};
static const char *const total_keys[] = {"bytes_total",         "artifact_bytes",
                                         "total_bytes",         "artifact_size_bytes",
                                         "artifact_bytes_max",  "bytes_total_max",
                                         "submission_bytes",    "artifact_size",
                                         "artifact_bytes_mean", NULL};
static const char *const code_keys[] = {"bytes_code", "code_bytes", "code_size_bytes", NULL};
static const char *const step_keys[] = {"steps", "step_stop", "train_steps", NULL};

/* The usual ones of these and the texts: what a look-alike would be taken for. */
static const char *const known[] = {"val_bpb",        "mean_val_bpb",
                                    "val_bpb_mean",   "val_loss",
                                    "mean_val_loss",  "val_bpb_std",
                                    "bytes_total",    "total_bytes",
                                    "artifact_bytes", "artifact_bytes_max",
                                    "bytes_code",     "code_bytes",
                                    "step_stop",      "seeds",
                                    "seed_results",   "seed_scores",
                                    "author",         "github_id",
                                    "name",           "date",
                                    "track",          NULL};

static void seed_object(struct record_meta *m, const cJSON *o, const char *under, struct source s)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, o)
    {
        long long seed;
        struct meta_seed *slot;
        if (!v->string || !seed_number(v->string, &seed) || !(slot = seed_slot(m, seed)))
            continue;
        slot->line = line_of(s.text, s.n, under, v->string, 2);
        if (cJSON_IsNumber(v)) {
            slot->bpb = (struct meta_number){true, v->valuedouble, decimals_of(v->valuedouble), "",
                                             slot->line};
            continue;
        }
        number(&slot->bpb, v, bpb_keys, s, v->string, 3);
        number(&slot->loss, v, loss_keys, s, v->string, 3);
        number(&slot->bytes, v, total_keys, s, v->string, 3);
        number(&slot->steps, v, step_keys, s, v->string, 3);
    }
}

/* Results as an array of objects that name their seed. */
static void seed_array(struct record_meta *m, const cJSON *a, size_t line)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, a)
    {
        const cJSON *id = cJSON_IsNumber(v) ? v : cJSON_GetObjectItemCaseSensitive(v, "seed");
        struct meta_seed *slot;
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < 1e15) ||
            !(slot = seed_slot(m, (long long)id->valuedouble)))
            continue;
        struct source none = {"", 0};
        if (!slot->line)
            slot->line = line;
        if (cJSON_IsObject(v)) {
            number(&slot->bpb, v, bpb_keys, none, NULL, 1);
            number(&slot->loss, v, loss_keys, none, NULL, 1);
            number(&slot->bytes, v, total_keys, none, NULL, 1);
            number(&slot->steps, v, step_keys, none, NULL, 1);
            slot->bpb.line = slot->loss.line = slot->bytes.line = slot->steps.line = line;
        }
    }
}

static void seeds(struct record_meta *m, const cJSON *root, struct source s)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "seeds");
    const cJSON *results = cJSON_GetObjectItemCaseSensitive(root, "seed_results");
    const cJSON *scores = cJSON_GetObjectItemCaseSensitive(root, "seed_scores");
    size_t line = line_of(s.text, s.n, NULL, "seeds", 1);
    if (cJSON_IsArray(list))
        seed_array(m, list, line);
    if (cJSON_IsObject(list)) {
        m->seeds_variant = true;
        seed_object(m, list, "seeds", s);
    }
    if (cJSON_IsObject(results))
        seed_object(m, results, "seed_results", s);
    if (cJSON_IsArray(results))
        seed_array(m, results, line_of(s.text, s.n, NULL, "seed_results", 1));
    if (cJSON_IsArray(scores) && cJSON_IsArray(list) &&
        cJSON_GetArraySize(scores) == cJSON_GetArraySize(list)) {
        size_t at = line_of(s.text, s.n, NULL, "seed_scores", 1);
        for (int i = 0; i < cJSON_GetArraySize(scores); i++) {
            const cJSON *id = cJSON_GetArrayItem(list, i), *v = cJSON_GetArrayItem(scores, i);
            struct meta_seed *slot;
            if (cJSON_IsNumber(id) && cJSON_IsNumber(v) && id->valuedouble >= 0 &&
                id->valuedouble < 1e15 && (slot = seed_slot(m, (long long)id->valuedouble)) &&
                !slot->bpb.have)
                slot->bpb =
                    (struct meta_number){true, v->valuedouble, decimals_of(v->valuedouble), "", at};
        }
    }
}

enum err_code record_meta_parse(struct record_meta *m, const char *path, const char *text, size_t n,
                                struct err *e)
{
    *m = (struct record_meta){.path = path};
    if (n > META_BYTES) {
        snprintf(m->problem, sizeof m->problem, "larger than %d bytes", META_BYTES);
        return ERR_OK;
    }
    char *copy = malloc(n + 1); /* cJSON looks for the end of the text in the text */
    if (!copy)
        return err_nomem(e, path, n + 1);
    if (n)
        memcpy(copy, text, n);
    copy[n] = 0;
    const char *stop = copy;
    cJSON *root = cJSON_ParseWithLengthOpts(copy, n + 1, &stop, 1);
    if (!cJSON_IsObject(root)) {
        size_t line = 1;
        for (const char *c = copy; c < stop && c < copy + n; c++)
            line += *c == '\n';
        if (root)
            snprintf(m->problem, sizeof m->problem, "is no JSON object");
        else
            snprintf(m->problem, sizeof m->problem, "is no valid JSON: line %zu", line);
    } else {
        struct source s = {copy, n};
        m->valid = true;
        number(&m->bpb, root, bpb_keys, s, NULL, 1);
        number(&m->loss, root, loss_keys, s, NULL, 1);
        number(&m->std, root, std_keys, s, NULL, 1);
        number(&m->total, root, total_keys, s, NULL, 1);
        number(&m->code, root, code_keys, s, NULL, 1);
        number(&m->steps, root, step_keys + 1, s, NULL, 1);
        seeds(m, root, s);
        string(m->author, sizeof m->author, root, "author");
        string(m->github_id, sizeof m->github_id, root, "github_id");
        string(m->name, sizeof m->name, root, "name");
        string(m->date, sizeof m->date, root, "date");
        string(m->track, sizeof m->track, root, "track");
        string(m->hardware, sizeof m->hardware, root, "hardware");
        string(m->text, sizeof m->text, root, "blurb");
        m->tricks = json_tricks(root, copy, n, known, m->trick);
    }
    cJSON_Delete(root);
    free(copy);
    return ERR_OK;
}

static bool is_submission(const char *name)
{
    return !strncasecmp(name, "submission", 10);
}

enum err_code record_meta_read(struct record_meta *m, const struct record_folder *f, struct err *e)
{
    const struct record_file *best = record_folder_find(f, "submission.json");
    *m = (struct record_meta){0};
    for (size_t i = 0; !best && i < f->files; i++)
        if (f->file[i].kind == RECORD_META && is_submission(f->file[i].path))
            best = &f->file[i];
    if (best && !best->text) {
        *m = (struct record_meta){.path = best->path};
        snprintf(m->problem, sizeof m->problem, "is too large to be read");
        return ERR_OK;
    }
    if (best)
        return record_meta_parse(m, best->path, best->text, (size_t)best->size, e);
    for (size_t i = 0; i < f->files; i++) {
        const struct record_file *r = &f->file[i];
        if (r->kind != RECORD_META || !r->text)
            continue;
        enum err_code rc = record_meta_parse(m, r->path, r->text, (size_t)r->size, e);
        if (rc)
            return rc;
        if (m->valid && (m->bpb.have || *m->author || *m->github_id))
            return ERR_OK;
    }
    *m = (struct record_meta){0};
    return ERR_OK;
}

const struct meta_seed *record_meta_seed(const struct record_meta *m, long long seed)
{
    for (size_t i = 0; i < m->seeds; i++)
        if (m->seed[i].seed == seed)
            return &m->seed[i];
    return NULL;
}

bool meta_near(const struct meta_number *claimed, double measured, double tolerance)
{
    /* A coarse figure is no way around the check: 1.1 is not 1.14. */
    double half = fmin(0.5000001 * pow(10, -claimed->decimals), 1e-4);
    return claimed->have && fabs(claimed->v - measured) <= fmax(tolerance, half);
}
