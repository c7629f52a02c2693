/*
 * cm.h - encoder of the weight codec "cm"; decoder and layout are in stub/cm_dec.h.
 */
#ifndef PACKER_CM_H
#define PACKER_CM_H

#include <stddef.h>

#include "packer/codec.h"

/*
 * coded_cm - a weight payload (packer/payload.h) through the codec "cm".
 *
 * From CM_SPLIT elements on the matrices are divided into 4 streams of about equal size, which can
 * be decoded at the same time; it costs some hundred bytes for each. For each matrix that is higher
 * than wide the search for similar rows is tried and kept when it saves at least 1 byte in 300.
 * Streams are made on as many threads as there are processors. Decodes what it made and compares.
 * The same payload gives the same bytes.
 *
 * Fails: ERR_INPUT when raw is no weight payload, ERR_RESOURCE without memory.
 */
enum { CM_SPLIT = 1 << 22 };
enum err_code coded_cm(struct coded *c, const void *raw, size_t n, struct err *e);

/* cm_size - how many bytes coded_cm would make, without the proof that they decode: for a search
 * that asks often. Fails like coded_cm. */
enum err_code cm_size(size_t *size, const void *raw, size_t n, struct err *e);

#endif
