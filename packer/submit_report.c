/* submit_report.c - see submit_run.h: what verify.json says, as far as it belongs to the file. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/score.h"
#include "packer/submit_run.h"

static const cJSON *get(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* A short text; "" when it is none, is longer, or has anything but printable ASCII. */
static void word(char out[SUBMIT_WORD], const cJSON *o, const char *key)
{
    const char *s = cJSON_GetStringValue(get(o, key));
    *out = 0;
    if (!s || strlen(s) >= SUBMIT_WORD)
        return;
    for (const char *p = s; *p; p++)
        if (*p < ' ' || *p > '~')
            return;
    strcpy(out, s);
}

static double number(const cJSON *o, const char *key)
{
    const cJSON *v = get(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* A whole number below 2^53; UINT64_MAX when it is none. */
static uint64_t count(const cJSON *o, const char *key)
{
    double v = number(o, key);
    return v >= 0 && v < 9007199254740992.0 && v == floor(v) ? (uint64_t)v : UINT64_MAX;
}

/* Whether the object has all of a score, with numbers that can be one. */
static bool take_score(struct submit_score *s, const cJSON *o)
{
    word(s->mode, o, "mode");
    s->val_loss = number(o, "val_loss");
    s->val_bpb = number(o, "val_bpb");
    s->tokens = count(o, "tokens");
    s->bytes = count(o, "bytes");
    s->time_ms = count(o, "time_ms");
    return eval_mode_parse(s->mode) != EVAL_MODES && isfinite(s->val_loss) &&
           isfinite(s->val_bpb) && s->val_bpb > 0 && s->tokens && s->tokens != UINT64_MAX &&
           s->bytes && s->bytes != UINT64_MAX && s->time_ms != UINT64_MAX;
}

/* Is the report about these bytes? Its digest, where it has one (older reports do not), and every
 * section's place and hash must be the file's. */
static bool same_file(const cJSON *root, const char *sha256, const struct blob *b)
{
    const cJSON *sections = get(root, "sections"), *s;
    const char *digest = cJSON_GetStringValue(get(root, "sha256"));
    size_t i = 0;
    if ((digest && strcmp(digest, sha256)) || count(root, "bytes_total") != b->size ||
        (size_t)cJSON_GetArraySize(sections) != b->count)
        return false;
    cJSON_ArrayForEach(s, sections)
    {
        const struct blob_section *have = &b->section[i++];
        char kind[SUBMIT_WORD], hash[SUBMIT_WORD], want[SUBMIT_WORD] = "-";
        word(kind, s, "kind");
        word(hash, s, "xxh64");
        if (have->kind != KIND_HEADER)
            snprintf(want, sizeof want, "%016" PRIx64, have->xxh64);
        if (strcmp(kind, blob_kind_name(have->kind)) || strcmp(hash, want) ||
            count(s, "offset") != have->offset || count(s, "size") != have->size)
            return false;
    }
    return true;
}

/* The doubts of verify in one line, without characters that could pass for another one. */
static void take_reasons(struct submit_run *r, const cJSON *root)
{
    const cJSON *why;
    size_t n = 0;
    cJSON_ArrayForEach(why, get(root, "reasons"))
    {
        const char *s = cJSON_GetStringValue(why);
        for (const char *p = n ? "; " : ""; *p && n + 1 < sizeof r->why_verdict; p++)
            r->why_verdict[n++] = *p;
        for (; s && *s && n + 1 < sizeof r->why_verdict; s++)
            r->why_verdict[n++] = *s < ' ' || *s > '~' ? '?' : *s;
    }
    r->why_verdict[n] = 0;
}

static void take(struct submit_run *r, const cJSON *root)
{
    const cJSON *run = get(root, "execution"), *rec = get(root, "record");
    char verdict[SUBMIT_WORD];
    if (!same_file(root, r->sha256, &r->blob)) {
        snprintf(r->why_report, sizeof r->why_report, "is the report of another file");
        return;
    }
    r->has_report = true;
    word(verdict, root, "verdict");
    take_reasons(r, root);
    r->verified = !strcmp(verdict, "verified");
    word(r->byte_table, root, "byte_table");
    word(r->nll_xxh64, root, "nll_xxh64");
    word(r->stream_xxh64, root, "stream_xxh64");
    r->stream_tokens = count(root, "stream_tokens");
    r->partial = get(root, "max_tokens") != NULL;
    r->executed = cJSON_IsObject(run);
    r->identical = r->executed && cJSON_IsTrue(get(run, "identical"));
    bool ok = take_score(&r->own, root);
    r->adapts = ok && eval_mode_adapts(eval_mode_parse(r->own.mode));
    r->record = r->own;
    if (!ok || (r->adapts && !take_score(&r->record, rec)))
        snprintf(r->why_report, sizeof r->why_report, "has no score");
}

enum err_code submit_report_parse(struct submit_run *r, const char *path, struct err *e)
{
    const char *text = r->report, *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, r->report_n, &end, 0);
    enum err_code rc = ERR_OK;
    if (!cJSON_IsObject(root))
        rc = err_set(e, ERR_INPUT, "%s: not a JSON object, as verify blob --json prints", path);
    else
        take(r, root);
    cJSON_Delete(root);
    return rc;
}
