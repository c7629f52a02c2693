/* optim.c - see optim.h. */
#include "trainer/optim.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* Quintic coefficients of the Muon post: they maximise the slope at zero and let the singular
 * values settle anywhere in about [0.7, 1.2] instead of at 1. */
static const float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
static const double NS_EPS = 1e-7, CLIP_EPS = 1e-6;
static const float ROW_EPS = 1e-7f;

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t muon_floats(size_t rows, size_t cols)
{
    size_t n = min2(rows, cols);
    return rows * cols + 2 * n * n;
}

void muon_orthogonalise(struct kern *k, float *x, float *work, size_t rows, size_t cols,
                        size_t steps)
{
    size_t n = rows * cols, side = min2(rows, cols);
    float *a = work + n, *b = a + side * side;
    bool tall = rows > cols;
    float scale = (float)(1.0 / (sqrt(k->sumsq(k, x, n)) + NS_EPS));

    /* The two buffers take turns; begin in the one from which the last step ends in x. */
    float *from = steps % 2 ? work : x, *to = steps % 2 ? x : work;
    k->axpby(k, from, x, n, 0.0f, scale);
    for (size_t i = 0; i < steps; i++) {
        if (tall)
            k->gemm(k, a, from, from, side, side, rows, true, false, 1.0f, 0.0f);
        else
            k->gemm(k, a, from, from, side, side, cols, false, true, 1.0f, 0.0f);
        /* A is symmetric, and written as A A^T its square costs half. */
        k->gemm(k, b, a, a, side, side, side, false, true, NS_C, 0.0f);
        k->axpby(k, b, a, side * side, 1.0f, NS_B);
        k->axpby(k, to, from, n, 0.0f, NS_A);
        /* B is symmetric bit by bit (its factors are), so X B is the transpose of B X^T. */
        if (tall)
            k->gemm(k, to, from, b, rows, cols, side, false, false, 1.0f, 1.0f);
        else
            k->gemm(k, to, b, from, rows, cols, side, false, false, 1.0f, 1.0f);
        float *t = from;
        from = to;
        to = t;
    }
}

static void muon(struct optim *o, const struct optim_run *s, float *params, float *grads,
                 double lr_scale, double momentum)
{
    struct kern *k = o->k;
    const struct recipe *r = &o->m->r;
    float mu = (float)momentum;
    double lr = r->matrix_lr * lr_scale;
    double shape = s->rows > s->cols ? sqrt((double)s->rows / (double)s->cols) : 1.0;
    size_t n = s->rows * s->cols;

    k->axpby(k, o->mom + s->at, grads + s->at, s->n, mu, 1.0f);
    k->axpby(k, grads + s->at, o->mom + s->at, s->n, 1.0f, mu);
    for (size_t i = 0; i < s->slices; i++) {
        float *u = grads + s->at + i * n;
        if (r->muon_row_norm)
            k->row_normalize(k, u, s->rows, s->cols, ROW_EPS);
        muon_orthogonalise(k, u, o->work, s->rows, s->cols, (size_t)r->muon_backend_steps);
    }
    k->axpby(k, params + s->at, grads + s->at, s->n, (float)(1.0 - lr * r->muon_wd),
             (float)(-lr * shape));
}

static void adamw(struct optim *o, const struct optim_run *s, float *params, const float *grads,
                  double lr_scale)
{
    const struct recipe *r = &o->m->r;
    double lr = s->cls == PARAM_EMBED  ? (r->tie_embeddings ? r->tied_embed_lr : r->embed_lr)
                : s->cls == PARAM_HEAD ? r->head_lr
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
        .wd = (float)(s->cls == PARAM_CONTROL ? r->adam_wd : r->embed_wd),
    };
    o->k->adamw(o->k, &a);
}

void optim_step(struct optim *o, float *params, float *grads, double lr_scale, double momentum)
{
    o->step++;
    for (size_t i = 0; i < o->runs; i++) {
        if (o->run[i].cls == PARAM_MATRIX)
            muon(o, &o->run[i], params, grads, lr_scale, momentum);
        else
            adamw(o, &o->run[i], params, grads, lr_scale);
    }
}

/* Fill o->run and return the scratch that the largest matrix needs. */
static size_t lay_out(struct optim *o)
{
    size_t work = 0;
    for (size_t i = 0; i < o->m->nparams; i++) {
        const struct gpt_param *p = &o->m->param[i];
        struct optim_run *last = o->runs ? &o->run[o->runs - 1] : NULL;
        if (p->cls == PARAM_MATRIX) {
            assert(p->ndim == 2 || p->ndim == 3);
            size_t rows = p->shape[p->ndim - 2], cols = p->shape[p->ndim - 1];
            size_t need = muon_floats(rows, cols);
            work = need > work ? need : work;
            o->run[o->runs++] = (struct optim_run){
                .cls = p->cls,
                .at = p->at,
                .n = p->size,
                .slices = p->ndim == 3 ? p->shape[0] : 1,
                .rows = rows,
                .cols = cols,
            };
        } else if (last && last->cls == p->cls && last->at + last->n == p->at) {
            last->n += p->size;
        } else {
            o->run[o->runs++] = (struct optim_run){.cls = p->cls, .at = p->at, .n = p->size};
        }
    }
    return work;
}

enum err_code optim_init(struct optim *o, struct kern *k, const struct gpt *m, struct err *e)
{
    size_t bytes = m->floats * sizeof(float), work;
    *o = (struct optim){.k = k, .m = m};
    o->run = calloc(m->nparams + 1, sizeof *o->run);
    if (!o->run)
        return err_nomem(e, "parameter groups", (m->nparams + 1) * sizeof *o->run);
    work = lay_out(o);
    o->mom = k->alloc(k, bytes);
    o->var = k->alloc(k, bytes);
    o->work = k->alloc(k, (work + 1) * sizeof(float));
    if (!o->mom || !o->var || !o->work) {
        optim_free(o);
        return err_nomem(e, "optimiser state", 2ull * bytes + work * sizeof(float));
    }
    return ERR_OK;
}

void optim_free(struct optim *o)
{
    if (o->k) {
        o->k->free(o->k, o->mom);
        o->k->free(o->k, o->var);
        o->k->free(o->k, o->work);
    }
    free(o->run);
    *o = (struct optim){0};
}

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
