/* report.c - see report.h. */
#include "verify/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/clock.h"
#include "model/text.h"
#include "verify/progress.h"

enum { LINE = 512 };

enum err_code report_init(struct report *r, bool as_json, bool quiet, struct err *e)
{
    *r = (struct report){.as_json = as_json, .quiet = quiet, .start = seconds_now()};
    r->root = cJSON_CreateObject();
    r->reasons = cJSON_CreateArray();
    if (!r->root || !r->reasons) {
        report_free(r);
        return err_nomem(e, "the report", LINE);
    }
    return ERR_OK;
}

void report_free(struct report *r)
{
    cJSON_Delete(r->root);
    cJSON_Delete(r->reasons);
    *r = (struct report){0};
}

void report_line(struct report *r, const char *fmt, ...)
{
    va_list ap;
    if (r->as_json || r->quiet)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout); /* the next line may take an hour */
}

void report_doubt(struct report *r, const char *fmt, ...)
{
    char line[LINE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    cJSON_AddItemToArray(r->reasons, cJSON_CreateString(line));
}

static void add_fixed8(cJSON *to, const char *name, double v)
{
    char buf[LINE];
    struct text t = {buf, 0, sizeof buf};
    text_fixed8(&t, v);
    if (!strcmp(buf, "nan"))
        cJSON_AddNullToObject(to, name); /* JSON has no such number */
    else
        cJSON_AddRawToObject(to, name, buf);
}

void report_scores(struct report *r, const struct engine *g, const struct scores *s,
                   const struct byte_table *b)
{
    char line[LINE], hash[32];
    struct text t = {line, 0, sizeof line};
    uint64_t ms = (uint64_t)((seconds_now() - r->start) * 1e3);
    const char *mode = eval_mode_name(s->mode);

    snprintf(hash, sizeof hash, "%016" PRIx64, s->nll_xxh64);
    report_line(r, "stream       %zu tokens, %zu windows, vocabulary %zu, %.4f bytes per token",
                s->stream, s->windows, b->vocab, (double)s->sum.bytes / (double)s->sum.tokens);
    report_line(r, "engine       %s, %zu parameters, %.1f s, %.0f tokens/s", g->k->name,
                g->m.floats, s->seconds, (double)s->sum.tokens / s->seconds);
    report_line(r, "scores       nll_xxh64:%s", hash);
    score_line(&t, mode, &s->sum, ms, false);
    if (!r->as_json) {
        puts(line);
        fflush(stdout);
    }
    cJSON_AddStringToObject(r->root, "mode", mode);
    add_fixed8(r->root, "val_loss", s->sum.val_loss);
    add_fixed8(r->root, "val_bpb", s->sum.val_bpb);
    cJSON_AddNumberToObject(r->root, "tokens", (double)s->sum.tokens);
    cJSON_AddNumberToObject(r->root, "bytes", (double)s->sum.bytes);
    cJSON_AddNumberToObject(r->root, "time_ms", (double)ms);
    cJSON_AddStringToObject(r->root, "nll_xxh64", hash);
    cJSON_AddNumberToObject(r->root, "stream_tokens", (double)s->stream);
    cJSON_AddNumberToObject(r->root, "windows", (double)s->windows);
    cJSON_AddNumberToObject(r->root, "parameters", (double)g->m.floats);
    cJSON_AddStringToObject(r->root, "engine", g->k->name);
}

enum err_code report_verdict(struct report *r)
{
    const cJSON *why;
    bool verified = cJSON_GetArraySize(r->reasons) == 0;

    if (!r->as_json) {
        const char *before = "not verified: ";
        if (verified)
            printf("verified");
        cJSON_ArrayForEach(why, r->reasons)
        {
            printf("%s%s", before, why->valuestring);
            before = "; ";
        }
        putchar('\n');
    }
    cJSON_AddStringToObject(r->root, "verdict", verified ? "verified" : "not verified");
    if (cJSON_AddItemToObject(r->root, "reasons", r->reasons))
        r->reasons = NULL; /* the object owns them now */
    return verified ? ERR_OK : ERR_CLAIM;
}

enum err_code report_finish(struct report *r, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (r->as_json) {
        char *text = cJSON_Print(r->root);
        if (text)
            puts(text);
        else
            rc = err_nomem(e, "the report", LINE);
        cJSON_free(text);
    }
    if (fflush(stdout) || ferror(stdout))
        return err_set(e, ERR_RESOURCE, "standard output: cannot write all of the report");
    return rc;
}
