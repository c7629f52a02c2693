/*
 * report.h - what verify has to say on standard output: lines for people, or one JSON object.
 *
 * Facts are printed as they become known; with `json` nothing is printed until report_finish.
 * Doubts are collected: the verdict is `verified` when there is none. docs/verify.md lists lines
 * and keys.
 */
#ifndef VERIFY_REPORT_H
#define VERIFY_REPORT_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "verify/engine.h"

struct report {
    bool as_json, quiet;
    cJSON *root;         /* the JSON object, filled in either form */
    cJSON *reasons;      /* array of the doubts; not part of root before report_verdict */
    double start;        /* when the command started, seconds_now() */
    struct peers *peers; /* who shares the work, NULL: nobody; the caller's */
    struct page *page;   /* gathers what --report shows (html_page.h); NULL: none is wanted */
};

enum err_code report_init(struct report *r, bool as_json, bool quiet, struct err *e);
void report_free(struct report *r); /* accepts a zeroed struct */

/*
 * report_clean - make a line out of a text that may hold somebody else's bytes: control characters,
 * and the characters that change the direction or place of others, become '?'. A file name or a
 * tensor name could otherwise move the cursor, or end with a line that reads "verified". The
 * functions below do it themselves. Returns s.
 */
char *report_clean(char *s);

/* report_line - one line for people. Silent with quiet and with json. */
void report_line(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* report_say - one line for people, the result itself: also with quiet. Silent with json. */
void report_say(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* report_doubt - one reason why the file is not verified. */
void report_doubt(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* report_scores - the result line (also with quiet; score_report's lines when the mode adapts), the
 * facts around it, and their keys. */
void report_scores(struct report *r, const struct engine *g, const struct scores *s,
                   const struct byte_table *b);

/* report_verdict - the last line, `verified` or `not verified: REASON; REASON`, and the keys
 * verdict and reasons. Returns ERR_OK or ERR_CLAIM. */
enum err_code report_verdict(struct report *r);

/* report_finish - print the JSON object if that is the form, and make sure that all output has
 * arrived. ERR_RESOURCE when it has not. */
enum err_code report_finish(struct report *r, struct err *e);

#endif
