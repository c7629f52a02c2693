/* optim.c - see optim.h. */
#include "trainer/optim.h"

#include <math.h>
#include <stdlib.h>

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

/* ---- numbers ---- */

/* base + slope * a number: now, or when the update runs. */
static struct kern_dial dial(const struct optim *o, enum optim_number which, double base,
                             double slope)
{
    return (struct kern_dial){(o->later ? o->later : o->now) + which, base, slope};
}

static float value(struct kern_dial d)
{
    return (float)(d.at ? d.base + d.slope * *d.at : d.base);
}

/* y = a*y + b*x. */
static void blend(const struct optim *o, float *y, const float *x, size_t n, struct kern_dial a,
                  struct kern_dial b)
{
    if (o->later)
        o->k->blend(o->k, y, x, n, &a, &b, o->go);
    else
        o->k->axpby(o->k, y, x, n, value(a), value(b));
}

static double rate(const struct recipe *r, enum optim_group g)
{
    switch (g) {
    case OPTIM_MUON:
        return r->matrix_lr;
    case OPTIM_EMBED:
        return r->tie_embeddings ? r->tied_embed_lr : r->embed_lr;
    case OPTIM_HEAD:
        return r->head_lr;
    default:
        return r->scalar_lr;
    }
}

void optim_numbers(const struct optim *o, double lr_scale, double momentum,
                   double out[OPTIM_NUMBERS])
{
    const struct recipe *r = &o->m->r;
    for (int g = 0; g < OPTIM_GROUPS; g++)
        out[OPTIM_RATE + g] = rate(r, (enum optim_group)g) * lr_scale;
    out[OPTIM_MOMENTUM] = momentum;
    out[OPTIM_STEP] = (double)(o->step + 1);
}

/* ---- one step ---- */

static bool own(const struct optim *o, const struct piece *p)
{
    return p->owner == o->p.rank;
}

static bool own_matrix(const struct optim *o, const struct piece *p)
{
    return own(o, p) && p->group == OPTIM_MUON;
}

/* Nesterov momentum: grads become u. In bf16 each result is rounded as it is stored, and the two
 * operations of buf = mu*buf + g are two results (#549). */
static void momentum_update(struct optim *o, const struct piece *p, float *grads)
{
    struct kern *k = o->k;
    const struct kern_dial mu = dial(o, OPTIM_MOMENTUM, 0, 1), one = kern_fixed(1);
    float *buf = o->mom + p->local, *g = grads + p->at;
    if (!o->m->r.muon_bf16) {
        blend(o, buf, g, p->n, mu, one);
        blend(o, g, buf, p->n, one, mu);
        return;
    }
    k->round_bf16(k, g, p->n);
    blend(o, buf, buf, p->n, mu, kern_fixed(0));
    k->round_bf16(k, buf, p->n);
    blend(o, buf, g, p->n, one, one);
    k->round_bf16(k, buf, p->n);
    blend(o, g, buf, p->n, one, mu);
    k->round_bf16(k, g, p->n);
}

static bool same_shape(const struct piece *a, const struct piece *b)
{
    return a->rows == b->rows && a->cols == b->cols;
}

/* All own matrices of the shape of piece `first`, wherever they lie, unless an earlier piece has
 * seen to them. */
static void orthogonalise(struct optim *o, size_t first, float *grads)
{
    const struct piece *p = o->p.piece, *f = &p[first];
    size_t count = 0;
    for (size_t i = 0; i < first; i++)
        if (own_matrix(o, &p[i]) && same_shape(&p[i], f))
            return;
    for (size_t i = first; i < o->p.pieces; i++)
        if (own_matrix(o, &p[i]) && same_shape(&p[i], f))
            o->list[count++] = grads + p[i].at;
    muon_orthogonalise(o->k, o->list, count, f->rows, f->cols, (size_t)o->m->r.muon_backend_steps);
}

static void muon(struct optim *o, float *params, float *grads)
{
    struct kern *k = o->k;
    const struct recipe *r = &o->m->r;
    for (size_t i = 0; i < o->p.pieces; i++) {
        const struct piece *p = &o->p.piece[i];
        if (!own_matrix(o, p))
            continue;
        momentum_update(o, p, grads);
        if (r->muon_row_norm)
            k->row_normalize(k, grads + p->at, p->rows, p->cols, ROW_EPS);
        if (r->muon_row_norm && r->muon_bf16)
            k->round_bf16(k, grads + p->at, p->n);
    }
    for (size_t i = 0; i < o->p.pieces; i++)
        if (own_matrix(o, &o->p.piece[i]))
            orthogonalise(o, i, grads);
    for (size_t i = 0; i < o->p.pieces; i++) {
        const struct piece *p = &o->p.piece[i];
        double shape = p->rows > p->cols ? sqrt((double)p->rows / (double)p->cols) : 1.0;
        if (own_matrix(o, p))
            blend(o, params + p->at, grads + p->at, p->n,
                  dial(o, OPTIM_RATE + OPTIM_MUON, 1, -r->muon_wd),
                  dial(o, OPTIM_RATE + OPTIM_MUON, 0, -shape));
    }
}

/* The part of a block that holds piece p, at `at`. */
static void round_embed(const struct optim *o, const struct piece *p, float *at)
{
    if (p->group == OPTIM_EMBED && o->m->r.embed_bf16)
        o->k->round_bf16(o->k, at, p->n);
}

static void adamw(struct optim *o, const struct piece *p, float *params, float *grads)
{
    const struct recipe *r = &o->m->r;
    size_t lr = (size_t)OPTIM_RATE + p->group;
    struct kern_adamw a = {
        .p = params + p->at,
        .m = o->mom + p->local,
        .v = o->var + p->local,
        .g = grads + p->at,
        .n = p->n,
        .step = o->step,
        .lr = (float)o->now[lr],
        .b1 = (float)r->beta1,
        .b2 = (float)r->beta2,
        .eps = (float)r->adam_eps,
        .wd = (float)(p->group == OPTIM_SCALAR ? r->adam_wd : r->embed_wd),
    };
    round_embed(o, p, grads + p->at);
    if (o->later) {
        const struct kern_adamw_at at = {o->later + lr, o->later + OPTIM_STEP};
        o->k->adamw_at(o->k, &a, &at, o->go);
    } else {
        o->k->adamw(o->k, &a);
    }
    round_embed(o, p, params + p->at);
    round_embed(o, p, o->mom + p->local);
    round_embed(o, p, o->var + p->local);
}

static void all_groups(struct optim *o, float *params, float *grads)
{
    muon(o, params, grads);
    for (size_t i = 0; i < o->p.pieces; i++)
        if (own(o, &o->p.piece[i]) && o->p.piece[i].group != OPTIM_MUON)
            adamw(o, &o->p.piece[i], params, grads);
}

void optim_step(struct optim *o, float *params, float *grads, double lr_scale, double momentum)
{
    optim_numbers(o, lr_scale, momentum, o->now);
    o->step++;
    all_groups(o, params, grads);
}

void optim_queue(struct optim *o, float *params, float *grads, const double *numbers,
                 const double *go)
{
    o->later = numbers;
    o->go = go;
    all_groups(o, params, grads);
    o->later = o->go = NULL;
}

void optim_round(const struct optim *o, float *params)
{
    for (size_t i = 0; i < o->p.pieces; i++)
        round_embed(o, &o->p.piece[i], params + o->p.piece[i].at);
}

/* ---- setting up ---- */

enum err_code optim_init(struct optim *o, struct kern *k, const struct gpt *m, size_t rank,
                         size_t ranks, struct err *e)
{
    *o = (struct optim){.k = k, .m = m};
    enum err_code rc = piece_list(&o->p, m, rank, ranks, e);
    if (rc)
        return rc;
    size_t bytes = (o->p.floats + !o->p.floats) * sizeof(float);
    o->mom = k->alloc(k, bytes);
    o->var = k->alloc(k, bytes);
    o->list = calloc(o->p.pieces + 1, sizeof *o->list);
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
    piece_free(&o->p);
    free(o->list);
    *o = (struct optim){0};
}

void optim_reset(struct optim *o)
{
    o->k->zero(o->k, o->mom, o->p.floats * sizeof *o->mom);
    o->k->zero(o->k, o->var, o->p.floats * sizeof *o->var);
    o->step = 0;
}

/* ---- clipping and averaging ---- */

double optim_clip_factor(double norm, double max_norm)
{
    double factor = max_norm / (norm + CLIP_EPS);
    return max_norm > 0 && isfinite(norm) && factor < 1.0 ? factor : 1.0;
}

void optim_judge(struct kern *k, const struct kern_verdict *v)
{
    struct kern_verdict with = *v;
    with.eps = CLIP_EPS;
    k->verdict(k, &with);
}

double optim_clip(struct kern *k, float *grads, size_t n, double scale, double max_norm)
{
    double norm = scale * sqrt(k->sumsq(k, grads, n));
    double factor = optim_clip_factor(norm, max_norm);
    if (factor < 1.0)
        k->axpby(k, grads, grads, n, (float)factor, 0.0f);
    return norm;
}

void optim_average(struct kern *k, float *avg, const float *params, size_t n, double decay)
{
    k->axpby(k, avg, params, n, (float)decay, (float)(1.0 - decay));
}
