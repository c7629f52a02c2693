/*
 * submit.h - a leaderboard folder from several runs of one recipe (docs/submit.md).
 *
 * Three steps: read the runs, judge them by the challenge's rules, write the folder. A folder is
 * written only when no rule is broken.
 */
#ifndef PACKER_SUBMIT_H
#define PACKER_SUBMIT_H

#include "model/stats.h"
#include "packer/submit_run.h"

enum {
    SUBMIT_RUNS = 16,
    SUBMIT_CHECKS = 160,
    SUBMIT_LIMIT = 16000000, /* bytes, decimal (R-SIZE) */
    SUBMIT_TRAIN_MS = 600000 /* R-TRAIN-TIME */
};

/* What the person says. Strings may be NULL, except out and track. */
struct submit_job {
    const char *dir[SUBMIT_RUNS];
    size_t runs;
    const char *out;
    const char *name, *author, *github, *blurb, *date; /* date: YYYY-MM-DD */
    const char *track; /* "10min_16mb" makes R-TRAIN-TIME, three runs and the names compulsory */
    double sota[SUBMIT_RUNS]; /* val_bpb of the runs to beat */
    size_t sotas;
    bool force; /* replace a folder that submit_write wrote */
};

/* One rule of docs/rules.md applied to one run (or all); text has the numbers. */
enum submit_verdict { SUBMIT_KEPT, SUBMIT_BROKEN, SUBMIT_OPEN };
struct submit_check {
    const char *rule;
    enum submit_verdict verdict; /* OPEN: not checked, or it does not bind in this track */
    char text[224];
};

struct submit {
    const struct submit_job *job;
    struct submit_run run[SUBMIT_RUNS]; /* ascending seed */
    size_t runs, worst;                 /* worst: index of the largest file */
    struct stats bpb, loss, own;        /* of the values of record; own: of the file's own mode */
    double scale;                       /* tokens per byte, from the first run */
    struct submit_check check[SUBMIT_CHECKS];
    size_t checks, broken;
};

/* submit_open - read all runs, sort them by seed, apply every rule. Broken rules are no error here:
 * s->broken counts them. ERR_INPUT when a run cannot be read. submit_close accepts a zeroed struct.
 */
enum err_code submit_open(struct submit *s, const struct submit_job *job, struct err *e);
void submit_close(struct submit *s);

/* submit_judge - the rules alone, on runs that are in s->run[0..runs). */
void submit_judge(struct submit *s);

/*
 * submit_write - the folder job->out: README.md, submission.json, recipe.conf, and for each run
 * train_seedN.log, submission_seedN, verify_seedN.json. It is made beside its place and renamed, so
 * that it is there completely or not at all.
 *
 * Fails: ERR_USAGE when the folder exists without job->force, or holds a file that this function
 * did not write; ERR_RESOURCE when it cannot be written.
 */
enum err_code submit_write(const struct submit *s, struct err *e);

/* submit_readme, submit_json - the texts of README.md and submission.json; for the caller to
 * free(), NULL without memory. */
char *submit_readme(const struct submit *s);
char *submit_json(const struct submit *s);

/* submit_date - job->date, or today's (UTC) into buf[16]. */
const char *submit_date(const struct submit_job *job, char *buf);

/* submit_name - job->name, or the RUN_ID of the recipe without its seed, or the folder's name. */
const char *submit_name(const struct submit *s, char *buf, size_t cap);

#endif
