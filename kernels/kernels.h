/*
 * kernels.h - every numeric operation of the project, as one table of functions per backend.
 *
 * kern_cpu() returns the table that defines correct (fp32, bit-exact); kern_cuda() one that must
 * agree with it. A caller never asks which processor this is.
 *
 * Conventions for all entries
 *   - Matrices are dense, row-major, fp32; shapes are written with the fastest axis last.
 *   - A "row" is one position of one sequence: rows = batch * t, sequences after one another.
 *   - Weights of a linear layer are [n_out][n_in], y = x W^T, as in the community's state dicts.
 *   - Outputs must not overlap inputs unless the entry says so. Pointers are backend memory
 * (k->alloc).
 *   - Operations are queued in order; on the CPU they are finished on return. None of them can fail
 *     for a reason that depends on data. A device failure is sticky and reported by k->sync.
 *   - Gradients of parameters are always added to (dw += ...), because micro-batches accumulate.
 *     Gradients of activations are overwritten, or added to when the entry's `add` says so.
 *   - An entry that a backend lacks is NULL: in a runner what it never needs, elsewhere only
 *     some from linear_train on, see there.
 *
 * Order of arithmetic (the CPU backends; it is what makes scores bit-exact, docs/scoring.md)
 *   - Element of a matrix product: one accumulator that starts at the initial value (0, or c when
 *     accumulating), reduction index ascending, one fused multiply-add per step, never split.
 *   - One row reduced by itself (norm, softmax): 16 partial sums, partial i takes elements i, i+16,
 * ..., ascending, then halving (i with i+8, i+4, i+2, i+1). A tail counts as zeros.
 *   - Sum over rows (gradient of a scale vector): blocks of KERN_ROW_BLOCK rows, ascending inside a
 *     block, block sums added in ascending order.
 *   - exp, log and tanh are the project's own (kernels/cpu/v16.h), the same operations on every
 * ISA. Thread count, vector width, and which other rows are computed never change a bit.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum { KERN_ROW_BLOCK = 64 };

/*
 * kern_combine - arguments of the residual-stream operation, forward and backward.
 *
 *   y = c0 * x0 + c1 * x1           (elementwise; c are vectors [dim], NULL means 1; x1 may be
 * NULL) n = gain * y / sqrt(mean(y*y) + eps)                               (only when n is not
 * NULL)
 *
 * It covers the embedding's norm (x1 NULL), resid_mix, the two residual additions of a block with
 * their scales, plain U-Net skips, and the final norm. y may be NULL when only n is wanted. y may
 * be x0. One fma per element: y = fma(c1, x1, c0*x0); with c0 NULL, y = fma(c1, x1, x0).
 */
struct kern_combine {
    float *y, *n, *rstd; /* [rows][dim], [rows][dim], [rows]; rstd NULL when only scoring */
    const float *x0, *x1, *c0, *c1;
    size_t rows, dim;
    float eps, gain;
    /* backward only */
    const float *dy, *dn; /* gradients of y and n; either may be NULL (that output was unused) */
    float *dx0, *dx1;     /* gradients of x0, x1; NULL: not wanted */
    float *dc0, *dc1;     /* gradients of c0, c1 (added to); NULL: not wanted */
    bool add0, add1;      /* add to dx0 / dx1 instead of overwriting. dx0 may be dy when !add0.
                             dx1 is written first, so dx0 may be dx1 when add0 */
#ifndef RUNNER
    /* The marks of half values, for combine_half and the like; of arrays in one place they are
     * equal. */
    bool x0_16 : 1, x1_16 : 1, y16 : 1, n16 : 1;
    bool dx0_16 : 1, dx1_16 : 1, dy16 : 1, dn16 : 1;
#endif
};

/*
 * kern_qk - arguments of "RMS norm per head, partial RoPE, gain".
 *
 *   u = x / sqrt(mean over head_dim of x*x + eps);  (u[i], u[i+r/2]) rotated by the angle of (t, i)
 * for i < r/2, r = rope_dims: out[i] = u[i] c + u[i+r/2] s, out[i+r/2] = -u[i] s + u[i+r/2] c;  y =
 * gain[head] * out.
 *
 * Row j of a sequence of t rows stands at position pos0 + j. cos/sin are [positions][rope_dims/2].
 */
struct kern_qk {
    float *y, *rstd; /* [rows][heads*head_dim] (may be x when scoring), [rows][heads] or NULL */
    const float *x, *gain; /* gain [heads] or NULL for 1 */
    const float *cos, *sin;
    size_t rows, t, pos0, heads, head_dim, rope_dims;
    float eps;
#ifndef RUNNER
    uint32_t row; /* qk_half, qk_bwd_half: from one row of x, and of dx, to the next; 0: dense */
#endif
    /* backward only: y unused, x and rstd as saved */
    const float *dy;
    float *dx, *dgain; /* dx overwritten, may be dy; dgain [heads] added to, NULL when no gain */
};

/*
 * kern_attn - arguments of causal attention with grouped KV heads.
 *
 *   q, o [batch][tq][heads][head_dim]; k, v [batch][tk][kv_heads][head_dim]; query head h uses KV
 * head h / (heads/kv_heads). Query j stands at position q0 + j and sees keys 0..q0+j (q0 + tq <=
 * tk). scale multiplies q.k. lse [batch][heads][tq]: log of the sum of exponentials, NULL when
 * scoring.
 *
 * Never a tq x tk matrix in memory. The forward result of a query does not depend on tq or q0, only
 * on its position: keys are taken in blocks of 64 from key 0, with a running maximum and sum.
 */
struct kern_attn {
    float *o, *lse;
    const float *q, *k, *v;
    size_t batch, tq, tk, q0, heads, kv_heads, head_dim;
    float scale;
    /* backward only: o and lse as saved */
    const float *do_;
    float *dq, *dk, *dv; /* overwritten */
    bool add_dv;         /* add to dv instead: XSA has put its part there */
#ifndef RUNNER
    /* Only a backend with half values (kern_linear) is asked for these: */
    bool half;     /* q, k, v are half values */
    bool half_o;   /* o and do_ are */
    bool half_dqk; /* dq and dk are stored as half values */
    bool half_dv;  /* dv is, also when it is added to */
    bool joined;   /* v and dv are half values in rows [q|k|v], as one product makes them: from one
                      row to the next (heads + 2 * kv_heads) * head_dim */
#endif
};

/*
 * kern_head - arguments of the fused output head and loss.
 *
 *   z = h W^T;  l = cap * tanh(z / cap) (cap 0: l = z);  nll = log(sum exp(l)) - l[target]
 *
 * Full logits never exist; rows are taken in blocks. h [rows][dim], w [vocab][dim], target [rows].
 * Backward: dz = (softmax(l) - onehot) * (1 - (l/cap)^2) * gscale; dh = dz W (overwritten), dw +=
 * dz^T h.
 */
struct kern_head {
    float *nll, *lse; /* [rows] each; lse NULL when only scoring, and read by the backward */
    const float *h, *w;
    const uint16_t *target;
    size_t rows, dim, vocab;
    float cap;
    /* backward only */
    float gscale;
    float *dh, *dw; /* either may be NULL */
};

/*
 * kern_slot - arguments of the head's loss on logits that are there already (before the soft cap),
 * each group of rows shifted by a vector: what SLOT (arXiv 2505.12392) needs in each of its steps.
 *
 *   z = z0[row] + u[group / per];  l = cap * tanh(z / cap) (cap 0: l = z)
 *   nll = log(sum exp(l)) - l[target];  du[group / per] += gscale * sum over rows of d nll / d z
 *
 * A group is `rows` rows, the first of them `step` rows behind that of the group before; `per`
 * groups after one another share a shift. slot_fwd computes nll, with the bits of head_fwd when z0
 * are linear_fwd's and u is 0; slot_bwd computes du (sum over rows: as above, groups ascending).
 */
struct kern_slot {
    const float *z, *u;     /* [groups of step rows][vocab]; [ceil(groups/per)][vocab], NULL: 0 */
    const uint16_t *target; /* [groups of step rows] */
    float *nll;             /* [groups][rows], slot_fwd */
    float *du;              /* like u, slot_bwd */
    size_t groups, per, rows, step, vocab;
    float cap, gscale;
};

/*
 * kern_xsa - arguments of exclusive self attention (XSA, arXiv 2603.09078): what attention
 * returned, without its component along the position's own value.
 *
 *   u = v / max(|v|, 1e-12);  y_h = o_h - (o_h . u) u      query head h, v of KV head
 *                                                          h / (heads/kv_heads), same row
 */
struct kern_xsa {
    float *y;           /* [rows][heads][head_dim], may be o when scoring */
    const float *o, *v; /* [rows][heads][head_dim], [rows][kv_heads][head_dim] */
    size_t rows, heads, kv_heads, head_dim;
    /* backward only */
    const float *dy;
    float *do_, *dv; /* do_ overwritten, may be dy; dv overwritten, or added to when add */
    bool add;
};

#ifndef RUNNER
/*
 * kern_attn_xsa - arguments of attention with XSA behind it, as one operation of a training step.
 *
 *   o = attention;  u = v / max(|v|, 1e-12) of the query's own position;  s = o . u;  y = o - s u
 *
 * attn is kern_attn's with o and do_ standing for y and dy, and half, half_o set; heads as for
 * qk_half; whole sequences (q0 is 0, tk is tq). o itself is not stored: the backward has y + s u
 * for it.
 *
 *   do = dy - (dy . u) u
 *   dv += -((dy . u) y + s do + w) / max(|v|, 1e-12)   of the query's position, over its heads;
 *                                                      w = 2 s (dy . u) u where |v| < 1e-12, else 0
 *
 * before the backward of attention, which takes do. y, dy, v, do_ and dv do not overlap; dq and dk
 * may lie where dy does.
 */
struct kern_attn_xsa {
    struct kern_attn attn; /* add_dv: dv has something else already */
    float *s;              /* [batch][tq][heads] */
    void *do_;             /* backward only: like y, overwritten */
};
#endif

/*
 * kern_coef - coefficient vectors of a combine that are no plain parameter, [dim] each.
 *
 *   COEF_SCALE  c0 = f * p0 * p1 * w   p0, p1 scalars, w a vector; NULL means 1
 *   COEF_LERP   c0 = p0, c1 = 1 - p0   p0 a scalar (merge of two lanes)
 *   COEF_GATE   c0 = sigmoid(p0), c1 = (1 - c0) * w   p0, w vectors; w NULL means 1 (skip gates,
 *                                                     SmearGate)
 */
enum coef_kind { COEF_SCALE, COEF_LERP, COEF_GATE };
struct kern_coef {
    enum coef_kind kind;
    size_t dim;
    float f;
    float *c0, *c1; /* [dim] out; c1 is NULL for COEF_SCALE */
    const float *p0, *p1, *w;
    /* backward only: c0 and c1 as computed; dp0, dp1, dw are added to, NULL where p0, p1, w are */
    const float *dc0, *dc1;
    float *dp0, *dp1, *dw;
};

#ifndef RUNNER
/*
 * kern_linear - arguments of a linear layer in a step of training, forward and backward.
 *
 *   y = x W^T, with act followed by LeakyReLU(slope)^2, which stores f as linear_act_fwd does
 *   g = dy * f with act, else dy;  dw += g^T x;  dx = g W, added when `add`
 *
 * Where x is the result of another layer's activation, and nobody else reads it, dx may be that
 * layer's g at once: dx = (g W) * x_f with x_f, its f, in this call, and g = dy with g_done in its
 * own. What is between the two is not stored then. Only with half values, and without `add`.
 * f may be NULL in the forward: only scoring.
 *
 * Values with a mark are half values: stored as bf16, densely, in the memory that their floats
 * would have. Where only linear layers or attention read a value, it is what they would round it to
 * anyway; the other half values are rounded once more, as in the records, whose framework stores
 * the results of products as bf16. Marks lie where a struct has padding: its size is the same in a
 * runner, which has none.
 */
struct kern_linear {
    const void *x;  /* [rows][n_in] */
    const float *w; /* [n_out][n_in] */
    size_t rows, n_out, n_in;
    bool act;
    float slope;
    void *y, *f; /* [rows][n_out]; f is NULL without act */
    /* backward only: f as the same backend has saved it: the factor or, with y16, what it is made
     * from */
    const void *dy; /* [rows][n_out], left as it is */
    void *dx;       /* [rows][n_in] */
    float *dw;      /* [n_out][n_in] */
    bool add;
    bool x16, y16, dy16, dx16; /* the marks; y16 is f's as well, and with act comes with dy16 */
    /* Where the last rows of w and dw are that do not lie behind the others: those of k and v, in a
     * product for q, k and v. The n_out above counts them too, and n_in is a multiple of 8. */
    struct kern_part {
        const float *w; /* [n_out][n_in] */
        float *dw;
        size_t n_out; /* 0: none */
    } part[2];
    bool g_done;     /* dy is g */
    float x_slope;   /* of the activation that x is the result of */
    const void *x_f; /* [rows][n_in], that layer's f; NULL: dx as it is. With dx16 */
};

/* Widths that rows of the combines of training have. */
static inline bool kern_half_dim(size_t dim)
{
    return dim % 8 == 0 && dim <= 1024;
}

/* And of two combines in one pass, which have more to keep. */
static inline bool kern_pair_dim(size_t dim)
{
    return dim % 8 == 0 && dim <= 512;
}

/* Heads whose q, k and v may be half values. */
static inline bool kern_half_heads(size_t head_dim, size_t rope_dims)
{
    return head_dim >= 8 && head_dim <= 128 && (head_dim & (head_dim - 1)) == 0 &&
           rope_dims % 16 == 0;
}
#endif

/* kern_adamw - one AdamW step over n elements (Loshchilov & Hutter, decoupled decay; torch's
 * order): p *= 1 - lr*wd; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= lr/(1-b1^step) * m /
 * (sqrt(v)/sqrt(1-b2^step) + eps).  step counts from 1. */
struct kern_adamw {
    float *p, *m, *v;
    const float *g;
    size_t n, step;
    float lr, b1, b2, eps, wd;
};

/*
 * kern_ns - Newton-Schulz orthogonalisation (Muon: Jordan et al.,
 * kellerjordan.github.io/posts/muon) of `count` matrices of one shape, each in place.
 *
 *   X = X / (|X|_F + eps)
 *   `steps` times:  A = X X^T;  B = b*A + c*(A A);  X = a*X + B X   (on X^T when rows > cols)
 *
 * The formula in fp32, with the same bits for any number of threads and of matrices; not these
 * operations one by one (kernels/cpu/ns.inc.h): on matrices of full rank both agree to 1e-5 in the
 * relative Frobenius norm. Scratch is the backend's. X must be finite, the matrices must not
 * overlap.
 */
struct kern_ns {
    float *const *x; /* host array [count] of matrices [rows][cols] */
    size_t count, rows, cols, steps;
    float a, b, c, eps;
};

#ifndef RUNNER
/*
 * Numbers of an update that are not known yet when it is queued: a step that is played from a tape
 * has other learning rates than the one before, and whether it may change anything is found out on
 * the way. They are doubles in backend memory.
 *
 * kern_dial - base + slope * *at, both rounded in double, then to float; base alone when at is
 * NULL.
 *
 * kern_verdict - what is to be done with gradients, from sums that are in backend memory:
 *
 *   loss = sum of loss[losses];  norm = scale * sqrt(sum of square[squares]), both in ascending
 *   order; clip = min(1, max / (norm + eps)), 1 when max is 0;  go = loss and norm are finite
 */
struct kern_dial {
    const double *at;
    double base, slope;
};
static inline struct kern_dial kern_fixed(double x)
{
    struct kern_dial d = {NULL, x, 0};
    return d;
}
enum { VERDICT_LOSS, VERDICT_NORM, VERDICT_CLIP, VERDICT_GO, VERDICTS };
struct kern_verdict {
    const double *loss, *square;
    size_t losses, squares;
    double scale, max, eps;
    double *out; /* [VERDICTS]; clip is 1 and go 0 when something is not finite */
};
/* The numbers of kern_adamw that change. */
struct kern_adamw_at {
    const double *lr, *step;
};
#endif

struct kern_tape; /* the backend's own: see `record` */

struct kern {
    const char *name; /* "cpu/avx512", "cuda sm_90" */
    void *impl;       /* the backend's own */

    /* Memory of the backend: alloc returns 64-byte aligned zeroed memory or NULL. */
    void *(*alloc)(struct kern *k, size_t bytes);
    void (*free)(struct kern *k, void *p);
    void (*upload)(struct kern *k, void *dst, const void *src, size_t bytes);
    void (*download)(struct kern *k, void *dst, const void *src, size_t bytes);
    void (*zero)(struct kern *k, void *dst, size_t bytes);
    /* sync - wait for everything queued; the first device failure since the last sync, or ERR_OK.
     */
    enum err_code (*sync)(struct kern *k, struct err *e);
    /* close - the backend's part of kern_free, which is what callers use. */
    void (*close)(struct kern *k);

    /* y[rows][dim] = table[ids[row]]; backward: dtable[ids[row]] += dy[row], rows ascending. */
    void (*embed_fwd)(struct kern *k, float *y, const float *table, const uint16_t *ids,
                      size_t rows, size_t dim);
    void (*embed_bwd)(struct kern *k, float *dtable, const float *dy, const uint16_t *ids,
                      size_t rows, size_t dim, size_t vocab);

    /* y[batch][t-from][dim] = the last t-from rows of each sequence of x[batch][t][dim]. Scoring
     * only. */
    void (*take)(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t from,
                 size_t dim);

    void (*combine_fwd)(struct kern *k, const struct kern_combine *a);
    void (*combine_bwd)(struct kern *k, const struct kern_combine *a);

    /*
     * linear_fwd - y[rows][n_out] = x[rows][n_in] W^T.
     * linear_act_fwd - the same followed by LeakyReLU(slope)^2: u = x W^T, f = u > 0 ? 2u :
     * 2*slope^2*u, y = 0.5 * f * u. f [rows][n_out] is stored for the backward (d pre = dy * f),
     * NULL when scoring. slope 0 is ReLU^2. linear_bwd_x - dx[rows][n_in] = dy W, added when `add`.
     * linear_bwd_w - dw[n_out][n_in] += dy^T x.
     */
    void (*linear_fwd)(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                       size_t n_out, size_t n_in);
    void (*linear_act_fwd)(struct kern *k, float *y, float *f, const float *x, const float *w,
                           size_t rows, size_t n_out, size_t n_in, float slope);
    void (*linear_bwd_x)(struct kern *k, float *dx, const float *dy, const float *w, size_t rows,
                         size_t n_out, size_t n_in, bool add);
    void (*linear_bwd_w)(struct kern *k, float *dw, const float *dy, const float *x, size_t rows,
                         size_t n_out, size_t n_in);

    /* y[batch][j][dim] = x[batch][j-1][dim], zeros for j = 0 (SmearGate's look at the token
     * before). shift_bwd: dx[batch][j] = dy[batch][j+1], zeros for the last, added when `add`. */
    void (*shift_fwd)(struct kern *k, float *y, const float *x, size_t batch, size_t t, size_t dim);
    void (*shift_bwd)(struct kern *k, float *dx, const float *dy, size_t batch, size_t t,
                      size_t dim, bool add);
    void (*xsa_fwd)(struct kern *k, const struct kern_xsa *a);
    void (*xsa_bwd)(struct kern *k, const struct kern_xsa *a);
    void (*coef_fwd)(struct kern *k, const struct kern_coef *a);
    void (*coef_bwd)(struct kern *k, const struct kern_coef *a);

    /* dx = dy * f, elementwise over n; dx may be dy. */
    void (*mul)(struct kern *k, float *dx, const float *dy, const float *f, size_t n);
    /* y += x, elementwise over n. */
    void (*add)(struct kern *k, float *y, const float *x, size_t n);

    void (*qk_fwd)(struct kern *k, const struct kern_qk *a);
    void (*qk_bwd)(struct kern *k, const struct kern_qk *a);
    void (*attn_fwd)(struct kern *k, const struct kern_attn *a);
    void (*attn_bwd)(struct kern *k, const struct kern_attn *a);
    void (*head_fwd)(struct kern *k, const struct kern_head *a);
    void (*head_bwd)(struct kern *k, const struct kern_head *a);
    /* l[rows][vocab] as defined at kern_head; for tests, probes and small vocabularies. */
    void (*head_logits)(struct kern *k, float *l, const float *h, const float *w, size_t rows,
                        size_t dim, size_t vocab, float cap);

    void (*slot_fwd)(struct kern *k, const struct kern_slot *a);
    void (*slot_bwd)(struct kern *k, const struct kern_slot *a);

    /* For optimisers (trainer/). gemm: c[m][n] = alpha * op(a) op(b) + beta * c with beta 0 or 1;
     * op(a) is [m][kk], stored [kk][m] when ta; op(b) is [kk][n], stored [n][kk] when tb. The
     * product is rounded first (alpha * sum), then added. c must not overlap a or b; a may be b,
     * and a a^T or a^T a with beta 0 then costs half. */
    void (*gemm)(struct kern *k, float *c, const float *a, const float *b, size_t m, size_t n,
                 size_t kk, bool ta, bool tb, float alpha, float beta);
    void (*adamw)(struct kern *k, const struct kern_adamw *a);
    /* y = a*y + b*x elementwise over n, as fma(b, x, a*y): averaging, momentum, decay (x may be y).
     */
    void (*axpby)(struct kern *k, float *y, const float *x, size_t n, float a, float b);
    /* Sum of squares in double: blocks of 4096 elements by 16 double partials (see above), blocks
     * ascending. Waits for the result. NaN and infinity travel through. */
    double (*sumsq)(struct kern *k, const float *x, size_t n);
    /* rows of x[rows][dim] divided by max(their L2 norm, eps), in place (MuonEq-R, arXiv
     * 2603.28254). */
    void (*row_normalize)(struct kern *k, float *x, size_t rows, size_t dim, float eps);
    void (*newton_schulz)(struct kern *k, const struct kern_ns *a);
    /* x rounded to the nearest bf16 value in place, ties to even; stored as fp32. */
    void (*round_bf16)(struct kern *k, float *x, size_t n);
    /* Weights as they will be after rounding to a few bits, for training with them (late QAT of
     * #549): y = rint(x/s) * s, ties to even, s = max(max|row|, floor)/levels and at least 2^-24,
     * the smallest fp16. No integer exceeds levels (the reference's clamp to -levels-1..levels
     * never acts). x, y [rows][dim]; y may be x. levels at most 2^22. */
    void (*fake_quant)(struct kern *k, float *y, const float *x, size_t rows, size_t dim,
                       float levels, float floor);

#ifndef RUNNER /* which does not train */
    /*
     * For steps of training that do not wait for the device. All sums are in backend memory; what
     * they come to is read once per step, with one download.
     *
     * copy - dst = src; both are backend memory and do not overlap.
     * sum_into - *sum = x[0] + x[1] + ... + x[n-1] in double; the CPU goes up one by one from 0.
     * sumsq_into - *sum = what sumsq returns, the same bits.
     */
    void (*copy)(struct kern *k, void *dst, const void *src, size_t bytes);
    void (*sum_into)(struct kern *k, double *sum, const float *x, size_t n);
    void (*sumsq_into)(struct kern *k, double *sum, const float *x, size_t n);

    /*
     * The rest is NULL where there is nothing to gain, as on the CPU; those of a layer and
     * those of a tape are there together or not at all.
     *
     * linear_train, linear_bwd - see kern_linear.
     *
     * combine_half, combine_bwd_half - combine_fwd and combine_bwd with the marks of kern_combine,
     *          which may be none; kern_half_dim(dim). y is not x0.
     * combine_pair, combine_bwd_pair - two combines of one shape in one pass, kern_pair_dim(dim):
     *          `first`, which has x1 and no norm, and `then`, whose x0 is first's y (then->x0 and
     *          then->dx0 are not looked at). first->y NULL: nobody else reads the sum, and it is
     *          not stored. first->dy is what others have made of its gradient, or NULL; it is NULL
     *          where there is first->c0. No array that is written is one that is read, but
     *          first->dx0 may be first->dy, then->dy or, with add0, first->dx1.
     * embed_half, embed_bwd_half - embed_fwd and embed_bwd, y and dy being half values; dim is
     *          even.
     * qk_half, qk_bwd_half - qk_fwd and qk_bwd, x, y, dy and dx being half values;
     *          kern_half_heads. No pointers are equal.
     * attn_xsa_fwd, attn_xsa_bwd - see kern_attn_xsa.
     *
     * head_train - head_fwd and head_bwd in one, which needs the logits once instead of twice. h16:
     *          h is a half value; dh16: dh is.
     *
     * verdict - see kern_verdict.
     * blend - axpby with dials; nothing when *go is 0 (go NULL: always).
     * adamw_at - adamw without its lr and step; nothing when *go is 0.
     * joins - these operations know what one product for q, k and v needs: kern_linear's `part`,
     *          and of rows [q|k|v] kern_qk's `row` and what is called `joined`.
     *
     * hold - the n floats at w, weights of linear layers among them, will not change before the
     * next call: a backend that computes with another type keeps them in that type. hold(k, NULL,
     * 0) before they change.
     */
    void (*linear_train)(struct kern *k, const struct kern_linear *a);
    void (*linear_bwd)(struct kern *k, const struct kern_linear *a);
    void (*combine_half)(struct kern *k, const struct kern_combine *a);
    void (*combine_bwd_half)(struct kern *k, const struct kern_combine *a);
    void (*combine_pair)(struct kern *k, const struct kern_combine *first,
                         const struct kern_combine *then);
    void (*combine_bwd_pair)(struct kern *k, const struct kern_combine *first,
                             const struct kern_combine *then);
    void (*embed_half)(struct kern *k, void *y, const float *table, const uint16_t *ids,
                       size_t rows, size_t dim);
    void (*embed_bwd_half)(struct kern *k, float *dtable, const void *dy, const uint16_t *ids,
                           size_t rows, size_t dim, size_t vocab);
    void (*qk_half)(struct kern *k, const struct kern_qk *a);
    void (*qk_bwd_half)(struct kern *k, const struct kern_qk *a);
    void (*attn_xsa_fwd)(struct kern *k, const struct kern_attn_xsa *a);
    void (*attn_xsa_bwd)(struct kern *k, const struct kern_attn_xsa *a);
    void (*head_train)(struct kern *k, const struct kern_head *a, bool h16, bool dh16);
    void (*verdict)(struct kern *k, const struct kern_verdict *v);
    void (*blend)(struct kern *k, float *y, const float *x, size_t n, const struct kern_dial *a,
                  const struct kern_dial *b, const double *go);
    void (*adamw_at)(struct kern *k, const struct kern_adamw *a, const struct kern_adamw_at *at,
                     const double *go);
    bool joins;
    void (*hold)(struct kern *k, const float *w, size_t n);

    /*
     * A tape is a sequence of operations that are queued again and again with the same arguments,
     * at the price of queuing one.
     *
     * record - from here on operations are noted and not carried out. False: this backend cannot
     *          (any more); nothing has changed then. The same operations with the same sizes must
     *          have been carried out before, so that everything that is set up once is there; lists
     *          of pointers (newton_schulz) the same lists. Not to be recorded: alloc, free, upload,
     *          download, sync, sumsq. What is held at the end must be what was held before.
     * recorded - ends it. NULL when the sequence cannot be played: carry it out as usual.
     * play - queue the whole of a tape. False when it does not fit any more, because weights were
     *        held before it was recorded and now are not, or the other way round: nothing is
     * queued. forget - free a tape; NULL is allowed. Before the memory that it works on is freed.
     */
    bool (*record)(struct kern *k);
    struct kern_tape *(*recorded)(struct kern *k);
    bool (*play)(struct kern *k, const struct kern_tape *tape);
    void (*forget)(struct kern *k, struct kern_tape *tape);

    size_t memory; /* bytes that a card has for itself; 0: the backend lives in the host's */
#endif
};

/*
 * kern_cpu - the CPU backend with `threads` threads (0: as many as the process may run on).
 *
 * The instruction set is the best that this machine has, or the one named by KERN_ISA in the
 * environment (portable, avx2, avx512); naming one that the machine lacks is ERR_USAGE.
 * Release with kern_free. Fails: ERR_RESOURCE (no memory, no threads). A struct kern is used by one
 * thread at a time.
 */
enum err_code kern_cpu(struct kern **out, size_t threads, struct err *e);

/* kern_cuda - the CUDA backend on `device`, or on the only one that can be seen; ERR_RESOURCE with
 * the reason where there is none. */
enum err_code kern_cuda(struct kern **out, int device, struct err *e);
/* kern_cuda_stream - the cudaStream_t on which a backend of kern_cuda queues everything, for who
 * puts something behind it. Only in a build with CUDA. */
void *kern_cuda_stream(struct kern *k);

void kern_free(struct kern *k);

/*
 * Tables of cos and sin for RoPE, computed in a fixed way on the host (own elementary functions, so
 * that every build has the same bits): inv_freq_i = fp32(base^(-2i/rope_dims)), angle = fp32(t *
 * inv_freq_i), cos/sin of that fp32 angle rounded to fp32. Shapes [positions][rope_dims/2].
 */
void kern_rope_tables(float *cos, float *sin, size_t positions, size_t rope_dims, double base);

/* Own double-precision elementary functions behind the tables and schedules; error below 4 ulp for
 * the arguments used (|x| < 1e5 for sin and cos). Only + - * / on doubles, in a fixed order. */
double kern_exp(double x);
double kern_log(double x);
double kern_sin(double x);
double kern_cos(double x);

#endif
