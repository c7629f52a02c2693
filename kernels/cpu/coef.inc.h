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
/* Sixteen values of w, ones where there is no w. */
static v16 coef_w(const struct kern_coef *a, size_t i, size_t n)
{
    return a->w ? vec_get(a->w + i, n) : v16_set1(1.0f);
}

/* y += d where y is wanted. */
static void coef_add(float *y, v16 d, size_t i, size_t n)
{
    if (y)
        vec_put(y + i, v16_add(vec_get(y + i, n), d), n);
}

static void coef_bwd(struct kern *k, const struct kern_coef *a)
{
    float p0 = a->kind == COEF_SCALE ? coef_scalar(a->p0) : 1.0f;
    float p1 = a->kind == COEF_SCALE ? coef_scalar(a->p1) : 1.0f;
    v16 one = v16_set1(1.0f), sum = v16_zero(), s = v16_set1(a->f * p0 * p1);
    (void)k;
    for (size_t i = 0; i < a->dim; i += 16) {
        size_t n = vec_lanes(i, a->dim);
        v16 d0 = vec_get(a->dc0 + i, n), w = coef_w(a, i, n);
        if (a->kind == COEF_SCALE) {
            sum = v16_fma(d0, w, sum);
            coef_add(a->dw, v16_mul(s, d0), i, n);
            continue;
        }
        v16 d1 = vec_get(a->dc1 + i, n);
        if (a->kind == COEF_LERP) {
            sum = v16_add(sum, v16_sub(d0, d1));
            continue;
        }
        v16 g = vec_get(a->c0 + i, n), rest = v16_sub(one, g);
        coef_add(a->dp0, v16_mul(v16_sub(d0, v16_mul(d1, w)), v16_mul(g, rest)), i, n);
        coef_add(a->dw, v16_mul(d1, rest), i, n);
    }
    if (a->kind == COEF_GATE)
        return;
    float f = a->kind == COEF_SCALE ? a->f : 1.0f, total = v16_sum(sum);
    if (a->dp0)
        *a->dp0 += f * p1 * total;
    if (a->dp1)
        *a->dp1 += f * p0 * total;
}
#endif
