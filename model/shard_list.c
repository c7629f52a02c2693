/* shard_list.c - the shards of a directory; see shard.h. The runner has its own (stub/runner_rt.c).
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/shard.h"

/* "..._KIND_....bin"? */
static bool is_kind(const char *name, const char *kind)
{
    size_t n = strlen(name), k = strlen(kind);
    const char *p = name;
    if (n < 4 || strcmp(name + n - 4, ".bin"))
        return false;
    while ((p = strchr(p, '_'))) {
        p++;
        if (!strncmp(p, kind, k) && p[k] == '_')
            return true;
    }
    return false;
}

static enum err_code push(struct shard_list *l, size_t *cap, const char *dir, const char *name,
                          struct err *e)
{
    size_t n = strlen(dir), m = strlen(name);
    char *p;
    if (l->count == *cap) {
        char **q = realloc(l->path, (2 * *cap + 16) * sizeof *q);
        if (!q)
            return err_nomem(e, "shard names", (2 * *cap + 16) * sizeof *q);
        l->path = q;
        *cap = 2 * *cap + 16;
    }
    p = malloc(n + m + 2);
    if (!p)
        return err_nomem(e, "shard names", n + m + 2);
    memcpy(p, dir, n);
    if (m) {
        p[n] = '/';
        memcpy(p + n + 1, name, m);
        n += m + 1;
    }
    p[n] = 0;
    for (n = l->count++; n && strcmp(l->path[n - 1], p) > 0; n--)
        l->path[n] = l->path[n - 1]; /* sorted as they come: there are hundreds at most */
    l->path[n] = p;
    return ERR_OK;
}

enum err_code shard_list(struct shard_list *l, const char *path, const char *kind, struct err *e)
{
    struct stat st;
    struct dirent *d;
    size_t cap = 0;
    enum err_code rc = ERR_OK;
    DIR *dir = NULL;
    memset(l, 0, sizeof *l);
    if (stat(path, &st))
        return err_set(e, ERR_INPUT, "%s: no such file or directory", path);
    if (!S_ISDIR(st.st_mode))
        rc = push(l, &cap, path, "", e);
    else if (!(dir = opendir(path)))
        rc = err_set(e, errno == ENOMEM ? ERR_RESOURCE : ERR_INPUT, "%s: cannot read the directory",
                     path);
    while (dir && !rc && (d = readdir(dir)))
        if (is_kind(d->d_name, kind))
            rc = push(l, &cap, path, d->d_name, e);
    if (dir)
        closedir(dir);
    if (!rc && !l->count)
        rc = err_set(e, ERR_INPUT, "%s: no *_%s_*.bin shard in it", path, kind);
    if (rc)
        shard_list_free(l);
    return rc;
}

void shard_list_free(struct shard_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->path[i]);
    free(l->path);
    memset(l, 0, sizeof *l);
}

/* Append one shard's tokens, as many as max still allows. */
static enum err_code append(uint16_t **tok, size_t *n, const char *path, size_t vocab, size_t max,
                            struct err *e)
{
    struct shard s;
    uint16_t *p;
    enum err_code rc = shard_open(&s, path, vocab, e);
    size_t take = s.n;
    if (rc)
        return rc;
    if (max && take > max - *n)
        take = max - *n;
    p = realloc(*tok, (*n + take + 1) * sizeof *p);
    if (p) {
        memcpy(p + *n, s.tok, take * sizeof *p);
        *tok = p;
        *n += take;
    } else {
        rc = err_nomem(e, "tokens", (*n + take) * sizeof *p);
    }
    shard_close(&s);
    return rc;
}

enum err_code shard_load(uint16_t **tok, size_t *n, const char *path, const char *kind,
                         size_t vocab, size_t max, struct err *e)
{
    struct shard_list l;
    enum err_code rc = shard_list(&l, path, kind, e);
    *tok = NULL;
    *n = 0;
    for (size_t i = 0; !rc && i < l.count && (!max || *n < max); i++)
        rc = append(tok, n, l.path[i], vocab, max, e);
    shard_list_free(&l);
    if (rc) {
        free(*tok);
        *tok = NULL;
        *n = 0;
    }
    return rc;
}
