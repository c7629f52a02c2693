/*
 * submit_test - guards against a leaderboard folder that should not have been made: a file over the
 * limit, a score nobody measured or measured of another file, two runs of one seed, runs of
 * different recipes; and against one that destroys somebody's files or stays half-written.
 */
#include <inttypes.h>
#include <math.h>

#include "model/file.h"
#include "packer/submit.h"
#include "tests/unit/blob_small.h"
#include "tests/unit/util.h"

/* What differs between the runs of a case; zero means: as it should be. */
struct twist {
    const char *setting;                          /* over the recipe of the log */
    const char *log;                              /* the whole log */
    const char *json;                             /* the whole verify.json; "" none */
    const char *stream, *verdict, *table, *extra; /* of verify.json */
    long long seed;                               /* instead of the run's own */
    double bpb;
    unsigned tokens;
    bool other_file; /* verify.json is of a file with other weights */
};

static void write_log(const char *dir, long long seed, const struct twist *t)
{
    char *text = malloc(1 << 16), path[512], line[256];
    struct recipe r;
    struct err e = {0};
    recipe_init(&r);
    assert_int_equal(recipe_parse(&r, small_recipe, strlen(small_recipe), "small", false, &e), 0);
    r.seed = seed;
    if (t->setting)
        assert_int_equal(recipe_set(&r, t->setting, "twist", &e), ERR_OK);
    snprintf(path, sizeof path, "%s/train.log", dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "run:x\nHyperparameters:\n");
    recipe_print(&r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text,
                 1 << 16);
    for (char *l = strtok(text, "\n"); l; l = strtok(NULL, "\n"))
        fprintf(f, "  %s\n", l);
    fprintf(f, "model_params:5\nseed:%lld\nstep:10/30 train_loss:3.1 train_time:100ms\n", seed);
    fprintf(f, "stopping_early: wallclock_cap train_time:200ms step:20/30\n");
    fprintf(f, "step:20/30 val_loss:2.0 val_bpb:1.5 train_time:200ms step_avg:10.0ms\n");
    snprintf(line, sizeof line,
             "pre-quantization post-ema val_loss:2.1 val_bpb:1.51000000 x:1ms\n");
    fprintf(f, "%sfinal_int6_roundtrip_exact val_loss:2.2 val_bpb:1.52000000\n", line);
    fclose(f);
    free(text);
    if (t->log)
        util_spill(path, t->log, strlen(t->log));
}

static void write_json(const char *dir, const struct small *s, const struct twist *t, double bpb)
{
    char path[512];
    snprintf(path, sizeof path, "%s/verify.json", dir);
    unlink(path);
    if (t->json && !*t->json)
        return;
    FILE *f = fopen(path, "w");
    if (t->json) {
        fputs(t->json, f);
        fclose(f);
        return;
    }
    struct blob b;
    struct err e = {0};
    assert_int_equal(blob_parse(&b, s->file, s->size, "small", NULL, 0, &e), ERR_OK);
    fprintf(f, "{\"command\":\"blob\",\"sections\":[");
    for (size_t i = 0; i < b.count; i++) {
        char hash[32] = "-";
        if (b.section[i].kind != KIND_HEADER)
            snprintf(hash, sizeof hash, "%016" PRIx64,
                     b.section[i].xxh64 ^ (t->other_file && b.section[i].kind == KIND_WEIGHTS));
        fprintf(f, "%s{\"kind\":\"%s\",\"offset\":%zu,\"size\":%zu,\"xxh64\":\"%s\"}", i ? "," : "",
                blob_kind_name(b.section[i].kind), b.section[i].offset, b.section[i].size, hash);
    }
    fprintf(f,
            "],\"bytes_total\":%zu,\"byte_table\":\"%s\",\"mode\":\"sliding\",\"val_loss\":%.8f,"
            "\"val_bpb\":%.8f,\"tokens\":%u,\"bytes\":3000,\"time_ms\":12,\"nll_xxh64\":"
            "\"0123456789abcdef\",\"stream_tokens\":1001,\"stream_xxh64\":\"%s\",\"verdict\":\"%"
            "s\",\"reasons\":[\"too\\u001b"
            "bad\"]%s}",
            s->size, t->table ? t->table : "equal", bpb * 2, bpb, t->tokens ? t->tokens : 1000,
            t->stream ? t->stream : "00aa", t->verdict ? t->verdict : "verified",
            t->extra ? t->extra : "");
    fclose(f);
}

/* Run number i of a case into util_path("s<i>"). Each run's file is a byte of its own away from the
 * others': their loaders differ. */
static const char *make_run(size_t i, const struct twist *t)
{
    static char dir[8][512];
    char name[32], path[600];
    uint8_t loader[TINY_HEADERS];
    struct err e = {0};
    snprintf(name, sizeof name, "s%zu", i);
    snprintf(dir[i], sizeof dir[i], "%s", util_path(name));
    assert_int_equal(dir_make(dir[i], &e), ERR_OK);
    tiny_headers(loader, sizeof loader);
    loader[9] = (uint8_t)i;
    struct small s = small_new(loader, sizeof loader, CODEC_RANGE);
    snprintf(path, sizeof path, "%s/submission", dir[i]);
    util_spill(path, s.file, s.size);
    write_log(dir[i], t->seed ? t->seed : 40 + (long long)i, t);
    write_json(dir[i], &s, t, t->bpb > 0 ? t->bpb : 1.5 + 0.001 * (double)i);
    free(s.file);
    return dir[i];
}

static struct submit *open_runs(struct submit_job *j, size_t runs, size_t which,
                                const struct twist *t, struct err *e, enum err_code *rc)
{
    static const struct twist none;
    struct submit *s = calloc(1, sizeof *s);
    j->runs = runs;
    for (size_t i = 0; i < runs; i++)
        j->dir[runs - 1 - i] = make_run(i, i == which ? t : &none); /* order must not matter */
    *rc = submit_open(s, j, e);
    return s;
}

static void close_runs(struct submit *s)
{
    submit_close(s);
    free(s);
}

static bool says(const struct submit *s, const char *rule, enum submit_verdict v, const char *text)
{
    for (size_t i = 0; i < s->checks; i++)
        if (!strcmp(s->check[i].rule, rule) && s->check[i].verdict == v &&
            strstr(s->check[i].text, text))
            return true;
    return false;
}

/* One run of three is not as it should be: which rule says so? */
static void broken(void **state)
{
    static const struct {
        const char *name;
        struct twist t;
        const char *rule, *text;
    } cases[] = {
        {"no audit", {.json = ""}, "R-REPRODUCIBLE", "unverified: verify.json is not there"},
        {"audit of another file", {.other_file = true}, "R-REPRODUCIBLE", "report of another file"},
        {"not verified", {.verdict = "not verified"}, "R-REPRODUCIBLE", "not verified: too?bad"},
        {"no verdict", {.verdict = "verifiedly"}, "R-REPRODUCIBLE", "not verified"},
        {"score missing", {.bpb = 1e-300}, "R-REPRODUCIBLE", "has no score"},
        {"part of the stream",
         {.extra = ",\"max_tokens\":1000"},
         "R-VAL-SET",
         "only the first 1000"},
        {"another stream", {.tokens = 999}, "R-VAL-SET", "scored on different data"},
        {"another stream of the same length", {.stream = "00ab"}, "R-VAL-SET", "hash 00a"},
        {"same seed", {.seed = 42}, "R-SEEDS", "seed 42 twice"},
        {"seed of the settings", {.setting = "SEED=7"}, "R-SEEDS", "SEED=7"},
        {"no seed in the log", {.log = "step:1/1 train_time:1ms\n"}, "R-SEEDS", "no line seed:N"},
        {"no settings in the log", {.log = "seed:41\n"}, "R-LOG", "no Hyperparameters"},
        {"another rate", {.setting = "MATRIX_LR=0.5"}, "R-SIGNIFICANCE", "MATRIX_LR=0.5"},
        {"another quantiser", {.setting = "QUANT_BITS=5"}, "R-SIGNIFICANCE", "QUANT_BITS=5"},
        {"another model than packed",
         {.setting = "MLP_SLOPE=0.25"},
         "R-REPRODUCIBLE",
         "MLP_SLOPE=0.25 in train.log"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t which = 0; which < 2; which++) {
            struct submit_job j = {.out = "x", .track = "non_record_16mb"};
            struct err e = {0};
            enum err_code rc;
            struct submit *s = open_runs(&j, 3, which, &cases[i].t, &e, &rc);
            if (rc)
                fail_msg("%s: %s", cases[i].name, e.msg);
            if (!s->broken || !says(s, cases[i].rule, SUBMIT_BROKEN, cases[i].text)) {
                for (size_t k = 0; k < s->checks; k++)
                    print_message("%s %d %s\n", s->check[k].rule, s->check[k].verdict,
                                  s->check[k].text);
                fail_msg("%s: no \"%s\" under %s", cases[i].name, cases[i].text, cases[i].rule);
            }
            close_runs(s);
        }
}

/* Damaged files end it: exit status 3, and which file. */
static void unreadable(void **state)
{
    static const struct {
        const char *name, *file, *content, *says;
    } cases[] = {
        {"no log", "train.log", NULL, "train.log"},
        {"no submission", "submission", NULL, "submission"},
        {"no blob", "submission", "#!/bin/sh\n", "does not begin with a loader"},
        {"no JSON", "verify.json", "verified", "verify.json: not a JSON object"},
        {"an array", "verify.json", "[1]", "verify.json: not a JSON object"},
        {"empty JSON", "verify.json", "", "verify.json: not a JSON object"},
        {"bad setting", "train.log", "Hyperparameters:\n  NUM_LAYERS=x\n", "Hyperparameters"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct submit *s = calloc(1, sizeof *s);
        struct submit_job j = {.out = "x", .track = "non_record_16mb", .runs = 1};
        struct err e = {0};
        char path[600];
        j.dir[0] = make_run(0, &(struct twist){0});
        snprintf(path, sizeof path, "%s/%s", j.dir[0], cases[i].file);
        unlink(path);
        if (cases[i].content)
            util_spill(path, cases[i].content, strlen(cases[i].content));
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says, submit_open(s, &j, &e), e);
        assert_int_equal(s->runs, 0);
        close_runs(s);
    }
}

static void limits_of_the_track(void **state)
{
    struct submit_job j = {.out = "x", .track = "10min_16mb", .author = "A", .github = "a"};
    struct twist none = {0};
    struct err e = {0};
    enum err_code rc;
    (void)state;
    struct submit *s = open_runs(&j, 3, 0, &none, &e, &rc);
    assert_true(says(s, "R-VAL-SET", SUBMIT_BROKEN, "the challenge's text has 151.08 million"));
    assert_int_equal(s->broken, 1);
    for (size_t i = 0; i < 3; i++)
        s->run[i].record.bytes = 151080363;
    submit_judge(s);
    assert_true(says(s, "R-VAL-SET", SUBMIT_KEPT, "as many as the challenge's text has"));
    assert_int_equal(s->broken, 0);
    s->run[1].train_ms = SUBMIT_TRAIN_MS + 1;
    s->run[2].blob.size = SUBMIT_LIMIT;
    submit_judge(s);
    assert_true(says(s, "R-TRAIN-TIME", SUBMIT_BROKEN, "600001 ms"));
    assert_true(says(s, "R-SIZE", SUBMIT_KEPT, "0 under"));
    s->run[2].blob.size = SUBMIT_LIMIT + 1;
    submit_judge(s);
    assert_int_equal(s->worst, 2);
    assert_true(says(s, "R-SIZE", SUBMIT_BROKEN, "16000001 bytes, 1 over"));
    close_runs(s);

    s = open_runs(&j, 2, 0, &none, &e, &rc);
    assert_true(says(s, "R-SIGNIFICANCE", SUBMIT_BROKEN, "2 runs"));
    j.github = NULL;
    submit_judge(s);
    assert_true(says(s, "R-METADATA", SUBMIT_BROKEN, "--github-id missing"));
    j.track = "non_record_16mb";
    submit_judge(s);
    assert_int_equal(s->broken, 0);
    close_runs(s);
}

static void texts(void **state)
{
    static const char *const readme[] = {
        "# A \\*name\\*\n",
        "**val_bpb: 1.50100** (mean of 3 seeds, std 0.00100)",
        "| 41 | 20 | 10.0 | 0.2 s | 1.51000000 | 3.00200000 | **1.50100000** |",
        "By M. \\<b\\>  x (m).",
        "2026-04-30",
        "Welch",
        "NUM_LAYERS=1",
        "submission_seed42",
        "3.00000 bytes per",
        "non-record submission"};
    static const char *const json[] = {"\"val_bpb\":\t1.50100000",
                                       "\"val_bpb_std\":\t0.00100000",
                                       "\"seeds\":\t[40, 41, 42]",
                                       "\"github_id\":\t\"m\"",
                                       "\"track\":\t\"non_record_16mb\"",
                                       "\"date\":\t\"2026-04-30\"",
                                       "\"artifact_bytes\"",
                                       "\"steps\":\t20",
                                       "\"pre_quant_val_bpb\":\t1.51000000"};
    struct submit_job j = {.out = "x",
                           .track = "non_record_16mb",
                           .author = "M. <b>\n x",
                           .github = "m",
                           .date = "2026-04-30",
                           .name = "A *name*",
                           .sota = {1.6, 1.61},
                           .sotas = 2};
    struct twist none = {0};
    struct err e = {0};
    enum err_code rc;
    (void)state;
    struct submit *s = open_runs(&j, 3, 0, &none, &e, &rc);
    assert_int_equal(s->broken, 0);
    char *md = submit_readme(s), *js = submit_json(s);
    for (size_t i = 0; i < COUNT(readme); i++)
        if (!strstr(md, readme[i]))
            fail_msg("README has no \"%s\":\n%s", readme[i], md);
    for (size_t i = 0; i < COUNT(json); i++)
        if (!strstr(js, json[i]))
            fail_msg("submission.json has no \"%s\":\n%s", json[i], js);
    assert_null(strstr(md, util_path(""))); /* no path of this machine is published */
    assert_null(strstr(js, util_path("")));
    free(md);
    free(js);
    close_runs(s);
}

static void folder(void **state)
{
    struct submit_job j = {.track = "non_record_16mb"};
    struct twist none = {0};
    struct err e = {0}, there = {0}, foreign = {0}, link_e = {0};
    enum err_code rc;
    char out[512], path[600];
    (void)state;
    assert_int_equal(dir_make(util_path("w"), &e), ERR_OK);
    snprintf(out, sizeof out, "%s/", util_path("w/folder"));
    j.out = out;
    struct submit *s = open_runs(&j, 2, 0, &none, &e, &rc);
    EXPECT("write", ERR_OK, "", submit_write(s, &e), e);
    assert_int_equal(util_entries(util_path("w/folder")), 3 + 3 * 2);
    assert_int_equal(util_entries(util_path("w")), 1);
    struct stat st;
    assert_int_equal(stat(util_path("w/folder/submission_seed41"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0755);

    EXPECT("again", ERR_USAGE, "is there already", submit_write(s, &there), there);
    j.force = true;
    EXPECT("force", ERR_OK, "", submit_write(s, &e), e);
    assert_int_equal(util_entries(util_path("w")), 1);
    util_spill(util_path("w/folder/notes.txt"), "mine", 4);
    EXPECT("somebody's file", ERR_USAGE, "holds notes.txt", submit_write(s, &foreign), foreign);
    assert_int_equal(util_entries(util_path("w/folder")), 10);
    assert_int_equal(util_entries(util_path("w")), 1);
    /* A link is no folder of ours, wherever it leads. */
    snprintf(path, sizeof path, "%s", util_path("w/link"));
    assert_int_equal(symlink(util_path("w/folder"), path), 0);
    j.out = path;
    EXPECT("link", ERR_USAGE, "no folder", submit_write(s, &link_e), link_e);
    unlink(path);

    struct err nowhere = {0};
    j.out = util_path("none/where");
    EXPECT("nowhere", ERR_RESOURCE, "cannot create", submit_write(s, &nowhere), nowhere);
    close_runs(s);
}

/* verify.json is somebody's file: every beginning of it, and every byte of it changed. */
static void any_report(void **state)
{
    struct submit_run r = {0};
    struct err e = {0};
    size_t n = 0;
    (void)state;
    const char *dir = make_run(0, &(struct twist){0});
    char path[600];
    EXPECT("read", ERR_OK, "", submit_run_read(&r, dir, &e), e);
    snprintf(path, sizeof path, "%s/verify.json", dir);
    uint8_t *text = util_slurp(path, &n);
    void *kept = r.report;
    for (size_t i = 0; i < 2 * n; i++) {
        struct err any = {0};
        struct guarded g = guarded_new(text, i < n ? i : n);
        if (i >= n)
            g.p[i - n] ^= 1 + (uint8_t)(i % 5);
        r.report = g.p;
        r.report_n = i < n ? i : n;
        r.has_report = r.verified = false;
        r.why_report[0] = 0;
        submit_report_parse(&r, "x", &any);
        if (i < n && r.verified)
            fail_msg("the first %zu bytes of a report are believed", i);
        guarded_free(&g);
    }
    r.report = kept;
    free(text);
    submit_run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken),
        cmocka_unit_test(unreadable),
        cmocka_unit_test(limits_of_the_track),
        cmocka_unit_test(texts),
        cmocka_unit_test(folder),
        cmocka_unit_test(any_report),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
