/*
 * linalg.c - see linalg.h.
 *
 * Blocks of 64 columns are updated with everything on their left at once, so that nearly all the
 * work is linalg_sub. n = 2048 takes about a second on one core with two lanes per register, which
 * is every x86-64; wider registers would be quicker and are not needed.
 */
#include "trainer/linalg.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64, TILE = 4 };

/* A vector type can have no other spelling; two lanes are what every x86-64 has. */
typedef double lanes __attribute__((vector_size(16)));

static inline lanes load(const double *p)
{
    lanes x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* sum[TILE][LINALG_PANEL] of the four rows a[] with one panel. */
static void tile(double *sum, const double *const a[TILE], const double *b, size_t k)
{
    lanes s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0}, s20 = {0}, s21 = {0}, s30 = {0}, s31 = {0};
    const double *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    for (size_t p = 0; p < k; p++, b += LINALG_PANEL) {
        lanes b0 = load(b), b1 = load(b + 2);
        lanes x0 = {a0[p], a0[p]}, x1 = {a1[p], a1[p]}, x2 = {a2[p], a2[p]}, x3 = {a3[p], a3[p]};
        s00 += x0 * b0;
        s01 += x0 * b1;
        s10 += x1 * b0;
        s11 += x1 * b1;
        s20 += x2 * b0;
        s21 += x2 * b1;
        s30 += x3 * b0;
        s31 += x3 * b1;
    }
    const lanes all[] = {s00, s01, s10, s11, s20, s21, s30, s31};
    memcpy(sum, all, sizeof all);
}

void linalg_sub(double *c, size_t ldc, const double *a, size_t lda, const double *b, size_t stride,
                size_t m, size_t n, size_t k, bool keep)
{
    for (size_t j = 0; j < n; j += LINALG_PANEL)
        for (size_t i = 0; i < m; i += TILE) {
            size_t rows = m - i < TILE ? m - i : TILE;
            size_t cols = n - j < LINALG_PANEL ? n - j : LINALG_PANEL;
            double sum[TILE * LINALG_PANEL];
            const double *row[TILE];
            for (size_t r = 0; r < TILE; r++) /* rows that are not there repeat the last one */
                row[r] = a + (i + (r < rows ? r : rows - 1)) * lda;
            tile(sum, row, b + j * stride, k);
            for (size_t r = 0; r < rows; r++)
                for (size_t q = 0; q < cols; q++) {
                    double *x = c + (i + r) * ldc + j + q;
                    *x = (keep ? *x : 0) - sum[r * LINALG_PANEL + q];
                }
        }
}

/* [k][n] into panels: element (p, j) is b[p*down + j*right]. */
static void pack(double *out, const double *b, size_t down, size_t right, size_t k, size_t n)
{
    for (size_t j = 0; j < n; j += LINALG_PANEL)
        for (size_t p = 0; p < k; p++)
            for (size_t q = j; q < j + LINALG_PANEL; q++)
                *out++ = q < n ? b[p * down + q * right] : 0;
}

/* Cholesky of the n x n block at a, lower triangle. */
static bool factor_block(double *a, size_t n, size_t ld)
{
    for (size_t j = 0; j < n; j++) {
        double *row = a + j * ld, d = row[j];
        for (size_t p = 0; p < j; p++)
            d -= row[p] * row[p];
        if (!(d > 0) || !isfinite(d))
            return false;
        row[j] = sqrt(d);
        for (size_t i = j + 1; i < n; i++) {
            double x = a[i * ld + j];
            for (size_t p = 0; p < j; p++)
                x -= a[i * ld + p] * row[p];
            a[i * ld + j] = x / row[j];
        }
    }
    return true;
}

/* x L^T = x in place for one row x of n, L the lower triangle at l. */
static void solve_row(double *x, const double *l, size_t n, size_t ld)
{
    for (size_t j = 0; j < n; j++) {
        double v = x[j];
        for (size_t p = 0; p < j; p++)
            v -= x[p] * l[j * ld + p];
        x[j] = v / l[j * ld + j];
    }
}

static bool cholesky(double *a, size_t n, double *work)
{
    for (size_t j = 0; j < n; j += BLOCK) {
        size_t nb = n - j < BLOCK ? n - j : BLOCK;
        pack(work, a + j * n, 1, n, j, nb); /* the rows of this block, transposed */
        linalg_sub(a + j * n + j, n, a + j * n, n, work, j, n - j, nb, j, true);
        if (!factor_block(a + j * n + j, nb, n))
            return false;
        for (size_t i = j + nb; i < n; i++)
            solve_row(a + i * n + j, a + j * n + j, nb, n);
    }
    return true;
}

/* out [n][n] = minus the inverse of the lower triangle at l, zeros above the diagonal. */
static void invert_block(double *out, const double *l, size_t n, size_t ld)
{
    memset(out, 0, n * n * sizeof *out);
    for (size_t j = 0; j < n; j++) {
        out[j * n + j] = -1 / l[j * ld + j];
        for (size_t i = j + 1; i < n; i++) {
            double x = 0;
            for (size_t p = j; p < i; p++)
                x -= l[i * ld + p] * out[p * n + j];
            out[i * n + j] = x / l[i * ld + i];
        }
    }
}

/*
 * The lower triangle L by its inverse M, blocks of rows from the top:
 *   M[I][J] = -M[I][I] (sum over J <= K < I of L[I][K] M[K][J])
 */
static void invert(double *a, size_t n, double *work)
{
    double *diag = work, *t = diag + BLOCK * BLOCK, *panels = t + BLOCK * BLOCK;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t nb = n - i < BLOCK ? n - i : BLOCK;
        invert_block(diag, a + i * n + i, nb, n);
        for (size_t j = 0; j < i; j += BLOCK) { /* columns further right of L[I] are still needed */
            pack(panels, a + j * n + j, n, 1, i - j, BLOCK);
            linalg_sub(t, BLOCK, a + i * n + j, n, panels, i - j, nb, BLOCK, i - j, false);
            pack(panels, t, BLOCK, 1, nb, BLOCK);
            linalg_sub(a + i * n + j, n, diag, nb, panels, nb, nb, BLOCK, nb, false);
        }
        for (size_t r = 0; r < nb; r++)
            for (size_t q = 0; q < nb; q++)
                a[(i + r) * n + i + q] = -diag[r * nb + q];
    }
}

/* Rows and columns in reverse order. */
static void reverse(double *a, size_t n)
{
    for (size_t i = 0, j = n * n - 1; i < j; i++, j--) {
        double x = a[i];
        a[i] = a[j];
        a[j] = x;
    }
}

size_t linalg_factor_work(size_t n)
{
    return 2 * BLOCK * BLOCK + linalg_panels(n + BLOCK, BLOCK);
}

bool linalg_inverse_factor(double *a, size_t n, double *work)
{
    if (!n)
        return true;
    reverse(a, n);
    if (!cholesky(a, n, work))
        return false;
    invert(a, n, work);
    for (size_t i = 0; i < n; i++)
        memset(a + i * n + i + 1, 0, (n - i - 1) * sizeof *a);
    reverse(a, n);
    return true;
}
