/*
 * optim_test.c - exists for the optimiser that trains, only worse: a tall matrix handled like a
 * wide one, a tensor in the wrong group or in none, decay after the update, a bank taken for one
 * matrix, a clip that changes gradients below the limit.
 *
 * The reference is Muon and AdamW once more, naively and in double.
 */
#include <math.h>

#include "tests/unit/toy_run.h"
#include "trainer/init.h"
#include "trainer/optim.h"

static struct kern *cpu(size_t threads)
{
    struct kern *k;
    struct err e = {0};
    if (kern_cpu(&k, threads, &e))
        fail_msg("%s", e.msg);
    return k;
}

static float *gaussian(size_t n, const char *name, double size)
{
    struct rng g;
    double z[2] = {0};
    float *x = malloc((n + 1) * sizeof *x);
    rng_seed(&g, 1, name);
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0)
            rng_normal(&g, z);
        x[i] = (float)(size * z[i % 2]);
    }
    return x;
}

/* ---- reference ---- */

/* c[m][n] = a[m][k] b[k][n]; tb: b is stored [n][k]. */
static void product(double *c, const double *a, const double *b, size_t m, size_t n, size_t k,
                    bool tb)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double s = 0;
            for (size_t l = 0; l < k; l++)
                s += a[i * k + l] * (tb ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = s;
        }
}

static void transpose(double *y, const double *x, size_t rows, size_t cols)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            y[j * rows + i] = x[i * cols + j];
}

static void ref_ns(double *x, size_t rows, size_t cols, size_t steps)
{
    size_t n = rows * cols, r = rows < cols ? rows : cols, c = rows < cols ? cols : rows;
    double *y = malloc(n * sizeof *y), *z = malloc(n * sizeof *z), norm = 0;
    double *a = malloc(r * r * sizeof *a), *b = malloc(r * r * sizeof *b);
    for (size_t i = 0; i < n; i++)
        norm += x[i] * x[i];
    norm = sqrt(norm) + 1e-7;
    if (rows > cols)
        transpose(y, x, rows, cols);
    else
        memcpy(y, x, n * sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] /= norm;
    for (size_t s = 0; s < steps; s++) {
        product(a, y, y, r, r, c, true);
        product(b, a, a, r, r, r, false);
        for (size_t i = 0; i < r * r; i++)
            b[i] = -4.7750 * a[i] + 2.0315 * b[i];
        product(z, b, y, r, c, r, false);
        for (size_t i = 0; i < n; i++)
            y[i] = 3.4445 * y[i] + z[i];
    }
    if (rows > cols)
        transpose(x, y, cols, rows);
    else
        memcpy(x, y, n * sizeof *y);
    free(y);
    free(z);
    free(a);
    free(b);
}

static void compare(const char *name, const float *got, const double *want, size_t n, double tol)
{
    double diff = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        diff += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (!(sqrt(diff) <= tol * sqrt(size) + 1e-12))
        fail_msg("%s: relative difference %g", name, sqrt(diff / size));
}

/* ---- tests ---- */

static void newton_schulz(void **state)
{
    static const struct {
        const char *name;
        size_t rows, cols, steps;
    } cases[] = {
        {"one element", 1, 1, 5}, {"row", 1, 20, 5},        {"column", 20, 1, 5},
        {"square", 17, 17, 5},    {"wide", 12, 40, 5},      {"tall", 40, 12, 5},
        {"one step", 9, 10, 1},   {"even steps", 9, 10, 4}, {"tall, even", 33, 10, 2},
    };
    struct kern *k = cpu(2);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t rows = cases[c].rows, cols = cases[c].cols, n = rows * cols;
        float *src = gaussian(n, cases[c].name, 3), *x = k->alloc(k, n * sizeof *x);
        double *want = malloc(n * sizeof *want);
        for (size_t i = 0; i < n; i++)
            want[i] = src[i];
        ref_ns(want, rows, cols, cases[c].steps);
        k->upload(k, x, src, n * sizeof *x);
        muon_orthogonalise(k, &x, 1, rows, cols, cases[c].steps);
        k->download(k, src, x, n * sizeof *x);
        compare(cases[c].name, src, want, n, 1e-5);
        free(src);
        free(want);
        k->free(k, x);
    }
    kern_free(k);
}

/* A model of hand-made tensors: every class, a bank of matrices, a tensor between two of a group.
 */
static struct gpt_param some[] = {
    {.name = "bank", .cls = PARAM_MATRIX, .ndim = 3, .shape = {3, 8, 5}},
    {.name = "tall", .cls = PARAM_MATRIX, .ndim = 2, .shape = {24, 6}},
    {.name = "scale", .cls = PARAM_CONTROL, .ndim = 1, .shape = {7}},
    {.name = "gain", .cls = PARAM_CONTROL, .ndim = 1, .shape = {1}},
    {.name = "embed", .cls = PARAM_EMBED, .ndim = 2, .shape = {10, 6}},
    {.name = "embed2", .cls = PARAM_EMBED, .ndim = 2, .shape = {3, 4}},
    {.name = "wide", .cls = PARAM_MATRIX, .ndim = 2, .shape = {6, 24}},
    {.name = "mix", .cls = PARAM_CONTROL, .ndim = 2, .shape = {2, 6}},
    {.name = "head", .cls = PARAM_HEAD, .ndim = 2, .shape = {10, 6}},
    {.name = "proj", .cls = PARAM_PROJ, .ndim = 2, .shape = {8, 3}},
    {.name = "scalar", .cls = PARAM_CONTROL, .ndim = 0, .shape = {1}},
};

static struct gpt hand_made(void)
{
    struct gpt m = {.param = some, .nparams = sizeof some / sizeof some[0]};
    recipe_init(&m.r);
    for (size_t i = 0; i < m.nparams; i++) {
        struct gpt_param *p = &some[i];
        p->at = m.floats;
        p->size = 1;
        for (size_t d = 0; d < p->ndim; d++)
            p->size *= p->shape[d];
        m.floats += p->size;
    }
    return m;
}

struct ref {
    double *p, *mom, *var;
};

static void ref_param(const struct recipe *r, const struct gpt_param *q, struct ref *s,
                      const float *g, size_t step, double scale, double mu)
{
    bool muon =
        q->cls == PARAM_MATRIX || (q->cls == PARAM_PROJ && strcmp(r->proj_optimizer, "adamw") != 0);
    double lr = muon                    ? r->matrix_lr
                : q->cls == PARAM_EMBED ? (r->tie_embeddings ? r->tied_embed_lr : r->embed_lr)
                : q->cls == PARAM_HEAD  ? r->head_lr
                                        : r->scalar_lr;
    double wd = muon                                            ? r->muon_wd
                : q->cls == PARAM_EMBED || q->cls == PARAM_HEAD ? r->embed_wd
                                                                : r->adam_wd;
    double u[1000], *p = s->p + q->at, *m = s->mom + q->at, *v = s->var + q->at;
    size_t slices = q->ndim == 3 ? q->shape[0] : 1;
    lr *= scale;
    for (size_t i = 0; i < q->size; i++)
        p[i] *= 1 - lr * wd;
    if (!muon) {
        for (size_t i = 0; i < q->size; i++) {
            m[i] = r->beta1 * m[i] + (1 - r->beta1) * g[i];
            v[i] = r->beta2 * v[i] + (1 - r->beta2) * g[i] * g[i];
            p[i] -= lr / (1 - pow(r->beta1, (double)step)) * m[i] /
                    (sqrt(v[i]) / sqrt(1 - pow(r->beta2, (double)step)) + r->adam_eps);
        }
        return;
    }
    for (size_t k = 0; k < slices; k++) {
        size_t rows = q->shape[q->ndim - 2], cols = q->shape[q->ndim - 1], n = rows * cols;
        for (size_t i = 0; i < n; i++) {
            m[k * n + i] = mu * m[k * n + i] + g[k * n + i];
            u[i] = g[k * n + i] + mu * m[k * n + i];
        }
        for (size_t i = 0; r->muon_row_norm && i < rows; i++) {
            double s2 = 0;
            for (size_t j = 0; j < cols; j++)
                s2 += u[i * cols + j] * u[i * cols + j];
            for (size_t j = 0; j < cols; j++)
                u[i * cols + j] /= fmax(sqrt(s2), 1e-7);
        }
        ref_ns(u, rows, cols, (size_t)r->muon_backend_steps);
        for (size_t i = 0; i < n; i++)
            p[k * n + i] -= lr * sqrt(fmax(1, (double)rows / (double)cols)) * u[i];
    }
}

static void three_steps(void **state)
{
    static const struct {
        const char *name, *set[3];
    } cases[] = {
        {"plain", {"MUON_WD=0"}},
        {"decay", {"MUON_WD=0.5", "ADAM_WD=0.3", "EMBED_WD=0.7"}},
        {"MuonEq-R", {"MUON_ROW_NORM=1", "MUON_WD=0.09"}},
        {"untied", {"TIE_EMBEDDINGS=0", "MUON_BACKEND_STEPS=4"}},
        {"projections by AdamW", {"PROJ_OPTIMIZER=adamw", "ADAM_WD=0.3", "MUON_WD=0.1"}},
    };
    struct kern *k = cpu(2);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct gpt m = hand_made();
        struct optim o;
        struct err e = {0};
        size_t bytes = m.floats * sizeof(float);
        float *init = gaussian(m.floats, "weights", 1), *p = k->alloc(k, bytes);
        float *got = malloc(bytes), *dev = k->alloc(k, bytes);
        struct ref s = {malloc(m.floats * sizeof(double)), calloc(m.floats, sizeof(double)),
                        calloc(m.floats, sizeof(double))};
        for (size_t i = 0; i < 3 && cases[c].set[i]; i++)
            toy_set(&m.r, cases[c].set[i]);
        assert_int_equal(optim_init(&o, k, &m, 0, 1, &e), ERR_OK);
        k->upload(k, p, init, bytes);
        for (size_t i = 0; i < m.floats; i++)
            s.p[i] = init[i];
        for (size_t step = 1; step <= 3; step++) {
            char name[16];
            snprintf(name, sizeof name, "grad%zu", step);
            float *g = gaussian(m.floats, name, 0.01);
            k->upload(k, dev, g, bytes);
            optim_step(&o, p, dev, 0.5 / (double)step, 0.8);
            for (size_t i = 0; i < m.nparams; i++)
                ref_param(&m.r, &some[i], &s, g + some[i].at, step, 0.5 / (double)step, 0.8);
            free(g);
        }
        assert_int_equal(o.step, 3);
        k->download(k, got, p, bytes);
        for (size_t i = 0; i < m.nparams; i++) {
            char name[64];
            snprintf(name, sizeof name, "%.20s, %.30s", cases[c].name, some[i].name);
            compare(name, got + some[i].at, s.p + some[i].at, some[i].size, 2e-6);
        }
        optim_free(&o);
        optim_free(&o); /* twice is fine */
        free(init);
        free(got);
        free(s.p);
        free(s.mom);
        free(s.var);
        k->free(k, p);
        k->free(k, dev);
    }
    kern_free(k);
}

/* Pieces cover the block once, without gap or overlap: a bank is cut into its matrices, and only
 * neighbours of one group are merged. */
static void cover(void **state)
{
    static const struct {
        const char *set;
        size_t n[12]; /* of each piece, 0 ends */
    } cases[] = {
        {"PROJ_OPTIMIZER=muon", {40, 40, 40, 144, 8, 72, 144, 12, 60, 24, 1}},
        {"PROJ_OPTIMIZER=adamw", {40, 40, 40, 144, 8, 72, 144, 12, 60, 25}},
    };
    struct kern *k = cpu(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct gpt m = hand_made();
        struct optim o;
        struct err e = {0};
        size_t at = 0;
        toy_set(&m.r, cases[c].set);
        assert_int_equal(optim_init(&o, k, &m, 0, 1, &e), ERR_OK);
        for (size_t i = 0; i < o.p.pieces; i++) {
            const struct piece *p = &o.p.piece[i];
            if (p->at != at || p->local != at || p->n != cases[c].n[i])
                fail_msg("%s: piece %zu: %zu floats at %zu", cases[c].set, i, p->n, p->at);
            at += p->n;
        }
        assert_int_equal(at, m.floats);
        optim_free(&o);
    }
    kern_free(k);
}

/* Is every element of a parameter's part of a block a bf16 value? */
static bool is_bf16(const float *block, const struct gpt_param *p)
{
    for (size_t i = 0; i < p->size; i++) {
        uint32_t u;
        memcpy(&u, block + p->at + i, sizeof u);
        if (u & 0xffff)
            return false;
    }
    return true;
}

/* What is stored as bf16, and nothing else; the values are a parity test's (opt_adamw,
 * opt_muon_banks_549). */
static void bf16_storage(void **state)
{
    static const struct {
        const char *name, *set[2];
        bool embed, momentum; /* embedding tables and their moments; Muon's momentum */
    } cases[] = {
        {"neither", {"EMBED_BF16=0", "MUON_BF16=0"}, false, false},
        {"tables", {"EMBED_BF16=1", "MUON_BF16=0"}, true, false},
        {"both", {"EMBED_BF16=1", "MUON_BF16=1"}, true, true},
    };
    struct kern *k = cpu(2);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct gpt m = hand_made();
        struct optim o;
        struct err e = {0};
        size_t bytes = m.floats * sizeof(float);
        float *host = gaussian(m.floats, "weights", 1), *p = k->alloc(k, bytes);
        float *dev = k->alloc(k, bytes);
        float *block[3] = {malloc(bytes), malloc(bytes), malloc(bytes)};
        toy_set(&m.r, cases[c].set[0]);
        toy_set(&m.r, cases[c].set[1]);
        assert_int_equal(optim_init(&o, k, &m, 0, 1, &e), ERR_OK);
        k->upload(k, p, host, bytes);
        optim_round(&o, p);
        k->download(k, block[0], p, bytes);
        for (size_t i = 0; i < m.nparams; i++)
            if (is_bf16(block[0], &some[i]) != (some[i].cls == PARAM_EMBED && cases[c].embed))
                fail_msg("%s: optim_round, %s", cases[c].name, some[i].name);
        k->upload(k, dev, host, bytes);
        optim_step(&o, p, dev, 0.1, 0.9);
        k->download(k, block[0], p, bytes);
        k->download(k, block[1], o.mom, bytes);
        k->download(k, block[2], o.var, bytes);
        for (size_t i = 0; i < m.nparams; i++) {
            bool embed = some[i].cls == PARAM_EMBED && cases[c].embed;
            bool muon = some[i].cls == PARAM_MATRIX || some[i].cls == PARAM_PROJ;
            bool want[3] = {embed, embed || (muon && cases[c].momentum), embed || muon};
            for (size_t b = 0; b < 3; b++) /* Muon has no second moment: zeros */
                if (is_bf16(block[b], &some[i]) != want[b])
                    fail_msg("%s: %s, block %zu", cases[c].name, some[i].name, b);
        }
        optim_reset(&o);
        assert_int_equal(o.step, 0);
        assert_true(k->sumsq(k, o.mom, m.floats) <= 0 && k->sumsq(k, o.var, m.floats) <= 0);
        optim_free(&o);
        for (size_t b = 0; b < 3; b++)
            free(block[b]);
        free(host);
        k->free(k, p);
        k->free(k, dev);
    }
    kern_free(k);
}

static void clip(void **state)
{
    static const struct {
        const char *name;
        float g[3];
        double max, norm;
        float want[3];
    } cases[] = {
        {"off", {3, 4, 0}, 0, 5, {3, 4, 0}},
        {"below", {0.3f, 0.4f, 0}, 1, 0.5, {0.3f, 0.4f, 0}},
        {"above", {3, 4, 0}, 1, 5, {0.6f, 0.8f, 0}},
        {"zero", {0, 0, 0}, 1, 0, {0, 0, 0}},
        {"infinite", {INFINITY, 1, 0}, 1, INFINITY, {INFINITY, 1, 0}},
    };
    struct kern *k = cpu(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        float *g = k->alloc(k, 3 * sizeof *g), got[3];
        k->upload(k, g, cases[c].g, 3 * sizeof *g);
        double norm = optim_clip(k, g, 3, 1, cases[c].max);
        k->download(k, got, g, sizeof got);
        if (!(norm >= cases[c].norm && norm <= cases[c].norm * (1 + 1e-7)))
            fail_msg("%s: norm %g", cases[c].name, norm);
        for (size_t i = 0; i < 3; i++)
            if (!(got[i] >= cases[c].want[i] * (1 - 1e-6f) && got[i] <= cases[c].want[i]))
                fail_msg("%s: element %zu is %g", cases[c].name, i, (double)got[i]);
        k->free(k, g);
    }
    kern_free(k);
}

static void average(void **state)
{
    struct kern *k = cpu(1);
    float *avg = k->alloc(k, 4), *p = k->alloc(k, 4), v = 1, got;
    (void)state;
    k->upload(k, avg, &v, 4);
    v = 3;
    k->upload(k, p, &v, 4);
    optim_average(k, avg, p, 1, 0.75); /* 1 -> 1.5 -> 1.875 */
    optim_average(k, avg, p, 1, 0.75);
    k->download(k, &got, avg, 4);
    assert_true(got >= 1.875f && got <= 1.875f);
    k->free(k, avg);
    k->free(k, p);
    kern_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newton_schulz), cmocka_unit_test(three_steps), cmocka_unit_test(cover),
        cmocka_unit_test(bf16_storage),  cmocka_unit_test(clip),        cmocka_unit_test(average),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
