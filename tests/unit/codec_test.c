/*
 * codec_test - guards against weights that come back different: the coders' rare paths (a carry
 * through many bytes, symbols never seen, more columns than means), damaged streams that are taken
 * for whole, and memory that runs out half way.
 */
#include "model/reader.h"
#include "packer/codec.h"
#include "packer/payload.h"
#include "stub/weights_dec.h"
#include "tests/unit/util.h"

/* ---- allocation that fails on demand; sanitizers bring their own malloc and skip these ---- */

#ifndef __SANITIZE_ADDRESS__
static size_t fail_at; /* the how manieth allocation from now fails; 0: none */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);

void *malloc(size_t n)
{
    return fail_at && --fail_at == 0 ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fail_at && --fail_at == 0 ? NULL : __libc_calloc(count, n);
}
#endif

/* ---- data ---- */

/* Sums of uniform numbers: near enough to trained weights. `spread` in steps. */
static void weights(uint8_t *p, size_t rows, size_t cols, double spread, uint64_t seed)
{
    for (size_t i = 0; i < rows * cols; i++) {
        double x = 0;
        for (int k = 0; k < 4; k++)
            x += util_uniform(&seed);
        double q =
            x * spread * (i % cols < cols / 4 ? 0.3 : 1); /* quiet columns, as real ones are */
        p[i] = (uint8_t)(int8_t)(q < -127 ? -127 : q > 127 ? 127 : q < 0 ? q - 0.5 : q + 0.5);
    }
}

static uint8_t *payload_of(struct tensor_view *t, size_t count, size_t *n)
{
    struct st_file f = {.tensor = t, .count = count};
    struct err e = {0};
    uint8_t *p;
    EXPECT("payload", ERR_OK, "", payload_new(&p, n, &f, "test", &e), e);
    return p;
}

/* Encode with a codec, decode into guarded memory, compare. The encoders compare as well. */
static size_t round_trip(const char *name, const uint8_t *payload, size_t n, int codec)
{
    struct coded c = {0}, again = {0};
    struct err e = {0};
    EXPECT(name, ERR_OK, "", coded_weights(&c, payload, n, codec, &e), e);
    EXPECT(name, ERR_OK, "", coded_weights(&again, payload, n, codec, &e), e);
    if (c.size != again.size || memcmp(c.data, again.data, c.size))
        fail_msg("%s: two runs differ", name);
    struct guarded in = guarded_new(c.data, c.size), out = guarded_new(NULL, n);
    void *work = malloc(WEIGHTS_WORK);
    memset(out.p, 0xAA, n);
    if (!weights_decode(c.codec, c.params, in.p, c.size, out.p, n, work) ||
        memcmp(out.p, payload, n))
        fail_msg("%s: codec %s does not come back", name, codec_name(c.codec));
    size_t size = c.size;
    free(work);
    guarded_free(&in);
    guarded_free(&out);
    coded_free(&c);
    coded_free(&again);
    return size;
}

/* ---- tests ---- */

static void shapes(void **state)
{
    static const struct {
        const char *name;
        enum st_dtype dtype;
        size_t ndim, shape[3];
    } cases[] = {
        {"one element", ST_I8, 2, {1, 1}},
        {"one row", ST_I8, 2, {1, 513}},
        {"one column", ST_I8, 2, {513, 1}},
        {"around a refresh", ST_I8, 2, {9, 33}},
        {"three dimensions", ST_I8, 3, {3, 5, 7}},
        {"no rows", ST_I8, 2, {0, 5}},
        {"no columns", ST_I8, 2, {5, 0}},
        {"more columns than means", ST_I8, 2, {11, 16385}},
        {"many more columns", ST_I8, 2, {3, 50000}},
        {"a vector of bytes", ST_I8, 1, {77}},
        {"unsigned", ST_U8, 2, {7, 9}},
        {"flags", ST_BOOL, 1, {9}},
        {"halves", ST_F16, 1, {31}},
        {"brain floats", ST_BF16, 2, {5, 3}},
        {"16-bit", ST_I16, 1, {9}},
        {"floats", ST_F32, 2, {3, 5}},
        {"a scalar", ST_F32, 0, {0}},
        {"doubles", ST_F64, 1, {3}},
        {"64-bit", ST_I64, 1, {2}},
    };
    static uint8_t data[200000];
    (void)state;
    weights(data, 400, 500, 3, 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        /* Between two others, so that it meets models with a past, and alignment. */
        struct tensor_view t[3] = {
            {"before", ST_I8, 2, {5, 5}, data + 1000, 25},
            {"it", cases[i].dtype, cases[i].ndim, {0}, data, 0},
            {"after", ST_I8, 2, {4, 3}, data + 2000, 12},
        };
        memcpy(t[1].shape, cases[i].shape, sizeof cases[i].shape);
        t[1].nbytes = tensor_elems(&t[1]) * st_dtype_size(cases[i].dtype);
        size_t n;
        uint8_t *p = payload_of(t, 3, &n);
        round_trip(cases[i].name, p, n, CODEC_RANGE);
        round_trip(cases[i].name, p, n, CODEC_NONE);

        struct weights_cursor c;
        struct tensor_view got;
        size_t seen = 0;
        weights_open(&c, p, n);
        while (weights_next(&c, &got)) {
            const struct tensor_view *want = tensor_find(t, 3, got.name);
            seen++;
            if (!want || got.dtype != want->dtype || got.ndim != want->ndim ||
                got.nbytes != want->nbytes || memcmp(got.shape, want->shape, 8 * got.ndim) ||
                (got.nbytes && memcmp(got.data, want->data, got.nbytes)) ||
                (size_t)(got.data - p) % st_dtype_size(got.dtype))
                fail_msg("%s: tensor %s came back different", cases[i].name, got.name);
        }
        if (c.bad || seen != 3)
            fail_msg("%s: %zu of 3 tensors", cases[i].name, seen);
        free(p);
    }
}

/* Contents that drive a range coder into its corners. */
static void contents(void **state)
{
    enum { ROWS = 300, COLS = 200, N = ROWS * COLS };
    static uint8_t data[N];
    static const char *const names[] = {"zeros",  "one value",   "extremes",
                                        "noise",  "rare symbol", "a surprise after calm",
                                        "trained"};
    (void)state;
    for (size_t k = 0; k < COUNT(names); k++) {
        uint64_t seed = k;
        for (size_t i = 0; i < N; i++) {
            uint64_t r = util_next(&seed);
            data[i] = (uint8_t)(k == 0   ? 0
                                : k == 1 ? 200
                                : k == 2 ? (r & 1 ? 127 : 128)
                                : k == 3 ? r
                                : k == 4 ? (r % 5000 == 0 ? 31 : 1)
                                         : (i < N - 500 ? 0 : r));
        }
        if (k == 6)
            weights(data, ROWS, COLS, 5, 9);
        struct tensor_view t[] = {{"w", ST_I8, 2, {ROWS, COLS}, data, N},
                                  {"v", ST_F16, 1, {N / 2}, data, N}};
        size_t n;
        uint8_t *p = payload_of(t, 2, &n);
        round_trip(names[k], p, n, CODEC_RANGE);
        round_trip(names[k], p, n, CODEC_LZMA);
        if (k == 0) /* nothing but zeros: here LZMA wins, and auto takes it */
            assert_in_range(round_trip(names[k], p, n, CODEC_AUTO), 1,
                            round_trip(names[k], p, n, CODEC_RANGE));
        free(p);
    }
}

/* The reason it exists: below the best of the general compressors on weights. */
static void smaller_than_lzma(void **state)
{
    enum { ROWS = 512, COLS = 512 };
    static uint8_t data[ROWS * COLS];
    (void)state;
    weights(data, ROWS, COLS, 4, 5);
    struct tensor_view t[] = {{"w", ST_I8, 2, {ROWS, COLS}, data, sizeof data}};
    size_t n;
    uint8_t *p = payload_of(t, 1, &n);
    size_t range = round_trip("range", p, n, CODEC_RANGE),
           lzma = round_trip("lzma", p, n, CODEC_LZMA), zstd = 0;
    struct coded z;
    struct err e = {0};
    EXPECT("zstd", ERR_OK, "", coded_zstd(&z, p, n, &e), e);
    zstd = z.size;
    coded_free(&z);
    print_message("range %zu, lzma %zu, zstd %zu of %zu\n", range, lzma, zstd, n);
    assert_true(range < lzma && range < zstd);
    free(p);
}

/* A small stream that is cut, or has a bit flipped: noticed, or at least harmless. */
static void damaged(void **state)
{
    static uint8_t data[30 * 20];
    (void)state;
    weights(data, 30, 20, 3, 4);
    struct tensor_view t[] = {{"w.q", ST_I8, 2, {30, 20}, data, sizeof data},
                              {"w.scale", ST_F16, 1, {30}, data, 60}};
    size_t n;
    uint8_t *p = payload_of(t, 2, &n);
    struct coded c;
    struct err e = {0};
    EXPECT("range", ERR_OK, "", coded_range(&c, p, n, &e), e);
    struct guarded out = guarded_new(NULL, n), in = guarded_new(c.data, c.size);
    void *work = malloc(WEIGHTS_WORK);
    for (size_t cut = 0; cut < c.size; cut++) {
        struct guarded part = guarded_new(c.data, cut);
        if (weights_decode(CODEC_RANGE, c.params, part.p, cut, out.p, n, work))
            fail_msg("cut to %zu of %zu bytes and accepted", cut, c.size);
        guarded_free(&part);
    }
    for (size_t at = 0; at < 8 * c.size; at++) {
        in.p[at / 8] ^= (uint8_t)(1 << at % 8);
        weights_decode(CODEC_RANGE, c.params, in.p, c.size, out.p, n, work);
        in.p[at / 8] ^= (uint8_t)(1 << at % 8);
    }
    /* Too little room, too much room. */
    for (size_t raw = 0; raw < n + 9; raw++) {
        struct guarded other = guarded_new(NULL, raw);
        if (weights_decode(CODEC_RANGE, c.params, in.p, c.size, other.p, raw, work) != (raw == n))
            fail_msg("decodes to %zu bytes instead of %zu", raw, n);
        guarded_free(&other);
    }
    assert_false(weights_decode(CODEC_ZSTD, c.params, in.p, c.size, out.p, n, work));
    assert_false(weights_decode(99, c.params, in.p, c.size, out.p, n, work));
    free(work);
    guarded_free(&in);
    guarded_free(&out);
    coded_free(&c);
    free(p);
}

/* The payload itself: each byte of a small one changed to a few values, and every length. */
static void damaged_payload(void **state)
{
    static const uint8_t data[64] = {1, 2, 3};
    struct tensor_view t[] = {{"w.q", ST_I8, 2, {5, 3}, data, 15},
                              {"b", ST_F32, 1, {2}, data, 8},
                              {"g", ST_F64, 0, {0}, data, 8}};
    size_t n, table_end;
    uint8_t *p = payload_of(t, 3, &n);
    struct weights_cursor c;
    struct tensor_view got;
    (void)state;
    table_end = WT_TABLE + le32(p + WT_TABLE_SIZE);
    for (size_t cut = 0; cut < n; cut++) {
        struct guarded g = guarded_new(p, cut);
        weights_open(&c, g.p, cut);
        while (weights_next(&c, &got))
            ;
        if (!c.bad)
            fail_msg("cut to %zu of %zu bytes and accepted", cut, n);
        guarded_free(&g);
    }
    struct guarded g = guarded_new(p, n);
    for (size_t at = 0; at < table_end; at++)
        for (unsigned v = 0; v < 256; v++) {
            g.p[at] = (uint8_t)v;
            weights_open(&c, g.p, n);
            while (weights_next(&c, &got))
                if (got.data < g.p || got.nbytes > n || got.data + got.nbytes > g.p + n)
                    fail_msg("byte %zu set to %u: a tensor outside", at, v);
            g.p[at] = p[at];
        }
    guarded_free(&g);
    free(p);
}

static void bad_tensors(void **state)
{
    char long_name[200];
    struct tensor_view t[] = {{long_name, ST_I8, 1, {1}, (const uint8_t *)"", 1}};
    struct st_file f = {.tensor = t, .count = 1}, none = {0};
    struct err e = {0}, e2 = {0};
    uint8_t *p;
    size_t n;
    (void)state;
    memset(long_name, 'x', sizeof long_name);
    long_name[WT_NAME_MAX + 1] = 0;
    EXPECT("long name", ERR_INPUT, "128 bytes", payload_new(&p, &n, &f, "w", &e), e);
    EXPECT("no tensors", ERR_INPUT, "no tensors", payload_new(&p, &n, &none, "w", &e2), e2);
}

static void memory_runs_out(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#else
    static uint8_t data[64];
    struct tensor_view t[] = {{"w", ST_I8, 2, {8, 8}, data, 64}};
    size_t n;
    uint8_t *p = payload_of(t, 1, &n);
    static const int codecs[] = {CODEC_NONE,  CODEC_LZMA, CODEC_ZSTD,
                                 CODEC_RANGE, CODEC_CM,   CODEC_AUTO};
    for (size_t k = 0; k < COUNT(codecs); k++)
        for (size_t i = 1;; i++) {
            struct coded c = {0};
            struct err e = {0};
            fail_at = i;
            enum err_code rc = coded_weights(&c, p, n, codecs[k], &e);
            bool reached = fail_at == 0;
            fail_at = 0;
            if (!reached) {
                assert_int_equal(rc, ERR_OK);
                coded_free(&c);
                break;
            }
            /* zstd has a way to go on without some of its tables */
            if (rc != ERR_RESOURCE && codecs[k] != CODEC_ZSTD)
                fail_msg("codec %d, allocation %zu: status %d %s", codecs[k], i, (int)rc, e.msg);
            if (rc && c.data)
                fail_msg("codec %d, allocation %zu: something is left", codecs[k], i);
            coded_free(&c);
        }
    free(p);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),
        cmocka_unit_test(contents),
        cmocka_unit_test(smaller_than_lzma),
        cmocka_unit_test(damaged),
        cmocka_unit_test(damaged_payload),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
