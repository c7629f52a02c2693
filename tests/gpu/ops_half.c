/*
 * ops_half.c - operations of attention and MLP in a step of training whose arrays are half values
 * (kernels.h, kern_linear), beside the CPU's from the same rounded numbers. What is stored as a
 * half value is off by one more rounding.
 */
#include "tests/gpu/ops.h"

static const double NEAR = 2e-6, SUMS = 2e-5, ROUNDED = 2e-3, BF16 = 5e-3, BF16_TWICE = 1e-2;

static struct arr input(struct ops *o, size_t n, float scale, bool half)
{
    return half ? ops_half_input(o, n, scale) : ops_input(o, n, scale);
}

static struct arr output(struct ops *o, size_t n, bool half)
{
    return half ? ops_half_output(o, n) : ops_output(o, n);
}

/* ---- heads ---- */

static void qk(struct ops *o, size_t batch, size_t t, size_t heads, size_t dim, size_t rope)
{
    size_t rows = batch * t, n = rows * heads * dim;
    struct arr x = input(o, n, 1, true), y = output(o, n, true);
    struct arr rstd = ops_output(o, rows * heads), gain = ops_weights(o, heads, 1);
    struct arr dy = input(o, n, 1, true), dx = output(o, n, true);
    struct arr dgain = ops_weights(o, heads, 1), plain = output(o, n, true);
    struct arr cs = ops_input(o, (t + 3) * rope / 2, 1), sn = ops_input(o, (t + 3) * rope / 2, 1);
    BOTH(o, {
        struct kern_qk a = {.y = F(y),
                            .rstd = F(rstd),
                            .x = F(x),
                            .gain = F(gain),
                            .cos = F(cs),
                            .sin = F(sn),
                            .rows = rows,
                            .t = t,
                            .pos0 = 3,
                            .heads = heads,
                            .head_dim = dim,
                            .rope_dims = rope,
                            .eps = 1e-6f,
                            .dy = F(dy),
                            .dx = F(dx),
                            .dgain = F(dgain)};
        (s == TESTED ? k->qk_half : k->qk_fwd)(k, &a);
        (s == TESTED ? k->qk_bwd_half : k->qk_bwd)(k, &a);
        a.gain = NULL;
        a.y = F(plain);
        (s == TESTED ? k->qk_half : k->qk_fwd)(k, &a);
    })
    ops_check(o, "y", y, ROUNDED);
    ops_check(o, "rstd", rstd, NEAR);
    ops_check(o, "dx", dx, ROUNDED);
    ops_check(o, "dgain", dgain, SUMS);
    ops_check(o, "plain", plain, ROUNDED);
}

static void attention(struct ops *o, size_t t, size_t q0, size_t heads, size_t kv, size_t dim,
                      bool dv16)
{
    enum { BATCH = 2 };
    size_t n = BATCH * t * heads * dim, nk = BATCH * (q0 + t) * kv * dim;
    struct arr q = input(o, n, 1, true), key = input(o, nk, 1, true);
    struct arr v = input(o, nk, 1, true), y = output(o, n, true);
    struct arr lse = ops_output(o, BATCH * heads * t), dy = input(o, n, 1, true);
    struct arr dq = output(o, n, true), dk = output(o, nk, true);
    struct arr dv = input(o, nk, 1, dv16);
    BOTH(o, {
        struct kern_attn a = {.o = F(y),
                              .lse = F(lse),
                              .q = F(q),
                              .k = F(key),
                              .v = F(v),
                              .batch = BATCH,
                              .tq = t,
                              .tk = q0 + t,
                              .q0 = q0,
                              .heads = heads,
                              .kv_heads = kv,
                              .head_dim = dim,
                              .scale = 0.3f,
                              .do_ = F(dy),
                              .dq = F(dq),
                              .dk = F(dk),
                              .dv = F(dv),
                              .add_dv = true,
                              .half = s == TESTED,
                              .half_o = s == TESTED,
                              .half_dqk = s == TESTED,
                              .half_dv = s == TESTED && dv16};
        k->attn_fwd(k, &a);
        k->attn_bwd(k, &a);
    })
    ops_check(o, "o", y, BF16_TWICE);
    ops_check(o, "lse", lse, BF16);
    ops_check(o, "dq", dq, BF16_TWICE);
    ops_check(o, "dk", dk, BF16_TWICE);
    ops_check(o, "dv", dv, BF16_TWICE);
}

/* ---- linear layers ---- */

static void linear(struct ops *o, size_t rows, size_t n_out, size_t n_in, bool act)
{
    size_t n = rows * n_out;
    struct arr x = input(o, rows * n_in, 1, true), w = ops_weights(o, n_out * n_in, 0.1f);
    struct arr y = output(o, n, true), f = ops_output(o, n);
    struct arr dy = input(o, n, 1, true), dx = output(o, rows * n_in, true);
    struct arr more = input(o, rows * n_in, 1, true), dw = ops_weights(o, n_out * n_in, 1);
    BOTH(o, {
        struct kern_linear a = {.x = F(x),
                                .w = F(w),
                                .rows = rows,
                                .n_out = n_out,
                                .n_in = n_in,
                                .act = act,
                                .slope = 0.3f,
                                .y = F(y),
                                .f = act ? F(f) : NULL,
                                .dy = F(dy),
                                .dx = F(dx),
                                .dw = F(dw),
                                .x16 = true,
                                .y16 = true,
                                .dy16 = true,
                                .dx16 = true};
        if (s == TESTED) {
            k->linear_train(k, &a);
            k->linear_bwd(k, &a);
            a.dx = F(more);
            a.add = true;
            k->linear_bwd(k, &a);
        } else {
            if (act) {
                k->linear_act_fwd(k, F(y), F(f), F(x), F(w), rows, n_out, n_in, 0.3f);
                k->mul(k, F(dy), F(dy), F(f), n);
            } else {
                k->linear_fwd(k, F(y), F(x), F(w), rows, n_out, n_in);
            }
            k->linear_bwd_x(k, F(dx), F(dy), F(w), rows, n_out, n_in, false);
            k->linear_bwd_x(k, F(more), F(dy), F(w), rows, n_out, n_in, true);
            k->linear_bwd_w(k, F(dw), F(dy), F(x), rows, n_out, n_in);
            k->linear_bwd_w(k, F(dw), F(dy), F(x), rows, n_out, n_in);
        }
    })
    ops_check(o, "y", y, BF16_TWICE);
    ops_check(o, "dx", dx, BF16_TWICE);
    ops_check(o, "dx+", more, BF16_TWICE);
    ops_check(o, "dw", dw, BF16_TWICE);
}

void ops_halves(struct ops *o, bool small)
{
    ops_case(o, "half: qk, heads of 64, 16 turned");
    qk(o, 3, small ? 21 : 333, 8, 64, 16);
    ops_case(o, "half: qk, heads of 8, none turned");
    qk(o, 1, 37, 3, 8, 0);
    ops_case(o, "half: qk, heads of 128, all turned");
    qk(o, 2, 50, 4, 128, 128);
    ops_case(o, "half: attention, 8 heads of 64 on 4");
    attention(o, small ? 130 : 1024, 0, 8, 4, 64, true);
    ops_case(o, "half: attention, last queries of a window");
    attention(o, 64, small ? 100 : 960, 4, 2, 64, false);
    ops_case(o, "half: attention, heads of 128");
    attention(o, small ? 70 : 500, 0, 4, 2, 128, true);
    ops_case(o, "half: attention, heads of 10");
    attention(o, 70, 5, 2, 1, 10, true);
    ops_case(o, "half: linear, 512 to 1024");
    linear(o, small ? 40 : 3001, 1024, 512, false);
    ops_case(o, "half: linear with activation, 72 to 104");
    linear(o, 131, 104, 72, true);
    ops_case(o, "half: linear with activation, 24 to 13");
    linear(o, 35, 13, 24, true);
}
