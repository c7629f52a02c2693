/*
 * split_test.c - exists for the sum that has other bits on three processes than on one: a
 * micro-batch in two groups or in none, a rank that adds up what is no subtree, an owner that joins
 * in another order.
 */
#include "tests/unit/toy_run.h"
#include "trainer/split.h"

/* Sums whose bits tell every order apart, and half of the tree from the other. */
static float leaf(size_t i)
{
    return 1.0f + (float)((i * 2654435761u) % 1000003u) * 1.1920929e-7f * (float)(i + 1);
}

/* The definition, once more: the largest power of two below n goes left. */
static float tree(size_t from, size_t n)
{
    size_t p = 1;
    if (n == 1)
        return leaf(from);
    while (2 * p < n)
        p *= 2;
    return tree(from, p) + tree(from + p, n - p);
}

static void ranges(void **state)
{
    (void)state;
    for (size_t n = 0; n < 40; n++)
        for (size_t parts = 1; parts < 20; parts++) {
            size_t at = 0, before = SIZE_MAX;
            for (size_t i = 0; i < parts; i++) {
                struct split_range r = split_range(n, parts, i);
                if (r.from != at || r.count > before || r.count > n / parts + 1 ||
                    r.count < n / parts)
                    fail_msg("part %zu of %zu in %zu: %zu from %zu", i, n, parts, r.count, r.from);
                at += r.count;
                before = r.count;
            }
            assert_int_equal(at, n);
        }
}

/* Sums of all ranks' nodes, then those added up by whoever owns them: the bits of the tree, and
 * nodes that really are subtrees. */
static void one_case(size_t leaves, size_t ranks)
{
    struct split_node node[SPLIT_NODES], all[SPLIT_NODES];
    float sum[SPLIT_NODES];
    size_t n = 0, at = 0;
    for (size_t r = 0; r < ranks; r++) {
        size_t most, nodes = split_nodes(leaves, split_range(leaves, ranks, r), node, &most);
        if (nodes > SPLIT_NODES || most > SPLIT_NODES || !nodes)
            fail_msg("%zu leaves, rank %zu of %zu: %zu nodes, %zu at most", leaves, r, ranks, nodes,
                     most);
        for (size_t j = 0; j < nodes; j++) {
            struct split_node last = node[j];
            if (last.from != at)
                fail_msg("%zu leaves, rank %zu of %zu: a gap at %zu", leaves, r, ranks, at);
            at = last.to;
            float x = tree(last.from, last.to - last.from);
            while (n && split_siblings(leaves, all[n - 1], last)) {
                last.from = all[--n].from;
                x = sum[n] + x;
            }
            all[n] = last;
            sum[n++] = x;
        }
    }
    float want = tree(0, leaves);
    if (n != 1 || at != leaves || memcmp(&sum[0], &want, sizeof want) != 0)
        fail_msg("%zu leaves, %zu ranks: %zu sums left, %.9g, not %.9g", leaves, ranks, n,
                 (double)sum[0], (double)want);
}

static void sums(void **state)
{
    (void)state;
    for (size_t leaves = 1; leaves <= 70; leaves++)
        for (size_t ranks = 1; ranks <= leaves; ranks++)
            one_case(leaves, ranks);
    for (size_t ranks = 1; ranks <= SPLIT_GROUPS; ranks += ranks < 40 ? 1 : 37) {
        one_case(SPLIT_GROUPS, ranks);
        one_case(SPLIT_GROUPS - 1, ranks < SPLIT_GROUPS ? ranks : 1);
    }
}

/* A power of two that divides: each rank has one sum, and needs a block for each halving. */
static void even(void **state)
{
    static const struct {
        size_t leaves, ranks, stack;
    } cases[] = {{1, 1, 0}, {2, 1, 1}, {8, 1, 3}, {8, 2, 2}, {8, 4, 1}, {8, 8, 0}, {512, 64, 3}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (size_t r = 0; r < cases[c].ranks; r++) {
            struct split_node node[SPLIT_NODES];
            struct split_range own = split_range(cases[c].leaves, cases[c].ranks, r);
            size_t most, n = split_nodes(cases[c].leaves, own, node, &most);
            if (n != 1 || most != cases[c].stack)
                fail_msg("%zu leaves, rank %zu of %zu: %zu nodes, %zu blocks", cases[c].leaves, r,
                         cases[c].ranks, n, most);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranges), cmocka_unit_test(sums),
                                       cmocka_unit_test(even)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
