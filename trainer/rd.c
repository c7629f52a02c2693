/* rd.c - see rd.h: the search for the constant, and what it leaves to do. */
#include "trainer/rd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/rd_model.h"
#include "trainer/tcq.h"

/* Trials of the whole model and of single matrices; each sizes the file. */
enum { TRIALS = 32, NUDGES = 12 };

/* Octaves of the constant that make no difference worth a trial. */
#define CLOSE 1e-4

bool rd_wanted(const struct recipe *r)
{
    return !strcmp(r->quantizer, "rd");
}

enum err_code rd_check(const struct recipe *r, struct err *e)
{
    if (strcmp(r->quantizer, "record") && !rd_wanted(r))
        return err_set(e, ERR_USAGE, "QUANTIZER=%s: must be record or rd", r->quantizer);
    if (!rd_wanted(r))
        return ERR_OK;
    if (r->rd_target_bytes < 1)
        return err_set(e, ERR_USAGE, "QUANTIZER=rd: needs RD_TARGET_BYTES (--target-bytes N)");
    if (r->rd_states < 0 || (r->rd_states && !tcq_states_ok((size_t)r->rd_states)))
        return err_set(e, ERR_USAGE, "RD_STATES=%lld: must be 0 or 4, 8, 16, ..., %d",
                       (long long)r->rd_states, TCQ_MAX_STATES);
    if (rd_steps_parse(r->rd_steps) == RD_STEPS_COUNT)
        return err_set(e, ERR_USAGE, "RD_STEPS=%s: must be fisher, open, column, matrix or row",
                       r->rd_steps);
    if (r->rd_calib_tokens < 1 || r->rd_calib_tokens > 1 << 30 || r->rd_kl_tokens < 1 ||
        r->rd_kl_tokens > 1 << 30)
        return err_set(e, ERR_USAGE, "RD_CALIB_TOKENS and RD_KL_TOKENS must be 1 to %d", 1 << 30);
    if (!(r->rd_embed_share >= 0 && r->rd_embed_share <= 100))
        return err_set(e, ERR_USAGE, "RD_EMBED_SHARE=%g: must be 0 to 100", r->rd_embed_share);
    return ERR_OK;
}

/* ---- the search ---- */

static enum err_code file_size(struct rd_model *d, uint64_t *bytes, struct err *e)
{
    const struct rd_with *w = d->with;
    if (w->size)
        return w->size(w->size_ctx, d->r, d->view, d->nview, bytes, e);
    *bytes = rd_model_estimate(d);
    return ERR_OK;
}

/* One trial. x is log2 of the constant: a whole step is one bit per weight. */
static enum err_code try_constant(struct rd_model *d, double x, uint64_t *bytes, struct err *e)
{
    enum err_code rc = rd_model_quantise(d, rd_exp2(x), NULL, e);
    return rc ? rc : file_size(d, bytes, e);
}

/* log2 of the constant at which about `bits` bits are taken, from low to high. */
static double guess(const struct rd_model *d, double low, double high, double bits)
{
    for (int i = 0; i < 24; i++) {
        double mid = (low + high) / 2;
        if (rd_model_bits(d, rd_exp2(mid)) > bits)
            low = mid;
        else
            high = mid;
    }
    return high;
}

struct search {
    double finest, coarsest; /* log2 of the constants between which something changes */
    double low, high;        /* log2 of the constant: too many bytes, few enough */
    double missed;           /* the trial before: by how many bytes */
    double bits;             /* there, as rd_model_bits has it */
    double x;                /* the best so far */
    uint64_t bytes;          /* there */
    bool found, at_finest;
};

static void set_range(const struct rd_model *d, struct search *s)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < d->count; i++) {
        double a, b, scale = d->scale[d->item[i].group];
        if (!d->item[i].m.w)
            continue;
        rd_matrix_range(&d->item[i].m, &a, &b);
        least = fmin(least, a / scale);
        most = fmax(most, b / scale);
    }
    s->finest = s->low = isfinite(least) ? rd_log2(least) : -1;
    s->coarsest = s->high = isfinite(most) ? rd_log2(most) : 0;
}

static enum err_code cannot_fit(uint64_t bytes, uint64_t target, struct err *e)
{
    return err_set(e, ERR_RESOURCE,
                   "the file has %llu bytes with the coarsest steps, %llu over the target of %llu",
                   (unsigned long long)bytes, (unsigned long long)(bytes - target),
                   (unsigned long long)target);
}

/* What a trial at x says about where to look. */
static void narrow(struct search *s, double x, uint64_t bytes, uint64_t target)
{
    bool fits = bytes <= target;
    if (fits && (!s->found || bytes > s->bytes)) {
        s->found = true;
        s->x = x;
        s->bytes = bytes;
    }
    *(fits ? &s->high : &s->low) = x;
    s->at_finest = fits && x - s->finest < CLOSE;
}

/*
 * Where to try next after x missed the goal by so many bytes. rd_model_bits says how bytes change
 * from here, corrected by what it got wrong from the trial before to this one; where the error has
 * not been halved, because nearly all symbols are 0 or chance decides, the middle of the range is
 * next.
 */
static double next_trial(const struct rd_model *d, struct search *s, double x, double missed,
                         int trial)
{
    double bits = rd_model_bits(d, rd_exp2(x)), ratio = 1, low = s->low, high = s->high;
    bool both = low > s->finest && s->found;
    if (trial && fabs(bits - s->bits) > 1)
        ratio = 8 * (missed - s->missed) / (bits - s->bits);
    ratio = ratio < 0.5 ? 0.5 : ratio > 2 ? 2 : ratio;
    double to = guess(d, s->finest, s->coarsest, bits - 8 * missed / ratio);
    bool slow = trial && fabs(missed) > fabs(s->missed) / 2;
    s->missed = missed;
    s->bits = bits;
    if (to - s->finest < CLOSE && low <= s->finest)
        return s->finest;
    if (s->coarsest - to < CLOSE && !s->found)
        return s->coarsest;
    return to <= low || to >= high || (both && slow) ? (low + high) / 2 : to;
}

/* The constant at which the file is just within the target: three to five trials. */
static enum err_code find_constant(struct rd_model *d, uint64_t target, double fixed,
                                   struct search *s, struct err *e)
{
    double goal = (double)target * (1 - 1e-4);
    *s = (struct search){0};
    set_range(d, s);
    double x = guess(d, s->finest, s->coarsest, 8 * (goal - fixed));
    for (int trial = 0; trial < TRIALS; trial++) {
        uint64_t bytes;
        enum err_code rc = try_constant(d, x, &bytes, e);
        if (rc)
            return rc;
        narrow(s, x, bytes, target);
        if (bytes > target && x >= s->coarsest)
            return cannot_fit(bytes, target, e);
        bool near = bytes <= target && (double)bytes >= (double)target * (1 - 3e-4);
        if (near || s->at_finest || (s->found && s->high - s->low < CLOSE))
            break;
        x = next_trial(d, s, x, (double)bytes - goal, trial);
    }
    if (!s->found)
        return err_set(e, ERR_RESOURCE, "no steps found for a file of %llu bytes",
                       (unsigned long long)target);
    double c = rd_exp2(s->x);
    return d->c == c ? ERR_OK : rd_model_quantise(d, c, NULL, e);
}

/* The matrix whose steps, made finer by a little, take about `gap` bytes: turn by turn another one.
 */
static struct rd_item *pick(struct rd_model *d, double gap, size_t turn, double *factor)
{
    struct rd_item *best = NULL;
    double best_x = 0;
    size_t skip = turn;
    for (size_t i = 0; i < d->count; i++) {
        struct rd_item *t = &d->item[i];
        double x = t->m.w ? gap * 8 / (double)t->p->size : 1;
        if (x < 0.002 || x > 0.05)
            continue;
        if (!best || !skip--) {
            best = t;
            best_x = x;
        }
    }
    *factor = rd_exp2(-best_x);
    return best;
}

/* The last bytes: single matrices a little finer, taken back when that was too much. */
static enum err_code fill(struct rd_model *d, uint64_t target, struct search *s, struct err *e)
{
    for (size_t turn = 0; turn < NUDGES; turn++) {
        double gap = (double)(target - s->bytes), factor;
        struct rd_item *t = pick(d, 0.8 * gap, turn, &factor);
        uint64_t bytes = 0;
        if (!t || gap < 4 + (double)target * 1e-5)
            return ERR_OK;
        t->nudge *= factor;
        enum err_code rc = rd_model_quantise(d, d->c, t, e);
        if (rc || (rc = file_size(d, &bytes, e)))
            return rc;
        if (bytes <= target && bytes > s->bytes) {
            s->bytes = bytes;
            continue;
        }
        t->nudge /= factor;
        if ((rc = rd_model_quantise(d, d->c, t, e)))
            return rc;
    }
    return ERR_OK;
}

/* ---- tuning ---- */

static bool has_group(const struct rd_model *d, size_t g, double *weights)
{
    *weights = 0;
    for (size_t i = 0; i < d->count; i++)
        if (d->item[i].m.w && d->item[i].group == g)
            *weights += (double)d->item[i].p->size;
    return *weights > 0;
}

/*
 * Multipliers of the groups' steps from measured divergences. Damage goes with the square of a
 * step, bits with its logarithm, and groups add up; so bytes are well spent where the divergence
 * per weight is the same in all groups. The estimate behind the steps makes it nearly so within a
 * group; what it neglects (softmax, norms, the way through later blocks) differs from kind to kind.
 */
static enum err_code tune(struct rd_model *d, struct err *e)
{
    const struct calib *cal = d->with->calib;
    double per[RD_GROUPS] = {0}, n[RD_GROUPS], mean = 0, all = 0;
    for (size_t g = 0; g < RD_GROUPS; g++) {
        double kl = 0;
        if (!has_group(d, g, &n[g]))
            continue;
        enum err_code rc = rd_model_kl(d, 1u << g, &kl, e);
        if (rc)
            return rc;
        if (cal->progress)
            cal->progress(cal->progress_ctx, "tuning", g + 1, RD_GROUPS);
        per[g] = kl > 0 ? rd_log2(kl / n[g]) / 2 : 0;
        mean += per[g] * n[g];
        all += n[g];
    }
    for (size_t g = 0; g < RD_GROUPS; g++) {
        double x = n[g] > 0 ? mean / all - per[g] : 0;
        d->scale[g] *= rd_exp2(x > 1.5 ? 1.5 : x < -1.5 ? -1.5 : x);
    }
    return ERR_OK;
}

/* The model within a fifth of the target, where the guess allows it; and *fixed, what the guess
 * leaves out. */
static enum err_code come_near(struct rd_model *d, uint64_t target, double *fixed, struct err *e)
{
    struct search s = {0};
    enum err_code rc = ERR_OK;
    set_range(d, &s);
    for (int trial = 0; trial < 3 && !rc; trial++) {
        uint64_t bytes = 0;
        double x = guess(d, s.finest, s.coarsest, 8 * ((double)target - *fixed));
        if (!(rc = try_constant(d, x, &bytes, e)))
            *fixed = (double)bytes - rd_model_bits(d, rd_exp2(x)) / 8;
        if (fabs((double)bytes - (double)target) < (double)target / 5)
            break;
    }
    return rc;
}

/* Steps of the groups, at about the bytes that are wanted. */
static enum err_code set_groups(struct rd_model *d, uint64_t target, double *fixed, struct err *e)
{
    double share = d->r->rd_embed_share;
    enum err_code rc = ERR_OK;
    *fixed = (double)rd_model_fixed(d);
    if (share > 0)
        d->scale[RD_TABLE] = share;
    if (d->r->rd_tune && !(rc = come_near(d, target, fixed, e)))
        rc = tune(d, e);
    if (share > 0)
        d->scale[RD_TABLE] = share;
    return rc;
}

/* ---- report ---- */

static enum err_code report(struct rd_model *d, const struct search *s, struct quant_report *q,
                            struct err *e)
{
    struct rd_report *rep = &q->rd;
    const double ln4 = 0x1.62e42fefa39efp+0; /* damage falls by 4 for a bit per weight */
    enum err_code rc = rd_model_kl(d, (1u << RD_GROUPS) - 1, &rep->kl, e);
    if (rc)
        return rc;
    if (!(rep->line = calloc(d->count + 1, sizeof *rep->line)))
        return err_nomem(e, "report", d->count * sizeof *rep->line);
    for (size_t i = 0; i < d->count; i++) {
        const struct rd_item *t = &d->item[i];
        double n = (double)t->p->size, rows = 0;
        struct rd_line *l = &rep->line[rep->count++];
        q->numel += t->p->size;
        q->raw_bytes += t->m.w ? t->p->size + t->m.rows + t->m.cols + 8 : 2 * t->p->size;
        *l = (struct rd_line){.numel = t->p->size, .bits = 16, .bytes = 2 * n};
        strcpy(l->name, t->p->name);
        if (!t->m.w)
            continue;
        for (size_t r = 0; r < t->m.rows; r++)
            rows += t->sense[r];
        *l = (struct rd_line){.numel = t->p->size,
                              .bits = t->res.bits,
                              .bytes = t->res.bits * n / 8 +
                                       RD_EXPONENT_BYTES * (double)(t->m.rows + t->m.cols),
                              .damage = t->res.damage,
                              .sense = t->trace * rows / 2,
                              .step = t->res.step,
                              .tuned = d->scale[t->group],
                              .plain = (double)t->res.plain / n,
                              .gain = t->res.damage * ln4 * 8000 / n};
        strcpy(l->name, t->p->name);
        l->rel = t->res.norm2 > 0 ? sqrt(t->res.err2 / t->res.norm2) : 0;
        rep->numel += t->p->size;
        rep->bits += l->bits * n;
        rep->damage += l->damage;
    }
    rep->bits /= rep->numel ? (double)rep->numel : 1;
    rep->half = d->halves;
    rep->bytes = s->bytes;
    rep->target = (uint64_t)d->r->rd_target_bytes;
    rep->measured = d->with->size;
    rep->finest = s->at_finest;
    q->coded_bytes = rep->bits * (double)rep->numel / 8 + 2 * (double)d->halves;
    return ERR_OK;
}

enum err_code rd_write(const struct gpt *m, const float *params, const struct recipe *r,
                       const char *const *meta, size_t nmeta, const char *path,
                       const struct rd_with *with, struct quant_report *rep, struct err *e)
{
    struct rd_model d = {.m = m, .params = params, .r = r, .with = with};
    uint64_t target = (uint64_t)r->rd_target_bytes;
    struct search s = {0};
    double fixed = 0;
    struct quant_report q = {0};
    enum err_code rc = rd_check(r, e);
    if (!rc && !with->calib)
        rc = err_set(e, ERR_USAGE,
                     "QUANTIZER=rd: needs training data to calibrate with (packer quantize --data "
                     "DIR)");
    if (rc || (rc = rd_model_init(&d, e)) || (rc = rd_model_calibrate(&d, e)) ||
        (rc = set_groups(&d, target, &fixed, e)) ||
        (rc = find_constant(&d, target, fixed, &s, e)) ||
        (!s.at_finest && (rc = fill(&d, target, &s, e))) || (rep && (rc = report(&d, &s, &q, e))) ||
        (rc = st_write(path, d.view, d.nview, meta, nmeta, e)))
        goto out;
    if (rep) {
        *rep = q;
        q = (struct quant_report){0}; /* handed over */
    }
out:
    quant_report_free(&q);
    rd_model_free(&d);
    return rc;
}
