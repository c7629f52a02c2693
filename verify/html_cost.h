/*
 * html_cost.h - what each tensor costs in a submission: its share of the stored weight section.
 *
 * An adaptive coder spends -log2(p) bits on a symbol that its model gave the probability p; the sum
 * over a tensor's symbols is what the tensor costs, and the sum over all of them is the size of
 * the stream to within a few bytes. So the section is decoded once more, by decoders of this file
 * that follow the models of stub/range_model.h and stub/cm_model.h and add up logarithms. Codec
 * none costs what it stores. LZMA and zstd code across tensors; there the section is divided in
 * proportion to the order-0 entropy of each tensor's bytes, and the result is called an estimate.
 */
#ifndef VERIFY_HTML_COST_H
#define VERIFY_HTML_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "packer/blob.h"

/*
 * cost_tensors - bytes of the section s that each tensor of its decoded payload costs.
 *
 *   payload   [raw_size] as blob_decode gives it; only read
 *   cost      out: malloc'ed, an element for each tensor in the order of the table; for the caller
 *             to free
 *   count     out: how many
 *   estimate  out: divided by entropy, because the codec gives no costs (or, of a codec that does,
 *             because this file does not follow its model)
 *
 * Costs are not negative, and their sum is at most s->size: the rest is the table of names and
 * shapes and the frame of the coder. ERR_RESOURCE: memory. ERR_INPUT: the table is not sound.
 */
enum err_code cost_tensors(const struct blob_section *s, const uint8_t *payload, double **cost,
                           size_t *count, bool *estimate, struct err *e);

#endif
