/*
 * shard.h - token shards in the challenge's format, and the streams made of them.
 *
 * File: 256 little-endian int32 (magic 20240520, version 1, count, zeros), then count uint16
 * tokens. The file size must be exactly 1024 + 2*count.
 */
#ifndef MODEL_SHARD_H
#define MODEL_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum { SHARD_MAGIC = 20240520, SHARD_VERSION = 1, SHARD_HEADER = 1024 };

/* One mapped shard. tok points into the map (little-endian hosts only, which x86-64 is). */
struct shard {
    const uint16_t *tok;
    size_t n;
    const void *map;
    size_t map_bytes;
};

/* shard_open - map and check one file; every token must be below vocab (0: not checked).
 * ERR_INPUT: not a shard, wrong length, zero tokens, a token >= vocab (with its position). */
enum err_code shard_open(struct shard *s, const char *path, size_t vocab, struct err *e);
void shard_close(struct shard *s);

/* The paths of a directory's shards whose names contain "_train_" or "_val_" and end in .bin,
 * sorted by name. `kind` is "train" or "val"; `path` may also be one shard file. ERR_INPUT when
 * there is none. */
struct shard_list {
    char **path;
    size_t count;
};
enum err_code shard_list(struct shard_list *l, const char *path, const char *kind, struct err *e);
void shard_list_free(struct shard_list *l);

/* shard_load - all shards of a kind as one stream in memory (the validation split), at most max
 * tokens when max is not 0. *tok is malloc'ed and the caller's. */
enum err_code shard_load(uint16_t **tok, size_t *n, const char *path, const char *kind,
                         size_t vocab, size_t max, struct err *e);

#endif
