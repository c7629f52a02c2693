/*
 * text.h - building short texts without stdio, so that the runner inside a submission (which has
 * none) and the tools print the same characters. A struct text never overflows: what does not fit
 * is dropped.
 */
#ifndef MODEL_TEXT_H
#define MODEL_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* buf[0..n) is the text so far; always NUL-terminated once something was added. cap >= 1. */
struct text {
    char *buf;
    size_t n, cap;
};

void text_char(struct text *t, char c);
void text_str(struct text *t, const char *s);
void text_u64(struct text *t, uint64_t v);
/* v with eight decimals, rounded half to even after one multiplication by 1e8: val_loss, val_bpb.
 * Negative, huge (>= 1e10) and not finite values print as "nan". */
void text_fixed8(struct text *t, double v);
/* The conversions that err.h allows: %s %c %d %u %zu %llu %lld %%. */
void text_format(struct text *t, const char *fmt, va_list ap);

#endif
