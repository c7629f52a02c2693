/*
 * quant_gptq_test.c - exists for a calibrated model whose parts are each right and whose file is
 * not: a Hessian handed to another matrix, bits taken from the wrong layers, pruning that reaches
 * embeddings or that the report does not know of, other integers with another number of threads.
 */
#include <math.h>
#include <string.h>

#include "model/safetensors.h"
#include "tests/unit/tiny.h"
#include "tests/unit/toy_run.h"
#include "trainer/quant.h"

#define RECIPE                                                                                     \
    "VOCAB_SIZE=32\nNUM_LAYERS=3\nLN_SCALE=1\nGPTQ_CALIB_BATCHES=2\nGPTQ_BATCH_TOKENS=64\n"        \
    "QUANT_CLIP=tensor\nQUANT_SCALE_FLOOR=1\n"
enum { MATRICES = 18, TOKENS = 64 };

static enum err_code take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    uint64_t *seed = ctx;
    (void)e;
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint16_t)util_below(seed, 32);
    return ERR_OK;
}

/* A size that every integer other than 0 costs one byte of. */
static enum err_code size_of(void *ctx, const struct recipe *r, const struct tensor_view *t,
                             size_t n, uint64_t *bytes, struct err *e)
{
    (void)r;
    (void)e;
    ++*(size_t *)ctx;
    *bytes = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; t[i].dtype == ST_I8 && j < t[i].nbytes; j++)
            *bytes += t[i].data[j] != 0;
    return ERR_OK;
}

struct run {
    struct tiny t;
    struct quant_report rep;
    struct st_file f;
    size_t sizes; /* calls of size_of */
};

static enum err_code quantise(struct run *u, const char *settings, size_t threads, bool data,
                              bool size, struct err *e)
{
    char all[1024];
    uint64_t seed = 11;
    *u = (struct run){0};
    snprintf(all, sizeof all, "%s%s", RECIPE, settings);
    u->t = tiny_open(all, threads, 6);
    struct calib c = {.k = u->t.k, .take = take, .ctx = &seed};
    struct quant_with with = {.calib = data ? &c : NULL, .size_ctx = &u->sizes};
    with.size = size ? size_of : NULL;
    const char *path = util_path("q.safetensors");
    enum err_code rc =
        quant_write(&u->t.m, u->t.params, &u->t.m.r, NULL, 0, path, &with, &u->rep, e);
    return rc ? rc : st_open(&u->f, path, e);
}

static void done(struct run *u)
{
    st_close(&u->f);
    quant_report_free(&u->rep);
    tiny_close(&u->t);
}

static void must(struct run *u, const char *settings, size_t threads)
{
    struct err e = {0};
    if (quantise(u, settings, threads, true, true, &e))
        fail_msg("%s: %s", settings, e.msg);
}

static const struct tensor_view *integers(const struct run *u, size_t i)
{
    char name[64];
    snprintf(name, sizeof name, "%s.q", u->rep.line[i].name);
    return tensor_find(u->f.tensor, u->f.count, name);
}

/* Matrices of blocks are GPTQ's, tables are not, and the file is a model. */
static void test_file(void **state)
{
    (void)state;
    struct run u;
    struct err e = {0};
    size_t gptq = 0;
    must(&u, "QUANT_METHOD=gptq\n", 1);
    float *back = malloc(u.t.m.floats * sizeof *back);
    if (gpt_load(&u.t.m, back, u.f.tensor, u.f.count, "q", &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < u.rep.count; i++) {
        const struct quant_line *l = &u.rep.line[i];
        bool matrix = u.t.m.param[i].cls == PARAM_MATRIX;
        if ((l->by == QUANT_BY_GPTQ) != matrix || (l->sensitivity > 0) != matrix ||
            (l->pct >= 0) != matrix)
            fail_msg("%s: by %d, trace %g, percentile %d", l->name, (int)l->by, l->sensitivity,
                     l->pct);
        gptq += matrix;
    }
    assert_int_equal(gptq, MATRICES);
    assert_int_equal(u.rep.prune_target, 0);
    assert_int_equal(u.sizes, 0);
    free(back);
    done(&u);
}

/* The loss per position on random tokens, as the calibration has them. */
static void losses(struct tiny *t, const float *params, float nll[512])
{
    struct graph g;
    uint16_t *tok = tiny_tokens(t, 512, 77);
    memcpy(t->params, params, t->m.floats * sizeof *params);
    tiny_plan(t, &g, 32, 16, 0, false);
    tiny_forward(t, &g, tok, nll);
    graph_free(&g);
    free(tok);
}

/* What GPTQ is for: at 3 bits the losses stay nearer to those of the weights than with rounding. */
static void test_purpose(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "QUANT_BITS=3\nQUANT_SCALE_FLOOR=0\n",
        "QUANT_BITS=3\nQUANT_SCALE_FLOOR=0\nQUANT_METHOD=gptq\nGPTQ_CALIB_BATCHES=20\n"};
    double off[2] = {0};
    for (size_t c = 0; c < 2; c++) {
        struct run u;
        struct err e = {0};
        float before[512], after[512];
        must(&u, settings[c], 1);
        float *back = malloc(u.t.m.floats * sizeof *back);
        if (gpt_load(&u.t.m, back, u.f.tensor, u.f.count, "q", &e))
            fail_msg("%s", e.msg);
        losses(&u.t, u.t.params, before);
        losses(&u.t, back, after);
        for (size_t i = 0; i < 512; i++)
            off[c] += pow((double)after[i] - (double)before[i], 2) / 512;
        free(back);
        done(&u);
    }
    if (!(off[1] < 0.7 * off[0]))
        fail_msg("losses moved by %g with GPTQ, by %g with rounding", off[1], off[0]);
}

static void test_same_bits(void **state)
{
    (void)state;
    static const struct {
        const char *isa;
        size_t threads;
    } cases[] = {{NULL, 1}, {NULL, 2}, {NULL, 7}, {"portable", 1}};
    size_t n[2];
    uint8_t *first = NULL;
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct run u;
        if (cases[c].isa)
            setenv("KERN_ISA", cases[c].isa, 1);
        must(&u, "QUANT_METHOD=gptq\nMIXED_QUANT=1\nN_INT6_LAYERS=7\nPRUNE_TARGET_BYTES=9000\n",
             cases[c].threads);
        unsetenv("KERN_ISA");
        uint8_t *now = util_slurp(util_path("q.safetensors"), &n[c > 0]);
        if (c && (n[0] != n[1] || memcmp(first, now, n[0])))
            fail_msg("%s, %zu threads: another file", u.t.k->name, cases[c].threads);
        if (c)
            free(now);
        else
            first = now;
        done(&u);
    }
    free(first);
}

static void test_mixed(void **state)
{
    (void)state;
    static const size_t keep[] = {0, 1, 7, 17, 18, 60};
    for (size_t c = 0; c < COUNT(keep); c++)
        for (int gptq = 0; gptq < 2; gptq++) {
            struct run u;
            char settings[128];
            size_t six = 0, want = keep[c] < MATRICES ? keep[c] : MATRICES;
            double least6 = INFINITY, most5 = 0;
            snprintf(settings, sizeof settings, "MIXED_QUANT=1\nN_INT6_LAYERS=%zu\n%s", keep[c],
                     gptq ? "QUANT_METHOD=gptq\n" : "");
            must(&u, settings, 1);
            for (size_t i = 0; i < u.rep.count; i++) {
                const struct quant_line *l = &u.rep.line[i];
                if (u.t.m.param[i].cls != PARAM_MATRIX)
                    continue;
                six += l->bits == 6;
                if (l->bits == 6)
                    least6 = fmin(least6, l->sensitivity);
                else if (l->bits == 5)
                    most5 = fmax(most5, l->sensitivity);
                else
                    fail_msg("%s: %u bits", l->name, l->bits);
                assert_int_equal(l->by, gptq ? QUANT_BY_GPTQ : QUANT_BY_SEARCH);
                const struct tensor_view *q = integers(&u, i);
                for (size_t j = 0; j < q->nbytes; j++)
                    assert_true(abs((int8_t)q->data[j]) <= quant_levels(l->bits));
            }
            if (six != want || most5 > least6)
                fail_msg("%s: %zu stay int6; int5 up to %g, int6 from %g", settings, six, most5,
                         least6);
            done(&u);
        }
}

static size_t zeros(const struct run *u, size_t i)
{
    const struct tensor_view *q = integers(u, i);
    size_t n = 0;
    for (size_t j = 0; q && j < q->nbytes; j++)
        n += q->data[j] == 0;
    return n;
}

/* Only int6 matrices are pruned, the report counts what the file shows, and its errors are those
 * of the pruned integers. */
static void test_prune(void **state)
{
    (void)state;
    static const struct {
        const char *settings;
        size_t calls; /* of the compressor; 0: several */
    } cases[] = {
        {"PRUNE_SEARCH=once\n", 1},
        {"PRUNE_SEARCH=fit\n", 0},
        {"PRUNE_SEARCH=once\nMIXED_QUANT=1\nN_INT6_LAYERS=9\n", 1},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct run u, whole;
        char settings[256];
        struct err e = {0};
        snprintf(settings, sizeof settings, "QUANT_METHOD=gptq\n%sPRUNE_TARGET_BYTES=1000000\n",
                 cases[c].settings);
        must(&whole, settings, 1);
        assert_int_equal(whole.rep.prune.pruned, 0);
        assert_int_equal(whole.sizes, 1);
        uint64_t all = whole.rep.prune.before;
        snprintf(settings, sizeof settings,
                 "QUANT_METHOD=gptq\n%sPRUNE_CODE_BYTES=100\nPRUNE_TARGET_BYTES=%llu\n",
                 cases[c].settings, (unsigned long long)(all + 100 - 12));
        must(&u, settings, 1);
        size_t want = strstr(settings, "fit") ? 12 : 96, sum = 0;
        if (u.rep.prune.pruned != want || u.rep.total.pruned != want)
            fail_msg("%s: %zu pruned, %zu in total, expected %zu", settings, u.rep.prune.pruned,
                     u.rep.total.pruned, want);
        assert_true(cases[c].calls ? u.sizes == cases[c].calls : u.sizes > 2);
        float *back = malloc(u.t.m.floats * sizeof *back);
        if (gpt_load(&u.t.m, back, u.f.tensor, u.f.count, "q", &e))
            fail_msg("%s", e.msg);
        for (size_t i = 0; i < u.rep.count; i++) {
            const struct gpt_param *p = &u.t.m.param[i];
            const struct quant_line *l = &u.rep.line[i];
            size_t more = zeros(&u, i) - zeros(&whole, i);
            double err = 0;
            if (more != l->pruned || (more && (p->cls != PARAM_MATRIX || l->bits != 6)))
                fail_msg("%s: %s: %zu more zeros, %zu reported", settings, l->name, more,
                         l->pruned);
            for (size_t j = p->at; j < p->at + p->size; j++)
                err += pow((double)u.t.params[j] - (double)back[j], 2);
            assert_true(fabs(err / (double)p->size - l->mse) < 1e-12);
            sum += more;
        }
        assert_int_equal(sum, want);
        free(back);
        done(&whole);
        done(&u);
    }
}

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        const char *setting, *says;
    } cases[] = {
        {"QUANT_METHOD=magic\n", "must be search or gptq"},
        {"QUANTIZER=other\n", "must be record"},
        {"GPTQ_DATA=last\n", "must be first or continue"},
        {"PRUNE_SEARCH=all\n", "must be once or fit"},
        {"GPTQ_CALIB_BATCHES=0\n", "GPTQ_CALIB_BATCHES=0: must be 1 to"},
        {"GPTQ_BLOCK=0\n", "GPTQ_BLOCK=0: must be 1 to"},
        {"GPTQ_DAMP=-1\n", "GPTQ_DAMP=-1: must be 0 to"},
        {"PRUNE_TARGET_BYTES=-1\n", "must not be negative"},
        {"QUANT_METHOD=gptq\nGPTQ_BATCH_TOKENS=65\n", "no multiple of TRAIN_SEQ_LEN=16"},
        {"MIXED_QUANT=1\nQUANT_BITS=5\n", "QUANT_BITS=5 must be 6"},
        {"MIXED_QUANT=2\n", "must be 0 to 1"},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct run u;
        struct err e = {0};
        EXPECT(cases[c].setting, ERR_USAGE, cases[c].says,
               quantise(&u, cases[c].setting, 1, true, true, &e), e);
        done(&u);
    }
    static const char *const needy[] = {"QUANT_METHOD=gptq\n", "MIXED_QUANT=1\n"};
    for (size_t c = 0; c < COUNT(needy); c++) {
        struct run u;
        struct err e = {0};
        EXPECT(needy[c], ERR_USAGE, "--data DIR", quantise(&u, needy[c], 1, false, true, &e), e);
        done(&u);
    }
}

/* What the table says. */
static void test_report(void **state)
{
    (void)state;
    static const struct {
        const char *settings;
        bool size;
        const char *says[5];
    } cases[] = {
        {"", true, {"at edge", "blocks.2.mlp.proj.weight"}},
        {"QUANT_METHOD=gptq\n", true, {" by ", " gptq ", " trace", " clip", " 99.9 "}},
        {"PRUNE_TARGET_BYTES=9000\n", true, {" pruned", "target 9000"}},
        {"PRUNE_TARGET_BYTES=9000\n", false, {"left out"}},
        {"PRUNE_TARGET_BYTES=10\nPRUNE_SEARCH=fit\n", true, {"still too many"}},
    };
    for (size_t c = 0; c < COUNT(cases); c++) {
        struct run u;
        struct err e = {0};
        char *text = NULL;
        size_t n = 0;
        if (quantise(&u, cases[c].settings, 1, true, cases[c].size, &e))
            fail_msg("%s: %s", cases[c].settings, e.msg);
        FILE *f = open_memstream(&text, &n);
        quant_report_print(&u.rep, f);
        fclose(f);
        for (size_t i = 0; i < 5 && cases[c].says[i]; i++)
            if (!strstr(text, cases[c].says[i]))
                fail_msg("%s: no '%s' in\n%s", cases[c].settings, cases[c].says[i], text);
        free(text);
        done(&u);
    }
}

/* packer quantize with a directory of shards. */
static void test_tools(void **state)
{
    (void)state;
    struct tiny t = tiny_open(RECIPE, 1, 8);
    struct quant_report rep = {0};
    struct err e = {0};
    char text[8192], dir[256], in[256], out[256];
    uint16_t tok[TOY_TOKENS];
    struct tensor_view *v = calloc(t.m.nparams, sizeof *v);
    snprintf(in, sizeof in, "%s", util_path("in.safetensors"));
    snprintf(out, sizeof out, "%s", util_path("out.safetensors"));
    snprintf(dir, sizeof dir, "%s", util_path(""));
    toy_stream(tok, TOY_TOKENS, 1);
    toy_shard(util_path("toy_train_000000.bin"), tok, TOY_TOKENS);
    recipe_print(&t.m.r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, true, text,
                 sizeof text);
    const char *const meta[] = {"recipe", text};
    for (size_t i = 0; i < t.m.nparams; i++) {
        const struct gpt_param *p = &t.m.param[i];
        v[i] = (struct tensor_view){.name = p->name, .dtype = ST_F32, .ndim = p->ndim};
        memcpy(v[i].shape, p->shape, sizeof p->shape);
        v[i].data = (const uint8_t *)(t.params + p->at);
        v[i].nbytes = p->size * sizeof(float);
    }
    if (st_write(in, v, t.m.nparams, meta, 1, &e))
        fail_msg("%s", e.msg);
    static const char *const gptq[] = {"QUANT_METHOD=gptq", "GPTQ_CALIB_BATCHES=3"};
    struct quant_tools tools = {.data = dir, .threads = 1};
    if (quant_file(in, out, gptq, 2, &tools, &rep, &e))
        fail_msg("%s", e.msg);
    size_t done_by = 0;
    for (size_t i = 0; i < rep.count; i++)
        done_by += rep.line[i].by == QUANT_BY_GPTQ;
    assert_int_equal(done_by, MATRICES);
    tools.data = NULL;
    EXPECT("no data", ERR_USAGE, "--data", quant_file(in, out, gptq, 2, &tools, NULL, &e), e);
    e = (struct err){0};
    tools.data = "/nonexistent";
    EXPECT("no such data", ERR_INPUT, "/nonexistent",
           quant_file(in, out, gptq, 2, &tools, NULL, &e), e);
    quant_report_free(&rep);
    free(v);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),      cmocka_unit_test(test_purpose),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_prune),     cmocka_unit_test(test_settings),
        cmocka_unit_test(test_report),    cmocka_unit_test(test_tools),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
