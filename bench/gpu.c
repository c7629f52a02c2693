/*
 * gpu.c - `make bench-gpu`: a backend beside its own ceilings, at the shapes of PR #1296.
 *
 *   gpu ops  [--device cuda|cpu] [--rows N] [--only NAME]
 *       every operation of a training step: time, floor, their ratio, share of the step
 *   gpu run RECIPE [--device ...] [--seqs N] [--micros N] [--windows N]
 *       whole steps (seconds, tokens/s, MFU) and windows of the sliding mode and of SLOT
 *
 * The floor of an operation is max(flops / F, bytes / B): F is a bf16 product of 8192 cubed, B a
 * pass over memory, both measured in the same run, both on random numbers (products of zeros are up
 * to a seventh faster on these cards). Bytes count every input and output once, as a step of
 * training stores them: half values (kernels.h) in 2, weights and the gradient of the embedding
 * in 4. Where attention is done by wgmma (docs/cuda.md), that by mma is measured beside it.
 */
#include "bench/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double gpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void gpu_fail(enum err_code rc, const char *why)
{
    fprintf(stderr, "gpu: %s\n", why);
    exit((int)rc);
}

void gpu_done(struct gpu *b)
{
    struct err e = {0};
    enum err_code rc = b->k->sync(b->k, &e);
    if (rc)
        gpu_fail(rc, e.msg);
}

double gpu_time(struct gpu *b, gpu_fn *fn, void *arg)
{
    double best = 0, t0;
    size_t calls;
    fn(b, arg);
    gpu_done(b);
    t0 = gpu_now();
    fn(b, arg);
    gpu_done(b);
    t0 = gpu_now() - t0;
    calls = t0 < 1e-4 ? 200 : t0 < 0.02 ? (size_t)(0.02 / t0) : 1;
    for (int group = 0; group < 5; group++) {
        t0 = gpu_now();
        for (size_t i = 0; i < calls; i++)
            fn(b, arg);
        gpu_done(b);
        t0 = (gpu_now() - t0) / (double)calls;
        if (!group || t0 < best)
            best = t0;
    }
    return best;
}

static const char usage[] =
    "usage: gpu ops [--device cuda|cpu] [--rows N] [--only NAME]\n"
    "       gpu run RECIPE [--device cuda|cpu] [--seqs N] [--micros N] [--windows N]";

int main(int argc, char **argv)
{
    struct gpu b = {.rows = 98304, .t = 2048};
    const char *device = "cuda", *recipe = NULL;
    size_t seqs = 48, micros = 8, windows = 64;
    struct err e = {0};
    enum err_code rc;
    int i = 2;
    if (argc > 2 && !strcmp(argv[1], "run"))
        recipe = argv[i++];
    else if (argc < 2 || strcmp(argv[1], "ops") != 0)
        gpu_fail(ERR_USAGE, usage);
    for (; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--device"))
            device = argv[i + 1];
        else if (!strcmp(argv[i], "--only"))
            b.only = argv[i + 1];
        else if (!strcmp(argv[i], "--rows"))
            b.rows = strtoul(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--seqs"))
            seqs = strtoul(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--micros"))
            micros = strtoul(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--windows"))
            windows = strtoul(argv[i + 1], NULL, 10);
        else
            gpu_fail(ERR_USAGE, usage);
    }
    if (i < argc || b.rows < b.t || !seqs || !micros || !windows)
        gpu_fail(ERR_USAGE, usage);
    bool cpu = !strcmp(device, "cpu");
    if ((rc = cpu ? kern_cpu(&b.k, 0, &e) : kern_cuda(&b.k, 0, &e)))
        gpu_fail(rc, e.msg);
    b.rows = b.rows / b.t * b.t;
    printf("%s\n", b.k->name);
    gpu_ceilings(&b, cpu);
    if (recipe)
        gpu_run(&b, recipe, seqs, micros, windows);
    else
        gpu_ops(&b);
    kern_free(b.k);
    return 0;
}
