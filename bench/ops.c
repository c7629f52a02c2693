/*
 * ops.c - time of every operation but the matrix product, against the rulers measured in the same
 * run: GFLOP/s of linear_fwd for attention and head, GB/s of add for the operations bound by
 * memory.
 *
 *   ops [THREADS] [NAME]     one thread unless said otherwise; NAME: only operations whose name has
 * it
 *
 * Best and median of the runs that fit a second, at least five. Inputs are random; caches are as
 * warm as the operation left them. Bytes count every input and output once; flops count the causal
 * half of attention (backward 2.5 times forward) and 2*rows*dim*vocab per product of the head.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"

enum { DIM = 512, HEADS = 8, KV_HEADS = 4, HEAD_DIM = 64, ROPE = 16, MAX_RUNS = 400 };

struct bench {
    struct kern *k;
    const char *only;
    double flops_ruler, bytes_ruler;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float *filled(struct bench *b, size_t n, unsigned seed, float size)
{
    float *x = b->k->alloc(b->k, n * sizeof *x);
    if (!x) {
        fprintf(stderr, "ops: no memory for %zu floats\n", n);
        exit(4);
    }
    unsigned s = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = size * ((float)(s >> 8) * 0x1p-23f - 1.0f);
    }
    return x;
}

typedef void run(struct bench *b, void *arg);

/* Prints one line; `work` is flops when `flops`, otherwise bytes. Returns work per second. */
static double measure(struct bench *b, const char *name, const char *shape, run *fn, void *arg,
                      double work, int flops)
{
    static double t[MAX_RUNS];
    size_t n = 0;
    if (b->only && !strstr(name, b->only) && !strstr(name, "ruler"))
        return 0;
    fn(b, arg);
    for (double start = now(); n < MAX_RUNS && (n < 5 || now() - start < 1);) {
        double t0 = now();
        fn(b, arg);
        t[n++] = now() - t0;
    }
    qsort(t, n, sizeof *t, by_time);
    double rate = work / t[0], ruler = flops ? b->flops_ruler : b->bytes_ruler;
    printf("%-13s %-28s %10.3f %10.3f %9.1f %s %6.2f\n", name, shape, 1e3 * t[0], 1e3 * t[n / 2],
           rate * 1e-9, flops ? "GFLOP/s" : "GB/s   ", ruler > 0 ? rate / ruler : 1);
    fflush(stdout);
    return rate;
}

struct linear_arg {
    float *y, *x, *w;
    size_t rows;
};

static void run_linear(struct bench *b, void *arg)
{
    struct linear_arg *a = arg;
    b->k->linear_fwd(b->k, a->y, a->x, a->w, a->rows, DIM, DIM);
}

static void run_add(struct bench *b, void *arg)
{
    struct linear_arg *a = arg;
    b->k->add(b->k, a->y, a->x, a->rows * DIM);
}

static void rulers(struct bench *b)
{
    size_t rows = 4096;
    struct linear_arg a = {.rows = rows};
    a.y = filled(b, rows * DIM, 1, 1);
    a.x = filled(b, rows * DIM, 2, 1);
    a.w = filled(b, DIM * DIM, 3, 1);
    b->flops_ruler = measure(b, "ruler", "linear 4096 x 512 x 512", run_linear, &a,
                             2.0 * (double)rows * DIM * DIM, 1);
    b->bytes_ruler =
        measure(b, "ruler", "add 4096 x 512", run_add, &a, 12.0 * (double)rows * DIM, 0);
    b->k->free(b->k, a.y);
    b->k->free(b->k, a.x);
    b->k->free(b->k, a.w);
}

static void run_attn_fwd(struct bench *b, void *arg)
{
    b->k->attn_fwd(b->k, arg);
}

static void run_attn_bwd(struct bench *b, void *arg)
{
    b->k->attn_bwd(b->k, arg);
}

static void attention(struct bench *b, size_t batch, size_t tq, size_t tk)
{
    size_t nq = batch * tq * HEADS * HEAD_DIM, nk = batch * tk * KV_HEADS * HEAD_DIM;
    struct kern_attn a = {.batch = batch, .tq = tq, .tk = tk, .q0 = tk - tq, .scale = 0.125f};
    float *in[] = {
        filled(b, nq, 1, 1.7f), filled(b, nk, 2, 1.7f), filled(b, nk, 3, 1),
        filled(b, nq, 4, 1),    filled(b, nq, 5, 1),    filled(b, nq, 6, 1),
        filled(b, nk, 7, 1),    filled(b, nk, 8, 1),    filled(b, batch * tq * HEADS, 9, 1)};
    char shape[64];
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.head_dim = HEAD_DIM;
    a.q = in[0];
    a.k = in[1];
    a.v = in[2];
    a.do_ = in[3];
    a.o = in[4];
    a.dq = in[5];
    a.dk = in[6];
    a.dv = in[7];
    a.lse = in[8];
    snprintf(shape, sizeof shape, "%zu x %zu of %zu, 8/4 x 64", batch, tq, tk);
    double keys = (double)(tk - tq) + 0.5 * (double)(tq + 1);
    double flops = 4.0 * HEAD_DIM * HEADS * (double)batch * (double)tq * keys;
    measure(b, "attn_fwd", shape, run_attn_fwd, &a, flops, 1);
    if (tq == tk)
        measure(b, "attn_bwd", shape, run_attn_bwd, &a, 2.5 * flops, 1);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        b->k->free(b->k, in[i]);
}

static void run_head_fwd(struct bench *b, void *arg)
{
    b->k->head_fwd(b->k, arg);
}

static void run_head_bwd(struct bench *b, void *arg)
{
    b->k->head_bwd(b->k, arg);
}

static void head(struct bench *b, size_t rows, size_t vocab)
{
    struct kern_head a = {.rows = rows, .dim = DIM, .vocab = vocab, .cap = 30, .gscale = 1};
    float *in[] = {filled(b, rows * DIM, 1, 1), filled(b, vocab * DIM, 2, 0.1f),
                   filled(b, rows, 3, 1),       filled(b, rows, 4, 1),
                   filled(b, rows * DIM, 5, 1), filled(b, vocab * DIM, 6, 1)};
    uint16_t *target = b->k->alloc(b->k, rows * sizeof *target);
    char shape[64];
    if (!target)
        exit(4);
    for (size_t i = 0; i < rows; i++)
        target[i] = (uint16_t)(i * 7919 % vocab);
    a.h = in[0];
    a.w = in[1];
    a.nll = in[2];
    a.lse = in[3];
    a.dh = in[4];
    a.dw = in[5];
    a.target = target;
    snprintf(shape, sizeof shape, "%zu x 512 x %zu", rows, vocab);
    double flops = 2.0 * DIM * (double)rows * (double)vocab;
    measure(b, "head_fwd", shape, run_head_fwd, &a, flops, 1);
    measure(b, "head_bwd", shape, run_head_bwd, &a, 3 * flops, 1);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        b->k->free(b->k, in[i]);
    b->k->free(b->k, target);
}

struct rows_arg {
    struct kern_combine c;
    struct kern_qk q;
    uint16_t *ids;
    float *table;
    size_t rows;
};

static void run_embed_fwd(struct bench *b, void *arg)
{
    struct rows_arg *a = arg;
    b->k->embed_fwd(b->k, a->c.y, a->table, a->ids, a->rows, DIM);
}

static void run_embed_bwd(struct bench *b, void *arg)
{
    struct rows_arg *a = arg;
    b->k->embed_bwd(b->k, a->table, a->c.y, a->ids, a->rows, DIM, 1024);
}

static void run_combine_fwd(struct bench *b, void *arg)
{
    b->k->combine_fwd(b->k, &((struct rows_arg *)arg)->c);
}

static void run_combine_bwd(struct bench *b, void *arg)
{
    b->k->combine_bwd(b->k, &((struct rows_arg *)arg)->c);
}

static void run_qk_fwd(struct bench *b, void *arg)
{
    b->k->qk_fwd(b->k, &((struct rows_arg *)arg)->q);
}

static void run_qk_bwd(struct bench *b, void *arg)
{
    b->k->qk_bwd(b->k, &((struct rows_arg *)arg)->q);
}

static void rows(struct bench *b, size_t n, size_t t)
{
    struct rows_arg a = {.rows = n};
    float *in[12], *c[4];
    char shape[64];
    for (unsigned i = 0; i < 12; i++)
        in[i] = filled(b, n * DIM, i, 1);
    for (unsigned i = 0; i < 4; i++)
        c[i] = filled(b, DIM, 20 + i, 1);
    float *rstd = filled(b, n * HEADS, 30, 1), *angles = filled(b, 2 * t * ROPE, 31, 1);
    a.table = filled(b, 1024 * DIM, 32, 1);
    a.ids = b->k->alloc(b->k, n * sizeof *a.ids);
    if (!a.ids)
        exit(4);
    for (size_t i = 0; i < n; i++)
        a.ids[i] = (uint16_t)(i * 7919 % 1024);
    a.c = (struct kern_combine){.y = in[0], .n = in[1], .x0 = in[2], .x1 = in[3], .rows = n};
    a.c.rstd = rstd;
    a.c.c0 = c[0];
    a.c.c1 = c[1];
    a.c.dim = DIM;
    a.c.eps = 1e-6f;
    a.c.gain = 1;
    a.c.dy = in[4];
    a.c.dn = in[5];
    a.c.dx0 = in[6];
    a.c.dx1 = in[7];
    a.c.dc0 = c[2];
    a.c.dc1 = c[3];
    a.q = (struct kern_qk){.y = in[8], .x = in[9], .dy = in[10], .dx = in[11], .rstd = rstd};
    a.q.gain = c[0];
    a.q.dgain = c[1];
    a.q.cos = angles;
    a.q.sin = angles + t * ROPE;
    a.q.rows = n;
    a.q.t = t;
    a.q.heads = HEADS;
    a.q.head_dim = HEAD_DIM;
    a.q.rope_dims = ROPE;
    a.q.eps = 1e-6f;
    double row = 4.0 * DIM * (double)n;
    snprintf(shape, sizeof shape, "%zu x 512", n);
    measure(b, "embed_fwd", shape, run_embed_fwd, &a, 2 * row, 0);
    measure(b, "embed_bwd", shape, run_embed_bwd, &a, 3 * row, 0);
    measure(b, "combine_fwd", shape, run_combine_fwd, &a, 4 * row, 0);
    measure(b, "combine_bwd", shape, run_combine_bwd, &a, 7 * row, 0);
    snprintf(shape, sizeof shape, "%zu x 8 x 64, rope 16", n);
    measure(b, "qk_fwd", shape, run_qk_fwd, &a, 2 * row, 0);
    measure(b, "qk_bwd", shape, run_qk_bwd, &a, 3 * row, 0);
    for (unsigned i = 0; i < 12; i++)
        b->k->free(b->k, in[i]);
    for (unsigned i = 0; i < 4; i++)
        b->k->free(b->k, c[i]);
    b->k->free(b->k, rstd);
    b->k->free(b->k, angles);
    b->k->free(b->k, a.table);
    b->k->free(b->k, a.ids);
}

static void run_ns(struct bench *b, void *arg)
{
    b->k->newton_schulz(b->k, arg);
}

/* Five steps of Newton-Schulz on `count` matrices. Flops are the formula's, step by step, with
 * symmetric products at half; the kernel needs fewer when a matrix is not square. */
static void newton_schulz(struct bench *b, size_t rows, size_t cols, size_t count)
{
    enum { MAX_COUNT = 22, STEPS = 5 };
    float *x[MAX_COUNT];
    struct kern_ns a = {.x = x, .count = count, .rows = rows, .cols = cols, .steps = STEPS};
    double n = (double)(rows < cols ? rows : cols), len = (double)(rows < cols ? cols : rows);
    char shape[64];
    a.a = 3.4445f;
    a.b = -4.7750f;
    a.c = 2.0315f;
    a.eps = 1e-7f;
    for (unsigned i = 0; i < count; i++)
        x[i] = filled(b, rows * cols, i, 1);
    snprintf(shape, sizeof shape, "%zu of %zu x %zu", count, rows, cols);
    measure(b, "newton_schulz", shape, run_ns, &a,
            (double)count * STEPS * (3 * n * n * len + n * n * n), 1);
    for (size_t i = 0; i < count; i++)
        b->k->free(b->k, x[i]);
}

int main(int argc, char **argv)
{
    struct bench b = {.only = argc > 2 ? argv[2] : NULL};
    struct err e = {0};
    enum err_code rc = kern_cpu(&b.k, argc > 1 ? strtoul(argv[1], NULL, 10) : 1, &e);
    if (rc != ERR_OK) {
        fprintf(stderr, "ops: %s\n", e.msg);
        return (int)rc;
    }
    printf("%s, %s thread(s)\n", b.k->name, argc > 1 ? argv[1] : "1");
    printf("%-13s %-28s %10s %10s %17s %6s\n", "op", "shape", "best ms", "median ms", "rate",
           "ruler");
    rulers(&b);
    rows(&b, 2048, 1024);
    rows(&b, 16384, 1024);
    attention(&b, 2, 1024, 1024);
    attention(&b, 1, 2048, 2048);
    attention(&b, 2, 64, 1024);
    attention(&b, 2, 64, 2048);
    head(&b, 64, 1024);
    head(&b, 1024, 1024);
    head(&b, 2048, 1024);
    head(&b, 1024, 8192);
    newton_schulz(&b, 256, 512, 22);
    newton_schulz(&b, 512, 512, 22);
    newton_schulz(&b, 1024, 512, 9);
    newton_schulz(&b, 2048, 512, 11);
    newton_schulz(&b, 512, 2048, 11);
    rc = b.k->sync(b.k, &e);
    if (rc != ERR_OK)
        fprintf(stderr, "ops: %s\n", e.msg);
    kern_free(b.k);
    return (int)rc;
}
