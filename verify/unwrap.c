/* unwrap.c - see unwrap.h. */
#include "verify/unwrap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/pycalc.h"
#include "verify/pycodec.h"
#include "verify/pymarshal.h"
#include "verify/pytoken.h"
#include "verify/unwrap_parts.h"

enum {
    GUESS_LEAST = 512, /* characters of a literal that is worth trying */
    GUESS_MOST = 64,   /* literals of one part that are tried */
    TEXT_LEAST = 32,   /* bytes that a guess must give */
};

/* Every text that a part points to. */
struct texts {
    struct texts *next;
    uint8_t bytes[];
};

static uint8_t *keep(struct unwrap *u, const void *p, size_t n)
{
    struct texts *t = malloc(sizeof *t + n + 1);
    if (!t)
        return NULL;
    t->next = u->own;
    u->own = t;
    if (n)
        memcpy(t->bytes, p, n);
    t->bytes[n] = 0;
    return t->bytes;
}

void unwrap_say(struct unwrap *u, size_t part, size_t line, const char *fmt, ...)
{
    if (u->notes == UNWRAP_NOTES) {
        u->notes_dropped++;
        return;
    }
    struct unwrap_note *n = &u->note[u->notes++];
    va_list ap;
    *n = (struct unwrap_note){.part = part, .line = line};
    va_start(ap, fmt);
    vsnprintf(n->text, sizeof n->text, fmt, ap);
    va_end(ap);
    py_printable(n->text);
}

/* ---- what kind of bytes ---- */

static bool valid_utf8(const uint8_t *p, size_t n)
{
    for (size_t i = 0, len; i < n; i += len)
        if (!(len = py_utf8(p + i, n - i)))
            return false;
    return true;
}

static bool text_like(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((p[i] < ' ' && !strchr("\n\t\r\f", p[i])) || !p[i] || p[i] == 0x7f)
            return false;
    return valid_utf8(p, n);
}

bool unwrap_python(const uint8_t *p, size_t n)
{
    static const char *const words[] = {"import", "from", "def", "class", "return", "for", "if"};
    struct py_source s;
    struct err e = {0};
    size_t hits = 0;
    bool first = true;
    if (!text_like(p, n) || py_scan(&s, (const char *)p, n, &e))
        return false;
    for (size_t i = 0; i < s.count; i++) {
        for (size_t k = 0; first && k < sizeof words / sizeof *words; k++)
            hits += py_is(&s, i, words[k]);
        first = s.tok[i].kind == PY_NEWLINE || py_is(&s, i, ";") || py_is(&s, i, ":");
    }
    bool yes = hits > 0 && !s.bad_line;
    py_free(&s);
    return yes;
}

/* A script in Latin-1 says so in a comment of its first two lines (PEP 263); its bytes above 127
 * are then characters of their own. Returns the text in UTF-8, which is p itself where nothing
 * changes; NULL: out of memory. */
static const uint8_t *as_utf8(const uint8_t *p, size_t n, size_t *out_n, uint8_t **own)
{
    size_t line = 0, head = 0;
    *own = NULL;
    *out_n = n;
    while (head < n && line < 2)
        line += p[head++] == '\n';
    const uint8_t *c = memmem(p, head, "coding", 6);
    if (valid_utf8(p, n) || !c)
        return p;
    c += 6;
    while (c < p + head && (*c == ':' || *c == '=' || *c == ' '))
        c++;
    size_t left = (size_t)(p + head - c);
    if (!(left >= 2 && !strncasecmp((const char *)c, "l1", 2)) &&
        !(left >= 5 && !strncasecmp((const char *)c, "latin", 5)) &&
        !(left >= 10 && !strncasecmp((const char *)c, "iso-8859-1", 10)))
        return p;
    if (!(*own = malloc(2 * n + 1)))
        return NULL;
    *out_n = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] >= 0x80)
            (*own)[(*out_n)++] = (uint8_t)(0xc0 | p[i] >> 6);
        (*own)[(*out_n)++] = p[i] < 0x80 ? p[i] : (uint8_t)(0x80 | (p[i] & 0x3f));
    }
    return *own;
}

/* ---- parts ---- */

enum err_code unwrap_add(struct unwrap *u, struct unwrap_part p, struct err *e)
{
    for (size_t i = 0; i < u->parts; i++) /* decoded twice is one part */
        if (u->part[i].size == p.size && !memcmp(u->part[i].text, p.text, p.size)) {
            u->part[i].python |= i ? p.python : false;
            return ERR_OK;
        }
    if (u->parts == UNWRAP_PARTS) {
        unwrap_say(u, p.parent, p.line, "more than %d texts: %s of %zu bytes left out",
                   UNWRAP_PARTS, p.family, p.size);
        return ERR_OK;
    }
    if (p.size > (size_t)UNWRAP_TOTAL - u->total) {
        u->bomb = true;
        unwrap_say(u, p.parent, p.line, "%s of %zu bytes: with all others more than %d bytes",
                   p.family, p.size, UNWRAP_TOTAL);
        return ERR_OK;
    }
    if (!(p.text = keep(u, p.text, p.size)))
        return err_nomem(e, "decoded text", p.size);
    u->total += p.size;
    u->part[u->parts++] = p;
    return ERR_OK;
}

/* Bytes through every packer whose beginning fits; the first that gives readable text wins. Raw
 * LZMA2, deflate and brotli have no magic number and are tried last. */
static bool guess_packer(const uint8_t *raw, size_t n, const char *codec, struct unwrap_part *p,
                         uint8_t **own)
{
    static const struct py_filter lzma2 = {.id = 0x21};
    const enum packer tries[] = {unpack_magic(raw, n), PACK_LZMA_RAW, PACK_DEFLATE, PACK_BROTLI};
    for (size_t i = 0; i < 4; i++) {
        uint8_t *out = NULL;
        size_t out_n = 0;
        bool lz2 = tries[i] == PACK_LZMA_RAW;
        if (tries[i] == PACKERS ||
            unpack(tries[i], lz2 ? &lzma2 : NULL, lz2, raw, n, UNWRAP_MAX, &out, &out_n))
            continue;
        if (out_n < TEXT_LEAST || !text_like(out, out_n)) {
            free(out);
            continue;
        }
        snprintf(p->family, sizeof p->family, "%s+%s", lz2 ? "lzma2-raw" : packer_name[tries[i]],
                 codec);
        p->packed = n;
        p->text = out;
        p->size = out_n;
        p->guessed = true;
        p->python = unwrap_python(out, out_n);
        *own = out;
        return true;
    }
    return false;
}

static bool guess(const uint8_t *lit, size_t n, enum text_codec codec, struct unwrap_part *p,
                  uint8_t **own)
{
    uint8_t *raw = NULL;
    size_t raw_n = 0;
    bool hit = !text_decode(codec, lit, n, true, &raw, &raw_n) && raw_n >= TEXT_LEAST &&
               guess_packer(raw, raw_n, text_codec_name[codec], p, own);
    p->coded = n;
    free(raw);
    return hit;
}

enum err_code unwrap_guess(struct unwrap *u, size_t from, size_t line, const uint8_t *lit, size_t n,
                           bool text, struct err *e)
{
    static const enum text_codec codecs[] = {TEXT_B85, TEXT_B64, TEXT_A85,   TEXT_HEX,
                                             TEXT_Z85, TEXT_B32, TEXT_B64URL};
    struct unwrap_part p = {.parent = from, .line = line, .coded = n};
    uint8_t *own = NULL;
    bool hit = !text && guess_packer(lit, n, "bytes", &p, &own);
    for (size_t k = 0; k < sizeof codecs / sizeof *codecs && !hit; k++)
        hit = guess(lit, n, codecs[k], &p, &own);
    enum err_code rc = hit ? unwrap_add(u, p, e) : ERR_OK;
    free(own);
    return rc;
}

/* Every large literal of a part, neighbours joined. */
static enum err_code guess_part(struct unwrap *u, size_t from, const struct py_source *s,
                                struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t tried = 0;
    for (size_t i = 0; i < s->count && !rc && tried < GUESS_MOST; i++) {
        size_t first = i, len = 0, n = 0;
        while (i < s->count && s->tok[i].kind == PY_STRING)
            len += s->tok[i++].len;
        if (len < GUESS_LEAST)
            continue;
        tried++;
        uint8_t *lit = malloc(len + 1);
        if (!lit)
            return err_nomem(e, "literal", len);
        for (size_t k = first; k < i; k++) {
            size_t got = 0;
            if (py_string(s, k, lit + n, &got))
                n += got;
        }
        rc = unwrap_guess(u, from, s->tok[first].line, lit, n, true, e);
        free(lit);
    }
    return rc;
}

/* Does the text have anything that could decode or run? Most scripts need no calculator. */
static bool worth(const struct py_source *s)
{
    static const char *const words[] = {"exec",       "eval",          "compile",
                                        "decompress", "b85decode",     "a85decode",
                                        "b64decode",  "unhexlify",     "fromhex",
                                        "runpy",      "decompressobj", "execv",
                                        "marshal",    "uncompress",    "codecs",
                                        "pickle",     "dill",          "cloudpickle",
                                        "subprocess", "system",        "spec_from_file_location"};
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            if (py_is(s, i, words[k]))
                return true;
    return false;
}

/* What the calculator decoded. Bytes that only went through a text codec may be a packed text whose
 * decompressor it did not know. */
static enum err_code add_result(struct unwrap *u, size_t at, const struct pycalc_result *r,
                                struct err *e)
{
    struct unwrap_part q = {.parent = at,
                            .line = r->line,
                            .coded = r->coded,
                            .packed = r->packed,
                            .text = r->p,
                            .size = r->n};
    uint8_t *own = NULL;
    if (r->used || (!r->run && !r->marshal && r->n < PYCALC_SHORT))
        return ERR_OK;
    memcpy(q.family, r->family, sizeof q.family);
    q.marshal = r->marshal;
    if (r->marshal)
        return unwrap_add(u, q, e);
    if (r->run || text_like(r->p, r->n) || !guess_packer(r->p, r->n, r->family, &q, &own))
        q.python = r->run || unwrap_python(r->p, r->n);
    enum err_code rc = unwrap_add(u, q, e);
    free(own);
    return rc;
}

static enum err_code look_into(struct unwrap *u, size_t at, struct err *e)
{
    const struct unwrap_part *p = &u->part[at];
    struct py_source s = {0};
    struct pycalc c = {0};
    uint8_t *own = NULL;
    size_t n, before = u->parts;
    const uint8_t *text = as_utf8(p->text, p->size, &n, &own);
    enum err_code rc;
    if (!text)
        return err_nomem(e, "text", 2 * p->size);
    if ((rc = py_scan(&s, (const char *)text, n, e)))
        goto out;
    if (worth(&s)) {
        if ((rc = pycalc(&c, &s, p->text, p->size, UNWRAP_MAX, e)))
            goto out;
        for (size_t i = 0; i < c.results && !rc; i++)
            rc = add_result(u, at, &c.result[i], e);
        for (size_t i = 0; i < c.notes; i++)
            unwrap_say(u, at, c.note[i].line, "%s", c.note[i].text);
        u->notes_dropped += c.notes_dropped;
        u->bomb |= c.bomb;
        u->other_file |= c.other_file;
    }
    if (!rc && u->parts == before)
        rc = guess_part(u, at, &s, e);
out:
    pycalc_free(&c);
    py_free(&s);
    free(own);
    return rc;
}

/* What stands in the way of reading the script proper, and is nearer to it than the wrapper. */
static bool carries(const struct unwrap_part *p)
{
    return p->python || p->marshal || p->listing || !strncmp(p->family, "zip:", 4);
}

/* The script proper: from the file inwards, to the largest decoded Python that is more than what
 * its parent has besides it; where there is none, to compiled code and its listing. A script that
 * carries a small helper stays the main part itself. */
static void choose_main(struct unwrap *u)
{
    for (bool found = true; found;) {
        const struct unwrap_part *best = NULL, *up = &u->part[u->main];
        for (size_t i = u->main + 1; i < u->parts; i++) {
            const struct unwrap_part *p = &u->part[i];
            size_t rest = up->size > p->coded ? up->size - p->coded : 0;
            if (p->marshal) /* how it is spelt in a literal is not known: up to four for one */
                rest /= 4;
            if (p->parent == u->main && carries(p) && (p->size > rest || !up->python) &&
                (!best || p->python > best->python ||
                 (p->python == best->python && p->size > best->size)))
                best = p;
        }
        found = best != NULL;
        u->main = found ? (size_t)(best - u->part) : u->main;
    }
}

enum err_code unwrap(struct unwrap *u, const void *data, size_t n, const char *name, struct err *e)
{
    enum err_code rc;
    size_t depth[UNWRAP_PARTS] = {0};
    *u = (struct unwrap){0};
    if (n > UNWRAP_MAX)
        return err_set(e, ERR_INPUT, "%s: %zu bytes are more than any script has (%d)", name, n,
                       UNWRAP_MAX);
    if ((rc = unwrap_add(u, (struct unwrap_part){.text = data, .size = n, .python = true}, e)))
        return rc;
    for (size_t i = 0; i < u->parts && !rc; i++) {
        size_t before = u->parts, start = 0;
        const struct unwrap_part *p = &u->part[i];
        bool zip = !p->listing && unwrap_zip(p->text, p->size, &start);
        bool pyc = pymarshal_pyc(p->text, p->size);
        if (!p->python && !p->marshal && !zip && !pyc)
            continue;
        if (depth[i] == UNWRAP_DEPTH) {
            unwrap_say(u, i, 0, "wrapped more than %d times: not looked into", UNWRAP_DEPTH);
            continue;
        }
        if (p->marshal || pyc)
            rc = unwrap_marshal_parts(u, i, pyc ? MARSHAL_HEADER : 0, e);
        else if (zip)
            rc = unwrap_zip_parts(u, i, start, e);
        if (!rc && u->part[i].python)
            rc = look_into(u, i, e);
        for (size_t k = before; k < u->parts; k++)
            depth[k] = depth[i] + 1;
    }
    choose_main(u);
    return rc;
}

void unwrap_free(struct unwrap *u)
{
    for (struct texts *t = u->own, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    *u = (struct unwrap){0};
}

const char *unwrap_family(const struct unwrap *u, char *out, size_t cap)
{
    size_t chain[UNWRAP_PARTS], n = 0, at = 0;
    for (size_t i = u->main; i && n < UNWRAP_PARTS; i = u->part[i].parent)
        chain[n++] = i;
    snprintf(out, cap, "none");
    while (n-- && at < cap)
        at +=
            (size_t)snprintf(out + at, cap - at, "%s%s", at ? " > " : "", u->part[chain[n]].family);
    return out;
}
