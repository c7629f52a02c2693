/* import_layout.c - see import_layout.h. */
#include "packer/import_layout.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void add_line(struct import *im, const char *fmt, va_list ap)
{
    struct import_report *rep = im->rep;
    if (rep->lines < IMPORT_LINES)
        vsnprintf(rep->line[rep->lines], IMPORT_LINE, fmt, ap);
    rep->lines++;
}

void import_note(struct import *im, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_line(im, fmt, ap);
    va_end(ap);
}

void import_problem(struct import *im, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_line(im, fmt, ap);
    va_end(ap);
    im->rep->problems++;
}

/* ---- one tensor ---- */

static enum err_code add(struct import *im, const struct found *f, struct err *e)
{
    for (size_t i = 0; i < im->count; i++)
        if (!strcmp(im->found[i].name, f->name)) {
            import_problem(im, "tensor %s is there twice", f->name);
            return ERR_OK;
        }
    if (im->count == FOUND_MAX)
        return err_set(e, ERR_INPUT, "%s: more than %d tensors", im->p->path, FOUND_MAX);
    if (im->count == im->cap) {
        size_t cap = im->cap ? 2 * im->cap : 256;
        struct found *more = realloc(im->found, cap * sizeof *more);
        if (!more)
            return err_nomem(e, "tensors", cap * sizeof *more);
        im->found = more;
        im->cap = cap;
    }
    im->found[im->count++] = *f;
    return ERR_OK;
}

/* Slice i of a bank belongs to block i % NUM_LAYERS; what[0] is the first half's, what[1] the
 * second's (#549: qo_bank[i] is Q of layer i, qo_bank[n+i] its output projection). */
static const struct {
    const char *bank, *what[2];
} banks[] = {
    {"qo_bank", {"attn.c_q.weight", "attn.proj.weight"}},
    {"kv_bank", {"attn.c_k.weight", "attn.c_v.weight"}},
    {"mlp_up_bank", {"mlp.fc.weight", NULL}},
    {"mlp_down_bank", {"mlp.proj.weight", NULL}},
};
enum { BANKS = sizeof banks / sizeof *banks };

static enum err_code unbank(struct import *im, const struct found *f, size_t bank,
                            const char *suffix, struct err *e)
{
    size_t layers = (size_t)im->r->num_layers, n = layers * (banks[bank].what[1] ? 2 : 1);
    const struct tensor_view *t = &f->view;
    bool scale = !strcmp(suffix, ".scale");
    if (scale ? !n || tensor_elems(t) % n : t->ndim != 3 || t->shape[0] != n) {
        import_problem(im, "tensor %s: no bank of %zu matrices, as NUM_LAYERS=%zu wants", f->name,
                       n, layers);
        return ERR_OK;
    }
    for (size_t i = 0; i < n; i++) {
        struct found slice = *f;
        snprintf(slice.name, sizeof slice.name, "blocks.%zu.%s%s", i % layers,
                 banks[bank].what[i / layers], suffix);
        slice.view.ndim = scale ? 1 : 2;
        slice.view.shape[0] = scale ? tensor_elems(t) / n : t->shape[1];
        slice.view.shape[1] = scale ? 0 : t->shape[2];
        slice.view.nbytes = t->nbytes / n;
        slice.view.data = t->data + i * slice.view.nbytes;
        enum err_code rc = add(im, &slice, e);
        if (rc)
            return rc;
    }
    return ERR_OK;
}

/* A tensor `name` + suffix of the file; type as in struct found. */
static enum err_code take(struct import *im, const struct pickle_value *name, const char *suffix,
                          const char *type, const struct pickle_value *value, struct err *e)
{
    struct found f = {0};
    if (name->kind != PICKLE_STR || name->n != strlen(name->text) ||
        name->n + strlen(suffix) >= sizeof f.name) {
        import_problem(im, "a tensor whose name is none: %.60s",
                       name->kind == PICKLE_STR ? name->text : "not a string");
        return ERR_OK;
    }
    strcpy(f.name, name->text);
    strcat(f.name, suffix);
    snprintf(f.type, sizeof f.type, "%s", type);
    enum err_code rc = ptz_tensor(im->p, value, f.name, &f.view, e);
    if (rc)
        return rc;
    for (size_t b = 0; b < BANKS; b++) {
        size_t n = strlen(banks[b].bank);
        const char *rest = f.name + n;
        if (!strncmp(f.name, banks[b].bank, n) &&
            (!*rest || !strcmp(rest, ".q") || !strcmp(rest, ".scale")))
            return unbank(im, &f, b, rest, e);
    }
    return add(im, &f, e);
}

/* ---- {"w": ..., "m": ...} ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

/* What m says about X of X.q; "" and a problem when it does not say that it is per-row integers. */
static const char *type_of(struct import *im, const struct pickle_value *m, const char *name)
{
    static const char *const known[] = {"int5", "int6", "int7", "int8", "int4"};
    char base[FOUND_NAME];
    snprintf(base, sizeof base, "%.*s", (int)(strlen(name) - 2), name);
    const struct pickle_value *how = pickle_get(m, base), *type = pickle_get(how, "type");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (pickle_is(type, known[i]))
            return known[i];
    import_problem(im, "tensor %.80s: its type is %.40s, which is not understood", base,
                   type && type->kind == PICKLE_STR ? type->text : "not given");
    return "";
}

/* Whatever m lists is in w. */
static void check_listed(struct import *im, const struct pickle_value *w,
                         const struct pickle_value *m)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct pickle_value *name = m->item[2 * i], *how = m->item[2 * i + 1];
        char q[FOUND_NAME];
        if (name->kind != PICKLE_STR)
            continue;
        snprintf(q, sizeof q, "%.80s%s", name->text, how->kind == PICKLE_DICT ? ".q" : "");
        if (!pickle_get(w, q))
            import_problem(im, "tensor %.80s: described, but not there", q);
    }
}

static enum err_code collect_records(struct import *im, struct err *e)
{
    const struct pickle_value *w = pickle_get(im->p->root, "w"), *m = pickle_get(im->p->root, "m");
    enum err_code rc = ERR_OK;
    if (w->n > FOUND_MAX || m->n > FOUND_MAX)
        return err_set(e, ERR_INPUT, "%s: more than %d tensors", im->p->path, FOUND_MAX);
    for (size_t i = 0; !rc && i < w->n; i++) {
        const struct pickle_value *name = w->item[2 * i];
        bool q = name->kind == PICKLE_STR && ends_with(name->text, ".q");
        rc = take(im, name, "", q ? type_of(im, m, name->text) : "", w->item[2 * i + 1], e);
    }
    check_listed(im, w, m);
    return rc;
}

static bool is_records(const struct pickle_value *root)
{
    const struct pickle_value *w = pickle_get(root, "w"), *m = pickle_get(root, "m");
    return w && m && w->kind == PICKLE_DICT && m->kind == PICKLE_DICT;
}

/* ---- the baseline ---- */

/* The tables were bf16 parameters: gpt_load rounds them when the recipe says so. */
static void follow_dtypes(struct import *im, const struct pickle_value *dtypes)
{
    if (im->r->embed_bf16 || !pickle_is(pickle_get(dtypes, "tok_emb.weight"), "bfloat16"))
        return;
    im->r->embed_bf16 = 1;
    import_note(im, "EMBED_BF16=1: the file says that tok_emb.weight was bfloat16");
}

static enum err_code collect_int8(struct import *im, struct err *e)
{
    const struct pickle_value *root = im->p->root, *q = pickle_get(root, "quantized");
    const struct pickle_value *s = pickle_get(root, "scales"), *w = pickle_get(root, "passthrough");
    enum err_code rc = ERR_OK;
    if (!q || q->kind != PICKLE_DICT || !s || s->kind != PICKLE_DICT || !w ||
        w->kind != PICKLE_DICT || q->n > FOUND_MAX || w->n > FOUND_MAX)
        return err_set(e, ERR_INPUT,
                       "%s: no int8_clean_per_row_v1: quantized, scales or "
                       "passthrough is missing or no dictionary",
                       im->p->path);
    for (size_t i = 0; !rc && i < q->n; i++) {
        const struct pickle_value *name = q->item[2 * i];
        rc = take(im, name, ".q", "int8", q->item[2 * i + 1], e);
        if (!rc && name->kind == PICKLE_STR)
            rc = take(im, name, ".scale", "", pickle_get(s, name->text), e);
    }
    for (size_t i = 0; !rc && i < w->n; i++)
        rc = take(im, w->item[2 * i], "", "", w->item[2 * i + 1], e);
    follow_dtypes(im, pickle_get(root, "dtypes"));
    follow_dtypes(im, pickle_get(root, "passthrough_orig_dtypes"));
    return rc;
}

static bool is_int8(const struct pickle_value *root)
{
    return pickle_is(pickle_get(root, "__quant_format__"), "int8_clean_per_row_v1");
}

/* ---- weights that were never quantised ---- */

static enum err_code collect_state(struct import *im, struct err *e)
{
    const struct pickle_value *root = im->p->root;
    enum err_code rc = ERR_OK;
    for (size_t i = 0; !rc && i < root->n; i++)
        rc = take(im, root->item[2 * i], "", "", root->item[2 * i + 1], e);
    return rc;
}

/* Some value is a tensor, and its name looks like a model's. */
static bool is_state(const struct pickle_value *root)
{
    return pickle_get(root, "tok_emb.weight") != NULL;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    bool (*is)(const struct pickle_value *root);
    enum err_code (*collect)(struct import *im, struct err *e);
} layouts[] = {
    {"records", is_records, collect_records},
    {"int8", is_int8, collect_int8},
    {"state dict", is_state, collect_state},
};

/* The keys of a dictionary, or what it is instead, for an error. */
static const char *outline(const struct pickle_value *root, char *out, size_t cap)
{
    if (root->kind != PICKLE_DICT)
        return "it holds no dictionary";
    size_t at = (size_t)snprintf(out, cap, "a dictionary of %zu: ", root->n);
    for (size_t i = 0; i < root->n && at + 1 < cap; i++) {
        const struct pickle_value *key = root->item[2 * i];
        at += (size_t)snprintf(out + at, cap - at, "%s%.40s", i ? ", " : "",
                               key->kind == PICKLE_STR ? key->text : "?");
    }
    return out;
}

enum err_code import_collect(struct import *im, struct err *e)
{
    char text[120];
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].is(im->p->root)) {
            im->rep->layout = layouts[i].name;
            return layouts[i].collect(im, e);
        }
    return err_set(e, ERR_INPUT, "%s: no layout that is known; %s", im->p->path,
                   outline(im->p->root, text, sizeof text));
}
