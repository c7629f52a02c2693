/* quant_file.c - see quant.h: a whole model to a file of integers, scales and fp16. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/quant.h"

enum { NAME = sizeof((struct gpt_param *)0)->name, FULL_NAME = NAME + 8 }; /* and ".scale" */

/* The file under construction: views point into q, half and names. */
struct draft {
    int8_t *q;
    uint16_t *half; /* scales and fp16 tensors */
    char (*names)[FULL_NAME];
    struct tensor_view *view;
    size_t nq, nhalf, nview;
    struct quant_report rep;
    double err2, norm2; /* sums of squares over the quantised tensors */
};

static void draft_free(struct draft *d)
{
    free(d->q);
    free(d->half);
    free(d->names);
    free(d->view);
    quant_report_free(&d->rep);
}

void quant_report_free(struct quant_report *r)
{
    free(r->line);
    *r = (struct quant_report){0};
}

/* The settings of a parameter; bits 16 means fp16. */
static struct quant_how how_of(const struct gpt_param *p, const struct recipe *r)
{
    bool tensor = !strcmp(r->quant_clip, "tensor"), matrix = p->cls == PARAM_MATRIX;
    struct quant_how h = {.floor = r->quant_scale_floor};
    h.bits = (unsigned)(matrix ? r->quant_bits : r->quant_embed_bits);
    h.clip = !tensor ? QUANT_CLIP_ROW : matrix ? QUANT_CLIP_TENSOR : QUANT_CLIP_TOP;
    if (p->cls == PARAM_CONTROL || p->ndim < 2 || p->size <= (size_t)r->quant_keep_numel)
        h.bits = 16;
    return h;
}

static size_t cols_of(const struct gpt_param *p)
{
    return p->shape[p->ndim - 1];
}

enum err_code quant_check(const struct recipe *r, struct err *e)
{
    const struct {
        const char *key;
        int64_t bits;
    } range[] = {{"QUANT_BITS", r->quant_bits}, {"QUANT_EMBED_BITS", r->quant_embed_bits}};
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (range[i].bits < QUANT_MIN_BITS || range[i].bits > QUANT_MAX_BITS)
            return err_set(e, ERR_USAGE, "%s=%lld: must be %d to %d", range[i].key,
                           (long long)range[i].bits, QUANT_MIN_BITS, QUANT_MAX_BITS);
    if (strcmp(r->quant_clip, "row") && strcmp(r->quant_clip, "tensor"))
        return err_set(e, ERR_USAGE, "QUANT_CLIP=%s: must be row or tensor", r->quant_clip);
    if (!(r->quant_scale_floor >= 0 && r->quant_scale_floor <= 1000))
        return err_set(e, ERR_USAGE, "QUANT_SCALE_FLOOR=%g: must be 0 to 1000",
                       r->quant_scale_floor);
    if (r->quant_keep_numel < 0)
        return err_set(e, ERR_USAGE, "QUANT_KEEP_NUMEL=%lld: must not be negative",
                       (long long)r->quant_keep_numel);
    return ERR_OK;
}

static enum err_code draft_init(struct draft *d, const struct gpt *m, const struct recipe *r,
                                struct err *e)
{
    size_t nq = 0, nhalf = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        bool half = how_of(p, r).bits == 16;
        nq += half ? 0 : p->size;
        nhalf += half ? p->size : p->size / cols_of(p);
    }
    d->q = malloc(nq + 1);
    d->half = malloc((nhalf + 1) * sizeof *d->half);
    d->names = calloc(2 * m->nparams + 1, sizeof *d->names);
    d->view = calloc(2 * m->nparams + 1, sizeof *d->view);
    d->rep.line = calloc(m->nparams + 1, sizeof *d->rep.line);
    if (!d->q || !d->half || !d->names || !d->view || !d->rep.line)
        return err_nomem(e, "quantised weights", nq + 2 * nhalf);
    return ERR_OK;
}

static struct tensor_view *add_view(struct draft *d, const struct gpt_param *p, const char *suffix,
                                    enum st_dtype dtype, const void *data, size_t nbytes)
{
    char *name = d->names[d->nview];
    struct tensor_view *v = &d->view[d->nview++];
    strcpy(name, p->name);
    strcat(name, suffix);
    *v = (struct tensor_view){.name = name, .dtype = dtype, .data = data, .nbytes = nbytes};
    v->ndim = p->ndim;
    memcpy(v->shape, p->shape, p->ndim * sizeof p->shape[0]);
    d->rep.raw_bytes += nbytes;
    return v;
}

/* Order-0 entropy of the integers, in bits each. */
static double entropy(const int8_t *q, size_t n)
{
    size_t count[256] = {0};
    double bits = 0;
    for (size_t i = 0; i < n; i++)
        count[(uint8_t)q[i]]++;
    for (size_t v = 0; v < 256; v++)
        if (count[v])
            bits -= (double)count[v] * log2((double)count[v] / (double)n);
    return bits / (double)n;
}

static void add_line(struct draft *d, const struct gpt_param *p, struct quant_line line,
                     double err2, double norm2)
{
    strcpy(line.name, p->name);
    line.numel = p->size;
    line.mse = err2 / (double)p->size;
    line.rel = norm2 > 0 ? sqrt(err2 / norm2) : 0;
    d->rep.line[d->rep.count++] = line;
    d->rep.numel += p->size;
    if (line.bits == 16) {
        d->rep.coded_bytes += 2 * (double)p->size;
        return;
    }
    struct quant_line *t = &d->rep.total;
    t->numel += p->size;
    t->rows += line.rows;
    t->entropy += line.entropy * (double)p->size; /* a mean once draft_end has divided */
    t->at_edge += line.at_edge * (double)p->size;
    d->err2 += err2;
    d->norm2 += norm2;
    d->rep.coded_bytes += line.entropy * (double)p->size / 8 + 2 * (double)line.rows;
}

static void draft_end(struct draft *d)
{
    struct quant_line *t = &d->rep.total;
    if (!t->numel)
        return;
    t->mse = d->err2 / (double)t->numel;
    t->rel = d->norm2 > 0 ? sqrt(d->err2 / d->norm2) : 0;
    t->entropy /= (double)t->numel;
    t->at_edge /= (double)t->numel;
}

static enum err_code add_half(struct draft *d, const struct gpt_param *p, const float *w,
                              struct err *e)
{
    uint16_t *out = d->half + d->nhalf;
    double err2 = 0, norm2 = 0;
    for (size_t i = 0; i < p->size; i++) {
        out[i] = f32_to_f16(w[i]);
        if ((out[i] & 0x7fff) >= 0x7c00)
            return err_set(e, ERR_INPUT, "%s: element %zu is %g, no finite fp16 number", p->name, i,
                           (double)w[i]);
        double x = (double)w[i], diff = x - (double)f16_to_f32(out[i]);
        err2 += diff * diff;
        norm2 += x * x;
    }
    add_view(d, p, "", ST_F16, out, p->size * sizeof *out);
    d->nhalf += p->size;
    add_line(d, p, (struct quant_line){.bits = 16, .rows = p->size / cols_of(p), .entropy = 16},
             err2, norm2);
    return ERR_OK;
}

static enum err_code add_matrix(struct draft *d, const struct gpt_param *p, const float *w,
                                const struct quant_how *how, struct err *e)
{
    size_t cols = cols_of(p), rows = p->size / cols, edge = 0;
    int8_t *q = d->q + d->nq;
    uint16_t *scale = d->half + d->nhalf;
    double err2 = 0, norm2 = 0;
    enum err_code rc = quant_matrix(q, scale, w, rows, cols, how, p->name, NULL, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < p->size; i++) {
        double x = (double)w[i], diff = x - (double)((float)q[i] * f16_to_f32(scale[i / cols]));
        err2 += diff * diff;
        norm2 += x * x;
        edge += abs(q[i]) == quant_levels(how->bits);
    }
    add_view(d, p, ".q", ST_I8, q, p->size);
    struct tensor_view *s = add_view(d, p, ".scale", ST_F16, scale, rows * sizeof *scale);
    s->ndim = 1;
    s->shape[0] = rows;
    d->nq += p->size;
    d->nhalf += rows;
    add_line(d, p,
             (struct quant_line){.bits = how->bits,
                                 .rows = rows,
                                 .entropy = entropy(q, p->size),
                                 .at_edge = (double)edge / (double)p->size},
             err2, norm2);
    return ERR_OK;
}

enum err_code quant_write(const struct gpt *m, const float *params, const struct recipe *r,
                          const char *const *meta, size_t nmeta, const char *path,
                          struct quant_report *rep, struct err *e)
{
    struct draft d = {0};
    enum err_code rc = quant_check(r, e);
    if (!rc)
        rc = draft_init(&d, m, r, e);
    for (size_t i = 0; i < m->nparams && !rc; i++) {
        const struct gpt_param *p = &m->param[i];
        struct quant_how how = how_of(p, r);
        rc = how.bits == 16 ? add_half(&d, p, params + p->at, e)
                            : add_matrix(&d, p, params + p->at, &how, e);
    }
    if (!rc)
        rc = st_write(path, d.view, d.nview, meta, nmeta, e);
    if (!rc && rep) {
        draft_end(&d);
        *rep = d.rep;
        d.rep.line = NULL; /* handed over */
    }
    draft_free(&d);
    return rc;
}

/* The recipe in a file's metadata with settings over it. */
static enum err_code read_recipe(struct recipe *r, const struct st_file *f, const char *path,
                                 const char *const *settings, size_t n, struct err *e)
{
    const char *text = st_meta(f, "recipe");
    if (!text)
        return err_set(e, ERR_INPUT, "%s: its metadata hold no recipe", path);
    recipe_init(r);
    enum err_code rc = recipe_parse(r, text, strlen(text), path, true, e);
    for (size_t i = 0; i < n && !rc; i++) {
        if (strncmp(settings[i], "QUANT_", 6))
            rc = err_set(e, ERR_USAGE, "%s: only QUANT_* can be set when quantising", settings[i]);
        else
            rc = recipe_set(r, settings[i], "command line", e);
    }
    return rc;
}

/* quant_file once the input is open. */
static enum err_code convert(const struct st_file *f, const char *in, const char *out,
                             const struct recipe *r, struct quant_report *rep, struct err *e)
{
    struct gpt m = {0};
    float *params = NULL;
    char *text = NULL;
    const char **meta = NULL;
    size_t len =
        recipe_print(r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, NULL, 0);
    enum err_code rc = gpt_init(&m, r, e);
    if (rc)
        goto out;
    params = malloc(m.floats * sizeof *params);
    text = malloc(len + 1);
    meta = malloc((2 * f->nmeta + 1) * sizeof *meta);
    if (!params || !text || !meta) {
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
        goto out;
    }
    recipe_print(r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text, len + 1);
    for (size_t i = 0; i < f->nmeta; i++) {
        meta[2 * i] = f->meta[2 * i];
        meta[2 * i + 1] = strcmp(f->meta[2 * i], "recipe") ? f->meta[2 * i + 1] : text;
    }
    rc = gpt_load(&m, params, f->tensor, f->count, in, e);
    if (!rc)
        rc = quant_write(&m, params, r, meta, f->nmeta, out, rep, e);
out:
    free(meta);
    free(text);
    free(params);
    gpt_free(&m);
    return rc;
}

enum err_code quant_file(const char *in, const char *out, const char *const *settings, size_t n,
                         struct quant_report *rep, struct err *e)
{
    struct st_file f = {0};
    struct recipe r;
    enum err_code rc = st_open(&f, in, e);
    if (!rc)
        rc = read_recipe(&r, &f, in, settings, n, e);
    if (!rc)
        rc = convert(&f, in, out, &r, rep, e);
    st_close(&f);
    return rc;
}

void quant_report_print(const struct quant_report *r, FILE *out)
{
    fprintf(out, "%-32s %4s %10s %10s %8s %8s %8s\n", "tensor", "bits", "weights", "mse",
            "relative", "entropy", "at edge");
    for (size_t i = 0; i < r->count; i++) {
        const struct quant_line *l = &r->line[i];
        fprintf(out, "%-32s %4u %10zu %10.3e %8.5f", l->name, l->bits, l->numel, l->mse, l->rel);
        if (l->bits == 16)
            fprintf(out, " %8s %8s\n", "-", "-");
        else
            fprintf(out, " %8.3f %7.2f%%\n", l->entropy, 100 * l->at_edge);
    }
    if (r->total.numel)
        fprintf(out, "%-32s %4s %10zu %10.3e %8.5f %8.3f %7.2f%%\n", "all quantised", "",
                r->total.numel, r->total.mse, r->total.rel, r->total.entropy,
                100 * r->total.at_edge);
    fprintf(out, "%llu parameters, %llu bytes before coding, %.0f at the order-0 entropy\n",
            (unsigned long long)r->numel, (unsigned long long)r->raw_bytes, r->coded_bytes);
}
