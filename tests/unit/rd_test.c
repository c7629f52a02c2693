/*
 * rd_test.c - exists for a file that is larger than it may be or smaller than it could be, for
 * sensitivities that have nothing to do with what errors really cost, for files that depend on the
 * number of threads, for a target that is too small and goes unnoticed, and for a table for
 * programs that they cannot read.
 */
#include <math.h>

#include "model/file.h"
#include "model/safetensors.h"
#include "packer/cm.h"
#include "packer/payload.h"
#include "tests/unit/tiny.h"
#include "trainer/fisher.h"
#include "trainer/kl.h"
#include "trainer/rd.h"

#define RECIPE                                                                                     \
    "TIE_EMBEDDINGS=0\nVOCAB_SIZE=256\nMODEL_DIM=64\nNUM_HEADS=4\nNUM_KV_HEADS=2\nTRAIN_SEQ_LEN="  \
    "32\n"                                                                                         \
    "QUANTIZER=rd\nRD_STATES=16\nRD_CALIB_TOKENS=1024\nRD_KL_TOKENS=256\n"
enum { REST = 1000 };

static enum err_code take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    uint64_t *seed = ctx;
    (void)e;
    for (size_t i = 0; i < n; i++) /* frequencies that differ, as words' do */
        ids[i] = (uint16_t)(util_below(seed, 256) * util_below(seed, 256) / 256);
    return ERR_OK;
}

static enum err_code size_of(void *ctx, const struct recipe *r, const struct tensor_view *t,
                             size_t n, uint64_t *bytes, struct err *e)
{
    const struct st_file f = {.tensor = (struct tensor_view *)t, .count = n};
    uint8_t *raw = NULL;
    size_t raw_n, coded = 0;
    (void)ctx;
    (void)r;
    enum err_code rc = payload_new(&raw, &raw_n, &f, "payload", e);
    if (!rc)
        rc = cm_size(&coded, raw, raw_n, e);
    *bytes = REST + coded;
    free(raw);
    return rc;
}

static enum err_code quantise(const char *settings, size_t threads, const char *path,
                              struct quant_report *rep, struct err *e)
{
    char all[1024];
    uint64_t seed = 11;
    snprintf(all, sizeof all, "%s%s", RECIPE, settings);
    struct tiny t = tiny_open(all, threads, 6);
    struct calib c = {.k = t.k, .take = take, .ctx = &seed};
    struct rd_with with = {.calib = &c, .threads = threads, .size = size_of};
    enum err_code rc = rd_write(&t.m, t.params, &t.m.r, NULL, 0, path, &with, rep, e);
    struct st_file f = {0};
    if (!rc) { /* the file is a model, and not far from what it was made of */
        float *back = malloc(t.m.floats * sizeof *back);
        double diff = 0, norm = 0;
        if (st_open(&f, path, e) || gpt_load(&t.m, back, f.tensor, f.count, path, e))
            fail_msg("%s: %s", settings, e->msg);
        for (size_t i = 0; i < t.m.floats; i++) {
            diff += pow((double)(back[i] - t.params[i]), 2);
            norm += pow((double)t.params[i], 2);
        }
        if (diff > 0.5 * norm)
            fail_msg("%s: error %g of %g", settings, diff, norm);
        free(back);
    }
    st_close(&f);
    tiny_close(&t);
    return rc;
}

static void test_target(void **state)
{
    (void)state;
    static const struct {
        const char *settings;
        uint64_t target;
    } cases[] = {
        {"RD_TARGET_BYTES=40000\n", 40000},
        {"RD_TARGET_BYTES=31000\n", 31000},
        {"RD_TARGET_BYTES=50000\nRD_STATES=0\n", 50000},
        {"RD_TARGET_BYTES=45000\nRD_STATES=256\nRD_TUNE=0\n", 45000},
        {"RD_TARGET_BYTES=45000\nRD_STEPS=row\nRD_EMBED_SHARE=0.5\n", 45000},
        {"RD_TARGET_BYTES=45000\nRD_STEPS=open\n", 45000},
        {"RD_TARGET_BYTES=45000\nRD_STEPS=column\n", 45000},
        {"RD_TARGET_BYTES=45000\nRD_STEPS=matrix\nRD_STATES=8\n", 45000},
        {"RD_TARGET_BYTES=48000\nTIE_EMBEDDINGS=1\nNUM_LAYERS=2\n", 48000},
        {"RD_TARGET_BYTES=40000\nBIGRAM_VOCAB_SIZE=64\nBIGRAM_DIM=16\nEMBED_BF16=1\n", 40000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct quant_report rep = {0};
        struct err e = {0};
        if (quantise(cases[i].settings, 2, util_path("q.safetensors"), &rep, &e))
            fail_msg("%s: %s", cases[i].settings, e.msg);
        uint64_t least = cases[i].target - cases[i].target / 1000;
        if (rep.rd.bytes > cases[i].target || rep.rd.bytes < least || rep.rd.finest)
            fail_msg("%s: %llu bytes", cases[i].settings, (unsigned long long)rep.rd.bytes);
        /* A tied random model is sure that each token follows itself: nothing to measure there. */
        bool tied = strstr(cases[i].settings, "TIE_EMBEDDINGS=1");
        if (!(rep.rd.kl > 0) || (!tied && !(rep.rd.damage > rep.rd.kl / 4)) ||
            (!tied && !(rep.rd.damage < rep.rd.kl * 4)))
            fail_msg("%s: divergence %g, estimated %g", cases[i].settings, rep.rd.kl,
                     rep.rd.damage);
        quant_report_free(&rep);
    }
}

/* The table for programs: every tensor once, as many fields as the columns have. */
static void test_report(void **state)
{
    (void)state;
    struct quant_report rep = {0};
    struct err e = {0};
    char *text = NULL, *at;
    size_t n, lines = 0, tabs = 0;
    double bytes = 0;
    if (quantise("RD_TARGET_BYTES=40000\n", 2, util_path("q.safetensors"), &rep, &e))
        fail_msg("%s", e.msg);
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    quant_report_write(&rep, f);
    fclose(f);
    assert_memory_equal(text, "# pgolf quantisation 1\n", 23);
    assert_non_null(strstr(text, "\n# quantizer\trd\n"));
    assert_non_null(strstr(text, "\n# target\t40000\n"));
    for (char *line = text; (at = strchr(line, '\n')); line = at + 1) {
        size_t have = 0;
        *at = 0;
        if (*line == '#')
            continue;
        for (const char *p = line; *p; p++)
            have += *p == '\t';
        if (!tabs)
            tabs = have;
        else if (have != tabs || strtod(strchr(line, '\t'), NULL) <= 0)
            fail_msg("%s", line);
        else
            bytes += strtod(strchr(strchr(strchr(line, '\t') + 1, '\t') + 1, '\t'), NULL);
        lines++;
    }
    assert_int_equal(tabs, 10);
    assert_int_equal(lines, rep.rd.count + 1);
    if (!(fabs(bytes - (double)rep.rd.bytes) < 2500)) /* REST, and what the coder gains and costs */
        fail_msg("%g bytes in the table, %llu in the file", bytes,
                 (unsigned long long)rep.rd.bytes);
    free(text);
    quant_report_free(&rep);
}

static void test_threads(void **state)
{
    (void)state;
    const void *first, *data;
    size_t first_n, n;
    struct err e = {0};
    char one[512];
    snprintf(one, sizeof one, "%s", util_path("one.safetensors"));
    if (quantise("RD_TARGET_BYTES=40000\n", 1, one, NULL, &e) ||
        file_map(one, &first, &first_n, &e))
        fail_msg("%s", e.msg);
    for (size_t threads = 2; threads < 7; threads += 3) {
        const char *path = util_path("more.safetensors");
        if (quantise("RD_TARGET_BYTES=40000\n", threads, path, NULL, &e) ||
            file_map(path, &data, &n, &e))
            fail_msg("%s", e.msg);
        assert_int_equal(n, first_n);
        if (memcmp(data, first, n))
            fail_msg("%zu threads: another file", threads);
        file_unmap(data, n);
    }
    file_unmap(first, first_n);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *says;
        enum err_code code;
    } cases[] = {
        {"", "RD_TARGET_BYTES", ERR_USAGE},
        {"RD_TARGET_BYTES=40000\nRD_STATES=12\n", "RD_STATES=12", ERR_USAGE},
        {"RD_TARGET_BYTES=40000\nRD_STEPS=columns\n", "fisher, open, column", ERR_USAGE},
        {"RD_TARGET_BYTES=40000\nRD_KL_TOKENS=0\n", "RD_KL_TOKENS", ERR_USAGE},
        {"RD_TARGET_BYTES=40000\nRD_EMBED_SHARE=-1\n", "RD_EMBED_SHARE", ERR_USAGE},
        {"RD_TARGET_BYTES=1500\n", "over the target of 1500", ERR_RESOURCE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        const char *path = util_path("refused.safetensors");
        enum err_code rc = quantise(cases[i].settings, 1, path, NULL, &e);
        if (rc != cases[i].code || !strstr(e.msg, cases[i].says))
            fail_msg("%s: %d %s", cases[i].settings, (int)rc, e.msg);
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

/* A model that has not so many bytes to give is written as finely as it goes. */
static void test_finest(void **state)
{
    (void)state;
    struct quant_report rep = {0};
    struct err e = {0};
    if (quantise("RD_TARGET_BYTES=4000000\n", 2, util_path("fine.safetensors"), &rep, &e))
        fail_msg("%s", e.msg);
    assert_true(rep.rd.finest && rep.rd.bytes < 200000 && rep.rd.kl < 1e-3);
    quant_report_free(&rep);
}

/* What fisher.h and hessian.h say about random errors in one matrix, against the divergence. */
static void test_sensitivity(void **state)
{
    (void)state;
    static const char *const name[] = {"blocks.0.attn.c_q.weight", "blocks.0.attn.c_v.weight",
                                       "blocks.1.attn.proj.weight", "blocks.1.mlp.fc.weight",
                                       "blocks.2.mlp.proj.weight"};
    struct tiny t = tiny_open(RECIPE "GPTQ_CALIB_BATCHES=1\nGPTQ_BATCH_TOKENS=4096\n", 2, 6);
    uint64_t seed = 21;
    struct calib c = {.k = t.k, .take = take, .ctx = &seed};
    struct hessians hs;
    struct fisher f;
    struct kl l;
    struct err e = {0};
    float *copy = malloc(t.m.floats * sizeof *copy);
    if (hessian_collect(&hs, &t.m, t.params, &t.m.r, &c, &e) ||
        fisher_collect(&f, &t.m, t.params, 4096, &c, &e) ||
        kl_open(&l, &t.m, t.params, 2048, &c, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < COUNT(name); i++) {
        const struct gpt_param *p = gpt_find(&t.m, name[i]);
        const float *h = hessian_matrix(&hs, hessian_find(&hs, p->at));
        const struct fisher_layer *lay = fisher_find(&f, p->at);
        size_t cols = p->shape[1];
        double want = 0, got;
        memcpy(copy, t.params, t.m.floats * sizeof *copy);
        for (size_t r = 0; r < p->shape[0]; r++) {
            double d[256], sum = 0;
            for (size_t j = 0; j < cols; j++) {
                d[j] = 0.004 * util_uniform(&seed);
                copy[p->at + r * cols + j] += (float)d[j];
            }
            for (size_t j = 0; j < cols * cols; j++)
                sum += d[j / cols] * d[j % cols] * (double)h[j] / 4096;
            want += lay->mean[r] * sum / 2;
        }
        if (kl_measure(&l, copy, &got, &e))
            fail_msg("%s", e.msg);
        if (!(got > want / 3 && got < want * 3))
            fail_msg("%s: divergence %g, estimated %g", name[i], got, want);
    }
    if (kl_measure(&l, t.params, &(double){0}, &e))
        fail_msg("%s", e.msg);
    kl_close(&l);
    fisher_free(&f);
    hessian_free(&hs);
    free(copy);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target),  cmocka_unit_test(test_report),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_finest),  cmocka_unit_test(test_sensitivity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
