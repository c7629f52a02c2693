/*
 * step_test.c - exists for the step that depends on how it is cut, that changes weights although a
 * gradient is broken, and for the allocation that fails in the middle of setting up.
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
    if (step_init(s, k, m, batch, &e) || init_params(m, p, &e))
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
    if (step_end(s, 1, 0.9, st, &e))
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
        /* The loss is a sum of the same numbers in the same order: the same bits. */
        if (memcmp(&st.loss, &whole.loss, sizeof st.loss) != 0 ||
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
        const struct gpt_param *p = gpt_find(&m, cases[c].where);
        e = (struct err){0};
        start(&s, k, &m, 8);
        one_step(&s, &st);
        step_begin(&s);
        s.loss_sum = 100;
        k->upload(k, (cases[c].in_grads ? s.grads : s.params) + p->at + p->size - 1, &bad,
                  sizeof bad);
        if (!cases[c].in_grads)
            s.loss_sum = (double)NAN;
        float *before = copy(k, s.params, m.floats), *ema = copy(k, s.ema, m.floats);
        enum err_code rc = step_end(&s, 1, 0.9, &st, &e);
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
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    real_alloc = k->alloc;
    k->alloc = failing_alloc;
    for (;; n++) {
        struct step s;
        e = (struct err){0};
        allocs_left = n;
        enum err_code rc = step_init(&s, k, &m, 2, &e);
        step_free(&s);
        if (rc == ERR_OK)
            break;
        if (rc != ERR_RESOURCE || !strstr(e.msg, "memory"))
            fail_msg("allocation %zu: status %d: %s", n, (int)rc, e.msg);
    }
    assert_true(n >= 7); /* activations, two states, scratch, weights, gradients, average */
    gpt_free(&m);
    kern_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
