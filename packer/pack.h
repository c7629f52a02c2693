/*
 * pack.h - from a weight file to a submission: what `packer pack` does, without its printing.
 */
#ifndef PACKER_PACK_H
#define PACKER_PACK_H

#include <stdbool.h>

#include "kernels/err.h"
#include "packer/blob.h"

struct pack_job {
    const char *weights; /* safetensors; metadata key `recipe` holds the recipe's text, of which the
                            model's and the scoring keys are packed */
    const char *out;     /* the submission to write */
    const char *tokenizer;  /* SentencePiece model to take the byte table from, or NULL */
    const char *byte_table; /* the byte table itself; NULL: byte_table.bin beside the weights */
    size_t target_bytes;    /* the file must not be larger */
    int codec;              /* enum codec, or CODEC_AUTO */
    bool with_source;
    bool cuda; /* the runner that looks for a card, and its kernels */
    /* Built files. runner_any is for weights with a codec that the others cannot decode (lzma,
     * range), runner_full for recipes whose EVAL_MODE trains (ttt, and slot-context with
     * SLOT_AFTER_TTT=1), runner for all others. Without runner_any CODEC_AUTO
     * is CODEC_CM; source may be NULL without with_source, runner_cuda and its kernels without
     * cuda. */
    const uint8_t *loader, *runner, *runner_full, *runner_any, *runner_cuda, *kernels, *source;
    size_t loader_n, runner_n, runner_full_n, runner_any_n, runner_cuda_n, kernels_n, source_n;
};

/*
 * pack - write the submission. b receives its layout, for the table (data pointers are NULL).
 *
 * Same inputs, same file. Fails: ERR_INPUT for weights, recipe or byte table that are no good (a
 * byte table that does not belong to the tokeniser that the weights name, ...); ERR_RESOURCE when
 * the file would exceed target_bytes, with the numbers, or cannot be written. On failure there is
 * no file.
 */
enum err_code pack(const struct pack_job *job, struct blob *b, struct err *e);

/*
 * pack_rest - bytes of such a submission without the contents of its weight section: what is not
 * there for weights. Of job->weights the metadata matter and that they fit the recipe; out,
 * target_bytes are not read. Errors as pack.
 */
enum err_code pack_rest(const struct pack_job *job, size_t *bytes, struct err *e);

#endif
