/*
 * gptq_test.c - exists for integers that look quantised but are not GPTQ's: a permutation undone
 * the wrong way, an error that a block hands to the wrong columns, a dead input that moves others,
 * a percentile that wins a tie. Checked against the plain algorithm of the paper: inverse by
 * elimination, Cholesky of the inverse, one column after another, no blocks.
 */
#include <math.h>
#include <string.h>

#include "tests/unit/util.h"
#include "trainer/gptq.h"

/* ---- data ---- */

/* Inputs that are correlated and of different size; `dead` columns are never used. */
static float *random_hessian(size_t n, size_t rows, size_t dead, uint64_t seed)
{
    float *h = calloc(n * n, sizeof *h), *x = malloc(n * sizeof *x);
    for (size_t r = 0; r < rows; r++) {
        double last = 0;
        for (size_t j = 0; j < n; j++) {
            last = 0.7 * last + util_uniform(&seed);
            x[j] = (float)(last * (1 + (double)(j * 7 % n) / (double)n));
        }
        for (size_t d = 0; d < dead; d++)
            x[(3 + 5 * d) % n] = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                h[i * n + j] += x[i] * x[j];
    }
    for (size_t i = 0; i < n; i++) /* symmetric to the last bit */
        for (size_t j = 0; j < i; j++)
            h[i * n + j] = h[j * n + i];
    free(x);
    return h;
}

static float *random_weights(size_t n, double size, uint64_t seed)
{
    float *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++) {
        double x = util_uniform(&seed) + util_uniform(&seed);
        w[i] = (float)(x * size * (util_below(&seed, 100) == 0 ? 5 : 1));
    }
    return w;
}

/* ---- the twin ---- */

struct plain {
    size_t n, *perm;
    bool *dead;
    double *u; /* [n][n] */
};

/* Inverse by Gauss-Jordan without pivoting, which a positive definite matrix does not need. */
static void invert(double *a, size_t n)
{
    double *inv = calloc(n * n, sizeof *inv);
    for (size_t i = 0; i < n; i++)
        inv[i * n + i] = 1;
    for (size_t p = 0; p < n; p++) {
        double d = a[p * n + p];
        for (size_t j = 0; j < n; j++) {
            a[p * n + j] /= d;
            inv[p * n + j] /= d;
        }
        for (size_t i = 0; i < n; i++) {
            double f = a[i * n + p];
            for (size_t j = 0; i != p && j < n; j++) {
                a[i * n + j] -= f * a[p * n + j];
                inv[i * n + j] -= f * inv[p * n + j];
            }
        }
    }
    memcpy(a, inv, n * n * sizeof *a);
    free(inv);
}

static struct plain plain_factor(const float *h, size_t n, double damp)
{
    struct plain f = {n, malloc(n * sizeof *f.perm), calloc(n, sizeof *f.dead),
                      calloc(n * n, sizeof *f.u)};
    double *d = malloc(n * sizeof *d), *a = malloc(n * n * sizeof *a), mean = 0;
    for (size_t i = 0; i < n; i++) {
        f.dead[i] = h[i * n + i] == 0;
        d[i] = f.dead[i] ? 1 : (double)h[i * n + i];
        mean += d[i] / (double)n;
        f.perm[i] = i;
    }
    for (size_t i = 0; i < n; i++)
        d[i] = (double)((float)d[i] + (float)(damp * mean));
    for (size_t i = 1; i < n; i++) /* insertion sort: stable, largest first */
        for (size_t j = i; j > 0 && d[f.perm[j - 1]] < d[f.perm[j]]; j--) {
            size_t t = f.perm[j];
            f.perm[j] = f.perm[j - 1];
            f.perm[j - 1] = t;
        }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            a[i * n + j] = i == j ? d[f.perm[i]] : (double)h[f.perm[i] * n + f.perm[j]];
    invert(a, n);
    for (size_t i = 0; i < n; i++) /* U^T U = inverse, row by row */
        for (size_t j = i; j < n; j++) {
            double x = a[i * n + j];
            for (size_t p = 0; p < i; p++)
                x -= f.u[p * n + i] * f.u[p * n + j];
            f.u[i * n + j] = i == j ? sqrt(x) : x / f.u[i * n + i];
        }
    free(a);
    free(d);
    return f;
}

static void plain_free(struct plain *f)
{
    free(f->perm);
    free(f->dead);
    free(f->u);
}

/* One row; returns the squared error against the row itself, dead columns as zeros. */
static double plain_row(int8_t *q, const float *w, float scale, const struct plain *f, int levels)
{
    size_t n = f->n;
    double *x = malloc(n * sizeof *x), sum = 0;
    for (size_t j = 0; j < n; j++)
        x[j] = f->dead[f->perm[j]] ? 0 : (double)w[f->perm[j]];
    for (size_t j = 0; j < n; j++) {
        double v = rint(x[j] / (double)scale);
        v = fmin(fmax(v, -levels), levels);
        q[f->perm[j]] = (int8_t)v;
        double e = (x[j] - v * (double)scale) / f->u[j * n + j];
        for (size_t c = j; c < n; c++)
            x[c] -= e * f->u[j * n + c];
        double want = f->dead[f->perm[j]] ? 0 : (double)w[f->perm[j]];
        sum += pow(want - v * (double)scale, 2);
    }
    free(x);
    return sum;
}

static void plain_matrix(int8_t *q, uint16_t *scale, const float *w, size_t rows,
                         const struct plain *f, const struct quant_how *how, size_t *winner)
{
    size_t n = f->n;
    float *work = malloc(quant_quantile_work(n, quant_pct[0]) * sizeof *work);
    int8_t *trial = malloc(rows * n);
    uint16_t *s = malloc(rows * sizeof *s);
    int levels = quant_levels(how->bits);
    double best = INFINITY;
    *winner = 0;
    for (size_t p = 0; p < QUANT_PCTS; p++) {
        double err = 0;
        for (size_t r = 0; r < rows; r++) {
            float clip = quant_abs_quantile(w + r * n, n, quant_pct[p], work);
            s[r] = how->clip == QUANT_CLIP_ROW ? scale[r]
                                               : f32_to_f16(quant_scale(clip, levels, how->floor));
            err += plain_row(trial + r * n, w + r * n, f16_to_f32(s[r]), f, levels);
        }
        if (err < best) {
            best = err;
            *winner = p;
            memcpy(q, trial, rows * n);
            memcpy(scale, s, rows * sizeof *s);
        }
    }
    free(s);
    free(trial);
    free(work);
}

/* ---- tests ---- */

static const struct {
    const char *name;
    size_t rows, n, dead;
    struct quant_how how;
    double size;
} cases[] = {
    {"one weight", 1, 1, 0, {6, QUANT_CLIP_TENSOR, 1}, 0.5},
    {"one column dead", 3, 4, 1, {6, QUANT_CLIP_TENSOR, 1}, 0.5},
    {"all dead", 3, 1, 1, {6, QUANT_CLIP_TENSOR, 1}, 0.5},
    {"a block exactly", 5, 16, 0, {6, QUANT_CLIP_TENSOR, 1}, 0.5},
    {"below the floor", 7, 33, 2, {6, QUANT_CLIP_TENSOR, 1}, 0.3},
    {"above the floor", 9, 40, 3, {6, QUANT_CLIP_TENSOR, 1}, 4},
    {"int5", 9, 40, 3, {5, QUANT_CLIP_TENSOR, 1}, 4},
    {"no floor", 66, 50, 0, {6, QUANT_CLIP_TENSOR, 0}, 0.05},
    {"two chunks of rows", 130, 37, 1, {4, QUANT_CLIP_TENSOR, 0}, 1},
    {"row clips", 65, 45, 2, {6, QUANT_CLIP_ROW, 0}, 0.2},
    {"row clips, 3 bits", 5, 70, 0, {3, QUANT_CLIP_ROW, 0}, 0.2},
    {"several blocks of the factor", 4, 150, 4, {6, QUANT_CLIP_TENSOR, 1}, 2},
};

/* The same integers, scales and winner, whatever the block size. */
static void test_twin(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        size_t rows = cases[c].rows, n = cases[c].n;
        float *h = random_hessian(n, 3 * n, cases[c].dead, c + 1);
        float *w = random_weights(rows * n, cases[c].size, c + 50);
        int8_t *q = malloc(rows * n), *want = malloc(rows * n);
        uint16_t *s = malloc(rows * sizeof *s), *ws = malloc(rows * sizeof *ws);
        struct plain plain = plain_factor(h, n, 0.01);
        struct gptq_factor f;
        struct quant_search found;
        struct err e = {0};
        size_t winner;
        if (gptq_factor_init(&f, h, n, 0.01, "case", &e) || !f.definite)
            fail_msg("%s: no factor: %s", cases[c].name, e.msg);
        assert_memory_equal(f.perm, plain.perm, n * sizeof *f.perm);
        quant_matrix(want, ws, w, rows, n, &cases[c].how, "case", NULL, &e); /* row scales */
        plain_matrix(want, ws, w, rows, &plain, &cases[c].how, &winner);
        static const size_t blocks[] = {1, 16, 128, 1000};
        for (size_t b = 0; b < COUNT(blocks); b++) {
            memset(q, 77, rows * n);
            if (gptq_matrix(q, s, w, rows, &f, &cases[c].how, blocks[b], "case", &found, &e))
                fail_msg("%s: %s", cases[c].name, e.msg);
            for (size_t i = 0; i < rows * n; i++)
                if (q[i] != want[i])
                    fail_msg("%s, blocks of %zu: q[%zu][%zu] %d, expected %d", cases[c].name,
                             blocks[b], i / n, i % n, q[i], want[i]);
            assert_memory_equal(s, ws, rows * sizeof *s);
            assert_int_equal(found.winner, cases[c].how.clip == QUANT_CLIP_ROW ? 0 : winner);
        }
        plain_free(&plain);
        gptq_factor_free(&f);
        free(ws);
        free(s);
        free(want);
        free(q);
        free(w);
        free(h);
    }
}

static double weighted_error(const float *h, const float *w, const int8_t *q, const uint16_t *s,
                             size_t rows, size_t n)
{
    double sum = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double x = (double)f16_to_f32(s[r]);
                sum += ((double)w[r * n + i] - q[r * n + i] * x) * (double)h[i * n + j] *
                       ((double)w[r * n + j] - q[r * n + j] * x);
            }
    return sum;
}

/* What it is for: the error of the layer's output is well below that of rounding. Dead inputs
 * become 0. */
static void test_purpose(void **state)
{
    (void)state;
    enum { ROWS = 20, N = 96 };
    static const struct quant_how how[] = {
        {6, QUANT_CLIP_TENSOR, 1}, {4, QUANT_CLIP_TENSOR, 0}, {5, QUANT_CLIP_ROW, 0}};
    for (size_t c = 0; c < COUNT(how); c++) {
        float *h = random_hessian(N, 400, 2, 8), *w = random_weights(ROWS * N, 0.5, 9);
        int8_t q[ROWS * N], rounded[ROWS * N];
        uint16_t s[ROWS], rs[ROWS];
        struct gptq_factor f;
        struct err e = {0};
        if (gptq_factor_init(&f, h, N, 0.01, "case", &e) ||
            gptq_matrix(q, s, w, ROWS, &f, &how[c], 32, "case", NULL, &e) ||
            quant_matrix(rounded, rs, w, ROWS, N, &how[c], "case", NULL, &e))
            fail_msg("%s", e.msg);
        double ours = weighted_error(h, w, q, s, ROWS, N);
        double plain = weighted_error(h, w, rounded, rs, ROWS, N);
        if (!(ours < 0.8 * plain))
            fail_msg("setting %zu: error %g, rounding alone %g", c, ours, plain);
        for (size_t r = 0; r < ROWS; r++)
            if (q[r * N + 3] || q[r * N + 8])
                fail_msg("row %zu: dead columns hold %d and %d", r, q[r * N + 3], q[r * N + 8]);
        gptq_factor_free(&f);
        free(h);
        free(w);
    }
}

/* Without a usable Hessian the answer is that of the search. */
static void test_fallback(void **state)
{
    (void)state;
    enum { ROWS = 6, N = 8 };
    static const struct {
        const char *name;
        size_t i, j;
        float value;
    } bad[] = {
        {"not definite", 0, 5, 1e6f},       {"negative diagonal", 2, 2, -50},
        {"NaN on the diagonal", 4, 4, NAN}, {"NaN beside it", 1, 6, NAN},
        {"infinite", 3, 3, INFINITY},
    };
    for (size_t c = 0; c < COUNT(bad); c++) {
        const struct quant_how how = {6, QUANT_CLIP_TENSOR, 1};
        float *h = random_hessian(N, 30, 0, 4), *w = random_weights(ROWS * N, 3, 5);
        int8_t q[ROWS * N], want[ROWS * N];
        uint16_t s[ROWS], ws[ROWS];
        struct quant_search found, wfound;
        struct gptq_factor f;
        struct err e = {0};
        h[bad[c].i * N + bad[c].j] = h[bad[c].j * N + bad[c].i] = bad[c].value;
        if (gptq_factor_init(&f, h, N, 0.01, "case", &e) || f.definite)
            fail_msg("%s: accepted", bad[c].name);
        if (gptq_matrix(q, s, w, ROWS, &f, &how, 128, "case", &found, &e) ||
            quant_matrix(want, ws, w, ROWS, N, &how, "case", &wfound, &e))
            fail_msg("%s: %s", bad[c].name, e.msg);
        assert_memory_equal(q, want, sizeof q);
        assert_memory_equal(s, ws, sizeof s);
        assert_int_equal(found.winner, wfound.winner);
        gptq_factor_free(&f);
        free(h);
        free(w);
    }
}

/* The floor makes all candidates one: the first wins, and its error stands for all. */
static void test_ties(void **state)
{
    (void)state;
    enum { ROWS = 4, N = 20 };
    const struct quant_how how = {6, QUANT_CLIP_TENSOR, 1};
    float *h = random_hessian(N, 50, 0, 4), *w = random_weights(ROWS * N, 0.08, 6);
    int8_t q[ROWS * N];
    uint16_t s[ROWS];
    struct quant_search found;
    struct gptq_factor f;
    struct err e = {0};
    if (gptq_factor_init(&f, h, N, 0.01, "case", &e) ||
        gptq_matrix(q, s, w, ROWS, &f, &how, 128, "case", &found, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(found.winner, 0);
    for (size_t p = 0; p < QUANT_PCTS; p++)
        assert_true(found.mse[p] == found.mse[0] && found.mse[p] > 0);
    for (size_t r = 0; r < ROWS; r++)
        assert_int_equal(s[r], 0x2821); /* fp16 of 1/31 */
    for (size_t i = 0; i < N; i++)      /* 99.9 % of a row fit, its maximum does not */
        w[i] = i ? 2e6f : 2.0312e6f;
    if (gptq_matrix(q, s, w, ROWS, &f, &how, 128, "case", &found, &e))
        fail_msg("%s", e.msg);
    assert_true(isinf(found.mse[QUANT_PCTS - 1]) && isfinite(found.mse[found.winner]));
    w[N + 3] = NAN;
    EXPECT("NaN", ERR_INPUT, "case: weight [1][3] is NaN",
           gptq_matrix(q, s, w, ROWS, &f, &how, 128, "case", &found, &e), e);
    gptq_factor_free(&f);
    free(h);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_purpose),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_ties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
