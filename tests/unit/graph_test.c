/*
 * graph_test - guards against a score that depends on how it was computed: pruning to the scored
 * rows, memory that is used again, and operations in place must not change a bit; and no run may
 * read what an earlier one, or nobody, has written.
 */
#include "tests/unit/tiny.h"

static const char *const recipes[] = {
    "",
    "NUM_LAYERS=1",
    "NUM_LAYERS=1\nUNET_SKIPS=0\nTIE_EMBEDDINGS=0",
    "NUM_LAYERS=2\nLN_SCALE=1\nMLP_SLOPE=0.5",
    "NUM_LAYERS=5\nROPE_DIMS=2",
    "MODEL_DIM=15\nNUM_HEADS=3\nNUM_KV_HEADS=1\nROPE_DIMS=4\nLOGIT_SOFTCAP=0\nMLP_MULT=1.5",
    "NUM_LAYERS=4\nUNET_SKIPS=0\nNUM_KV_HEADS=4\nTIE_EMBEDDINGS=0",
    "NUM_LAYERS=1\nXSA_LAST_N=1\nSMEAR_GATE=1\nBIGRAM_VOCAB_SIZE=9\nBIGRAM_DIM=6",
    "NUM_LAYERS=4\nXSA_LAST_N=4\nVE_ENABLED=1\nVE_DIM=5\nVE_LAYERS=0,3\nSKIP_GATES_ENABLED=1\n"
    "RECUR_LAYERS=1,2\nPARALLEL_LANES=merge\nPARALLEL_START_LAYER=3",
    "NUM_LAYERS=3\nXSA_LAST_N=1\nPARALLEL_LANES=cross\nPARALLEL_START_LAYER=0\nSMEAR_GATE=1",
};

/* Every float of the plan's block to NaN: whoever reads before writing shows it. */
static void poison(struct graph *g)
{
    for (size_t i = 0; i < g->floats; i++)
        g->block[i] = NAN;
}

static void expect_bits(const char *recipe, const char *what, size_t batch, size_t len, size_t from,
                        const float *have, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&have[i], &want[i], sizeof *have))
            fail_msg(
                "recipe \"%s\", batch %zu, len %zu, from %zu: %s: row %zu is %.9g, expected %.9g",
                recipe, batch, len, from, what, i, (double)have[i], (double)want[i]);
}

/* ---- pruning and memory never change a bit ---- */

static void one_shape(struct tiny *t, const char *recipe, size_t batch, size_t len, size_t from)
{
    uint16_t *tok = tiny_tokens(t, batch * len, 7 + len);
    float *full = calloc(batch * len, sizeof *full), *part = calloc(batch * len, sizeof *part);
    float *want = calloc(batch * len, sizeof *want);
    size_t scored = len - from;
    struct graph g;
    /* Training keeps every value: the plan without any reuse is what the others are compared with.
     */
    tiny_plan(t, &g, batch, len, 0, true);
    poison(&g);
    tiny_forward(t, &g, tok, full);
    size_t training_floats = g.floats;
    graph_free(&g);
    for (size_t i = 0; i < batch * len; i++)
        if (!isfinite(full[i]) || full[i] <= 0)
            fail_msg("recipe \"%s\": row %zu is %g", recipe, i, (double)full[i]);
    for (size_t b = 0; b < batch; b++)
        memcpy(want + b * scored, full + b * len + from, scored * sizeof *want);
    tiny_plan(t, &g, batch, len, from, false);
    poison(&g);
    tiny_forward(t, &g, tok, part);
    expect_bits(recipe, "scoring against training", batch, len, from, part, want, batch * scored);
    memset(part, 0, batch * len * sizeof *part);
    tiny_forward(t, &g, tok, part); /* again, over what the first run left */
    expect_bits(recipe, "second run", batch, len, from, part, want, batch * scored);
    if (g.floats >= training_floats)
        fail_msg("recipe \"%s\": scoring needs %zu floats, training %zu", recipe, g.floats,
                 training_floats);
    graph_free(&g);
    free(tok);
    free(full);
    free(part);
    free(want);
}

static void pruned_and_full(void **state)
{
    static const struct {
        size_t batch, len, from;
    } shapes[] = {{1, 1, 0},  {1, 2, 1},  {3, 16, 0},  {3, 16, 1},   {3, 16, 12},  {2, 16, 15},
                  {2, 65, 0}, {2, 65, 1}, {1, 70, 63}, {1, 130, 64}, {2, 131, 129}};
    (void)state;
    for (size_t r = 0; r < COUNT(recipes); r++) {
        struct tiny t = tiny_open(recipes[r], 2, 11 + r);
        for (size_t i = 0; i < COUNT(shapes); i++)
            one_shape(&t, recipes[r], shapes[i].batch, shapes[i].len, shapes[i].from);
        tiny_close(&t);
    }
}

/* A row's score depends on the tokens up to it and on nothing else: neither on its neighbours in
 * the batch nor on what follows. */
static void causal_and_separate(void **state)
{
    enum { LEN = 67, BATCH = 3 };
    struct tiny t = tiny_open("ROPE_TRAIN_LEN=-1", 2, 3); /* one table for all lengths */
    uint16_t *tok = tiny_tokens(&t, BATCH * LEN, 9);
    float full[BATCH * LEN], one[LEN], part[LEN];
    struct graph g;
    (void)state;
    tiny_plan(&t, &g, BATCH, LEN, 0, false);
    tiny_forward(&t, &g, tok, full);
    graph_free(&g);
    for (size_t b = 0; b < BATCH; b++) {
        tiny_plan(&t, &g, 1, LEN, 0, false);
        tiny_forward(&t, &g, tok + b * LEN, one);
        graph_free(&g);
        expect_bits("", "alone in its batch", 1, LEN, 0, one, full + b * LEN, LEN);
    }
    for (size_t len = 1; len < LEN; len += 13) {
        tiny_plan(&t, &g, 1, len, 0, false);
        tiny_forward(&t, &g, tok, part);
        graph_free(&g);
        expect_bits("", "shorter sequence", 1, len, 0, part, full, len);
    }
    free(tok);
    tiny_close(&t);
}

/* ---- hand-made graphs ---- */

static void dead_ends_cost_nothing(void **state)
{
    enum { VOCAB = 5, DIM = 6, LEN = 4 };
    struct kern *k;
    struct err e = {0};
    float params[VOCAB * DIM + DIM * DIM], nll[2][LEN];
    uint16_t ids[LEN] = {0, 1, 2, 4}, target[LEN] = {1, 2, 4, 3};
    uint64_t s = 1;
    size_t floats[2];
    (void)state;
    assert_int_equal(kern_cpu(&k, 1, &e), ERR_OK);
    for (size_t i = 0; i < COUNT(params); i++)
        params[i] = (float)util_uniform(&s);
    for (int dead = 0; dead < 2; dead++) {
        struct graph g;
        int x, n;
        graph_init(&g);
        g.head_dim = DIM;
        g.rope_dims = DIM;
        g.rope_base = 10000;
        x = graph_embed(&g, 0, VOCAB, DIM);
        if (dead) { /* a branch that reaches no loss, and one whose result nobody reads */
            int q = graph_linear(&g, x, VOCAB * DIM, DIM, DIM);
            graph_qk(&g, q, GRAPH_NONE, 1);
            graph_combine(&g, q, GRAPH_NONE, x, GRAPH_NONE, 1, NULL);
        }
        graph_combine(&g, x, GRAPH_NONE, GRAPH_NONE, GRAPH_NONE, 1, &n);
        graph_head(&g, n, 0, VOCAB, DIM, 0);
        assert_int_equal(graph_plan(&g, k, 1, LEN, 0, false, &e), ERR_OK);
        size_t alive = 0;
        for (size_t i = 0; i < g.nodes; i++)
            alive += !g.node[i].dead;
        assert_int_equal(alive, 3);
        floats[dead] = g.floats;
        assert_int_equal(graph_forward(&g, params, ids, target, nll[dead], &e), ERR_OK);
        graph_free(&g);
        graph_free(&g);
    }
    assert_memory_equal(nll[0], nll[1], sizeof nll[0]);
    assert_int_equal(floats[0], floats[1]);
    /* And once by hand. */
    for (size_t r = 0; r < LEN; r++) {
        double h[DIM], sq = 0, sum = 0, z[VOCAB];
        for (size_t i = 0; i < DIM; i++) {
            h[i] = (double)params[ids[r] * DIM + i];
            sq += h[i] * h[i] / DIM;
        }
        for (size_t v = 0; v < VOCAB; v++) {
            z[v] = 0;
            for (size_t i = 0; i < DIM; i++)
                z[v] += h[i] / sqrt(sq) * (double)params[v * DIM + i];
            sum += exp(z[v]);
        }
        double want = log(sum) - z[target[r]];
        if (fabs(want - (double)nll[0][r]) > 1e-5)
            fail_msg("row %zu: %.9g, expected %.9g", r, (double)nll[0][r], want);
    }
    kern_free(k);
}

/* In the last block only keys and values see all rows; everything behind them sees the scored ones.
 */
static void what_is_pruned(void **state)
{
    struct tiny t = tiny_open("NUM_LAYERS=2", 1, 1);
    struct graph g;
    size_t takes = 0, tail = 0, full_linear = 0;
    (void)state;
    tiny_plan(&t, &g, 2, 16, 12, false);
    for (size_t i = 0; i < g.nodes; i++) {
        const struct graph_node *n = &g.node[i];
        takes += n->op == OP_TAKE;
        tail += n->tail;
        full_linear += !n->tail && (n->op == OP_LINEAR || n->op == OP_LINEAR_ACT);
    }
    /* Block 0: q, k, v, proj, fc, proj; block 1: k, v. */
    assert_int_equal(full_linear, 8);
    assert_true(takes >= 1 && takes <= 3);
    assert_true(tail >= 8);
    graph_free(&g);
    tiny_close(&t);
}

/* Values that are alive at the same time have places of their own. Lives are counted here once
 * more. */
static void no_shared_places(const struct graph *g, const char *recipe)
{
    int made[256], last[256];
    assert_true(g->values <= COUNT(made));
    for (size_t v = 0; v < g->values; v++)
        made[v] = last[v] = -1;
    for (size_t i = 0; i < g->nodes; i++)
        for (int j = 0; j < GRAPH_INS && !g->node[i].dead; j++) {
            if (g->node[i].in[j] >= 0)
                last[g->node[i].in[j]] = (int)i;
            if (g->node[i].out[j] >= 0)
                made[g->node[i].out[j]] = (int)i;
        }
    last[g->nll] = (int)g->nodes;
    for (size_t a = 0; a < g->values; a++)
        for (size_t b = 0; b < g->values; b++) {
            const struct graph_value *x = &g->value[a], *y = &g->value[b];
            size_t n = x->width * g->batch * (g->t - (x->tail ? g->from : 0));
            if (a == b || x->at < 0 || y->at < 0)
                continue;
            if (x->at % 16 || (size_t)x->at + n > g->floats)
                fail_msg("recipe \"%s\": value %zu: place %td", recipe, a, x->at);
            /* y is made while x lives; at its last reader only in place, that is at the same place.
             */
            if (y->at >= x->at && y->at < x->at + (ptrdiff_t)n && made[b] > made[a] &&
                (made[b] < last[a] || (made[b] == last[a] && x->at != y->at)))
                fail_msg("recipe \"%s\": values %zu and %zu share memory", recipe, a, b);
        }
}

static void places_do_not_overlap(void **state)
{
    (void)state;
    for (size_t r = 0; r < COUNT(recipes); r++)
        for (size_t from = 0; from < 16; from += 4) {
            struct tiny t = tiny_open(recipes[r], 1, 1);
            struct graph g;
            tiny_plan(&t, &g, 2, 16, from, false);
            no_shared_places(&g, recipes[r]);
            graph_free(&g);
            tiny_close(&t);
        }
}

/* ---- rotary tables ---- */

static void rope_base_beyond_the_trained_length(void **state)
{
    static const struct {
        const char *settings;
        size_t len;
        double base;
    } cases[] = {
        {"TRAIN_SEQ_LEN=16", 16, 10000},
        {"TRAIN_SEQ_LEN=16", 15, 10000},
        {"TRAIN_SEQ_LEN=1024\nMODEL_DIM=128\nNUM_HEADS=2", 2048, 20452.2}, /* 10000 * 2^(64/62) */
        {"TRAIN_SEQ_LEN=1024\nMODEL_DIM=128\nNUM_HEADS=2\nROPE_DIMS=16", 2048, 22081.79},
        {"TRAIN_SEQ_LEN=2048\nMODEL_DIM=128\nNUM_HEADS=2\nROPE_DIMS=16\nROPE_TRAIN_LEN=1024", 2048,
         22081.79},
        {"TRAIN_SEQ_LEN=16\nROPE_TRAIN_LEN=-1", 64, 10000},
        {"TRAIN_SEQ_LEN=16\nROPE_DIMS=2", 64, 10000}, /* the rule has no answer for one frequency */
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tiny t = tiny_open(cases[i].settings, 1, 1);
        struct graph g;
        size_t half;
        tiny_plan(&t, &g, 1, cases[i].len, 0, false);
        half = g.rope_dims / 2;
        for (size_t p = 1; p < cases[i].len; p = 2 * p + 1)
            for (size_t j = 0; j < half; j++) {
                double f = pow(cases[i].base, -2.0 * (double)j / (double)g.rope_dims);
                double want = cos((double)p * f), have = (double)g.cos[p * half + j];
                if (fabs(want - have) > 2e-6 * (double)p * f + 1e-6)
                    fail_msg("case %zu: cos at position %zu, frequency %zu is %.9g, expected %.9g",
                             i, p, j, have, want);
            }
        graph_free(&g);
        tiny_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pruned_and_full),
        cmocka_unit_test(causal_and_separate),
        cmocka_unit_test(dead_ends_cost_nothing),
        cmocka_unit_test(what_is_pruned),
        cmocka_unit_test(places_do_not_overlap),
        cmocka_unit_test(rope_base_beyond_the_trained_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
