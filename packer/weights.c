/* weights.c - see weights.h. */
#include "packer/weights.h"

#include <stdlib.h>
#include <string.h>

#include "model/score.h"

enum err_code weights_recipe(struct recipe *r, const struct st_file *f, const char *path,
                             struct err *e)
{
    const char *text = st_meta(f, "recipe");
    if (!text || !*text)
        return err_set(e, ERR_INPUT, "%s: no recipe in its metadata (key `recipe`)", path);
    recipe_init(r);
    return recipe_parse(r, text, strlen(text), path, true, e);
}

/* Settings of scoring in the recipe's own mode, and of SLOT, which can be asked of every file. */
static enum err_code check_scoring(const struct gpt *m, struct err *e)
{
    struct score_opts o = {.mode = eval_mode_parse(m->r.eval_mode)};
    struct window_list l;
    enum err_code rc = ERR_OK;
    if (o.mode != EVAL_MODES)
        rc = score_windows(m, SIZE_MAX, &o, &l, e);
    o.mode = EVAL_SLOT;
    return rc ? rc : score_windows(m, SIZE_MAX, &o, &l, e);
}

enum err_code weights_check(const struct recipe *r, const struct st_file *f, const char *path,
                            struct err *e)
{
    struct gpt m;
    enum err_code rc = gpt_init(&m, r, e);
    float *params = rc ? NULL : malloc(m.floats * sizeof *params);
    if (!rc)
        rc = check_scoring(&m, e);
    if (!rc && !params)
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
    if (!rc)
        rc = gpt_load(&m, params, f->tensor, f->count, path, e);
    free(params);
    gpt_free(&m);
    return rc;
}
