/* text.c - see text.h. */
#include "model/text.h"

#include <stdbool.h>

void text_char(struct text *t, char c)
{
    if (t->n + 1 < t->cap)
        t->buf[t->n++] = c;
    t->buf[t->n] = 0;
}

void text_str(struct text *t, const char *s)
{
    while (*s)
        text_char(t, *s++);
}

void text_u64(struct text *t, uint64_t v)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        text_char(t, digits[--n]);
}

void text_fixed8(struct text *t, double v)
{
    uint64_t u, frac;
    if (!(v >= 0 && v < 1e10)) {
        text_str(t, "nan");
        return;
    }
    v = v * 1e8;
    u = (uint64_t)v;
    v -= (double)u; /* exact: both are below 2^63 and u is v without its fraction */
    u += v > 0.5 || (v == 0.5 && (u & 1));
    frac = u % 100000000;
    text_u64(t, u / 100000000);
    text_char(t, '.');
    for (uint64_t place = 10000000; place; place /= 10)
        text_char(t, (char)('0' + frac / place % 10));
}

void text_format(struct text *t, const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        unsigned longs = 0;
        bool size = false;
        if (*fmt != '%') {
            text_char(t, *fmt);
            continue;
        }
        for (fmt++; *fmt == 'l' || *fmt == 'z'; fmt++) {
            longs += *fmt == 'l';
            size = *fmt == 'z';
        }
        if (*fmt == 's') {
            text_str(t, va_arg(ap, const char *));
        } else if (*fmt == 'c') {
            text_char(t, (char)va_arg(ap, int));
        } else if (*fmt == 'u') {
            text_u64(t, size    ? va_arg(ap, size_t)
                        : longs ? va_arg(ap, unsigned long long)
                                : va_arg(ap, unsigned));
        } else if (*fmt == 'd') {
            long long v = longs ? va_arg(ap, long long) : va_arg(ap, int);
            if (v < 0)
                text_char(t, '-');
            text_u64(t, v < 0 ? -(uint64_t)v : (uint64_t)v);
        } else {
            text_char(t, *fmt);
        }
    }
}
