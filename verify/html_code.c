/* html_code.c - see html_code.h. */
#include "verify/html_code.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"

enum { LINE = 512, COLUMNS = 4, SIZE_MOST = 1 << 30 };

void code_free(struct page_code *c)
{
    free(c->f);
    *c = (struct page_code){0};
}

/* A whole word that is a decimal number. */
static bool number(const char *s, double *v)
{
    size_t digits = strspn(s, "0123456789");
    *v = digits && digits <= 20 && !s[digits] ? strtod(s, NULL) : -1;
    return *v >= 0 && *v <= SIZE_MOST;
}

static void line(struct page_code *c, char *text)
{
    char *word[COLUMNS + 1], *save = NULL;
    size_t n = 0, i = 0;
    double bytes;
    for (char *w = strtok_r(text, " \t\r", &save); w && n <= COLUMNS;
         w = strtok_r(NULL, " \t\r", &save))
        word[n++] = w;
    if ((n != 2 && n != COLUMNS) || !number(word[n == 2 ? 0 : 1], &bytes) || bytes == 0)
        return;
    if (n == COLUMNS && (!strcmp(word[2], "b") || !strcmp(word[2], "B")))
        return; /* zeros, which no file holds */
    char name[CODE_NAME];
    snprintf(name, sizeof name, "%s", word[n - 1]);
    while (i < c->n && strcmp(c->f[i].name, name) != 0)
        i++;
    if (i == CODE_FUNCTIONS)
        return;
    if (i == c->n) {
        c->f[c->n] = (struct page_function){.bytes = 0};
        memcpy(c->f[c->n++].name, name, sizeof name);
    }
    c->f[i].bytes += bytes;
    c->bytes += bytes;
}

static int by_bytes(const void *a, const void *b)
{
    const struct page_function *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->name, y->name);
}

enum err_code code_parse(struct page_code *c, const char *text, size_t n, struct err *e)
{
    *c = (struct page_code){.f = calloc(CODE_FUNCTIONS, sizeof *c->f)};
    if (!c->f)
        return err_nomem(e, "names of functions", CODE_FUNCTIONS * sizeof *c->f);
    while (n) {
        const char *end = memchr(text, '\n', n);
        size_t len = end ? (size_t)(end - text) : n;
        char copy[LINE];
        if (len < sizeof copy && !memchr(text, 0, len)) {
            memcpy(copy, text, len);
            copy[len] = 0;
            line(c, copy);
        }
        text += len + (end != NULL);
        n -= len + (end != NULL);
    }
    qsort(c->f, c->n, sizeof *c->f, by_bytes);
    return ERR_OK;
}

enum err_code code_read(struct page_code *c, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    enum err_code rc = file_map(path, &map, &n, e);
    if (rc)
        return rc;
    rc = code_parse(c, map, n, e);
    file_unmap(map, n);
    if (!rc && !c->n)
        rc = err_set(e, ERR_INPUT, "%s: no line has bytes and the name of a function", path);
    return rc;
}
