/* recipe.c - see recipe.h. */
#include "model/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/near.h"
#include "model/number.h"

enum key_type { KEY_INT, KEY_NUM, KEY_STR };

struct key {
    const char *name, *help;
    enum key_type type;
    unsigned group;
    size_t at;
    double num; /* default of INT and NUM */
    const char *str;
};

#define DEF_INT(d)            .num = (double)(d)
#define DEF_NUM(d)            .num = (d)
#define DEF_STR(d)            .str = (d)
#define KEY(t, k, f, d, h, g) {#k, h, KEY_##t, g, offsetof(struct recipe, f), DEF_##t(d)},
#define KEY_M(t, k, f, d, h)  KEY(t, k, f, d, h, RECIPE_MODEL)
#define KEY_E(t, k, f, d, h)  KEY(t, k, f, d, h, RECIPE_EVAL)
#define KEY_T(t, k, f, d, h)  KEY(t, k, f, d, h, RECIPE_TRAIN)
#define KEY_Q(t, k, f, d, h)  KEY(t, k, f, d, h, RECIPE_QUANT)

static const struct key keys[] = {RECIPE_MODEL_KEYS(KEY_M) RECIPE_EVAL_KEYS(KEY_E)
                                      RECIPE_TRAIN_KEYS(KEY_T) RECIPE_QUANT_KEYS(KEY_Q)};
enum { KEYS = sizeof keys / sizeof keys[0] };

static void *field(const struct recipe *r, const struct key *k)
{
    return (char *)(uintptr_t)r + k->at;
}

void recipe_init(struct recipe *r)
{
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < KEYS; i++) {
        if (keys[i].type == KEY_INT)
            *(int64_t *)field(r, &keys[i]) = (int64_t)keys[i].num;
        else if (keys[i].type == KEY_NUM)
            *(double *)field(r, &keys[i]) = keys[i].num;
        else
            strcpy(field(r, &keys[i]), keys[i].str);
    }
}

static const struct key *find_key(const char *name, size_t n)
{
    for (size_t i = 0; i < KEYS; i++)
        if (strlen(keys[i].name) == n && !memcmp(keys[i].name, name, n))
            return &keys[i];
    return NULL;
}

static enum err_code unknown_key(const char *name, size_t n, const char *where, struct err *e)
{
    size_t best = SIZE_MAX, at = 0;
    char shown[48];
    if (n > sizeof shown - 1)
        n = sizeof shown - 1;
    memcpy(shown, name, n);
    shown[n] = 0;
    for (size_t i = 0; i < KEYS; i++) {
        size_t d = near_distance(shown, keys[i].name);
        if (d < best) {
            best = d;
            at = i;
        }
    }
    return err_set(e, ERR_USAGE, "%s: unknown key %s; the nearest known one is %s", where, shown,
                   keys[at].name);
}

static enum err_code assign(struct recipe *r, const struct key *k, const char *value,
                            const char *where, struct err *e)
{
    if (k->type == KEY_STR) {
        if (strlen(value) >= RECIPE_STR)
            return err_set(e, ERR_USAGE, "%s: %s: longer than %d bytes", where, k->name,
                           RECIPE_STR - 1);
        for (const char *c = value; *c; c++) /* what a printed recipe could not give back */
            if (*c == '"' || (*c >= 0 && *c < ' '))
                return err_set(e, ERR_USAGE, "%s: %s: holds a quote or a control character", where,
                               k->name);
        memset(field(r, k), 0, RECIPE_STR); /* equal recipes are equal bytes */
        strcpy(field(r, k), value);
    } else if (k->type == KEY_INT) {
        double v;
        if (!number_parse(value, &v) || v < -1 || v > 1e12 || v != (double)(int64_t)v)
            return err_set(e, ERR_USAGE, "%s: %s=%s: not a whole number", where, k->name, value);
        *(int64_t *)field(r, k) = (int64_t)v;
    } else if (!number_parse(value, field(r, k))) {
        return err_set(e, ERR_USAGE, "%s: %s=%s: not a number of at most 15 digits", where, k->name,
                       value);
    }
    return ERR_OK;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* One setting in text[0..n): KEY = VALUE, blanks and quotes stripped. */
static enum err_code set_span(struct recipe *r, const char *text, size_t n, const char *where,
                              bool lenient, struct err *e)
{
    const char *eq = memchr(text, '=', n), *v;
    char value[RECIPE_STR + 1];
    const struct key *k;
    size_t kn, vn;
    if (!eq)
        return err_set(e, ERR_USAGE, "%s: settings are written KEY=VALUE", where);
    kn = (size_t)(eq - text);
    while (kn && blank(text[kn - 1]))
        kn--;
    v = eq + 1;
    vn = n - (size_t)(v - text);
    while (vn && blank(*v)) {
        v++;
        vn--;
    }
    while (vn && blank(v[vn - 1]))
        vn--;
    if (vn >= 2 && (*v == '"' || *v == '\'') && v[vn - 1] == *v) {
        v++;
        vn -= 2;
    }
    k = find_key(text, kn);
    if (!k)
        return lenient ? ERR_OK : unknown_key(text, kn, where, e);
    if (vn > RECIPE_STR)
        vn = RECIPE_STR; /* one more than fits: assign refuses it */
    memcpy(value, v, vn);
    value[vn] = 0;
    return assign(r, k, value, where, e);
}

enum err_code recipe_set(struct recipe *r, const char *setting, const char *where, struct err *e)
{
    while (blank(*setting))
        setting++;
    return set_span(r, setting, strlen(setting), where, false, e);
}

/* The part of a line before a comment. A # inside a quoted value does not start one. */
static size_t comment_start(const char *s, size_t n)
{
    char quote = 0;
    for (size_t i = 0; i < n; i++) {
        if (quote ? s[i] == quote : s[i] == '"' || s[i] == '\'')
            quote = quote ? 0 : s[i];
        else if (s[i] == '#' && !quote)
            return i;
    }
    return n;
}

enum err_code recipe_parse(struct recipe *r, const char *text, size_t n, const char *where,
                           bool lenient, struct err *e)
{
    size_t at = 0;
    for (unsigned line = 1; at < n; line++) {
        const char *s = text + at, *nl = memchr(s, '\n', n - at);
        size_t len = nl ? (size_t)(nl - s) : n - at;
        char place[300];
        enum err_code rc;
        at += len + 1;
        len = comment_start(s, len);
        while (len && blank(*s)) {
            s++;
            len--;
        }
        while (len && blank(s[len - 1]))
            len--;
        if (!len)
            continue;
        snprintf(place, sizeof place, "%s:%u", where, line);
        if ((rc = set_span(r, s, len, place, lenient, e)))
            return rc;
    }
    return ERR_OK;
}

enum err_code recipe_env(struct recipe *r, struct err *e)
{
    for (size_t i = 0; i < KEYS; i++) {
        const char *v = getenv(keys[i].name);
        enum err_code rc = v ? assign(r, &keys[i], v, "environment", e) : ERR_OK;
        if (rc)
            return rc;
    }
    return ERR_OK;
}

enum err_code recipe_load(struct recipe *r, const char *path, struct err *e)
{
    const void *text;
    size_t n;
    enum err_code rc = file_map(path, &text, &n, e);
    recipe_init(r);
    if (rc)
        return rc;
    rc = recipe_parse(r, text, n, path, false, e);
    file_unmap(text, n);
    return rc ? rc : recipe_env(r, e);
}

/* Every value came from a decimal of at most 15 digits, and %.15g gives that decimal back. */
static void print_num(char *out, size_t cap, double v)
{
    snprintf(out, cap, "%.15g", v);
}

static bool is_default(const struct recipe *r, const struct key *k)
{
    const void *f = field(r, k);
    if (k->type == KEY_INT)
        return *(const int64_t *)f == (int64_t)k->num;
    return k->type == KEY_NUM ? *(const double *)f == k->num : !strcmp(f, k->str);
}

size_t recipe_print(const struct recipe *r, unsigned groups, bool changed, char *buf, size_t cap)
{
    size_t n = 0;
    if (cap)
        buf[0] = 0;
    for (size_t i = 0; i < KEYS; i++) {
        const struct key *k = &keys[i];
        char v[RECIPE_STR];
        size_t left = n < cap ? cap - n : 0;
        const char *quote;
        int w;
        if (!(k->group & groups) || (changed && is_default(r, k)))
            continue;
        if (k->type == KEY_STR)
            strcpy(v, field(r, k));
        else if (k->type == KEY_INT)
            snprintf(v, sizeof v, "%lld", (long long)*(int64_t *)field(r, k));
        else
            print_num(v, sizeof v, *(double *)field(r, k));
        quote = v[strcspn(v, "# '")] ? "\"" : "";
        w = snprintf(left ? buf + n : NULL, left, "%s=%s%s%s\n", k->name, quote, v, quote);
        n += (size_t)w;
    }
    return n;
}

void recipe_help(void (*line)(void *ctx, const char *key, const char *def, const char *help),
                 void *ctx)
{
    for (size_t i = 0; i < KEYS; i++) {
        char v[64] = "";
        if (keys[i].type == KEY_INT)
            snprintf(v, sizeof v, "%lld", (long long)keys[i].num);
        else if (keys[i].type == KEY_NUM)
            print_num(v, sizeof v, keys[i].num);
        line(ctx, keys[i].name, keys[i].type == KEY_STR ? keys[i].str : v, keys[i].help);
    }
}
