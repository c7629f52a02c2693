/*
 * spread.h - blocks that all ranks have, and packed blocks of which each has its pieces (piece.h):
 * from one to the other.
 *
 * Everything goes straight from owner to reader, all at once. With one rank a packed block is the
 * block itself.
 */
#ifndef TRAINER_SPREAD_H
#define TRAINER_SPREAD_H

#include "trainer/comm.h"
#include "trainer/piece.h"

struct spread {
    struct kern *k;
    struct comm *c; /* NULL: alone */
    const struct piece_list *p;
    struct comm_part *part; /* [stretches * ranks] */
    struct comm_batch *batch;
};

/* spread_init - c (NULL: alone) and p must outlive s. ERR_RESOURCE: memory. */
enum err_code spread_init(struct spread *s, struct kern *k, struct comm *c,
                          const struct piece_list *p, struct err *e);
void spread_free(struct spread *s); /* accepts a zeroed struct */

/*
 * spread_start - an all-gather: the owners' pieces of block [floats] go to all others. It is done
 * when spread_wait returns; until then the owners may read their pieces, nobody may do more.
 * ERR_RESOURCE, as comm_start and comm_wait; the same holds for all others.
 */
enum err_code spread_start(struct spread *s, float *block, struct err *e);
enum err_code spread_wait(struct spread *s, struct err *e);

/* spread_pack, spread_unpack - this rank's pieces of a block, from or to a packed block. */
void spread_pack(struct spread *s, float *packed, const float *block);
void spread_unpack(struct spread *s, float *block, const float *packed);

/* spread_collect - all ranks' packed blocks come together in rank 0's block; the block of another
 * rank is not used. spread_deal - the way back. */
enum err_code spread_collect(struct spread *s, float *block, const float *packed, struct err *e);
enum err_code spread_deal(struct spread *s, float *block, float *packed, struct err *e);

/* spread_same - the n floats of rank 0's block for everybody. */
enum err_code spread_same(struct spread *s, float *block, size_t n, struct err *e);

#endif
