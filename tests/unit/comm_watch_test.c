/*
 * comm_watch_test.c - exists for the wrong rank in a message, or the wrong reason: what counts when
 * several ranks fail in several ways, who is not waited for, and time that this process slept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/comm_impl.h"

enum { RANKS = 6, ME = 0 };

struct state {
    size_t peer;
    enum peer_state state;
    const char *why;
};

/* A wait for ranks 1, 2 and 3 that began `ago` seconds ago. Silent ranks are so for a minute; those
 * that left did so a minute ago, or just now where the case says so. */
static const struct {
    const char *name;
    struct state state[4];
    size_t states;
    double ago;
    bool just_now;
    const char *say; /* NULL: there is hope */
} cases[] = {
    {"all alive", {{0}}, 0, 1, false, NULL},
    {"one silent", {{2, PEER_SILENT, NULL}}, 1, 1, false, "nothing heard from rank 2 for 10 s"},
    {"two silent",
     {{1, PEER_SILENT, NULL}, {3, PEER_SILENT, NULL}},
     2,
     1,
     false,
     "nothing heard from ranks 1, 3 for 10 s"},
    {"another silent", {{5, PEER_SILENT, NULL}}, 1, 1, false, NULL},
    {"one left", {{3, PEER_LEFT, NULL}}, 1, 1, false, "rank 3 left the job before its end"},
    {"left just now", {{3, PEER_LEFT, NULL}}, 1, 1, true, NULL},
    {"another left", {{4, PEER_LEFT, NULL}}, 1, 1, false, NULL},
    {"another is gone", {{5, PEER_GONE, NULL}}, 1, 1, false, "rank 5 is gone"},
    {"gone, and why", {{5, PEER_GONE, "no route"}}, 1, 1, false, "rank 5 is gone: no route"},
    {"gave up", {{4, PEER_GAVE_UP, "exit 3"}}, 1, 1, false, "rank 4 gave up: exit 3"},
    {"the cause and what it led to",
     {{1, PEER_GAVE_UP, "rank 5 is gone"}, {5, PEER_GONE, NULL}, {2, PEER_SILENT, NULL}},
     3,
     1,
     false,
     "rank 5 is gone"},
    {"the first word counts",
     {{1, PEER_LEFT, NULL}, {1, PEER_GONE, NULL}},
     2,
     1,
     false,
     "rank 1 left the job"},
    {"patience", {{0}}, 0, 101, false, "waited 100 s for ranks 1, 2, 3, which run"},
};

static void open_watch(struct comm_watch *w)
{
    const struct comm_job job = {.rank = ME, .size = RANKS, .timeout_s = 10, .patience_s = 100};
    assert_int_equal(watch_open(w, &job, NULL), ERR_OK);
}

static void test_judge(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct comm_watch w;
        struct comm_part parts[] = {
            {1, true, NULL, 1}, {2, false, NULL, 1}, {3, true, NULL, 1}, {4, true, NULL, 1}};
        struct comm_batch *b = comm_batch_new(parts, 4);
        struct err e = {0}, again = {0};
        open_watch(&w);
        b->done[3] = true; /* rank 4 has done its part */
        for (size_t s = 0; s < cases[i].states; s++) {
            watch_is(&w, cases[i].state[s].peer, cases[i].state[s].state, cases[i].state[s].why);
            w.peer[cases[i].state[s].peer].heard -= cases[i].just_now ? 0 : 60;
        }
        enum err_code rc = watch_judge(&w, b, comm_now() - cases[i].ago, &e);
        const char *say = cases[i].say;
        if (rc != (say ? ERR_RESOURCE : ERR_OK) ||
            strncmp(e.msg, say ? say : "", say ? strlen(say) : 1))
            fail_msg("%s: %d, \"%s\"", cases[i].name, (int)rc, e.msg);
        /* It stays so, whatever happens later. */
        watch_is(&w, 5, PEER_GONE, "later");
        watch_judge(&w, b, comm_now(), &again);
        if (say && strcmp(again.msg, e.msg))
            fail_msg("%s: \"%s\" became \"%s\"", cases[i].name, e.msg, again.msg);
        comm_batch_free(b);
        watch_close(&w);
    }
}

/* Silence: found, and over when something is heard. Not counted: time in which nobody looked. */
static void test_silence(void **state)
{
    struct comm_watch w;
    (void)state;
    open_watch(&w);
    watch_look(&w);
    for (size_t r = 1; r < RANKS; r++)
        w.peer[r].heard -= r == 2 ? 11 : 9;
    watch_look(&w);
    for (size_t r = 1; r < RANKS; r++)
        assert_int_equal(w.peer[r].state, r == 2 ? PEER_SILENT : PEER_ALIVE);
    watch_heard(&w, 2);
    assert_int_equal(w.peer[2].state, PEER_ALIVE);
    /* This process was stopped for a minute. */
    for (size_t r = 1; r < RANKS; r++)
        w.peer[r].heard -= 60;
    w.looked -= 60;
    watch_look(&w);
    assert_int_equal(w.peer[2].state, PEER_ALIVE);
    /* What ended does not come back. */
    watch_is(&w, 3, PEER_GONE, NULL);
    watch_heard(&w, 3);
    assert_int_equal(w.peer[3].state, PEER_GONE);
    watch_close(&w);
}

static void test_names(void **state)
{
    bool hit[40] = {[3] = true};
    char out[120];
    (void)state;
    watch_names(out, sizeof out, hit, 40);
    assert_string_equal(out, "rank 3");
    hit[0] = hit[39] = true;
    watch_names(out, sizeof out, hit, 40);
    assert_string_equal(out, "ranks 0, 3, 39");
    memset(hit, 1, sizeof hit);
    watch_names(out, sizeof out, hit, 40);
    assert_string_equal(out, "ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 28 more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
