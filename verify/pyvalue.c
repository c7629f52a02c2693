/* pyvalue.c - values of the calculator: making, joining, cutting. See pyvalue.h. */
#include "verify/pyvalue.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pv pv_unknown = {.kind = PV_UNKNOWN};

enum { BLOCK = 64 << 10 };

void *pv_alloc(struct pv_walk *w, size_t n)
{
    struct pv_block *b = w->block;
    n = (n + 15) & ~(size_t)15;
    if (n > PYCALC_BYTES - w->bytes) {
        w->out->exhausted = true;
        return NULL;
    }
    if (!b || n > b->size - b->used) {
        size_t size = n > BLOCK ? n : BLOCK;
        if (!(b = malloc(sizeof *b + size))) {
            w->nomem = true;
            return NULL;
        }
        *b = (struct pv_block){.next = w->block, .size = size};
        w->block = b;
    }
    w->bytes += n;
    b->used += n;
    return b->bytes + b->used - n;
}

static const struct pv *make(struct pv_walk *w, struct pv v)
{
    struct pv *p = pv_alloc(w, sizeof *p);
    if (!p)
        return &pv_unknown;
    *p = v;
    return p;
}

const struct pv *pv_int(struct pv_walk *w, long long i)
{
    return make(w, (struct pv){.kind = PV_INT, .i = i});
}

const struct pv *pv_text(struct pv_walk *w, enum pv_kind kind, const void *p, size_t n,
                         const struct pv_origin *from)
{
    return make(w, (struct pv){.kind = kind, .p = p, .n = n, .from = from});
}

const struct pv *pv_copy(struct pv_walk *w, enum pv_kind kind, const void *p, size_t n,
                         const struct pv_origin *from)
{
    uint8_t *q = pv_alloc(w, n + 1);
    if (!q)
        return &pv_unknown;
    if (n)
        memcpy(q, p, n);
    q[n] = 0;
    return pv_text(w, kind, q, n, from);
}

const struct pv *pv_list(struct pv_walk *w, enum pv_kind kind, const struct pv *const *item,
                         size_t n)
{
    size_t items = kind == PV_DICT ? 2 * n : n;
    const struct pv **q = pv_alloc(w, (items + 1) * sizeof *q);
    if (!q)
        return &pv_unknown;
    if (items)
        memcpy(q, item, items * sizeof *q);
    return make(w, (struct pv){.kind = kind, .item = q, .n = n});
}

bool pv_is_text(const struct pv *v)
{
    return v->kind == PV_STR || v->kind == PV_BYTES;
}

bool pv_same(const struct pv *v, const char *text)
{
    return (pv_is_text(v) || v->kind == PV_NAME) && v->n == strlen(text) &&
           !memcmp(v->p, text, v->n);
}

bool pv_ascii(const struct pv *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->p[i] >= 0x80)
            return false;
    return true;
}

bool pv_number(const struct pv *v, long long *i)
{
    static const struct {
        const char *name;
        long long value;
    } constants[] = {
        {"lzma.FORMAT_AUTO", 0},
        {"lzma.FORMAT_XZ", 1},
        {"lzma.FORMAT_ALONE", 2},
        {"lzma.FORMAT_RAW", 3},
        {"lzma.FILTER_LZMA1", 0x4000000000000001},
        {"lzma.FILTER_LZMA2", 0x21},
        {"lzma.FILTER_DELTA", 3},
        {"lzma.FILTER_X86", 4},
        {"lzma.FILTER_POWERPC", 5},
        {"lzma.FILTER_IA64", 6},
        {"lzma.FILTER_ARM", 7},
        {"lzma.FILTER_ARMTHUMB", 8},
        {"lzma.FILTER_SPARC", 9},
        {"lzma.PRESET_DEFAULT", 6},
        {"lzma.PRESET_EXTREME", 0x80000000},
        {"lzma.MODE_FAST", 1},
        {"lzma.MODE_NORMAL", 2},
        {"lzma.MF_BT4", 0x14},
        {"zlib.MAX_WBITS", 15},
    };
    if (v->kind == PV_INT) {
        *i = v->i;
        return true;
    }
    for (size_t k = 0; k < sizeof constants / sizeof *constants && v->kind == PV_NAME; k++)
        if (pv_same(v, constants[k].name)) {
            *i = constants[k].value;
            return true;
        }
    return false;
}

const struct pv *pv_add(struct pv_walk *w, const struct pv *a, const struct pv *b)
{
    long long x, y, sum;
    if (pv_number(a, &x) && pv_number(b, &y))
        return __builtin_add_overflow(x, y, &sum) ? &pv_unknown : pv_int(w, sum);
    if (a->kind == PV_LIST && b->kind == PV_LIST) {
        const struct pv **q = pv_alloc(w, (a->n + b->n + 1) * sizeof *q);
        if (!q)
            return &pv_unknown;
        memcpy(q, a->item, a->n * sizeof *q);
        memcpy(q + a->n, b->item, b->n * sizeof *q);
        return make(w, (struct pv){.kind = PV_LIST, .item = q, .n = a->n + b->n});
    }
    if (!pv_is_text(a) || a->kind != b->kind || a->n + b->n > w->cap)
        return &pv_unknown;
    uint8_t *q = pv_alloc(w, a->n + b->n + 1);
    if (!q)
        return &pv_unknown;
    memcpy(q, a->p, a->n);
    memcpy(q + a->n, b->p, b->n);
    q[a->n + b->n] = 0;
    return pv_text(w, a->kind, q, a->n + b->n, a->from ? a->from : b->from);
}

/* v[i] or v[from:to:step]; what is left out is PV_NONE. A str is cut only where it is ASCII, so
 * that bytes are characters. */
const struct pv *pv_slice(struct pv_walk *w, const struct pv *v, const struct pv *const part[3],
                          bool colon)
{
    long long n = (long long)v->n, step = 1, from, to, i;
    bool list = v->kind == PV_LIST;
    if (v->kind == PV_DICT && !colon && pv_is_text(part[0])) {
        for (size_t k = 0; k < v->n; k++)
            if (v->item[2 * k]->kind == part[0]->kind && v->item[2 * k]->n == part[0]->n &&
                !memcmp(v->item[2 * k]->p, part[0]->p, part[0]->n))
                return v->item[2 * k + 1];
        return &pv_unknown;
    }
    if (v->kind == PV_OUTSIDE)
        return v;
    if (!list && (!pv_is_text(v) || (v->kind == PV_STR && !pv_ascii(v))))
        return &pv_unknown;
    if (!colon) {
        if (!pv_number(part[0], &i) || i < -n || i >= n)
            return &pv_unknown;
        i += i < 0 ? n : 0;
        return list                  ? v->item[i]
               : v->kind == PV_BYTES ? pv_int(w, v->p[i])
                                     : pv_text(w, PV_STR, v->p + i, 1, v->from);
    }
    if ((part[2]->kind != PV_NONE && !pv_number(part[2], &step)) || !step || step < -n - 1 ||
        step > n + 1)
        return &pv_unknown;
    from = step > 0 ? 0 : n - 1;
    to = step > 0 ? n : -1;
    for (int k = 0; k < 2; k++) {
        long long *bound = k ? &to : &from, low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        if (part[k]->kind == PV_NONE)
            continue;
        if (!pv_number(part[k], bound))
            return &pv_unknown;
        *bound += *bound < 0 ? n : 0;
        *bound = *bound < low ? low : *bound > high ? high : *bound;
    }
    if (step == 1 && !list)
        return pv_text(w, v->kind, v->p + from, from < to ? (size_t)(to - from) : 0, v->from);
    size_t count = 0, most = (size_t)n;
    uint8_t *q = list ? NULL : pv_alloc(w, most + 1);
    const struct pv **items = list ? pv_alloc(w, (most + 1) * sizeof *items) : NULL;
    if (!q && !items)
        return &pv_unknown;
    for (i = from; step > 0 ? i < to : i > to; i += step, count++) {
        if (list)
            items[count] = v->item[i];
        else
            q[count] = v->p[i];
    }
    if (list)
        return make(w, (struct pv){.kind = PV_LIST, .item = items, .n = count});
    q[count] = 0;
    return pv_text(w, v->kind, q, count, v->from);
}

const struct pv *pv_dict_get(const struct pv *d, const char *key)
{
    for (size_t k = 0; d->kind == PV_DICT && k < d->n; k++)
        if (d->item[2 * k]->kind == PV_STR && pv_same(d->item[2 * k], key))
            return d->item[2 * k + 1];
    return NULL;
}

void pv_note(struct pv_walk *w, size_t line, const char *fmt, ...)
{
    struct pycalc *o = w->out;
    struct pycalc_note n = {.line = line};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(n.text, sizeof n.text, fmt, ap);
    va_end(ap);
    py_printable(n.text);
    for (size_t i = 0; i < o->notes; i++) /* a function that is called twice says it once */
        if (o->note[i].line == line && !strcmp(o->note[i].text, n.text))
            return;
    if (o->notes < PYCALC_NOTES)
        o->note[o->notes++] = n;
    else
        o->notes_dropped++;
}
