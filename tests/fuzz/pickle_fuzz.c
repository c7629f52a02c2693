/* pickle_fuzz - any bytes as a pickle; the tree is walked to a fixed depth and every text read. */
#include <string.h>

#include "packer/pickle.h"
#include "tests/fuzz/fuzz.h"

enum { DEPTH = 6 };

static void walk(const struct pickle_value *v, unsigned depth, size_t *budget)
{
    size_t items = v->kind == PICKLE_DICT ? 2 * v->n : v->n;
    bool text = v->kind == PICKLE_STR || v->kind == PICKLE_BYTES;
    if (text)
        fuzz_read(v->text, v->n + (v->kind == PICKLE_STR));
    for (size_t i = 0; !text && i < items && depth < DEPTH && *budget; i++, (*budget)--)
        walk(v->item[i], depth + 1, budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct pickle_global allowed[] = {
        {"collections.OrderedDict", PICKLE_AS_DICT},
        {"torch._utils._rebuild_tensor_v2", PICKLE_AS_CALL},
        {"torch.HalfStorage", PICKLE_AS_CALL},
        {"_codecs.encode", PICKLE_AS_BYTES},
        {"torch.Size", PICKLE_AS_SAME},
        {NULL, PICKLE_AS_CALL},
    };
    struct pickle p;
    struct err e = {0};
    size_t budget = 10000;
    if (pickle_parse(&p, data, n, allowed, "fuzz", &e))
        return 0;
    walk(p.root, 0, &budget);
    pickle_get(p.root, "w");
    pickle_free(&p);
    return 0;
}
