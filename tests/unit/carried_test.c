/*
 * carried_test - guards against a validation text in the artifact that is not found (at an odd
 * byte, cut so that no block of the index is whole, at either end) and against one that is "found"
 * in ordinary weights.
 */
#include "model/reader.h"
#include "tests/unit/util.h"
#include "verify/carried.h"

enum { STREAM = 5000, SECTION = 30000 };

static uint16_t tok[STREAM];
static uint8_t section[SECTION];

static void noise(uint64_t seed)
{
    for (size_t i = 0; i < SECTION; i++)
        section[i] = (uint8_t)util_next(&seed);
}

static void put(size_t byte, size_t from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        section[byte + 2 * i] = (uint8_t)tok[from + i];
        section[byte + 2 * i + 1] = (uint8_t)(tok[from + i] >> 8);
    }
}

static struct carried scan(size_t bytes)
{
    struct carried_index x;
    struct err e = {0};
    if (carried_open(&x, tok, STREAM, &e))
        fail_msg("%s", e.msg);
    struct guarded g = guarded_new(section, bytes);
    struct carried c = carried_scan(&x, g.p, bytes);
    guarded_free(&g);
    carried_close(&x);
    return c;
}

static void found(void **state)
{
    static const struct {
        const char *name;
        size_t byte, from, n;
    } cases[] = {
        {"one block", 1000, 64, 32},
        {"any run of its length", 1001, 65, CARRIED_RUN},
        {"any run of its length, later", 77, 1999, CARRIED_RUN},
        {"at the beginning", 0, 0, 100},
        {"at the end", SECTION - 400, STREAM - 200, 200},
        {"a lot", 12345, 17, 4900},
        {"all", 3, 0, STREAM},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        noise(i + 1);
        put(cases[i].byte, cases[i].from, cases[i].n);
        struct carried c = scan(SECTION);
        if (c.tokens != cases[i].n || c.run != cases[i].n || c.from != cases[i].from ||
            c.byte != cases[i].byte)
            fail_msg("%s: %zu tokens, a run of %zu from %zu at %zu", cases[i].name, c.tokens, c.run,
                     c.from, c.byte);
    }
    /* Two runs, side by side and apart: both count, the longer one is shown. */
    noise(50);
    put(100, 320, 100);
    put(300, 2560, 200);
    put(9001, 320, 100);
    struct carried c = scan(SECTION);
    assert_true(c.tokens == 400 && c.run == 200 && c.from == 2560 && c.byte == 300);
}

static void not_found(void **state)
{
    (void)state;
    noise(60);
    struct carried c = scan(SECTION);
    assert_int_equal(c.tokens, 0);
    put(500, 64, 31); /* less than a block */
    assert_int_equal(scan(SECTION).tokens, 0);
    for (size_t n = 0; n < 2 * CARRIED_BLOCK; n += 7)
        assert_int_equal(scan(n).tokens, 0);
    /* Zeros in weights, and a stream with zeros in it. */
    memset(section, 0, sizeof section);
    memset(tok, 0, 400 * sizeof *tok);
    assert_int_equal(scan(SECTION).tokens, 0);
    struct carried_index x = {0};
    struct err e = {0};
    assert_int_equal(carried_open(&x, tok, 0, &e), ERR_OK);
    assert_int_equal(carried_scan(&x, section, SECTION).tokens, 0);
    carried_close(&x);
}

static int setup(void **state)
{
    uint64_t seed = 3;
    (void)state;
    for (size_t i = 0; i < STREAM; i++)
        tok[i] = (uint16_t)util_below(&seed, 1024);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found),
        cmocka_unit_test(not_found),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
