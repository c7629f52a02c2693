/*
 * hessian_test.c - exists for calibration that looks reasonable and is not X^T X: inputs of another
 * layer, a pass of a recurrent block that is forgotten, matrices shared by layers that read
 * different values, sums that change with the number of threads.
 *
 * Inputs of q, k, v and fc are RMS-normalised and scaled by 1/sqrt(l+1), so the trace of their
 * Hessian is known: tokens of a batch * dim / (l+1), once per pass of the block.
 */
#include <math.h>
#include <string.h>

#include "tests/unit/tiny.h"
#include "trainer/hessian.h"

#define RECIPE                                                                                     \
    "NUM_LAYERS=3\nRECUR_LAYERS=1\nLN_SCALE=1\nGPTQ_CALIB_BATCHES=2\nGPTQ_BATCH_TOKENS=48\n"
enum { TOKENS = 48, BATCHES = 2 };

struct stream {
    const uint16_t *tok;
    size_t batches; /* left */
};

static enum err_code take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    struct stream *s = ctx;
    if (!s->batches)
        return err_set(e, ERR_INPUT, "the stream is over");
    s->batches--;
    memcpy(ids, s->tok, n * sizeof *ids);
    s->tok += n;
    return ERR_OK;
}

static enum err_code collect(struct hessians *hs, struct tiny *t, size_t batches, struct err *e)
{
    uint16_t *tok = tiny_tokens(t, TOKENS * BATCHES, 3);
    struct stream s = {tok, batches};
    struct calib c = {.k = t->k, .take = take, .ctx = &s};
    enum err_code rc = hessian_collect(hs, &t->m, t->params, &t->m.r, &c, e);
    free(tok);
    return rc;
}

static const struct hessian *of(const struct hessians *hs, const struct tiny *t, const char *name)
{
    const struct gpt_param *p = gpt_find(&t->m, name);
    const struct hessian *h = p ? hessian_find(hs, p->at) : NULL;
    if (!h)
        fail_msg("%s: no Hessian", name);
    return h;
}

static void test_traces(void **state)
{
    (void)state;
    struct tiny t = tiny_open(RECIPE, 2, 1);
    struct hessians hs;
    struct err e = {0};
    if (collect(&hs, &t, BATCHES, &e))
        fail_msg("%s", e.msg);
    for (size_t l = 0; l < 3; l++)
        for (size_t i = 0; i < 4; i++) {
            static const char *const what[] = {"attn.c_q", "attn.c_k", "attn.c_v", "mlp.fc"};
            char name[64];
            snprintf(name, sizeof name, "blocks.%zu.%s.weight", l, what[i]);
            double got = of(&hs, &t, name)->trace;
            double want = (l == 1 ? 2.0 : 1.0) * TOKENS * 24 / (double)(l + 1);
            if (!(fabs(got / want - 1) < 1e-4))
                fail_msg("%s: trace %.7g, expected %.7g", name, got, want);
        }
    hessian_free(&hs);
    tiny_close(&t);
}

/* Every matrix of a block has one, symmetric, of its own width; q, k and v share theirs, and no
 * others do. */
static void test_layers(void **state)
{
    (void)state;
    struct tiny t = tiny_open(RECIPE, 1, 2);
    struct hessians hs;
    struct err e = {0};
    size_t shared = 0;
    if (collect(&hs, &t, BATCHES, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < t.m.nparams; i++) {
        const struct gpt_param *p = &t.m.param[i];
        if (p->cls != PARAM_MATRIX)
            continue;
        const struct hessian *h = of(&hs, &t, p->name);
        const float *x = hessian_matrix(&hs, h);
        double trace = 0;
        if (h->n != p->shape[1])
            fail_msg("%s: %zu inputs, expected %zu", p->name, h->n, p->shape[1]);
        for (size_t a = 0; a < h->n; a++)
            for (size_t b = 0; b < h->n; b++) {
                trace += a == b ? (double)x[a * h->n + b] : 0;
                assert_true(x[a * h->n + b] == x[b * h->n + a]);
            }
        assert_true(trace == h->trace);
        bool follows = strstr(p->name, "c_k") || strstr(p->name, "c_v");
        if (follows != (hs.of[h->same_as].w != (ptrdiff_t)p->at))
            fail_msg("%s: %s", p->name, follows ? "does not share" : "shares another's");
        shared += follows;
    }
    assert_int_equal(shared, 6);
    hessian_free(&hs);
    tiny_close(&t);
}

/* One number of threads and instruction set is as good as another. */
static void test_same_bits(void **state)
{
    (void)state;
    static const struct {
        const char *isa;
        size_t threads;
    } cases[] = {{NULL, 1}, {NULL, 2}, {NULL, 7}, {"portable", 2}};
    struct hessians first = {0};
    for (size_t c = 0; c < COUNT(cases); c++) {
        if (cases[c].isa)
            setenv("KERN_ISA", cases[c].isa, 1);
        struct tiny t = tiny_open(RECIPE, cases[c].threads, 3);
        unsetenv("KERN_ISA");
        struct hessians hs;
        struct err e = {0};
        if (collect(&hs, &t, BATCHES, &e))
            fail_msg("%s", e.msg);
        for (size_t i = 0; i < first.count; i++)
            if (first.of[i].h &&
                memcmp(first.of[i].h, hs.of[i].h, hs.of[i].n * hs.of[i].n * sizeof(float)))
                fail_msg("%s, %zu threads: layer %zu has other bits", t.k->name, cases[c].threads,
                         i);
        if (c == 0)
            first = hs;
        else
            hessian_free(&hs);
        tiny_close(&t);
    }
    hessian_free(&first);
}

/* GPTQ_COLLECT_DAMP: so much of the diagonal's mean on top, nothing beside the diagonal. */
static void test_damp(void **state)
{
    (void)state;
    struct hessians hs[2];
    for (size_t c = 0; c < 2; c++) {
        struct tiny t = tiny_open(c ? RECIPE "GPTQ_COLLECT_DAMP=0.25\n" : RECIPE, 1, 4);
        struct err e = {0};
        if (collect(&hs[c], &t, BATCHES, &e))
            fail_msg("%s", e.msg);
        tiny_close(&t);
    }
    for (size_t i = 0; i < hs[0].count; i++) {
        const struct hessian *a = &hs[0].of[i], *b = &hs[1].of[i];
        if (!(fabs(b->trace / a->trace - 1.25) < 1e-5))
            fail_msg("layer %zu: trace %g became %g", i, a->trace, b->trace);
        for (size_t j = 0; a->h && j < a->n * a->n; j++)
            assert_true(j % (a->n + 1) == 0 || a->h[j] == b->h[j]);
    }
    hessian_free(&hs[0]);
    hessian_free(&hs[1]);
}

static void test_failures(void **state)
{
    (void)state;
    struct tiny t = tiny_open(RECIPE, 1, 5);
    struct hessians hs;
    struct err e = {0};
    EXPECT("stream too short", ERR_INPUT, "the stream is over", collect(&hs, &t, 1, &e), e);
    assert_int_equal(hs.count, 0);
    t.m.r.gptq_batch_tokens = 40;
    e = (struct err){0};
    EXPECT("part of a sequence", ERR_USAGE, "GPTQ_BATCH_TOKENS=40", collect(&hs, &t, 1, &e), e);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traces),    cmocka_unit_test(test_layers),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_damp),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
