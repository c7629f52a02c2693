/* loader.c - see loader.h. */
#include "trainer/loader.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "trainer/hash.h"
#include "trainer/split.h"

enum { RANKS = 8 }; /* of the originals, for LOADER=coprime LOADER_RANKS=0 */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- the sequential stream ---- */

static void unmap(struct loader *l)
{
    if (l->cur.map)
        shard_close(&l->cur);
    l->cur = (struct shard){0};
}

static enum err_code map(struct loader *l, struct err *e)
{
    return l->cur.map ? ERR_OK : shard_open(&l->cur, l->list.path[l->shard], l->vocab, e);
}

/* The next n tokens; out NULL: they are passed over. */
static enum err_code stream_take(struct loader *l, uint16_t *out, size_t n, struct err *e)
{
    enum err_code rc;
    while (n) {
        if ((rc = map(l, e)))
            return rc;
        size_t left = l->cur.n - l->pos, take = n < left ? n : left;
        if (out) {
            memcpy(out, l->cur.tok + l->pos, take * sizeof *out);
            out += take;
        }
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

/* A piece of a span: `seqs` windows that share their border tokens. The token before the first
 * target is read anew when the span begins, else it is the last target of the piece before. */
static enum err_code span_take(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                               bool begins, struct err *e)
{
    size_t n = seqs * l->t;
    enum err_code rc = ERR_OK;
    if (begins)
        rc = stream_take(l, &l->last, 1, e);
    if (rc || (rc = stream_take(l, target, n, e)))
        return rc;
    ids[0] = l->last;
    memcpy(ids + 1, target, (n - 1) * sizeof *ids);
    l->last = target[n - 1];
    return ERR_OK;
}

/* Where the span that holds window `at` of a batch begins and ends. */
static void span_of(const struct loader *l, size_t at, size_t *from, size_t *to)
{
    struct split_range span = split_range(l->batch, l->ranks, split_part(l->batch, l->ranks, at));
    *from = span.from;
    *to = span.from + span.count;
}

static enum err_code sequential_next(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                                     struct err *e)
{
    if (!l->ranks)
        return span_take(l, ids, target, seqs, true, e);
    while (seqs) {
        size_t from, to;
        span_of(l, l->at, &from, &to);
        size_t n = seqs < to - l->at ? seqs : to - l->at;
        enum err_code rc = span_take(l, ids, target, n, l->at == from, e);
        if (rc)
            return rc;
        ids += n * l->t;
        target += n * l->t;
        seqs -= n;
        l->at = (l->at + n) % l->batch;
    }
    return ERR_OK;
}

/* As sequential_next, but nobody wants the tokens; the last one may be the input of a window that
 * is taken. */
static enum err_code sequential_pass(struct loader *l, size_t seqs, size_t count, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (!l->ranks)
        return stream_take(l, NULL, count * (seqs * l->t + 1), e);
    for (size_t left = seqs * count; left && !rc;) {
        size_t from, to;
        span_of(l, l->at, &from, &to);
        size_t n = left < to - l->at ? left : to - l->at;
        if (!(rc = stream_take(l, NULL, n * l->t + (l->at == from) - 1, e)))
            rc = stream_take(l, &l->last, 1, e);
        left -= n;
        l->at = (l->at + n) % l->batch;
    }
    return rc;
}

/* Pass over what is left of a batch of which `seqs` windows were taken. */
static enum err_code sequential_skip(struct loader *l, size_t seqs, struct err *e)
{
    enum err_code rc = ERR_OK;
    size_t from, to;
    if (!l->ranks)
        for (size_t i = seqs; !rc && seqs <= l->batch && i <= l->batch - seqs; i += seqs)
            rc = stream_take(l, NULL, seqs * l->t + 1, e);
    while (!rc && l->at) {
        span_of(l, l->at, &from, &to);
        rc = stream_take(l, NULL, (to - l->at) * l->t + (l->at == from), e);
        l->at = to % l->batch;
    }
    return rc;
}

/* ---- the coprime order ---- */

static size_t total_tokens(const struct loader *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->list.count; i++)
        n += l->map[i].n;
    return n;
}

static enum err_code coprime_open(struct loader *l, struct err *e)
{
    size_t count = l->list.count, *tokens = calloc(count, sizeof *tokens);
    uint64_t seed = 0, files = 0;
    enum err_code rc = ERR_OK;
    l->map = calloc(count, sizeof *l->map);
    if (!tokens || !l->map)
        rc = err_nomem(e, "train shards", count * sizeof *l->map);
    for (size_t i = 0; !rc && i < count; i++) {
        const char *name = base_name(l->list.path[i]);
        if ((rc = shard_open(&l->map[i], l->list.path[i], 0, e)))
            break;
        /* A window is two or three pages anywhere. Without this advice each one brings in all that
         * the kernel reads ahead: 4.7 ms a window against 0.02 on one machine. */
        posix_madvise((void *)(uintptr_t)l->map[i].map, l->map[i].map_bytes, POSIX_MADV_RANDOM);
        tokens[i] = l->map[i].n;
        seed = coprime_seed(seed, l->list.path[i]);
        files = hash_bytes(name, strlen(name) + 1, files);
        files = hash_bytes(&tokens[i], sizeof tokens[i], files);
    }
    hash_hex(files, l->files);
    if (!rc)
        rc = coprime_init(&l->order, seed, tokens, count, l->t, l->batch, l->ranks, e);
    free(tokens);
    return rc;
}

static enum err_code window_take(struct loader *l, uint16_t *ids, uint16_t *target, struct err *e)
{
    struct coprime_window w = l->order.window[l->at];
    const uint16_t *tok = l->map[w.shard].tok + w.pos;
    for (size_t i = 0; i <= l->t; i++)
        if (tok[i] >= l->vocab)
            return err_set(e, ERR_INPUT, "%s: token %zu is %u, the vocabulary has %zu",
                           l->list.path[w.shard], w.pos + i, (unsigned)tok[i], l->vocab);
    memcpy(ids, tok, l->t * sizeof *ids);
    memcpy(target, tok + 1, l->t * sizeof *target);
    return ERR_OK;
}

static enum err_code coprime_take(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                                  struct err *e)
{
    for (size_t i = 0; i < seqs; i++) {
        if (!l->at)
            coprime_next(&l->order);
        enum err_code rc = window_take(l, ids + i * l->t, target + i * l->t, e);
        if (rc)
            return rc;
        l->at = (l->at + 1) % l->batch;
    }
    return ERR_OK;
}

static void coprime_pass(struct loader *l, size_t seqs)
{
    for (size_t n; seqs; seqs -= n) {
        if (!l->at)
            coprime_next(&l->order);
        n = seqs < l->batch - l->at ? seqs : l->batch - l->at;
        l->at = (l->at + n) % l->batch;
    }
}

/* ---- both ---- */

enum err_code loader_check(const struct recipe *r, struct err *e)
{
    if (strcmp(r->loader, "sequential") != 0 && strcmp(r->loader, "coprime") != 0)
        return err_set(e, ERR_USAGE, "LOADER=%s: expected sequential or coprime", r->loader);
    if (r->loader_ranks < 0 || r->loader_ranks > 1 << 16)
        return err_set(e, ERR_USAGE, "LOADER_RANKS=%lld: must be 0 to %d",
                       (long long)r->loader_ranks, 1 << 16);
    if (r->train_seq_len < 1 || r->train_batch_tokens < r->train_seq_len)
        return err_set(e, ERR_USAGE, "TRAIN_BATCH_TOKENS=%lld is no sequence of TRAIN_SEQ_LEN=%lld",
                       (long long)r->train_batch_tokens, (long long)r->train_seq_len);
    return ERR_OK;
}

enum err_code loader_open(struct loader *l, const struct recipe *r, const char *dir, struct err *e)
{
    enum err_code rc = loader_check(r, e);
    *l = (struct loader){0};
    if (rc)
        return rc;
    l->vocab = (size_t)r->vocab_size;
    l->t = (size_t)r->train_seq_len;
    l->batch = (size_t)(r->train_batch_tokens / r->train_seq_len);
    l->coprime = strcmp(r->loader, "coprime") == 0;
    l->ranks = (size_t)r->loader_ranks;
    if (l->coprime && !l->ranks)
        l->ranks = RANKS;
    if (l->ranks > l->batch && !l->coprime)
        l->ranks = l->batch; /* the others would have no window */
    if (!(rc = shard_list(&l->list, dir, "train", e)) && l->coprime)
        rc = coprime_open(l, e);
    if (rc)
        loader_close(l);
    return rc;
}

void loader_close(struct loader *l)
{
    unmap(l);
    for (size_t i = 0; l->map && i < l->list.count; i++)
        if (l->map[i].map)
            shard_close(&l->map[i]);
    free(l->map);
    coprime_free(&l->order);
    shard_list_free(&l->list);
    *l = (struct loader){0};
}

enum err_code loader_next(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                          struct err *e)
{
    assert(seqs);
    return l->coprime ? coprime_take(l, ids, target, seqs, e)
                      : sequential_next(l, ids, target, seqs, e);
}

enum err_code loader_skip(struct loader *l, size_t seqs, size_t count, struct err *e)
{
    if (!l->coprime)
        return sequential_pass(l, seqs, count, e);
    coprime_pass(l, seqs * count);
    return ERR_OK;
}

enum err_code loader_share(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs,
                           struct err *e)
{
    assert(l->at == 0);
    enum err_code rc = loader_next(l, ids, target, seqs, e);
    if (!rc && !l->coprime)
        return sequential_skip(l, seqs, e);
    l->at = 0;
    return rc;
}

void loader_restart(struct loader *l)
{
    l->at = 0;
    if (l->coprime) {
        coprime_restart(&l->order, l->order.seed);
        return;
    }
    unmap(l);
    l->shard = l->pos = 0;
}

/* ---- position ---- */

enum err_code loader_tell(struct loader *l, struct loader_pos *p, struct err *e)
{
    assert(l->at == 0);
    *p = (struct loader_pos){.shards = l->list.count};
    if (l->coprime) {
        p->pos = l->order.built;
        p->shard_tokens = total_tokens(l);
        snprintf(p->name, sizeof p->name, "coprime %016llx %s", (unsigned long long)l->order.seed,
                 l->files);
        return ERR_OK;
    }
    enum err_code rc = map(l, e);
    if (rc)
        return rc;
    p->shard = l->shard;
    p->pos = l->pos;
    p->shard_tokens = l->cur.n;
    snprintf(p->name, sizeof p->name, "%s", base_name(l->list.path[l->shard]));
    return ERR_OK;
}

static enum err_code coprime_seek(struct loader *l, const struct loader_pos *p, struct err *e)
{
    unsigned long long seed;
    char files[17];
    if (sscanf(p->name, "coprime %16llx %16s", &seed, files) != 2)
        return err_set(e, ERR_INPUT, "the checkpoint holds no place of the coprime order, but %s",
                       p->name);
    if (strcmp(files, l->files) != 0 || p->shard_tokens != total_tokens(l))
        return err_set(e, ERR_INPUT,
                       "data changed: other names or lengths of train shards than at the "
                       "checkpoint (%zu tokens now, %zu then)",
                       total_tokens(l), p->shard_tokens);
    coprime_restart(&l->order, seed);
    while (l->order.built < p->pos)
        coprime_next(&l->order);
    return ERR_OK;
}

enum err_code loader_seek(struct loader *l, const struct loader_pos *p, struct err *e)
{
    enum err_code rc;
    if (p->shards != l->list.count || p->shard >= l->list.count)
        return err_set(e, ERR_INPUT, "data changed: %zu train shards now, %zu at the checkpoint",
                       l->list.count, p->shards);
    l->at = 0;
    if (l->coprime)
        return coprime_seek(l, p, e);
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
