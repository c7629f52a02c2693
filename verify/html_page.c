/* html_page.c - see html_page.h: what a page consists of, in order. */
#include "verify/html_page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/html_chart.h"
#include "verify/html_json.h"
#include "verify/html_parts.h"

/* No file is that large; a drawing of such numbers would be nonsense. */
static const double HUGE_SIZE = 1e15;

/* ---- beginning ---- */

static bool verified(const cJSON *root)
{
    return !strcmp(json_str(root, "verdict", ""), "verified");
}

static void key_figure(struct html *h, const char *name, const char *value, const char *small)
{
    html_raw(h, "<div><dt>");
    html_text(h, name);
    html_raw(h, "</dt><dd>");
    html_text(h, value);
    html_raw(h, "<small>");
    html_text(h, small);
    html_raw(h, "</small></dd></div>\n");
}

static double section_bytes(const cJSON *root, const char *kind)
{
    const cJSON *s;
    cJSON_ArrayForEach(s, json_item(root, "sections")) if (!strcmp(json_str(s, "kind", ""),
                                                                   kind)) return json_num(s,
                                                                                          "size");
    return NAN;
}

static void figures(struct html *h, const cJSON *root)
{
    char a[HTML_NUMBER], b[HTML_NUMBER], small[160];
    double total = json_num(root, "bytes_total"), limit = json_num(root, "bytes_limit");
    double params = json_num(root, "parameters"), weights = section_bytes(root, "weights");
    double tokens = json_num(root, "tokens");
    if (!isfinite(total))
        return;
    html_raw(h, "<section>\n<h2>Result</h2>\n<dl class=\"key\">\n");
    const cJSON *record = json_item(root, "record");
    if (isfinite(json_num(record, "val_bpb"))) /* the mode adapts: its own value comes second */
        key_figure(h, "bits per byte, of record", json_str(record, "val_bpb", "-"),
                   "sliding, without adapting");
    if (isfinite(tokens)) {
        snprintf(small, sizeof small, "%s scoring", json_str(root, "mode", ""));
        key_figure(h, record ? "bits per byte, adapted" : "bits per byte",
                   json_str(root, "val_bpb", "-"), small);
        key_figure(h, "loss", json_str(root, "val_loss", "-"),
                   record ? "nats per token, adapted" : "nats per token");
    }
    snprintf(small, sizeof small, "%s %s", html_count(b, fabs(limit - total)),
             total > limit ? "above the limit" : "below the limit");
    key_figure(h, "bytes, the whole file", html_count(a, total), small);
    if (isfinite(tokens)) {
        snprintf(small, sizeof small, "for %s bytes of text",
                 html_count(b, json_num(root, "bytes")));
        key_figure(h, "tokens scored", html_count(a, tokens), small);
    }
    if (isfinite(params)) {
        snprintf(small, sizeof small, "%s bits each in the file",
                 html_number(b, 8 * weights / params, 3));
        key_figure(h, "parameters", html_count(a, params), small);
    }
    if (json_num(root, "bytes_with_tokenizer") > 0)
        key_figure(h, "bytes with the tokeniser",
                   html_count(a, json_num(root, "bytes_with_tokenizer")),
                   "the total before is without it");
    html_raw(h, "</dl>\n");
    if (record)
        html_raw(h,
                 "<p class=\"dim\" style=\"margin-top:12px\">This mode adapts to what it scores; "
                 "which conditions that meets is listed below.</p>\n");
    html_raw(h, "</section>\n");
}

/* ---- claim against result ---- */

static void claim(struct html *h, const cJSON *root)
{
    const cJSON *list = json_item(root, "claim"), *c;
    struct claim_ctx v = {NAN, NAN, 1e-4};
    if (!list) {
        if (isfinite(json_num(root, "tokens")))
            html_raw(h, "<section>\n<h2>Claim against result</h2>\n<p>No claim was given "
                        "(<code>--claim FILE.json</code>): there is nothing to compare the result "
                        "with.</p>\n</section>\n");
        return;
    }
    html_raw(h, "<section>\n<h2>Claim against result</h2>\n");
    cJSON_ArrayForEach(c, list) if (!strcmp(json_str(c, "key", ""), "val_bpb"))
    {
        v.claimed = json_num(c, "claimed");
        v.measured = json_num(c, "measured");
    }
    if (isfinite(v.claimed) && isfinite(v.measured) && fabs(v.claimed) < 1e4)
        html_figure(h, "Bits per byte, claimed and measured, on one scale", draw_claim, &v);
    part_table(h, "what|#claimed|#measured|");
    cJSON_ArrayForEach(c, list)
    {
        bool holds = cJSON_IsTrue(json_item(c, "confirmed"));
        html_raw(h, "<tr><td>");
        html_text(h, json_str(c, "key", ""));
        html_raw(h, "</td><td class=\"n\">");
        html_text(h, json_str(c, "claimed", "-"));
        html_raw(h, "</td><td class=\"n\">");
        html_text(h, json_str(c, "measured", "-"));
        html_raw(h, holds ? "</td><td class=\"yes\">confirmed</td></tr>\n"
                          : "</td><td class=\"no\">not confirmed</td></tr>\n");
    }
    part_table_end(h);
    html_raw(h, "</section>\n");
}

/* ---- bytes ---- */

static void source(struct html *h, const char *before, const char *path, const char *behind)
{
    html_raw(h, "<p class=\"src\">");
    html_raw(h, before);
    html_raw(h, "<code>");
    html_text(h, path);
    html_raw(h, "</code>");
    html_raw(h, behind);
    html_raw(h, "</p>\n");
}

static void shape_text(char *out, size_t cap, const struct page_tensor *t)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < t->ndim && i < 3 && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%zu", i ? "×" : "", t->shape[i]);
}

static void tensor_table(struct html *h, const struct page *p, double total)
{
    char text[HTML_NUMBER], columns[200];
    bool measured = *p->float_path, reported = p->log.rows > 0;
    html_rawf(h, "<details><summary>%zu tensors, largest first</summary>\n", p->tensors);
    snprintf(columns, sizeof columns,
             "tensor|shape|integers|#bytes|#%% of file|#bits per weight%s%s",
             measured ? "|#error, %|#RMS error" : "",
             reported ? "|#reported bits|#reported error, %|#reported damage" : "");
    part_table(h, columns);
    for (size_t i = 0; i < p->tensors; i++) {
        const struct page_tensor *t = &p->tensor[i];
        const struct log_row *r = page_log_row(&p->log, t->name);
        char shape[96];
        shape_text(shape, sizeof shape, t);
        html_raw(h, "<tr><td>");
        html_text(h, t->name);
        html_rawf(h, "</td><td>%s</td>", shape);
        if (t->whole)
            html_rawf(h, "<td>%d..%d</td>", t->lo, t->hi);
        else
            html_raw(h, "<td>float</td>");
        part_cell_raw(h, html_count(text, t->bytes));
        part_cell_number(h, total > 0 ? 100 * t->bytes / total : NAN, 3);
        part_cell_number(h, t->weights > 0 ? 8 * t->bytes / t->weights : NAN, 3);
        if (measured) {
            part_cell_number(h, 100 * t->rel, 3);
            part_cell_number(h, t->rmse, 3);
        }
        if (reported) {
            part_cell_number(h, r ? r->bits : NAN, 3);
            part_cell_number(h, r ? 100 * r->relative : NAN, 3);
            part_cell_number(h, r ? r->damage : NAN, 3);
        }
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    if (p->left_out)
        html_rawf(h, "<p class=\"dim\">%zu smaller tensors are not shown.</p>\n", p->left_out);
    html_raw(h, "</details>\n");
}

/* Rows of the table of functions; the treemap has more. */
enum { FUNCTIONS = 300 };

static void code_table(struct html *h, const struct page *p, double stored)
{
    char text[HTML_NUMBER];
    double share = stored / fmax(p->code.bytes, p->runner);
    html_rawf(h, "<details><summary>%zu functions of the runner, largest first</summary>\n",
              p->code.n);
    part_table(h, "function|#bytes|#share of the compressed runner");
    for (size_t i = 0; i < p->code.n && i < FUNCTIONS; i++) {
        html_raw(h, "<tr>");
        part_cell(h, p->code.f[i].name);
        part_cell_raw(h, html_count(text, p->code.f[i].bytes));
        part_cell_raw(h, html_count(text, share * p->code.f[i].bytes));
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    if (p->code.n > FUNCTIONS)
        html_rawf(h, "<p class=\"dim\">%zu smaller functions are not shown.</p>\n",
                  p->code.n - FUNCTIONS);
    html_raw(h, "</details>\n");
}

static void bytes(struct html *h, const struct page *p, const cJSON *root)
{
    struct map_ctx map = {.p = p};
    struct budget_ctx budget = {json_num(root, "bytes_total"), json_num(root, "bytes_limit"), 0};
    const cJSON *s;
    char text[HTML_NUMBER];
    cJSON_ArrayForEach(s, json_item(root, "sections"))
    {
        double n = json_num(s, "size");
        if (map.sections < MAP_SECTIONS && n >= 0 && n < HUGE_SIZE)
            map.section[map.sections++] = (struct map_section){json_str(s, "kind", "?"), n};
    }
    if (!map.sections || !(budget.used > 0 && budget.used < HUGE_SIZE) ||
        !(budget.limit > 0 && budget.limit < HUGE_SIZE))
        return;
    html_raw(h, "<section>\n<h2>Where the bytes are</h2>\n");
    html_figure(h, "Bytes of the file against the limit", draw_budget, &budget);
    html_figure(h,
                "Treemap of the file's bytes by section and tensor; the numbers are in the "
                "tables below",
                draw_treemap, &map);
    static const char *const tensors[] = {"attention", "MLP", "embeddings and tables",
                                          "gains, scales, mixes"};
    html_raw(h, "<ul class=\"legend\">");
    if (!p->tensors)
        html_raw(h, "<li><i class=\"g0\"></i>weights</li>");
    for (int i = 0; p->tensors && i < ROLES; i++)
        html_rawf(h, "<li><i class=\"g%d\"></i>%s</li>", i, tensors[i]);
    html_raw(h, "<li><i class=\"g5\"></i>code (runner)</li><li><i class=\"g4\"></i>everything else"
                "</li></ul>\n");
    if (p->tensors) {
        html_raw(h, "<p class=\"src\">Areas are bytes in the file. A number before a name is the "
                    "block. ");
        if (p->estimate)
            html_rawf(h,
                      "The codec of the weights (%s) does not say what a single tensor costs: its "
                      "share is estimated from the entropy of its bytes.",
                      p->codec);
        else
            html_rawf(h,
                      "What a tensor costs was measured by decoding the weights (codec %s) and "
                      "adding up the information of its symbols; scales and exponents are counted "
                      "with their matrix.",
                      p->codec);
        html_raw(h, "</p>\n");
    }
    if (p->code.n)
        source(
            h, "Functions of the runner are those listed in ", p->o->code_map,
            ", which was not checked; each has the share of the compressed runner that it has of "
            "the runner as it is.");
    html_raw(h, "<details><summary>Sections of the file</summary>\n");
    part_table(h, "section|codec|#offset|#bytes|#% of file|#unpacked|XXH64");
    cJSON_ArrayForEach(s, json_item(root, "sections"))
    {
        html_raw(h, "<tr><td>");
        html_text(h, json_str(s, "kind", "?"));
        html_raw(h, "</td><td>");
        html_text(h, json_str(s, "codec", "?"));
        html_raw(h, "</td>");
        part_cell_raw(h, html_count(text, json_num(s, "offset")));
        part_cell_raw(h, html_count(text, json_num(s, "size")));
        part_cell_number(h, 100 * json_num(s, "size") / budget.used, 3);
        part_cell_raw(h, html_count(text, json_num(s, "unpacked_size")));
        html_raw(h, "<td><code>");
        html_text(h, json_str(s, "xxh64", "-"));
        html_raw(h, "</code></td></tr>\n");
    }
    part_table_end(h);
    html_raw(h, "</details>\n");
    if (p->code.n)
        code_table(h, p, section_bytes(root, "runner"));
    if (p->tensors)
        tensor_table(h, p, budget.used);
    html_raw(h, "</section>\n");
}

/* ---- bits and error per tensor ---- */

static void precision(struct html *h, const struct page *p)
{
    char text[HTML_NUMBER];
    if (!has_bits(p))
        return;
    html_raw(h, "<section>\n<h2>Bits per weight</h2>\n<p>What a weight of each matrix costs in the "
                "file, scales included.</p>\n");
    html_figure(h, "Bits per weight of each matrix, by kind and block", draw_bits, p);
    html_raw(h, "<h2 style=\"margin-top:22px\">Error of quantisation</h2>\n");
    if (has_errors(p)) {
        html_raw(h, "<p>Norm of the difference over norm of the weights, in percent.</p>\n");
        html_figure(h, "Relative error of each matrix in percent, by kind and block", draw_errors,
                    p);
        source(h, "Measured against the weights in ", p->float_path,
               ". A quantiser that lets later columns make good the errors of earlier ones (GPTQ) "
               "makes this error larger and that of the model smaller.");
    } else if (*p->float_path) {
        source(h, "The weights are equal to those in ", p->float_path, ".");
    } else {
        html_raw(h, "<p class=\"dim\">Not measured: no float weights of this model beside the file "
                    "(model.safetensors, or <code>--float FILE</code>).</p>\n");
    }
    if (p->log.rows)
        source(h, "The table of tensors above also has what the quantiser reported, in ",
               *p->quant_path ? p->quant_path : p->log_path, ". That was not checked.");
    if (p->log.divergence > 0)
        html_rawf(h,
                  "<p>Divergence of the quantised from the float model, as reported: %s nats per "
                  "token.</p>\n",
                  html_number(text, p->log.divergence, 3));
    html_raw(h, "<p class=\"src\">Bytes, bits and errors of all tensors are in the table under the "
                "treemap.</p>\n</section>\n");
}

/* ---- loss curve ---- */

/* At most this many rows of a curve are listed, evenly spread. */
enum { LISTED = 60 };

static void points(struct html *h, const char *name, const struct log_point *p, size_t n)
{
    char text[HTML_NUMBER];
    size_t each = (n + LISTED - 1) / LISTED;
    for (size_t i = 0; i < n; i += each) {
        size_t at = i + each >= n ? n - 1 : i; /* the last one is always there */
        html_rawf(h, "<tr><td>%s</td>", name);
        part_cell_raw(h, html_count(text, p[at].step));
        html_rawf(h, "<td class=\"n\">%.4f</td></tr>\n", p[at].loss);
    }
}

static void training(struct html *h, const struct page *p)
{
    const struct page_log *l = &p->log;
    if (!l->ntrain && !l->nval) {
        html_raw(h, "<section>\n<h2>Loss curve</h2>\n<p class=\"dim\">No training log beside the "
                    "file (train.log, or <code>--log FILE</code>).</p>\n</section>\n");
        return;
    }
    html_raw(h, "<section>\n<h2>Loss curve</h2>\n");
    html_figure(h, "Training and validation loss by step", draw_loss, p);
    source(h, "As reported in ", *p->log_path ? p->log_path : p->quant_path,
           "; nothing of it was checked. Losses above the upper edge, at the beginning, are cut "
           "off.");
    html_raw(h, "<details><summary>Numbers</summary>\n");
    part_table(h, "loss|#step|#nats per token");
    points(h, "train", l->train, l->ntrain);
    points(h, "validation", l->val, l->nval);
    part_table_end(h);
    html_raw(h, "</details>\n");
    if (l->figures) {
        html_raw(h, "<h3>Figures in the log</h3>\n");
        part_table(h, "line|#loss|#bits per byte");
        for (size_t i = 0; i < l->figures; i++) {
            html_raw(h, "<tr>");
            part_cell(h, l->figure[i].name);
            part_cell_number(h, l->figure[i].loss, 6);
            part_cell_number(h, l->figure[i].bpb, 6);
            html_raw(h, "</tr>\n");
        }
        part_table_end(h);
    }
    html_raw(h, "</section>\n");
}

/* ---- scores ---- */

static void bin_table(struct html *h, const char *what, const struct page_bin *b, size_t n)
{
    char text[HTML_NUMBER], columns[120];
    snprintf(columns, sizeof columns, "#%s from|#to|#tokens|#nats per token|#standard error", what);
    html_raw(h, "<details><summary>Numbers</summary>\n");
    part_table(h, columns);
    for (size_t i = 0; i < n; i++) {
        html_raw(h, "<tr>");
        part_cell_raw(h, html_count(text, b[i].lo));
        part_cell_raw(h, html_count(text, b[i].hi));
        part_cell_raw(h, html_count(text, b[i].n));
        html_rawf(h, "<td class=\"n\">%.4f</td>", b[i].mean);
        part_cell_number(h, b[i].error, 3);
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    html_raw(h, "</details>\n");
}

static void scores(struct html *h, const struct page *p)
{
    if (!p->bins && !p->parts)
        return;
    html_raw(h, "<section>\n");
    if (p->bins) {
        html_raw(h, "<h2>Loss by position in the window</h2>\n");
        html_figure(h, "Mean loss by number of tokens of context", draw_contexts, p);
        html_raw(h, "<p class=\"src\">Measured. Larger dots have more tokens; lines are two "
                    "standard errors to both sides. Where windows overlap, only the first one "
                    "scores tokens with little context.</p>\n");
        bin_table(h, "context", p->bin, p->bins);
    }
    if (p->parts) {
        html_raw(h, "<h2 style=\"margin-top:22px\">Loss along the text</h2>\n");
        html_figure(h, "Mean loss along the scored stream", draw_parts, p);
        html_rawf(h,
                  "<p class=\"src\">Measured, in %zu parts of equally many tokens. A method that "
                  "learns while it scores falls; one that has seen the text already is lower where "
                  "it saw it.</p>\n",
                  p->parts);
        bin_table(h, "token", p->part, p->parts);
    }
    html_raw(h, "</section>\n");
}

/* ---- what was checked ---- */

/* What verify found out about the data, and about the file beside its score. */
static void stream_checks(struct html *h, const cJSON *root)
{
    const cJSON *needs = json_item(root, "shared_objects"), *v;
    const char *set = json_str(root, "validation_set", NULL);
    double first = json_num(root, "max_tokens"), carried = json_num(root, "carried_tokens");
    char text[640], count[HTML_NUMBER];
    if (first > 0) {
        snprintf(text, sizeof text, "Only the first %s positions of the stream were scored.",
                 html_count(count, first));
        part_check(h, PART_OPEN, text);
    } else if (set) {
        snprintf(text, sizeof text, "The stream is as long as the challenge's validation set (%s).",
                 set);
        part_check(h, PART_YES, text);
    } else if (isfinite(json_num(root, "tokens"))) {
        part_check(h, PART_OPEN, "By its length the stream is not the challenge's validation set.");
    }
    if (carried > 0) {
        snprintf(text, sizeof text, "The file carries %s tokens of the scored stream.",
                 html_count(count, carried));
        part_check(h, PART_NO, text);
    } else if (carried >= 0) {
        part_check(h, PART_YES, "No section of the file has a piece of the scored stream in it.");
    }
    if (cJSON_IsArray(needs) && !cJSON_GetArraySize(needs))
        part_check(h, PART_YES, "The runner needs no shared objects of the machine.");
    cJSON_ArrayForEach(v, needs) if (cJSON_IsString(v))
    {
        snprintf(text, sizeof text, "The runner needs %.400s, which is not counted.",
                 v->valuestring);
        part_check(h, PART_OPEN, text);
    }
}

static void checks(struct html *h, const cJSON *root)
{
    const cJSON *run = json_item(root, "execution"), *met = json_item(root, "conditions"), *c;
    const char *table = json_str(root, "byte_table", ""), *mode = json_str(root, "mode", "");
    char text[640], count[HTML_NUMBER];
    double total = json_num(root, "bytes_total"), limit = json_num(root, "bytes_limit");
    bool scored = isfinite(json_num(root, "tokens"));
    html_raw(h, "<section>\n<h2>What was checked</h2>\n<ul class=\"checks\">\n");
    if (isfinite(total)) {
        part_check(h, PART_YES,
                   "Every byte of the file belongs to one section, and every hash fits.");
        snprintf(text, sizeof text, "The file is %s the limit of %s bytes.",
                 total > limit ? "above" : "within", html_count(count, limit));
        part_check(h, total > limit ? PART_NO : PART_YES, text);
    } else {
        part_check(h, PART_NO, "The file is not sound; nothing else was looked at.");
    }
    if (!strcmp(table, "equal")) {
        snprintf(text, sizeof text, "Bytes per token are those of the tokeniser %s.",
                 json_str(root, "tokenizer", ""));
        part_check(h, PART_YES, text);
    } else if (!strcmp(table, "differs")) {
        snprintf(text, sizeof text, "Bytes per token are not those of the tokeniser %s.",
                 json_str(root, "tokenizer", ""));
        part_check(h, PART_NO, text);
    } else if (isfinite(total)) {
        part_check(h, PART_OPEN,
                   "Not checked: bytes per token. No tokeniser was found near the data.");
    }
    if (scored)
        part_check(h, PART_YES,
                   "The score was computed by verify's own engine from the weights in the file; "
                   "no code of the file took part.");
    else
        part_check(h, PART_OPEN, "Not checked: the score.");
    stream_checks(h, root);
    if (cJSON_IsObject(run)) {
        bool same = cJSON_IsTrue(json_item(run, "identical"));
        snprintf(text, sizeof text, "Run in a sandbox (%s): %s, %s scores compared, %s.",
                 json_str(run, "sandbox", ""), json_str(run, "end", ""),
                 html_count(count, json_num(run, "compared")),
                 same ? "identical bits" : "not the same");
        part_check(h, same ? PART_YES : PART_NO, text);
    } else {
        part_check(h, PART_OPEN, "Not checked: what the file does when it is run (--execute).");
    }
    if (isfinite(total)) {
        bool known = !strcmp(json_str(root, "loader", ""), "known") &&
                     !strcmp(json_str(root, "runner", ""), "known");
        part_check(
            h, known ? PART_YES : PART_OPEN,
            known ? "Loader and runner are byte for byte those that this build of the project "
                    "makes."
                  : "Loader or runner are of another build than this program's. What they do is "
                    "only known by running the file.");
    }
    cJSON_ArrayForEach(c, met)
    {
        snprintf(text, sizeof text, "Condition %s, with mode %s: %s.", c->string, mode,
                 cJSON_IsTrue(c) ? "met" : "not met");
        part_check(h, cJSON_IsTrue(c) ? PART_YES : PART_NO, text);
    }
    part_check(h, json_item(root, "claim") ? (verified(root) ? PART_YES : PART_OPEN) : PART_OPEN,
               json_item(root, "claim") ? "The claim was compared with the result (above)."
                                        : "Not checked: a claim. None was given (--claim).");
    html_raw(h, "</ul>\n</section>\n");
}

/* ---- all of it ---- */

void page_render(struct html *h, const struct page *p, const cJSON *root)
{
    static const char *const skip[] = {"verdict", "reasons", NULL};
    const char *said = json_str(root, "verdict", "no verdict"), *file = json_str(root, "file", "");
    char part[64];
    if (json_num(root, "max_tokens") > 0) { /* the verdict on a part is none on the file */
        snprintf(part, sizeof part, "%.20s (first %.0f tokens only)", said,
                 json_num(root, "max_tokens"));
        said = part;
    }
    part_begin(h, said, file);
    part_verdict(h, verified(root) ? "ok" : "bad", said, file, json_item(root, "reasons"));
    figures(h, root);
    claim(h, root);
    bytes(h, p, root);
    if (p->tensors) {
        precision(h, p);
        training(h, p);
    }
    scores(h, p);
    checks(h, root);
    part_facts(h, root, skip, false);
    part_end(h, json_str(root, "command", "blob"));
}

enum err_code page_write(const struct page *p, const cJSON *root, struct err *e)
{
    struct html h = {0};
    page_render(&h, p, root);
    return part_save(&h, p->o->report, e);
}
