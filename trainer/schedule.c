/* schedule.c - see schedule.h. Everything is done in double, in the order of the challenge's
 * scripts, so that their values are met to the last bits. */
#include "trainer/schedule.h"

#include <string.h>

static double max2(double a, double b)
{
    return a > b ? a : b;
}

double schedule_cap_ms(const struct recipe *r)
{
    double cap = r->max_wallclock_seconds;
    return cap > 0 ? 1000.0 * cap - 1000.0 * r->gptq_reserve_seconds : 0;
}

double schedule_frac(const struct recipe *r, size_t step, double elapsed_ms)
{
    double cap_ms = schedule_cap_ms(r);
    if (cap_ms > 0)
        return elapsed_ms / max2(cap_ms, 1e-9);
    return (double)step / max2((double)r->iterations, 1.0);
}

static double by_frac(const struct recipe *r, size_t step, double elapsed_ms)
{
    double f = schedule_frac(r, step, elapsed_ms);
    if (f >= 1.0 - r->warmdown_frac)
        return max2((1.0 - f) / r->warmdown_frac, r->min_lr);
    return 1.0;
}

static double by_iters(const struct recipe *r, size_t step, double elapsed_ms)
{
    double cap_ms = schedule_cap_ms(r);
    double s = (double)step, n = (double)r->iterations, w = (double)r->warmdown_iters;
    if (cap_ms <= 0) {
        /* At step == ITERATIONS the reference gives 1; nobody trains that step. */
        return s >= max2(n - w, 0.0) && s < n ? max2((n - s) / w, r->min_lr) : 1.0;
    }
    double warmdown_ms = w * (elapsed_ms / max2(s, 1.0));
    double left_ms = max2(cap_ms - elapsed_ms, 0.0);
    return left_ms <= warmdown_ms ? max2(left_ms / max2(warmdown_ms, 1e-9), r->min_lr) : 1.0;
}

double schedule_warmdown(const struct recipe *r, size_t step, double elapsed_ms)
{
    return r->warmdown_frac > 0    ? by_frac(r, step, elapsed_ms)
           : r->warmdown_iters > 0 ? by_iters(r, step, elapsed_ms)
                                   : 1.0;
}

double schedule_lr(const struct recipe *r, size_t step, double elapsed_ms)
{
    double lr = schedule_warmdown(r, step, elapsed_ms);
    if (r->lr_warmup_steps > 0 && step < (size_t)r->lr_warmup_steps)
        lr *= (double)(step + 1) / (double)r->lr_warmup_steps;
    return lr;
}

double schedule_momentum(const struct recipe *r, size_t step)
{
    double f = 1.0;
    if (r->muon_momentum_warmup_steps > 0 && step < (size_t)r->muon_momentum_warmup_steps)
        f = (double)step / (double)r->muon_momentum_warmup_steps;
    return (1.0 - f) * r->muon_momentum_warmup_start + f * r->muon_momentum;
}

bool schedule_recur(const struct recipe *r, size_t step)
{
    return r->recur_layers[0] && step >= (size_t)r->recur_start_step;
}

bool schedule_qat(const struct recipe *r, double warmdown)
{
    return strcmp(r->late_qat_scope, "none") != 0 && warmdown < r->late_qat_threshold;
}

bool schedule_swa(const struct recipe *r, size_t steps, double warmdown)
{
    return r->swa_enabled && warmdown < r->swa_start_scale && steps % (size_t)r->swa_every == 0;
}
