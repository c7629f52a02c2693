/*
 * ptz_numpy_test.c - exists for an array that is read with its axes exchanged, with another type,
 * or past its end: NumPy says order, type and shape in a text header or in a pickle that anybody
 * can write.
 */
#include "packer/ptz_globals.h"
#include "packer/ptz_numpy.h"
#include "packer/ptz_read.h"
#include "tests/unit/util.h"

#define BYTES(s) s, sizeof(s) - 1

/* ---- .npy ---- */

/* A header of version 1 in front of n zeros. */
static size_t npy(uint8_t *out, const char *header, size_t n)
{
    size_t len = strlen(header);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (uint8_t)len;
    out[9] = (uint8_t)(len >> 8);
    memcpy(out + 10, header, len);
    memset(out + 10 + len, 0, n);
    return 10 + len + n;
}

#define KEYS(descr, fortran, shape)                                                                \
    "{'descr': '" descr "', 'fortran_order': " fortran ", 'shape': " shape ", }   \n"

static const struct {
    const char *name, *header;
    size_t n;
    const char *part; /* of the error; NULL: read */
    enum st_dtype dtype;
    size_t ndim, shape[3];
    bool fortran;
} files[] = {
    {"matrix", KEYS("<f4", "False", "(2, 3)"), 24, NULL, ST_F32, 2, {2, 3}, false},
    {"column-major", KEYS("|i1", "True", "(2, 3)"), 6, NULL, ST_I8, 2, {2, 3}, true},
    {"vector", KEYS("<f2", "False", "(5,)"), 10, NULL, ST_F16, 1, {5}, false},
    {"scalar", KEYS("<f8", "False", "()"), 8, NULL, ST_F64, 0, {0}, false},
    {"empty", KEYS("|u1", "False", "(0, 7)"), 0, NULL, ST_U8, 2, {0, 7}, false},
    {"flags", KEYS("|b1", "False", "(1, 1, 3)"), 3, NULL, ST_BOOL, 3, {1, 1, 3}, false},
    {"native order", KEYS("=i8", "False", "(1,)"), 8, NULL, ST_I64, 1, {1}, false},
    {"Python 2", KEYS("<i4", "False", "(2L, 1L)"), 8, NULL, ST_I32, 2, {2, 1}, false},
    {"another order of keys",
     "{\"shape\": (1,), \"fortran_order\": False, \"descr\": \"<i2\"}",
     2,
     NULL,
     ST_I16,
     1,
     {1},
     false},
    {"big-endian", KEYS(">f4", "False", "(1,)"), 4, "big-endian", 0, 0, {0}, false},
    {"big-endian bytes", KEYS(">i1", "False", "(1,)"), 1, NULL, ST_I8, 1, {1}, false},
    {"objects", KEYS("|O", "False", "(1,)"), 8, "NumPy type O", 0, 0, {0}, false},
    {"text", KEYS("<U3", "False", "(1,)"), 12, "NumPy type U3", 0, 0, {0}, false},
    {"a byte short", KEYS("<f4", "False", "(2,)"), 7, "7 bytes", 0, 0, {0}, false},
    {"a byte more", KEYS("<f4", "False", "(2,)"), 9, "9 bytes", 0, 0, {0}, false},
    {"more than can be counted",
     KEYS("<f8", "False", "(999999999999999999, 99999)"),
     8,
     "8 bytes",
     0,
     0,
     {0},
     false},
    {"overflow to nothing",
     KEYS("<f8", "False", "(2305843009213693952,)"),
     0,
     "header",
     0,
     0,
     {0},
     false},
    {"negative", KEYS("<f4", "False", "(-1,)"), 4, "header", 0, 0, {0}, false},
    {"nine axes", KEYS("|u1", "False", "(1,1,1,1,1,1,1,1,1)"), 1, "header", 0, 0, {0}, false},
    {"no comma", KEYS("|u1", "False", "(1 1)"), 1, "header", 0, 0, {0}, false},
    {"no end",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"a key missing", "{'descr': '<f4', 'shape': (1,)}", 4, "header", 0, 0, {0}, false},
    {"a key twice",
     "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"a strange key",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"fields",
     "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"a call",
     "{'descr': '<f4', 'fortran_order': exit(), 'shape': (1,)}",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"behind it",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
     4,
     "header",
     0,
     0,
     {0},
     false},
    {"a long type",
     KEYS("<f4444444444444444444444444444444", "False", "(1,)"),
     4,
     "header",
     0,
     0,
     {0},
     false},
};

static void reads_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(files); i++) {
        uint8_t data[256];
        size_t n = npy(data, files[i].header, files[i].n);
        struct guarded g = guarded_new(data, n);
        struct ptz_array a;
        struct err e = {0};
        enum err_code want = files[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(files[i].name, want, files[i].part, ptz_npy_parse(&a, g.p, n, "file", "x", &e), e);
        if (!files[i].part && (a.dtype != files[i].dtype || a.ndim != files[i].ndim ||
                               a.fortran != files[i].fortran || a.data != g.p + n - files[i].n ||
                               memcmp(a.shape, files[i].shape, a.ndim * sizeof *a.shape)))
            fail_msg("%s: read as something else", files[i].name);
        guarded_free(&g);
    }
}

/* Cut anywhere, or with a length that lies, it is refused and nothing is read behind it. */
static void damaged_files(void **state)
{
    uint8_t data[256];
    size_t n = npy(data, files[0].header, 24);
    (void)state;
    for (size_t cut = 0; cut < n; cut++) {
        struct guarded g = guarded_new(data, cut);
        struct ptz_array a;
        struct err e = {0};
        EXPECT("cut", ERR_INPUT, "x", ptz_npy_parse(&a, g.p, cut, "file", "x", &e), e);
        guarded_free(&g);
    }
    for (unsigned major = 0; major < 256; major++) {
        struct guarded g = guarded_new(data, n);
        struct ptz_array a;
        struct err e = {0};
        g.p[6] = (uint8_t)major;
        enum err_code rc = ptz_npy_parse(&a, g.p, n, "file", "x", &e);
        assert_int_equal(rc, major == 1 ? ERR_OK : ERR_INPUT);
        guarded_free(&g);
    }
}

/* ---- in pickles ---- */

static const struct {
    const char *name, *data;
    size_t n;
    const char *part; /* of the error; NULL: the matrix 0 to 5, two rows */
} pickles[] = {
    {"protocol 2",
     BYTES("\x80\x02"
           "cnumpy._core.multiarray\n_reconstruct\nq\x00"
           "cnumpy\nndarray\nq"
           "\x01K\x00\x85q\x02"
           "c_codecs\nencode\nq\x03X\x01\x00\x00\x00"
           "bq\x04X\x06"
           "\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02K\x03\x86q\n"
           "cnumpy\ndtype\nq\x0bX\x02\x00\x00\x00i1q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X"
           "\x01\x00\x00\x00|q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10"
           "b"
           "\x89h\x03X\x06\x00\x00\x00\x00\x01\x02\x03\x04\x05q\x11h\x05\x86q\x12Rq\x13t"
           "q\x14"
           "b."),
     NULL},
    {"protocol 4",
     BYTES("\x80\x04\x95\x91\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray"
           "\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93"
           "\x94K\x00\x85\x94"
           "C\x01"
           "b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x03"
           "\x8c\x05"
           "dtype\x94\x93\x94\x8c\x02i1\x94\x89\x88\x87\x94R\x94(K\x03\x8c"
           "\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94"
           "b\x89"
           "C\x06\x00"
           "\x01\x02\x03\x04\x05\x94t\x94"
           "b."),
     NULL},
    {"protocol 5",
     BYTES("\x80\x05\x95|\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\x94\x8c"
           "\x0b_frombuffer\x94\x93\x94(\x96\x06\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02"
           "\x03\x04\x05\x94\x8c\x05numpy\x94\x8c\x05"
           "dtype\x94\x93\x94\x8c\x02i1\x94"
           "\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
           "\xffK\x00t\x94"
           "bK\x02K\x03\x86\x94\x8c\x01"
           "C\x94t\x94R\x94."),
     NULL},
    {"column-major, protocol 2",
     BYTES("\x80\x02"
           "cnumpy._core.multiarray\n_reconstruct\nq\x00"
           "cnumpy\nndarray\nq"
           "\x01K\x00\x85q\x02"
           "c_codecs\nencode\nq\x03X\x01\x00\x00\x00"
           "bq\x04X\x06"
           "\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02K\x03\x86q\n"
           "cnumpy\ndtype\nq\x0bX\x02\x00\x00\x00i1q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X"
           "\x01\x00\x00\x00|q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10"
           "b"
           "\x88h\x03X\x06\x00\x00\x00\x00\x03\x01\x04\x02\x05q\x11h\x05\x86q\x12Rq\x13t"
           "q\x14"
           "b."),
     NULL},
    {"column-major, protocol 5",
     BYTES("\x80\x05\x95|\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\x94\x8c"
           "\x0b_frombuffer\x94\x93\x94(\x96\x06\x00\x00\x00\x00\x00\x00\x00\x00\x03\x01"
           "\x04\x02\x05\x94\x8c\x05numpy\x94\x8c\x05"
           "dtype\x94\x93\x94\x8c\x02i1\x94"
           "\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
           "\xffK\x00t\x94"
           "bK\x02K\x03\x86\x94\x8c\x01"
           "F\x94t\x94R\x94."),
     NULL},
    {"big-endian",
     BYTES("\x80\x04\x95\x8d\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray"
           "\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93"
           "\x94K\x00\x85\x94"
           "C\x01"
           "b\x94\x87\x94R\x94(K\x01K\x01\x85\x94h\x03\x8c"
           "\x05"
           "dtype\x94\x93\x94\x8c\x02"
           "f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01"
           ">\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94"
           "b\x89"
           "C\x04\x3f\xc0"
           "\x00\x00\x94t\x94"
           "b."),
     "big-endian"},
    {"objects",
     BYTES("\x80\x04\x95\x8a\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray"
           "\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93"
           "\x94K\x00\x85\x94"
           "C\x01"
           "b\x94\x87\x94R\x94(K\x01K\x01\x85\x94h\x03\x8c"
           "\x05"
           "dtype\x94\x93\x94\x8c\x02O8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|"
           "\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft\x94"
           "b\x89]\x94Nat\x94"
           "b."),
     "NumPy type O8"},
    {"text",
     BYTES("\x80\x05\x95r\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\x94\x8c"
           "\x0b_frombuffer\x94\x93\x94(\x96\x04\x00\x00\x00\x00\x00\x00\x00"
           "a\x00\x00"
           "\x00\x94\x8c\x05numpy\x94\x8c\x05"
           "dtype\x94\x93\x94\x8c\x02U1\x94\x89\x88"
           "\x87\x94R\x94(K\x03\x8c\x01<\x94NNNK\x04K\x04K\x08t\x94"
           "bK\x01\x85\x94\x8c"
           "\x01"
           "C\x94t\x94R\x94."),
     "NumPy type U1"},
    {"no state",
     BYTES("\x80\x02"
           "cnumpy.core.multiarray\n_reconstruct\n)R."),
     "without its state"},
    {"no arguments",
     BYTES("\x80\x02"
           "cnumpy.core.numeric\n_frombuffer\n)R."),
     "without an order"},
    {"the type alone",
     BYTES("\x80\x02"
           "cnumpy\ndtype\n(X\x02\x00\x00\x00i1tR."),
     "is no tensor"},
    {"a number", BYTES("\x80\x02K\x01."), "is no tensor"},
};

static void reads_pickles(void **state)
{
    static const int8_t want[] = {0, 1, 2, 3, 4, 5};
    (void)state;
    for (size_t i = 0; i < COUNT(pickles); i++) {
        struct guarded g = guarded_new(pickles[i].data, pickles[i].n);
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        EXPECT(pickles[i].name, ERR_OK, "", ptz_parse(&p, g.p, pickles[i].n, 4096, "file", &e), e);
        enum err_code rc = pickles[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(pickles[i].name, rc, pickles[i].part, ptz_tensor(&p, p.root, "x", &t, &e), e);
        if (!pickles[i].part && (t.ndim != 2 || t.shape[0] != 2 || t.shape[1] != 3 ||
                                 t.dtype != ST_I8 || memcmp(t.data, want, 6)))
            fail_msg("%s: read as something else", pickles[i].name);
        ptz_close(&p);
        guarded_free(&g);
    }
}

static void reads_scalar(void **state)
{
    static const char data[] = "\x80\x04\x95"
                               "f\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray"
                               "\x94\x8c\x06scalar\x94\x93\x94\x8c\x05numpy\x94\x8c\x05"
                               "dtype\x94\x93\x94"
                               "\x8c\x02"
                               "f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff"
                               "\xffJ\xff\xff\xff\xffK\x00t\x94"
                               "bC\x04\x00\x00\xc0\x3f\x94\x86\x94R\x94.";
    struct ptz p;
    struct tensor_view t;
    struct err e = {0};
    float f;
    (void)state;
    EXPECT("scalar", ERR_OK, "", ptz_parse(&p, data, sizeof data - 1, 4096, "file", &e), e);
    EXPECT("scalar", ERR_OK, "", ptz_tensor(&p, p.root, "x", &t, &e), e);
    assert_int_equal(t.ndim, 0);
    memcpy(&f, t.data, sizeof f);
    assert_true(t.dtype == ST_F32 && f == 1.5f);
    ptz_close(&p);
}

/* Every byte changed to every power of two: refused, or still within the input. */
static void damaged_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < 5; i++)
        for (size_t at = 0; at < 8 * pickles[i].n; at++) {
            struct guarded g = guarded_new(pickles[i].data, pickles[i].n);
            struct ptz p;
            struct tensor_view t;
            struct err e = {0};
            g.p[at / 8] ^= (uint8_t)(1 << at % 8);
            enum err_code rc = ptz_parse(&p, g.p, pickles[i].n, 4096, "file", &e);
            if (!rc)
                rc = ptz_tensor(&p, p.root, "x", &t, &e);
            if (rc && rc != ERR_INPUT)
                fail_msg("%s, bit %zu: status %d", pickles[i].name, at, (int)rc);
            if (!rc && t.nbytes > pickles[i].n)
                fail_msg("%s, bit %zu: %zu bytes", pickles[i].name, at, t.nbytes);
            ptz_close(&p);
            guarded_free(&g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_files),     cmocka_unit_test(damaged_files),
        cmocka_unit_test(reads_pickles),   cmocka_unit_test(reads_scalar),
        cmocka_unit_test(damaged_pickles),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
