/*
 * pycalc.c - the walk over statements; expressions are in pyexpr.c, functions in pycall*.c.
 *
 * Python's grammar is followed as far as constants can flow: every statement ends somewhere, and
 * where an expression is not understood the walk goes on behind the end of its line.
 */
#include "verify/pycalc.h"

#include <stdlib.h>
#include <string.h>

#include "verify/pyexpr.h"

static void block(struct pv_walk *w, size_t end);

/* ---- names ---- */

static uint32_t hash_of(const char *name, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    return h;
}

static struct pv_binding *binding(struct pv_walk *w, const char *name, size_t n, size_t from)
{
    uint32_t h = hash_of(name, n);
    for (size_t i = w->binds; i > from; i--) {
        struct pv_binding *b = &w->bind[i - 1];
        w->steps += i % 32 == 0;
        if (b->hash == h && b->n == n && !memcmp(b->name, name, n))
            return b;
    }
    return NULL;
}

const struct pv *pv_lookup(struct pv_walk *w, const char *name, size_t n)
{
    static const char *const known[] = {
        "exec",      "eval",       "compile",  "open",       "bytes", "str",     "int",
        "ord",       "chr",        "len",      "getattr",    "list",  "tuple",   "reversed",
        "bytearray", "__import__", "__file__", "memoryview", "print", "globals", "setattr",
        "range",     "sorted",     "dict",     "max",        "min"};
    struct pv_binding *b = binding(w, name, n, 0);
    if (b)
        return b->v;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && !memcmp(known[i], name, n))
            return pv_text(w, PV_NAME, known[i], n, NULL);
    if (w->stars) { /* from MODULE import *: the last one that is known; decoders are what matters
                     */
        const char *module = w->star[w->stars - 1];
        size_t m = strlen(module);
        char *p = pv_alloc(w, m + n + 2);
        if (!p)
            return &pv_unknown;
        memcpy(p, module, m);
        p[m] = '.';
        memcpy(p + m + 1, name, n);
        p[m + 1 + n] = 0;
        return pv_text(w, PV_NAME, p, m + 1 + n, NULL);
    }
    return &pv_unknown;
}

void pv_bind(struct pv_walk *w, const char *name, size_t n, const struct pv *v)
{
    struct pv_binding *b = binding(w, name, n, w->frame);
    if (b) {
        b->v = v;
        return;
    }
    /* an unknown value needs a binding only where it hides a known one */
    if (v->kind == PV_UNKNOWN && pv_lookup(w, name, n)->kind == PV_UNKNOWN)
        return;
    if (w->binds == PV_BINDINGS) {
        w->out->exhausted = true;
        return;
    }
    w->bind[w->binds++] = (struct pv_binding){name, (uint32_t)n, hash_of(name, n), v};
}

/* ---- statements ---- */

static size_t line_of(const struct pv_walk *w, size_t i)
{
    return i < w->s->count ? w->s->tok[i].line : 0;
}

static bool is(const struct pv_walk *w, const char *text)
{
    return py_is(w->s, w->at, text);
}

static enum py_kind kind(const struct pv_walk *w)
{
    return py_kind_at(w->s, w->at);
}

/* To the end of the simple statement: its NEWLINE or `;`, which is not taken. */
static void skip_statement(struct pv_walk *w, size_t end)
{
    unsigned depth = w->at < w->s->count ? w->s->tok[w->at].depth : 0;
    while (w->at < end && kind(w) != PY_NEWLINE &&
           !(is(w, ";") && (!depth || w->s->tok[w->at].depth == 0)))
        w->at++;
}

/* A dotted name in an import; its length in tokens is taken. */
static const struct pv *dotted(struct pv_walk *w, const struct pv *prefix)
{
    char name[256];
    size_t n = 0;
    if (prefix && prefix->n + 1 < sizeof name) {
        memcpy(name, prefix->p, prefix->n);
        n = prefix->n;
        name[n++] = '.';
    }
    while (kind(w) == PY_NAME || is(w, ".") || is(w, "...")) {
        const struct py_token *t = &w->s->tok[w->at];
        if (py_keyword(w->s, w->at) || t->len >= sizeof name - n)
            break;
        memcpy(name + n, w->s->text + t->at, t->len);
        n += t->len;
        w->at++;
    }
    return pv_copy(w, PV_NAME, name, n, NULL);
}

/* `as X`, or the given name; binds v to it. */
static void bind_as(struct pv_walk *w, const struct pv *v, const char *name, size_t n)
{
    if (is(w, "as") && py_kind_at(w->s, w->at + 1) == PY_NAME) {
        const struct py_token *t = &w->s->tok[w->at + 1];
        name = w->s->text + t->at;
        n = t->len;
        w->at += 2;
    }
    pv_bind(w, name, n, v);
}

static void import(struct pv_walk *w)
{
    do {
        w->at++;
        const struct pv *v = dotted(w, NULL);
        size_t top = 0;
        while (top < v->n && v->p[top] != '.')
            top++;
        if (!v->n || v->kind != PV_NAME)
            return;
        if (is(w, "as"))
            bind_as(w, v, NULL, 0);
        else /* import a.b binds a */
            bind_as(w, pv_text(w, PV_NAME, v->p, top, NULL), (const char *)v->p, top);
    } while (is(w, ","));
}

static void import_from(struct pv_walk *w)
{
    w->at++;
    const struct pv *module = dotted(w, NULL);
    if (!is(w, "import") || module->kind != PV_NAME)
        return;
    w->at++;
    if (is(w, "*")) {
        w->at++;
        if (w->stars < PV_STARS)
            w->star[w->stars++] = (const char *)module->p;
        return;
    }
    bool open = is(w, "(");
    w->at += open;
    while (kind(w) == PY_NAME) {
        const struct py_token *t = &w->s->tok[w->at];
        const struct pv *v = dotted(w, module);
        if (v->kind != PV_NAME || w->at == 0 || t == &w->s->tok[w->at])
            return;
        bind_as(w, v, w->s->text + t->at, t->len);
        if (!is(w, ","))
            break;
        w->at++;
    }
}

/* Assign v to the target that stands at tokens [from, to). */
static void assign(struct pv_walk *w, size_t from, size_t to, const struct pv *v)
{
    size_t names = 0;
    for (size_t i = from; i < to && i < w->s->count; i++) {
        if (py_is(w->s, i, ":")) { /* an annotation ends the target */
            to = i;
            break;
        }
        if (py_kind_at(w->s, i) == PY_NAME)
            names++;
        else if (!py_is(w->s, i, ",") && !py_is(w->s, i, "(") && !py_is(w->s, i, ")"))
            return; /* an attribute, a subscript, a star: nothing that a name stands for */
    }
    bool tuple = to - from > 1;
    size_t k = 0;
    for (size_t i = from; i < to; i++)
        if (py_kind_at(w->s, i) == PY_NAME) {
            const struct py_token *t = &w->s->tok[i];
            bool fits = v->kind == PV_LIST && v->n == names && k < v->n;
            pv_bind(w, w->s->text + t->at, t->len, !tuple ? v : fits ? v->item[k] : &pv_unknown);
            k++;
        }
}

static void expression_statement(struct pv_walk *w)
{
    size_t from = w->at;
    const struct pv *v = py_expressions(w);
    if (is(w, ":") && !w->fail) { /* annotation */
        w->at++;
        py_expression(w);
    }
    size_t target[8][2], targets = 0;
    while (!w->fail && is(w, "=") && targets < 8) {
        target[targets][0] = from;
        target[targets++][1] = w->at++;
        from = w->at;
        v = py_expressions(w);
    }
    for (size_t i = 0; i < targets && !w->fail; i++)
        assign(w, target[i][0], target[i][1], v);
    if (targets || w->fail || kind(w) != PY_OP)
        return;
    const struct py_token *t = &w->s->tok[w->at];
    if (t->len < 2 || w->s->text[t->at + t->len - 1] != '=' || is(w, "==") || is(w, "!=") ||
        is(w, "<=") || is(w, ">="))
        return;
    size_t to = w->at;
    bool plus = is(w, "+=");
    w->at++;
    const struct pv *more = py_expressions(w);
    assign(w, from, to, plus && !w->fail ? pv_add(w, v, more) : &pv_unknown);
}

/* def and class: the body is walked once with unknown parameters, as whatever calls it may not be
 * understood; a function's result is computed again at each call. */
static void definition(struct pv_walk *w, bool function)
{
    unsigned indent = w->s->tok[w->at].indent;
    size_t name = w->at + 1, colon = py_header_colon(w->s, w->at);
    if (!colon || py_kind_at(w->s, name) != PY_NAME) {
        w->fail = true;
        return;
    }
    size_t end = py_body_end(w->s, colon, indent), frame = w->frame, binds = w->binds;
    if (function) {
        struct pv *f = pv_alloc(w, sizeof *f);
        if (f) {
            *f = (struct pv){.kind = PV_FUNC, .i = (long long)(name + 1)};
            pv_bind(w, w->s->text + w->s->tok[name].at, w->s->tok[name].len, f);
            binds = w->binds;
        }
    }
    w->frame = w->binds;
    if (function)
        for (size_t i = name + 1; i < colon; i++)
            if (py_kind_at(w->s, i) == PY_NAME &&
                w->s->tok[i].depth == w->s->tok[name].depth + 1u &&
                (py_is(w->s, i - 1, "(") || py_is(w->s, i - 1, ",") || py_is(w->s, i - 1, "*")))
                pv_bind(w, w->s->text + w->s->tok[i].at, w->s->tok[i].len, &pv_unknown);
    w->at = colon + 1;
    if (w->depth < PV_DEPTH) {
        w->depth++;
        block(w, end);
        w->depth--;
    }
    w->at = end;
    w->frame = frame;
    w->binds = binds;
}

/* if, while, for, with, try ...: the header's expressions, then on with the body. */
static void header(struct pv_walk *w)
{
    bool with = is(w, "with"), loop = is(w, "for");
    size_t colon = py_header_colon(w->s, w->at);
    if (!colon) {
        w->fail = true;
        return;
    }
    w->at++;
    while (w->at < colon && !w->fail) {
        if (loop) {
            while (w->at < colon && !is(w, "in"))
                w->at++;
            loop = false;
        }
        if (is(w, ",") || is(w, "in") || is(w, "*")) {
            w->at++;
            continue;
        }
        if (w->at >= colon)
            break;
        size_t before = w->at;
        const struct pv *v = py_expression(w);
        if (is(w, "as")) {
            size_t from = ++w->at;
            while (w->at < colon && kind(w) == PY_NAME)
                w->at++;
            assign(w, from, w->at, with ? v : &pv_unknown);
        }
        if (w->at == before)
            w->fail = true;
    }
    w->fail = false;
    w->at = colon + 1;
}

static void statement(struct pv_walk *w, size_t end)
{
    static const char *const headers[] = {"if", "elif", "while", "for", "with", "except"};
    static const char *const words[] = {"assert", "raise", "del", "yield", "await"};
    w->steps++;
    w->fail = false;
    if (kind(w) == PY_NEWLINE || is(w, ";") || is(w, ":")) {
        w->at++;
        return;
    }
    if (is(w, "@") || is(w, "async") || is(w, "else") || is(w, "try") || is(w, "finally")) {
        w->at++; /* what follows is walked as a statement of its own */
        return;
    }
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        if (is(w, headers[i])) {
            header(w);
            if (w->fail)
                skip_statement(w, end);
            return;
        }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is(w, words[i])) {
            w->at++;
            break;
        }
    if (is(w, "def") || is(w, "class")) {
        definition(w, is(w, "def"));
    } else if (is(w, "import")) {
        import(w);
    } else if (is(w, "from")) {
        import_from(w);
    } else if (is(w, "return")) {
        w->at++;
        if (kind(w) != PY_NEWLINE && !is(w, ";")) {
            const struct pv *v = py_expressions(w);
            if (!w->fail && !w->ret)
                w->ret = v;
        }
    } else if (!is(w, "pass") && !is(w, "break") && !is(w, "continue") && !is(w, "global") &&
               !is(w, "nonlocal") && kind(w) != PY_NEWLINE) {
        expression_statement(w);
    }
    skip_statement(w, end);
}

static void block(struct pv_walk *w, size_t end)
{
    while (w->at < end && kind(w) != PY_END && !w->nomem) {
        if (w->steps > PYCALC_STEPS) {
            w->out->exhausted = true;
            w->at = end;
            return;
        }
        statement(w, end);
    }
}

/* Parameters by position, by name, or their default; what else there is stays unknown. */
static void bind_parameters(struct pv_walk *w, size_t at, bool lambda, const struct pv_arg *arg,
                            size_t args)
{
    size_t pos = 0;
    const char *stop = lambda ? ":" : ")";
    unsigned depth = w->s->tok[at].depth;
    for (w->at = at; kind(w) == PY_NAME && w->s->tok[w->at].depth == depth; pos++) {
        const struct py_token *t = &w->s->tok[w->at];
        const char *name = w->s->text + t->at;
        const struct pv *v = NULL;
        size_t k = 0;
        for (size_t i = 0; i < args; i++) {
            if (arg[i].kw ? arg[i].kw_n == t->len && !memcmp(arg[i].kw, name, t->len) : k == pos)
                v = arg[i].v;
            k += !arg[i].kw;
        }
        w->at++;
        if (!lambda && is(w, ":")) {
            w->at++;
            py_expression(w);
        }
        if (is(w, "=")) {
            w->at++;
            const struct pv *d = py_expression(w);
            v = v ? v : d;
        }
        pv_bind(w, name, t->len, v ? v : &pv_unknown);
        if (w->fail || is(w, stop) || !is(w, ","))
            return;
        w->at++;
    }
}

const struct pv *pv_call_own(struct pv_walk *w, const struct pv *f, const struct pv_arg *arg,
                             size_t args)
{
    size_t at = w->at, frame = w->frame, binds = w->binds, params = (size_t)f->i;
    const struct pv *ret = w->ret, *v = &pv_unknown;
    bool fail = w->fail;
    if (w->calls >= PV_CALLS || w->steps > PYCALC_STEPS || w->depth >= PV_DEPTH)
        return v;
    for (unsigned i = 0; i < w->calls; i++)
        if (w->active[i] == f->i)
            return v; /* recursion: whatever it computes is no constant of this text */
    w->active[w->calls++] = f->i;
    w->depth++;
    w->frame = w->binds;
    w->ret = NULL;
    w->fail = false;
    if (f->lambda) {
        bind_parameters(w, params, true, arg, args);
        if (is(w, ":") && !w->fail) {
            w->at++;
            v = py_expression(w);
        }
    } else if (py_is(w->s, params, "(")) {
        w->at = params;
        size_t colon = py_header_colon(w->s, w->at);
        unsigned indent = w->s->tok[params].indent;
        bind_parameters(w, params + 1, false, arg, args);
        if (colon) {
            w->at = colon + 1;
            block(w, py_body_end(w->s, colon, indent));
            v = w->ret ? w->ret : v;
        }
    }
    w->depth--;
    w->calls--;
    w->at = at;
    w->frame = frame;
    w->binds = binds;
    w->ret = ret;
    w->fail = fail;
    return v;
}

/* The text of the module's own documentation is a place to keep a payload in: __doc__. */
static void bind_doc(struct pv_walk *w)
{
    size_t i = 0;
    while (py_kind_at(w->s, i) == PY_NEWLINE)
        i++;
    if (py_kind_at(w->s, i) != PY_STRING || py_kind_at(w->s, i + 1) != PY_NEWLINE)
        return;
    uint8_t *p = pv_alloc(w, w->s->tok[i].len + 1u);
    size_t n;
    if (p && py_string(w->s, i, p, &n)) {
        p[n] = 0;
        pv_bind(w, "__doc__", 7, pv_text(w, PV_STR, p, n, NULL));
    }
}

enum err_code pycalc(struct pycalc *c, const struct py_source *s, const uint8_t *file, size_t n,
                     size_t cap, struct err *e)
{
    struct pv_walk w = {.out = c, .s = s, .cap = cap};
    struct pv_origin self = {.family = "self", .coded = n, .result = -1};
    struct pv self_text = {.kind = PV_BYTES, .p = file, .n = n, .from = &self};
    *c = (struct pycalc){0};
    w.file = &self_text;
    if (!(w.bind = calloc(PV_BINDINGS, sizeof *w.bind)))
        return err_nomem(e, "names", PV_BINDINGS * sizeof *w.bind);
    bind_doc(&w);
    block(&w, s->count);
    if (c->exhausted)
        pv_note(&w, line_of(&w, w.at), "the script is too large to be followed to its end");
    free(w.bind);
    c->own = w.block;
    if (!w.nomem)
        return ERR_OK;
    pycalc_free(c);
    return err_nomem(e, "values of the script", w.bytes);
}

void pycalc_free(struct pycalc *c)
{
    for (struct pv_block *b = c->own, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *c = (struct pycalc){0};
}
