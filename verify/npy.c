/* npy.c - see npy.h. */
#include "verify/npy.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "model/file.h"
#include "model/reader.h"

enum { NPY_MAGIC = 8, NPY_LONGEST = 4096 };

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

void npy_header(uint8_t out[NPY_HEADER], uint64_t n)
{
    char dict[NPY_HEADER + 1];
    int len = snprintf(dict, sizeof dict,
                       "{'descr': '<f8', 'fortran_order': False, 'shape': (%" PRIu64 ",), }", n);
    memset(out, ' ', NPY_HEADER);
    memcpy(out, magic, sizeof magic);
    out[6] = 1;
    out[7] = 0;
    out[8] = (NPY_HEADER - NPY_MAGIC - 2) & 255;
    out[9] = (NPY_HEADER - NPY_MAGIC - 2) >> 8;
    memcpy(out + NPY_MAGIC + 2, dict, (size_t)len);
    out[NPY_HEADER - 1] = '\n';
}

enum err_code npy_write(const char *path, const double *x, size_t n, struct err *e)
{
    struct atomic_file a = {0};
    uint8_t head[NPY_HEADER];
    enum err_code rc = atomic_open(&a, path, e);

    if (rc)
        return rc;
    npy_header(head, n);
    if (fwrite(head, 1, sizeof head, a.f) != sizeof head || fwrite(x, sizeof *x, n, a.f) != n) {
        rc = err_set(e, ERR_RESOURCE, "%s: cannot write %zu scores: disk full?", path, n);
        atomic_abort(&a);
        return rc;
    }
    return atomic_commit(&a, 0644, e);
}

enum err_code npy_try(const char *path, struct err *e)
{
    struct atomic_file a = {0};
    enum err_code rc = atomic_open(&a, path, e);
    atomic_abort(&a);
    return rc;
}

/* A cursor over the dict literal; every function leaves it alone when it returns false. */
struct text {
    const char *at, *end;
};

static void skip_blanks(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n'))
        t->at++;
}

static bool take(struct text *t, char c)
{
    skip_blanks(t);
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

/* A Python string without escapes, in either kind of quotes. */
static bool take_string(struct text *t, const char **s, size_t *n)
{
    skip_blanks(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"'))
        return false;
    const char *close = memchr(t->at + 1, *t->at, (size_t)(t->end - t->at - 1));
    if (!close)
        return false;
    *s = t->at + 1;
    *n = (size_t)(close - *s);
    t->at = close + 1;
    return true;
}

static bool take_word(struct text *t, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0)
        return false;
    t->at += n;
    return true;
}

static bool take_number(struct text *t, uint64_t *v)
{
    skip_blanks(t);
    if (t->at == t->end || *t->at < '0' || *t->at > '9')
        return false;
    for (*v = 0; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        uint64_t digit = (uint64_t)(*t->at - '0');
        if (*v > (UINT64_MAX - digit) / 10)
            return false;
        *v = *v * 10 + digit;
    }
    return true;
}

static bool is(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

/* Every key exactly once: three bits of `seen`. */
static bool parse_dict(struct text t, uint64_t *count)
{
    unsigned seen = 0;
    if (!take(&t, '{'))
        return false;
    while (!take(&t, '}')) {
        const char *key, *value;
        size_t nkey, nvalue;
        unsigned bit;
        if (!take_string(&t, &key, &nkey) || !take(&t, ':'))
            return false;
        if (is(key, nkey, "descr")) {
            bit = 1;
            if (!take_string(&t, &value, &nvalue) || !is(value, nvalue, "<f8"))
                return false;
        } else if (is(key, nkey, "fortran_order")) {
            bit = 2;
            if (!take_word(&t, "False"))
                return false;
        } else if (is(key, nkey, "shape")) {
            bit = 4;
            if (!take(&t, '(') || !take_number(&t, count) || !take(&t, ',') || !take(&t, ')'))
                return false;
        } else {
            return false;
        }
        if (seen & bit)
            return false;
        seen |= bit;
        if (!take(&t, ',')) {
            if (!take(&t, '}'))
                return false;
            break;
        }
    }
    skip_blanks(&t);
    return seen == 7 && t.at == t.end;
}

enum err_code npy_parse(const uint8_t *p, size_t have, size_t *data, uint64_t *count,
                        const char *path, struct err *e)
{
    size_t known = have < sizeof magic ? have : sizeof magic;
    *data = 0;
    *count = 0;
    if (memcmp(p, magic, known) != 0)
        return err_set(e, ERR_INPUT, "%s: not a .npy file", path);
    if (have < NPY_MAGIC)
        return ERR_OK;
    if ((p[6] != 1 && p[6] != 2) || p[7] != 0)
        return err_set(e, ERR_INPUT, "%s: .npy version %d.%d, expected 1.0 or 2.0", path, p[6],
                       p[7]);

    size_t field = p[6] == 1 ? 2 : 4, start = NPY_MAGIC + field;
    if (have < start)
        return ERR_OK;
    size_t len = p[6] == 1 ? le16(p + NPY_MAGIC) : le32(p + NPY_MAGIC);
    if (len > NPY_LONGEST)
        return err_set(e, ERR_INPUT, "%s: .npy header of %zu bytes, at most %d are read", path, len,
                       NPY_LONGEST);
    if (have - start < len)
        return ERR_OK;
    const char *text = (const char *)p + start;
    if (!parse_dict((struct text){text, text + len}, count))
        return err_set(e, ERR_INPUT, "%s: .npy header is not that of a one-dimensional '<f8' array",
                       path);
    *data = start + len;
    return ERR_OK;
}
