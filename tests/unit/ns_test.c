/*
 * ns_test.c - exists for the fault that Newton-Schulz depends on how its matrices are shared out
 * (whole or stage by stage, on how many threads, beside which others), mirrors the wrong triangle
 * at the edge of a block, or drifts from its formula when several steps are done on the small side.
 *
 * The formula is written here naively in double; every backend must come near it, and all must
 * agree with one another to the last bit, with memory that cannot be touched behind each matrix.
 */
#include "tests/unit/kern_ref.h"

#include <sys/mman.h>
#include <unistd.h>

enum { MAX_KERNS = 9, MAX_COUNT = 8, GUARDED = 1 << 16 };

static struct kern *kerns[MAX_KERNS];
static size_t n_kerns;
static float *guarded[MAX_COUNT]; /* each GUARDED floats, then a page that nobody may touch */

static const struct {
    const char *name;
    size_t rows, cols, count, steps;
} cases[] = {
    {"one element", 1, 1, 1, 5},
    {"row", 1, 37, 3, 5},
    {"column", 37, 1, 3, 5},
    {"no step", 9, 5, 2, 0},
    {"square, below a tile", 13, 13, 2, 5},
    {"square, several tiles", 70, 70, 3, 5},
    {"wide, one step", 33, 40, 1, 1},
    {"wide, a block", 20, 60, 2, 3},
    {"wide, two blocks", 45, 100, 8, 5},
    {"wide, three blocks", 17, 64, 1, 7},
    {"tall, ragged", 130, 45, 3, 5},
    {"tall, one panel", 100, 16, 7, 4},
    {"longer than a block of k", 24, 600, 1, 5},
    {"taller than a block of k", 1100, 31, 1, 5},
};

/* c[m][n] = a[m][k] b[k][n] with strides, in double. */
static void product(double *c, const double *a, size_t ra, size_t ca, const double *b, size_t rb,
                    size_t cb, size_t m, size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double s = 0;
            for (size_t p = 0; p < k; p++)
                s += a[i * ra + p * ca] * b[p * rb + j * cb];
            c[i * n + j] = s;
        }
}

static void formula(double *x, const struct kern_ns *a)
{
    bool tall = a->rows > a->cols;
    size_t n = tall ? a->cols : a->rows, len = tall ? a->rows : a->cols, all = n * len;
    size_t r = tall ? 1 : len, c = tall ? n : 1; /* strides of X with its short side first */
    double *y = ref_alloc(all, sizeof *y), *g = ref_alloc(n * n, sizeof *g), norm = 0;
    double *b = ref_alloc(n * n, sizeof *b);
    for (size_t i = 0; i < all; i++)
        norm += x[i] * x[i];
    for (size_t i = 0; i < all; i++)
        x[i] /= sqrt(norm) + a->eps;
    for (size_t s = 0; s < a->steps; s++) {
        product(g, x, r, c, x, c, r, n, n, len);
        product(b, g, n, 1, g, n, 1, n, n, n);
        for (size_t i = 0; i < n * n; i++)
            b[i] = a->b * g[i] + a->c * b[i];
        product(y, b, n, 1, x, r, c, n, len, n);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < len; j++)
                x[i * r + j * c] = a->a * x[i * r + j * c] + y[i * len + j];
    }
    free(y);
    free(g);
    free(b);
}

static void check_case(size_t c)
{
    size_t n = cases[c].rows * cases[c].cols, count = cases[c].count;
    struct ref_rng rng = ref_fresh(c);
    float *in = ref_alloc(count * n, sizeof *in), *first = ref_alloc(count * n, sizeof *first);
    double *want = ref_alloc(count * n, sizeof *want);
    float *x[MAX_COUNT];
    struct kern_ns a = {.x = x, .count = count, .rows = cases[c].rows, .cols = cases[c].cols};
    a.steps = cases[c].steps;
    a.a = 3.4445f;
    a.b = -4.7750f;
    a.c = 2.0315f;
    a.eps = 1e-7f;
    for (size_t i = 0; i < count * n; i++)
        want[i] = in[i] = (float)(3 * ref_uniform(&rng));
    for (size_t i = 0; i < count; i++) {
        formula(want + i * n, &a);
        x[i] = guarded[i] + GUARDED - n;
    }
    for (size_t k = 0; k < n_kerns; k++) {
        double off = 0, size = 0;
        for (size_t i = 0; i < count; i++)
            memcpy(x[i], in + i * n, n * sizeof *in);
        kerns[k]->newton_schulz(kerns[k], &a);
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < n; j++) {
                double w = want[i * n + j];
                off += (x[i][j] - w) * (x[i][j] - w);
                size += w * w;
            }
            if (k == 0)
                memcpy(first + i * n, x[i], n * sizeof *in);
            else if (memcmp(first + i * n, x[i], n * sizeof *in) != 0)
                fail_msg("%s: matrix %zu has other bits on backend %zu (%s)", cases[c].name, i, k,
                         kerns[k]->name);
        }
        if (!(sqrt(off) <= 1e-5 * sqrt(size)))
            fail_msg("%s, backend %zu (%s): relative difference %g", cases[c].name, k,
                     kerns[k]->name, sqrt(off / size));
    }
    free(in);
    free(first);
    free(want);
}

static void newton_schulz(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        check_case(c);
}

/* What a matrix becomes does not depend on those that are given with it. */
static void alone_or_together(void **state)
{
    enum { ROWS = 40, COLS = 90, N = ROWS * COLS, COUNT = 5 };
    struct ref_rng rng = ref_fresh(100);
    float *in = ref_alloc(COUNT * N, sizeof *in), *x[COUNT];
    struct kern *k = kerns[n_kerns - 1];
    struct kern_ns a = {.x = x, .count = COUNT, .rows = ROWS, .cols = COLS, .steps = 5};
    (void)state;
    a.a = 3.4445f;
    a.b = -4.7750f;
    a.c = 2.0315f;
    a.eps = 1e-7f;
    for (size_t i = 0; i < COUNT * N; i++)
        in[i] = (float)ref_uniform(&rng);
    for (size_t i = 0; i < COUNT; i++) {
        x[i] = guarded[i] + GUARDED - N;
        memcpy(x[i], in + i * N, N * sizeof *in);
    }
    k->newton_schulz(k, &a);
    a.count = 1;
    for (size_t i = 0; i < COUNT; i++) {
        float *one = in + i * N;
        a.x = &one;
        k->newton_schulz(k, &a);
        assert_memory_equal(one, x[i], N * sizeof *one);
    }
    free(in);
}

/* Zeros stay zeros; no matrices are no work. */
static void nothing(void **state)
{
    float zero[6 * 4] = {0}, *x = zero;
    struct kern_ns a = {.x = &x, .count = 1, .rows = 6, .cols = 4, .steps = 5, .a = 3, .b = -4};
    (void)state;
    a.c = 2;
    a.eps = 1e-7f;
    kerns[0]->newton_schulz(kerns[0], &a);
    for (size_t i = 0; i < 24; i++)
        assert_true(zero[i] == 0.0f);
    a.count = 0;
    kerns[0]->newton_schulz(kerns[0], &a);
    assert_int_equal(kerns[0]->sync(kerns[0], NULL), ERR_OK);
}

static int setup(void **state)
{
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 7};
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = GUARDED * sizeof(float);
    (void)state;
    for (size_t i = 0; i < MAX_COUNT; i++) {
        char *p =
            mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + bytes, page, PROT_NONE) != 0)
            return 1;
        guarded[i] = (float *)(void *)p;
    }
    for (size_t i = 0; i < 3; i++)
        for (size_t t = 0; t < 3; t++) {
            setenv("KERN_ISA", isas[i], 1);
            if (kern_cpu(&kerns[n_kerns], threads[t], NULL) == ERR_OK)
                n_kerns++; /* else this machine lacks it */
        }
    return n_kerns ? 0 : 1;
}

static int teardown(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    (void)state;
    for (size_t k = 0; k < n_kerns; k++)
        kern_free(kerns[k]);
    for (size_t i = 0; i < MAX_COUNT; i++)
        munmap(guarded[i], GUARDED * sizeof(float) + page);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newton_schulz),
        cmocka_unit_test(alone_or_together),
        cmocka_unit_test(nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
