/*
 * html.h - building one HTML page in memory: literal parts, escaped parts, numbers.
 *
 * What is written is well-formed XML as well, so any XML parser can check it: every element is
 * closed, attributes are quoted, void elements end in "/>". Nothing that comes from a file or from
 * the command line may reach the page but through html_text or html_textf: those escape the five
 * special characters and put U+FFFD in the place of bytes that are no UTF-8, of control
 * characters, and of characters that are invisible or turn the direction of writing (U+200B..200F,
 * U+202A..202E, U+2060..2069, U+FEFF), by which a name can pretend to be another.
 */
#ifndef VERIFY_HTML_H
#define VERIFY_HTML_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"

/* A page never becomes larger than this; every list in it has a limit of its own far below. */
enum { HTML_MAX = 16 << 20 };

/* Zero-initialise; html_free releases. buf[0..n) is the page so far, NUL-terminated once something
 * was written. `failed` is sticky: no memory, or more than HTML_MAX bytes. */
struct html {
    char *buf; /* owned */
    size_t n, cap;
    bool failed;
};
void html_free(struct html *h); /* accepts a zeroed struct */

/* html_raw - markup, as it is. html_rawf - markup with numbers (and trusted words) in it; a piece
 * is at most 1023 bytes. */
void html_raw(struct html *h, const char *s);
void html_rawf(struct html *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* html_text - text or the inside of a quoted attribute, from anywhere. At most HTML_TEXT
 * characters of it, then an ellipsis. html_textf - the same of a formatted text, which is cut at
 * 1023 bytes before. */
enum { HTML_TEXT = 400 };
void html_text(struct html *h, const char *s);
void html_textf(struct html *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- numbers for people; each returns buf ---- */

enum { HTML_NUMBER = 48 };
/* "1,559,271"; rounded to an integer. */
char *html_count(char buf[HTML_NUMBER], double v);
/* Bytes in decimal units, three digits: "328 B", "44.5 kB", "1.56 MB". */
char *html_bytes(char buf[HTML_NUMBER], double bytes);
/* With `digits` significant digits, in plain notation between 1e-4 and 1e7, "-" when not finite. */
char *html_number(char buf[HTML_NUMBER], double v, int digits);

#endif
