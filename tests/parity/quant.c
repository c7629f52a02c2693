/* quant.c - fixtures of KIND "quant": integers and scales of the clip searches, to the last bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"
#include "trainer/quant.h"

/* The integers and scales of one matrix against out.PREFIX.q and out.PREFIX.scale. */
static void compare_stored(struct check *c, struct group *gq, struct group *gs, const int8_t *q,
                           const uint16_t *scale, size_t rows, size_t cols, const char *prefix)
{
    float *f = parity_alloc(rows * cols, sizeof *f);
    const struct tensor_view *want;
    for (size_t i = 0; i < rows * cols; i++)
        f[i] = (float)q[i];
    if ((want = need(c, 0, "out.%s.q", prefix)))
        group_floats(c, gq, f, rows * cols, want, 0);
    for (size_t r = 0; r < rows; r++)
        f[r] = f16_to_f32(scale[r]);
    if ((want = need(c, 0, "out.%s.scale", prefix)))
        group_floats(c, gs, f, rows, want, 0);
    if ((want = find(c, "out.%s.dequant", prefix))) {
        for (size_t i = 0; i < rows * cols; i++)
            f[i] = (float)q[i] * f16_to_f32(scale[i / cols]);
        group_floats(c, gs, f, rows * cols, want, 0);
    }
    free(f);
}

struct quant_groups {
    struct group q, scale, cand, mse;
};

/* Every candidate of the percentile search: its scales, its error, and the winner. */
static void compare_search(struct check *c, struct quant_groups *g, const float *w, size_t rows,
                           size_t cols, const struct quant_how *how,
                           const struct quant_search *found, const char *prefix)
{
    const struct tensor_view *want = find(c, "out.%s.cand_scale", prefix);
    if (want) {
        float *s = parity_alloc(QUANT_PCTS * rows, sizeof *s);
        float *work = parity_alloc(quant_quantile_work(cols, quant_pct[0]), sizeof *work);
        for (size_t p = 0; p < QUANT_PCTS; p++)
            for (size_t r = 0; r < rows; r++) {
                float clip = quant_abs_quantile(w + r * cols, cols, quant_pct[p], work);
                float x = quant_scale(clip, quant_levels(how->bits), how->floor);
                s[p * rows + r] = f16_to_f32(f32_to_f16(x));
            }
        group_floats(c, &g->cand, s, QUANT_PCTS * rows, want, 0);
        free(work);
        free(s);
    }
    double winner = (double)found->winner;
    if ((want = find(c, "out.%s.pct_index", prefix)))
        group_doubles(c, &g->cand, &winner, 1, want, 0);
    /* The reference squares and averages with other roundings than a sum in double. */
    if ((want = find(c, "out.%s.cand_mse", prefix)))
        group_doubles(c, &g->mse, found->mse, QUANT_PCTS, want, 1e-6 * tensor_max(want));
}

/* "int6", "int5" (out.int6.NAME.*): the records' search with the scale floor. */
static void run_clip_search(struct check *c)
{
    struct quant_groups g = {.q = {.what = "q"},
                             .scale = {.what = "scales"},
                             .cand = {.what = "candidates"},
                             .mse = {.what = "mse"}};
    size_t vectors = 0, old = 0;
    for (size_t i = 0; i < c->st.count; i++) {
        char part[96], kind[16], *name;
        if (!name_part(c->st.tensor[i].name, "out.", ".q", part, sizeof part) ||
            !(name = strchr(part, '.')))
            continue;
        snprintf(kind, sizeof kind, "%.*s", (int)(name - part), part);
        unsigned bits = 0;
        char more[2];
        if (sscanf(kind, "int%u%1s", &bits, more) != 1 || bits < QUANT_MIN_BITS ||
            bits > QUANT_MAX_BITS) {
            old++;
            continue;
        }
        const struct tensor_view *in = need(c, 1, "input.w.%s", name + 1);
        if (!in)
            continue;
        if (in->ndim != 2) {
            vectors++;
            continue;
        }
        size_t rows = in->shape[0], cols = in->shape[1];
        const struct quant_how how = {bits, QUANT_CLIP_TENSOR, 1};
        struct quant_search found;
        struct err e = {0};
        float *w = tensor_floats(in);
        int8_t *q = parity_alloc(rows * cols, 1);
        uint16_t *scale = parity_alloc(rows, sizeof *scale);
        if (quant_matrix(q, scale, w, rows, cols, &how, in->name, &found, &e)) {
            check_fail(c, "%s", e.msg);
        } else {
            compare_stored(c, &g.q, &g.scale, q, scale, rows, cols, part);
            compare_search(c, &g, w, rows, cols, &how, &found, part);
        }
        free(scale);
        free(q);
        free(w);
    }
    group_end(c, &g.q);
    group_end(c, &g.scale);
    group_end(c, &g.cand);
    group_end(c, &g.mse);
    if (vectors)
        check_skipped(c, "%zu vectors (the project stores vectors as fp16)", vectors);
    if (old)
        check_skipped(c, "%zu tensors of another quantiser (2026-03-20 record)", old);
}

/* out.NAME.q of the baseline's int8 rule for embeddings. */
static void run_int8(struct check *c)
{
    struct group gq = {.what = "q"}, gs = {.what = "scales"}, gc = {.what = "clips"};
    size_t vectors = 0;
    for (size_t i = 0; i < c->st.count; i++) {
        char name[96];
        if (!name_part(c->st.tensor[i].name, "input.w.", NULL, name, sizeof name))
            continue;
        const struct tensor_view *in = &c->st.tensor[i], *want;
        if (in->ndim != 2) {
            vectors++;
            continue;
        }
        size_t rows = in->shape[0], cols = in->shape[1];
        if (!rows || !cols)
            continue;
        const struct quant_how how = {8, QUANT_CLIP_TOP, 1};
        struct err e = {0};
        float *w = tensor_floats(in);
        float *clip = parity_alloc(rows, sizeof *clip);
        float *work = parity_alloc(quant_quantile_work(cols, quant_top_pct), sizeof *work);
        int8_t *q = parity_alloc(rows * cols, 1);
        uint16_t *scale = parity_alloc(rows, sizeof *scale);
        if (quant_matrix(q, scale, w, rows, cols, &how, in->name, NULL, &e))
            check_fail(c, "%s", e.msg);
        else
            compare_stored(c, &gq, &gs, q, scale, rows, cols, name);
        for (size_t r = 0; r < rows; r++)
            clip[r] = quant_abs_quantile(w + r * cols, cols, quant_top_pct, work);
        if ((want = find(c, "out.%s.clip_abs", name)))
            group_floats(c, &gc, clip, rows, want, 0);
        free(scale);
        free(q);
        free(work);
        free(clip);
        free(w);
    }
    group_end(c, &gq);
    group_end(c, &gs);
    group_end(c, &gc);
    if (vectors)
        check_skipped(c, "%zu vectors (the project stores vectors as fp16)", vectors);
}

void parity_quant(struct check *c)
{
    if (st_meta(&c->st, "PERCENTILES") && !find(c, "input.H"))
        run_clip_search(c);
    else if (st_meta(&c->st, "INT8_CLIP_PERCENTILE"))
        run_int8(c);
    else if (find(c, "input.H"))
        parity_gptq(c);
    else if (st_meta(&c->st, "GPTQ_CALIBRATION_BATCHES"))
        parity_hessian(c);
    else if (find(c, "out.fake_quant_weight"))
        parity_qat(c);
    else
        check_missing(c, "a quantiser of this sort");
}
