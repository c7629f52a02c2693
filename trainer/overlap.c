/* overlap.c - see overlap.h. */
#include "trainer/overlap.h"

#include <stdbool.h>
#include <stdlib.h>

#include "model/shard.h"

struct doc {
    uint64_t hash, tokens;
    bool found;
};

struct docs {
    struct doc *d;
    size_t n, cap;
};

static enum err_code keep(struct docs *all, uint64_t hash, uint64_t tokens, struct err *e)
{
    if (all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 1024;
        struct doc *grown = realloc(all->d, cap * sizeof *grown);
        if (!grown)
            return err_nomem(e, "documents", cap * sizeof *grown);
        all->d = grown;
        all->cap = cap;
    }
    all->d[all->n++] = (struct doc){hash, tokens, false};
    return ERR_OK;
}

static int by_hash(const void *a, const void *b)
{
    const struct doc *x = a, *y = b;
    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1)
                              : (x->tokens > y->tokens) - (x->tokens < y->tokens);
}

/* Mark all validation documents with this hash and length. */
static void look_up(struct docs *val, uint64_t hash, uint64_t tokens)
{
    struct doc key = {hash, tokens, false};
    struct doc *hit = bsearch(&key, val->d, val->n, sizeof *val->d, by_hash);
    if (!hit)
        return;
    while (hit > val->d && !by_hash(hit - 1, &key))
        hit--;
    for (; hit < val->d + val->n && !by_hash(hit, &key); hit++)
        hit->found = true;
}

/* A document's end: kept from the validation split, looked up from the other. */
static enum err_code ended(struct docs *val, bool training, uint64_t hash, uint64_t tokens,
                           struct err *e)
{
    if (tokens < OVERLAP_TOKENS)
        return ERR_OK;
    if (!training)
        return keep(val, hash, tokens, e);
    look_up(val, hash, tokens);
    return ERR_OK;
}

/* All shards of a kind in the order of their names, as one stream of documents. */
static enum err_code walk(struct docs *val, const char *dir, bool training, uint32_t bos,
                          struct err *e)
{
    struct shard_list l;
    uint64_t hash = 0, tokens = 0;
    bool open = false;
    enum err_code rc = shard_list(&l, dir, training ? "train" : "val", e);
    if (rc)
        return rc;
    for (size_t i = 0; i < l.count && !rc; i++) {
        struct shard s;
        if ((rc = shard_open(&s, l.path[i], 0, e)))
            break;
        for (size_t k = 0; k < s.n && !rc; k++) {
            if (s.tok[k] == bos) {
                rc = open ? ended(val, training, hash, tokens, e) : ERR_OK;
                open = true;
                hash = tokens = 0;
            }
            hash = (hash ^ s.tok[k]) * 0x9e3779b97f4a7c15u;
            hash ^= hash >> 29;
            tokens++;
        }
        shard_close(&s);
    }
    if (!rc && open)
        rc = ended(val, training, hash, tokens, e);
    shard_list_free(&l);
    return rc;
}

enum err_code overlap_find(struct overlap *o, const char *dir, uint32_t bos, struct err *e)
{
    struct docs val = {0};
    *o = (struct overlap){0};
    enum err_code rc = walk(&val, dir, false, bos, e);
    if (!rc && val.n) {
        qsort(val.d, val.n, sizeof *val.d, by_hash);
        rc = walk(&val, dir, true, bos, e);
    }
    for (size_t i = 0; i < val.n && !rc; i++) {
        o->docs++;
        o->shared += val.d[i].found;
        o->tokens += val.d[i].found ? val.d[i].tokens : 0;
    }
    free(val.d);
    return rc;
}
