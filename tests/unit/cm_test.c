/*
 * cm_test - guards against weights that the codec "cm" brings back different or does not bring back
 * smaller: encoder and decoder that part ways in a rare context (a trellis, similar rows, low bits,
 * shared columns, an escape), streams that depend on each other, damaged bytes that write outside.
 */
#include <math.h>

#include "kernels/cpu/pool.h"
#include "model/reader.h"
#include "packer/cm.h"
#include "packer/payload.h"
#include "packer/ptz_read.h"
#include "stub/cm_dec.h"
#include "stub/trellis.h"
#include "stub/weights_dec.h"
#include "tests/unit/util.h"

/* ---- data ---- */

static double gauss(uint64_t *seed)
{
    double u = (util_uniform(seed) + 1) / 2, v = (util_uniform(seed) + 1) / 2;
    return sqrt(-2 * log(u + 1e-12)) * cos(6.283185307179586 * v);
}

static int8_t to_i8(double x)
{
    x = floor(x + 0.5);
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

static void fill(int8_t *q, size_t n, double sigma, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        q[i] = to_i8(sigma * gauss(&seed));
}

static uint8_t *payload_of(struct tensor_view *t, size_t count, size_t *n)
{
    struct st_file f = {.tensor = t, .count = count};
    struct err e = {0};
    uint8_t *p;
    EXPECT("payload", ERR_OK, "", payload_new(&p, n, &f, "test", &e), e);
    return p;
}

/* Encode twice, decode into guarded memory, compare. Returns the coded size. */
static size_t round_trip(const char *name, struct tensor_view *t, size_t count)
{
    struct coded c = {0}, again = {0};
    struct err e = {0};
    size_t n, asked;
    uint8_t *p = payload_of(t, count, &n);
    EXPECT(name, ERR_OK, "", coded_cm(&c, p, n, &e), e);
    EXPECT(name, ERR_OK, "", coded_cm(&again, p, n, &e), e);
    EXPECT(name, ERR_OK, "", cm_size(&asked, p, n, &e), e);
    if (c.size != again.size || memcmp(c.data, again.data, c.size) || asked != c.size)
        fail_msg("%s: two runs differ", name);
    struct guarded in = guarded_new(c.data, c.size), out = guarded_new(NULL, n);
    void *work = malloc(WEIGHTS_WORK);
    memset(work, 0xA5, CM_WORK);
    memset(out.p, 0xAA, n);
    if (!weights_decode(CODEC_CM, c.params, in.p, c.size, out.p, n, work) || memcmp(out.p, p, n))
        fail_msg("%s: does not come back", name);
    size_t size = c.size;
    free(work);
    guarded_free(&in);
    guarded_free(&out);
    coded_free(&c);
    coded_free(&again);
    free(p);
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
        {"three dimensions", ST_I8, 3, {3, 5, 7}},
        {"no rows", ST_I8, 2, {0, 5}},
        {"no columns", ST_I8, 2, {5, 0}},
        {"a search below a chunk", ST_I8, 2, {300, 31}},
        {"a search at a chunk", ST_I8, 2, {300, 32}},
        {"a search behind a chunk", ST_I8, 2, {300, 33}},
        {"as wide as a search goes", ST_I8, 2, {1100, 1024}},
        {"more rows than are searched", ST_I8, 2, {4100, 34}},
        {"more columns than sums", ST_I8, 2, {11, 16385}},
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
    static int8_t data[1200000];
    (void)state;
    fill(data, sizeof data, 1.5, 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        /* Between two others, so that it meets models with a past, and alignment. */
        struct tensor_view t[3] = {
            {"before", ST_I8, 2, {5, 5}, (uint8_t *)data + 1000, 25},
            {"it", cases[i].dtype, cases[i].ndim, {0}, (uint8_t *)data, 0},
            {"after", ST_I8, 2, {4, 3}, (uint8_t *)data + 2000, 12},
        };
        memcpy(t[1].shape, cases[i].shape, sizeof cases[i].shape);
        t[1].nbytes = tensor_elems(&t[1]) * st_dtype_size(cases[i].dtype);
        round_trip(cases[i].name, t, 3);
    }
}

/* Contents that drive coder and model into their corners. */
static void contents(void **state)
{
    enum { ROWS = 300, COLS = 200, N = ROWS * COLS };
    static int8_t data[N];
    static const struct {
        const char *name;
        double sigma; /* 0: by number, below */
        int kind;
    } cases[] = {
        {"zeros", 0, 0},
        {"one value", 0, 1},
        {"extremes", 0, 2},
        {"noise", 0, 3},
        {"rare", 0, 4},
        {"a surprise after calm", 0, 5},
        {"surprises by row", 0, 6},
        {"tiny", 0.2, 0},
        {"record", 2.4, 0},
        {"int6", 9.5, 0},
        {"one low bit", 18, 0},
        {"int8", 35, 0},
        {"clipped", 90, 0},
    };
    (void)state;
    for (size_t k = 0; k < COUNT(cases); k++) {
        uint64_t seed = k;
        for (size_t i = 0; i < N; i++) {
            uint64_t r = util_next(&seed);
            int8_t v[] = {0,
                          -56,
                          (int8_t)(r & 1 ? 127 : -128),
                          (int8_t)r,
                          (int8_t)(r % 5000 == 0 ? 31 : 1),
                          (int8_t)(i < N - 500 ? 0 : r),
                          (int8_t)(i / COLS % 9 ? 0 : r)};
            data[i] = v[cases[k].kind];
        }
        if (cases[k].sigma > 0)
            fill(data, N, cases[k].sigma, k);
        struct tensor_view t[] = {{"w", ST_I8, 2, {ROWS, COLS}, (uint8_t *)data, N},
                                  {"v", ST_F16, 1, {N / 2}, (uint8_t *)data, N}};
        round_trip(cases[k].name, t, 2);
    }
}

/* The promise in numbers: Gaussian symbols cost what their entropy says, nearly. */
static void entropy(void **state)
{
    enum { ROWS = 512, COLS = 1024, N = ROWS * COLS };
    static int8_t data[N];
    const double sigma = 2.45;
    double ideal = 0;
    (void)state;
    fill(data, N, sigma, 3);
    for (int k = -40; k <= 40; k++) {
        double p = 0.5 * (erf((k + 0.5) / sigma / sqrt(2)) - erf((k - 0.5) / sigma / sqrt(2)));
        ideal -= p > 0 ? p * log2(p) : 0;
    }
    struct tensor_view t[] = {{"w.q", ST_I8, 2, {ROWS, COLS}, (uint8_t *)data, N}};
    double size = (double)round_trip("entropy", t, 1), want = ideal * N / 8;
    print_message("%.0f bytes, entropy %.0f, %+.3f %%\n", size, want, 100 * (size / want - 1));
    assert_true(size < 1.003 * want);
}

/* A trellis-coded matrix: levels of the sub-quantiser that the state demands. */
static void trellis(void **state)
{
    enum { ROWS = 200, COLS = 300, N = ROWS * COLS };
    static const struct {
        const char *name, *rexp_name;
        float states;
        size_t rexp_n;
        bool flags, known; /* known: the codec sees a trellis, so symbols cost less */
    } cases[] = {
        {"4 states", "w.rexp", 4, ROWS, false, true},
        {"8 states", "w.rexp", 8, ROWS, true, true},
        {"256 states", "w.rexp", 256, ROWS, true, true},
        {"no states", "w.rexp", 0, ROWS, true, false},
        {"states that no code has", "w.rexp", 12, ROWS, true, false},
        {"more than a byte of state", "w.rexp", 512, ROWS, false, false},
        {"not a number", "w.rexp", NAN, ROWS, false, false},
        {"exponents of another matrix", "v.rexp", 16, ROWS, false, false},
        {"too few exponents", "w.rexp", 16, ROWS - 1, false, false},
    };
    static int8_t q[N], rexp[ROWS], cexp[COLS];
    (void)state;
    for (size_t k = 0; k < COUNT(cases); k++) {
        uint64_t seed = k;
        struct trellis code = trellis_code(cases[k].known ? (unsigned)cases[k].states : 16);
        for (size_t i = 0; i < ROWS; i++)
            rexp[i] = (int8_t)(2 * (int)(i % 5) - 4 + (cases[k].flags && i % 7 == 0));
        for (size_t j = 0; j < COLS; j++) {
            unsigned s = 0;
            cexp[j] = (int8_t)(2 * (int)(j % 9) - 8 + (cases[k].flags && j % 11 == 0));
            for (size_t i = 0; i < ROWS; i++) {
                double level = 0.8 * gauss(&seed);
                bool half = !step_flag(rexp[i]) && !step_flag(cexp[j]);
                int8_t v = to_i8(half ? level - 0.5 * (s & 1) : level);
                q[i * COLS + j] = v;
                if (half)
                    s = trellis_next(code, s, v);
            }
        }
        uint8_t step[8];
        uint32_t bits;
        memcpy(&bits, &cases[k].states, 4);
        put_le32(step, 0x3C000000);
        put_le32(step + 4, bits);
        struct tensor_view t[] = {
            {"w.q", ST_I8, 2, {ROWS, COLS}, (uint8_t *)q, N},
            {cases[k].rexp_name, ST_I8, 1, {cases[k].rexp_n}, (uint8_t *)rexp, cases[k].rexp_n},
            {"w.cexp", ST_I8, 1, {COLS}, (uint8_t *)cexp, COLS},
            {"w.step", ST_F32, 1, {2}, step, 8},
        };
        size_t with = round_trip(cases[k].name, t, 4);
        t[3].name = "w.stop"; /* as many bytes, but no trellis */
        size_t without = round_trip(cases[k].name, t, 4);
        print_message("%s: %zu bytes, unknown %zu\n", cases[k].name, with, without);
        if (cases[k].known ? with + without / 50 > without
                           : with > without + 8 || with + 8 < without)
            fail_msg("%s: %zu bytes, %zu without", cases[k].name, with, without);
    }
}

/* Rows that resemble earlier ones, as those of an embedding do, cost less. */
static void similar(void **state)
{
    enum { ROWS = 600, COLS = 256, N = ROWS * COLS };
    static int8_t own[N], like[N];
    uint64_t seed = 7;
    (void)state;
    fill(own, N, 4, 1);
    memcpy(like, own, N);
    for (size_t i = 300; i < ROWS; i++)
        for (size_t j = 0; j < COLS; j++)
            like[i * COLS + j] =
                to_i8(0.8 * own[(i * 37 % 300) * COLS + j] + 0.6 * 4 * gauss(&seed));
    struct tensor_view t[] = {{"e.q", ST_I8, 2, {ROWS, COLS}, (uint8_t *)own, N}};
    size_t apart = round_trip("own", t, 1);
    t[0].data = (uint8_t *)like;
    size_t together = round_trip("like", t, 1);
    print_message("%zu bytes, with similar rows %zu\n", apart, together);
    assert_true(together + apart / 50 < apart);
}

/* Matrices with the same input have the same column exponents: told once. */
static void repeated(void **state)
{
    enum { N = 2048 };
    static int8_t own[N], other[N];
    (void)state;
    fill(own, N, 2, 1);
    fill(other, N, 2, 2);
    struct tensor_view t[] = {{"a.cexp", ST_I8, 1, {N}, (uint8_t *)own, N},
                              {"a.rexp", ST_I8, 1, {N}, (uint8_t *)other, N},
                              {"b.cexp", ST_I8, 1, {N}, (uint8_t *)own, N}};
    size_t known = round_trip("known", t, 3);
    t[2].name = "b.some";
    size_t unknown = round_trip("unknown", t, 3);
    print_message("%zu bytes, %zu by another name\n", known, unknown);
    assert_true(known + 400 < unknown);
}

/* The tensors below v, in order: integers and their scales. */
static void collect(struct ptz *p, const struct pickle_value *v, struct tensor_view *t,
                    size_t *count, size_t cap)
{
    struct err e = {0};
    if (ptz_is_tensor(p, v)) {
        static char name[256][8];
        assert_true(*count < cap);
        snprintf(name[*count], sizeof *name, "t%zu", *count);
        EXPECT("tensor", ERR_OK, "", ptz_tensor(p, v, name[*count], &t[*count], &e), e);
        ++*count;
    } else if (v->kind == PICKLE_DICT) {
        for (size_t i = 0; i < v->n; i++)
            collect(p, v->item[2 * i + 1], t, count, cap);
    }
}

/* A participant's own integers and scales come back bit by bit, in fewer bytes than in his file. */
static void record(void **state)
{
    const char *path = util_shared("fixtures/ptz/conker5.int6.ptz");
    static struct tensor_view t[256];
    struct ptz ptz = {0};
    struct coded c = {0};
    struct err e = {0};
    size_t count = 0, n;
    (void)state;
    if (!path)
        skip();
    EXPECT(path, ERR_OK, "", ptz_open(&ptz, path, &e), e);
    collect(&ptz, ptz.root, t, &count, COUNT(t));
    uint8_t *p = payload_of(t, count, &n), *out = malloc(n);
    EXPECT(path, ERR_OK, "", coded_cm(&c, p, n, &e), e);
    void *work = malloc(WEIGHTS_WORK);
    assert_true(weights_decode(CODEC_CM, c.params, c.data, c.size, out, n, work));
    assert_memory_equal(out, p, n);
    print_message("%zu bytes of %zu tensors: %zu, in the record's file %zu\n", n, count, c.size,
                  ptz.file_bytes);
    assert_true(c.size + ptz.file_bytes / 8 < ptz.file_bytes);
    free(work);
    free(out);
    free(p);
    coded_free(&c);
    ptz_close(&ptz);
}

/* Streams are decoded in any order, each with fresh workspace, and by any number of threads. */
static void streams(void **state)
{
    enum { TENSORS = 9, COLS = 1001, N = CM_SPLIT / TENSORS + 2 * COLS };
    static int8_t data[TENSORS][N];
    struct tensor_view t[TENSORS + 1];
    char name[TENSORS][8];
    struct coded c = {0};
    struct err e = {0};
    size_t n;
    (void)state;
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(name[i], sizeof name[i], "w%zu.q", i);
        fill(data[i], 5000, 2, i); /* the rest is quick: zeros */
        t[i] = (struct tensor_view){name[i],        ST_I8, 2, {N / COLS, COLS}, (uint8_t *)data[i],
                                    N / COLS * COLS};
    }
    t[1].shape[0] = N; /* a single column, for a change */
    t[1].shape[1] = 1;
    t[1].nbytes = N;
    t[TENSORS] = (struct tensor_view){"s", ST_F16, 1, {500}, (uint8_t *)data[3], 1000};
    uint8_t *p = payload_of(t, TENSORS + 1, &n);
    EXPECT("encode", ERR_OK, "", coded_cm(&c, p, n, &e), e);
    struct guarded out = guarded_new(NULL, n);
    void *work = malloc(WEIGHTS_WORK);
    struct cm_file f;
    memset(out.p, 0xAA, n);
    assert_true(cm_open(&f, c.params, c.data, c.size, out.p, n, work));
    assert_int_equal(f.streams, 4);
    memset(work, 0xA5, WEIGHTS_WORK);
    for (size_t s = f.streams; s-- > 0;) {
        cm_stream(&f, s, 0);
        assert_true(f.good[s]);
    }
    assert_memory_equal(out.p, p, n);
    const uint8_t *part[CM_STREAMS_MAX + 1]; /* where their sizes are */
    for (size_t s = 0; s <= f.streams; s++) {
        part[s] = f.parts + 4;
        f.parts += 8 + le32(part[s]);
    }
    for (size_t threads = 1; threads <= 5; threads += 2) {
        struct pool *pool;
        EXPECT("threads", ERR_OK, "", pool_new(&pool, threads, &e), e);
        memset(out.p, 0xAA, n);
        assert_true(weights_decode_on(pool, CODEC_CM, c.params, c.data, c.size, out.p, n, work));
        if (memcmp(out.p, p, n))
            fail_msg("%zu threads: other bytes", threads);
        /* Any one stream that is too short is noticed, and one that begins before its end. */
        for (size_t s = 0; threads > 1 && s <= f.streams; s++) {
            uint8_t *size = (uint8_t *)(uintptr_t)part[s], *to = size - 4;
            put_le32(size, le32(size) - 1);
            if (weights_decode_on(pool, CODEC_CM, c.params, c.data, c.size, out.p, n, work))
                fail_msg("stream %zu is cut and accepted", s);
            put_le32(size, le32(size) + 1);
            uint32_t end = le32(to);
            put_le32(to, s < f.streams - 1 ? (uint32_t)n : 0);
            if (weights_decode_on(pool, CODEC_CM, c.params, c.data, c.size, out.p, n, work))
                fail_msg("stream %zu has the wrong share and is accepted", s);
            put_le32(to, end);
        }
        pool_free(pool);
    }
    free(work);
    free(p);
    guarded_free(&out);
    coded_free(&c);
}

/* A small stream that is cut, or has a bit flipped: noticed, or at least harmless. */
static void damaged(void **state)
{
    static int8_t q[40 * 36], rexp[40], cexp[36];
    static uint8_t step[8] = {0, 0, 0, 60, 0, 0, 128, 65}; /* {2^-7, 16} */
    (void)state;
    fill(q, sizeof q, 3, 4);
    struct tensor_view t[] = {{"w.q", ST_I8, 2, {40, 36}, (uint8_t *)q, sizeof q},
                              {"v.q", ST_I8, 2, {5, 4}, (uint8_t *)q, 20},
                              {"w.rexp", ST_I8, 1, {40}, (uint8_t *)rexp, 40},
                              {"w.cexp", ST_I8, 1, {36}, (uint8_t *)cexp, 36},
                              {"w.step", ST_F32, 1, {2}, step, 8},
                              {"v.scale", ST_F16, 1, {5}, (uint8_t *)q, 10}};
    size_t n;
    uint8_t *p = payload_of(t, COUNT(t), &n);
    struct coded c;
    struct err e = {0};
    EXPECT("cm", ERR_OK, "", coded_cm(&c, p, n, &e), e);
    struct guarded out = guarded_new(NULL, n), in = guarded_new(c.data, c.size);
    void *work = malloc(WEIGHTS_WORK);
    for (size_t cut = 0; cut < c.size; cut += cut < 64 ? 1 : 3) {
        struct guarded part = guarded_new(c.data, cut);
        if (weights_decode(CODEC_CM, c.params, part.p, cut, out.p, n, work))
            fail_msg("cut to %zu of %zu bytes and accepted", cut, c.size);
        guarded_free(&part);
    }
    for (size_t at = 0; at < 8 * c.size; at += 1 + at / 200) { /* each bit of the first bytes */
        in.p[at / 8] ^= (uint8_t)(1 << at % 8);
        weights_decode(CODEC_CM, c.params, in.p, c.size, out.p, n, work);
        in.p[at / 8] ^= (uint8_t)(1 << at % 8);
    }
    for (size_t raw = 0; raw < n + 9; raw += raw % 8 == 0 && raw + 64 < n ? 8 : 1) {
        struct guarded other = guarded_new(NULL, raw);
        if (weights_decode(CODEC_CM, c.params, in.p, c.size, other.p, raw, work) != (raw == n))
            fail_msg("decodes to %zu bytes instead of %zu", raw, n);
        guarded_free(&other);
    }
    free(work);
    guarded_free(&in);
    guarded_free(&out);
    coded_free(&c);
    free(p);
}

/* stub/trellis.h itself: each code is a permutation in pairs, and the exponents are exact. */
static void definitions(void **state)
{
    (void)state;
    for (unsigned states = 4; states <= TRELLIS_STATES_MAX; states *= 2) {
        struct trellis t = trellis_code(states);
        int came[TRELLIS_STATES_MAX] = {0};
        for (unsigned s = 0; s < states; s++)
            for (int k = -1; k <= 0; k++) {
                unsigned next = trellis_next(t, s, k);
                if (next >= states)
                    fail_msg("%u states: %u goes to %u", states, s, next);
                came[next]++;
            }
        for (unsigned s = 0; s < states; s++)
            if (came[s] != 2)
                fail_msg("%u states: %d ways to %u", states, came[s], s);
    }
    static const unsigned none[] = {0, 1, 2, 3, 5, 512};
    for (size_t i = 0; i < COUNT(none); i++)
        assert_int_equal(trellis_code(none[i]).h0, 0);
    for (int v = -128; v < 128; v++)
        assert_int_equal(2 * step_exponent((int8_t)v) + step_flag((int8_t)v), v);
    for (int x = -64; x < 64; x++)
        if (fabs((double)step_pow(x) / exp2(x / 4.0) - 1) > 6e-8)
            fail_msg("2^(%d/4) is %.9g", x, (double)step_pow(x));
}

/* A section that was written once must be readable for ever. */
static void golden(void **state)
{
    static const uint8_t coded[] = {
        0x45, 0x00, 0x00, 0x00, 0x2f, 0x00, 0x00, 0x00, 0x8d, 0x96, 0xdf, 0x0d, 0xbe, 0xab, 0x90,
        0xa5, 0x9f, 0x02, 0xe3, 0xb6, 0x17, 0xd3, 0xe9, 0x91, 0xd2, 0x62, 0x12, 0x66, 0x4b, 0x45,
        0x71, 0xa4, 0x43, 0x3e, 0x34, 0xb6, 0xd8, 0xc9, 0xed, 0xf0, 0x12, 0xdf, 0x6a, 0x68, 0xb1,
        0x85, 0x8d, 0xfa, 0xe1, 0x05, 0x71, 0x2b, 0xbb, 0x2e, 0x19, 0x01, 0x80, 0x00, 0x00, 0x00,
        0x1d, 0x00, 0x00, 0x00, 0x94, 0x6f, 0x8e, 0x29, 0x2a, 0xd8, 0xd7, 0x5b, 0x41, 0x90, 0x94,
        0x21, 0x66, 0x08, 0x6d, 0xcb, 0xb6, 0xa5, 0x86, 0xf9, 0x5d, 0x66, 0xc7, 0x55, 0x3c, 0x89,
        0x7b, 0x94, 0x09, 0x80, 0x00, 0x00, 0x00, 0x1b, 0x00, 0x00, 0x00, 0xff, 0xc5, 0x40, 0x73,
        0x87, 0x7e, 0xcf, 0x64, 0xe9, 0xb4, 0xec, 0xa0, 0x5c, 0xcc, 0x9d, 0xe1, 0xe7, 0x99, 0xff,
        0xad, 0x80, 0x80, 0x0d, 0x14, 0xb5, 0x8e, 0xea,
    };
    static const int8_t q[30] = {1, -2, 0, 3, -1, 0, 0,  2, -3, 1, -1,  1,    5, 0, -40,
                                 2, -1, 0, 0, 1,  0, -2, 1, 1,  0, 127, -128, 3, 0, -1};
    static const uint8_t params[8] = {0};
    static const uint8_t scale[8] = {0, 60, 1, 60, 0x80, 59, 0, 0x80};
    enum { RAW = 128 };
    struct guarded in = guarded_new(coded, sizeof coded), out = guarded_new(NULL, RAW);
    void *work = malloc(WEIGHTS_WORK);
    struct weights_cursor c;
    struct tensor_view t;
    size_t seen = 0;
    (void)state;
    assert_true(weights_decode(CODEC_CM, params, in.p, sizeof coded, out.p, RAW, work));
    weights_open(&c, out.p, RAW);
    for (; weights_next(&c, &t); seen++)
        if (!strcmp(t.name, "w.q"))
            assert_memory_equal(t.data, q, sizeof q);
        else if (!strcmp(t.name, "g"))
            assert_memory_equal(t.data, scale, sizeof scale);
    assert_false(c.bad);
    assert_int_equal(seen, 5);
    free(work);
    guarded_free(&in);
    guarded_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definitions), cmocka_unit_test(shapes),  cmocka_unit_test(contents),
        cmocka_unit_test(entropy),     cmocka_unit_test(trellis), cmocka_unit_test(similar),
        cmocka_unit_test(repeated),    cmocka_unit_test(record),  cmocka_unit_test(streams),
        cmocka_unit_test(golden),      cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
