/*
 * shard_test - guards against scoring other tokens than the user thinks: a shard cut short, a
 * header that lies, shards in the wrong order, a token that the model has no row for. Each must be
 * refused with the file and the place, because a wrong stream still gives a plausible number.
 */
#include "model/reader.h"
#include "model/shard.h"
#include "tests/unit/util.h"

/* A shard in memory; `header` replaces the first three fields when not NULL. Returns its bytes. */
static size_t make(uint8_t *out, const uint16_t *tok, size_t n, const uint32_t header[3])
{
    const uint32_t usual[3] = {SHARD_MAGIC, SHARD_VERSION, (uint32_t)n};
    memset(out, 0, SHARD_HEADER);
    for (size_t i = 0; i < 3; i++)
        put_le32(out + 4 * i, header ? header[i] : usual[i]);
    for (size_t i = 0; i < n; i++) {
        out[SHARD_HEADER + 2 * i] = (uint8_t)tok[i];
        out[SHARD_HEADER + 2 * i + 1] = (uint8_t)(tok[i] >> 8);
    }
    return SHARD_HEADER + 2 * n;
}

static void spill(const char *name, const uint16_t *tok, size_t n)
{
    static uint8_t buf[4096];
    util_spill(util_path(name), buf, make(buf, tok, n, NULL));
}

static const uint16_t seven[7] = {1, 2, 300, 0, 1023, 5, 6};

static void opens(void **state)
{
    struct shard s;
    struct err e = {0};
    (void)state;
    spill("a.bin", seven, 7);
    EXPECT("seven", ERR_OK, "", shard_open(&s, util_path("a.bin"), 1024, &e), e);
    assert_int_equal(s.n, 7);
    assert_memory_equal(s.tok, seven, sizeof seven);
    shard_close(&s);
    shard_close(&s);
    EXPECT("not checked", ERR_OK, "", shard_open(&s, util_path("a.bin"), 0, &e), e);
    shard_close(&s);
}

static void every_truncation(void **state)
{
    uint8_t whole[SHARD_HEADER + 14];
    size_t n = make(whole, seven, 7, NULL);
    (void)state;
    for (size_t cut = 0; cut < n; cut++) {
        struct shard s;
        struct err e = {0};
        char label[64];
        snprintf(label, sizeof label, "first %zu bytes", cut);
        util_spill(util_path("t.bin"), whole, cut);
        EXPECT(label, ERR_INPUT, "t.bin: ", shard_open(&s, util_path("t.bin"), 0, &e), e);
        assert_null(s.map);
    }
}

static void every_bit_of_the_header(void **state)
{
    uint8_t whole[SHARD_HEADER + 14];
    size_t n = make(whole, seven, 7, NULL);
    (void)state;
    for (size_t bit = 0; bit < 8 * 12; bit++) {
        struct shard s;
        struct err e = {0};
        char label[64];
        snprintf(label, sizeof label, "bit %zu", bit);
        whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
        util_spill(util_path("b.bin"), whole, n);
        EXPECT(label, ERR_INPUT, "b.bin: ", shard_open(&s, util_path("b.bin"), 0, &e), e);
        whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void lies(void **state)
{
    static const struct {
        const char *name;
        uint32_t header[3];
        size_t tokens, vocab, extra;
        const char *says;
    } cases[] = {
        {"other magic", {20240521, 1, 7}, 7, 0, 0, "not a token shard: magic 20240521 version 1"},
        {"other version", {SHARD_MAGIC, 2, 7}, 7, 0, 0, "version 2, expected 20240520 and 1"},
        {"zero tokens", {SHARD_MAGIC, 1, 0}, 0, 0, 0, "holds no tokens"},
        {"says fewer", {SHARD_MAGIC, 1, 6}, 7, 0, 0, "header says 6 tokens, file holds 14 bytes"},
        {"says more", {SHARD_MAGIC, 1, 8}, 7, 0, 0, "header says 8 tokens, file holds 14 bytes"},
        {"says 2^31", {SHARD_MAGIC, 1, 0x80000000}, 7, 0, 0, "header says 2147483648 tokens"},
        {"says 2^32-1", {SHARD_MAGIC, 1, 0xffffffff}, 7, 0, 0, "header says 4294967295 tokens"},
        {"odd byte behind", {SHARD_MAGIC, 1, 7}, 7, 0, 1, "file holds 15 bytes"},
        {"token = vocabulary",
         {SHARD_MAGIC, 1, 7},
         7,
         1023,
         0,
         "token 4 is 1023, the vocabulary has 1023"},
        {"token > vocabulary", {SHARD_MAGIC, 1, 7}, 7, 2, 0, "token 1 is 2, the vocabulary has 2"},
        {"header only", {SHARD_MAGIC, 1, 1}, 0, 0, 0, "header says 1 tokens, file holds 0 bytes"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t buf[2048] = {0};
        size_t n = make(buf, seven, cases[i].tokens, cases[i].header) + cases[i].extra;
        struct shard s;
        struct err e = {0};
        util_spill(util_path("lie.bin"), buf, n);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says,
               shard_open(&s, util_path("lie.bin"), cases[i].vocab, &e), e);
    }
}

/* ---- folders ---- */

static void order_and_kinds(void **state)
{
    static const char *const names[] = {"d/f_val_000002.bin",
                                        "d/f_val_000000.bin",
                                        "d/f_val_000010.bin",
                                        "d/f_val_000001.bin",
                                        "d/f_train_000.bin",
                                        "d/val_000003.bin",
                                        "d/f_val_000004.bin2",
                                        "d/f_value_000.bin",
                                        "d/f_val_.bin.tmp",
                                        "d/f_val.bin",
                                        "d/.bin",
                                        "d/f_val_"};
    struct err e = {0};
    struct shard_list l;
    uint16_t *tok;
    size_t n;
    (void)state;
    mkdir(util_path("d"), 0755);
    for (size_t i = 0; i < COUNT(names); i++) {
        uint16_t t[2] = {(uint16_t)i, (uint16_t)(100 + i)};
        spill(names[i], t, 2);
    }
    EXPECT("list", ERR_OK, "", shard_list(&l, util_path("d"), "val", &e), e);
    assert_int_equal(l.count, 4);
    for (size_t i = 0; i < 4; i++) {
        static const char *const want[] = {"0000.bin", "0001.bin", "0002.bin", "0010.bin"};
        assert_string_equal(l.path[i] + strlen(l.path[i]) - 8, want[i]);
    }
    shard_list_free(&l);
    EXPECT("load", ERR_OK, "", shard_load(&tok, &n, util_path("d"), "val", 1024, 0, &e), e);
    assert_int_equal(n, 8);
    static const uint16_t want[8] = {1, 101, 3, 103, 0, 100, 2, 102};
    assert_memory_equal(tok, want, sizeof want);
    free(tok);
    for (size_t max = 1; max < 12; max++) {
        EXPECT("max", ERR_OK, "", shard_load(&tok, &n, util_path("d"), "val", 1024, max, &e), e);
        assert_int_equal(n, max < 8 ? max : 8);
        assert_memory_equal(tok, want, n * sizeof *want);
        free(tok);
    }
    EXPECT("train", ERR_OK, "", shard_load(&tok, &n, util_path("d"), "train", 1024, 0, &e), e);
    assert_int_equal(n, 2);
    free(tok);
    /* One file, whatever its name. */
    EXPECT("file", ERR_OK, "", shard_load(&tok, &n, util_path("d/f_val.bin"), "val", 0, 0, &e), e);
    assert_int_equal(n, 2);
    free(tok);
}

static void nothing_to_load(void **state)
{
    const struct {
        const char *name, *path, *says;
    } cases[] = {
        {"missing", util_path("nowhere"), "nowhere: no such file or directory"},
        {"empty folder", util_path("hollow"), "hollow: no *_val_*.bin shard in it"},
        {"no shard of the kind", util_path("only"), "only: no *_val_*.bin shard in it"},
        {"second shard damaged", util_path("mixed"), "b_val_1.bin: not a token shard: 4 bytes"},
        {"a folder called like a shard", util_path("odd"), "x_val_0.bin: not a regular file"},
    };
    (void)state;
    mkdir(util_path("hollow"), 0755);
    mkdir(util_path("only"), 0755);
    spill("only/a_train_0.bin", seven, 7);
    mkdir(util_path("mixed"), 0755);
    spill("mixed/a_val_0.bin", seven, 7);
    util_spill(util_path("mixed/b_val_1.bin"), "junk", 4);
    mkdir(util_path("odd"), 0755);
    mkdir(util_path("odd/x_val_0.bin"), 0755);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        uint16_t *tok;
        size_t n;
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says,
               shard_load(&tok, &n, cases[i].path, "val", 0, 0, &e), e);
        assert_null(tok);
        assert_int_equal(n, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_bit_of_the_header),
        cmocka_unit_test(lies),
        cmocka_unit_test(order_and_kinds),
        cmocka_unit_test(nothing_to_load),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
