/* ptz_zip.c - see ptz_zip.h. */
#include "packer/ptz_zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

/* A model has a few hundred tensors. */
enum { MAX_ENTRIES = 1 << 14 };

struct ptz_zip {
    zip_t *zip;
    const char *path;
    char *folder;
};

/* What libzip says about a failure. Without a reason it has run out of memory, too. */
static enum err_code failure(const struct ptz_zip *z, zip_error_t *ze, const char *entry,
                             struct err *e)
{
    int code = zip_error_code_zip(ze);
    if (code == ZIP_ER_MEMORY || code == ZIP_ER_OK)
        return err_nomem(e, "zip archive", 0);
    return err_set(e, ERR_INPUT, "%s: zip %s%.80s: %s", z->path, *entry ? "entry " : "archive",
                   entry, zip_error_strerror(ze));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum err_code check_names(const struct ptz_zip *z, struct err *e)
{
    zip_int64_t n = zip_get_num_entries(z->zip, 0);
    if (n < 1)
        return err_set(e, ERR_INPUT, "%s: an empty zip archive", z->path);
    if (n > MAX_ENTRIES)
        return err_set(e, ERR_INPUT, "%s: a zip archive of %lld entries, at most %d are accepted",
                       z->path, (long long)n, MAX_ENTRIES);
    const char **name = malloc((size_t)n * sizeof *name);
    enum err_code rc = name ? ERR_OK : err_nomem(e, "zip directory", (size_t)n * sizeof *name);
    for (zip_int64_t i = 0; !rc && i < n; i++) {
        name[i] = zip_get_name(z->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        if (!name[i])
            rc = failure(z, zip_get_error(z->zip), "without a name", e);
    }
    if (!rc)
        qsort(name, (size_t)n, sizeof *name, by_name);
    for (zip_int64_t i = 1; !rc && i < n; i++)
        if (!strcmp(name[i - 1], name[i]))
            rc = err_set(e, ERR_INPUT, "%s: zip entry %.100s is there twice", z->path, name[i]);
    free(name);
    return rc;
}

enum err_code ptz_zip_open(struct ptz_zip **out, const void *data, size_t n, const char *path,
                           struct err *e)
{
    zip_error_t ze;
    struct ptz_zip *z = calloc(1, sizeof *z);
    *out = NULL;
    if (!z)
        return err_nomem(e, "zip archive", sizeof *z);
    z->path = path;
    zip_error_init(&ze);
    zip_source_t *s = zip_source_buffer_create(data, n, 0, &ze);
    z->zip = s ? zip_open_from_source(s, ZIP_RDONLY, &ze) : NULL;
    enum err_code rc = ERR_OK;
    if (!z->zip) {
        rc = failure(z, &ze, "", e);
        if (s)
            zip_source_free(s);
    }
    zip_error_fini(&ze);
    if (!rc)
        rc = check_names(z, e);
    if (rc)
        ptz_zip_close(z);
    else
        *out = z;
    return rc;
}

void ptz_zip_close(struct ptz_zip *z)
{
    if (!z)
        return;
    if (z->zip)
        zip_discard(z->zip);
    free(z->folder);
    free(z);
}

/* The part of an entry's name before data.pkl: its length, or -1. */
static ptrdiff_t folder_of(const char *name)
{
    static const char file[] = "data.pkl";
    size_t len = name ? strlen(name) : 0, end = sizeof file - 1;
    if (len < end || strcmp(name + len - end, file) || (len > end && name[len - end - 1] != '/'))
        return -1;
    return (ptrdiff_t)(len - end);
}

enum err_code ptz_zip_top(struct ptz_zip *z, const char **folder, struct err *e)
{
    zip_int64_t n = z->folder ? 0 : zip_get_num_entries(z->zip, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(z->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        ptrdiff_t len = folder_of(name);
        if (len < 0)
            continue;
        if (z->folder) {
            free(z->folder);
            z->folder = NULL;
            return err_set(e, ERR_INPUT, "%s: the zip archive holds data.pkl more than once",
                           z->path);
        }
        z->folder = strndup(name, (size_t)len);
        if (!z->folder)
            return err_nomem(e, "zip archive", (size_t)len);
    }
    if (!z->folder)
        return err_set(e, ERR_INPUT,
                       "%s: a zip archive without data.pkl, so not written by torch.save", z->path);
    *folder = z->folder;
    return ERR_OK;
}

bool ptz_zip_has(const struct ptz_zip *z, const char *ending)
{
    zip_int64_t n = zip_get_num_entries(z->zip, 0);
    size_t m = strlen(ending);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(z->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        size_t len = name ? strlen(name) : 0;
        if (len >= m && !strcmp(name + len - m, ending))
            return true;
    }
    return false;
}

enum err_code ptz_zip_names(const struct ptz_zip *z, const char ***name, size_t *n, struct err *e)
{
    *n = (size_t)zip_get_num_entries(z->zip, 0); /* checked when the archive was opened */
    *name = malloc(*n * sizeof **name);
    if (!*name)
        return err_nomem(e, "zip directory", *n * sizeof **name);
    for (size_t i = 0; i < *n; i++)
        (*name)[i] = zip_get_name(z->zip, i, ZIP_FL_ENC_RAW);
    return ERR_OK;
}

/* Fills out[0..n) from an open entry and reads on to its end, where the CRC is compared. */
static enum err_code read_all(zip_file_t *f, uint8_t *out, size_t n, const char *name,
                              const struct ptz_zip *z, struct err *e)
{
    size_t at = 0;
    uint8_t beyond;
    zip_int64_t got = 1;
    while (at < n && (got = zip_fread(f, out + at, n - at)) > 0)
        at += (size_t)got;
    if (at == n)
        got = zip_fread(f, &beyond, 1);
    if (got < 0)
        return failure(z, zip_file_get_error(f), name, e);
    if (at < n || got > 0)
        return err_set(e, ERR_INPUT,
                       "%s: zip entry %.80s: not the %zu bytes that the directory says", z->path,
                       name, n);
    return ERR_OK;
}

enum err_code ptz_zip_read(struct ptz_zip *z, const char *folder, const char *name, size_t limit,
                           uint8_t **out, size_t *n, struct err *e)
{
    zip_stat_t st;
    zip_file_t *f = NULL;
    enum err_code rc = ERR_OK;
    size_t cap = strlen(folder) + strlen(name) + 1;
    char *full = malloc(cap);
    *out = NULL;
    *n = 0;
    if (!full)
        return err_nomem(e, "zip entry", cap);
    snprintf(full, cap, "%s%s", folder, name);
    zip_int64_t at = zip_name_locate(z->zip, full, ZIP_FL_ENC_RAW);
    if (at < 0 && zip_error_code_zip(zip_get_error(z->zip)) != ZIP_ER_NOENT)
        rc = failure(z, zip_get_error(z->zip), full, e);
    else if (at < 0 || zip_stat_index(z->zip, (zip_uint64_t)at, 0, &st) ||
             !(st.valid & ZIP_STAT_SIZE))
        rc = err_set(e, ERR_INPUT, "%s: zip entry %.80s: missing", z->path, full);
    else if (st.size > limit)
        rc = err_set(e, ERR_INPUT, "%s: zip entry %.80s: %llu bytes, at most %zu are accepted",
                     z->path, full, (unsigned long long)st.size, limit);
    else if (!(f = zip_fopen_index(z->zip, (zip_uint64_t)at, 0)))
        rc = failure(z, zip_get_error(z->zip), full, e);
    if (!rc && !(*out = malloc((size_t)st.size + 1)))
        rc = err_nomem(e, "zip entry", (size_t)st.size);
    if (!rc)
        rc = read_all(f, *out, *n = (size_t)st.size, full, z, e);
    if (f)
        zip_fclose(f);
    if (rc) {
        free(*out);
        *out = NULL;
    }
    free(full);
    return rc;
}
