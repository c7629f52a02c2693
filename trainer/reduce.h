/*
 * reduce.h - one gradient out of those of all micro-batches, on all ranks: the sums of split.h, and
 * the way that they travel.
 *
 * While the micro-batches run, finished groups wait on a stack of blocks for their siblings. When
 * the last micro-batch of a rank is on its way back, its gradients become final one after another,
 * the head's first, the embedding's last. So pieces (piece.h) are put together in that order to
 * buckets of REDUCE_BUCKET floats or an eighth of the model; as soon as a bucket is final it is
 * added to what waits for it, and its sums leave for the owners of its pieces, while the rest of
 * the backward pass runs. An owner receives the sums of all ranks and adds them up in the tree's
 * order: a reduce-scatter whose result does not depend on the ranks. Bytes per rank where N ranks
 * have one sum each: it sends what it does not own, and receives N-1 times what it owns.
 *
 * Memory beside the gradients: the stack, and an inbox for the sums of the others.
 *
 * For one rank nothing travels, and the stack is all that there is.
 */
#ifndef TRAINER_REDUCE_H
#define TRAINER_REDUCE_H

#include "trainer/comm.h"
#include "trainer/piece.h"
#include "trainer/split.h"

/* 4 MiB: large enough to hide the latency of a message. Small models are cut finer all the same, so
 * that they have anything to overlap. */
enum { REDUCE_BUCKET = 1 << 20, REDUCE_BUCKETS = 8 };

/* Pieces order[first .. first+count), final at time `when` of the backward pass. */
struct bucket {
    size_t first, count, when;
    struct comm_batch *batch;
};

/* How one rank shares in a step. */
struct reduce_share {
    size_t groups;
    struct split_range group, micro;
    struct split_node node[SPLIT_NODES]; /* the sums that it comes to */
    size_t nodes, stack;                 /* blocks of the stack */
};

struct reduce {
    struct kern *k;
    struct comm *c; /* NULL: alone */
    const struct piece_list *p;
    float *grads; /* [floats], the caller's */
    size_t floats, micros;
    struct reduce_share mine;
    /* Sums of finished groups: node[i] is in stack[i]. The group that is being made is in grads. */
    float *stack[SPLIT_NODES];
    struct split_node node[SPLIT_NODES];
    size_t nodes, done; /* done: micro-batches so far */
    size_t joins;       /* nodes that the last group is added to */
    /* Several ranks. */
    struct sum {
        struct split_node node;
        size_t rank;
    } * sum; /* what all ranks come to, in the order of the tree */
    size_t sums;
    float *inbox;
    size_t *inbox_at; /* [pieces] of those owned */
    size_t *order;    /* [pieces] */
    size_t *when;     /* [pieces] */
    struct bucket *bucket;
    size_t buckets, next; /* not yet started */
    struct comm_part *part;
    enum err_code failed;
    struct err why;
};

/* reduce_share - of rank `rank` of `ranks` in steps of `micros` micro-batches. ranks may not exceed
 * groups, which is min(grad_ranks, micros). */
void reduce_share(struct reduce_share *s, size_t micros, size_t grad_ranks, size_t rank,
                  size_t ranks);

/* reduce_inbox - floats of the inbox of the rank that p is for. */
size_t reduce_inbox(const struct piece_list *p, size_t micros, size_t grad_ranks);

/* reduce_init - c NULL: alone. p, c and the block grads must outlive r. Not for more ranks than
 * groups, which plan_ranks (plan.h) refuses. ERR_RESOURCE: memory. */
enum err_code reduce_init(struct reduce *r, struct kern *k, struct comm *c,
                          const struct piece_list *p, float *grads, size_t floats, size_t micros,
                          size_t grad_ranks, struct err *e);
void reduce_free(struct reduce *r); /* accepts a zeroed struct */

/* reduce_buckets - the order in which the backward pass of g finishes the parameters of m: after
 * each planning of the graph. */
void reduce_buckets(struct reduce *r, const struct gpt *m, const struct graph *g);

/* reduce_begin - a new step: zero gradients. */
void reduce_begin(struct reduce *r);

/* reduce_last - is the next micro-batch of this rank its last one? Then buckets may leave during
 * its backward pass: reduce_done is the graph's hook for that (graph.h, `done`). */
bool reduce_last(const struct reduce *r);
void reduce_done(void *reduce, size_t nodes);

/* reduce_closes - is the next micro-batch the last of its group? *micros are all of the group. When
 * its gradients have been added to grads, the group's gradient is there until reduce_micro. */
bool reduce_closes(const struct reduce *r, struct split_range *micros);

/* reduce_micro - the gradients of a micro-batch have been added to grads. */
void reduce_micro(struct reduce *r);

/*
 * reduce_end - after the last micro-batch: what has not left leaves, and when this returns grads
 * holds, in the pieces that this rank owns, the gradient of the whole step.
 *
 * A rank that could not do its micro-batches calls it all the same (the others wait for its sums)
 * and then sees to it that nobody uses the result. ERR_RESOURCE, as comm_wait.
 */
enum err_code reduce_end(struct reduce *r, struct err *e);

#endif
