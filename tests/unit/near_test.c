/*
 * near_test - guards against a hint that names a word nobody meant, and a misspelt word without a
 * hint.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/near.h"

static void distances(void **state)
{
    static const struct {
        const char *a, *b;
        size_t d;
    } cases[] = {
        {"", "", 0},         {"", "abc", 3},          {"abc", "", 3},   {"abc", "abc", 0},
        {"abc", "abd", 1},   {"abc", "ab", 1},        {"ab", "abc", 1}, {"kitten", "sitting", 3},
        {"flaw", "lawn", 2}, {"abcdef", "fedcba", 6},
    };
    char longest[65];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (near_distance(cases[i].a, cases[i].b) != cases[i].d)
            fail_msg("%s, %s: %zu", cases[i].a, cases[i].b, near_distance(cases[i].a, cases[i].b));
    memset(longest, 'x', 64);
    longest[64] = 0;
    assert_true(near_distance("a", longest) == SIZE_MAX);
    assert_int_equal(near_distance(longest, "a"), 64);
}

static void words(void **state)
{
    static const char *const known[] = {"blob", "score", "probe", "record", "unwrap"};
    static const struct {
        const char *word, *near;
    } cases[] = {
        {"records", "record"}, {"unwarp", "unwrap"}, {"scor", "score"}, {"rec", "record"},
        {"blub", "blob"},      {"prbe", "probe"},    {"verify", NULL},  {"", NULL},
        {"train", NULL},       {"x", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = near_word(cases[i].word, known, sizeof known / sizeof *known);
        if (got != cases[i].near && (!got || !cases[i].near || strcmp(got, cases[i].near)))
            fail_msg("%s: %s", cases[i].word, got ? got : "none");
    }
    assert_null(near_word("blob", known, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(distances), cmocka_unit_test(words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
