/*
 * ptz_write.h - quantised weights as the file that a record's script would have written.
 *
 * The payload is what torch.save writes for the records' dictionaries, byte for byte (torch up to
 * 2.0; later versions add some 700 bytes of archive entries that say nothing about the model):
 *
 *   {"w": {name: tensor}, "m": {name: how}}      PR #1019, #1263, #1276, #1296, #1260: a quantised
 *       X is "X.q" and "X.scale" in w and {"type": "int6"[, "method": "gptq"]} in m; the others
 *       keep their name and are "passthrough"
 *   {"__quant_format__": "int8_clean_per_row_v1", ...}     the challenge's baseline, int8 only
 *
 * Then a byte shuffle (packer/byteshuffle.h) and a compressor (packer/ptz_codec.h), as the recipe
 * says. The same input gives the same file.
 */
#ifndef PACKER_PTZ_WRITE_H
#define PACKER_PTZ_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "model/recipe.h"
#include "model/tensor.h"
#include "packer/ptz_codec.h"

struct ptz_how {
    enum ptz_codec codec;
    int level;        /* 0: ptz_codec_level */
    unsigned shuffle; /* stride of the byte shuffle, 0: none */
    bool int8_layout; /* the baseline's dictionary */
    unsigned bits, embed_bits;
    bool mixed, gptq, embed_bf16; /* for what m and the baseline's dtypes say of a tensor */
};

/* ptz_how_of - from COMPRESSOR, COMPRESSOR_LEVEL, BYTE_SHUFFLE, QUANT_* and EMBED_BF16. The
 * baseline's dictionary when QUANT_BITS and QUANT_EMBED_BITS are both 8. ERR_USAGE when a setting
 * makes no sense. */
enum err_code ptz_how_of(struct ptz_how *how, const struct recipe *r, struct err *e);

/*
 * ptz_payload - the dictionary of a quantised model; *out is for the caller to free().
 *
 *   t  count tensors as in a quantised safetensors file: X.q I8 directly followed by X.scale, or X;
 *      in state-dict order
 *
 * Fails: ERR_INPUT for a .q without its .scale; ERR_RESOURCE without memory.
 */
enum err_code ptz_payload(uint8_t **out, size_t *n, const struct ptz_how *how,
                          const struct tensor_view *t, size_t count, struct err *e);

/* ptz_pack - the whole file. It is read back and compared before it is returned. */
enum err_code ptz_pack(uint8_t **out, size_t *n, const struct ptz_how *how,
                       const struct tensor_view *t, size_t count, struct err *e);

/* ptz_size - how large that file is: what PRUNE_TARGET_BYTES is about, and what `packer pack
 * --record-size` shows. brotli 11 takes 1.6 seconds of a core per megabyte of payload. */
enum err_code ptz_size(const struct recipe *r, const struct tensor_view *t, size_t count,
                       uint64_t *bytes, struct err *e);

#endif
