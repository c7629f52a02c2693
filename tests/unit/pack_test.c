/*
 * pack_test - guards against a submission that lacks something, exceeds its budget, differs from
 * run to run, or stays behind half written.
 */
#include "model/bytes.h"
#include "model/file.h"
#include "model/gpt.h"
#include "model/recipe.h"
#include "model/safetensors.h"
#include "packer/pack.h"
#include "stub/weights_dec.h"
#include "stub/xxh64.h"
#include "tests/unit/blob_small.h"
#include "tests/unit/util.h"

static uint8_t loader[TINY_HEADERS], runner[TINY_RUNNER];
static const uint8_t kernels[] = ".version 7.0\n.target sm_80\n";
static const uint8_t table[] = {3, 0, 0, 0, 0, 2, 1, 0, 3, 1};
static const uint8_t source[] = "the sources of everything";

/* The weights of a model of 35 parameters with or without a recipe, and a byte table beside them.
 */
static void write_weights(const char *path, bool recipe)
{
    static const char settings[] = "VOCAB_SIZE=3\nNUM_LAYERS=1\nMODEL_DIM=2\nNUM_HEADS=1\n"
                                   "NUM_KV_HEADS=1\nITERATIONS=7\n";
    static const uint8_t zeros[64];
    const char *meta[] = {"recipe", settings, "tokenizer_xxh64", "0123456789abcdef"};
    struct tensor_view t[16] = {0};
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    recipe_init(&r);
    assert_int_equal(recipe_parse(&r, settings, sizeof settings - 1, "test", false, &e), ERR_OK);
    assert_int_equal(gpt_init(&m, &r, &e), ERR_OK);
    assert_true(m.nparams <= COUNT(t));
    for (size_t i = 0; i < m.nparams; i++) {
        const struct gpt_param *p = &m.param[i];
        t[i] = (struct tensor_view){p->name, ST_F16,     p->ndim, {p->shape[0], p->shape[1]},
                                    zeros,   2 * p->size};
        assert_true(2 * p->size <= sizeof zeros);
    }
    EXPECT("weights", ERR_OK, "",
           st_write(path, t, m.nparams, recipe ? meta : meta + 2, recipe ? 2 : 1, &e), e);
    gpt_free(&m);
    util_spill(util_path("byte_table.bin"), table, sizeof table);
}

static struct pack_job job(void)
{
    tiny_headers(loader, sizeof loader);
    tiny_runner(runner);
    write_weights(util_path("w.safetensors"), true);
    return (struct pack_job){
        .weights = util_path("w.safetensors"),
        .out = util_path("submission"),
        .target_bytes = 16000000,
        .codec = CODEC_AUTO,
        .loader = loader,
        .runner = runner,
        .runner_cuda = runner,
        .kernels = kernels,
        .source = source,
        .loader_n = sizeof loader,
        .runner_n = sizeof runner,
        .runner_cuda_n = sizeof runner,
        .kernels_n = sizeof kernels,
        .source_n = sizeof source,
    };
}

static void packs(void **state)
{
    (void)state;
    for (int what = 0; what < 4; what++) {
        int with_source = what % 2, cuda = what / 2;
        struct pack_job j = job();
        struct blob b, r;
        struct err e = {0};
        uint8_t *raw, *first, *second;
        size_t n, n2;
        struct recipe def;
        recipe_init(&def);
        int64_t iterations = def.iterations;
        j.with_source = with_source;
        j.cuda = cuda;
        EXPECT("pack", ERR_OK, "", pack(&j, &b, &e), e);
        EXPECT("open", ERR_OK, "", blob_open(&r, j.out, loader, sizeof loader, &e), e);
        assert_true(r.known_loader);
        assert_int_equal(r.count, SECTIONS_MIN + with_source + cuda);
        assert_int_equal(r.size, b.size);
        for (size_t i = 0; i < r.count; i++)
            assert_int_equal(r.section[i].size, b.section[i].size);

        EXPECT("table", ERR_OK, "", blob_decode(&raw, blob_find(&r, KIND_BYTE_TABLE), j.out, &e),
               e);
        assert_memory_equal(raw, table, sizeof table);
        free(raw);
        EXPECT("recipe", ERR_OK, "", blob_decode(&raw, blob_find(&r, KIND_RECIPE), j.out, &e), e);
        struct recipe back;
        recipe_init(&back);
        EXPECT("recipe text", ERR_OK, "",
               recipe_parse(&back, (char *)raw, blob_find(&r, KIND_RECIPE)->raw_size, "recipe",
                            false, &e),
               e);
        assert_int_equal(back.num_layers, 1);
        assert_int_equal(back.iterations, iterations); /* how it was trained stays behind */
        free(raw);
        if (with_source) {
            EXPECT("source", ERR_OK, "", blob_decode(&raw, blob_find(&r, KIND_SOURCE), j.out, &e),
                   e);
            assert_memory_equal(raw, source, sizeof source);
            free(raw);
        }
        assert_int_equal(blob_find(&r, KIND_CUDA) != NULL, cuda);
        if (cuda) {
            EXPECT("kernels", ERR_OK, "", blob_decode(&raw, blob_find(&r, KIND_CUDA), j.out, &e),
                   e);
            assert_memory_equal(raw, kernels, sizeof kernels);
            free(raw);
        }
        blob_close(&r);

        first = util_slurp(j.out, &n);
        EXPECT("again", ERR_OK, "", pack(&j, &b, &e), e);
        second = util_slurp(j.out, &n2);
        assert_int_equal(n, n2);
        assert_memory_equal(first, second, n);
        free(first);
        free(second);
        unlink(j.out);
    }
}

static void budget(void **state)
{
    (void)state;
    struct pack_job j = job();
    struct blob b;
    struct err e = {0}, over = {0};
    char said[64];
    EXPECT("fits", ERR_OK, "", pack(&j, &b, &e), e);
    j.target_bytes = b.size;
    EXPECT("fits exactly", ERR_OK, "", pack(&j, &b, &e), e);
    unlink(j.out);
    size_t before = util_entries(util_path(""));
    j.target_bytes--;
    snprintf(said, sizeof said, "would be %zu bytes, 1 over the target of %zu", b.size, b.size - 1);
    EXPECT("one too many", ERR_RESOURCE, said, pack(&j, &b, &over), over);
    assert_int_equal(util_entries(util_path("")), before);
}

static void missing_parts(void **state)
{
    (void)state;
    struct blob b;
    struct pack_job j = job();
    struct err e[6] = {{0}};
    j.weights = util_path("nothing.safetensors");
    EXPECT("no weights", ERR_INPUT, "cannot open", pack(&j, &b, &e[0]), e[0]);

    j = job();
    write_weights(j.weights, false);
    EXPECT("no recipe", ERR_INPUT, "no recipe", pack(&j, &b, &e[1]), e[1]);

    j = job();
    unlink(util_path("byte_table.bin"));
    EXPECT("no byte table", ERR_INPUT, "byte_table.bin", pack(&j, &b, &e[2]), e[2]);
    util_spill(util_path("byte_table.bin"), table, sizeof table - 1);
    EXPECT("short byte table", ERR_INPUT, "byte table", pack(&j, &b, &e[3]), e[3]);

    j = job();
    util_spill(util_path("other.model"), "other", 5);
    j.tokenizer = util_path("other.model");
    EXPECT("other tokeniser", ERR_INPUT, "was trained with 0123456789abcdef", pack(&j, &b, &e[4]),
           e[4]);

    j = job();
    j.out = "/nonexistent/folder/submission";
    EXPECT("nowhere", ERR_RESOURCE, "cannot write", pack(&j, &b, &e[5]), e[5]);
    assert_int_equal(access(util_path("submission"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs),
        cmocka_unit_test(budget),
        cmocka_unit_test(missing_parts),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
