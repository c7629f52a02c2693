/* split.c - see split.h. */
#include "trainer/split.h"

#include <assert.h>

struct split_range split_range(size_t n, size_t parts, size_t i)
{
    size_t some = n / parts, longer = n % parts;
    return (struct split_range){i * some + (i < longer ? i : longer), some + (i < longer)};
}

size_t split_part(size_t n, size_t parts, size_t at)
{
    size_t some = n / parts, longer = n % parts;
    return at < longer * (some + 1) ? at / (some + 1) : (at - longer) / some;
}

static size_t half(size_t leaves)
{
    size_t p = 1;
    while (2 * p < leaves)
        p *= 2;
    return p;
}

bool split_siblings(size_t leaves, struct split_node a, struct split_node b)
{
    struct split_node n = {0, leaves};
    while (n.to - n.from > 1) {
        size_t mid = n.from + half(n.to - n.from);
        if (a.to == mid && b.from == mid)
            return a.from == n.from && b.to == n.to;
        if (b.to <= mid)
            n.to = mid;
        else if (a.from >= mid)
            n.from = mid;
        else
            return false;
    }
    return false;
}

size_t split_push(size_t leaves, struct split_node *node, size_t *n, size_t leaf)
{
    size_t joins = 0;
    struct split_node last = {leaf, leaf + 1};
    for (; *n && split_siblings(leaves, node[*n - 1], last); joins++)
        last.from = node[--*n].from;
    assert(*n < SPLIT_NODES);
    node[(*n)++] = last;
    return joins;
}

size_t split_nodes(size_t leaves, struct split_range range, struct split_node *out, size_t *most)
{
    size_t n = 0, high = 0;
    for (size_t i = 0; i < range.count; i++) {
        high = n > high ? n : high; /* before this leaf: the newest one is being made */
        split_push(leaves, out, &n, range.from + i);
    }
    if (most)
        *most = high;
    return n;
}
