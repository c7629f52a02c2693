/*
 * gptq.c - see gptq.h.
 *
 * The sweep of the paper: for each column j, q = round(w_j / s), e = (w_j - q s) / U[j][j], and
 * every later column c gets w_c -= e U[j][c]. Rows do not touch each other, so CHUNK of them go
 * through all columns at once, stored column by column: the inner loops run along rows. Columns of
 * a block update each other at once; what came before the block is taken off when the block is
 * reached, as one product with all errors so far.
 */
#include "trainer/gptq.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/linalg.h"

enum { CHUNK = 64 };
_Static_assert(CHUNK % LINALG_PANEL == 0, "errors are stored as whole panels");

void gptq_factor_free(struct gptq_factor *f)
{
    free(f->perm);
    free(f->dead);
    free(f->ut);
    *f = (struct gptq_factor){0};
}

struct place {
    float d;
    size_t col;
};

static int by_diagonal(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->d != y->d ? (x->d < y->d ? 1 : -1) : (x->col > y->col) - (x->col < y->col);
}

/* The damped diagonal, single precision as in the references; false when one is not finite. */
static bool damped_diagonal(struct place *d, bool *dead, const float *h, size_t n, double damp)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        d[i] = (struct place){h[i * n + i], i};
        if (!isfinite(d[i].d))
            return false;
        if ((dead[i] = d[i].d == 0))
            d[i].d = 1;
        sum += (double)d[i].d;
    }
    float more = (float)(damp * (sum / (double)n));
    for (size_t i = 0; i < n; i++)
        d[i].d += more;
    return true;
}

/* a [n][n] in place of its transpose. */
static void transpose(double *a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            double x = a[i * n + j];
            a[i * n + j] = a[j * n + i];
            a[j * n + i] = x;
        }
}

enum err_code gptq_factor_init(struct gptq_factor *f, const float *h, size_t n, double damp,
                               const char *name, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t bytes = (n * n + linalg_factor_work(n)) * sizeof(double);
    struct place *d = malloc(n * sizeof *d);
    double *work = malloc(linalg_factor_work(n) * sizeof *work);
    *f = (struct gptq_factor){.n = n};
    f->perm = malloc(n * sizeof *f->perm);
    f->dead = calloc(n, sizeof *f->dead);
    f->ut = malloc(n * n * sizeof *f->ut);
    if (!d || !work || !f->perm || !f->dead || !f->ut) {
        rc = err_nomem(e, name, bytes);
        gptq_factor_free(f);
        goto out;
    }
    f->definite = damped_diagonal(d, f->dead, h, n, damp);
    if (!f->definite)
        goto out;
    qsort(d, n, sizeof *d, by_diagonal);
    for (size_t i = 0; i < n; i++) {
        const float *row = h + d[i].col * n;
        f->perm[i] = d[i].col;
        for (size_t j = 0; j < n; j++)
            f->ut[i * n + j] = (double)row[d[j].col];
        f->ut[i * n + i] = (double)d[i].d;
    }
    f->definite = linalg_inverse_factor(f->ut, n, work);
    transpose(f->ut, n);
out:
    free(d);
    free(work);
    return rc;
}

/* Scratch of a sweep, for CHUNK rows, by place. */
struct sweep {
    const struct gptq_factor *f;
    size_t block;
    double levels;
    double *w;       /* [n][CHUNK] weights with what earlier columns left over */
    double *err;     /* panels of [n][CHUNK]: e of each column */
    int8_t *q;       /* [n][CHUNK] */
    double s[CHUNK]; /* scales */
};

/* To nearest, ties to even, for |x| < 2^51: the sum has no bits left below 1. */
static inline double round_even(double x)
{
    return x + 0x1.8p52 - 0x1.8p52;
}

/* Column j: integers, errors, and what the rest of its block (columns up to end) gets. */
static void sweep_column(struct sweep *s, size_t j, size_t end)
{
    size_t n = s->f->n;
    double e[CHUNK], d = s->f->ut[j * n + j], top = s->levels;
    const double *w = s->w + j * CHUNK;
    for (size_t r = 0; r < CHUNK; r++) {
        double x = w[r] / s->s[r];
        x = x > top ? top : x;
        x = round_even(x < -top ? -top : x);
        s->q[j * CHUNK + r] = (int8_t)x;
        e[r] = (w[r] - x * s->s[r]) / d;
        s->err[r / LINALG_PANEL * n * LINALG_PANEL + j * LINALG_PANEL + r % LINALG_PANEL] = e[r];
    }
    for (size_t c = j + 1; c < end; c++) {
        double u = s->f->ut[c * n + j], *x = s->w + c * CHUNK;
        for (size_t r = 0; r < CHUNK; r++)
            x[r] -= u * e[r];
    }
}

static void sweep_chunk(struct sweep *s)
{
    size_t n = s->f->n;
    for (size_t j = 0, nb; j < n; j += nb) {
        nb = n - j < s->block ? n - j : s->block;
        linalg_sub(s->w + j * CHUNK, CHUNK, s->f->ut + j * n, n, s->err, n, nb, CHUNK, j, true);
        for (size_t c = j; c < j + nb; c++)
            sweep_column(s, c, j + nb);
    }
}

/* Rows r0..r0+rows of W into s->w; rows that are not there are zeros with a scale of 1. */
static void load_chunk(struct sweep *s, const float *w, const uint16_t *scale, size_t r0,
                       size_t rows)
{
    size_t n = s->f->n;
    for (size_t r = 0; r < CHUNK; r++)
        s->s[r] = r < rows ? (double)f16_to_f32(scale[r0 + r]) : 1;
    for (size_t j = 0; j < n; j++) {
        size_t col = s->f->perm[j];
        for (size_t r = 0; r < CHUNK; r++) /* a dead column stays zero: nothing is added to it */
            s->w[j * CHUNK + r] = r < rows && !s->f->dead[col] ? (double)w[(r0 + r) * n + col] : 0;
    }
}

/* Integers of all rows with the given scales; returns the mean squared error. */
static double sweep_matrix(struct sweep *s, int8_t *q, const uint16_t *scale, const float *w,
                           size_t rows)
{
    size_t n = s->f->n;
    double sum = 0;
    for (size_t r0 = 0; r0 < rows; r0 += CHUNK) {
        size_t nr = rows - r0 < CHUNK ? rows - r0 : CHUNK;
        load_chunk(s, w, scale, r0, nr);
        sweep_chunk(s);
        for (size_t r = 0; r < nr; r++)
            for (size_t j = 0; j < n; j++) {
                size_t col = s->f->perm[j], at = (r0 + r) * n + col;
                q[at] = s->q[j * CHUNK + r];
                double want = s->f->dead[col] ? 0 : (double)w[at];
                double d = want - (double)q[at] * s->s[r];
                sum += d * d;
            }
    }
    return sum / (double)rows / (double)n;
}

/* Candidate scales of every percentile, [QUANT_PCTS][rows]. */
static enum err_code candidates(uint16_t *out, const float *w, size_t rows, size_t cols,
                                const struct quant_how *how, const char *name, struct err *e)
{
    size_t n = quant_quantile_work(cols, quant_pct[0]);
    float *work = malloc(n * sizeof *work);
    if (!work)
        return err_nomem(e, name, n * sizeof *work);
    for (size_t p = 0; p < QUANT_PCTS; p++)
        for (size_t r = 0; r < rows; r++) {
            float clip = quant_abs_quantile(w + r * cols, cols, quant_pct[p], work);
            out[p * rows + r] = f32_to_f16(quant_scale(clip, quant_levels(how->bits), how->floor));
        }
    free(work);
    return ERR_OK;
}

static bool all_finite(const uint16_t *half, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (half[i] >= 0x7c00)
            return false;
    return true;
}

/* The best of all candidates; q and scale hold the result of quant_matrix when none is finite. */
static void search(struct sweep *s, int8_t *q, uint16_t *scale, const float *w, size_t rows,
                   const uint16_t *cand, int8_t *trial, struct quant_search *found)
{
    double best = INFINITY;
    for (size_t p = 0; p < QUANT_PCTS; p++) {
        const uint16_t *sc = cand + p * rows;
        size_t same = 0;
        while (same < p && memcmp(sc, cand + same * rows, rows * sizeof *sc))
            same++;
        if (same < p)
            found->mse[p] = found->mse[same];
        else
            found->mse[p] = all_finite(sc, rows) ? sweep_matrix(s, trial, sc, w, rows) : INFINITY;
        if (same == p && found->mse[p] < best) {
            best = found->mse[p];
            found->winner = p;
            memcpy(q, trial, rows * s->f->n);
            memcpy(scale, sc, rows * sizeof *sc);
        }
    }
}

enum err_code gptq_matrix(int8_t *q, uint16_t *scale, const float *w, size_t rows,
                          const struct gptq_factor *f, const struct quant_how *how, size_t block,
                          const char *name, struct quant_search *found, struct err *e)
{
    assert(block && (how->clip == QUANT_CLIP_ROW || how->clip == QUANT_CLIP_TENSOR));
    size_t n = f->n, cells = n * CHUNK;
    struct quant_search seen = {0};
    enum err_code rc = quant_matrix(q, scale, w, rows, n, how, name, &seen, e);
    if (rc || !f->definite) {
        if (!rc && found)
            *found = seen;
        return rc;
    }
    struct sweep s = {.f = f, .block = block, .levels = quant_levels(how->bits)};
    uint16_t *cand = malloc(QUANT_PCTS * rows * sizeof *cand);
    int8_t *trial = malloc(rows * n);
    s.w = malloc(2 * cells * sizeof *s.w);
    s.q = malloc(cells);
    if (!cand || !trial || !s.w || !s.q) {
        rc = err_nomem(e, name, 2 * cells * sizeof *s.w + cells + rows * n);
        goto out;
    }
    s.err = s.w + cells;
    if (how->clip == QUANT_CLIP_ROW) {
        sweep_matrix(&s, q, scale, w, rows);
    } else {
        if ((rc = candidates(cand, w, rows, n, how, name, e)))
            goto out;
        search(&s, q, scale, w, rows, cand, trial, &seen);
    }
    if (found)
        *found = seen;
out:
    free(cand);
    free(trial);
    free(s.w);
    free(s.q);
    return rc;
}
