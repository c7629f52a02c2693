/*
 * html_code_test - guards against a list of functions that is misread: columns mixed up,
 * hexadecimal numbers taken for decimal ones, sizes that add up to more than there is, and lists
 * without end.
 */
#include "tests/unit/util.h"
#include "verify/html_code.h"

static void lists(void **state)
{
    static const struct {
        const char *name, *text;
        size_t n;
        double bytes;
        const char *first;
    } cases[] = {
        {"empty", "", 0, 0, ""},
        {"two columns", "   120  score\n    40 main\n", 2, 160, "score"},
        {"ascending", "40 main\n120 score", 2, 160, "score"},
        {"nm",
         "0000000004236048 0000000000011439 t score\n0000000004236048 0000000000000007 T main\r\n",
         2, 11446, "score"},
        {"nm, zeros of no file",
         "0001 0000000000001000 b work\n0001 0010 B more\n0001 0005 d tab\n", 1, 5, "tab"},
        {"nm, no size", "0000000004236048 t score\n", 0, 0, ""},
        {"hexadecimal", "1f score\n0x10 main\n", 0, 0, ""},
        {"signs and points", "-5 a\n+5 b\n1.5 c\n1e3 d\n", 0, 0, ""},
        {"too large", "99999999999 a\n999999999999999999999999 b\n", 0, 0, ""},
        {"other columns", "1 2 3\n1 2 3 4 5\n7\nx y\n", 0, 0, ""},
        {"the same name", "10 a\n5 b\n7 b\n", 2, 22, "b"},
        {"zero", "0 a\n", 0, 0, ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct page_code c;
        struct err e = {0};
        if (code_parse(&c, cases[i].text, strlen(cases[i].text), &e))
            fail_msg("%s: %s", cases[i].name, e.msg);
        if (c.n != cases[i].n || c.bytes != cases[i].bytes ||
            (c.n && strcmp(c.f[0].name, cases[i].first)))
            fail_msg("%s: %zu functions, %g bytes, \"%s\" first", cases[i].name, c.n, c.bytes,
                     c.n ? c.f[0].name : "");
        code_free(&c);
    }
}

static void hostile(void **state)
{
    enum { BIG = 1 << 18 };
    char *text = malloc(BIG);
    size_t n = 0;
    struct page_code c;
    struct err e = {0};
    uint64_t seed = 2;
    (void)state;
    while (n < BIG - 200)
        n += (size_t)sprintf(text + n, "%d f%zu%.*s\n", (int)util_below(&seed, 1000), n,
                             (int)util_below(&seed, 100),
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_int_equal(code_parse(&c, text, n, &e), ERR_OK);
    double sum = 0;
    for (size_t i = 0; i < c.n; i++) {
        sum += c.f[i].bytes;
        if (strlen(c.f[i].name) >= CODE_NAME || (i && c.f[i].bytes > c.f[i - 1].bytes))
            fail_msg("function %zu is out of order", i);
    }
    assert_true(c.n <= CODE_FUNCTIONS && sum == c.bytes);
    code_free(&c);
    memset(text, ' ', BIG);
    assert_int_equal(code_parse(&c, text, BIG, &e), ERR_OK);
    code_free(&c);
    memset(text, 0, BIG);
    assert_int_equal(code_parse(&c, text, BIG, &e), ERR_OK);
    assert_int_equal(c.n, 0);
    code_free(&c);
    free(text);
    EXPECT("no such file", ERR_INPUT, "none", code_read(&c, util_path("none"), &e), e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists), cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
