/*
 * html_parts.h - what the pages of all commands have in common. Private to verify/html_*.c.
 */
#ifndef VERIFY_HTML_PARTS_H
#define VERIFY_HTML_PARTS_H

#include <cjson/cJSON.h>

#include "verify/html.h"

/* ---- members of an object ---- */

const cJSON *json_item(const cJSON *o, const char *key);
/* json_str - a string, or raw text; `otherwise` when there is none. */
const char *json_str(const cJSON *o, const char *key, const char *otherwise);
/* json_num - a number, however it is kept (report.c keeps losses as raw text); NAN: none. */
double json_num(const cJSON *o, const char *key);

/* ---- the page ---- */

/* part_begin - everything up to <main>. `a: b` is the title. */
void part_begin(struct html *h, const char *a, const char *b);

/* part_verdict - the first box: a mark, the verdict, what it is about, and a list of reasons (NULL:
 * none). `class` is "ok", "bad", or "" for a verdict that is neither. */
void part_verdict(struct html *h, const char *class, const char *verdict, const char *about,
                  const cJSON *reasons);

/* part_end - everything behind the last section. */
void part_end(struct html *h, const char *command);

/* part_save - write the page and free it, also on failure. ERR_RESOURCE. */
enum err_code part_save(struct html *h, const char *path, struct err *e);

/* part_facts - the whole object as tables, folded unless `open`; `skip` as html_json has it. */
void part_facts(struct html *h, const cJSON *root, const char *const *skip, bool open);

/* ---- pieces ---- */

enum part_mark { PART_YES, PART_NO, PART_OPEN };

/* part_check - a line in <ul class="checks">. */
void part_check(struct html *h, enum part_mark m, const char *text);

/* part_table - the beginning of a table that may be wider than the page: names of columns,
 * separated by '|', those of numbers with a '#' before. part_table_end closes it. */
void part_table(struct html *h, const char *columns);
void part_table_end(struct html *h);

/* part_cell - text. part_cell_raw - a number or other text of this program, right-aligned.
 * part_cell_number - with `digits` digits, empty when it is NAN. */
void part_cell(struct html *h, const char *text);
void part_cell_raw(struct html *h, const char *text);
void part_cell_number(struct html *h, double v, int digits);

#endif
