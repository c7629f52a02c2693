/*
 * prune_test.c - exists for the wrong integers going: an expensive one before a cheap one, a later
 * tensor before an earlier one at equal cost, a 2, or one too many. Checked against the plain way:
 * a list of all candidates and a stable sort.
 */
#include <string.h>

#include "model/tensor.h"
#include "tests/unit/util.h"
#include "trainer/prune.h"

enum { TENSORS = 3, ROWS = 5, COLS = 9 };

struct set {
    int8_t q[TENSORS][ROWS * COLS];
    uint16_t scale[TENSORS][ROWS];
    struct prune_tensor t[TENSORS];
};

/* Few distinct scales, so that most costs tie. */
static void fill(struct set *s, uint64_t seed, size_t scales)
{
    for (size_t i = 0; i < TENSORS; i++) {
        for (size_t j = 0; j < ROWS * COLS; j++)
            s->q[i][j] = (int8_t)(util_below(&seed, 7) - 3);
        for (size_t r = 0; r < ROWS; r++)
            s->scale[i][r] = f32_to_f16(0.03f * (float)(1 + util_below(&seed, scales)));
        s->t[i] = (struct prune_tensor){s->q[i], s->scale[i], ROWS, COLS, 99};
    }
}

struct candidate {
    double cost;
    size_t place; /* tensor * ROWS * COLS + index */
};

static int by_cost(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->cost != y->cost ? (x->cost > y->cost ? 1 : -1)
                              : (x->place > y->place) - (x->place < y->place);
}

static size_t plain(struct set *s, size_t count)
{
    struct candidate c[TENSORS * ROWS * COLS];
    size_t n = 0;
    for (size_t i = 0; i < TENSORS; i++)
        for (size_t j = 0; j < ROWS * COLS; j++)
            if (abs(s->q[i][j]) == 1) {
                double x = (double)f16_to_f32(s->scale[i][j / COLS]);
                c[n++] = (struct candidate){x * x, i * ROWS * COLS + j};
            }
    qsort(c, n, sizeof *c, by_cost);
    for (size_t k = 0; k < count; k++)
        s->q[c[k].place / (ROWS * COLS)][c[k].place % (ROWS * COLS)] = 0;
    return n;
}

static void test_apply(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct set first;
        fill(&first, seed, (size_t)seed);
        size_t all = prune_candidates(first.t, TENSORS);
        for (size_t count = 0; count <= all; count++) {
            struct set a, b;
            size_t pruned = 0;
            fill(&a, seed, (size_t)seed);
            fill(&b, seed, (size_t)seed);
            assert_int_equal(plain(&b, count), all);
            prune_apply(a.t, TENSORS, count);
            for (size_t i = 0; i < TENSORS; i++)
                pruned += a.t[i].pruned;
            if (memcmp(a.q, b.q, sizeof a.q) || pruned != count)
                fail_msg("seed %d: %zu of %zu: other integers than the sort's, %zu counted",
                         (int)seed, count, all, pruned);
        }
    }
}

/* A compressor that saves one byte for every 8 zeroed, so that both rules have known answers. */
struct scale_model {
    struct set *s;
    uint64_t base;
    size_t calls;
    enum err_code fails;
};

static enum err_code size_of(void *ctx, uint64_t *bytes, struct err *e)
{
    struct scale_model *m = ctx;
    m->calls++;
    if (m->fails)
        return err_set(e, m->fails, "no size");
    *bytes = m->base + (prune_candidates(m->s->t, TENSORS) + 7) / 8;
    return ERR_OK;
}

static void test_target(void **state)
{
    (void)state;
    struct set s;
    fill(&s, 3, 3);
    size_t all = prune_candidates(s.t, TENSORS), full = (all + 7) / 8;
    static const struct {
        const char *name;
        enum prune_search how;
        long long spare; /* target - size of the unpruned file */
    } cases[] = {
        {"fits exactly, once", PRUNE_ONCE, 0},
        {"fits exactly", PRUNE_FIT, 0},
        {"one byte too many, once", PRUNE_ONCE, -1},
        {"one byte too many", PRUNE_FIT, -1},
        {"three, once", PRUNE_ONCE, -3},
        {"three", PRUNE_FIT, -3},
        {"hopeless, once", PRUNE_ONCE, -500},
        {"hopeless", PRUNE_FIT, -500},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        fill(&s, 3, 3);
        struct scale_model m = {.s = &s, .base = 1000};
        struct prune_result r;
        struct err e = {0};
        uint64_t target = (uint64_t)(1000 + (long long)full + cases[c].spare);
        if (prune_to(s.t, TENSORS, target, cases[c].how, size_of, &m, &r, &e))
            fail_msg("%s: %s", cases[c].name, e.msg);
        size_t excess = (size_t)-cases[c].spare, want = 8 * excess < all ? 8 * excess : all;
        if (cases[c].how == PRUNE_FIT && want < all) /* the fewest that save so many bytes */
            want = excess ? all - 8 * (full - excess) : 0;
        size_t gone = 0;
        for (size_t i = 0; i < TENSORS && want; i++)
            gone += s.t[i].pruned;
        if (r.pruned != want || gone != want || prune_candidates(s.t, TENSORS) != all - want)
            fail_msg("%s: %zu pruned, %zu counted, expected %zu of %zu", cases[c].name, r.pruned,
                     gone, want, all);
        uint64_t now;
        size_of(&m, &now, &e);
        if (r.before != 1000 + full || (r.after ? r.after != now : cases[c].how != PRUNE_ONCE))
            fail_msg("%s: %llu bytes before, %llu after, in truth %llu", cases[c].name,
                     (unsigned long long)r.before, (unsigned long long)r.after,
                     (unsigned long long)now);
    }
}

static void test_failing_size(void **state)
{
    (void)state;
    for (int how = PRUNE_ONCE; how <= PRUNE_FIT; how++) {
        struct set s;
        fill(&s, 5, 2);
        struct scale_model m = {.s = &s, .fails = ERR_RESOURCE};
        struct prune_result r;
        struct err e = {0};
        EXPECT("size fails", ERR_RESOURCE, "no size",
               prune_to(s.t, TENSORS, 1, (enum prune_search)how, size_of, &m, &r, &e), e);
        assert_int_equal(m.calls, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_failing_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
