/* pycall.c - attributes and calls of the calculator: modules, builtins, files, paths. */
#include <stdio.h>
#include <string.h>

#include "verify/pyvalue.h"

const struct pv *pv_arg(const struct pv_arg *arg, size_t args, size_t pos, const char *kw)
{
    size_t k = 0;
    for (size_t i = 0; i < args; i++) {
        if (arg[i].kw ? kw && arg[i].kw_n == strlen(kw) && !memcmp(arg[i].kw, kw, arg[i].kw_n)
                      : k == pos)
            return arg[i].v;
        k += !arg[i].kw;
    }
    return NULL;
}

static bool named(const char *name, size_t n, const char *text)
{
    return strlen(text) == n && !memcmp(name, text, n);
}

static const struct pv *join_name(struct pv_walk *w, const struct pv *v, const char *name, size_t n)
{
    char *p = pv_alloc(w, v->n + n + 2);
    if (!p)
        return &pv_unknown;
    memcpy(p, v->p, v->n);
    p[v->n] = '.';
    memcpy(p + v->n + 1, name, n);
    p[v->n + 1 + n] = 0;
    return pv_text(w, PV_NAME, p, v->n + 1 + n, NULL);
}

const struct pv *pv_attribute(struct pv_walk *w, const struct pv *v, const char *name, size_t n)
{
    if (v->kind == PV_NAME && !pv_same(v, "__file__"))
        return join_name(w, v, name, n);
    struct pv *m = pv_alloc(w, sizeof *m);
    if (!m)
        return &pv_unknown;
    if (v->kind == PV_PATH && (named(name, n, "parent") || named(name, n, "parents"))) {
        *m = (struct pv){.kind = PV_PATH, .p = (const uint8_t *)"", .n = 0};
        return m;
    }
    *m = (struct pv){.kind = PV_METHOD, .p = (const uint8_t *)name, .n = n, .self = v};
    return m;
}

/* ---- files ---- */

static bool is_self(const struct pv *v)
{
    return pv_same(v, "__file__") || (v->kind == PV_PATH && v->self);
}

static const struct pv *object(struct pv_walk *w, enum pv_kind kind, const struct pv *from)
{
    struct pv *o = pv_alloc(w, sizeof *o);
    if (!o)
        return &pv_unknown;
    *o = (struct pv){.kind = kind, .p = (const uint8_t *)"", .from = from ? from->from : NULL};
    if (from && is_self(from))
        o->self = w->file;
    else if (from && (pv_is_text(from) || from->kind == PV_PATH)) {
        o->p = from->p;
        o->n = from->n;
        for (size_t i = from->n; i; i--) /* the last part of the path */
            if (from->p[i - 1] == '/') {
                o->p = from->p + i;
                o->n = from->n - i;
                break;
            }
    }
    return o;
}

/* What reading gives: the script itself from where a seek went, the buffer behind a BytesIO, or
 * something outside. Text and bytes are the same here; the decoders take both. */
static const struct pv *read_all(struct pv_walk *w, const struct pv *f)
{
    if (f->self && f->self == w->file && w->seek && w->seek < f->self->n)
        return pv_text(w, PV_BYTES, f->self->p + w->seek, f->self->n - w->seek, f->self->from);
    if (f->self)
        return f->self;
    return object(w, PV_OUTSIDE, f->n ? &(struct pv){.kind = PV_STR, .p = f->p, .n = f->n} : NULL);
}

static const struct pv *file_method(struct pv_walk *w, const struct pv *f, const char *name,
                                    size_t n, const struct pv *first)
{
    long long i;
    if (named(name, n, "seek") && first && pv_number(first, &i) && i >= 0)
        w->seek = (size_t)i;
    if (named(name, n, "read") || named(name, n, "read_text") || named(name, n, "read_bytes") ||
        named(name, n, "getvalue"))
        return read_all(w, f);
    if (named(name, n, "readlines"))
        return pv_text_method(w, read_all(w, f), "splitlines", 10,
                              &(struct pv_arg){.v = pv_int(w, 1)}, 1);
    if (f->kind == PV_PATH &&
        (named(name, n, "resolve") || named(name, n, "absolute") || named(name, n, "expanduser")))
        return f;
    if (f->kind == PV_PATH && named(name, n, "open"))
        return object(w, PV_FILE, f);
    if (f->kind == PV_FILE && named(name, n, "__enter__"))
        return f;
    return &pv_unknown;
}

/* ---- builtins and modules by their dotted name ---- */

/* str(x, enc), bytes(x, enc), bytes([1, 2]): the same bytes under another kind. */
static const struct pv *convert(struct pv_walk *w, enum pv_kind kind, const struct pv_arg *arg,
                                size_t args)
{
    const struct pv *v = pv_arg(arg, args, 0, "source"), *enc = pv_arg(arg, args, 1, "encoding");
    if (!v)
        return pv_text(w, kind, "", 0, NULL);
    if (v->kind == PV_LIST && kind == PV_BYTES) {
        uint8_t *p = pv_alloc(w, v->n + 1);
        long long i;
        for (size_t k = 0; p && k < v->n; k++) {
            if (!pv_number(v->item[k], &i) || i < 0 || i > 255)
                return &pv_unknown;
            p[k] = (uint8_t)i;
        }
        return p ? pv_text(w, PV_BYTES, p, v->n, NULL) : &pv_unknown;
    }
    if (v->kind == PV_OUTSIDE || v->kind == kind)
        return v;
    if (pv_is_text(v) && enc)
        return pv_text_method(w, v, kind == PV_BYTES ? "encode" : "decode", 6,
                              &(struct pv_arg){.v = enc}, 1);
    return &pv_unknown;
}

static const struct pv *simple(struct pv_walk *w, const char *f, const struct pv_arg *arg,
                               size_t args)
{
    const struct pv *v = pv_arg(arg, args, 0, NULL);
    long long i;
    if (!v)
        return NULL;
    if (!strcmp(f, "len") && (pv_is_text(v) || v->kind == PV_LIST || v->kind == PV_DICT) &&
        (v->kind != PV_STR || pv_ascii(v)))
        return pv_int(w, (long long)v->n);
    if (!strcmp(f, "ord") && v->n == 1 && pv_is_text(v))
        return pv_int(w, v->p[0]);
    if (!strcmp(f, "chr") && pv_number(v, &i) && i >= 0 && i < 128) {
        uint8_t ch = (uint8_t)i;
        return pv_copy(w, PV_STR, &ch, 1, NULL);
    }
    if (!strcmp(f, "int") && v->kind == PV_INT)
        return v;
    if (!strcmp(f, "reversed") && (pv_is_text(v) || v->kind == PV_LIST)) {
        static const struct pv none = {.kind = PV_NONE}, back = {.kind = PV_INT, .i = -1};
        const struct pv *const part[3] = {&none, &none, &back};
        return pv_slice(w, v, part, true);
    }
    if (!strcmp(f, "list") || !strcmp(f, "tuple") || !strcmp(f, "memoryview"))
        return v;
    return NULL;
}

/* Anything ending in .py among the arguments, lists opened. */
static const struct pv *python_file(const struct pv_arg *arg, size_t args)
{
    for (size_t i = 0; i < args; i++) {
        const struct pv *v = arg[i].v, *const *item = v->kind == PV_LIST ? v->item : &v;
        for (size_t k = 0, n = v->kind == PV_LIST ? v->n : 1; k < n; k++)
            if ((item[k]->kind == PV_STR || item[k]->kind == PV_PATH) && item[k]->n > 3 &&
                !memcmp(item[k]->p + item[k]->n - 3, ".py", 3))
                return item[k];
    }
    return NULL;
}

/* runpy, subprocess, os.exec: another file runs. Their text arguments may be code of this one. */
static void starts(struct pv_walk *w, const char *f, const struct pv_arg *arg, size_t args,
                   size_t line)
{
    static const char *const starters[] = {"runpy.run_path",
                                           "runpy.run_module",
                                           "os.system",
                                           "os.execv",
                                           "os.execvp",
                                           "os.execl",
                                           "os.execlp",
                                           "os.execve",
                                           "os.execvpe",
                                           "subprocess.run",
                                           "subprocess.call",
                                           "subprocess.Popen",
                                           "subprocess.check_call",
                                           "subprocess.check_output",
                                           "importlib.util.spec_from_file_location"};
    bool hit = false;
    for (size_t i = 0; i < sizeof starters / sizeof *starters; i++)
        hit |= !strcmp(f, starters[i]);
    if (!hit)
        return;
    const struct pv *py = python_file(arg, args), *first = pv_arg(arg, args, 0, NULL);
    if (py) {
        pv_note(w, line, "%s runs another file: %.*s", f, py->n > 60 ? 60 : (int)py->n,
                (const char *)py->p);
        w->out->other_file = true;
    } else if (!strncmp(f, "runpy.", 6) && !(first && is_self(first))) {
        pv_note(w, line, "%s runs a file that cannot be told from the text", f);
        w->out->other_file = true;
    }
    for (size_t i = 0; i < args; i++) /* [sys.executable, "-c", code] */
        for (size_t k = 0; arg[i].v->kind == PV_LIST && k < arg[i].v->n; k++)
            if (arg[i].v->item[k]->from && pv_is_text(arg[i].v->item[k]))
                pv_run(w, arg[i].v->item[k], f, line);
}

static const struct pv *path_or_file(struct pv_walk *w, const char *f, const struct pv_arg *arg,
                                     size_t args)
{
    const struct pv *v = pv_arg(arg, args, 0, "file"), *last = NULL;
    if (!v)
        return NULL;
    if (!strcmp(f, "open") || !strcmp(f, "io.open"))
        return object(w, PV_FILE, v);
    if (!strcmp(f, "io.BytesIO") || !strcmp(f, "io.StringIO")) {
        struct pv *o = pv_alloc(w, sizeof *o);
        if (!o || !pv_is_text(v))
            return &pv_unknown;
        *o = (struct pv){.kind = PV_FILE, .p = (const uint8_t *)"", .self = v};
        return o;
    }
    if (!strcmp(f, "pathlib.Path") || !strcmp(f, "os.path.abspath") ||
        !strcmp(f, "os.path.realpath"))
        return object(w, PV_PATH, v);
    if (!strcmp(f, "os.path.dirname"))
        return object(w, PV_PATH, NULL);
    if (!strcmp(f, "os.path.join")) {
        for (size_t i = 0; i < args; i++)
            last = arg[i].v;
        return object(w, PV_PATH, last && pv_is_text(last) ? last : NULL);
    }
    return NULL;
}

static const struct pv *call_name(struct pv_walk *w, const struct pv *fn, const struct pv_arg *arg,
                                  size_t args, size_t line)
{
    const char *f = (const char *)fn->p;
    const struct pv *v = pv_arg(arg, args, 0, "source"), *r;
    char name[64];
    if (fn->n >= sizeof name)
        return &pv_unknown;
    memcpy(name, f, fn->n); /* names bound to a part of a longer one do not end with NUL */
    name[fn->n] = 0;
    f = name;
    if (!strncmp(f, "builtins.", 9))
        f += 9;
    if (!strcmp(f, "exec") || !strcmp(f, "eval") || !strcmp(f, "compile")) {
        pv_run(w, v ? v : &pv_unknown, f, line);
        return v && *f == 'c' ? v : &pv_unknown;
    }
    if (!strcmp(f, "__import__") || !strcmp(f, "importlib.import_module"))
        return v && v->kind == PV_STR ? pv_text(w, PV_NAME, v->p, v->n, NULL) : &pv_unknown;
    if (!strcmp(f, "getattr")) {
        const struct pv *attr = pv_arg(arg, args, 1, NULL);
        return v && attr && attr->kind == PV_STR
                   ? pv_attribute(w, v, (const char *)attr->p, attr->n)
                   : &pv_unknown;
    }
    if (!strcmp(f, "str") || !strcmp(f, "bytes") || !strcmp(f, "bytearray"))
        return convert(w, *f == 's' ? PV_STR : PV_BYTES, arg, args);
    starts(w, f, arg, args, line);
    if ((r = pv_decoder(w, f, arg, args, line)) || (r = path_or_file(w, f, arg, args)) ||
        (r = simple(w, f, arg, args)))
        return r;
    return &pv_unknown;
}

const struct pv *pv_call(struct pv_walk *w, const struct pv *f, const struct pv_arg *arg,
                         size_t args, size_t line)
{
    const struct pv *self = f->self;
    w->steps++;
    if (f->kind == PV_NAME)
        return call_name(w, f, arg, args, line);
    if (f->kind == PV_FUNC)
        return pv_call_own(w, f, arg, args);
    if (f->kind != PV_METHOD)
        return &pv_unknown;
    const char *name = (const char *)f->p;
    if (self->kind == PV_PACKER) {
        const struct pv *data = pv_arg(arg, args, 0, "data");
        return data && (named(name, f->n, "decompress") || named(name, f->n, "read"))
                   ? pv_unpack(w, (enum packer)self->i, self->self, data, line)
                   : &pv_unknown;
    }
    if (pv_same(self, "__file__") && named(name, f->n, "replace")) {
        const struct pv *other = pv_arg(arg, args, 1, NULL); /* a file beside this one */
        return other && pv_is_text(other) ? object(w, PV_PATH, other) : &pv_unknown;
    }
    if (self->kind == PV_FILE || self->kind == PV_PATH)
        return file_method(w, self, name, f->n, pv_arg(arg, args, 0, NULL));
    if (self->kind == PV_OUTSIDE)
        return self;
    if (pv_is_text(self) || self->kind == PV_LIST)
        return pv_text_method(w, self, name, f->n, arg, args);
    if (self->kind == PV_DICT && named(name, f->n, "get")) {
        const struct pv *key = pv_arg(arg, args, 0, NULL), *got = NULL;
        static const struct pv none = {.kind = PV_NONE};
        const struct pv *const part[3] = {key ? key : &none, &none, &none};
        got = key ? pv_slice(w, self, part, false) : NULL;
        return got ? got : &pv_unknown;
    }
    return &pv_unknown;
}
