/* html.c - see html.h. */
#include "verify/html.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1024 };

void html_free(struct html *h)
{
    free(h->buf);
    *h = (struct html){0};
}

static void put(struct html *h, const char *s, size_t n)
{
    if (h->failed)
        return;
    if (n >= h->cap - h->n) { /* one byte stays for the NUL */
        size_t cap = 2 * h->cap + n + 4096;
        char *grown = h->n + n > HTML_MAX ? NULL : realloc(h->buf, cap);
        if (!grown) {
            h->failed = true;
            return;
        }
        h->buf = grown;
        h->cap = cap;
    }
    memcpy(h->buf + h->n, s, n);
    h->n += n;
    h->buf[h->n] = 0;
}

void html_raw(struct html *h, const char *s)
{
    put(h, s, strlen(s));
}

void html_rawf(struct html *h, const char *fmt, ...)
{
    char piece[PIECE];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= PIECE)
        h->failed = true; /* a mistake here: cut markup would be broken markup */
    else
        put(h, piece, (size_t)n);
}

/* Length of the UTF-8 sequence at s and its character; 0 when it is none (RFC 3629: shortest form,
 * no surrogates, up to U+10FFFF). */
static size_t decode(const unsigned char *s, uint32_t *c)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!n)
        return 0;
    *c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) { /* a NUL is no continuation: reading ends there */
        if (s[i] >> 6 != 2)
            return 0;
        *c = *c << 6 | (s[i] & 63u);
    }
    return *c < least[n] || *c > 0x10FFFF || (*c >= 0xD800 && *c < 0xE000) ? 0 : n;
}

static bool deceives(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0) ||
           (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || c == 0xFFFE || c == 0xFFFF;
}

void html_text(struct html *h, const char *s)
{
    const unsigned char *at = (const unsigned char *)s;
    for (size_t i = 0; *at; i++) {
        uint32_t c;
        size_t n = decode(at, &c);
        if (i == HTML_TEXT) {
            html_raw(h, "\xE2\x80\xA6");
            return;
        }
        if (!n || deceives(c))
            html_raw(h, "\xEF\xBF\xBD");
        else if (strchr("&<>\"'", (int)c) && c < 0x80)
            html_rawf(h, "&#%u;", c);
        else
            put(h, (const char *)at, n);
        at += n ? n : 1;
    }
}

void html_textf(struct html *h, const char *fmt, ...)
{
    char piece[PIECE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    html_text(h, piece);
}

char *html_count(char buf[HTML_NUMBER], double v)
{
    char digits[HTML_NUMBER];
    if (!(fabs(v) < 1e18))
        return strcpy(buf, "-");
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(v));
    char *out = buf;
    if (v < 0 && strcmp(digits, "0"))
        *out++ = '-';
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            *out++ = ',';
        *out++ = digits[i];
    }
    *out = 0;
    return buf;
}

char *html_bytes(char buf[HTML_NUMBER], double bytes)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB"};
    size_t u = 0;
    if (!isfinite(bytes))
        return strcpy(buf, "-");
    while (u < 3 && fabs(bytes) >= 999.5)
        bytes /= 1000, u++;
    snprintf(buf, HTML_NUMBER, "%.*f %s",
             !u || fabs(bytes) >= 99.95 ? 0
             : fabs(bytes) >= 9.995     ? 1
                                        : 2,
             bytes, unit[u]);
    return buf;
}

char *html_number(char buf[HTML_NUMBER], double v, int digits)
{
    double a = fabs(v);
    if (!isfinite(v))
        return strcpy(buf, "-");
    if (a != 0 && (a < 1e-4 || a >= 1e7)) {
        snprintf(buf, HTML_NUMBER, "%.*e", digits - 1, v);
        return buf;
    }
    int before = a >= 1 ? (int)floor(log10(a)) + 1 : a > 0 ? (int)floor(log10(a)) + 1 : 1;
    snprintf(buf, HTML_NUMBER, "%.*f", before < digits ? digits - before : 0, v);
    return buf;
}
