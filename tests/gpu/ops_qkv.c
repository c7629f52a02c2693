/*
 * ops_qkv.c - q, k and v in rows [q|k|v], as one product makes them (kernels.h, `joins`): each
 * operation that reads or writes a part of such rows, beside the CPU's, which has arrays of their
 * own. The columns of the others are NaN, so that to read them shows; and must still be afterwards.
 * Whether an array is dense or not must not change a bit.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/ops.h"

static const double NEAR = 2e-6, SUMS = 2e-5, ROUNDED = 2e-3, BF16 = 5e-3, BF16_TWICE = 1e-2;

/* `width` columns from `first` on, of rows of `row` numbers. */
struct part {
    size_t rows, row, first, width;
};

static struct part part_of(size_t rows, size_t heads, size_t kv, size_t dim, int which)
{
    size_t row = (heads + 2 * kv) * dim;
    const size_t first[] = {0, heads * dim, (heads + kv) * dim};
    return (struct part){rows, row, first[which], (which ? kv : heads) * dim};
}

static uint16_t *room(size_t n)
{
    uint16_t *p = malloc((n + 1) * sizeof *p);
    if (!p)
        exit(ERR_RESOURCE);
    return p;
}

static uint16_t *fetch(struct ops *o, struct arr a, size_t n)
{
    struct kern *k = o->k[TESTED];
    uint16_t *host = room(n);
    k->download(k, host, a.p[TESTED], n * sizeof *host);
    return host;
}

/* On the tested side, rows that hold a dense array of half values in their columns, NaN beside it.
 */
static struct arr join(struct ops *o, struct arr dense, struct part p)
{
    struct kern *k = o->k[TESTED];
    struct arr wide = ops_half_output(o, p.rows * p.row);
    uint16_t *from = fetch(o, dense, p.rows * p.width), *to = room(p.rows * p.row);
    memset(to, 0xff, p.rows * p.row * sizeof *to);
    for (size_t r = 0; r < p.rows; r++)
        memcpy(to + r * p.row + p.first, from + r * p.width, p.width * sizeof *to);
    k->upload(k, wide.p[TESTED], to, p.rows * p.row * sizeof *to);
    free(from);
    free(to);
    return wide;
}

static void *column(struct arr wide, struct part p)
{
    return (uint16_t *)wide.p[TESTED] + p.first;
}

/* Are the columns what the dense array has, bit by bit, and is all beside them still NaN? */
static void compare(struct ops *o, const char *what, struct arr wide, struct arr dense,
                    struct part p)
{
    uint16_t *w = fetch(o, wide, p.rows * p.row), *d = fetch(o, dense, p.rows * p.width);
    bool good = true;
    for (size_t r = 0; r < p.rows; r++)
        for (size_t i = 0; i < p.row; i++) {
            bool mine = i >= p.first && i < p.first + p.width;
            good &= w[r * p.row + i] == (mine ? d[r * p.width + i - p.first] : 0xffff);
        }
    ops_verdict(o, what, good);
    free(w);
    free(d);
}

static void same(struct ops *o, const char *what, struct arr a, struct arr b)
{
    size_t n = a.half ? a.n : 2 * a.n;
    uint16_t *x = fetch(o, a, n), *y = fetch(o, b, n);
    ops_verdict(o, what, !memcmp(x, y, n * sizeof *x));
    free(x);
    free(y);
}

enum { DENSE, ROWS, WAYS };

/* which: 0 is q, with a gain, 1 is k. */
static void qk(struct ops *o, size_t batch, size_t t, size_t heads, size_t kv, size_t dim,
               size_t rope, int which)
{
    struct part p = part_of(batch * t, heads, kv, dim, which);
    size_t n = p.rows * p.width, mine = which ? kv : heads;
    struct arr x = ops_half_input(o, n, 1), wide = join(o, x, p), gain = ops_weights(o, mine, 1);
    struct arr y[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr rstd[WAYS] = {ops_output(o, p.rows * mine), ops_output(o, p.rows * mine)};
    struct arr dy = ops_half_input(o, n, 1), dgain = ops_weights(o, mine, 1);
    struct arr dx = ops_half_output(o, n), dwide = join(o, dx, p);
    struct arr cs = ops_input(o, t * rope / 2, 1), sn = ops_input(o, t * rope / 2, 1);
    BOTH(o, {
        struct kern_qk a = {.y = F(y[DENSE]),
                            .rstd = F(rstd[DENSE]),
                            .x = F(x),
                            .gain = which ? NULL : F(gain),
                            .cos = F(cs),
                            .sin = F(sn),
                            .rows = p.rows,
                            .t = t,
                            .heads = mine,
                            .head_dim = dim,
                            .rope_dims = rope,
                            .eps = 1e-6f,
                            .dy = F(dy),
                            .dx = F(dx),
                            .dgain = which ? NULL : F(dgain)};
        (s == TESTED ? k->qk_half : k->qk_fwd)(k, &a);
        (s == TESTED ? k->qk_bwd_half : k->qk_bwd)(k, &a);
        a.dgain = NULL;
        if (s == TESTED) {
            a.y = F(y[ROWS]);
            a.rstd = F(rstd[ROWS]);
            a.row = (uint32_t)p.row;
            a.x = column(wide, p);
            a.dx = column(dwide, p);
            k->qk_half(k, &a);
            k->qk_bwd_half(k, &a);
        }
    })
    ops_check(o, "y", y[DENSE], ROUNDED);
    ops_check(o, "rstd", rstd[DENSE], NEAR);
    ops_check(o, "dx", dx, ROUNDED);
    if (!which)
        ops_check(o, "dgain", dgain, SUMS);
    same(o, "y of rows [q|k|v]: the same bits", y[DENSE], y[ROWS]);
    same(o, "rstd: the same bits", rstd[DENSE], rstd[ROWS]);
    compare(o, "dx: the same bits, others untouched", dwide, dx, p);
}

static void attention(struct ops *o, size_t t, size_t heads, size_t kv, size_t dim, bool add)
{
    enum { BATCH = 2 };
    struct part p = part_of(BATCH * t, heads, kv, dim, 2);
    size_t n = p.rows * heads * dim, nk = p.rows * p.width;
    struct arr q = ops_half_input(o, n, 1), key = ops_half_input(o, nk, 1);
    struct arr v = ops_half_input(o, nk, 1), dy = ops_half_input(o, n, 1), wide = join(o, v, p);
    struct arr lse = ops_output(o, BATCH * heads * t);
    struct arr y[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr dq[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr dk[WAYS] = {ops_half_output(o, nk), ops_half_output(o, nk)};
    struct arr dv = add ? ops_half_input(o, nk, 1) : ops_half_output(o, nk);
    struct arr dwide = join(o, dv, p);
    BOTH(o, {
        bool tested = s == TESTED;
        struct kern_attn a = {.o = F(y[DENSE]),
                              .lse = F(lse),
                              .q = F(q),
                              .k = F(key),
                              .v = F(v),
                              .batch = BATCH,
                              .tq = t,
                              .tk = t,
                              .heads = heads,
                              .kv_heads = kv,
                              .head_dim = dim,
                              .scale = 0.3f,
                              .do_ = F(dy),
                              .dq = F(dq[DENSE]),
                              .dk = F(dk[DENSE]),
                              .dv = F(dv),
                              .add_dv = add,
                              .half = tested,
                              .half_o = tested,
                              .half_dqk = tested,
                              .half_dv = tested};
        k->attn_fwd(k, &a);
        k->attn_bwd(k, &a);
        if (tested) {
            a.o = F(y[ROWS]);
            a.dq = F(dq[ROWS]);
            a.dk = F(dk[ROWS]);
            a.joined = true;
            a.v = column(wide, p);
            a.dv = column(dwide, p);
            k->attn_fwd(k, &a);
            k->attn_bwd(k, &a);
        }
    })
    ops_check(o, "o", y[DENSE], BF16_TWICE);
    ops_check(o, "lse", lse, BF16);
    ops_check(o, "dq", dq[DENSE], BF16_TWICE);
    ops_check(o, "dk", dk[DENSE], BF16_TWICE);
    ops_check(o, "dv", dv, BF16_TWICE);
    same(o, "o of rows [q|k|v]: the same bits", y[DENSE], y[ROWS]);
    same(o, "dq: the same bits", dq[DENSE], dq[ROWS]);
    same(o, "dk: the same bits", dk[DENSE], dk[ROWS]);
    compare(o, "dv: the same bits, others untouched", dwide, dv, p);
}

/* With XSA behind it: ops_xsa.c compares it with the CPU. */
static void exclusive(struct ops *o, size_t t, size_t heads, size_t kv, size_t dim, bool add)
{
    enum { BATCH = 2 };
    struct part p = part_of(BATCH * t, heads, kv, dim, 2);
    size_t n = p.rows * heads * dim, nk = p.rows * p.width, m = p.rows * heads;
    struct arr q = ops_half_input(o, n, 1), key = ops_half_input(o, nk, 1);
    struct arr v = ops_half_input(o, nk, 1), dy = ops_half_input(o, n, 1), wide = join(o, v, p);
    struct arr lse = ops_output(o, m), along[WAYS] = {ops_output(o, m), ops_output(o, m)};
    struct arr y[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr do_[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr dq[WAYS] = {ops_half_output(o, n), ops_half_output(o, n)};
    struct arr dk = ops_half_output(o, nk);
    struct arr dv = add ? ops_half_input(o, nk, 1) : ops_half_output(o, nk);
    struct arr dwide = join(o, dv, p);
    struct kern *k = o->k[TESTED];
    const int s = TESTED;
    for (int way = DENSE; way < WAYS; way++) {
        bool rows = way == ROWS;
        const struct kern_attn a = {.o = F(y[way]),
                                    .lse = F(lse),
                                    .q = F(q),
                                    .k = F(key),
                                    .v = rows ? column(wide, p) : F(v),
                                    .batch = BATCH,
                                    .tq = t,
                                    .tk = t,
                                    .heads = heads,
                                    .kv_heads = kv,
                                    .head_dim = dim,
                                    .scale = 0.3f,
                                    .do_ = F(dy),
                                    .dq = F(dq[way]),
                                    .dk = F(dk),
                                    .dv = rows ? column(dwide, p) : F(dv),
                                    .add_dv = add,
                                    .half = true,
                                    .half_o = true,
                                    .half_dqk = true,
                                    .half_dv = true,
                                    .joined = rows};
        const struct kern_attn_xsa f = {.attn = a, .s = F(along[way]), .do_ = F(do_[way])};
        k->attn_xsa_fwd(k, &f);
        k->attn_xsa_bwd(k, &f);
    }
    same(o, "y of rows [q|k|v]: the same bits", y[DENSE], y[ROWS]);
    same(o, "s: the same bits", along[DENSE], along[ROWS]);
    same(o, "do: the same bits", do_[DENSE], do_[ROWS]);
    same(o, "dq: the same bits", dq[DENSE], dq[ROWS]);
    compare(o, "dv: the same bits, others untouched", dwide, dv, p);
}

/*
 * One product of three matrices, those of k and v elsewhere. The reference has all rows one behind
 * the other, and so has the first half of the block on the tested side, until k and v are moved
 * into the second: v first, then k, then a gap.
 */
static void product(struct ops *o, size_t rows, size_t q, size_t kv, size_t n_in)
{
    size_t n_out = q + 2 * kv, all = n_out * n_in, first = q * n_in, part = kv * n_in;
    struct arr x = ops_half_input(o, rows * n_in, 1), w = ops_weights(o, 2 * all, 0.1f);
    struct arr dy = ops_half_input(o, rows * n_out, 1), dw = ops_weights(o, 2 * all, 1);
    struct arr y[2] = {ops_half_output(o, rows * n_out), ops_half_output(o, rows * n_out)};
    struct arr dx[2] = {ops_half_output(o, rows * n_in), ops_half_output(o, rows * n_in)};
    BOTH(o, {
        struct kern_linear a = {
            .x = F(x),
            .w = F(w),
            .rows = rows,
            .n_out = n_out,
            .n_in = n_in,
            .y = F(y[0]),
            .dy = F(dy),
            .dx = F(dx[0]),
            .dw = F(dw),
            .x16 = true,
            .y16 = true,
            .dy16 = true,
            .dx16 = true,
            .part = {{F(w) + all + part, F(dw) + all + part, kv}, {F(w) + all, F(dw) + all, kv}}};
        if (s == TESTED) {
            float *const block[] = {F(w), F(dw)};
            for (int i = 0; i < 2; i++) {
                k->copy(k, block[i] + all + part, block[i] + first, part * sizeof(float));
                k->copy(k, block[i] + all, block[i] + first + part, part * sizeof(float));
                k->zero(k, block[i] + first, 2 * part * sizeof(float));
            }
            for (int held = 0; held < 2; held++) {
                a.y = F(y[held]);
                a.dx = F(dx[held]);
                k->hold(k, held ? F(w) : NULL, held ? 2 * all : 0);
                k->linear_train(k, &a);
                k->linear_bwd(k, &a);
            }
            k->hold(k, NULL, 0);
            k->copy(k, F(dw) + first, F(dw) + all + part, part * sizeof(float));
            k->copy(k, F(dw) + first + part, F(dw) + all, part * sizeof(float));
        } else {
            k->linear_fwd(k, F(y[0]), F(x), F(w), rows, n_out, n_in);
            k->linear_bwd_x(k, F(dx[0]), F(dy), F(w), rows, n_out, n_in, false);
            for (int i = 0; i < 2; i++)
                k->linear_bwd_w(k, F(dw), F(dy), F(x), rows, n_out, n_in);
        }
    })
    dw.n = all;
    ops_check(o, "y", y[0], BF16_TWICE);
    ops_check(o, "dx", dx[0], BF16_TWICE);
    ops_check(o, "dw", dw, BF16_TWICE);
    same(o, "y of weights that are held: the same bits", y[0], y[1]);
    same(o, "dx: the same bits", dx[0], dx[1]);
}

void ops_qkv(struct ops *o, bool small)
{
    if (!o->k[TESTED]->joins)
        return;
    ops_case(o, "rows [q|k|v]: weights in three places");
    product(o, small ? 70 : 3001, 512, 256, 512);
    ops_case(o, "rows [q|k|v]: weights, 24 + 8 + 8 by 40");
    product(o, 33, 24, 8, 40);
    ops_case(o, "rows [q|k|v]: q, 8 heads of 64 on 4");
    qk(o, 3, small ? 21 : 333, 8, 4, 64, 16, 0);
    ops_case(o, "rows [q|k|v]: k, 8 heads of 64 on 4");
    qk(o, 3, small ? 21 : 333, 8, 4, 64, 16, 1);
    ops_case(o, "rows [q|k|v]: q, 3 heads of 8 on 1");
    qk(o, 1, 37, 3, 1, 8, 0, 0);
    ops_case(o, "rows [q|k|v]: k, 6 heads of 128 on 3");
    qk(o, 2, 50, 6, 3, 128, 128, 1);
    ops_case(o, "rows [q|k|v]: attention, heads of 64");
    attention(o, small ? 150 : 1000, 4, 2, 64, true);
    attention(o, 70, 4, 4, 64, false);
    ops_case(o, "rows [q|k|v]: attention, heads of 16");
    attention(o, small ? 70 : 200, 3, 1, 16, true);
    ops_case(o, "rows [q|k|v]: attention, heads of 128");
    attention(o, 70, 4, 2, 128, true);
    ops_case(o, "rows [q|k|v]: attention with XSA");
    exclusive(o, small ? 70 : 1000, 8, 4, 64, true);
    exclusive(o, 33, 3, 1, 16, false);
}
