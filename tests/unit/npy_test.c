/*
 * npy_test - guards against score files that NumPy cannot open, or that are read as something else:
 * a header one byte short, a count that overflows, another dtype, a half-arrived stream.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/file.h"
#include "verify/npy.h"

static void round_trip(void **state)
{
    static const size_t counts[] = {0, 1, 7, 1000};
    (void)state;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        char path[64];
        double x[1000];
        const void *map;
        size_t n, data;
        uint64_t count;
        struct err e = {0};

        snprintf(path, sizeof path, "/tmp/npy_test.%d.npy", (int)getpid());
        for (size_t i = 0; i < counts[c]; i++)
            x[i] = 1.0 / (double)(i + 3);
        if (npy_write(path, x, counts[c], &e))
            fail_msg("count %zu: %s", counts[c], e.msg);
        assert_int_equal(file_map(path, &map, &n, &e), ERR_OK);
        assert_int_equal(n, NPY_HEADER + counts[c] * sizeof *x);
        assert_int_equal(npy_parse(map, n, &data, &count, path, &e), ERR_OK);
        assert_int_equal(data, NPY_HEADER);
        assert_int_equal(count, counts[c]);
        assert_memory_equal((const char *)map + data, x, counts[c] * sizeof *x);

        /* Every shorter beginning of the header asks for more and is no error. */
        for (size_t have = 0; have < NPY_HEADER; have++) {
            uint8_t *part = malloc(have ? have : 1); /* exact size: the sanitizer sees over-reads */
            memcpy(part, map, have);
            if (npy_parse(part, have, &data, &count, path, &e) || data != 0)
                fail_msg("count %zu, first %zu bytes: %s", counts[c], have, e.msg);
            free(part);
        }
        file_unmap(map, n);
        unlink(path);
    }
}

static void failed_write_leaves_nothing(void **state)
{
    struct err e = {0};
    double x = 1;
    (void)state;
    assert_int_not_equal(npy_write("/nonexistent/dir/x.npy", &x, 1, &e), ERR_OK);
    assert_int_not_equal(e.msg[0], 0);
}

static void headers_of_others(void **state)
{
    static const struct {
        const char *name, *dict;
        int major;
        enum err_code want;
        uint64_t count;
    } cases[] = {
        {"numpy's", "{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }", 1, ERR_OK, 5},
        {"version 2", "{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }", 2, ERR_OK, 5},
        {"version 3", "{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }", 3, ERR_INPUT, 0},
        {"order, quotes", "{\"shape\": (12,), 'fortran_order': False,'descr':'<f8'}\n", 1, ERR_OK,
         12},
        {"largest", "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615,)}", 1,
         ERR_OK, UINT64_MAX},
        {"overflow", "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616,)}",
         1, ERR_INPUT, 0},
        {"float32", "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", 1, ERR_INPUT, 0},
        {"big endian", "{'descr': '>f8', 'fortran_order': False, 'shape': (5,), }", 1, ERR_INPUT,
         0},
        {"two dims", "{'descr': '<f8', 'fortran_order': False, 'shape': (5, 2), }", 1, ERR_INPUT,
         0},
        {"scalar", "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 1, ERR_INPUT, 0},
        {"negative", "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", 1, ERR_INPUT, 0},
        {"no shape", "{'descr': '<f8', 'fortran_order': False, }", 1, ERR_INPUT, 0},
        {"shape twice", "{'shape': (5,), 'shape': (6,), 'descr': '<f8', 'fortran_order': False, }",
         1, ERR_INPUT, 0},
        {"more behind", "{'descr': '<f8', 'fortran_order': False, 'shape': (5,), } x", 1, ERR_INPUT,
         0},
        {"unclosed", "{'descr': '<f8', 'fortran_order': False, 'shape': (5,),", 1, ERR_INPUT, 0},
        {"open string", "{'descr", 1, ERR_INPUT, 0},
        {"empty", "", 1, ERR_INPUT, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].dict), field = cases[i].major == 1 ? 2 : 4, data;
        uint8_t *p = malloc(8 + field + len);
        uint64_t count;
        struct err e = {0};

        memcpy(p, "\x93NUMPY", 6);
        p[6] = (uint8_t)cases[i].major;
        p[7] = 0;
        memset(p + 8, 0, field);
        p[8] = (uint8_t)len;
        memcpy(p + 8 + field, cases[i].dict, len);
        enum err_code rc = npy_parse(p, 8 + field + len, &data, &count, "x.npy", &e);
        if (rc != cases[i].want || (rc == ERR_OK && count != cases[i].count))
            fail_msg("%s: status %d (%s), count %llu", cases[i].name, rc, e.msg,
                     (unsigned long long)count);
        free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(failed_write_leaves_nothing),
        cmocka_unit_test(headers_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
