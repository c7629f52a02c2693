/* marshal_fuzz - any bytes as compiled Python code: the listing and the large constants are read.
 */
#include "tests/fuzz/fuzz.h"
#include "verify/pymarshal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct pymarshal m;
    struct err e = {0};
    size_t skip = pymarshal_pyc(data, n) ? MARSHAL_HEADER : 0;
    if (!pymarshal_read(&m, data + skip, n - skip, &e)) {
        fuzz_read(m.listing, m.n + 1);
        for (size_t i = 0; i < m.blobs; i++)
            fuzz_read(m.blob[i].p, m.blob[i].n);
    }
    pymarshal_free(&m);
    return 0;
}
