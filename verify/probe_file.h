/*
 * probe_file.h - the program under the probe, and what it declares about its scores.
 *
 * A probe looks at a program from outside. It has to know one thing about the inside: which score
 * belongs to which token. That follows from the window list (docs/scoring.md), and the window list
 * from a recipe: the one inside a submission of this project, or, for any other program that obeys
 * the command line contract, KEY=VALUE settings (VOCAB_SIZE, TRAIN_SEQ_LEN, EVAL_STRIDE, ...).
 */
#ifndef VERIFY_PROBE_FILE_H
#define VERIFY_PROBE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/gpt.h"
#include "model/score.h"
#include "verify/bytetable.h"
#include "verify/options.h"

struct probe_file {
    const char *path;
    uint8_t *data; /* [size] a copy: what was read is what runs */
    size_t size;
    bool ours;          /* a sound submission in the format of docs/format.md */
    struct gpt m;       /* parameters are laid out, not loaded: the recipe is what counts */
    size_t vocab;       /* pieces, of which the probe chooses */
    struct bytetable b; /* b.b.vocab 0: none was found, bytes are not checked */
    bool own_table;     /* b is the file's own word: no tokeniser near the data */
    bool table_differs; /* the file carries a table, and it is not b */
};

/*
 * probe_file_open - read a file and find out what it declares.
 *
 *   o  file, data, tokenizer and settings are used
 *
 * ERR_INPUT: no such file, a damaged submission (it begins like one), a recipe or a tokeniser that
 * cannot be read. ERR_USAGE: settings for a file that brings its own, or an impossible recipe.
 */
enum err_code probe_file_open(struct probe_file *f, const struct options *o, struct err *e);
void probe_file_close(struct probe_file *f); /* accepts a zeroed struct */

/* Which token a score belongs to, for each score in the order of --nll. */
struct probe_map {
    size_t total; /* positions used: tokens 1..total are scored */
    size_t windows, count;
    size_t repeated;       /* scores of tokens that an earlier score has scored already */
    size_t *token;         /* [count] index of the scored token in the stream; owned */
    size_t *start, *reach; /* [count] first and last token of the window that scores it; owned */
};

/*
 * probe_map_make - the scores of a mode on a stream of n tokens.
 *
 * Errors as score_windows; ERR_RESOURCE. Release with probe_map_free.
 */
enum err_code probe_map_make(struct probe_map *p, const struct gpt *m, enum eval_mode mode,
                             size_t n, struct err *e);
void probe_map_free(struct probe_map *p); /* accepts a zeroed struct */

#endif
