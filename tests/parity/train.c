/* train.c - fixtures of KIND "train": whole optimiser steps, from micro-batches to the averaged
 * weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

/* A block of all parameters against out.fp32.WHEN.NAME. Adam's first step is a sign, so a gradient
 * within rounding of zero moves its weight by 2*lr: 1 element in 1000 may be off by up to 2e-3. */
static void compare_block(struct check *c, struct group *g, const struct step *s,
                          const float *block, const char *when)
{
    char prefix[64], *names;
    struct tensor_view *t;
    size_t loose = 0, all = 0;
    snprintf(prefix, sizeof prefix, "out.fp32.%s.", when);
    size_t n = unbank(c, prefix, !gpt_find(s->m, "qo_bank"), &t, &names);
    float *x = parity_alloc(s->m->floats, sizeof *x);
    c->k->download(c->k, x, block, s->m->floats * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const struct gpt_param *p = gpt_find(s->m, t[i].name);
        if (!p || p->size != tensor_elems(&t[i])) {
            check_fail(c, "%s%s: the model has no such parameter", prefix, t[i].name);
            continue;
        }
        group_floats(c, g, x + p->at, p->size, &t[i], 2e-3);
        for (size_t j = 0; j < p->size; j++) {
            double d = (double)x[p->at + j] - tensor_at(&t[i], j);
            loose += d > 2e-5 || d < -2e-5;
        }
        all += p->size;
    }
    if (loose * 1000 > all)
        check_fail(c, "%s: %zu of %zu weights off by more than 2e-5", when, loose, all);
    else if (loose)
        check_note(c, "%s: %zu of %zu weights off by more than 2e-5", when, loose, all);
    free(x);
    free(t);
    free(names);
}

struct train {
    struct check *c;
    struct step s;
    uint16_t *ids, *target;
    size_t steps, accum, rows;
};

static bool one_step(struct train *r, size_t i, double lr_scale, struct step_stats *st)
{
    struct err e = {0};
    enum err_code rc = ERR_OK;
    step_begin(&r->s);
    for (size_t a = 0; a < r->accum && !rc; a++) {
        size_t at = (i * r->accum + a) * r->rows;
        rc = step_micro(&r->s, r->ids + at, r->target + at, &e);
    }
    if (!rc)
        rc = step_end(&r->s, lr_scale, schedule_momentum(&r->s.m->r, i), st, &e);
    if (rc)
        check_fail(r->c, "step %zu: %s", i + 1, e.msg);
    return !rc;
}

static void run_steps(struct train *r, const struct tensor_view *lr)
{
    struct check *c = r->c;
    struct group gl = {.what = "losses"}, gn = {.what = "gradient norms"};
    struct group gw = {.what = "weights"}, ge = {.what = "EMA"};
    const struct tensor_view *want;
    double *loss = parity_alloc(2 * r->steps, sizeof *loss), *norm = loss + r->steps;
    size_t done = 0;
    for (; done < r->steps; done++) {
        struct step_stats st;
        char when[32];
        if (!one_step(r, done, tensor_at(lr, done), &st))
            break;
        loss[done] = st.loss;
        norm[done] = st.grad_norm;
        snprintf(when, sizeof when, "step%zu", done + 1);
        compare_block(c, &gw, &r->s, r->s.params, when);
        snprintf(when, sizeof when, "ema%zu", done + 1);
        if (r->s.ema)
            compare_block(c, &ge, &r->s, r->s.ema, when);
    }
    if ((want = find(c, "out.fp32.train_loss")))
        group_doubles(c, &gl, loss, done, want, 1e-5);
    if ((want = find(c, "out.fp32.grad_norm_before_clip")))
        group_doubles(c, &gn, norm, done, want, 1e-4 * tensor_max(want));
    group_end(c, &gl);
    group_end(c, &gn);
    group_end(c, &gw);
    group_end(c, &ge);
    check_skipped(c, "bf16 emulations");
    free(loss);
}

void parity_train(struct check *c)
{
    struct gpt m;
    struct err e = {0};
    struct train r = {.c = c};
    float *params;
    const struct tensor_view *x = need(c, 1, "input.tokens"), *y = need(c, 1, "input.targets");
    const struct tensor_view *lr = need(c, 1, "input.lr_scale");
    if (meta_num(c, "LATE_QAT_THRESHOLD", 0) > 0 || st_meta(&c->st, "QAT_STEP"))
        check_missing(c, "quantisation during training");
    if (!x || !y || !lr || c->missing[0] || !parity_gpt(c, &m, &params))
        return;
    if (x->ndim != 4 || tensor_elems(y) != tensor_elems(x) || tensor_elems(lr) < x->shape[0]) {
        check_fail(c, "input.tokens must be [step, micro-batch, batch, t]");
        goto out;
    }
    r.steps = x->shape[0];
    r.accum = x->shape[1];
    r.rows = x->shape[2] * x->shape[3];
    r.ids = tensor_tokens(c, x, (size_t)m.r.vocab_size);
    r.target = tensor_tokens(c, y, (size_t)m.r.vocab_size);
    m.r.train_seq_len = (int64_t)x->shape[3];
    m.r.train_batch_tokens = (int64_t)(r.accum * r.rows);
    /* Which Muon a script has is not in the metadata: #1296's lineage has row norms. */
    m.r.muon_row_norm = find(c, "param.skip_gates") != NULL;
    if (r.ids && r.target && step_init(&r.s, c->k, &m, x->shape[2], &e)) {
        check_fail(c, "%s", e.msg);
    } else if (r.ids && r.target) {
        step_set(&r.s, params);
        run_steps(&r, lr);
    }
out:
    step_free(&r.s);
    free(r.ids);
    free(r.target);
    free(params);
    gpt_free(&m);
}
