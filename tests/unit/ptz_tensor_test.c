/*
 * ptz_tensor_test.c - exists for a float8 that becomes another number, a tensor whose type is an
 * argument and not that of its storage, and an archive of arrays with names that mean two things.
 * (ptz_test.c has the tensors and archives of torch.)
 */
#include <math.h>

#include "packer/pickle_write.h"
#include "packer/ptz_read.h"
#include "packer/ptz_zip_write.h"
#include "tests/unit/util.h"
#include "tests/unit/ptz_dumped.h"

enum { LIMIT = 1 << 16 };

/* {"x": _rebuild_tensor_v3(UntypedStorage of n bytes, 0, (elems,), (1,), False, {}, dtype)} */
static void put_v3(struct pickle_out *p, size_t n, size_t elems, const char *dtype)
{
    const size_t one = 1;
    pickle_out_begin(p);
    pickle_out_dict(p, 1);
    pickle_out_shared(p, "x");
    pickle_out_global(p, "torch._utils\n_rebuild_tensor_v3\n");
    pickle_out_op(p, '(');
    pickle_out_op(p, '(');
    pickle_out_shared(p, "storage");
    pickle_out_global(p, "torch.storage\nUntypedStorage\n");
    pickle_out_str(p, "0");
    pickle_out_shared(p, "cpu");
    pickle_out_int(p, n);
    pickle_out_op(p, 't');
    pickle_out_op(p, 'Q');
    pickle_out_int(p, 0);
    pickle_out_counts(p, &elems, 1);
    pickle_out_counts(p, &one, 1);
    pickle_out_op(p, 0x89); /* NEWFALSE */
    pickle_out_op(p, '}');
    pickle_out_global(p, dtype);
    pickle_out_op(p, 't');
    pickle_out_op(p, 'R');
    pickle_out_dict_end(p, 1);
    pickle_out_end(p);
}

static struct bytes_out archive(struct pickle_out *text, const void *storage, size_t n)
{
    struct bytes_out zip = {0};
    const struct zip_entry entry[] = {{"data.pkl", text->out.data, text->out.n},
                                      {"data/0", storage, n}};
    zip_write(&zip, entry, 2);
    assert_false(zip.failed);
    free(text->out.data);
    return zip;
}

/* What the bits of a float8 stand for (OCP 8-bit floating point specification, 2023). */
static double float8(unsigned v, bool e4m3)
{
    int mbits = e4m3 ? 3 : 2, bias = e4m3 ? 7 : 15, top = (1 << (7 - mbits)) - 1;
    int exp = (int)(v & 127) >> mbits, mant = (int)v & ((1 << mbits) - 1);
    double sign = v & 128 ? -1 : 1;
    if (e4m3 ? (v & 127) == 127 : exp == top)
        return e4m3 || mant ? NAN : sign * INFINITY;
    return exp ? sign * ldexp(1 + mant / (double)(1 << mbits), exp - bias)
               : sign * ldexp(mant / (double)(1 << mbits), 1 - bias);
}

static void every_float8(void **state)
{
    (void)state;
    for (int e4m3 = 0; e4m3 < 2; e4m3++) {
        uint8_t all[256];
        struct pickle_out text;
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        for (unsigned i = 0; i < 256; i++)
            all[i] = (uint8_t)i;
        put_v3(&text, 256, 256, e4m3 ? "torch\nfloat8_e4m3fn\n" : "torch\nfloat8_e5m2\n");
        struct bytes_out zip = archive(&text, all, sizeof all);
        EXPECT("file", ERR_OK, "", ptz_parse(&p, zip.data, zip.n, LIMIT, "file", &e), e);
        EXPECT("x", ERR_OK, "", ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e), e);
        assert_true(t.dtype == ST_BF16 && t.nbytes == 512 && t.shape[0] == 256);
        for (unsigned i = 0; i < 256; i++) {
            double want = float8(i, e4m3);
            double have = (double)bf16_to_f32((uint16_t)(t.data[2 * i] | t.data[2 * i + 1] << 8));
            if (isnan(want) ? !isnan(have) : have != want || signbit(have) != signbit(want))
                fail_msg("%s, bits %02x: %g, expected %g", e4m3 ? "e4m3" : "e5m2", i, have, want);
        }
        ptz_close(&p);
        free(zip.data);
    }
}

static void types_as_arguments(void **state)
{
    static const struct {
        const char *name, *dtype;
        size_t bytes, elems;
        const char *part; /* of the error; NULL: fine */
    } cases[] = {
        {"bytes", "torch\nuint8\n", 24, 24, NULL},
        {"16 bits", "torch\nuint16\n", 24, 12, NULL},
        {"64 bits", "torch\nfloat64\n", 24, 3, NULL},
        {"one too many", "torch\nfloat64\n", 24, 4, "outside"},
        {"of the whole only", "torch\nint64\n", 24, 24, "outside"},
        {"another size", "torch\nuint8\n", 23, 23, "has 24 bytes"},
        {"no type", "collections\nOrderedDict\n", 24, 24, "its type is not understood"},
        {"a storage for a type", "torch\nHalfStorage\n", 24, 12, "its type is not understood"},
    };
    static const uint8_t bytes[24];
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pickle_out text;
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        put_v3(&text, cases[i].bytes, cases[i].elems, cases[i].dtype);
        struct bytes_out zip = archive(&text, bytes, sizeof bytes);
        EXPECT(cases[i].name, ERR_OK, "", ptz_parse(&p, zip.data, zip.n, LIMIT, "file", &e), e);
        enum err_code want = cases[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, cases[i].part,
               ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e), e);
        if (!want && (t.nbytes != 24 || t.shape[0] != cases[i].elems))
            fail_msg("%s: %zu bytes", cases[i].name, t.nbytes);
        ptz_close(&p);
        free(zip.data);
    }
}

/* Float8 takes twice its bytes, and that counts. */
static void float8_at_the_limit(void **state)
{
    static const uint8_t bytes[20000];
    struct pickle_out text;
    struct ptz p;
    struct tensor_view t;
    struct err e = {0};
    (void)state;
    put_v3(&text, sizeof bytes, sizeof bytes, "torch\nfloat8_e4m3fn\n");
    struct bytes_out zip = archive(&text, bytes, sizeof bytes);
    EXPECT("file", ERR_OK, "", ptz_parse(&p, zip.data, zip.n, 59999, "file", &e), e);
    EXPECT("x", ERR_INPUT, "more elements", ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e),
           e);
    ptz_close(&p);
    free(zip.data);
}

/* ---- tensors pickled without torch.save ---- */

static void storage_in_bytes(void **state)
{
    struct guarded g = guarded_new(ptz_dumped, sizeof ptz_dumped - 1);
    static const float want[] = {1, 2};
    struct ptz p;
    struct tensor_view t;
    struct err e = {0};
    (void)state;
    EXPECT("file", ERR_OK, "", ptz_parse(&p, g.p, sizeof ptz_dumped - 1, LIMIT, "file", &e), e);
    EXPECT("x", ERR_OK, "", ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e), e);
    assert_true(t.dtype == ST_F32 && t.nbytes == sizeof want);
    assert_memory_equal(t.data, want, sizeof want);
    ptz_close(&p);
    guarded_free(&g);
}

/* A bit anywhere in either file. */
static void storage_in_damaged_bytes(void **state)
{
    size_t n = sizeof ptz_dumped - 1;
    (void)state;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        struct guarded g = guarded_new(ptz_dumped, n);
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        unsigned sum = 0;
        g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum err_code rc = ptz_parse(&p, g.p, n, LIMIT, "file", &e);
        if (!rc && !(rc = ptz_tensor(&p, pickle_get(p.root, "x"), "x", &t, &e)))
            for (size_t i = 0; i < t.nbytes; i++)
                sum += t.data[i];
        if ((rc && rc != ERR_INPUT) || sum > 1u << 20)
            fail_msg("bit %zu: status %d", bit, (int)rc);
        ptz_close(&p);
        guarded_free(&g);
    }
}

/* ---- archives of arrays ---- */

#define NPY                                                                                        \
    "\x93NUMPY\x01\x00\x3f\x00{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }     \n"

static void archives(void **state)
{
    static const char three[] = NPY "abc", two[] = NPY "ab", pickle[] = "\x80\x02N.";
    static const struct {
        const char *name;
        struct zip_entry entry[3];
        size_t n;
        const char *part, *kind; /* of the error, from opening or from reading archive/a */
    } cases[] = {
        {"one", {{"a.npy", three, sizeof three - 1}}, 1, NULL, "npz"},
        {"two", {{"b.npy", two, 5}, {"a.npy", three, sizeof three - 1}}, 2, NULL, "npz"},
        {"short", {{"a.npy", two, sizeof two - 1}}, 1, "2 bytes are not those", "npz"},
        {"empty", {{"a.npy", "", 0}}, 1, "no .npy file", "npz"},
        {"no array", {{"a.npy", pickle, 4}}, 1, "no .npy file", "npz"},
        {"something else", {{"a.npy", three, 5}, {"run.sh", "x", 1}}, 2, "run.sh is no .npy", NULL},
        {"a name twice", {{"a.npy", three, 5}, {"a.npy", three, 5}}, 2, "there twice", NULL},
        {"a pickle beside it",
         {{"data.pkl", pickle, 4}, {"a.npy", two, 5}},
         2,
         "no tensor",
         "torch zip"},
        {"no name", {{".npy", three, sizeof three - 1}}, 1, "no tensor", "npz"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct bytes_out zip = {0};
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        zip_write(&zip, cases[i].entry, cases[i].n);
        struct guarded g = guarded_new(zip.data, zip.n);
        enum err_code rc = ptz_parse(&p, g.p, zip.n, LIMIT, "file", &e);
        if (!rc) {
            assert_string_equal(p.kind, cases[i].kind);
            rc = ptz_tensor(&p, pickle_get(p.root, "archive/a"), "a", &t, &e);
        }
        enum err_code want = cases[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, cases[i].part, rc, e);
        if (!want && (t.nbytes != 3 || memcmp(t.data, "abc", 3)))
            fail_msg("%s: read as something else", cases[i].name);
        ptz_close(&p);
        guarded_free(&g);
        free(zip.data);
    }
}

static void one_array(void **state)
{
    static const char three[] = NPY "abc";
    struct ptz p;
    struct tensor_view t;
    struct err e = {0};
    (void)state;
    EXPECT("file", ERR_OK, "", ptz_parse(&p, three, sizeof three - 1, LIMIT, "file", &e), e);
    assert_string_equal(p.kind, "npy");
    EXPECT("array", ERR_OK, "", ptz_tensor(&p, pickle_get(p.root, "array"), "a", &t, &e), e);
    assert_memory_equal(t.data, "abc", 3);
    ptz_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_float8),
        cmocka_unit_test(types_as_arguments),
        cmocka_unit_test(float8_at_the_limit),
        cmocka_unit_test(storage_in_bytes),
        cmocka_unit_test(storage_in_damaged_bytes),
        cmocka_unit_test(archives),
        cmocka_unit_test(one_array),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
