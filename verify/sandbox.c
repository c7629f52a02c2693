/* sandbox.c - see sandbox.h: the parent's side, from the fork to the report. */
#include "verify/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/clock.h"
#include "verify/sandbox_child.h"
#include "verify/sandbox_rules.h"

_Static_assert((int)SANDBOX_DATA == (int)CHILD_DATA, "two names of one descriptor");

enum {
    OUT,
    ERRS,
    DATA,
    TELL,
    LISTENER,
    STREAMS, /* what the parent polls */
    TICK_MS = 100,
    /* A runner unpacked into memory has some 100 KB; with OPEN_FILES memory files of this size the
     * program holds at most 2 GiB outside its address space. */
    MEMORY_FILE = 32 << 20,
    OPEN_FILES = 64,
    THREADS = 1024,
};

struct run {
    const struct sandbox_job *job;
    struct sandbox_result *r;
    int fd[STREAMS]; /* the parent's ends; -1 closed */
    pid_t pid;
    double start;
    bool killed;
    struct child_message failed; /* step 0 (a listener, no failure): nothing failed */
};

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The first reason to end the run is the one that is reported. */
static void end(struct run *s, enum sandbox_end why)
{
    if (s->killed)
        return;
    s->killed = true;
    s->r->end = why;
    kill(-s->pid, SIGKILL);
    kill(s->pid, SIGKILL); /* it may not have its own group yet */
}

/* The bytes to run, in a memory file that nobody can change any more: what was checked is what
 * runs, and the file needs no execute permission. */
static enum err_code program_fd(int *fd, const struct sandbox_job *job, struct err *e)
{
    const unsigned exec = 16; /* MFD_EXEC, since Linux 6.3; refused and not needed before */
    const char *at = job->program;
    *fd = (int)syscall(SYS_memfd_create, "program", MFD_CLOEXEC | MFD_ALLOW_SEALING | exec);
    if (*fd < 0)
        *fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return err_set(e, ERR_RESOURCE, "sandbox: no memory file: %s", strerror(errno));
    for (size_t left = job->program_bytes; left;) {
        ssize_t n = write(*fd, at, left);
        if (n <= 0)
            return err_set(e, ERR_RESOURCE, "sandbox: cannot copy the program: %s",
                           strerror(errno));
        at += n;
        left -= (size_t)n;
    }
    if (fcntl(*fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return err_set(e, ERR_RESOURCE, "sandbox: cannot seal the program: %s", strerror(errno));
    return ERR_OK;
}

/* Threads of the whole system now, from the field "running/all" of /proc/loadavg: an upper bound of
 * the user's own, which is what RLIMIT_NPROC counts. */
static rlim_t threads_now(void)
{
    unsigned long all = 0;
    FILE *f = fopen("/proc/loadavg", "re");
    if (f) {
        if (fscanf(f, "%*s %*s %*s %*u/%lu", &all) != 1)
            all = 0;
        fclose(f);
    }
    return all ? (rlim_t)all : 32768;
}

static void plan_limits(struct child_plan *p, const struct sandbox_job *job)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const struct child_limit want[CHILD_RLIMITS] = {
        {RLIMIT_AS, {job->memory_bytes, 0}},
        {RLIMIT_CPU, {(rlim_t)(job->wall_seconds * (double)(cpus > 0 ? cpus : 1)) + 1, 0}},
        {RLIMIT_FSIZE, {MEMORY_FILE, 0}},
        {RLIMIT_NOFILE, {OPEN_FILES, 0}},
        {RLIMIT_NPROC, {threads_now() + THREADS, 0}},
        {RLIMIT_CORE, {0, 0}},
        {RLIMIT_MEMLOCK, {0, 0}},
        {RLIMIT_MSGQUEUE, {0, 0}},
        {RLIMIT_STACK, {8 << 20, 0}},
    };
    for (int i = 0; i < CHILD_RLIMITS; i++) {
        struct rlimit old;
        p->limit[i] = want[i];
        /* Never above what the user has already: raising is not ours, and would be refused. */
        if (!getrlimit((__rlimit_resource_t)want[i].resource, &old) &&
            want[i].value.rlim_cur > old.rlim_max)
            p->limit[i].value.rlim_cur = old.rlim_max;
        p->limit[i].value.rlim_max = p->limit[i].value.rlim_cur;
    }
}

/* Append what came; false when it is more than the limit, or memory is out. */
static bool keep(char **buf, size_t *n, const char *p, size_t len, size_t limit)
{
    if (len > limit - *n)
        return false;
    char *grown = realloc(*buf, *n + len + 1);
    if (!grown)
        return false;
    memcpy(grown + *n, p, len);
    *n += len;
    grown[*n] = 0;
    *buf = grown;
    return true;
}

static void read_stream(struct run *s, int which, struct err *e)
{
    char buf[1 << 16];
    struct sandbox_result *r = s->r;
    ssize_t n = read(s->fd[which], buf, sizeof buf);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(&s->fd[which]);
        return;
    }
    if (which == DATA) {
        if (s->job->sink(s->job->ctx, (const uint8_t *)buf, (size_t)n, e))
            end(s, SANDBOX_REFUSED);
        return;
    }
    char **to = which == OUT ? &r->out : &r->errs;
    size_t *have = which == OUT ? &r->nout : &r->nerrs;
    if (!keep(to, have, buf, (size_t)n, s->job->output_bytes))
        end(s, SANDBOX_FLOOD);
}

/* The child's own words: a failure, the listener, or (end of file) that the program has begun. */
static void read_tell(struct run *s)
{
    struct child_message m;
    struct iovec io = {&m, sizeof m};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof control.room};
    ssize_t n = recvmsg(s->fd[TELL], &msg, MSG_CMSG_CLOEXEC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != sizeof m) {
        drop(&s->fd[TELL]);
        return;
    }
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (m.step != CHILD_LISTENER)
        s->failed = m;
    else if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&s->fd[LISTENER], CMSG_DATA(c), sizeof(int));
}

/* A forbidden call is waiting for an answer. The answer is the end. */
static void read_listener(struct run *s)
{
    struct seccomp_notif *ask = NULL;
    struct seccomp_notif_resp *unused = NULL;

    if (seccomp_notify_alloc(&ask, &unused) == 0 &&
        seccomp_notify_receive(s->fd[LISTENER], ask) == 0) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, ask->data.nr);
        snprintf(s->r->call, sizeof s->r->call, "%s", name ? name : "");
        free(name);
    }
    seccomp_notify_free(ask, unused);
    drop(&s->fd[LISTENER]);
    end(s, SANDBOX_FORBIDDEN);
}

static void watch(struct run *s, struct err *e)
{
    while (!s->killed &&
           (s->fd[OUT] >= 0 || s->fd[ERRS] >= 0 || s->fd[DATA] >= 0 || s->fd[TELL] >= 0)) {
        struct pollfd p[STREAMS];
        if (seconds_now() - s->start > s->job->wall_seconds) {
            end(s, SANDBOX_TIMEOUT);
            return;
        }
        for (int i = 0; i < STREAMS; i++)
            p[i] = (struct pollfd){.fd = s->fd[i], .events = POLLIN};
        if (poll(p, STREAMS, TICK_MS) <= 0)
            continue;
        if (p[LISTENER].revents & POLLIN)
            read_listener(s);
        else if (p[LISTENER].revents)
            drop(&s->fd[LISTENER]); /* nobody is left who could ask */
        if (p[TELL].revents)
            read_tell(s);
        for (int i = OUT; i <= DATA && !s->killed; i++)
            if (p[i].revents)
                read_stream(s, i, e);
    }
}

/* All streams are closed, which a program can do and go on. Wait, but not for ever. */
static void reap(struct run *s)
{
    int status = 0;
    pid_t got;
    for (;;) {
        if (s->fd[LISTENER] >= 0 && !s->killed) {
            struct pollfd p = {.fd = s->fd[LISTENER], .events = POLLIN};
            if (poll(&p, 1, 0) > 0 && (p.revents & POLLIN))
                read_listener(s);
        }
        got = waitpid(s->pid, &status, s->killed ? 0 : WNOHANG);
        if (got == s->pid || (got < 0 && errno != EINTR))
            break;
        if (got == 0) {
            nanosleep(&(struct timespec){0, 2000000}, NULL);
            if (seconds_now() - s->start > s->job->wall_seconds)
                end(s, SANDBOX_TIMEOUT);
        }
    }
    s->r->seconds = seconds_now() - s->start;
    if (s->killed)
        return;
    if (WIFEXITED(status)) {
        s->r->end = SANDBOX_EXITED;
        s->r->status = WEXITSTATUS(status);
    } else {
        int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        s->r->status = sig;
        s->r->end = sig == SIGSYS    ? SANDBOX_FORBIDDEN
                    : sig == SIGXCPU ? SANDBOX_TIMEOUT
                                     : SANDBOX_SIGNALLED;
    }
}

static enum err_code child_failure(const struct run *s, struct err *e)
{
    static const char *const step[CHILD_STEPS] = {
        [CHILD_SESSION] = "a new session",  [CHILD_DESCRIPTORS] = "arranging descriptors",
        [CHILD_LIMITS] = "resource limits", [CHILD_PRIVILEGES] = "giving up privileges",
        [CHILD_LANDLOCK] = "Landlock",      [CHILD_SECCOMP] = "the seccomp filter",
        [CHILD_HANDOVER] = "handing over",  [CHILD_EXEC] = "execution",
    };
    int at = s->failed.step;
    if (at == CHILD_EXEC && s->failed.error == ENOEXEC)
        return err_set(e, ERR_INPUT, "the file cannot be executed: %s", strerror(ENOEXEC));
    return err_set(e, ERR_RESOURCE, "sandbox: the kernel refused %s: %s",
                   at > 0 && at < CHILD_STEPS ? step[at] : "something", strerror(s->failed.error));
}

/* pipe2, the parent's end not blocking. */
static bool make_pipe(int *parent, int *child)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC))
        return false;
    *parent = p[0];
    *child = p[1];
    return fcntl(p[0], F_SETFL, O_NONBLOCK) == 0;
}

static enum err_code make_streams(struct run *s, struct child_plan *p, struct err *e)
{
    int pair[2];
    p->fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (p->fd[0] < 0 || !make_pipe(&s->fd[OUT], &p->fd[1]) || !make_pipe(&s->fd[ERRS], &p->fd[2]) ||
        (s->job->sink && !make_pipe(&s->fd[DATA], &p->fd[CHILD_DATA])))
        return err_set(e, ERR_RESOURCE, "sandbox: no pipe: %s", strerror(errno));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return err_set(e, ERR_RESOURCE, "sandbox: no socket pair: %s", strerror(errno));
    s->fd[TELL] = pair[0];
    p->fd[CHILD_TELL] = pair[1];
    return ERR_OK;
}

/* One attempt, with or without the naming of forbidden calls. *again: try without. */
static enum err_code attempt(const struct sandbox_job *job, bool notify, bool *again,
                             struct sandbox_result *r, struct err *e)
{
    struct run s = {.job = job, .r = r, .fd = {-1, -1, -1, -1, -1}};
    struct child_plan p = {.fd = {-1, -1, -1, -1, -1, -1}, .landlock = -1, .notify = notify};
    enum err_code rc;

    *again = false;
    p.argv = (char *const *)(uintptr_t)job->argv; /* exec's interface lacks a const */
    p.envp = (char *const *)(uintptr_t)job->envp;
    if (!keep(&r->out, &r->nout, "", 0, 0) || !keep(&r->errs, &r->nerrs, "", 0, 0)) {
        rc = err_nomem(e, "the program's output", 1);
        goto out;
    }
    if ((rc = rules_seccomp(&p.filter, notify, CHILD_TELL, notify ? NULL : e))) {
        *again = notify; /* a kernel or library from before notifications */
        goto out;
    }
    if (!p.filter.len && !job->weaker) {
        rc = err_set(e, ERR_RESOURCE,
                     "sandbox: this kernel has no seccomp filters; "
                     "--allow-weaker-sandbox runs without");
        goto out;
    }
    p.notify = notify && p.filter.len;
    if ((rc = rules_landlock(&p.landlock, &r->landlock_abi, job->readable, job->readables, e)) ||
        (rc = program_fd(&p.fd[CHILD_PROGRAM], job, e)) || (rc = make_streams(&s, &p, e)))
        goto out;
    plan_limits(&p, job);

    p.parent = getpid();
    s.start = seconds_now();
    s.pid = fork();
    if (s.pid == 0)
        child_become(&p);
    if (s.pid < 0) {
        rc = err_set(e, ERR_RESOURCE, "sandbox: no process: %s", strerror(errno));
        goto out;
    }
    for (int i = 0; i < CHILD_FDS; i++)
        drop(&p.fd[i]);
    r->layers = SANDBOX_LIMITS | SANDBOX_NO_PRIVS | SANDBOX_SESSION;
    r->layers |= (p.filter.len ? SANDBOX_SECCOMP : 0) | (p.landlock >= 0 ? SANDBOX_LANDLOCK : 0) |
                 (p.notify ? SANDBOX_NAMES_CALL : 0);
    watch(&s, e);
    reap(&s);
    if (s.failed.step) {
        /* A listener is refused where one is in place already (a container inside a sandbox). */
        *again = notify && s.failed.step == CHILD_SECCOMP;
        rc = *again ? ERR_RESOURCE : child_failure(&s, e);
    }
out:
    for (int i = 0; i < STREAMS; i++)
        drop(&s.fd[i]);
    for (int i = 0; i < CHILD_FDS; i++)
        drop(&p.fd[i]);
    drop(&p.landlock);
    free(p.filter.filter);
    return rc;
}

enum err_code sandbox_run(const struct sandbox_job *job, struct sandbox_result *r, struct err *e)
{
    bool again;
    *r = (struct sandbox_result){0};
    enum err_code rc = attempt(job, true, &again, r, e);
    if (again) {
        sandbox_result_free(r);
        rc = attempt(job, false, &again, r, e);
    }
    if (rc)
        sandbox_result_free(r);
    return rc;
}

void sandbox_result_free(struct sandbox_result *r)
{
    free(r->out);
    free(r->errs);
    *r = (struct sandbox_result){0};
}

void sandbox_layers(const struct sandbox_result *r, char *buf, size_t cap)
{
    char version[32] = "";
    if (r->layers & SANDBOX_LANDLOCK)
        snprintf(version, sizeof version, "landlock (version %d), ", r->landlock_abi);
    snprintf(buf, cap, "%s%s%s%s%s", r->layers & SANDBOX_SECCOMP ? "seccomp, " : "", version,
             r->layers & SANDBOX_LIMITS ? "limits, " : "",
             r->layers & SANDBOX_NO_PRIVS ? "no privileges, " : "",
             r->layers & SANDBOX_SESSION ? "own session" : "");
}

void sandbox_describe(const struct sandbox_result *r, char *buf, size_t cap)
{
    switch (r->end) {
    case SANDBOX_EXITED:
        snprintf(buf, cap, "exit status %d", r->status);
        break;
    case SANDBOX_SIGNALLED:
        snprintf(buf, cap, "ended by signal %d (%s)", r->status, strsignal(r->status));
        break;
    case SANDBOX_FORBIDDEN:
        if (r->call[0])
            snprintf(buf, cap, "stopped: it called %s(), which is forbidden", r->call);
        else
            snprintf(buf, cap, "stopped: it made a forbidden system call");
        break;
    case SANDBOX_TIMEOUT:
        snprintf(buf, cap, "stopped: its time was over after %.1f s", r->seconds);
        break;
    case SANDBOX_FLOOD:
        snprintf(buf, cap, "stopped: it printed too much");
        break;
    case SANDBOX_REFUSED:
        snprintf(buf, cap, "stopped: what it sent was refused");
        break;
    }
}
