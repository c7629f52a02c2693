/*
 * lzma_dec.h - a small decoder for raw LZMA1 streams, and the undo of the x86 call filter.
 *
 * The loader includes the .c file, the runner, packer and verify link it: one decoder everywhere.
 * It is written for size, yet never reads or writes outside what it is given, whatever the input;
 * hashes protect against accidents, this against intent. After the format description in the LZMA
 * SDK's lzma-specification.txt (Igor Pavlov, public domain).
 */
#ifndef STUB_LZMA_DEC_H
#define STUB_LZMA_DEC_H

#include <stddef.h>
#include <stdint.h>

/* Entries of the probability table for the largest lc + lp that the format allows (4). */
enum { LZMA_PROBS = 1846 + (768 << 4) };

/* Workspace of one decoding, 28 KB, for the caller to place. Nothing in it is for the caller. */
struct lzma {
    const uint8_t *in, *end; /* in may run past end: the bytes there are zero and never touched */
    uint8_t *out;
    uint32_t range, code;
    uint32_t pos, last;     /* where the next byte goes; the last byte */
    uint32_t state, rep[4]; /* rep: last distances, less one */
    uint32_t lc, context_mask;
    uint16_t probs[LZMA_PROBS];
};

/*
 * lzma_dec - decode exactly out_n bytes.
 *
 *   d       workspace, contents irrelevant before and after
 *   out     [out_n], below 2^32; the dictionary is the output itself
 *   in      [in_n]; the stream may end right after the last byte that decoding needs: no end
 * marker, and the encoder's last flushed bytes are not needed either props   lc | lp << 8 | pb <<
 * 16, further bits are ignored: a little-endian load of SEC_PARAMS. Out of range (lc + lp > 4, pb >
 * 4) they decode to garbage.
 *
 * Returns the number of input bytes that decoding wanted: in_n when all is well; less when bytes
 * are left over; more when the input was too short (the missing bytes were taken as zero); SIZE_MAX
 * when the stream is impossible (a copy from before the start or past the end). The stream is good
 * if and only if the result equals in_n. Time is bounded by out_n: every step produces at least one
 * byte.
 */
size_t lzma_dec(struct lzma *d, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n,
                uint32_t props);

/*
 * x86_undo - turn absolute call and jump targets back into relative ones, in place (FILTER_X86).
 *
 * Code calls the same function from many places with a different relative distance each time; as
 * absolute addresses they repeat, and LZMA sees it. The 4 bytes after each byte E8 or E9 are such a
 * distance; they are not searched for E8 and E9. With i their offset in the n bytes of data:
 *
 *   stored v in [0, n)     becomes v - i      (the target is inside)
 *   stored v in [-i, 0)    becomes v + n      (values that the first rule displaced)
 *   every other v stays
 *
 * so the filter is a bijection: it undoes any input. Stored values are big-endian, because their
 * leading bytes vary least; what comes out is little-endian. n must be below 2^31.
 */
void x86_undo(uint8_t *data, size_t n);

#endif
