/*
 * ptz_test.c - exists for packed weights that are read as somebody else's: a tensor that reaches
 * outside its storage, a file that expands for ever, an archive with two answers to one name, a
 * compressor that stops early. What is written must be read back the same through every compressor
 * and shuffle, and every damage must be refused or change nothing but values.
 */
#include "packer/pickle_write.h"
#include "packer/ptz_read.h"
#include "packer/ptz_write.h"
#include "packer/ptz_zip_write.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/util.h"

enum { LIMIT = 1 << 22 };

/* ---- a small model's tensors ---- */

static int8_t q[3 * 40];
static uint16_t half[64];
static float single[6] = {1, -2, 3.5f, 0, 1e-30f, -7};

static const struct tensor_view tensors[] = {
    {.name = "skip_weights",
     .dtype = ST_F32,
     .ndim = 2,
     .shape = {2, 3},
     .data = (const uint8_t *)single,
     .nbytes = 24},
    {.name = "lane_merge", .dtype = ST_F16, .data = (const uint8_t *)half, .nbytes = 2},
    {.name = "blocks.0.mlp.fc.weight.q",
     .dtype = ST_I8,
     .ndim = 2,
     .shape = {3, 40},
     .data = (const uint8_t *)q,
     .nbytes = 120},
    {.name = "blocks.0.mlp.fc.weight.scale",
     .dtype = ST_F16,
     .ndim = 1,
     .shape = {3},
     .data = (const uint8_t *)(half + 1),
     .nbytes = 6},
    {.name = "tok_emb.weight.q",
     .dtype = ST_I8,
     .ndim = 2,
     .shape = {40, 3},
     .data = (const uint8_t *)q,
     .nbytes = 120},
    {.name = "tok_emb.weight.scale",
     .dtype = ST_F16,
     .ndim = 1,
     .shape = {40},
     .data = (const uint8_t *)half,
     .nbytes = 80},
    {.name = "ve_layer_scales.0",
     .dtype = ST_BF16,
     .ndim = 1,
     .shape = {1},
     .data = (const uint8_t *)half,
     .nbytes = 2},
};

static int fill(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (size_t i = 0; i < sizeof q; i++)
        q[i] = (int8_t)(util_below(&seed, 63) - 31);
    for (size_t i = 0; i < COUNT(half); i++)
        half[i] = (uint16_t)(0x2800 + util_below(&seed, 500));
    return 0;
}

static const struct ptz_how plain_how = {.codec = PTZ_BROTLI, .bits = 6, .embed_bits = 8};

static void check_tensors(const char *label, struct ptz *p, const struct pickle_value *w)
{
    for (size_t i = 0; i < COUNT(tensors); i++) {
        const struct tensor_view *want = &tensors[i];
        struct tensor_view t;
        struct err e = {0};
        EXPECT(label, ERR_OK, "", ptz_tensor(p, pickle_get(w, want->name), want->name, &t, &e), e);
        if (t.dtype != want->dtype || t.ndim != want->ndim || t.nbytes != want->nbytes ||
            memcmp(t.shape, want->shape, t.ndim * sizeof *t.shape) ||
            memcmp(t.data, want->data, t.nbytes))
            fail_msg("%s: %s is not what was written", label, want->name);
    }
}

/* ---- round trip ---- */

static void round_trip(void **state)
{
    static const struct {
        enum ptz_codec codec;
        int level;
        unsigned shuffle;
    } cases[] = {
        {PTZ_BROTLI, 0, 2}, {PTZ_BROTLI, 5, 0}, {PTZ_LZMA, 0, 0}, {PTZ_LZMA, 9, 4},
        {PTZ_ZSTD, 0, 0},   {PTZ_ZSTD, 3, 2},   {PTZ_ZLIB, 0, 0}, {PTZ_ZLIB, 1, 255},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ptz_how how = plain_how;
        uint8_t *a, *b;
        size_t na, nb;
        struct ptz p;
        struct err e = {0};
        char label[64];
        how.codec = cases[i].codec;
        how.level = cases[i].level;
        how.shuffle = cases[i].shuffle;
        snprintf(label, sizeof label, "%s level %d shuffle %u", ptz_codec_name(how.codec),
                 how.level, how.shuffle);
        EXPECT(label, ERR_OK, "", ptz_pack(&a, &na, &how, tensors, COUNT(tensors), &e), e);
        EXPECT(label, ERR_OK, "", ptz_pack(&b, &nb, &how, tensors, COUNT(tensors), &e), e);
        if (na != nb || memcmp(a, b, na))
            fail_msg("%s: two files from the same tensors", label);
        EXPECT(label, ERR_OK, "", ptz_parse(&p, a, na, LIMIT, "file", &e), e);
        if (p.layers.codec != how.codec || p.layers.stride != how.shuffle || p.file_bytes != na)
            fail_msg("%s: read as %s, shuffle %u", label, ptz_codec_name(p.layers.codec),
                     p.layers.stride);
        check_tensors(label, &p, pickle_get(p.root, "w"));
        ptz_close(&p);
        ptz_close(&p);
        free(a);
        free(b);
    }
}

/* What m says of each tensor. */
static void says_how(void **state)
{
    struct ptz_how how = plain_how;
    uint8_t *a;
    size_t n;
    struct ptz p;
    struct err e = {0};
    (void)state;
    how.gptq = true;
    EXPECT("pack", ERR_OK, "", ptz_payload(&a, &n, &how, tensors, COUNT(tensors), &e), e);
    EXPECT("read", ERR_OK, "", ptz_parse(&p, a, n, LIMIT, "file", &e), e);
    assert_int_equal(p.layers.codec, PTZ_RAW);
    const struct pickle_value *m = pickle_get(p.root, "m");
    const struct pickle_value *fc = pickle_get(m, "blocks.0.mlp.fc.weight");
    assert_int_equal(m->n, 5);
    assert_true(pickle_is(pickle_get(fc, "type"), "int6"));
    assert_true(pickle_is(pickle_get(fc, "method"), "gptq"));
    assert_true(pickle_is(pickle_get(pickle_get(m, "tok_emb.weight"), "type"), "int8"));
    assert_null(pickle_get(pickle_get(m, "tok_emb.weight"), "method"));
    assert_true(pickle_is(pickle_get(m, "skip_weights"), "passthrough"));
    ptz_close(&p);
    free(a);
}

static void baseline_layout(void **state)
{
    struct ptz_how how = plain_how;
    uint8_t *a;
    size_t n;
    struct ptz p;
    struct tensor_view t;
    struct err e = {0};
    (void)state;
    how.int8_layout = true;
    how.embed_bf16 = true;
    EXPECT("pack", ERR_OK, "", ptz_payload(&a, &n, &how, tensors, COUNT(tensors), &e), e);
    EXPECT("read", ERR_OK, "", ptz_parse(&p, a, n, LIMIT, "file", &e), e);
    assert_true(pickle_is(pickle_get(p.root, "__quant_format__"), "int8_clean_per_row_v1"));
    const struct pickle_value *dtypes = pickle_get(p.root, "dtypes");
    assert_true(pickle_is(pickle_get(dtypes, "tok_emb.weight"), "bfloat16"));
    assert_true(pickle_is(pickle_get(dtypes, "blocks.0.mlp.fc.weight"), "float32"));
    EXPECT("tensor", ERR_OK, "",
           ptz_tensor(&p, pickle_get(pickle_get(p.root, "scales"), "tok_emb.weight"), "x", &t, &e),
           e);
    assert_int_equal(t.nbytes, 80);
    ptz_close(&p);
    free(a);
}

static void settings(void **state)
{
    static const struct {
        const char *name, *settings;
        enum err_code rc;
        const char *part;
    } cases[] = {
        {"defaults", "", ERR_OK, ""},
        {"unknown", "COMPRESSOR=rar", ERR_USAGE, "rar"},
        {"raw", "COMPRESSOR=raw", ERR_USAGE, "raw"},
        {"stride 1", "BYTE_SHUFFLE=1", ERR_USAGE, "BYTE_SHUFFLE=1"},
        {"stride 256", "BYTE_SHUFFLE=256", ERR_USAGE, "BYTE_SHUFFLE=256"},
        {"level", "COMPRESSOR=zlib\nCOMPRESSOR_LEVEL=10", ERR_USAGE, "levels 1 to 9"},
        {"level of none", "COMPRESSOR_LEVEL=23", ERR_USAGE, "COMPRESSOR_LEVEL=23"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct recipe r;
        uint64_t bytes = 0;
        struct err e = {0};
        recipe_init(&r);
        EXPECT("recipe", ERR_OK, "",
               recipe_parse(&r, cases[i].settings, strlen(cases[i].settings), "case", false, &e),
               e);
        EXPECT(cases[i].name, cases[i].rc, cases[i].part,
               ptz_size(&r, tensors, COUNT(tensors), &bytes, &e), e);
        assert_true((bytes > 0) == (cases[i].rc == ERR_OK));
    }
}

static void scale_is_missing(void **state)
{
    static const struct {
        const char *name;
        size_t from, count;
    } cases[] = {{"at the end", 0, 3}, {"another's", 2, 1}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t *a;
        size_t n;
        struct err e = {0};
        EXPECT(cases[i].name, ERR_INPUT, ".scale",
               ptz_payload(&a, &n, &plain_how, tensors + cases[i].from, cases[i].count, &e), e);
        assert_null(a);
    }
}

/* ---- tensors that lie ---- */

struct lie {
    const char *name;
    const char *type; /* storage */
    const char *key;
    size_t elems, offset, ndim, size[9], stride[9];
    const char *part; /* of the message; NULL: fine */
};

/* The storage is 24 bytes, 0 to 23. */
static const struct lie lies[] = {
    {"plain", "torch\nByteStorage\n", "0", 24, 0, 2, {4, 6}, {6, 1}, NULL},
    {"transposed", "torch\nByteStorage\n", "0", 24, 0, 2, {6, 4}, {1, 6}, NULL},
    {"the last byte", "torch\nByteStorage\n", "0", 24, 23, 1, {1}, {1}, NULL},
    {"every fifth", "torch\nByteStorage\n", "0", 24, 3, 1, {5}, {5}, NULL},
    {"one byte often", "torch\nByteStorage\n", "0", 24, 5, 2, {300, 300}, {0, 0}, NULL},
    {"none, far away", "torch\nByteStorage\n", "0", 24, 1 << 20, 2, {0, 7}, {7, 1}, NULL},
    {"scalar", "torch\nByteStorage\n", "0", 24, 7, 0, {0}, {0}, NULL},
    {"halves", "torch\nHalfStorage\n", "0", 12, 1, 1, {11}, {1}, NULL},
    {"doubles", "torch\nDoubleStorage\n", "0", 3, 0, 1, {3}, {1}, NULL},
    {"too long", "torch\nByteStorage\n", "0", 24, 0, 1, {25}, {1}, "outside"},
    {"offset", "torch\nByteStorage\n", "0", 24, 24, 1, {1}, {1}, "outside"},
    {"scalar behind the end", "torch\nByteStorage\n", "0", 24, 24, 0, {0}, {0}, "outside"},
    {"stride", "torch\nByteStorage\n", "0", 24, 0, 2, {2, 2}, {23, 1}, "outside"},
    {"huge stride", "torch\nByteStorage\n", "0", 24, 0, 1, {3}, {INT64_MAX}, "outside"},
    {"stride that comes round",
     "torch\nByteStorage\n",
     "0",
     24,
     0,
     1,
     {3},
     {(size_t)1 << 62},
     "outside"},
    {"huge size",
     "torch\nByteStorage\n",
     "0",
     24,
     0,
     2,
     {INT64_MAX, INT64_MAX},
     {0, 0},
     "more elements than can be counted"},
    {"a byte a billion times",
     "torch\nByteStorage\n",
     "0",
     24,
     0,
     1,
     {1 << 30},
     {0},
     "more elements than are accepted"},
    {"nine axes", "torch\nByteStorage\n", "0", 24, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {0}, "shape"},
    {"storage of another size", "torch\nByteStorage\n", "0", 23, 0, 1, {23}, {1}, "has 24 bytes"},
    {"storage of another type", "torch\nFloatStorage\n", "0", 24, 0, 1, {24}, {1}, "has 24 bytes"},
    {"storage of 2^61",
     "torch\nDoubleStorage\n",
     "0",
     (size_t)1 << 61,
     0,
     1,
     {1},
     {1},
     "has 24 bytes"},
    {"no storage", "torch\nByteStorage\n", "1", 24, 0, 1, {1}, {1}, "data/1: missing"},
    {"storage elsewhere", "torch\nByteStorage\n", "../data.pkl", 24, 0, 1, {1}, {1}, "missing"},
    {"type that is none", "collections\nOrderedDict\n", "0", 24, 0, 1, {1}, {1}, "not understood"},
};

/* {"x": tensor} as a pickle. */
static void put_lie(struct pickle_out *p, const struct lie *l)
{
    pickle_out_begin(p);
    pickle_out_dict(p, 1);
    pickle_out_shared(p, "x");
    pickle_out_global(p, "torch._utils\n_rebuild_tensor_v2\n");
    pickle_out_op(p, '(');
    pickle_out_op(p, '(');
    pickle_out_shared(p, "storage");
    pickle_out_global(p, l->type);
    pickle_out_str(p, l->key);
    pickle_out_shared(p, "cpu");
    pickle_out_int(p, l->elems);
    pickle_out_op(p, 't');
    pickle_out_op(p, 'Q');
    pickle_out_int(p, l->offset);
    pickle_out_counts(p, l->size, l->ndim);
    pickle_out_counts(p, l->stride, l->ndim);
    pickle_out_op(p, 't');
    pickle_out_op(p, 'R');
    pickle_out_dict_end(p, 1);
    pickle_out_end(p);
}

static void check_elements(const struct lie *l, const struct tensor_view *t)
{
    size_t esize = st_dtype_size(t->dtype), n = tensor_elems(t);
    for (size_t i = 0; i < n; i++) {
        size_t at = l->offset, rest = i;
        for (size_t d = l->ndim; d-- > 0; rest /= l->size[d])
            at += rest % l->size[d] * l->stride[d];
        for (size_t b = 0; b < esize; b++)
            if (t->data[i * esize + b] != at * esize + b)
                fail_msg("%s: element %zu is not storage element %zu", l->name, i, at);
    }
}

static void tensors_that_lie(void **state)
{
    uint8_t bytes[24];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    for (size_t i = 0; i < COUNT(lies); i++) {
        const struct lie *l = &lies[i];
        struct pickle_out text;
        struct bytes_out zip = {0};
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        put_lie(&text, l);
        zip_write(&zip,
                  (const struct zip_entry[]){{"data.pkl", text.out.data, text.out.n},
                                             {"data/0", bytes, sizeof bytes}},
                  2);
        struct guarded g = guarded_new(zip.data, zip.n);
        EXPECT(l->name, ERR_OK, "", ptz_parse(&p, g.p, zip.n, LIMIT, "file", &e), e);
        enum err_code want = l->part ? ERR_INPUT : ERR_OK;
        EXPECT(l->name, want, l->part ? l->part : "",
               ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e), e);
        if (!l->part)
            check_elements(l, &t);
        ptz_close(&p);
        guarded_free(&g);
        free(zip.data);
        free(text.out.data);
    }
}

/* ---- archives that lie ---- */

static void archives(void **state)
{
    static const char none[] = "\x80\x02N.";
    static const struct {
        const char *name;
        struct zip_entry entry[3];
        size_t n;
        const char *part; /* NULL: fine */
    } cases[] = {
        {"fine", {{"data.pkl", none, 4}, {"byteorder", "little", 6}}, 2, NULL},
        {"two of a name",
         {{"data.pkl", none, 4}, {"data/0", "a", 1}, {"data/0", "b", 1}},
         3,
         "there twice"},
        {"two pickles", {{"data.pkl", none, 4}, {"x/data.pkl", none, 4}}, 2, "more than once"},
        {"no pickle", {{"data", none, 4}, {"xdata.pkl", none, 4}}, 2, "without data.pkl"},
        {"big-endian", {{"data.pkl", none, 4}, {"byteorder", "big", 3}}, 2, "big-endian"},
        {"a pickle that ends early", {{"data.pkl", none, 3}}, 1, "pickle, byte"},
        {"no entries", {{NULL, NULL, 0}}, 0, "unknown kind"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct bytes_out zip = {0};
        struct ptz p;
        struct err e = {0};
        zip_write(&zip, cases[i].entry, cases[i].n);
        enum err_code want = cases[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, cases[i].part ? cases[i].part : "",
               ptz_parse(&p, zip.data, zip.n, LIMIT, "file", &e), e);
        ptz_close(&p);
        free(zip.data);
    }
}

static void other_files(void **state)
{
    static const struct {
        const char *name, *data;
        size_t n;
        const char *part;
    } cases[] = {
        {"nothing", "", 0, "neither a zip archive nor a pickle"},
        {"text", "hello, world", 12, "brotli"},
        {"a pickle that runs something",
         "\x80\x02"
         "cos\nsystem\n",
         13, "os.system"},
        {"shuffled nothing", "BSHF\2", 5, "neither a zip archive nor a pickle"},
        {"zip magic alone", "PK\3\4", 4, "zip archive"},
        {"zlib magic alone", "\x78\x9c", 2, "zlib"},
        {"gzip magic alone", "\x1f\x8b", 2, "zlib"},
        {"xz magic alone", "\3757zXZ", 6, "xz"},
        {"zstd magic alone", "\x28\xb5\x2f\xfd", 4, "zstd"},
        {"brotli of nothing", "\x3b", 1, "neither a zip archive nor a pickle"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct guarded g = guarded_new(cases[i].data, cases[i].n);
        struct ptz p;
        struct err e = {0};
        EXPECT(cases[i].name, ERR_INPUT, cases[i].part,
               ptz_parse(&p, g.p, cases[i].n, LIMIT, "file", &e), e);
        guarded_free(&g);
    }
}

/* Files that claim more than anybody has. */
static void bombs(void **state)
{
    enum { SIZE = 1 << 24 };
    uint8_t *zeros = calloc(1, SIZE);
    (void)state;
    assert_non_null(zeros);
    for (enum ptz_codec c = PTZ_ZLIB; c < PTZ_CODECS; c++) {
        uint8_t *a, *b;
        size_t n, m;
        struct ptz p;
        struct err e = {0};
        EXPECT("pack", ERR_OK, "", ptz_compress(&a, &n, c, 1, zeros, SIZE, &e), e);
        EXPECT(ptz_codec_name(c), ERR_INPUT, "expand to more than",
               ptz_parse(&p, a, n, LIMIT, "file", &e), e);
        e = (struct err){0};
        EXPECT("at the limit", ERR_OK, "", ptz_expand(&b, &m, c, a, n, SIZE, "file", &e), e);
        assert_int_equal(m, SIZE);
        free(b);
        EXPECT("below", ERR_INPUT, "expand", ptz_expand(&b, &m, c, a, n, SIZE - 1, "file", &e), e);
        free(a);
    }
    free(zeros);
}

/* ---- damage by machine ---- */

static uint8_t *packed(size_t *n, enum ptz_codec c, unsigned shuffle)
{
    struct ptz_how how = plain_how;
    uint8_t *a;
    struct err e = {0};
    how.codec = c;
    how.shuffle = shuffle;
    if (c == PTZ_RAW)
        EXPECT("pack", ERR_OK, "", ptz_payload(&a, n, &how, tensors, COUNT(tensors), &e), e);
    else
        EXPECT("pack", ERR_OK, "", ptz_pack(&a, n, &how, tensors, COUNT(tensors), &e), e);
    return a;
}

/* Reads everything that the file hands out; how many tensors it refuses to. */
static size_t read_all(struct ptz *p)
{
    const struct pickle_value *w = pickle_get(p->root, "w");
    size_t refused = 0;
    for (size_t i = 0; w && w->kind == PICKLE_DICT && i < w->n; i++) {
        struct tensor_view t;
        struct err e = {0};
        if (ptz_tensor(p, w->item[2 * i + 1], "x", &t, &e))
            refused++;
        else
            fuzz_read(t.data, t.nbytes);
    }
    return refused;
}

static void truncations(void **state)
{
    (void)state;
    for (enum ptz_codec c = PTZ_RAW; c < PTZ_CODECS; c++) {
        size_t n, step = c == PTZ_RAW ? 7 : 1;
        uint8_t *a = packed(&n, c, c == PTZ_BROTLI ? 2 : 0);
        for (size_t cut = 0; cut < n; cut += step) {
            struct guarded g = guarded_new(a, cut);
            struct ptz p;
            struct err e = {0};
            char label[64];
            snprintf(label, sizeof label, "%s, first %zu of %zu bytes", ptz_codec_name(c), cut, n);
            EXPECT(label, ERR_INPUT, "file: ", ptz_parse(&p, g.p, cut, LIMIT, "file", &e), e);
            guarded_free(&g);
        }
        /* The library must not see what lies behind the stream either. */
        struct ptz p;
        struct err e = {0};
        uint8_t *longer = calloc(1, n + 1);
        assert_non_null(longer);
        memcpy(longer, a, n);
        if (c != PTZ_RAW)
            EXPECT("one byte more", ERR_INPUT, "behind the end",
                   ptz_parse(&p, longer, n + 1, LIMIT, "file", &e), e);
        free(longer);
        free(a);
    }
}

/* A flipped bit is refused or leaves a readable file. In the bytes of a tensor the archive's
 * checksum finds it, also where the compressor has none. */
static void flipped_bits(void **state)
{
    (void)state;
    for (enum ptz_codec c = PTZ_RAW; c < PTZ_CODECS; c++) {
        size_t n, refused = 0, opened = 0, step = c == PTZ_RAW ? 11 : 3;
        uint8_t *a = packed(&n, c, 0);
        struct guarded g = guarded_new(a, n);
        for (size_t bit = 0; bit < 8 * n; bit += step) {
            struct ptz p;
            struct err e = {0};
            g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
            enum err_code rc = ptz_parse(&p, g.p, n, LIMIT, "file", &e);
            if (rc != ERR_OK && (rc != ERR_INPUT || !strstr(e.msg, "file: ")))
                fail_msg("%s, bit %zu: status %d \"%s\"", ptz_codec_name(c), bit, rc, e.msg);
            opened += !rc;
            if (!rc)
                refused += read_all(&p);
            ptz_close(&p);
            g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        if (c == PTZ_RAW && (refused < 8 * sizeof q / step || opened < refused))
            fail_msg("%zu files opened, %zu tensors refused", opened, refused);
        guarded_free(&g);
        free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(says_how),
        cmocka_unit_test(baseline_layout),
        cmocka_unit_test(settings),
        cmocka_unit_test(scale_is_missing),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(archives),
        cmocka_unit_test(other_files),
        cmocka_unit_test(bombs),
        cmocka_unit_test(truncations),
        cmocka_unit_test(flipped_bits),
    };
    return cmocka_run_group_tests(tests, fill, util_cleanup);
}
