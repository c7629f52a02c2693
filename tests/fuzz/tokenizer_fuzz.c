/* tokenizer_fuzz - any bytes as a SentencePiece model; what is read must come through its own
 * table. */
#include <string.h>

#include "model/bytes.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct byte_table b, c;
    struct err e = {0};
    if (bytes_from_tokenizer(&b, fuzz_file(data, n), &e))
        return 0;
    uint8_t *out = malloc(4 + 2 * b.vocab);
    if (!out)
        abort();
    bytes_serialise(&b, out);
    if (bytes_parse(&c, out, 4 + 2 * b.vocab, "again", &e) || c.vocab != b.vocab ||
        memcmp(b.base, c.base, b.vocab) || memcmp(b.flags, c.flags, b.vocab))
        abort();
    bytes_free(&b);
    bytes_free(&c);
    free(out);
    return 0;
}
