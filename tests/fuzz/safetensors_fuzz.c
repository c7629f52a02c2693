/* safetensors_fuzz - any bytes as a weight file; every name, string and byte handed out is read. */
#include <string.h>

#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct st_file f;
    struct err e = {0};
    if (st_parse(&f, data, n, "fuzz", &e))
        return 0;
    for (size_t i = 0; i < f.count; i++) {
        fuzz_read(f.tensor[i].name, strlen(f.tensor[i].name));
        fuzz_read(f.tensor[i].data, f.tensor[i].nbytes);
        if (tensor_elems(&f.tensor[i]) * st_dtype_size(f.tensor[i].dtype) != f.tensor[i].nbytes)
            abort();
    }
    for (size_t i = 0; i < 2 * f.nmeta; i++)
        fuzz_read(f.meta[i], strlen(f.meta[i]));
    st_close(&f);
    return 0;
}
