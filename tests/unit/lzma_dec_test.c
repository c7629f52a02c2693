/*
 * lzma_dec_test - guards against a decoder that writes or reads a byte too far, and against one
 * that disagrees with liblzma. What it decodes is a program that will be run.
 */
#include <lzma.h>

#include "model/reader.h"
#include "packer/codec.h"
#include "stub/lzma_dec.h"
#include "tests/unit/util.h"

static struct lzma work;

/* Kinds of content that exercise different symbols: literals, repetitions, far matches, long runs.
 */
enum content { ZEROS, NOISE, TEXT, FEW, FAR, CODE, CONTENTS };
static const char *const content_name[] = {"zeros", "noise", "text", "few", "far", "code"};

static void fill(uint8_t *p, size_t n, enum content c)
{
    static const char text[] = "a wing, a wind, a winding way to win; ";
    static const uint8_t code[] = {0xE8, 0xE9, 0x00, 0xFF, 0xE8, 0x10, 0x8B, 0x0F};
    uint64_t seed = n + c;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = util_next(&seed);
        p[i] = c == ZEROS   ? 0
               : c == NOISE ? (uint8_t)r
               : c == TEXT  ? (uint8_t)text[(i + (r % 9 == 0)) % (sizeof text - 1)]
               : c == FEW   ? (uint8_t)(r % 3)
               : c == FAR   ? (i < n / 2 ? (uint8_t)r : p[i - n / 2])
                            : code[r % sizeof code];
    }
}

/* A stream as liblzma writes it, its end marker and all. */
static size_t encode(uint8_t *out, size_t cap, const uint8_t *raw, size_t n, uint32_t lc,
                     uint32_t lp, uint32_t pb)
{
    lzma_options_lzma o;
    lzma_filter f[2] = {{LZMA_FILTER_LZMA1, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    size_t size = 0;
    lzma_lzma_preset(&o, 6);
    o.lc = lc;
    o.lp = lp;
    o.pb = pb;
    o.dict_size = 1 << 20;
    if (lzma_raw_buffer_encode(f, NULL, raw, n, out, &size, cap) != LZMA_OK)
        abort();
    return size;
}

static void as_liblzma(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 17, 273, 274, 1000, 70001};
    uint8_t *raw = malloc(70001), *in = malloc(100000);
    (void)state;
    for (size_t k = 0; k < COUNT(sizes); k++)
        for (enum content c = 0; c < CONTENTS; c++)
            for (uint32_t lc = 0; lc <= 4; lc++)
                for (uint32_t lp = 0; lc + lp <= 4; lp += 2)
                    for (uint32_t pb = 0; pb <= 4; pb += 2) {
                        size_t n = sizes[k];
                        if (n > 1000 && (lc + lp + pb) % 3)
                            continue;
                        fill(raw, n, c);
                        size_t size = encode(in, 100000, raw, n, lc, lp, pb);
                        struct guarded g = guarded_new(NULL, n), i = guarded_new(in, size);
                        uint32_t props = lc | lp << 8 | pb << 16;
                        size_t used = lzma_dec(&work, g.p, n, i.p, size, props);
                        if (used > size || memcmp(g.p, raw, n))
                            fail_msg("%zu bytes of %s, lc %u lp %u pb %u: used %zu of %zu", n,
                                     content_name[c], lc, lp, pb, used, size);
                        /* Cut after what was used it is complete; a byte less is noticed. */
                        assert_int_equal(lzma_dec(&work, g.p, n, i.p, used, props), used);
                        assert_int_not_equal(lzma_dec(&work, g.p, n, i.p, used - 1, props),
                                             used - 1);
                        guarded_free(&g);
                        guarded_free(&i);
                    }
    free(raw);
    free(in);
}

/* Cut anywhere: never taken for complete. Any bit flipped: whatever comes out, it stays inside. */
static void damaged(void **state)
{
    enum { N = 600 };
    uint8_t raw[N], in[2 * N];
    (void)state;
    for (enum content c = 0; c < CONTENTS; c++) {
        fill(raw, N, c);
        size_t size = encode(in, sizeof in, raw, N, 3, 0, 2);
        struct guarded out = guarded_new(NULL, N), i = guarded_new(in, size);
        size_t used = lzma_dec(&work, out.p, N, i.p, size, 3 | 2 << 16);
        for (size_t n = 0; n < used; n++) {
            struct guarded cut = guarded_new(in, n);
            if (lzma_dec(&work, out.p, N, cut.p, n, 3 | 2 << 16) == n)
                fail_msg("%s cut to %zu of %zu bytes", content_name[c], n, used);
            guarded_free(&cut);
        }
        for (size_t at = 0; at < 8 * size; at++) {
            i.p[at / 8] ^= (uint8_t)(1 << at % 8);
            lzma_dec(&work, out.p, N, i.p, size, 3 | 2 << 16);
            i.p[at / 8] ^= (uint8_t)(1 << at % 8);
        }
        guarded_free(&out);
        guarded_free(&i);
    }
}

/* Noise as input, with every lc, lp, pb that fits a byte in turn, good or not. */
static void noise(void **state)
{
    uint64_t seed = 7;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t n = util_below(&seed, 400), size = util_below(&seed, 60);
        struct guarded out = guarded_new(NULL, n), in = guarded_new(NULL, size);
        fill(in.p, size, NOISE);
        if (round % 2 && size > 1)
            in.p[1] = 0xFF; /* a first symbol that is a match */
        size_t used = lzma_dec(&work, out.p, n, in.p, size, (uint32_t)util_next(&seed));
        if (n && used == 0)
            fail_msg("round %d: nothing used", round);
        guarded_free(&out);
        guarded_free(&in);
    }
}

/* coded_lzma checks the way back itself; here the filter must also help, and survive its edges. */
static void x86_filter(void **state)
{
    uint8_t *raw = malloc(30000);
    struct err e = {0};
    (void)state;
    for (size_t n = 1; n < 40; n++) {
        struct coded c;
        fill(raw, n, CODE);
        EXPECT("edges", ERR_OK, "", coded_lzma(&c, raw, n, LZMA_QUICK, true, &e), e);
        coded_free(&c);
    }
    /* Calls of four functions from everywhere: with absolute targets they all look alike. */
    uint64_t seed = 3;
    for (size_t i = 0; i + 10 <= 30000; i += 10) {
        memcpy(raw + i, "\x48\x89\xC7\xE8....\x90\x90", 10);
        uint32_t target = 1000 * (uint32_t)util_below(&seed, 4);
        put_le32(raw + i + 4, target - (uint32_t)(i + 8));
    }
    struct coded with, without;
    EXPECT("with", ERR_OK, "", coded_lzma(&with, raw, 30000, LZMA_QUICK, true, &e), e);
    EXPECT("without", ERR_OK, "", coded_lzma(&without, raw, 30000, LZMA_QUICK, false, &e), e);
    assert_int_equal(with.params[PARAM_FILTER], FILTER_X86);
    print_message("calls: %zu bytes with the filter, %zu without\n", with.size, without.size);
    assert_true(4 * with.size < 3 * without.size);
    coded_free(&with);
    coded_free(&without);
    free(raw);
}

/* Undoing touches nothing outside, whatever the bytes: all lengths, at the end of the world. */
static void x86_anything(void **state)
{
    (void)state;
    for (size_t n = 0; n < 64; n++)
        for (enum content c = NOISE; c < CONTENTS; c++) {
            struct guarded g = guarded_new(NULL, n);
            fill(g.p, n, c);
            x86_undo(g.p, n);
            guarded_free(&g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_liblzma), cmocka_unit_test(damaged),      cmocka_unit_test(noise),
        cmocka_unit_test(x86_filter), cmocka_unit_test(x86_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
