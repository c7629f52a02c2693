/*
 * safetensors_test - guards against weights read from the wrong bytes: every offset, shape and
 * length of such a file is somebody else's word. Lies of each kind must be refused with the tensor
 * named, any prefix and any flipped bit must be survived, and what is written must be read back the
 * same.
 */
#include <signal.h>
#include <sys/resource.h>

#include "model/reader.h"
#include "model/safetensors.h"
#include "tests/unit/util.h"

/* ---- round trip ---- */

static const uint8_t data[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static const struct tensor_view views[] = {
    {.name = "blocks.0.attn.c_q.weight",
     .dtype = ST_F32,
     .ndim = 2,
     .shape = {2, 3},
     .data = data,
     .nbytes = 24},
    {.name = "w.q", .dtype = ST_I8, .ndim = 2, .shape = {3, 5}, .data = data, .nbytes = 15},
    {.name = "w.scale", .dtype = ST_F16, .ndim = 1, .shape = {3}, .data = data + 1, .nbytes = 6},
    {.name = "scalar", .dtype = ST_F64, .ndim = 0, .data = data, .nbytes = 8},
    {.name = "empty", .dtype = ST_I64, .ndim = 2, .shape = {0, 7}, .data = data, .nbytes = 0},
    {.name = "8 dims",
     .dtype = ST_U8,
     .ndim = 8,
     .shape = {1, 1, 2, 1, 1, 3, 1, 1},
     .data = data,
     .nbytes = 6},
    {.name = "\"quoted\" \\ \xc3\xa9",
     .dtype = ST_BF16,
     .ndim = 1,
     .shape = {2},
     .data = data,
     .nbytes = 4},
    {.name = "bool", .dtype = ST_BOOL, .ndim = 1, .shape = {1}, .data = data, .nbytes = 1},
    {.name = "i16", .dtype = ST_I16, .ndim = 1, .shape = {1}, .data = data, .nbytes = 2},
    {.name = "u16", .dtype = ST_U16, .ndim = 1, .shape = {1}, .data = data, .nbytes = 2},
    {.name = "i32", .dtype = ST_I32, .ndim = 1, .shape = {1}, .data = data, .nbytes = 4},
};
static const char *const meta[] = {"RECIPE", "A=1\nB=\"two\"\n", "empty", "", "\xc3\xa9", "\t\\"};

static void check_same(const struct st_file *f)
{
    assert_int_equal(f->count, COUNT(views));
    assert_int_equal(f->nmeta, COUNT(meta) / 2);
    for (size_t i = 0; i < COUNT(views); i++) {
        const struct tensor_view *w = &views[i], *t = tensor_find(f->tensor, f->count, w->name);
        if (!t || t->dtype != w->dtype || t->ndim != w->ndim || t->nbytes != w->nbytes ||
            memcmp(t->shape, w->shape, w->ndim * sizeof *w->shape) ||
            memcmp(t->data, w->data, w->nbytes))
            fail_msg("%s: not what was written", w->name);
    }
    for (size_t i = 0; i < COUNT(meta); i += 2)
        assert_string_equal(st_meta(f, meta[i]), meta[i + 1]);
    assert_null(st_meta(f, "other"));
}

static void round_trip(void **state)
{
    const char *path = util_path("a.safetensors"), *again = util_path("b.safetensors");
    struct st_file f;
    struct err e = {0};
    size_t n, m;
    (void)state;
    EXPECT("write", ERR_OK, "", st_write(path, views, COUNT(views), meta, COUNT(meta) / 2, &e), e);
    EXPECT("open", ERR_OK, "", st_open(&f, path, &e), e);
    check_same(&f);
    /* What was read, written again, is the same file: order, padding and numbers are fixed. */
    EXPECT("write", ERR_OK, "",
           st_write(again, views, COUNT(views), (const char *const *)f.meta, f.nmeta, &e), e);
    uint8_t *p = util_slurp(path, &n), *q = util_slurp(again, &m);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    assert_int_equal(le64(p) % 8, 0);
    free(p);
    free(q);
    st_close(&f);
    st_close(&f);
    EXPECT("nothing", ERR_OK, "", st_write(path, NULL, 0, NULL, 0, &e), e);
    EXPECT("nothing", ERR_OK, "", st_open(&f, path, &e), e);
    assert_int_equal(f.count + f.nmeta, 0);
    st_close(&f);
}

/* ---- damage by machine ---- */

static uint8_t *whole_file(size_t *n)
{
    struct err e = {0};
    const char *path = util_path("w.safetensors");
    EXPECT("write", ERR_OK, "", st_write(path, views, COUNT(views), meta, COUNT(meta) / 2, &e), e);
    return util_slurp(path, n);
}

static void every_truncation(void **state)
{
    size_t n;
    uint8_t *p = whole_file(&n);
    (void)state;
    for (size_t cut = 0; cut < n; cut++) {
        struct guarded g = guarded_new(p, cut);
        struct st_file f;
        struct err e = {0};
        char label[64];
        snprintf(label, sizeof label, "first %zu of %zu bytes", cut, n);
        EXPECT(label, ERR_INPUT, "cut: ", st_parse(&f, g.p, cut, "cut", &e), e);
        /* The same with a header length that fits, so that the JSON ends anywhere. */
        if (cut > 8) {
            struct err e2 = {0};
            put_le64(g.p, cut - 8);
            EXPECT(label, ERR_INPUT, "cut: ", st_parse(&f, g.p, cut, "cut", &e2), e2);
        }
        assert_null(f.tensor);
        guarded_free(&g);
    }
    free(p);
}

/* A flipped bit in the data or in a name is another valid file; anything else must be refused. */
static void every_bit(void **state)
{
    size_t n, refused = 0;
    uint8_t *p = whole_file(&n);
    size_t header = 8 + le64(p);
    struct guarded g = guarded_new(p, n);
    (void)state;
    for (size_t bit = 0; bit < 8 * header; bit++) {
        struct st_file f;
        struct err e = {0};
        g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum err_code rc = st_parse(&f, g.p, n, "bit", &e);
        if (rc != ERR_OK && (rc != ERR_INPUT || strncmp(e.msg, "bit: ", 5)))
            fail_msg("bit %zu: status %d \"%s\"", bit, rc, e.msg);
        for (size_t i = 0; i < f.count; i++)
            if (f.tensor[i].data < g.p + 8 || f.tensor[i].nbytes > n ||
                f.tensor[i].data + f.tensor[i].nbytes > g.p + n)
                fail_msg("bit %zu: tensor %s lies outside", bit, f.tensor[i].name);
        refused += rc != ERR_OK;
        st_close(&f);
        g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(refused > 4 * header);
    guarded_free(&g);
    free(p);
}

/* ---- lies ---- */

#define T(dtype, shape, from, to)                                                                  \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static const struct {
    const char *name, *json;
    size_t bytes; /* of data behind the header */
    enum err_code want;
    const char *says;
} lies[] = {
    {"one tensor", "{\"a\":" T("F32", "[2]", 0, 8) "}", 8, ERR_OK, ""},
    {"out of order", "{\"b\":" T("U8", "[4]", 8, 12) ",\"a\":" T("F32", "[2]", 0, 8) "}", 12,
     ERR_OK, ""},
    {"padded", "{\"a\":" T("U8", "[1]", 0, 1) "}     ", 1, ERR_OK, ""},
    {"blanks and line ends", " {\n\"a\" :\t" T("U8", "[1]", 0, 1) "\r\n}", 1, ERR_OK, ""},
    {"metadata only", "{\"__metadata__\":{\"k\":\"v\"}}", 0, ERR_OK, ""},
    {"other fields", "{\"a\":{\"x\":[{}],\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
     1, ERR_OK, ""},
    {"two empty tensors at one place",
     "{\"a\":" T("U8", "[0]", 0, 0) ",\"b\":" T("U8", "[2]", 0, 2) ",\"c\":" T("U8", "[0,9]", 2,
                                                                               2) "}",
     2, ERR_OK, ""},

    {"empty header", "", 0, ERR_INPUT, "not one JSON object"},
    {"no object", "[]", 0, ERR_INPUT, "not one JSON object"},
    {"number", "17", 0, ERR_INPUT, "not one JSON object"},
    {"text behind", "{}x", 0, ERR_INPUT, "not one JSON object (byte 2)"},
    {"second object behind", "{} {}", 0, ERR_INPUT, "not one JSON object"},
    {"hidden bytes behind a NUL", "{}\\0", 0, ERR_INPUT, "not one JSON object"},
    {"unclosed", "{\"a\":" T("U8", "[1]", 0, 1), 1, ERR_INPUT, "not one JSON object"},
    {"unclosed string", "{\"a", 0, ERR_INPUT, "not one JSON object"},
    {"unclosed string behind a value", "{\"1\":1, \"", 0, ERR_INPUT, "not one JSON object"},
    {"unclosed escape", "{\"a\\", 0, ERR_INPUT, "not one JSON object"},
    {"bytes without a tensor", "{}", 3, ERR_INPUT, "3 bytes behind the last tensor"},
    {"bytes behind", "{\"a\":" T("U8", "[1]", 0, 1) "}", 2, ERR_INPUT,
     "1 bytes behind the last tensor"},
    {"bytes before", "{\"a\":" T("U8", "[1]", 1, 2) "}", 2, ERR_INPUT,
     "tensor a: starts at byte 1 of the data, not at 0"},
    {"gap", "{\"a\":" T("U8", "[1]", 0, 1) ",\"b\":" T("U8", "[1]", 2, 3) "}", 3, ERR_INPUT,
     "tensor b: starts at byte 2 of the data, not at 1"},
    {"overlap", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 1, 3) "}", 3, ERR_INPUT,
     "tensor b: starts at byte 1 of the data, not at 2"},
    {"same bytes twice", "{\"a\":" T("U8", "[2]", 0, 2) ",\"b\":" T("U8", "[2]", 0, 2) "}", 2,
     ERR_INPUT, "starts at byte 0 of the data, not at 2"},
    {"name twice", "{\"a\":" T("U8", "[1]", 0, 1) ",\"a\":" T("U8", "[1]", 1, 2) "}", 2, ERR_INPUT,
     "tensor a: appears twice"},
    {"end beyond the file", "{\"a\":" T("U8", "[9]", 0, 9) "}", 8, ERR_INPUT,
     "tensor a: bytes 0 to 9 of 8"},
    {"end before the beginning", "{\"a\":" T("U8", "[1]", 2, 1) "}", 2, ERR_INPUT, "bytes 2 to 1"},
    {"shape larger than the bytes", "{\"a\":" T("F32", "[3]", 0, 8) "}", 8, ERR_INPUT,
     "its shape and type need 12"},
    {"shape smaller than the bytes", "{\"a\":" T("F32", "[1]", 0, 8) "}", 8, ERR_INPUT,
     "its shape and type need 4"},
    {"scalar of two", "{\"a\":" T("F32", "[]", 0, 8) "}", 8, ERR_INPUT, "need 4"},
    {"2^64 elements", "{\"a\":" T("U8", "[4294967296,4294967296]", 0, 0) "}", 0, ERR_INPUT,
     "tensor a: impossible shape"},
    {"2^64 bytes", "{\"a\":" T("I64", "[2147483648,1073741824]", 0, 0) "}", 0, ERR_INPUT,
     "tensor a: impossible shape"},
    {"huge times zero", "{\"a\":" T("U8", "[9007199254740992,9007199254740992,0]", 0, 0) "}", 0,
     ERR_INPUT, "tensor a: impossible shape"},
    {"nine dims", "{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, ERR_INPUT,
     "impossible shape"},
    {"negative dim", "{\"a\":" T("U8", "[-1]", 0, 1) "}", 1, ERR_INPUT, "impossible shape"},
    {"fraction", "{\"a\":" T("U8", "[1.5]", 0, 1) "}", 1, ERR_INPUT, "impossible shape"},
    {"dim of 1e300", "{\"a\":" T("U8", "[1e300]", 0, 1) "}", 1, ERR_INPUT, "impossible shape"},
    {"dim as text", "{\"a\":" T("U8", "[\"1\"]", 0, 1) "}", 1, ERR_INPUT, "impossible shape"},
    {"shape is a number", "{\"a\":" T("U8", "1", 0, 1) "}", 1, ERR_INPUT,
     "tensor a: needs dtype, shape and data_offsets"},
    {"negative offset", "{\"a\":" T("U8", "[1]", -1, 0) "}", 1, ERR_INPUT, "needs dtype"},
    {"offset of 2^53+2", "{\"a\":" T("U8", "[1]", 0, 9007199254740994) "}", 1, ERR_INPUT,
     "needs dtype"},
    {"one offset", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, ERR_INPUT,
     "needs dtype"},
    {"three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
     ERR_INPUT, "needs dtype"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ERR_INPUT, "needs dtype"},
    {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, ERR_INPUT, "needs dtype"},
    {"no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, ERR_INPUT, "needs dtype"},
    {"tensor is null", "{\"a\":null}", 0, ERR_INPUT, "tensor a: needs dtype"},
    {"tensor is a number", "{\"a\":1}", 0, ERR_INPUT, "tensor a: needs dtype"},
    {"unknown dtype", "{\"a\":" T("F8_E4M3", "[1]", 0, 1) "}", 1, ERR_INPUT,
     "tensor a: unknown dtype F8_E4M3"},
    {"dtype is a number", "{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     ERR_INPUT, "needs dtype"},
    {"metadata is a list", "{\"__metadata__\":[]}", 0, ERR_INPUT,
     "__metadata__ must be one object"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, ERR_INPUT,
     "__metadata__ must be one object"},
    {"metadata not text", "{\"__metadata__\":{\"a\":\"x\",\"k\":5}}", 0, ERR_INPUT,
     "metadata k: not a string"},
    {"line end in a name", "{\"a\\nb\":1}", 0, ERR_INPUT, "tensor a?b: needs dtype"},
};

static void every_lie(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lies); i++) {
        size_t len = strlen(lies[i].json);
        struct guarded g = guarded_new(NULL, 8 + len + lies[i].bytes);
        struct st_file f;
        struct err e = {0};
        put_le64(g.p, len);
        memcpy(g.p + 8, lies[i].json, len);
        if (strstr(lies[i].json, "\\0"))
            g.p[8 + len - 2] = 0;
        EXPECT(lies[i].name, lies[i].want, lies[i].says,
               st_parse(&f, g.p, 8 + len + lies[i].bytes, "lie", &e), e);
        for (size_t t = 1; t < f.count; t++)
            assert_true(f.tensor[t - 1].data <= f.tensor[t].data);
        st_close(&f);
        guarded_free(&g);
    }
}

static void header_lengths(void **state)
{
    static const uint64_t lengths[] = {3,          9,          100,        100000001,
                                       UINT32_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct guarded g = guarded_new(NULL, 10);
        struct st_file f;
        struct err e = {0};
        put_le64(g.p, lengths[i]);
        memcpy(g.p + 8, "{}", 2);
        EXPECT("length", ERR_INPUT, "not a safetensors file: header length",
               st_parse(&f, g.p, 10, "len", &e), e);
        guarded_free(&g);
    }
}

/* Nesting is refused by depth, not by running out of stack. */
static void deep_nesting(void **state)
{
    size_t n = 200000;
    uint8_t *p = malloc(8 + n);
    struct st_file f;
    struct err e = {0};
    (void)state;
    put_le64(p, n);
    memset(p + 8, '[', n);
    memcpy(p + 8, "{\"a\":", 5);
    EXPECT("deep", ERR_INPUT, "not one JSON object", st_parse(&f, p, 8 + n, "deep", &e), e);
    free(p);
}

static void files(void **state)
{
    struct st_file f;
    (void)state;
    static const char *const bad[] = {"none", "empty", ""};
    util_spill(util_path("empty"), "", 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct err e = {0};
        EXPECT(bad[i], ERR_INPUT, bad[i], st_open(&f, util_path(bad[i]), &e), e);
        st_close(&f);
    }
}

/* ---- writing ---- */

/* The same file when its bytes come in pieces of any size and its metadata last; nothing at all
 * when that is given up. */
static void in_pieces(void **state)
{
    static const char *const known[] = {"hash", "0123", "key", "a \"value\""};
    static const char *const unknown[] = {"hash", "????", "key", "a \"value\""};
    const char *path = util_path("k.safetensors"), *again = util_path("l.safetensors");
    struct err e = {0};
    size_t n, m;
    (void)state;
    EXPECT("write", ERR_OK, "", st_write(path, views, COUNT(views), known, 2, &e), e);
    uint8_t *p = util_slurp(path, &n);
    for (size_t piece = 1; piece < 40; piece += 9) {
        struct st_writer w;
        EXPECT("begin", ERR_OK, "", st_begin(&w, again, views, COUNT(views), unknown, 2, &e), e);
        for (size_t i = 0; i < COUNT(views); i++)
            for (size_t at = 0; at < views[i].nbytes; at += piece)
                st_put(&w, views[i].data + at,
                       views[i].nbytes - at < piece ? views[i].nbytes - at : piece);
        EXPECT("end", ERR_OK, "", st_end(&w, views, COUNT(views), known, 2, &e), e);
        st_abort(&w); /* nothing is left to give up */
        EXPECT("begin", ERR_OK, "", st_begin(&w, again, views, COUNT(views), unknown, 2, &e), e);
        st_abort(&w);
        uint8_t *q = util_slurp(again, &m);
        assert_int_equal(n, m);
        assert_memory_equal(p, q, n);
        free(q);
    }
    free(p);
}

static void a_failed_write_leaves_the_older_file(void **state)
{
    const char *dir = util_path("k"), *path = util_path("k/out");
    struct rlimit keep, r;
    size_t n, m;
    uint8_t *p = whole_file(&n);
    (void)state;
    mkdir(dir, 0755);
    util_spill(path, "older", 5);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &keep), 0);
    for (size_t limit = 0; limit < n; limit += 61) {
        struct err e = {0};
        r = keep;
        r.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &r);
        enum err_code rc = st_write(path, views, COUNT(views), meta, COUNT(meta) / 2, &e);
        setrlimit(RLIMIT_FSIZE, &keep);
        EXPECT("limit", ERR_RESOURCE, "out: cannot write: File too large", rc, e);
        uint8_t *q = util_slurp(path, &m);
        assert_int_equal(m, 5);
        assert_memory_equal(q, "older", 5);
        free(q);
        assert_int_equal(util_entries(dir), 1);
    }
    free(p);
    static const struct {
        const char *path, *says;
    } cases[] = {
        {"/dev/full", "No space left on device"},
        {"/nonexistent/out", "No such file"},
        {"/tmp", "Is a directory"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        EXPECT(cases[i].path, ERR_RESOURCE, cases[i].says,
               st_write(cases[i].path, views, COUNT(views), NULL, 0, &e), e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_bit),
        cmocka_unit_test(every_lie),
        cmocka_unit_test(in_pieces),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(files),
        cmocka_unit_test(a_failed_write_leaves_the_older_file),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
