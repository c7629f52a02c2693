/*
 * html_record.h - the audit of leaderboard folders as an HTML page (`verify record --report`).
 */
#ifndef VERIFY_HTML_RECORD_H
#define VERIFY_HTML_RECORD_H

#include <cjson/cJSON.h>

#include "verify/html.h"

/*
 * page_record - write the page of one folder (the object that record_json makes), or of many (an
 * object with the list `records` and `summary`): a table with a line each.
 *
 * The page shows what is in the object and nothing else. Complete or not at all: ERR_RESOURCE
 * leaves an older file of that name.
 */
enum err_code page_record(const char *path, const cJSON *root, struct err *e);

/* page_record_render - the same page as text; h->failed when it did not fit into memory. */
void page_record_render(struct html *h, const cJSON *root);

#endif
