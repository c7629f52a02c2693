/*
 * power.h - x^a, correctly rounded.
 *
 * The coprime order asks at times whether p is above 0.5 where p is 0.5 up to rounding (shards of
 * equal length have equal weights), so a last bit can decide which windows a batch gets. Math
 * libraries differ there: of 16,000 powers of the kind that the loader takes, NumPy 2.4 with its
 * AVX-512 kernel rounds 786 not to nearest, NumPy 1.24 with its own 4,497, glibc 2.36 10. To
 * nearest is the one answer that can be stated without naming a library.
 */
#ifndef TRAINER_POWER_H
#define TRAINER_POWER_H

/* power - x^a for x in 1 .. 1e15 and a in 0 .. 1, to nearest. Computed to about 2^-98 and then
 * rounded, from + - * / and fma in a fixed order: wrong only where the true value is that close to
 * the middle between two doubles. */
double power(double x, double a);

#endif
