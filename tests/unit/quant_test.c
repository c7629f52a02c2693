/*
 * quant_test.c - exists for integers that look like weights but are not what the loader will see: a
 * tie rounded the other way, a scale that is zero or infinite once it is fp16, a clip search that
 * takes the wrong row, a file whose tensors the model does not accept.
 *
 * The fast search is compared with a slow twin written here from docs/quantisation.md; the exact
 * bits of the records' quantisers are in the parity fixtures.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "trainer/quant.h"

/* ---- data ---- */

static uint64_t seed;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return ((double)(seed >> 11) + 0.5) / 0x1p53;
}

/* About normal, times size; one element in 200 is ten times larger. */
static float *random_matrix(size_t n, double size)
{
    float *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++) {
        double x = uniform() + uniform() + uniform() + uniform() - 2;
        w[i] = (float)(x * size * (uniform() < 0.005 ? 10 : 1));
    }
    return w;
}

static const struct {
    const char *name;
    size_t rows, cols;
    double size;
} shapes[] = {
    {"one weight", 1, 1, 0.1},     {"one column", 17, 1, 0.1}, {"three wide", 5, 3, 1},
    {"ragged", 7, 129, 0.05},      {"real row", 4, 512, 0.03}, {"wide", 3, 2050, 0.03},
    {"above the floor", 6, 70, 9}, {"tiny", 5, 65, 1e-6},      {"fp16 subnormal", 3, 33, 1e-12},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* ---- the twin ---- */

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* torch.quantile of |w|, by sorting everything. */
static float slow_quantile(const float *w, size_t n, double pct)
{
    float *s = malloc(n * sizeof *s), rank = (float)pct * (float)(n - 1);
    for (size_t i = 0; i < n; i++)
        s[i] = fabsf(w[i]);
    qsort(s, n, sizeof *s, by_size);
    size_t lo = (size_t)floorf(rank), hi = (size_t)ceilf(rank);
    float a = s[lo], b = s[hi], t = rank - floorf(rank);
    free(s);
    return t < 0.5f ? a + t * (b - a) : b - (b - a) * (1 - t);
}

/* 4.2 of the recipes' description: q and scale of the best of five percentiles. */
static void slow_tensor_search(int8_t *q, uint16_t *scale, const float *w, size_t rows, size_t cols,
                               int levels, double floor)
{
    double best = INFINITY;
    int8_t *tq = malloc(rows * cols);
    uint16_t *ts = malloc(rows * sizeof *ts);
    for (size_t p = 0; p < QUANT_PCTS; p++) {
        double err = 0;
        for (size_t r = 0; r < rows; r++) {
            float clip = slow_quantile(w + r * cols, cols, quant_pct[p]);
            float s = fmaxf(clip / (float)levels, (float)(floor / levels));
            ts[r] = f32_to_f16(fmaxf(s, 0x1p-24f));
            for (size_t i = r * cols; i < (r + 1) * cols; i++) {
                float x = rintf(w[i] / f16_to_f32(ts[r]));
                x = fminf(fmaxf(x, -(float)levels), (float)levels);
                tq[i] = (int8_t)x;
                float d = w[i] - x * f16_to_f32(ts[r]);
                err += (double)d * (double)d;
            }
        }
        if (err < best) {
            best = err;
            memcpy(q, tq, rows * cols);
            memcpy(scale, ts, rows * sizeof *ts);
        }
    }
    free(tq);
    free(ts);
}

static double row_error(const float *w, const int8_t *q, size_t n, uint16_t scale)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)w[i] - (double)((float)q[i] * f16_to_f32(scale));
        sum += d * d;
    }
    return sum;
}

/* ---- the steps ---- */

/* Expected values printed by torch.quantile (2.x, CPU) for |ramp|: i * step for i in 0..n-1. */
static void test_quantile(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        double pct;
        float step, want;
    } cases[] = {
        {1, 0.9999, 5, 0},    {2, 0.9995, 1, 0x1.ffbe76p-1f}, {2, 0.5, 6, 3},
        {3, 0.25, 2, 1},      {2001, 0.999, 1, 1998},         {2001, 0.99999, 1, 0x1.f3feb8p+10f},
        {2001, 1.0, 1, 2000},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t n = cases[c].n;
        float *w = malloc(n * sizeof *w);
        float *work = malloc(quant_quantile_work(n, cases[c].pct) * sizeof *work);
        for (size_t i = 0; i < n; i++) /* not sorted, both signs */
            w[i] = (float)(i * 7 % n) * cases[c].step * (i % 2 ? -1.0f : 1.0f);
        float got = quant_abs_quantile(w, n, cases[c].pct, work);
        if (got != cases[c].want)
            fail_msg("%zu elements, %g: got %a, expected %a", n, cases[c].pct, (double)got,
                     (double)cases[c].want);
        free(work);
        free(w);
    }
}

static void test_quantile_twin(void **state)
{
    (void)state;
    static const double pct[] = {0.999, 0.9995, 0.9999, 0.99999, 1, 0.9999984, 0.5, 0};
    seed = 1;
    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1)
        for (size_t p = 0; p < sizeof pct / sizeof pct[0]; p++) {
            float *w = random_matrix(n, 1);
            float *work = malloc(quant_quantile_work(n, pct[p]) * sizeof *work);
            float got = quant_abs_quantile(w, n, pct[p], work);
            float want = slow_quantile(w, n, pct[p]);
            if (got != want)
                fail_msg("%zu elements, %g: got %a, twin %a", n, pct[p], (double)got, (double)want);
            free(work);
            free(w);
        }
}

static void test_round(void **state)
{
    (void)state;
    static const struct {
        float w, clip, scale;
        int levels, want;
    } cases[] = {
        {0, INFINITY, 1, 31, 0},           {0.5f, INFINITY, 1, 31, 0},
        {1.5f, INFINITY, 1, 31, 2},        {2.5f, INFINITY, 1, 31, 2},
        {-0.5f, INFINITY, 1, 31, 0},       {-1.5f, INFINITY, 1, 31, -2},
        {-2.5f, INFINITY, 1, 31, -2},      {31.4f, INFINITY, 1, 31, 31},
        {31.5f, INFINITY, 1, 31, 31},      {1e30f, INFINITY, 1, 31, 31},
        {-1e30f, INFINITY, 1, 15, -15},    {127.5f, INFINITY, 1, 127, 127},
        {5, INFINITY, 0x1p-24f, 127, 127}, {10, 3, 1, 127, 3},
        {-10, 3, 0.5f, 127, -6},           {0.49999997f, INFINITY, 1, 31, 0},
        {0.50000006f, INFINITY, 1, 31, 1},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int8_t q;
        quant_round(&q, &cases[c].w, 1, cases[c].clip, cases[c].scale, cases[c].levels);
        if (q != cases[c].want)
            fail_msg("case %zu: %g / %g gives %d, expected %d", c, (double)cases[c].w,
                     (double)cases[c].scale, q, cases[c].want);
    }
}

/* Bits of the floors as the records store them: fp16 of 1/31, 1/15 and 1/127. */
static void test_floor(void **state)
{
    (void)state;
    static const struct {
        unsigned bits;
        double floor;
        float clip;
        uint16_t want;
    } cases[] = {{6, 1, 0.7f, 0x2821}, {5, 1, 0, 0x2c44},  {8, 1, 1, 0x2008},
                 {6, 0, 31, 0x3c00},   {6, 1, 62, 0x4000}, {6, 0, 0, 0x0001}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        float s = quant_scale(cases[c].clip, quant_levels(cases[c].bits), cases[c].floor);
        if (f32_to_f16(s) != cases[c].want)
            fail_msg("case %zu: scale %#x, expected %#x", c, f32_to_f16(s), cases[c].want);
    }
}

/* ---- whole matrices ---- */

/* Every mode at every width: integers in range, fp16 scales usable, no weight inside the clip
 * further than half a step from what is stored, and the same bytes when done again. */
static void test_matrix_properties(void **state)
{
    (void)state;
    seed = 2;
    for (size_t c = 0; c < SHAPES; c++)
        for (unsigned bits = QUANT_MIN_BITS; bits <= QUANT_MAX_BITS; bits++)
            for (int clip = QUANT_CLIP_ROW; clip <= QUANT_CLIP_TOP; clip++) {
                size_t rows = shapes[c].rows, cols = shapes[c].cols, n = rows * cols;
                const struct quant_how how = {bits, (enum quant_clip)clip, (double)(bits % 2)};
                int levels = quant_levels(bits);
                struct err e = {0};
                float *w = random_matrix(n, shapes[c].size);
                int8_t *q = malloc(n), *again = malloc(n);
                uint16_t *s = malloc(rows * sizeof *s), *s2 = malloc(rows * sizeof *s2);
                memset(w, 0, cols * sizeof *w); /* a row of zeros */
                assert_int_equal(quant_matrix(q, s, w, rows, cols, &how, "w", NULL, &e), ERR_OK);
                assert_int_equal(quant_matrix(again, s2, w, rows, cols, &how, "w", NULL, &e),
                                 ERR_OK);
                assert_memory_equal(q, again, n);
                assert_memory_equal(s, s2, rows * sizeof *s);
                for (size_t i = 0; i < n; i++) {
                    double scale = (double)f16_to_f32(s[i / cols]), d;
                    assert_true(scale > 0 && isfinite(scale));
                    assert_in_range(q[i] + levels, 0, 2 * levels);
                    d = fabs((double)w[i] - q[i] * scale);
                    /* QUANT_CLIP_TOP rounds with the fp32 scale: up to levels/2048 steps more, and
                     * without bound where the fp16 scale is subnormal. */
                    double most = clip != QUANT_CLIP_TOP ? 0.5001 : scale < 0x1p-14 ? 1e9 : 0.57;
                    if (abs(q[i]) < levels && d > scale * most)
                        fail_msg("%s, %u bits, mode %d: weight %zu is %g, stored %g",
                                 shapes[c].name, bits, clip, i, (double)w[i], q[i] * scale);
                }
                free(s2);
                free(s);
                free(again);
                free(q);
                free(w);
            }
}

static void test_tensor_search_twin(void **state)
{
    (void)state;
    seed = 3;
    for (size_t c = 0; c < SHAPES; c++)
        for (int variant = 0; variant < 4; variant++) {
            size_t rows = shapes[c].rows, cols = shapes[c].cols;
            const struct quant_how how = {variant & 1 ? 5 : 6, QUANT_CLIP_TENSOR,
                                          variant & 2 ? 1 : 0};
            struct err e = {0};
            float *w = random_matrix(rows * cols, shapes[c].size);
            int8_t *q = malloc(rows * cols), *want = malloc(rows * cols);
            uint16_t *s = malloc(rows * sizeof *s), *swant = malloc(rows * sizeof *swant);
            assert_int_equal(quant_matrix(q, s, w, rows, cols, &how, "w", NULL, &e), ERR_OK);
            slow_tensor_search(want, swant, w, rows, cols, quant_levels(how.bits), how.floor);
            if (memcmp(s, swant, rows * sizeof *s) || memcmp(q, want, rows * cols))
                fail_msg("%s, %u bits, floor %g: differs from the twin", shapes[c].name, how.bits,
                         how.floor);
            free(swant);
            free(s);
            free(want);
            free(q);
            free(w);
        }
}

/* The row search must come within 2 % of the best of 1000 clips, row by row summed over the matrix,
 * and never be worse than no clipping at all. */
static void test_row_search(void **state)
{
    (void)state;
    static const unsigned widths[] = {5, 6, 8};
    seed = 4;
    for (size_t c = 0; c < SHAPES; c++)
        for (size_t b = 0; b < sizeof widths / sizeof widths[0]; b++) {
            size_t rows = shapes[c].rows, cols = shapes[c].cols;
            if (shapes[c].size < 1e-3)
                continue; /* there the fp16 scales themselves are coarse */
            const struct quant_how how = {widths[b], QUANT_CLIP_ROW, 0};
            int levels = quant_levels(how.bits);
            struct err e = {0};
            float *w = random_matrix(rows * cols, shapes[c].size);
            int8_t *q = malloc(rows * cols), *t = malloc(cols);
            uint16_t *s = malloc(rows * sizeof *s);
            double ours = 0, best = 0;
            assert_int_equal(quant_matrix(q, s, w, rows, cols, &how, "w", NULL, &e), ERR_OK);
            for (size_t r = 0; r < rows; r++) {
                const float *row = w + r * cols;
                float max = slow_quantile(row, cols, 1);
                double least = INFINITY, plain = INFINITY,
                       mine = row_error(row, q + r * cols, cols, s[r]);
                for (int i = 1000; i > 0; i--) {
                    uint16_t f = f32_to_f16(quant_scale(max * (float)i / 1000, levels, 0));
                    quant_round(t, row, cols, INFINITY, f16_to_f32(f), levels);
                    double err = row_error(row, t, cols, f);
                    plain = i == 1000 ? err : plain;
                    least = err < least ? err : least;
                }
                if (mine > plain * (1 + 1e-6))
                    fail_msg("%s, %u bits, row %zu: %g, without clipping %g", shapes[c].name,
                             how.bits, r, mine, plain);
                ours += mine;
                best += least;
            }
            if (cols >= 64 && ours > 1.02 * best)
                fail_msg("%s, %u bits: error %g, best of 1000 clips %g", shapes[c].name, how.bits,
                         ours, best);
            free(s);
            free(t);
            free(q);
            free(w);
        }
}

static void test_bad_weights(void **state)
{
    (void)state;
    static const struct {
        float bad;
        const char *says;
    } cases[] = {{NAN, "blocks.1.attn.c_q.weight: weight [2][3] is NaN"},
                 {INFINITY, "blocks.1.attn.c_q.weight: weight [2][3] is infinite"},
                 {-INFINITY, "blocks.1.attn.c_q.weight: weight [2][3] is infinite"},
                 {1e9f, "blocks.1.attn.c_q.weight: row 2 reaches 1e+09, too large"}};
    for (int clip = QUANT_CLIP_ROW; clip <= QUANT_CLIP_TOP; clip++)
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            const struct quant_how how = {6, (enum quant_clip)clip, 1};
            float w[5 * 7] = {0};
            int8_t q[5 * 7];
            uint16_t s[5];
            struct err e = {0};
            w[2 * 7 + 3] = cases[c].bad;
            assert_int_equal(
                quant_matrix(q, s, w, 5, 7, &how, "blocks.1.attn.c_q.weight", NULL, &e), ERR_INPUT);
            if (!strstr(e.msg, cases[c].says))
                fail_msg("mode %d, %g: says '%s'", clip, (double)cases[c].bad, e.msg);
        }
}

/* ---- files ---- */

struct world {
    struct recipe r;
    struct gpt m;
    float *params;
    char dir[64], in[96], out[96];
};

static void set(struct recipe *r, const char *setting)
{
    struct err e = {0};
    if (recipe_set(r, setting, "test", &e))
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    static struct world w;
    static const char *const tiny[] = {"NUM_LAYERS=2",   "MODEL_DIM=24",  "NUM_HEADS=3",
                                       "NUM_KV_HEADS=1", "VOCAB_SIZE=50", "MLP_MULT=2.5"};
    struct err e = {0};
    recipe_init(&w.r);
    for (size_t i = 0; i < sizeof tiny / sizeof tiny[0]; i++)
        set(&w.r, tiny[i]);
    if (gpt_init(&w.m, &w.r, &e))
        return -1;
    seed = 5;
    w.params = random_matrix(w.m.floats, 0.1);
    strcpy(w.dir, "/tmp/quant_test.XXXXXX");
    if (!mkdtemp(w.dir))
        return -1;
    snprintf(w.in, sizeof w.in, "%s/in.safetensors", w.dir);
    snprintf(w.out, sizeof w.out, "%s/out.safetensors", w.dir);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unlink(w->in);
    unlink(w->out);
    rmdir(w->dir); /* a temporary file left behind makes this fail */
    int left = !access(w->dir, F_OK);
    gpt_free(&w->m);
    free(w->params);
    return left ? -1 : 0;
}

/* What is read back is q * scale, every tensor is there under its name, and the report adds up. */
static void test_write(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *name, *setting[4];
        size_t quantised; /* tensors: 12 matrices and the embedding table */
    } cases[] = {
        {"default", {NULL}, 13},
        {"records", {"QUANT_CLIP=tensor", "QUANT_SCALE_FLOOR=1", "QUANT_KEEP_NUMEL=65536"}, 0},
        {"search of the records", {"QUANT_CLIP=tensor", "QUANT_SCALE_FLOOR=1"}, 13},
        {"only the larger", {"QUANT_KEEP_NUMEL=576"}, 5},
        {"few bits", {"QUANT_BITS=2", "QUANT_EMBED_BITS=4"}, 13},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        static const char *const meta[] = {"recipe", "X=1", "other", "kept"};
        struct recipe r = w->r;
        struct quant_report rep = {0};
        struct st_file f = {0};
        struct err e = {0};
        for (size_t i = 0; i < 4 && cases[c].setting[i]; i++)
            set(&r, cases[c].setting[i]);
        if (quant_write(&w->m, w->params, &r, meta, 2, w->out, NULL, &rep, &e) ||
            st_open(&f, w->out, &e))
            fail_msg("%s: %s", cases[c].name, e.msg);
        assert_string_equal(st_meta(&f, "other"), "kept");
        assert_int_equal(rep.count, w->m.nparams);
        assert_int_equal(rep.numel, w->m.floats);
        float *back = malloc(w->m.floats * sizeof *back);
        if (gpt_load(&w->m, back, f.tensor, f.count, w->out, &e))
            fail_msg("%s: %s", cases[c].name, e.msg);
        size_t quantised = 0, bytes = 0;
        double err2 = 0;
        for (size_t i = 0; i < rep.count; i++) {
            const struct gpt_param *p = &w->m.param[i];
            double sum = 0;
            for (size_t j = p->at; j < p->at + p->size; j++)
                sum += pow((double)w->params[j] - (double)back[j], 2);
            assert_string_equal(rep.line[i].name, p->name);
            if (fabs(sum / (double)p->size - rep.line[i].mse) > 1e-12)
                fail_msg("%s: %s: mse %g, reported %g", cases[c].name, p->name,
                         sum / (double)p->size, rep.line[i].mse);
            quantised += rep.line[i].bits != 16;
            err2 += rep.line[i].bits != 16 ? sum : 0;
            assert_true(rep.line[i].bits == 16 ||
                        rep.line[i].entropy <= log2(2 * quant_levels(rep.line[i].bits) + 1) + 1e-9);
        }
        for (size_t i = 0; i < f.count; i++)
            bytes += f.tensor[i].nbytes;
        assert_int_equal(bytes, rep.raw_bytes);
        if (quantised != cases[c].quantised)
            fail_msg("%s: %zu tensors quantised, expected %zu", cases[c].name, quantised,
                     cases[c].quantised);
        if (quantised)
            assert_true(fabs(rep.total.mse - err2 / (double)rep.total.numel) < 1e-12);
        st_close(&f);
        free(back);
        quant_report_free(&rep);
    }
}

/* packer quantize: recipe from the metadata, settings over it, and the file can be quantised again.
 */
static void test_file(void **state)
{
    struct world *w = *state;
    char text[8192];
    struct err e = {0};
    struct quant_report rep = {0};
    struct st_file f = {0};
    struct recipe r;
    recipe_print(&w->r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, true, text,
                 sizeof text);
    const char *const meta[] = {"recipe", text, "tokenizer", "abc"};
    struct tensor_view *t = calloc(w->m.nparams, sizeof *t);
    for (size_t i = 0; i < w->m.nparams; i++) {
        const struct gpt_param *p = &w->m.param[i];
        t[i] = (struct tensor_view){.name = p->name, .dtype = ST_F32, .ndim = p->ndim};
        memcpy(t[i].shape, p->shape, sizeof p->shape);
        t[i].data = (const uint8_t *)(w->params + p->at);
        t[i].nbytes = p->size * sizeof *w->params;
    }
    assert_int_equal(st_write(w->in, t, w->m.nparams, meta, 2, &e), ERR_OK);
    static const char *const five[] = {"QUANT_BITS=5"};
    if (quant_file(w->in, w->out, five, 1, NULL, &rep, &e) || st_open(&f, w->out, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(st_meta(&f, "tokenizer"), "abc");
    recipe_init(&r);
    assert_int_equal(
        recipe_parse(&r, st_meta(&f, "recipe"), strlen(st_meta(&f, "recipe")), "", false, &e),
        ERR_OK);
    assert_int_equal(r.quant_bits, 5);
    assert_int_equal(r.model_dim, 24);
    assert_int_equal(rep.line[rep.count - 1].bits, 5);
    st_close(&f);
    quant_report_free(&rep);
    if (quant_file(w->out, w->out, NULL, 0, NULL, NULL, &e))
        fail_msg("quantised again: %s", e.msg);

    static const struct {
        const char *setting, *says;
        enum err_code rc;
    } cases[] = {
        {"MODEL_DIM=32", "only settings of quantisation", ERR_USAGE},
        {"QUANT_BITS=9", "must be 2 to 8", ERR_USAGE},
        {"QUANT_EMBED_BITS=1", "must be 2 to 8", ERR_USAGE},
        {"QUANT_CLIP=both", "must be row or tensor", ERR_USAGE},
        {"QUANT_SCALE_FLOOR=-1", "must be 0 to 1000", ERR_USAGE},
        {"QUANT_KEEP_NUMEL=-1", "must not be negative", ERR_USAGE},
        {"QUANT_BIT=6", "QUANT_BITS", ERR_USAGE},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct err x = {0};
        enum err_code rc = quant_file(w->in, w->out, &cases[c].setting, 1, NULL, NULL, &x);
        if (rc != cases[c].rc || !strstr(x.msg, cases[c].says))
            fail_msg("%s: %d '%s'", cases[c].setting, (int)rc, x.msg);
    }
    struct err x = {0};
    assert_int_equal(st_write(w->in, t, w->m.nparams, NULL, 0, &x), ERR_OK);
    assert_int_equal(quant_file(w->in, w->out, NULL, 0, NULL, NULL, &x), ERR_INPUT);
    assert_non_null(strstr(x.msg, "no recipe"));
    free(t);
}

/* A failure leaves no file and keeps an older one. */
static void test_failures_write_nothing(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    float *bad = malloc(w->m.floats * sizeof *bad);
    memcpy(bad, w->params, w->m.floats * sizeof *bad);
    unlink(w->out);
    const struct gpt_param *gain = gpt_find(&w->m, "blocks.1.attn.q_gain");
    bad[gain->at + 1] = 1e6f;
    assert_int_equal(quant_write(&w->m, bad, &w->r, NULL, 0, w->out, NULL, NULL, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "blocks.1.attn.q_gain: element 1 is 1e+06"));
    assert_int_not_equal(access(w->out, F_OK), 0);

    e = (struct err){0};
    assert_int_equal(quant_write(&w->m, w->params, &w->r, NULL, 0, w->out, NULL, NULL, &e), ERR_OK);
    bad[gain->at + 1] = NAN;
    assert_int_equal(quant_write(&w->m, bad, &w->r, NULL, 0, w->out, NULL, NULL, &e), ERR_INPUT);
    assert_int_equal(access(w->out, F_OK), 0);

    e = (struct err){0};
    assert_int_not_equal(
        quant_write(&w->m, w->params, &w->r, NULL, 0, "/nonexistent/dir/x", NULL, NULL, &e),
        ERR_OK);
    assert_int_not_equal(e.msg[0], 0);
    free(bad);
}

static void test_report(void **state)
{
    struct world *w = *state;
    struct quant_report rep = {0};
    struct err e = {0};
    char *text = NULL;
    size_t n = 0, lines = 0;
    assert_int_equal(quant_write(&w->m, w->params, &w->r, NULL, 0, w->out, NULL, &rep, &e), ERR_OK);
    FILE *f = open_memstream(&text, &n);
    quant_report_print(&rep, f);
    fclose(f);
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, rep.count + 3); /* head, all quantised, bytes */
    assert_non_null(strstr(text, "blocks.1.mlp.proj.weight"));
    free(text);
    quant_report_free(&rep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_quantile_twin),
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_matrix_properties),
        cmocka_unit_test(test_tensor_search_twin),
        cmocka_unit_test(test_row_search),
        cmocka_unit_test(test_bad_weights),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_failures_write_nothing),
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
