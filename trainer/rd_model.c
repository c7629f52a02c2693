/* rd_model.c - see rd_model.h. */
#include "trainer/rd_model.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a file holds beside weights, when nobody can say it exactly: loader, header, runner, byte
 * table and recipe. */
enum { OVERHEAD = 48000 };

static const char *const group_part[RD_GROUPS] = {[RD_QKV] = ".attn.c_",
                                                  [RD_OUT] = ".attn.proj.",
                                                  [RD_UP] = ".mlp.fc.",
                                                  [RD_DOWN] = ".mlp.proj."};

static enum rd_group group_of(const struct gpt_param *p)
{
    if (p->cls == PARAM_EMBED || p->cls == PARAM_HEAD)
        return RD_TABLE;
    for (size_t g = 0; g < RD_GROUPS; g++)
        if (group_part[g] && strstr(p->name, group_part[g]))
            return (enum rd_group)g;
    return RD_OTHER;
}

static bool is_matrix(const struct gpt_param *p)
{
    return p->cls != PARAM_CONTROL && p->ndim == 2;
}

/* ---- memory ---- */

void rd_model_free(struct rd_model *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->item[i].sense);
    for (size_t i = 0; i < d->factors; i++) {
        free(d->factor[i].h);
        gptq_factor_free(&d->factor[i].f);
    }
    free(d->item);
    free(d->factor);
    free(d->bytes);
    free(d->back);
    free(d->trial);
    free(d->half);
    free(d->names);
    free(d->view);
    kl_close(&d->kl);
}

static struct tensor_view *add_view(struct rd_model *d, const struct gpt_param *p,
                                    const char *suffix, enum st_dtype dtype, const void *data,
                                    size_t n)
{
    char *name = d->names[d->nview];
    struct tensor_view *v = &d->view[d->nview++];
    strcpy(name, p->name);
    strcat(name, suffix);
    *v = (struct tensor_view){.name = name, .dtype = dtype, .data = data, .ndim = 1, .shape = {n}};
    v->nbytes = n * st_dtype_size(dtype);
    return v;
}

static void shape_of(struct tensor_view *v, const struct gpt_param *p)
{
    v->ndim = p->ndim;
    memcpy(v->shape, p->shape, p->ndim * sizeof p->shape[0]);
}

static enum err_code to_half(struct rd_item *t, float *back, const float *w, struct err *e)
{
    for (size_t i = 0; i < t->p->size; i++) {
        t->half[i] = f32_to_f16(w[i]);
        if ((t->half[i] & 0x7fff) >= 0x7c00)
            return err_set(e, ERR_INPUT, "%s: element %zu is %g, no finite fp16 number", t->p->name,
                           i, (double)w[i]);
        back[i] = f16_to_f32(t->half[i]);
    }
    return ERR_OK;
}

static enum err_code add_matrix(struct rd_model *d, struct rd_item *t, int8_t *bytes, struct err *e)
{
    const struct gpt_param *p = t->p;
    size_t rows = p->shape[0], cols = p->shape[1];
    const float *w = d->params + p->at;
    for (size_t i = 0; i < p->size; i++)
        if (!isfinite(w[i]))
            return err_set(e, ERR_INPUT, "%s: weight [%zu][%zu] is %s", p->name, i / cols, i % cols,
                           isnan(w[i]) ? "NaN" : "infinite");
    if (!(t->sense = malloc(rows * sizeof *t->sense)))
        return err_nomem(e, p->name, rows * sizeof *t->sense);
    t->group = group_of(p);
    t->m = (struct rd_matrix){.name = p->name, .w = w, .rows = rows, .cols = cols, .q = bytes};
    t->m.rexp = bytes + p->size;
    t->m.cexp = t->m.rexp + rows;
    t->m.step = t->step;
    t->m.sense = t->sense;
    t->m.states = (size_t)d->r->rd_states;
    t->m.rule = rd_steps_parse(d->r->rd_steps);
    t->m.back = d->back + p->at;
    shape_of(add_view(d, p, ".q", ST_I8, t->m.q, p->size), p);
    add_view(d, p, ".rexp", ST_I8, t->m.rexp, rows);
    add_view(d, p, ".cexp", ST_I8, t->m.cexp, cols);
    add_view(d, p, ".step", ST_F32, t->step, 2);
    return ERR_OK;
}

enum err_code rd_model_init(struct rd_model *d, struct err *e)
{
    const struct gpt *m = d->m;
    size_t nbytes = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        d->weights += is_matrix(p) ? p->size : 0;
        d->halves += is_matrix(p) ? 0 : p->size;
        nbytes += is_matrix(p) ? p->size + p->shape[0] + p->shape[1] : 0;
    }
    d->item = calloc(m->nparams + 1, sizeof *d->item);
    d->factor = calloc(m->nparams + 1, sizeof *d->factor);
    d->bytes = calloc(nbytes + 1, 1);
    d->half = calloc(d->halves + 1, sizeof *d->half);
    d->names = calloc(4 * m->nparams + 1, sizeof *d->names);
    d->view = calloc(4 * m->nparams + 1, sizeof *d->view);
    d->back = calloc(m->floats, sizeof *d->back);
    d->trial = calloc(m->floats, sizeof *d->trial);
    if (!d->item || !d->factor || !d->bytes || !d->half || !d->names || !d->view || !d->back ||
        !d->trial)
        return err_nomem(e, "quantised weights", nbytes + 8 * m->floats);
    for (size_t g = 0; g < RD_GROUPS; g++)
        d->scale[g] = 1;
    d->threads = d->with->threads;
    if (!d->threads) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        d->threads = n > 0 ? (size_t)n : 1;
    }
    int8_t *bytes = d->bytes;
    uint16_t *half = d->half;
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < m->nparams && !rc; i++) {
        const struct gpt_param *p = &m->param[i];
        struct rd_item *t = &d->item[d->count++];
        *t = (struct rd_item){.p = p, .nudge = 1};
        if (is_matrix(p)) {
            rc = add_matrix(d, t, bytes, e);
            bytes += p->size + p->shape[0] + p->shape[1];
            continue;
        }
        t->half = half;
        half += p->size;
        shape_of(add_view(d, p, "", ST_F16, t->half, p->size), p);
        rc = to_half(t, d->back + p->at, d->params + p->at, e);
    }
    return rc;
}

/* ---- several things at a time ---- */

struct crew {
    struct rd_model *d;
    enum err_code (*work)(struct rd_model *d, size_t i);
    size_t n;
    atomic_size_t next, done;
    atomic_int failed; /* the first error code seen */
};

static void *crew_member(void *arg)
{
    struct crew *c = arg;
    for (size_t i; (i = atomic_fetch_add(&c->next, 1)) < c->n && !atomic_load(&c->failed);) {
        enum err_code rc = c->work(c->d, i);
        if (rc)
            atomic_store(&c->failed, (int)rc);
        atomic_fetch_add(&c->done, 1);
    }
    return NULL;
}

/* work(0..n-1) by all threads; progress is shown by this one. */
static enum err_code in_parallel(struct rd_model *d, size_t n, const char *what,
                                 enum err_code (*work)(struct rd_model *d, size_t i))
{
    enum { MOST = 64 };
    pthread_t id[MOST];
    size_t extra = 0;
    const struct calib *cal = d->with->calib;
    struct crew c = {.d = d, .work = work, .n = n};
    while (extra < MOST && extra + 1 < d->threads && extra + 1 < n &&
           !pthread_create(&id[extra], NULL, crew_member, &c))
        extra++;
    for (size_t i; (i = atomic_fetch_add(&c.next, 1)) < n && !atomic_load(&c.failed);) {
        enum err_code rc = work(d, i);
        if (rc)
            atomic_store(&c.failed, (int)rc);
        size_t done = atomic_fetch_add(&c.done, 1) + 1;
        if (cal->progress)
            cal->progress(cal->progress_ctx, what, done, n);
    }
    while (extra)
        pthread_join(id[--extra], NULL);
    return (enum err_code)atomic_load(&c.failed);
}

/* ---- calibration ---- */

static enum err_code make_factor(struct rd_model *d, size_t i)
{
    struct rd_factor *f = &d->factor[i];
    enum err_code rc = gptq_factor_init(&f->f, f->h, f->n, d->r->gptq_damp, f->name, &f->err);
    free(f->h);
    f->h = NULL;
    if (!rc && !f->f.definite)
        rc = err_set(&f->err, ERR_INPUT, "%s: its inputs are not finite on the training data",
                     f->name);
    return rc;
}

/* A matrix [n][n] = a*x + b*y; y may be NULL. */
static enum err_code new_factor(struct rd_model *d, struct rd_item *t, const float *x, double a,
                                const float *y, double b, struct err *e)
{
    size_t n = t->m.cols;
    struct rd_factor *f = &d->factor[d->factors];
    *f = (struct rd_factor){.name = t->p->name, .n = n};
    if (!(f->h = malloc(n * n * sizeof *f->h)))
        return err_nomem(e, t->p->name, n * n * sizeof *f->h);
    for (size_t i = 0; i < n * n; i++)
        f->h[i] = (float)(a * (double)x[i] + (y ? b * (double)y[i] : 0));
    t->factor = d->factors++;
    return ERR_OK;
}

static double trace_of(const float *h, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)h[i * n + i];
    return sum;
}

static double mean_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

/* Sensitivities positive: a row without gradients gets a hundredth of a mean row's step factor. */
static void set_floor(double *sense, size_t n)
{
    double least = 1e-4 * mean_of(sense, n);
    least = least > 1e-20 ? least : 1e-20;
    for (size_t i = 0; i < n; i++)
        sense[i] = sense[i] > least ? sense[i] : least;
}

/* Rows of tables: their sensitivities differ by a factor of thousands, as frequencies of tokens do,
 * and those of rare tokens are underestimated (an error as large as the row itself is no small one,
 * and the norm behind the table makes it larger). Around their mean, to the power of 3/4. */
static void level(double *sense, size_t n)
{
    double mean = mean_of(sense, n);
    for (size_t i = 0; i < n; i++)
        sense[i] = sense[i] > 0 ? mean * kern_exp(0.75 * kern_log(sense[i] / mean)) : 0;
}

/* Token embedding and head: see fisher.h. Tied, a row's cost has two Hessians; one matrix serves
 * all rows, mixed as they are on average, and a row's factor has the mixture of its own. */
static enum err_code sense_tokens(struct rd_model *d, struct rd_item *t, const struct fisher *f,
                                  struct err *e)
{
    bool head = t->p->at == gpt_head(d->m), table = !strcmp(t->p->name, "tok_emb.weight");
    size_t n = f->dim;
    double a = head ? mean_of(f->head, f->vocab) : 0, b = table ? mean_of(f->seen, f->vocab) : 0;
    double th = trace_of(f->hidden, n), ti = trace_of(f->input, n), all = a * th + b * ti;
    for (size_t v = 0; v < f->vocab; v++) {
        double x = (head ? f->head[v] * th : 0) + (table ? f->seen[v] * ti : 0);
        t->sense[v] = all > 0 ? x / all : 1;
    }
    t->trace = all;
    return new_factor(d, t, f->hidden, a, f->input, b, e);
}

static enum err_code sense_table(struct rd_model *d, struct rd_item *t, const struct fisher *f,
                                 struct err *e)
{
    size_t n = t->m.cols;
    float *h = calloc(n * n, sizeof *h);
    if (!h)
        return err_nomem(e, t->p->name, n * n * sizeof *h);
    for (size_t i = 0; i < f->tables; i++) {
        const struct fisher_table *b = &f->table[i];
        if (b->p != t->p)
            continue;
        double all = mean_of(b->row, t->m.rows) * (double)t->m.rows;
        for (size_t v = 0; v < t->m.rows; v++)
            t->sense[v] = all > 0 ? b->row[v] / all : 1;
        for (size_t j = 0; j < n; j++)
            h[j * n + j] = (float)b->col[j];
    }
    t->trace = trace_of(h, n);
    enum err_code rc = new_factor(d, t, h, 1, NULL, 0, e);
    free(h);
    return rc;
}

/* Nothing reads this matrix, so nothing is lost with it. */
static enum err_code sense_nothing(struct rd_model *d, struct rd_item *t, struct err *e)
{
    size_t n = t->m.cols;
    float *eye = calloc(n * n, sizeof *eye);
    if (!eye)
        return err_nomem(e, t->p->name, n * n * sizeof *eye);
    for (size_t j = 0; j < n; j++)
        eye[j * n + j] = 1;
    for (size_t i = 0; i < t->m.rows; i++)
        t->sense[i] = 0;
    enum err_code rc = new_factor(d, t, eye, 1, NULL, 0, e);
    free(eye);
    return rc;
}

static enum err_code sense_layer(struct rd_model *d, struct rd_item *t, const struct fisher *f,
                                 struct hessians *hs, double tokens, struct err *e)
{
    const struct hessian *h = hessian_find(hs, t->p->at);
    const struct fisher_layer *l = fisher_find(f, t->p->at);
    if (!h || !l)
        return sense_nothing(d, t, e);
    for (size_t i = 0; i < t->m.rows; i++)
        t->sense[i] = l->mean[i];
    t->trace = h->trace / tokens;
    for (size_t i = 0; i < d->count; i++) { /* q, k and v of a block share one */
        const struct hessian *o =
            &d->item[i] == t || !d->item[i].m.w ? NULL : hessian_find(hs, d->item[i].p->at);
        if (&d->item[i] < t && o && o->same_as == h->same_as) {
            t->factor = d->item[i].factor;
            return ERR_OK;
        }
    }
    return new_factor(d, t, hessian_matrix(hs, h), 1 / tokens, NULL, 0, e);
}

/* Hessians come with the records' settings for batches; ours are one of so many tokens. */
static enum err_code collect(struct rd_model *d, struct hessians *hs, struct fisher *f,
                             double *tokens, struct err *e)
{
    struct recipe r = *d->r;
    size_t t = (size_t)d->m->r.train_seq_len, n = (size_t)d->r->rd_calib_tokens;
    size_t kl = (size_t)d->r->rd_kl_tokens;
    r.gptq_calib_batches = 1;
    r.gptq_batch_tokens = (int64_t)((n + t - 1) / t * t);
    r.gptq_collect_damp = 0;
    *tokens = (double)r.gptq_batch_tokens;
    enum err_code rc = hessian_collect(hs, d->m, d->params, &r, d->with->calib, e);
    if (!rc)
        rc = fisher_collect(f, d->m, d->params, n / 2, d->with->calib, e);
    return rc ? rc : kl_open(&d->kl, d->m, d->params, kl, d->with->calib, e);
}

enum err_code rd_model_calibrate(struct rd_model *d, struct err *e)
{
    struct hessians hs = {0};
    struct fisher f = {0};
    double tokens;
    enum err_code rc = collect(d, &hs, &f, &tokens, e);
    for (size_t i = 0; i < d->count && !rc; i++) {
        struct rd_item *t = &d->item[i];
        if (!t->m.w)
            continue;
        bool token = t->p->cls == PARAM_HEAD || !strcmp(t->p->name, "tok_emb.weight");
        rc = token                      ? sense_tokens(d, t, &f, e)
             : t->p->cls == PARAM_EMBED ? sense_table(d, t, &f, e)
                                        : sense_layer(d, t, &f, &hs, tokens, e);
        if (t->group == RD_TABLE)
            level(t->sense, t->m.rows);
        set_floor(t->sense, t->m.rows);
    }
    hessian_free(&hs);
    fisher_free(&f);
    if (rc || (rc = in_parallel(d, d->factors, "factors", make_factor))) {
        for (size_t i = 0; i < d->factors && !e->code; i++)
            if (d->factor[i].err.code)
                *e = d->factor[i].err;
        return rc;
    }
    for (size_t i = 0; i < d->count; i++)
        d->item[i].m.f = &d->factor[d->item[i].factor].f;
    return ERR_OK;
}

/* ---- quantisation ---- */

static enum err_code quantise_item(struct rd_model *d, size_t i)
{
    struct rd_item *t = &d->item[i];
    if (!t->m.w)
        return ERR_OK;
    double c = d->c * d->scale[t->group] * t->nudge;
    enum err_code rc = rd_matrix(&t->m, c, &t->res, &t->err);
    if (d->m->r.embed_bf16 && t->p->cls == PARAM_EMBED) /* as gpt_load does it */
        for (size_t j = 0; j < t->p->size && !rc; j++)
            t->m.back[j] = bf16_to_f32(f32_to_bf16(t->m.back[j]));
    return rc;
}

enum err_code rd_model_quantise(struct rd_model *d, double c, struct rd_item *only, struct err *e)
{
    d->c = c;
    enum err_code rc = only ? quantise_item(d, (size_t)(only - d->item))
                            : in_parallel(d, d->count, "quantisation", quantise_item);
    for (size_t i = 0; i < d->count && rc && !e->code; i++)
        if (d->item[i].err.code)
            *e = d->item[i].err;
    return rc;
}

enum err_code rd_model_kl(struct rd_model *d, unsigned groups, double *kl, struct err *e)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct rd_item *t = &d->item[i];
        bool stored = t->m.w && groups >> t->group & 1;
        memcpy(d->trial + t->p->at, (stored ? d->back : d->params) + t->p->at,
               t->p->size * sizeof *d->trial);
    }
    return kl_measure(&d->kl, d->trial, kl, e);
}

double rd_model_bits(const struct rd_model *d, double c)
{
    double bits = 0;
    for (size_t i = 0; i < d->count; i++)
        if (d->item[i].m.w)
            bits += rd_matrix_bits(&d->item[i].m, c * d->scale[d->item[i].group]);
    return bits;
}

uint64_t rd_model_fixed(const struct rd_model *d)
{
    double bytes = OVERHEAD + 2 * (double)d->halves;
    for (size_t i = 0; i < d->count; i++)
        bytes += RD_EXPONENT_BYTES * (double)(d->item[i].m.rows + d->item[i].m.cols);
    return (uint64_t)bytes;
}

uint64_t rd_model_estimate(const struct rd_model *d)
{
    double bits = 0;
    for (size_t i = 0; i < d->count; i++)
        bits += d->item[i].res.bits * (double)d->item[i].p->size;
    return rd_model_fixed(d) + (uint64_t)(bits / 8);
}
