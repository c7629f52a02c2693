/* pycall_decode.c - the decoders by their names in Python, what they gave, and what ran it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/pyvalue.h"

/* zstandard, pyzstd and zstd differ in how they are called only. compression.* is Python 3.14. */
static const struct {
    const char *name;
    enum packer packer;
} packers[] = {
    {"zlib.decompress", PACK_ZLIB},
    {"compression.zlib.decompress", PACK_ZLIB},
    {"gzip.decompress", PACK_GZIP},
    {"bz2.decompress", PACK_BZ2},
    {"compression.bz2.decompress", PACK_BZ2},
    {"lzma.decompress", PACK_LZMA_AUTO},
    {"compression.lzma.decompress", PACK_LZMA_AUTO},
    {"backports.lzma.decompress", PACK_LZMA_AUTO},
    {"brotli.decompress", PACK_BROTLI},
    {"brotlicffi.decompress", PACK_BROTLI},
    {"zstandard.decompress", PACK_ZSTD},
    {"pyzstd.decompress", PACK_ZSTD},
    {"zstd.decompress", PACK_ZSTD},
    {"zstd.uncompress", PACK_ZSTD},
    {"zstd.loads", PACK_ZSTD},
    {"compression.zstd.decompress", PACK_ZSTD},
};

/* What makes an object with a decompress method. */
static const struct {
    const char *name;
    enum packer packer;
} objects[] = {
    {"zlib.decompressobj", PACK_ZLIB},      {"lzma.LZMADecompressor", PACK_LZMA_AUTO},
    {"bz2.BZ2Decompressor", PACK_BZ2},      {"zstandard.ZstdDecompressor", PACK_ZSTD},
    {"pyzstd.ZstdDecompressor", PACK_ZSTD}, {"brotli.Decompressor", PACK_BROTLI},
    {"zstd.ZstdDecompressor", PACK_ZSTD},
};

static const struct {
    const char *name;
    enum text_codec codec;
} texts[] = {
    {"base64.b85decode", TEXT_B85},
    {"base64.a85decode", TEXT_A85},
    {"base64.b64decode", TEXT_B64},
    {"base64.standard_b64decode", TEXT_B64},
    {"base64.urlsafe_b64decode", TEXT_B64URL},
    {"base64.decodebytes", TEXT_B64},
    {"base64.b32decode", TEXT_B32},
    {"base64.b16decode", TEXT_HEX},
    {"base64.z85decode", TEXT_Z85},
    {"binascii.a2b_base64", TEXT_B64},
    {"binascii.unhexlify", TEXT_HEX},
    {"binascii.a2b_hex", TEXT_HEX},
    {"bytes.fromhex", TEXT_HEX},
    {"bytearray.fromhex", TEXT_HEX},
};

static bool text_like(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((p[i] < ' ' && p[i] != '\n' && p[i] != '\t' && p[i] != '\r' && p[i] != '\f') ||
            p[i] == 0x7f)
            return false;
    return true;
}

/* A decoded value, with its family in front of what it came from; it becomes a result, and what it
 * was made of stops being one. */
static const struct pv *decoded(struct pv_walk *w, const char *name, bool packer,
                                const struct pv *in, uint8_t *p, size_t n, size_t line)
{
    const struct pv_origin *was = in->from;
    struct pv_origin *o = pv_alloc(w, sizeof *o);
    const struct pv *v = pv_copy(w, PV_BYTES, p, n, o);
    free(p);
    if (!o || v->kind != PV_BYTES)
        return &pv_unknown;
    *o = (struct pv_origin){.result = -1};
    if (was)
        snprintf(o->family, sizeof o->family, "%s+%.*s", name,
                 (int)(sizeof o->family - strlen(name) - 2), was->family);
    else
        snprintf(o->family, sizeof o->family, "%s%s", name, packer ? "+bytes" : "");
    o->coded = was ? was->coded : in->n;
    o->packed = packer ? in->n : n;
    struct pycalc *c = w->out;
    if (was && was->result >= 0)
        c->result[was->result].used = true;
    if (c->results == PYCALC_RESULTS) {
        pv_note(w, line, "more decoded texts than are looked at");
        return v;
    }
    struct pycalc_result *r = &c->result[c->results];
    *r = (struct pycalc_result){
        .p = v->p, .n = n, .line = line, .coded = o->coded, .packed = o->packed};
    memcpy(r->family, o->family, sizeof r->family);
    o->result = (int)c->results++;
    return v;
}

static void refuse(struct pv_walk *w, const char *name, size_t n, enum codec_rc rc, size_t line)
{
    if (rc == CODEC_NOMEM)
        w->nomem = true;
    if (rc == CODEC_BOMB)
        w->out->bomb = true;
    pv_note(w, line, "%s of %zu bytes: %s", name, n, codec_rc_text[rc]);
}

static void filter_of(struct py_filter *f, const struct pv *d)
{
    static const char *const key[] = {"id", "preset", "dict_size", "lc", "lp", "pb", "dist"};
    long long v[7] = {0};
    bool has[7] = {0};
    for (size_t i = 0; i < 7; i++) {
        const struct pv *x = pv_dict_get(d, key[i]);
        has[i] = x && pv_number(x, &v[i]) && v[i] >= 0;
    }
    *f = (struct py_filter){.id = (uint64_t)v[0],
                            .preset = (uint32_t)v[1],
                            .dict_size = (uint32_t)(v[2] > UINT32_MAX ? UINT32_MAX : v[2]),
                            .lc = (uint32_t)v[3],
                            .lp = (uint32_t)v[4],
                            .pb = (uint32_t)v[5],
                            .dist = (uint32_t)v[6],
                            .has_lc = has[3],
                            .has_lp = has[4],
                            .has_pb = has[5]};
}

/* `how` is a PV_LIST of format, filters, wbits (PV_NONE where not given), or NULL. */
const struct pv *pv_unpack(struct pv_walk *w, enum packer p, const struct pv *how,
                           const struct pv *data, size_t line)
{
    struct py_filter f[PY_FILTERS];
    size_t filters = 0, n = 0;
    long long i;
    char raw[32];
    const char *name;
    uint8_t *out;
    if (data->kind == PV_OUTSIDE)
        return data;
    if (!pv_is_text(data))
        return &pv_unknown;
    const struct pv *format = how ? how->item[0] : &pv_unknown;
    const struct pv *list = how ? how->item[1] : &pv_unknown;
    const struct pv *wbits = how ? how->item[2] : &pv_unknown;
    if (p == PACK_LZMA_AUTO && pv_number(format, &i))
        p = i == 1 ? PACK_XZ : i == 2 ? PACK_LZMA_ALONE : i == 3 ? PACK_LZMA_RAW : p;
    if (p == PACK_LZMA_AUTO) /* say which it was */
        p = unpack_magic(data->p, data->n) == PACK_XZ ? PACK_XZ : PACK_LZMA_ALONE;
    if (p == PACK_ZLIB && pv_number(wbits, &i))
        p = i < 0 ? PACK_DEFLATE : i > 40 ? unpack_magic(data->p, data->n) : i > 15 ? PACK_GZIP : p;
    for (size_t k = 0; list->kind == PV_LIST && k < list->n && k < PY_FILTERS; k++)
        filter_of(&f[filters++], list->item[k]);
    name = p == PACK_LZMA_RAW ? unpack_raw_name(f, filters, raw, sizeof raw)
           : p < PACKERS      ? packer_name[p]
                              : "zlib";
    enum codec_rc rc = unpack(p, f, filters, data->p, data->n, w->cap, &out, &n);
    w->steps += (data->n + n) / 256;
    if (rc) { /* what was unpacked before it failed costs time as well: a few failures end it */
        size_t left = PYCALC_BYTES - w->bytes, cost = rc == CODEC_BOMB ? w->cap : w->cap / 4;
        w->bytes += cost < left ? cost : left;
        refuse(w, name, data->n, rc, line);
        if (data->from && data->from->result >= 0) /* told about in the note */
            w->out->result[data->from->result].used = true;
        return &pv_unknown;
    }
    return decoded(w, name, true, data, out, n, line);
}

static const struct pv *text(struct pv_walk *w, enum text_codec codec, const struct pv *v,
                             size_t line)
{
    uint8_t *out;
    size_t n;
    if (!v || v->kind == PV_OUTSIDE || !pv_is_text(v))
        return v && v->kind == PV_OUTSIDE ? v : &pv_unknown;
    enum codec_rc rc = text_decode(codec, v->p, v->n, false, &out, &n);
    if (rc) {
        if (v->n >= PYCALC_SHORT || rc == CODEC_NOMEM)
            refuse(w, text_codec_name[codec], v->n, rc, line);
        return &pv_unknown;
    }
    return decoded(w, text_codec_name[codec], false, v, out, n, line);
}

/* codecs.decode(x, "hex"), and "zlib", "base64", "bz2", "rot13" under several names. */
static const struct pv *codecs_decode(struct pv_walk *w, const struct pv_arg *arg, size_t args,
                                      size_t line)
{
    const struct pv *v = pv_arg(arg, args, 0, "obj"), *how = pv_arg(arg, args, 1, "encoding");
    if (!v || !how || !pv_is_text(v))
        return &pv_unknown;
    if (pv_same(how, "hex") || pv_same(how, "hex_codec"))
        return text(w, TEXT_HEX, v, line);
    if (pv_same(how, "base64") || pv_same(how, "base64_codec"))
        return text(w, TEXT_B64, v, line);
    if (pv_same(how, "zlib") || pv_same(how, "zip") || pv_same(how, "zlib_codec"))
        return pv_unpack(w, PACK_ZLIB, NULL, v, line);
    if (pv_same(how, "bz2") || pv_same(how, "bz2_codec"))
        return pv_unpack(w, PACK_BZ2, NULL, v, line);
    if (pv_same(how, "rot13") || pv_same(how, "rot_13"))
        return pv_text_method(
            w, v, "decode", 6,
            &(struct pv_arg){
                .v = &(struct pv){.kind = PV_STR, .p = (const uint8_t *)"rot13", .n = 5}},
            1);
    return pv_text_method(w, v, "decode", 6, &(struct pv_arg){.v = how}, 1);
}

static const struct pv *settings(struct pv_walk *w, const char *name, const struct pv_arg *arg,
                                 size_t args, size_t first)
{
    static const struct pv none = {.kind = PV_NONE};
    bool zlib = !strncmp(name, "zlib.", 5);
    const struct pv *item[3] = {pv_arg(arg, args, first, "format"),
                                pv_arg(arg, args, first + 2, "filters"),
                                zlib ? pv_arg(arg, args, first, "wbits") : NULL};
    for (size_t i = 0; i < 3; i++)
        item[i] = item[i] ? item[i] : &none;
    if (zlib)
        item[0] = item[1] = &none;
    const struct pv *l = pv_list(w, PV_LIST, item, 3);
    return l->kind == PV_LIST ? l : NULL;
}

/* Compiled code is a result of its own: what was decoded to it, or the literal that it is. The code
 * object is no text that something could run a second time. */
static const struct pv *compiled(struct pv_walk *w, const struct pv *v, size_t line)
{
    static const struct pv object = {.kind = PV_NONE};
    struct pycalc *c = w->out;
    struct pycalc_result *r = v->from && v->from->result >= 0 ? &c->result[v->from->result] : NULL;
    if (!r && c->results < PYCALC_RESULTS) {
        r = &c->result[c->results++];
        *r = (struct pycalc_result){.p = v->p, .n = v->n, .packed = v->n};
        for (size_t i = 0; i < v->n; i++) /* most bytes of it are written as \xNN */
            r->coded += v->p[i] >= ' ' && v->p[i] < 0x7f ? 1 : 4;
        snprintf(r->family, sizeof r->family, "literal");
    }
    if (r) {
        r->marshal = true;
        r->line = line;
    }
    return &object;
}

const struct pv *pv_decoder(struct pv_walk *w, const char *name, const struct pv_arg *arg,
                            size_t args, size_t line)
{
    static const char *const opaque[] = {"pickle.loads", "dill.loads", "cloudpickle.loads"};
    const struct pv *v = pv_arg(arg, args, 0, "data");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(name, texts[i].name))
            return text(w, texts[i].codec, pv_arg(arg, args, 0, "s"), line);
    for (size_t i = 0; i < sizeof packers / sizeof *packers; i++)
        if (!strcmp(name, packers[i].name))
            return pv_unpack(w, packers[i].packer, settings(w, name, arg, args, 1),
                             v ? v : &pv_unknown, line);
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (!strcmp(name, objects[i].name)) {
            struct pv *o = pv_alloc(w, sizeof *o);
            if (!o)
                return &pv_unknown;
            *o = (struct pv){
                .kind = PV_PACKER, .i = objects[i].packer, .self = settings(w, name, arg, args, 0)};
            return o;
        }
    if (!strcmp(name, "codecs.decode"))
        return codecs_decode(w, arg, args, line);
    if (!strcmp(name, "marshal.loads") && v && pv_is_text(v))
        return compiled(w, v, line);
    for (size_t i = 0; i < sizeof opaque / sizeof *opaque; i++)
        if (!strcmp(name, opaque[i]) && v && pv_is_text(v)) {
            pv_note(w, line, "%s of %zu bytes: objects are not looked into", name, v->n);
            if (v->from && v->from->result >= 0)
                w->out->result[v->from->result].used = true;
        }
    return NULL;
}

void pv_run(struct pv_walk *w, const struct pv *v, const char *what, size_t line)
{
    struct pycalc *c = w->out;
    const struct pv_origin *o = v->from;
    if (v->kind == PV_OUTSIDE) {
        c->other_file = true;
        if (v->n)
            pv_note(w, line, "%s runs the text of another file: %.*s", what,
                    v->n > 60 ? 60 : (int)v->n, (const char *)v->p);
        else
            pv_note(w, line, "%s runs the text of another file", what);
        return;
    }
    if (!pv_is_text(v)) {
        if (v->kind == PV_UNKNOWN && *what != 'c')
            pv_note(w, line, "%s of something that cannot be told from the text", what);
        return;
    }
    for (size_t i = 0; i < c->results; i++)
        if (c->result[i].n == v->n && !memcmp(c->result[i].p, v->p, v->n)) {
            c->result[i].run = true; /* compiled, then executed: once is enough */
            c->result[i].used = false;
            return;
        }
    /* Decoded and then changed, cut out of the script itself, or a plain literal that is long. */
    if ((!o && v->n < PYCALC_SHORT) || v == w->file || (o && v->n == w->file->n) ||
        !text_like(v->p, v->n) || c->results == PYCALC_RESULTS)
        return;
    if (o && o->result >= 0)
        c->result[o->result].used = true;
    struct pycalc_result *r = &c->result[c->results++];
    *r = (struct pycalc_result){.p = v->p,
                                .n = v->n,
                                .line = line,
                                .coded = o ? o->coded : v->n,
                                .packed = o ? o->packed : v->n,
                                .run = true};
    snprintf(r->family, sizeof r->family, "%s", o ? o->family : "text");
}
