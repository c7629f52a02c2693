/*
 * quant.c - see quant.h: one matrix to integers and scales.
 *
 * Sources: quantize_int6_per_row and quantize_float_tensor of openai/parameter-golf (baseline,
 * #549, #1276, #1296), as described in docs/quantisation.md; the quantile is torch.quantile's.
 */
#include "trainer/quant.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const double quant_pct[QUANT_PCTS] = {0.999, 0.9995, 0.9999, 0.99999, 1.0};
const double quant_top_pct = 99.99984 / 100.0;

static size_t quantile_rank(size_t n, double pct, float *frac)
{
    float rank = (float)pct * (float)(n - 1);
    size_t lower = (size_t)rank;
    if (lower > n - 1) /* above 2^24 elements n-1 itself is rounded */
        lower = n - 1;
    *frac = rank - (float)lower;
    return lower;
}

size_t quant_quantile_work(size_t n, double pct)
{
    float frac;
    return n - quantile_rank(n, pct, &frac);
}

float quant_abs_quantile(const float *w, size_t n, double pct, float *work)
{
    float frac;
    size_t keep = n - quantile_rank(n, pct, &frac), have = 0;
    /* work holds the `keep` largest magnitudes so far, largest first. Percentiles are near 1, so
     * these are a handful, and most elements fail the first comparison. */
    for (size_t i = 0; i < n; i++) {
        float x = fabsf(w[i]);
        if (have == keep && !(x > work[keep - 1]))
            continue;
        size_t at = have < keep ? have++ : keep - 1;
        for (; at > 0 && work[at - 1] < x; at--)
            work[at] = work[at - 1];
        work[at] = x;
    }
    float below = work[keep - 1], above = keep > 1 ? work[keep - 2] : below;
    /* torch.lerp: the end that is nearer is the one that is exact */
    return frac < 0.5f ? below + frac * (above - below) : above - (above - below) * (1 - frac);
}

float quant_scale(float clip, int levels, double floor)
{
    float s = clip / (float)levels, least = (float)(floor / levels);
    if (least < 0x1p-24f) /* the smallest positive fp16: a row of zeros needs some scale */
        least = 0x1p-24f;
    return s > least ? s : least;
}

/* To nearest, ties to even, for |x| < 2^22: the sum has no bits left below 1. Compiles to two
 * additions, where rintf without SSE4.1 is a call. */
static inline float round_even(float x)
{
    return x + 0x1.8p23f - 0x1.8p23f;
}

static inline float clamp(float x, float limit)
{
    x = x > limit ? limit : x;
    return x < -limit ? -limit : x;
}

void quant_round(int8_t *q, const float *w, size_t n, float clip, float scale, int levels)
{
    /* Clamping before rounding gives the same integers: the limit is one. */
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)round_even(clamp(clamp(w[i], clip) / scale, (float)levels));
}

/* Sum of squared errors of a row, in double: 4 partial sums, partial i takes elements i, i+4, ...
 * The quotient is taken as w * (1/scale): where that rounds to another integer than quant_round
 * does, w lies between the two within an fp32 rounding, and both are equally far off. */
static double row_error(const float *w, size_t n, float scale, int levels)
{
    double part[4] = {0};
    float inv = 1 / scale, top = (float)levels;
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) {
            float d = w[i + j] - round_even(clamp(w[i + j] * inv, top)) * scale;
            part[j] += (double)d * (double)d;
        }
    for (size_t j = 0; i < n; i++, j++) {
        float d = w[i] - round_even(clamp(w[i] * inv, top)) * scale;
        part[j] += (double)d * (double)d;
    }
    return (part[0] + part[2]) + (part[1] + part[3]);
}

static float max_abs(const float *w, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        m = fabsf(w[i]) > m ? fabsf(w[i]) : m;
    return m;
}

/*
 * The best of QUANT_ROW_CLIPS clips from the maximum down to 0.24 of it, each 0.9955 - 0.0011 i of
 * the one before: the optimum of a narrow row lies near its maximum, where steps must be fine
 * because a small change moves a few weights across a rounding border. On Gaussian and Student-t
 * rows of 128 to 2048 weights at 5, 6 and 8 bits the error is within 1 % of the best of 400 clips.
 * How low is low enough: one outlier X among n small weights costs (X - c)^2 clipped at c, the
 * others n*(c/levels)^2/12 of rounding, together least at c = X / (1 + n/(12*levels^2)), which is
 * 0.24 X at 5 bits for n = 8550, wider than any recipe.
 */
static uint16_t search_row(const float *w, size_t n, int levels, double floor)
{
    float clip = max_abs(w, n);
    uint16_t best = 0, last = 0;
    double best_err = INFINITY;
    for (size_t i = 0; i < QUANT_ROW_CLIPS; i++, clip *= 0.9955f - 0.0011f * (float)i) {
        uint16_t s = f32_to_f16(quant_scale(clip, levels, floor));
        if (s == last || f16_to_f32(s) > 0x1.ffcp15f)
            continue; /* the same again, or infinite: a smaller clip may fit */
        last = s;
        double err = row_error(w, n, f16_to_f32(s), levels);
        if (err < best_err) {
            best_err = err;
            best = s;
        }
    }
    return best;
}

static double matrix_error(const float *w, const int8_t *q, size_t n, float scale)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        float d = w[i] - (float)q[i] * scale;
        sum += (double)d * (double)d;
    }
    return sum;
}

/* The records' search. scale receives the winner's; q is scratch until the caller rounds with it.
 */
static void search_tensor(int8_t *q, uint16_t *scale, const float *w, size_t rows, size_t cols,
                          const struct quant_how *how, uint16_t *trial, float *work,
                          struct quant_search *found)
{
    int levels = quant_levels(how->bits);
    double best = INFINITY;
    for (size_t p = 0; p < QUANT_PCTS; p++) {
        double sum = 0;
        for (size_t r = 0; r < rows; r++) {
            const float *row = w + r * cols;
            float clip = quant_abs_quantile(row, cols, quant_pct[p], work);
            trial[r] = f32_to_f16(quant_scale(clip, levels, how->floor));
            float s = f16_to_f32(trial[r]);
            quant_round(q + r * cols, row, cols, INFINITY, s, levels);
            sum += matrix_error(row, q + r * cols, cols, s);
        }
        found->mse[p] = sum / (double)rows / (double)cols;
        if (p == 0 || found->mse[p] < best) {
            best = found->mse[p];
            found->winner = p;
            memcpy(scale, trial, rows * sizeof *scale);
        }
    }
}

static enum err_code check_finite(const float *w, size_t rows, size_t cols, const char *name,
                                  struct err *e)
{
    for (size_t i = 0; i < rows * cols; i++)
        if (!isfinite(w[i]))
            return err_set(e, ERR_INPUT, "%s: weight [%zu][%zu] is %s", name, i / cols, i % cols,
                           isnan(w[i]) ? "NaN" : "infinite");
    return ERR_OK;
}

enum err_code quant_matrix(int8_t *q, uint16_t *scale, const float *w, size_t rows, size_t cols,
                           const struct quant_how *how, const char *name,
                           struct quant_search *found, struct err *e)
{
    assert(rows && cols && how->bits >= QUANT_MIN_BITS && how->bits <= QUANT_MAX_BITS);
    enum err_code rc = check_finite(w, rows, cols, name, e);
    if (rc)
        return rc;
    int levels = quant_levels(how->bits);
    struct quant_search seen = {0};
    size_t nwork = quant_quantile_work(cols, quant_pct[0]);
    float *work = malloc(nwork * sizeof *work);
    uint16_t *trial = malloc(rows * sizeof *trial);
    if (!work || !trial) {
        rc = err_nomem(e, name, nwork * sizeof *work + rows * sizeof *trial);
        goto out;
    }
    if (how->clip == QUANT_CLIP_TENSOR)
        search_tensor(q, scale, w, rows, cols, how, trial, work, &seen);
    for (size_t r = 0; r < rows; r++) {
        const float *row = w + r * cols;
        float clip = INFINITY, s;
        if (how->clip == QUANT_CLIP_TOP) {
            clip = quant_abs_quantile(row, cols, quant_top_pct, work);
            s = quant_scale(clip, levels, how->floor);
            scale[r] = f32_to_f16(s);
        } else {
            if (how->clip == QUANT_CLIP_ROW)
                scale[r] = search_row(row, cols, levels, how->floor);
            s = f16_to_f32(scale[r]);
        }
        if (!scale[r] || scale[r] >= 0x7c00) {
            rc = err_set(e, ERR_INPUT, "%s: row %zu reaches %g, too large for an fp16 scale", name,
                         r, (double)max_abs(row, cols));
            goto out;
        }
        quant_round(q + r * cols, row, cols, clip, s, levels);
    }
    if (found)
        *found = seen;
out:
    free(work);
    free(trial);
    return rc;
}
