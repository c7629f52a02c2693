/*
 * html_json.h - any JSON object as tables: what a page shows of facts that it has no picture for.
 * Private to verify/html_*.c.
 */
#ifndef VERIFY_HTML_JSON_H
#define VERIFY_HTML_JSON_H

#include <cjson/cJSON.h>

#include "verify/html.h"

/*
 * html_json - an object (or array) as tables: plain members as rows of key and value; a list of
 * objects as a table with a column for each key of its members; what lies deeper under headings.
 *
 *   skip  NULL-terminated names of members, at the first level, to be left out; or NULL
 *
 * At most JSON_ROWS rows of a list, JSON_COLUMNS columns and JSON_DEPTH levels are shown; what is
 * left out is counted.
 */
enum { JSON_ROWS = 400, JSON_COLUMNS = 14, JSON_DEPTH = 5 };
void html_json(struct html *h, const cJSON *o, const char *const *skip);

/* html_json_value - a string, number, true, false or null as text. */
void html_json_value(struct html *h, const cJSON *v);

#endif
