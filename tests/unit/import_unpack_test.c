/*
 * import_unpack_test.c - exists for weights that come out of their bits in another order, shifted
 * by one, or from behind the end: five formats, none of which says what it is.
 */
#include "packer/import_unpack.h"
#include "tests/unit/util.h"

/* What the published functions make of small inputs (import_unpack.h names the folders). */
static const struct {
    const char *name;
    enum packing how;
    unsigned bits;
    size_t n, len;
    uint8_t in[8];
    int8_t out[12];
} cases[] = {
    {"ternary",
     PACK_TERNARY,
     0,
     7,
     2,
     {0 + 1 * 3 + 2 * 9 + 1 * 27 + 0 * 81, 2 + 0 * 3},
     {-1, 0, 1, 0, -1, 1, -1}},
    {"ternary, the last byte", PACK_TERNARY, 0, 5, 1, {242}, {1, 1, 1, 1, 1}},
    {"bitmask", PACK_BITMASK, 0, 10, 3, {0xb0, 0x40, 0x50}, {-1, 0, 1, -1, 0, 0, 0, 0, 0, 1}},
    {"bitmask of zeros", PACK_BITMASK, 0, 8, 1, {0}, {0}},
    {"binary", PACK_BINARY, 0, 9, 2, {0x05, 0x01}, {1, -1, 1, -1, -1, -1, -1, -1, 1}},
    {"nibble", PACK_NIBBLE, 0, 3, 2, {0xf1, 0x08}, {-7, 7, 0}},
    {"2 bits", PACK_BITS, 2, 5, 2, {0x24, 0x02}, {-1, 0, 1, -1, 1}},
    {"6 bits", PACK_BITS, 6, 4, 3, {0x40, 0xf0, 0xf9}, {-31, -30, 0, 31}},
    {"8 bits", PACK_BITS, 8, 2, 2, {0, 254}, {-127, 127}},
    {"nothing", PACK_TERNARY, 0, 0, 0, {0}, {0}},
};

/* The published packers, written down once more. */
static size_t pack(uint8_t *out, const int8_t *q, size_t n, enum packing how, unsigned bits)
{
    size_t signs = 0, mask = (n + 7) / 8;
    memset(out, 0, n + 8);
    for (size_t i = 0; i < n; i++) {
        static const unsigned power[] = {1, 3, 9, 27, 81};
        unsigned v = (unsigned)(q[i] + (1 << (bits - 1)) - 1);
        switch (how) {
        case PACK_TERNARY:
            out[i / 5] = (uint8_t)(out[i / 5] + (unsigned)(q[i] + 1) * power[i % 5]);
            break;
        case PACK_BITMASK:
            out[i / 8] |= (uint8_t)((q[i] != 0) << (7 - i % 8));
            if (q[i]) {
                out[mask + signs / 8] |= (uint8_t)((q[i] > 0) << (7 - signs % 8));
                signs++;
            }
            break;
        case PACK_BINARY:
            out[i / 8] |= (uint8_t)((q[i] > 0) << i % 8);
            break;
        case PACK_NIBBLE:
            out[i / 2] |= (uint8_t)((q[i] + 8) << 4 * (i % 2));
            break;
        case PACK_BITS:
            for (unsigned b = 0; b < bits; b++)
                out[(i * bits + b) / 8] |= (uint8_t)((v >> b & 1) << (i * bits + b) % 8);
        }
    }
    return how == PACK_TERNARY   ? (n + 4) / 5
           : how == PACK_BITMASK ? mask + (signs + 7) / 8
           : how == PACK_BINARY  ? mask
           : how == PACK_NIBBLE  ? (n + 1) / 2
                                 : (n * bits + 7) / 8;
}

static void known(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct guarded in = guarded_new(cases[i].in, cases[i].len);
        struct guarded out = guarded_new(NULL, cases[i].n);
        if (!import_unpack((int8_t *)out.p, cases[i].n, cases[i].how, cases[i].bits, in.p,
                           cases[i].len))
            fail_msg("%s: refused", cases[i].name);
        if (memcmp(out.p, cases[i].out, cases[i].n))
            fail_msg("%s: other numbers", cases[i].name);
        guarded_free(&in);
        guarded_free(&out);
    }
}

static void round_trips(void **state)
{
    enum { MOST = 100 };
    uint64_t seed = 1;
    (void)state;
    for (enum packing how = PACK_TERNARY; how <= PACK_BITS; how++)
        for (unsigned bits = 2; bits <= (how == PACK_BITS ? 8 : 2); bits++)
            for (size_t n = 0; n <= MOST; n++) {
                int8_t q[MOST], back[MOST + 1];
                uint8_t packed[MOST + 8];
                int top = how == PACK_BITS ? (1 << (bits - 1)) - 1 : how == PACK_NIBBLE ? 7 : 1;
                for (size_t i = 0; i < n; i++)
                    q[i] = (int8_t)(how == PACK_BINARY
                                        ? (util_below(&seed, 2) ? 1 : -1)
                                        : (int)util_below(&seed, 2 * (size_t)top + 1) - top);
                size_t len = pack(packed, q, n, how, bits);
                struct guarded g = guarded_new(packed, len);
                back[n] = 99;
                if (!import_unpack(back, n, how, bits, g.p, len) || memcmp(back, q, n) ||
                    back[n] != 99)
                    fail_msg("packing %d, %u bits, %zu numbers", (int)how, bits, n);
                if (import_unpack(back, n, how, bits, packed, len + 1) ||
                    (len && import_unpack(back, n, how, bits, packed, len - 1)))
                    fail_msg("packing %d, %u bits, %zu numbers: another length", (int)how, bits, n);
                guarded_free(&g);
            }
}

static void refused(void **state)
{
    static const uint8_t big[] = {243}, all[] = {255, 255};
    int8_t out[16];
    (void)state;
    assert_false(import_unpack(out, 5, PACK_TERNARY, 0, big, 1));
    assert_false(import_unpack(out, 2, PACK_BITS, 8, all, 2)); /* 255 - 127 is 128 */
    assert_false(import_unpack(out, 8, PACK_BITS, 1, all, 1));
    assert_false(import_unpack(out, 1, PACK_BITS, 9, all, 2));
    assert_false(import_unpack(out, SIZE_MAX / 4, PACK_BITS, 8, all, 2));
    assert_false(import_unpack(out, SIZE_MAX, PACK_BITMASK, 0, all, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
