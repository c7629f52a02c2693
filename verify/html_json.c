/* html_json.c - see html_json.h. */
#include "verify/html_json.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static bool plain(const cJSON *v)
{
    return !cJSON_IsObject(v) && !cJSON_IsArray(v);
}

/* "val_bpb" as "val bpb". */
static void name(struct html *h, const char *key)
{
    char text[HTML_TEXT + 1];
    size_t n = 0;
    for (; key[n] && n < HTML_TEXT; n++)
        text[n] = key[n] == '_' ? ' ' : key[n];
    text[n] = 0;
    html_text(h, text);
}

void html_json_value(struct html *h, const cJSON *v)
{
    char text[HTML_NUMBER];
    if (cJSON_IsString(v) || cJSON_IsRaw(v))
        html_text(h, v->valuestring);
    else if (cJSON_IsBool(v))
        html_raw(h, cJSON_IsTrue(v) ? "yes" : "no");
    else if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        html_raw(h, "\xE2\x80\x93"); /* null; an object inside a cell */
    else if (v->valuedouble == floor(v->valuedouble) && fabs(v->valuedouble) < 1e15)
        html_raw(h, html_count(text, v->valuedouble));
    else
        html_rawf(h, "%.9g", v->valuedouble);
}

static void show(struct html *h, const cJSON *o, const char *const *skip, int depth);

/* A list of plain values, on one line. */
static void inline_list(struct html *h, const cJSON *a)
{
    const cJSON *v;
    size_t n = 0;
    cJSON_ArrayForEach(v, a)
    {
        if (n++ == JSON_ROWS)
            break;
        html_raw(h, n > 1 ? ", " : "");
        html_json_value(h, v);
    }
    if (n > JSON_ROWS)
        html_rawf(h, " and %d more", cJSON_GetArraySize(a) - JSON_ROWS);
}

static bool all_plain(const cJSON *a)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, a) if (!plain(v)) return false;
    return true;
}

static void object_table(struct html *h, const cJSON *a)
{
    const char *key[JSON_COLUMNS];
    const cJSON *row, *v;
    size_t keys = 0, rows = 0;
    cJSON_ArrayForEach(row, a)
    {
        if (rows++ == JSON_ROWS)
            break;
        cJSON_ArrayForEach(v, row)
        {
            size_t i = 0;
            while (i < keys && strcmp(key[i], v->string ? v->string : ""))
                i++;
            if (i == keys && keys < JSON_COLUMNS && v->string)
                key[keys++] = v->string;
        }
    }
    html_raw(h, "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for (size_t i = 0; i < keys; i++) {
        html_raw(h, "<th>");
        name(h, key[i]);
        html_raw(h, "</th>");
    }
    html_raw(h, "</tr></thead><tbody>");
    rows = 0;
    cJSON_ArrayForEach(row, a)
    {
        if (rows++ == JSON_ROWS)
            break;
        html_raw(h, "<tr>");
        for (size_t i = 0; i < keys; i++) {
            v = cJSON_GetObjectItemCaseSensitive(row, key[i]);
            html_raw(h, v && cJSON_IsNumber(v) ? "<td class=\"n\">" : "<td>");
            if (v && cJSON_IsArray(v) && all_plain(v))
                inline_list(h, v);
            else if (v)
                html_json_value(h, v);
            html_raw(h, "</td>");
        }
        html_raw(h, "</tr>");
    }
    html_raw(h, "</tbody></table></div>");
    if (cJSON_GetArraySize(a) > JSON_ROWS)
        html_rawf(h, "<p class=\"dim\">%d more are not shown.</p>",
                  cJSON_GetArraySize(a) - JSON_ROWS);
}

static bool left_out(const char *const *skip, const char *key)
{
    for (; skip && *skip; skip++)
        if (key && !strcmp(*skip, key))
            return true;
    return false;
}

/* Objects all through: a table; anything else one after the other. */
static void list(struct html *h, const cJSON *a, int depth)
{
    const cJSON *v;
    bool objects = true;
    size_t n = 0;
    cJSON_ArrayForEach(v, a) objects = objects && cJSON_IsObject(v);
    if (objects) {
        object_table(h, a);
        return;
    }
    cJSON_ArrayForEach(v, a)
    {
        if (n++ == JSON_ROWS)
            return;
        show(h, v, NULL, depth + 1);
    }
}

static void show(struct html *h, const cJSON *o, const char *const *skip, int depth)
{
    const cJSON *v;
    bool open = false;
    if (depth > JSON_DEPTH)
        return;
    cJSON_ArrayForEach(v, o)
    {
        bool row = plain(v) || (cJSON_IsArray(v) && all_plain(v));
        if (!row || left_out(skip, v->string))
            continue;
        html_raw(h, open ? "" : "<div class=\"scroll\" tabindex=\"0\"><table><tbody>");
        open = true;
        html_raw(h, "<tr><th>");
        name(h, v->string ? v->string : "");
        html_raw(h, "</th><td class=\"w\">");
        if (plain(v))
            html_json_value(h, v);
        else
            inline_list(h, v);
        html_raw(h, "</td></tr>");
    }
    html_raw(h, open ? "</tbody></table></div>" : "");
    cJSON_ArrayForEach(v, o)
    {
        if (plain(v) || (cJSON_IsArray(v) && all_plain(v)) || left_out(skip, v->string))
            continue;
        html_raw(h, "<h3>");
        name(h, v->string ? v->string : "");
        html_raw(h, "</h3>");
        if (cJSON_IsArray(v))
            list(h, v, depth);
        else
            show(h, v, NULL, depth + 1);
    }
}

void html_json(struct html *h, const cJSON *o, const char *const *skip)
{
    show(h, o, skip, 0);
}
