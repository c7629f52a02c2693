/*
 * prune.h - selective pruning: integers of +-1 become 0, cheapest first, until a file fits (#1296,
 * #1019).
 *
 * The cost of an integer is the square of its row's scale. Scales are positive fp16, so the order
 * of costs is the order of their bits. Equal costs (with the records' floor of the scale, nearly
 * all) go by tensor, then row-major: earlier tensors lose first.
 */
#ifndef TRAINER_PRUNE_H
#define TRAINER_PRUNE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

struct prune_tensor {
    int8_t *q;             /* [rows][cols] */
    const uint16_t *scale; /* [rows] fp16 bits, positive */
    size_t rows, cols;
    size_t pruned; /* out: how many became 0 */
};

/* prune_candidates - how many integers are +-1. */
size_t prune_candidates(const struct prune_tensor *t, size_t n);

/* prune_apply - the `count` cheapest of them become 0; count is at most prune_candidates(). */
void prune_apply(struct prune_tensor *t, size_t n, size_t count);

/* Bytes of code and file with the integers as they are now. */
typedef enum err_code prune_size(void *ctx, uint64_t *bytes, struct err *e);

enum prune_search {
    PRUNE_ONCE, /* 8 for every byte too many, measured once (#1296) */
    PRUNE_FIT,  /* the smallest number with which it fits, by bisection (#1019). Sizes do not fall
                   quite steadily, so a smaller one may fit as well */
};

struct prune_result {
    size_t candidates, pruned;
    uint64_t before, after; /* bytes; after a PRUNE_ONCE that pruned, `after` is not measured: 0 */
};

/*
 * prune_to - prune until size() is at most `target`.
 *
 * When even all candidates are not enough, all are pruned and `after` says so: whether that is a
 * failure is for the caller. Fails with what size() fails with, and ERR_RESOURCE: PRUNE_FIT keeps a
 * copy of the integers.
 */
enum err_code prune_to(struct prune_tensor *t, size_t n, uint64_t target, enum prune_search how,
                       prune_size *size, void *ctx, struct prune_result *res, struct err *e);

#endif
