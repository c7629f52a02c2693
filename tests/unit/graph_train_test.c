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
    size_t layers, x16, y16, dy16, dx16, qks, attns, xsas, to_come, heads;
    size_t stream, pairs, pushes, embeds, before_act;
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
        used.before_act++;
        assert_true(a->x16 && a->dx16 && !a->add && !a->act && a->x_slope <= used.slope &&
                    a->x_slope >= used.slope);
        k->mul(k, a->dx, a->dx, a->x_f, a->rows * a->n_in);
    }
    free(dy);
}

/* Counts a combine whose operand in the stream is a half value, forward, and its gradient,
 * backward; gradients in one place are of one type. */
static void count_combine(const struct kern_combine *a, bool x, bool dx)
{
    used.stream += x + dx;
    assert_true(a->dx0 != a->dx1 || !a->dx0 || (a->add0 && a->dx0_16 == a->dx1_16));
    assert_true(a->dx0 != a->dy || !a->dx0 || (!a->add0 && a->dx0_16 == a->dy16));
    assert_true(kern_half_dim(a->dim));
}

static void combine_half(struct kern *k, const struct kern_combine *a)
{
    assert_true(a->y != a->x0);
    count_combine(a, a->x0_16, false);
    k->combine_fwd(k, a);
}

static void combine_bwd_half(struct kern *k, const struct kern_combine *a)
{
    count_combine(a, false, a->dx0_16);
    k->combine_bwd(k, a);
}

static float *room(const struct kern_combine *a)
{
    float *p = malloc(a->rows * a->dim * sizeof *p);
    if (!p)
        abort();
    return p;
}

static void combine_pair(struct kern *k, const struct kern_combine *first,
                         const struct kern_combine *then)
{
    struct kern_combine a = *first, b = *then;
    float *t = room(&a);
    used.pairs++;
    used.pushes += a.y != NULL;
    assert_true(!a.n && kern_pair_dim(a.dim) && a.dim == b.dim && a.rows == b.rows);
    count_combine(&a, a.x0_16, false);
    a.y = a.y ? a.y : t;
    b.x0 = a.y;
    k->combine_fwd(k, &a);
    k->combine_fwd(k, &b);
    free(t);
}

/* What may not be one: what is written while the rest is read. */
static void combine_bwd_pair(struct kern *k, const struct kern_combine *first,
                             const struct kern_combine *then)
{
    struct kern_combine a = *first, b = *then;
    const float *read[] = {a.x0, a.x1, b.x1, b.dn, b.dy, a.dy}, *wrote[] = {a.dx0, a.dx1, b.dx1};
    float *t = room(&a), *e = room(&a);
    assert_true(!a.c0 || !a.dy);
    for (size_t i = 0; i < COUNT(wrote); i++)
        for (size_t j = 0; j < COUNT(read); j++)
            assert_true(!wrote[i] || wrote[i] != read[j] || (i == 0 && j > 3));
    assert_true(a.dx0 != b.dy || a.dx0_16 == b.dy16);
    count_combine(&a, false, a.dx0_16);
    a.y = t;
    k->combine_fwd(k, &a);
    b.x0 = t;
    b.dx0 = e;
    b.add0 = a.dy != NULL;
    if (a.dy)
        memcpy(e, a.dy, a.rows * a.dim * sizeof *e);
    k->combine_bwd(k, &b);
    a.dy = e;
    k->combine_bwd(k, &a);
    free(t);
    free(e);
}

static void embed_half(struct kern *k, void *y, const float *table, const uint16_t *ids,
                       size_t rows, size_t dim)
{
    used.embeds++;
    k->embed_fwd(k, y, table, ids, rows, dim);
}

static void embed_bwd_half(struct kern *k, float *dtable, const void *dy, const uint16_t *ids,
                           size_t rows, size_t dim, size_t vocab)
{
    used.embeds++;
    k->embed_bwd(k, dtable, dy, ids, rows, dim, vocab);
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

/* Attention with XSA. What the first returns is in memory of its own, which no plan knows; it is
 * computed again for the backward. s is numbers that have to be there still. */
static struct kern_xsa xsa_of(const struct kern_attn_xsa *a, const float *o)
{
    const struct kern_attn *at = &a->attn;
    return (struct kern_xsa){.y = at->o,
                             .o = o,
                             .v = at->v,
                             .rows = at->batch * at->tq,
                             .heads = at->heads,
                             .kv_heads = at->kv_heads,
                             .head_dim = at->head_dim,
                             .dy = at->do_,
                             .do_ = a->do_,
                             .dv = at->dv,
                             .add = at->add_dv};
}

static float *attn_alone(struct kern *k, const struct kern_attn_xsa *a)
{
    struct kern_attn at = a->attn;
    at.o = malloc(at.batch * at.tq * at.heads * at.head_dim * sizeof(float));
    if (!at.o)
        abort();
    used.attn_fwd(k, &at);
    return at.o;
}

static void attn_xsa_fwd(struct kern *k, const struct kern_attn_xsa *a)
{
    float *o = attn_alone(k, a);
    const struct kern_xsa x = xsa_of(a, o);
    assert_true(a->attn.half && a->attn.half_o && a->attn.half_dqk);
    assert_true(!a->attn.q0 && a->attn.tq == a->attn.tk);
    k->xsa_fwd(k, &x);
    for (size_t i = 0; i < x.rows * x.heads; i++)
        a->s[i] = (float)(used.xsas + i);
    used.to_come = ++used.xsas;
    free(o);
}

static void attn_xsa_bwd(struct kern *k, const struct kern_attn_xsa *a)
{
    float *o = attn_alone(k, a);
    const struct kern_xsa x = xsa_of(a, o);
    size_t n = x.rows * x.heads * x.head_dim, nv = x.rows * x.kv_heads * x.head_dim;
    const struct {
        const float *p;
        size_t n;
    } apart[] = {{x.y, n}, {x.dy, n}, {x.do_, n}, {x.v, nv}, {x.dv, nv}, {a->s, x.rows * x.heads}};
    struct kern_attn at = a->attn;
    used.attns++;
    used.to_come--; /* backwards, they come in the other order */
    for (size_t i = 0; i < COUNT(apart); i++)
        for (size_t j = 0; j < i; j++)
            assert_true(apart[i].p + apart[i].n <= apart[j].p ||
                        apart[j].p + apart[j].n <= apart[i].p);
    for (size_t i = 0; i < x.rows * x.heads; i++)
        assert_true(memcmp(&a->s[i], &(float){(float)(used.to_come + i)}, sizeof(float)) == 0);
    k->xsa_bwd(k, &x);
    at.o = o;
    at.do_ = x.do_;
    at.add_dv = true;
    used.attn_bwd(k, &at);
    free(o);
}

static void head_train(struct kern *k, const struct kern_head *a, bool h16, bool dh16)
{
    assert_true(h16 == dh16 && h16 == kern_half_dim(a->dim));
    used.heads++;
    k->head_fwd(k, a);
    k->head_bwd(k, a);
}

/*
 * A block has six matrices: q, k, v, proj, up, down. Half values are, per block,
 *   with heads of any shape: both norms with their gradients (read and written by q, k, v, up),
 * what proj and down add to the stream, and the activation's result (up, down);
 *   with heads of 16 besides: all between q, k, v and proj.
 * In each block down makes the gradient that up wants, in front of the activation.
 * The stream is all half values but for what a shift reads and makes, and for the gradients of what
 * more than three read: the embedding's norm. Rows of 28 columns are floats throughout.
 */
#define HEADS16 "MODEL_DIM=64\nNUM_HEADS=4\nNUM_KV_HEADS=2\nROPE_DIMS=16\n"
static const struct {
    const char *settings;
    size_t layers, x16, y16, dy16, dx16, qks, attns, xsas, stream, pairs, pushes, embeds;
} models[] = {
    {"", 18, 15, 9, 9, 15, 0, 0, 0, 17, 3, 0, 2},
    {"XSA_LAST_N=1", 18, 15, 9, 9, 15, 0, 0, 0, 17, 3, 0, 2},
    {"MODEL_DIM=28\nNUM_HEADS=2\nNUM_KV_HEADS=1", 18, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0},
    {HEADS16, 18, 18, 18, 18, 18, 6, 3, 0, 17, 3, 0, 2},
    {HEADS16 "XSA_LAST_N=1\nNUM_LAYERS=1", 6, 6, 6, 6, 6, 2, 1, 1, 8, 1, 0, 2},
    {HEADS16 "XSA_LAST_N=3\nBIGRAM_VOCAB_SIZE=16\nBIGRAM_DIM=8\nSMEAR_GATE=1", 19, 19, 19, 19, 19,
     6, 3, 3, 17, 3, 0, 4},
    {HEADS16 "XSA_LAST_N=2\nVE_ENABLED=1\nVE_DIM=8\nVE_LAYERS=1,2", 19, 19, 19, 19, 19, 6, 3, 2, 21,
     3, 0, 4},
    {HEADS16 "PARALLEL_LANES=merge\nPARALLEL_START_LAYER=1", 18, 18, 18, 18, 18, 6, 3, 0, 25, 1, 1,
     2},
    {HEADS16 "PARALLEL_LANES=cross\nPARALLEL_START_LAYER=1", 18, 18, 18, 18, 18, 6, 3, 0, 33, 0, 0,
     2},
    {"NUM_LAYERS=5\nSKIP_GATES_ENABLED=1", 30, 25, 15, 15, 25, 0, 0, 0, 27, 5, 1, 2},
    {"NUM_LAYERS=5", 30, 25, 15, 15, 25, 0, 0, 0, 27, 5, 1, 2},
    {HEADS16 "RECUR_LAYERS=1\nSKIP_GATES_ENABLED=1", 24, 24, 24, 24, 24, 8, 4, 0, 21, 4, 0, 2},
};

static void one_model(size_t c)
{
    struct tiny t = tiny_open(models[c].settings, 1, 8);
    struct graph g, ref;
    size_t bytes = t.m.floats * sizeof(float), taps = 0;
    float *want = t.k->alloc(t.k, bytes), *have = t.k->alloc(t.k, bytes);
    double *loss = t.k->alloc(t.k, sizeof *loss);
    uint16_t *tok = tiny_tokens(&t, ROWS, 9);
    tiny_plan(&t, &ref, BATCH, LEN, 0, true);
    double sum = by_hand(&ref, t.params, want, 1, tok);
    memset(&used, 0, sizeof used);
    used.attn_fwd = t.k->attn_fwd;
    used.attn_bwd = t.k->attn_bwd;
    t.k->attn_fwd = attn_fwd;
    t.k->attn_bwd = attn_bwd;
    t.k->linear_train = linear_train;
    t.k->linear_bwd = linear_bwd;
    t.k->combine_half = combine_half;
    t.k->combine_bwd_half = combine_bwd_half;
    t.k->combine_pair = combine_pair;
    t.k->combine_bwd_pair = combine_bwd_pair;
    t.k->embed_half = embed_half;
    t.k->embed_bwd_half = embed_bwd_half;
    t.k->qk_half = qk_half;
    t.k->qk_bwd_half = qk_bwd_half;
    t.k->attn_xsa_fwd = attn_xsa_fwd;
    t.k->attn_xsa_bwd = attn_xsa_bwd;
    t.k->head_train = head_train;
    tiny_plan(&t, &g, BATCH, LEN, 0, true); /* pairs are a part of the plan */
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
    const size_t have_n[] = {used.layers, used.x16,   used.y16,    used.dy16,
                             used.dx16,   used.qks,   used.attns,  used.xsas,
                             used.stream, used.pairs, used.pushes, used.embeds};
    if (memcmp(have_n, &models[c].layers, sizeof have_n) != 0 || used.heads != 1 || used.to_come ||
        used.before_act != used.layers / 6 || taps != used.layers)
        fail_msg(
            "\"%s\": %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu; %zu heads, %zu "
            "gradients before an activation, %zu taps",
            models[c].settings, used.layers, used.x16, used.y16, used.dy16, used.dx16, used.qks,
            used.attns, used.xsas, used.stream, used.pairs, used.pushes, used.embeds, used.heads,
            used.before_act, taps);
    graph_free(&ref);
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
