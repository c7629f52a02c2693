/* coprime.c - see coprime.h. */
#include "trainer/coprime.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/power.h"

struct bucket {
    size_t cursor, count;
    size_t first, left; /* its windows not yet dealt: dealt[first ..], the last one goes first */
};

struct coprime_scratch {
    double *prob, *share, *work;             /* [shards], [shards], [2*shards] */
    size_t *pick, *perm, *active, *order;    /* [shards], [max(shards, batch)], 2 x [shards] */
    int64_t *extra;                          /* [shards] */
    struct bucket *bucket;                   /* [shards] */
    struct coprime_window *taken, *shuffled; /* [batch] */
};

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t max2(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- seed ---- */

/* FNV's prime; the originals leave out its offset basis. */
static uint64_t hash_byte(uint64_t h, char c)
{
    return (h ^ (uint8_t)c) * 1099511628211u;
}

uint64_t coprime_seed(uint64_t h, const char *path)
{
    bool first = *path != '/';
    /* Exactly two leading slashes are a root of their own, to POSIX and so to pathlib. */
    if (path[0] == '/' && path[1] == '/' && path[2] != '/')
        h = hash_byte(h, '/');
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n && !(n == 1 && *p == '.')) {
            if (!first)
                h = hash_byte(h, '/');
            first = false;
            for (size_t i = 0; i < n; i++)
                h = hash_byte(h, p[i]);
        }
        p += n + (p[n] == '/');
    }
    return h;
}

/* ---- memory ---- */

void coprime_free(struct coprime *c)
{
    struct coprime_scratch *s = c->tmp;
    if (s) {
        void *const all[] = {s->prob,  s->share, s->work,   s->pick,  s->perm,    s->active,
                             s->order, s->extra, s->bucket, s->taken, s->shuffled};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
    }
    free(s);
    free(c->cursor);
    free(c->window);
    *c = (struct coprime){0};
}

static bool alloc(struct coprime *c, size_t shards)
{
    struct coprime_scratch *s = c->tmp = calloc(1, sizeof *s);
    c->cursor = calloc(shards, sizeof *c->cursor);
    c->window = calloc(c->batch, sizeof *c->window);
    if (!s)
        return false;
    s->prob = calloc(shards, sizeof *s->prob);
    s->share = calloc(shards, sizeof *s->share);
    s->work = calloc(shards, 2 * sizeof *s->work);
    s->pick = calloc(shards, sizeof *s->pick);
    s->perm = calloc(max2(shards, c->batch), sizeof *s->perm);
    s->active = calloc(shards, sizeof *s->active);
    s->order = calloc(shards, sizeof *s->order);
    s->extra = calloc(shards, sizeof *s->extra);
    s->bucket = calloc(shards, sizeof *s->bucket);
    s->taken = calloc(c->batch, sizeof *s->taken);
    s->shuffled = calloc(c->batch, sizeof *s->shuffled);
    return c->cursor && c->window && s->prob && s->share && s->work && s->pick && s->perm &&
           s->active && s->order && s->extra && s->bucket && s->taken && s->shuffled;
}

enum err_code coprime_init(struct coprime *c, uint64_t seed, const size_t *tokens, size_t shards,
                           size_t t, size_t batch, size_t ranks, struct err *e)
{
    assert(shards && t && batch && ranks);
    *c = (struct coprime){.t = t, .batch = batch, .ranks = ranks};
    if (!alloc(c, shards)) {
        coprime_free(c);
        return err_nomem(e, "order of the training data", shards * sizeof *c->cursor);
    }
    for (size_t i = 0; i < shards; i++)
        if (tokens[i] > t)
            c->cursor[c->shards++] = (struct coprime_cursor){.shard = i, .tokens = tokens[i]};
    if (!c->shards) {
        coprime_free(c);
        return err_set(e, ERR_INPUT, "no train shard has the %zu tokens of a window and its target",
                       t + 1);
    }
    coprime_restart(c, seed);
    return ERR_OK;
}

void coprime_restart(struct coprime *c, uint64_t seed)
{
    c->seed = seed;
    c->built = 0;
    pcg64_seed(&c->g, seed);
    for (size_t i = 0; i < c->shards; i++)
        c->cursor[i] =
            (struct coprime_cursor){.shard = c->cursor[i].shard, .tokens = c->cursor[i].tokens};
}

/* ---- one shard ---- */

static bool coprime(size_t a, size_t b)
{
    while (b) {
        size_t r = a % b;
        a = b;
        b = r;
    }
    return a == 1;
}

static void restart_cursor(struct coprime_cursor *s, size_t t, struct pcg64 *g)
{
    s->phase = (size_t)pcg64_below(g, min2(t - 1, s->tokens - t - 1) + 1);
    s->blocks = (s->tokens - 1 - s->phase) / t;
    s->start = (size_t)pcg64_below(g, s->blocks);
    s->next = 0;
    s->stride = 1;
    if (s->blocks > 1)
        do
            s->stride = 1 + (size_t)pcg64_below(g, s->blocks - 1);
        while (!coprime(s->stride, s->blocks));
}

static void take(struct coprime_cursor *s, size_t t, struct pcg64 *g, struct coprime_window *out,
                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (s->next == s->blocks)
            restart_cursor(s, t, g);
        size_t block = (s->start + s->next++ * s->stride) % s->blocks;
        out[i] = (struct coprime_window){s->shard, s->phase + block * t};
    }
}

/* ---- one batch ---- */

/* np.sum of doubles: up to 8 one after another, up to 128 in eight running sums, more in halves. */
static double sum(const double *x, size_t n)
{
    double r[8], s = 0;
    if (n > 128) {
        size_t half = n / 2 - n / 2 % 8;
        return sum(x, half) + sum(x + half, n - half);
    }
    size_t whole = n < 8 ? 0 : n - n % 8;
    if (whole) {
        memcpy(r, x, sizeof r);
        for (size_t i = 8; i < whole; i++)
            r[i % 8] += x[i];
        s = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    }
    for (size_t i = whole; i < n; i++)
        s += x[i];
    return s;
}

static void divide(double *x, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        x[i] /= by;
}

/* The shards of the batch, in the order picked, into tmp->pick; how many. */
static size_t pick_shards(struct coprime *c)
{
    struct coprime_scratch *s = c->tmp;
    double p = fmin((double)c->built / 1800.0, 1.0), alpha = 0.90 - 0.40 * p;
    size_t most = min2(c->shards, c->batch), lo = min2(max2(8, c->ranks), most),
           hi = min2(max2(32, 8 * c->ranks), most);
    /* rint: ties to even, as Python's round. */
    size_t m = (size_t)rint((double)lo + p * (double)(hi - lo));
    for (size_t i = 0; i < c->shards; i++) {
        const struct coprime_cursor *at = &c->cursor[i];
        size_t left = at->blocks ? max2(at->blocks - at->next, 1) : (at->tokens - 1) / c->t;
        s->prob[i] = power((double)left, alpha);
    }
    divide(s->prob, c->shards, sum(s->prob, c->shards));
    pcg64_choice(&c->g, s->pick, m, s->prob, c->shards, s->work);
    return m;
}

/* tmp->bucket [m]: the picked shards with their number of windows, in random order. */
static void share_out(struct coprime *c, size_t m)
{
    struct coprime_scratch *s = c->tmp;
    for (size_t i = 0; i < m; i++)
        s->share[i] = s->prob[s->pick[i]];
    divide(s->share, m, sum(s->share, m));
    pcg64_multinomial(&c->g, s->extra, (int64_t)(c->batch - m), s->share, m);
    pcg64_permutation(&c->g, s->perm, m);
    for (size_t i = 0; i < m; i++)
        s->bucket[i] = (struct bucket){.cursor = s->pick[s->perm[i]],
                                       .count = 1 + (size_t)s->extra[s->perm[i]]};
}

static void fill(struct coprime *c, size_t m)
{
    struct coprime_scratch *s = c->tmp;
    size_t at = 0;
    for (size_t i = 0; i < m; at += s->bucket[i++].count) {
        struct bucket *b = &s->bucket[i];
        take(&c->cursor[b->cursor], c->t, &c->g, s->taken, b->count);
        pcg64_permutation(&c->g, s->perm, b->count);
        for (size_t j = 0; j < b->count; j++)
            s->shuffled[at + j] = s->taken[s->perm[j]];
        b->first = at;
        b->left = b->count;
    }
}

/* The windows of the buckets in the order dealt, into tmp->taken. */
static void deal(struct coprime *c, size_t m)
{
    struct coprime_scratch *s = c->tmp;
    size_t at = 0, active = m;
    for (size_t i = 0; i < m; i++)
        s->active[i] = i;
    while (active) {
        size_t still = 0;
        pcg64_permutation(&c->g, s->perm, active);
        for (size_t i = 0; i < active; i++) {
            struct bucket *b = &s->bucket[s->active[s->perm[i]]];
            s->taken[at++] = s->shuffled[b->first + --b->left];
            if (b->left)
                s->order[still++] = s->active[s->perm[i]];
        }
        memcpy(s->active, s->order, still * sizeof *s->order);
        active = still;
    }
    assert(at == c->batch);
}

void coprime_next(struct coprime *c)
{
    size_t m = pick_shards(c), at = 0;
    share_out(c, m);
    fill(c, m);
    deal(c, m);
    for (size_t rank = 0; rank < c->ranks; rank++)
        for (size_t i = rank; i < c->batch; i += c->ranks)
            c->window[at++] = c->tmp->taken[i];
    c->built++;
}
