/*
 * pcg64_test.c - exists for the draw that NumPy would not have made: another order of 32-bit
 * halves, another rejection, one uniform number more or less in a distribution. After such a slip
 * everything drawn later differs, so each case ends with a hash over many draws; hashes and first
 * values are what NumPy 2.4.6 gives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/pcg64.h"

enum { MOST = 400 };
enum kind { RAW, RANDOM, BELOW, PERMUTATION, BINOMIAL, MULTINOMIAL, CHOICE, MIXED };
static const char *const kind_name[] = {"raw",      "random",      "below",  "permutation",
                                        "binomial", "multinomial", "choice", "mixed"};

/* n: the range, length, trials or size; p: the probability, or for MULTINOMIAL and CHOICE the
 * number of weights. */
static const struct {
    enum kind kind;
    uint64_t seed, n;
    double p;
    size_t draws;
    uint64_t first[3], hash;
} cases[] = {
    {RAW,
     0u,
     0,
     0,
     1000,
     {11749869230777074271u, 4976686463289251617u, 755828109848996024u},
     0xd2c2519e40bd8b4d},
    {RAW,
     1337u,
     0,
     0,
     1000,
     {16198121026341300353u, 3422386826845690417u, 16987615008358326532u},
     0x7533c9f1808c4343},
    {RAW,
     4294967295u,
     0,
     0,
     1000,
     {4647538520743280031u, 4041050679407036418u, 5299467714154781845u},
     0x04fc978b691a94ba},
    {RAW,
     4294967296u,
     0,
     0,
     1000,
     {16412783775159424549u, 10277383025879800780u, 14774146505460541886u},
     0xd45e0ab997647be4},
    {RAW,
     18446744073709551615u,
     0,
     0,
     1000,
     {12544278110101001871u, 15593249672699323225u, 136562751618339402u},
     0x4189497b3e263516},
    {RANDOM,
     42u,
     0,
     0,
     1000,
     {6971176343755556u, 3953065555456575u, 7733562544347970u},
     0xd839467d028ccc32},
    {BELOW, 7u, 1, 0, 3, {0u, 0u, 0u}, 0x0000000000000000},
    {BELOW, 7u, 2, 0, 1000, {1u, 1u, 1u}, 0xd59302033b03a566},
    {BELOW, 7u, 48827, 0, 1000, {46136u, 30521u, 33406u}, 0x2b8a2c590c6b8e10},
    {BELOW, 7u, 2147483649, 0, 1000, {1926751966u, 1241873585u, 1790251937u}, 0x7794b6b3c07f2110},
    {BELOW, 7u, 4294967295, 0, 1000, {4058335882u, 2684764584u, 2938530452u}, 0xe97ba4f0fad5b3b5},
    {BELOW, 7u, 4294967296, 0, 1000, {4058335883u, 2684764585u, 2938530453u}, 0x9a7841087616e04f},
    {BELOW, 7u, 4294967297, 0, 1000, {2684764586u, 3853503933u, 3331544672u}, 0x41c250533dea2013},
    {BELOW,
     7u,
     9223372036854775807,
     0,
     1000,
     {5765488047046174020u, 8275336682942969161u, 7154437704795913392u},
     0x1e2307c70a34f5e8},
    {PERMUTATION, 9u, 3, 0, 300, {2u, 0u, 1u}, 0x5d93510314afc59c},
    {PERMUTATION, 9u, 384, 0, 50, {139u, 50u, 344u}, 0x326260185bba2084},
    {BINOMIAL, 11u, 1, 0.5, 1000, {0u, 0u, 1u}, 0x2c22c7cd2deb2fe8},
    {BINOMIAL, 11u, 376, 0.01, 1000, {2u, 4u, 4u}, 0x9d122cf8dc484c56},
    {BINOMIAL, 11u, 376, 0.99, 1000, {374u, 372u, 372u}, 0xd9def3a169afd38e},
    {BINOMIAL, 11u, 60, 0.5, 1000, {26u, 30u, 31u}, 0xdb97fd40e257ebf9},
    {BINOMIAL, 11u, 61, 0.5, 1000, {30u, 31u, 27u}, 0xa479af8d04ad9857},
    {BINOMIAL, 11u, 376, 0.125, 1000, {45u, 45u, 41u}, 0x318f14b97c12197b},
    {BINOMIAL, 11u, 376, 0.75, 1000, {286u, 291u, 291u}, 0x5017102555cb8418},
    {BINOMIAL, 11u, 1000000, 0.3, 1000, {299670u, 300770u, 299266u}, 0x5b55e680903e4d02},
    {BINOMIAL, 11u, 1000000000, 0.0001, 1000, {99773u, 100530u, 99495u}, 0xfc427fd5d8ecd4d7},
    {MULTINOMIAL, 13u, 376, 8, 200, {17u, 31u, 24u}, 0xe92cb79cc33858d8},
    {MULTINOMIAL, 13u, 320, 64, 200, {2u, 4u, 5u}, 0x1c6042ef58bac7d6},
    {MULTINOMIAL, 13u, 0, 5, 3, {0u, 0u, 0u}, 0x0000000000000000},
    {MULTINOMIAL, 13u, 5, 1, 3, {5u, 5u, 5u}, 0x2b3e660018798471},
    {MULTINOMIAL, 13u, 100000, 20, 200, {1278u, 2508u, 4006u}, 0xf9c3947c5aa30d94},
    {CHOICE, 17u, 8, 143, 200, {120u, 24u, 80u}, 0x6c4694a05d79674d},
    {CHOICE, 17u, 64, 80, 200, {67u, 13u, 45u}, 0x9abdfdb909562e1f},
    {CHOICE, 17u, 80, 80, 100, {67u, 13u, 45u}, 0x0272aed981e57634},
    {CHOICE, 17u, 1, 1, 3, {0u, 0u, 0u}, 0x0000000000000000},
    {MIXED, 19u, 1000, 0, 500, {589u, 8339489672620544u, 420u}, 0x313ba32b00500f45},
};

static void weights(double *w, size_t d)
{
    size_t sum = 0;
    for (size_t i = 0; i < d; i++)
        sum += i % 7 + 1;
    for (size_t i = 0; i < d; i++)
        w[i] = (double)(i % 7 + 1) / (double)sum;
}

static size_t from_signed(uint64_t *out, const int64_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint64_t)v[i];
    return n;
}

static size_t from_sizes(uint64_t *out, const size_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = v[i];
    return n;
}

/* One draw of a kind into out; how many values it has. */
static size_t draw(struct pcg64 *g, enum kind kind, uint64_t n, double p, uint64_t out[MOST])
{
    double w[MOST], work[2 * MOST];
    size_t perm[MOST], d = kind == MULTINOMIAL || kind == CHOICE ? (size_t)p : 0;
    int64_t count[MOST];
    weights(w, d);
    switch (kind) {
    case RAW:
        out[0] = pcg64_next(g);
        return 1;
    case RANDOM:
        out[0] = (uint64_t)(pcg64_random(g) * 0x1p53);
        return 1;
    case BELOW:
        out[0] = pcg64_below(g, n);
        return 1;
    case PERMUTATION:
        pcg64_permutation(g, perm, (size_t)n);
        return from_sizes(out, perm, (size_t)n);
    case BINOMIAL:
        count[0] = pcg64_binomial(g, (int64_t)n, p);
        return from_signed(out, count, 1);
    case MULTINOMIAL:
        pcg64_multinomial(g, count, (int64_t)n, w, d);
        return from_signed(out, count, d);
    case CHOICE:
        pcg64_choice(g, perm, (size_t)n, w, d, work);
        return from_sizes(out, perm, (size_t)n);
    case MIXED: /* a double between two halves: the waiting half must survive it */
        out[0] = pcg64_below(g, n);
        out[1] = (uint64_t)(pcg64_random(g) * 0x1p53);
        out[2] = pcg64_below(g, n);
        pcg64_permutation(g, perm, 5);
        return 3 + from_sizes(out + 3, perm, 5);
    }
    return 0;
}

static void golden(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct pcg64 g;
        uint64_t v[MOST], hash = 0;
        size_t seen = 0;
        pcg64_seed(&g, cases[c].seed);
        for (size_t i = 0; i < cases[c].draws; i++) {
            size_t n = draw(&g, cases[c].kind, cases[c].n, cases[c].p, v);
            for (size_t j = 0; j < n; j++, seen++) {
                if (seen < 3 && v[j] != cases[c].first[seen])
                    fail_msg("case %zu, %s: value %zu is %llu, expected %llu", c,
                             kind_name[cases[c].kind], seen, (unsigned long long)v[j],
                             (unsigned long long)cases[c].first[seen]);
                hash = (hash ^ v[j]) * 1099511628211u;
            }
        }
        if (hash != cases[c].hash)
            fail_msg("case %zu, %s: the first three values agree, a later one does not", c,
                     kind_name[cases[c].kind]);
    }
}

/* Without replacement means without; nothing of probability 0 is chosen. */
static void choice_is_a_set(void **state)
{
    struct pcg64 g;
    (void)state;
    pcg64_seed(&g, 23);
    for (size_t turn = 0; turn < 500; turn++) {
        double p[50], work[100];
        size_t out[50], possible = 1 + pcg64_below(&g, 50);
        bool seen[50] = {false};
        for (size_t i = 0; i < 50; i++)
            p[i] = i % 50 < possible ? 1.0 / (double)possible : 0;
        size_t size = 1 + pcg64_below(&g, possible);
        pcg64_choice(&g, out, size, p, 50, work);
        for (size_t i = 0; i < size; i++) {
            if (out[i] >= possible || seen[out[i]])
                fail_msg("turn %zu: %zu of %zu: number %zu", turn, size, possible, out[i]);
            seen[out[i]] = true;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(choice_is_a_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
