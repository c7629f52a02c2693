/*
 * share_test - guards against a score that depends on how many processes computed it: in every mode
 * each rank must get the bits, the order and the sums of one process, whatever the ranks' number;
 * and a rank that fails or wants to stop must end all of them at the same place, with its number in
 * the message, instead of leaving the others waiting.
 *
 * Ranks are threads here; what they exchange goes through an array and a barrier.
 */
#include <pthread.h>

#include "model/score.h"
#include "tests/unit/tiny.h"

enum { RANKS = 9, TOKENS = 230, SCORES = 2048, MESSAGE = 1 << 16, NOBODY = 99 };

struct job {
    pthread_barrier_t barrier;
    size_t ranks;
    uint8_t box[RANKS][MESSAGE];
    size_t bytes[RANKS];
    bool unequal; /* ranks gave messages of different length */
    const char *settings;
    struct score_opts o;
    size_t stops, after; /* the sink of rank `stops` fails at call `after` */
    size_t broken;       /* its weights are not finite */
    size_t lost;         /* the gather with this number fails, on all ranks */
};

struct rank {
    struct job *job;
    size_t rank, calls, done, all, gathers, backwards;
    struct score s, record;
    double nll[SCORES];
    size_t n;
    enum err_code rc;
    struct err e;
};

static enum err_code gather(void *ctx, void *all, const void *mine, size_t bytes, struct err *e)
{
    struct rank *r = ctx;
    struct job *job = r->job;
    if (++r->gathers == job->lost)
        return err_set(e, ERR_RESOURCE, "out of touch");
    if (bytes > MESSAGE)
        return err_set(e, ERR_RESOURCE, "%zu bytes are more than the test has room for", bytes);
    memcpy(job->box[r->rank], mine, bytes);
    job->bytes[r->rank] = bytes;
    pthread_barrier_wait(&job->barrier);
    for (size_t i = 0; i < job->ranks; i++) {
        job->unequal |= job->bytes[i] != bytes;
        memcpy((uint8_t *)all + i * bytes, job->box[i], bytes);
    }
    pthread_barrier_wait(&job->barrier);
    return ERR_OK;
}

static enum err_code sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct rank *r = ctx;
    if (++r->calls == r->job->after && r->rank == r->job->stops)
        return err_set(e, ERR_RESOURCE, "no more");
    if (n > SCORES - r->n)
        return err_set(e, ERR_RESOURCE, "more scores than the test has room for");
    memcpy(r->nll + r->n, nll, n * sizeof *nll);
    r->n += n;
    return ERR_OK;
}

static void progress(void *ctx, size_t done, size_t all)
{
    struct rank *r = ctx;
    r->backwards += done < r->done || done > all || (r->all && r->all != all);
    r->done = done;
    r->all = all;
}

static void *run(void *arg)
{
    struct rank *r = arg;
    const struct job *job = r->job;
    struct tiny t = tiny_open(job->settings, 1 + r->rank % 2, 6);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
    struct byte_table b = {.vocab = (size_t)t.m.r.vocab_size};
    struct score_share share = {.rank = r->rank, .ranks = job->ranks, .gather = gather, .ctx = r};
    struct score_opts o = job->o;
    b.base = calloc(2, b.vocab);
    b.flags = b.base + b.vocab;
    memset(b.base, 3, b.vocab);
    o.record = &r->record;
    o.sink = sink;
    o.progress = progress;
    o.ctx = r;
    if (job->ranks)
        o.share = &share;
    if (r->rank == job->broken)
        t.params[gpt_head(&t.m) + 100] = NAN;
    r->rc = score_run(&t.m, t.k, t.params, tok, TOKENS, &b, &o, &r->s, &r->e);
    bytes_free(&b);
    free(tok);
    tiny_close(&t);
    return NULL;
}

/* ranks 0: one process that shares with nobody. */
static void start(struct job *job, struct rank *r, size_t ranks)
{
    pthread_t thread[RANKS];
    size_t n = ranks ? ranks : 1;
    job->ranks = ranks;
    job->unequal = false;
    pthread_barrier_init(&job->barrier, NULL, (unsigned)n);
    for (size_t i = 0; i < n; i++) {
        r[i] = (struct rank){.job = job, .rank = i};
        assert_int_equal(pthread_create(&thread[i], NULL, run, &r[i]), 0);
    }
    for (size_t i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&job->barrier);
}

static void same(const char *label, const struct rank *want, const struct rank *have)
{
    if (have->rc)
        fail_msg("%s: rank %zu: %s", label, have->rank, have->e.msg);
    if (have->job->unequal)
        fail_msg("%s: messages of unequal length", label);
    if (have->n != want->n || memcmp(have->nll, want->nll, want->n * sizeof *want->nll))
        fail_msg("%s: rank %zu: other scores, %zu of %zu", label, have->rank, have->n, want->n);
    if (memcmp(&have->s, &want->s, sizeof want->s) ||
        memcmp(&have->record, &want->record, sizeof want->record))
        fail_msg("%s: rank %zu: val_loss %.17g and %.17g, expected %.17g and %.17g", label,
                 have->rank, have->s.val_loss, have->record.val_loss, want->s.val_loss,
                 want->record.val_loss);
    if (have->backwards || have->done != want->all || have->all != want->all)
        fail_msg("%s: rank %zu: %zu of %zu done, expected %zu", label, have->rank, have->done,
                 have->all, want->all);
}

static const struct {
    const char *name, *settings;
    enum eval_mode mode;
    size_t batch;
} cases[] = {
    {"plain", "", EVAL_PLAIN, 0},
    {"plain, one window per run", "", EVAL_PLAIN, 1},
    {"sliding", "", EVAL_SLIDING, 2},
    {"sliding, old windows", "EVAL_WINDOWS=old", EVAL_SLIDING, 3},
    {"sliding, longer windows than the stream has many", "EVAL_SEQ_LEN=72\nEVAL_STRIDE=24",
     EVAL_SLIDING, 1},
    {"slot", "SLOT_STEPS=3\nSLOT_BATCH_SEQS=4", EVAL_SLOT, 3},
    {"slot, old windows", "SLOT_STEPS=3\nSLOT_BATCH_SEQS=5\nEVAL_WINDOWS=old", EVAL_SLOT, 2},
    {"slot, batches larger than the list", "SLOT_STEPS=2\nSLOT_BATCH_SEQS=1000", EVAL_SLOT, 2},
    {"context", "SLOT_STEPS=3\nSLOT_BATCH_SEQS=4", EVAL_SLOT_CONTEXT, 1},
    {"context, shared", "SLOT_STEPS=3\nSLOT_BATCH_SEQS=4\nSLOT_SHARED=1", EVAL_SLOT_CONTEXT, 2},
    {"context, shared, after training",
     "SLOT_STEPS=3\nSLOT_BATCH_SEQS=4\nSLOT_SHARED=1\nSLOT_AFTER_TTT=1\nTTT_CHUNK_TOKENS=64\nTTT_"
     "LR=0.001",
     EVAL_SLOT_CONTEXT, 2},
    {"ttt", "TTT_CHUNK_TOKENS=64\nTTT_BATCH_SEQS=2\nTTT_LR=0.001", EVAL_TTT, 2},
    {"ttt, a chunk is one row", "TTT_CHUNK_TOKENS=16\nTTT_LR=0.001", EVAL_TTT, 2},
};

static void the_bits_of_one_process(void **state)
{
    static const size_t ranks[] = {1, 2, 3, RANKS};
    struct job *job = calloc(1, sizeof *job);
    struct rank *r = calloc(RANKS, sizeof *r), *one = calloc(1, sizeof *one);
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        *job = (struct job){.settings = cases[c].settings, .stops = NOBODY, .broken = NOBODY};
        job->o = (struct score_opts){.mode = cases[c].mode, .batch = cases[c].batch};
        start(job, one, 0);
        for (size_t n = 0; n < COUNT(ranks); n++) {
            start(job, r, ranks[n]);
            for (size_t i = 0; i < ranks[n]; i++) {
                char label[200];
                snprintf(label, sizeof label, "%s, %zu ranks", cases[c].name, ranks[n]);
                same(label, one, &r[i]);
            }
        }
    }
    free(job);
    free(r);
    free(one);
}

static void one_fails(void **state)
{
    static const struct {
        const char *name, *says;
        enum eval_mode mode;
        size_t stops, after, broken, lost;
        enum err_code rc;
    } bad[] = {
        {"sink, first", "rank 1: no more", EVAL_SLIDING, 1, 1, NOBODY, 0, ERR_RESOURCE},
        {"sink, later", "rank 2: no more", EVAL_SLIDING, 2, 5, NOBODY, 0, ERR_RESOURCE},
        {"sink, at the end", "rank 0: no more", EVAL_PLAIN, 0, 14, NOBODY, 0, ERR_RESOURCE},
        {"weights", "rank 2: the score of position", EVAL_SLIDING, NOBODY, 0, 2, 0, ERR_INPUT},
        {"weights, slot", "rank 1: the score of position", EVAL_SLOT, NOBODY, 0, 1, 0, ERR_INPUT},
        {"weights, ttt", "rank 0: the score of position 0 ", EVAL_TTT, NOBODY, 0, 0, 0, ERR_INPUT},
        {"exchange", "out of touch", EVAL_SLIDING, NOBODY, 0, NOBODY, 2, ERR_RESOURCE},
    };
    struct job *job = calloc(1, sizeof *job);
    struct rank *r = calloc(RANKS, sizeof *r);
    (void)state;
    for (size_t c = 0; c < COUNT(bad); c++) {
        *job = (struct job){.settings = "SLOT_BATCH_SEQS=4\nSLOT_STEPS=2\nTTT_CHUNK_TOKENS=64\n"
                                        "TIE_EMBEDDINGS=0",
                            .stops = bad[c].stops,
                            .after = bad[c].after,
                            .broken = bad[c].broken,
                            .lost = bad[c].lost};
        job->o = (struct score_opts){.mode = bad[c].mode, .batch = 1};
        start(job, r, 3);
        for (size_t i = 0; i < 3; i++)
            EXPECT(bad[c].name, bad[c].rc, bad[c].says, r[i].rc, r[i].e);
    }
    free(job);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_one_process),
        cmocka_unit_test(one_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
