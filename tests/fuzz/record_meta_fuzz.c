/* record_meta_fuzz - any bytes as the metadata of a record. */
#include <assert.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "verify/record_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct record_meta m;
    struct err e = {0};
    if (record_meta_parse(&m, "submission.json", (const char *)data, n, &e))
        return 0;
    size_t lines = 1;
    for (size_t i = 0; i < n; i++)
        lines += data[i] == '\n';
    assert(m.seeds <= META_SEEDS && m.bpb.line <= lines && m.tricks <= KEY_TRICKS);
    assert(m.valid || *m.problem);
    assert(strlen(m.author) < sizeof m.author && strlen(m.text) < sizeof m.text);
    for (size_t i = 0; i < m.tricks; i++)
        assert(m.trick[i].line && m.trick[i].line <= lines && strlen(m.trick[i].key) < 40);
    for (size_t i = 0; i < m.seeds; i++)
        assert(m.seed[i].line <= lines);
    return 0;
}
