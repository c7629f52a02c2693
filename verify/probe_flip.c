/* probe_flip.c - see probe_flip.h. */
#include "verify/probe_flip.h"

#include <math.h>
#include <string.h>

uint64_t probe_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t probe_below(uint64_t *state, size_t n)
{
    return (size_t)(probe_random(state) % n); /* n is far below 2^64: no bias that matters */
}

size_t probe_place(uint64_t *state, size_t total, size_t i, size_t n)
{
    size_t from = total * i / n, to = total * (i + 1) / n;
    return 1 + from + probe_below(state, to > from ? to - from : 1);
}

uint16_t probe_other(uint64_t *state, uint16_t than, size_t vocab)
{
    size_t v = probe_below(state, vocab - 1);
    return (uint16_t)(v + (v >= than));
}

void probe_flip_rest(uint16_t *tok, size_t n, size_t at, const uint16_t *data, size_t ndata,
                     size_t vocab, uint64_t *state)
{
    size_t from = probe_below(state, ndata);
    for (size_t i = at; i < n; i++) {
        uint16_t t = data[(from + i - at) % ndata];
        tok[i] = t == tok[i] ? probe_other(state, t, vocab) : t;
    }
}

static bool same_bits(double a, double b)
{
    return !memcmp(&a, &b, sizeof a);
}

void probe_compare(struct probe_change *c, const struct probe_map *map, const double *base,
                   const double *other, size_t at)
{
    *c = (struct probe_change){.at = at};
    for (size_t i = 0; i < map->count; i++) {
        size_t t = map->token[i];
        bool changed = !same_bits(base[i], other[i]);
        if (t == at && changed)
            c->own = true;
        if (t >= at)
            continue;
        c->earlier++;
        if (!changed)
            continue;
        double by = other[i] - base[i];
        c->changed++;
        c->beyond += map->reach[i] < at;
        c->sum += by;
        if (at - t > c->distance)
            c->distance = at - t;
        if (!isnan(c->worst) && !(fabs(by) <= c->worst)) { /* not a number is worst */
            c->worst = fabs(by);
            c->worst_at = t;
        }
    }
}

void probe_stuck_add(struct probe_stuck *s, const struct probe_map *map, const double *base,
                     const double *other, size_t at)
{
    for (size_t i = 0; i < map->count; i++)
        if (map->token[i] >= at && s->tried[i] < UINT8_MAX) {
            s->tried[i]++;
            s->same[i] = (uint8_t)(s->same[i] + same_bits(base[i], other[i]));
        }
}

size_t probe_stuck_count(const struct probe_stuck *s, const struct probe_map *map,
                         const double *base, size_t vocab, size_t *judged, size_t *first)
{
    /* A little below, for what rounds: uniform probabilities are exactly at ln vocab. */
    double most = log((double)vocab) - 0.01;
    size_t stuck = 0;
    *judged = *first = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (s->tried[i] < PROBE_TRIES)
            continue;
        ++*judged;
        if (s->same[i] != s->tried[i] || !(base[i] < most))
            continue;
        if (!stuck++)
            *first = map->token[i];
    }
    return stuck;
}
