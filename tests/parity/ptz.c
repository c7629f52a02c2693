/*
 * ptz.c - packed weights: files that the reference's own scripts wrote, and the byte shuffle.
 *
 * NAME.ptz             is taken apart and written again: the payload must be torch's, byte for byte
 * *_expected (FILES)   the parameters after import must be those that the reference loaded
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packer/byteshuffle.h"
#include "packer/import.h"
#include "packer/ptz_write.h"
#include "tests/parity/parity.h"

/* ---- NAME.ptz ---- */

struct tensors {
    struct tensor_view *t;
    char (*name)[96];
    size_t n;
};

static bool take(struct check *c, struct ptz *p, struct tensors *out,
                 const struct pickle_value *dict, size_t i, const char *suffix)
{
    struct err e = {0};
    snprintf(out->name[out->n], sizeof out->name[0], "%s%s", dict->item[2 * i]->text, suffix);
    if (ptz_tensor(p, dict->item[2 * i + 1], out->name[out->n], &out->t[out->n], &e)) {
        check_fail(c, "%s", e.msg);
        return false;
    }
    out->n++;
    return true;
}

/* The tensors in the order in which ptz_payload takes them, and the settings that the file shows.
 */
static bool take_apart(struct check *c, struct ptz *p, struct tensors *out, struct ptz_how *how)
{
    const struct pickle_value *w = pickle_get(p->root, "w"), *m = pickle_get(p->root, "m");
    const struct pickle_value *q = pickle_get(p->root, "quantized");
    const struct pickle_value *s = pickle_get(p->root, "scales");
    const struct pickle_value *plain = pickle_get(p->root, "passthrough");
    bool ok = true;
    *how =
        (struct ptz_how){.codec = p->layers.codec, .bits = 6, .embed_bits = 8, .embed_bf16 = true};
    how->int8_layout = !w;
    if (!(w && m) && !(q && s && plain)) {
        check_missing(c, "its layout");
        return false;
    }
    size_t most = w ? w->n : 2 * q->n + plain->n;
    out->t = parity_alloc(most, sizeof *out->t);
    out->name = parity_alloc(most, sizeof *out->name);
    for (size_t i = 0; ok && w && i < w->n; i++)
        ok = take(c, p, out, w, i, "");
    for (size_t i = 0; m && i < m->n; i++)
        how->gptq |= pickle_is(pickle_get(m->item[2 * i + 1], "method"), "gptq");
    for (size_t i = 0; ok && !w && i < q->n; i++)
        ok = take(c, p, out, q, i, ".q") && take(c, p, out, s, i, ".scale");
    for (size_t i = 0; ok && !w && i < plain->n; i++)
        ok = take(c, p, out, plain, i, "");
    return ok;
}

static bool same_payload(struct check *c, const struct ptz *p, const struct tensors *t,
                         const struct ptz_how *how)
{
    uint8_t *ours = NULL;
    size_t n = 0, at = 0;
    struct err e = {0};
    if (ptz_payload(&ours, &n, how, t->t, t->n, &e))
        check_fail(c, "%s", e.msg);
    while (ours && at < n && at < p->payload_bytes && ours[at] == p->layers.data[at])
        at++;
    bool same = ours && at == n && n == p->payload_bytes;
    if (ours && !same)
        check_fail(c, "payload written again: %zu bytes, not %zu; the first difference is at %zu",
                   n, p->payload_bytes, at);
    free(ours);
    c->compared = true;
    return same;
}

void parity_ptz(struct check *c)
{
    struct ptz p;
    struct tensors t = {0};
    struct ptz_how how;
    struct err e = {0};
    if (ptz_open(&p, c->path, &e)) {
        check_fail(c, "%s", e.msg);
        return;
    }
    if (take_apart(c, &p, &t, &how) && same_payload(c, &p, &t, &how))
        check_note(c, "%s, byte shuffle %u, %zu tensors; payload of %zu bytes written again: same",
                   ptz_codec_name(p.layers.codec), p.layers.stride, t.n, p.payload_bytes);
    free(t.t);
    free(t.name);
    ptz_close(&p);
}

/* ---- *_expected ---- */

/* One packed file imported with the fixture's recipe, against the parameters of the fixture. */
static void compare_import(struct check *c, const struct gpt *want, const float *params,
                           const char *path, struct group *g)
{
    struct ptz p = {0};
    struct recipe r = want->r;
    struct gpt m = {0};
    struct tensor_view *t = NULL;
    size_t count = 0;
    void *names = NULL;
    struct import_report *rep = parity_alloc(1, sizeof *rep);
    struct err e = {0};
    float *got = parity_alloc(want->floats, sizeof *got);
    r.embed_bf16 = st_meta(&c->st, "BF16_PARAMS") != NULL;
    if (ptz_open(&p, path, &e) || import_parse(&p, NULL, &r, &t, &count, &names, rep, &e) ||
        gpt_init(&m, &r, &e) || gpt_load(&m, got, t, count, path, &e)) {
        check_fail(c, "%s%s%s", e.msg, rep->lines ? ": " : "", rep->lines ? rep->line[0] : "");
    } else {
        if ((double)p.payload_bytes != meta_num(c, "PAYLOAD_BYTES", 0))
            check_fail(c, "%s: payload of %zu bytes", path, p.payload_bytes);
        for (size_t i = 0; i < want->nparams; i++) {
            const struct gpt_param *q = &want->param[i];
            const struct tensor_view same = {.name = q->name,
                                             .dtype = ST_F32,
                                             .ndim = 1,
                                             .shape = {q->size},
                                             .data = (const uint8_t *)(params + q->at),
                                             .nbytes = q->size * sizeof *params};
            group_floats(c, g, got + q->at, q->size, &same, 0);
        }
    }
    gpt_free(&m);
    free(got);
    free(t);
    free(names);
    free(rep);
    ptz_close(&p);
}

void parity_pack_files(struct check *c, const char *files)
{
    struct gpt m;
    float *params;
    struct group g = {.what = "parameters after import"};
    if (!parity_gpt(c, &m, &params))
        return;
    for (const char *at = files; *at;) {
        char path[4096];
        size_t n = strcspn(at, ",");
        snprintf(path, sizeof path, "%s/%.*s", c->dir, (int)n, at);
        compare_import(c, &m, params, path, &g);
        at += n + (at[n] == ',');
    }
    group_end(c, &g);
    free(params);
    gpt_free(&m);
}

/* ---- byte shuffle ---- */

void parity_byteshuffle(struct check *c)
{
    size_t cases = 0;
    for (size_t i = 0; i < c->st.count; i++) {
        const struct tensor_view *want = &c->st.tensor[i];
        size_t n;
        unsigned stride;
        if (sscanf(want->name, "out.n%zu.stride%u", &n, &stride) != 2)
            continue;
        const struct tensor_view *in = need(c, n, "input.n%zu", n);
        size_t size = byteshuffle_size(n, stride);
        uint8_t *out = parity_alloc(size + 1, 1), *back = parity_alloc(n + 1, 1);
        if (!in)
            break;
        byteshuffle(out, in->data, n, stride);
        if (size != want->nbytes || memcmp(out, want->data, size))
            check_fail(c, "%s differs", want->name);
        else if (byteshuffle_is(out, size))
            byteunshuffle(back, out, size);
        if (byteshuffle_is(out, size) && memcmp(back, in->data, n))
            check_fail(c, "%s: the way back differs", want->name);
        free(out);
        free(back);
        cases++;
    }
    c->compared = cases > 0;
    check_note(c, "%zu cases, both ways: same", cases);
}
