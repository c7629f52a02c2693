/* record_line.c - see record_line.h. */
#include "verify/record_line.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool line_next(const char *text, size_t n, size_t *at, struct line *l)
{
    if (*at >= n)
        return false;
    const char *s = text + *at, *nl = memchr(s, '\n', n - *at);
    size_t len = nl ? (size_t)(nl - s) : n - *at;
    *at += len + (nl != NULL);
    if (len && s[len - 1] == '\r')
        len--;
    *l = (struct line){s, len};
    return true;
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Length of a run of digits at offset `at`. */
static size_t digits(struct line l, size_t at)
{
    size_t i = at;
    while (i < l.n && isdigit((unsigned char)l.s[i]))
        i++;
    return i - at;
}

/* Does the text at `at` look like `pattern`, where 0 stands for any digit? */
static bool shape(struct line l, size_t at, const char *pattern)
{
    size_t i = 0;
    for (; pattern[i]; i++) {
        if (at + i >= l.n)
            return false;
        char c = l.s[at + i];
        if (pattern[i] == '0' ? !isdigit((unsigned char)c) : c != pattern[i])
            return false;
    }
    return true;
}

/* Bytes of one prefix at the start of the line, 0 when there is none. */
static size_t prefix(struct line l)
{
    static const char *const levels[] = {"INFO", "DEBUG", "WARNING", "WARN", "-", "|"};
    size_t i = 0, d;
    if (shape(l, 0, "0000-00-00")) {
        i = 10;
        if (i < l.n && (l.s[i] == 'T' || l.s[i] == ' '))
            i++;
    }
    if (shape(l, i, "00:00:00")) {
        i += 8;
        if (i < l.n && (l.s[i] == '.' || l.s[i] == ',') && (d = digits(l, i + 1)))
            i += d + 1;
        if (i < l.n && l.s[i] == 'Z')
            i++;
    }
    if (i && (i == l.n || l.s[i] == ' ' || l.s[i] == ':' || l.s[i] == '\t'))
        return i + (i < l.n && l.s[i] == ':');
    d = digits(l, 0);
    if (d >= 9 && d <= 11 && d + 1 < l.n && l.s[d] == '.') { /* seconds since 1970 */
        size_t f = digits(l, d + 1);
        if (f && d + 1 + f < l.n && l.s[d + 1 + f] == ' ')
            return d + 2 + f;
    }
    if (l.n && l.s[0] == '[') { /* [hh:mm:ss], [rank0], [default0]: */
        const char *close = memchr(l.s, ']', l.n < 40 ? l.n : 40);
        size_t end = close ? (size_t)(close - l.s) + 1 : 0;
        struct line in = {l.s + 1, end ? end - 2 : 0};
        if (end && (shape(in, 0, "00:00") || shape(in, 0, "0000-00-00") || line_has(in, "rank") ||
                    line_has(in, "default") || line_has(in, "INFO")))
            return end + (end < l.n && l.s[end] == ':');
    }
    for (size_t k = 0; k < sizeof levels / sizeof *levels; k++) {
        size_t len = strlen(levels[k]);
        if (line_starts(l, levels[k]) && len < l.n && l.s[len] == ' ')
            return len;
    }
    return 0;
}

struct line line_bare(struct line l)
{
    for (;;) {
        size_t cut = prefix(l);
        l.s += cut;
        l.n -= cut;
        while (l.n && (*l.s == ' ' || *l.s == '\t')) {
            l.s++;
            l.n--;
            cut++;
        }
        if (!cut)
            return l;
    }
}

bool line_starts(struct line l, const char *s)
{
    size_t n = strlen(s);
    return n <= l.n && !memcmp(l.s, s, n);
}

size_t line_find(struct line l, const char *s, size_t from)
{
    const char *p = from < l.n ? memmem(l.s + from, l.n - from, s, strlen(s)) : NULL;
    return p ? (size_t)(p - l.s) + strlen(s) : SIZE_MAX;
}

size_t line_word(struct line l, const char *s, size_t from)
{
    size_t n = strlen(s);
    for (size_t end; (end = line_find(l, s, from)) != SIZE_MAX; from = end) {
        size_t at = end - n;
        if ((!at || !word_char(l.s[at - 1])) && (end == l.n || !word_char(l.s[end])))
            return end;
    }
    return SIZE_MAX;
}

bool line_step(struct line l, uint64_t *step)
{
    struct line_number a, b;
    size_t at = line_starts(l, "step:") ? 5 : 0;
    if (!line_number(l, at, &a) || a.decimals || a.end >= l.n || l.s[a.end] != '/' ||
        !line_number(l, a.end + 1, &b) || b.decimals || a.v < 0 || a.v > 1e12)
        return false;
    *step = (uint64_t)a.v;
    return true;
}

bool line_has(struct line l, const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i + n <= l.n; i++)
        if (!strncasecmp(l.s + i, s, n))
            return true;
    return false;
}

bool line_number(struct line l, size_t at, struct line_number *out)
{
    char buf[48];
    size_t k = 0;
    bool point = false;
    int decimals = 0;
    while (at < l.n && l.s[at] == ' ')
        at++;
    if (at < l.n && (l.s[at] == '-' || l.s[at] == '+'))
        buf[k++] = l.s[at++];
    if (at >= l.n || !isdigit((unsigned char)l.s[at]))
        return false;
    for (; at < l.n && k < 40; at++) {
        char c = l.s[at];
        if (isdigit((unsigned char)c)) {
            decimals += point;
        } else if (c == ',' && !point && digits(l, at + 1) == 3) {
            continue; /* 15,866,156 */
        } else if (c == '.' && !point && digits(l, at + 1)) {
            point = true;
        } else {
            break;
        }
        buf[k++] = c;
    }
    if (at + 1 < l.n && l.s[at] == 'e') {
        size_t sign = l.s[at + 1] == '-' || l.s[at + 1] == '+', n = digits(l, at + 1 + sign);
        for (size_t stop = at + 1 + sign + n; n && n < 4 && at < stop; at++)
            buf[k++] = l.s[at];
    }
    buf[k] = 0;
    *out = (struct line_number){strtod(buf, NULL), decimals, at};
    return fabs(out->v) < 1e15; /* so that it can be converted to any integer */
}

bool line_value(struct line l, const char *key, struct line_number *out)
{
    for (size_t at = 0; (at = line_word(l, key, at)) != SIZE_MAX;) {
        size_t v = at;
        while (v < l.n && l.s[v] == ' ')
            v++;
        if (v < l.n && (l.s[v] == ':' || l.s[v] == '=') && line_number(l, v + 1, out))
            return true;
    }
    return false;
}

char *line_copy(struct line l, size_t from, size_t to, char *out, size_t cap)
{
    size_t k = 0;
    if (to > l.n)
        to = l.n;
    while (from < to && isspace((unsigned char)l.s[from]))
        from++;
    while (to > from && isspace((unsigned char)l.s[to - 1]))
        to--;
    for (; from < to && k + 1 < cap; from++)
        out[k++] = (char)(l.s[from] >= ' ' && l.s[from] < 127 ? l.s[from] : '?');
    out[k] = 0;
    return out;
}
