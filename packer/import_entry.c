/*
 * import_entry.c - see import_layout.h: tensors that are dictionaries of their own.
 *
 *   {"type": "fp16", "data": tensor}                                  fp8, bf16, fp32 too
 *   {"type": ..., "bits": 6, "q": tensor, "scale": tensor}
 *   {"type": "int6", "packed": bytes, "scale", "shape", "n_vals", "bits"}
 *   {"type": "fp4", "packed": tensor, "scale", "shape"}
 *   {"type": "ternary", "packed": bytes, "scale", "shape", "padded_cols", "group_size", "n_trits",
 *    "orig_shape"}                                                    ternary_bitmask, binary too
 *
 * import_unpack.h says what "packed" holds and where each is from.
 */
#include <string.h>

#include "model/reader.h"
#include "packer/import_layout.h"
#include "packer/import_number.h"
#include "packer/import_unpack.h"

/* A matrix while it is unpacked. */
struct packed {
    const char *name, *type;
    const struct pickle_value *entry;
    size_t ndim, shape[TENSOR_MAX_DIMS]; /* of the tensor */
    size_t rows, cols;                   /* of the matrix that was packed: cols without padding */
    size_t padded, group, n;             /* columns with padding, numbers per scale, numbers */
    enum packing how;
    unsigned bits;
};

static size_t count_of(const struct pickle_value *entry, const char *key, size_t missing)
{
    const struct pickle_value *v = pickle_get(entry, key);
    return v && v->kind == PICKLE_INT && v->i > 0 ? (size_t)v->i : missing;
}

/* A list or tuple of counts; false when it is none, or its product is no number. */
static bool shape_of(const struct pickle_value *v, size_t *ndim, size_t *shape, size_t *elems)
{
    if (!v || (v->kind != PICKLE_LIST && v->kind != PICKLE_TUPLE) || v->n > TENSOR_MAX_DIMS)
        return false;
    *ndim = v->n;
    *elems = 1;
    for (size_t i = 0; i < v->n; i++) {
        if (v->item[i]->kind != PICKLE_INT || v->item[i]->i < 1 ||
            __builtin_mul_overflow(*elems, (size_t)v->item[i]->i, elems))
            return false;
        shape[i] = (size_t)v->item[i]->i;
    }
    return true;
}

/* What the dictionary says about a packed matrix; false when that makes no sense. */
static bool describe(struct packed *m)
{
    static const struct {
        const char *type, *count;
        enum packing how;
    } known[] = {
        {"ternary", "n_trits", PACK_TERNARY},
        {"ternary_bitmask", "n_trits", PACK_BITMASK},
        {"binary", "n_bits", PACK_BINARY},
        {"fp4", NULL, PACK_NIBBLE},
    };
    size_t matrix[TENSOR_MAX_DIMS], dims, elems, all, padded_elems;
    const struct pickle_value *original = pickle_get(m->entry, "orig_shape");
    const char *count = "n_vals";
    m->how = PACK_BITS;
    m->bits = (unsigned)count_of(m->entry, "bits", 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(m->type, known[i].type)) {
            m->how = known[i].how;
            count = known[i].count;
        }
    if (m->how == PACK_BITS && (strncmp(m->type, "int", 3) || m->bits < 2 || m->bits > 8))
        return false;
    if (!shape_of(pickle_get(m->entry, "shape"), &dims, matrix, &elems))
        return false;
    m->cols = dims ? matrix[dims - 1] : 1;
    m->rows = elems / m->cols;
    if (!shape_of(original ? original : pickle_get(m->entry, "shape"), &m->ndim, m->shape, &all) ||
        all != elems)
        return false;
    m->padded = count_of(m->entry, "padded_cols", m->cols);
    m->group = count_of(m->entry, "group_size", m->padded);
    m->n = count_of(m->entry, count ? count : "", elems);
    return m->padded >= m->cols && m->padded - m->cols < m->group &&
           !__builtin_mul_overflow(m->rows, m->padded, &padded_elems) && m->n == padded_elems &&
           m->n % m->group == 0;
}

/* The bytes of "packed": bytes, or a tensor of them. */
static enum err_code packed_bytes(struct import *im, const struct packed *m, const uint8_t **in,
                                  size_t *len, struct err *e)
{
    const struct pickle_value *v = pickle_get(m->entry, "packed");
    struct tensor_view t;
    if (v->kind == PICKLE_BYTES) {
        *in = (const uint8_t *)v->text;
        *len = v->n;
        return ERR_OK;
    }
    enum err_code rc = ptz_tensor(im->p, v, m->name, &t, e);
    if (!rc && t.dtype != ST_U8)
        rc = err_set(e, ERR_INPUT, "tensor %.80s: packed into other numbers than bytes", m->name);
    *in = rc ? NULL : t.data;
    *len = rc ? 0 : t.nbytes;
    return rc;
}

/* Ternary scripts store the mean of |w| of a group and multiply by it over the mean of |q|. */
static enum err_code ternary_scales(struct import *im, struct found *s, const int8_t *q,
                                    const struct packed *m, struct err *e)
{
    size_t groups = m->n / m->group;
    uint8_t *out;
    enum err_code rc = ptz_alloc(im->p, &out, groups * sizeof(float), m->name, e);
    for (size_t i = 0; !rc && i < groups; i++) {
        size_t some = 0;
        for (size_t j = 0; j < m->group; j++)
            some += q[i * m->group + j] != 0;
        float mean = (float)some / (float)m->group;
        float scale = import_number(&s->view, i) / (mean < 1e-8f ? 1e-8f : mean);
        put_f32(out + 4 * i, scale);
    }
    s->view.dtype = ST_F32;
    s->view.data = out;
    s->view.nbytes = groups * sizeof(float);
    return rc;
}

/* Padding is cut off; then groups may end within a row, so the product takes the place of both. */
static enum err_code crop(struct import *im, struct found *f, const struct found *s,
                          const int8_t *q, const struct packed *m, const char *kind, struct err *e)
{
    uint8_t *out;
    enum err_code rc = ptz_alloc(im->p, &out, m->rows * m->cols * sizeof(float), m->name, e);
    for (size_t r = 0; !rc && r < m->rows; r++)
        for (size_t c = 0; c < m->cols; c++) {
            size_t at = r * m->padded + c;
            float w = (float)q[at] * import_number(&s->view, at / m->group);
            put_f32(out + 4 * (r * m->cols + c), w);
        }
    snprintf(f->name, sizeof f->name, "%s", m->name);
    snprintf(f->type, sizeof f->type, "%.7s as F32", kind);
    f->group = 0;
    f->view.dtype = ST_F32;
    f->view.data = out;
    f->view.nbytes = m->rows * m->cols * sizeof(float);
    return rc;
}

static enum err_code unpack(struct import *im, const struct packed *m, struct err *e)
{
    struct found q = {.group = m->group}, s = {0};
    char kind[FOUND_TYPE];
    const uint8_t *in;
    uint8_t *out;
    size_t len, groups = m->n / m->group;
    snprintf(q.name, sizeof q.name, "%s.q", m->name);
    snprintf(s.name, sizeof s.name, "%s.scale", m->name);
    import_kind(kind, m->type);
    strcpy(q.type, kind);
    enum err_code rc = packed_bytes(im, m, &in, &len, e);
    if (!rc)
        rc = ptz_tensor(im->p, pickle_get(m->entry, "scale"), s.name, &s.view, e);
    if (!rc && (tensor_elems(&s.view) != groups || !import_is_float(s.view.dtype)))
        rc = err_set(e, ERR_INPUT, "tensor %.80s: %zu scales, expected %zu", m->name,
                     tensor_elems(&s.view), groups);
    if (!rc && m->n / 8 > len) /* the sparsest packing is a bit per number */
        rc = err_set(e, ERR_INPUT, "tensor %.80s: %zu bytes are too few for %zu numbers", m->name,
                     len, m->n);
    if (!rc)
        rc = ptz_alloc(im->p, &out, m->n, m->name, e);
    if (!rc && !import_unpack((int8_t *)out, m->n, m->how, m->bits, in, len))
        rc = err_set(e, ERR_INPUT, "tensor %.80s: %zu bytes are not %zu numbers packed as %s",
                     m->name, len, m->n, m->type);
    if (rc)
        return rc;
    q.view = (struct tensor_view){.dtype = ST_I8, .ndim = m->ndim, .data = out, .nbytes = m->n};
    memcpy(q.view.shape, m->shape, sizeof m->shape);
    if (m->how == PACK_TERNARY || m->how == PACK_BITMASK)
        rc = ternary_scales(im, &s, (const int8_t *)out, m, e);
    if (!rc && m->padded != m->cols) {
        rc = crop(im, &q, &s, (const int8_t *)out, m, kind, e);
        return rc ? rc : import_add(im, &q, e);
    }
    if (!rc)
        rc = import_add(im, &q, e);
    return rc ? rc : import_add(im, &s, e);
}

static enum err_code plain(struct import *im, const char *name, const char *suffix,
                           const char *type, const struct pickle_value *v, struct err *e)
{
    struct found f = {0};
    snprintf(f.name, sizeof f.name, "%s%s", name, suffix);
    snprintf(f.type, sizeof f.type, "%s", type);
    enum err_code rc = ptz_tensor(im->p, v, f.name, &f.view, e);
    return rc ? rc : import_add(im, &f, e);
}

static enum err_code entry(struct import *im, const char *name, const struct pickle_value *v,
                           struct err *e)
{
    const struct pickle_value *type = pickle_get(v, "type"), *q = pickle_get(v, "q");
    struct packed m = {.name = name, .entry = v, .type = "?"};
    char kind[FOUND_TYPE] = "int8";
    size_t bits = count_of(v, "bits", 0);
    if (type && type->kind == PICKLE_STR)
        m.type = type->text;
    if (pickle_get(v, "data"))
        return plain(im, name, "", "", pickle_get(v, "data"), e);
    if (q) {
        if (bits >= 2 && bits <= 8)
            snprintf(kind, sizeof kind, "int%zu", bits);
        enum err_code rc = plain(im, name, ".q", kind, q, e);
        return rc ? rc : plain(im, name, ".scale", "", pickle_get(v, "scale"), e);
    }
    im->bf16 = true; /* all of these scripts do so after unpacking */
    if (!describe(&m))
        return err_set(e, ERR_INPUT,
                       "tensor %.80s: packed as %.40s in a way that is not understood", name,
                       m.type);
    return unpack(im, &m, e);
}

enum err_code import_entry(struct import *im, const char *name, const struct pickle_value *v,
                           struct err *e)
{
    struct err why = {0};
    if (strlen(name) + sizeof ".scale" > FOUND_NAME) {
        import_problem(im, "a tensor with a name that is too long");
        return ERR_OK;
    }
    enum err_code rc = entry(im, name, v, &why);
    if (rc != ERR_INPUT)
        return rc ? err_set(e, rc, "%s", why.msg) : ERR_OK;
    import_problem(im, "%.180s", why.msg);
    return ERR_OK;
}
