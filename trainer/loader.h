/*
 * loader.h - the training data: windows of TRAIN_SEQ_LEN tokens and their targets from all train
 * shards of a directory, in one of two orders (LOADER), without end.
 *
 * LOADER=sequential   One stream: the shards, sorted by name, one after another and round again. It
 *                     is cut into spans of `tokens + 1`: x is the first `tokens`, y the last, so
 *                     one token per span is only ever a target. Spans run across shard borders.
 *                     LOADER_RANKS=0: each loader_next is a span, so the order depends on
 *                     MICRO_BATCH_TOKENS through that one token. Else each batch has LOADER_RANKS
 *                     spans, as the challenge's 8 processes take them, whatever the micro-batch;
 *                     when they do not divide the batch, the first spans are a window longer.
 * LOADER=coprime      coprime.h, for LOADER_RANKS ranks (0 means the originals' 8). The seed is
 *                     made of the paths of the shards, hence of DATA_PATH, as in the originals.
 *
 * Neither order depends on SEED. Sequential shards are opened and checked, every token, when the
 * stream reaches them, one at a time. In the coprime order all are mapped from the start, and
 * tokens are checked window by window: a batch reads a few kilobytes of each of many shards.
 */
#ifndef TRAINER_LOADER_H
#define TRAINER_LOADER_H

#include <stdbool.h>

#include "model/recipe.h"
#include "model/shard.h"
#include "trainer/coprime.h"

struct loader {
    struct shard_list list;
    size_t vocab, t;
    size_t batch, ranks; /* windows per batch; LOADER_RANKS */
    size_t at;           /* window of the batch that comes next; stays 0 with ranks 0 */
    /* sequential */
    struct shard cur;  /* shard number `shard`, mapped when cur.map is not NULL */
    size_t shard, pos; /* next token to be taken; pos may equal the length of the shard */
    uint16_t last;     /* target of the span that was begun */
    /* coprime */
    bool coprime;
    struct coprime order;
    struct shard *map; /* [list.count] */
    char files[17];    /* XXH64 of all names and lengths, hex */
};

/*
 * Where a stream stands: what a checkpoint keeps.
 *
 *                 sequential                       coprime
 *   name          the current shard's file name    "coprime", the seed and the hash of all shards'
 *                                                  names and lengths, both in hex
 *   shard, pos    that shard; tokens taken of it   0; batches drawn
 *   shards        number of shards                 the same
 *   shard_tokens  length of the current shard      length of all shards together
 */
struct loader_pos {
    char name[256];
    size_t shard, pos, shards, shard_tokens;
};

/* loader_check - ERR_USAGE: the recipe's LOADER or LOADER_RANKS is impossible. Needs no data. */
enum err_code loader_check(const struct recipe *r, struct err *e);

/* loader_open - the train shards below `dir` (DATA_PATH, or where they are instead), for
 * TRAIN_BATCH_TOKENS, TRAIN_SEQ_LEN, VOCAB_SIZE, LOADER and LOADER_RANKS. ERR_USAGE: as
 * loader_check. ERR_INPUT: no shard; coprime: one that is damaged, or all too short. ERR_RESOURCE:
 * memory. */
enum err_code loader_open(struct loader *l, const struct recipe *r, const char *dir, struct err *e);
void loader_close(struct loader *l); /* accepts a zeroed struct */

/*
 * loader_next - the next windows, `seqs` of them: a micro-batch.
 *
 *   ids, target  [seqs][t] out; target[i][j] is the token behind ids[i][j]
 *
 * ERR_INPUT: a shard is damaged, or holds a token that VOCAB_SIZE does not.
 */
enum err_code loader_next(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                          struct err *e);

/* loader_skip - pass over the next `count` micro-batches of `seqs` windows, which other ranks take:
 * what loader_next returns then, and loader_tell, is as if they had been read. Errors: as
 * loader_next, but tokens that are passed over may be unchecked. */
enum err_code loader_skip(struct loader *l, size_t seqs, size_t count, struct err *e);

/*
 * loader_share - the first `seqs` windows from the next batch on; the rest of the batch that they
 * end in is passed over. For calibration: the originals calibrate on rank 0's share of a batch, the
 * first batch/ranks windows. Only between batches.
 *
 *   ids, target  [seqs][t] out
 *
 * Behind the last training step it goes on with the stream; after loader_restart or loader_open the
 * shares are those of the first training batches. Sequential with LOADER_RANKS=0: the windows are
 * one span, and further spans of that length are passed over while the batch has them. Errors: as
 * loader_next.
 */
enum err_code loader_share(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                           struct err *e);

/* loader_restart - back to the first batch of the run, resumed or not: the coprime order keeps its
 * seed. */
void loader_restart(struct loader *l);

/* loader_tell / loader_seek - save and restore the position, between batches (with ranks 0: between
 * micro-batches). loader_seek is ERR_INPUT when the directory does not hold the same shards any
 * more: their number; sequential: name and length of the current one; coprime: all names and
 * lengths. A resumed coprime run keeps the seed that it began with, wherever the data are now;
 * seeking draws its batches again (windows only), about 0.15 ms each with 143 shards. */
enum err_code loader_tell(struct loader *l, struct loader_pos *p, struct err *e);
enum err_code loader_seek(struct loader *l, const struct loader_pos *p, struct err *e);

#endif
