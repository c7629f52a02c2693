/*
 * kern_coef_test.c - exists for the coefficient whose gradient misses a factor: every kind, with
 * and without its optional arguments, is compared with its definition in double precision and with
 * central differences of it.
 */
#include "tests/unit/kern_ref.h"

struct coef_case {
    const char *name;
    enum coef_kind kind;
    size_t dim;
    bool p0, p1, w; /* which are there */
    double size;    /* of p0: large ones saturate the sigmoid */
};

static const struct coef_case cases[] = {
    {"f alone", COEF_SCALE, 3, false, false, false, 1},
    {"one number", COEF_SCALE, 1, true, true, true, 1},
    {"scalar", COEF_SCALE, 40, true, false, false, 1},
    {"second scalar", COEF_SCALE, 17, false, true, true, 1},
    {"vector", COEF_SCALE, 512, false, false, true, 1},
    {"everything", COEF_SCALE, 33, true, true, true, 1},
    {"merge", COEF_LERP, 512, true, false, false, 1},
    {"merge of one", COEF_LERP, 1, true, false, false, 1},
    {"merge with a tail", COEF_LERP, 21, true, false, false, 1},
    {"gate", COEF_GATE, 512, true, false, false, 1},
    {"skip gate", COEF_GATE, 35, true, false, true, 2},
    {"gate of one", COEF_GATE, 1, true, false, true, 1},
    {"saturated gate", COEF_GATE, 64, true, false, true, 60},
};

/* Inputs and outputs as doubles; p0 is [dim] for a gate, [1] otherwise. */
struct numbers {
    double *p0, *p1, *w, *c0, *c1;
};

static void expect(const struct numbers *x, const struct coef_case *s, double f)
{
    for (size_t i = 0; i < s->dim; i++) {
        double w = s->w ? x->w[i] : 1;
        double g = 1 / (1 + exp(-x->p0[s->kind == COEF_GATE ? i : 0]));
        x->c1[i] = 0;
        if (s->kind == COEF_SCALE) {
            x->c0[i] = f * (s->p0 ? x->p0[0] : 1) * (s->p1 ? x->p1[0] : 1) * w;
        } else if (s->kind == COEF_LERP) {
            x->c0[i] = x->p0[0];
            x->c1[i] = 1 - x->p0[0];
        } else {
            x->c0[i] = g;
            x->c1[i] = (1 - g) * w;
        }
    }
}

/* The gradient of dc0 . c0 + dc1 . c1 for n elements of one input, added to `base`. */
static double *differences(const float *base, double *in, size_t n, const struct numbers *x,
                           const float *dc0, const float *dc1, const struct coef_case *s, double f)
{
    const double h = 1e-4;
    double *want = ref_double(base, n), *d0 = ref_double(dc0, s->dim),
           *d1 = ref_double(dc1, s->dim);
    for (size_t i = 0; i < n; i++) {
        double keep = in[i], loss[2];
        for (size_t side = 0; side < 2; side++) {
            in[i] = side ? keep - h : keep + h;
            expect(x, s, f);
            loss[side] = ref_dot(d0, x->c0, s->dim) + ref_dot(d1, x->c1, s->dim);
        }
        want[i] += (loss[0] - loss[1]) / (2 * h);
        in[i] = keep;
    }
    free(d0);
    free(d1);
    return want;
}

/* Compares with the reference; keeps the first result to compare bits with. */
static void check(const char *name, const char *what, float *got, const double *want, float **first,
                  size_t n)
{
    if (!got)
        return;
    ref_close(name, what, got, want, n, 1e-5);
    if (!*first) {
        *first = got;
        return;
    }
    ref_same(name, what, got, *first, n);
    free(got);
}

static void coef_one(const struct coef_case *s, struct ref_rng *g)
{
    size_t dim = s->dim, n0 = s->kind == COEF_GATE ? dim : 1;
    float *p0 = ref_random(g, n0, s->size), *p1 = ref_random(g, 1, 1), *w = ref_random(g, dim, 1);
    float *dc0 = ref_random(g, dim, 1), *dc1 = ref_random(g, dim, 1);
    float *base0 = ref_random(g, n0, 1), *base1 = ref_random(g, 1, 1),
          *base = ref_random(g, dim, 1);
    struct kern_coef a = {.kind = s->kind, .dim = dim, .f = 0.7f, .dc0 = dc0, .dc1 = dc1};
    struct numbers x = {ref_double(p0, n0), ref_double(p1, 1), ref_double(w, dim), ref_zeros(dim),
                        ref_zeros(dim)};
    double *want[] = {differences(base0, x.p0, n0, &x, dc0, dc1, s, (double)a.f),
                      differences(base1, x.p1, 1, &x, dc0, dc1, s, (double)a.f),
                      differences(base, x.w, dim, &x, dc0, dc1, s, (double)a.f)};
    float *first[5] = {NULL};
    expect(&x, s, (double)a.f);
    a.p0 = s->p0 ? p0 : NULL;
    a.p1 = s->p1 ? p1 : NULL;
    a.w = s->w ? w : NULL;
    for (size_t b = 0; b < REF_BACKENDS; b++) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        a.c0 = ref_poison(dim);
        a.c1 = s->kind == COEF_SCALE ? NULL : ref_poison(dim);
        k->coef_fwd(k, &a);
        /* frozen parameters want no gradient */
        a.dp0 = a.dp1 = a.dw = NULL;
        k->coef_bwd(k, &a);
        a.dp0 = s->p0 ? ref_copy(base0, n0) : NULL;
        a.dp1 = s->p1 ? ref_copy(base1, 1) : NULL;
        a.dw = s->w ? ref_copy(base, dim) : NULL;
        k->coef_bwd(k, &a);
        check(s->name, "c0", a.c0, x.c0, &first[0], dim);
        check(s->name, "c1", a.c1, x.c1, &first[1], dim);
        check(s->name, "dp0", a.dp0, want[0], &first[2], n0);
        check(s->name, "dp1", a.dp1, want[1], &first[3], 1);
        check(s->name, "dw", a.dw, want[2], &first[4], dim);
        kern_free(k);
    }
    for (size_t i = 0; i < 5; i++)
        free(first[i]);
    for (size_t i = 0; i < 3; i++)
        free(want[i]);
    free(p0);
    free(p1);
    free(w);
    free(dc0);
    free(dc1);
    free(base0);
    free(base1);
    free(base);
    free(x.p0);
    free(x.p1);
    free(x.w);
    free(x.c0);
    free(x.c1);
}

static void coef_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(34);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        coef_one(&cases[c], &g);
}

/* A gate far out is exactly 0 or 1, never NaN; NaN stays visible. */
static void gates_saturate(void **state)
{
    static const struct {
        float x, c0, c1;
    } gates[] = {{0, 0.5f, 0.5f}, {100, 1, 0},      {-100, 0, 1},     {1e30f, 1, 0},
                 {-1e30f, 0, 1},  {INFINITY, 1, 0}, {-INFINITY, 0, 1}};
    (void)state;
    for (size_t b = 0; b < REF_BACKENDS; b += 3) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) {
            float c0 = -1, c1 = -1;
            struct kern_coef a = {.kind = COEF_GATE, .dim = 1, .c0 = &c0, .c1 = &c1};
            a.p0 = &gates[i].x;
            k->coef_fwd(k, &a);
            ref_same(k->name, "c0", &c0, &gates[i].c0, 1);
            ref_same(k->name, "c1", &c1, &gates[i].c1, 1);
        }
        float nan = NAN, c0 = 0, c1 = 0;
        struct kern_coef a = {.kind = COEF_GATE, .dim = 1, .c0 = &c0, .c1 = &c1, .p0 = &nan};
        k->coef_fwd(k, &a);
        assert_true(isnan(c0) && isnan(c1));
        kern_free(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coef_is_right_everywhere),
        cmocka_unit_test(gates_saturate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
