/* unpack_fuzz - the first bytes say how many numbers and which packing, the rest is unpacked. */
#include "model/reader.h"
#include "packer/import_unpack.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 4)
        return 0;
    size_t numbers = le16(data);
    enum packing how = data[2] % (PACK_BITS + 1);
    unsigned bits = data[3] % 10;
    int8_t *out = malloc(numbers + 1);
    if (!out)
        return 0;
    if (import_unpack(out, numbers, how, bits, data + 4, n - 4)) {
        fuzz_read(out, numbers);
        for (size_t i = 0; i < numbers && how < PACK_NIBBLE; i++)
            if (out[i] < -1 || out[i] > 1)
                abort();
    }
    free(out);
    return 0;
}
