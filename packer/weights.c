/* weights.c - see weights.h. */
#include "packer/weights.h"

#include <stdlib.h>
#include <string.h>

#include "model/gpt.h"

enum err_code weights_recipe(struct recipe *r, const struct st_file *f, const char *path,
                             struct err *e)
{
    const char *text = st_meta(f, "recipe");
    if (!text || !*text)
        return err_set(e, ERR_INPUT, "%s: no recipe in its metadata (key `recipe`)", path);
    recipe_init(r);
    return recipe_parse(r, text, strlen(text), path, true, e);
}

enum err_code weights_check(const struct recipe *r, const struct st_file *f, const char *path,
                            struct err *e)
{
    struct gpt m;
    enum err_code rc = gpt_init(&m, r, e);
    float *params = rc ? NULL : malloc(m.floats * sizeof *params);
    if (!rc && !params)
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
    if (!rc)
        rc = gpt_load(&m, params, f->tensor, f->count, path, e);
    free(params);
    gpt_free(&m);
    return rc;
}
