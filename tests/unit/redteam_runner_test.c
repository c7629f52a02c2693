/*
 * redteam_runner_test - submissions whose engine was replaced by one that cheats: it prints a score
 * that it did not compute, looks for the answers elsewhere, calls home, starts another program,
 * never ends, writes files. Guards against one that is called verified when it was executed, and
 * against a message that does not say what it did.
 *
 * The engines are this file, compiled a second time as a small static program. Which cheat it is,
 * is written into its data before it is packed.
 */
#ifdef REDTEAM_RUNNER

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Found by its first letters and overwritten from the tenth on. */
static volatile char act[512] = "RED-TEAM:";

static const char *after(char **argv, const char *option)
{
    for (; *argv; argv++)
        if (!strcmp(*argv, option) && argv[1])
            return argv[1];
    return "";
}

/* A .npy header for n numbers, then the numbers. */
static void deliver(size_t n, const double *v)
{
    char h[128];
    int len; /* the descriptor is the one that --nll names: nothing can be opened for writing */
    memcpy(h, "\x93NUMPY\1\0\x76\0", 10);
    len = snprintf(h + 10, sizeof h - 10,
                   "{'descr': '<f8', 'fortran_order': False, 'shape': (%zu,), }", n);
    memset(h + 10 + len, ' ', sizeof h - 11 - (size_t)len);
    h[127] = '\n';
    if (write(3, h, sizeof h) < 0 || write(3, v, n * sizeof *v) < 0)
        exit(9);
}

int main(int argc, char **argv)
{
    static double v[1 << 16];
    char what[512];
    const char *line;
    size_t n = 0;
    (void)argc;
    for (size_t i = 0; i < sizeof what; i++)
        what[i] = act[i + 9 < sizeof act ? i + 9 : sizeof act - 1];
    line = strchr(what, '|') + 1; /* KIND|argument */

    if (!strncmp(what, "print", 5)) { /* the result line that somebody wished for, and no scores */
        puts(line);
        return 0;
    }
    if (!strncmp(what, "guess", 5)) { /* scores that are good and wrong */
        n = (size_t)atoi(line);
        for (size_t i = 0; i < n; i++)
            v[i] = 1.0;
        deliver(n, v);
        puts("final_sliding val_loss:1.00000000 val_bpb:0.50000000 tokens:1 bytes:1 time_ms:1");
        return 0;
    }
    if (!strncmp(what, "answers", 7)) { /* from a file that is not among the data */
        FILE *f = fopen(line, "rb");
        if (!f) {
            printf("no answers: %s\n", strerror(errno));
            return 5;
        }
        n = fread(v, sizeof *v, sizeof v / sizeof *v, f);
        deliver(n, v);
        return 0;
    }
    if (!strncmp(what, "name", 4)) { /* the score follows from what the data are called */
        for (const char *p = after(argv, "--data"); *p; p++)
            v[0] += *p;
        deliver(1, v);
        return 0;
    }
    if (!strncmp(what, "copy", 4)) { /* true scores, kept among the data, and a false line */
        char path[512];
        snprintf(path, sizeof path, "%s/kept_scores", after(argv, "--data"));
        FILE *f = fopen(path, "rb");
        n = f ? fread(v, sizeof *v, sizeof v / sizeof *v, f) : 0;
        deliver(n, v);
        puts(line);
        return 0;
    }
    if (!strncmp(what, "call", 4))
        return socket(AF_INET, SOCK_STREAM, 0) < 0;
    if (!strncmp(what, "fork", 4))
        return fork() < 0;
    if (!strncmp(what, "shell", 5))
        return execl("/bin/sh", "sh", "-c", "curl example.org", (char *)NULL);
    if (!strncmp(what, "sleep", 5))
        for (;;)
            nanosleep(&(struct timespec){100, 0}, NULL);
    if (!strncmp(what, "write", 5)) {
        int fd = open(line, O_WRONLY | O_CREAT, 0600);
        printf("write: %s\n", fd < 0 ? strerror(errno) : "done");
        return fd < 0 ? 6 : 0;
    }
    return 99;
}

#else

#include "tests/unit/redteam.h"

enum { SCORES = (TOY_VAL - 1) / 16 * 16 }; /* whole windows */

static struct redteam t;
static uint8_t *engine;
static size_t engine_n;

/* The honest submission with this engine inside. */
static void replace(const char *act)
{
    static const char mark[] = "RED-TEAM:";
    uint8_t *elf = malloc(engine_n), *at = NULL;
    struct coded c = {0};
    struct err e = {0};
    memcpy(elf, engine, engine_n);
    for (size_t i = 0; i + 512 <= engine_n && !at; i++)
        if (!memcmp(elf + i, mark, sizeof mark - 1))
            at = elf + i + sizeof mark - 1;
    assert_non_null(at);
    snprintf((char *)at, 500, "%.499s", act);
    if (coded_code(&c, elf, engine_n, &e))
        fail_msg("%s", e.msg);
    red_exchange(&t, KIND_RUNNER, &c);
    coded_free(&c);
    free(elf);
}

/* The line and the scores of the honest submission. */
static void truth(char line[256], double *scores)
{
    const struct options o = {.command = COMMAND_BLOB,
                              .file = t.sound,
                              .data = t.dir,
                              .threads = 1,
                              .nll = toy_path(t.dir, "scores.npy"),
                              .json = true,
                              .quiet = true};
    struct report r;
    struct err e = {0};
    size_t n;
    assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
    assert_int_equal(verify_blob(&o, &r, &e), ERR_OK);
    snprintf(line, 256, "final_sliding val_loss:%.8f val_bpb:%.8f tokens:%.0f bytes:%.0f time_ms:1",
             red_number(r.root, "val_loss"), red_number(r.root, "val_bpb"),
             cJSON_GetObjectItem(r.root, "tokens")->valuedouble,
             cJSON_GetObjectItem(r.root, "bytes")->valuedouble);
    report_free(&r);
    uint8_t *npy = toy_read(toy_path(t.dir, "scores.npy"), &n);
    assert_int_equal(n, 128 + SCORES * sizeof *scores);
    memcpy(scores, npy + 128, SCORES * sizeof *scores);
    free(npy);
}

static void expect(const char *act, const char *says)
{
    const struct options run = {.execute = true, .timeout = 3};
    replace(act);
    struct finding f = red_audit(&t, &run);
    if (f.status != ERR_CLAIM || !strstr(f.why, says) || !strstr(f.why, "[F-ENGINE]"))
        fail_msg("%s: status %d \"%s\", expected \"%s\"", act, (int)f.status, f.why, says);
    if (strpbrk(f.why, "\n\x1b"))
        fail_msg("%s: what it prints reaches the report: %s", act, f.why);
    struct finding unasked =
        red_audit(&t, NULL); /* never executed unasked, and the score is ours */
    if (unasked.status)
        fail_msg("%s, not executed: %s", act, unasked.why);
}

static void false_scores(void **state)
{
    char line[256], act[400];
    double scores[SCORES];
    (void)state;
    truth(line, scores);
    expect("print|final_sliding val_loss:1.0 val_bpb:0.5 tokens:499 bytes:999 time_ms:1",
           "it sent no scores");
    snprintf(act, sizeof act, "print|%s", line);
    expect(act, "it sent no scores");
    snprintf(act, sizeof act, "guess|%d", SCORES);
    expect(act, "score 0 is 1 ");
    snprintf(act, sizeof act, "guess|%d", SCORES - 1);
    expect(act, "it announces 495 scores");
    expect("name|", "it announces 1 scores");

    /* The true numbers with another line below them. */
    toy_write(toy_path(t.dir, "kept_scores"), scores, sizeof scores);
    snprintf(act, sizeof act, "copy|%s", line);
    const struct options run = {.execute = true};
    replace(act);
    struct finding f = red_audit(&t, &run);
    if (f.status)
        fail_msg("true scores and the true line: %s", f.why);
    *strstr(act, "val_bpb:") = 'V';
    expect(act, "final_sliding");
    expect("copy|final_sliding val_loss:0.1 val_bpb:0.1\x1b[1A\rverified", "final_sliding");
    scores[SCORES - 1] = 0;
    toy_write(toy_path(t.dir, "kept_scores"), scores, sizeof scores);
    expect("copy|x", "score 495 is 0 ");
    remove(toy_path(t.dir, "kept_scores"));
}

/* The answers lie in a file beside the data; only where the kernel has no Landlock can they be
 * read, and then they are compared like any others. */
static void answers_elsewhere(void **state)
{
    char act[TOY_PATH + 32], other[TOY_PATH];
    static double zeros[SCORES];
    (void)state;
    toy_dir(other);
    char path[TOY_PATH];
    snprintf(path, sizeof path, "%s", toy_path(other, "answers"));
    toy_write(path, zeros, sizeof zeros);
    snprintf(act, sizeof act, "answers|%s", path);
    expect(act, "execution: ");
    snprintf(act, sizeof act, "write|%s", toy_path(other, "written"));
    expect(act, "exit status 6");
    assert_int_equal(access(toy_path(other, "written"), F_OK), -1);
    snprintf(act, sizeof act, "write|%s", toy_path(t.dir, "written"));
    expect(act, "exit status 6");
    assert_int_equal(access(toy_path(t.dir, "written"), F_OK), -1);
    toy_remove(other);
}

static void more_than_scoring(void **state)
{
    (void)state;
    expect("call|", "forbidden");
    expect("fork|", "forbidden");
    expect("shell|", "forbidden");
    expect("sleep|", "time");
}

static int setup(void **state)
{
    char command[1024];
    const char *cc = getenv("MUSL_CC"); /* small programs: packing a large one takes seconds */
    (void)state;
    if (red_open(&t))
        return -1;
    snprintf(command, sizeof command, "%s -Os -static -s -D_GNU_SOURCE -DREDTEAM_RUNNER -o %s %s",
             cc && *cc ? cc : "musl-gcc", toy_path(t.dir, "engine"), __FILE__);
    if (system(command)) {
        printf("cannot build the engines: %s\n", command);
        return -1;
    }
    engine = toy_read(toy_path(t.dir, "engine"), &engine_n);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(engine);
    red_close(&t);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(false_scores),
        cmocka_unit_test(answers_elsewhere),
        cmocka_unit_test(more_than_scoring),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
#endif
