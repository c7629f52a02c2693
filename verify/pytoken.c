/* pytoken.c - see pytoken.h. */
#include "verify/pytoken.h"

#include <stdlib.h>
#include <string.h>

struct scan {
    struct py_source *s;
    size_t at, line;
    size_t cap;
    unsigned depth;
    unsigned indent;
    bool fresh; /* nothing of this logical line yet */
    bool nomem;
};

static unsigned char peek(const struct scan *c, size_t ahead)
{
    return c->at + ahead < c->s->n ? (unsigned char)c->s->text[c->at + ahead] : 0;
}

static bool name_start(unsigned char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || ch >= 0x80;
}

static bool digit(unsigned char ch)
{
    return ch >= '0' && ch <= '9';
}

static void emit(struct scan *c, enum py_kind kind, size_t from, unsigned flags, size_t line)
{
    struct py_source *s = c->s;
    if (s->count == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 1024;
        struct py_token *t = realloc(s->tok, cap * sizeof *t);
        if (!t) {
            c->nomem = true;
            return;
        }
        s->tok = t;
        c->cap = cap;
    }
    s->tok[s->count++] = (struct py_token){
        .at = (uint32_t)from,
        .len = (uint32_t)(c->at - from),
        .line = (uint32_t)line,
        .indent = (uint16_t)(c->indent > UINT16_MAX ? UINT16_MAX : c->indent),
        .depth = (uint16_t)(c->depth > UINT16_MAX ? UINT16_MAX : c->depth),
        .kind = (uint8_t)kind,
        .flags = (uint8_t)flags,
    };
}

static void bad(struct scan *c, size_t line)
{
    if (!c->s->bad_line)
        c->s->bad_line = line;
}

/* One line end: \n, \r\n or \r. */
static bool newline(struct scan *c)
{
    unsigned char ch = peek(c, 0);
    if (ch != '\n' && ch != '\r')
        return false;
    c->at += ch == '\r' && peek(c, 1) == '\n' ? 2 : 1;
    c->line++;
    return true;
}

/* Flags of a string that starts here, or -1; *prefix is how many letters come before the quote. */
static int string_start(const struct scan *c, size_t *prefix)
{
    int flags = 0;
    for (*prefix = 0; *prefix < 3; ++*prefix) {
        unsigned char ch = peek(c, *prefix);
        if (ch == '"' || ch == '\'')
            return flags;
        switch (ch | 0x20) {
        case 'r':
            flags |= PY_RAW;
            break;
        case 'b':
            flags |= PY_BYTES;
            break;
        case 'f':
        case 't':
            flags |= PY_FORMAT;
            break;
        case 'u':
            break;
        default:
            return -1;
        }
    }
    return peek(c, 3) == '"' || peek(c, 3) == '\'' ? flags : -1;
}

static void string(struct scan *c, size_t prefix, int flags, unsigned nested);

/* The braces of an f-string, from behind the opening one to the closing one. */
static void braces(struct scan *c, unsigned char quote, bool triple, unsigned nested)
{
    unsigned open = 1;
    while (c->at < c->s->n && open) {
        unsigned char ch = peek(c, 0);
        size_t prefix;
        int flags;
        if (ch == '{' || ch == '[' || ch == '(')
            open++;
        if (ch == '}' || ch == ']' || ch == ')')
            open--;
        if (!triple && (ch == '\n' || ch == '\r') && !c->s->new_syntax)
            c->s->new_syntax = c->line;
        if (newline(c))
            continue;
        if (ch == '#' && open == 1) { /* a comment in braces: 3.12 as well, rare enough */
            while (c->at < c->s->n && peek(c, 0) != '\n' && peek(c, 0) != '\r')
                c->at++;
            continue;
        }
        if (open && nested < 16 && (flags = string_start(c, &prefix)) >= 0 &&
            (prefix == 0 || c->at == 0 || !name_start((unsigned char)c->s->text[c->at - 1]))) {
            bool outer = peek(c, prefix) == quote && !(triple && peek(c, prefix + 1) != quote);
            if (outer && !c->s->new_syntax)
                c->s->new_syntax = c->line;
            string(c, prefix, flags, nested + 1);
            continue;
        }
        if (ch == '\\' && !c->s->new_syntax)
            c->s->new_syntax = c->line;
        c->at++;
    }
}

static void string(struct scan *c, size_t prefix, int flags, unsigned nested)
{
    size_t line = c->line;
    unsigned char quote = peek(c, prefix);
    bool triple = peek(c, prefix + 1) == quote && peek(c, prefix + 2) == quote;
    c->at += prefix + (triple ? 3 : 1);
    while (c->at < c->s->n) {
        unsigned char ch = peek(c, 0);
        if (ch == '\\') {
            c->at++;
            if (!newline(c) && c->at < c->s->n)
                c->at++;
            continue;
        }
        if (ch == quote && (!triple || (peek(c, 1) == quote && peek(c, 2) == quote))) {
            c->at += triple ? 3 : 1;
            return;
        }
        if ((ch == '\n' || ch == '\r') && !triple) {
            bad(c, line);
            return;
        }
        if (newline(c))
            continue;
        c->at++;
        if (ch == '{' && (flags & PY_FORMAT)) {
            if (peek(c, 0) == '{')
                c->at++;
            else
                braces(c, quote, triple, nested);
        }
    }
    bad(c, line);
}

static void number(struct scan *c)
{
    bool hex = peek(c, 0) == '0' && (peek(c, 1) | 0x20) == 'x';
    for (;; c->at++) {
        unsigned char ch = peek(c, 0);
        bool sign =
            (ch == '+' || ch == '-') && !hex && c->at > 0 && (c->s->text[c->at - 1] | 0x20) == 'e';
        if (!digit(ch) && ch != '.' && !sign && (!name_start(ch) || ch >= 0x80))
            return;
        /* "1if x else y" is legal: a keyword ends the number */
        if (!hex && name_start(ch) && (ch | 0x20) != 'e' && (ch | 0x20) != 'j' && ch != '_' &&
            (ch | 0x20) != 'o' && (ch | 0x20) != 'b' && (ch | 0x20) != 'x')
            return;
        if (!hex && (ch | 0x20) == 'e' && !digit(peek(c, 1)) && peek(c, 1) != '+' &&
            peek(c, 1) != '-')
            return;
        if (!hex && (ch == 'o' || ch == 'b') && c->s->text[c->at - 1] != '0')
            return;
    }
}

static void operators(struct scan *c)
{
    static const char *const longer[] = {
        "**=", "//=", ">>=", "<<=", "...", "!=", "->", ":=", "==", "<=", ">=", "**",
        "//",  "<<",  ">>",  "+=",  "-=",  "*=", "/=", "%=", "&=", "|=", "^=", "@="};
    size_t from = c->at, left = c->s->n - c->at;
    unsigned char ch = peek(c, 0);
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
        size_t n = strlen(longer[i]);
        if (n <= left && !memcmp(c->s->text + from, longer[i], n)) {
            c->at += n;
            emit(c, PY_OP, from, 0, c->line);
            return;
        }
    }
    c->at++;
    if ((ch == ')' || ch == ']' || ch == '}') && c->depth)
        c->depth--;
    else if (ch == ')' || ch == ']' || ch == '}' || !strchr("+-*/%@&|^~<>()[]{},:;.=!", ch) || !ch)
        bad(c, c->line);
    emit(c, PY_OP, from, 0, c->line);
    if (ch == '(' || ch == '[' || ch == '{')
        c->depth++;
}

/* Blanks at the start of a physical line count as indent when a logical line starts there. */
static void blanks(struct scan *c)
{
    unsigned column = 0;
    for (;; c->at++) {
        unsigned char ch = peek(c, 0);
        if (ch == '\t')
            column = (column / 8 + 1) * 8;
        else if (ch == ' ')
            column++;
        else if (ch != '\f')
            break;
    }
    if (c->fresh)
        c->indent = column;
}

static void token(struct scan *c)
{
    unsigned char ch = peek(c, 0);
    size_t from = c->at, prefix, line = c->line;
    int flags;
    if (ch == ' ' || ch == '\t' || ch == '\f') {
        c->at++;
    } else if (ch == '#') {
        while (c->at < c->s->n && peek(c, 0) != '\n' && peek(c, 0) != '\r')
            c->at++;
    } else if (ch == '\n' || ch == '\r') {
        if (!c->depth && !c->fresh) {
            emit(c, PY_NEWLINE, from, 0, line);
            c->fresh = true;
        }
        newline(c);
        blanks(c);
    } else if (ch == '\\' && (peek(c, 1) == '\n' || peek(c, 1) == '\r')) {
        c->at++;
        newline(c);
    } else if ((flags = string_start(c, &prefix)) >= 0) {
        string(c, prefix, flags, 0);
        if (c->at - from >= prefix + 6 &&
            c->s->text[from + prefix + 1] == c->s->text[from + prefix] &&
            c->s->text[from + prefix + 2] == c->s->text[from + prefix])
            flags |= PY_TRIPLE;
        emit(c, PY_STRING, from, (unsigned)flags, line);
        c->fresh = false;
    } else if (name_start(ch)) {
        while (name_start(peek(c, 0)) || digit(peek(c, 0)))
            c->at++;
        emit(c, PY_NAME, from, 0, line);
        c->fresh = false;
    } else if (digit(ch) || (ch == '.' && digit(peek(c, 1)))) {
        number(c);
        c->at += c->at == from; /* never stand still */
        emit(c, PY_NUMBER, from, 0, line);
        c->fresh = false;
    } else {
        operators(c);
        c->fresh = false;
    }
}

enum err_code py_scan(struct py_source *s, const char *text, size_t n, struct err *e)
{
    *s = (struct py_source){.text = text, .n = n < UINT32_MAX ? n : UINT32_MAX};
    struct scan c = {.s = s, .line = 1, .fresh = true};
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        c.at = 3;
    blanks(&c);
    while (c.at < s->n && !c.nomem && !s->cut) {
        token(&c);
        s->cut = s->count >= PY_TOKENS_MAX;
    }
    if (c.depth)
        bad(&c, c.line);
    s->lines = n && s->n == n && text[n - 1] != '\n' ? c.line : c.line - 1;
    if (!c.fresh)
        emit(&c, PY_NEWLINE, c.at, 0, c.line);
    emit(&c, PY_END, c.at, 0, c.line);
    if (!c.nomem)
        return ERR_OK;
    py_free(s);
    return err_nomem(e, "tokens", c.cap * sizeof *s->tok);
}

void py_free(struct py_source *s)
{
    free(s->tok);
    *s = (struct py_source){0};
}

enum py_kind py_kind_at(const struct py_source *s, size_t i)
{
    return i < s->count ? (enum py_kind)s->tok[i].kind : PY_END;
}

bool py_is(const struct py_source *s, size_t i, const char *text)
{
    size_t n = strlen(text);
    return i < s->count && s->tok[i].len == n && s->tok[i].kind != PY_STRING &&
           !memcmp(s->text + s->tok[i].at, text, n);
}

size_t py_header_colon(const struct py_source *s, size_t i)
{
    unsigned depth = i < s->count ? s->tok[i].depth : 0;
    for (; i < s->count && s->tok[i].kind != PY_NEWLINE; i++)
        if (s->tok[i].depth == depth && py_is(s, i, ":"))
            return i;
    return 0;
}

size_t py_body_end(const struct py_source *s, size_t colon, unsigned indent)
{
    size_t i = colon + 1;
    if (py_kind_at(s, i) != PY_NEWLINE) { /* on the same line */
        while (i + 1 < s->count && s->tok[i].kind != PY_NEWLINE)
            i++;
        return i;
    }
    while (i + 1 < s->count && !(s->tok[i].kind == PY_NEWLINE && s->tok[i + 1].indent <= indent))
        i++;
    return i;
}

size_t py_utf8(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                 : p[0] < 0xf5 ? 4
                               : 0;
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool outside = (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf4 && p[1] >= 0x90);
    return len > 1 && (overlong || outside) ? 0 : len;
}

char *py_printable(char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0, len; i < n; i += len ? len : 1) {
        len = py_utf8((const uint8_t *)s + i, n - i);
        if (!len || (unsigned char)s[i] < ' ' || s[i] == 0x7f)
            s[i] = '?';
    }
    return s;
}

bool py_keyword(const struct py_source *s, size_t i)
{
    static const char *const words[] = {
        "and",  "as",     "assert", "async",  "await", "break",    "class", "continue", "def",
        "del",  "elif",   "else",   "except", "False", "finally",  "for",   "from",     "global",
        "if",   "import", "in",     "is",     "None",  "nonlocal", "not",   "lambda",   "or",
        "pass", "raise",  "return", "True",   "try",   "while",    "with",  "yield"};
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        if (py_is(s, i, words[k]))
            return true;
    return false;
}

/* ---- literal values ---- */

static int hexval(unsigned char ch)
{
    return digit(ch)                                  ? ch - '0'
           : (ch | 0x20) >= 'a' && (ch | 0x20) <= 'f' ? (ch | 0x20) - 'a' + 10
                                                      : -1;
}

static size_t utf8(uint8_t *out, unsigned long cp)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i; i--, cp >>= 6)
        out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)(lead[n] | cp);
    return n;
}

/* One escape, *p behind the backslash. */
static bool escape(const char **p, const char *end, bool bytes, uint8_t *out, size_t *n)
{
    static const char plain[] = "\\'\"abfnrtv", means[] = "\\'\"\a\b\f\n\r\t\v";
    unsigned char ch = (unsigned char)*(*p)++;
    const char *hit = ch ? strchr(plain, ch) : NULL;
    unsigned long cp = 0;
    size_t digits = ch == 'x' ? 2 : bytes ? 0 : ch == 'u' ? 4 : ch == 'U' ? 8 : 0;
    if (hit) {
        out[(*n)++] = (uint8_t)means[hit - plain];
    } else if (ch >= '0' && ch <= '7') {
        cp = ch - '0';
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            cp = cp * 8 + (unsigned long)(*(*p)++ - '0');
        if (bytes)
            out[(*n)++] = (uint8_t)cp;
        else
            *n += utf8(out + *n, cp);
    } else if (digits) {
        if ((size_t)(end - *p) < digits)
            return false;
        for (size_t i = 0; i < digits; i++, ++*p) {
            int v = hexval((unsigned char)**p);
            if (v < 0)
                return false;
            cp = cp << 4 | (unsigned long)v;
        }
        if (cp > 0x10ffff)
            return false;
        if (bytes)
            out[(*n)++] = (uint8_t)cp;
        else
            *n += utf8(out + *n, cp);
    } else if (ch == 'N' && !bytes) {
        return false;
    } else if (ch == '\r') {
        *p += *p < end && **p == '\n';
    } else if (ch != '\n') { /* an unknown escape stays as it is */
        out[(*n)++] = '\\';
        out[(*n)++] = ch;
    }
    return true;
}

bool py_string(const struct py_source *s, size_t i, uint8_t *out, size_t *n)
{
    const struct py_token *t = &s->tok[i];
    const char *p = s->text + t->at, *end = p + t->len;
    size_t quotes = t->flags & PY_TRIPLE ? 3 : 1;
    *n = 0;
    while (p < end && *p != '"' && *p != '\'')
        p++;
    if ((size_t)(end - p) < 2 * quotes || end[-1] != *p)
        return false;
    p += quotes;
    end -= quotes;
    while (p < end) {
        unsigned char ch = (unsigned char)*p++;
        if (ch == '\\' && !(t->flags & PY_RAW)) {
            if (p == end || !escape(&p, end, t->flags & PY_BYTES, out, n))
                return false;
        } else if (ch == '\r') { /* a line end in the source is a newline in the value */
            out[(*n)++] = '\n';
            p += p < end && *p == '\n';
        } else if ((t->flags & PY_FORMAT) && (ch == '{' || ch == '}')) {
            if (p == end || *p != (char)ch)
                return false;
            out[(*n)++] = ch;
            p++;
        } else {
            out[(*n)++] = ch;
        }
    }
    return true;
}
