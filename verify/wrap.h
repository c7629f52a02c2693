/*
 * wrap.h - long lines on a terminal.
 *
 * Reports are made of lines, so that other programs can search them; a terminal would break them in
 * the middle of words. For a terminal, and only there, they are broken at blanks.
 */
#ifndef VERIFY_WRAP_H
#define VERIFY_WRAP_H

#include <stdio.h>

/* wrap_width - columns of the terminal that `out` is, 0: it is none, or does not say. */
size_t wrap_width(FILE *out);

/*
 * wrap_write - text, with lines of more than `width` bytes broken at their last blank that fits.
 *
 *   width   0: the text as it is; else more than twice the indent
 *   indent  blanks in front of what was broken off
 *
 * A word that does not fit stays whole. Bytes are counted, so other alphabets break early.
 */
void wrap_write(FILE *out, const char *text, size_t width, size_t indent);

#endif
