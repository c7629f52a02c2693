/* record_tree.c - record_folders of record_folder.h: which folders of a tree are records. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "verify/record_folder.h"

enum { TREE_DEPTH = 4, TREE_FOLDERS = 65536 };

struct list {
    char **s;
    size_t n;
};

static enum err_code list_add(struct list *l, const char *s, struct err *e)
{
    if (l->n >= TREE_FOLDERS)
        return err_set(e, ERR_INPUT, "%s: more than %d folders", s, TREE_FOLDERS);
    char **grown = realloc(l->s, (l->n + 1) * sizeof *grown);
    if (!grown)
        return err_nomem(e, "a list of folders", (l->n + 1) * sizeof *grown);
    l->s = grown;
    l->s[l->n] = strdup(s);
    return l->s[l->n++] ? ERR_OK : err_nomem(e, "a folder name", strlen(s));
}

void record_folders_free(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

/* Is a file of this name the mark of a record? */
static bool marks(const char *name)
{
    size_t n = strlen(name);
    return (n > 5 && !strcasecmp(name + n - 5, ".json") && !strncasecmp(name, "submission", 10)) ||
           (n > 3 && !strcasecmp(name + n - 3, ".py")) ||
           (n > 4 && !strcasecmp(name + n - 4, ".log"));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One folder: a record, or the folders in it. `any` is set when a regular file was seen. */
static enum err_code scan(struct list *out, const char *dir, int depth, bool *any, struct err *e)
{
    struct list sub = {0};
    enum err_code rc = ERR_OK;
    bool record = false;
    struct dirent *ent;
    DIR *d = opendir(dir);
    /* Below the top it is listed: whoever reads the folders says why it cannot be. */
    if (!d)
        return depth ? list_add(out, dir, e)
                     : err_set(e, ERR_INPUT, "%s: %s", dir, strerror(errno));
    while (!rc && (ent = readdir(d))) {
        char path[4096];
        struct stat st;
        if (*ent->d_name == '.' || fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            snprintf(path, sizeof path, "%s/%s", dir, ent->d_name) >= (int)sizeof path)
            continue;
        if (S_ISDIR(st.st_mode) && depth < TREE_DEPTH)
            rc = list_add(&sub, path, e);
        else if (S_ISREG(st.st_mode))
            record |= marks(ent->d_name), *any = true;
    }
    closedir(d);
    if (!rc && record)
        rc = list_add(out, dir, e);
    if (!record && sub.n)
        qsort(sub.s, sub.n, sizeof *sub.s, by_name);
    for (size_t i = 0; !rc && !record && i < sub.n; i++)
        rc = scan(out, sub.s[i], depth + 1, any, e);
    record_folders_free(sub.s, sub.n);
    return rc;
}

enum err_code record_folders_one(char ***list, size_t *n, const char *dir, struct err *e)
{
    struct list one = {0};
    enum err_code rc = list_add(&one, dir, e);
    if (rc)
        record_folders_free(one.s, one.n);
    *list = rc ? NULL : one.s;
    *n = rc ? 0 : one.n;
    return rc;
}

enum err_code record_folders(char ***list, size_t *n, const char *dir, struct err *e)
{
    struct list out = {0};
    char top[4096];
    size_t len = strlen(dir);
    bool any = false;
    *list = NULL;
    *n = 0;
    if (len >= sizeof top)
        return err_set(e, ERR_INPUT, "%s: path too long", dir);
    memcpy(top, dir, len + 1);
    while (len > 1 && top[len - 1] == '/')
        top[--len] = 0;
    enum err_code rc = scan(&out, top, 0, &any, e);
    if (!rc && !out.n)
        rc = any ? list_add(&out, top, e)
                 : err_set(e, ERR_INPUT, "%s: no record in it: no files at all", dir);
    if (rc) {
        record_folders_free(out.s, out.n);
        return rc;
    }
    *list = out.s;
    *n = out.n;
    return ERR_OK;
}
