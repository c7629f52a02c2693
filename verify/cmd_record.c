/* cmd_record.c - verify record: the audit of leaderboard folders. docs/audit.md is the manual. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "verify/commands.h"
#include "verify/html_record.h"
#include "verify/record_report.h"
#include "verify/wrap.h"

static const char help[] =
    "verify record FOLDER... [options]                          manual: docs/audit.md\n"
    "\n"
    "Reads a leaderboard folder (metadata, README, logs, script) and says what is claimed, what "
    "the\n"
    "evidence shows, and every discrepancy with file and line. A tree of folders gives one line\n"
    "each and a summary. Nothing of a folder is executed.\n"
    "\n"
    "  --sota BPB[,BPB...]   what to compare with: a constant (one-sample t-test) or the seeds of\n"
    "                        another record (Welch's)\n"
    "  --sota FOLDER         the same, from the logs of that record\n"
    "  --leaderboard FILE    README with the leaderboard; else the one above the folder\n"
    "  --track record|non-record   instead of what path, metadata and README say\n"
    "  --json                one JSON object instead of lines\n"
    "  --report OUT.html     the same as a page with pictures (docs/report.md)\n"
    "\n"
    "Exit status: 0 no claim is contradicted, 1 a claim is contradicted by evidence in the "
    "folder,\n"
    "2 wrong use, 3 bad input, 4 out of resources.\n"
    "Example: verify record records/track_10min_16mb/2026-04-05_NAME --sota 1.0897\n";

struct request {
    const char *sota, *board, *report;
    enum record_track track;
    bool json, help;
    const char **dir; /* owned */
    size_t dirs;
};

static enum err_code parse(struct request *q, char **argv, struct err *e)
{
    size_t n = 0;
    while (argv[n])
        n++;
    q->dir = calloc(n + 1, sizeof *q->dir);
    if (!q->dir)
        return err_nomem(e, "the command line", n);
    for (char **a = argv; *a; a++) {
        const char **text = !strcmp(*a, "--sota")          ? &q->sota
                            : !strcmp(*a, "--leaderboard") ? &q->board
                            : !strcmp(*a, "--report")      ? &q->report
                                                           : NULL;
        if (!strcmp(*a, "--help") || !strcmp(*a, "-h")) {
            q->help = true;
            return ERR_OK;
        }
        if (!strcmp(*a, "--json")) {
            q->json = true;
        } else if (text || !strcmp(*a, "--track")) {
            if (!a[1])
                return err_set(e, ERR_USAGE, "%s: needs a value", *a);
            a++;
            if (text)
                *text = *a;
            else if (!strcmp(*a, "record"))
                q->track = RECORD_TRACK_RECORD;
            else if (!strcmp(*a, "non-record"))
                q->track = RECORD_TRACK_NON_RECORD;
            else
                return err_set(e, ERR_USAGE, "--track %s: must be record or non-record", *a);
        } else if (**a == '-') {
            return err_set(e, ERR_USAGE, "%s: unknown option of record; --help lists them", *a);
        } else {
            q->dir[q->dirs++] = *a;
        }
    }
    return q->dirs ? ERR_OK
                   : err_set(e, ERR_USAGE, "say which folder: verify record FOLDER; --help");
}

/* ---- what to compare with ---- */

static enum err_code sota_folder(struct record_sota *s, const char *dir, struct err *e)
{
    struct record *r = malloc(sizeof *r);
    if (!r)
        return err_nomem(e, "a record", sizeof *r);
    enum err_code rc = record_audit(r, dir, NULL, RECORD_TRACK_UNKNOWN, e);
    for (size_t i = 0; !rc && i < r->heads && s->n < SOTA_VALUES; i++)
        s->v[s->n++] = record_log_headline(&r->run[r->head[i]].log)->val_bpb;
    if (!rc && !s->n)
        rc = err_set(e, ERR_INPUT, "--sota %s: no result in its logs", dir);
    if (!rc) {
        s->bytes_per_token = r->run[r->head[0]].bytes_per_token;
        snprintf(s->name, sizeof s->name, "%.100s, %zu log%s, mean %.8f", r->folder.name, s->n,
                 s->n == 1 ? "" : "s", r->bpb.mean);
    }
    record_free(r);
    free(r);
    return rc;
}

static enum err_code sota(struct record_sota *s, const char *text, struct err *e)
{
    struct stat st;
    *s = (struct record_sota){.bytes_per_token = NAN};
    if (!text)
        return ERR_OK;
    if (!stat(text, &st) && S_ISDIR(st.st_mode))
        return sota_folder(s, text, e);
    for (const char *p = text;; p++) {
        char *end;
        double v = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(v > 0 && v < 32) || s->n == SOTA_VALUES)
            return err_set(e, ERR_USAGE, "--sota %s: must be a BPB, a list of them, or a folder",
                           text);
        s->v[s->n++] = v;
        p = end;
        if (!*p)
            break;
    }
    snprintf(s->name, sizeof s->name, "%.150s", text);
    return ERR_OK;
}

/* Without --sota: the row below on the leaderboard. */
static struct record_sota sota_of(const struct record *r, const struct record_sota *given)
{
    const struct board_row *row = r->row ? board_before(&r->board, r->row) : NULL;
    if (given->n || !row)
        return *given;
    struct record_sota s = {.v = {row->score}, .n = 1, .bytes_per_token = NAN};
    snprintf(s.name, sizeof s.name, "the next row of the leaderboard, %.10g (%.90s)", row->score,
             row->run);
    return s;
}

/* ---- output ---- */

struct totals {
    size_t records, contradicted, unread, folders[RECORD_SEVERITIES];
    size_t code[RECORD_CODE_COUNT]; /* folders with it */
};

static void tally(struct totals *t, const struct record *r)
{
    bool has[RECORD_CODE_COUNT] = {0};
    t->records++;
    t->contradicted += record_contradicted(r);
    for (size_t s = 0; s < RECORD_SEVERITIES; s++)
        t->folders[s] += r->count[s] > 0;
    for (size_t i = 0; i < r->findings; i++)
        has[r->finding[i].code] = true;
    for (size_t c = 0; c < RECORD_CODE_COUNT; c++)
        t->code[c] += has[c];
}

static void summary(const struct totals *t)
{
    printf("\n%zu records: %zu with a fail, %zu with a warning, %zu with a contradicted claim",
           t->records, t->folders[RECORD_FAIL], t->folders[RECORD_WARN], t->contradicted);
    if (t->unread)
        printf(", %zu not readable", t->unread);
    printf("\n\nfolders  severity  finding\n");
    for (int s = RECORD_FAIL; s >= RECORD_INFO; s--)
        for (size_t c = 0; c < RECORD_CODE_COUNT; c++)
            if (t->code[c] && (int)record_code_info[c].severity == s)
                printf("%7zu  %-8s  %-36s %s (%s)\n", t->code[c], record_severity_name[s],
                       record_code_info[c].code, record_code_info[c].meaning,
                       record_code_info[c].rule);
}

static void summary_json(cJSON *root, const struct totals *t)
{
    cJSON *o = cJSON_AddObjectToObject(root, "summary"), *codes;
    cJSON_AddNumberToObject(o, "records", (double)t->records);
    cJSON_AddNumberToObject(o, "contradicted", (double)t->contradicted);
    cJSON_AddNumberToObject(o, "not_readable", (double)t->unread);
    for (size_t s = 0; s < RECORD_SEVERITIES; s++)
        cJSON_AddNumberToObject(o, record_severity_name[s], (double)t->folders[s]);
    codes = cJSON_AddObjectToObject(o, "folders_by_code");
    for (size_t c = 0; c < RECORD_CODE_COUNT; c++)
        if (t->code[c])
            cJSON_AddNumberToObject(codes, record_code_info[c].code, (double)t->code[c]);
}

static enum err_code print_json(const cJSON *root, struct err *e)
{
    char *text = root ? cJSON_Print(root) : NULL;
    if (!text)
        return err_nomem(e, "the report", 0);
    puts(text);
    cJSON_free(text);
    return ERR_OK;
}

/* For a terminal in lines that it has room for, the labels' column apart. */
static void print_text(const struct record *r, const struct record_sota *s)
{
    enum { LABELS = 13, NARROWEST = 40 };
    size_t width = wrap_width(stdout), n = 0;
    char *text = NULL;
    FILE *f = width >= NARROWEST ? open_memstream(&text, &n) : NULL;
    if (!f) {
        record_text(stdout, r, s);
        return;
    }
    record_text(f, r, s);
    if (!fclose(f))
        wrap_write(stdout, text, width, LABELS);
    free(text);
}

/* All folders; one of them is shown in full, several as a table. */
static enum err_code audit_all(const struct request *q, char **list, size_t n, struct err *e)
{
    struct record_sota given;
    struct totals t = {0};
    enum err_code rc = sota(&given, q->sota, e), worst = ERR_OK;
    struct record *r = malloc(sizeof *r);
    bool object = q->json || q->report;
    cJSON *root = object && n > 1 ? cJSON_CreateObject() : NULL;
    cJSON *records = root ? cJSON_AddArrayToObject(root, "records") : NULL;
    if (!rc && (!r || (object && n > 1 && !records)))
        rc = err_nomem(e, "a record", sizeof *r);
    if (!rc && n > 1 && !q->json)
        record_line_head(stdout);
    for (size_t i = 0; !rc && i < n; i++) {
        struct err mine = {0};
        enum err_code got = record_audit(r, list[i], q->board, q->track, &mine);
        if (got && (n == 1 || got != ERR_INPUT)) {
            rc = err_set(e, got, "%s", mine.msg);
        } else if (got) {
            t.unread++;
            worst = got;
            if (object) {
                cJSON *o = cJSON_CreateObject();
                cJSON_AddStringToObject(o, "folder", list[i]);
                cJSON_AddStringToObject(o, "error", mine.msg);
                cJSON_AddItemToArray(records, o);
            }
            if (!q->json)
                printf("not readable: %s\n", mine.msg);
        } else {
            struct record_sota s = sota_of(r, &given);
            cJSON *o = object ? record_json(r, &s) : NULL;
            tally(&t, r);
            if (q->json && n == 1)
                rc = print_json(o, e);
            else if (!q->json && n == 1)
                print_text(r, &s);
            else if (!q->json)
                record_line(stdout, r);
            if (!rc && q->report && n == 1)
                rc = o ? page_record(q->report, o, e) : err_nomem(e, "the report", 0);
            if (n > 1)
                cJSON_AddItemToArray(records, o);
            else
                cJSON_Delete(o);
        }
        record_free(r);
    }
    if (!rc && n > 1 && object)
        summary_json(root, &t);
    if (!rc && n > 1 && q->json)
        rc = print_json(root, e);
    else if (!rc && n > 1)
        summary(&t);
    if (!rc && n > 1 && q->report)
        rc = page_record(q->report, root, e);
    cJSON_Delete(root);
    free(r);
    if (!rc && (fflush(stdout) || ferror(stdout)))
        rc = err_set(e, ERR_RESOURCE, "standard output: cannot be written");
    return rc ? rc : worst ? worst : t.contradicted ? ERR_CLAIM : ERR_OK;
}

enum err_code verify_record(char **argv, struct err *e)
{
    struct request q = {0};
    char **all = NULL;
    size_t n = 0;
    enum err_code rc = parse(&q, argv, e);
    if (!rc && q.help)
        fputs(help, stdout);
    for (size_t i = 0; !rc && !q.help && i < q.dirs; i++) {
        char **list;
        size_t more;
        rc = record_folders(&list, &more, q.dir[i], e);
        if (rc == ERR_INPUT && q.dirs > 1) { /* audit_all says it, and goes on with the others */
            *e = (struct err){0};
            rc = record_folders_one(&list, &more, q.dir[i], e);
        }
        if (rc)
            break;
        char **grown = realloc(all, (n + more) * sizeof *all);
        if (!grown) {
            record_folders_free(list, more);
            rc = err_nomem(e, "a list of folders", (n + more) * sizeof *all);
            break;
        }
        all = grown;
        memcpy(all + n, list, more * sizeof *all);
        n += more;
        free(list);
    }
    if (!rc && !q.help)
        rc = audit_all(&q, all, n, e);
    record_folders_free(all, n);
    free(q.dir);
    return rc;
}
