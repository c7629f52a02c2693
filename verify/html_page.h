/*
 * html_page.h - the report of verify as one self-contained HTML page (`--report OUT.html`).
 *
 * The page needs nothing but itself: no scripts, no fonts, no pictures from elsewhere, and a
 * content security policy that forbids them; pictures are inline SVG, drawn twice (for a phone and
 * for a wide window), each with its numbers as a table behind it. docs/report.md describes it.
 *
 * Numbers come from two places. What verify prints comes from its JSON object, so that page and
 * JSON cannot differ. What only the pictures need is gathered while the file is open (page_blob).
 */
#ifndef VERIFY_HTML_PAGE_H
#define VERIFY_HTML_PAGE_H

#include <cjson/cJSON.h>

#include "packer/blob.h"
#include "verify/engine.h"
#include "verify/options.h"

struct page;

/* page_open - begin a page for o->report, before any work is done: ERR_RESOURCE when that file
 * cannot be written. Release with page_free. */
enum err_code page_open(struct page **p, const struct options *o, struct err *e);
void page_free(struct page *p); /* accepts NULL */

/*
 * page_blob - gather what the pictures of a submission need.
 *
 *   p     NULL: no page is wanted, nothing is done
 *   b     the checked file, still open
 *   g, s  its weights, loaded, and its scores
 *
 * Files beside o->file are used when they are there and can be read, unless the command line names
 * others: train.log (--log) for the loss curve, quantize.txt (--quant-log) for the quantiser's
 * table, model.safetensors (--float) to measure the error of quantisation. None of them is needed.
 *
 * ERR_INPUT: a file of the command line cannot be read. ERR_RESOURCE: memory.
 */
enum err_code page_blob(struct page *p, const struct blob *b, const struct engine *g,
                        const struct scores *s, struct err *e);

/* page_write - write the page; root is the finished JSON object, verdict and reasons included.
 * Complete or not at all: ERR_RESOURCE leaves an older file of that name. */
enum err_code page_write(const struct page *p, const cJSON *root, struct err *e);

/* page_render - the same page as text; h->failed when it did not fit into memory. */
struct html;
void page_render(struct html *h, const struct page *p, const cJSON *root);

#endif
