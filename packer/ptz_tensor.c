/* ptz_tensor.c - see ptz_read.h: tensors and arrays as views. */
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/ptz_blocks.h"
#include "packer/ptz_globals.h"
#include "packer/ptz_numpy.h"
#include "packer/ptz_zip.h"

struct storage {
    unsigned type;
    const uint8_t *data;
    size_t elems;
};

struct layout {
    size_t offset, stride[TENSOR_MAX_DIMS], elems;
    bool contiguous;
};

static enum err_code wrong(const struct ptz *p, const char *name, const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%s: tensor %.80s: %s", p->path, name, what);
}

/* ---- where the bytes are ---- */

/* An entry of the archive, read once. `key` lives as long as p. */
static enum err_code entry_bytes(struct ptz *p, const char *folder, const char *key,
                                 const char *entry, const uint8_t **data, size_t *n, struct err *e)
{
    for (const struct ptz_block *b = p->blocks; b; b = b->next)
        if (b->key && !strcmp(b->key, key)) {
            *data = b->data;
            *n = b->n;
            return ERR_OK;
        }
    uint8_t *fresh;
    enum err_code rc = ptz_zip_read(p->zip, folder, entry, p->limit - p->spent, &fresh, n, e);
    if (rc)
        return rc;
    *data = fresh;
    return ptz_keep(p, key, fresh, *n, e);
}

/* The bytes of the storage called key: in the file l, or in the archive. */
static enum err_code storage_bytes(struct ptz *p, const struct ptz_legacy *l, const char *key,
                                   const char *name, const uint8_t **data, size_t *n, struct err *e)
{
    const char *folder;
    char entry[96] = "data/";
    const struct ptz_storage *s = ptz_legacy_find(l, key);
    if (s) {
        *data = s->data;
        *n = s->n;
        return ERR_OK;
    }
    if (!p->zip || l != &p->legacy || strlen(key) > 64)
        return wrong(p, name, p->zip ? "its storage has a long name" : "there is no archive", e);
    strcat(entry, key);
    enum err_code rc = ptz_zip_top(p->zip, &folder, e);
    return rc ? rc : entry_bytes(p, folder, key, entry, data, n, e);
}

/* ('storage', type, key, location, elements) */
static enum err_code named_storage(struct ptz *p, const struct ptz_legacy *l,
                                   const struct pickle_value *v, unsigned type, const char *name,
                                   struct storage *s, struct err *e)
{
    const struct pickle_value *id = v && v->kind == PICKLE_PERSID ? v->item[0] : NULL;
    const struct pickle_value *key = ptz_item(id, 2, PICKLE_STR);
    const struct pickle_value *global = ptz_item(id, 1, PICKLE_GLOBAL);
    const struct pickle_value *elems = ptz_item(id, 4, PICKLE_INT);
    struct ptz_meaning m = ptz_meaning(global);
    size_t n;
    if (!pickle_is(ptz_item(id, 0, PICKLE_STR), "storage") || !key ||
        (m.role != PTZ_STORAGE && m.role != PTZ_BYTES) || key->n != strlen(key->text) || !elems ||
        elems->i < 0)
        return wrong(p, name, "its storage is described in a way that is not understood", e);
    enum err_code rc = storage_bytes(p, l, key->text, name, &s->data, &n, e);
    if (rc)
        return rc;
    size_t claimed = (size_t)elems->i;
    if (claimed > SIZE_MAX / 8 || n != claimed * ptz_type_size(m.type))
        return err_set(e, ERR_INPUT, "%s: tensor %.80s: storage %.40s has %zu bytes, not %zu of %s",
                       p->path, name, key->text, n, claimed, ptz_globals[global->i].name);
    s->type = m.role == PTZ_BYTES ? type : m.type;
    s->elems = n / ptz_type_size(s->type);
    return ERR_OK;
}

/* A storage of the archive; or one that pickle.dumps, without torch.save, put there as a file of
 * its own: _load_from_bytes(bytes). `type` is what a storage of bytes holds. */
static enum err_code find_storage(struct ptz *p, const struct pickle_value *v, unsigned type,
                                  const char *name, struct storage *s, struct err *e)
{
    if (!v || v->kind != PICKLE_CALL || ptz_meaning(v).role != PTZ_LOADED)
        return named_storage(p, &p->legacy, v, type, name, s, e);
    const struct pickle_value *bytes = ptz_item(v->item[0], 0, PICKLE_BYTES);
    struct pickle inner = {0};
    struct ptz_legacy l = {0};
    if (!bytes || !ptz_legacy_is((const uint8_t *)bytes->text, bytes->n))
        return wrong(p, name, "its storage is no file of torch", e);
    enum err_code rc =
        ptz_legacy_parse(&inner, &l, (const uint8_t *)bytes->text, bytes->n, p->path, e);
    if (!rc)
        rc = named_storage(p, &l, inner.root, type, name, s, e);
    ptz_legacy_free(&l); /* the storage lies in `bytes` */
    pickle_free(&inner);
    return rc;
}

/* ---- shapes ---- */

/* Sizes and strides, with the largest index inside the storage. */
static enum err_code read_layout(const struct ptz *p, const struct pickle_value *args,
                                 const struct storage *s, struct tensor_view *t, struct layout *l,
                                 struct err *e)
{
    const struct pickle_value *offset = ptz_item(args, 1, PICKLE_INT);
    const struct pickle_value *size = ptz_item(args, 2, PICKLE_TUPLE);
    const struct pickle_value *stride = ptz_item(args, 3, PICKLE_TUPLE);
    if (!offset || offset->i < 0 || !size || !stride || size->n != stride->n ||
        size->n > TENSOR_MAX_DIMS)
        return wrong(p, t->name, "its shape is described in a way that is not understood", e);
    t->ndim = size->n;
    *l = (struct layout){.offset = (size_t)offset->i, .elems = 1, .contiguous = true};
    size_t last = l->offset;
    bool inside = true;
    for (size_t i = size->n; i-- > 0;) {
        const struct pickle_value *d = ptz_item(size, i, PICKLE_INT);
        const struct pickle_value *k = ptz_item(stride, i, PICKLE_INT);
        if (!d || !k || d->i < 0 || k->i < 0)
            return wrong(p, t->name, "a size or stride that is no count", e);
        size_t dim = (size_t)d->i, step = (size_t)k->i, span;
        t->shape[i] = dim;
        l->stride[i] = step;
        l->contiguous &= dim == 1 || step == l->elems;
        inside &= !dim || (!__builtin_mul_overflow(dim - 1, step, &span) &&
                           !__builtin_add_overflow(last, span, &last));
        if (__builtin_mul_overflow(l->elems, dim, &l->elems))
            return wrong(p, t->name, "more elements than can be counted", e);
    }
    if (l->elems && (!inside || last >= s->elems))
        return wrong(p, t->name, "reaches outside its storage", e);
    return ERR_OK;
}

static void gather(uint8_t *out, const struct storage *s, const struct tensor_view *t,
                   const struct layout *l)
{
    size_t index[TENSOR_MAX_DIMS] = {0}, esize = ptz_type_size(s->type), at = l->offset;
    for (size_t i = 0; i < l->elems; i++) {
        memcpy(out + i * esize, s->data + at * esize, esize);
        for (size_t d = t->ndim; d-- > 0;) {
            at += l->stride[d];
            if (++index[d] < t->shape[d])
                break;
            at -= index[d] * l->stride[d];
            index[d] = 0;
        }
    }
}

/* ---- float8 ---- */

/* Bits of the fp32 number: sign, `ebits` of exponent with that bias, the rest mantissa. The largest
 * exponent of E5M2 stands for infinities and NaN; E4M3FN has only the NaN with all bits set. */
static uint16_t f8_to_bf16(uint8_t v, unsigned type)
{
    unsigned mbits = type == PTZ_E4M3 ? 3 : 2, bias = type == PTZ_E4M3 ? 7 : 15;
    unsigned mant = v & ((1u << mbits) - 1), top = (1u << (7 - mbits)) - 1;
    unsigned exp = (unsigned)v >> mbits & top;
    uint16_t sign = (uint16_t)((v & 0x80) << 8);
    if (type == PTZ_E5M2 ? exp == top : (v & 0x7f) == 0x7f)
        return (uint16_t)(sign | 0x7f80 | (mant && type == PTZ_E5M2 ? 0x40 : 0) |
                          (type == PTZ_E4M3 ? 0x40 : 0));
    if (!exp && !mant)
        return sign;
    if (!exp) { /* subnormal: shift up to the implied bit */
        exp = 1;
        while (!(mant >> mbits)) {
            mant <<= 1;
            exp--; /* wraps below 0, and back with the bias */
        }
        mant &= (1u << mbits) - 1;
    }
    return (uint16_t)(sign | (exp + 127 - bias) << 7 | mant << (7 - mbits));
}

static enum err_code widen(struct ptz *p, struct tensor_view *t, unsigned type, struct err *e)
{
    size_t n = t->nbytes;
    uint8_t *out;
    enum err_code rc = ptz_alloc(p, &out, n > SIZE_MAX / 2 ? SIZE_MAX : 2 * n, t->name, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        uint16_t v = f8_to_bf16(t->data[i], type);
        out[2 * i] = (uint8_t)v;
        out[2 * i + 1] = (uint8_t)(v >> 8);
    }
    t->dtype = ST_BF16;
    t->data = out;
    t->nbytes = 2 * n;
    return ERR_OK;
}

/* ---- the parts together ---- */

static enum err_code view(struct ptz *p, struct tensor_view *out, const struct storage *s,
                          const struct layout *l, struct err *e)
{
    size_t esize = ptz_type_size(s->type);
    out->dtype = s->type < ST_DTYPES ? (enum st_dtype)s->type : ST_U8;
    if (l->contiguous || !l->elems) {
        out->nbytes = l->elems * esize;
        out->data = l->elems ? s->data + l->offset * esize : s->data;
    } else {
        /* With strides of 0 a byte can claim to be any number of elements. */
        bool many = l->elems > p->limit / esize;
        uint8_t *copy;
        enum err_code rc = ptz_alloc(p, &copy, many ? SIZE_MAX : l->elems * esize, out->name, e);
        if (rc)
            return rc;
        out->nbytes = l->elems * esize;
        gather(copy, s, out, l);
        out->data = copy;
    }
    return s->type >= ST_DTYPES ? widen(p, out, s->type, e) : ERR_OK;
}

static enum err_code torch_tensor(struct ptz *p, const struct pickle_value *v,
                                  struct tensor_view *out, struct err *e)
{
    struct storage s = {0};
    struct layout l = {0};
    const struct pickle_value *args = v->item[0];
    struct ptz_meaning type = ptz_meaning(ptz_item(args, 6, PICKLE_GLOBAL));
    if (ptz_meaning(v).role == PTZ_TENSOR_V3 && type.role != PTZ_DTYPE)
        return wrong(p, out->name, "its type is not understood", e);
    if (type.role != PTZ_DTYPE)
        type.type = ST_U8;
    const struct pickle_value *from = args->n ? args->item[0] : NULL;
    enum err_code rc = find_storage(p, from, type.type, out->name, &s, e);
    if (!rc)
        rc = read_layout(p, args, &s, out, &l, e);
    return rc ? rc : view(p, out, &s, &l, e);
}

static enum err_code array_view(struct ptz *p, const struct ptz_array *a, struct tensor_view *out,
                                struct err *e)
{
    struct storage s = {a->dtype, a->data, a->elems};
    struct layout l = {.elems = a->elems, .contiguous = !a->fortran || a->ndim < 2};
    size_t step = 1;
    out->ndim = a->ndim;
    memcpy(out->shape, a->shape, sizeof out->shape);
    for (size_t i = 0; i < a->ndim; i++) {
        l.stride[i] = step;
        step *= a->shape[i];
    }
    return view(p, out, &s, &l, e);
}

/* An array of an .npz archive, or the .npy file that the payload is. */
static enum err_code npy_tensor(struct ptz *p, const struct pickle_value *v,
                                struct tensor_view *out, struct err *e)
{
    const char *entry = v->item[0]->text;
    const uint8_t *data = p->layers.data;
    size_t n = p->payload_bytes;
    struct ptz_array a;
    enum err_code rc = p->zip ? entry_bytes(p, "", entry, entry, &data, &n, e) : ERR_OK;
    if (!rc)
        rc = ptz_npy_parse(&a, data, n, p->path, out->name, e);
    return rc ? rc : array_view(p, &a, out, e);
}

bool ptz_is_tensor(const struct ptz *p, const struct pickle_value *v)
{
    enum ptz_role role = v && v->kind == PICKLE_CALL ? ptz_meaning(v).role : PTZ_OTHER;
    return role == PTZ_TENSOR || role == PTZ_TENSOR_V3 || role == PTZ_PARAMETER ||
           role == PTZ_NP_ARRAY || role == PTZ_NP_BUFFER || role == PTZ_NP_SCALAR ||
           (p->made && v && v->kind == PICKLE_PERSID);
}

enum err_code ptz_tensor(struct ptz *p, const struct pickle_value *v, const char *name,
                         struct tensor_view *out, struct err *e)
{
    struct ptz_array a;
    *out = (struct tensor_view){.name = name};
    if (p->made && v && v->kind == PICKLE_PERSID)
        return npy_tensor(p, v, out, e);
    if (v && v->kind == PICKLE_CALL && ptz_meaning(v).role == PTZ_PARAMETER)
        v = ptz_item(v->item[0], 0, PICKLE_CALL);
    enum ptz_role role = v && v->kind == PICKLE_CALL ? ptz_meaning(v).role : PTZ_OTHER;
    if (role == PTZ_TENSOR || role == PTZ_TENSOR_V3)
        return torch_tensor(p, v, out, e);
    enum err_code rc = ptz_numpy_value(&a, v, p->path, name, e);
    return rc ? rc : array_view(p, &a, out, e);
}
