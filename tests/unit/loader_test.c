/*
 * loader_test.c - exists for the token that is skipped or read twice: at the border of two shards,
 * when the stream begins again, after a resume; and for the resume on data that are not the same
 * any more.
 */
#include "tests/unit/toy_run.h"
#include "trainer/loader.h"

enum { STREAM = 3 * TOY_TOKENS - 3 }; /* lengths 700, 699, 698 */

/* The stream as one array, by the rule: shards in order. */
static void whole(uint16_t *out)
{
    uint16_t tok[TOY_TOKENS];
    for (unsigned i = 0; i < TOY_TRAIN; i++) {
        toy_stream(tok, TOY_TOKENS, i + 1);
        memcpy(out, tok, (TOY_TOKENS - i) * sizeof *tok);
        out += TOY_TOKENS - i;
    }
}

static void spans(void **state)
{
    static const size_t sizes[] = {1, 7, 64, 699, 700, 701, 1399, 2096, 2097, 2098, 5000};
    char dir[TOY_PATH];
    uint16_t want[STREAM], got[5000];
    (void)state;
    toy_corpus(dir);
    whole(want);
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        struct loader l;
        struct err e = {0};
        size_t at = 0;
        assert_int_equal(loader_open(&l, dir, TOY_VOCAB, &e), ERR_OK);
        for (size_t turn = 0; turn < 12; turn++) {
            memset(got, 0xff, sizeof got);
            if (loader_take(&l, got, sizes[c], &e))
                fail_msg("span %zu: %s", sizes[c], e.msg);
            for (size_t i = 0; i < sizes[c]; i++, at++)
                if (got[i] != want[at % STREAM])
                    fail_msg("span %zu, token %zu: %u, expected %u", sizes[c], at, got[i],
                             want[at % STREAM]);
        }
        loader_close(&l);
    }
    toy_remove(dir);
}

static void one_shard(void **state)
{
    char dir[TOY_PATH];
    const uint16_t tok[3] = {4, 5, 6};
    uint16_t got[8];
    struct loader l;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    toy_shard(toy_path(dir, "toy_train_000000.bin"), tok, 3);
    unlink(toy_path(dir, "toy_train_000001.bin"));
    unlink(toy_path(dir, "toy_train_000002.bin"));
    assert_int_equal(loader_open(&l, dir, TOY_VOCAB, &e), ERR_OK);
    assert_int_equal(loader_take(&l, got, 8, &e), ERR_OK);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(got[i], tok[i % 3]);
    loader_close(&l);
    toy_remove(dir);
}

/* From every position that a span of 50 can end at, a second loader goes on like the first. */
static void resume(void **state)
{
    char dir[TOY_PATH];
    struct loader a, b;
    struct loader_pos p;
    struct err e = {0};
    uint16_t x[50], y[50];
    (void)state;
    toy_corpus(dir);
    assert_int_equal(loader_open(&a, dir, TOY_VOCAB, &e), ERR_OK);
    for (size_t turn = 0; turn < 3 * STREAM / 50; turn++) {
        assert_int_equal(loader_tell(&a, &p, &e), ERR_OK);
        assert_int_equal(loader_open(&b, dir, TOY_VOCAB, &e), ERR_OK);
        if (loader_seek(&b, &p, &e))
            fail_msg("turn %zu: %s", turn, e.msg);
        assert_int_equal(loader_take(&a, x, 50, &e), ERR_OK);
        assert_int_equal(loader_take(&b, y, 50, &e), ERR_OK);
        assert_memory_equal(x, y, sizeof x);
        loader_close(&b);
    }
    loader_close(&a);
    toy_remove(dir);
}

enum change { FEWER, RENAMED, SHORTER };

static void changed_data(void **state)
{
    static const struct {
        const char *name;
        enum change change;
    } cases[] = {{"a shard less", FEWER}, {"another name", RENAMED}, {"another length", SHORTER}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        char dir[TOY_PATH];
        struct loader l;
        struct loader_pos p;
        struct err e = {0};
        uint16_t tok[TOY_TOKENS + 10] = {0};
        const char *second;
        toy_corpus(dir);
        second = toy_path(dir, "toy_train_000001.bin");
        assert_int_equal(loader_open(&l, dir, TOY_VOCAB, &e), ERR_OK);
        assert_int_equal(loader_take(&l, tok, TOY_TOKENS + 10, &e), ERR_OK);
        assert_int_equal(loader_tell(&l, &p, &e), ERR_OK);
        assert_int_equal(p.shard, 1);
        assert_int_equal(p.pos, 10);
        loader_close(&l);
        if (cases[c].change == FEWER)
            unlink(second);
        else if (cases[c].change == RENAMED)
            rename(second, toy_path(dir, "toy_train_000001b.bin"));
        else
            toy_shard(second, tok, 20);
        assert_int_equal(loader_open(&l, dir, TOY_VOCAB, &e), ERR_OK);
        if (loader_seek(&l, &p, &e) != ERR_INPUT || !strstr(e.msg, "data changed"))
            fail_msg("%s: accepted, or: %s", cases[c].name, e.msg);
        loader_close(&l);
        toy_remove(dir);
    }
}

/* A damaged shard is found when the stream reaches it, and named. */
static void damaged_later(void **state)
{
    char dir[TOY_PATH];
    uint16_t tok[TOY_TOKENS + 1] = {TOY_VOCAB};
    struct loader l;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    toy_shard(toy_path(dir, "toy_train_000001.bin"), tok, 1);
    assert_int_equal(loader_open(&l, dir, TOY_VOCAB, &e), ERR_OK);
    assert_int_equal(loader_take(&l, tok, TOY_TOKENS, &e), ERR_OK);
    assert_int_equal(loader_take(&l, tok, 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "toy_train_000001.bin"));
    loader_close(&l);
    loader_close(&l); /* a closed loader is nothing, and closing nothing is fine */
    toy_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans),        cmocka_unit_test(one_shard),     cmocka_unit_test(resume),
        cmocka_unit_test(changed_data), cmocka_unit_test(damaged_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
