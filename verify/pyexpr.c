/* pyexpr.c - see pyexpr.h. Precedence climbing over Python's operators. */
#include "verify/pyexpr.h"

#include <stdlib.h>
#include <string.h>

enum { ITEMS = 4096 }; /* of one list literal; a longer one is unknown */

static bool is(const struct pv_walk *w, const char *text)
{
    return py_is(w->s, w->at, text);
}

static enum py_kind kind(const struct pv_walk *w)
{
    return py_kind_at(w->s, w->at);
}

static size_t line(const struct pv_walk *w)
{
    return w->at < w->s->count ? w->s->tok[w->at].line : 0;
}

/* To behind the bracket that closes the one whose inner depth is `depth`. */
static void skip_to_close(struct pv_walk *w, unsigned depth)
{
    while (kind(w) != PY_END && w->s->tok[w->at].depth >= depth)
        w->at++;
    /* a closing bracket counts as outside of what it closes */
    if (kind(w) != PY_END && w->at)
        w->at++;
}

/* ---- atoms ---- */

/* Neighbouring literals are one. An f-string with braces makes all of it unknown. */
static const struct pv *strings(struct pv_walk *w)
{
    size_t total = 0, first = w->at, n = 0;
    bool bytes = w->s->tok[first].flags & PY_BYTES, known = true;
    for (size_t i = first; py_kind_at(w->s, i) == PY_STRING; i++)
        total += w->s->tok[i].len;
    uint8_t *p = pv_alloc(w, total + 1);
    for (; kind(w) == PY_STRING; w->at++) {
        size_t got = 0;
        known = known && p && (w->s->tok[w->at].flags & PY_BYTES) == (bytes ? PY_BYTES : 0) &&
                py_string(w->s, w->at, p + n, &got);
        n += got;
    }
    if (!known)
        return &pv_unknown;
    p[n] = 0;
    return pv_text(w, bytes ? PV_BYTES : PV_STR, p, n, NULL);
}

static const struct pv *number(struct pv_walk *w)
{
    const struct py_token *t = &w->s->tok[w->at++];
    char text[40];
    size_t n = 0;
    if (t->len >= sizeof text)
        return &pv_unknown;
    for (uint32_t i = 0; i < t->len; i++)
        if (w->s->text[t->at + i] != '_')
            text[n++] = w->s->text[t->at + i];
    text[n] = 0;
    bool prefix = n > 2 && *text == '0' && strchr("xXoObB", text[1]);
    int base = !prefix ? 10 : (text[1] | 0x20) == 'x' ? 16 : (text[1] | 0x20) == 'o' ? 8 : 2;
    char *end;
    long long v = strtoll(text + (prefix ? 2 : 0), &end, base);
    return *end || n > 18 + (prefix ? 2u : 0) ? &pv_unknown : pv_int(w, v);
}

/* What stands in brackets up to `close`: items, or a comprehension, which is unknown. */
static const struct pv *items(struct pv_walk *w, const char *close, bool tuple, bool dict)
{
    unsigned depth = w->at < w->s->count ? w->s->tok[w->at].depth : 0;
    const struct pv **item = NULL, *v = &pv_unknown;
    size_t n = 0, cap = 0;
    bool known = true, comma = false;
    while (kind(w) != PY_END && !is(w, close) && !w->fail) {
        if (is(w, "*") || is(w, "**")) {
            w->at++;
            known = false;
        }
        v = py_expression(w);
        if (n + 2 > cap && cap < ITEMS) {
            cap = cap ? 2 * cap : 16;
            const struct pv **q = realloc(item, cap * sizeof *q);
            if (!q) {
                w->nomem = true;
                break;
            }
            item = q;
        }
        known = known && n + 2 <= cap;
        if (known)
            item[n++] = v;
        if (dict && is(w, ":")) {
            w->at++;
            const struct pv *value = py_expression(w);
            if (known)
                item[n++] = value;
        } else {
            dict = dict && !n;
        }
        if (is(w, "for") || is(w, "async")) {
            known = false;
            break;
        }
        if (!is(w, ","))
            break;
        comma = true;
        w->at++;
    }
    if (w->fail || !is(w, close)) {
        known = known && !w->fail && is(w, close);
        skip_to_close(w, depth);
    } else {
        w->at++;
    }
    if (known && tuple && !comma && n == 1)
        v = item[0]; /* just brackets */
    else
        v = !known ? &pv_unknown
            : dict ? pv_list(w, PV_DICT, item, n / 2)
                   : pv_list(w, PV_LIST, item, n);
    free(item);
    return v;
}

static const struct pv *lambda(struct pv_walk *w)
{
    struct pv *f = pv_alloc(w, sizeof *f);
    unsigned depth = w->s->tok[w->at].depth;
    w->at++;
    if (f)
        *f = (struct pv){.kind = PV_FUNC, .lambda = true, .i = (long long)w->at};
    while (kind(w) != PY_END && kind(w) != PY_NEWLINE && w->s->tok[w->at].depth >= depth &&
           !(is(w, ":") && w->s->tok[w->at].depth == depth))
        w->at++;
    if (!is(w, ":")) {
        w->fail = true;
        return &pv_unknown;
    }
    w->at++;
    py_expression(w);
    return f ? f : &pv_unknown;
}

static const struct pv *atom(struct pv_walk *w)
{
    const struct py_token *t = &w->s->tok[w->at < w->s->count ? w->at : w->s->count - 1];
    const char *close = is(w, "(") ? ")" : is(w, "[") ? "]" : is(w, "{") ? "}" : NULL;
    if (close) {
        bool tuple = *close == ')', dict = *close == '}';
        w->at++;
        return items(w, close, tuple, dict);
    }
    if (kind(w) == PY_STRING)
        return strings(w);
    if (kind(w) == PY_NUMBER)
        return number(w);
    if (is(w, "...") || is(w, "None") || is(w, "True") || is(w, "False")) {
        bool none = is(w, "None"), one = is(w, "True"), zero = is(w, "False");
        static const struct pv none_value = {.kind = PV_NONE};
        w->at++;
        return none ? &none_value : one || zero ? pv_int(w, one) : &pv_unknown;
    }
    if (kind(w) == PY_NAME && !py_keyword(w->s, w->at)) {
        w->at++;
        if (is(w, ":=")) {
            w->at++;
            const struct pv *v = py_expression(w);
            pv_bind(w, w->s->text + t->at, t->len, v);
            return v;
        }
        return pv_lookup(w, w->s->text + t->at, t->len);
    }
    if (is(w, "yield") || is(w, "await")) {
        w->at++;
        return is(w, ")") || kind(w) == PY_NEWLINE ? &pv_unknown : py_expression(w);
    }
    w->fail = true;
    return &pv_unknown;
}

/* ---- trailers ---- */

static const struct pv *call(struct pv_walk *w, const struct pv *f)
{
    struct pv_arg arg[PV_ARGS];
    size_t args = 0, where = line(w);
    unsigned depth;
    w->at++;
    depth = w->at < w->s->count ? w->s->tok[w->at].depth : 0;
    while (kind(w) != PY_END && !is(w, ")") && !w->fail) {
        struct pv_arg a = {.v = &pv_unknown};
        bool star = is(w, "*") || is(w, "**");
        w->at += star;
        if (kind(w) == PY_NAME && py_is(w->s, w->at + 1, "=")) {
            a.kw = w->s->text + w->s->tok[w->at].at;
            a.kw_n = w->s->tok[w->at].len;
            w->at += 2;
        }
        a.v = py_expression(w);
        if (star)
            a.v = &pv_unknown;
        if (is(w, "for") || is(w, "async")) { /* a generator; its brackets are the call's */
            a.v = &pv_unknown;
            break;
        }
        if (args < PV_ARGS)
            arg[args++] = a;
        if (!is(w, ","))
            break;
        w->at++;
    }
    if (w->fail || !is(w, ")")) {
        bool fail = w->fail;
        skip_to_close(w, depth);
        w->fail = fail && kind(w) == PY_END;
        return &pv_unknown;
    }
    w->at++;
    return pv_call(w, f, arg, args, where);
}

static const struct pv *subscript(struct pv_walk *w, const struct pv *v)
{
    static const struct pv none = {.kind = PV_NONE};
    const struct pv *part[3] = {&none, &none, &none};
    size_t k = 0;
    bool colon = false, known = true;
    w->at++;
    unsigned depth = w->at < w->s->count ? w->s->tok[w->at].depth : 0;
    while (kind(w) != PY_END && !is(w, "]") && !w->fail) {
        if (is(w, ":")) {
            colon = true;
            k++;
            w->at++;
            continue;
        }
        if (is(w, ",") || is(w, "*")) { /* several dimensions: no text */
            known = false;
            w->at++;
            continue;
        }
        const struct pv *p = py_expression(w);
        if (k < 3)
            part[k] = p;
    }
    if (w->fail || !is(w, "]")) {
        skip_to_close(w, depth);
        return &pv_unknown;
    }
    w->at++;
    return known && k < 3 ? pv_slice(w, v, part, colon) : &pv_unknown;
}

static const struct pv *postfix(struct pv_walk *w)
{
    const struct pv *v = atom(w);
    while (!w->fail && w->steps <= PYCALC_STEPS) {
        w->steps++;
        if (is(w, "(")) {
            v = call(w, v);
        } else if (is(w, "[")) {
            v = subscript(w, v);
        } else if (is(w, ".") && py_kind_at(w->s, w->at + 1) == PY_NAME) {
            const struct py_token *t = &w->s->tok[w->at + 1];
            w->at += 2;
            v = pv_attribute(w, v, w->s->text + t->at, t->len);
        } else {
            break;
        }
    }
    return v;
}

/* ---- operators ---- */

enum { OR = 1, AND, NOT, COMPARE, BITOR, XOR, BITAND, SHIFT, SUM, PRODUCT, UNARY, POWER };

static int precedence(const struct pv_walk *w)
{
    static const struct {
        const char *text;
        int level;
    } operators[] = {
        {"or", OR},      {"and", AND},   {"in", COMPARE}, {"is", COMPARE}, {"not", COMPARE},
        {"<", COMPARE},  {">", COMPARE}, {"==", COMPARE}, {">=", COMPARE}, {"<=", COMPARE},
        {"!=", COMPARE}, {"|", BITOR},   {"^", XOR},      {"&", BITAND},   {"<<", SHIFT},
        {">>", SHIFT},   {"+", SUM},     {"-", SUM},      {"*", PRODUCT},  {"/", PRODUCT},
        {"//", PRODUCT}, {"%", PRODUCT}, {"@", PRODUCT},  {"**", POWER},
    };
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (is(w, operators[i].text))
            return operators[i].level;
    return 0;
}

static const struct pv *integers(struct pv_walk *w, char op, bool twice, long long x, long long y)
{
    long long r = 0;
    bool bad = false;
    switch (op) {
    case '-':
        bad = __builtin_sub_overflow(x, y, &r);
        break;
    case '*':
        if (twice) { /* power */
            r = 1;
            bad = y < 0 || y > 64;
            for (long long i = 0; i < y && !bad; i++)
                bad = __builtin_mul_overflow(r, x, &r);
        } else {
            bad = __builtin_mul_overflow(x, y, &r);
        }
        break;
    case '/':
        bad = !twice || x < 0 || y <= 0;
        r = bad ? 0 : x / y;
        break;
    case '%':
        bad = x < 0 || y <= 0;
        r = bad ? 0 : x % y;
        break;
    case '|':
        r = x | y;
        break;
    case '&':
        r = x & y;
        break;
    case '^':
        r = x ^ y;
        break;
    case '<':
        bad = !twice || x < 0 || y < 0 || y > 62 || x > INT64_MAX >> y;
        r = bad ? 0 : x << y;
        break;
    case '>':
        bad = !twice || x < 0 || y < 0 || y > 62;
        r = bad ? 0 : x >> y;
        break;
    default:
        bad = true;
    }
    return bad ? &pv_unknown : pv_int(w, r);
}

static const struct pv *repeat(struct pv_walk *w, const struct pv *v, long long times)
{
    size_t n = times > 0 ? (size_t)times : 0;
    if (v->n && n > w->cap / v->n)
        return &pv_unknown;
    uint8_t *p = pv_alloc(w, v->n * n + 1);
    if (!p)
        return &pv_unknown;
    for (size_t i = 0; i < n; i++)
        memcpy(p + i * v->n, v->p, v->n);
    p[v->n * n] = 0;
    return pv_text(w, v->kind, p, v->n * n, v->from);
}

static const struct pv *apply(struct pv_walk *w, char op, bool twice, const struct pv *a,
                              const struct pv *b)
{
    long long x, y;
    if (op == '+')
        return pv_add(w, a, b);
    if (pv_number(a, &x) && pv_number(b, &y))
        return integers(w, op, twice, x, y);
    if (op == '*' && !twice && pv_is_text(a) && pv_number(b, &y))
        return repeat(w, a, y);
    if (op == '*' && !twice && pv_is_text(b) && pv_number(a, &x))
        return repeat(w, b, x);
    if (op == '/' && !twice && (a->kind == PV_PATH || a->kind == PV_UNKNOWN) && b->kind == PV_STR)
        return pv_text(w, PV_PATH, b->p, b->n, NULL); /* pathlib: only the last part matters */
    return &pv_unknown;
}

static const struct pv *operation(struct pv_walk *w, int least);

static const struct pv *unary(struct pv_walk *w)
{
    if (is(w, "-") || is(w, "+") || is(w, "~") || is(w, "not")) {
        bool minus = is(w, "-"), invert = is(w, "~"), plus = is(w, "+");
        long long i;
        int level = is(w, "not") ? NOT : UNARY;
        w->at++;
        const struct pv *v = operation(w, level);
        if (!pv_number(v, &i) || i == INT64_MIN || level == NOT)
            return &pv_unknown;
        return minus ? pv_int(w, -i) : invert ? pv_int(w, ~i) : plus ? v : &pv_unknown;
    }
    return postfix(w);
}

static const struct pv *operation(struct pv_walk *w, int least)
{
    if (w->depth >= PV_DEPTH || w->steps > PYCALC_STEPS) {
        w->fail = true;
        return &pv_unknown;
    }
    w->depth++;
    const struct pv *a = unary(w);
    int level;
    while (!w->fail && (level = precedence(w)) && level >= least) {
        const struct py_token *t = &w->s->tok[w->at];
        char op = w->s->text[t->at];
        bool twice = t->len == 2, word = kind(w) == PY_NAME;
        w->steps++;
        w->at++;
        if (word && (is(w, "in") || is(w, "not"))) /* not in, is not */
            w->at++;
        const struct pv *b = operation(w, level == POWER ? POWER : level + 1);
        a = level <= COMPARE || word ? &pv_unknown : apply(w, op, twice, a, b);
    }
    w->depth--;
    return a;
}

static const struct pv *conditional(struct pv_walk *w)
{
    const struct pv *v = operation(w, OR);
    long long i;
    if (w->fail || !is(w, "if"))
        return v;
    w->at++;
    const struct pv *test = operation(w, OR);
    if (w->fail || !is(w, "else"))
        return &pv_unknown; /* the `if` of a comprehension ends here as well */
    w->at++;
    const struct pv *other = py_expression(w);
    return !pv_number(test, &i) ? &pv_unknown : i ? v : other;
}

const struct pv *py_expression(struct pv_walk *w)
{
    if (w->depth >= PV_DEPTH) {
        w->fail = true;
        return &pv_unknown;
    }
    w->depth++;
    const struct pv *v = is(w, "lambda") ? lambda(w) : conditional(w);
    w->depth--;
    return v;
}

const struct pv *py_expressions(struct pv_walk *w)
{
    const struct pv *item[16], *v;
    size_t n = 0;
    if (is(w, "*")) {
        w->at++;
        n = 16; /* a starred item: of unknown length */
    }
    v = py_expression(w);
    if (w->fail || !is(w, ","))
        return v;
    while (!w->fail && is(w, ",")) {
        if (n < 16)
            item[n] = v;
        n += n < 17;
        w->at++;
        if (kind(w) == PY_NEWLINE || kind(w) == PY_END || is(w, "=") || is(w, ")") || is(w, ";"))
            return n <= 16 ? pv_list(w, PV_LIST, item, n) : &pv_unknown;
        w->at += is(w, "*");
        v = py_expression(w);
    }
    if (n >= 16)
        return &pv_unknown;
    item[n++] = v;
    return pv_list(w, PV_LIST, item, n);
}
