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

static bool near(double a, double b)
{
    return fabs(a / b - 1) <= RECORD_DENOM_TOL;
}

void record_denominators(struct record *r)
{
    for (size_t i = 0; i < r->runs; i++) {
        struct record_run *run = &r->run[i];
        const struct metric *m = record_log_headline(&run->log);
        run->bytes_per_token = run->val_bytes = NAN;
        if (!m)
            m = run->log.periodic.line ? &run->log.periodic : NULL;
        if (!m)
            continue;
        run->bytes_per_token = metric_bytes_per_token(m);
        run->tokens = m->tokens ? m->tokens : run->log.val_tokens.v;
        run->tokens_line = m->tokens ? m->line : run->log.val_tokens.line;
        for (size_t k = 0; k < run->log.finals && !run->odd_pair; k++) {
            const struct metric *f = &run->log.final[k];
            double b = metric_bytes_per_token(f);
            if (f->kind != METRIC_NONE && f->decimals >= 4 && !isnan(b) &&
                !near(b, run->bytes_per_token))
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
        if (run->denominator && !run->denominator_launch) {
            bool tokeniser = false;
            for (size_t k = 0; k < KNOWN; k++)
                tokeniser |= near((double)run->tokens, known[k].tokens);
            if (!tokeniser)
                run->denominator = "another tokeniser, all of the text";
        }
    }
}
