/*
 * blob_test - guards against an auditor who can be fooled: a byte of the file that no check covers,
 * sizes that lead outside, sections that overlap or hide something between or behind them, a claim
 * that fills the memory.
 */
#include <signal.h>
#include <sys/resource.h>

#include "model/file.h"
#include "packer/blob.h"
#include "tests/unit/blob_golden.h"
#include "tests/unit/blob_small.h"
#include "tests/unit/util.h"

static enum err_code parse(const uint8_t *p, size_t n, struct err *e)
{
    struct blob b;
    struct guarded g = guarded_new(p, n);
    enum err_code rc = blob_parse(&b, g.p, n, "blob", NULL, 0, e);
    guarded_free(&g);
    return rc;
}

static void sound(void **state)
{
    static const int codecs[] = {CODEC_NONE,  CODEC_LZMA, CODEC_ZSTD,
                                 CODEC_RANGE, CODEC_CM,   CODEC_AUTO};
    (void)state;
    for (size_t k = 0; k < COUNT(codecs); k++) {
        struct small s = small_new(NULL, 0, codecs[k]);
        struct blob b;
        struct err e = {0};
        uint8_t *raw, runner[TINY_RUNNER], *payload;
        size_t n;
        EXPECT("parse", ERR_OK, "",
               blob_parse(&b, s.file, s.size, "blob", s.file, TINY_HEADERS, &e), e);
        assert_true(b.known_loader);
        assert_int_equal(b.count, SECTIONS_MIN);
        assert_null(blob_find(&b, KIND_SOURCE));

        EXPECT("runner", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_RUNNER), "blob", &e), e);
        tiny_runner(runner);
        assert_memory_equal(raw, runner, sizeof runner);
        free(raw);
        EXPECT("recipe", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_RECIPE), "blob", &e), e);
        assert_memory_equal(raw, small_recipe, sizeof small_recipe - 1);
        free(raw);
        EXPECT("weights", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_WEIGHTS), "blob", &e),
               e);
        EXPECT("payload", ERR_OK, "", small_payload(&payload, &n, &e), e);
        assert_int_equal(blob_find(&b, KIND_WEIGHTS)->raw_size, n);
        assert_memory_equal(raw, payload, n);
        free(payload);
        free(raw);

        /* A loader that differs in one byte is readable, but not known. */
        uint8_t other[TINY_HEADERS];
        memcpy(other, s.file, sizeof other);
        other[9] ^= 1;
        EXPECT("other", ERR_OK, "", blob_parse(&b, s.file, s.size, "blob", other, sizeof other, &e),
               e);
        assert_false(b.known_loader);
        free(s.file);
    }
}

/* A file of an older build: it says the same for ever. */
static void golden(void **state)
{
    struct blob b;
    struct err e = {0};
    uint8_t *raw, *payload, runner[TINY_RUNNER];
    size_t n;
    (void)state;
    EXPECT("parse", ERR_OK, "",
           blob_parse(&b, blob_golden, sizeof blob_golden, "golden", NULL, 0, &e), e);
    EXPECT("weights", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_WEIGHTS), "golden", &e), e);
    EXPECT("payload", ERR_OK, "", small_payload(&payload, &n, &e), e);
    assert_int_equal(blob_find(&b, KIND_WEIGHTS)->raw_size, n);
    assert_memory_equal(raw, payload, n);
    free(payload);
    free(raw);
    EXPECT("runner", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_RUNNER), "golden", &e), e);
    tiny_runner(runner);
    assert_memory_equal(raw, runner, sizeof runner);
    free(raw);
    EXPECT("recipe", ERR_OK, "", blob_decode(&raw, blob_find(&b, KIND_RECIPE), "golden", &e), e);
    assert_memory_equal(raw, small_recipe, sizeof small_recipe - 1);
    free(raw);
}

/* Every bit of the file is covered by some check. */
static void every_bit(void **state)
{
    (void)state;
    struct small s = small_new(NULL, 0, CODEC_RANGE);
    for (size_t at = 0; at < 8 * s.size; at++) {
        struct err e = {0};
        s.file[at / 8] ^= (uint8_t)(1 << at % 8);
        if (parse(s.file, s.size, &e) != ERR_INPUT)
            fail_msg("bit %zu of byte %zu of %zu flipped: not noticed", at % 8, at / 8, s.size);
        s.file[at / 8] ^= (uint8_t)(1 << at % 8);
    }
    free(s.file);
}

static void every_length(void **state)
{
    (void)state;
    struct small s = small_new(NULL, 0, CODEC_RANGE);
    struct err e = {0};
    for (size_t n = 0; n < s.size; n++) {
        struct err cut = {0};
        if (parse(s.file, n, &cut) != ERR_INPUT)
            fail_msg("cut to %zu of %zu bytes: not noticed", n, s.size);
    }
    s.file = realloc(s.file, s.size + 1);
    s.file[s.size] = 0;
    EXPECT("a byte behind the end", ERR_INPUT, "the file has", parse(s.file, s.size + 1, &e), e);
    free(s.file);
}

/* Headers whose hash is right and whose contents lie. `at` is inside the entry, or the header for
 * kind 0. */
static void lies(void **state)
{
    static const struct {
        const char *name;
        int kind;
        size_t at, bytes;
        uint64_t value;
        const char *said;
    } cases[] = {
        {"version", 0, HDR_VERSION, 4, 2, "version 2"},
        {"flags", 0, HDR_FLAGS, 4, 1, "flags"},
        {"no sections", 0, HDR_COUNT, 4, 0, "0 sections"},
        {"five sections", 0, HDR_COUNT, 4, 5, "5 sections"},
        {"seven sections in six", 0, HDR_COUNT, 4, 7, "7 sections"},
        {"many sections", 0, HDR_COUNT, 4, UINT32_MAX, "sections"},
        {"header size", 0, HDR_SIZE, 4, 1, "says 1 bytes"},
        {"file size", 0, HDR_FILE_SIZE, 8, 1, "header says 1"},
        {"a kind twice", KIND_WEIGHTS, SEC_KIND, 4, KIND_RUNNER,
         "kind 3 (runner), expected 4 (weights)"},
        {"another order", KIND_RECIPE, SEC_KIND, 4, KIND_SOURCE, "kind 7 (source)"},
        {"unknown kind", KIND_RUNNER, SEC_KIND, 4, 99, "kind 99 (unknown)"},
        {"overlap", KIND_WEIGHTS, SEC_OFFSET, 8, 200, "weights: begins at 200"},
        {"offset beyond", KIND_WEIGHTS, SEC_OFFSET, 8, UINT64_MAX, "weights: begins at"},
        {"size beyond", KIND_RECIPE, SEC_SIZE, 8, 1000, "do not fit"},
        {"size huge", KIND_RUNNER, SEC_SIZE, 8, UINT64_MAX, "do not fit"},
        {"loader smaller", KIND_LOADER, SEC_SIZE, 8, 100, "loader"},
        {"header's hash", KIND_HEADER, SEC_XXH64, 8, 1, "header: damaged"},
        {"hash", KIND_WEIGHTS, SEC_XXH64, 8, 1, "weights: damaged"},
        {"runner stored plainly", KIND_RUNNER, SEC_CODEC, 4, CODEC_NONE,
         "codec 0 (none) is not allowed"},
        {"range for text", KIND_RECIPE, SEC_CODEC, 4, CODEC_RANGE,
         "codec 3 (range) is not allowed"},
        {"cm for text", KIND_RECIPE, SEC_CODEC, 4, CODEC_CM, "codec 4 (cm) is not allowed"},
        {"unknown codec", KIND_WEIGHTS, SEC_CODEC, 4, 36, "codec 36 (unknown) is not allowed"},
        {"runner bomb", KIND_RUNNER, SEC_RAW_SIZE, 8, RUNNER_RAW_MAX + 1u, "the limit is"},
        {"weights bomb", KIND_WEIGHTS, SEC_RAW_SIZE, 8, 1ull << 40, "the limit is"},
        {"text bomb", KIND_RECIPE, SEC_RAW_SIZE, 8, UINT64_MAX, "the limit is"},
        {"nothing", KIND_WEIGHTS, SEC_RAW_SIZE, 8, 0, "is empty"},
        {"two sizes", KIND_LOADER, SEC_RAW_SIZE, 8, 1000, "two sizes"},
        {"lc and lp", KIND_RUNNER, SEC_PARAMS, 2, 0x0302, "parameters"},
        {"pb", KIND_RUNNER, SEC_PARAMS + PARAM_PB, 1, 5, "parameters"},
        {"filter", KIND_RUNNER, SEC_PARAMS + PARAM_FILTER, 1, 2, "parameters"},
        {"filter elsewhere", KIND_WEIGHTS, SEC_PARAMS + PARAM_FILTER, 1, 1, "parameters"},
        {"parameters of nothing", KIND_LOADER, SEC_PARAMS, 1, 1, "parameters"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct small s = small_new(NULL, 0, CODEC_RANGE);
        struct err e = {0};
        uint8_t *at =
            (cases[i].kind ? small_entry(&s, (enum kind)cases[i].kind) : small_header(&s)) +
            cases[i].at;
        for (size_t k = 0; k < cases[i].bytes; k++)
            at[k] = (uint8_t)(cases[i].value >> 8 * k);
        small_seal(&s);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].said, parse(s.file, s.size, &e), e);
        free(s.file);
    }
}

/* Source and kernels: either, both, and in no other order. */
static void optional_sections(void **state)
{
    static const struct {
        const char *name;
        bool source, cuda;
        uint32_t kind[2]; /* put into the entries behind the six, unless 0 */
        const char *said; /* NULL: sound */
    } cases[] = {
        {"source", true, false, {0}, NULL},
        {"kernels", false, true, {0}, NULL},
        {"both", true, true, {0}, NULL},
        {"kernels twice", true, true, {KIND_CUDA}, "section 7: kind 8 (cuda), expected 9"},
        {"source twice", true, true, {0, KIND_SOURCE}, "kind 7 (source), expected 8 (cuda)"},
        {"the other order", true, true, {KIND_CUDA, KIND_SOURCE}, "kind 7 (source), expected 9"},
        {"a recipe again", false, true, {KIND_RECIPE}, "kind 6 (recipe), expected 7 (source)"},
        {"behind the last", false, true, {KIND_CUDA + 1}, "kind 9 (unknown)"},
        {"far behind the last", false, true, {UINT32_MAX}, "kind 4294967295 (unknown)"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct small s = small_new(NULL, 0, CODEC_RANGE), made = {0};
        struct coded c[SECTIONS_MAX - 2] = {{0}};
        const struct coded *part[SECTIONS_MAX - 2] = {0};
        struct err e = {0};
        struct blob b;
        uint8_t *raw;
        for (size_t k = 0; k < COUNT(c); k++) {
            const struct blob_section *from = &s.b.section[k < 4 ? k + 2 : KIND_RUNNER - 1];
            c[k] = (struct coded){.codec = from->codec,
                                  .data = s.file + from->offset,
                                  .size = from->size,
                                  .raw_size = from->raw_size};
            memcpy(c[k].params, from->params, sizeof c[k].params);
            if (k < 4 || (k == 4 ? cases[i].source : cases[i].cuda))
                part[k] = &c[k];
        }
        blob_layout(&made.b, s.file, TINY_HEADERS, part, COUNT(part));
        EXPECT("write", ERR_OK, "", blob_write(util_path("made"), &made.b, &e), e);
        made.file = util_slurp(util_path("made"), &made.size);
        for (size_t k = 0; k < 2; k++)
            if (cases[i].kind[k])
                put_le32(small_header(&made) + HDR_ENTRIES + (SECTIONS_MIN + k) * SEC_BYTES,
                         cases[i].kind[k]);
        small_seal(&made);
        enum err_code want = cases[i].said ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, cases[i].said ? cases[i].said : "",
               blob_parse(&b, made.file, made.size, "blob", NULL, 0, &e), e);
        if (!cases[i].said) {
            assert_int_equal(blob_find(&b, KIND_SOURCE) != NULL, cases[i].source);
            assert_int_equal(blob_find(&b, KIND_CUDA) != NULL, cases[i].cuda);
            EXPECT("decode", ERR_OK, "", blob_decode(&raw, &b.section[SECTIONS_MIN], "blob", &e),
                   e);
            free(raw);
        }
        unlink(util_path("made"));
        free(made.file);
        free(s.file);
    }
}

/* Bytes that belong to no section, with every size and hash right otherwise. */
static void hidden_bytes(void **state)
{
    (void)state;
    struct small s = small_new(NULL, 0, CODEC_RANGE);
    struct err e = {0}, e2 = {0};
    s.file = realloc(s.file, s.size + 3);
    memset(s.file + s.size, 0, 3);
    put_le64(small_header(&s) + HDR_FILE_SIZE, s.size + 3);
    small_seal(&s);
    EXPECT("behind the end", ERR_INPUT, "3 bytes behind", parse(s.file, s.size + 3, &e), e);

    /* Between two sections: everything from the recipe on moves back by three. */
    const struct blob_section *r = &s.b.section[KIND_RECIPE - 1];
    memmove(s.file + r->offset + 3, s.file + r->offset, r->size);
    put_le64(small_entry(&s, KIND_RECIPE) + SEC_OFFSET, r->offset + 3);
    small_seal(&s);
    EXPECT("between", ERR_INPUT, "recipe: begins at", parse(s.file, s.size + 3, &e2), e2);
    free(s.file);
}

/* Stored bytes that hash well and do not unpack: found when decoding. */
static void does_not_unpack(void **state)
{
    static const enum kind kinds[] = {KIND_RUNNER, KIND_WEIGHTS};
    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (int less = 0; less < 2; less++) {
            struct small s = small_new(NULL, 0, CODEC_RANGE);
            struct blob b;
            struct err e = {0};
            uint8_t *raw, *entry = small_entry(&s, kinds[k]);
            size_t was = s.b.section[kinds[k] - 1].raw_size;
            /* a byte or two can be so likely that leaving them out saves no stored byte */
            put_le64(entry + SEC_RAW_SIZE, less ? was - (was > 100 ? 40 : 1) : was + 1000);
            small_seal(&s);
            EXPECT("parse", ERR_OK, "", blob_parse(&b, s.file, s.size, "blob", NULL, 0, &e), e);
            EXPECT("decode", ERR_INPUT, "do not unpack",
                   blob_decode(&raw, blob_find(&b, kinds[k]), "blob", &e), e);
            assert_null(raw);
            free(s.file);
        }
}

static void not_a_blob(void **state)
{
    static const char text[] =
        "#!/bin/sh\necho this is a script, and long enough to hold two ELF headers if it "
        "were one, which it is not, is it?\n";
    struct err e = {0}, e2 = {0}, e3 = {0};
    struct blob b;
    (void)state;
    EXPECT("text", ERR_INPUT, "does not begin with a loader",
           parse((const uint8_t *)text, sizeof text, &e), e);
    EXPECT("empty", ERR_INPUT, "does not begin", parse(NULL, 0, &e2), e2);
    EXPECT("missing", ERR_INPUT, "cannot open", blob_open(&b, util_path("missing"), NULL, 0, &e3),
           e3);
    blob_close(&b);
}

/* A disk that is full after n bytes, for many n: an error, and neither file nor leftovers. */
static void disk_full(void **state)
{
    (void)state;
    struct small s = small_new(NULL, 0, CODEC_RANGE);
    struct blob b;
    struct err e = {0};
    EXPECT("parse", ERR_OK, "", blob_parse(&b, s.file, s.size, "blob", NULL, 0, &e), e);
    b.section[KIND_HEADER - 1].data = NULL;
    struct rlimit was, tight;
    getrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, SIG_IGN);
    dir_make(util_path("full"), &e);
    for (size_t n = 0; n < s.size; n += 97) {
        struct err full = {0};
        tight = was;
        tight.rlim_cur = n;
        setrlimit(RLIMIT_FSIZE, &tight);
        enum err_code rc = blob_write(util_path("full/submission"), &b, &full);
        setrlimit(RLIMIT_FSIZE, &was);
        EXPECT("full", ERR_RESOURCE, "cannot write", rc, full);
        assert_int_equal(util_entries(util_path("full")), 0);
    }
    EXPECT("room", ERR_OK, "", blob_write(util_path("full/submission"), &b, &e), e);
    size_t n;
    uint8_t *back = util_slurp(util_path("full/submission"), &n);
    assert_int_equal(n, s.size);
    assert_memory_equal(back, s.file, n);
    struct stat st;
    stat(util_path("full/submission"), &st);
    assert_int_equal(st.st_mode & 0777, 0755);
    free(back);
    free(s.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound),        cmocka_unit_test(golden),
        cmocka_unit_test(every_bit),    cmocka_unit_test(every_length),
        cmocka_unit_test(lies),         cmocka_unit_test(optional_sections),
        cmocka_unit_test(hidden_bytes), cmocka_unit_test(does_not_unpack),
        cmocka_unit_test(not_a_blob),   cmocka_unit_test(disk_full),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
