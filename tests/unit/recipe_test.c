/*
 * recipe_test - guards against a recipe that means one thing where it was trained and another where
 * it is scored: settings that are lost or changed by printing, wrong precedence, typing errors that
 * pass, and shapes that no kernel should ever see.
 */
#include <math.h>

#include "model/recipe.h"
#include "tests/unit/util.h"

/* Every key once more, straight from the list. */
static const struct {
    const char *name;
    char type; /* 'I', 'N', 'S' */
    size_t at;
    unsigned group;
} keys[] = {
#define K_(t, k, f, g)     {#k, #t[0], offsetof(struct recipe, f), g},
#define K_M(t, k, f, d, h) K_(t, k, f, RECIPE_MODEL)
#define K_E(t, k, f, d, h) K_(t, k, f, RECIPE_EVAL)
#define K_T(t, k, f, d, h) K_(t, k, f, RECIPE_TRAIN)
#define K_Q(t, k, f, d, h) K_(t, k, f, RECIPE_QUANT)
    RECIPE_MODEL_KEYS(K_M) RECIPE_EVAL_KEYS(K_E) RECIPE_TRAIN_KEYS(K_T) RECIPE_QUANT_KEYS(K_Q)};

enum { ALL = RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT };

static void *at(struct recipe *r, size_t i)
{
    return (char *)r + keys[i].at;
}

static enum err_code parse(struct recipe *r, const char *text, struct err *e)
{
    recipe_init(r);
    return recipe_parse(r, text, strlen(text), "x.conf", false, e);
}

/* ---- values ---- */

static void every_key_survives_printing(void **state)
{
    static const char *const texts[] = {
        "",         "plain",    "a b", "#",   "it's", "'x'", "/data/with # hash",
        " blanks ", "\xc3\xa9", "=",   "a=b", "\\"};
    uint64_t s = 3;
    (void)state;
    for (size_t round = 0; round < 300; round++) {
        struct recipe r, back;
        struct err e = {0};
        char text[32768], again[32768];
        size_t n;
        bool changed = round & 1;
        recipe_init(&r);
        for (size_t i = 0; i < COUNT(keys); i++) {
            char set[400];
            if (round % 3 == 0 && util_below(&s, 2))
                continue; /* some stay at their defaults */
            if (keys[i].type == 'I')
                snprintf(set, sizeof set, "%s=%lld", keys[i].name,
                         round == 2 ? 1000000000000ll
                                    : (long long)util_below(&s, 1u << util_below(&s, 31)) - 1);
            else if (keys[i].type == 'N')
                snprintf(set, sizeof set, "%s=%.*ge%d", keys[i].name, 1 + (int)util_below(&s, 12),
                         util_uniform(&s), (int)util_below(&s, 8) - 6);
            else
                snprintf(set, sizeof set, "%s=\"%s\"", keys[i].name,
                         texts[util_below(&s, COUNT(texts))]);
            /* %g writes an exponent of its own for small values; such a text is not a number. */
            if (strchr(set, 'e') != strrchr(set, 'e') && keys[i].type == 'N')
                continue;
            EXPECT(set, ERR_OK, "", recipe_set(&r, set, "here", &e), e);
        }
        n = recipe_print(&r, ALL, changed, text, sizeof text);
        assert_int_equal(n, strlen(text));
        recipe_init(&back);
        EXPECT("printed recipe", ERR_OK, "", recipe_parse(&back, text, n, "text", false, &e), e);
        for (size_t i = 0; i < COUNT(keys); i++) {
            size_t size = keys[i].type == 'S' ? RECIPE_STR : 8;
            if (memcmp(at(&r, i), at(&back, i), size))
                fail_msg("round %zu: %s changed by printing and parsing:\n%s", round, keys[i].name,
                         text);
        }
        assert_int_equal(recipe_print(&back, ALL, changed, again, sizeof again), n);
        assert_string_equal(again, text);
    }
}

static void defaults(void **state)
{
    struct recipe r, back;
    struct err e = {0};
    char text[32768];
    (void)state;
    recipe_init(&r);
    assert_int_equal(recipe_print(&r, ALL, true, text, sizeof text), 0);
    assert_string_equal(text, "");
    recipe_print(&r, ALL, false, text, sizeof text);
    for (size_t i = 0; i < COUNT(keys); i++) { /* every key is there, once, in its group only */
        char line[128], group[32768];
        snprintf(line, sizeof line, "\n%s=", keys[i].name);
        const char *p = strstr(text, line + (i == 0));
        if (!p || strstr(p + 1, line))
            fail_msg("%s: missing or twice in\n%s", keys[i].name, text);
        for (unsigned g = 1; g <= RECIPE_QUANT; g *= 2) {
            group[0] = '\n';
            recipe_print(&r, g, false, group + 1, sizeof group - 1);
            if (!strstr(group, line) == (keys[i].group == g))
                fail_msg("%s: wrong group", keys[i].name);
        }
    }
    recipe_init(&back);
    EXPECT("defaults", ERR_OK, "", recipe_parse(&back, text, strlen(text), "text", false, &e), e);
    assert_memory_equal(&r, &back, sizeof r);
    EXPECT("defaults", ERR_OK, "", recipe_check(&r, &e), e);
}

static void numbers_look_as_people_write_them(void **state)
{
    static const char *const lines[] = {"ITERATIONS=20000\n", "ROPE_BASE=10000\n", "SEED=1337\n",
                                        "EMBED_LR=0.6\n", "VOCAB_SIZE=1024\n"};
    struct recipe r;
    char text[32768];
    (void)state;
    recipe_init(&r);
    recipe_print(&r, ALL, false, text, sizeof text);
    for (size_t i = 0; i < COUNT(lines); i++)
        if (!strstr(text, lines[i]))
            fail_msg("%s is not in\n%s", lines[i], text);
}

static void printing_into_little_room(void **state)
{
    struct recipe r;
    char whole[32768];
    size_t n;
    (void)state;
    recipe_init(&r);
    n = recipe_print(&r, ALL, false, whole, sizeof whole);
    assert_int_equal(recipe_print(&r, ALL, false, NULL, 0), n);
    for (size_t cap = 1; cap <= n + 1; cap += cap < 200 || cap > n - 100 ? 1 : 97) {
        struct guarded g = guarded_new(NULL, cap);
        if (recipe_print(&r, ALL, false, (char *)g.p, cap) != n || g.p[cap - 1] != 0 ||
            memcmp(g.p, whole, cap - 1))
            fail_msg("cap %zu of %zu", cap, n);
        guarded_free(&g);
    }
}

/* ---- syntax ---- */

static void lines_that_are_understood(void **state)
{
    static const struct {
        const char *name, *text, *run_id;
        int64_t layers;
        double slope;
    } cases[] = {
        {"nothing", "", "", 9, 0},
        {"one line", "NUM_LAYERS=3", "", 3, 0},
        {"comment behind", "NUM_LAYERS=3 # three", "", 3, 0},
        {"comment alone", "# NUM_LAYERS=3\n  # more\n", "", 9, 0},
        {"blanks", "  NUM_LAYERS\t =  3  \n\n\t\nMLP_SLOPE = 0.5", "", 3, 0.5},
        {"dos", "NUM_LAYERS=3\r\nMLP_SLOPE=0.5\r\n", "", 3, 0.5},
        {"later wins", "NUM_LAYERS=3\nNUM_LAYERS=4", "", 4, 0},
        {"double quotes", "RUN_ID=\"a # b\" # c", "a # b", 9, 0},
        {"single quotes", "RUN_ID='a # b'# c", "a # b", 9, 0},
        {"quoted number", "NUM_LAYERS=\"3\"", "", 3, 0},
        {"empty quotes", "RUN_ID=\"\"", "", 9, 0},
        {"quoted blanks", "RUN_ID=\"  x  \"", "  x  ", 9, 0},
        {"second equals sign", "RUN_ID=a=b", "a=b", 9, 0},
        {"apostrophe", "RUN_ID=it's", "it's", 9, 0},
        {"whole number with a point", "NUM_LAYERS=3.0", "", 3, 0},
        {"whole number with an exponent", "NUM_LAYERS=3e0", "", 3, 0},
        {"no end of line", "MLP_SLOPE=.5\nRUN_ID=x", "x", 9, 0.5},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        struct recipe r;
        size_t n = strlen(cases[i].text);
        struct guarded g = guarded_new(cases[i].text, n); /* no NUL behind it */
        recipe_init(&r);
        EXPECT(cases[i].name, ERR_OK, "",
               recipe_parse(&r, (const char *)g.p, n, "x.conf", false, &e), e);
        guarded_free(&g);
        if (r.num_layers != cases[i].layers || r.mlp_slope != cases[i].slope ||
            strcmp(r.run_id, cases[i].run_id))
            fail_msg("%s: NUM_LAYERS %lld, MLP_SLOPE %g, RUN_ID \"%s\"", cases[i].name,
                     (long long)r.num_layers, r.mlp_slope, r.run_id);
    }
}

static void lines_that_are_refused(void **state)
{
    static char long_text[400], long_key[400];
    const struct {
        const char *name, *text, *says;
    } cases[] = {
        {"no equals sign", "NUM_LAYERS 3", "x.conf:1: settings are written KEY=VALUE"},
        {"line number", "\n\n# c\nFOO=1", "x.conf:4: unknown key FOO"},
        {"letter missing", "NUM_LAYER=3", "NUM_LAYER; the nearest known one is NUM_LAYERS"},
        {"letter too many", "MODEL_DIMM=3", "the nearest known one is MODEL_DIM"},
        {"letter wrong", "SEET=3", "the nearest known one is SEED"},
        {"lower case", "seed=3", "unknown key seed"},
        {"two swapped", "VOCAB_ZISE=3", "the nearest known one is VOCAB_SIZE"},
        {"no key", "=3", "unknown key"},
        {"word", "NUM_LAYERS=three", "NUM_LAYERS=three: not a whole number"},
        {"empty number", "NUM_LAYERS=", "not a whole number"},
        {"fraction", "NUM_LAYERS=2.5", "not a whole number"},
        {"below -1", "NUM_LAYERS=-2", "not a whole number"},
        {"beyond 1e12", "NUM_LAYERS=1000000000001", "not a whole number"},
        {"16 digits", "MLP_SLOPE=0.1234567890123456", "not a number of at most 15 digits"},
        {"not a number", "MLP_SLOPE=nan", "not a number"},
        {"infinite", "MLP_SLOPE=inf", "not a number"},
        {"trailing", "MLP_SLOPE=0.5x", "not a number"},
        {"text too long", long_text, "longer than 255 bytes"},
        {"key too long", long_key, "unknown key KKKKKK"},
        {"quote inside", "RUN_ID=a\"b", "RUN_ID: holds a quote"},
        {"control character", "RUN_ID=a\x01z", "RUN_ID: holds a quote or a control character"},
        {"first of two errors", "FOO=1\nBAR=2", "x.conf:1: unknown key FOO"},
    };
    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    memcpy(long_text, "RUN_ID=", 7);
    memset(long_key, 'K', sizeof long_key - 1);
    memcpy(long_key + 300, "=1", 3);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        struct recipe r;
        EXPECT(cases[i].name, ERR_USAGE, cases[i].says, parse(&r, cases[i].text, &e), e);
    }
}

static void longest_text(void **state)
{
    struct recipe r;
    struct err e = {0};
    char set[300] = "RUN_ID=";
    (void)state;
    recipe_init(&r);
    memset(set + 7, 'y', RECIPE_STR - 1);
    EXPECT("255 bytes", ERR_OK, "", recipe_set(&r, set, "here", &e), e);
    assert_int_equal(strlen(r.run_id), RECIPE_STR - 1);
    set[7 + RECIPE_STR - 1] = 'y';
    EXPECT("256 bytes", ERR_USAGE, "longer than", recipe_set(&r, set, "here", &e), e);
}

/* Equal recipes are equal bytes: a shorter text leaves nothing of the longer one before it. */
static void a_shorter_text(void **state)
{
    struct recipe r, want;
    struct err e = {0};
    (void)state;
    EXPECT("twice", ERR_OK, "", parse(&r, "RUN_ID=a longer one\nRUN_ID=b", &e), e);
    EXPECT("once", ERR_OK, "", parse(&want, "RUN_ID=b", &e), e);
    assert_memory_equal(&r, &want, sizeof r);
}

static void lenient(void **state)
{
    static const char text[] = "NEW_KEY=1\nNUM_LAYERS=3\nOTHER=\"a\"\n";
    struct recipe r;
    struct err e = {0};
    (void)state;
    recipe_init(&r);
    EXPECT("lenient", ERR_OK, "", recipe_parse(&r, text, strlen(text), "x", true, &e), e);
    assert_int_equal(r.num_layers, 3);
    EXPECT("lenient, bad value", ERR_USAGE, "not a whole number",
           recipe_parse(&r, "SEED=x", 6, "x", true, &e), e);
}

/* ---- precedence: defaults, file, environment, command line ---- */

static void precedence(void **state)
{
    static const char text[] = "NUM_LAYERS=3\nMODEL_DIM=96\nSEED=5\n";
    const char *path = util_path("p.conf");
    struct recipe r;
    struct err e = {0};
    (void)state;
    util_spill(path, text, sizeof text - 1);
    setenv("MODEL_DIM", "128", 1);
    setenv("SEED", "6", 1);
    EXPECT("file, environment", ERR_OK, "", recipe_load(&r, path, &e), e);
    EXPECT("command line", ERR_OK, "", recipe_set(&r, "SEED=7", "command line", &e), e);
    assert_int_equal(r.num_heads, 8);
    assert_int_equal(r.num_layers, 3);
    assert_int_equal(r.model_dim, 128);
    assert_int_equal(r.seed, 7);
    setenv("SEED", "many", 1);
    EXPECT("bad environment", ERR_USAGE, "environment: SEED=many", recipe_load(&r, path, &e), e);
    unsetenv("SEED");
    unsetenv("MODEL_DIM");
}

static void files_that_are_not_there(void **state)
{
    struct recipe r;
    (void)state;
    struct err e = {0}, f = {0}, g = {0};
    EXPECT("missing", ERR_INPUT, "nowhere.conf", recipe_load(&r, util_path("nowhere.conf"), &e), e);
    EXPECT("directory", ERR_INPUT, "not a regular file", recipe_load(&r, "/tmp", &f), f);
    util_spill(util_path("empty.conf"), "", 0);
    EXPECT("empty", ERR_OK, "", recipe_load(&r, util_path("empty.conf"), &g), g);
}

/* ---- shapes ---- */

static void impossible_recipes(void **state)
{
    static const struct {
        const char *set, *says;
    } cases[] = {
        {"NUM_LAYERS=0", "NUM_LAYERS=0: must be 1 to"},
        {"NUM_LAYERS=-1", "NUM_LAYERS=-1"},
        {"NUM_LAYERS=100000", "NUM_LAYERS=100000"},
        {"VOCAB_SIZE=0", "VOCAB_SIZE=0"},
        {"VOCAB_SIZE=65537", "VOCAB_SIZE=65537: must be 1 to 65536"},
        {"MODEL_DIM=0", "MODEL_DIM=0"},
        {"MODEL_DIM=1000000000000", "MODEL_DIM"},
        {"MODEL_DIM=510", "MODEL_DIM=510 is no multiple of NUM_HEADS=8"},
        {"NUM_HEADS=0", "NUM_HEADS=0"},
        {"NUM_HEADS=7", "no multiple of NUM_HEADS=7"},
        {"NUM_KV_HEADS=0", "NUM_KV_HEADS=0"},
        {"NUM_KV_HEADS=3", "NUM_HEADS=8 is no multiple of NUM_KV_HEADS=3"},
        {"NUM_KV_HEADS=16", "no multiple of NUM_KV_HEADS=16"},
        {"TRAIN_SEQ_LEN=0", "TRAIN_SEQ_LEN=0"},
        {"EVAL_SEQ_LEN=-1", "EVAL_SEQ_LEN=-1"},
        {"EVAL_STRIDE=0", "EVAL_STRIDE=0"},
        {"ROPE_DIMS=3", "ROPE_DIMS=3: must be even"},
        {"ROPE_DIMS=66", "ROPE_DIMS=66: must be even and at most the head's 64"},
        {"ROPE_DIMS=-1", "ROPE_DIMS=-1"},
        {"MLP_MULT=0", "MLP_MULT"},
        {"MLP_MULT=-2", "MLP_MULT"},
        {"MLP_MULT=0.001", "MLP_MULT: the hidden width must be at least 1"},
        {"MLP_MULT=1e9", "MLP_MULT"},
        {"LOGIT_SOFTCAP=-1", "LOGIT_SOFTCAP"},
        {"ROPE_BASE=0", "ROPE_BASE"},
        {"RMS_EPS=-1e-9", "RMS_EPS"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct recipe r;
        struct err e = {0};
        EXPECT(cases[i].set, ERR_OK, "", parse(&r, cases[i].set, &e), e);
        EXPECT(cases[i].set, ERR_USAGE, cases[i].says, recipe_check(&r, &e), e);
    }
}

static void unusual_but_possible(void **state)
{
    static const char *const cases[] = {"NUM_HEADS=1\nNUM_KV_HEADS=1",
                                        "NUM_KV_HEADS=8",
                                        "NUM_LAYERS=1",
                                        "MODEL_DIM=8\nROPE_DIMS=0\nNUM_HEADS=4",
                                        "MLP_MULT=0.5",
                                        "LOGIT_SOFTCAP=0",
                                        "RMS_EPS=0",
                                        "EVAL_SEQ_LEN=1\nEVAL_STRIDE=1",
                                        "VOCAB_SIZE=65536"};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct recipe r;
        struct err e = {0};
        EXPECT(cases[i], ERR_OK, "", parse(&r, cases[i], &e), e);
        EXPECT(cases[i], ERR_OK, "", recipe_check(&r, &e), e);
    }
}

/* ---- help ---- */

static void count_line(void *ctx, const char *key, const char *def, const char *help)
{
    size_t *n = ctx;
    struct recipe r;
    struct err e = {0};
    char set[400];
    assert_string_equal(key, keys[*n].name);
    assert_true(strlen(help) > 3);
    /* The default that help shows is the default. */
    recipe_init(&r);
    struct recipe plain = r;
    snprintf(set, sizeof set, "%s=%s", key, def);
    EXPECT(set, ERR_OK, "", recipe_set(&r, set, "help", &e), e);
    assert_memory_equal(&r, &plain, sizeof r);
    ++*n;
}

static void help_names_every_key(void **state)
{
    size_t n = 0;
    (void)state;
    recipe_help(count_line, &n);
    assert_int_equal(n, COUNT(keys));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_survives_printing),
        cmocka_unit_test(defaults),
        cmocka_unit_test(numbers_look_as_people_write_them),
        cmocka_unit_test(printing_into_little_room),
        cmocka_unit_test(lines_that_are_understood),
        cmocka_unit_test(lines_that_are_refused),
        cmocka_unit_test(longest_text),
        cmocka_unit_test(a_shorter_text),
        cmocka_unit_test(lenient),
        cmocka_unit_test(precedence),
        cmocka_unit_test(files_that_are_not_there),
        cmocka_unit_test(impossible_recipes),
        cmocka_unit_test(unusual_but_possible),
        cmocka_unit_test(help_names_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
