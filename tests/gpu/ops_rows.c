/* ops_rows.c - combine, norms with RoPE, XSA, embedding, shift, coefficients, elementwise. */
#include "tests/gpu/ops.h"

static const double EXACT = 0, NEAR = 2e-6, SUMS = 2e-5;

static void combine(struct ops *o, size_t rows, size_t dim, bool mix, bool keep_y)
{
    struct arr x0 = ops_input(o, rows * dim, 1), x1 = ops_input(o, rows * dim, 1);
    struct arr c0 = ops_input(o, dim, 1), c1 = ops_input(o, dim, 1);
    struct arr y = ops_output(o, rows * dim), n = ops_output(o, rows * dim);
    struct arr rstd = ops_output(o, rows), dy = ops_input(o, rows * dim, 1);
    struct arr dn = ops_input(o, rows * dim, 1), dx0 = ops_output(o, rows * dim);
    struct arr dx1 = ops_input(o, rows * dim, 1), dc0 = ops_input(o, dim, 1);
    struct arr dc1 = ops_input(o, dim, 1);
    BOTH(o, {
        struct kern_combine a = {.y = keep_y ? F(y) : NULL,
                                 .n = F(n),
                                 .rstd = F(rstd),
                                 .x0 = F(x0),
                                 .x1 = F(x1),
                                 .c0 = mix ? F(c0) : NULL,
                                 .c1 = mix ? F(c1) : NULL,
                                 .rows = rows,
                                 .dim = dim,
                                 .eps = 1e-5f,
                                 .gain = 0.7f,
                                 .dy = F(dy),
                                 .dn = F(dn),
                                 .dx0 = F(dx0),
                                 .dx1 = F(dx1),
                                 .dc0 = mix ? F(dc0) : NULL,
                                 .dc1 = mix ? F(dc1) : NULL,
                                 .add1 = true};
        k->combine_fwd(k, &a);
        k->combine_bwd(k, &a);
    })
    if (keep_y)
        ops_check(o, "y", y, NEAR);
    ops_check(o, "n", n, NEAR);
    ops_check(o, "rstd", rstd, NEAR);
    ops_check(o, "dx0", dx0, NEAR);
    ops_check(o, "dx1", dx1, NEAR);
    ops_check(o, "dc0", dc0, SUMS);
    ops_check(o, "dc1", dc1, SUMS);
}

/* The forms of one operand, in place, no norm: scoring and the embedding's norm. */
static void combine_plain(struct ops *o, size_t rows, size_t dim)
{
    struct arr x = ops_input(o, rows * dim, 1), n = ops_output(o, rows * dim);
    struct arr dn = ops_input(o, rows * dim, 1), rstd = ops_output(o, rows);
    struct arr x1 = ops_input(o, rows * dim, 1);
    BOTH(o, {
        struct kern_combine norm = {.n = F(n),
                                    .rstd = F(rstd),
                                    .x0 = F(x),
                                    .rows = rows,
                                    .dim = dim,
                                    .gain = 1,
                                    .dn = F(dn),
                                    .dx0 = F(dn)};
        struct kern_combine sum = {.y = F(x), .x0 = F(x), .x1 = F(x1), .rows = rows, .dim = dim};
        k->combine_fwd(k, &norm);
        k->combine_bwd(k, &norm);
        k->combine_fwd(k, &sum);
    })
    ops_check(o, "n", n, NEAR);
    ops_check(o, "dn", dn, NEAR);
    ops_check(o, "x", x, EXACT);
}

static void qk(struct ops *o, size_t batch, size_t t, size_t heads, size_t dim, size_t rope)
{
    size_t rows = batch * t, n = rows * heads * dim;
    struct arr x = ops_input(o, n, 1), y = ops_output(o, n), rstd = ops_output(o, rows * heads);
    struct arr gain = ops_input(o, heads, 1), dy = ops_input(o, n, 1), dx = ops_output(o, n);
    struct arr dgain = ops_input(o, heads, 1);
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
        k->qk_fwd(k, &a);
        k->qk_bwd(k, &a);
    })
    ops_check(o, "y", y, NEAR);
    ops_check(o, "rstd", rstd, NEAR);
    ops_check(o, "dx", dx, NEAR);
    ops_check(o, "dgain", dgain, SUMS);
    BOTH(o, {
        struct kern_qk in_place = {.y = F(x),
                                   .x = F(x),
                                   .cos = F(cs),
                                   .sin = F(sn),
                                   .rows = rows,
                                   .t = t,
                                   .heads = heads,
                                   .head_dim = dim,
                                   .rope_dims = rope};
        k->qk_fwd(k, &in_place);
    })
    ops_check(o, "x=y", x, NEAR);
}

static void xsa(struct ops *o, size_t rows, size_t heads, size_t kv, size_t dim)
{
    size_t n = rows * heads * dim, nv = rows * kv * dim;
    struct arr x = ops_input(o, n, 1), v = ops_input(o, nv, 1), y = ops_output(o, n);
    struct arr dy = ops_input(o, n, 1), dx = ops_output(o, n), dv = ops_output(o, nv);
    BOTH(o, {
        struct kern_xsa a = {.y = F(y),
                             .o = F(x),
                             .v = F(v),
                             .rows = rows,
                             .heads = heads,
                             .kv_heads = kv,
                             .head_dim = dim,
                             .dy = F(dy),
                             .do_ = F(dx),
                             .dv = F(dv)};
        k->xsa_fwd(k, &a);
        k->xsa_bwd(k, &a);
        a.add = true;
        a.do_ = F(dy);
        k->xsa_bwd(k, &a);
    })
    ops_check(o, "y", y, NEAR);
    ops_check(o, "do", dx, NEAR);
    ops_check(o, "dv", dv, NEAR);
    ops_check(o, "do=dy", dy, NEAR);
}

static void moves(struct ops *o, size_t batch, size_t t, size_t dim, size_t vocab)
{
    size_t rows = batch * t, from = t / 3;
    struct arr ids = ops_ids(o, rows, vocab), table = ops_weights(o, vocab * dim, 1);
    struct arr y = ops_output(o, rows * dim), dtable = ops_weights(o, vocab * dim, 1);
    struct arr part = ops_output(o, batch * (t - from) * dim), shifted = ops_output(o, rows * dim);
    struct arr d = ops_output(o, rows * dim), f = ops_input(o, rows * dim, 1);
    BOTH(o, {
        k->embed_fwd(k, F(y), F(table), IDS(ids), rows, dim);
        k->embed_bwd(k, F(dtable), F(y), IDS(ids), rows, dim, vocab);
        k->take(k, F(part), F(y), batch, t, from, dim);
        k->shift_fwd(k, F(shifted), F(y), batch, t, dim);
        k->shift_bwd(k, F(d), F(y), batch, t, dim, false);
        k->shift_bwd(k, F(d), F(f), batch, t, dim, true);
        k->mul(k, F(f), F(f), F(y), rows * dim);
        k->add(k, F(f), F(d), rows * dim);
        k->axpby(k, F(f), F(y), rows * dim, 0.9f, -0.3f);
    })
    ops_check(o, "embed", y, EXACT);
    ops_check(o, "dtable", dtable, EXACT);
    ops_check(o, "take", part, EXACT);
    ops_check(o, "shift", shifted, EXACT);
    ops_check(o, "dshift", d, EXACT);
    ops_check(o, "elem", f, EXACT);
}

static void coef(struct ops *o, enum coef_kind kind, size_t dim)
{
    size_t scalars = kind == COEF_GATE ? dim : 1;
    struct arr p0 = ops_input(o, scalars, 1), p1 = ops_input(o, 1, 1), w = ops_input(o, dim, 1);
    struct arr c0 = ops_output(o, dim), c1 = ops_output(o, dim), d0 = ops_input(o, dim, 1);
    struct arr d1 = ops_input(o, dim, 1), dp0 = ops_input(o, scalars, 1);
    struct arr dp1 = ops_input(o, 1, 1), dw = ops_input(o, dim, 1);
    bool scale = kind == COEF_SCALE, lerp = kind == COEF_LERP;
    BOTH(o, {
        struct kern_coef a = {.kind = kind,
                              .dim = dim,
                              .f = 0.3f,
                              .c0 = F(c0),
                              .c1 = scale ? NULL : F(c1),
                              .p0 = F(p0),
                              .p1 = scale ? F(p1) : NULL,
                              .w = lerp ? NULL : F(w),
                              .dc0 = F(d0),
                              .dc1 = scale ? NULL : F(d1),
                              .dp0 = F(dp0),
                              .dp1 = scale ? F(dp1) : NULL,
                              .dw = lerp ? NULL : F(dw)};
        k->coef_fwd(k, &a);
        k->coef_bwd(k, &a);
    })
    ops_check(o, "c0", c0, NEAR);
    if (!scale)
        ops_check(o, "c1", c1, NEAR);
    ops_check(o, "dp0", dp0, SUMS);
    ops_check(o, "dp1", dp1, SUMS);
    ops_check(o, "dw", dw, NEAR);
}

void ops_rows(struct ops *o, bool small)
{
    size_t rows = small ? 67 : 5003;
    ops_case(o, "combine, mixed, y kept");
    combine(o, rows, 512, true, true);
    ops_case(o, "combine, mixed, odd width");
    combine(o, 67, 101, true, false);
    ops_case(o, "combine, sum, y computed again");
    combine(o, rows, 101, false, false);
    ops_case(o, "combine, one operand; in place");
    combine_plain(o, rows, 512);
    ops_case(o, "qk, heads of 64, 16 turned");
    qk(o, 3, small ? 21 : 333, 8, 64, 16);
    ops_case(o, "qk, heads of 6, all turned");
    qk(o, 1, 37, 3, 6, 6);
    ops_case(o, "qk, heads of 128");
    qk(o, 2, 50, 4, 128, 128);
    ops_case(o, "qk, sums of many rows");
    qk(o, 1, 1300, 1, 4, 2);
    ops_case(o, "xsa, 8 heads on 4");
    xsa(o, rows, 8, 4, 64);
    ops_case(o, "xsa, heads of 10");
    xsa(o, 33, 3, 1, 10);
    ops_case(o, "embedding, shift, elementwise");
    moves(o, 3, small ? 50 : 2000, 65, small ? 97 : 1024);
    ops_case(o, "coef, scale");
    coef(o, COEF_SCALE, 512);
    ops_case(o, "coef, lerp");
    coef(o, COEF_LERP, 77);
    ops_case(o, "coef, gate");
    coef(o, COEF_GATE, 512);
}
