/* gpu_ops.c - see gpu.h: ceilings, and the operations of a step of PR #1296 by themselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gpu.h"

enum { DIM = 512, KV = 256, HIDDEN = 2048, HEADS = 8, KV_HEADS = 4, HEAD_DIM = 64, ROPE = 16 };
enum { QKV = DIM + 2 * KV };
enum { VOCAB = 4096, LAYERS = 11, PARAMS = 34401372, STEPS = 5, ARRAYS = 9 };
/* A step of the record: 786,432 tokens, whatever is measured at once. */
enum { STEP_TOKENS = 786432 };

/* n numbers of the backend, uniform in [-size, size), floats or half values (kernels.h): one block
 * of a million, over and over. */
static float *filled_as(struct gpu *b, size_t n, unsigned seed, float size, bool half)
{
    enum { BLOCK = 1 << 20 };
    static float host[BLOCK];
    size_t each = half ? sizeof(uint16_t) : sizeof *host;
    float *x = b->k->alloc(b->k, n * each);
    unsigned s = seed * 2654435761u + 1;
    if (!x)
        gpu_fail(ERR_RESOURCE, "no memory for the arrays");
    for (size_t i = 0; i < BLOCK; i++) {
        s = s * 1664525u + 1013904223u;
        float y = size * ((float)(s >> 8) * 0x1p-23f - 1.0f);
        uint32_t word;
        memcpy(&word, &y, sizeof word);
        uint16_t upper = (uint16_t)(word >> 16);
        memcpy((char *)host + i * each, half ? (void *)&upper : (void *)&y, each);
    }
    for (size_t at = 0; at < n; at += BLOCK)
        b->k->upload(b->k, (char *)x + at * each, host, (n - at < BLOCK ? n - at : BLOCK) * each);
    return x;
}

static float *filled(struct gpu *b, size_t n, unsigned seed, float size)
{
    return filled_as(b, n, seed, size, false);
}

struct arrays {
    float *a[ARRAYS];
    size_t n; /* for passes over memory */
};

static void fill(struct gpu *b, struct arrays *x, size_t count, size_t n, float size)
{
    *x = (struct arrays){.n = n};
    for (size_t i = 0; i < count; i++)
        x->a[i] = filled(b, n, (unsigned)i + 1, size);
}

static void release(struct gpu *b, struct arrays *x)
{
    for (size_t i = 0; i < ARRAYS; i++)
        b->k->free(b->k, x->a[i]);
}

/* ---- ceilings ---- */

static void run_linear_train(struct gpu *b, void *arg)
{
    struct kern *k = b->k;
    const struct kern_linear *a = arg;
    if (k->linear_train)
        k->linear_train(k, a);
    else if (a->act)
        k->linear_act_fwd(k, a->y, a->f, a->x, a->w, a->rows, a->n_out, a->n_in, a->slope);
    else
        k->linear_fwd(k, a->y, a->x, a->w, a->rows, a->n_out, a->n_in);
}

static void run_axpby(struct gpu *b, void *arg)
{
    struct arrays *x = arg;
    b->k->axpby(b->k, x->a[0], x->a[1], x->n, 0.5f, 0.5f);
}

void gpu_ceilings(struct gpu *b, bool small)
{
    size_t side = small ? 1024 : 8192, n = side * side;
    bool marks = b->k->combine_half;
    struct arrays x = {.n = 0};
    x.a[0] = filled_as(b, n, 1, 1, marks);
    x.a[1] = filled_as(b, n, 2, 1, marks);
    x.a[2] = filled(b, n, 3, 1);
    struct kern_linear a = {.y = x.a[0], .x = x.a[1], .w = x.a[2], .x16 = marks, .y16 = marks};
    a.rows = a.n_out = a.n_in = side;
    double cube = 2.0 * (double)side * (double)side * (double)side;
    if (b->k->hold) /* so the product is all there is: no operand is rounded on the way */
        b->k->hold(b->k, x.a[2], n);
    b->flops = cube / gpu_time(b, run_linear_train, &a);
    if (b->k->hold)
        b->k->hold(b->k, NULL, 0);
    release(b, &x);
    fill(b, &x, 2, (size_t)1 << (small ? 22 : 28), 1);
    b->bytes = 12.0 * (double)x.n / gpu_time(b, run_axpby, &x);
    release(b, &x);
    printf("ceilings: product of %zu cubed %.1f TFLOP/s, memory %.2f TB/s\n", side,
           b->flops * 1e-12, b->bytes * 1e-12);
}

/* ---- lines ---- */

struct total {
    double ms, floor; /* of a step */
};

/* One line. `calls` are those of a step's forward and backward at the full number of tokens, or,
 * when !per_token, of its optimiser. */
static void line(struct gpu *b, struct total *sum, const char *name, const char *shape, gpu_fn *fn,
                 void *arg, double flops, double bytes, double calls, bool per_token)
{
    if (b->only && !strstr(name, b->only))
        return;
    double s = gpu_time(b, fn, arg), by_flops = flops / b->flops, by_bytes = bytes / b->bytes;
    double floor = by_flops > by_bytes ? by_flops : by_bytes;
    double step = 1e3 * calls * (per_token ? (double)STEP_TOKENS / (double)b->rows : 1);
    printf("%-15s %-26s %9.3f %9.3f %6.2f %8.1f %7.2f %8.1f\n", name, shape, 1e3 * s, 1e3 * floor,
           floor / s, flops / s * 1e-12, bytes / s * 1e-12, step * s);
    fflush(stdout);
    sum->ms += step * s;
    sum->floor += step * floor;
}

/* ---- products ---- */

static void run_linear_bwd(struct gpu *b, void *arg)
{
    struct kern *k = b->k;
    const struct kern_linear *a = arg;
    if (k->linear_bwd) {
        k->linear_bwd(k, a);
        return;
    }
    if (a->f)
        k->mul(k, a->f, a->dy, a->f, a->rows * a->n_out);
    k->linear_bwd_w(k, a->dw, a->f ? a->f : a->dy, a->x, a->rows, a->n_out, a->n_in);
    k->linear_bwd_x(k, a->dx, a->f ? a->f : a->dy, a->w, a->rows, a->n_out, a->n_in, false);
}

/* Bytes of what may be a half value, as in a step of training where the backend has these. */
static double each(const struct gpu *b)
{
    return b->k->combine_half ? 2 : 4;
}

/* A linear layer as a step of training has it. Of an MLP, where the backend has half values, the
 * second makes the gradient in front of the first's activation (kernels.h, x_f). */
struct layer {
    const char *name;
    size_t out, in;
    bool act, after_act;
    double calls;
};

static void layer(struct gpu *b, struct total *sum, const struct arrays *x, const struct layer *l,
                  const char *fwd, const char *bwd, double calls)
{
    bool marks = b->k->combine_half;
    double r = (double)b->rows, in = (double)l->in, out = (double)l->out;
    double flops = 2 * r * in * out, bytes = each(b) * r * (in + out), weights = 4 * in * out;
    double u = each(b) * r * (l->act ? out : in); /* before the activation */
    char shape[64];
    struct kern_linear a = {.x = x->a[0], .y = x->a[1], .dy = x->a[2], .dx = x->a[3], .w = x->a[5]};
    a.f = l->act ? x->a[4] : NULL;
    a.x_f = l->after_act && marks ? x->a[4] : NULL;
    a.dw = x->a[6];
    a.rows = b->rows;
    a.n_out = l->out;
    a.n_in = l->in;
    a.act = l->act;
    a.slope = a.x_slope = 0.5f;
    a.x16 = a.y16 = a.dy16 = a.dx16 = marks;
    a.g_done = l->act && marks;
    snprintf(shape, sizeof shape, "%s %zu x %zu -> %zu", l->name, b->rows, a.n_in, a.n_out);
    line(b, sum, fwd, shape, run_linear_train, &a, flops, bytes + (l->act ? u : 0) + weights, calls,
         true);
    line(b, sum, bwd, shape, run_linear_bwd, &a, 2 * flops,
         bytes + (a.x_f || (l->act && !marks) ? u : 0) + each(b) * r * in + 3 * weights, calls,
         true);
}

static void products(struct gpu *b, struct total *sum)
{
    static const struct layer layers[] = {
        {"Q|K|V", QKV, DIM, false, false, LAYERS}, /* as three in blocks with a value embedding */
        {"O", DIM, DIM, false, false, LAYERS},
        {"up", HIDDEN, DIM, true, false, LAYERS},
        {"down", DIM, HIDDEN, false, true, LAYERS},
    };
    struct arrays x = {.n = 0};
    for (unsigned i = 0; i < 5; i++)
        x.a[i] = filled_as(b, b->rows * HIDDEN, i + 1, 1, b->k->combine_half);
    x.a[5] = filled(b, HIDDEN * DIM, 6, 0.1f);
    x.a[6] = filled(b, HIDDEN * DIM, 7, 1);
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        layer(b, sum, &x, &layers[i], "linear_train", "linear_bwd", layers[i].calls);
    /* The MLP's in the other way, where there is one: not part of the step. */
    struct gpu other = *b;
    struct total aside = {0};
    struct err e = {0};
    char chosen[16];
    snprintf(chosen, sizeof chosen, "%s", getenv("KERN_MLP") ? getenv("KERN_MLP") : "lt");
    bool ours = strstr(b->k->name, "MLP by wgmma");
    setenv("KERN_MLP", ours ? "lt" : "wgmma", 1);
    if (strstr(b->k->name, "sm_90") && !kern_cuda(&other.k, 0, &e)) {
        if (!ours && !strstr(other.k->name, "MLP by wgmma"))
            printf("MLP by wgmma does not agree with the other way\n");
        for (size_t i = 2; i < sizeof layers / sizeof layers[0]; i++)
            layer(&other, &aside, &x, &layers[i], ours ? "train, lt" : "train, wgmma",
                  ours ? "bwd, lt" : "bwd, wgmma", 0);
        kern_free(other.k);
    }
    setenv("KERN_MLP", chosen, 1);
    release(b, &x);
}

/* ---- attention and what surrounds it ---- */

static void run_attn_fwd(struct gpu *b, void *arg)
{
    b->k->attn_fwd(b->k, arg);
}

static void run_attn_bwd(struct gpu *b, void *arg)
{
    b->k->attn_bwd(b->k, arg);
}

static void run_qk_fwd(struct gpu *b, void *arg)
{
    (b->k->qk_half ? b->k->qk_half : b->k->qk_fwd)(b->k, arg);
}

static void run_qk_bwd(struct gpu *b, void *arg)
{
    (b->k->qk_bwd_half ? b->k->qk_bwd_half : b->k->qk_bwd)(b->k, arg);
}

static void run_xsa_fwd(struct gpu *b, void *arg)
{
    b->k->xsa_fwd(b->k, arg);
}

static void run_xsa_bwd(struct gpu *b, void *arg)
{
    b->k->xsa_bwd(b->k, arg);
}

static void run_attn_xsa_fwd(struct gpu *b, void *arg)
{
    b->k->attn_xsa_fwd(b->k, arg);
}

static void run_attn_xsa_bwd(struct gpu *b, void *arg)
{
    b->k->attn_xsa_bwd(b->k, arg);
}

/* Attention as a step of training has it: all values half values where the backend has these. */
static void attention(struct gpu *b, struct total *sum)
{
    struct arrays x = {.n = 0}, one;
    size_t n = b->rows * DIM, batch = b->rows / b->t;
    bool half = b->k->combine_half;
    double row = (half ? 2.0 : 4.0) * (double)n;
    double fwd = 4.0 * HEAD_DIM * HEADS * (double)b->rows * 0.5 * (double)(b->t + 1);
    char shape[64];
    for (unsigned i = 0; i < ARRAYS; i++)
        x.a[i] = filled_as(b, b->rows * QKV, i + 1, 1.7f, half);
    fill(b, &one, 2, b->rows * HEADS, 1);
    struct kern_attn a = {.o = x.a[0], .q = x.a[1], .k = x.a[2], .v = x.a[3], .do_ = x.a[4]};
    a.dq = x.a[5];
    a.dk = x.a[6];
    a.dv = x.a[7];
    a.lse = one.a[0];
    a.batch = batch;
    a.tq = a.tk = b->t;
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.head_dim = HEAD_DIM;
    a.scale = 0.125f;
    a.half = a.half_o = a.half_dqk = a.half_dv = half;
    a.joined = b->k->joins;
    snprintf(shape, sizeof shape, "%zu x %zu, 8/4 x 64", batch, b->t);
    /* Part of the step where XSA is an operation of its own. */
    double alone = b->k->attn_xsa_fwd ? 0 : LAYERS;
    line(b, sum, "attn_fwd", shape, run_attn_fwd, &a, fwd, 3 * row, alone, true);
    line(b, sum, "attn_bwd", shape, run_attn_bwd, &a, 2.5 * fwd, 6 * row, alone, true);
    if (b->k->attn_xsa_fwd) {
        struct kern_attn_xsa f = {.attn = a, .s = one.a[1], .do_ = x.a[8]};
        line(b, sum, "attn_xsa_fwd", shape, run_attn_xsa_fwd, &f, fwd, 3 * row, LAYERS, true);
        line(b, sum, "attn_xsa_bwd", shape, run_attn_xsa_bwd, &f, 2.5 * fwd, 7 * row, LAYERS, true);
    }
    /* The same by attn.cu, where attn90.cu is used: not part of the step. */
    struct gpu other = *b;
    struct total aside = {0};
    struct err e = {0};
    setenv("KERN_ATTN", "mma", 1);
    if (strstr(b->k->name, "attention by wgmma") && !kern_cuda(&other.k, 0, &e)) {
        line(&other, &aside, "attn_fwd, mma", shape, run_attn_fwd, &a, fwd, 3 * row, 0, true);
        line(&other, &aside, "attn_bwd, mma", shape, run_attn_bwd, &a, 2.5 * fwd, 6 * row, 0, true);
        kern_free(other.k);
    }
    unsetenv("KERN_ATTN");
    release(b, &x);
    release(b, &one);
}

/* What surrounds attention. */
static void heads(struct gpu *b, struct total *sum)
{
    struct arrays x = {.n = 0}, one;
    bool marks = b->k->combine_half;
    double row = each(b) * (double)b->rows * DIM, half = row / 2;
    for (unsigned i = 0; i < 6; i++)
        x.a[i] = filled_as(b, b->rows * QKV, i + 1, 1.7f, marks);
    fill(b, &one, 4, b->rows * HEADS, 1);
    struct kern_qk q = {.y = x.a[0], .x = x.a[1], .dy = x.a[2], .dx = x.a[3], .rstd = one.a[0]};
    q.gain = one.a[1];
    q.dgain = one.a[2];
    q.cos = one.a[3];
    q.sin = one.a[3];
    q.rows = b->rows;
    q.t = b->t;
    q.head_dim = HEAD_DIM;
    q.rope_dims = ROPE;
    q.eps = 1e-6f;
    q.heads = HEADS;
    q.row = b->k->joins ? QKV : 0;
    line(b, sum, "qk_fwd", "queries", run_qk_fwd, &q, 0, 2 * row, LAYERS, true);
    line(b, sum, "qk_bwd", "queries", run_qk_bwd, &q, 0, 3 * row, LAYERS, true);
    q.heads = KV_HEADS;
    line(b, sum, "qk_fwd", "keys", run_qk_fwd, &q, 0, 2 * half, LAYERS, true);
    line(b, sum, "qk_bwd", "keys", run_qk_bwd, &q, 0, 3 * half, LAYERS, true);
    if (!b->k->attn_xsa_fwd) {
        struct kern_xsa s = {.y = x.a[0], .o = x.a[1], .v = x.a[2], .dy = x.a[3], .do_ = x.a[4]};
        s.dv = x.a[5];
        s.rows = b->rows;
        s.heads = HEADS;
        s.kv_heads = KV_HEADS;
        s.head_dim = HEAD_DIM;
        line(b, sum, "xsa_fwd", "8/4 x 64", run_xsa_fwd, &s, 0, 2 * row + half, LAYERS, true);
        line(b, sum, "xsa_bwd", "8/4 x 64", run_xsa_bwd, &s, 0, 3 * row + 2 * half, LAYERS, true);
    }
    release(b, &x);
    release(b, &one);
}

/* ---- residual stream, embedding, head ---- */

static void run_combine_fwd(struct gpu *b, void *arg)
{
    (b->k->combine_half ? b->k->combine_half : b->k->combine_fwd)(b->k, arg);
}

static void run_combine_bwd(struct gpu *b, void *arg)
{
    (b->k->combine_bwd_half ? b->k->combine_bwd_half : b->k->combine_bwd)(b->k, arg);
}

/* What the MLP gives is added to the stream, and the sum mixed with the embedding. */
struct two {
    struct kern_combine first, then;
};

static void run_pair_fwd(struct gpu *b, void *arg)
{
    struct two *a = arg;
    struct kern_combine first = a->first;
    first.y = NULL;
    if (b->k->combine_pair) {
        b->k->combine_pair(b->k, &first, &a->then);
    } else {
        run_combine_fwd(b, &a->first);
        run_combine_fwd(b, &a->then);
    }
}

static void run_pair_bwd(struct gpu *b, void *arg)
{
    struct two *a = arg;
    struct kern_combine first = a->first;
    first.dy = NULL;
    if (b->k->combine_bwd_pair) {
        b->k->combine_bwd_pair(b->k, &first, &a->then);
    } else {
        run_combine_bwd(b, &a->then);
        run_combine_bwd(b, &a->first);
    }
}

/* Per layer: what attention gives is added to the stream, with a norm of the sum; and what the MLP
 * gives, with a mix with the embedding, whose gradient is added to in fp32, and its norm. */
static void residual(struct gpu *b, struct total *sum)
{
    struct arrays x = {.n = 0}, one, grad;
    bool marks = b->k->combine_half, pair = b->k->combine_pair;
    double row = 4.0 * (double)b->rows * DIM, half = each(b) * (double)b->rows * DIM;
    for (unsigned i = 0; i < ARRAYS; i++)
        x.a[i] = filled_as(b, b->rows * DIM, i + 1, 1, marks);
    fill(b, &one, 8, b->rows, 1);
    fill(b, &grad, 1, b->rows * DIM, 1);
    struct kern_combine c = {.y = x.a[0], .x0 = x.a[1], .x1 = x.a[2], .c1 = one.a[1]};
    c.dy = c.dx0 = x.a[3];
    c.dx1 = x.a[4];
    c.dc1 = one.a[2];
    c.rows = b->rows;
    c.dim = DIM;
    c.eps = 1e-6f;
    c.gain = 1;
    c.x0_16 = c.x1_16 = c.y16 = c.n16 = marks;
    c.dx0_16 = c.dx1_16 = c.dy16 = c.dn16 = marks;
    struct two t = {c, c};
    c.n = x.a[5];
    c.dn = x.a[6];
    c.rstd = one.a[0];
    line(b, sum, "combine_fwd", "added, norm", run_combine_fwd, &c, 0, 4 * half, LAYERS, true);
    line(b, sum, "combine_bwd", "added, norm", run_combine_bwd, &c, 0, 6 * half, LAYERS, true);
    t.then = c;
    t.then.y = x.a[7];
    t.then.x0 = x.a[0];
    t.then.c0 = one.a[3];
    t.then.dc0 = one.a[4];
    t.then.c1 = one.a[5];
    t.then.dc1 = one.a[6];
    t.then.dx1 = grad.a[0];
    t.then.dx1_16 = false;
    t.then.add1 = true;
    line(b, sum, "combine_pair", "added, mixed, norm", run_pair_fwd, &t, 0, (pair ? 5 : 7) * half,
         LAYERS, true);
    line(b, sum, "combine_bwd_pair", "added, mixed, norm", run_pair_bwd, &t, 0,
         (pair ? 7 : 8) * half + 2 * row, LAYERS, true);
    release(b, &x);
    release(b, &one);
    release(b, &grad);
}

struct embed_arg {
    float *table, *y;
    uint16_t *ids;
};

static void run_embed_fwd(struct gpu *b, void *arg)
{
    struct embed_arg *a = arg;
    if (b->k->embed_half)
        b->k->embed_half(b->k, a->y, a->table, a->ids, b->rows, DIM);
    else
        b->k->embed_fwd(b->k, a->y, a->table, a->ids, b->rows, DIM);
}

static void run_embed_bwd(struct gpu *b, void *arg)
{
    struct embed_arg *a = arg;
    if (b->k->embed_bwd_half)
        b->k->embed_bwd_half(b->k, a->table, a->y, a->ids, b->rows, DIM, VOCAB);
    else
        b->k->embed_bwd(b->k, a->table, a->y, a->ids, b->rows, DIM, VOCAB);
}

static void run_head_fwd(struct gpu *b, void *arg)
{
    b->k->head_fwd(b->k, arg);
}

static void run_head_bwd(struct gpu *b, void *arg)
{
    b->k->head_bwd(b->k, arg);
}

static void vocabulary(struct gpu *b, struct total *sum)
{
    struct arrays x, w, one;
    double row = 4.0 * (double)b->rows * DIM, product = 2.0 * (double)b->rows * DIM * VOCAB;
    size_t bytes = b->rows * sizeof(uint16_t);
    uint16_t *host = malloc(bytes), *ids = b->k->alloc(b->k, bytes);
    unsigned s = 1;
    if (!host || !ids)
        gpu_fail(ERR_RESOURCE, "no memory for the tokens");
    for (size_t i = 0; i < b->rows; i++) {
        s = s * 1664525u + 1013904223u;
        host[i] = (uint16_t)((s >> 16) * (s >> 16 & 255) >> 8 & (VOCAB - 1));
    }
    b->k->upload(b->k, ids, host, bytes);
    gpu_done(b);
    free(host);
    fill(b, &x, 2, b->rows * DIM, 1);
    fill(b, &w, 2, VOCAB * DIM, 0.1f);
    fill(b, &one, 2, b->rows, 1);
    struct embed_arg e = {w.a[0], x.a[0], ids};
    line(b, sum, "embed_fwd", "4096 x 512", run_embed_fwd, &e, 0,
         row + each(b) * (double)b->rows * DIM, 1, true);
    line(b, sum, "embed_bwd", "4096 x 512", run_embed_bwd, &e, 0, each(b) * (double)b->rows * DIM,
         1, true);
    struct kern_head h = {
        .nll = one.a[0], .lse = one.a[1], .h = x.a[0], .w = w.a[0], .target = ids};
    h.rows = b->rows;
    h.dim = DIM;
    h.vocab = VOCAB;
    h.cap = 30;
    h.gscale = 1;
    h.dh = x.a[1];
    h.dw = w.a[1];
    line(b, sum, "head_fwd", "512 -> 4096", run_head_fwd, &h, product, row, 1, true);
    line(b, sum, "head_bwd", "512 -> 4096", run_head_bwd, &h, 3 * product, 2 * row, 1, true);
    release(b, &x);
    release(b, &w);
    release(b, &one);
    b->k->free(b->k, ids);
}

/* ---- optimiser ---- */

static void run_ns(struct gpu *b, void *arg)
{
    b->k->newton_schulz(b->k, arg);
}

static void run_adamw(struct gpu *b, void *arg)
{
    b->k->adamw(b->k, arg);
}

static void run_sumsq(struct gpu *b, void *arg)
{
    struct arrays *x = arg;
    b->k->sumsq(b->k, x->a[0], x->n);
}

/* All matrices of a shape at once, in place: what goes in next is what came out. */
static void newton_schulz(struct gpu *b, struct total *sum, size_t rows, size_t cols, size_t count)
{
    float *x[2 * LAYERS];
    struct kern_ns a = {.x = x, .count = count, .rows = rows, .cols = cols, .steps = STEPS};
    double n = (double)(rows < cols ? rows : cols), len = (double)(rows < cols ? cols : rows);
    char shape[64];
    a.a = 3.4445f;
    a.b = -4.7750f;
    a.c = 2.0315f;
    a.eps = 1e-7f;
    for (unsigned i = 0; i < count; i++)
        x[i] = filled(b, rows * cols, i + 1, 1);
    snprintf(shape, sizeof shape, "%zu of %zu x %zu", count, rows, cols);
    line(b, sum, "newton_schulz", shape, run_ns, &a,
         (double)count * STEPS * (4 * n * n * len + 2 * n * n * n), 8.0 * (double)count * n * len,
         1, false);
    for (size_t i = 0; i < count; i++)
        b->k->free(b->k, x[i]);
}

static void optimiser(struct gpu *b, struct total *sum)
{
    struct arrays x;
    newton_schulz(b, sum, DIM, DIM, 2 * LAYERS);
    newton_schulz(b, sum, KV, DIM, 2 * LAYERS);
    newton_schulz(b, sum, HIDDEN, DIM, LAYERS);
    newton_schulz(b, sum, DIM, HIDDEN, LAYERS);
    fill(b, &x, 4, PARAMS, 1);
    double block = 4.0 * PARAMS;
    struct kern_adamw a = {.p = x.a[0], .m = x.a[1], .v = x.a[2], .g = x.a[3], .n = VOCAB * DIM};
    a.step = 1;
    a.b1 = 0.9f;
    a.b2 = 0.95f;
    a.eps = 1e-8f;
    line(b, sum, "adamw", "the table", run_adamw, &a, 0, 28.0 * VOCAB * DIM, 1, false);
    line(b, sum, "axpby", "momentum, update, average", run_axpby, &x, 0, 3 * block, 4, false);
    line(b, sum, "sumsq", "norm of the gradient", run_sumsq, &x, 0, block, 1, false);
    release(b, &x);
}

void gpu_ops(struct gpu *b)
{
    struct total sum = {0};
    printf("%-15s %-26s %9s %9s %6s %8s %7s %8s\n", "operation", "shape", "ms", "floor ms", "ratio",
           "TFLOP/s", "TB/s", "ms/step");
    products(b, &sum);
    attention(b, &sum);
    heads(b, &sum);
    residual(b, &sum);
    vocabulary(b, &sum);
    optimiser(b, &sum);
    if (!b->only)
        printf("%-15s %-26s %9s %9.1f %6.2f %8s %7s %8.1f\n", "in all", "786,432 tokens, 11 layers",
               "", sum.floor, sum.floor / sum.ms, "", "", sum.ms);
}
