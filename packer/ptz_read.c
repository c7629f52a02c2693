/* ptz_read.c - see ptz_read.h: payloads. ptz_tensor.c reads the tensors in them. */
#include "packer/ptz_read.h"

#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "packer/ptz_blocks.h"
#include "packer/ptz_globals.h"
#include "packer/ptz_numpy.h"
#include "packer/ptz_zip.h"

/* ---- what tensors point into ---- */

enum err_code ptz_keep(struct ptz *p, const char *key, uint8_t *data, size_t n, struct err *e)
{
    struct ptz_block *b = malloc(sizeof *b);
    if (!b) {
        free(data);
        return err_nomem(e, "tensor", sizeof *b);
    }
    *b = (struct ptz_block){p->blocks, key, data, n};
    p->blocks = b;
    p->spent += n;
    return ERR_OK;
}

enum err_code ptz_alloc(struct ptz *p, uint8_t **out, size_t n, const char *name, struct err *e)
{
    *out = NULL;
    if (n > p->limit - p->spent)
        return err_set(e, ERR_INPUT, "%s: tensor %.80s: has more elements than are accepted",
                       p->path, name);
    uint8_t *data = malloc(n + 1);
    if (!data)
        return err_nomem(e, name, n);
    *out = data;
    return ptz_keep(p, NULL, data, n, e);
}

/* ---- payloads ---- */

static enum err_code check_byteorder(struct ptz *p, const char *folder, struct err *e)
{
    uint8_t *text = NULL;
    size_t n;
    struct err none = {0};
    enum err_code rc = ptz_zip_read(p->zip, folder, "byteorder", 16, &text, &n, &none);
    if (rc) /* only newer versions of torch write it */
        return rc == ERR_RESOURCE ? err_set(e, rc, "%s", none.msg) : ERR_OK;
    bool big = n == 3 && !memcmp(text, "big", 3);
    free(text);
    return big ? err_set(e, ERR_INPUT, "%s: written by a big-endian machine", p->path) : ERR_OK;
}

static enum err_code read_torch(struct ptz *p, struct err *e)
{
    const char *folder;
    uint8_t *text;
    size_t n;
    p->kind = "torch zip";
    enum err_code rc = ptz_zip_top(p->zip, &folder, e);
    if (rc || (rc = check_byteorder(p, folder, e)) ||
        (rc = ptz_zip_read(p->zip, folder, "data.pkl", p->limit, &text, &n, e)) ||
        (rc = ptz_keep(p, NULL, text, n, e)))
        return rc;
    return pickle_parse(&p->pickle, text, n, ptz_globals, p->path, e);
}

/* The value that stands for an array of its own: ptz_tensor finds its name in item[0]. */
static void make_array(struct pickle_value *v, struct pickle_value **item,
                       struct pickle_value *name, const char *text)
{
    *name = (struct pickle_value){.kind = PICKLE_STR, .n = strlen(text), .text = text};
    *item = name;
    *v = (struct pickle_value){.kind = PICKLE_PERSID, .n = 1, .item = item};
}

/* A dictionary of n arrays: the root, then for each its key, its value, the name of its entry; and
 * pointers to them behind. The keys are the names without ".npy". */
static enum err_code make_root(struct ptz *p, const char *const *name, size_t n, struct err *e)
{
    size_t values = 1 + 3 * n,
           bytes = values * sizeof(struct pickle_value) + 3 * n * sizeof(struct pickle_value *);
    struct pickle_value *v = malloc(bytes + 1);
    if (!v)
        return err_nomem(e, "array names", bytes);
    struct pickle_value **item = (struct pickle_value **)(void *)(v + values);
    p->made = v;
    *v = (struct pickle_value){.kind = PICKLE_DICT, .n = n, .item = item};
    for (size_t i = 0; i < n; i++) {
        struct pickle_value *key = v + 1 + 3 * i;
        size_t len = strlen(name[i]);
        if (len < 4 || strcmp(name[i] + len - 4, ".npy"))
            return err_set(e, ERR_INPUT, "%s: entry %.80s is no .npy file", p->path, name[i]);
        make_array(key + 1, item + 2 * n + i, key + 2, name[i]);
        uint8_t *text = (uint8_t *)strdup(name[i]);
        if (!text)
            return err_nomem(e, "array names", len);
        text[len - 4] = 0;
        enum err_code rc = ptz_keep(p, NULL, text, len, e);
        if (rc)
            return rc;
        *key = (struct pickle_value){.kind = PICKLE_STR, .n = len - 4, .text = (char *)text};
        item[2 * i] = key;
        item[2 * i + 1] = key + 1;
    }
    p->root = v;
    return ERR_OK;
}

static enum err_code read_npz(struct ptz *p, struct err *e)
{
    const char **name = NULL;
    size_t n;
    p->kind = "npz";
    enum err_code rc = ptz_zip_names(p->zip, &name, &n, e);
    if (!rc)
        rc = make_root(p, name, n, e);
    free(name);
    return rc;
}

static enum err_code read_zip(struct ptz *p, struct err *e)
{
    enum err_code rc = ptz_zip_open(&p->zip, p->layers.data, p->payload_bytes, p->path, e);
    if (rc)
        return rc;
    return ptz_zip_has(p->zip, ".npy") && !ptz_zip_has(p->zip, "data.pkl") ? read_npz(p, e)
                                                                           : read_torch(p, e);
}

static enum err_code read_tree(struct ptz *p, struct err *e)
{
    const uint8_t *at = p->layers.data;
    size_t n = p->payload_bytes;
    if (n >= 4 && !memcmp(at, "PK\3\4", 4))
        return read_zip(p, e);
    if (ptz_legacy_is(at, n)) {
        p->kind = "torch legacy";
        return ptz_legacy_parse(&p->pickle, &p->legacy, at, n, p->path, e);
    }
    if (ptz_npy_is(at, n)) {
        static const char *const only[] = {"array.npy"};
        p->kind = "npy";
        return make_root(p, only, 1, e);
    }
    p->kind = "pickle";
    if (n && at[0] == 0x80)
        return pickle_parse(&p->pickle, at, n, ptz_globals, p->path, e);
    return err_set(e, ERR_INPUT, "%s: neither a zip archive nor a pickle nor a NumPy array%s%s",
                   p->path, *p->layers.text ? " inside " : "", p->layers.text);
}

enum err_code ptz_parse(struct ptz *p, const void *data, size_t n, size_t limit, const char *path,
                        struct err *e)
{
    *p = (struct ptz){.file_bytes = n, .limit = limit, .path = path};
    enum err_code rc = ptz_layers_peel(&p->layers, data, n, limit, path, e);
    p->payload_bytes = p->layers.n;
    if (!rc)
        rc = read_tree(p, e);
    if (!p->made)
        p->root = p->pickle.root;
    if (rc)
        ptz_close(p);
    return rc;
}

enum err_code ptz_open(struct ptz *p, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    *p = (struct ptz){0};
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    rc = ptz_parse(p, data, n, PTZ_LIMIT, path, e);
    if (rc)
        file_unmap(data, n);
    else
        p->map = data;
    return rc;
}

void ptz_close(struct ptz *p)
{
    ptz_legacy_free(&p->legacy);
    pickle_free(&p->pickle);
    ptz_zip_close(p->zip);
    free(p->made);
    for (struct ptz_block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        free(b->data);
        free(b);
    }
    ptz_layers_free(&p->layers);
    if (p->map)
        file_unmap(p->map, p->file_bytes);
    *p = (struct ptz){0};
}
