/*
 * ptz_layers_test.c - exists for packed weights whose compressor is guessed wrong: half of the
 * formats have no magic number, scripts put marks of their own in front, and a wrong guess must end
 * in a message and not in somebody else's data.
 */
#include <lzma.h>

#include "packer/byteshuffle.h"
#include "packer/ptz_layers.h"
#include "tests/unit/util.h"

enum { LIMIT = 1 << 20, MOST = 1 << 16 };

/* A payload by its first bytes; the rest compresses a little. */
static uint8_t payload[5000];

static int fill(void **state)
{
    uint64_t seed = 7;
    (void)state;
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)util_below(&seed, 11);
    memcpy(payload, "\x80\x02}q", 4);
    return 0;
}

/* ---- making files ---- */

struct file {
    uint8_t data[MOST];
    size_t n;
};

static void squeeze(struct file *f, enum ptz_codec c)
{
    uint8_t *out;
    size_t n;
    struct err e = {0};
    EXPECT("compress", ERR_OK, "", ptz_compress(&out, &n, c, 0, f->data, f->n, &e), e);
    assert_true(n <= MOST);
    memcpy(f->data, out, n);
    f->n = n;
    free(out);
}

static void squeeze_lzma(struct file *f, bool alone)
{
    static uint8_t out[MOST];
    lzma_options_lzma how;
    lzma_stream z = LZMA_STREAM_INIT;
    assert_false(lzma_lzma_preset(&how, 6));
    const lzma_filter filter[] = {{LZMA_FILTER_LZMA2, &how}, {LZMA_VLI_UNKNOWN, NULL}};
    assert_int_equal(alone ? lzma_alone_encoder(&z, &how) : lzma_raw_encoder(&z, filter), LZMA_OK);
    z.next_in = f->data;
    z.avail_in = f->n;
    z.next_out = out;
    z.avail_out = sizeof out;
    assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
    f->n = (size_t)z.total_out;
    memcpy(f->data, out, f->n);
    lzma_end(&z);
}

static void prepend(struct file *f, const char *text, size_t n)
{
    memmove(f->data + n, f->data, f->n);
    memcpy(f->data, text, n);
    f->n += n;
}

static void shuffle(struct file *f, unsigned stride)
{
    static uint8_t out[MOST];
    byteshuffle(out, f->data, f->n, stride);
    f->n = byteshuffle_size(f->n, stride);
    memcpy(f->data, out, f->n);
}

/* Layers from the inside: z xz, b brotli, s zstd, d deflate, r raw LZMA2, a lzma alone, 2 and 4
 * byte shuffles, and marks: x, y, w the bytes 0, 1, 2; Z, S, L, B the words. */
static void wrap(struct file *f, const char *layers)
{
    memcpy(f->data, payload, f->n = sizeof payload);
    for (; *layers; layers++)
        switch (*layers) {
        case 'z':
            squeeze(f, PTZ_LZMA);
            break;
        case 'b':
            squeeze(f, PTZ_BROTLI);
            break;
        case 's':
            squeeze(f, PTZ_ZSTD);
            break;
        case 'd':
            squeeze(f, PTZ_ZLIB);
            break;
        case 'r':
        case 'a':
            squeeze_lzma(f, *layers == 'a');
            break;
        case '2':
        case '4':
            shuffle(f, (unsigned)(*layers - '0'));
            break;
        case 'x':
        case 'y':
        case 'w':
            prepend(f, *layers == 'x' ? "\0" : *layers == 'y' ? "\1" : "\2", 1);
            break;
        default:
            prepend(f,
                    *layers == 'Z'   ? "ZLIB"
                    : *layers == 'S' ? "ZSTD"
                    : *layers == 'L' ? "LZMA"
                                     : "BROT",
                    4);
        }
}

static const struct {
    const char *layers, *text;
    enum ptz_codec codec;
    unsigned stride;
} cases[] = {
    {"", "", PTZ_RAW, 0},
    {"z", "lzma", PTZ_LZMA, 0},
    {"b", "brotli", PTZ_BROTLI, 0},
    {"s", "zstd", PTZ_ZSTD, 0},
    {"d", "zlib", PTZ_ZLIB, 0},
    {"r", "lzma (raw)", PTZ_LZMA_RAW, 0},
    {"a", "lzma (alone)", PTZ_LZMA_ALONE, 0},
    {"2", "byte shuffle 2", PTZ_RAW, 2},
    {"2b", "brotli, byte shuffle 2", PTZ_BROTLI, 2},
    {"4r", "lzma (raw), byte shuffle 4", PTZ_LZMA_RAW, 4},
    {"4a", "lzma (alone), byte shuffle 4", PTZ_LZMA_ALONE, 4},
    {"zx", "mark 0, lzma", PTZ_LZMA, 0},
    {"by", "mark 1, brotli", PTZ_BROTLI, 0},
    {"sw", "mark 2, zstd", PTZ_ZSTD, 0},
    {"dZ", "mark ZLIB, zlib", PTZ_ZLIB, 0},
    {"sS", "mark ZSTD, zstd", PTZ_ZSTD, 0},
    {"zL", "mark LZMA, lzma", PTZ_LZMA, 0},
    {"aL", "mark LZMA, lzma (alone)", PTZ_LZMA_ALONE, 0},
    {"bB", "mark BROT, brotli", PTZ_BROTLI, 0},
    {"2bB", "mark BROT, brotli, byte shuffle 2", PTZ_BROTLI, 2},
    {"dz", "lzma, zlib", PTZ_LZMA, 0},
    {"rd", "zlib, lzma (raw)", PTZ_ZLIB, 0},
    {"dzsd", "zlib, zstd, lzma, zlib", PTZ_ZLIB, 0},
};

static void peels(void **state)
{
    static struct file f;
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ptz_layers l;
        struct err e = {0};
        wrap(&f, cases[i].layers);
        struct guarded g = guarded_new(f.data, f.n);
        EXPECT(cases[i].text, ERR_OK, "", ptz_layers_peel(&l, g.p, f.n, LIMIT, "file", &e), e);
        if (strcmp(l.text, cases[i].text) || l.codec != cases[i].codec ||
            l.stride != cases[i].stride)
            fail_msg("%s: said to be \"%s\"", cases[i].text, l.text);
        if (l.n != sizeof payload || memcmp(l.data, payload, l.n))
            fail_msg("%s: other contents", cases[i].text);
        ptz_layers_free(&l);
        guarded_free(&g);
    }
}

/* Cut anywhere, it is refused, or gives what was complete (a mark and an end marker less). */
static void cut(void **state)
{
    static struct file f;
    (void)state;
    for (size_t i = 1; i < COUNT(cases); i++) {
        wrap(&f, cases[i].layers);
        for (size_t n = 0; n < f.n; n += 1 + n / 16) {
            struct guarded g = guarded_new(f.data, n);
            struct ptz_layers l;
            struct err e = {0};
            enum err_code rc = ptz_layers_peel(&l, g.p, n, LIMIT, "file", &e);
            if ((rc && rc != ERR_INPUT) || (!rc && l.n > sizeof payload))
                fail_msg("%s, %zu bytes: status %d", cases[i].text, n, (int)rc);
            if (!rc && n > 16 && l.codec != PTZ_RAW)
                fail_msg("%s, %zu bytes: read", cases[i].text, n);
            ptz_layers_free(&l);
            guarded_free(&g);
        }
    }
}

static void refused(void **state)
{
    static struct file f;
    static const struct {
        const char *layers, *part;
        size_t limit;
    } layers[] = {
        {"zdzds", "more than 4 layers", LIMIT},
        {"22222", "more than 4 layers", LIMIT},
        {"d", "expand to more than 4999 bytes", 4999},
        {"a", "expand to more than 4999 bytes", 4999},
        {"zx", "expand to more than 4999 bytes", 4999},
    };
    static const struct {
        const char *text;
        size_t n;
        const char *part;
    } texts[] = {
        {"hello, world", 12, "brotli"},
        {"ZSTDhello", 9, "zstd"},
        {"\1hello", 6, "brotli"},
        {"\2hello", 6, "brotli"},
        {"\x5d\0\0\0\x25\0\0\0\0\0\0\0\0\0xxxx", 18, "want more memory"},
        {"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0", 14, "lzma"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(layers); i++) {
        struct ptz_layers l;
        struct err e = {0};
        wrap(&f, layers[i].layers);
        EXPECT(layers[i].layers, ERR_INPUT, layers[i].part,
               ptz_layers_peel(&l, f.data, f.n, layers[i].limit, "file", &e), e);
    }
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct ptz_layers l;
        struct err e = {0};
        struct guarded g = guarded_new(texts[i].text, texts[i].n);
        EXPECT(texts[i].part, ERR_INPUT, texts[i].part,
               ptz_layers_peel(&l, g.p, texts[i].n, LIMIT, "file", &e), e);
        guarded_free(&g);
    }
}

/* Layers around what is no weights: the message says inside what. */
static void no_weights(void **state)
{
    static struct file f;
    struct ptz_layers l;
    struct err e = {0};
    (void)state;
    memcpy(payload, "text", 4);
    wrap(&f, "d");
    EXPECT("text in zlib", ERR_INPUT, "inside zlib",
           ptz_layers_peel(&l, f.data, f.n, LIMIT, "file", &e), e);
    e = (struct err){0};
    wrap(&f, "b");
    EXPECT("text in brotli", ERR_INPUT, "inside brotli",
           ptz_layers_peel(&l, f.data, f.n, LIMIT, "file", &e), e);
    fill(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peels),
        cmocka_unit_test(cut),
        cmocka_unit_test(refused),
        cmocka_unit_test(no_weights),
    };
    return cmocka_run_group_tests(tests, fill, util_cleanup);
}
