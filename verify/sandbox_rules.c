/* sandbox_rules.c - see sandbox_rules.h. */
#include "verify/sandbox_rules.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- seccomp ---- */

/*
 * What a static threaded program needs in order to read files, compute, print, and start itself
 * from memory. Calls that are restricted by argument are in add_restricted. Whatever is in neither
 * list nor in `forbidden` fails with EPERM: a libc that asks for more than it needs lives on.
 */
static const int allowed[] = {
    /* files that are open, or are opened for reading */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(stat),
    SCMP_SYS(fstat),
    SCMP_SYS(lstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getdents64),
    SCMP_SYS(getcwd),
    SCMP_SYS(fadvise64),
    SCMP_SYS(poll),
    /* memory; memfd_create because the loader unpacks the runner into one, and RLIMIT_FSIZE and
     * RLIMIT_NOFILE bound what that can hold */
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mprotect),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(memfd_create),
    /* threads */
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(arch_prctl),
    SCMP_SYS(membarrier),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* time, signals to itself, facts */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(getrandom),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(getrusage),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
};

/* No accident: a scoring program that calls one of these is up to something, so the run ends and
 * the report says which. socket and the like, other processes, the machine. */
static const int forbidden[] = {
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(execve),
    SCMP_SYS(kill),
    SCMP_SYS(rt_sigqueueinfo),
    SCMP_SYS(rt_tgsigqueueinfo),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(reboot),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(keyctl),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(shmget),
    SCMP_SYS(msgget),
    SCMP_SYS(semget),
    SCMP_SYS(mq_open),
    SCMP_SYS(personality),
};

/* Opening for reading only: neither access mode but O_RDONLY (0), nor creating, nor truncating.
 * The last bit is what O_TMPFILE adds to O_DIRECTORY. */
static const uint64_t writing = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);

/* A thread, as pthread_create makes one; a process lacks these. */
static const uint64_t thread_flags = 0x00010000 | 0x00000800 | 0x00000100; /* THREAD SIGHAND VM */

static int add_restricted(scmp_filter_ctx c, uint32_t stop, int tell)
{
    int bad = 0;
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(open), 1,
                            SCMP_A1(SCMP_CMP_MASKED_EQ, writing, 0));
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                            SCMP_A2(SCMP_CMP_MASKED_EQ, writing, 0));
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                            SCMP_A0(SCMP_CMP_MASKED_EQ, thread_flags, thread_flags));
    bad |=
        seccomp_rule_add(c, stop, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, 0x00010000, 0));
    /* The flags of clone3 are in memory, where a filter cannot look: libcs fall back to clone. */
    bad |= seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    bad |= seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0);
    bad |= seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 0);
    /* Executing a descriptor: itself, or what it unpacked. It stays in the same sandbox. */
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(execveat), 1,
                            SCMP_A4(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0, 0));
    static const scmp_datum_t fcntls[] = {F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC};
    for (size_t i = 0; i < sizeof fcntls / sizeof *fcntls; i++)
        bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                                SCMP_A1(SCMP_CMP_EQ, fcntls[i], 0));
    /* The child hands over the listener through `tell`, after the filter is in place. The
     * descriptor closes on execution, and no socket can appear in its place later. */
    bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 1,
                            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)tell, 0));
    bad |= seccomp_rule_add(c, stop, SCMP_SYS(sendmsg), 1,
                            SCMP_A0(SCMP_CMP_NE, (scmp_datum_t)tell, 0));
    return bad;
}

/* The library writes programs to descriptors only; a memory file brings it back. */
static enum err_code export(scmp_filter_ctx c, struct sock_fprog *prog, struct err *e) {
    enum err_code rc = ERR_OK; struct stat st; int fd = memfd_create("seccomp", MFD_CLOEXEC);

    if (fd < 0 || seccomp_export_bpf(c, fd) ||
        fstat(fd, &st)){rc = err_set(e, ERR_RESOURCE, "sandbox: cannot make the seccomp filter: %s",
                                     strerror(errno));
                        goto out;}
prog->filter = malloc((size_t)st.st_size);
if (!prog->filter) {
    rc = err_nomem(e, "the seccomp filter", (unsigned long long)st.st_size);
    goto out;
}
if (pread(fd, prog->filter, (size_t)st.st_size, 0) != st.st_size)
    rc = err_set(e, ERR_RESOURCE, "sandbox: cannot read the seccomp filter back");
prog->len = (unsigned short)((size_t)st.st_size / sizeof *prog->filter);
out : if (fd >= 0) close(fd);
return rc;
}

enum err_code rules_seccomp(struct sock_fprog *prog, bool notify, int tell, struct err *e)
{
    enum err_code rc = ERR_OK;
    uint32_t stop = notify ? SCMP_ACT_NOTIFY : SCMP_ACT_KILL_PROCESS;
    int bad = 0;

    *prog = (struct sock_fprog){0};
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action))
        return ERR_OK;

    scmp_filter_ctx c = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!c)
        return err_nomem(e, "the seccomp filter", 0);
    /* Foreign system call tables (32-bit, x32) have other numbers: none of them. */
    bad |= seccomp_attr_set(c, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        bad |= seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        bad |= seccomp_rule_add(c, stop, forbidden[i], 0);
    bad |= add_restricted(c, stop, tell);
    if (bad)
        rc = err_set(e, ERR_RESOURCE, "sandbox: the seccomp library refused a rule");
    else
        rc = export(c, prog, e);
    seccomp_release(c);
    if (rc) {
        free(prog->filter);
        *prog = (struct sock_fprog){0};
    }
    return rc;
}

/* ---- Landlock ---- */

/*
 * From the kernel's documentation (Documentation/userspace-api/landlock.rst): the headers of a
 * distribution are older than kernels that it meets, so the numbers are here. The kernel accepts
 * a longer attribute when what it does not know is zero.
 */
struct ruleset_attr {
    uint64_t handled_access_fs, handled_access_net, scoped;
};
struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

enum {
    LL_VERSION = 1,      /* flag of landlock_create_ruleset: only ask */
    LL_PATH_BENEATH = 1, /* type of a rule */
    LL_READ_FILE = 1 << 2,
    LL_READ_DIR = 1 << 3,
    LL_FS_ABI1 = (1 << 13) - 1,
    LL_FS_REFER = 1 << 13,     /* since ABI 2 */
    LL_FS_TRUNCATE = 1 << 14,  /* since ABI 3 */
    LL_NET_TCP = 3,            /* bind and connect, since ABI 4 */
    LL_FS_IOCTL_DEV = 1 << 15, /* since ABI 5 */
    LL_SCOPED = 3,             /* abstract sockets and signals, since ABI 6 */
};

enum { NR_LANDLOCK_CREATE = 444, NR_LANDLOCK_ADD_RULE = 445, NR_LANDLOCK_RESTRICT = 446 };

static enum err_code allow_reading(int ruleset, const char *path, struct err *e)
{
    enum err_code rc = ERR_OK;
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st)) {
        rc = err_set(e, ERR_INPUT, "%s: %s", path, strerror(errno));
        goto out;
    }
    struct path_beneath_attr rule = {LL_READ_FILE, fd};
    if (S_ISDIR(st.st_mode))
        rule.allowed_access |= LL_READ_DIR;
    if (syscall(NR_LANDLOCK_ADD_RULE, ruleset, LL_PATH_BENEATH, &rule, 0))
        rc = err_set(e, ERR_RESOURCE, "sandbox: Landlock refused a rule for %s: %s", path,
                     strerror(errno));
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

enum err_code rules_landlock(int *fd, int *abi, const char *const *path, size_t paths,
                             struct err *e)
{
    *fd = -1;
    long version = syscall(NR_LANDLOCK_CREATE, NULL, 0, LL_VERSION);
    *abi = version > 0 ? (int)version : 0;
    if (!*abi)
        return ERR_OK; /* not built in, or switched off at boot */

    struct ruleset_attr attr = {.handled_access_fs = LL_FS_ABI1};
    attr.handled_access_fs |= (*abi >= 2 ? LL_FS_REFER : 0) | (*abi >= 3 ? LL_FS_TRUNCATE : 0) |
                              (*abi >= 5 ? LL_FS_IOCTL_DEV : 0);
    attr.handled_access_net = *abi >= 4 ? LL_NET_TCP : 0;
    attr.scoped = *abi >= 6 ? LL_SCOPED : 0;
    long made = syscall(NR_LANDLOCK_CREATE, &attr, sizeof attr, 0);
    if (made < 0)
        return err_set(e, ERR_RESOURCE, "sandbox: Landlock refused the rule set: %s",
                       strerror(errno));
    *fd = (int)made;
    for (size_t i = 0; i < paths; i++) {
        enum err_code rc = allow_reading(*fd, path[i], e);
        if (rc) {
            close(*fd);
            *fd = -1;
            return rc;
        }
    }
    return ERR_OK;
}

int rules_restrict(int fd)
{
    return (int)syscall(NR_LANDLOCK_RESTRICT, fd, 0);
}
