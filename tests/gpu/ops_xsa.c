/*
 * ops_xsa.c - attention with XSA behind it as one operation (kern_attn_xsa), beside the CPU's
 * attention and XSA one after the other, from the same rounded numbers.
 */
#include <math.h>

#include "tests/gpu/ops.h"

/* As of attention alone; y and do, which are stored as half values, are rounded once more. */
static const double BF16 = 5e-3, BF16_TWICE = 1e-2;

struct shape {
    const char *what;
    size_t batch, t, heads, kv, dim;
    float v;        /* numbers of v are so large */
    bool add, dv16; /* dv is added to; is a half value */
    bool over;      /* dq lies where dy was; dq and dk are fp32 */
};

static struct arr half_or_not(struct ops *o, size_t n, bool half, bool input)
{
    if (input)
        return half ? ops_half_input(o, n, 1) : ops_input(o, n, 1);
    return half ? ops_half_output(o, n) : ops_output(o, n);
}

/* s of the reference, from what its attention returned: rows of v are `group` heads apart. */
static void along(float *s, const float *o, const float *v, size_t heads, size_t group, size_t dim)
{
    for (size_t h = 0; h < heads; h++, o += dim) {
        const float *own = v + h / group * dim;
        double dot = 0, ss = 0;
        for (size_t i = 0; i < dim; i++) {
            dot += (double)o[i] * own[i];
            ss += (double)own[i] * own[i];
        }
        s[h] = (float)(dot / fmax(sqrt(ss), 1e-12));
    }
}

static void one(struct ops *o, const struct shape *c)
{
    size_t rows = c->batch * c->t, n = rows * c->heads * c->dim, nk = rows * c->kv * c->dim;
    struct arr q = ops_half_input(o, n, 1), key = ops_half_input(o, nk, 1);
    struct arr v = ops_half_input(o, nk, c->v), x = ops_output(o, n);
    struct arr y = ops_half_output(o, n), lse = ops_output(o, rows * c->heads);
    struct arr s_ = ops_output(o, rows * c->heads), dy = ops_half_input(o, n, 1);
    struct arr do_ = ops_half_output(o, n), dq = half_or_not(o, n, !c->over, false);
    struct arr dk = half_or_not(o, nk, !c->over, false);
    struct arr dv = half_or_not(o, nk, c->dv16, c->add);
    if (c->over) /* the array has room for floats */
        dq.p[TESTED] = dy.p[TESTED];
    BOTH(o, {
        struct kern_attn_xsa a = {.attn = {.o = s == TESTED ? F(y) : F(x),
                                           .lse = F(lse),
                                           .q = F(q),
                                           .k = F(key),
                                           .v = F(v),
                                           .batch = c->batch,
                                           .tq = c->t,
                                           .tk = c->t,
                                           .heads = c->heads,
                                           .kv_heads = c->kv,
                                           .head_dim = c->dim,
                                           .scale = 0.3f,
                                           .dq = F(dq),
                                           .dk = F(dk),
                                           .dv = F(dv)},
                                  .s = F(s_),
                                  .do_ = F(do_)};
        struct kern_xsa apart = {.y = F(y),
                                 .o = F(x),
                                 .v = F(v),
                                 .rows = rows,
                                 .heads = c->heads,
                                 .kv_heads = c->kv,
                                 .head_dim = c->dim,
                                 .dy = F(dy),
                                 .do_ = F(do_),
                                 .dv = F(dv),
                                 .add = c->add};
        if (s == TESTED) {
            a.attn.half = a.attn.half_o = true;
            a.attn.half_dqk = !c->over;
            a.attn.half_dv = c->dv16;
            a.attn.do_ = F(dy);
            a.attn.add_dv = c->add;
            k->attn_xsa_fwd(k, &a);
            k->attn_xsa_bwd(k, &a);
        } else {
            k->attn_fwd(k, &a.attn);
            k->xsa_fwd(k, &apart);
            for (size_t i = 0; i < rows; i++)
                along(F(s_) + i * c->heads, F(x) + i * c->heads * c->dim, F(v) + i * c->kv * c->dim,
                      c->heads, c->heads / c->kv, c->dim);
            k->xsa_bwd(k, &apart);
            a.attn.do_ = F(do_);
            a.attn.add_dv = true;
            k->attn_bwd(k, &a.attn);
        }
    })
    ops_check(o, "y", y, BF16_TWICE);
    ops_check(o, "s", s_, BF16);
    ops_check(o, "lse", lse, BF16);
    ops_check(o, "do", do_, BF16);
    ops_check(o, "dq", dq, BF16_TWICE);
    ops_check(o, "dk", dk, BF16_TWICE);
    ops_check(o, "dv", dv, BF16_TWICE);
}

void ops_xsa(struct ops *o, bool small)
{
    const size_t t = small ? 130 : 1000;
    const struct shape cases[] = {
        {"attention with XSA, 8 heads of 64 on 4", 2, t, 8, 4, 64, 1, false, true, false},
        {"attention with XSA, 3 on 1, dv in fp32", 3, 77, 3, 1, 64, 1, true, false, false},
        {"attention with XSA, a KV head per head", 1, 200, 2, 2, 64, 1, true, true, true},
        {"attention with XSA, short values", 1, 65, 4, 2, 64, 1.2e-13f, false, true, false},
        {"attention with XSA, heads of 128", 1, t - 30, 4, 2, 128, 1, true, true, false},
        {"attention with XSA, heads of 32", 2, 64, 2, 1, 32, 3, false, false, true},
        {"attention with XSA, heads of 16", 2, 70, 3, 3, 16, 1, false, true, false},
        {"attention with XSA, heads of 8", 5, 9, 4, 1, 8, 1, true, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ops_case(o, cases[i].what);
        one(o, &cases[i]);
    }
}
