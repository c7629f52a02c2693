/*
 * wrap_test - guards against a report that loses or repeats words where a line is broken for a
 * terminal, and against a line that is broken where it need not be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/wrap.h"

static const struct {
    const char *name, *text;
    size_t width, indent;
    const char *want;
} cases[] = {
    {"no terminal", "one two three four\n", 0, 2, "one two three four\n"},
    {"fits", "one two\n", 7, 2, "one two\n"},
    {"one byte too long", "one two\n", 6, 2, "one\n  two\n"},
    {"twice", "one two three four\n", 9, 2, "one two\n  three\n  four\n"},
    {"the blank falls on the edge", "one two three\n", 7, 2, "one two\n  three\n"},
    {"several blanks", "one   two\n", 5, 1, "one\n two\n"},
    {"a long word", "123456789 two\n", 5, 2, "123456789\n  two\n"},
    {"a long word behind", "a 123456789\n", 5, 2, "a\n  123456789\n"},
    {"indented", "    one two\n", 9, 6, "    one\n      two\n"},
    {"indented, a long word", "    123456789 two\n", 9, 4, "    123456789\n    two\n"},
    {"empty lines", "\n\na b\n", 2, 0, "\n\na\nb\n"},
    {"nothing", "", 5, 2, ""},
    {"no end of line", "one two", 5, 2, "one\n  two\n"},
};

static void lines(void **state)
{
    size_t wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = NULL;
        size_t n = 0;
        FILE *f = open_memstream(&got, &n);
        assert_non_null(f);
        wrap_write(f, cases[i].text, cases[i].width, cases[i].indent);
        fclose(f);
        if (strcmp(got, cases[i].want)) {
            print_message("%s: \"%s\"\n", cases[i].name, got);
            wrong++;
        }
        free(got);
    }
    assert_int_equal(wrong, 0);
}

static void no_terminal(void **state)
{
    FILE *f = tmpfile();
    (void)state;
    assert_non_null(f);
    assert_int_equal(wrap_width(f), 0);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines), cmocka_unit_test(no_terminal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
