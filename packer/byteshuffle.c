/* byteshuffle.c - see byteshuffle.h. */
#include "packer/byteshuffle.h"

#include <assert.h>
#include <string.h>

static const char magic[4] = {'B', 'S', 'H', 'F'};

size_t byteshuffle_size(size_t n, unsigned stride)
{
    return n < stride ? n : n + BYTESHUFFLE_HEADER;
}

void byteshuffle(uint8_t *out, const uint8_t *in, size_t n, unsigned stride)
{
    assert(stride >= 2 && stride <= 255);
    if (n < stride) {
        memcpy(out, in, n);
        return;
    }
    memcpy(out, magic, sizeof magic);
    out[4] = (uint8_t)stride;
    out += BYTESHUFFLE_HEADER;
    for (size_t plane = 0; plane < stride; plane++)
        for (size_t i = plane; i < n; i += stride)
            *out++ = in[i];
}

bool byteshuffle_is(const uint8_t *in, size_t n)
{
    return n >= BYTESHUFFLE_HEADER && !memcmp(in, magic, sizeof magic) && in[4] >= 2;
}

void byteunshuffle(uint8_t *out, const uint8_t *in, size_t n)
{
    assert(byteshuffle_is(in, n));
    size_t stride = in[4];
    in += BYTESHUFFLE_HEADER;
    n -= BYTESHUFFLE_HEADER;
    for (size_t plane = 0; plane < stride; plane++)
        for (size_t i = plane; i < n; i += stride)
            out[i] = *in++;
}
