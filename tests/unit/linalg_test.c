/*
 * linalg_test.c - exists for a factor that is nearly right: a block whose edge was left out, a
 * triangle that was read from the wrong side, a matrix that is not positive definite and passes.
 */
#include <math.h>
#include <string.h>

#include "tests/unit/util.h"
#include "trainer/linalg.h"

/* Edges of the blocks (64) and tiles (4), and a size with several blocks. */
static const size_t sizes[] = {1, 2, 3, 4, 5, 63, 64, 65, 127, 130, 201};

/* Symmetric with eigenvalues from 1 on: B B^T + 1, B random with decaying rows. */
static double *random_definite(size_t n, uint64_t seed)
{
    double *b = malloc(n * n * sizeof *b), *a = calloc(n * n, sizeof *a);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            b[i * n + j] = util_uniform(&seed) * 10 / (1 + 0.1 * (double)i);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            for (size_t p = 0; p < n; p++)
                a[i * n + j] += b[i * n + p] * b[j * n + p];
            a[i * n + j] += i == j;
        }
    free(b);
    return a;
}

/* U is upper triangular with a positive diagonal, and U A U^T = 1, which says U^T U = A^-1. */
static void test_factor(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(sizes); c++) {
        size_t n = sizes[c];
        double *a = random_definite(n, c + 1), *u = malloc(n * n * sizeof *u);
        double *ua = calloc(n * n, sizeof *ua),
               *work = malloc(linalg_factor_work(n) * sizeof *work);
        memcpy(u, a, n * n * sizeof *u);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < i; j++)
                u[i * n + j] = NAN; /* not read */
        if (!linalg_inverse_factor(u, n, work))
            fail_msg("n %zu: refused", n);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                if (j < i ? u[i * n + j] != 0 : j == i && !(u[i * n + j] > 0))
                    fail_msg("n %zu: U[%zu][%zu] = %g", n, i, j, u[i * n + j]);
                for (size_t p = 0; p < n; p++)
                    ua[i * n + j] += u[i * n + p] * a[p * n + j];
            }
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double x = 0;
                for (size_t p = 0; p < n; p++)
                    x += ua[i * n + p] * u[j * n + p];
                if (!(fabs(x - (i == j)) < 1e-9))
                    fail_msg("n %zu: (U A U^T)[%zu][%zu] = %g", n, i, j, x);
            }
        free(work);
        free(ua);
        free(u);
        free(a);
    }
}

static void test_not_definite(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double value;
    } cases[] = {{"zero", 0}, {"negative", -1}, {"NaN", NAN}, {"infinite", INFINITY}};
    for (size_t c = 0; c < COUNT(cases); c++)
        for (size_t s = 0; s < COUNT(sizes); s++) {
            size_t n = sizes[s], at = n / 2;
            double *a = calloc(n * n, sizeof *a);
            double *work = malloc(linalg_factor_work(n) * sizeof *work);
            for (size_t i = 0; i < n; i++)
                a[i * n + i] = i == at ? cases[c].value : 2;
            if (linalg_inverse_factor(a, n, work))
                fail_msg("%s on the diagonal, n %zu: accepted", cases[c].name, n);
            free(work);
            free(a);
        }
}

/* The product on every shape around the tile, against three loops. */
static void test_product(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (size_t m = 1; m <= 9; m++)
        for (size_t n = 1; n <= 9; n++)
            for (size_t k = 0; k <= 5; k++) {
                double a[9 * 7], b[5 * 12], c[9 * 11], want;
                for (size_t i = 0; i < COUNT(a); i++)
                    a[i] = util_uniform(&seed);
                for (size_t i = 0; i < COUNT(b); i++)
                    b[i] = util_uniform(&seed);
                for (int keep = 0; keep < 2; keep++) {
                    for (size_t i = 0; i < COUNT(c); i++)
                        c[i] = 0.5;
                    linalg_sub(c, 11, a, 7, b, 5, m, n, k, keep);
                    for (size_t i = 0; i < 9; i++)
                        for (size_t j = 0; j < 11; j++) {
                            want = 0;
                            for (size_t p = 0; p < k; p++)
                                want += a[i * 7 + p] * b[j / 4 * 20 + p * 4 + j % 4];
                            want = i < m && j < n ? (keep ? 0.5 : 0) - want : 0.5;
                            if (c[i * 11 + j] != want)
                                fail_msg("%zux%zux%zu: [%zu][%zu] %g, expected %g", m, n, k, i, j,
                                         c[i * 11 + j], want);
                        }
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_not_definite),
        cmocka_unit_test(test_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
