/*
 * split.h - how a step is cut, so that its sums do not depend on how many processes share the work.
 *
 * A step has M micro-batches in the order of the data. They are cut into G = min(GRAD_RANKS, M)
 * groups, neighbours together. The gradient of a group is the sum over its micro-batches, one after
 * another. Groups are the leaves of a fixed binary tree, whose inner nodes add left + right:
 *
 *     a node over n > 1 leaves has the largest power of two below n of them on its left
 *
 *     7 leaves:    ((0 1) (2 3)) ((4 5) 6)
 *
 * (the tree of BLAKE3, and of a binary counter that carries.) N ranks take neighbouring groups, so
 * what a rank has is the sums of a few whole subtrees: one where N is a power of two that divides
 * G. Whoever adds the others up does it in the tree's order, and the result has the bits of one
 * process.
 */
#ifndef TRAINER_SPLIT_H
#define TRAINER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

/* SPLIT_GROUPS - largest GRAD_RANKS. SPLIT_NODES - most subtrees that neighbouring leaves are made
 * of: with 512 leaves at most two of each size below 512. */
enum { SPLIT_GROUPS = 512, SPLIT_NODES = 18 };

struct split_range {
    size_t from, count;
};

/* split_range - part i of n things in `parts` parts: sizes differ by at most one, longer first. */
struct split_range split_range(size_t n, size_t parts, size_t i);

/* split_part - the part that thing number `at` of them lies in. */
size_t split_part(size_t n, size_t parts, size_t at);

/* Leaves [from, to) of the tree. */
struct split_node {
    size_t from, to;
};

/* split_siblings - are a and b, side by side, the two halves of a node of the tree over `leaves`?
 */
bool split_siblings(size_t leaves, struct split_node a, struct split_node b);

/*
 * split_push - the next leaf is there: add it to the nodes, from left to right and none of them
 * siblings, and join siblings as long as there are any at the end. Returns how many joins that
 * were; *n is the number of nodes.
 *
 *   node  [SPLIT_NODES]
 */
size_t split_push(size_t leaves, struct split_node *node, size_t *n, size_t leaf);

/* split_nodes - the largest subtrees that `range` of the leaves is made of, into out[SPLIT_NODES];
 * returns how many. *most, unless NULL, is the largest number of nodes that wait for a sibling
 * while the leaves come one after another: the room that adding them up takes. */
size_t split_nodes(size_t leaves, struct split_range range, struct split_node *out, size_t *most);

#endif
