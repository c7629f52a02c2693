/*
 * kern_xsa_test.c - exists for the value vector that is removed from the wrong head or the wrong
 * row, for the length of v forgotten in its gradient, for a v that is zero, and for a shift that
 * looks across the border of two sequences.
 */
#include "tests/unit/kern_ref.h"

/* Compares with the reference; keeps the first result to compare bits with. */
static void check(const char *name, const char *what, float *got, const double *want, float **first,
                  size_t n, double tol)
{
    ref_close(name, what, got, want, n, tol);
    if (!*first) {
        *first = got;
        return;
    }
    ref_same(name, what, got, *first, n);
    free(got);
}

struct xsa_case {
    const char *name;
    size_t rows, heads, kv_heads, head_dim;
    double v_size;
    bool add;
};

static const struct xsa_case cases[] = {
    /* The gradient is 0, the difference of two terms that grow as v shrinks. */
    {"one element", 1, 1, 1, 1, 1e3, false},
    {"one element, added", 2, 3, 1, 1, 1e3, true},
    {"small head", 3, 2, 1, 5, 1, false},
    {"odd head", 5, 6, 2, 17, 1, true},
    {"tail behind a vector", 3, 4, 4, 40, 1, false},
    {"group of three", 2, 6, 2, 32, 1e-3, true},
    {"large v", 2, 2, 1, 16, 1e6, false},
    {"two blocks", 66, 2, 1, 6, 1, true},
    {"zero v", 2, 4, 2, 20, 0, false},
    {"v shorter than 1e-12", 2, 4, 2, 20, 1e-14, false},
};

/* y in double from o and v, as the definition in kernels.h reads. */
static void expect(double *y, const double *o, const double *v, const struct xsa_case *s)
{
    size_t group = s->heads / s->kv_heads, dim = s->head_dim;
    for (size_t r = 0; r < s->rows; r++)
        for (size_t h = 0; h < s->heads; h++) {
            const double *u = v + (r * s->kv_heads + h / group) * dim;
            size_t at = (r * s->heads + h) * dim;
            double length = fmax(sqrt(ref_dot(u, u, dim)), 1e-12);
            double c = ref_dot(o + at, u, dim) / length / length;
            for (size_t i = 0; i < dim; i++)
                y[at + i] = o[at + i] - c * u[i];
        }
}

/* want[i] += d (dy . y) / d x[i] by central differences of `expect` in step h; x is o or v. */
static void differences(double *want, double *x, size_t n, double h, const double *o,
                        const double *v, const double *dy, const struct xsa_case *s)
{
    size_t outputs = s->rows * s->heads * s->head_dim;
    double *y = ref_zeros(outputs);
    for (size_t i = 0; i < n; i++) {
        double keep = x[i];
        x[i] = keep + h;
        expect(y, o, v, s);
        double up = ref_dot(dy, y, outputs);
        x[i] = keep - h;
        expect(y, o, v, s);
        want[i] += (up - ref_dot(dy, y, outputs)) / (2 * h);
        x[i] = keep;
    }
    free(y);
}

/* Only a few rows have their differences taken: the cost grows with the square of the rows. */
static struct xsa_case rows_of(const struct xsa_case *s, size_t rows)
{
    struct xsa_case few = *s;
    few.rows = rows;
    return few;
}

static void xsa_one(const struct xsa_case *s, struct ref_rng *g)
{
    size_t n = s->rows * s->heads * s->head_dim, nv = s->rows * s->kv_heads * s->head_dim;
    float *o = ref_random(g, n, 1), *v = ref_random(g, nv, s->v_size), *dy = ref_random(g, n, 1);
    float *dv = ref_random(g, nv, s->v_size > 1 ? 1 / s->v_size : 1);
    double *oo = ref_double(o, n), *vv = ref_double(v, nv), *dd = ref_double(dy, n);
    double *y = ref_zeros(n), *do_ = ref_zeros(n), *want = s->add ? ref_double(dv, nv) : NULL;
    if (!want)
        want = ref_zeros(nv);
    expect(y, oo, vv, s);
    for (size_t r = 0; r < s->rows; r++) {
        size_t q = r * s->heads * s->head_dim, k = r * s->kv_heads * s->head_dim;
        struct xsa_case row = rows_of(s, 1);
        size_t nq = s->heads * s->head_dim, nk = s->kv_heads * s->head_dim;
        differences(do_ + q, oo + q, nq, 1e-3, oo + q, vv + k, dd + q, &row);
        /* With v zero, y is linear in v as long as the step stays far below 1e-12. */
        differences(want + k, vv + k, nk, s->v_size > 0 ? 1e-5 * s->v_size : 1e-16, oo + q, vv + k,
                    dd + q, &row);
    }
    float *first[3] = {NULL};
    struct kern_xsa a = {.o = o, .v = v, .rows = s->rows, .heads = s->heads};
    a.kv_heads = s->kv_heads;
    a.head_dim = s->head_dim;
    a.add = s->add;
    for (size_t b = 0; b < REF_BACKENDS; b++) {
        struct kern *k = ref_backend(b);
        if (!k)
            continue;
        a.dy = dy;
        a.y = ref_poison(n);
        a.do_ = ref_poison(n);
        a.dv = s->add ? ref_copy(dv, nv) : ref_poison(nv);
        k->xsa_fwd(k, &a);
        k->xsa_bwd(k, &a);
        /* on top of their inputs */
        struct kern_xsa over = a;
        over.o = over.y = ref_copy(o, n);
        k->xsa_fwd(k, &over);
        ref_same(s->name, "y on o", over.y, a.y, n);
        free(over.y);
        over = a;
        over.dy = over.do_ = ref_copy(dy, n);
        over.dv = s->add ? ref_copy(dv, nv) : ref_poison(nv);
        k->xsa_bwd(k, &over);
        ref_same(s->name, "do on dy", over.do_, a.do_, n);
        ref_same(s->name, "dv with do on dy", over.dv, a.dv, nv);
        free(over.do_);
        free(over.dv);
        check(s->name, "y", a.y, y, &first[0], n, 1e-5);
        check(s->name, "do", a.do_, do_, &first[1], n, 1e-5);
        check(s->name, "dv", a.dv, want, &first[2], nv, 1e-5);
        kern_free(k);
    }
    for (size_t i = 0; i < 3; i++)
        free(first[i]);
    free(o);
    free(v);
    free(dy);
    free(dv);
    free(oo);
    free(vv);
    free(dd);
    free(y);
    free(do_);
    free(want);
}

static void xsa_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(31);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        xsa_one(&cases[c], &g);
}

/* What is left has no component along v, and doing it twice changes nothing. */
static void what_is_left_is_orthogonal(void **state)
{
    enum { ROWS = 70, HEADS = 8, KV = 4, DIM = 64, N = ROWS * HEADS * DIM, NV = ROWS * KV * DIM };
    struct ref_rng g = ref_fresh(32);
    float *o = ref_random(&g, N, 1), *v = ref_random(&g, NV, 1), *y = ref_poison(N);
    double *zero = ref_zeros(ROWS * HEADS);
    float *dots = ref_poison(ROWS * HEADS);
    struct kern *k = ref_portable();
    struct kern_xsa a = {
        .y = y, .o = o, .v = v, .rows = ROWS, .heads = HEADS, .kv_heads = KV, .head_dim = DIM};
    (void)state;
    k->xsa_fwd(k, &a);
    for (size_t h = 0; h < ROWS * HEADS; h++) {
        double s = 0;
        for (size_t i = 0; i < DIM; i++)
            s += (double)y[h * DIM + i] * (double)v[h / (HEADS / KV) * DIM + i];
        dots[h] = (float)s;
    }
    ref_close("orthogonal", "y . v", dots, zero, ROWS * HEADS, 1e-3);
    double *once = ref_double(y, N);
    a.o = y;
    k->xsa_fwd(k, &a);
    ref_close("orthogonal", "a second time", y, once, N, 1e-6);
    kern_free(k);
    free(o);
    free(v);
    free(y);
    free(zero);
    free(dots);
    free(once);
}

static void shift_looks_one_back(void **state)
{
    static const struct {
        const char *name;
        size_t batch, t, dim;
        bool add;
    } shifts[] = {
        {"one element", 1, 1, 1, false},  {"one element, added", 1, 1, 1, true},
        {"one position", 3, 1, 20, true}, {"tail", 2, 5, 17, false},
        {"two blocks", 2, 65, 24, true},  {"real width", 3, 44, 512, false},
    };
    struct ref_rng g = ref_fresh(33);
    (void)state;
    for (size_t c = 0; c < sizeof shifts / sizeof *shifts; c++) {
        size_t batch = shifts[c].batch, t = shifts[c].t, dim = shifts[c].dim, n = batch * t * dim;
        float *x = ref_random(&g, n, 1), *dx = ref_random(&g, n, 1);
        float *y_want = ref_poison(n), *dx_want = ref_poison(n);
        for (size_t i = 0; i < n; i++) {
            size_t j = i / dim % t;
            float next = j + 1 == t ? 0 : x[i + dim];
            y_want[i] = j == 0 ? 0 : x[i - dim];
            dx_want[i] = shifts[c].add ? dx[i] + next : next;
        }
        for (size_t b = 0; b < REF_BACKENDS; b++) {
            struct kern *k = ref_backend(b);
            if (!k)
                continue;
            float *y = ref_poison(n), *d = shifts[c].add ? ref_copy(dx, n) : ref_poison(n);
            k->shift_fwd(k, y, x, batch, t, dim);
            k->shift_bwd(k, d, x, batch, t, dim, shifts[c].add);
            ref_same(shifts[c].name, "y", y, y_want, n);
            ref_same(shifts[c].name, "dx", d, dx_want, n);
            free(y);
            free(d);
            kern_free(k);
        }
        free(x);
        free(dx);
        free(y_want);
        free(dx_want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xsa_is_right_everywhere),
        cmocka_unit_test(what_is_left_is_orthogonal),
        cmocka_unit_test(shift_looks_one_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
