/*
 * codecs.c - bytes and seconds of the weight codecs beside general compressors.
 *
 *     codecs FILE...     weights: safetensors, or a record's packed file (.ptz)
 *     codecs gaussian    33.8 M Gaussian symbols in the shapes of a record, sigma 2.45
 *
 * Input of all is the payload of a weight section. brotli also gets it with matrices transposed
 * (the win that is free for such coders), and with the bytes of 16-bit tensors apart. "entropy" is
 * that of the symbols of each int8 matrix without context, and of each byte of the elements of
 * other tensors; for Gaussian symbols it is that of their distribution. Seconds are processor time
 * of one run, all threads together; by the clock, of cm alone, they are with a thread for each
 * processor.
 */
#include <brotli/decode.h>
#include <brotli/encode.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "kernels/cpu/pool.h"
#include "model/safetensors.h"
#include "packer/codec.h"
#include "packer/payload.h"
#include "packer/ptz_read.h"
#include "stub/weights_dec.h"

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double used(void)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void stop_on(enum err_code rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "codecs: %s\n", e->msg);
        exit((int)rc);
    }
}

/* A payload, and the yardstick of its ratios. */
struct set {
    const char *name;
    const uint8_t *raw;
    size_t n;
    double entropy; /* bytes */
};

static void line(const struct set *s, const char *codec, size_t bytes, double enc, double dec)
{
    printf("| %s | %s | %zu | %+.2f %% | %.2f | %.2f |\n", s->name, codec, bytes,
           100 * ((double)bytes / s->entropy - 1), enc, dec);
    fflush(stdout);
}

/* Decode once more: cm by all threads, and the others alone. */
static void decode(const struct coded *c, uint8_t *out, struct pool *pool, void *work)
{
    if (c->codec == CODEC_ZSTD ? ZSTD_decompress(out, c->raw_size, c->data, c->size) != c->raw_size
                               : !weights_decode_on(pool, c->codec, c->params, c->data, c->size,
                                                    out, c->raw_size, work))
        abort();
}

static void ours(const struct set *s, int codec)
{
    struct coded c = {0};
    struct err e = {0};
    uint8_t *out = must(malloc(s->n));
    void *work = must(malloc(WEIGHTS_WORK));
    double t0 = used();
    stop_on(coded_weights(&c, s->raw, s->n, codec, &e), &e);
    double t1 = used();
    decode(&c, out, NULL, work);
    double t2 = used();
    line(s, codec_name((uint32_t)codec), c.size, t1 - t0 - (t2 - t1), t2 - t1);
    if (codec == CODEC_CM) {
        struct pool *pool = pool_for(CM_STREAMS_MAX);
        double began = seconds(CLOCK_MONOTONIC);
        decode(&c, out, pool, work);
        printf("| %s | cm, by the clock, %zu processors | | | | %.2f |\n", s->name, pool_cores(),
               seconds(CLOCK_MONOTONIC) - began);
        pool_free(pool);
    }
    if (memcmp(out, s->raw, s->n))
        abort();
    free(out);
    free(work);
    coded_free(&c);
}

static void brotli(const struct set *s, const char *name, const uint8_t *raw)
{
    size_t size = BrotliEncoderMaxCompressedSize(s->n), back = s->n;
    uint8_t *out = must(malloc(size)), *again = must(malloc(s->n));
    double t0 = used();
    if (!BrotliEncoderCompress(11, 24, BROTLI_MODE_GENERIC, s->n, raw, &size, out))
        abort();
    double t1 = used();
    if (BrotliDecoderDecompress(size, out, &back, again) != BROTLI_DECODER_RESULT_SUCCESS ||
        back != s->n || memcmp(again, raw, s->n))
        abort();
    line(s, name, size, t1 - t0, used() - t1);
    free(out);
    free(again);
}

static bool is_matrix(const struct tensor_view *t)
{
    return t->dtype == ST_I8 && t->ndim >= 2 && t->nbytes;
}

/* The payload with int8 matrices column by column, or with 16-bit tensors byte by byte. */
static uint8_t *rearranged(const uint8_t *raw, size_t n, bool transpose)
{
    struct weights_cursor c;
    struct tensor_view t;
    uint8_t *out = must(malloc(n));
    memcpy(out, raw, n);
    weights_open(&c, raw, n);
    while (weights_next(&c, &t)) {
        uint8_t *to = out + (t.data - raw);
        bool matrix = is_matrix(&t);
        size_t cols = matrix ? t.shape[t.ndim - 1] : st_dtype_size(t.dtype);
        size_t rows = t.nbytes / cols;
        if (matrix == transpose && (matrix || cols == 2))
            for (size_t i = 0; i < rows; i++)
                for (size_t j = 0; j < cols; j++)
                    to[j * rows + i] = t.data[i * cols + j];
    }
    return out;
}

static double entropy(const uint8_t *raw, size_t n)
{
    struct weights_cursor c;
    struct tensor_view t;
    double bits = 0;
    weights_open(&c, raw, n);
    while (weights_next(&c, &t))
        for (size_t size = st_dtype_size(t.dtype), b = 0; b < size; b++) {
            size_t count[256] = {0};
            for (size_t i = b; i < t.nbytes; i += size)
                count[t.data[i]]++;
            for (int v = 0; v < 256; v++)
                if (count[v])
                    bits += (double)count[v] * log2((double)(t.nbytes / size) / (double)count[v]);
        }
    return bits / 8;
}

static void all(const struct set *s)
{
    static const int codecs[] = {CODEC_CM, CODEC_RANGE, CODEC_LZMA, CODEC_ZSTD};
    printf("| %s | entropy | %.0f | | | |\n", s->name, s->entropy);
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        ours(s, codecs[i]);
    uint8_t *turned = rearranged(s->raw, s->n, true), *apart = rearranged(s->raw, s->n, false);
    brotli(s, "brotli -q 11 -w 24", s->raw);
    brotli(s, "brotli, transposed", turned);
    brotli(s, "brotli, bytes apart", apart);
    free(turned);
    free(apart);
}

/* splitmix64 and Box-Muller: the same symbols on every machine with the same libm. */
static double gauss(uint64_t *state)
{
    double u[2];
    for (int i = 0; i < 2; i++) {
        uint64_t z = *state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        u[i] = ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
    }
    return sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]);
}

static void gaussian(void)
{
    static const size_t shape[][2] = {{512, 512}, {256, 512},  {256, 512},
                                      {512, 512}, {2048, 512}, {512, 2048}};
    enum { LAYERS = 11, KINDS = 6, TENSORS = 1 + LAYERS * KINDS };
    struct tensor_view t[TENSORS];
    char name[TENSORS][32];
    const double sigma = 2.45;
    double ideal = 0;
    size_t elements = 0, n;
    uint64_t seed = 1;
    struct err e = {0};
    uint8_t *raw;
    for (size_t i = 0; i < TENSORS; i++) {
        size_t rows = i ? shape[(i - 1) % KINDS][0] : 4096,
               cols = i ? shape[(i - 1) % KINDS][1] : 512;
        uint8_t *q = must(malloc(rows * cols));
        for (size_t k = 0; k < rows * cols; k++) {
            double x = floor(sigma * gauss(&seed) + 0.5);
            q[k] = (uint8_t)(int8_t)(x < -31 ? -31 : x > 31 ? 31 : x);
        }
        snprintf(name[i], sizeof name[i], "blocks.%zu.w%zu.q", i / KINDS, i % KINDS);
        t[i] = (struct tensor_view){name[i], ST_I8, 2, {rows, cols}, q, rows * cols};
        elements += rows * cols;
    }
    for (int k = -31; k <= 31; k++) {
        double p = 0.5 * (erf((k + 0.5) / sigma / sqrt(2)) - erf((k - 0.5) / sigma / sqrt(2)));
        ideal -= p > 0 ? p * log2(p) : 0;
    }
    struct st_file f = {.tensor = t, .count = TENSORS};
    stop_on(payload_new(&raw, &n, &f, "gaussian", &e), &e);
    all(&(struct set){"gaussian", raw, n, ideal * (double)elements / 8});
    free(raw);
    for (size_t i = 0; i < TENSORS; i++)
        free((void *)(uintptr_t)t[i].data);
}

/* The tensors of a record's packed file, whatever its layout: what is below `v`, named by its keys.
 */
struct tree {
    struct ptz p;
    struct tensor_view t[4096];
    size_t count;
};

static void collect(struct tree *r, const struct pickle_value *v, const char *name)
{
    struct err e = {0};
    if (r->count < sizeof r->t / sizeof *r->t && ptz_is_tensor(&r->p, v)) {
        stop_on(ptz_tensor(&r->p, v, name, &r->t[r->count++], &e), &e);
    } else if (v->kind == PICKLE_DICT) {
        for (size_t i = 0; i < v->n; i++) {
            const struct pickle_value *key = v->item[2 * i];
            char *path = must(malloc(WT_NAME_MAX + 1)); /* lives as long as the program */
            snprintf(path, WT_NAME_MAX + 1, "%s%s%s", name, *name ? "." : "",
                     key->kind == PICKLE_STR ? key->text : "?");
            collect(r, v->item[2 * i + 1], path);
        }
    }
}

static void file(const char *path)
{
    static struct tree r;
    struct err e = {0};
    struct st_file f = {0};
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    struct set s = {.name = slash ? slash + 1 : path};
    uint8_t *raw;
    if (dot && !strcmp(dot, ".ptz")) {
        r = (struct tree){0};
        stop_on(ptz_open(&r.p, path, &e), &e);
        collect(&r, r.p.root, "");
        struct st_file made = {.tensor = r.t, .count = r.count};
        stop_on(payload_new(&raw, &s.n, &made, path, &e), &e);
        ptz_close(&r.p);
    } else {
        stop_on(st_open(&f, path, &e), &e);
        stop_on(payload_new(&raw, &s.n, &f, path, &e), &e);
        st_close(&f);
    }
    s.raw = raw;
    s.entropy = entropy(raw, s.n);
    all(&s);
    free(raw);
}

int main(int argc, char **argv)
{
    printf("| set | codec | bytes | beside entropy | encode s | decode s |\n"
           "|---|---|---:|---:|---:|---:|\n");
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "gaussian"))
            gaussian();
        else
            file(argv[i]);
    return 0;
}
