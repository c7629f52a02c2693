/*
 * submit_run.h - what one run left behind: its log, its packed file, and what verify said about it.
 *
 *   DIR/train.log                 as trainer writes it (docs/training.md)
 *   DIR/submission                as `packer pack ... -o DIR/submission` writes it
 *   DIR/verify.json               `verify blob DIR/submission --data DATA --json`
 *   DIR/model.quant.safetensors   optional: the weights that were packed
 *
 * Nothing is believed that can be checked: the submission is read by packer/blob.h with every hash,
 * and verify.json counts only for the file whose section hashes it holds.
 */
#ifndef PACKER_SUBMIT_RUN_H
#define PACKER_SUBMIT_RUN_H

#include <stdbool.h>

#include "model/recipe.h"
#include "packer/blob.h"
#include "packer/digest.h"

enum { SUBMIT_PATH = 1024, SUBMIT_WORD = 64 };

/* A score as verify.json has it. */
struct submit_score {
    char mode[SUBMIT_WORD]; /* one of EVAL_MODE_NAMES */
    double val_loss, val_bpb;
    uint64_t tokens, bytes, time_ms;
};

struct submit_run {
    const char *dir;
    char label[32]; /* "seed 42": what a published folder calls it */
    /* the log; NAN where it has no such line */
    void *log;
    size_t log_n;
    bool has_seed, has_recipe;
    long long seed;
    size_t steps;
    double train_ms, pre_bpb, trip_bpb; /* before quantising; the quantised weights read back */
    struct recipe recipe;               /* all settings of the training */
    /* the submission */
    void *file;
    struct blob blob;         /* points into file */
    char sha256[DIGEST_TEXT]; /* of all its bytes */
    struct recipe scoring;
    bool has_weights, same_weights; /* of model.quant.safetensors */
    /* verify.json; has_report false: there is none, why_report says what is wrong with one that
     * does not belong to the file */
    void *report;
    size_t report_n;
    bool has_report, verified, executed, identical, partial;
    char why_report[160], why_verdict[256];
    char byte_table[SUBMIT_WORD], nll_xxh64[SUBMIT_WORD];
    char stream_xxh64[SUBMIT_WORD]; /* of the tokens that were read; "": an older report */
    struct submit_score own;        /* of the mode that the file scores with */
    struct submit_score record;     /* the value of record: equal to own unless the mode adapts */
    bool adapts;
    uint64_t stream_tokens;
};

/* submit_run_read - ERR_INPUT with file and reason: no log, no submission, or either is damaged, or
 * verify.json is no JSON. `dir` must outlive r. On failure nothing is held. */
enum err_code submit_run_read(struct submit_run *r, const char *dir, struct err *e);
void submit_run_free(struct submit_run *r); /* accepts a zeroed struct */

/* submit_log_parse - only the fields of the log, from r->log; part of submit_run_read. */
enum err_code submit_log_parse(struct submit_run *r, const char *path, struct err *e);

/* submit_report_parse - only the fields of verify.json, from r->report and r->blob. ERR_INPUT when
 * it is no JSON object. */
enum err_code submit_report_parse(struct submit_run *r, const char *path, struct err *e);

#endif
