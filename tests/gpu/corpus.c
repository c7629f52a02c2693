/*
 * corpus DIR - shards and a tokeniser for the training runs of `make test-gpu`, made on the spot.
 *
 * Text is drawn from a Markov source over CORPUS_VOCAB - 3 pieces: each piece has a few likely
 * followers, unequally likely, and now and then anything comes. There is something to learn from
 * the first step on, and a model that has learned it is at about 2.3 nats per token. Pieces have
 * one to four letters, some with a space before them, so that bytes differ from tokens.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/err.h"
#include "model/reader.h"
#include "model/shard.h"

enum {
    CORPUS_VOCAB = 1024,
    SPECIAL = 3, /* <unk>, <s>, </s> */
    FOLLOWERS = 6,
    TRAIN_SHARDS = 2,
    TRAIN_TOKENS = 1 << 20,
    VAL_TOKENS = 1 << 17,
};

/* splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t next(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static _Noreturn void die(const char *path)
{
    fprintf(stderr, "corpus: %s: %s\n", path, strerror(errno));
    exit(ERR_RESOURCE);
}

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f))
        die(path);
}

/* The likely followers of a piece are a function of it alone; one is twice as likely as the next.
 */
static uint16_t follower(uint16_t piece, uint64_t *s)
{
    uint64_t draw = next(s), of = piece;
    unsigned which = 0;
    if (draw % 8 == 0)
        of = draw >> 8;
    while (which < FOLLOWERS - 1 && draw >> (40 + which) & 1)
        which++;
    of = of * FOLLOWERS + which;
    return (uint16_t)(SPECIAL + next(&of) % (CORPUS_VOCAB - SPECIAL));
}

static void write_shard(const char *dir, const char *kind, unsigned i, size_t n, uint64_t seed)
{
    uint8_t *p = calloc(1, SHARD_HEADER + 2 * n);
    uint16_t piece = SPECIAL;
    char name[64];
    if (!p)
        die(dir);
    put_le32(p, SHARD_MAGIC);
    put_le32(p + 4, SHARD_VERSION);
    put_le32(p + 8, (uint32_t)n);
    for (size_t at = 0; at < n; at++) {
        piece = follower(piece, &seed);
        p[SHARD_HEADER + 2 * at] = (uint8_t)piece;
        p[SHARD_HEADER + 2 * at + 1] = (uint8_t)(piece >> 8);
    }
    snprintf(name, sizeof name, "markov_%s_%06u.bin", kind, i);
    write_file(dir, name, p, SHARD_HEADER + 2 * n);
    free(p);
}

/* A SentencePiece model, which is protobuf: field 1 of the file is a piece; in it field 1 is the
 * text, field 3 the type (1 normal, 2 unknown, 3 control). */
static void write_tokenizer(const char *dir)
{
    static const char *const special[SPECIAL] = {"<unk>", "<s>", "</s>"};
    static uint8_t file[CORPUS_VOCAB * 32];
    size_t n = 0;
    for (unsigned i = 0; i < CORPUS_VOCAB; i++) {
        char text[16];
        snprintf(text, sizeof text, "%s%c%.*s", i % 3 ? "" : "\xe2\x96\x81", 'a' + (int)(i % 26),
                 (int)(i % 4), (char[]){(char)('a' + i / 26 % 26), (char)('a' + i / 676), 'e', 0});
        const char *piece = i < SPECIAL ? special[i] : text;
        size_t len = strlen(piece);
        file[n++] = 0x0a;
        file[n++] = (uint8_t)(len + 4);
        file[n++] = 0x0a;
        file[n++] = (uint8_t)len;
        memcpy(file + n, piece, len);
        n += len;
        file[n++] = 0x18;
        file[n++] = i == 0 ? 2 : i < SPECIAL ? 3 : 1;
    }
    write_file(dir, "markov.model", file, n);
}

int main(int argc, char **argv)
{
    if (argc != 2 || argv[1][0] == '-')
        return fprintf(stderr, "usage: corpus DIR\n"), ERR_USAGE;
    if (mkdir(argv[1], 0777) && errno != EEXIST)
        die(argv[1]);
    for (unsigned i = 0; i < TRAIN_SHARDS; i++)
        write_shard(argv[1], "train", i, TRAIN_TOKENS, i + 1);
    write_shard(argv[1], "val", 0, VAL_TOKENS, 99);
    write_tokenizer(argv[1]);
    printf("%u shards of %u tokens, %u to validate, %u pieces\n", TRAIN_SHARDS, TRAIN_TOKENS,
           VAL_TOKENS, CORPUS_VOCAB);
    return ERR_OK;
}
