/*
 * cm_fuzz - any bytes as the streams of the codec "cm", behind a sound table: that is where the
 * model runs. The table has a matrix with a trellis, one that may be searched for similar rows, one
 * with more columns than sums, an empty one, and vectors. The first two bytes say how many of the
 * others belong to the matrices.
 */
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "packer/cm.h"
#include "packer/payload.h"
#include "stub/weights_dec.h"
#include "tests/fuzz/fuzz.h"

enum { WIDE = 16400, LIMIT = 4096 };

static struct coded sound; /* its head is used */
static size_t payload_n, head_n;

static void prepare(void)
{
    static const uint8_t zero[2 * WIDE];
    static const uint8_t step[8] = {0, 0, 0, 60, 0, 0, 128, 65}; /* {2^-7, 16} */
    struct tensor_view t[] = {
        {"e.q", ST_I8, 2, {80, 96}, zero, 80 * 96},
        {"w.q", ST_I8, 2, {9, 7}, zero, 63},
        {"w.rexp", ST_I8, 1, {9}, zero, 9},
        {"w.cexp", ST_I8, 1, {7}, zero, 7},
        {"w.step", ST_F32, 1, {2}, step, 8},
        {"x.q", ST_I8, 2, {2, WIDE}, zero, 2 * WIDE},
        {"n.q", ST_I8, 2, {0, 5}, zero, 0},
        {"s", ST_F16, 1, {11}, zero, 22},
        {"d", ST_F64, 1, {3}, zero, 24},
    };
    struct st_file f = {.tensor = t, .count = sizeof t / sizeof *t};
    struct err e = {0};
    uint8_t *payload;
    if (payload_new(&payload, &payload_n, &f, "fuzz", &e) ||
        coded_cm(&sound, payload, payload_n, &e))
        abort();
    head_n = 8 + le32(sound.data + 4);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint64_t work[WEIGHTS_WORK / 8];
    if (!sound.data)
        prepare();
    if (n < 2 || n > LIMIT)
        return 0;
    size_t rest = n - 2, first = le16(data) % (rest + 1), at = head_n;
    uint8_t *in = malloc(head_n + 17 + rest), *out = malloc(payload_n);
    if (!in || !out)
        abort();
    memcpy(in, sound.data, head_n);
    in[at++] = 1;
    put_le32(in + at, (uint32_t)payload_n);
    put_le32(in + at + 4, (uint32_t)first);
    memcpy(in + at + 8, data + 2, first);
    at += 8 + first;
    put_le32(in + at, (uint32_t)payload_n);
    put_le32(in + at + 4, (uint32_t)(rest - first));
    memcpy(in + at + 8, data + 2 + first, rest - first);
    at += 8 + rest - first;
    if (weights_decode(CODEC_CM, sound.params, in, at, out, payload_n, work))
        fuzz_read(out, payload_n);
    free(in);
    free(out);
    return 0;
}
