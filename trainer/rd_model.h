/*
 * rd_model.h - private to rd*.c: a model under quantisation.
 */
#ifndef TRAINER_RD_MODEL_H
#define TRAINER_RD_MODEL_H

#include "trainer/fisher.h"
#include "trainer/kl.h"
#include "trainer/rd.h"
#include "trainer/rd_matrix.h"

/* Matrices whose steps are tuned together. */
enum rd_group { RD_TABLE, RD_QKV, RD_OUT, RD_UP, RD_DOWN, RD_OTHER, RD_GROUPS };

enum { RD_NAME = sizeof((struct gpt_param *)0)->name + 8 };

/* What a step exponent takes, coded: about 5 bits. */
#define RD_EXPONENT_BYTES 0.6

/* One parameter: a matrix, or half floats when m.w is NULL. */
struct rd_item {
    const struct gpt_param *p;
    struct rd_matrix m;
    enum rd_group group;
    double *sense; /* [rows] owned */
    double trace;  /* of its Hessian, per token */
    size_t factor; /* index of its factor */
    double nudge;  /* multiplier of its own that fills the last bytes */
    float step[2];
    uint16_t *half; /* when it is no matrix */
    struct rd_result res;
    struct err err; /* of the thread that worked on it */
};

/* A factor under construction, shared by the matrices with that input. */
struct rd_factor {
    const char *name;
    float *h; /* [n][n] owned until the factor is there */
    size_t n;
    struct gptq_factor f;
    struct err err;
};

struct rd_model {
    const struct gpt *m;
    const float *params; /* host */
    const struct recipe *r;
    const struct rd_with *with;
    size_t threads;
    struct rd_item *item;
    size_t count;
    struct rd_factor *factor;
    size_t factors;
    int8_t *bytes; /* symbols and exponents of all matrices */
    float *back;   /* [m->floats] the model as it is stored */
    float *trial;  /* [m->floats] a mixture of both */
    uint16_t *half;
    char (*names)[RD_NAME];
    struct tensor_view *view;
    size_t nview;
    struct kl kl;
    double scale[RD_GROUPS]; /* multipliers of the groups' steps */
    size_t weights;          /* in matrices */
    size_t halves;
    double c; /* the constant of the last quantisation */
};

/* rd_model_init - memory and views, and the small tensors. rd_model_free accepts a zeroed struct.
 */
enum err_code rd_model_init(struct rd_model *d, struct err *e);
void rd_model_free(struct rd_model *d);

/* rd_model_calibrate - Hessians, factors, sensitivities, the text for divergences. */
enum err_code rd_model_calibrate(struct rd_model *d, struct err *e);

/* rd_model_quantise - all matrices at constant c (or one, when only is not NULL). */
enum err_code rd_model_quantise(struct rd_model *d, double c, struct rd_item *only, struct err *e);

/* rd_model_kl - divergence with the groups whose bit is set as they are stored, the others float.
 */
enum err_code rd_model_kl(struct rd_model *d, unsigned groups, double *kl, struct err *e);

/* rd_model_bits - about how many bits all matrices will take at c. */
double rd_model_bits(const struct rd_model *d, double c);

/* rd_model_fixed - bytes that do not depend on the steps: small tensors, exponents, and about as
 * much as loader, header, runner, byte table and recipe take. rd_model_estimate - bytes of the
 * whole file, by entropies. */
uint64_t rd_model_fixed(const struct rd_model *d);
uint64_t rd_model_estimate(const struct rd_model *d);

#endif
