/*
 * overlap.h - is validation text in the training shards?
 *
 * Preparation scripts with other defaults than the challenge's have put documents of the validation
 * set into training shards (#2127). Documents are compared whole, token by token through a 64-bit
 * hash: one that was cut or changed is not found.
 */
#ifndef TRAINER_OVERLAP_H
#define TRAINER_OVERLAP_H

#include <stdint.h>

#include "kernels/err.h"

/* Documents with fewer tokens are passed over: equal ones are no evidence. */
enum { OVERLAP_TOKENS = 32 };

struct overlap {
    uint64_t docs;   /* validation documents that were looked for */
    uint64_t shared; /* those of them that the training shards hold too */
    uint64_t tokens; /* of the shared ones */
};

/*
 * overlap_find - compare the *_val_*.bin with the *_train_*.bin of a directory.
 *
 *   bos  the id that opens a document; a document may go on in the next shard
 *
 * Memory: 24 bytes for each validation document. ERR_INPUT: no shards of one kind, or as
 * shard_open; ERR_RESOURCE: no memory.
 */
enum err_code overlap_find(struct overlap *o, const char *dir, uint32_t bos, struct err *e);

#endif
