/* lzma_dec_fuzz - any bytes as an LZMA stream: 3 bytes lc, lp, pb, 2 bytes output size, the stream.
 */
#include <stdlib.h>

#include "model/reader.h"
#include "stub/lzma_dec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct lzma work;
    if (n < 5)
        return 0;
    size_t out_n = le16(data + 3);
    uint8_t *out = malloc(out_n + 1); /* exact but for one byte, which the next line gives away */
    if (!out)
        return 0;
    lzma_dec(&work, out + 1, out_n, data + 5, n - 5, le32(data) & 0xFFFFFF);
    x86_undo(out + 1, out_n);
    free(out);
    return 0;
}
