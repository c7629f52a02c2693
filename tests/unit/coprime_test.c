/*
 * coprime_test.c - exists for the batch that is not the originals': a draw out of order, a weight
 * off by a bit, a shard that starts over too early; and for windows that are skipped, read twice or
 * reach beyond their shard. The expected windows were computed with the originals' code under NumPy
 * 2.4.6, with powers rounded to nearest (power.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/coprime.h"

enum { SHARDS = 200 };
enum lengths { FULL, RAGGED, SHORT };

static void lengths(enum lengths kind, size_t n, size_t *out)
{
    static const size_t four[] = {20, 17, 16, 900}, three[] = {2, 50, 1};
    for (size_t i = 0; i < n; i++)
        out[i] = kind == FULL     ? 100000000 - (i + 1 == n ? 54321000 : 0)
                 : kind == RAGGED ? 1 + (i * 7919 + 13) % 30011
                 : n == 4         ? four[i]
                                  : three[i];
}

static void open_order(struct coprime *c, enum lengths kind, size_t n, size_t t, size_t batch,
                       size_t ranks, uint64_t seed)
{
    size_t len[SHARDS];
    struct err e = {0};
    lengths(kind, n, len);
    if (coprime_init(c, seed, len, n, t, batch, ranks, &e))
        fail_msg("%s", e.msg);
}

static uint64_t fold(uint64_t h, const struct coprime *c)
{
    for (size_t i = 0; i < c->batch; i++) {
        h = (h ^ c->window[i].shard) * 1099511628211u;
        h = (h ^ c->window[i].pos) * 1099511628211u;
    }
    return h;
}

/* first: the first two windows; one, all: hashes over the first batch and over all. */
static const struct {
    const char *name;
    enum lengths kind;
    size_t shards, t, batch, ranks, batches;
    uint64_t seed;
    struct coprime_window first[2];
    uint64_t one, all;
} cases[] = {
    {"the recipes, 143 shards",
     FULL,
     143,
     2048,
     384,
     8,
     120,
     0x123456789abcdef,
     {{43, 66360896}, {43, 36210240}},
     0x2462f77ab1ff8ee1,
     0x8cf44a8a64997560},
    {"80 shards",
     FULL,
     80,
     2048,
     384,
     8,
     60,
     0x5,
     {{22, 51964433}, {63, 33856092}},
     0x9199bc08f54a1edc,
     0x204b641fee1fcf5c},
    {"many passes, progress to its end",
     RAGGED,
     37,
     64,
     32,
     8,
     1900,
     0x7,
     {{11, 7960}, {28, 2602}},
     0xa49246d84b02b18d,
     0x2179b6335ffc1232},
    {"more shards than a batch takes",
     RAGGED,
     200,
     128,
     16,
     4,
     300,
     0x8,
     {{87, 18193}, {64, 17072}},
     0x39d5ec4080974772,
     0x029e727e48ceaecb},
    {"one rank",
     RAGGED,
     40,
     100,
     48,
     1,
     300,
     0x9,
     {{25, 15591}, {2, 6574}},
     0xfe23a3d20198abcf,
     0x3097962cca30fd08},
    {"short shards",
     SHORT,
     4,
     16,
     5,
     1,
     300,
     0xa,
     {{0, 1}, {1, 0}},
     0x8c200ef1c5ddeaea,
     0x836be91e18650edb},
    {"one token",
     SHORT,
     3,
     1,
     8,
     8,
     300,
     0xb,
     {{0, 0}, {1, 18}},
     0x50dad9de2508f758,
     0x45e36b510c927d5e},
};

static void golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct coprime c;
        uint64_t h = 0;
        open_order(&c, cases[i].kind, cases[i].shards, cases[i].t, cases[i].batch, cases[i].ranks,
                   cases[i].seed);
        for (size_t b = 0; b < cases[i].batches; b++) {
            coprime_next(&c);
            h = fold(h, &c);
            if (!b && memcmp(c.window, cases[i].first, sizeof cases[i].first) != 0)
                fail_msg("%s: begins with %zu:%zu, expected %zu:%zu", cases[i].name,
                         c.window[0].shard, c.window[0].pos, cases[i].first[0].shard,
                         cases[i].first[0].pos);
            if (!b && h != cases[i].one)
                fail_msg("%s: the first batch differs", cases[i].name);
        }
        if (h != cases[i].all)
            fail_msg("%s: a batch behind the first differs", cases[i].name);
        coprime_free(&c);
    }
}

/* What Python's pathlib writes is what is hashed. */
static void seeds(void **state)
{
    static const struct {
        const char *path;
        uint64_t seed;
    } paths[] = {
        {"data//x/./fineweb_train_000000.bin", 0xa2e5684f5f2e5083u},
        {"/a/b.bin", 0x4a802f7a9e63572eu},
        {"//a//b.bin", 0x2b38a7b713687debu},
        {"///a/../b.bin", 0x635c1882b5f2aa07u},
        {"./.hidden/b", 0xf8c5bb14454832afu},
    };
    uint64_t h = 0;
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (coprime_seed(0, paths[i].path) != paths[i].seed)
            fail_msg("%s", paths[i].path);
    for (int i = 0; i < 143; i++) {
        char path[80];
        snprintf(path, sizeof path, "./data/datasets/fineweb10B_sp4096/fineweb_train_%06d.bin", i);
        h = coprime_seed(h, path);
    }
    assert_true(h == 0xfe3692f52b3d5b29u);
}

/* While a shard's cursor walks, no block comes twice; all windows lie inside. */
static void every_block_once(void **state)
{
    enum { T = 16, BLOCKS = 1900, N = 3 };
    static const size_t len[N] = {30011, 16, 17 + 1000};
    bool *seen = calloc(N, BLOCKS);
    struct coprime c;
    struct err e = {0};
    size_t left[N] = {0};
    (void)state;
    assert_int_equal(coprime_init(&c, 3, len, N, T, 7, 2, &e), ERR_OK);
    for (size_t b = 0; b < 2000; b++) {
        coprime_next(&c);
        for (size_t i = 0; i < c.batch; i++) {
            struct coprime_window w = c.window[i];
            if (w.shard == 1 || w.pos + T + 1 > len[w.shard])
                fail_msg("batch %zu: window %zu:%zu", b, w.shard, w.pos);
        }
    }
    /* One shard alone: its order of taking is the cursor's, shuffled within a batch. */
    coprime_free(&c);
    assert_int_equal(coprime_init(&c, 3, len, 1, T, 1, 1, &e), ERR_OK);
    for (size_t b = 0; b < 3 * BLOCKS; b++) {
        coprime_next(&c);
        if (!left[0]) {
            memset(seen, 0, BLOCKS);
            left[0] = c.cursor[0].blocks;
        }
        size_t block = (c.window[0].pos - c.cursor[0].phase) / T;
        if (seen[block])
            fail_msg("batch %zu: block %zu again, %zu left", b, block, left[0]);
        seen[block] = true;
        left[0]--;
    }
    coprime_free(&c);
    free(seen);
}

/* Ranks only change who gets a window, and how many shards a batch has. With 3 shards the latter is
 * the same, so the batches of 1 and 4 ranks hold the same windows, dealt out by number. */
static void ranks(void **state)
{
    static const size_t sizes[] = {1, 3, 4, 8, 10};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct coprime one, four;
        size_t n = sizes[s];
        open_order(&one, SHORT, 3, 1, n, 1, 5);
        open_order(&four, SHORT, 3, 1, n, 4, 5);
        for (size_t b = 0; b < 20; b++) {
            size_t at = 0;
            coprime_next(&one);
            coprime_next(&four);
            for (size_t rank = 0; rank < 4; rank++)
                for (size_t i = rank; i < n; i += 4, at++)
                    if (memcmp(&four.window[at], &one.window[i], sizeof one.window[i]) != 0)
                        fail_msg("batch of %zu, rank %zu, window %zu", n, rank, i);
            assert_int_equal(at, n);
        }
        coprime_free(&one);
        coprime_free(&four);
    }
}

/* Drawing again from the seed leads to the same place, whatever came in between. */
static void restart(void **state)
{
    struct coprime a, b;
    (void)state;
    open_order(&a, RAGGED, 30, 64, 24, 8, 9);
    open_order(&b, RAGGED, 30, 64, 24, 8, 10);
    for (size_t i = 0; i < 300; i++)
        coprime_next(&a);
    for (size_t i = 0; i < 77; i++)
        coprime_next(&b);
    coprime_restart(&b, 9);
    while (b.built < a.built)
        coprime_next(&b);
    for (size_t i = 0; i < 10; i++) {
        coprime_next(&a);
        coprime_next(&b);
        assert_memory_equal(a.window, b.window, a.batch * sizeof *a.window);
    }
    coprime_free(&a);
    coprime_free(&b);
}

static void too_short(void **state)
{
    static const size_t len[] = {16, 3, 1};
    struct coprime c;
    struct err e = {0};
    (void)state;
    assert_int_equal(coprime_init(&c, 1, len, 3, 16, 4, 8, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "17 tokens"));
    coprime_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden), cmocka_unit_test(seeds),   cmocka_unit_test(every_block_once),
        cmocka_unit_test(ranks),  cmocka_unit_test(restart), cmocka_unit_test(too_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
