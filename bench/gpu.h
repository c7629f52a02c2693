/*
 * gpu.h - the two halves of bin/../bench/gpu (gpu.c): operations by themselves, and whole steps and
 * windows. Both measure on one backend and print lines.
 */
#ifndef BENCH_GPU_H
#define BENCH_GPU_H

#include "kernels/kernels.h"

struct gpu {
    struct kern *k;
    const char *only;    /* operations whose name has it; NULL: all */
    size_t rows, t;      /* tokens of a micro-batch, of a sequence */
    double flops, bytes; /* ceilings: per second, measured by gpu_ceilings */
};

typedef void gpu_fn(struct gpu *b, void *arg);

/* gpu_time - seconds of one call of fn: the best of five groups of calls, each group long enough
 * (a fiftieth of a second) for the one wait at its end not to count. A failure of the device ends
 * the program. */
double gpu_time(struct gpu *b, gpu_fn *fn, void *arg);

/* gpu_now - seconds; gpu_done - wait for the device. */
double gpu_now(void);
void gpu_done(struct gpu *b);

/* gpu_fail - say why and end the program with the status of rc. */
_Noreturn void gpu_fail(enum err_code rc, const char *why);

/* gpu_ceilings - the two rulers: a product of `side` cubed by linear_train on random half values
 * (linear_fwd where the backend has none), its weights held, and
 * axpby over 2^28 / small floats (it reads two arrays and writes one). */
void gpu_ceilings(struct gpu *b, bool small);

/* gpu_ops - every operation of a step of PR #1296 at its shapes, time beside floor. */
void gpu_ops(struct gpu *b);

/*
 * gpu_run - whole steps and windows of a recipe with random tokens.
 *
 *   seqs, micros  sequences of a micro-batch, micro-batches of a step
 *   windows       scored in a batch by the sliding mode, and by SLOT where the recipe has it
 */
void gpu_run(struct gpu *b, const char *recipe, size_t seqs, size_t micros, size_t windows);

#endif
