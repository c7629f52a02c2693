/* safetensors.c - see safetensors.h. The JSON header is read with cJSON. */
#include "model/safetensors.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"

/* The published limit of the format; a longer header is damage, not data. */
enum { ST_MAX_HEADER = 100000000 };

static const char *const dtype_name[ST_DTYPES] = {
    [ST_F32] = "F32", [ST_F16] = "F16", [ST_BF16] = "BF16", [ST_I8] = "I8",
    [ST_U8] = "U8",   [ST_I16] = "I16", [ST_U16] = "U16",   [ST_I32] = "I32",
    [ST_I64] = "I64", [ST_F64] = "F64", [ST_BOOL] = "BOOL",
};

static bool json_size(const cJSON *j, size_t *out)
{
    double v = j && cJSON_IsNumber(j) ? j->valuedouble : -1;
    if (!(v >= 0 && v <= 9007199254740992.0) || v != (double)(uint64_t)v)
        return false;
    *out = (size_t)v;
    return true;
}

/* One entry of the header into *t; begin and end come back for the layout check. */
static enum err_code parse_tensor(struct tensor_view *t, const cJSON *j, const uint8_t *data,
                                  size_t data_bytes, const char *path, struct err *e)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(j, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(j, "shape");
    const cJSON *off = cJSON_GetObjectItemCaseSensitive(j, "data_offsets");
    size_t begin, end, want, d;
    int code = 0;
    if (!cJSON_IsObject(j) || !cJSON_IsString(dtype) || !cJSON_IsArray(shape) ||
        cJSON_GetArraySize(off) != 2 || !json_size(off->child, &begin) ||
        !json_size(off->child->next, &end))
        return err_set(e, ERR_INPUT, "%s: tensor %s: needs dtype, shape and data_offsets", path,
                       t->name);
    while (code < ST_DTYPES && strcmp(dtype->valuestring, dtype_name[code]))
        code++;
    if (code == ST_DTYPES)
        return err_set(e, ERR_INPUT, "%s: tensor %s: unknown dtype %s", path, t->name,
                       dtype->valuestring);
    t->dtype = (enum st_dtype)code;
    want = st_dtype_size(t->dtype);
    for (const cJSON *s = shape->child; s; s = s->next) {
        if (t->ndim == TENSOR_MAX_DIMS || !json_size(s, &d) || (d && want > SIZE_MAX / d))
            return err_set(e, ERR_INPUT, "%s: tensor %s: impossible shape", path, t->name);
        t->shape[t->ndim++] = d;
        want *= d;
    }
    if (begin > end || end > data_bytes || end - begin != want)
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: bytes %zu to %zu of %zu, its shape and type need %zu", path,
                       t->name, begin, end, data_bytes, want);
    t->data = data + begin;
    t->nbytes = want;
    return ERR_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct tensor_view *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->nbytes < y->nbytes ? -1 : x->nbytes > y->nbytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Offsets must tile the data exactly: a gap could hide bytes, an overlap could say one thing twice.
 */
static enum err_code check_layout(const struct st_file *f, const uint8_t *data, size_t n,
                                  const char *path, struct err *e)
{
    const uint8_t *at = data;
    const char **name = malloc((f->count + 1) * sizeof *name);
    enum err_code rc = ERR_OK;
    if (!name)
        return err_nomem(e, "tensor names", f->count * sizeof *name);
    for (size_t i = 0; i < f->count && !rc; i++) {
        name[i] = f->tensor[i].name;
        if (f->tensor[i].data != at)
            rc = err_set(e, ERR_INPUT, "%s: tensor %s: starts at byte %zu of the data, not at %zu",
                         path, f->tensor[i].name, (size_t)(f->tensor[i].data - data),
                         (size_t)(at - data));
        at = f->tensor[i].data + f->tensor[i].nbytes;
    }
    if (!rc && at != data + n)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes behind the last tensor", path,
                     (size_t)(data + n - at));
    if (!rc) {
        qsort(name, f->count, sizeof *name, by_name);
        for (size_t i = 1; i < f->count && !rc; i++)
            if (!strcmp(name[i - 1], name[i]))
                rc = err_set(e, ERR_INPUT, "%s: tensor %s: appears twice", path, name[i]);
    }
    free(name);
    return rc;
}

static enum err_code parse_meta(struct st_file *f, const cJSON *meta, const char *path,
                                struct err *e)
{
    size_t n = (size_t)cJSON_GetArraySize(meta);
    f->meta = calloc(2 * n + 1, sizeof *f->meta);
    if (!f->meta)
        return err_nomem(e, "metadata", 2 * n * sizeof *f->meta);
    for (const cJSON *j = meta->child; j; j = j->next, f->nmeta++) {
        if (!cJSON_IsString(j))
            return err_set(e, ERR_INPUT, "%s: metadata %s: not a string", path, j->string);
        f->meta[2 * f->nmeta] = strdup(j->string);
        f->meta[2 * f->nmeta + 1] = strdup(j->valuestring);
        if (!f->meta[2 * f->nmeta] || !f->meta[2 * f->nmeta + 1]) {
            f->nmeta++;
            return err_nomem(e, "metadata", strlen(j->valuestring));
        }
    }
    return ERR_OK;
}

static enum err_code parse_header(struct st_file *f, const cJSON *root, const uint8_t *data,
                                  size_t n, const char *path, struct err *e)
{
    size_t entries = (size_t)cJSON_GetArraySize(root), names = 0;
    char *at;
    enum err_code rc;
    for (const cJSON *j = root->child; j; j = j->next)
        names += strlen(j->string) + 1;
    f->tensor = calloc(entries + 1, sizeof *f->tensor);
    f->names = at = malloc(names + 1);
    if (!f->tensor || !at)
        return err_nomem(e, "tensor table", entries * sizeof *f->tensor + names);
    for (const cJSON *j = root->child; j; j = j->next) {
        if (!strcmp(j->string, "__metadata__")) {
            if (!cJSON_IsObject(j) || f->meta)
                return err_set(e, ERR_INPUT, "%s: __metadata__ must be one object", path);
            if ((rc = parse_meta(f, j, path, e)))
                return rc;
            continue;
        }
        strcpy(at, j->string);
        f->tensor[f->count].name = at;
        at += strlen(at) + 1;
        if ((rc = parse_tensor(&f->tensor[f->count], j, data, n, path, e)))
            return rc;
        f->count++;
    }
    if (f->count)
        qsort(f->tensor, f->count, sizeof *f->tensor, by_offset);
    return check_layout(f, data, n, path, e);
}

/* cJSON says the same of a header that is no JSON and of memory that ran out; this tells them
 * apart. */
static _Thread_local bool json_nomem;

static void *json_malloc(size_t n)
{
    void *p = malloc(n);
    json_nomem |= !p;
    return p;
}

/* The header as a tree. Behind the object only padding may follow: anything else would be bytes
 * that nobody sees. */
static enum err_code parse_json(cJSON **root, const char *json, size_t len, const char *path,
                                struct err *e)
{
    const char *end = json;
    json_nomem = false;
    cJSON_InitHooks(&(cJSON_Hooks){json_malloc, free});
    *root = cJSON_ParseWithLengthOpts(json, len, &end, false);
    cJSON_InitHooks(NULL);
    while (*root && end < json + len && *end == ' ')
        end++;
    if (cJSON_IsObject(*root) && end == json + len)
        return ERR_OK;
    cJSON_Delete(*root);
    if (json_nomem)
        return err_nomem(e, "safetensors header", len);
    return err_set(e, ERR_INPUT,
                   "%s: not a safetensors file: the header is not one JSON object (byte %zu)", path,
                   (size_t)(end - json));
}

enum err_code st_parse(struct st_file *f, const void *data, size_t n, const char *path,
                       struct err *e)
{
    struct reader r = reader_init(data, n);
    uint64_t len = reader_u64(&r);
    const uint8_t *json = len <= ST_MAX_HEADER ? reader_take(&r, (size_t)len) : NULL;
    enum err_code rc;
    cJSON *root;
    memset(f, 0, sizeof *f);
    if (!json)
        return err_set(e, ERR_INPUT,
                       "%s: not a safetensors file: header length %llu, the file holds %zu bytes",
                       path, (unsigned long long)len, n);
    if ((rc = parse_json(&root, (const char *)json, (size_t)len, path, e)))
        return rc;
    rc = parse_header(f, root, r.at, reader_left(&r), path, e);
    cJSON_Delete(root);
    if (rc)
        st_close(f);
    return rc;
}

enum err_code st_open(struct st_file *f, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    enum err_code rc = file_map(path, &data, &n, e);
    memset(f, 0, sizeof *f);
    if (rc)
        return rc;
    if ((rc = st_parse(f, data, n, path, e))) {
        file_unmap(data, n);
        return rc;
    }
    f->map = (void *)data;
    f->map_bytes = n;
    return ERR_OK;
}

void st_close(struct st_file *f)
{
    for (size_t i = 0; i < 2 * f->nmeta; i++)
        free(f->meta[i]);
    free(f->meta);
    free(f->tensor);
    free(f->names);
    file_unmap(f->map, f->map_bytes);
    memset(f, 0, sizeof *f);
}

const char *st_meta(const struct st_file *f, const char *key)
{
    for (size_t i = 0; i < f->nmeta; i++)
        if (!strcmp(f->meta[2 * i], key))
            return f->meta[2 * i + 1];
    return NULL;
}

/* cJSON reports an allocation that failed by a NULL in the middle of building; a header must never
 * be written with a part missing, so every step says whether it worked. */
static bool add_numbers(cJSON *o, const char *key, const size_t *v, size_t n)
{
    cJSON *a = cJSON_AddArrayToObject(o, key);
    bool ok = a != NULL;
    for (size_t i = 0; i < n && ok; i++)
        ok = cJSON_AddItemToArray(a, cJSON_CreateNumber((double)v[i]));
    return ok;
}

static bool build_header(cJSON *root, const struct tensor_view *t, size_t count,
                         const char *const *meta, size_t nmeta)
{
    size_t at = 0;
    cJSON *o = nmeta ? cJSON_AddObjectToObject(root, "__metadata__") : NULL;
    bool ok = root && (!nmeta || o);
    for (size_t i = 0; i < nmeta && ok; i++)
        ok = cJSON_AddStringToObject(o, meta[2 * i], meta[2 * i + 1]);
    for (size_t i = 0; i < count && ok; i++) {
        size_t span[2] = {at, at + t[i].nbytes};
        at += t[i].nbytes;
        o = cJSON_AddObjectToObject(root, t[i].name);
        ok = o && cJSON_AddStringToObject(o, "dtype", dtype_name[t[i].dtype]) &&
             add_numbers(o, "shape", t[i].shape, t[i].ndim) &&
             add_numbers(o, "data_offsets", span, 2);
    }
    return ok;
}

/* The header as a JSON text, malloc'ed; NULL when memory is short. */
static char *make_header(const struct tensor_view *t, size_t count, const char *const *meta,
                         size_t nmeta)
{
    cJSON *root = cJSON_CreateObject();
    char *text = build_header(root, t, count, meta, nmeta) ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}

/* Returns the bytes written, 0 when memory is short. */
static size_t write_header(FILE *f, const struct tensor_view *t, size_t count,
                           const char *const *meta, size_t nmeta)
{
    char *text = make_header(t, count, meta, nmeta);
    uint8_t len[8];
    if (!text)
        return 0;
    size_t n = strlen(text), pad = (8 - n % 8) % 8;
    put_le64(len, n + pad);
    fwrite(len, 1, 8, f);
    fwrite(text, 1, n, f);
    fwrite("       ", 1, pad, f);
    free(text);
    return 8 + n + pad;
}

enum err_code st_begin(struct st_writer *w, const char *path, const struct tensor_view *t,
                       size_t count, const char *const *meta, size_t nmeta, struct err *e)
{
    enum err_code rc = atomic_open(&w->a, path, e);
    if (!rc && !(w->header = write_header(w->a.f, t, count, meta, nmeta))) {
        atomic_abort(&w->a);
        rc = err_nomem(e, "safetensors header", count * 100);
    }
    return rc;
}

void st_put(struct st_writer *w, const void *data, size_t n)
{
    fwrite(data, 1, n, w->a.f);
}

enum err_code st_end(struct st_writer *w, const struct tensor_view *t, size_t count,
                     const char *const *meta, size_t nmeta, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t n;
    if (fseek(w->a.f, 0, SEEK_SET))
        rc = err_set(e, ERR_RESOURCE, "%s: cannot write: %s", w->a.path, strerror(errno));
    else if (!(n = write_header(w->a.f, t, count, meta, nmeta)))
        rc = err_nomem(e, "safetensors header", count * 100);
    else
        assert(n == w->header);
    if (!rc)
        return atomic_commit(&w->a, 0644, e);
    atomic_abort(&w->a);
    return rc;
}

void st_abort(struct st_writer *w)
{
    atomic_abort(&w->a);
}

enum err_code st_write(const char *path, const struct tensor_view *t, size_t count,
                       const char *const *meta, size_t nmeta, struct err *e)
{
    struct st_writer w;
    enum err_code rc = st_begin(&w, path, t, count, meta, nmeta, e);
    for (size_t i = 0; i < count && !rc; i++)
        st_put(&w, t[i].data, t[i].nbytes);
    return rc ? rc : atomic_commit(&w.a, 0644, e);
}
