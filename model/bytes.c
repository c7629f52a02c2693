/* bytes.c - the serialised byte table. From a tokeniser: tokenizer.c. */
#include "model/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "model/reader.h"

enum err_code bytes_parse(struct byte_table *b, const void *data, size_t n, const char *path,
                          struct err *e)
{
    struct reader r = reader_init(data, n);
    uint32_t vocab = reader_u32(&r);
    memset(b, 0, sizeof *b);
    if (!IN_RUNNER && (r.bad || vocab < 1 || vocab > 65536 || reader_left(&r) != 2 * (size_t)vocab))
        return err_packed(e, "%s: not a byte table: says %u pieces, holds %zu bytes", path, vocab,
                          n);
    b->base = malloc(2 * (size_t)vocab);
    if (!b->base)
        return err_nomem(e, "byte table", 2 * vocab);
    b->flags = b->base + vocab;
    b->vocab = vocab;
    for (uint32_t i = 0; i < vocab; i++) {
        b->base[i] = reader_u8(&r);
        b->flags[i] = reader_u8(&r);
        if (!IN_RUNNER && b->flags[i] > (BYTES_LEAD | BYTES_BOUNDARY)) {
            bytes_free(b);
            return err_packed(e, "%s: piece %u: unknown flags", path, i);
        }
    }
    return ERR_OK;
}

void bytes_serialise(const struct byte_table *b, uint8_t *out)
{
    put_le32(out, (uint32_t)b->vocab);
    for (size_t i = 0; i < b->vocab; i++) {
        out[4 + 2 * i] = b->base[i];
        out[5 + 2 * i] = b->flags[i];
    }
}

void bytes_free(struct byte_table *b)
{
    free(b->base);
    memset(b, 0, sizeof *b);
}
