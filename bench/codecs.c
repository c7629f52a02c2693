/*
 * codecs.c - bytes and seconds of the weight codecs beside general compressors.
 *
 *     codecs FILE.safetensors...     real weights
 *     codecs gaussian                33.8 M Gaussian symbols in the shapes of a record, sigma 2.45
 *
 * Input of all is the payload of a weight section. brotli also gets it with matrices transposed
 * (the win that is free for such coders), and with the bytes of 16-bit tensors apart. The cm codec
 * is timed with one thread and, stream by stream, with the largest of its four streams, which is
 * what four threads would take. Seconds are processor time of one run.
 */
#include <brotli/decode.h>
#include <brotli/encode.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "model/safetensors.h"
#include "packer/codec.h"
#include "packer/payload.h"
#include "stub/cm_dec.h"
#include "stub/weights_dec.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void line(const char *set, const char *codec, size_t bytes, double enc, double dec)
{
    printf("| %s | %s | %zu | %.2f | %.2f |\n", set, codec, bytes, enc, dec);
    fflush(stdout);
}

static void ours(const char *set, int codec, const uint8_t *raw, size_t n)
{
    struct coded c = {0};
    struct err e = {0};
    double t0 = seconds();
    if (coded_weights(&c, raw, n, codec, &e)) {
        fprintf(stderr, "codecs: %s\n", e.msg);
        exit((int)e.code);
    }
    double t1 = seconds(), longest = 0;
    uint8_t *out = must(malloc(n));
    void *work = must(malloc(WEIGHTS_WORK));
    double t2 = seconds();
    if (codec == CODEC_ZSTD) {
        if (ZSTD_decompress(out, n, c.data, c.size) != n)
            abort();
    } else if (codec == CODEC_CM) {
        struct cm_file f;
        if (!cm_open(&f, c.params, c.data, c.size, out, n, work))
            abort();
        for (unsigned s = 1; s <= f.streams; s++) {
            double t = seconds();
            if (!cm_stream(&f, s, work))
                abort();
            t = seconds() - t;
            longest = t > longest ? t : longest;
        }
    } else if (!weights_decode(c.codec, c.params, c.data, c.size, out, n, work)) {
        abort();
    }
    double t3 = seconds();
    line(set, codec_name((uint32_t)codec), c.size, t1 - t0 - (t3 - t2), t3 - t2);
    if (codec == CODEC_CM)
        printf("| %s | cm, its longest stream | | | %.2f |\n", set, longest);
    free(out);
    free(work);
    coded_free(&c);
}

static void brotli(const char *set, const char *name, const uint8_t *raw, size_t n)
{
    size_t size = BrotliEncoderMaxCompressedSize(n), back = n;
    uint8_t *out = must(malloc(size)), *again = must(malloc(n));
    double t0 = seconds();
    if (!BrotliEncoderCompress(11, 24, BROTLI_MODE_GENERIC, n, raw, &size, out))
        abort();
    double t1 = seconds();
    if (BrotliDecoderDecompress(size, out, &back, again) != BROTLI_DECODER_RESULT_SUCCESS ||
        back != n || memcmp(again, raw, n))
        abort();
    line(set, name, size, t1 - t0, seconds() - t1);
    free(out);
    free(again);
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
        bool matrix = t.dtype == ST_I8 && t.ndim >= 2 && t.nbytes;
        size_t cols = matrix ? t.shape[t.ndim - 1] : st_dtype_size(t.dtype);
        size_t rows = t.nbytes / cols;
        if (matrix == transpose && (matrix || cols == 2))
            for (size_t i = 0; i < rows; i++)
                for (size_t j = 0; j < cols; j++)
                    to[j * rows + i] = t.data[i * cols + j];
    }
    return out;
}

static void all(const char *set, const uint8_t *raw, size_t n)
{
    static const int codecs[] = {CODEC_CM, CODEC_RANGE, CODEC_LZMA, CODEC_ZSTD};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        ours(set, codecs[i], raw, n);
    uint8_t *turned = rearranged(raw, n, true), *apart = rearranged(raw, n, false);
    brotli(set, "brotli -q 11 -w 24", raw, n);
    brotli(set, "brotli, transposed", turned, n);
    brotli(set, "brotli, bytes apart", apart, n);
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
        ideal -= p * log2(p);
    }
    struct st_file f = {.tensor = t, .count = TENSORS};
    if (payload_new(&raw, &n, &f, "gaussian", &e))
        abort();
    line("gaussian", "entropy of the distribution", (size_t)(ideal * (double)elements / 8), 0, 0);
    all("gaussian", raw, n);
    free(raw);
    for (size_t i = 0; i < TENSORS; i++)
        free((void *)(uintptr_t)t[i].data);
}

int main(int argc, char **argv)
{
    printf("| set | codec | bytes | encode s | decode s |\n|---|---|---:|---:|---:|\n");
    for (int i = 1; i < argc; i++) {
        struct st_file f;
        struct err e = {0};
        uint8_t *raw;
        size_t n;
        const char *slash = strrchr(argv[i], '/');
        if (!strcmp(argv[i], "gaussian")) {
            gaussian();
            continue;
        }
        if (st_open(&f, argv[i], &e) || payload_new(&raw, &n, &f, argv[i], &e)) {
            fprintf(stderr, "codecs: %s\n", e.msg);
            return (int)e.code;
        }
        all(slash ? slash + 1 : argv[i], raw, n);
        free(raw);
        st_close(&f);
    }
    return 0;
}
