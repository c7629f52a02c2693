/*
 * ptz_read.h - opens the packed weights that participants publish (final_model.*.ptz, .npz, ...).
 *
 *   file    = layers around a payload: compressors, byte shuffle (packer/ptz_layers.h)
 *   payload = a zip archive with a pickle, NAME/data.pkl, and the bytes of each tensor storage,
 *             NAME/data/KEY (torch.save); or
 *             torch.save's form of before (packer/ptz_legacy.h); or
 *             a zip archive of NumPy arrays, NAME.npy (.npz); or one such array; or
 *             a pickle of dictionaries and NumPy arrays (packer/ptz_numpy.h)
 *
 * The pickle is read as data (packer/pickle.h); the globals that may appear in it are listed in
 * packer/ptz_globals.c, and a file that names anything else is refused with that name. What the
 * tree of values means is for packer/import.h.
 */
#ifndef PACKER_PTZ_READ_H
#define PACKER_PTZ_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "model/tensor.h"
#include "packer/pickle.h"
#include "packer/ptz_layers.h"
#include "packer/ptz_legacy.h"

/* The default bound on what a file may expand to, and on all its tensors together: 268 million
 * parameters in fp32. */
enum { PTZ_LIMIT = 1 << 30 };

struct ptz_zip;
struct ptz {
    size_t file_bytes;    /* as packed */
    size_t payload_bytes; /* inside the layers */
    struct ptz_layers layers;
    const char *kind; /* of payload: "torch zip", "torch legacy", "pickle", "npz", "npy" */
    const struct pickle_value *root;

    /* private */
    const char *path;
    size_t limit, spent; /* bytes: bound, and handed out so far */
    const void *map;     /* the file, when ptz_open mapped it */
    struct ptz_zip *zip; /* NULL when the payload is no archive */
    struct pickle pickle;
    struct ptz_legacy legacy;
    struct pickle_value *made; /* the root of an .npz, and what it points to */
    void *blocks;              /* list of what tensors point into */
};

/*
 * ptz_open - map and open a file; ptz_parse - the same for bytes that the caller keeps alive.
 *
 *   limit  the payload, and the tensors together, may not have more bytes
 *   path   names the file in errors; kept
 *
 * Fails: ERR_INPUT saying which layer is damaged or not understood, and where; ERR_RESOURCE without
 * memory. On failure nothing is held.
 */
enum err_code ptz_open(struct ptz *p, const char *path, struct err *e);
enum err_code ptz_parse(struct ptz *p, const void *data, size_t n, size_t limit, const char *path,
                        struct err *e);
void ptz_close(struct ptz *p); /* accepts a zeroed struct */

/* ptz_is_tensor - whether v (may be NULL) looks like something that ptz_tensor reads. */
bool ptz_is_tensor(const struct ptz *p, const struct pickle_value *v);

/*
 * ptz_tensor - a tensor or array of the tree as a view, contiguous and row-major whatever its
 * strides. Float8 comes out as BF16, which holds every value of it.
 *
 *   v     a value of the tree, may be NULL
 *   name  for the view and for errors; kept
 *
 * The view lives until ptz_close. Fails: ERR_INPUT when v is no tensor, or one that reaches outside
 * its storage, or whose storage is missing, damaged or of another size than it says.
 */
enum err_code ptz_tensor(struct ptz *p, const struct pickle_value *v, const char *name,
                         struct tensor_view *out, struct err *e);

/* ptz_alloc - n bytes that live until ptz_close and count against the limit, for what a caller
 * makes of tensors. ERR_INPUT when the limit is reached, ERR_RESOURCE without memory. */
enum err_code ptz_alloc(struct ptz *p, uint8_t **out, size_t n, const char *name, struct err *e);

#endif
