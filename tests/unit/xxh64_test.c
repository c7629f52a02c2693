/*
 * xxh64_test - guards against a hash that is ours alone, or the loader's alone: every auditor's
 * xxHash library must agree with both.
 */
#include <xxhash.h>

#include "stub/xxh64.h"
#include "tests/unit/util.h"

__asm__(".include \"stub/xxh64.S\"");

/* All lengths around the steps of 1, 4, 8 and 32 bytes, at all alignments; buffers end at the end.
 */
static void as_the_library(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (size_t n = 0; n <= 300; n++) {
        struct guarded g = guarded_new(NULL, n);
        for (size_t i = 0; i < n; i++)
            g.p[i] = (uint8_t)util_next(&seed);
        for (size_t skip = 0; skip < 9 && skip <= n; skip++) {
            uint64_t want = XXH64(g.p + skip, n - skip, 0);
            if (xxh64(g.p + skip, n - skip) != want || xxh64_small(n - skip, g.p + skip) != want)
                fail_msg("%zu bytes from %zu", n - skip, skip);
        }
        guarded_free(&g);
    }
    assert_int_equal(xxh64(NULL, 0), XXH64(NULL, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_library)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
