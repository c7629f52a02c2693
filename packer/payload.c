/* payload.c - see payload.h. */
#include "packer/payload.h"

#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "stub/format.h"

enum { GROUPS = 3 };

static int group_of(const struct tensor_view *t)
{
    if (t->dtype == ST_I8 && t->ndim >= 2)
        return 0;
    return st_dtype_size(t->dtype) == 2 ? 1 : 2;
}

static size_t entry_size(const struct tensor_view *t)
{
    return 2 + 4 * t->ndim + strlen(t->name) + 1;
}

/* `at` rounded up to a multiple of the element size. */
static size_t aligned(size_t at, const struct tensor_view *t)
{
    size_t esize = st_dtype_size(t->dtype);
    return (at + esize - 1) / esize * esize;
}

static enum err_code check(const struct tensor_view *t, const char *path, struct err *e)
{
    size_t length = strlen(t->name);
    if (length == 0 || length > WT_NAME_MAX)
        return err_set(e, ERR_INPUT, "%s: tensor %s: name of %zu bytes, must be 1 to %d", path,
                       t->name, length, WT_NAME_MAX);
    for (size_t i = 0; i < t->ndim; i++)
        if (t->shape[i] > UINT32_MAX)
            return err_set(e, ERR_INPUT, "%s: tensor %s: dimension %zu is too large for the format",
                           path, t->name, t->shape[i]);
    return ERR_OK;
}

static uint8_t *put_entry(uint8_t *at, const struct tensor_view *t)
{
    *at++ = (uint8_t)t->dtype;
    *at++ = (uint8_t)t->ndim;
    for (size_t i = 0; i < t->ndim; i++, at += 4)
        put_le32(at, (uint32_t)t->shape[i]);
    size_t n = strlen(t->name) + 1;
    memcpy(at, t->name, n);
    return at + n;
}

enum err_code payload_new(uint8_t **data, size_t *n, const struct st_file *f, const char *path,
                          struct err *e)
{
    *data = NULL;
    if (f->count == 0 || f->count > UINT32_MAX)
        return err_set(e, ERR_INPUT, "%s: no tensors to pack", path);
    size_t table = 0;
    for (size_t i = 0; i < f->count; i++) {
        enum err_code rc = check(&f->tensor[i], path, e);
        if (rc)
            return rc;
        table += entry_size(&f->tensor[i]);
    }
    size_t end = WT_TABLE + table;
    for (int g = 0; g < GROUPS; g++)
        for (size_t i = 0; i < f->count; i++)
            if (group_of(&f->tensor[i]) == g)
                end = aligned(end, &f->tensor[i]) + f->tensor[i].nbytes;

    uint8_t *p = calloc(end, 1);
    if (!p)
        return err_nomem(e, "weight payload", end);
    put_le32(p + WT_COUNT, (uint32_t)f->count);
    put_le32(p + WT_TABLE_SIZE, (uint32_t)table);
    uint8_t *entry = p + WT_TABLE;
    size_t at = WT_TABLE + table;
    for (int g = 0; g < GROUPS; g++)
        for (size_t i = 0; i < f->count; i++) {
            const struct tensor_view *t = &f->tensor[i];
            if (group_of(t) != g)
                continue;
            entry = put_entry(entry, t);
            at = aligned(at, t);
            if (t->nbytes)
                memcpy(p + at, t->data, t->nbytes);
            at += t->nbytes;
        }
    *data = p;
    *n = end;
    return ERR_OK;
}
