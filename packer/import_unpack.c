/* import_unpack.c - see import_unpack.h. */
#include "packer/import_unpack.h"

static size_t bytes_for(size_t n, size_t per_byte)
{
    return n / per_byte + (n % per_byte != 0);
}

static bool ternary(int8_t *out, size_t n, const uint8_t *in, size_t len)
{
    if (len != bytes_for(n, 5))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned v = in[i];
        if (v > 242)
            return false;
        for (size_t j = 5 * i; j < 5 * i + 5 && j < n; j++, v /= 3)
            out[j] = (int8_t)((int)(v % 3) - 1);
    }
    return true;
}

/* Bit i of a row of bytes whose first bit is the highest. */
static bool high_bit(const uint8_t *in, size_t i)
{
    return in[i / 8] >> (7 - i % 8) & 1;
}

static bool bitmask(int8_t *out, size_t n, const uint8_t *in, size_t len)
{
    size_t mask = bytes_for(n, 8), signs = 0;
    if (len < mask)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool some = high_bit(in, i);
        if (some && signs / 8 >= len - mask)
            return false;
        out[i] = some ? (high_bit(in + mask, signs) ? 1 : -1) : 0;
        signs += some;
    }
    return len - mask == bytes_for(signs, 8);
}

static bool binary(int8_t *out, size_t n, const uint8_t *in, size_t len)
{
    if (len != bytes_for(n, 8))
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = in[i / 8] >> i % 8 & 1 ? 1 : -1;
    return true;
}

static bool nibble(int8_t *out, size_t n, const uint8_t *in, size_t len)
{
    if (len != bytes_for(n, 2))
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = (int8_t)((in[i / 2] >> 4 * (i % 2) & 15) - 8);
    return true;
}

static bool fixed(int8_t *out, size_t n, unsigned bits, const uint8_t *in, size_t len)
{
    int top = (1 << (bits - 1)) - 1;
    if (n > SIZE_MAX / 8 || len != bytes_for(n * bits, 8))
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t at = i * bits;
        unsigned v = in[at / 8];
        if (at % 8 + bits > 8)
            v |= (unsigned)in[at / 8 + 1] << 8;
        int q = (int)(v >> at % 8 & ((1u << bits) - 1)) - top;
        if (q > INT8_MAX)
            return false;
        out[i] = (int8_t)q;
    }
    return true;
}

bool import_unpack(int8_t *out, size_t n, enum packing how, unsigned bits, const uint8_t *in,
                   size_t len)
{
    switch (how) {
    case PACK_TERNARY:
        return ternary(out, n, in, len);
    case PACK_BITMASK:
        return bitmask(out, n, in, len);
    case PACK_BINARY:
        return binary(out, n, in, len);
    case PACK_NIBBLE:
        return nibble(out, n, in, len);
    default:
        return bits >= 2 && bits <= 8 && fixed(out, n, bits, in, len);
    }
}
