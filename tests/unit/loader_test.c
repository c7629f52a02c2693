/*
 * loader_test.c - exists for the token that is skipped or read twice: at the border of two shards,
 * of two spans or micro-batches, when the stream begins again, after a resume; for an order that
 * changes with the size of the micro-batch where it must not; and for the resume on data that are
 * not the same any more.
 */
#include "tests/unit/toy_run.h"
#include "trainer/loader.h"

enum { STREAM = 3 * TOY_TOKENS - 3, MOST = 5000 }; /* lengths 700, 699, 698 */

/* The stream as one array, by the rule: shards in order. */
static void whole(uint16_t *out)
{
    uint16_t tok[TOY_TOKENS];
    for (unsigned i = 0; i < TOY_TRAIN; i++) {
        toy_stream(tok, TOY_TOKENS, i + 1);
        memcpy(out, tok, (TOY_TOKENS - i) * sizeof *tok);
        out += TOY_TOKENS - i;
    }
}

struct setting {
    const char *loader;
    size_t t, batch, ranks; /* batch in windows */
};

static void settings(struct recipe *r, const char *dir, struct setting s)
{
    toy_recipe(r, dir);
    snprintf(r->loader, sizeof r->loader, "%s", s.loader);
    r->train_seq_len = (int64_t)s.t;
    r->train_batch_tokens = (int64_t)(s.t * s.batch);
    r->loader_ranks = (int64_t)s.ranks;
}

static void open_loader(struct loader *l, const char *dir, struct setting s)
{
    struct recipe r;
    struct err e = {0};
    settings(&r, dir, s);
    if (loader_open(l, &r, dir, &e))
        fail_msg("%s", e.msg);
}

static void next(struct loader *l, uint16_t *ids, uint16_t *target, size_t seqs)
{
    struct err e = {0};
    memset(ids, 0xff, seqs * l->t * sizeof *ids);
    memset(target, 0xff, seqs * l->t * sizeof *target);
    if (loader_next(l, ids, target, seqs, &e))
        fail_msg("%s", e.msg);
}

/* ids and target [n] are the stream from `at` on. */
static void check_span(const char *what, const uint16_t *stream, size_t at, const uint16_t *ids,
                       const uint16_t *target, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] != stream[(at + i) % STREAM] || target[i] != stream[(at + i + 1) % STREAM])
            fail_msg("%s: token %zu: %u then %u, expected %u then %u", what, at + i, ids[i],
                     target[i], stream[(at + i) % STREAM], stream[(at + i + 1) % STREAM]);
}

/* LOADER_RANKS=0: every micro-batch is a span, and uses up one token more than it has targets. */
static void a_span_per_micro_batch(void **state)
{
    static const struct {
        size_t t, seqs;
    } sizes[] = {{1, 1},   {3, 2},    {1, 63},   {349, 2}, {699, 1},
                 {7, 100}, {1398, 1}, {2096, 1}, {3, 699}, {16, 300}};
    char dir[TOY_PATH];
    uint16_t stream[STREAM], ids[MOST], target[MOST];
    (void)state;
    toy_corpus(dir);
    whole(stream);
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        struct loader l;
        char what[40];
        size_t n = sizes[c].t * sizes[c].seqs;
        snprintf(what, sizeof what, "%zu sequences of %zu", sizes[c].seqs, sizes[c].t);
        open_loader(&l, dir, (struct setting){"sequential", sizes[c].t, 2 * sizes[c].seqs, 0});
        for (size_t turn = 0; turn < 12; turn++) {
            next(&l, ids, target, sizes[c].seqs);
            check_span(what, stream, turn * (n + 1), ids, target, n);
        }
        loader_close(&l);
    }
    toy_remove(dir);
}

/* LOADER_RANKS > 0: a span per rank, in whatever pieces it is asked for. */
static void a_span_per_rank(void **state)
{
    static const struct {
        size_t t, batch, ranks, span[5]; /* span: windows of each, one batch */
    } cases[] = {
        {16, 8, 4, {2, 2, 2, 2}}, {16, 8, 1, {8}},     {5, 12, 5, {3, 3, 2, 2, 2}},
        {7, 3, 8, {1, 1, 1}},     {300, 4, 2, {2, 2}}, {1, 60, 3, {20, 20, 20}},
    };
    char dir[TOY_PATH];
    uint16_t stream[STREAM], ids[MOST], target[MOST];
    (void)state;
    toy_corpus(dir);
    whole(stream);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (size_t micro = 1; micro <= cases[c].batch; micro++) {
            struct loader l;
            char what[60];
            size_t t = cases[c].t, batch = cases[c].batch, at = 0;
            if (batch % micro)
                continue;
            snprintf(what, sizeof what, "case %zu, %zu windows at a time", c, micro);
            open_loader(&l, dir, (struct setting){"sequential", t, batch, cases[c].ranks});
            for (size_t turn = 0; turn < 5; turn++) {
                for (size_t i = 0; i < batch; i += micro)
                    next(&l, ids + i * t, target + i * t, micro);
                const uint16_t *x = ids, *y = target;
                for (size_t s = 0; s < 5 && cases[c].span[s]; s++) {
                    size_t n = cases[c].span[s] * t;
                    check_span(what, stream, at, x, y, n);
                    x += n;
                    y += n;
                    at += n + 1;
                }
            }
            loader_close(&l);
        }
    toy_remove(dir);
}

/* The coprime order: the windows that the sampler names, in any pieces. */
static void coprime_windows(void **state)
{
    static const size_t micros[] = {1, 2, 3, 4, 6, 12};
    char dir[TOY_PATH];
    uint16_t ids[12 * 16], target[12 * 16], first[12 * 16], tok[TOY_TRAIN][TOY_TOKENS];
    (void)state;
    toy_corpus(dir);
    for (unsigned i = 0; i < TOY_TRAIN; i++)
        toy_stream(tok[i], TOY_TOKENS, i + 1);
    for (size_t m = 0; m < sizeof micros / sizeof micros[0]; m++) {
        struct loader l;
        open_loader(&l, dir, (struct setting){"coprime", 16, 12, 0});
        assert_int_equal(l.order.ranks, 8);
        for (size_t turn = 0; turn < 30; turn++) {
            for (size_t i = 0; i < 12; i += micros[m])
                next(&l, ids + i * 16, target + i * 16, micros[m]);
            for (size_t i = 0; i < 12; i++) {
                const struct coprime_window w = l.order.window[i];
                assert_memory_equal(ids + i * 16, tok[w.shard] + w.pos, 16 * sizeof *ids);
                assert_memory_equal(target + i * 16, tok[w.shard] + w.pos + 1, 16 * sizeof *ids);
            }
        }
        if (!m)
            memcpy(first, ids, sizeof first);
        assert_memory_equal(first, ids, sizeof ids);
        loader_close(&l);
    }
    toy_remove(dir);
}

static void one_shard(void **state)
{
    char dir[TOY_PATH];
    const uint16_t tok[3] = {4, 5, 6};
    uint16_t ids[7], target[7];
    struct loader l;
    (void)state;
    toy_corpus(dir);
    toy_shard(toy_path(dir, "toy_train_000000.bin"), tok, 3);
    unlink(toy_path(dir, "toy_train_000001.bin"));
    unlink(toy_path(dir, "toy_train_000002.bin"));
    open_loader(&l, dir, (struct setting){"sequential", 7, 1, 0});
    next(&l, ids, target, 1);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(ids[i], tok[i % 3]);
        assert_int_equal(target[i], tok[(i + 1) % 3]);
    }
    loader_close(&l);
    toy_remove(dir);
}

static const struct setting kinds[] = {
    {"sequential", 7, 7, 0},
    {"sequential", 7, 7, 3},
    {"coprime", 7, 7, 0},
    {"coprime", 7, 7, 3},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* From every batch on, a second loader goes on like the first; the position that it is put to may
 * be behind it or before it. */
static void resume(void **state)
{
    char dir[TOY_PATH];
    uint16_t x[98], y[98];
    (void)state;
    toy_corpus(dir);
    for (size_t k = 0; k < KINDS; k++) {
        struct loader a, b;
        struct loader_pos p;
        struct err e = {0};
        open_loader(&a, dir, kinds[k]);
        open_loader(&b, dir, kinds[k]);
        for (size_t turn = 0; turn < 3 * STREAM / 50; turn++) {
            assert_int_equal(loader_tell(&a, &p, &e), ERR_OK);
            if (turn % 3 == 0)
                next(&b, y, y + 49, 3);
            if (turn % 2) {
                loader_close(&b);
                open_loader(&b, dir, kinds[k]);
            }
            if (loader_seek(&b, &p, &e))
                fail_msg("kind %zu, turn %zu: %s", k, turn, e.msg);
            next(&a, x, x + 49, 7);
            next(&b, y, y + 49, 7);
            if (memcmp(x, y, sizeof x) != 0)
                fail_msg("kind %zu, turn %zu: other tokens", k, turn);
        }
        loader_close(&a);
        loader_close(&b);
    }
    toy_remove(dir);
}

/* The shares are the first windows of each batch, and the stream goes on behind the batch. Of more
 * than a batch, they end in the second. */
static void shares(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 7, 9, 14};
    char dir[TOY_PATH];
    uint16_t x[14 * 7], y[14 * 7], tx[14 * 7], ty[14 * 7];
    (void)state;
    toy_corpus(dir);
    for (size_t c = 0; c < 3 * 6; c++) {
        const struct setting kind = kinds[1 + c / 6];
        size_t n = sizes[c % 6];
        struct loader a, b;
        struct err e = {0};
        open_loader(&a, dir, kind);
        open_loader(&b, dir, kind);
        for (size_t turn = 0; turn < 60; turn++) {
            if (turn == 40) { /* and from the beginning */
                loader_close(&a);
                open_loader(&a, dir, kind);
                loader_restart(&b);
            }
            next(&a, x, tx, n > 7 ? 14 : 7);
            if (turn % 3 == 2)
                next(&b, y, ty, n > 7 ? 14 : 7);
            else
                assert_int_equal(loader_share(&b, y, ty, n, &e), ERR_OK);
            assert_memory_equal(x, y, n * 7 * sizeof *x);
            assert_memory_equal(tx, ty, n * 7 * sizeof *x);
        }
        loader_close(&a);
        loader_close(&b);
    }
    toy_remove(dir);
}

/* LOADER_RANKS=0: shares and what is passed over are spans of one length. */
static void shares_without_ranks(void **state)
{
    static const struct {
        size_t seqs, spans; /* of a batch of 7 */
    } cases[] = {{1, 7}, {2, 3}, {3, 2}, {4, 1}, {7, 1}, {10, 1}};
    char dir[TOY_PATH];
    uint16_t stream[STREAM], ids[70], target[70];
    (void)state;
    toy_corpus(dir);
    whole(stream);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct loader l;
        struct err e = {0};
        size_t n = cases[c].seqs * 7;
        open_loader(&l, dir, kinds[0]);
        for (size_t turn = 0; turn < 50; turn++) {
            assert_int_equal(loader_share(&l, ids, target, cases[c].seqs, &e), ERR_OK);
            check_span("share", stream, turn * cases[c].spans * (n + 1), ids, target, n);
        }
        loader_close(&l);
    }
    toy_remove(dir);
}

/* Data that are somewhere else have another order, but a resumed run keeps its own. */
static void moved(void **state)
{
    char dir[TOY_PATH], other[TOY_PATH];
    uint16_t x[98], y[98];
    struct loader a, b;
    struct loader_pos p;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    toy_corpus(other);
    open_loader(&a, dir, kinds[2]);
    open_loader(&b, other, kinds[2]);
    assert_true(a.order.seed != b.order.seed);
    for (size_t i = 0; i < 5; i++)
        next(&a, x, x + 49, 7);
    assert_int_equal(loader_tell(&a, &p, &e), ERR_OK);
    assert_int_equal(loader_seek(&b, &p, &e), ERR_OK);
    next(&a, x, x + 49, 7);
    next(&b, y, y + 49, 7);
    assert_memory_equal(x, y, sizeof x);
    loader_restart(&a);
    loader_restart(&b);
    next(&a, x, x + 49, 7);
    next(&b, y, y + 49, 7);
    assert_memory_equal(x, y, sizeof x);
    loader_close(&a);
    loader_close(&b);
    toy_remove(dir);
    toy_remove(other);
}

enum change { FEWER, RENAMED, SHORTER };

static void changed_data(void **state)
{
    static const struct {
        const char *name;
        enum change change;
    } cases[] = {{"a shard less", FEWER}, {"another name", RENAMED}, {"another length", SHORTER}};
    static const struct setting ways[] = {{"sequential", TOY_TOKENS + 9, 1, 0},
                                          {"coprime", 16, 4, 2}};
    (void)state;
    for (size_t c = 0; c < 6; c++) {
        char dir[TOY_PATH];
        struct loader l;
        struct loader_pos p;
        struct err e = {0};
        uint16_t tok[TOY_TOKENS + 10] = {0}, x[TOY_TOKENS + 10];
        const char *second;
        toy_corpus(dir);
        second = toy_path(dir, "toy_train_000001.bin");
        open_loader(&l, dir, ways[c / 3]);
        next(&l, x, tok, ways[c / 3].batch);
        assert_int_equal(loader_tell(&l, &p, &e), ERR_OK);
        assert_int_equal(p.shard, c < 3);
        assert_int_equal(p.pos, c < 3 ? 10 : 1);
        loader_close(&l);
        if (cases[c % 3].change == FEWER)
            unlink(second);
        else if (cases[c % 3].change == RENAMED)
            rename(second, toy_path(dir, "toy_train_000001b.bin"));
        else
            toy_shard(second, tok, 20);
        open_loader(&l, dir, ways[c / 3]);
        if (loader_seek(&l, &p, &e) != ERR_INPUT || !strstr(e.msg, "data changed"))
            fail_msg("%s, %s: accepted, or: %s", ways[c / 3].loader, cases[c % 3].name, e.msg);
        loader_close(&l);
        toy_remove(dir);
    }
}

/* A place in one order is none in the other. */
static void other_order(void **state)
{
    char dir[TOY_PATH];
    struct loader a, b;
    struct loader_pos p;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    open_loader(&a, dir, kinds[0]);
    open_loader(&b, dir, kinds[2]);
    assert_int_equal(loader_tell(&a, &p, &e), ERR_OK);
    assert_int_equal(loader_seek(&b, &p, &e), ERR_INPUT);
    assert_int_equal(loader_tell(&b, &p, &e), ERR_OK);
    assert_int_equal(loader_seek(&a, &p, &e), ERR_INPUT);
    loader_close(&a);
    loader_close(&b);
    toy_remove(dir);
}

/* A damaged shard is found when the stream reaches it, or a window of it, and named. */
static void damaged_later(void **state)
{
    char dir[TOY_PATH];
    uint16_t tok[TOY_TOKENS + 1] = {TOY_VOCAB}, x[TOY_TOKENS];
    struct loader l;
    struct recipe r;
    struct err e = {0};
    (void)state;
    toy_corpus(dir);
    toy_shard(toy_path(dir, "toy_train_000001.bin"), tok, 1);
    open_loader(&l, dir, (struct setting){"sequential", TOY_TOKENS - 1, 1, 0});
    next(&l, x, tok, 1);
    assert_int_equal(loader_next(&l, x, tok, 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "toy_train_000001.bin"));
    loader_close(&l);
    loader_close(&l); /* a closed loader is nothing, and closing nothing is fine */

    toy_stream(tok, TOY_TOKENS, 2);
    tok[600] = TOY_VOCAB;
    toy_shard(toy_path(dir, "toy_train_000001.bin"), tok, TOY_TOKENS);
    open_loader(&l, dir, (struct setting){"coprime", 16, 4, 0});
    enum err_code rc = ERR_OK;
    e = (struct err){0};
    for (size_t i = 0; i < 100 && !rc; i++)
        rc = loader_next(&l, x, tok, 4, &e);
    assert_int_equal(rc, ERR_INPUT);
    assert_non_null(strstr(e.msg, "toy_train_000001.bin: token 600 is 32"));
    loader_close(&l);

    toy_write(toy_path(dir, "toy_train_000002.bin"), tok, 100);
    settings(&r, dir, (struct setting){"coprime", 16, 4, 0});
    e = (struct err){0};
    assert_int_equal(loader_open(&l, &r, dir, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "toy_train_000002.bin"));
    toy_remove(dir);
}

/* A rank reads some micro-batches and passes over the others: what it reads, and where it stands
 * after each batch, is as if it had read all of them. */
static void passed_over(void **state)
{
    static const struct {
        struct setting s;
        size_t micro; /* windows */
    } cases[] = {
        {{"sequential", 16, 8, 0}, 2},  {{"sequential", 16, 8, 3}, 2},
        {{"sequential", 300, 4, 2}, 1}, {{"sequential", 1, 60, 7}, 12},
        {{"sequential", 7, 12, 12}, 4}, {{"coprime", 16, 8, 2}, 2},
        {{"coprime", 30, 12, 5}, 3},
    };
    char dir[TOY_PATH];
    uint16_t ids[2][MOST], target[2][MOST];
    (void)state;
    toy_corpus(dir);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct loader all, some;
        struct err e = {0};
        size_t micros = cases[c].s.batch / cases[c].micro, n = cases[c].micro * cases[c].s.t;
        open_loader(&all, dir, cases[c].s);
        open_loader(&some, dir, cases[c].s);
        for (size_t turn = 0; turn < 12; turn++) {
            struct loader_pos p, q;
            size_t from = turn % micros, count = 1 + turn / micros % (micros - from);
            assert_int_equal(loader_skip(&some, cases[c].micro, from, &e), ERR_OK);
            for (size_t i = 0; i < micros; i++) {
                next(&all, ids[0], target[0], cases[c].micro);
                if (i < from || i >= from + count)
                    continue;
                next(&some, ids[1], target[1], cases[c].micro);
                if (memcmp(ids[0], ids[1], n * sizeof **ids) != 0 ||
                    memcmp(target[0], target[1], n * sizeof **ids) != 0)
                    fail_msg("case %zu, batch %zu, micro-batch %zu: other tokens", c, turn, i);
            }
            assert_int_equal(loader_skip(&some, cases[c].micro, micros - from - count, &e), ERR_OK);
            assert_int_equal(loader_tell(&all, &p, &e), ERR_OK);
            assert_int_equal(loader_tell(&some, &q, &e), ERR_OK);
            if (p.shard != q.shard || p.pos != q.pos || strcmp(p.name, q.name) != 0)
                fail_msg("case %zu, batch %zu: at %zu of shard %zu, not at %zu of %zu", c, turn,
                         q.pos, q.shard, p.pos, p.shard);
        }
        loader_close(&all);
        loader_close(&some);
    }
    toy_remove(dir);
}

static void refused(void **state)
{
    static const struct {
        const char *set, *says;
    } cases[] = {
        {"LOADER=random", "sequential or coprime"},
        {"LOADER_RANKS=-1", "LOADER_RANKS"},
        {"LOADER_RANKS=100000", "LOADER_RANKS"},
        {"TRAIN_BATCH_TOKENS=8", "TRAIN_BATCH_TOKENS"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loader l;
        struct recipe r;
        struct err e = {0};
        toy_recipe(&r, "/nowhere");
        toy_set(&r, cases[i].set);
        if (loader_open(&l, &r, "/nowhere", &e) != ERR_USAGE || !strstr(e.msg, cases[i].says))
            fail_msg("%s: accepted, or: %s", cases[i].set, e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_per_micro_batch),
        cmocka_unit_test(a_span_per_rank),
        cmocka_unit_test(coprime_windows),
        cmocka_unit_test(one_shard),
        cmocka_unit_test(resume),
        cmocka_unit_test(shares),
        cmocka_unit_test(shares_without_ranks),
        cmocka_unit_test(moved),
        cmocka_unit_test(changed_data),
        cmocka_unit_test(other_order),
        cmocka_unit_test(damaged_later),
        cmocka_unit_test(refused),
        cmocka_unit_test(passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
