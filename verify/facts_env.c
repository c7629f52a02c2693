/*
 * facts_env.c - environment variables with their defaults, and the settings that replaced them.
 *
 * Read are os.environ.get("X", d), os.getenv("X", d), os.environ["X"], names bound to those
 * (_E = os.environ.get), helpers of the script whose name starts with env (env_int("X", 3)), and
 * the attributes of a Hyperparameters class that no variable stands behind.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "verify/facts.h"

enum { ENVS_MAX = 2048 };

/* Names of variables are capitals, digits and underscores. */
static bool variable_name(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') && *s != '_')
            return false;
    return true;
}

/* The text of tokens [from, to) without comments, blanks between words only. */
static void raw(const struct facts_walk *w, size_t from, size_t to, char *out, size_t cap)
{
    size_t n = 0;
    *out = 0;
    if (to == from + 1 && facts_text(w, from, out, cap))
        return;
    for (size_t i = from; i < to && n < cap; i++) {
        const struct py_token *t = &w->s.tok[i];
        bool gap = i > from && t->kind == PY_NAME && w->s.tok[i - 1].kind == PY_NAME;
        n += (size_t)snprintf(out + n, cap - n, "%s%.*s", gap ? " " : "", (int)t->len,
                              w->s.text + t->at);
    }
    py_printable(out);
}

/* What the statement around token i assigns to: NAME = ..., NAME: T = ..., x.NAME = ... */
static void target_of(const struct facts_walk *w, size_t i, char *out, size_t cap)
{
    size_t from = facts_statement(w, i), name = w->s.count;
    *out = 0;
    for (size_t k = from; k < i; k++) { /* class X: A = 1 on one line: behind the colon */
        if (w->s.tok[k].depth == w->s.tok[from].depth && py_is(&w->s, k, "="))
            break;
        if (py_is(&w->s, k, ":") && py_kind_at(&w->s, from) == PY_NAME && py_keyword(&w->s, from))
            name = w->s.count;
        else if (w->s.tok[k].kind == PY_NAME && !py_keyword(&w->s, k) &&
                 (name == w->s.count || py_is(&w->s, k - 1, ".")))
            name = k;
        if (k + 1 == i)
            return; /* no assignment */
    }
    if (name < w->s.count)
        snprintf(out, cap, "%.*s", (int)w->s.tok[name].len, w->s.text + w->s.tok[name].at);
}

static struct env_fact *add(struct facts_walk *w, size_t i, const char *name, const char *attr)
{
    struct script_facts *f = w->f;
    for (size_t k = 0; k < f->envs;
         k++) /* the first reading of a variable is the one that counts */
        if (*name ? !strcmp(f->env[k].name, name) : !strcmp(f->env[k].attr, attr))
            return NULL;
    if (f->envs == ENVS_MAX || !facts_grow(w, &f->env, f->envs, &w->env_cap, sizeof *f->env))
        return NULL;
    struct env_fact *x = &f->env[f->envs++];
    *x = (struct env_fact){.line = facts_line(w, i)};
    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->attr, sizeof x->attr, "%s", attr);
    py_printable(x->attr);
    return x;
}

/* Is token i the name of something that reads the environment? */
static bool reader(const struct facts_walk *w, size_t i)
{
    static const char *const starts[] = {"env", "_env", "getenv", "_getenv", "get_env", "_get_env"};
    char name[64];
    size_t next;
    if (py_kind_at(&w->s, i) != PY_NAME || !py_is(&w->s, i + 1, "("))
        return false;
    if (py_is(&w->s, i, "get") || py_is(&w->s, i, "pop") || py_is(&w->s, i, "setdefault"))
        return i >= 2 && py_is(&w->s, i - 1, ".") && facts_has(w, i - 2, "env");
    snprintf(name, sizeof name, "%.*s", (int)w->s.tok[i].len, w->s.text + w->s.tok[i].at);
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++)
        if (!strncasecmp(name, starts[k], strlen(starts[k])))
            return true;
    facts_target(w, i, name, sizeof name, &next);
    return !strcmp(name, "os.environ.get") || !strcmp(name, "os.getenv");
}

static void call(struct facts_walk *w, size_t i)
{
    char name[48], attr[48];
    size_t open = i + 1, close, comma = 0;
    if (!facts_text(w, open + 1, name, sizeof name) || !variable_name(name))
        return;
    unsigned depth = w->s.tok[open].depth + 1u;
    for (close = open + 1; close < w->s.count && w->s.tok[close].depth >= depth; close++)
        if (!comma && w->s.tok[close].depth == depth && py_is(&w->s, close, ","))
            comma = close;
    if (open + 2 != close && open + 2 != comma)
        return;
    target_of(w, i, attr, sizeof attr);
    struct env_fact *x = add(w, i, name, attr);
    if (x && comma) {
        x->has_default = true;
        raw(w, comma + 1, close, x->value, sizeof x->value);
    }
}

/* NAME = number or text, inside a class whose name speaks of settings. */
static void attributes(struct facts_walk *w, size_t i)
{
    static const char *const names[] = {"hyper", "config", "args", "settings", NULL};
    const struct py_source *s = &w->s;
    if (!facts_has_any(w, i + 1, names))
        return;
    size_t colon = py_header_colon(s, i);
    size_t end = colon ? py_body_end(s, colon, s->tok[i].indent) : i;
    for (size_t k = colon + 1; colon && k + 2 < end; k++) {
        bool start = s->tok[k - 1].kind == PY_NEWLINE || py_is(s, k - 1, ";") || k == colon + 1;
        size_t eq = k + 1;
        if (!start || s->tok[k].kind != PY_NAME || py_keyword(s, k))
            continue;
        while (eq < end && s->tok[eq].kind != PY_NEWLINE && !py_is(s, eq, "="))
            eq++;
        size_t to = eq + 1;
        if (!py_is(s, eq, "="))
            continue;
        while (to < end && s->tok[to].kind != PY_NEWLINE && !py_is(s, to, ";"))
            to++;
        if (to != eq + 2 && !(to == eq + 3 && py_is(s, eq + 1, "-")))
            continue; /* not a plain value */
        if (s->tok[to - 1].kind == PY_NAME && !py_keyword(s, to - 1))
            continue;
        char attr[48];
        snprintf(attr, sizeof attr, "%.*s", (int)s->tok[k].len, s->text + s->tok[k].at);
        struct env_fact *x = add(w, k, "", attr);
        if (x) {
            x->has_default = true;
            raw(w, eq + 1, to, x->value, sizeof x->value);
        }
    }
}

static void apply(struct facts_walk *w)
{
    for (size_t i = 0; i < w->f->envs; i++) {
        struct env_fact *x = &w->f->env[i];
        for (size_t k = 0; k < w->settings; k++) {
            const struct script_setting *s = &w->setting[k];
            if ((*x->name && !strcasecmp(s->name, x->name)) ||
                (*x->attr && !strcasecmp(s->name, x->attr))) {
                snprintf(x->value, sizeof x->value, "%s", s->value);
                x->set = true;
            }
        }
    }
}

void facts_settings(struct facts_walk *w)
{
    const struct py_source *s = &w->s;
    char name[64];
    size_t bound[8], n = 0, next;
    for (size_t i = 0; i + 2 < s->count && !w->nomem; i++) {
        if (s->tok[i].kind != PY_NAME)
            continue;
        if (py_is(s, i, "class"))
            continue;
        if (py_is(s, i + 1, "=") && n < 8) { /* remember names bound to a reader */
            facts_target(w, i + 2, name, sizeof name, &next);
            if (!py_is(s, next, "(") &&
                (!strcmp(name, "os.environ.get") || !strcmp(name, "os.getenv")))
                bound[n++] = i;
        }
        bool hit = reader(w, i);
        for (size_t k = 0; k < n && !hit; k++)
            hit = facts_same(w, bound[k], i) && py_is(s, i + 1, "(");
        if (hit)
            call(w, i);
        else if (py_is(s, i, "environ") && py_is(s, i + 1, "[") && facts_text(w, i + 2, name, 48) &&
                 variable_name(name) && py_is(s, i + 3, "]")) {
            char attr[48];
            target_of(w, i, attr, sizeof attr);
            add(w, i, name, attr);
        }
    }
    for (size_t i = 0; i + 2 < s->count && !w->nomem; i++)
        if (py_is(s, i, "class"))
            attributes(w, i);
    apply(w);
}
