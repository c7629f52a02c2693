/*
 * log_test.c - exists for the log that loses lines: overwritten by a resume, swallowed by a full
 * disk, or mixed with the progress line.
 */
#include "tests/unit/toy_run.h"
#include "trainer/log.h"

static void lines(void **state)
{
    char dir[TOY_PATH];
    const char *path;
    struct log l;
    struct err e = {0};
    size_t n;
    (void)state;
    toy_corpus(dir);
    path = toy_path(dir, "train.log");
    assert_int_equal(log_open(&l, path, false, true, &e), ERR_OK);
    log_line(&l, "step:%d/%d train_loss:%.4f", 1, 2, 6.5);
    log_progress(&l, "not in the file");
    log_detail(&l, "detail");
    assert_int_equal(log_close(&l, &e), ERR_OK);
    assert_int_equal(log_open(&l, path, true, true, &e), ERR_OK);
    log_line(&l, "appended");
    assert_int_equal(log_close(&l, &e), ERR_OK);
    char *text = (char *)toy_read(path, &n);
    assert_string_equal(text, "step:1/2 train_loss:6.5000\ndetail\nappended\n");
    free(text);
    assert_int_equal(log_open(&l, path, false, true, &e), ERR_OK);
    assert_int_equal(log_close(&l, &e), ERR_OK);
    text = (char *)toy_read(path, &n);
    assert_int_equal(n, 0);
    free(text);
    assert_int_equal(log_close(&l, &e), ERR_OK); /* twice is fine */
    toy_remove(dir);
}

static void cannot_write(void **state)
{
    struct log l;
    struct err e = {0};
    (void)state;
    assert_int_equal(log_open(&l, "/nonexistent/train.log", false, true, &e), ERR_RESOURCE);
    assert_non_null(strstr(e.msg, "/nonexistent/train.log"));
    assert_int_equal(log_close(&l, &e), ERR_OK);
}

static void full_disk(void **state)
{
    struct log l;
    struct err e = {0};
    (void)state;
    if (access("/dev/full", W_OK))
        skip();
    assert_int_equal(log_open(&l, "/dev/full", false, true, &e), ERR_OK);
    log_line(&l, "lost");
    assert_int_equal(log_close(&l, &e), ERR_RESOURCE);
    assert_non_null(strstr(e.msg, "/dev/full"));
}

static void durations(void **state)
{
    static const struct {
        double s;
        const char *want;
    } cases[] = {{-1, "0s"},    {0, "0s"},           {59.4, "59s"},     {59.6, "1:00"},
                 {187, "3:07"}, {3599.9, "1:00:00"}, {7387, "2:03:07"}, {1e300, "27777:46:40"}};
    char buf[LOG_DURATION];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(log_duration(cases[i].s, buf), cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines), cmocka_unit_test(cannot_write),
                                       cmocka_unit_test(full_disk), cmocka_unit_test(durations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
