/*
 * coprime.h - which windows of which shards a batch is made of, in the coprime order (PR #726;
 * DistributedTokenLoader of #1260 and #1296). Knows the lengths of the shards, not their contents.
 *
 * A shard is cut into blocks of t tokens behind a random phase below t. Its cursor walks all blocks
 * once, from a random one, in steps that are coprime with their number, then starts over with a new
 * phase, start and step. A batch
 *
 *   - picks m shards without replacement, with weights (blocks left)^(0.9 - 0.4 p), where
 *     p = min(batches so far / 1800, 1) and m goes with p from max(8, ranks) to max(32, 8 ranks),
 *     at most the number of shards or windows;
 *   - gives each of them one window and shares out the others by a multinomial draw with the same
 *     weights;
 *   - puts the shards in random order, takes the windows from their cursors, shuffles them within
 *     each shard, and deals them out, one per shard and round, each round in a new random order.
 *
 * Of the windows so dealt, rank r gets numbers r, r + ranks, ... One process that stands for all
 * ranks takes rank 0's windows first, then rank 1's and so on: with micro-batches of batch/ranks
 * windows these are the micro-batches of the ranks. A batch that the ranks do not divide is dealt
 * out by the same rule; the first ranks then have a window more. (The originals would leave windows
 * out; with fewer windows than ranks they do not run.)
 *
 * All draws come from one pcg64, in the originals' order: the same file names and lengths give the
 * windows that NumPy gives. Shards with less than t + 1 tokens are never used.
 */
#ifndef TRAINER_COPRIME_H
#define TRAINER_COPRIME_H

#include "kernels/err.h"
#include "trainer/pcg64.h"

/* t + 1 tokens from pos on. */
struct coprime_window {
    size_t shard, pos;
};

struct coprime_cursor {
    size_t shard, tokens;
    size_t phase, blocks, start, stride, next; /* blocks 0: not begun */
};

struct coprime {
    uint64_t seed;
    size_t t, batch, ranks;
    size_t built;                  /* batches so far */
    struct coprime_window *window; /* [batch] the last batch, in the order of use */
    /* Private. */
    struct pcg64 g;
    struct coprime_cursor *cursor; /* [shards] the shards long enough */
    size_t shards;
    struct coprime_scratch *tmp;
};

/* coprime_seed - goes on with hashing a path; the first call has h = 0. The originals hash all
 * paths in order, as Python's pathlib writes them: without "." components and repeated slashes. */
uint64_t coprime_seed(uint64_t h, const char *path);

/*
 * coprime_init - a sampler before its first batch.
 *
 *   tokens  [shards] lengths, in the order of the files; copied
 *   batch   windows per batch; ranks: at least 1
 *
 * ERR_INPUT: no shard has t + 1 tokens. ERR_RESOURCE: memory.
 */
enum err_code coprime_init(struct coprime *c, uint64_t seed, const size_t *tokens, size_t shards,
                           size_t t, size_t batch, size_t ranks, struct err *e);
void coprime_free(struct coprime *c); /* accepts a zeroed struct */

/* coprime_next - draw the next batch into c->window. */
void coprime_next(struct coprime *c);

/* coprime_restart - back to the beginning, with this seed. A sampler is put where another one is by
 * its seed and that many coprime_next, about 0.15 ms each for 143 shards and 384 windows. */
void coprime_restart(struct coprime *c, uint64_t seed);

#endif
