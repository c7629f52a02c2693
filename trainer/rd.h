/*
 * rd.h - QUANTIZER=rd: a whole model quantised to a number of bytes.
 *
 * What is left of the target after code and small tensors is given to the weights where it prevents
 * most damage. Steps follow from what the model says about itself (rd_matrix.h, fisher.h); one
 * constant sets them all, and is searched until the finished file fits: by the real coder, not by
 * an estimate. docs/quantisation.md is the manual.
 */
#ifndef TRAINER_RD_H
#define TRAINER_RD_H

#include "trainer/quant.h"

/* rd_wanted - does the recipe ask for this quantiser? */
bool rd_wanted(const struct recipe *r);

/* rd_check - its settings; ERR_USAGE when one makes no sense. */
enum err_code rd_check(const struct recipe *r, struct err *e);

struct rd_with {
    const struct calib *calib; /* needed; its progress is called for all long work */
    size_t threads;            /* for matrices, several at a time; 0: all processors */
    /* size - bytes of the finished file with these tensors, asked about ten times. NULL: an
     * estimate, order-0 entropies and a fixed sum for everything else. */
    quant_size *size;
    void *size_ctx;
};

/*
 * rd_write - quantise a model to RD_TARGET_BYTES and write it (safetensors, as quant_write).
 *
 *   params, meta, nmeta, path, rep   as quant_write
 *
 * Matrices X are X.q, X.rexp, X.cexp and X.step (stub/trellis.h), everything else is F16. The file
 * is at most RD_TARGET_BYTES, and within 0.1 % below it unless the model has too few weights for so
 * many bytes; the report says so. The same inputs give the same file with any number of threads.
 * ERR_USAGE: settings, no data. ERR_INPUT: a weight that is not finite, or does not fit fp16.
 * ERR_RESOURCE: memory; the file would be larger than the target with all weights 0, and by how
 * much.
 */
enum err_code rd_write(const struct gpt *m, const float *params, const struct recipe *r,
                       const char *const *meta, size_t nmeta, const char *path,
                       const struct rd_with *with, struct quant_report *rep, struct err *e);

#endif
