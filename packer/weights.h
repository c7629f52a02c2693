/* weights.h - a weight file that is to be packed or exported: its recipe, and whether it loads. */
#ifndef PACKER_WEIGHTS_H
#define PACKER_WEIGHTS_H

#include "model/recipe.h"
#include "model/safetensors.h"

/* weights_recipe - the recipe in the file's metadata; keys that are not known here are skipped.
 * ERR_INPUT when there is none. `path` names the file in errors, here and below. */
enum err_code weights_recipe(struct recipe *r, const struct st_file *f, const char *path,
                             struct err *e);

/* weights_check - the tensors must be those of the recipe's model, complete and finite (gpt_load),
 * and its settings of scoring must make sense: the runner does not check them again. */
enum err_code weights_check(const struct recipe *r, const struct st_file *f, const char *path,
                            struct err *e);

#endif
