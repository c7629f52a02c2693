/*
 * pymarshal_test - guards against compiled code whose names and constants an auditor does not see,
 * against a version whose layout is taken for another's, and against streams that read out of
 * bounds, go in circles or never end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/pymarshal.h"

/* ---- writing marshal data ---- */

struct out {
    uint8_t p[8192];
    size_t n;
};

static void raw(struct out *o, const void *p, size_t n)
{
    assert_true(n <= sizeof o->p - o->n);
    memcpy(o->p + o->n, p, n);
    o->n += n;
}

static void byte(struct out *o, int c)
{
    uint8_t b = (uint8_t)c;
    raw(o, &b, 1);
}

static void word(struct out *o, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        byte(o, (int)(v >> 8 * i & 255));
}

static void text(struct out *o, const char *s)
{
    byte(o, 'z');
    byte(o, (int)strlen(s));
    raw(o, s, strlen(s));
}

static void bytes(struct out *o, const void *p, size_t n)
{
    byte(o, 's');
    word(o, (uint32_t)n);
    raw(o, p, n);
}

static void tuple(struct out *o, int n)
{
    byte(o, ')');
    byte(o, n);
}

enum version { V37, V38, V311 };

/* A code object up to its constants, whose number follows. */
static void code_begin(struct out *o, enum version v, int consts)
{
    byte(o, 'c' | 0x80);
    for (int i = 0; i < (v == V38 ? 6 : 5); i++)
        word(o, 0);
    bytes(o, "d\0S\0", 4);
    tuple(o, consts);
}

static void code_end(struct out *o, enum version v, const char *name, uint32_t line)
{
    tuple(o, 2);
    text(o, "exec");
    byte(o, 'r'); /* the first numbered name, written by the test */
    word(o, 0);
    tuple(o, 0);
    if (v == V311) {
        bytes(o, "", 0);
        text(o, "x.py");
        text(o, name);
        text(o, name);
    } else {
        tuple(o, 0);
        tuple(o, 0);
        text(o, "x.py");
        text(o, name);
    }
    word(o, line);
    bytes(o, "", 0);
    if (v == V311)
        bytes(o, "", 0);
}

/* (name, code) with a function inside and constants of every kind. */
static void sample(struct out *o, enum version v)
{
    *o = (struct out){.n = 0};
    tuple(o, 2);
    byte(o, 'Z' | 0x80); /* number 0 */
    byte(o, 6);
    raw(o, "marshl", 6);
    code_begin(o, v, 13);
    byte(o, 'N');
    byte(o, 'i');
    word(o, 0xFFFFFFFE);
    byte(o, 'l'); /* -(2^15 + 3) */
    word(o, 0xFFFFFFFE);
    raw(o, "\3\0\1\0", 4);
    byte(o, 'g');
    raw(o, "\0\0\0\0\0\0\xf8\x3f", 8); /* 1.5 */
    byte(o, 'y');
    raw(o, "0123456789abcdef", 16);
    text(o, "it's\n\xC3\xA9");
    bytes(o, "\x78\x9c", 2);
    byte(o, '>');
    word(o, 1);
    byte(o, 'T');
    byte(o, '{');
    text(o, "k");
    byte(o, '.');
    byte(o, '0');
    byte(o, 'f');
    byte(o, 3);
    raw(o, "2.5", 3);
    byte(o, ':'); /* slice(1, None, None) */
    byte(o, 'i');
    word(o, 1);
    raw(o, "NN", 2);
    byte(o, 'l');
    word(o, 6);
    raw(o, "\1\0\1\0\1\0\1\0\1\0\1\0", 12);
    code_begin(o, v, 1);
    text(o, "inner");
    code_end(o, v, "f", 7);
    code_end(o, v, "<module>", 1);
}

static void listings(void **state)
{
    static const char want[] = "constant ('marshl', code)\n"
                               "code '<module>' of 'x.py', line 1, 4 bytes of bytecode\n"
                               "  names exec marshl\n"
                               "  constant -2\n"
                               "  constant -0x8003\n"
                               "  constant 1.5\n"
                               "  constant a complex number\n"
                               "  constant 'it\\x27s\\n\xC3\xA9'\n"
                               "  constant b'x\\x9c'\n"
                               "  constant (True)\n"
                               "  constant ('k', ...)\n"
                               "  constant '2.5'\n"
                               "  constant (1, None, None)\n"
                               "  constant 0x... (a number of 90 bits)\n"
                               "  code 'f' of 'x.py', line 7, 4 bytes of bytecode\n"
                               "    names exec marshl\n"
                               "    constant 'inner'\n";
    static const char *const version[] = {"Python 3.7 or older", "Python 3.8 to 3.10",
                                          "Python 3.11 or newer"};
    (void)state;
    for (int v = V37; v <= V311; v++) {
        struct out o;
        struct pymarshal m;
        struct err e = {0};
        sample(&o, (enum version)v);
        if (pymarshal_read(&m, o.p, o.n, &e))
            fail_msg("%s: %s", version[v], m.why);
        if (strcmp(m.listing, want) || strcmp(m.version, version[v]))
            fail_msg("%s taken for %s:\n%s", version[v], m.version, m.listing);
        assert_int_equal(m.codes, 2);
        assert_int_equal(m.n, strlen(want));
        pymarshal_free(&m);
    }
}

/* What may hold another script is handed on, once, wherever it lies. */
static void large_constants(void **state)
{
    char big[300];
    struct out o = {.n = 0};
    struct pymarshal m;
    struct err e = {0};
    (void)state;
    memset(big, 'a', sizeof big);
    tuple(&o, 3);
    byte(&o, 's' | 0x80);
    word(&o, sizeof big);
    raw(&o, big, sizeof big);
    tuple(&o, 1);
    byte(&o, 'u');
    word(&o, MARSHAL_LARGE);
    raw(&o, big, MARSHAL_LARGE);
    byte(&o, 'r');
    word(&o, 0);
    assert_int_equal(pymarshal_read(&m, o.p, o.n, &e), ERR_OK);
    assert_int_equal(m.blobs, 2);
    assert_int_equal(m.blob[0].n, sizeof big);
    assert_false(m.blob[0].text);
    assert_true(m.blob[1].text && m.blob[1].n == MARSHAL_LARGE);
    pymarshal_free(&m);
}

static void damaged(void **state)
{
    static const struct {
        const char *name, *p;
        size_t n;
        const char *why;
    } cases[] = {
        {"nothing", "", 0, "cut off"},
        {"a text", "import os\n", 10, "single value"},
        {"no type", "\x7f", 1, "a type that marshal does not have"},
        {"a number", "i\1\0\0\0", 5, "single value"},
        {"lying length", "s\xff\xff\xff\x7f", 5, "cut off"},
        {"lying count", "(\xff\xff\xff\x7fN", 6, "cut off"},
        {"most negative length", "l\0\0\0\x80", 5, "cut off"},
        {"reference to nothing", "r\0\0\0\0", 5, "reference"},
        {"reference to itself", "\xf2\0\0\0\0", 5, "reference"},
        {"an end without a beginning",
         ")\1"
         "0",
         3, "ends too early"},
        {"no code", "c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0NNNNNNNN", 29, "cut off"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pymarshal m;
        struct err e = {0};
        if (pymarshal_read(&m, cases[i].p, cases[i].n, &e) != ERR_INPUT ||
            !strstr(m.why, cases[i].why))
            fail_msg("%s: %s", cases[i].name, m.why);
        pymarshal_free(&m);
    }
}

/* A list that holds itself, and one in another that refers back: listed, and it ends. */
static void circles(void **state)
{
    static const char *const cases[] = {"\xa9\1r\0\0\0\0", "\xa9\2\xa9\1r\0\0\0\0r\1\0\0\0"};
    static const size_t n[] = {7, 14};
    struct out o = {.n = 0};
    struct pymarshal m;
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pymarshal_read(&m, cases[i], n[i], &e), ERR_OK);
        pymarshal_free(&m);
    }
    /* Constants of the code are the list that holds the code. */
    byte(&o, ')' | 0x80);
    byte(&o, 1);
    byte(&o, 'c');
    for (int i = 0; i < 5; i++)
        word(&o, 0);
    bytes(&o, "d\0", 2);
    byte(&o, 'r');
    word(&o, 0);
    tuple(&o, 0);
    tuple(&o, 0);
    bytes(&o, "", 0);
    for (int i = 0; i < 3; i++)
        text(&o, "f");
    word(&o, 1);
    bytes(&o, "", 0);
    bytes(&o, "", 0);
    assert_int_equal(pymarshal_read(&m, o.p, o.n, &e), ERR_OK);
    assert_int_equal(m.codes, 1);
    assert_non_null(strstr(m.listing, "constants of another code object"));
    pymarshal_free(&m);
}

static void bounds(void **state)
{
    static const size_t many = MARSHAL_NODES + 8;
    uint8_t *p = malloc(many + 5);
    struct pymarshal m;
    struct err e = {0};
    (void)state;
    assert_non_null(p);
    memset(p, ')', many); /* nested: count 41 each, the first level is deep enough */
    assert_int_equal(pymarshal_read(&m, p, 4096, &e), ERR_INPUT);
    assert_non_null(strstr(m.why, "too deep"));
    memcpy(p, "(", 1);
    for (int i = 0; i < 4; i++)
        p[1 + i] = (uint8_t)(many >> 8 * i);
    memset(p + 5, 'N', many);
    assert_int_equal(pymarshal_read(&m, p, many + 5, &e), ERR_INPUT);
    assert_non_null(strstr(m.why, "more objects"));
    /* A listing that would be longer than its bound says so and ends. */
    for (size_t i = 0; i + 8 < many; i++)
        p[5 + i] = 'F';
    for (int i = 0; i < 4; i++)
        p[1 + i] = (uint8_t)((many - 16) >> 8 * i);
    assert_int_equal(pymarshal_read(&m, p, many + 5, &e), ERR_OK);
    assert_true(m.n < MARSHAL_LISTING + 2048);
    assert_non_null(strstr(m.listing, "... and more"));
    pymarshal_free(&m);
    free(p);
}

/* Cut anywhere, and any byte changed: an error or a listing, never more. */
static void every_byte(void **state)
{
    struct out o;
    struct pymarshal m;
    (void)state;
    sample(&o, V311);
    for (size_t n = 0; n < o.n; n++) {
        struct err e = {0};
        uint8_t *cut = malloc(n ? n : 1); /* exactly as long as it says, for the sanitizer */
        memcpy(cut, o.p, n);
        assert_int_equal(pymarshal_read(&m, cut, n, &e), ERR_INPUT);
        pymarshal_free(&m);
        free(cut);
    }
    for (size_t i = 0; i < o.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            struct err e = {0};
            o.p[i] ^= (uint8_t)(1 << bit);
            enum err_code rc = pymarshal_read(&m, o.p, o.n, &e);
            assert_true(rc == ERR_OK || rc == ERR_INPUT);
            pymarshal_free(&m);
            o.p[i] ^= (uint8_t)(1 << bit);
        }
}

static void headers(void **state)
{
    uint8_t pyc[MARSHAL_HEADER + 1] = {0xa7, 0x0d, '\r', '\n'}; /* 3495: Python 3.11 */
    (void)state;
    assert_true(pymarshal_pyc(pyc, sizeof pyc));
    assert_false(pymarshal_pyc(pyc, MARSHAL_HEADER));
    pyc[4] = 4; /* no such flag */
    assert_false(pymarshal_pyc(pyc, sizeof pyc));
    assert_false(pymarshal_pyc("import os\r\nimport sys\r\n", 23));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listings), cmocka_unit_test(large_constants), cmocka_unit_test(damaged),
        cmocka_unit_test(circles),  cmocka_unit_test(bounds),          cmocka_unit_test(every_byte),
        cmocka_unit_test(headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
