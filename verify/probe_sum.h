/*
 * probe_sum.h - do the probabilities of all tokens at one place add up to 1?
 *
 * Score t of a stream is -ln p(x_t). Put each token v of the vocabulary in the place of x_t, one
 * run each, and read score t only: when p is a distribution that was fixed before x_t was looked
 * at, the sum of exp(-score) over all v is 1. A method that adapts to the very token that it scores
 * (SLOT on scored positions) gives each v a better probability than the one distribution that it
 * could have fixed beforehand; the sum S exceeds 1, and ln S is what the score gained unfairly, in
 * nats, on a token drawn from that inflated list. The sum is a proof: no reading of code.
 *
 * Where V runs are too many, a sample of them says nearly as much, given any distribution q that is
 * close to p: S = 1 + sum of (p_v - q_v), and the sum is estimated from n tokens drawn from
 * m = (q + uniform) / 2 as the mean of (p_v - q_v) / m_v (importance sampling with q as control
 * variate; m keeps the weights below 2V). Where p is q, every term is 0 and so is the error.
 */
#ifndef VERIFY_PROBE_SUM_H
#define VERIFY_PROBE_SUM_H

#include "verify/probe_run.h"

/* One place where the sum is taken. */
struct probe_sum {
    size_t token;  /* index in the short stream of the token that is replaced */
    size_t stream; /* tokens of the short stream */
    size_t from;   /* where it begins in the data */
    size_t runs;   /* V, or the size of the sample */
    double sum;    /* of the probabilities */
    double error;  /* standard error of the sum; 0 when all were added up */
};

/* Progress: called from the thread that called, now and then. */
typedef void probe_sum_show(void *ctx, size_t done, size_t all);

/* How candidates are run. */
struct probe_bench {
    const struct probe_job *job; /* job->threads for each run */
    enum eval_mode mode;
    size_t workers; /* runs at a time */
    probe_sum_show *show;
    void *ctx;
};

/*
 * probe_sum_all - run every candidate. probe_sum_sample - run n of them.
 *
 *   tok, s->stream  the short stream; tok[s->token] is replaced in copies of it
 *   s               in: token, stream; out: runs, sum, error
 *   q               [vocab] a distribution at that place
 *   random          state of the random numbers
 *
 * Errors as probe_run (the first that a worker met) and probe_map_make.
 */
enum err_code probe_sum_all(const struct probe_bench *b, const uint16_t *tok, struct probe_sum *s,
                            struct err *e);
enum err_code probe_sum_sample(const struct probe_bench *b, const uint16_t *tok,
                               struct probe_sum *s, const double *q, size_t n, uint64_t *random,
                               struct err *e);

/* probe_estimate - the sum and its standard error from p[n] of the candidates v[n], drawn from m.
 */
void probe_estimate(struct probe_sum *s, const double *p, const uint16_t *v, size_t n,
                    const double *q, size_t vocab);

#endif
