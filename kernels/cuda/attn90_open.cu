/*
 * attn90_open.cu - is attention by attn90.cu used on this card? Its results beside those of attn.cu
 * decide, on a task so small that it costs nothing: what only a card can show (a descriptor that
 * means something else, an order that is not kept) then costs speed and not correctness.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#ifdef CUDA_HAS_SM90A
/* Two tiles of queries and a third in part; two heads per KV head. */
enum { BATCH = 2, LEN = 150, HEADS = 2, KV_HEADS = 1, DIM = 64 };
enum { QUERIES = BATCH * LEN * HEADS * DIM, KEYS = BATCH * LEN * KV_HEADS * DIM };
enum { ROWS = BATCH * LEN * HEADS };

/* Inputs one behind the other, then results: o, dq, dk, dv, lse. */
enum { IN_Q = 0, IN_K = IN_Q + QUERIES, IN_V = IN_K + KEYS, IN_DO = IN_V + KEYS };
enum { INPUTS = IN_DO + QUERIES };
enum {
    OUT_O = INPUTS,
    OUT_DQ = OUT_O + QUERIES,
    OUT_DK = OUT_DQ + QUERIES,
    OUT_DV = OUT_DK + KEYS
};
enum { OUT_LSE = OUT_DV + KEYS, FLOATS = OUT_LSE + ROWS };
static const int results[] = {OUT_O, OUT_DQ, OUT_DK, OUT_DV, OUT_LSE, FLOATS};

/* Both round the same operands to bf16 and add in fp32, in different order; weights and their
 * gradients are rounded to 8 bits at different places. */
static const double NOISE = 1e-2;

static void attend(struct kern *k, float *x)
{
    struct kern_attn a = {};
    a.q = x + IN_Q;
    a.k = x + IN_K;
    a.v = x + IN_V;
    a.do_ = x + IN_DO;
    a.o = x + OUT_O;
    a.dq = x + OUT_DQ;
    a.dk = x + OUT_DK;
    a.dv = x + OUT_DV;
    a.lse = x + OUT_LSE;
    a.batch = BATCH;
    a.tq = a.tk = LEN;
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.head_dim = DIM;
    a.scale = 0.25f;
    k->attn_fwd(k, &a);
    k->attn_bwd(k, &a);
}

/* Of one result, |x - y| / |y|. NaN when there is one. */
static double distance(const float *x, const float *y, int n)
{
    double diff = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        diff += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        norm += (double)y[i] * y[i];
    }
    return sqrt(diff / norm);
}

static bool agree(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    float *host = (float *)malloc(2 * FLOATS * sizeof *host), *x = NULL;
    struct err e = {};
    bool good = false;
    unsigned s = 1;
    if (!host || !(x = (float *)k->alloc(k, FLOATS * sizeof *x)))
        goto out;
    memset(host, 0xff, 2 * FLOATS * sizeof *host); /* a result that nobody writes is NaN */
    for (int i = 0; i < INPUTS; i++) {
        s = s * 1664525u + 1013904223u;
        host[i] = 1.7f * ((float)(s >> 8) * 0x1p-23f - 1.0f);
    }
    for (int which = 0; which < 2; which++) {
        float *y = host + which * FLOATS;
        c->attn90 = which == 1;
        k->upload(k, x, host, INPUTS * sizeof *x);
        k->upload(k, x + INPUTS, host + FLOATS + INPUTS, (FLOATS - INPUTS) * sizeof *x);
        attend(k, x);
        k->download(k, y, x, FLOATS * sizeof *x);
    }
    good = true;
    for (int i = 0; i + 1 < (int)(sizeof results / sizeof results[0]); i++) {
        int at = results[i], n = results[i + 1] - at;
        good = good && distance(host + FLOATS + at, host + at, n) <= NOISE;
    }
out:
    k->free(k, x);
    /* A failure is a difference like any other, and not the next operation's. */
    good = k->sync(k, &e) == ERR_OK && good;
    free(host);
    return good;
}
#endif

bool cuda_attn90_open(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    c->attn90 = false;
#ifdef CUDA_HAS_SM90A
    const char *wanted = getenv("KERN_ATTN");
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, c->device) !=
            cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, c->device) !=
            cudaSuccess ||
        major != 9 || minor != 0 || (wanted && !strcmp(wanted, "mma")))
        return false;
    c->attn90 = (wanted && !strcmp(wanted, "wgmma")) || agree(k);
#endif
    return c->attn90;
}
