/* record_log.c - see record_log.h. */
#include "verify/record_log.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "verify/record_line.h"
#include "verify/record_log_said.h"
#include "verify/record_log_size.h"

const char *const metric_kind_name[METRIC_KINDS] = {
    "none", "other", "round trip", "sliding", "adapted",
};
const char *const log_time_name[LOG_TIME_KINDS] = {
    "calibration",        "calibration text generated",
    "quantisation",       "serialisation",
    "compile warm-up",    "evaluation",
    "elapsed after GPTQ", "elapsed at the artifact",
};

/* BPB by which a more adapted kind may be worse than a simpler one before it counts as diverged. */
#define DIVERGED 0.02

/* ---- results ---- */

static bool has_any(struct line l, const char *const *words)
{
    for (; *words; words++)
        if (line_has(l, *words))
            return true;
    return false;
}

static enum metric_kind kind_of(struct line label)
{
    static const char *const never[] = {"prequant",    "pre-quant", "pre_quant", "post_ema",
                                        "post-ema",    "running",   "chunk",     "progress",
                                        "batch",       "epoch",     "baseline",  "fp32",
                                        "unquantized", "swa:",      "best",      NULL};
    static const char *const adapted[] = {"ttt", "slot",    "ngram", "n-gram", "n_gram",
                                          "ppm", "mixture", "hedge", "cache",  NULL};
    static const char *const sliding[] = {"sliding", "stride", "_s64", NULL};
    static const char *const packed[] = {"roundtrip", "round_trip", "quantized", "int8",  "int7",
                                         "int6",      "int5",       "int4",      "final", "temped",
                                         "ternary",   "binary",     NULL};
    if (has_any(label, never))
        return METRIC_NONE;
    if (line_has(label, "diagnostic") && !line_has(label, "quantized"))
        return METRIC_NONE;
    return has_any(label, adapted)   ? METRIC_ADAPTED
           : has_any(label, sliding) ? METRIC_SLIDING
           : has_any(label, packed)  ? METRIC_ROUNDTRIP
                                     : METRIC_OTHER;
}

/*
 * Early scripts have one label for every way of scoring and say the way elsewhere: in a line of its
 * own ("final_eval_mode:sliding_window stride:64") or in the result ("eval_mode:online_ttt"). The
 * twin "X_exact" that follows X is of its kind.
 */
static enum metric_kind kind_told(const struct record_log *l, struct line s, const char *label)
{
    size_t at = line_find(s, "eval_mode:", 0);
    struct line mode = {s.s + (at == SIZE_MAX ? s.n : at), at == SIZE_MAX ? 0 : s.n - at};
    if (mode.n)
        return line_starts(mode, "online_ttt") || line_starts(mode, "ttt") ? METRIC_ADAPTED
               : line_starts(mode, "sliding")                              ? METRIC_SLIDING
                                                                           : METRIC_ROUNDTRIP;
    if (l->finals) {
        const struct metric *last = &l->final[l->finals - 1];
        size_t n = strlen(last->label);
        if (!strncmp(label, last->label, n) && !strcmp(label + n, "_exact"))
            return last->kind;
    }
    return l->sliding_told ? METRIC_SLIDING : METRIC_ROUNDTRIP;
}

static bool add_final(struct record_log *l, const struct metric *m)
{
    if (l->finals == LOG_FINALS) {
        memmove(l->final, l->final + 1, (LOG_FINALS - 1) * sizeof *l->final);
        l->finals--;
    }
    if (!(l->finals & (l->finals - 1))) {
        struct metric *grown = realloc(l->final, (l->finals ? 2 * l->finals : 1) * sizeof *grown);
        if (!grown)
            return false;
        l->final = grown;
    }
    l->final[l->finals++] = *m;
    return true;
}

static double eval_ms(struct line l)
{
    static const char *const ms[] = {"eval_time",    "time",    "elapsed",
                                     "eval_time_ms", "time_ms", NULL};
    struct line_number v;
    for (size_t i = 0; ms[i]; i++)
        if (line_value(l, ms[i], &v)) {
            bool is_ms = v.end + 1 < l.n && l.s[v.end] == 'm' && l.s[v.end + 1] == 's';
            bool is_s = v.end < l.n && l.s[v.end] == 's';
            return is_ms || i >= 3 ? v.v : is_s ? v.v * 1000 : NAN;
        }
    return NAN;
}

/* A line with val_bpb in it. False: no memory. */
static bool metric_line(struct record_log *l, struct line s, size_t line)
{
    struct metric m = {.line = line, .val_loss = NAN, .val_bpb = NAN, .eval_ms = NAN};
    struct line_number v;
    uint64_t step;
    size_t loss = line_word(s, "val_loss", 0), bpb = line_word(s, "val_bpb", 0), end;
    if (bpb == SIZE_MAX || !line_value(s, "val_bpb", &v))
        return true;
    m.val_bpb = v.v;
    m.decimals = v.decimals;
    if (line_value(s, "val_loss", &v))
        m.val_loss = v.v;
    else
        loss = SIZE_MAX;
    /* Nobody's result: more than 32 bits for a byte, or nothing at all. */
    if (!(m.val_bpb > 0 && m.val_bpb < 32))
        return true;
    end = loss < bpb ? loss - strlen("val_loss") : bpb - strlen("val_bpb");
    if (line_step(s, &step)) {
        m.kind = METRIC_NONE;
        line_copy(s, 0, end, m.label, sizeof m.label);
        l->periodic = m;
        if (line_value(s, "train_time", &v))
            l->train_ms = (struct log_count){(uint64_t)fmax(v.v, 0), line, false};
        l->steps = (struct log_count){step, line, false};
        return true;
    }
    line_copy(s, 0, end, m.label, sizeof m.label);
    /* A sentence or a line of code is no label; a result without any label needs both values. */
    if (strlen(m.label) + 1 >= sizeof m.label || strpbrk(m.label, "\"'{}#$%;<>|`") ||
        (!*m.label && isnan(m.val_loss)))
        return true;
    struct line label = {m.label, strlen(m.label)};
    m.kind = kind_of(label);
    if (isnan(m.val_loss) && m.kind == METRIC_OTHER)
        return true;
    if (m.kind == METRIC_ROUNDTRIP)
        m.kind = kind_told(l, s, m.label);
    m.eval_ms = eval_ms(s);
    if (line_value(s, "tokens", &v) && !v.decimals && v.v > 0)
        m.tokens = (uint64_t)v.v;
    if (line_value(s, "bytes", &v) && !v.decimals && v.v > 0)
        m.bytes = (uint64_t)v.v;
    if (line_value(s, "stride", &v) && v.v >= 1 && v.v < 1e7)
        m.stride = (long)v.v;
    if ((line_value(s, "eval_seq_len", &v) || line_value(s, "seq_len", &v)) && v.v < 1e7)
        m.seq = (long)fmax(v.v, 0);
    return add_final(l, &m);
}

static void choose_headline(struct record_log *l)
{
    size_t last[METRIC_KINDS];
    l->headline = SIZE_MAX;
    for (size_t k = 0; k < METRIC_KINDS; k++)
        last[k] = SIZE_MAX;
    for (size_t i = 0; i < l->finals; i++)
        last[l->final[i].kind] = i;
    for (size_t k = METRIC_OTHER; k < METRIC_KINDS; k++)
        if (last[k] != SIZE_MAX &&
            (l->headline == SIZE_MAX ||
             l->final[last[k]].val_bpb <= l->final[l->headline].val_bpb + DIVERGED))
            l->headline = last[k];
}

/* ---- seeds ---- */

static void seed_line(struct record_log *l, struct line s, size_t line)
{
    struct line_number v;
    bool found = line_value(s, "seed", &v) || line_value(s, "SEED", &v);
    if (!found && line_word(s, "params", 0) != SIZE_MAX)
        found = line_value(s, "s", &v); /* "params:106154616 L:15 d:768 ... s:42" */
    if (!found || v.decimals || v.v < 0 || v.v > 9e15)
        return;
    for (size_t i = 0; i < l->seeds; i++)
        if (l->seed[i].v == (long long)v.v) {
            struct log_seed again = l->seed[i]; /* the last printed comes last */
            memmove(&l->seed[i], &l->seed[i + 1], (l->seeds - i - 1) * sizeof *l->seed);
            l->seed[l->seeds - 1] = again;
            return;
        }
    if (l->seeds < LOG_SEEDS)
        l->seed[l->seeds++] = (struct log_seed){(long long)v.v, line};
}

/* "train_seed42.log", "log_10mins_seed-7.txt", "hybrid_s42.txt", "ternary_log_1337.txt". Only the
 * first two say that it is a seed. */
static void seed_in_name(struct record_log *l, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *p = NULL;
    l->seed_named = -1;
    for (const char *c = name; *c; c++)
        if (!strncasecmp(c, "seed", 4))
            p = c + 4;
    if (!p)
        return;
    while (*p == '_' || *p == '-' || *p == '=' || *p == '.' || *p == ' ')
        p++;
    if (!isdigit((unsigned char)*p))
        return;
    l->seed_named = 0;
    for (; isdigit((unsigned char)*p) && l->seed_named < 1000000000000; p++)
        l->seed_named = l->seed_named * 10 + (*p - '0');
}

/* A log of scoring alone prints a seed of its own, and loads "runs/x_seed1337/final_model.pt". */
static void loaded_line(struct record_log *l, struct line s, size_t line)
{
    struct line_number v;
    if (l->seed_named < 0 || !(line_has(s, "ckpt") || line_has(s, "checkpoint")))
        return;
    for (size_t at = 0; (at = line_find(s, "seed", at)) != SIZE_MAX;) {
        size_t digits = at + (at < s.n && s.s[at] == '_');
        if (line_number(s, digits, &v) && v.v == (double)l->seed_named)
            l->seed_loaded = line;
    }
}

/* ---- the rest ---- */

static void count_line(struct line s, const char *key, struct log_count *to, size_t line)
{
    struct line_number v;
    if (line_value(s, key, &v) && !v.decimals && v.v >= 0 && v.v < 1e15)
        *to = (struct log_count){(uint64_t)v.v, line, false};
}

static void stop_line(struct record_log *l, struct line s, size_t line)
{
    struct line_number v, b;
    size_t at;
    if (!line_starts(s, "stopping_early"))
        return;
    l->wallclock_stop = true;
    if (line_value(s, "train_time", &v) && v.v >= 0)
        l->train_ms = (struct log_count){(uint64_t)v.v, line, false};
    if ((at = line_word(s, "step", 0)) != SIZE_MAX && line_value(s, "step", &b) && b.v >= 0)
        l->steps = (struct log_count){(uint64_t)b.v, line, false};
}

static void plain_lines(struct record_log *l, struct line s, size_t line)
{
    stop_line(l, s, line);
    seed_line(l, s, line);
    loaded_line(l, s, line);
    count_line(s, "val_tokens", &l->val_tokens, line);
    if (line_has(s, "val_loader") || line_starts(s, "val tokens"))
        count_line(s, "tokens", &l->val_tokens, line);
    count_line(s, "train_shards", &l->train_shards, line);
    count_line(s, "world_size", &l->world, line);
    count_line(s, "ws", &l->world, line);
    count_line(s, "model_params", &l->params, line);
    if (line_starts(s, "params") || line_find(s, "| params:", 0) != SIZE_MAX)
        count_line(s, "params", &l->params, line);
    if (line_starts(s, "val_bytes_files") || line_starts(s, "val_bytes:"))
        l->bytes_sidecar = true;
    if (line_starts(s, "final_eval_mode:"))
        l->sliding_told = line_starts(s, "final_eval_mode:sliding");
    if (line_starts(s, "eval:") && line_has(s, "batches (limited)"))
        l->limited = line;
}

/* Console and log file of the same run in one file: the training ends twice, to the millisecond. */
struct stop {
    double ms, step;
};

static void tangled_line(struct record_log *l, struct stop *last, struct line s, size_t line)
{
    struct line_number ms, step;
    if (!line_starts(s, "stopping_early") || !line_value(s, "train_time", &ms) ||
        !line_value(s, "step", &step))
        return;
    if (!l->tangled && ms.v == last->ms && step.v == last->step)
        l->tangled = line;
    *last = (struct stop){ms.v, step.v};
}

/* A line of at least 40 equal signs and nothing else. */
static bool ruler(struct line s)
{
    size_t i = 0;
    while (i < s.n && s.s[i] == '=')
        i++;
    return i == s.n && i >= 40;
}

static bool code_start(struct line s)
{
    return line_starts(s, "\"\"\"") || line_starts(s, "'''") || line_starts(s, "import ") ||
           line_starts(s, "from ") || line_starts(s, "#!") || line_starts(s, "# ") ||
           line_starts(s, "exec(") || line_starts(s, "r\"\"\"") ||
           (s.n > 20 && (*s.s == '"' || *s.s == '\''));
}

/*
 * The scripts that a log prints before each run. Where one ends, the next line is a ruler (or the
 * text "Running Python"); where it begins, the line looks like the start of a Python file. What
 * lies between is a script when it holds definitions or is one long packed line.
 */
struct source {
    size_t at, n, line, end;
};

static bool is_script(const char *text, size_t n)
{
    struct line all = {text, n};
    return (line_find(all, "\nimport ", 0) != SIZE_MAX || line_starts(all, "import ")) &&
           (line_find(all, "\ndef ", 0) != SIZE_MAX || line_find(all, "\nclass ", 0) != SIZE_MAX ||
            line_find(all, "exec(", 0) != SIZE_MAX);
}

/* The next printed script at or behind *at. */
static bool next_source(const char *text, size_t n, size_t *at, size_t *line, struct source *out)
{
    struct line s;
    bool open = false;
    while (true) {
        size_t here = *at;
        if (!line_next(text, n, at, &s))
            break;
        size_t k = (*line)++;
        if (!open && code_start(s)) {
            *out = (struct source){here, 0, k, 0};
            open = true;
            continue;
        }
        bool stop = ruler(line_bare(s)) || line_starts(line_bare(s), "Running Python");
        if (!stop || !open)
            continue;
        out->n = here - out->at;
        out->end = k - 1;
        if (is_script(text + out->at, out->n))
            return true; /* else it was a rule inside the script's own text */
    }
    return false;
}

/* A line that only a log has, near its start. */
static bool log_start(struct line s)
{
    static const char *const start[] = {
        "val_bpb:enabled", "logs/", "model_params:",       "step:0/", "pretrained", "params:",
        "warmup:1/",       "seed:", "--- Hyperparameters", "JEPA |"};
    for (size_t i = 0; i < sizeof start / sizeof *start; i++)
        if (line_starts(s, start[i]))
            return true;
    return line_find(s, " | params:", 0) != SIZE_MAX;
}

/* Logs that print no ruler behind the script: the text ends where the first line of a log comes. */
static bool tail_source(const char *text, size_t n, struct source *out)
{
    struct line s;
    bool open = false;
    for (size_t at = 0, here = 0, k = 1; here = at, line_next(text, n, &at, &s); k++) {
        if (!open && k < 200 && code_start(s)) {
            *out = (struct source){here, 0, k, 0};
            open = true;
        } else if (open && log_start(s)) {
            out->n = here - out->at;
            out->end = k - 1;
            return is_script(text + out->at, out->n);
        }
    }
    return false;
}

/* Lines of a printed script give no results. */
static bool in_source(const struct source *s, size_t n, size_t line)
{
    for (size_t i = 0; i < n; i++)
        if (line >= s[i].line && line <= s[i].end)
            return true;
    return false;
}

enum err_code record_log_parse(struct record_log *l, const char *path, const char *text, size_t n,
                               struct err *e)
{
    enum { SOURCES = 64 };
    struct source src[SOURCES];
    struct stop stop = {-1, -1};
    size_t sources = 0, at = 0, line = 1;
    struct line s;
    *l = (struct record_log){.path = path, .headline = SIZE_MAX, .runs = 1};
    seed_in_name(l, path);
    while (sources < SOURCES && next_source(text, n, &at, &line, &src[sources]))
        sources++;
    if (!sources && tail_source(text, n, &src[0]))
        sources = 1;
    if (sources) {
        const struct source *last = &src[sources - 1];
        l->runs = sources;
        l->source = last->at;
        l->source_n = last->n;
        l->source_line = last->line;
        l->source_end = last->end;
    }
    for (at = 0, line = 1; line_next(text, n, &at, &s); line++) {
        struct line bare = line_bare(s);
        tangled_line(l, &stop, bare, line);
        if (in_source(src, sources, line))
            continue;
        if (!bare.n || bare.n > 4096)
            continue;
        if (!metric_line(l, bare, line) || !log_said_line(l, bare, line))
            return err_nomem(e, "result lines", l->finals * sizeof *l->final);
        log_size_line(l, bare, line);
        log_time_line(l, bare, line);
        plain_lines(l, bare, line);
    }
    l->lines = line - 1;
    log_size_settle(l);
    choose_headline(l);
    return ERR_OK;
}

void record_log_free(struct record_log *l)
{
    free(l->final);
    free(l->said);
    *l = (struct record_log){0};
}

bool record_log_is(const struct record_log *l)
{
    return l->finals || l->periodic.line || l->total.line || l->model.line || l->steps.line ||
           l->val_tokens.line || l->times || (l->seeds && l->params.line);
}

long long record_log_seed(const struct record_log *l)
{
    return l->seed_named >= 0 ? l->seed_named : l->seeds ? l->seed[l->seeds - 1].v : -1;
}

const struct metric *record_log_headline(const struct record_log *l)
{
    return l->headline == SIZE_MAX ? NULL : &l->final[l->headline];
}

double record_log_time(const struct record_log *l, enum log_time_kind k, size_t *line)
{
    double s = 0;
    for (size_t i = 0; i < l->times; i++)
        if (l->time[i].kind == k) {
            s = l->time[i].seconds;
            if (line)
                *line = l->time[i].line;
        }
    return s;
}

double record_log_eval(const struct record_log *l)
{
    double total = record_log_time(l, LOG_TIME_EVAL, NULL);
    const struct metric *m = record_log_headline(l);
    if (total > 0 || !m)
        return total;
    for (size_t i = l->headline + 1; i-- > 0 && l->final[i].line + 2 >= m->line;)
        if (!isnan(l->final[i].eval_ms) && fabs(l->final[i].val_bpb - m->val_bpb) < 5.1e-5)
            return l->final[i].eval_ms / 1000;
    return 0;
}

double metric_bytes_per_token(const struct metric *m)
{
    return m->val_loss / log(2) / m->val_bpb; /* BPB = loss / ln 2 * tokens / bytes */
}
