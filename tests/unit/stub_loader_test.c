/*
 * stub_loader_test - guards against a loader that starts something else than what was packed, or
 * dies of a damaged file in any way but its message and its status.
 *
 * Each case runs twice: through the loader's source built as a function, under whatever sanitizers
 * this test is built with, and through the real loader, when it has been built (STUB_LOADER or
 * build/stub/loader).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/file.h"
#include "tests/unit/blob_small.h"

#define LOADER_HOSTED
#include "stub/loader.c"

enum { BUDGET = 2048, STATUS_SIGNAL = 256 };

static const uint8_t *real;
static size_t real_n;

struct outcome {
    int status; /* exit status, or STATUS_SIGNAL + signal */
    char said[256];
};

/* Write the file and start it: hosted, or by execve. Two arguments, so argc is 3. */
static struct outcome start(const uint8_t *file, size_t n, size_t loader_n, bool hosted)
{
    struct outcome o = {0};
    char path[64];
    char *argv[] = {"submission", "one", "two", NULL}, *envp[] = {NULL};
    int pipe_fd[2], status;
    snprintf(path, sizeof path, "/tmp/stub_loader_test.%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(file, 1, n, f) != n || fclose(f) || chmod(path, 0755) || pipe(pipe_fd))
        fail_msg("cannot write %s", path);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_fd[1], 2);
        close(pipe_fd[0]);
        close(pipe_fd[1]);
        if (hosted) { /* as the kernel lays it out */
            const long args[] = {3, (long)argv[0], (long)argv[1], (long)argv[2], 0, 0};
            load(path, loader_n, args);
        }
        execve(path, argv, envp);
        _exit(99);
    }
    close(pipe_fd[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(pipe_fd[0], o.said + used, sizeof o.said - 1 - used)) > 0;)
        used += (size_t)got;
    close(pipe_fd[0]);
    waitpid(pid, &status, 0);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
    unlink(path);
    return o;
}

static void expect(const char *name, const uint8_t *file, size_t n, size_t loader_n, bool hosted,
                   int status, const char *said)
{
    struct outcome o = start(file, n, loader_n, hosted);
    if (o.status != status || strcmp(o.said, said))
        fail_msg("%s, %s: status %d, expected %d; said \"%s\", expected \"%s\"", name,
                 hosted ? "hosted" : "real", o.status, status, o.said, said);
}

static struct small make(bool hosted)
{
    return hosted ? small_new(NULL, 0, CODEC_RANGE) : small_new(real, real_n, CODEC_RANGE);
}

static void starts_runner(void **state)
{
    (void)state;
    for (int hosted = 0; hosted < (real ? 2 : 1); hosted++) {
        struct small s = make(!hosted);
        expect("sound file", s.file, s.size, s.b.section[0].size, !hosted, (int)(s.size + 3) % 128,
               "");
        free(s.file);
    }
}

/* A flip in every byte behind the loader. */
static void every_byte_flipped(void **state)
{
    (void)state;
    struct small s = make(true);
    for (size_t at = s.b.section[0].size; at < s.size; at++) {
        char name[48];
        snprintf(name, sizeof name, "byte %zu flipped", at);
        s.file[at] ^= (uint8_t)(1 << at % 8);
        expect(name, s.file, s.size, s.b.section[0].size, true, STATUS_DAMAGED, DAMAGED);
        s.file[at] ^= (uint8_t)(1 << at % 8);
    }
    free(s.file);
}

static void every_length(void **state)
{
    (void)state;
    struct small s = make(true);
    for (size_t n = 1; n < s.size; n += 7)
        expect("truncated", s.file, n, s.b.section[0].size, true, STATUS_DAMAGED, DAMAGED);
    uint8_t *longer = malloc(s.size + 1);
    memcpy(longer, s.file, s.size);
    longer[s.size] = 0;
    expect("a byte too many", longer, s.size + 1, s.b.section[0].size, true, STATUS_DAMAGED,
           DAMAGED);
    free(longer);
    free(s.file);
}

static void real_damaged(void **state)
{
    (void)state;
    if (!real)
        skip();
    struct small s = make(false);
    for (int k = KIND_HEADER; k <= KIND_RECIPE; k++) {
        size_t at = s.b.section[k - 1].offset + s.b.section[k - 1].size / 2;
        s.file[at] ^= 4;
        expect(blob_kind_name((uint32_t)k), s.file, s.size, real_n, false, STATUS_DAMAGED, DAMAGED);
        s.file[at] ^= 4;
    }
    expect("cut", s.file, s.size - 1, real_n, false, STATUS_DAMAGED, DAMAGED);
    expect("loader alone", s.file, real_n, real_n, false, STATUS_DAMAGED, DAMAGED);
    free(s.file);
}

/* Entries that lie, under a header hash that is right: only bounds protect. */
static void lies(void **state)
{
    static const struct {
        const char *name;
        enum kind kind;
        size_t field;
        uint64_t value;
        int status;
        const char *said;
    } cases[] = {
        {"size huge", KIND_RUNNER, SEC_SIZE, UINT64_MAX, STATUS_DAMAGED, DAMAGED},
        {"sizes do not add up", KIND_RECIPE, SEC_SIZE, 1, STATUS_DAMAGED, DAMAGED},
        {"offset 0", KIND_RUNNER, SEC_OFFSET, 0, STATUS_DAMAGED, DAMAGED},
        {"offset huge", KIND_WEIGHTS, SEC_OFFSET, UINT64_MAX - 7, STATUS_DAMAGED, DAMAGED},
        {"more than is there", KIND_RUNNER, SEC_RAW_SIZE, 100000, STATUS_DAMAGED, DAMAGED},
        {"less than is there", KIND_RUNNER, SEC_RAW_SIZE, 40, STATUS_DAMAGED, DAMAGED},
        {"nothing", KIND_RUNNER, SEC_RAW_SIZE, 0, STATUS_DAMAGED, DAMAGED},
    };
    (void)state;
    for (int hosted = 0; hosted < (real ? 2 : 1); hosted++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct small s = make(!hosted);
            put_le64(small_entry(&s, cases[i].kind) + cases[i].field, cases[i].value);
            small_seal(&s);
            expect(cases[i].name, s.file, s.size, s.b.section[0].size, !hosted, cases[i].status,
                   cases[i].said);
            free(s.file);
        }
}

/* A runner that unpacks well but is no program: the kernel refuses. */
static void not_a_program(void **state)
{
    static const char text[] = "this is no ELF file, only some text of more than sixteen bytes";
    (void)state;
    for (int hosted = 0; hosted < (real ? 2 : 1); hosted++) {
        struct coded c[4] = {{0}};
        const struct coded *part[4] = {&c[0], &c[1], &c[2], &c[3]};
        struct blob b;
        struct err e = {0};
        const void *map;
        size_t n;
        uint8_t fake[TINY_HEADERS];
        char path[64];
        snprintf(path, sizeof path, "/tmp/stub_loader_test.%d.blob", (int)getpid());
        tiny_headers(fake, sizeof fake);
        assert_int_equal(coded_code(&c[0], text, sizeof text, &e), ERR_OK);
        for (int i = 1; i < 4; i++)
            assert_int_equal(coded_none(&c[i], text, sizeof text, &e), ERR_OK);
        blob_layout(&b, hosted ? real : fake, hosted ? real_n : sizeof fake, part, 4);
        assert_int_equal(blob_write(path, &b, &e), ERR_OK);
        assert_int_equal(file_map(path, &map, &n, &e), ERR_OK);
        expect("no program", map, n, b.section[0].size, !hosted, STATUS_REFUSED, REFUSED);
        file_unmap(map, n);
        unlink(path);
        for (int i = 0; i < 4; i++)
            coded_free(&c[i]);
    }
}

static void budget(void **state)
{
    (void)state;
    if (!real)
        skip();
    print_message("loader: %zu bytes of %d\n", real_n, BUDGET);
    assert_in_range(real_n, 1, BUDGET);
}

int main(void)
{
    const char *path = getenv("STUB_LOADER") ? getenv("STUB_LOADER") : "build/stub/loader";
    const void *map;
    struct err e = {0};
    if (file_map(path, &map, &real_n, &e) == ERR_OK)
        real = map;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_runner), cmocka_unit_test(every_byte_flipped),
        cmocka_unit_test(every_length),  cmocka_unit_test(real_damaged),
        cmocka_unit_test(lies),          cmocka_unit_test(not_a_program),
        cmocka_unit_test(budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
