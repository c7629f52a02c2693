/*
 * cmocka.h - a stand-in for the part of cmocka that the programs of `make test-gpu` use, where the
 * library is not installed (the Makefile's ALONE). A failure ends the test, not the group, as the
 * library has it.
 */
#ifndef TESTS_GPU_ALONE_CMOCKA_H
#define TESTS_GPU_ALONE_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CMOCKA_FAILED = 1, CMOCKA_SKIPPED };

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f                                                                                      \
    }

/* Where the running test goes on when it ends early; one per program, whose main calls the group.
 */
static jmp_buf cmocka_end;

#define cmocka_fail()                                                                              \
    do {                                                                                           \
        fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__);                                         \
        longjmp(cmocka_end, CMOCKA_FAILED);                                                        \
    } while (0)

#define fail_msg(...)                                                                              \
    do {                                                                                           \
        fprintf(stderr, "error: " __VA_ARGS__);                                                    \
        cmocka_fail();                                                                             \
    } while (0)

#define skip() longjmp(cmocka_end, CMOCKA_SKIPPED)

#define cmocka_true(x, text)                                                                       \
    do {                                                                                           \
        if (!(x))                                                                                  \
            fail_msg("%s", text);                                                                  \
    } while (0)

#define assert_true(x)            cmocka_true(x, #x)
#define assert_non_null(x)        cmocka_true((x) != NULL, #x " is NULL")
#define assert_int_equal(a, b)    cmocka_true((a) == (b), #a " is not " #b)
#define assert_string_equal(a, b) cmocka_true(!strcmp(a, b), #a " is not " #b)

/* How many tests failed. */
static inline int cmocka_run(const struct CMUnitTest *t, size_t n)
{
    volatile int failed = 0;
    for (volatile size_t i = 0; i < n; i++) {
        const char *volatile how = "      OK";
        printf("[ RUN      ] %s\n", t[i].name);
        fflush(stdout);
        switch (setjmp(cmocka_end)) {
        case 0:
            t[i].run(&(void *){NULL});
            break;
        case CMOCKA_SKIPPED:
            how = " SKIPPED";
            break;
        default:
            how = " FAILED ";
            failed++;
        }
        printf("[ %s ] %s\n", how, t[i].name);
    }
    printf("%zu tests, %d failed\n", n, failed);
    return failed;
}

#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cmocka_run(tests, sizeof(tests) / sizeof *(tests))

#endif
