/*
 * record_claims.c - the verdict on each claim, and the list of what was not checked.
 *
 * Contradicted: evidence in the folder says otherwise. Unsupported: there is no evidence.
 * Confirmed: the logs say so, which is not the same as that it is true; the logs themselves are
 * taken on trust.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify/record.h"

const char *const record_claim_name[RCLAIM_COUNT] = {
    "val_bpb", "val_loss", "std", "bytes", "seeds", "cap",
};

static bool found(const struct record *r, enum record_code code)
{
    for (size_t i = 0; i < r->findings; i++)
        if (r->finding[i].code == code)
            return true;
    return false;
}

static enum claim_state verdict(bool made, bool contradicted, bool supported)
{
    return !made          ? CLAIM_NOT_MADE
           : contradicted ? CLAIM_CONTRADICTED
           : supported    ? CLAIM_CONFIRMED
                          : CLAIM_UNSUPPORTED;
}

/* A denominator that is nobody's. The launch-day split was an honest one; a part of the text
 * breaks a rule for records, elsewhere it is only no evidence. */
static bool denominator_unknown(const struct record *r)
{
    for (size_t i = 0; i < r->heads; i++) {
        const struct record_run *run = &r->run[r->head[i]];
        if (run->tokens && !run->denominator && !isnan(run->bytes_per_token) &&
            (!run->partial || r->track == RECORD_TRACK_RECORD))
            return true;
    }
    return false;
}

static bool partial(const struct record *r)
{
    for (size_t i = 0; i < r->heads; i++)
        if (r->run[r->head[i]].partial)
            return true;
    return false;
}

/* A deviation as near as one of scores that were rounded to four decimals first can be. */
static bool std_near(const struct record *r)
{
    double n = (double)r->claim_bpb.n, sd = r->meta.std.v;
    return r->claim_bpb.n > 1 && fmin(fabs(sd - r->claim_bpb.sd), fabs(sd - r->claim_bpb.sd_pop)) <=
                                     RECORD_BPB_TOL / 2 * sqrt(n / (n - 1));
}

static void claims(struct record *r)
{
    const struct record_meta *m = &r->meta;
    bool bpb = m->bpb.have || r->wrong_unit, per_seed = false;
    bool elsewhere = r->basis == BASIS_UNREAD; /* what is claimed is none of the results */
    for (size_t i = 0; i < m->seeds; i++)
        per_seed |= m->seed[i].bytes.have;
    r->claim[RCLAIM_BPB] = verdict(
        bpb, (r->heads && (found(r, RC_BPB) || found(r, RC_PERIODIC))) || denominator_unknown(r),
        r->basis != BASIS_NONE && !elsewhere && r->heads && !partial(r));
    r->claim[RCLAIM_LOSS] =
        verdict(m->loss.have,
                (found(r, RC_LOSS) && r->claim_loss.n && !elsewhere) || found(r, RC_JSON_UNIT),
                r->runs > 0 && !found(r, RC_LOSS));
    r->claim[RCLAIM_STD] = verdict(m->std.have, found(r, RC_STD) && !std_near(r) && !elsewhere,
                                   r->std_convention != 0 || (std_near(r) && !elsewhere));
    r->claim[RCLAIM_TOTAL] = verdict(m->total.have || per_seed,
                                     (found(r, RC_TOTAL) && !r->size.claims_shipped) ||
                                         found(r, RC_NO_CODE) || found(r, RC_SEED_BYTES),
                                     r->size.total > 0);
    r->claim[RCLAIM_SEEDS] = verdict(m->seeds > 0, found(r, RC_SEED_LABEL) || found(r, RC_SEED_BPB),
                                     r->runs > 0 && !found(r, RC_SEED_LOG));
    r->claim[RCLAIM_CAP] = verdict(true,
                                   r->size.total > RECORD_CAP || found(r, RC_FILE_CAP) ||
                                       found(r, RC_JSON_CAP) || found(r, RC_SHIPPED_SIBLINGS),
                                   r->size.total > 0);
}

static void unchecked(struct record *r)
{
    const struct record_script *c = &r->script;
    if (r->size.program)
        record_unchecked(r, "the score: verify blob %s scores the file itself",
                         r->size.program_path);
    else if (r->size.weights)
        record_unchecked(r,
                         "the score: the folder holds packed weights (%s bytes); packer import "
                         "and verify score re-score them",
                         record_count(r->size.weights));
    else
        record_unchecked(r,
                         "the score and the model's bytes: no weights in the folder, so both are "
                         "the log's word");
    if (r->runs)
        record_unchecked(r, "that the logs come from this script, machine and seed");
    record_unchecked(r,
                     "overlap of training and validation text: needs the shards (shards --info)");
    for (size_t i = 0; i < r->heads; i++) {
        const struct record_run *run = &r->run[r->head[i]];
        if (isnan(run->bytes_per_token)) {
            record_unchecked(r, "bytes scored: %s %s", run->log.path,
                             run->loss_per_byte ? "prints a val_loss per byte"
                                                : "prints no val_loss, or too few digits");
            break;
        }
        if (!run->tokens && !run->denominator) {
            record_unchecked(r,
                             "bytes scored: %s prints no val_tokens, and its bytes per token "
                             "(%.4f) are of no known tokeniser",
                             run->log.path, run->bytes_per_token);
            break;
        }
        if (!run->tokens) {
            record_unchecked(r, "bytes scored: %s prints no val_tokens; bytes per token fit %s",
                             run->log.path, run->denominator);
            break;
        }
    }
    if (r->size.total && r->size.rounded)
        record_unchecked(r, "exact bytes: the logs print MB with two decimals");
    if (c->unwrapped && c->u.notes)
        record_unchecked(r, "script: %s", c->u.note[0].text);
    if (!r->board.rows)
        record_unchecked(r, "the leaderboard: none above the folder (--leaderboard README.md)");
    for (size_t i = 0; i < r->folder.notes; i++)
        record_unchecked(r, "%.150s", r->folder.note[i]);
}

void record_judge(struct record *r)
{
    claims(r);
    unchecked(r);
}
