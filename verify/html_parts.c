/* html_parts.c - see html_parts.h. */
#include "verify/html_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "verify/html_json.h"
#include "verify/html_style.h"

enum { REASONS = 60 };

const cJSON *json_item(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

const char *json_str(const cJSON *o, const char *key, const char *otherwise)
{
    const cJSON *v = json_item(o, key);
    return cJSON_IsString(v) || cJSON_IsRaw(v) ? v->valuestring : otherwise;
}

double json_num(const cJSON *o, const char *key)
{
    const cJSON *v = json_item(o, key);
    return cJSON_IsNumber(v)                     ? v->valuedouble
           : cJSON_IsRaw(v) || cJSON_IsString(v) ? strtod(v->valuestring, NULL)
                                                 : NAN;
}

void part_begin(struct html *h, const char *a, const char *b)
{
    html_raw(h,
             "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; "
             "style-src &#39;unsafe-inline&#39;\"/>\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
             "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>");
    html_text(h, a);
    html_raw(h, ": ");
    html_text(h, b);
    html_raw(h, "</title>\n<style>\n");
    for (const char *const *s = html_style; *s; s++)
        html_raw(h, *s);
    html_raw(h, "</style>\n</head>\n<body>\n<main>\n");
}

void part_verdict(struct html *h, const char *class, const char *verdict, const char *about,
                  const cJSON *reasons)
{
    const cJSON *why;
    int n = 0;
    html_rawf(h, "<header class=\"%s\">\n<h1>%s", class,
              !strcmp(class, "ok")    ? "\xE2\x9C\x93 "
              : !strcmp(class, "bad") ? "\xE2\x9C\x97 "
                                      : "");
    html_text(h, verdict);
    html_raw(h, "</h1>\n<p><code>");
    html_text(h, about);
    html_raw(h, "</code></p>\n");
    if (cJSON_GetArraySize(reasons) > 0)
        html_raw(h, "<ul>\n");
    cJSON_ArrayForEach(why, reasons)
    {
        if (n++ == REASONS)
            break;
        html_raw(h, "<li>");
        html_json_value(h, why);
        html_raw(h, "</li>\n");
    }
    if (n)
        html_raw(h, "</ul>\n");
    if (n > REASONS)
        html_rawf(h, "<p>and %d more reasons.</p>\n", cJSON_GetArraySize(reasons) - REASONS);
    html_raw(h, "</header>\n");
}

void part_end(struct html *h, const char *command)
{
    html_raw(h, "<footer><p>Written by <code>verify ");
    html_text(h, command);
    html_raw(h, " --report</code>. The page is complete as it is and loads nothing.</p></footer>\n"
                "</main>\n</body>\n</html>\n");
}

enum err_code part_save(struct html *h, const char *path, struct err *e)
{
    enum err_code rc =
        h->failed ? err_nomem(e, "the page", h->n) : file_write(path, h->buf, h->n, e);
    html_free(h);
    return rc;
}

void part_facts(struct html *h, const cJSON *root, const char *const *skip, bool open)
{
    html_raw(h, open ? "<section>\n<h2>Facts</h2>\n"
                     : "<section>\n<h2>All facts</h2>\n<details><summary>The JSON object, as "
                       "tables</summary>\n");
    html_json(h, root, skip);
    html_raw(h, open ? "</section>\n" : "</details>\n</section>\n");
}

void part_check(struct html *h, enum part_mark m, const char *text)
{
    static const char *const sign[] = {"\xE2\x9C\x93", "\xE2\x9C\x97", "\xE2\x80\x93"};
    static const char *const class[] = {"yes", "no", "open"};
    html_rawf(h, "<li><b class=\"%s\">%s</b>", class[m], sign[m]);
    html_text(h, text);
    html_raw(h, "</li>\n");
}

void part_table(struct html *h, const char *columns)
{
    html_raw(h, "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for (const char *at = columns; *at; at += *at == '|') {
        bool number = *at == '#';
        at += number;
        size_t n = strcspn(at, "|");
        html_rawf(h, "<th%s>%.*s</th>", number ? " class=\"n\"" : "", (int)n, at);
        at += n;
    }
    html_raw(h, "</tr></thead><tbody>\n");
}

void part_table_end(struct html *h)
{
    html_raw(h, "</tbody></table></div>\n");
}

void part_cell(struct html *h, const char *text)
{
    html_raw(h, "<td>");
    html_text(h, text);
    html_raw(h, "</td>");
}

void part_cell_raw(struct html *h, const char *text)
{
    html_rawf(h, "<td class=\"n\">%s</td>", text);
}

void part_cell_number(struct html *h, double v, int digits)
{
    char text[HTML_NUMBER];
    part_cell_raw(h, isnan(v) ? "" : html_number(text, v, digits));
}
