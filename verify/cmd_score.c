/* cmd_score.c - verify score: from a weight file to a result line. */
#include "verify/commands.h"

#include <string.h>

#include "model/safetensors.h"
#include "verify/bytetable.h"
#include "verify/contents.h"
#include "verify/npy.h"

/* The file's own settings, then the environment's, then the command line's. */
static enum err_code settings(struct recipe *r, const struct st_file *f, const struct options *o,
                              struct err *e)
{
    const char *own = st_meta(f, "recipe");
    enum err_code rc = ERR_OK;

    recipe_init(r);
    if (own)
        rc = recipe_parse(r, own, strlen(own), o->file, true, e);
    if (!rc)
        rc = recipe_env(r, e);
    for (size_t i = 0; i < o->settings && !rc; i++)
        rc = recipe_set(r, o->setting[i], "command line", e);
    return rc ? rc : recipe_check(r, e);
}

enum err_code verify_score(const struct options *o, struct report *r, struct err *e)
{
    struct st_file f = {0};
    struct engine g = {0};
    struct scores s = {0};
    struct bytetable t = {0};
    struct recipe recipe;
    enum err_code rc;

    if (!((rc = contents_data(o->data, e)) ||
          (o->nll && peers_first(r->peers) && (rc = npy_try(o->nll, e))) ||
          (rc = st_open(&f, o->file, e)) || (rc = settings(&recipe, &f, o, e)) ||
          (rc = bytetable_for_weights(&t, o->file, o->tokenizer, o->byte_table, o->data,
                                      (size_t)recipe.vocab_size, e))))
        rc = engine_open(&g, &recipe, f.tensor, f.count, o->file, o->device, o->threads, r->peers,
                         e);
    if ((rc = peers_agree(r->peers, rc, NULL, NULL, 0, e)))
        goto out;
    report_line(r, "weights      %s, %zu tensors", o->file, f.count);
    report_line(r, "bytes        counted by %s", t.origin);
    if ((rc = engine_score(&g, o->data, o->eval, o->max_tokens, &t.b, !o->quiet, &s, e)))
        goto out;
    if (!peers_first(r->peers))
        goto out;
    if (o->nll && (rc = npy_write(o->nll, s.nll, s.count, e)))
        goto out;
    cJSON_AddStringToObject(r->root, "command", "score");
    cJSON_AddStringToObject(r->root, "file", o->file);
    cJSON_AddStringToObject(r->root, "byte_table", t.origin);
    report_scores(r, &g, &s, &t.b);
out:
    scores_free(&s);
    engine_close(&g);
    bytetable_free(&t);
    st_close(&f);
    return rc;
}
