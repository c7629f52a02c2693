/*
 * pcg64.h - NumPy's random Generator, as far as the coprime loader draws from it.
 *
 * The same seed gives the same values as np.random.Generator(np.random.PCG64(seed)) does:
 *
 *   seeding     SeedSequence: the seed's 32-bit words are hashed into a pool of four words, the
 *               pool into eight (O'Neill, "Developing a seed_seq alternative", 2015)
 *   generator   PCG XSL-RR 128/64 (O'Neill, "PCG: a family of simple fast space-efficient
 *               statistically good algorithms", 2014), advance first, then output
 *   integers    Lemire's rejection (arXiv:1805.10941) on 32-bit draws for ranges up to 2^32; a
 *               64-bit draw is used as its low half, then its high half, which waits in `spare`
 *               also while doubles are drawn
 *   binomial    inversion for n*p <= 30, else BTPE (Kachitvichyanukul and Schmeiser, "Binomial
 *               random variate generation", CACM 31, 1988)
 *
 * exp and log are the project's own (kernels.h), so that one seed means the same values on every
 * machine. They may differ from the C library's in the last bits; a draw would have to fall within
 * about 1e-15 of a decision for this to be seen.
 *
 * Nothing here fails or allocates.
 */
#ifndef TRAINER_PCG64_H
#define TRAINER_PCG64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcg64 {
    uint64_t state[2], inc[2]; /* high, low */
    uint32_t spare;            /* the unused half of the last 64-bit draw, when has_spare */
    bool has_spare;
};

/* pcg64_seed - PCG64(seed). */
void pcg64_seed(struct pcg64 *g, uint64_t seed);

uint64_t pcg64_next(struct pcg64 *g);
uint32_t pcg64_next32(struct pcg64 *g);

/* pcg64_random - random(): [0, 1), 53 bits. */
double pcg64_random(struct pcg64 *g);

/* pcg64_below - integers(n): 0 .. n-1, n at least 1. integers(a, b) is a + pcg64_below(g, b-a).
 * n == 1 draws nothing. */
uint64_t pcg64_below(struct pcg64 *g, uint64_t n);

/* pcg64_permutation - permutation(n) into out [n]. */
void pcg64_permutation(struct pcg64 *g, size_t *out, size_t n);

/* pcg64_binomial - binomial(n, p), n at least 0. */
int64_t pcg64_binomial(struct pcg64 *g, int64_t n, double p);

/* pcg64_multinomial - multinomial(n, p) into out [d]; p [d] sums to 1, d at least 1. */
void pcg64_multinomial(struct pcg64 *g, int64_t *out, int64_t n, const double *p, size_t d);

/* pcg64_choice - choice(n, size=size, replace=False, p=p) into out [size].
 *
 *   p     [n] sums to 1; at least `size` of them above 0
 *   work  [2*n] scratch
 */
void pcg64_choice(struct pcg64 *g, size_t *out, size_t size, const double *p, size_t n,
                  double *work);

#endif
