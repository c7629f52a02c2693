/* code_dec_fuzz - any bytes as a stream of the codec "code": 2 bytes output size, the stream. */
#include <stdlib.h>

#include "model/reader.h"
#include "stub/code_dec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    size_t out_n = 1 + le16(data) % 4096;
    uint8_t *out = malloc(out_n);
    void *work = calloc(1, CODE_WORK);
    if (out && work)
        code_dec(work, out, out_n, data + 2, n - 2);
    free(work);
    free(out);
    return 0;
}
