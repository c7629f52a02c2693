/*
 * unwrap_binary_test - guards against a script that is no text and is passed over: a zip archive
 * that Python runs while an auditor reads the text in front of it, compiled code, and archives that
 * are damaged or unpack to more than memory holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "tests/unit/tiny_zip.h"
#include "verify/unwrap.h"

static const char program[] = "import os, sys\ndef main():\n    x = 1\n    return x\n"
                              "if __name__ == '__main__':\n    main()\n";

struct buf {
    uint8_t *p;
    size_t n;
};

static void put(struct buf *b, const void *p, size_t n)
{
    b->p = realloc(b->p, b->n + n + 1);
    if (!b->p)
        abort();
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void word(struct buf *b, uint32_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        uint8_t c = (uint8_t)(v >> 8 * i);
        put(b, &c, 1);
    }
}

struct entry {
    const char *name;
    const void *data;
    size_t n;
    uint32_t lie; /* the size that the directory tells, 0: the true one */
    uint16_t flags;
};

/* An archive of deflated entries; `extra` is added to all offsets, as for text in front. */
static struct buf zip_of(const struct entry *e, size_t count, uint32_t extra)
{
    struct buf b = {0}, dir = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)b.n + extra, n = (uint32_t)e[i].n;
        uint32_t crc = (uint32_t)crc32(0, e[i].data, n);
        struct buf packed = {malloc(n + n / 100 + 64), 0};
        z_stream z = {.next_in = (Bytef *)(uintptr_t)e[i].data, .avail_in = n};
        z.next_out = packed.p;
        z.avail_out = n + n / 100 + 64;
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        packed.n = z.total_out;
        deflateEnd(&z);
        for (int central = 0; central < 2; central++) {
            struct buf *to = central ? &dir : &b;
            put(to, central ? "PK\1\2\24\0\24\0" : "PK\3\4\24\0", central ? 8 : 6);
            word(to, e[i].flags, 2);
            word(to, 8, 2);
            word(to, 0, 4);
            word(to, crc, 4);
            word(to, (uint32_t)packed.n, 4);
            word(to, e[i].lie ? e[i].lie : n, 4);
            word(to, (uint32_t)strlen(e[i].name), 2);
            word(to, 0, central ? 4 : 2);
            if (central) {
                word(to, 0, 4);
                word(to, 0, 4);
                word(to, at, 4);
            }
            put(to, e[i].name, strlen(e[i].name));
        }
        put(&b, packed.p, packed.n);
        free(packed.p);
    }
    uint32_t at = (uint32_t)b.n + extra;
    put(&b, dir.p, dir.n);
    put(&b, "PK\5\6\0\0\0\0", 8);
    word(&b, (uint32_t)count, 2);
    word(&b, (uint32_t)count, 2);
    word(&b, (uint32_t)dir.n, 4);
    word(&b, at, 4);
    word(&b, 0, 2);
    free(dir.p);
    return b;
}

static bool noted(const struct unwrap *u, const char *text)
{
    for (size_t i = 0; i < u->notes; i++)
        if (strstr(u->note[i].text, text))
            return true;
    return false;
}

static void archives(void **state)
{
    static const struct entry good[] = {{"__main__.py", "import train\n", 13, 0, 0},
                                        {"train.py", program, sizeof program - 1, 0, 0},
                                        {"data.bin", "\0\1", 2, 0, 0}};
    static const struct entry big = {"__main__.py", program, sizeof program - 1, 20 << 20, 0};
    static const struct entry lying = {"__main__.py", program, sizeof program - 1, 50, 0};
    static const struct entry locked = {"__main__.py", program, sizeof program - 1, 0, 1};
    static const struct entry module[] = {{"m.py", program, sizeof program - 1, 0, 0}};
    static const struct {
        const char *name, *front;
        bool adjusted; /* offsets count the front, as zipapp writes them */
        const struct entry *e;
        size_t count;
        const char *family, *note;
    } cases[] = {
        {"plain", "", false, good, 3, "zip:train.py", NULL},
        {"shebang, adjusted", "#!/usr/bin/env python3\n", true, good, 3, "zip:train.py", NULL},
        {"shebang, as cat makes it", "#!/usr/bin/env python3\n", false, good, 3, "zip:train.py",
         NULL},
        {"behind an honest script", program, false, good, 3, "zip:train.py", "in front"},
        {"behind one, adjusted", program, true, good, 3, "zip:train.py", "in front"},
        {"modules only", "", false, module, 1, "none", NULL},
        {"modules behind a script", program, false, module, 1, "none", NULL},
        {"a bomb", "", false, &big, 1, "none", "too large"},
        {"a lying size", "", false, &lying, 1, "none", "damaged"},
        {"encrypted", "", false, &locked, 1, "none", "damaged or encrypted"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct unwrap u;
        struct err e = {0};
        char family[128];
        size_t front = strlen(cases[i].front);
        struct buf file = {0},
                   z = zip_of(cases[i].e, cases[i].count, cases[i].adjusted ? (uint32_t)front : 0);
        put(&file, cases[i].front, front);
        put(&file, z.p, z.n);
        assert_int_equal(unwrap(&u, file.p, file.n, "x.py", &e), ERR_OK);
        unwrap_family(&u, family, sizeof family);
        if (strcmp(family, cases[i].family) || (cases[i].note && !noted(&u, cases[i].note)))
            fail_msg("%s: %s, %zu notes, first %s", cases[i].name, family, u.notes,
                     u.notes ? u.note[0].text : "-");
        if (u.main && u.part[u.main].python)
            assert_memory_equal(u.part[u.main].text, program, sizeof program - 1);
        unwrap_free(&u);
        free(z.p);
        free(file.p);
    }
}

/* Many entries of the same bytes are one part, and cost as much as they unpack to. */
static void many_alike(void **state)
{
    enum { SIZE = 12 << 20, COUNT = 40 };
    struct entry e[COUNT];
    char name[COUNT][16], *zeros = calloc(1, SIZE);
    struct unwrap u;
    struct err err = {0};
    (void)state;
    assert_non_null(zeros);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name[i], sizeof name[i], "m%d.py", i);
        e[i] = (struct entry){name[i], zeros, i ? 64 : SIZE, 0, 0};
        if (i && i < 12)
            e[i].n = SIZE;
    }
    struct buf z = zip_of(e, COUNT, 0);
    assert_int_equal(unwrap(&u, z.p, z.n, "x.py", &err), ERR_OK);
    assert_true(u.bomb);
    assert_true(u.total <= UNWRAP_TOTAL);
    unwrap_free(&u);
    free(z.p);
    free(zeros);
}

static void compiled_code(void **state)
{
    uint8_t pyc[TINY_PYC];
    struct buf script = {0}, bad = {0};
    struct unwrap u;
    struct err e = {0};
    char family[128], hex[8];
    (void)state;
    tiny_pyc(pyc);
    assert_int_equal(unwrap(&u, pyc, sizeof pyc, "x.pyc", &e), ERR_OK);
    assert_string_equal(unwrap_family(&u, family, sizeof family), "pyc");
    assert_true(u.part[u.main].listing && !u.part[u.main].python);
    assert_non_null(strstr((const char *)u.part[u.main].text, "constant 'mark'"));
    assert_true(noted(&u, "Python 3.11"));
    unwrap_free(&u);

    /* In a wrapper: the same, behind a name that the module got in its import. */
    put(&script, "from marshal import loads as l\nexec(l(b'", 40);
    for (size_t i = 0; i < TINY_CODE; i++) {
        snprintf(hex, sizeof hex, "\\x%02x", tiny_code[i]);
        put(&script, hex, 4);
    }
    put(&bad, script.p, script.n);
    put(&script, "'))\n", 4);
    assert_int_equal(unwrap(&u, script.p, script.n, "x.py", &e), ERR_OK);
    assert_string_equal(unwrap_family(&u, family, sizeof family), "literal > marshal");
    assert_non_null(strstr((const char *)u.part[u.main].text, "constant 'mark'"));
    unwrap_free(&u);

    /* Cut off: the script stays what it is, and the note says what it could not read. */
    bad.n -= 40;
    put(&bad, "'))\n", 4);
    assert_int_equal(unwrap(&u, bad.p, bad.n, "x.py", &e), ERR_OK);
    assert_true(noted(&u, "not read: cut off"));
    unwrap_free(&u);
    free(script.p);
    free(bad.p);
}

/* Every cut and every changed byte of an archive: no error but what a script may be. */
static void damage(void **state)
{
    static const struct entry e[] = {{"__main__.py", program, sizeof program - 1, 0, 0},
                                     {"__main__.pyc", tiny_code, TINY_CODE, 0, 0}};
    struct buf z = zip_of(e, 2, 0);
    (void)state;
    for (size_t i = 0; i < z.n; i++) {
        struct unwrap u;
        struct err err = {0};
        assert_int_equal(unwrap(&u, z.p, i, "x", &err), ERR_OK);
        unwrap_free(&u);
        z.p[i] ^= 0x55;
        assert_int_equal(unwrap(&u, z.p, z.n, "x", &err), ERR_OK);
        unwrap_free(&u);
        z.p[i] ^= 0x55;
    }
    free(z.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archives),
        cmocka_unit_test(many_alike),
        cmocka_unit_test(compiled_code),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
