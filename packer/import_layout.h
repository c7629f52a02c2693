/*
 * import_layout.h - the dictionaries that records are packed as, reduced to one list of tensors.
 * Private to packer/import*.c. A new kind of file is one more row in the table of import_layout.c.
 *
 * The parts run in this order (import.c): import_collect, import_derive when there is no recipe,
 * import_unbank, import_settle.
 */
#ifndef PACKER_IMPORT_LAYOUT_H
#define PACKER_IMPORT_LAYOUT_H

#include "packer/import.h"

enum { FOUND_NAME = 96, FOUND_MAX = 8192, FOUND_TYPE = 16 };

/* X, X.q or X.scale under the project's name, and what the file calls its type. */
struct found {
    char name[FOUND_NAME];
    char type[FOUND_TYPE]; /* of X.q: "int6"; of X: "", or "ternary as BF16" */
    size_t group;          /* of X.q: numbers that share a scale, 0: as the scales' shape says */
    struct tensor_view view;
    bool used; /* a parameter of the model */
};

struct import {
    struct ptz *p;
    struct recipe *r;
    struct import_report *rep;
    struct found *found;
    size_t count, cap;
    bool bf16;       /* the record's script turns every weight into bf16 */
    bool gptq;       /* some matrix is said to be done by GPTQ */
    bool heads_told; /* the number of heads is in the file */
};

/* A remark, or something that stands in the way; one line each. */
void import_note(struct import *im, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void import_problem(struct import *im, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* import_add - one more tensor; prefixes that wrappers of torch add are dropped from its name. */
enum err_code import_add(struct import *im, const struct found *f, struct err *e);

/* import_look - the tensor called name + suffix, or NULL; of several the first. */
struct found *import_look(const struct import *im, const char *name, const char *suffix);

/* import_collect - all tensors of the file, banks still whole. ERR_INPUT when the dictionary is of
 * no known layout, or damaged; what concerns one tensor is an import_problem. */
enum err_code import_collect(struct import *im, struct err *e);

/* import_entry - one tensor that is a dictionary of its own: {"type", "data"}, {"q", "scale"} or
 * {"packed", "scale", "shape", ...} (import_entry.c). */
enum err_code import_entry(struct import *im, const char *name, const struct pickle_value *entry,
                           struct err *e);

/* import_derive - the recipe, from names and shapes: what the file tells, and defaults for the rest
 * (import_recipe.c). ERR_INPUT when there is no embedding table. */
enum err_code import_derive(struct import *im, struct err *e);

/* import_describe - remarks on a recipe of import_derive, over which settings may have come: what
 * the model is, and what the file does not tell. */
void import_describe(struct import *im);

/* import_unbank - banks become the matrices of NUM_LAYERS blocks (import_bank.c). */
enum err_code import_unbank(struct import *im, struct err *e);

/*
 * import_settle - what gpt_load takes: every X.q is I8 with one F16 scale per row or per group of a
 * row, every X a floating-point tensor (import_settle.c).
 *
 * Integers and scales stay as they are when that is possible without changing a bit: scales of one
 * per tensor, of groups that lie within rows or over whole ones, and of other types that F16 holds
 * exactly (the nearest F16 where the script rounds the products to bf16).
 * Otherwise the tensor becomes its product q * scale in F32 (BF16 where the script has it so).
 */
enum err_code import_settle(struct import *im, struct err *e);

/* import_kind - the kind of integers that a text such as "int6", "gptq (int6)" or "ternary" names;
 * false, and an empty kind, when it names none. */
bool import_kind(char kind[FOUND_TYPE], const char *text);

#endif
