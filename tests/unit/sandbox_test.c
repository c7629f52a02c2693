/*
 * sandbox_test - guards against a submission that does more than score: writes a file, talks to the
 * network, starts processes, never ends, eats memory, prints without end, reads what it was not
 * given. Each case is one small guest program, run in the sandbox, and what must become of it.
 *
 * The guests are this file, compiled a second time as a static program (a submission is one too).
 */
#ifdef SANDBOX_GUEST

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *twice(void *p)
{
    *(int *)p *= 2;
    return NULL;
}

static int errno_of(int result)
{
    printf("%s", result < 0 ? strerrorname_np(errno) : "worked");
    return 0;
}

int main(int argc, char **argv, char **envp)
{
    const char *act = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "";
    static char block[1 << 20];
    int n = 0;

    if (!strcmp(act, "hello")) {
        while (envp[n])
            n++;
        printf("hello %s %d", argv[0], n);
        fprintf(stderr, "warned");
        return write(3, "abcdef", 6) == 6 ? 7 : 1;
    }
    if (!strcmp(act, "write"))
        return errno_of(open(path, O_WRONLY | O_CREAT, 0600));
    if (!strcmp(act, "truncate"))
        return errno_of(open(path, O_RDONLY | O_TRUNC));
    if (!strcmp(act, "unlink"))
        return errno_of(unlink(path));
    if (!strcmp(act, "chmod"))
        return errno_of(chmod(path, 0777));
    if (!strcmp(act, "read"))
        return errno_of(open(path, O_RDONLY));
    if (!strcmp(act, "privileges"))
        return errno_of(prctl(PR_SET_NAME, "x"));
    if (!strcmp(act, "socket"))
        return errno_of(socket(AF_INET, SOCK_STREAM, 0));
    if (!strcmp(act, "sendmsg"))
        return errno_of((int)sendmsg(1, &(struct msghdr){0}, 0));
    if (!strcmp(act, "fork"))
        return errno_of(fork());
    if (!strcmp(act, "exec"))
        return errno_of(execl("/bin/sh", "sh", "-c", "echo no", (char *)NULL));
    if (!strcmp(act, "kill"))
        return errno_of(kill(1, 0));
    if (!strcmp(act, "ptrace"))
        return errno_of((int)ptrace(PTRACE_TRACEME, 0, 0, 0));
    if (!strcmp(act, "sleep"))
        for (;;)
            nanosleep(&(struct timespec){100, 0}, NULL);
    if (!strcmp(act, "hide")) {
        for (int i = 0; i < 16; i++)
            close(i);
        for (;;)
            nanosleep(&(struct timespec){100, 0}, NULL);
    }
    if (!strcmp(act, "hide and fork")) {
        for (int i = 0; i < 16; i++)
            close(i);
        fork();
    }
    if (!strcmp(act, "flood"))
        for (;;)
            if (write(1, block, sizeof block) < 0)
                return 1;
    if (!strcmp(act, "flood errors"))
        for (;;)
            if (write(2, block, sizeof block) < 0)
                return 1;
    if (!strcmp(act, "flood data"))
        for (;;)
            if (write(3, block, sizeof block) < 0)
                return 1;
    if (!strcmp(act, "memory")) {
        for (char *p; n < 4096 && (p = malloc(1 << 20)); n++)
            memset(p, 1, 1 << 20);
        printf("%s", n < 4096 ? "refused" : "4 GiB");
        return 0;
    }
    if (!strcmp(act, "memory file")) {
        int fd = memfd_create("x", 0);
        while (n < 4096 && write(fd, block, sizeof block) == (ssize_t)sizeof block)
            n++;
        return n < 4096;
    }
    if (!strcmp(act, "thread")) {
        pthread_t t;
        int v = 21;
        if (pthread_create(&t, NULL, twice, &v) || pthread_join(t, NULL))
            return 1;
        printf("%d", v);
        return 0;
    }
    if (!strcmp(act, "loader")) { /* as stub/loader.c starts the runner */
        int self = open("/proc/self/exe", O_RDONLY), fd = memfd_create("", MFD_CLOEXEC);
        ssize_t got;
        while ((got = read(self, block, sizeof block)) > 0)
            if (write(fd, block, (size_t)got) != got)
                return 1;
        char *again[] = {argv[0], "hello", NULL};
        execveat(fd, "", again, envp, AT_EMPTY_PATH);
        return 1;
    }
    if (!strcmp(act, "old table")) { /* the 32-bit getpid */
        __asm__ volatile("int $0x80" : "=a"(n) : "a"(20) : "memory");
        return 0;
    }
    if (!strcmp(act, "crash")) {
        volatile uintptr_t unmapped = 8;
        *(volatile int *)unmapped = 1;
    }
    return 99;
}

#else

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/file.h"
#include "verify/sandbox.h"

static char dir[64], given[96], other[96];
static const void *guest;
static size_t guest_bytes;

/* Takes the bytes of SANDBOX_DATA; no more than 8. */
struct taken {
    char buf[8];
    size_t n;
};
static enum err_code take(void *ctx, const uint8_t *p, size_t n, struct err *e)
{
    struct taken *t = ctx;
    if (n > sizeof t->buf - t->n)
        return err_set(e, ERR_CLAIM, "more than %zu bytes", sizeof t->buf);
    memcpy(t->buf + t->n, p, n);
    t->n += n;
    return ERR_OK;
}

static enum err_code run_guest(const char *act, const char *path, double seconds, struct taken *t,
                               struct sandbox_result *r, struct err *e)
{
    const char *const argv[] = {"guest", act, path, NULL}, *const envp[] = {"ONE=1", NULL};
    const char *const readable[] = {given};
    *t = (struct taken){.n = 0};
    const struct sandbox_job job = {.program = guest,
                                    .program_bytes = guest_bytes,
                                    .argv = argv,
                                    .envp = envp,
                                    .readable = readable,
                                    .readables = 1,
                                    .wall_seconds = seconds,
                                    .memory_bytes = (size_t)512 << 20,
                                    .output_bytes = 1 << 16,
                                    .sink = take,
                                    .ctx = t};
    return sandbox_run(&job, r, e);
}

static const struct {
    const char *act, *path;
    enum sandbox_end end;
    int status; /* -1: any */
    const char *call, *out, *data;
    double seconds;
} cases[] = {
    {"hello", "", SANDBOX_EXITED, 7, "", "hello guest 1", "abcdef", 10},
    {"loader", "", SANDBOX_EXITED, 7, "", "hello guest 1", "abcdef", 10},
    {"thread", "", SANDBOX_EXITED, 0, "", "42", "", 10},
    {"read", given, SANDBOX_EXITED, 0, "", "worked", "", 10},
    {"write", other, SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"write", "/dev/null", SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"truncate", given, SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"unlink", given, SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"chmod", given, SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"privileges", "", SANDBOX_EXITED, 0, "", "EPERM", "", 10},
    {"socket", "", SANDBOX_FORBIDDEN, -1, "socket", "", "", 10},
    {"sendmsg", "", SANDBOX_FORBIDDEN, -1, "sendmsg", "", "", 10},
    {"fork", "", SANDBOX_FORBIDDEN, -1, "clone", "", "", 10},
    {"hide and fork", "", SANDBOX_FORBIDDEN, -1, "clone", "", "", 10},
    {"exec", "", SANDBOX_FORBIDDEN, -1, "execve", "", "", 10},
    {"kill", "", SANDBOX_FORBIDDEN, -1, "kill", "", "", 10},
    {"ptrace", "", SANDBOX_FORBIDDEN, -1, "ptrace", "", "", 10},
    {"old table", "", SANDBOX_FORBIDDEN, -1, "", "", "", 10},
    {"sleep", "", SANDBOX_TIMEOUT, -1, "", "", "", 0.3},
    {"hide", "", SANDBOX_TIMEOUT, -1, "", "", "", 0.3},
    {"flood", "", SANDBOX_FLOOD, -1, "", NULL, "", 10},
    {"flood errors", "", SANDBOX_FLOOD, -1, "", "", "", 10},
    {"flood data", "", SANDBOX_REFUSED, -1, "", "", NULL, 10},
    {"memory", "", SANDBOX_EXITED, 0, "", "refused", "", 10},
    {"memory file", "", SANDBOX_SIGNALLED, SIGXFSZ, "", "", "", 10},
    {"crash", "", SANDBOX_SIGNALLED, SIGSEGV, "", "", "", 10},
};

/* One case; says on stdout what is wrong. A kernel that cannot name calls is forgiven the name. */
static bool holds(size_t i)
{
    struct sandbox_result r;
    struct taken t;
    struct err e = {0};
    char how[96];
    enum err_code rc = run_guest(cases[i].act, cases[i].path, cases[i].seconds, &t, &r, &e);

    if (rc) {
        printf("%s: %s\n", cases[i].act, e.msg);
        return false;
    }
    sandbox_describe(&r, how, sizeof how);
    bool named = !(r.layers & SANDBOX_NAMES_CALL) || strcmp(r.call, cases[i].call) == 0;
    bool good = r.end == cases[i].end && (cases[i].status < 0 || r.status == cases[i].status) &&
                named && (!cases[i].out || strcmp(r.out, cases[i].out) == 0) &&
                (!cases[i].data ||
                 (t.n == strlen(cases[i].data) && memcmp(t.buf, cases[i].data, t.n) == 0)) &&
                r.nout <= 1 << 16 && r.seconds < 10;
    if (!good)
        printf("%s %s: %s; printed \"%.60s\", sent %zu bytes, %s\n", cases[i].act, cases[i].path,
               how, r.out, t.n, e.msg);
    sandbox_result_free(&r);
    return good;
}

static bool all_hold(void)
{
    bool good = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        good = holds(i) && good;
    return good;
}

static void guests(void **state)
{
    (void)state;
    assert_true(all_hold());
    assert_int_equal(access(other, F_OK), -1); /* nothing was written ... */
    struct stat st;
    assert_int_equal(stat(given, &st), 0); /* ... and nothing harmed */
    assert_int_equal(st.st_size, 5);
}

/* With Landlock, what was not given cannot be read, whoever asks. */
static void unreadable(void **state)
{
    struct sandbox_result r;
    struct taken t;
    struct err e = {0};
    (void)state;
    assert_int_equal(run_guest("read", "/etc/passwd", 10, &t, &r, &e), ERR_OK);
    bool landlock = r.layers & SANDBOX_LANDLOCK, refused = strcmp(r.out, "EACCES") == 0;
    sandbox_result_free(&r);
    if (!landlock)
        skip();
    assert_true(refused);
}

/* The same as an ordinary user, when the test runs as root. */
static void ordinary_user(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip();
    pid_t pid = fork();
    if (pid == 0) {
        /* by system call: the library's setgid would leave the test's own state behind */
        bool user = !syscall(SYS_setgroups, 0, NULL) && !setgid(65534) && !setuid(65534);
        _exit(user && all_hold() ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void bad_jobs(void **state)
{
    static const char text[] = "no program";
    const char *const argv[] = {"x", NULL}, *const envp[] = {NULL};
    const char *const missing[] = {"/nonexistent/data"};
    struct sandbox_job job = {.program = text,
                              .program_bytes = sizeof text,
                              .argv = argv,
                              .envp = envp,
                              .wall_seconds = 5,
                              .memory_bytes = 1 << 28,
                              .output_bytes = 100};
    struct sandbox_result r;
    struct err e = {0};
    (void)state;
    assert_int_equal(sandbox_run(&job, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "cannot be executed"));
    job.readable = missing;
    job.readables = 1;
    e = (struct err){0};
    enum err_code rc = sandbox_run(&job, &r, &e); /* without Landlock the path is not looked at */
    assert_true(rc == ERR_INPUT);
}

static int setup(void **state)
{
    char command[512];
    const char *cc = getenv("CC");
    struct err e = {0};
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/sandbox_test.%d", (int)getpid());
    snprintf(given, sizeof given, "%s/given", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    snprintf(command, sizeof command,
             "mkdir -m 777 %s && printf 12345 >%s && chmod 666 %s && "
             "%s -O1 -static -pthread -D_GNU_SOURCE -DSANDBOX_GUEST -o %s/guest %s",
             dir, given, given, cc && *cc ? cc : "cc", dir, __FILE__);
    if (system(command)) {
        printf("cannot build the guest: %s\n", command);
        return -1;
    }
    snprintf(command, sizeof command, "%s/guest", dir);
    return file_map(command, &guest, &guest_bytes, &e) ? -1 : 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    file_unmap(guest, guest_bytes);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests),
        cmocka_unit_test(unreadable),
        cmocka_unit_test(ordinary_user),
        cmocka_unit_test(bad_jobs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
#endif
