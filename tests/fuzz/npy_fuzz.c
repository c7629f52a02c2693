/* npy_fuzz - any bytes as a .npy file, and as the header of one. */
#include <string.h>

#include "packer/ptz_numpy.h"
#include "tests/fuzz/fuzz.h"

static void use(const uint8_t *data, size_t n)
{
    struct ptz_array a;
    struct err e = {0};
    if (ptz_npy_parse(&a, data, n, "fuzz", "x", &e))
        return;
    if (a.data < data || a.elems * st_dtype_size(a.dtype) != (size_t)(data + n - a.data))
        abort();
    fuzz_read(a.data, a.elems * st_dtype_size(a.dtype));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t start[] = "\x93NUMPY\x01\x00";
    use(data, n);
    if (n < 16 || n > UINT16_MAX)
        return 0;
    size_t header = n - data[0] % 16; /* what is left over is the array */
    uint8_t *file = malloc(n + 10);
    if (!file)
        return 0;
    memcpy(file, start, 8);
    file[8] = (uint8_t)header;
    file[9] = (uint8_t)(header >> 8);
    memcpy(file + 10, data, n);
    use(file, n + 10);
    free(file);
    return 0;
}
