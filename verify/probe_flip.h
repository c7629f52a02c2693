/*
 * probe_flip.h - the flip test: change tokens of a stream, and see which scores notice.
 *
 * The score of token x_t may depend on x_1..x_t and nothing else. So when token `at` is the first
 * that differs between two streams, every score of a token before `at` must have the same 64 bits.
 *   form 1  everything from `at` on is other text: no later token at all can hide
 *   form 2  token `at` alone is another one: shows how far one token reaches back
 * Neither form sees whether the score of x_t depends on x_t beyond being its score; that is what
 * the sum over all candidates shows (probe_sum.h).
 *
 * In form 1 every token from `at` on is another one, so in an honest list every score from there on
 * changes as well, but for coincidences. A score that stays the same in several such streams does
 * not depend on the token that it is said to be of, so it holds for each of the `vocab` tokens
 * alike: as a probability it cannot be above 1/vocab. If it is, it is no score of this token.
 *
 * Nothing here runs a program: streams in, scores in, numbers out.
 */
#ifndef VERIFY_PROBE_FLIP_H
#define VERIFY_PROBE_FLIP_H

#include <stdbool.h>
#include <stdint.h>

#include "verify/probe_file.h"

/* probe_random - the next number of a stream of them (splitmix64, Steele, Lea and Flood 2014): the
 * same seed gives the same probe everywhere. */
uint64_t probe_random(uint64_t *state);
/* probe_below - 0 <= result < n, n > 0. */
size_t probe_below(uint64_t *state, size_t n);
/* probe_place - a random place in the i-th of n equal parts of 1..total. */
size_t probe_place(uint64_t *state, size_t total, size_t i, size_t n);

/* probe_other - a random token of the vocabulary that is not `than`. vocab >= 2. */
uint16_t probe_other(uint64_t *state, uint16_t than, size_t vocab);

/*
 * probe_flip_rest - form 1: replace tok[at..n) by text from elsewhere in the data, so that the
 * changed stream is no less like text than the first; where both have the same token, by another.
 *
 *   data, ndata  the tokens to take from, a random place in them
 */
void probe_flip_rest(uint16_t *tok, size_t n, size_t at, const uint16_t *data, size_t ndata,
                     size_t vocab, uint64_t *state);

/* What two lists of scores say about one change. Differences are other - base. */
struct probe_change {
    size_t at;       /* the first token that differs */
    size_t earlier;  /* scores of tokens before it: none may change */
    size_t changed;  /* those that did */
    size_t beyond;   /* those whose window ends before `at`: it was not even in the window */
    size_t distance; /* from `at` back to the first token whose score changed */
    size_t worst_at; /* the token whose score changed most, and by how much */
    double worst;    /* absolute value, nats */
    double sum;      /* of the differences of earlier scores, nats */
    bool own;        /* the score of token `at` itself changed */
};

/* probe_compare - base and other have map->count scores each. */
void probe_compare(struct probe_change *c, const struct probe_map *map, const double *base,
                   const double *other, size_t at);

/* Scores that stay the same while their token changes. */
struct probe_stuck {
    uint8_t *tried, *same; /* [count] streams in which the token was another one; of them, how
                              often the score kept its bits. Zeroed by the caller, who owns them */
};
enum { PROBE_TRIES = 3 }; /* two tokens may well be as likely as each other, not four */
void probe_stuck_add(struct probe_stuck *s, const struct probe_map *map, const double *base,
                     const double *other, size_t at);
/*
 * probe_stuck_count - scores that kept their bits in each of the streams tried, at least
 * PROBE_TRIES, and are too good for that: below ln vocab.
 *
 *   judged  out: scores that were tried as often
 *   first   out: the token of the first stuck score
 */
size_t probe_stuck_count(const struct probe_stuck *s, const struct probe_map *map,
                         const double *base, size_t vocab, size_t *judged, size_t *first);

#endif
