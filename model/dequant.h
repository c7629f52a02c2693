/*
 * dequant.h - weights of a matrix that QUANTIZER=rd made: symbols and step exponents to fp32.
 *
 * stub/trellis.h defines the form. Used by the loader of models and by the quantiser, which so
 * reports the errors of exactly the weights that a submission has. Static inline, because the
 * runner is built from a list of sources that need not know of it.
 */
#ifndef MODEL_DEQUANT_H
#define MODEL_DEQUANT_H

#include <stdbool.h>
#include <stddef.h>

#include "stub/trellis.h"

struct dequant {
    const int8_t *q;           /* [rows][cols] symbols */
    const int8_t *rexp, *cexp; /* [rows], [cols] exponents and flags */
    size_t rows, cols;
    float c;         /* X.step[0] */
    unsigned states; /* X.step[1]: 0, or a number that has a code */
};

/* dequant - w [rows][cols] = level * (c * 2^(rexp/4)) * 2^(cexp/4), two rounded fp32 products. */
static inline void dequant(float *w, const struct dequant *d)
{
    enum { BLOCK = 64 }; /* columns whose states are kept at a time */
    struct trellis code = trellis_code(d->states);
    for (size_t j0 = 0; j0 < d->cols; j0 += BLOCK) {
        size_t n = d->cols - j0 < BLOCK ? d->cols - j0 : BLOCK;
        uint8_t state[BLOCK] = {0};
        float cstep[BLOCK];
        for (size_t j = 0; j < n; j++)
            cstep[j] = step_pow(step_exponent(d->cexp[j0 + j]));
        for (size_t i = 0; i < d->rows; i++) {
            const int8_t *q = d->q + i * d->cols + j0;
            float *out = w + i * d->cols + j0, rstep = d->c * step_pow(step_exponent(d->rexp[i]));
            bool coded = d->states && !step_flag(d->rexp[i]);
            for (size_t j = 0; j < n; j++) {
                int half = 2 * q[j];
                if (coded && !step_flag(d->cexp[j0 + j])) {
                    half = trellis_half(state[j], q[j]);
                    state[j] = (uint8_t)trellis_next(code, state[j], q[j]);
                }
                out[j] = 0.5f * (float)half * rstep * cstep[j];
            }
        }
    }
}

#endif
