/* init.c - see init.h. */
#include "trainer/init.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TWO_PI = 6.283185307179586;

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void rng_seed(struct rng *g, uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a of the name */
    for (const char *c = name; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3u;
    uint64_t state = splitmix(&seed) ^ h;
    for (int i = 0; i < 4; i++)
        g->s[i] = splitmix(&state);
}

uint64_t rng_next(struct rng *g)
{
    uint64_t *s = g->s, out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double rng_uniform(struct rng *g)
{
    return (double)(rng_next(g) >> 11) * 0x1p-53;
}

void rng_normal(struct rng *g, double out[2])
{
    double u = 1.0 - rng_uniform(g); /* (0, 1]: the logarithm is finite */
    double r = sqrt(-2.0 * kern_log(u)), angle = TWO_PI * rng_uniform(g);
    out[0] = r * kern_cos(angle);
    out[1] = r * kern_sin(angle);
}

static void fill_normal(struct rng *g, float *w, size_t n, double std)
{
    double z[2] = {0};
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0)
            rng_normal(g, z);
        w[i] = (float)(std * z[i % 2]);
    }
}

static void fill_uniform(struct rng *g, float *w, size_t n, double bound)
{
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(bound * (2.0 * rng_uniform(g) - 1.0));
}

static void fill_value(float *w, size_t n, double value)
{
    for (size_t i = 0; i < n; i++)
        w[i] = (float)value;
}

/* Eight partial sums joined by halving: an order of its own, so that the same bits come out
 * whatever the compiler makes of it, and short dependency chains. */
static double dot(const double *a, const double *b, size_t n)
{
    double s[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i < n; i++, j++)
        s[j] += a[i] * b[i];
    for (size_t half = 4; half; half /= 2)
        for (size_t j = 0; j < half; j++)
            s[j] += s[j + half];
    return s[0];
}

/*
 * Gram-Schmidt in double on `count` vectors of length len >= count, each projected twice ("twice is
 * enough", Kahan; Giraud et al. 2005). With positive norms this is the Q of a QR decomposition
 * whose R has a positive diagonal, hence uniform over orthonormal frames when v is Gaussian.
 */
static void orthonormalise(double *v, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        double *x = v + i * len;
        for (int pass = 0; pass < 2; pass++) {
            for (size_t j = 0; j < i; j++) {
                const double *q = v + j * len;
                double c = dot(q, x, len);
                for (size_t l = 0; l < len; l++)
                    x[l] -= c * q[l];
            }
        }
        double inv = 1.0 / sqrt(dot(x, x, len));
        for (size_t l = 0; l < len; l++)
            x[l] *= inv;
    }
}

enum err_code init_orthogonal(struct rng *g, float *w, size_t rows, size_t cols, struct err *e)
{
    bool tall = rows > cols;
    size_t count = tall ? cols : rows, len = tall ? rows : cols;
    double *v = malloc((rows * cols + 1) * sizeof *v); /* one more: normals come in pairs */
    if (!v)
        return err_nomem(e, "orthogonal initialisation", (rows * cols + 1) * sizeof *v);
    for (size_t i = 0; i < rows * cols; i += 2)
        rng_normal(g, v + i);
    orthonormalise(v, count, len);
    for (size_t i = 0; i < count; i++)
        for (size_t l = 0; l < len; l++)
            w[tall ? l * cols + i : i * cols + l] = (float)v[i * len + l];
    free(v);
    return ERR_OK;
}

/* INIT=orthogonal is for matrices of at least this many rows and columns, as in the records; what
 * is smaller keeps the uniform default of torch's linear layers. */
enum { ORTHOGONAL_MIN = 64 };

static enum err_code fill_matrix(const struct recipe *r, const struct gpt_param *p, struct rng *g,
                                 float *w, struct err *e)
{
    size_t rows = p->shape[0], cols = p->shape[1];
    bool orthogonal = strcmp(r->init, "orthogonal") == 0;
    enum err_code rc;
    if (!orthogonal && strcmp(r->init, "uniform") != 0)
        return err_set(e, ERR_USAGE, "INIT=%s: expected uniform or orthogonal", r->init);
    if (!orthogonal || rows < ORTHOGONAL_MIN || cols < ORTHOGONAL_MIN) {
        fill_uniform(g, w, p->size, 1.0 / sqrt((double)cols));
        return ERR_OK;
    }
    if ((rc = init_orthogonal(g, w, rows, cols, e)))
        return rc;
    if (p->init == INIT_PROJ && r->proj_depth_init) {
        float depth = (float)(1.0 / sqrt(2.0 * (double)r->num_layers));
        for (size_t i = 0; i < p->size; i++)
            w[i] *= depth;
    }
    return ERR_OK;
}

enum err_code init_params(const struct gpt *m, float *params, struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < m->nparams && !rc; i++) {
        const struct gpt_param *p = &m->param[i];
        float *w = params + p->at;
        struct rng g;
        rng_seed(&g, (uint64_t)m->r.seed, p->name);
        switch (p->init) {
        case INIT_CONST:
            fill_value(w, p->size, p->value);
            break;
        case INIT_NORMAL:
            fill_normal(&g, w, p->size, p->value);
            break;
        case INIT_MATRIX:
        case INIT_PROJ:
            rc = fill_matrix(&m->r, p, &g, w, e);
            break;
        case INIT_MIX:
            fill_value(w, p->size / 2, 1.0);
            fill_value(w + p->size / 2, p->size / 2, 0.0);
            break;
        }
    }
    return rc;
}
