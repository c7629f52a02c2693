/* ops_heavy.c - matrix products, attention, head and loss, SLOT, optimiser. */
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

static void attention(struct ops *o, size_t batch, size_t tq, size_t q0, size_t heads, size_t kv,
                      size_t dim)
{
    size_t tk = q0 + tq, n = batch * tq * heads * dim, nk = batch * tk * kv * dim;
    struct arr q = ops_input(o, n, 1), key = ops_input(o, nk, 1), v = ops_input(o, nk, 1);
    struct arr y = ops_output(o, n), lse = ops_output(o, batch * heads * tq);
    struct arr dy = ops_input(o, n, 1), dq = ops_output(o, n), dk = ops_output(o, nk);
    struct arr dv = ops_input(o, nk, 1);
    BOTH(o, {
        struct kern_attn a = {.o = F(y),
                              .lse = F(lse),
                              .q = F(q),
                              .k = F(key),
                              .v = F(v),
                              .batch = batch,
                              .tq = tq,
                              .tk = tk,
                              .q0 = q0,
                              .heads = heads,
                              .kv_heads = kv,
                              .head_dim = dim,
                              .scale = 0.3f,
                              .do_ = F(dy),
                              .dq = F(dq),
                              .dk = F(dk),
                              .dv = F(dv),
                              .add_dv = true};
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

void ops_attention(struct ops *o, bool small)
{
    ops_case(o, "attention, 8 heads of 64 on 4");
    attention(o, 2, small ? 130 : 1024, 0, 8, 4, 64);
    ops_case(o, "attention, odd lengths");
    attention(o, 3, 77, 0, 3, 1, 64);
    ops_case(o, "attention, last queries of a window");
    attention(o, 2, 64, small ? 100 : 960, 4, 2, 64);
    ops_case(o, "attention, one query");
    attention(o, 1, 1, 0, 16, 8, 64);
    ops_case(o, "attention, heads of 128");
    attention(o, 1, small ? 100 : 500, 0, 4, 2, 128);
    ops_case(o, "attention, heads of 10");
    attention(o, 2, 70, 5, 2, 1, 10);
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
