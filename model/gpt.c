/*
 * gpt.c - the model, written once: parameters of a recipe and the graph of its forward pass.
 *
 * The mathematics is that of the challenge's baseline and of the records that grew from it. Per
 * block (ls = 1/sqrt(l+1) with LN_SCALE, else 1):
 *
 *   x_in = mix0 * x + mix1 * x0                      resid_mix; x0 is the normed embedding
 *   y    = x_in + attn_scale * Attn(rms(x_in) * ls)
 *   x    = y + mlp_scale * MLP(rms(y) * ls)
 *
 * and over the blocks a U-Net: the first half pushes its outputs, the second half adds them back,
 * last first, each times a vector of its own, plainly or through a gate.
 *
 * With RECUR_LAYERS some blocks run twice: what is halved is then the list of runs. With
 * PARALLEL_LANES attention and MLP work on streams of their own from some block on.
 */
#include "model/gpt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters ---- */

enum { NAME = sizeof((struct gpt_param *)0)->name };

/* By hand, because the runner has no stdio. */
static void append_number(char *out, size_t v)
{
    char digits[8];
    size_t n = strlen(out), d = 0;
    do
        digits[d++] = (char)('0' + v % 10);
    while (v /= 10);
    while (d)
        out[n++] = digits[--d];
    out[n] = 0;
}

/* `l` of a parameter that belongs to no block. */
#define ROOT SIZE_MAX

/* "blocks.L.what", or what itself when it belongs to no block. The longest name has 27 characters.
 */
static void param_name(char out[NAME], size_t l, const char *what)
{
    *out = 0;
    if (l != ROOT) {
        strcpy(out, "blocks.");
        append_number(out, l);
        strcat(out, ".");
    }
    strcat(out, what);
}

static struct gpt_param *add_named(struct gpt *m, enum param_class cls, enum param_init init,
                                   double value, size_t d0, size_t d1)
{
    struct gpt_param *p = &m->param[m->nparams++];
    p->cls = cls;
    if (!IN_RUNNER) { /* which asks for none of it: these arguments then cost nothing */
        p->init = init;
        p->value = value;
        p->ndim = d1 ? 2 : d0 ? 1 : 0;
        p->shape[1] = d1;
    }
    p->shape[0] = d0 ? d0 : 1;
    p->size = p->shape[0] * (d1 ? d1 : 1);
    return p;
}

static void add(struct gpt *m, enum param_class cls, enum param_init init, double value, size_t l,
                const char *what, size_t d0, size_t d1)
{
    param_name(add_named(m, cls, init, value, d0, d1)->name, l, what);
}

static void add_control(struct gpt *m, double value, size_t l, const char *what, size_t d0,
                        size_t d1)
{
    add(m, PARAM_CONTROL, INIT_CONST, value, l, what, d0, d1);
}

static size_t encoder_layers(const struct recipe *r)
{
    return (size_t)r->num_layers / 2;
}

static bool lanes_are(const struct recipe *r, const char *kind)
{
    return !strcmp(r->parallel_lanes, kind);
}

static size_t kv_dim(const struct recipe *r)
{
    return (size_t)r->num_kv_heads * recipe_head_dim(r);
}

static void add_front(struct gpt *m)
{
    const struct recipe *r = &m->r;
    size_t dim = (size_t)r->model_dim, skips = r->unet_skips ? encoder_layers(r) : 0;
    size_t rows = (size_t)r->bigram_vocab_size, width = (size_t)r->bigram_dim;
    if (skips)
        add_control(m, 1, ROOT, "skip_weights", skips, dim);
    if (skips && r->skip_gates_enabled)
        add_control(m, 0, ROOT, "skip_gates", skips, dim);
    if (lanes_are(r, "merge"))
        add_control(m, 0.5, ROOT, "lane_merge", 0, 0);
    if (lanes_are(r, "cross")) { /* [l][attention, MLP][lane 0, lane 1] and without the lane */
        add_control(m, 1, ROOT, "parallel_post_lambdas", (size_t)r->num_layers, 2);
        if (!IN_RUNNER) {
            m->param[m->nparams - 1].ndim = 3;
            m->param[m->nparams - 1].shape[2] = 2;
        }
        m->param[m->nparams - 1].size *= 2;
        add_control(m, sqrt(1.1), ROOT, "parallel_resid_lambdas", (size_t)r->num_layers, 2);
    }
    add(m, PARAM_EMBED, INIT_NORMAL, r->tie_embeddings ? r->tied_embed_init_std : 1, ROOT,
        "tok_emb.weight", (size_t)r->vocab_size, dim);
    if (rows) {
        add_control(m, 0.05, ROOT, "bigram.scale", 0, 0);
        add(m, PARAM_EMBED, INIT_CONST, 0, ROOT, "bigram.embed.weight", rows, width);
        if (width != dim)
            add(m, PARAM_PROJ, INIT_PROJ, 0, ROOT, "bigram.proj.weight", dim, width);
    }
    if (r->smear_gate)
        add_control(m, 0, ROOT, "smear.gate", dim, 0);
}

static void add_block(struct gpt *m, size_t l)
{
    const struct recipe *r = &m->r;
    size_t dim = (size_t)r->model_dim, kv = kv_dim(r), hidden = recipe_hidden(r);
    add_control(m, 1, l, "attn_scale", dim, 0);
    add_control(m, 1, l, "mlp_scale", dim, 0);
    add(m, PARAM_CONTROL, INIT_MIX, 0, l, "resid_mix", 2, dim);
    add_control(m, r->qk_gain_init, l, "attn.q_gain", (size_t)r->num_heads, 0);
    add(m, PARAM_MATRIX, INIT_MATRIX, 0, l, "attn.c_q.weight", dim, dim);
    add(m, PARAM_MATRIX, INIT_MATRIX, 0, l, "attn.c_k.weight", kv, dim);
    add(m, PARAM_MATRIX, INIT_MATRIX, 0, l, "attn.c_v.weight", kv, dim);
    add(m, PARAM_MATRIX, INIT_CONST, 0, l, "attn.proj.weight", dim, dim);
    add(m, PARAM_MATRIX, INIT_MATRIX, 0, l, "mlp.fc.weight", hidden, dim);
    add(m, PARAM_MATRIX, INIT_CONST, 0, l, "mlp.proj.weight", dim, hidden);
}

static void add_back(struct gpt *m)
{
    const struct recipe *r = &m->r;
    size_t dim = (size_t)r->model_dim, vocab = (size_t)r->vocab_size, width = (size_t)r->ve_dim;
    size_t list[RECIPE_LAYERS_MAX];
    size_t count = r->ve_enabled ? recipe_layers(r->ve_layers, (size_t)r->num_layers, list) : 0;
    if (count) {
        add_control(m, 0.1, ROOT, "ve_shared.scale", 0, 0);
        add(m, PARAM_EMBED, INIT_NORMAL, 0.01, ROOT, "ve_shared.embed.weight", vocab, width);
        if (width != kv_dim(r))
            add(m, PARAM_PROJ, INIT_PROJ, 0, ROOT, "ve_shared.proj.weight", kv_dim(r), width);
    }
    for (size_t i = 0; i < count; i++) {
        add_control(m, 1, ROOT, "ve_layer_scales.", 1, 0);
        append_number(m->param[m->nparams - 1].name, i);
    }
    if (!r->tie_embeddings)
        add(m, PARAM_HEAD, INIT_CONST, 0, ROOT, "lm_head.weight", vocab, dim);
}

/* Kinds of matrices in the order of the banks: qo, kv, up, down. */
static const char *const bank[] = {".attn.c_q.weight", ".attn.proj.weight", ".attn.c_k.weight",
                                   ".attn.c_v.weight", ".mlp.fc.weight",    ".mlp.proj.weight"};
enum { KINDS = sizeof bank / sizeof bank[0] };

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && !strcmp(name + n - k, end);
}

static void place(struct gpt *m, struct gpt_param *p)
{
    p->at = m->floats;
    m->floats += p->size;
}

/* Places in the block: table order, or the banks first. */
static void place_all(struct gpt *m)
{
    bool banks = !IN_RUNNER && m->r.matrix_banks; /* a matter of training */
    for (size_t k = 0; k < KINDS && banks; k++)
        for (size_t i = 0; i < m->nparams; i++)
            if (m->param[i].cls == PARAM_MATRIX && ends_with(m->param[i].name, bank[k]))
                place(m, &m->param[i]);
    for (size_t i = 0; i < m->nparams; i++)
        if (!banks || m->param[i].cls != PARAM_MATRIX)
            place(m, &m->param[i]);
}

enum err_code gpt_init(struct gpt *m, const struct recipe *r, struct err *e)
{
    size_t layers = (size_t)r->num_layers, most = layers * 11 + 16;
    enum err_code rc = !IN_RUNNER ? recipe_check(r, e) : ERR_OK;
    memset(m, 0, sizeof *m);
    if (rc)
        return rc;
    m->r = *r;
    m->param = calloc(most, sizeof *m->param);
    if (!m->param)
        return err_nomem(e, "parameter table", most * sizeof *m->param);
    add_front(m);
    for (size_t l = 0; l < layers; l++)
        add_block(m, l);
    add_back(m);
    place_all(m);
    return ERR_OK;
}

void gpt_free(struct gpt *m)
{
    free(m->param);
    memset(m, 0, sizeof *m);
}

const struct gpt_param *gpt_find(const struct gpt *m, const char *name)
{
    for (size_t i = 0; i < m->nparams; i++)
        if (!strcmp(m->param[i].name, name))
            return &m->param[i];
    return NULL;
}

/* ---- graph ---- */

/* What the functions below build on. */
struct builder {
    const struct gpt *m;
    struct graph *g;
    int x0, ve;     /* values: the normed embedding; the value embedding, or GRAPH_NONE */
    int x, lane[2]; /* the residual stream; two of them once split (then x is GRAPH_NONE) */
    size_t ve_layer[RECIPE_LAYERS_MAX], ves; /* blocks with value embeddings */
};

/* Offset of a parameter of block l (or ROOT); GRAPH_NONE when the recipe has no such parameter. */
static ptrdiff_t at(const struct builder *b, size_t l, const char *what)
{
    char name[NAME];
    const struct gpt_param *p;
    param_name(name, l, what);
    p = gpt_find(b->m, name);
    return p ? (ptrdiff_t)p->at : GRAPH_NONE;
}

static float rsqrt(double x)
{
    return (float)(1 / sqrt(x));
}

static int norm(struct builder *b, int x, float gain)
{
    int y;
    graph_combine(b->g, x, GRAPH_NONE, GRAPH_NONE, GRAPH_NONE, gain, &y);
    return y;
}

/* f times a scalar parameter, as a coefficient vector. */
static ptrdiff_t scalar(struct builder *b, size_t dim, float f, ptrdiff_t p)
{
    return graph_coef(b->g, COEF_SCALE, dim, f, p, GRAPH_NONE, GRAPH_NONE).c0;
}

/* The embedding with its bigrams (#549), normed and gated with the one before it (SmearGate). */
static int front(struct builder *b)
{
    const struct recipe *r = &b->m->r;
    struct graph *g = b->g;
    size_t dim = (size_t)r->model_dim, width = (size_t)r->bigram_dim;
    int x = graph_embed(g, at(b, ROOT, "tok_emb.weight"), (size_t)r->vocab_size, dim);
    if (r->bigram_vocab_size) {
        ptrdiff_t scale = scalar(b, dim, 1, at(b, ROOT, "bigram.scale"));
        int y = graph_bigram(g, at(b, ROOT, "bigram.embed.weight"), (size_t)r->bigram_vocab_size,
                             width);
        if (width != dim)
            y = graph_linear(g, y, at(b, ROOT, "bigram.proj.weight"), dim, width);
        graph_combine(g, x, GRAPH_NONE, y, scale, 1, &x);
    } else {
        x = norm(b, x, 1);
    }
    if (r->smear_gate) {
        struct graph_pair c =
            graph_coef(g, COEF_GATE, dim, 1, at(b, ROOT, "smear.gate"), GRAPH_NONE, GRAPH_NONE);
        x = graph_combine(g, graph_shift(g, x), c.c0, x, c.c1, 1, NULL);
    }
    return x;
}

/* One projected row per token, shared by all blocks that add it to their values. */
static int value_embedding(struct builder *b)
{
    const struct recipe *r = &b->m->r;
    size_t width = (size_t)r->ve_dim, kv = kv_dim(r);
    int y = graph_embed(b->g, at(b, ROOT, "ve_shared.embed.weight"), (size_t)r->vocab_size, width);
    return width == kv ? y : graph_linear(b->g, y, at(b, ROOT, "ve_shared.proj.weight"), kv, width);
}

static int add_value_embedding(struct builder *b, size_t l, int v)
{
    char name[NAME] = "ve_layer_scales.";
    ptrdiff_t c;
    size_t i = 0;
    while (i < b->ves && b->ve_layer[i] != l)
        i++;
    if (i == b->ves)
        return v;
    append_number(name, i);
    c = graph_coef(b->g, COEF_SCALE, kv_dim(&b->m->r), 1, at(b, ROOT, "ve_shared.scale"),
                   at(b, ROOT, name), GRAPH_NONE)
            .c0;
    return graph_combine(b->g, v, GRAPH_NONE, b->ve, c, 1, NULL);
}

static int attention(struct builder *b, size_t l, int xn)
{
    const struct recipe *r = &b->m->r;
    struct graph *g = b->g;
    size_t dim = (size_t)r->model_dim, heads = (size_t)r->num_heads;
    size_t kv_heads = (size_t)r->num_kv_heads, kv = kv_dim(r);
    int q = graph_linear(g, xn, at(b, l, "attn.c_q.weight"), dim, dim);
    int k = graph_linear(g, xn, at(b, l, "attn.c_k.weight"), kv, dim);
    int v = graph_linear(g, xn, at(b, l, "attn.c_v.weight"), kv, dim);
    q = graph_qk(g, q, at(b, l, "attn.q_gain"), heads);
    k = graph_qk(g, k, GRAPH_NONE, kv_heads);
    v = add_value_embedding(b, l, v);
    q = graph_attn(g, q, k, v, heads, kv_heads, rsqrt((double)g->head_dim));
    if (l >= (size_t)(r->num_layers - r->xsa_last_n))
        q = graph_xsa(g, q, v, heads, kv_heads);
    return graph_linear(g, q, at(b, l, "attn.proj.weight"), dim, dim);
}

static int mlp(struct builder *b, size_t l, int yn)
{
    const struct recipe *r = &b->m->r;
    size_t dim = (size_t)r->model_dim, hidden = recipe_hidden(r);
    int h = graph_linear_act(b->g, yn, at(b, l, "mlp.fc.weight"), hidden, dim, (float)r->mlp_slope);
    return graph_linear(b->g, h, at(b, l, "mlp.proj.weight"), dim, hidden);
}

static float ln_scale(const struct builder *b, size_t l)
{
    return b->m->r.ln_scale ? rsqrt((double)(l + 1)) : 1;
}

/* mix0 * x + mix1 * x0, and its norm. */
static int mix(struct builder *b, size_t l, int x, int *xn)
{
    ptrdiff_t at_mix = at(b, l, "resid_mix");
    return graph_combine(b->g, x, at_mix, b->x0, at_mix + (ptrdiff_t)b->m->r.model_dim,
                         ln_scale(b, l), xn);
}

static void block(struct builder *b, size_t l)
{
    int xn, yn, y = mix(b, l, b->x, &xn);
    y = graph_combine(b->g, y, GRAPH_NONE, attention(b, l, xn), at(b, l, "attn_scale"),
                      ln_scale(b, l), &yn);
    b->x = graph_combine(b->g, y, GRAPH_NONE, mlp(b, l, yn), at(b, l, "mlp_scale"), 1, NULL);
}

/* #1296: lane 0 is attention's and alone sees x0, lane 1 the MLP's; neither sees the other. */
static void block_merge(struct builder *b, size_t l)
{
    int xn, r = mix(b, l, b->lane[0], &xn), *lane = b->lane;
    lane[0] =
        graph_combine(b->g, r, GRAPH_NONE, attention(b, l, xn), at(b, l, "attn_scale"), 1, NULL);
    lane[1] = graph_combine(b->g, lane[1], GRAPH_NONE, mlp(b, l, norm(b, lane[1], ln_scale(b, l))),
                            at(b, l, "mlp_scale"), 1, NULL);
}

/* Both lanes take what one of them wrote: lane_j = resid * lane_j + post_j * scale * y. */
static void write_lanes(struct builder *b, size_t l, ptrdiff_t which, int y, ptrdiff_t scale)
{
    size_t dim = (size_t)b->m->r.model_dim;
    ptrdiff_t resid = at(b, ROOT, "parallel_resid_lambdas") + 2 * (ptrdiff_t)l + which;
    ptrdiff_t post = at(b, ROOT, "parallel_post_lambdas") + 4 * (ptrdiff_t)l + 2 * which;
    for (int j = 0; j < 2; j++) {
        ptrdiff_t c = graph_coef(b->g, COEF_SCALE, dim, 1, post + j, GRAPH_NONE, scale).c0;
        b->lane[j] = graph_combine(b->g, b->lane[j], scalar(b, dim, 1, resid), y, c, 1, NULL);
    }
}

/* #1204: each lane is read through resid_mix, and both results go into both lanes. */
static void block_cross(struct builder *b, size_t l)
{
    int n;
    mix(b, l, b->lane[0], &n);
    write_lanes(b, l, 0, attention(b, l, n), at(b, l, "attn_scale"));
    mix(b, l, b->lane[1], &n);
    write_lanes(b, l, 1, mlp(b, l, n), at(b, l, "mlp_scale"));
}

/* A skip from the encoder half into a stream, by row `row` of the skip parameters. */
static int skip(struct builder *b, size_t row, int x, int pushed)
{
    size_t dim = (size_t)b->m->r.model_dim, off = row * dim;
    ptrdiff_t w = at(b, ROOT, "skip_weights") + (ptrdiff_t)off, gate = at(b, ROOT, "skip_gates");
    struct graph_pair c = {GRAPH_NONE, w};
    if (gate != GRAPH_NONE)
        c = graph_coef(b->g, COEF_GATE, dim, 1, gate + (ptrdiff_t)off, GRAPH_NONE, w);
    return graph_combine(b->g, x, c.c0, pushed, c.c1, 1, NULL);
}

/* The list of runs: every block once; with recurrence the blocks of RECUR_LAYERS once more behind
 * the last of them. run has room for all blocks twice. */
static size_t runs_of(const struct recipe *r, bool recur, size_t *run)
{
    size_t layers = (size_t)r->num_layers, list[RECIPE_LAYERS_MAX], n = 0, last = 0;
    size_t again = recur ? recipe_layers(r->recur_layers, layers, list) : 0;
    for (size_t i = 0; i < again; i++)
        last = list[i] > last ? list[i] : last;
    for (size_t l = 0; l < layers; l++) {
        run[n++] = l;
        for (size_t i = 0; i < again && l == last; i++)
            run[n++] = list[i];
    }
    return n;
}

static void split(struct builder *b)
{
    if (b->x == GRAPH_NONE)
        return;
    b->lane[0] = b->lane[1] = b->x;
    b->x = GRAPH_NONE;
}

/* What a run of the encoder half leaves for the decoder half: lane 1 stands in when one stream has
 * to be made of two. */
struct pushed {
    int lane[2];
};

static void run_block(struct builder *b, size_t l)
{
    if (b->x != GRAPH_NONE)
        block(b, l);
    else if (lanes_are(&b->m->r, "merge"))
        block_merge(b, l);
    else
        block_cross(b, l);
}

static void inject(struct builder *b, size_t row, struct pushed s)
{
    if (b->x != GRAPH_NONE)
        b->x = skip(b, row, b->x, s.lane[1]);
    else if (lanes_are(&b->m->r, "cross"))
        for (int j = 0; j < 2; j++)
            b->lane[j] = skip(b, row, b->lane[j], s.lane[j]);
    /* #1296 computes a skip behind its split as well, on a stream that nobody reads. */
}

static void stack(struct builder *b, bool recur)
{
    const struct recipe *r = &b->m->r;
    size_t run[2 * RECIPE_LAYERS_MAX], runs = runs_of(r, recur, run);
    struct pushed pushed[RECIPE_LAYERS_MAX];
    size_t encoder = runs / 2, rows = encoder_layers(r), top = 0;
    bool cross = lanes_are(r, "cross"), merge = lanes_are(r, "merge");
    for (size_t i = 0; i < runs; i++) {
        bool lanes = run[i] >= (size_t)r->parallel_start_layer;
        if (cross && lanes)
            split(b);
        if (i >= encoder && top && r->unet_skips && rows) {
            size_t row = i - encoder;
            if (row < rows || r->skip_reuse_last)
                inject(b, row < rows ? row : rows - 1, pushed[--top]);
        }
        if (merge && lanes && i >= encoder)
            split(b);
        run_block(b, run[i]);
        if (i < encoder)
            pushed[top++] = b->x == GRAPH_NONE ? (struct pushed){{b->lane[0], b->lane[1]}}
                                               : (struct pushed){{b->x, b->x}};
    }
}

/* The final norm of one stream or of two. */
static int back(struct builder *b)
{
    size_t dim = (size_t)b->m->r.model_dim;
    struct graph_pair c;
    int h;
    if (b->x != GRAPH_NONE)
        return norm(b, b->x, 1);
    if (lanes_are(&b->m->r, "merge")) {
        c = graph_coef(b->g, COEF_LERP, dim, 1, at(b, ROOT, "lane_merge"), GRAPH_NONE, GRAPH_NONE);
    } else {
        c.c0 = scalar(b, dim, 0.5f, GRAPH_NONE);
        c.c1 = scalar(b, dim, 0.5f, GRAPH_NONE);
    }
    graph_combine(b->g, b->lane[0], c.c0, b->lane[1], c.c1, 1, &h);
    return h;
}

size_t gpt_head(const struct gpt *m)
{
    return gpt_find(m, m->r.tie_embeddings ? "tok_emb.weight" : "lm_head.weight")->at;
}

static void set_shapes(const struct recipe *r, struct graph *g)
{
    g->head_dim = recipe_head_dim(r);
    g->rope_dims = recipe_rope_dims(r);
    g->rope_base = r->rope_base;
    g->rope_train_len = r->rope_train_len < 0 ? 0
                        : r->rope_train_len   ? (size_t)r->rope_train_len
                                              : (size_t)r->train_seq_len;
    g->eps = (float)r->rms_eps;
}

void gpt_graph(const struct gpt *m, struct graph *g, bool recur)
{
    const struct recipe *r = &m->r;
    struct builder b = {.m = m, .g = g, .ve = GRAPH_NONE};
    set_shapes(r, g);
    if (r->ve_enabled)
        b.ves = recipe_layers(r->ve_layers, (size_t)r->num_layers, b.ve_layer);
    b.x = b.x0 = front(&b);
    if (b.ves)
        b.ve = value_embedding(&b);
    stack(&b, recur);
    graph_head(g, back(&b), (ptrdiff_t)gpt_head(m), (size_t)r->vocab_size, (size_t)r->model_dim,
               (float)r->logit_softcap);
}
