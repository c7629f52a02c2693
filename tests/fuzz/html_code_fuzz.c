/* html_code_fuzz - any bytes as a list of functions: limits, order, and the sum hold. */
#include "tests/fuzz/fuzz.h"
#include "verify/html_code.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct page_code c;
    struct err e = {0};
    double sum = 0;
    if (code_parse(&c, (const char *)data, n, &e) || c.n > CODE_FUNCTIONS)
        abort();
    for (size_t i = 0; i < c.n; i++) {
        sum += c.f[i].bytes;
        if (c.f[i].bytes <= 0 || (i && c.f[i].bytes > c.f[i - 1].bytes))
            abort();
    }
    if (sum != c.bytes) /* integers: exact in double */
        abort();
    code_free(&c);
    return 0;
}
