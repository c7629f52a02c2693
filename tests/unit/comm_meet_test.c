/*
 * comm_meet_test.c - exists for the start that hangs or joins the wrong processes: a rank that does
 * not come, a wrong WORLD_SIZE, a taken port, a name that nobody knows, two jobs at one port,
 * another build, and anybody else on the network who connects to the port.
 */
#include <netdb.h>

#include "tests/unit/comm_jobs.h"
#include "tests/unit/comm_ranks.h"

static const char *const quick[] = {"COMM_TIMEOUT", "1.5", NULL};

static void expect(const char *what, const struct ranks *r, size_t i, int status, const char *say)
{
    if (r->end[i].status != status || !strstr(r->end[i].msg, say))
        fail_msg("%s: process %zu: status %d, expected %d; \"%s\", expected \"%s\"", what, i,
                 r->end[i].status, status, r->end[i].msg, say);
}

/* Those that came hear who did not. */
static void test_missing(void **state)
{
    struct ranks r;
    (void)state;
    ranks_init(&r, 5);
    for (size_t i = 0; i < 5; i += 2)
        ranks_begin(&r, i, job_gather, NULL, quick);
    ranks_end(&r);
    expect("missing", &r, 0, ERR_RESOURCE, "ranks 1, 3 did not come in 1.5 s");
    expect("missing", &r, 2, ERR_RESOURCE, "rank 0 gave up: ranks 1, 3 did not come in 1.5 s");
    expect("missing", &r, 4, ERR_RESOURCE, "rank 0 gave up: ranks 1, 3 did not come in 1.5 s");
    ranks_free(&r);
    ranks_init(&r, 3);
    ranks_begin(&r, 1, job_gather, NULL, quick);
    ranks_end(&r);
    expect("no rank 0", &r, 1, ERR_RESOURCE, "rank 0 is not at 127.0.0.1:");
    ranks_free(&r);
}

/* Rank 2 thinks that there are four; its place stays empty. */
static void test_world_size(void **state)
{
    static const char *const four[] = {"COMM_TIMEOUT", "1.5", "WORLD_SIZE", "4", NULL};
    struct ranks r;
    (void)state;
    ranks_init(&r, 3);
    for (size_t i = 0; i < 3; i++)
        ranks_begin(&r, i, job_gather, NULL, i == 2 ? four : quick);
    ranks_end(&r);
    expect("world size", &r, 0, ERR_RESOURCE,
           "rank 2 did not come in 1.5 s (COMM_TIMEOUT); turned away: rank 2 with WORLD_SIZE=4, "
           "where rank 0 has 3");
    expect("world size", &r, 1, ERR_RESOURCE, "rank 0 gave up: rank 2 did not come");
    expect("world size", &r, 2, ERR_USAGE, "with WORLD_SIZE=4, where rank 0 has 3");
    ranks_free(&r);
}

/* One rank twice: the second is turned away, the job goes on. */
static void test_twice(void **state)
{
    static const char *const first[] = {"RANK", "1", NULL};
    struct ranks r;
    (void)state;
    ranks_init(&r, 3);
    ranks_begin(&r, 0, job_gather, NULL, NULL);
    ranks_begin(&r, 1, job_gather, NULL, NULL);
    ranks_begin(&r, 3, job_gather, NULL, first);
    nanosleep(&(struct timespec){0, 500000000}, NULL);
    ranks_begin(&r, 2, job_gather, NULL, NULL);
    ranks_end(&r);
    expect("twice", &r, 0, ERR_OK, "");
    expect("twice", &r, 2, ERR_OK, "");
    if (r.end[1].status == ERR_OK)
        expect("twice", &r, 3, ERR_USAGE, "a second rank 1");
    else
        expect("twice", &r, 1, ERR_USAGE, "a second rank 1");
    ranks_free(&r);
}

static void test_address(void **state)
{
    static const char *const unknown[] = {"MASTER_ADDR", "no-such-host.invalid", NULL};
    struct ranks r, other;
    (void)state;
    ranks_init(&r, 2);
    ranks_begin(&r, 1, job_gather, NULL, unknown);
    ranks_end(&r);
    expect("unknown name", &r, 1, ERR_USAGE, "MASTER_ADDR=no-such-host.invalid: ");
    ranks_free(&r);
    /* Rank 0 of a second job at a port where the first still waits for its rank 1. */
    ranks_init(&r, 2);
    ranks_init(&other, 2);
    memcpy(other.port, r.port, sizeof r.port);
    ranks_begin(&r, 0, job_gather, NULL, NULL);
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    ranks_begin(&other, 0, job_gather, NULL, NULL);
    ranks_end(&other);
    expect("port taken", &other, 0, ERR_RESOURCE, "is taken, by another job or program");
    /* And its rank 1, which says that it is of another job. */
    static const char *const named[] = {"COMM_JOB", "another", NULL};
    ranks_begin(&other, 1, job_gather, NULL, named);
    ranks_end(&other);
    expect("another job", &other, 1, ERR_USAGE, "as rank 1 of another job");
    ranks_begin(&r, 1, job_gather, NULL, NULL);
    ranks_end(&r);
    for (size_t i = 0; i < 2; i++)
        expect("first job", &r, i, ERR_OK, "");
    ranks_free(&r);
    ranks_free(&other);
}

/* Strangers: one says nothing, one talks, one talks of the right length, one hangs up; more of them
 * than rank 0 keeps. The job begins all the same. */
static void test_strangers(void **state)
{
    enum { STRANGERS = 80 };
    struct ranks r;
    int fd[STRANGERS];
    char noise[100];
    (void)state;
    memset(noise, 'x', sizeof noise);
    ranks_init(&r, 2);
    ranks_begin(&r, 0, job_gather, NULL, NULL);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr = {htonl(INADDR_LOOPBACK)},
                            .sin_port = htons((uint16_t)atoi(r.port))};
    for (int i = 0; i < STRANGERS; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        for (int try = 0; connect(fd[i], (struct sockaddr *)&a, sizeof a); try++) {
            if (try > 1000)
                fail_msg("rank 0 does not listen");
            nanosleep(&(struct timespec){0, 10000000}, NULL);
        }
        if (i % 4 == 1 && send(fd[i], noise, sizeof noise, MSG_NOSIGNAL) < 0)
            fail_msg("send");
        if (i % 4 == 2 && send(fd[i], noise, 36, MSG_NOSIGNAL) < 0)
            fail_msg("send");
        if (i % 4 == 3)
            shutdown(fd[i], SHUT_RDWR);
    }
    ranks_begin(&r, 1, job_gather, NULL, NULL);
    ranks_end(&r);
    for (size_t i = 0; i < 2; i++)
        expect("strangers", &r, i, ERR_OK, "");
    for (int i = 0; i < STRANGERS; i++)
        close(fd[i]);
    ranks_free(&r);
}

/* What listens at the port is no rank 0: it hangs up, or says something else. */
static void test_other_master(void **state)
{
    (void)state;
    for (int talks = 0; talks < 2; talks++) {
        struct ranks r;
        ranks_init(&r, 2);
        int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_addr = {htonl(INADDR_LOOPBACK)},
                                .sin_port = htons((uint16_t)atoi(r.port))};
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1))
            fail_msg("listen");
        ranks_begin(&r, 1, job_gather, NULL, quick);
        int guest = accept(fd, NULL, NULL);
        if (talks && send(guest, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL) < 0)
            fail_msg("send");
        close(guest);
        ranks_end(&r);
        expect("no rank 0", &r, 1, ERR_RESOURCE, "is not rank 0 of this job");
        close(fd);
        ranks_free(&r);
    }
}

/* The same program with one byte more at its end is another build. */
static void test_build(void **state)
{
    char self[400] = {0}, copy[] = "/tmp/comm_test_XXXXXX", line[900];
    struct ranks r;
    int status;
    (void)state;
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        fail_msg("/proc/self/exe");
    close(mkstemp(copy));
    snprintf(line, sizeof line, "cp '%s' %s && echo >>%s && chmod +x %s", self, copy, copy, copy);
    if (system(line))
        fail_msg("%s", line);
    ranks_init(&r, 2);
    fflush(NULL);
    r.pid[1] = fork();
    if (!r.pid[1]) {
        setenv("RANK", "1", 1);
        setenv("WORLD_SIZE", "2", 1);
        setenv("MASTER_ADDR", "127.0.0.1", 1);
        setenv("MASTER_PORT", r.port, 1);
        execl(copy, copy, "join", NULL);
        _exit(99);
    }
    ranks_begin(&r, 0, job_gather, NULL, NULL);
    waitpid(r.pid[1], &status, 0);
    r.pid[1] = 0;
    ranks_end(&r);
    unlink(copy);
    expect("build", &r, 0, ERR_INPUT, "rank 1 runs another build of this program than rank 0");
    assert_int_equal(WEXITSTATUS(status), ERR_INPUT);
    ranks_free(&r);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),   cmocka_unit_test(test_world_size),
        cmocka_unit_test(test_twice),     cmocka_unit_test(test_address),
        cmocka_unit_test(test_strangers), cmocka_unit_test(test_other_master),
        cmocka_unit_test(test_build),
    };
    if (argc > 1 && !strcmp(argv[1], "join")) { /* test_build */
        struct comm c;
        struct err e = {0};
        return (int)comm_open(&c, &e);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
