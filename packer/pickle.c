/* pickle.c - see pickle.h. The opcodes; pickle_machine.c holds stack, memo and values. */
#include "packer/pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/pickle_machine.h"

/* ---- opcodes, with CPython's names ---- */

enum op {
    MARK = '(',
    STOP = '.',
    POP = '0',
    POP_MARK = '1',
    DUP = '2',
    FLOAT = 'F',
    INT = 'I',
    BININT = 'J',
    BININT1 = 'K',
    LONG = 'L',
    BININT2 = 'M',
    NONE = 'N',
    PERSID = 'P',
    BINPERSID = 'Q',
    REDUCE = 'R',
    STRING = 'S',
    BINSTRING = 'T',
    SHORT_BINSTRING = 'U',
    UNICODE = 'V',
    BINUNICODE = 'X',
    APPEND = 'a',
    BUILD = 'b',
    GLOBAL = 'c',
    DICT = 'd',
    EMPTY_DICT = '}',
    APPENDS = 'e',
    GET = 'g',
    BINGET = 'h',
    LONG_BINGET = 'j',
    LIST = 'l',
    EMPTY_LIST = ']',
    PUT = 'p',
    BINPUT = 'q',
    LONG_BINPUT = 'r',
    SETITEM = 's',
    TUPLE = 't',
    EMPTY_TUPLE = ')',
    SETITEMS = 'u',
    BINFLOAT = 'G',
    BINBYTES = 'B',
    SHORT_BINBYTES = 'C',
    PROTO = 0x80,
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    LONG1 = 0x8a,
    LONG4 = 0x8b,
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE8 = 0x8d,
    BINBYTES8 = 0x8e,
    EMPTY_SET = 0x8f,
    ADDITEMS = 0x90,
    FROZENSET = 0x91,
    STACK_GLOBAL = 0x93,
    MEMOIZE = 0x94,
    FRAME = 0x95,
    BYTEARRAY8 = 0x96,
};

/* Opcodes that make objects of classes or run registered code: refused, with their name. */
static const struct {
    uint8_t op;
    const char *name;
} refused[] = {
    {'i', "INST"},       {'o', "OBJ"},          {0x81, "NEWOBJ"},
    {0x82, "EXT1"},      {0x83, "EXT2"},        {0x84, "EXT4"},
    {0x92, "NEWOBJ_EX"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
};

/* ---- reading ---- */

/* The text up to the next line feed, NUL-terminated in buf; NULL when there is none or it is long.
 */
static const char *line(struct machine *m, char *buf, size_t cap)
{
    const uint8_t *end = memchr(m->r.at, '\n', reader_left(&m->r));
    size_t n = end ? (size_t)(end - m->r.at) : 0;
    if (!end || n >= cap) {
        m->r.bad = true;
        return NULL;
    }
    memcpy(buf, reader_take(&m->r, n + 1), n);
    buf[n] = 0;
    return buf;
}

/* A number of `bytes` bytes, unsigned. */
static size_t length(struct machine *m, unsigned bytes)
{
    uint64_t n = bytes == 1   ? reader_u8(&m->r)
                 : bytes == 2 ? reader_u16(&m->r)
                 : bytes == 4 ? reader_u32(&m->r)
                              : reader_u64(&m->r);
    return n > SIZE_MAX ? SIZE_MAX : (size_t)n;
}

static enum err_code push_int(struct machine *m, int64_t v)
{
    struct pickle_value *p = machine_push(m, PICKLE_INT);
    if (p)
        p->i = v;
    return m->rc;
}

static enum err_code push_bool(struct machine *m, bool v)
{
    struct pickle_value *p = machine_push(m, PICKLE_BOOL);
    if (p)
        p->i = v;
    return m->rc;
}

/* n bytes of the input as a string (copied, so that it ends) or as bytes (in place). */
static enum err_code push_text(struct machine *m, enum pickle_kind kind, size_t n)
{
    const uint8_t *at = reader_take(&m->r, n);
    struct pickle_value *p = at ? machine_push(m, kind) : NULL;
    if (!p)
        return m->rc;
    p->n = n;
    p->text = kind == PICKLE_BYTES ? (const char *)at : machine_text(m, at, n);
    return m->rc;
}

/* Two's complement, little-endian, any length: protocol 2's integers. */
static enum err_code push_long(struct machine *m, size_t n)
{
    const uint8_t *p = reader_take(&m->r, n);
    uint64_t v = p && n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    if (!p)
        return ERR_OK;
    if (n > 8)
        return machine_fail(m, "an integer of %zu bytes, at most 8 are accepted", n);
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return push_int(m, (int64_t)v);
}

/* Protocol 0's decimal integers; I01 and I00 are its booleans, a trailing L its long integers. */
static enum err_code push_decimal(struct machine *m, enum op op)
{
    char buf[32], *end;
    const char *s = line(m, buf, sizeof buf);
    if (!s)
        return ERR_OK;
    if (op == INT && (!strcmp(s, "00") || !strcmp(s, "01")))
        return push_bool(m, s[1] == '1');
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (op == LONG && *end == 'L')
        end++;
    if (errno || end == s || *end)
        return machine_fail(m, "%s is no integer of 64 bits", s);
    return push_int(m, v);
}

static enum err_code push_float(struct machine *m, enum op op)
{
    char buf[64], *end;
    double f = 0;
    if (op == FLOAT) {
        const char *s = line(m, buf, sizeof buf);
        if (!s)
            return ERR_OK;
        f = strtod(s, &end);
        if (end == s || *end)
            return machine_fail(m, "%s is no number", s);
    } else {
        const uint8_t *p = reader_take(&m->r, 8); /* big-endian, unlike everything else */
        uint64_t bits = 0;
        for (size_t i = 0; p && i < 8; i++)
            bits = bits << 8 | p[i];
        memcpy(&f, &bits, sizeof f);
    }
    struct pickle_value *v = machine_push(m, PICKLE_FLOAT);
    if (v)
        v->f = f;
    return m->rc;
}

/* Protocol 0's quoted strings. Only those without escapes: names and numbers have none. */
static enum err_code push_line(struct machine *m, enum op op)
{
    char buf[1024];
    const char *s = line(m, buf, sizeof buf);
    size_t n = s ? strlen(s) : 0;
    if (!s)
        return ERR_OK;
    if (op == STRING) {
        if (n < 2 || (s[0] != '\'' && s[0] != '"') || s[n - 1] != s[0])
            return machine_fail(m, "a string without its quotes");
        s++;
        n -= 2;
    }
    if (memchr(s, '\\', n))
        return machine_fail(m, "a string with escapes, which protocol 0 text may not have here");
    struct pickle_value *v = machine_push(m, PICKLE_STR);
    if (v) {
        v->n = n;
        v->text = machine_text(m, (const uint8_t *)s, n);
    }
    return m->rc;
}

/* ---- globals and what is done with them ---- */

static enum err_code push_global(struct machine *m, const char *module, const char *name)
{
    char full[2 * PICKLE_NAME + 2];
    size_t n = strlen(module);
    memcpy(full, module, n);
    full[n] = '.';
    strcpy(full + n + 1, name);
    for (size_t i = 0; m->allowed[i].name; i++)
        if (!strcmp(m->allowed[i].name, full)) {
            struct pickle_value *v = machine_push(m, PICKLE_GLOBAL);
            if (v)
                v->i = (int64_t)i;
            return m->rc;
        }
    return machine_fail(m, "the global %.120s is not accepted", full);
}

static enum err_code global_from_lines(struct machine *m)
{
    char module[PICKLE_NAME], name[PICKLE_NAME];
    if (!line(m, module, sizeof module) || !line(m, name, sizeof name))
        return ERR_OK;
    return push_global(m, module, name);
}

static enum err_code global_from_stack(struct machine *m)
{
    const struct pickle_value *name = machine_pop(m, PICKLE_STR);
    const struct pickle_value *module = machine_pop(m, PICKLE_STR);
    if (!module || !name)
        return m->rc;
    if (module->n >= PICKLE_NAME || name->n >= PICKLE_NAME)
        return machine_fail(m, "a global with a name of %zu characters", module->n + name->n);
    return push_global(m, module->text, name->text);
}

/* Calls that make a value here and now. */
static enum err_code reduce_as(struct machine *m, const struct pickle_global *g,
                               const struct pickle_value *args)
{
    struct pickle_value *first = args->n ? args->item[0] : NULL, *v = NULL;
    bool latin1 =
        args->n == 2 && (pickle_is(args->item[1], "latin1") || pickle_is(args->item[1], "latin-1"));
    if (g->as == PICKLE_AS_DICT && !args->n)
        v = machine_new(m, PICKLE_DICT);
    else if (g->as == PICKLE_AS_BYTES && !args->n)
        v = machine_latin1(m, &(struct pickle_value){.text = ""});
    else if (g->as == PICKLE_AS_BYTES && latin1 && first->kind == PICKLE_STR)
        v = machine_latin1(m, first);
    else if (g->as == PICKLE_AS_BYTES && args->n == 1 && first->kind == PICKLE_BYTES)
        v = first;
    else if (g->as == PICKLE_AS_SAME && args->n == 1 &&
             (first->kind == PICKLE_TUPLE || first->kind == PICKLE_LIST))
        v = first;
    else
        return machine_fail(m, "%s with arguments that are not accepted", g->name);
    return v ? machine_push_old(m, v) : m->rc;
}

static enum err_code reduce(struct machine *m)
{
    struct pickle_value *args = machine_pop(m, PICKLE_TUPLE);
    const struct pickle_value *global = machine_pop(m, PICKLE_GLOBAL);
    if (!args || !global)
        return m->rc;
    const struct pickle_global *g = &m->allowed[global->i];
    if (g->as != PICKLE_AS_CALL)
        return reduce_as(m, g, args);
    struct pickle_value *v = machine_push(m, PICKLE_CALL);
    if (v) {
        v->i = global->i;
        machine_add(m, v, &args, 1);
    }
    return m->rc;
}

/* A dictionary's attributes are not data of ours (torch keeps a state_dict's _metadata there). */
static enum err_code build(struct machine *m)
{
    struct pickle_value *state = machine_pop_any(m);
    struct pickle_value *v = machine_top(m);
    if (!state || !v)
        return m->rc;
    if (v->kind == PICKLE_CALL && v->n == 1)
        machine_add(m, v, &state, 1);
    else if (v->kind != PICKLE_DICT)
        return machine_fail(m, "BUILD of something that is no object");
    return m->rc;
}

static enum err_code persistent(struct machine *m, enum op op)
{
    struct pickle_value *id;
    if (op == PERSID) {
        enum err_code rc = push_line(m, UNICODE);
        if (rc || m->r.bad)
            return rc;
    }
    id = machine_pop_any(m);
    struct pickle_value *v = id ? machine_push(m, PICKLE_PERSID) : NULL;
    if (v && !m->stored)
        m->stored = machine_new(m, PICKLE_LIST);
    if (v && m->stored) {
        machine_add(m, v, &id, 1);
        machine_add(m, m->stored, &v, 1);
    }
    return m->rc;
}

/* ---- containers ---- */

/* The topmost n values, or those above the mark, become the items of a new container. */
static enum err_code collect(struct machine *m, enum pickle_kind kind, size_t n)
{
    struct pickle_value **item = machine_take(m, n);
    struct pickle_value *v = machine_new(m, kind);
    if (!v)
        return m->rc;
    machine_add(m, v, item, n);
    return machine_push_old(m, v);
}

static enum err_code collect_marked(struct machine *m, enum pickle_kind kind)
{
    size_t n = machine_marked(m);
    if (m->rc)
        return m->rc;
    if (kind == PICKLE_DICT && n % 2)
        return machine_fail(m, "a dictionary with a key and no value");
    return collect(m, kind, n);
}

/* The values above the mark, or one pair or one item, go into the container below them. */
static enum err_code extend(struct machine *m, enum pickle_kind kind, size_t n)
{
    struct pickle_value **item = machine_take(m, n);
    struct pickle_value *v = machine_top(m);
    if (!v)
        return m->rc;
    if (v->kind != kind)
        return machine_fail(m, "items for something that is no %s",
                            kind == PICKLE_DICT ? "dictionary" : "list");
    if (kind == PICKLE_DICT && n % 2)
        return machine_fail(m, "a dictionary with a key and no value");
    machine_add(m, v, item, n);
    return m->rc;
}

static enum err_code extend_marked(struct machine *m, enum pickle_kind kind)
{
    size_t n = machine_marked(m);
    return m->rc ? m->rc : extend(m, kind, n);
}

/* ---- the machine ---- */

static enum err_code memo_line(struct machine *m, enum op op)
{
    char buf[16], *end;
    const char *s = line(m, buf, sizeof buf);
    if (!s)
        return ERR_OK;
    unsigned long i = strtoul(s, &end, 10);
    if (end == s || *end || *s == '-')
        return machine_fail(m, "memo slot %s is no number", s);
    return op == GET ? machine_get(m, i) : machine_put(m, i);
}

static enum err_code unknown(struct machine *m, uint8_t op)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (refused[i].op == op)
            return machine_fail(m, "opcode %s is not accepted: it makes objects, not data",
                                refused[i].name);
    return machine_fail(m, "0x%02x is no opcode", op);
}

static enum err_code push_plain(struct machine *m, enum pickle_kind kind)
{
    machine_push(m, kind);
    return m->rc;
}

static enum err_code step(struct machine *m, uint8_t op)
{
    switch (op) {
    case PROTO: {
        uint8_t v = reader_u8(&m->r);
        return v > 5 ? machine_fail(m, "protocol %u, at most 5 is known", v) : ERR_OK;
    }
    case FRAME: /* only says how much a stream may read ahead */
        length(m, 8);
        return ERR_OK;
    case MARK:
        return machine_mark(m);
    case POP:
        machine_pop_any(m);
        return m->rc;
    case POP_MARK:
        machine_take(m, machine_marked(m));
        return m->rc;
    case DUP: {
        struct pickle_value *v = machine_top(m);
        return v ? machine_push_old(m, v) : m->rc;
    }
    case NONE:
        return push_plain(m, PICKLE_NONE);
    case NEWTRUE:
    case NEWFALSE:
        return push_bool(m, op == NEWTRUE);
    case BININT:
        return push_int(m, (int32_t)reader_u32(&m->r));
    case BININT1:
        return push_int(m, reader_u8(&m->r));
    case BININT2:
        return push_int(m, reader_u16(&m->r));
    case INT:
    case LONG:
        return push_decimal(m, op);
    case LONG1:
        return push_long(m, length(m, 1));
    case LONG4:
        return push_long(m, length(m, 4));
    case FLOAT:
    case BINFLOAT:
        return push_float(m, op);
    case STRING:
    case UNICODE:
        return push_line(m, op);
    case SHORT_BINSTRING:
    case SHORT_BINUNICODE:
        return push_text(m, PICKLE_STR, length(m, 1));
    case BINSTRING:
    case BINUNICODE:
        return push_text(m, PICKLE_STR, length(m, 4));
    case BINUNICODE8:
        return push_text(m, PICKLE_STR, length(m, 8));
    case SHORT_BINBYTES:
        return push_text(m, PICKLE_BYTES, length(m, 1));
    case BINBYTES:
        return push_text(m, PICKLE_BYTES, length(m, 4));
    case BINBYTES8:
    case BYTEARRAY8:
        return push_text(m, PICKLE_BYTES, length(m, 8));
    case EMPTY_TUPLE:
        return push_plain(m, PICKLE_TUPLE);
    case EMPTY_LIST:
    case EMPTY_SET:
        return push_plain(m, PICKLE_LIST);
    case EMPTY_DICT:
        return push_plain(m, PICKLE_DICT);
    case TUPLE1:
        return collect(m, PICKLE_TUPLE, 1);
    case TUPLE2:
        return collect(m, PICKLE_TUPLE, 2);
    case TUPLE3:
        return collect(m, PICKLE_TUPLE, 3);
    case TUPLE:
        return collect_marked(m, PICKLE_TUPLE);
    case LIST:
    case FROZENSET:
        return collect_marked(m, PICKLE_LIST);
    case DICT:
        return collect_marked(m, PICKLE_DICT);
    case APPEND:
        return extend(m, PICKLE_LIST, 1);
    case APPENDS:
    case ADDITEMS:
        return extend_marked(m, PICKLE_LIST);
    case SETITEM:
        return extend(m, PICKLE_DICT, 2);
    case SETITEMS:
        return extend_marked(m, PICKLE_DICT);
    case GET:
    case PUT:
        return memo_line(m, op);
    case BINGET:
        return machine_get(m, length(m, 1));
    case LONG_BINGET:
        return machine_get(m, length(m, 4));
    case BINPUT:
        return machine_put(m, length(m, 1));
    case LONG_BINPUT:
        return machine_put(m, length(m, 4));
    case MEMOIZE:
        return machine_put(m, m->memoized);
    case GLOBAL:
        return global_from_lines(m);
    case STACK_GLOBAL:
        return global_from_stack(m);
    case REDUCE:
        return reduce(m);
    case BUILD:
        return build(m);
    case PERSID:
    case BINPERSID:
        return persistent(m, op);
    default:
        return unknown(m, op);
    }
}

enum err_code pickle_parse(struct pickle *p, const void *data, size_t n,
                           const struct pickle_global *allowed, const char *what, struct err *e)
{
    struct machine m = {
        .r = reader_init(data, n), .start = data, .allowed = allowed, .what = what, .e = e};
    enum err_code rc = ERR_OK;
    *p = (struct pickle){0};
    while (!rc) {
        m.op_at = (size_t)(m.r.at - m.start);
        uint8_t op = reader_u8(&m.r);
        if (m.r.bad || op == STOP)
            break;
        rc = step(&m, op);
        if (!rc && m.r.bad)
            break;
    }
    if (!rc && m.r.bad)
        rc = machine_fail(&m, "the data end in the middle of the pickle");
    if (!rc)
        p->root = machine_pop_any(&m);
    if (!rc)
        rc = m.rc;
    p->stored = m.stored;
    p->used = (size_t)(m.r.at - m.start);
    p->arena = machine_end(&m);
    if (rc)
        pickle_free(p);
    return rc;
}
