/*
 * ptz_legacy_test.c - exists for a file from before torch's zip format whose storages are mixed up:
 * nothing but their order and a pickle says which bytes are whose, and how large a number is.
 */
#include "packer/ptz_read.h"
#include "tests/unit/util.h"

/* {"a": tensor([1., 3., 5.]) with a stride of 2, "b": tensor([-1, 2], dtype=int8)}, as torch 2 with
 * _use_new_zipfile_serialization=False; storages "7" (int8) and "8" (float). */
static const char file[] =
    "\x80\x02\x8a\nl\xfc\x9c"
    "F\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00("
    "X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\x0d\x00\x00\x00little_endia"
    "nq\x02\x88X\n\x00\x00\x00type_sizesq\x03}q\x04(X\x05\x00\x00\x00shortq\x05K"
    "\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\x00\x00\x00longq\x07K\x04uu.\x80\x02"
    "}q\x00(X\x01\x00\x00\x00"
    "aq\x01"
    "ctorch._utils\n_rebuild_tensor_v2\nq\x02"
    "((X\x07\x00\x00\x00storageq\x03"
    "ctorch\nFloatStorage\nq\x04X\x01\x00\x00"
    "\x00"
    "8q\x05X\x03\x00\x00\x00"
    "cpuq\x06K\x06Ntq\x07QK\x01K\x03\x85q\x08K"
    "\x02\x85q\x09\x89"
    "ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\x0dX\x01"
    "\x00\x00\x00"
    "bq\x0eh\x02((h\x03"
    "ctorch\nCharStorage\nq\x0fX\x01\x00\x00"
    "\x00"
    "7q\x10h\x06K\x02Ntq\x11QK\x00K\x02\x85q\x12K\x01\x85q\x13\x89h\n)Rq"
    "\x14tq\x15Rq\x16u.\x80\x02]q\x00(X\x01\x00\x00\x00"
    "7q\x01X\x01\x00\x00\x00"
    "8q\x02"
    "e.\x02\x00\x00\x00\x00\x00\x00\x00\xff\x02\x06\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00@\x00\x00@@\x00\x00\x80@"
    "\x00\x00\xa0@";
enum { SIZE = sizeof file - 1, STORAGES = SIZE - (8 + 2) - (8 + 24) };

static void reads(void **state)
{
    struct guarded g = guarded_new(file, SIZE);
    struct ptz p;
    struct tensor_view a, b;
    struct err e = {0};
    static const float want[] = {1, 3, 5};
    (void)state;
    EXPECT("file", ERR_OK, "", ptz_parse(&p, g.p, SIZE, 4096, "file", &e), e);
    assert_string_equal(p.kind, "torch legacy");
    EXPECT("a", ERR_OK, "", ptz_tensor(&p, pickle_get(p.root, "a"), "a", &a, &e), e);
    EXPECT("b", ERR_OK, "", ptz_tensor(&p, pickle_get(p.root, "b"), "b", &b, &e), e);
    assert_true(a.dtype == ST_F32 && a.ndim == 1 && a.shape[0] == 3);
    assert_memory_equal(a.data, want, sizeof want);
    assert_true(b.dtype == ST_I8 && b.nbytes == 2);
    assert_memory_equal(b.data, "\xff\x02", 2);
    ptz_close(&p);
    guarded_free(&g);
}

static void cut(void **state)
{
    (void)state;
    for (size_t n = 0; n < SIZE; n++) {
        struct guarded g = guarded_new(file, n);
        struct ptz p;
        struct err e = {0};
        EXPECT("cut", ERR_INPUT, "file", ptz_parse(&p, g.p, n, 4096, "file", &e), e);
        guarded_free(&g);
    }
}

static size_t find(const uint8_t *data, const char *text, size_t skip)
{
    for (size_t i = 0; i + strlen(text) <= SIZE; i++)
        if (!memcmp(data + i, text, strlen(text)) && !skip--)
            return i;
    fail_msg("no %s", text);
    return 0;
}

static void lies(void **state)
{
    static const struct {
        const char *name, *text; /* the byte `off` behind the start of text becomes `value` */
        size_t skip, off;
        uint8_t value;
        const char *part;
    } cases[] = {
        {"another version", "M\xe9\x03.", 0, 1, 0xea, "unknown version"},
        {"big-endian", "little_endianq\x02\x88", 0, 15, 0x89, "big-endian"},
        {"a size of its own", "8q\x05X\x03", 0, 0, '9',
         "storage 8 is there twice, or belongs to nothing"},
        {"a key that nobody has",
         "8q\x02"
         "e.",
         0, 0, '9', "belongs to nothing"},
        {"a key twice",
         "8q\x02"
         "e.",
         0, 0, '7', "twice"},
        {"another type", "CharStorage", 0, 0, 'X', "the global torch.XharStorage"},
        {"a type twice as large", "ctorch\nCharStorage", 0, 7, 'c', "the global torch.charStorage"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct guarded g = guarded_new(file, SIZE);
        struct ptz p;
        struct tensor_view t;
        struct err e = {0};
        g.p[find(g.p, cases[i].text, cases[i].skip) + cases[i].off] = cases[i].value;
        enum err_code rc = ptz_parse(&p, g.p, SIZE, 4096, "file", &e);
        if (!rc && (rc = ptz_tensor(&p, pickle_get(p.root, "a"), "a", &t, &e)))
            ptz_close(&p);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].part, rc, e);
        guarded_free(&g);
    }
}

/* Numbers of elements before the storages. */
static void sizes(void **state)
{
    static const struct {
        const char *name;
        uint8_t count[8];
        const char *part;
    } cases[] = {
        {"one more", {3}, "23 bytes behind"}, /* the next count is 0 then */
        {"one less", {1}, "beyond the file"},
        {"all bits", {255, 255, 255, 255, 255, 255, 255, 255}, "storage 7 reaches beyond"},
        {"the top bit", {0, 0, 0, 0, 0, 0, 0, 128}, "storage 7 reaches beyond"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct guarded g = guarded_new(file, SIZE);
        struct ptz p;
        struct err e = {0};
        memcpy(g.p + STORAGES, cases[i].count, 8);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].part, ptz_parse(&p, g.p, SIZE, 4096, "file", &e),
               e);
        guarded_free(&g);
    }
    uint8_t longer[SIZE + 1] = {0};
    struct ptz p;
    struct err e = {0};
    memcpy(longer, file, SIZE);
    EXPECT("a byte behind", ERR_INPUT, "1 bytes behind",
           ptz_parse(&p, longer, sizeof longer, 4096, "file", &e), e);
}

/* A bit anywhere: refused, or other numbers, but never outside the file. */
static void flips(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < 8 * SIZE; bit++) {
        struct guarded g = guarded_new(file, SIZE);
        struct ptz p;
        struct err e = {0};
        g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum err_code rc = ptz_parse(&p, g.p, SIZE, 4096, "file", &e);
        for (size_t i = 0; !rc && p.root->kind == PICKLE_DICT && i < p.root->n; i++) {
            struct tensor_view t;
            unsigned sum = 0;
            if (!ptz_tensor(&p, p.root->item[2 * i + 1], "x", &t, &e))
                for (size_t k = 0; k < t.nbytes; k++)
                    sum += t.data[k];
            assert_true(sum < 1u << 20);
        }
        if (rc && rc != ERR_INPUT)
            fail_msg("bit %zu: status %d", bit, (int)rc);
        ptz_close(&p);
        guarded_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads), cmocka_unit_test(cut),   cmocka_unit_test(lies),
        cmocka_unit_test(sizes), cmocka_unit_test(flips),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
