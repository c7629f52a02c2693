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

/* slot_run - SLOT in the form that l->mode and the recipe name (slot.c); the scores of the same
 * windows without it go to `record`, unless that is NULL. */
enum err_code slot_run(struct scorer *s, const struct window_list *l, struct score *to,
                       struct score *record, struct err *e);

#endif
