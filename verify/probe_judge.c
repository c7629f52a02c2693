/* probe_judge.c - see probe_judge.h. */
#include "verify/probe_judge.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *probe_answer_name(enum probe_answer a)
{
    static const char *const name[] = {"not checked", "yes", "no"};
    return name[a];
}

void probe_claims(enum probe_answer claim[PROBE_CONDITIONS], const char *line)
{
    for (size_t i = 0; i < PROBE_CONDITIONS; i++) {
        char name[64];
        snprintf(name, sizeof name, " %s:", score_condition_name(i));
        const char *at = strstr(line, name);
        at = at ? at + strlen(name) : "";
        claim[i] = !strncmp(at, "yes", 3)  ? PROBE_YES
                   : !strncmp(at, "no", 2) ? PROBE_NO
                                           : PROBE_UNCHECKED;
    }
}

double probe_bpb(double nats, double bytes_per_token)
{
    return bytes_per_token > 0 ? nats / log(2) / bytes_per_token : 0;
}

void probe_form_add(struct probe_form *f, const struct probe_change *c)
{
    f->changes++;
    f->earlier += c->earlier;
    f->changed += c->changed;
    f->beyond += c->beyond;
    f->sum += c->sum;
    if (c->distance > f->distance)
        f->distance = c->distance;
    if (c->changed && !isnan(f->worst) && !(c->worst <= f->worst)) {
        f->worst = c->worst;
        f->worst_at = c->worst_at;
    }
}

__attribute__((format(printf, 3, 4))) static void because(struct probe_verdict *v, const char *kind,
                                                          const char *fmt, ...)
{
    va_list ap;
    if (!v->verdict)
        v->verdict = kind; /* the first is the gravest */
    if (v->reasons == PROBE_REASONS)
        return;
    va_start(ap, fmt);
    vsnprintf(v->reason[v->reasons++], sizeof v->reason[0], fmt, ap);
    va_end(ap);
}

void probe_judge_sum(struct probe_facts *f, double sum, double error)
{
    const double tolerance = 1e-3, vague = 2e-2;
    bool off = !(fabs(sum - 1) <= tolerance + 4 * error);

    f->sums++;
    /* An estimate may come out below 0, a sum of probabilities cannot. */
    f->ln_sum += (log(fmax(sum, 1e-3)) - f->ln_sum) / (double)f->sums;
    f->sums_vague += !off && 4 * error > vague;
    if (off && !(f->sums_off && fabs(sum - 1) <= fabs(f->sum_worst - 1)))
        f->sum_worst = sum;
    f->sums_off += off;
}

static void conditions(enum probe_answer *c, const struct probe_facts *f, bool complete)
{
    size_t changed = f->form[0].changed + f->form[1].changed;
    bool sums_good = f->sums > f->sums_vague && !f->sums_off && !f->impossible;

    if ((f->sums_off && !changed) || f->impossible)
        c[1] = PROBE_NO;
    else if (sums_good)
        c[1] = PROBE_YES;
    if (changed)
        c[0] = c[2] = PROBE_NO;
    else if (sums_good && f->form[0].changes)
        c[0] = c[2] = PROBE_YES;
    if (f->form[0].distance > f->near || f->form[1].distance > f->near)
        c[3] = PROBE_NO;
    else if (c[0] == PROBE_YES && complete)
        c[3] = PROBE_YES;
}

void probe_judge(struct probe_verdict *v, const struct probe_facts *f)
{
    const struct probe_form *a = &f->form[0], *b = &f->form[1];
    size_t changed = a->changed + b->changed;

    *v = (struct probe_verdict){0};
    if (f->failed[0]) {
        because(v, "not run", "%s", f->failed);
        return;
    }
    if (f->count != f->expected) {
        because(v, "incomplete", "%zu scores, its windows have %zu", f->count, f->expected);
        return; /* which score is whose is not known */
    }
    if (f->unlike) {
        because(v, "not repeatable", "%zu of %zu scores differ between two runs of one stream",
                f->unlike, f->count);
        return; /* so a difference says nothing */
    }
    /* One token in a thousand that is scored by other means is a gain worth finding; fewer are
     * coincidences of equal probabilities. */
    bool complete = f->stuck * 1000 <= f->judged;
    conditions(v->condition, f, complete);
    if (changed)
        because(v, "not causal",
                "%zu of %zu scores before a change changed with it, by up to %.6g nats, up to %zu "
                "tokens before it",
                changed, a->earlier + b->earlier, a->worst > b->worst ? a->worst : b->worst,
                a->distance > b->distance ? a->distance : b->distance);
    if (f->impossible)
        because(v, "not normalised", "%zu scores are no probability: below 0 or no number",
                f->impossible);
    if (f->sums_off)
        because(v, "not normalised",
                "the probabilities of all tokens at one place sum to %.6f: they are no "
                "distribution, or know the token that they score",
                f->sum_worst);
    if (!complete)
        because(v, "incomplete",
                "%zu of %zu scores do not depend on their token, and are too good for that",
                f->stuck, f->judged);
    if (f->line[0])
        because(v, "misreported", "%s", f->line);
    for (size_t i = 0; i < PROBE_CONDITIONS; i++)
        if (f->claim[i] == PROBE_YES && v->condition[i] == PROBE_NO)
            because(v, "misreported", "it says of itself that it meets condition %zu", i + 1);
    if (!v->verdict && v->condition[1] != PROBE_YES)
        because(v, "causal, normalisation not checked",
                f->sums ? "the sums are too vague" : "no sum was taken");
    v->confirmed = !v->verdict;
    if (v->confirmed)
        v->verdict = "causal";
}
