/*
 * import.h - somebody else's packed record becomes quantised weights of this project: what `packer
 * import` does, without its printing.
 *
 * The integers and scales stay as they are, so that the imported model is the record's model to the
 * last bit; only names and shapes are brought into line: banks (qo_bank, kv_bank, mlp_up_bank,
 * mlp_down_bank of #549's lineage) are taken apart into the matrices of the blocks, and scalars get
 * an axis. What is packed into fewer bits than bytes is unpacked; scales that are no fp16 per row or
 * per group of a row go into the product (packer/import_layout.h). Layouts that are understood:
 *
 *   records     {"w": {X.q, X.scale, X}, "m": {X: type}}       integers per row; fp16, fp32, bf16
 *   int8        {"__quant_format__", "quantized", "scales", "passthrough", ...}     the baseline
 *   entries     {X: {"type", "data" or "q" or "packed", ...}}   ternary, binary, int4 to int8, fp8
 *   state dict  {X: tensor}, with X.q and X.scale or without     never quantised, or an .npz
 *
 * The last two may also lie under "model", "state_dict", "model_state_dict" or "weights".
 */
#ifndef PACKER_IMPORT_H
#define PACKER_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/err.h"
#include "model/recipe.h"
#include "model/safetensors.h"
#include "packer/ptz_read.h"

struct import_job {
    const char *record;         /* the .ptz file */
    const char *recipe;         /* recipe file: what the model is; NULL: the file itself tells */
    const char *const *setting; /* settings KEY=VALUE over it */
    size_t settings;
    const char *code;             /* the record's script, for its size; or NULL */
    const char *const *leave_out; /* tensors whose names begin so are not wanted */
    size_t leave_outs;
    const char *out; /* safetensors to write */
};

enum { IMPORT_LINE = 200, IMPORT_LINES = 1024, IMPORT_TYPES = 12 };

struct import_report {
    char layers[PTZ_LAYERS_TEXT]; /* around the payload: "brotli, byte shuffle 2"; "" none */
    const char *payload, *layout; /* "torch zip", ...; "records", ...; NULL: not that far */
    size_t file_bytes, payload_bytes;
    size_t code_bytes; /* of job->code, 0: not given */
    struct {
        char name[16];
        size_t tensors, elements;
    } type[IMPORT_TYPES];                 /* "int6", "F16", ...; the unused ones have no name */
    char line[IMPORT_LINES][IMPORT_LINE]; /* what is not understood, and remarks */
    size_t lines;                         /* as many as there are, kept or not */
    size_t problems;                      /* lines that stand in the way */
};

/*
 * import_record - read, fit to the recipe's model, write. Recipe, the file's name and size, and
 * that of the script stand in the metadata. EMBED_BF16 becomes 1 when the file says that its tables
 * were bf16.
 *
 * Without a recipe one is made from the names and shapes, job->setting over it; rep->line says what
 * was found and which defaults were taken.
 *
 * Nothing is written unless every tensor of the file is a parameter of the model (or begins with
 * one of job->leave_out, which the metadata then say) and the other way round; rep->line says for
 * each what is wrong. rep is filled on failure too, as far as it got. Fails: ERR_INPUT, ERR_USAGE
 * for the recipe, ERR_RESOURCE.
 */
enum err_code import_record(const struct import_job *job, struct import_report *rep, struct err *e);

/*
 * import_parse - the middle of it, for an open file: the tensors that the recipe's model wants,
 * in state-dict order, as gpt_load takes them.
 *
 *   job  what to leave out; without a recipe in it also settings, over what the file tells. NULL:
 *        nothing, and r is the recipe
 *   r    in: the recipe, or its defaults; out: with what the file itself says
 *   t    out: *count views; they point into p and into *names. Release both with free().
 */
enum err_code import_parse(struct ptz *p, const struct import_job *job, struct recipe *r,
                           struct tensor_view **t, size_t *count, void **names,
                           struct import_report *rep, struct err *e);

/*
 * import_saved - what a submission of `bytes` saves against the record that its weights came from,
 * as a line without its end: "1,234 bytes smaller than ...". f is the weight file: its metadata
 * hold the record's sizes. Returns false, and an empty text, for weights that were not imported.
 */
bool import_saved(char *out, size_t cap, const struct st_file *f, size_t bytes);

/* import_saved_print - that line to out, for the weight file of this name; nothing for weights that
 * were not imported. ERR_INPUT when the file cannot be read. */
enum err_code import_saved_print(FILE *out, const char *weights, size_t bytes, struct err *e);

void import_report_print(const struct import_report *rep, FILE *out);

#endif
