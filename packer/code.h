/*
 * code.h - the encoder for programs (CODEC_CODE). Decoder: stub/code_dec.h.
 */
#ifndef PACKER_CODE_H
#define PACKER_CODE_H

#include "packer/codec.h"

/*
 * coded_code - n bytes, 1 to 2^31 - 1, for which x86-64 code is expected; anything else works too.
 * Takes about 3 microseconds per byte and 36 MB. Fails: ERR_RESOURCE without memory.
 */
enum err_code coded_code(struct coded *c, const void *raw, size_t n, struct err *e);

/* code_costs - the same, and cost[n], unless NULL, gets the bits that each byte takes. */
enum err_code code_costs(struct coded *c, float *cost, const void *raw, size_t n, struct err *e);

#endif
