/*
 * runner_rt.c - what the runner has instead of the big parts of libc.
 *
 * err_set without stdio, settings without strtod, and an allocator that asks the kernel for every
 * block: the runner allocates a few dozen times, mostly large, so pages are the right unit and a
 * general-purpose malloc would only cost bytes in every submission.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/err.h"
#include "model/number.h"
#include "model/recipe.h"
#include "model/text.h"

enum err_code err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (e && e->code == ERR_OK) {
        struct text t = {e->msg, 0, sizeof e->msg};
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        text_format(&t, fmt, ap);
        va_end(ap);
    }
    return code;
}

enum err_code err_nomem(struct err *e, const char *what, unsigned long long n)
{
    return err_set(e, ERR_RESOURCE, "out of memory: %llu bytes for %s", n, what);
}

/* ---- memory ---- */

enum { HEAD = 64 }; /* in front of every block: its mapped size; keeps blocks on cache lines */

void *malloc(size_t n)
{
    size_t *p;
    if (n > SIZE_MAX - HEAD)
        return NULL;
    p = mmap(NULL, n + HEAD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    *p = n + HEAD;
    return (char *)p + HEAD;
}

void free(void *p)
{
    if (p) {
        size_t *head = (size_t *)(void *)((char *)p - HEAD);
        munmap(head, *head);
    }
}

void *calloc(size_t n, size_t size)
{
    return size && n > SIZE_MAX / size ? NULL : malloc(n * size); /* fresh pages are zero */
}

void *aligned_alloc(size_t align, size_t n)
{
    return align <= HEAD ? malloc(n) : NULL;
}

void *realloc(void *p, size_t n)
{
    void *q = malloc(n);
    if (q && p) {
        size_t old = *(size_t *)(void *)((char *)p - HEAD) - HEAD;
        memcpy(q, p, old < n ? old : n);
        free(p);
    }
    return q;
}

/* ---- settings ---- */

struct key {
    const char *name;
    unsigned at;
    char is; /* 'I', 'N' or 'S': the first letter of the type */
    const char *def;
};

#define KEY(type, key, field, def, help) {#key, offsetof(struct recipe, field), #type[0], #def},
static const struct key keys[] = {RECIPE_MODEL_KEYS(KEY) RECIPE_EVAL_KEYS(KEY)};
enum { KEYS = sizeof keys / sizeof keys[0] };

/* value ends at n; the default of a text is written with its quotes, and so may a value be. */
static bool assign(struct recipe *r, const struct key *k, const char *value, size_t n)
{
    char *field = (char *)r + k->at, buf[RECIPE_STR];
    double v;
    if (n >= 2 && *value == '"') {
        value++;
        n -= 2;
    }
    if (n >= sizeof buf)
        return false;
    memcpy(buf, value, n);
    buf[n] = 0;
    if (k->is == 'S') {
        memcpy(field, buf, n + 1);
        return true;
    }
    if (!number_parse(buf, &v))
        return false;
    if (k->is == 'N')
        *(double *)(void *)field = v;
    else if (v != (double)(*(int64_t *)(void *)field = (int64_t)v))
        return false;
    return true;
}

void recipe_init(struct recipe *r)
{
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < KEYS; i++)
        assign(r, &keys[i], keys[i].def, strlen(keys[i].def));
}

/* The recipe section is what recipe_print wrote: KEY=VALUE lines, nothing else. Keys that only
 * matter for training are skipped, so `lenient` is not asked. */
enum err_code recipe_parse(struct recipe *r, const char *text, size_t n, const char *where,
                           bool lenient, struct err *e)
{
    (void)lenient;
    while (n) {
        const char *nl = memchr(text, '\n', n);
        size_t len = nl ? (size_t)(nl - text) : n, i;
        for (i = 0; i < KEYS; i++) {
            size_t k = strlen(keys[i].name);
            if (k < len && text[k] == '=' && !memcmp(text, keys[i].name, k) &&
                !assign(r, &keys[i], text + k + 1, len - k - 1))
                return err_set(e, ERR_USAGE, "%s: %s: not understood", where, keys[i].name);
        }
        len += nl != NULL;
        text += len;
        n -= len;
    }
    return ERR_OK;
}
