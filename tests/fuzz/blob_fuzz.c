/*
 * blob_fuzz - any bytes as a submission file. Hashes would stop nearly every input at the door, so
 * they are made right first, as somebody with intent would.
 */
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/blob.h"
#include "stub/xxh64.h"

enum { FILESZ = 64 + 32 }; /* p_filesz of the only program header: where the loader ends */

static void make_hashes_right(uint8_t *file, size_t n)
{
    if (n < FILESZ + 8)
        return;
    uint64_t at = le64(file + FILESZ);
    if (at > n || n - at < HDR_BYTES + SECTIONS_MAX * SEC_BYTES)
        return;
    uint8_t *h = file + at;
    uint32_t count = le32(h + HDR_COUNT);
    put_le64(h + HDR_FILE_SIZE, n);
    if (count > SECTIONS_MAX)
        return;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *s = h + HDR_ENTRIES + i * SEC_BYTES;
        uint64_t offset = le64(s + SEC_OFFSET), size = le64(s + SEC_SIZE);
        if (i + 1 != KIND_HEADER && offset <= n && size <= n - offset)
            put_le64(s + SEC_XXH64, xxh64(file + offset, (size_t)size));
    }
    size_t tail = HDR_ENTRIES + count * SEC_BYTES;
    put_le64(h + tail, xxh64(h, tail));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct blob b;
    struct err e = {0};
    uint8_t *file = malloc(n + 1), *raw;
    if (!file)
        return 0;
    memcpy(file, data, n);
    make_hashes_right(file, n);
    if (blob_parse(&b, file, n, "fuzz", NULL, 0, &e) == ERR_OK)
        for (size_t i = 0; i < b.count; i++)
            if (b.section[i].raw_size < 1 << 16) { /* larger claims are slow, not different */
                blob_decode(&raw, &b.section[i], "fuzz", &e);
                free(raw);
            }
    free(file);
    return 0;
}
