/*
 * safetensors.h - reading and writing safetensors files (huggingface/safetensors, format as
 * published).
 *
 * File: 8-byte little-endian header length, a JSON object {name: {dtype, shape, data_offsets}, ...,
 * "__metadata__": {string: string}}, then the data. The reader maps the file, checks every offset
 * against it (in range, size equals shape x dtype, no overlap, no gap, nothing behind the end) and
 * refuses duplicates. The writer emits tensors in the order given and pads the header with spaces
 * to a multiple of 8, so the same input gives the same file.
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "kernels/err.h"
#include "model/file.h"
#include "model/tensor.h"

struct st_file {
    struct tensor_view *tensor; /* in file-offset order */
    size_t count;
    char **meta;  /* key, value, key, value, ... */
    size_t nmeta; /* number of pairs */
    void *map;
    size_t map_bytes;
    char *names;
};

/* st_open - map and check a file. ERR_INPUT with file, tensor and reason when anything is off;
 * ERR_RESOURCE when memory is short. On failure nothing is held. Views live until st_close. */
enum err_code st_open(struct st_file *f, const char *path, struct err *e);
/* st_parse - the same for bytes in memory that the caller keeps alive and owns. `path` names them.
 */
enum err_code st_parse(struct st_file *f, const void *data, size_t n, const char *path,
                       struct err *e);
void st_close(struct st_file *f); /* accepts a zeroed struct */

/* st_meta - the metadata string stored under key, or NULL. */
const char *st_meta(const struct st_file *f, const char *key);

/* st_write - write tensors and metadata (nmeta pairs of strings, key first) to path by way of a
 * temporary file and rename: a failure (disk full, ...) leaves no file and keeps an older one. */
enum err_code st_write(const char *path, const struct tensor_view *t, size_t count,
                       const char *const *meta, size_t nmeta, struct err *e);

/*
 * Writing a file whose tensors are not in memory all at once, nor what its metadata say of them:
 *
 *     st_begin(&w, path, t, count, meta, nmeta, e)     t[].data is not read
 *     st_put(&w, data, n), ...                         the bytes of all tensors, in order
 *     st_end(&w, t, count, meta, nmeta, e)
 *
 * st_end writes the header again: metadata may have other values then, of the same length. Failures
 * are reported at the end; the file is then as after a failed st_write. st_abort gives up.
 */
struct st_writer {
    struct atomic_file a;
    size_t header; /* bytes */
};
enum err_code st_begin(struct st_writer *w, const char *path, const struct tensor_view *t,
                       size_t count, const char *const *meta, size_t nmeta, struct err *e);
void st_put(struct st_writer *w, const void *data, size_t n);
enum err_code st_end(struct st_writer *w, const struct tensor_view *t, size_t count,
                     const char *const *meta, size_t nmeta, struct err *e);
void st_abort(struct st_writer *w); /* accepts a zeroed or ended one */

#endif
