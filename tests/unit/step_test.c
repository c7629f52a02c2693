/*
 * step_test.c - exists for the step that depends on how it is cut, that changes weights although a
 * gradient is broken, for rounded weights that leak into the real ones, for the average that is not
 * the one that was asked for, and for the allocation that fails in the middle of setting up.
 */
#include <math.h>

#include "tests/unit/toy_run.h"
#include "trainer/init.h"
#include "trainer/step.h"

static struct kern *cpu(void)
{
    struct kern *k;
    struct err e = {0};
    if (kern_cpu(&k, 2, &e))
        fail_msg("%s", e.msg);
    return k;
}

static void start(struct step *s, struct kern *k, const struct gpt *m, size_t batch)
{
    struct err e = {0};
    float *p = malloc(m->floats * sizeof *p);
    if (step_init(s, k, m, batch, NULL, &e) || init_params(m, p, &e))
        fail_msg("%s", e.msg);
    step_set(s, p);
    free(p);
}

/* One step over the same 128 tokens in micro-batches of `batch` sequences. */
static void one_step(struct step *s, struct step_stats *st)
{
    uint16_t tok[129], target[128];
    struct err e = {0};
    size_t n = s->batch * s->t;
    toy_stream(tok, 129, 5);
    memcpy(target, tok + 1, sizeof target);
    step_begin(s);
    for (size_t at = 0; at < 128; at += n)
        if (step_micro(s, tok + at, target + at, &e))
            fail_msg("%s", e.msg);
    if (step_end(s, 1, 0.9, 0, st, &e))
        fail_msg("%s", e.msg);
}

/* The loss is the same mean however the batch is cut, and so are the gradients, up to rounding. */
static void cuts(void **state)
{
    struct kern *k = cpu();
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    struct step_stats whole = {0};
    (void)state;
    toy_recipe(&r, "");
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    for (size_t batch = 8; batch; batch /= 2) {
        struct step s;
        struct step_stats st;
        start(&s, k, &m, batch);
        one_step(&s, &st);
        if (batch == 8)
            whole = st;
        /* The same numbers, added up in other brackets. */
        if (!(fabs(st.loss - whole.loss) < 1e-14 * whole.loss) ||
            !(fabs(st.grad_norm - whole.grad_norm) < 1e-5 * whole.grad_norm))
            fail_msg("%zu sequences: loss %.17g norm %.9g, whole: %.17g %.9g", batch, st.loss,
                     st.grad_norm, whole.loss, whole.grad_norm);
        assert_int_equal(s.opt.step, 1);
        step_free(&s);
        step_free(&s);
    }
    assert_true(whole.grad_norm > 0 && whole.loss > 0);
    gpt_free(&m);
    kern_free(k);
}

static float *copy(struct kern *k, const float *x, size_t n)
{
    float *p = malloc(n * sizeof *p);
    k->download(k, p, x, n * sizeof *p);
    return p;
}

/* A broken weight or gradient: named, and nothing moves. */
static void not_finite(void **state)
{
    static const struct {
        const char *name, *where, *msg;
        bool in_grads;
    } cases[] = {
        {"weight", "blocks.1.attn.c_k.weight", "weights blocks.1.attn.c_k.weight", false},
        {"gradient", "blocks.0.mlp.fc.weight", "gradient of blocks.0.mlp.fc.weight", true},
    };
    struct kern *k = cpu();
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    (void)state;
    toy_recipe(&r, "");
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    for (size_t c = 0; c < 2; c++) {
        struct step s;
        struct step_stats st;
        float bad = (float)HUGE_VAL;
        double no_loss = (double)NAN;
        const struct gpt_param *p = gpt_find(&m, cases[c].where);
        e = (struct err){0};
        start(&s, k, &m, 8);
        one_step(&s, &st);
        step_begin(&s);
        k->upload(k, (cases[c].in_grads ? s.grads : s.params) + p->at + p->size - 1, &bad,
                  sizeof bad);
        if (!cases[c].in_grads)
            k->upload(k, s.sums, &no_loss, sizeof no_loss);
        float *before = copy(k, s.params, m.floats), *ema = copy(k, s.ema, m.floats);
        enum err_code rc = step_end(&s, 1, 0.9, 0, &st, &e);
        if (rc != ERR_INPUT || !strstr(e.msg, cases[c].msg) || !strstr(e.msg, "step 2"))
            fail_msg("%s: status %d: %s", cases[c].name, (int)rc, e.msg);
        float *after = copy(k, s.params, m.floats), *ema_after = copy(k, s.ema, m.floats);
        assert_memory_equal(before, after, m.floats * sizeof *after);
        assert_memory_equal(ema, ema_after, m.floats * sizeof *ema);
        assert_int_equal(s.opt.step, 1);
        free(before);
        free(after);
        free(ema);
        free(ema_after);
        step_free(&s);
    }
    gpt_free(&m);
    kern_free(k);
}

/* GRAD_CLIP_SCOPE=rank: each half of the batch is a rank, whose mean gradient is clipped before the
 * two are averaged. The halves' own gradients say what that comes to. */
static void clip_of_ranks(void **state)
{
    struct kern *k = cpu();
    struct recipe r;
    struct gpt half, whole;
    struct err e = {0};
    uint16_t tok[129];
    (void)state;
    toy_stream(tok, 129, 5);
    toy_recipe(&r, "");
    toy_set(&r, "TRAIN_BATCH_TOKENS=64");
    assert_int_equal(gpt_init(&half, &r, &e), ERR_OK);
    float *g[2];
    double norm[2] = {0};
    for (size_t h = 0; h < 2; h++) {
        struct step s;
        start(&s, k, &half, 4);
        step_begin(&s);
        assert_int_equal(step_micro(&s, tok + 64 * h, tok + 64 * h + 1, &e), ERR_OK);
        g[h] = copy(k, s.grads, half.floats);
        for (size_t i = 0; i < half.floats; i++)
            norm[h] += (double)g[h][i] * (double)g[h][i];
        norm[h] = sqrt(norm[h]);
        step_free(&s);
    }
    toy_set(&r, "TRAIN_BATCH_TOKENS=128");
    toy_set(&r, "GRAD_CLIP_SCOPE=rank");
    toy_set(&r, "GRAD_RANKS=2");
    const double max[] = {0.5 * (norm[0] + norm[1]), 0.1 * norm[0], 10 * norm[0]};
    for (size_t c = 0; c < 3; c++) {
        struct step s;
        struct step_stats st;
        double want = 0;
        r.grad_clip_norm = max[c];
        assert_int_equal(gpt_init(&whole, &r, &e), ERR_OK);
        start(&s, k, &whole, 4);
        one_step(&s, &st);
        for (size_t i = 0; i < half.floats; i++) {
            double x = 0;
            for (size_t h = 0; h < 2; h++)
                x += 0.5 * fmin(1, max[c] / (norm[h] + 1e-6)) * (double)g[h][i];
            want += x * x;
        }
        if (!(fabs(st.grad_norm - sqrt(want)) < 1e-5 * sqrt(want)))
            fail_msg("clipped at %g (norms %g %g): %.9g, not %.9g", max[c], norm[0], norm[1],
                     st.grad_norm, sqrt(want));
        step_free(&s);
        gpt_free(&whole);
    }
    free(g[0]);
    free(g[1]);
    gpt_free(&half);
    kern_free(k);
}

/* ---- switches ---- */

/* As start, but no parameter is zero or one: a new model's projections would hide everything. */
static void start_random(struct step *s, struct kern *k, const struct gpt *m)
{
    struct rng g;
    float *p = malloc(m->floats * sizeof *p);
    start(s, k, m, 8);
    rng_seed(&g, 1, "step");
    for (size_t i = 0; i < m->floats; i++)
        p[i] = (float)(0.6 * rng_uniform(&g) - 0.3);
    step_set(s, p);
    free(p);
}

/* A step over the same 128 tokens in one micro-batch, without an update. */
static double gradients(struct step *s, float *grads)
{
    uint16_t tok[129], target[128];
    struct err e = {0};
    toy_stream(tok, 129, 5);
    memcpy(target, tok + 1, sizeof target);
    step_begin(s);
    if (step_micro(s, tok, target, &e))
        fail_msg("%s", e.msg);
    double loss;
    s->k->download(s->k, grads, s->grads, s->m->floats * sizeof *grads);
    s->k->download(s->k, &loss, s->sums, sizeof loss);
    return loss;
}

/* Late QAT is a step of a model whose covered weights are rounded, and the rounding shows nowhere
 * else: same loss, same gradients; the real weights stay. */
static void late_qat(void **state)
{
    static const struct {
        const char *name, *set[3];
        size_t covered; /* tensors: 12 matrices in two blocks, one projection */
    } cases[] = {
        {"all", {"LATE_QAT_SCOPE=all", "QUANT_KEEP_NUMEL=0"}, 13},
        {"without the small", {"LATE_QAT_SCOPE=all", "QUANT_KEEP_NUMEL=128"}, 8},
        {"projections", {"LATE_QAT_SCOPE=proj", "QUANT_KEEP_NUMEL=65536"}, 1},
        {"the record's floor", {"LATE_QAT_SCOPE=all", "QUANT_SCALE_FLOOR=1"}, 13},
        {"int4", {"LATE_QAT_SCOPE=all", "QUANT_BITS=4", "QUANT_KEEP_NUMEL=0"}, 13},
    };
    struct kern *k = cpu();
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct recipe r;
        struct gpt m;
        struct err e = {0};
        struct step s, ref;
        size_t covered = 0;
        toy_recipe(&r, "");
        toy_set(&r, "VE_ENABLED=1");
        toy_set(&r, "VE_LAYERS=1");
        toy_set(&r, "VE_DIM=10");
        toy_set(&r, "LATE_QAT_THRESHOLD=0.1");
        for (size_t i = 0; i < 3 && cases[c].set[i]; i++)
            toy_set(&r, cases[c].set[i]);
        assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
        assert_true(step_qat_possible(&m));
        start_random(&s, k, &m);
        start_random(&ref, k, &m);
        float *real = copy(k, s.params, m.floats), *w = copy(k, s.params, m.floats);
        float levels = (float)((1 << (r.quant_bits - 1)) - 1);
        for (size_t i = 0; i < m.nparams; i++) {
            const struct gpt_param *p = &m.param[i];
            if (!step_qat_covers(&r, p))
                continue;
            covered++;
            k->fake_quant(k, w + p->at, w + p->at, p->shape[0], p->shape[1], levels,
                          (float)r.quant_scale_floor);
        }
        if (covered != cases[c].covered)
            fail_msg("%s: %zu tensors", cases[c].name, covered);
        k->upload(k, ref.params, w, m.floats * sizeof *w);
        s.qat = true;
        float *got = malloc(m.floats * sizeof *got), *want = malloc(m.floats * sizeof *want);
        double loss = gradients(&s, got), ref_loss = gradients(&ref, want);
        if (memcmp(&loss, &ref_loss, sizeof loss) != 0 ||
            memcmp(got, want, m.floats * sizeof *got) != 0)
            fail_msg("%s: loss %.17g, of rounded weights %.17g", cases[c].name, loss, ref_loss);
        float *after = copy(k, s.params, m.floats);
        assert_memory_equal(real, after, m.floats * sizeof *real);
        free(real);
        free(w);
        free(got);
        free(want);
        free(after);
        step_free(&s);
        step_free(&ref);
        gpt_free(&m);
    }
    kern_free(k);
}

/* Switched over, the graph is that of a model with recurrence, and back. */
static void recurrence(void **state)
{
    struct kern *k = cpu();
    struct recipe r;
    struct gpt plain, twice;
    struct step s, ref;
    struct err e = {0};
    (void)state;
    toy_recipe(&r, "");
    toy_set(&r, "RECUR_LAYERS=1");
    assert_int_equal(gpt_init(&twice, &r, &e), ERR_OK);
    toy_set(&r, "RECUR_START_STEP=7");
    assert_int_equal(gpt_init(&plain, &r, &e), ERR_OK);
    start_random(&s, k, &plain);
    start_random(&ref, k, &twice);
    assert_true(!s.recur && ref.recur);
    float *got = malloc(plain.floats * sizeof *got), *want = malloc(plain.floats * sizeof *want);
    double first = gradients(&s, got), other = gradients(&ref, want);
    assert_true(first < other || first > other);
    assert_int_equal(step_recur(&s, true, &e), ERR_OK);
    assert_true(s.recur);
    double now = gradients(&s, got);
    assert_memory_equal(&now, &other, sizeof now);
    assert_memory_equal(got, want, plain.floats * sizeof *got);
    assert_int_equal(step_recur(&s, false, &e), ERR_OK);
    now = gradients(&s, got);
    assert_memory_equal(&now, &first, sizeof now);
    free(got);
    free(want);
    step_free(&s);
    step_free(&ref);
    gpt_free(&plain);
    gpt_free(&twice);
    kern_free(k);
}

/* Which weights a run comes to, and that the embedding among them is bf16 when it should be. */
static void final_weights(void **state)
{
    static const struct {
        const char *name, *set[3];
        size_t snapshots; /* taken of the weights times 1, 2, ... */
        enum step_source from;
        double factor; /* of the first weights */
    } cases[] = {
        {"weights", {"EMA_DECAY=0"}, 0, STEP_WEIGHTS, 1},
        {"EMA", {"EMA_DECAY=0.5"}, 0, STEP_EMA, 1},
        {"SWA", {"EMA_DECAY=0", "SWA_ENABLED=1"}, 3, STEP_SWA, 2},
        {"SWA wins", {"EMA_DECAY=0.5", "SWA_ENABLED=1"}, 3, STEP_SWA, 2},
        {"SWA without snapshots", {"EMA_DECAY=0.5", "SWA_ENABLED=1"}, 0, STEP_EMA, 1},
        {"SWA thrown away", {"EMA_DECAY=0.5", "SWA_ENABLED=1", "SWA_APPLY=0"}, 3, STEP_EMA, 1},
        {"bf16", {"EMA_DECAY=0", "SWA_ENABLED=1", "EMBED_BF16=1"}, 2, STEP_SWA, 1.5},
    };
    struct kern *k = cpu();
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct recipe r;
        struct gpt m;
        struct step s;
        struct err e = {0};
        toy_recipe(&r, "");
        for (size_t i = 0; i < 3 && cases[c].set[i]; i++)
            toy_set(&r, cases[c].set[i]);
        assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
        start(&s, k, &m, 2);
        float *first = copy(k, s.params, m.floats), *w = copy(k, s.params, m.floats);
        for (size_t i = 1; i <= cases[c].snapshots; i++) {
            for (size_t j = 0; j < m.floats; j++)
                w[j] = first[j] * (float)i;
            k->upload(k, s.params, w, m.floats * sizeof *w);
            step_snapshot(&s);
        }
        assert_int_equal(s.snapshots, cases[c].snapshots);
        enum step_source from;
        assert_int_equal(step_final(&s, &from, &e), ERR_OK);
        if (from != cases[c].from)
            fail_msg("%s: of another source", cases[c].name);
        k->download(k, w, s.grads, m.floats * sizeof *w);
        const struct gpt_param *embed = gpt_find(&m, "tok_emb.weight");
        for (size_t j = 0; j < m.floats; j++) {
            bool bf16 = r.embed_bf16 && j - embed->at < embed->size;
            double want = cases[c].factor * (double)first[j], tol = bf16 ? 0x1p-8 : 1e-6;
            uint32_t u;
            memcpy(&u, &w[j], sizeof u);
            if (!(fabs((double)w[j] - want) <= tol * fabs(want)) || (bf16 && (u & 0xffff)))
                fail_msg("%s: float %zu is %.9g, not %.9g", cases[c].name, j, (double)w[j], want);
        }
        step_set(&s, first);
        assert_true(s.snapshots == 0 && !s.qat && s.opt.step == 0);
        free(first);
        free(w);
        step_free(&s);
        gpt_free(&m);
    }
    kern_free(k);
}

/* ---- the n-th allocation of backend memory fails ---- */

static size_t allocs_left;
static void *(*real_alloc)(struct kern *k, size_t bytes);

static void *failing_alloc(struct kern *k, size_t bytes)
{
    return allocs_left-- ? real_alloc(k, bytes) : NULL;
}

static void no_memory(void **state)
{
    struct kern *k = cpu();
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    size_t n = 0;
    (void)state;
    toy_recipe(&r, "");
    toy_set(&r, "SWA_ENABLED=1");
    toy_set(&r, "LATE_QAT_THRESHOLD=0.1");
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    real_alloc = k->alloc;
    k->alloc = failing_alloc;
    for (;; n++) {
        struct step s;
        e = (struct err){0};
        allocs_left = n;
        enum err_code rc = step_init(&s, k, &m, 2, NULL, &e);
        step_free(&s);
        if (rc == ERR_OK)
            break;
        if (rc != ERR_RESOURCE || !strstr(e.msg, "memory"))
            fail_msg("allocation %zu: status %d: %s", n, (int)rc, e.msg);
    }
    /* activations, two states, weights, gradients, two averages, rounded weights */
    assert_true(n >= 8);
    gpt_free(&m);
    kern_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts),      cmocka_unit_test(not_finite), cmocka_unit_test(clip_of_ranks),
        cmocka_unit_test(late_qat),  cmocka_unit_test(recurrence), cmocka_unit_test(final_weights),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
