/* code_dec.c - see code_dec.h. */
#include "stub/code_dec.h"

#include <stdlib.h>

#include "model/reader.h"
#include "stub/code_model.h"

_Static_assert(sizeof(struct code_model) <= CODE_WORK, "code_dec.h promises that this is enough");

ptrdiff_t code_dec(void *work, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n)
{
    struct code_model *m = work;
    uint32_t range = 1, code = 0;
    size_t used = 0, n = 0;
    code_init(m);
    do {
        do {
            for (; range < 1u << 24; range <<= 8, used++)
                code = code << 8 | (used < in_n ? in[used] : 0);
            uint32_t below = (uint32_t)((uint64_t)range * code_predict(m) >> 32);
            uint32_t bit = code < below;
            range = bit ? below : range - below;
            code -= bit ? 0 : below;
            code_learn(m, bit);
        } while (m->bits < 256);
        out[n++] = (uint8_t)m->bits;
        if (code_next_byte(m)) /* its distance was stored as the target */
            put_le32(out + n - 4, le32(out + n - 4) - (uint32_t)n);
    } while (n < out_n);
    return (ptrdiff_t)(used - in_n);
}

bool code_unpack(uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n)
{
    void *work = calloc(1, CODE_WORK);
    bool good = work && code_dec(work, out, out_n, in, in_n) == 0;
    free(work);
    return good;
}
