/*
 * record_log.h - what a training log says: scores, sizes, times, seeds, each with its line.
 *
 * Lines are told apart by families, not by scripts: a result is a line with val_loss and val_bpb
 * whose label is none of a step counter, a running value or a diagnosis of the model before
 * quantisation. Where a file holds several runs one after the other, the last one counts. A script
 * that was printed into the log is recognised and never read as results.
 *
 * Which result is the headline (rule of the field, checked against the 165 logs of the public
 * repository): the last one of the most adapted kind, test-time training before sliding window
 * before round trip; but a kind that is worse than a simpler one by more than 0.02 BPB is passed
 * over, because then the adaptation diverged.
 */
#ifndef VERIFY_RECORD_LOG_H
#define VERIFY_RECORD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum {
    LOG_FINALS = 4096, /* result lines kept; the first ones of more are dropped */
    LOG_SEEDS = 16,    /* different printed seeds kept */
    LOG_TIMES = 64,    /* time lines kept */
    LOG_SAID = 1024,   /* other numbers behind a "bpb" kept, half of them of training at most */
    LOG_LABEL = 64,
    LOG_KEY = 32,
};

enum metric_kind {
    METRIC_NONE,      /* running, diagnostic or unquantised: never a result */
    METRIC_OTHER,     /* a result line of no known kind */
    METRIC_ROUNDTRIP, /* packed, unpacked, scored in windows side by side */
    METRIC_SLIDING,   /* overlapping windows */
    METRIC_ADAPTED,   /* test-time training, SLOT, n-gram or byte mixtures */
    METRIC_KINDS
};
extern const char *const metric_kind_name[METRIC_KINDS];

struct metric {
    char label[LOG_LABEL];
    enum metric_kind kind;
    size_t line;
    double val_loss, val_bpb; /* NaN: not in the line */
    int decimals;             /* of val_bpb */
    double eval_ms;           /* NaN: not in the line */
    uint64_t tokens, bytes;   /* scored, as the line says; 0: not in the line */
    long stride, seq;         /* 0: not in the line */
};

/* A number of bytes or tokens with its line; line 0: not found. */
struct log_count {
    uint64_t v;
    size_t line;
    bool rounded; /* was printed in MB: good to the last digit printed only */
};

/* Times that scripts print outside of the two budgets, or about them. */
enum log_time_kind {
    LOG_TIME_HESSIANS,  /* collecting Hessians, calibrating */
    LOG_TIME_GENERATED, /* sampling calibration text from the model */
    LOG_TIME_QUANTISE,  /* quantising, whole or in part */
    LOG_TIME_SERIALISE, /* compressing and writing */
    LOG_TIME_WARMUP,    /* compiling for evaluation, outside its timer */
    LOG_TIME_EVAL,      /* total_eval_time */
    LOG_TIME_POST_GPTQ, /* elapsed since the start, printed after quantising */
    LOG_TIME_ARTIFACT,  /* elapsed since the start, printed when the artifact was written */
    LOG_TIME_KINDS
};
extern const char *const log_time_name[LOG_TIME_KINDS];
struct log_time {
    enum log_time_kind kind;
    double seconds;
    double limit; /* the limit that the line itself names, 0: none */
    size_t line;
};

/* A BPB in a line that is read as no result: a validation during training, or a label that nobody
 * else uses ("mix_bpb=0.9015", "SLOT-0 BPB (full val set): 1.1854"). */
struct log_said {
    char key[LOG_KEY];
    double bpb, loss; /* loss: NaN without a val_loss in the line */
    int decimals;     /* of bpb */
    size_t line;
    bool step; /* a line of training */
};

struct log_seed {
    long long v;
    size_t line;
};

struct record_log {
    const char *path; /* the caller's */
    size_t lines;
    long long seed_named;            /* from the file name, "train_seed42.log"; -1: none */
    size_t seed_word;                /* 1: the name says "seed", so the number is meant as one */
    size_t seed_loaded;              /* line that loads a checkpoint of the seed in the name, 0 */
    struct log_seed seed[LOG_SEEDS]; /* printed, different ones in order */
    size_t seeds;
    struct metric *final; /* owned; result and diagnostic lines in order */
    size_t finals;
    size_t headline;       /* index of the headline, SIZE_MAX: none */
    struct log_said *said; /* owned; in order */
    size_t saids;
    struct metric periodic; /* last validation during training; line 0: none */
    struct log_count steps, train_ms, model, raw_model, code, code_plain, total;
    struct log_count val_tokens, train_shards, world, params;
    struct log_time time[LOG_TIMES];
    size_t times;
    size_t runs;                    /* at least 1 */
    size_t source, source_n;        /* the last printed script, in the text; n 0: none */
    size_t source_line, source_end; /* its lines */
    size_t tangled;                 /* where the same run ends a second time, 0: nowhere */
    bool wallclock_stop;            /* printed that the wallclock ended the training */
    bool bytes_sidecar;             /* prints val_bytes files: bytes counted beside the tokens */
    bool sliding_told;              /* the last final_eval_mode line says sliding windows */
    size_t limited;                 /* line that says that not all batches are scored, 0: none */
};

/*
 * record_log_parse - read n bytes of text.
 *
 *   path  kept in the result and used for the seed in the name; must outlive it
 *
 * Any bytes are accepted. ERR_RESOURCE: no memory. Release with record_log_free.
 */
enum err_code record_log_parse(struct record_log *l, const char *path, const char *text, size_t n,
                               struct err *e);
void record_log_free(struct record_log *l); /* accepts a zeroed struct */

/* record_log_is - did the text hold anything that a training log says? */
bool record_log_is(const struct record_log *l);

/* record_log_seed - the seed of the run: the one in the name, else the last printed, else -1. */
long long record_log_seed(const struct record_log *l);

/* record_log_headline - the headline metric, or NULL. */
const struct metric *record_log_headline(const struct record_log *l);

/* record_log_time - seconds of the last line of this kind, 0 when there
 * is none; *line receives its line, may be NULL. */
double record_log_time(const struct record_log *l, enum log_time_kind k, size_t *line);

/* record_log_eval - seconds of evaluation by the log's own timer: total_eval_time, else the time of
 * the headline, which a line with the same score just above "..._exact" may carry; 0: not told. */
double record_log_eval(const struct record_log *l);

/* metric_bytes_per_token - what loss and BPB of one line imply, NaN when one is missing. */
double metric_bytes_per_token(const struct metric *m);

#endif
