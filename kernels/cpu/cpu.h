/*
 * cpu.h - what the files of kernels/cpu share: the state behind struct kern and how work is split.
 *
 * Every *.inc.h in this room holds static functions with the names and signatures of the entries of
 * struct kern, written once against v16.h. isa_portable.c, isa_avx2.c and isa_avx512.c include them
 * all and export one table each; dispatch.c picks a table and adds memory management.
 *
 * KERN_FORWARD_ONLY (the runner inside a submission) leaves out gradients and optimisers: their
 * entries are NULL and their code is not compiled.
 */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"

struct pool;

/* k->impl of the CPU backend. */
struct cpu {
    struct pool *pool;
    size_t threads;
    float *scratch; /* one block: the shared area, then one area per thread */
    size_t scratch_floats;
    size_t shared, per_thread; /* floats, of the latest cpu_reserve */
    unsigned long long failed; /* bytes of the first allocation that failed since the last sync */
};

/* One table per instruction set; memory management and impl are NULL in it. */
extern const struct kern cpu_isa_portable, cpu_isa_avx2, cpu_isa_avx512;

/*
 * cpu_reserve - make room for temporary floats: `shared` for all threads together and `per_thread`
 * for each. Call it outside cpu_parallel, once per operation, before the pointers are taken.
 *
 * Contents are indeterminate afterwards. False when there is no memory: the operation then returns
 * without doing anything, and k->sync reports ERR_RESOURCE.
 */
bool cpu_reserve(struct cpu *c, size_t shared, size_t per_thread);

/* The areas of the latest cpu_reserve, 64-byte aligned. */
static inline float *cpu_shared(const struct cpu *c)
{
    return c->scratch;
}

static inline float *cpu_scratch(const struct cpu *c, size_t thread)
{
    return c->scratch + c->shared + thread * c->per_thread;
}

/*
 * cpu_parallel - call fn(ctx, task, thread) once for each task 0..ntasks-1, and return when all are
 * done.
 *
 * Which thread (0..threads-1, for cpu_scratch) runs which task depends on timing, so a task must
 * own its outputs and its result must not depend on `thread`. Not to be nested.
 */
typedef void cpu_task(void *ctx, size_t task, size_t thread);
void cpu_parallel(struct cpu *c, cpu_task *fn, void *ctx, size_t ntasks);

/* ceil(a / b), for counting tasks. */
static inline size_t cpu_ceil_div(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

static inline size_t cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
