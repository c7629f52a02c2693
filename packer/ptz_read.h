/*
 * ptz_read.h - opens the packed weights that participants publish (final_model.*.ptz).
 *
 *   file = compressor( byte shuffle ( payload ) )        either may be missing
 *   payload = what torch.save wrote: a zip archive with a pickle, NAME/data.pkl, and the bytes of
 *             each tensor storage, NAME/data/KEY
 *
 * Compressors: zlib (or gzip), xz, zstd, brotli, none (packer/ptz_codec.h). The pickle is read as
 * data (packer/pickle.h); the globals that may appear in it are the tensor constructors and storage
 * types of torch and OrderedDict, and a file that names anything else is refused with that name.
 * What the tree of values means is for packer/import.h.
 */
#ifndef PACKER_PTZ_READ_H
#define PACKER_PTZ_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "model/tensor.h"
#include "packer/pickle.h"
#include "packer/ptz_codec.h"

/* The default bound on what a file may expand to, and on all its tensors together: 268 million
 * parameters in fp32. */
enum { PTZ_LIMIT = 1 << 30 };

struct ptz_zip;
struct ptz {
    enum ptz_codec codec;
    unsigned stride;      /* of the byte shuffle, 0: none */
    size_t file_bytes;    /* as packed */
    size_t payload_bytes; /* after compressor and shuffle */
    const struct pickle_value *root;

    /* private */
    const char *path;
    size_t limit, spent; /* bytes: bound, and handed out so far */
    const void *map;     /* the file, when ptz_open mapped it */
    uint8_t *payload;    /* owned, NULL when the file itself is the payload */
    struct ptz_zip *zip; /* NULL when the payload is a pickle without an archive */
    struct pickle pickle;
    void *blocks; /* list of what tensors point into */
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

/*
 * ptz_tensor - a tensor of the pickle as a view, contiguous and row-major whatever its strides.
 *
 *   v     a value of the tree, may be NULL
 *   name  for the view and for errors; kept
 *
 * The view lives until ptz_close. Fails: ERR_INPUT when v is no tensor, or one that reaches outside
 * its storage, or whose storage is missing, damaged or of another size than it says.
 */
enum err_code ptz_tensor(struct ptz *p, const struct pickle_value *v, const char *name,
                         struct tensor_view *out, struct err *e);

#endif
