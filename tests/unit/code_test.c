/*
 * code_test - guards against the loader's decoder (code_dec.S) doing anything else than the one
 * that verify uses (code_dec.c), and against either touching a byte that is not its own. What they
 * decode is a program that will be run.
 */
#include "packer/code.h"
#include "stub/code_dec.h"
#include "tests/unit/util.h"

__asm__(".include \"stub/code_dec.S\"");

/* Kinds of content: what the model likes, what it cannot know, what tempts its parser. */
enum content { ZEROS, NOISE, TEXT, CODE, CALLS, PREFIXES, CONTENTS };
static const char *const content_name[] = {"zeros", "noise", "text", "code", "calls", "prefixes"};

static void fill(uint8_t *p, size_t n, enum content c)
{
    static const char text[] = "a wing, a wind, a winding way to win; ";
    /* push; mov; sub; lea with SIB; VEX and EVEX additions; TEST with immediate; jump; ret */
    static const uint8_t code[] = {0x55, 0x48, 0x89, 0xE5, 0x48, 0x81, 0xEC, 0x10, 0x01, 0x00, 0x00,
                                   0x8D, 0x44, 0x8B, 0x08, 0xC5, 0xFC, 0x58, 0xC1, 0xC4, 0xE2, 0x75,
                                   0xB8, 0xC2, 0x62, 0xF1, 0x74, 0x48, 0x58, 0xC2, 0xF7, 0xC1, 0x00,
                                   0x01, 0x00, 0x00, 0x0F, 0x84, 0x20, 0x00, 0x00, 0x00, 0xC3};
    static const uint8_t call[] = {0xE8, 0x05, 0xFF, 0xFF, 0xFF, 0x90,
                                   0xE9, 0x40, 0x00, 0x00, 0x00};
    static const uint8_t prefix[] = {0x66, 0xF2, 0x48, 0x0F, 0xC5, 0xC4, 0x62, 0xE8, 0x04, 0x25};
    uint64_t seed = n + c;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = util_next(&seed);
        p[i] = c == ZEROS   ? 0
               : c == NOISE ? (uint8_t)r
               : c == TEXT  ? (uint8_t)text[(i + (r % 9 == 0)) % (sizeof text - 1)]
               : c == CODE  ? (uint8_t)(code[i % sizeof code] ^ (r % 50 == 0))
               : c == CALLS ? call[i % sizeof call]
                            : prefix[r % sizeof prefix];
    }
}

/* Decode with both; fails where they differ. Returns what they return. */
static ptrdiff_t both(const char *name, const struct guarded *out, size_t n, const uint8_t *in,
                      size_t in_n)
{
    static uint8_t second[1 << 17];
    void *work = calloc(1, CODE_WORK), *work2 = calloc(1, CODE_WORK);
    assert_true(work && work2 && n <= sizeof second);
    ptrdiff_t r = code_dec(work, out->p, n, in, in_n);
    memcpy(second, out->p, n);
    memset(out->p, 0xA5, n);
    ptrdiff_t r2 = code_dec_small(work2, out->p, n, in, in_n);
    if (r != r2 || memcmp(second, out->p, n))
        fail_msg("%s, %zu bytes from %zu: the decoders return %td and %td", name, n, in_n, r, r2);
    free(work);
    free(work2);
    return r;
}

static void round_trip(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 17, 300, 20001};
    uint8_t *raw = malloc(20001);
    (void)state;
    for (size_t k = 0; k < COUNT(sizes); k++)
        for (enum content c = 0; c < CONTENTS; c++) {
            size_t n = sizes[k];
            struct err e = {0};
            struct coded packed;
            fill(raw, n, c);
            if (coded_code(&packed, raw, n, &e))
                fail_msg("%zu bytes of %s: %s", n, content_name[c], e.msg);
            struct guarded out = guarded_new(NULL, n), in = guarded_new(packed.data, packed.size);
            if (both(content_name[c], &out, n, in.p, packed.size) || memcmp(out.p, raw, n))
                fail_msg("%zu bytes of %s do not come back", n, content_name[c]);
            if (c == NOISE && packed.size > n + n / 20 + 8)
                fail_msg("%zu bytes of noise became %zu", n, packed.size);
            if (n == 20001 && c != NOISE && packed.size > 14000)
                fail_msg("%zu bytes of %s became %zu", n, content_name[c], packed.size);
            guarded_free(&out);
            guarded_free(&in);
            coded_free(&packed);
        }
    free(raw);
}

/* Real code: this program's own text, through a model that has filled up. */
static void own_code(void **state)
{
    size_t n = 0;
    struct err e = {0};
    struct coded packed, again;
    uint8_t *raw = util_slurp("/proc/self/exe", &n);
    (void)state;
    assert_non_null(raw);
    n = n < 100000 ? n : 100000;
    assert_int_equal(coded_code(&packed, raw, n, &e), ERR_OK);
    assert_int_equal(coded_code(&again, raw, n, &e), ERR_OK);
    assert_int_equal(packed.size, again.size);
    assert_memory_equal(packed.data, again.data, packed.size);
    struct guarded out = guarded_new(NULL, n);
    assert_int_equal(both("own code", &out, n, packed.data, packed.size), 0);
    assert_memory_equal(out.p, raw, n);
    guarded_free(&out);
    coded_free(&packed);
    coded_free(&again);
    free(raw);
}

/* Cut anywhere: never taken for complete. Longer than needed: noticed. Any bit flipped: whatever
 * comes out, it comes out of both. */
static void damaged(void **state)
{
    enum { N = 40 };
    uint8_t raw[N];
    (void)state;
    for (enum content c = 0; c < CONTENTS; c++) {
        struct err e = {0};
        struct coded packed;
        fill(raw, N, c);
        assert_int_equal(coded_code(&packed, raw, N, &e), ERR_OK);
        struct guarded out = guarded_new(NULL, N), in = guarded_new(packed.data, packed.size);
        for (size_t n = 0; n < packed.size; n++) {
            struct guarded cut = guarded_new(packed.data, n);
            if (both("cut", &out, N, cut.p, n) <= 0)
                fail_msg("%s cut to %zu of %zu bytes", content_name[c], n, packed.size);
            guarded_free(&cut);
        }
        for (size_t at = 0; at < 8 * packed.size; at += 5) {
            in.p[at / 8] ^= (uint8_t)(1 << at % 8);
            both("flipped", &out, N, in.p, packed.size);
            in.p[at / 8] ^= (uint8_t)(1 << at % 8);
        }
        uint8_t longer[2 * N] = {0};
        memcpy(longer, packed.data, packed.size);
        if (both("longer", &out, N, longer, packed.size + 1) != -1)
            fail_msg("%s: a byte too many is not noticed", content_name[c]);
        guarded_free(&out);
        guarded_free(&in);
        coded_free(&packed);
    }
}

/* Noise of every kind as input: the two go astray together, and stay inside. */
static void noise(void **state)
{
    uint64_t seed = 7;
    (void)state;
    for (int round = 0; round < 60; round++) {
        size_t n = 1 + util_below(&seed, 500), size = util_below(&seed, 200);
        struct guarded out = guarded_new(NULL, n), in = guarded_new(NULL, size);
        fill(in.p, size, (enum content)(round % CONTENTS));
        both("noise", &out, n, in.p, size);
        guarded_free(&out);
        guarded_free(&in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(own_code),
        cmocka_unit_test(damaged),
        cmocka_unit_test(noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
