/*
 * import_layout.h - the dictionaries that records are packed as, reduced to one list of tensors.
 * Private to packer/import*.c. A new kind of file is one more function in the table of
 * import_layout.c.
 */
#ifndef PACKER_IMPORT_LAYOUT_H
#define PACKER_IMPORT_LAYOUT_H

#include "packer/import.h"

enum { FOUND_NAME = 96, FOUND_MAX = 8192 };

/* X, X.q or X.scale under the project's name, and what the file calls its type. */
struct found {
    char name[FOUND_NAME];
    char type[16]; /* of X.q: "int6"; of X: "" */
    struct tensor_view view;
    bool used;
};

struct import {
    struct ptz *p;
    struct recipe *r;
    struct import_report *rep;
    struct found *found;
    size_t count, cap;
};

/* A remark, or something that stands in the way; one line each. */
void import_note(struct import *im, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void import_problem(struct import *im, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* import_collect - all tensors of the file, banks taken apart. ERR_INPUT when the dictionary is of
 * no known layout, or damaged; what concerns one tensor is an import_problem. */
enum err_code import_collect(struct import *im, struct err *e);

#endif
