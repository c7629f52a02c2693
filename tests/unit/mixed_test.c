/*
 * mixed_test.c - exists for a matrix that loses its bit because a tie fell the other way: q, k and
 * v of a block have the same trace to the last bit.
 */
#include "tests/unit/util.h"
#include "trainer/mixed.h"

static const struct {
    const char *name;
    size_t n, keep;
    double sensitivity[8];
    const char *fewer; /* one letter per matrix: x loses a bit */
} cases[] = {
    {"none at all", 0, 3, {0}, ""},
    {"all stay", 4, 4, {1, 2, 3, 4}, "...."},
    {"more than there are", 2, 60, {1, 2}, ".."},
    {"none stays", 3, 0, {1, 2, 3}, "xxx"},
    {"the largest stay", 5, 2, {5, 1, 4, 2, 3}, ".x.xx"},
    {"the first of equals stays", 6, 4, {7, 7, 7, 7, 7, 7}, "....xx"},
    {"ties inside a block", 8, 5, {9, 9, 9, 2, 9, 9, 9, 1}, "...x..xx"},
    {"zeros", 3, 1, {0, 0, 1}, "xx."},
};

static void test_choice(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        bool fewer[8];
        mixed_choose(fewer, cases[c].sensitivity, cases[c].n, cases[c].keep);
        for (size_t i = 0; i < cases[c].n; i++)
            if (fewer[i] != (cases[c].fewer[i] == 'x'))
                fail_msg("%s: matrix %zu: %s", cases[c].name, i, fewer[i] ? "int5" : "int6");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
