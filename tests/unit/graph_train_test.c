/*
 * graph_train_test - guards against a training step that is not forward and backward any more when
 * it is played from a tape: arguments that changed since it was recorded, operations carried out
 * twice or not at all, a tape that outlives its graph, a tap that is no longer called. CUDA has the
 * only tapes; here a recorder is pretended around the CPU: what happens to the gradients while it
 * records is undone, and to play is to do the same again with the arguments that were recorded.
 *
 * And the entries that only training uses (kernels/cpu_train.c): sums in their order, copies.
 */
#include "tests/unit/tiny.h"

enum { BATCH = 2, LEN = 16, ROWS = BATCH * LEN };

/* ---- the pretended recorder ---- */

struct kern_tape {
    const float *params;
    float *grads, gscale;
};

static struct {
    struct tiny t;
    struct graph g;
    struct kern_tape now; /* the arguments of the call that runs */
    const uint16_t *tok;  /* and its tokens */
    float *before;        /* gradients when the recording began */
    size_t records, plays, forgets, alive;
    bool refuse_record, refuse_tape, refuse_play;
} fake;

static bool record(struct kern *k)
{
    fake.records++;
    if (fake.refuse_record)
        return false;
    fake.before = malloc(fake.t.m.floats * sizeof(float));
    k->download(k, fake.before, fake.now.grads, fake.t.m.floats * sizeof(float));
    return true;
}

static struct kern_tape *recorded(struct kern *k)
{
    struct kern_tape *t = malloc(sizeof *t);
    k->upload(k, fake.now.grads, fake.before, fake.t.m.floats * sizeof(float));
    free(fake.before);
    if (fake.refuse_tape) {
        free(t);
        return NULL;
    }
    *t = fake.now;
    fake.alive++;
    return t;
}

static bool play(struct kern *k, const struct kern_tape *t)
{
    struct err e = {0};
    (void)k;
    if (fake.refuse_play)
        return false;
    fake.plays++;
    assert_int_equal(graph_forward(&fake.g, t->params, fake.tok, fake.tok + 1, NULL, &e), ERR_OK);
    graph_backward(&fake.g, t->params, t->grads, t->gscale);
    return true;
}

static void forget(struct kern *k, struct kern_tape *t)
{
    (void)k;
    fake.forgets++;
    fake.alive -= t != NULL;
    free(t);
}

static void no_tap(void *ctx, ptrdiff_t w, const float *dy, size_t rows, size_t n_out)
{
    size_t *calls = ctx;
    (void)w;
    (void)dy;
    (void)rows;
    (void)n_out;
    ++*calls;
}

/* ---- calls of graph_train beside forward, backward and a sum ---- */

/* A call: with which weights and gradients of two, which scale, whether somebody looks on; and what
 * the recorder is expected to have done after it. */
struct call {
    int params, grads;
    float gscale;
    bool tap;
    size_t records, plays, alive;
};

static const struct scene {
    const char *name;
    bool tapes, refuse_record, refuse_tape, refuse_play;
    struct call call[7];
} scenes[] = {
    {"no tapes",
     false,
     false,
     false,
     false,
     {{0, 0, 1, false, 0, 0, 0}, {0, 0, 1, false, 0, 0, 0}}},
    {"played from the second call on",
     true,
     false,
     false,
     false,
     {{0, 0, 1, false, 0, 0, 0},
      {0, 0, 1, false, 1, 1, 1},
      {0, 0, 1, false, 1, 2, 1},
      {0, 0, 1, false, 1, 3, 1}}},
    {"other arguments",
     true,
     false,
     false,
     false,
     {{0, 0, 1, false, 0, 0, 0},
      {0, 0, 1, false, 1, 1, 1},
      {1, 0, 1, false, 1, 1, 0}, /* weights */
      {1, 0, 1, false, 2, 2, 1},
      {1, 1, 1, false, 2, 2, 0},    /* gradients */
      {1, 1, 0.5f, false, 2, 2, 0}, /* scale */
      {1, 1, 0.5f, false, 3, 3, 1}}},
    {"a tap between",
     true,
     false,
     false,
     false,
     {{0, 0, 1, true, 0, 0, 0},
      {0, 0, 1, false, 0, 0, 0},
      {0, 0, 1, false, 1, 1, 1},
      {0, 0, 1, true, 1, 1, 1},
      {0, 0, 1, false, 1, 2, 1}}},
    {"cannot record",
     true,
     true,
     false,
     false,
     {{0, 0, 1, false, 0, 0, 0}, {0, 0, 1, false, 1, 0, 0}, {0, 0, 1, false, 2, 0, 0}}},
    {"recording fails",
     true,
     false,
     true,
     false,
     {{0, 0, 1, false, 0, 0, 0}, {0, 0, 1, false, 1, 0, 0}, {0, 0, 1, false, 2, 0, 0}}},
    {"does not fit any more",
     true,
     false,
     false,
     true,
     {{0, 0, 1, false, 0, 0, 0}, {0, 0, 1, false, 1, 0, 1}, {0, 0, 1, false, 1, 0, 1}}},
};

/* The same by the functions that graph_train is made of. */
static double by_hand(struct graph *g, const float *params, float *grads, float gscale,
                      const uint16_t *tok)
{
    float nll[ROWS];
    double sum = 0;
    struct err e = {0};
    assert_int_equal(graph_forward(g, params, tok, tok + 1, nll, &e), ERR_OK);
    graph_backward(g, params, grads, gscale);
    for (size_t i = 0; i < ROWS; i++)
        sum += (double)nll[i];
    return sum;
}

static void one_scene(const struct scene *s, const char *settings)
{
    fake.t = tiny_open(settings, 1, 3);
    struct tiny *t = &fake.t;
    struct kern *k = t->k;
    size_t bytes = t->m.floats * sizeof(float), taps = 0, calls = 0;
    float *params[2] = {t->params, k->alloc(k, bytes)};
    float *grads[2] = {k->alloc(k, bytes), k->alloc(k, bytes)};
    float *want[2] = {k->alloc(k, bytes), k->alloc(k, bytes)};
    double *loss = k->alloc(k, sizeof *loss);
    struct graph ref;
    tiny_randomise(&t->m, params[1], 4);
    tiny_plan(t, &fake.g, BATCH, LEN, 0, true);
    tiny_plan(t, &ref, BATCH, LEN, 0, true);
    fake.refuse_record = s->refuse_record;
    fake.refuse_tape = s->refuse_tape;
    fake.refuse_play = s->refuse_play;
    fake.records = fake.plays = fake.forgets = fake.alive = 0;
    if (s->tapes) {
        k->record = record;
        k->recorded = recorded;
        k->play = play;
        k->forget = forget;
    }
    for (; calls < COUNT(s->call) && s->call[calls].gscale > 0; calls++) {
        const struct call *c = &s->call[calls];
        uint16_t *tok = tiny_tokens(t, ROWS, 50 + calls);
        fake.tok = tok;
        fake.now = (struct kern_tape){params[c->params], grads[c->grads], c->gscale};
        fake.g.tap = c->tap ? no_tap : NULL;
        fake.g.tap_ctx = &taps;
        taps = 0;
        graph_train(&fake.g, params[c->params], tok, tok + 1, grads[c->grads], c->gscale, loss);
        double sum = by_hand(&ref, params[c->params], want[c->grads], c->gscale, tok);
        if (memcmp(&sum, loss, sizeof sum) != 0)
            fail_msg("%s, call %zu: loss %.17g, expected %.17g", s->name, calls, *loss, sum);
        for (int i = 0; i < 2; i++)
            if (memcmp(grads[i], want[i], bytes) != 0)
                fail_msg("%s, call %zu: other gradients in block %d", s->name, calls, i);
        if (fake.records != c->records || fake.plays != c->plays || fake.alive != c->alive)
            fail_msg("%s, call %zu: %zu recorded, %zu played, %zu alive; expected %zu, %zu, %zu",
                     s->name, calls, fake.records, fake.plays, fake.alive, c->records, c->plays,
                     c->alive);
        if ((taps > 0) != c->tap)
            fail_msg("%s, call %zu: the tap was called %zu times", s->name, calls, taps);
        free(tok);
    }
    assert_int_equal(fake.g.trained, calls);
    assert_int_equal(fake.g.played, fake.plays);
    graph_free(&fake.g);
    assert_int_equal(fake.alive, 0);
    graph_free(&ref);
    k->free(k, params[1]);
    k->free(k, loss);
    for (int i = 0; i < 2; i++) {
        k->free(k, grads[i]);
        k->free(k, want[i]);
    }
    tiny_close(t);
}

static void scenes_of_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(scenes); i++)
        one_scene(&scenes[i], i % 2 ? "BIGRAM_VOCAB_SIZE=16\nBIGRAM_DIM=8\nSMEAR_GATE=1" : "");
}

/* ---- a backend with operations for training gets in them what the others would get ----
 * Here they are made of the others and half values stay floats, so that all bits are the same; what
 * is marked as a half value is counted. */

static struct {
    size_t layers, x16, y16, dy16, dx16, joined, norms, sums, qks, attns, xsas, heads;
    float slope;
    void (*attn_fwd)(struct kern *k, const struct kern_attn *a);
    void (*attn_bwd)(struct kern *k, const struct kern_attn *a);
} used;

static void linear_train(struct kern *k, const struct kern_linear *a)
{
    used.x16 += a->x16;
    used.y16 += a->y16;
    used.slope = a->act ? a->slope : used.slope;
    if (a->act)
        k->linear_act_fwd(k, a->y, a->f, a->x, a->w, a->rows, a->n_out, a->n_in, a->slope);
    else
        k->linear_fwd(k, a->y, a->x, a->w, a->rows, a->n_out, a->n_in);
}

static void linear_bwd(struct kern *k, const struct kern_linear *a)
{
    float *dy = malloc(a->rows * a->n_out * sizeof *dy);
    if (!dy)
        abort();
    used.layers++;
    used.dy16 += a->dy16;
    used.dx16 += a->dx16;
    assert_true((a->f != NULL) == a->act && (!a->act || a->y16 == a->dy16));
    memcpy(dy, a->dy, a->rows * a->n_out * sizeof *dy);
    assert_true(!a->g_done || (a->act && a->dy16));
    if (a->f && !a->g_done)
        k->mul(k, dy, dy, a->f, a->rows * a->n_out);
    k->linear_bwd_w(k, a->dw, dy, a->x, a->rows, a->n_out, a->n_in);
    k->linear_bwd_x(k, a->dx, dy, a->w, a->rows, a->n_out, a->n_in, a->add);
    if (a->x_f) {
        used.joined++;
        assert_true(a->x16 && a->dx16 && !a->add && !a->act && a->x_slope <= used.slope &&
                    a->x_slope >= used.slope);
        k->mul(k, a->dx, a->dx, a->x_f, a->rows * a->n_in);
    }
    free(dy);
}

static void combine_half(struct kern *k, const struct kern_combine *a)
{
    used.norms += a->n16;
    assert_true(a->y != a->x0 && (a->y || !a->y16) && !(a->n && a->y16));
    assert_true((a->n || !a->n16) && (a->x1 || !a->x1_16));
    k->combine_fwd(k, a);
}

static void combine_bwd_half(struct kern *k, const struct kern_combine *a)
{
    used.sums += a->dx1_16;
    assert_true(a->dn || !a->dn16);
    if (a->dx1_16)
        assert_true(a->x1_16 && a->dx1 && !a->add1 && a->dx1 != a->dx0 && a->dx1 != a->dy);
    k->combine_bwd(k, a);
}

static void qk_half(struct kern *k, const struct kern_qk *a)
{
    assert_true(kern_half_heads(a->head_dim, a->rope_dims));
    k->qk_fwd(k, a);
}

static void qk_bwd_half(struct kern *k, const struct kern_qk *a)
{
    used.qks++;
    assert_true(a->dx != a->dy);
    k->qk_bwd(k, a);
}

static void attn_fwd(struct kern *k, const struct kern_attn *a)
{
    assert_true(a->half == a->half_o && a->half == a->half_dqk && (a->half || !a->half_dv));
    used.attn_fwd(k, a);
}

static void attn_bwd(struct kern *k, const struct kern_attn *a)
{
    used.attns += a->half;
    assert_true(a->half == a->half_o && a->half == a->half_dqk && (a->half || !a->half_dv));
    used.attn_bwd(k, a);
}

static void xsa_half(struct kern *k, const struct kern_xsa *a)
{
    used.xsas++;
    k->xsa_fwd(k, a);
}

static void xsa_bwd_half(struct kern *k, const struct kern_xsa *a)
{
    assert_true(a->do_ != a->dy);
    k->xsa_bwd(k, a);
}

static void head_train(struct kern *k, const struct kern_head *a)
{
    used.heads++;
    k->head_fwd(k, a);
    k->head_bwd(k, a);
}

/*
 * A block has six matrices: q, k, v, proj, up, down. Half values are, per block,
 *   with heads of any shape: both norms with their gradients (read and written by q, k, v, up),
 * what proj and down add to the stream (x1, dx1: sums), and the activation's result (up, down);
 * In each block down makes the gradient that up wants, in front of the activation.
 *   with heads of 16 besides: all between q, k, v and proj, of v's gradient all but what comes
 *   through a value embedding.
 * The first norm of all, of the embedding, and the last, the head's, are not.
 */
#define HEADS16 "MODEL_DIM=64\nNUM_HEADS=4\nNUM_KV_HEADS=2\nROPE_DIMS=16\n"
static const struct {
    const char *settings;
    size_t layers, x16, y16, dy16, dx16, norms, sums, qks, attns, xsas;
} models[] = {
    {"", 18, 15, 9, 9, 15, 6, 6, 0, 0, 0},
    {"XSA_LAST_N=1", 18, 15, 9, 9, 15, 6, 6, 0, 0, 0},
    {"MODEL_DIM=28\nNUM_HEADS=2\nNUM_KV_HEADS=1", 18, 15, 9, 9, 15, 6, 6, 0, 0, 0},
    {HEADS16, 18, 18, 18, 18, 18, 6, 6, 6, 3, 0},
    {HEADS16 "XSA_LAST_N=1\nNUM_LAYERS=1", 6, 6, 6, 6, 6, 2, 2, 2, 1, 1},
    {HEADS16 "XSA_LAST_N=3\nBIGRAM_VOCAB_SIZE=16\nBIGRAM_DIM=8\nSMEAR_GATE=1", 19, 18, 19, 19, 18,
     6, 7, 6, 3, 3},
    {HEADS16 "XSA_LAST_N=2\nVE_ENABLED=1\nVE_DIM=8\nVE_LAYERS=1,2", 19, 18, 17, 16, 18, 6, 6, 6, 3,
     2},
    {HEADS16 "PARALLEL_LANES=merge\nPARALLEL_START_LAYER=1", 18, 18, 18, 18, 18, 6, 6, 6, 3, 0},
    {HEADS16 "PARALLEL_LANES=cross\nPARALLEL_START_LAYER=1", 18, 18, 18, 14, 18, 6, 2, 6, 3, 0},
    {HEADS16 "RECUR_LAYERS=1\nSKIP_GATES_ENABLED=1", 24, 24, 24, 24, 24, 8, 8, 8, 4, 0},
};

static void one_model(size_t c)
{
    struct tiny t = tiny_open(models[c].settings, 1, 8);
    struct graph g;
    size_t bytes = t.m.floats * sizeof(float), taps = 0;
    float *want = t.k->alloc(t.k, bytes), *have = t.k->alloc(t.k, bytes);
    double *loss = t.k->alloc(t.k, sizeof *loss);
    uint16_t *tok = tiny_tokens(&t, ROWS, 9);
    tiny_plan(&t, &g, BATCH, LEN, 0, true);
    double sum = by_hand(&g, t.params, want, 1, tok);
    memset(&used, 0, sizeof used);
    used.attn_fwd = t.k->attn_fwd;
    used.attn_bwd = t.k->attn_bwd;
    t.k->attn_fwd = attn_fwd;
    t.k->attn_bwd = attn_bwd;
    t.k->linear_train = linear_train;
    t.k->linear_bwd = linear_bwd;
    t.k->combine_half = combine_half;
    t.k->combine_bwd_half = combine_bwd_half;
    t.k->qk_half = qk_half;
    t.k->qk_bwd_half = qk_bwd_half;
    t.k->xsa_half = xsa_half;
    t.k->xsa_bwd_half = xsa_bwd_half;
    t.k->head_train = head_train;
    for (int run = 0; run < 3; run++) { /* graph_train, the same with a tap, and not graph_train */
        g.tap = run == 1 ? no_tap : NULL;
        g.tap_ctx = &taps;
        *loss = sum;
        t.k->zero(t.k, have, bytes);
        if (run < 2)
            graph_train(&g, t.params, tok, tok + 1, have, 1, loss);
        else
            *loss = by_hand(&g, t.params, have, 1, tok);
        if (memcmp(loss, &sum, sizeof sum) != 0 || memcmp(have, want, bytes) != 0)
            fail_msg("\"%s\", run %d: loss %.17g, expected %.17g", models[c].settings, run, *loss,
                     sum);
    }
    if (used.layers != models[c].layers || used.x16 != models[c].x16 || used.y16 != models[c].y16 ||
        used.dy16 != models[c].dy16 || used.dx16 != models[c].dx16 ||
        used.norms != models[c].norms || used.sums != models[c].sums || used.qks != models[c].qks ||
        used.attns != models[c].attns || used.xsas != models[c].xsas || used.heads != 1 ||
        used.joined != used.layers / 6 || taps != used.layers)
        fail_msg(
            "\"%s\": %zu layers, x16 %zu, y16 %zu, dy16 %zu, dx16 %zu, %zu norms, %zu sums, "
            "%zu qk, %zu attentions, %zu XSA, %zu heads, %zu gradients of an activation made by "
            "the layer behind, %zu taps",
            models[c].settings, used.layers, used.x16, used.y16, used.dy16, used.dx16, used.norms,
            used.sums, used.qks, used.attns, used.xsas, used.heads, used.joined, taps);
    graph_free(&g);
    free(tok);
    t.k->free(t.k, want);
    t.k->free(t.k, have);
    t.k->free(t.k, loss);
    tiny_close(&t);
}

static void operations_of_training(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(models); c++)
        one_model(c);
}

/* ---- sums and copies ---- */

static void sums(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 10000};
    struct kern *k;
    struct err e = {0};
    uint64_t s = 1;
    (void)state;
    assert_int_equal(kern_cpu(&k, 1, &e), ERR_OK);
    for (size_t c = 0; c < COUNT(sizes); c++) {
        size_t n = sizes[c];
        float *x = k->alloc(k, n * sizeof *x), *y = k->alloc(k, (n + 1) * sizeof *y);
        double *sum = k->alloc(k, 2 * sizeof *sum), want = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = (float)(util_uniform(&s) * (i % 7 ? 1 : 1e6));
            want += (double)x[i];
        }
        y[n] = 5;
        sum[0] = sum[1] = (double)NAN;
        k->copy(k, y, x, n * sizeof *x);
        k->sum_into(k, &sum[0], x, n);
        k->sumsq_into(k, &sum[1], x, n);
        double squares = k->sumsq(k, x, n);
        if (memcmp(&sum[0], &want, sizeof want) != 0 ||
            memcmp(&sum[1], &squares, sizeof squares) != 0 ||
            (n && memcmp(x, y, n * sizeof *x) != 0) || y[n] < 5 || y[n] > 5)
            fail_msg("%zu numbers: sum %.17g, expected %.17g", n, sum[0], want);
        k->free(k, x);
        k->free(k, y);
        k->free(k, sum);
    }
    kern_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenes_of_calls),
        cmocka_unit_test(operations_of_training),
        cmocka_unit_test(sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
