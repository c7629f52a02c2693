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
    enum err_code rc = graph_plan(&s->g, s->k, s->batch, s->t, 0, true, e);
    if (!rc)
        reduce_buckets(&s->reduce, s->m, &s->g);
    return rc;
}

enum err_code step_recur(struct step *s, bool recur, struct err *e)
{
    if (recur == s->recur)
        return ERR_OK;
    whole_forget(s);
    graph_free(&s->g); /* before the other one is there: memory for both was never planned */
    return plan_graph(s, recur, e);
}

static enum err_code alloc_blocks(struct step *s, struct err *e)
{
    const struct recipe *r = &s->m->r;
    size_t all = s->m->floats, own = s->opt.p.floats ? s->opt.p.floats : 1;
    const struct {
        float **block;
        bool wanted;
        size_t floats;
    } blocks[] = {
        {&s->params, true, all},
        {&s->grads, true, all},
        {&s->ema, r->ema_decay > 0, own},
        {&s->swa, r->swa_enabled && r->swa_apply, own},
        {&s->quant, step_qat_possible(s->m), all},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        if (blocks[i].wanted &&
            !(*blocks[i].block = s->k->alloc(s->k, blocks[i].floats * sizeof(float))))
            return err_nomem(e, "weights, gradients and averages", all * sizeof(float));
    return ERR_OK;
}

static enum err_code alloc_sums(struct step *s, struct err *e)
{
    struct reduce_share most; /* rank 0 has the longer ones, here and everywhere */
    reduce_share(&most, s->micros, (size_t)s->m->r.grad_ranks, 0, s->c->size);
    s->most_micros = most.micro.count;
    s->told = 1 + s->most_micros + s->opt.p.most;
    s->sums = s->k->alloc(s->k, s->told * sizeof *s->sums);
    s->tell = calloc(s->told, sizeof *s->tell);
    s->heard = calloc(s->told * s->c->size, sizeof *s->heard);
    s->seen = calloc(s->c->size, sizeof *s->seen);
    if (!s->sums || !s->tell || !s->heard || !s->seen)
        return err_nomem(e, "losses and norms", s->told * s->c->size * sizeof *s->heard);
    return ERR_OK;
}

enum err_code step_init(struct step *s, struct kern *k, const struct gpt *m, size_t batch,
                        struct comm *c, struct err *e)
{
    enum err_code rc;
    const struct recipe *r = &m->r;
    size_t grad_ranks = (size_t)r->grad_ranks;
    *s = (struct step){.k = k, .m = m, .batch = batch, .t = (size_t)r->train_seq_len};
    s->alone = (struct comm){.name = "single", .size = 1};
    s->c = c ? c : &s->alone;
    s->micros = (size_t)r->train_batch_tokens / (batch * s->t);
    if ((rc = optim_init(&s->opt, k, m, s->c->rank, s->c->size, e)) || (rc = alloc_blocks(s, e)) ||
        (rc = spread_init(&s->spread, k, s->c, &s->opt.p, e)) ||
        (rc = reduce_init(&s->reduce, k, s->c, &s->opt.p, s->grads, m->floats, s->micros,
                          grad_ranks, e)))
        goto fail;
    if (!(rc = alloc_sums(s, e)) && !(rc = whole_init(s, e)) &&
        !(rc = plan_graph(s, schedule_recur(r, 0), e)))
        return ERR_OK;
fail:
    step_free(s);
    return rc;
}

void step_free(struct step *s)
{
    if (s->k)
        whole_free(s);
    graph_free(&s->g);
    reduce_free(&s->reduce);
    spread_free(&s->spread);
    optim_free(&s->opt);
    if (s->k) {
        s->k->free(s->k, s->params);
        s->k->free(s->k, s->grads);
        s->k->free(s->k, s->ema);
        s->k->free(s->k, s->swa);
        s->k->free(s->k, s->quant);
        s->k->free(s->k, s->sums);
    }
    free(s->tell);
    free(s->heard);
    free(s->seen);
    *s = (struct step){0};
}

const float *step_weights(const struct step *s)
{
    return s->qat ? s->quant : s->params;
}

void step_set(struct step *s, const float *params)
{
    step_hold(s, false);
    s->k->upload(s->k, s->params, params, s->m->floats * sizeof(float));
    optim_round(&s->opt, s->params);
    if (s->ema)
        spread_pack(&s->spread, s->ema, s->params);
    if (s->swa)
        s->k->zero(s->k, s->swa, s->opt.p.floats * sizeof(float));
    s->snapshots = 0;
    s->qat = false;
    optim_reset(&s->opt);
}

static void round_weights(struct step *s)
{
    const struct recipe *r = &s->m->r;
    float levels = (float)quant_levels((unsigned)r->quant_bits);
    s->k->copy(s->k, s->quant, s->params, s->m->floats * sizeof(float));
    for (size_t i = 0; i < s->m->nparams; i++) {
        const struct gpt_param *p = &s->m->param[i];
        if (!step_qat_covers(r, p))
            continue;
        size_t cols = p->shape[p->ndim - 1];
        s->k->fake_quant(s->k, s->quant + p->at, s->params + p->at, p->size / cols, cols, levels,
                         (float)r->quant_scale_floor);
    }
}

void step_hold(struct step *s, bool yes)
{
    if (yes && s->qat)
        round_weights(s);
    if (s->k->hold)
        s->k->hold(s->k, yes ? step_weights(s) : NULL, yes ? s->m->floats : 0);
}

void step_begin(struct step *s)
{
    s->micro = 0;
    if (s->whole.on)
        return;
    reduce_begin(&s->reduce);
    step_hold(s, true);
}

/* GRAD_CLIP_SCOPE=rank: #1276 clips what a rank has, the mean over its tokens, before it is
 * averaged with the others'. A group stands for a rank; its gradient is already weighted with its
 * share of the batch. */
static void clip_group(struct step *s)
{
    struct split_range micros;
    const struct recipe *r = &s->m->r;
    if (reduce_closes(&s->reduce, &micros))
        optim_clip(s->k, s->grads, s->m->floats, (double)s->micros / (double)micros.count,
                   r->grad_clip_norm);
}

bool step_clips_ranks(const struct step *s)
{
    return s->m->r.grad_clip_norm > 0 && strcmp(s->m->r.grad_clip_scope, "rank") == 0;
}

enum err_code step_micro(struct step *s, const uint16_t *ids, const uint16_t *target, struct err *e)
{
    double t0 = seconds_now();
    if (s->whole.on) {
        whole_stage(s, ids, target);
        return ERR_OK;
    }
    bool leave = s->c->size > 1 && reduce_last(&s->reduce) && !step_clips_ranks(s);
    s->g.done = leave ? reduce_done : NULL;
    s->g.done_ctx = &s->reduce;
    graph_train(&s->g, step_weights(s), ids, target, s->grads,
                (float)(1.0 / (double)s->m->r.train_batch_tokens), s->sums + s->micro++);
    if (step_clips_ranks(s))
        clip_group(s);
    reduce_micro(&s->reduce);
    s->seconds[PHASE_FORWARD] += s->g.forward_s;
    s->seconds[PHASE_BACKWARD] += seconds_now() - t0 - s->g.forward_s;
    return s->k->record ? ERR_OK : s->k->sync(s->k, e); /* a graphics card runs on meanwhile */
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

/* ---- what all ranks must know ---- */

double *step_squares(struct step *s)
{
    const struct piece_list *p = &s->opt.p;
    double *first = s->sums + s->most_micros, *next = first;
    for (size_t i = 0; i < p->pieces; i++)
        if (p->piece[i].owner == p->rank)
            s->k->sumsq_into(s->k, next++, s->grads + p->piece[i].at, p->piece[i].n);
    return first;
}

/* What this rank has to say, into s->tell. Waits for the device. */
static enum err_code sum_up(struct step *s, unsigned trouble, struct err *e)
{
    step_squares(s);
    s->k->download(s->k, s->tell + 1, s->sums, (s->told - 1) * sizeof *s->tell);
    enum err_code rc = s->k->sync(s->k, e);
    s->tell[0] = (double)(trouble | (rc ? STEP_FAILED : 0));
    return rc;
}

/* Loss and norm from what was heard, in the order of micro-batches and pieces. Returns the first
 * piece whose gradient is not finite, or the number of pieces. */
static size_t conclude(struct step *s, struct step_stats *st)
{
    const struct piece_list *p = &s->opt.p;
    double loss = 0, squares = 0;
    size_t bad = p->pieces;
    for (size_t r = 0; r < p->ranks; r++) {
        const double *said = s->heard + r * s->told;
        struct reduce_share share;
        reduce_share(&share, s->micros, (size_t)s->m->r.grad_ranks, r, p->ranks);
        st->trouble |= (unsigned)said[0];
        for (size_t i = 0; i < share.micro.count; i++)
            loss += said[1 + i];
    }
    memset(s->seen, 0, p->ranks * sizeof *s->seen);
    for (size_t i = 0; i < p->pieces; i++) {
        size_t owner = p->piece[i].owner;
        double square = s->heard[owner * s->told + 1 + s->most_micros + s->seen[owner]++];
        if (!isfinite(square) && bad == p->pieces)
            bad = i;
        squares += square;
    }
    st->loss = loss / (double)s->m->r.train_batch_tokens;
    st->grad_norm = sqrt(squares);
    return bad;
}

/* The first tensor of an own piece with a gradient that is not finite. */
static const char *bad_tensor(const struct step *s, const struct piece *q)
{
    for (size_t j = 0; j < s->m->nparams; j++) {
        const struct gpt_param *p = &s->m->param[j];
        size_t from = p->at > q->at ? p->at : q->at;
        size_t to = p->at + p->size < q->at + q->n ? p->at + p->size : q->at + q->n;
        if (from < to && !isfinite(s->k->sumsq(s->k, s->grads + from, to - from)))
            return p->name;
    }
    return "unknown";
}

/* bad: as conclude returned it. */
static enum err_code diverged(const struct step *s, struct step_stats *st, size_t bad,
                              struct err *e)
{
    const char *of = "weights", *name = not_finite(s, s->params);
    if (!name && bad < s->opt.p.pieces) {
        const struct piece *q = &s->opt.p.piece[bad];
        of = "gradient of";
        name = q->owner == s->c->rank ? bad_tensor(s, q) : NULL;
        if (!name) {
            st->trouble = STEP_FAILED;
            return ERR_OK;
        }
    }
    if (!name) {
        of = "the";
        name = "loss";
    }
    return err_set(e, ERR_INPUT,
                   "training diverged at step %zu (loss %g): first not finite: %s %s; try lower "
                   "learning rates or GRAD_CLIP_NORM",
                   s->opt.step + 1, st->loss, of, name);
}

/* ---- the update ---- */

/* The next stretch of this rank from *i on, or NULL. */
static const struct stretch *own_stretch(const struct step *s, size_t *i)
{
    while (*i < s->opt.p.stretches) {
        const struct stretch *t = &s->opt.p.stretch[(*i)++];
        if (t->owner == s->c->rank)
            return t;
    }
    return NULL;
}

static void scale_own(struct step *s, double factor)
{
    size_t i = 0;
    for (const struct stretch *t; (t = own_stretch(s, &i));)
        s->k->axpby(s->k, s->grads + t->at, s->grads + t->at, t->n, (float)factor, 0.0f);
}

static void average_own(struct step *s)
{
    size_t i = 0;
    for (const struct stretch *t; (t = own_stretch(s, &i));)
        optim_average(s->k, s->ema + t->local, s->params + t->at, t->n, s->m->r.ema_decay);
}

static enum err_code update(struct step *s, double lr_scale, double momentum, double norm,
                            struct err *e)
{
    const struct recipe *r = &s->m->r;
    double factor = step_clips_ranks(s) ? 1 : optim_clip_factor(norm, r->grad_clip_norm);
    if (factor < 1)
        scale_own(s, factor);
    optim_step(&s->opt, s->params, s->grads, lr_scale, momentum);
    enum err_code rc = spread_start(&s->spread, s->params, e);
    if (rc)
        return rc;
    if (s->ema)
        average_own(s);
    if ((rc = spread_wait(&s->spread, e)))
        return rc;
    return s->k->record ? ERR_OK : s->k->sync(s->k, e); /* the next step's sync */
}

/* ---- a step as one tape ---- */

bool step_start(struct step *s, double lr_scale, double momentum)
{
    if (!s->whole.on)
        return false;
    whole_start(s, lr_scale, momentum);
    return true;
}

/* Waits for the device: which piece is it whose gradient is not finite? */
static enum err_code whole_diverged(struct step *s, struct step_stats *st, struct err *e)
{
    s->k->download(s->k, s->tell + 1, s->sums, (s->told - 1) * sizeof *s->tell);
    s->tell[0] = 0;
    memcpy(s->heard, s->tell, s->told * sizeof *s->tell);
    size_t bad = conclude(s, st);
    return diverged(s, st, bad, e);
}

static enum err_code end_whole(struct step *s, double lr_scale, double momentum, unsigned trouble,
                               struct step_stats *st, struct err *e)
{
    bool go = false;
    st->trouble = trouble;
    if (trouble)
        return ERR_OK;
    if (!s->whole.started)
        whole_start(s, lr_scale, momentum);
    enum err_code rc = whole_end(s, st, &go, e);
    if (rc) {
        st->trouble = STEP_FAILED;
        return rc;
    }
    if (!go)
        return whole_diverged(s, st, e);
    s->opt.step++;
    return ERR_OK;
}

enum err_code step_end(struct step *s, double lr_scale, double momentum, unsigned trouble,
                       struct step_stats *st, struct err *e)
{
    double t0 = seconds_now();
    *st = (struct step_stats){0};
    if (s->whole.on)
        return end_whole(s, lr_scale, momentum, trouble, st, e);
    step_hold(s, false);
    enum err_code rc = reduce_end(&s->reduce, e), heard;
    if (rc)
        return rc;
    rc = sum_up(s, trouble, e);
    if ((heard = comm_gather(s->c, s->heard, s->tell, s->told * sizeof *s->tell, e)))
        return heard;
    size_t bad = conclude(s, st);
    if (st->trouble)
        return rc;
    if (!isfinite(st->loss) || !isfinite(st->grad_norm))
        return diverged(s, st, bad, e);
    rc = update(s, lr_scale, momentum, st->grad_norm, e);
    s->seconds[PHASE_OPTIMISER] += seconds_now() - t0;
    return rc;
}

void step_snapshot(struct step *s)
{
    size_t i = 0;
    s->snapshots++;
    if (!s->swa)
        return;
    for (const struct stretch *t; (t = own_stretch(s, &i));)
        s->k->add(s->k, s->swa + t->local, s->params + t->at, t->n);
}

enum err_code step_final(struct step *s, enum step_source *from, struct err *e)
{
    size_t floats = s->m->floats;
    *from = s->swa && s->snapshots ? STEP_SWA : s->ema ? STEP_EMA : STEP_WEIGHTS;
    if (*from == STEP_WEIGHTS) {
        s->k->copy(s->k, s->grads, s->params, floats * sizeof(float));
        return ERR_OK;
    }
    spread_unpack(&s->spread, s->grads, *from == STEP_SWA ? s->swa : s->ema);
    if (*from == STEP_SWA)
        scale_own(s, 1.0 / (double)s->snapshots);
    enum err_code rc = spread_start(&s->spread, s->grads, e);
    if (!rc)
        rc = spread_wait(&s->spread, e);
    optim_round(&s->opt, s->grads);
    return rc;
}
