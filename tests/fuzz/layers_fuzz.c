/* layers_fuzz - any bytes as layers around a payload, and behind each kind of mark. */
#include <string.h>

#include "packer/ptz_layers.h"
#include "tests/fuzz/fuzz.h"

enum { LIMIT = 1 << 18 };

static void use(const uint8_t *data, size_t n)
{
    struct ptz_layers l;
    struct err e = {0};
    if (ptz_layers_peel(&l, data, n, LIMIT, "fuzz", &e))
        return;
    if (l.n > LIMIT && l.owned)
        abort();
    fuzz_read(l.data, l.n);
    ptz_layers_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct {
        const char *text;
        size_t n;
    } marks[] = {{"\0", 1},   {"\1", 1},   {"\2", 1},   {"ZSTD", 4},
                 {"ZLIB", 4}, {"LZMA", 4}, {"BROT", 4}, {"BSHF", 4}};
    use(data, n);
    uint8_t *marked = malloc(n + 4);
    if (!marked || !n)
        goto out;
    size_t i = data[n - 1] % (sizeof marks / sizeof *marks);
    memcpy(marked, marks[i].text, marks[i].n);
    memcpy(marked + marks[i].n, data, n);
    use(marked, n + marks[i].n);
out:
    free(marked);
    return 0;
}
