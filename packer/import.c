/* import.c - see import.h: fitting what import_layout.c found to the recipe's model. */
#include "packer/import.h"

#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/gpt.h"
#include "model/safetensors.h"
#include "packer/import_layout.h"

static const char *dtype_name(enum st_dtype t)
{
    static const char *const name[ST_DTYPES] = {
        [ST_F32] = "F32", [ST_F16] = "F16", [ST_BF16] = "BF16", [ST_I8] = "I8",
        [ST_U8] = "U8",   [ST_I16] = "I16", [ST_U16] = "U16",   [ST_I32] = "I32",
        [ST_I64] = "I64", [ST_F64] = "F64", [ST_BOOL] = "BOOL",
    };
    return t < ST_DTYPES ? name[t] : "?";
}

static void shape_text(char out[64], size_t ndim, const size_t *shape)
{
    int n = snprintf(out, 64, "[");
    for (size_t i = 0; i < ndim && n < 40; i++)
        n += snprintf(out + n, 64 - (size_t)n, "%s%zu", i ? ", " : "", shape[i]);
    snprintf(out + n, 64 - (size_t)n, "]");
}

static void count_type(struct import_report *rep, const char *name, size_t elements)
{
    for (size_t i = 0; i < IMPORT_TYPES; i++) {
        if (!rep->type[i].name[0])
            snprintf(rep->type[i].name, sizeof rep->type[i].name, "%s", name);
        if (strcmp(rep->type[i].name, name))
            continue;
        rep->type[i].tensors++;
        rep->type[i].elements += elements;
        return;
    }
}

/* The shape must be the parameter's; a single element may have its axis or not. */
static void fit_plain(struct import *im, const struct gpt_param *p, struct found *f)
{
    struct tensor_view *t = &f->view;
    if (p->size == 1 && tensor_elems(t) == 1) {
        t->ndim = p->ndim;
        memcpy(t->shape, p->shape, sizeof p->shape);
    }
    bool same = p->ndim == t->ndim && !memcmp(p->shape, t->shape, p->ndim * sizeof *p->shape);
    char want[64], have[64];
    shape_text(want, p->ndim, p->shape);
    shape_text(have, t->ndim, t->shape);
    if (!same)
        import_problem(im, "tensor %s: its shape is %s, the recipe's model has %s", f->name, have,
                       want);
}

static void fit_quantised(struct import *im, const struct gpt_param *p, struct found *q,
                          struct found *s)
{
    fit_plain(im, p, q);
    if (q->view.dtype != ST_I8)
        import_problem(im, "tensor %s: its elements are %s, expected I8", q->name,
                       dtype_name(q->view.dtype));
    size_t n = tensor_elems(&s->view);
    if (s->view.dtype != ST_F16 || p->ndim < 2 || !n || n % p->shape[0] || p->size % n) {
        import_problem(im, "tensor %s: %zu scales of %s, expected %zu of F16, one per row", s->name,
                       n, dtype_name(s->view.dtype), p->shape[0]);
        return;
    }
    s->view.ndim = 1; /* [rows][1] and [rows][groups] are the same */
    s->view.shape[0] = n;
}

static void push(struct tensor_view *t, size_t *count, struct found *f)
{
    f->used = true;
    t[(*count)++] = f->view;
}

/* A line for every tensor that found no use. */
static void list_unused(struct import *im, const struct import_job *job, const char *why)
{
    for (size_t i = 0; i < im->count; i++) {
        const struct tensor_view *t = &im->found[i].view;
        bool wanted = true;
        char shape[64];
        shape_text(shape, t->ndim, t->shape);
        for (size_t k = 0; job && k < job->leave_outs; k++)
            wanted &= strncmp(im->found[i].name, job->leave_out[k], strlen(job->leave_out[k])) != 0;
        if (!im->found[i].used && !wanted)
            import_note(im, "tensor %s %s %s: left out", im->found[i].name, dtype_name(t->dtype),
                        shape);
        else if (!im->found[i].used)
            import_problem(im, "tensor %s %s %s: %s", im->found[i].name, dtype_name(t->dtype),
                           shape, why);
    }
}

static void fit(struct import *im, const struct import_job *job, const struct gpt *m,
                struct tensor_view *t, size_t *count)
{
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        struct found *w = import_look(im, p->name, ""), *q = import_look(im, p->name, ".q");
        struct found *s = import_look(im, p->name, ".scale");
        if (w && w->view.dtype != ST_F32 && w->view.dtype != ST_F16 && w->view.dtype != ST_BF16)
            import_problem(im, "tensor %s: its elements are %s, expected F32, F16 or BF16", w->name,
                           dtype_name(w->view.dtype));
        if (w && !q) {
            fit_plain(im, p, w);
            count_type(im->rep, *w->type ? w->type : dtype_name(w->view.dtype), p->size);
            push(t, count, w);
        } else if (q && s && !w) {
            fit_quantised(im, p, q, s);
            count_type(im->rep, q->type, p->size);
            push(t, count, q);
            push(t, count, s);
        } else {
            import_problem(im, "parameter %s: %s", p->name,
                           w && q ? "there plain and quantised"
                           : q    ? "its scales are missing"
                                  : "missing in the file");
        }
    }
    list_unused(im, job, "the recipe's model has no such parameter");
}

/* The names outlive the list of what was found. */
static enum err_code keep_names(struct tensor_view *t, size_t count, void **names, struct err *e)
{
    char(*name)[FOUND_NAME] = malloc((count + 1) * sizeof *name);
    if (!name)
        return err_nomem(e, "tensor names", count * sizeof *name);
    for (size_t i = 0; i < count; i++) {
        strcpy(name[i], t[i].name);
        t[i].name = name[i];
    }
    *names = name;
    return ERR_OK;
}

/* From the open file to the list that fit() works on, and the recipe. */
static enum err_code gather(struct import *im, const struct import_job *job, struct err *e)
{
    bool derive = job && !job->recipe;
    enum err_code rc = import_collect(im, e);
    if (!rc && derive && (rc = import_derive(im, e)))
        list_unused(im, job, "of no model that is known here");
    for (size_t i = 0; !rc && derive && i < job->settings; i++)
        rc = recipe_set(im->r, job->setting[i], "command line", e);
    if (!rc && derive)
        import_describe(im);
    if (!rc)
        rc = recipe_check(im->r, e);
    if (!rc)
        rc = import_unbank(im, e);
    return rc ? rc : import_settle(im, e);
}

enum err_code import_parse(struct ptz *p, const struct import_job *job, struct recipe *r,
                           struct tensor_view **t, size_t *count, void **names,
                           struct import_report *rep, struct err *e)
{
    struct gpt m = {0};
    *rep = (struct import_report){
        .payload = p->kind, .file_bytes = p->file_bytes, .payload_bytes = p->payload_bytes};
    strcpy(rep->layers, p->layers.text);
    struct import im = {.p = p, .r = r, .rep = rep};
    *t = NULL;
    *names = NULL;
    *count = 0;
    enum err_code rc = gather(&im, job, e);
    for (size_t i = 0; i < im.count; i++)
        im.found[i].view.name = im.found[i].name;
    if (!rc)
        rc = gpt_init(&m, r, e);
    if (!rc && !(*t = calloc(im.count + 1, sizeof **t)))
        rc = err_nomem(e, "tensors", im.count * sizeof **t);
    if (!rc)
        fit(&im, job, &m, *t, count);
    if (!rc && rep->problems)
        rc = err_set(e, ERR_INPUT, "%s: %zu things do not fit the recipe (each is listed)", p->path,
                     rep->problems);
    if (!rc)
        rc = keep_names(*t, *count, names, e);
    if (rc) {
        free(*t);
        *t = NULL;
    }
    free(im.found);
    gpt_free(&m);
    return rc;
}

/* Loads the weights once, which finds numbers that are not finite, and writes them. */
static enum err_code write_weights(const struct import_job *job, const struct import_report *rep,
                                   const struct recipe *r, const struct tensor_view *t,
                                   size_t count, struct err *e)
{
    enum { ALL = RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT };
    struct gpt m = {0};
    size_t len = recipe_print(r, ALL, false, NULL, 0);
    char bytes[32], code[32], left_out[512] = "", *text = malloc(len + 1);
    float *params = NULL;
    enum err_code rc = text ? gpt_init(&m, r, e) : err_nomem(e, "recipe", len);
    if (!rc && !(params = malloc(m.floats * sizeof *params)))
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
    if (!rc)
        rc = gpt_load(&m, params, t, count, job->record, e);
    if (!rc) {
        const char *slash = strrchr(job->record, '/');
        recipe_print(r, ALL, false, text, len + 1);
        snprintf(bytes, sizeof bytes, "%zu", rep->file_bytes);
        snprintf(code, sizeof code, "%zu", rep->code_bytes);
        for (size_t i = 0, at = 0; i < job->leave_outs && at < sizeof left_out; i++)
            at += (size_t)snprintf(left_out + at, sizeof left_out - at, "%s%s", i ? "," : "",
                                   job->leave_out[i]);
        const char *meta[12] = {
            "format",       "pt", "recipe", text, "imported_from", slash ? slash + 1 : job->record,
            "record_bytes", bytes};
        size_t pairs = 4;
        if (rep->code_bytes) {
            meta[2 * pairs] = "record_code_bytes";
            meta[2 * pairs++ + 1] = code;
        }
        if (job->leave_outs) {
            meta[2 * pairs] = "left_out";
            meta[2 * pairs++ + 1] = left_out;
        }
        rc = st_write(job->out, t, count, meta, pairs, e);
    }
    free(params);
    free(text);
    gpt_free(&m);
    return rc;
}

/* Only its size matters. */
static enum err_code measure_code(const char *path, size_t *bytes, struct err *e)
{
    const void *data;
    enum err_code rc = file_map(path, &data, bytes, e);
    if (!rc)
        file_unmap(data, *bytes);
    return rc;
}

enum err_code import_record(const struct import_job *job, struct import_report *rep, struct err *e)
{
    struct ptz p = {0};
    struct recipe r;
    struct tensor_view *t = NULL;
    size_t count = 0, code = 0;
    void *names = NULL;
    *rep = (struct import_report){0};
    enum err_code rc = ERR_OK;
    if (job->recipe)
        rc = recipe_load(&r, job->recipe, e);
    else
        recipe_init(&r);
    for (size_t i = 0; !rc && job->recipe && i < job->settings; i++)
        rc = recipe_set(&r, job->setting[i], "command line", e);
    if (!rc && job->code)
        rc = measure_code(job->code, &code, e);
    if (!rc)
        rc = ptz_open(&p, job->record, e);
    if (!rc)
        rc = import_parse(&p, job, &r, &t, &count, &names, rep, e);
    rep->code_bytes = code;
    if (!rc)
        rc = write_weights(job, rep, &r, t, count, e);
    free(t);
    free(names);
    ptz_close(&p);
    return rc;
}

/* ---- texts ---- */

/* 1234567 as "1,234,567". */
static const char *commas(char out[32], size_t n)
{
    char digits[24], *at = out;
    int len = snprintf(digits, sizeof digits, "%zu", n);
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return out;
}

static size_t meta_count(const struct st_file *f, const char *key)
{
    const char *text = st_meta(f, key);
    return text ? (size_t)strtoull(text, NULL, 10) : 0;
}

bool import_saved(char *out, size_t cap, const struct st_file *f, size_t bytes)
{
    size_t record = meta_count(f, "record_bytes"), code = meta_count(f, "record_code_bytes");
    size_t all = record + code, more = bytes > all ? bytes - all : all - bytes;
    const char *from = st_meta(f, "imported_from");
    char a[32], b[32], c[32];
    *out = 0;
    if (!record || !from || all < record)
        return false;
    commas(a, more);
    commas(b, record);
    commas(c, code);
    if (code)
        snprintf(out, cap, "%s bytes %s than %s of %s bytes and its script of %s", a,
                 bytes > all ? "larger" : "smaller", from, b, c);
    else
        snprintf(out, cap, "%s bytes %s than %s of %s bytes, whose script is not counted", a,
                 bytes > all ? "larger" : "smaller", from, b);
    return true;
}

enum err_code import_saved_print(FILE *out, const char *weights, size_t bytes, struct err *e)
{
    struct st_file f = {0};
    char text[200];
    enum err_code rc = st_open(&f, weights, e);
    if (!rc && import_saved(text, sizeof text, &f, bytes))
        fprintf(out, "%s\n", text);
    st_close(&f);
    return rc;
}

void import_report_print(const struct import_report *rep, FILE *out)
{
    if (rep->payload)
        fprintf(out, "%zu bytes, %s, payload %zu bytes (%s), layout: %s\n", rep->file_bytes,
                *rep->layers ? rep->layers : "raw", rep->payload_bytes, rep->payload,
                rep->layout ? rep->layout : "unknown");
    for (size_t i = 0; i < IMPORT_TYPES && rep->type[i].name[0]; i++)
        fprintf(out, "%-15s %6zu tensors %12zu parameters\n", rep->type[i].name,
                rep->type[i].tensors, rep->type[i].elements);
    for (size_t i = 0; i < rep->lines && i < IMPORT_LINES; i++)
        fprintf(out, "%s\n", rep->line[i]);
    if (rep->lines > IMPORT_LINES)
        fprintf(out, "and %zu more\n", rep->lines - IMPORT_LINES);
}
