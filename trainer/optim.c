/* optim.c - see optim.h. */
#include "trainer/optim.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Quintic coefficients of the Muon post: they maximise the slope at zero and let the singular
 * values settle anywhere in about [0.7, 1.2] instead of at 1. */
static const float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
static const float NS_EPS = 1e-7f, ROW_EPS = 1e-7f;
static const double CLIP_EPS = 1e-6;

void muon_orthogonalise(struct kern *k, float *const *x, size_t count, size_t rows, size_t cols,
                        size_t steps)
{
    struct kern_ns a = {.x = x, .count = count, .rows = rows, .cols = cols, .steps = steps};
    a.a = NS_A;
    a.b = NS_B;
    a.c = NS_C;
    a.eps = NS_EPS;
    k->newton_schulz(k, &a);
}

/* ---- groups ---- */

const char *const optim_group_name[OPTIM_GROUPS] = {"muon", "embed", "head", "scalar"};

enum optim_group optim_group_of(const struct recipe *r, const struct gpt_param *p)
{
    switch (p->cls) {
    case PARAM_MATRIX:
        return OPTIM_MUON;
    case PARAM_PROJ:
        return strcmp(r->proj_optimizer, "adamw") == 0 ? OPTIM_SCALAR : OPTIM_MUON;
    case PARAM_EMBED:
        return OPTIM_EMBED;
    case PARAM_HEAD:
        return OPTIM_HEAD;
    case PARAM_CONTROL:
        break;
    }
    return OPTIM_SCALAR;
}

/* ---- one step ---- */

/* Nesterov momentum: grads become u. In bf16 each result is rounded as it is stored, and the two
 * operations of buf = mu*buf + g are two results (#549). */
static void momentum_update(struct optim *o, const struct optim_run *s, float *grads, float mu)
{
    struct kern *k = o->k;
    float *buf = o->mom + s->at, *g = grads + s->at;
    if (!o->m->r.muon_bf16) {
        k->axpby(k, buf, g, s->n, mu, 1.0f);
        k->axpby(k, g, buf, s->n, 1.0f, mu);
        return;
    }
    k->round_bf16(k, g, s->n);
    k->axpby(k, buf, buf, s->n, mu, 0.0f);
    k->round_bf16(k, buf, s->n);
    k->add(k, buf, g, s->n);
    k->round_bf16(k, buf, s->n);
    k->axpby(k, g, buf, s->n, 1.0f, mu);
    k->round_bf16(k, g, s->n);
}

/* All matrices of the shape of run `first`, wherever they lie. */
static void orthogonalise(struct optim *o, size_t first, float *grads)
{
    const struct optim_run *f = &o->run[first];
    size_t count = 0;
    for (size_t i = first; i < o->runs; i++) {
        const struct optim_run *s = &o->run[i];
        if (s->group != OPTIM_MUON || s->rows != f->rows || s->cols != f->cols)
            continue;
        for (size_t j = 0; j < s->slices; j++)
            o->list[count++] = grads + s->at + j * s->rows * s->cols;
    }
    muon_orthogonalise(o->k, o->list, count, f->rows, f->cols, (size_t)o->m->r.muon_backend_steps);
}

static void muon(struct optim *o, float *params, float *grads, double lr_scale, double momentum)
{
    struct kern *k = o->k;
    const struct recipe *r = &o->m->r;
    double lr = r->matrix_lr * lr_scale;
    for (size_t i = 0; i < o->runs; i++) {
        const struct optim_run *s = &o->run[i];
        if (s->group != OPTIM_MUON)
            continue;
        momentum_update(o, s, grads, (float)momentum);
        if (r->muon_row_norm)
            k->row_normalize(k, grads + s->at, s->slices * s->rows, s->cols, ROW_EPS);
        if (r->muon_row_norm && r->muon_bf16)
            k->round_bf16(k, grads + s->at, s->n);
    }
    for (size_t i = 0; i < o->runs; i++)
        if (o->run[i].first_of_shape)
            orthogonalise(o, i, grads);
    for (size_t i = 0; i < o->runs; i++) {
        const struct optim_run *s = &o->run[i];
        double shape = s->rows > s->cols ? sqrt((double)s->rows / (double)s->cols) : 1.0;
        if (s->group == OPTIM_MUON)
            k->axpby(k, params + s->at, grads + s->at, s->n, (float)(1.0 - lr * r->muon_wd),
                     (float)(-lr * shape));
    }
}

static void round_embed(const struct optim *o, const struct optim_run *s, float *block)
{
    if (s->group == OPTIM_EMBED && o->m->r.embed_bf16)
        o->k->round_bf16(o->k, block + s->at, s->n);
}

static void adamw(struct optim *o, const struct optim_run *s, float *params, float *grads,
                  double lr_scale)
{
    const struct recipe *r = &o->m->r;
    double lr = s->group == OPTIM_EMBED  ? (r->tie_embeddings ? r->tied_embed_lr : r->embed_lr)
                : s->group == OPTIM_HEAD ? r->head_lr
                                         : r->scalar_lr;
    struct kern_adamw a = {
        .p = params + s->at,
        .m = o->mom + s->at,
        .v = o->var + s->at,
        .g = grads + s->at,
        .n = s->n,
        .step = o->step,
        .lr = (float)(lr * lr_scale),
        .b1 = (float)r->beta1,
        .b2 = (float)r->beta2,
        .eps = (float)r->adam_eps,
        .wd = (float)(s->group == OPTIM_SCALAR ? r->adam_wd : r->embed_wd),
    };
    round_embed(o, s, grads);
    o->k->adamw(o->k, &a);
    round_embed(o, s, params);
    round_embed(o, s, o->mom);
    round_embed(o, s, o->var);
}

void optim_step(struct optim *o, float *params, float *grads, double lr_scale, double momentum)
{
    o->step++;
    muon(o, params, grads, lr_scale, momentum);
    for (size_t i = 0; i < o->runs; i++)
        if (o->run[i].group != OPTIM_MUON)
            adamw(o, &o->run[i], params, grads, lr_scale);
}

void optim_round(const struct optim *o, float *params)
{
    for (size_t i = 0; i < o->runs; i++)
        round_embed(o, &o->run[i], params);
}

/* ---- setting up ---- */

static bool new_shape(const struct optim *o, size_t rows, size_t cols)
{
    for (size_t i = 0; i < o->runs; i++)
        if (o->run[i].group == OPTIM_MUON && o->run[i].rows == rows && o->run[i].cols == cols)
            return false;
    return true;
}

/* Fill o->run and return the number of matrices. */
static size_t lay_out(struct optim *o)
{
    size_t matrices = 0;
    for (size_t i = 0; i < o->m->nparams; i++) {
        const struct gpt_param *p = &o->m->param[i];
        struct optim_run *last = o->runs ? &o->run[o->runs - 1] : NULL;
        enum optim_group group = optim_group_of(&o->m->r, p);
        if (group == OPTIM_MUON) {
            assert(p->ndim == 2 || p->ndim == 3);
            size_t rows = p->shape[p->ndim - 2], cols = p->shape[p->ndim - 1];
            size_t slices = p->ndim == 3 ? p->shape[0] : 1;
            matrices += slices;
            o->run[o->runs++] = (struct optim_run){
                .group = group,
                .first_of_shape = new_shape(o, rows, cols),
                .at = p->at,
                .n = p->size,
                .slices = slices,
                .rows = rows,
                .cols = cols,
            };
        } else if (last && last->group == group && last->at + last->n == p->at) {
            last->n += p->size;
        } else {
            o->run[o->runs++] = (struct optim_run){.group = group, .at = p->at, .n = p->size};
        }
    }
    return matrices;
}

enum err_code optim_init(struct optim *o, struct kern *k, const struct gpt *m, struct err *e)
{
    size_t bytes = m->floats * sizeof(float), matrices;
    *o = (struct optim){.k = k, .m = m};
    o->run = calloc(m->nparams + 1, sizeof *o->run);
    if (!o->run)
        return err_nomem(e, "parameter groups", (m->nparams + 1) * sizeof *o->run);
    matrices = lay_out(o);
    o->mom = k->alloc(k, bytes);
    o->var = k->alloc(k, bytes);
    o->list = calloc(matrices + 1, sizeof *o->list);
    if (!o->mom || !o->var || !o->list) {
        optim_free(o);
        return err_nomem(e, "optimiser state", 2ull * bytes);
    }
    return ERR_OK;
}

void optim_free(struct optim *o)
{
    if (o->k) {
        o->k->free(o->k, o->mom);
        o->k->free(o->k, o->var);
    }
    free(o->run);
    free(o->list);
    *o = (struct optim){0};
}

void optim_reset(struct optim *o)
{
    o->k->zero(o->k, o->mom, o->m->floats * sizeof *o->mom);
    o->k->zero(o->k, o->var, o->m->floats * sizeof *o->var);
    o->step = 0;
}

/* ---- clipping and averaging ---- */

double optim_clip(struct kern *k, float *grads, size_t n, double max_norm)
{
    double norm = sqrt(k->sumsq(k, grads, n));
    double factor = max_norm / (norm + CLIP_EPS);
    if (max_norm > 0 && isfinite(norm) && factor < 1.0)
        k->axpby(k, grads, grads, n, (float)factor, 0.0f);
    return norm;
}

void optim_average(struct kern *k, float *avg, const float *params, size_t n, double decay)
{
    k->axpby(k, avg, params, n, (float)decay, (float)(1.0 - decay));
}
