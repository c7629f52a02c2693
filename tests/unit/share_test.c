/*
 * share_test - guards against a score that depends on how many processes computed it: in every mode
 * each rank must get the bits, the order and the sums of one process, whatever the ranks' number;
 * and a rank that fails or wants to stop must end all of them at the same place, with its number in
 * the message, instead of leaving the others waiting. And against training of the weights whose
 * rows are shared out to another gradient, or with more bytes than it takes.
 *
 * Ranks are threads here; what they exchange goes through an array and a barrier.
 */
#include <pthread.h>

#include "model/score.h"
#include "model/ttt.h"
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
    size_t cut;          /* the same for swap */
    size_t tired, syncs; /* wait number `syncs` of the device of rank `tired` fails */
    bool gather_only;    /* there is no swap */
    const struct score_part *part[RANKS];
    size_t parts[RANKS];
};

struct rank {
    struct job *job;
    size_t rank, calls, done, all, gathers, swaps, backwards;
    size_t sent, received, floats;
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

/* What the other rank sends as its nth part for this one. */
static const struct score_part *counterpart(const struct job *job, size_t from, size_t to, size_t n)
{
    for (size_t i = 0; i < job->parts[from]; i++) {
        const struct score_part *p = &job->part[from][i];
        if (p->send && p->peer == to && !n--)
            return p;
    }
    return NULL;
}

static enum err_code swap(void *ctx, const struct score_part *part, size_t n, struct err *e)
{
    struct rank *r = ctx;
    struct job *job = r->job;
    size_t had[RANKS] = {0};
    if (++r->swaps == job->cut)
        return err_set(e, ERR_RESOURCE, "out of touch");
    job->part[r->rank] = part;
    job->parts[r->rank] = n;
    pthread_barrier_wait(&job->barrier);
    for (size_t i = 0; i < n; i++) {
        const struct score_part *from;
        *(part[i].send ? &r->sent : &r->received) += part[i].bytes;
        if (part[i].send)
            continue;
        from = counterpart(job, part[i].peer, r->rank, had[part[i].peer]++);
        job->unequal |= !from || from->bytes != part[i].bytes;
        if (from && from->bytes == part[i].bytes)
            memcpy(part[i].at, from->at, from->bytes);
    }
    for (size_t i = 0; i < job->ranks; i++)
        job->unequal |= i != r->rank && counterpart(job, i, r->rank, had[i]);
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

/* A device that fails once, after so many waits. */
static _Thread_local size_t waits_left;
static enum err_code (*true_sync)(struct kern *k, struct err *e);

static enum err_code tired_sync(struct kern *k, struct err *e)
{
    enum err_code rc = true_sync(k, e);
    return waits_left && !--waits_left ? err_set(e, ERR_RESOURCE, "tired") : rc;
}

static void *run(void *arg)
{
    struct rank *r = arg;
    const struct job *job = r->job;
    struct tiny t = tiny_open(job->settings, 1 + r->rank % 2, 6);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 7);
    struct byte_table b = {.vocab = (size_t)t.m.r.vocab_size};
    struct score_share share = {.rank = r->rank,
                                .ranks = job->ranks,
                                .gather = gather,
                                .swap = job->gather_only ? NULL : swap,
                                .ctx = r};
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
    r->floats = t.m.floats;
    waits_left = r->rank == job->tired ? job->syncs : 0;
    if (waits_left) {
        true_sync = t.k->sync;
        t.k->sync = tired_sync;
    }
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
    {"ttt, steps of 5 rows and of 2", "TTT_CHUNK_TOKENS=112\nTTT_BATCH_SEQS=5\nTTT_LR=0.01",
     EVAL_TTT, 4},
    {"ttt, steps of 25 rows", "EVAL_SEQ_LEN=8\nTTT_CHUNK_TOKENS=200\nTTT_EPOCHS=1", EVAL_TTT, 4},
    {"ttt, steps of 13 rows", "TTT_CHUNK_TOKENS=208\nTTT_LR=0.01\nEMBED_BF16=1", EVAL_TTT, 4},
};

static void the_bits_of_one_process(void **state)
{
    static const size_t ranks[] = {1, 2, 3, RANKS};
    struct job *job = calloc(1, sizeof *job);
    struct rank *r = calloc(RANKS, sizeof *r), *one = calloc(1, sizeof *one);
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        *job = (struct job){
            .settings = cases[c].settings, .stops = NOBODY, .broken = NOBODY, .tired = NOBODY};
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

/* Without a way for gradients every rank takes all steps, and nothing but losses travels; with one,
 * a step's bytes are what ttt.h says, whoever is short of rows. */
static void bytes_of_training(void **state)
{
    /* A chunk is 12 rows: two steps of 7 and 5, twice; the stream has another chunk. */
    static const struct {
        size_t ranks;
        size_t sums[2][4]; /* per step: of each rank */
    } want[] = {
        {2, {{1, 1}, {2, 2}}},       /* 5: 0 1 2 | 3 4 of ((0 1)(2 3)) 4 */
        {3, {{2, 2, 2}, {1, 1, 1}}}, /* 7: 0 1 2 | 3 4 | 5 6 of ((0 1)(2 3)) ((4 5) 6) */
        {4, {{1, 1, 1, 1}, {1, 1, 1, 1}}},
    };
    struct job *job = calloc(1, sizeof *job);
    struct rank *r = calloc(RANKS, sizeof *r);
    (void)state;
    for (size_t c = 0; c < COUNT(want); c++) {
        *job = (struct job){.settings = "TTT_CHUNK_TOKENS=192\nTTT_BATCH_SEQS=7\nTTT_EPOCHS=2",
                            .stops = NOBODY,
                            .broken = NOBODY,
                            .tired = NOBODY};
        job->o = (struct score_opts){.mode = EVAL_TTT};
        start(job, r, want[c].ranks);
        size_t stride = (r[0].floats + TTT_ALIGN - 1) / TTT_ALIGN, n = want[c].ranks, all = 0;
        for (size_t i = 0; i < n; i++) {
            size_t own = (stride * (i + 1) / n - stride * i / n) * TTT_ALIGN, sent = 0;
            assert_int_equal(r[i].rc, ERR_OK);
            assert_int_equal(r[i].swaps, 8);
            for (size_t s = 0; s < 2; s++)
                sent += want[c].sums[s][i] * (stride * TTT_ALIGN - own) + own * (n - 1);
            if (r[i].sent != 2 * 4 * sent)
                fail_msg("%zu ranks, rank %zu: %zu bytes, expected %zu", n, i, r[i].sent,
                         2 * 4 * sent);
            all += r[i].sent - r[i].received;
        }
        assert_int_equal(all, 0);
        job->gather_only = true;
        start(job, r, n);
        for (size_t i = 0; i < n; i++)
            assert_true(!r[i].rc && !r[i].swaps);
    }
    free(job);
    free(r);
}

static void one_fails(void **state)
{
    static const struct {
        const char *name, *says;
        enum eval_mode mode;
        size_t stops, after, broken, lost, cut;
        size_t tired, syncs; /* the device of rank `tired` fails at its `syncs`th wait */
        enum err_code rc;
    } bad[] = {
        {"sink, first", "rank 1: no more", EVAL_SLIDING, 1, 1, NOBODY, 0, 0, NOBODY, 0,
         ERR_RESOURCE},
        {"sink, later", "rank 2: no more", EVAL_SLIDING, 2, 5, NOBODY, 0, 0, NOBODY, 0,
         ERR_RESOURCE},
        {"sink, at the end", "rank 0: no more", EVAL_PLAIN, 0, 14, NOBODY, 0, 0, NOBODY, 0,
         ERR_RESOURCE},
        {"weights", "rank 2: the score of position", EVAL_SLIDING, NOBODY, 0, 2, 0, 0, NOBODY, 0,
         ERR_INPUT},
        {"weights, slot", "rank 1: the score of position", EVAL_SLOT, NOBODY, 0, 1, 0, 0, NOBODY, 0,
         ERR_INPUT},
        {"weights, ttt", "rank 0: the score of position 0 ", EVAL_TTT, NOBODY, 0, 0, 0, 0, NOBODY,
         0, ERR_INPUT},
        {"exchange", "out of touch", EVAL_SLIDING, NOBODY, 0, NOBODY, 2, 0, NOBODY, 0,
         ERR_RESOURCE},
        {"gradients", "out of touch", EVAL_TTT, NOBODY, 0, NOBODY, 0, 1, NOBODY, 0, ERR_RESOURCE},
        {"sums", "out of touch", EVAL_TTT, NOBODY, 0, NOBODY, 0, 4, NOBODY, 0, ERR_RESOURCE},
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
                            .tired = bad[c].tired,
                            .syncs = bad[c].syncs,
                            .lost = bad[c].lost,
                            .cut = bad[c].cut};
        job->o = (struct score_opts){.mode = bad[c].mode, .batch = 1};
        start(job, r, 3);
        for (size_t i = 0; i < 3; i++)
            EXPECT(bad[c].name, bad[c].rc, bad[c].says, r[i].rc, r[i].e);
    }
    free(job);
    free(r);
}

/* Whichever wait it is that fails on one rank, in scoring or in training: all end, with its number.
 */
static void a_device_fails(void **state)
{
    struct job *job = calloc(1, sizeof *job);
    struct rank *r = calloc(RANKS, sizeof *r);
    (void)state;
    for (size_t wait = 1;; wait++) {
        char label[40];
        snprintf(label, sizeof label, "wait %zu", wait);
        *job = (struct job){.settings = "TTT_CHUNK_TOKENS=96\nTTT_EPOCHS=1\nEVAL_STRIDE=16",
                            .stops = NOBODY,
                            .broken = NOBODY,
                            .tired = 1,
                            .syncs = wait};
        job->o = (struct score_opts){.mode = EVAL_TTT, .batch = 4};
        start(job, r, 3);
        if (!r[0].rc)
            break;
        for (size_t i = 0; i < 3; i++)
            EXPECT(label, ERR_RESOURCE, "rank 1: tired", r[i].rc, r[i].e);
    }
    assert_false(r[1].rc || r[2].rc);
    free(job);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_one_process),
        cmocka_unit_test(bytes_of_training),
        cmocka_unit_test(one_fails),
        cmocka_unit_test(a_device_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
