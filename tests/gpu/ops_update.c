/*
 * ops_update.c - an update whose numbers the device reads when it runs (kern_dial, kern_verdict):
 * the CPU's results with the numbers known before, and the tested backend's own bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/ops.h"

enum { LR, STEP, MOMENTUM, NUMBERS };
static const double numbers[NUMBERS] = {[LR] = 0.0123, [STEP] = 17, [MOMENTUM] = 0.9375};

/* A double in the tested backend's memory, for the length of the run. */
static double *on_device(struct kern *k, const double *x, size_t n)
{
    double *p = k->alloc(k, n * sizeof *p);
    k->upload(k, p, x, n * sizeof *x);
    return p;
}

static bool same(struct kern *k, const float *a, const float *b, size_t n)
{
    float *x = malloc(2 * n * sizeof *x);
    if (!x)
        return false;
    k->download(k, x, a, n * sizeof *x);
    k->download(k, x + n, b, n * sizeof *x);
    bool equal = memcmp(x, x + n, n * sizeof *x) == 0;
    free(x);
    return equal;
}

static void blend(struct ops *o, size_t n, const double *at, const double *stop)
{
    struct arr y = ops_input(o, n, 1), x = ops_input(o, n, 1), z = ops_input(o, n, 1);
    const struct kern_dial a = {at + LR, 1, -0.1}, b = {at + MOMENTUM, 0, -1.7};
    const struct kern_dial half = {NULL, 0.5, 0}, none = {NULL, 0, 0};
    float fa = (float)(1 + -0.1 * numbers[LR]), fb = (float)(0 + -1.7 * numbers[MOMENTUM]);
    struct kern *t = o->k[TESTED];
    t->copy(t, z.p[TESTED], y.p[TESTED], n * sizeof(float));
    t->axpby(t, z.p[TESTED], x.p[TESTED], n, fa, fb);
    t->axpby(t, z.p[TESTED], z.p[TESTED], n, 0.5f, 0);
    BOTH(o, {
        if (s == TESTED) {
            k->blend(k, F(y), F(x), n, &a, &b, NULL);
            k->blend(k, F(y), F(x), n, &half, &a, stop);
            k->blend(k, F(y), F(y), n, &half, &none, at + LR); /* not 0: go */
        } else {
            k->axpby(k, F(y), F(x), n, fa, fb);
            k->axpby(k, F(y), F(y), n, 0.5f, 0);
        }
    })
    ops_check(o, "y", y, 1e-6);
    ops_verdict(o, "the bits of axpby", same(t, y.p[TESTED], z.p[TESTED], n));
}

static void adamw(struct ops *o, size_t n, const double *at, const double *stop)
{
    struct arr p = ops_input(o, n, 1), m = ops_input(o, n, 0.1f), g = ops_input(o, n, 1);
    struct arr v = ops_input(o, n, 1), q[3];
    struct kern *t = o->k[TESTED];
    BOTH(o, { k->mul(k, F(v), F(v), F(v), n); })
    const struct arr from[] = {p, m, v};
    for (int i = 0; i < 3; i++) {
        q[i] = ops_input(o, n, 1);
        t->copy(t, q[i].p[TESTED], from[i].p[TESTED], n * sizeof(float));
    }
    struct kern_adamw a = {.n = n, .b1 = 0.9f, .b2 = 0.95f, .eps = 1e-8f, .wd = 0.1f};
    const struct kern_adamw_at later = {at + LR, at + STEP};
    BOTH(o, {
        a.p = F(p);
        a.m = F(m);
        a.v = F(v);
        a.g = F(g);
        a.lr = s == TESTED ? 0 : (float)numbers[LR];
        a.step = s == TESTED ? 0 : (size_t)numbers[STEP];
        if (s == TESTED) {
            k->adamw_at(k, &a, &later, NULL);
            k->adamw_at(k, &a, &later, stop);
        } else {
            k->adamw(k, &a);
        }
    })
    a.lr = (float)numbers[LR];
    a.step = (size_t)numbers[STEP];
    a.p = q[0].p[TESTED];
    a.m = q[1].p[TESTED];
    a.v = q[2].p[TESTED];
    t->adamw(t, &a);
    ops_check(o, "p", p, 1e-5);
    ops_check(o, "m", m, 1e-5);
    ops_check(o, "v", v, 1e-5);
    for (int i = 0; i < 3; i++)
        ops_verdict(o, "the bits of adamw", same(t, from[i].p[TESTED], q[i].p[TESTED], n));
}

/* Sums in ascending order, so the CPU's bits; more of them than a block has threads. */
static void verdict(struct ops *o, const char *name, size_t losses, size_t squares, double max,
                    double last)
{
    struct kern *t = o->k[TESTED];
    size_t n = losses + squares;
    double *x = calloc(n + 1, sizeof *x), out[VERDICTS], loss = 0, norm = 0;
    if (!x)
        return;
    for (size_t i = 0; i < n; i++)
        x[i] = 1 / (1.0 + (double)(i * 37 % 101));
    if (squares)
        x[n - 1] += last;
    for (size_t i = 0; i < losses; i++)
        loss += x[i];
    for (size_t i = 0; i < squares; i++)
        norm += x[losses + i];
    norm = 0.5 * sqrt(norm);
    double *in = on_device(t, x, n + 1), *to = on_device(t, x, VERDICTS);
    const struct kern_verdict v = {in, in + losses, losses, squares, 0.5, max, 1e-6, to};
    t->verdict(t, &v);
    t->download(t, out, to, sizeof out);
    bool finite = isfinite(norm), clips = finite && max > 0 && max / (norm + 1e-6) < 1;
    ops_verdict(o, name,
                out[VERDICT_LOSS] == loss && (finite ? out[VERDICT_NORM] == norm : true) &&
                    out[VERDICT_CLIP] == (clips ? max / (norm + 1e-6) : 1) &&
                    out[VERDICT_GO] == (finite ? 1 : 0));
    t->free(t, in);
    t->free(t, to);
    free(x);
}

void ops_updates(struct ops *o, bool small)
{
    struct kern *t = o->k[TESTED];
    const double zero = 0;
    size_t n = small ? 1001 : 1000003;
    if (!t->blend)
        return;
    double *at = on_device(t, numbers, NUMBERS), *stop = on_device(t, &zero, 1);
    ops_case(o, "blend: numbers that come later");
    blend(o, n, at, stop);
    ops_case(o, "adamw: numbers that come later");
    adamw(o, n, at, stop);
    ops_case(o, "verdict");
    verdict(o, "gradients within bounds", 8, 300, 100, 0);
    verdict(o, "gradients to be clipped", 8, 700, 0.25, 0);
    verdict(o, "no clipping", 3, 256, 0, 0);
    verdict(o, "a group: no losses", 0, 1, 0.1, 0);
    verdict(o, "a norm that is not finite", 8, 300, 1, HUGE_VAL);
    verdict(o, "a norm that is no number", 8, 300, 1, NAN);
    t->free(t, at);
    t->free(t, stop);
}
