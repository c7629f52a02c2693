/* ptz_write.c - see ptz_write.h. */
#include "packer/ptz_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packer/byteshuffle.h"
#include "packer/pickle_write.h"
#include "packer/ptz_zip_write.h"

enum err_code ptz_how_of(struct ptz_how *how, const struct recipe *r, struct err *e)
{
    *how = (struct ptz_how){
        .level = (int)r->compressor_level,
        .shuffle = (unsigned)r->byte_shuffle,
        .int8_layout = r->quant_bits == 8 && r->quant_embed_bits == 8,
        .bits = (unsigned)r->quant_bits,
        .embed_bits = (unsigned)r->quant_embed_bits,
        .mixed = r->mixed_quant,
        .gptq = !strcmp(r->quant_method, "gptq"),
        .embed_bf16 = r->embed_bf16,
    };
    if (r->byte_shuffle < 0 || r->byte_shuffle == 1 || r->byte_shuffle > 255)
        return err_set(e, ERR_USAGE, "BYTE_SHUFFLE=%lld: must be 0 (none) or 2 to 255",
                       (long long)r->byte_shuffle);
    if (r->compressor_level < 0 || r->compressor_level > 22)
        return err_set(e, ERR_USAGE, "COMPRESSOR_LEVEL=%lld: must be 0 (the records' own) to 22",
                       (long long)r->compressor_level);
    return ptz_codec_parse(&how->codec, r->compressor, e);
}

/* ---- the tensors, sorted out ---- */

struct part {
    const char *name;                    /* of the parameter */
    const struct tensor_view *w, *scale; /* w: X or X.q; scale NULL for X */
};

struct model {
    struct part *part;
    size_t parts, quantised;
    char *names;
    const struct tensor_view **storage; /* in the order of their keys */
    size_t storages, storages_max;
};

static void model_free(struct model *m)
{
    free(m->part);
    free(m->names);
    free(m->storage);
}

/* The length of X in X.q; 0 for other names. */
static size_t base_of(const char *name)
{
    size_t n = strlen(name);
    return n > 2 && !strcmp(name + n - 2, ".q") ? n - 2 : 0;
}

static enum err_code model_init(struct model *m, const struct tensor_view *t, size_t count,
                                struct err *e)
{
    size_t bytes = 1;
    *m = (struct model){.storages_max = count};
    for (size_t i = 0; i < count; i++)
        bytes += strlen(t[i].name) + 1;
    m->part = calloc(count + 1, sizeof *m->part);
    m->storage = calloc(count + 1, sizeof *m->storage);
    m->names = malloc(bytes);
    if (!m->part || !m->storage || !m->names)
        return err_nomem(e, "packed weights", bytes + count * sizeof *m->part);
    char *at = m->names;
    for (size_t i = 0; i < count; i++) {
        struct part *p = &m->part[m->parts++];
        size_t base = base_of(t[i].name);
        *p = (struct part){.name = t[i].name, .w = &t[i]};
        if (!base)
            continue;
        const struct tensor_view *s = i + 1 < count ? &t[i + 1] : NULL;
        if (!s || strncmp(s->name, t[i].name, base) || strcmp(s->name + base, ".scale"))
            return err_set(e, ERR_INPUT, "tensor %s: not followed by its .scale", t[i].name);
        memcpy(at, t[i].name, base);
        at[base] = 0;
        p->name = at;
        p->scale = s;
        at += base + 1;
        m->quantised++;
        i++;
    }
    return ERR_OK;
}

/* ---- tensors ---- */

static const char *const storage_of[ST_DTYPES] = {
    [ST_F32] = "torch\nFloatStorage\n",     [ST_F16] = "torch\nHalfStorage\n",
    [ST_BF16] = "torch\nBFloat16Storage\n", [ST_I8] = "torch\nCharStorage\n",
    [ST_U8] = "torch\nByteStorage\n",       [ST_I16] = "torch\nShortStorage\n",
    [ST_I32] = "torch\nIntStorage\n",       [ST_I64] = "torch\nLongStorage\n",
    [ST_F64] = "torch\nDoubleStorage\n",    [ST_BOOL] = "torch\nBoolStorage\n",
};

/* torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()), where storage is
 * the persistent id ('storage', type, key, 'cpu', elements). */
static void put_tensor(struct pickle_out *p, struct model *m, const struct tensor_view *t)
{
    char key[24];
    size_t stride[TENSOR_MAX_DIMS], step = 1;
    for (size_t i = t->ndim; i-- > 0;) {
        stride[i] = step;
        step *= t->shape[i] ? t->shape[i] : 1;
    }
    snprintf(key, sizeof key, "%zu", m->storages);
    m->storage[m->storages++] = t;

    pickle_out_global(p, "torch._utils\n_rebuild_tensor_v2\n");
    pickle_out_op(p, '(');
    pickle_out_op(p, '(');
    pickle_out_shared(p, "storage");
    pickle_out_global(p, storage_of[t->dtype]);
    pickle_out_str(p, key);
    pickle_out_shared(p, "cpu");
    pickle_out_int(p, tensor_elems(t));
    pickle_out_op(p, 't');
    pickle_out_memo(p);
    pickle_out_op(p, 'Q'); /* BINPERSID */
    pickle_out_int(p, 0);
    pickle_out_counts(p, t->shape, t->ndim);
    pickle_out_counts(p, stride, t->ndim);
    pickle_out_op(p, 0x89); /* NEWFALSE: requires no gradient */
    pickle_out_global(p, "collections\nOrderedDict\n");
    pickle_out_op(p, ')');
    pickle_out_op(p, 'R'); /* no hooks */
    pickle_out_memo(p);
    pickle_out_op(p, 't');
    pickle_out_memo(p);
    pickle_out_op(p, 'R');
    pickle_out_memo(p);
}

/* ---- {"w": ..., "m": ...} ---- */

/* Names of rule 4 in recipes' quantisers: tables, which are no part of a block. */
static bool is_embedding(const char *name)
{
    return !strstr(name, ".mlp.") && !strstr(name, ".attn.") && !strstr(name, ".proj.");
}

/* "int6", "int5", ...: what the recipe says, unless the integers say more. With MIXED_QUANT they
 * decide alone; a matrix of int6 whose integers all fit int5 is then called that. */
static const char *type_of(const struct part *p, const struct ptz_how *how)
{
    static const char *const name[] = {"int2", "int3", "int4", "int5", "int6", "int7", "int8"};
    int largest = 0;
    for (size_t i = 0; i < p->w->nbytes; i++) {
        int v = abs((int8_t)p->w->data[i]);
        largest = v > largest ? v : largest;
    }
    unsigned bits = is_embedding(p->name) ? how->embed_bits : how->bits, need = 2;
    while ((1 << (need - 1)) - 1 < largest && need < 8)
        need++;
    if (how->mixed && !is_embedding(p->name))
        bits = 5;
    bits = need > bits ? need : bits;
    return name[(bits < 2 ? 2 : bits > 8 ? 8 : bits) - 2];
}

static void put_how(struct pickle_out *p, const struct part *part, const struct ptz_how *how)
{
    bool gptq = how->gptq && !is_embedding(part->name);
    if (!part->scale) {
        pickle_out_shared(p, "passthrough");
        return;
    }
    pickle_out_dict(p, gptq ? 2 : 1);
    pickle_out_shared(p, "type");
    pickle_out_shared(p, type_of(part, how));
    if (gptq) {
        pickle_out_shared(p, "method");
        pickle_out_shared(p, "gptq");
    }
    pickle_out_dict_end(p, gptq ? 2 : 1);
}

static void put_records(struct pickle_out *p, struct model *m, const struct ptz_how *how)
{
    size_t tensors = m->parts + m->quantised;
    pickle_out_dict(p, 2);
    pickle_out_shared(p, "w");
    pickle_out_dict(p, tensors);
    for (size_t i = 0; i < m->parts; i++) {
        const struct part *part = &m->part[i];
        pickle_out_shared(p, part->w->name);
        put_tensor(p, m, part->w);
        if (part->scale) {
            pickle_out_shared(p, part->scale->name);
            put_tensor(p, m, part->scale);
        }
    }
    pickle_out_dict_end(p, tensors);
    pickle_out_shared(p, "m");
    pickle_out_dict(p, m->parts);
    for (size_t i = 0; i < m->parts; i++) {
        pickle_out_shared(p, m->part[i].name);
        put_how(p, &m->part[i], how);
    }
    pickle_out_dict_end(p, m->parts);
    pickle_out_dict_end(p, 2);
}

/* ---- the baseline's dictionary ---- */

enum which { QUANTISED, PLAIN, PLAIN_HALF };

static bool belongs(const struct part *p, enum which which)
{
    return which == QUANTISED ? p->scale != NULL
           : which == PLAIN   ? !p->scale
                              : !p->scale && p->w->dtype == ST_F16;
}

static const char *dtype_of(const struct part *p, const struct ptz_how *how)
{
    return how->embed_bf16 && is_embedding(p->name) && p->w->ndim > 1 ? "bfloat16" : "float32";
}

static void put_scheme(struct pickle_out *p)
{
    pickle_out_dict(p, 2);
    pickle_out_shared(p, "scheme");
    pickle_out_shared(p, "per_row");
    pickle_out_shared(p, "axis");
    pickle_out_int(p, 0);
    pickle_out_dict_end(p, 2);
}

/* key: {name: value} for the parameters of one sort. */
static void put_group(struct pickle_out *p, struct model *m, const struct ptz_how *how,
                      const char *key, enum which which)
{
    size_t n = 0;
    for (size_t i = 0; i < m->parts; i++)
        n += belongs(&m->part[i], which);
    pickle_out_shared(p, key);
    pickle_out_dict(p, n);
    for (size_t i = 0; i < m->parts; i++) {
        const struct part *part = &m->part[i];
        if (!belongs(part, which))
            continue;
        pickle_out_shared(p, part->name);
        if (!strcmp(key, "quantized") || !strcmp(key, "passthrough"))
            put_tensor(p, m, part->w);
        else if (!strcmp(key, "scales"))
            put_tensor(p, m, part->scale);
        else if (!strcmp(key, "qmeta"))
            put_scheme(p);
        else
            pickle_out_str(p, dtype_of(part, how));
    }
    pickle_out_dict_end(p, n);
}

static void put_int8(struct pickle_out *p, struct model *m, const struct ptz_how *how)
{
    size_t half = 0;
    for (size_t i = 0; i < m->parts; i++)
        half += belongs(&m->part[i], PLAIN_HALF);
    size_t keys = 5u + (m->quantised > 0) + (half > 0);
    pickle_out_dict(p, keys);
    pickle_out_shared(p, "__quant_format__");
    pickle_out_shared(p, "int8_clean_per_row_v1");
    put_group(p, m, how, "quantized", QUANTISED);
    put_group(p, m, how, "scales", QUANTISED);
    put_group(p, m, how, "dtypes", QUANTISED);
    put_group(p, m, how, "passthrough", PLAIN);
    if (m->quantised)
        put_group(p, m, how, "qmeta", QUANTISED);
    if (half)
        put_group(p, m, how, "passthrough_orig_dtypes", PLAIN_HALF);
    pickle_out_dict_end(p, keys);
}

/* ---- the archive ---- */

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* data.pkl, the storages in the order of their keys as strings, version. */
static enum err_code archive(uint8_t **out, size_t *n, const struct pickle_out *p,
                             const struct model *m, struct err *e)
{
    enum { NAME = 32 };
    struct bytes_out zip = {0};
    size_t count = m->storages + 2;
    struct zip_entry *entry = calloc(count, sizeof *entry);
    char(*name)[NAME] = calloc(count, sizeof *name);
    if (entry && name) {
        entry[0] = (struct zip_entry){"data.pkl", p->out.data, p->out.n};
        for (size_t i = 0; i < m->storages; i++) {
            snprintf(name[i], NAME, "data/%zu", i);
            entry[i + 1] = (struct zip_entry){name[i], m->storage[i]->data, m->storage[i]->nbytes};
        }
        qsort(entry + 1, m->storages, sizeof *entry, by_name);
        entry[count - 1] = (struct zip_entry){"version", "3\n", 2};
        zip_write(&zip, entry, count);
    }
    free(name);
    free(entry);
    *out = zip.data;
    *n = zip.n;
    return zip.data ? ERR_OK : err_nomem(e, "packed weights", p->out.n);
}

enum err_code ptz_payload(uint8_t **out, size_t *n, const struct ptz_how *how,
                          const struct tensor_view *t, size_t count, struct err *e)
{
    struct model m;
    struct pickle_out p = {0};
    *out = NULL;
    for (size_t i = 0; i < count; i++)
        if (!storage_of[t[i].dtype])
            return err_set(e, ERR_INPUT, "tensor %s: torch has no such type of elements",
                           t[i].name);
    enum err_code rc = model_init(&m, t, count, e);
    if (!rc) {
        pickle_out_begin(&p);
        if (how->int8_layout)
            put_int8(&p, &m, how);
        else
            put_records(&p, &m, how);
        pickle_out_end(&p);
        if (p.out.failed)
            rc = err_nomem(e, "packed weights", count);
    }
    if (!rc)
        rc = archive(out, n, &p, &m, e);
    free(p.out.data);
    model_free(&m);
    return rc;
}

/* ---- the file ---- */

static enum err_code shuffle(uint8_t **data, size_t *n, unsigned stride, struct err *e)
{
    size_t size = byteshuffle_size(*n, stride);
    uint8_t *out = malloc(size + 1);
    if (!out)
        return err_nomem(e, "byte shuffle", size);
    byteshuffle(out, *data, *n, stride);
    free(*data);
    *data = out;
    *n = size;
    return ERR_OK;
}

enum err_code ptz_pack(uint8_t **out, size_t *n, const struct ptz_how *how,
                       const struct tensor_view *t, size_t count, struct err *e)
{
    uint8_t *raw, *back = NULL;
    size_t raw_n, back_n = 0;
    *out = NULL;
    enum err_code rc = ptz_payload(&raw, &raw_n, how, t, count, e);
    if (!rc && how->shuffle)
        rc = shuffle(&raw, &raw_n, how->shuffle, e);
    if (!rc)
        rc = ptz_compress(out, n, how->codec, how->level, raw, raw_n, e);
    if (!rc)
        rc = ptz_expand(&back, &back_n, how->codec, *out, *n, raw_n, "the packed file", e);
    if (!rc && (back_n != raw_n || memcmp(back, raw, raw_n)))
        rc = err_set(e, ERR_RESOURCE, "%s: the round trip failed", ptz_codec_name(how->codec));
    free(back);
    free(raw);
    if (rc) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

enum err_code ptz_size(const struct recipe *r, const struct tensor_view *t, size_t count,
                       uint64_t *bytes, struct err *e)
{
    struct ptz_how how;
    uint8_t *file = NULL;
    size_t n = 0;
    enum err_code rc = ptz_how_of(&how, r, e);
    if (!rc)
        rc = ptz_pack(&file, &n, &how, t, count, e);
    free(file);
    *bytes = n;
    return rc;
}
