/* optim.c - fixtures of KIND "optimizer" (Muon, AdamW, clipping, averages) and "schedule". */
#include "trainer/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

/* Newton-Schulz in bf16, relative: two correct versions differ by 3 to 5 %. */
static const double BF16_NS = 0.08;

static float *upload(struct check *c, const float *x, size_t n)
{
    float *d = c->k->alloc(c->k, (n + 1) * sizeof *x);
    if (!d) {
        fprintf(stderr, "parity: out of memory (%zu floats)\n", n);
        exit(ERR_RESOURCE);
    }
    c->k->upload(c->k, d, x, n * sizeof *x);
    return d;
}

/* ---- Newton-Schulz ---- */

static void ns5_one(struct check *c, struct group *g, const struct tensor_view *in,
                    const char *name)
{
    static const struct {
        const char *out;
        bool row_norm;
    } forms[] = {{"ns5_1296_fp32", false}, {"ns5_549_fp32", false}, {"eqr_ns5_1296_fp32", true}};
    struct kern *k = c->k;
    size_t rows = in->shape[0], cols = in->shape[1], n = rows * cols;
    size_t steps = (size_t)meta_num(c, "NS_STEPS", 5);
    const struct tensor_view *want;
    float *host = tensor_floats(in), *x = upload(c, host, n);
    double norm = sqrt(k->sumsq(k, x, n));
    if ((want = find(c, "out.%s.frob_norm_fp32", name)))
        group_doubles(c, &g[1], &norm, 1, want, 1e-6 * norm);
    k->row_normalize(k, x, rows, cols, 1e-7f);
    float *y = parity_alloc(n, sizeof *y);
    k->download(k, y, x, n * sizeof *y);
    if ((want = find(c, "out.%s.row_normalised", name)))
        group_floats(c, &g[1], y, n, want, 1e-6);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (!(want = find(c, "out.%s.%s", name, forms[i].out)))
            continue;
        k->upload(k, x, host, n * sizeof *host);
        if (forms[i].row_norm)
            k->row_normalize(k, x, rows, cols, 1e-7f);
        muon_orthogonalise(k, &x, 1, rows, cols, steps);
        k->download(k, y, x, n * sizeof *y);
        group_norm(c, &g[0], y, n, want, c->loose > 0 ? BF16_NS : 1e-5);
    }
    k->free(k, x);
    free(y);
    free(host);
}

static void run_ns5(struct check *c)
{
    struct group g[2] = {{.what = "Newton-Schulz, relative"}, {.what = "norms"}};
    for (size_t i = 0; i < c->st.count; i++) {
        char name[96];
        const struct tensor_view *t = &c->st.tensor[i];
        if (name_part(t->name, "input.", NULL, name, sizeof name) && t->ndim == 2 &&
            tensor_elems(t))
            ns5_one(c, g, t, name);
    }
    group_end(c, &g[0]);
    group_end(c, &g[1]);
    check_skipped(c, "bf16 emulations");
}

/* ---- whole steps of one optimiser ---- */

struct opt_case {
    const char *prefix; /* of results: PREFIX NAME.param_stepN */
    const char *suffix; /* of inputs: param.NAME SUFFIX, grad.NAME SUFFIX.stepN */
    enum param_class cls;
    double wd, tol;
    double state_tol;
    double update_tol; /* not 0: weights are compared relative to the update instead */
    bool muon_bf16, embed_bf16;
};

/* A model that consists of the fixture's tensors: what optim_init needs to know. */
static bool model_of(const struct check *c, const struct opt_case *o, struct gpt *m)
{
    *m = (struct gpt){0};
    recipe_init(&m->r);
    m->param = parity_alloc(c->st.count, sizeof *m->param);
    for (size_t i = 0; i < c->st.count; i++) {
        const struct tensor_view *t = &c->st.tensor[i];
        struct gpt_param *p = &m->param[m->nparams];
        char name[sizeof p->name];
        const char *end = o->suffix[0] ? o->suffix : NULL;
        if (!name_part(t->name, "param.", end, name, sizeof name))
            continue;
        if (!find(c, "%s%s.param_step1", o->prefix, name) || t->ndim > 3 || !tensor_elems(t) ||
            (o->cls == PARAM_MATRIX && t->ndim < 2))
            continue;
        strcpy(p->name, name);
        p->cls = o->cls;
        p->ndim = t->ndim ? t->ndim : 1;
        p->shape[0] = 1;
        for (size_t d = 0; d < t->ndim; d++)
            p->shape[d] = t->shape[d];
        p->at = m->floats;
        p->size = tensor_elems(t);
        m->floats += p->size;
        m->nparams++;
    }
    /* The fixture's lr is the multiplier. */
    m->r.matrix_lr = m->r.scalar_lr = m->r.tied_embed_lr = 1;
    m->r.muon_wd = m->r.adam_wd = m->r.embed_wd = o->wd;
    m->r.muon_bf16 = o->muon_bf16;
    m->r.embed_bf16 = o->embed_bf16;
    m->r.muon_backend_steps = (int64_t)meta_num(c, "MUON_BACKEND_STEPS", 5);
    m->r.muon_row_norm = st_meta(&c->st, "RECORD") && strstr(st_meta(&c->st, "RECORD"), "MuonEq");
    m->r.beta1 = meta_num(c, "BETA1", 0.9);
    m->r.beta2 = meta_num(c, "BETA2", 0.95);
    m->r.adam_eps = meta_num(c, "ADAM_EPS", 1e-8);
    return m->nparams > 0;
}

/* ||got - want|| / ||want - start||: the error relative to all that the steps so far changed. */
static void compare_update(struct check *c, struct group *g, const struct opt_case *o,
                           const float *got, const struct gpt_param *p,
                           const struct tensor_view *want)
{
    const struct tensor_view *start = need(c, p->size, "param.%s%s", p->name, o->suffix);
    double diff = 0, moved = 0;
    for (size_t i = 0; start && i < p->size; i++) {
        double w = tensor_at(want, i), d = (double)got[i] - w, u = w - tensor_at(start, i);
        diff += d * d;
        moved += u * u;
    }
    group_error(c, g, want->name, sqrt(diff / moved), o->update_tol);
}

/* Values that are rounded to bf16: the last bit of an fp32 sum may decide a rounding, so 1 element
 * in 200 may be off, by at most a bf16 ulp of the largest (a later step keeps what an earlier,
 * larger value was off). */
static void compare_bf16(struct check *c, struct group *g, const float *got, size_t n,
                         const struct tensor_view *want)
{
    size_t off = 0;
    for (size_t i = 0; i < n; i++)
        off += fabs((double)got[i] - tensor_at(want, i)) > 0;
    if (off * 200 > n)
        check_fail(c, "%s: %zu of %zu are off", want->name, off, n);
    group_floats(c, g, got, n, want, 0x1p-7 * tensor_max(want));
}

/* One block of the optimiser (weights, momentum, ...) after a step against PREFIX NAME.WHAT_stepN.
 */
static void compare_block(struct check *c, struct group *g, const struct opt_case *o,
                          const struct gpt *m, const float *block, const char *what, size_t step)
{
    bool weights = !strcmp(what, "param");
    float *x = parity_alloc(m->floats, sizeof *x);
    c->k->download(c->k, x, block, m->floats * sizeof *x);
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        const struct tensor_view *want = find(c, "%s%s.%s_step%zu", o->prefix, p->name, what, step);
        if (want && weights && o->update_tol > 0)
            compare_update(c, g, o, x + p->at, p, want);
        else if (want && weights && o->embed_bf16)
            compare_bf16(c, g, x + p->at, p->size, want);
        else if (want)
            group_floats(c, g, x + p->at, p->size, want, weights ? o->tol : o->state_tol);
    }
    free(x);
}

/* The tensors PREFIX NAME SUFFIX of all parameters as one block. */
static bool gather(struct check *c, const struct gpt *m, float *block, const char *prefix,
                   const char *suffix)
{
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        const struct tensor_view *t = need(c, p->size, "%s%s%s", prefix, p->name, suffix);
        if (!t)
            return false;
        for (size_t j = 0; j < p->size; j++)
            block[p->at + j] = (float)tensor_at(t, j);
    }
    return true;
}

static void run_steps(struct check *c, const struct opt_case *o)
{
    struct gpt m;
    struct optim opt = {0};
    struct err e = {0};
    struct group gp = {.what = o->update_tol > 0 ? "updates by bf16, relative"
                               : o->embed_bf16   ? "bf16 storage: weights"
                                                 : "weights"};
    struct group gs = {.what = "state"};
    const struct tensor_view *lr = need(c, 1, "input.lr"), *mu = find(c, "input.momentum");
    if (!lr || !model_of(c, o, &m))
        return;
    float *host = parity_alloc(m.floats, sizeof *host);
    bool ok = gather(c, &m, host, "param.", o->suffix);
    float *params = upload(c, host, m.floats), *grads = upload(c, host, m.floats);
    if (optim_init(&opt, c->k, &m, 0, 1, &e)) {
        check_fail(c, "%s", e.msg);
        ok = false;
    }
    for (size_t step = 1; ok && step <= tensor_elems(lr); step++) {
        char suffix[64];
        snprintf(suffix, sizeof suffix, "%s.step%zu", o->suffix, step);
        if (!(ok = gather(c, &m, host, "grad.", suffix)))
            break;
        c->k->upload(c->k, grads, host, m.floats * sizeof *host);
        optim_step(&opt, params, grads, tensor_at(lr, step - 1),
                   mu && step <= tensor_elems(mu) ? tensor_at(mu, step - 1) : 0);
        compare_block(c, &gp, o, &m, params, "param", step);
        compare_block(c, &gs, o, &m, opt.mom, "momentum", step);
        compare_block(c, &gs, o, &m, opt.mom, "exp_avg", step);
        compare_block(c, &gs, o, &m, opt.var, "exp_avg_sq", step);
    }
    group_end(c, &gp);
    group_end(c, &gs);
    optim_free(&opt);
    c->k->free(c->k, grads);
    c->k->free(c->k, params);
    free(host);
    gpt_free(&m);
}

/* ---- clipping ---- */

static void clip_set(struct check *c, struct group *gn, struct group *gg, const char *set)
{
    const struct tensor_view *t;
    size_t n = 0, at = 0;
    for (size_t i = 0; (t = find(c, "grad.%s.%zu", set, i)); i++)
        n += tensor_elems(t);
    float *g = parity_alloc(n, sizeof *g);
    for (size_t i = 0; (t = find(c, "grad.%s.%zu", set, i)); i++)
        for (size_t j = 0; j < tensor_elems(t); j++)
            g[at++] = (float)tensor_at(t, j);
    float *dev = upload(c, g, n);
    double norm = optim_clip(c->k, dev, n, 1, meta_num(c, "GRAD_CLIP_NORM", 0));
    c->k->download(c->k, g, dev, n * sizeof *g);
    if ((t = need(c, 1, "out.%s.total_norm", set)))
        group_doubles(c, gn, &norm, 1, t, 1e-5);
    at = 0;
    for (size_t i = 0; find(c, "grad.%s.%zu", set, i); i++) {
        size_t elems = tensor_elems(find(c, "grad.%s.%zu", set, i));
        if ((t = need(c, elems, "out.%s.%zu", set, i)))
            group_floats(c, gg, g + at, elems, t, 1e-7);
        at += elems;
    }
    c->k->free(c->k, dev);
    free(g);
}

static void run_clip(struct check *c)
{
    struct group gn = {.what = "norms"}, gg = {.what = "gradients"};
    for (size_t i = 0; i < c->st.count; i++) {
        char set[96];
        if (name_part(c->st.tensor[i].name, "out.", ".total_norm", set, sizeof set))
            clip_set(c, &gn, &gg, set);
    }
    group_end(c, &gn);
    group_end(c, &gg);
}

/* ---- averages ---- */

static void run_ema(struct check *c, const struct tensor_view *first)
{
    struct group g = {.what = "EMA"};
    const struct tensor_view *in, *want;
    size_t n = tensor_elems(first);
    float *x = tensor_floats(first), *avg = upload(c, x, n), *p = upload(c, x, n);
    for (size_t step = 1; (in = find(c, "input.param_step%zu", step)) && tensor_elems(in) == n;
         step++) {
        float *w = tensor_floats(in);
        c->k->upload(c->k, p, w, n * sizeof *w);
        optim_average(c->k, avg, p, n, meta_num(c, "EMA_DECAY", 0));
        c->k->download(c->k, x, avg, n * sizeof *x);
        if ((want = find(c, "out.ema_step%zu", step)))
            group_floats(c, &g, x, n, want, 1e-6);
        free(w);
    }
    /* What is loaded into a bf16 parameter at the end. */
    c->k->round_bf16(c->k, avg, n);
    c->k->download(c->k, x, avg, n * sizeof *x);
    if ((want = find(c, "out.ema_final_as_bf16")))
        group_floats(c, &g, x, n, want, 0);
    group_end(c, &g);
    c->k->free(c->k, p);
    c->k->free(c->k, avg);
    free(x);
}

/* A model of the one tensor, through the trainer's own snapshots: steps 1, 3 and 5. */
static void run_swa(struct check *c, const struct tensor_view *first,
                    const struct tensor_view *want)
{
    struct group g = {.what = "SWA"};
    size_t n = tensor_elems(first);
    struct gpt m = {.floats = n};
    struct step s = {.k = c->k, .m = &m, .opt = {.k = c->k, .m = &m, .p = {.ranks = 1}}};
    struct err e = {0};
    enum step_source from;
    float *x = tensor_floats(first);
    s.alone.size = 1;
    s.c = &s.alone;
    s.opt.p.stretch = parity_alloc(1, sizeof *s.opt.p.stretch);
    s.opt.p.stretch[0] = (struct stretch){.n = n};
    s.opt.p.stretches = 1;
    s.spread = (struct spread){.k = c->k, .p = &s.opt.p};
    s.params = upload(c, x, n);
    s.grads = upload(c, x, n);
    s.swa = upload(c, x, n);
    c->k->zero(c->k, s.swa, n * sizeof *x);
    for (size_t step = 1; step <= 5; step += 2) {
        const struct tensor_view *in = need(c, n, "input.param_step%zu", step);
        float *w = in ? tensor_floats(in) : NULL;
        if (w) {
            c->k->upload(c->k, s.params, w, n * sizeof *w);
            step_snapshot(&s);
        }
        free(w);
    }
    if (step_final(&s, &from, &e) || from != STEP_SWA)
        check_fail(c, "SWA: the mean of the snapshots is not what is saved");
    c->k->download(c->k, x, s.grads, n * sizeof *x);
    group_floats(c, &g, x, n, want, 1e-6);
    group_end(c, &g);
    step_free(&s);
    free(x);
}

static void run_average(struct check *c)
{
    const struct tensor_view *first = need(c, 1, "input.param_step0"), *swa;
    if (!first)
        return;
    run_ema(c, first);
    if ((swa = find(c, "out.swa_avg_steps_1_3_5")))
        run_swa(c, first, swa);
    check_skipped(c, "LAWA (no record uses it)");
}

static bool any(const struct check *c, const char *prefix, const char *suffix)
{
    char part[96];
    for (size_t i = 0; i < c->st.count; i++)
        if (name_part(c->st.tensor[i].name, prefix, suffix, part, sizeof part))
            return true;
    return false;
}

static void run_muon(struct check *c)
{
    const char *type = st_meta(&c->st, "MOMENTUM_DTYPE");
    struct opt_case o = {.prefix = "out.fp32.",
                         .suffix = "",
                         .cls = PARAM_MATRIX,
                         .wd = meta_num(c, "MUON_WD", 0),
                         .tol = 2e-6,
                         .state_tol = 2e-6,
                         .update_tol = c->loose > 0 ? BF16_NS : 0};
    run_steps(c, &o);
    /* The scripts as written. Which of them keep the momentum in bf16 is in the metadata; it must
     * then be met exactly. */
    o.prefix = "out.bf16.";
    o.update_tol = BF16_NS;
    o.muon_bf16 = type && !strncmp(type, "bf16", 4);
    o.state_tol = o.muon_bf16 ? 0 : 2e-6;
    if (any(c, "out.bf16.", ".param_step1"))
        run_steps(c, &o);
}

static void run_adamw(struct check *c)
{
    struct opt_case o = {.prefix = "out.adamw.",
                         .suffix = "",
                         .cls = PARAM_CONTROL,
                         .wd = meta_num(c, "ADAM_WD", 0),
                         .tol = 1e-6,
                         .state_tol = 1e-6};
    run_steps(c, &o);
    o.prefix = "out.adamw_bf16storage_emulated.";
    o.suffix = "_bf16";
    o.cls = PARAM_EMBED;
    o.embed_bf16 = true;
    if (any(c, o.prefix, ".param_step1"))
        run_steps(c, &o);
    o = (struct opt_case){
        .prefix = "out.adam.", .suffix = "", .cls = PARAM_CONTROL, .tol = 1e-6, .state_tol = 1e-6};
    run_steps(c, &o);
}

void parity_optimizer(struct check *c)
{
    if (any(c, "out.", ".ns5_1296_fp32") || any(c, "out.", ".ns5_549_fp32")) {
        run_ns5(c);
    } else if (any(c, "out.fp32.", ".param_step1")) {
        run_muon(c);
    } else if (any(c, "out.adamw.", ".param_step1") || any(c, "out.adam.", ".param_step1")) {
        run_adamw(c);
    } else if (any(c, "out.", ".total_norm")) {
        run_clip(c);
    } else if (find(c, "out.ema_step1")) {
        run_average(c);
    } else {
        check_missing(c, "an optimizer fixture of this sort");
    }
}

/* ---- schedules ---- */

/* One curve: input tensors (step may be NULL, elapsed may be NULL), and a function of the recipe.
 */
static void curve(struct check *c, struct group *g, const struct recipe *r, const char *out,
                  const char *step, const char *elapsed, double ms,
                  double (*f)(const struct recipe *, size_t, double))
{
    const struct tensor_view *want = find(c, "out.%s", out);
    if (!want)
        return;
    size_t n = tensor_elems(want);
    const struct tensor_view *s = step ? need(c, n, "input.%s", step) : NULL;
    const struct tensor_view *t = elapsed ? need(c, n, "input.%s", elapsed) : NULL;
    if ((step && !s) || (elapsed && !t))
        return;
    double *y = parity_alloc(n, sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] = f(r, s ? (size_t)tensor_at(s, i) : 0, t ? tensor_at(t, i) * ms : 0);
    group_doubles(c, g, y, n, want, 1e-12);
    free(y);
}

static double momentum(const struct recipe *r, size_t step, double elapsed_ms)
{
    (void)elapsed_ms;
    return schedule_momentum(r, step);
}

static double qat_on(const struct recipe *r, size_t step, double elapsed_ms)
{
    return schedule_qat(r, schedule_warmdown(r, step, elapsed_ms));
}

static double swa_on(const struct recipe *r, size_t step, double elapsed_ms)
{
    return schedule_swa(r, step + 1, schedule_warmdown(r, step, elapsed_ms));
}

void parity_schedule(struct check *c)
{
    struct group g = {.what = "curves"};
    struct recipe frac, iters;
    recipe_init(&frac);
    frac.warmdown_frac = meta_num(c, "WARMDOWN_FRAC", 0);
    frac.min_lr = meta_num(c, "MIN_LR", 0);
    frac.iterations = (int64_t)meta_num(c, "ITERATIONS_1296", 20000);
    frac.muon_momentum = meta_num(c, "MUON_MOMENTUM", 0);
    frac.muon_momentum_warmup_start = meta_num(c, "MUON_MOMENTUM_WARMUP_START", 0);
    frac.muon_momentum_warmup_steps = (int64_t)meta_num(c, "MUON_MOMENTUM_WARMUP_STEPS", 0);
    iters = frac;
    iters.warmdown_frac = 0;
    iters.warmdown_iters = (int64_t)meta_num(c, "WARMDOWN_ITERS", 0);
    iters.iterations = (int64_t)meta_num(c, "ITERATIONS_549", 20000);

    frac.max_wallclock_seconds = 1; /* so that input.frac is the time in seconds */
    curve(c, &g, &frac, "lr_mul_1296", NULL, "frac", 1000, schedule_lr);
    frac.max_wallclock_seconds = meta_num(c, "EFFECTIVE_WALLCLOCK_MS_1296", 0) / 1000;
    curve(c, &g, &frac, "training_frac_1296", NULL, "elapsed_ms", 1, schedule_frac);
    frac.max_wallclock_seconds = 0;
    curve(c, &g, &frac, "training_frac_nowallclock_1296", "step_1296", NULL, 1, schedule_frac);
    curve(c, &g, &frac, "muon_momentum", "step_momentum", NULL, 1, momentum);
    iters.max_wallclock_seconds = meta_num(c, "WALLCLOCK_MS_549", 0) / 1000;
    curve(c, &g, &iters, "lr_mul_549_wallclock", "step_549_wallclock", "elapsed_ms_549", 1,
          schedule_lr);
    iters.max_wallclock_seconds = 0;
    curve(c, &g, &iters, "lr_mul_549_nowallclock", "step_549", NULL, 1, schedule_lr);
    iters.late_qat_threshold = meta_num(c, "LATE_QAT_THRESHOLD", 0);
    iters.swa_start_scale = meta_num(c, "SWA_THRESHOLD", 0);
    iters.swa_enabled = iters.swa_every = 1;
    curve(c, &g, &iters, "late_qat_on_549", "step_549", NULL, 1, qat_on);
    curve(c, &g, &iters, "swa_collect_allowed_549", "step_549", NULL, 1, swa_on);
    group_end(c, &g);
    if (!c->compared && !c->fails)
        check_missing(c, "a schedule of this sort");
}
