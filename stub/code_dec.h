/*
 * code_dec.h - a small decoder for programs: context mixing, with an eye for x86-64 instructions.
 *
 * The runner is stored like this (CODEC_CODE in stub/format.h): a quarter less than with LZMA. Each
 * bit is predicted, and an arithmetic coder spends -log2 of the probability that the bit which came
 * had had. The model behind it is in stub/code_model.h, shared with the encoder (packer/code.h).
 *
 * There are two decoders. code_dec.c is the definition; packer and verify use it. code_dec.S does
 * the same in a third of the bytes, for the loader; tests compare them on everything.
 */
#ifndef STUB_CODE_DEC_H
#define STUB_CODE_DEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of workspace of one decoding, 46.3 MB; a small input touches little of it, no input more
 * than 36 MB. */
#define CODE_WORK ((size_t)46300000)

/*
 * code_dec - decode exactly out_n bytes.
 *
 *   work  [CODE_WORK] all zero, aligned to 8; garbage afterwards
 *   out   [out_n], 1 to 2^31 - 1 bytes
 *   in    [in_n]
 *
 * Returns how many bytes of input were missing (they were taken as zero); negative, how many are
 * left over. 0 when all is well, and only then. Integers only: the same bytes on every
 * machine. Nothing outside the given buffers is touched, whatever the input. Takes 2 to 4
 * microseconds per byte of output.
 */
ptrdiff_t code_dec(void *work, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n);

/*
 * code_unpack - code_dec with workspace of its own. False when the stream is damaged or memory is
 * short; out is garbage then. A runner has its own: it calls the loader's decoder.
 */
bool code_unpack(uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n);

/* code_dec_small - the loader's decoder (code_dec.S): the same in every respect. */
ptrdiff_t code_dec_small(void *work, uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n);

#endif
