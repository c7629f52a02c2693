/* check.c - see parity.h: verdicts, tensors of a fixture, comparisons. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "tests/parity/parity.h"

void *parity_alloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) {
        fprintf(stderr, "parity: out of memory (%zu x %zu bytes)\n", count, size);
        exit(ERR_RESOURCE);
    }
    return p;
}

static void append(char *text, const char *fmt, va_list ap)
{
    size_t n = strlen(text);
    if (n && n + 3 < CHECK_TEXT)
        n += (size_t)snprintf(text + n, CHECK_TEXT - n, "; ");
    vsnprintf(text + n, CHECK_TEXT - n, fmt, ap);
}

void check_fail(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (c->fails++ < 2)
        append(c->fail, fmt, ap);
    va_end(ap);
}

void check_note(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    append(c->notes, fmt, ap);
    va_end(ap);
}

void check_missing(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    append(c->missing, fmt, ap);
    va_end(ap);
}

void check_skipped(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    append(c->skipped, fmt, ap);
    va_end(ap);
}

static const struct tensor_view *vfind(const struct check *c, char *name, size_t cap,
                                       const char *fmt, va_list ap)
{
    vsnprintf(name, cap, fmt, ap);
    return tensor_find(c->st.tensor, c->st.count, name);
}

const struct tensor_view *find(const struct check *c, const char *fmt, ...)
{
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    const struct tensor_view *t = vfind(c, name, sizeof name, fmt, ap);
    va_end(ap);
    return t;
}

const struct tensor_view *need(struct check *c, size_t elems, const char *fmt, ...)
{
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    const struct tensor_view *t = vfind(c, name, sizeof name, fmt, ap);
    va_end(ap);
    if (!t)
        check_fail(c, "the fixture has no tensor %s", name);
    else if (tensor_elems(t) < elems) {
        check_fail(c, "%s: %zu elements, needs %zu", name, tensor_elems(t), elems);
        t = NULL;
    }
    return t;
}

double tensor_at(const struct tensor_view *t, size_t i)
{
    const uint8_t *p = t->data + i * st_dtype_size(t->dtype);
    union {
        uint32_t u;
        float f;
    } s;
    union {
        uint64_t u;
        double d;
    } d;
    switch (t->dtype) {
    case ST_F32:
        s.u = le32(p);
        return (double)s.f;
    case ST_F64:
        d.u = le64(p);
        return d.d;
    case ST_F16:
        return (double)f16_to_f32(le16(p));
    case ST_BF16:
        return (double)bf16_to_f32(le16(p));
    case ST_I8:
        return (double)(int8_t)p[0];
    case ST_U8:
    case ST_BOOL:
        return (double)p[0];
    case ST_I16:
        return (double)(int16_t)le16(p);
    case ST_U16:
        return (double)le16(p);
    case ST_I32:
        return (double)(int32_t)le32(p);
    case ST_I64:
        return (double)(int64_t)le64(p);
    default:
        return NAN;
    }
}

float *tensor_floats(const struct tensor_view *t)
{
    size_t n = tensor_elems(t);
    float *x = parity_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)tensor_at(t, i);
    return x;
}

uint16_t *tensor_tokens(struct check *c, const struct tensor_view *t, size_t vocab)
{
    size_t n = tensor_elems(t);
    uint16_t *x = parity_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        double v = tensor_at(t, i);
        if (!(v >= 0 && v < (double)vocab)) {
            check_fail(c, "%s[%zu] = %g: no token of %zu", t->name, i, v, vocab);
            free(x);
            return NULL;
        }
        x[i] = (uint16_t)v;
    }
    return x;
}

struct tensor_view tensor_slice(const struct tensor_view *t, size_t from, size_t n)
{
    struct tensor_view s = *t;
    s.ndim = 1;
    s.shape[0] = n;
    s.nbytes = n * st_dtype_size(t->dtype);
    s.data += from * st_dtype_size(t->dtype);
    return s;
}

double meta_num(const struct check *c, const char *key, double other)
{
    const char *s = st_meta(&c->st, key);
    char *end;
    double v = s ? strtod(s, &end) : other;
    return s && end == s ? other : v;
}

bool name_part(const char *name, const char *prefix, const char *suffix, char *part, size_t cap)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n))
        return false;
    const char *at = name + n;
    size_t len = strlen(at), m = suffix ? strlen(suffix) : 0;
    if (suffix) {
        if (len <= m || strcmp(at + len - m, suffix))
            return false;
        len -= m;
    } else {
        len = strcspn(at, ".");
    }
    if (!len || len >= cap)
        return false;
    memcpy(part, at, len);
    part[len] = 0;
    return true;
}

double tensor_max(const struct tensor_view *t)
{
    double max = 0;
    for (size_t i = 0; i < tensor_elems(t); i++)
        max = fmax(max, fabs(tensor_at(t, i)));
    return max;
}

/* Remember the worst tensor of a group. */
static void group_worst(struct group *g, const char *name, double error, double tol)
{
    double share = error <= 0 ? 0 : tol > 0 ? error / tol : INFINITY;
    if (g->tensors > 1 && !(share > g->worst))
        return;
    g->worst = share;
    g->error = error;
    g->tol = tol;
    snprintf(g->tensor, sizeof g->tensor, "%s", name);
}

static bool same_size(struct check *c, struct group *g, size_t n, const struct tensor_view *want)
{
    c->compared = true;
    g->tensors++;
    if (n != tensor_elems(want))
        check_fail(c, "%s: %zu elements, computed %zu", want->name, tensor_elems(want), n);
    return n == tensor_elems(want);
}

void group_error(struct check *c, struct group *g, const char *name, double error, double tol)
{
    c->compared = true;
    g->tensors++;
    if (!(error <= tol))
        check_fail(c, "%s: off by %.2g of its norm (tol %.2g)", name, error, tol);
    group_worst(g, name, error, tol);
}

void group_norm(struct check *c, struct group *g, const float *got, size_t n,
                const struct tensor_view *want, double tol)
{
    double diff = 0, norm = 0;
    if (!same_size(c, g, n, want))
        return;
    for (size_t i = 0; i < n; i++) {
        double b = tensor_at(want, i), d = (double)got[i] - b;
        diff += d * d;
        norm += b * b;
    }
    g->tensors--; /* group_error counts it */
    group_error(c, g, want->name, diff == 0 ? 0 : sqrt(diff / norm), tol);
}

/* The comparison behind both group functions: exactly one of f and d is given. */
static void compare(struct check *c, struct group *g, const float *f, const double *d, size_t n,
                    const struct tensor_view *want, double tol)
{
    if (c->loose > 0 && f) {
        group_norm(c, g, f, n, want, c->loose);
        return;
    }
    if (!same_size(c, g, n, want))
        return;
    if (c->loose > 0)
        tol = c->single * tensor_max(want);
    double worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double a = f ? (double)f[i] : d[i], b = tensor_at(want, i);
        double err = a == b ? 0 : fabs(a - b);
        if (isnan(err))
            err = INFINITY;
        if (err > worst) {
            worst = err;
            at = i;
        }
    }
    if (worst > tol)
        check_fail(c, "%s[%zu]: got %.9g, expected %.9g (off by %.2g, tol %.2g)", want->name, at,
                   f ? (double)f[at] : d[at], tensor_at(want, at), worst, tol);
    group_worst(g, want->name, worst > 0 ? worst : 0, tol);
}

void group_floats(struct check *c, struct group *g, const float *got, size_t n,
                  const struct tensor_view *want, double tol)
{
    compare(c, g, got, NULL, n, want, tol);
}

void group_doubles(struct check *c, struct group *g, const double *got, size_t n,
                   const struct tensor_view *want, double tol)
{
    compare(c, g, NULL, got, n, want, tol);
}

void group_end(struct check *c, struct group *g)
{
    if (!g->tensors)
        return;
    if (g->error == 0)
        check_note(c, "%s %zu exact", g->what, g->tensors);
    else if (g->tensors == 1)
        check_note(c, "%s %.2g (tol %.2g)", g->what, g->error, g->tol);
    else
        check_note(c, "%s %zu, worst %s %.2g (tol %.2g)", g->what, g->tensors, g->tensor, g->error,
                   g->tol);
}
