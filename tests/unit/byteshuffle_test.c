/*
 * byteshuffle_test.c - exists for a byte that ends up in the neighbour's plane when the length is
 * no multiple of the stride, which compresses just as well and decodes to a different model.
 */
#include "packer/byteshuffle.h"
#include "tests/unit/util.h"

/* By the definition: byte j of plane p is input byte p + j*stride. */
static void twin(uint8_t *out, const uint8_t *in, size_t n, size_t stride)
{
    size_t at = BYTESHUFFLE_HEADER;
    memcpy(out, "BSHF", 4);
    out[4] = (uint8_t)stride;
    for (size_t p = 0; p < stride; p++) {
        size_t len = n / stride + (p < n % stride);
        for (size_t j = 0; j < len; j++)
            out[at + j] = in[p + j * stride];
        at += len;
    }
}

static void there_and_back(void **state)
{
    static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 7, 8, 254, 255, 256, 257, 1000, 4099};
    static const unsigned strides[] = {2, 3, 4, 7, 8, 255};
    uint8_t want[4200];
    (void)state;
    for (size_t l = 0; l < COUNT(lengths); l++)
        for (size_t s = 0; s < COUNT(strides); s++) {
            size_t n = lengths[l], size = byteshuffle_size(n, strides[s]);
            struct guarded in = guarded_new(NULL, n), out = guarded_new(NULL, size);
            struct guarded back = guarded_new(NULL, n);
            for (size_t i = 0; i < n; i++)
                in.p[i] = (uint8_t)(i % 251); /* prime: swapped blocks are noticed */
            byteshuffle(out.p, in.p, n, strides[s]);
            if (n < strides[s]) {
                assert_int_equal(size, n);
                assert_memory_equal(out.p, in.p, n);
            } else {
                twin(want, in.p, n, strides[s]);
                if (size != n + BYTESHUFFLE_HEADER || memcmp(out.p, want, size) ||
                    !byteshuffle_is(out.p, size))
                    fail_msg("%zu bytes, stride %u: not as defined", n, strides[s]);
                byteunshuffle(back.p, out.p, size);
                if (memcmp(back.p, in.p, n))
                    fail_msg("%zu bytes, stride %u: not the same afterwards", n, strides[s]);
            }
            guarded_free(&in);
            guarded_free(&out);
            guarded_free(&back);
        }
}

static void recognises(void **state)
{
    static const struct {
        const char *name, *data;
        size_t n;
        bool is;
    } cases[] = {
        {"nothing", "", 0, false},           {"magic alone", "BSHF", 4, false},
        {"empty", "BSHF\2", 5, true},        {"stride 0", "BSHF\0abc", 8, false},
        {"stride 1", "BSHF\1abc", 8, false}, {"another magic", "BSHG\2abc", 8, false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        if (byteshuffle_is((const uint8_t *)cases[i].data, cases[i].n) != cases[i].is)
            fail_msg("%s", cases[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back),
                                       cmocka_unit_test(recognises)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
