/*
 * gemm.c - matrix products of the recipes' shapes: ours against OpenBLAS, one fp32 core or several.
 *
 *   gemm [THREADS [SECONDS_PER_SHAPE [NAME_PART]]]
 *
 * Both are measured in this run, alternating call by call, on random data, with warm caches; the
 * table gives GFLOP/s of the best and of the median call, the ratio of the best calls and of the
 * medians. Run with OPENBLAS_CORETYPE=SkylakeX on processors that OpenBLAS does not recognise: a
 * peer off its best path is no peer. The peak is what an endless chain of independent vector fma
 * gives on one thread, times the threads.
 */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"

/* Declared here because cblas.h of other libraries lacks it. */
void openblas_set_num_threads(int n);
char *openblas_get_corename(void);

enum kind { FWD, BWD_X, BWD_W };
static const char *const kind_names[] = {"fwd", "bwd_x", "bwd_w"};

static const struct {
    size_t n_out, n_in;
} layers[] = {
    {512, 512},  {256, 512},  {1024, 512}, {512, 1024}, {1536, 512}, {512, 1536},
    {2048, 512}, {512, 2048}, {384, 384},  {1152, 384}, {384, 1152},
};
static const size_t row_counts[] = {1024, 2048, 8192};

enum { MAX_CALLS = 4096 };

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Uniform in [-1, 1): xorshift64*, Vigna 2016. */
static void fill(float *p, size_t n, uint64_t seed)
{
    uint64_t s = seed * 0x9e3779b97f4a7c15 + 1;
    for (size_t i = 0; i < n; i++) {
        s ^= s >> 12;
        s ^= s << 25;
        s ^= s >> 27;
        p[i] = (float)((s * 0x2545f4914f6cdd1d) >> 40) * 0x1p-23f - 1;
    }
}

static void ours(struct kern *k, enum kind kind, float *c, const float *a, const float *b,
                 size_t rows, size_t n_out, size_t n_in)
{
    if (kind == FWD)
        k->linear_fwd(k, c, a, b, rows, n_out, n_in);
    else if (kind == BWD_X)
        k->linear_bwd_x(k, c, a, b, rows, n_out, n_in, false);
    else
        k->linear_bwd_w(k, c, a, b, rows, n_out, n_in);
}

static void peer(enum kind kind, float *c, const float *a, const float *b, size_t rows,
                 size_t n_out, size_t n_in)
{
    int r = (int)rows, o = (int)n_out, i = (int)n_in;
    if (kind == FWD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r, o, i, 1, a, i, b, i, 0, c, o);
    else if (kind == BWD_X)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, r, i, o, 1, a, o, b, i, 0, c, i);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, o, i, r, 1, a, o, b, i, 1, c, i);
}

/* ||c - d|| / ||d|| */
static double distance(const float *c, const float *d, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        num += ((double)c[i] - d[i]) * ((double)c[i] - d[i]);
        den += (double)d[i] * d[i];
    }
    return sqrt(num / den);
}

/* Over all shapes: sums of logarithms of the ratios, and the smallest. */
struct summary {
    double best, cpu, worst, worst_cpu, shapes;
};

static int bench(struct kern *k, enum kind kind, size_t rows, size_t n_out, size_t n_in,
                 double seconds, struct summary *sum)
{
    static double t[2][MAX_CALLS];
    double cpu[2] = {INFINITY, INFINITY};
    size_t an = kind == FWD ? rows * n_in : rows * n_out;
    size_t bn = kind == BWD_W ? rows * n_in : n_out * n_in;
    size_t cn = kind == FWD ? rows * n_out : kind == BWD_X ? rows * n_in : n_out * n_in;
    float *a = k->alloc(k, an * sizeof *a), *b = k->alloc(k, bn * sizeof *b);
    float *c = k->alloc(k, cn * sizeof *c), *d = k->alloc(k, cn * sizeof *d);
    if (!a || !b || !c || !d) {
        fprintf(stderr, "gemm: out of memory\n");
        return 1;
    }
    fill(a, an, 1);
    fill(b, bn, 2);
    ours(k, kind, c, a, b, rows, n_out, n_in);
    peer(kind, d, a, b, rows, n_out, n_in);
    double dist = distance(c, d, cn);
    size_t calls = 0;
    double t0 = now(CLOCK_MONOTONIC);
    for (; calls < MAX_CALLS && (calls < 7 || now(CLOCK_MONOTONIC) - t0 < seconds); calls++)
        for (size_t i = 0; i < 2; i++) {
            double wall = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
            if (i == 0)
                ours(k, kind, c, a, b, rows, n_out, n_in);
            else
                peer(kind, d, a, b, rows, n_out, n_in);
            used = now(CLOCK_PROCESS_CPUTIME_ID) - used;
            t[i][calls] = now(CLOCK_MONOTONIC) - wall;
            cpu[i] = used < cpu[i] ? used : cpu[i];
        }
    double gflop = 2e-9 * (double)rows * (double)n_out * (double)n_in, best[2], median[2];
    for (size_t i = 0; i < 2; i++) {
        qsort(t[i], calls, sizeof t[i][0], by_value);
        best[i] = gflop / t[i][0];
        median[i] = gflop / t[i][calls / 2];
    }
    sum->best += log(best[0] / best[1]);
    sum->cpu += log(cpu[1] / cpu[0]);
    sum->worst = fmin(sum->worst, best[0] / best[1]);
    sum->worst_cpu = fmin(sum->worst_cpu, cpu[1] / cpu[0]);
    sum->shapes++;
    printf("%-5s %5zu %5zu %5zu  %7.1f %7.1f  %5.2f  %7.1f %7.1f  %5.2f  %5.2f  %6zu  %.0e\n",
           kind_names[kind], rows, n_out, n_in, best[0], best[1], best[0] / best[1], median[0],
           median[1], median[0] / median[1], cpu[1] / cpu[0], calls, dist);
    fflush(stdout);
    k->free(k, a);
    k->free(k, b);
    k->free(k, c);
    k->free(k, d);
    return dist < 1e-5 ? 0 : 1;
}

/* GFLOP/s of one thread that does nothing but fma: independent chains of 512-bit vectors. 0: no
 * AVX-512. */
__attribute__((target("avx512f"))) static double peak(void)
{
    enum { CHAINS = 20, STEPS = 100000 };
    typedef float v __attribute__((vector_size(64)));
    if (!__builtin_cpu_supports("avx512f"))
        return 0;
    double best = 0;
    for (int run = 0; run < 50; run++) {
        double t = now(CLOCK_MONOTONIC);
        v acc[CHAINS], x = {0};
#pragma GCC unroll 20
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = x;
        for (size_t r = 0; r < STEPS; r++) {
#pragma GCC unroll 20
            for (size_t i = 0; i < CHAINS; i++)
                __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(acc[i]) : "v"(x));
        }
        double rate = 1e-9 * CHAINS * STEPS * 32 / (now(CLOCK_MONOTONIC) - t);
        best = rate > best ? rate : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 0.3;
    const char *part = argc > 3 ? argv[3] : "";
    struct err e = {0};
    struct kern *k = NULL;
    if (threads == 0 || threads > 1024) {
        fprintf(stderr, "usage: gemm [THREADS [SECONDS_PER_SHAPE [NAME_PART]]]\n");
        return ERR_USAGE;
    }
    if (kern_cpu(&k, threads, &e) != ERR_OK) {
        fprintf(stderr, "gemm: %s\n", e.msg);
        return (int)e.code;
    }
    openblas_set_num_threads((int)threads);
    printf("%s, OpenBLAS %s, %zu thread%s; fma peak of one thread %.0f GFLOP/s\n", k->name,
           openblas_get_corename(), threads, threads > 1 ? "s" : "", peak());
    printf("                           best GFLOP/s  ratio  median GFLOP/s  ratio  ratio\n"
           "op     rows n_out  n_in     ours    peer            ours    peer           cpu"
           "   calls   diff\n");
    struct summary sum = {0, 0, INFINITY, INFINITY, 0};
    int rc = 0;
    for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
        for (size_t l = 0; l < sizeof layers / sizeof *layers; l++)
            for (enum kind kind = FWD; kind <= BWD_W; kind++) {
                char name[64];
                snprintf(name, sizeof name, "%s %zu %zu %zu", kind_names[kind], row_counts[r],
                         layers[l].n_out, layers[l].n_in);
                if (strstr(name, part))
                    rc |= bench(k, kind, row_counts[r], layers[l].n_out, layers[l].n_in, seconds,
                                &sum);
            }
    printf("ratio of the best calls: mean %.2f, smallest %.2f; of processor time: mean %.2f, "
           "smallest %.2f\n",
           exp(sum.best / sum.shapes), sum.worst, exp(sum.cpu / sum.shapes), sum.worst_cpu);
    kern_free(k);
    return rc;
}
