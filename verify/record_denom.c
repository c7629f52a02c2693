/*
 * record_denom.c - the number of bytes that a score was divided by.
 *
 * BPB = val_loss / ln 2 * tokens / bytes, so one line with loss and BPB gives away bytes per token,
 * and with the number of scored tokens the bytes. The validation text is the same for everybody:
 * about 151.08 million bytes, whatever the tokeniser. Full-length sequences drop its tail, so the
 * sum moves by some thousand bytes between scripts.
 */
#include <math.h>

#include "verify/record.h"

static const struct {
    const char *name;
    double tokens, bytes; /* tokens 0: not needed, bytes alone are compared */
    bool launch;
} known[] = {
    {"SP1024", 62021632, 151080363, false},
    {"SP4096", 45508608, 151074053, false},
    {"SP8192", 40540160, 151078222, false},
    {"SP8192 CaseOps, byte sidecar", 47851520, 151074499, false},
    {"bytes, vocabulary 256", 151076864, 151076864, false},
    {"bytes, vocabulary 260", 151130112, 151080112, false},
    {"SP1024, launch-day validation split", 63779840, 155769746, true},
};
enum { KNOWN = sizeof known / sizeof *known };

enum { TEXT_BYTES = 151080000 };

static bool near(double a, double b)
{
    return fabs(a / b - 1) <= RECORD_DENOM_TOL;
}

/* How far printing may have moved what a line implies: half a unit of the last decimal, relative,
 * of both values. */
static double coarse(const struct metric *m)
{
    double half = 0.5 * pow(10, -m->decimals);
    return half / m->val_bpb + half / m->val_loss;
}

/* The line to read bytes per token from: the headline, or where its figures are too short the one
 * with the longest. */
static const struct metric *sharpest(const struct record_log *l)
{
    const struct metric *m = record_log_headline(l), *periodic = &l->periodic;
    if (!m || !(coarse(m) > RECORD_DENOM_TOL / 2))
        return m ? m : periodic->line ? periodic : NULL;
    for (size_t k = 0; k < l->finals; k++)
        if (l->final[k].kind != METRIC_NONE && coarse(&l->final[k]) < coarse(m))
            m = &l->final[k];
    return periodic->line && coarse(periodic) < coarse(m) ? periodic : m;
}

void record_denominators(struct record *r)
{
    for (size_t i = 0; i < r->runs; i++) {
        struct record_run *run = &r->run[i];
        const struct metric *m = sharpest(&run->log);
        run->bytes_per_token = run->val_bytes = NAN;
        if (!m || coarse(m) > 10 * RECORD_DENOM_TOL)
            continue;
        run->bytes_per_token = metric_bytes_per_token(m);
        run->tokens = m->tokens ? m->tokens : run->log.val_tokens.v;
        run->tokens_line = m->tokens ? m->line : run->log.val_tokens.line;
        for (size_t k = 0; k < run->log.finals && !run->odd_pair; k++) {
            const struct metric *f = &run->log.final[k];
            double b = metric_bytes_per_token(f);
            if (f->kind != METRIC_NONE && f->decimals >= 4 && !isnan(b) &&
                fabs(b / run->bytes_per_token - 1) > RECORD_DENOM_TOL + coarse(f))
                run->odd_pair = f->line;
        }
        if (!run->tokens) {
            for (size_t k = 0; k < KNOWN; k++)
                if (!known[k].launch &&
                    near(run->bytes_per_token, known[k].bytes / known[k].tokens))
                    run->denominator = known[k].name;
            continue;
        }
        run->val_bytes = run->bytes_per_token * (double)run->tokens;
        if (!(run->val_bytes < 1e15))
            run->val_bytes = NAN;
        /* The same bytes by the same tokens before the same bytes by other tokens. */
        for (size_t k = 0; k < KNOWN; k++)
            if (near(run->val_bytes, known[k].bytes) &&
                (!run->denominator || near((double)run->tokens, known[k].tokens))) {
                run->denominator = known[k].name;
                run->denominator_launch = known[k].launch;
            }
        run->loss_per_byte = !run->denominator && near(run->bytes_per_token, 1);
        run->partial = !run->denominator && !run->loss_per_byte && run->val_bytes < TEXT_BYTES / 2;
        if (run->loss_per_byte)
            run->val_bytes = run->bytes_per_token = NAN;
        if (run->denominator && !run->denominator_launch) {
            bool tokeniser = false;
            for (size_t k = 0; k < KNOWN; k++)
                tokeniser |= near((double)run->tokens, known[k].tokens);
            if (!tokeniser)
                run->denominator = "another tokeniser, all of the text";
        }
    }
}
