/*
 * window_test - guards against scoring some tokens twice or never: the lists of windows are
 * compared with the challenge's description written down literally (a loop that lists them, slow
 * and obvious), for every small stream, and with the windows that the reference itself listed.
 */
#include "model/safetensors.h"
#include "model/reader.h"
#include "model/score.h"
#include "tests/unit/util.h"

/* ---- the description, literally: spec section 1.5 and, for plain, 1.4 ---- */

static size_t literal(const struct window_list *l, struct window *w)
{
    size_t n = 0;
    if (l->mode == EVAL_PLAIN) {
        for (size_t s = 0; s < l->total; s += l->len)
            w[n++] = (struct window){s, l->len, 0};
        return n;
    }
    for (size_t s = 0; s < l->total; s += l->stride) {
        size_t end = s + l->len < l->total ? s + l->len : l->total, len = end - s;
        if (l->mode == EVAL_TTT ? s && len < l->stride
                                : !l->old && !(s + l->len - l->stride < l->total))
            continue;
        w[n] = (struct window){s, len, 0};
        if (s && (l->old || l->mode == EVAL_TTT))
            w[n].from = len > l->stride ? len - l->stride : 0;
        else if (s)
            w[n].from = l->len - l->stride;
        n++;
    }
    return n;
}

static void compare(const struct window_list *l)
{
    static struct window want[4096];
    size_t n = literal(l, want), scored = 0;
    char label[200];
    snprintf(label, sizeof label, "%s%s total %zu len %zu stride %zu", eval_mode_name(l->mode),
             l->old ? " old" : "", l->total, l->len, l->stride);
    if (window_count(l) != n)
        fail_msg("%s: %zu windows, expected %zu", label, window_count(l), n);
    for (size_t i = 0; i < n; i++) {
        struct window w = window_at(l, i);
        scored += want[i].len - want[i].from;
        if (w.start != want[i].start || w.len != want[i].len || w.from != want[i].from)
            fail_msg("%s: window %zu is [%zu, +%zu) from %zu, expected [%zu, +%zu) from %zu", label,
                     i, w.start, w.len, w.from, want[i].start, want[i].len, want[i].from);
        if (w.from >= w.len || w.start + w.len > l->total)
            fail_msg("%s: window %zu scores nothing or leaves the stream", label, i);
    }
    if (window_scored(l) != scored)
        fail_msg("%s: %zu scored, expected %zu", label, window_scored(l), scored);
}

static void every_small_stream(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 12; len++)
        for (size_t total = len; total <= 60; total++) {
            if (total % len == 0)
                compare(&(struct window_list){EVAL_PLAIN, false, total, len, 1});
            for (size_t stride = 1; stride <= len; stride++)
                for (int old = 0; old < 2; old++)
                    for (int mode = EVAL_SLIDING; mode < EVAL_MODES; mode++)
                        compare(
                            &(struct window_list){(enum eval_mode)mode, old, total, len, stride});
        }
}

static void streams_at_random(void **state)
{
    uint64_t s = 5;
    (void)state;
    for (size_t i = 0; i < 3000; i++) {
        size_t len = 1 + util_below(&s, 2048), total = len * (1 + util_below(&s, 20));
        size_t stride = 1 + util_below(&s, len);
        if (total / stride > 4000)
            continue;
        for (int old = 0; old < 2; old++)
            compare(&(struct window_list){EVAL_SLIDING, old, total, len, stride});
        compare(&(struct window_list){EVAL_TTT, false, total, len, stride});
        compare(&(struct window_list){EVAL_PLAIN, false, total, len, stride});
    }
}

/* The new list and the plain one score each position exactly once, in ascending order. */
static void each_position_once(void **state)
{
    uint64_t s = 6;
    (void)state;
    for (size_t i = 0; i < 2000; i++) {
        size_t len = 1 + util_below(&s, 300), total = len * (1 + util_below(&s, 9)), next = 0;
        struct window_list l = {i & 1 ? EVAL_SLIDING : EVAL_PLAIN, false, total, len,
                                1 + util_below(&s, len)};
        for (size_t w = 0; w < window_count(&l); w++) {
            struct window x = window_at(&l, w);
            if (x.start + x.from != next)
                fail_msg("total %zu len %zu stride %zu: window %zu scores from %zu, expected %zu",
                         total, len, l.stride, w, x.start + x.from, next);
            next = x.start + x.len;
        }
        if (next != total || window_scored(&l) != total)
            fail_msg("total %zu len %zu stride %zu: %zu scored", total, len, l.stride, next);
    }
}

/* Every scored position past the first window has at least len - stride positions before it. */
static void context(void **state)
{
    struct window_list l = {EVAL_SLIDING, false, 2048 * 3, 2048, 64};
    (void)state;
    for (size_t i = 1; i < window_count(&l); i++)
        assert_int_equal(window_at(&l, i).from, 2048 - 64);
}

/* The counts of the published runs: spec sections 1.5 and 1.6. */
static void the_challenges_counts(void **state)
{
    static const struct {
        size_t total;
        bool old;
        size_t windows, scored;
    } cases[] = {
        {62021632, true, 969088, 62021632 + 1984},
        {62021632, false, 969057, 62021632},
        {45508608, true, 711072, 45508608 + 1984},
        {45508608, false, 711041, 45508608},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct window_list l = {EVAL_SLIDING, cases[i].old, cases[i].total, 2048, 64};
        assert_int_equal(window_count(&l), cases[i].windows);
        assert_int_equal(window_scored(&l), cases[i].scored);
        l.mode = EVAL_TTT; /* the old list, whatever `old` says: 64 divides both streams */
        assert_int_equal(window_count(&l), cases[i].total / 64);
    }
}

/* ---- what score_windows makes of a stream and a recipe ---- */

static void lists_of_recipes(void **state)
{
    static const struct {
        const char *name, *windows;
        int64_t len, stride;
        enum eval_mode mode;
        size_t n, max, total;
        enum err_code want;
        const char *says;
    } cases[] = {
        {"exactly one window", "new", 48, 16, EVAL_SLIDING, 49, 0, 48, ERR_OK, ""},
        {"one target short", "new", 48, 16, EVAL_SLIDING, 48, 0, 0, ERR_INPUT,
         "47 positions to score, one window needs 48"},
        {"ragged", "new", 48, 16, EVAL_SLIDING, 1500, 0, 1488, ERR_OK, ""},
        {"empty", "new", 48, 16, EVAL_PLAIN, 0, 0, 0, ERR_INPUT,
         "0 positions to score, one window needs 48"},
        {"one token", "new", 48, 16, EVAL_PLAIN, 1, 0, 0, ERR_INPUT,
         "0 positions to score, one window needs 48"},
        {"max cuts", "new", 48, 16, EVAL_PLAIN, 1500, 100, 96, ERR_OK, ""},
        {"max beyond the end", "new", 48, 16, EVAL_PLAIN, 1500, 5000, 1488, ERR_OK, ""},
        {"max below a window", "new", 48, 16, EVAL_PLAIN, 1500, 47, 0, ERR_INPUT,
         "47 positions to score, one window needs 48"},
        {"stride = window", "new", 48, 48, EVAL_SLIDING, 97, 0, 96, ERR_OK, ""},
        {"stride > window", "new", 48, 49, EVAL_SLIDING, 97, 0, 96, ERR_OK, ""},
        {"stride > window, plain", "new", 48, 49, EVAL_PLAIN, 97, 0, 96, ERR_OK, ""},
        {"old", "old", 48, 16, EVAL_SLIDING, 97, 0, 96, ERR_OK, ""},
        {"another list", "newer", 48, 16, EVAL_SLIDING, 97, 0, 0, ERR_USAGE,
         "EVAL_WINDOWS=newer: must be new or old"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct gpt m = {0};
        struct score_opts o = {.mode = cases[i].mode, .max_tokens = cases[i].max};
        struct window_list l;
        struct err e = {0};
        recipe_init(&m.r);
        m.r.eval_seq_len = cases[i].len;
        m.r.eval_stride = cases[i].stride;
        strcpy(m.r.eval_windows, cases[i].windows);
        EXPECT(cases[i].name, cases[i].want, cases[i].says,
               score_windows(&m, cases[i].n, &o, &l, &e), e);
        long long stride = cases[i].stride < cases[i].len ? cases[i].stride : cases[i].len;
        if (!cases[i].want &&
            (l.total != cases[i].total || l.len != (size_t)cases[i].len ||
             l.stride != (size_t)stride || l.old != !strcmp(cases[i].windows, "old")))
            fail_msg("%s: total %zu len %zu stride %zu", cases[i].name, l.total, l.len, l.stride);
    }
}

static void modes(void **state)
{
    (void)state;
    for (int m = 0; m < EVAL_MODES; m++)
        assert_int_equal(eval_mode_parse(eval_mode_name((enum eval_mode)m)), m);
    assert_int_equal(eval_mode_parse("slide"), EVAL_MODES);
    assert_int_equal(eval_mode_parse(""), EVAL_MODES);
}

/* ---- the reference's own lists ---- */

static void check_fixture(const struct st_file *f, const char *prefix, bool old, size_t total)
{
    struct window_list l = {EVAL_SLIDING, old, total, 48, 16};
    static const char *const column[] = {"window_start", "window_len", "score_from"};
    for (size_t c = 0; c < 3; c++) {
        char name[64];
        snprintf(name, sizeof name, "out.%s.%s", prefix, column[c]);
        const struct tensor_view *t = tensor_find(f->tensor, f->count, name);
        assert_non_null(t);
        assert_int_equal(t->shape[0], window_count(&l));
        for (size_t i = 0; i < t->shape[0]; i++) {
            struct window w = window_at(&l, i);
            size_t have = c == 0 ? w.start : c == 1 ? w.len : w.from;
            if (have != le32(t->data + 4 * i))
                fail_msg("%s of window %zu: %zu, the reference has %u", name, i, have,
                         le32(t->data + 4 * i));
        }
    }
}

static void the_references_lists(void **state)
{
    struct st_file f;
    struct err e = {0};
    const char *path = util_shared("fixtures/parity/eval_windows.safetensors");
    (void)state;
    if (!path)
        skip();
    EXPECT(path, ERR_OK, "", st_open(&f, path, &e), e);
    check_fixture(&f, "sliding_new", false, 1488);
    check_fixture(&f, "sliding_old", true, 1488);
    check_fixture(&f, "ragged_sliding_new", false, 1230);
    check_fixture(&f, "ragged_sliding_old", true, 1230);
    st_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_stream),
        cmocka_unit_test(streams_at_random),
        cmocka_unit_test(each_position_once),
        cmocka_unit_test(context),
        cmocka_unit_test(the_challenges_counts),
        cmocka_unit_test(lists_of_recipes),
        cmocka_unit_test(modes),
        cmocka_unit_test(the_references_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
