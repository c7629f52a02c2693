/*
 * text_test - guards against numbers that read one way and print another: the runner has no stdio,
 * so a recipe's decimals and the result line are the project's own code. A digit lost here is a
 * claim that cannot be confirmed. Also: texts that do not fit, and err_set's formatter against
 * printf.
 */
#include <math.h>

#include "model/number.h"
#include "model/text.h"
#include "tests/unit/util.h"

/* ---- number_parse ---- */

static void numbers_that_are_read(void **state)
{
    static const char *const text[] = {"0",
                                       "1",
                                       "-1",
                                       "+7",
                                       "0.5",
                                       ".5",
                                       "5.",
                                       "-0",
                                       "00012",
                                       "1e0",
                                       "1E5",
                                       "1e+5",
                                       "1e-5",
                                       "0.005",
                                       "1.1920929e-7",
                                       "1e22",
                                       "1e-22",
                                       "-1.5e-3",
                                       "123456789012345",
                                       "0.123456789012345",
                                       "99999999999999.9",
                                       "123456789012345e22",
                                       "1.00000000000000",
                                       "0.0000000000000000000001",
                                       "10000",
                                       "600",
                                       "3.14159265358979",
                                       "2.5e-20",
                                       "999999999999999",
                                       "100e22",
                                       "1e24",
                                       "1e36",
                                       "10e-22"};
    (void)state;
    for (size_t i = 0; i < COUNT(text); i++) {
        double v = NAN, want = strtod(text[i], NULL);
        if (!number_parse(text[i], &v) || v != want || !signbit(v) != !signbit(want))
            fail_msg("%s: read as %.17g", text[i], v);
    }
}

static void numbers_that_are_refused(void **state)
{
    static const char *const text[] = {"",
                                       "-",
                                       "+",
                                       ".",
                                       "e5",
                                       "1e",
                                       "1e+",
                                       "1e-",
                                       "--1",
                                       "+-1",
                                       "1-",
                                       " 1",
                                       "1 ",
                                       "1.2.3",
                                       "0x10",
                                       "inf",
                                       "nan",
                                       "NaN",
                                       "1e5.0",
                                       "1,5",
                                       "1_000",
                                       "12a",
                                       "1234567890123456",
                                       "0.1234567890123456",
                                       "1e37",
                                       "12e36",
                                       "1e-23",
                                       "1e400",
                                       "1e-400",
                                       "1e99999999999999999999",
                                       "1e-99999999999999999999",
                                       "1d5",
                                       "1e5f",
                                       "\xef\xbc\x91"};
    (void)state;
    for (size_t i = 0; i < COUNT(text); i++) {
        double v;
        if (number_parse(text[i], &v))
            fail_msg("\"%s\": read as %.17g", text[i], v);
    }
}

/* Every form that the header promises, at random, against the C library, which rounds correctly. */
static void numbers_at_random(void **state)
{
    uint64_t s = 1;
    size_t read = 0;
    (void)state;
    for (size_t i = 0; i < 200000; i++) {
        char digits[32], text[64];
        size_t n = 1 + util_below(&s, 15), point = util_below(&s, n + 1);
        int e = (int)util_below(&s, 60) - 30;
        double v, want;
        for (size_t d = 0; d < n; d++)
            digits[d] = (char)('0' + util_below(&s, 10));
        digits[n] = 0;
        snprintf(text, sizeof text, "%s%.*s%s%se%d", i & 1 ? "-" : "", (int)point, digits,
                 point < n ? "." : "", digits + point, e);
        want = strtod(text, NULL);
        if (!number_parse(text, &v)) {
            int exp = e - (int)(n - point);
            if (exp >= -22 && exp <= 22)
                fail_msg("%s: refused", text);
            continue;
        }
        read++;
        if (memcmp(&v, &want, sizeof v))
            fail_msg("%s: read as %.17g, strtod says %.17g", text, v, want);
    }
    assert_true(read > 100000);
}

/* ---- text_fixed8 ---- */

static const char *fixed8(double v)
{
    static char buf[64];
    struct text t = {buf, 0, sizeof buf};
    text_fixed8(&t, v);
    return buf;
}

static void fixed8_cases(void **state)
{
    static const struct {
        double v;
        const char *want;
    } cases[] = {
        {0, "0.00000000"},
        {-0.0, "0.00000000"},
        {1, "1.00000000"},
        {2.5147, "2.51470000"},
        {1.0897, "1.08970000"},
        {0.00000001, "0.00000001"},
        {0.000000001, "0.00000000"},
        {0.99999999, "0.99999999"},
        {0.999999999, "1.00000000"},
        {9.999999999, "10.00000000"},
        {0x1p-9, "0.00195312"},     /* 195312.5: half, to even */
        {3 * 0x1p-9, "0.00585938"}, /* 585937.5: half, to even */
        {9999999999.0, "9999999999.00000000"},
        {1e10, "nan"},
        {-1e-9, "nan"},
        {-1, "nan"},
        {INFINITY, "nan"},
        {-INFINITY, "nan"},
        {NAN, "nan"},
        {5e-324, "0.00000000"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        if (strcmp(fixed8(cases[i].v), cases[i].want))
            fail_msg("%.17g: %s, expected %s", cases[i].v, fixed8(cases[i].v), cases[i].want);
}

/* printf rounds the exact value, text_fixed8 the product with 1e8, which is itself rounded. They
 * may differ only where the product is within its own rounding error of a half. */
static void fixed8_against_printf(void **state)
{
    uint64_t s = 2;
    size_t differ = 0; /* of the values that results have */
    (void)state;
    for (size_t i = 0; i < 300000; i++) {
        double size = i % 3 == 0 ? 10 : i % 3 == 1 ? 1e-3 : 1e6;
        double v = fabs(util_uniform(&s)) * size;
        char want[64];
        snprintf(want, sizeof want, "%.8f", v);
        if (strcmp(fixed8(v), want)) {
            double p = v * 1e8, part = p - floor(p);
            differ += size <= 10;
            if (fabs(part - 0.5) > p * 0x1p-52)
                fail_msg("%.17g: %s, printf says %s", v, fixed8(v), want);
        }
    }
    assert_true(differ < 10);
}

/* ---- struct text ---- */

static void nothing_is_written_behind_the_end(void **state)
{
    (void)state;
    for (size_t cap = 1; cap < 40; cap++) {
        struct guarded g = guarded_new(NULL, cap);
        struct text t = {(char *)g.p, 0, cap};
        char whole[64];
        text_str(&t, "tokens:");
        text_u64(&t, UINT64_MAX);
        text_char(&t, ' ');
        text_fixed8(&t, 1.5);
        snprintf(whole, sizeof whole, "tokens:%llu %.8f", (unsigned long long)UINT64_MAX, 1.5);
        whole[cap - 1 < sizeof whole - 1 ? cap - 1 : sizeof whole - 1] = 0;
        if (strcmp(t.buf, whole) || t.n != strlen(whole))
            fail_msg("cap %zu: \"%s\", expected \"%s\"", cap, t.buf, whole);
        guarded_free(&g);
    }
}

static void __attribute__((format(printf, 1, 2))) same_as_printf(const char *fmt, ...)
{
    char got[256], want[256];
    struct text t = {got, 0, sizeof got};
    va_list ap;
    va_start(ap, fmt);
    text_format(&t, fmt, ap);
    va_end(ap);
    va_start(ap, fmt);
    vsnprintf(want, sizeof want, fmt, ap);
    va_end(ap);
    if (strcmp(got, want))
        fail_msg("%s: \"%s\", printf says \"%s\"", fmt, got, want);
}

static void formats(void **state)
{
    (void)state;
    same_as_printf("%s", "plain");
    same_as_printf("%s: token %zu is %u, the vocabulary has %zu", "a.bin", (size_t)7, 5u, SIZE_MAX);
    same_as_printf("%d %d %d %d", 0, -1, INT32_MAX, INT32_MIN);
    same_as_printf("%u", UINT32_MAX);
    same_as_printf("%zu", SIZE_MAX);
    same_as_printf("%llu", UINT64_MAX + 0ull);
    same_as_printf("%lld %lld", INT64_MAX + 0ll, INT64_MIN + 0ll);
    same_as_printf("%c%c|%s|", 'a', 'z', "");
    same_as_printf("100%% of %s", "it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_are_read),
        cmocka_unit_test(numbers_that_are_refused),
        cmocka_unit_test(numbers_at_random),
        cmocka_unit_test(fixed8_cases),
        cmocka_unit_test(fixed8_against_printf),
        cmocka_unit_test(nothing_is_written_behind_the_end),
        cmocka_unit_test(formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
