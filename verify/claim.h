/*
 * claim.h - what somebody says about a submission, and whether it is so.
 *
 * A claim is a JSON object: a leaderboard's submission.json, or what `verify ... --json` printed.
 * Of its keys these are read, each at most once, all others are ignored (json_keys.h refuses the
 * same key twice, and one that only looks like one of these):
 *
 *   val_bpb, val_loss   numbers. Confirmed when they differ from the measured value by less than
 * one unit of the last decimal written and by no more than 1e-4, so both rounded and truncated
 * figures pass and a coarse figure is no way around the check. Zeros at the end do not count as
 * decimals; beyond eight none does. bytes_total         size of the submission; must be equal.
 * artifact_bytes and total_bytes are other names tokens, bytes       scored tokens and the bytes of
 * text they stand for; must be equal mode                "plain", "sliding", ...; must be equal. A
 * claim without it is one of the value of record, the sliding one, where the file's own mode adapts
 *   nll_xxh64           hash of all scores (16 hex digits); must be equal
 */
#ifndef VERIFY_CLAIM_H
#define VERIFY_CLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum claim_key {
    CLAIM_BYTES_TOTAL,
    CLAIM_MODE,
    CLAIM_TOKENS,
    CLAIM_BYTES,
    CLAIM_VAL_LOSS,
    CLAIM_VAL_BPB,
    CLAIM_NLL_XXH64,
    CLAIM_KEYS
};
const char *claim_key_name(enum claim_key k);

enum { CLAIM_TEXT = 32 };
struct claim_value {
    bool given;
    double number;
    uint64_t count;
    char text[CLAIM_TEXT]; /* as it was claimed, for people */
};
struct claim {
    struct claim_value v[CLAIM_KEYS];
};

/* What was measured. */
struct claim_facts {
    uint64_t bytes_total, tokens, bytes, nll_xxh64;
    double val_loss, val_bpb;
    const char *mode;
};

/* claim_load - ERR_INPUT: no such file, longer than 1 MiB, not a JSON object, a key of the list
 * with a value of another kind, none of the keys, or the same size under two names and not the
 * same. */
enum err_code claim_load(struct claim *c, const char *path, struct err *e);
/* claim_parse - the same from n bytes in memory; `path` names them. */
enum err_code claim_parse(struct claim *c, const char *text, size_t n, const char *path,
                          struct err *e);

/* claim_holds - is this key's claim confirmed? True when it was not made. `measured` receives the
 * measured value as text (CLAIM_TEXT bytes), NULL: not wanted. */
bool claim_holds(const struct claim *c, enum claim_key k, const struct claim_facts *f,
                 char *measured);

#endif
