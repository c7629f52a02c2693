/*
 * needs_test - guards against a runner that leaves code outside of the count and is called
 * self-contained, and against headers that lead outside of the program.
 */
#include "tests/unit/tiny_elf.h"
#include "tests/unit/util.h"
#include "verify/needs.h"

enum { PHDRS = 3, AT_DYN = 64 + 56 * PHDRS, AT_STR = AT_DYN + 16 * 4, SIZE = AT_STR + 64 };

/* A program that asks for an interpreter and two libraries. */
static void dynamic_program(uint8_t p[SIZE])
{
    memset(p, 0, SIZE);
    tiny_headers(p, SIZE);
    p[56] = PHDRS;
    uint8_t *interp = p + 64 + 56, *dyn = interp + 56;
    put_le32(interp, 3);
    put_le64(interp + 8, AT_STR + 1);
    put_le64(interp + 32, 8);
    put_le32(dyn, 2);
    put_le64(dyn + 8, AT_DYN);
    put_le64(dyn + 32, 16 * 4);
    static const uint64_t entries[4][2] = {
        {1, 9}, {5, TINY_BASE + AT_STR}, {1, 19}, {0, 0}}; /* NEEDED, STRTAB, NEEDED, NULL */
    for (size_t i = 0; i < 4; i++) {
        put_le64(p + AT_DYN + 16 * i, entries[i][0]);
        put_le64(p + AT_DYN + 16 * i + 8, entries[i][1]);
    }
    memcpy(p + AT_STR, "\0/lib/ld\0libc.so.6\0lib\x1b.so", 27);
}

static enum err_code list(struct needs *out, const uint8_t *p, size_t n, struct err *e)
{
    struct guarded g = guarded_new(p, n);
    enum err_code rc = needs_list(out, g.p, n, "x: runner", e);
    guarded_free(&g);
    return rc;
}

static void names(void **state)
{
    uint8_t p[SIZE], s[TINY_RUNNER];
    struct needs out;
    struct err e = {0};
    (void)state;
    dynamic_program(p);
    EXPECT("dynamic", ERR_OK, "", list(&out, p, SIZE, &e), e);
    assert_int_equal(out.count, 3);
    assert_string_equal(out.name[0], "/lib/ld");
    assert_string_equal(out.name[1], "libc.so.6");
    assert_string_equal(out.name[2], "lib?.so");
    tiny_runner(s);
    EXPECT("static", ERR_OK, "", list(&out, s, sizeof s, &e), e);
    assert_int_equal(out.count, 0);
}

static void refused(void **state)
{
    static const struct {
        const char *name;
        size_t at, bytes;
        uint64_t value;
        const char *says;
    } cases[] = {
        {"no ELF", 0, 1, 'X', "not a 64-bit ELF"},
        {"32 bits", 4, 1, 1, "not a 64-bit ELF"},
        {"big-endian", 5, 1, 2, "not a 64-bit ELF"},
        {"headers beyond", 32, 8, SIZE, "program headers"},
        {"headers far beyond", 32, 8, UINT64_MAX, "program headers"},
        {"many headers", 56, 2, 60000, "program headers"},
        {"size of a header", 54, 2, 32, "program headers"},
        {"segment beyond", 64 + 32, 8, SIZE + 1, "segment 0"},
        {"segment far beyond", 64 + 8, 8, UINT64_MAX, "segment 0"},
        {"interpreter without end", 64 + 56 + 8, 8, SIZE - 8, "interpreter does not end"},
        {"names outside", AT_DYN + 16 + 8, 8, 1, "dynamic section"},
        {"name beyond", AT_DYN + 8, 8, SIZE, "dynamic section"},
        {"name far beyond", AT_DYN + 8, 8, UINT64_MAX, "dynamic section"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t p[SIZE];
        struct needs out;
        struct err e = {0};
        dynamic_program(p);
        for (size_t k = 0; k < cases[i].bytes; k++)
            p[cases[i].at + k] = (uint8_t)(cases[i].value >> 8 * k);
        if (!strcmp(cases[i].name, "interpreter without end"))
            memset(p + SIZE - 8, 'x', 8);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says, list(&out, p, SIZE, &e), e);
    }
}

/* Every beginning, and noise over the headers: an error or a list, never a read outside. */
static void any_bytes(void **state)
{
    uint64_t seed = 5;
    uint8_t p[SIZE];
    struct needs out;
    (void)state;
    dynamic_program(p);
    for (size_t n = 0; n < SIZE; n++) {
        struct err e = {0};
        list(&out, p, n, &e);
    }
    for (size_t k = 0; k < 3000; k++) {
        struct err e = {0};
        dynamic_program(p);
        for (size_t i = 0; i < 1 + k % 5; i++)
            p[6 + util_below(&seed, AT_STR)] = (uint8_t)util_next(&seed);
        list(&out, p, SIZE, &e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(refused),
        cmocka_unit_test(any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
