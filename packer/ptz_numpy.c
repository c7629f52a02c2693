/* ptz_numpy.c - see ptz_numpy.h. */
#include "packer/ptz_numpy.h"

#include <stdio.h>
#include <string.h>

#include "model/reader.h"
#include "packer/ptz_globals.h"

static enum err_code wrong(const char *path, const char *name, const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%s: tensor %.80s: %s", path, name, what);
}

/* "f4", "<f4", "|i1": kind and bytes; `order` (or '\0') comes from a pickle's state. */
static enum err_code read_type(struct ptz_array *a, const char *text, char order, const char *path,
                               const char *name, struct err *e)
{
    static const struct {
        const char *code;
        enum st_dtype dtype;
    } known[] = {
        {"i1", ST_I8},  {"u1", ST_U8},  {"b1", ST_BOOL}, {"?", ST_BOOL},
        {"f2", ST_F16}, {"f4", ST_F32}, {"f8", ST_F64},  {"i2", ST_I16},
        {"u2", ST_U16}, {"i4", ST_I32}, {"i8", ST_I64},
    };
    if (strchr("<>|=", *text) && *text)
        order = *text++;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].code, text))
            continue;
        a->dtype = known[i].dtype;
        return order == '>' && st_dtype_size(a->dtype) > 1
                   ? wrong(path, name, "big-endian numbers", e)
                   : ERR_OK;
    }
    return err_set(e, ERR_INPUT, "%s: tensor %.80s: NumPy type %.20s is not understood", path, name,
                   text);
}

/* elems from shape, and whether n bytes are as many as that takes. */
static enum err_code check_size(struct ptz_array *a, size_t n, const char *path, const char *name,
                                struct err *e)
{
    bool over = false;
    size_t bytes;
    a->elems = 1;
    for (size_t i = 0; i < a->ndim; i++)
        over |= __builtin_mul_overflow(a->elems, a->shape[i], &a->elems);
    over |= __builtin_mul_overflow(a->elems, st_dtype_size(a->dtype), &bytes);
    if (!over && bytes == n)
        return ERR_OK;
    return err_set(e, ERR_INPUT, "%s: tensor %.80s: %zu bytes are not those of its shape", path,
                   name, n);
}

/* ---- pickles ---- */

static enum err_code read_shape(struct ptz_array *a, const struct pickle_value *shape,
                                const char *path, const char *name, struct err *e)
{
    if (!shape || shape->n > TENSOR_MAX_DIMS)
        return wrong(path, name, "a NumPy array without a shape, or of too many dimensions", e);
    a->ndim = shape->n;
    for (size_t i = 0; i < shape->n; i++) {
        const struct pickle_value *d = ptz_item(shape, i, PICKLE_INT);
        if (!d || d->i < 0)
            return wrong(path, name, "a size that is no count", e);
        a->shape[i] = (size_t)d->i;
    }
    return ERR_OK;
}

/* numpy.dtype('f4', False, True) with the state (3, '<', ...). */
static enum err_code read_dtype(struct ptz_array *a, const struct pickle_value *v, const char *path,
                                const char *name, struct err *e)
{
    if (!v || v->kind != PICKLE_CALL || ptz_meaning(v).role != PTZ_NP_DTYPE)
        return wrong(path, name, "a NumPy array without a type", e);
    const struct pickle_value *code = ptz_item(v->item[0], 0, PICKLE_STR);
    const struct pickle_value *order = v->n > 1 ? ptz_item(v->item[1], 1, PICKLE_STR) : NULL;
    if (!code)
        return wrong(path, name, "a NumPy array without a type", e);
    return read_type(a, code->text, order ? *order->text : '\0', path, name, e);
}

enum err_code ptz_numpy_value(struct ptz_array *a, const struct pickle_value *v, const char *path,
                              const char *name, struct err *e)
{
    static const struct pickle_value scalar = {.kind = PICKLE_TUPLE};
    const struct pickle_value *dtype, *shape, *bytes;
    bool call = v && v->kind == PICKLE_CALL;
    const struct pickle_value *args = call ? v->item[0] : NULL;
    *a = (struct ptz_array){0};
    switch (call ? ptz_meaning(v).role : PTZ_OTHER) {
    case PTZ_NP_BUFFER: { /* (bytes, dtype, shape, order) */
        bytes = ptz_item(args, 0, PICKLE_BYTES);
        dtype = ptz_item(args, 1, PICKLE_CALL);
        shape = ptz_item(args, 2, PICKLE_TUPLE);
        const struct pickle_value *order = ptz_item(args, 3, PICKLE_STR);
        if (!pickle_is(order, "C") && !pickle_is(order, "F"))
            return wrong(path, name, "a NumPy array without an order", e);
        a->fortran = *order->text == 'F';
        break;
    }
    case PTZ_NP_ARRAY: { /* the state: (version, shape, dtype, Fortran order, bytes) */
        const struct pickle_value *state = v->n > 1 ? v->item[1] : NULL;
        const struct pickle_value *order = ptz_item(state, 3, PICKLE_BOOL);
        shape = ptz_item(state, 1, PICKLE_TUPLE);
        dtype = ptz_item(state, 2, PICKLE_CALL);
        bytes = ptz_item(state, 4, PICKLE_BYTES);
        if (!order)
            return wrong(path, name, "a NumPy array without its state", e);
        a->fortran = order->i;
        break;
    }
    case PTZ_NP_SCALAR: /* (dtype, bytes) */
        dtype = ptz_item(args, 0, PICKLE_CALL);
        bytes = ptz_item(args, 1, PICKLE_BYTES);
        shape = &scalar;
        break;
    default:
        return wrong(path, name, "is no tensor", e);
    }
    enum err_code rc = read_dtype(a, dtype, path, name, e);
    if (!rc && !bytes)
        rc = wrong(path, name, "a NumPy array whose contents are no bytes", e);
    if (!rc)
        rc = read_shape(a, shape, path, name, e);
    if (!rc)
        rc = check_size(a, bytes->n, path, name, e);
    if (!rc)
        a->data = (const uint8_t *)bytes->text;
    return rc;
}

/* ---- .npy ---- */

static const char magic[6] = "\x93NUMPY";

bool ptz_npy_is(const uint8_t *data, size_t n)
{
    return n >= sizeof magic && !memcmp(data, magic, sizeof magic);
}

/* The header is a Python dictionary literal with these three keys; a cursor over it. */
struct header {
    const char *at, *end;
};

static void blanks(struct header *h)
{
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\n'))
        h->at++;
}

static bool eat(struct header *h, const char *text)
{
    size_t n = strlen(text);
    blanks(h);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, text, n))
        return false;
    h->at += n;
    return true;
}

/* 'text' in quotes, shorter than cap. */
static bool quoted(struct header *h, char *out, size_t cap)
{
    blanks(h);
    char quote = h->at < h->end ? *h->at : 0;
    if (quote != '\'' && quote != '"')
        return false;
    const char *from = ++h->at, *to = memchr(from, quote, (size_t)(h->end - from));
    if (!to || (size_t)(to - from) >= cap)
        return false;
    memcpy(out, from, (size_t)(to - from));
    out[to - from] = 0;
    h->at = to + 1;
    return true;
}

/* "(3, 4)": counts, each followed by a comma, the last one with or without. */
static bool tuple(struct header *h, struct ptz_array *a)
{
    bool more = eat(h, "(");
    if (!more)
        return false;
    for (a->ndim = 0; !eat(h, ")"); a->ndim++) {
        size_t v = 0, digits = 0;
        for (; h->at < h->end && *h->at >= '0' && *h->at <= '9' && digits < 18; h->at++, digits++)
            v = 10 * v + (size_t)(*h->at - '0');
        if (!digits || !more || a->ndim == TENSOR_MAX_DIMS)
            return false;
        a->shape[a->ndim] = v;
        eat(h, "L"); /* Python 2 wrote long integers so */
        more = eat(h, ",");
    }
    return true;
}

static bool read_header(struct header *h, struct ptz_array *a, char type[24])
{
    unsigned seen = 0;
    if (!eat(h, "{"))
        return false;
    while (!eat(h, "}")) {
        char key[24];
        unsigned what = 0;
        if (!quoted(h, key, sizeof key) || !eat(h, ":"))
            return false;
        if (!strcmp(key, "descr") && quoted(h, type, 24))
            what = 1;
        else if (!strcmp(key, "fortran_order") &&
                 ((a->fortran = eat(h, "True")) || eat(h, "False")))
            what = 2;
        else if (!strcmp(key, "shape") && tuple(h, a))
            what = 4;
        if (!what || seen & what)
            return false;
        seen |= what;
        eat(h, ",");
    }
    blanks(h);
    return seen == 7 && h->at == h->end;
}

enum err_code ptz_npy_parse(struct ptz_array *a, const uint8_t *data, size_t n, const char *path,
                            const char *name, struct err *e)
{
    struct reader r = reader_init(data, n);
    char type[24];
    const uint8_t *start = reader_take(&r, sizeof magic);
    *a = (struct ptz_array){0};
    if (!start || !ptz_npy_is(start, sizeof magic))
        return wrong(path, name, "no .npy file", e);
    uint8_t major = reader_u8(&r);
    reader_u8(&r); /* the minor version is 0 */
    size_t len = major == 1 ? reader_u16(&r) : reader_u32(&r);
    const uint8_t *text = reader_take(&r, len);
    if (!text || major < 1 || major > 3)
        return wrong(path, name, "a .npy file that ends in its header, or is of a later version",
                     e);
    struct header h = {(const char *)text, (const char *)text + len};
    if (!read_header(&h, a, type))
        return wrong(path, name, "the header of its .npy file is not understood", e);
    enum err_code rc = read_type(a, type, '\0', path, name, e);
    if (!rc)
        rc = check_size(a, reader_left(&r), path, name, e);
    a->data = r.at;
    return rc;
}
