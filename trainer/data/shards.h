/*
 * shards.h - text of token ids in, token shards in the challenge's format out; and their check.
 *
 * A shard is a 1024-byte header of 256 little-endian int32 ([0] = 20240520, [1] = 1, [2] = number
 * of tokens, the rest 0) and then that many little-endian uint16 tokens, nothing after them. A
 * document is the begin-of-sequence id followed by its tokens; nothing marks its end, and documents
 * run across shard borders. Files are NAME_val_%06d.bin and NAME_train_%06d.bin, each split
 * numbered from 0.
 *
 * Source of the format: the export script of openai/parameter-golf (data/), which took it from
 * llm.c's data files.
 */
#ifndef TRAINER_DATA_SHARDS_H
#define TRAINER_DATA_SHARDS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/err.h"

enum {
    SHARDS_MAGIC = 20240520,
    SHARDS_VERSION = 1,
    SHARDS_HEADER_BYTES = 1024,
    SHARDS_MAX_VOCAB = 65536, /* ids are stored as uint16 */
    SHARDS_BOS = 1,
    SHARDS_DEFAULT_TOKENS = 100000000, /* per shard; what the challenge's export uses */
};

/* What one split (val or train), one file or one directory holds. max_id is 0 without tokens. */
struct shards_count {
    uint64_t files, docs, tokens;
    uint32_t max_id;
};

/*
 * What to write. At most one of the three held-out rules is set; with none all is training data.
 *
 *   dir           output directory; made when its parent exists
 *   name          first part of the file names, "fineweb" in the challenge
 *   vocab         every id must be below it, 1..SHARDS_MAX_VOCAB
 *   bos           id that opens a document, below vocab; the input must not contain it
 *   shard_tokens  tokens in a full shard, 1..INT32_MAX (the header's field is an int32)
 *   val_docs      the first val_docs documents are held out
 *   val_tokens    documents are held out from the first on until they hold this many tokens
 *   val_fraction  a document is held out when held-out tokens are behind this share of all tokens
 * so far, so held-out documents are spread over the whole input; 0..1 replace       shards of this
 * name in dir give way to the new ones; otherwise they are an error stop          NULL, or a flag
 * that a signal handler sets: the work ends with an error, cleaned up
 */
struct shards_plan {
    const char *dir, *name;
    uint32_t vocab, bos, shard_tokens;
    uint64_t val_docs, val_tokens;
    double val_fraction;
    bool replace;
    const volatile sig_atomic_t *stop;
};

struct shards_stats {
    struct shards_count val, train;
    uint64_t empty_lines; /* lines without an id: not documents, left out */
};

/*
 * shards_write - read documents from `in`, one per line, ids in decimal separated by blanks (what
 * `spm_encode --output_format=id` prints), and write them as shards.
 *
 *   in_name  what messages call the input
 *   st       out: what was written; valid only on success
 *
 * Reads and writes as it goes: memory does not depend on the length of lines or of the input.
 * Shards are written under temporary names (".NAME_train_000000.bin.tmp") and renamed only when the
 * last one is complete; on failure the temporary files are removed and what was in dir before
 * stays.
 *
 * Fails: ERR_USAGE   a setting is outside its range, or dir already holds shards and !replace
 *        ERR_INPUT   something in the input is not an id, an id >= vocab or == bos, no document
 *        ERR_RESOURCE no memory, no space, dir cannot be written, stopped by a signal
 */
enum err_code shards_write(const struct shards_plan *plan, FILE *in, const char *in_name,
                           struct shards_stats *st, struct err *e);

/*
 * shards_check - read one shard through and add what it holds to *sum (files grows by 1).
 *
 *   vocab  every id must be below it; SHARDS_MAX_VOCAB accepts all
 *   bos    the id whose occurrences are counted as documents
 *
 * Fails: ERR_INPUT when the file cannot be read, is shorter than a header, has another magic or
 * version, is not exactly as long as its header says, or holds an id >= vocab. *sum is then
 * unchanged.
 */
enum err_code shards_check(const char *path, uint32_t vocab, uint32_t bos, struct shards_count *sum,
                           struct err *e);

/* shards_add - *sum += *part, with max_id the larger of the two. */
void shards_add(struct shards_count *sum, const struct shards_count *part);

#endif
