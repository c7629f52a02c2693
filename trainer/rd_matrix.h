/*
 * rd_matrix.h - one matrix for QUANTIZER=rd: a step for every element, symbols with feedback.
 *
 * An error d_i in row i costs about 1/2 f_i d_i^T H d_i (fisher.h). GPTQ decides column by column
 * and lets later columns make good each error; then the cost is exactly
 *
 *     1/2 * sum over i, j of f_i (e_ij / U_jj)^2        U^T U = H^-1, upper triangular
 *
 * with e_ij the rounding error of element (i, j) as it was when its turn came. At a given number of
 * bits the sum is smallest when all its terms are alike, that is with
 *
 *     step_ij = c * U_jj / sqrt(f_i)
 *
 * and one c for the whole model. The part of the columns is the rule of WaterSIC
 * (arXiv:2603.04956); the part of the rows is the Fisher information. Both factors are sent as
 * exponents of 2^(1/4).
 *
 * Symbols come from the trellis of tcq.h down each column, which GPTQ allows: the errors of one
 * column do not touch each other. Rows and columns that are small beside their steps (sigma/step
 * below RD_PLAIN) stay outside the trellis, where half of the states could not say zero.
 */
#ifndef TRAINER_RD_MATRIX_H
#define TRAINER_RD_MATRIX_H

#include "kernels/kernels.h"
#include "model/dequant.h"
#include "trainer/gptq.h"

#define RD_PLAIN 0.6

/* The project's own functions: those of the C library differ in their last bits from machine to
 * machine, and with them the constant and the whole file. */
static inline double rd_log2(double x)
{
    return kern_log(x) / 0x1.62e42fefa39efp-1;
}
static inline double rd_exp2(double x)
{
    return kern_exp(x * 0x1.62e42fefa39efp-1);
}

/* RD_STEPS: the whole rule, or less of it, to see what each part is worth. */
enum rd_steps {
    RD_FISHER, /* the rule above */
    RD_OPEN,   /* the same steps without feedback: every weight rounded for itself */
    RD_COLUMN, /* the factors of columns; one f for all rows, their mean */
    RD_MATRIX, /* one step for all elements; matrices differ as the rule has it */
    RD_ROW,    /* the standard deviation of the row times c, nothing from data but the feedback: the
                  rule of #1394 ("SDClip") */
    RD_STEPS_COUNT
};
extern const char *const rd_steps_name[RD_STEPS_COUNT];

/* rd_steps_parse - by name; RD_STEPS_COUNT when it is none. */
enum rd_steps rd_steps_parse(const char *name);

/* What is known of a matrix, and where its result goes. Nothing is owned. */
struct rd_matrix {
    const char *name;
    const float *w; /* [rows][cols], finite */
    size_t rows, cols;
    const struct gptq_factor *f; /* of H, definite */
    const double *sense;         /* [rows] f_i, positive */
    size_t states;               /* 0: plain rounding */
    enum rd_steps rule;
    int8_t *q, *rexp, *cexp; /* [rows][cols], [rows], [cols] out */
    float *step;             /* [2] out */
    float *back;             /* [rows][cols] out: what the loader makes of it */
};

struct rd_result {
    double damage; /* the cost above, nats per token */
    double bits;   /* entropy of the symbols per element, of each trellis state's kind by itself */
    double err2, norm2; /* sums of squares: w - back, w */
    double step;        /* geometric mean of step_ij */
    size_t plain;       /* elements outside the trellis */
    size_t edge;        /* symbols at the end of the range, where steps are too fine */
};

/* rd_matrix - quantise with constant c. ERR_RESOURCE: memory, 20 bytes per element. The result
 * depends on the arguments alone. */
enum err_code rd_matrix(const struct rd_matrix *m, double c, struct rd_result *out, struct err *e);

/* rd_matrix_bits - about how many bits the whole matrix will take at c, from the variances of its
 * rows; for a first guess. */
double rd_matrix_bits(const struct rd_matrix *m, double c);

/* rd_matrix_range - the constant below which no row's steps get any finer, because symbols would
 * not reach its largest weight, and one above which all symbols are 0. Infinities (the empty range)
 * when all weights are 0. */
void rd_matrix_range(const struct rd_matrix *m, double *finest, double *coarsest);

#endif
