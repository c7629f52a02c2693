/* gpu_run.c - see gpu.h: whole training steps, and windows of scoring, with random tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gpu.h"
#include "model/score.h"
#include "trainer/init.h"
#include "trainer/step.h"

/* Dense bf16 of one H100 or H200, operations per second: what the records' MFU refers to. */
static const double PEAK = 989e12;
enum { STEPS = 5, BATCHES = 4 };

static uint16_t *tokens(const struct gpt *m, size_t n)
{
    uint16_t *x = malloc(n * sizeof *x);
    unsigned s = 1;
    if (!x)
        gpu_fail(ERR_RESOURCE, "no memory for the tokens");
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (uint16_t)((s >> 8) % (unsigned)m->r.vocab_size);
    }
    return x;
}

/* Model operations of one token, forward and backward: 6 per matrix weight, the head once, and
 * attention's causal half. Without recurrence, which is how a run begins. */
static double token_flops(const struct gpt *m)
{
    double weights = (double)(m->r.vocab_size * m->r.model_dim);
    double attention = 2.0 * (double)(m->r.model_dim * m->r.num_layers * (m->r.train_seq_len + 1));
    for (size_t i = 0; i < m->nparams; i++)
        if (m->param[i].cls == PARAM_MATRIX || m->param[i].cls == PARAM_PROJ)
            weights += (double)m->param[i].size;
    return 6 * weights + 3 * attention;
}

static void stage(struct step *s, const uint16_t *tok, size_t micros)
{
    struct err e = {0};
    enum err_code rc = ERR_OK;
    size_t n = s->batch * s->t;
    for (size_t i = 0; i < micros && !rc; i++)
        rc = step_micro(s, tok + i * n, tok + i * n + 1, &e);
    if (rc)
        gpu_fail(rc, e.msg);
}

/* As the trainer does it: the tokens of the next step come while the card works on this one.
 * *ahead: they are there. */
static void one_step(struct step *s, const uint16_t *tok, size_t micros, bool *ahead)
{
    struct step_stats st;
    struct err e = {0};
    if (!*ahead) {
        step_begin(s);
        stage(s, tok, micros);
    }
    if ((*ahead = step_start(s, 1, 0.95)))
        stage(s, tok, micros);
    enum err_code rc = step_end(s, 1, 0.95, 0, &st, &e);
    if (rc)
        gpu_fail(rc, e.msg);
}

static void steps(struct gpu *b, const struct gpt *m, size_t seqs, size_t micros,
                  const float *weights)
{
    struct step s;
    struct err e = {0};
    double best = 0;
    bool ahead = false;
    size_t n = seqs * (size_t)m->r.train_seq_len * micros;
    uint16_t *tok = tokens(m, n + 1);
    enum err_code rc = step_init(&s, b->k, m, seqs, NULL, &e);
    if (rc)
        gpu_fail(rc, e.msg);
    step_set(&s, weights);
    for (int i = 0; i < STEPS + 2; i++) { /* the first two choose algorithms and capture */
        double t0 = gpu_now();
        one_step(&s, tok, micros, &ahead);
        gpu_done(b);
        t0 = gpu_now() - t0;
        if (i == 2 || (i > 2 && t0 < best))
            best = t0;
    }
    double flops = (double)n * token_flops(m);
    printf(
        "step %zu x %zu x %lld tokens: best %.6f s, %.0f tokens/s, %.1f TFLOP/s, MFU %.3f of 989 "
        "TFLOP/s\n",
        micros, seqs, (long long)m->r.train_seq_len, best, (double)n / best, flops / best * 1e-12,
        flops / best / PEAK);
    fflush(stdout);
    step_free(&s);
    free(tok);
}

/* Seconds per window of one run over `count` windows, `batch` at a time. */
static double score(struct gpu *b, const struct gpt *m, const float *params, enum eval_mode mode,
                    size_t count, size_t batch)
{
    size_t len = (size_t)recipe_eval_len(&m->r), vocab = (size_t)m->r.vocab_size;
    size_t n = len + (count - 1) * (size_t)m->r.eval_stride;
    struct score_opts o = {.mode = mode, .batch = batch};
    struct score sc, record;
    struct byte_table t = {0};
    struct err e = {0};
    uint16_t *tok = tokens(m, n / len * len + 1);
    double t0;
    enum err_code rc;
    o.record = &record;
    t.vocab = vocab; /* every token stands for one byte */
    t.base = calloc(2, vocab);
    if (!t.base)
        gpu_fail(ERR_RESOURCE, "no memory for the byte table");
    t.flags = t.base + vocab;
    memset(t.base, 1, vocab);
    t0 = gpu_now();
    if ((rc = score_run(m, b->k, params, tok, n / len * len + 1, &t, &o, &sc, &e)))
        gpu_fail(rc, e.msg);
    gpu_done(b);
    t0 = gpu_now() - t0;
    struct window_list l = {.mode = mode, .total = n / len * len, .len = len};
    l.stride = (size_t)m->r.eval_stride;
    l.old = !strcmp(m->r.eval_windows, "old");
    bytes_free(&t);
    free(tok);
    return t0 / (double)window_count(&l);
}

/* Best of a few runs, each of several batches: the first one plans and chooses algorithms. */
static void windows(struct gpu *b, const struct gpt *m, const float *params, enum eval_mode mode,
                    size_t batch)
{
    double best = 0;
    for (int i = 0; i < 3; i++) {
        double s = score(b, m, params, mode, BATCHES * batch, batch);
        if (!i || s < best)
            best = s;
    }
    printf("%s windows of %zu, stride %lld, %zu at once: best %.6f s per window\n",
           eval_mode_name(mode), (size_t)recipe_eval_len(&m->r), (long long)m->r.eval_stride, batch,
           best);
    fflush(stdout);
}

void gpu_run(struct gpu *b, const char *recipe, size_t seqs, size_t micros, size_t batch)
{
    struct recipe r;
    struct gpt m = {0};
    struct err e = {0};
    enum err_code rc;
    recipe_init(&r);
    if ((rc = recipe_load(&r, recipe, &e)))
        gpu_fail(rc, e.msg);
    r.train_batch_tokens = r.train_seq_len * (int64_t)(seqs * micros);
    if ((rc = gpt_init(&m, &r, &e)))
        gpu_fail(rc, e.msg);
    size_t bytes = m.floats * sizeof(float);
    float *host = malloc(bytes), *params = b->k->alloc(b->k, bytes);
    if (!host || !params)
        gpu_fail(ERR_RESOURCE, "no memory for the weights");
    if ((rc = init_params(&m, host, &e)))
        gpu_fail(rc, e.msg);
    printf("%s: %zu parameters\n", recipe, m.floats);
    steps(b, &m, seqs, micros, host);
    b->k->upload(b->k, params, host, bytes);
    windows(b, &m, params, EVAL_SLIDING, batch);
    if (eval_mode_parse(r.eval_mode) == EVAL_SLOT)
        windows(b, &m, params, EVAL_SLOT, batch);
    b->k->free(b->k, params);
    free(host);
    gpt_free(&m);
}
