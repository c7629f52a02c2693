/*
 * score_test - guards against a score that cannot be reproduced: the number of windows per run,
 * threads, instruction set and pruning must not change a bit of any loss or of the sums, losses
 * must come in stream order, and a stream or weights that make no sense must be refused with the
 * place named, not averaged into a plausible number.
 */
#include "model/score.h"
#include "model/text.h"
#include "tests/unit/tiny.h"

struct sink {
    double *nll;
    size_t n, cap, calls, stop_at, done, all;
};

static enum err_code collect(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct sink *s = ctx;
    if (++s->calls == s->stop_at)
        return err_set(e, ERR_RESOURCE, "no room for %zu", n);
    assert_true(n <= s->cap - s->n);
    memcpy(s->nll + s->n, nll, n * sizeof *nll);
    s->n += n;
    return ERR_OK;
}

static void progress(void *ctx, size_t done, size_t all)
{
    struct sink *s = ctx;
    assert_true(done > s->done && done <= all && (!s->all || s->all == all));
    s->done = done;
    s->all = all;
}

/* A byte table in which every piece has other bytes, some begin with a space, some are boundaries.
 */
static struct byte_table table(size_t vocab)
{
    struct byte_table b = {.vocab = vocab, .base = calloc(2, vocab)};
    b.flags = b.base + vocab;
    for (size_t i = 0; i < vocab; i++) {
        b.base[i] = (uint8_t)(i % 7);
        b.flags[i] = i % 5 == 0 ? BYTES_BOUNDARY : i % 3 == 0 ? BYTES_LEAD : 0;
    }
    return b;
}

struct run {
    struct score s;
    struct sink sink;
};

static struct run run(const char *label, struct tiny *t, const uint16_t *tok, size_t n,
                      const struct score_opts *opts)
{
    struct byte_table b = table((size_t)t->m.r.vocab_size);
    struct run r = {.sink = {.cap = 8 * n}};
    struct score_opts o = *opts;
    struct err e = {0};
    r.sink.nll = malloc(r.sink.cap * sizeof(double));
    o.sink = collect;
    o.progress = progress;
    o.ctx = &r.sink;
    EXPECT(label, ERR_OK, "", score_run(&t->m, t->k, t->params, tok, n, &b, &o, &r.s, &e), e);
    assert_int_equal(r.sink.done, r.sink.all);
    assert_int_equal(r.sink.n, r.s.tokens);
    bytes_free(&b);
    return r;
}

static void same(const char *label, const struct run *a, const struct run *b)
{
    if (a->sink.n != b->sink.n)
        fail_msg("%s: %zu scores, expected %zu", label, b->sink.n, a->sink.n);
    for (size_t i = 0; i < a->sink.n; i++)
        if (memcmp(&a->sink.nll[i], &b->sink.nll[i], sizeof(double)))
            fail_msg("%s: score %zu is %.9g, expected %.9g", label, i, b->sink.nll[i],
                     a->sink.nll[i]);
    if (memcmp(&a->s, &b->s, sizeof a->s))
        fail_msg("%s: val_loss %.17g, expected %.17g", label, b->s.val_loss, a->s.val_loss);
}

static const struct {
    const char *name, *settings;
    enum eval_mode mode;
} lists[] = {
    {"plain", "", EVAL_PLAIN},
    {"sliding", "", EVAL_SLIDING},
    {"old", "EVAL_WINDOWS=old", EVAL_SLIDING},
    {"stride 1", "EVAL_STRIDE=1", EVAL_SLIDING},
    {"stride 5, partial last window", "EVAL_STRIDE=5", EVAL_SLIDING},
    {"stride = window", "EVAL_STRIDE=16", EVAL_SLIDING},
    {"longer windows", "EVAL_SEQ_LEN=40\nEVAL_STRIDE=8", EVAL_SLIDING},
    {"longer windows, old", "EVAL_SEQ_LEN=72\nEVAL_STRIDE=24\nEVAL_WINDOWS=old", EVAL_SLIDING},
};
enum { TOKENS = 230 };

/* ---- the bits ---- */

static void batches_threads_and_isa(void **state)
{
    static const char *const isa[] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 3, 7}, batch[] = {0, 1, 2, 5, 1000};
    (void)state;
    for (size_t l = 0; l < COUNT(lists); l++) {
        struct run first = {0};
        for (size_t i = 0; i < COUNT(isa); i++)
            for (size_t j = 0; j < COUNT(threads); j++) {
                struct kern *k;
                struct err e = {0};
                setenv("KERN_ISA", isa[i], 1);
                if (kern_cpu(&k, 1, &e)) {
                    if (!l && !j)
                        printf("%s\n", e.msg);
                    continue;
                }
                kern_free(k);
                struct tiny t = tiny_open(lists[l].settings, threads[j], 2);
                uint16_t *tok = tiny_tokens(&t, TOKENS, 3);
                for (size_t b = 0; b < (i || j ? 1 : COUNT(batch)); b++) {
                    struct score_opts o = {.mode = lists[l].mode, .batch = batch[b]};
                    char label[200];
                    snprintf(label, sizeof label, "%s, %s, %zu threads, batch %zu", lists[l].name,
                             isa[i], threads[j], batch[b]);
                    struct run r = run(label, &t, tok, TOKENS, &o);
                    if (!first.sink.nll) {
                        first = r;
                        continue;
                    }
                    same(label, &first, &r);
                    free(r.sink.nll);
                }
                free(tok);
                tiny_close(&t);
            }
        free(first.sink.nll);
    }
    unsetenv("KERN_ISA");
}

/* Each window by itself, complete and without pruning, and the sums in the order that is promised.
 */
static void against_the_definition(void **state)
{
    (void)state;
    for (size_t l = 0; l < COUNT(lists); l++) {
        struct tiny t = tiny_open(lists[l].settings, 2, 4);
        struct byte_table b = table((size_t)t.m.r.vocab_size);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
        struct score_opts o = {.mode = lists[l].mode};
        struct run have = run(lists[l].name, &t, tok, TOKENS, &o);
        struct run want = {.sink = {.cap = 8 * TOKENS}};
        struct window_list list;
        struct err e = {0};
        want.sink.nll = malloc(want.sink.cap * sizeof(double));
        assert_int_equal(score_windows(&t.m, TOKENS, &o, &list, &e), ERR_OK);
        for (size_t i = 0; i < window_count(&list); i++) {
            struct window w = window_at(&list, i);
            float nll[128];
            struct graph g;
            tiny_plan(&t, &g, 1, w.len, 0, false);
            tiny_forward(&t, &g, tok + w.start, nll);
            graph_free(&g);
            for (size_t p = w.from; p < w.len; p++) {
                const uint16_t *x = tok + w.start + p;
                want.sink.nll[want.sink.n++] = (double)nll[p];
                want.s.nll += (double)nll[p];
                want.s.bytes += bytes_of(&b, x[0], x[1]);
            }
        }
        want.s.tokens = want.sink.n;
        want.s.val_loss = want.s.nll / (double)want.s.tokens;
        want.s.val_bpb = want.s.val_loss / log(2) * ((double)want.s.tokens / (double)want.s.bytes);
        same(lists[l].name, &want, &have);
        free(want.sink.nll);
        free(have.sink.nll);
        free(tok);
        bytes_free(&b);
        tiny_close(&t);
    }
}

/* ---- how much is scored ---- */

static void max_tokens(void **state)
{
    static const struct {
        enum eval_mode mode;
        size_t max, scored;
    } cases[] = {
        {EVAL_PLAIN, 0, 224},   {EVAL_PLAIN, 16, 16},   {EVAL_PLAIN, 17, 16},
        {EVAL_PLAIN, 47, 32},   {EVAL_PLAIN, 229, 224}, {EVAL_PLAIN, 100000, 224},
        {EVAL_SLIDING, 0, 224}, {EVAL_SLIDING, 31, 16}, {EVAL_SLIDING, 32, 32},
    };
    struct tiny t = tiny_open("", 1, 4);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
    (void)state;
    struct run all = run("all", &t, tok, TOKENS, &(struct score_opts){.mode = EVAL_SLIDING});
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct score_opts o = {.mode = cases[i].mode, .max_tokens = cases[i].max};
        struct run r = run("max", &t, tok, TOKENS, &o);
        if (r.s.tokens != cases[i].scored)
            fail_msg("%s, max %zu: %llu scored, expected %zu", eval_mode_name(cases[i].mode),
                     cases[i].max, (unsigned long long)r.s.tokens, cases[i].scored);
        /* The beginning of the stream has the same scores whatever follows. */
        if (cases[i].mode == EVAL_SLIDING)
            assert_memory_equal(r.sink.nll, all.sink.nll, r.sink.n * sizeof(double));
        free(r.sink.nll);
    }
    free(all.sink.nll);
    free(tok);
    tiny_close(&t);
}

/* The tokens behind the usable total are never looked at. */
static void the_rest_of_the_stream(void **state)
{
    struct tiny t = tiny_open("", 1, 4);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
    struct score_opts o = {.mode = EVAL_SLIDING};
    (void)state;
    struct run a = run("as it is", &t, tok, TOKENS, &o);
    for (size_t i = 225; i < TOKENS; i++)
        tok[i] = 65535;
    struct run b = run("other rest", &t, tok, TOKENS, &o);
    same("other rest", &a, &b);
    free(a.sink.nll);
    free(b.sink.nll);
    free(tok);
    tiny_close(&t);
}

/* ---- what is refused ---- */

static void no_score(void **state)
{
    static const struct {
        const char *name;
        size_t tokens, at, table;
        int token;         /* >= 0: tok[at] */
        const char *param; /* its first element becomes `value` */
        double value;
        enum err_code want;
        const char *says;
    } cases[] = {
        {"one token too few", 16, 0, 37, -1, NULL, 0, ERR_INPUT, "one window needs 16"},
        {"no tokens", 0, 0, 37, -1, NULL, 0, ERR_INPUT, "0 positions"},
        {"first token", 65, 0, 37, 37, NULL, 0, ERR_INPUT,
         "token 0 of the stream is 37, the vocabulary has 37"},
        {"middle token", 65, 31, 37, 65535, NULL, 0, ERR_INPUT, "token 31 of the stream is 65535"},
        {"last target", 65, 64, 37, 100, NULL, 0, ERR_INPUT, "token 64 of the stream is 100"},
        {"byte table too small", 65, 0, 36, -1, NULL, 0, ERR_INPUT,
         "the byte table has 36 pieces, the model's vocabulary 37"},
        {"byte table of nothing", 65, 0, 0, -1, NULL, 0, ERR_INPUT, "the byte table has 0 pieces"},
        {"NaN in a matrix", 65, 0, 37, -1, "blocks.1.mlp.fc.weight", NAN, ERR_INPUT,
         "the score of position 0 is not finite"},
        {"NaN in the embedding", 65, 0, 37, -1, "tok_emb.weight", NAN, ERR_INPUT, "is not finite"},
        {"infinite scale", 65, 0, 37, -1, "blocks.2.mlp_scale", INFINITY, ERR_INPUT,
         "is not finite"},
        {"values beyond fp32", 65, 0, 37, -1, "blocks.0.attn_scale", 3e38, ERR_INPUT,
         "is not finite"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tiny t = tiny_open("LOGIT_SOFTCAP=0", 1, 4);
        struct byte_table b = table(cases[i].table);
        uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
        struct sink sink = {.nll = malloc(TOKENS * sizeof(double)), .cap = TOKENS};
        struct score_opts o = {.mode = EVAL_SLIDING, .sink = collect, .ctx = &sink};
        struct score s;
        struct err e = {0};
        if (cases[i].token >= 0)
            tok[cases[i].at] = (uint16_t)cases[i].token;
        if (cases[i].param) {
            const struct gpt_param *p = gpt_find(&t.m, cases[i].param);
            for (size_t j = 0; j < p->size; j++)
                t.params[p->at + j] = (float)cases[i].value;
        }
        EXPECT(cases[i].name, cases[i].want, cases[i].says,
               score_run(&t.m, t.k, t.params, tok, cases[i].tokens, &b, &o, &s, &e), e);
        for (size_t j = 0; j < sink.n; j++)
            if (!isfinite(sink.nll[j]))
                fail_msg("%s: a score that is not finite reached the sink", cases[i].name);
        free(sink.nll);
        free(tok);
        bytes_free(&b);
        tiny_close(&t);
    }
}

static void tokens_without_bytes(void **state)
{
    struct tiny t = tiny_open("", 1, 4);
    struct byte_table b = {.vocab = 37, .base = calloc(2, 37)};
    uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
    struct score_opts o = {.mode = EVAL_PLAIN};
    struct score s;
    struct err e = {0};
    (void)state;
    b.flags = b.base + 37;
    EXPECT("no bytes", ERR_INPUT, "stand for no bytes",
           score_run(&t.m, t.k, t.params, tok, TOKENS, &b, &o, &s, &e), e);
    bytes_free(&b);
    free(tok);
    tiny_close(&t);
}

static void a_sink_that_fails(void **state)
{
    struct tiny t = tiny_open("", 1, 4);
    struct byte_table b = table(37);
    uint16_t *tok = tiny_tokens(&t, TOKENS, 5);
    (void)state;
    for (size_t stop = 1; stop < 20; stop += 6) {
        struct sink sink = {.nll = malloc(TOKENS * sizeof(double)), .cap = TOKENS, .stop_at = stop};
        struct score_opts o = {
            .mode = EVAL_SLIDING, .batch = 2, .sink = collect, .progress = progress, .ctx = &sink};
        struct score s;
        struct err e = {0};
        EXPECT("sink", ERR_RESOURCE, "no room for",
               score_run(&t.m, t.k, t.params, tok, TOKENS, &b, &o, &s, &e), e);
        assert_int_equal(sink.calls, stop);
        free(sink.nll);
    }
    bytes_free(&b);
    free(tok);
    tiny_close(&t);
}

/* ---- the result line ---- */

static void result_line(void **state)
{
    struct score s = {
        .tokens = 62021632, .bytes = 151080363, .val_loss = 2.5147, .val_bpb = 1.0897};
    char buf[256];
    struct text t = {buf, 0, sizeof buf};
    (void)state;
    score_line(&t, "sliding", &s, 1234, false);
    assert_string_equal(buf, "final_sliding val_loss:2.51470000 val_bpb:1.08970000 "
                             "tokens:62021632 bytes:151080363 time_ms:1234");
    t.n = 0;
    score_line(&t, "plain", &s, 0, true);
    assert_string_equal(buf, "{\"mode\":\"plain\",\"val_loss\":2.51470000,\"val_bpb\":1.08970000,"
                             "\"tokens\":62021632,\"bytes\":151080363,\"time_ms\":0}");
}

/* What stands beside the value of record, and in which order. */
static void report(void **state)
{
    static const struct {
        enum eval_mode mode;
        int shared, after;
        const char *line, *json;
    } cases[] = {
        {EVAL_SLOT, 0, 0,
         "conditions slot: 1 causal:no 2 normalised:yes 3 score-before-update:no 4 single-pass:yes",
         "{\"causal\":false,\"normalised\":true,\"score-before-update\":false,"
         "\"single-pass\":true}"},
        {EVAL_SLOT_CONTEXT, 1, 0,
         "conditions slot-context: 1 causal:no 2 normalised:yes 3 score-before-update:no "
         "4 single-pass:yes",
         NULL},
        {EVAL_SLOT_CONTEXT, 0, 0,
         "conditions slot-context: 1 causal:yes 2 normalised:yes 3 score-before-update:yes "
         "4 single-pass:yes",
         NULL},
        {EVAL_SLOT_CONTEXT, 0, 1,
         "conditions slot-context: 1 causal:no 2 normalised:yes 3 score-before-update:no "
         "4 single-pass:no",
         NULL},
        {EVAL_TTT, 1, 1,
         "conditions ttt: 1 causal:yes 2 normalised:yes 3 score-before-update:yes "
         "4 single-pass:yes",
         NULL},
    };
    struct score s = {.tokens = 640, .bytes = 1500, .val_loss = 2.5, .val_bpb = 1.5};
    struct score record = {.tokens = 640, .bytes = 1500, .val_loss = 3.5, .val_bpb = 2};
    char buf[640], want[640];
    struct text t = {buf, 0, sizeof buf};
    struct recipe r;
    (void)state;
    recipe_init(&r);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *mode = eval_mode_name(cases[i].mode);
        r.slot_shared = cases[i].shared;
        r.slot_after_ttt = cases[i].after;
        t.n = 0;
        score_report(&t, &r, cases[i].mode, &s, &record, 7, false);
        snprintf(want, sizeof want,
                 "final_sliding val_loss:3.50000000 val_bpb:2.00000000 tokens:640 bytes:1500 "
                 "time_ms:7\nfinal_%s val_loss:2.50000000 val_bpb:1.50000000 tokens:640 "
                 "bytes:1500 time_ms:7\n%s",
                 mode, cases[i].line);
        assert_string_equal(buf, want);
        if (!cases[i].json)
            continue;
        t.n = 0;
        score_report(&t, &r, cases[i].mode, &s, &record, 7, true);
        snprintf(want, sizeof want,
                 "{\"mode\":\"%s\",\"val_loss\":2.50000000,\"val_bpb\":1.50000000,"
                 "\"tokens\":640,\"bytes\":1500,\"time_ms\":7,\"record\":{\"mode\":"
                 "\"sliding\",\"val_loss\":3.50000000,\"val_bpb\":2.00000000,\"tokens\":640,"
                 "\"bytes\":1500,\"time_ms\":7},\"conditions\":%s}",
                 mode, cases[i].json);
        assert_string_equal(buf, want);
    }
    /* Modes that do not adapt have their line alone. */
    t.n = 0;
    score_report(&t, &r, EVAL_PLAIN, &s, NULL, 7, false);
    assert_string_equal(buf, "final_plain val_loss:2.50000000 val_bpb:1.50000000 tokens:640 "
                             "bytes:1500 time_ms:7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_threads_and_isa),
        cmocka_unit_test(against_the_definition),
        cmocka_unit_test(max_tokens),
        cmocka_unit_test(the_rest_of_the_stream),
        cmocka_unit_test(no_score),
        cmocka_unit_test(tokens_without_bytes),
        cmocka_unit_test(a_sink_that_fails),
        cmocka_unit_test(result_line),
        cmocka_unit_test(report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
