/*
 * comm_test.c - exists for the exchange between cards that takes what is not computed yet, hands
 * over what has not arrived, or waits for ever: trainer/comm_nccl.cu over the NCCL of nccl.cc, each
 * rank a process with an emulated card. `comm_test CARDS` takes the machine's real ones.
 */
#include "tests/unit/comm_jobs.h"
#include "tests/unit/comm_ranks.h"
#include "trainer/comm_impl.h"

static size_t cards; /* 0: emulated ones, of which every process has one */

enum { ROUNDS = 3, MOST = 70001 };

/* Number `i` of what `from` sends to `to`, after the card has doubled it. */
static float sent(size_t from, size_t to, size_t round, size_t i)
{
    return 2 * (float)(from * 1000 + to * 100 + round * 10 + i % 7);
}

static size_t length(size_t from, size_t to, size_t round)
{
    static const size_t sizes[] = {1, 0, 5, MOST, 1000};
    return sizes[(from * 3 + to + round) % 5];
}

static enum err_code open_card(struct kern **k, struct comm *c, struct err *e)
{
    enum err_code rc = kern_cuda(k, cards ? (int)c->local_rank : 0, e);
    if (rc == ERR_OK)
        rc = comm_device(c, *k, e);
    if (rc == ERR_OK && strcmp(c->name, "nccl"))
        rc = err_set(e, ERR_CLAIM, "joined by %s", c->name);
    return rc;
}

/* Everybody to everybody: computed by work that is only queued when the exchange begins, and used
 * by work that is queued right behind it. */
static enum err_code round_trip(struct kern *k, struct comm *c, size_t round, float *host,
                                struct err *e)
{
    struct comm_part part[2 * RANKS_MOST];
    struct comm_batch *b;
    float *out[RANKS_MOST], *in[RANKS_MOST];
    size_t n = 0;
    for (size_t r = 0; r < c->size; r++) {
        out[r] = k->alloc(k, MOST * sizeof(float));
        in[r] = k->alloc(k, MOST * sizeof(float));
        for (size_t i = 0; i < MOST; i++)
            host[i] = sent(c->rank, r, round, i) / 2;
        k->upload(k, out[r], host, MOST * sizeof(float));
        k->add(k, out[r], out[r], MOST);
        if (r == c->rank)
            continue;
        part[n++] = (struct comm_part){r, true, out[r], length(c->rank, r, round) * sizeof(float)};
        part[n++] = (struct comm_part){r, false, in[r], length(r, c->rank, round) * sizeof(float)};
    }
    enum err_code rc = comm_start(c, part, n, &b, e);
    comm_test(c);
    if (rc == ERR_OK)
        rc = comm_wait(c, &b, e);
    for (size_t r = 0; r < c->size && rc == ERR_OK; r++) {
        size_t have = r == c->rank ? 0 : length(r, c->rank, round);
        k->add(k, in[r], out[r], MOST);
        k->download(k, host, in[r], MOST * sizeof(float));
        for (size_t i = 0; i < MOST && rc == ERR_OK; i++)
            if (host[i] != (i < have ? sent(r, c->rank, round, i) : 0) + sent(c->rank, r, round, i))
                rc = err_set(e, ERR_CLAIM, "round %zu: number %zu from rank %zu is wrong", round, i,
                             r);
    }
    for (size_t r = 0; r < c->size; r++) {
        k->free(k, out[r]);
        k->free(k, in[r]);
    }
    return rc == ERR_OK ? k->sync(k, e) : rc;
}

static enum err_code exchange(struct comm *c, void *ctx, struct err *e)
{
    struct kern *k = NULL;
    float *host = malloc(MOST * sizeof *host);
    enum err_code rc = open_card(&k, c, e);
    (void)ctx;
    for (size_t round = 0; round < ROUNDS && rc == ERR_OK; round++)
        rc = round_trip(k, c, round, host, e);
    if (rc == ERR_OK)
        rc = job_gather(c, NULL, e); /* memory of the host, as before */
    comm_close(c);
    kern_free(k);
    free(host);
    return rc;
}

static void test_exchange(void **state)
{
    (void)state;
    for (size_t size = 2; size <= (cards ? cards : 4) && size <= RANKS_MOST; size++)
        ranks_run("exchange", size, exchange, NULL);
}

/* A job of one rank has no use for NCCL; on a machine with one card it shows that it is there. */
static enum err_code alone(struct comm *c, void *ctx, struct err *e)
{
    struct kern *k = NULL;
    enum err_code rc = kern_cuda(&k, 0, e);
    (void)ctx;
    if (rc == ERR_OK)
        rc = comm_nccl_open(c, k, e);
    if (rc == ERR_OK && strcmp(c->name, "nccl"))
        rc = err_set(e, ERR_CLAIM, "joined by %s", c->name);
    comm_close(c);
    kern_free(k);
    return rc;
}

static void test_alone(void **state)
{
    (void)state;
    ranks_run("alone", 1, alone, NULL);
}

/* Rank 1 dies, or leaves the others alone, before or in an exchange. ctx: how. */
static enum err_code fault(struct comm *c, void *ctx, struct err *e)
{
    const char *how = ctx;
    struct kern *k = NULL;
    float *host = malloc(MOST * sizeof *host);
    enum err_code rc = open_card(&k, c, e);
    if (rc == ERR_OK)
        rc = round_trip(k, c, 0, host, e);
    if (rc == ERR_OK && c->rank == 1 && !strcmp(how, "kill"))
        raise(SIGKILL);
    if (rc == ERR_OK && c->rank == 1 && !strcmp(how, "abort"))
        rc = err_set(e, ERR_INPUT, "shard 7 is short");
    if (rc == ERR_OK)
        rc = round_trip(k, c, 1, host, e);
    if (rc != ERR_OK)
        comm_abort(c, (int)rc);
    comm_close(c);
    kern_free(k);
    free(host);
    return rc;
}

static void test_faults(void **state)
{
    static const struct {
        const char *how;
        int victim;
    } cases[] = {{"kill", -SIGKILL}, {"abort", ERR_INPUT}};
    (void)state;
    if (cards && cards < 3)
        skip();
    for (size_t f = 0; f < sizeof cases / sizeof cases[0]; f++) {
        struct ranks r;
        ranks_init(&r, 3);
        for (size_t i = 0; i < 3; i++)
            ranks_begin(&r, i, fault, (void *)(uintptr_t)cases[f].how, NULL);
        ranks_end(&r);
        for (size_t i = 0; i < 3; i++)
            if (r.end[i].status != (i == 1 ? cases[f].victim : ERR_RESOURCE) ||
                (i != 1 && !*r.end[i].msg))
                fail_msg("%s: rank %zu: status %d: %s", cases[f].how, i, r.end[i].status,
                         r.end[i].msg);
        ranks_free(&r);
    }
}

/* One machine lacks the library: all hear which. */
static void test_no_library(void **state)
{
    static const char *const none[] = {"EMU_NCCL", "none", NULL};
    struct ranks r;
    (void)state;
    if (cards)
        skip();
    ranks_init(&r, 3);
    for (size_t i = 0; i < 3; i++)
        ranks_begin(&r, i, exchange, NULL, i == 2 ? none : NULL);
    ranks_end(&r);
    for (size_t i = 0; i < 3; i++)
        if (r.end[i].status != ERR_RESOURCE ||
            !strstr(r.end[i].msg, "rank 2: NCCL: cannot open libnccl.so.2"))
            fail_msg("rank %zu: status %d: %s", i, r.end[i].status, r.end[i].msg);
    ranks_free(&r);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_no_library),
    };
    cards = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
