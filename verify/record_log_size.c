/* record_log_size.c - see record_log_size.h. */
#include "verify/record_log_size.h"

#include <math.h>
#include <string.h>

/* No artifact of this challenge is larger; raw weights in fp32 are. */
#define ARTIFACT_MAX 40e6

static bool bytes_behind(struct line s, size_t at, uint64_t *out)
{
    struct line_number v;
    while (at < s.n && (s.s[at] == ':' || s.s[at] == '=' || s.s[at] == ' '))
        at++;
    if (!line_number(s, at, &v) || v.decimals || v.v < 0 || v.v > 1e12)
        return false;
    /* "15.42MB" is no count, "N/16000000", "N bytes" and "N" are. */
    if (v.end + 1 < s.n && (s.s[v.end] == 'M' || s.s[v.end] == 'K' || s.s[v.end] == 'm'))
        return false;
    *out = (uint64_t)v.v;
    return true;
}

static void set(struct log_count *c, uint64_t v, size_t line)
{
    *c = (struct log_count){v, line, false};
}

/* "<head>[ format]: N": offset of the colon, and whether a format stands in front of it. */
static size_t colon_of(struct line s, size_t at, bool *format)
{
    const char *c = at < s.n ? memchr(s.s + at, ':', s.n - at) : NULL;
    size_t end = c ? (size_t)(c - s.s) : SIZE_MAX;
    *format = false;
    for (size_t i = at; c && i < end; i++)
        *format |= s.s[i] != ' ';
    return end;
}

/* A total that names no format is the artifact only where model and code say so. */
static void total(struct record_log *l, uint64_t v, bool format, size_t line)
{
    bool fits = l->model.line && v == l->model.v + l->code.v;
    if (format || fits || (!l->raw_model.line && (double)v < ARTIFACT_MAX))
        set(&l->total, v, line);
}

/* Sizes in MB, "15.42MB model + 0.077MB code = 15.50/16.00MB FITS". */
static void megabytes(struct record_log *l, struct line s, size_t line)
{
    size_t at = line_find(s, "MB code = ", 0);
    struct line_number v;
    if (at != SIZE_MAX && line_number(s, at, &v) && v.v > 0 && v.v < 1000) {
        l->total = (struct log_count){(uint64_t)llround(v.v * 1e6), line, true};
        at = line_find(s, ": ", 0);
        if (at != SIZE_MAX && line_number(s, at, &v) && v.v > 0 && v.v < 1000)
            l->model = (struct log_count){(uint64_t)llround(v.v * 1e6), line, true};
    }
}

void log_size_line(struct record_log *l, struct line s, size_t line)
{
    uint64_t v;
    bool format;
    size_t at, colon;
    if ((at = line_find(s, "Serialized model", 0)) != SIZE_MAX) {
        colon = colon_of(s, at, &format);
        if (colon != SIZE_MAX && bytes_behind(s, colon, &v))
            set(format ? &l->model : &l->raw_model, v, line);
    } else if ((at = line_find(s, "Total submission size", 0)) != SIZE_MAX) {
        colon = colon_of(s, at, &format);
        if (colon != SIZE_MAX && bytes_behind(s, colon, &v))
            total(l, v, format, line);
    } else if ((at = line_find(s, "Code size", 0)) != SIZE_MAX) {
        colon = colon_of(s, at, &format);
        if (colon != SIZE_MAX && bytes_behind(s, colon, &v))
            set(line_find(s, "(uncompressed)", 0) != SIZE_MAX ? &l->code_plain : &l->code, v, line);
    } else if (line_starts(s, "artifact:")) {
        at = line_word(s, "code", 0);
        if (at != SIZE_MAX && bytes_behind(s, at, &v))
            set(&l->code, v, line);
    } else if (line_starts(s, "budget:")) {
        if (bytes_behind(s, 7, &v))
            set(&l->total, v, line);
    } else if ((at = line_find(s, "| Total submission", 0)) != SIZE_MAX) {
        size_t m = line_word(s, "model", 0);
        if (m != SIZE_MAX && bytes_behind(s, m, &v))
            set(&l->model, v, line);
        if (bytes_behind(s, at, &v))
            set(&l->total, v, line);
    } else if (line_starts(s, "model:") && line_word(s, "total", 0) != SIZE_MAX) {
        static const char *const key[] = {"model", "code", "total"};
        struct log_count *const to[] = {&l->model, &l->code, &l->total};
        for (size_t i = 0; i < 3; i++)
            if ((at = line_word(s, key[i], 0)) != SIZE_MAX && bytes_behind(s, at, &v))
                set(to[i], v, line);
    } else if (line_starts(s, "Raw model:")) {
        at = line_word(s, "Code", 0);
        if (at != SIZE_MAX && bytes_behind(s, at, &v))
            set(&l->code, v, line);
    } else if (line_starts(s, "artifact_bytes") || line_starts(s, "Artifact size") ||
               line_starts(s, "Total artifact") || line_starts(s, "total_bytes") ||
               line_starts(s, "Total size") || line_starts(s, "submission_bytes")) {
        colon = colon_of(s, 0, &format);
        if (!l->total.line && colon != SIZE_MAX && bytes_behind(s, colon, &v))
            set(&l->total, v, line);
    } else {
        megabytes(l, s, line);
    }
}

void log_size_settle(struct record_log *l)
{
    if (!l->model.line && l->total.line && l->code.line && l->total.v > l->code.v)
        l->model = (struct log_count){l->total.v - l->code.v, l->total.line, l->total.rounded};
    if (!l->total.line && l->model.line && l->code.line)
        l->total = (struct log_count){l->model.v + l->code.v, l->model.line, l->model.rounded};
}

/* The last number of the line with an "s" behind it: "in 3.5s", "(156.2s)", "81.356s". */
static bool seconds_in(struct line s, size_t from, struct line_number *out)
{
    bool found = false;
    for (size_t i = from; i < s.n; i++) {
        struct line_number v;
        bool starts = s.s[i] >= '0' && s.s[i] <= '9' &&
                      (!i || !((s.s[i - 1] >= '0' && s.s[i - 1] <= '9') || s.s[i - 1] == '.'));
        if (!starts || !line_number(s, i, &v))
            continue;
        if (v.end < s.n && s.s[v.end] == 's' &&
            (v.end + 1 == s.n || !((s.s[v.end + 1] | 32) >= 'a' && (s.s[v.end + 1] | 32) <= 'z'))) {
            *out = v;
            found = true;
            break;
        }
        i = v.end > i ? v.end - 1 : i;
    }
    return found;
}

static void add(struct record_log *l, enum log_time_kind k, double seconds, double limit,
                size_t line)
{
    if (l->times == LOG_TIMES)
        memmove(l->time, l->time + 1, (--l->times) * sizeof *l->time);
    l->time[l->times++] = (struct log_time){k, seconds, limit, line};
}

void log_time_line(struct record_log *l, struct line s, size_t line)
{
    static const struct {
        const char *start, *word;
        enum log_time_kind kind;
    } family[] = {
        {"total_eval_time", NULL, LOG_TIME_EVAL},
        {"ttt_lora:compile warmup done", NULL, LOG_TIME_WARMUP},
        {"serialize_wallclock", NULL, LOG_TIME_SERIALISE},
        {"artifact_production_wallclock", NULL, LOG_TIME_ARTIFACT},
        {"wallclock:post_gptq", "total_elapsed", LOG_TIME_POST_GPTQ},
        {"gptq:", "generated", LOG_TIME_GENERATED},
        {"gptq:", "hessians", LOG_TIME_HESSIANS},
        {"gptq:", "calibrated", LOG_TIME_HESSIANS},
        {"gptq:", "quantiz", LOG_TIME_QUANTISE},
        {"gptq:", "done in", LOG_TIME_QUANTISE},
        {"gptq:", "compressed", LOG_TIME_SERIALISE},
    };
    struct line_number v, limit;
    for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
        size_t n = strlen(family[i].start);
        struct line head = {s.s, s.n < n ? s.n : n};
        if (!line_has(head, family[i].start))
            continue;
        if (family[i].word && !line_has(s, family[i].word))
            continue;
        if (line_has(s, "reserv") || !seconds_in(s, n, &v))
            return;
        limit.v = 0;
        size_t at = line_find(s, "must be < ", 0);
        if (at != SIZE_MAX)
            line_number(s, at, &limit);
        else
            line_value(s, "train_budget", &limit);
        add(l, family[i].kind, v.v, limit.v, line);
        return;
    }
    if (line_has(s, "compile") && line_has(s, "warmup done") && seconds_in(s, 0, &v))
        add(l, LOG_TIME_WARMUP, v.v, 0, line);
}
