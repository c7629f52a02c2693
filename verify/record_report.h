/*
 * record_report.h - an audit as one screen of text, as one line, and as JSON.
 */
#ifndef VERIFY_RECORD_REPORT_H
#define VERIFY_RECORD_REPORT_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "verify/record.h"

enum { SOTA_VALUES = 64 };

/* What a record is compared with: n values (one: a constant), and where they come from. n 0:
 * nothing. bytes_per_token: of that record, NaN where unknown. */
struct record_sota {
    double v[SOTA_VALUES];
    size_t n;
    char name[160];
    double bytes_per_token;
};

/* The tests of one record, for the margin 0.005 and 0 in each unit. */
enum record_unit { UNIT_BPB, UNIT_NATS_BYTE, UNIT_NATS_TOKEN, RECORD_UNITS };
extern const char *const record_unit_name[RECORD_UNITS];
struct record_test {
    bool possible; /* false: this unit cannot be compared (see why) */
    const char *why;
    bool welch;                  /* two lists; else one sample against a constant */
    double gain;                 /* in this unit */
    struct t_test margin, plain; /* H0: gain <= 0.005, gain <= 0 */
};
void record_test(struct record_test t[RECORD_UNITS], const struct record *r,
                 const struct record_sota *sota);

/* record_text - the whole report. record_line - one line of a table (record_line_head: its head).
 */
void record_text(FILE *out, const struct record *r, const struct record_sota *sota);
void record_line_head(FILE *out);
void record_line(FILE *out, const struct record *r);

/* record_json - the same as an object, NULL without memory; the caller deletes it. */
cJSON *record_json(const struct record *r, const struct record_sota *sota);

#endif
