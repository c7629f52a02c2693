/* train.c - fixtures of KIND "train": whole optimiser steps, from micro-batches to the averaged
 * weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

/* What a pass is compared with: out.FORM.*. */
struct form {
    const char *name, *losses;
    bool muon_bf16;
    double tight, loose; /* tolerance of most weights, and of one in a thousand */
    double loss, norm;   /* of the losses; of the gradient norms, relative */
};

/* Adam's first step is a sign, so a gradient within rounding of zero moves its weight by 2*lr: 1
 * element in 1000 may be off by more. The bf16 form is Muon as the scripts have it, with
 * Newton-Schulz in bf16: that alone moves weights by some 1e-3, and two steps later the losses. */
static const struct form forms[] = {
    {"fp32", "losses", false, 2e-5, 2e-3, 1e-5, 1e-4},
    {"bf16", "bf16 form: losses", true, 3e-3, 3e-3, 3e-3, 3e-2},
};

/* A block of all parameters against out.FORM.WHEN.NAME. */
static void compare_block(struct check *c, struct group *g, const struct step *s,
                          const struct form *f, const float *block, const char *when)
{
    char prefix[64], *names;
    struct tensor_view *t;
    size_t off = 0, all = 0;
    snprintf(prefix, sizeof prefix, "out.%s.%s.", f->name, when);
    size_t n = unbank(c, prefix, !gpt_find(s->m, "qo_bank"), &t, &names);
    float *x = parity_alloc(s->m->floats, sizeof *x);
    c->k->download(c->k, x, block, s->m->floats * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const struct gpt_param *p = gpt_find(s->m, t[i].name);
        if (!p || p->size != tensor_elems(&t[i])) {
            check_fail(c, "%s%s: the model has no such parameter", prefix, t[i].name);
            continue;
        }
        group_floats(c, g, x + p->at, p->size, &t[i], f->loose);
        for (size_t j = 0; j < p->size && !(c->loose > 0); j++) {
            double d = (double)x[p->at + j] - tensor_at(&t[i], j);
            off += d > f->tight || d < -f->tight;
        }
        all += p->size;
    }
    if (off * 1000 > all)
        check_fail(c, "%s: %zu of %zu weights off by more than %g", when, off, all, f->tight);
    else if (off)
        check_note(c, "%s: %zu of %zu weights off by more than %g", when, off, all, f->tight);
    free(x);
    free(t);
    free(names);
}

struct train {
    struct check *c;
    struct gpt m;
    float *params;
    struct step s;
    uint16_t *ids, *target;
    size_t steps, accum, rows;
};

/* "0,0,1": is late QAT on in step i? */
static bool qat_in(const struct check *c, size_t i)
{
    const char *list = st_meta(&c->st, "LATE_QAT_ACTIVE_PER_STEP");
    return list && strlen(list) > 2 * i && list[2 * i] == '1';
}

static bool one_step(struct train *r, size_t i, double lr_scale, struct step_stats *st)
{
    struct err e = {0};
    enum err_code rc = ERR_OK;
    r->s.qat = r->s.quant && qat_in(r->c, i);
    if (!r->s.quant && qat_in(r->c, i))
        check_fail(r->c, "step %zu: late QAT is on, the model has nothing for it", i + 1);
    step_begin(&r->s);
    for (size_t a = 0; a < r->accum && !rc; a++) {
        size_t at = (i * r->accum + a) * r->rows;
        rc = step_micro(&r->s, r->ids + at, r->target + at, &e);
    }
    if (!rc)
        rc = step_end(&r->s, lr_scale, schedule_momentum(&r->m.r, i), 0, st, &e);
    if (rc)
        check_fail(r->c, "step %zu: %s", i + 1, e.msg);
    return !rc;
}

static void run_steps(struct train *r, const struct form *f, const struct tensor_view *lr)
{
    struct check *c = r->c;
    struct group gl = {.what = f->losses}, gn = {.what = "gradient norms"};
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
        compare_block(c, &gw, &r->s, f, r->s.params, when);
        snprintf(when, sizeof when, "ema%zu", done + 1);
        if (r->s.ema)
            compare_block(c, &ge, &r->s, f, r->s.ema, when);
    }
    if ((want = find(c, "out.%s.train_loss", f->name)))
        group_doubles(c, &gl, loss, done, want, f->loss);
    if ((want = find(c, "out.%s.grad_norm_before_clip", f->name)))
        group_doubles(c, &gn, norm, done, want, f->norm * tensor_max(want));
    group_end(c, &gl);
    group_end(c, &gn);
    group_end(c, &gw);
    group_end(c, &ge);
    free(loss);
}

/* What the scripts hard-code: shown by their groups, and by the parameters that they have. */
static void script_settings(struct train *r, const struct tensor_view *x)
{
    const struct check *c = r->c;
    const char *muon = st_meta(&c->st, "GROUP_MUON");
    r->m.r.train_seq_len = (int64_t)x->shape[3];
    r->m.r.train_batch_tokens = (int64_t)(r->accum * r->rows);
    r->m.r.muon_row_norm = find(c, "param.skip_gates") != NULL; /* #1296's lineage */
    if (muon && !strstr(muon, "ve_shared.proj"))
        strcpy(r->m.r.proj_optimizer, "adamw");
    if (!st_meta(&c->st, "EMBED_WD")) /* #549 has one decay for both groups of AdamW */
        r->m.r.embed_wd = r->m.r.adam_wd;
    strcpy(r->m.r.late_qat_scope, "proj"); /* banks bypass it */
    r->m.r.quant_bits = 6;
    r->m.r.quant_scale_floor = 1;
}

static void run_form(struct train *r, const struct form *f, size_t batch,
                     const struct tensor_view *lr)
{
    struct err e = {0};
    /* #1296 keeps gradient and momentum in fp32 and uses bf16 in Newton-Schulz alone. */
    r->m.r.muon_bf16 = f->muon_bf16 && !r->m.r.muon_row_norm;
    if (step_init(&r->s, r->c->k, &r->m, batch, NULL, &e)) {
        check_fail(r->c, "%s", e.msg);
        return;
    }
    step_set(&r->s, r->params);
    run_steps(r, f, lr);
    step_free(&r->s);
}

void parity_train(struct check *c)
{
    struct train r = {.c = c};
    const struct tensor_view *x = need(c, 1, "input.tokens"), *y = need(c, 1, "input.targets");
    const struct tensor_view *lr = need(c, 1, "input.lr_scale");
    if (!x || !y || !lr || !parity_gpt(c, &r.m, &r.params))
        return;
    if (x->ndim != 4 || tensor_elems(y) != tensor_elems(x) || tensor_elems(lr) < x->shape[0]) {
        check_fail(c, "input.tokens must be [step, micro-batch, batch, t]");
        goto out;
    }
    r.steps = x->shape[0];
    r.accum = x->shape[1];
    r.rows = x->shape[2] * x->shape[3];
    r.ids = tensor_tokens(c, x, (size_t)r.m.r.vocab_size);
    r.target = tensor_tokens(c, y, (size_t)r.m.r.vocab_size);
    script_settings(&r, x);
    for (size_t i = 0; r.ids && r.target && i < sizeof forms / sizeof forms[0]; i++)
        if (find(c, "out.%s.train_loss", forms[i].name))
            run_form(&r, &forms[i], x->shape[2], lr);
out:
    free(r.ids);
    free(r.target);
    free(r.params);
    gpt_free(&r.m);
}
