/*
 * html_code.h - a list of functions and their sizes, for the treemap of a page.
 *
 * A runner is stripped: what its bytes are for is known to the build alone. A list of it is a text
 * with lines of two columns, bytes and name, or of four, as `nm -S -t d` prints them: address,
 * bytes, type, name. Numbers are decimal; other lines are passed over. Nobody has checked that it
 * belongs to the runner at hand.
 */
#ifndef VERIFY_HTML_CODE_H
#define VERIFY_HTML_CODE_H

#include <stddef.h>

#include "kernels/err.h"

enum { CODE_FUNCTIONS = 1000, CODE_NAME = 64 };

struct page_function {
    char name[CODE_NAME];
    double bytes; /* before compression */
};

/* Zero-initialise; code_free releases. */
struct page_code {
    struct page_function *f; /* [n], largest first, no name twice; owned */
    size_t n;
    double bytes; /* of all */
};
void code_free(struct page_code *c); /* accepts a zeroed struct */

/* code_parse - the functions that n bytes of text list, at most CODE_FUNCTIONS (the first ones).
 * Sizes of the same name are added. ERR_RESOURCE: memory. */
enum err_code code_parse(struct page_code *c, const char *text, size_t n, struct err *e);

/* code_read - the same for a file. ERR_INPUT: it cannot be read, or lists no function. */
enum err_code code_read(struct page_code *c, const char *path, struct err *e);

#endif
