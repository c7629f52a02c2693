/*
 * init.h - the weights that training starts from, a function of recipe and seed alone.
 *
 * Every tensor draws from its own generator, seeded by SEED and its name: switching a part of the
 * architecture on leaves the initial values of all others as they were. The arithmetic uses own
 * elementary functions and fixed orders only, so one seed means the same bits everywhere. The
 * values are not those that PyTorch draws for the same seed, only their distributions:
 *
 *   INIT_CONST   the parameter's value
 *   INIT_NORMAL  N(0, value^2)
 *   INIT_MATRIX  INIT=uniform: U(-1/sqrt(n_in), 1/sqrt(n_in)), torch's linear default
 *                INIT=orthogonal: Q of the QR decomposition of a Gaussian matrix, R's diagonal
 *                positive: orthonormal rows when rows <= cols, else orthonormal columns. Matrices
 *                with fewer than 64 rows or columns stay uniform, as in the records
 *   INIT_PROJ    INIT_MATRIX; with PROJ_DEPTH_INIT an orthogonal one is divided by
 *                sqrt(2 NUM_LAYERS) (#1263). In the records a small one starts at zero, and with
 *                it, when its table is zero as well, never moves: here it starts uniform
 *   INIT_MIX     first row 1, second row 0
 */
#ifndef TRAINER_INIT_H
#define TRAINER_INIT_H

#include "model/gpt.h"

/* xoshiro256** (Blackman and Vigna, prng.di.unimi.it), seeded through splitmix64. */
struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *g, uint64_t seed, const char *name);
uint64_t rng_next(struct rng *g);
double rng_uniform(struct rng *g);             /* [0, 1), 53 bits */
void rng_normal(struct rng *g, double out[2]); /* two independent N(0, 1): Box-Muller */

/* init_params - fill params (host, m->floats floats). ERR_USAGE: INIT is neither word.
 * ERR_RESOURCE: no memory. */
enum err_code init_params(const struct gpt *m, float *params, struct err *e);

/* init_orthogonal - one matrix [rows][cols], as INIT=orthogonal. ERR_RESOURCE: no memory. */
enum err_code init_orthogonal(struct rng *g, float *w, size_t rows, size_t cols, struct err *e);

#endif
