/*
 * linalg.h - the dense algebra that GPTQ needs, in double precision on the host.
 *
 * Matrices are row-major. Every element of a product is one chain: it starts at 0, the reduction
 * index goes up, one multiplication and one addition per step, no fused multiply-add. Nothing
 * depends on the instruction set or on threads, so neither do the integers that come out.
 */
#ifndef TRAINER_LINALG_H
#define TRAINER_LINALG_H

#include <stdbool.h>
#include <stddef.h>

enum { LINALG_PANEL = 4 }; /* columns of a panel */

/* Doubles that n columns of k rows take as panels. */
static inline size_t linalg_panels(size_t k, size_t n)
{
    return k * ((n + LINALG_PANEL - 1) / LINALG_PANEL * LINALG_PANEL);
}

/*
 * linalg_sub - c = c - a b, or c = 0 - a b when not `keep`.
 *
 *   c  [m][n], rows ldc apart; must not overlap a or b
 *   a  [m][k], rows lda apart
 *   b  [k][n] as panels of LINALG_PANEL columns: element (p, j) is
 *      b[j / LINALG_PANEL * stride * LINALG_PANEL + p * LINALG_PANEL + j % LINALG_PANEL],
 *      stride >= k; the last panel is complete, with any finite numbers beyond n
 */
void linalg_sub(double *c, size_t ldc, const double *a, size_t lda, const double *b, size_t stride,
                size_t m, size_t n, size_t k, bool keep);

/*
 * linalg_inverse_factor - the upper triangle U with U^T U = A^-1, in place of A.
 *
 *   a     [n][n] in: symmetric, only j >= i is read; out: U, zeros below the diagonal
 *   work  linalg_factor_work(n) doubles
 *
 * U is the Cholesky factor of the inverse, but the inverse is never formed. With rows and columns
 * in reverse order, A = L L^T; so in their own order A = R R^T, R upper triangular, and U = R^-1.
 * One factorisation and one triangular inverse, 2/3 n^3 operations together, and a condition number
 * that is the root of A's. Returns false when A is not positive definite (a pivot is not a positive
 * number); a is then rubbish.
 */
bool linalg_inverse_factor(double *a, size_t n, double *work);
size_t linalg_factor_work(size_t n);

#endif
