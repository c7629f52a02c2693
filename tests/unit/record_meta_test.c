/*
 * record_meta_test - guards against a claim that is read from the wrong key, a per-seed value that
 * is lost, and metadata whose two readers would see two different claims.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "verify/record_meta.h"

static struct record_meta parse(const char *text)
{
    struct record_meta m;
    struct err e = {0};
    assert_int_equal(record_meta_parse(&m, "submission.json", text, strlen(text), &e), ERR_OK);
    return m;
}

static void keys(void **state)
{
    static const struct {
        const char *text;
        double bpb, loss, std, total, code; /* 0: not found */
    } cases[] = {
        {"{\"val_bpb\": 1.1, \"val_loss\": 2.0, \"bytes_total\": 5, \"bytes_code\": 4}", 1.1, 2, 0,
         5, 4},
        {"{\"mean_val_bpb\": 1.1, \"mean_val_loss\": 2, \"artifact_bytes\": 5, \"code_bytes\": 4}",
         1.1, 2, 0, 5, 4},
        {"{\"val_bpb\": \"1.1\", \"val_bpb_mean\": 1.2, \"std_bpb\": 0.5}", 1.2, 0, 0.5, 0, 0},
        {"{\"val_bpb\": null, \"bytes_total\": 1e300}", 0, 0, 0, 0, 0},
        {"{\"VAL_BPB\": 1.0, \"inner\": {\"val_bpb\": 1.1}}", 0, 0, 0, 0, 0},
        {"{\"artifact_bytes_mean\": 9, \"artifact_bytes_max\": 10}", 0, 0, 0, 10, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_meta m = parse(cases[i].text);
        if (!m.valid || m.bpb.v != cases[i].bpb || m.loss.v != cases[i].loss ||
            m.std.v != cases[i].std || m.total.v != cases[i].total || m.code.v != cases[i].code)
            fail_msg("%s: %g %g %g %g %g", cases[i].text, m.bpb.v, m.loss.v, m.std.v, m.total.v,
                     m.code.v);
    }
}

static void seeds(void **state)
{
    static const char *const cases[] = {
        "{\"seeds\": [1, 42], \"seed_results\": {\"1\": {\"val_bpb\": 1.1, \"artifact_bytes\": 7},"
        " \"42\": {\"val_bpb\": 1.2, \"steps\": 3}}}",
        "{\"seeds\": {\"1\": {\"val_bpb\": 1.1, \"bytes_total\": 7},"
        " \"seed_42\": {\"val_bpb\": 1.2, \"steps\": 3}}}",
        "{\"seed_results\": [{\"seed\": 1, \"val_bpb\": 1.1, \"artifact_bytes\": 7},"
        " {\"seed\": 42, \"val_bpb\": 1.2, \"steps\": 3}]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_meta m = parse(cases[i]);
        const struct meta_seed *a = record_meta_seed(&m, 1), *b = record_meta_seed(&m, 42);
        if (m.seeds != 2 || !a || !b || a->bpb.v != 1.1 || a->bytes.v != 7 || b->bpb.v != 1.2 ||
            b->steps.v != 3)
            fail_msg("%s: %zu seeds", cases[i], m.seeds);
    }
    struct record_meta m = parse("{\"seeds\": [42, 0], \"seed_scores\": [1.5, 1.6]}");
    assert_true(record_meta_seed(&m, 42)->bpb.v == 1.5);
    assert_true(record_meta_seed(&m, 0)->bpb.v == 1.6);
    m = parse("{\"seeds\": [1e300, -4, null, \"x\"], \"seed_results\": {\"x\": {\"val_bpb\": 1}}}");
    assert_int_equal(m.seeds, 0);
}

static void lines(void **state)
{
    struct record_meta m =
        parse("{\n \"blurb\": \"\\\"val_bpb\\\": 3\",\n \"x\": {\"val_bpb\": 2},\n"
              " \"val_bpb\": 1.25,\n \"seed_results\": {\n  \"7\": {\n"
              "   \"val_bpb\": 1.5}}}");
    (void)state;
    assert_int_equal(m.bpb.line, 4);
    assert_int_equal(m.bpb.decimals, 2);
    assert_int_equal(m.seed[0].line, 6);
    assert_int_equal(m.seed[0].bpb.line, 7);
    assert_int_equal(m.tricks, 0);
}

/* Which of two counts depends on the reader: cJSON takes the first, Python the last; and a person
 * reads what the letters look like. */
static void tricks(void **state)
{
    static const struct {
        const char *name, *text;
        enum key_trick_kind kind;
        size_t n, line;
        const char *key, *like;
        unsigned odd;
    } cases[] = {
        {"honest",
         "{\"val_bpb\": 1, \"val_bpb_std\": 2, \"seed_results\": {\"1\": {\"val_bpb\": 1}}}",
         KEY_TWICE, 0, 0, "", NULL, 0},
        {"other languages",
         "{\"\u8aac\u660e\u6587\u5b57\": 1, \"\xD0\xB0\xD0\xB2\xD1\x82\xD0\xBE\xD1\x80\": 2, "
         "\"donn\xC3\xA9"
         "es\": 3, \"\xF0\x9F\x8C\xB1\": 4}",
         KEY_TWICE, 0, 0, "", NULL, 0},
        {"twice", "{\"val_bpb\": 1.1,\n\"x\": {\"a\": 1},\n\"val_bpb\": 1.2}", KEY_TWICE, 1, 3,
         "val_bpb", NULL, 0},
        {"twice, once escaped", "{\"val_bpb\": 1.1,\n\"val\\u005fbpb\": 1.2}", KEY_TWICE, 1, 2,
         "val_bpb", NULL, 0},
        {"a seed twice", "{\"seed_results\": {\"1\": {\"val_bpb\": 1},\n\"1\": {\"val_bpb\": 2}}}",
         KEY_TWICE, 1, 2, "1", NULL, 0},
        {"a key of a seed twice", "{\"seeds\": {\"1\": {\"val_bpb\": 1,\n\"val_bpb\": 2}}}",
         KEY_TWICE, 1, 2, "val_bpb", NULL, 0},
        {"Cyrillic p",
         "{\n\"val_b\xD1\x80"
         "b\": 0.9, \"val_bpb\": 1.1}",
         KEY_LOOKALIKE, 1, 2, "val_b?b", "val_bpb", 0x440},
        {"escaped", "{\"v\\u0430l_bpb\": 0.9}", KEY_LOOKALIKE, 1, 1, "v?l_bpb", "val_bpb", 0x430},
        {"all Greek", "{\"\xCF\x85\": 1, \"\xCE\xB7\xCE\xB1m\xCE\xB5\": 0.9}", KEY_LOOKALIKE, 1, 1,
         "??m?", "name", 0x3B7},
        {"zero width",
         "{\"val_\xE2\x80\x8B"
         "bpb\": 0.9}",
         KEY_LOOKALIKE, 1, 1, "val_?bpb", "val_bpb", 0x200B},
        {"turned around", "{\"\xE2\x80\xAEval_bpb\": 0.9}", KEY_LOOKALIKE, 1, 1, "?val_bpb",
         "val_bpb", 0x202E},
        {"a mark over a letter",
         "{\"val_bp\xCC\x81"
         "b\": 0.9}",
         KEY_LOOKALIKE, 1, 1, "val_bp?b", "val_bpb", 0x301},
        {"fullwidth",
         "{\"\xEF\xBD\x96"
         "al_bpb\": 0.9}",
         KEY_LOOKALIKE, 1, 1, "?al_bpb", "val_bpb", 0xFF56},
        {"mathematical",
         "{\"\xF0\x9D\x90\xAF"
         "al_bpb\": 0.9}",
         KEY_LOOKALIKE, 1, 1, "?al_bpb", "val_bpb", 0x1D42F},
        {"digit one", "{\"va1_bpb\": 0.9}", KEY_LOOKALIKE, 1, 1, "va1_bpb", "val_bpb", '1'},
        {"blank at the end", "{\"val_bpb \": 0.9}", KEY_LOOKALIKE, 1, 1, "val_bpb ", "val_bpb",
         ' '},
        {"NUL", "{\"val_bpb\": 1,\n\"a\\u0000\": 2}", KEY_NUL, 1, 2, "", NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_meta m = parse(cases[i].text);
        const struct key_trick *t = m.trick;
        if (m.tricks != cases[i].n ||
            (m.tricks && (t->kind != cases[i].kind || t->line != cases[i].line ||
                          strcmp(t->key, cases[i].key) || t->odd != cases[i].odd ||
                          (cases[i].like && strcmp(t->like, cases[i].like)))))
            fail_msg("%s: %zu tricks, the first %d in line %zu, key %s, like %s, U+%04X",
                     cases[i].name, m.tricks, (int)t->kind, t->line, t->key,
                     t->like ? t->like : "-", (unsigned)t->odd);
    }
}

static void damaged(void **state)
{
    static const char *const cases[] = {
        "", "{", "[1]", "3", "{\"a\": 1} x", "{\"a\": NaN}", "\xFF", "{\"a\": \"\\"};
    char deep[3000];
    struct err e = {0};
    struct record_meta m;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m = parse(cases[i]);
        if (m.valid || !*m.problem)
            fail_msg("%s: taken as valid", cases[i]);
    }
    memset(deep, '[', sizeof deep);
    assert_int_equal(record_meta_parse(&m, "x", deep, sizeof deep, &e), ERR_OK);
    assert_false(m.valid);
}

/* A name that would end the line, or turn it around. */
static void names(void **state)
{
    struct record_meta m =
        parse("{\"author\": \"a\\nverified\", \"name\": \"x\\u202Ey\", \"github_id\": 4}");
    (void)state;
    assert_string_equal(m.author, "a?verified");
    assert_null(strstr(m.name, "\xE2\x80\xAE"));
    assert_string_equal(m.github_id, "");
}

static void nearness(void **state)
{
    struct record_meta m = parse("{\"val_bpb\": 1.1194, \"val_loss\": 2.5}");
    (void)state;
    assert_true(meta_near(&m.bpb, 1.11937967, 0));
    assert_false(meta_near(&m.bpb, 1.11922988, 0));
    assert_false(meta_near(&m.bpb, 1.11922988, 1e-4));
    assert_true(meta_near(&m.bpb, 1.11932, 1e-4));
    assert_true(meta_near(&m.loss, 2.50009, 0));
    assert_false(meta_near(&m.loss, 2.549, 0)); /* 2.5 is coarse, and stands for 2.5 */
    assert_false(meta_near(&m.std, 0, 1));
    assert_false(meta_near(&m.bpb, 0.0 / 0.0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),     cmocka_unit_test(seeds),   cmocka_unit_test(lines),
        cmocka_unit_test(tricks),   cmocka_unit_test(damaged), cmocka_unit_test(names),
        cmocka_unit_test(nearness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
