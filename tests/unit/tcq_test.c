/*
 * tcq_test.c - exists for a trellis search that returns a path which the decoder does not follow,
 * or follows to other levels, or which is not the cheapest.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stub/trellis.h"
#include "tests/unit/util.h"
#include "trainer/tcq.h"

static const size_t counts[] = {4, 8, 16, 32, 64, 128, 256};
enum { COUNTS = sizeof counts / sizeof *counts, ROWS = 700 };

static void *work_for(size_t rows, size_t states)
{
    size_t n = (tcq_work(rows, states) + 63) / 64 * 64;
    void *p = aligned_alloc(64, n + 64);
    assert_non_null(p);
    return p;
}

/* What the decoder makes of the symbols, and what that costs. */
static double decode(const int8_t *k, const float *x, const float *weight, size_t rows,
                     size_t states)
{
    struct trellis code = trellis_code((unsigned)states);
    unsigned s = 0;
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        double d = (double)x[r] - 0.5 * trellis_half(s, k[r]);
        sum += (weight ? (double)weight[r] : 1) * d * d;
        s = trellis_next(code, s, k[r]);
        assert_true(s < states);
    }
    return sum;
}

static void test_known_numbers(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 1024; n++) {
        bool power = n >= 4 && n <= 256 && !(n & (n - 1));
        if (tcq_states_ok(n) != power)
            fail_msg("%zu states", n);
    }
}

/* All paths whose symbols are within 2 of the wanted level, by brute force. */
static void test_cheapest(void **state)
{
    (void)state;
    enum { N = 6, SPAN = 5 };
    uint64_t seed = 5;
    for (size_t c = 0; c < COUNTS; c++)
        for (int trial = 0; trial < 20; trial++) {
            float x[N], weight[N];
            int8_t k[N], t[N];
            double best = INFINITY;
            size_t paths = 1;
            void *work = work_for(N, counts[c]);
            for (size_t i = 0; i < N; i++) {
                x[i] = (float)((double)util_below(&seed, 4000) / 1000 - 2);
                weight[i] = (float)(1 + util_below(&seed, 100)) / 50;
                paths *= SPAN;
            }
            double cost = (double)tcq_column(k, x, weight, N, counts[c], work);
            for (size_t p = 0; p < paths; p++) {
                size_t rest = p;
                for (size_t i = 0; i < N; i++, rest /= SPAN)
                    t[i] = (int8_t)((int)lrintf(x[i]) + (int)(rest % SPAN) - SPAN / 2);
                double d = decode(t, x, weight, N, counts[c]);
                best = d < best ? d : best;
            }
            double got = decode(k, x, weight, N, counts[c]);
            if (fabs(got - best) > 1e-5 || fabs(got - cost) > 1e-5)
                fail_msg("%zu states, trial %d: cost %g, decoded %g, best %g", counts[c], trial,
                         cost, got, best);
            free(work);
        }
}

static double normal(uint64_t *seed)
{
    double s = -6;
    for (int i = 0; i < 12; i++)
        s += (double)util_below(seed, 1 << 20) / (1 << 20);
    return s;
}

/* Long columns: what the search says is what the decoder gets, and the error is below that of plain
 * rounding (1/12) by what the literature says, up to 1.4 dB. */
static void test_gain(void **state)
{
    (void)state;
    static float x[ROWS];
    static int8_t k[ROWS];
    uint64_t seed = 9;
    double before = 0.8;
    for (size_t i = 0; i < ROWS; i++)
        x[i] = (float)(3 * normal(&seed));
    for (size_t c = 0; c < COUNTS; c++) {
        void *work = work_for(ROWS, counts[c]);
        double cost = (double)tcq_column(k, x, NULL, ROWS, counts[c], work);
        double got = decode(k, x, NULL, ROWS, counts[c]), gain = 10 * log10(ROWS / (12 * got));
        if (fabs(cost - got) > 1e-3 * got || gain < before - 0.05 || gain > 1.5)
            fail_msg("%zu states: cost %g, decoded %g, gain %.3f dB", counts[c], cost, got, gain);
        before = gain;
        free(work);
    }
}

/* Far outside the symbols' range, and not at all. */
static void test_edges(void **state)
{
    (void)state;
    const float x[] = {1e6f, -1e6f, 0, 127.5f, -127.5f, 1e30f, 0};
    enum { N = sizeof x / sizeof *x };
    for (size_t c = 0; c < COUNTS; c++) {
        int8_t k[N];
        void *work = work_for(N, counts[c]);
        tcq_column(k, x, NULL, N, counts[c], work);
        for (size_t i = 0; i < N; i++)
            if (k[i] < -TCQ_MAX_SYMBOL)
                fail_msg("%zu states, row %zu: symbol %d", counts[c], i, k[i]);
        assert_true(k[0] > 120 && k[1] < -120);
        assert_true(tcq_column(k, x, NULL, 0, counts[c], work) <= 0);
        free(work);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_numbers),
        cmocka_unit_test(test_cheapest),
        cmocka_unit_test(test_gain),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
