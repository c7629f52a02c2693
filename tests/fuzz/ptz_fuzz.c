/*
 * ptz_fuzz - any bytes as a packed record: layers, archive, pickle, then the import with a recipe.
 *
 * Checksums and compressors would stop nearly every input at the door. So an input that is no
 * packed file is taken as the pickle of an archive with two storages, as somebody with intent
 * would make it.
 */
#include <stdlib.h>
#include <string.h>

#include "packer/import.h"
#include "packer/ptz_zip_write.h"
#include "tests/fuzz/fuzz.h"

enum { LIMIT = 1 << 20 };

static void use(const uint8_t *data, size_t n)
{
    static struct import_report rep;
    struct ptz p;
    struct recipe r;
    struct tensor_view *t = NULL;
    size_t count = 0;
    void *names = NULL;
    struct err e = {0};
    if (ptz_parse(&p, data, n, LIMIT, "fuzz", &e))
        return;
    recipe_init(&r);
    r.num_layers = 1;
    r.model_dim = 8;
    r.num_heads = r.num_kv_heads = 1;
    r.vocab_size = 8;
    if (!import_parse(&p, &r, &t, &count, &names, &rep, &e))
        for (size_t i = 0; i < count; i++)
            fuzz_read(t[i].data, t[i].nbytes);
    for (size_t i = 0; p.root->kind == PICKLE_DICT && i < p.root->n && i < 100; i++) {
        struct tensor_view v;
        struct err none = {0};
        if (!ptz_tensor(&p, p.root->item[2 * i + 1], "x", &v, &none))
            fuzz_read(v.data, v.nbytes);
    }
    free(t);
    free(names);
    ptz_close(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t storage[64] = {1, 2, 3};
    const struct zip_entry entry[] = {
        {"data.pkl", data, n}, {"data/0", storage, sizeof storage}, {"data/1", storage, 2}};
    struct bytes_out zip = {0};
    use(data, n);
    zip_write(&zip, entry, 3);
    if (!zip.failed)
        use(zip.data, zip.n);
    free(zip.data);
    return 0;
}
