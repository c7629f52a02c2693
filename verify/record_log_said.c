/* record_log_said.c - see record_log_said.h. */
#include "verify/record_log_said.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Where the number behind a key that ends at `at` begins, SIZE_MAX: there is none. */
static size_t value_at(struct line s, size_t at)
{
    if (at < s.n && s.s[at] == '"')
        at++;
    while (at < s.n && s.s[at] == ' ')
        at++;
    if (at < s.n && s.s[at] == '(') {
        while (at < s.n && s.s[at] != ')')
            at++;
        at += at < s.n;
    }
    while (at < s.n && s.s[at] == ' ')
        at++;
    return at < s.n && (s.s[at] == ':' || s.s[at] == '=') ? at + 1 : SIZE_MAX;
}

static bool add(struct record_log *l, const struct log_said *x)
{
    if (l->saids == LOG_SAID || (x->step && l->saids >= LOG_SAID / 2))
        return true;
    if (!(l->saids & (l->saids - 1))) {
        struct log_said *grown = realloc(l->said, (l->saids ? 2 * l->saids : 1) * sizeof *grown);
        if (!grown)
            return false;
        l->said = grown;
    }
    l->said[l->saids++] = *x;
    return true;
}

bool log_said_line(struct record_log *l, struct line s, size_t line)
{
    static const char *const not_this[] = {
        "running",  "chunk", "progress", "batch",    "windows", "epoch",  "prequant", "pre-quant",
        "post_ema", "swa",   "post-ema", "baseline", "target",  "record", "sota",     "best"};
    enum { LINE = 400 }; /* longer ones are whole logs and scripts in a string */
    struct log_said x = {.line = line, .loss = NAN};
    struct line_number v;
    uint64_t step;
    if (s.n > LINE || !line_has(s, "bpb"))
        return true;
    x.step = line_step(s, &step);
    for (size_t i = 0; !x.step && i < sizeof not_this / sizeof *not_this; i++)
        if (line_has(s, not_this[i]))
            return true;
    if (line_value(s, "val_loss", &v))
        x.loss = v.v;
    for (size_t i = 0; i + 3 <= s.n; i++) {
        size_t at, from = i;
        if (strncasecmp(s.s + i, "bpb", 3) || (i + 3 < s.n && word_char(s.s[i + 3])) ||
            (at = value_at(s, i + 3)) == SIZE_MAX || !line_number(s, at, &v) || v.decimals < 3 ||
            !(v.v > 0 && v.v < 32))
            continue;
        while (from && word_char(s.s[from - 1]))
            from--;
        x.bpb = v.v;
        x.decimals = v.decimals;
        line_copy(s, from, i + 3, x.key, sizeof x.key);
        if (!add(l, &x))
            return false;
    }
    return true;
}
