/*
 * init_test.c - exists for the seed that does not mean the same weights everywhere, and for the
 * "orthogonal" matrix that is not: a tall one, one of a single row, an odd number of elements.
 */
#include <math.h>

#include "tests/unit/toy_run.h"
#include "trainer/init.h"

/* State 1, 2, 3, 4: the first outputs of xoshiro256** as its authors' C code prints them. */
static void generator(void **state)
{
    static const uint64_t want[] = {11520,
                                    0,
                                    1509978240,
                                    1215971899390074240,
                                    1216172134540287360,
                                    607988272756665600,
                                    16172922978634559625u};
    struct rng g = {{1, 2, 3, 4}};
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        if (rng_next(&g) != want[i])
            fail_msg("output %zu", i);
}

static void moments(void **state)
{
    struct rng g;
    double sum[4] = {0}, z[2], n = 200000;
    (void)state;
    rng_seed(&g, 7, "moments");
    for (int i = 0; i < (int)n / 2; i++) {
        rng_normal(&g, z);
        for (int j = 0; j < 2; j++) {
            sum[0] += z[j];
            sum[1] += z[j] * z[j];
            sum[2] += z[j] * z[j] * z[j];
            sum[3] += z[j] * z[j] * z[j] * z[j];
        }
    }
    /* Five standard errors of each. */
    assert_true(fabs(sum[0] / n) < 5 / sqrt(n));
    assert_true(fabs(sum[1] / n - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(sum[2] / n) < 5 * sqrt(15 / n));
    assert_true(fabs(sum[3] / n - 3) < 5 * sqrt(96 / n));
}

static void orthogonal(void **state)
{
    static const struct {
        const char *name;
        size_t rows, cols;
    } cases[] = {{"one", 1, 1},   {"row", 1, 9},   {"column", 9, 1}, {"square", 33, 33},
                 {"wide", 8, 50}, {"tall", 50, 7}, {"real", 64, 192}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t rows = cases[c].rows, cols = cases[c].cols;
        bool tall = rows > cols;
        size_t count = tall ? cols : rows, len = tall ? rows : cols;
        float *w = malloc(rows * cols * sizeof *w);
        struct rng g;
        struct err e = {0};
        rng_seed(&g, 1, cases[c].name);
        assert_int_equal(init_orthogonal(&g, w, rows, cols, &e), ERR_OK);
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j <= i; j++) {
                double s = 0;
                for (size_t l = 0; l < len; l++)
                    s += tall ? (double)w[l * cols + i] * w[l * cols + j]
                              : (double)w[i * cols + l] * w[j * cols + l];
                if (!(fabs(s - (i == j)) < 1e-6))
                    fail_msg("%s: vectors %zu, %zu: product %g", cases[c].name, i, j, s);
            }
        free(w);
    }
}

static float *init(struct gpt *m, const struct recipe *r)
{
    struct err e = {0};
    if (gpt_init(m, r, &e))
        fail_msg("%s", e.msg);
    float *p = malloc(m->floats * sizeof *p);
    for (size_t i = 0; i < m->floats; i++)
        p[i] = NAN; /* whatever stays NaN was forgotten */
    if (init_params(m, p, &e))
        fail_msg("%s", e.msg);
    return p;
}

/* The root mean square that a parameter must start with. */
static double expected_rms(const struct recipe *r, const struct gpt_param *q)
{
    double rows = (double)q->shape[0], cols = (double)q->shape[1], longer = fmax(rows, cols);
    bool orthogonal = !strcmp(r->init, "orthogonal") && rows >= 64 && cols >= 64;
    switch (q->init) {
    case INIT_CONST:
        return fabs(q->value);
    case INIT_NORMAL:
        return q->value;
    case INIT_MIX:
        return sqrt(0.5);
    case INIT_MATRIX:
    case INIT_PROJ:
        break;
    }
    if (!orthogonal)
        return 1 / sqrt(3 * cols); /* uniform: bound / sqrt(3) */
    return 1 / sqrt(longer) /
           (q->init == INIT_PROJ && r->proj_depth_init ? sqrt(2 * (double)r->num_layers) : 1);
}

/* Every class of parameter, matrices with both sides of 64 and with one below. */
static void classes(void **state)
{
    static const char *const sets[][2] = {{"INIT=uniform", "PROJ_DEPTH_INIT=0"},
                                          {"INIT=orthogonal", "PROJ_DEPTH_INIT=0"},
                                          {"INIT=orthogonal", "PROJ_DEPTH_INIT=1"}};
    static const char *const model[] = {
        "MODEL_DIM=64",   "NUM_KV_HEADS=2",      "VE_ENABLED=1",   "VE_LAYERS=1",
        "VE_DIM=64",      "SMEAR_GATE=1",        "BIGRAM_DIM=128", "BIGRAM_VOCAB_SIZE=20",
        "QK_GAIN_INIT=5", "SKIP_GATES_ENABLED=1"};
    (void)state;
    for (size_t c = 0; c < sizeof sets / sizeof sets[0]; c++) {
        struct recipe r;
        struct gpt m;
        toy_recipe(&r, "");
        for (size_t i = 0; i < sizeof model / sizeof model[0]; i++)
            toy_set(&r, model[i]);
        toy_set(&r, sets[c][0]);
        toy_set(&r, sets[c][1]);
        float *p = init(&m, &r);
        assert_non_null(gpt_find(&m, "bigram.proj.weight"));
        for (size_t i = 0; i < m.nparams; i++) {
            const struct gpt_param *q = &m.param[i];
            double sumsq = 0, most = 0, want = expected_rms(&r, q);
            for (size_t j = 0; j < q->size; j++) {
                double v = p[q->at + j];
                if (!isfinite(v))
                    fail_msg("%s: element %zu is %g", q->name, j, v);
                sumsq += v * v;
                most = fabs(v) > most ? fabs(v) : most;
            }
            double rms = sqrt(sumsq / (double)q->size);
            if (!(fabs(rms - want) <= 0.12 * want))
                fail_msg("%s %s, %s: rms %g, expected about %g", sets[c][0], sets[c][1], q->name,
                         rms, want);
            if (q->init == INIT_MATRIX && c == 0 && most > 1 / sqrt((double)q->shape[1]))
                fail_msg("%s: %g is outside the bound", q->name, most);
            if (q->init == INIT_MIX && (p[q->at] != 1 || p[q->at + q->size - 1] != 0))
                fail_msg("%s: rows in the wrong order", q->name);
        }
        free(p);
        gpt_free(&m);
    }
}

/* One seed, one set of bits; another seed, others; a tensor does not care what else the model has.
 */
static void seeds(void **state)
{
    struct recipe r;
    struct gpt a, b;
    (void)state;
    toy_recipe(&r, "");
    float *pa = init(&a, &r), *pb = init(&b, &r);
    assert_memory_equal(pa, pb, a.floats * sizeof *pa);
    free(pb);
    gpt_free(&b);

    toy_set(&r, "NUM_LAYERS=3");
    pb = init(&b, &r);
    const struct gpt_param *qa = gpt_find(&a, "blocks.1.attn.c_v.weight"),
                           *qb = gpt_find(&b, "blocks.1.attn.c_v.weight");
    assert_memory_equal(pa + qa->at, pb + qb->at, qa->size * sizeof *pa);
    free(pb);
    gpt_free(&b);

    toy_set(&r, "SEED=1338");
    pb = init(&b, &r);
    qb = gpt_find(&b, "blocks.1.attn.c_v.weight");
    for (size_t i = 0; i < qa->size; i++)
        assert_true(pa[qa->at + i] < pb[qb->at + i] || pa[qa->at + i] > pb[qb->at + i]);
    free(pb);
    gpt_free(&b);
    free(pa);
    gpt_free(&a);
}

static void unknown(void **state)
{
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    float p[20000];
    (void)state;
    toy_recipe(&r, "");
    toy_set(&r, "INIT=glorot");
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    assert_true(m.floats < sizeof p / sizeof p[0]);
    assert_int_equal(init_params(&m, p, &e), ERR_USAGE);
    assert_non_null(strstr(e.msg, "glorot"));
    gpt_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generator), cmocka_unit_test(moments), cmocka_unit_test(orthogonal),
        cmocka_unit_test(classes),   cmocka_unit_test(seeds),   cmocka_unit_test(unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
