/*
 * ptz_legacy.h - torch.save before its zip format (torch 1.6; still written with
 * _use_new_zipfile_serialization=False). Private to packer/ptz_*.c.
 *
 * The file is five pickles and then the storages: a magic number, the protocol's version (1001),
 * what the machine was like, the value itself, and the list of the storages' keys; then, for each
 * key in that order, 8 bytes with its number of elements and the elements. Only the value's pickle
 * says how large an element is. Source: torch/serialization.py, _legacy_save and _legacy_load.
 */
#ifndef PACKER_PTZ_LEGACY_H
#define PACKER_PTZ_LEGACY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "packer/pickle.h"

struct ptz_storage {
    const char *key; /* in the pickle */
    const uint8_t *data;
    size_t n, elems; /* bytes, elements */
};

struct ptz_legacy {
    struct ptz_storage *storage; /* sorted by key */
    size_t count;
};

/* ptz_legacy_is - whether n bytes begin with the magic number's pickle. */
bool ptz_legacy_is(const uint8_t *data, size_t n);

/*
 * ptz_legacy_parse - the value's pickle and where its storages lie in the input, which must outlive
 * both.
 *
 *   p     out: the value; for pickle_free, on success only
 *   l     out: for ptz_legacy_free
 *   path  names the input in errors
 *
 * Fails: ERR_INPUT when a pickle is refused (pickle.h), a storage is there twice, without a type,
 * or reaches beyond the file, or bytes are left; ERR_RESOURCE. On failure nothing is held.
 */
enum err_code ptz_legacy_parse(struct pickle *p, struct ptz_legacy *l, const uint8_t *data,
                               size_t n, const char *path, struct err *e);
void ptz_legacy_free(struct ptz_legacy *l); /* accepts a zeroed struct */

/* ptz_legacy_find - the storage of that key, or NULL. */
const struct ptz_storage *ptz_legacy_find(const struct ptz_legacy *l, const char *key);

#endif
