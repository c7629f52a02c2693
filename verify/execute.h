/*
 * execute.h - run a submission in the sandbox and compare every score with the trusted engine's.
 *
 * The file is started as a person would start it, with `--nll /dev/fd/3`: the runner writes its
 * scores to that descriptor, a pipe, while it works. Each float64 is compared as it arrives, so the
 * first difference ends the run. At the end the file's own result line must be the trusted one, but
 * for the time.
 */
#ifndef VERIFY_EXECUTE_H
#define VERIFY_EXECUTE_H

#include "verify/engine.h"
#include "verify/options.h"
#include "verify/sandbox.h"

struct execution {
    struct sandbox_result box;
    size_t compared; /* scores that arrived and were equal */
    char why[480];   /* the first thing that was wrong; "" when nothing was */
};

/*
 * execute_submission - run file[n] with the options of the command line against the scores s.
 *
 * ERR_OK: it ran; x->why says whether it agreed. Other codes as sandbox_run. Release with
 * execution_free.
 */
enum err_code execute_submission(const void *file, size_t n, const struct options *o,
                                 const struct scores *s, struct execution *x, struct err *e);
void execution_free(struct execution *x); /* accepts a zeroed struct */

/* execute_device - "--device" when file[n] is a submission with kernels for a card, and so knows
 * the option: it is to be followed by "cpu", whose bits are compared. NULL for any other file. */
const char *execute_device(const void *file, size_t n);

/*
 * nll_check - the comparison of a .npy stream that arrives in pieces; open for the tests.
 *
 * Zero-initialise, set want and count, call nll_check_take for every piece, then nll_check_end.
 * Both return ERR_CLAIM with the first difference: the header, a score (its number and both
 * values), too many, too few.
 */
struct nll_check {
    const double *want; /* [count] */
    size_t count, have;
    bool started;      /* the header is behind us */
    uint8_t buf[8192]; /* what is not yet interpreted; a header is at most about half of it */
    size_t held;
};
enum err_code nll_check_take(struct nll_check *c, const uint8_t *p, size_t n, struct err *e);
enum err_code nll_check_end(const struct nll_check *c, struct err *e);

#endif
