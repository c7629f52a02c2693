/*
 * record_code.h - the discrepancies that an audit can find: code, severity, meaning, rule.
 *
 * The codes are part of the JSON output and stay as they are. docs/audit.md lists them.
 */
#ifndef VERIFY_RECORD_CODE_H
#define VERIFY_RECORD_CODE_H

#include <stddef.h>

enum record_severity {
    RECORD_INFO, /* worth knowing */
    RECORD_WARN, /* should be explained or mended */
    RECORD_FAIL, /* a rule is broken, evidence is missing, or a claim is contradicted */
    RECORD_SEVERITIES
};
extern const char *const record_severity_name[RECORD_SEVERITIES];

/* X(enumerator, code, severity, rule of docs/rules.md, meaning) */
#define RECORD_CODES(X)                                                                            \
    X(RC_JSON_MISSING, "json-missing", FAIL, "R-FILES", "no submission metadata")                  \
    X(RC_JSON_INVALID, "json-invalid", FAIL, "R-METADATA", "the metadata is no valid JSON object") \
    X(RC_JSON_TWICE, "json-duplicate-key", WARN, "R-METADATA",                                     \
      "a key stands twice; readers differ on which counts")                                        \
    X(RC_JSON_LIKE, "json-lookalike-key", FAIL, "R-METADATA",                                      \
      "a key looks like one that is read and is another one")                                      \
    X(RC_JSON_NAME, "json-name", WARN, "R-FILES",                                                  \
      "the metadata file has another name than submission.json")                                   \
    X(RC_JSON_NO_BPB, "json-no-val_bpb", FAIL, "R-METADATA", "no numeric val_bpb")                 \
    X(RC_JSON_UNIT, "json-wrong-unit", FAIL, "R-METADATA", "a BPB stands under val_loss")          \
    X(RC_JSON_NO_LOSS, "json-no-val_loss", INFO, "R-METADATA", "no numeric val_loss")              \
    X(RC_JSON_NO_TOTAL, "json-no-bytes_total", INFO, "R-METADATA", "no total bytes")               \
    X(RC_JSON_NO_CODE, "json-no-bytes_code", INFO, "R-METADATA", "no code bytes")                  \
    X(RC_JSON_KEY, "json-key-variant", INFO, "R-METADATA", "a value stands under an unusual key")  \
    X(RC_JSON_IDENTITY, "json-identity", INFO, "R-METADATA", "author, github_id or name absent")   \
    X(RC_README_MISSING, "readme-missing", FAIL, "R-FILES", "no README.md")                        \
    X(RC_SCRIPT_MISSING, "script-missing", FAIL, "R-FILES", "no script in the folder")             \
    X(RC_SCRIPT_EMPTY, "script-empty", FAIL, "R-FILES", "the script has 0 bytes")                  \
    X(RC_LOGS_MISSING, "logs-missing", FAIL, "R-FILES", "no training log")                         \
    X(RC_BPB, "bpb-mismatch", FAIL, "R-REPRODUCIBLE", "the claimed BPB is no result of a log")     \
    X(RC_UNREAD, "bpb-unread-label", WARN, "R-REPRODUCIBLE",                                       \
      "the claimed BPB is in a log under a label that is read as no result")                       \
    X(RC_BEST_SEED, "headline-best-seed", WARN, "R-SIGNIFICANCE",                                  \
      "the claimed BPB is the best seed, not the mean")                                            \
    X(RC_ONE_SEED, "headline-one-seed", WARN, "R-SIGNIFICANCE",                                    \
      "the claimed BPB is one seed, neither best nor mean")                                        \
    X(RC_PERIODIC, "headline-from-periodic", FAIL, "R-SIGNIFICANCE",                               \
      "the claimed BPB is a validation during training, of the model before quantisation")         \
    X(RC_LOSS, "loss-mismatch", WARN, "R-REPRODUCIBLE", "the claimed val_loss is in no log")       \
    X(RC_SEED_LOG, "seed-log-missing", FAIL, "R-SEEDS", "a claimed seed has no log")               \
    X(RC_SEED_LABEL, "seed-label-mismatch", FAIL, "R-SEEDS",                                       \
      "a file is named for one seed and prints another")                                           \
    X(RC_SEED_STEPS, "seed-steps-mismatch", WARN, "R-REPRODUCIBLE",                                \
      "a claimed step count differs from the log")                                                 \
    X(RC_SEED_BYTES, "seed-bytes-mismatch", WARN, "R-COUNT",                                       \
      "claimed bytes of a seed differ from its log")                                               \
    X(RC_SEED_BPB, "seed-bpb-mismatch", FAIL, "R-REPRODUCIBLE",                                    \
      "the claimed BPB of a seed differs from its log")                                            \
    X(RC_SEED_ELSEWHERE, "seed-score-elsewhere", WARN, "R-SEEDS",                                  \
      "the score of a claimed seed is in the log of another seed")                                 \
    X(RC_FEW_SEEDS, "fewer-than-3-seeds", WARN, "R-SIGNIFICANCE",                                  \
      "a record with logs of fewer than three seeds")                                              \
    X(RC_STD_POP, "std-population", WARN, "R-SIGNIFICANCE",                                        \
      "the claimed standard deviation divides by n")                                               \
    X(RC_STD, "std-mismatch", WARN, "R-SIGNIFICANCE",                                              \
      "the claimed standard deviation is neither that by n nor by n-1")                            \
    X(RC_LOG_CAP, "log-total-over-cap", FAIL, "R-SIZE",                                            \
      "a log prints a total over 16,000,000 bytes")                                                \
    X(RC_FILE_CAP, "file-over-cap", FAIL, "R-SIZE",                                                \
      "an executable submission is over 16,000,000 bytes")                                         \
    X(RC_JSON_CAP, "json-total-over-cap", FAIL, "R-SIZE",                                          \
      "the claimed total is over 16,000,000 bytes")                                                \
    X(RC_NO_CODE, "artifact-excludes-code", FAIL, "R-COUNT",                                       \
      "the claimed bytes are those of the model alone")                                            \
    X(RC_TOTAL, "total-bytes-mismatch", WARN, "R-COUNT", "the claimed total is in no log")         \
    X(RC_TOTAL_SEED, "total-not-worst-seed", WARN, "R-COUNT",                                      \
      "the claimed total is not the largest logged one")                                           \
    X(RC_TOTAL_MEAN, "total-is-mean", INFO, "R-COUNT",                                             \
      "the claimed total is the mean over the seeds")                                              \
    X(RC_ROUND, "json-round-bytes", WARN, "R-COUNT", "the claimed bytes are a rounded figure")     \
    X(RC_CODE_GIT, "code-size-vs-git", WARN, "R-COUNT",                                            \
      "the code size in the logs is not that of the script")                                       \
    X(RC_JSON_CODE, "json-code-vs-git", WARN, "R-COUNT",                                           \
      "the claimed code bytes are not those of the script")                                        \
    X(RC_CODE_LOGS, "code-size-differs-between-logs", WARN, "R-COUNT",                             \
      "the logs counted different code")                                                           \
    X(RC_COMPRESSED, "code-counted-compressed-unshipped", WARN, "R-COUNT",                         \
      "the logs count a compressed copy of the script that is not in the folder")                  \
    X(RC_SHIPPED, "as-shipped-over-cap", WARN, "R-SIZE",                                           \
      "largest model and script as shipped pass the cap")                                          \
    X(RC_OUTSIDE, "code-outside-count", FAIL, "R-COUNT",                                           \
      "the script loads code that the count leaves out")                                           \
    X(RC_SHIPPED_SIBLINGS, "as-shipped-over-cap-with-siblings", FAIL, "R-SIZE",                    \
      "with that code the cap is passed")                                                          \
    X(RC_SELF_SIZE, "wrapper-self-size", INFO, "R-COUNT",                                          \
      "a wrapper states a size that is not its own")                                               \
    X(RC_INDIRECT, "script-indirect", WARN, "R-COUNT", "the script only executes another file")    \
    X(RC_SCRIPT_NAME, "script-name", WARN, "R-FILES", "the script is not called train_gpt.py")     \
    X(RC_SYNTAX, "script-syntax-3.11", WARN, "R-RUNS", "the script needs Python 3.12 or newer")    \
    X(RC_SOURCE, "logged-source-differs", WARN, "R-LOG",                                           \
      "the script printed in a log is not in the folder")                                          \
    X(RC_INTERLEAVED, "log-interleaved", WARN, "R-LOG", "a log holds the same run twice, mixed")   \
    X(RC_DUPLICATE, "log-duplicate", WARN, "R-SEEDS", "two logs are equal byte for byte")          \
    X(RC_ALIAS, "label-alias", INFO, "R-LOG",                                                      \
      "a label repeats the value of another kind of score")                                        \
    X(RC_TRAIN_STEP, "train-time-over-600s-within-one-step", INFO, "R-TRAIN-TIME",                 \
      "training stopped up to 1,000 ms late")                                                      \
    X(RC_TRAIN, "train-time-over-601s", FAIL, "R-TRAIN-TIME",                                      \
      "training stopped more than 1,000 ms late")                                                  \
    X(RC_CALIBRATION, "calibration-beyond-600s", WARN, "R-CALIBRATION",                            \
      "training and calibration exceed 600 s")                                                     \
    X(RC_POST_GPTQ, "post-gptq-over-600s", WARN, "R-TRAIN-TIME",                                   \
      "elapsed time after GPTQ exceeds the log's own limit")                                       \
    X(RC_ARTIFACT, "artifact-production-over-600s", WARN, "R-TRAIN-TIME",                          \
      "elapsed time at the artifact exceeds the log's own limit")                                  \
    X(RC_EVAL, "eval-time-over-600s", WARN, "R-EVAL-TIME",                                         \
      "evaluation exceeds 600 s by its own timer")                                                 \
    X(RC_EVAL_WARMUP, "eval-plus-warmup-over-600s", WARN, "R-EVAL-TIME",                           \
      "evaluation and the compile warm-up outside its timer exceed 600 s")                         \
    X(RC_DENOMINATOR, "denominator-off", FAIL, "R-BYTES",                                          \
      "loss and BPB imply a byte count that is not the text's")                                    \
    X(RC_PARTIAL, "val-partial", FAIL, "R-VAL-SET",                                                \
      "less than half of the validation text was scored")                                          \
    X(RC_PAIRS, "denominators-differ", WARN, "R-BYTES",                                            \
      "two results of one log were divided by different bytes")                                    \
    X(RC_TAIL, "val-tail-dropped", WARN, "R-VAL-SET",                                              \
      "long sequences drop the end of the validation text")                                        \
    X(RC_SHARDS, "train-shards-differ", WARN, "R-SEEDS",                                           \
      "headline seeds trained on different numbers of shards")                                     \
    X(RC_CONDITION, "condition-not-met", WARN, "R-C1 to R-C4",                                     \
      "the script's method of scoring reads as if a condition is not met")                         \
    X(RC_README, "readme-vs-json", WARN, "R-REPRODUCIBLE",                                         \
      "the README's headline differs from the metadata")                                           \
    X(RC_BOARD, "leaderboard-vs-json", WARN, "R-REPRODUCIBLE",                                     \
      "the leaderboard's score differs from the metadata")                                         \
    X(RC_NOT_ON_BOARD, "not-on-leaderboard", INFO, "R-FOLDER",                                     \
      "the leaderboard has no row for this folder")

enum record_code {
#define X(id, code, severity, rule, meaning) id,
    RECORD_CODES(X)
#undef X
        RECORD_CODE_COUNT
};

struct record_code_info {
    const char *code;
    enum record_severity severity;
    const char *rule, *meaning;
};
extern const struct record_code_info record_code_info[RECORD_CODE_COUNT];

#endif
