/*
 * blob.h - submission files: laying out, writing, and reading without trust (docs/format.md).
 *
 * Reading never executes anything and believes nothing: every byte of the file must belong to
 * exactly one section, every hash must fit, every size is compared with the file before it is used,
 * and nothing is decoded whose claimed size is above the limit of its kind (stub/format.h).
 */
#ifndef PACKER_BLOB_H
#define PACKER_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "packer/codec.h"
#include "stub/format.h"

struct blob_section {
    uint32_t kind, codec; /* enum kind, enum codec */
    uint8_t params[8];
    size_t offset, size, raw_size;
    uint64_t xxh64;      /* of the stored bytes; 0 for the header */
    const uint8_t *data; /* [size] stored bytes; NULL for the header of a blob not yet written */
};

/* section[i] has kind i + 1. Reading: data points into the file, valid until blob_close. */
struct blob {
    size_t size; /* of the whole file */
    size_t count;
    struct blob_section section[SECTIONS_MAX];
    bool known_loader; /* the loader is byte for byte the one that the reader was given */
    const void *map;   /* what blob_close releases; NULL for blob_parse */
};

/* blob_kind_name - "loader", "header", "runner", "weights", "byte_table", "recipe", "source",
 * "cuda"; "unknown". */
const char *blob_kind_name(uint32_t kind);

/* blob_find - the section of a kind, or NULL when there is none (source and cuda may be absent). */
const struct blob_section *blob_find(const struct blob *b, enum kind kind);

/*
 * blob_layout - decide where everything goes; nothing is written.
 *
 *   b       out; its sections point to loader and parts, which must stay alive until blob_write
 *   loader  [loader_n] the built loader
 *   part    [nparts] stored sections in the order of their kinds, KIND_RUNNER first; at least 4,
 * and NULL for one behind them that the file does not have
 */
void blob_layout(struct blob *b, const void *loader, size_t loader_n,
                 const struct coded *const *part, size_t nparts);

/*
 * blob_write - write a laid out blob to path, executable, by way of a temporary file and rename.
 * Fails: ERR_RESOURCE (disk full, no permission, ...); then nothing new is left at or beside path.
 */
enum err_code blob_write(const char *path, const struct blob *b, struct err *e);

/*
 * blob_open - map a file and check all of it. blob_parse does the same for bytes in memory, which
 * must stay alive while b is used; path is then only for messages.
 *
 *   loader  [loader_n] the loader that a trusted build has, or NULL; a different one in the file is
 *           no error, known_loader says so. (Whoever runs the file runs its loader.)
 *
 * Fails: ERR_INPUT with what is wrong and where; ERR_RESOURCE when the file cannot be mapped. On
 * failure nothing is held. blob_close accepts a zeroed struct.
 */
enum err_code blob_open(struct blob *b, const char *path, const void *loader, size_t loader_n,
                        struct err *e);
enum err_code blob_parse(struct blob *b, const void *data, size_t n, const char *path,
                         const void *loader, size_t loader_n, struct err *e);
void blob_close(struct blob *b);

/*
 * blob_decode - the unpacked bytes of one section of a checked blob, raw_size of them, aligned
 * to 8.
 *
 * *data is for the caller to free(). A weight section comes as a payload whose table has been
 * walked: stub/weights_dec.h's cursor will not find damage in it.
 * Fails: ERR_INPUT when the bytes do not decode to exactly raw_size; ERR_USAGE for a codec that
 * this build cannot decode; ERR_RESOURCE without memory.
 */
enum err_code blob_decode(uint8_t **data, const struct blob_section *s, const char *path,
                          struct err *e);

#endif
