/*
 * loader.h - the training stream: all train shards of a directory, sorted by name, one after
 * another and round again for ever.
 *
 * The challenge's sequential loader: each micro-batch takes a span of `tokens + 1` consecutive
 * tokens, x = the first `tokens`, y = the last `tokens`; the next span starts right behind the
 * previous one, so one token per span is only ever a target. Spans run across shard borders. The
 * order does not depend on the seed; it depends on the micro-batch size only through that one token
 * per span.
 *
 * Shards are opened (and checked, every token) when the stream reaches them, one at a time.
 */
#ifndef TRAINER_LOADER_H
#define TRAINER_LOADER_H

#include <stdbool.h>

#include "model/shard.h"

struct loader {
    struct shard_list list;
    struct shard cur;  /* shard number `shard`, mapped when cur.map is not NULL */
    size_t shard, pos; /* next token to be taken; pos may equal the length of the shard */
    size_t vocab;
};

/* Where a stream stands: what a checkpoint keeps. The name is the shard's file name without
 * directory. */
struct loader_pos {
    char name[256];
    size_t shard, pos, shards, shard_tokens;
};

/* loader_open - the train shards below path. ERR_INPUT when there is none. */
enum err_code loader_open(struct loader *l, const char *path, size_t vocab, struct err *e);
void loader_close(struct loader *l); /* accepts a zeroed struct */

/* loader_take - the next n tokens of the stream. ERR_INPUT: a shard is damaged. */
enum err_code loader_take(struct loader *l, uint16_t *out, size_t n, struct err *e);

/* loader_tell / loader_seek - save and restore the position. loader_seek is ERR_INPUT when the
 * directory does not hold the same shards any more (their number, or name and length of the current
 * one). */
enum err_code loader_tell(struct loader *l, struct loader_pos *p, struct err *e);
enum err_code loader_seek(struct loader *l, const struct loader_pos *p, struct err *e);

#endif
