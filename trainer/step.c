/* step.c - see step.h. */
#include "trainer/step.h"

#include <math.h>
#include <stdlib.h>

#include "model/clock.h"

enum err_code step_init(struct step *s, struct kern *k, const struct gpt *m, size_t batch,
                        struct err *e)
{
    enum err_code rc;
    size_t bytes = m->floats * sizeof(float);
    *s = (struct step){.k = k, .m = m, .batch = batch, .t = (size_t)m->r.train_seq_len};
    graph_init(&s->g);
    if ((rc = gpt_graph(m, &s->g, e)) || (rc = graph_plan(&s->g, k, s->batch, s->t, 0, true, e)) ||
        (rc = optim_init(&s->opt, k, m, e)))
        goto fail;
    s->params = k->alloc(k, bytes);
    s->grads = k->alloc(k, bytes);
    s->ema = m->r.ema_decay > 0 ? k->alloc(k, bytes) : NULL;
    s->nll = malloc(s->batch * s->t * sizeof *s->nll);
    if (!s->params || !s->grads || !s->nll || (m->r.ema_decay > 0 && !s->ema)) {
        rc = err_nomem(e, "weights, gradients and average", 3ull * bytes);
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
    }
    free(s->nll);
    *s = (struct step){0};
}

void step_set(struct step *s, const float *params)
{
    size_t bytes = s->m->floats * sizeof(float);
    s->k->upload(s->k, s->params, params, bytes);
    if (s->ema)
        s->k->upload(s->k, s->ema, params, bytes);
}

void step_begin(struct step *s)
{
    s->k->zero(s->k, s->grads, s->m->floats * sizeof(float));
    s->loss_sum = 0;
}

enum err_code step_micro(struct step *s, const uint16_t *ids, const uint16_t *target, struct err *e)
{
    double t0 = seconds_now(), t1;
    enum err_code rc = graph_forward(&s->g, s->params, ids, target, s->nll, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->batch * s->t; i++)
        s->loss_sum += (double)s->nll[i];
    t1 = seconds_now();
    graph_backward(&s->g, s->params, s->grads, (float)(1.0 / (double)s->m->r.train_batch_tokens));
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
