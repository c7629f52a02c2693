/* unwrap_fuzz - any bytes as a script that unwraps itself; and behind a first byte that names a
 * codec, as what it decodes (own decoders: the text codecs and bzip2). */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "verify/pycodec.h"
#include "verify/unwrap.h"

static void codecs(uint8_t which, const uint8_t *data, size_t n)
{
    uint8_t *out;
    size_t out_n;
    enum codec_rc rc = which % 2 ? unpack(PACK_BZ2, NULL, 0, data, n, 1 << 20, &out, &out_n)
                                 : text_decode((enum text_codec)(which / 2 % TEXTS), data, n,
                                               which & 32, &out, &out_n);
    if (rc)
        return;
    fuzz_read(out, out_n + 1);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct unwrap u;
    struct err e = {0};
    char family[256];
    if (n && data[0] < ' ' && data[0] != '\n')
        codecs(data[0], data + 1, n - 1);
    if (unwrap(&u, data, n, "fuzz", &e))
        abort(); /* no input of a fuzzer is too long, and memory suffices */
    if (!u.parts || u.parts > UNWRAP_PARTS || u.main >= u.parts || u.notes > UNWRAP_NOTES)
        abort();
    for (size_t i = 0; i < u.parts; i++) {
        if (i && u.part[i].parent >= i)
            abort();
        fuzz_read(u.part[i].text, u.part[i].size + 1);
    }
    unwrap_family(&u, family, sizeof family);
    unwrap_free(&u);
    return 0;
}
