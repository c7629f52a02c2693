/* ptz_read.c - see ptz_read.h: layers, archive, tensors. */
#include "packer/ptz_read.h"

#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "packer/byteshuffle.h"
#include "packer/ptz_zip.h"

/* ---- the globals that may appear; storages in the order of `storage_type` ---- */

enum { REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT, STORAGES };

static const struct pickle_global allowed[] = {
    [REBUILD_TENSOR] = {"torch._utils._rebuild_tensor_v2", false},
    [REBUILD_PARAMETER] = {"torch._utils._rebuild_parameter", false},
    [ORDERED_DICT] = {"collections.OrderedDict", true},
    [STORAGES] = {"torch.CharStorage", false},
    {"torch.ByteStorage", false},
    {"torch.HalfStorage", false},
    {"torch.BFloat16Storage", false},
    {"torch.FloatStorage", false},
    {"torch.DoubleStorage", false},
    {"torch.ShortStorage", false},
    {"torch.IntStorage", false},
    {"torch.LongStorage", false},
    {"torch.BoolStorage", false},
    {NULL, false},
};

static const enum st_dtype storage_type[] = {ST_I8,  ST_U8,  ST_F16, ST_BF16, ST_F32,
                                             ST_F64, ST_I16, ST_I32, ST_I64,  ST_BOOL};
_Static_assert(sizeof allowed / sizeof *allowed ==
                   STORAGES + sizeof storage_type / sizeof *storage_type + 1,
               "a storage without its type");

/* ---- what tensors point into ---- */

struct block {
    struct block *next;
    const char *key; /* of a storage; NULL for a tensor that was gathered */
    uint8_t *data;
    size_t n;
};

/* Keeps data[0..n) until ptz_close, or frees it. */
static enum err_code keep(struct ptz *p, const char *key, uint8_t *data, size_t n, struct err *e)
{
    struct block *b = malloc(sizeof *b);
    if (!b) {
        free(data);
        return err_nomem(e, "tensor", sizeof *b);
    }
    *b = (struct block){p->blocks, key, data, n};
    p->blocks = b;
    p->spent += n;
    return ERR_OK;
}

/* ---- tensors ---- */

struct storage {
    enum st_dtype dtype;
    const uint8_t *data;
    size_t elems;
};

static enum err_code wrong(const struct ptz *p, const char *name, const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%s: tensor %.80s: %s", p->path, name, what);
}

/* Item i of a tuple when it has that many and the item is of that kind. */
static const struct pickle_value *item(const struct pickle_value *tuple, size_t i,
                                       enum pickle_kind kind)
{
    if (!tuple || tuple->kind != PICKLE_TUPLE || i >= tuple->n)
        return NULL;
    return tuple->item[i]->kind == kind ? tuple->item[i] : NULL;
}

/* The bytes of the storage called key, read once. */
static enum err_code storage_bytes(struct ptz *p, const char *key, const char *name,
                                   const uint8_t **data, size_t *n, struct err *e)
{
    for (const struct block *b = p->blocks; b; b = b->next)
        if (b->key && !strcmp(b->key, key)) {
            *data = b->data;
            *n = b->n;
            return ERR_OK;
        }
    const char *folder;
    uint8_t *fresh;
    char entry[96] = "data/";
    if (!p->zip || strlen(key) > 64)
        return wrong(p, name, p->zip ? "its storage has a long name" : "there is no archive", e);
    strcat(entry, key);
    enum err_code rc = ptz_zip_top(p->zip, &folder, e);
    if (!rc)
        rc = ptz_zip_read(p->zip, folder, entry, p->limit - p->spent, &fresh, n, e);
    if (!rc)
        *data = fresh, rc = keep(p, key, fresh, *n, e);
    return rc;
}

/* ('storage', type, key, location, elements) */
static enum err_code find_storage(struct ptz *p, const struct pickle_value *v, const char *name,
                                  struct storage *s, struct err *e)
{
    const struct pickle_value *id = v && v->kind == PICKLE_PERSID ? v->item[0] : NULL;
    const struct pickle_value *type = item(id, 1, PICKLE_GLOBAL), *key = item(id, 2, PICKLE_STR);
    const struct pickle_value *elems = item(id, 4, PICKLE_INT);
    size_t n;
    if (!pickle_is(item(id, 0, PICKLE_STR), "storage") || !type || type->i < STORAGES || !key ||
        key->n != strlen(key->text) || !elems || elems->i < 0)
        return wrong(p, name, "its storage is described in a way that is not understood", e);
    s->dtype = storage_type[type->i - STORAGES];
    s->elems = (size_t)elems->i;
    enum err_code rc = storage_bytes(p, key->text, name, &s->data, &n, e);
    if (!rc && (s->elems > SIZE_MAX / 8 || n != s->elems * st_dtype_size(s->dtype)))
        rc = err_set(e, ERR_INPUT, "%s: tensor %.80s: storage %.40s has %zu bytes, not %zu of %s",
                     p->path, name, key->text, n, s->elems, allowed[type->i].name);
    return rc;
}

struct layout {
    size_t offset, stride[TENSOR_MAX_DIMS], elems;
    bool contiguous;
};

/* Sizes and strides, with the largest index inside the storage. */
static enum err_code read_layout(const struct ptz *p, const struct pickle_value *args,
                                 const struct storage *s, struct tensor_view *t, struct layout *l,
                                 struct err *e)
{
    const struct pickle_value *offset = item(args, 1, PICKLE_INT);
    const struct pickle_value *size = item(args, 2, PICKLE_TUPLE);
    const struct pickle_value *stride = item(args, 3, PICKLE_TUPLE);
    if (!offset || offset->i < 0 || !size || !stride || size->n != stride->n ||
        size->n > TENSOR_MAX_DIMS)
        return wrong(p, t->name, "its shape is described in a way that is not understood", e);
    t->ndim = size->n;
    *l = (struct layout){.offset = (size_t)offset->i, .elems = 1, .contiguous = true};
    size_t last = l->offset;
    bool inside = true;
    for (size_t i = size->n; i-- > 0;) {
        const struct pickle_value *d = item(size, i, PICKLE_INT), *k = item(stride, i, PICKLE_INT);
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
    size_t index[TENSOR_MAX_DIMS] = {0}, esize = st_dtype_size(s->dtype), at = l->offset;
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

enum err_code ptz_tensor(struct ptz *p, const struct pickle_value *v, const char *name,
                         struct tensor_view *out, struct err *e)
{
    struct storage s = {0};
    struct layout l = {0};
    if (v && v->kind == PICKLE_CALL && v->i == REBUILD_PARAMETER)
        v = item(v->item[0], 0, PICKLE_CALL);
    if (!v || v->kind != PICKLE_CALL || v->i != REBUILD_TENSOR)
        return wrong(p, name, "is no tensor", e);
    *out = (struct tensor_view){.name = name};
    const struct pickle_value *args = v->item[0];
    enum err_code rc = find_storage(p, item(args, 0, PICKLE_PERSID), name, &s, e);
    if (!rc)
        rc = read_layout(p, args, &s, out, &l, e);
    if (rc)
        return rc;
    size_t esize = st_dtype_size(s.dtype);
    out->dtype = s.dtype;
    if (l.contiguous || !l.elems) {
        out->nbytes = l.elems * esize;
        out->data = l.elems ? s.data + l.offset * esize : s.data;
        return ERR_OK;
    }
    /* With strides of 0 a byte can claim to be any number of elements. */
    if (l.elems > (p->limit - p->spent) / esize)
        return wrong(p, name, "has more elements than are accepted", e);
    out->nbytes = l.elems * esize;
    uint8_t *copy = malloc(out->nbytes);
    if (!copy)
        return err_nomem(e, name, out->nbytes);
    gather(copy, &s, out, &l);
    out->data = copy;
    return keep(p, NULL, copy, out->nbytes, e);
}

/* ---- layers ---- */

/* Takes the place of the payload so far. */
static void replace(struct ptz *p, uint8_t *data, size_t n)
{
    free(p->payload);
    p->payload = data;
    p->payload_bytes = n;
}

/* Undoes compressor and byte shuffle; *at is what is left then. */
static enum err_code peel(struct ptz *p, const uint8_t **at, size_t n, struct err *e)
{
    uint8_t *fresh;
    size_t fresh_n;
    p->codec = ptz_codec_guess(*at, n);
    p->payload_bytes = n;
    if (p->codec != PTZ_RAW) {
        enum err_code rc = ptz_expand(&fresh, &fresh_n, p->codec, *at, n, p->limit, p->path, e);
        if (rc)
            return rc;
        replace(p, fresh, fresh_n);
        *at = fresh;
    }
    if (byteshuffle_is(*at, p->payload_bytes)) {
        p->stride = (*at)[4];
        fresh_n = p->payload_bytes - BYTESHUFFLE_HEADER;
        if (!(fresh = malloc(fresh_n + 1)))
            return err_nomem(e, "payload", fresh_n);
        byteunshuffle(fresh, *at, p->payload_bytes);
        replace(p, fresh, fresh_n);
        *at = fresh;
    }
    return ERR_OK;
}

static enum err_code check_byteorder(struct ptz *p, const char *folder, struct err *e)
{
    uint8_t *text = NULL;
    size_t n;
    struct err none = {0};
    enum err_code rc = ptz_zip_read(p->zip, folder, "byteorder", 16, &text, &n, &none);
    if (rc) /* only newer versions of torch write it */
        return rc == ERR_RESOURCE ? err_set(e, rc, "%s", none.msg) : ERR_OK;
    bool big = n == 3 && !memcmp(text, "big", 3);
    free(text);
    return big ? err_set(e, ERR_INPUT, "%s: written by a big-endian machine", p->path) : ERR_OK;
}

/* The tree of values: data.pkl of an archive, or the whole payload. */
static enum err_code read_tree(struct ptz *p, const uint8_t *at, struct err *e)
{
    const char *folder;
    uint8_t *text;
    size_t n;
    if (p->payload_bytes < 4 || memcmp(at, "PK\3\4", 4)) {
        if (!p->payload_bytes || at[0] != 0x80)
            return err_set(e, ERR_INPUT, "%s: neither a zip archive nor a pickle%s%s", p->path,
                           p->codec == PTZ_RAW ? "" : " inside ",
                           p->codec == PTZ_RAW ? "" : ptz_codec_name(p->codec));
        return pickle_parse(&p->pickle, at, p->payload_bytes, allowed, p->path, e);
    }
    enum err_code rc = ptz_zip_open(&p->zip, at, p->payload_bytes, p->path, e);
    if (rc || (rc = ptz_zip_top(p->zip, &folder, e)) || (rc = check_byteorder(p, folder, e)) ||
        (rc = ptz_zip_read(p->zip, folder, "data.pkl", p->limit, &text, &n, e)) ||
        (rc = keep(p, NULL, text, n, e)))
        return rc;
    return pickle_parse(&p->pickle, text, n, allowed, p->path, e);
}

enum err_code ptz_parse(struct ptz *p, const void *data, size_t n, size_t limit, const char *path,
                        struct err *e)
{
    const uint8_t *at = data;
    *p = (struct ptz){.file_bytes = n, .limit = limit, .path = path};
    enum err_code rc = peel(p, &at, n, e);
    if (!rc)
        rc = read_tree(p, at, e);
    p->root = p->pickle.root;
    if (rc)
        ptz_close(p);
    return rc;
}

enum err_code ptz_open(struct ptz *p, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    *p = (struct ptz){0};
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    rc = ptz_parse(p, data, n, PTZ_LIMIT, path, e);
    if (rc)
        file_unmap(data, n);
    else
        p->map = data;
    return rc;
}

void ptz_close(struct ptz *p)
{
    pickle_free(&p->pickle);
    ptz_zip_close(p->zip);
    for (struct block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        free(b->data);
        free(b);
    }
    free(p->payload);
    if (p->map)
        file_unmap(p->map, p->file_bytes);
    *p = (struct ptz){0};
}
