/*
 * corpus.h - what a run reads: training stream, validation tokens, and the tokeniser's byte table.
 *
 * The tokeniser is TOKENIZER_PATH, or else a *.model whose vocabulary is VOCAB_SIZE, looked for in
 * DATA_PATH, in tokenizers/ beside it and in tokenizers/ one level higher (the challenge's layout).
 * The first of these places that has a fitting one decides; two fitting ones in one place are an
 * error.
 */
#ifndef TRAINER_CORPUS_H
#define TRAINER_CORPUS_H

#include "model/bytes.h"
#include "model/recipe.h"
#include "trainer/loader.h"

struct corpus {
    struct loader train;
    uint16_t *val;
    size_t nval;
    struct byte_table bytes;
    char tokenizer[1024];     /* path */
    char tokenizer_xxh64[17]; /* of the file, hex */
};

/* corpus_open - ERR_INPUT: something is missing, damaged or for another vocabulary; the message
 * says which setting to change or how to get data. ERR_RESOURCE: memory. */
enum err_code corpus_open(struct corpus *c, const struct recipe *r, struct err *e);
void corpus_close(struct corpus *c); /* accepts a zeroed struct */

#endif
