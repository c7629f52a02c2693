/*
 * import.h - somebody else's packed record becomes quantised weights of this project: what `packer
 * import` does, without its printing.
 *
 * The integers and scales stay as they are, so that the imported model is the record's model to the
 * last bit; only names and shapes are brought into line: banks (qo_bank, kv_bank, mlp_up_bank,
 * mlp_down_bank of #549's lineage) are taken apart into the matrices of the blocks, and scalars get
 * an axis. Layouts that are understood:
 *
 *   records     {"w": {X.q, X.scale, X}, "m": {X: type}}       int5 to int8 per row; fp16, fp32,
 * bf16 int8        {"__quant_format__": "int8_clean_per_row_v1"}  the challenge's baseline state
 * dict  {X: tensor}                                    weights that were never quantised
 */
#ifndef PACKER_IMPORT_H
#define PACKER_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/err.h"
#include "model/recipe.h"
#include "packer/ptz_read.h"

struct import_job {
    const char *record;         /* the .ptz file */
    const char *recipe;         /* recipe file: what the model is */
    const char *const *setting; /* settings KEY=VALUE over it */
    size_t settings;
    const char *out; /* safetensors to write */
};

enum { IMPORT_LINE = 200, IMPORT_LINES = 64 };

struct import_report {
    const char *compressor, *layout;
    unsigned stride;
    size_t file_bytes, payload_bytes;
    struct {
        char name[16];
        size_t tensors, elements;
    } type[8];                            /* "int6", "F16", ...; the unused ones have no name */
    char line[IMPORT_LINES][IMPORT_LINE]; /* what is not understood, and remarks */
    size_t lines;                         /* as many as there are, kept or not */
    size_t problems;                      /* lines that stand in the way */
};

/*
 * import_record - read, fit to the recipe's model, write. `recipe` and where the weights came from
 * stand in the metadata. EMBED_BF16 becomes 1 when the file says that its tables were bf16.
 *
 * Nothing is written unless every tensor of the file is a parameter of the model and the other way
 * round; rep->line then says for each what is wrong. rep is filled on failure too, as far as it
 * got. Fails: ERR_INPUT, ERR_USAGE for the recipe, ERR_RESOURCE.
 */
enum err_code import_record(const struct import_job *job, struct import_report *rep, struct err *e);

/*
 * import_parse - the middle of it, for an open file: the tensors that the recipe's model wants,
 * in state-dict order, as gpt_load takes them.
 *
 *   r  in: the recipe; out: with what the file itself says
 *   t  out: *count views; they point into p and into *names. Release both with free().
 */
enum err_code import_parse(struct ptz *p, struct recipe *r, struct tensor_view **t, size_t *count,
                           void **names, struct import_report *rep, struct err *e);

void import_report_print(const struct import_report *rep, FILE *out);

#endif
