/* loader.c - see loader.h. */
#include "trainer/loader.h"

#include <stdio.h>
#include <string.h>

enum err_code loader_open(struct loader *l, const char *path, size_t vocab, struct err *e)
{
    *l = (struct loader){.vocab = vocab};
    return shard_list(&l->list, path, "train", e);
}

static void unmap(struct loader *l)
{
    if (l->cur.map)
        shard_close(&l->cur);
    l->cur = (struct shard){0};
}

void loader_close(struct loader *l)
{
    unmap(l);
    shard_list_free(&l->list);
    *l = (struct loader){0};
}

static enum err_code map(struct loader *l, struct err *e)
{
    return l->cur.map ? ERR_OK : shard_open(&l->cur, l->list.path[l->shard], l->vocab, e);
}

enum err_code loader_take(struct loader *l, uint16_t *out, size_t n, struct err *e)
{
    enum err_code rc;
    while (n) {
        if ((rc = map(l, e)))
            return rc;
        size_t left = l->cur.n - l->pos, take = n < left ? n : left;
        memcpy(out, l->cur.tok + l->pos, take * sizeof *out);
        out += take;
        n -= take;
        l->pos += take;
        /* A used-up shard is left only when more is wanted, so that a position names a shard that
         * has been read, as in the reference. A shard holds at least one token, so this ends. */
        if (n) {
            if (l->list.count > 1)
                unmap(l);
            l->shard = (l->shard + 1) % l->list.count;
            l->pos = 0;
        }
    }
    return ERR_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

enum err_code loader_tell(struct loader *l, struct loader_pos *p, struct err *e)
{
    enum err_code rc = map(l, e);
    if (rc)
        return rc;
    *p = (struct loader_pos){
        .shard = l->shard, .pos = l->pos, .shards = l->list.count, .shard_tokens = l->cur.n};
    snprintf(p->name, sizeof p->name, "%s", base_name(l->list.path[l->shard]));
    return ERR_OK;
}

enum err_code loader_seek(struct loader *l, const struct loader_pos *p, struct err *e)
{
    enum err_code rc;
    if (p->shards != l->list.count || p->shard >= l->list.count)
        return err_set(e, ERR_INPUT, "data changed: %zu train shards now, %zu at the checkpoint",
                       l->list.count, p->shards);
    const char *path = l->list.path[p->shard];
    if (strcmp(p->name, base_name(path)) != 0)
        return err_set(e, ERR_INPUT,
                       "data changed: train shard %zu is %s now, %s at the checkpoint", p->shard,
                       base_name(path), p->name);
    unmap(l);
    l->shard = p->shard;
    if ((rc = map(l, e)))
        return rc;
    if (l->cur.n != p->shard_tokens || p->pos > l->cur.n)
        return err_set(e, ERR_INPUT, "data changed: %s holds %zu tokens now, %zu at the checkpoint",
                       path, l->cur.n, p->shard_tokens);
    l->pos = p->pos;
    return ERR_OK;
}
