/*
 * script_facts.h - what a record's script does, read from its plain source and never by running it.
 *
 * The source is cut into tokens (verify/pytoken.h), so comments and strings do not mislead. What
 * comes out is of three kinds that must not be mixed up:
 *
 *   facts      what the text says, each with its line: "imports brotli", "EVAL_STRIDE defaults to
 * 64" conditions for each evaluation method found, which of the four conditions of issue #1017 it
 * meets as far as the text can tell; `COND_UNKNOWN` is "not checked" verdicts   are the caller's:
 * nothing here says that a rule is broken
 *
 * Heuristics over names can be wrong in both directions. A method is reported as `used` only where
 * the settings that switch it on are known (defaults in the source, or the settings of the log).
 */
#ifndef VERIFY_SCRIPT_FACTS_H
#define VERIFY_SCRIPT_FACTS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"

enum fact_kind {
    FACT_COMPRESSOR, /* of the weights: lzma, zlib, zstd, brotli, ... */
    FACT_QUANTISER,  /* int8, int6, GPTQ, ternary, ... */
    FACT_EVAL,       /* a method of scoring */
    FACT_BYTES,      /* how bytes are counted: byte table, sidecar, CaseOps */
    FACT_CODE_COUNT, /* what the script counts as its code size */
    FACT_IMPORT,     /* a module that is neither the standard library nor a stock package */
    FACT_FILE,       /* a file by a literal path that the script reads, runs or writes */
    FACT_NETWORK,    /* something that opens the network */
    FACT_PROCESS,    /* starts a program, compiles or loads native code */
    FACT_DATA,   /* what the training or calibration reads: validation data before scoring ... */
    FACT_SYNTAX, /* needs a newer Python, is not Python, does not end ... */
    FACT_KINDS
};
extern const char *const fact_kind_name[FACT_KINDS];

struct fact {
    enum fact_kind kind;
    size_t line; /* 1-based */
    char text[160];
};

enum cond { COND_UNKNOWN, COND_MET, COND_NOT_MET }; /* UNKNOWN: not checked, or cannot be told */
enum used { USED_UNKNOWN, USED_YES, USED_NO };      /* UNKNOWN: defined, use depends on settings */

enum method {
    METHOD_PLAIN,   /* windows side by side, each token once */
    METHOD_SLIDING, /* overlapping windows, the last `stride` tokens of each count */
    METHOD_TTT,     /* weights or adapters trained on validation tokens */
    METHOD_SLOT,    /* a vector optimised per window (arXiv:2505.12392) */
    METHOD_NGRAM,   /* counts of earlier tokens mixed in or tilting the logits */
    METHOD_PPM,     /* byte or token mixing with a PPM or context-mixing model */
    METHODS
};
extern const char *const method_name[METHODS];

/* One method of scoring that the source defines. `form` names the variety:
 *   TTT    "score-first", "before scoring", "before quantisation", "scored again each epoch",
 *          "order not told"
 *   SLOT   "scored-position", "context-only", "positions not told"
 *   NGRAM  "key of the past", "key with the target", "key not told" */
struct method_facts {
    enum method method;
    enum used used;
    bool by_default; /* a switch says so, and no setting of the caller confirms its default */
    char form[32];
    size_t line;        /* of the function or the first mention */
    long stride, seq;   /* 0: not told. Values after the settings were applied */
    enum cond cond[4];  /* C1 causal, C2 normalised, C3 score before update, C4 single pass */
    size_t why_line[4]; /* line of the evidence, 0: none */
    char why[4][96];    /* "" where nothing is to be said */
};

/* An environment variable that the script reads. */
struct env_fact {
    char name[48];
    char attr[48];  /* what it is assigned to, "" when it is not; a plain class attribute without
                       an environment variable has attr only */
    char value[64]; /* its default as written, "" when there is none */
    bool has_default;
    bool set; /* a setting of the caller replaced the default; value is that one */
    size_t line;
};

enum code_count {
    CODE_COUNT_NONE,       /* no such thing found */
    CODE_COUNT_FILE,       /* the size of the running file */
    CODE_COUNT_COMPRESSED, /* a minified or compressed copy made for counting */
    CODE_COUNT_CONSTANT,   /* a number written into the source */
    CODE_COUNT_OTHER       /* counted in a way that was not understood */
};

/* A setting as the log prints it, or as the run was started: name of the environment variable or of
 * the attribute it is stored in; letter case does not matter. */
struct script_setting {
    const char *name, *value;
};

struct script_facts {
    struct fact *fact;
    size_t facts;
    struct method_facts method[METHODS];
    size_t methods; /* those found, in the order of enum method */
    struct env_fact *env;
    size_t envs;
    char compressor[64]; /* "brotli", "zstd or zlib" (the second one where the first one is not
                            installed), "" when none was found */
    char quantiser[64];  /* "int6 + int8, GPTQ", "" when none was found */
    enum code_count count;
    size_t count_line;
    long long count_constant; /* CODE_COUNT_CONSTANT */
    bool minifier_fallback;   /* counts another size where a minifier is not installed (#1729) */
    bool byte_sidecar;        /* bytes of the original text come from a file beside the tokens */
    bool caseops;             /* tokens of changed text: case moved into operators */
    size_t lines;
    size_t new_syntax; /* line that Python before 3.12 refuses, 0: none */
    size_t bad_line;   /* where the text stops being Python, 0: nowhere */
};

/*
 * script_facts - read n bytes of Python source.
 *
 *   f        result; release with script_facts_free in every case
 *   setting  `settings` of them, from the log; may be NULL when 0
 *
 * Text that is no Python is no error: there are just few facts. ERR_RESOURCE: out of memory.
 */
enum err_code script_facts(struct script_facts *f, const void *source, size_t n,
                           const struct script_setting *setting, size_t settings, struct err *e);
void script_facts_free(struct script_facts *f);

/* script_env - the fact about the variable or attribute `name` (letter case does not matter), or
 * NULL. */
const struct env_fact *script_env(const struct script_facts *f, const char *name);

/* script_method - the facts about one method, or NULL when the source does not have it. */
const struct method_facts *script_method(const struct script_facts *f, enum method m);

#endif
