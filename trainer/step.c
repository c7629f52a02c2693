/* step.c - see step.h. */
#include "trainer/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/clock.h"
#include "trainer/quant.h"
#include "trainer/schedule.h"

bool step_qat_covers(const struct recipe *r, const struct gpt_param *p)
{
    if (strcmp(r->late_qat_scope, "proj") == 0)
        return p->cls == PARAM_PROJ;
    return strcmp(r->late_qat_scope, "all") == 0 &&
           (p->cls == PARAM_MATRIX || p->cls == PARAM_PROJ) &&
           p->size > (size_t)r->quant_keep_numel;
}

bool step_qat_possible(const struct gpt *m)
{
    bool covers = false;
    for (size_t i = 0; i < m->nparams; i++)
        covers |= step_qat_covers(&m->r, &m->param[i]);
    return covers && m->r.late_qat_threshold > 0;
}

static enum err_code plan_graph(struct step *s, bool recur, struct err *e)
{
    graph_init(&s->g);
    s->recur = recur;
    gpt_graph(s->m, &s->g, recur);
    return graph_plan(&s->g, s->k, s->batch, s->t, 0, true, e);
}

enum err_code step_recur(struct step *s, bool recur, struct err *e)
{
    if (recur == s->recur)
        return ERR_OK;
    graph_free(&s->g); /* before the other one is there: memory for both was never planned */
    return plan_graph(s, recur, e);
}

enum err_code step_init(struct step *s, struct kern *k, const struct gpt *m, size_t batch,
                        struct err *e)
{
    enum err_code rc;
    const struct recipe *r = &m->r;
    *s = (struct step){.k = k, .m = m, .batch = batch, .t = (size_t)r->train_seq_len};
    if ((rc = plan_graph(s, schedule_recur(r, 0), e)) || (rc = optim_init(&s->opt, k, m, e)))
        goto fail;
    const struct {
        float **block;
        bool wanted;
    } blocks[] = {
        {&s->params, true},
        {&s->grads, true},
        {&s->ema, r->ema_decay > 0},
        {&s->swa, r->swa_enabled && r->swa_apply},
        {&s->quant, step_qat_possible(m)},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (!blocks[i].wanted)
            continue;
        if (!(*blocks[i].block = k->alloc(k, m->floats * sizeof(float)))) {
            rc = err_nomem(e, "weights, gradients and averages", m->floats * sizeof(float));
            goto fail;
        }
    }
    s->nll = malloc(s->batch * s->t * sizeof *s->nll);
    if (!s->nll) {
        rc = err_nomem(e, "losses", s->batch * s->t * sizeof *s->nll);
        goto fail;
    }
    return ERR_OK;
fail:
    step_free(s);
    return rc;
}

void step_free(struct step *s)
{
    graph_free(&s->g);
    optim_free(&s->opt);
    if (s->k) {
        s->k->free(s->k, s->params);
        s->k->free(s->k, s->grads);
        s->k->free(s->k, s->ema);
        s->k->free(s->k, s->swa);
        s->k->free(s->k, s->quant);
    }
    free(s->nll);
    *s = (struct step){0};
}

void step_set(struct step *s, const float *params)
{
    size_t bytes = s->m->floats * sizeof(float);
    s->k->upload(s->k, s->params, params, bytes);
    optim_round(&s->opt, s->params);
    if (s->ema) {
        s->k->upload(s->k, s->ema, params, bytes);
        optim_round(&s->opt, s->ema);
    }
    if (s->swa)
        s->k->zero(s->k, s->swa, bytes);
    s->snapshots = 0;
    s->qat = false;
    optim_reset(&s->opt);
}

/* dst = factor * src; dst must be finite, so that 0 * dst is 0. */
static void copy(struct step *s, float *dst, const float *src, float factor)
{
    s->k->axpby(s->k, dst, src, s->m->floats, 0.0f, factor);
}

static void round_weights(struct step *s)
{
    const struct recipe *r = &s->m->r;
    float levels = (float)quant_levels((unsigned)r->quant_bits);
    copy(s, s->quant, s->params, 1.0f);
    for (size_t i = 0; i < s->m->nparams; i++) {
        const struct gpt_param *p = &s->m->param[i];
        if (!step_qat_covers(r, p))
            continue;
        size_t cols = p->shape[p->ndim - 1];
        s->k->fake_quant(s->k, s->quant + p->at, s->params + p->at, p->size / cols, cols, levels,
                         (float)r->quant_scale_floor);
    }
}

void step_begin(struct step *s)
{
    s->k->zero(s->k, s->grads, s->m->floats * sizeof(float));
    s->loss_sum = 0;
    if (s->qat)
        round_weights(s);
}

enum err_code step_micro(struct step *s, const uint16_t *ids, const uint16_t *target, struct err *e)
{
    double t0 = seconds_now(), t1;
    const float *params = s->qat ? s->quant : s->params;
    enum err_code rc = graph_forward(&s->g, params, ids, target, s->nll, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->batch * s->t; i++)
        s->loss_sum += (double)s->nll[i];
    t1 = seconds_now();
    graph_backward(&s->g, params, s->grads, (float)(1.0 / (double)s->m->r.train_batch_tokens));
    s->seconds[PHASE_FORWARD] += t1 - t0;
    s->seconds[PHASE_BACKWARD] += seconds_now() - t1;
    return ERR_OK;
}

/* Name of the first tensor of a block with an element that is not finite, or NULL. */
static const char *not_finite(const struct step *s, const float *block)
{
    for (size_t i = 0; i < s->m->nparams; i++) {
        const struct gpt_param *p = &s->m->param[i];
        if (!isfinite(s->k->sumsq(s->k, block + p->at, p->size)))
            return p->name;
    }
    return NULL;
}

enum err_code step_check(const struct step *s, struct err *e)
{
    const char *name = not_finite(s, s->params);
    if (name)
        return err_set(e, ERR_INPUT, "step %zu: weights %s are not finite; nothing saved",
                       s->opt.step, name);
    return ERR_OK;
}

static enum err_code diverged(const struct step *s, double loss, struct err *e)
{
    const char *of = "weights", *name = not_finite(s, s->params);
    if (!name) {
        of = "gradient of";
        name = not_finite(s, s->grads);
    }
    if (!name) {
        of = "the";
        name = "loss";
    }
    return err_set(e, ERR_INPUT,
                   "training diverged at step %zu (loss %g): first not finite: %s %s; try lower "
                   "learning rates or GRAD_CLIP_NORM",
                   s->opt.step + 1, loss, of, name);
}

enum err_code step_end(struct step *s, double lr_scale, double momentum, struct step_stats *st,
                       struct err *e)
{
    const struct recipe *r = &s->m->r;
    double t0 = seconds_now();
    enum err_code rc;
    st->loss = s->loss_sum / (double)r->train_batch_tokens;
    st->grad_norm = optim_clip(s->k, s->grads, s->m->floats, r->grad_clip_norm);
    if (!isfinite(st->loss) || !isfinite(st->grad_norm))
        return diverged(s, st->loss, e);
    optim_step(&s->opt, s->params, s->grads, lr_scale, momentum);
    if (s->ema)
        optim_average(s->k, s->ema, s->params, s->m->floats, r->ema_decay);
    rc = s->k->sync(s->k, e);
    s->seconds[PHASE_OPTIMISER] += seconds_now() - t0;
    return rc;
}

void step_snapshot(struct step *s)
{
    s->snapshots++;
    if (s->swa)
        s->k->add(s->k, s->swa, s->params, s->m->floats);
}

enum step_source step_final(struct step *s)
{
    enum step_source from = s->swa && s->snapshots ? STEP_SWA : s->ema ? STEP_EMA : STEP_WEIGHTS;
    const float *src = from == STEP_SWA ? s->swa : from == STEP_EMA ? s->ema : s->params;
    s->k->zero(s->k, s->grads, s->m->floats * sizeof(float));
    copy(s, s->grads, src, from == STEP_SWA ? (float)(1.0 / (double)s->snapshots) : 1.0f);
    optim_round(&s->opt, s->grads);
    return from;
}
