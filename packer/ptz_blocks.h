/* ptz_blocks.h - memory that tensors of packed weights point into. Private to packer/ptz_read.c and
 * ptz_tensor.c. */
#ifndef PACKER_PTZ_BLOCKS_H
#define PACKER_PTZ_BLOCKS_H

#include "packer/ptz_read.h"

struct ptz_block {
    struct ptz_block *next;
    const char *key; /* of a storage or an archive's entry; NULL for what was made here */
    uint8_t *data;
    size_t n;
};

/* ptz_keep - keeps data[0..n), from malloc, until ptz_close, or frees it (ERR_RESOURCE). */
enum err_code ptz_keep(struct ptz *p, const char *key, uint8_t *data, size_t n, struct err *e);

#endif
