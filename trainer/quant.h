/*
 * quant.h - from trained weights to the few bits per weight that are packed.
 *
 * A matrix W [rows][cols] becomes integers q in -levels..levels, levels = 2^(bits-1) - 1, and one
 * fp16 scale per row: W is about q * scale. What is stored is exactly what the loader multiplies
 * (gpt_load: one fp32 product), so the errors reported here are those of the packed model.
 * docs/quantisation.md is the manual.
 *
 * Everything here runs on the host, single precision unless said otherwise, in one fixed order: the
 * same weights and settings give the same bytes on every machine.
 */
#ifndef TRAINER_QUANT_H
#define TRAINER_QUANT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/err.h"
#include "model/gpt.h"
#include "model/recipe.h"
#include "trainer/hessian.h"
#include "trainer/prune.h"
#include "trainer/rd_report.h"

/* How the clip of a row (the magnitude that becomes `levels`) is found. */
enum quant_clip {
    /* Each row its own: the QUANT_ROW_CLIPS clips from its maximum down to a quarter of it are
     * tried, and the smallest squared error of the row wins. */
    QUANT_CLIP_ROW,
    /* The records' search for block matrices (#549, #1276, #1296: quantize_int6_per_row): the
     * percentiles of quant_pct are tried, one for all rows, and the smallest squared error of the
     * matrix wins. */
    QUANT_CLIP_TENSOR,
    /* The records' rule for embeddings (baseline, #1296: quantize_float_tensor): the 99.99984th
     * percentile; integers come from the fp32 scale, which is rounded to fp16 only afterwards. */
    QUANT_CLIP_TOP,
};

enum { QUANT_PCTS = 5, QUANT_ROW_CLIPS = 48, QUANT_MIN_BITS = 2, QUANT_MAX_BITS = 8 };
extern const double quant_pct[QUANT_PCTS]; /* 0.999, 0.9995, 0.9999, 0.99999, 1 */
extern const double quant_top_pct;         /* 0.9999984 */

struct quant_how {
    unsigned bits; /* QUANT_MIN_BITS..QUANT_MAX_BITS */
    enum quant_clip clip;
    double floor; /* scales are at least floor/levels; 0: at least the smallest positive fp16 */
};

static inline int quant_levels(unsigned bits)
{
    return (1 << (bits - 1)) - 1;
}

/* What the search of QUANT_CLIP_TENSOR saw; zeros for the other kinds. */
struct quant_search {
    size_t winner;          /* index into quant_pct; the first of equals */
    double mse[QUANT_PCTS]; /* mean squared error of the matrix for each */
};

/*
 * quant_matrix - quantise one matrix.
 *
 *   q      [rows][cols] out
 *   scale  [rows] out, fp16 bits, positive and finite
 *   w      [rows][cols], finite
 *   name   for errors
 *   found  out, NULL when not wanted
 *
 * Rounding is to nearest, ties to even, of the fp32 quotient w/scale. ERR_INPUT: a weight is not
 * finite (says which) or so large that its scale is no fp16 number. ERR_RESOURCE: memory.
 */
enum err_code quant_matrix(int8_t *q, uint16_t *scale, const float *w, size_t rows, size_t cols,
                           const struct quant_how *how, const char *name,
                           struct quant_search *found, struct err *e);

/* The steps of quant_matrix, for tests and for quantisers that choose integers in another way. */

/*
 * quant_abs_quantile - the pct-quantile (0..1) of |w[0..n)|, n >= 1, as torch.quantile computes it:
 * rank = fp32(pct) * (n-1) in fp32, linear interpolation between the two neighbouring order
 * statistics.
 *
 *   work  scratch of quant_quantile_work(n, pct) floats
 */
float quant_abs_quantile(const float *w, size_t n, double pct, float *work);
size_t quant_quantile_work(size_t n, double pct);

/* quant_scale - max(clip/levels, floor/levels) in fp32, not yet rounded to fp16. */
float quant_scale(float clip, int levels, double floor);

/* quant_round - q[i] = clamp(rint(clamp(w[i], -clip, clip) / scale), -levels, levels); clip may be
 * INFINITY. */
void quant_round(int8_t *q, const float *w, size_t n, float clip, float scale, int levels);

/* How the integers of a tensor were chosen. */
enum quant_by {
    QUANT_BY_NOTHING,  /* fp16 */
    QUANT_BY_SEARCH,   /* rounded with the scales that quant_matrix found */
    QUANT_BY_GPTQ,     /* gptq.h */
    QUANT_BY_FALLBACK, /* as QUANT_BY_SEARCH, because the Hessian was not positive definite */
};

/* One parameter in the report. */
struct quant_line {
    char name[48];
    unsigned bits; /* 16: stored as fp16 */
    enum quant_by by;
    int pct; /* index into quant_pct of the winner, -1 where no percentiles were tried */
    size_t rows, numel;
    double mse;         /* mean squared error */
    double rel;         /* ||w - stored|| / ||w||, 0 for a zero tensor */
    double entropy;     /* order-0 bits per weight of q; 16 for fp16 */
    double at_edge;     /* share of the integers that are -levels or levels */
    double sensitivity; /* trace of the layer's Hessian (hessian.h), 0 where there is none */
    size_t pruned;      /* integers of +-1 that became 0 */
};

struct quant_report {
    struct quant_line *line; /* in file order */
    size_t count;
    struct quant_line total; /* over the quantised tensors alone; bits 0 */
    uint64_t numel;          /* parameters, quantised or not */
    uint64_t raw_bytes;      /* data of the file: q, scales, fp16 */
    double coded_bytes;      /* the same when q costs its order-0 entropy: what a coder without a
                                model needs, without its tables */
    uint64_t prune_target;   /* PRUNE_TARGET_BYTES; 0: no pruning was asked for */
    bool prune_left_out;     /* it was, but nothing could measure the record's file */
    struct prune_result prune;
    struct rd_report
        rd; /* QUANTIZER=rd: everything but numel, raw_bytes and coded_bytes is there */
};

void quant_report_free(struct quant_report *r); /* accepts a zeroed struct */
/* quant_report_print - the table that `packer quantize` shows. Columns of calibration and pruning
 * only where there was any. */
void quant_report_print(const struct quant_report *r, FILE *out);

/*
 * quant_report_write - the same for programs: UTF-8 text, fields between tabs.
 *
 *     # pgolf quantisation 1              the first line, as it stands
 *     # KEY<tab>VALUE                     any number of them
 *     tensor<tab>weights<tab>...          names of the columns
 *     tok_emb.weight<tab>131072<tab>...   one line per tensor, in file order; "-": not known
 *
 * Keys: quantizer (record or rd), and with rd target and bytes (of the whole file), measured (1:
 * bytes are real, 0: an estimate), kl (measured divergence, nats per token), damage (estimated),
 * next_kb (what another 1000 bytes would take away from kl). Columns, of which later versions may
 * have more:
 *
 *     tensor     name in the state dict
 *     weights    elements
 *     bits       entropy of the symbols per weight; 16: stored as fp16
 *     bytes      about, once coded: at that entropy, with scales or exponents
 *     relative   ||w - stored|| / ||w||
 *     damage     estimated share of the divergence, nats per token
 *     sensitive  rd: damage of an error of variance 1 in each weight; record: the Hessian's trace
 *     step       geometric mean of the steps
 *     tuned      multiplier of the steps that tuning gave
 *     plain      share of the elements outside the trellis
 *     next_kb    damage that another 1000 bytes in this tensor would take away
 *
 * Sum the bytes and scale them to the size of the weight section for a picture of the file.
 */
void quant_report_write(const struct quant_report *r, FILE *out);

/* quant_check - the settings of quantisation in a recipe; ERR_USAGE when one makes no sense. For
 * those who quantise after hours of something else. */
enum err_code quant_check(const struct recipe *r, struct err *e);

/* quant_needs_data - do these settings need calibration data (GPTQ, mixed bits)? */
bool quant_needs_data(const struct recipe *r);

/* quant_size - bytes of the record's own file (COMPRESSOR, ...) with these tensors: what pruning
 * makes fit. */
typedef enum err_code quant_size(void *ctx, const struct recipe *r, const struct tensor_view *t,
                                 size_t n, uint64_t *bytes, struct err *e);

/* What some settings need beside the weights. */
struct quant_with {
    const struct calib *calib; /* when quant_needs_data; its progress is called for all long work */
    quant_size *size;          /* PRUNE_TARGET_BYTES; NULL: pruning is left out, and reported so */
    void *size_ctx;
};

/*
 * quant_write - quantise a model and write it (safetensors, by way of a temporary file).
 *
 *   params  host, the whole parameter block
 *   r       the settings of quantisation; usually &m->r
 *   meta    nmeta pairs (key, value) for the file's metadata
 *   with    NULL when the settings need nothing
 *   rep     out, filled on success; NULL when not wanted
 *
 * Tensors in state-dict order, a quantised X as X.q (I8, shape of X) and X.scale (F16 [rows]); a
 * parameter of more than two dimensions counts as a matrix with its last axis as columns. Control
 * tensors, and whatever has at most QUANT_KEEP_NUMEL elements, are F16 with their own name. GPTQ
 * and mixed bits are for the matrices of blocks; pruning for all tensors of QUANT_BITS except
 * embedding and head.
 * ERR_USAGE: a setting that makes no sense, or that needs data when there are none. ERR_INPUT: a
 * weight that is not finite or does not fit fp16, naming the tensor.
 */
enum err_code quant_write(const struct gpt *m, const float *params, const struct recipe *r,
                          const char *const *meta, size_t nmeta, const char *path,
                          const struct quant_with *with, struct quant_report *rep, struct err *e);

/* What `packer quantize` is given beside files and settings. */
struct quant_tools {
    const char *data; /* directory with training shards; NULL: none */
    size_t threads;   /* for calibration, 0: all */
    /* size_check - can the record's file be made with these settings? Asked before any work when
     * PRUNE_TARGET_BYTES is set; with `size` only. */
    enum err_code (*size_check)(const struct recipe *r, struct err *e);
    quant_size *size; /* as in quant_with */
    void *size_ctx;
    /* fit - QUANTIZER=rd: bytes of the finished submission with these tensors (rd.h). It is given
     * the model's file first, with n = 0 and t = NULL, and may then refuse. */
    quant_size *fit;
    void *fit_ctx;
    void (*progress)(void *ctx, const char *what, size_t done, size_t all); /* may be NULL */
    void *progress_ctx;
};

/*
 * quant_file - the whole of `packer quantize`: read a model's weights, quantise, write.
 *
 *   settings  n strings KEY=VALUE, applied over the recipe in the file's metadata ("recipe"); only
 *             keys of quantisation are allowed: the others say what the model is and how it came
 *             about
 *   tools     NULL when there are none
 *
 * All metadata travel on; "recipe" gets the new settings. Calibration takes the first batches of
 * tools->data whatever GPTQ_DATA says: where training stopped is not known here. ERR_INPUT: no
 * recipe in the metadata, tensors that do not fit it; and as quant_write.
 */
enum err_code quant_file(const char *in, const char *out, const char *const *settings, size_t n,
                         const struct quant_tools *tools, struct quant_report *rep, struct err *e);

#endif
