/* quant_file.c - see quant.h: a whole model to a file of integers, scales and fp16. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/gptq.h"
#include "trainer/mixed.h"
#include "trainer/quant.h"
#include "trainer/rd.h"

enum { NAME = sizeof((struct gpt_param *)0)->name, FULL_NAME = NAME + 8 }; /* and ".scale" */

bool quant_needs_data(const struct recipe *r)
{
    return rd_wanted(r) || r->mixed_quant || !strcmp(r->quant_method, "gptq");
}

/* ---- settings ---- */

static enum err_code check_range(const char *key, int64_t x, int64_t low, int64_t high,
                                 struct err *e)
{
    if (x >= low && x <= high)
        return ERR_OK;
    if (low == 0 && high == INT64_MAX)
        return err_set(e, ERR_USAGE, "%s=%lld: must not be negative", key, (long long)x);
    return err_set(e, ERR_USAGE, "%s=%lld: must be %lld to %lld", key, (long long)x, (long long)low,
                   (long long)high);
}

static enum err_code check_word(const char *key, const char *x, const char *a, const char *b,
                                struct err *e)
{
    return !strcmp(x, a) || !strcmp(x, b)
               ? ERR_OK
               : err_set(e, ERR_USAGE, "%s=%s: must be %s or %s", key, x, a, b);
}

enum err_code quant_check(const struct recipe *r, struct err *e)
{
    const int64_t many = INT64_MAX;
    const struct {
        const char *key;
        int64_t x, low, high;
    } range[] = {
        {"QUANT_BITS", r->quant_bits, QUANT_MIN_BITS, QUANT_MAX_BITS},
        {"QUANT_EMBED_BITS", r->quant_embed_bits, QUANT_MIN_BITS, QUANT_MAX_BITS},
        {"QUANT_KEEP_NUMEL", r->quant_keep_numel, 0, many},
        {"GPTQ_CALIB_BATCHES", r->gptq_calib_batches, 1, 1 << 20},
        {"GPTQ_BATCH_TOKENS", r->gptq_batch_tokens, 1, 1 << 30},
        {"GPTQ_BLOCK", r->gptq_block, 1, 1 << 20},
        {"MIXED_QUANT", r->mixed_quant, 0, 1},
        {"N_INT6_LAYERS", r->n_int6_layers, 0, many},
        {"PRUNE_TARGET_BYTES", r->prune_target_bytes, 0, many},
        {"PRUNE_CODE_BYTES", r->prune_code_bytes, 0, many},
    };
    const struct {
        const char *key, *x, *a, *b;
    } word[] = {
        {"QUANT_CLIP", r->quant_clip, "row", "tensor"},
        {"QUANT_METHOD", r->quant_method, "search", "gptq"},
        {"GPTQ_DATA", r->gptq_data, "first", "continue"},
        {"PRUNE_SEARCH", r->prune_search, "once", "fit"},
    };
    const struct {
        const char *key;
        double x, high;
    } number[] = {
        {"QUANT_SCALE_FLOOR", r->quant_scale_floor, 1000},
        {"GPTQ_DAMP", r->gptq_damp, 1000},
        {"GPTQ_COLLECT_DAMP", r->gptq_collect_damp, 1000},
    };
    enum err_code rc = ERR_OK;
    rc = rd_check(r, e);
    for (size_t i = 0; i < sizeof range / sizeof range[0] && !rc; i++)
        rc = check_range(range[i].key, range[i].x, range[i].low, range[i].high, e);
    for (size_t i = 0; i < sizeof word / sizeof word[0] && !rc; i++)
        rc = check_word(word[i].key, word[i].x, word[i].a, word[i].b, e);
    for (size_t i = 0; i < sizeof number / sizeof number[0] && !rc; i++)
        if (!(number[i].x >= 0 && number[i].x <= number[i].high))
            rc = err_set(e, ERR_USAGE, "%s=%g: must be 0 to %g", number[i].key, number[i].x,
                         number[i].high);
    if (!rc && r->mixed_quant && r->quant_bits != 6)
        rc = err_set(e, ERR_USAGE, "MIXED_QUANT=1 mixes int6 and int5: QUANT_BITS=%lld must be 6",
                     (long long)r->quant_bits);
    if (!rc && quant_needs_data(r) && !rd_wanted(r) && r->gptq_batch_tokens % r->train_seq_len)
        rc = err_set(e, ERR_USAGE, "GPTQ_BATCH_TOKENS=%lld: no multiple of TRAIN_SEQ_LEN=%lld",
                     (long long)r->gptq_batch_tokens, (long long)r->train_seq_len);
    return rc;
}

/* ---- the file under construction ---- */

/* One parameter of the file under construction. */
struct item {
    const struct gpt_param *p;
    const float *w;
    const struct hessian *h; /* NULL: none was collected, or it is not for this tensor */
    struct quant_how how;    /* bits 16: fp16 */
    struct quant_search found;
    enum quant_by by;
    int8_t *q;
    uint16_t *half; /* scales, or the fp16 tensor */
    size_t pruned;
};

/* Views point into q, half and names; items too. */
struct draft {
    const struct recipe *r;
    const struct quant_with *with;
    struct item *item;
    size_t count;
    int8_t *q;
    uint16_t *half;
    char (*names)[FULL_NAME];
    struct tensor_view *view;
    size_t nview;
    struct hessians hs;
    struct gptq_factor factor; /* of the Hessian factor_of, kept for the next layer */
    const float *factor_of;
    struct quant_report rep;
    double err2, norm2; /* sums of squares over the quantised tensors */
};

static void draft_free(struct draft *d)
{
    free(d->item);
    free(d->q);
    free(d->half);
    free(d->names);
    free(d->view);
    hessian_free(&d->hs);
    gptq_factor_free(&d->factor);
    quant_report_free(&d->rep);
}

static size_t cols_of(const struct gpt_param *p)
{
    return p->ndim ? p->shape[p->ndim - 1] : 1;
}

static size_t rows_of(const struct gpt_param *p)
{
    return p->size / cols_of(p);
}

/* Matrices of blocks, and the small projections, which the records class with attention. */
static bool of_block(const struct gpt_param *p)
{
    return p->cls == PARAM_MATRIX || p->cls == PARAM_PROJ;
}

/* The settings of a parameter; bits 16 means fp16. */
static struct quant_how how_of(const struct gpt_param *p, const struct recipe *r)
{
    bool tensor = !strcmp(r->quant_clip, "tensor"), matrix = of_block(p);
    struct quant_how h = {.floor = r->quant_scale_floor};
    h.bits = (unsigned)(matrix ? r->quant_bits : r->quant_embed_bits);
    h.clip = !tensor ? QUANT_CLIP_ROW : matrix ? QUANT_CLIP_TENSOR : QUANT_CLIP_TOP;
    if (p->cls == PARAM_CONTROL || p->ndim < 2 || p->size <= (size_t)r->quant_keep_numel)
        h.bits = 16;
    return h;
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

/* Memory for everything, and the views of it, which the data fill later. */
static enum err_code draft_init(struct draft *d, const struct gpt *m, const float *params,
                                struct err *e)
{
    size_t nq = 0, nhalf = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        bool half = how_of(p, d->r).bits == 16;
        nq += half ? 0 : p->size;
        nhalf += half ? p->size : rows_of(p);
    }
    d->item = calloc(m->nparams + 1, sizeof *d->item);
    d->q = malloc(nq + 1);
    d->half = malloc((nhalf + 1) * sizeof *d->half);
    d->names = calloc(2 * m->nparams + 1, sizeof *d->names);
    d->view = calloc(2 * m->nparams + 1, sizeof *d->view);
    d->rep.line = calloc(m->nparams + 1, sizeof *d->rep.line);
    if (!d->item || !d->q || !d->half || !d->names || !d->view || !d->rep.line)
        return err_nomem(e, "quantised weights", nq + 2 * nhalf);
    nq = nhalf = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        struct item *t = &d->item[d->count++];
        *t = (struct item){.p = p, .w = params + p->at, .how = how_of(p, d->r)};
        t->q = d->q + nq;
        t->half = d->half + nhalf;
        if (t->how.bits == 16) {
            add_view(d, p, "", ST_F16, t->half, p->size * sizeof *t->half);
            nhalf += p->size;
            continue;
        }
        add_view(d, p, ".q", ST_I8, t->q, p->size);
        struct tensor_view *s =
            add_view(d, p, ".scale", ST_F16, t->half, rows_of(p) * sizeof *t->half);
        s->ndim = 1;
        s->shape[0] = rows_of(p);
        nq += p->size;
        nhalf += rows_of(p);
    }
    return ERR_OK;
}

/* ---- calibration ---- */

/* #1260: the least sensitive matrices of the blocks lose a bit. */
static enum err_code mix_bits(struct draft *d, struct err *e)
{
    size_t n = 0;
    double *trace = malloc((d->count + 1) * sizeof *trace);
    bool *fewer = malloc((d->count + 1) * sizeof *fewer);
    if (!trace || !fewer) {
        free(trace);
        free(fewer);
        return err_nomem(e, "sensitivities", d->count * sizeof *trace);
    }
    for (size_t i = 0; i < d->count; i++)
        if (d->item[i].h)
            trace[n++] = d->item[i].h->trace;
    mixed_choose(fewer, trace, n, (size_t)d->r->n_int6_layers);
    n = 0;
    for (size_t i = 0; i < d->count; i++)
        if (d->item[i].h && fewer[n++])
            d->item[i].how.bits--;
    free(trace);
    free(fewer);
    return ERR_OK;
}

static enum err_code calibrate(struct draft *d, const struct gpt *m, const float *params,
                               struct err *e)
{
    if (!d->with || !d->with->calib)
        return err_set(e, ERR_USAGE,
                       "QUANT_METHOD=%s MIXED_QUANT=%lld: needs training data to calibrate with "
                       "(packer quantize --data DIR)",
                       d->r->quant_method, (long long)d->r->mixed_quant);
    enum err_code rc = hessian_collect(&d->hs, m, params, d->r, d->with->calib, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < d->count; i++) {
        struct item *t = &d->item[i];
        if (t->p->cls == PARAM_MATRIX && t->how.bits != 16)
            t->h = hessian_find(&d->hs, t->p->at);
    }
    return d->r->mixed_quant ? mix_bits(d, e) : ERR_OK;
}

/* ---- tensors ---- */

static enum err_code to_half(struct item *t, struct err *e)
{
    for (size_t i = 0; i < t->p->size; i++) {
        t->half[i] = f32_to_f16(t->w[i]);
        if ((t->half[i] & 0x7fff) >= 0x7c00)
            return err_set(e, ERR_INPUT, "%s: element %zu is %g, no finite fp16 number", t->p->name,
                           i, (double)t->w[i]);
    }
    return ERR_OK;
}

static enum err_code by_gptq(struct draft *d, struct item *t, struct err *e)
{
    const float *h = hessian_matrix(&d->hs, t->h);
    enum err_code rc;
    if (h != d->factor_of) { /* q, k and v of a block share one */
        gptq_factor_free(&d->factor);
        d->factor_of = NULL;
        if ((rc = gptq_factor_init(&d->factor, h, t->h->n, d->r->gptq_damp, t->p->name, e)))
            return rc;
        d->factor_of = h;
    }
    t->by = d->factor.definite ? QUANT_BY_GPTQ : QUANT_BY_FALLBACK;
    return gptq_matrix(t->q, t->half, t->w, rows_of(t->p), &d->factor, &t->how,
                       (size_t)d->r->gptq_block, t->p->name, &t->found, e);
}

static enum err_code quantise(struct draft *d, struct item *t, struct err *e)
{
    if (t->how.bits == 16)
        return to_half(t, e);
    if (t->h && !strcmp(d->r->quant_method, "gptq"))
        return by_gptq(d, t, e);
    t->by = QUANT_BY_SEARCH;
    return quant_matrix(t->q, t->half, t->w, rows_of(t->p), cols_of(t->p), &t->how, t->p->name,
                        &t->found, e);
}

static enum err_code quantise_all(struct draft *d, struct err *e)
{
    const struct calib *c = d->with ? d->with->calib : NULL;
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < d->count && !rc; i++) {
        rc = quantise(d, &d->item[i], e);
        if (c && c->progress)
            c->progress(c->progress_ctx, "quantisation", i + 1, d->count);
    }
    return rc;
}

/* ---- pruning ---- */

static enum err_code code_and_file(void *ctx, uint64_t *bytes, struct err *e)
{
    const struct draft *d = ctx;
    enum err_code rc = d->with->size(d->with->size_ctx, d->r, d->view, d->nview, bytes, e);
    *bytes += (uint64_t)d->r->prune_code_bytes;
    return rc;
}

static enum err_code prune(struct draft *d, struct err *e)
{
    const struct recipe *r = d->r;
    struct prune_tensor *t;
    size_t n = 0;
    d->rep.prune_target = (uint64_t)r->prune_target_bytes;
    d->rep.prune_left_out = !d->with || !d->with->size;
    if (d->rep.prune_left_out)
        return ERR_OK;
    if (!(t = calloc(d->count + 1, sizeof *t)))
        return err_nomem(e, "pruning", d->count * sizeof *t);
    for (size_t i = 0; i < d->count; i++) {
        const struct item *x = &d->item[i];
        if (of_block(x->p) && x->how.bits == (unsigned)r->quant_bits)
            t[n++] = (struct prune_tensor){x->q, x->half, rows_of(x->p), cols_of(x->p), 0};
    }
    enum prune_search how = strcmp(r->prune_search, "fit") ? PRUNE_ONCE : PRUNE_FIT;
    enum err_code rc = prune_to(t, n, d->rep.prune_target, how, code_and_file, d, &d->rep.prune, e);
    for (size_t i = 0, at = 0; i < d->count && at < n; i++)
        if (d->item[i].q == t[at].q && d->item[i].how.bits != 16)
            d->item[i].pruned = t[at++].pruned;
    free(t);
    return rc;
}

/* ---- report ---- */

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

/* Element i as the loader will see it. */
static float stored(const struct item *t, size_t i)
{
    return t->how.bits == 16 ? f16_to_f32(t->half[i])
                             : (float)t->q[i] * f16_to_f32(t->half[i / cols_of(t->p)]);
}

static void report(struct draft *d, const struct item *t)
{
    struct quant_line *line = &d->rep.line[d->rep.count++], *all = &d->rep.total;
    double err2 = 0, norm2 = 0, n = (double)t->p->size;
    size_t edge = 0;
    for (size_t i = 0; i < t->p->size; i++) {
        double x = (double)t->w[i], diff = x - (double)stored(t, i);
        err2 += diff * diff;
        norm2 += x * x;
        edge += t->how.bits != 16 && abs(t->q[i]) == quant_levels(t->how.bits);
    }
    *line = (struct quant_line){.bits = t->how.bits, .by = t->by, .pct = -1, .entropy = 16};
    strcpy(line->name, t->p->name);
    line->numel = t->p->size;
    line->rows = rows_of(t->p);
    line->mse = err2 / n;
    line->rel = norm2 > 0 ? sqrt(err2 / norm2) : 0;
    line->sensitivity = t->h ? t->h->trace : 0;
    line->pruned = t->pruned;
    d->rep.numel += t->p->size;
    if (line->bits == 16) {
        d->rep.coded_bytes += 2 * n;
        return;
    }
    if (t->how.clip == QUANT_CLIP_TENSOR)
        line->pct = (int)t->found.winner;
    line->entropy = entropy(t->q, t->p->size);
    line->at_edge = (double)edge / n;
    all->numel += t->p->size;
    all->rows += line->rows;
    all->pruned += t->pruned;
    all->entropy += line->entropy * n; /* means once report_all has divided */
    all->at_edge += line->at_edge * n;
    d->err2 += err2;
    d->norm2 += norm2;
    d->rep.coded_bytes += line->entropy * n / 8 + 2 * (double)line->rows;
}

static void report_all(struct draft *d)
{
    struct quant_line *all = &d->rep.total;
    for (size_t i = 0; i < d->count; i++)
        report(d, &d->item[i]);
    if (!all->numel)
        return;
    all->mse = d->err2 / (double)all->numel;
    all->rel = d->norm2 > 0 ? sqrt(d->err2 / d->norm2) : 0;
    all->entropy /= (double)all->numel;
    all->at_edge /= (double)all->numel;
}

enum err_code quant_write(const struct gpt *m, const float *params, const struct recipe *r,
                          const char *const *meta, size_t nmeta, const char *path,
                          const struct quant_with *with, struct quant_report *rep, struct err *e)
{
    struct draft d = {.r = r, .with = with};
    enum err_code rc;
    if (rd_wanted(r)) {
        struct rd_with rd = {.calib = with ? with->calib : NULL};
        return rd_write(m, params, r, meta, nmeta, path, &rd, rep, e);
    }
    if ((rc = quant_check(r, e)) || (rc = draft_init(&d, m, params, e)) ||
        (quant_needs_data(r) && (rc = calibrate(&d, m, params, e))) || (rc = quantise_all(&d, e)) ||
        (r->prune_target_bytes > 0 && (rc = prune(&d, e))) ||
        (rc = st_write(path, d.view, d.nview, meta, nmeta, e)))
        goto out;
    if (rep) {
        report_all(&d);
        *rep = d.rep;
        d.rep.line = NULL; /* handed over */
    }
out:
    draft_free(&d);
    return rc;
}
