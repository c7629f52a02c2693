/*
 * peers_test - guards against an audit by several processes in which one of them goes on although
 * another one failed, or scores something else than the others, and against an error that does not
 * say whose it is. Ranks are processes that meet over the loopback.
 */
#include "tests/unit/comm_ranks.h"
#include "verify/peers.h"

enum { SIZE = 3, HASHES = 2 };

static const struct round {
    const char *name;
    const char *fails[SIZE]; /* what a rank says; NULL: it is well */
    uint64_t hash[SIZE][HASHES];
    enum err_code rc; /* of all ranks */
    const char *msg;
} rounds[] = {
    {"all well", {NULL}, {{1, 2}, {1, 2}, {1, 2}}, ERR_OK, ""},
    {"one failed", {NULL, "no tokens", NULL}, {{0}}, ERR_INPUT, "rank 1: no tokens"},
    {"two failed", {NULL, "no tokens", "no weights"}, {{0}}, ERR_INPUT, "rank 1: no tokens"},
    {"the first failed", {"no disk", NULL, NULL}, {{0}}, ERR_INPUT, "rank 0: no disk"},
    {"the same words", {"no file", "no file", "no file"}, {{0}}, ERR_INPUT, "no file"},
    {"not quite", {"no file", "no file", "no fire"}, {{0}}, ERR_INPUT, "rank 0: no file"},
    {"another hash",
     {NULL},
     {{1, 2}, {1, 2}, {1, 3}},
     ERR_INPUT,
     "rank 2 has not the same weights as rank 0"},
    {"the first hash counts",
     {NULL},
     {{1, 2}, {1, 3}, {2, 2}},
     ERR_INPUT,
     "rank 2 has not the same tokens as rank 0"},
    {"a failure counts more",
     {NULL, NULL, "no tokens"},
     {{1, 2}, {2, 2}, {0}},
     ERR_INPUT,
     "rank 2: no tokens"},
};

/* The communicator is the caller's; a peer holds a copy of it for the time of the test. */
static enum err_code all_rounds(struct comm *c, void *ctx, struct err *e)
{
    static const char *const name[HASHES] = {"tokens", "weights"};
    struct peers p = {.comm = *c};
    (void)ctx;
    if (peers_first(&p) != !c->rank)
        return err_set(e, ERR_CLAIM, "who is first?");
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++) {
        const struct round *r = &rounds[i];
        const char *mine = r->fails[c->rank];
        struct err say = {0};
        enum err_code rc = mine ? err_set(&say, ERR_INPUT, "%s", mine) : ERR_OK;
        rc = peers_agree(&p, rc, name, r->hash[c->rank], HASHES, &say);
        if (rc != r->rc || strcmp(say.msg, r->msg) || peers_speaks(&p) != !c->rank)
            return err_set(e, ERR_CLAIM, "%s: status %d \"%s\"", r->name, (int)rc, say.msg);
    }
    return ERR_OK;
}

static void what_all_hear(void **state)
{
    (void)state;
    ranks_run("rounds", SIZE, all_rounds, NULL);
}

/* A rank that is gone: the others are apart, and each of them says so. */
static enum err_code without_rank_1(struct comm *c, void *ctx, struct err *e)
{
    struct peers p = {.comm = *c};
    struct err say = {0};
    (void)ctx;
    /* Rank 1 has heard all others, so nobody is looking for it any more when it goes. */
    enum err_code rc = peers_agree(&p, ERR_OK, NULL, NULL, 0, &say);
    if (c->rank == 1)
        _exit(9);
    if (!rc)
        rc = peers_agree(&p, ERR_OK, NULL, NULL, 0, &say);
    if (rc != ERR_RESOURCE || !p.apart || !peers_speaks(&p) || !strstr(say.msg, "rank 1"))
        return err_set(e, ERR_CLAIM, "status %d \"%s\"", (int)rc, say.msg);
    return ERR_OK;
}

static void one_is_gone(void **state)
{
    struct ranks r;
    (void)state;
    ranks_init(&r, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        ranks_begin(&r, i, without_rank_1, NULL, NULL);
    ranks_end(&r);
    for (size_t i = 0; i < SIZE; i++)
        if (r.end[i].status != (i == 1 ? 9 : 0))
            fail_msg("rank %zu: status %d, %s", i, r.end[i].status, r.end[i].msg);
    ranks_free(&r);
}

static void alone(void **state)
{
    struct peers p = {.comm = {.size = 1}};
    struct err e = {0};
    (void)state;
    assert_true(peers_first(NULL) && peers_speaks(NULL) && !peers_share(NULL));
    assert_int_equal(peers_agree(NULL, ERR_INPUT, NULL, NULL, 0, &e), ERR_INPUT);
    assert_int_equal(peers_agree(&p, ERR_OK, NULL, NULL, 0, &e), ERR_OK);
    assert_string_equal(e.msg, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_all_hear),
        cmocka_unit_test(one_is_gone),
        cmocka_unit_test(alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
