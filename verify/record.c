/* record.c - see record.h: the order of an audit, and the list of its findings. */
#include "verify/record.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/record_line.h"

const char *const record_severity_name[RECORD_SEVERITIES] = {"info", "warn", "fail"};
const char *const claim_state_name[] = {"not made", "confirmed", "unsupported", "contradicted"};

#define INFO RECORD_INFO
#define WARN RECORD_WARN
#define FAIL RECORD_FAIL
const struct record_code_info record_code_info[RECORD_CODE_COUNT] = {
#define X(id, code, severity, rule, meaning) {code, severity, rule, meaning},
    RECORD_CODES(X)
#undef X
};
#undef INFO
#undef WARN
#undef FAIL

const char *record_count(uint64_t n)
{
    static char ring[8][32];
    static unsigned turn;
    char digits[24], *out = ring[turn++ % 8];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), k = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[k++] = ',';
        out[k++] = digits[i];
    }
    out[k] = 0;
    return out;
}

struct record_finding *record_find(struct record *r, enum record_code code, const char *file,
                                   size_t line, const char *fmt, ...)
{
    static struct record_finding spare; /* somewhere to write when the list is full */
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct record_finding *f = &spare;
    if (r->findings < RECORD_FINDINGS)
        f = &r->finding[r->findings++];
    else
        r->findings_dropped++;
    *f = (struct record_finding){.code = code, .severity = record_code_info[code].severity};
    if (f != &spare)
        f->text = strdup(text);
    if (file)
        record_also(f, file, line);
    r->count[f->severity]++;
    return f;
}

void record_also(struct record_finding *f, const char *file, size_t line)
{
    for (size_t i = 0; i < f->ats; i++)
        if (f->at[i].line == line && !strcmp(f->at[i].file, file))
            return;
    if (f->ats < RECORD_AT)
        f->at[f->ats++] = (struct record_at){file, line};
}

void record_unchecked(struct record *r, const char *fmt, ...)
{
    va_list ap;
    if (r->uncheckeds == RECORD_UNCHECKED)
        return;
    va_start(ap, fmt);
    vsnprintf(r->unchecked[r->uncheckeds++], sizeof *r->unchecked, fmt, ap);
    va_end(ap);
}

/* ---- logs ---- */

static enum err_code read_logs(struct record *r, struct err *e)
{
    const struct record_folder *f = &r->folder;
    r->run = calloc(f->files + 1, sizeof *r->run);
    if (!r->run)
        return err_nomem(e, "logs", (f->files + 1) * sizeof *r->run);
    for (size_t i = 0; i < f->files; i++) {
        struct record_run *run = &r->run[r->runs];
        if (f->file[i].kind != RECORD_LOG || !f->file[i].text)
            continue;
        enum err_code rc = record_log_parse(&run->log, f->file[i].path, f->file[i].text,
                                            (size_t)f->file[i].size, e);
        if (rc || !record_log_is(&run->log)) { /* notes, diaries: no log */
            record_log_free(&run->log);
            if (rc)
                return rc;
            continue;
        }
        run->file = &f->file[i];
        run->duplicate_of = SIZE_MAX;
        r->runs++;
    }
    /* Of equal logs the one that is named for a seed stays. */
    for (size_t i = 0; i < r->runs; i++)
        for (size_t k = 0; k < r->runs; k++) {
            struct record_run *a = &r->run[i], *b = &r->run[k];
            bool prefer = (b->log.seed_named >= 0) != (a->log.seed_named >= 0)
                              ? b->log.seed_named >= 0
                              : k < i;
            if (i != k && a->duplicate_of == SIZE_MAX && b->duplicate_of == SIZE_MAX && prefer &&
                a->file->size == b->file->size &&
                !memcmp(a->file->text, b->file->text, (size_t)a->file->size))
                a->duplicate_of = k;
        }
    return ERR_OK;
}

/* ---- settings that a log prints, for the facts about the script ---- */

enum { SETTINGS = 512, SETTING_BYTES = 64 };
struct settings {
    struct script_setting s[SETTINGS];
    char name[SETTINGS][SETTING_BYTES], value[SETTINGS][SETTING_BYTES];
    size_t n;
};

/* "  eval_stride: 64" in a list of hyperparameters, and "train_seq_len:1024" among other words. */
static void settings_of(struct settings *to, const struct record_run *run)
{
    struct line l;
    size_t line = 1;
    for (size_t at = 0; line_next(run->file->text, (size_t)run->file->size, &at, &l); line++) {
        struct line s = line_bare(l);
        if ((line >= run->log.source_line && line <= run->log.source_end) || s.n > 400)
            continue;
        for (size_t i = 0; i < s.n && to->n < SETTINGS;) {
            size_t a = i, colon;
            while (i < s.n && (isalnum((unsigned char)s.s[i]) || s.s[i] == '_'))
                i++;
            colon = i;
            if (i == a || i >= s.n || (s.s[i] != ':' && s.s[i] != '=')) {
                i += i < s.n;
                continue;
            }
            i++;
            if (i < s.n && s.s[i] == ' ' && a == 0)
                i++; /* a blank behind the colon: only where the line is one setting */
            size_t v = i;
            while (i < s.n && s.s[i] != ' ' && s.s[i] != ',')
                i++;
            if (i > v && colon - a < SETTING_BYTES && i - v < SETTING_BYTES) {
                line_copy(s, a, colon, to->name[to->n], SETTING_BYTES);
                line_copy(s, v, i, to->value[to->n], SETTING_BYTES);
                to->s[to->n] = (struct script_setting){to->name[to->n], to->value[to->n]};
                to->n++;
            }
        }
    }
}

static enum err_code read_script(struct record *r, struct err *e)
{
    size_t counted = 0;
    struct settings *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, "settings", sizeof *s);
    if (r->heads) {
        const struct record_run *run = &r->run[r->head[0]];
        const struct record_log *l = &run->log;
        counted = (size_t)(l->code_plain.line ? l->code_plain.v : l->code.v);
        settings_of(s, run);
    }
    enum err_code rc = record_script_read(&r->script, &r->folder, counted, s->s, s->n, e);
    free(s);
    for (size_t i = 0; !rc && i < r->runs; i++) {
        struct record_run *run = &r->run[i];
        if (run->log.source_n)
            run->source_same =
                record_script_printed(&r->script, &r->folder, run->file->text + run->log.source,
                                      run->log.source_n, &run->source_file);
    }
    return rc;
}

bool record_method_used(const struct record *r, const struct method_facts *m)
{
    if (m->used == USED_YES)
        return true;
    for (size_t i = 0; i < r->heads; i++)
        if (strcasestr(record_log_headline(&r->run[r->head[i]].log)->label, method_name[m->method]))
            return true;
    return false;
}

/* ---- track ---- */

static bool mentions_non_record(const char *s, size_t n)
{
    struct line l = {s, n};
    return line_has(l, "non-record") || line_has(l, "non_record") || line_has(l, "nonrecord") ||
           line_has(l, "unlimited compute") || line_has(l, "unlimited-compute");
}

static void find_track(struct record *r, enum record_track asked)
{
    char real[PATH_MAX];
    const struct record_file *readme = NULL;
    const char *why = "assumed: nothing says non-record";
    r->track = RECORD_TRACK_RECORD;
    for (size_t i = 0; i < r->folder.files && !readme; i++)
        if (r->folder.file[i].kind == RECORD_README)
            readme = &r->folder.file[i];
    /* The README's first lines, where a title says it. */
    size_t head = readme && readme->text ? (readme->size < 600 ? (size_t)readme->size : 600) : 0;
    if (asked != RECORD_TRACK_UNKNOWN) {
        r->track = asked;
        why = "--track";
    } else if (r->folder.dir && realpath(r->folder.dir, real) && strstr(real, "/track_")) {
        if (strstr(real, "/track_non_record"))
            r->track = RECORD_TRACK_NON_RECORD;
        why = "folder above";
    } else if (*r->meta.track) {
        if (mentions_non_record(r->meta.track, strlen(r->meta.track)))
            r->track = RECORD_TRACK_NON_RECORD;
        why = "metadata";
    } else if (head && mentions_non_record(readme->text, head)) {
        r->track = RECORD_TRACK_NON_RECORD;
        why = "README";
    } else if (mentions_non_record(r->meta.text, strlen(r->meta.text)) ||
               mentions_non_record(r->meta.name, strlen(r->meta.name))) {
        r->track = RECORD_TRACK_NON_RECORD;
        why = "metadata";
    }
    snprintf(r->track_why, sizeof r->track_why, "%s", why);
}

/* ---- the audit ---- */

enum err_code record_audit(struct record *r, const char *dir, const char *board,
                           enum record_track track, struct err *e)
{
    memset(r, 0, sizeof *r);
    enum err_code rc = record_folder_read(&r->folder, dir, e);
    if (!rc && !r->folder.files)
        rc = err_set(e, ERR_INPUT, "%s: no files in it", dir);
    return rc ? rc : record_audit_files(r, board, track, e);
}

enum err_code record_audit_files(struct record *r, const char *board, enum record_track track,
                                 struct err *e)
{
    enum err_code rc = record_meta_read(&r->meta, &r->folder, e);
    if (!rc)
        rc = read_logs(r, e);
    if (rc)
        return rc;
    find_track(r, track);
    record_choose_heads(r);
    if ((rc = read_script(r, e)))
        return rc;
    if (!board && r->folder.dir)
        board_near(&r->board, r->folder.dir);
    else if (board && (rc = board_load(&r->board, board, e)))
        return rc;
    record_denominators(r);
    record_sizes(r);
    record_check_meta(r);
    record_check_runs(r);
    record_check_sizes(r);
    record_check_board(r);
    record_judge(r);
    return ERR_OK;
}

void record_free(struct record *r)
{
    for (size_t i = 0; i < r->findings; i++)
        free(r->finding[i].text);
    for (size_t i = 0; i < r->runs; i++)
        record_log_free(&r->run[i].log);
    free(r->run);
    record_script_free(&r->script);
    record_folder_free(&r->folder);
    memset(r, 0, sizeof *r);
}

bool record_contradicted(const struct record *r)
{
    for (size_t i = 0; i < RCLAIM_COUNT; i++)
        if (r->claim[i] == CLAIM_CONTRADICTED)
            return true;
    return false;
}
