/*
 * bytetable.h - which byte table goes with which data, and is the one at hand right.
 *
 * The table is the denominator of bits per byte: one that counts too many bytes makes any model
 * look better. So verify looks for the tokeniser that made the data and computes the table itself.
 *
 * Looked at, in this order: *.model files in the directory of the data, in ../tokenizers and in
 * ../../tokenizers as seen from there (the challenge's layout is data/datasets/NAME beside
 * data/tokenizers). Models with another number of pieces than the vocabulary are not candidates.
 */
#ifndef VERIFY_BYTETABLE_H
#define VERIFY_BYTETABLE_H

#include "model/bytes.h"

enum { BYTETABLE_PATH = 1024 };

/* A table and where it is from. */
struct bytetable {
    struct byte_table b;
    char origin[BYTETABLE_PATH];
};

/*
 * bytetable_for_weights - the table to score a weight file with.
 *
 *   weights    its path; byte_table.bin beside it is the first choice when nothing is said
 *   tokenizer  a SentencePiece model to use, or NULL
 *   table      a serialised table to use, or NULL
 *   data       where to look for tokenisers otherwise
 *   vocab      pieces that it must have
 *
 * ERR_INPUT: none found, several that differ, another vocabulary, or a damaged file.
 */
enum err_code bytetable_for_weights(struct bytetable *t, const char *weights, const char *tokenizer,
                                    const char *table, const char *data, size_t vocab,
                                    struct err *e);
void bytetable_free(struct bytetable *t); /* accepts a zeroed struct */

enum bytetable_verdict { BYTETABLE_UNCHECKED, BYTETABLE_EQUAL, BYTETABLE_DIFFERS };

/*
 * bytetable_check - compare a table with the tokeniser's: the one given, or those found by the data
 * (it is enough that one of them agrees).
 *
 *   which  [BYTETABLE_PATH] out: the model that decided, "" when none was found
 *
 * ERR_INPUT: `tokenizer` is given and cannot be read.
 */
enum err_code bytetable_check(const struct byte_table *b, const char *tokenizer, const char *data,
                              enum bytetable_verdict *v, char *which, struct err *e);

#endif
