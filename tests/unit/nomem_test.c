/*
 * nomem_test - guards against the crash, the leak and the half-written file that only a full memory
 * shows, where models are read, scored, trained and written. nomem_read_test does the same for
 * readers of other people's files.
 */
#include "model/bytes.h"
#include "model/file.h"
#include "model/reader.h"
#include "model/safetensors.h"
#include "model/score.h"
#include "model/shard.h"
#include "packer/ptz_write.h"
#include "tests/unit/nomem.h"
#include "tests/unit/tiny.h"
#include "trainer/loader.h"
#include "trainer/quant.h"

static const float numbers[24] = {1, 2, 3};
static const struct tensor_view views[] = {
    {.name = "a",
     .dtype = ST_F32,
     .ndim = 2,
     .shape = {4, 6},
     .data = (const void *)numbers,
     .nbytes = 96},
    {.name = "b.q",
     .dtype = ST_I8,
     .ndim = 1,
     .shape = {7},
     .data = (const void *)numbers,
     .nbytes = 7},
};
static const char *const meta[] = {"key", "value", "RECIPE", "NUM_LAYERS=1\n"};

static enum err_code open_safetensors(struct err *e)
{
    struct st_file f;
    enum err_code rc = st_open(&f, util_path("in.safetensors"), e);
    st_close(&f);
    return rc;
}

/* The older file is there, or the whole new one, and nothing else. */
static enum err_code write_safetensors(struct err *e)
{
    const char *dir = util_path("out"), *path = util_path("out/x");
    size_t n = fail_at;
    fail_at = 0;
    util_spill(path, "older", 5);
    fail_at = n;
    enum err_code rc = st_write(path, views, COUNT(views), meta, COUNT(meta) / 2, e);
    fail_at = 0;
    uint8_t *p = util_slurp(path, &n);
    struct st_file f;
    struct err ignored = {0};
    if (rc ? n != 5 || memcmp(p, "older", 5) != 0 : st_parse(&f, p, n, "x", &ignored) != ERR_OK)
        fail_msg("status %d, and the file holds %zu other bytes", rc, n);
    if (!rc)
        st_close(&f);
    free(p);
    assert_int_equal(util_entries(dir), 1);
    return rc;
}

static enum err_code write_file(struct err *e)
{
    enum err_code rc = file_write(util_path("out/x"), "new", 3, e);
    size_t n = fail_at;
    fail_at = 0;
    assert_int_equal(util_entries(util_path("out")), 1);
    fail_at = n;
    return rc;
}

static enum err_code load_recipe(struct err *e)
{
    struct recipe r;
    return recipe_load(&r, util_path("r.conf"), e);
}

static enum err_code load_shards(struct err *e)
{
    uint16_t *tok;
    size_t n;
    enum err_code rc = shard_load(&tok, &n, util_path("data"), "val", 37, 0, e);
    free(tok);
    return rc;
}

static enum err_code list_one_shard(struct err *e)
{
    struct shard_list l;
    enum err_code rc = shard_list(&l, util_path("data/a_val_0.bin"), "val", e);
    if (!rc) /* after a failure there is nothing to free */
        shard_list_free(&l);
    return rc;
}

/* The training data in both orders. */
static enum err_code load_batches(struct err *e)
{
    static const char *const orders[] = {"sequential", "coprime"};
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < 2 && !rc; i++) {
        struct loader l;
        struct recipe r;
        uint16_t ids[8], target[8];
        recipe_init(&r);
        r.train_seq_len = 4;
        r.train_batch_tokens = 8;
        snprintf(r.loader, sizeof r.loader, "%s", orders[i]);
        if (!(rc = loader_open(&l, &r, util_path("data/a_val_0.bin"), e)))
            rc = loader_next(&l, ids, target, 2, e);
        loader_close(&l);
    }
    return rc;
}

static enum err_code load_tokenizer(struct err *e)
{
    struct byte_table b;
    enum err_code rc = bytes_from_tokenizer(&b, util_path("t.model"), e);
    bytes_free(&b);
    return rc;
}

static enum err_code parse_bytes(struct err *e)
{
    struct byte_table b;
    enum err_code rc = bytes_parse(&b, "\1\0\0\0\3\0", 6, "table", e);
    bytes_free(&b);
    return rc;
}

static enum err_code start_threads(struct err *e)
{
    struct kern *k;
    enum err_code rc = kern_cpu(&k, 3, e);
    kern_free(k);
    return rc;
}

/* Recipe to score, everything made anew. */
static enum err_code score_mode(enum eval_mode mode, const char *settings, struct err *e)
{
    uint16_t tok[50];
    uint8_t zeros[37] = {0}, ones[37];
    struct byte_table b = {37, ones, zeros};
    struct score s, record;
    struct score_opts o = {.mode = mode, .batch = 2, .record = &record};
    struct recipe r;
    struct gpt m;
    struct kern *k = NULL;
    float *params = NULL;
    enum err_code rc;
    memset(ones, 1, sizeof ones);
    for (size_t i = 0; i < COUNT(tok); i++)
        tok[i] = (uint16_t)(i * 7 % 37);
    tiny_recipe(&r, settings);
    if ((rc = gpt_init(&m, &r, e)) || (rc = kern_cpu(&k, 1, e)))
        goto out;
    params = k->alloc(k, m.floats * sizeof *params);
    if (!params) {
        rc = err_nomem(e, "parameters", m.floats * sizeof *params);
        goto out;
    }
    tiny_randomise(&m, params, 1);
    rc = score_run(&m, k, params, tok, COUNT(tok), &b, &o, &s, e);
    if (!rc && !(s.val_bpb > 0))
        fail_msg("scored %g", s.val_bpb);
out:
    if (k)
        k->free(k, params);
    kern_free(k);
    gpt_free(&m);
    return rc;
}

static enum err_code score_stream(struct err *e)
{
    return score_mode(EVAL_SLIDING, "", e);
}

static enum err_code score_slot(struct err *e)
{
    return score_mode(EVAL_SLOT, "SLOT_STEPS=1", e);
}

static enum err_code score_ttt(struct err *e)
{
    return score_mode(EVAL_TTT, "TTT_CHUNK_TOKENS=16\nTTT_EPOCHS=1", e);
}

static enum err_code score_both(struct err *e)
{
    return score_mode(EVAL_SLOT_CONTEXT,
                      "SLOT_AFTER_TTT=1\nSLOT_SHARED=1\nSLOT_STEPS=1\nTTT_CHUNK_TOKENS=32\n"
                      "TTT_EPOCHS=1",
                      e);
}

/* The same for one step of training. */
static enum err_code train_step(struct err *e)
{
    uint16_t tok[33] = {0};
    float nll[32], *params = NULL, *grads = NULL;
    struct recipe r;
    struct gpt m;
    struct graph g;
    struct kern *k = NULL;
    enum err_code rc;
    tiny_recipe(&r, "");
    graph_init(&g);
    if ((rc = gpt_init(&m, &r, e)) || (rc = kern_cpu(&k, 1, e)))
        goto out;
    params = k->alloc(k, m.floats * sizeof *params);
    grads = k->alloc(k, m.floats * sizeof *grads);
    if (!params || !grads) {
        rc = err_nomem(e, "parameters", 2 * m.floats * sizeof *params);
        goto out;
    }
    tiny_randomise(&m, params, 1);
    gpt_graph(&m, &g, true);
    if ((rc = graph_plan(&g, k, 2, 16, 0, true, e)) ||
        (rc = graph_forward(&g, params, tok, tok + 1, nll, e)))
        goto out;
    graph_backward(&g, params, grads, 1);
    rc = k->sync(k, e);
out:
    graph_free(&g);
    if (k) {
        k->free(k, params);
        k->free(k, grads);
    }
    kern_free(k);
    gpt_free(&m);
    return rc;
}

static enum err_code take_tokens(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    (void)ctx;
    (void)e;
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint16_t)(i * 7 % 37);
    return ERR_OK;
}

static enum err_code file_size(void *ctx, const struct recipe *r, const struct tensor_view *t,
                               size_t n, uint64_t *bytes, struct err *e)
{
    (void)r;
    (void)e;
    *(size_t *)ctx += n;
    *bytes = 20000 + t[0].nbytes;
    return ERR_OK;
}

/* Quantisation with everything that it can do: calibration, mixed bits, pruning. */
static enum err_code quantise_model(struct err *e)
{
    struct recipe r;
    struct gpt m;
    struct kern *k = NULL;
    struct quant_report rep = {0};
    size_t sizes = 0;
    float *params = NULL;
    enum err_code rc;
    tiny_recipe(&r, "QUANT_METHOD=gptq\nQUANT_CLIP=tensor\nMIXED_QUANT=1\nN_INT6_LAYERS=9\n"
                    "GPTQ_CALIB_BATCHES=1\nGPTQ_BATCH_TOKENS=32\nPRUNE_TARGET_BYTES=1000\n"
                    "PRUNE_SEARCH=fit\n");
    if ((rc = gpt_init(&m, &r, e)) || (rc = kern_cpu(&k, 1, e)))
        goto out;
    if (!(params = malloc(m.floats * sizeof *params))) {
        rc = err_nomem(e, "parameters", m.floats * sizeof *params);
        goto out;
    }
    tiny_randomise(&m, params, 1);
    struct calib c = {.k = k, .take = take_tokens};
    struct quant_with with = {&c, file_size, &sizes};
    rc = quant_write(&m, params, &r, NULL, 0, util_path("out/q"), &with, &rep, e);
    size_t n = fail_at;
    fail_at = 0;
    unlink(util_path("out/q"));
    assert_int_equal(util_entries(util_path("out")), 1);
    fail_at = n;
out:
    quant_report_free(&rep);
    free(params);
    kern_free(k);
    gpt_free(&m);
    return rc;
}

/* A record's file: archive, byte shuffle, compressors. (Not brotli, which ends the
 * program without memory; and reading one goes through libzip, which
 * takes some failures for damage.) */
static enum err_code pack_record(struct err *e)
{
    static const uint8_t data[64];
    static const struct tensor_view t[] = {
        {.name = "a.q", .dtype = ST_I8, .ndim = 2, .shape = {8, 8}, .data = data, .nbytes = 64},
        {.name = "a.scale", .dtype = ST_F16, .ndim = 1, .shape = {8}, .data = data, .nbytes = 16},
    };
    enum err_code rc = ERR_OK;
    for (enum ptz_codec c = PTZ_ZLIB; !rc && c < PTZ_BROTLI; c++) {
        const struct ptz_how how = {.codec = c, .level = 1, .shuffle = 2, .bits = 6};
        uint8_t *file = NULL;
        size_t n;
        rc = ptz_pack(&file, &n, &how, t, COUNT(t), e);
        free(file);
    }
    return rc;
}

static const struct job jobs[] = {
    {"open safetensors", open_safetensors, false},
    {"write safetensors", write_safetensors, false},
    {"write a file", write_file, false},
    {"load a recipe", load_recipe, false},
    {"load shards", load_shards, false},
    {"list one shard", list_one_shard, false},
    {"load a tokeniser", load_tokenizer, false},
    {"parse a byte table", parse_bytes, false},
    {"start threads", start_threads, true},
    {"score a stream", score_stream, false},
    {"score with SLOT", score_slot, false},
    {"score with TTT", score_ttt, false},
    {"score with SLOT after TTT", score_both, false},
    {"a step of training", train_step, false},
    {"load batches", load_batches, false},
    {"quantise a model", quantise_model, false},
    {"pack a record", pack_record, false},
};

static void prepare(void)
{
    static const uint8_t piece[] = {0x0a, 3, 0x0a, 1, 'a'};
    uint8_t shard[SHARD_HEADER + 40] = {0};
    struct err e = {0};
    put_le32(shard, SHARD_MAGIC);
    put_le32(shard + 4, SHARD_VERSION);
    put_le32(shard + 8, 20);
    mkdir(util_path("data"), 0755);
    mkdir(util_path("out"), 0755);
    for (char name[] = "data/a_val_0.bin"; name[11] < '9'; name[11]++)
        util_spill(util_path(name), shard, sizeof shard);
    for (int i = 0; i < 20; i++) { /* more names than one block of the list */
        char name[64];
        snprintf(name, sizeof name, "data/b_val_%02d.bin", i);
        util_spill(util_path(name), shard, sizeof shard);
    }
    util_spill(util_path("t.model"), piece, sizeof piece);
    util_spill(util_path("r.conf"), "NUM_LAYERS=2\n", 13);
    assert_int_equal(st_write(util_path("in.safetensors"), views, COUNT(views), meta, 2, &e),
                     ERR_OK);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    prepare();
    every_allocation_fails(jobs, COUNT(jobs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
