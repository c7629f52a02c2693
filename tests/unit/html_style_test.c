/*
 * html_style_test - guards against letters that some readers cannot tell from what is behind them:
 * every pair of colours that the pages put on each other has a contrast of at least 4.5 (WCAG 2.1,
 * 1.4.3), light and dark. And against a style sheet that could end its element or load something.
 */
#include <math.h>

#include "tests/unit/util.h"
#include "verify/html_style.h"

static char style[1 << 15];

static int setup(void **state)
{
    (void)state;
    for (const char *const *s = html_style; *s; s++)
        strcat(style, *s);
    return 0;
}

/* The value of --NAME at or behind `from`, as 0xRRGGBB. */
static unsigned colour(const char *from, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "--%s:#", name);
    const char *at = strstr(from, key);
    if (!at)
        fail_msg("no colour %s", name);
    at += strlen(key);
    unsigned long v = strtoul(at, NULL, 16);
    if (strspn(at, "0123456789abcdef") == 3)
        v = (v >> 8) * 0x110000 + (v >> 4 & 15) * 0x1100 + (v & 15) * 0x11;
    return (unsigned)v;
}

static double luminance(unsigned rgb)
{
    static const double weight[3] = {0.0722, 0.7152, 0.2126};
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        double c = (rgb >> 8 * i & 255) / 255.0;
        sum += weight[i] * (c <= 0.03928 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static void contrast(void **state)
{
    static const char *const pair[][2] = {
        {"ink", "bg"},   {"ink", "card"}, {"dim", "bg"},    {"dim", "card"},  {"c1", "card"},
        {"c2", "card"},  {"c2", "band"},  {"ok", "okbg"},   {"bad", "badbg"}, {"ok", "card"},
        {"bad", "card"}, {"ink", "okbg"}, {"ink", "badbg"}, {"rt", "r0"},     {"rt", "r1"},
        {"rt", "r2"},    {"rt", "r3"},    {"rt", "r4"},     {"rt", "r5"},     {"klo", "h0"},
        {"klo", "h1"},   {"klo", "h2"},   {"klo", "h3"},    {"kmid", "h4"},   {"khi", "h5"},
        {"khi", "h6"},   {"khi", "h7"},
    };
    const char *dark = strstr(style, "prefers-color-scheme:dark");
    (void)state;
    assert_non_null(dark);
    for (int scheme = 0; scheme < 2; scheme++)
        for (size_t i = 0; i < COUNT(pair); i++) {
            double a = luminance(colour(scheme ? dark : style, pair[i][0]));
            double b = luminance(colour(scheme ? dark : style, pair[i][1]));
            double c = (fmax(a, b) + 0.05) / (fmin(a, b) + 0.05);
            if (c < 4.5)
                fail_msg("%s, %s on %s: %.2f", scheme ? "dark" : "light", pair[i][0], pair[i][1],
                         c);
        }
}

static void contained(void **state)
{
    static const char *const never[] = {"<", "&", "url(", "@import", "expression", "http"};
    size_t open = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(never); i++)
        if (strstr(style, never[i]))
            fail_msg("has %s", never[i]);
    for (const char *s = style; *s; s++) {
        open += *s == '{';
        if (*s == '}' && !open--)
            fail_msg("closes too much: %.40s", s);
    }
    assert_int_equal(open, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(contrast), cmocka_unit_test(contained)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
