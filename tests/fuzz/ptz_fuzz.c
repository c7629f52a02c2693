/*
 * ptz_fuzz - any bytes as a packed record: layers, archive, pickle, then the import with a recipe.
 *
 * Checksums and compressors would stop nearly every input at the door. So an input that is no
 * packed file is taken as the pickle of an archive with two storages, as somebody with intent
 * would make it, and as the third pickle of a file of before the zip format. Names and shapes tell
 * the recipe every other time.
 */
#include <stdlib.h>
#include <string.h>

#include "packer/import.h"
#include "packer/ptz_zip_write.h"
#include "tests/fuzz/fuzz.h"

enum { LIMIT = 1 << 20 };

static void use(const uint8_t *data, size_t n)
{
    static const struct import_job told;
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
    if (!import_parse(&p, n % 2 ? &told : NULL, &r, &t, &count, &names, &rep, &e))
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

/* The pickles before and behind the one of the value, and a storage "0" of 64 bytes. */
static void use_legacy(const uint8_t *data, size_t n)
{
    static const char before[] = "\x80\2\x8a\nl\xfc\x9c"
                                 "F\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.";
    static const char behind[] = "\x80\2]X\1\0\0\0"
                                 "0a.\x40\0\0\0\0\0\0";
    static const uint8_t storage[64] = {3};
    struct bytes_out file = {0};
    bytes_out_put(&file, before, sizeof before - 1);
    bytes_out_put(&file, data, n);
    bytes_out_put(&file, behind, sizeof behind);
    bytes_out_put(&file, storage, sizeof storage);
    if (!file.failed)
        use(file.data, file.n);
    free(file.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t storage[64] = {1, 2, 3};
    const struct zip_entry entry[] = {
        {"data.pkl", data, n}, {"data/0", storage, sizeof storage}, {"data/1", storage, 2}};
    struct bytes_out zip = {0};
    use(data, n);
    use_legacy(data, n);
    zip_write(&zip, entry, 3);
    if (!zip.failed)
        use(zip.data, zip.n);
    free(zip.data);
    return 0;
}
