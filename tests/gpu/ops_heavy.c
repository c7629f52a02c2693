/* ops_heavy.c - matrix products, attention, head and loss, SLOT, optimiser. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/ops.h"

/* Operands of 8 bits: each product is off by up to 2^-8, sums of many by less. */
static const double BF16 = 5e-3, BF16_TWICE = 1e-2, NEAR = 2e-6, SUMS = 2e-5, EXACT = 0;

static void linear(struct ops *o, size_t rows, size_t n_out, size_t n_in)
{
    struct arr x = ops_input(o, rows * n_in, 1), w = ops_weights(o, n_out * n_in, 0.1f);
    struct arr y = ops_output(o, rows * n_out), u = ops_output(o, rows * n_out);
    struct arr f = ops_output(o, rows * n_out), dy = ops_input(o, rows * n_out, 1);
    struct arr dx = ops_output(o, rows * n_in), dw = ops_weights(o, n_out * n_in, 1);
    struct arr more = ops_input(o, rows * n_in, 1);
    BOTH(o, {
        k->linear_fwd(k, F(y), F(x), F(w), rows, n_out, n_in);
        k->linear_act_fwd(k, F(u), F(f), F(x), F(w), rows, n_out, n_in, 0.5f);
        k->linear_bwd_x(k, F(dx), F(dy), F(w), rows, n_out, n_in, false);
        k->linear_bwd_x(k, F(more), F(dy), F(w), rows, n_out, n_in, true);
        k->linear_bwd_w(k, F(dw), F(dy), F(x), rows, n_out, n_in);
    })
    ops_check(o, "y", y, BF16);
    ops_check(o, "act", u, BF16_TWICE);
    ops_check(o, "f", f, BF16);
    ops_check(o, "dx", dx, BF16);
    ops_check(o, "dx+", more, BF16);
    ops_check(o, "dw", dw, BF16);
}

static void gemm(struct ops *o, size_t m, size_t n, size_t kk)
{
    struct arr a = ops_input(o, m * kk, 1), b = ops_input(o, n * kk, 1);
    for (int form = 0; form < 4; form++) {
        struct arr c = ops_input(o, m * n, 1);
        BOTH(o, k->gemm(k, F(c), F(a), F(b), m, n, kk, form & 1, form & 2, 0.5f,
                        form == 3 ? 0.0f : 1.0f))
        ops_check(o, "c", c, SUMS);
    }
}

void ops_products(struct ops *o, bool small)
{
    ops_case(o, "linear, 512 to 1024");
    linear(o, small ? 40 : 3001, 1024, 512);
    ops_case(o, "linear, 72 to 104");
    linear(o, 131, 104, 72);
    ops_case(o, "linear, 21 to 13");
    linear(o, 35, 13, 21);
    ops_case(o, "gemm in fp32, all transpositions");
    gemm(o, 129, 67, small ? 50 : 700);
}

struct attention {
    const char *name;
    size_t batch, tq, q0, behind; /* keys behind the last query's: it sees none of them */
    size_t heads, kv, dim;
    bool add_dv;
    bool half, half_o, half_dqk, half_dv;
};

static struct arr input(struct ops *o, size_t n, bool half)
{
    return half ? ops_half_input(o, n, 1) : ops_input(o, n, 1);
}

static struct arr output(struct ops *o, size_t n, bool half)
{
    return half ? ops_half_output(o, n) : ops_output(o, n);
}

static void attention(struct ops *o, const struct attention *c)
{
    size_t tk = c->q0 + c->tq + c->behind, n = c->batch * c->tq * c->heads * c->dim;
    size_t nk = c->batch * tk * c->kv * c->dim;
    struct arr q = input(o, n, c->half), key = input(o, nk, c->half), v = input(o, nk, c->half);
    struct arr y = output(o, n, c->half_o), lse = ops_output(o, c->batch * c->heads * c->tq);
    struct arr dy = input(o, n, c->half_o), dq = output(o, n, c->half_dqk);
    struct arr dk = output(o, nk, c->half_dqk);
    struct arr dv = c->add_dv ? input(o, nk, c->half_dv) : output(o, nk, c->half_dv);
    BOTH(o, {
        struct kern_attn a = {.o = F(y),
                              .lse = F(lse),
                              .q = F(q),
                              .k = F(key),
                              .v = F(v),
                              .batch = c->batch,
                              .tq = c->tq,
                              .tk = tk,
                              .q0 = c->q0,
                              .heads = c->heads,
                              .kv_heads = c->kv,
                              .head_dim = c->dim,
                              .scale = 0.3f,
                              .do_ = F(dy),
                              .dq = F(dq),
                              .dk = F(dk),
                              .dv = F(dv),
                              .add_dv = c->add_dv,
                              .half = s == TESTED && c->half,
                              .half_o = s == TESTED && c->half_o,
                              .half_dqk = s == TESTED && c->half_dqk,
                              .half_dv = s == TESTED && c->half_dv};
        k->attn_fwd(k, &a);
        k->attn_bwd(k, &a);
    })
    ops_check(o, "o", y, BF16_TWICE);
    ops_check(o, "lse", lse, tk == 1 ? BF16_TWICE : BF16); /* of one score it has all the error */
    if (tk == 1) {
        /* The weight of the only key is 1 whatever the score: both are zero but for rounding. */
        ops_small(o, "dq", dq, 0.1);
        ops_small(o, "dk", dk, 0.1);
    } else {
        ops_check(o, "dq", dq, BF16_TWICE);
        ops_check(o, "dk", dk, BF16_TWICE);
    }
    ops_check(o, "dv", dv, BF16_TWICE);
}

/* The result of a query, forward, depends on its position alone: the same bits from all queries at
 * once, from the last ones, and from one. */
static void positions(struct ops *o, size_t t, size_t heads, size_t kv, size_t dim)
{
    static const size_t counts[] = {150, 64, 9, 1};
    struct kern *k = o->k[TESTED];
    size_t row = heads * dim, nk = t * kv * dim;
    struct arr q = ops_input(o, t * row, 1), key = ops_input(o, nk, 1), v = ops_input(o, nk, 1);
    struct arr y = ops_output(o, t * row), part = ops_output(o, t * row);
    bool same = true;
    float *all = malloc(t * row * sizeof *all), *some = malloc(t * row * sizeof *some);
    struct kern_attn a = {.o = y.p[TESTED], .q = q.p[TESTED], .k = key.p[TESTED]};
    a.v = v.p[TESTED];
    a.batch = 1;
    a.tq = a.tk = t;
    a.heads = heads;
    a.kv_heads = kv;
    a.head_dim = dim;
    a.scale = 0.3f;
    k->attn_fwd(k, &a);
    k->download(k, all, a.o, t * row * sizeof *all);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        a.tq = counts[i];
        a.q0 = t - a.tq;
        a.q = (float *)q.p[TESTED] + a.q0 * row;
        a.o = part.p[TESTED];
        k->attn_fwd(k, &a);
        k->download(k, some, a.o, a.tq * row * sizeof *some);
        same = same && !memcmp(all + a.q0 * row, some, a.tq * row * sizeof *some);
    }
    free(all);
    free(some);
    ops_verdict(o, "bits", same);
}

void ops_attention(struct ops *o, bool small)
{
    const size_t window = small ? 100 : 960;
    const struct attention cases[] = {
        {"attention, 8 heads of 64 on 4", 2, small ? 130 : 1024, 0, 0, 8, 4, 64, .add_dv = true},
        {"attention, odd lengths", 3, 77, 0, 0, 3, 1, 64, .add_dv = true},
        {"attention, last queries of a window", 2, 64, window, 0, 4, 2, 64, .add_dv = true},
        {"attention, one query", 1, 1, 0, 0, 16, 8, 64, .add_dv = true},
        {"attention, a KV head per head", 1, 200, 37, 0, 2, 2, 64, .add_dv = false},
        {"attention, 4 heads on 1, keys unseen", 2, 129, 0, 150, 4, 1, 64, .add_dv = false},
        {"attention, 5 sequences of 8 heads", 5, 130, 0, 0, 8, 4, 64, .add_dv = true},
        {"attention, half values, a KV head per head", 2, 150, 37, 0, 2, 2, 64, .add_dv = false,
         true, true, true, true},
        {"attention, q, k, v half values", 1, 129, 0, 70, 4, 1, 64, .add_dv = true, true, false,
         false, false},
        {"attention, heads of 128", 1, small ? 100 : 500, 0, 0, 4, 2, 128, .add_dv = true},
        {"attention, heads of 10", 2, 70, 5, 0, 2, 1, 10, .add_dv = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (!cases[i].half || ops_has_half(o)) {
            ops_case(o, cases[i].name);
            attention(o, &cases[i]);
        }
    ops_case(o, "attention, a query's bits by position");
    positions(o, 203, 4, 2, 64);
}

static void head(struct ops *o, size_t rows, size_t dim, size_t vocab, float cap)
{
    struct arr h = ops_input(o, rows * dim, 1), w = ops_weights(o, vocab * dim, 0.2f);
    struct arr target = ops_ids(o, rows, vocab), nll = ops_output(o, rows);
    struct arr lse = ops_output(o, rows), dh = ops_output(o, rows * dim);
    struct arr dw = ops_weights(o, vocab * dim, 0.01f), l = ops_output(o, rows * vocab);
    BOTH(o, {
        struct kern_head a = {.nll = F(nll),
                              .lse = F(lse),
                              .h = F(h),
                              .w = F(w),
                              .target = IDS(target),
                              .rows = rows,
                              .dim = dim,
                              .vocab = vocab,
                              .cap = cap,
                              .gscale = 0.01f,
                              .dh = F(dh),
                              .dw = F(dw)};
        k->head_fwd(k, &a);
        k->head_bwd(k, &a);
        k->head_logits(k, F(l), F(h), F(w), rows, dim, vocab, cap);
    })
    ops_check(o, "nll", nll, BF16);
    ops_check(o, "lse", lse, BF16);
    ops_check(o, "dh", dh, BF16_TWICE);
    ops_check(o, "dw", dw, BF16_TWICE);
    ops_check(o, "logits", l, BF16_TWICE);
}

static void slot(struct ops *o, size_t groups, size_t per, size_t rows, size_t step, size_t vocab)
{
    size_t all = (groups - 1) * step + rows, shifts = (groups + per - 1) / per;
    struct arr z = ops_input(o, all * vocab, 3), u = ops_input(o, shifts * vocab, 1);
    struct arr target = ops_ids(o, all, vocab), nll = ops_output(o, groups * rows);
    struct arr du = ops_input(o, shifts * vocab, 0.01f);
    BOTH(o, {
        struct kern_slot a = {.z = F(z),
                              .u = F(u),
                              .target = IDS(target),
                              .nll = F(nll),
                              .du = F(du),
                              .groups = groups,
                              .per = per,
                              .rows = rows,
                              .step = step,
                              .vocab = vocab,
                              .cap = 30,
                              .gscale = 0.1f};
        k->slot_fwd(k, &a);
        k->slot_bwd(k, &a);
    })
    ops_check(o, "nll", nll, SUMS);
    ops_check(o, "du", du, SUMS);
}

void ops_loss(struct ops *o, bool small)
{
    ops_case(o, "head, 4096 pieces, softcap");
    head(o, small ? 30 : 2500, 512, 4096, 30);
    ops_case(o, "head, 77 pieces, no softcap");
    head(o, 45, 24, 77, 0);
    if (!small) {
        ops_case(o, "head, 60000 pieces: two chunks of rows");
        head(o, 700, 24, 60000, 15);
    }
    ops_case(o, "slot, a shift per group");
    slot(o, 3, 1, small ? 70 : 200, small ? 90 : 300, 1024);
    ops_case(o, "slot, groups share shifts");
    slot(o, 5, 2, 65, 65, 333);
}

static void newton_schulz(struct ops *o, size_t count, size_t rows, size_t cols)
{
    struct arr x[4];
    for (size_t i = 0; i < count; i++)
        x[i] = ops_input(o, rows * cols, 0.02f);
    BOTH(o, {
        float *at[4];
        for (size_t i = 0; i < count; i++)
            at[i] = F(x[i]);
        struct kern_ns a = {.x = at,
                            .count = count,
                            .rows = rows,
                            .cols = cols,
                            .steps = 5,
                            .a = 3.4445f,
                            .b = -4.775f,
                            .c = 2.0315f,
                            .eps = 1e-7f};
        k->newton_schulz(k, &a);
    })
    /* Five steps of bf16 products beside fp32: as far apart as the records' own are. */
    for (size_t i = 0; i < count; i++)
        ops_check(o, "x", x[i], 5e-2);
}

void ops_optimiser(struct ops *o, bool small)
{
    size_t n = small ? 1001 : 1000003, dim = 515, rows = 77;
    ops_case(o, "adamw, bf16, rows of weights");
    struct arr p = ops_input(o, n, 1), m = ops_input(o, n, 0.1f), g = ops_input(o, n, 1);
    struct arr v = ops_input(o, n, 1), b = ops_input(o, n, 1), x = ops_input(o, rows * dim, 1);
    struct arr q = ops_output(o, rows * dim);
    double sum[SIDES];
    BOTH(o, {
        k->mul(k, F(v), F(v), F(v), n);
        const struct kern_adamw a = {.p = F(p),
                                     .m = F(m),
                                     .v = F(v),
                                     .g = F(g),
                                     .n = n,
                                     .step = 7,
                                     .lr = 0.01f,
                                     .b1 = 0.9f,
                                     .b2 = 0.95f,
                                     .eps = 1e-8f,
                                     .wd = 0.1f};
        k->adamw(k, &a);
        k->round_bf16(k, F(b), n);
        k->row_normalize(k, F(x), rows, dim, 1e-7f);
        k->fake_quant(k, F(q), F(x), rows, dim, 31, 1e-12f);
        sum[s] = k->sumsq(k, F(p), n);
    })
    struct arr sums = ops_input(o, 1, 1);
    BOTH(o, {
        float f = (float)sum[s];
        k->upload(k, sums.p[s], &f, sizeof f);
    })
    ops_check(o, "p", p, NEAR);
    ops_check(o, "m", m, NEAR);
    ops_check(o, "v", v, NEAR);
    ops_check(o, "bf16", b, EXACT);
    ops_check(o, "rows", x, NEAR);
    ops_check(o, "quant", q, 1e-3); /* an element at the middle of a step may go either way */
    ops_check(o, "sumsq", sums, NEAR);
    ops_case(o, "newton_schulz, square");
    newton_schulz(o, 3, 128, 128);
    ops_case(o, "newton_schulz, wide");
    newton_schulz(o, 2, 64, small ? 128 : 512);
    ops_case(o, "newton_schulz, tall");
    newton_schulz(o, 2, small ? 128 : 512, 64);
}
