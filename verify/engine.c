/* engine.c - see engine.h. */
#include "verify/engine.h"

#include <stdlib.h>
#include <string.h>

#include "model/shard.h"
#include "stub/xxh64.h"
#include "verify/progress.h"

static enum err_code open_backend(struct kern **k, const char *device, size_t threads,
                                  const struct peers *peers, struct err *e)
{
    int card = peers ? (int)peers->comm.local_rank : 0;
    return device && !strcmp(device, "cuda") ? kern_cuda(k, card, e) : kern_cpu(k, threads, e);
}

enum err_code engine_open(struct engine *g, const struct recipe *r, const struct tensor_view *t,
                          size_t count, const char *path, const char *device, size_t threads,
                          struct peers *peers, struct err *e)
{
    enum err_code rc;
    float *host = NULL;

    *g = (struct engine){.peers = peers};
    if ((rc = gpt_init(&g->m, r, e)) || (rc = open_backend(&g->k, device, threads, peers, e)))
        goto out;
    size_t bytes = g->m.floats * sizeof *host;
    host = malloc(bytes);
    g->params = g->k->alloc(g->k, bytes);
    if (!host || !g->params) {
        rc = err_nomem(e, "the weights", bytes);
        goto out;
    }
    if ((rc = gpt_load(&g->m, host, t, count, path, e)))
        goto out;
    g->k->upload(g->k, g->params, host, bytes);
    rc = g->k->sync(g->k, e);
out:
    free(host);
    if (rc)
        engine_close(g);
    return rc;
}

void engine_close(struct engine *g)
{
    if (g->params)
        g->k->free(g->k, g->params);
    if (g->k)
        kern_free(g->k);
    gpt_free(&g->m);
    *g = (struct engine){0};
}

struct collector {
    struct scores *s;
    size_t have;
    struct progress p;
};

static enum err_code collect(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct collector *c = ctx;
    if (n > c->s->count - c->have)
        return err_set(e, ERR_INPUT, "more than the announced %zu scores", c->s->count);
    memcpy(c->s->nll + c->have, nll, n * sizeof *nll);
    c->have += n;
    return ERR_OK;
}

static void show(void *ctx, size_t done, size_t all)
{
    struct collector *c = ctx;
    progress_show(&c->p, done, all, c->have);
}

/* `data` has been read into tok[n]. */
static enum err_code score(struct engine *g, const uint16_t *tok, size_t n, size_t max_tokens,
                           const struct byte_table *b, bool progress, struct scores *s,
                           struct err *e)
{
    struct collector c = {.s = s};
    const struct score_opts o = {.mode = s->mode,
                                 .max_tokens = max_tokens,
                                 .record = &s->record,
                                 .sink = collect,
                                 .progress = show,
                                 .ctx = &c,
                                 .share = peers_share(g->peers)};
    struct window_list l;
    enum err_code rc = score_windows(&g->m, n, &o, &l, e);
    if (rc || (eval_mode_trains(&g->m.r, s->mode) && (rc = peers_device(g->peers, g->k, e))))
        return rc;
    s->windows = window_count(&l);
    s->count = window_scored(&l);
    s->nll = malloc((s->count ? s->count : 1) * sizeof *s->nll);
    if (!s->nll)
        return err_nomem(e, "the scores", s->count * sizeof *s->nll);
    progress_init(&c.p, progress && peers_first(g->peers));
    rc = score_run(&g->m, g->k, g->params, tok, n, b, &o, &s->sum, e);
    s->seconds = progress_end(&c.p);
    s->nll_xxh64 = xxh64((const uint8_t *)s->nll, c.have * sizeof *s->nll);
    return rc;
}

/* Is there the same work before all ranks, and did all come so far? */
static enum err_code same(struct engine *g, const uint16_t *tok, size_t n,
                          const struct byte_table *b, const char *mode, enum err_code mine,
                          struct err *e)
{
    static const char *const name[] = {"tokens", "byte table", "weights", "settings"};
    enum { HASHES = sizeof name / sizeof *name, TEXT = 1 << 16 };
    size_t bytes = g->m.floats * sizeof(float);
    uint64_t hash[HASHES] = {0};
    void *block = NULL;
    if (!g->peers || g->peers->comm.size == 1)
        return mine;
    if (!mine && !(block = malloc(bytes > TEXT ? bytes : TEXT)))
        mine = err_nomem(e, "the weights to compare", bytes);
    if (!mine) {
        g->k->download(g->k, block, g->params, bytes);
        mine = g->k->sync(g->k, e);
    }
    if (!mine) {
        hash[0] = xxh64((const uint8_t *)tok, n * sizeof *tok);
        hash[1] = xxh64(b->base, b->vocab) ^ xxh64(b->flags, b->vocab);
        hash[2] = xxh64(block, bytes);
        recipe_print(&g->m.r, RECIPE_MODEL | RECIPE_EVAL, false, block, TEXT);
        hash[3] = xxh64(block, strlen(block)) ^ xxh64((const uint8_t *)mode, strlen(mode));
    }
    free(block);
    return peers_agree(g->peers, mine, name, hash, HASHES, e);
}

enum err_code engine_data(const char *data, struct err *e)
{
    struct shard_list l;
    enum err_code rc = shard_list(&l, data, "val", e);
    if (!rc)
        shard_list_free(&l);
    return rc;
}

enum err_code engine_score(struct engine *g, const char *data, const char *mode, size_t max_tokens,
                           const struct byte_table *b, bool progress, struct scores *s,
                           struct err *e)
{
    uint16_t *tok = NULL;
    enum err_code rc;

    *s = (struct scores){.recipe = &g->m.r};
    if (!mode)
        mode = g->m.r.eval_mode;
    s->mode = eval_mode_parse(mode);
    if (s->mode == EVAL_MODES)
        rc = err_set(e, ERR_USAGE, "EVAL_MODE=%s: must be " EVAL_MODE_NAMES, mode);
    else
        rc = shard_load(&tok, &s->stream, data, "val", (size_t)g->m.r.vocab_size,
                        max_tokens ? max_tokens + 1 : 0, e);
    if (!(rc = same(g, tok, s->stream, b, mode, rc, e)))
        rc = score(g, tok, s->stream, max_tokens, b, progress, s, e);
    free(tok);
    if (rc)
        scores_free(s);
    return rc;
}

void scores_free(struct scores *s)
{
    free(s->nll);
    *s = (struct scores){0};
}
