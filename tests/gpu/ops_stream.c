/*
 * ops_stream.c - the residual stream in a step of training: combines with half values (kernels.h),
 * one by one and in pairs, embedding, head; beside the CPU's from the same rounded numbers. What is
 * stored as a half value is off by one more rounding.
 */
#include "tests/gpu/ops.h"

static const double NEAR = 2e-6, SUMS = 2e-5, ROUNDED = 2e-3, BF16 = 5e-3, BF16_TWICE = 1e-2;

static struct arr input(struct ops *o, size_t n, bool half)
{
    return half ? ops_half_input(o, n, 1) : ops_input(o, n, 1);
}

static struct arr output(struct ops *o, size_t n, bool half)
{
    return half ? ops_half_output(o, n) : ops_output(o, n);
}

static void check(struct ops *o, const char *name, struct arr a)
{
    ops_check(o, name, a, a.half ? ROUNDED : NEAR);
}

/* The marks of kern_combine. */
enum {
    X0 = 1,
    X1 = 2,
    Y = 4,
    N = 8,
    DX0 = 16,
    DX1 = 32,
    DY = 64,
    DN = 128,
    ALL = 255,
};

static void mark(struct kern_combine *a, unsigned half)
{
    a->x0_16 = half & X0;
    a->x1_16 = half & X1;
    a->y16 = half & Y;
    a->n16 = half & N;
    a->dx0_16 = half & DX0;
    a->dx1_16 = half & DX1;
    a->dy16 = half & DY;
    a->dn16 = half & DN;
}

/* ---- one ---- */

/* Which operands there are, and which of them are half values. */
struct form {
    const char *what;
    unsigned half;
    bool x1, c0, c1, n, dy, add0, add1;
    bool in_place; /* dx0 is dy */
    bool same;     /* x1 is x0, dx1 is dx0 */
    bool no_y;
};

static void combine(struct ops *o, const struct form *f, size_t rows, size_t dim)
{
    size_t size = rows * dim;
    struct arr x0 = input(o, size, f->half & X0), x1 = input(o, size, f->half & X1);
    struct arr c0 = ops_weights(o, dim, 1), c1 = ops_weights(o, dim, 1);
    struct arr y = output(o, size, f->half & Y), n = output(o, size, f->half & N);
    struct arr rstd = ops_output(o, rows), dy = input(o, size, f->half & DY);
    struct arr dn = input(o, size, f->half & DN);
    struct arr other = (f->add0 ? input : output)(o, size, f->half & DX0);
    struct arr dx1 = (f->add1 ? input : output)(o, size, f->half & DX1);
    struct arr dc0 = ops_weights(o, dim, 1), dc1 = ops_weights(o, dim, 1);
    struct arr dx0 = f->in_place ? dy : f->same ? dx1 : other;
    BOTH(o, {
        struct kern_combine a = {.y = f->no_y ? NULL : F(y),
                                 .n = f->n ? F(n) : NULL,
                                 .rstd = f->n ? F(rstd) : NULL,
                                 .x0 = F(x0),
                                 .x1 = f->same ? F(x0)
                                       : f->x1 ? F(x1)
                                               : NULL,
                                 .c0 = f->c0 ? F(c0) : NULL,
                                 .c1 = f->c1 ? F(c1) : NULL,
                                 .rows = rows,
                                 .dim = dim,
                                 .eps = 1e-5f,
                                 .gain = 0.7f,
                                 .dy = f->dy ? F(dy) : NULL,
                                 .dn = f->n ? F(dn) : NULL,
                                 .dx0 = F(dx0),
                                 .dx1 = f->x1 ? F(dx1) : NULL,
                                 .dc0 = f->c0 ? F(dc0) : NULL,
                                 .dc1 = f->c1 ? F(dc1) : NULL,
                                 .add0 = f->add0,
                                 .add1 = f->add1};
        mark(&a, f->half);
        if (s == TESTED) {
            k->combine_half(k, &a);
            k->combine_bwd_half(k, &a);
        } else {
            k->combine_fwd(k, &a);
            k->combine_bwd(k, &a);
        }
    })
    if (!f->no_y)
        check(o, "y", y);
    if (f->n) {
        check(o, "n", n);
        ops_check(o, "rstd", rstd, NEAR);
    }
    ops_check(o, "dx0", dx0, f->same && dx0.half ? BF16 : dx0.half ? ROUNDED : NEAR);
    if (f->x1 && !f->same)
        check(o, "dx1", dx1);
    /* The norm's gradient is of y as it was stored, where not both operands are read anyway. */
    bool stored = f->n && y.half && !f->no_y && !(f->c0 && (f->c1 || !f->x1));
    if (f->c0)
        ops_check(o, "dc0", dc0, stored ? ROUNDED : SUMS);
    if (f->c1)
        ops_check(o, "dc1", dc1, stored ? ROUNDED : SUMS);
}

static const struct form forms[] = {
    {.what = "stream: sum and norm",
     .half = ALL,
     .x1 = true,
     .c1 = true,
     .n = true,
     .dy = true,
     .in_place = true},
    {.what = "stream of floats: sum and norm",
     .half = X1 | N | DX1 | DN,
     .x1 = true,
     .c1 = true,
     .n = true,
     .dy = true,
     .in_place = true},
    {.what = "stream: sum", .half = ALL, .x1 = true, .c1 = true, .dy = true, .in_place = true},
    {.what = "stream of floats: sum, scaled",
     .half = X1,
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .dy = true,
     .add0 = true},
    {.what = "stream: mix and norm",
     .half = ALL & ~DX1,
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .n = true,
     .dy = true,
     .in_place = true,
     .add1 = true},
    {.what = "stream: added to a gradient",
     .half = ALL,
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .n = true,
     .dy = true,
     .add0 = true,
     .add1 = true},
    {.what = "stream: mix of one value with itself",
     .half = ALL & ~(DX0 | DX1),
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .n = true,
     .dy = true,
     .add0 = true,
     .same = true},
    {.what = "stream: a skip from itself",
     .half = ALL,
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .dy = true,
     .add0 = true,
     .same = true},
    {.what = "stream: the embedding's norm", .half = X0 | N | DX0, .n = true, .no_y = true},
    {.what = "stream: the last norm", .half = ALL, .n = true, .no_y = true},
    {.what = "stream: norm of what others read",
     .half = ALL,
     .n = true,
     .c0 = true,
     .dy = true,
     .add0 = true},
    {.what = "stream: scaled, and a second operand",
     .half = ALL,
     .x1 = true,
     .c0 = true,
     .n = true,
     .dy = true},
    {.what = "stream: embedding and bigrams, norm",
     .half = X0 | X1 | DX0 | DX1,
     .x1 = true,
     .c1 = true,
     .n = true,
     .no_y = true},
    {.what = "stream: what a shift reads",
     .half = Y,
     .x1 = true,
     .c0 = true,
     .c1 = true,
     .dy = true,
     .in_place = true},
    {.what = "stream: value and value embedding",
     .half = ALL & ~DX1,
     .x1 = true,
     .c1 = true,
     .dy = true,
     .in_place = true,
     .add1 = true},
};

/* ---- two ---- */

/* Where `first` puts dx0. */
enum place { APART, ON_DY, ON_FIRST_DY, ON_DX1 };

/* Forms of a pair. `first` may have c0; what is not said here there is always. */
struct pair {
    const char *what;
    unsigned first, then; /* marks */
    bool c0;
    bool stored; /* the sum is */
    bool more;   /* it has a gradient besides */
    bool plain;  /* `then` has no other operand, and only its norm is wanted */
    bool add0, add1, add_then;
    enum place at;
};

static void pair(struct ops *o, const struct pair *f, size_t rows, size_t dim)
{
    size_t size = rows * dim;
    bool own = f->at == ON_DX1; /* both operands of `first` are one value */
    struct arr u = input(o, size, f->first & X0), v = input(o, size, f->first & X1);
    struct arr t = output(o, size, f->first & Y), x = input(o, size, f->then & X1);
    struct arr y = output(o, size, f->then & Y), n = output(o, size, f->then & N);
    struct arr rstd = ops_output(o, rows), dy = input(o, size, f->then & DY);
    struct arr dn = input(o, size, f->then & DN), e = input(o, size, f->first & DY);
    struct arr other = (f->add0 ? input : output)(o, size, f->first & DX0);
    struct arr dv = (f->add1 ? input : output)(o, size, f->first & DX1);
    struct arr dx = (f->add_then ? input : output)(o, size, f->then & DX1);
    struct arr du = f->at == APART ? other : f->at == ON_DY ? dy : f->at == ON_FIRST_DY ? e : dv;
    struct arr c[4], dc[4];
    for (int i = 0; i < 4; i++) {
        c[i] = ops_weights(o, dim, 1);
        dc[i] = ops_weights(o, dim, 1);
    }
    BOTH(o, {
        struct kern_combine first = {.y = F(t),
                                     .x0 = F(u),
                                     .x1 = own ? F(u) : F(v),
                                     .c0 = f->c0 ? F(c[0]) : NULL,
                                     .c1 = F(c[1]),
                                     .rows = rows,
                                     .dim = dim,
                                     .dy = F(e),
                                     .dx0 = F(du),
                                     .dx1 = F(dv),
                                     .dc0 = f->c0 ? F(dc[0]) : NULL,
                                     .dc1 = F(dc[1]),
                                     .add0 = f->add0,
                                     .add1 = f->add1};
        struct kern_combine then = {.y = f->plain ? NULL : F(y),
                                    .n = F(n),
                                    .rstd = F(rstd),
                                    .x1 = f->plain ? NULL : F(x),
                                    .c0 = f->plain ? NULL : F(c[2]),
                                    .c1 = f->plain ? NULL : F(c[3]),
                                    .rows = rows,
                                    .dim = dim,
                                    .eps = 1e-5f,
                                    .gain = 0.7f,
                                    .dy = f->plain ? NULL : F(dy),
                                    .dn = F(dn),
                                    .dx1 = f->plain ? NULL : F(dx),
                                    .dc0 = f->plain ? NULL : F(dc[2]),
                                    .dc1 = f->plain ? NULL : F(dc[3]),
                                    .add1 = f->add_then};
        mark(&first, f->first);
        mark(&then, f->then);
        if (s == TESTED) {
            first.y = f->stored ? first.y : NULL;
            first.dy = f->more ? first.dy : NULL;
            k->combine_pair(k, &first, &then);
            k->combine_bwd_pair(k, &first, &then);
        } else {
            k->combine_fwd(k, &first);
            then.x0 = first.y;
            then.dx0 = F(e);
            then.add0 = f->more;
            k->combine_fwd(k, &then);
            k->combine_bwd(k, &then);
            k->combine_bwd(k, &first);
        }
    })
    if (f->stored)
        check(o, "t", t);
    if (!f->plain)
        check(o, "y", y);
    check(o, "n", n);
    ops_check(o, "rstd", rstd, NEAR);
    ops_check(o, "du", du, own ? BF16 : du.half ? ROUNDED : NEAR); /* own: rounded twice */
    if (!own)
        check(o, "dv", dv);
    if (f->c0)
        ops_check(o, "dc0", dc[0], SUMS);
    ops_check(o, "dc1", dc[1], SUMS);
    if (f->plain)
        return;
    check(o, "dx", dx);
    ops_check(o, "dc0 of 2", dc[2], SUMS);
    ops_check(o, "dc1 of 2", dc[3], SUMS);
}

static const struct pair pairs[] = {
    {.what = "pair: MLP, mix", .first = ALL, .then = ALL & ~DX1, .add_then = true, .at = ON_DY},
    {.what = "pair: MLP, mix, first to the embedding",
     .first = ALL & ~DX1,
     .then = ALL & ~DX1,
     .add1 = true,
     .at = ON_DY},
    {.what = "pair: MLP with a push, mix",
     .first = ALL,
     .then = ALL & ~DX1,
     .stored = true,
     .more = true,
     .add_then = true,
     .at = ON_FIRST_DY},
    {.what = "pair: gated skip, mix",
     .first = ALL,
     .then = ALL & ~DX1,
     .c0 = true,
     .add_then = true,
     .at = ON_DY},
    {.what = "pair: gated skip, mix, both stored",
     .first = ALL,
     .then = ALL,
     .c0 = true,
     .stored = true,
     .add0 = true,
     .add1 = true},
    {.what = "pair: gated skip from itself, mix",
     .first = ALL,
     .then = ALL & ~DX1,
     .c0 = true,
     .add0 = true,
     .at = ON_DX1},
    {.what = "pair: MLP, last norm", .first = ALL, .then = ALL, .plain = true},
    {.what = "pair: floats", .c0 = true, .add_then = true, .at = ON_DY},
    {.what = "pair: floats with a push", .stored = true, .more = true},
};

/* ---- its ends ---- */

static void embedding(struct ops *o, size_t rows, size_t dim, size_t vocab)
{
    struct arr table = ops_weights(o, vocab * dim, 1), y = output(o, rows * dim, true);
    struct arr dtable = ops_weights(o, vocab * dim, 1), dy = input(o, rows * dim, true);
    struct arr ids = ops_ids(o, rows, vocab);
    BOTH(o, {
        if (s == TESTED) {
            k->embed_half(k, F(y), F(table), IDS(ids), rows, dim);
            k->embed_bwd_half(k, F(dtable), F(dy), IDS(ids), rows, dim, vocab);
        } else {
            k->embed_fwd(k, F(y), F(table), IDS(ids), rows, dim);
            k->embed_bwd(k, F(dtable), F(dy), IDS(ids), rows, dim, vocab);
        }
    })
    check(o, "y", y);
    check(o, "dtable", dtable);
}

static void head(struct ops *o, size_t rows, size_t dim, size_t vocab, bool h16, bool dh16)
{
    struct arr h = input(o, rows * dim, h16), w = ops_weights(o, vocab * dim, 0.2f);
    struct arr target = ops_ids(o, rows, vocab), nll = ops_output(o, rows);
    struct arr lse = ops_output(o, rows), dh = output(o, rows * dim, dh16);
    struct arr dw = ops_weights(o, vocab * dim, 0.01f);
    BOTH(o, {
        struct kern_head a = {.nll = F(nll),
                              .lse = F(lse),
                              .h = F(h),
                              .w = F(w),
                              .target = IDS(target),
                              .rows = rows,
                              .dim = dim,
                              .vocab = vocab,
                              .cap = 30,
                              .gscale = 0.01f,
                              .dh = F(dh),
                              .dw = F(dw)};
        if (s == TESTED) {
            k->head_train(k, &a, h16, dh16);
        } else {
            k->head_fwd(k, &a);
            k->head_bwd(k, &a);
        }
    })
    ops_check(o, "nll", nll, BF16);
    ops_check(o, "lse", lse, BF16);
    ops_check(o, "dh", dh, BF16_TWICE);
    ops_check(o, "dw", dw, BF16_TWICE);
}

void ops_stream(struct ops *o, bool small)
{
    /* Columns of eight by a warp: twice all, once all, fewer, more. */
    static const size_t widths[] = {512, 256, 104, 648};
    size_t rows = small ? 67 : 5003;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
            ops_case(o, forms[f].what);
            combine(o, &forms[f], rows, widths[w]);
        }
        for (size_t f = 0; f < sizeof pairs / sizeof pairs[0] && kern_pair_dim(widths[w]); f++) {
            ops_case(o, pairs[f].what);
            pair(o, &pairs[f], rows, widths[w]);
        }
    }
    ops_case(o, "half: embedding");
    embedding(o, small ? 67 : 5003, 512, 77);
    ops_case(o, "half: embedding, 6 columns");
    embedding(o, 1027, 6, 300);
    for (int i = 0; i < 4; i++) {
        ops_case(o, "half: head");
        head(o, small ? 30 : 2500, 72, small ? 131 : 4096, i & 1, i & 2);
    }
    if (small)
        return;
    ops_case(o, "half: head, 60000 pieces: two chunks of rows");
    head(o, 700, 24, 60000, true, true);
}
