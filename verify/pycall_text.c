/* pycall_text.c - methods of str, bytes and lists that a payload passes on its way to a decoder. */
#include <string.h>

#include "verify/pyvalue.h"

static bool named(const char *name, size_t n, const char *text)
{
    return strlen(text) == n && !memcmp(name, text, n);
}

/* Is this the name of an encoding in which a character is a byte? 8: of Latin-1, 7: of UTF-8. */
static int encoding(const struct pv_arg *arg, size_t args)
{
    const struct pv *v = pv_arg(arg, args, 0, "encoding");
    static const char *const latin[] = {"latin-1",    "latin1",    "latin", "l1",
                                        "iso-8859-1", "iso8859-1", "L1",    "cp819"};
    if (!v || pv_same(v, "utf-8") || pv_same(v, "utf8") || pv_same(v, "u8") ||
        pv_same(v, "UTF-8") || pv_same(v, "ascii") || pv_same(v, "U8"))
        return 7;
    for (size_t i = 0; i < sizeof latin / sizeof *latin; i++)
        if (pv_same(v, latin[i]))
            return 8;
    return 0;
}

/* Latin-1: code points below 256 are bytes. */
static const struct pv *latin_encode(struct pv_walk *w, const struct pv *v)
{
    uint8_t *p = pv_alloc(w, v->n + 1);
    size_t n = 0;
    for (size_t i = 0; p && i < v->n; i++) {
        if (v->p[i] < 0x80) {
            p[n++] = v->p[i];
        } else if ((v->p[i] == 0xc2 || v->p[i] == 0xc3) && i + 1 < v->n) {
            p[n++] = (uint8_t)(v->p[i] << 6 | (v->p[i + 1] & 0x3f));
            i++;
        } else {
            return &pv_unknown;
        }
    }
    return p ? pv_text(w, PV_BYTES, p, n, v->from) : &pv_unknown;
}

static const struct pv *latin_decode(struct pv_walk *w, const struct pv *v)
{
    uint8_t *p = pv_alloc(w, 2 * v->n + 1);
    size_t n = 0;
    for (size_t i = 0; p && i < v->n; i++) {
        if (v->p[i] >= 0x80)
            p[n++] = (uint8_t)(0xc0 | v->p[i] >> 6);
        p[n++] = v->p[i] < 0x80 ? v->p[i] : (uint8_t)(0x80 | (v->p[i] & 0x3f));
    }
    return p ? pv_text(w, PV_STR, p, n, v->from) : &pv_unknown;
}

static bool blank(uint8_t ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static const struct pv *strip(struct pv_walk *w, const struct pv *v, bool left, bool right,
                              const struct pv *set)
{
    size_t from = 0, to = v->n;
    if (set && (set->kind != v->kind || !pv_ascii(set)))
        return &pv_unknown;
#define IN_SET(ch) (set ? memchr(set->p, (ch), set->n) != NULL : blank(ch))
    while (left && from < to && IN_SET(v->p[from]))
        from++;
    while (right && to > from && IN_SET(v->p[to - 1]))
        to--;
#undef IN_SET
    return pv_text(w, v->kind, v->p + from, to - from, v->from);
}

static const uint8_t *find(const uint8_t *p, size_t n, const struct pv *what)
{
    return what->n && what->n <= n ? memmem(p, n, what->p, what->n) : NULL;
}

static const struct pv *replace(struct pv_walk *w, const struct pv *v, const struct pv *old,
                                const struct pv *new)
{
    size_t hits = 0, n = 0;
    const uint8_t *p = v->p, *end = v->p + v->n, *hit;
    if (!old || !new || old->kind != v->kind || new->kind != v->kind || !old->n)
        return &pv_unknown;
    for (; (hit = find(p, (size_t)(end - p), old)); p = hit + old->n)
        hits++;
    if (hits && new->n > old->n && hits > w->cap / (new->n - old->n))
        return &pv_unknown;
    size_t total = v->n + hits * new->n - hits * old->n;
    uint8_t *q = total > w->cap ? NULL : pv_alloc(w, total + 1);
    if (!q)
        return &pv_unknown;
    for (p = v->p; (hit = find(p, (size_t)(end - p), old)); p = hit + old->n) {
        memcpy(q + n, p, (size_t)(hit - p));
        n += (size_t)(hit - p);
        if (new->n)
            memcpy(q + n, new->p, new->n);
        n += new->n;
    }
    memcpy(q + n, p, (size_t)(end - p));
    q[total] = 0;
    return pv_text(w, v->kind, q, total, v->from);
}

/* Pieces between runs of blanks. */
static const struct pv *words(struct pv_walk *w, const struct pv *v)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < v->n; i++)
        count += !blank(v->p[i]) && (!i || blank(v->p[i - 1]));
    const struct pv **item = pv_alloc(w, (count + 1) * sizeof *item);
    if (!item)
        return &pv_unknown;
    for (size_t i = 0, from; i < v->n;) {
        while (i < v->n && blank(v->p[i]))
            i++;
        for (from = i; i < v->n && !blank(v->p[i]);)
            i++;
        if (i > from)
            item[n++] = pv_text(w, v->kind, v->p + from, i - from, v->from);
    }
    return pv_list(w, PV_LIST, item, n);
}

/* Pieces between separators, at most `most` cuts (negative: all), counted from the right for
 * rsplit. */
static const struct pv *split(struct pv_walk *w, const struct pv *v, const struct pv *sep,
                              long long most, bool right)
{
    size_t cuts = 0, n = 0;
    const uint8_t *p = v->p, *end = v->p + v->n, *hit;
    if (!sep->n || sep->kind != v->kind)
        return &pv_unknown;
    for (; (hit = find(p, (size_t)(end - p), sep)); p = hit + sep->n)
        cuts++;
    size_t keep = most < 0 || (size_t)most > cuts ? cuts : (size_t)most;
    const struct pv **item = pv_alloc(w, (keep + 2) * sizeof *item);
    if (!item)
        return &pv_unknown;
    const uint8_t *from = v->p;
    p = v->p;
    for (size_t i = 0; i < cuts; i++) {
        hit = find(p, (size_t)(end - p), sep);
        p = hit + sep->n;
        if (right ? i + keep >= cuts : i < keep) {
            item[n++] = pv_text(w, v->kind, from, (size_t)(hit - from), v->from);
            from = p;
        }
    }
    item[n++] = pv_text(w, v->kind, from, (size_t)(end - from), v->from);
    return pv_list(w, PV_LIST, item, n);
}

static const struct pv *splitlines(struct pv_walk *w, const struct pv *v, bool keep)
{
    size_t lines = 1, n = 0;
    const uint8_t *p = v->p, *end = v->p + v->n;
    for (size_t i = 0; i < v->n; i++)
        lines += v->p[i] == '\n' || v->p[i] == '\r';
    const struct pv **item = pv_alloc(w, (lines + 1) * sizeof *item);
    if (!item)
        return &pv_unknown;
    while (p < end) {
        const uint8_t *q = p;
        while (q < end && *q != '\n' && *q != '\r')
            q++;
        const uint8_t *next = q < end ? q + (*q == '\r' && q + 1 < end && q[1] == '\n' ? 2 : 1) : q;
        item[n++] = pv_text(w, v->kind, p, (size_t)((keep ? next : q) - p), v->from);
        p = next;
    }
    return pv_list(w, PV_LIST, item, n);
}

static const struct pv *join(struct pv_walk *w, const struct pv *sep, const struct pv *list)
{
    size_t total = 0, n = 0;
    const struct pv_origin *from = NULL;
    if (list && pv_is_text(list) && !sep->n)
        return list;
    if (!list || list->kind != PV_LIST)
        return &pv_unknown;
    for (size_t i = 0; i < list->n; i++) {
        if (list->item[i]->kind != sep->kind)
            return &pv_unknown;
        total += list->item[i]->n + (i ? sep->n : 0);
        from = from ? from : list->item[i]->from;
        if (total > w->cap)
            return &pv_unknown;
    }
    uint8_t *p = pv_alloc(w, total + 1);
    if (!p)
        return &pv_unknown;
    for (size_t i = 0; i < list->n; i++) {
        if (i && sep->n) {
            memcpy(p + n, sep->p, sep->n);
            n += sep->n;
        }
        if (list->item[i]->n)
            memcpy(p + n, list->item[i]->p, list->item[i]->n);
        n += list->item[i]->n;
    }
    p[total] = 0;
    return pv_text(w, sep->kind, p, total, from);
}

static const struct pv *partition(struct pv_walk *w, const struct pv *v, const struct pv *sep,
                                  bool right)
{
    const struct pv *parts = split(w, v, sep, 1, right), *item[3];
    if (parts->kind != PV_LIST || parts->n != 2)
        return &pv_unknown;
    item[0] = parts->item[0];
    item[1] = sep;
    item[2] = parts->item[1];
    return pv_list(w, PV_LIST, item, 3);
}

static const struct pv *rot13(struct pv_walk *w, const struct pv *v)
{
    uint8_t *p = pv_alloc(w, v->n + 1);
    for (size_t i = 0; p && i < v->n; i++) {
        uint8_t ch = v->p[i], low = ch | 0x20;
        bool letter = low >= 'a' && low <= 'z' && ch < 0x80;
        p[i] = !letter ? ch : (uint8_t)(low < 'n' ? ch + 13 : ch - 13);
    }
    return p ? pv_text(w, v->kind, p, v->n, v->from) : &pv_unknown;
}

const struct pv *pv_text_method(struct pv_walk *w, const struct pv *v, const char *name, size_t n,
                                const struct pv_arg *arg, size_t args)
{
    const struct pv *a = pv_arg(arg, args, 0, NULL), *b = pv_arg(arg, args, 1, NULL);
    long long most = -1;
    if (!pv_is_text(v))
        return v->kind == PV_OUTSIDE ? v : &pv_unknown;
    if (named(name, n, "decode") && v->kind == PV_BYTES) {
        int how = encoding(arg, args);
        return how == 8   ? latin_decode(w, v)
               : how == 7 ? pv_text(w, PV_STR, v->p, v->n, v->from)
                          : &pv_unknown;
    }
    if (named(name, n, "encode") && v->kind == PV_STR) {
        int how = encoding(arg, args);
        return how == 8   ? latin_encode(w, v)
               : how == 7 ? pv_text(w, PV_BYTES, v->p, v->n, v->from)
                          : &pv_unknown;
    }
    if (named(name, n, "decode") && v->kind == PV_STR)
        return a && pv_same(a, "rot13") ? rot13(w, v) : v;
    if (named(name, n, "encode") && v->from) /* the script itself is read as bytes here */
        return v;
    if (named(name, n, "strip"))
        return strip(w, v, true, true, a);
    if (named(name, n, "lstrip"))
        return strip(w, v, true, false, a);
    if (named(name, n, "rstrip"))
        return strip(w, v, false, true, a);
    if (named(name, n, "replace"))
        return replace(w, v, a, b);
    if (named(name, n, "splitlines"))
        return splitlines(w, v, a != NULL);
    if (named(name, n, "join"))
        return join(w, v, a);
    if (named(name, n, "split") || named(name, n, "rsplit")) {
        const struct pv *limit = pv_arg(arg, args, 1, "maxsplit");
        if (limit && !pv_number(limit, &most))
            return &pv_unknown;
        /* the script is read as bytes here, but its text may be cut by a str */
        struct pv sep = a ? *a : pv_unknown;
        if (a && pv_is_text(a))
            sep.kind = v->kind;
        return a ? split(w, v, &sep, most, name[0] == 'r') : words(w, v);
    }
    if ((named(name, n, "partition") || named(name, n, "rpartition")) && a && pv_is_text(a)) {
        struct pv *sep = pv_alloc(w, sizeof *sep);
        if (!sep)
            return &pv_unknown;
        *sep = *a;
        sep->kind = v->kind;
        return partition(w, v, sep, name[0] == 'r');
    }
    return &pv_unknown;
}
