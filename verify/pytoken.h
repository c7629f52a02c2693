/*
 * pytoken.h - Python source cut into tokens, as far as an auditor needs it.
 *
 * The rules are those of the Python reference, "Lexical analysis": comments vanish, a logical line
 * goes on inside brackets and behind a backslash, string prefixes and triple quotes count. Nothing
 * is checked that only a parser could know. F-strings are one token; quotes inside their braces may
 * be of the outer kind (PEP 701), which is noted because Python before 3.12 refuses it.
 */
#ifndef VERIFY_PYTOKEN_H
#define VERIFY_PYTOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum py_kind {
    PY_END,     /* behind the last token, always there */
    PY_NEWLINE, /* end of a logical line */
    PY_NAME,    /* identifiers and keywords */
    PY_NUMBER,
    PY_STRING,
    PY_OP, /* one operator or bracket */
};

/* Flags of a string. */
enum { PY_RAW = 1, PY_BYTES = 2, PY_FORMAT = 4, PY_TRIPLE = 8 };

enum { PY_TOKENS_MAX = 1 << 20 }; /* more are cut off; `cut` says so */

struct py_token {
    uint32_t at, len; /* bytes in the text; strings with prefix and quotes */
    uint32_t line;    /* 1-based */
    uint16_t indent;  /* columns in front of the first token of this logical line (tab: to 8) */
    uint16_t depth;   /* open brackets in front of this token */
    uint8_t kind, flags;
};

struct py_source {
    const char *text;
    size_t n;
    struct py_token *tok; /* count of them; tok[count - 1] is PY_END */
    size_t count;
    size_t lines;    /* physical lines */
    bool cut;        /* too many tokens */
    size_t bad_line; /* where a literal or bracket is left open, or a stray byte lies; 0: nowhere */
    size_t new_syntax; /* line of the first f-string that needs Python 3.12, 0: none */
};

/* py_scan - tokens of text[0..n), which must outlive s. Any bytes are accepted. ERR_RESOURCE: out
 * of memory. Release with py_free. */
enum err_code py_scan(struct py_source *s, const char *text, size_t n, struct err *e);
void py_free(struct py_source *s);

/* py_is - is token i exactly this text? Any i: behind the end there are only PY_END. */
bool py_is(const struct py_source *s, size_t i, const char *text);

/* py_kind_at - kind of token i, PY_END behind the end. */
enum py_kind py_kind_at(const struct py_source *s, size_t i);

/*
 * py_string - the value of a string token.
 *
 *   out    receives the value, never longer than the token (its len)
 *   value  bytes literals as bytes, others as UTF-8
 *
 * False where the value is not known from the token alone: an f-string with braces, a named
 * character, a damaged escape.
 */
bool py_string(const struct py_source *s, size_t i, uint8_t *out, size_t *n);

/* py_header_colon - the `:` that ends the header of the compound statement at token i: the first
 * one outside of further brackets. 0: there is none on this logical line. */
size_t py_header_colon(const struct py_source *s, size_t i);

/* py_body_end - the token behind the body of the statement whose `:` stands at `colon` and whose
 * line is indented by `indent` columns: its NEWLINE where the body is on the same line, else the
 * last NEWLINE in front of a line that is indented no deeper. */
size_t py_body_end(const struct py_source *s, size_t colon, unsigned indent);

/* py_utf8 - how many bytes at p (n of them are there, n > 0) are one valid UTF-8 character; 0:
 * none. */
size_t py_utf8(const uint8_t *p, size_t n);

/* py_printable - make s, which may hold a script's own bytes, one line of valid UTF-8: control
 * characters and broken sequences become '?'. Returns s. */
char *py_printable(char *s);

/* py_keyword - is token i one of Python's reserved words? */
bool py_keyword(const struct py_source *s, size_t i);

#endif
