/*
 * ops.h - compares two backends operation by operation: the CPU, which defines correct, and the one
 * under test. Every array exists on both sides with the same numbers.
 */
#ifndef TESTS_GPU_OPS_H
#define TESTS_GPU_OPS_H

#include "kernels/kernels.h"

enum { REFERENCE, TESTED, SIDES };

/* An array on both sides. */
struct arr {
    void *p[SIDES];
    size_t n;  /* elements */
    bool half; /* half values (kernels.h, kern_linear) on the tested side; floats of the CPU */
};

struct ops {
    struct kern *k[SIDES];
    uint64_t seed;
    size_t checks, failed;
    uint64_t bits;    /* a hash of all tested arrays: two runs with one seed must have the same */
    const char *what; /* the case, printed with a failure */
    struct arr arrays[64];
    size_t count;
};

/* ops_input - n numbers, normally distributed, times scale. Also for outputs that are added to. */
struct arr ops_input(struct ops *o, size_t n, float scale);

/* ops_weights - the same, one number behind an aligned address: as matrices lie in a model. */
struct arr ops_weights(struct ops *o, size_t n, float scale);

/* ops_output - n numbers that are NaN until an operation writes them. */
struct arr ops_output(struct ops *o, size_t n);

/* ops_half_input, ops_half_output - the same with half values on the tested side; inputs are
 * numbers that these can hold. Only where the tested backend has them: ops_has_half. */
struct arr ops_half_input(struct ops *o, size_t n, float scale);
struct arr ops_half_output(struct ops *o, size_t n);
bool ops_has_half(const struct ops *o);

/* ops_ids - n token ids below vocab, skewed as in text. */
struct arr ops_ids(struct ops *o, size_t n, size_t vocab);

/* ops_check - is |tested - reference| at most tolerance * |reference|, both Euclidean norms, and no
 * element of the tested array NaN? Says so if not. */
void ops_check(struct ops *o, const char *name, struct arr a, double tolerance);

/* ops_small - is no element of the tested array above most? For what is zero but for rounding. */
void ops_small(struct ops *o, const char *name, struct arr a, double most);

/* ops_verdict - what was found out otherwise. */
void ops_verdict(struct ops *o, const char *name, bool good);

/* ops_case - begins a case: reports a failure of the device in the last one, frees its arrays. */
void ops_case(struct ops *o, const char *what);

/* Operations, a file each. small: sizes for tools that slow everything down. */
void ops_rows(struct ops *o, bool small);
void ops_products(struct ops *o, bool small);
void ops_attention(struct ops *o, bool small);
void ops_loss(struct ops *o, bool small);
void ops_optimiser(struct ops *o, bool small);
void ops_updates(struct ops *o, bool small);
void ops_halves(struct ops *o, bool small);
void ops_stream(struct ops *o, bool small);
void ops_xsa(struct ops *o, bool small);
void ops_qkv(struct ops *o, bool small);
void ops_mlps(struct ops *o, bool small);
void ops_step(struct ops *o);

#define F(array)   ((float *)(array).p[s])
#define IDS(array) ((uint16_t *)(array).p[s])
#define BOTH(o, ...)                                                                               \
    for (int s = 0; s < SIDES; s++) {                                                              \
        struct kern *k = (o)->k[s];                                                                \
        __VA_ARGS__;                                                                               \
    }

#endif
