/*
 * import_unpack.h - the ways in which published records pack integers into bits. Private to
 * packer/import*.c.
 *
 *   ternary   five digits of base 3 in a byte, the first the lowest; digit 0, 1, 2 is -1, 0, 1
 *   bitmask   ternary too: n bits "is not 0", then for those that are not a bit "is positive";
 *             in both the first bit of a byte is its highest
 *   binary    a bit per number, the first the lowest of its byte; 0 and 1 are -1 and 1
 *   nibble    two numbers in a byte, the first the lower half; plus 8
 *   bits      b bits per number one after another, the lowest first and the first in the lowest bit
 *             of the first byte; plus 2^(b-1) - 1
 *
 * Sources: the folders of 2026-03-24 (ternary and binary U-Net: ternary, bitmask, binary, nibble),
 * 2026-04-05 (XNOR: binary) and 2026-03-26 (LeWM: bits) in openai/parameter-golf.
 */
#ifndef PACKER_IMPORT_UNPACK_H
#define PACKER_IMPORT_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum packing { PACK_TERNARY, PACK_BITMASK, PACK_BINARY, PACK_NIBBLE, PACK_BITS };

/*
 * import_unpack - out[0..n) from the bytes in[0..len).
 *
 *   bits  per number, 2 to 8; PACK_BITS only
 *
 * Returns whether the bytes are exactly as many as n numbers take, no ternary byte is above 242,
 * and every number fits int8. out is written in part when not.
 */
bool import_unpack(int8_t *out, size_t n, enum packing how, unsigned bits, const uint8_t *in,
                   size_t len);

#endif
