/* record_compare.c - record_test of record_report.h: significance in three units. */
#include <math.h>

#include "verify/record_report.h"

const char *const record_unit_name[RECORD_UNITS] = {"BPB", "nats per byte", "nats per token"};

/* Bytes per token of the headline logs, NaN when they differ or are unknown. */
static double bytes_per_token(const struct record *r)
{
    double b = r->heads ? r->run[r->head[0]].bytes_per_token : NAN;
    for (size_t i = 1; i < r->heads; i++)
        if (!(fabs(r->run[r->head[i]].bytes_per_token / b - 1) <= RECORD_DENOM_TOL))
            return NAN;
    return b;
}

void record_test(struct record_test t[RECORD_UNITS], const struct record *r,
                 const struct record_sota *sota)
{
    double per_token = bytes_per_token(r);
    for (size_t u = 0; u < RECORD_UNITS; u++) {
        /* nats per byte = BPB ln 2; nats per token = that times bytes per token. */
        double scale = u == UNIT_BPB ? 1 : log(2) * (u == UNIT_NATS_TOKEN ? per_token : 1);
        double x[RECORD_HEADS], y[SOTA_VALUES];
        t[u] = (struct record_test){.possible = true, .welch = sota->n > 1};
        if (isnan(scale)) {
            t[u].possible = false;
            t[u].why = "bytes per token unknown";
            continue;
        }
        if (u == UNIT_NATS_TOKEN && !isnan(sota->bytes_per_token) &&
            fabs(sota->bytes_per_token / per_token - 1) > RECORD_DENOM_TOL) {
            t[u].possible = false;
            t[u].why = "another tokeniser: nats per token say nothing";
            continue;
        }
        for (size_t i = 0; i < r->heads; i++)
            x[i] = scale * record_log_headline(&r->run[r->head[i]].log)->val_bpb;
        for (size_t i = 0; i < sota->n; i++)
            y[i] = scale * sota->v[i];
        struct stats a = stats_of(x, r->heads), b = stats_of(y, sota->n);
        t[u].gain = b.mean - a.mean;
        t[u].margin = t[u].welch ? t_welch(&a, &b, RECORD_GAIN_NATS)
                                 : t_one_sample(&a, b.mean, RECORD_GAIN_NATS);
        t[u].plain = t[u].welch ? t_welch(&a, &b, 0) : t_one_sample(&a, b.mean, 0);
    }
}
