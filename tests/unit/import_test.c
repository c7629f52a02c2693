/*
 * import_test.c - exists for a record that is read as a slightly different model: a bank cut at the
 * wrong layer, a tensor that nobody missed, a table that was bf16 and is not rounded, a file of
 * this project that comes back from the record's format changed.
 */
#include "model/safetensors.h"
#include "packer/export.h"
#include "packer/import.h"
#include "packer/ptz_write.h"
#include "tests/unit/tiny.h"

/* ---- a quantised model: matrices and tables as integers, the rest fp16 ---- */

enum { MOST = 256, NAME = 64 };

struct made {
    struct tensor_view t[MOST];
    char name[MOST][NAME];
    uint8_t *data;
    size_t n, used;
};

static struct tensor_view *add(struct made *m, const char *name, const char *suffix,
                               enum st_dtype dtype, size_t ndim, const size_t *shape)
{
    struct tensor_view *t = &m->t[m->n];
    assert_true(m->n < MOST);
    snprintf(m->name[m->n], NAME, "%s%s", name, suffix);
    *t = (struct tensor_view){.name = m->name[m->n++], .dtype = dtype, .ndim = ndim};
    memcpy(t->shape, shape, ndim * sizeof *shape);
    t->data = m->data + m->used;
    t->nbytes = tensor_elems(t) * st_dtype_size(dtype);
    uint64_t seed = m->used + 1;
    for (size_t i = 0; i < t->nbytes; i++) /* fp16 between 0.1 and 1; integers between -31 and 31 */
        m->data[m->used + i] = dtype == ST_I8 ? (uint8_t)(util_below(&seed, 63) - 31)
                               : i % 2        ? (uint8_t)(0x2e + util_below(&seed, 13))
                                              : (uint8_t)util_next(&seed);
    m->used += (t->nbytes + 7) / 8 * 8;
    return t;
}

static struct made *make(const struct recipe *r)
{
    struct gpt m;
    struct err e = {0};
    struct made *out = calloc(1, sizeof *out);
    if (!out || gpt_init(&m, r, &e))
        fail_msg("%s", e.msg);
    out->data = malloc(m.floats * 4 + (size_t)MOST * 64);
    assert_non_null(out->data);
    for (size_t i = 0; i < m.nparams; i++) {
        const struct gpt_param *p = &m.param[i];
        if (p->ndim < 2 || p->cls == PARAM_CONTROL) {
            add(out, p->name, "", ST_F16, p->ndim, p->shape);
        } else {
            add(out, p->name, ".q", ST_I8, p->ndim, p->shape);
            add(out, p->name, ".scale", ST_F16, 1, p->shape);
        }
    }
    gpt_free(&m);
    return out;
}

static void made_free(struct made *m)
{
    free(m->data);
    free(m);
}

static const char *recipe_file(const char *settings)
{
    const char *path = util_path("model.conf");
    char text[2048];
    int n = snprintf(text, sizeof text, "%s%s", TINY_RECIPE, settings);
    util_spill(path, text, (size_t)n);
    return path;
}

static const char *weights_file(const struct made *m, const struct recipe *r)
{
    static char text[32768];
    const char *path = util_path("in.safetensors");
    struct err e = {0};
    recipe_print(r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text,
                 sizeof text);
    const char *const meta[] = {"recipe", text};
    EXPECT("write", ERR_OK, "", st_write(path, m->t, m->n, meta, 1, &e), e);
    return path;
}

/* The tensors of a file are those of m, in their order. */
static void check_file(const char *label, const char *path, const struct made *m)
{
    struct st_file f;
    struct err e = {0};
    EXPECT(label, ERR_OK, "", st_open(&f, path, &e), e);
    if (f.count != m->n)
        fail_msg("%s: %zu tensors, expected %zu", label, f.count, m->n);
    for (size_t i = 0; i < m->n; i++) {
        const struct tensor_view *a = &f.tensor[i], *b = &m->t[i];
        if (strcmp(a->name, b->name) || a->dtype != b->dtype || a->ndim != b->ndim ||
            memcmp(a->shape, b->shape, a->ndim * sizeof *a->shape) || a->nbytes != b->nbytes ||
            memcmp(a->data, b->data, a->nbytes))
            fail_msg("%s: tensor %zu is %s, expected %s, or differs", label, i, a->name, b->name);
    }
    st_close(&f);
}

/* ---- there and back ---- */

static const struct {
    const char *name, *settings;
} models[] = {
    {"baseline", ""},
    {"lanes, gates, value embeddings",
     "SKIP_GATES_ENABLED=1\nPARALLEL_LANES=merge\nPARALLEL_START_LAYER=1\nVE_ENABLED=1\nVE_DIM=8\n"
     "VE_LAYERS=1,2\nRECUR_LAYERS=1\nQUANT_METHOD=gptq\nBYTE_SHUFFLE=2\n"},
    {"bigram, smear", "SMEAR_GATE=1\nBIGRAM_VOCAB_SIZE=11\nBIGRAM_DIM=8\nCOMPRESSOR=zstd\n"},
    {"int8", "QUANT_BITS=8\nQUANT_EMBED_BITS=8\nCOMPRESSOR=zlib\nEMBED_BF16=1\n"},
    {"mixed, untied", "MIXED_QUANT=1\nTIE_EMBEDDINGS=0\nCOMPRESSOR=lzma\n"},
};

static void there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(models); i++) {
        const char *name = models[i].name;
        struct recipe r;
        tiny_recipe(&r, models[i].settings);
        struct made *m = make(&r);
        const char *ptz = util_path("a.ptz"), *again = util_path("b.ptz");
        const char *out = util_path("out.safetensors");
        struct export_job ex = {
            .weights = weights_file(m, &r), .out = ptz, .level = -1, .shuffle = -1};
        struct import_job im = {
            .record = ptz, .recipe = recipe_file(models[i].settings), .out = out};
        struct export_report done;
        struct import_report *rep = calloc(1, sizeof *rep);
        size_t bytes = 0, na = 0, nb = 0;
        struct err e = {0};
        assert_non_null(rep);
        EXPECT(name, ERR_OK, "", export_record(&ex, &done, &e), e);
        EXPECT(name, ERR_OK, "", import_record(&im, rep, &e), e);
        check_file(name, out, m);
        im.recipe = NULL; /* names and shapes tell the model */
        EXPECT(name, ERR_OK, "", import_record(&im, rep, &e), e);
        check_file(name, out, m);
        im.recipe = recipe_file(models[i].settings);
        EXPECT(name, ERR_OK, "", import_record(&im, rep, &e), e);
        if (rep->problems || rep->file_bytes != done.file_bytes ||
            rep->payload_bytes != done.payload_bytes)
            fail_msg("%s: the reports differ", name);
        EXPECT(name, ERR_OK, "", export_size(ex.weights, &bytes, &e), e);
        assert_int_equal(bytes, done.file_bytes);
        ex.weights = out;
        ex.out = again;
        EXPECT(name, ERR_OK, "", export_record(&ex, &done, &e), e);
        uint8_t *a = util_slurp(ptz, &na), *b = util_slurp(again, &nb);
        if (na != nb || memcmp(a, b, na))
            fail_msg("%s: exported, imported, exported: another file", name);
        free(a);
        free(b);
        free(rep);
        made_free(m);
    }
}

/* ---- import of tensors made for the case ---- */

static const char *write_record(const struct tensor_view *t, size_t n, bool int8)
{
    const char *path = util_path("case.ptz");
    const struct ptz_how how = {
        .codec = PTZ_ZLIB, .bits = 6, .embed_bits = 8, .int8_layout = int8, .embed_bf16 = int8};
    uint8_t *data;
    size_t size;
    struct err e = {0};
    EXPECT("pack", ERR_OK, "", ptz_pack(&data, &size, &how, t, n, &e), e);
    util_spill(path, data, size);
    free(data);
    return path;
}

static enum err_code import(const char *record, const char *settings, struct import_report *rep,
                            struct err *e)
{
    const char *out = util_path("case.safetensors");
    const struct import_job job = {.record = record, .recipe = recipe_file(settings), .out = out};
    unlink(out);
    enum err_code rc = import_record(&job, rep, e);
    if (rc && !access(out, F_OK))
        fail_msg("a failed import left a file behind");
    return rc;
}

/* The matrices of the blocks as #549's banks: [i] and [layers + i], scales one after the other. */
static void banks(void **state)
{
    static const struct {
        const char *bank, *what[2];
    } kinds[] = {{"qo_bank", {"attn.c_q.weight", "attn.proj.weight"}},
                 {"kv_bank", {"attn.c_k.weight", "attn.c_v.weight"}},
                 {"mlp_up_bank", {"mlp.fc.weight", NULL}},
                 {"mlp_down_bank", {"mlp.proj.weight", NULL}}};
    struct recipe r;
    (void)state;
    tiny_recipe(&r, "");
    size_t layers = (size_t)r.num_layers;
    struct made *want = make(&r), *b = calloc(1, sizeof *b);
    struct import_report *rep = calloc(1, sizeof *rep);
    struct err e = {0};
    assert_non_null(b);
    assert_non_null(rep);
    assert_non_null(b->data = malloc(want->used + (1 << 20)));
    for (size_t i = 0; i < want->n; i++) { /* everything that is in no bank */
        const struct tensor_view *t = &want->t[i];
        if (strstr(t->name, ".attn.c_") || strstr(t->name, ".mlp.") || strstr(t->name, "attn.proj"))
            continue;
        struct tensor_view *x = add(b, t->name, "", t->dtype, t->ndim, t->shape);
        memcpy((uint8_t *)(uintptr_t)x->data, t->data, t->nbytes);
    }
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (int scale = 0; scale < 2; scale++) {
            char name[NAME];
            size_t halves = kinds[k].what[1] ? 2 : 1, n = layers * halves, at = 0;
            snprintf(name, sizeof name, "blocks.0.%s%s", kinds[k].what[0], scale ? ".scale" : ".q");
            const struct tensor_view *one = tensor_find(want->t, want->n, name);
            const size_t shape[3] = {scale ? n * one->shape[0] : n, one->shape[0], one->shape[1]};
            struct tensor_view *bank = add(b, kinds[k].bank, scale ? ".scale" : ".q",
                                           scale ? ST_F16 : ST_I8, scale ? 1 : 3, shape);
            for (size_t i = 0; i < n; i++, at += one->nbytes) {
                snprintf(name, sizeof name, "blocks.%zu.%s%s", i % layers,
                         kinds[k].what[i / layers], scale ? ".scale" : ".q");
                const struct tensor_view *t = tensor_find(want->t, want->n, name);
                memcpy((uint8_t *)(uintptr_t)bank->data + at, t->data, t->nbytes);
            }
        }
    EXPECT("banks", ERR_OK, "", import(write_record(b->t, b->n, false), "", rep, &e), e);
    check_file("banks", util_path("case.safetensors"), want);
    EXPECT("another number of layers", ERR_INPUT, "do not fit",
           import(write_record(b->t, b->n, false), "NUM_LAYERS=2\n", rep, &e), e);
    assert_non_null(strstr(rep->line[0], "qo_bank.q"));
    free(rep);
    made_free(b);
    made_free(want);
}

/* One thing wrong; the report must name the tensor. */
static void problems(void **state)
{
    enum { GOOD, MISSING, STRANGER, SHAPE, TYPE, SCALES, SCALE_TYPE, INFINITE };
    static const struct {
        const char *name;
        int what;
        const char *part; /* of a line of the report, or of the error; NULL: imported */
    } cases[] = {
        {"nothing", GOOD, NULL},
        {"a missing tensor", MISSING, "parameter blocks.1.attn_scale: missing"},
        {"a tensor too many", STRANGER, "tensor extra F16 [5]: the recipe's model has no such"},
        {"another shape", SHAPE, "tensor tok_emb.weight.q: its shape is [24, 37]"},
        {"elements of another type", TYPE, "blocks.1.attn_scale: its elements are I16"},
        {"too few scales", SCALES, "tensor tok_emb.weight.scale: 36 scales"},
        {"scales of another type", SCALE_TYPE, NULL}, /* they become fp16, or the product */
        {"not finite", INFINITE, "not finite"},
    };
    struct recipe r;
    (void)state;
    tiny_recipe(&r, "");
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct made *m = make(&r);
        struct import_report *rep = calloc(1, sizeof *rep);
        struct err e = {0};
        size_t scale = 0, q = 0;
        assert_non_null(rep);
        for (size_t k = 0; k < m->n; k++) {
            scale = strcmp(m->t[k].name, "blocks.1.attn_scale") ? scale : k;
            q = strcmp(m->t[k].name, "tok_emb.weight.q") ? q : k;
        }
        switch (cases[i].what) {
        case MISSING:
            memmove(m->t + scale, m->t + scale + 1, (--m->n - scale) * sizeof *m->t);
            break;
        case STRANGER:
            add(m, "extra", "", ST_F16, 1, (const size_t[]){5});
            break;
        case SHAPE:
            m->t[q].shape[0] = 24;
            m->t[q].shape[1] = 37;
            break;
        case TYPE:
            m->t[scale].dtype = ST_I16;
            break;
        case SCALES:
            m->t[q + 1].shape[0]--;
            m->t[q + 1].nbytes -= 2;
            break;
        case SCALE_TYPE:
            m->t[q + 1].dtype = ST_BF16;
            break;
        case INFINITE:
            memcpy((uint8_t *)(uintptr_t)m->t[scale].data, "\0\x7c", 2);
            break;
        }
        const char *record = write_record(m->t, m->n, false);
        enum err_code want = cases[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, "", import(record, "", rep, &e), e);
        bool said = !cases[i].part || strstr(e.msg, cases[i].part) != NULL;
        for (size_t k = 0; k < rep->lines && k < IMPORT_LINES && !said; k++)
            said = strstr(rep->line[k], cases[i].part) != NULL;
        if (!said)
            fail_msg("%s: no line says \"%s\"; the first is \"%s\"", cases[i].name, cases[i].part,
                     rep->line[0]);
        free(rep);
        made_free(m);
    }
}

/* What is not wanted is named and left out; what is missing stays missing. */
static void leaves_out(void **state)
{
    static const char *const prefix[] = {"mtp_heads.", "blocks.2.attn_scale"};
    struct recipe r;
    struct st_file f;
    struct err e = {0};
    (void)state;
    tiny_recipe(&r, "");
    struct made *m = make(&r);
    struct import_report *rep = calloc(1, sizeof *rep);
    assert_non_null(rep);
    add(m, "mtp_heads.0.weight", "", ST_F16, 2, (const size_t[]){3, 5});
    const char *out = util_path("case.safetensors");
    struct import_job job = {.record = write_record(m->t, m->n, false),
                             .recipe = recipe_file(""),
                             .leave_out = prefix,
                             .leave_outs = 2,
                             .out = out};
    m->n--;
    EXPECT("left out", ERR_OK, "", import_record(&job, rep, &e), e);
    check_file("left out", out, m);
    assert_string_equal(rep->line[0], "tensor mtp_heads.0.weight F16 [3, 5]: left out");
    EXPECT("open", ERR_OK, "", st_open(&f, out, &e), e);
    assert_string_equal(st_meta(&f, "left_out"), "mtp_heads.,blocks.2.attn_scale");
    st_close(&f);
    job.leave_outs = 0;
    EXPECT("wanted", ERR_INPUT, "1 things", import_record(&job, rep, &e), e);
    free(rep);
    made_free(m);
}

/* The baseline's file says itself that its tables were bf16. */
static void follows_dtypes(void **state)
{
    struct recipe r;
    (void)state;
    tiny_recipe(&r, "");
    struct made *m = make(&r);
    struct import_report *rep = calloc(1, sizeof *rep);
    struct st_file f;
    struct err e = {0};
    assert_non_null(rep);
    EXPECT("int8", ERR_OK, "", import(write_record(m->t, m->n, true), "", rep, &e), e);
    assert_string_equal(rep->layout, "int8");
    assert_non_null(strstr(rep->line[0], "EMBED_BF16=1"));
    EXPECT("open", ERR_OK, "", st_open(&f, util_path("case.safetensors"), &e), e);
    assert_non_null(strstr(st_meta(&f, "recipe"), "EMBED_BF16=1\n"));
    assert_string_equal(st_meta(&f, "imported_from"), "case.ptz");
    st_close(&f);
    free(rep);
    made_free(m);
}

static void wrong_use(void **state)
{
    struct recipe r;
    struct export_report done;
    struct err e = {0};
    (void)state;
    tiny_recipe(&r, "");
    struct made *m = make(&r);
    struct export_job job = {.weights = weights_file(m, &r),
                             .out = util_path("x.ptz"),
                             .compressor = "rar",
                             .level = -1,
                             .shuffle = -1};
    EXPECT("compressor", ERR_USAGE, "rar", export_record(&job, &done, &e), e);
    job.compressor = "zlib";
    job.shuffle = 1;
    e = (struct err){0};
    EXPECT("shuffle", ERR_USAGE, "BYTE_SHUFFLE=1", export_record(&job, &done, &e), e);
    r.num_layers = 2; /* the recipe is another model's */
    job.weights = weights_file(m, &r);
    e = (struct err){0};
    EXPECT("model", ERR_INPUT, "in.safetensors", export_record(&job, &done, &e), e);
    assert_int_not_equal(access(job.out, F_OK), 0);
    made_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back), cmocka_unit_test(banks),      cmocka_unit_test(problems),
        cmocka_unit_test(follows_dtypes), cmocka_unit_test(leaves_out), cmocka_unit_test(wrong_use),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
