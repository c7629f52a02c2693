/*
 * import_kinds_test.c - exists for a packed model that is imported as nearly the same model: scales
 * of the neighbouring group, a product rounded once more or once less, a bank, a head or a switch
 * that the file told and nobody read.
 */
#include <math.h>

#include "model/safetensors.h"
#include "packer/import.h"
#include "packer/pickle_write.h"
#include "tests/unit/tiny.h"

/* ---- pickles of NumPy arrays, as protocol 5 has them ---- */

static void py_bytes(struct pickle_out *p, const void *data, size_t n)
{
    pickle_out_op(p, 'B'); /* BINBYTES */
    bytes_out_le(&p->out, n, 4);
    bytes_out_put(&p->out, data, n);
}

static void py_array(struct pickle_out *p, const char *type, size_t ndim, const size_t *shape,
                     const void *data, size_t n)
{
    pickle_out_global(p, "numpy._core.numeric\n_frombuffer\n");
    pickle_out_op(p, '(');
    py_bytes(p, data, n);
    pickle_out_global(p, "numpy\ndtype\n");
    pickle_out_op(p, '(');
    pickle_out_shared(p, type);
    pickle_out_op(p, 't');
    pickle_out_op(p, 'R');
    pickle_out_counts(p, shape, ndim);
    pickle_out_shared(p, "C");
    pickle_out_op(p, 't');
    pickle_out_op(p, 'R');
}

static void py_key_int(struct pickle_out *p, const char *key, size_t v)
{
    pickle_out_shared(p, key);
    pickle_out_int(p, v);
}

/* ---- a model whose matrices are integers times scales ---- */

enum kind { TERNARY, BITMASK, BINARY, NIBBLE, BITS, Q, RECORDS, KINDS };

struct how {
    const char *name;
    enum kind kind;
    unsigned bits;
    size_t group;      /* integers per scale; 0: one per row; 1: one for all */
    const char *scale; /* type of the scales */
    bool bf16;         /* products are rounded, as the scripts of packed kinds do */
};

static const struct how hows[] = {
    {"ternary", TERNARY, 2, 8, "<f2", true},
    {"ternary, padded rows", TERNARY, 2, 10, "<f2", true},
    {"ternary, bit masks", BITMASK, 2, 8, "<f2", true},
    {"binary", BINARY, 2, 8, "<f2", true},
    {"binary, a row or half of one", BINARY, 2, 24, "<f2", true},
    {"int4 in halves of bytes", NIBBLE, 4, 0, "<f2", true},
    {"int4", BITS, 4, 0, "<f2", true},
    {"int5", BITS, 5, 0, "<f4", true},
    {"int6", BITS, 6, 0, "<f2", true},
    {"int8", BITS, 8, 0, "<f8", true},
    {"int6 unpacked", Q, 6, 0, "<f2", false},
    {"int6 unpacked, scales in fp32", Q, 6, 0, "<f4", false},
    {"int6, one scale", RECORDS, 6, 1, "<f2", false},
    {"int5, groups", RECORDS, 5, 12, "<f2", false},
    {"int5, groups in fp32", RECORDS, 5, 6, "<f4", false},
    {"int8", RECORDS, 8, 0, "<f8", false},
};

/* One matrix: integers, scales, and what they stand for. */
struct matrix {
    size_t rows, cols, padded, group, groups;
    int8_t *q; /* [rows][padded] */
    float *scale, *want;
};

static float to_bf16(float f)
{
    return bf16_to_f32(f32_to_bf16(f));
}

static struct matrix matrix_new(const struct how *how, size_t rows, size_t cols, uint64_t *seed)
{
    struct matrix m = {.rows = rows, .cols = cols, .padded = cols, .group = how->group};
    bool ternary = how->kind == TERNARY || how->kind == BITMASK;
    int top = how->bits == 2 ? 1 : (1 << (how->bits - 1)) - 1;
    if (how->group <= 1)
        m.group = how->group ? rows * cols : cols;
    else
        m.padded = (cols + m.group - 1) / m.group * m.group;
    m.groups = rows * m.padded / m.group;
    m.q = malloc(rows * m.padded);
    m.scale = malloc(m.groups * sizeof *m.scale);
    m.want = malloc(rows * cols * sizeof *m.want);
    assert_true(m.q && m.scale && m.want);
    for (size_t i = 0; i < rows * m.padded; i++)
        m.q[i] = (int8_t)(how->kind == BINARY ? (util_below(seed, 2) ? 1 : -1)
                                              : (int)util_below(seed, 2 * (size_t)top + 1) - top);
    for (size_t i = 0; i < m.groups; i++)
        m.scale[i] = f16_to_f32((uint16_t)(0x2800 + util_below(seed, 0x800)));
    /* Groups within rows, or over whole ones: integers stay where fp16 holds what they are
     * multiplied with, or where the script rounds the product to bf16. */
    bool kept = (m.group % cols == 0 || cols % m.group == 0) && m.padded == cols;
    float *scale = malloc(m.groups * sizeof *scale);
    assert_non_null(scale);
    for (size_t g = 0; g < m.groups; g++) {
        size_t some = 0;
        for (size_t k = 0; k < m.group; k++)
            some += m.q[g * m.group + k] != 0;
        scale[g] = m.scale[g];
        if (ternary)
            scale[g] /= some ? (float)some / (float)m.group : 1e-8f;
        kept &= how->bf16 || !some || f16_to_f32(f32_to_f16(scale[g])) == scale[g];
    }
    for (size_t i = 0; i < rows * cols; i++) {
        size_t at = i / cols * m.padded + i % cols;
        float factor = scale[at / m.group];
        if (kept)
            m.want[i] = m.q[at] ? (float)m.q[at] * f16_to_f32(f32_to_f16(factor)) : 0;
        else
            m.want[i] = (float)m.q[at] * factor;
        if (how->bf16 && !kept)
            m.want[i] = to_bf16(m.want[i]);
    }
    free(scale);
    return m;
}

static void matrix_free(struct matrix *m)
{
    free(m->q);
    free(m->scale);
    free(m->want);
}

static void put_scales(struct pickle_out *p, const struct how *how, const struct matrix *m)
{
    uint8_t *out = malloc(8 * m->groups);
    size_t esize = (size_t)(how->scale[2] - '0'), shape[2] = {m->rows, m->groups / m->rows};
    assert_non_null(out);
    for (size_t i = 0; i < m->groups; i++) {
        uint16_t h = f32_to_f16(m->scale[i]);
        double d = m->scale[i];
        memcpy(out + i * esize,
               esize == 2   ? (void *)&h
               : esize == 4 ? (void *)&m->scale[i]
                            : &d,
               esize);
    }
    if (how->group == 1)
        py_array(p, how->scale, 0, shape, out, esize);
    else if (how->group)
        py_array(p, how->scale, 2, shape, out, m->groups * esize);
    else
        py_array(p, how->scale, 1, shape, out, m->groups * esize);
    free(out);
}

/* Integers in as few bits as the kind takes: import_unpack_test.c says that these are the formats.
 */
static size_t pack(uint8_t *out, const struct how *how, const int8_t *q, size_t n)
{
    static const unsigned power[] = {1, 3, 9, 27, 81};
    size_t mask = (n + 7) / 8, signs = 0;
    memset(out, 0, 2 * n + 8);
    for (size_t i = 0; i < n; i++)
        switch (how->kind) {
        case TERNARY:
            out[i / 5] = (uint8_t)(out[i / 5] + (unsigned)(q[i] + 1) * power[i % 5]);
            break;
        case BITMASK:
            out[i / 8] |= (uint8_t)((q[i] != 0) << (7 - i % 8));
            out[mask + signs / 8] |= (uint8_t)((q[i] > 0) << (7 - signs % 8));
            signs += q[i] != 0;
            break;
        case BINARY:
            out[i / 8] |= (uint8_t)((q[i] > 0) << i % 8);
            break;
        case NIBBLE:
            out[i / 2] |= (uint8_t)((q[i] + 8) << 4 * (i % 2));
            break;
        default:
            for (unsigned b = 0; b < how->bits; b++) {
                unsigned v = (unsigned)(q[i] + (1 << (how->bits - 1)) - 1),
                         at = (unsigned)i * how->bits + b;
                out[at / 8] |= (uint8_t)((v >> b & 1) << at % 8);
            }
        }
    return how->kind == TERNARY   ? (n + 4) / 5
           : how->kind == BITMASK ? mask + (signs + 7) / 8
           : how->kind == BINARY  ? mask
           : how->kind == NIBBLE  ? (n + 1) / 2
                                  : (n * how->bits + 7) / 8;
}

/* The dictionary of one matrix. */
static void put_entry(struct pickle_out *p, const struct how *how, const struct matrix *m)
{
    static const char *const type[] = {"ternary", "ternary_bitmask", "binary", "fp4"};
    size_t shape[2] = {m->rows, m->cols}, n = m->rows * m->padded;
    char bits[8];
    snprintf(bits, sizeof bits, "int%u", how->bits);
    bool q = how->kind == Q, group = how->kind <= BINARY;
    size_t keys = q ? 4 : how->kind == NIBBLE ? 4 : how->kind == BITS ? 6 : 7;
    pickle_out_dict(p, keys);
    pickle_out_shared(p, "type");
    pickle_out_str(p, q ? "quant" : how->kind == BITS ? bits : type[how->kind]);
    pickle_out_shared(p, "scale");
    put_scales(p, how, m);
    pickle_out_shared(p, q ? "q" : "packed");
    if (q) {
        py_array(p, "|i1", 2, shape, m->q, n);
    } else {
        uint8_t *out = malloc(2 * n + 8);
        assert_non_null(out);
        size_t len = pack(out, how, m->q, n);
        if (how->kind == NIBBLE)
            py_array(p, "|u1", 1, &len, out, len);
        else
            py_bytes(p, out, len);
        free(out);
        pickle_out_shared(p, "shape");
        pickle_out_counts(p, shape, 2);
    }
    if (q || how->kind == BITS)
        py_key_int(p, "bits", how->bits);
    if (how->kind == BITS)
        py_key_int(p, "n_vals", n);
    if (group) {
        py_key_int(p, "group_size", m->group);
        py_key_int(p, "padded_cols", m->padded);
        py_key_int(p, how->kind == BINARY ? "n_bits" : "n_trits", n);
    }
    pickle_out_dict_end(p, keys);
}

static bool is_matrix(const struct gpt_param *p)
{
    return p->ndim == 2 && p->cls != PARAM_CONTROL;
}

/* A plain tensor of random fp16; what it stands for goes to want. */
static void put_plain(struct pickle_out *p, const struct gpt_param *g, bool entry, bool bf16,
                      float *want, uint64_t *seed)
{
    uint16_t *h = malloc(g->size * sizeof *h);
    assert_non_null(h);
    for (size_t i = 0; i < g->size; i++) {
        h[i] = (uint16_t)(0x3000 + util_below(seed, 0xc00));
        want[i] = bf16 ? to_bf16(f16_to_f32(h[i])) : f16_to_f32(h[i]);
    }
    if (entry) {
        pickle_out_dict(p, 2);
        pickle_out_shared(p, "type");
        pickle_out_shared(p, "fp16");
        pickle_out_shared(p, "data");
    }
    py_array(p, "<f2", g->ndim, g->shape, h, 2 * g->size);
    if (entry)
        pickle_out_dict_end(p, 2);
    free(h);
}

/* The file, and in want (like the parameter block) what it should load as. */
static struct bytes_out write_model(const struct how *how, const struct gpt *m, float *want)
{
    struct pickle_out p;
    uint64_t seed = 3;
    bool records = how->kind == RECORDS;
    pickle_out_begin(&p);
    if (records) {
        pickle_out_dict(&p, 2);
        pickle_out_shared(&p, "w");
    }
    size_t matrices = 0;
    for (size_t i = 0; i < m->nparams; i++)
        matrices += is_matrix(&m->param[i]);
    pickle_out_dict(&p, m->nparams + (records ? matrices : 0));
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *g = &m->param[i];
        char name[80];
        if (!is_matrix(g)) {
            pickle_out_str(&p, g->name);
            put_plain(&p, g, !records, how->bf16, want + g->at, &seed);
            continue;
        }
        struct matrix x = matrix_new(how, g->shape[0], g->shape[1], &seed);
        memcpy(want + g->at, x.want, g->size * sizeof *want);
        if (records) {
            snprintf(name, sizeof name, "%s.q", g->name);
            pickle_out_str(&p, name);
            py_array(&p, "|i1", 2, g->shape, x.q, g->size);
            snprintf(name, sizeof name, "%s.scale", g->name);
            pickle_out_str(&p, name);
            put_scales(&p, how, &x);
        } else {
            pickle_out_str(&p, g->name);
            put_entry(&p, how, &x);
        }
        matrix_free(&x);
    }
    pickle_out_dict_end(&p, m->nparams + (records ? matrices : 0));
    if (records) {
        char type[24];
        snprintf(type, sizeof type, "gptq (int%u)", how->bits);
        pickle_out_shared(&p, "m");
        pickle_out_dict(&p, m->nparams);
        for (size_t i = 0; i < m->nparams; i++) {
            pickle_out_str(&p, m->param[i].name);
            pickle_out_str(&p, is_matrix(&m->param[i]) ? type : "passthrough (float16)");
        }
        pickle_out_dict_end(&p, m->nparams);
        pickle_out_dict_end(&p, 2);
    }
    pickle_out_end(&p);
    assert_false(p.out.failed);
    return p.out;
}

/* ---- */

static void check_loaded(const struct how *how, const char *path, const struct gpt *m,
                         const float *want)
{
    struct st_file f;
    struct err e = {0};
    float *have = malloc(m->floats * sizeof *have);
    assert_non_null(have);
    EXPECT(how->name, ERR_OK, "", st_open(&f, path, &e), e);
    EXPECT(how->name, ERR_OK, "", gpt_load(m, have, f.tensor, f.count, path, &e), e);
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *g = &m->param[i];
        for (size_t k = g->at; k < g->at + g->size; k++)
            if (have[k] != want[k])
                fail_msg("%s: %s[%zu] is %.9g, expected %.9g", how->name, g->name, k - g->at,
                         (double)have[k], (double)want[k]);
    }
    st_close(&f);
    free(have);
}

static void kinds(void **state)
{
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    struct import_report *rep = calloc(1, sizeof *rep);
    (void)state;
    assert_non_null(rep);
    tiny_recipe(&r, "");
    EXPECT("model", ERR_OK, "", gpt_init(&m, &r, &e), e);
    float *want = malloc(m.floats * sizeof *want);
    assert_non_null(want);
    for (size_t i = 0; i < COUNT(hows); i++) {
        static const char *const set[] = {"EMBED_BF16=0", "TRAIN_SEQ_LEN=16"};
        const char *path = util_path("model.pkl"), *out = util_path("out.safetensors");
        struct bytes_out b = write_model(&hows[i], &m, want);
        const struct import_job job = {.record = path, .out = out, .setting = set, .settings = 2};
        util_spill(path, b.data, b.n);
        enum err_code rc = import_record(&job, rep, &e);
        if (rc)
            fail_msg("%s: %s; %s", hows[i].name, e.msg, rep->line[0]);
        assert_string_equal(rep->payload, "pickle");
        assert_string_equal(rep->layout, hows[i].kind == RECORDS ? "records" : "entries");
        check_loaded(&hows[i], out, &m, want);
        free(b.data);
    }
    free(want);
    free(rep);
    gpt_free(&m);
}

/* The recipe comes back from the weights alone, as far as they tell. */
static void recipes(void **state)
{
    static const struct {
        const char *settings;
    } cases[] = {
        {""},
        {"NUM_HEADS=2\nNUM_KV_HEADS=1\nMLP_MULT=3.125\n"},
        {"TIE_EMBEDDINGS=0\nUNET_SKIPS=0\n"},
        {"SKIP_GATES_ENABLED=1\nSMEAR_GATE=1\nBIGRAM_VOCAB_SIZE=11\nBIGRAM_DIM=8\n"},
        {"PARALLEL_LANES=merge\nPARALLEL_START_LAYER=1\nVE_ENABLED=1\nVE_DIM=8\nVE_LAYERS=1,2\n"},
        {"PARALLEL_LANES=cross\nPARALLEL_START_LAYER=1\nNUM_LAYERS=2\nBIGRAM_VOCAB_SIZE=9\n"
         "BIGRAM_DIM=24\n"},
        {"NUM_LAYERS=1\nVOCAB_SIZE=5\n"},
    };
    const struct how how = {"recipe", RECORDS, 6, 0, "<f2", false};
    struct import_report *rep = calloc(1, sizeof *rep);
    (void)state;
    assert_non_null(rep);
    for (size_t i = 0; i < COUNT(cases); i++) {
        static const char *const set[] = {"TRAIN_SEQ_LEN=16", "EVAL_STRIDE=4", "EMBED_BF16=0"};
        struct recipe r, back;
        struct gpt m;
        struct st_file f;
        struct err e = {0};
        char a[8192], b[8192];
        tiny_recipe(&r, cases[i].settings);
        EXPECT("model", ERR_OK, "", gpt_init(&m, &r, &e), e);
        float *want = malloc(m.floats * sizeof *want);
        assert_non_null(want);
        struct bytes_out file = write_model(&how, &m, want);
        const char *path = util_path("model.pkl"), *out = util_path("out.safetensors");
        const struct import_job job = {.record = path, .out = out, .setting = set, .settings = 3};
        util_spill(path, file.data, file.n);
        enum err_code rc = import_record(&job, rep, &e);
        if (rc)
            fail_msg("case %zu: %s; %s", i, e.msg, rep->line[0]);
        EXPECT("open", ERR_OK, "", st_open(&f, out, &e), e);
        const char *text = st_meta(&f, "recipe");
        recipe_init(&back);
        EXPECT("recipe", ERR_OK, "", recipe_parse(&back, text, strlen(text), "x", false, &e), e);
        recipe_print(&r, RECIPE_MODEL, false, a, sizeof a);
        recipe_print(&back, RECIPE_MODEL, false, b, sizeof b);
        if (strcmp(a, b))
            fail_msg("case %zu: the recipe was\n%sand is\n%s", i, a, b);
        assert_string_equal(back.quant_method, "gptq");
        st_close(&f);
        free(file.data);
        free(want);
        gpt_free(&m);
    }
    free(rep);
}

/* ---- entries that make no sense: each is named, and nothing is written ---- */

static void entries(void **state)
{
    static const struct {
        const char *name, *type, *key;
        size_t value;
        const char *part;
    } cases[] = {
        {"nothing wrong", "ternary", NULL, 0, "of no model"}, /* but the model is missing */
        {"a strange type", "quaternary", NULL, 0, "packed as quaternary"},
        {"bits without a number", "int6", NULL, 0, "packed as int6"},
        {"more numbers", "ternary", "n_trits", 65, "not understood"},
        {"groups that do not fit", "ternary", "group_size", 7, "not understood"},
        {"more padding than a group", "ternary", "padded_cols", 1 << 20, "not understood"},
        {"no padding at all", "ternary", "padded_cols", 4, "not understood"},
        {"too few scales", "ternary", "group_size", 4, "8 scales, expected 16"},
    };
    struct import_report *rep = calloc(1, sizeof *rep);
    (void)state;
    assert_non_null(rep);
    for (size_t i = 0; i < COUNT(cases); i++) {
        static const char *const keys[] = {"n_trits", "group_size", "padded_cols"};
        static const size_t values[] = {64, 8, 8};
        const size_t shape[2] = {8, 8};
        const uint8_t packed[13] = {0};
        const uint16_t scale[8] = {0x3c00};
        struct pickle_out p;
        struct err e = {0};
        pickle_out_begin(&p);
        pickle_out_dict(&p, 1);
        pickle_out_str(&p, "blocks.0.x.weight");
        pickle_out_dict(&p, 7);
        pickle_out_str(&p, "type");
        pickle_out_str(&p, cases[i].type);
        pickle_out_str(&p, "packed");
        py_bytes(&p, packed, sizeof packed);
        pickle_out_str(&p, "scale");
        py_array(&p, "<f2", 1, shape, scale, sizeof scale);
        pickle_out_str(&p, "shape");
        pickle_out_counts(&p, shape, 2);
        for (size_t k = 0; k < 3; k++)
            py_key_int(&p, keys[k],
                       cases[i].key && !strcmp(keys[k], cases[i].key) ? cases[i].value : values[k]);
        pickle_out_dict_end(&p, 7);
        pickle_out_dict_end(&p, 1);
        pickle_out_end(&p);
        const char *path = util_path("entry.pkl"), *out = util_path("entry.safetensors");
        const struct import_job job = {.record = path, .out = out};
        util_spill(path, p.out.data, p.out.n);
        EXPECT(cases[i].name, ERR_INPUT, "tok_emb.weight", import_record(&job, rep, &e), e);
        if (!rep->lines || !strstr(rep->line[0], cases[i].part) ||
            !strstr(rep->line[0], "blocks.0.x.weight"))
            fail_msg("%s: says \"%s\"", cases[i].name, rep->lines ? rep->line[0] : "nothing");
        assert_int_not_equal(access(out, F_OK), 0);
        free(p.out.data);
    }
    free(rep);
}

/* Names are printed: what a terminal would obey does not get through. */
static void names(void **state)
{
    struct import_report *rep = calloc(1, sizeof *rep);
    struct pickle_out p;
    struct err e = {0};
    const size_t one = 1;
    (void)state;
    assert_non_null(rep);
    pickle_out_begin(&p);
    pickle_out_dict(&p, 1);
    pickle_out_str(&p, "a.\n\x1b[31m\xe2\x80\xae");
    py_array(&p, "|i1", 1, &one, "x", 1);
    pickle_out_dict_end(&p, 1);
    pickle_out_end(&p);
    const char *path = util_path("names.pkl");
    const struct import_job job = {.record = path, .out = util_path("names.safetensors")};
    util_spill(path, p.out.data, p.out.n);
    EXPECT("names", ERR_INPUT, "tok_emb", import_record(&job, rep, &e), e);
    assert_string_equal(rep->line[0], "tensor a.??[31m??? I8 [1]: of no model that is known here");
    free(p.out.data);
    free(rep);
}

/* ---- bytes saved ---- */

static void saved(void **state)
{
    static const uint8_t one[4];
    const struct tensor_view t = {
        .name = "x", .dtype = ST_F32, .ndim = 1, .shape = {1}, .data = one, .nbytes = 4};
    static const char *const plain[] = {"imported_from", "a.ptz", "record_bytes", "15800000"};
    static const char *const code[] = {"imported_from",     "a.ptz", "record_bytes", "15800000",
                                       "record_code_bytes", "90000"};
    static const struct {
        const char *const *meta;
        size_t pairs, bytes;
        const char *want;
    } cases[] = {
        {plain, 2, 15799000,
         "1,000 bytes smaller than a.ptz of 15,800,000 bytes, whose script is not counted"},
        {code, 3, 15000000,
         "890,000 bytes smaller than a.ptz of 15,800,000 bytes and its script of 90,000"},
        {code, 3, 15890001,
         "1 bytes larger than a.ptz of 15,800,000 bytes and its script of 90,000"},
        {plain, 0, 1, ""},
        {plain, 1, 1, ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct st_file f;
        struct err e = {0};
        char text[160];
        const char *path = util_path("meta.safetensors");
        EXPECT("write", ERR_OK, "", st_write(path, &t, 1, cases[i].meta, cases[i].pairs, &e), e);
        EXPECT("open", ERR_OK, "", st_open(&f, path, &e), e);
        assert_int_equal(import_saved(text, sizeof text, &f, cases[i].bytes), *cases[i].want != 0);
        assert_string_equal(text, cases[i].want);
        st_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds), cmocka_unit_test(recipes), cmocka_unit_test(entries),
        cmocka_unit_test(names), cmocka_unit_test(saved),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
