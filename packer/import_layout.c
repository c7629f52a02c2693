/* import_layout.c - see import_layout.h: the list, and the dictionaries. */
#include "packer/import_layout.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void add_line(struct import *im, const char *fmt, va_list ap)
{
    struct import_report *rep = im->rep;
    if (rep->lines < IMPORT_LINES) {
        vsnprintf(rep->line[rep->lines], IMPORT_LINE, fmt, ap);
        for (char *c = rep->line[rep->lines]; *c; c++) /* names from files go to a terminal */
            if (*c < ' ' || *c > '~')
                *c = '?';
    }
    rep->lines++;
}

void import_note(struct import *im, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_line(im, fmt, ap);
    va_end(ap);
}

void import_problem(struct import *im, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_line(im, fmt, ap);
    va_end(ap);
    im->rep->problems++;
}

/* ---- the list ---- */

static const char *without_wrapper(const char *name)
{
    static const char *const prefix[] = {"_orig_mod.", "module."};
    for (size_t i = 0; i < 2; i++)
        if (!strncmp(name, prefix[i], strlen(prefix[i])))
            return without_wrapper(name + strlen(prefix[i]));
    return name;
}

enum err_code import_add(struct import *im, const struct found *f, struct err *e)
{
    const char *name = without_wrapper(f->name);
    if (import_look(im, name, "")) {
        import_problem(im, "tensor %s is there twice", name);
        return ERR_OK;
    }
    if (im->count == FOUND_MAX)
        return err_set(e, ERR_INPUT, "%s: more than %d tensors", im->p->path, FOUND_MAX);
    if (im->count == im->cap) {
        size_t cap = im->cap ? 2 * im->cap : 256;
        struct found *more = realloc(im->found, cap * sizeof *more);
        if (!more)
            return err_nomem(e, "tensors", cap * sizeof *more);
        im->found = more;
        im->cap = cap;
    }
    struct found *to = &im->found[im->count++];
    size_t dropped = (size_t)(name - f->name);
    *to = *f;
    memmove(to->name, to->name + dropped, sizeof to->name - dropped);
    return ERR_OK;
}

struct found *import_look(const struct import *im, const char *name, const char *suffix)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < im->count; i++)
        if (!strncmp(im->found[i].name, name, n) && !strcmp(im->found[i].name + n, suffix))
            return &im->found[i];
    return NULL;
}

/* Adds the tensor v as name + suffix. What is no tensor, or a damaged one, is a problem of its own:
 * the others are looked at all the same. */
static enum err_code take(struct import *im, const struct pickle_value *name, const char *suffix,
                          const char *type, const struct pickle_value *v, struct err *e)
{
    struct found f = {0};
    struct err why = {0};
    if (name->kind != PICKLE_STR || name->n != strlen(name->text) ||
        name->n + strlen(suffix) >= sizeof f.name) {
        import_problem(im, "a tensor without a name, or with one that is too long");
        return ERR_OK;
    }
    snprintf(f.name, sizeof f.name, "%s%s", name->text, suffix);
    snprintf(f.type, sizeof f.type, "%s", type);
    enum err_code rc = ptz_tensor(im->p, v, f.name, &f.view, &why);
    if (rc == ERR_INPUT) {
        import_problem(im, "%.180s", why.msg);
        return ERR_OK;
    }
    return rc ? err_set(e, rc, "%s", why.msg) : import_add(im, &f, e);
}

/* ---- kinds of integers ---- */

bool import_kind(char kind[FOUND_TYPE], const char *text)
{
    const char *at = strstr(text, "int");
    *kind = 0;
    if (strstr(text, "passthrough"))
        return false;
    if (at && at[3] >= '2' && at[3] <= '8')
        snprintf(kind, FOUND_TYPE, "int%c", at[3]);
    else if (strstr(text, "ternary"))
        strcpy(kind, "ternary");
    else if (strstr(text, "binary"))
        strcpy(kind, "binary");
    else if (!strcmp(text, "fp4"))
        strcpy(kind, "int4");
    return *kind;
}

/* ---- {"w": ..., "m": ...} ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

/* X.q and X.scale; X.gq and X.gs are what #1736 calls the same of its gates. */
static const struct {
    const char *theirs, *ours;
} suffixes[] = {{".q", ".q"}, {".scale", ".scale"}, {".gq", ".q"}, {".gs", ".scale"}};

/* Takes a tensor of a dictionary in which integers are called X.q. m says what they are; NULL: the
 * layout does not, and they are called int8. */
static enum err_code take_suffixed(struct import *im, const struct pickle_value *name,
                                   const struct pickle_value *m, const struct pickle_value *v,
                                   struct err *e)
{
    char base[FOUND_NAME], kind[FOUND_TYPE] = "int8";
    struct pickle_value shorter = *name;
    size_t s = 0, count = sizeof suffixes / sizeof *suffixes;
    while (s < count && (name->kind != PICKLE_STR || !ends_with(name->text, suffixes[s].theirs)))
        s++;
    if (s == count || name->n >= sizeof base)
        return take(im, name, "", "", v, e);
    shorter.n = name->n - strlen(suffixes[s].theirs);
    snprintf(base, sizeof base, "%.*s", (int)shorter.n, name->text);
    shorter.text = base;
    const struct pickle_value *how = pickle_get(m, base), *type = pickle_get(how, "type");
    const struct pickle_value *group = pickle_get(how, "group_size");
    size_t before = im->count;
    if (how && how->kind == PICKLE_STR)
        type = how;
    if (*suffixes[s].ours == '.' && suffixes[s].ours[1] == 'q' && m &&
        (!type || type->kind != PICKLE_STR || !import_kind(kind, type->text)))
        import_problem(im, "tensor %.80s: its type is %.40s, which is not understood", base,
                       type && type->kind == PICKLE_STR ? type->text : "not given");
    if (pickle_is(pickle_get(how, "method"), "gptq") ||
        (type == how && how && strstr(how->text, "gptq")))
        im->gptq = true;
    enum err_code rc =
        take(im, &shorter, suffixes[s].ours, suffixes[s].ours[1] == 'q' ? kind : "", v, e);
    if (!rc && im->count > before && group && group->kind == PICKLE_INT && group->i > 0)
        im->found[before].group = (size_t)group->i;
    return rc;
}

/* Whatever m lists is in w. */
static void check_listed(struct import *im, const struct pickle_value *w,
                         const struct pickle_value *m)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct pickle_value *name = m->item[2 * i], *how = m->item[2 * i + 1];
        char full[FOUND_NAME], kind[FOUND_TYPE];
        bool there = false;
        if (name->kind != PICKLE_STR)
            continue;
        bool plain = how->kind == PICKLE_STR && !import_kind(kind, how->text);
        for (size_t s = 0; s < 4 && !there && !plain; s += 2) {
            snprintf(full, sizeof full, "%.80s%s", name->text, suffixes[s].theirs);
            there = pickle_get(w, full);
        }
        if (!there && !(plain && pickle_get(w, name->text)))
            import_problem(im, "tensor %.80s: described, but not there", name->text);
    }
}

static enum err_code collect_records(struct import *im, const struct pickle_value *root,
                                     struct err *e)
{
    const struct pickle_value *w = pickle_get(root, "w"), *m = pickle_get(root, "m");
    enum err_code rc = ERR_OK;
    if (w->n > FOUND_MAX || m->n > FOUND_MAX)
        return err_set(e, ERR_INPUT, "%s: more than %d tensors", im->p->path, FOUND_MAX);
    for (size_t i = 0; !rc && i < w->n; i++)
        rc = take_suffixed(im, w->item[2 * i], m, w->item[2 * i + 1], e);
    check_listed(im, w, m);
    return rc;
}

static bool is_dict(const struct pickle_value *v)
{
    return v && v->kind == PICKLE_DICT;
}

static bool is_records(const struct ptz *p, const struct pickle_value *root)
{
    (void)p;
    return is_dict(pickle_get(root, "w")) && is_dict(pickle_get(root, "m"));
}

/* ---- the baseline ---- */

/* The tables were bf16 parameters: gpt_load rounds them when the recipe says so. */
static void follow_dtypes(struct import *im, const struct pickle_value *dtypes)
{
    if (im->r->embed_bf16 || !pickle_is(pickle_get(dtypes, "tok_emb.weight"), "bfloat16"))
        return;
    im->r->embed_bf16 = 1;
    import_note(im, "EMBED_BF16=1: the file says that tok_emb.weight was bfloat16");
}

static enum err_code collect_int8(struct import *im, const struct pickle_value *root, struct err *e)
{
    const struct pickle_value *q = pickle_get(root, "quantized"), *s = pickle_get(root, "scales");
    const struct pickle_value *w = pickle_get(root, "passthrough");
    enum err_code rc = ERR_OK;
    if (!is_dict(q) || !is_dict(s) || !is_dict(w) || q->n > FOUND_MAX || w->n > FOUND_MAX)
        return err_set(e, ERR_INPUT,
                       "%s: quantized, scales or passthrough is missing or no dictionary",
                       im->p->path);
    for (size_t i = 0; !rc && i < q->n; i++) {
        const struct pickle_value *name = q->item[2 * i];
        rc = take(im, name, ".q", "int8", q->item[2 * i + 1], e);
        if (!rc && name->kind == PICKLE_STR)
            rc = take(im, name, ".scale", "", pickle_get(s, name->text), e);
    }
    for (size_t i = 0; !rc && i < w->n; i++)
        rc = take(im, w->item[2 * i], "", "", w->item[2 * i + 1], e);
    follow_dtypes(im, pickle_get(root, "dtypes"));
    follow_dtypes(im, pickle_get(root, "passthrough_orig_dtypes"));
    return rc;
}

/* "int8_clean_per_row_v1" (the baseline), "mixed_int8_int6_v1" (the folder of 2026-03-21). */
static bool is_int8(const struct ptz *p, const struct pickle_value *root)
{
    const struct pickle_value *format = pickle_get(root, "__quant_format__");
    (void)p;
    return format && format->kind == PICKLE_STR;
}

/* ---- tensor by tensor: arrays, and dictionaries that describe one ---- */

static bool is_entry(const struct pickle_value *v)
{
    return is_dict(v) && (pickle_get(v, "packed") || pickle_get(v, "data") || pickle_get(v, "q"));
}

static enum err_code collect_state(struct import *im, const struct pickle_value *root,
                                   struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t i = 0; !rc && i < root->n; i++) {
        const struct pickle_value *name = root->item[2 * i], *v = root->item[2 * i + 1];
        bool named = name->kind == PICKLE_STR && name->n == strlen(name->text);
        if (named && is_entry(v))
            rc = import_entry(im, name->text, v, e);
        else if (ptz_is_tensor(im->p, v))
            rc = take_suffixed(im, name, NULL, v, e);
        else
            import_note(im, "value %.80s is no tensor and was left out", named ? name->text : "?");
    }
    return rc;
}

/* Some value is a tensor with a name such as tok_emb.weight: a checkpoint holds others as well. */
static bool is_state(const struct ptz *p, const struct pickle_value *root)
{
    for (size_t i = 0; root->kind == PICKLE_DICT && i < root->n; i++) {
        const struct pickle_value *name = root->item[2 * i];
        if (name->kind == PICKLE_STR && strchr(name->text, '.') &&
            ptz_is_tensor(p, root->item[2 * i + 1]))
            return true;
    }
    return false;
}

/* Some value describes a tensor. */
static bool is_entries(const struct ptz *p, const struct pickle_value *root)
{
    (void)p;
    for (size_t i = 0; root->kind == PICKLE_DICT && i < root->n; i++)
        if (is_entry(root->item[2 * i + 1]))
            return true;
    return false;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    bool (*is)(const struct ptz *p, const struct pickle_value *root);
    enum err_code (*collect)(struct import *im, const struct pickle_value *root, struct err *e);
} layouts[] = {
    {"records", is_records, collect_records},
    {"int8", is_int8, collect_int8},
    {"entries", is_entries, collect_state},
    {"state dict", is_state, collect_state},
};

/* The keys of a dictionary, or what it is instead, for an error. */
static const char *outline(const struct pickle_value *root, char *out, size_t cap)
{
    if (root->kind != PICKLE_DICT)
        return "it holds no dictionary";
    size_t at = (size_t)snprintf(out, cap, "a dictionary of %zu: ", root->n);
    for (size_t i = 0; i < root->n && at + 1 < cap; i++) {
        const struct pickle_value *key = root->item[2 * i];
        at += (size_t)snprintf(out + at, cap - at, "%s%.40s", i ? ", " : "",
                               key->kind == PICKLE_STR ? key->text : "?");
    }
    return out;
}

enum err_code import_collect(struct import *im, struct err *e)
{
    /* Where checkpoints keep their weights. */
    static const char *const inner[] = {NULL, "model", "state_dict", "model_state_dict", "weights"};
    char text[120];
    for (size_t k = 0; k < sizeof inner / sizeof *inner; k++) {
        const struct pickle_value *root =
            inner[k] ? pickle_get(im->p->root, inner[k]) : im->p->root;
        for (size_t i = 0; root && i < sizeof layouts / sizeof *layouts; i++)
            if (layouts[i].is(im->p, root)) {
                im->rep->layout = layouts[i].name;
                return layouts[i].collect(im, root, e);
            }
    }
    return err_set(e, ERR_INPUT, "%s: no layout that is known; %s", im->p->path,
                   outline(im->p->root, text, sizeof text));
}
