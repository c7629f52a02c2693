/*
 * coef.inc.h - coefficient vectors of a combine (kern_coef). They are as long as a row is wide, so
 * one thread does it.
 *
 *   COEF_SCALE  s = (f * p0) * p1;  c0 = s * w
 *   COEF_GATE   c0 = 1 / (1 + exp(-p0)), c1 = (1 - c0) * w
 *
 * Backward, with every sum over the vector by 16 partial sums and halving:
 *
 *   COEF_SCALE  S = sum of dc0*w;  dp0 += (f*p1) S, dp1 += (f*p0) S, dw += s*dc0
 *   COEF_LERP   dp0 += sum of (dc0 - dc1)
 *   COEF_GATE   dp0 += (dc0 - dc1*w) * (c0 * (1 - c0)), dw += dc1 * (1 - c0)
 */

static float coef_scalar(const float *p)
{
    return p ? *p : 1.0f;
}

static float coef_sigmoid(float x)
{
    static const float none[16];
    float e[16] = {0 - x}, part[16] = {0};
    vec_exp(e, 0, 1, none, part, 1);
    return 1.0f / (1.0f + *e);
}

static void coef_fwd(struct kern *k, const struct kern_coef *a)
{
    float p0 = coef_scalar(a->p0), c0 = a->kind == COEF_SCALE ? a->f * p0 * coef_scalar(a->p1) : p0;
    (void)k;
    for (size_t i = 0; i < a->dim; i++) {
        float w = a->w ? a->w[i] : 1.0f;
        if (a->kind == COEF_GATE)
            c0 = coef_sigmoid(a->p0[i]);
        a->c0[i] = a->kind == COEF_SCALE ? c0 * w : c0;
        if (a->kind != COEF_SCALE)
            a->c1[i] = (1.0f - c0) * w;
    }
}

#ifndef KERN_FORWARD_ONLY
/* y += d where y is wanted. */
static void coef_add(float *y, const float *d, size_t n)
{
    if (y)
        vec_add(y, y, d, n);
}

static void coef_bwd(struct kern *k, const struct kern_coef *a)
{
    const float minus = -1, *d0 = a->dc0, *d1 = a->dc1, *w = a->w;
    size_t n = a->dim;
    if (!cpu_reserve(k->impl, 3 * n, 0))
        return;
    float *one = cpu_shared(k->impl), *t = one + n, *rest = t + n, f = 1, p0 = 1, p1 = 1;
    for (size_t i = 0; i < n; i++)
        one[i] = 1;
    w = w ? w : one;
    if (a->kind == COEF_GATE) {
        vec_fma(rest, a->c0, &minus, one, n, true);
        vec_mul(t, d1, rest, n);
        coef_add(a->dw, t, n);
        vec_mul(rest, a->c0, rest, n);
        vec_mul(t, d1, w, n);
        vec_fma(t, t, &minus, d0, n, true);
        vec_mul(t, t, rest, n);
        coef_add(a->dp0, t, n);
        return;
    }
    if (a->kind == COEF_SCALE) {
        f = a->f;
        p0 = coef_scalar(a->p0);
        p1 = coef_scalar(a->p1);
        vec_scale(t, d0, f * p0 * p1, n);
        coef_add(a->dw, t, n);
    } else {
        vec_fma(t, d1, &minus, d0, n, true);
        d0 = t;
    }
    float total = vec_dot(d0, w, n);
    if (a->dp0)
        *a->dp0 += f * p1 * total;
    if (a->dp1)
        *a->dp1 += f * p0 * total;
}
#endif
