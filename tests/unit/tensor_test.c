/*
 * tensor_test - guards against weights that change in storage: a rounding rule of fp16 or bf16 that
 * is off for one value in a million would make a packed model another model. Every fp16 value is
 * tried, and the rounding of fp32 against a slow definition that knows no bit tricks.
 */
#include <math.h>

#include "model/tensor.h"
#include "tests/unit/util.h"

/* ---- slow definitions ---- */

/* A value of `frac` fraction bits and exponents lo.. (subnormals below), as text books write it. */
static double slow_value(unsigned bits, int frac, int exp_bits)
{
    int bias = (1 << (exp_bits - 1)) - 1, exp = (int)(bits >> frac) & ((1 << exp_bits) - 1);
    double m = (double)(bits & ((1u << frac) - 1)) / (1 << frac), v;
    if (exp == (1 << exp_bits) - 1)
        v = m != 0 ? NAN : INFINITY;
    else
        v = exp ? ldexp(1 + m, exp - bias) : ldexp(m, 1 - bias);
    return bits >> (frac + exp_bits) ? -v : v;
}

/* Nearest of two neighbours, ties to the even one, by search in the table of all positive values;
 * the first value too large to exist counts as infinity. */
static unsigned slow_round(double x, int frac, int exp_bits)
{
    unsigned top = ((1u << exp_bits) - 1) << frac, lo = 0, hi = top;
    double a = fabs(x), down, up;
    unsigned sign = signbit(x) ? 1u << (frac + exp_bits) : 0;
    while (hi - lo > 1) { /* value(lo) <= a < value(hi) */
        unsigned mid = (lo + hi) / 2;
        if (slow_value(mid, frac, exp_bits) <= a)
            lo = mid;
        else
            hi = mid;
    }
    down = a - slow_value(lo, frac, exp_bits);
    up = (hi == top
              ? slow_value(top - 1, frac, exp_bits) + ldexp(1, (1 << (exp_bits - 1)) - 1 - frac)
              : slow_value(hi, frac, exp_bits)) -
         a;
    return sign | (down < up || (down == up && !(lo & 1)) ? lo : hi);
}

/* ---- exhaustive ---- */

static void every_half_and_back(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        double want = slow_value(h, 10, 5);
        if (isnan(want) ? !isnan(f) : (double)f != want || !signbit(f) != !signbit(want))
            fail_msg("fp16 %04x: %g, expected %g", h, (double)f, want);
        uint16_t back = f32_to_f16(f);
        if (isnan(want) ? !isnan(f16_to_f32(back)) || (back ^ h) & 0x8000 : back != h)
            fail_msg("fp16 %04x: comes back as %04x", h, back);
    }
}

static void every_bfloat_and_back(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        double want = slow_value(h, 7, 8);
        if (isnan(want) ? !isnan(f) : (double)f != want || !signbit(f) != !signbit(want))
            fail_msg("bf16 %04x: %g, expected %g", h, (double)f, want);
        uint16_t back = f32_to_bf16(f);
        if (isnan(want) ? !isnan(bf16_to_f32(back)) || (back ^ h) & 0x8000 : back != h)
            fail_msg("bf16 %04x: comes back as %04x", h, back);
    }
}

/* ---- rounding ---- */

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void check_rounding(uint32_t u)
{
    float f = from_bits(u);
    if (isnan(f)) {
        if (!isnan(f16_to_f32(f32_to_f16(f))) || !isnan(bf16_to_f32(f32_to_bf16(f))))
            fail_msg("NaN %08x did not stay one", u);
        return;
    }
    unsigned half = isinf(f) ? 0x7c00u | (u >> 16 & 0x8000) : slow_round((double)f, 10, 5);
    unsigned bf = isinf(f) ? u >> 16 : slow_round((double)f, 7, 8);
    if (f32_to_f16(f) != half)
        fail_msg("%08x (%.9g): fp16 %04x, expected %04x", u, (double)f, f32_to_f16(f), half);
    if (f32_to_bf16(f) != bf)
        fail_msg("%08x (%.9g): bf16 %04x, expected %04x", u, (double)f, f32_to_bf16(f), bf);
}

/* Around every fp16 value, around every midpoint of two, and around the same in bf16. */
static void rounding_at_every_border(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        float f = f16_to_f32((uint16_t)h);
        float mid = (float)((slow_value(h, 10, 5) + slow_value(h + 1, 10, 5)) / 2);
        uint32_t at, between;
        memcpy(&at, &f, sizeof at);
        memcpy(&between, h == 0x7bff ? &(float){65520} : &mid, sizeof between);
        for (uint32_t d = 0; d < 3; d++) {
            check_rounding(at + d - (at ? 1 : 0));
            check_rounding(between + d - 1);
            check_rounding((between + d - 1) | 0x80000000);
        }
    }
    for (uint32_t h = 0; h < 0x7f80; h += 7)
        for (uint32_t d = 0; d < 3; d++) {
            check_rounding((h << 16 | 0x8000) + d - 1);
            check_rounding((h << 16 | 0x8000) + d - 1 + 0x80000000);
        }
}

static void rounding_at_random(void **state)
{
    uint64_t s = 4;
    (void)state;
    for (size_t i = 0; i < 200000; i++)
        check_rounding((uint32_t)util_next(&s));
    for (size_t i = 0; i < 200000; i++) { /* the sizes that weights have */
        float f = (float)(util_uniform(&s) * pow(2, (double)util_below(&s, 40) - 30));
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        check_rounding(u);
    }
}

static void named_values(void **state)
{
    static const struct {
        const char *name;
        uint32_t f;
        uint16_t half, bf;
    } cases[] = {
        {"zero", 0, 0, 0},
        {"minus zero", 0x80000000, 0x8000, 0x8000},
        {"one", 0x3f800000, 0x3c00, 0x3f80},
        {"largest fp16", 0x477fe000, 0x7bff, 0x4780},
        {"just below the overflow of fp16", 0x477fefff, 0x7bff, 0x4780},
        {"first overflow of fp16", 0x477ff000, 0x7c00, 0x4780},
        {"smallest normal fp16", 0x38800000, 0x0400, 0x3880},
        {"largest subnormal fp16", 0x387fc000, 0x03ff, 0x3880},
        {"between the two, to even", 0x387fe000, 0x0400, 0x3880},
        {"smallest subnormal fp16", 0x33800000, 0x0001, 0x3380},
        {"half of it, to even", 0x33000000, 0, 0x3300},
        {"above half of it", 0x33000001, 1, 0x3300},
        {"smallest fp32", 0x00000001, 0, 0},
        {"largest fp32", 0x7f7fffff, 0x7c00, 0x7f80},
        {"infinity", 0x7f800000, 0x7c00, 0x7f80},
        {"minus infinity", 0xff800000, 0xfc00, 0xff80},
        {"tie to even, down", 0x3f801000, 0x3c00, 0x3f80},
        {"tie to even, up", 0x3f803000, 0x3c02, 0x3f80},
        {"bf16 tie, down", 0x3f808000, 0x3c04, 0x3f80},
        {"bf16 tie, up", 0x3f818000, 0x3c0c, 0x3f82},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        float f = from_bits(cases[i].f);
        if (f32_to_f16(f) != cases[i].half || f32_to_bf16(f) != cases[i].bf)
            fail_msg("%s: fp16 %04x, bf16 %04x", cases[i].name, f32_to_f16(f), f32_to_bf16(f));
    }
}

/* ---- views ---- */

static void sizes_and_names(void **state)
{
    static const size_t size[ST_DTYPES] = {4, 2, 2, 1, 1, 2, 2, 4, 8, 8, 1};
    static const struct tensor_view t[] = {
        {.name = "a", .ndim = 0},
        {.name = "b.weight", .ndim = 2, .shape = {3, 5}},
        {.name = "b", .ndim = 3, .shape = {3, 0, 5}},
    };
    (void)state;
    for (int d = 0; d < ST_DTYPES; d++)
        assert_int_equal(st_dtype_size((enum st_dtype)d), size[d]);
    assert_int_equal(st_dtype_size((enum st_dtype)11), 0);
    assert_int_equal(tensor_elems(&t[0]), 1);
    assert_int_equal(tensor_elems(&t[1]), 15);
    assert_int_equal(tensor_elems(&t[2]), 0);
    assert_ptr_equal(tensor_find(t, 3, "b"), &t[2]);
    assert_ptr_equal(tensor_find(t, 3, "b.weight"), &t[1]);
    assert_null(tensor_find(t, 3, "b.w"));
    assert_null(tensor_find(t, 0, "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_and_back),
        cmocka_unit_test(every_bfloat_and_back),
        cmocka_unit_test(rounding_at_every_border),
        cmocka_unit_test(rounding_at_random),
        cmocka_unit_test(named_values),
        cmocka_unit_test(sizes_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
