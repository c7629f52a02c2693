/* script_facts.c - see script_facts.h: the walk that the facts_*.c files share. */
#include "verify/script_facts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "verify/facts.h"

const char *const fact_kind_name[FACT_KINDS] = {"compressor", "quantiser", "evaluation", "bytes",
                                                "code size",  "import",    "file",       "network",
                                                "program",    "data",      "syntax"};
const char *const method_name[METHODS] = {"plain", "sliding", "ttt", "slot", "ngram", "ppm"};

/* Far above what real scripts have (60,000 tokens, 300 functions), so that the time stays bounded.
 */
enum { FACTS_MAX = 512, FUNCS_MAX = 1024, ALIASES_MAX = 1024, TOKENS_MAX = 256 << 10 };

bool facts_grow(struct facts_walk *w, void *p, size_t count, size_t *cap, size_t size)
{
    size_t more = *cap ? 2 * *cap : 32;
    void **at = p, *q;
    if (w->nomem || count < *cap)
        return !w->nomem;
    if (!(q = realloc(*at, more * size))) {
        w->nomem = true;
        return false;
    }
    *at = q;
    *cap = more;
    return true;
}

static void add(struct facts_walk *w, enum fact_kind kind, size_t line, const char *fmt, va_list ap)
{
    struct fact x = {.kind = kind, .line = line};
    struct script_facts *f = w->f;
    vsnprintf(x.text, sizeof x.text, fmt, ap);
    py_printable(x.text);
    for (size_t k = 0; k < f->facts; k++)
        if (f->fact[k].kind == kind && !strcmp(f->fact[k].text, x.text))
            return;
    if (f->facts < FACTS_MAX && facts_grow(w, &f->fact, f->facts, &w->fact_cap, sizeof x))
        f->fact[f->facts++] = x;
}

void facts_add(struct facts_walk *w, enum fact_kind kind, size_t i, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(w, kind, facts_line(w, i), fmt, ap);
    va_end(ap);
}

void facts_add_line(struct facts_walk *w, enum fact_kind kind, size_t line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(w, kind, line, fmt, ap);
    va_end(ap);
}

size_t facts_line(const struct facts_walk *w, size_t i)
{
    return i < w->s.count ? w->s.tok[i].line : 0;
}

bool facts_has(const struct facts_walk *w, size_t i, const char *part)
{
    size_t n = strlen(part);
    if (py_kind_at(&w->s, i) != PY_NAME && py_kind_at(&w->s, i) != PY_STRING)
        return false;
    const struct py_token *t = &w->s.tok[i];
    for (size_t k = 0; k + n <= t->len; k++)
        if (!strncasecmp(w->s.text + t->at + k, part, n))
            return true;
    return false;
}

bool facts_has_any(const struct facts_walk *w, size_t i, const char *const *parts)
{
    for (; *parts; parts++)
        if (facts_has(w, i, *parts))
            return true;
    return false;
}

bool facts_same(const struct facts_walk *w, size_t i, size_t k)
{
    const struct py_token *a = &w->s.tok[i], *b = &w->s.tok[k];
    return a->len == b->len && !memcmp(w->s.text + a->at, w->s.text + b->at, a->len);
}

size_t facts_find(const struct facts_walk *w, size_t from, size_t to, const char *text)
{
    while (from < to && !py_is(&w->s, from, text))
        from++;
    return from;
}

static const struct facts_alias *alias_of(const struct facts_walk *w, size_t i)
{
    for (size_t k = w->aliases; k; k--)
        if (facts_same(w, w->alias[k - 1].tok, i))
            return &w->alias[k - 1];
    return NULL;
}

bool facts_text(const struct facts_walk *w, size_t i, char *out, size_t cap)
{
    enum py_kind kind = py_kind_at(&w->s, i);
    if (kind == PY_NAME) {
        const struct facts_alias *a = alias_of(w, i);
        if (!a || !a->constant)
            return false;
        snprintf(out, cap, "%s", a->target);
        return true;
    }
    if (kind != PY_STRING)
        return false;
    size_t n, len = w->s.tok[i].len;
    uint8_t small[512];
    if (len > sizeof small || !py_string(&w->s, i, small, &n))
        return false; /* nothing that is looked for is this long */
    n = n < cap - 1 ? n : cap - 1;
    memcpy(out, small, n);
    out[n] = 0;
    py_printable(out); /* facts are printed */
    return true;
}

const char *facts_target(const struct facts_walk *w, size_t i, char *out, size_t cap, size_t *next)
{
    const struct facts_alias *a;
    size_t n = 0;
    *out = 0;
    *next = i + 1;
    if (py_kind_at(&w->s, i) != PY_NAME)
        return out;
    a = alias_of(w, i);
    if (a && !a->constant)
        n = (size_t)snprintf(out, cap, "%s", a->target);
    else
        n = (size_t)snprintf(out, cap, "%.*s", (int)w->s.tok[i].len, w->s.text + w->s.tok[i].at);
    while (py_is(&w->s, *next, ".") && py_kind_at(&w->s, *next + 1) == PY_NAME && n < cap) {
        const struct py_token *t = &w->s.tok[*next + 1];
        n += (size_t)snprintf(out + n, cap - n, ".%.*s", (int)t->len, w->s.text + t->at);
        *next += 2;
    }
    return out;
}

size_t facts_statement(const struct facts_walk *w, size_t i)
{
    return i < w->s.count ? w->start[i] : w->s.count - 1;
}

/* The first token of each token's statement, once for all. */
static void find_statements(struct facts_walk *w)
{
    uint32_t first = 0;
    if (!(w->start = malloc(w->s.count * sizeof *w->start))) {
        w->nomem = true;
        return;
    }
    for (size_t i = 0; i < w->s.count; i++) {
        if (i && (w->s.tok[i - 1].kind == PY_NEWLINE ||
                  (w->s.tok[i - 1].depth == 0 && py_is(&w->s, i - 1, ";"))))
            first = (uint32_t)i;
        w->start[i] = first;
    }
}

const struct facts_func *facts_function(const struct facts_walk *w, size_t i)
{
    const struct facts_func *best = NULL; /* later ones that hold i are deeper inside */
    for (size_t k = 0; k < w->funcs; k++)
        if (w->func[k].body <= i && i < w->func[k].end)
            best = &w->func[k];
    return best;
}

const struct facts_func *facts_called(const struct facts_walk *w, size_t i)
{
    if (py_kind_at(&w->s, i) != PY_NAME || (i && py_is(&w->s, i - 1, "def")))
        return NULL;
    for (size_t k = 0; k < w->funcs; k++)
        if (facts_same(w, w->func[k].name, i))
            return &w->func[k];
    return NULL;
}

int facts_truth(const char *value)
{
    static const char *const off[] = {"", "0", "0.0", "false", "none", "no", "off"};
    static const char *const on[] = {"true", "yes", "on"};
    char *end;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (!strcasecmp(value, off[i]))
            return 0;
    for (size_t i = 0; i < sizeof on / sizeof *on; i++)
        if (!strcasecmp(value, on[i]))
            return 1;
    double d = strtod(value, &end);
    return end == value || *end ? -1 : d > 0;
}

/* ---- what every file needs: functions, imports, constants ---- */

static void add_alias(struct facts_walk *w, size_t tok, const char *target, bool constant)
{
    if (w->aliases == ALIASES_MAX ||
        !facts_grow(w, &w->alias, w->aliases, &w->alias_cap, sizeof *w->alias))
        return;
    struct facts_alias *a = &w->alias[w->aliases++];
    *a = (struct facts_alias){.tok = tok, .constant = constant};
    snprintf(a->target, sizeof a->target, "%s", target);
}

/* A dotted name from token *i on, relative dots included. */
static void dotted(const struct facts_walk *w, size_t *i, char *out, size_t cap)
{
    size_t n = 0;
    *out = 0;
    while ((py_kind_at(&w->s, *i) == PY_NAME && !py_keyword(&w->s, *i)) || py_is(&w->s, *i, ".") ||
           py_is(&w->s, *i, "...")) {
        const struct py_token *t = &w->s.tok[(*i)++];
        if (n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%.*s", (int)t->len, w->s.text + t->at);
    }
}

static void read_import(struct facts_walk *w, size_t i)
{
    char module[64], target[160];
    bool from = py_is(&w->s, i, "from");
    do {
        size_t first = ++i;
        dotted(w, &i, module, sizeof module);
        if (from)
            break;
        if (py_is(&w->s, i, "as") && py_kind_at(&w->s, i + 1) == PY_NAME) {
            add_alias(w, i + 1, module, false);
            i += 2;
        } else if (py_kind_at(&w->s, first) == PY_NAME) {
            module[strcspn(module, ".")] = 0;
            add_alias(w, first, module, false);
        }
    } while (py_is(&w->s, i, ","));
    if (!from || !py_is(&w->s, i, "import"))
        return;
    i += 1 + py_is(&w->s, i + 1, "(");
    while (py_kind_at(&w->s, i) == PY_NAME) {
        const struct py_token *t = &w->s.tok[i];
        snprintf(target, sizeof target, "%s.%.*s", module, (int)(t->len < 64 ? t->len : 64),
                 w->s.text + t->at);
        bool as = py_is(&w->s, i + 1, "as") && py_kind_at(&w->s, i + 2) == PY_NAME;
        add_alias(w, as ? i + 2 : i, target, false);
        i += as ? 3 : 1;
        if (!py_is(&w->s, i, ","))
            break;
        i++;
    }
}

static void read_structure(struct facts_walk *w)
{
    const struct py_source *s = &w->s;
    char text[64];
    for (size_t i = 0; i + 1 < s->count && !w->nomem; i++) {
        bool start =
            !i || s->tok[i - 1].kind == PY_NEWLINE || py_is(s, i - 1, ";") || py_is(s, i - 1, ":");
        if (py_is(s, i, "def") && py_kind_at(s, i + 1) == PY_NAME) {
            size_t colon = py_header_colon(s, i);
            if (colon && w->funcs < FUNCS_MAX &&
                facts_grow(w, &w->func, w->funcs, &w->func_cap, sizeof *w->func))
                w->func[w->funcs++] =
                    (struct facts_func){i + 1, colon + 1, py_body_end(s, colon, s->tok[i].indent)};
        } else if (start && (py_is(s, i, "import") || py_is(s, i, "from"))) {
            read_import(w, i);
        } else if (start && s->tok[i].kind == PY_NAME && py_is(s, i + 1, "=") &&
                   py_kind_at(s, i + 2) == PY_STRING && py_kind_at(s, i + 3) != PY_STRING &&
                   s->tok[i].depth == 0) {
            if (facts_text(w, i + 2, text, sizeof text))
                add_alias(w, i, text, true);
        }
    }
}

static void read_syntax(struct facts_walk *w)
{
    const struct py_source *s = &w->s;
    if (s->new_syntax)
        facts_add_line(w, FACT_SYNTAX, s->new_syntax, "an f-string needs Python 3.12 (PEP 701)");
    if (s->bad_line)
        facts_add_line(w, FACT_SYNTAX, s->bad_line,
                       "a literal or bracket is left open, or a stray byte: no Python");
    if (s->cut)
        facts_add_line(w, FACT_SYNTAX, s->tok[s->count - 1].line,
                       "too long: only the first %d tokens were read", TOKENS_MAX);
}

enum err_code script_facts(struct script_facts *f, const void *source, size_t n,
                           const struct script_setting *setting, size_t settings, struct err *e)
{
    struct facts_walk w = {.f = f, .setting = setting, .settings = settings};
    *f = (struct script_facts){0};
    enum err_code rc = py_scan(&w.s, source, n, e);
    if (rc)
        return rc;
    if (w.s.count > TOKENS_MAX) {
        w.s.count = TOKENS_MAX;
        w.s.tok[TOKENS_MAX - 1].kind = PY_END;
        w.s.cut = true;
    }
    f->lines = w.s.lines;
    f->new_syntax = w.s.new_syntax;
    f->bad_line = w.s.bad_line;
    read_syntax(&w);
    find_statements(&w);
    if (!w.nomem) {
        read_structure(&w);
        facts_settings(&w);
        facts_sizes(&w);
        facts_bytes(&w);
        facts_methods(&w);
        facts_outside(&w);
    }
    free(w.start);
    py_free(&w.s);
    free(w.func);
    free(w.alias);
    if (!w.nomem)
        return ERR_OK;
    script_facts_free(f);
    return err_nomem(e, "facts about the script", n);
}

void script_facts_free(struct script_facts *f)
{
    free(f->fact);
    free(f->env);
    *f = (struct script_facts){0};
}

const struct env_fact *script_env(const struct script_facts *f, const char *name)
{
    for (size_t i = 0; i < f->envs; i++)
        if (!strcasecmp(f->env[i].name, name) || !strcasecmp(f->env[i].attr, name))
            return &f->env[i];
    return NULL;
}

const struct method_facts *script_method(const struct script_facts *f, enum method m)
{
    for (size_t i = 0; i < f->methods; i++)
        if (f->method[i].method == m)
            return &f->method[i];
    return NULL;
}
