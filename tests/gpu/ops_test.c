/*
 * ops_test.c - does a backend agree with the CPU, operation by operation, forward and backward?
 *
 *   ops_test [--device cuda|cpu] [--seed N] [--small]
 *
 * The inputs are fresh random numbers (the seed is printed), outputs are poisoned with NaN before,
 * sizes are no multiples of any tile. An error is measured by norm: |difference| / |reference|.
 * --device cpu compares the CPU with itself (another instruction set if KERN_ISA says so for the
 * reference): a test of the test. The last line has a hash of all results of the backend.
 */
#include "tests/gpu/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t next(struct ops *o) /* splitmix64 */
{
    uint64_t z = o->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(struct ops *o) /* in (0, 1] */
{
    return ((double)(next(o) >> 11) + 1) * 0x1p-53;
}

static void give_up(const char *why)
{
    fprintf(stderr, "ops_test: %s\n", why);
    exit(ERR_RESOURCE);
}

static struct arr make(struct ops *o, const void *from, size_t n, size_t size)
{
    struct arr a = {.n = n};
    if (o->count == sizeof o->arrays / sizeof o->arrays[0])
        give_up("too many arrays in a case");
    BOTH(o, {
        if (!(a.p[s] = k->alloc(k, n * size)))
            give_up("no memory");
        k->upload(k, a.p[s], from, n * size);
    })
    o->arrays[o->count++] = a;
    return a;
}

static void *room(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        give_up("no memory");
    return p;
}

struct arr ops_input(struct ops *o, size_t n, float scale)
{
    float *x = room(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * (float)(sqrt(-2 * log(uniform(o))) * cos(6.283185307179586 * uniform(o)));
    struct arr a = make(o, x, n, sizeof *x);
    free(x);
    return a;
}

bool ops_has_half(const struct ops *o)
{
    return o->k[TESTED]->combine_half;
}

static uint32_t word_of(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

struct arr ops_half_input(struct ops *o, size_t n, float scale)
{
    struct arr a = ops_input(o, n, scale);
    struct kern *cpu = o->k[REFERENCE], *k = o->k[TESTED];
    float *x = room(n * sizeof *x);
    uint16_t *half = room(n * sizeof *half);
    cpu->round_bf16(cpu, a.p[REFERENCE], n);
    cpu->download(cpu, x, a.p[REFERENCE], n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        half[i] = (uint16_t)(word_of(x[i]) >> 16);
    k->upload(k, a.p[TESTED], half, n * sizeof *half);
    free(x);
    free(half);
    a.half = true;
    return a;
}

struct arr ops_half_output(struct ops *o, size_t n)
{
    struct arr a = ops_output(o, n);
    a.half = true;
    return a;
}

struct arr ops_weights(struct ops *o, size_t n, float scale)
{
    struct arr a = ops_input(o, n + 1, scale);
    for (int s = 0; s < SIDES; s++)
        a.p[s] = (float *)a.p[s] + 1;
    a.n = n;
    return a;
}

struct arr ops_output(struct ops *o, size_t n)
{
    float *x = room(n * sizeof *x);
    memset(x, 0xff, n * sizeof *x); /* a NaN */
    struct arr a = make(o, x, n, sizeof *x);
    free(x);
    return a;
}

struct arr ops_ids(struct ops *o, size_t n, size_t vocab)
{
    uint16_t *x = room(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        double u = uniform(o);
        x[i] = (uint16_t)((double)(vocab - 1) * u * u * u);
    }
    struct arr a = make(o, x, n, sizeof *x);
    free(x);
    return a;
}

void ops_case(struct ops *o, const char *what)
{
    struct err e = {0};
    BOTH(o, {
        if (k->sync(k, &e)) {
            printf("FAILED  %-44s %s\n", o->what, e.msg);
            o->failed++;
            e = (struct err){0};
        }
        for (size_t i = 0; i < o->count; i++)
            k->free(k, o->arrays[i].p[s]);
    })
    o->count = 0;
    o->what = what;
}

/* FNV-1a over the bits of what is tested. */
static void add_bits(struct ops *o, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        o->bits = (o->bits ^ word_of(x[i])) * 0x100000001b3u;
}

/* n half values, in place: the last one first. */
static void widen(float *x, size_t n)
{
    while (n--) {
        uint16_t half;
        memcpy(&half, (char *)x + n * sizeof half, sizeof half);
        uint32_t word = (uint32_t)half << 16;
        memcpy(&x[n], &word, sizeof word);
    }
}

static float *fetch(struct ops *o, int side, struct arr a)
{
    float *x = room(a.n * sizeof *x);
    bool half = a.half && side == TESTED;
    o->k[side]->download(o->k[side], x, a.p[side], a.n * (half ? sizeof(uint16_t) : sizeof *x));
    if (half)
        widen(x, a.n);
    if (side == TESTED)
        add_bits(o, x, a.n);
    return x;
}

static void result(struct ops *o, const char *name, bool ok, double error, double tolerance)
{
    o->checks++;
    o->failed += !ok;
    printf("%s  %-44s %-6s error %.2e of %.0e", ok ? "ok    " : "FAILED", o->what, name, error,
           tolerance);
}

void ops_check(struct ops *o, const char *name, struct arr a, double tolerance)
{
    float *reference = fetch(o, REFERENCE, a), *tested = fetch(o, TESTED, a);
    double diff = 0, norm = 0;
    size_t nan = 0, where = 0;
    for (size_t i = 0; i < a.n; i++) {
        double r = reference[i], d = tested[i] - r;
        if (isnan(d)) {
            where = nan++ ? where : i;
            continue;
        }
        norm += r * r;
        diff += d * d;
    }
    double error = norm > 0 ? sqrt(diff / norm) : sqrt(diff);
    result(o, name, !nan && error <= tolerance, error, tolerance);
    if (nan)
        printf(", %zu of %zu are NaN, first %zu", nan, a.n, where);
    putchar('\n');
    free(reference);
    free(tested);
}

void ops_small(struct ops *o, const char *name, struct arr a, double most)
{
    float *tested = fetch(o, TESTED, a);
    double largest = 0;
    for (size_t i = 0; i < a.n; i++)
        largest = fabs(tested[i]) <= largest ? largest : fabs(tested[i]);
    result(o, name, largest <= most, largest, most);
    putchar('\n');
    free(tested);
}

void ops_verdict(struct ops *o, const char *name, bool good)
{
    o->checks++;
    o->failed += !good;
    printf("%s  %-44s %s\n", good ? "ok    " : "FAILED", o->what, name);
}

int main(int argc, char **argv)
{
    struct ops o = {.what = "start", .seed = (uint64_t)time(NULL)};
    struct err e = {0};
    const char *device = "cuda";
    bool small = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--small"))
            small = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            device = argv[++i];
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            o.seed = strtoull(argv[++i], NULL, 10);
        else
            return fprintf(stderr, "usage: ops_test [--device cuda|cpu] [--seed N] [--small]\n"),
                   ERR_USAGE;
    }
    printf("seed %llu\n", (unsigned long long)o.seed);
    enum err_code rc = kern_cpu(&o.k[REFERENCE], 0, &e);
    unsetenv("KERN_ISA");
    if (!rc)
        rc = strcmp(device, "cpu") ? kern_cuda(&o.k[TESTED], 0, &e) : kern_cpu(&o.k[TESTED], 1, &e);
    if (rc)
        return fprintf(stderr, "ops_test: %s\n", e.msg), (int)rc;
    printf("%s beside %s\n", o.k[TESTED]->name, o.k[REFERENCE]->name);
    ops_rows(&o, small);
    ops_products(&o, small);
    ops_attention(&o, small);
    ops_loss(&o, small);
    ops_optimiser(&o, small);
    ops_updates(&o, small);
    if (ops_has_half(&o)) {
        ops_halves(&o, small);
        ops_stream(&o, small);
        ops_xsa(&o, small);
        ops_mlps(&o, small);
    }
    ops_qkv(&o, small);
    ops_step(&o);
    ops_case(&o, "end");
    printf("%zu checks, %zu failed, bits %016llx\n", o.checks, o.failed,
           (unsigned long long)o.bits);
    kern_free(o.k[REFERENCE]);
    kern_free(o.k[TESTED]);
    return o.failed ? ERR_CLAIM : ERR_OK;
}
