/*
 * contents.h - what a submission holds, or needs, besides a model and its engine. Facts go to the
 * report as lines and keys (docs/verify.md), breaches of a rule (docs/rules.md) as doubts.
 */
#ifndef VERIFY_CONTENTS_H
#define VERIFY_CONTENTS_H

#include "packer/blob.h"
#include "verify/report.h"

/* contents_needs - the shared objects of the runner elf[n] (R-LIBRARY); with `cuda`, that of a file
 * with kernels, also those that it opens where there is a card. ERR_INPUT: not a program. */
enum err_code contents_needs(const uint8_t *elf, size_t n, bool cuda, const char *path,
                             struct report *r, struct err *e);

/* contents_tokenizer - the size of the tokeniser at `path`, and the total with it: whether it
 * counts was asked in the challenge and not answered. `size` is that of the submission. */
void contents_tokenizer(size_t size, const char *path, struct report *r);

/*
 * contents_sections - decode every section, also those that scoring does not need (F-DECODE), and
 * look into them: is the source this build's, does the recipe hold text that is no setting, does
 * anything hold a run of the stream that is scored (R-NO-VAL)?
 *
 *   data, vocab, max_tokens   the stream, as engine_score reads it
 */
enum err_code contents_sections(const struct blob *b, const char *path, const char *data,
                                size_t vocab, size_t max_tokens, struct report *r, struct err *e);

/* contents_stream - is all of the stream scored (R-VAL-SET), and do its bytes fit the challenge's
 * validation set where the number of tokens says that it is one of those (R-BYTES)? Not asked of a
 * part of the stream (max_tokens above 0). */
void contents_stream(const struct scores *s, size_t max_tokens, struct report *r);

/*
 * contents_data - is there a validation stream at all? Asked first: to decode the weights takes
 * longer than to find out. Errors as shard_list.
 */
enum err_code contents_data(const char *data, struct err *e);

#endif
