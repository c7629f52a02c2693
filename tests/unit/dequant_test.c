/*
 * dequant_test.c - exists for weights that the loader of a submission computes otherwise than the
 * quantiser meant them: another order of products, a trellis that runs along the wrong axis or does
 * not pass plain rows by; and for damaged tensors that are believed.
 */
#include <math.h>

#include "model/dequant.h"
#include "tests/unit/tiny.h"

struct matrix {
    size_t rows, cols;
    int8_t q[24 * 150], rexp[24], cexp[150];
    float step[2], w[24 * 150];
};

static void fill(struct matrix *m, size_t rows, size_t cols, unsigned states, uint64_t *seed)
{
    *m = (struct matrix){.rows = rows, .cols = cols, .step = {0.0123f, (float)states}};
    for (size_t i = 0; i < rows * cols; i++)
        m->q[i] = (int8_t)util_below(seed, 256);
    for (size_t i = 0; i < rows; i++)
        m->rexp[i] = (int8_t)((int)util_below(seed, 80) - 40);
    for (size_t j = 0; j < cols; j++)
        m->cexp[j] = (int8_t)((int)util_below(seed, 80) - 40);
}

static void run(struct matrix *m)
{
    dequant(m->w, &(struct dequant){.q = m->q,
                                    .rexp = m->rexp,
                                    .cexp = m->cexp,
                                    .rows = m->rows,
                                    .cols = m->cols,
                                    .c = m->step[0],
                                    .states = (unsigned)m->step[1]});
}

/* One column after another, as stub/trellis.h says it. */
static void check(const struct matrix *m, const char *what)
{
    struct trellis code = trellis_code((unsigned)m->step[1]);
    for (size_t j = 0; j < m->cols; j++) {
        unsigned s = 0;
        for (size_t i = 0; i < m->rows; i++) {
            int k = m->q[i * m->cols + j];
            float level = (float)k;
            if (m->step[1] > 0 && !(m->rexp[i] & 1) && !(m->cexp[j] & 1)) {
                level = 0.5f * (float)(2 * k + (int)(s & 1));
                s = trellis_next(code, s, k);
            }
            int re = (m->rexp[i] - (m->rexp[i] & 1)) / 2, ce = (m->cexp[j] - (m->cexp[j] & 1)) / 2;
            double want = (double)level * (double)m->step[0] * exp2((re + ce) / 4.0);
            float rstep = m->step[0] * step_pow(re), got = m->w[i * m->cols + j];
            if (got != level * rstep * step_pow(ce) ||
                fabs((double)got - want) > 1e-6 * fabs(want) + 1e-30)
                fail_msg("%s: [%zu][%zu] is %g, not %g", what, i, j, (double)got, want);
        }
    }
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t rows, cols;
        unsigned states;
    } cases[] = {
        {"plain", 24, 130, 0}, {"4 states", 24, 130, 4},  {"256 states", 24, 150, 256},
        {"one row", 1, 64, 8}, {"one column", 24, 1, 64}, {"a block and one", 3, 65, 128},
    };
    static struct matrix m;
    uint64_t seed = 3;
    for (size_t i = 0; i < COUNT(cases); i++) {
        fill(&m, cases[i].rows, cases[i].cols, cases[i].states, &seed);
        run(&m);
        check(&m, cases[i].what);
    }
}

/* Four tensors in place of one of a model's, and what is wrong with them. */
static void test_load(void **state)
{
    (void)state;
    struct tiny t = tiny_open("", 1, 4);
    const char *name = "blocks.1.mlp.proj.weight"; /* 24 x 48 */
    const struct gpt_param *p = gpt_find(&t.m, name);
    struct tensor_view *v = calloc(t.m.nparams + 3, sizeof *v);
    static struct matrix m;
    uint64_t seed = 8;
    size_t n = 0;
    float *out = malloc(t.m.floats * sizeof *out);
    assert_non_null(p);
    fill(&m, p->shape[0], p->shape[1], 64, &seed);
    run(&m);
    for (size_t i = 0; i < t.m.nparams; i++) {
        const struct gpt_param *o = &t.m.param[i];
        if (o == p)
            continue;
        v[n] = (struct tensor_view){.name = o->name, .dtype = ST_F32, .ndim = o->ndim};
        memcpy(v[n].shape, o->shape, sizeof o->shape);
        v[n].nbytes = 4 * o->size;
        v[n++].data = (const uint8_t *)(t.params + o->at);
    }
    const struct tensor_view good[4] = {
        {"blocks.1.mlp.proj.weight.q", ST_I8, 2, {24, 48}, (const uint8_t *)m.q, p->size},
        {"blocks.1.mlp.proj.weight.rexp", ST_I8, 1, {24}, (const uint8_t *)m.rexp, 24},
        {"blocks.1.mlp.proj.weight.cexp", ST_I8, 1, {48}, (const uint8_t *)m.cexp, 48},
        {"blocks.1.mlp.proj.weight.step", ST_F32, 1, {2}, (const uint8_t *)m.step, 8},
    };
    struct err e = {0};
    memcpy(v + n, good, sizeof good);
    if (gpt_load(&t.m, out, v, n + 4, "f", &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(out + p->at, m.w, p->size * sizeof *out);
    static const struct {
        const char *what;
        size_t which, shape;
        enum st_dtype dtype;
        float step[2];
    } bad[] = {
        {"5 states", 3, 2, ST_F32, {1, 5}},
        {"512 states", 3, 2, ST_F32, {1, 512}},
        {"-4 states", 3, 2, ST_F32, {1, -4}},
        {"4.5 states", 3, 2, ST_F32, {1, 4.5f}},
        {"1e30 states", 3, 2, ST_F32, {1, 1e30f}},
        {"NaN states", 3, 2, ST_F32, {1, NAN}},
        {"infinite step", 3, 2, ST_F32, {INFINITY, 4}},
        {"NaN step", 3, 2, ST_F32, {NAN, 4}},
        {"step as F16", 3, 2, ST_F16, {1, 4}},
        {"one step", 3, 1, ST_F32, {1, 4}},
        {"short rexp", 1, 23, ST_I8, {1, 4}},
        {"long cexp", 2, 49, ST_I8, {1, 4}},
        {"cexp as U8", 2, 48, ST_U8, {1, 4}},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct tensor_view *x = &v[n + bad[i].which];
        memcpy(v + n, good, sizeof good);
        memcpy(m.step, bad[i].step, sizeof m.step);
        x->dtype = bad[i].dtype;
        x->shape[0] = bad[i].shape;
        e = (struct err){0};
        if (gpt_load(&t.m, out, v, n + 4, "f", &e) != ERR_INPUT || !strstr(e.msg, name))
            fail_msg("%s: %s", bad[i].what, e.msg);
    }
    free(out);
    free(v);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
