/* same.c - see same.h. */
#include "trainer/same.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "trainer/hash.h"

enum { RECIPE, ORDER, TRAIN, VAL, TOKENIZER, WEIGHTS, FACTS, RECIPE_TEXT = 1 << 16 };

static const char *const fact_name[FACTS] = {
    [RECIPE] = "settings",       [ORDER] = "DATA_PATH, from which LOADER=coprime draws its order",
    [TRAIN] = "training shards", [VAL] = "validation tokens",
    [TOKENIZER] = "tokeniser",   [WEIGHTS] = "initial weights",
};

static enum err_code hash_recipe(const struct gpt *m, uint64_t *out, struct err *e)
{
    struct recipe r = m->r;
    char *text = malloc(RECIPE_TEXT);
    if (!text)
        return err_nomem(e, "recipe", RECIPE_TEXT);
    r.data_path[0] = r.tokenizer_path[0] = 0;
    recipe_print(&r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text,
                 RECIPE_TEXT);
    *out = hash_bytes(text, strlen(text), 0);
    free(text);
    return ERR_OK;
}

static uint64_t hash_shards(const struct shard_list *l)
{
    uint64_t h = l->count;
    for (size_t i = 0; i < l->count; i++) {
        const char *slash = strrchr(l->path[i], '/'), *name = slash ? slash + 1 : l->path[i];
        struct stat st;
        int64_t bytes = stat(l->path[i], &st) ? -1 : (int64_t)st.st_size;
        h = hash_bytes(name, strlen(name) + 1, h);
        h = hash_bytes(&bytes, sizeof bytes, h);
    }
    return h;
}

enum err_code same_check(struct comm *c, const struct gpt *m, const struct corpus *d,
                         uint64_t weights, struct err *e)
{
    uint64_t mine[FACTS] = {
        [ORDER] = d->train.coprime ? d->train.order.seed : 0,
        [TRAIN] = hash_shards(&d->train.list),
        [VAL] = hash_bytes(d->val, d->nval * sizeof *d->val, 0),
        [TOKENIZER] = hash_bytes(d->tokenizer_xxh64, sizeof d->tokenizer_xxh64, 0),
        [WEIGHTS] = weights,
    };
    uint64_t *all = calloc(c->size, sizeof mine);
    enum err_code rc = hash_recipe(m, &mine[RECIPE], e);
    if (!rc && !all)
        rc = err_nomem(e, "ranks", c->size * sizeof mine);
    if (!(rc = comm_agree(c, rc, e)))
        rc = comm_gather(c, all, mine, sizeof mine, e);
    for (size_t r = 1; r < c->size && !rc; r++)
        for (size_t i = 0; i < FACTS && !rc; i++)
            if (all[r * FACTS + i] != all[i])
                rc = err_set(e, ERR_INPUT, "rank %zu differs from rank 0: other %s", r,
                             fact_name[i]);
    free(all);
    return rc;
}
