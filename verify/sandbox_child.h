/*
 * sandbox_child.h - what the forked child does before it becomes the program. Private to the
 * sandbox.
 *
 * Between fork and exec only system calls are made: the parent may have threads, whose locks the
 * child would wait for in vain.
 */
#ifndef VERIFY_SANDBOX_CHILD_H
#define VERIFY_SANDBOX_CHILD_H

#include <linux/filter.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Descriptors of the child; after execution only 0 to 3 are left. */
enum { CHILD_DATA = 3, CHILD_PROGRAM = 4, CHILD_TELL = 5, CHILD_FDS = 6 };

enum { CHILD_RLIMITS = 9 };
struct child_limit {
    int resource;
    struct rlimit value;
};

struct child_plan {
    int fd[CHILD_FDS]; /* what to put where; -1: nothing there */
    char *const *argv, *const *envp;
    struct child_limit limit[CHILD_RLIMITS];
    int landlock;             /* rule set, -1 for none */
    struct sock_fprog filter; /* len 0 for none */
    bool notify;              /* the filter has forbidden calls wait for a supervisor */
    pid_t parent;
};

/* Where the child failed; told to the parent with errno. CHILD_LISTENER is no failure: it comes
 * with the listener of the filter attached. */
enum child_step {
    CHILD_LISTENER,
    CHILD_SESSION,
    CHILD_DESCRIPTORS,
    CHILD_LIMITS,
    CHILD_PRIVILEGES,
    CHILD_LANDLOCK,
    CHILD_SECCOMP,
    CHILD_HANDOVER,
    CHILD_EXEC,
    CHILD_STEPS,
};
struct child_message {
    int step, error;
};

/* child_become - take on every layer and execute. Does not return. */
_Noreturn void child_become(const struct child_plan *p);

#endif
