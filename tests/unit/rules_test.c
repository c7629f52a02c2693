/*
 * rules_test - guards against a check that names a rule which docs/rules.md does not have, a
 * finding without a rule, and a table there that says something else than the program.
 */
#include <glob.h>

#include "tests/unit/util.h"
#include "verify/record_code.h"

static char *doc; /* docs/rules.md; the tests run in the project's folder */

static bool defined(const char *rule, size_t n)
{
    char row[64];
    snprintf(row, sizeof row, "\n| `%.*s` | ", (int)n, rule);
    return strstr(doc, row);
}

static void findings(void **state)
{
    (void)state;
    for (size_t i = 0; i < RECORD_CODE_COUNT; i++) {
        const char *code = record_code_info[i].code, *rule = record_code_info[i].rule;
        char row[128] = "\n| ", cell[64];
        size_t n = 3;
        if (!*rule)
            fail_msg("%s: no rule", code);
        /* Names in backquotes; "R-C1 to R-C4" has two. */
        for (const char *p = rule; *p;) {
            size_t len = strcspn(p, " ");
            bool is = p[1] == '-';
            if (is && !defined(p, len))
                fail_msg("%s: rule \"%s\"", code, rule);
            n += (size_t)snprintf(row + n, sizeof row - n, is ? "`%.*s` " : "%.*s ", (int)len, p);
            p += len + (p[len] == ' ');
        }
        snprintf(row + n, sizeof row - n, "| ");
        snprintf(cell, sizeof cell, "`%s`", code);
        /* The table of codes is the last one of the page. */
        const char *at = strstr(strstr(doc, "| rule | codes |"), row);
        const char *end = at ? strchr(at + 1, '\n') : NULL, *found = at ? strstr(at, cell) : NULL;
        if (!found || (end && found > end))
            fail_msg("%s is not under %s in docs/rules.md", code, rule);
    }
}

/* Every [R-...] and [F-...] and every "R-..." that a program can print. */
static void printed(void **state)
{
    static const char *const where[] = {"verify/*.c", "packer/submit*.c", "packer/cmd_submit.c"};
    size_t names = 0;
    (void)state;
    for (size_t w = 0; w < COUNT(where); w++) {
        glob_t g;
        assert_int_equal(glob(where[w], 0, NULL, &g), 0);
        for (size_t i = 0; i < g.gl_pathc; i++) {
            size_t n;
            char *text = (char *)util_slurp(g.gl_pathv[i], &n);
            for (const char *p = text; (p = strpbrk(p, "[\"")); p++) {
                if ((p[1] != 'R' && p[1] != 'F') || p[2] != '-')
                    continue;
                size_t len = strspn(p + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
                if (p[1 + len] != ']' && p[1 + len] != '"')
                    continue;
                names++;
                if (!defined(p + 1, len))
                    fail_msg("%s: %.*s is not in docs/rules.md", g.gl_pathv[i], (int)len, p + 1);
            }
            free(text);
        }
        globfree(&g);
    }
    assert_true(names > 30);
}

static int setup(void **state)
{
    size_t n;
    (void)state;
    doc = (char *)util_slurp("docs/rules.md", &n);
    if (!doc)
        printf("docs/rules.md: not here; run this in the project's folder\n");
    return doc ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(doc);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(findings),
        cmocka_unit_test(printed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
