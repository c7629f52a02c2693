/* bytetable.c - see bytetable.h. */
#include "verify/bytetable.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/file.h"

enum { CANDIDATES = 64 };

struct models {
    char path[CANDIDATES][BYTETABLE_PATH];
    size_t n;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Directory part of a path, "." when it has none; of a directory, the path itself. */
static void directory(char out[BYTETABLE_PATH], const char *path)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        snprintf(out, BYTETABLE_PATH, "%s", path);
    else if (slash)
        snprintf(out, BYTETABLE_PATH, "%.*s", (int)(slash - path + (slash == path)), path);
    else
        snprintf(out, BYTETABLE_PATH, ".");
}

/* Append the *.model files of one directory, by name. A directory that is not there has none. */
static void add_models(struct models *m, const char *dir)
{
    size_t first = m->n;
    char *real = realpath(dir, NULL); /* without the "..", for people */
    DIR *d = real ? opendir(real) : NULL;
    if (!d) {
        free(real);
        return;
    }
    for (const struct dirent *f; m->n < CANDIDATES && (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n < 6 || strcmp(f->d_name + n - 6, ".model"))
            continue;
        int len = snprintf(m->path[m->n], BYTETABLE_PATH, "%s/%s", real, f->d_name);
        m->n += len > 0 && len < BYTETABLE_PATH;
    }
    closedir(d);
    free(real);
    qsort(m->path + first, m->n - first, sizeof m->path[0], by_name);
}

static struct models *find_models(const char *data, struct err *e)
{
    static const char *const beside[] = {"", "/../tokenizers", "/../../tokenizers"};
    char dir[BYTETABLE_PATH], there[BYTETABLE_PATH + 32];
    struct models *m = calloc(1, sizeof *m);
    if (!m) {
        err_nomem(e, "names of tokenisers", sizeof *m);
        return NULL;
    }
    directory(dir, data);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        snprintf(there, sizeof there, "%s%s", dir, beside[i]);
        add_models(m, there);
    }
    return m;
}

static bool same(const struct byte_table *a, const struct byte_table *b)
{
    return a->vocab == b->vocab && !memcmp(a->base, b->base, a->vocab) &&
           !memcmp(a->flags, b->flags, a->vocab);
}

static enum err_code from_file(struct bytetable *t, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    rc = bytes_parse(&t->b, data, n, path, e);
    file_unmap(data, n);
    snprintf(t->origin, sizeof t->origin, "%s", path);
    return rc;
}

/* The one table that the models found agree on. */
static enum err_code from_data(struct bytetable *t, const char *data, size_t vocab, struct err *e)
{
    enum err_code rc = ERR_OK;
    struct models *m = find_models(data, e);
    if (!m)
        return ERR_RESOURCE;
    for (size_t i = 0; i < m->n && !rc; i++) {
        struct byte_table b;
        struct err unused = {0}; /* some other program's .model */
        if (bytes_from_tokenizer(&b, m->path[i], &unused))
            continue;
        if (b.vocab == vocab && !t->b.vocab) {
            t->b = b;
            snprintf(t->origin, sizeof t->origin, "%s", m->path[i]);
            continue;
        }
        if (b.vocab == vocab && !same(&b, &t->b))
            rc = err_set(e, ERR_INPUT, "%s and %s count bytes differently: say --tokenizer",
                         t->origin, m->path[i]);
        bytes_free(&b);
    }
    free(m);
    if (!rc && !t->b.vocab)
        rc = err_set(e, ERR_INPUT,
                     "%s: no tokeniser of %zu pieces nearby: say --tokenizer or --byte-table", data,
                     vocab);
    return rc;
}

enum err_code bytetable_for_weights(struct bytetable *t, const char *weights, const char *tokenizer,
                                    const char *table, const char *data, size_t vocab,
                                    struct err *e)
{
    char beside[BYTETABLE_PATH + 32], dir[BYTETABLE_PATH];
    enum err_code rc;

    *t = (struct bytetable){0};
    directory(dir, weights);
    snprintf(beside, sizeof beside, "%s/byte_table.bin", dir);
    if (tokenizer) {
        snprintf(t->origin, sizeof t->origin, "%s", tokenizer);
        rc = bytes_from_tokenizer(&t->b, tokenizer, e);
    } else if (table) {
        rc = from_file(t, table, e);
    } else if (!access(beside, F_OK)) {
        rc = from_file(t, beside, e);
    } else {
        rc = from_data(t, data, vocab, e);
    }
    if (!rc && t->b.vocab != vocab)
        rc = err_set(e, ERR_INPUT, "%s: %zu pieces, the model's vocabulary has %zu", t->origin,
                     t->b.vocab, vocab);
    if (rc)
        bytetable_free(t);
    return rc;
}

void bytetable_free(struct bytetable *t)
{
    bytes_free(&t->b);
    *t = (struct bytetable){0};
}

enum err_code bytetable_check(const struct byte_table *b, const char *tokenizer, const char *data,
                              enum bytetable_verdict *v, char *which, struct err *e)
{
    struct byte_table own;
    enum err_code rc;

    *v = BYTETABLE_UNCHECKED;
    which[0] = 0;
    if (tokenizer) {
        snprintf(which, BYTETABLE_PATH, "%s", tokenizer);
        if ((rc = bytes_from_tokenizer(&own, tokenizer, e)))
            return rc;
        *v = same(b, &own) ? BYTETABLE_EQUAL : BYTETABLE_DIFFERS;
        bytes_free(&own);
        return ERR_OK;
    }
    struct models *m = find_models(data, e);
    if (!m)
        return ERR_RESOURCE;
    for (size_t i = 0; i < m->n && *v != BYTETABLE_EQUAL; i++) {
        struct err unused = {0};
        if (bytes_from_tokenizer(&own, m->path[i], &unused))
            continue;
        if (own.vocab == b->vocab) {
            *v = same(b, &own) ? BYTETABLE_EQUAL : BYTETABLE_DIFFERS;
            snprintf(which, BYTETABLE_PATH, "%s", m->path[i]);
        }
        bytes_free(&own);
    }
    free(m);
    return ERR_OK;
}
