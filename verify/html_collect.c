/* html_collect.c - gathering what the pictures of a page show; see html_page.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "stub/weights_dec.h"
#include "verify/html_cost.h"
#include "verify/html_data.h"
#include "verify/npy.h"

enum err_code page_open(struct page **p, const struct options *o, struct err *e)
{
    enum err_code rc = npy_try(o->report, e); /* which tries the place, whatever the file */
    if (!rc && !(*p = calloc(1, sizeof **p)))
        rc = err_nomem(e, "the page", sizeof **p);
    if (!rc)
        (*p)->o = o;
    return rc;
}

void page_free(struct page *p)
{
    if (!p)
        return;
    page_log_free(&p->log);
    code_free(&p->code);
    free(p->tensor);
    free(p);
}

/* ---- tensors ---- */

/* Length of the parameter's name in a tensor's: without .q, .scale, .rexp, .cexp, .step. */
static size_t base_length(const char *name)
{
    static const char *const suffix[] = {".q", ".scale", ".rexp", ".cexp", ".step"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        size_t k = strlen(suffix[i]);
        if (n > k && !strcmp(name + n - k, suffix[i]))
            return n - k;
    }
    return n;
}

static enum page_role role_of(const struct gpt_param *g)
{
    return g->cls == PARAM_CONTROL                         ? ROLE_SMALL
           : g->cls == PARAM_EMBED || g->cls == PARAM_HEAD ? ROLE_TABLE
           : strstr(g->name, "attn")                       ? ROLE_ATTENTION
           : strstr(g->name, "mlp")                        ? ROLE_MLP
                                                           : ROLE_TABLE;
}

/* The entry of a parameter, made when it is not there yet; NULL for a tensor that is none. */
static struct page_tensor *entry(struct page *p, const struct gpt *m, const char *name, size_t n)
{
    char base[sizeof p->tensor->name];
    if (n >= sizeof base)
        return NULL;
    memcpy(base, name, n);
    base[n] = 0;
    const struct gpt_param *g = gpt_find(m, base);
    if (!g)
        return NULL;
    for (size_t i = p->tensors; i-- > 0;) /* parts of a parameter are seldom far apart */
        if (!strcmp(p->tensor[i].name, base))
            return &p->tensor[i];
    struct page_tensor *t = &p->tensor[p->tensors++];
    *t = (struct page_tensor){
        .role = role_of(g), .order = p->tensors - 1, .ndim = g->ndim, .rel = NAN, .rmse = NAN};
    snprintf(t->name, sizeof t->name, "%s", base);
    memcpy(t->shape, g->shape, sizeof t->shape);
    t->weights = (double)g->size;
    return t;
}

static void span(struct page_tensor *e, const struct tensor_view *t)
{
    const int8_t *q = (const int8_t *)t->data;
    e->whole = t->nbytes > 0;
    e->lo = e->hi = e->whole ? q[0] : 0;
    for (size_t i = 0; i < t->nbytes; i++) {
        e->lo = q[i] < e->lo ? q[i] : e->lo;
        e->hi = q[i] > e->hi ? q[i] : e->hi;
    }
}

static int by_bytes(const void *a, const void *b)
{
    const struct page_tensor *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->name, y->name);
}

static enum err_code tensors(struct page *p, const struct blob *b, const struct gpt *m,
                             struct err *e)
{
    const struct blob_section *s = blob_find(b, KIND_WEIGHTS);
    struct weights_cursor c;
    struct tensor_view t;
    uint8_t *payload = NULL;
    double *cost = NULL, all = 0;
    size_t count = 0;
    enum err_code rc = blob_decode(&payload, s, p->o->file, e);
    if (rc || (rc = cost_tensors(s, payload, &cost, &count, &p->estimate, e)))
        goto out;
    p->tensor = calloc(m->nparams + 1, sizeof *p->tensor);
    if (!p->tensor) {
        rc = err_nomem(e, "names of tensors", m->nparams * sizeof *p->tensor);
        goto out;
    }
    weights_open(&c, payload, s->raw_size);
    for (size_t i = 0; i < count && weights_next(&c, &t); i++) {
        size_t n = base_length(t.name);
        struct page_tensor *to = entry(p, m, t.name, n);
        if (!to) /* a name of its own that ends like a part of another */
            to = entry(p, m, t.name, strlen(t.name));
        if (!to)
            continue;
        to->bytes += cost[i];
        all += cost[i];
        if (t.dtype == ST_I8 && !strcmp(t.name + n, ".q"))
            span(to, &t);
    }
    p->frame = (double)s->size - all;
    snprintf(p->codec, sizeof p->codec, "%s", codec_name(s->codec));
out:
    free(cost);
    free(payload);
    return rc;
}

/* ---- error against the float model ---- */

static double element(const struct tensor_view *t, size_t i)
{
    const uint8_t *at = t->data + i * st_dtype_size(t->dtype);
    uint16_t half;
    float x;
    if (t->dtype == ST_F32) {
        memcpy(&x, at, sizeof x);
        return (double)x;
    }
    memcpy(&half, at, sizeof half);
    return (double)(t->dtype == ST_F16 ? f16_to_f32(half) : bf16_to_f32(half));
}

/* Every parameter of the model must be in the file, or it is another model's: then nothing. */
static void compare(struct page *p, const struct gpt *m, const float *have, const struct st_file *f)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < p->tensors; i++) {
            struct page_tensor *t = &p->tensor[i];
            const struct gpt_param *g = gpt_find(m, t->name);
            const struct tensor_view *v = tensor_find(f->tensor, f->count, t->name);
            if (!v || tensor_elems(v) != g->size ||
                (v->dtype != ST_F32 && v->dtype != ST_F16 && v->dtype != ST_BF16)) {
                *p->float_path = 0;
                return;
            }
            double diff = 0, norm = 0;
            for (size_t k = 0; pass && k < g->size; k++) {
                double w = element(v, k), d = w - (double)have[g->at + k];
                diff += d * d;
                norm += w * w;
            }
            if (pass) {
                t->rel = norm > 0 ? sqrt(diff / norm) : 0;
                t->rmse = g->size ? sqrt(diff / (double)g->size) : 0;
            }
        }
}

static enum err_code errors(struct page *p, const struct engine *g, struct err *e)
{
    struct st_file f = {0};
    struct err aside = {0};
    size_t bytes = g->m.floats * sizeof(float);
    float *have = NULL;
    enum err_code rc = ERR_OK;
    if (!*p->float_path)
        return ERR_OK;
    if (st_open(&f, p->float_path, p->o->weights ? e : &aside)) {
        rc = p->o->weights ? e->code : ERR_OK;
        *p->float_path = 0;
        goto out;
    }
    have = malloc(bytes ? bytes : 1);
    if (!have) {
        rc = err_nomem(e, "the weights", bytes);
        goto out;
    }
    g->k->download(g->k, have, g->params, bytes);
    if ((rc = g->k->sync(g->k, e)))
        goto out;
    compare(p, &g->m, have, &f);
    if (p->o->weights && !*p->float_path)
        rc = err_set(e, ERR_INPUT, "%s: these are not the weights of a model like that in %s",
                     p->o->weights, p->o->file);
out:
    free(have);
    st_close(&f);
    return rc;
}

/* ---- scores ---- */

/* Mean and standard error of sums over n scores. */
static struct page_bin bin_of(double lo, double hi, double n, double sum, double squares)
{
    double mean = n > 0 ? sum / n : NAN;
    double var = n > 1 ? fmax(0, (squares - sum * mean) / (n - 1)) : NAN;
    return (struct page_bin){lo, hi, n, mean, n > 1 ? sqrt(var / n) : NAN};
}

void page_contexts(struct page *p, const struct window_list *l, const double *nll, size_t count)
{
    struct {
        double lo, hi, n, sum, squares;
    } acc[PAGE_BINS] = {{0}};
    enum { FEW = 24 };
    size_t windows = window_count(l), bins = 0, at = 0, edge = 1;
    p->bins = 0;
    p->window = l->len;
    if (window_scored(l) != count)
        return; /* another order than this function knows */

    /* Four bins to an octave; from `dense` on, where all windows but the first score, a few of
     * equal width, since most of the tokens are there. */
    size_t dense = l->len > l->stride && l->mode != EVAL_PLAIN ? l->len - l->stride : l->len;
    while (edge <= l->len && bins < PAGE_BINS) {
        size_t next = edge + (edge < 8 ? 1 : ((size_t)1 << (63 - __builtin_clzll(edge))) / 4);
        if (edge > dense)
            next = edge + (l->stride + 3) / 4;
        else if (next > dense + 1)
            next = dense + 1;
        if (l->len + 1 < next + (next - edge) / 2) /* no small rest */
            next = l->len + 1;
        acc[bins].lo = (double)edge;
        acc[bins++].hi = (double)(next - 1);
        edge = next;
    }
    for (size_t w = 0; w < windows; w++) {
        struct window win = window_at(l, w);
        for (size_t i = win.from, b = 0; i < win.len; i++) {
            double x = nll[at++];
            while (b + 1 < bins && (double)(i + 1) > acc[b].hi)
                b++;
            acc[b].n++;
            acc[b].sum += x;
            acc[b].squares += x * x;
        }
    }
    /* Few tokens say little: neighbours are put together until there are enough. */
    double enough = fmin(FEW, (double)count / 8);
    for (size_t b = 0; b < bins; b++)
        if (acc[b].n < enough && b + 1 < bins) {
            acc[b + 1].lo = acc[b].lo;
            acc[b + 1].n += acc[b].n;
            acc[b + 1].sum += acc[b].sum;
            acc[b + 1].squares += acc[b].squares;
        } else if (acc[b].n > 0) {
            p->bin[p->bins++] = bin_of(acc[b].lo, acc[b].hi, acc[b].n, acc[b].sum, acc[b].squares);
        }
}

void page_parts(struct page *p, const double *nll, size_t count)
{
    size_t parts = count / 256 < PAGE_PARTS ? count / 256 : PAGE_PARTS;
    p->parts = 0;
    for (size_t i = 0; i < parts; i++) {
        size_t lo = count / parts * i, hi = i + 1 == parts ? count : count / parts * (i + 1);
        double sum = 0, squares = 0;
        for (size_t k = lo; k < hi; k++) {
            sum += nll[k];
            squares += nll[k] * nll[k];
        }
        p->part[p->parts++] = bin_of((double)lo, (double)(hi - 1), (double)(hi - lo), sum, squares);
    }
}

/* ---- files beside the submission ---- */

/* The path that was asked for, or NAME beside the file when it is there; "" otherwise. */
static void beside(char out[PAGE_PATH], const char *asked, const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    int dir = slash ? (int)(slash - file) + 1 : 0;
    int n = asked ? snprintf(out, PAGE_PATH, "%s", asked)
                  : snprintf(out, PAGE_PATH, "%.*s%s", dir, file, name);
    if (n >= PAGE_PATH || (!asked && access(out, R_OK)))
        *out = 0;
}

static enum err_code log_of(struct page *p, char path[PAGE_PATH], const char *asked,
                            const char *name, struct err *e)
{
    struct err aside = {0};
    beside(path, asked, p->o->file, name);
    if (!*path)
        return ERR_OK;
    enum err_code rc = page_log_read(&p->log, path, asked ? e : &aside);
    if (rc)
        *path = 0;
    return asked ? rc : ERR_OK;
}

enum err_code page_blob(struct page *p, const struct blob *b, const struct engine *g,
                        const struct scores *s, struct err *e)
{
    struct window_list l;
    const struct score_opts how = {.mode = s->mode, .max_tokens = p ? p->o->max_tokens : 0};
    enum err_code rc;
    if (!p)
        return ERR_OK;
    if ((rc = tensors(p, b, &g->m, e)) || (rc = score_windows(&g->m, s->stream, &how, &l, e)))
        return rc;
    page_contexts(p, &l, s->nll, s->count);
    page_parts(p, s->nll, s->count);
    beside(p->float_path, p->o->weights, p->o->file, "model.safetensors");
    if ((rc = errors(p, g, e)))
        return rc;
    qsort(p->tensor, p->tensors, sizeof *p->tensor, by_bytes);
    if (p->tensors > PAGE_TENSORS) {
        p->left_out = p->tensors - PAGE_TENSORS;
        p->tensors = PAGE_TENSORS;
    }
    p->runner = (double)blob_find(b, KIND_RUNNER)->raw_size;
    if ((p->o->code_map && (rc = code_read(&p->code, p->o->code_map, e))) ||
        (rc = log_of(p, p->log_path, p->o->log, "train.log", e)))
        return rc;
    return log_of(p, p->quant_path, p->o->quant_log, "quantize.txt", e);
}
