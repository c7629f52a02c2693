/*
 * record.h - the audit of a leaderboard folder: claims, evidence, discrepancies.
 *
 * Three kinds of statements are kept apart. Facts are what the files say (struct record_log, _meta,
 * _script, _size). Findings are discrepancies between two facts, or between a fact and a rule
 * (docs/rules.md), each with a code, a severity and the places that it rests on. What an audit of
 * text files cannot know is listed as not checked. A claim is contradicted only where evidence in
 * the folder says otherwise; a claim without evidence is unsupported, which is not the same.
 */
#ifndef VERIFY_RECORD_H
#define VERIFY_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "verify/record_board.h"
#include "verify/record_code.h"
#include "verify/record_folder.h"
#include "verify/record_line.h"
#include "verify/record_log.h"
#include "verify/record_meta.h"
#include "verify/record_script.h"
#include "model/stats.h"

/* Rules of the challenge (README of github.com/openai/parameter-golf) and tolerances. */
#define RECORD_CAP        16000000u /* bytes, decimal */
#define RECORD_MIB        16777216u /* what "16MB" is taken for by mistake */
#define RECORD_TRAIN_MS   600000.0  /* training */
#define RECORD_GRACE_MS   1000.0    /* the stop test runs once per step */
#define RECORD_EVAL_S     600.0     /* evaluation, a budget of its own */
#define RECORD_BPB_TOL    1e-4      /* a claimed BPB must be found within this */
#define RECORD_README_TOL 5.0001e-4 /* scores in prose and tables are rounded to 3 decimals */
#define RECORD_DENOM_TOL  0.002     /* relative, of bytes per token and bytes */
#define RECORD_GAIN_NATS  0.005     /* a record must be better by this much */
#define RECORD_SEEDS      3         /* logs that show a mean */

enum { RECORD_HEADS = 64, RECORD_AT = 4, RECORD_FINDINGS = 512, RECORD_UNCHECKED = 24 };

/* A place in a file of the folder. line 0: the file as a whole. */
struct record_at {
    const char *file;
    size_t line;
};

struct record_finding {
    enum record_code code;
    enum record_severity severity;
    char *text; /* owned */
    struct record_at at[RECORD_AT];
    size_t ats;
};

enum record_basis {
    BASIS_NONE,     /* no claim, or no log */
    BASIS_MEAN,     /* mean of the headline logs */
    BASIS_KIND,     /* mean of another kind of result, which all headline logs have */
    BASIS_SINGLE,   /* the headline of one log */
    BASIS_LINE,     /* another result line of a log */
    BASIS_PERIODIC, /* a validation during training */
    BASIS_UNREAD,   /* a BPB under a label that is read as no result, or their mean over logs */
    BASIS_NOWHERE,  /* in no log */
};

enum claim_state { CLAIM_NOT_MADE, CLAIM_CONFIRMED, CLAIM_UNSUPPORTED, CLAIM_CONTRADICTED };
extern const char *const claim_state_name[];

/* The claims that the exit status rests on. */
enum record_claim {
    RCLAIM_BPB,
    RCLAIM_LOSS,
    RCLAIM_STD,
    RCLAIM_TOTAL,
    RCLAIM_SEEDS,
    RCLAIM_CAP,
    RCLAIM_COUNT
};
extern const char *const record_claim_name[RCLAIM_COUNT];

/* Bytes; 0 where nothing says so. */
struct record_size {
    uint64_t script;    /* the main script as it lies in the folder */
    uint64_t effective; /* with the file that it executes */
    uint64_t siblings;  /* imported or loaded code beside it */
    uint64_t tokenizer; /* *.model files in the folder, counted by nobody */
    uint64_t weights;   /* packed weights in the folder */
    uint64_t program;   /* the largest executable, in a folder without a script; 0: none */
    const char *program_path;
    uint64_t code[RECORD_HEADS], plain[RECORD_HEADS]; /* printed by the logs, different ones, up */
    size_t codes, plains;
    uint64_t model;              /* largest packed model in the headline logs */
    uint64_t total;              /* largest total in them */
    bool rounded;                /* that total was printed in MB only */
    bool claims_shipped;         /* the claimed total is the script here and a log's model */
    size_t model_log, total_log; /* which log says so */
    uint64_t shipped;            /* model + effective */
    uint64_t shipped_siblings;
};

/* A log beyond its text. */
struct record_run {
    struct record_log log;
    const struct record_file *file;
    size_t duplicate_of;     /* index of an identical one, SIZE_MAX: none */
    bool headline;           /* its score is averaged */
    bool source_same;        /* the printed script is in the folder */
    const char *source_file; /* that file */
    double bytes_per_token;  /* of the headline, NaN: unknown */
    uint64_t tokens;         /* scored, by the result line or by val_tokens; 0: not told */
    size_t tokens_line;
    double val_bytes;        /* their product, NaN: unknown */
    const char *denominator; /* name of the known one that it is, NULL: none of them */
    bool denominator_launch; /* the launch-day split, which no later record used */
    bool partial;            /* less than half of the text was scored */
    bool loss_per_byte;      /* loss / ln 2 is the BPB: nothing is told about tokens */
    size_t odd_pair;         /* line of a result with other bytes per token than the headline, 0 */
};

struct record {
    struct record_folder folder;
    enum record_track track;
    char track_why[64];
    struct record_meta meta;
    struct record_run *run; /* by path; owned */
    size_t runs;
    size_t head[RECORD_HEADS]; /* the headline logs, indices into run */
    size_t heads;
    struct stats bpb, loss; /* over them */
    /* Of the results that the claim is the mean of: those of the headlines, but for BASIS_KIND. */
    struct stats claim_bpb, claim_loss;
    enum record_basis basis;
    char basis_text[160];
    size_t basis_run, basis_line;      /* for single, line, periodic and unread */
    const struct log_said *basis_said; /* for unread; for nowhere the validation that has it */
    size_t basis_n;                    /* for unread: logs that the mean is of */
    int std_convention;                /* 0 none or unknown, 1 sample (n-1), 2 population (n) */
    bool wrong_unit;                   /* a BPB stands under val_loss */
    struct record_script script;
    struct record_size size;
    struct board board;          /* the leaderboard that was found, rows 0: none */
    const struct board_row *row; /* this folder's row, NULL: none */
    struct record_finding finding[RECORD_FINDINGS];
    size_t findings, findings_dropped;
    size_t count[RECORD_SEVERITIES];
    enum claim_state claim[RCLAIM_COUNT];
    char unchecked[RECORD_UNCHECKED][160];
    size_t uncheckeds;
};

/*
 * record_audit - read and judge one folder.
 *
 *   board  path of a leaderboard (a README with "| Run | Score |"), NULL: looked for in the folders
 *          above, up to four levels
 *   track  RECORD_TRACK_UNKNOWN: from the path, the metadata or the README
 *
 * ERR_INPUT: the folder cannot be read, or holds nothing; ERR_RESOURCE: no memory. Damaged metadata
 * or logs are findings, not errors. r is large (keep it on the heap); release with record_free in
 * every case.
 */
enum err_code record_audit(struct record *r, const char *dir, const char *board,
                           enum record_track track, struct err *e);

/* record_audit_files - the same for r->folder as it is (record_folder_add); all else of r is zero.
 * folder.dir may be NULL: then no leaderboard is looked for. */
enum err_code record_audit_files(struct record *r, const char *board, enum record_track track,
                                 struct err *e);
void record_free(struct record *r); /* accepts a zeroed struct */

/* record_contradicted - is any claim contradicted? */
bool record_contradicted(const struct record *r);

/* ---- for the checks ---- */

/* record_find - one finding, with the severity of its code. file NULL: it rests on no single place;
 * line 0: on the file as a whole. More places with record_also. */
struct record_finding *record_find(struct record *r, enum record_code code, const char *file,
                                   size_t line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void record_also(struct record_finding *f, const char *file, size_t line);

/* record_unchecked - one thing that was not checked, and why. */
void record_unchecked(struct record *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* record_method_used - is this method of the script used: by its settings, or because a headline
 * log has its name? */
bool record_method_used(const struct record *r, const struct method_facts *m);

/* record_count - n with commas, "15,863,489". Valid for the next seven calls. */
const char *record_count(uint64_t n);

/* The steps of record_audit, in this order, each in the file of its name. */
void record_choose_heads(struct record *r); /* record_basis.c: headline logs, mean, claim basis */
void record_denominators(struct record *r); /* record_denom.c */
void record_sizes(struct record *r);        /* record_size.c */
void record_check_meta(struct record *r);   /* record_check_meta.c: metadata and its numbers */
void record_check_runs(struct record *r);   /* record_check_runs.c: seeds, times, data */
void record_check_sizes(struct record *r);  /* record_size.c: bytes and code */
void record_check_board(struct record *r);  /* record_board.c: leaderboard and README */
void record_judge(struct record *r);        /* record_claims.c: claims, and what was not checked */

#endif
