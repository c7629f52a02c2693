/* report.c - see report.h. */
#include "verify/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
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

/* How many bytes at s are one character that must not reach a terminal: C0, DEL, C1 (U+0080 to
 * U+009F), and the marks of writing direction (U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069).
 */
static size_t unwanted(const unsigned char *s)
{
    if (*s < ' ' || *s == 127)
        return 1;
    if (s[0] == 0xC2 && s[1] >= 0x80 && s[1] <= 0x9F)
        return 2;
    if (s[0] == 0xE2 && s[1] == 0x80 &&
        ((s[2] >= 0x8E && s[2] <= 0x8F) || (s[2] >= 0xA8 && s[2] <= 0xAE)))
        return 3;
    if (s[0] == 0xE2 && s[1] == 0x81 && s[2] >= 0xA6 && s[2] <= 0xA9)
        return 3;
    return 0;
}

char *report_clean(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p; p++)
        for (size_t n = unwanted(p); n; n--)
            p[n - 1] = '?';
    return s;
}

static void say(const char *fmt, va_list ap)
{
    char *line;
    if (vasprintf(&line, fmt, ap) < 0)
        return; /* the report's end finds the memory short as well */
    puts(report_clean(line));
    free(line);
    fflush(stdout); /* the next line may take an hour */
}

void report_line(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!r->as_json && !r->quiet)
        say(fmt, ap);
    va_end(ap);
}

void report_say(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!r->as_json)
        say(fmt, ap);
    va_end(ap);
}

void report_doubt(struct report *r, const char *fmt, ...)
{
    char line[LINE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    cJSON_AddItemToArray(r->reasons, cJSON_CreateString(report_clean(line)));
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

static void add_score(cJSON *to, enum eval_mode mode, const struct score *s, uint64_t ms)
{
    cJSON_AddStringToObject(to, "mode", eval_mode_name(mode));
    add_fixed8(to, "val_loss", s->val_loss);
    add_fixed8(to, "val_bpb", s->val_bpb);
    cJSON_AddNumberToObject(to, "tokens", (double)s->tokens);
    cJSON_AddNumberToObject(to, "bytes", (double)s->bytes);
    cJSON_AddNumberToObject(to, "time_ms", (double)ms);
}

void report_scores(struct report *r, const struct engine *g, const struct scores *s,
                   const struct byte_table *b)
{
    char line[640], hash[32];
    struct text t = {line, 0, sizeof line};
    uint64_t ms = (uint64_t)((seconds_now() - r->start) * 1e3);

    snprintf(hash, sizeof hash, "%016" PRIx64, s->nll_xxh64);
    report_line(r, "stream       %zu tokens, %zu windows, vocabulary %zu, %.4f bytes per token",
                s->stream, s->windows, b->vocab, (double)s->sum.bytes / (double)s->sum.tokens);
    report_line(r, "engine       %s, %zu parameters, %.1f s, %.0f tokens/s", g->k->name,
                g->m.floats, s->seconds, (double)s->sum.tokens / s->seconds);
    report_line(r, "scores       nll_xxh64:%s", hash);
    score_report(&t, s->recipe, s->mode, &s->sum, &s->record, ms, false);
    if (!r->as_json) {
        puts(line);
        fflush(stdout);
    }
    add_score(r->root, s->mode, &s->sum, ms);
    if (eval_mode_adapts(s->mode)) {
        bool met[SCORE_CONDITIONS];
        add_score(cJSON_AddObjectToObject(r->root, "record"), EVAL_SLIDING, &s->record, ms);
        cJSON *c = cJSON_AddObjectToObject(r->root, "conditions");
        score_conditions(s->recipe, s->mode, met);
        for (size_t i = 0; i < SCORE_CONDITIONS; i++)
            cJSON_AddBoolToObject(c, score_condition_name(i), met[i]);
    }
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
