/* bytes_fuzz - any bytes as a byte table; what is accepted is written back as the same bytes. */
#include <string.h>

#include "model/bytes.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct byte_table b;
    struct err e = {0};
    if (bytes_parse(&b, data, n, "fuzz", &e))
        return 0;
    uint8_t *out = malloc(n);
    if (!out)
        abort();
    bytes_serialise(&b, out);
    if (n != 4 + 2 * b.vocab || memcmp(out, data, n))
        abort();
    free(out);
    bytes_free(&b);
    return 0;
}
