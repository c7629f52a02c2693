/* cjson.c - see cjson/cJSON.h. The grammar is RFC 8259's. */
#include "tests/gpu/alone/cjson/cJSON.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 64 };

void cJSON_InitHooks(cJSON_Hooks *hooks)
{
    (void)hooks;
}

/* ---- trees ---- */

static cJSON *new_item(int type)
{
    cJSON *j = calloc(1, sizeof *j);
    if (j)
        j->type = type;
    return j;
}

void cJSON_Delete(cJSON *j)
{
    while (j) {
        cJSON *next = j->next;
        cJSON_Delete(j->child);
        free(j->valuestring);
        free(j->string);
        free(j);
        j = next;
    }
}

cJSON_bool cJSON_AddItemToArray(cJSON *array, cJSON *item)
{
    if (!array || !item)
        return 0;
    if (array->child) {
        item->prev = array->child->prev;
        item->prev->next = item;
    } else {
        array->child = item;
    }
    array->child->prev = item;
    return 1;
}

/* An item takes its key and its place, or is gone. */
static cJSON *add(cJSON *o, const char *key, cJSON *item)
{
    if (item && (item->string = strdup(key)) && cJSON_AddItemToArray(o, item))
        return item;
    cJSON_Delete(item);
    return NULL;
}

cJSON *cJSON_CreateObject(void)
{
    return new_item(cJSON_Object);
}

static void set_number(cJSON *j, double v)
{
    j->valuedouble = v;
    j->valueint = v >= INT_MAX ? INT_MAX : v <= INT_MIN ? INT_MIN : (int)v;
}

cJSON *cJSON_CreateNumber(double v)
{
    cJSON *j = new_item(cJSON_Number);
    if (j)
        set_number(j, v);
    return j;
}

cJSON *cJSON_AddArrayToObject(cJSON *o, const char *key)
{
    return add(o, key, new_item(cJSON_Array));
}

cJSON *cJSON_AddObjectToObject(cJSON *o, const char *key)
{
    return add(o, key, new_item(cJSON_Object));
}

cJSON *cJSON_AddStringToObject(cJSON *o, const char *key, const char *text)
{
    cJSON *j = new_item(cJSON_String);
    if (j && !(j->valuestring = strdup(text))) {
        cJSON_Delete(j);
        j = NULL;
    }
    return add(o, key, j);
}

static bool is(const cJSON *j, int type)
{
    return j && j->type == type;
}

cJSON_bool cJSON_IsTrue(const cJSON *j)
{
    return is(j, cJSON_True);
}

cJSON_bool cJSON_IsNumber(const cJSON *j)
{
    return is(j, cJSON_Number);
}

cJSON_bool cJSON_IsString(const cJSON *j)
{
    return is(j, cJSON_String);
}

cJSON_bool cJSON_IsArray(const cJSON *j)
{
    return is(j, cJSON_Array);
}

cJSON_bool cJSON_IsObject(const cJSON *j)
{
    return is(j, cJSON_Object);
}

int cJSON_GetArraySize(const cJSON *j)
{
    int n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, j) n++;
    return n;
}

cJSON *cJSON_GetObjectItemCaseSensitive(const cJSON *j, const char *key)
{
    cJSON *item = NULL;
    if (cJSON_IsObject(j))
        cJSON_ArrayForEach(item, j) if (!strcmp(item->string, key)) break;
    return item;
}

/* ---- reading ---- */

struct text {
    const char *at, *end;
};

static void blanks(struct text *t)
{
    while (t->at < t->end && strchr(" \t\r\n", *t->at) && *t->at)
        t->at++;
}

static bool take(struct text *t, char c)
{
    blanks(t);
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

static bool word(struct text *t, const char *w)
{
    size_t n = strlen(w);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, w, n) != 0)
        return false;
    t->at += n;
    return true;
}

/* Four hexadecimal digits, or -1. */
static long unit(struct text *t)
{
    char hex[5] = {0}, *end;
    if (t->end - t->at < 4)
        return -1;
    memcpy(hex, t->at, 4);
    long v = strspn(hex, "0123456789abcdefABCDEF") == 4 ? strtol(hex, &end, 16) : -1;
    t->at += v < 0 ? 0 : 4;
    return v;
}

/* Behind \u, surrogates joined, as UTF-8. */
static char *code_point(struct text *t, char *out)
{
    long v = unit(t), low;
    if (v >= 0xd800 && v < 0xdc00) {
        if (!word(t, "\\u") || (low = unit(t)) < 0xdc00 || low > 0xdfff)
            return NULL;
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    if (v < 0 || (v >= 0xdc00 && v < 0xe000))
        return NULL;
    int more = v < 0x80 ? 0 : v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(lead[more] | v >> 6 * more);
    while (more--)
        *out++ = (char)(0x80 | (v >> 6 * more & 0x3f));
    return out;
}

/* A string, malloc'ed; an escape is never shorter than what it stands for. */
static char *string(struct text *t)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *q, *close = t->at + 1;
    if (!take(t, '"'))
        return NULL;
    close = t->at;
    while (close < t->end && *close != '"')
        close += *close == '\\' && close + 1 < t->end ? 2 : 1;
    if (close >= t->end)
        return NULL;
    char *text = malloc((size_t)(close - t->at) + 1), *out = text;
    while (out && t->at < close) {
        char c = *t->at++;
        if (c != '\\')
            *out++ = c;
        else if ((c = *t->at++) == 'u')
            out = code_point(t, out);
        else if ((q = memchr(from, c, sizeof from - 1)))
            *out++ = to[q - from];
        else
            out = NULL;
    }
    if (!out) {
        free(text);
        return NULL;
    }
    *out = 0;
    t->at = close + 1;
    return text;
}

static bool number(struct text *t, cJSON *j)
{
    char copy[64], *end;
    size_t n = 0;
    while (n + 1 < sizeof copy && t->at + n < t->end && t->at[n] &&
           strchr("+-.0123456789eE", t->at[n])) {
        copy[n] = t->at[n];
        n++;
    }
    copy[n] = 0;
    if (!n || *copy == '+' || *copy == '.')
        return false;
    set_number(j, strtod(copy, &end));
    t->at += end - copy;
    j->type = cJSON_Number;
    return end > copy;
}

static bool value(struct text *t, cJSON *j, int depth);

/* What stands between brackets; `close` says which. */
static bool items(struct text *t, cJSON *j, char close, int depth)
{
    if (take(t, close))
        return true;
    do {
        cJSON *item = new_item(cJSON_NULL);
        if (!cJSON_AddItemToArray(j, item) ||
            (close == '}' && (!(item->string = string(t)) || !take(t, ':'))) ||
            !value(t, item, depth + 1))
            return false;
    } while (take(t, ','));
    return take(t, close);
}

static bool value(struct text *t, cJSON *j, int depth)
{
    blanks(t);
    if (t->at == t->end || depth > DEPTH)
        return false;
    switch (*t->at) {
    case '{':
        j->type = cJSON_Object;
        t->at++;
        return items(t, j, '}', depth);
    case '[':
        j->type = cJSON_Array;
        t->at++;
        return items(t, j, ']', depth);
    case '"':
        j->type = cJSON_String;
        return (j->valuestring = string(t)) != NULL;
    case 't':
        j->type = cJSON_True;
        j->valueint = 1;
        return word(t, "true");
    case 'f':
        j->type = cJSON_False;
        return word(t, "false");
    case 'n':
        return word(t, "null");
    default:
        return number(t, j);
    }
}

cJSON *cJSON_ParseWithLengthOpts(const char *text, size_t n, const char **end, cJSON_bool whole)
{
    struct text t = {text, text + n};
    cJSON *j = new_item(cJSON_NULL);
    if (!j || !value(&t, j, 0) || (whole && t.at != t.end && *t.at)) {
        cJSON_Delete(j);
        j = NULL;
    }
    if (end)
        *end = t.at;
    return j;
}

cJSON *cJSON_ParseWithLength(const char *text, size_t n)
{
    return cJSON_ParseWithLengthOpts(text, n, NULL, 0);
}

/* ---- writing ---- */

static void put_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++)
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            fprintf(f, "\\u%04x", (unsigned)*s);
        else
            fputc(*s, f);
    fputc('"', f);
}

static void put(FILE *f, const cJSON *j)
{
    const cJSON *item;
    if (cJSON_IsString(j)) {
        put_string(f, j->valuestring);
    } else if (cJSON_IsNumber(j)) {
        fprintf(f, "%.17g", j->valuedouble);
    } else {
        fputc(cJSON_IsObject(j) ? '{' : '[', f);
        cJSON_ArrayForEach(item, j)
        {
            if (item != j->child)
                fputc(',', f);
            if (item->string) {
                put_string(f, item->string);
                fputc(':', f);
            }
            put(f, item);
        }
        fputc(cJSON_IsObject(j) ? '}' : ']', f);
    }
}

/* Only what the functions above create: objects, arrays, numbers, strings. */
char *cJSON_PrintUnformatted(const cJSON *j)
{
    char *text = NULL;
    size_t n;
    FILE *f = j ? open_memstream(&text, &n) : NULL;
    if (!f)
        return NULL;
    put(f, j);
    bool bad = ferror(f) != 0;
    if (fclose(f) || bad) {
        free(text);
        return NULL;
    }
    return text;
}
