/*
 * toy_run.h - what the tests of the trainer share: a scratch directory with a little corpus in it
 * (shards of a predictable token stream, a tokeniser), and a recipe that trains in milliseconds.
 */
#ifndef TESTS_UNIT_TOY_RUN_H
#define TESTS_UNIT_TOY_RUN_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/reader.h"
#include "model/recipe.h"
#include "model/shard.h"

enum { TOY_VOCAB = 32, TOY_TRAIN = 3, TOY_TOKENS = 700, TOY_VAL = 500, TOY_PATH = 512 };

static inline void toy_write(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0)
        fail_msg("%s: cannot write", path);
}

/* The whole file; *n its size. The caller frees. */
static inline uint8_t *toy_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot read", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*n + 1);
    if (!p || fread(p, 1, *n, f) != *n)
        fail_msg("%s: cannot read", path);
    p[*n] = 0;
    fclose(f);
    return p;
}

static inline void toy_shard(const char *path, const uint16_t *tok, size_t n)
{
    uint8_t *p = calloc(1, SHARD_HEADER + 2 * n);
    put_le32(p, SHARD_MAGIC);
    put_le32(p + 4, SHARD_VERSION);
    put_le32(p + 8, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        p[SHARD_HEADER + 2 * i] = (uint8_t)tok[i];
        p[SHARD_HEADER + 2 * i + 1] = (uint8_t)(tok[i] >> 8);
    }
    toy_write(path, p, SHARD_HEADER + 2 * n);
    free(p);
}

/* A SentencePiece model: <unk>, <s>, </s> and pieces of one or two letters, written as protobuf by
 * hand (field 1 of the file is a piece; in it field 1 is the text, field 3 the type: 1 normal, 2
 * unknown, 3 control). */
static inline void toy_tokenizer(const char *path, size_t vocab)
{
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    uint8_t *p = malloc(32 * vocab);
    size_t n = 0;
    for (size_t i = 0; i < vocab; i++) {
        char text[8] = {(char)('A' + i % 26), (char)('a' + i / 26), 0};
        const char *s = i < 3 ? special[i] : text;
        size_t len = strlen(s);
        p[n++] = 0x0a;
        p[n++] = (uint8_t)(len + 4);
        p[n++] = 0x0a;
        p[n++] = (uint8_t)len;
        memcpy(p + n, s, len);
        n += len;
        p[n++] = 0x18;
        p[n++] = i == 0 ? 2 : i < 3 ? 3 : 1;
    }
    toy_write(path, p, n);
    free(p);
}

/* A stream with something to learn: mostly each token decides the next, now and then a jump. */
static inline void toy_stream(uint16_t *tok, size_t n, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1, t = 3;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        t = x >> 28 ? (t * 7 + 5) % (TOY_VOCAB - 3) + 3 : (x >> 8) % (TOY_VOCAB - 3) + 3;
        tok[i] = (uint16_t)t;
    }
}

static inline int toy_unlink(const char *path, const struct stat *st, int type, struct FTW *w)
{
    (void)st;
    (void)type;
    (void)w;
    return remove(path);
}

static inline void toy_remove(const char *dir)
{
    nftw(dir, toy_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

/* "DIR/name" in a static buffer of which there are four in turn. */
static inline const char *toy_path(const char *dir, const char *name)
{
    static char buf[4][TOY_PATH];
    static size_t at;
    char *p = buf[at++ % 4];
    snprintf(p, TOY_PATH, "%.250s/%.250s", dir, name);
    return p;
}

/* An empty scratch directory. */
static inline void toy_dir(char dir[TOY_PATH])
{
    snprintf(dir, TOY_PATH, "/tmp/toy_run_XXXXXX");
    assert_non_null(mkdtemp(dir));
}

/* A fresh directory with TOY_TRAIN train shards, a val shard and a tokeniser. */
static inline void toy_corpus(char dir[TOY_PATH])
{
    uint16_t tok[TOY_TOKENS];
    char name[64];
    toy_dir(dir);
    for (unsigned i = 0; i < TOY_TRAIN; i++) {
        toy_stream(tok, TOY_TOKENS, i + 1);
        snprintf(name, sizeof name, "toy_train_%06u.bin", i);
        toy_shard(toy_path(dir, name), tok, TOY_TOKENS - i); /* of different lengths */
    }
    toy_stream(tok, TOY_VAL, 99);
    toy_shard(toy_path(dir, "toy_val_000000.bin"), tok, TOY_VAL);
    toy_tokenizer(toy_path(dir, "toy.model"), TOY_VOCAB);
}

static inline void toy_set(struct recipe *r, const char *setting)
{
    struct err e = {0};
    if (recipe_set(r, setting, "test", &e))
        fail_msg("%s", e.msg);
}

/* Two layers, 16 wide, four micro-batches of two sequences per step, every part of the optimiser
 * switched on. */
static inline void toy_recipe(struct recipe *r, const char *dir)
{
    static const char *const set[] = {
        "VOCAB_SIZE=32",
        "NUM_LAYERS=2",
        "MODEL_DIM=16",
        "NUM_HEADS=4",
        "NUM_KV_HEADS=2",
        "MLP_MULT=2",
        "TRAIN_SEQ_LEN=16",
        "EVAL_STRIDE=8",
        "TRAIN_BATCH_TOKENS=128",
        "MICRO_BATCH_TOKENS=32",
        "ITERATIONS=12",
        "WARMDOWN_ITERS=6",
        "MAX_WALLCLOCK_SECONDS=0",
        "VAL_LOSS_EVERY=0",
        "GRAD_CLIP_NORM=0.5",
        "EMA_DECAY=0.5",
        "MUON_WD=0.01",
        "ADAM_WD=0.01",
        "EMBED_WD=0.01",
        "TIED_EMBED_INIT_STD=0.02",
        "QUANT_KEEP_NUMEL=64",
    };
    recipe_init(r);
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++)
        toy_set(r, set[i]);
    snprintf(r->data_path, sizeof r->data_path, "%.250s", dir);
}

#endif
