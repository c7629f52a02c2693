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

/* Inputs one behind the other, then the same as half values and room for what the backward with XSA
 * makes on its way, then results: of attention alone, from floats, and with XSA behind it, from
 * half values. Half values have the room of floats. */
enum { IN_Q = 0, IN_K = IN_Q + QUERIES, IN_V = IN_K + KEYS, IN_DO = IN_V + KEYS };
enum { INPUTS = IN_DO + QUERIES };
enum { HALVES = INPUTS, DO = HALVES + INPUTS, OUT_O = DO + QUERIES };
enum { OUT_DQ = OUT_O + QUERIES, OUT_DK = OUT_DQ + QUERIES, OUT_DV = OUT_DK + KEYS };
enum { OUT_LSE = OUT_DV + KEYS, OUT_Y = OUT_LSE + ROWS, XSA_DQ = OUT_Y + QUERIES };
enum { XSA_DK = XSA_DQ + QUERIES, XSA_DV = XSA_DK + KEYS, XSA_LSE = XSA_DV + KEYS };
enum { OUT_S = XSA_LSE + ROWS, FLOATS = OUT_S + ROWS };
static const int results[] = {OUT_O,  OUT_DQ, OUT_DK, OUT_DV,  OUT_LSE, OUT_Y,
                              XSA_DQ, XSA_DK, XSA_DV, XSA_LSE, OUT_S,   FLOATS};

/* Both round the same operands to bf16 and add in fp32, in different order; weights and their
 * gradients are rounded to 8 bits at different places. */
static const double NOISE = 1e-2;

static struct kern_attn sizes(void)
{
    struct kern_attn a = {};
    a.batch = BATCH;
    a.tq = a.tk = LEN;
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.head_dim = DIM;
    a.scale = 0.25f;
    return a;
}

static void attend(struct kern *k, float *x)
{
    struct kern_attn a = sizes();
    a.q = x + IN_Q;
    a.k = x + IN_K;
    a.v = x + IN_V;
    a.do_ = x + IN_DO;
    a.o = x + OUT_O;
    a.dq = x + OUT_DQ;
    a.dk = x + OUT_DK;
    a.dv = x + OUT_DV;
    a.lse = x + OUT_LSE;
    k->attn_fwd(k, &a);
    k->attn_bwd(k, &a);
}

static void attend_xsa(struct kern *k, float *x)
{
    struct kern_attn_xsa f = {};
    bf16 *in = (bf16 *)(x + HALVES);
    cuda_to_bf16(cuda_of(k), in, x, INPUTS);
    f.attn = sizes();
    f.attn.half = f.attn.half_o = true;
    f.attn.q = (const float *)(in + IN_Q);
    f.attn.k = (const float *)(in + IN_K);
    f.attn.v = (const float *)(in + IN_V);
    f.attn.do_ = (const float *)(in + IN_DO);
    f.attn.o = x + OUT_Y;
    f.attn.dq = x + XSA_DQ;
    f.attn.dk = x + XSA_DK;
    f.attn.dv = x + XSA_DV;
    f.attn.lse = x + XSA_LSE;
    f.s = x + OUT_S;
    f.do_ = x + DO;
    k->attn_xsa_fwd(k, &f);
    k->attn_xsa_bwd(k, &f);
}

/* n half values to floats, in place. */
static void widen(float *x, int n)
{
    while (n--) {
        uint16_t half;
        memcpy(&half, (const char *)x + n * sizeof half, sizeof half);
        const uint32_t word = (uint32_t)half << 16;
        memcpy(&x[n], &word, sizeof word);
    }
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
        attend_xsa(k, x);
        k->download(k, y, x, FLOATS * sizeof *x);
        widen(y + OUT_Y, QUERIES);
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

bool cuda_is_sm90(const struct cuda *c)
{
    int major = 0, minor = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, c->device) ==
               cudaSuccess &&
           cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, c->device) ==
               cudaSuccess &&
           major == 9 && minor == 0;
}

bool cuda_attn90_open(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    c->attn90 = false;
#ifdef CUDA_HAS_SM90A
    const char *wanted = getenv("KERN_ATTN");
    if (!cuda_is_sm90(c) || (wanted && !strcmp(wanted, "mma")))
        return false;
    c->attn90 = (wanted && !strcmp(wanted, "wgmma")) || agree(k);
#endif
    return c->attn90;
}
