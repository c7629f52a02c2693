/*
 * gpt_test - guards against a model that trains or loads as another one than its recipe says:
 * parameter lists that differ from the challenge's, tensors taken from the wrong place, and above
 * all gradients: every parameter tensor of many small recipes is checked by central differences of
 * the whole model.
 */
#include "model/reader.h"
#include "tests/unit/tiny.h"

/* ---- parameters ---- */

static void parameter_counts(void **state)
{
    static const struct {
        const char *settings;
        size_t floats, tensors;
    } cases[] = {
        {"", 17059912, 92}, /* the number that the challenge's baseline prints */
        {"TIE_EMBEDDINGS=0", 17059912 + 1024 * 512, 93},
        {"UNET_SKIPS=0", 17059912 - 4 * 512, 91},
        {"NUM_LAYERS=1", 1024 * 512 + 4 * 512 + 8 + 512 * 512 * 3 + 512 * 512 * 4, 11},
        {"NUM_LAYERS=2", 512 + 1024 * 512 + 2 * (4 * 512 + 8 + 512 * 512 * 7), 22},
        {"VOCAB_SIZE=1\nNUM_LAYERS=1\nMODEL_DIM=2\nNUM_HEADS=1\nNUM_KV_HEADS=1\nMLP_MULT=.5",
         2 + 8 + 1 + 16 + 4, 11},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct recipe r;
        struct gpt m;
        struct err e = {0};
        size_t at = 0;
        recipe_init(&r);
        assert_int_equal(
            recipe_parse(&r, cases[i].settings, strlen(cases[i].settings), "", false, &e), ERR_OK);
        EXPECT(cases[i].settings, ERR_OK, "", gpt_init(&m, &r, &e), e);
        if (m.floats != cases[i].floats || m.nparams != cases[i].tensors)
            fail_msg("%s: %zu parameters in %zu tensors, expected %zu in %zu", cases[i].settings,
                     m.floats, m.nparams, cases[i].floats, cases[i].tensors);
        for (size_t p = 0; p < m.nparams;
             p++) { /* no gaps, no name twice, sizes as the shapes say */
            const struct gpt_param *x = &m.param[p];
            size_t n = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
            if (x->at != at || x->size != n || gpt_find(&m, x->name) != x)
                fail_msg("%s: %s at %zu with %zu", cases[i].settings, x->name, x->at, x->size);
            at += n;
        }
        assert_int_equal(at, m.floats);
        assert_null(gpt_find(&m, "blocks.99.attn_scale"));
        gpt_free(&m);
        gpt_free(&m);
    }
}

/* The order of the state dict, which ties in pruning and packed files depend on. */
static void names(void **state)
{
    static const char *const want[] = {"skip_weights",
                                       "tok_emb.weight",
                                       "blocks.0.attn_scale",
                                       "blocks.0.mlp_scale",
                                       "blocks.0.resid_mix",
                                       "blocks.0.attn.q_gain",
                                       "blocks.0.attn.c_q.weight",
                                       "blocks.0.attn.c_k.weight",
                                       "blocks.0.attn.c_v.weight",
                                       "blocks.0.attn.proj.weight",
                                       "blocks.0.mlp.fc.weight",
                                       "blocks.0.mlp.proj.weight",
                                       "blocks.1.attn_scale"};
    struct recipe r;
    struct gpt m;
    struct err e = {0};
    (void)state;
    tiny_recipe(&r, "TIE_EMBEDDINGS=0\nNUM_LAYERS=12");
    EXPECT("names", ERR_OK, "", gpt_init(&m, &r, &e), e);
    for (size_t i = 0; i < COUNT(want); i++)
        assert_string_equal(m.param[i].name, want[i]);
    assert_string_equal(m.param[m.nparams - 2].name, "blocks.11.mlp.proj.weight");
    assert_string_equal(m.param[m.nparams - 1].name, "lm_head.weight");
    gpt_free(&m);
    for (int64_t heads = 0; heads <= 5;
         heads += 5) { /* 0: nothing may be divided before the check */
        struct err f = {0};
        r.num_heads = heads;
        EXPECT("impossible", ERR_USAGE, heads ? "MODEL_DIM=24 is no multiple" : "NUM_HEADS=0",
               gpt_init(&m, &r, &f), f);
        gpt_free(&m);
    }
}

/* ---- loading ---- */

/* The tensors of a model, filled with values that every storage type holds exactly. */
struct store {
    struct tensor_view *t;
    uint8_t *bytes;
    char (*name)[64];
    size_t count;
};

/* type ST_I8: as .q and .scale. */
static struct store store_make(const struct gpt *m, enum st_dtype type, float *params)
{
    struct store s = {.t = calloc(2 * m->nparams + 2, sizeof *s.t),
                      .bytes = calloc(m->floats + m->nparams, 8),
                      .name = calloc(2 * m->nparams + 2, sizeof *s.name)};
    uint8_t *at = s.bytes;
    uint64_t seed = 8;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        size_t cols = p->size / p->shape[0];
        struct tensor_view *t = &s.t[s.count];
        snprintf(s.name[s.count], sizeof s.name[0], "%s%s", p->name, type == ST_I8 ? ".q" : "");
        *t = (struct tensor_view){.name = s.name[s.count],
                                  .dtype = type,
                                  .ndim = p->ndim,
                                  .shape = {p->shape[0], p->shape[1]},
                                  .data = at,
                                  .nbytes = p->size * st_dtype_size(type)};
        s.count++;
        for (size_t j = 0; j < p->size; j++, at += st_dtype_size(type)) {
            int q = (int)util_below(&seed, 63) - 31;
            float v = (float)q / 16;
            uint32_t u;
            if (type == ST_I8)
                v = (float)q * f16_to_f32((uint16_t)(0x2000 + 37 * (j / cols)));
            memcpy(&u, &v, sizeof u);
            params[p->at + j] = v;
            if (type == ST_F32)
                put_le32(at, u);
            else if (type == ST_I8)
                *at = (uint8_t)q;
            else {
                uint16_t h = type == ST_F16 ? f32_to_f16(v) : f32_to_bf16(v);
                at[0] = (uint8_t)h;
                at[1] = (uint8_t)(h >> 8);
            }
        }
        if (type != ST_I8)
            continue;
        snprintf(s.name[s.count], sizeof s.name[0], "%s.scale", p->name);
        s.t[s.count] = (struct tensor_view){.name = s.name[s.count],
                                            .dtype = ST_F16,
                                            .ndim = 1,
                                            .shape = {p->shape[0]},
                                            .data = at,
                                            .nbytes = 2 * p->shape[0]};
        s.count++;
        for (size_t j = 0; j < p->shape[0]; j++, at += 2) {
            at[0] = (uint8_t)(0x2000 + 37 * j);
            at[1] = (uint8_t)((0x2000 + 37 * j) >> 8);
        }
    }
    return s;
}

static void store_free(struct store *s)
{
    free(s->t);
    free(s->bytes);
    free(s->name);
}

/* Several scales per row: each belongs to an equal part of its columns. */
static void grouped_scales(void **state)
{
    static const size_t groups[] = {1, 2, 3, 24};
    (void)state;
    for (size_t i = 0; i < COUNT(groups); i++) {
        struct tiny t = tiny_open("", 1, 1);
        float *want = calloc(t.m.floats, sizeof *want);
        struct store s = store_make(&t.m, ST_I8, want);
        const struct gpt_param *p = gpt_find(&t.m, "blocks.0.attn.c_q.weight");
        size_t at = 2 * (size_t)(p - t.m.param), n = 24 * groups[i], cols = 24 / groups[i];
        uint8_t *scale = malloc(2 * n);
        struct err e = {0};
        for (size_t k = 0; k < n; k++) {
            scale[2 * k] = (uint8_t)(0x2000 + 5 * k);
            scale[2 * k + 1] = (uint8_t)((0x2000 + 5 * k) >> 8);
        }
        s.t[at + 1].data = scale;
        s.t[at + 1].shape[0] = n;
        s.t[at + 1].nbytes = 2 * n;
        for (size_t r = 0; r < 24; r++)
            for (size_t c = 0; c < 24; c++)
                want[p->at + 24 * r + c] = (float)(int8_t)s.t[at].data[24 * r + c] *
                                           f16_to_f32(le16(scale + 2 * (r * groups[i] + c / cols)));
        EXPECT("load", ERR_OK, "", gpt_load(&t.m, t.params, s.t, s.count, "f", &e), e);
        assert_memory_equal(t.params, want, t.m.floats * sizeof *want);
        free(scale);
        free(want);
        store_free(&s);
        tiny_close(&t);
    }
}

static void every_storage_type(void **state)
{
    static const enum st_dtype types[] = {ST_F32, ST_F16, ST_BF16, ST_I8};
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++) {
        struct tiny t = tiny_open("TIE_EMBEDDINGS=0", 1, 1);
        float *want = calloc(t.m.floats, sizeof *want);
        struct store s = store_make(&t.m, types[i], want);
        struct err e = {0};
        for (size_t turn = 0; turn < 2; turn++) { /* in any order */
            EXPECT("load", ERR_OK, "", gpt_load(&t.m, t.params, s.t, s.count, "f", &e), e);
            assert_memory_equal(t.params, want, t.m.floats * sizeof *want);
            struct tensor_view swap = s.t[0];
            s.t[0] = s.t[s.count - 1];
            s.t[s.count - 1] = swap;
        }
        store_free(&s);
        free(want);
        tiny_close(&t);
    }
}

/* One change to a good store each. Tensor 6 is a matrix, tensor 2 a vector. */
static void tensors_that_are_refused(void **state)
{
    static const uint8_t nan16[2] = {0, 0x7e}, inf16[2] = {0, 0x7c}, infbf[2] = {0x80, 0x7f},
                         nan32[4] = {0, 0, 0xc0, 0xff};
    static const struct {
        const char *name;
        enum st_dtype type;
        int at; /* tensor */
        const char *rename;
        int dtype; /* -1: unchanged */
        size_t shape0, ndim, poke;
        const uint8_t *value;
        const char *says;
    } cases[] = {
        {"missing", ST_F32, 6, "other", -1, 0, 0, 0, NULL,
         "f: tensor blocks.0.attn.c_q.weight: missing"},
        {"shape", ST_F32, 6, NULL, -1, 25, 0, 0, NULL,
         "tensor blocks.0.attn.c_q.weight: the recipe's shape is 24 x 24"},
        {"dims", ST_F32, 6, NULL, -1, 0, 1, 0, NULL, "the recipe's shape is 24 x 24"},
        {"type", ST_F32, 6, NULL, ST_I32, 0, 0, 0, NULL, "must be F32, F16 or BF16"},
        {"NaN in fp32", ST_F32, 6, NULL, -1, 0, 0, 4 * 7, nan32,
         "tensor blocks.0.attn.c_q.weight: element 7 is not finite"},
        {"NaN in fp16", ST_F16, 2, NULL, -1, 0, 0, 2 * 3, nan16,
         "tensor blocks.0.attn_scale: element 3 is not finite"},
        {"infinity in fp16", ST_F16, 2, NULL, -1, 0, 0, 0, inf16, "element 0 is not finite"},
        {"infinity in bf16", ST_BF16, 2, NULL, -1, 0, 0, 2, infbf, "element 1 is not finite"},
        {".q of another type", ST_I8, 2 * 6, NULL, ST_U8, 0, 0, 0, NULL,
         "tensor blocks.0.attn.c_q.weight: .q must be I8 with .scale F16"},
        {"scale missing", ST_I8, 2 * 6 + 1, "other", -1, 0, 0, 0, NULL,
         ".q must be I8 with .scale"},
        {"scale too short", ST_I8, 2 * 6 + 1, NULL, -1, 23, 0, 0, NULL,
         ".q must be I8 with .scale"},
        {"groups over the ends of rows", ST_I8, 2 * 6 + 1, NULL, -1, 36, 0, 0, NULL,
         ".q must be I8 with .scale"},
        {"groups that do not fill a row", ST_I8, 2 * 6 + 1, NULL, -1, 120, 0, 0, NULL,
         ".q must be I8 with .scale"},
        {"no scales", ST_I8, 2 * 6 + 1, NULL, -1, 1, 0, 0, NULL, ".q must be I8 with .scale"},
        {"steps beside scales", ST_I8, 2 * 6 + 3, "blocks.0.attn.c_q.weight.step", -1, 0, 0, 0,
         NULL, ".step beside .scale"},
        {"scale of another type", ST_I8, 2 * 6 + 1, NULL, ST_BF16, 0, 0, 0, NULL,
         ".q must be I8 with .scale"},
        {"scale of two dims", ST_I8, 2 * 6 + 1, NULL, -1, 0, 2, 0, NULL,
         ".q must be I8 with .scale"},
        {"scale NaN", ST_I8, 2 * 6 + 1, NULL, -1, 0, 0, 2 * 3, nan16, "element 72 is not finite"},
        {"scale infinite", ST_I8, 2 * 6 + 1, NULL, -1, 0, 0, 0, inf16, "is not finite"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tiny t = tiny_open("", 1, 1);
        float *want = calloc(t.m.floats, sizeof *want);
        struct store s = store_make(&t.m, cases[i].type, want);
        struct tensor_view *v = &s.t[cases[i].at];
        struct err e = {0};
        if (cases[i].rename)
            v->name = cases[i].rename;
        if (cases[i].dtype >= 0)
            v->dtype = (enum st_dtype)cases[i].dtype;
        if (cases[i].shape0)
            v->shape[0] = cases[i].shape0;
        if (cases[i].ndim)
            v->ndim = cases[i].ndim;
        if (cases[i].value)
            memcpy((uint8_t *)(uintptr_t)v->data + cases[i].poke, cases[i].value,
                   cases[i].type == ST_F32 ? 4 : 2);
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says,
               gpt_load(&t.m, t.params, s.t, s.count, "f", &e), e);
        store_free(&s);
        free(want);
        tiny_close(&t);
    }
}

/* One tensor more than the model has. */
static void strangers(void **state)
{
    static const struct {
        const char *name, *says;
        enum st_dtype type;
    } cases[] = {
        {"blocks.3.attn_scale",
         "tensor blocks.3.attn_scale: the recipe's model has no such parameter", ST_F32},
        {"x", "tensor x: the recipe's model has no such parameter", ST_F32},
        {"", "tensor : the recipe's model has no such parameter", ST_F32},
        {"tok_emb.weight.scale", "tensor tok_emb.weight.scale: the recipe's model has no", ST_F32},
        {"tok_emb.weight.q", "tensor tok_emb.weight: there plain and as .q", ST_F32},
        {"tok_emb.weight", "tensor tok_emb.weight: there plain and as .q", ST_I8},
        {"x.q", "tensor x.q: the recipe's model has no", ST_I8},
        {"x.scale", "tensor x.scale: the recipe's model has no", ST_I8},
        {"an.uncommonly.long.name.that.would.not.fit.into.any.buffer.of.a.careless.reader.scale",
         "reader.scale: the recipe's model has no", ST_I8},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tiny t = tiny_open("", 1, 1);
        float *want = calloc(t.m.floats, sizeof *want);
        struct store s = store_make(&t.m, cases[i].type, want);
        struct err e = {0};
        s.t[s.count] = s.t[0];
        s.t[s.count++].name = cases[i].name;
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says,
               gpt_load(&t.m, t.params, s.t, s.count, "f", &e), e);
        store_free(&s);
        free(want);
        tiny_close(&t);
    }
}

/* ---- gradients ---- */

static const char *const recipes[] = {
    "",
    "NUM_LAYERS=1",
    "TIE_EMBEDDINGS=0\nMLP_SLOPE=0.5",
    "NUM_LAYERS=4\nUNET_SKIPS=0\nLN_SCALE=1",
    "NUM_LAYERS=5\nLN_SCALE=1\nMLP_SLOPE=0.5\nROPE_DIMS=2",
    "LOGIT_SOFTCAP=0\nNUM_KV_HEADS=1",
    "LOGIT_SOFTCAP=3\nNUM_KV_HEADS=4",
    "MODEL_DIM=21\nNUM_HEADS=3\nNUM_KV_HEADS=1\nROPE_DIMS=4\nMLP_MULT=1.4\nVOCAB_SIZE=19",
    "MODEL_DIM=6\nNUM_HEADS=1\nNUM_KV_HEADS=1\nNUM_LAYERS=2\nVOCAB_SIZE=5\nMLP_MULT=0.5",
    "NUM_LAYERS=2\nTRAIN_SEQ_LEN=8", /* rotary base rescaled */
    "XSA_LAST_N=2",
    "XSA_LAST_N=3\nNUM_KV_HEADS=1\nMODEL_DIM=40\nROPE_DIMS=4\nNUM_LAYERS=4",
    "SMEAR_GATE=1",
    "BIGRAM_VOCAB_SIZE=11\nBIGRAM_DIM=10\nSMEAR_GATE=1",
    "BIGRAM_VOCAB_SIZE=5\nBIGRAM_DIM=24", /* no projection */
    "VE_ENABLED=1\nVE_DIM=5\nVE_LAYERS=2,0\nXSA_LAST_N=3",
    "VE_ENABLED=1\nVE_DIM=12\nVE_LAYERS=1", /* no projection */
    "SKIP_GATES_ENABLED=1\nNUM_LAYERS=4",
    "RECUR_LAYERS=1\nXSA_LAST_N=3\nVE_ENABLED=1\nVE_DIM=5\nVE_LAYERS=1",
    "RECUR_LAYERS=2,3\nNUM_LAYERS=5\nSKIP_GATES_ENABLED=1\nSKIP_REUSE_LAST=1\nLN_SCALE=1",
    "PARALLEL_LANES=merge\nPARALLEL_START_LAYER=3\nNUM_LAYERS=5\nRECUR_LAYERS=2",
    ("PARALLEL_LANES=merge\nPARALLEL_START_LAYER=2\nNUM_LAYERS=4\nXSA_LAST_N=4\n"
     "SKIP_GATES_ENABLED=1\nVE_ENABLED=1\nVE_DIM=7\nVE_LAYERS=2,3\nMATRIX_BANKS=1"),
    "PARALLEL_LANES=cross\nPARALLEL_START_LAYER=1\nNUM_LAYERS=4\nSKIP_GATES_ENABLED=1",
    "PARALLEL_LANES=cross\nPARALLEL_START_LAYER=3\nNUM_LAYERS=4\nRECUR_LAYERS=1",
    "MATRIX_BANKS=1\nTIE_EMBEDDINGS=0",
};

struct probe {
    struct tiny t;
    struct graph g;
    uint16_t *tok;
    float *nll;
    size_t rows;
};

/* Mean loss, summed in double. */
static double loss(struct probe *p)
{
    double sum = 0;
    tiny_forward(&p->t, &p->g, p->tok, p->nll);
    for (size_t i = 0; i < p->rows; i++)
        sum += (double)p->nll[i];
    return sum / (double)p->rows;
}

/* Derivative along u, from four points, so that the third derivative cancels as well. */
static double derivative(struct probe *p, const struct gpt_param *x, const float *u, double eps)
{
    static const double step[4] = {1, -1, 2, -2};
    float *at = p->t.params + x->at, *keep = malloc(x->size * sizeof *keep);
    double l[4], real[4];
    memcpy(keep, at, x->size * sizeof *keep);
    for (int s = 0; s < 4; s++) {
        double moved = 0, len = 0;
        for (size_t i = 0; i < x->size; i++) {
            at[i] = (float)((double)keep[i] + eps * step[s] * (double)u[i]);
            moved += ((double)at[i] - (double)keep[i]) * (double)u[i];
            len += (double)u[i] * (double)u[i];
        }
        real[s] = moved / len; /* the step after rounding to fp32 */
        l[s] = loss(p);
    }
    memcpy(at, keep, x->size * sizeof *keep);
    free(keep);
    double near = (l[0] - l[1]) / (real[0] - real[1]), far = (l[2] - l[3]) / (real[2] - real[3]);
    return (4 * near - far) / 3;
}

/*
 * A loss is known to about 1e-7 of its value and a difference of two losses is divided by the step:
 * the step is chosen so that the expected difference is large against that, yet small against the
 * parameters. What is left of the rounding is allowed for, and must be small against the gradient,
 * or the check would say nothing.
 */
static void check_tensor(struct probe *p, const struct gpt_param *x, const float *grad,
                         const char *recipe, uint64_t *s)
{
    const float *g = grad + x->at;
    float *u = malloc(x->size * sizeof *u);
    double norm = 0;
    for (size_t i = 0; i < x->size; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    if (!(norm > 1e-5) || !isfinite(norm))
        fail_msg("recipe \"%s\": %s: the gradient's norm is %g: nothing to check", recipe, x->name,
                 norm);
    for (int turn = 0; turn < 5; turn++) {
        double eps, want = 0, have, noise;
        for (size_t i = 0; i < x->size; i++) {
            /* Along the gradient first, then random directions: those see what is missing in it. */
            u[i] = turn ? (float)util_uniform(s) : (float)((double)g[i] / norm);
            want += (double)u[i] * (double)g[i];
        }
        eps = 4e-3 / norm;
        if (eps > (turn && x->size > 1 ? 0.005 : 0.05))
            eps = turn && x->size > 1 ? 0.005 : 0.05;
        have = derivative(p, x, u, eps);
        noise = 4e-7 / eps;
        if (noise > (x->size > 1 ? 0.2 : 0.5) * norm) /* a scalar's parts cancel by chance */
            fail_msg("recipe \"%s\": %s: gradient %g, noise %g: the check would say nothing",
                     recipe, x->name, norm, noise);
        if (!(fabs(have - want) <= 4e-3 * norm + noise))
            fail_msg("recipe \"%s\": %s: direction %d: gradient says %.7g, differences say %.7g "
                     "(norm %g, step %g)",
                     recipe, x->name, turn, want, have, norm, eps);
    }
    free(u);
}

/* grads of `batch` sequences in runs of `micro`, scaled to the mean. */
static float *gradients(struct tiny *t, const uint16_t *tok, size_t batch, size_t micro, size_t len)
{
    float *grads = t->k->alloc(t->k, t->m.floats * sizeof *grads);
    float *nll = calloc(batch * len, sizeof *nll);
    struct graph g;
    tiny_plan(t, &g, micro, len, 0, true);
    for (size_t b = 0; b < batch; b += micro) {
        for (size_t i = 0; i < g.floats; i++)
            g.block[i] = NAN; /* nothing may be read before it is written */
        tiny_forward(t, &g, tok + b * len, nll);
        graph_backward(&g, t->params, grads, 1 / (float)(batch * len));
    }
    graph_free(&g);
    free(nll);
    return grads;
}

static void every_gradient(void **state)
{
    (void)state;
    for (size_t r = 0; r < COUNT(recipes); r++) {
        enum { BATCH = 2, LEN = 13 };
        struct probe p = {.t = tiny_open(recipes[r], 1, 20 + r), .rows = BATCH * LEN};
        uint64_t s = 33;
        float *grads;
        p.tok = tiny_tokens(&p.t, p.rows, 5 + r);
        p.nll = calloc(p.rows, sizeof *p.nll);
        tiny_plan(&p.t, &p.g, BATCH, LEN, 0, false);
        grads = gradients(&p.t, p.tok, BATCH, BATCH, LEN);
        for (size_t i = 0; i < p.t.m.nparams; i++)
            check_tensor(&p, &p.t.m.param[i], grads, recipes[r], &s);
        p.t.k->free(p.t.k, grads);
        graph_free(&p.g);
        free(p.tok);
        free(p.nll);
        tiny_close(&p.t);
    }
}

/* Sequences longer than a block of keys, batches longer than a block of rows. */
static void a_longer_sequence(void **state)
{
    enum { BATCH = 2, LEN = 71 };
    static const char recipe[] = "NUM_LAYERS=2\nMLP_SLOPE=0.5\nROPE_DIMS=4";
    struct probe p = {.t = tiny_open(recipe, 2, 7), .rows = BATCH * LEN};
    uint64_t s = 34;
    (void)state;
    p.tok = tiny_tokens(&p.t, p.rows, 5);
    p.nll = calloc(p.rows, sizeof *p.nll);
    tiny_plan(&p.t, &p.g, BATCH, LEN, 0, false);
    float *grads = gradients(&p.t, p.tok, BATCH, BATCH, LEN);
    for (size_t i = 0; i < p.t.m.nparams; i++)
        check_tensor(&p, &p.t.m.param[i], grads, recipe, &s);
    p.t.k->free(p.t.k, grads);
    graph_free(&p.g);
    free(p.tok);
    free(p.nll);
    tiny_close(&p.t);
}

/* Micro-batches add up to the gradient of the whole batch, but for rounding. */
static void micro_batches(void **state)
{
    enum { BATCH = 6, LEN = 16 };
    static const size_t micro[] = {1, 2, 3};
    (void)state;
    for (size_t r = 0; r < COUNT(recipes); r++) {
        struct tiny t = tiny_open(recipes[r], 2, 40 + r);
        uint16_t *tok = tiny_tokens(&t, BATCH * LEN, 3);
        float *whole = gradients(&t, tok, BATCH, BATCH, LEN);
        for (size_t i = 0; i < COUNT(micro); i++) {
            float *part = gradients(&t, tok, BATCH, micro[i], LEN);
            for (size_t j = 0; j < t.m.nparams; j++) {
                const struct gpt_param *x = &t.m.param[j];
                double d = 0, n = 0;
                for (size_t q = x->at; q < x->at + x->size; q++) {
                    d += pow((double)whole[q] - (double)part[q], 2);
                    n += pow((double)whole[q], 2);
                }
                /* The parts of a scalar's gradient may cancel, their rounding does not. */
                if (!(sqrt(d) <= (x->size > 1 ? 2e-6 : 2e-5) * sqrt(n)))
                    fail_msg("recipe \"%s\", micro-batches of %zu: %s: relative difference %g",
                             recipes[r], micro[i], x->name, sqrt(d / n));
            }
            t.k->free(t.k, part);
        }
        t.k->free(t.k, whole);
        free(tok);
        tiny_close(&t);
    }
}

/* The same gradient bits whatever the number of threads and the instruction set. */
static void gradient_bits(void **state)
{
    enum { BATCH = 3, LEN = 70 };
    static const char *const isa[] = {"portable", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 7};
    float *first = NULL;
    size_t n = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(isa); i++)
        for (size_t j = 0; j < COUNT(threads); j++) {
            struct kern *k;
            struct err e = {0};
            setenv("KERN_ISA", isa[i], 1);
            if (kern_cpu(&k, 1, &e)) {
                printf("%s\n", e.msg);
                continue;
            }
            kern_free(k);
            struct tiny t = tiny_open("MLP_SLOPE=0.5", threads[j], 2);
            uint16_t *tok = tiny_tokens(&t, BATCH * LEN, 3);
            float *grads = gradients(&t, tok, BATCH, BATCH, LEN);
            if (!first) {
                n = t.m.floats;
                first = malloc(n * sizeof *first);
                memcpy(first, grads, n * sizeof *first);
            }
            for (size_t q = 0; q < t.m.nparams; q++)
                if (memcmp(grads + t.m.param[q].at, first + t.m.param[q].at,
                           t.m.param[q].size * sizeof *grads))
                    fail_msg("%s, %zu threads: %s: other bits", isa[i], threads[j],
                             t.m.param[q].name);
            t.k->free(t.k, grads);
            free(tok);
            tiny_close(&t);
        }
    unsetenv("KERN_ISA");
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameter_counts),
        cmocka_unit_test(names),
        cmocka_unit_test(every_storage_type),
        cmocka_unit_test(grouped_scales),
        cmocka_unit_test(tensors_that_are_refused),
        cmocka_unit_test(strangers),
        cmocka_unit_test(every_gradient),
        cmocka_unit_test(a_longer_sequence),
        cmocka_unit_test(micro_batches),
        cmocka_unit_test(gradient_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
