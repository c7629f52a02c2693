/* apart.c - see apart.h. */
#include "tests/unit/apart.h"

#include <stdlib.h>

/* Added to an address of user space, which ends below 2^47, it gives one that no processor accepts.
 */
static const uintptr_t APART = (uintptr_t)1 << 46;

static void *out(void *p)
{
    return p ? (void *)((uintptr_t)p + APART) : NULL;
}

static void *in(const void *p)
{
    return p ? (void *)((uintptr_t)p - APART) : NULL;
}

static struct kern *cpu(struct kern *k)
{
    return k->impl;
}

/* ---- memory ---- */

static void *apart_alloc(struct kern *k, size_t bytes)
{
    return out(cpu(k)->alloc(cpu(k), bytes));
}

static void apart_free(struct kern *k, void *p)
{
    cpu(k)->free(cpu(k), in(p));
}

static void apart_upload(struct kern *k, void *dst, const void *src, size_t bytes)
{
    cpu(k)->upload(cpu(k), in(dst), src, bytes);
}

static void apart_download(struct kern *k, void *dst, const void *src, size_t bytes)
{
    cpu(k)->download(cpu(k), dst, in(src), bytes);
}

static void apart_zero(struct kern *k, void *dst, size_t bytes)
{
    cpu(k)->zero(cpu(k), in(dst), bytes);
}

static enum err_code apart_sync(struct kern *k, struct err *e)
{
    return cpu(k)->sync(cpu(k), e);
}

static void apart_close(struct kern *k)
{
    kern_free(cpu(k));
    free(k);
}

/* ---- operations that take their arguments one by one ---- */

static void apart_embed_fwd(struct kern *k, float *y, const float *table, const uint16_t *ids,
                            size_t rows, size_t dim)
{
    cpu(k)->embed_fwd(cpu(k), in(y), in(table), in(ids), rows, dim);
}

static void apart_embed_bwd(struct kern *k, float *dtable, const float *dy, const uint16_t *ids,
                            size_t rows, size_t dim, size_t vocab)
{
    cpu(k)->embed_bwd(cpu(k), in(dtable), in(dy), in(ids), rows, dim, vocab);
}

static void apart_take(struct kern *k, float *y, const float *x, size_t batch, size_t t,
                       size_t from, size_t dim)
{
    cpu(k)->take(cpu(k), in(y), in(x), batch, t, from, dim);
}

static void apart_linear_fwd(struct kern *k, float *y, const float *x, const float *w, size_t rows,
                             size_t n_out, size_t n_in)
{
    cpu(k)->linear_fwd(cpu(k), in(y), in(x), in(w), rows, n_out, n_in);
}

static void apart_linear_act_fwd(struct kern *k, float *y, float *f, const float *x, const float *w,
                                 size_t rows, size_t n_out, size_t n_in, float slope)
{
    cpu(k)->linear_act_fwd(cpu(k), in(y), in(f), in(x), in(w), rows, n_out, n_in, slope);
}

static void apart_linear_bwd_x(struct kern *k, float *dx, const float *dy, const float *w,
                               size_t rows, size_t n_out, size_t n_in, bool add)
{
    cpu(k)->linear_bwd_x(cpu(k), in(dx), in(dy), in(w), rows, n_out, n_in, add);
}

static void apart_linear_bwd_w(struct kern *k, float *dw, const float *dy, const float *x,
                               size_t rows, size_t n_out, size_t n_in)
{
    cpu(k)->linear_bwd_w(cpu(k), in(dw), in(dy), in(x), rows, n_out, n_in);
}

static void apart_shift_fwd(struct kern *k, float *y, const float *x, size_t batch, size_t t,
                            size_t dim)
{
    cpu(k)->shift_fwd(cpu(k), in(y), in(x), batch, t, dim);
}

static void apart_shift_bwd(struct kern *k, float *dx, const float *dy, size_t batch, size_t t,
                            size_t dim, bool add)
{
    cpu(k)->shift_bwd(cpu(k), in(dx), in(dy), batch, t, dim, add);
}

static void apart_mul(struct kern *k, float *dx, const float *dy, const float *f, size_t n)
{
    cpu(k)->mul(cpu(k), in(dx), in(dy), in(f), n);
}

static void apart_add(struct kern *k, float *y, const float *x, size_t n)
{
    cpu(k)->add(cpu(k), in(y), in(x), n);
}

static void apart_head_logits(struct kern *k, float *l, const float *h, const float *w, size_t rows,
                              size_t dim, size_t vocab, float cap)
{
    cpu(k)->head_logits(cpu(k), in(l), in(h), in(w), rows, dim, vocab, cap);
}

static void apart_gemm(struct kern *k, float *c, const float *a, const float *b, size_t m, size_t n,
                       size_t kk, bool ta, bool tb, float alpha, float beta)
{
    cpu(k)->gemm(cpu(k), in(c), in(a), in(b), m, n, kk, ta, tb, alpha, beta);
}

static void apart_axpby(struct kern *k, float *y, const float *x, size_t n, float a, float b)
{
    cpu(k)->axpby(cpu(k), in(y), in(x), n, a, b);
}

static void apart_row_normalize(struct kern *k, float *x, size_t rows, size_t dim, float eps)
{
    cpu(k)->row_normalize(cpu(k), in(x), rows, dim, eps);
}

static void apart_round_bf16(struct kern *k, float *x, size_t n)
{
    cpu(k)->round_bf16(cpu(k), in(x), n);
}

static void apart_fake_quant(struct kern *k, float *y, const float *x, size_t rows, size_t dim,
                             float levels, float floor)
{
    cpu(k)->fake_quant(cpu(k), in(y), in(x), rows, dim, levels, floor);
}

/* ---- operations that take a struct: a copy whose pointers are the CPU's ---- */

static struct kern_combine combine_in(const struct kern_combine *a)
{
    struct kern_combine c = *a;
    c.y = in(a->y);
    c.n = in(a->n);
    c.rstd = in(a->rstd);
    c.x0 = in(a->x0);
    c.x1 = in(a->x1);
    c.c0 = in(a->c0);
    c.c1 = in(a->c1);
    c.dy = in(a->dy);
    c.dn = in(a->dn);
    c.dx0 = in(a->dx0);
    c.dx1 = in(a->dx1);
    c.dc0 = in(a->dc0);
    c.dc1 = in(a->dc1);
    return c;
}

static void apart_combine_fwd(struct kern *k, const struct kern_combine *a)
{
    const struct kern_combine c = combine_in(a);
    cpu(k)->combine_fwd(cpu(k), &c);
}

static void apart_combine_bwd(struct kern *k, const struct kern_combine *a)
{
    const struct kern_combine c = combine_in(a);
    cpu(k)->combine_bwd(cpu(k), &c);
}

static struct kern_xsa xsa_in(const struct kern_xsa *a)
{
    struct kern_xsa c = *a;
    c.y = in(a->y);
    c.o = in(a->o);
    c.v = in(a->v);
    c.dy = in(a->dy);
    c.do_ = in(a->do_);
    c.dv = in(a->dv);
    return c;
}

static void apart_xsa_fwd(struct kern *k, const struct kern_xsa *a)
{
    const struct kern_xsa c = xsa_in(a);
    cpu(k)->xsa_fwd(cpu(k), &c);
}

static void apart_xsa_bwd(struct kern *k, const struct kern_xsa *a)
{
    const struct kern_xsa c = xsa_in(a);
    cpu(k)->xsa_bwd(cpu(k), &c);
}

static struct kern_coef coef_in(const struct kern_coef *a)
{
    struct kern_coef c = *a;
    c.c0 = in(a->c0);
    c.c1 = in(a->c1);
    c.p0 = in(a->p0);
    c.p1 = in(a->p1);
    c.w = in(a->w);
    c.dc0 = in(a->dc0);
    c.dc1 = in(a->dc1);
    c.dp0 = in(a->dp0);
    c.dp1 = in(a->dp1);
    c.dw = in(a->dw);
    return c;
}

static void apart_coef_fwd(struct kern *k, const struct kern_coef *a)
{
    const struct kern_coef c = coef_in(a);
    cpu(k)->coef_fwd(cpu(k), &c);
}

static void apart_coef_bwd(struct kern *k, const struct kern_coef *a)
{
    const struct kern_coef c = coef_in(a);
    cpu(k)->coef_bwd(cpu(k), &c);
}

static struct kern_qk qk_in(const struct kern_qk *a)
{
    struct kern_qk c = *a;
    c.y = in(a->y);
    c.rstd = in(a->rstd);
    c.x = in(a->x);
    c.gain = in(a->gain);
    c.cos = in(a->cos);
    c.sin = in(a->sin);
    c.dy = in(a->dy);
    c.dx = in(a->dx);
    c.dgain = in(a->dgain);
    return c;
}

static void apart_qk_fwd(struct kern *k, const struct kern_qk *a)
{
    const struct kern_qk c = qk_in(a);
    cpu(k)->qk_fwd(cpu(k), &c);
}

static void apart_qk_bwd(struct kern *k, const struct kern_qk *a)
{
    const struct kern_qk c = qk_in(a);
    cpu(k)->qk_bwd(cpu(k), &c);
}

static struct kern_attn attn_in(const struct kern_attn *a)
{
    struct kern_attn c = *a;
    c.o = in(a->o);
    c.lse = in(a->lse);
    c.q = in(a->q);
    c.k = in(a->k);
    c.v = in(a->v);
    c.do_ = in(a->do_);
    c.dq = in(a->dq);
    c.dk = in(a->dk);
    c.dv = in(a->dv);
    return c;
}

static void apart_attn_fwd(struct kern *k, const struct kern_attn *a)
{
    const struct kern_attn c = attn_in(a);
    cpu(k)->attn_fwd(cpu(k), &c);
}

static void apart_attn_bwd(struct kern *k, const struct kern_attn *a)
{
    const struct kern_attn c = attn_in(a);
    cpu(k)->attn_bwd(cpu(k), &c);
}

static struct kern_head head_in(const struct kern_head *a)
{
    struct kern_head c = *a;
    c.nll = in(a->nll);
    c.lse = in(a->lse);
    c.h = in(a->h);
    c.w = in(a->w);
    c.target = in(a->target);
    c.dh = in(a->dh);
    c.dw = in(a->dw);
    return c;
}

static void apart_head_fwd(struct kern *k, const struct kern_head *a)
{
    const struct kern_head c = head_in(a);
    cpu(k)->head_fwd(cpu(k), &c);
}

static void apart_head_bwd(struct kern *k, const struct kern_head *a)
{
    const struct kern_head c = head_in(a);
    cpu(k)->head_bwd(cpu(k), &c);
}

static struct kern_slot slot_in(const struct kern_slot *a)
{
    struct kern_slot c = *a;
    c.z = in(a->z);
    c.u = in(a->u);
    c.target = in(a->target);
    c.nll = in(a->nll);
    c.du = in(a->du);
    return c;
}

static void apart_slot_fwd(struct kern *k, const struct kern_slot *a)
{
    const struct kern_slot c = slot_in(a);
    cpu(k)->slot_fwd(cpu(k), &c);
}

static void apart_slot_bwd(struct kern *k, const struct kern_slot *a)
{
    const struct kern_slot c = slot_in(a);
    cpu(k)->slot_bwd(cpu(k), &c);
}

static struct kern_adamw adamw_in(const struct kern_adamw *a)
{
    struct kern_adamw c = *a;
    c.p = in(a->p);
    c.m = in(a->m);
    c.v = in(a->v);
    c.g = in(a->g);
    return c;
}

static void apart_adamw(struct kern *k, const struct kern_adamw *a)
{
    const struct kern_adamw c = adamw_in(a);
    cpu(k)->adamw(cpu(k), &c);
}

static double apart_sumsq(struct kern *k, const float *x, size_t n)
{
    return cpu(k)->sumsq(cpu(k), in(x), n);
}

static void apart_copy(struct kern *k, void *dst, const void *src, size_t bytes)
{
    cpu(k)->copy(cpu(k), in(dst), in(src), bytes);
}

static void apart_sum_into(struct kern *k, double *sum, const float *x, size_t n)
{
    cpu(k)->sum_into(cpu(k), in(sum), in(x), n);
}

static void apart_sumsq_into(struct kern *k, double *sum, const float *x, size_t n)
{
    cpu(k)->sumsq_into(cpu(k), in(sum), in(x), n);
}

static void apart_newton_schulz(struct kern *k, const struct kern_ns *a)
{
    struct kern_ns c = *a;
    float **x = malloc(a->count * sizeof *x);
    if (!x)
        abort();
    for (size_t i = 0; i < a->count; i++)
        x[i] = in(a->x[i]);
    c.x = x;
    cpu(k)->newton_schulz(cpu(k), &c);
    free(x);
}

enum err_code kern_apart(struct kern **k, size_t threads, struct err *e)
{
    static const struct kern table = {
        .name = "apart",
        .alloc = apart_alloc,
        .free = apart_free,
        .upload = apart_upload,
        .download = apart_download,
        .zero = apart_zero,
        .sync = apart_sync,
        .close = apart_close,
        .sumsq = apart_sumsq,
        .copy = apart_copy,
        .sum_into = apart_sum_into,
        .sumsq_into = apart_sumsq_into,
        .newton_schulz = apart_newton_schulz,
        .embed_fwd = apart_embed_fwd,
        .embed_bwd = apart_embed_bwd,
        .take = apart_take,
        .linear_fwd = apart_linear_fwd,
        .linear_act_fwd = apart_linear_act_fwd,
        .linear_bwd_x = apart_linear_bwd_x,
        .linear_bwd_w = apart_linear_bwd_w,
        .shift_fwd = apart_shift_fwd,
        .shift_bwd = apart_shift_bwd,
        .mul = apart_mul,
        .add = apart_add,
        .head_logits = apart_head_logits,
        .gemm = apart_gemm,
        .axpby = apart_axpby,
        .row_normalize = apart_row_normalize,
        .round_bf16 = apart_round_bf16,
        .fake_quant = apart_fake_quant,
        .combine_fwd = apart_combine_fwd,
        .combine_bwd = apart_combine_bwd,
        .xsa_fwd = apart_xsa_fwd,
        .xsa_bwd = apart_xsa_bwd,
        .coef_fwd = apart_coef_fwd,
        .coef_bwd = apart_coef_bwd,
        .qk_fwd = apart_qk_fwd,
        .qk_bwd = apart_qk_bwd,
        .attn_fwd = apart_attn_fwd,
        .attn_bwd = apart_attn_bwd,
        .head_fwd = apart_head_fwd,
        .head_bwd = apart_head_bwd,
        .slot_fwd = apart_slot_fwd,
        .slot_bwd = apart_slot_bwd,
        .adamw = apart_adamw,
    };
    struct kern *inner;
    enum err_code rc = kern_cpu(&inner, threads, e);
    *k = NULL;
    if (rc)
        return rc;
    if (!(*k = malloc(sizeof **k))) {
        kern_free(inner);
        return err_nomem(e, "apart", sizeof **k);
    }
    **k = table;
    (*k)->impl = inner;
    return ERR_OK;
}
