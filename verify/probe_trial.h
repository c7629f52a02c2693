/*
 * probe_trial.h - the state of a probe and of one mode's part in it. Private to verify/probe.c and
 * verify/probe_trial_sums.c.
 */
#ifndef VERIFY_PROBE_TRIAL_H
#define VERIFY_PROBE_TRIAL_H

#include "verify/probe_engine.h"
#include "verify/probe_judge.h"
#include "verify/probe_sum.h"
#include "verify/progress.h"
#include "verify/report.h"

struct probe {
    const struct options *o;
    struct report *r;
    struct probe_file file;
    struct engine engine; /* of the file's weights, when a sample needs it */
    struct probe_dir dir;
    uint16_t *data; /* [n] the validation stream */
    size_t n;
    size_t workers;
    struct progress progress;
    bool told; /* the sandbox has been described */
};

/* One mode on its stream. */
struct probe_trial {
    struct probe *p;
    enum eval_mode mode;
    struct probe_job job;
    uint64_t random;
    uint16_t *tok, *changed; /* [n] the stream; a copy for changes */
    size_t n, from;          /* its length and its place in the data */
    struct probe_map map;
    struct probe_scores base;
    struct probe_stuck stuck;
    struct probe_facts facts;
    size_t runs, planned; /* of the flip test */
    cJSON *json;
};

/* probe_trial_show - the progress line: run `done` of `all` of what is going on. */
void probe_trial_show(struct probe_trial *t, const char *what, size_t done, size_t all);

/*
 * probe_trial_sums - the sums of a mode: places, runs, report and facts.
 *
 *   stop  out: the program failed; facts.failed says how
 */
enum err_code probe_trial_sums(struct probe_trial *t, bool *stop, struct err *e);

#endif
