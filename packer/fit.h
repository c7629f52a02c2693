/*
 * fit.h - how large a submission gets: the measure by which QUANTIZER=rd fills a file.
 */
#ifndef PACKER_FIT_H
#define PACKER_FIT_H

#include "model/recipe.h"
#include "model/tensor.h"
#include "packer/pack.h"

struct fit {
    struct pack_job job; /* weights: the float model, for its metadata */
    size_t rest;         /* bytes beside the weights; 0: not yet known */
};

/* fit_init - for a model's file, with the loader and the runner that this program has. */
void fit_init(struct fit *f, const char *weights);

/*
 * fit_size - a quant_size (trainer/quant.h): bytes of the submission with these tensors. With t
 * NULL only the rest is computed, which takes some seconds, and refused when something is missing
 * (byte table, recipe). `packer pack` with its own choice of codec makes a file of at most so many
 * bytes.
 */
enum err_code fit_size(void *fit, const struct recipe *r, const struct tensor_view *t, size_t n,
                       uint64_t *bytes, struct err *e);

#endif
