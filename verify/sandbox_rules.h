/*
 * sandbox_rules.h - the two rule sets of the sandbox, made before the fork. Private to the sandbox.
 *
 * Both are made in the parent, where allocating and failing with words is easy; the child only
 * hands them to the kernel.
 */
#ifndef VERIFY_SANDBOX_RULES_H
#define VERIFY_SANDBOX_RULES_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"

/*
 * rules_seccomp - the filter as a BPF program.
 *
 *   prog    out: malloc'ed instructions; len 0 when this kernel has no seccomp filters
 *   notify  forbidden calls wait for a supervisor (it learns the call) instead of killing at once
 *   tell    descriptor on which sendmsg stays allowed, to hand the supervisor's end over
 */
enum err_code rules_seccomp(struct sock_fprog *prog, bool notify, int tell, struct err *e);

/*
 * rules_landlock - a ruleset that allows reading the given paths and below them.
 *
 *   fd   out: the ruleset, -1 when this kernel has no Landlock
 *   abi  out: the version that it is built for, 0 for none
 */
enum err_code rules_landlock(int *fd, int *abi, const char *const *path, size_t paths,
                             struct err *e);

/* rules_restrict - landlock_restrict_self; 0 or -1 with errno. For the child. */
int rules_restrict(int fd);

#endif
