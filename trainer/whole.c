/* whole.c - see whole.h. */
#include "trainer/whole.h"

#include "trainer/step.h"

static size_t run_tokens(const struct step *s)
{
    return s->batch * s->t;
}

static struct graph_tokens tokens_of(const struct step *s, size_t micro)
{
    size_t n = run_tokens(s);
    uint16_t *at = s->whole.tokens + 3 * n * micro;
    return (struct graph_tokens){.ids = at, .hashed = at + n, .target = at + 2 * n};
}

enum err_code whole_init(struct step *s, struct err *e)
{
    struct whole *w = &s->whole;
    struct kern *k = s->k;
    size_t bytes = 3 * run_tokens(s) * s->micros * sizeof *w->tokens;
    if (!k->record || !k->blend || s->c->size > 1 || s->micros > WHOLE_MICROS)
        return ERR_OK;
    w->numbers = k->alloc(k, OPTIM_NUMBERS * sizeof *w->numbers);
    w->verdict = k->alloc(k, (2 * VERDICTS + 1) * sizeof *w->verdict);
    w->tokens = k->alloc(k, bytes);
    if (!w->numbers || !w->verdict || !w->tokens)
        return err_nomem(e, "tokens of a step", bytes);
    w->on = true;
    return ERR_OK;
}

void whole_forget(struct step *s)
{
    struct whole *w = &s->whole;
    if (w->tape)
        s->k->forget(s->k, w->tape);
    w->tape = NULL;
    w->carried_out = false;
}

void whole_free(struct step *s)
{
    struct whole *w = &s->whole;
    whole_forget(s);
    s->k->free(s->k, w->numbers);
    s->k->free(s->k, w->verdict);
    s->k->free(s->k, w->tokens);
    *w = (struct whole){0};
}

void whole_stage(struct step *s, const uint16_t *ids, const uint16_t *target)
{
    struct graph_tokens to = tokens_of(s, s->micro++);
    graph_stage(&s->g, &to, ids, target);
}

/* ---- what the tape consists of ---- */

/* GRAD_CLIP_SCOPE=rank, as clip_group of step.c: the group's gradient by its own norm. */
static void clip_group(struct step *s)
{
    struct kern *k = s->k;
    struct split_range micros;
    double *group = s->whole.verdict + VERDICTS, *square = group + VERDICTS;
    if (!reduce_closes(&s->reduce, &micros))
        return;
    k->sumsq_into(k, square, s->grads, s->m->floats);
    optim_judge(k, &(struct kern_verdict){.square = square,
                                          .squares = 1,
                                          .scale = (double)s->micros / (double)micros.count,
                                          .max = s->m->r.grad_clip_norm,
                                          .out = group});
    const struct kern_dial clip = {group + VERDICT_CLIP, 0, 1}, none = kern_fixed(0);
    k->blend(k, s->grads, s->grads, s->m->floats, &clip, &none, NULL);
}

static void gradients(struct step *s)
{
    const struct recipe *r = &s->m->r;
    const float *params = step_weights(s);
    reduce_begin(&s->reduce);
    for (size_t i = 0; i < s->micros; i++) {
        const struct graph_tokens from = tokens_of(s, i);
        graph_train_staged(&s->g, params, &from, s->grads,
                           (float)(1.0 / (double)r->train_batch_tokens), s->sums + i);
        if (step_clips_ranks(s))
            clip_group(s);
        reduce_micro(&s->reduce);
    }
    struct err never = {0};
    reduce_end(&s->reduce, &never); /* alone: nothing that could fail */
}

static void judge(struct step *s)
{
    double *squares = step_squares(s);
    optim_judge(s->k,
                &(struct kern_verdict){.loss = s->sums,
                                       .losses = s->micros,
                                       .square = squares,
                                       .squares = s->opt.p.pieces,
                                       .scale = 1,
                                       .max = step_clips_ranks(s) ? 0 : s->m->r.grad_clip_norm,
                                       .out = s->whole.verdict});
}

static void update(struct step *s)
{
    struct kern *k = s->k;
    const double *verdict = s->whole.verdict, *go = verdict + VERDICT_GO;
    const struct kern_dial clip = {verdict + VERDICT_CLIP, 0, 1}, none = kern_fixed(0);
    double decay = s->m->r.ema_decay;
    const struct kern_dial old = kern_fixed(decay), new = kern_fixed(1.0 - decay);
    if (s->m->r.grad_clip_norm > 0 && !step_clips_ranks(s))
        k->blend(k, s->grads, s->grads, s->m->floats, &clip, &none, go);
    optim_queue(&s->opt, s->params, s->grads, s->whole.numbers, go);
    if (s->ema) /* alone: packed as the block is */
        k->blend(k, s->ema, s->params, s->m->floats, &old, &new, go);
}

static void queue(struct step *s)
{
    step_hold(s, true);
    gradients(s);
    step_hold(s, false);
    judge(s);
    update(s);
}

/* ---- a step ---- */

static bool play(struct step *s)
{
    struct whole *w = &s->whole;
    struct kern *k = s->k;
    if (w->qat != s->qat)
        whole_forget(s);
    if (!w->carried_out)
        return false;
    if (!w->tape && k->record(k)) {
        queue(s);
        w->tape = k->recorded(k);
    }
    return w->tape && k->play(k, w->tape);
}

void whole_start(struct step *s, double lr_scale, double momentum)
{
    struct whole *w = &s->whole;
    double numbers[OPTIM_NUMBERS];
    optim_numbers(&s->opt, lr_scale, momentum, numbers);
    s->k->upload(s->k, w->numbers, numbers, sizeof numbers);
    if (play(s))
        w->played++;
    else
        queue(s);
    w->carried_out = true;
    w->qat = s->qat;
    w->steps++;
    w->started = true;
    s->micro = 0;
}

enum err_code whole_end(struct step *s, struct step_stats *st, bool *go, struct err *e)
{
    double verdict[VERDICTS] = {0};
    s->k->download(s->k, verdict, s->whole.verdict, sizeof verdict);
    s->whole.started = false;
    st->loss = verdict[VERDICT_LOSS] / (double)s->m->r.train_batch_tokens;
    st->grad_norm = verdict[VERDICT_NORM];
    *go = verdict[VERDICT_GO] != 0;
    return s->k->sync(s->k, e);
}
