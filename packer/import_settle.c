/* import_settle.c - see import_layout.h: integers, scales and numbers as gpt_load takes them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/import_layout.h"
#include "packer/import_number.h"

/* ---- integers ---- */

static bool is_integer(enum st_dtype t)
{
    return t == ST_I8 || t == ST_U8 || t == ST_I16 || t == ST_U16 || t == ST_I32 || t == ST_I64;
}

static int64_t integer(const struct tensor_view *t, size_t i)
{
    const uint8_t *p = t->data + i * st_dtype_size(t->dtype);
    return t->dtype == ST_I8    ? (int8_t)*p
           : t->dtype == ST_U8  ? *p
           : t->dtype == ST_I16 ? (int16_t)le16(p)
           : t->dtype == ST_U16 ? le16(p)
           : t->dtype == ST_I32 ? (int32_t)le32(p)
                                : (int64_t)le64(p);
}

/* Wider integers become int8 when they fit. */
static enum err_code narrow(struct import *im, struct found *q, struct err *e)
{
    size_t n = tensor_elems(&q->view);
    uint8_t *out;
    if (q->view.dtype == ST_I8 || !is_integer(q->view.dtype))
        return ERR_OK; /* fit says what is wrong with the others */
    for (size_t i = 0; i < n; i++)
        if (integer(&q->view, i) < INT8_MIN || integer(&q->view, i) > INT8_MAX)
            return ERR_OK;
    enum err_code rc = ptz_alloc(im->p, &out, n, q->name, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)integer(&q->view, i);
    q->view.dtype = ST_I8;
    q->view.data = out;
    q->view.nbytes = n;
    return ERR_OK;
}

/* ---- scales ---- */

/* How many integers share a scale; 0 and a problem when the shapes do not say. */
static size_t group_size(struct import *im, const struct found *q, const struct found *s)
{
    size_t total = tensor_elems(&q->view), n = tensor_elems(&s->view), rows = q->view.shape[0];
    const struct tensor_view *v = &s->view;
    size_t group = 0;
    if (q->group && total % q->group == 0 && total / q->group == n)
        group = q->group;
    else if (n == 1)
        group = total;
    else if (n == rows || (v->ndim > 1 && v->shape[0] == rows && n && total % n == 0))
        group = total / n;
    if (!group)
        import_problem(im, "tensor %s: %zu scales for %zu rows of %zu are not understood", s->name,
                       n, rows, rows ? total / rows : 0);
    return group;
}

/* One number in fp16: exactly, or where the script rounds every product to bf16 anyway, to the
 * nearest (2^-11 off at most, bf16 2^-9; below 2^-14 fp16 has fewer bits). */
static bool half_holds(const struct import *im, float scale)
{
    float half = f16_to_f32(f32_to_f16(scale));
    return half == scale || (im->bf16 && fabsf(scale) >= 0x1p-14f && fabsf(scale) < 65504.0f);
}

static bool all_zero(const struct found *q, size_t from, size_t n)
{
    while (n && !q->view.data[from]) {
        from++;
        n--;
    }
    return !n;
}

/* *out has n fp16 scales: one per row where the groups of each row agree, else one per group where
 * groups lie within rows. NULL: neither, or fp16 does not hold one of them. */
static enum err_code half_scales(struct import *im, const struct found *q, const struct found *s,
                                 size_t group, const uint8_t **out, size_t *n, struct err *e)
{
    size_t total = tensor_elems(&q->view), rows = q->view.shape[0], cols = total / rows;
    bool within = cols % group == 0, one_each = true, holds = true;
    uint8_t *scales;
    for (size_t r = 0; r < rows && one_each; r++) {
        size_t first = r * cols / group, last = (r * cols + cols - 1) / group;
        for (size_t i = first + 1; one_each && i <= last; i++)
            one_each = import_number(&s->view, i) == import_number(&s->view, first);
    }
    *out = NULL;
    *n = one_each ? rows : total / group;
    if (!one_each && !within)
        return ERR_OK;
    enum err_code rc = ptz_alloc(im->p, &scales, 2 * *n, s->name, e);
    for (size_t i = 0; !rc && holds && i < *n; i++) {
        float scale = import_number(&s->view, one_each ? i * cols / group : i);
        if (!half_holds(im, scale)) {
            holds = all_zero(q, i * (total / *n), total / *n);
            scale = 0; /* nothing is multiplied with it */
        }
        put_le16(scales + 2 * i, f32_to_f16(scale));
    }
    if (!rc && holds)
        *out = scales;
    return rc;
}

/* X.q becomes X: the products. */
static enum err_code expand(struct import *im, struct found *q, const struct found *s, size_t group,
                            struct err *e)
{
    size_t n = tensor_elems(&q->view), esize = im->bf16 ? 2 : 4;
    uint8_t *out;
    char kind[8];
    enum err_code rc = ptz_alloc(im->p, &out, esize * n, q->name, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        float w = (float)(int8_t)q->view.data[i] * import_number(&s->view, i / group);
        if (im->bf16)
            put_le16(out + 2 * i, f32_to_bf16(w));
        else
            put_f32(out + 4 * i, w);
    }
    q->name[strlen(q->name) - 2] = 0;
    snprintf(kind, sizeof kind, "%.7s", q->type);
    snprintf(q->type, sizeof q->type, "%s as %s", kind, im->bf16 ? "BF16" : "F32");
    q->view.dtype = im->bf16 ? ST_BF16 : ST_F32;
    q->view.data = out;
    q->view.nbytes = esize * n;
    return ERR_OK;
}

/* One X.q with its scales; *kept says whether there still are scales afterwards. */
static enum err_code settle(struct import *im, struct found *q, struct found *s, bool *kept,
                            struct err *e)
{
    enum err_code rc = narrow(im, q, e);
    size_t total = tensor_elems(&q->view);
    const uint8_t *scale = s->view.data;
    *kept = true;
    if (rc || q->view.dtype != ST_I8 || !import_is_float(s->view.dtype) || !total ||
        q->view.ndim < 1)
        return rc;
    size_t group = group_size(im, q, s);
    if (!group)
        return ERR_OK;
    size_t n = q->view.shape[0];
    bool as_it_is = s->view.dtype == ST_F16 && group * n == total;
    if (!as_it_is && (rc = half_scales(im, q, s, group, &scale, &n, e)))
        return rc;
    if (!scale) {
        *kept = false;
        return expand(im, q, s, group, e);
    }
    s->view.dtype = ST_F16;
    s->view.data = scale;
    s->view.ndim = 1;
    s->view.shape[0] = n;
    s->view.nbytes = 2 * n;
    return ERR_OK;
}

/* ---- plain numbers ---- */

/* F64 becomes F32, and where the script turns everything into bf16, so do we. */
static enum err_code plain(struct import *im, struct found *f, struct err *e)
{
    enum st_dtype to = im->bf16 ? ST_BF16 : f->view.dtype == ST_F64 ? ST_F32 : f->view.dtype;
    size_t n = tensor_elems(&f->view), esize = st_dtype_size(to);
    uint8_t *out;
    if (!import_is_float(f->view.dtype) || to == f->view.dtype)
        return ERR_OK;
    enum err_code rc = ptz_alloc(im->p, &out, esize * n, f->name, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        float v = import_number(&f->view, i);
        if (to == ST_BF16)
            put_le16(out + 2 * i, f32_to_bf16(v));
        else
            put_f32(out + 4 * i, v);
    }
    f->view.dtype = to;
    f->view.data = out;
    f->view.nbytes = esize * n;
    return ERR_OK;
}

/* ---- all of them ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

enum err_code import_settle(struct import *im, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t products = 0, integers = 0;
    for (size_t i = 0; !rc && i < im->count; i++) {
        struct found *f = &im->found[i], *s;
        char base[FOUND_NAME];
        bool kept;
        if (ends_with(f->name, ".scale")) {
            snprintf(base, sizeof base, "%.*s", (int)strlen(f->name) - 6, f->name);
            if (import_look(im, base, ".q"))
                continue; /* done with its integers; bigram.scale is a number of its own */
        }
        if (!ends_with(f->name, ".q")) {
            rc = plain(im, f, e);
            continue;
        }
        snprintf(base, sizeof base, "%.*s", (int)strlen(f->name) - 2, f->name);
        if (!(s = import_look(im, base, ".scale")))
            continue;
        rc = settle(im, f, s, &kept, e);
        integers += kept;
        products += !kept;
        if (!rc && !kept) { /* the scales went into the product */
            size_t at = (size_t)(s - im->found);
            memmove(s, s + 1, (--im->count - at) * sizeof *s);
            i -= at < i;
        }
    }
    if (!rc && products)
        import_note(im,
                    "%zu matrices are stored as numbers: their scales are no fp16 per row or per "
                    "group of a row",
                    products);
    if (!rc && im->bf16 && integers)
        import_note(im,
                    "the script rounds weights to bf16 after unpacking; %zu matrices kept as "
                    "integers are not rounded",
                    integers);
    return rc;
}
