/*
 * payload.h - a safetensors file as the payload of a weight section (layout: WT_* in
 * stub/format.h).
 *
 * Order of the tensors: int8 matrices first, then 16-bit tensors, then everything else; within a
 * group as in the file. So equal kinds of bytes lie together, and every tensor is aligned to its
 * elements.
 */
#ifndef PACKER_PAYLOAD_H
#define PACKER_PAYLOAD_H

#include "kernels/err.h"
#include "model/safetensors.h"

/*
 * payload_new - allocate and fill a payload; *data is for the caller to free().
 *
 * Fails: ERR_INPUT for a file without tensors, and for a tensor that the format cannot hold (name
 * longer than WT_NAME_MAX, a dimension above 2^32 - 1); ERR_RESOURCE without memory. `path` is for
 * messages.
 */
enum err_code payload_new(uint8_t **data, size_t *n, const struct st_file *f, const char *path,
                          struct err *e);

#endif
