/* pymarshal.c - see pymarshal.h. */
#include "verify/pymarshal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "verify/pytoken.h"

enum { SHOWN = 400 }; /* bytes of one text constant in a listing */

/* What an object is, whatever spelling of it the stream has. */
enum kind { NOTHING, NAMED, NUMBER, TEXT, BYTES, LIST, CODE, REF, END };

struct node {
    uint8_t kind;
    char type;      /* as in the stream, without its flag */
    uint32_t n;     /* bytes of TEXT, BYTES and NUMBER (as it lies there); of a REF: its index */
    uint32_t line;  /* of CODE: its first line; of a long NUMBER: 1 when it is negative */
    uint32_t child; /* the first part, 0: none */
    uint32_t next;  /* the next part of the same whole, 0: none */
    const uint8_t *p;
};

/* Code objects over the versions: integers in front, then eight objects (bytecode, constants,
 * names, lists of variables, the file, the name), the first line, and one or two objects behind it.
 */
static const struct layout {
    const char *version;
    unsigned ints, file, after;
} layouts[] = {
    {"Python 3.11 or newer", 5, 5, 2},
    {"Python 3.8 to 3.10", 6, 6, 1},
    {"Python 3.7 or older", 5, 6, 1},
};
enum { PART_CODE, PART_CONSTS, PART_NAMES, PART_NAME = 7, PARTS };

struct walk {
    struct reader r;
    const uint8_t *start;
    const struct layout *layout;
    struct node *node; /* node[0] is none */
    size_t nodes, cap;
    uint32_t *ref; /* node of each numbered object */
    size_t refs;
    const char *why; /* NULL: fine so far */
    bool nomem;
    struct pymarshal *out;
    size_t room; /* bytes allocated for the listing */
};

static void fail(struct walk *w, const char *why)
{
    if (!w->why)
        w->why = why;
}

/* ---- reading ---- */

static uint32_t new_node(struct walk *w)
{
    if (w->nodes == MARSHAL_NODES) {
        fail(w, "more objects than are looked at");
        return 0;
    }
    if (w->nodes == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 256;
        struct node *node = realloc(w->node, cap * sizeof *node);
        uint32_t *ref = node ? realloc(w->ref, cap * sizeof *ref) : NULL;
        if (node)
            w->node = node;
        if (!ref) {
            w->nomem = true;
            fail(w, "out of memory");
            return 0;
        }
        w->ref = ref;
        w->cap = cap;
        if (!w->nodes)
            w->node[w->nodes++] = (struct node){0};
    }
    w->node[w->nodes] = (struct node){0};
    return (uint32_t)w->nodes++;
}

static uint32_t object(struct walk *w, unsigned depth);

/* n parts of `whole`; UINT32_MAX: up to the object that ends a dictionary. */
static void parts(struct walk *w, uint32_t whole, uint32_t n, unsigned depth)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < n && !w->why; i++) {
        uint32_t at = object(w, depth + 1);
        if (w->why)
            return;
        bool end = w->node[at].kind == END;
        if (end && n == UINT32_MAX)
            return;
        if (end)
            fail(w, "an object ends too early");
        if (last)
            w->node[last].next = at;
        else if (!w->node[whole].child)
            w->node[whole].child = at;
        last = at;
    }
}

/* A node behind references; itself when it is none. */
static const struct node *behind(const struct walk *w, uint32_t at)
{
    const struct node *x = &w->node[at];
    return x->kind == REF ? &w->node[w->ref[x->n]] : x;
}

static const struct node *bare_part(const struct walk *w, const struct node *whole, unsigned i)
{
    uint32_t at = whole->child;
    while (i-- && at)
        at = w->node[at].next;
    return &w->node[at];
}

static const struct node *part(const struct walk *w, const struct node *whole, unsigned i)
{
    return behind(w, (uint32_t)(bare_part(w, whole, i) - w->node));
}

static void code(struct walk *w, uint32_t at, unsigned depth)
{
    const struct layout *l = w->layout;
    reader_take(&w->r, 4 * l->ints);
    parts(w, at, PARTS, depth);
    uint32_t line = reader_u32(&w->r), tail = new_node(w);
    if (w->why)
        return;
    w->node[at].line = line <= INT32_MAX ? line : 0;
    parts(w, tail, l->after, depth);
    const struct node *c = &w->node[at];
    if (!w->why && (part(w, c, PART_CODE)->kind != BYTES || part(w, c, PART_CONSTS)->kind != LIST ||
                    part(w, c, PART_NAMES)->kind != LIST || part(w, c, l->file)->kind != TEXT ||
                    part(w, c, PART_NAME)->kind != TEXT))
        fail(w, "a code object of another version");
}

/* The bytes of a leaf, by its length. */
static void leaf(struct walk *w, struct node *x, enum kind kind, uint32_t n)
{
    x->kind = (uint8_t)kind;
    x->n = n;
    x->p = reader_take(&w->r, n);
}

static void read_number(struct walk *w, struct node *x)
{
    uint32_t n;
    switch (x->type) {
    case 'i':
        leaf(w, x, NUMBER, 4);
        break;
    case 'f':
        leaf(w, x, NUMBER, reader_u8(&w->r));
        break;
    case 'l':
        n = reader_u32(&w->r);   /* digits of 15 bits; negative numbers have a negative count */
        x->line = n > INT32_MAX; /* the sign */
        n = x->line ? 0u - n : n;
        leaf(w, x, NUMBER, n < 1 << 24 ? 2 * n : UINT32_MAX);
        break;
    case 'x': /* two texts */
        leaf(w, x, NUMBER, reader_u8(&w->r));
        n = reader_u8(&w->r);
        reader_take(&w->r, n);
        break;
    case 'y':
        leaf(w, x, NUMBER, 16);
        break;
    default: /* 'I', 'g' */
        leaf(w, x, NUMBER, 8);
    }
}

static uint32_t object(struct walk *w, unsigned depth)
{
    uint8_t byte = reader_u8(&w->r);
    uint32_t at = new_node(w), n, slot = 0;
    if (depth > MARSHAL_DEPTH)
        fail(w, "objects inside objects, too deep");
    if (w->r.bad)
        fail(w, "cut off");
    if (w->why)
        return 0;
    struct node *x = &w->node[at];
    x->type = (char)(byte & 0x7f);
    if (byte & 0x80) { /* numbered, for later references */
        slot = (uint32_t)w->refs;
        w->ref[w->refs++] = at;
    }
    switch (x->type) {
    case '0':
        x->kind = END;
        break;
    case 'N':
    case 'F':
    case 'T':
    case 'S':
    case '.':
        x->kind = NAMED;
        break;
    case 'i':
    case 'I':
    case 'l':
    case 'f':
    case 'g':
    case 'x':
    case 'y':
        read_number(w, x);
        break;
    case 's':
        leaf(w, x, BYTES, reader_u32(&w->r));
        break;
    case 't':
    case 'u':
    case 'a':
    case 'A':
        leaf(w, x, TEXT, reader_u32(&w->r));
        break;
    case 'z':
    case 'Z':
        leaf(w, x, TEXT, reader_u8(&w->r));
        break;
    case 'r':
        x->kind = REF;
        x->n = reader_u32(&w->r);
        /* Of what is already there: a reference to a whole that is still open would be a circle. */
        if (x->n >= w->refs || (byte & 0x80 && x->n == slot) || w->node[w->ref[x->n]].kind == REF)
            fail(w, "a reference to nothing");
        break;
    case '(':
    case '[':
    case '<':
    case '>':
        n = reader_u32(&w->r);
        x->kind = LIST;
        if (n > reader_left(&w->r))
            fail(w, "cut off");
        parts(w, at, n, depth);
        break;
    case ')':
        n = reader_u8(&w->r);
        x->kind = LIST;
        parts(w, at, n, depth);
        break;
    case ':': /* slices, from Python 3.14 */
        x->kind = LIST;
        parts(w, at, 3, depth);
        break;
    case '{':
        x->kind = LIST;
        parts(w, at, UINT32_MAX, depth);
        break;
    case 'c':
        x->kind = CODE;
        code(w, at, depth);
        break;
    default:
        fail(w, "an object of a type that marshal does not have");
    }
    if (w->r.bad)
        fail(w, "cut off");
    return w->why ? 0 : at;
}

/* ---- listing ---- */

static bool full(const struct walk *w)
{
    return w->out->n >= MARSHAL_LISTING || w->nomem;
}

static void put(struct walk *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct walk *w, const char *fmt, ...)
{
    struct pymarshal *m = w->out;
    va_list ap;
    if (full(w))
        return;
    if (w->room - m->n < 2048) {
        char *p = realloc(m->listing, 2 * w->room + 4096);
        if (!p) {
            w->nomem = true;
            return;
        }
        m->listing = p;
        w->room = 2 * w->room + 4096;
    }
    va_start(ap, fmt);
    int n = vsnprintf(m->listing + m->n, 1024, fmt, ap); /* longer ones are cut */
    va_end(ap);
    m->n += n < 0 ? 0 : n < 1023 ? (size_t)n : 1023;
    if (m->n >= MARSHAL_LISTING)
        m->n += (size_t)sprintf(m->listing + m->n, "\n... and more\n");
}

/* The first bytes of a text in quotes; what cannot be seen in escapes. */
static void put_text(struct walk *w, const uint8_t *p, size_t n)
{
    size_t shown = n < SHOWN ? n : SHOWN, len;
    put(w, "'");
    for (size_t i = 0; i < shown; i += len) {
        len = py_utf8(p + i, n - i);
        if (len == 1 && isprint(p[i]) && p[i] != '\'' && p[i] != '\\')
            put(w, "%c", p[i]);
        else if (len < 2 && p[i] == '\n')
            put(w, "\\n");
        else if (len < 2)
            put(w, "\\x%02x", p[i]);
        else
            put(w, "%.*s", (int)len, (const char *)p + i);
        len += !len;
    }
    put(w, "'%s", n > shown ? "..." : "");
    if (n > shown)
        put(w, " (%zu bytes)", n);
}

static void put_number(struct walk *w, const struct node *x)
{
    double v;
    uint64_t bits;
    size_t digits = x->n / 2;
    switch (x->type) {
    case 'i':
        put(w, "%" PRId32, (int32_t)le32(x->p));
        return;
    case 'I':
        put(w, "%" PRId64, (int64_t)le64(x->p));
        return;
    case 'f':
        put_text(w, x->p, x->n);
        return;
    case 'g':
        bits = le64(x->p);
        memcpy(&v, &bits, sizeof v);
        put(w, "%.17g", v);
        return;
    case 'l':
        put(w, x->line ? "-0x" : "0x");
        if (digits > 4) {
            put(w, "... (a number of %zu bits)", 15 * digits);
            return;
        }
        bits = 0;
        for (size_t i = digits; i-- > 0;)
            bits = bits << 15 | (le16(x->p + 2 * i) & 0x7fff);
        put(w, "%" PRIx64, bits);
        return;
    default:
        put(w, "a complex number");
    }
}

static void put_code(struct walk *w, const struct node *c, unsigned depth);

static void keep_blob(struct walk *w, const struct node *x)
{
    struct pymarshal *m = w->out;
    if (x->n >= MARSHAL_LARGE && m->blobs < MARSHAL_BLOBS)
        m->blob[m->blobs++] = (struct marshal_blob){x->p, x->n, x->kind == TEXT};
}

/* A constant, without the code in it: that comes on lines of its own. */
static void put_constant(struct walk *w, const struct node *x, unsigned depth)
{
    size_t k = 0;
    switch (x->kind) {
    case NAMED:
        put(w, "%s",
            x->type == 'N'   ? "None"
            : x->type == 'F' ? "False"
            : x->type == 'T' ? "True"
            : x->type == '.' ? "..."
                             : "StopIteration");
        break;
    case NUMBER:
        put_number(w, x);
        break;
    case TEXT:
        put_text(w, x->p, x->n);
        break;
    case BYTES:
        put(w, "b");
        put_text(w, x->p, x->n);
        break;
    case LIST:
        put(w, "(");
        for (uint32_t at = x->child; at; at = w->node[at].next, k++) {
            put(w, "%s", k ? ", " : "");
            if (w->node[at].kind == REF && behind(w, at)->kind == LIST)
                put(w, "(...)"); /* shared: many references to one list would never end */
            else if (depth < MARSHAL_DEPTH)
                put_constant(w, behind(w, at), depth + 1);
        }
        put(w, ")");
        break;
    case CODE:
        put(w, "code");
        break;
    default:
        put(w, "?");
    }
}

/* Constants that may be packed texts, and code, wherever they lie in a list. References are not
 * followed: what they lead to was met before. */
static void inner(struct walk *w, const struct node *x, unsigned depth, bool codes)
{
    for (uint32_t at = x->child; at; at = w->node[at].next) {
        const struct node *c = &w->node[at];
        if (c->kind == LIST)
            inner(w, c, depth, codes);
        else if (c->kind == CODE && codes)
            put_code(w, c, depth);
        else if ((c->kind == TEXT || c->kind == BYTES) && !codes)
            keep_blob(w, c);
    }
}

static void put_code(struct walk *w, const struct node *c, unsigned depth)
{
    const struct node *names = part(w, c, PART_NAMES), *consts = bare_part(w, c, PART_CONSTS);
    const struct node *file = part(w, c, w->layout->file), *name = part(w, c, PART_NAME);
    int in = (int)(2 * depth);
    put(w, "%*scode ", in, "");
    put_text(w, name->p, name->n);
    put(w, " of ");
    put_text(w, file->p, file->n);
    put(w, ", line %" PRIu32 ", %" PRIu32 " bytes of bytecode\n", c->line,
        part(w, c, PART_CODE)->n);
    w->out->codes++;
    if (names->child)
        put(w, "%*s  names", in, "");
    for (uint32_t at = names->child; at && !full(w); at = w->node[at].next) {
        const struct node *x = behind(w, at);
        put(w, " ");
        if (x->kind == TEXT)
            put(w, "%.*s", x->n < 200 ? (int)x->n : 200, (const char *)x->p);
        w->out->names++;
    }
    put(w, "%s", names->child ? "\n" : "");
    if (consts->kind == REF) /* its own whole, perhaps: following it might never end */
        put(w, "%*s  constants of another code object\n", in, "");
    for (uint32_t at = consts->child; at; at = w->node[at].next) {
        const struct node *x = behind(w, at);
        w->out->constants++;
        if (x->kind == CODE || x->kind == NAMED)
            continue;
        put(w, "%*s  constant ", in, "");
        put_constant(w, x, 0);
        put(w, "\n");
    }
    inner(w, consts, depth, false);
    inner(w, consts, depth + 1, true);
}

/* ---- both ---- */

/* Names are a script's own bytes: one line each, and valid UTF-8. */
static void clean(struct pymarshal *m)
{
    char *line = m->listing;
    for (size_t i = 0; i < m->n; i++) {
        if (m->listing[i] != '\n')
            continue;
        m->listing[i] = 0;
        py_printable(line);
        m->listing[i] = '\n';
        line = &m->listing[i + 1];
    }
}

enum err_code pymarshal_read(struct pymarshal *m, const void *data, size_t n, struct err *e)
{
    struct walk w = {.out = m};
    uint32_t root = 0;
    *m = (struct pymarshal){.version = ""};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && !root && !w.nomem; i++) {
        const char *was = w.why;
        size_t at = w.r.at ? (size_t)(w.r.at - w.start) : 0;
        w.r = reader_init(data, n);
        w.start = w.r.at;
        w.layout = &layouts[i];
        w.nodes = w.cap ? 1 : 0;
        w.refs = 0;
        w.why = NULL;
        root = object(&w, 0);
        /* Say what the version says that came furthest. */
        if (!root && was && at >= (size_t)(w.r.at - w.start))
            w.why = was;
        else if (!root && w.r.at)
            at = (size_t)(w.r.at - w.start);
        snprintf(m->why, sizeof m->why, "%.60s at byte %zu", w.why ? w.why : "", at);
    }
    if (root && w.node[root].kind != CODE && w.node[root].kind != LIST) {
        snprintf(m->why, sizeof m->why, "a single value, no code");
        root = 0;
    }
    if (root) {
        const struct node *x = &w.node[root];
        if (x->kind == CODE) {
            put_code(&w, x, 0);
        } else {
            put(&w, "constant ");
            put_constant(&w, x, 0);
            put(&w, "\n");
            inner(&w, x, 0, false);
            inner(&w, x, 0, true);
        }
        if (m->codes)
            m->version = w.layout->version;
        if (!w.nomem)
            clean(m);
    }
    free(w.node);
    free(w.ref);
    if (w.nomem)
        return err_nomem(e, "compiled code", n);
    return root ? ERR_OK : err_set(e, ERR_INPUT, "marshal data: %s", m->why);
}

void pymarshal_free(struct pymarshal *m)
{
    free(m->listing);
    *m = (struct pymarshal){0};
}

/* Two bytes of version, "\r\n"; then flags, of which two bits are defined (PEP 552). The versions
 * of CPython 3.7 to 3.14 are 3390 to 3627, those of later ones go on from there. */
bool pymarshal_pyc(const void *data, size_t n)
{
    const uint8_t *p = data;
    return n > MARSHAL_HEADER && p[2] == '\r' && p[3] == '\n' && le16(p) >= 3390 &&
           le16(p) < 4000 && le32(p + 4) <= 3;
}
