/*
 * record_basis.c - which logs a claim rests on, and which number of them it is.
 *
 * A folder may hold ablations, re-runs and copies beside the logs of its seeds. Where the metadata
 * gives a score per seed, each claimed seed takes the log that has this score. Otherwise the logs
 * are grouped by name without digits ("train_seed7.log" and "train.log" are one group) and the
 * group counts whose mean, or one of whose scores, is the claim.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "verify/record.h"

static const struct metric *headline(const struct record *r, size_t i)
{
    return record_log_headline(&r->run[i].log);
}

static bool candidate(const struct record *r, size_t i)
{
    return r->run[i].duplicate_of == SIZE_MAX && headline(r, i);
}

static void add_head(struct record *r, size_t i)
{
    if (r->heads < RECORD_HEADS && !r->run[i].headline) {
        r->run[i].headline = true;
        r->head[r->heads++] = i;
    }
}

/* The name without digits, separators and the word "seed"; folders stay. */
static void stem(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t k = 0;
    for (const char *c = path; c < name && k + 1 < cap; c++)
        out[k++] = *c;
    for (const char *c = name; *c && *c != '.' && k + 1 < cap; c++) {
        if (!strncasecmp(c, "seed", 4)) {
            c += 3;
            continue;
        }
        if (isalpha((unsigned char)*c))
            out[k++] = *c;
    }
    out[k] = 0;
}

static bool same_stem(const struct record *r, size_t a, size_t b)
{
    char x[256], y[256];
    stem(r->run[a].log.path, x, sizeof x);
    stem(r->run[b].log.path, y, sizeof y);
    return !strcmp(x, y);
}

static bool has_seed(const struct record_log *l, long long seed)
{
    bool has = l->seed_named == seed;
    for (size_t i = 0; i < l->seeds; i++)
        has |= l->seed[i].v == seed;
    return has;
}

/*
 * The log of a claimed seed: the one whose headline is nearest to the claimed score, with the seed
 * before others; a log of another seed counts only where the score is the claimed one.
 */
static size_t log_of_seed(const struct record *r, const struct meta_seed *s)
{
    size_t best = SIZE_MAX;
    double best_off = INFINITY;
    for (int own = 1; own >= 0 && best == SIZE_MAX; own--)
        for (size_t i = 0; i < r->runs; i++) {
            if (!candidate(r, i) || r->run[i].headline ||
                (own && !has_seed(&r->run[i].log, s->seed)))
                continue;
            double off = s->bpb.have ? fabs(headline(r, i)->val_bpb - s->bpb.v) : 0;
            if (!own && !(s->bpb.have && off <= RECORD_BPB_TOL))
                continue;
            if (off < best_off) {
                best = i;
                best_off = off;
            }
        }
    /* Another configuration with the same seed, while the claimed score is in a log of no such
     * seed: that log is meant. */
    if (best != SIZE_MAX && s->bpb.have && best_off > RECORD_BPB_TOL)
        for (size_t i = 0; i < r->runs; i++)
            if (candidate(r, i) && !r->run[i].headline &&
                fabs(headline(r, i)->val_bpb - s->bpb.v) <= RECORD_BPB_TOL)
                return i;
    return best;
}

static void summarise(struct record *r)
{
    double bpb[RECORD_HEADS], loss[RECORD_HEADS];
    size_t losses = 0;
    for (size_t i = 0; i < r->heads; i++) {
        const struct metric *m = headline(r, r->head[i]);
        bpb[i] = m->val_bpb;
        if (!isnan(m->val_loss))
            loss[losses++] = m->val_loss;
    }
    r->bpb = stats_of(bpb, r->heads);
    r->loss = stats_of(loss, losses == r->heads ? losses : 0);
}

/* The claimed BPB: under its own key, else the mean of claimed seeds, else a val_loss that is one.
 */
static struct meta_number claimed_bpb(struct record *r)
{
    struct meta_number c = r->meta.bpb;
    if (!c.have && r->meta.loss.have && r->meta.loss.v > 0 && r->heads &&
        meta_near(&r->meta.loss, r->bpb.mean, RECORD_BPB_TOL)) {
        r->wrong_unit = true;
        c = r->meta.loss;
    }
    return c;
}

static bool mean_of_group(struct record *r, size_t of, const struct meta_number *claim)
{
    double x[RECORD_HEADS];
    size_t n = 0;
    for (size_t i = 0; i < r->runs && n < RECORD_HEADS; i++)
        if (candidate(r, i) && (of == SIZE_MAX || same_stem(r, i, of)))
            x[n++] = headline(r, i)->val_bpb;
    return n && meta_near(claim, stats_of(x, n).mean, RECORD_BPB_TOL);
}

/* Logs that print one seed under one name stem are no seeds of one another but variants. */
static bool one_seed(const struct record *r, size_t of)
{
    size_t n = 0;
    for (size_t i = 0; i < r->runs; i++)
        if (candidate(r, i) && same_stem(r, i, of)) {
            n++;
            if (record_log_seed(&r->run[i].log) != record_log_seed(&r->run[of].log))
                return false;
        }
    return n > 1;
}

/* Without a claim: the largest group whose names say seeds, SIZE_MAX without one of two and more.
 * The rest are ablations, which nobody averages. */
static size_t seed_group(const struct record *r)
{
    size_t best = SIZE_MAX, most = 1;
    for (size_t of = 0; of < r->runs; of++) {
        size_t n = 0;
        for (size_t i = 0; i < r->runs && candidate(r, of); i++)
            n += candidate(r, i) && r->run[i].log.seed_named >= 0 && same_stem(r, i, of);
        if (n > most && !one_seed(r, of)) {
            best = of;
            most = n;
        }
    }
    return best;
}

static void take_group(struct record *r, size_t of)
{
    bool variants = of != SIZE_MAX && one_seed(r, of);
    for (size_t i = 0; i < r->runs; i++)
        if (candidate(r, i) && (of == SIZE_MAX || i == of || (!variants && same_stem(r, i, of))))
            add_head(r, i);
}

static void choose(struct record *r)
{
    const struct record_meta *m = &r->meta;
    size_t scores = 0, nearest = SIZE_MAX;
    for (size_t i = 0; i < m->seeds; i++)
        scores += m->seed[i].bpb.have;
    if (scores) {
        for (size_t i = 0; i < m->seeds; i++) {
            size_t log = log_of_seed(r, &m->seed[i]);
            if (log != SIZE_MAX)
                add_head(r, log);
        }
        if (r->heads)
            return;
    }
    const struct meta_number *claim = m->bpb.have ? &m->bpb : m->loss.have ? &m->loss : NULL;
    size_t seeds = claim ? SIZE_MAX : seed_group(r);
    if (seeds != SIZE_MAX) {
        take_group(r, seeds);
        return;
    }
    if (!claim || mean_of_group(r, SIZE_MAX, claim)) {
        take_group(r, SIZE_MAX);
        return;
    }
    for (size_t i = 0; i < r->runs; i++)
        if (candidate(r, i) && mean_of_group(r, i, claim)) {
            take_group(r, i);
            return;
        }
    for (size_t i = 0; i < r->runs; i++)
        if (candidate(r, i) &&
            (nearest == SIZE_MAX || fabs(headline(r, i)->val_bpb - claim->v) <
                                        fabs(headline(r, nearest)->val_bpb - claim->v)))
            nearest = i;
    if (nearest != SIZE_MAX && meta_near(claim, headline(r, nearest)->val_bpb, RECORD_BPB_TOL))
        take_group(r, nearest);
    else
        take_group(r, SIZE_MAX);
}

static void by_path(struct record *r)
{
    for (size_t i = 1; i < r->heads; i++)
        for (size_t k = i; k && r->head[k - 1] > r->head[k]; k--) {
            size_t t = r->head[k];
            r->head[k] = r->head[k - 1];
            r->head[k - 1] = t;
        }
}

/* ---- what the claim is ---- */

static void basis(struct record *r, enum record_basis b, size_t run, size_t line)
{
    static const char *const words[] = {
        [BASIS_MEAN] = "mean of seed logs",
        [BASIS_SINGLE] = "single log ",
        [BASIS_KIND] = "",
        [BASIS_LINE] = "single log ",
        [BASIS_PERIODIC] = "periodic validation of ",
        [BASIS_NOWHERE] = "in no log",
        [BASIS_UNREAD] = "",
    };
    r->basis = b;
    r->basis_run = run;
    r->basis_line = line;
    snprintf(r->basis_text, sizeof r->basis_text, "%s%.90s%s%s", words[b],
             run == SIZE_MAX ? "" : r->run[run].log.path,
             b == BASIS_LINE ? " (not its headline)" : "",
             r->wrong_unit ? " (stored under val_loss)" : "");
}

/* The last result of a kind in a log, NULL: none. A label may repeat the value of another kind. */
static const struct metric *last_of(const struct record_log *l, enum metric_kind kind)
{
    for (size_t k = l->finals; k-- > 0;) {
        bool repeats = false;
        for (size_t i = 0; i < l->finals; i++)
            repeats |= l->final[i].kind > kind && l->final[i].val_bpb == l->final[k].val_bpb;
        if (l->final[k].kind == kind && !repeats)
            return &l->final[k];
    }
    return NULL;
}

/* What a mean is taken of. */
struct sample {
    double bpb[RECORD_HEADS], loss[RECORD_HEADS];
    size_t n, losses;
};

static void sample_add(struct sample *s, const struct metric *m)
{
    if (s->n == RECORD_HEADS)
        return;
    s->bpb[s->n++] = m->val_bpb;
    if (!isnan(m->val_loss))
        s->loss[s->losses++] = m->val_loss;
}

/* Is the claim the mean of these? Then it is of `what`, "the sliding results of". */
static bool mean_is(struct record *r, const struct meta_number *c, const struct sample *s,
                    const char *what, const char *where)
{
    struct stats all = stats_of(s->bpb, s->n);
    if (s->n < 2 || !meta_near(c, all.mean, RECORD_BPB_TOL))
        return false;
    basis(r, BASIS_KIND, SIZE_MAX, 0);
    r->claim_bpb = all;
    r->claim_loss = stats_of(s->loss, s->losses == s->n ? s->losses : 0);
    snprintf(r->basis_text, sizeof r->basis_text, "mean of %zu %.60s results%s%.60s, %.8f", s->n,
             what, *where ? " in " : "", where, all.mean);
    return true;
}

/* One seed was scored in more ways than the others: their mean is of the kind that all have. */
static bool match_kind(struct record *r, const struct meta_number *c)
{
    for (enum metric_kind kind = METRIC_ROUNDTRIP; kind < METRIC_KINDS && r->heads > 1; kind++) {
        struct sample s = {.n = 0};
        for (size_t i = 0; i < r->heads; i++) {
            const struct metric *m = last_of(&r->run[r->head[i]].log, kind);
            if (m)
                sample_add(&s, m);
        }
        if (s.n == r->heads && mean_is(r, c, &s, metric_kind_name[kind], ""))
            return true;
    }
    return false;
}

static const struct metric *last_labelled(const struct record_log *l, const char *label)
{
    for (size_t k = l->finals; k-- > 0;)
        if (l->final[k].kind != METRIC_NONE && !strcmp(l->final[k].label, label))
            return &l->final[k];
    return NULL;
}

/* The mean of one label in all headline logs, or of the runs that one log holds one after the
 * other. Asked last: of many labels one may be near. */
static bool match_label(struct record *r, const struct meta_number *c)
{
    enum { LABELS = 32 };
    const struct record_log *first = r->heads ? &r->run[r->head[0]].log : NULL;
    for (size_t k = first ? first->finals : 0, labels = 0; k-- > 0 && labels < LABELS;) {
        const struct metric *of = &first->final[k];
        struct sample across = {.n = 0}, within = {.n = 0};
        if (of->kind == METRIC_NONE || of != last_labelled(first, of->label))
            continue;
        labels++;
        for (size_t i = 0; i < r->heads; i++) {
            const struct metric *m = last_labelled(&r->run[r->head[i]].log, of->label);
            if (m)
                sample_add(&across, m);
        }
        for (size_t i = 0; i < first->finals; i++)
            if (!strcmp(first->final[i].label, of->label))
                sample_add(&within, &first->final[i]);
        if ((across.n == r->heads && mean_is(r, c, &across, of->label, "")) ||
            (r->heads == 1 && mean_is(r, c, &within, of->label, first->path)))
            return true;
    }
    return false;
}

static bool match_line(struct record *r, const struct meta_number *c)
{
    size_t best = SIZE_MAX, line = 0;
    double off = INFINITY;
    for (size_t i = 0; i < r->runs; i++)
        for (size_t k = 0; k < r->run[i].log.finals; k++) {
            const struct metric *m = &r->run[i].log.final[k];
            double d = fabs(m->val_bpb - c->v);
            if (m->kind != METRIC_NONE && r->run[i].duplicate_of == SIZE_MAX && d < off &&
                meta_near(c, m->val_bpb, RECORD_BPB_TOL)) {
                off = d;
                best = i;
                line = m->line;
            }
        }
    if (best != SIZE_MAX)
        basis(r, BASIS_LINE, best, line);
    return best != SIZE_MAX;
}

static bool match_periodic(struct record *r, const struct meta_number *c)
{
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        if (l->periodic.line && meta_near(c, l->periodic.val_bpb, RECORD_BPB_TOL)) {
            basis(r, BASIS_PERIODIC, i, l->periodic.line);
            return true;
        }
        for (size_t k = 0; k < l->finals; k++)
            if (l->final[k].kind == METRIC_NONE &&
                meta_near(c, l->final[k].val_bpb, RECORD_BPB_TOL)) {
                basis(r, BASIS_PERIODIC, i, l->final[k].line);
                return true;
            }
    }
    return false;
}

static void unread(struct record *r, size_t run, const struct log_said *x, size_t n)
{
    basis(r, BASIS_UNREAD, run, x->line);
    r->basis_said = x;
    r->basis_n = n;
    if (n > 1)
        snprintf(r->basis_text, sizeof r->basis_text, "mean of %s in %zu logs (no result line)",
                 x->key, n);
    else
        snprintf(r->basis_text, sizeof r->basis_text, "%s of %.90s (no result line)", x->key,
                 r->run[run].log.path);
}

/* The last value under a key that is no result, NULL: none. */
static const struct log_said *last_said(const struct record_log *l, const char *key)
{
    for (size_t k = l->saids; k-- > 0;)
        if (!l->said[k].step && !strcmp(l->said[k].key, key))
            return &l->said[k];
    return NULL;
}

/* Among many lines one lies near any number: it must be the claim, digit for digit. */
static bool says(const struct log_said *x, const struct meta_number *c)
{
    return x->decimals >= c->decimals && meta_near(c, x->bpb, 0.5000001 * pow(10, -x->decimals));
}

static bool match_unread(struct record *r, const struct meta_number *c)
{
    for (size_t i = 0; i < r->runs; i++)
        for (size_t k = r->run[i].log.saids; k-- > 0;) {
            const struct log_said *x = &r->run[i].log.said[k];
            if (!x->step && says(x, c)) {
                unread(r, i, x, 1);
                return true;
            }
        }
    enum { KEYS = 16 }; /* of a log, from its end: what is claimed stands there */
    for (size_t i = 0; i < r->runs; i++)
        for (size_t k = r->run[i].log.saids, keys = 0; k-- > 0 && keys < KEYS;) {
            const struct log_said *x = &r->run[i].log.said[k];
            double v[RECORD_HEADS];
            size_t n = 0;
            if (x->step || x != last_said(&r->run[i].log, x->key))
                continue;
            keys++;
            for (size_t j = 0; j < r->runs && n < RECORD_HEADS; j++) {
                const struct log_said *y = last_said(&r->run[j].log, x->key);
                if (y && r->run[j].duplicate_of == SIZE_MAX)
                    v[n++] = y->bpb;
            }
            if (n > 1 && meta_near(c, stats_of(v, n).mean, RECORD_BPB_TOL)) {
                unread(r, i, x, n);
                return true;
            }
        }
    return false;
}

/* In no result: a validation early in training may still have it, which the finding tells. */
static void nowhere(struct record *r, const struct meta_number *c)
{
    basis(r, BASIS_NOWHERE, SIZE_MAX, 0);
    for (size_t i = 0; i < r->runs; i++)
        for (size_t k = r->run[i].log.saids; k-- > 0;)
            if (r->run[i].log.said[k].step && says(&r->run[i].log.said[k], c)) {
                r->basis_run = i;
                r->basis_said = &r->run[i].log.said[k];
                return;
            }
}

static void find_basis(struct record *r)
{
    struct meta_number c = claimed_bpb(r);
    size_t near = SIZE_MAX;
    if (!c.have || !r->runs)
        return;
    for (size_t i = 0; i < r->heads; i++)
        if (near == SIZE_MAX ||
            fabs(headline(r, r->head[i])->val_bpb - c.v) < fabs(headline(r, near)->val_bpb - c.v))
            near = r->head[i];
    /* The written decimals first: a mean and a seed can both lie within the tolerance. */
    for (int pass = 0; pass < 2 && near != SIZE_MAX; pass++) {
        double tol = pass ? RECORD_BPB_TOL : 0;
        if (r->heads > 1 && meta_near(&c, r->bpb.mean, tol)) {
            basis(r, BASIS_MEAN, SIZE_MAX, 0);
            return;
        }
        if (meta_near(&c, headline(r, near)->val_bpb, tol)) {
            basis(r, BASIS_SINGLE, near, headline(r, near)->line);
            return;
        }
    }
    if (!match_kind(r, &c) && !match_line(r, &c) && !match_periodic(r, &c) && !match_label(r, &c) &&
        !match_unread(r, &c))
        nowhere(r, &c);
}

void record_choose_heads(struct record *r)
{
    choose(r);
    by_path(r);
    summarise(r);
    r->claim_bpb = r->bpb;
    r->claim_loss = r->loss;
    find_basis(r);
    /* Half a unit of the last decimal, however coarse: a spread is no score. n-1 first. */
    const struct meta_number *sd = &r->meta.std;
    double half = 0.5000001 * pow(10, -sd->decimals);
    if (sd->have && r->claim_bpb.n > 1)
        r->std_convention = fabs(sd->v - r->claim_bpb.sd) <= half       ? 1
                            : fabs(sd->v - r->claim_bpb.sd_pop) <= half ? 2
                                                                        : 0;
}
