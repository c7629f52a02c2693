/*
 * recipe.h - what a model is and how it is trained, quantised and scored, as KEY=VALUE settings.
 *
 * Later settings win: defaults, recipe file, environment, command line. An unknown key is an error
 * that names the nearest known one. A recipe file has one KEY=VALUE per line, # starts a comment; a
 * value may be quoted. The keys are in model/recipe_keys.h.
 */
#ifndef MODEL_RECIPE_H
#define MODEL_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "model/recipe_keys.h"

enum { RECIPE_STR = 256, RECIPE_LAYERS_MAX = 1024 };

#define RECIPE_FIELD_INT(f)                       int64_t f;
#define RECIPE_FIELD_NUM(f)                       double f;
#define RECIPE_FIELD_STR(f)                       char f[RECIPE_STR];
#define RECIPE_FIELD(type, key, field, def, help) RECIPE_FIELD_##type(field)

struct recipe {
    RECIPE_MODEL_KEYS(RECIPE_FIELD)
    RECIPE_EVAL_KEYS(RECIPE_FIELD)
    RECIPE_TRAIN_KEYS(RECIPE_FIELD)
    RECIPE_QUANT_KEYS(RECIPE_FIELD)
};

/* recipe_init - every field to its default. */
void recipe_init(struct recipe *r);

/* recipe_set - one setting "KEY=VALUE" (blanks around both ignored). `where` names its origin in
 * errors ("recipes/demo.conf:3", "command line"). ERR_USAGE for an unknown key or a bad value. */
enum err_code recipe_set(struct recipe *r, const char *setting, const char *where, struct err *e);

/* recipe_parse - all settings of a text of n bytes (a recipe file, the recipe section). With
 * `lenient`, unknown keys are skipped: a packed recipe may hold keys of newer or other programs. */
enum err_code recipe_parse(struct recipe *r, const char *text, size_t n, const char *where,
                           bool lenient, struct err *e);

/* recipe_load - recipe_init, then the file, then every known KEY found in the environment. */
enum err_code recipe_load(struct recipe *r, const char *path, struct err *e);

/* recipe_env - every known KEY found in the environment. */
enum err_code recipe_env(struct recipe *r, struct err *e);

enum recipe_group { RECIPE_MODEL = 1, RECIPE_EVAL = 2, RECIPE_TRAIN = 4, RECIPE_QUANT = 8 };

/* recipe_print - the settings of the chosen groups as KEY=VALUE lines into buf (NUL-terminated).
 * Returns the length that the whole text has (which may exceed cap - 1; then it is cut). Parsing
 * the text gives the same recipe back, bit for bit. With `changed`, defaults are left out. */
size_t recipe_print(const struct recipe *r, unsigned groups, bool changed, char *buf, size_t cap);

/* recipe_help - the table of all keys with defaults and meanings, for --help-keys and the docs. */
void recipe_help(void (*line)(void *ctx, const char *key, const char *def, const char *help),
                 void *ctx);

/* recipe_check - shape constraints (divisibility, ranges); ERR_USAGE with the reason. */
enum err_code recipe_check(const struct recipe *r, struct err *e);

/* recipe_ranges - the first of n settings outside lo..hi is ERR_USAGE, with its name and both. The
 * table's rows are written RECIPE_RANGE(KEY, field of struct recipe, lo, hi). */
struct recipe_range {
    char name[sizeof "PARALLEL_START_LAYER"];
    uint16_t at;
    int32_t lo, hi;
};
#define RECIPE_RANGE(key, field, lo, hi)                                                           \
    {                                                                                              \
#key, offsetof(struct recipe, field), lo, hi                                               \
    }
enum err_code recipe_ranges(const struct recipe *r, const struct recipe_range *range, size_t n,
                            struct err *e);

/* recipe_layers - a list of blocks such as RECUR_LAYERS: "4,5" into out[layers]; returns how many,
 * or SIZE_MAX when it is no list of distinct numbers below `layers`. */
size_t recipe_layers(const char *list, size_t layers, size_t *out);

/* Derived values. */
static inline size_t recipe_head_dim(const struct recipe *r)
{
    return (size_t)(r->model_dim / r->num_heads);
}
static inline size_t recipe_rope_dims(const struct recipe *r)
{
    return r->rope_dims ? (size_t)r->rope_dims : recipe_head_dim(r);
}
static inline size_t recipe_hidden(const struct recipe *r)
{
    return (size_t)(r->mlp_mult * (double)r->model_dim);
}
static inline size_t recipe_eval_len(const struct recipe *r)
{
    return (size_t)(r->eval_seq_len ? r->eval_seq_len : r->train_seq_len);
}

#endif
