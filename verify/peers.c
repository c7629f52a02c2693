/* peers.c - see peers.h. */
#include "verify/peers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static enum err_code gather(void *ctx, void *all, const void *mine, size_t bytes, struct err *e)
{
    struct peers *p = ctx;
    enum err_code rc = comm_gather(&p->comm, all, mine, bytes, e);
    p->apart |= rc != ERR_OK;
    return rc;
}

static enum err_code swap(void *ctx, const struct score_part *part, size_t n, struct err *e)
{
    struct peers *p = ctx;
    struct comm_part *parts = calloc(n + 1, sizeof *parts);
    struct comm_batch *b = NULL;
    enum err_code rc = parts ? ERR_OK : err_nomem(e, "an exchange", n * sizeof *parts);
    for (size_t i = 0; i < n && !rc; i++)
        parts[i] = (struct comm_part){part[i].peer, part[i].send, part[i].at, part[i].bytes};
    if (!rc && !(rc = comm_start(&p->comm, parts, n, &b, e)))
        rc = comm_wait(&p->comm, &b, e);
    free(parts);
    p->apart |= rc != ERR_OK;
    return rc;
}

enum err_code peers_open(struct peers *p, struct err *e)
{
    *p = (struct peers){0};
    enum err_code rc = comm_open(&p->comm, e);
    p->apart = rc != ERR_OK;
    p->share = (struct score_share){
        .rank = p->comm.rank, .ranks = p->comm.size, .gather = gather, .swap = swap, .ctx = p};
    return rc;
}

void peers_close(struct peers *p, enum err_code status)
{
    if (p->apart)
        comm_abort(&p->comm, (int)status);
    comm_close(&p->comm);
}

bool peers_first(const struct peers *p)
{
    return !p || !p->comm.rank;
}

bool peers_speaks(const struct peers *p)
{
    return peers_first(p) || p->apart;
}

/* What a rank says of itself. */
struct word {
    struct err e;
    uint64_t hash[PEERS_HASHES];
};

/* The error of the lowest rank that failed; e holds this rank's own words. */
static enum err_code worst(const struct word *all, size_t n, struct err *e)
{
    size_t first = 0, same = 0;
    while (first < n && !all[first].e.code)
        first++;
    if (first == n)
        return ERR_OK;
    const struct err *why = &all[first].e;
    while (same < n && all[same].e.code == why->code && !strcmp(all[same].e.msg, why->msg))
        same++;
    *e = (struct err){0};
    return same == n ? err_set(e, why->code, "%s", why->msg)
                     : err_set(e, why->code, "rank %zu: %s", first, why->msg);
}

enum err_code peers_agree(struct peers *p, enum err_code mine, const char *const *name,
                          const uint64_t *hash, size_t n, struct err *e)
{
    struct word word = {.e.code = mine}, *all;
    enum err_code rc;
    assert(n <= PEERS_HASHES);
    if (!p || p->comm.size == 1)
        return mine;
    if (mine)
        word.e = *e;
    else if (n)
        memcpy(word.hash, hash, n * sizeof *hash);
    all = calloc(p->comm.size, sizeof *all);
    if (!all) {
        p->apart = true;
        return err_nomem(e, "what the ranks say", p->comm.size * sizeof *all);
    }
    if ((rc = gather(p, all, &word, sizeof word, e)) || (rc = worst(all, p->comm.size, e)))
        goto out;
    for (size_t i = 0; i < n && !rc; i++)
        for (size_t k = 1; k < p->comm.size && !rc; k++)
            if (all[k].hash[i] != all[0].hash[i])
                rc = err_set(e, ERR_INPUT, "rank %zu has not the same %s as rank 0", k, name[i]);
out:
    free(all);
    return rc;
}

enum err_code peers_device(struct peers *p, struct kern *k, struct err *e)
{
    if (!p || p->comm.size == 1 || p->comm.device_ops)
        return ERR_OK;
    return peers_agree(p, comm_device(&p->comm, k, e), NULL, NULL, 0, e);
}

const struct score_share *peers_share(const struct peers *p)
{
    return p ? &p->share : NULL;
}
