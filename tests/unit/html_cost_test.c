/*
 * html_cost_test - guards against bytes of tensors that are made up: costs that do not add up to
 * the section, a model that this decoder no longer follows (the codecs' models change; then costs
 * are silently an estimate), and damaged sections that write outside.
 */
#include <math.h>

#include "model/reader.h"
#include "packer/cm.h"
#include "packer/codec.h"
#include "packer/payload.h"
#include "tests/unit/util.h"
#include "verify/html_cost.h"

enum { TENSORS = 5 };

/* Three matrices of different spread, fp16 scales, a few floats. */
static uint8_t *weights(size_t *n, size_t rows)
{
    static int8_t q[3][200 * 96];
    static uint16_t scale[200];
    static float small[7] = {1, 2, 3, 4, 5, 6, 7};
    uint64_t seed = 9;
    static const double spread[3] = {0.4, 3, 20};
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < rows * 96; i++)
            q[k][i] = (int8_t)rint(
                spread[k] * (util_uniform(&seed) + util_uniform(&seed) + util_uniform(&seed)));
    for (size_t i = 0; i < rows; i++)
        scale[i] = f32_to_f16((float)(0.01 + 0.001 * util_uniform(&seed)));
    struct tensor_view t[TENSORS] = {
        {"a.q", ST_I8, 2, {rows, 96}, (const uint8_t *)q[0], rows * 96},
        {"b.q", ST_I8, 2, {rows, 96}, (const uint8_t *)q[1], rows * 96},
        {"c.q", ST_I8, 2, {rows, 96}, (const uint8_t *)q[2], rows * 96},
        {"a.scale", ST_F16, 1, {rows}, (const uint8_t *)scale, rows * 2},
        {"small", ST_F32, 1, {7}, (const uint8_t *)small, sizeof small},
    };
    const struct st_file f = {.tensor = t, .count = TENSORS};
    struct err e = {0};
    uint8_t *p;
    EXPECT("payload", ERR_OK, "", payload_new(&p, n, &f, "test", &e), e);
    return p;
}

static struct blob_section section(const struct coded *c)
{
    struct blob_section s = {.kind = KIND_WEIGHTS,
                             .codec = c->codec,
                             .size = c->size,
                             .raw_size = c->raw_size,
                             .data = c->data};
    memcpy(s.params, c->params, sizeof s.params);
    return s;
}

static void encode(struct coded *c, int codec, const uint8_t *p, size_t n)
{
    struct err e = {0};
    EXPECT("encode", ERR_OK, "",
           codec == CODEC_CM      ? coded_cm(c, p, n, &e)
           : codec == CODEC_RANGE ? coded_range(c, p, n, &e)
           : codec == CODEC_ZSTD  ? coded_zstd(c, p, n, &e)
           : codec == CODEC_LZMA  ? coded_lzma(c, p, n, LZMA_PROBE, false, &e)
                                  : coded_none(c, p, n, &e),
           e);
}

static void sums(void **state)
{
    static const struct {
        const char *name;
        int codec;
        bool estimate;
        double
            frame; /* bytes that may belong to no tensor, at most: table, sizes, ends of streams */
    } cases[] = {
        {"none", CODEC_NONE, false, 200}, {"range", CODEC_RANGE, false, 200},
        {"cm", CODEC_CM, false, 200},     {"lzma", CODEC_LZMA, true, 1e-6},
        {"zstd", CODEC_ZSTD, true, 1e-6},
    };
    (void)state;
    for (size_t rows = 8; rows <= 200; rows += 192)
        for (size_t i = 0; i < COUNT(cases); i++) {
            struct coded c = {0};
            struct err e = {0};
            size_t n, count;
            bool estimate;
            double *cost, sum = 0;
            uint8_t *p = weights(&n, rows);
            encode(&c, cases[i].codec, p, n);
            struct blob_section s = section(&c);
            EXPECT(cases[i].name, ERR_OK, "", cost_tensors(&s, p, &cost, &count, &estimate, &e), e);
            assert_int_equal(count, TENSORS);
            if (estimate != cases[i].estimate)
                fail_msg("%s: %s", cases[i].name, estimate ? "an estimate" : "no estimate");
            for (size_t k = 0; k < count; k++) {
                if (!(cost[k] >= 0))
                    fail_msg("%s: tensor %zu costs %g", cases[i].name, k, cost[k]);
                sum += cost[k];
            }
            if (!(sum <= (double)c.size + 1e-6 && sum >= (double)c.size - cases[i].frame))
                fail_msg("%s: costs add up to %.1f of %zu", cases[i].name, sum, c.size);
            /* The wider, the dearer; a coder gets near the entropy of independent numbers. */
            if (cases[i].codec != CODEC_NONE && !(cost[0] < cost[1] && cost[1] < cost[2]))
                fail_msg("%s: %g %g %g", cases[i].name, cost[0], cost[1], cost[2]);
            if (cases[i].codec == CODEC_NONE && cost[0] != (double)rows * 96)
                fail_msg("none: %g", cost[0]);
            if (rows == 200 && !estimate && cases[i].codec != CODEC_NONE) {
                double bits = 8 * cost[2] / (200 * 96); /* deviation 20: log2(20 sqrt(2 pi e)) */
                if (!(bits > 6.2 && bits < 6.6))
                    fail_msg("%s: %g bits for a spread of 20", cases[i].name, bits);
            }
            free(cost);
            coded_free(&c);
            free(p);
        }
}

/* A section that was changed behind the checks: costs become an estimate, nothing else happens. */
static void damaged(void **state)
{
    static const int codec[] = {CODEC_RANGE, CODEC_CM};
    uint64_t seed = 4;
    (void)state;
    for (size_t i = 0; i < COUNT(codec); i++) {
        int noticed = 0;
        for (int round = 0; round < 30; round++) {
            struct coded c = {0};
            struct err e = {0};
            size_t n, count, at;
            bool estimate;
            double *cost;
            uint8_t *p = weights(&n, 8);
            encode(&c, codec[i], p, n);
            at = 8 + le32(c.data + 4); /* not in the table, which is taken from the payload */
            at += util_below(&seed, c.size - at);
            c.data[at] ^= (uint8_t)(1u << util_below(&seed, 8));
            struct guarded in = guarded_new(c.data, round % 3 ? c.size : at);
            struct blob_section s = section(&c);
            s.data = in.p;
            s.size = round % 3 ? c.size : at;
            EXPECT("damaged", ERR_OK, "", cost_tensors(&s, p, &cost, &count, &estimate, &e), e);
            noticed += estimate;
            free(cost);
            guarded_free(&in);
            coded_free(&c);
            free(p);
        }
        if (noticed < 25) /* the last bits of a stream decide nothing */
            fail_msg("codec %d: %d of 30 changes noticed", codec[i], noticed);
    }
    uint8_t bad[16] = {0xFF};
    struct blob_section s = {.raw_size = sizeof bad, .codec = CODEC_NONE, .size = 16, .data = bad};
    struct err e = {0};
    double *cost;
    size_t count;
    bool estimate;
    EXPECT("no table", ERR_INPUT, "table", cost_tensors(&s, bad, &cost, &count, &estimate, &e), e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums), cmocka_unit_test(damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
