/*
 * scorer.h - what score.c, slot.c and ttt.c share: one run over a stream, in batches of windows of
 * one shape. Private to model/; score.h is the interface.
 */
#ifndef MODEL_SCORER_H
#define MODEL_SCORER_H

#include "model/score.h"

struct scorer {
    const struct gpt *m;
    struct kern *k;
    const float *params; /* what is scored: the caller's weights, or an adapted copy */
    const uint16_t *tok;
    const struct byte_table *b;
    const struct score_opts *o;
    size_t batch;            /* windows per run */
    size_t done, all;        /* windows, and sequences of training, for o->progress */
    struct graph g;          /* planned for `planned` windows of t rows, from; planned 0: not yet */
    size_t planned, t, from; /* of the plan */
    uint16_t *ids, *target;  /* host, [rows] each */
    float *nll;              /* host, [rows] */
    double *wide;            /* host, [rows] */
    size_t rows;             /* room in the four */
    /* For tests: what SLOT fitted for the deltas of a batch that begins with window i, in backend
     * memory: [deltas][dim], then in mode slot [deltas][vocab]. May be NULL. */
    void (*fitted)(void *ctx, size_t i, size_t deltas, const float *x);
    void *fitted_ctx;
};

/* scorer_room - make room for runs of `rows` rows. ERR_RESOURCE. */
enum err_code scorer_room(struct scorer *s, size_t rows, struct err *e);
void scorer_free(struct scorer *s);

/* scorer_same - how many windows from i on, at most `most` and before `end`, have i's shape. */
size_t scorer_same(const struct window_list *l, size_t i, size_t end, size_t most);

/*
 * scorer_forward - run windows i..i+n of a list, which have one shape, for the rows from `first`
 * on.
 *
 * s->target gets the targets of these rows, [n][len - first]. With `head` s->nll gets their losses;
 * without, the head is left out and graph_hidden(&s->g) is what it would read.
 */
enum err_code scorer_forward(struct scorer *s, const struct window_list *l, size_t i, size_t n,
                             size_t first, bool head, struct err *e);

/* scorer_take - add the losses s->nll [n][len - from] of windows i..i+n to `to`; with `give` they
 * go to the caller's sink as well. ERR_INPUT when one is not finite. */
enum err_code scorer_take(struct scorer *s, const struct window_list *l, size_t i, size_t n,
                          struct score *to, bool give, struct err *e);

/* scorer_advance - n more windows or sequences are done. */
void scorer_advance(struct scorer *s, size_t n);

/* scorer_windows - score windows i..end of a list with the weights as they are. */
enum err_code scorer_windows(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                             struct score *to, bool give, struct err *e);

/* slot_check, ttt_check - settings that make no sense are ERR_USAGE that says why. */
enum err_code slot_check(const struct recipe *r, struct err *e);
enum err_code ttt_check(const struct recipe *r, struct err *e);

/* slot_run - SLOT in the form that l->mode and the recipe name (slot.c) on windows i..end of a
 * list; the scores of the same windows without it go to `record`, unless that is NULL. i is a
 * multiple of SLOT_BATCH_SEQS, and end as well or the end of the list. */
enum err_code slot_run(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                       struct score *to, struct score *record, struct err *e);

/*
 * scorer_share - windows i..end of a list, shared with the other ranks of s->o->share; called by
 * all of them (share.c).
 *
 *   unit    windows that must stay together; ranges begin at i + a multiple of it
 *   run     scores a range of windows, in order, by scorer_take
 *   record  where its second kind of scores goes; NULL: it has none
 *
 * Ends as run, scorer_take or the caller's sink do on the lowest rank where one of them fails; the
 * message then begins with "rank N: ". ERR_RESOURCE: memory; or as score_share's gather.
 */
typedef enum err_code share_run(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                                struct score *to, struct score *record, struct err *e);
enum err_code scorer_share(struct scorer *s, const struct window_list *l, size_t i, size_t end,
                           size_t unit, share_run *run, struct score *to, struct score *record,
                           bool give, struct err *e);

/* share_hear - all that the ranks gave to a gather of `bytes`, each beginning with its struct err:
 * the lowest rank's error, with its number, or ERR_OK. */
enum err_code share_hear(const struct score_share *h, const uint8_t *all, size_t bytes,
                         struct err *e);

/* scorer_shared - is the work to be shared? scorer_trains - the rows of training too? scorer_range
 * - is it one of the ranges that it was cut
 * into? Then s->o are options for that, and all losses are given to the sink: of each batch those
 * of the record, if there is one, and then the mode's. Neither happens in a runner. */
static inline bool scorer_shared(const struct scorer *s)
{
    return !IN_RUNNER && s->o->share && s->o->share->ranks > 1;
}
static inline bool scorer_trains(const struct scorer *s)
{
    return scorer_shared(s) && s->o->share->swap;
}
static inline bool scorer_range(const struct scorer *s)
{
    return !IN_RUNNER && s->o->share && !s->o->share->ranks;
}

#endif
