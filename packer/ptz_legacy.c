/* ptz_legacy.c - see ptz_legacy.h. */
#include "packer/ptz_legacy.h"

#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/ptz_globals.h"

/* LONG1, ten bytes, 0x1950a86a20f9469cfc6c, STOP; before it PROTO and, from protocol 4 on, FRAME.
 */
static const uint8_t magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
enum { FRAME = 9, MAX_STORAGES = 1 << 14 };

/* Bytes of the first pickle; 0 when it is another. */
static size_t magic_bytes(const uint8_t *data, size_t n)
{
    for (size_t at = 2; at <= 2 + FRAME; at += FRAME)
        if (n >= at + sizeof magic && data[0] == 0x80 && !memcmp(data + at, magic, sizeof magic))
            return at + sizeof magic;
    return 0;
}

bool ptz_legacy_is(const uint8_t *data, size_t n)
{
    return magic_bytes(data, n) != 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct ptz_storage *)a)->key, ((const struct ptz_storage *)b)->key);
}

static struct ptz_storage *find(const struct ptz_legacy *l, const char *key)
{
    const struct ptz_storage want = {.key = key};
    return l->count ? bsearch(&want, l->storage, l->count, sizeof want, by_key) : NULL;
}

/* Key and bytes of an element of every storage that the value refers to; n holds the latter here.
 * Sorted, each once. */
static enum err_code list_storages(struct ptz_legacy *l, const struct pickle_value *stored,
                                   const char *path, struct err *e)
{
    size_t n = stored ? stored->n : 0, kept = 0;
    l->storage = calloc(n + 1, sizeof *l->storage);
    if (!l->storage)
        return err_nomem(e, "storages", n * sizeof *l->storage);
    for (size_t i = 0; i < n; i++) { /* ('storage', type, key, location, elements, view) */
        const struct pickle_value *id = stored->item[i]->item[0];
        const struct pickle_value *key = ptz_item(id, 2, PICKLE_STR);
        const struct ptz_meaning m = ptz_meaning(ptz_item(id, 1, PICKLE_GLOBAL));
        if (!key || key->n != strlen(key->text) || (m.role != PTZ_STORAGE && m.role != PTZ_BYTES))
            return err_set(e, ERR_INPUT, "%s: a storage described in a way that is not understood",
                           path);
        l->storage[i] = (struct ptz_storage){.key = key->text, .n = ptz_type_size(m.type)};
    }
    qsort(l->storage, n, sizeof *l->storage, by_key);
    for (size_t i = 0; i < n; i++) {
        if (kept && !strcmp(l->storage[kept - 1].key, l->storage[i].key)) {
            if (l->storage[kept - 1].n != l->storage[i].n)
                return err_set(e, ERR_INPUT, "%s: storage %.40s has two types", path,
                               l->storage[i].key);
            continue;
        }
        l->storage[kept++] = l->storage[i];
    }
    l->count = kept;
    return ERR_OK;
}

/* The storages themselves, in the order of the list of keys. */
static enum err_code place_storages(struct ptz_legacy *l, const struct pickle_value *keys,
                                    struct reader *r, const char *path, struct err *e)
{
    if (keys->kind != PICKLE_LIST || keys->n != l->count || keys->n > MAX_STORAGES)
        return err_set(e, ERR_INPUT, "%s: the list of storages is not that of the tensors", path);
    for (size_t i = 0; i < keys->n; i++) {
        const struct pickle_value *key = keys->item[i];
        struct ptz_storage *s = key->kind == PICKLE_STR ? find(l, key->text) : NULL;
        if (!s || s->data)
            return err_set(e, ERR_INPUT, "%s: storage %.40s is there twice, or belongs to nothing",
                           path, key->kind == PICKLE_STR ? key->text : "?");
        uint64_t elems = reader_u64(r);
        if (r->bad || elems > reader_left(r) / s->n)
            return err_set(e, ERR_INPUT, "%s: storage %.40s reaches beyond the file", path,
                           key->text);
        s->elems = (size_t)elems;
        s->n *= s->elems;
        s->data = reader_take(r, s->n);
    }
    if (reader_left(r))
        return err_set(e, ERR_INPUT, "%s: %zu bytes behind the last storage", path, reader_left(r));
    return ERR_OK;
}

/* Reads the pickle at the cursor. */
static enum err_code next(struct pickle *p, struct reader *r, const char *path, struct err *e)
{
    enum err_code rc = pickle_parse(p, r->at, reader_left(r), ptz_globals, path, e);
    if (!rc)
        reader_take(r, p->used);
    return rc;
}

enum err_code ptz_legacy_parse(struct pickle *p, struct ptz_legacy *l, const uint8_t *data,
                               size_t n, const char *path, struct err *e)
{
    struct reader r = reader_init(data, n);
    struct pickle part = {0};
    *p = (struct pickle){0};
    *l = (struct ptz_legacy){0};
    reader_take(&r, magic_bytes(data, n));
    enum err_code rc = next(&part, &r, path, e);
    if (!rc && (part.root->kind != PICKLE_INT || part.root->i != 1001))
        rc = err_set(e, ERR_INPUT, "%s: a torch file of an unknown version", path);
    pickle_free(&part);
    if (!rc)
        rc = next(&part, &r, path, e);
    const struct pickle_value *little = rc ? NULL : pickle_get(part.root, "little_endian");
    if (!rc && little && little->kind == PICKLE_BOOL && !little->i)
        rc = err_set(e, ERR_INPUT, "%s: written by a big-endian machine", path);
    pickle_free(&part);
    if (!rc)
        rc = next(p, &r, path, e);
    if (!rc)
        rc = list_storages(l, p->stored, path, e);
    if (!rc)
        rc = next(&part, &r, path, e);
    if (!rc)
        rc = place_storages(l, part.root, &r, path, e);
    pickle_free(&part);
    if (rc) {
        pickle_free(p);
        ptz_legacy_free(l);
    }
    return rc;
}

void ptz_legacy_free(struct ptz_legacy *l)
{
    free(l->storage);
    *l = (struct ptz_legacy){0};
}

const struct ptz_storage *ptz_legacy_find(const struct ptz_legacy *l, const char *key)
{
    return find(l, key);
}
