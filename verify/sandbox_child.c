/* sandbox_child.c - see sandbox_child.h. */
#include "verify/sandbox_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "verify/sandbox_rules.h"

static _Noreturn void fail(int tell, enum child_step step)
{
    struct child_message m = {(int)step, errno};
    ssize_t told = write(tell, &m, sizeof m);
    _exit(told == sizeof m ? 127 : 126);
}

/* Own session: no terminal, and one signal reaches whatever it starts. */
static int session(const struct child_plan *p)
{
    sigset_t none;
    sigemptyset(&none);
    if (setsid() < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) || sigprocmask(SIG_SETMASK, &none, NULL))
        return -1;
    signal(SIGPIPE, SIG_DFL);
    if (getppid() != p->parent) { /* it died before the request above */
        errno = ESRCH;
        return -1;
    }
    return chdir("/");
}

static int close_from(unsigned first)
{
    struct rlimit r;
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return 0;
    if (getrlimit(RLIMIT_NOFILE, &r)) /* before Linux 5.9 */
        return -1;
    for (rlim_t fd = first; fd < r.rlim_cur; fd++)
        close((int)fd);
    return 0;
}

/* First out of the way, then into place: the wanted numbers may be in use. */
static int descriptors(const struct child_plan *p, int *landlock)
{
    enum { ASIDE = CHILD_FDS + 1 };
    int aside[CHILD_FDS];
    for (int i = 0; i < CHILD_FDS; i++) {
        aside[i] = p->fd[i] < 0 ? -1 : fcntl(p->fd[i], F_DUPFD_CLOEXEC, ASIDE);
        if (p->fd[i] >= 0 && aside[i] < 0)
            return -1;
    }
    int rules = p->landlock < 0 ? -1 : fcntl(p->landlock, F_DUPFD_CLOEXEC, ASIDE);
    for (int i = 0; i < CHILD_FDS; i++) {
        bool keep = i < CHILD_PROGRAM;
        if (aside[i] < 0)
            close(i);
        else if (dup3(aside[i], i, keep ? 0 : O_CLOEXEC) < 0)
            return -1;
    }
    *landlock = -1;
    if (rules >= 0 && dup3(rules, CHILD_FDS, O_CLOEXEC) < 0)
        return -1;
    if (rules >= 0)
        *landlock = CHILD_FDS;
    return close_from(CHILD_FDS + 1);
}

static int limits(const struct child_plan *p)
{
    for (int i = 0; i < CHILD_RLIMITS; i++)
        if (setrlimit((__rlimit_resource_t)p->limit[i].resource, &p->limit[i].value))
            return -1;
    return 0;
}

/*
 * Root keeps the one capability that lets it read data of other owners; everybody else has none to
 * lose. no_new_privs makes the loss last: executing a file as root would restore all of them.
 */
static int privileges(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct cap[_LINUX_CAPABILITY_U32S_3];

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capget, &head, cap))
        return -1;
    const unsigned keep = 1u << CAP_DAC_READ_SEARCH;
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        cap[i].permitted &= i ? 0 : keep;
        cap[i].effective &= i ? 0 : keep;
        cap[i].inheritable = 0;
    }
    return (int)syscall(SYS_capset, &head, cap);
}

/* The listener can only be handed over when it exists, which is after the filter is in force:
 * hence sendmsg on this one descriptor stays allowed (sandbox_rules.c). */
static int hand_over(int listener)
{
    struct child_message m = {CHILD_LISTENER, 0};
    struct iovec io = {&m, sizeof m};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof control.room};
    memset(&control, 0, sizeof control);
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.head), &listener, sizeof listener);
    return sendmsg(CHILD_TELL, &msg, 0) == sizeof m ? 0 : -1;
}

_Noreturn void child_become(const struct child_plan *p)
{
    int landlock;

    if (session(p))
        fail(p->fd[CHILD_TELL], CHILD_SESSION);
    if (descriptors(p, &landlock))
        fail(p->fd[CHILD_TELL], CHILD_DESCRIPTORS);
    if (limits(p))
        fail(CHILD_TELL, CHILD_LIMITS);
    if (privileges())
        fail(CHILD_TELL, CHILD_PRIVILEGES);
    if (landlock >= 0 && (rules_restrict(landlock) || close(landlock)))
        fail(CHILD_TELL, CHILD_LANDLOCK);
    if (p->filter.len) {
        unsigned flags = p->notify ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
        int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p->filter);
        if (listener < 0)
            fail(CHILD_TELL, CHILD_SECCOMP);
        if (p->notify && hand_over(listener))
            fail(CHILD_TELL, CHILD_HANDOVER);
    }
    syscall(SYS_execveat, CHILD_PROGRAM, "", p->argv, p->envp, AT_EMPTY_PATH);
    fail(CHILD_TELL, CHILD_EXEC);
}
