/*
 * record_meta.h - what a record claims: its submission.json, under the spellings that occur.
 *
 * Numbers keep the key they were found under, the decimals they were written with (trailing zeros
 * do not count) and the line of the key. Per-seed values come from `seed_results`, from a `seeds`
 * object, or from `seed_scores` beside `seeds`.
 */
#ifndef VERIFY_RECORD_META_H
#define VERIFY_RECORD_META_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"
#include "verify/record_folder.h"
#include "verify/record_keys.h"

enum { META_SEEDS = 64, META_TEXT = 128, META_BYTES = 4 << 20 };

struct meta_number {
    bool have;
    double v;
    int decimals;
    char key[40];
    size_t line; /* 1-based */
};

struct meta_seed {
    long long seed;
    size_t line;
    struct meta_number bpb, loss, bytes, steps;
};

struct record_meta {
    const char *path; /* of the file, NULL: there is none */
    bool valid;       /* it is a JSON object */
    char problem[80]; /* why it is not valid */
    struct meta_number bpb, loss, std, total, code, steps;
    struct meta_seed seed[META_SEEDS]; /* claimed seeds, with values where given */
    size_t seeds;
    bool seeds_variant;                 /* results stand under `seeds` itself */
    struct key_trick trick[KEY_TRICKS]; /* keys that two readers take for two things */
    size_t tricks;
    char author[META_TEXT], github_id[META_TEXT], name[META_TEXT], date[META_TEXT],
        track[META_TEXT], hardware[META_TEXT],
        text[4 * META_TEXT]; /* text: blurb or technique_summary */
};

/*
 * record_meta_read - find and read the metadata of a folder.
 *
 * submission.json, else submission*.json, else a *.json at the top that has a BPB or an author. No
 * metadata, or damaged metadata, is no error: path is NULL, or valid false. ERR_RESOURCE: no
 * memory.
 */
enum err_code record_meta_read(struct record_meta *m, const struct record_folder *f, struct err *e);

/* record_meta_parse - the same from n bytes; `path` must outlive m. */
enum err_code record_meta_parse(struct record_meta *m, const char *path, const char *text, size_t n,
                                struct err *e);

/* record_meta_seed - the claimed values of a seed, or NULL. */
const struct meta_seed *record_meta_seed(const struct record_meta *m, long long seed);

/* meta_near - is `measured` what was claimed: within `tolerance`, or within half a unit of the last
 * decimal written and 1e-4? */
bool meta_near(const struct meta_number *claimed, double measured, double tolerance);

#endif
