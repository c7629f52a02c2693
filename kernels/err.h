/*
 * err.h - how a failure travels: one small struct, filled once where the failure happened.
 *
 * A function that can fail returns enum err_code and takes a struct err pointer, which it fills
 * with one line: file, place in it, what was found, what was expected. Callers pass both on
 * unchanged. Only main prints. The enumerators are the exit statuses of every program of the
 * project.
 */
#ifndef KERNELS_ERR_H
#define KERNELS_ERR_H

enum err_code {
    ERR_OK = 0,       /* done, or the claim is confirmed */
    ERR_CLAIM = 1,    /* a claim is not confirmed */
    ERR_USAGE = 2,    /* wrong use: unknown option, unknown key, impossible combination */
    ERR_INPUT = 3,    /* bad input: a file that is damaged, missing or not what it should be */
    ERR_RESOURCE = 4, /* out of memory, disk, time, budget or device */
};

/* msg is one line without a newline; code is ERR_OK while nothing has failed. Initialise with {0}.
 */
struct err {
    enum err_code code;
    char msg[240];
};

/*
 * err_set - record a failure unless one is recorded already (the first message wins).
 *
 *   e     where to record; NULL records nothing
 *   code  not ERR_OK
 *   fmt   printf format. Shared code (kernels/, model/) keeps to %s %c %d %u %zu %llu %lld, because
 * the runner inside a submission brings a formatter that knows only these.
 *
 * Returns code, so that a caller can write: return err_set(e, ERR_INPUT, ...).
 */
#ifdef RUNNER           /* stub/runner_rt.h: the program ends with the message */
enum { IN_RUNNER = 1 }; /* what packer has checked is not checked again */
enum err_code err_exit(enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
#define err_set(e, code, ...) err_exit(((void)(e), (code)), __VA_ARGS__)
#else
enum { IN_RUNNER = 0 };
enum err_code err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#endif

/* err_packed - err_set with ERR_INPUT, for what packer checks before it packs: the runner says no
 * more than that the file is damaged. */
#ifdef RUNNER
enum err_code err_damaged(void) __attribute__((noreturn));
#define err_packed(e, ...) ((void)(e), (void)sizeof err_exit(ERR_INPUT, __VA_ARGS__), err_damaged())
#else
#define err_packed(e, ...) err_set(e, ERR_INPUT, __VA_ARGS__)
#endif

/* err_nomem - the message for an allocation of n bytes for `what` that failed. Returns
 * ERR_RESOURCE. The runner inside a submission says no more than that memory is short. */
#ifdef RUNNER
enum err_code err_memory(void) __attribute__((noreturn));
#define err_nomem(e, what, n) ((void)(e), (void)(what), (void)(n), err_memory())
#else
enum err_code err_nomem(struct err *e, const char *what, unsigned long long n);
#endif

#endif
