/* rd.c - see rd.h: the search for the constant, and what it leaves to do. */
#include "trainer/rd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/rd_model.h"
#include "trainer/tcq.h"

/* Trials of the whole model and of single matrices; each sizes the file. */
enum { TRIALS = 14, NUDGES = 12 };

/* Octaves of the constant from the finest steps to where nearly every symbol is 0. */
enum { SPAN = 60 };

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
    if (strcmp(r->rd_steps, "fisher") && strcmp(r->rd_steps, "row"))
        return err_set(e, ERR_USAGE, "RD_STEPS=%s: must be fisher or row", r->rd_steps);
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

/* log2 of the constant at which about `bits` bits are taken; between `finest` and 2^SPAN times it.
 */
static double guess(const struct rd_model *d, double finest, double bits)
{
    double low = finest, high = finest + SPAN;
    for (int i = 0; i < 24; i++) {
        double mid = (low + high) / 2;
        if (rd_model_bits(d, rd_exp2(mid)) > bits)
            low = mid;
        else
            high = mid;
    }
    return high;
}

/* log2 of the constant below which nothing changes. */
static double finest_constant(const struct rd_model *d)
{
    double least = INFINITY;
    for (size_t i = 0; i < d->count; i++)
        if (d->item[i].m.w)
            least = fmin(least, rd_matrix_finest(&d->item[i].m) / d->scale[d->item[i].group]);
    return isfinite(least) ? rd_log2(least) : -100;
}

struct search {
    double low, high; /* log2 of the constant: too many bytes, few enough */
    double x;         /* the best so far */
    uint64_t bytes;   /* there */
    bool found, finest;
};

static enum err_code cannot_fit(uint64_t bytes, uint64_t target, struct err *e)
{
    return err_set(e, ERR_RESOURCE,
                   "the file has %llu bytes with the coarsest steps, %llu over the target of %llu",
                   (unsigned long long)bytes, (unsigned long long)(bytes - target),
                   (unsigned long long)target);
}

/*
 * The constant at which the file is just within the target. Bytes fall by weights/8 for each octave
 * of steps, less where many symbols are 0, so a secant through the last two trials comes near in
 * three or four; a bracket keeps it from running away.
 */
static enum err_code find_constant(struct rd_model *d, uint64_t target, struct search *s,
                                   struct err *e)
{
    double finest = finest_constant(d), fall = (double)d->weights / 8, last_x = 0, last_bytes = 0;
    double goal = (double)target * (1 - 1e-4), bits = 8 * (goal - (double)rd_model_fixed(d));
    double x = guess(d, finest, bits);
    *s = (struct search){.low = finest, .high = finest + SPAN};
    for (int trial = 0; trial < TRIALS; trial++) {
        uint64_t bytes;
        enum err_code rc = try_constant(d, x, &bytes, e);
        if (rc)
            return rc;
        if (bytes <= target && (!s->found || bytes > s->bytes)) {
            s->found = true;
            s->x = x;
            s->bytes = bytes;
        }
        if (bytes <= target)
            s->high = x;
        else
            s->low = x;
        s->finest = bytes <= target && x <= finest;
        if (s->finest || (bytes <= target && (double)bytes >= (double)target * (1 - 3e-4)))
            break;
        if (bytes > target && x >= finest + SPAN)
            return cannot_fit(bytes, target, e);
        if (trial && fabs(x - last_x) > 1e-9) {
            double slope = (last_bytes - (double)bytes) / (x - last_x);
            double most = (double)d->weights / 8;
            fall = slope > most * 1.2 ? most * 1.2 : slope < most / 20 ? most / 20 : slope;
        }
        last_x = x;
        last_bytes = (double)bytes;
        x += ((double)bytes - goal) / fall;
        if (x <= s->low && s->low <= finest)
            x = finest;
        else if (x >= s->high && !s->found)
            x = finest + SPAN;
        else if (x <= s->low || x >= s->high)
            x = (s->low + s->high) / 2;
    }
    if (!s->found)
        return cannot_fit((uint64_t)last_bytes, target, e);
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
        if (!t || gap < 4 + (double)target * 2e-6)
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

/* Steps of the groups, at about the bytes that are wanted. */
static enum err_code set_groups(struct rd_model *d, uint64_t target, struct err *e)
{
    double share = d->r->rd_embed_share;
    enum err_code rc = ERR_OK;
    if (share > 0)
        d->scale[RD_TABLE] = share;
    if (d->r->rd_tune) {
        double x = guess(d, finest_constant(d), 8 * ((double)target - (double)rd_model_fixed(d)));
        rc = rd_model_quantise(d, rd_exp2(x), NULL, e);
        if (!rc)
            rc = tune(d, e);
    }
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
        q->numel += t->p->size;
        q->raw_bytes += t->m.w ? t->p->size + t->m.rows + t->m.cols + 8 : 2 * t->p->size;
        if (!t->m.w)
            continue;
        for (size_t r = 0; r < t->m.rows; r++)
            rows += t->sense[r];
        struct rd_line *l = &rep->line[rep->count++];
        *l = (struct rd_line){.numel = t->p->size,
                              .bits = t->res.bits,
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
    rep->finest = s->finest;
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
    struct quant_report q = {0};
    enum err_code rc = rd_check(r, e);
    if (!rc && !with->calib)
        rc = err_set(e, ERR_USAGE,
                     "QUANTIZER=rd: needs training data to calibrate with (packer quantize --data "
                     "DIR)");
    if (rc || (rc = rd_model_init(&d, e)) || (rc = rd_model_calibrate(&d, e)) ||
        (rc = set_groups(&d, target, e)) || (rc = find_constant(&d, target, &s, e)) ||
        (!s.finest && (rc = fill(&d, target, &s, e))) || (rep && (rc = report(&d, &s, &q, e))) ||
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
