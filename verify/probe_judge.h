/*
 * probe_judge.h - from what a probe has seen to a verdict, the four conditions, and reasons.
 *
 * The conditions are those that the challenge's community settled on (openai/parameter-golf issue
 * #1017), for the score of token t:
 *   1 causal dependence         p_t depends on the file and on x_1..x_{t-1} only
 *   2 a full distribution       p_t is one over the whole vocabulary, fixed before x_t is seen
 *   3 score before update       it is final before any state is updated with x_t
 *   4 one pass, left to right   no rescoring, no second pass, no choice among passes
 *
 * From outside:
 *   1, 3  no   a score changed when only later tokens did
 *         yes  none did, and the sums over all candidates are 1, so x_t itself did not help either
 *   2     no   a score is below 0 or no number; or a sum is not 1 although no later token matters
 *         yes  all sums are 1
 *   4     no   a score changed with a token that is farther behind than a window and a batch of
 *              windows reach: the text was visited before, in another pass
 *         yes  1 is yes, and the scores are those of all tokens in order
 * Anything else is not checked. Where a score depends on later tokens, a sum above 1 is no sign of
 * bad arithmetic: each summand is a probability out of another distribution. A sum alone, in turn,
 * cannot say whether it is a look at x_t or bad arithmetic. And a leak that stays near may take one
 * pass or two. Yes means that these tests found nothing; they are a sample of places, drawn by the
 * seed.
 */
#ifndef VERIFY_PROBE_JUDGE_H
#define VERIFY_PROBE_JUDGE_H

#include "verify/probe_flip.h"

enum probe_answer { PROBE_UNCHECKED, PROBE_YES, PROBE_NO };
const char *probe_answer_name(enum probe_answer a); /* "not checked", "yes", "no" */

enum { PROBE_CONDITIONS = SCORE_CONDITIONS };

/* probe_claims - what a program says of itself: "conditions MODE: 1 causal:yes 2 normalised:..."
 * (score_report). A condition that the line does not name is left unchecked. */
void probe_claims(enum probe_answer claim[PROBE_CONDITIONS], const char *line);

/* The changes of one form, added up. */
struct probe_form {
    size_t changes; /* streams that were changed */
    size_t earlier, changed, beyond, distance;
    size_t worst_at;
    double worst, sum;
};
void probe_form_add(struct probe_form *f, const struct probe_change *c);

struct probe_facts {
    char failed[240];       /* why it could not be probed; "" when it could */
    size_t expected, count; /* scores by the window list; scores sent */
    size_t unlike;          /* scores that differ between two runs of one stream */
    size_t impossible;      /* below 0 or not finite */
    size_t stuck, judged;   /* see probe_stuck_count */
    struct probe_form form[2];
    size_t sums;            /* places where the sum was taken */
    size_t sums_off;        /* of them, those where it is not 1, beyond doubt */
    size_t sums_vague;      /* and those whose sample says too little */
    double sum_worst;       /* the sum that is farthest from 1 among those that are off */
    double ln_sum;          /* mean of ln sum over the places: nats per token */
    double bytes_per_token; /* of the probed stream; 0: no byte table */
    size_t near;            /* how far a window and a batch of windows reach, in tokens */
    char line[200];         /* what is wrong with its result line; "" when nothing is */
    enum probe_answer claim[PROBE_CONDITIONS]; /* what it says of itself */
};

enum { PROBE_REASONS = 8 };
struct probe_verdict {
    bool confirmed;      /* causal and normalised, and nothing else is wrong */
    const char *verdict; /* "causal", "not causal", "not normalised", "not repeatable",
                            "incomplete", "misreported", "causal, normalisation not checked",
                            "not run" */
    enum probe_answer condition[PROBE_CONDITIONS];
    char reason[PROBE_REASONS][200];
    size_t reasons;
};

/*
 * probe_judge_sum - add a sum with its standard error to the facts.
 *
 * Off: farther from 1 than 1e-3 (scores are rounded to float32, and there are V of them) and four
 * standard errors. Vague: not off, and four standard errors are more than 2e-2.
 */
void probe_judge_sum(struct probe_facts *f, double sum, double error);

void probe_judge(struct probe_verdict *v, const struct probe_facts *f);

/* probe_bpb - nats per token as bits per byte; 0 when the bytes are not known. */
double probe_bpb(double nats, double bytes_per_token);

#endif
