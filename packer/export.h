/*
 * export.h - quantised weights of this project become a record's packed file: what `packer export`
 * does, without its printing. PyTorch reads it (torch.load of what the compressor held).
 */
#ifndef PACKER_EXPORT_H
#define PACKER_EXPORT_H

#include <stddef.h>

#include "kernels/err.h"
#include "packer/ptz_write.h"

struct export_job {
    const char *weights;    /* quantised safetensors with the recipe in its metadata */
    const char *out;        /* the .ptz file to write */
    const char *compressor; /* a name of ptz_codec.h; NULL: the recipe's COMPRESSOR */
    int level;              /* -1: the recipe's COMPRESSOR_LEVEL; 0: what the records use */
    int shuffle;            /* stride, 0 none; -1: the recipe's BYTE_SHUFFLE */
};

struct export_report {
    struct ptz_how how;
    size_t payload_bytes, file_bytes;
};

/*
 * export_record - write the file (by way of a temporary one). The same input gives the same file.
 *
 * A --compressor without a --level takes that compressor's own. Fails: ERR_INPUT for weights that
 * are not the model of their recipe, ERR_USAGE for settings that make no sense, ERR_RESOURCE.
 */
enum err_code export_record(const struct export_job *job, struct export_report *rep, struct err *e);

/* export_size - the size that export_record's file would have with the recipe's own settings. */
enum err_code export_size(const char *weights, size_t *bytes, struct err *e);

#endif
