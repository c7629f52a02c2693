/*
 * adapt.h - what the tests of the modes that adapt share: a model, a stream, a run with all its
 * scores, and comparisons of runs by bits and by value.
 */
#ifndef TESTS_UNIT_ADAPT_H
#define TESTS_UNIT_ADAPT_H

#include "model/score.h"
#include "tests/unit/tiny.h"

enum { ADAPT_SCORES = 4096 };

struct adapt_run {
    struct score s, record;
    double nll[ADAPT_SCORES];
    size_t n, done, all;
};

static inline enum err_code adapt_sink(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct adapt_run *r = ctx;
    (void)e;
    assert_true(n <= ADAPT_SCORES - r->n);
    memcpy(r->nll + r->n, nll, n * sizeof *nll);
    r->n += n;
    return ERR_OK;
}

static inline void adapt_progress(void *ctx, size_t done, size_t all)
{
    struct adapt_run *r = ctx;
    assert_true(done > r->done && done <= all && (!r->all || r->all == all));
    r->done = done;
    r->all = all;
}

/* Score tok[n]; o's sink, progress and record are replaced. */
static inline enum err_code adapt_score(struct tiny *t, const uint16_t *tok, size_t n,
                                        const struct score_opts *o, struct adapt_run *r,
                                        struct err *e)
{
    struct byte_table b = {.vocab = (size_t)t->m.r.vocab_size};
    struct score_opts opts = *o;
    b.base = calloc(2, b.vocab);
    b.flags = b.base + b.vocab;
    for (size_t i = 0; i < b.vocab; i++)
        b.base[i] = (uint8_t)(1 + i % 7);
    *r = (struct adapt_run){0};
    opts.record = &r->record;
    opts.sink = adapt_sink;
    opts.progress = adapt_progress;
    opts.ctx = r;
    enum err_code rc = score_run(&t->m, t->k, t->params, tok, n, &b, &opts, &r->s, e);
    bytes_free(&b);
    return rc;
}

/* The same, and it must work out: weights untouched, all work announced and done. */
static inline void adapt_ok(const char *label, struct tiny *t, const uint16_t *tok, size_t n,
                            const struct score_opts *o, struct adapt_run *r)
{
    size_t bytes = t->m.floats * sizeof(float);
    float *before = malloc(bytes);
    struct err e = {0};
    memcpy(before, t->params, bytes);
    EXPECT(label, ERR_OK, "", adapt_score(t, tok, n, o, r, &e), e);
    if (memcmp(before, t->params, bytes))
        fail_msg("%s: the weights were changed", label);
    if (r->done != r->all || r->n != r->s.tokens)
        fail_msg("%s: %zu of %zu done, %zu scores of %llu", label, r->done, r->all, r->n,
                 (unsigned long long)r->s.tokens);
    free(before);
}

static inline void adapt_same(const char *label, const struct adapt_run *a,
                              const struct adapt_run *b)
{
    if (a->n != b->n)
        fail_msg("%s: %zu scores, expected %zu", label, b->n, a->n);
    for (size_t i = 0; i < a->n; i++)
        if (memcmp(&a->nll[i], &b->nll[i], sizeof a->nll[i]))
            fail_msg("%s: score %zu is %.9g, expected %.9g", label, i, b->nll[i], a->nll[i]);
    if (memcmp(&a->s, &b->s, sizeof a->s) || memcmp(&a->record, &b->record, sizeof a->record))
        fail_msg("%s: val_loss %.17g and %.17g, expected %.17g and %.17g", label, b->s.val_loss,
                 b->record.val_loss, a->s.val_loss, a->record.val_loss);
}

/* How many scores differ in a bit. */
static inline size_t adapt_differ(const double *a, const double *b, size_t n)
{
    size_t differ = 0;
    for (size_t i = 0; i < n; i++)
        differ += memcmp(&a[i], &b[i], sizeof a[i]) != 0;
    return differ;
}

/*
 * adapt_same_bits - one run is repeated with every instruction set, with 1, 2 and 7 threads, other
 * batches of windows, and hardly any memory for logits: all bits must be the same.
 */
static inline void adapt_same_bits(const char *name, const char *settings, enum eval_mode mode,
                                   size_t tokens)
{
    static const char *const isa[] = {"portable", "avx2", "avx512"};
    static const struct {
        size_t threads, batch, cache;
    } ways[] = {{1, 0, 0}, {2, 1, 0}, {7, 2, 0}, {2, 5, 1}, {1, 1000, 1}, {2, 3, 20000}};
    struct adapt_run *first = calloc(1, sizeof *first), *r = calloc(1, sizeof *r);
    for (size_t i = 0; i < COUNT(isa); i++)
        for (size_t w = 0; w < COUNT(ways); w++) {
            struct kern *k;
            struct err e = {0};
            char label[200];
            setenv("KERN_ISA", isa[i], 1);
            if (kern_cpu(&k, 1, &e))
                continue;
            kern_free(k);
            struct tiny t = tiny_open(settings, ways[w].threads, 6);
            uint16_t *tok = tiny_tokens(&t, tokens, 7);
            struct score_opts o = {.mode = mode, .batch = ways[w].batch, .cache = ways[w].cache};
            snprintf(label, sizeof label, "%s, %s, %zu threads, batch %zu, cache %zu", name, isa[i],
                     ways[w].threads, ways[w].batch, ways[w].cache);
            adapt_ok(label, &t, tok, tokens, &o, first->n ? r : first);
            if (r->n)
                adapt_same(label, first, r);
            free(tok);
            tiny_close(&t);
        }
    unsetenv("KERN_ISA");
    free(first);
    free(r);
}

#endif
