/*
 * mlp90_open.cu - are the products around an activation done by mlp90.cu? Asked for by the
 * environment, and where its results on a small task are those of the other way.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#ifdef CUDA_HAS_SM90A
/* Two blocks of rows, the second in part; three tiles of columns. */
enum { LEN = 150, HIDDEN = 384, WIDEST = 512 };
enum { NARROW = LEN * WIDEST, WIDE = LEN * HIDDEN, WEIGHTS = HIDDEN * WIDEST };

/* Half values one behind the other: x and the gradient of what the second layer gives, then
 * results: u, y, the gradient before the activation. */
enum { AT_X = 0, AT_DY = AT_X + NARROW, INPUTS = AT_DY + NARROW };
enum { AT_U = INPUTS, AT_Y = AT_U + WIDE, AT_G = AT_Y + WIDE, HALVES = AT_G + WIDE };
static const int results[] = {AT_U, AT_Y, AT_G, HALVES};

/* Both round the same operands, and their results; the other way rounds the gradient of y too. */
static const double NOISE = 1e-2;

/* Both layers of an MLP of that width, as a step of training has them; w: two matrices, and room
 * for the gradient of one. */
static void layers(struct kern *k, bf16 *x, float *w, size_t width)
{
    struct kern_linear up = {}, down = {};
    up.x = x + AT_X;
    up.w = w;
    up.rows = down.rows = LEN;
    up.n_out = down.n_in = HIDDEN;
    up.n_in = down.n_out = width;
    up.act = true;
    up.slope = down.x_slope = 0.5f;
    up.y = x + AT_Y;
    up.f = x + AT_U;
    up.x16 = up.y16 = true;
    k->linear_train(k, &up);
    down.x = up.y;
    down.w = w + WEIGHTS;
    down.dy = x + AT_DY;
    down.dx = x + AT_G;
    down.dw = w + 2 * WEIGHTS;
    down.x_f = up.f;
    down.x16 = down.dy16 = down.dx16 = true;
    k->linear_bwd(k, &down);
}

/* Of one result, |x - y| / |y|. NaN when there is one. */
static double distance(const uint16_t *x, const uint16_t *y, int n)
{
    double diff = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        uint32_t a = (uint32_t)x[i] << 16, b = (uint32_t)y[i] << 16;
        float p, q;
        memcpy(&p, &a, sizeof p);
        memcpy(&q, &b, sizeof q);
        diff += ((double)p - q) * ((double)p - q);
        norm += (double)q * q;
    }
    return sqrt(diff / norm);
}

/* Uniform in [-size, size). */
static float next(unsigned *s, float size)
{
    *s = *s * 1664525u + 1013904223u;
    return size * ((float)(*s >> 8) * 0x1p-23f - 1.0f);
}

static bool agree(struct kern *k)
{
    static const size_t widths[] = {128, 256, 512};
    struct cuda *c = cuda_of(k);
    uint16_t *host = (uint16_t *)malloc(2 * HALVES * sizeof *host);
    float *weights = (float *)calloc(3 * WEIGHTS, sizeof *weights), *w = NULL;
    bf16 *x = NULL;
    struct err e = {};
    bool good = false;
    unsigned s = 1;
    if (!host || !weights || !(x = (bf16 *)k->alloc(k, HALVES * sizeof *x)) ||
        !(w = (float *)k->alloc(k, 3 * WEIGHTS * sizeof *w)))
        goto out;
    for (int i = 0; i < INPUTS; i++) {
        float v = next(&s, 1.7f);
        memcpy(&host[i], (const char *)&v + 2, sizeof host[i]);
    }
    for (int i = 0; i < 2 * WEIGHTS; i++)
        weights[i] = next(&s, 0.1f);
    k->upload(k, w, weights, 3 * WEIGHTS * sizeof *w);
    good = true;
    for (size_t width = 0; width < sizeof widths / sizeof widths[0]; width++) {
        for (int which = 0; which < 2; which++) {
            uint16_t *y = host + which * HALVES;
            /* a result that nobody writes is NaN */
            memset(host + which * HALVES + INPUTS, 0xff, (HALVES - INPUTS) * sizeof *host);
            c->mlp90 = which == 1;
            k->upload(k, x, host, INPUTS * sizeof *x);
            k->upload(k, x + INPUTS, y + INPUTS, (HALVES - INPUTS) * sizeof *x);
            layers(k, x, w, widths[width]);
            k->download(k, y + INPUTS, x + INPUTS, (HALVES - INPUTS) * sizeof *x);
        }
        for (int i = 0; i + 1 < (int)(sizeof results / sizeof results[0]); i++) {
            int at = results[i], n = results[i + 1] - at;
            good = good && distance(host + HALVES + at, host + at, n) <= NOISE;
        }
    }
out:
    k->free(k, x);
    k->free(k, w);
    /* A failure is a difference like any other, and not the next operation's. */
    good = k->sync(k, &e) == ERR_OK && good;
    free(host);
    free(weights);
    return good;
}
#endif

bool cuda_mlp90_open(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    c->mlp90 = false;
#ifdef CUDA_HAS_SM90A
    const char *wanted = getenv("KERN_MLP");
    bool unchecked = wanted && !strcmp(wanted, "unchecked");
    if (!wanted || (strcmp(wanted, "wgmma") && !unchecked) || !cuda_is_sm90(c) ||
        cudaDeviceGetAttribute(&c->sms, cudaDevAttrMultiProcessorCount, c->device) != cudaSuccess)
        return false;
    c->mlp90 = unchecked || agree(k);
#endif
    return c->mlp90;
}
