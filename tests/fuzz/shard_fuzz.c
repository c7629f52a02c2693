/* shard_fuzz - any bytes as a token shard for a vocabulary of 1024; what opens has only such
 * tokens. */
#include "model/shard.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct shard s;
    struct err e = {0};
    if (shard_open(&s, fuzz_file(data, n), 1024, &e))
        return 0;
    for (size_t i = 0; i < s.n; i++)
        if (s.tok[i] >= 1024)
            abort();
    shard_close(&s);
    return 0;
}
