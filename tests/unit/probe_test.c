/*
 * probe_test - guards against a submission that looks at what it must predict and is called causal,
 * and against an honest one that is not. Each case is one way to cheat, or to be wrong, and what
 * the probe has to say about it.
 *
 * The guests are this file, compiled a second time as a static program: a model that counts the
 * tokens before, and its dishonest relatives. Which one it is, its own name says.
 */
#ifdef PROBE_GUEST

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { VOCAB = 32, MOST = 1 << 16 };

static uint16_t tok[MOST];
static double nll[MOST];

static int is(const char *me, const char *what)
{
    return !strcmp(me, what);
}

/* Counts of what came before; the weights differ so that no two tokens are equally likely. */
static double counted(const unsigned *count, size_t seen, unsigned v, double extra)
{
    double all = (double)seen + VOCAB + 0.01 * VOCAB * (VOCAB - 1) / 2;
    return -log((count[v] + 1 + 0.01 * v + extra) / (all + extra));
}

static void score(const char *me, size_t n)
{
    unsigned count[VOCAB] = {0};
    for (size_t i = 0; is(me, "twice") && i < n; i++)
        count[tok[i]]++;
    for (size_t t = 1; t < n; t++) {
        double *s = &nll[t - 1];
        uint16_t noise = 0;
        if (!is(me, "twice"))
            count[tok[t - 1]]++;
        *s = counted(count, is(me, "twice") ? n : t, tok[t], is(me, "own") ? 5 : 0);
        if ((is(me, "ahead") || is(me, "boast")) && t + 1500 < n)
            *s -= 1e-9 * tok[t + 1500];
        if (is(me, "sum"))
            *s -= log(1.02);
        if (is(me, "pad") && t % 50 == 0)
            *s = 0.5;
        if (is(me, "below") && t % 50 == 0)
            *s = -0.001;
        if (is(me, "uniform"))
            *s = log(VOCAB);
        if (is(me, "random") && getrandom(&noise, sizeof noise, 0) == sizeof noise)
            *s += 1e-12 * noise;
    }
    if (is(me, "reversed"))
        for (size_t i = 0, j = n - 2; i < j; i++, j--) {
            double x = nll[i];
            nll[i] = nll[j];
            nll[j] = x;
        }
}

int main(int argc, char **argv)
{
    const char *me = strrchr(argv[0], '/') + 1, *data = "", *mode = "";
    int32_t head[256];
    char npy[129];
    for (int i = 1; i + 1 < argc; i++) {
        data = is(argv[i], "--data") ? argv[i + 1] : data;
        mode = is(argv[i], "--eval") ? argv[i + 1] : mode;
    }
    FILE *f = fopen(data, "rb");
    if (!f || fread(head, sizeof head, 1, f) != 1 || is(me, "crash")) {
        fprintf(stderr, "no data");
        return 3;
    }
    size_t n = fread(tok, 2, MOST, f), count = n - 1, bytes = 0;
    score(me, n);
    if (is(me, "skip"))
        for (size_t i = count = 0; i < n - 1; i++)
            if (i % 7)
                nll[count++] = nll[i];
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += nll[i];
    for (size_t i = 1; i < n; i++)
        bytes += tok[i] >= 3;
    bytes += is(me, "bytes");
    snprintf(npy, sizeof npy,
             "\x93NUMPY\1%cv%c{'descr': '<f8', 'fortran_order': False, 'shape': (%zu,), }", 0, 0,
             count);
    size_t used = 10 + strlen(npy + 10);
    memset(npy + used, ' ', 127 - used);
    npy[127] = '\n';
    ssize_t send = (ssize_t)(count * 8 / (is(me, "short") ? 2 : 1));
    if (write(3, npy, 128) != 128 || write(3, nll, (size_t)send) != send)
        return 4;
    if (!is(me, "silent"))
        printf("final_%s val_loss:%.8f val_bpb:%.8f tokens:%zu bytes:%zu time_ms:1\n", mode,
               sum / (double)count, sum / log(2) / (double)bytes, count, bytes);
    if (is(me, "boast"))
        printf("conditions %s: 1 causal:yes 2 normalised:yes\n", mode);
    return 0;
}

#else

#include <math.h>

#include "model/reader.h"
#include "model/shard.h"
#include "tests/unit/util.h"
#include "verify/commands.h"
#include "verify/probe_judge.h"
#include "verify/probe_sum.h"

enum { VOCAB = 32, TOKENS = 6000 };

/* ---- programs ---- */

static const struct {
    const char *guest, *verdict, *says; /* says: in the reasons */
    const char *conditions;             /* y, n, - */
} cases[] = {
    {"honest", "causal", "", "yyyy"},
    {"uniform", "causal", "", "yyyy"}, /* never changes, and is not too good for that */
    {"own", "not normalised", "know the token that they score", "-n--"},
    {"ahead", "not causal", "1500 tokens before it", "nynn"},
    {"boast", "not causal", "says of itself that it meets condition 1", "nynn"},
    {"twice", "not causal", "scores before a change changed", "n-nn"},
    {"reversed", "not causal", "scores before a change changed", "n-nn"},
    {"sum", "not normalised", "sum to 1.020000", "-n--"},
    {"below", "not normalised", "below 0", "-n--"},
    {"pad", "incomplete", "do not depend on their token", "yyy-"},
    {"skip", "incomplete", "3510 scores, its windows have 4096", "----"},
    {"short", "not run", "of the 4096 scores that it announced", "----"},
    {"random", "not repeatable", "differ between two runs", "----"},
    {"bytes", "misreported", "says bytes:", "yyyy"},
    {"silent", "misreported", "no line \"final_sliding", "yyyy"},
    {"crash", "not run", "exit status 3: no data", "----"},
};

static void make_tokenizer(const char *path)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < VOCAB; i++) /* field 1 a piece; in it field 1 the text, field 3 the type */
        fprintf(f, "\n%c\n%c%c\x18%c", 5, 1, '@' + i, i < 3 ? 3 : 1);
    assert_int_equal(fclose(f), 0);
}

static void make_shard(const char *path)
{
    uint8_t head[SHARD_HEADER] = {0}, two[2];
    uint64_t random = 5;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    put_le32(head, SHARD_MAGIC);
    put_le32(head + 4, SHARD_VERSION);
    put_le32(head + 8, TOKENS);
    fwrite(head, sizeof head, 1, f);
    for (size_t i = 0; i < TOKENS; i++) {
        two[0] = (uint8_t)util_below(&random, util_below(&random, VOCAB) + 1);
        two[1] = 0;
        fwrite(two, 2, 1, f);
    }
    assert_int_equal(fclose(f), 0);
}

static enum err_code probe(const char *guest, size_t seed, struct report *r, struct err *e)
{
    static const char *setting[] = {"VOCAB_SIZE=32", "TRAIN_SEQ_LEN=64", "EVAL_STRIDE=16"};
    const struct options o = {.command = COMMAND_PROBE,
                              .file = util_path(guest),
                              .data = util_path("some_val_0.bin"),
                              .tokenizer = util_path("letters.model"),
                              .eval = "sliding",
                              .threads = 2,
                              .timeout = 20,
                              .memory = 512,
                              .json = true,
                              .quiet = true,
                              .setting = setting,
                              .settings = COUNT(setting),
                              .seed = seed,
                              .flips = 4,
                              .positions = 1,
                              .budget = 600};
    assert_int_equal(report_init(r, true, true, e), ERR_OK);
    return verify_probe(&o, r, e);
}

/* Verdict, reasons and conditions of the only mode as one text. */
static void read_report(const struct report *r, char *text, size_t cap, char *conditions)
{
    const cJSON *mode = cJSON_GetArrayItem(cJSON_GetObjectItem(r->root, "modes"), 0), *i;
    const cJSON *verdict = cJSON_GetObjectItem(mode, "verdict");
    size_t n = 0;
    snprintf(text, cap, "%s", verdict ? verdict->valuestring : "?");
    cJSON_ArrayForEach(i, cJSON_GetObjectItem(mode, "reasons"))
    {
        size_t at = strlen(text);
        snprintf(text + at, cap - at, "; %s", i->valuestring);
    }
    cJSON_ArrayForEach(i, cJSON_GetObjectItem(mode, "conditions"))
    {
        bool yes = !strcmp(i->valuestring, "yes"), no = !strcmp(i->valuestring, "no");
        conditions[n++] = yes ? 'y' : no ? 'n' : '-';
    }
    conditions[n] = 0;
}

static void guests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct report r;
        struct err e = {0};
        char text[2048], conditions[8];
        enum err_code rc = probe(cases[i].guest, 1, &r, &e);
        read_report(&r, text, sizeof text, conditions);
        bool good = !strcmp(cases[i].verdict, "causal") ? rc == ERR_OK : rc == ERR_CLAIM;
        size_t n = strlen(cases[i].verdict);
        if (!good || strncmp(text, cases[i].verdict, n) || (text[n] && text[n] != ';') ||
            !strstr(text, cases[i].says) || strcmp(conditions, cases[i].conditions))
            fail_msg("%s: status %d, conditions %s, \"%s\" %s", cases[i].guest, (int)rc, conditions,
                     text, e.msg);
        report_free(&r);
    }
}

/* The same seed is the same probe; another seed another one. */
static void repeats(void **state)
{
    static const size_t seed[3] = {3, 3, 4};
    char *text[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct report r;
        struct err e = {0};
        assert_int_equal(probe("ahead", seed[i], &r, &e), ERR_CLAIM);
        text[i] = cJSON_Print(cJSON_GetObjectItem(r.root, "modes"));
        report_free(&r);
    }
    assert_string_equal(text[0], text[1]);
    assert_string_not_equal(text[0], text[2]);
    for (size_t i = 0; i < 3; i++)
        cJSON_free(text[i]);
}

/* A probe leaves nothing behind: its shards are in a directory that is gone. */
static void leaves_nothing(void **state)
{
    struct report r;
    struct err e = {0};
    (void)state;
    const char *tmp = util_path("tmp");
    assert_int_equal(mkdir(tmp, 0777), 0);
    setenv("TMPDIR", tmp, 1);
    enum err_code rc = probe("crash", 1, &r, &e);
    unsetenv("TMPDIR");
    report_free(&r);
    assert_int_equal(rc, ERR_CLAIM);
    assert_int_equal(rmdir(tmp), 0); /* so it was empty */
}

/* ---- judging, without programs ---- */

static void small_map(struct probe_map *m, const char *windows, enum eval_mode mode, size_t n)
{
    struct err e = {0};
    struct recipe r;
    struct gpt g;
    recipe_init(&r);
    r.train_seq_len = 16;
    r.eval_stride = 4;
    snprintf(r.eval_windows, sizeof r.eval_windows, "%s", windows);
    assert_int_equal(gpt_init(&g, &r, &e), ERR_OK);
    assert_int_equal(probe_map_make(m, &g, mode, n, &e), ERR_OK);
    gpt_free(&g);
}

static void maps(void **state)
{
    static const struct {
        const char *windows;
        enum eval_mode mode;
        size_t n, count, repeated;
    } list[] = {
        {"new", EVAL_PLAIN, 33, 32, 0},   {"new", EVAL_SLIDING, 33, 32, 0},
        {"new", EVAL_SLIDING, 40, 32, 0}, {"old", EVAL_SLIDING, 33, 44, 12},
        {"old", EVAL_PLAIN, 49, 48, 0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        struct probe_map m;
        bool seen[64] = {0};
        small_map(&m, list[i].windows, list[i].mode, list[i].n);
        if (m.count != list[i].count || m.repeated != list[i].repeated)
            fail_msg("map %zu: %zu scores, %zu repeated", i, m.count, m.repeated);
        for (size_t j = 0; j < m.count; j++) {
            seen[m.token[j]] = true;
            assert_true(m.token[j] <= m.reach[j] && m.reach[j] <= m.token[j] + 16);
        }
        for (size_t t = 1; t <= m.total; t++)
            assert_true(seen[t]);
        probe_map_free(&m);
    }
}

static void changes(void **state)
{
    struct probe_map m;
    struct probe_change c;
    double base[32], other[32];
    (void)state;
    small_map(&m, "new", EVAL_PLAIN, 33);
    for (size_t i = 0; i < 32; i++)
        base[i] = other[i] = 1;
    probe_compare(&c, &m, base, other, 20);
    assert_int_equal(c.earlier, 19);
    assert_int_equal(c.changed, 0);
    assert_false(c.own);
    other[19] = 2; /* token 20 itself, and one behind it: both allowed */
    other[25] = 2;
    probe_compare(&c, &m, base, other, 20);
    assert_int_equal(c.changed, 0);
    assert_true(c.own);
    other[18] = nextafter(1, 2); /* the least that there is, one token before */
    other[2] = 0.5;              /* token 3, whose window ends at token 16 */
    probe_compare(&c, &m, base, other, 20);
    assert_int_equal(c.changed, 2);
    assert_int_equal(c.beyond, 1);
    assert_int_equal(c.distance, 17);
    assert_int_equal(c.worst_at, 3);
    assert_true(c.worst == 0.5);
    other[7] = NAN;
    probe_compare(&c, &m, base, other, 20);
    assert_int_equal(c.worst_at, 8);
    base[0] = -0.0;
    other[0] = 0.0; /* equal, but not the same bits */
    probe_compare(&c, &m, base, other, 20);
    assert_int_equal(c.changed, 4);
    probe_map_free(&m);
}

static void random_numbers(void **state)
{
    uint64_t s = 1;
    (void)state;
    for (size_t i = 0; i < 2000; i++) {
        size_t total = 1 + probe_below(&s, 50), n = 1 + probe_below(&s, 8), k = probe_below(&s, n);
        size_t at = probe_place(&s, total, k, n);
        if (at < 1 || at > total)
            fail_msg("place %zu of 1..%zu, part %zu of %zu", at, total, k, n);
        uint16_t than = (uint16_t)probe_below(&s, 5), v = probe_other(&s, than, 5);
        if (v == than || v >= 5)
            fail_msg("another one than %u: %u", than, v);
    }
    uint16_t data[40], tok[40], was[40];
    for (size_t i = 0; i < 40; i++)
        data[i] = tok[i] = was[i] = (uint16_t)(i % 3);
    probe_flip_rest(tok, 40, 11, data, 40, 7, &s);
    for (size_t i = 0; i < 40; i++)
        assert_true((tok[i] == was[i]) == (i < 11) && tok[i] < 7);
}

static void lines(void **state)
{
    static const struct {
        const char *line;
        bool good;
    } list[] = {
        {"final_plain val_loss:2.5 val_bpb:1.25 tokens:10 bytes:20 time_ms:3", true},
        {"final_plain val_loss:2.5 val_bpb:1.25 tokens:10 bytes:20", true},
        {"final_plain val_loss:2.5 val_bpb:1.25 tokens:10", false},
        {"final_plain val_loss:nan val_bpb:1.25 tokens:10 bytes:20", false},
        {"final_plain val_loss:2.5 val_bpb:1.25 tokens:-10 bytes:20", false},
        {"final_plain val_loss:2.5 val_bpb:1.25 tokens:10x bytes:20", false},
        {"", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        struct probe_line l;
        bool good = probe_line_parse(list[i].line, &l);
        if (good != list[i].good)
            fail_msg("\"%s\"", list[i].line);
        if (good)
            assert_true(l.tokens == 10 && l.bytes == 20 && l.val_loss == 2.5);
    }
    enum probe_answer c[PROBE_CONDITIONS];
    probe_claims(c, "conditions slot: 1 causal:no 2 normalised:yes 4 single-pass:perhaps");
    assert_true(c[0] == PROBE_NO && c[1] == PROBE_YES && c[2] == PROBE_UNCHECKED &&
                c[3] == PROBE_UNCHECKED);
    probe_claims(c, "");
    assert_int_equal(c[0], PROBE_UNCHECKED);
}

/* ---- the folder ---- */

static int setup(void **state)
{
    char command[1200];
    const char *cc = getenv("CC");
    (void)state;
    snprintf(command, sizeof command, "%s -O1 -static -D_GNU_SOURCE -DPROBE_GUEST -o %s %s -lm",
             cc && *cc ? cc : "cc", util_path("honest"), __FILE__);
    if (system(command)) {
        printf("cannot build the guest: %s\n", command);
        return -1;
    }
    for (size_t i = 1; i < COUNT(cases); i++)
        if (link(util_path("honest"), util_path(cases[i].guest)))
            return -1;
    make_tokenizer(util_path("letters.model"));
    make_shard(util_path("some_val_0.bin"));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests), cmocka_unit_test(repeats), cmocka_unit_test(leaves_nothing),
        cmocka_unit_test(maps),   cmocka_unit_test(changes), cmocka_unit_test(random_numbers),
        cmocka_unit_test(lines),
    };
    return cmocka_run_group_tests(tests, setup, util_cleanup);
}
#endif
