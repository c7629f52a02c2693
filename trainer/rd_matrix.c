/*
 * rd_matrix.c - see rd_matrix.h.
 *
 * Weights lie column by column in the order of the factor, all rows of a column side by side. As in
 * gptq.c, columns of a block update each other at once, and what came before a block is taken off
 * when the block is reached, as one product with all errors so far.
 */
#include "trainer/rd_matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/linalg.h"
#include "trainer/tcq.h"

/* REACH: steps that the largest weight of a row may have; feedback needs some room below
 * TCQ_MAX_SYMBOL. */
enum { BLOCK = 32, EXP_MAX = 60, REACH = 100 };

const char *const rd_steps_name[RD_STEPS_COUNT] = {[RD_FISHER] = "fisher",
                                                   [RD_OPEN] = "open",
                                                   [RD_COLUMN] = "column",
                                                   [RD_MATRIX] = "matrix",
                                                   [RD_ROW] = "row"};

enum rd_steps rd_steps_parse(const char *name)
{
    size_t i = 0;
    while (i < RD_STEPS_COUNT && strcmp(name, rd_steps_name[i]))
        i++;
    return (enum rd_steps)i;
}

/* Scratch of one matrix. */
struct work {
    const struct rd_matrix *m;
    size_t stride;        /* rows, rounded up to whole panels */
    double *w, *err;      /* [cols][stride]; panels of [cols][LINALG_PANEL] */
    double *row, *col;    /* [rows], [cols] logarithms (base 2^(1/4)) of the step factors */
    float *rstep, *cstep; /* [rows], [cols] as the loader has them */
    float *x, *weight;    /* [rows] the trellis's elements of a column, in steps */
    int8_t *k;            /* [rows] their symbols */
    void *tcq;
};

static void work_free(struct work *s)
{
    free(s->w);
    free(s->err);
    free(s->row);
    free(s->rstep);
    free(s->x);
    free(s->k);
    free(s->tcq);
}

static enum err_code work_init(struct work *s, const struct rd_matrix *m, struct err *e)
{
    size_t rows = m->rows, cols = m->cols, tcq = (tcq_work(rows, m->states) + 127) / 64 * 64;
    *s = (struct work){.m = m, .stride = (rows + LINALG_PANEL - 1) / LINALG_PANEL * LINALG_PANEL};
    s->w = calloc(cols * s->stride, sizeof *s->w);
    s->err = calloc(cols * s->stride, sizeof *s->err);
    s->row = malloc((rows + cols) * sizeof *s->row);
    s->rstep = malloc((rows + cols) * sizeof *s->rstep);
    s->x = malloc(2 * rows * sizeof *s->x);
    s->k = malloc(rows);
    s->tcq = aligned_alloc(64, tcq);
    if (!s->w || !s->err || !s->row || !s->rstep || !s->x || !s->k || !s->tcq)
        return err_nomem(e, m->name, 2 * cols * s->stride * sizeof *s->w + tcq);
    s->col = s->row + rows;
    s->cstep = s->rstep + rows;
    s->weight = s->x + rows;
    return ERR_OK;
}

/* 4 log2(x): the exponent of a step, before rounding. */
static double quarters(double x)
{
    return 4 * rd_log2(x);
}

static double from_quarters(double x)
{
    return rd_exp2(x / 4);
}

/* All n the same: the mean of the costs that they stand for, which go with their -2nd power. */
static void even_out(double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += from_quarters(-2 * x[i]);
    double all = -quarters(sum / (double)n) / 2;
    for (size_t i = 0; i < n; i++)
        x[i] = all;
}

/* Logarithms of the step factors. */
static void factors(const struct rd_matrix *m, double *row, double *col)
{
    const struct gptq_factor *f = m->f;
    for (size_t j = 0; j < m->cols; j++)
        col[f->perm[j]] = m->rule == RD_ROW ? 0 : quarters(f->ut[j * f->n + j]);
    for (size_t i = 0; i < m->rows; i++) {
        double sum = 0x1p-60;
        for (size_t j = 0; j < m->cols && m->rule == RD_ROW; j++)
            sum += (double)m->w[i * m->cols + j] * (double)m->w[i * m->cols + j];
        row[i] =
            m->rule == RD_ROW ? quarters(sum / (double)m->cols) / 2 : -quarters(m->sense[i]) / 2;
    }
    if (m->rule == RD_COLUMN || m->rule == RD_MATRIX)
        even_out(row, m->rows);
    if (m->rule == RD_MATRIX)
        even_out(col, m->cols);
}

/* Exponents around their mean, which is returned. */
static double centre(int8_t *exps, const double *x, size_t n)
{
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = rint(x[i] - mean);
        d = d > EXP_MAX ? EXP_MAX : d;
        exps[i] = (int8_t)(2 * (int)(d < -EXP_MAX ? -EXP_MAX : d));
    }
    return mean;
}

/*
 * Steps as the loader computes them. True when symbols reach all weights; otherwise something
 * becomes coarser by a quarter octave: columns that are beyond reach far more often than others (an
 * input with large weights should not cost all others their precision), or else rows.
 */
static bool within_reach(struct work *s)
{
    const struct rd_matrix *m = s->m;
    double *count = s->col, all = 0; /* the factors have been used */
    bool ok = true, column = false;
    memset(count, 0, m->cols * sizeof *count);
    for (size_t j = 0; j < m->cols; j++)
        s->cstep[j] = step_pow(step_exponent(m->cexp[j]));
    for (size_t i = 0; i < m->rows; i++) {
        float most = REACH * (s->rstep[i] = m->step[0] * step_pow(step_exponent(m->rexp[i])));
        s->row[i] = 0;
        for (size_t j = 0; j < m->cols; j++) {
            bool beyond = fabsf(m->w[i * m->cols + j]) > most * s->cstep[j];
            count[j] += beyond;
            s->row[i] += beyond;
        }
        ok = ok && !(s->row[i] > 0);
        all += s->row[i];
    }
    for (size_t j = 0; j < m->cols && !ok; j++)
        if (count[j] * 32 >= (double)m->rows && count[j] * (double)m->cols >= 4 * all &&
            m->cexp[j] < 2 * EXP_MAX) {
            m->cexp[j] += 2;
            column = true;
        }
    for (size_t i = 0; i < m->rows && !ok && !column; i++)
        if (s->row[i] > 0 && m->rexp[i] < 2 * EXP_MAX)
            m->rexp[i] += 2;
    return ok;
}

/* Exponents and the tensor's factor. */
static void set_steps(struct work *s, double c, struct rd_result *out)
{
    const struct rd_matrix *m = s->m;
    factors(m, s->row, s->col);
    double mean = centre(m->rexp, s->row, m->rows) + centre(m->cexp, s->col, m->cols);
    out->step = c * from_quarters(mean);
    m->step[0] = (float)out->step;
    m->step[1] = (float)m->states;
    for (int pass = 0; pass < 8 * EXP_MAX && !within_reach(s); pass++)
        continue;
}

/* Rows that are small beside their steps leave the trellis, then columns of what is left. */
static void set_flags(struct work *s, struct rd_result *out)
{
    const struct rd_matrix *m = s->m;
    size_t rows = 0, cols = 0;
    double *col = s->col; /* the factors have been used */
    memset(col, 0, m->cols * sizeof *col);
    for (size_t i = 0; i < m->rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < m->cols; j++) {
            double x = (double)(m->w[i * m->cols + j] / s->rstep[i] / s->cstep[j]);
            sum += x * x;
        }
        if (!m->states || sum < RD_PLAIN * RD_PLAIN * (double)m->cols) {
            m->rexp[i]++; /* the exponent is even */
            continue;
        }
        rows++;
        for (size_t j = 0; j < m->cols; j++) {
            double x = (double)(m->w[i * m->cols + j] / s->rstep[i] / s->cstep[j]);
            col[j] += x * x;
        }
    }
    for (size_t j = 0; j < m->cols; j++)
        if (col[j] < RD_PLAIN * RD_PLAIN * (double)rows || !rows)
            m->cexp[j]++;
        else
            cols++;
    out->plain = m->rows * m->cols - rows * cols;
    for (size_t i = 0; i < m->rows && !m->states; i++)
        m->rexp[i] &= ~1; /* without states nothing is coded, and flags say nothing */
    for (size_t j = 0; j < m->cols && !m->states; j++)
        m->cexp[j] &= ~1;
}

static double *error_at(struct work *s, size_t place, size_t i)
{
    return &s->err[i / LINALG_PANEL * s->m->cols * LINALG_PANEL + place * LINALG_PANEL +
                   i % LINALG_PANEL];
}

static int8_t plain_symbol(float x)
{
    x = x > TCQ_MAX_SYMBOL ? TCQ_MAX_SYMBOL : x;
    return (int8_t)rintf(x < -TCQ_MAX_SYMBOL ? -TCQ_MAX_SYMBOL : x);
}

/* Symbols of a column into q: of the weights with the feedback so far, or as they are. */
static void column_symbols(struct work *s, size_t place, size_t col)
{
    const struct rd_matrix *m = s->m;
    const double *w = s->w + place * s->stride;
    bool coded = m->states && !step_flag(m->cexp[col]);
    size_t n = 0;
    for (size_t i = 0; i < m->rows; i++) {
        bool as_is = m->rule == RD_OPEN && !m->f->dead[col];
        float x = as_is ? m->w[i * m->cols + col] : (float)w[i];
        x /= s->rstep[i] * s->cstep[col];
        if (coded && !step_flag(m->rexp[i]))
            s->x[n++] = x;
        else
            m->q[i * m->cols + col] = plain_symbol(x);
    }
    if (!n)
        return;
    tcq_column(s->k, s->x, s->weight, n, m->states, s->tcq);
    for (size_t i = 0, at = 0; i < m->rows; i++)
        if (!step_flag(m->rexp[i]))
            m->q[i * m->cols + col] = s->k[at++];
}

/* Column at a place: symbols, errors, and what the rest of its block (places below end) gets. */
static void sweep_column(struct work *s, size_t place, size_t end, struct rd_result *out)
{
    const struct rd_matrix *m = s->m;
    const struct gptq_factor *f = m->f;
    struct trellis code = trellis_code((unsigned)m->states);
    size_t col = f->perm[place];
    double u = f->ut[place * f->n + place], *w = s->w + place * s->stride;
    bool coded = m->states && !step_flag(m->cexp[col]);
    unsigned state = 0;
    column_symbols(s, place, col);
    for (size_t i = 0; i < m->rows; i++) {
        int k = m->q[i * m->cols + col], half = 2 * k;
        if (coded && !step_flag(m->rexp[i])) {
            half = trellis_half(state, k);
            state = trellis_next(code, state, k);
        }
        w[i] = (w[i] - (double)(0.5f * (float)half * s->rstep[i] * s->cstep[col])) / u;
        *error_at(s, place, i) = w[i];
        out->damage += m->sense[i] * w[i] * w[i];
        out->edge += abs(k) == TCQ_MAX_SYMBOL;
    }
    for (size_t p = place + 1; p < end; p++) {
        double v = f->ut[p * f->n + place], *later = s->w + p * s->stride;
        for (size_t i = 0; i < m->rows; i++)
            later[i] -= v * w[i];
    }
}

static void sweep(struct work *s, struct rd_result *out)
{
    const struct rd_matrix *m = s->m;
    const struct gptq_factor *f = m->f;
    size_t n = f->n;
    for (size_t j = 0; j < n; j++) {
        double *w = s->w + j * s->stride;
        for (size_t i = 0; i < m->rows; i++) /* a dead column stays zero */
            w[i] = f->dead[f->perm[j]] ? 0 : (double)m->w[i * n + f->perm[j]];
    }
    for (size_t i = 0, at = 0; i < m->rows; i++)
        if (!step_flag(m->rexp[i])) {
            double r = (double)s->rstep[i] / out->step;
            s->weight[at++] = (float)(m->sense[i] * r * r);
        }
    for (size_t j = 0, nb; j < n; j += nb) {
        nb = n - j < BLOCK ? n - j : BLOCK;
        linalg_sub(s->w + j * s->stride, s->stride, f->ut + j * n, n, s->err, n, nb, s->stride, j,
                   true);
        for (size_t p = j; p < j + nb; p++)
            sweep_column(s, p, j + nb, out);
    }
    out->damage /= 2;
}

static double entropy_of(const size_t *count, size_t n)
{
    double bits = 0, all = 0;
    for (size_t i = 0; i < n; i++)
        all += (double)count[i];
    for (size_t i = 0; i < n; i++)
        if (count[i])
            bits -= (double)count[i] * rd_log2((double)count[i] / all);
    return bits;
}

/* Entropy of the symbols, of plain ones and of both kinds of states each by itself. */
static double symbol_bits(const struct rd_matrix *m)
{
    size_t count[3][256] = {{0}};
    struct trellis code = trellis_code((unsigned)m->states);
    for (size_t j = 0; j < m->cols; j++) {
        bool coded = m->states && !step_flag(m->cexp[j]);
        unsigned s = 0;
        for (size_t i = 0; i < m->rows; i++) {
            int k = m->q[i * m->cols + j];
            bool in = coded && !step_flag(m->rexp[i]);
            count[in ? s & 1 : 2][k + 128]++;
            s = in ? trellis_next(code, s, k) : s;
        }
    }
    return entropy_of(count[0], 256) + entropy_of(count[1], 256) + entropy_of(count[2], 256);
}

static void measure(const struct rd_matrix *m, struct rd_result *out)
{
    dequant(m->back, &(struct dequant){.q = m->q,
                                       .rexp = m->rexp,
                                       .cexp = m->cexp,
                                       .rows = m->rows,
                                       .cols = m->cols,
                                       .c = m->step[0],
                                       .states = (unsigned)m->states});
    for (size_t i = 0; i < m->rows * m->cols; i++) {
        double w = (double)m->w[i], d = w - (double)m->back[i];
        out->err2 += d * d;
        out->norm2 += w * w;
    }
    out->bits = symbol_bits(m) / (double)(m->rows * m->cols);
}

enum err_code rd_matrix(const struct rd_matrix *m, double c, struct rd_result *out, struct err *e)
{
    struct work s;
    enum err_code rc = work_init(&s, m, e);
    *out = (struct rd_result){0};
    if (!rc) {
        set_steps(&s, c, out);
        set_flags(&s, out);
        sweep(&s, out);
        measure(m, out);
    }
    work_free(&s);
    return rc;
}

double rd_matrix_bits(const struct rd_matrix *m, double c)
{
    double bits = 0, *row = malloc((m->rows + m->cols) * sizeof *row), *col;
    if (!row)
        return 4.0 * (double)(m->rows * m->cols); /* only a guess */
    col = row + m->rows;
    factors(m, row, col);
    for (size_t j = 0; j < m->cols; j++)
        col[j] = from_quarters(-2 * col[j]);
    for (size_t i = 0; i < m->rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < m->cols; j++) {
            double w = (double)m->w[i * m->cols + j];
            sum += w * w * col[j];
        }
        /* Entropy of a rounded normal variable of this variance, roughly: 2 pi e / 2 = 8.5. */
        double var = sum / (double)m->cols * from_quarters(-2 * row[i]) / (c * c);
        bits += 0.5 * (double)m->cols * rd_log2(1 + 17.08 * var);
    }
    free(row);
    return bits;
}

void rd_matrix_range(const struct rd_matrix *m, double *finest, double *coarsest)
{
    double *row = malloc((m->rows + m->cols) * sizeof *row), *col;
    *finest = INFINITY;
    *coarsest = -INFINITY;
    if (!row)
        return;
    col = row + m->rows;
    factors(m, row, col);
    for (size_t j = 0; j < m->cols; j++)
        col[j] = from_quarters(-col[j]);
    for (size_t i = 0; i < m->rows; i++) {
        double reach = 0;
        for (size_t j = 0; j < m->cols; j++)
            reach = fmax(reach, fabs((double)m->w[i * m->cols + j]) * col[j]);
        reach *= from_quarters(-row[i]);
        if (!(reach > 0))
            continue;
        *finest = fmin(*finest, reach / REACH);
        /* Half a step would do, were it not for feedback and for the rounding of exponents. */
        *coarsest = fmax(*coarsest, reach * 16);
    }
    free(row);
}
