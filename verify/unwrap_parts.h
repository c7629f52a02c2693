/*
 * unwrap_parts.h - what the readers behind unwrap() share. Private to verify/unwrap*.c.
 */
#ifndef VERIFY_UNWRAP_PARTS_H
#define VERIFY_UNWRAP_PARTS_H

#include "verify/unwrap.h"

/* unwrap_say - one more note; beyond UNWRAP_NOTES they are counted. */
void unwrap_say(struct unwrap *u, size_t part, size_t line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* unwrap_add - one more part; its text is copied. A text that is already there is no other part;
 * too many, or too large ones are noted. ERR_RESOURCE: no memory. */
enum err_code unwrap_add(struct unwrap *u, struct unwrap_part p, struct err *e);

/* unwrap_guess - a large constant of part `from`, with every text codec (text) or none, and every
 * packer; what gives readable text becomes a part. */
enum err_code unwrap_guess(struct unwrap *u, size_t from, size_t line, const uint8_t *p, size_t n,
                           bool text, struct err *e);

/* unwrap_python - words that Python starts statements with, and brackets that close? */
bool unwrap_python(const uint8_t *p, size_t n);

/* unwrap_zip - does Python take these bytes for a zip archive (PEP 441: the directory at their end
 * counts, whatever stands in front)? *start: where the archive begins. */
bool unwrap_zip(const uint8_t *p, size_t n, size_t *start);

/* unwrap_zip_parts - the *.py and *.pyc entries of such a part, as parts. */
enum err_code unwrap_zip_parts(struct unwrap *u, size_t at, size_t start, struct err *e);

/* unwrap_marshal_parts - compiled code in a part, behind `skip` bytes: its listing, and what its
 * large constants unpack to. */
enum err_code unwrap_marshal_parts(struct unwrap *u, size_t at, size_t skip, struct err *e);

#endif
