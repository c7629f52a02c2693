/*
 * redteam_blob_test - submissions that cheat by what they hold, each with every hash made right:
 * bytes that nobody counts, a model that is not the recipe's, a byte table that counts too much,
 * the answers carried along, a claim that says more than the file does. Guards against a cheat that
 * is not found, or found under another name.
 */
#include "tests/unit/redteam.h"

#include <zstd.h>

#include "packer/payload.h"
#include "stub/weights_dec.h"
#include "tests/unit/tiny_elf.h"
#include "verify/contents.h"

static struct redteam t;

#define CAUGHT(name, more, want, says)                                                             \
    do {                                                                                           \
        struct finding f_ = red_audit(&t, more);                                                   \
        if (f_.status != (want) || !strstr(f_.why, (says)))                                        \
            fail_msg("%s: status %d \"%s\", expected %d with \"%s\"", (name), (int)f_.status,      \
                     f_.why, (int)(want), (says));                                                 \
    } while (0)

static void honest(void **state)
{
    const struct options run = {.file = t.sound, .execute = true},
                         plain = {.file = t.sound, .eval = "plain"};
    (void)state;
    CAUGHT("honest, executed", &run, ERR_OK, "");
    CAUGHT("honest, plain", &plain, ERR_OK, "");
    /* Taken apart and put together again it is still honest: what follows changes one thing. */
    size_t n;
    uint8_t *raw = red_section(&t, KIND_RECIPE, &n);
    red_store(&t, KIND_RECIPE, raw, n);
    free(raw);
    CAUGHT("put together again", NULL, ERR_OK, "");
}

/* ---- bytes that nobody counts ---- */

static void behind_the_end(void **state)
{
    uint8_t *longer = malloc(t.file_n + 100);
    (void)state;
    memcpy(longer, t.file, t.file_n);
    memset(longer + t.file_n, 'x', 100);
    toy_write(t.made, longer, t.file_n + 100);
    CAUGHT("appended", NULL, ERR_INPUT, "its header says");
    put_le64(longer + blob_find(&t.parts, KIND_HEADER)->offset + HDR_FILE_SIZE, t.file_n + 100);
    red_seal(longer, &t.parts);
    toy_write(t.made, longer, t.file_n + 100);
    CAUGHT("appended, header too", NULL, ERR_INPUT, "100 bytes behind the last section");
    CAUGHT("appended, header too", NULL, ERR_INPUT, "[F-LAYOUT]");
    free(longer);
}

/* A stored section with one more byte behind what its codec needs. */
static void behind_a_stream(void **state)
{
    static const struct {
        const char *name;
        enum kind kind;
        int codec; /* -1: the one it has */
    } cases[] = {
        {"runner", KIND_RUNNER, -1},
        {"weights, cm", KIND_WEIGHTS, CODEC_CM},
        {"weights, range", KIND_WEIGHTS, CODEC_RANGE},
        {"weights, lzma", KIND_WEIGHTS, CODEC_LZMA},
        {"weights, zstd", KIND_WEIGHTS, CODEC_ZSTD},
        {"weights, none", KIND_WEIGHTS, CODEC_NONE},
        {"recipe, lzma", KIND_RECIPE, CODEC_LZMA},
        {"byte table, lzma", KIND_BYTE_TABLE, CODEC_LZMA},
        {"source, lzma", KIND_SOURCE, CODEC_LZMA},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct coded c = {0};
        struct err e = {0};
        size_t n;
        uint8_t *raw = red_section(&t, cases[i].kind, &n);
        enum err_code rc = cases[i].kind == KIND_RUNNER ? coded_code(&c, raw, n, &e)
                           : cases[i].kind == KIND_WEIGHTS
                               ? coded_weights(&c, raw, n, cases[i].codec, &e)
                               : coded_lzma(&c, raw, n, LZMA_PROBE, false, &e);
        assert_int_equal(rc, ERR_OK);
        for (size_t more = 0; more < 40; more += 13) { /* 0: the honest form of it */
            struct coded longer = c;
            longer.data = malloc(c.size + more + 1);
            memcpy(longer.data, c.data, c.size);
            memset(longer.data + c.size, (int)i, more);
            longer.size += more;
            if (c.codec == CODEC_NONE)
                longer.raw_size += more;
            red_exchange(&t, cases[i].kind, &longer);
            free(longer.data);
            if (more)
                CAUGHT(cases[i].name, NULL, ERR_INPUT, blob_kind_name(cases[i].kind));
            else
                CAUGHT(cases[i].name, NULL, ERR_OK, "");
        }
        coded_free(&c);
        free(raw);
    }
}

/* zstd's own hiding places: frames that every decoder skips, and frames of nothing. */
static void frames_of_nothing(void **state)
{
    struct coded c = {0};
    struct err e = {0};
    size_t n;
    uint8_t *raw = red_section(&t, KIND_WEIGHTS, &n);
    (void)state;
    assert_int_equal(coded_zstd(&c, raw, n, &e), ERR_OK);
    for (int way = 0; way < 3; way++) {
        uint8_t extra[64] = {0x50, 0x2A, 0x4D, 0x18, 16};
        size_t more = way == 1 ? ZSTD_compress(extra, sizeof extra, "", 0, 1) : 8 + 16;
        struct coded longer = c;
        longer.size = c.size + more;
        longer.data = malloc(longer.size);
        memcpy(longer.data + (way == 2 ? more : 0), c.data, c.size);
        memcpy(longer.data + (way == 2 ? 0 : c.size), extra, more);
        /* The library itself is content. */
        assert_int_equal(ZSTD_decompress(raw, n, longer.data, longer.size), n);
        red_exchange(&t, KIND_WEIGHTS, &longer);
        CAUGHT("frames", NULL, ERR_INPUT, "weights: ");
        CAUGHT("frames", NULL, ERR_INPUT, "[F-DECODE]");
        free(longer.data);
    }
    coded_free(&c);
    free(raw);
}

/* Sizes that lie: a section smaller or larger than it unpacks to, a bomb in a section that scoring
 * does not need, sections that overlap or leave a gap. */
static void lying_sizes(void **state)
{
    struct coded c = {0};
    struct err e = {0};
    static uint8_t zeros[1 << 20];
    (void)state;
    assert_int_equal(coded_lzma(&c, zeros, sizeof zeros, LZMA_PROBE, false, &e), ERR_OK);
    c.raw_size = 10000;
    red_exchange(&t, KIND_SOURCE, &c);
    CAUGHT("source of less than it is", NULL, ERR_INPUT, "source: ");
    c.raw_size = SOURCE_RAW_MAX;
    red_exchange(&t, KIND_SOURCE, &c);
    CAUGHT("source of more than it is", NULL, ERR_INPUT, "source: ");
    c.raw_size = (size_t)SOURCE_RAW_MAX + 1;
    red_exchange(&t, KIND_SOURCE, &c);
    CAUGHT("source that fills the memory", NULL, ERR_INPUT, "the limit is");
    c.raw_size = RECIPE_RAW_MAX - 100000;
    red_exchange(&t, KIND_RECIPE, &c);
    CAUGHT("recipe of less than it is", NULL, ERR_INPUT, "recipe: ");
    coded_free(&c);

    static const struct {
        const char *name;
        enum kind kind;
        size_t at;
        long long by;
        const char *says;
    } moves[] = {
        {"recipe over the byte table", KIND_RECIPE, SEC_OFFSET, -4, "recipe: begins at"},
        {"a gap before the recipe", KIND_RECIPE, SEC_OFFSET, 4, "recipe: begins at"},
        {"byte table into the recipe", KIND_BYTE_TABLE, SEC_SIZE, 4, "byte_table: "},
        {"header over the runner", KIND_HEADER, SEC_SIZE, 8, "header"},
        {"loader shorter than it is", KIND_LOADER, SEC_SIZE, -8, "loader"},
    };
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        uint8_t *copy = malloc(t.file_n);
        memcpy(copy, t.file, t.file_n);
        uint8_t *at = copy + blob_find(&t.parts, KIND_HEADER)->offset + HDR_ENTRIES +
                      (size_t)(moves[i].kind - 1) * SEC_BYTES + moves[i].at;
        put_le64(at, le64(at) + (uint64_t)moves[i].by);
        red_seal(copy, &t.parts);
        toy_write(t.made, copy, t.file_n);
        free(copy);
        CAUGHT(moves[i].name, NULL, ERR_INPUT, moves[i].says);
    }
}

/* ---- what is no breach, and must be said all the same ---- */

static cJSON *json_of(const char *file)
{
    const struct options o = {.command = COMMAND_BLOB,
                              .file = file,
                              .data = t.dir,
                              .threads = 1,
                              .json = true,
                              .quiet = true};
    struct report r;
    struct err e = {0};
    assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
    if (verify_blob(&o, &r, &e))
        fail_msg("%s", e.msg);
    cJSON *root = cJSON_Duplicate(r.root, true);
    report_free(&r);
    return root;
}

/* A runner that takes a library from the machine; a recipe with room for something. */
static void facts(void **state)
{
    struct stat st;
    struct coded c = {0};
    struct err e = {0};
    size_t n;
    (void)state;
    cJSON *j = json_of(t.sound);
    assert_int_equal(stat(toy_path(t.dir, "toy.model"), &st), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(j, "shared_objects")), 0);
    assert_true(cJSON_GetObjectItem(j, "tokenizer_bytes")->valuedouble == (double)st.st_size);
    assert_true(cJSON_GetObjectItem(j, "bytes_with_tokenizer")->valuedouble ==
                (double)st.st_size + (double)t.file_n);
    assert_true(cJSON_GetObjectItem(j, "recipe_unknown")->valuedouble == 0);
    assert_string_equal(cJSON_GetObjectItem(j, "source")->valuestring, "unknown");
    cJSON_Delete(j);

    uint8_t elf[64 + 2 * 56 + 16] = {0};
    tiny_headers(elf, sizeof elf);
    elf[56] = 2;
    elf[64 + 56] = 3; /* PT_INTERP */
    put_le64(elf + 64 + 56 + 8, 64 + 2 * 56);
    put_le64(elf + 64 + 56 + 32, 16);
    memcpy(elf + 64 + 2 * 56, "/lib64/ld.so", 12);
    assert_int_equal(coded_code(&c, elf, sizeof elf, &e), ERR_OK);
    red_exchange(&t, KIND_RUNNER, &c);
    coded_free(&c);
    j = json_of(t.made);
    const cJSON *needs = cJSON_GetObjectItem(j, "shared_objects");
    assert_int_equal(cJSON_GetArraySize(needs), 1);
    assert_string_equal(cJSON_GetArrayItem(needs, 0)->valuestring, "/lib64/ld.so");
    assert_string_equal(cJSON_GetObjectItem(j, "runner")->valuestring, "unknown");
    cJSON_Delete(j);

    uint8_t *raw = red_section(&t, KIND_RECIPE, &n);
    raw = realloc(raw, n + 100);
    n += (size_t)sprintf((char *)raw + n, "KEPT_HERE=0123456789\n");
    red_store(&t, KIND_RECIPE, raw, n);
    free(raw);
    j = json_of(t.made);
    assert_true(cJSON_GetObjectItem(j, "recipe_unknown")->valuedouble == 20);
    cJSON_Delete(j);
}

/* ---- another model ---- */

/* The weights with a change, stored again. */
static void reweigh(void (*change)(struct tensor_view *v, size_t *count))
{
    static struct tensor_view v[256];
    size_t count = 0, n;
    uint8_t *raw = red_section(&t, KIND_WEIGHTS, &n), *payload;
    struct weights_cursor c;
    struct err e = {0};
    weights_open(&c, raw, n);
    while (count < 200 && weights_next(&c, &v[count]))
        count++;
    change(v, &count);
    struct st_file f = {.tensor = v, .count = count};
    if (payload_new(&payload, &n, &f, "cheat", &e))
        fail_msg("%s", e.msg);
    red_store(&t, KIND_WEIGHTS, payload, n);
    free(payload);
    free(raw);
}

static uint8_t prefix[2000];
static void add_prefix(struct tensor_view *v, size_t *count)
{
    v[(*count)++] =
        (struct tensor_view){"validation.prefix", ST_I8, 1, {sizeof prefix}, prefix, sizeof prefix};
}
static void add_twice(struct tensor_view *v, size_t *count)
{
    v[*count] = v[0];
    ++*count;
}
static void leave_out(struct tensor_view *v, size_t *count)
{
    (void)v;
    --*count;
}
static void rename_one(struct tensor_view *v, size_t *count)
{
    (void)count;
    v[1].name = "blocks.9.attn_scale";
}
static void name_of_lines(struct tensor_view *v, size_t *count)
{
    (void)count;
    v[1].name = "x\nverified\x1b[1A";
}
static void reshape(struct tensor_view *v, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        if (v[i].ndim == 2 && v[i].shape[0] != v[i].shape[1]) {
            size_t rows = v[i].shape[0];
            v[i].shape[0] = v[i].shape[1];
            v[i].shape[1] = rows;
            return;
        }
}

static void another_model(void **state)
{
    static const struct {
        const char *name;
        void (*change)(struct tensor_view *v, size_t *count);
        const char *says;
    } cases[] = {
        {"a tensor more", add_prefix, "validation.prefix"},
        {"a tensor twice", add_twice, "weights"},
        {"a tensor less", leave_out, "weights"},
        {"another name", rename_one, "weights"},
        {"another shape", reshape, "weights"},
        {"a name of two lines", name_of_lines, "weights"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reweigh(cases[i].change);
        CAUGHT(cases[i].name, NULL, ERR_INPUT, cases[i].says);
        CAUGHT(cases[i].name, NULL, ERR_INPUT, "[F-MODEL]");
        if (i == 5) { /* what is said goes through report_clean before anybody reads it */
            struct finding f = red_audit(&t, NULL);
            report_clean(f.why);
            assert_null(strpbrk(f.why, "\n\x1b"));
        }
    }
    static const struct {
        const char *name, *add, *says;
    } recipes[] = {
        {"one layer more", "NUM_LAYERS=3\n", "tensor"},
        {"another vocabulary", "VOCAB_SIZE=64\n", "VOCAB_SIZE"},
        {"a mode that is none", "EVAL_MODE=best\n", "EVAL_MODE"},
        {"not a number", "EVAL_STRIDE=nan\n", "EVAL_STRIDE"},
    };
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        size_t n;
        uint8_t *raw = red_section(&t, KIND_RECIPE, &n);
        raw = realloc(raw, n + 100);
        memcpy(raw + n, recipes[i].add, strlen(recipes[i].add));
        red_store(&t, KIND_RECIPE, raw, n + strlen(recipes[i].add));
        free(raw);
        struct finding f = red_audit(&t, NULL);
        if (f.status != ERR_INPUT)
            fail_msg("%s: status %d \"%s\"", recipes[i].name, (int)f.status, f.why);
    }
}

/* ---- the answers carried along ---- */

static size_t answers(uint8_t *out, size_t from, size_t n)
{
    uint16_t tok[TOY_VAL];
    toy_stream(tok, TOY_VAL, 99);
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = (uint8_t)tok[from + i];
        out[2 * i + 1] = (uint8_t)(tok[from + i] >> 8);
    }
    return 2 * n;
}

static void put_answers(struct tensor_view *v, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        if (v[i].dtype == ST_F32 && v[i].nbytes >= 800) { /* as numbers they are tiny, and finite */
            uint8_t *p = (uint8_t *)(uintptr_t)v[i].data;
            answers(p + 40, 100, 200);
            return;
        }
    abort();
}

static void paid_prefix(void **state)
{
    uint8_t text[4000];
    size_t n, at;
    (void)state;
    n = answers(text, 0, TOY_VAL);
    red_store(&t, KIND_SOURCE, text, n);
    CAUGHT("in the source", NULL, ERR_CLAIM, "source: 500 tokens of the scored stream");
    CAUGHT("in the source", NULL, ERR_CLAIM, "[R-NO-VAL]");

    uint8_t *raw = red_section(&t, KIND_RECIPE, &n);
    raw = realloc(raw, n + 1000);
    raw[n] = '#';
    at = n + 1 + answers(raw + n + 1, 7, 100);
    raw[at++] = '\n';
    red_store(&t, KIND_RECIPE, raw, at);
    free(raw);
    CAUGHT("in a comment", NULL, ERR_CLAIM, "recipe: ");
    CAUGHT("in a comment", NULL, ERR_CLAIM, "tokens of the scored stream");

    reweigh(put_answers);
    CAUGHT("in a matrix", NULL, ERR_CLAIM,
           "weights: 200 tokens of the scored stream, 200 of them in a row from number 100");
}

/* ---- too many bytes of text, too few tokens ---- */

static void byte_tables(void **state)
{
    static const struct {
        const char *name;
        size_t at;
        uint8_t by;
    } cases[] = {
        {"a byte more for a piece", 4 + 2 * 10, 1},
        {"every space twice", 4 + 2 * 10 + 1, BYTES_LEAD},
        {"a boundary that is none", 4 + 2 * 11 + 1, BYTES_BOUNDARY},
        {"a control piece that counts", 4 + 2 * 1, 3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        uint8_t *raw = red_section(&t, KIND_BYTE_TABLE, &n);
        raw[cases[i].at] = (uint8_t)(raw[cases[i].at] + cases[i].by);
        red_store(&t, KIND_BYTE_TABLE, raw, n);
        free(raw);
        CAUGHT(cases[i].name, NULL, ERR_CLAIM, "byte table is not that of");
        CAUGHT(cases[i].name, NULL, ERR_CLAIM, "[R-BYTES]");
    }
}

/* Without the tokeniser the sum alone gives it away, where the stream is one of the challenge's. */
static void byte_sums(void **state)
{
    static const struct {
        const char *name;
        size_t stream, tokens, bytes;
        const char *says; /* NULL: nothing */
    } cases[] = {
        {"as it is", 62021846, 62021632, 151080363, NULL},
        {"leading spaces twice", 62021846, 62021632, 176332748, "stand for 176332748 bytes"},
        {"byte pieces as three", 40540803, 40540160, 157319833, "SP8192"},
        {"too few", 45510000, 45508608, 140000000, "stand for 140000000 bytes"},
        {"half of it not scored", 62021846, 31000000, 75000000, "31021845 of 62021845 tokens"},
        {"another stream", 50000001, 50000000, 1, NULL},
        {"a small stream, its tail dropped", 5001, 4096, 9000, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scores s = {.stream = cases[i].stream,
                           .sum = {.tokens = cases[i].tokens, .bytes = cases[i].bytes}};
        struct report r;
        struct err e = {0};
        assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
        contents_stream(&s, 0, &r);
        const cJSON *why = cJSON_GetArrayItem(r.reasons, 0);
        if (!why != !cases[i].says || (why && !strstr(why->valuestring, cases[i].says)))
            fail_msg("%s: %s", cases[i].name, why ? why->valuestring : "nothing is said");
        report_free(&r);
        assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
        contents_stream(&s, 1000, &r); /* nobody claims that a part is the whole */
        assert_int_equal(cJSON_GetArraySize(r.reasons), 0);
        report_free(&r);
    }
}

/* ---- claims that say more than the file does ---- */

static void claims(void **state)
{
    static const struct {
        const char *name, *json;
        enum err_code want;
        const char *says;
    } cases[] = {
        {"a better score", "{\"val_bpb\":0.9354}", ERR_CLAIM, "val_bpb: claimed 0.9354"},
        {"fewer bytes", "{\"bytes_total\":15999999}", ERR_CLAIM, "bytes_total: claimed 15999999"},
        {"other scores", "{\"nll_xxh64\":\"0123456789abcdef\"}", ERR_CLAIM, "nll_xxh64"},
        {"more text", "{\"bytes\":999999}", ERR_CLAIM, "bytes: claimed 999999"},
        {"another mode", "{\"mode\":\"plain\"}", ERR_CLAIM, "mode: claimed plain"},
        {"a line that says verified", "{\"mode\":\"x\\nverified\"}", ERR_INPUT, "printable"},
        {"two scores", "{\"val_bpb\":9.1,\"val_bpb\":0.9}", ERR_INPUT, "occurs twice"},
        {"a key that looks like one", "{\"tokens\":1,\"v\\u0430l_bpb\":0.9}", ERR_INPUT,
         "looks like"},
    };
    (void)state;
    char path[TOY_PATH];
    snprintf(path, sizeof path, "%s", toy_path(t.dir, "claim.json"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct options o = {.file = t.sound, .claim = path};
        toy_write(path, cases[i].json, strlen(cases[i].json));
        CAUGHT(cases[i].name, &o, cases[i].want, cases[i].says);
        if (cases[i].want == ERR_CLAIM)
            CAUGHT(cases[i].name, &o, ERR_CLAIM, "[R-REPRODUCIBLE]");
    }
}

/* A score of SLOT under the name of val_bpb: who does not say the mode claims the value of record.
 */
static void slot_for_sliding(void **state)
{
    char path[TOY_PATH], text[256];
    struct report r;
    struct err e = {0};
    const struct options slot = {.command = COMMAND_BLOB,
                                 .file = t.sound,
                                 .data = t.dir,
                                 .threads = 1,
                                 .eval = "slot",
                                 .json = true,
                                 .quiet = true};
    (void)state;
    assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
    assert_int_equal(verify_blob(&slot, &r, &e), ERR_OK);
    double own = red_number(r.root, "val_bpb");
    double record = red_number(cJSON_GetObjectItem(r.root, "record"), "val_bpb");
    assert_false(
        cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(r.root, "conditions"), "causal")));
    report_free(&r);
    if (!(own < record - 0.001))
        fail_msg("SLOT gains nothing here: %.8f, sliding %.8f", own, record);
    snprintf(path, sizeof path, "%s", toy_path(t.dir, "claim.json"));
    const struct options o = {.file = t.sound, .claim = path, .eval = "slot"};
    snprintf(text, sizeof text, "{\"val_bpb\":%.8f}", own);
    toy_write(path, text, strlen(text));
    CAUGHT("SLOT's value", &o, ERR_CLAIM, "val_bpb: claimed");
    snprintf(text, sizeof text, "{\"val_bpb\":%.8f}", record);
    toy_write(path, text, strlen(text));
    CAUGHT("the value of record", &o, ERR_OK, "");
    snprintf(text, sizeof text, "{\"mode\":\"slot\",\"val_bpb\":%.8f}", own);
    toy_write(path, text, strlen(text));
    CAUGHT("SLOT's value, called that", &o, ERR_OK, "");
}

static int setup(void **state)
{
    (void)state;
    return red_open(&t);
}

static int teardown(void **state)
{
    (void)state;
    red_close(&t);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest),          cmocka_unit_test(behind_the_end),
        cmocka_unit_test(behind_a_stream), cmocka_unit_test(frames_of_nothing),
        cmocka_unit_test(lying_sizes),     cmocka_unit_test(facts),
        cmocka_unit_test(another_model),   cmocka_unit_test(paid_prefix),
        cmocka_unit_test(byte_tables),     cmocka_unit_test(byte_sums),
        cmocka_unit_test(claims),          cmocka_unit_test(slot_for_sliding),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
