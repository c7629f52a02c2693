/*
 * execute_test - guards against a submission whose scores differ from the engine's and are called
 * identical: one bit in one score, a score too many or too few, a header that lies, a stream cut
 * where pieces happen to meet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/execute.h"
#include "verify/npy.h"

enum { SCORES = 1500, STREAM = NPY_HEADER + SCORES * (int)sizeof(double) };

static double want[SCORES];
static uint8_t stream[STREAM + 8];

static void make_stream(size_t announced)
{
    for (size_t i = 0; i < SCORES; i++)
        want[i] = 0.1 * (double)(i % 97) + 1.0 / (double)(i + 1);
    npy_header(stream, announced);
    memcpy(stream + NPY_HEADER, want, sizeof want);
    memset(stream + STREAM, 0, 8);
}

static enum err_code feed(size_t n, size_t piece, struct err *e)
{
    struct nll_check *c = calloc(1, sizeof *c);
    enum err_code rc = ERR_OK;
    c->want = want;
    c->count = SCORES;
    for (size_t at = 0; at < n && !rc; at += piece)
        rc = nll_check_take(c, stream + at, piece < n - at ? piece : n - at, e);
    if (!rc)
        rc = nll_check_end(c, e);
    free(c);
    return rc;
}

static void any_pieces(void **state)
{
    static const size_t pieces[] = {1, 3, 7, 8, 127, 128, 129, 4096, 8192, 65536};
    (void)state;
    make_stream(SCORES);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct err e = {0};
        if (feed(STREAM, pieces[i], &e))
            fail_msg("pieces of %zu: %s", pieces[i], e.msg);
    }
}

static void one_bit(void **state)
{
    static const size_t at[] = {0, 1, 7, 8, 700 * 8 + 3, SCORES * 8 - 8, SCORES * 8 - 1};
    (void)state;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            char score[32];
            struct err e = {0};
            make_stream(SCORES);
            stream[NPY_HEADER + at[i]] ^= (uint8_t)(1u << bit);
            snprintf(score, sizeof score, "score %zu is ", at[i] / 8);
            if (feed(STREAM, 1000, &e) != ERR_CLAIM || strncmp(e.msg, score, strlen(score)))
                fail_msg("byte %zu bit %u: \"%s\"", at[i], bit, e.msg);
        }
}

static void wrong_length(void **state)
{
    static const struct {
        const char *name;
        size_t announced, sent;
        const char *says;
    } cases[] = {
        {"nothing", SCORES, 0, "no scores"},
        {"part of the header", SCORES, 100, "no scores"},
        {"only the header", SCORES, NPY_HEADER, "sent 0 scores"},
        {"half a score less", SCORES, STREAM - 4, "sent 1499 scores"},
        {"one less", SCORES, STREAM - 8, "sent 1499 scores"},
        {"half a score more", SCORES, STREAM + 4, "sent 1500 scores"},
        {"one more", SCORES, STREAM + 8, "more than 1500"},
        {"one more announced", SCORES + 1, STREAM + 8, "announces 1501"},
        {"none announced", 0, STREAM, "announces 0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        make_stream(cases[i].announced);
        if (feed(cases[i].sent, 999, &e) != ERR_CLAIM || !strstr(e.msg, cases[i].says))
            fail_msg("%s: \"%s\"", cases[i].name, e.msg);
    }
}

static void no_numbers(void **state)
{
    struct err e = {0};
    (void)state;
    make_stream(SCORES);
    memcpy(stream, "Usage: submission --data DIR", 28);
    assert_int_equal(feed(STREAM, 64, &e), ERR_CLAIM);
    assert_non_null(strstr(e.msg, "unreadable"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_pieces),
        cmocka_unit_test(one_bit),
        cmocka_unit_test(wrong_length),
        cmocka_unit_test(no_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
