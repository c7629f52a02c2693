/* html_record.c - see html_record.h. */
#include "verify/html_record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify/html_chart.h"
#include "verify/html_json.h"
#include "verify/html_parts.h"

enum { LOGS = 24, FOLDERS = 4000, FINDINGS = 400 };

/* ---- pictures: a row for each log ---- */

struct row {
    const char *name, *seed;
    double bpb, model, total;
    bool counts; /* it is one of those that the result is made of */
};

struct logs {
    struct row row[LOGS];
    size_t n;
    double claimed, mean;          /* bits per byte; NAN: none */
    double claimed_bytes, shipped; /* likewise */
    double cap;
};

static bool listed(const cJSON *list, const char *name)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, list) if (cJSON_IsString(v) && !strcmp(v->valuestring, name)) return true;
    return false;
}

/* Numbers that a picture can bear. */
static double within(double v, double most)
{
    return v > 0 && v < most ? v : NAN;
}

static struct logs logs_of(const cJSON *root)
{
    const cJSON *logs = json_item(root, "from_logs"), *size = json_item(root, "size"), *log;
    const cJSON *claimed = json_item(root, "claimed");
    struct logs l = {
        .claimed = within(json_num(claimed, "val_bpb"), 100),
        .mean = within(json_num(json_item(logs, "aggregate"), "mean_bpb"), 100),
        .claimed_bytes = within(json_num(claimed, "bytes_total"), 1e12),
        .shipped = within(json_num(size, "as_shipped_total"), 1e12),
        .cap = within(json_num(size, "cap"), 1e12),
    };
    cJSON_ArrayForEach(log, json_item(logs, "per_log"))
    {
        struct row r = {
            .name = json_str(log, "path", "?"),
            .seed = json_str(log, "seed", ""),
            .bpb = within(json_num(json_item(log, "headline"), "val_bpb"), 100),
            .model = within(json_num(log, "model_bytes"), 1e12),
            .total = within(json_num(log, "total_bytes"), 1e12),
        };
        r.counts = listed(json_item(logs, "headline_logs"), r.name);
        if (l.n < LOGS)
            l.row[l.n++] = r;
    }
    return l;
}

/* The name of a log as it fits into the left margin: its end says more than its beginning. */
static void row_name(struct html *h, const struct row *r, double y, double left)
{
    char text[200];
    size_t n = strlen(r->name), most = (size_t)(left / 6.9);
    if (*r->seed && n > most)
        snprintf(text, sizeof text, "seed %.60s", r->seed);
    else
        snprintf(text, sizeof text, "%.150s", n > most ? r->name + n - most : r->name);
    chart_text(h, left - 8, y, r->counts ? "t e" : "d e", text);
}

static void legend_line(struct html *h, double x, double y, const char *line, const char *class,
                        const char *name, double v)
{
    char text[96];
    html_rawf(h, "<path class=\"%s\" d=\"M%.1f %.1fh18\"/>", line, x, y - 4);
    snprintf(text, sizeof text, "%s %.5f", name, v);
    chart_text(h, x + 24, y, class, text);
}

static void draw_seeds(struct html *h, const void *ctx, double width)
{
    const struct logs *l = ctx;
    const double high = 24;
    struct chart c = {.h = h, .width = width, .left = fmin(190, width * 0.34), .top = 30};
    c.x0 = INFINITY;
    c.x1 = -INFINITY;
    for (size_t i = 0; i < l->n; i++) {
        c.x0 = fmin(c.x0, l->row[i].bpb); /* which passes over a NAN */
        c.x1 = fmax(c.x1, l->row[i].bpb);
    }
    c.x0 = fmin(c.x0, fmin(l->claimed, l->mean));
    c.x1 = fmax(c.x1, fmax(l->claimed, l->mean));
    double pad = fmax(2e-4, 0.12 * (c.x1 - c.x0));
    c.x0 -= pad;
    c.x1 += pad;
    c.right = width - 14;
    c.bottom = c.top + high * (double)l->n;
    c.height = c.bottom + 40;
    chart_svg(h, width, c.height);
    double step = chart_step(c.x0, c.x1, (int)fmax(2, (c.right - c.left) / 64));
    int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    for (double v = ceil(c.x0 / step) * step; v <= c.x1; v += step) {
        char text[HTML_NUMBER];
        double x = chart_x(&c, v);
        html_rawf(h, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>", x, c.top, c.bottom);
        snprintf(text, sizeof text, "%.*f", decimals, v);
        chart_text(h, x, c.bottom + 16, "t m", text);
    }
    html_rawf(h, "<path class=\"ax\" d=\"M%.1f %.1fH%.1f\"/>", c.left, c.bottom, c.right);
    chart_text(h, c.right, c.bottom + 34, "d e", "bits per byte");
    double at = 2;
    if (!isnan(l->claimed)) {
        double x = chart_x(&c, l->claimed);
        html_rawf(h, "<path class=\"l2\" d=\"M%.1f %.1fV%.1f\"/>", x, c.top, c.bottom);
        legend_line(h, at, 14, "l2", "f2", "claimed", l->claimed);
        at += 138;
    }
    if (!isnan(l->mean)) {
        double x = chart_x(&c, l->mean);
        html_rawf(h, "<path class=\"mean\" d=\"M%.1f %.1fV%.1f\"/>", x, c.top, c.bottom);
        legend_line(h, at, 14, "mean", "t", "mean of the logs", l->mean);
    }
    for (size_t i = 0; i < l->n; i++) {
        const struct row *r = &l->row[i];
        double y = c.top + high * ((double)i + 0.5);
        row_name(h, r, y + 4, c.left);
        if (isnan(r->bpb))
            continue;
        html_rawf(h, "<circle class=\"l1 %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>",
                  r->counts ? "dot" : "ring", chart_x(&c, r->bpb), y);
        html_textf(h, "%.100s: %.8f%s", r->name, r->bpb, r->counts ? "" : ", does not count");
        html_raw(h, "</title></circle>");
    }
    html_raw(h, "</svg>");
}

static void size_bar(struct html *h, const struct logs *l, double x, double y, double scale,
                     double model, double total)
{
    char n[HTML_NUMBER];
    double m = isnan(model) ? 0 : fmin(model, total);
    html_rawf(h, "<rect class=\"r0\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\"/>", x, y,
              m * scale);
    html_rawf(h, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\"/>",
              isnan(model) ? "r4" : "r5", x + m * scale, y, (total - m) * scale);
    chart_text(h, x + 5, y + 12, "bt", html_count(n, total));
    if (!isnan(l->cap) && total > l->cap)
        chart_text(h, x + 90, y + 12, "bt", "above the limit");
}

static void draw_sizes(struct html *h, const void *ctx, double width)
{
    const struct logs *l = ctx;
    const double high = 24, left = fmin(190, width * 0.34);
    double most = l->cap, y = 22;
    size_t rows = 0;
    for (size_t i = 0; i < l->n; i++) {
        most = fmax(most, l->row[i].total);
        rows += isnan(l->row[i].total) ? 0u : 1u;
    }
    most = fmax(most, fmax(l->shipped, l->claimed_bytes));
    double scale = (width - left - 14) / most;
    rows += (isnan(l->shipped) ? 0u : 1u) + (isnan(l->claimed_bytes) ? 0u : 1u);
    chart_svg(h, width, y + high * (double)rows + 6);
    for (size_t i = 0; i < l->n; i++)
        if (!isnan(l->row[i].total)) {
            row_name(h, &l->row[i], y + 12, left);
            size_bar(h, l, left, y, scale, l->row[i].model, l->row[i].total);
            y += high;
        }
    if (!isnan(l->shipped)) {
        chart_text(h, left - 8, y + 12, "t e", "as shipped");
        size_bar(h, l, left, y, scale, NAN, l->shipped);
        y += high;
    }
    if (!isnan(l->claimed_bytes)) {
        chart_text(h, left - 8, y + 12, "t e", "claimed");
        size_bar(h, l, left, y, scale, NAN, l->claimed_bytes);
        y += high;
    }
    if (!isnan(l->cap)) {
        char n[HTML_NUMBER], text[96];
        double x = left + l->cap * scale;
        html_rawf(h, "<path class=\"ax\" d=\"M%.1f 18V%.1f\"/>", x, y);
        snprintf(text, sizeof text, "limit %s", html_count(n, l->cap));
        chart_text(h, x, 13, "t e", text);
    }
    html_raw(h, "</svg>");
}

/* ---- sections of a folder's page ---- */

static const char *state_class(const char *state)
{
    return !strcmp(state, "confirmed") ? "yes" : !strcmp(state, "contradicted") ? "no" : "open";
}

/* What the folder says about a claim: the figure behind it, "" where there is none. */
static void shown(struct html *h, const cJSON *root, const char *claim)
{
    const cJSON *logs = json_item(json_item(root, "from_logs"), "aggregate"),
                *size = json_item(root, "size");
    double n = json_num(logs, "n"), total = json_num(size, "max_total_in_logs");
    char a[HTML_NUMBER];
    html_raw(h, "<td>");
    double bpb = within(json_num(logs, "mean_bpb"), 100),
           loss = within(json_num(logs, "mean_loss"), 100),
           sd = within(json_num(logs, "sample_std_bpb"), 100),
           sd_n = within(json_num(logs, "population_std_bpb"), 100);
    if (!strcmp(claim, "val_bpb") && bpb > 0)
        html_rawf(h, "%.8f", bpb);
    else if (!strcmp(claim, "val_loss") && loss > 0)
        html_rawf(h, "%.8f", loss);
    else if (!strcmp(claim, "std") && !isnan(sd) && !isnan(sd_n))
        html_rawf(h, "%.8f by n-1, %.8f by n", sd, sd_n);
    else if (!strcmp(claim, "bytes") && total > 0)
        html_text(h, html_count(a, total));
    else if (!strcmp(claim, "seeds") && n > 0 && n < 1e6)
        html_rawf(h, "%.0f log%s", n, n > 1 ? "s" : "");
    else if (!strcmp(claim, "cap") && total > 0) {
        double cap = json_num(size, "cap");
        html_raw(h, total > cap ? "over by " : "under by ");
        html_text(h, html_count(a, fabs(total - cap)));
    }
    html_raw(h, "</td>");
}

static void claims(struct html *h, const cJSON *root)
{
    const cJSON *list = json_item(root, "claims"), *claimed = json_item(root, "claimed"), *c;
    html_raw(h, "<section>\n<h2>Claims</h2>\n");
    part_table(h, "what|#claimed|verdict|in the logs");
    cJSON_ArrayForEach(c, list)
    {
        const char *name = c->string ? c->string : "", *key = name;
        const char *state = cJSON_IsString(c) ? c->valuestring : "?";
        if (!strcmp(name, "bytes"))
            key = "bytes_total";
        else if (!strcmp(name, "std"))
            key = "val_bpb_std";
        const cJSON *v = json_item(claimed, key);
        html_raw(h, "<tr>");
        part_cell(h, name);
        html_raw(h, "<td class=\"n\">");
        if (cJSON_IsNumber(v) || cJSON_IsString(v) || cJSON_IsRaw(v))
            html_json_value(h, v);
        else if (cJSON_IsArray(v))
            html_rawf(h, "%d", cJSON_GetArraySize(v));
        else if (!strcmp(name, "cap"))
            html_raw(h, "within the limit");
        html_rawf(h, "</td><td class=\"%s\">", state_class(state));
        html_text(h, state);
        html_raw(h, "</td>");
        shown(h, root, name);
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    html_raw(h, "<p class=\"src\">The claimed score is: ");
    html_text(h, json_str(root, "claim_basis", "(not known)"));
    html_raw(h, ".</p>\n</section>\n");
}

static void log_table(struct html *h, const cJSON *root)
{
    const cJSON *log;
    char n[HTML_NUMBER];
    size_t rows = 0;
    html_raw(h, "<details><summary>The logs</summary>\n");
    part_table(h, "log|seed|headline|#line|#bits per byte|#bytes|#training, s|#steps|#bytes "
                  "scored|denominator");
    cJSON_ArrayForEach(log, json_item(json_item(root, "from_logs"), "per_log"))
    {
        const cJSON *head = json_item(log, "headline");
        if (rows++ == FINDINGS)
            break;
        html_raw(h, "<tr>");
        part_cell(h, json_str(log, "path", ""));
        part_cell(h, json_str(log, "seed", ""));
        part_cell(h, json_str(head, "label", ""));
        part_cell_raw(h, html_count(n, json_num(head, "line")));
        part_cell_number(h, json_num(head, "val_bpb"), 9);
        part_cell_raw(h, html_count(n, json_num(log, "total_bytes")));
        part_cell_number(h, json_num(log, "train_ms") / 1000, 4);
        part_cell_raw(h, html_count(n, json_num(log, "steps")));
        part_cell_raw(h, html_count(n, json_num(log, "implied_val_bytes")));
        part_cell(h, json_str(log, "denominator", ""));
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    html_raw(h, "</details>\n");
}

static void evidence(struct html *h, const cJSON *root)
{
    const struct logs l = logs_of(root);
    bool scores = !isnan(l.claimed), sizes = !isnan(l.shipped) || !isnan(l.claimed_bytes);
    for (size_t i = 0; i < l.n; i++) {
        scores |= !isnan(l.row[i].bpb);
        sizes |= !isnan(l.row[i].total);
    }
    if (scores && l.n) {
        html_raw(h, "<section>\n<h2>Score, claimed and in the logs</h2>\n");
        html_figure(h, "Bits per byte of each log beside the claim", draw_seeds, &l);
        html_raw(h, "<p class=\"src\">Full dots are the logs that the result is made of; rings are "
                    "others.</p>\n");
        log_table(h, root);
        html_raw(h, "</section>\n");
    }
    if (sizes && !isnan(l.cap)) {
        html_raw(h, "<section>\n<h2>Bytes against the limit</h2>\n");
        html_figure(h, "Bytes of each log's submission against the limit", draw_sizes, &l);
        html_raw(h, "<ul class=\"legend\"><li><i class=\"g0\"></i>model</li><li><i class=\"g5\">"
                    "</i>code</li><li><i class=\"g4\"></i>not told apart</li></ul>\n<h3>As counted"
                    "</h3>\n");
        html_json(h, json_item(root, "size"), NULL);
        html_raw(h, "</section>\n");
    }
}

/* "submission.json:12, train.log:99" */
static void places(struct html *h, const cJSON *list)
{
    const cJSON *v;
    int n = 0;
    cJSON_ArrayForEach(v, list)
    {
        double line = json_num(v, "line");
        html_raw(h, n++ ? ", " : "");
        html_text(h, json_str(v, "file", "?"));
        if (line > 0 && line < 1e9)
            html_rawf(h, ":%.0f", line);
        if (n == 12)
            break;
    }
}

static void findings(struct html *h, const cJSON *root)
{
    static const char *const severity[] = {"fail", "warn", "info"};
    const cJSON *list = json_item(root, "mismatches"), *v;
    size_t rows = 0;
    html_raw(h, "<section>\n<h2>Findings</h2>\n");
    if (!cJSON_GetArraySize(list)) {
        html_raw(h, "<p>None.</p>\n</section>\n");
        return;
    }
    html_raw(h, "<ul class=\"checks\">\n");
    for (size_t s = 0; s < 3; s++)
        cJSON_ArrayForEach(v, list)
        {
            static const char *const mark[] = {"<b class=\"no\">\xE2\x9C\x97</b>",
                                               "<b class=\"warn\">!</b>",
                                               "<b class=\"open\">\xE2\x80\x93</b>"};
            if (strcmp(json_str(v, "severity", "info"), severity[s]) != 0 || rows++ >= FINDINGS)
                continue;
            html_rawf(h, "<li>%s%s: ", mark[s], severity[s]);
            html_text(h, json_str(v, "detail", ""));
            html_raw(h, "<br/><span class=\"src\"><code>");
            html_text(h, json_str(v, "code", ""));
            html_raw(h, "</code> ");
            places(h, json_item(v, "evidence"));
            html_raw(h, "</span></li>\n");
        }
    html_raw(h, "</ul>\n");
    if (rows > FINDINGS)
        html_rawf(h, "<p class=\"dim\">%zu more are not shown.</p>\n", rows - FINDINGS);
    html_raw(h, "</section>\n");
}

static void methods(struct html *h, const cJSON *root)
{
    const cJSON *m, *c;
    size_t n = 0;
    cJSON_ArrayForEach(m, json_item(root, "methods"))
    {
        if (n++ == 16)
            break;
        html_raw(h, n > 1 ? ""
                          : "<section>\n<h2>How it is scored</h2>\n<p class=\"src\">As far as "
                            "the text of the script tells; nothing was run.</p>\n");
        html_raw(h, "<h3>");
        html_text(h, json_str(m, "method", "?"));
        html_raw(h, " <span class=\"dim\">use: ");
        html_text(h, json_str(m, "used", "not told"));
        html_raw(h, "</span></h3>\n<ul class=\"checks\">\n");
        cJSON_ArrayForEach(c, json_item(m, "conditions"))
        {
            const char *state = json_str(c, "state", "?");
            char text[400];
            int len = snprintf(text, sizeof text, "%.40s %.40s%s%.200s", c->string ? c->string : "",
                               state, *json_str(c, "why", "") ? ": " : "", json_str(c, "why", ""));
            double line = json_num(c, "line");
            if (line > 0 && line < 1e9)
                snprintf(text + len, sizeof text - (size_t)len, " (line %.0f)", line);
            part_check(h,
                       !strcmp(state, "met")       ? PART_YES
                       : !strcmp(state, "not met") ? PART_NO
                                                   : PART_OPEN,
                       text);
        }
        html_raw(h, "</ul>\n");
    }
    html_raw(h, n ? "</section>\n" : "");
}

static void statistics(struct html *h, const cJSON *root)
{
    static const char *const unit[] = {"BPB", "nats per byte", "nats per token"};
    const cJSON *s = json_item(root, "statistics");
    if (!cJSON_IsObject(s) || !json_str(s, "test", NULL))
        return;
    html_raw(h, "<section>\n<h2>Is it better?</h2>\n<p>Against ");
    html_text(h, json_str(s, "against", "?"));
    html_raw(h, ", ");
    html_text(h, json_str(s, "test", "?"));
    html_raw(h, " t-test, one-sided.</p>\n");
    part_table(h, "unit|#gain|#t, gain above 0.005|#p|#t, gain above 0|#p");
    for (size_t i = 0; i < 3; i++) {
        const cJSON *u = json_item(s, unit[i]), *margin = json_item(u, "gain_over_0.005"),
                    *plain = json_item(u, "gain_over_0");
        if (!u)
            continue;
        html_rawf(h, "<tr><td>%s</td>", unit[i]);
        part_cell_number(h, json_num(u, "gain"), 4);
        part_cell_number(h, json_num(margin, "t"), 4);
        part_cell_number(h, json_num(margin, "p_one_sided"), 3);
        part_cell_number(h, json_num(plain, "t"), 4);
        part_cell_number(h, json_num(plain, "p_one_sided"), 3);
        html_raw(h, "</tr>\n");
    }
    part_table_end(h);
    html_raw(h, "</section>\n");
}

static void not_checked(struct html *h, const cJSON *root)
{
    const cJSON *v;
    int n = 0;
    html_raw(h, "<section>\n<h2>Not checked</h2>\n<ul class=\"checks\">\n");
    cJSON_ArrayForEach(v, json_item(root, "not_checked")) if (n++ < 60)
        part_check(h, PART_OPEN, cJSON_IsString(v) ? v->valuestring : "?");
    if (!n)
        part_check(h, PART_OPEN, "The audit names nothing that it did not check.");
    html_raw(h, "</ul>\n</section>\n");
}

static const char *verdict_class(const char *verdict)
{
    return strcmp(verdict, "contradicted") ? "" : "bad";
}

static void folder(struct html *h, const cJSON *root)
{
    static const char *const skip[] = {"verdict", "folder", NULL};
    const char *said = json_str(root, "verdict", "no verdict");
    const char *name = json_str(root, "folder", "");
    const cJSON *c;
    cJSON *reasons = cJSON_CreateArray();
    h->failed |= !reasons;
    cJSON_ArrayForEach(c, json_item(root, "claims"))
    {
        bool no = cJSON_IsString(c) && c->string && !strcmp(c->valuestring, "contradicted");
        if (no && reasons)
            h->failed |= !cJSON_AddItemToArray(reasons, cJSON_CreateString(c->string));
    }
    part_begin(h, said, name);
    part_verdict(h, verdict_class(said), said, name, reasons);
    cJSON_Delete(reasons);
    claims(h, root);
    evidence(h, root);
    findings(h, root);
    methods(h, root);
    statistics(h, root);
    not_checked(h, root);
    part_facts(h, root, skip, false);
}

/* ---- many folders ---- */

static size_t of_severity(const cJSON *record, const char *severity)
{
    const cJSON *v;
    size_t n = 0;
    cJSON_ArrayForEach(v, json_item(record, "mismatches")) n +=
        !strcmp(json_str(v, "severity", ""), severity);
    return n;
}

static void tree(struct html *h, const cJSON *root)
{
    const cJSON *list = json_item(root, "records"), *r;
    char said[120], n[HTML_NUMBER];
    int all = cJSON_GetArraySize(list), bad = 0, rows = 0;
    cJSON_ArrayForEach(r, list) bad += !strcmp(json_str(r, "verdict", ""), "contradicted");
    snprintf(said, sizeof said, "%d of %d contradicted", bad, all);
    part_begin(h, said, "leaderboard folders");
    part_verdict(h, "", said, "leaderboard folders", NULL);
    html_raw(h, "<section>\n<h2>Folders</h2>\n");
    part_table(h, "folder|verdict|#claimed|#mean of logs|#bytes as shipped|#fail|#warn|#info");
    cJSON_ArrayForEach(r, list)
    {
        const char *v = json_str(r, "verdict", json_str(r, "error", "?"));
        if (rows++ == FOLDERS)
            break;
        html_raw(h, "<tr>");
        html_raw(h, "<td class=\"w\">");
        html_text(h, json_str(r, "folder", "?"));
        html_raw(h, "</td>");
        html_rawf(h, "<td class=\"%s\">", strcmp(v, "contradicted") ? "open" : "no");
        html_text(h, v);
        html_raw(h, "</td>");
        part_cell_number(h, json_num(json_item(r, "claimed"), "val_bpb"), 7);
        part_cell_number(h, json_num(json_item(json_item(r, "from_logs"), "aggregate"), "mean_bpb"),
                         7);
        part_cell_raw(h, html_count(n, json_num(json_item(r, "size"), "as_shipped_total")));
        html_rawf(h,
                  "<td class=\"n\">%zu</td><td class=\"n\">%zu</td><td class=\"n\">%zu</td></tr>\n",
                  of_severity(r, "fail"), of_severity(r, "warn"), of_severity(r, "info"));
    }
    part_table_end(h);
    html_raw(h, "</section>\n<section>\n<h2>Summary</h2>\n");
    html_json(h, json_item(root, "summary"), NULL);
    html_raw(h, "</section>\n");
}

void page_record_render(struct html *h, const cJSON *root)
{
    if (json_item(root, "records"))
        tree(h, root);
    else
        folder(h, root);
    part_end(h, "record");
}

enum err_code page_record(const char *path, const cJSON *root, struct err *e)
{
    struct html h = {0};
    page_record_render(&h, root);
    return part_save(&h, path, e);
}
