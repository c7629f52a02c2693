/* submit_json.c - see submit.h: submission.json, with the keys that the challenge's records have.
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "packer/submit.h"

const char *submit_date(const struct submit_job *job, char *buf)
{
    time_t now = time(NULL);
    struct tm t;
    if (job->date)
        return job->date;
    gmtime_r(&now, &t);
    strftime(buf, 16, "%Y-%m-%d", &t);
    return buf;
}

const char *submit_name(const struct submit *s, char *buf, size_t cap)
{
    const struct recipe *r = &s->run[0].recipe;
    char seed[32];
    if (s->job->name)
        return s->job->name;
    snprintf(buf, cap, "%s", s->run[0].has_recipe ? r->run_id : "");
    int n = snprintf(seed, sizeof seed, "-%lld", s->run[0].seed);
    size_t have = strlen(buf);
    if (n > 0 && have > (size_t)n && !strcmp(buf + have - n, seed))
        buf[have - (size_t)n] = 0;
    if (!*buf) {
        const char *slash = strrchr(s->job->out, '/');
        snprintf(buf, cap, "%s", slash && slash[1] ? slash + 1 : s->job->out);
    }
    return buf;
}

/* Eight decimals, as scores are printed everywhere. */
static void add_fixed8(cJSON *to, const char *key, double v)
{
    char text[64];
    snprintf(text, sizeof text, "%.8f", v);
    if (isfinite(v))
        cJSON_AddRawToObject(to, key, text);
}

static void add_count(cJSON *to, const char *key, uint64_t v)
{
    cJSON_AddNumberToObject(to, key, (double)v);
}

static void add_run(cJSON *to, const struct submit_run *r)
{
    char seed[32], key[96];
    snprintf(seed, sizeof seed, "%lld", r->seed);
    cJSON *o = cJSON_AddObjectToObject(to, seed);
    add_fixed8(o, "val_loss", r->record.val_loss);
    add_fixed8(o, "val_bpb", r->record.val_bpb);
    if (r->adapts) {
        snprintf(key, sizeof key, "val_bpb_%s", r->own.mode);
        add_fixed8(o, key, r->own.val_bpb);
    }
    add_count(o, "artifact_bytes", r->blob.size);
    cJSON_AddNumberToObject(o, "steps", (double)r->steps);
    if (isfinite(r->train_ms))
        cJSON_AddNumberToObject(o, "train_time_ms", r->train_ms);
    add_count(o, "eval_time_ms", r->own.time_ms);
    add_fixed8(o, "pre_quant_val_bpb", r->pre_bpb);
    cJSON_AddStringToObject(o, "nll_xxh64", r->nll_xxh64);
}

char *submit_json(const struct submit *s)
{
    const struct submit_job *j = s->job;
    const struct submit_run *w = &s->run[s->worst], *first = &s->run[0];
    size_t model = blob_find(&w->blob, KIND_WEIGHTS)->size;
    char date[16], name[256], key[96];
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", submit_name(s, name, sizeof name));
    cJSON_AddStringToObject(o, "author", j->author ? j->author : "");
    cJSON_AddStringToObject(o, "github_id", j->github ? j->github : "");
    cJSON_AddStringToObject(o, "date", submit_date(j, date));
    cJSON_AddStringToObject(o, "track", j->track);
    if (j->blurb)
        cJSON_AddStringToObject(o, "blurb", j->blurb);
    add_fixed8(o, "val_loss", s->loss.mean);
    add_fixed8(o, "val_bpb", s->bpb.mean);
    if (s->runs > 1) {
        add_fixed8(o, "val_loss_std", s->loss.sd);
        add_fixed8(o, "val_bpb_std", s->bpb.sd);
    }
    if (first->adapts) {
        snprintf(key, sizeof key, "val_bpb_%s", first->own.mode);
        add_fixed8(o, key, s->own.mean);
    }
    cJSON_AddStringToObject(o, "eval_mode", first->record.mode);
    add_count(o, "tokens", first->record.tokens);
    add_count(o, "bytes", first->record.bytes);
    add_count(o, "bytes_total", w->blob.size);
    add_count(o, "bytes_model", model);
    add_count(o, "bytes_code", w->blob.size - model);
    cJSON *seeds = cJSON_AddArrayToObject(o, "seeds");
    for (size_t i = 0; i < s->runs; i++)
        cJSON_AddItemToArray(seeds, cJSON_CreateNumber((double)s->run[i].seed));
    cJSON *results = cJSON_AddObjectToObject(o, "seed_results");
    for (size_t i = 0; i < s->runs; i++)
        add_run(results, &s->run[i]);
    char *text = cJSON_Print(o), *lined = NULL;
    size_t n = text ? strlen(text) : 0;
    cJSON_Delete(o);
    if (text && (lined = realloc(text, n + 2)))
        memcpy(lined + n, "\n", 2);
    else
        free(text);
    return lined;
}
