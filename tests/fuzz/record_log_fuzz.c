/* record_log_fuzz - any bytes as a training log. */
#include <assert.h>

#include "tests/fuzz/fuzz.h"
#include "verify/record_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct record_log l;
    struct err e = {0};
    if (!record_log_parse(&l, "logs/train_seed42.log", (const char *)data, n, &e)) {
        assert(l.headline == SIZE_MAX || l.headline < l.finals);
        assert(l.source_n <= n && l.source <= n - l.source_n);
        fuzz_read(data + l.source, l.source_n);
        for (size_t i = 0; i < l.finals; i++)
            assert(l.final[i].line >= 1 && l.final[i].line <= l.lines);
        (void)record_log_seed(&l);
        (void)record_log_eval(&l);
    }
    record_log_free(&l);
    return 0;
}
