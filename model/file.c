/* file.c - see file.h. */
#include "model/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum err_code file_map(const char *path, const void **data, size_t *n, struct err *e)
{
    struct stat st;
    enum err_code rc = ERR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    *data = NULL;
    *n = 0;
    if (fd < 0)
        return err_set(e, ERR_INPUT, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_INPUT, "%s: not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            rc = err_set(e, ERR_RESOURCE, "%s: cannot map: %s", path, strerror(errno));
        } else {
            *data = p;
            *n = (size_t)st.st_size;
        }
    }
    close(fd);
    return rc;
}

void file_unmap(const void *data, size_t n)
{
    if (data)
        munmap((void *)data, n);
}

enum err_code atomic_open(struct atomic_file *a, const char *path, struct err *e)
{
    struct stat st;
    bool special = !stat(path, &st) && !S_ISREG(st.st_mode);
    memset(a, 0, sizeof *a);
    if (strlen(path) >= sizeof a->path)
        return err_set(e, ERR_USAGE, "path too long: %s", path);
    strcpy(a->path, path);
    if (!special)
        snprintf(a->tmp, sizeof a->tmp, "%s.tmp%ld", path, (long)getpid());
    a->f = fopen(special ? path : a->tmp, "wbe");
    if (!a->f)
        return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", path, strerror(errno));
    return ERR_OK;
}

enum err_code atomic_commit(struct atomic_file *a, unsigned mode, struct err *e)
{
    FILE *f = a->f;
    /* fsync before rename: otherwise a crash can leave the new name on an empty file. */
    bool ok =
        !ferror(f) && !fflush(f) && (!*a->tmp || (!fchmod(fileno(f), mode) && !fsync(fileno(f))));
    int why = errno;
    a->f = NULL;
    if (fclose(f) && ok) {
        ok = false;
        why = errno;
    }
    if (ok && *a->tmp && rename(a->tmp, a->path)) {
        ok = false;
        why = errno;
    }
    if (ok)
        return ERR_OK;
    if (*a->tmp)
        unlink(a->tmp);
    return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", a->path, strerror(why));
}

void atomic_abort(struct atomic_file *a)
{
    if (a->f) {
        fclose(a->f);
        a->f = NULL;
        if (*a->tmp)
            unlink(a->tmp);
    }
}

enum err_code file_write(const char *path, const void *data, size_t n, struct err *e)
{
    struct atomic_file a;
    enum err_code rc = atomic_open(&a, path, e);
    if (rc)
        return rc;
    fwrite(data, 1, n, a.f);
    return atomic_commit(&a, 0644, e);
}

enum err_code dir_make(const char *path, struct err *e)
{
    char p[PATH_MAX];
    struct stat st;
    size_t n = strlen(path);
    if (n >= sizeof p)
        return err_set(e, ERR_USAGE, "path too long: %s", path);
    strcpy(p, path);
    for (size_t i = 1; i <= n; i++) {
        if (p[i] && p[i] != '/')
            continue;
        p[i] = 0;
        if (mkdir(p, 0777) && errno != EEXIST)
            return err_set(e, ERR_RESOURCE, "%s: cannot create directory: %s", p, strerror(errno));
        p[i] = path[i];
    }
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_RESOURCE, "%s: not a directory", path);
    return ERR_OK;
}
